import Base
import Raft

/// The records of one batch, encoded but for what depends on their place in the file. Reused from batch to batch.
final class RecordBuffer {
    private(set) var base: UnsafeMutableRawPointer
    private var capacity: Int
    private(set) var count = 0
    private(set) var records = 0
    /// A batch of unusual size does not keep its memory for ever.
    private static let keptCapacity = 4 << 20

    init(capacity: Int = 256 << 10) {
        self.capacity = capacity
        base = .allocate(byteCount: capacity, alignment: 4096)
    }
    deinit { base.deallocate() }

    var isEmpty: Bool { count == 0 }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    func removeAll() {
        count = 0
        records = 0
        if capacity > Self.keptCapacity {
            base.deallocate()
            capacity = Self.keptCapacity
            base = .allocate(byteCount: capacity, alignment: 4096)
        }
    }

    func append(_ type: RecordType, _ position: LogPosition) {
        let payload = begin(type, payload: RecordFormat.positionPayloadSize)
        payload.put(position.index.rawValue, 0)
        payload.put(position.term.rawValue, 8)
        finish(payload: RecordFormat.positionPayloadSize)
    }

    func append(_ hardState: HardState) {
        let payload = begin(.hardState, payload: RecordFormat.positionPayloadSize)
        payload.put(hardState.term.rawValue, 0)
        payload.put(hardState.vote.rawValue, 8)
        finish(payload: RecordFormat.positionPayloadSize)
    }

    func append(_ header: SegmentHeader) {
        header.write(to: begin(.segment, payload: RecordFormat.segmentPayloadSize))
        finish(payload: RecordFormat.segmentPayloadSize)
    }

    func append(_ trailer: SegmentTrailer) {
        trailer.write(to: begin(.trailer, payload: RecordFormat.trailerPayloadSize))
        finish(payload: RecordFormat.trailerPayloadSize)
    }

    func append(_ entry: Entry) {
        let length = RecordFormat.entryFixedSize + entry.payload.count
        precondition(length < 1 << 31, "entry \(entry.index.rawValue) has \(entry.payload.count) bytes, more than a record can hold")
        let payload = begin(.entry, payload: length)
        payload.put(entry.index.rawValue, 0)
        payload.put(entry.term.rawValue, 8)
        payload.put(entry.proposedAt.milliseconds, 16)
        payload.put(UInt64(entry.kind.rawValue), 24)
        entry.payload.withUnsafeBytes { raw in
            if let source = raw.baseAddress { (payload + RecordFormat.entryFixedSize).copyMemory(from: source, byteCount: raw.count) }
        }
        finish(payload: length)
    }

    /// Makes room for a record, writes what is known of its header and lends the place of its payload.
    private func begin(_ type: RecordType, payload length: Int) -> UnsafeMutableRawPointer {
        let total = RecordFormat.totalSize(payload: length)
        if count + total > capacity { grow(to: count + total) }
        let header = base + count
        header.put(RecordFormat.magic, 0)
        header.put(type.rawValue, 4)
        header.put(RecordFormat.version, 5)
        header.put(UInt16(0), 6)
        header.put(UInt32(length), 8)
        header.put(RecordFormat.endMark, 36)
        return header + RecordFormat.headerSize
    }

    private func finish(payload length: Int) {
        let total = RecordFormat.totalSize(payload: length)
        let header = base + count
        for i in RecordFormat.headerSize + length..<total { header.put(RecordFormat.padding, i) }
        let body = UnsafeRawBufferPointer(start: header + RecordFormat.headerSize, count: total - RecordFormat.headerSize)
        header.put(CRC32C.checksum(body), 28)
        count += total
        records += 1
    }

    private func grow(to needed: Int) {
        var larger = capacity
        while larger < needed { larger *= 2 }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 4096)
        memory.copyMemory(from: base, byteCount: count)
        base.deallocate()
        base = memory
        capacity = larger
    }

    /// Ties the records to their place: batch, order, chain and header checksums. Returns the chain's end.
    func seal(batch: UInt64, offset: UInt64, seed: UInt32, chain: RecordChain) -> RecordChain {
        precondition(count > 0, "sealing an empty batch \(batch)")
        var chain = chain
        var at = 0
        var ordinal: UInt32 = 0
        while at < count {
            let header = base + at
            let length = Int(UnsafeRawBufferPointer(start: header, count: RecordFormat.headerSize).u32(8))
            let next = at + RecordFormat.totalSize(payload: length)
            header.put(next == count ? RecordFormat.lastOfBatch : UInt16(0), 6)
            header.put(ordinal, 12)
            header.put(batch, 16)
            header.put(chain.previous, 24)
            let checked = UnsafeRawBufferPointer(start: header, count: RecordFormat.checkedHeaderSize)
            let checksum = CRC32C.checksum(checked, seed: RecordFormat.headerSeed(seed, offset: offset + UInt64(at)))
            header.put(checksum, 32)
            chain.add(checksum)
            ordinal += 1
            at = next
        }
        return chain
    }
}

/// What links the records of a segment.
struct RecordChain: Equatable {
    /// Header checksum of the latest record; goes over into the next segment.
    var previous: UInt32
    /// All header checksums of this segment, folded.
    var folded: UInt32 = 0
    var records: UInt64 = 0

    init(previous: UInt32) { self.previous = previous }

    @inline(__always) mutating func add(_ checksum: UInt32) {
        previous = checksum
        folded = withUnsafeBytes(of: checksum.littleEndian) { CRC32C.checksum($0, seed: folded) }
        records += 1
    }
}
