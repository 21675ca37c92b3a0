import Base
import Raft
import Store
import Testing

@testable import Replica

private let second = TimeSpan.seconds(1)

private func elected(_ count: Int, seed: UInt64, configure: (inout ReplicaOptions) -> Void = { _ in }) throws -> (SimulatedMembers, SimulatedMembers.Host) {
    let cluster = SimulatedMembers(count: count, seed: seed, configure: configure)
    try #require(cluster.run(for: .seconds(10)) { cluster.leader != nil }, "no leader, seed \(seed)")
    return (cluster, cluster.leader!)
}

extension SimulatedMembers {
    /// A put whose stored bytes depend on what the member holds already.
    fileprivate func putKeepingValue(_ id: MemberID, _ key: String) -> RequestToken {
        let request = PutRequest(key: Array(key.utf8), ignoreValue: true)
        var writer = ByteWriter()
        request.encode(into: &writer)
        return ask(id, .propose(.put, body: writer.bytes, cost: 0))
    }

    /// Flips a bit in what a stopped member's disk holds as the value of `key`, as a rotten sector would.
    fileprivate func damage(_ id: MemberID, value text: String) throws {
        let wanted = Array(text.utf8)
        let reader = try self[id].backend.makeReader()
        var found: (key: [UInt8], value: [UInt8])?
        try reader.scan(.key, from: []) { key, value in
            let bytes = [UInt8](value)
            if let at = bytes.indices.first(where: { bytes[$0...].starts(with: wanted) }) {
                var damaged = bytes
                damaged[at] ^= 1
                found = ([UInt8](key), damaged)
            }
            return true
        }
        let (key, value) = try #require(found)
        var batch = BackendBatch()
        batch.put(.key, key, value)
        try self[id].backend.commit(batch)
    }

    fileprivate func divergence(_ id: MemberID) -> StateDivergence? {
        for case .diverged(let divergence) in self[id].notes { return divergence }
        return nil
    }
}

/// A cluster in which `victim` holds another value of "k" than the others, and nobody has noticed yet.
private func damagedCluster(_ count: Int, seed: UInt64, victim choose: (SimulatedMembers, SimulatedMembers.Host) -> MemberID) throws
    -> (SimulatedMembers, victim: SimulatedMembers.Host) {
    let (cluster, leader) = try elected(count, seed: seed)
    let put = cluster.put(leader.id, "k", "precious")
    try #require(cluster.run(for: second) { leader.answers[put] != nil })
    cluster.run(for: .seconds(3))
    let victim = choose(cluster, leader)
    cluster.crash(victim)
    try cluster.damage(victim, value: "precious")
    cluster.start(victim)
    try #require(cluster.run(for: .seconds(10)) { cluster.leader != nil })
    cluster.run(for: second)
    return (cluster, cluster[victim])
}

@Suite struct StateCheckTests {
    @Test func aFollowerWhoseStateDiffersIsFencedWithinTwoSecondsAndTheOthersGoOn() throws {
        for seed in UInt64(900)..<910 {
            let (cluster, victim) = try damagedCluster(3, seed: seed) { cluster, leader in cluster.members.first { $0.id != leader.id }!.id }
            let leader = cluster.leader!
            try #require(leader.id != victim.id && cluster.members.allSatisfy { cluster.divergence($0.id) == nil })
            let before = victim.replica!.applied.index
            _ = cluster.putKeepingValue(leader.id, "k")
            try #require(cluster.run(for: .seconds(2)) { cluster.divergence(victim.id) != nil }, "not noticed, seed \(seed)")

            let divergence = cluster.divergence(victim.id)!
            #expect(divergence.own != divergence.majority && divergence.through > before && divergence.after <= before)
            // Nothing leaves it any more, not even of what it could answer by itself.
            let read = cluster.ask(victim.id, .read)
            let localRead = cluster.ask(victim.id, .localRead)
            let status = cluster.ask(victim.id, .status)
            let put = cluster.put(leader.id, "after", "x")
            try #require(cluster.run(for: second) { leader.answers[put] != nil })
            #expect(leader.answers[put]!.isSuccess)
            cluster.run(for: .seconds(10))
            #expect(victim.grants[read] == nil && victim.grants[localRead] == nil && victim.answers[status] == nil && victim.answers[read] == nil)
            for member in cluster.members where member.id != victim.id {
                #expect(cluster.divergence(member.id) == nil && member.replica!.status().alarms.isEmpty)
            }
        }
    }

