import Base
@testable import Raft
import Testing

/// A leader whose process dies, and one whose disk does.
@Suite struct FailoverTests {
    /// A bench with a leader that has written something, and the ids of the others.
    private func elected(_ count: Int = 3, options: RaftOptions = benchOptions()) -> (bench: Bench, leader: Single, others: [UInt64]) {
        let bench = Bench(count, options: options)
        let leader = bench.elect()
        bench.give(.propose(payloads: [[1]]), to: leader.core.id.rawValue)
        bench.run(for: beat * 3)
        return (bench, leader, bench.members.filter { $0 !== leader }.map { $0.core.id.rawValue })
    }

    /// Lets time pass until another leads; how long it took.
    private func timeToNextLeader(_ bench: Bench, limit: TimeSpan = T * 4) -> TimeSpan {
        let start = bench.now
        while bench.leader?.core.hasCommittedInTerm != true, bench.now < start + limit { bench.run(for: .milliseconds(1)) }
        return bench.now - start
    }

    @Test(arguments: [3, 5]) func goneLeaderIsReplacedWithoutWaitingForTheTimer(count: Int) {
        let (bench, leader, others) = elected(count)
        bench.kill(leader.core.id.rawValue, noticing: others)
        #expect(timeToNextLeader(bench) <= beat)
        let heir = bench.leader!
        #expect(heir.core.term == leader.core.term.next)
        let notes = heir.effects.notes
        #expect(notes.contains(.leaderConnectionLost(leader.core.id, term: leader.core.term)))
        // The cause is the connection, not the first election's timer.
        let cause = notes.firstIndex(of: .leaderConnectionLost(leader.core.id, term: leader.core.term))!
        #expect(!notes[cause...].contains { if case .electionTimeout = $0 { true } else { false } })
        #expect(notes[cause...].contains(.preVoteAsked(term: heir.core.term)))
    }

    @Test func voterThatHasNotNoticedRefusesAndIsAskedAgainSoon() {
        let (bench, leader, others) = elected()
        bench.kill(leader.core.id.rawValue, noticing: [others[0]])
        bench.run(for: beat * 2)
        #expect(bench.leader == nil)
        let refusals = bench[others[1]].effects.notes.count {
            if case .voteRefused(_, _, isPreVote: true, .leaderIsFresh) = $0 { true } else { false }
        }
        #expect(refusals >= 1)
        #expect(bench[others[0]].core.term == leader.core.term)
        bench[others[1]].step(.peerGone(leader.core.id))
        #expect(timeToNextLeader(bench) <= beat * 2)
    }

    @Test func memberThatIsAloneInItsBeliefSoonWaitsLikeEveryoneElse() {
        let (bench, leader, others) = elected()
        // It hears nobody but is heard: the worst neighbour.
        let wrong = bench[others[0]]
        bench.passes = { $0.to != wrong.core.id || $0.from != leader.core.id }
        let before = wrong.effects.notes.count
        bench.give(.peerGone(leader.core.id), to: others[0])
        bench.run(for: T)
        let asked = wrong.effects.notes[before...].count { if case .preVoteAsked = $0 { true } else { false } }
        #expect(asked <= QuickElection.attempts + 1 && asked >= 3)
        bench.run(for: T * 10)
        #expect(bench.leader === leader)
        #expect(bench.members.allSatisfy { $0.core.term == leader.core.term })
        bench.passes = { _ in true }
        bench.run(for: T * 3)
        #expect(bench.leader === leader && wrong.core.leader == leader.core.id)
    }

