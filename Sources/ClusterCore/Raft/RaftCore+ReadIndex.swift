import Base
import DequeModule

/// A round of heartbeats that confirms leadership for the reads that waited when it started. (Raft §6.4)
struct OpenRound: Sendable {
    let round: ReadRound
    /// The commit index when the round started.
    let index: LogIndex
    var local: [ReadID]
    var forwarded: [(from: MemberID, id: ReadID)]
}

/// What a member that does not lead has under way to the leader.
struct Following: Sendable {
    /// Reads not asked for yet, oldest first.
    var waiting: Deque<WaitingRead> = []
    var question: Question?
    /// The id of the next question. Starts at random: see `RaftCore.init`.
    var nextForwardID: UInt64 = 0
    var commands = Forwarding()
    /// The newest read round this process ever started: numbers are never used again.
    var lastRound: UInt64 = 0

    struct WaitingRead: Sendable {
        let id: ReadID
        let arrival: Instant
    }
    /// One message that asks the leader for the read index of many reads.
    struct Question: Sendable {
        let id: ReadID
        let reads: [WaitingRead]
        /// When it is asked again, under a new id.
        var retryAt: Instant
    }
}

// A read is confirmed only by a round that started after the read arrived: an answer to an earlier round may have been sent
// before a newer leader committed something the read must see. (etcd #20418)
extension RaftCore {
    mutating func onRead(_ read: ReadID, _ now: Instant) {
        if role == .leader {
            lead.waitingReads.append(read)
        } else {
            follow.waiting.append(Following.WaitingRead(id: read, arrival: now))
        }
    }

    // MARK: Leader

    /// Starts a round for everything that waits. `.none` if nothing does, too many rounds are open, or this term has no commit
    /// yet: the true commit index is not known before.
    mutating func startReadRound(_ effects: inout [RaftEffect]) -> ReadRound {
        guard lead.hasCommitted || planted(.readsBeforeFirstCommit), !(lead.waitingReads.isEmpty && lead.waitingForwards.isEmpty),
              lead.rounds.count < options.maxReadRounds else { return .none }
        if !planted(.reusesReadRound) || lead.nextRound == 0 { lead.nextRound += 1 }
        let round = OpenRound(round: ReadRound(lead.nextRound), index: commit, local: lead.waitingReads, forwarded: lead.waitingForwards)
        lead.waitingReads = []
        lead.waitingForwards = []
        if configuration.voters == [id] && !configuration.isJoint || planted(.readsWithoutRound) {
            answer(round, &effects)
            return .none
        }
        lead.rounds.append(round)
        return round.round
    }

    /// Answers the rounds that a quorum has confirmed.
    mutating func confirmReads(_ effects: inout [RaftEffect]) {
        guard !lead.rounds.isEmpty else { return }
        let newest = ReadRound(lead.nextRound)
        let confirmed = Quorum.reached(in: configuration) { member in
            member == id ? newest : lead.indexOfPeer(member).map { lead.peers[$0].ackedRound } ?? .none
        }
        while let round = lead.rounds.first, round.round <= confirmed {
            lead.rounds.removeFirst()
            answer(round, &effects)
        }
    }

    private func answer(_ round: OpenRound, _ effects: inout [RaftEffect]) {
        for read in round.local { effects.append(.readReady(read, index: round.index)) }
        for read in round.forwarded { send(.readIndexReply(id: read.id, index: round.index), to: read.from, &effects) }
    }

    /// Closes all rounds; their reads wait for a new one.
    mutating func requeueReads() {
        guard !lead.rounds.isEmpty else { return }
        var local: [ReadID] = []
        var forwarded: [(from: MemberID, id: ReadID)] = []
        for round in lead.rounds {
            local += round.local
            forwarded += round.forwarded
        }
        lead.rounds.removeAll()
        lead.waitingReads = local + lead.waitingReads
        for read in lead.waitingForwards {
            forwarded.removeAll { $0.from == read.from }
            forwarded.append(read)
        }
        lead.waitingForwards = forwarded
    }

    mutating func refuseReadsOfLeader(_ effects: inout [RaftEffect]) {
        requeueReads()
        for read in lead.waitingReads { effects.append(.readRefused(read, .leaderChanged)) }
        for read in lead.waitingForwards { send(.readIndexRefused(id: read.id), to: read.from, &effects) }
        lead.waitingReads = []
        lead.waitingForwards = []
    }

    mutating func onRequestReadIndex(_ read: ReadID, from peer: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) {
        guard role == .leader else { return send(.readIndexRefused(id: read), to: peer, &effects) }
        if let i = lead.indexOfPeer(peer) { lead.peers[i].lastHeard = now }
        lead.waitingForwards.removeAll { $0.from == peer }
        lead.waitingForwards.append((peer, read))
    }

    // MARK: Follower

    /// Sends what waited for this flush: one message of commands, one question for all reads.
    mutating func sendForwarded(_ now: Instant, _ effects: inout [RaftEffect]) {
        guard leader != .none else {
            refuseForwards(.noLeader, &effects)
            return
        }
        sendCommands(now, &effects)
        guard follow.question == nil, !follow.waiting.isEmpty else { return }
        follow.nextForwardID &+= 1
        let question = Following.Question(id: ReadID(follow.nextForwardID), reads: Array(follow.waiting),
                                          retryAt: now + options.electionTimeout / 2)
        follow.waiting.removeAll(keepingCapacity: true)
        follow.question = question
        send(.requestReadIndex(id: question.id), to: leader, &effects)
    }

    mutating func onReadIndexReply(_ read: ReadID, index: LogIndex, from peer: MemberID, _ effects: inout [RaftEffect]) {
        guard role == .follower, peer == leader, let question = follow.question, question.id == read else { return }
        follow.question = nil
        for read in question.reads { effects.append(.readReady(read.id, index: index)) }
    }

    mutating func onReadIndexRefused(_ read: ReadID, from peer: MemberID, _ now: Instant) {
        guard peer == leader, let question = follow.question, question.id == read else { return }
        follow.question?.retryAt = min(question.retryAt, now + options.heartbeatInterval)
    }

    /// The leader is another now: what was asked of the old one is answered by nobody.
    mutating func refuseForwardedReads(_ effects: inout [RaftEffect]) {
        guard let question = follow.question else { return }
        follow.question = nil
        for read in question.reads { effects.append(.readRefused(read.id, .leaderChanged)) }
    }

    /// Without a leader a read waits for one election timeout, with a silent one for four.
    private var patience: TimeSpan { leader == .none ? options.electionTimeout : options.electionTimeout * 4 }

    var readDeadline: Instant {
        var deadline = follow.question?.retryAt ?? .distantFuture
        if let oldest = follow.waiting.first { deadline = min(deadline, oldest.arrival + patience) }
        return deadline
    }

    mutating func expireReads(_ now: Instant, _ effects: inout [RaftEffect]) {
        if let question = follow.question, now >= question.retryAt {
            // Its reads go first; the flush asks again.
            follow.question = nil
            for read in question.reads.reversed() { follow.waiting.prepend(read) }
        }
        let patience = patience
        while let oldest = follow.waiting.first, oldest.arrival + patience <= now {
            follow.waiting.removeFirst()
            effects.append(.readRefused(oldest.id, .noLeader))
        }
    }
}