    @Test func aLeaderWhoseStateDiffersFencesItself() throws {
        for seed in UInt64(920)..<930 {
            let (cluster, victim) = try damagedCluster(3, seed: seed) { _, leader in leader.id }
            if cluster.leader!.id != victim.id {
                let move = cluster.ask(cluster.leader!.id, .moveLeader(to: victim.id))
                let asked = cluster.leader!
                try #require(cluster.run(for: second) { asked.answers[move] != nil && victim.replica!.isLeader })
            }
            cluster.run(for: second)
            _ = cluster.putKeepingValue(victim.id, "k")
            try #require(cluster.run(for: .seconds(2)) { cluster.divergence(victim.id) != nil }, "not noticed, seed \(seed)")
            try #require(cluster.run(for: .seconds(5)) { cluster.leader != nil })
            let next = cluster.leader!
            let put = cluster.put(next.id, "after", "x")
            try #require(cluster.run(for: second) { next.answers[put] != nil })
            #expect(next.answers[put]!.isSuccess && next.id != victim.id)
        }
    }

    @Test func aFencedMemberThatIsStartedAgainIsFencedByTheNextCheck() throws {
        let (cluster, victim) = try damagedCluster(3, seed: 940) { cluster, leader in cluster.members.first { $0.id != leader.id }!.id }
        let leader = cluster.leader!
        _ = cluster.putKeepingValue(leader.id, "k")
        // Until the difference is on its disk.
        try #require(cluster.run(for: .seconds(2)) { cluster.divergence(victim.id) != nil })
        cluster.crash(victim.id)
        victim.notes = []
        cluster.start(victim.id)
        _ = cluster.put(leader.id, "other", "x")
        try #require(cluster.run(for: .seconds(2)) { cluster.divergence(victim.id) != nil })
        #expect(cluster.divergence(victim.id)!.after == .zero && cluster.divergence(victim.id)!.description.contains("clear its data directory"))
    }

    @Test func minorityOfTwoInFiveIsFencedAndTheMajorityServes() throws {
        let (cluster, first) = try damagedCluster(5, seed: 950) { cluster, leader in cluster.members.first { $0.id != leader.id }!.id }
        let second = cluster.members.first { $0.id != first.id && $0.id != cluster.leader!.id }!
        cluster.crash(second.id)
        try cluster.damage(second.id, value: "precious")
        cluster.start(second.id)
        cluster.run(for: .seconds(2))
        let leader = cluster.leader!
        _ = cluster.putKeepingValue(leader.id, "k")
        try #require(cluster.run(for: .seconds(2)) { cluster.divergence(first.id) != nil && cluster.divergence(second.id) != nil })
        let put = cluster.put(leader.id, "after", "x")
        try #require(cluster.run(for: .seconds(5)) { leader.answers[put] != nil })
        #expect(leader.answers[put]!.isSuccess)
    }

