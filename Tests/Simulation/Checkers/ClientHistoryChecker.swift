import Base

/// What was known when: a value that only grows, with the moments at which it grew.
struct Steps: Sendable {
    private var steps: [(at: Moment, value: Int64)] = []
    private var head = 0
    private(set) var newest: Int64

    init(_ initial: Int64) { newest = initial }

    /// Precondition: `at` does not go back.
    mutating func raise(to value: Int64, at: Moment) {
        guard value > newest else { return }
        if steps.isEmpty { steps.append((.min, newest)) }
        newest = value
        if steps[steps.count - 1].at == at { steps[steps.count - 1].value = value } else { steps.append((at, value)) }
    }

    /// The value just before `moment`.
    func value(before moment: Moment) -> Int64 {
        guard let last = steps.last else { return newest }
        if last.at < moment { return last.value }
        var low = head
        var high = steps.count
        while low < high {
            let middle = (low + high) / 2
            if steps[middle].at < moment { low = middle + 1 } else { high = middle }
        }
        return steps[max(low - 1, head)].value
    }

    /// Nobody asks before `moment` any more.
    mutating func forget(before moment: Moment) {
        while head + 1 < steps.count, steps[head + 1].at < moment { head += 1 }
        if head > 256, head * 2 > steps.count {
            steps.removeFirst(head)
            head = 0
        }
    }
}

/// The client history against the truth. Promises:
/// - *linearizability*: the acknowledged calls took effect one after the other, each between its start and its end: writes in the order
///   of their revisions, reads at their header's revision. A read shows exactly the state there; nothing that was acknowledged to anyone
///   (or seen by a watch, see `observe`) before a call began is missing in it.
/// - *serializable reads* and reads at an explicit revision show exactly the state at that revision; refusals for compacted and future
///   revisions are true.
/// - *exactly once*: every acknowledged write stands in the truth once, at its revision and with its content; an unknown one at most
///   once; a refused one never; and nothing else stands there.
///
/// Demands on the workload: every value is written by one call only, and all writers of the cluster are fed.
/// Operations come in the order of their ends, each when the truth holds everything applied up to then. Amortised O(log n) each;
/// `forget` keeps memory at what calls under way and unresolved unknown writes need.
public struct ClientHistoryChecker: Sendable {
    /// Moments of the truth are exact. False for real processes, where the truth is learned later than it is made.
    public let trustsMoments: Bool
    /// Calls that looked below the truth's floor and could not be checked: 0 when `floor(startedBefore:)` is respected.
    public private(set) var unverifiable = 0
    public private(set) var checked = 0

    /// The highest revision that somebody was told of.
    private var seen = Steps(1)
    /// The highest compaction that was acknowledged.
    private var compacted = Steps(-1)
    /// A client's calls follow each other even if one starts in the moment in which the last ended. Looked up, never walked.
    private var seenByClient: [Int: Int64] = [:]

    /// Who made the revisions above `claimFloor`: the client, or -1: not yet known.
    private var claims: [Int32] = []
    private var claimHead = 0
    private var claimFloor: Int64 = 1
    /// The number of the truth's repeated values already reported.
    private var repeatsReported = 0

    // Writes whose outcome is not known and not yet seen in the truth, by value. Looked up, never walked.
    private var openWrites: [Key: OpenWrite] = [:]
    private var refusedWrites: [Key: Operation] = [:]
    private var refusedInOrder: [(end: Moment, values: [Key])] = []
    // Unknown deletes stay: whether one has happened cannot be told from its effect.
    private var openKeyDeletes: [Key: Moment] = [:]
    private var openRangeDeletes: [(key: [UInt8], end: [UInt8], start: Moment)] = []
    private var openRevokes: [Int64: Moment] = [:]
    private var lastEnd = Moment.min

    private struct OpenWrite {
        var operation: Operation
        /// What was acknowledged when it began.
        var bound: Int64
    }

    public init(trustsMoments: Bool = true) { self.trustsMoments = trustsMoments }

    // MARK: Input

    /// A client learned at `at` that `revision` exists, otherwise than by an operation: a watch's event or header.
    public mutating func observe(revision: Int64, at: Moment) { seen.raise(to: revision, at: at) }

