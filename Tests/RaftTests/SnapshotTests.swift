import Base
@testable import Raft
import Testing

@Suite struct SnapshotTests {
    /// A leader whose log begins behind index 50.
    private func leader() -> Single {
        let single = Single(term: 3, entries: [entry(51, 3)], applied: 51, start: position(50, 2))
        single.waitForDeadline()
        single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 2, term: 4)
        single.sync()
        single.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 2, term: 4)
        single.sync()
        single.receive(.appendAccepted(match: index(52)), from: 2, term: 4)
        return single
    }

    @Test func peerBehindTheLogsStartGetsASnapshot() {
        let single = leader()
        let effects = single.receive(.appendRejected(rejected: index(51), hint: position(10, 1)), from: 3, term: 4)
        #expect(effects.snapshotsAsked == [member(3)])
        #expect(effects.notes.contains(.snapshotNeeded(by: member(3))))
        // Nothing is appended meanwhile, heartbeats go on.
        #expect(single.step(.propose(payloads: [[1]])).sent(to: 3).isEmpty)
        let beats = single.waitForDeadline().sent(to: 3)
        #expect(beats.count == 1 && beats.rounds.count == 1)
        single.step(.snapshotSent(to: member(3), succeeded: true))
        let resumed = single.receive(.snapshotReply(installed: position(51, 3)), from: 3, term: 4)
        #expect(resumed.sent(to: 3).appends.map(\.previous) == [position(51, 3)])
        #expect(resumed.sent(to: 3).appends.map(\.entries.count) == [2])
    }

    @Test func failedStreamIsAskedForAgainAfterTheFollowerAnswers() {
        let single = leader()
        single.receive(.appendRejected(rejected: index(51), hint: position(10, 1)), from: 3, term: 4)
        #expect(single.step(.snapshotSent(to: member(3), succeeded: false)).snapshotsAsked.isEmpty)
        single.waitForDeadline()
        let probe = single.receive(.heartbeatReply(round: .none), from: 3, term: 4)
        #expect(probe.sent(to: 3).appends.map(\.previous) == [position(50, 2)])
        let again = single.receive(.appendRejected(rejected: index(50), hint: position(10, 1)), from: 3, term: 4)
        #expect(again.snapshotsAsked == [member(3)])
    }

    @Test func followerBeginsItsLogAnewBehindTheSnapshot() {
        let single = Single(term: 4, entries: log([1, 1, 1]), applied: 2)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 4)
        #expect(single.wantsSnapshot(at: index(9)))
        let configuration = Configuration(voters: [member(1), member(2)], learners: [member(5)])
        let effects = single.step(.snapshotInstalled(SnapshotMetadata(position: position(9, 3), configuration: configuration), from: member(2)))
        #expect(effects.persisted.map(\.reset) == [position(9, 3)])
        #expect(effects.sent.isEmpty)
        #expect(single.core.commit == index(9) && single.core.firstIndex == index(10) && single.core.configuration == configuration)
        #expect(single.sync().sent(to: 2) == [.snapshotReply(installed: position(9, 3))])
        single.receive(.append(previous: position(9, 3), entries: [entry(10, 4)], commit: index(10)), from: 2, term: 4)
        #expect(single.sync().applied.map(\.index) == [index(10)])
    }

    @Test func acknowledgedEntriesBehindTheSnapshotStay() {
        let single = Single(term: 1, entries: log([1, 1, 1, 1, 1]), applied: 1)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        let effects = single.step(.snapshotInstalled(SnapshotMetadata(position: position(3, 1), configuration: single.core.configuration), from: member(2)))
        #expect(effects.persisted.isEmpty)
        #expect(single.core.lastIndex == index(5) && single.core.commit == index(3))
        // What the snapshot holds is not given out again.
        single.receive(.heartbeat(commit: index(5), round: .none), from: 2, term: 1)
        #expect(single.applied.map(\.index) == [index(4), index(5)])
    }

    @Test func snapshotThatBringsNothingChangesNothing() {
        let single = Single(term: 1, entries: log([1, 1, 1]), applied: 3)
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        #expect(!single.wantsSnapshot(at: index(2)))
        let effects = single.step(.snapshotInstalled(SnapshotMetadata(position: position(2, 1), configuration: Configuration(voters: [member(9)])), from: member(2)))
        #expect(effects.persisted.isEmpty)
        #expect(effects.sent(to: 2) == [.snapshotReply(installed: position(2, 1))])
        #expect(single.core.configuration.voters.count == 3 && single.core.commit == index(3))
    }

    @Test func compactionKeepsEntriesForSlowPeers() {
        var options = benchOptions()
        options.keptEntries = 10
        let single = Single(term: 1, entries: log([UInt64](repeating: 1, count: 100)), applied: 80, options: options)
        single.step(.compact(upTo: index(70)))
        #expect(single.core.firstIndex == index(61))
        // Never beyond what was applied.
        single.step(.compact(upTo: index(100)))
        #expect(single.core.firstIndex == index(71))
        options.keptEntries = 1000
        options.keptBytes = 41 * 5
        let bytes = Single(term: 1, entries: log([UInt64](repeating: 1, count: 100)), applied: 80, options: options)
        bytes.step(.compact(upTo: index(70)))
        #expect(bytes.core.firstIndex == index(66))
    }

    @Test func followerThatAnswersNothingAfterTheStreamIsProbed() {
        let single = leader()
        single.receive(.appendRejected(rejected: index(51), hint: position(10, 1)), from: 3, term: 4)
        single.step(.snapshotSent(to: member(3), succeeded: true))
        let end = single.now + T * 12
        var probes = 0
        while single.now < end {
            single.waitForDeadline()
            single.receive(.heartbeatReply(round: .none), from: 2, term: 4)
            probes += single.receive(.heartbeatReply(round: .none), from: 3, term: 4).sent(to: 3).appends.count
        }
        #expect(probes > 0)
        #expect(single.isLeader)
    }
}
