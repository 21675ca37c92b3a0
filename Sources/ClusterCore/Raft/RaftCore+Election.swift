import Base

extension RaftCore {
    /// Whether this member counts in elections: learners and removed members never campaign. One whose removal is not committed yet does:
    /// it may be the only one with the newest log among those whose votes the others need. (Raft thesis §4.2.2; seed 1547)
    var mayCampaign: Bool { configurations.contains { $0.configuration.isVoter(id) } }

    mutating func redrawElectionSpan() {
        let base = options.electionTimeout.nanoseconds
        electionSpan = TimeSpan(nanoseconds: Int64.random(in: base..<base * 2, using: &generator))
    }

    /// A leader was heard within the election timeout, so an election would only disturb. With pre-vote this keeps members
    /// that are cut off on one side from deposing a working leader.
    func leaderIsFresh(at now: Instant) -> Bool {
        guard options.checksQuorum else { return false }
        if role == .leader { return true }
        return leader != .none && leader != goneLeader && now < lastLeaderContact + options.electionTimeout
    }

    // MARK: Timeouts

    mutating func onElectionTimeout(_ now: Instant, _ effects: inout [RaftEffect]) {
        if now >= electionDeadline + options.electionTimeout && !wasRearmedAfterPause {
            // Far too late: this process stood still. The leader's messages may wait in a socket buffer; let them be read first.
            // Only once, so that a machine that is always late still elects.
            wasRearmedAfterPause = true
            quick = nil
            redrawElectionSpan()
            electionDeadline = now + electionSpan
            return
        }
        if diskIsStuck {
            // Nobody can be elected whose own vote never becomes durable: looks again when the disk may have recovered.
            electionDeadline = now + options.heartbeatInterval
            return
        }
        if quick != nil {
            if role == .candidate, !votes.contains(where: { $0.id == id }) {
                // Its own vote is still on its way to the disk; another term would only bring the same.
                electionDeadline = now + quickSpread
                return
            }
        } else {
            effects.append(.note(.electionTimeout(after: electionSpan)))
        }
        startCampaign(isTransfer: false, now, &effects)
    }

    mutating func onPeerUnreachable(_ peer: MemberID) {
        guard role == .leader, let i = lead.indexOfPeer(peer) else { return }
        switch lead.peers[i].phase {
        case .replicate: lead.peers[i].becomeProbe(next: lead.peers[i].match.next)
        case .probe: break
        case .snapshot:
            // The stream has its own connection and its own end; but after its end the reply may be what was lost.
            guard lead.peers[i].snapshotSentAt != nil else { return }
            lead.peers[i].becomeProbe(next: log.firstIndex)
        }
        // Nothing until it answers a heartbeat.
        lead.peers[i].isPaused = true
        lead.peers[i].wantsRecheck = true
    }

    // MARK: Campaign

    mutating func startCampaign(isTransfer: Bool, _ now: Instant, _ effects: inout [RaftEffect]) {
        redrawElectionSpan()
        electionDeadline = now + electionSpan
        if isTransfer { quick = nil } else { countQuickAttempt(now) }
        if options.preVotes && !isTransfer {
            become(.preCandidate, &effects)
            changeLeader(to: .none, &effects)
            votes = refusalOfGoneLeader
            effects.append(.note(.preVoteAsked(term: term.next)))
            recordVote(from: id, granted: true, now, &effects)
            guard role == .preCandidate else { return }
            for voter in allVoters() where voter != id {
                effects.append(.send(Message(from: id, to: voter, term: term.next,
                                             body: .requestVote(last: log.last, isPreVote: true, isTransfer: false))))
            }
        } else {
            becomeCandidate(isTransfer: isTransfer, now, &effects)
        }
    }

    private mutating func becomeCandidate(isTransfer: Bool, _ now: Instant, _ effects: inout [RaftEffect]) {
        hardState = HardState(term: term.next, vote: id)
        become(.candidate, &effects)
        changeLeader(to: .none, &effects)
        votes = refusalOfGoneLeader
        if quick != nil { electionDeadline = now + quickDelay(from: 4, to: 8) }
        effects.append(.note(.voteAsked(term: term)))
        effects.append(.note(.voteCast(for: id, term: term, isPreVote: false)))
        hold(.ownVote(term: term))
        // The others write their votes while this member writes its own: asking promises nothing by itself, since without its own vote on
        // disk nobody is elected. But the log it names must be on disk. Else a crash could lose both, and a late vote for the longer log would
        // count for the same term's next candidacy with a shorter one.
        let isLogDurable = durable == log.last.index && pendingReset == nil
        for voter in allVoters() where voter != id {
            let question = Message(from: id, to: voter, term: term, body: .requestVote(last: log.last, isPreVote: false, isTransfer: isTransfer))
            if isLogDurable { effects.append(.send(question)) } else { hold(.message(question)) }
        }
    }