    /// Checks one completed call. Precondition: ends do not go back.
    public mutating func check(_ operation: Operation, truth: TrueHistory) -> [Violation] {
        precondition(operation.end >= lastEnd, "an operation that ended at \(operation.end) behind one of \(lastEnd)")
        lastEnd = operation.end
        checked += 1
        var violations: [Violation] = []
        follow(truth, into: &violations)
        let bound = max(seen.value(before: operation.start), seenByClient[operation.client] ?? 1)
        switch operation.outcome {
        case .unknown: leaveOpen(operation, bound, truth, into: &violations)
        case .refused(let text): checkRefusal(operation, text, bound, truth, into: &violations)
        case .lease(let revision, let ttl): checkLease(operation, revision, ttl, bound, truth, into: &violations)
        case .done(let revision, let found, let count, let succeeded):
            if checkHeader(operation, revision, truth, into: &violations) {
                checkDone(operation, revision, found, count, succeeded, bound, truth, into: &violations)
                note(revision, operation)
            }
        }
        return violations
    }

    /// The newest revision below which the truth is no longer needed here, when all calls that are still to be fed start at or after
    /// `moment`. Serializable reads look at whatever revision their member stands at: the caller lowers the floor to that.
    public func floor(startedBefore moment: Moment, truth: TrueHistory) -> Int64 {
        min(seen.value(before: moment), truth.newestRevision(before: moment)) - 1
    }

    /// Promises that all calls still to be fed start at or after `moment`, and asks whether everything that happened up to `floor` is
    /// explained. To be called before the truth forgets; `floor` at most `floor(startedBefore:truth:)`.
    public mutating func forget(startedBefore moment: Moment, floor: Int64, truth: TrueHistory) -> [Violation] {
        var violations: [Violation] = []
        follow(truth, into: &violations)
        settle(through: floor, truth, into: &violations)
        seen.forget(before: moment)
        compacted.forget(before: moment)
        while let first = refusedInOrder.first, first.end < moment {
            for value in first.values { refusedWrites[value] = nil }
            refusedInOrder.removeFirst()
        }
        return violations
    }

    /// At the end of the run: nothing is under way any more, so everything must be explained.
    public mutating func finish(truth: TrueHistory) -> [Violation] {
        var violations: [Violation] = []
        follow(truth, into: &violations)
        settle(through: truth.revision, truth, into: &violations)
        return violations
    }

    // MARK: The truth goes on

    /// Looks at revisions that are new since the last call.
    private mutating func follow(_ truth: TrueHistory, into violations: inout [Violation]) {
        var next = claimFloor + Int64(claims.count - claimHead) + 1
        if next <= truth.floor {
            // Only if the caller forgot revisions that were never looked at.
            unverifiable += Int(truth.floor - next + 1)
            claims.removeAll()
            claimHead = 0
            claimFloor = truth.floor
            next = truth.floor + 1
        }
        while next <= truth.revision {
            claims.append(-1)
            if !openWrites.isEmpty || !refusedWrites.isEmpty, let revision = truth[next] {
                for event in revision.events where !event.isDelete {
                    let value = Key(event.kv.value)
                    if let open = openWrites[value] {
                        resolve(open, at: revision, truth, into: &violations)
                        break
                    }
                    if let refused = refusedWrites[value] {
                        violations.append(Violation("exactly-once", "\(describe(refused)) was refused, and happened at revision \(next)"))
                    }
                }
            }
            next += 1
        }
        while repeatsReported < truth.repeatedValues.count {
            let (value, first, second) = truth.repeatedValues[repeatsReported]
            repeatsReported += 1
            violations.append(Violation("exactly-once", "the write of \(show(value)) happened at revision \(first) and again at \(second)"))
        }
    }

    private mutating func claim(_ revision: Int64, _ operation: Operation, into violations: inout [Violation]) {
        guard revision > claimFloor else { return }
        let at = claimHead + Int(revision - claimFloor) - 1
        if claims[at] >= 0 {
            violations.append(Violation("exactly-once", "revision \(revision) was told to \(describe(operation)) and to client \(claims[at]) as its own"))
        }
        claims[at] = Int32(truncatingIfNeeded: operation.client)
    }

