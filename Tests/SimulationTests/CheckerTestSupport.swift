import Base
import Raft
import Replica
import Simulation
import Store

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A log of commands, as a leader would have written it.
struct LogOfCommands {
    var model = TruthModel()
    var term: UInt64 = 1

    mutating func apply(_ kind: Command.Kind, _ body: [UInt8], at: Moment = 0) -> TruthModel.Result {
        let command = Command(kind: kind, proposer: MemberID(7), number: model.appliedIndex + 1, body: body)
        return model.apply(index: model.appliedIndex + 1, term: term, kind: .command, payload: command.encoded(), at: at)
    }
    mutating func put(_ request: PutRequest, at: Moment = 0) -> TruthModel.Result { apply(.put, encoded(request.encode), at: at) }
    mutating func put(_ key: String, _ value: String, lease: Int64 = 0, at: Moment = 0) -> TruthModel.Result {
        put(PutRequest(key: bytes(key), value: bytes(value), lease: LeaseID(lease), prevKV: true), at: at)
    }
    mutating func delete(_ key: String, _ end: String = "") -> TruthModel.Result {
        apply(.deleteRange, encoded(DeleteRangeRequest(key: bytes(key), rangeEnd: bytes(end)).encode))
    }
    mutating func txn(_ request: TxnRequest) -> TruthModel.Result { apply(.txn, encoded(request.encode)) }
    mutating func compact(_ revision: Int64, at: Moment = 0) -> TruthModel.Result {
        apply(.compaction, encoded(CompactionRequest(revision: Revision(revision)).encode), at: at)
    }
    mutating func grant(_ lease: Int64, ttl: Int64) -> TruthModel.Result {
        apply(.leaseGrant, encoded { $0.writeField(1, ttl); $0.writeField(2, lease) })
    }
    mutating func revoke(_ lease: Int64) -> TruthModel.Result { apply(.leaseRevoke, encoded { $0.writeField(1, lease) }) }
    mutating func expire(_ lease: Int64, term: UInt64) -> TruthModel.Result {
        apply(.leaseExpire, encoded { $0.write(lease); $0.write(term) })
    }
}

func encoded(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
    var writer = ByteWriter()
    body(&writer)
    return writer.bytes
}

/// Makes valid histories: clients with calls under way, each taking effect at some moment between its start and its end on a plain model, or
/// for unknown ones at any later moment or never; serializable reads of members that are behind; watches; compactions; leases that end.
struct HistoryMaker {
    struct Options {
        var clients = 5
        var ticks = 400
        var keys = 4
        var unknownPercent = 12
        var refusedPercent = 5
        var withRanges = true
        var withCompaction = true
        var withLeases = true
        /// Serializable reads and reads at a revision, which the search does not look at.
        var withOldReads = true
    }
    private struct Pending {
        var client: Int
        var call: Operation.Call
        var start: Moment
        /// When it takes effect; `.max`: never.
        var effectAt: Moment
        var endAt: Moment
        var isUnknown: Bool
        var outcome: Operation.Outcome?
        var isEnded = false
    }
    private struct Watcher {
        var record: WatchRecord
        var next: Int64
    }

    var log = LogOfCommands()
    /// In the order of ends.
    var operations: [Operation] = []
    var watches: [WatchRecord] = []
    private let options: Options
    private var random: SeededGenerator
    private var pending: [Pending] = []
    private var watchers: [Watcher] = []
    private var seenModRevisions: [[[UInt8]: Int64]]
    private var values = 0
    private var leases: [Int64] = []
    private var nextLease: Int64 = 100

    /// Runs the whole history. `eachTick` sees it grow.
    init(seed: UInt64, _ options: Options = Options(), eachTick: ((HistoryMaker, Moment) -> Void)? = nil) {
        self.options = options
        random = SeededGenerator(seed: seed)
        seenModRevisions = Array(repeating: [:], count: options.clients)
        for tick in 0..<options.ticks {
            self.tick(Moment(tick) * 10)
            eachTick?(self, Moment(tick) * 10)
        }
        var now = Moment(options.ticks) * 10
        while pending.contains(where: { !$0.isEnded }) {
            settle(now)
            now += 10
        }
        deliver(now, toEnd: true)
        watches += watchers.map(\.record)
    }

    private mutating func below(_ n: Int) -> Int { Int.random(in: 0..<n, using: &random) }
    private mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    private mutating func key() -> [UInt8] { bytes("k\(below(options.keys))") }
    private mutating func value() -> [UInt8] {
        values += 1
        return bytes("v\(values)")
    }

    /// The earliest start of a call under way.
    func oldestStart(_ now: Moment) -> Moment { pending.filter { !$0.isEnded }.map(\.start).min() ?? now }

