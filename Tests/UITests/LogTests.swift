import Testing
@testable import UI

@Suite struct LogTests {
    static func line(_ number: Int, node: UInt64 = 1, level: LogLine.Level = .info, text: String? = nil) -> LogLine {
        LogLine(at: Moment(milliseconds: Int64(number)), node: node, level: level, part: "raft", text: text ?? "line \(number)")
    }

    static func open(_ lines: Int = 120) -> Session {
        var session = Session(Size(columns: 120, rows: 36))
        session.tell(.cluster(session.model.cluster))
        session.tell(.logs((0..<lines).map { line($0, node: Sample.id($0 % 3), level: LogLine.Level.allCases[$0 % 5]) }))
        session.press(KeyPress("0"))
        return session
    }

    @Test func theRingKeepsTheNewestAndCountsAll() {
        var log = LogState()
        for start in stride(from: 0, to: 50_000, by: 700) { log.heard((start..<min(50_000, start + 700)).map { Self.line($0) }) }
        #expect(log.appended == 50_000 && log.count == LogState.limit)
        #expect(log.kept.first?.text == "line 30000" && log.kept.last?.text == "line 49999")
        #expect(log.visible(3).map { log[line: $0].text } == ["line 49997", "line 49998", "line 49999"])
        log.heard((50_000..<90_000).map { Self.line($0) })
        #expect(log.count == LogState.limit && log.kept.first?.text == "line 70000")
    }

    @Test func aBatchIsSortedByTimeAndKeepsTheOrderOfEquals() {
        var log = LogState()
        log.heard([Self.line(3), Self.line(1, text: "a"), Self.line(1, text: "b"), Self.line(2)])
        #expect(log.kept.map(\.text) == ["a", "b", "line 2", "line 3"])
    }

