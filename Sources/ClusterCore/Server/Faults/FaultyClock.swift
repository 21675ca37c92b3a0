import Base
import NIOConcurrencyHelpers
import Synchronization

/// A clock that lies as a plan wants it. Its monotonic side never goes back; healed, it runs as fast as the real one again, from where it is.
public final class FaultyClock: NodeClock {
    private struct State {
        var treatment = ClockTreatment()
        /// Where the present rate began: what the real clock showed, what this one showed, and how far the wall clock had drifted.
        var realAnchor = Instant.zero
        var anchor = Instant.zero
        var wallDrift = TimeSpan.zero
        var changed: (@Sendable () -> Void)?

        func now(_ real: Instant) -> Instant { anchor + (real - realAnchor) + drift(real) }
        /// Since the anchor.
        func drift(_ real: Instant) -> TimeSpan {
            TimeSpan(clampingNanoseconds: Double((real - realAnchor).nanoseconds) * Double(treatment.driftPartsPerMillion) / 1e6)
        }
    }
    private let base: any NodeClock
    /// Spares the lock as long as nothing was ever bent.
    private let isTrue = Atomic<Bool>(true)
    private let state = NIOLockedValueBox(State())

    public init(_ base: any NodeClock = SystemClock()) { self.base = base }

    public func now() -> Instant {
        let real = base.now()
        if isTrue.load(ordering: .acquiring) { return real }
        return state.withLockedValue { $0.now(real) }
    }

    public func wall() -> WallTime {
        let wall = base.wall()
        return isTrue.load(ordering: .acquiring) ? wall : WallTime(milliseconds: wall.milliseconds + wallError().milliseconds)
    }

    public func wallMicroseconds() -> Int64 {
        let wall = base.wallMicroseconds()
        return isTrue.load(ordering: .acquiring) ? wall : wall + wallError().nanoseconds / 1_000
    }

    private func wallError() -> TimeSpan {
        let real = base.now()
        return state.withLockedValue { .milliseconds($0.treatment.offsetMilliseconds) + $0.wallDrift + $0.drift(real) }
    }

    public func realTime(for span: TimeSpan) -> TimeSpan {
        if isTrue.load(ordering: .acquiring) { return span }
        let drift = state.withLockedValue { $0.treatment.driftPartsPerMillion }
        return drift == 0 ? span : TimeSpan(clampingNanoseconds: Double(span.nanoseconds) * 1e6 / Double(1_000_000 + drift))
    }

    public func observe(_ changed: @escaping @Sendable () -> Void) { state.withLockedValue { $0.changed = changed } }

    public func obey(_ treatment: ClockTreatment) {
        let treatment = treatment.bounded
        let changed = state.withLockedValue { state -> (@Sendable () -> Void)? in
            guard treatment != state.treatment else { return nil }
            let real = base.now()
            let leap = max(0, treatment.leapMilliseconds - state.treatment.leapMilliseconds)
            let drifted = state.drift(real)
            state.anchor = state.now(real) + .milliseconds(leap)
            state.realAnchor = real
            // A wall clock is set right again when it is healed.
            state.wallDrift = treatment.driftPartsPerMillion == 0 ? .zero : state.wallDrift + drifted
            state.treatment = treatment
            isTrue.store(false, ordering: .releasing)
            return state.changed
        }
        changed?()
    }
}
