import Base
@testable import Store

/// The store as a plain list of everything that ever happened: slow and obvious, the oracle of the random tests.
struct StoreModel {
    struct Change {
        var id: ChangeID
        var key: [UInt8]
        /// nil: a deletion.
        var kv: KeyValue?
    }
    var changes: [Change] = []
    var revision = Revision(1)
    var compactRevision = Revision(-1)
    var leases: Set<LeaseID> = []

    // MARK: Reading

    /// The newest change of `key` at `at`, deletions included.
    func newest(_ key: [UInt8], at: Revision) -> Change? {
        changes.last { $0.key == key && $0.id.main <= at }
    }

    func visible(_ key: [UInt8], at: Revision) -> KeyValue? { newest(key, at: at)?.kv }

    func allKeys() -> [[UInt8]] {
        Set(changes.map(\.key)).sorted { compareBytes($0, $1) < 0 }
    }

    func keyValues(_ range: KeyRange, at: Revision) -> [KeyValue] {
        allKeys().filter { range.contains(Key($0)) }.compactMap { visible($0, at: at) }
    }

    func range(_ request: RangeRequest) throws(ServiceError) -> RangeResult {
        let at = request.revision <= .zero ? revision : request.revision
        if at > revision { throw .futureRev }
        if at < compactRevision { throw .compacted }
        let alive = keyValues(request.range, at: at)
        var result = RangeResult(revision: revision, count: Int64(alive.count))
        if request.countOnly { return result }

        var kvs = alive
        let hasFilter = [
            request.minModRevision, request.maxModRevision, request.minCreateRevision, request.maxCreateRevision,
        ].contains { $0 != .zero }
        if request.sortOrder == .none && !hasFilter && request.limit > 0 {
            kvs = Array(kvs.prefix(Int(min(request.limit, 1_000_000)) + 1))
        }
        if request.minModRevision != .zero { kvs.removeAll { $0.modRevision < request.minModRevision } }
        if request.maxModRevision != .zero { kvs.removeAll { $0.modRevision > request.maxModRevision } }
        if request.minCreateRevision != .zero { kvs.removeAll { $0.createRevision < request.minCreateRevision } }
        if request.maxCreateRevision != .zero { kvs.removeAll { $0.createRevision > request.maxCreateRevision } }
        func order(_ a: KeyValue, _ b: KeyValue) -> Int {
            switch request.sortTarget {
            case .version: Int(a.version - b.version)
            case .createRevision: Int(a.createRevision.rawValue - b.createRevision.rawValue)
            case .modRevision: Int(a.modRevision.rawValue - b.modRevision.rawValue)
            case .value: compareBytes(a.value, b.value)
            default: compareBytes(a.key, b.key)
            }
        }
        let sorted = kvs.enumerated().sorted { x, y in
            let difference = request.sortOrder == .descending ? order(y.element, x.element) : order(x.element, y.element)
            return difference == 0 ? x.offset < y.offset : difference < 0
        }
        kvs = sorted.map(\.element)
        if request.limit > 0 && kvs.count > request.limit {
            kvs = Array(kvs.prefix(Int(request.limit)))
            result.more = true
        }
        if request.keysOnly { for at in kvs.indices { kvs[at].value = [] } }
        for kv in kvs {
            kv.encoded().withUnsafeBytes { result.kvs.append(tag: EncodedKeyValues.rangeTag, $0) }
        }
        return result
    }

    // MARK: Writing

    private mutating func record(_ key: [UInt8], _ kv: KeyValue?, _ sub: inout Int64, _ next: Revision) {
        changes.append(Change(id: ChangeID(main: next, sub: sub), key: key, kv: kv))
        sub += 1
    }

    private mutating func put(_ request: PutRequest, _ sub: inout Int64, _ next: Revision) -> PutResult {
        let old = visible(request.key, at: next)
        let kv = KeyValue(
            key: request.key, createRevision: old?.createRevision ?? next, modRevision: next, version: (old?.version ?? 0) + 1,
            value: request.ignoreValue ? old?.value ?? [] : request.value,
            lease: request.ignoreLease ? old?.lease ?? .none : request.lease)
        record(request.key, kv, &sub, next)
        return PutResult(revision: next, previous: request.prevKV ? old?.encoded() : nil)
    }

    private mutating func deleteRange(_ request: DeleteRangeRequest, _ sub: inout Int64, _ next: Revision) -> DeleteRangeResult {
        let alive = keyValues(request.range, at: next)
        for kv in alive { record(kv.key, nil, &sub, next) }
        var result = DeleteRangeResult(revision: sub > 0 ? next : revision, deleted: Int64(alive.count))
        if request.prevKV {
            for kv in alive { kv.encoded().withUnsafeBytes { result.previous.append(tag: EncodedKeyValues.deleteTag, $0) } }
        }
        return result
    }

    mutating func put(_ request: PutRequest) throws(ServiceError) -> PutResult {
        if request.lease != .none && !leases.contains(request.lease) { throw .leaseNotFound }
        if (request.ignoreValue || request.ignoreLease) && visible(request.key, at: revision) == nil { throw .keyNotFound }
        var sub: Int64 = 0
        let result = put(request, &sub, revision.next)
        revision = revision.next
        return result
    }

    mutating func deleteRange(_ request: DeleteRangeRequest) -> DeleteRangeResult {
        var sub: Int64 = 0
        let result = deleteRange(request, &sub, revision.next)
        if sub > 0 { revision = revision.next }
        return result
    }

    mutating func deleteKeys(_ keys: [Key]) {
        var sub: Int64 = 0
        for key in keys where visible(key.bytes, at: revision) != nil { record(key.bytes, nil, &sub, revision.next) }
        if sub > 0 { revision = revision.next }
    }

