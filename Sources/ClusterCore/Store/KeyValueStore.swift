import Base

/// The member's multi-version key-value store: the newest index, the changes not yet durable, and what the next backend batch
/// must hold. Confined to the replica loop; other threads read through snapshots.
///
/// Apply functions are pure functions of the replicated state: on every member the same requests in the same order give
/// the same answers, events and stored bytes.
public final class KeyValueStore {
    /// Current store revision; 1 when empty.
    public internal(set) var revision = Revision(1)
    /// Reads below fail with `.compacted`; -1: never compacted.
    public internal(set) var compactRevision = Revision(-1)
    /// The first backend failure met while applying. When it is set the member must stop: the operation it broke is partly
    /// done or wrongly refused, so this state is no longer the cluster's.
    public internal(set) var fault: BackendError?

    var index = KeyIndex()
    var overlay = Overlay()
    var events: [StoreEvent] = []
    var epoch = SnapshotEpoch()
    var compaction = CompactionState()
    /// The overlay's sequence number up to which changes were handed out for the backend.
    var takenThrough = 0
    public internal(set) var pendingBytes = 0

    /// An empty store.
    public init() {}

    /// A value that any thread may read from while the store goes on. O(1); the first change of a tree node behind it
    /// copies that node.
    public func snapshot() -> StoreSnapshot {
        StoreSnapshot(revision: revision, compactRevision: compactRevision, index: index, overlay: overlay, epoch: epoch)
    }

    /// The events since the last call, in order; of several revisions when several were applied.
    public func takeEvents() -> [StoreEvent] {
        var taken: [StoreEvent] = []
        swap(&taken, &events)
        return taken
    }

    /// Number of keys alive.
    public var keyCount: Int { index.liveCount }

    /// Every live key that names a lease, in key order: to rebuild the lease table behind `load`.
    public func forEachLeasedKey(_ body: (Key, LeaseID) -> Void) {
        index.forEach(in: .everything) { key, entry in
            if entry.pointee.isLive && entry.pointee.lease != 0 { body(Key([UInt8](key)), LeaseID(entry.pointee.lease)) }
            return true
        }
    }

    // MARK: Apply

    /// §4.2, from lease to effect. `reader` must have been refreshed behind the last `batchCommitted`; it is used only for
    /// prev_kv and ignore_value. Errors, without effect: `.leaseNotFound`, `.keyNotFound`.
    public func put(
        _ request: PutRequest, reader: any BackendReader, leaseExists: (LeaseID) -> Bool
    ) throws(ServiceError) -> PutResult {
        do throws(ReadFault) {
            if request.lease != .none && !leaseExists(request.lease) { throw .service(.leaseNotFound) }
            if request.ignoreValue || request.ignoreLease {
                guard let entry = index.find(request.key), entry.isLive else { throw .service(.keyNotFound) }
            }
            var transaction = Transaction(main: revision.next)
            let result = try put(request, in: &transaction, reader: reader)
            finish(transaction)
            return result
        } catch {
            throw report(error)
        }
    }

    /// §4.3. `reader` as for `put`; it is used only for prev_kv.
    public func deleteRange(_ request: DeleteRangeRequest, reader: any BackendReader) throws(ServiceError) -> DeleteRangeResult {
        do throws(ReadFault) {
            var transaction = Transaction(main: revision.next)
            let result = try deleteRange(request, in: &transaction, reader: reader)
            finish(transaction)
            return result
        } catch {
            throw report(error)
        }
    }

    /// §4.4. `reader` as for `put`; it is used for VALUE compares, ranges, prev_kv and ignore_value.
    /// Errors, without effect: `.keyNotFound`, `.leaseNotFound`, `.futureRev`, `.compacted`.
    public func txn(
        _ request: TxnRequest, reader: any BackendReader, leaseExists: (LeaseID) -> Bool
    ) throws(ServiceError) -> TxnResult {
        do throws(ReadFault) {
            var path: TxnPath = []
            do {
                let before = view(Transaction(main: revision.next))
                path = try before.choosePath(request, reader: reader)
                // etcd 3.5 checks all puts before any range.
                var at = 0
                try checkPuts(request, path, &at, leaseExists)
                try before.checkRanges(request, path)
            }
            var transaction = Transaction(main: revision.next)
            var at = 0
            let result = try execute(request, path, &at, in: &transaction, reader: reader)
            finish(transaction)
            return result
        } catch {
            throw report(error)
        }
    }

