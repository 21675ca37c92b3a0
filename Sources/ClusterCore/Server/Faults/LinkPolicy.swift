import Base
import NIOConcurrencyHelpers
import Synchronization

/// What becomes of messages between members: the seam at which link faults act. Consulted for every batch, by the sender for the whole
/// treatment and by the receiver for a cut.
public protocol LinkPolicy: Sendable {
    /// nil: the link is sound.
    func treatment(from: MemberID, to: MemberID) -> LinkTreatment?
    /// `changed` is called from then on, on any thread, when treatments change. The latest observer takes the place of the one before.
    func observe(_ changed: @escaping @Sendable () -> Void)
}

extension LinkPolicy {
    func isCut(from: MemberID, to: MemberID) -> Bool { treatment(from: from, to: to)?.isCut ?? false }
}

/// Everything gets through.
public struct OpenLinks: LinkPolicy {
    public init() {}
    public func treatment(from: MemberID, to: MemberID) -> LinkTreatment? { nil }
    public func observe(_ changed: @escaping @Sendable () -> Void) {}
}

/// Links as a plan wants them.
public final class FaultyLinks: LinkPolicy {
    private struct Pair: Hashable {
        var from: MemberID
        var to: MemberID
    }
    private struct State {
        var treatments: [Pair: LinkTreatment] = [:]
        var changed: (@Sendable () -> Void)?
    }
    /// Spares the lock where there is nothing to look up.
    private let areSound = Atomic<Bool>(true)
    private let state = NIOLockedValueBox(State())
    public init() {}

    public func treatment(from: MemberID, to: MemberID) -> LinkTreatment? {
        if areSound.load(ordering: .acquiring) { return nil }
        return state.withLockedValue { $0.treatments[Pair(from: from, to: to)] }
    }

    public func observe(_ changed: @escaping @Sendable () -> Void) { state.withLockedValue { $0.changed = changed } }

    public func obey(_ plan: FaultPlan) {
        // A plan names each link once.
        let treatments = Dictionary(plan.links.map { (Pair(from: MemberID($0.from), to: MemberID($0.to)), $0.treatment) }) { $1 }
        let changed = state.withLockedValue { state -> (@Sendable () -> Void)? in
            guard state.treatments != treatments else { return nil }
            state.treatments = treatments
            areSound.store(treatments.isEmpty, ordering: .releasing)
            return state.changed
        }
        changed?()
    }
}