    mutating func compact(to target: Revision) throws(ServiceError) {
        if target <= compactRevision { throw .compacted }
        if target > revision { throw .futureRev }
        compactRevision = target
    }

    private func holds(_ compare: Compare) -> Bool {
        var kvs = keyValues(compare.range, at: revision)
        if kvs.isEmpty {
            if compare.target == .value { return false }
            kvs = [KeyValue(key: [])]
        }
        return kvs.allSatisfy { kv in
            var order = 0
            func numbers(_ a: Int64, _ b: Int64) -> Int { a == b ? 0 : a < b ? -1 : 1 }
            switch (compare.target, compare.operand) {
            case (.version, .version(let n)): order = numbers(kv.version, n)
            case (.version, _): order = numbers(kv.version, 0)
            case (.createRevision, .createRevision(let n)): order = numbers(kv.createRevision.rawValue, n)
            case (.createRevision, _): order = numbers(kv.createRevision.rawValue, 0)
            case (.modRevision, .modRevision(let n)): order = numbers(kv.modRevision.rawValue, n)
            case (.modRevision, _): order = numbers(kv.modRevision.rawValue, 0)
            case (.lease, .lease(let n)): order = numbers(kv.lease.rawValue, n)
            case (.lease, _): order = numbers(kv.lease.rawValue, 0)
            case (.value, .value(let bytes)): order = compareBytes(kv.value, bytes)
            case (.value, _): order = compareBytes(kv.value, [])
            default: order = 0
            }
            switch compare.result {
            case .equal: return order == 0
            case .notEqual: return order != 0
            case .greater: return order > 0
            case .less: return order < 0
            default: return true
            }
        }
    }

    /// The operations that will run, nested ones inside, decided on the state before.
    private indirect enum Plan {
        case op(RequestOp)
        case txn(Bool, [Plan])
    }

    private func plan(_ request: TxnRequest) -> (Bool, [Plan]) {
        let succeeded = request.compare.allSatisfy(holds)
        return (succeeded, (succeeded ? request.success : request.failure).map { op in
            guard case .txn(let nested) = op else { return .op(op) }
            let (inner, plans) = plan(nested)
            return .txn(inner, plans)
        })
    }

    private func flat(_ plans: [Plan]) -> [RequestOp] {
        plans.flatMap { plan in
            switch plan {
            case .op(let op): [op]
            case .txn(_, let inner): flat(inner)
            }
        }
    }

    mutating func txn(_ request: TxnRequest) throws(ServiceError) -> TxnResult {
        let (succeeded, plans) = plan(request)
        let ops = flat(plans)
        for case .put(let put) in ops {
            if (put.ignoreValue || put.ignoreLease) && visible(put.key, at: revision) == nil { throw .keyNotFound }
            if put.lease != .none && !leases.contains(put.lease) { throw .leaseNotFound }
        }
        for case .range(let range) in ops where range.revision != .zero {
            if range.revision > revision { throw .futureRev }
            if range.revision < compactRevision { throw .compacted }
        }
        var sub: Int64 = 0
        let result = try run(succeeded, plans, &sub)
        if sub > 0 { revision = revision.next }
        return result
    }

    private mutating func run(_ succeeded: Bool, _ plans: [Plan], _ sub: inout Int64) throws(ServiceError) -> TxnResult {
        let next = revision.next
        var responses: [OpResult] = []
        for plan in plans {
            switch plan {
            case .txn(let inner, let plans): responses.append(.txn(try run(inner, plans, &sub)))
            case .op(.put(let request)): responses.append(.put(put(request, &sub, next)))
            case .op(.deleteRange(let request)): responses.append(.deleteRange(deleteRange(request, &sub, next)))
            case .op(.range(let request)):
                var seen = self
                if sub > 0 { seen.revision = next }
                responses.append(.range(try seen.range(request)))
            case .op: responses.append(.none)
            }
        }
        return TxnResult(revision: sub > 0 ? next : revision, succeeded: succeeded, responses: responses)
    }

    // MARK: The rest

    func events(_ ranges: [KeyRange], from: Revision, through: Revision) -> [StoreEvent] {
        changes.filter { change in
            change.id.main >= from && change.id.main <= through && ranges.contains { $0.contains(Key(change.key)) }
        }.map { change in
            let kv = change.kv ?? KeyValue(key: change.key, modRevision: change.id.main)
            return StoreEvent(
                kind: change.kv == nil ? .delete : .put, key: Key(change.key), change: change.id, kv: kv.encoded(),
                isCreate: change.kv?.createRevision == change.id.main, lease: kv.lease)
        }
    }

    /// §8.6 word by word, over everything that ever happened: what compaction removed is skipped by the rule itself.
    func hashKV(_ wanted: Revision) throws(ServiceError) -> UInt32 {
        let at = wanted == .zero ? revision : wanted
        if at > revision { throw .futureRev }
        if at < compactRevision { throw .compacted }
        func kept(_ at: Revision) -> Set<ChangeID> { Set(allKeys().compactMap { newest($0, at: at) }.filter { $0.kv != nil }.map(\.id)) }
        let keep = kept(at)
        let left = kept(compactRevision)
        var crc = CRC32C()
        crc.update("key")
        for change in changes where change.id.main <= at {
            if change.id.main <= compactRevision {
                if !(keep.isEmpty ? left : keep).contains(change.id) { continue }
            }
            crc.update(changeKey(main: change.id.main.rawValue, sub: UInt32(change.id.sub), tombstone: change.kv == nil))
            crc.update((change.kv ?? KeyValue(key: change.key)).encoded())
        }
        return crc.value
    }
}
