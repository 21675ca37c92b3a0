import Base

// What the tables' entries look like: etcd's own bytes, so what comes from a real etcd's file is checked here and then stored as it is.
extension Table {
    /// The key of `Table.key` under which a transaction's first change lies.
    public static func revisionKey(main: Int64) -> [UInt8] { changeKey(main: main, sub: 0, tombstone: false) }

    /// The revision that an entry of `Table.key` belongs to; nil when it is none.
    public static func mainRevision(ofKey key: UnsafeRawBufferPointer) -> Int64? { parseChangeKey(key)?.main }

    /// Why an entry cannot be one of this table; nil when it can. Whatever passes, `KeyValueStore.load` and `LeaseTable.load` take.
    public func fault(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> String? {
        switch self {
        case .key:
            guard let change = parseChangeKey(key) else { return "a key of \(key.count) bytes in bucket key is not a revision" }
            guard change.main > 0 else { return "bucket key holds revision 0" }
            // Without a value: the mark of a revision that was raised.
            if value.count > 0, KeyValueView(value).map({ $0.keyCount == 0 }) ?? true { return "revision \(change.main).\(change.sub) is not a key-value" }
        case .lease:
            var reader = ByteReader(value)
            guard let record = try? LeaseRecord.decode(&reader), record.id != .none, LeaseRecord.key(record.id).elementsEqual(key) else {
                return "a record in bucket lease is not a lease"
            }
        case .meta:
            for name in [MetaKey.scheduledCompactRevision, MetaKey.finishedCompactRevision] where name.elementsEqual(key) {
                if parseChangeKey(value) == nil { return "\(String(decoding: name, as: UTF8.self)) in bucket meta is not a revision" }
            }
        case .alarm:
            var reader = ByteReader(key)
            do throws(DecodingFault) { while let (_, type) = try reader.readTag() { try reader.skip(type) } } catch { return "a record in bucket alarm is not an alarm" }
        case .members, .membersRemoved, .cluster, .auth, .authUsers, .authRoles: break
        }
        return nil
    }
}
