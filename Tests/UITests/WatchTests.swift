import Testing
@testable import UI

@Suite struct WatchTests {
    static func event(_ number: Int64, key: String = "/k", value: String = "v") -> WatchEvent {
        WatchEvent(at: Moment(milliseconds: number), revision: number, isDelete: false, key: KeyBytes(key), value: Array(value.utf8), previousValue: nil, version: 2, lease: 0)
    }

    static func open() -> Session {
        var session = Session(Size(columns: 120, rows: 36))
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress("3"), KeyPress("a"))
        session.type("\n")
        return session
    }

    @Test func bufferKeepsTheNewestTenThousandAndCountsAll() {
        var watch = WatchSession(id: WatchID(number: 1), target: .prefix(KeyBytes([])), fromRevision: nil)
        for start in stride(from: 0, to: 25_000, by: 700) { watch.append((start..<min(25_000, start + 700)).map { Self.event(Int64($0)) }) }
        #expect(watch.total == 25_000)
        #expect(watch.keptEvents.map(\.revision) == (15_000..<25_000).map { Int64($0) })
        watch.append((25_000..<60_000).map { Self.event(Int64($0)) })
        #expect(watch.total == 60_000)
        #expect(watch.keptEvents.count == 10_000 && watch.keptEvents.first?.revision == 50_000)
    }

    @Test(arguments: [81, 82, 83, 84] as [UInt64])
    func filteredLinesAreThoseThatMatch(seed: UInt64) {
        var random = Seeded(seed)
        var watch = WatchSession(id: WatchID(number: 1), target: .prefix(KeyBytes([])), fromRevision: nil)
        var all: [WatchEvent] = []
        for _ in 0..<60 {
            let batch = (0..<Int.random(in: 0...900, using: &random)).map { _ in Self.event(Int64.random(in: 0..<1_000_000, using: &random), key: ["/App/x", "/b", "/c/app"].randomElement(using: &random)!) }
            all += batch
            watch.append(batch)
            if Int.random(in: 0..<6, using: &random) == 0 {
                watch.filter = TextField(["app", "/b", "", "App"].randomElement(using: &random)!)
                watch.refilter()
            }
            let needle = watch.filter.text
            let expected = all.suffix(WatchSession.bufferLimit).filter { event in
                let key = String(decoding: event.key.bytes, as: UTF8.self)
                return needle.isEmpty || (needle == needle.lowercased() ? key.lowercased() : key).contains(needle)
            }
            #expect(watch.keptEvents == Array(expected), "seed \(seed)")
            if watch.isFiltered {
                let shown = watch.visibleLines(5).map { number -> WatchEvent? in if case .event(let event) = watch[line: number] { event } else { nil } }
                #expect(shown == Array(expected.suffix(5).reversed()), "seed \(seed)")
            }
        }
    }

    @Test func fastStreamIsDrawnOneInNAndSaysSo() {
        var session = Self.open()
        for second in 0..<3 {
            session.tell(.watch(WatchID(number: 1), .events((0..<10_000).map { Self.event(Int64(second * 10_000 + $0)) })))
            session.wait(1_000)
        }
        #expect(session.screen.contains("10,000 ev/s · 1 in 256 drawn, all counted"))
        #expect(session.screen.contains("30,000"))
        session.press(KeyPress(" "))
        #expect(!session.screen.contains("1 in"), "held: every event is there")
        #expect(session.screen.contains("‖ held"))
        session.tell(.watch(WatchID(number: 1), .events((0..<50).map { Self.event(Int64(40_000 + $0)) })))
        #expect(session.screen.contains("50 newer"))
        session.press(KeyPress(" "))
        #expect(!session.screen.contains("held"))
    }

    @Test func heldStreamDoesNotMoveWhileEventsArrive() {
        var session = Self.open()
        session.tell(.watch(WatchID(number: 1), .events((0..<100).map { Self.event(Int64($0)) })))
        session.press(KeyPress(" "), KeyPress("j"), KeyPress("j"))
        let before = session.grid.lines.filter { $0.contains("PUT") }
        session.tell(.watch(WatchID(number: 1), .events((100..<200).map { Self.event(Int64($0)) })))
        #expect(session.grid.lines.filter { $0.contains("PUT") } == before)
        session.press(KeyPress("G"))
        #expect(session.grid.lines.filter { $0.contains("PUT") } != before)
    }

    @Test func clearForgetsAndSaveWritesWhatIsKept() {
        var session = Self.open()
        session.tell(.watch(WatchID(number: 1), .events((0..<10).map { Self.event(Int64($0)) })))
        session.press(KeyPress("o"))
        session.press(.enter)
        guard case .saveEvents(_, let path, let events)? = session.commands.last else { Issue.record("nothing saved"); return }
        #expect(path == "~/watch-all-184207.jsonl" && events.count == 10)
        session.press(KeyPress("c"))
        #expect(session.screen.contains("no event yet"))
        #expect(session.model.watch.selected?.total == 10)
        session.press(KeyPress("x"))
        #expect(session.commands.last == .closeWatch(WatchID(number: 1)))
    }

    @Test func watchFromARevision() {
        var session = Self.open()
        session.press(KeyPress("a"))
        session.type("/app/ @1,200\n")
        #expect(session.commands.last == .openWatch(WatchID(number: 2), target: .prefix(KeyBytes("/app/")), fromRevision: 1_200))
    }

    @Test func brokenStreamIsSaidInTheStream() {
        let screen = Scene.play(.watch, Size(columns: 120, rows: 36)).screen
        #expect(screen.contains("▲ lost n3, resuming after rev"))
        #expect(screen.contains("✓ resumed on n2 after rev"))
        #expect(screen.contains("no event missed"))
    }

    @Test func enterOnAnEventShowsItsKey() {
        var session = Self.open()
        session.tell(.watch(WatchID(number: 1), .events([Self.event(1, key: "/app/web/cfg/motd")])))
        session.press(KeyPress("j"), KeyPress(.enter))
        session.wait(400)
        #expect(session.model.screen == .keys)
        #expect(session.model.keys.selectedKey == KeyBytes("/app/web/cfg/motd"))
    }
}