    /// Against the plain list: every filter, held or not, while lines come and the ring turns.
    @Test(arguments: [91, 92, 93, 94, 95, 96] as [UInt64])
    func whatIsShownIsWhatPassesTheFilters(seed: UInt64) {
        var random = Seeded(seed)
        var log = LogState()
        var all: [LogLine] = []
        var node: UInt64?
        for step in 0..<60 {
            let batch = (0..<Int.random(in: 0...900, using: &random)).map { _ in
                Self.line(all.count, node: UInt64.random(in: 0...3, using: &random), level: LogLine.Level.allCases.randomElement(using: &random)!, text: ["Vote granted", "fsync took", "vote refused"].randomElement(using: &random)! + " \(step)")
            }
            all += batch
            log.heard(batch)
            switch Int.random(in: 0..<8, using: &random) {
            case 0: log.cycleLevel()
            case 1:
                node = Bool.random(using: &random) ? nil : UInt64.random(in: 0...3, using: &random)
                log.choose(node)
            case 2:
                log.filter = TextField(["vote", "", "Vote", "took"].randomElement(using: &random)!)
                log.textChanged()
            case 3: log.toggleShowsAll()
            case 4: log.move(Int.random(in: -60...60, using: &random), rows: 20)
            case 5: log.follow()
            case 6: _ = log.jump(Bool.random(using: &random) ? 1 : -1, rows: 20)
            default: break
            }
            log.settle(rows: 20)
            let needle = log.filter.text
            let folds = needle == needle.lowercased()
            let passing = all.suffix(LogState.limit).filter { line in
                line.level >= log.level && (node == nil || line.node == node) && (needle.isEmpty || log.showsAll || (folds ? line.text.lowercased() : line.text).contains(needle))
            }
            #expect(log.kept == Array(passing), "seed \(seed) step \(step)")
            #expect(log.shown == passing.count)
            let shown = log.visible(20)
            if !log.isHeld { #expect(shown.map { log[line: $0] } == Array(passing.suffix(20)), "seed \(seed) step \(step)") }
            if let selection = log.selection, !shown.isEmpty { #expect(shown.contains(selection) || !passing.contains(log[line: selection]), "seed \(seed) step \(step): the selection is out of sight") }
        }
    }

    @Test func holdingKeepsTheScreenWhileLinesCome() {
        var session = Self.open()
        session.press(KeyPress(" "))
        let before = session.model.log.visible(10)
        session.tell(.logs((200..<260).map { Self.line($0, level: .info) }))
        #expect(session.model.log.visible(10) == before)
        #expect(session.screen.contains("‖ held · ▼ 60 newer · space follows"))
        session.press(KeyPress(" "))
        #expect(session.screen.contains("line 259"))
    }

    @Test func levelNodeAndTextNarrow() {
        var session = Self.open()
        #expect(session.screen.contains("96 of 120 lines"))
        session.press(KeyPress("v"))
        #expect(session.screen.contains("level ≥ WARN"))
        #expect(session.screen.contains("72 of 120 lines"))
        session.press(KeyPress("l"))
        #expect(session.screen.contains("[n1]"))
        #expect(session.screen.contains("24 of 120 lines"))
        session.press(KeyPress("h"), KeyPress("h"))
        #expect(session.screen.contains("[console]"))
        #expect(session.screen.contains("no line passes the filters"))
        session.press(KeyPress("f"), KeyPress("/"))
        session.type("line 11")
        #expect(session.model.log.shown == 6)
        session.press(KeyPress(.enter), KeyPress("m"))
        #expect(session.screen.contains("marked in all lines"))
        session.press(KeyPress("n"), KeyPress("n"))
        #expect(session.model.log.selected?.text == "line 118" || session.model.log.selected?.text.hasPrefix("line 11") == true)
        session.press(.escape)
        #expect(session.model.log.filter.isEmpty && session.model.screen == .log)
        session.press(.escape)
        #expect(!session.model.log.isHeld)
        session.press(.escape)
        #expect(session.model.screen == .overview)
    }

    @Test func copyAndExportGiveWholeLines() {
        var session = Self.open(5)
        session.press(KeyPress("y"))
        #expect({ if case .copyToClipboard(_, "1970-01-01T00:00:00.004Z n2 FATAL raft: line 4")? = session.commands.last { true } else { false } }(), "\(session.commands)")
        session.press(KeyPress("o"))
        session.press(.control("u"))
        session.type("/tmp/x.log\n")
        guard case .export(_, "/tmp/x.log", let content)? = session.commands.last else { Issue.record("nothing exported"); return }
        #expect(String(decoding: content, as: UTF8.self) == """
        1970-01-01T00:00:00.001Z n2 INFO raft: line 1
        1970-01-01T00:00:00.002Z n3 WARN raft: line 2
        1970-01-01T00:00:00.003Z n1 ERROR raft: line 3
        1970-01-01T00:00:00.004Z n2 FATAL raft: line 4

        """)
    }

    @Test func mouseChoosesANodeAndALine() {
        var session = Self.open()
        let places = LogPlaces(rect: session.model.bodyRect, log: session.model.log)
        let chip = session.model.logChips(places.chips)[2].rect
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: chip.column + 1, row: chip.row))))
        #expect(session.screen.contains("[n2]"))
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: 10, row: places.lines.row + 3))))
        let after = LogPlaces(rect: session.model.bodyRect, log: session.model.log).lines.rows
        #expect(after < places.lines.rows)
        #expect(session.model.log.selection == session.model.log.visible(after)[3])
    }

    @Test(arguments: [(0, "1970-01-01T00:00:00.000Z"), (951_782_400_123, "2000-02-29T00:00:00.123Z"), (1_763_923_327_882, "2025-11-23T18:42:07.882Z"), (-1, "1969-12-31T23:59:59.999Z"), (4_107_542_399_000, "2100-02-28T23:59:59.000Z")] as [(Int64, String)])
    func datesAreCivil(milliseconds: Int64, text: String) {
        #expect(Format.iso(Moment(milliseconds: milliseconds)) == text)
    }

    /// A frame of a fast stream costs what its lines cost, not what the ring holds. (The best of several, since machines are busy.)
    @Test func aFrameCostsTheSameWithAFullRing() {
        func best(_ held: Int) -> Duration {
            var session = Session(Size(columns: 200, rows: 60))
            session.tell(.cluster(session.model.cluster))
            session.press(KeyPress("0"))
            session.tell(.logs((0..<held).map { Self.line($0) }))
            return (0..<9).map { frame in
                let lines = (0..<167).map { Self.line(held + frame * 167 + $0, node: 0) }
                return ContinuousClock().measure {
                    session.tell(.logs(lines))
                    _ = view(session.model)
                }
            }.min()!
        }
        let small = best(1_000), full = best(LogState.limit)
        #expect(full < small * 4 + .milliseconds(3), "\(small) and \(full)")
    }
}
