import Base
import Raft

// A segment is a row of records, each 8-byte aligned:
//
//    0  magic u32          16  batch u64                36  end mark u32
//    4  type u8            24  previous u32             40  payload
//    5  version u8         28  payload checksum u32         1...8 bytes 0x5a up to a multiple of 8
//    6  flags u16          32  header checksum u32
//    8  length u32 of the payload
//   12  ordinal u32 in the batch
//
// All numbers are little-endian. The header checksum covers bytes 0..<32 (the payload checksum among them) and is seeded
// with the segment's own header checksum and the record's offset: a record that is copied or written to another place, or
// that sits inside somebody's value, is never taken for one. `previous` is the header checksum of the record before, so the
// records form a chain. Header and padding end in bytes that are not zero: a write that stopped short leaves zeros
// there, which tells it from a bit that flipped later.

enum RecordType: UInt8 {
    /// The first record of every segment.
    case segment = 1
    case hardState = 2
    case entry = 3
    /// Forget every entry; the log starts behind the position.
    case reset = 4
    /// The log starts behind the position; entries up to it are in the store.
    case start = 5
    /// The last record of a segment that has a successor.
    case trailer = 6
}

enum RecordFormat {
    static let magic: UInt32 = 0x5257_4451  // "QDWR"
    static let endMark: UInt32 = 0xd15c_a7ed
    static let version: UInt8 = 1
    static let padding: UInt8 = 0x5a
    static let headerSize = 40
    static let checkedHeaderSize = 32
    /// Disks write whole sectors; a crash loses or keeps each one.
    static let sectorSize = 512
    static let lastOfBatch: UInt16 = 1
    /// Seeds the header checksum of a segment's first record, which has nothing before it.
    static let segmentSeed: UInt32 = 0x5144_5345

    /// Indexes, terms and the numbers of segments and batches stay below this in any life of a cluster: above it they are damage, and what is
    /// added to them would overflow.
    static let numberLimit: UInt64 = 1 << 62
    /// A segment larger than this was never made: one batch decides about its size, and that is gathered in memory.
    static let maxCapacityBytes: UInt64 = 1 << 40

    static let segmentPayloadSize = 88
    static let positionPayloadSize = 16
    static let entryFixedSize = 32
    static let trailerPayloadSize = 32

    /// The size of a record with header and padding (at least one byte of it).
    @inline(__always) static func totalSize(payload: Int) -> Int { (headerSize + payload + 8) & ~7 }

    static let segmentRecordSize = totalSize(payload: segmentPayloadSize)
    static let trailerRecordSize = totalSize(payload: trailerPayloadSize)

    @inline(__always) static func headerSeed(_ seed: UInt32, offset: UInt64) -> UInt32 {
        seed ^ UInt32(truncatingIfNeeded: offset) ^ UInt32(truncatingIfNeeded: offset >> 32)
    }

    static func fileName(segment: UInt64) -> String {
        let digits = String(segment, radix: 16)
        return "wal-" + String(repeating: "0", count: 16 - digits.utf8.count) + digits + ".log"
    }
    static let temporarySuffix = ".tmp"

    /// nil when the name is none of ours.
    static func segmentNumber(_ name: String) -> UInt64? {
        let text = Array(name.utf8)
        guard text.count == 24, name.hasPrefix("wal-"), name.hasSuffix(".log"),
              let number = UInt64(String(decoding: text[4..<20], as: UTF8.self), radix: 16), fileName(segment: number) == name else { return nil }
        return number
    }
}

/// The payload of a segment's first record: all that the segments before it would have said, so that they can be removed.
struct SegmentHeader: Equatable {
    var identity: LogIdentity
    var number: UInt64
    var hardState: HardState
    var start: LogPosition
    /// The log's last position when the segment began.
    var last: LogPosition
    var capacityBytes: UInt64

