import Testing
import UI
@testable import quarterdeck

@Suite struct ClusterTrackerTests {
    private static func at(_ milliseconds: Int64) -> Moment { Moment(milliseconds: 1_000_000 + milliseconds) }

    private static func playground() -> ClusterTracker {
        let members = [1, 2, 3].map { MemberState(id: $0, name: "n\($0)", endpoint: "127.0.0.1:\($0)2379") }
        return ClusterTracker(ClusterState(name: "p", kind: .playground, members: members), now: at(0))
    }

    private static func attached() -> ClusterTracker {
        var tracker = ClusterTracker(ClusterState(name: "e", kind: .attached), now: at(0))
        tracker.setMembers([1, 2, 3].map { ($0, "e\($0)", "h\($0):2379", false) })
        return tracker
    }

    private static func event(_ node: UInt64, _ kind: NodeEvent.Kind, _ milliseconds: Int64) -> NodeEvent {
        NodeEvent(node: node, atMilliseconds: at(milliseconds).milliseconds, kind: kind)
    }

    private static func status(_ member: UInt64, leader: UInt64, term: UInt64) -> ClusterTracker.StatusAnswer {
        .init(member: member, leader: leader, term: term, raftIndex: 10, appliedIndex: 10, revision: 5, version: "3.5.16", databaseBytes: 1, databaseInUseBytes: 1,
              isLearner: false, latencyMicroseconds: 300)
    }

    @Test func failoverOfAPlaygroundReadsAsOneElectionWithItsGap() {
        var tracker = Self.playground()
        for node in 1...3 as ClosedRange<UInt64> { tracker.heard(Self.event(node, .process(.running), 1)) }
        tracker.heard(Self.event(1, .raft(role: .leader, term: 2, leader: 1), 300))
        tracker.heard(Self.event(1, .firstCommit(term: 2), 310))
        let start = tracker.takeEvents()
        #expect(start.map(\.kind) == [
            .elected(leader: "n1", previous: nil, fromTerm: nil, term: 2, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
            .elected(leader: "n1", previous: nil, fromTerm: nil, term: 2, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
        ])
        #expect(start[0].id == start[1].id)
        #expect(tracker.state.leader?.name == "n1")

        tracker.willChange(1)
        tracker.heard(Self.event(1, .lastCommit(term: 2, atMilliseconds: Self.at(5_000).milliseconds), 5_010))
        tracker.heard(Self.event(1, .process(.dead(reason: "killed")), 5_010))
        #expect(tracker.state.leader == nil)
        tracker.heard(Self.event(3, .raft(role: .preCandidate, term: 2, leader: 0), 6_000))
        tracker.heard(Self.event(3, .raft(role: .candidate, term: 3, leader: 0), 6_010))
        tracker.heard(Self.event(3, .raft(role: .leader, term: 3, leader: 3), 6_020))
        tracker.heard(Self.event(3, .firstCommit(term: 3), 6_040))
        let events = tracker.takeEvents()
        #expect(events.map(\.kind) == [
            .memberDown(member: "n1", reason: "killed", byYou: true, wasLeader: true),
            .campaign(member: "n3", term: 3, isPreVote: true), .campaign(member: "n3", term: 3, isPreVote: false),
            .elected(leader: "n3", previous: "n1", fromTerm: 2, term: 3, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
            .elected(leader: "n3", previous: "n1", fromTerm: 2, term: 3, unavailableMilliseconds: 1_040, toleranceMilliseconds: nil),
        ])
        #expect(events[3].id == events[4].id)
        #expect(tracker.state.leader?.name == "n3")
    }

    @Test func sampleOlderThanTheNewsDoesNotBringAnOldLeaderBack() {
        var tracker = Self.playground()
        tracker.heard(Self.event(2, .process(.running), 1))
        tracker.heard(Self.event(2, .raft(role: .leader, term: 4, leader: 2), 100))
        tracker.heard(Self.event(2, .raft(role: .follower, term: 5, leader: 3), 200))
        _ = tracker.takeEvents()
        var old = NodeStatus(id: 2, process: .running, role: .leader, term: 4, leader: 2, commitIndex: 9, appliedIndex: 9, lastIndex: 9, databaseBytes: 0,
                             databaseInUseBytes: 0, revision: 3, fsyncP99Microseconds: nil, startedAtMilliseconds: 1, sampledAtMilliseconds: 2)
        tracker.heard([old], at: Self.at(210))
        #expect(tracker.state.members[1].role == .follower)
        #expect(tracker.takeEvents().isEmpty)
        old.term = 5
        old.role = .follower
        tracker.heard([old], at: Self.at(900))
        #expect(tracker.takeEvents().isEmpty)
    }

    @Test func sampleTakenJustBeforeTheElectionTellsNoCandidacyAfterIt() {
        var tracker = Self.playground()
        tracker.heard(Self.event(2, .process(.running), 1))
        tracker.heard(Self.event(2, .raft(role: .candidate, term: 2, leader: 0), 100))
        tracker.heard(Self.event(2, .raft(role: .leader, term: 2, leader: 2), 110))
        _ = tracker.takeEvents()
        let old = NodeStatus(id: 2, process: .running, role: .candidate, term: 2, leader: 0, commitIndex: 9, appliedIndex: 9, lastIndex: 9, databaseBytes: 0,
                             databaseInUseBytes: 0, revision: 3, fsyncP99Microseconds: nil, startedAtMilliseconds: 1, sampledAtMilliseconds: 2)
        tracker.heard([old], at: Self.at(120))
        #expect(tracker.state.leader?.name == "n2")
        #expect(tracker.takeEvents().isEmpty)
    }

    @Test func restartTellsHowLongANodeWasAway() {
        var tracker = Self.playground()
        tracker.heard(Self.event(2, .process(.running), 1))
        tracker.heard(Self.event(2, .process(.dead(reason: "disk full")), 1_000))
        tracker.heard(Self.event(2, .process(.starting), 3_000))
        tracker.heard(Self.event(2, .process(.running), 3_500))
        #expect(tracker.takeEvents().map(\.kind) == [
            .memberDown(member: "n2", reason: "disk full", byYou: false, wasLeader: false), .memberUp(member: "n2", afterMilliseconds: 2_500),
        ])
    }

    @Test func pausedAndIsolatedNodesAreToldOnce() {
        var tracker = Self.playground()
        tracker.heard(Self.event(2, .process(.running), 1))
        tracker.heard(Self.event(2, .process(.paused), 10))
        tracker.heard(Self.event(2, .process(.paused), 11))
        tracker.heard(Self.event(2, .process(.running), 20))
        tracker.heard(Self.event(2, .process(.isolated), 30))
        tracker.heard(Self.event(2, .process(.running), 40))
        #expect(tracker.takeEvents().map(\.kind) == [.paused(member: "n2"), .resumed(member: "n2"), .isolated(member: "n2"), .rejoined(member: "n2")])
    }

    @Test func attachedClusterStartsQuietlyAndTellsElectionsWithTheirTolerance() {
        var tracker = Self.attached()
        for member in 1...3 as ClosedRange<UInt64> { tracker.heard(Self.status(member, leader: 1, term: 7), at: Self.at(10), toleranceMilliseconds: 1_000) }
        #expect(tracker.takeEvents().isEmpty)
        #expect(tracker.state.leader?.name == "e1")
        tracker.missed(1, reason: "connection refused", isRefusal: true, at: Self.at(1_000))
        tracker.heard(Self.status(2, leader: 0, term: 7), at: Self.at(1_250), toleranceMilliseconds: 250)
        tracker.heard(Self.status(3, leader: 2, term: 8), at: Self.at(2_500), toleranceMilliseconds: 250)
        #expect(tracker.takeEvents().map(\.kind) == [
            .memberDown(member: "e1", reason: "connection refused", byYou: false, wasLeader: true),
            .elected(leader: "e2", previous: "e1", fromTerm: 7, term: 8, unavailableMilliseconds: 1_500, toleranceMilliseconds: 250),
        ])
    }

    @Test func oneUnansweredQuestionIsNotYetADownMember() {
        var tracker = Self.attached()
        tracker.heard(Self.status(2, leader: 1, term: 7), at: Self.at(10), toleranceMilliseconds: nil)
        tracker.missed(2, reason: "time limit passed", isRefusal: false, at: Self.at(1_000))
        #expect(tracker.state.members[1].isUp)
        tracker.missed(2, reason: "time limit passed", isRefusal: false, at: Self.at(2_000))
        #expect(!tracker.state.members[1].isUp)
        tracker.heard(Self.status(2, leader: 1, term: 7), at: Self.at(3_000), toleranceMilliseconds: nil)
        #expect(tracker.takeEvents().map(\.kind) == [
            .memberDown(member: "e2", reason: "time limit passed", byYou: false, wasLeader: false), .memberUp(member: "e2", afterMilliseconds: 1_000),
        ])
    }

    @Test func lostConnectionIsToldOnceAndItsReturnToo() {
        var tracker = Self.attached()
        tracker.setConnected(true, reason: "", at: Self.at(0))
        tracker.setConnected(false, reason: "refused", at: Self.at(1_000))
        tracker.setConnected(false, reason: "refused", at: Self.at(2_000))
        tracker.setConnected(true, reason: "", at: Self.at(5_000))
        #expect(tracker.takeEvents().map(\.kind) == [.note("no endpoint answers: refused", isBad: true), .note("connected again after 4 s", isBad: false)])
    }
}

