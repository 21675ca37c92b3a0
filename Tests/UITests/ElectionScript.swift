@testable import UI

/// A session as nodes, canary and faults would tell it, written down: for pictures, for the assembler's tests and for recordings.
/// Times are microseconds from the start.
struct ElectionScript {
    static let ids: [UInt64] = [0x8211_f1d0_f64f_3269, 0xfd42_2379_fda5_0e48, 0x91bc_3c39_8fb3_c146, 0x8e9e_05c5_2164_694d, 0xa826_6ecf_0316_71f3]

    let start: Moment
    private(set) var events: [(at: Int64, event: DataEvent)] = []
    private var cluster: ClusterState
    private var active: [ActiveFault] = []
    private var outages: [(from: Int64, to: Int64)] = []
    private var lastFault = 0
    private var lastEvent: UInt64 = 100

    init(start: Moment, nodes: Int = 5, leader: Int, term: UInt64) {
        self.start = start
        cluster = Sample.cluster(now: start, nodes: nodes)
        for index in cluster.members.indices {
            cluster.members[index].role = index + 1 == leader ? .leader : .follower
            cluster.members[index].term = term
        }
        add(0, .cluster(cluster))
        for node in 1...nodes { sample(0, node, node == leader ? .leader : .follower, term, leader: leader, left: node == leader ? nil : 900_000 + Int64(node) * 140_000) }
    }

    /// Before anything happened.
    var first: ClusterState { if case .cluster(let state) = events[0].event { state } else { cluster } }

    static func id(_ node: Int) -> UInt64 { ids[node - 1] }
    func moment(_ at: Int64) -> Moment { Moment(milliseconds: start.milliseconds + at / 1_000) }
    private func absolute(_ at: Int64) -> Int64 { start.milliseconds * 1_000 + at }

    mutating func add(_ at: Int64, _ event: DataEvent) { events.append((at, event)) }

    mutating func raft(_ at: Int64, _ node: Int, _ term: UInt64, _ kind: RaftEvent.Kind) {
        add(at, .raft([RaftEvent(node: Self.id(node), atMicroseconds: absolute(at), term: term, kind: kind)]))
    }

    mutating func sample(_ at: Int64, _ node: Int, _ role: MemberState.Role, _ term: UInt64, leader: Int, left: Int64?) {
        add(at, .samples([NodeSample(node: Self.id(node), atMicroseconds: absolute(at), role: role, term: term, leader: leader == 0 ? 0 : Self.id(leader), commit: 48_102, applied: 48_102, lastIndex: 48_102, timerLeftMicroseconds: left, timerLengthMicroseconds: left.map { $0 + 100_000 })]))
    }

    /// The cluster's state as the monitor tells it, after `change`.
    mutating func cluster(_ at: Int64, _ change: (inout ClusterState) -> Void) {
        change(&cluster)
        for index in cluster.members.indices { cluster.members[index].sampledAt = moment(at) }
        add(at, .cluster(cluster))
    }

    mutating func fault(_ at: Int64, _ fault: Fault) {
        lastFault += 1
        active.append(ActiveFault(id: lastFault, fault: fault, since: moment(at)))
        add(at, .faults(active))
    }

    mutating func heal(_ at: Int64, _ fault: Fault) {
        active.removeAll { $0.fault == fault }
        add(at, .faults(active))
    }

    mutating func tell(_ at: Int64, _ kind: ClusterEvent.Kind) {
        lastEvent += 1
        add(at, .events([ClusterEvent(id: lastEvent, at: moment(at), kind: kind)]))
    }

    mutating func verdict(_ at: Int64, acknowledged: Int, violations: [String] = []) {
        add(at, .workload(WorkloadSample(at: moment(at), put: .init(count: 400, p50Microseconds: 1_900, p99Microseconds: 4_100, maxMicroseconds: 5_000), read: nil, failed: 0, putBuckets: [0, 4, 28, 14, 3, 1, 0, 0, 0],
                                         verdict: ConsistencyVerdict(acknowledgedWrites: acknowledged, confirmedWrites: acknowledged, checkedReads: acknowledged, violations: violations))))
    }

