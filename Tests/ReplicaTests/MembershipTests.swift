import Base
import Foundation
import Raft
import Store
import Testing

@testable import Replica

private let second = TimeSpan.seconds(1)
private typealias Host = SimulatedMembers.Host

private func newMember(_ id: UInt64, learner: Bool = false) -> Member { Member(id: MemberID(id), peerURLs: ["http://m\(id)"], isLearner: learner) }

/// A cluster whose members have all published themselves.
private func published(_ count: Int, seed: UInt64, configure: (inout ReplicaOptions) -> Void = { _ in }) throws -> (SimulatedMembers, Host) {
    let cluster = SimulatedMembers(count: count, seed: seed, configure: configure)
    let isReady = cluster.run(for: .seconds(10)) {
        cluster.leader != nil && cluster.members.allSatisfy { $0.replica!.memberList.members.allSatisfy { !$0.name.isEmpty } }
    }
    try #require(isReady, "no leader, seed \(seed)")
    // Long enough for the leader to have heard everybody.
    cluster.run(for: second)
    return (cluster, try #require(cluster.leader))
}

extension SimulatedMembers {
    fileprivate func change(_ by: Host, _ request: MembershipRequest, within limit: TimeSpan = .seconds(8)) throws -> Answer {
        let token = ask(by.id, .changeMembership(request))
        try #require(run(for: limit) { by.answers[token] != nil }, "\(request) hangs")
        return by.answers[token]!
    }
    fileprivate func put(through host: Host, _ key: String) -> Bool {
        let token = put(host.id, key, "v")
        return run(for: second) { host.answers[token] != nil } && host.answers[token]!.isSuccess
    }
    fileprivate func isVoter(_ id: MemberID) -> Bool { leader?.replica!.status().raft.configuration.voters.contains(id) ?? false }
    /// Every running member that the leader knows has applied the same and has the same table.
    fileprivate var isSettled: Bool {
        guard let leader else { return false }
        let table = leader.replica!.memberList
        return members.filter { $0.replica != nil && table.member($0.id) != nil }.allSatisfy {
            $0.replica!.applied == leader.replica!.applied && $0.replica!.memberList == leader.replica!.memberList
        }
    }
}

extension Answer {
    fileprivate var list: [Member]? { if case .membershipChanged(_, let members) = self { members } else { nil } }
}

@Test func aClusterGrowsFromOneToFiveAndShrinksAgainWhileItWrites() throws {
    for seed in UInt64(2000)..<2010 {
        let (cluster, first) = try published(1, seed: seed)
        var puts = 0
        func write() {
            #expect(cluster.put(through: first, "k\(puts)"), "write \(puts) failed, seed \(seed)")
            puts += 1
        }
        write()
        for id in UInt64(2)...5 {
            let list = try #require(try cluster.change(first, .add(newMember(id))).list, "seed \(seed)")
            #expect(list.map(\.id.rawValue) == Array(1...id))
            write()
            cluster.join(MemberID(id), contacts: list)
            while !(cluster.isVoter(MemberID(id)) && first.replica!.memberList.members.allSatisfy { !$0.name.isEmpty }) {
                write()
                try #require(puts < 1000, "member \(id) never votes, seed \(seed)")
            }
        }
        #expect(cluster.leader!.replica!.status().raft.configuration.voters.count == 5)
        for id in UInt64(2)...5 {
            let answer = try cluster.change(first, .remove(MemberID(id)))
            #expect(answer.list?.count == Int(6 - id), "\(answer), seed \(seed)")
            write()
            try #require(cluster.run(for: .seconds(5)) { cluster[MemberID(id)].wasRemoved }, "\(id) does not know, seed \(seed)")
        }
        write()
        #expect(cluster.leader === first)
        #expect(first.replica!.memberList == Membership(members: first.replica!.memberList.members, removed: (2...5).map { MemberID($0) }))
    }
}

@Test func anUnreachableNewVoterCostsNothing() throws {
    // reliability.md, incident 39: a wrong address. With etcd the lone member loses its quorum here.
    let (cluster, first) = try published(1, seed: 2100)
    #expect(try cluster.change(first, .add(newMember(2))).isSuccess)
    for n in 0..<20 { #expect(cluster.put(through: first, "k\(n)")) }
    #expect(!cluster.isVoter(MemberID(2)))
    // A second one has to wait: too few members have ever started.
    #expect(try cluster.change(first, .add(newMember(3))).error == .memberNotEnoughStarted)
    #expect(try cluster.change(first, .remove(MemberID(2))).isSuccess)
    #expect(cluster.put(through: first, "last"))
}

@Test func theRefusalsAreEtcds() throws {
    for seed in UInt64(2200)..<2204 {
        let (cluster, leader) = try published(3, seed: seed)
        // From any member: the leader judges.
        for host in cluster.members {
            #expect(try cluster.change(host, .add(newMember(2))).error == .memberExist)
            #expect(try cluster.change(host, .add(Member(id: MemberID(9), peerURLs: ["http://x", "http://m2"]))).error == .peerURLExist)
            #expect(try cluster.change(host, .remove(MemberID(9))).error == .memberNotFound)
            #expect(try cluster.change(host, .update(MemberID(9), peerURLs: ["http://x"])).error == .memberNotFound)
            #expect(try cluster.change(host, .update(MemberID(1), peerURLs: ["http://m2"])).error == .peerURLExist)
            #expect(try cluster.change(host, .promote(MemberID(9))).error == .memberNotFound)
            #expect(try cluster.change(host, .promote(MemberID(1))).error == .memberNotLearner)
        }
        #expect(try cluster.change(leader, .add(newMember(4, learner: true))).isSuccess)
        #expect(try cluster.change(leader, .add(newMember(5, learner: true))).error == .tooManyLearners)
        #expect(try cluster.change(leader, .promote(MemberID(4))).error == .learnerNotReady)
        #expect(try cluster.change(leader, .remove(MemberID(4))).isSuccess)
        // Its id is used up, its address is not.
        #expect(try cluster.change(leader, .add(newMember(4, learner: true))).error == .memberNotFound)
        #expect(try cluster.change(leader, .add(Member(id: MemberID(6), peerURLs: ["http://m4"]))).isSuccess)
    }
}

@Test func aLearnerIsPromotedOnlyOnceItHasCaughtUpAndAnUpdateDoesNotPromoteIt() throws {
    for seed in UInt64(2300)..<2306 {
        let (cluster, leader) = try published(1, seed: seed) {
            $0.snapshotCount = 40
            $0.raft.keptEntries = 10
        }
        for n in 0..<100 { #expect(cluster.put(through: leader, "k\(n)")) }
        let list = try #require(try cluster.change(leader, .add(newMember(2, learner: true))).list)
        #expect(try cluster.change(leader, .promote(MemberID(2))).error == .learnerNotReady)
        // Half of the seeds come from an empty log, half through a snapshot.
        let learner = cluster.join(MemberID(2), contacts: list)
        try #require(cluster.run(for: .seconds(5)) { learner.replica!.applied == leader.replica!.applied && cluster.isSettled })
        #expect(learner.replica!.isLearner)
        let updated = try #require(try cluster.change(leader, .update(MemberID(2), peerURLs: ["http://elsewhere"])).list)
        #expect(updated.last?.peerURLs == ["http://elsewhere"] && updated.last?.isLearner == true && !cluster.isVoter(MemberID(2)))
        cluster.run(for: second)
        // Also when asked of the learner.
        let asked = Bool.random(using: &cluster.generator) ? leader : learner
        let promotion = try cluster.change(asked, .promote(MemberID(2)))
        let promoted = try #require(promotion.list, "\(promotion) asked of \(asked.id), \(leader.replica!.status().raft.peers), seed \(seed)")
        #expect(promoted.last?.isLearner == false && cluster.isVoter(MemberID(2)))
        #expect(try cluster.change(leader, .promote(MemberID(2))).error == .memberNotLearner)
        // Both survive a restart with the same table. (incident 37)
        try #require(cluster.run(for: .seconds(2)) { cluster.isSettled })
        let table = leader.replica!.memberList
        cluster.run(for: second)
        for host in cluster.members { cluster.crash(host.id) }
        for host in cluster.members { cluster.start(host.id) }
        try #require(cluster.run(for: .seconds(10)) { cluster.leader != nil && cluster.isSettled })
        #expect(cluster.leader!.replica!.memberList == table && cluster.isVoter(MemberID(2)), "seed \(seed)")
    }
}

@Test func aRemovedMemberStopsAndNeverComesBack() throws {
    for seed in UInt64(2400)..<2412 {
        let (cluster, leader) = try published(3, seed: seed)
        let victim = cluster.members.filter { seed % 3 == 0 || $0.id != leader.id }.randomElement(using: &cluster.generator)!
        let other = cluster.members.first { $0.id != victim.id && $0.id != leader.id }!
        // Dead while it happens, or cut off, or alive: in the end it knows.
        switch seed % 3 {
        case 0:
            // It is asked itself, and still answers.
            #expect(try cluster.change(victim, .remove(victim.id)).isSuccess, "seed \(seed)")
        case 1:
            cluster.crash(victim.id)
            cluster.run(for: .seconds(3))
            #expect(try cluster.change(other, .remove(victim.id)).isSuccess, "seed \(seed)")
            cluster.run(for: second)
            cluster.start(victim.id)
        default:
            for host in cluster.members where host.id != victim.id {
                cluster.cuts.insert([host.id, victim.id])
                cluster.cuts.insert([victim.id, host.id])
            }
            cluster.run(for: .seconds(3))
            #expect(try cluster.change(other, .remove(victim.id)).isSuccess, "seed \(seed)")
            cluster.cuts = []
        }
        try #require(cluster.run(for: .seconds(10)) { victim.wasRemoved && victim.replica == nil }, "the removed member lives on, seed \(seed)")
        // Its store says so for ever; started from it in spite of that, it does nothing.
        let state = try ReplicaState.load(from: try victim.backend.makeReader())
        #expect(state.membership.isRemoved(victim.id) && state.membership.member(victim.id) == nil, "seed \(seed)")
        #expect(cluster.put(through: other, "after"), "seed \(seed)")
        #expect(cluster.leader!.replica!.status().raft.configuration.voters.count == 2)
    }
}

@Test func aDiskOfBeforeTheRemovalDoesNotBringAMemberBack() throws {
    // reliability.md, incident 36: a zombie from an old disk image.
    for seed in UInt64(2450)..<2455 {
        let (cluster, leader) = try published(3, seed: seed)
        let victim = cluster.members.first { $0.id != leader.id }!
        let image = (victim.hardState, victim.start, victim.entries, MemoryBackend())
        let source = try victim.backend.makeReader()
        var batch = BackendBatch()
        for table in Table.allCases {
            try source.scan(table, from: []) { key, value in
                batch.put(table, [UInt8](key), [UInt8](value))
                return true
            }
        }
        try image.3.commit(batch)
        #expect(try cluster.change(leader, .remove(victim.id)).isSuccess)
        try #require(cluster.run(for: .seconds(5)) { victim.replica == nil })
        let term = cluster.leader!.replica!.term
        (victim.hardState, victim.start, victim.entries, victim.backend) = image
        victim.notes = []
        cluster.start(victim.id)
        try #require(cluster.run(for: .seconds(10)) { victim.wasRemoved && victim.replica == nil }, "a zombie, seed \(seed)")
        #expect(cluster.leader!.replica!.term == term && cluster.leader!.replica!.memberList.member(victim.id) == nil, "it disturbed the others, seed \(seed)")
    }
}

@Test func aLeaderThatIsRemovedHandsOnWithoutAFailedWrite() throws {
    var quick = 0
    for seed in UInt64(2500)..<2512 {
        let (cluster, leader) = try published(3, seed: seed)
        let others = cluster.members.filter { $0.id != leader.id }
        let token = cluster.ask(others[0].id, .changeMembership(.remove(leader.id)))
        var puts: [(Host, RequestToken)] = []
        let start = cluster.now
        for n in 0..<30 {
            cluster.run(for: .milliseconds(1))
            for host in others { puts.append((host, cluster.put(host.id, "\(n) \(host.id)", "v"))) }
        }
        let done = cluster.run(for: .seconds(3)) { others[0].answers[token] != nil && puts.allSatisfy { $0.0.answers[$0.1] != nil } }
        try #require(done, "hangs, seed \(seed)")
        #expect(others[0].answers[token]!.isSuccess && puts.allSatisfy { $0.0.answers[$0.1]!.isSuccess }, "seed \(seed)")
        if cluster.now - start < .milliseconds(200) { quick += 1 }
    }
    // This network reorders: now and then the one that did not get the word has the longer log.
    #expect(quick >= 8, "\(quick) of 12")
}

@Test func aChangeThatWaitsWhenTheLeaderDiesIsMadeOnce() throws {
    for seed in UInt64(2550)..<2570 {
        let (cluster, leader) = try published(3, seed: seed)
        let asker = cluster.members.first { $0.id != leader.id }!
        // With the leader dead two of three are connected: enough to remove it, or to take a learner.
        let token = cluster.ask(asker.id, .changeMembership(.add(newMember(4, learner: true))))
        cluster.run(for: .microseconds(Int64.random(in: 0...6000, using: &cluster.generator)))
        cluster.crash(leader.id, isNoticed: true)
        try #require(cluster.run(for: .seconds(7)) { asker.answers[token] != nil }, "hangs, seed \(seed)")
        #expect(asker.answers[token]!.list?.map(\.id.rawValue) == [1, 2, 3, 4], "\(asker.answers[token]!), seed \(seed)")
        cluster.start(leader.id)
        try #require(cluster.run(for: .seconds(5)) { cluster.isSettled }, "seed \(seed)")
    }
}

@Test func strictChecksAskForAQuorumOfConnectedVotersAfterTheChange() throws {
    // reliability.md, incident 38: every size and every set of members that are down, as long as there is a leader.
    for count in 2...5 {
        for down in 0..<(1 << count) {
            let up = (0..<count).filter { down >> $0 & 1 == 0 }
            guard up.count > count / 2 else { continue }
            let (cluster, _) = try published(count, seed: UInt64(2600 + count * 100 + down))
            for at in 0..<count where down >> at & 1 == 1 { cluster.crash(MemberID(UInt64(at + 1))) }
            let host = cluster.members[up[0]]
            try #require(cluster.run(for: .seconds(5)) { cluster.leader?.replica?.isLeader == true && cluster.put(through: host, "probe") })
            cluster.run(for: .seconds(3))
            let name = "\(count) members, up \(up)"
            let added = try cluster.change(host, .add(newMember(9)))
            #expect(added.error == (up.count >= (count + 1) / 2 + 1 ? nil : .unhealthy), "add, \(name)")
            #expect(try cluster.change(host, .add(newMember(8, learner: true))).isSuccess, "add learner, \(name)")
            #expect(try cluster.change(host, .remove(MemberID(8))).isSuccess, "remove learner, \(name)")
            if added.isSuccess { #expect(try cluster.change(host, .remove(MemberID(9))).isSuccess) }
            // The one asked for is not the one that answers, so that it can tell.
            guard let victim = (0..<count).filter({ $0 != up[0] }).randomElement(using: &cluster.generator) else { continue }
            let rest = up.filter { $0 != victim }.count
            let removed = try cluster.change(host, .remove(MemberID(UInt64(victim + 1))))
            #expect(removed.error == (rest >= (count - 1) / 2 + 1 ? nil : .unhealthy), "remove \(victim), \(name)")
            #expect(cluster.run(for: .seconds(3)) { cluster.put(through: host, "after") }, "no writes any more, \(name)")
        }
    }
}

@Test func randomChangesAmongCrashesGiveEveryMemberTheSameTableAtEveryIndex() throws {
    var made: [String: Int] = [:]
    for seed in seeds(3000...3039) {
        let cluster = SimulatedMembers(count: Int(seed % 3) + 1, seed: seed) {
            $0.snapshotCount = 30
            $0.raft.keptEntries = 10
        }
        cluster.lossPercent = 3
        // The model: one table for each index, whoever has applied it.
        var tables: [UInt64: Membership] = [:]
        var gone: Set<MemberID> = []
        cluster.afterTurn = { host in
            let replica = host.replica!
            let table = replica.memberList
            for id in table.removed { gone.insert(id) }
            #expect(table.members.allSatisfy { table.isRemoved($0.id) == false }, "member and removed at once, seed \(seed)")
            guard !replica.isRemoved, replica.applied.index > .zero else { return }
            if let known = tables[replica.applied.index.rawValue] {
                if known != table { Issue.record("tables differ at \(replica.applied.index.rawValue) on \(host.id): \(table) and \(known), seed \(seed)") }
            } else {
                tables[replica.applied.index.rawValue] = table
            }
            if host.id != .none, !replica.status(includingPeers: false).raft.configuration.isJoint, replica.contacts.isEmpty {
                let ids = replica.appliedConfiguration.everyone
                if ids != table.members.map(\.id) { Issue.record("configuration \(ids) and table \(table.members.map(\.id)) differ, seed \(seed)") }
            }
        }
        var nextID: UInt64 = 10
        var homeless: [MemberID] = []
        var puts: [(key: String, host: Host, token: RequestToken)] = []
        var changes: [(host: Host, token: RequestToken, request: MembershipRequest)] = []
        func running() -> [Host] { cluster.members.filter { $0.replica != nil } }
        for step in 0..<120 {
            guard let host = running().randomElement(using: &cluster.generator) else {
                for dead in cluster.members where !dead.wasRemoved { cluster.start(dead.id) }
                continue
            }
            let table = host.replica!.memberList.members
            func ask(_ request: MembershipRequest) { changes.append((host, cluster.ask(host.id, .changeMembership(request)), request)) }
            switch Int.random(in: 0..<20, using: &cluster.generator) {
            case 0...5:
                puts.append(("k\(step)", host, cluster.put(host.id, "k\(step)", "v")))
            case 6, 7:
                nextID += 1
                homeless.append(MemberID(nextID))
                ask(.add(newMember(nextID, learner: Bool.random(using: &cluster.generator))))
            case 8, 9:
                // A machine for one that the cluster knows; or for one that it does not know yet.
                if let id = homeless.first {
                    homeless.removeFirst()
                    if !gone.contains(id), !table.isEmpty { cluster.join(id, contacts: table) }
                }
            case 10: if let victim = table.randomElement(using: &cluster.generator) { ask(.remove(victim.id)) }
            case 11: if let one = table.first(where: \.isLearner) { ask(.promote(one.id)) }
            case 12: if let one = table.randomElement(using: &cluster.generator) { ask(.update(one.id, peerURLs: ["http://m\(one.id)/\(step)"])) }
            case 13: cluster.crash(host.id, isNoticed: Bool.random(using: &cluster.generator))
            case 14, 15: for dead in cluster.members where dead.replica == nil && !dead.wasRemoved { cluster.start(dead.id) }
            case 16:
                let pair = cluster.members.shuffled(using: &cluster.generator).prefix(2).map(\.id)
                cluster.cuts.insert(pair)
            case 17, 18: cluster.cuts = []
            default: break
            }
            cluster.run(for: .milliseconds(Int64.random(in: 1...400, using: &cluster.generator)))
        }
        cluster.cuts = []
        cluster.lossPercent = 0
        for dead in cluster.members where dead.replica == nil && !dead.wasRemoved { cluster.start(dead.id) }
        let isQuiet = cluster.run(for: .seconds(60)) {
            cluster.isSettled && cluster.members.allSatisfy { !gone.contains($0.id) || $0.wasRemoved }
        }
        try #require(isQuiet, "the cluster does not settle, seed \(seed): \(cluster.members.map { "\($0.id) \($0.replica.map { "\($0.applied.index.rawValue) \($0.term) leads \($0.isLeader)" } ?? "down") \($0.wasRemoved)" })")
        let table = cluster.leader!.replica!.memberList
        #expect(table.members.allSatisfy { !gone.contains($0.id) }, "a removed member is back, seed \(seed)")
        for (host, token, request) in changes {
            let kind = String("\(request)".prefix { $0 != "(" })
            made[host.answers[token]?.isSuccess == true ? kind : "refused", default: 0] += 1
            guard host.answers[token]?.isSuccess == true else { continue }
            if case .remove(let id) = request { #expect(table.isRemoved(id), "\(id) was removed, seed \(seed)") }
            if case .add(let member) = request { #expect(table.member(member.id) != nil || table.isRemoved(member.id), "\(member.id) is lost, seed \(seed)") }
        }
        // Whoever votes is alive in the end, or was never asked to.
        let reader = cluster.leader!
        let read = cluster.ask(reader.id, .read)
        try #require(cluster.run(for: .seconds(5)) { reader.grants[read] != nil }, "seed \(seed)")
        for (key, host, token) in puts where host.answers[token]?.isSuccess == true {
            #expect(cluster.value(key, in: reader.grants[read]!) != nil, "\(key) is lost, seed \(seed)")
        }
    }
    print("membership changes made:", made.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", "))
    #expect(["add", "remove", "promote", "update"].allSatisfy { made[$0, default: 0] > 0 })
}

/// `MEMBERSHIP_SEEDS=from-to` runs others.
private func seeds(_ usual: ClosedRange<UInt64>) -> ClosedRange<UInt64> {
    guard let text = ProcessInfo.processInfo.environment["MEMBERSHIP_SEEDS"] else { return usual }
    let ends = text.split(separator: "-").compactMap { UInt64($0) }
    return ends.count == 2 && ends[0] <= ends[1] ? ends[0]...ends[1] : usual
}

@Test func membershipEntriesSurviveTheirCoding() throws {
    let member = Member(id: MemberID(.max), name: "a \"b\"", peerURLs: ["http://x:1", "http://y:2"], clientURLs: ["http://c"], isLearner: true)
    let changes: [MembershipEntry.Change] = [
        .request(.add(member)), .request(.remove(MemberID(1))), .request(.update(MemberID(2), peerURLs: ["a", "b"])), .request(.promote(MemberID(3))),
        .admit(MemberID(4)), .found([member, newMember(7)]), .alone(MemberID(5)),
    ]
    for change in changes {
        let entry = MembershipEntry(asker: MemberID(6), number: 1 << 40, change: change)
        let bytes = entry.encoded()
        #expect(try MembershipEntry.decode(bytes) == entry)
        for cut in 0..<bytes.count { #expect(throws: DecodingFault.self) { try MembershipEntry.decode(Array(bytes[..<cut])) } }
    }
    for body in [PeerMessage.Body.changeMembership(number: 7, term: Term(3), .add(member)), .membershipRefused(number: 8, .unhealthy), .removed, .askStanding] {
        var writer = ByteWriter()
        PeerMessage(from: MemberID(1), to: MemberID(2), body: body).encodeBody(into: &writer)
        let copy = try writer.bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            return try PeerMessage.decodeBody(&reader, from: MemberID(1), to: MemberID(2))
        }
        #expect("\(copy.body)" == "\(body)")
    }
}

@Test func anEntryThatBringsBackARemovedMemberIsNotApplied() throws {
    var membership = Membership(members: [newMember(1)], removed: [MemberID(2)])
    #expect(throws: DecodingFault.self) { try membership.insert(newMember(2)) }
    #expect(membership == Membership(members: [newMember(1)], removed: [MemberID(2)]))
}
