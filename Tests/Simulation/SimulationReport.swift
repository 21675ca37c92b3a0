import Base
import DequeModule
import Replica

/// Totals of a run.
public struct Statistics: Sendable {
    public var turns: UInt64 = 0
    public var messages: UInt64 = 0
    public var syncs: UInt64 = 0
    public var starts = 0
    public var deaths = 0
    public var diskFailures = 0
    public var refusedStarts = 0
    public var snapshots = 0
    public var failedTransfers = 0
    public var calls = 0
    public var acknowledged = 0
    public var unknown = 0
    public var refused = 0
    /// Of those refused, for want of a right.
    public var denied = 0
    public var watchEvents = 0
    public var faults = 0
    public var membershipChanges = 0
    public var rests = 0
    public var revisions: Int64 = 0
    public init() {}
}

/// The latest events in words, for a person who replays a failure.
public struct Trace: Sendable {
    private var lines = Deque<String>()
    private let limit: Int
    /// Given each line as it happens as well.
    private let print: (@Sendable (String) -> Void)?
    public init(limit: Int = 2_000, print: (@Sendable (String) -> Void)? = nil) {
        self.limit = limit
        self.print = print
    }
    mutating func add(_ simulation: Simulation, _ text: @autoclosure () -> String) {
        let line = "\(seconds(simulation.time)) #\(simulation.events) \(text())"
        print?(line)
        lines.append(line)
        if lines.count > limit { lines.removeFirst() }
    }
    public var text: [String] { Array(lines) }
}

/// Seconds with milliseconds, the same in every locale.
func seconds(_ moment: Moment) -> String {
    let milliseconds = moment / 1_000_000
    let rest = String(milliseconds % 1000)
    return "\(milliseconds / 1000).\(String(repeating: "0", count: 3 - rest.utf8.count))\(rest)"
}

/// What became of one run.
public struct RunResult: Sendable {
    public var seed: UInt64
    public var profile: Profile
    /// Virtual nanoseconds.
    public var simulated: Moment
    public var events: UInt64
    public var digest: UInt64
    public var violation: Violation?
    public var statistics: Statistics
    public var dials: String
    /// Everything needed to see it again, on one line.
    public var failure: String?
    /// One line a node at the end.
    public var nodes: [String]
    public var trace: [String]
}

extension Simulation {
    /// Runs one seed for a span of virtual time.
    /// - Parameters:
    ///   - events: stops after this many, for a look at the state just before a failure.
    ///   - trace: keeps the latest events in words; slower.
    public static func run(seed: UInt64, profile: Profile, simulated span: TimeSpan, events: UInt64 = .max, trace: Trace? = nil) -> RunResult {
        let simulation = Simulation(seed: seed, profile: profile)
        simulation.trace = trace
        simulation.run(until: span.nanoseconds, events: events)
        if simulation.violation == nil, events == .max { simulation.finish() }
        return simulation.result
    }

    public var result: RunResult {
        var statistics = statistics
        statistics.revisions = world.truth.revision
        var failure: String?
        if let violation {
            let node = violator.map { "n\($0.number)" } ?? "-"
            failure = "SIM-FAIL seed=\(seed) profile=\(dials.profile.rawValue) event=\(events) t=\(seconds(time))s node=\(node) invariant=\(violation.invariant) "
                + "detail=\"\(violation.detail)\" digest=\(hex(digest)) replay: quarterdeck simulate --seed \(seed) --profile \(dials.profile.rawValue) --until \(events + 10) --trace"
        }
        return RunResult(seed: seed, profile: dials.profile, simulated: time, events: events, digest: digest, violation: violation, statistics: statistics,
                         dials: description, failure: failure, nodes: nodes.map(describe), trace: trace?.text ?? [])
    }

    private func describe(_ node: SimulatedNode) -> String {
        var text = "n\(node.number) \(node.id)"
        guard let process = node.process else { return text + (node.isLost ? " lost" : node.isMember ? " down" : " not a member") }
        let seen = process.seen
        text += node.isPaused ? " paused" : " \(seen.role)"
        return text + " term \(seen.term) applied \(seen.applied) commit \(seen.commit) last \(process.shadow.last)@\(process.shadow.lastTerm) durable \(node.durable.last) revision \(seen.revision)"
    }

    private var description: String {
        "nodes=\(dials.nodes)+\(dials.spares) clients=\(dials.clients) users=\(dials.users) watchers=\(dials.watchers) election=\(dials.options.raft.electionTimeout.milliseconds)ms "
            + "latency=\(dials.latency.upperBound / 1000)us faults=\(dials.faultNames)"
    }
}
