import Base
import CISAL

/// CRC-32C (Castagnoli), fed piece by piece.
struct CRC32C {
    private var state: UInt32 = 0xffff_ffff
    var value: UInt32 { ~state }

    mutating func update(_ raw: UnsafeRawBufferPointer) {
        guard raw.count > 0 else { return }
        precondition(raw.count <= Int(Int32.max), "\(raw.count) bytes in one piece")
        // The library takes a mutable pointer but only reads.
        let bytes = UnsafeMutablePointer(mutating: raw.baseAddress!.assumingMemoryBound(to: UInt8.self))
        state = crc32_iscsi(bytes, Int32(raw.count), state)
    }
    mutating func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }
    mutating func update(_ text: StaticString) {
        update(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }
}

extension StoreSnapshot {
    /// etcd's HashKV: equal on every member that holds the same revisions, whatever it has physically compacted.
    /// `revision` 0: current. Reads everything up to `revision`. (§8.6)
    public func hashKV(revision wanted: Revision, reader: any BackendReader) throws(ServiceError) -> HashKVResult {
        if wanted > .zero {
            guard wanted >= compactRevision else { throw .compacted }
            guard wanted <= revision else { throw .futureRev }
        }
        let through = wanted == .zero ? revision.rawValue : wanted.rawValue
        let compacted = compactRevision.rawValue

        // The changes at or below the compact revision that count: those that reads at `through` see, or, when nothing is
        // alive there, those that the compaction leaves.
        var seen: [StoredChange] = []
        var left: [StoredChange] = []
        var isAnythingAlive = false
        index.forEach(in: .everything) { _, entry in
            if let change = entry.pointee.visible(at: through) {
                isAnythingAlive = true
                if change.main <= compacted { seen.append(change) }
            }
            if let change = entry.pointee.visible(at: compacted) { left.append(change) }
            return true
        }
        var kept = isAnythingAlive ? seen : left
        kept.sort(by: <)

        var crc = CRC32C()
        crc.update("key")
        var next = 0
        do throws(ReadFault) {
            try scanChanges(from: 0, reader: reader) { change, key, value in
                guard change.main <= through else { return false }
                if change.main <= compacted {
                    while next < kept.count && kept[next] < change { next += 1 }
                    guard next < kept.count, kept[next] == change else { return true }
                }
                crc.update(key)
                crc.update(value)
                return true
            }
        } catch {
            throw error.serviceError
        }
        return HashKVResult(hash: crc.value, compactRevision: compactRevision, revision: revision, hashRevision: Revision(through))
    }

    /// Visits the stored changes with main >= `from` in order, those of the overlay included, until `body` returns false.
    func scanChanges(
        from: Int64, reader: any BackendReader,
        _ body: (_ change: StoredChange, _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool
    ) throws(ReadFault) {
        let overlayFirst = overlay.first
        let start = StoredChange(main: from, sub: 0, tombstone: false)
        var isStopped = false
        if overlayFirst.map({ start < $0 }) ?? true {
            var isBroken = false
            do throws(BackendError) {
                try reader.scan(.key, from: changeKey(main: from, sub: 0, tombstone: false)) { key, value in
                    guard let change = parseChangeKey(key) else {
                        isBroken = true
                        return false
                    }
                    // From here on the overlay has everything; the backend may have some of it too.
                    if let overlayFirst, !(change < overlayFirst) { return false }
                    // The backend may be ahead of this snapshot.
                    guard change.main <= revision.rawValue, body(change, key, value) else {
                        isStopped = true
                        return false
                    }
                    return true
                }
            } catch {
                throw .backend(error)
            }
            if isBroken { throw .backend(BackendError(operation: "scan", code: 0, message: "a key of the revision table is malformed")) }
        }
        if isStopped { return }
        overlay.forEach(from: start) { slot in
            let change = slot.change
            let key = changeKey(main: change.main, sub: change.sub, tombstone: change.isTombstone)
            return key.withUnsafeBytes { key in slot.kv.withUnsafeBytes { body(change, key, $0) } }
        }
    }
}

/// `Maintenance.Hash`: CRC-32C over the tables in the order of their names, each name, key and value, except the applied
/// index and term. Comparable only between members with identical tables. (§8.5)
public func backendHash(_ reader: any BackendReader) throws(BackendError) -> UInt32 {
    var crc = CRC32C()
    for table in Table.allCases.sorted(by: { compareBytes(Array($0.name.utf8), Array($1.name.utf8)) < 0 }) {
        crc.update(Array(table.name.utf8))
        try reader.scan(table, from: []) { key, value in
            if table == .meta && MetaKey.isLeftOutOfHash(key) { return true }
            crc.update(key)
            crc.update(value)
            return true
        }
    }
    return crc.value
}
