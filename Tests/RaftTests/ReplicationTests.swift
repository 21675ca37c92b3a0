import Base
@testable import Raft
import Testing

@Suite struct ReplicationTests {
    private func payloads(_ count: Int, bytes: Int = 10) -> [[UInt8]] { (0..<count).map { _ in [UInt8](repeating: 7, count: bytes) } }

    @Test func aBatchOfProposalsMakesOneWriteAndOneMessagePerPeer() {
        let single = Single()
        single.lead()
        let effects = single.batch((0..<1000).map { _ in .propose(payloads: payloads(3)) })
        #expect(effects.persisted.count == 1 && effects.persisted[0].entries.count == 3000)
        for peer in [UInt64(2), 3] {
            let appends = effects.sent(to: peer).appends
            #expect(appends.count == 1 && appends[0].entries.count == 3000)
        }
        #expect(effects.count == 3)
    }

    @Test func entriesCarryTheLeadersWallClock() {
        let single = Single()
        single.lead()
        let effects = single.step(.propose(payloads: [[1]]))
        #expect(effects.persisted[0].entries.map(\.proposedAt) == [WallTime(milliseconds: 7)])
    }

    @Test func commitCountsTheLeadersOwnCopyOnlyWhenItIsDurable() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: [[1]]))
        let before = single.core.commit
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        #expect(single.core.commit == before)
        let effects = single.sync()
        #expect(single.core.commit == before.next)
        #expect(effects.applied.map(\.payload) == [[1]])
    }

    @Test func othersCommitWithoutTheLeadersDiskButNothingIsAppliedBeforeIt() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: [[1]]))
        let last = single.core.lastIndex
        single.receive(.appendAccepted(match: last), from: 2, term: 1)
        let effects = single.receive(.appendAccepted(match: last), from: 3, term: 1)
        #expect(single.core.commit == last)
        #expect(effects.applied.isEmpty)
        #expect(single.sync().applied.map(\.index) == [last])
    }

    @Test func singleMemberCommitsOnlyWhatIsDurable() {
        // Incident 3.
        let single = Single(voters: [1])
        single.lead(votes: [])
        let effects = single.step(.propose(payloads: [[1]]))
        #expect(effects.applied.isEmpty && effects.sent.isEmpty)
        #expect(single.sync().applied.map(\.payload) == [[1]])
    }

    @Test func followerAcknowledgesOnlyWhatIsDurable() {
        let single = Single()
        let effects = single.receive(.append(previous: .zero, entries: log([1, 1]), commit: .zero), from: 2, term: 1)
        #expect(effects.sent.isEmpty)
        #expect(effects.persisted.map(\.entries) == [log([1, 1])])
        #expect(effects.persisted.map(\.hardState) == [HardState(term: Term(1), vote: .none)])
        #expect(single.sync().sent(to: 2) == [.appendAccepted(match: index(2))])
    }

    @Test func repeatedAppendIsAcknowledgedBehindTheWriteUnderWay() {
        let single = Single()
        single.receive(.append(previous: .zero, entries: log([1, 1]), commit: .zero), from: 2, term: 1)
        let again = single.receive(.append(previous: .zero, entries: log([1, 1]), commit: .zero), from: 2, term: 1)
        #expect(again.persisted.isEmpty && again.sent.isEmpty)
        #expect(single.sync().sent(to: 2) == [.appendAccepted(match: index(2)), .appendAccepted(match: index(2))])
    }

    @Test func appendsOfOneBatchAreAcknowledgedTogether() {
        let single = Single()
        single.step(single.message(.append(previous: .zero, entries: log([1, 1]), commit: .zero), from: 2, term: 1),
                    single.message(.append(previous: position(2, 1), entries: [entry(3, 1)], commit: .zero), from: 2, term: 1))
        #expect(single.sync().sent(to: 2) == [.appendAccepted(match: index(3))])
    }

    @Test func completionOfAnOverwrittenBatchDoesNotVouchForTheNewEntries() {
        // The ABA rule: ticket 1 wrote 1...3 of term 1; then 2...3 were replaced by term 2.
        let single = Single()
        single.receive(.append(previous: .zero, entries: log([1, 1, 1]), commit: .zero), from: 2, term: 1)
        let first = single.unsynced[0].ticket
        single.receive(.append(previous: position(1, 1), entries: [entry(2, 2), entry(3, 2)], commit: index(3)), from: 3, term: 2)
        let second = single.unsynced[1].ticket
        let early = single.step(.persisted(first))
        #expect(single.core.durableIndex == index(1))
        #expect(early.sent.isEmpty)
        #expect(early.applied.map(\.index) == [index(1)])
        let late = single.step(.persisted(second))
        #expect(late.sent(to: 3) == [.appendAccepted(match: index(3))])
        #expect(late.applied.map(\.term) == [Term(2), Term(2)])
    }

    @Test func followerKeepsEntriesThatAgree() {
        let single = Single(term: 1, entries: log([1, 1, 1]))
        // A late, shorter append must not cut off what came after it.
        let effects = single.receive(.append(previous: .zero, entries: log([1]), commit: .zero), from: 2, term: 1)
        #expect(single.core.lastIndex == index(3))
        #expect(effects.persisted.isEmpty)
        #expect(effects.sent(to: 2) == [.appendAccepted(match: index(1))])
    }

    @Test func rejectionNamesWhereTheTermsCouldAgree() {
        let single = Single(term: 5, entries: log([1, 1, 1, 4, 4, 4, 4]))
        let effects = single.receive(.append(previous: position(6, 3), entries: [], commit: .zero), from: 2, term: 5)
        #expect(effects.sent(to: 2) == [.appendRejected(rejected: index(6), hint: position(3, 1))])
    }

    @Test func leaderBacksUpByTermAndNotByEntry() {
        // The follower's 50 entries of term 2 conflict with the leader's of term 3: two probes, not fifty.
        let bench = Bench(2)
        let old = [UInt64](repeating: 1, count: 5)
        let leader = Single(1, voters: [1, 2], term: 3, entries: log(old + [UInt64](repeating: 3, count: 50)))
        let follower = Single(2, voters: [1, 2], term: 3, entries: log(old + [UInt64](repeating: 2, count: 50)), seed: 9)
        _ = bench
        leader.waitForDeadline()
        leader.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 2, term: 4)
        leader.sync()
        var toFollower = leader.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 2, term: 4).sent
        var rejections = 0
        for _ in 0..<10 {
            var replies: [Message] = []
            for message in toFollower { replies += follower.step(.message(message)).sent }
            replies += follower.sync().sent
            toFollower = []
            for reply in replies {
                if case .appendRejected = reply.body { rejections += 1 }
                toFollower += leader.step(.message(reply)).sent
            }
            toFollower += leader.sync().sent
        }
        #expect(rejections == 1)
        #expect(follower.core.lastIndex == index(56) && follower.core.commit == index(56))
    }

    @Test func entriesOfEarlierTermsCommitOnlyWithOneOfThisTerm() {
        // Figure 8 of the paper.
        let single = Single(term: 2, entries: log([1, 2]))
        single.waitForDeadline()
        single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 2, term: 3)
        single.sync()
        single.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 2, term: 3)
        single.sync()
        #expect(single.isLeader)
        single.receive(.appendAccepted(match: index(2)), from: 2, term: 3)
        #expect(single.core.commit == .zero)
        #expect(!single.hasCommittedInTerm)
        single.receive(.appendAccepted(match: index(3)), from: 2, term: 3)
        #expect(single.core.commit == index(3))
        #expect(single.hasCommittedInTerm)
    }

    @Test func messagesOnTheWayAreBoundedInNumberAndBytes() {
        var options = benchOptions()
        options.maxInflightMessages = 4
        options.maxInflightBytes = 1000
        options.maxAppendBytes = 200
        let single = Single(options: options)
        single.lead()
        let effects = single.step(.propose(payloads: payloads(100, bytes: 60)))
        #expect(effects.sent(to: 2).appends.map(\.entries.count) == [2, 2, 2, 2])
        // An acknowledgement makes room for as many as it frees.
        let last = effects.sent(to: 2).appends[1].entries.last!.index
        let more = single.receive(.appendAccepted(match: last), from: 2, term: 1)
        #expect(more.sent(to: 2).appends.map(\.entries.count) == [2, 2])
        options.maxInflightMessages = 100
        let other = Single(options: options)
        other.lead()
        let bounded = other.step(.propose(payloads: payloads(100, bytes: 60)))
        #expect(bounded.sent(to: 2).appends.map(\.entries.count) == [2, 2, 2, 2, 2])
    }

    @Test func oneEntryAlwaysFits() {
        var options = benchOptions()
        options.maxAppendBytes = 10
        options.maxInflightBytes = 10
        let single = Single(options: options)
        single.lead()
        let effects = single.step(.propose(payloads: payloads(3, bytes: 500)))
        #expect(effects.sent(to: 2).appends.map(\.entries.count) == [1])
    }

    @Test func uncommittedBytesAreBounded() {
        var options = benchOptions()
        options.maxUncommittedBytes = 1000
        let single = Single(options: options)
        single.lead()
        single.step(.propose(payloads: payloads(10, bytes: 50)))
        let refused = single.step(.propose(payloads: payloads(2, bytes: 50)))
        #expect(refused.proposalsRefused == [.tooManyUncommitted])
        #expect(refused.persisted.isEmpty)
        single.sync()
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        #expect(single.step(.propose(payloads: payloads(2, bytes: 50))).proposalsRefused.isEmpty)
        // One that is larger than the bound is taken when nothing else waits.
        single.sync()
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        #expect(single.step(.propose(payloads: payloads(1, bytes: 5000))).proposalsRefused.isEmpty)
    }

    @Test func handingOutWaitsForTheStateMachine() {
        var options = benchOptions()
        options.maxUnappliedBytes = 120
        let single = Single(voters: [1], options: options)
        single.lead(votes: [])
        single.appliesAtOnce = false
        single.step(.propose(payloads: payloads(5, bytes: 10)))
        let first = single.sync().applied
        #expect(first.count == 2)
        #expect(single.step(.timer).applied.isEmpty)
        #expect(single.step(.applied(first[0].index)).applied.map(\.index) == [first[1].index.next])
        #expect(single.step(.applied(first[1].index.next)).applied.count == 2)
    }

    @Test func committedEntriesAreNeverOverwritten() {
        let single = Single(term: 1, entries: log([1, 1, 1]), applied: 2)
        let effects = single.receive(.append(previous: position(1, 1), entries: [entry(2, 2)], commit: index(2)), from: 2, term: 2)
        #expect(effects.notes.contains(.messageRefused(from: member(2), .conflictBelowCommit)))
        #expect(single.core.lastIndex == index(3))
        let other = single.receive(.append(previous: position(1, 2), entries: [], commit: index(2)), from: 2, term: 2)
        #expect(other.notes.contains(.messageRefused(from: member(2), .conflictBelowCommit)))
    }

    @Test(arguments: [[entry(3, 1)], [entry(2, 1), entry(4, 1)], [entry(2, 2), entry(3, 1)], [entry(2, 9)]])
    func impossibleEntriesAreRefused(entries: [Entry]) {
        let single = Single(term: 2, entries: log([1]))
        let effects = single.receive(.append(previous: position(1, 1), entries: entries, commit: .zero), from: 2, term: 2)
        #expect(effects.notes.contains(.messageRefused(from: member(2), .malformedEntries)))
        #expect(single.core.lastIndex == index(1))
    }

    @Test func impossibleAcknowledgementIsRefused() {
        let single = Single()
        single.lead()
        let effects = single.receive(.appendAccepted(match: index(99)), from: 2, term: 1)
        #expect(effects.notes == [.messageRefused(from: member(2), .impossibleMatch)])
        #expect(single.core.commit == single.core.lastIndex)
    }

    @Test func lostAppendIsFoundOutWithoutNewWork() {
        let bench = Bench(3)
        let leader = bench.elect()
        let other: UInt64 = leader.core.id == member(3) ? 2 : 3
        var isLossy = true
        bench.passes = { message in
            if isLossy, message.to == member(other), case .append = message.body { return false }
            return true
        }
        bench.give(.propose(payloads: payloads(3)), to: leader.core.id.rawValue)
        #expect(bench[other].core.lastIndex < leader.core.lastIndex)
        isLossy = false
        bench.run(for: beat * 5)
        #expect(bench[other].core.commit == leader.core.commit)
        #expect(bench[other].applied.count == leader.applied.count)
    }

    @Test func lostConnectionTurnsPipeliningIntoProbing() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: payloads(1)))
        single.step(.peerUnreachable(member(2)))
        let peer = single.core.status(includingPeers: true).peers[0]
        #expect(peer.phase == .probe && peer.inflightMessages == 0 && peer.next == peer.match.next)
        #expect(single.step(.propose(payloads: payloads(1))).sent(to: 2).appends.isEmpty)
        let effects = single.receive(.heartbeatReply(round: .none), from: 2, term: 1)
        #expect(effects.sent(to: 2).appends.map(\.entries.count) == [2])
    }

    @Test func roundTripIsThatOfTheHeartbeatThatWasAnswered() {
        let single = Single()
        single.lead()
        func roundTrip(_ peer: UInt64) -> TimeSpan? { single.core.status(includingPeers: true).peers.first { $0.id == member(peer) }?.roundTrip }
        let first = single.waitForDeadline().sent(to: 2).rounds[0]
        let second = single.waitForDeadline().sent(to: 2).rounds[0]
        let third = single.waitForDeadline().sent(to: 2).rounds[0]
        #expect(roundTrip(2) == nil)
        // The first was lost, the second took longer than a heartbeat interval.
        single.wait(.milliseconds(3))
        single.receive(.heartbeatReply(round: second), from: 2, term: 1)
        #expect(roundTrip(2) == beat + .milliseconds(3))
        single.receive(.heartbeatReply(round: third), from: 2, term: 1)
        #expect(roundTrip(2) == .milliseconds(3))
        single.receive(.heartbeatReply(round: .none), from: 2, term: 1)
        #expect(roundTrip(2) == .milliseconds(3))
        #expect(roundTrip(3) == nil)
        // It comes after all, much later.
        single.receive(.heartbeatReply(round: first), from: 3, term: 1)
        #expect(roundTrip(3) == beat * 2 + .milliseconds(3))
    }

    @Test func statusTellsTheTimerAndTheWritesUnderWay() {
        let single = Single(term: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 2)
        single.receive(.append(previous: .zero, entries: [entry(1, 2)], commit: .zero), from: 2, term: 2)
        var status = single.core.status(includingPeers: false)
        #expect(status.electionDeadline == single.now + status.electionSpan)
        #expect(status.electionSpan >= T && status.electionSpan < T * 2)
        // The new term, and the entry: two batches.
        #expect(status.openWrites == 2)
        single.sync()
        status = single.core.status(includingPeers: false)
        #expect(status.openWrites == 0)
    }

    @Test func idleLeaderTellsTheCommitIndexAtOnce() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: payloads(1)))
        single.sync()
        let effects = single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        for peer in [UInt64(2), 3] {
            #expect(effects.sent(to: peer).appends.map(\.commit) == [single.core.lastIndex])
        }
    }

    @Test func followerPassesProposalsOn() {
        let bench = Bench(3)
        let leader = bench.elect()
        let follower = bench.members.first { $0 !== leader }!
        bench.give(.propose(payloads: [[1], [2]]), to: follower.core.id.rawValue)
        bench.give(.propose(payloads: [[3]]), to: follower.core.id.rawValue)
        bench.run(for: beat * 2)
        for single in bench.members { #expect(single.applied.filter { $0.kind == .command }.map(\.payload) == [[1], [2], [3]]) }
    }

    @Test func proposalsOfOneBatchAreForwardedTogether() {
        let single = Single()
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        let effects = single.step(.propose(payloads: [[1]]), .propose(payloads: [[2], [3]]))
        guard case .forward(_, number: 1, payloads: [[1], [2], [3]])? = effects.sent.first?.body else { Issue.record("\(effects.sent)"); return }
        #expect(effects.sent.count == 1)
    }

    @Test func aForwardThatComesTwiceIsTakenOnce() {
        let bench = Bench(3)
        let leader = bench.elect()
        let follower = bench.members.first { $0 !== leader }!
        let before = leader.core.lastIndex
        let message = Message(from: follower.core.id, to: leader.core.id, term: leader.core.term, body: .forward(stream: 9, number: 1, payloads: [[7]]))
        for _ in 0..<3 { bench.give(.message(message), to: leader.core.id.rawValue) }
        #expect(leader.core.lastIndex == before.next)
        // Another life of the same member begins to count anew; its first message is no repetition, an old one of the first life still is.
        bench.give(.message(Message(from: follower.core.id, to: leader.core.id, term: leader.core.term, body: .forward(stream: 10, number: 1, payloads: [[8]]))), to: leader.core.id.rawValue)
        bench.give(.message(message), to: leader.core.id.rawValue)
        // A later one may overtake: taken once as well.
        for number in [3, 2, 3, 2] as [UInt64] {
            bench.give(.message(Message(from: follower.core.id, to: leader.core.id, term: leader.core.term, body: .forward(stream: 10, number: number, payloads: [[9]]))), to: leader.core.id.rawValue)
        }
        #expect(leader.core.lastIndex.rawValue == before.rawValue + 4)
    }

    @Test func aForwardThatIsLostIsSentAgain() {
        let bench = Bench(3)
        let leader = bench.elect()
        let follower = bench.members.first { $0 !== leader }!
        bench.passes = { if case .forward = $0.body { false } else { true } }
        bench.give(.propose(payloads: [[1]]), to: follower.core.id.rawValue)
        bench.give(.propose(payloads: [[2]]), to: follower.core.id.rawValue)
        bench.run(for: beat * 2)
        bench.passes = { _ in true }
        bench.run(for: beat * 8)
        for single in bench.members { #expect(single.applied.filter { $0.kind == .command }.map(\.payload) == [[1], [2]]) }
    }

    /// etcd #16220: a member came back with older data. It is brought up again, and the leader says that it saw it.
    @Test func aMemberWithAnOlderDiskIsBroughtUpAgain() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: payloads(20)))
        single.sync()
        let all = single.core.lastIndex
        for peer in [UInt64(2), 3] { single.receive(.appendAccepted(match: all), from: peer, term: 1) }
        single.step(.peerUnreachable(member(2)))
        single.wait(beat * 2)
        single.step(.timer)
        let probes = single.receive(.heartbeatReply(round: .none), from: 2, term: 1).sent(to: 2).appends
        #expect(probes.last?.previous.index == all)
        let effects = single.receive(.appendRejected(rejected: all, hint: position(5, 1)), from: 2, term: 1)
        #expect(effects.notes.contains(.peerForgot(member(2), acknowledged: all, has: index(5))))
        #expect(effects.sent(to: 2).appends.first?.previous == position(5, 1))
        // What was committed stays so.
        #expect(single.core.status(includingPeers: true).commit == all)
        single.receive(.appendAccepted(match: all), from: 2, term: 1)
        #expect(single.core.status(includingPeers: true).peers.first { $0.id == member(2) }?.match == all)
    }

    @Test func withoutForwardingAFollowerRefuses() {
        var options = benchOptions()
        options.forwardsProposals = false
        let single = Single(options: options)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        #expect(single.step(.propose(payloads: [[1]])).proposalsRefused == [.noLeader])
    }

    @Test func withoutALeaderProposalsAreRefused() {
        let single = Single()
        #expect(single.step(.propose(payloads: [[1]])).proposalsRefused == [.noLeader])
    }

    @Test func foundersAreTheFirstEntryOfTheLog() {
        let bench = Bench(3)
        bench.elect()
        let first = bench[1].applied[0]
        #expect(first.index == index(1) && first.kind == .configuration)
        #expect(Configuration(voters: []).applying(entryPayload: first.payload) == bench[1].core.configuration)
        #expect(bench[1].applied[1].kind == .empty)
    }

    @Test func restartBehindALostResetBeginsAtTheStore() {
        // The store took a snapshot at 9, the log's reset never reached the disk.
        let core = RaftCore(id: member(1), options: benchOptions(),
                            restart: RaftRestart(hardState: HardState(term: Term(4)), configuration: Configuration(voters: [member(1)]),
                                                 start: .zero, entries: log([1, 1, 2]), applied: index(9), appliedTerm: Term(3)),
                            generator: SeededGenerator(seed: 1), now: .zero)
        var copy = core
        var effects: [RaftEffect] = []
        copy.flush(at: .zero, into: &effects)
        #expect(effects.persisted.map(\.reset) == [position(9, 3)])
        #expect(copy.lastIndex == index(9) && copy.commit == index(9))
    }
}

