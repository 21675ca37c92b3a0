import Base
import Raft
import Store
import Testing

@testable import Replica

/// Incidents of other clusters, played on ours. (docs/incidents.md)
@Suite struct IncidentTests {
    private static func elected(_ count: Int, seed: UInt64, configure: (inout ReplicaOptions) -> Void = { _ in }) throws -> SimulatedMembers {
        let cluster = SimulatedMembers(count: count, seed: seed, configure: configure)
        try #require(cluster.run(for: .seconds(10)) { cluster.leader != nil }, "no leader, seed \(seed)")
        return cluster
    }

    private static func body(_ encode: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter()
        encode(&writer)
        return writer.bytes
    }

    private static func answer(_ cluster: SimulatedMembers, _ host: SimulatedMembers.Host, _ request: Request, _ seed: UInt64) throws -> Answer {
        let token = cluster.ask(host.id, request)
        try #require(cluster.run(for: .seconds(10)) { host.answers[token] != nil }, "no answer, seed \(seed)")
        return host.answers[token]!
    }

    /// Incident 7: ranges at old revisions inside transactions, compaction on the way, members that come and go. What fails fails on every
    /// member, and changes nothing on any.
    @Test func transactionsThatReadCompactedRevisionsAreTheSameEverywhere() throws {
        var refused = 0
        for seed in UInt64(1300)..<1312 {
            let cluster = try Self.elected(3, seed: seed) {
                $0.snapshotCount = 60
                $0.raft.keptEntries = 10
            }
            func random(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &cluster.generator) }
            func key() -> [UInt8] { Array("k\(random(6))".utf8) }
            func operation(_ depth: Int, _ newest: Int64) -> RequestOp {
                switch random(depth < 2 ? 5 : 4) {
                case 0: .put(PutRequest(key: key(), value: Array("\(random(1000))".utf8), prevKV: random(2) == 0))
                case 1: .deleteRange(DeleteRangeRequest(key: key(), prevKV: true))
                case 2, 3: .range(RangeRequest(key: Array("k".utf8), rangeEnd: Array("l".utf8), limit: Int64(random(3)), revision: Revision(newest - 12 + Int64(random(14)))))
                default: .txn(TxnRequest(compare: [Compare(key: key(), target: .version, operand: .version(Int64(random(3))))],
                                         success: (0..<random(3)).map { _ in operation(depth + 1, newest) }, failure: (0..<random(3)).map { _ in operation(depth + 1, newest) }))
                }
            }
            for _ in 0..<150 {
                guard let asked = cluster.leader else {
                    try #require(cluster.run(for: .seconds(10)) { cluster.leader != nil }, "no leader, seed \(seed)")
                    continue
                }
                let newest = asked.replica!.status().revision.rawValue
                switch random(12) {
                case 0:
                    let revision = Revision(max(1, newest - Int64(random(10))))
                    cluster.ask(asked.id, .propose(.compaction, body: Self.body { CompactionRequest(revision: revision).encode(into: &$0) }, cost: 0))
                case 1:
                    let other = cluster.members.filter { $0.id != asked.id }[random(2)]
                    if other.replica == nil { cluster.start(other.id) } else if cluster.members.allSatisfy({ $0.replica != nil }) { cluster.crash(other.id) }
                case 2: cluster.ask(asked.id, .moveLeader(to: cluster.members[random(3)].id))
                default:
                    let request = TxnRequest(success: (0...random(3)).map { _ in operation(0, newest) })
                    let token = cluster.ask(asked.id, .propose(.txn, body: Self.body { request.encode(into: &$0) }, cost: 0))
                    // Half of them run while the next is on its way.
                    if random(2) == 0 { cluster.run(for: .milliseconds(20)) { asked.answers[token] != nil } }
                    if let error = asked.answers[token]?.error, error == .compacted || error == .futureRev { refused += 1 }
                }
                cluster.run(for: .milliseconds(Int64(random(10))))
            }
            for member in cluster.members where member.replica == nil { cluster.start(member.id) }
            // What still waits for a leader is proposed or given up.
            cluster.run(for: .seconds(8))
            try #require(cluster.run(for: .seconds(20)) {
                cluster.leader != nil && Set(cluster.members.map { $0.replica!.applied.index }).count == 1
            }, "members do not catch up, seed \(seed)")
            #expect(Set(cluster.members.map { $0.replica!.stateHash }).count == 1, "states differ, seed \(seed)")
            #expect(!cluster.members.contains { $0.notes.contains { if case .diverged = $0 { true } else { false } } }, "seed \(seed)")
            // Refused as a whole: not even what stood before the range happened.
            let leader = cluster.leader!
            let before = leader.replica!.status().revision
            let failing = TxnRequest(success: [.put(PutRequest(key: Array("never".utf8), value: [1])), .range(RangeRequest(key: [1], revision: Revision(before.rawValue + 50)))])
            let answer = try Self.answer(cluster, leader, .propose(.txn, body: Self.body { failing.encode(into: &$0) }, cost: 0), seed)
            #expect(answer.error == .futureRev && leader.replica!.status().revision == before, "seed \(seed)")
            let read = cluster.ask(leader.id, .read)
            try #require(cluster.run(for: .seconds(2)) { leader.grants[read] != nil })
            #expect(cluster.value("never", in: leader.grants[read]!) == nil)
        }
        #expect(refused > 20, "the runs meet no compacted revision")
    }

    /// Incident 9: the leader's disk stands still past its term of office. When it wakes up it must not end leases that the next leader renewed.
    @Test func aLeaderThatWakesUpEndsNoLeaseThatLives() throws {
        for seed in UInt64(1320)..<1332 {
            let cluster = try Self.elected(3, seed: seed)
            let old = cluster.leader!
            let lease = LeaseID(70)
            #expect(try Self.answer(cluster, old, .leaseGrant(lease: lease, ttlSeconds: 4), seed).isSuccess)
            let put = cluster.put(old.id, "owned", "v", lease: lease)
            try #require(cluster.run(for: .seconds(2)) { old.answers[put]?.isSuccess == true })
            // Half of them stop as a whole, as a machine that is suspended; half only wait for their disk.
            let stopsWhole = seed % 2 == 0
            let wake = cluster.now + .seconds(7)
            old.diskBusyUntil = wake
            old.isPaused = stopsWhole
            _ = cluster.put(old.id, "late", "v")
            try #require(cluster.run(for: .seconds(7)) { cluster.leader.map { $0.id != old.id } ?? false }, "the leader is not replaced, seed \(seed)")
            var renewals = 0
            while cluster.now < wake + .seconds(6) {
                if cluster.now >= wake { old.isPaused = false }
                if let asked = cluster.leader(besides: old) {
                    let answer = try Self.answer(cluster, asked, .leaseKeepAlive(lease), seed)
                    guard case .leaseRenewed(_, let seconds) = answer else {
                        // Between two leaders there is nobody to renew with.
                        #expect(answer.error?.code == .unavailable, "\(answer), seed \(seed)")
                        continue
                    }
                    #expect(seconds == 4, "the lease is gone, seed \(seed)")
                    renewals += 1
                }
                cluster.run(for: .milliseconds(700))
            }
            #expect(renewals > 8)
            #expect(!cluster.members.contains { $0.notes.contains { if case .leaseExpired(lease, _) = $0 { true } else { false } } }, "seed \(seed)")
            let asked = try #require(cluster.leader)
            let read = cluster.ask(asked.id, .read)
            try #require(cluster.run(for: .seconds(3)) { asked.grants[read] != nil }, "seed \(seed)")
            #expect(cluster.value("owned", in: asked.grants[read]!)?.lease == lease, "seed \(seed)")
        }
    }

    /// Incident 13: what the list names can be asked for and revoked, and nothing else can; on every member, whoever led.
    @Test func theListOfLeasesIsTheLeasesThereAre() throws {
        for seed in UInt64(1340)..<1350 {
            let cluster = try Self.elected(3, seed: seed) { $0.snapshotCount = 40 }
            func random(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &cluster.generator) }
            for round in 0..<60 {
                try #require(cluster.run(for: .seconds(10)) { cluster.leader != nil && cluster.members.allSatisfy { $0.replica != nil } })
                let host = cluster.members[random(3)]
                let lease = LeaseID(Int64(1 + random(8)))
                switch random(8) {
                case 0...2: _ = try Self.answer(cluster, host, .leaseGrant(lease: lease, ttlSeconds: Int64(1 + random(4))), seed)
                case 3: cluster.run(for: .milliseconds(Int64(random(3_000))))
                case 4: cluster.ask(cluster.leader!.id, .moveLeader(to: host.id))
                case 5:
                    cluster.crash(host.id)
                    cluster.run(for: .milliseconds(Int64(random(2_000))))
                    cluster.start(host.id)
                default: break
                }
                // The list is this member's; who asks for it right behind its own answer sees the same.
                let listing = cluster.ask(host.id, .leases)
                let state = cluster.ask(host.id, .leaseTimeToLive(lease, wantsKeys: false))
                let revoke = cluster.ask(host.id, .propose(.leaseRevoke, body: Self.body { $0.writeField(1, UInt64(bitPattern: lease.rawValue)) }, cost: 0))
                guard cluster.run(for: .seconds(10), until: { [listing, state, revoke].allSatisfy { host.answers[$0] != nil } }) else {
                    Issue.record("no answers, seed \(seed), round \(round)")
                    break
                }
                guard case .leases(let listed)? = host.answers[listing], case .leaseState(_, let remaining, _, _)? = host.answers[state] else { continue }
                let isListed = listed.contains(lease)
                // Its time may run out between the questions, but nothing comes back.
                if !isListed { #expect(remaining == -1 && host.answers[revoke]!.error == .leaseNotFound, "not listed, seed \(seed), round \(round)") }
                if host.answers[revoke]!.isSuccess { #expect(isListed, "revoked but not listed, seed \(seed), round \(round)") }
                if isListed, remaining > 0, let error = host.answers[revoke]!.error { #expect(error.code == .unavailable, "listed, revoke says \(error), seed \(seed), round \(round)") }
            }
        }
    }

    /// Incident 33: who ran out of space and made room again writes on, without an operator.
    @Test func aStoreThatWasFullIsWritableOnceThereIsRoom() throws {
        for seed in UInt64(1360)..<1364 {
            let cluster = try Self.elected(3, seed: seed) { $0.quotaBytes = 60_000 }
            let leader = cluster.leader!
            var written = 0
            var refusal: ServiceError?
            while refusal == nil, written < 500 {
                let put = cluster.put(leader.id, "k\(written)", String(repeating: "x", count: 1_000))
                try #require(cluster.run(for: .seconds(5)) { leader.answers[put] != nil })
                refusal = leader.answers[put]!.error
                written += 1
                cluster.run(for: .milliseconds(20))
            }
            #expect(refusal == .noSpace && written > 20, "seed \(seed)")
            try #require(cluster.run(for: .seconds(5)) { cluster.members.allSatisfy { $0.replica!.hasAlarm(Alarm.noSpace) } }, "no alarm, seed \(seed)")
            // The alarm holds on every member, also on one that is started again, until there is room.
            let other = cluster.members.first { $0.id != leader.id }!
            cluster.crash(other.id)
            cluster.start(other.id)
            cluster.run(for: .seconds(20))
            #expect(cluster.members.allSatisfy { $0.replica!.hasAlarm(Alarm.noSpace) }, "the alarm went by itself, seed \(seed)")
            let asked = try #require(cluster.leader)
            let delete = Self.body { DeleteRangeRequest(key: Array("k".utf8), rangeEnd: Array("l".utf8)).encode(into: &$0) }
            #expect(try Self.answer(cluster, asked, .propose(.deleteRange, body: delete, cost: 0), seed).isSuccess)
            let compact = Self.body { CompactionRequest(revision: asked.replica!.status().revision).encode(into: &$0) }
            #expect(try Self.answer(cluster, asked, .propose(.compaction, body: compact, cost: 0), seed).isSuccess)
            try #require(cluster.run(for: .seconds(30)) { cluster.members.allSatisfy { !$0.replica!.hasAlarm(Alarm.noSpace) } }, "the alarm stays, seed \(seed)")
            let put = cluster.put(asked.id, "again", "v")
            try #require(cluster.run(for: .seconds(5)) { asked.answers[put] != nil })
            #expect(asked.answers[put]!.isSuccess, "seed \(seed)")
        }
    }

    /// Incident 35: making room costs writers no stop. History goes in bounded batches, one key's as everybody's, writes are answered in
    /// between, and it ends soon.
    @Test func aCompactionLetsWritesThroughAndEndsSoon() throws {
        let seed = UInt64(1365)
        let cluster = try Self.elected(1, seed: seed)
        let leader = cluster.leader!
        func puts(_ count: Int, key: (Int) -> String) throws {
            for first in stride(from: 0, to: count, by: 50) {
                let asked = (first..<first + 50).map { cluster.put(leader.id, key($0), "v") }
                try #require(cluster.run(for: .seconds(5)) { asked.allSatisfy { leader.answers[$0]?.isSuccess == true } })
            }
        }
        try puts(7_000) { _ in "counter" }
        try puts(2_000) { "k\($0 % 1_000)" }
        // Nothing of that is left to write.
        cluster.run(for: .seconds(2))
        let revision = leader.replica!.status().revision
        var deletions: [Int] = []
        cluster.onCommit = { _, batch in
            deletions.append(batch.changes.count { if case .delete(.key, _) = $0 { true } else { false } })
        }
        let began = cluster.now
        let compaction = cluster.ask(leader.id, .propose(.compaction, body: Self.body { CompactionRequest(revision: revision, physical: true).encode(into: &$0) }, cost: 0))
        var slowest = TimeSpan.zero
        while leader.answers[compaction] == nil, cluster.now - began < .seconds(30) {
            let asked = cluster.now
            let put = cluster.put(leader.id, "probe", "v")
            try #require(cluster.run(for: .seconds(5)) { leader.answers[put] != nil })
            slowest = max(slowest, cluster.now - asked)
        }
        #expect(leader.answers[compaction]?.isSuccess == true)
        #expect(deletions.reduce(0, +) == 6_999 + 1_000)
        #expect(deletions.max()! <= 5_000, "\(deletions)")
        // The log's disk takes up to 3 ms a batch here.
        #expect(slowest < .milliseconds(10), "\(slowest)")
        #expect(cluster.now - began < .milliseconds(200), "\(cluster.now - began)")
    }

    /// An alarm that somebody raised by hand is theirs to take back.
    @Test func anAlarmRaisedByHandStays() throws {
        let cluster = try Self.elected(1, seed: 1370)
        let leader = cluster.leader!
        #expect(try Self.answer(cluster, leader, .alarm(.activate, member: leader.id, kind: Alarm.noSpace), 1370).isSuccess)
        cluster.run(for: .seconds(60))
        #expect(leader.replica!.hasAlarm(Alarm.noSpace))
    }
}

extension SimulatedMembers {
    /// The newest leader that is not this one.
    fileprivate func leader(besides other: Host) -> Host? {
        members.filter { $0.id != other.id && $0.replica?.isLeader == true && !$0.isPaused }.max { $0.replica!.term < $1.replica!.term }
    }
}
