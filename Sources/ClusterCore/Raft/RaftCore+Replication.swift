import Base
import DequeModule

/// What only a leader has.
struct Leadership: Sendable {
    /// Everyone it replicates to, itself excepted; sorted by id.
    var peers: [Progress] = []
    /// The index of the empty entry that began the term.
    var termStart = LogIndex.zero
    var hasCommitted = false
    /// An acknowledgement came or the configuration changed since commit was computed.
    var commitMayAdvance = false
    var uncommittedBytes = 0
    var heartbeatDeadline = Instant.distantFuture
    /// When the quorum's silence is looked at next.
    var quorumDeadline = Instant.distantFuture
    var transfer: Transfer?
    /// Whose commands were taken in this term, and how far.
    var forwards: [ForwardStream] = []
    /// Local reads for which no round was started.
    var waitingReads: [ReadID] = []
    /// Reads of followers, likewise. A follower has one question open at a time; a newer one replaces it.
    var waitingForwards: [(from: MemberID, id: ReadID)] = []
    var rounds: Deque<OpenRound> = []
    var nextRound: UInt64 = 0
    /// When rounds were sent, oldest first, to time their answers: about one for each heartbeat interval.
    var timedRounds: Deque<(round: ReadRound, sentAt: Instant)> = []
    /// Enough for round trips of three seconds at etcd's default interval.
    static let maxTimedRounds = 32

    func indexOfPeer(_ id: MemberID) -> Int? { peers.firstIndex { $0.id == id } }
}

struct Transfer: Sendable {
    let target: MemberID
    let deadline: Instant
    /// `timeoutNow` was sent.
    var isAsked = false
}

extension RaftCore {
    // MARK: Proposals

    /// Nil if a leader may append these now.
    func refusalOfProposal(_ payloads: [[UInt8]]) -> RaftRefusal? {
        if lead.transfer != nil { return .transferring }
        let open = lead.uncommittedBytes + backlogBytes
        if open > 0 {
            var bytes = open
            for payload in payloads { bytes += payload.count + 40 }
            if bytes > options.maxUncommittedBytes { return .tooManyUncommitted }
        }
        return nil
    }

    mutating func onPropose(_ payloads: [[UInt8]], _ effects: inout [RaftEffect]) {
        guard !payloads.isEmpty else { return }
        if role == .leader {
            if let refusal = refusalOfProposal(payloads) {
                effects.append(.proposalRefused(payloads: payloads, refusal))
            } else {
                appendCommands(payloads)
            }
        } else if options.forwardsProposals && role == .follower && leader != .none {
            forward(payloads, &effects)
        } else {
            effects.append(.proposalRefused(payloads: payloads, .noLeader))
        }
    }

    mutating func appendCommands(_ payloads: [[UInt8]]) {
        for payload in payloads { appendEntry(.command, payload) }
    }

    mutating func appendEntry(_ kind: Entry.Kind, _ payload: [UInt8]) {
        let entry = Entry(index: log.last.index.next, term: term, kind: kind, proposedAt: wall, payload: payload)
        lead.uncommittedBytes += entry.cost
        log.append(entry)
    }

    // MARK: Leader: timers

    mutating func onLeaderTimer(_ now: Instant, _ effects: inout [RaftEffect]) {
        if options.checksQuorum && now >= lead.quorumDeadline {
            let contact = Quorum.reached(in: configuration) { member in
                member == id ? now : lead.indexOfPeer(member).map { lead.peers[$0].lastHeard } ?? .zero
            }
            if contact + options.electionTimeout <= now {
                return becomeFollower(term: term, leader: .none, .lostQuorum, now, &effects)
            }
            lead.quorumDeadline = contact + options.electionTimeout
        }
        if let transfer = lead.transfer, now >= transfer.deadline {
            lead.transfer = nil
            effects.append(.note(.transferAborted(to: transfer.target)))
        }
    }

    /// A round's heartbeat goes to voters; at each interval one goes to everyone, with the newest open round, so that a lost
    /// round is asked again, or with a number of its own where none is open, so that its answer can be timed.
    mutating func sendHeartbeats(newRound: ReadRound, _ now: Instant, _ effects: inout [RaftEffect]) {
        let isDue = now >= lead.heartbeatDeadline
        guard isDue || newRound != .none else { return }
        if isDue { lead.heartbeatDeadline = now + options.heartbeatInterval }
        var round = newRound != .none ? newRound : lead.rounds.last?.round ?? .none
        let isFirstSending = newRound != .none || round == .none
        if round == .none {
            lead.nextRound += 1
            round = ReadRound(lead.nextRound)
        }
        if isFirstSending { timeRound(round, now) }
        for i in lead.peers.indices {
            guard isDue || lead.peers[i].isVoter else { continue }
            if isDue { noteTick(ofPeerAt: i, now) }
            let peer = lead.peers[i]
            send(.heartbeat(commit: min(peer.match, commit), round: round), to: peer.id, &effects)
        }
        // If `timeoutNow` was lost: a target that is already campaigning ignores a repetition.
        if isDue, let transfer = lead.transfer, transfer.isAsked { send(.timeoutNow, to: transfer.target, &effects) }
    }