    func write(to out: UnsafeMutableRawPointer) {
        out.put(identity.cluster.rawValue, 0)
        out.put(identity.member.rawValue, 8)
        out.put(number, 16)
        out.put(hardState.term.rawValue, 24)
        out.put(hardState.vote.rawValue, 32)
        out.put(start.index.rawValue, 40)
        out.put(start.term.rawValue, 48)
        out.put(last.index.rawValue, 56)
        out.put(last.term.rawValue, 64)
        out.put(capacityBytes, 72)
        out.put(UInt64(0), 80)
    }
    init(identity: LogIdentity, number: UInt64, hardState: HardState, start: LogPosition, last: LogPosition, capacityBytes: UInt64) {
        self.identity = identity
        self.number = number
        self.hardState = hardState
        self.start = start
        self.last = last
        self.capacityBytes = capacityBytes
    }
    init(reading raw: UnsafeRawBufferPointer) {
        identity = LogIdentity(cluster: ClusterID(raw.u64(0)), member: MemberID(raw.u64(8)))
        number = raw.u64(16)
        hardState = HardState(term: Term(raw.u64(24)), vote: MemberID(raw.u64(32)))
        start = LogPosition(index: LogIndex(raw.u64(40)), term: Term(raw.u64(48)))
        last = LogPosition(index: LogIndex(raw.u64(56)), term: Term(raw.u64(64)))
        capacityBytes = raw.u64(72)
    }
}

/// The payload of a segment's last record.
struct SegmentTrailer: Equatable {
    var number: UInt64
    /// Records before the trailer, the segment header among them.
    var recordCount: UInt64
    /// Where the trailer begins.
    var offset: UInt64
    /// The header checksums of all those records, chained.
    var chain: UInt32

    func write(to out: UnsafeMutableRawPointer) {
        out.put(number, 0)
        out.put(recordCount, 8)
        out.put(offset, 16)
        out.put(UInt64(chain), 24)
    }
    init(number: UInt64, recordCount: UInt64, offset: UInt64, chain: UInt32) {
        self.number = number
        self.recordCount = recordCount
        self.offset = offset
        self.chain = chain
    }
    init(reading raw: UnsafeRawBufferPointer) {
        number = raw.u64(0)
        recordCount = raw.u64(8)
        offset = raw.u64(16)
        chain = UInt32(truncatingIfNeeded: raw.u64(24))
    }
}

/// A record's header as found on the disk.
struct RecordHeader {
    var type: UInt8
    var version: UInt8
    var flags: UInt16
    var length: Int
    var ordinal: UInt32
    var batch: UInt64
    var previous: UInt32
    var payloadChecksum: UInt32
    var checksum: UInt32
    var totalSize: Int { RecordFormat.totalSize(payload: length) }
    var endsBatch: Bool { flags & RecordFormat.lastOfBatch != 0 }

    /// nil when these are not the bytes of a header that was written to this place of this segment.
    init?(_ raw: UnsafeRawBufferPointer, at offset: Int, seed: UInt32) {
        guard offset + RecordFormat.headerSize <= raw.count, raw.u32(offset) == RecordFormat.magic,
              raw.u32(offset + 36) == RecordFormat.endMark else { return nil }
        checksum = raw.u32(offset + 32)
        let checked = UnsafeRawBufferPointer(rebasing: raw[offset..<offset + RecordFormat.checkedHeaderSize])
        guard CRC32C.checksum(checked, seed: RecordFormat.headerSeed(seed, offset: UInt64(offset))) == checksum else { return nil }
        type = raw[offset + 4]
        version = raw[offset + 5]
        flags = UInt16(raw[offset + 6]) | UInt16(raw[offset + 7]) << 8
        length = Int(raw.u32(offset + 8))
        ordinal = raw.u32(offset + 12)
        batch = raw.u64(offset + 16)
        previous = raw.u32(offset + 24)
        payloadChecksum = raw.u32(offset + 28)
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always) func u32(_ offset: Int) -> UInt32 { UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
    @inline(__always) func u64(_ offset: Int) -> UInt64 { UInt64(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
}

extension UnsafeMutableRawPointer {
    @inline(__always) func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }
}