    private func allVoters() -> [MemberID] {
        let configuration = configuration
        guard configuration.isJoint else { return configuration.voters }
        var all = configuration.voters
        for voter in configuration.outgoingVoters where !all.contains(voter) { all.append(voter) }
        return all.sorted()
    }

    // MARK: Votes

    mutating func onRequestVote(_ message: Message, last: LogPosition, isPreVote: Bool, isTransfer: Bool, _ now: Instant,
                                _ effects: inout [RaftEffect]) {
        let candidate = message.from
        if message.term < term || (isPreVote && message.term == term) {
            return refuseVote(candidate, message.term, isPreVote, .staleTerm, &effects)
        }
        if message.term > term && !isTransfer && leaderIsFresh(at: now) {
            // The term is not taken over either: it would depose the leader all the same.
            return refuseVote(candidate, message.term, isPreVote, .leaderIsFresh, &effects)
        }
        if !isPreVote && message.term > term {
            becomeFollower(term: message.term, leader: .none, .higherTerm, now, &effects)
        }
        if !isPreVote {
            let isFree = planted(.votesTwice) || hardState.vote == candidate || (hardState.vote == .none && leader == .none)
            guard isFree else { return refuseVote(candidate, message.term, isPreVote, .alreadyVoted, &effects) }
        }
        guard planted(.votesForShorterLogs) || last.term > log.last.term || (last.term == log.last.term && last.index >= log.last.index) else {
            return refuseVote(candidate, message.term, isPreVote, .logBehind, &effects)
        }
        effects.append(.note(.voteCast(for: candidate, term: message.term, isPreVote: isPreVote)))
        let reply = Message(from: id, to: candidate, term: message.term, body: .voteReply(granted: true, isPreVote: isPreVote, refusal: nil))
        if isPreVote {
            effects.append(.send(reply))
            // It was first; it gets the time for its election.
            if let quick, role == .follower { electionDeadline = max(electionDeadline, min(now + quickSpread, quick.ordinaryDeadline)) }
        } else {
            hardState.vote = candidate
            quick = nil
            electionDeadline = now + electionSpan
            if planted(.votesBeforeSync) { effects.append(.send(reply)) } else { hold(.message(reply)) }
        }
    }

    /// The reply carries this member's own term, so that a candidate of an old one learns of it.
    private func refuseVote(_ candidate: MemberID, _ asked: Term, _ isPreVote: Bool, _ reason: VoteRefusal, _ effects: inout [RaftEffect]) {
        effects.append(.note(.voteRefused(to: candidate, term: asked, isPreVote: isPreVote, reason)))
        send(.voteReply(granted: false, isPreVote: isPreVote, refusal: reason), to: candidate, &effects)
    }

    mutating func onVoteReply(_ message: Message, granted: Bool, isPreVote: Bool, refusal: VoteRefusal?, _ now: Instant,
                              _ effects: inout [RaftEffect]) {
        if granted {
            // Only an answer to the present question counts.
            let asked = isPreVote ? term.next : term
            guard message.term == asked, role == (isPreVote ? .preCandidate : .candidate) else { return }
        } else {
            if message.term > term { return becomeFollower(term: message.term, leader: .none, .higherTerm, now, &effects) }
            guard role == (isPreVote ? .preCandidate : .candidate) else { return }
        }
        effects.append(.note(.voteReceived(from: message.from, granted: granted, isPreVote: isPreVote, term: isPreVote ? term.next : term)))
        recordVote(from: message.from, granted: granted, now, &effects)
    }