    /// Remembers when the round left, unless another left less than a heartbeat interval ago.
    private mutating func timeRound(_ round: ReadRound, _ now: Instant) {
        if let last = lead.timedRounds.last, now < last.sentAt + options.heartbeatInterval { return }
        if lead.timedRounds.count == Leadership.maxTimedRounds { lead.timedRounds.removeFirst() }
        lead.timedRounds.append((round, now))
    }

    private mutating func noteTick(ofPeerAt i: Int, _ now: Instant) {
        let peer = lead.peers[i]
        switch peer.phase {
        case .probe: if peer.isPaused { lead.peers[i].wantsRecheck = true }
        case .replicate: if peer.match < log.last.index && peer.match == peer.matchAtTick { lead.peers[i].wantsRecheck = true }
        case .snapshot:
            // Installing takes a while; but a follower that crashed in it never answers.
            if let sent = peer.snapshotSentAt, now >= sent + options.electionTimeout * 10 {
                lead.peers[i].becomeProbe(next: log.firstIndex)
                lead.peers[i].isPaused = true
                lead.peers[i].wantsRecheck = true
            }
        }
        lead.peers[i].matchAtTick = peer.match
    }

    // MARK: Leader: sending

    mutating func sendAppends(_ now: Instant, _ effects: inout [RaftEffect]) {
        for i in lead.peers.indices {
            let mustSend = lead.peers[i].mustSend
            switch lead.peers[i].phase {
            case .snapshot: break
            case .probe:
                if !lead.peers[i].isPaused && sendAppend(toPeerAt: i, maxBytes: options.maxAppendBytes, &effects) {
                    lead.peers[i].isPaused = true
                }
            case .replicate:
                var didSend = false
                while lead.peers[i].next <= log.last.index, lead.peers[i].inflight.count < options.maxInflightMessages,
                      lead.peers[i].inflight.bytes < options.maxInflightBytes {
                    let room = min(options.maxAppendBytes, options.maxInflightBytes - lead.peers[i].inflight.bytes)
                    guard sendAppend(toPeerAt: i, maxBytes: room, &effects) else { break }
                    didSend = true
                }
                if !didSend && lead.peers[i].phase == .replicate && (mustSend || lead.peers[i].toldCommit < commit) {
                    sendAppend(toPeerAt: i, maxBytes: 0, &effects)
                }
            }
            lead.peers[i].mustSend = false
        }
    }

    /// One append from `next`; without entries if `maxBytes` is zero or there are none. False if the peer needs a snapshot.
    @discardableResult
    private mutating func sendAppend(toPeerAt i: Int, maxBytes: Int, _ effects: inout [RaftEffect]) -> Bool {
        let from = lead.peers[i].next
        guard let previousTerm = log.term(at: from.previous) else {
            lead.peers[i].becomeSnapshot()
            effects.append(.note(.snapshotNeeded(by: lead.peers[i].id)))
            effects.append(.sendSnapshot(to: lead.peers[i].id))
            return false
        }
        var entries: [Entry] = []
        if maxBytes > 0 && from <= log.last.index {
            let (through, bytes) = log.extent(from: from, through: log.last.index, maxBytes: maxBytes)
            entries = slice(from: from, through: through)
            if lead.peers[i].phase == .replicate {
                lead.peers[i].next = through.next
                lead.peers[i].inflight.add(last: through, bytes: bytes)
            }
        }
        lead.peers[i].toldCommit = commit
        send(.append(previous: LogPosition(index: from.previous, term: previousTerm), entries: entries, commit: commit),
             to: lead.peers[i].id, &effects)
        return true
    }

    // MARK: Leader: answers

    mutating func onAppendAccepted(_ match: LogIndex, from peer: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) {
        guard role == .leader, let i = lead.indexOfPeer(peer) else { return }
        guard match <= log.last.index else {
            effects.append(.note(.messageRefused(from: peer, .impossibleMatch)))
            return
        }
        lead.peers[i].lastHeard = now
        let isNews = match > lead.peers[i].match
        if isNews {
            lead.peers[i].match = match
            lead.peers[i].next = max(lead.peers[i].next, match.next)
            lead.commitMayAdvance = true
        }
        switch lead.peers[i].phase {
        case .probe: if isNews || match == lead.peers[i].match { lead.peers[i].becomeReplicate() }
        case .replicate: lead.peers[i].inflight.free(through: match)
        // An append overtook the snapshot, or the follower had it all the time.
        case .snapshot: if lead.peers[i].match >= log.start.index { lead.peers[i].becomeReplicate() }
        }
        continueTransfer(peerAt: i, &effects)
    }

