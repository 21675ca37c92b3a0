import Base
import Simulation

/// Says of a run's evidence what was wrong with it. Pure.
enum Judge {
    struct Verdict: Sendable {
        var violations: [Violation]
        var revisions: Int
        var watchEvents: Int
    }

    static func judge(_ evidence: Evidence) -> Verdict {
        let truth = Truth(evidence)
        var violations = evidence.reports + truth.violations
        // Without one history there is nothing to compare with.
        if truth.violations.isEmpty {
            violations += writes(evidence, truth.revisions)
            violations += ends(evidence, truth.revisions)
        }
        let events = evidence.watches.reduce(0) { sum, watch in
            sum + watch.messages.reduce(0) { if case .events(let events, _, _) = $1.message { $0 + events.count } else { $0 } }
        }
        return Verdict(violations: violations, revisions: truth.revisions.count, watchEvents: events)
    }

    /// What was acknowledged is there, once, at its revision; what was refused is not.
    private static func writes(_ evidence: Evidence, _ revisions: [TrueRevision]) -> [Violation] {
        var places: [Key: [Int64]] = [:]
        for revision in revisions {
            for event in revision.events where !event.isDelete { places[Key(event.kv.value), default: []].append(revision.revision) }
        }
        var violations: [Violation] = []
        func check(_ operation: Simulation.Operation, _ value: [UInt8], isExpected: Bool) {
            let found = places[Key(value)] ?? []
            let who = "client \(operation.client), \(Truth.name(operation.member)), value \(Truth.text(value))"
            switch operation.outcome {
            case .done(let revision, _, _, _) where isExpected:
                if found != [revision] { violations.append(Violation("write-lost", "\(who): acknowledged at revision \(revision), found at \(found)")) }
            case .done, .refused:
                if !found.isEmpty { violations.append(Violation("write-unasked", "\(who): refused, yet done at \(found)")) }
            case .unknown:
                if found.count > 1 { violations.append(Violation("write-twice", "\(who): done at \(found)")) }
            case .lease: break
            }
        }
        for operation in evidence.operations {
            switch operation.call {
            case .put(_, let value, _): check(operation, value, isExpected: true)
            case .putAll(let pairs): for pair in pairs { check(operation, pair.value, isExpected: true) }
            case .compareAndSwap(_, _, let value):
                var hasSwapped = true
                if case .done(_, _, _, let succeeded) = operation.outcome { hasSwapped = succeeded }
                check(operation, value, isExpected: hasSwapped)
            case .delete, .range, .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: break
            }
        }
        return violations
    }

    /// All members hold the same, and what the history says.
    private static func ends(_ evidence: Evidence, _ revisions: [TrueRevision]) -> [Violation] {
        var state: [Key: SeenKeyValue] = [:]
        for revision in revisions {
            for event in revision.events { state[Key(event.kv.key)] = event.isDelete ? nil : event.kv }
        }
        let expected = state.values.sorted { Key($0.key) < Key($1.key) }
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
