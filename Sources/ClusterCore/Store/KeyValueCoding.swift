import Base

// `mvccpb.KeyValue` in its canonical form (ascending fields, zero and empty left out): the value of Table.key and, byte
// for byte, what the API sends. Fields: key=1, create_revision=2, mod_revision=3, version=4, value=5, lease=6.

/// Decodes a stored or received key-value. Any field order is accepted.
public func decodeKeyValue(_ raw: UnsafeRawBufferPointer) throws(DecodingFault) -> KeyValue {
    var kv = KeyValue(key: [])
    var reader = ByteReader(raw)
    while let (field, type) = try reader.readTag() {
        switch field {
        case 1: kv.key = try reader.readBytesField(type)
        case 2: kv.createRevision = Revision(try reader.readInt64Field(type))
        case 3: kv.modRevision = Revision(try reader.readInt64Field(type))
        case 4: kv.version = try reader.readInt64Field(type)
        case 5: kv.value = try reader.readBytesField(type)
        case 6: kv.lease = LeaseID(try reader.readInt64Field(type))
        default: try reader.skip(type)
        }
    }
    return kv
}

/// Decodes a stored or received key-value. Any field order is accepted.
public func decodeKeyValue(_ bytes: [UInt8]) throws(DecodingFault) -> KeyValue {
    // withUnsafeBytes does not carry a typed error through, hence the Result.
    let result: Result<KeyValue, DecodingFault> = bytes.withUnsafeBytes { raw in
        do throws(DecodingFault) { return .success(try decodeKeyValue(raw)) } catch { return .failure(error) }
    }
    return try result.get()
}

/// The canonical encoding, in one allocation of the exact size.
public func encodeKeyValue(
    key: [UInt8], createRevision: Revision, modRevision: Revision, version: Int64, value: [UInt8], lease: LeaseID
) -> [UInt8] {
    func numberSize(_ n: Int64) -> Int { n == 0 ? 0 : 1 + varintSize(UInt64(bitPattern: n)) }
    func bytesSize(_ n: Int) -> Int { n == 0 ? 0 : 1 + varintSize(UInt64(n)) + n }
    let size = bytesSize(key.count) + numberSize(createRevision.rawValue) + numberSize(modRevision.rawValue) + numberSize(version)
        + bytesSize(value.count) + numberSize(lease.rawValue)
    return [UInt8](unsafeUninitializedCapacity: size) { out, count in
        var at = 0
        func varint(_ value: UInt64) {
            var rest = value
            while rest >= 0x80 {
                out[at] = UInt8(truncatingIfNeeded: rest) | 0x80
                at += 1
                rest >>= 7
            }
            out[at] = UInt8(truncatingIfNeeded: rest)
            at += 1
        }
        func number(_ tag: UInt8, _ n: Int64) {
            guard n != 0 else { return }
            out[at] = tag
            at += 1
            varint(UInt64(bitPattern: n))
        }
        func bytes(_ tag: UInt8, _ raw: [UInt8]) {
            guard !raw.isEmpty else { return }
            out[at] = tag
            at += 1
            varint(UInt64(raw.count))
            raw.withUnsafeBufferPointer { source in
                (out.baseAddress! + at).update(from: source.baseAddress!, count: source.count)
            }
            at += raw.count
        }
        bytes(0x0a, key)
        number(0x10, createRevision.rawValue)
        number(0x18, modRevision.rawValue)
        number(0x20, version)
        bytes(0x2a, value)
        number(0x30, lease.rawValue)
        precondition(at == size, "key-value encoded to \(at) bytes, \(size) computed")
        count = at
    }
}

extension KeyValue {
    public func encoded() -> [UInt8] {
        encodeKeyValue(key: key, createRevision: createRevision, modRevision: modRevision, version: version, value: value, lease: lease)
    }
}

/// The fields of an encoded key-value as offsets and numbers: enough to filter, sort and splice without copying.
struct KeyValueView {
    var keyAt = 0, keyCount = 0
    var createRevision: Int64 = 0
    var modRevision: Int64 = 0
    var version: Int64 = 0
    var lease: Int64 = 0
    var valueAt = 0, valueCount = 0
    /// The whole field 5 with tag and length; empty when there is none.
    var valueFieldAt = 0, valueFieldEnd = 0

    /// nil when the bytes are not a key-value.
    init?(_ raw: UnsafeRawBufferPointer) {
        do {
            var reader = ByteReader(raw)
            while true {
                let fieldAt = reader.offset
                guard let (field, type) = try reader.readTag() else { break }
                switch (field, type) {
                case (1, .lengthDelimited):
                    keyCount = try reader.readCount()
                    keyAt = reader.offset
                    reader.offset += keyCount
                case (2, .varint): createRevision = Int64(bitPattern: try reader.readVarint())
                case (3, .varint): modRevision = Int64(bitPattern: try reader.readVarint())
                case (4, .varint): version = Int64(bitPattern: try reader.readVarint())
                case (5, .lengthDelimited):
                    valueCount = try reader.readCount()
                    valueAt = reader.offset
                    reader.offset += valueCount
                    valueFieldAt = fieldAt
                    valueFieldEnd = reader.offset
                case (6, .varint): lease = Int64(bitPattern: try reader.readVarint())
                default: try reader.skip(type)
                }
            }
        } catch {
            return nil
        }
    }

    /// Whether a put can have made it: its key was created, and has changed since a number of times that is one.
    var isPossible: Bool { createRevision > 0 && createRevision < 1 << 62 && version > 0 && version < 1 << 62 }

    func key(in raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: raw[keyAt..<keyAt + keyCount])
    }
    func value(in raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: raw[valueAt..<valueAt + valueCount])
    }
}

/// The key of Table.key: main big-endian, '_', sub big-endian, and 't' for a tombstone. (etcd-storage.md §3.1)
func changeKey(main: Int64, sub: UInt32, tombstone: Bool) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: 18) { out, count in
        let raw = UnsafeMutableRawBufferPointer(out)
        raw.storeBytes(of: main.bigEndian, toByteOffset: 0, as: Int64.self)
        raw[8] = 0x5f
        raw.storeBytes(of: UInt64(sub).bigEndian, toByteOffset: 9, as: UInt64.self)
        raw[17] = 0x74
        count = tombstone ? 18 : 17
    }
}

/// Reads a key of Table.key; nil when it is not one.
func parseChangeKey(_ raw: UnsafeRawBufferPointer) -> StoredChange? {
    guard raw.count == 17 || (raw.count == 18 && raw[17] == 0x74), raw[8] == 0x5f else { return nil }
    let main = Int64(bigEndian: raw.loadUnaligned(fromByteOffset: 0, as: Int64.self))
    let sub = UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 9, as: UInt64.self))
    guard main >= 0, sub <= UInt64(StoredChange.maxSub) else { return nil }
    return StoredChange(main: main, sub: UInt32(sub), tombstone: raw.count == 18)
}
