import Base
@testable import Raft
import Testing

@Suite struct ReadIndexTests {
    @Test func readWaitsForTheFirstCommitOfTheTerm() {
        let single = Single()
        single.waitForDeadline()
        single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 2, term: 1)
        single.sync()
        single.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 2, term: 1)
        let early = single.step(.read(ReadID(1)))
        #expect(early.readsReady.isEmpty && early.readsRefused.isEmpty && early.sent(to: 2).rounds.isEmpty)
        single.sync()
        let effects = single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        #expect(effects.sent(to: 2).rounds.count == 1)
    }

    @Test func readIsConfirmedOnlyByARoundThatStartedAfterIt() {
        // Incident 23.
        let single = Single()
        single.lead()
        let first = single.step(.read(ReadID(1))).sent(to: 2).rounds[0]
        let second = single.step(.read(ReadID(2))).sent(to: 2).rounds[0]
        #expect(second > first)
        #expect(single.receive(.heartbeatReply(round: first), from: 2, term: 1).readsReady.map(\.0) == [ReadID(1)])
        #expect(single.receive(.heartbeatReply(round: first), from: 3, term: 1).readsReady.isEmpty)
        #expect(single.receive(.heartbeatReply(round: second), from: 3, term: 1).readsReady.map(\.0) == [ReadID(2)])
    }

    @Test func aLaterRoundConfirmsEarlierReads() {
        let single = Single()
        single.lead()
        single.step(.read(ReadID(1)))
        let second = single.step(.read(ReadID(2))).sent(to: 2).rounds[0]
        #expect(single.receive(.heartbeatReply(round: second), from: 2, term: 1).readsReady.map(\.0) == [ReadID(1), ReadID(2)])
    }

    @Test func readsOfOneBatchShareARound() {
        let single = Single()
        single.lead()
        let effects = single.batch((1...500).map { .read(ReadID($0)) })
        #expect(effects.sent.count == 2)
        let round = effects.sent(to: 3).rounds[0]
        #expect(single.receive(.heartbeatReply(round: round), from: 3, term: 1).readsReady.count == 500)
    }

    @Test func roundsUnderWayAreBounded() {
        var options = benchOptions()
        options.maxReadRounds = 2
        let single = Single(options: options)
        single.lead()
        var rounds: [ReadRound] = []
        for id in UInt64(1)...5 { rounds += single.step(.read(ReadID(id))).sent(to: 2).rounds }
        #expect(rounds.count == 2)
        let effects = single.receive(.heartbeatReply(round: rounds[0]), from: 2, term: 1)
        #expect(effects.readsReady.count == 1)
        // The freed place takes all that waited.
        let third = effects.sent(to: 2).rounds
        #expect(third.count == 1)
        #expect(single.receive(.heartbeatReply(round: third[0]), from: 2, term: 1).readsReady.count == 4)
    }

    @Test func lostRoundIsAskedAgainAtTheNextHeartbeat() {
        let single = Single()
        single.lead()
        let round = single.step(.read(ReadID(1))).sent(to: 2).rounds[0]
        let again = single.waitForDeadline().sent(to: 2).rounds
        #expect(again == [round])
        #expect(single.receive(.heartbeatReply(round: round), from: 2, term: 1).readsReady.count == 1)
    }

    @Test func singleMemberAnswersAtOnce() {
        let single = Single(voters: [1])
        single.lead(votes: [])
        let effects = single.step(.read(ReadID(1)))
        #expect(effects.readsReady.map(\.1) == [single.core.commit])
        #expect(effects.sent.isEmpty)
    }

    @Test func answersOfAnEarlierTermConfirmNothing() {
        let single = Single()
        single.lead()
        let old = single.step(.read(ReadID(1))).sent(to: 2).rounds[0]
        let refused = single.receive(.heartbeat(commit: .zero, round: .none), from: 3, term: 2)
        #expect(refused.readsRefused.map(\.0) == [ReadID(1)])
        #expect(refused.readsRefused.map(\.1) == [.leaderChanged])
        single.wait(T * 2)
        single.lead()
        let new = single.step(.read(ReadID(2))).sent(to: 2).rounds[0]
        #expect(new > old)
        #expect(single.receive(.heartbeatReply(round: old), from: 2, term: 3).readsReady.isEmpty)
        #expect(single.receive(.heartbeatReply(round: new), from: 2, term: 1).readsReady.isEmpty)
        #expect(single.receive(.heartbeatReply(round: new), from: 2, term: 3).readsReady.map(\.0) == [ReadID(2)])
    }

    private func follower() -> Single {
        let single = Single()
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        return single
    }

    private func question(_ effects: [RaftEffect]) -> ReadID? {
        for message in effects.sent { if case .requestReadIndex(let id) = message.body { return id } }
        return nil
    }

    @Test func readsAtAFollowerShareOneQuestion() {
        let single = follower()
        let effects = single.batch((1...100).map { .read(ReadID($0)) })
        #expect(effects.sent.count == 1)
        // Those that come later wait for the answer.
        let later = single.step(.read(ReadID(101)))
        #expect(later.sent.isEmpty)
        let answered = single.receive(.readIndexReply(id: question(effects)!, index: index(9)), from: 2, term: 1)
        #expect(answered.readsReady.count == 100 && answered.readsReady[0].1 == index(9))
        #expect(question(answered) != nil)
    }

    @Test func retriedQuestionHasANewIdAndTheOldAnswerIsIgnored() {
        let single = follower()
        let first = question(single.step(.read(ReadID(1))))!
        single.wait(T / 2)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        let second = question(single.step(.timer))!
        #expect(second != first)
        #expect(single.receive(.readIndexReply(id: first, index: index(1)), from: 2, term: 1).readsReady.isEmpty)
        #expect(single.receive(.readIndexReply(id: second, index: index(2)), from: 2, term: 1).readsReady.map(\.1) == [index(2)])
    }

    @Test func idsOfQuestionsDifferBetweenLives() {
        let ids = (1...20).map { seed in
            let single = Single(seed: UInt64(seed))
            single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
            return question(single.step(.read(ReadID(1))))!
        }
        #expect(Set(ids).count == 20)
    }

    @Test func openQuestionIsRefusedWhenTheLeaderChanges() {
        let single = follower()
        single.step(.read(ReadID(1)))
        let effects = single.receive(.heartbeat(commit: .zero, round: .none), from: 3, term: 2)
        #expect(effects.readsRefused.map(\.1) == [.leaderChanged])
    }

    @Test func readWithoutALeaderIsRefusedAfterAnElectionTimeout() {
        let single = Single(term: 1)
        single.step(.read(ReadID(1)))
        #expect(single.core.nextDeadline <= .zero + T)
        single.wait(T / 2)
        #expect(single.step(.timer).readsRefused.isEmpty)
        single.wait(T / 2)
        #expect(single.step(.timer).readsRefused.map(\.1) == [.noLeader])
    }

    @Test func readThatFoundNoLeaderIsServedByTheNewOne() {
        let bench = Bench(3)
        bench.give(.read(ReadID(1)), to: 1)
        bench.elect()
        bench.run(for: beat)
        #expect(bench[1].effects.readsReady.map(\.0) == [ReadID(1)])
    }

    @Test func followerReadsSeeEverythingCommittedBefore() {
        let bench = Bench(3)
        let leader = bench.elect()
        for n in UInt64(1)...20 {
            bench.give(.propose(payloads: [[UInt8(n)]]), to: leader.core.id.rawValue)
            let commit = leader.core.commit
            for id in UInt64(1)...3 { bench.give(.read(ReadID(n * 10 + id)), to: id) }
            for id in UInt64(1)...3 {
                #expect(bench[id].effects.readsReady.last?.0 == ReadID(n * 10 + id))
                #expect(bench[id].effects.readsReady.last!.1 >= commit)
            }
        }
    }

    @Test func membersThatDoNotLeadRefuseQuestions() {
        let single = follower()
        #expect(single.receive(.requestReadIndex(id: ReadID(5)), from: 3, term: 1).sent(to: 3) == [.readIndexRefused(id: ReadID(5))])
    }

    @Test func silentLeaderDoesNotHoldReadsForEver() {
        let single = follower()
        single.step(.read(ReadID(1)))
        for _ in 0..<60 {
            single.wait(beat)
            single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
            single.step(.timer)
        }
        #expect(single.effects.readsRefused.map(\.1) == [.noLeader])
    }
}
