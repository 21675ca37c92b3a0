import Base
import Log
import Raft
import Replica
import Simulation
import Store
import Testing

/// Every call point of every workload. In debug a few survivors of each, and of the workloads with several members every eighth failing call;
/// `simulate --enumerate all --full` looks at all of them.
@Suite struct CrashEnumerationTests {
    @Test(arguments: CrashEnumeration.Workload.allCases)
    func powerCutAtEveryCall(_ workload: CrashEnumeration.Workload) {
        let report = CrashEnumeration.run(workload, survivors: .reduced)
        print(report)
        #expect(report.callPoints > 150)
        #expect(report.images > report.callPoints && report.boots > report.images)
        for failure in report.failures { Issue.record("\(failure)") }
    }

    @Test(arguments: CrashEnumeration.Workload.allCases)
    func failureOfEveryCall(_ workload: CrashEnumeration.Workload) {
        let report = CrashEnumeration.runFailures(workload, step: workload.hasSeveralMembers ? 8 : 1)
        print(report)
        for failure in report.failures { Issue.record("\(failure)") }
    }

    /// A run that meets nothing proves nothing.
    @Test func oneCallIsEnumeratedAlone() {
        let report = CrashEnumeration.run(.plainWrites, survivors: .full, calls: 60..<61)
        #expect(report.images > 1 && report.images < 60)
        #expect(report.failures.isEmpty)
    }
}

/// What a member finds at its start and must make the best of.
@Suite struct FoundStores {
    private let identity = LogIdentity(cluster: ClusterID(9), member: MemberID(1))
    private let members = [Member(id: MemberID(1), peerURLs: ["http://m1"])]

    private func files(_ disk: MemoryDisk, _ stores: SimulatedStores) -> MemberFiles {
        var files = MemberFiles(dataDirectory: "/data", disk: disk, stores: stores)
        files.logOptions = LogOptions(segmentSizeBytes: 4096)
        return files
    }

    /// A store's tables as they are at an entry of term 1, made by a member that went through it.
    private func tables(at index: UInt64, _ stores: SimulatedStores, number: UInt64) throws {
        var batch = ReplicaState.bootstrap(members)
        var big = ByteWriter()
        big.writeBigEndian(index)
        var term = ByteWriter()
        term.writeBigEndian(UInt64(1))
        batch.put(.meta, MetaKey.consistentIndex, big.bytes)
        batch.put(.meta, MetaKey.term, term.bytes)
        let backend = try stores.open(number)
        try backend.commit(batch)
        try stores.sync()
    }

    private func log(_ disk: MemoryDisk, from start: UInt64, through last: UInt64) throws {
        try disk.makeDirectory("/data/member")
        let log = try WriteAheadLog.create(directory: "/data/member/log", disk: disk, identity: identity, options: LogOptions(segmentSizeBytes: 4096),
                                           hardState: HardState(term: Term(1), vote: MemberID(1)), start: LogPosition(index: LogIndex(start), term: Term(1)))
        let entries = (start + 1...last).map { Entry(index: LogIndex($0), term: Term(1), kind: .empty, proposedAt: .unknown, payload: []) }
        log.append(PersistBatch(ticket: PersistTicket(1), entries: entries))
        try log.sync()
        log.close()
    }

    /// A snapshot arrived whole, but the log had overtaken it: it was about to be thrown away when the process died. Its store has a higher number
    /// and is behind what the log still reaches.
    @Test func overtakenSnapshotIsNotStartedFrom() throws {
        let disk = MemoryDisk()
        let stores = SimulatedStores(disk: disk, dataDirectory: "/data")
        try tables(at: 10, stores, number: 1)
        try tables(at: 5, stores, number: 2)
        try log(disk, from: 8, through: 12)
        let opened = try files(disk, stores).open(identity: identity, members: members, mayFound: true)
        #expect(opened.storeNumber == 1 && opened.state.applied.index == LogIndex(10))
        #expect(try stores.numbers() == [1])
    }

    /// An older store beside the one in use explains a log that has not followed; a newer one that is behind explains nothing.
    @Test func lostLogIsNoticedBesideAnOvertakenSnapshot() throws {
        let disk = MemoryDisk()
        let stores = SimulatedStores(disk: disk, dataDirectory: "/data")
        try tables(at: 20, stores, number: 1)
        try tables(at: 9, stores, number: 2)
        try log(disk, from: 8, through: 12)
        let fault = #expect(throws: MemberFiles.Fault.self) { _ = try files(disk, stores).open(identity: identity, members: members, mayFound: true) }
        #expect("\(try #require(fault))".contains("has lost what it had acknowledged"))
    }

    @Test func logFollowsASnapshotThatWasInstalledBeforeTheEnd() throws {
        let disk = MemoryDisk()
        let stores = SimulatedStores(disk: disk, dataDirectory: "/data")
        try tables(at: 10, stores, number: 1)
        try tables(at: 20, stores, number: 2)
        try log(disk, from: 8, through: 12)
        let opened = try files(disk, stores).open(identity: identity, members: members, mayFound: true)
        #expect(opened.storeNumber == 2 && opened.restart.start.index == LogIndex(20) && opened.restart.entries.isEmpty)
        #expect(try stores.numbers() == [2])
    }
}

/// The parts of `MemoryDisk` that enumeration rests on.
@Suite struct PendingParts {
    private func write(_ bytes: [UInt8], _ file: any DiskFile, at offset: UInt64 = 0) throws {
        try bytes.withUnsafeBytes { try file.write($0, at: offset) }
    }

    @Test func eachPartIsKeptOrLostForItself() throws {
        let disk = MemoryDisk()
        let file = try disk.open("/a", .new)
        try disk.syncDirectory("/")
        try write([UInt8](repeating: 1, count: 1024), file)
        try file.sync()
        #expect(disk.pendingParts == 0)
        try write([UInt8](repeating: 2, count: 1024), file)
        try disk.rename("/a", to: "/b")
        // Two sectors and a name.
        #expect(disk.pendingParts == 3)
        var seen: Set<String> = []
        for kept in 0..<8 {
            let image = disk.crash { kept >> $0 & 1 == 1 }
            #expect(image.pendingParts == 0)
            let name = try image.list("/").joined()
            let bytes = try #require(image.bytes(of: "/" + name))
            seen.insert("\(name) \(bytes[0]) \(bytes[1023])")
        }
        #expect(seen.count == 8)
        // The disk itself is as it was.
        #expect(disk.pendingParts == 3)
    }

    @Test func aForkKeepsWhatIsPendingPending() throws {
        let disk = MemoryDisk()
        let file = try disk.open("/a", .new)
        try disk.syncDirectory("/")
        try write([7, 7], file)
        let fork = disk.fork()
        #expect(fork.bytes(of: "/a") == [7, 7] && fork.pendingParts == disk.pendingParts)
        try file.sync()
        #expect(disk.crash { _ in false }.bytes(of: "/a") == [7, 7])
        #expect(fork.crash { _ in false }.bytes(of: "/a") == [])
    }
}
