import Testing
@testable import UI

/// The Chaos view key by key: what each verb asks of the runtime, and when it asks nothing.
@Suite struct ChaosTests {
    static let size = Size(columns: 120, rows: 36)

    static func open(_ nodes: Int = 5, kind: ClusterState.Kind = .playground, isReadOnly: Bool = false) -> Session {
        var session = Session(size, kind: kind, isReadOnly: isReadOnly)
        session.tell(.cluster(Sample.cluster(kind: kind, now: session.model.now, nodes: nodes)))
        session.tell(.scenarios([ScenarioSummary(name: "split-vote", title: "Split vote", description: "Two candidates."), ScenarioSummary(name: "full-disk", title: "Full disk", description: "A disk.", obstacle: "needs disk faults")]))
        session.press(KeyPress("9"))
        return session
    }

    static func added(_ session: Session) -> [(fault: Fault, milliseconds: Int64?)] {
        session.commands.compactMap { if case .addFault(_, let fault, let milliseconds) = $0 { (fault, milliseconds) } else { nil } }
    }

    static func isOn(_ session: inout Session, _ list: Fault...) {
        session.tell(.faults(list.enumerated().map { ActiveFault(id: $0.offset + 1, fault: $0.element, since: session.model.now) }))
    }

    let ids = (0..<5).map(Sample.id)

    // MARK: At once

    @Test func keysOfTheOverviewMeanTheSameHere() {
        var session = Self.open()
        session.press(KeyPress("j"))
        session.press(KeyPress("K"), KeyPress("P"), KeyPress("X"), KeyPress("S"))
        #expect(Self.added(session).map(\.fault) == [.kill(ids[1]), .pause(ids[1]), .isolate(ids[1]), .stop(ids[1])])
        session.press(KeyPress("R"), KeyPress("L"), KeyPress("W"))
        #expect({ if case .restartNode(_, ids[1])? = session.commands.dropLast(2).last { true } else { false } }())
        #expect({ if case .transferLeadership(_, ids[1])? = session.commands.dropLast().last { true } else { false } }())
        #expect({ if case .setWorkload? = session.commands.last { true } else { false } }())
    }

    @Test func aLinkIsCutOneWayAndLetBack() {
        var session = Self.open()
        // n1 → n2: the diagonal is passed over.
        session.press(KeyPress("l"))
        #expect(session.screen.contains("target n1 → n2"))
        session.press(KeyPress("X"))
        #expect(Self.added(session).map(\.fault) == [.cut(from: ids[0], to: ids[1])])
        Self.isOn(&session, .cut(from: ids[0], to: ids[1]))
        session.press(KeyPress("X"))
        #expect({ if case .healFault(_, .cut(ids[0], ids[1]))? = session.commands.last { true } else { false } }())
        session.press(KeyPress("h"))
        #expect(session.screen.contains("target n1 ─"))
    }

    @Test func undoHealsTheLastAndHealAllEverything() {
        var session = Self.open()
        session.press(KeyPress("U"))
        #expect(session.screen.contains("nothing to undo: no fault is on"))
        session.press(KeyPress("H"))
        #expect(session.screen.contains("nothing to heal: no fault is on"))
        #expect(session.commands.isEmpty)
        Self.isOn(&session, .pause(ids[0]), .disk(ids[2], .stuck))
        session.press(KeyPress("U"))
        #expect({ if case .healFault(_, .disk(ids[2], .stuck))? = session.commands.last { true } else { false } }())
        session.press(KeyPress("D"))
        #expect({ if case .healFault(_, .pause(ids[0]))? = session.commands.last { true } else { false } }())
        session.press(KeyPress("j"), KeyPress("D"))
        #expect(session.screen.contains("no fault on n2"))
        session.press(KeyPress(.tab), KeyPress(.tab), KeyPress("j"), KeyPress("D"))
        #expect({ if case .healFault(_, .disk(ids[2], .stuck))? = session.commands.last { true } else { false } }())
        session.press(KeyPress("H"))
        #expect({ if case .healAllFaults? = session.commands.last { true } else { false } }())
        #expect(session.model.overlay == nil)
    }

    @Test func theOverviewHealsAllToo() {
        var session = Self.open()
        Self.isOn(&session, .pause(ids[0]))
        session.press(KeyPress("1"), KeyPress("H"))
        #expect({ if case .healAllFaults? = session.commands.last { true } else { false } }())
        #expect(session.screen.contains("CHAOS 1 on"))
        #expect(session.screen.contains("n1 ▲1"))
    }

