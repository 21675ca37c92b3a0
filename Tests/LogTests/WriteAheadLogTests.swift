import Base
import Log
import Raft
import Testing

@Test func checksumGivesThePublishedCheckValue() {
    #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xe306_9283)
    #expect(CRC32C.checksum([]) == 0)
    let bytes = Array("123456789".utf8)
    #expect(CRC32C.checksum(Array(bytes[4...]), seed: CRC32C.checksum(Array(bytes[..<4]))) == 0xe306_9283)
}

@Suite struct LogContents {
    @Test func newLogIsEmptyAndReopens() throws {
        let disk = MemoryDisk()
        #expect(try !WriteAheadLog.exists(directory: directory, disk: disk))
        try create(disk).close()
        #expect(try WriteAheadLog.exists(directory: directory, disk: disk))
        let recovered = try reopen(disk).recovered
        #expect(recovered.hardState == HardState())
        #expect(recovered.start == .zero)
        #expect(recovered.entries.isEmpty)
        #expect(recovered.repair == nil)
    }

    @Test func everyFieldComesBack() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        let written = [entry(1, 3, bytes: 0, kind: .empty), entry(2, 3, bytes: 1), entry(3, 3, bytes: 5000), entry(4, 4, bytes: 8, kind: .configuration)]
        try log.persist(batch(hardState(4, 0xa1), written))
        let recovered = try reopen(disk).recovered
        #expect(recovered.hardState == hardState(4, 0xa1))
        #expect(recovered.entries == written)
        #expect(recovered.last == position(4, 4))
    }

    @Test func logCreatedBehindASnapshotStartsThere() throws {
        let disk = MemoryDisk()
        let log = try WriteAheadLog.create(directory: directory, disk: disk, identity: here, options: LogOptions(segmentSizeBytes: 8192),
                                           hardState: hardState(7, 0), start: position(500, 6))
        try log.persist(batch(nil, entries(501...503, 7)))
        let recovered = try reopen(disk).recovered
        #expect(recovered.start == position(500, 6))
        #expect(recovered.hardState == hardState(7, 0))
        #expect(recovered.entries == entries(501...503, 7))
    }

    @Test func laterEntriesOverwriteEarlierOnesFromTheirIndexOn() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(nil, entries(1...10, 1)))
        try log.persist(batch(hardState(2, 0), entries(6...7, 2)))
        try log.persist(batch(nil, entries(8...8, 2)))
        #expect(try reopen(disk).recovered.entries == entries(1...5, 1) + entries(6...8, 2))
    }

    @Test func overwritingInsideOneSyncWorksToo() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        log.append(batch(nil, entries(1...10, 1)))
        log.append(batch(nil, entries(3...4, 2)))
        try log.sync()
        #expect(log.last == position(4, 2))
        #expect(try reopen(disk).recovered.entries == entries(1...2, 1) + entries(3...4, 2))
    }

    @Test func resetForgetsEveryEntry() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(hardState(1, 1), entries(1...10, 1)))
        try log.persist(batch(hardState(3, 0), entries(101...102, 3), reset: position(100, 2)))
        let recovered = try reopen(disk).recovered
        #expect(recovered.start == position(100, 2))
        #expect(recovered.entries == entries(101...102, 3))
        #expect(recovered.hardState == hardState(3, 0))
    }

    @Test func resetMayGoBehindTheLastEntry() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(nil, entries(1...10, 1)))
        try log.persist(batch(reset: position(5, 2)))
        let (log2, recovered) = try reopen(disk)
        #expect(recovered.start == position(5, 2))
        #expect(recovered.entries.isEmpty)
        try log2.persist(batch(nil, entries(6...6, 3)))
        #expect(try reopen(disk).recovered.entries == entries(6...6, 3))
    }

    @Test func nothingIsWrittenBeforeSyncAndOneWriteHoldsAll() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        let syncs = disk.syncs
        for i in 1...100 as ClosedRange<UInt64> { log.append(batch(nil, [entry(i, 1)])) }
        #expect(try reopen(disk.copy()).recovered.entries.isEmpty)
        try log.sync()
        #expect(disk.syncs == syncs + 1)
        #expect(log.statistics.lastSyncRecords == 100)
        #expect(log.statistics.lastSyncBytes == Int(log.statistics.bytesWritten))
        try log.sync()
        #expect(disk.syncs == syncs + 1)
    }
}

