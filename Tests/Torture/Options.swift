import Base
import Foundation

/// What one run is. Everything else follows from the seed: settings of the members, what clients ask, which faults come when.
struct TortureOptions: Sendable {
    enum Engine: String, CaseIterable, Sendable {
        case quarterdeck
        /// Real etcd, for comparison: what passes there says that the harness asks nothing impossible.
        case etcd
    }
    enum Profile: String, CaseIterable, Sendable {
        /// SIGKILL and a new start; of one, of the leader, of all at once.
        case kill
        /// SIGSTOP and SIGCONT.
        case pause
        /// The links between members: cut both ways and one way, slow, late, reset.
        case net
        /// fsync slow, stuck, failing; a full disk. Not for etcd, which has no seam for it.
        case disk
        case all
        case none
    }

    var seed: UInt64
    /// How long faults go on; the load before them and the end come on top.
    var seconds = 60.0
    var nodeCount = 3
    var clientCount = 8
    var engine = Engine.quarterdeck
    var profile = Profile.all
    /// The program `quarterdeck`; with `etcd` it is what binds the children's lives to ours.
    var binary: String
    var etcdBinary: String?
    /// Gets data, logs and, when the run fails or `keeps` is set, the history.
    var directory: String
    var keeps = false
    /// Acknowledged calls a second before the first fault, below which a run says nothing.
    var minimumRate = 50.0
    /// Load before the first fault.
    var warmUpSeconds = 3.0
    /// Steps of the search for an order of all calls; a million takes up to a minute in release, ten times that in debug.
    var searchBudget = 2_000_000
    /// Told on standard error as the run goes on.
    var isQuiet = false

    /// What repeats the run.
    var command: String {
        "torture --seed \(seed) --duration \(seconds.formatted(.number.grouping(.never)))s --nodes \(nodeCount) --clients \(clientCount) --profile \(profile.rawValue)"
            + (engine == .etcd ? " --engine etcd" : "") + " --binary \(binary)"
    }
}

/// What the seed decides about a run besides its faults.
struct Settings: Sendable {
    enum Compaction: String, Sendable {
        case none
        /// Every few seconds, and only behind what every recorder has seen.
        case seldom
        /// Several times a second, behind what the best recorder has seen; the others may be overtaken.
        case often
    }
    var heartbeatMilliseconds: Int
    var electionMilliseconds: Int
    var snapshotCount: Int
    var catchUpEntries: Int
    var callTimeoutMilliseconds: Int64
    /// Between two calls of one client, at most.
    var pauseMilliseconds: Int
    var compaction: Compaction

    init(seed: UInt64) {
        var generator = SeededGenerator(seed: seed).split("settings")
        let pace = [(50, 500), (100, 1_000)].randomElement(using: &generator)!
        heartbeatMilliseconds = pace.0
        electionMilliseconds = pace.1
        snapshotCount = [50, 100, 1_000, 10_000].randomElement(using: &generator)!
        catchUpEntries = [10, 100, 5_000].randomElement(using: &generator)!
        callTimeoutMilliseconds = [300, 600, 1_500].randomElement(using: &generator)!
        pauseMilliseconds = [4, 15, 30].randomElement(using: &generator)!
        compaction = [.none, .seldom, .often].randomElement(using: &generator)!
    }

    var description: String {
        "heartbeat \(heartbeatMilliseconds) ms, election \(electionMilliseconds) ms, snapshot every \(snapshotCount), catch-up \(catchUpEntries), "
            + "call timeout \(callTimeoutMilliseconds) ms, pause up to \(pauseMilliseconds) ms, compaction \(compaction.rawValue)"
    }
}

/// Nanoseconds since the run began, the same clock for all that observe it.
struct RunClock: Sendable {
    private let start = ContinuousClock.now
    func now() -> Int64 { Int64((ContinuousClock.now - start) / .nanoseconds(1)) }
}

struct TortureError: Error, CustomStringConvertible {
    /// One line.
    var description: String
    init(_ description: String) { self.description = description }
}

/// Waits for a condition, looking often. False: not in time.
func condition(withinSeconds seconds: Double, everyMilliseconds step: Int = 20, isolation: isolated (any Actor)? = #isolation,
               _ holds: () async throws -> Bool) async rethrows -> Bool {
    let limit = ContinuousClock.now + .seconds(seconds)
    while true {
        // The time is taken before the look, so that a machine that stalls never turns a true condition into a failure.
        let isLast = ContinuousClock.now > limit
        if try await holds() { return true }
        if isLast || Task.isCancelled { return false }
        try? await Task.sleep(for: .milliseconds(step))
    }
}