    @Test func anActThatCostsTheQuorumSaysSo() {
        var session = Self.open(3)
        session.press(KeyPress("K"))
        #expect(!session.screen.contains("the quorum is lost"))
        Self.isOn(&session, .kill(ids[0]))
        session.press(KeyPress("j"), KeyPress("K"))
        #expect(session.screen.contains("the quorum is lost: 1 of 3 voters work together"))
    }

    // MARK: Forms

    @Test func aFormHasEveryFigureAndAnEnd() {
        var session = Self.open()
        session.press(KeyPress("j"), KeyPress("l"), KeyPress("l"), KeyPress("F"))
        // Focus is on the delay, and typing replaces what was offered.
        session.type("60\t")
        session.type("7")
        session.press(.tab)
        session.type("1.5")
        session.press(KeyPress(.tab), KeyPress(.tab))
        session.type("64k")
        session.press(.tab)
        session.type("1m30s")
        #expect(session.screen.contains("n2 → n3 delay 60 ms ±7, loss 1.5 %, at most 64.0 kB/s, for 1m30s"))
        session.press(.enter)
        let wire = WireFault(delayMilliseconds: 60, jitterMilliseconds: 7, lossPercent: 1.5, bytesPerSecond: 64_000)
        #expect(Self.added(session).map(\.fault) == [.wire(from: ids[1], to: ids[2], wire)])
        #expect(Self.added(session).map(\.milliseconds) == [90_000])
    }

    @Test func bothWaysOfALinkAndAllLinksOfANode() {
        var session = Self.open()
        session.press(KeyPress("F"))
        session.press(.enter)
        let wire = WireFault(delayMilliseconds: 40, jitterMilliseconds: 5)
        #expect(Self.added(session).map(\.fault) == [.wire(from: ids[0], to: nil, wire), .wire(from: nil, to: ids[0], wire)])
        session.press(KeyPress("l"), KeyPress(.enter), KeyPress(.backTab))
        session.type("b")
        session.press(.enter)
        #expect(Self.added(session).last?.fault == .partition([[ids[0]], [ids[1]]]))
    }

    @Test func whatIsWrongIsSaidWhereItIs() {
        var session = Self.open()
        func refused(_ session: inout Session, _ text: String) {
            session.press(.enter)
            #expect(session.screen.contains(text), "\(text)\n\(session.screen)")
            #expect(Self.added(session).isEmpty)
        }
        session.press(KeyPress("F"))
        session.type("soon")
        refused(&session, "delay: 0 to 60,000 ms")
        session.type("3")
        refused(&session, "jitter: at most the delay, 3 ms")
        session.type("0")
        session.press(.tab)
        session.type("120")
        refused(&session, "loss: 0 to 100 %")
        session.press(.escape)
        #expect(session.model.overlay == nil)
        session.press(KeyPress("B"))
        session.type("n1 n9 | n2")
        refused(&session, "groups: n9 is not a node; nodes are n1 n2 n3 n4 n5")
        session.press(.control("u"))
        session.type("n1 n2")
        refused(&session, "groups: at least two, parted by |")
        session.press(.control("u"))
        session.type("n1 n2 | n2 n3")
        refused(&session, "groups: n2 is named twice")
        session.press(.tab)
        session.type("tomorrow")
        refused(&session, "for: a time like 30s, 2m or 500ms, or nothing")
    }