    /// Fifty writes a second; those that fall into an outage wait for its end, the first three fail.
    mutating func canary(_ from: Int64, _ to: Int64, outages: [(from: Int64, to: Int64)]) {
        add(from, .isCanaryOn(true))
        var batch: [Int64: [CanaryWrite]] = [:]
        var due = from
        var failed = 0
        while due < to {
            var write = CanaryWrite(dueMicroseconds: absolute(due), tookMicroseconds: 1_900 + due / 20_000 % 7 * 90, outcome: .acknowledged, revision: 48_000 + due / 20_000)
            if let outage = outages.first(where: { due + 1_900 >= $0.from && due < $0.to }) {
                if failed < 3, outage.to - outage.from > 500_000 {
                    failed += 1
                    write = CanaryWrite(dueMicroseconds: absolute(due), tookMicroseconds: 900_000, outcome: .failed)
                } else {
                    write.tookMicroseconds = outage.to - due + 400
                    write.outcome = .retried
                }
            } else { failed = 0 }
            batch[(due + write.tookMicroseconds) / 100_000, default: []].append(write)
            due += 20_000
        }
        for (slot, writes) in batch.sorted(by: { $0.key < $1.key }) { add((slot + 1) * 100_000, .canary(writes.sorted { $0.dueMicroseconds < $1.dueMicroseconds })) }
    }

    // MARK: Stories

    /// `leader` hands over to `heir` in 18 ms.
    mutating func transfer(_ at: Int64, from leader: Int, to heir: Int, term: UInt64) {
        tell(at - 1_000, .transferRequested(from: "n\(leader)", to: "n\(heir)"))
        raft(at, leader, term, .transferStarted(to: Self.id(heir)))
        raft(at + 1_200, heir, term + 1, .roleChanged(.candidate))
        raft(at + 1_200, heir, term + 1, .voteAsked)
        for (index, node) in voters(besides: [heir]).enumerated() {
            raft(at + 6_000 + Int64(index) * 700, node, term + 1, .voteCast(for: Self.id(heir), isPreVote: false))
        }
        raft(at + 6_500, leader, term + 1, .roleChanged(.follower))
        won(at + 11_000, heir, term + 1, commit: 7_000)
    }

    /// The leader is killed; `heir`'s timer fires first.
    mutating func kill(_ at: Int64, leader: Int, heir: Int, term: UInt64, timer: Int64 = 1_040_000) {
        fault(at, .kill(Self.id(leader)))
        let since = moment(at)
        cluster(at + 30_000) { $0.members[leader - 1].health = .down(since: since, reason: "killed") }
        tell(at + 30_000, .memberDown(member: "n\(leader)", reason: "killed", byYou: true, wasLeader: true))
        let others = voters(besides: [leader, heir])
        for (index, node) in others.enumerated() { sample(at + 900_000, node, .follower, term, leader: 0, left: timer - 900_000 + [231_000, 388_000, 906_000][index % 3]) }
        let t = at + timer
        raft(t, heir, term, .electionTimeout(afterMicroseconds: timer))
        raft(t + 100, heir, term, .roleChanged(.preCandidate))
        raft(t + 1_000, heir, term + 1, .preVoteAsked)
        for (index, node) in others.enumerated() {
            raft(t + 25_000 + Int64(index) * 400, node, term + 1, .voteCast(for: Self.id(heir), isPreVote: true))
            raft(t + 26_000 + Int64(index) * 400, heir, term + 1, .voteReceived(from: Self.id(node), isGranted: true, isPreVote: true))
        }
        raft(t + 28_000, heir, term + 1, .roleChanged(.candidate))
        raft(t + 28_000, heir, term + 1, .voteAsked)
        for (index, node) in others.enumerated() { raft(t + 40_000 + Int64(index) * 3_000, node, term + 1, .voteCast(for: Self.id(heir), isPreVote: false)) }
        won(t + 43_000, heir, term + 1, commit: 9_000)
        tell(t + 60_000, .elected(leader: "n\(heir)", previous: "n\(leader)", fromTerm: term, term: term + 1, unavailableMilliseconds: (timer + 52_000) / 1_000, toleranceMilliseconds: nil))
    }

    mutating func restart(_ at: Int64, _ node: Int, term: UInt64) {
        heal(at, .kill(Self.id(node)))
        cluster(at + 10_000) { $0.members[node - 1].health = .up }
        raft(at + 20_000, node, term, .roleChanged(.follower))
    }

