import Foundation
import Testing
@testable import UI

@Suite struct ElectionsTests {
    static let start = Moment(milliseconds: 1_763_923_327_000)

    static func session(_ script: ElectionScript, until end: Int64 = .max, size: Size = Size(columns: 120, rows: 36)) -> Session {
        var session = Session(size)
        script.play(to: &session, until: end)
        return session
    }

    static func killed(verdicts: Bool = true) -> ElectionScript {
        var script = ElectionScript(start: start, leader: 1, term: 11)
        script.kill(10_000_000, leader: 1, heir: 3, term: 11)
        script.canary(0, 16_000_000, outages: [(10_000_000, 11_092_000)])
        if verdicts { for second in 0..<16 { script.verdict(Int64(second) * 1_000_000 + 500_000, acknowledged: 1_000 + second * 50) } }
        return script
    }

    @Test func aKillIsToldWithCausePhasesAndCost() throws {
        let elections = Self.session(Self.killed()).model.elections
        let election = try #require(elections.elections.last)
        #expect(elections.elections.count == 1)
        #expect(election.causeText == "kill n1 (you)")
        #expect(election.fromTerm == 11 && election.term == 12)
        #expect(election.previous == ElectionScript.id(1) && election.leader == ElectionScript.id(3))
        #expect(election.duration(.detect) == 1_040_000)
        #expect(election.duration(.preVote) == 28_000)
        #expect(election.duration(.vote) == 15_000)
        #expect(election.duration(.firstCommit) == 9_000)
        #expect(election.noLeader == 1_083_000)
        #expect(election.votes == 3 && election.voters == 5 && election.splitVotes == 0)
        #expect(election.remark == "n3's timer of 1,040 ms fired first (n2 had 231 ms left, n4 388 ms, n5 906 ms)")
        let clients = try #require(election.clients)
        #expect(clients.failed == 3 && clients.retried > 40)
        #expect((1_090_000...1_120_000).contains(clients.gap))
        #expect(election.check == Election.WriteCheck(lost: 0, checked: 1_750))
        let steps = elections.steps(of: election).map(\.text)
        #expect(steps == ["kill n1 (you), it led", "n3's timer fires (1,040 ms)", "n3 asks pre-votes, term 12", "n2 n4 n5 would vote for n3", "n3 asks votes, term 12", "n2 n4 n5 vote for n3",
                          "n3 leads term 12: 3 of 5 votes (n2 n3 n4), 3 needed", "n2 n4 n5 follow n3", "first entry of term 12 committed", "first client write acknowledged"])
    }

    @Test func aBrokenConnectionIsNoTimer() throws {
        var script = ElectionScript(start: Self.start, leader: 1, term: 11)
        script.fault(10_000_000, .kill(ElectionScript.id(1)))
        for node in 2...5 { script.raft(10_003_000 + Int64(node) * 200, node, 11, .leaderConnectionLost(leader: ElectionScript.id(1))) }
        script.raft(10_005_000, 2, 12, .preVoteAsked)
        for node in 3...5 { script.raft(10_007_000, node, 12, .voteCast(for: ElectionScript.id(2), isPreVote: true)) }
        script.raft(10_020_000, 2, 12, .voteAsked)
        for node in 3...5 { script.raft(10_030_000, node, 12, .voteCast(for: ElectionScript.id(2), isPreVote: false)) }
        script.raft(10_040_000, 2, 12, .elected(votes: 3, voters: 5))
        script.raft(10_048_000, 2, 12, .firstCommit(index: 9))
        let elections = Self.session(script).model.elections
        let election = try #require(elections.elections.last)
        #expect(election.remark == "n2 n3 n4 n5 saw the connection to n1 break after 3.4 ms: no timer had to run out")
        #expect(election.duration(.detect) == 3_400 && election.noLeader == 40_000)
        #expect(elections.steps(of: election)[1].text == "n2 n3 n4 n5 lose the connection to n1")
        // The process died by itself: the same, without anybody who did it.
        var alone = ElectionScript(start: Self.start, leader: 1, term: 11)
        for (at, event) in script.events.dropFirst(6) { if case .faults = event { continue }; alone.add(at, event) }
        #expect(Self.session(alone).model.elections.elections.last?.causeText == "connection to n1 lost")
    }

    @Test func lanesShowWhatEachNodeWas() throws {
        let elections = Self.session(Self.killed()).model.elections
        let at = { (node: Int, microseconds: Int64) in elections.lanes[node - 1].state(at: Self.start.microseconds + microseconds) }
        #expect(at(1, 9_999_000) == .leader && at(1, 10_000_000) == .down && at(1, 15_000_000) == .down)
        #expect(at(3, 11_000_000) == .follower && at(3, 11_050_000) == .preCandidate && at(3, 11_070_000) == .candidate && at(3, 11_083_000) == .leader)
        #expect(at(2, 11_050_000) == .follower)
        #expect(elections.hasHeartbeat(from: Self.start.microseconds + 9_000_000, to: Self.start.microseconds + 9_100_000))
        #expect(!elections.hasHeartbeat(from: Self.start.microseconds + 10_500_000, to: Self.start.microseconds + 10_600_000))
        #expect(elections.votes.count { !$0.isPreVote } == 3)
        #expect(elections.term(at: Self.start.microseconds + 11_000_000) == 11)
        #expect(elections.term(at: Self.start.microseconds + 11_083_000) == 12)
    }

    @Test func whileNobodyLeadsTheElectionUnderWayIsShown() throws {
        var session = Self.session(Self.killed(), until: 10_900_000)
        let pending = try #require(session.model.elections.pending)
        #expect(pending.causeText == "kill n1 (you)" && pending.electedAt == nil)
        #expect(session.model.elections.elections.isEmpty)
        session.press(KeyPress("4"))
        #expect(session.screen.contains("no leader for 900ms: kill n1 (you)"))
        for (at, event) in Self.killed().sorted where at > 10_900_000 { session.advance(to: Self.killed().moment(at)); session.tell(event) }
        #expect(session.model.elections.pending == nil && session.model.elections.elections.count == 1)
    }

    @Test func aTransferIsNoFailure() throws {
        let election = try #require(Self.session(ElectionScript.minute(start: Self.start), until: 20_000_000).model.elections.elections.last)
        #expect(election.causeText == "handed over to n1 (you)")
        #expect(election.noLeader == 11_000)
        #expect(election.duration(.detect) == 1_200)
    }

    @Test func aSplitVoteIsCounted() throws {
        let elections = Self.session(ElectionScript.minute(start: Self.start)).model.elections
        let election = try #require(elections.elections.last)
        #expect(election.causeText == "partition n3 | n1 n2 n4 n5 (you)")
        #expect(election.fromTerm == 12 && election.term == 14 && election.splitVotes == 1)
        #expect(elections.steps(of: election).map(\.text).contains("n2 refuses n5: already voted"))
        // The old leader cannot reach a majority: cut off from the moment of the partition.
        #expect(elections.lanes[2].state(at: Self.start.microseconds + 44_100_000) == .isolated)
        #expect(elections.elections.map(\.number) == [1, 2, 3])
    }

    /// Each node's events keep their order, but those of several nodes arrive with different delays, and faults and states of the
    /// cluster in between.
    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8] as [UInt64])
    func orderOfArrivalDoesNotMatter(seed: UInt64) {
        let expected = Self.session(ElectionScript.minute(start: Self.start)).model.elections
        var random = Seeded(seed)
        var delays: [UInt64: Int64] = [:]
        for id in ElectionScript.ids { delays[id] = Int64.random(in: 0...400_000, using: &random) }
        var session = Session()
        let script = ElectionScript.minute(start: Self.start)
        session.model = Model(size: session.model.size, now: Self.start, cluster: script.first)
        let late = script.sorted.enumerated().map { index, item -> (at: Int64, index: Int, event: DataEvent) in
            if case .raft(let events) = item.event { return (item.at + delays[events[0].node]!, index, item.event) }
            return (item.at, index, item.event)
        }.sorted { $0.at != $1.at ? $0.at < $1.at : $0.index < $1.index }
        for item in late {
            session.advance(to: max(session.model.now, script.moment(item.at)))
            session.tell(item.event)
        }
        let found = session.model.elections
        #expect(found.elections.count == expected.elections.count)
        for (a, b) in zip(found.elections, expected.elections) {
            #expect(a.causeText == b.causeText)
            #expect(a.noLeader == b.noLeader && a.committedAt == b.committedAt && a.splitVotes == b.splitVotes)
            #expect(a.clients == b.clients)
            #expect(found.steps(of: a).map(\.text).sorted() == expected.steps(of: b).map(\.text).sorted())
        }
    }

    @Test func whatWasMissedIsFilledFromWhatIsKnown() throws {
        // Without the event itself: the role tells it.
        func played(without isDropped: (RaftEvent) -> Bool) -> ElectionsState {
            var session = Session()
            let script = Self.killed()
            session.model = Model(size: session.model.size, now: Self.start, cluster: script.first)
            for (at, event) in script.sorted {
                session.advance(to: max(session.model.now, script.moment(at)))
                if case .raft(let events) = event, isDropped(events[0]) { continue }
                session.tell(event)
            }
            return session.model.elections
        }
        let byRole = try #require(played { if case .elected = $0.kind { true } else { false } }.elections.last)
        #expect(byRole.leader == ElectionScript.id(3) && byRole.noLeader == 1_083_000 && !byRole.isOutline)
        // Nothing of the winner: what the cluster's events say.
        let outline = try #require(played { _ in true }.elections.last)
        #expect(outline.isOutline && outline.leader == ElectionScript.id(3) && outline.previous == ElectionScript.id(1))
        #expect(outline.causeText == "n1 killed (you)")
        #expect(outline.noLeader == 1_092_000)
        #expect(Election.Phase.allCases.allSatisfy { outline.duration($0) == nil })
        // Nothing of the voters: what the candidate counted.
        let counted = played { $0.node != ElectionScript.id(3) }
        let election = try #require(counted.elections.last)
        #expect(counted.steps(of: election).map(\.text).contains("n2 n4 n5 would vote for n3"))
    }

    @Test func aNodeThatIsCutOffCampaignsInVain() throws {
        var script = ElectionScript(start: Self.start, leader: 1, term: 11)
        script.fault(2_000_000, .isolate(ElectionScript.id(5)))
        for round in 0..<5 {
            let at = 3_100_000 + Int64(round) * 1_300_000
            script.raft(at, 5, 11, .electionTimeout(afterMicroseconds: 1_100_000))
            script.raft(at, 5, 11, .roleChanged(.preCandidate))
            script.raft(at + 500, 5, 12, .preVoteAsked)
        }
        script.kill(10_000_000, leader: 1, heir: 3, term: 11)
        let calm = Self.session(script, until: 9_000_000).model.elections
        #expect(calm.pending == nil && calm.elections.isEmpty)
        let election = try #require(Self.session(script).model.elections.elections.last)
        #expect(election.duration(.detect) == 1_040_000)
        #expect(election.causeText == "kill n1 (you)")
    }

    @Test func lostWritesAreCheckedNeverAssumed() throws {
        #expect(Self.session(Self.killed(verdicts: false)).model.elections.elections.last?.check == nil)
        var session = Self.session(Self.killed(verdicts: false))
        session.press(KeyPress("4"))
        #expect(session.screen.contains("not checked"))
        var script = Self.killed(verdicts: false)
        script.verdict(9_500_000, acknowledged: 900)
        script.verdict(12_500_000, acknowledged: 1_000, violations: ["key /w/3: revision 48,100 was acknowledged and is gone"])
        #expect(Self.session(script).model.elections.elections.last?.check == Election.WriteCheck(lost: 1, checked: 1_000))
    }

    /// The canary is started by the kill itself: no write was acknowledged before.
    @Test func theGapOfACanaryThatBeganWithTheLossCountsFromTheLoss() throws {
        var script = ElectionScript(start: Self.start, leader: 1, term: 11)
        script.kill(10_000_000, leader: 1, heir: 3, term: 11)
        script.canary(10_000_000, 16_000_000, outages: [(10_000_000, 11_092_000)])
        let clients = try #require(Self.session(script).model.elections.elections.last?.clients)
        #expect((1_085_000...1_120_000).contains(clients.gap))
    }

    /// Without a workload the canary's own watch tells whether its acknowledged writes are there.
    @Test func theCanaryChecksItsOwnWrites() {
        var script = Self.killed(verdicts: false)
        script.add(9_500_000, .canaryCheck(CanaryCheck(acknowledged: 400, confirmed: 398, lost: 2, lostRevisions: [5, 6])))
        script.add(12_500_000, .canaryCheck(CanaryCheck(acknowledged: 500, confirmed: 497, lost: 3, lostRevisions: [5, 6, 7])))
        #expect(Self.session(script).model.elections.elections.last?.check == Election.WriteCheck(lost: 1, checked: 497))
        // A canary that was started anew counts from nothing.
        var anew = Self.killed(verdicts: false)
        anew.add(9_500_000, .canaryCheck(CanaryCheck(acknowledged: 400, confirmed: 398, lost: 2)))
        anew.add(12_500_000, .canaryCheck(CanaryCheck(acknowledged: 50, confirmed: 50)))
        #expect(Self.session(anew).model.elections.elections.last?.check == Election.WriteCheck(lost: 0, checked: 50))
    }

    @Test func aClusterThatIsPolledIsSaidToBe() {
        let session = Scene.play(.electionsPolled, Size(columns: 120, rows: 36))
        let election = session.model.elections.elections.last
        #expect(election?.toleranceMilliseconds == 250 && election?.isOutline == true)
        #expect(session.screen.contains("± 250 ms"))
        #expect(session.screen.contains("phases are told by quarterdeck's own nodes only"))
    }

    @Test func memoryIsBounded() {
        var state = ElectionsState()
        var cluster = Sample.cluster(now: Self.start, nodes: 3)
        cluster.isPushed = true
        state.observe(cluster, at: Self.start)
        for term in 1...1_200 as ClosedRange<UInt64> {
            let at = Self.start.microseconds + Int64(term) * 10_000_000
            let node = ElectionScript.ids[Int(term % 3)]
            state.heard([RaftEvent(node: node, atMicroseconds: at, term: term, kind: .electionTimeout(afterMicroseconds: 1_000_000)),
                         RaftEvent(node: node, atMicroseconds: at + 2_000, term: term, kind: .voteAsked),
                         RaftEvent(node: ElectionScript.ids[Int(term + 1) % 3], atMicroseconds: at + 3_000, term: term, kind: .voteCast(for: node, isPreVote: false)),
                         RaftEvent(node: node, atMicroseconds: at + 4_000, term: term, kind: .elected(votes: 2, voters: 3)),
                         RaftEvent(node: node, atMicroseconds: at + 5_000, term: term, kind: .firstCommit(index: term))], cluster: cluster)
            state.heard((0..<50).map { CanaryWrite(dueMicroseconds: at + Int64($0) * 20_000, tookMicroseconds: 2_000, outcome: .acknowledged) })
        }
        #expect(state.elections.count <= ElectionsState.electionLimit && state.elections.count > 300)
        #expect(state.writes.count <= 2 * ElectionsState.writeLimit + 50)
        #expect(state.elections.last?.number == 1_200)
        #expect(state.lanes.allSatisfy { $0.roles.count <= NodeLane.changeLimit })
    }

    @Test func theExportIsJSONWithEverything() throws {
        let session = Self.session(ElectionScript.minute(start: Self.start))
        let root = try #require(try JSONSerialization.jsonObject(with: Data(session.model.exportedElections.utf8)) as? [String: Any])
        #expect(root["cluster"] as? String == "demo")
        let list = try #require(root["elections"] as? [[String: Any]])
        #expect(list.count == 3)
        #expect(list[1]["cause"] as? String == "kill n1 (you)")
        #expect((list[1]["phases"] as? [String: Int])?["detect"] == 1_040_000)
        #expect((list[1]["steps"] as? [[String: Any]])?.count == 10)
        #expect((list[2]["splitVotes"] as? Int) == 1)
        #expect((list[1]["clients"] as? [String: Int])?["failed"] == 3)
    }

    // MARK: The view

    @Test func keysOfTheView() {
        var session = Self.session(ElectionScript.minute(start: Self.start))
        session.press(KeyPress("4"))
        #expect(session.model.elections.right == nil)
        session.press(KeyPress("("))
        #expect(session.model.elections.shown?.number == 3)
        session.press(KeyPress("("))
        #expect(session.model.elections.shown?.number == 2)
        #expect(session.model.elections.right != nil)
        session.press(KeyPress(.down))
        #expect(session.model.elections.step == 0 && session.screen.contains("▾ +0 ms"))
        session.press(KeyPress(.down))
        #expect(session.screen.contains("▾ +1,040 ms"))
        let zoom = session.model.elections.zoom
        session.press(KeyPress("<"))
        #expect(session.model.elections.zoom == zoom - 1 && session.screen.contains("▾ +1,040 ms"))
        session.press(KeyPress(.left))
        session.press(KeyPress(" "))
        #expect(session.model.elections.right == nil && session.model.elections.selection == nil && session.model.elections.step == nil)
        #expect(session.model.elections.zoom == ElectionsState.liveZoom)
        session.press(KeyPress("("), KeyPress("b"), KeyPress("("), KeyPress("c"))
        #expect(session.model.elections.compared == 3 && session.screen.contains("Elections 2 and 3 from the loss of the leader"))
        session.press(.escape)
        #expect(session.model.elections.compared == nil)
        session.press(KeyPress("o"))
        #expect(session.screen.contains("~/elections-"))
        session.press(.enter)
        #expect(session.commands.contains { if case .export(_, let path, let content) = $0 { path.hasPrefix("~/elections-") && content.first == UInt8(ascii: "{") } else { false } })
        session.press(KeyPress("r"), KeyPress(.enter))
        #expect(session.commands.contains { if case .record(_, let path?) = $0 { path.hasSuffix(".jsonl") } else { false } })
        session.tell(.recording(path: "~/x.jsonl"))
        session.press(KeyPress("r"))
        #expect(session.commands.contains { if case .record(_, nil) = $0 { true } else { false } })
    }

    @Test func capitalsActOnWhoeverLeads() {
        var session = Session(Size(columns: 120, rows: 36))
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress("4"), KeyPress("K"))
        #expect(session.commands.contains { if case .addFault(_, .kill(ElectionScript.ids[2]), nil) = $0 { true } else { false } })
        session.press(KeyPress("P"), KeyPress("X"), KeyPress("L"), KeyPress("C"))
        #expect(session.commands.contains { if case .addFault(_, .pause(ElectionScript.ids[2]), nil) = $0 { true } else { false } })
        #expect(session.commands.contains { if case .addFault(_, .isolate(ElectionScript.ids[2]), nil) = $0 { true } else { false } })
        #expect(session.commands.contains { if case .transferLeadership(_, let to) = $0 { to != ElectionScript.ids[2] } else { false } })
        #expect(session.commands.contains { if case .setCanary(_, isOn: true) = $0 { true } else { false } })
        var attached = Session(Size(columns: 120, rows: 36), kind: .attached, mode: .ask)
        attached.tell(.cluster(attached.model.cluster))
        attached.press(KeyPress("4"), KeyPress("K"))
        #expect(attached.screen.contains("only nodes that this console started can be stopped or cut off"))
        attached.press(KeyPress("C"))
        #expect(attached.screen.contains("Start the canary here?"))
        attached.press(KeyPress("y"))
        #expect(attached.commands.contains { if case .setCanary(_, isOn: true) = $0 { true } else { false } })
    }

    @Test func theMouseChoosesElectionsAndSteps() {
        for size in [Size(columns: 120, rows: 36), Size(columns: 200, rows: 60)] {
            var session = Self.session(ElectionScript.minute(start: Self.start), size: size)
            session.press(KeyPress("4"))
            let layout = session.model.electionsLayout
            session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: layout.list.column + 10, row: layout.list.row + 3))))
            #expect(session.model.elections.shown?.number == 2)
            session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: layout.steps.column + 10, row: layout.steps.row + 2))))
            #expect(session.model.elections.step == 1)
            let plot = session.model.timelinePlot
            let kill = plot.column + Int((session.model.elections.shown!.lostAt - session.model.timelineStart) / session.model.elections.perColumn)
            session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: kill, row: plot.row))))
            #expect(session.model.elections.step == 0)
            session.act(.mouse(MouseEvent(kind: .wheelDown, position: Position(column: layout.list.column + 10, row: layout.list.row + 3))))
            #expect(session.model.elections.shown?.number == 1)
        }
    }

    @Test func panelsTileTheBody() {
        for columns in stride(from: 80, through: 260, by: 20) {
            for rows in stride(from: 24, through: 90, by: 6) {
                let body = ScreenLayout(Size(columns: columns, rows: rows)).body
                for lanes in [0, 1, 3, 5, 7, 9] {
                    for focused in [Panel.timeline, .elections] {
                        let layout = ElectionsLayout(body: body, lanes: lanes, focused: focused)
                        let panels = [layout.timeline, layout.steps, layout.cost, layout.list].filter { !$0.isEmpty }
                        #expect(panels.reduce(0) { $0 + $1.columns * $1.rows } == body.columns * body.rows, "\(columns)x\(rows) \(lanes)")
                        for panel in panels { #expect(panel.rows >= 4 && panel.columns >= 30, "\(columns)x\(rows) \(lanes): \(panel)") }
                    }
                }
            }
        }
    }
}
