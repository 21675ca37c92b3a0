import Base
import Raft
import Replica

/// A reference of etcd's state machine, written for being obviously right and independent of the Store module: keys with their revisions,
/// leases with their keys, compaction, alarms. It is fed with the log in commit order and says what every command must have come to.
///
/// It knows nothing of time and members: what a leader decides (when a lease expires) it takes from the log.
public struct TruthModel: Sendable {
    /// What the commands made of the keys.
    public private(set) var history = TrueHistory()
    /// Who may do what.
    public private(set) var accounts = TruthAccounts()
    /// The newest entry seen.
    public private(set) var appliedIndex: UInt64 = 0

    private struct Lease {
        var ttlSeconds: Int64
        /// Ascending.
        var keys: [[UInt8]] = []
    }
    /// Looked up, never walked.
    private var leases: [Int64: Lease] = [:]
    private var alarms: [Alarm] = []

    /// The changes of the revision being made.
    private var events: [WatchRecord.Event] = []

    public init() {}

    public var revision: Int64 { history.revision }
    public var compactRevision: Int64 { history.compactRevision }
    public var leaseCount: Int { leases.count }
    public func hasLease(_ id: Int64) -> Bool { leases[id] != nil }
    /// Keys hanging on the lease, ascending; nil when there is no such lease.
    public func keys(ofLease id: Int64) -> [[UInt8]]? { leases[id]?.keys }
    public func ttlSeconds(ofLease id: Int64) -> Int64? { leases[id]?.ttlSeconds }

    /// See `TrueHistory.forget(below:)`.
    public mutating func forget(below floor: Int64) { history.forget(below: floor) }

    // MARK: Commands

    /// What a command came to.
    public struct Result: Hashable, Sendable {
        public var index: UInt64
        public var term: UInt64
        /// The member that proposed it and its number there; 0 when the entry is no command.
        public var proposer: UInt64
        public var number: UInt64
        /// The store revision behind the command: what its header says.
        public var revision: Int64
        public var effect: Effect
    }

    public enum Effect: Hashable, Sendable {
        /// No command, or one without effect on keys, leases and alarms.
        case none
        case put(previous: SeenKeyValue?)
        /// `previous` only if it was asked for, as in the answer to the client.
        case deleted(count: Int64, previous: [SeenKeyValue])
        case txn(succeeded: Bool, responses: [Response])
        case compacted(Int64)
        case granted(lease: Int64, ttlSeconds: Int64)
        case revoked(lease: Int64, keys: Int)
        case expired(lease: Int64, keys: Int)
        /// An expiry of a deposed leader, or of a lease that was gone already.
        case ignoredExpiry(lease: Int64)
        case alarms
        /// Users, roles, rights or the switch changed, or somebody logged in.
        case accounts
        /// Nothing happened; the client gets this.
        case refused(ServiceError)
        /// No member could apply it.
        case undecodable(String)
    }

    /// One operation of a transaction.
    public indirect enum Response: Hashable, Sendable {
        case none
        case range(found: [SeenKeyValue], count: Int64, more: Bool)
        case put(previous: SeenKeyValue?)
        case deleted(count: Int64, previous: [SeenKeyValue])
        case txn(succeeded: Bool, responses: [Response])
    }

