import CISAL
import Store

/// What stands behind every value in the file: a CRC-32C over table, key and value, so that no rotten record, and none that was written to
/// another place, is ever taken for data. Callers of `LMDBBackend` never see it.
enum RecordSeal {
    static let size = 4

    @inline(__always)
    static func checksum(_ table: Table, _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> UInt32 {
        // Table and length of the key go into the register that the checksum starts from, which costs nothing.
        var register = ~(UInt32(table.rawValue) | UInt32(truncatingIfNeeded: key.count) << 8)
        register = update(register, key)
        return ~update(register, value)
    }

    @inline(__always)
    private static func update(_ register: UInt32, _ raw: UnsafeRawBufferPointer) -> UInt32 {
        guard let base = raw.baseAddress, raw.count > 0 else { return register }
        precondition(raw.count <= Int(Int32.max), "a record of \(raw.count) bytes")
        // The library takes a mutable pointer but only reads.
        return crc32_iscsi(UnsafeMutablePointer(mutating: base.assumingMemoryBound(to: UInt8.self)), Int32(truncatingIfNeeded: raw.count), register)
    }

    /// The value without its seal; nil when it is not the one that was written under this key.
    @inline(__always)
    static func open(_ table: Table, _ key: UnsafeRawBufferPointer, _ sealed: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard sealed.count >= size else { return nil }
        let value = UnsafeRawBufferPointer(rebasing: sealed[..<(sealed.count - size)])
        let found = UInt32(littleEndian: sealed.loadUnaligned(fromByteOffset: value.count, as: UInt32.self))
        return checksum(table, key, value) == found ? value : nil
    }

    /// Writes value and seal into the room that LMDB made for them.
    @inline(__always)
    static func write(_ table: Table, _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, to room: UnsafeMutableRawPointer) {
        if let base = value.baseAddress { room.copyMemory(from: base, byteCount: value.count) }
        room.storeBytes(of: checksum(table, key, value).littleEndian, toByteOffset: value.count, as: UInt32.self)
    }
}

extension BackendError {
    /// A record of this table that is not what was written under its key.
    static func unsealed(_ path: String, _ table: Table, _ key: UnsafeRawBufferPointer) -> BackendError {
        let name: String
        if table == .key, key.count >= 17 {
            let main = key[..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let sub = key[9..<17].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            name = "revision \(main).\(sub)"
        } else if key.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }) {
            name = "\"\(String(decoding: key, as: UTF8.self))\""
        } else {
            name = key.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
        }
        return .damaged(path, "record \(name) of table \(table.name) does not match its checksum")
    }
}
