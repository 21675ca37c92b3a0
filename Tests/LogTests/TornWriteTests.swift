import Base
import Log
import Raft
import Testing

@Suite struct TornWriteTests {
    @Test func tearingLosesNothingAndIsRepaired() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(hardState(3, 2), entries(1...20, 3, bytes: 100)))
        log.close()
        let torn = try WriteAheadLog.tear(directory: directory, disk: disk, identity: here)
        #expect(torn.segment == segmentPath(1) && torn.bytesWritten < torn.bytesMeant)
        let (again, recovered) = try reopen(disk)
        let repair = try #require(recovered.repair)
        #expect(repair.segment == torn.segment && repair.offset == torn.offset && repair.bytesCut == UInt64(torn.bytesWritten))
        #expect(recovered.hardState == hardState(3, 2) && recovered.entries == entries(1...20, 3, bytes: 100))
        try again.persist(batch(nil, entries(21...22, 3)))
        again.close()
        let last = try reopen(disk).recovered
        #expect(last.repair == nil && last.entries.count == 22)
    }

    @Test func tearingTwiceTearsTheSameWrite() throws {
        let disk = MemoryDisk()
        let log = try create(disk)
        try log.persist(batch(hardState(1, 1), entries(1...3, 1)))
        log.close()
        let first = try WriteAheadLog.tear(directory: directory, disk: disk, identity: here)
        #expect(try WriteAheadLog.tear(directory: directory, disk: disk, identity: here) == first)
        #expect(try reopen(disk).recovered.entries.count == 3)
    }

    @Test func emptyAndFullSegmentsCanBeTornToo() throws {
        let disk = MemoryDisk()
        try create(disk, segmentSize: 4096).close()
        _ = try WriteAheadLog.tear(directory: directory, disk: disk, identity: here)
        let (log, recovered) = try reopen(disk, segmentSize: 4096)
        #expect(recovered.repair != nil && recovered.entries.isEmpty)
        // The next record no longer fits into the segment: its write would have begun there all the same.
        try log.persist(batch(hardState(1, 1), entries(1...10, 1, bytes: 300)))
        log.close()
        _ = try WriteAheadLog.tear(directory: directory, disk: disk, identity: here)
        #expect(try reopen(disk, segmentSize: 4096).recovered.repair != nil)
    }
}
