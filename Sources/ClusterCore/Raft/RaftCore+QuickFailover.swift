import Base

/// The attempts to replace a leader whose process is gone before the ordinary timer would.
///
/// Several, because a voter that has not noticed yet refuses and because two may ask at the same moment; bounded, so that a member that is
/// wrong about the leader soon waits like everyone else.
struct QuickElection: Sendable {
    static let attempts = 8
    var attemptsLeft = attempts
    /// When the timer would have fired without all this: after the last attempt it decides, as before.
    let ordinaryDeadline: Instant
}

// Safety rests on nothing here: a hint only moves the deadline at which this member asks, and lets it grant a vote that it would have refused
// because the leader was fresh. Pre-vote still needs a majority, and whoever still hears the leader refuses, so that one member with broken
// connectivity disturbs nobody.
extension RaftCore {
    /// First attempts lie within one of these: long against a round trip, so that the first to ask has mostly won before the next one
    /// asks, and short against the time a client notices. (50 ms with default timers)
    var quickSpread: TimeSpan { options.heartbeatInterval / 2 }

    /// Random, in halves of `quickSpread`.
    mutating func quickDelay(from: Int64, to: Int64) -> TimeSpan {
        let half = max(1, quickSpread.nanoseconds / 2)
        return TimeSpan(nanoseconds: Int64.random(in: half * from..<half * to, using: &generator))
    }

    /// Nobody listens where the leader was: its answer is known without asking. A grant would still count, should it be back.
    var refusalOfGoneLeader: [(id: MemberID, granted: Bool)] { goneLeader == .none ? [] : [(goneLeader, false)] }

    mutating func onPeerGone(_ peer: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) {
        onPeerUnreachable(peer)
        // Who has voted for it waits for it to lead; who campaigns already needs no hint.
        guard options.failsOverQuickly, role == .follower, peer != goneLeader, peer == leader || (leader == .none && hardState.vote == peer) else { return }
        goneLeader = peer
        effects.append(.note(.leaderConnectionLost(peer, term: term)))
        guard mayCampaign else { return }
        quick = QuickElection(ordinaryDeadline: electionDeadline)
        electionDeadline = min(electionDeadline, now + quickDelay(from: 0, to: 2))
    }

    /// A campaign begins, with `electionDeadline` already set for an ordinary one.
    mutating func countQuickAttempt(_ now: Instant) {
        guard var attempt = quick else { return }
        attempt.attemptsLeft -= 1
        if attempt.attemptsLeft > 0 {
            quick = attempt
            electionDeadline = now + quickDelay(from: 2, to: 4)
        } else {
            quick = nil
            electionDeadline = max(attempt.ordinaryDeadline, now + quickSpread)
        }
    }
}
