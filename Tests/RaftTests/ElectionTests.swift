import Base
@testable import Raft
import Testing

@Suite struct ElectionTests {
    @Test func aNewClusterElectsWithinOneElectionTimeout() {
        for seed in UInt64(1)...50 {
            let single = Single(seed: seed)
            #expect(single.core.nextDeadline >= .zero + T / 4 && single.core.nextDeadline < .zero + T, "seed \(seed)")
        }
    }

    @Test func anOldClusterWaitsBetweenOneAndTwoElectionTimeouts() {
        var spans: Set<Int64> = []
        for seed in UInt64(1)...50 {
            let single = Single(term: 4, seed: seed)
            #expect(single.core.nextDeadline >= .zero + T && single.core.nextDeadline < .zero + T * 2, "seed \(seed)")
            spans.insert(single.core.nextDeadline.nanoseconds)
        }
        #expect(spans.count == 50)
    }

    @Test func preVoteComesFirstAndChangesNoTerm() {
        let single = Single()
        let effects = single.waitForDeadline()
        #expect(single.core.role == .preCandidate)
        #expect(single.core.term == .zero)
        #expect(effects.persisted.isEmpty)
        #expect(effects.sent == [2, 3].map {
            Message(from: member(1), to: member($0), term: Term(1), body: .requestVote(last: .zero, isPreVote: true, isTransfer: false))
        })
    }

    @Test func candidateAsksWhileItWritesItsOwnVoteAndLeadsOnlyWithIt() {
        let single = Single()
        single.waitForDeadline()
        let effects = single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 2, term: 1)
        #expect(single.core.role == .candidate)
        #expect(effects.persisted.map(\.hardState) == [HardState(term: Term(1), vote: member(1))])
        #expect(effects.sent.count { if case .requestVote(_, false, false) = $0.body { true } else { false } } == 2)
        // The others' votes are a majority, but a crash now would let it win the same term a second time.
        single.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 2, term: 1)
        single.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 3, term: 1)
        #expect(single.core.role == .candidate)
        single.sync()
        #expect(single.core.role == .leader)
    }

    @Test func candidateAsksOnlyWithALogThatIsDurable() {
        let single = Single(term: 1)
        single.receive(.append(previous: .zero, entries: log([1, 1]), commit: .zero), from: 2, term: 1)
        single.step(.peerGone(member(2)))
        single.waitForDeadline()
        let effects = single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 3, term: 2)
        #expect(single.core.role == .candidate)
        #expect(effects.sent.isEmpty)
        #expect(single.sync().sent(to: 3).contains(.requestVote(last: position(2, 1), isPreVote: false, isTransfer: false)))
    }

    @Test func voteLeavesOnlyWhenItIsDurable() {
        let single = Single()
        let effects = single.receive(.requestVote(last: .zero, isPreVote: false, isTransfer: false), from: 2, term: 3)
        #expect(effects.persisted.map(\.hardState) == [HardState(term: Term(3), vote: member(2))])
        #expect(effects.sent.isEmpty)
        #expect(single.sync().sent(to: 2) == [.voteReply(granted: true, isPreVote: false, refusal: nil)])
    }

    @Test func voteOfAnEarlierTermIsNotSentAnyMore() {
        let single = Single()
        single.step(single.message(.requestVote(last: .zero, isPreVote: false, isTransfer: false), from: 2, term: 3),
                    single.message(.requestVote(last: .zero, isPreVote: false, isTransfer: false), from: 3, term: 4))
        let sent = single.sync().sent
        #expect(sent == [Message(from: member(1), to: member(3), term: Term(4), body: .voteReply(granted: true, isPreVote: false, refusal: nil))])
    }

    @Test func secondCandidateOfATermIsRefused() {
        let single = Single()
        single.receive(.requestVote(last: .zero, isPreVote: false, isTransfer: false), from: 2, term: 3)
        let effects = single.receive(.requestVote(last: .zero, isPreVote: false, isTransfer: false), from: 3, term: 3)
        #expect(effects.sent(to: 3) == [.voteReply(granted: false, isPreVote: false, refusal: .alreadyVoted)])
    }

    @Test func voteIsRememberedOverARestart() {
        var core = RaftCore(id: member(1), options: benchOptions(),
                            restart: RaftRestart(hardState: HardState(term: Term(3), vote: member(2)),
                                                 configuration: Configuration(voters: [member(1), member(2), member(3)]), start: .zero,
                                                 entries: [], applied: .zero),
                            generator: SeededGenerator(seed: 1), now: .zero)
        var effects: [RaftEffect] = []
        core.handle(.message(Message(from: member(3), to: member(1), term: Term(3), body: .requestVote(last: .zero, isPreVote: false, isTransfer: false))),
                    at: .zero, wall: .unknown, into: &effects)
        core.flush(at: .zero, into: &effects)
        #expect(effects.sent(to: 3) == [.voteReply(granted: false, isPreVote: false, refusal: .alreadyVoted)])
    }

    @Test(arguments: [(position(2, 1), false), (position(3, 2), true), (position(2, 2), false), (position(1, 3), true), (position(9, 1), false)])
    func voteNeedsALogAtLeastAsGoodAsOnesOwn(last: LogPosition, isGranted: Bool) {
        let single = Single(term: 2, entries: log([1, 1, 2]))
        let effects = single.receive(.requestVote(last: last, isPreVote: true, isTransfer: false), from: 2, term: 4)
        #expect(effects.sent(to: 2) == [.voteReply(granted: isGranted, isPreVote: true, refusal: isGranted ? nil : .logBehind)])
        #expect(single.core.term == Term(2))
    }

    @Test func staleTermMessageIsRejected() {
        let single = Single(term: 5)
        let vote = single.receive(.requestVote(last: position(9, 4), isPreVote: false, isTransfer: false), from: 2, term: 4)
        #expect(vote.sent == [Message(from: member(1), to: member(2), term: Term(5), body: .voteReply(granted: false, isPreVote: false, refusal: .staleTerm))])
        let append = single.receive(.append(previous: .zero, entries: [entry(1, 4)], commit: index(1)), from: 2, term: 4)
        #expect(single.core.lastIndex == .zero && single.core.leader == .none)
        // The old leader learns the term.
        #expect(append.sent == [Message(from: member(1), to: member(2), term: Term(5), body: .heartbeatReply(round: .none))])
    }

    @Test func votersRefuseWhileTheirLeaderIsFresh() {
        let single = Single()
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        single.wait(T / 2)
        for isPreVote in [true, false] {
            let effects = single.receive(.requestVote(last: position(9, 9), isPreVote: isPreVote, isTransfer: false), from: 3, term: 8)
            #expect(effects.sent(to: 3) == [.voteReply(granted: false, isPreVote: isPreVote, refusal: .leaderIsFresh)])
            #expect(single.core.term == Term(1))
        }
        single.wait(T)
        let late = single.receive(.requestVote(last: position(9, 9), isPreVote: true, isTransfer: false), from: 3, term: 8)
        #expect(late.sent(to: 3) == [.voteReply(granted: true, isPreVote: true, refusal: nil)])
    }

    @Test func transferIsNoReasonToRefuse() {
        let single = Single()
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        single.receive(.requestVote(last: .zero, isPreVote: false, isTransfer: true), from: 3, term: 2)
        #expect(single.sync().sent(to: 3) == [.voteReply(granted: true, isPreVote: false, refusal: nil)])
    }

    @Test func leaderStepsDownWhenItHearsNoQuorum() {
        let single = Single()
        single.lead()
        let end = single.now + T * 2
        while single.core.isLeader && single.now < end { single.waitForDeadline() }
        #expect(!single.isLeader)
        #expect(single.effects.notes.contains(.steppedDown(term: Term(1), reason: .lostQuorum)))
        #expect(single.now <= .zero + T * 3)
    }

    @Test func leaderStaysWhileAQuorumAnswers() {
        let single = Single()
        single.lead()
        for _ in 0..<100 {
            single.waitForDeadline()
            single.receive(.heartbeatReply(round: .none), from: 3, term: 1)
        }
        #expect(single.isLeader)
    }

    @Test func pausedLeaderMustHearAQuorumAgain() {
        let single = Single()
        single.lead()
        let asked = single.step(.read(ReadID(1)))
        let round = asked.sent(to: 2).rounds[0]
        single.wait(T * 10)
        // An answer that was sent before the pause confirms nothing after it.
        let effects = single.receive(.heartbeatReply(round: round), from: 2, term: 1)
        #expect(effects.readsReady.isEmpty)
        let newRound = effects.sent(to: 2).rounds.last!
        #expect(newRound > round)
        #expect(single.core.nextDeadline <= single.now + T)
        #expect(single.receive(.heartbeatReply(round: newRound), from: 2, term: 1).readsReady.count == 1)
        #expect(single.isLeader)
    }

    @Test func pausedFollowerReadsItsMessagesBeforeItCampaigns() {
        let single = Single(term: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        single.wait(T * 10)
        single.step(.timer)
        #expect(single.core.role == .follower)
        #expect(single.core.nextDeadline > single.now)
        // Once only: a member that is always late still campaigns.
        single.wait(T * 10)
        single.step(.timer)
        #expect(single.core.role == .preCandidate)
    }

    @Test func learnersDoNotCampaign() {
        let single = Single(3, voters: [1, 2], learners: [3], term: 1)
        #expect(single.core.nextDeadline == .distantFuture)
        single.wait(T * 10)
        single.step(.timer, .campaign)
        #expect(single.core.role == .follower)
    }

    @Test func refusedPreCandidateLearnsAHigherTerm() {
        let single = Single(term: 3)
        single.waitForDeadline()
        single.receive(.voteReply(granted: false, isPreVote: true, refusal: .staleTerm), from: 2, term: 7)
        #expect(single.core.role == .follower)
        #expect(single.core.term == Term(7))
    }

    @Test func leadersOfTheSameTermCannotBeTwo() {
        let single = Single()
        single.lead()
        let effects = single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        #expect(single.isLeader)
        #expect(effects.notes == [.messageRefused(from: member(2), .impossibleTerm)])
    }

    @Test func absurdTermIsRefused() {
        let single = Single()
        let effects = single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: .max)
        #expect(effects.notes == [.messageRefused(from: member(2), .impossibleTerm)])
        #expect(single.core.term == .zero)
    }

    @Test func memberThatHearsNobodyDoesNotDisturbTheLeader() {
        // Incident 42: links broken one way.
        let bench = Bench(3)
        let leader = bench.elect()
        let deaf = leader.core.id == member(3) ? member(2) : member(3)
        bench.passes = { $0.to != deaf }
        bench.run(for: T * 20)
        #expect(bench.leader === leader)
        #expect(leader.core.term == Term(1))
        bench.passes = { _ in true }
        bench.run(for: T * 3)
        #expect(bench.leader === leader && leader.core.term == Term(1))
        #expect(bench[deaf.rawValue].core.leader == leader.core.id)
    }

    @Test func leaderThatHearsNobodyIsReplaced() {
        let bench = Bench(3)
        let old = bench.elect()
        bench.passes = { $0.to != old.core.id }
        bench.run(for: T * 6)
        let others = bench.members.filter { $0 !== old }
        #expect(!old.isLeader)
        #expect(others.count { $0.core.isLeader } == 1)
    }

    @Test func everySetOfOneWayLinksKeepsOrFindsOneLeader() {
        // All subsets of broken links among three members that leave some member connected both ways to another.
        let links = [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)].map { (UInt64($0.0), UInt64($0.1)) }
        for mask in 0..<64 {
            let broken = links.indices.filter { mask >> $0 & 1 == 1 }.map { links[$0] }
            func isBroken(_ a: UInt64, _ b: UInt64) -> Bool { broken.contains { $0 == (a, b) } }
            let pairs: [(UInt64, UInt64)] = [(1, 2), (1, 3), (2, 3)]
            guard pairs.contains(where: { !isBroken($0.0, $0.1) && !isBroken($0.1, $0.0) }) else { continue }
            let bench = Bench(3)
            bench.elect()
            bench.passes = { !isBroken($0.from.rawValue, $0.to.rawValue) }
            bench.run(for: T * 10)
            let leader = bench.leader
            let term = leader?.core.term
            #expect(leader != nil, "mask \(mask)")
            bench.run(for: T * 10)
            #expect(bench.leader === leader && bench.leader?.core.term == term, "mask \(mask): the leader did not stay")
            let before = leader?.core.commit
            if let leader { bench.give(.propose(payloads: [[1]]), to: leader.core.id.rawValue) }
            bench.run(for: T)
            #expect(leader.map { $0.core.commit > before! } == true, "mask \(mask): nothing is committed")
        }
    }
}