    @Test func whereNoMajorityAgreesTheCorruptAlarmStopsTheCluster() throws {
        let (cluster, _) = try damagedCluster(2, seed: 960) { cluster, leader in cluster.members.first { $0.id != leader.id }!.id }
        let leader = cluster.leader!
        _ = cluster.putKeepingValue(leader.id, "k")
        try #require(cluster.run(for: .seconds(2)) {
            cluster.members.allSatisfy { $0.replica!.status().alarms == [Alarm(member: .none, kind: Alarm.corrupt)] }
        })
        let put = cluster.put(leader.id, "after", "x")
        try #require(cluster.run(for: second) { leader.answers[put] != nil })
        #expect(leader.answers[put]!.error == .corrupt)
        let applied = leader.replica!.applied
        cluster.run(for: .seconds(20))
        // The refused put asked for one more check; the alarm is not raised again and again.
        #expect(leader.replica!.applied.index.rawValue <= applied.index.rawValue + 2)
        #expect(cluster.members.allSatisfy { cluster.divergence($0.id) == nil })
    }

    /// One seed, all that changes state: equal hashes at equal entries, through restarts and streamed snapshots.
    @Test func hashesAreEqualAtEqualEntries() throws {
        for seed in UInt64(970)..<976 {
            let (cluster, _) = try elected(3, seed: seed) {
                $0.snapshotCount = 30
                $0.raft.keptEntries = 5
                $0.quotaBytes = -1
            }
            var known: [LogIndex: StateHash] = [:]
            var snapshots = 0
            func compare() {
                for member in cluster.members {
                    guard let replica = member.replica else { continue }
                    #expect(known[replica.applied.index, default: replica.stateHash] == replica.stateHash, "entry \(replica.applied.index), seed \(seed)")
                    known[replica.applied.index] = replica.stateHash
                }
            }
            func random(_ below: Int) -> Int { Int.random(in: 0..<below, using: &cluster.generator) }
            for step in 0..<400 {
                let alive = cluster.members.filter { $0.replica != nil }
                let target = alive[random(alive.count)].id
                switch random(12) {
                case 0: cluster.ask(target, .leaseGrant(lease: LeaseID(Int64(1 + random(20))), ttlSeconds: Int64(1 + random(4))))
                case 1:
                    var body = ByteWriter()
                    DeleteRangeRequest(key: Array("k".utf8), rangeEnd: Array("k\(random(10))".utf8)).encode(into: &body)
                    cluster.ask(target, .propose(.deleteRange, body: body.bytes, cost: 0))
                case 2:
                    var body = ByteWriter()
                    CompactionRequest(revision: Revision(Int64(1 + random(step + 1)))).encode(into: &body)
                    cluster.ask(target, .propose(.compaction, body: body.bytes, cost: 0))
                case 3: cluster.ask(target, .alarm(random(2) == 0 ? .activate : .deactivate, member: target, kind: Alarm.noSpace))
                case 4 where alive.count == 3 && random(6) == 0: cluster.crash(target)
                case 5: for dead in cluster.members where dead.replica == nil { cluster.start(dead.id) }
                default: _ = cluster.put(target, "k\(random(10))", "value \(step)", lease: random(4) == 0 ? LeaseID(Int64(1 + random(20))) : .none)
                }
                cluster.run(for: .milliseconds(Int64(random(60))))
                compare()
            }
            for dead in cluster.members where dead.replica == nil { cluster.start(dead.id) }
            try #require(cluster.run(for: .seconds(30)) {
                let all = cluster.members.map { $0.replica!.progress }
                return all.allSatisfy { $0.applied == all[0].last && $0.commit == all[0].last }
            })
            compare()
            for member in cluster.members {
                snapshots += member.notes.count { if case .snapshotInstalled = $0 { true } else { false } }
                #expect(cluster.divergence(member.id) == nil)
                #expect(!member.notes.contains { if case .statesDiffer = $0 { true } else { false } })
                // What the disk will hold is the same.
                cluster.run(for: second)
                let reader = try member.backend.makeReader()
                let state = try ReplicaState.load(from: reader)
                #expect(known[state.applied.index, default: state.stateHash] == state.stateHash)
            }
            print("seed", seed, "entries", known.count, "snapshots", snapshots)
        }
    }

    @Test func hashSurvivesAStreamedSnapshot() throws {
        let (cluster, leader) = try elected(3, seed: 980) {
            $0.snapshotCount = 20
            $0.raft.keptEntries = 5
        }
        let follower = cluster.members.first { $0.id != leader.id }!
        cluster.crash(follower.id)
        for n in 0..<200 {
            _ = cluster.put(leader.id, "k\(n)", "v")
            cluster.run(for: .milliseconds(10))
        }
        cluster.run(for: second)
        cluster.start(follower.id)
        try #require(cluster.run(for: .seconds(10)) { follower.replica!.applied == leader.replica!.applied })
        #expect(follower.notes.contains { if case .snapshotInstalled = $0 { true } else { false } })
        #expect(follower.replica!.stateHash == leader.replica!.stateHash && leader.replica!.stateHash != .initial)
    }

    @Test func anIdleClusterWritesNoChecksAndABusyOneAtMostOnePerInterval() throws {
        let (cluster, leader) = try elected(3, seed: 990)
        cluster.run(for: .seconds(5))
        let idle = leader.replica!.applied
        cluster.run(for: .seconds(60))
        #expect(leader.replica!.applied == idle)
        for n in 0..<500 {
            _ = cluster.put(leader.id, "k\(n)", "v")
            cluster.run(for: .milliseconds(10))
        }
        cluster.run(for: .seconds(3))
        let checks = leader.replica!.applied.index.rawValue - idle.index.rawValue - 500
        #expect((4...8).contains(checks), "\(checks) checks in 8 s")
        let after = leader.replica!.applied
        cluster.run(for: .seconds(60))
        #expect(leader.replica!.applied == after)
    }

    @Test func checksCanBeTurnedOffAndALoneMemberWritesNone() throws {
        for (count, interval) in [(3, TimeSpan.zero), (1, second)] {
            let (cluster, leader) = try elected(count, seed: 995) { $0.stateCheckInterval = interval }
            cluster.run(for: .seconds(5))
            let before = leader.replica!.applied.index
            let put = cluster.put(leader.id, "k", "v")
            cluster.run(for: .seconds(5))
            #expect(leader.answers[put]?.isSuccess == true && leader.replica!.applied.index == before.next)
        }
    }

    // MARK: The bookkeeping by itself

    private let ids = (1...5).map { MemberID(UInt64($0)) }
    private let good = StateHash(rawValue: 1)
    private let bad = StateHash(rawValue: 2)

    private func comparison(through index: UInt64, _ hash: StateHash) -> StateComparison {
        var comparison = StateComparison(at: .zero, .initial)
        for n in 1...index { comparison.record(LogIndex(n), hash) }
        return comparison
    }

    @Test func reportsThatComeBeforeTheCheckWait() {
        var it = comparison(through: 10, bad)
        it.take(good, at: LogIndex(7), from: ids[1])
        it.take(good, at: LogIndex(7), from: ids[2])
        #expect(it.judge() == nil)
        let own = it.begin(LogIndex(7), by: ids[1], good, id: ids[0], Configuration(voters: Array(ids[..<3])))
        #expect(own == bad)
        #expect(it.judge() == .diverged(at: LogIndex(7), own: bad, majority: good))
        #expect(it.judge() == nil, "given once")
    }

    @Test func aMajorityOfBothSetsIsAskedForDuringAJointChange() {
        var it = comparison(through: 10, bad)
        let joint = Configuration(voters: [ids[0], ids[1], ids[2]], outgoingVoters: [ids[0], ids[3], ids[4]])
        _ = it.begin(LogIndex(7), by: ids[1], good, id: ids[0], joint)
        it.take(good, at: LogIndex(7), from: ids[2])
        #expect(it.judge() == nil, "a majority of the new voters only")
        it.take(good, at: LogIndex(7), from: ids[3])
        it.take(good, at: LogIndex(7), from: ids[4])
        #expect(it.judge() == .diverged(at: LogIndex(7), own: bad, majority: good))
    }

    @Test func aLearnerIsJudgedByTheVotersAndDoesNotCount() {
        var it = comparison(through: 10, bad)
        _ = it.begin(LogIndex(7), by: ids[0], good, id: ids[3], Configuration(voters: Array(ids[..<3]), learners: [ids[3]]))
        it.take(bad, at: LogIndex(7), from: ids[4]) // nobody's voter
        #expect(it.judge() == nil)
        it.take(good, at: LogIndex(7), from: ids[1])
        #expect(it.judge() == .diverged(at: LogIndex(7), own: bad, majority: good))
    }

    @Test func agreementMovesOnAndSilenceDecidesNothing() {
        var it = comparison(through: 10, good)
        let voters = Configuration(voters: Array(ids[..<3]))
        _ = it.begin(LogIndex(5), by: ids[0], good, id: ids[0], voters)
        #expect(it.judge() == nil && it.agreedThrough == .zero)
        it.take(good, at: LogIndex(5), from: ids[2])
        #expect(it.judge() == nil && it.agreedThrough == LogIndex(5))
        _ = it.begin(LogIndex(9), by: ids[0], good, id: ids[0], voters)
        it.take(bad, at: LogIndex(9), from: ids[1])
        #expect(it.judge() == nil, "one voter has not answered")
        it.take(StateHash(rawValue: 3), at: LogIndex(9), from: ids[2])
        #expect(it.judge() == .noMajority(at: LogIndex(9)))
    }

    @Test func whatIsTooOldIsPassedOver() {
        var it = comparison(through: 20_000, good)
        #expect(it.hash(at: LogIndex(20_000 - 8192)) == nil && it.hash(at: LogIndex(20_000 - 8191)) == good && it.hash(at: LogIndex(20_001)) == nil)
        let voters = Configuration(voters: Array(ids[..<3]))
        #expect(it.begin(LogIndex(3), by: ids[1], bad, id: ids[0], voters) == nil)
        // However many indices peers name, the newest few are kept.
        for n in UInt64(1)...1000 { it.take(bad, at: LogIndex(n), from: ids[1]) }
        for n in UInt64(1)...1000 { it.take(bad, at: LogIndex(n), from: ids[2]) }
        #expect(it.begin(LogIndex(15_000), by: ids[1], bad, id: ids[0], voters) == good)
        it.take(bad, at: LogIndex(15_000), from: ids[2])
        #expect(it.judge() == .diverged(at: LogIndex(15_000), own: good, majority: bad))
    }
}
