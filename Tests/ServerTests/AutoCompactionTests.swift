import Base
import Foundation
import GRPC
import Replica
import Testing
import Wire
@testable import Server

@Suite struct AutoCompactionTests {
    private func minutes(_ count: Int64) -> Instant { Instant(nanoseconds: count * 60_000_000_000) }

    /// Looks every interval from the start on; `revision` as a function of the minute. Returns what was decided, by minute.
    private func run(_ rule: AutoCompaction, minutes end: Int64, fails: Set<Int64> = [], leads: (Int64) -> Bool = { _ in true }, revision: (Int64) -> Int64)
        -> [Int64: Int64] {
        guard var compactor = AutoCompactor(rule, at: .zero, revision: Revision(revision(0))) else { return [:] }
        var decided: [Int64: Int64] = [:]
        let step = compactor.interval.nanoseconds / 60_000_000_000
        for minute in stride(from: step, through: end, by: Int(step)) {
            guard let target = compactor.look(at: minutes(minute), revision: Revision(revision(minute)), isLeader: leads(minute)) else { continue }
            decided[minute] = target.rawValue
            compactor.done(target, succeeded: !fails.contains(minute), at: minutes(minute))
        }
        return decided
    }

    @Test func hourlyCompactionKeepsTheLastHour() {
        let decided = run(.periodic(.seconds(3_600)), minutes: 200) { 1_000 + $0 }
        // First after the whole period, to what was current at its beginning; later looks hold eleven notes, one more than a period.
        #expect(decided == [60: 1_000, 120: 1_054, 180: 1_114])
    }

    @Test func longRetentionCompactsEveryHourAfterTheFirstPeriod() {
        let decided = run(.periodic(.seconds(24 * 3_600)), minutes: 27 * 60) { 1_000 + $0 }
        let expected: [Int64] = [1_440, 1_500, 1_560, 1_620]
        #expect(decided.keys.sorted() == expected)
        for (minute, target) in decided {
            let age: Int64 = minute - target + 1_000
            #expect(age >= 1_434 && age <= 1_446, "at \(minute) to what was \(age) minutes old")
        }
    }

    @Test func aFailedCompactionIsTriedAgainAfterATenth() {
        let decided = run(.periodic(.seconds(3_600)), minutes: 80, fails: [60, 66]) { 1_000 + $0 }
        #expect(decided.keys.sorted() == [60, 66, 72])
    }

    @Test func onlyTheLeaderCompactsAndTheNextOneKnowsTheHistory() {
        let decided = run(.periodic(.seconds(3_600)), minutes: 90, leads: { $0 > 70 }) { 1_000 + $0 }
        #expect(decided.keys.sorted() == [72])
        #expect(decided[72]! <= 1_012, "what was current an hour ago")
    }

    @Test func revisionsAreCountedEveryFiveMinutes() {
        let decided = run(.revisions(100), minutes: 30) { $0 < 20 ? 90 + $0 : 109 }
        // Nothing at or below zero, and no target twice.
        #expect(decided == [15: 5, 20: 9])
        #expect(AutoCompactor(.off, at: .zero, revision: Revision(1)) == nil)
    }

