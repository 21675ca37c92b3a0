import Base
import Raft
import Replica
import Wire

/// An ObserveResponse. Made at most some times a second for each observer, so the generated code is good enough.
enum ObserverMessage {
    static func encode(member: MemberID, life: UInt64, missed: UInt64, notes: [ObservedNote], picture: ObservedPicture?) -> [UInt8] {
        var response = PBObserveResponse()
        response.memberID = member.rawValue
        response.life = life
        response.missed = missed
        response.events = notes.map(event)
        if let picture { response.state = state(picture) }
        return response.encoded()
    }

    private static func event(_ note: ObservedNote) -> PBObservedEvent {
        var event = PBObservedEvent()
        event.sequence = note.sequence
        event.monotonicNanoseconds = note.at.nanoseconds
        event.wallMicroseconds = note.wallMicroseconds
        event.term = note.term.rawValue
        event.kind = kind(note)
        return event
    }

    private static func kind(_ note: ObservedNote) -> PBObservedEvent.OneOf_Kind? {
        switch note.note {
        case .raft(let raft): kind(raft, isLearner: note.isLearner)
        case .membershipChanged: .membershipChanged(note.text)
        case .snapshotInstalled(let position): .snapshotInstalled(position.index.rawValue)
        case .snapshotSent(let peer, let succeeded): .snapshotSent(snapshot(peer, succeeded ? .complete : .failed))
        case .peerLost(let peer): .peerLost(peer.rawValue)
        case .peerFound(let peer): .peerFound(peer.rawValue)
        case .alarmsChanged, .compacted, .leaseExpired, .cannotApply, .diverged, .statesDiffer: nil
        }
    }

    private static func kind(_ note: RaftNote, isLearner: Bool) -> PBObservedEvent.OneOf_Kind? {
        switch note {
        case .roleChanged(let role, _, _): .roleChanged(self.role(role, isLearner: isLearner))
        case .leaderChanged(let leader, _): .leaderChanged(leader.rawValue)
        case .electionTimeout(let after): .electionTimeout(after.nanoseconds / 1_000)
        case .leaderConnectionLost(let leader, _): .leaderConnectionLost(leader.rawValue)
        case .preVoteAsked: .preVoteAsked(true)
        case .voteAsked: .voteAsked(true)
        case .voteCast(let candidate, _, let isPreVote): .voteCast(vote(candidate, isPreVote: isPreVote, isGranted: true))
        case .voteRefused(let candidate, _, let isPreVote, let reason):
            .voteRefused(vote(candidate, isPreVote: isPreVote, isGranted: false, reason: text(reason)))
        case .voteReceived(let voter, let granted, let isPreVote, _): .voteReceived(vote(voter, isPreVote: isPreVote, isGranted: granted))
        case .elected(_, let votes, let voters):
            .elected(.with {
                $0.votes = UInt32(votes)
                $0.voters = UInt32(voters)
            })
        case .steppedDown(_, let reason): .steppedDown(text(reason))
        case .firstCommit(_, let index): .firstCommit(index.rawValue)
        case .transferStarted(let heir): .transferStarted(heir.rawValue)
        case .transferAborted(let heir): .transferAborted(heir.rawValue)
        case .diskStuck(let after): .diskStuck(after.nanoseconds / 1_000)
        case .diskRecovered(let after): .diskRecovered(after.nanoseconds / 1_000)
        case .snapshotNeeded(let peer): .snapshotSent(snapshot(peer, .started))
        case .configurationChanged, .messageRefused: nil
        }
    }

    private static func vote(_ member: MemberID, isPreVote: Bool, isGranted: Bool, reason: String = "") -> PBObservedEvent.Vote {
        .with {
            $0.member = member.rawValue
            $0.preVote = isPreVote
            $0.granted = isGranted
            $0.reason = reason
        }
    }

    private static func snapshot(_ member: MemberID, _ phase: PBObservedEvent.Snapshot.Phase) -> PBObservedEvent.Snapshot {
        .with {
            $0.member = member.rawValue
            $0.phase = phase
        }
    }

    private static func role(_ role: Role, isLearner: Bool) -> PBObservedRole {
        switch role {
        case .follower: isLearner ? .learner : .follower
        case .preCandidate: .preCandidate
        case .candidate: .candidate
        case .leader: .leader
        }
    }

    private static func text(_ refusal: VoteRefusal) -> String {
        switch refusal {
        case .staleTerm: "term is old"
        case .alreadyVoted: "already voted"
        case .logBehind: "log behind"
        case .leaderIsFresh: "leader is fresh"
        case .notVoter: "not a voter"
        }
    }

    private static func text(_ reason: StepDownReason) -> String {
        switch reason {
        case .higherTerm: "a higher term"
        case .lostQuorum: "no contact with a quorum"
        case .removed: "removed from the cluster"
        }
    }

    private static func state(_ picture: ObservedPicture) -> PBObservedState {
        let status = picture.status, raft = status.raft
        var state = PBObservedState()
        state.monotonicNanoseconds = picture.at.nanoseconds
        state.wallMicroseconds = picture.wallMicroseconds
        state.role = role(raft.role, isLearner: status.isLearner)
        state.term = raft.hardState.term.rawValue
        state.vote = raft.hardState.vote.rawValue
        state.leader = raft.leader.rawValue
        state.commit = raft.commit.rawValue
        state.applied = status.applied.rawValue
        state.last = raft.last.index.rawValue
        state.durable = raft.durable.rawValue
        if raft.electionDeadline != .distantFuture {
            state.timerLeftMicroseconds = max(0, (raft.electionDeadline - picture.at).nanoseconds / 1_000)
            state.timerLengthMicroseconds = raft.electionSpan.nanoseconds / 1_000
        }
        state.uncommittedBytes = UInt64(max(0, raft.uncommittedBytes))
        state.unappliedEntries = UInt64(max(0, status.applied.distance(to: raft.commit)))
        state.diskQueue = UInt64(raft.openWrites)
        state.pendingRequests = UInt64(status.pendingRequests)
        state.peers = raft.peers.map(peer)
        state.stages = Stage.allCases.compactMap { stage($0, picture.stages[$0]) }
        return state
    }

    private static func peer(_ peer: PeerStatus) -> PBObservedPeer {
        .with {
            $0.memberID = peer.id.rawValue
            $0.phase = switch peer.phase {
            case .probe: .probe
            case .replicate: .replicate
            case .snapshot: .snapshot
            }
            $0.match = peer.match.rawValue
            $0.next = peer.next.rawValue
            $0.inFlightMessages = UInt64(peer.inflightMessages)
            $0.inFlightBytes = UInt64(peer.inflightBytes)
            $0.active = peer.isRecentlyActive
            // 0 means none, and a loopback may well answer within a microsecond's rounding.
            if let span = peer.roundTrip { $0.roundTripMicroseconds = max(1, span.nanoseconds / 1_000) }
        }
    }

    private static func stage(_ stage: Stage, _ histogram: StageHistogram) -> PBObservedStage? {
        guard !histogram.isEmpty else { return nil }
        var message = PBObservedStage()
        message.stage = PBObservedStage.Stage(rawValue: stage.rawValue) ?? .queue
        for (bucket, count) in histogram.counts.enumerated() where count > 0 {
            message.buckets.append(UInt32(bucket))
            message.counts.append(count)
        }
        message.sumMicroseconds = histogram.sumMicroseconds
        return message
    }
}