@Suite struct LogSegments {
    @Test func logRollsOverManySegments() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...200 as ClosedRange<UInt64> { try log.persist(batch(i % 10 == 0 ? hardState(i / 10, i) : nil, [entry(i, 1 + i / 50, bytes: 200)])) }
        #expect(log.segmentCount > 10)
        let (log2, recovered) = try reopen(disk, segmentSize: 4096)
        #expect(recovered.entries == (1...200).map { entry($0, 1 + $0 / 50, bytes: 200) })
        #expect(recovered.hardState == hardState(20, 200))
        #expect(recovered.segmentCount == log.segmentCount)
        try log2.persist(batch(nil, entries(201...220, 9, bytes: 200)))
        #expect(try reopen(disk).recovered.entries.count == 220)
    }

    @Test func batchLargerThanASegmentFits() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        try log.persist(batch(nil, entries(1...40, 1, bytes: 500)))
        try log.persist(batch(nil, entries(41...80, 1, bytes: 500)))
        try log.persist(batch(nil, entries(81...81, 1)))
        let recovered = try reopen(disk, segmentSize: 4096).recovered
        #expect(recovered.entries == entries(1...80, 1, bytes: 500) + entries(81...81, 1))
        #expect(recovered.segmentCount > 1)
    }

    @Test func compactionRemovesWholeSegmentsAndKeepsTheRest() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...200 as ClosedRange<UInt64> { try log.persist(batch(i == 3 ? hardState(2, 7) : nil, [entry(i, 1 + i / 50, bytes: 200)])) }
        let before = log.segmentCount
        try log.compact(upTo: LogIndex(120))
        #expect(log.segmentCount < before / 2 + 2)
        #expect(try disk.list(directory).count == log.segmentCount)
        let (log2, recovered) = try reopen(disk, segmentSize: 4096)
        #expect(recovered.start == position(120, 3))
        #expect(recovered.entries == (121...200).map { entry($0, 1 + $0 / 50, bytes: 200) })
        #expect(recovered.hardState == hardState(2, 7))
        // An index behind the end counts as the end; the active segment stays.
        try log2.compact(upTo: LogIndex(100_000))
        let after = try reopen(disk, segmentSize: 4096).recovered
        #expect(after.start == position(200, 5))
        #expect(after.entries.isEmpty)
        #expect(after.segmentCount == 1)
    }

    @Test func compactionKeepsSegmentsWithLiveEntries() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...50 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
        let count = log.segmentCount
        try log.compact(upTo: LogIndex(2))
        #expect(log.segmentCount == count)
        #expect(try reopen(disk).recovered.entries.count == 50)
    }

    @Test func overwrittenSegmentsCanBeRemoved() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...60 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
        // Entries 5...60 are void from here on; what is left of the early segments is 1...4.
        try log.persist(batch(hardState(2, 0), [entry(5, 2)]))
        try log.compact(upTo: LogIndex(4))
        let recovered = try reopen(disk).recovered
        #expect(recovered.start == position(4, 1))
        #expect(recovered.entries == [entry(5, 2)])
        #expect(recovered.segmentCount == 1)
    }

    @Test func resetMakesAllOlderSegmentsRemovable() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...60 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
        try log.persist(batch(reset: position(1000, 5)))
        try log.compact(upTo: LogIndex(1000))
        #expect(log.segmentCount == 1)
        let recovered = try reopen(disk).recovered
        #expect(recovered.start == position(1000, 5))
    }

    @Test func segmentsLeftBeforeAGapByACompactionAreRemoved() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...60 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
        let first = disk.bytes(of: segmentPath(1))!
        try log.compact(upTo: LogIndex(40))
        // The removal of segment 1 did not make it to the disk, the one of segment 2 did.
        disk.setBytes(of: segmentPath(1), first)
        let recovered = try reopen(disk).recovered
        #expect(recovered.entries == entries(41...60, 1, bytes: 200))
        #expect(disk.bytes(of: segmentPath(1)) == nil)
    }

    @Test func sealedLastSegmentGetsASuccessor() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        var i: UInt64 = 0
        while log.segmentCount == 1 {
            i += 1
            try log.persist(batch(nil, [entry(i, 1, bytes: 200)]))
        }
        // As if the crash came between the trailer and the next segment.
        try disk.remove(segmentPath(2))
        let (log2, recovered) = try reopen(disk, segmentSize: 4096)
        #expect(recovered.entries == entries(1...i - 1, 1, bytes: 200))
        #expect(log2.segmentCount == 2)
        try log2.persist(batch(nil, [entry(i, 2)]))
        #expect(try reopen(disk).recovered.entries.last == entry(i, 2))
    }
}

