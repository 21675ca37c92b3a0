import Base
import Foundation

/// Many seeds, several at a time.
public struct Campaign: Sendable {
    public var profile: Profile
    public var first: UInt64
    public var count: UInt64
    public var simulated: TimeSpan
    public var jobs: Int

    public init(profile: Profile, first: UInt64, count: UInt64, simulated: TimeSpan, jobs: Int) {
        self.profile = profile
        self.first = first
        self.count = count
        self.simulated = simulated
        self.jobs = jobs
    }

    public struct Summary: Sendable {
        public var profile: Profile
        public var runs: UInt64 = 0
        public var failures: UInt64 = 0
        /// Virtual seconds in all, and those of the clock on the wall.
        public var simulatedSeconds = 0.0
        public var elapsedSeconds = 0.0
        public var events: UInt64 = 0
        public var calls = 0
        public var faults = 0
        /// Virtual seconds a second.
        public var speed: Double { elapsedSeconds > 0 ? simulatedSeconds / elapsedSeconds : 0 }
        public var text: String {
            "\(runs) runs of profile \(profile.rawValue), \(failures) failed: \(Int(simulatedSeconds / 3600)) h \(Int(simulatedSeconds) % 3600 / 60) min simulated in \(Int(elapsedSeconds)) s, "
                + "\(Int(speed)) simulated seconds a second, \(Int(Double(events) / max(elapsedSeconds, 0.001))) events a second, \(calls) calls, \(faults) faults"
        }
    }

    /// - Parameter finished: called for each run as it ends, from one thread at a time.
    public func run(_ finished: @escaping @Sendable (RunResult, Summary) -> Void) -> Summary {
        let shared = Shared(Summary(profile: profile), next: first)
        let start = Date()
        let group = DispatchGroup()
        for _ in 0..<max(1, min(jobs, Int(clamping: count))) {
            group.enter()
            let thread = Thread { [self] in
                while let seed = shared.take(below: first &+ count) {
                    let result = Simulation.run(seed: seed, profile: profile, simulated: simulated)
                    shared.add(result, elapsed: Date().timeIntervalSince(start), finished)
                }
                group.leave()
            }
            thread.stackSize = 8 << 20
            thread.start()
        }
        group.wait()
        return shared.summary
    }

    private final class Shared: @unchecked Sendable {
        // @unchecked: everything under the lock.
        private let lock = NSLock()
        private var next: UInt64
        private var total: Summary
        init(_ total: Summary, next: UInt64) {
            self.total = total
            self.next = next
        }
        var summary: Summary { lock.withLock { total } }
        func take(below end: UInt64) -> UInt64? {
            lock.withLock {
                guard next != end else { return nil }
                defer { next &+= 1 }
                return next
            }
        }
        func add(_ result: RunResult, elapsed: Double, _ finished: (RunResult, Summary) -> Void) {
            lock.withLock {
                total.runs += 1
                total.failures += result.violation == nil ? 0 : 1
                total.simulatedSeconds += Double(result.simulated) / 1e9
                total.elapsedSeconds = elapsed
                total.events += result.events
                total.calls += result.statistics.calls
                total.faults += result.statistics.faults
                finished(result, total)
            }
        }
    }
}

extension RunResult {
    /// One object; keys are stable.
    public var json: String {
        let object: [String: Any] = [
            "seed": seed, "profile": profile.rawValue, "simulated_seconds": Double(simulated) / 1e9, "events": events, "digest": hex(digest),
            "violation": violation?.invariant ?? NSNull(), "detail": violation?.detail ?? NSNull(), "replay": failure ?? NSNull(), "dials": dials,
            "calls": statistics.calls, "acknowledged": statistics.acknowledged, "unknown": statistics.unknown, "revisions": statistics.revisions,
            "faults": statistics.faults, "deaths": statistics.deaths, "snapshots": statistics.snapshots, "watch_events": statistics.watchEvents,
            "rests": statistics.rests,
        ]
        guard let data = try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys]) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }
}
