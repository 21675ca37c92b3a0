import Base
import Simulation

/// Says of a run's evidence what was wrong with it. Pure.
enum Judge {
    struct Verdict: Sendable {
        var violations: [Violation]
        var revisions: Int
        var watchEvents = 0
        /// What the search without the truth says: `linearizable`, or `undecided` when it had no end.
        var search = "violated"
    }

    /// - Parameter searchBudget: steps of the search without the truth, at most.
    static func judge(_ evidence: Evidence, searchBudget: Int) -> Verdict {
        let truth = Truth(evidence)
        var verdict = Verdict(violations: evidence.reports + truth.violations, revisions: truth.revisions.count)
        verdict.watchEvents = evidence.watches.reduce(0) { sum, watch in
            sum + watch.messages.reduce(0) { if case .events(let events, _, _) = $1.message { $0 + events.count } else { $0 } }
        }
        // Needs no truth. Ranges and transactions join all keys, so that it often has no end within its budget.
        var search = LinearizabilitySearch(budget: searchBudget)
        switch search.check(evidence.operations) {
        case .linearizable: verdict.search = "linearizable"
        case .violated(let violations): verdict.violations += violations
        case .undecided: verdict.search = "undecided"
        }
        // Without one history there is nothing to compare with.
        guard truth.violations.isEmpty else { return verdict }
        var history = TrueHistory()
        for revision in truth.revisions { history.append(revision) }
        if evidence.compactRevision > 0 { history.compact(to: evidence.compactRevision, at: 0) }
        verdict.violations += calls(evidence, truth, history)
        for watch in evidence.watches { verdict.violations += checkWatch(watch, truth: history, trustsMoments: false) }
        verdict.violations += ends(evidence, history)
        return verdict
    }

    /// Clients' calls and leases against the truth, in the order in which clients learned of things.
    private static func calls(_ evidence: Evidence, _ truth: Truth, _ history: TrueHistory) -> [Violation] {
        enum Fact {
            case told(revision: Int64)
            case leaseExpired(Int64)
            case ended(ClientOperation)
        }
        var facts: [(at: Moment, place: Int, fact: Fact)] = []
        func add(_ at: Moment, _ fact: Fact) { facts.append((at, facts.count, fact)) }
        for watch in evidence.watches {
            for (at, message) in watch.messages { add(at, .told(revision: WatchChecker.shownRevision(message))) }
        }
        // A lease that somebody revoked, or may have, did not have to run out.
        var revoked: Set<Int64> = []
        for operation in evidence.operations {
            if case .leaseRevoke(let id) = operation.call { revoked.insert(id) }
        }
        for revision in truth.revisions where revision.events.allSatisfy({ $0.isDelete }) {
            guard let lease = revision.events[0].previous?.lease, lease != 0, !revoked.contains(lease),
                  revision.events.allSatisfy({ $0.previous?.lease == lease }), !isDelete(revision, by: evidence.operations) else { continue }
            add(revision.at, .leaseExpired(lease))
        }
        for operation in evidence.operations { add(operation.end, .ended(operation)) }
        facts.sort { ($0.at, $0.place) < ($1.at, $1.place) }

        var violations: [Violation] = []
        var calls = ClientHistoryChecker(trustsMoments: false)
        // Nobody knows from outside how long the cluster was without a leader: that a lease lives too long is not judged.
        var leases = LeaseChecker(.init(overdueBound: .max / 2, trustsMoments: false))
        for (at, _, fact) in facts {
            switch fact {
            case .told(let revision): calls.observe(revision: revision, at: at)
            case .leaseExpired(let lease): violations += leases.ended(lease, byExpiry: true, at: at)
            case .ended(let operation):
                violations += calls.check(operation, truth: history)
                violations += leases.check(operation)
            }
        }
        violations += calls.finish(truth: history)
        if calls.unverifiable > 0 { violations.append(Violation("harness", "\(calls.unverifiable) calls could not be checked")) }
        return violations
    }

    /// Whether a client's delete made it, or may have.
    private static func isDelete(_ revision: TrueRevision, by operations: [ClientOperation]) -> Bool {
        operations.contains { operation in
            guard case .delete(let key, let end) = operation.call else { return false }
            switch operation.outcome {
            case .done(let told, _, let count, _): return told == revision.revision && count > 0
            case .unknown: return end.isEmpty ? revision.events.contains { $0.kv.key == key } : true
            case .refused, .lease: return false
            }
        }
    }

    /// All members hold the same, and what the history says.
    private static func ends(_ evidence: Evidence, _ history: TrueHistory) -> [Violation] {
        let expected = history.range([0], [0], at: history.revision)
        var violations: [Violation] = []
        func same<Value: Hashable>(_ invariant: String, _ what: String, _ value: (Evidence.MemberEnd) -> Value) {
            guard Set(evidence.ends.map(value)).count > 1 else { return }
            violations.append(Violation(invariant, "\(what): " + evidence.ends.map { "\($0.name) \(value($0))" }.joined(separator: ", ")))
        }
        same("hash", "HashKV at revision \(evidence.finalRevision)") { $0.hash }
        same("hash", "HashKV at the compact revision \(evidence.compactRevision)") { $0.hashAtCompaction }
        same("compaction", "compact revision") { $0.compactRevision }
        for end in evidence.ends {
            if end.count != Int64(expected.count) { violations.append(Violation("key-count", "\(end.name) counts \(end.count) keys, expected \(expected.count)")) }
            if end.content != expected {
                violations.append(Violation("content", "\(end.name) holds \(end.content.map { Truth.text($0) }), expected \(expected.map { Truth.text($0) })"))
            }
        }
        return violations
    }
}