    private mutating func tick(_ now: Moment) {
        settle(now)
        for client in 0..<options.clients where !pending.contains(where: { $0.client == client && !$0.isEnded }) && chance(60) {
            let call = drawCall(client)
            let effectAt = now + 1 + Moment(below(40))
            var one = Pending(client: client, call: call, start: now, effectAt: effectAt, endAt: effectAt + 1 + Moment(below(40)), isUnknown: chance(options.unknownPercent))
            if one.isUnknown {
                if chance(40) { one.effectAt = .max } else if chance(50) { one.effectAt += Moment(below(400)) }
            } else if chance(options.refusedPercent) {
                one.effectAt = .max
                one.outcome = .refused("etcdserver: too many requests")
            }
            pending.append(one)
        }
        if options.withLeases, chance(5), !leases.isEmpty {
            let lease = leases.remove(at: below(leases.count))
            _ = log.apply(.leaseExpire, encoded { $0.write(lease); $0.write(log.term) }, at: now)
        }
        if options.withCompaction, chance(3) { _ = log.compact(max(log.model.revision - Int64(below(20)), 0), at: now) }
        deliver(now, toEnd: false)
    }

    private mutating func drawCall(_ client: Int) -> Operation.Call {
        let key = key()
        switch below(20) {
        case 0...4: return .put(key: key, value: value(), lease: options.withLeases && chance(20) ? leases.last ?? 0 : 0)
        case 5: return .delete(key: key, end: options.withRanges && chance(30) ? [0] : [])
        case 6...8: return .compareAndSwap(key: key, expected: seenModRevisions[client][key] ?? 0, value: value())
        case 9: return options.withRanges ? .putAll([.init(key: bytes("k0"), value: value()), .init(key: bytes("k1"), value: value())]) : .put(key: key, value: value(), lease: 0)
        case 10 where options.withLeases:
            nextLease += 1
            return .leaseGrant(id: nextLease, ttlSeconds: 5)
        case 11 where options.withLeases && !leases.isEmpty: return .leaseRevoke(id: leases.removeFirst())
        case 12 where options.withOldReads:
            return .range(key: key, end: chance(50) ? [0] : [], revision: 0, isSerializable: true)
        case 13 where options.withOldReads:
            return .range(key: key, end: [], revision: Int64(below(Int(log.model.revision) + 3)), isSerializable: chance(50))
        case 14 where options.withCompaction && chance(20): return .compact(revision: Int64(below(Int(log.model.revision) + 2)))
        default: return .range(key: key, end: options.withRanges && chance(30) ? [0] : [], revision: 0, isSerializable: false)
        }
    }

    /// Effects and ends up to `now`, in the order of their moments.
    private mutating func settle(_ now: Moment) {
        while true {
            var next: (at: Moment, index: Int, isEffect: Bool)?
            for (index, one) in pending.enumerated() {
                if one.effectAt != .max, one.effectAt <= now, next.map({ one.effectAt < $0.at }) ?? true { next = (one.effectAt, index, true) }
                if !one.isEnded, one.endAt <= now, next.map({ one.endAt < $0.at }) ?? true { next = (one.endAt, index, false) }
            }
            guard let next else { break }
            if next.isEffect {
                let outcome = effect(pending[next.index].call, at: next.at)
                if pending[next.index].outcome == nil, !pending[next.index].isUnknown { pending[next.index].outcome = outcome }
                pending[next.index].effectAt = .max
            } else {
                pending[next.index].isEnded = true
                let one = pending[next.index]
                let outcome = one.isUnknown ? .unknown : one.outcome!
                if case .done(let revision, let found, _, let succeeded) = outcome {
                    for kv in found { seenModRevisions[one.client][kv.key] = kv.modRevision }
                    if case .put(let key, _, _) = one.call { seenModRevisions[one.client][key] = revision }
                    if case .compareAndSwap(let key, _, _) = one.call, succeeded { seenModRevisions[one.client][key] = revision }
                }
                operations.append(Operation(client: one.client, member: 1, call: one.call, start: one.start, end: one.endAt, outcome: outcome))
            }
            pending.removeAll { $0.isEnded && $0.effectAt == .max }
        }
    }

