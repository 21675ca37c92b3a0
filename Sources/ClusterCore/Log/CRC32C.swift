import CISAL

/// CRC-32C (Castagnoli), the checksum of iSCSI, ext4 and etcd's log; "123456789" gives 0xe3069283.
public enum CRC32C {
    /// The checksum of `bytes`. Hand in an earlier result as `seed` to go on where it ended.
    @inlinable public static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return seed }
        var rest = UnsafeMutablePointer(mutating: base.assumingMemoryBound(to: UInt8.self))
        var count = bytes.count
        // The C function keeps the register as is, so the customary inversion before and after is ours. It takes a 32-bit length.
        var register = ~seed
        while count > 0 {
            let step = min(count, 1 << 30)
            register = crc32_iscsi(rest, Int32(step), register)
            rest += step
            count -= step
        }
        return ~register
    }

    @inlinable public static func checksum(_ bytes: [UInt8], seed: UInt32 = 0) -> UInt32 {
        bytes.withUnsafeBytes { checksum($0, seed: seed) }
    }
}
