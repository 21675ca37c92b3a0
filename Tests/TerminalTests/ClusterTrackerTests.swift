import Client
import Server
import Testing
import UI
@testable import quarterdeck

@Suite struct ClusterTrackerTests {
    private static func at(_ milliseconds: Int64) -> Moment { Moment(milliseconds: 1_000_000 + milliseconds) }

    private static func playground() -> ClusterTracker {
        let members = [1, 2, 3].map { MemberState(id: $0, name: "n\($0)", endpoint: "127.0.0.1:\($0)2379") }
        var tracker = ClusterTracker(ClusterState(name: "p", kind: .playground, members: members), now: at(0))
        for node in 1...3 as ClosedRange<UInt64> {
            tracker.heard(event(node, .running, 1))
            tracker.streamOpened(node, at: at(2))
        }
        _ = tracker.takeEvents()
        return tracker
    }

    private static func attached() -> ClusterTracker {
        var tracker = ClusterTracker(ClusterState(name: "e", kind: .attached), now: at(0))
        tracker.setMembers([1, 2, 3].map { ($0, "e\($0)", "h\($0):2379", false) })
        return tracker
    }

    private static func event(_ node: UInt64, _ process: NodeProcessState, _ milliseconds: Int64) -> NodeEvent {
        NodeEvent(node: node, atMilliseconds: at(milliseconds).milliseconds, process: process)
    }

    private static func raft(_ node: UInt64, _ kind: RaftEvent.Kind, term: UInt64, _ milliseconds: Int64) -> RaftEvent {
        RaftEvent(node: node, atMicroseconds: at(milliseconds).milliseconds * 1_000, term: term, kind: kind)
    }

    private static func sample(_ node: UInt64, _ role: MemberState.Role, term: UInt64, leader: UInt64 = 0, _ milliseconds: Int64) -> NodeSample {
        NodeSample(node: node, atMicroseconds: at(milliseconds).milliseconds * 1_000, role: role, term: term, leader: leader, commit: 10, applied: 9, lastIndex: 11)
    }

    private static func status(_ member: UInt64, leader: UInt64, term: UInt64) -> ClusterTracker.StatusAnswer {
        .init(member: member, leader: leader, term: term, raftIndex: 10, appliedIndex: 10, revision: 5, version: "3.5.16", databaseBytes: 1, databaseInUseBytes: 1,
              isLearner: false, latencyMicroseconds: 300)
    }

    @Test func failoverOfAPlaygroundReadsAsOneElectionWithItsGap() {
        var tracker = Self.playground()
        tracker.heard(Self.raft(1, .roleChanged(.leader), term: 2, 300))
        tracker.heard(Self.raft(1, .firstCommit(index: 1), term: 2, 310))
        let start = tracker.takeEvents()
        #expect(start.map(\.kind) == [
            .elected(leader: "n1", previous: nil, fromTerm: nil, term: 2, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
            .elected(leader: "n1", previous: nil, fromTerm: nil, term: 2, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
        ])
        #expect(start[0].id == start[1].id)
        #expect(tracker.state.leader?.name == "n1")

        tracker.willChange(1)
        tracker.heard(Self.event(1, .dead(reason: "killed"), 5_000))
        tracker.streamEnded(1, at: Self.at(5_010))
        #expect(tracker.state.leader == nil)
        // What the dead one said before does not bring it back.
        tracker.heard([Self.sample(1, .leader, term: 2, leader: 1, 5_000)], at: Self.at(5_020))
        #expect(tracker.state.leader == nil)
        tracker.heard(Self.raft(3, .electionTimeout(afterMicroseconds: 950_000), term: 2, 6_000))
        tracker.heard(Self.raft(3, .roleChanged(.preCandidate), term: 2, 6_000))
        tracker.heard(Self.raft(3, .roleChanged(.candidate), term: 3, 6_010))
        tracker.heard(Self.raft(3, .roleChanged(.leader), term: 3, 6_020))
        tracker.heard(Self.raft(2, .leaderChanged(leader: 3), term: 3, 6_021))
        tracker.heard(Self.raft(3, .firstCommit(index: 7), term: 3, 6_040))
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

    @Test func aLeaderThatHungUnnoticedCountsFromItsLastSign() {
        var tracker = Self.playground()
        tracker.heard(Self.raft(1, .roleChanged(.leader), term: 2, 300))
        _ = tracker.takeEvents()
        tracker.heard(Self.raft(2, .electionTimeout(afterMicroseconds: 1_000_000), term: 2, 5_000))
        tracker.heard(Self.raft(2, .roleChanged(.leader), term: 3, 5_010))
        tracker.heard(Self.raft(2, .firstCommit(index: 7), term: 3, 5_020))
        #expect(tracker.takeEvents().last?.kind
            == .elected(leader: "n2", previous: "n1", fromTerm: 2, term: 3, unavailableMilliseconds: 1_020, toleranceMilliseconds: nil))
    }

