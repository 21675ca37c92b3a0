import Base
import Log
import Raft
import Replica
import Simulation
import Testing

/// A log in a directory of its own, under power cuts: whatever survives, a member that has promised something is never started without its log.
@Suite struct LogDirectoryTests {
    private let identity = LogIdentity(cluster: ClusterID(9), member: MemberID(1))
    private let members = [Member(id: MemberID(1), peerURLs: ["http://m1"])]

    private func files(_ disk: MemoryDisk, _ stores: SimulatedStores, log: String? = "/wal/n1") -> MemberFiles {
        var files = MemberFiles(dataDirectory: "/data", logDirectory: log, disk: disk, stores: stores)
        files.logOptions = LogOptions(segmentSizeBytes: 4096)
        return files
    }

    private func open(_ disk: MemoryDisk, _ stores: SimulatedStores, log: String? = "/wal/n1") throws -> MemberFiles.Opened {
        try files(disk, stores, log: log).open(identity: identity, members: members, mayFound: true)
    }

    /// Votes, and writes it down.
    private func promise(_ opened: MemberFiles.Opened) throws -> HardState {
        let vote = HardState(term: Term(5), vote: MemberID(1))
        opened.log.append(PersistBatch(ticket: PersistTicket(1), hardState: vote))
        try opened.log.sync()
        return vote
    }

    @Test func aPowerCutAtAnyCallOfAFoundingLeavesAMemberThatKeepsToItsLog() throws {
        var generator = SeededGenerator(seed: 4_711)
        var refused = 0, founded = 0, calls = 0
        while true {
            let disk = MemoryDisk()
            let stores = SimulatedStores(disk: disk, dataDirectory: "/data")
            disk.faults = [.powerCut(after: calls)]
            calls += 1
            var vote: HardState?
            if let opened = try? open(disk, stores) { vote = try? promise(opened) }
            let isOver = !disk.isOff
            for survival in [MemoryDisk.Survival.syncedOnly, .everything, .chosen, .chosen] {
                func survivor() -> (MemoryDisk, SimulatedStores) {
                    var copy = generator
                    let left = disk.crash(survival, using: &copy)
                    return (left, stores.moved(to: left))
                }
                // Where its log is not: only a member that has promised nothing may be founded there.
                for other in [nil, "/elsewhere"] {
                    let (disk, stores) = survivor()
                    if (try? open(disk, stores, log: other)) == nil { refused += 1 } else {
                        founded += 1
                        #expect(vote == nil, "call \(calls - 1), \(survival): founded anew beside a log with a vote")
                    }
                }
                // Where it is, it goes on with what it promised.
                let (disk, stores) = survivor()
                let opened = try open(disk, stores)
                if let vote { #expect(opened.restart.hardState == vote, "call \(calls - 1), \(survival)") }
                _ = generator.next()
            }
            if isOver { break }
        }
        #expect(calls > 30 && refused > 10 && founded > 10, "\(calls) calls, \(refused) refused, \(founded) founded")
    }

    @Test func filesThatWereMovedAreTakenWhereTheyAreNow() throws {
        let disk = MemoryDisk()
        let stores = SimulatedStores(disk: disk, dataDirectory: "/data")
        let vote = try promise(try open(disk, stores))
        #expect(try MemberFiles.notedLogDirectory(in: "/data", disk: disk) == "/wal/n1")
        func move(_ from: String, _ to: String) throws {
            try disk.makeDirectory(to)
            for name in try disk.list(from) {
                let bytes = disk.bytes(of: from + "/" + name)!
                let file = try disk.open(to + "/" + name, .new)
                try bytes.withUnsafeBytes { try file.write($0, at: 0) }
                file.close()
                try disk.remove(from + "/" + name)
            }
        }
        func fault(_ log: String?) -> String {
            do {
                try files(disk, stores, log: log).checkLogDirectory()
                return "none"
            } catch { return "\(error)" }
        }
        #expect(fault(nil).contains("start with --wal-dir /wal/n1") && fault("/b").contains("start with --wal-dir /wal/n1") && fault("/wal/n1") == "none")
        try move("/wal/n1", "/b")
        #expect(fault(nil).contains("was in /wal/n1") && fault("/wal/n1").contains("was in /wal/n1") && fault("/b") == "none")
        #expect(try open(disk, stores, log: "/b").restart.hardState == vote)
        #expect(try MemberFiles.notedLogDirectory(in: "/data", disk: disk) == "/b")
        try move("/b", "/data/member/log")
        #expect(try open(disk, stores, log: nil).restart.hardState == vote)
        #expect(try MemberFiles.notedLogDirectory(in: "/data", disk: disk) == nil)
        #expect(fault("/b").contains("start without --wal-dir") && fault(nil) == "none")
    }
}