    /// Everything through `floor` must have an author.
    private mutating func settle(through floor: Int64, _ truth: TrueHistory, into violations: inout [Violation]) {
        while claimFloor < floor, claimHead < claims.count {
            claimFloor += 1
            let isClaimed = claims[claimHead] >= 0
            claimHead += 1
            if isClaimed { continue }
            guard let revision = truth[claimFloor] else {
                unverifiable += 1
                continue
            }
            if !isExplained(revision, truth) {
                let what = revision.events.map { show($0) }.joined(separator: ", ")
                violations.append(Violation("exactly-once", "revision \(revision.revision) (\(what)) was made by nobody"))
            }
        }
        if claimHead > 256, claimHead * 2 > claims.count {
            claims.removeFirst(claimHead)
            claimHead = 0
        }
    }

    /// Whether an unclaimed revision may be an unknown delete or the end of a lease. Unknown puts were claimed when they came.
    private func isExplained(_ revision: TrueRevision, _ truth: TrueHistory) -> Bool {
        guard revision.events.allSatisfy({ $0.isDelete }), let first = revision.events.first else { return false }
        switch revision.cause {
        case .leaseExpired: return true
        case .leaseRevoked(let lease): return openRevokes[lease].map { isPossible($0, revision.at) } ?? false
        case .unknown:
            if let lease = first.previous?.lease, lease != 0, revision.events.allSatisfy({ $0.previous?.lease == lease }) { return true }
        case .write: break
        }
        if revision.events.count == 1, let start = openKeyDeletes[Key(first.kv.key)], isPossible(start, revision.at) { return true }
        return openRangeDeletes.contains { open in
            isPossible(open.start, revision.at) && rangeContains(open.key, open.end, first.kv.key)
                && truth.range(open.key, open.end, at: revision.revision - 1).map(\.key) == revision.events.map(\.kv.key)
        }
    }

    private func isPossible(_ start: Moment, _ at: Moment) -> Bool { !trustsMoments || start <= at }

    // MARK: Revisions in time

    private mutating func note(_ revision: Int64, _ operation: Operation) {
        seen.raise(to: revision, at: operation.end)
        if revision > seenByClient[operation.client] ?? 1 { seenByClient[operation.client] = revision }
    }

    /// No answer shows a revision that does not exist yet. False when the answer can not be checked further.
    private mutating func checkHeader(_ operation: Operation, _ revision: Int64, _ truth: TrueHistory, into violations: inout [Violation]) -> Bool {
        guard revision >= 1, revision <= truth.revision else {
            violations.append(Violation("linearizability", "\(describe(operation)) saw revision \(revision), the newest is \(truth.revision)"))
            return false
        }
        if trustsMoments, let at = truth.moment(of: revision), at > operation.end {
            violations.append(Violation("linearizability", "\(describe(operation)) saw revision \(revision), which was made later, at \(at)"))
        }
        return true
    }

    /// A call that saw the state at `revision` without changing it, and had to see everything acknowledged before.
    private func checkRead(_ operation: Operation, _ revision: Int64, _ bound: Int64, into violations: inout [Violation]) {
        if revision < bound {
            violations.append(Violation("linearizability", "\(describe(operation)) saw revision \(revision), though \(bound) was known before it began"))
        }
    }

    /// A write took its revision after everything acknowledged before it began, and not before it began.
    private func checkWrite(_ operation: Operation, _ revision: Int64, _ bound: Int64, _ truth: TrueHistory, into violations: inout [Violation]) {
        if revision <= bound {
            violations.append(Violation("linearizability", "\(describe(operation)) wrote revision \(revision), though \(bound) was known before it began"))
        }
        if trustsMoments, let at = truth.moment(of: revision), at < operation.start {
            violations.append(Violation("linearizability", "\(describe(operation)) wrote revision \(revision), which was made before, at \(at)"))
        }
    }

    // MARK: Answers