@Suite struct RevisionClockTests {
    private func moment(_ milliseconds: Int64) -> Moment { Moment(milliseconds: milliseconds) }

    @Test func revisionsSeenArriveHaveTheirTime() {
        var clock = RevisionClock()
        clock.saw(10, at: moment(1_000))
        for second in 2...60 as ClosedRange<Int64> { clock.saw(10, at: moment(second * 1_000)) } // nothing happens for a minute
        clock.saw(12, at: moment(60_500))
        clock.saw(15, at: moment(61_000))
        #expect(clock.time(of: 11) == moment(60_500))
        #expect(clock.time(of: 12) == moment(60_500))
        #expect(clock.time(of: 13) == moment(61_000))
    }

    @Test func whatHappenedBeforeOrInAGapHasNone() {
        var clock = RevisionClock()
        clock.saw(10, at: moment(1_000))
        clock.saw(20, at: moment(100_000))
        #expect(clock.time(of: 10) == nil)
        #expect(clock.time(of: 15) == nil)
        #expect(clock.time(of: 21) == nil)
    }

    @Test func olderAnswersOfSlowMembersChangeNothing() {
        var clock = RevisionClock()
        clock.saw(10, at: moment(1_000))
        clock.saw(11, at: moment(1_500))
        clock.saw(10, at: moment(1_600))
        clock.saw(12, at: moment(2_000))
        #expect(clock.time(of: 11) == moment(1_500))
        #expect(clock.time(of: 12) == moment(2_000))
    }

    @Test func memoryIsBounded() {
        var clock = RevisionClock()
        for revision in 1...100_000 as ClosedRange<Int64> { clock.saw(revision, at: moment(revision * 10)) }
        #expect(clock.time(of: 99_999) == moment(999_990))
        #expect(clock.time(of: 1) == nil)
    }
}
