import Synchronization
import UI

/// What was heard while a scenario runs: from nodes, the canary and the load. Any thread adds, the runner asks.
final class ScenarioLog: Sendable {
    struct Facts: Sendable {
        var tally = ElectionTally()
        var canary = WriteRecord()
        var canaryCheck = CanaryCheck()
        /// Verdicts of loads that have ended, and of the one that runs.
        var pastLoads: [ConsistencyVerdict] = []
        var load: ConsistencyVerdict?
        var failedOperations = 0
        /// Loads that have ended and read everything back.
        var endedLoads = 0
        var snapshotsInstalled = 0
        /// The first thing that went wrong with the nodes themselves.
        var trouble: String?

        var verdicts: [ConsistencyVerdict] { pastLoads + [load].compactMap { $0 } }
        var acknowledgedWrites: Int { verdicts.reduce(0) { $0 + $1.acknowledgedWrites } }
        var violations: [String] { verdicts.flatMap(\.violations) }
        /// Acknowledged and, as far as everything was read back, not there.
        var lostWrites: Int { canaryCheck.lost + pastLoads.reduce(0) { $0 + max(0, $1.acknowledgedWrites - $1.confirmedWrites) } }
    }

    private let state = Mutex(Facts())
    var facts: Facts { state.withLock { $0 } }

    func change(_ body: (inout Facts) -> Void) { state.withLock { body(&$0) } }

    /// Everything that is posted to the console.
    func heard(_ event: DataEvent) {
        switch event {
        case .canary(let writes): change { $0.canary.add(writes) }
        case .canaryCheck(let check): change { $0.canaryCheck = check }
        case .workload(let sample):
            change { facts in
                facts.failedOperations += sample.failed
                facts.load = sample.verdict
                guard sample.isFinal else { return }
                facts.pastLoads.append(sample.verdict)
                facts.load = nil
                facts.endedLoads += 1
            }
        case .raft(let events):
            change { facts in
                for event in events {
                    switch event.kind {
                    case .elected: facts.tally.elected(event.node, term: event.term, at: event.atMicroseconds / 1_000)
                    case .snapshotInstalled: facts.snapshotsInstalled += 1
                    default: break
                    }
                }
            }
        case .notice(let text, isBad: true): change { $0.trouble = $0.trouble ?? text }
        default: break
        }
    }
}

/// How a node sees its cluster, as last heard of.
struct NodeView: Hashable, Sendable {
    enum Process: Hashable, Sendable { case starting, running, paused, down }

    var id: UInt64
    var process: Process
    /// It answered lately.
    var isHeard: Bool
    /// 0: it knows none.
    var leader: UInt64 = 0
    var term: UInt64 = 0
    var commit: UInt64 = 0
    var applied: UInt64 = 0
    var revision: Int64 = 0

    var isUp: Bool { process == .running && isHeard }
}

extension [NodeView] {
    /// The leader of the newest term that a majority of all nodes follows.
    var agreedLeader: (id: UInt64, term: UInt64)? {
        for view in self where view.isUp && view.leader == view.id && view.leader != 0 {
            let followers = self.count { $0.isUp && $0.leader == view.id && $0.term == view.term }
            if followers > self.count / 2 { return (view.id, view.term) }
        }
        return nil
    }
}