    /// The leader is alone on one side; two others campaign at the same time, and nobody wins the first round.
    mutating func partition(_ at: Int64, leader: Int, rivals: (Int, Int), term: UInt64) -> Fault {
        let rest = voters(besides: [leader])
        let fault = Fault.partition([[Self.id(leader)], rest.map(Self.id)])
        self.fault(at, fault)
        let (a, b) = rivals
        let others = rest.filter { $0 != a && $0 != b }
        raft(at + 1_010_000, a, term, .electionTimeout(afterMicroseconds: 1_110_000))
        raft(at + 1_010_000, a, term, .roleChanged(.preCandidate))
        raft(at + 1_010_500, a, term + 1, .preVoteAsked)
        raft(at + 1_012_000, b, term, .electionTimeout(afterMicroseconds: 1_112_000))
        raft(at + 1_012_000, b, term, .roleChanged(.preCandidate))
        raft(at + 1_012_500, b, term + 1, .preVoteAsked)
        raft(at + 1_014_000, a, term + 1, .roleChanged(.candidate))
        raft(at + 1_014_000, a, term + 1, .voteAsked)
        raft(at + 1_014_400, b, term + 1, .roleChanged(.candidate))
        raft(at + 1_014_400, b, term + 1, .voteAsked)
        raft(at + 1_016_000, others[0], term + 1, .voteCast(for: Self.id(a), isPreVote: false))
        if others.count > 1 { raft(at + 1_016_200, others[1], term + 1, .voteCast(for: Self.id(b), isPreVote: false)) }
        raft(at + 1_017_000, a, term + 1, .voteRefused(to: Self.id(b), isPreVote: false, reason: "already voted"))
        raft(at + 1_017_000, b, term + 1, .voteRefused(to: Self.id(a), isPreVote: false, reason: "already voted"))
        raft(at + 1_100_000, leader, term, .steppedDown(reason: "no quorum answers"))
        raft(at + 1_100_000, leader, term, .roleChanged(.follower))
        raft(at + 2_250_000, b, term + 1, .electionTimeout(afterMicroseconds: 1_235_000))
        raft(at + 2_250_500, b, term + 2, .preVoteAsked)
        raft(at + 2_253_000, b, term + 2, .voteAsked)
        for (index, node) in ([a] + others).enumerated() { raft(at + 2_256_000 + Int64(index) * 800, node, term + 2, .voteCast(for: Self.id(b), isPreVote: false)) }
        raft(at + 2_256_500, a, term + 2, .roleChanged(.follower))
        won(at + 2_259_000, b, term + 2, commit: 4_000, voters: [b] + [a] + others)
        return fault
    }

    private mutating func won(_ at: Int64, _ leader: Int, _ term: UInt64, commit: Int64, voters: [Int]? = nil) {
        raft(at, leader, term, .elected(votes: cluster.members.count / 2 + 1, voters: cluster.members.count))
        raft(at, leader, term, .roleChanged(.leader))
        for (index, node) in self.voters(besides: [leader]).enumerated() where voters?.contains(node) ?? true { raft(at + 900 + Int64(index) * 200, node, term, .leaderChanged(leader: Self.id(leader))) }
        raft(at + commit, leader, term, .firstCommit(index: 48_103))
        cluster(at + commit + 20_000) { state in
            for index in state.members.indices {
                if case .down = state.members[index].health { continue }
                state.members[index].role = index + 1 == leader ? .leader : .follower
                state.members[index].term = term
            }
        }
    }

    private func voters(besides: [Int]) -> [Int] {
        (1...cluster.members.count).filter { node in
            if besides.contains(node) { return false }
            if case .down = cluster.members[node - 1].health { return false }
            return true
        }
    }

    /// A minute with four elections: the first seen, a transfer, a kill, a partition with a split vote.
    static func minute(start: Moment) -> ElectionScript {
        var script = ElectionScript(start: start, leader: 4, term: 10)
        script.transfer(6_000_000, from: 4, to: 1, term: 10)
        script.kill(21_031_000, leader: 1, heir: 3, term: 11)
        script.restart(34_000_000, 1, term: 12)
        let fault = script.partition(44_090_000, leader: 3, rivals: (2, 5), term: 12)
        script.heal(52_000_000, fault)
        for second in 0..<60 { script.verdict(Int64(second) * 1_000_000 + 500_000, acknowledged: 47_000 + second * 50) }
        script.canary(0, 60_000_000, outages: [(6_000_000, 6_018_000), (21_031_000, 22_123_000), (44_090_000, 46_353_000)])
        script.cluster(59_900_000) { _ in }
        return script
    }

    var sorted: [(at: Int64, event: DataEvent)] {
        events.enumerated().sorted { $0.element.at != $1.element.at ? $0.element.at < $1.element.at : $0.offset < $1.offset }.map(\.element)
    }

    /// Tells a session everything, each thing at its time. The session begins with it.
    func play(to session: inout Session, until end: Int64 = .max) {
        session.model = Model(size: session.model.size, now: start, cluster: first, glyphs: session.model.glyphs)
        for (at, event) in sorted where at <= end {
            let due = moment(at)
            if due > session.model.now { session.advance(to: due) }
            session.tell(event)
        }
    }
}

extension Session {
    /// Time passes, at once.
    mutating func advance(to moment: Moment) {
        cluster.now = moment
        var queue = update(&model, .tick, at: moment)
        while !queue.isEmpty { for answer in cluster.carryOut(queue.removeFirst()) { queue += update(&model, .data(answer), at: model.now) } }
    }
}
