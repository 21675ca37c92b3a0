import Base
import Foundation
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import Raft
import Replica
import Testing
@testable import Server

/// Every fault has its effect on a real cluster, and its end. Nothing waits for time: only for what must come of it.
@Suite(.serialized) struct FaultTests {
    private func cut(_ groups: [MemberID], from others: [MemberID]) -> FaultPlan {
        var plan = FaultPlan()
        for a in groups {
            for b in others {
                plan[from: a.rawValue, to: b.rawValue].isCut = true
                plan[from: b.rawValue, to: a.rawValue].isCut = true
            }
        }
        return plan
    }

    private func allLinks(_ ids: [MemberID], _ change: (inout LinkTreatment) -> Void) -> FaultPlan {
        var plan = FaultPlan()
        for a in ids { for b in ids where a != b { change(&plan[from: a.rawValue, to: b.rawValue]) } }
        return plan
    }

    // MARK: Links

    @Test func linkCutOneWayStarvesTheFollowerAndDisturbsNobody() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let deaf = bed.followers(of: leader)[0]
            try await bed.write("before", at: leader)
            try await bed.waitForAgreement()
            let from = bed.noteCount
            var plan = FaultPlan()
            plan[from: leader.rawValue, to: deaf.rawValue].isCut = true
            bed.cluster.obey(plan)
            try await bed.write("during", at: leader)
            // It hears nothing, asks whether others would vote for it, and they would not: they hear the leader.
            try await bed.wait("the deaf follower's election timeout") { bed.hasTimedOut(deaf, since: from) }
            #expect(try await bed.local("during", at: deaf) == nil)
            #expect(bed.status(leader)?.raft.role == .leader)
            bed.cluster.obey(FaultPlan())
            try await bed.wait("the write at the healed follower") { try await bed.local("during", at: deaf) == "v" }
        }
    }

    @Test func isolatedLeaderIsReplacedAndComesBackAsAFollower() async throws {
        try await FaultTestBed.run { bed in
            let old = try await bed.leader()
            let rest = bed.followers(of: old)
            bed.cluster.obey(cut([old], from: rest))
            let new = try await bed.leader(among: rest)
            #expect(new != old)
            try await bed.write("new", at: new)
            try await bed.wait("the old leader to step down") { bed.status(old)?.raft.role != .leader }
            #expect(try await bed.put("lost", at: old, timeout: .milliseconds(300)).code != .ok)
            bed.cluster.obey(FaultPlan())
            _ = try await bed.leader()
            try await bed.waitForAgreement()
            #expect(try await bed.local("new", at: old) == "v")
        }
    }

    @Test func majorityOfAPartitionGoesOnAndTheMinorityDoesNot() async throws {
        try await FaultTestBed.run(5) { bed in
            let old = try await bed.leader()
            let few = [old, bed.followers(of: old)[0]]
            let many = bed.ids.filter { !few.contains($0) }
            bed.cluster.obey(cut(few, from: many))
            let new = try await bed.leader(among: many)
            for id in many { try await bed.write("many", at: id) }
            #expect(many.contains(new))
            for id in few { #expect(try await bed.put("few", at: id, timeout: .milliseconds(300)).code != .ok) }
            bed.cluster.obey(FaultPlan())
            try await bed.wait("all five at one revision") {
                for id in bed.ids { guard try await bed.local("many", at: id) == "v" else { return false } }
                return true
            }
        }
    }

    @Test func delayIsPaidInBothDirectionsAndGoesAwayAtOnce() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            bed.cluster.obey(allLinks(bed.ids) {
                $0.delayMicroseconds = 60_000
                $0.jitterMicroseconds = 5_000
            })
            // There and back, with the jitter at its lowest.
            for _ in 0..<5 { #expect(try await bed.latency(at: leader) >= .milliseconds(108)) }
            #expect(bed.status(leader)?.raft.role == .leader)
            bed.cluster.obey(FaultPlan())
            try await bed.wait("quick writes again") { try await bed.latency(at: leader) < .milliseconds(55) }
        }
    }

    @Test func whatALinkHeldBackArrivesWhenItIsHealed() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let far = bed.followers(of: leader)[0]
            var plan = FaultPlan()
            plan[from: leader.rawValue, to: far.rawValue].delayMicroseconds = 600_000_000
            bed.cluster.obey(plan)
            try await bed.write("held", at: leader)
            #expect(try await bed.local("held", at: far) == nil)
            bed.cluster.obey(FaultPlan())
            try await bed.wait("the write at the far follower") { try await bed.local("held", at: far) == "v" }
        }
    }

    @Test func lossDuplicationAndJitterLoseNoAcknowledgedWrite() async throws {
        try await FaultTestBed.run { bed in
            _ = try await bed.leader()
            bed.cluster.obey(allLinks(bed.ids) {
                $0.lossShare = 0.1
                $0.duplicateShare = 0.2
                $0.delayMicroseconds = 2_000
                $0.jitterMicroseconds = 2_000
            })
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (writer, id) in bed.ids.enumerated() {
                    group.addTask { for number in 0..<40 { try await bed.write("w\(writer)/\(number)", "\(number)", at: id) } }
                }
                try await group.waitForAll()
            }
            bed.cluster.obey(FaultPlan())
            let leader = try await bed.leader()
            try await bed.write("end", at: leader)
            try await bed.waitForAgreement()
            for id in bed.ids {
                for writer in 0..<3 {
                    for number in 0..<40 { #expect(try await bed.local("w\(writer)/\(number)", at: id) == "\(number)") }
                }
            }
        }
    }

    @Test func rateLimitsWhatALargeWriteNeeds() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            bed.cluster.obey(allLinks(bed.ids) { $0.bytesPerSecond = 40_000 })
            let value = String(repeating: "x", count: 20_000)
            #expect(try await bed.latency(at: leader, value: value) >= .milliseconds(490))
            bed.cluster.obey(FaultPlan())
            try await bed.wait("quick large writes again") { try await bed.latency(at: leader, value: value) < .milliseconds(250) }
        }
    }

    @Test func snapshotTravelsOverABadLink() async throws {
        try await FaultTestBed.run(snapshotCount: 50) { bed in
            let leader = try await bed.leader()
            let absent = bed.followers(of: leader)[0]
            await bed.cluster.kill(absent)
            for number in 0..<40 { try await bed.write("big/\(number)", String(repeating: "x", count: 4_000), at: leader) }
            try await bed.wait("a log that no longer reaches back") {
                try await bed.write("more", at: leader)
                guard let first = bed.status(leader)?.raft.first else { return false }
                return first > LogIndex(40)
            }
            let from = bed.noteCount
            bed.cluster.obey(allLinks(bed.ids) {
                $0.delayMicroseconds = 5_000
                $0.lossShare = 0.1
                $0.bytesPerSecond = 400_000
            })
            try await bed.cluster.start(absent)
            try await bed.wait("the snapshot", seconds: 60) {
                bed.notes(absent, since: from).contains { if case .snapshotInstalled = $0.note { true } else { false } }
            }
            #expect(try await bed.local("big/39", at: absent)?.count == 4_000)
        }
    }

    // MARK: Disk

    @Test func slowDisksOfAQuorumSlowWrites() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            var plan = FaultPlan()
            for id in [leader, bed.followers(of: leader)[0]] { plan[disk: id.rawValue].syncDelayMicroseconds = 80_000 }
            bed.cluster.obey(plan)
            for _ in 0..<3 { #expect(try await bed.latency(at: leader) >= .milliseconds(80)) }
            bed.cluster.obey(FaultPlan())
            try await bed.wait("quick writes again") { try await bed.latency(at: leader) < .milliseconds(60) }
        }
    }

    @Test func stuckDisksOfAQuorumStopWritesUntilHealed() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let others = bed.followers(of: leader)
            var plan = FaultPlan()
            for id in others { plan[disk: id.rawValue].isStuck = true }
            bed.cluster.obey(plan)
            let isDone = NIOLockedValueBox(false)
            let put = Task {
                let status = try await bed.put("stuck", at: leader)
                isDone.withLockedValue { $0 = true }
                return status.code
            }
            try await bed.wait("the entry on the leader's disk and in the others' memory") {
                guard let raft = bed.status(leader)?.raft, raft.durable > raft.commit else { return false }
                return others.allSatisfy { bed.status($0)!.raft.last.index >= raft.durable && bed.status($0)!.raft.durable < raft.durable }
            }
            #expect(!isDone.withLockedValue { $0 })
            bed.cluster.obey(FaultPlan())
            #expect(try await put.value == .ok)
        }
    }

    @Test func nodeOnAStuckDiskCanBeKilledStoppedAndStarted() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let followers = bed.followers(of: leader)
            var plan = FaultPlan()
            for id in followers { plan[disk: id.rawValue].isStuck = true }
            bed.cluster.obey(plan)
            let put = Task { try? await bed.put("k", at: leader, timeout: .seconds(60)) }
            try await bed.wait("both followers at their disks") {
                followers.allSatisfy { bed.status($0)!.raft.last.index > bed.status($0)!.raft.durable }
            }
            await bed.cluster.kill(followers[0])
            await bed.cluster.stop(followers[1])
            try await bed.wait("both gone") { followers.allSatisfy { bed.cluster.node($0) == nil } }
            let hasStarted = NIOLockedValueBox(0)
            let starts = followers.map { id in
                Task {
                    try await bed.cluster.start(id)
                    hasStarted.withLockedValue { $0 += 1 }
                }
            }
            // Others can still end and start while these wait for their disks.
            await bed.cluster.kill(leader)
            try await bed.cluster.start(leader)
            #expect(hasStarted.withLockedValue { $0 } == 0)
            bed.cluster.obey(FaultPlan())
            for start in starts { try await start.value }
            try await bed.write("after", at: try await bed.leader())
            _ = await put.value
        }
    }

    @Test(arguments: [DiskTreatment.Failure.full, .broken])
    func failingDiskStopsTheNodeWhichStartsAgainWhenItIsHealed(_ failure: DiskTreatment.Failure) async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let victim = bed.followers(of: leader)[0]
            let rest = bed.ids.filter { $0 != victim }
            let ended = try #require(bed.cluster.node(victim)?.ended)
            var plan = FaultPlan()
            plan[disk: victim.rawValue].failure = failure
            bed.cluster.obey(plan)
            try await bed.write("during", at: leader)
            let reason = try #require(try await ended.get())
            #expect("\(reason)".contains(failure == .full ? "No space left on device" : "Input/output error"))
            try await bed.wait("the cluster to forget it") { bed.cluster.node(victim) == nil }
            try await bed.write("without", at: try await bed.leader(among: rest))
            await #expect(throws: NodeError.self) { try await bed.cluster.start(victim) }
            bed.cluster.obey(FaultPlan())
            try await bed.cluster.start(victim)
            try await bed.wait("what it missed") { try await bed.local("without", at: victim) == "v" }
        }
    }

    @Test func tornTailIsCutAndReportedAtTheNextStart() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let victim = bed.followers(of: leader)[0]
            await #expect(throws: NodeError.self) { try await bed.cluster.tearLog(victim) }
            for number in 0..<5 { try await bed.write("k\(number)", at: leader) }
            try await bed.waitForAgreement()
            await bed.cluster.kill(victim)
            let torn = try await bed.cluster.tearLog(victim)
            #expect(torn.bytesWritten < torn.bytesMeant)
            try await bed.cluster.start(victim)
            #expect(bed.log.all.contains { $0.contains("cut an unfinished write of") && $0.contains(torn.segment) })
            // Nothing that was acknowledged is gone, even before it hears from the others.
            try await bed.wait("its own data") { try await bed.local("k4", at: victim) == "v" }
            try await bed.write("after", at: leader)
            try await bed.waitForAgreement()
        }
    }

    // MARK: Clock

    @Test func clockJumpMakesTimersDueAndMovesTheWallClock() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let victim = bed.followers(of: leader)[0]
            let from = bed.noteCount
            var plan = FaultPlan()
            plan[clock: victim.rawValue].offsetMilliseconds = 3_600_000
            // Over its deadline but not far: after a long gap it would think that it had been stopped, and wait anew.
            try await bed.wait("its election timeout") {
                plan[clock: victim.rawValue].leapMilliseconds += 1_900
                bed.cluster.obey(plan)
                return try await eventually(within: .milliseconds(500)) { bed.hasTimedOut(victim, since: from) }
            }
            let stamp = bed.notes(victim, since: from).last!.at.milliseconds
            #expect(abs(stamp - SystemClock().wall().milliseconds - 3_600_000) < 60_000)
            bed.cluster.obey(FaultPlan())
            _ = try await bed.leader()
            try await bed.write("after", at: victim)
        }
    }

    @Test func leaderWithASlowClockLosesItsFollowers() async throws {
        try await FaultTestBed.run { bed in
            let leader = try await bed.leader()
            let term = try #require(bed.status(leader)).raft.hardState.term
            var plan = FaultPlan()
            // A heartbeat every ten seconds of theirs.
            plan[clock: leader.rawValue].driftPartsPerMillion = -990_000
            bed.cluster.obey(plan)
            try await bed.wait("another term") { bed.followers(of: leader).contains { bed.status($0)!.raft.hardState.term > term } }
            bed.cluster.obey(FaultPlan())
            _ = try await bed.leader()
        }
    }
}