    @Test(arguments: [("300ms", 300_000_000), ("1.5h", 5_400_000_000_000), ("-2m", -120_000_000_000), ("1h30m5s", 5_405_000_000_000), ("0", 0), (".5s", 500_000_000), ("1.s", 1_000_000_000)]
        as [(String, Int64)])
    func durationsAreGos(_ text: String, _ nanoseconds: Int64) { #expect(TimeSpan(goDuration: text)?.nanoseconds == nanoseconds) }

    @Test(arguments: ["", "5", "h", "1x", "1h ", " 1h", "1..5s", ".s", "1e3s", "9999999999h", "--1s"]) func whatIsNoDuration(_ text: String) {
        #expect(TimeSpan(goDuration: text) == nil)
    }

    /// A real node compacts by itself, also while authentication is on, and to where history was.
    @Test func aNodeCompactsItself() async throws {
        try await FaultTestBed.run(1, autoCompaction: .periodic(.milliseconds(500))) { bed in
            let id = try await bed.leader()
            try await bed.write("a", at: id)
            let client = try await bed.client(id)
            func names(_ first: String, _ second: String = "") -> [UInt8] {
                var writer = ByteWriter()
                writer.writeField(1, Array(first.utf8))
                writer.writeField(2, Array(second.utf8))
                return writer.bytes
            }
            _ = await client.call(.userAdd, names("root", "r"))
            _ = await client.call(.roleAdd, names("root"))
            _ = await client.call(.userGrantRole, names("root", "root"))
            #expect((await client.call(.authEnable)).status.code == .ok)
            try await bed.wait("history is compacted") { bed.status(id)!.compactRevision == bed.revision(id) && bed.revision(id) == 2 }
            #expect(bed.log.all.contains { $0.contains("auto compaction") })
        }
    }
}

@Suite struct DowngradeTests {
    @Test(arguments: [("3.4", "3.4.0"), ("3.4.0", "3.4.0"), ("3.4.9", "3.4.0"), ("3.4.9-rc.1", "3.4.0"), ("3.4.9+meta.1", "3.4.0"), ("4.0", "4.0.0"), ("3", nil), ("", nil), ("v3.4.0", nil),
                      ("3.4.x", nil), ("3.4.", nil), ("3.4.0.1", nil), ("3.4-rc", nil)] as [(String, String?)])
    func versionsAreReadAsEtcdReadsThem(_ text: String, _ expected: String?) { #expect(ServerVersion.minor(of: text) == expected) }

    @Test func jobsStandUntilTheyAreCalledOff() async throws {
        try await FaultTestBed.run(3) { bed in
            let leader = try await bed.leader()
            let client = try await bed.client(bed.followers(of: leader)[0])
            func downgrade(_ action: Int, _ version: String = "") async throws -> (version: String, error: String, code: StatusCode) {
                var request = PBDowngradeRequest()
                request.action = PBDowngradeRequest.DowngradeAction(rawValue: action) ?? .UNRECOGNIZED(action)
                request.version = version
                let answer = await client.call(.downgrade, request.encoded())
                let response = try answer.messages.first.map { try PBDowngradeResponse(decoding: $0) }
                if let response { #expect(response.header.clusterID != 0 && response.header.memberID != 0 && response.header.raftTerm > 0) }
                return (response?.version ?? "", answer.status.message, answer.status.code)
            }
            #expect(try await downgrade(0, "3.4") == ("3.5.0", "", .ok))
            #expect(try await downgrade(0, "3.5.0").error == "etcdserver: invalid downgrade target version")
            #expect(try await downgrade(0, "nonsense") == ("", "etcdserver: wrong downgrade target version format", .invalidArgument))
            #expect(try await downgrade(2) == ("", "etcdserver: no inflight downgrade job", .failedPrecondition))
            #expect(try await downgrade(9).error == "etcdserver: unknown method")
            #expect(try await downgrade(1, "3.4.0") == ("3.5.0", "", .ok))
            #expect(try await downgrade(1, "3.4.0") == ("", "etcdserver: cluster has a downgrade job in progress", .failedPrecondition))
            #expect(try await downgrade(0, "3.4.0").error == "etcdserver: cluster has a downgrade job in progress")
            // It is part of the state: a member that starts again knows it.
            let node = bed.followers(of: leader)[1]
            await bed.cluster.kill(node)
            try await bed.cluster.start(node)
            try await bed.wait("the member is back") { bed.status(node)?.raft.leader == leader }
            let other = try await bed.client(node)
            var request = PBDowngradeRequest()
            request.action = .cancel
            #expect((await other.call(.downgrade, request.encoded())).status.code == .ok)
            #expect(try await downgrade(0, "3.4.0").version == "3.5.0")
        }
    }
}