    /// Deletes those of `keys` that are alive, all in one revision, numbered in the order given: ascending for a lease's
    /// revocation. Returns the resulting revision, which stays when nothing was alive.
    @discardableResult
    public func deleteKeys(_ keys: [Key]) -> Revision {
        var transaction = Transaction(main: revision.next)
        for key in keys where index.find(key.bytes)?.isLive ?? false { delete(key.bytes, in: &transaction) }
        finish(transaction)
        return revision
    }

    // MARK: One transaction

    /// The changes of one main revision while they are made.
    struct Transaction {
        let main: Revision
        var sub: UInt32 = 0
        var hasChanges: Bool { sub > 0 }
        /// What a sub-response's header shows and a range reads at.
        var visibleRevision: Revision { hasChanges ? main : Revision(main.rawValue - 1) }
        mutating func next(tombstone: Bool) -> StoredChange {
            defer { sub += 1 }
            return StoredChange(main: main.rawValue, sub: sub, tombstone: tombstone)
        }
    }

    private func finish(_ transaction: Transaction) {
        if transaction.hasChanges { revision = transaction.main }
    }

    private func report(_ error: ReadFault) -> ServiceError {
        if case .backend(let failure) = error, fault == nil { fault = failure }
        return error.serviceError
    }

    /// What a read inside `transaction` sees. To be let go before the next change, or that copies tree nodes.
    private func view(_ transaction: Transaction) -> StoreSnapshot {
        StoreSnapshot(
            revision: transaction.visibleRevision, compactRevision: compactRevision, index: index, overlay: overlay, epoch: nil)
    }

    private func latestValue(_ entry: KeyEntry, reader: any BackendReader) throws(ReadFault) -> [UInt8] {
        if let kv = overlay.find(entry.latest) { return kv }
        return try view(Transaction(main: revision.next)).withValue(entry.latest, reader) { [UInt8]($0) }
    }

    private func put(
        _ request: PutRequest, in transaction: inout Transaction, reader: any BackendReader
    ) throws(ReadFault) -> PutResult {
        var previous: [UInt8]?
        var value = request.value
        if request.prevKV || request.ignoreValue {
            if let entry = index.find(request.key), entry.isLive {
                let stored = try latestValue(entry, reader: reader)
                if request.ignoreValue {
                    let old: [UInt8]? = stored.withUnsafeBytes { raw in KeyValueView(raw).map { [UInt8]($0.value(in: raw)) } }
                    guard let old else { throw .malformed(entry.latest) }
                    value = old
                }
                if request.prevKV { previous = stored }
            }
            // An ignore_value put whose key an earlier operation of the same transaction deleted writes an empty value.
            // The check before the transaction does not see this; etcd 3.5 panics here.
        }
        let change = transaction.next(tombstone: false)
        let main = transaction.main.rawValue
        let (created, version, lease, previousLease) = index.modify(request.key) { entry in
            let previousLease = entry.lease
            let created = entry.isLive ? entry.createRevision : main
            let version = entry.isLive ? entry.version + 1 : 1
            let lease = request.ignoreLease ? entry.lease : request.lease.rawValue
            entry.record(change, createRevision: created, version: version, lease: lease)
            return (created, version, lease, previousLease)
        }
        let kv = encodeKeyValue(
            key: request.key, createRevision: Revision(created), modRevision: transaction.main, version: version, value: value,
            lease: LeaseID(lease))
        remember(change, kv)
        events.append(
            StoreEvent(
                kind: .put, key: Key(request.key), change: change.id, kv: kv, isCreate: created == main, lease: LeaseID(lease),
                previousLease: LeaseID(previousLease)))
        return PutResult(revision: transaction.main, previous: previous)
    }