    private mutating func checkDone(
        _ operation: Operation, _ revision: Int64, _ found: [SeenKeyValue], _ count: Int64, _ succeeded: Bool, _ bound: Int64,
        _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        func isReadable(_ at: Int64) -> Bool {
            if at >= truth.floor { return true }
            unverifiable += 1
            return false
        }
        switch operation.call {
        case .put, .putAll:
            if case .putAll(let pairs) = operation.call, pairs.isEmpty { return checkRead(operation, revision, bound, into: &violations) }
            checkAcknowledged(operation, revision, bound, truth, into: &violations)
        case .compareAndSwap(let key, let expected, _):
            if succeeded { return checkAcknowledged(operation, revision, bound, truth, into: &violations) }
            checkRead(operation, revision, bound, into: &violations)
            checkNotWritten(operation, "failed its comparison", truth, into: &violations)
            guard isReadable(revision) else { return }
            let actual = truth.value(of: key, at: revision)
            if (actual?.modRevision ?? 0) == expected {
                violations.append(Violation("linearizability", "\(describe(operation)) failed at revision \(revision), where the comparison holds"))
            }
            if found.first != actual || found.count > 1 {
                violations.append(Violation("linearizability", "\(describe(operation)) read \(show(found)) at revision \(revision), there was \(actual.map { show([$0]) } ?? "nothing")"))
            }
        case .delete(let key, let end):
            guard count > 0 else {
                checkRead(operation, revision, bound, into: &violations)
                guard isReadable(revision) else { return }
                let alive = truth.range(key, end, at: revision)
                if !alive.isEmpty { violations.append(Violation("linearizability", "\(describe(operation)) deleted nothing at revision \(revision), there was \(show(alive))")) }
                return
            }
            checkAcknowledged(operation, revision, bound, truth, into: &violations)
            if let made = truth[revision], Int64(made.events.count) != count {
                violations.append(Violation("linearizability", "\(describe(operation)) deleted \(count) keys by its answer, \(made.events.count) at revision \(revision)"))
            }
        case .range(let key, let end, let asked, let isSerializable):
            let name = isSerializable ? "serializable-read" : "linearizability"
            if !isSerializable { checkRead(operation, revision, bound, into: &violations) }
            let at = asked > 0 ? asked : revision
            if at > revision {
                violations.append(Violation(name, "\(describe(operation)) was answered at revision \(revision)"))
                return
            }
            if !isSerializable, asked > 0 {
                let compaction = compacted.value(before: operation.start)
                if asked < compaction {
                    violations.append(Violation(name, "\(describe(operation)) was answered, though a compaction to \(compaction) was acknowledged before"))
                }
            }
            guard isReadable(at) else { return }
            var next = 0
            var isEqual = true
            truth.forEach(key, end, at: at) { kv in
                isEqual = next < found.count && found[next] == kv
                next += 1
                return isEqual
            }
            if !isEqual || next != found.count {
                violations.append(Violation(name, "\(describe(operation)) read \(show(found)) at revision \(at), there was \(show(truth.range(key, end, at: at)))"))
            } else if count != Int64(found.count) {
                violations.append(Violation(name, "\(describe(operation)) counted \(count) of \(found.count)"))
            }
        case .compact(let asked):
            checkRead(operation, revision, bound, into: &violations)
            if compaction(by: operation.end, truth) < asked {
                violations.append(Violation("linearizability", "\(describe(operation)) was acknowledged, and the truth is compacted to \(truth.compactRevision)"))
            }
            compacted.raise(to: asked, at: operation.end)
        case .leaseRevoke(let lease): checkRevoke(operation, lease, revision, bound, truth, into: &violations)
        case .leaseGrant: checkRead(operation, revision, bound, into: &violations)
        case .leaseKeepAlive: break
        }
    }

    private func compaction(by moment: Moment, _ truth: TrueHistory) -> Int64 {
        trustsMoments ? truth.compactRevision(at: moment) : truth.compactRevision
    }

    /// An acknowledged write: it is what the truth holds at its revision, and nowhere else.
    private mutating func checkAcknowledged(
        _ operation: Operation, _ revision: Int64, _ bound: Int64, _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        guard let made = truth[revision] else {
            // Revision 1, or below the floor.
            if revision <= 1 { violations.append(Violation("exactly-once", "\(describe(operation)) was acknowledged at revision \(revision), where nothing is written")) } else { unverifiable += 1 }
            return
        }
        if let difference = difference(operation, made, truth) {
            let elsewhere = operation.call.values.compactMap { truth.revision(ofValue: $0) }.first
            let place = operation.call.values.isEmpty ? "" : elsewhere.map { "; it stands at revision \($0)" } ?? "; it stands nowhere"
            violations.append(Violation("exactly-once", "\(describe(operation)) was acknowledged at revision \(revision), which is \(difference)\(place)"))
            return
        }
        claim(revision, operation, into: &violations)
        checkWrite(operation, revision, bound, truth, into: &violations)
    }

