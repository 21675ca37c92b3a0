import Base

/// A lease as it is replicated and stored: what every member knows about it, without any clock.
public struct LeaseRecord: Hashable, Sendable {
    public var id: LeaseID
    /// Effective time to live as granted, in seconds.
    public var grantedTTLSeconds: Int64
    /// Checkpointed rest of the time to live, in seconds; 0 = no checkpoint, the whole time counts.
    public var remainingTTLSeconds: Int64

    public init(id: LeaseID, grantedTTLSeconds: Int64, remainingTTLSeconds: Int64 = 0) {
        self.id = id
        self.grantedTTLSeconds = grantedTTLSeconds
        self.remainingTTLSeconds = remainingTTLSeconds
    }

    /// The key in `Table.lease`: the id, big-endian.
    public static func key(_ id: LeaseID) -> [UInt8] {
        var writer = ByteWriter(capacity: 8)
        writer.writeBigEndian(id.rawValue)
        return writer.bytes
    }

    /// The value in `Table.lease`: etcd's `leasepb.Lease` {ID = 1, TTL = 2, RemainingTTL = 3}.
    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, id.rawValue)
        writer.writeField(2, grantedTTLSeconds)
        writer.writeField(3, remainingTTLSeconds)
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> LeaseRecord {
        var record = LeaseRecord(id: .none, grantedTTLSeconds: 0)
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .varint): record.id = LeaseID(Int64(bitPattern: try reader.readVarint()))
            case (2, .varint): record.grantedTTLSeconds = Int64(bitPattern: try reader.readVarint())
            case (3, .varint): record.remainingTTLSeconds = Int64(bitPattern: try reader.readVarint())
            default: try reader.skip(type)
            }
        }
        return record
    }

    /// Adds the record to what the backend commits with the entry that changed it.
    public func add(to batch: inout BackendBatch) {
        var writer = ByteWriter(capacity: 32)
        encode(into: &writer)
        batch.put(.lease, LeaseRecord.key(id), writer.bytes)
    }

    /// Adds the removal of a lease's record.
    public static func addRemoval(of id: LeaseID, to batch: inout BackendBatch) {
        batch.delete(.lease, key(id))
    }
}

extension LeaseTable {
    /// The granted leases, without keys: those hang on the store's key-values and are attached by whoever loads both.
    public static func load(from reader: any BackendReader) throws(StoreLoadError) -> LeaseTable {
        var table = LeaseTable()
        var damage: String?
        do throws(BackendError) {
            try reader.scan(.lease, from: []) { key, value in
                var body = ByteReader(value)
                do throws(DecodingFault) {
                    let record = try LeaseRecord.decode(&body)
                    if !LeaseRecord.key(record.id).elementsEqual(key) || record.id == .none {
                        damage = "lease record \(record.id.rawValue) under another key"
                    } else {
                        table.restore(record)
                    }
                } catch {
                    damage = "lease record: \(error)"
                }
                return damage == nil
            }
        } catch {
            throw .backend(error)
        }
        if let damage { throw .corrupt(damage) }
        return table
    }
}