    mutating func onAppendRejected(_ rejected: LogIndex, hint: LogPosition, from peer: MemberID, _ now: Instant) {
        guard role == .leader, let i = lead.indexOfPeer(peer) else { return }
        lead.peers[i].lastHeard = now
        let progress = lead.peers[i]
        switch progress.phase {
        case .snapshot: return
        case .replicate:
            // Late news of something accepted since.
            guard rejected > progress.match else { return }
        case .probe:
            guard rejected == progress.next.previous else { return }
        }
        let agreed = log.lastIndex(withTermAtMost: hint.term, upTo: hint.index)
        lead.peers[i].becomeProbe(next: min(agreed.next, rejected))
    }

    mutating func onHeartbeatReply(_ round: ReadRound, from peer: MemberID, _ now: Instant) {
        guard role == .leader, let i = lead.indexOfPeer(peer) else { return }
        lead.peers[i].lastHeard = now
        if let timed = lead.timedRounds.last(where: { $0.round <= round }), timed.round == round { lead.peers[i].roundTrip = now - timed.sentAt }
        if round > lead.peers[i].ackedRound && round.rawValue <= lead.nextRound { lead.peers[i].ackedRound = round }
        if lead.peers[i].wantsRecheck {
            lead.peers[i].wantsRecheck = false
            lead.peers[i].isPaused = false
            lead.peers[i].mustSend = true
        }
    }

    /// Commit what a quorum holds durably, this member's own disk included, if it is of this term. (Raft §5.4.2)
    mutating func advanceCommit(_ now: Instant, _ effects: inout [RaftEffect]) {
        guard lead.commitMayAdvance else { return }
        lead.commitMayAdvance = false
        let agreed = Quorum.reached(in: configuration) { member in
            member == id ? (planted(.countsOwnEntriesBeforeSync) ? log.last.index : durable) : lead.indexOfPeer(member).map { lead.peers[$0].match } ?? .zero
        }
        guard agreed > commit, log.term(at: agreed) == term || planted(.commitsEarlierTermsByCounting) else { return }
        let hadChangeOpen = configurations.count > 1
        advanceCommit(to: agreed, &effects)
        if !lead.hasCommitted {
            lead.hasCommitted = true
            effects.append(.note(.firstCommit(term: term, index: lead.termStart)))
        }
        if (hadChangeOpen && configurations.count == 1) || configuration.isJoint || !configuration.isVoter(id) {
            onConfigurationSettled(now, &effects)
        }
    }

    // MARK: Follower

    mutating func onAppend(previous: LogPosition, entries: [Entry], commit leaderCommit: LogIndex, _ now: Instant,
                           _ effects: inout [RaftEffect]) {
        guard areConsecutive(entries, behind: previous) else {
            effects.append(.note(.messageRefused(from: leader, .malformedEntries)))
            return
        }
        // What is committed here agrees with every leader's log; of that part there is nothing to learn. (Raft §5.4)
        if previous.index < commit {
            if let term = log.term(at: previous.index), term != previous.term {
                return refuseConflict(&effects)
            }
        } else if !log.holds(previous), !(planted(.skipsPreviousEntryCheck) && previous.index <= log.last.index) {
            let agreed = max(log.lastIndex(withTermAtMost: previous.term, upTo: min(previous.index, log.last.index)), commit)
            send(.appendRejected(rejected: previous.index, hint: LogPosition(index: agreed, term: log.term(at: agreed) ?? .zero)),
                 to: leader, &effects)
            return
        }
        var isNew = false
        for entry in entries {
            if !isNew {
                if entry.index <= log.last.index {
                    guard entry.index > log.start.index, log.term(at: entry.index) != entry.term else { continue }
                    guard entry.index > commit else { return refuseConflict(&effects) }
                    truncateLog(from: entry.index, &effects)
                }
                isNew = true
            }
            log.append(entry)
            noteConfiguration(of: entry, &effects)
        }
        let match = max(entries.last?.index ?? previous.index, previous.index < commit ? commit : .zero)
        advanceCommit(to: min(leaderCommit, match), &effects)
        if planted(.acknowledgesBeforeSync) { send(.appendAccepted(match: match), to: leader, &effects) } else { hold(.accept(match: match, term: term, to: leader)) }
    }

    private func areConsecutive(_ entries: [Entry], behind previous: LogPosition) -> Bool {
        var last = previous
        for entry in entries {
            guard entry.index == last.index.next, entry.term >= last.term, entry.term <= term else { return false }
            last = LogPosition(index: entry.index, term: entry.term)
        }
        return true
    }

    /// Cannot happen among correct members with intact disks; overwriting would make it worse.
    private func refuseConflict(_ effects: inout [RaftEffect]) {
        effects.append(.note(.messageRefused(from: leader, .conflictBelowCommit)))
    }
}
