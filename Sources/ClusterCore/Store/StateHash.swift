import CISAL

/// A running hash over everything that applied entries have done to the replicated state: members that hold the same state at the same
/// entry hold the same hash, and members whose states ever parted never agree again (but by chance, 1 in 2^64).
///
/// CRC-64 (ECMA-182, reflected), each piece seeded with what came before: carry-less multiplication makes it cheap, and for equal input
/// it maps different hashes to different hashes. It is against faults, not against forgers.
public struct StateHash: Hashable, Sendable, CustomStringConvertible {
    public private(set) var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Before the first entry.
    public static let initial = StateHash(rawValue: 0)

    public var description: String {
        let digits = String(rawValue, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    public mutating func fold(_ raw: UnsafeRawBufferPointer) {
        guard let base = raw.baseAddress, raw.count > 0 else { return }
        rawValue = crc64_ecma_refl(rawValue, base.assumingMemoryBound(to: UInt8.self), UInt64(raw.count))
    }
    public mutating func fold(_ bytes: [UInt8]) { bytes.withUnsafeBytes { fold($0) } }

    /// Four numbers in one piece: a call costs more than its few bytes.
    public mutating func fold(_ a: UInt64, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0) {
        withUnsafeBytes(of: (a.littleEndian, b.littleEndian, c.littleEndian, d.littleEndian)) { fold($0) }
    }

    /// All that members must agree on about one change.
    public mutating func fold(_ event: StoreEvent) {
        let flags = UInt64(event.kind.rawValue) << 32 | (event.isCreate ? 1 << 40 : 0)
        fold(UInt64(bitPattern: event.change.main.rawValue), UInt64(bitPattern: event.change.sub) ^ flags,
             UInt64(bitPattern: event.previousLease.rawValue), UInt64(event.kv.count))
        fold(event.kv)
    }
}
