import Base
import Log
import Raft
import Testing

/// A log with one batch that counts and one behind it to be maltreated.
private struct TwoBatches {
    let disk = MemoryDisk()
    var first = LogModel()
    var both = LogModel()
    let start: Int
    let end: Int

    init(lastBatch: PersistBatch) throws {
        let log = try create(disk, segmentSize: 8192)
        let one = batch(hardState(1, 1), entries(1...3, 1, bytes: 300))
        try log.persist(one)
        let header = disk.bytes(of: segmentPath(1))!.firstEnd
        start = header
        try log.persist(lastBatch)
        end = disk.bytes(of: segmentPath(1))!.firstEnd
        first.apply(one)
        both = first
        both.apply(lastBatch)
    }

    /// A fresh disk with this as the segment's bytes.
    func disk(with bytes: [UInt8]) -> MemoryDisk {
        let copy = disk.copy()
        copy.setBytes(of: segmentPath(1), bytes)
        return copy
    }
}

extension [UInt8] {
    /// Behind the last byte that is not zero; records end in such a byte.
    fileprivate var firstEnd: Int {
        withUnsafeBytes { raw in
            var end = raw.count
            while end >= 8, raw.loadUnaligned(fromByteOffset: end - 8, as: UInt64.self) == 0 { end -= 8 }
            while end > 0, raw[end - 1] == 0 { end -= 1 }
            return end
        }
    }
}

@Suite struct TornTails {
    static let lastBatch = batch(hardState(2, 2), entries(4...5, 2, bytes: 130))

    @Test func writeThatStoppedAtAnyByteIsCut() throws {
        let log = try TwoBatches(lastBatch: Self.lastBatch)
        let whole = log.disk.bytes(of: segmentPath(1))!
        for cut in log.start..<log.end {
            var zeroed = whole
            for i in cut..<log.end { zeroed[i] = 0 }
            for bytes in [zeroed, Array(whole[..<cut])] {
                let disk = log.disk(with: bytes)
                let recovered = try reopen(disk).recovered
                #expect(log.first.difference(from: recovered, compacted: .zero) == nil, "cut at \(cut)")
                #expect((recovered.repair == nil) == (cut == log.start), "cut at \(cut)")
                // Nothing of it is left behind.
                #expect(disk.bytes(of: segmentPath(1))!.firstEnd == log.start)
                #expect(disk.bytes(of: segmentPath(1))!.count == whole.count)
            }
        }
        let intact = try reopen(log.disk(with: whole)).recovered
        #expect(log.both.difference(from: intact, compacted: .zero) == nil)
        #expect(intact.repair == nil)
    }

    @Test func anySubsetOfLostSectorsIsCut() throws {
        let log = try TwoBatches(lastBatch: batch(hardState(2, 2), entries(4...7, 2, bytes: 700)))
        let whole = log.disk.bytes(of: segmentPath(1))!
        let sectors = log.start / 512...(log.end - 1) / 512
        #expect(sectors.count >= 6 && sectors.count < 10)
        for lost in 1..<(1 << sectors.count) {
            var bytes = whole
            for (bit, sector) in sectors.enumerated() where lost >> bit & 1 == 1 {
                for i in max(sector * 512, log.start)..<min((sector + 1) * 512, log.end) { bytes[i] = 0 }
            }
            let recovered = try reopen(log.disk(with: bytes)).recovered
            #expect(log.first.difference(from: recovered, compacted: .zero) == nil, "sectors \(String(lost, radix: 2))")
        }
    }

    @Test func repairNamesFileAndPlace() throws {
        let log = try TwoBatches(lastBatch: Self.lastBatch)
        let bytes = Array(log.disk.bytes(of: segmentPath(1))![..<(log.end - 30)])
        let repair = try #require(try reopen(log.disk(with: bytes)).recovered.repair)
        #expect(repair.segment == segmentPath(1))
        #expect(repair.offset == UInt64(log.start))
        #expect(repair.bytesCut == UInt64(log.end - 30 - log.start))
    }

    @Test func logGoesOnBehindTheCut() throws {
        let log = try TwoBatches(lastBatch: Self.lastBatch)
        let disk = log.disk(with: Array(log.disk.bytes(of: segmentPath(1))![..<(log.end - 100)]))
        let (reopened, _) = try reopen(disk)
        var model = log.first
        let next = batch(hardState(3, 3), entries(4...4, 3))
        model.apply(next)
        try reopened.persist(next)
        var generator = SeededGenerator(seed: 1)
        let recovered = try reopen(disk.crash(.syncedOnly, using: &generator)).recovered
        #expect(model.difference(from: recovered, compacted: .zero) == nil)
        #expect(recovered.repair == nil)
    }

