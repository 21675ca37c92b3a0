import Testing
@testable import UI

@Suite struct SafetyTests {
    static let everyKey: [KeyPress] = (0x20...0x7e).map { KeyPress(Character(Unicode.Scalar(UInt8($0)))) }
        + "abcdefghijklmnopqrstuvwxyz".map { .control($0) }
        + [.enter, .escape, .tab, .backTab, .backspace, .delete, .up, .down, .left, .right, .home, .end, .pageUp, .pageDown, .function(2), .function(5)].map { KeyPress($0) }

    static func randomAction(_ random: inout Seeded, _ size: Size) -> Action {
        switch Int.random(in: 0..<20, using: &random) {
        case 0: .mouse(MouseEvent(kind: [.leftPress, .wheelUp, .wheelDown, .release].randomElement(using: &random)!, position: Position(column: Int.random(in: -2..<size.columns + 5, using: &random), row: Int.random(in: -2..<size.rows + 5, using: &random))))
        case 1: .paste(["/app/", "y", "text\nmore", "日本", "\u{1b}[2J"].randomElement(using: &random)!)
        case 2: .focused(Bool.random(using: &random))
        case 3: .tick
        default: .key(everyKey.randomElement(using: &random)!)
        }
    }

    /// Checks a frame: right size, wide characters whole, cursor inside.
    static func check(_ model: Model, _ note: String) {
        let grid = view(model)
        #expect(grid.size == model.size, "\(note)")
        if let cursor = grid.cursor { #expect(cursor.column >= 0 && cursor.column < max(1, grid.size.columns) && cursor.row >= 0 && cursor.row < max(1, grid.size.rows), "\(note): cursor \(cursor)") }
        for row in 0..<grid.size.rows {
            for column in 0..<grid.size.columns where grid[column, row].isContinuation {
                if column == 0 || grid[column - 1, row].isContinuation { Issue.record("\(note): half a character at \(column),\(row)") }
            }
        }
    }

    /// Keys, mouse, paste, data and resizes in any order: nothing traps, every frame is sound, read-only never writes.
    @Test(arguments: [51, 52, 53, 54, 55, 56] as [UInt64])
    func anythingAPersonDoesLeavesASoundScreen(seed: UInt64) {
        var random = Seeded(seed)
        let isReadOnly = seed % 2 == 0
        var session = Session(Size(columns: 100, rows: 30), kind: seed % 3 == 0 ? .attached : .playground, mode: [.readWrite, .ask, .readOnly].randomElement(using: &random)!, isReadOnly: isReadOnly, glyphs: seed % 5 == 0 ? .ascii : .unicode)
        let writesAllowed = session.model.mode != .readOnly
        session.tell(.cluster(session.model.cluster))
        for step in 0..<300 {
            session.act(Self.randomAction(&random, session.model.size))
            switch Int.random(in: 0..<12, using: &random) {
            case 0: session.act(.resized(Size(columns: Int.random(in: 80...220, using: &random), rows: Int.random(in: 24...70, using: &random))))
            case 1: session.meanwhile { $0.put(KeyTreeTests.randomKey(&random), [UInt8.random(in: 0...255, using: &random), 0x22, 0x0a]) }
            case 2: if let victim = session.cluster.entries.randomElement(using: &random) { session.meanwhile { $0.delete(victim.summary.key) } }
            case 3:
                var state = session.model.cluster
                for index in state.members.indices where Int.random(in: 0..<3, using: &random) == 0 {
                    state.members[index].health = [.up, .starting, .paused(since: session.model.now), .isolated(since: session.model.now), .down(since: session.model.now, reason: "killed")].randomElement(using: &random)!
                    state.members[index].role = [.leader, .follower, .candidate, .preCandidate, .learner, .unknown].randomElement(using: &random)!
                    state.members[index].applied = Bool.random(using: &random) ? nil : UInt64.random(in: 0...60_000, using: &random)
                }
                if !isReadOnly, seed % 4 != 1 { state.mode = session.model.cluster.mode }
                session.tell(.cluster(state))
            case 5:
                // Issue 3's data, whatever the nodes are.
                let ids = session.model.cluster.members.map(\.id)
                let any = { (random: inout Seeded) in ids.randomElement(using: &random)! }
                let list: [Fault] = [.kill(any(&random)), .pause(any(&random)), .cut(from: any(&random), to: any(&random)), .partition([[any(&random)], [any(&random)]]), .isolate(any(&random)),
                                     .wire(from: Bool.random(using: &random) ? nil : any(&random), to: any(&random), WireFault(delayMilliseconds: 40, lossPercent: 3)), .disk(any(&random), .stuck), .clock(any(&random), .drift(partsPerMillion: -100))]
                session.tell(.faults(list.shuffled(using: &random).prefix(Int.random(in: 0...5, using: &random)).enumerated().map { ActiveFault(id: $0.offset + 1, fault: $0.element, since: session.model.now, ends: $0.offset == 1 ? session.model.now : nil) }))
                Sample.samples(&session)
                session.tell(.logs((0..<Int.random(in: 0..<40, using: &random)).map { LogLine(at: session.model.now, node: $0 % 3 == 0 ? 0 : any(&random), level: LogLine.Level.allCases[$0 % 5], part: "raft", text: "line \($0) 日本 \u{1b}[2J") }))
                session.tell(.scenarios((0..<Int.random(in: 0..<9, using: &random)).map { ScenarioSummary(name: "s\($0)", title: "Scenario \($0)", description: "does things", obstacle: $0 == 2 ? "not here" : nil) }))
                session.tell(.scenario(ScenarioProgress(name: "s1", title: "One", step: Int.random(in: 0...4, using: &random), steps: 4, caption: "a caption", state: [.running, .passed, .failed("no"), .stopped].randomElement(using: &random)!)))
            case 4: session.wait(Int64.random(in: 1...800, using: &random))
            default: break
            }
            if step % 10 == 0 { Self.check(session.model, "seed \(seed) step \(step)") }
        }
        if !writesAllowed {
            for command in session.commands where command.changesCluster { Issue.record("seed \(seed): \(command)") }
        }
    }

    /// Every action of the catalogue, in every place, by key and by palette: with --read-only no write leaves.
    @Test(arguments: 0..<12)
    func readOnlyNeverEmitsAWrite(place: Int) {
        var base = Session(kind: place == 7 || place == 11 ? .attached : .playground, isReadOnly: true)
        base.tell(.cluster(base.model.cluster))
        switch place {
        case 1...3:
            base.press(KeyPress("2"), KeyPress(":"))
            base.type("go /app/web/cfg/flags\n")
            base.wait(300)
            for _ in 1..<place { base.press(.tab) }
        case 4, 5:
            base.press(KeyPress("3"), KeyPress("a"))
            base.type("\n")
            if place == 5 { base.press(.tab) }
        case 6:
            base.press(KeyPress("2"))
            base.wait(300)
            base.press(KeyPress("j"), KeyPress(" "), KeyPress(" "))
        case 8...11:
            base.tell(.faults([ActiveFault(id: 1, fault: .isolate(base.model.cluster.members[0].id), since: base.model.now)]))
            base.tell(.scenarios([ScenarioSummary(name: "s", title: "S", description: "d")]))
            base.press(KeyPress("9"))
            // Links, the acts, the active ones, the scenarios.
            for _ in 8..<place { base.press(.tab) }
        default: break
        }
        for entry in Catalogue.entries {
            var session = base
            session.act(.key(entry.keys[0]))
            session.type("y")
            session.press(KeyPress(.enter), KeyPress(.escape), KeyPress(.escape), KeyPress(":"))
            session.act(.paste(entry.name))
            session.press(.enter)
            session.type("y\n")
            for command in session.commands where command.changesCluster { Issue.record("\(entry.name) in place \(place): \(command)") }
        }
    }

    @Test(arguments: [71, 72] as [UInt64])
    func everySizeRendersEveryScene(seed: UInt64) {
        var random = Seeded(seed)
        for scene in Scene.allCases {
            var session = Scene.play(scene, Size(columns: 80, rows: 24))
            for _ in 0..<5 {
                let size = Size(columns: Int.random(in: 80...220, using: &random), rows: Int.random(in: 24...70, using: &random))
                session.act(.resized(size))
                Self.check(session.model, "\(scene.rawValue) \(size) seed \(seed)")
            }
            for size in [Size(columns: 0, rows: 0), Size(columns: 1, rows: 1), Size(columns: 79, rows: 24), Size(columns: 80, rows: 23), Size(columns: 300, rows: 10), Size(columns: 5, rows: 100), Size(columns: 300, rows: 100)] {
                session.act(.resized(size))
                Self.check(session.model, "\(scene.rawValue) \(size)")
            }
        }
    }

    @Test func theSameActionsGiveTheSameScreenAndCommands() {
        func run() -> (String, [Command]) {
            let session = Scene.play(.conflict, Size(columns: 120, rows: 36))
            return (session.screen, session.commands)
        }
        let a = run(), b = run()
        #expect(a.0 == b.0)
        #expect(a.1 == b.1)
    }

    @Test func pastedTextIsNeverRunAsKeys() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        session.act(.paste("KRPXLWq\u{3}"))
        #expect(session.commands.isEmpty)
        #expect(!session.model.isQuitting)
    }

    @Test func quitAsksAndNamesWhatIsLost() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        session.press(.control("c"))
        #expect(session.screen.contains("The 3 nodes of this playground stop with it."))
        session.press(KeyPress("n"))
        #expect(session.model.overlay == nil && !session.model.isQuitting)
        session.press(KeyPress("q"))
        session.press(KeyPress("y"))
        #expect(session.commands == [.quit])
    }
}