    /// A grant counts once and for good; a refusal may be a late one from an earlier question and yields to a grant. The
    /// member's own vote arrives through the disk, and without it nobody leads: after a crash it could win the same term again.
    mutating func recordVote(from voter: MemberID, granted: Bool, _ now: Instant, _ effects: inout [RaftEffect]) {
        if let i = votes.firstIndex(where: { $0.id == voter }) {
            guard granted && !votes[i].granted else { return }
            votes[i].granted = true
        } else {
            votes.append((voter, granted))
        }
        let votes = votes
        switch Quorum.result(in: configuration, vote: { id in votes.first { $0.id == id }?.granted }) {
        case .pending: break
        case .won:
            if role == .preCandidate {
                becomeCandidate(isTransfer: false, now, &effects)
            } else if votes.contains(where: { $0.id == id }) {
                becomeLeader(now, &effects)
            }
        case .lost:
            // Nothing to wait for before the next timeout.
            become(.follower, &effects)
            if quick != nil { electionDeadline = min(electionDeadline, now + quickDelay(from: 1, to: 3)) }
        }
    }

    // MARK: Roles

    private mutating func become(_ newRole: Role, _ effects: inout [RaftEffect]) {
        guard role != newRole || newRole == .candidate else { return }
        role = newRole
        if newRole == .follower || newRole == .leader { votes = [] }
        effects.append(.note(.roleChanged(newRole, term: term, leader: newRole == .leader ? id : leader)))
    }

    private mutating func changeLeader(to newLeader: MemberID, _ effects: inout [RaftEffect]) {
        guard leader != newLeader else { return }
        refuseForwardedReads(&effects)
        leader = newLeader
        if newLeader != .none { goneLeader = .none }
        effects.append(.note(.leaderChanged(to: newLeader, term: term)))
    }

    /// Steps back, to a new term or within this one. A new term forgets the vote; a role above follower gets a new deadline. A
    /// follower keeps its deadline: a higher term alone is no sign of a leader.
    mutating func becomeFollower(term newTerm: Term, leader newLeader: MemberID, _ reason: StepDownReason, _ now: Instant,
                                 _ effects: inout [RaftEffect]) {
        precondition(newTerm >= term, "term goes back from \(term.rawValue) to \(newTerm.rawValue)")
        let oldRole = role
        if oldRole == .leader {
            effects.append(.note(.steppedDown(term: term, reason: reason)))
            releaseLeadership(&effects)
        }
        if newTerm > term { hardState = HardState(term: newTerm, vote: .none) }
        if oldRole != .follower {
            redrawElectionSpan()
            electionDeadline = now + (quick == nil ? electionSpan : quickDelay(from: 1, to: 3))
        }
        // The leader first, so that the note of the new role names it.
        changeLeader(to: newLeader, &effects)
        become(.follower, &effects)
    }

    /// A message that only the leader of this term sends has come. False if it cannot be.
    mutating func acceptLeader(_ sender: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) -> Bool {
        guard role != .leader, leader == .none || leader == sender else {
            effects.append(.note(.messageRefused(from: sender, .impossibleTerm)))
            return false
        }
        if role != .follower {
            becomeFollower(term: term, leader: sender, .higherTerm, now, &effects)
        } else {
            changeLeader(to: sender, &effects)
        }
        lastLeaderContact = now
        electionDeadline = now + electionSpan
        wasRearmedAfterPause = false
        quick = nil
        return true
    }

    private mutating func becomeLeader(_ now: Instant, _ effects: inout [RaftEffect]) {
        let granted = votes.reduce(0) { $0 + ($1.granted ? 1 : 0) }
        effects.append(.note(.elected(term: term, votes: granted, voters: allVoters().count)))
        quick = nil
        lead = Leadership()
        lead.nextRound = follow.lastRound
        lead.termStart = log.last.index.next
        lead.uncommittedBytes = log.cost(from: commit.next, through: log.last.index)
        lead.heartbeatDeadline = now
        lead.quorumDeadline = now + options.electionTimeout
        changeLeader(to: id, &effects)
        become(.leader, &effects)
        rebuildPeers(now, &effects)
        appendFoundingConfiguration(now, &effects)
        appendEntry(.empty, [])
        // Commands were given in an earlier term; their origin gives them again. Reads have found a leader.
        refuseForwards(.leaderChanged, &effects)
        lead.waitingReads = follow.waiting.map(\.id)
        follow.waiting.removeAll()
    }

    private mutating func releaseLeadership(_ effects: inout [RaftEffect]) {
        refuseReadsOfLeader(&effects)
        if let transfer = lead.transfer, !transfer.isAsked { effects.append(.note(.transferAborted(to: transfer.target))) }
        follow.lastRound = lead.nextRound
        lead = Leadership()
    }
}
