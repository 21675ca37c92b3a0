import Base

/// Keys of Table.meta. (etcd-storage.md §3.2)
public enum MetaKey {
    /// Raft index of the last entry applied to this backend, 8 bytes big-endian. Written by the caller of `takeBatch`.
    public static let consistentIndex = Array("consistent_index".utf8)
    /// Raft term of that entry, 8 bytes big-endian. Written by the caller of `takeBatch`.
    public static let term = Array("term".utf8)
    public static let confState = Array("confState".utf8)
    /// Revision key of the compaction that has begun.
    public static let scheduledCompactRevision = Array("scheduledCompactRev".utf8)
    /// Revision key of the compaction that has removed everything.
    public static let finishedCompactRevision = Array("finishedCompactRev".utf8)
    /// Of everything applied up to `consistentIndex` (`StateHash`), 8 bytes big-endian. Ours, not etcd's.
    public static let stateHash = Array("stateHash".utf8)
    public static let storageVersion = Array("storageVersion".utf8)

    static func isLeftOutOfHash(_ key: UnsafeRawBufferPointer) -> Bool {
        [consistentIndex, term, stateHash, storageVersion].contains { $0.withUnsafeBytes { compareBytes($0, key) == 0 } }
    }
}

/// Names one `takeBatch`.
public struct BatchToken: Hashable, Sendable {
    /// The overlay's sequence number behind the last change of the batch.
    let through: Int
    /// The compaction whose last deletion the batch holds.
    let finishedCompaction: Revision?
}

/// Why the durable tables could not be read back.
public enum StoreLoadError: Error, Equatable, Sendable {
    case backend(BackendError)
    /// An entry that this format does not know.
    case corrupt(String)
}

extension KeyValueStore {
    /// Whether `takeBatch` has something to hand out. Deletions that a living snapshot holds back become ready without any
    /// call, so ask again now and then (every tick) when nothing else happens.
    public var hasPendingChanges: Bool {
        takenThrough < overlay.end || compaction.unwrittenSchedule != nil || compaction.hasReadyDeletions
    }

    /// Changes handed out but not reported durable, or not handed out yet: what the overlay holds in memory for.
    public var overlayCount: Int { overlay.end - overlay.start }

    /// Appends everything not yet handed out: changes, the mark of a new compaction, and physical deletions, of these at
    /// most `maxDeletions`. The caller adds its own facts of the same applied index and commits all of it as one.
    public func takeBatch(into batch: inout BackendBatch, maxDeletions: Int = 5_000) -> BatchToken {
        batch.changes.reserveCapacity(batch.changes.count + overlay.end - takenThrough + 4)
        overlay.forEach(fromSequence: takenThrough) { slot in
            let change = slot.change
            batch.put(.key, changeKey(main: change.main, sub: change.sub, tombstone: change.isTombstone), slot.kv)
        }
        takenThrough = overlay.end
        pendingBytes = 0
        if let scheduled = compaction.unwrittenSchedule {
            batch.put(.meta, MetaKey.scheduledCompactRevision, changeKey(main: scheduled.rawValue, sub: 0, tombstone: false))
            compaction.unwrittenSchedule = nil
        }
        // Behind the puts: a change may be written and removed by one batch.
        compaction.releaseEpochs()
        let finished = compaction.takeDeletions(atMost: maxDeletions) { change in
            batch.delete(.key, changeKey(main: change.main, sub: change.sub, tombstone: change.isTombstone))
        }
        if let finished {
            batch.put(.meta, MetaKey.finishedCompactRevision, changeKey(main: finished.rawValue, sub: 0, tombstone: false))
        }
        return BatchToken(through: takenThrough, finishedCompaction: finished)
    }

    /// The batch of `token` is durable: its changes leave memory. Batches are reported in the order of `takeBatch`.
    public func batchCommitted(_ token: BatchToken) {
        precondition(token.through <= takenThrough, "batch through \(token.through) reported, \(takenThrough) taken")
        overlay.trim(below: token.through)
        if let finished = token.finishedCompaction { compaction.finished = finished }
    }

    /// No store gets to a revision like this: it is damage, and the next one might not be a number any more.
    private static let numberLimit: Int64 = 1 << 62

    /// Rebuilds index and revisions from the durable tables. A compaction that had begun goes on where the table left it.
    public static func load(from reader: any BackendReader) throws(StoreLoadError) -> KeyValueStore {
        let store = KeyValueStore()
        let finished = try readRevision(MetaKey.finishedCompactRevision, reader)
        let scheduled = try readRevision(MetaKey.scheduledCompactRevision, reader)
        var last: Int64 = 1
        var failure: StoreLoadError?
        do throws(BackendError) {
            try reader.scan(.key, from: []) { key, value in
                guard let change = parseChangeKey(key) else {
                    failure = .corrupt("a key of \(key.count) bytes in the revision table is not a revision")
                    return false
                }
                guard change.main > 0, change.main < KeyValueStore.numberLimit else {
                    failure = .corrupt("the revision table holds revision \(change.main)")
                    return false
                }
                last = max(last, change.main)
                // Written by etcd's --bump-revision: counts for the revision, is no change of any key.
                if value.count == 0 { return true }
                guard let view = KeyValueView(value), view.keyCount > 0, change.isTombstone || view.isPossible else {
                    failure = .corrupt("revision \(change.main).\(change.sub) is not a key-value")
                    return false
                }
                store.index.modify([UInt8](view.key(in: value))) { entry in
                    if change.isTombstone {
                        entry.record(change, createRevision: 0, version: 0, lease: 0)
                    } else {
                        entry.record(change, createRevision: view.createRevision, version: view.version, lease: view.lease)
                    }
                }
                return true
            }
        } catch {
            throw .backend(error)
        }
        if let failure { throw failure }

        let compacted = max(finished ?? -1, scheduled ?? -1)
        store.revision = Revision(max(last, compacted))
        store.compactRevision = Revision(compacted)
        store.compaction.finished = Revision(finished ?? -1)
        if let scheduled, scheduled > finished ?? -1 {
            store.compaction.schedule(Revision(scheduled), retiring: nil)
            store.compaction.unwrittenSchedule = nil
        }
        return store
    }

    private static func readRevision(_ name: [UInt8], _ reader: any BackendReader) throws(StoreLoadError) -> Int64? {
        let found: StoredChange??
        do throws(BackendError) { found = try reader.get(.meta, name) { parseChangeKey($0) } } catch { throw .backend(error) }
        guard let found else { return nil }
        guard let change = found, change.main < numberLimit else { throw .corrupt("a compaction mark is not a revision") }
        return change.main
    }
}