    private func deleteRange(
        _ request: DeleteRangeRequest, in transaction: inout Transaction, reader: any BackendReader
    ) throws(ReadFault) -> DeleteRangeResult {
        var keys: [[UInt8]] = []
        if request.rangeEnd.isEmpty {
            if index.find(request.key)?.isLive ?? false { keys.append(request.key) }
        } else {
            index.forEach(in: KeyBounds(request.range)) { key, entry in
                if entry.pointee.isLive { keys.append([UInt8](key)) }
                return true
            }
        }
        // Read before the first change, so that a failure here leaves the operation undone.
        var previous = EncodedKeyValues()
        if request.prevKV {
            for key in keys {
                guard let entry = index.find(key) else { continue }
                let stored = try latestValue(entry, reader: reader)
                stored.withUnsafeBytes { previous.append(tag: EncodedKeyValues.deleteTag, $0) }
            }
        }
        for key in keys { delete(key, in: &transaction) }
        return DeleteRangeResult(revision: transaction.visibleRevision, deleted: Int64(keys.count), previous: previous)
    }

    /// Precondition: the key is alive.
    private func delete(_ key: [UInt8], in transaction: inout Transaction) {
        let change = transaction.next(tombstone: true)
        let previousLease = index.modify(key) { entry in
            precondition(entry.isLive, "deletion of a key that is not alive at \(change.id)")
            let previousLease = entry.lease
            entry.record(change, createRevision: 0, version: 0, lease: 0)
            return previousLease
        }
        remember(
            change, encodeKeyValue(key: key, createRevision: .zero, modRevision: .zero, version: 0, value: [], lease: .none))
        events.append(.deletion(of: Key(key), change, previousLease: LeaseID(previousLease)))
    }

    private func remember(_ change: StoredChange, _ kv: [UInt8]) {
        overlay.append(change, kv)
        pendingBytes += kv.count + 18
    }

    // MARK: Transactions of requests

    /// Refuses puts along the path that cannot be done on the state before the transaction.
    private func checkPuts(
        _ request: TxnRequest, _ path: TxnPath, _ at: inout Int, _ leaseExists: (LeaseID) -> Bool
    ) throws(ReadFault) {
        let ops = path[at] ? request.success : request.failure
        at += 1
        for op in ops {
            switch op {
            case .put(let put):
                if put.ignoreValue || put.ignoreLease {
                    guard let entry = index.find(put.key), entry.isLive else { throw .service(.keyNotFound) }
                }
                if put.lease != .none && !leaseExists(put.lease) { throw .service(.leaseNotFound) }
            case .txn(let nested): try checkPuts(nested, path, &at, leaseExists)
            case .none, .range, .deleteRange: continue
            }
        }
    }

    private func execute(
        _ request: TxnRequest, _ path: TxnPath, _ at: inout Int, in transaction: inout Transaction, reader: any BackendReader
    ) throws(ReadFault) -> TxnResult {
        let succeeded = path[at]
        at += 1
        let ops = succeeded ? request.success : request.failure
        var responses: [OpResult] = []
        responses.reserveCapacity(ops.count)
        for op in ops {
            switch op {
            case .none: responses.append(.none)
            case .range(let range):
                responses.append(.range(try view(transaction).evaluateRange(range, reader: reader)))
            case .put(let put): responses.append(.put(try self.put(put, in: &transaction, reader: reader)))
            case .deleteRange(let delete): responses.append(.deleteRange(try deleteRange(delete, in: &transaction, reader: reader)))
            case .txn(let nested): responses.append(.txn(try execute(nested, path, &at, in: &transaction, reader: reader)))
            }
        }
        return TxnResult(revision: transaction.visibleRevision, succeeded: succeeded, responses: responses)
    }
}
