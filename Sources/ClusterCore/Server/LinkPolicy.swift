import Base
import NIOConcurrencyHelpers

/// Which messages between members get through: the seam at which link faults act. Consulted for every batch at both ends.
public protocol LinkPolicy: Sendable {
    func delivers(from: MemberID, to: MemberID) -> Bool
}

/// Everything gets through.
public struct OpenLinks: LinkPolicy {
    public init() {}
    public func delivers(from: MemberID, to: MemberID) -> Bool { true }
}

/// Links that a person can cut and heal, one direction at a time. Shared by the nodes of a playground.
public final class SwitchedLinks: LinkPolicy {
    private struct Link: Hashable {
        var from: MemberID
        var to: MemberID
    }
    private let cuts = NIOLockedValueBox<(links: Set<Link>, isolated: Set<MemberID>)>(([], []))
    public init() {}

    public func delivers(from: MemberID, to: MemberID) -> Bool {
        cuts.withLockedValue {
            $0.links.isEmpty && $0.isolated.isEmpty
                || !$0.isolated.contains(from) && !$0.isolated.contains(to) && !$0.links.contains(Link(from: from, to: to))
        }
    }
    public func cut(from: MemberID, to: MemberID) { cuts.withLockedValue { _ = $0.links.insert(Link(from: from, to: to)) } }
    public func heal(from: MemberID, to: MemberID) { cuts.withLockedValue { _ = $0.links.remove(Link(from: from, to: to)) } }
    /// Cuts every link of the member, both ways.
    public func isolate(_ member: MemberID) { cuts.withLockedValue { _ = $0.isolated.insert(member) } }
    public func rejoin(_ member: MemberID) { cuts.withLockedValue { _ = $0.isolated.remove(member) } }
    public func isIsolated(_ member: MemberID) -> Bool { cuts.withLockedValue { $0.isolated.contains(member) } }
    public func healAll() { cuts.withLockedValue { $0 = ([], []) } }
}