    /// Nil when the revision is exactly what the write does; else what the revision is.
    private func difference(_ operation: Operation, _ made: TrueRevision, _ truth: TrueHistory) -> String? {
        let events = made.events
        func isPut(_ event: WatchRecord.Event, _ key: [UInt8], _ value: [UInt8], _ lease: Int64) -> Bool {
            !event.isDelete && event.kv.value == value && event.kv.key == key && event.kv.lease == lease
        }
        let isRight: Bool
        switch operation.call {
        case .put(let key, let value, let lease):
            isRight = events.count == 1 && isPut(events[0], key, value, lease)
        case .putAll(let pairs):
            isRight = events.count == pairs.count && zip(events, pairs).allSatisfy { isPut($0, $1.key, $1.value, 0) }
        case .compareAndSwap(let key, let expected, let value):
            isRight = events.count == 1 && isPut(events[0], key, value, 0)
            if isRight {
                let before = events[0].kv.createRevision == made.revision ? 0 : events[0].previous?.modRevision ?? 0
                if before != expected { return "that write over mod revision \(before)" }
            }
        case .delete(let key, let end):
            guard made.revision - 1 >= truth.floor else { return nil }
            var next = 0
            var isEqual = events.allSatisfy { $0.isDelete }
            truth.forEach(key, end, at: made.revision - 1) { kv in
                isEqual = isEqual && next < events.count && events[next].kv.key == kv.key
                next += 1
                return isEqual
            }
            isRight = isEqual && next == events.count
        case .range, .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive:
            preconditionFailure("\(operation.call) does not write")
        }
        return isRight ? nil : events.map { show($0) }.joined(separator: ", ")
    }

    private func checkNotWritten(_ operation: Operation, _ what: String, _ truth: TrueHistory, into violations: inout [Violation]) {
        for value in operation.call.values {
            if let revision = truth.revision(ofValue: value) {
                violations.append(Violation("exactly-once", "\(describe(operation)) \(what), and happened at revision \(revision)"))
                return
            }
        }
    }

    private mutating func checkLease(
        _ operation: Operation, _ revision: Int64, _ ttl: Int64, _ bound: Int64, _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        guard checkHeader(operation, revision, truth, into: &violations) else { return }
        switch operation.call {
        case .leaseGrant: checkRead(operation, revision, bound, into: &violations)
        case .leaseRevoke(let lease): checkRevoke(operation, lease, revision, bound, truth, into: &violations)
        default: break // A keepalive's header is the answering member's, which may be behind.
        }
        note(revision, operation)
    }

    private mutating func checkRevoke(
        _ operation: Operation, _ lease: Int64, _ revision: Int64, _ bound: Int64, _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        if let made = truth[revision], made.cause == .leaseRevoked(lease) {
            claim(revision, operation, into: &violations)
            checkWrite(operation, revision, bound, truth, into: &violations)
        } else {
            // Its keys were none, or the cause is not known.
            checkRead(operation, revision, bound, into: &violations)
        }
    }

    // MARK: No answers

    private mutating func leaveOpen(_ operation: Operation, _ bound: Int64, _ truth: TrueHistory, into violations: inout [Violation]) {
        switch operation.call {
        case .put, .putAll, .compareAndSwap:
            let open = OpenWrite(operation: operation, bound: bound)
            for value in operation.call.values {
                if let revision = truth.revision(ofValue: value), let made = truth[revision] {
                    return resolve(open, at: made, truth, into: &violations)
                }
            }
            for value in operation.call.values { openWrites[Key(value)] = open }
        case .delete(let key, let end):
            if end.isEmpty {
                openKeyDeletes[Key(key)] = min(openKeyDeletes[Key(key)] ?? .max, operation.start)
            } else {
                openRangeDeletes.append((key, end, operation.start))
            }
        case .leaseRevoke(let lease): openRevokes[lease] = min(openRevokes[lease] ?? .max, operation.start)
        case .range, .compact, .leaseGrant, .leaseKeepAlive: break
        }
    }

    /// An unknown write turned up in the truth.
    private mutating func resolve(_ open: OpenWrite, at made: TrueRevision, _ truth: TrueHistory, into violations: inout [Violation]) {
        for value in open.operation.call.values { openWrites[Key(value)] = nil }
        if let difference = difference(open.operation, made, truth) {
            violations.append(Violation("exactly-once", "\(describe(open.operation)) happened as revision \(made.revision), which is \(difference)"))
            return
        }
        claim(made.revision, open.operation, into: &violations)
        checkWrite(open.operation, made.revision, open.bound, truth, into: &violations)
    }

