import Base

extension StoreSnapshot {
    /// Up to this many keys the index gives the changes of exactly those keys; for more, one walk over all revisions with a
    /// filter is cheaper than sorting theirs.
    private static let maxKeysByIndex = 256

    /// The changes of `ranges` with from <= revision <= through, whole revisions in (main, sub) order. Stops behind a
    /// revision once it has looked at `maxRevisions` or gathered `maxBytes` of key-values; at least one revision is covered.
    ///
    /// Errors: `.compacted` when `from` is below the compact revision (that revision itself can be asked for); `.internal`
    /// when the backend fails.
    public func history(
        of ranges: [KeyRange], from: Revision, through: Revision, maxRevisions: Int = 1_000, maxBytes: Int = 1 << 20,
        reader: any BackendReader
    ) throws(ServiceError) -> HistoryPage {
        precondition(maxRevisions > 0, "history of \(maxRevisions) revisions asked for")
        guard from >= compactRevision else { throw .compacted }
        let through = min(through, revision)
        guard from <= through else { return HistoryPage(events: [], next: from) }
        let set = KeyRangeSet(ranges)
        do throws(ReadFault) {
            if let changes = changesByIndex(set, from: from.rawValue, through: through.rawValue, maxRevisions: maxRevisions) {
                return try page(changes, through: through, maxRevisions: maxRevisions, maxBytes: maxBytes, reader: reader)
            }
            return try pageByScan(set, from: from, through: through, maxRevisions: maxRevisions, maxBytes: maxBytes, reader: reader)
        } catch {
            throw error.serviceError
        }
    }

    /// The encoded key-value of `key` at revision `change.main - 1`: an event's prev_kv. nil when absent or compacted.
    /// Errors: `.internal` when the backend fails.
    public func previousValue(of key: Key, before change: ChangeID, reader: any BackendReader) throws(ServiceError) -> [UInt8]? {
        let at = change.main.rawValue - 1
        guard at >= compactRevision.rawValue, let entry = index.find(key.bytes), let previous = entry.visible(at: at) else { return nil }
        do throws(ReadFault) { return try withValue(previous, reader) { [UInt8]($0) } } catch { throw error.serviceError }
    }

    /// Ascending changes of the few keys in `set`, complete up to and including `completeThrough`.
    private struct IndexedChanges {
        var changes: [StoredChange] = []
        var completeThrough: Int64
    }

    /// nil when the set holds too many keys.
    private func changesByIndex(_ set: KeyRangeSet, from: Int64, through: Int64, maxRevisions: Int) -> IndexedChanges? {
        var keys = 0
        var found = IndexedChanges(completeThrough: through)
        set.forEach { bounds in
            index.forEach(in: bounds) { _, entry in
                keys += 1
                guard keys <= StoreSnapshot.maxKeysByIndex else { return false }
                var at = entry.pointee.changeCount(through: from - 1)
                let end = entry.pointee.changeCount(through: through)
                // More than maxRevisions changes of one key are never needed: a long history is not gathered again and
                // again for each of its pages.
                let cut = min(end, at + maxRevisions)
                while at < cut {
                    found.changes.append(entry.pointee.change(at: at))
                    at += 1
                }
                if cut < end {
                    // The cut may part a revision: complete it, then nothing behind it counts.
                    let last = entry.pointee.change(at: cut - 1).main
                    while at < end, entry.pointee.change(at: at).main == last {
                        found.changes.append(entry.pointee.change(at: at))
                        at += 1
                    }
                    found.completeThrough = min(found.completeThrough, last)
                }
                return true
            }
        }
        guard keys <= StoreSnapshot.maxKeysByIndex else { return nil }
        found.changes.sort(by: <)
        return found
    }

    private func page(
        _ found: IndexedChanges, through: Revision, maxRevisions: Int, maxBytes: Int, reader: any BackendReader
    ) throws(ReadFault) -> HistoryPage {
        var page = HistoryPage(events: [], next: Revision(found.completeThrough).next)
        var bytes = 0
        var revisions = 0
        var last: Int64 = -1
        for change in found.changes where change.main <= found.completeThrough {
            if change.main != last {
                if revisions > 0 && (revisions >= maxRevisions || bytes >= maxBytes) {
                    page.next = Revision(change.main)
                    break
                }
                revisions += 1
                last = change.main
            }
            let event = try withValue(change, reader) { StoreEvent(change, stored: $0) }
            guard let event else { throw .malformed(change) }
            bytes += event.kv.count
            page.events.append(event)
        }
        return page
    }

    private func pageByScan(
        _ set: KeyRangeSet, from: Revision, through: Revision, maxRevisions: Int, maxBytes: Int, reader: any BackendReader
    ) throws(ReadFault) -> HistoryPage {
        var page = HistoryPage(events: [], next: through.next)
        var bytes = 0
        var revisions = 0
        var last: Int64 = -1
        var broken: StoredChange?
        try scanChanges(from: from.rawValue, reader: reader) { change, _, value in
            if change.main > through.rawValue { return false }
            if change.main != last {
                if revisions > 0 && (revisions >= maxRevisions || bytes >= maxBytes) {
                    page.next = Revision(change.main)
                    return false
                }
                revisions += 1
                last = change.main
            }
            // Written by etcd's --bump-revision: a revision without a key.
            if value.count == 0 { return true }
            guard let view = KeyValueView(value) else {
                broken = change
                return false
            }
            guard set.contains(view.key(in: value)) else { return true }
            let event = StoreEvent(change, view, value)
            bytes += event.kv.count
            page.events.append(event)
            return true
        }
        if let broken { throw .malformed(broken) }
        return page
    }
}

extension ReadFault {
    static func malformed(_ change: StoredChange) -> ReadFault {
        .backend(BackendError(operation: "decode", code: 0, message: "revision \(change.main).\(change.sub) is not a key-value"))
    }
}

extension StoreEvent {
    /// nil when `raw` is not a key-value.
    fileprivate init?(_ change: StoredChange, stored raw: UnsafeRawBufferPointer) {
        guard let view = KeyValueView(raw) else { return nil }
        self.init(change, view, raw)
    }

    fileprivate init(_ change: StoredChange, _ view: KeyValueView, _ raw: UnsafeRawBufferPointer) {
        let key = Key([UInt8](view.key(in: raw)))
        if change.isTombstone {
            self = .deletion(of: key, change, previousLease: .none)
        } else {
            self.init(
                kind: .put, key: key, change: change.id, kv: [UInt8](raw), isCreate: view.createRevision == change.main,
                lease: LeaseID(view.lease))
        }
    }

    /// A delete event shows key and mod_revision only, while the table holds only the key.
    static func deletion(of key: Key, _ change: StoredChange, previousLease: LeaseID) -> StoreEvent {
        let kv = encodeKeyValue(
            key: key.bytes, createRevision: .zero, modRevision: Revision(change.main), version: 0, value: [], lease: .none)
        return StoreEvent(kind: .delete, key: key, change: change.id, kv: kv, isCreate: false, previousLease: previousLease)
    }
}
