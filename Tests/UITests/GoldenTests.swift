import Testing
@testable import UI

@Suite struct GoldenTests {
    static let sizes = [Size(columns: 80, rows: 24), Size(columns: 120, rows: 36), Size(columns: 200, rows: 60)]

    @Test(arguments: Scene.allCases, sizes)
    func screenIsAsRecorded(scene: Scene, size: Size) {
        let session = Scene.play(scene, size)
        expectGolden(session.screen, "\(scene.rawValue)-\(size.columns)x\(size.rows)")
    }

    @Test(arguments: [Scene.overview, .keys, .watch, .conflict, .chaos, .log, .electionsSteps])
    func coloursAreAsRecorded(scene: Scene) {
        expectGolden(Scene.play(scene, Size(columns: 80, rows: 24)).grid.styleMap, "\(scene.rawValue)-80x24-styles")
    }

    @Test(arguments: [Scene.overview, .keys, .watch, .help, .chaos, .chaosForm, .log, .elections])
    func asciiScreenIsAsRecorded(scene: Scene) {
        let session = Scene.play(scene, Size(columns: 80, rows: 24), glyphs: .ascii)
        expectGolden(session.screen, "\(scene.rawValue)-80x24-ascii")
    }

    @Test(arguments: [Scene.mosaic, .chaos])
    func largeAsciiScreenIsAsRecorded(scene: Scene) {
        expectGolden(Scene.play(scene, Size(columns: 200, rows: 60), glyphs: .ascii).screen, "\(scene.rawValue)-200x60-ascii")
    }

    @Test(arguments: Scene.allCases)
    func asciiScreenIsASCIIOnly(scene: Scene) {
        let foreign = Scene.play(scene, scene == .mosaic ? Size(columns: 200, rows: 60) : Size(columns: 100, rows: 30), glyphs: .ascii).screen.unicodeScalars.filter { $0.value != 0x0a && !(0x20..<0x7f).contains($0.value) }
        #expect(foreign.isEmpty, "\(foreign)")
    }

    /// What a monochrome terminal shows besides text: `r` reverse, `b` bold, `d` dim.
    @Test(arguments: [Scene.overview, .keys, .chaos, .log, .electionsSteps])
    func monochromeAttributesAreAsRecorded(scene: Scene) {
        let grid = Scene.play(scene, Size(columns: 80, rows: 24)).grid
        let lines = (0..<24).map { row in
            var line = String((0..<80).map { column -> Character in
                let attributes = Theme.quarterdeckDark.concrete(grid[column, row].style, depth: .mono).attributes
                return attributes.contains(.reverse) ? "r" : attributes.contains(.bold) ? "b" : attributes.contains(.dim) ? "d" : "."
            })
            while line.last == "." { line.removeLast() }
            return line
        }
        expectGolden(lines.joined(separator: "\n"), "\(scene.rawValue)-80x24-mono")
    }

    @Test func tooSmallSaysHowLargeItMustBe() {
        let session = Session(Size(columns: 70, rows: 20))
        #expect(session.screen.contains("This terminal is 70×20."))
        #expect(session.screen.contains("Quarterdeck needs 80×24."))
    }

    @Test func theFirstFrameNeedsNoData() {
        let screen = Scene.play(.first, Size(columns: 80, rows: 24)).screen
        #expect(screen.contains("starting nodes…"))
        #expect(screen.contains("? help"))
    }
}

@Suite struct LayoutTests {
    /// Panels as letters.
    static func drawing(_ size: Size, _ panels: [(Character, Rect)]) -> String {
        var rows = Array(repeating: Array(repeating: Character("·"), count: size.columns / 4), count: size.rows / 2)
        for (letter, rect) in panels {
            for row in rows.indices {
                for column in rows[row].indices where rect.contains(Position(column: column * 4, row: row * 2)) { rows[row][column] = letter }
            }
        }
        return rows.map { String($0) }.joined(separator: "\n")
    }

