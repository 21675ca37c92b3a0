import Base
@testable import Raft
import Testing

@Suite struct ConfigurationChangeTests {
    private let three = Configuration(voters: [member(1), member(2), member(3)])

    @Test func oneVoterChangesAtOnce() throws {
        #expect(try three.applying(ConfigurationChange(steps: [.addVoter(member(4))])) == Configuration(voters: [1, 2, 3, 4].map(member)))
        #expect(try three.applying(ConfigurationChange(steps: [.remove(member(2))])) == Configuration(voters: [1, 3].map(member)))
        #expect(try three.applying(ConfigurationChange(steps: [.addLearner(member(3))])) == Configuration(voters: [1, 2].map(member), learners: [member(3)]))
        let withLearner = Configuration(voters: [1, 2].map(member), learners: [member(3)])
        #expect(try withLearner.applying(ConfigurationChange(steps: [.addVoter(member(3))])) == three)
    }

    @Test func severalVotersGoThroughAJointConfiguration() throws {
        let joint = try three.applying(ConfigurationChange(steps: [.addVoter(member(4)), .addLearner(member(1)), .addLearner(member(7))]))
        #expect(joint == Configuration(voters: [2, 3, 4].map(member), outgoingVoters: [1, 2, 3].map(member), learners: [member(7)],
                                       nextLearners: [member(1)], leavesJointAutomatically: true))
        #expect(try joint.applying(ConfigurationChange(steps: [])) == Configuration(voters: [2, 3, 4].map(member), learners: [1, 7].map(member)))
        #expect(throws: ConfigurationFault.isJoint) { try joint.applying(ConfigurationChange(steps: [.addVoter(member(9))])) }
        let forced = try three.applying(ConfigurationChange(steps: [.addVoter(member(4))], forcesJoint: true))
        #expect(forced.isJoint)
    }

    @Test func senselessChangesAreRefused() {
        #expect(throws: ConfigurationFault.noVoters) { try Configuration(voters: [member(1)]).applying(ConfigurationChange(steps: [.remove(member(1))])) }
        #expect(throws: ConfigurationFault.isNotJoint) { try three.applying(ConfigurationChange(steps: [])) }
        #expect(throws: ConfigurationFault.noMember) { try three.applying(ConfigurationChange(steps: [.addVoter(.none)])) }
        let single = Single()
        single.lead()
        #expect(single.step(.proposeConfiguration(ConfigurationChange(steps: []))).changesRefused == [.notAllowed])
    }

    @Test func payloadsSurviveTheirEncoding() throws {
        let change = ConfigurationChange(steps: [.addVoter(member(1)), .addLearner(member(.max)), .remove(member(3))], forcesJoint: true, context: [1, 2, 3])
        #expect(try ConfigurationChange(entryPayload: change.entryPayload) == change)
        #expect(try ConfigurationChange(entryPayload: []).steps.isEmpty)
        #expect(throws: (any Error).self) { try ConfigurationChange(entryPayload: change.entryPayload + [0]) }
        #expect(throws: (any Error).self) { try ConfigurationChange(entryPayload: change.entryPayload.dropLast().map { $0 }) }
        #expect(three.applying(entryPayload: [9, 9]) == three)
        #expect(try ConfigurationChange(entryPayload: three.bootstrapPayload()).steps == [1, 2, 3].map { .addVoter(member($0)) })
    }

    @Test func oneChangeAtATime() {
        let single = Single()
        single.lead()
        #expect(single.step(.proposeConfiguration(ConfigurationChange(steps: [.addLearner(member(4))]))).changesRefused.isEmpty)
        #expect(single.step(.proposeConfiguration(ConfigurationChange(steps: [.addLearner(member(5))]))).changesRefused == [.configurationPending])
        single.sync()
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 2, term: 1)
        #expect(single.step(.proposeConfiguration(ConfigurationChange(steps: [.addLearner(member(5))]))).changesRefused.isEmpty)
    }

    @Test func followersRefuseChanges() {
        let single = Single()
        single.receive(.heartbeat(commit: .zero, round: .none), from: 2, term: 1)
        #expect(single.step(.proposeConfiguration(ConfigurationChange(steps: [.addVoter(member(4))]))).changesRefused == [.noLeader])
    }

    @Test func noChangeBeforeTheTermsFirstCommit() {
        let single = Single()
        single.waitForDeadline()
        single.receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: 2, term: 1)
        single.sync()
        single.receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: 2, term: 1)
        #expect(single.isLeader)
        #expect(single.step(.proposeConfiguration(ConfigurationChange(steps: [.addVoter(member(4))]))).changesRefused == [.configurationPending])
    }

    @Test func learnersReceiveButDoNotCount() {
        let single = Single(learners: [4])
        single.lead()
        let effects = single.step(.propose(payloads: [[1]]))
        #expect(effects.sent(to: 4).count == 0)
        single.receive(.appendRejected(rejected: index(0), hint: .zero), from: 4, term: 1)
        single.sync()
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 4, term: 1)
        #expect(single.core.commit < single.core.lastIndex)
        single.receive(.appendAccepted(match: single.core.lastIndex), from: 3, term: 1)
        #expect(single.core.commit == single.core.lastIndex)
    }

    @Test func newQuorumCountsAsSoonAsTheEntryIsInTheLog() {
        let single = Single(voters: [1])
        single.lead(votes: [])
        single.step(.proposeConfiguration(ConfigurationChange(steps: [.addVoter(member(2))])))
        single.sync()
        let last = single.core.lastIndex
        #expect(single.core.commit < last)
        single.receive(.appendAccepted(match: last), from: 2, term: 1)
        #expect(single.core.commit == last)
    }

    @Test func overwrittenChangeIsTakenBack() {
        let single = Single()
        let change = Entry(index: index(1), term: Term(1), kind: .configuration, proposedAt: .unknown,
                           payload: ConfigurationChange(steps: [.addVoter(member(4))]).entryPayload)
        single.receive(.append(previous: .zero, entries: [change], commit: .zero), from: 2, term: 1)
        #expect(single.core.configuration.voters.count == 4)
        let effects = single.receive(.append(previous: .zero, entries: [entry(1, 2)], commit: .zero), from: 3, term: 2)
        #expect(single.core.configuration.voters.count == 3)
        #expect(effects.notes.contains(.configurationChanged(three)))
    }

    @Test func uncommittedChangeIsInEffectAfterARestart() {
        let change = Entry(index: index(2), term: Term(1), kind: .configuration, proposedAt: .unknown,
                           payload: ConfigurationChange(steps: [.remove(member(1))]).entryPayload)
        let single = Single(term: 1, entries: [entry(1, 1), change], applied: 1)
        #expect(single.core.configuration.voters == [2, 3].map(member))
        #expect(single.core.committedConfiguration == three)
        // Not committed yet: the others may need it to lead once more.
        #expect(single.core.nextDeadline < .zero + T * 2)
    }

    @Test func clusterGrowsShrinksAndSwapsMembers() {
        let bench = Bench(6, voters: 3)
        var leader = bench.elect()
        func change(_ steps: [ConfigurationChange.Step]) {
            leader = bench.elect()
            bench.give(.proposeConfiguration(ConfigurationChange(steps: steps)), to: leader.core.id.rawValue)
            bench.run(for: T)
            bench.give(.propose(payloads: [[7]]), to: bench.elect().core.id.rawValue)
            bench.run(for: T)
        }
        change([.addLearner(member(4))])
        #expect(bench[4].core.configuration.learners == [member(4)])
        #expect(bench[4].applied.map(\.index) == leader.applied.map(\.index))
        change([.addVoter(member(4))])
        change([.addVoter(member(5)), .addVoter(member(6)), .remove(member(4))])
        let expected = Configuration(voters: [1, 2, 3, 5, 6].map(member))
        for id in expected.voters { #expect(bench[id.rawValue].core.configuration == expected) }
        // The removed member knows it, for it learned the change before it was cut off.
        #expect(bench[4].core.configuration.isVoter(member(4)) == false)
        let term = bench.elect().core.term
        bench.run(for: T * 10)
        #expect(bench.elect().core.term == term)
        for id in expected.voters { #expect(bench[id.rawValue].applied.map(\.index) == leader.applied.map(\.index)) }
    }

    @Test func removedLeaderHandsOnAndStepsDown() {
        let bench = Bench(3)
        let old = bench.elect()
        bench.give(.proposeConfiguration(ConfigurationChange(steps: [.remove(old.core.id)])), to: old.core.id.rawValue)
        bench.run(for: .milliseconds(3))
        #expect(!old.isLeader)
        #expect(old.effects.notes.contains(.steppedDown(term: Term(1), reason: .removed)))
        // At once, without an election timeout.
        let new = bench.leader
        #expect(new != nil && new !== old)
        #expect(new?.core.configuration.voters.contains(old.core.id) == false)
        bench.run(for: T * 5)
        #expect(bench.leader === new)
    }

    @Test func jointChangeNeedsBothMajorities() {
        let single = Single()
        single.lead()
        single.step(.proposeConfiguration(ConfigurationChange(steps: [.addVoter(member(4)), .addVoter(member(5)), .remove(member(2)), .remove(member(3))])))
        single.sync()
        let last = single.core.lastIndex
        single.receive(.appendAccepted(match: last), from: 4, term: 1)
        single.receive(.appendAccepted(match: last), from: 5, term: 1)
        #expect(single.core.commit < last)
        let effects = single.receive(.appendAccepted(match: last), from: 2, term: 1)
        #expect(single.core.commit == last)
        // The end of the joint change follows by itself.
        #expect(effects.persisted.flatMap(\.entries).map(\.payload) == [[]])
        #expect(single.core.configuration == Configuration(voters: [1, 4, 5].map(member)))
    }
}