    /// Applies the next committed entry. Precondition: entries come in order, without gaps; the first may have any index, on an empty store.
    @discardableResult
    public mutating func apply(index: UInt64, term: UInt64, kind: Entry.Kind, payload: [UInt8], at: Moment) -> Result {
        precondition(appliedIndex == 0 || index == appliedIndex + 1, "entry \(index) behind \(appliedIndex)")
        appliedIndex = index
        var result = Result(index: index, term: term, proposer: 0, number: 0, revision: revision, effect: .none)
        guard kind == .command else { return result }
        payload.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            do throws(DecodingFault) {
                let format = try reader.readByte()
                guard format == 1 || format == 2 else { throw .malformed("command format \(format)") }
                let code = try reader.readByte()
                guard let kind = Command.Kind(rawValue: code) else { throw .malformed("command kind \(code)") }
                result.proposer = try reader.read(UInt64.self)
                result.number = try reader.read(UInt64.self)
                let caller = format == 1 ? .nobody : try TruthModel.caller(&reader)
                if let error = try accounts.refusal(of: kind, reader, from: caller, keysOfLease: { leases[$0]?.keys ?? [] }) {
                    result.effect = .refused(error)
                    return
                }
                var cause = TrueRevision.Cause.write
                result.effect = try effect(kind, &reader, term: term, at: at, &cause)
                finishRevision(at: at, cause: cause)
            } catch {
                result.effect = .undecodable("\(error)")
            }
        }
        result.revision = revision
        return result
    }

    private mutating func effect(
        _ kind: Command.Kind, _ body: inout ByteReader, term: UInt64, at: Moment, _ cause: inout TrueRevision.Cause
    ) throws(DecodingFault) -> Effect {
        switch kind {
        case .put:
            let request = try TruthPut(&body)
            if let error = alarmRefusal(needsSpace: true) ?? refusal(of: request) { return .refused(error) }
            let previous = put(request)
            return .put(previous: request.wantsPrevious ? previous : nil)
        case .deleteRange:
            let request = try TruthDelete(&body)
            if let error = alarmRefusal(needsSpace: false) { return .refused(error) }
            let deleted = delete(request.key, request.end)
            return .deleted(count: Int64(deleted.count), previous: request.wantsPrevious ? deleted : [])
        case .txn:
            let request = try TruthTxn(&body)
            return txn(request)
        case .compaction:
            let target = try TruthNumbers(&body).first
            if hasAlarm(Alarm.corrupt) { return .refused(.corrupt) }
            if target <= compactRevision { return .refused(.compacted) }
            if target > revision { return .refused(.futureRev) }
            history.compact(to: target, at: at)
            return .compacted(target)
        case .leaseGrant:
            let request = try TruthNumbers(&body)
            let (ttl, id) = (request.first, request.second)
            if let error = alarmRefusal(needsSpace: true) { return .refused(error) }
            if id == 0 { return .refused(.leaseNotFound) }
            if leases[id] != nil { return .refused(.leaseExist) }
            if ttl > 9_000_000_000 { return .refused(.leaseTTLTooLarge) }
            leases[id] = Lease(ttlSeconds: max(ttl, 1))
            return .granted(lease: id, ttlSeconds: max(ttl, 1))
        case .leaseRevoke:
            let id = try TruthNumbers(&body).first
            if hasAlarm(Alarm.corrupt) { return .refused(.corrupt) }
            guard let count = endLease(id) else { return .refused(.leaseNotFound) }
            cause = .leaseRevoked(id)
            return .revoked(lease: id, keys: count)
        case .leaseExpire:
            let id = try body.read(Int64.self)
            let proposed = try body.read(UInt64.self)
            guard proposed == term, let count = endLease(id) else { return .ignoredExpiry(lease: id) }
            cause = .leaseExpired(id)
            return .expired(lease: id, keys: count)
        case .alarm:
            let request = try TruthNumbers(&body)
            let alarm = Alarm(member: MemberID(UInt64(bitPattern: request.second)), kind: UInt32(truncatingIfNeeded: request.third))
            if request.first == 1, alarm.kind != 0, !alarms.contains(alarm) { alarms.append(alarm) }
            if request.first == 2 { alarms.removeAll { $0 == alarm } }
            return .alarms
        case .authEnable, .authDisable, .authenticate, .userAdd, .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd, .roleDelete,
             .roleGrantPermission, .roleRevokePermission:
            if let error = try accounts.apply(kind, &body, index: appliedIndex) { return .refused(error) }
            return .accounts
        case .memberAttributes, .stateCheck, .leaseCheckpoint:
            return .none
        }
    }

    private static func caller(_ reader: inout ByteReader) throws(DecodingFault) -> TruthAccounts.Caller {
        switch try reader.readByte() {
        case 1: return .member
        case 2:
            let revision = try reader.read(UInt64.self)
            return .user(try reader.readCounted(), revision: revision)
        case let other: throw .malformed("caller \(other)")
        }
    }

    private func hasAlarm(_ kind: UInt32) -> Bool { alarms.contains { $0.kind == kind } }

    private func alarmRefusal(needsSpace: Bool) -> ServiceError? {
        if hasAlarm(Alarm.corrupt) { return .corrupt }
        return needsSpace && hasAlarm(Alarm.noSpace) ? .noSpace : nil
    }

    // MARK: Keys

    private func refusal(of request: TruthPut) -> ServiceError? {
        if request.lease != 0, leases[request.lease] == nil { return .leaseNotFound }
        if request.ignoresValue || request.ignoresLease, history.newest(request.key) == nil { return .keyNotFound }
        return nil
    }

    /// Returns the key-value before.
    private mutating func put(_ request: TruthPut) -> SeenKeyValue? {
        let main = revision + 1
        let old = history.newest(request.key)
        let new = SeenKeyValue(
            key: request.key, value: request.ignoresValue ? old?.value ?? [] : request.value, createRevision: old?.createRevision ?? main,
            modRevision: main, version: (old?.version ?? 0) + 1, lease: request.ignoresLease ? old?.lease ?? 0 : request.lease)
        hang(request.key, from: old?.lease ?? 0, on: new.lease)
        record(WatchRecord.Event(isDelete: false, kv: new), before: old)
        return old
    }

    /// Returns what was deleted, ascending.
    private mutating func delete(_ key: [UInt8], _ end: [UInt8]) -> [SeenKeyValue] {
        let alive = history.range(key, end, at: revision + 1)
        for kv in alive { delete(kv) }
        return alive
    }

    private mutating func delete(_ kv: SeenKeyValue) {
        hang(kv.key, from: kv.lease, on: 0)
        let tombstone = SeenKeyValue(key: kv.key, value: [], createRevision: 0, modRevision: revision + 1, version: 0)
        record(WatchRecord.Event(isDelete: true, kv: tombstone), before: kv)
    }

    /// `before`: the state just before, which may be of the same transaction; a watch shows the one before the revision.
    private mutating func record(_ event: WatchRecord.Event, before: SeenKeyValue?) {
        var event = event
        let main = revision + 1
        let isCreation = !event.isDelete && event.kv.createRevision == main
        if !isCreation { event.previous = before?.modRevision == main ? history.value(of: event.kv.key, at: revision) : before }
        history.record(event, at: main)
        events.append(event)
    }

    private mutating func finishRevision(at: Moment, cause: TrueRevision.Cause) {
        guard !events.isEmpty else { return }
        history.finish(TrueRevision(revision: revision + 1, events: events, at: at, cause: cause))
        events = []
    }

    // MARK: Leases

    private mutating func hang(_ key: [UInt8], from old: Int64, on new: Int64) {
        guard old != new else { return }
        if old != 0, leases[old] != nil {
            let (at, found) = TruthModel.position(of: key, in: leases[old]!.keys)
            if found { leases[old]!.keys.remove(at: at) }
        }
        if new != 0, leases[new] != nil {
            let (at, found) = TruthModel.position(of: key, in: leases[new]!.keys)
            if !found { leases[new]!.keys.insert(key, at: at) }
        }
    }

    private static func position(of key: [UInt8], in keys: [[UInt8]]) -> (index: Int, found: Bool) {
        var low = 0
        var high = keys.count
        while low < high {
            let middle = (low + high) / 2
            let order = compareBytes(keys[middle], key)
            if order == 0 { return (middle, true) }
            if order < 0 { low = middle + 1 } else { high = middle }
        }
        return (low, false)
    }

    /// Deletes its keys in one revision; nil when there is no such lease.
    private mutating func endLease(_ id: Int64) -> Int? {
        guard let lease = leases.removeValue(forKey: id) else { return nil }
        for key in lease.keys {
            guard let kv = history.newest(key) else { preconditionFailure("a key of lease \(id) is not there") }
            delete(kv)
        }
        return lease.keys.count
    }

    // MARK: Transactions

    /// Which branch each transaction of the tree takes, depth first along the chosen branches.
    private func choose(_ request: TruthTxn, into path: inout [Bool]) {
        let holds = request.compares.allSatisfy { self.holds($0) }
        path.append(holds)
        for case .txn(let nested) in holds ? request.success : request.failure { choose(nested, into: &path) }
    }

    /// The operations that will run, nested ones in their place.
    private func chosen(_ request: TruthTxn, _ path: [Bool], _ at: inout Int, into all: inout [TruthOperation]) {
        let branch = path[at] ? request.success : request.failure
        at += 1
        for operation in branch {
            if case .txn(let nested) = operation { chosen(nested, path, &at, into: &all) } else { all.append(operation) }
        }
    }

    private mutating func txn(_ request: TruthTxn) -> Effect {
        if let error = alarmRefusal(needsSpace: request.holdsPut) { return .refused(error) }
        var path: [Bool] = []
        choose(request, into: &path)
        var operations: [TruthOperation] = []
        var at = 0
        chosen(request, path, &at, into: &operations)
        // etcd 3.5 looks at all puts before any range; and here a missing key counts before a missing lease, unlike in a plain put.
        for case .put(let put) in operations {
            if put.ignoresValue || put.ignoresLease, history.newest(put.key) == nil { return .refused(.keyNotFound) }
            if put.lease != 0, leases[put.lease] == nil { return .refused(.leaseNotFound) }
        }
        for case .range(let range) in operations where range.revision != 0 {
            if range.revision > revision { return .refused(.futureRev) }
            if range.revision < compactRevision { return .refused(.compacted) }
        }
        at = 0
        let (succeeded, responses) = run(request, path, &at)
        return .txn(succeeded: succeeded, responses: responses)
    }

    private mutating func run(_ request: TruthTxn, _ path: [Bool], _ at: inout Int) -> (Bool, [Response]) {
        let succeeded = path[at]
        at += 1
        var responses: [Response] = []
        for operation in succeeded ? request.success : request.failure {
            switch operation {
            case .none: responses.append(.none)
            case .range(let range): responses.append(read(range))
            case .put(let request):
                let previous = put(request)
                responses.append(.put(previous: request.wantsPrevious ? previous : nil))
            case .delete(let request):
                let deleted = delete(request.key, request.end)
                responses.append(.deleted(count: Int64(deleted.count), previous: request.wantsPrevious ? deleted : []))
            case .txn(let nested):
                let (succeeded, inner) = run(nested, path, &at)
                responses.append(.txn(succeeded: succeeded, responses: inner))
            }
        }
        return (succeeded, responses)
    }

    private func holds(_ compare: TruthCompare) -> Bool {
        var alive = history.range(compare.key, compare.end, at: revision)
        if alive.isEmpty {
            if compare.target == 3 { return false }
            alive = [SeenKeyValue(key: compare.key, value: [], createRevision: 0, modRevision: 0, version: 0)]
        }
        return alive.allSatisfy { kv in
            func numbers(_ actual: Int64, operandField: UInt32) -> Int {
                let wanted = compare.operandField == operandField ? compare.number : 0
                return actual == wanted ? 0 : actual < wanted ? -1 : 1
            }
            let order = switch compare.target {
            case 0: numbers(kv.version, operandField: 4)
            case 1: numbers(kv.createRevision, operandField: 5)
            case 2: numbers(kv.modRevision, operandField: 6)
            case 3: compareBytes(kv.value, compare.operandField == 7 ? compare.bytes : [])
            case 4: numbers(kv.lease, operandField: 8)
            default: 0
            }
            return switch compare.result {
            case 0: order == 0
            case 1: order > 0
            case 2: order < 0
            case 3: order != 0
            default: true
            }
        }
    }

    /// A range inside a transaction: it sees what earlier operations did. A revision below the floor reads as the floor, so `forget` must
    /// leave what transactions may still ask for.
    private func read(_ request: TruthRange) -> Response {
        let at = request.revision <= 0 ? revision + 1 : request.revision
        let alive = history.range(request.key, request.end, at: max(at, history.floor))
        let count = Int64(alive.count)
        if request.countOnly { return .range(found: [], count: count, more: false) }
        var kvs = alive
        let isFiltered = request.minMod != 0 || request.maxMod != 0 || request.minCreate != 0 || request.maxCreate != 0
        let limit = request.limit > 0 ? Int(min(request.limit, Int64(Int32.max))) : nil
        // etcd's quirk: an implied order sorts only the first keys in key order. (etcd-api.md §4.1)
        if request.order == 0, !isFiltered, let limit { kvs = Array(kvs.prefix(limit + 1)) }
        kvs = kvs.filter { kv in
            (request.minMod == 0 || kv.modRevision >= request.minMod) && (request.maxMod == 0 || kv.modRevision <= request.maxMod)
                && (request.minCreate == 0 || kv.createRevision >= request.minCreate)
                && (request.maxCreate == 0 || kv.createRevision <= request.maxCreate)
        }
        func isBefore(_ a: SeenKeyValue, _ b: SeenKeyValue) -> Bool {
            switch request.target {
            case 1: a.version < b.version
            case 2: a.createRevision < b.createRevision
            case 3: a.modRevision < b.modRevision
            case 4: compareBytes(a.value, b.value) < 0
            default: compareBytes(a.key, b.key) < 0
            }
        }
        // Ties keep key order in both directions; the standard sort is stable.
        kvs.sort { request.order == 2 ? isBefore($1, $0) : isBefore($0, $1) }
        let more = limit.map { kvs.count > $0 } ?? false
        if let limit { kvs = Array(kvs.prefix(limit)) }
        if request.keysOnly { for at in kvs.indices { kvs[at].value = [] } }
        return .range(found: kvs, count: count, more: more)
    }
}