    private mutating func effect(_ call: Operation.Call, at: Moment) -> Operation.Outcome {
        func done(_ result: TruthModel.Result, found: [SeenKeyValue] = [], count: Int64 = 0, succeeded: Bool = true) -> Operation.Outcome {
            if case .refused(let error) = result.effect { return .refused(error.description) }
            return .done(revision: result.revision, found: found, count: count, succeeded: succeeded)
        }
        switch call {
        case .put(let key, let value, let lease):
            return done(log.put(PutRequest(key: key, value: value, lease: LeaseID(lease)), at: at))
        case .delete(let key, let end):
            let result = log.apply(.deleteRange, encoded(DeleteRangeRequest(key: key, rangeEnd: end).encode), at: at)
            guard case .deleted(let count, _) = result.effect else { return done(result) }
            return done(result, count: count)
        case .compareAndSwap(let key, let expected, let value):
            let request = TxnRequest(
                compare: [Compare(key: key, target: .modRevision, result: .equal, operand: .modRevision(expected))],
                success: [.put(PutRequest(key: key, value: value))], failure: [.range(RangeRequest(key: key))])
            let result = log.apply(.txn, encoded(request.encode), at: at)
            guard case .txn(let succeeded, let responses) = result.effect else { return done(result) }
            if case .range(let found, let count, _)? = responses.first { return done(result, found: found, count: count, succeeded: succeeded) }
            return done(result, succeeded: succeeded)
        case .putAll(let pairs):
            return done(log.apply(.txn, encoded(TxnRequest(success: pairs.map { .put(PutRequest(key: $0.key, value: $0.value)) }).encode), at: at))
        case .range(let key, let end, let asked, let isSerializable):
            // A member that is behind, but not behind the compaction.
            let newest = log.model.revision
            let revision = isSerializable ? max(newest - Int64(below(8)), min(newest, max(1, log.model.compactRevision))) : newest
            if asked > revision { return .refused(ServiceError.futureRev.description) }
            if asked > 0, asked < log.model.compactRevision { return .refused(ServiceError.compacted.description) }
            let found = log.model.history.range(key, end, at: asked > 0 ? asked : revision)
            return .done(revision: revision, found: found, count: Int64(found.count), succeeded: true)
        case .compact(let revision): return done(log.compact(revision, at: at))
        case .leaseGrant(let id, let ttl):
            let result = log.grant(id, ttl: ttl)
            leases.append(id)
            return .lease(revision: result.revision, ttlSeconds: ttl)
        case .leaseRevoke(let id):
            let result = log.apply(.leaseRevoke, encoded { $0.writeField(1, id) }, at: at)
            if case .refused(let error) = result.effect { return .refused(error.description) }
            return .done(revision: result.revision, found: [], count: 0, succeeded: true)
        case .leaseKeepAlive(let id):
            return .lease(revision: log.model.revision, ttlSeconds: log.model.ttlSeconds(ofLease: id) ?? 0)
        }
    }

    // MARK: Watches

    private mutating func deliver(_ now: Moment, toEnd: Bool) {
        let revision = log.model.revision
        let history = log.model.history
        if watchers.count < 4, !toEnd, chance(20) {
            let start = chance(50) ? 0 : max(1, revision - Int64(below(20)) + Int64(below(5)))
            var record = WatchRecord(client: 100 + watches.count, member: 1, key: key(), end: chance(50) ? [0] : [], startRevision: start, wantsPrevious: chance(50), openedAt: now)
            if chance(20) { record.wantsDeletes = false } else if chance(20) { record.wantsPuts = false }
            record.messages.append((now, .created(headerRevision: revision)))
            watchers.append(Watcher(record: record, next: start > 0 ? start : revision + 1))
        }
        for at in watchers.indices.reversed() {
            if chance(2), !toEnd {
                watchers[at].record.closedAt = now
                watches.append(watchers[at].record)
                watchers.remove(at: at)
                continue
            }
            guard toEnd || chance(40) else { continue }
            var watcher = watchers[at]
            if watcher.next < log.model.compactRevision {
                watcher.record.messages.append((now, .cancelled(compactRevision: log.model.compactRevision, reason: "")))
                watches.append(watcher.record)
                watchers.remove(at: at)
                continue
            }
            let last = toEnd ? revision : min(revision, watcher.next + Int64(below(6)))
            let record = watcher.record
            var events: [WatchRecord.Event] = []
            var next = watcher.next
            while next <= last {
                for event in history[next]?.events ?? []
                where (event.isDelete ? record.wantsDeletes : record.wantsPuts) && KeyRange(key: record.key, rangeEnd: record.end).contains(Key(event.kv.key)) {
                    var event = event
                    if !record.wantsPrevious || next - 1 < log.model.compactRevision { event.previous = nil }
                    events.append(event)
                }
                next += 1
            }
            if !events.isEmpty {
                let cut = chance(20) ? below(events.count) : 0
                if cut > 0 { watcher.record.messages.append((now, .events(Array(events[..<cut]), headerRevision: revision, isFragment: true))) }
                watcher.record.messages.append((now, .events(Array(events[cut...]), headerRevision: revision, isFragment: false)))
            } else if next > revision, watcher.next <= revision, chance(50) {
                watcher.record.messages.append((now, .progress(headerRevision: revision)))
            }
            watcher.next = max(next, watcher.next)
            watchers[at] = watcher
        }
    }
}