    @Test func attemptsEndWhereTheTimerWouldHaveFired() {
        let single = Single(term: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        single.wait(beat)
        let ordinary = single.core.nextDeadline
        single.step(.peerGone(member(2)))
        var attempts: [Instant] = []
        while attempts.last.map({ $0 < ordinary }) ?? true {
            let notes = single.waitForDeadline().notes
            if notes.contains(.preVoteAsked(term: Term(2))) { attempts.append(single.now) }
            single.receive(.voteReply(granted: false, isPreVote: true, refusal: .leaderIsFresh), from: 3, term: 1)
        }
        #expect(attempts.count == QuickElection.attempts + 1)
        #expect(attempts.last == ordinary)
        #expect(attempts.dropLast().last! - .zero < T)
    }

    @Test func leaderThatIsHeardAgainIsFollowedAgain() {
        let single = Single(term: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        single.step(.peerGone(member(2)))
        #expect(!single.leaderIsFresh)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        #expect(single.leaderIsFresh)
        #expect(single.core.nextDeadline >= single.now + T)
    }

    @Test func otherPeersThatGoAreNoReason() {
        let single = Single(term: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        let deadline = single.core.nextDeadline
        #expect(single.step(.peerGone(member(3))).notes.isEmpty)
        #expect(single.step(.peerUnreachable(member(2))).notes.isEmpty)
        #expect(single.core.nextDeadline == deadline && single.leaderIsFresh)
    }

    @Test func heirThatDiesRightAfterItGotTheVotesIsReplacedToo() {
        let (bench, leader, others) = elected()
        // Voted for, then gone before anyone heard it lead.
        let single = bench[others[0]]
        bench.dead.insert(others[1])
        bench.dead.insert(leader.core.id.rawValue)
        single.wait(T * 2)
        single.receive(.requestVote(last: position(9, 9), isPreVote: false, isTransfer: false), from: others[1], term: 9)
        single.sync()
        single.step(.peerGone(member(others[1])))
        single.waitForDeadline()
        #expect(single.core.role == .preCandidate)
        #expect(single.now <= bench.members.filter { $0 !== single }[0].now + T * 2 + beat)
    }

    @Test func learnersGrantButDoNotCampaign() {
        let single = Single(3, voters: [1, 2], learners: [3], term: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        #expect(single.step(.peerGone(member(2))).notes == [.leaderConnectionLost(member(2), term: Term(1))])
        #expect(single.core.nextDeadline == .distantFuture)
        let effects = single.receive(.requestVote(last: .zero, isPreVote: true, isTransfer: false), from: 1, term: 2)
        #expect(effects.sent(to: 1) == [.voteReply(granted: true, isPreVote: true, refusal: nil)])
    }

    @Test func splitVotesAreTriedAgainSoon() {
        // Both survivors ask in the same moment, whatever their spread: the questions cross.
        let (bench, leader, others) = elected()
        bench.kill(leader.core.id.rawValue, noticing: others)
        let a = bench[others[0]], b = bench[others[1]]
        a.waitForDeadline()
        b.now = a.now
        if b.core.role == .follower { b.step(.campaign) }
        for single in [a, b] {
            single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: single === a ? others[1] : others[0], term: leader.core.term.rawValue + 1)
        }
        #expect(a.core.role == .candidate && b.core.role == .candidate)
        for single in bench.members { single.now = a.now }
        for (asker, voter) in [(a, b), (b, a)] {
            asker.sync()
            let refused = voter.receive(.requestVote(last: asker.core.log.last, isPreVote: false, isTransfer: false), from: asker.core.id.rawValue, term: asker.term)
            #expect(refused.sent(to: asker.core.id.rawValue) == [.voteReply(granted: false, isPreVote: false, refusal: .alreadyVoted)])
            asker.receive(.voteReply(granted: false, isPreVote: false, refusal: .alreadyVoted), from: voter.core.id.rawValue, term: asker.term)
        }
        #expect(timeToNextLeader(bench) <= beat * 3)
    }

    @Test func goneLeaderThatReturnsMayVote() {
        let (bench, leader, others) = elected()
        bench.kill(leader.core.id.rawValue, noticing: others)
        let single = bench[others[0]]
        bench.dead.insert(others[1])
        while single.core.role == .follower { single.waitForDeadline() }
        single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: leader.core.id.rawValue, term: single.term + 1)
        #expect(single.core.role == .candidate)
    }

    // MARK: A stuck disk

    @Test func leaderWithAStuckDiskHandsOverAndDoesNotComeBack() {
        let (bench, leader, others) = elected()
        bench.stuck = [leader.core.id.rawValue]
        bench.give(.propose(payloads: [[2]]), to: leader.core.id.rawValue)
        bench.run(for: T)
        let heir = bench.leader!
        #expect(heir !== leader && others.contains(heir.core.id.rawValue))
        #expect(leader.effects.notes.contains { if case .diskStuck(let after) = $0 { after >= T / 2 && after < T } else { false } })
        #expect(leader.effects.notes.contains(.transferStarted(to: heir.core.id)))
        #expect(heir.core.term == leader.core.term && heir.core.hasCommittedInTerm)
        // What the old leader could not write is written by the others.
        #expect(heir.applied.map(\.payload).contains([2]))
        // The heir dies. The member with the stuck disk is the only other one with everything, but could never cast its own vote.
        let third = others.first { $0 != heir.core.id.rawValue }!
        bench.dead = [third]
        bench.kill(heir.core.id.rawValue, noticing: [leader.core.id.rawValue])
        let term = leader.core.term
        bench.run(for: T * 4)
        #expect(leader.core.role == .follower && leader.core.term == term)
        // Asked to, it does not either.
        leader.step(.campaign)
        #expect(leader.core.role == .follower)
        bench.stuck = []
        bench.dead = [heir.core.id.rawValue]
        bench.run(for: T * 4)
        #expect(leader.effects.notes.contains { if case .diskRecovered = $0 { true } else { false } })
        #expect(bench.leader?.core.hasCommittedInTerm == true)
    }

    @Test func memberWithAStuckDiskDoesNotTakeLeadershipOver() {
        let single = Single(term: 1)
        single.receive(.append(previous: .zero, entries: log([1]), commit: .zero), from: 2, term: 1)
        single.waitForDeadline()
        #expect(single.effects.notes.contains { if case .diskStuck = $0 { true } else { false } })
        single.receive(.timeoutNow, from: 2, term: 1)
        #expect(single.core.role == .follower)
        single.sync()
        single.receive(.timeoutNow, from: 2, term: 1)
        #expect(single.core.role == .candidate)
    }

    @Test func leadershipIsNotPassedRoundAmongStuckDisks() {
        let (bench, leader, others) = elected()
        bench.stuck = [1, 2, 3]
        bench.give(.propose(payloads: [[2]]), to: leader.core.id.rawValue)
        bench.run(for: T * 3)
        #expect(bench.leader === leader)
        #expect(!leader.effects.notes.contains { if case .transferStarted = $0 { true } else { false } })
        // One of them recovers: it is the heir.
        bench.stuck = [leader.core.id.rawValue, others[0]]
        bench.run(for: beat * 3)
        #expect(leader.effects.notes.contains(.transferStarted(to: member(others[1]))))
    }

    @Test func busyDiskIsNotAStuckOne() {
        let single = Single()
        single.lead()
        // Each write takes a while, and there is always one under way.
        for n in 0..<20 {
            single.step(.propose(payloads: [[UInt8(n)]]))
            single.wait(T / 3)
            single.step(.timer)
            single.receive(.heartbeatReply(round: .none), from: 2, term: 1)
            single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
            single.sync()
        }
        #expect(single.core.isLeader && !single.effects.notes.contains { if case .diskStuck = $0 { true } else { false } })
    }

    @Test func processThatStoodStillDoesNotBlameItsDisk() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: [[1]]))
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        single.wait(T * 5)
        #expect(!single.step(.timer).notes.contains { if case .diskStuck = $0 { true } else { false } })
        single.wait(T / 2)
        #expect(single.step(.timer).notes.contains { if case .diskStuck = $0 { true } else { false } })
    }
}