@Suite struct LogRefusals {
    @Test func openingNothingSaysSo() throws {
        let disk = MemoryDisk()
        #expect(throws: LogError.missing(directory: directory)) { try reopen(disk) }
        try disk.makeDirectory(directory)
        #expect(throws: LogError.missing(directory: directory)) { try reopen(disk) }
    }

    @Test func creatingOverALogIsRefused() throws {
        let disk = MemoryDisk()
        _ = try create(disk)
        #expect(throws: LogError.alreadyExists(directory: directory)) { try create(disk) }
    }

    @Test func anotherMembersLogIsForeign() throws {
        let disk = MemoryDisk()
        try create(disk).persist(batch(nil, entries(1...3, 1)))
        for other in [LogIdentity(cluster: ClusterID(0xc1), member: MemberID(0xa2)), LogIdentity(cluster: ClusterID(0xc2), member: MemberID(0xa1))] {
            #expect(throws: LogError.foreign(segment: segmentPath(1), expected: other, found: here)) {
                try WriteAheadLog.open(directory: directory, disk: disk, identity: other)
            }
        }
    }

    @Test func missingSegmentIsDamage() throws {
        for gone in [1, 2, 3] {
            let disk = MemoryDisk()
            let log = try create(disk, segmentSize: 4096)
            for i in 1...60 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
            try disk.remove(segmentPath(gone))
            let error = #expect(throws: LogError.self) { try reopen(disk) }
            guard case .damaged(segmentPath(gone), _, let detail)? = error else {
                Issue.record("segment \(gone) gone: \(String(describing: error))")
                continue
            }
            #expect(detail.contains("missing"))
        }
    }

    @Test func swappedSegmentsAreDamage() throws {
        let disk = MemoryDisk()
        let log = try create(disk, segmentSize: 4096)
        for i in 1...60 as ClosedRange<UInt64> { try log.persist(batch(nil, [entry(i, 1, bytes: 200)])) }
        disk.setBytes(of: segmentPath(2), disk.bytes(of: segmentPath(3))!)
        #expect(throws: LogError.damaged(segment: segmentPath(2), offset: 0, detail: "the file holds segment 3")) { try reopen(disk) }
    }

    @Test func errorsSayInOneLineWhatToDo() {
        let errors: [LogError] = [
            .missing(directory: "/d"), .alreadyExists(directory: "/d"), .damaged(segment: "/d/s", offset: 7, detail: "x"),
            .foreign(segment: "/d/s", expected: here, found: here), .unsupported(segment: "/d/s", offset: 0, version: 9),
            .disk(DiskError(operation: "write", path: "/d/s", code: 28, message: "No space left on device")), .stopped,
        ]
        for error in errors {
            #expect(!error.description.contains("\n"))
            #expect(error.description.contains(":"), "\(error)")
        }
        #expect(errors[2].description.contains("/d/s at offset 7"))
        #expect(errors[5].description.contains("free space"))
    }
}