    @Test func recordInsideAValueIsNotTakenForALaterBatch() throws {
        // The value of the torn entry is a copy of a whole segment with later batches.
        let other = MemoryDisk()
        let log = try create(other)
        for i in 1...8 as ClosedRange<UInt64> { try log.persist(batch(nil, entries(i...i, 1))) }
        let image = Array(other.bytes(of: segmentPath(1))![..<2000])
        for shift in 0..<8 {
            let value = Array(repeating: 1, count: shift) + image + Array(repeating: 1, count: 600)
            let torn = try TwoBatches(lastBatch: batch(nil, [Entry(index: LogIndex(4), term: Term(1), kind: .command, proposedAt: .unknown, payload: value)]))
            let bytes = Array(torn.disk.bytes(of: segmentPath(1))![..<(torn.end - 40)])
            let recovered = try reopen(torn.disk(with: bytes)).recovered
            #expect(torn.first.difference(from: recovered, compacted: .zero) == nil)
            #expect(recovered.repair != nil)
        }
    }
}

@Suite struct Damage {
    @Test func flippedBitIsNeverReadAsData() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        var model = LogModel()
        for i in 1...15 as ClosedRange<UInt64> {
            let next = batch(i % 5 == 0 ? hardState(i, i) : nil, [entry(i, 1 + i / 5, bytes: Int(i) * 26)])
            try log.persist(next)
            model.apply(next)
        }
        let count = log.segmentCount
        #expect(count >= 2)
        for number in 1...count {
            let whole = disk.bytes(of: segmentPath(number))!
            let end = whole.firstEnd
            for at in 0..<min(whole.count, end + 200) {
                var bytes = whole
                bytes[at] ^= 1 << UInt8(truncatingIfNeeded: at % 8)
                let copy = disk.copy()
                copy.setBytes(of: segmentPath(number), bytes)
                do {
                    let recovered = try reopen(copy, segmentSize: 4096).recovered
                    // Only the unused rest of the file may change without notice.
                    #expect(at >= end, "flip in segment \(number) at \(at) of \(end) went unnoticed: \(String(describing: recovered.repair))")
                    #expect(model.difference(from: recovered, compacted: .zero) == nil, "flip in segment \(number) at \(at)")
                } catch let error as LogError {
                    guard case .damaged(segmentPath(number), let offset, _) = error else {
                        Issue.record("flip in segment \(number) at \(at): \(error)")
                        continue
                    }
                    #expect(at < end && offset <= UInt64(at), "flip in segment \(number) at \(at): \(error)")
                }
            }
        }
    }

    @Test func lostSectorBeforeALaterBatchIsDamage() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        for i in 1...10 as ClosedRange<UInt64> { try log.persist(batch(nil, entries(i...i, 1, bytes: 400))) }
        let whole = disk.bytes(of: segmentPath(1))!
        let sectors = (whole.firstEnd - 1) / 512
        for sector in 0..<sectors - 1 {
            var bytes = whole
            for i in sector * 512..<(sector + 1) * 512 { bytes[i] = 0 }
            let copy = disk.copy()
            copy.setBytes(of: segmentPath(1), bytes)
            let error = #expect(throws: LogError.self, "sector \(sector)") { try reopen(copy) }
            guard case .damaged? = error else {
                Issue.record("sector \(sector): \(String(describing: error))")
                continue
            }
        }
    }

    @Test func damagedTailIsCutOnlyOnDemand() throws {
        let log = try TwoBatches(lastBatch: TornTails.lastBatch)
        var bytes = log.disk.bytes(of: segmentPath(1))!
        bytes[log.end - 50] ^= 4
        let disk = log.disk(with: bytes)
        let error = #expect(throws: LogError.self) { try reopen(disk) }
        #expect("\(error!)".contains("nothing of the write is missing"))
        let recovered = try reopen(disk, cutsDamagedTail: true).recovered
        #expect(log.first.difference(from: recovered, compacted: .zero) == nil)
        #expect(recovered.repair != nil)
    }

    @Test func damageInASealedSegmentIsNeverCut() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...40 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
        var bytes = disk.bytes(of: segmentPath(1))!
        for i in bytes.firstEnd - 700..<bytes.count { bytes[i] = 0 }
        disk.setBytes(of: segmentPath(1), bytes)
        let error = #expect(throws: LogError.self) { try reopen(disk, cutsDamagedTail: true) }
        guard case .damaged(segmentPath(1), _, _)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}