    @Test func aHandOverCountsFromItsStartAndIsNoLoss() {
        var tracker = Self.playground()
        tracker.heard(Self.raft(1, .roleChanged(.leader), term: 2, 300))
        _ = tracker.takeEvents()
        tracker.heard(Self.raft(1, .transferStarted(to: 2), term: 2, 5_000))
        tracker.heard(Self.raft(1, .roleChanged(.follower), term: 3, 5_003))
        tracker.heard(Self.raft(2, .roleChanged(.leader), term: 3, 5_004))
        tracker.heard(Self.raft(2, .firstCommit(index: 7), term: 3, 5_006))
        #expect(tracker.takeEvents().map(\.kind) == [
            .elected(leader: "n2", previous: "n1", fromTerm: 2, term: 3, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
            .elected(leader: "n2", previous: "n1", fromTerm: 2, term: 3, unavailableMilliseconds: 6, toleranceMilliseconds: nil),
        ])
    }

    @Test func stateOfANodeSetsTheFiguresAndFindsTheLeaderWhereNoEventDid() {
        var tracker = Self.playground()
        tracker.heard([Self.sample(2, .leader, term: 4, leader: 2, 100), Self.sample(3, .follower, term: 4, leader: 2, 101)], at: Self.at(120))
        #expect(tracker.state.leader?.name == "n2")
        #expect(tracker.state.members[2].role == .follower)
        #expect(tracker.state.members[2].commit == 10 && tracker.state.members[2].applied == 9 && tracker.state.members[2].lastIndex == 11)
        #expect(tracker.state.members[2].sampledAt == Self.at(120))
    }

    @Test func logWritesOfTheLastSecondsMakeThePercentile() {
        var tracker = Self.playground()
        var fast = Self.sample(2, .follower, term: 4, 100), slow = fast
        var histogram = LatencyHistogram()
        histogram.record(microseconds: 900)
        fast.stages = [StageLatency(stage: .logWrite, histogram: histogram)]
        histogram = LatencyHistogram()
        histogram.record(microseconds: 90_000)
        slow.stages = [StageLatency(stage: .logWrite, histogram: histogram)]
        tracker.heard([slow], at: Self.at(100))
        tracker.heard([fast], at: Self.at(200))
        #expect(tracker.state.members[1].fsyncMicroseconds.map { $0 >= 90_000 } == true)
        tracker.heard([fast], at: Self.at(20_000))
        #expect(tracker.state.members[1].fsyncMicroseconds.map { $0 < 1_200 } == true)
    }

    @Test func whatHappenedBeforeTheConsoleIsNoNews() {
        var tracker = Self.playground()
        tracker.heard(Self.raft(1, .roleChanged(.candidate), term: 2, -60_000))
        tracker.heard(Self.raft(1, .roleChanged(.leader), term: 2, -59_990))
        #expect(tracker.takeEvents().isEmpty)
        #expect(tracker.state.leader == nil)
    }

    @Test func attachedToOurOwnNodesElectionsAreExactAndStatusGuessesNothing() {
        var tracker = Self.attached()
        #expect(!tracker.state.isPushed)
        for node in 1...3 as ClosedRange<UInt64> { tracker.streamOpened(node, at: Self.at(5)) }
        #expect(tracker.state.isPushed)
        tracker.heard([Self.sample(1, .leader, term: 2, leader: 1, 6)], at: Self.at(7))
        #expect(tracker.takeEvents().isEmpty)
        #expect(tracker.state.leader?.name == "e1")
        tracker.streamEnded(1, at: Self.at(1_000))
        tracker.missed(1, reason: "connection refused", isRefusal: true, at: Self.at(1_050))
        tracker.heard(Self.status(2, leader: 3, term: 3), at: Self.at(1_990), toleranceMilliseconds: 250)
        tracker.heard(Self.raft(3, .roleChanged(.leader), term: 3, 2_000))
        tracker.heard(Self.raft(3, .firstCommit(index: 9), term: 3, 2_004))
        let events = tracker.takeEvents()
        #expect(events.map(\.kind) == [
            .memberDown(member: "e1", reason: "connection refused", byYou: false, wasLeader: true),
            .elected(leader: "e3", previous: "e1", fromTerm: 2, term: 3, unavailableMilliseconds: nil, toleranceMilliseconds: nil),
            .elected(leader: "e3", previous: "e1", fromTerm: 2, term: 3, unavailableMilliseconds: 1_004, toleranceMilliseconds: nil),
        ])
        tracker.streamOpened(1, at: Self.at(3_000))
        #expect(tracker.takeEvents().map(\.kind) == [.memberUp(member: "e1", afterMilliseconds: 2_000)])
    }

    @Test func aPlaygroundOfRealEtcdIsAskedForWhoLeads() {
        var tracker = Self.playground()
        for node in 1...3 as ClosedRange<UInt64> { tracker.hasNoStream(node) }
        #expect(!tracker.state.isPushed)
        for node in 1...3 as ClosedRange<UInt64> { tracker.heard(Self.status(node, leader: 1, term: 2), at: Self.at(100), toleranceMilliseconds: 250) }
        #expect(tracker.state.leader?.name == "n1")
        tracker.heard(Self.event(1, .dead(reason: "killed"), 1_000))
        tracker.heard(Self.status(1, leader: 1, term: 2), at: Self.at(1_001), toleranceMilliseconds: 250)
        #expect(tracker.state.leader == nil)
        tracker.heard(Self.status(2, leader: 3, term: 3), at: Self.at(2_500), toleranceMilliseconds: 250)
        #expect(tracker.takeEvents().last?.kind
            == .elected(leader: "n3", previous: "n1", fromTerm: 2, term: 3, unavailableMilliseconds: 1_500, toleranceMilliseconds: 250))
    }

    @Test func restartTellsHowLongANodeWasAway() {
        var tracker = Self.playground()
        tracker.heard(Self.event(2, .dead(reason: "disk full"), 1_000))
        tracker.heard(Self.event(2, .starting, 3_000))
        tracker.heard(Self.event(2, .running, 3_500))
        #expect(tracker.takeEvents().map(\.kind) == [
            .memberDown(member: "n2", reason: "disk full", byYou: false, wasLeader: false), .memberUp(member: "n2", afterMilliseconds: 2_500),
        ])
    }

    @Test func pausedAndIsolatedNodesAreToldOnce() {
        var tracker = Self.playground()
        tracker.heard(Self.event(2, .paused, 10))
        tracker.heard(Self.event(2, .paused, 11))
        tracker.heard(Self.event(2, .running, 20))
        tracker.heard(Self.event(2, .isolated, 30))
        tracker.heard(Self.event(2, .running, 40))
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

@Suite struct StageBucketTests {
    @Test func bucketsOfTheNodesAreThoseOfTheScreen() { #expect(StageHistogram.bounds == LatencyHistogram.fineBounds) }
}

@Suite struct ClockCorrectionTests {
    private func time(_ monotonic: Int64, _ wall: Int64) -> ObservedTime {
        ObservedTime(monotonicNanoseconds: monotonic * 1_000_000, wallMicroseconds: wall * 1_000)
    }

    @Test func aClockThatIsRightIsLeftAlone() {
        var clock = ClockCorrection()
        #expect(clock.correction(of: time(1_000, 50_000), receivedMicroseconds: 50_001_000) == 0)
        // Late, since this process was busy.
        #expect(clock.correction(of: time(1_100, 50_100), receivedMicroseconds: 50_900_000) == 0)
        #expect(clock.correction(of: time(2_100, 51_100), receivedMicroseconds: 51_101_000) == 0)
    }

    @Test func aClockThatIsWrongIsSetRight() {
        var clock = ClockCorrection()
        #expect(clock.correction(of: time(1_000, 50_000), receivedMicroseconds: 50_001_000) == 0)
        // It leaps by an hour and back.
        #expect(clock.correction(of: time(1_100, 3_650_100), receivedMicroseconds: 50_102_000) == -3_599_999_000)
        #expect(clock.correction(of: time(1_200, 50_200), receivedMicroseconds: 50_201_000) == 0)
        // It is slow.
        var slow = ClockCorrection()
        #expect(slow.correction(of: time(1_000, 40_000), receivedMicroseconds: 50_002_000) == 10_002_000)
        #expect(slow.correction(of: time(1_100, 40_100), receivedMicroseconds: 50_101_000) == 10_001_000)
        #expect(slow.correction(of: time(1_200, 40_200), receivedMicroseconds: 50_700_000) == 10_001_000)
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