    static func overview(_ size: Size, members: Int, hasWatch: Bool) -> [(Character, Rect)] {
        let layout = OverviewLayout(body: ScreenLayout(size).body, members: members, hasWatch: hasWatch)
        return [("N", layout.nodes), ("O", layout.ops), ("L", layout.latency), ("H", layout.histogram), ("T", layout.timeline), ("E", layout.events), ("W", layout.watch),
                ("R", layout.raft), ("h", layout.heat), ("P", layout.roundTrips), ("l", layout.log)]
    }

    @Test func smallOverview() {
        #expect(Self.drawing(Size(columns: 80, rows: 24), Self.overview(Size(columns: 80, rows: 24), members: 3, hasWatch: true)) == """
        ····················
        NNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNN
        OOOOOOOOOOLLLLLLLLLL
        OOOOOOOOOOLLLLLLLLLL
        OOOOOOOOOOLLLLLLLLLL
        EEEEEEEEEEEEEEEEEEEE
        EEEEEEEEEEEEEEEEEEEE
        EEEEEEEEEEEEEEEEEEEE
        ····················
        """)
    }

    @Test func mediumOverview() {
        #expect(Self.drawing(Size(columns: 120, rows: 36), Self.overview(Size(columns: 120, rows: 36), members: 5, hasWatch: true)) == """
        ······························
        NNNNNNNNNNNNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNNNNNNNNNNNN
        NNNNNNNNNNNNNNNNNNNNNNNNNNNNNN
        OOOOOOOOOOOOOOOLLLLLLLLLLLLLLL
        OOOOOOOOOOOOOOOLLLLLLLLLLLLLLL
        OOOOOOOOOOOOOOOLLLLLLLLLLLLLLL
        OOOOOOOOOOOOOOOLLLLLLLLLLLLLLL
        OOOOOOOOOOOOOOOLLLLLLLLLLLLLLL
        WWWWWWWWWWWWWWWWWWWWWWWWWWWWWW
        WWWWWWWWWWWWWWWWWWWWWWWWWWWWWW
        TTTTTTTTTTTTTTTTTTEEEEEEEEEEEE
        TTTTTTTTTTTTTTTTTTEEEEEEEEEEEE
        TTTTTTTTTTTTTTTTTTEEEEEEEEEEEE
        TTTTTTTTTTTTTTTTTTEEEEEEEEEEEE
        ······························
        """)
    }

    /// Panels lie inside the body, do not overlap, and leave no hole, at every size and number of members.
    @Test func panelsTileTheBody() {
        for columns in stride(from: 80, through: 300, by: 9) {
            for rows in stride(from: 24, through: 100, by: 4) {
                let body = ScreenLayout(Size(columns: columns, rows: rows)).body
                for members in [0, 1, 3, 5, 7] {
                    for hasWatch in [false, true] {
                        let panels = Self.overview(Size(columns: columns, rows: rows), members: members, hasWatch: hasWatch).map(\.1)
                        check(panels, body, "overview \(columns)x\(rows), \(members) members, watch \(hasWatch)")
                    }
                }
                let keys = KeysLayout(body: body)
                check([keys.tree, keys.value, keys.history], body, "keys \(columns)x\(rows)")
                for members in [0, 1, 3, 5, 7] {
                    for focus in [Panel.links, .newFault, .activeFaults, .scenarios, .load, .happened] {
                        check(ChaosLayout(body: body, members: members, focus: focus).panels.map(\.rect), body, "chaos \(columns)x\(rows), \(members) members, \(focus)")
                    }
                }
                for watches in [0, 1, 5, 40] {
                    let watch = WatchLayout(body: body, watches: watches)
                    check([watch.list, watch.stream], body, "watch \(columns)x\(rows), \(watches) watches")
                }
            }
        }
    }

    private func check(_ panels: [Rect], _ body: Rect, _ note: String) {
        let shown = panels.filter { !$0.isEmpty }
        if shown.reduce(0, { $0 + $1.columns * $1.rows }) != body.columns * body.rows { Issue.record("\(note): holes or overlaps") }
        for (index, panel) in shown.enumerated() {
            if panel.intersection(body) != panel { Issue.record("\(note): outside") }
            if panel.rows < 3 || panel.columns < 20 { Issue.record("\(note): too small to read: \(panel)") }
            for other in shown[(index + 1)...] where !panel.intersection(other).isEmpty { Issue.record("\(note): overlap") }
        }
    }
}