    @Test func disksAndClocksByForm() {
        var session = Self.open()
        session.press(KeyPress("I"))
        session.type("35")
        session.press(.enter)
        session.press(KeyPress("I"), KeyPress(.up), KeyPress(.right), KeyPress(.right), KeyPress(.enter))
        session.press(KeyPress("C"), KeyPress(.tab))
        session.type("-2m")
        session.press(.enter)
        session.press(KeyPress("C"))
        session.type("d\t-250")
        session.press(.enter)
        session.press(KeyPress("T"), KeyPress(.enter))
        session.press(KeyPress("B"), KeyPress(.enter))
        #expect(Self.added(session).map(\.fault) == [.disk(ids[0], .slow(milliseconds: 35)), .disk(ids[0], .full), .clock(ids[0], .jump(milliseconds: -120_000)), .clock(ids[0], .drift(partsPerMillion: -250)),
                                                     .tornTail(ids[0]), .partition([[ids[0]], [ids[1], ids[2], ids[3], ids[4]]])])
    }

    @Test func aFormSaysThatTheQuorumWillBeLost() {
        var session = Self.open(3)
        session.press(KeyPress("B"))
        session.type("n1 | n2 | n3")
        #expect(session.screen.contains("the quorum is lost: 1 of 3 voters work together"))
    }

    @Test func theActsPanelOpensTheFormOfEveryKind() {
        for (index, act) in FaultAct.allCases.enumerated() {
            var session = Self.open()
            session.press(.tab)
            for _ in 0..<index { session.press(KeyPress("j")) }
            session.press(.enter)
            guard case .fault(let form)? = session.model.overlay else { Issue.record("no form for \(act)"); continue }
            #expect(form.act == act)
            // Every form can end by itself, and every one of them is complete as it is offered.
            #expect(form[.duration] != nil)
            session.press(.enter)
            #expect(!Self.added(session).isEmpty, "\(act)")
            #expect(Self.added(session).allSatisfy { act.kinds.contains($0.fault.kind) || act == .cut }, "\(act)")
        }
    }

    // MARK: What cannot be

    @Test func whatTheEngineCannotIsGreyedWithTheReason() {
        var session = Self.open()
        session.tell(.faultSupport(FaultSupport(reasons: [.clockJump: "etcd keeps its own clock", .clockDrift: "etcd keeps its own clock", .diskStuck: "no seam", .pause: "not here"])))
        #expect(session.screen.contains("C  clock         etcd keeps its own clock"))
        session.press(KeyPress("C"), KeyPress("P"))
        #expect(session.model.overlay == nil)
        #expect(session.screen.contains("not here"))
        session.press(KeyPress("I"), KeyPress(.up), KeyPress(.right), KeyPress(.enter))
        #expect(session.screen.contains("no seam"))
        #expect(Self.added(session).isEmpty)
    }

    @Test func attachedAndReadOnlyEmitNothing() {
        for session in [Self.open(kind: .attached), Self.open(isReadOnly: true)] {
            var session = session
            Self.isOn(&session, .pause(ids[0]))
            for panel in 0..<6 {
                for key in "KSPTXBFICUHDRLW" { session.press(KeyPress(key), KeyPress(.enter), KeyPress(.escape)) }
                if panel < 5 { session.press(.tab) }
            }
            session.press(KeyPress(":"))
            session.type("kill leader\n")
            session.press(KeyPress(":"))
            session.type("heal all\n")
            let writes = session.commands.filter(\.changesCluster)
            #expect(writes.allSatisfy { if case .transferLeadership = $0 { true } else if case .setWorkload = $0 { true } else { false } } && (session.model.cluster.kind == .attached || writes.isEmpty), "\(writes)")
        }
        #expect(Self.open(kind: .attached).screen.contains("Faults act only on nodes that this console started."))
    }

    // MARK: Links and quorum

    @Test func linksAndQuorumFollowTheFaultsBeforeTheNodesFeelThem() {
        var session = Self.open()
        let members = session.model.cluster.members
        Self.isOn(&session, .cut(from: ids[0], to: ids[1]), .isolate(ids[4]), .wire(from: nil, to: ids[2], WireFault(delayMilliseconds: 10)), .wire(from: ids[3], to: ids[2], WireFault(delayMilliseconds: 5, lossPercent: 2)))
        #expect(session.model.link(members[0], members[1]) == .cut)
        #expect(session.model.link(members[1], members[0]) == .open(roundTripMicroseconds: nil))
        #expect(session.model.link(members[4], members[3]) == .cut)
        #expect(session.model.link(members[3], members[2]) == .worse(WireFault(delayMilliseconds: 15, lossPercent: 2), roundTripMicroseconds: nil))
        // n3 or n4 reach all but n5; n1 and n2 do not hear each other.
        #expect(session.model.quorumFacts() == QuorumFacts(voters: 5, working: 4))
        #expect(!session.model.quorumFacts(with: [.partition([[ids[0], ids[1]], [ids[2], ids[3]]])]).holds)
        #expect(session.model.quorumFacts(with: [.partition([[ids[0], ids[1], ids[2]], [ids[3]]])]).holds)
        #expect(session.screen.contains("4 of 5 work, 3 needed: 1 more may fail"))
    }

    // MARK: Scenarios

    @Test func scenariosRunStopAndTellTheirStoryInEveryView() {
        var session = Self.open()
        session.press(KeyPress(.tab), KeyPress(.tab), KeyPress(.tab))
        session.press(.enter)
        #expect(session.screen.contains("Two candidates."))
        session.press(.escape)
        session.press(KeyPress("R"))
        #expect({ if case .runScenario(_, "split-vote")? = session.commands.last { true } else { false } }())
        session.tell(.scenario(ScenarioProgress(name: "split-vote", title: "Split vote", step: 2, steps: 5, caption: "Both stand at once", waitingFor: "waits for a leader (0.4 s)")))
        session.press(KeyPress("R"))
        #expect(session.screen.contains("split-vote runs: D stops it") && session.screen.contains("▸ 2/5 Both stand at once"))
        session.wait(9_000)
        for view in "1234590" {
            session.press(KeyPress(view))
            #expect(session.screen.contains("▸ 2/5 Both stand at once · waits for a leader (0.4 s)"), "\(view)")
        }
        session.press(KeyPress("9"), KeyPress(.tab), KeyPress(.tab), KeyPress(.tab), KeyPress("D"))
        #expect({ if case .stopScenario? = session.commands.last { true } else { false } }())
        session.tell(.scenario(ScenarioProgress(name: "split-vote", title: "Split vote", step: 5, steps: 5, caption: "Done", state: .failed("expected a leader within 3 s, found none"))))
        #expect(session.screen.contains("✕ Split vote · expected a leader within 3 s, found none"))
        session.wait(20_000)
        #expect(session.model.narration == nil)
        session.press(KeyPress("j"), KeyPress("R"))
        #expect(session.screen.contains("needs disk faults"))
    }

    @Test func theLoadIsSetUpFromHereAndByPalette() {
        var session = Self.open()
        session.press(KeyPress("e"))
        guard case .workloadForm? = session.model.overlay else { Issue.record("no form"); return }
        session.press(KeyPress(.escape), KeyPress(.backTab), KeyPress(.backTab), KeyPress(.enter), KeyPress(.enter))
        #expect({ if case .setWorkload(_, .some)? = session.commands.last { true } else { false } }())
        session.press(KeyPress("1"), KeyPress(":"))
        session.type("load\n")
        guard case .workloadForm? = session.model.overlay else { Issue.record("no form"); return }
    }

    // MARK: Mouse

    @Test func aClickSelectsACellOfTheMatrix() {
        var session = Self.open()
        let layout = ChaosLayout(body: session.model.bodyRect, members: 5, focus: .links)
        let places = MatrixPlaces(inside: layout.links.inset(), names: session.model.cluster.members.map(\.name))
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: places.column(2) + 1, row: places.row(3)))))
        #expect(session.screen.contains("target n4 → n3"))
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: places.column(3), row: places.row(3)))))
        #expect(session.screen.contains("target n4 ─"))
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: layout.newFault.column + 5, row: layout.newFault.row + 3))))
        #expect(session.model.panel == .newFault && session.model.chaos.act == 2)
    }

    // MARK: Palette

    @Test(arguments: [
        ("kill leader", [Fault.kill(Sample.id(2))], nil), ("stop n2", [.stop(Sample.id(1))], nil), ("pause follower for 30s", [.pause(Sample.id(0))], 30_000), ("tear n4", [.tornTail(Sample.id(3))], nil),
        ("cut n1 n2", [.cut(from: Sample.id(0), to: Sample.id(1))], nil), ("isolate n3 for 2m", [.isolate(Sample.id(2))], 120_000),
        ("partition n1 n2 | n3", [.partition([[Sample.id(0), Sample.id(1)], [Sample.id(2)]])], nil), ("partition n1 | n2 n3 for 10s", [.partition([[Sample.id(0)], [Sample.id(1), Sample.id(2)]])], 10_000),
        ("slow disk n2 20ms", [.disk(Sample.id(1), .slow(milliseconds: 20))], nil), ("stuck disk leader", [.disk(Sample.id(2), .stuck)], nil), ("full disk n5", [.disk(Sample.id(4), .full)], nil),
        ("broken disk n5 for 500ms", [.disk(Sample.id(4), .broken)], 500), ("delay n1 n2 40ms", [.wire(from: Sample.id(0), to: Sample.id(1), WireFault(delayMilliseconds: 40))], nil),
        ("delay all n2 1s", [.wire(from: nil, to: Sample.id(1), WireFault(delayMilliseconds: 1_000))], nil), ("lose n1 all 5%", [.wire(from: Sample.id(0), to: nil, WireFault(lossPercent: 5))], nil),
        ("jump clock n1 -30s", [.clock(Sample.id(0), .jump(milliseconds: -30_000))], nil), ("drift clock n1 100ppm", [.clock(Sample.id(0), .drift(partsPerMillion: 100))], nil),
    ] as [(String, [Fault], Int64?)])
    func phrasesOfThePaletteAreFaults(text: String, faults: [Fault], milliseconds: Int64?) {
        var session = Self.open()
        session.press(KeyPress("1"), KeyPress(":"))
        session.type("\(text)\n")
        #expect(Self.added(session).map(\.fault) == faults, "\(session.screen)")
        #expect(Self.added(session).allSatisfy { $0.milliseconds == milliseconds })
        // Where one is, one stays.
        #expect(session.model.screen == .overview)
    }

    @Test(arguments: [("cut n1 n1", "a node has no link to itself"), ("delay n1 n2 soon", "a delay is 1 to 60,000 ms, like 40ms"), ("kill n1 now", "after that only an end time: for 30s"),
                      ("partition n1 | n7", "groups: n7 is not a node; nodes are n1 n2 n3 n4 n5"), ("drift clock n1 0", "parts per million, -500,000 to 500,000")])
    func aPhraseThatIsWrongSaysWhy(text: String, reason: String) {
        var session = Self.open()
        session.press(KeyPress(":"))
        session.type(text)
        #expect(session.model.paletteItems(text).first?.obstacle == reason)
        session.press(.enter)
        #expect(Self.added(session).isEmpty)
        #expect(session.screen.contains(reason))
    }

    @Test func aPhraseIsCompletedWordByWord() {
        var session = Self.open()
        #expect(session.model.paletteItems("cut ").map(\.title) == ["cut n1", "cut n2", "cut n3", "cut n4", "cut n5", "cut leader", "cut follower"])
        #expect(session.model.paletteItems("cut n2 l").map(\.title) == ["cut n2 leader"])
        #expect(session.model.paletteItems("delay n1 all ").map(\.title) == ["delay n1 all 40ms", "delay n1 all 200ms"])
        #expect(session.model.paletteItems("slow ").map(\.completion) == ["slow disk "])
        #expect(session.model.paletteItems("partition ").first?.title == "partition n1 | n2 n3 n4 n5")
        session.press(KeyPress(":"))
        session.type("cu")
        session.press(.tab)
        session.type(" n1 n")
        session.press(KeyPress(.down), KeyPress(.tab), KeyPress(.enter))
        #expect(Self.added(session).map(\.fault) == [.cut(from: ids[0], to: ids[1])])
    }

    @Test func healAndScenariosByPalette() {
        var session = Self.open()
        Self.isOn(&session, .pause(ids[0]), .disk(ids[2], .stuck))
        session.press(KeyPress(":"))
        session.type("heal #2\n")
        #expect({ if case .healFault(_, .disk(ids[2], .stuck))? = session.commands.last { true } else { false } }())
        session.press(KeyPress(":"))
        session.type("heal all\n")
        #expect({ if case .healAllFaults? = session.commands.last { true } else { false } }())
        session.press(KeyPress(":"))
        session.type("scenario split-vote\n")
        #expect({ if case .runScenario(_, "split-vote")? = session.commands.last { true } else { false } }())
        let count = session.commands.count
        session.press(KeyPress(":"))
        session.type("scenario full-disk\n")
        #expect(session.commands.count == count)
        #expect(session.screen.contains("needs disk faults"))
        session.tell(.scenario(ScenarioProgress(name: "split-vote", title: "Split vote", step: 2, steps: 5, caption: "Both stand")))
        session.press(KeyPress(":"))
        session.type("stop scenario\n")
        #expect({ if case .stopScenario? = session.commands.last { true } else { false } }())
    }

    // MARK: Text

    @Test(arguments: [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1_500), ("2h", 7_200_000), ("45", 45_000), ("1m 5s", 65_000)] as [(String, Int64)])
    func timesAreReadAsTyped(text: String, milliseconds: Int64) {
        #expect(FaultText.milliseconds(of: text) == milliseconds)
    }

    @Test(arguments: ["", "s", "30x", "40ms0", "-3s", "1..5s", "inf", "1m30"])
    func otherTextsAreNoTimes(text: String) { #expect(FaultText.milliseconds(of: text) == nil) }

    @Test func spansReadBackAsTheyAreWritten() {
        var random = Seeded(5)
        for _ in 0..<300 {
            let seconds = Int64.random(in: 1...3_599, using: &random) * 1_000
            #expect(FaultText.milliseconds(of: FaultText.span(seconds)) == seconds)
            let milliseconds = Int64.random(in: 1...999, using: &random)
            #expect(FaultText.milliseconds(of: FaultText.span(milliseconds)) == milliseconds)
        }
    }
}