    private mutating func checkRefusal(
        _ operation: Operation, _ text: String, _ bound: Int64, _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        let isCompacted = text.contains(ServiceError.compacted.message)
        let isFuture = text.contains(ServiceError.futureRev.message)
        switch operation.call {
        case .put, .putAll, .compareAndSwap:
            checkNotWritten(operation, "was refused", truth, into: &violations)
            let values = operation.call.values.map { Key($0) }
            for value in values { refusedWrites[value] = operation }
            refusedInOrder.append((operation.end, values))
        case .range(_, _, let asked, let isSerializable):
            let name = isSerializable ? "serializable-read" : "linearizability"
            if isCompacted, asked <= 0 || compaction(by: operation.end, truth) <= asked {
                violations.append(Violation(name, "\(describe(operation)) was refused as compacted, the compact revision was \(compaction(by: operation.end, truth))"))
            }
            // A member that is behind knows only its own revisions.
            if isFuture, asked <= (isSerializable ? 1 : bound) {
                violations.append(Violation(name, "\(describe(operation)) was refused as future, though \(bound) was known before it began"))
            }
        case .compact(let asked):
            if isCompacted, compaction(by: operation.end, truth) < asked {
                violations.append(Violation("linearizability", "\(describe(operation)) was refused as compacted, the compact revision was \(compaction(by: operation.end, truth))"))
            }
            if isFuture, asked <= bound {
                violations.append(Violation("linearizability", "\(describe(operation)) was refused as future, though \(bound) was known before it began"))
            }
        case .delete, .leaseGrant, .leaseRevoke, .leaseKeepAlive: break
        }
    }
}

extension Operation.Call {
    /// The values it writes.
    var values: [[UInt8]] {
        switch self {
        case .put(_, let value, _), .compareAndSwap(_, _, let value): [value]
        case .putAll(let pairs): pairs.map(\.value)
        case .delete, .range, .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: []
        }
    }
}

// MARK: Words for people

func show(_ bytes: [UInt8]) -> String {
    let isText = bytes.allSatisfy { $0 >= 0x20 && $0 < 0x7f }
    let text = isText ? String(decoding: bytes, as: UTF8.self) : "0x" + bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    return text.count > 60 ? "\(text.prefix(57))..." : text
}

func show(_ kvs: [SeenKeyValue]) -> String {
    if kvs.isEmpty { return "nothing" }
    let some = kvs.prefix(4).map { "\(show($0.key))=\(show($0.value)) (created \($0.createRevision), modified \($0.modRevision), version \($0.version), lease \($0.lease))" }
    return some.joined(separator: ", ") + (kvs.count > 4 ? " and \(kvs.count - 4) more" : "")
}

func show(_ event: WatchRecord.Event) -> String {
    event.isDelete ? "delete \(show(event.kv.key))" : "put \(show(event.kv.key))=\(show(event.kv.value))"
}

func showRange(_ key: [UInt8], _ end: [UInt8]) -> String {
    end.isEmpty ? show(key) : end == [0] ? "[\(show(key)), all)" : "[\(show(key)), \(show(end)))"
}

func describe(_ operation: Operation) -> String {
    let call = switch operation.call {
    case .put(let key, let value, let lease): "put \(show(key))=\(show(value))\(lease == 0 ? "" : " lease \(lease)")"
    case .delete(let key, let end): "delete \(showRange(key, end))"
    case .range(let key, let end, let revision, let isSerializable):
        "\(isSerializable ? "serializable " : "")read of \(showRange(key, end))\(revision == 0 ? "" : " at \(revision)")"
    case .compareAndSwap(let key, let expected, let value): "swap \(show(key))@\(expected)=\(show(value))"
    case .putAll(let pairs): "put of \(pairs.map { "\(show($0.key))=\(show($0.value))" }.joined(separator: " "))"
    case .compact(let revision): "compaction to \(revision)"
    case .leaseGrant(let id, let ttl): "grant of lease \(id) for \(ttl) s"
    case .leaseRevoke(let id): "revoke of lease \(id)"
    case .leaseKeepAlive(let id): "renewal of lease \(id)"
    }
    return "client \(operation.client)'s \(call) (member \(operation.member), \(operation.start)...\(operation.end))"
}