@Suite struct TransferTests {
    @Test func leadershipMovesAndProposalsWaitMeanwhile() {
        let bench = Bench(3)
        let leader = bench.elect()
        let target: UInt64 = leader.core.id == member(2) ? 3 : 2
        bench.give(.transferLeadership(to: member(target)), to: leader.core.id.rawValue)
        bench.run(for: .milliseconds(3))
        #expect(bench.leader === bench[target])
        #expect(bench[target].core.term == Term(2))
        #expect(bench.now < .zero + T * 3)
    }

    @Test func targetCatchesUpFirst() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: [[1]]))
        let effects = single.step(.transferLeadership(to: member(2)))
        #expect(!effects.sent(to: 2).contains(.timeoutNow))
        #expect(single.step(.propose(payloads: [[2]])).proposalsRefused == [.transferring])
        single.sync()
        #expect(single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1).sent(to: 2).contains(.timeoutNow))
    }

    @Test func transferThatTakesTooLongIsAborted() {
        let single = Single()
        single.lead()
        single.step(.propose(payloads: [[1]]))
        single.step(.transferLeadership(to: member(2)))
        let end = single.now + T
        while single.now < end {
            single.waitForDeadline()
            single.receive(.heartbeatReply(round: .none), from: 3, term: 1)
        }
        #expect(single.effects.notes.contains(.transferAborted(to: member(2))))
        #expect(single.step(.propose(payloads: [[2]])).proposalsRefused.isEmpty)
        #expect(single.isLeader)
    }

    @Test func learnersAndStrangersAreNoTargets() {
        let single = Single(learners: [4])
        single.lead()
        for target in [UInt64(1), 4, 9] {
            #expect(single.step(.transferLeadership(to: member(target))).notes.isEmpty)
            #expect(single.core.status(includingPeers: false).transferTarget == .none)
        }
    }

    @Test func onlyTheLeadersWordStartsAnElection() {
        let single = Single()
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        single.receive(.timeoutNow, from: 3, term: 1)
        #expect(single.core.role == .follower)
        let asked = single.receive(.timeoutNow, from: 2, term: 1).sent(to: 3)
        #expect(single.core.role == .candidate)
        #expect(asked == [.requestVote(last: .zero, isPreVote: false, isTransfer: true)])
    }
}
