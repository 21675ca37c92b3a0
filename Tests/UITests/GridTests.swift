import Testing
@testable import UI

@Suite struct GridTests {
    @Test(arguments: [("abc", 3), ("", 0), ("日本", 4), ("e\u{301}", 1), ("👍🏽", 2), ("👩‍👩‍👧", 2), ("♛●◌╌○‖≠✕▸Δ◷", 11), ("█▓▒░⣿▏", 6), ("☀️", 2), ("한글", 4)])
    func widthOfTextIsWhatTerminalsDraw(text: String, width: Int) {
        #expect(text.cellWidth == width)
    }

    @Test func wideCharacterIsNeverCutInHalf() {
        var canvas = Canvas(size: Size(columns: 5, rows: 1))
        canvas.text("日本語", 0, 0)
        #expect(canvas.grid.text(row: 0) == "日本 ")
        canvas.text("x", 1, 0)
        #expect(canvas.grid.text(row: 0) == " x本 ")
        canvas.text("y", 2, 0)
        #expect(canvas.grid.text(row: 0) == " xy  ")
    }

    @Test func drawingOutsideIsIgnored() {
        var canvas = Canvas(size: Size(columns: 4, rows: 2))
        canvas.text("abcdef", -2, 0)
        canvas.text("zz", 0, 5)
        canvas.text("zz", 0, -1)
        canvas.box(Rect(column: -3, row: -3, columns: 30, rows: 30), .heavy, title: [Span("t")])
        #expect(canvas.grid.text(row: 0) == "cdef")
        #expect(canvas.grid.text(row: 1) == "    ")
    }

    @Test func controlCharactersNeverReachTheTerminal() {
        var canvas = Canvas(size: Size(columns: 8, rows: 1))
        canvas.text("a\u{1b}[2J\u{7}b", 0, 0)
        #expect(canvas.grid.text(row: 0) == "a\u{fffd}[2J\u{fffd}b ")
        for byte in UInt8(0)...255 {
            let text = Format.text([byte, 0x41])
            #expect(!text.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7f || (0x80..<0xa0).contains($0.value) }, "byte \(byte)")
        }
    }

    /// What a terminal would show after the runs is exactly the new grid.
    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
    func runsTurnOneScreenIntoTheOther(seed: UInt64) {
        var random = Seeded(seed)
        let size = Size(columns: 23, rows: 5)
        let pieces = ["a", "bc", "日", "é", "👍", "█", " ", "e\u{301}x", "longer text here"]
        func paint(_ canvas: inout Canvas, _ count: Int) {
            for _ in 0..<count {
                canvas.text(pieces.randomElement(using: &random)!, Int.random(in: -3..<25, using: &random), Int.random(in: 0..<5, using: &random),
                            .ink([.text, .bad, .ok].randomElement(using: &random)!))
            }
        }
        var canvas = Canvas(size: size)
        paint(&canvas, 30)
        for round in 0..<40 {
            let before = canvas.grid
            paint(&canvas, Int.random(in: 0..<6, using: &random))
            let after = canvas.grid
            var screen = (0..<5).map { row in (0..<23).map { before.scalars($0, row) } }
            var styles = (0..<5).map { row in (0..<23).map { before[$0, row].style } }
            for run in after.runs(changedFrom: before) {
                var column = run.column
                for character in run.text {
                    screen[run.row][column] = Array(character.unicodeScalars)
                    styles[run.row][column] = run.style
                    for extra in 1..<max(2, CharacterWidth.of(character)) where extra < CharacterWidth.of(character) {
                        screen[run.row][column + extra] = []
                        styles[run.row][column + extra] = run.style
                    }
                    column += CharacterWidth.of(character)
                }
                #expect(column == run.column + run.columns, "seed \(seed) round \(round): \(run)")
            }
            for row in 0..<5 {
                for column in 0..<23 {
                    if screen[row][column] != after.scalars(column, row) || styles[row][column] != after[column, row].style {
                        Issue.record("seed \(seed) round \(round) at \(column),\(row)")
                    }
                }
            }
        }
    }

    @Test func nothingChangedMeansNoRuns() {
        var canvas = Canvas(size: Size(columns: 20, rows: 3))
        canvas.text("日本 e\u{301} text", 0, 1)
        #expect(canvas.grid.runs(changedFrom: canvas.grid).isEmpty)
        #expect(canvas.grid.runs(changedFrom: nil).map(\.columns).reduce(0, +) == 60)
    }

    @Test func tableShedsItsLeastImportantColumnsAndFillsTheRest() {
        let columns = [TableColumn(0, "A", 5, priority: 0), TableColumn(1, "B", 5, priority: 2), TableColumn(2, "C", 5, priority: 1, flexible: true)]
        #expect(TableColumn.fit(columns, room: 17).map(\.id) == [0, 1, 2])
        #expect(TableColumn.fit(columns, room: 16).map(\.id) == [0, 2])
        #expect(TableColumn.fit(columns, room: 16).map(\.width) == [5, 10])
        #expect(TableColumn.fit(columns, room: 3).map(\.id) == [0])
    }

    @Test func logWindowShowsOneEntryBehind() {
        var canvas = Canvas(size: Size(columns: 10, rows: 1))
        let window = LogWindow(newest: 1_000)
        #expect(window.first == 488)
        canvas.logWindow(window, applied: 999, commit: 1_000, last: 1_000, 0, 0, width: 10)
        #expect(canvas.grid.text(row: 0) == "█████████▓")
        canvas.logWindow(window, applied: 700, commit: 800, last: 900, 0, 0, width: 10)
        #expect(canvas.grid.text(row: 0) == "████▓▓▒▒░░")
        canvas.logWindow(LogWindow(newest: 3), applied: 2, commit: 3, last: 3, 0, 0, width: 9)
        #expect(canvas.grid.text(row: 0).hasPrefix("██████▓▓▓"))
    }

    @Test func numbersReadAsPeopleWriteThem() {
        #expect(Format.count(Int64(48_213)) == "48,213")
        #expect(Format.count(Int64(-1_000)) == "-1,000")
        #expect(Format.bytes(22) == "22 B")
        #expect(Format.shortBytes(12_400_000) == "12.4M")
        #expect(Format.milliseconds(420) == "0.42")
        #expect(Format.milliseconds(1_940) == "1.9")
        #expect(Format.milliseconds(1_083_000) == "1083")
        #expect(Format.span(milliseconds: 1_083) == "1.08s")
        #expect(Format.age(milliseconds: 7_860_000) == "2h11m")
        #expect(Format.clock(Moment(milliseconds: 1_763_923_327_000), zone: 0) == "18:42:07")
        #expect(Format.stamp(Moment(milliseconds: 1_763_923_327_114), zone: 3_600) == "42:07.114")
        #expect(Format.text([0x61, 0xff, 0x0a, 0xc3, 0xa9, 0xe2, 0x80, 0xae]) == "a\\xff\\né\\u{202e}")
    }
}

@Suite struct ThemeTests {
    @Test func quantisingKeepsColoursOfThePalette() {
        #expect(RGB(255, 0, 0).quantised(to: .indexed256) == 196)
        #expect(RGB(0, 0, 0).quantised(to: .indexed256) == 16)
        #expect(RGB(255, 255, 255).quantised(to: .indexed256) == 231)
        #expect(RGB(205, 0, 0).quantised(to: .ansi8) == 1)
        #expect(RGB(0, 255, 0).quantised(to: .ansi16) == 10)
        // Every fixed colour of the 256 palette is its own nearest, or an equal twin.
        let levels: [UInt8] = [0, 95, 135, 175, 215, 255]
        for (r, red) in levels.enumerated() {
            for (g, green) in levels.enumerated() {
                for (b, blue) in levels.enumerated() {
                    #expect(Int(RGB(red, green, blue).quantised(to: .indexed256)!) == 16 + 36 * r + 6 * g + b)
                }
            }
        }
    }

    @Test func oklabGoesThereAndBack() {
        for red in stride(from: 0, through: 255, by: 51) {
            for green in stride(from: 0, through: 255, by: 51) {
                for blue in stride(from: 0, through: 255, by: 51) {
                    let rgb = RGB(UInt8(red), UInt8(green), UInt8(blue))
                    #expect(Oklab(rgb).rgb == rgb)
                }
            }
        }
    }

    @Test func everyProblemOfAThemeFileIsNamed() {
        #expect(throws: Theme.Invalid(problems: [
            "palette.sea: \"blue\" is not a colour like #1a2b3c",
            "slots.acent: no such slot; known: \(Slot.allCases.map(\.name).joined(separator: " "))",
            "slots.text: \"snow\" is neither in the palette nor a colour like #1a2b3c",
            "gradients.load: needs at least two colours",
        ])) {
            try Theme(name: "bad", palette: ["sea": "blue", "sky": "#00f"], slots: ["acent": "sky", "text": "snow", "focus": "sea"], gradients: ["load": "sky"])
        }
    }

    @Test func missingSlotsComeFromTheBase() throws {
        let theme = try Theme(name: "half", base: .light, palette: ["ink": "#123456"], slots: ["text": "ink", "background": "default"])
        #expect(theme.resolve(.text) == RGB(0x12, 0x34, 0x56))
        #expect(theme.resolve(.background) == nil)
        #expect(theme.resolve(.accent) == Theme.plainLight.resolve(.accent))
    }

    @Test(arguments: [ColorDepth.ansi8, .ansi16, .mono])
    func selectionIsSeenWithoutColours(depth: ColorDepth) {
        let plain = Theme.quarterdeckDark.concrete(Style(), depth: depth)
        let selected = Theme.quarterdeckDark.concrete(Style(background: .slot(.select)), depth: depth)
        #expect(plain != selected)
    }

    @Test func shippedThemesAreValidAndReadable() throws {
        for name in ["quarterdeck-dark", "fjord", "paper", "contrast", "terminal"] {
            let theme = try ThemeFile.read(name)
            guard let background = theme.resolve(.background) else { continue }
            for slot in Slot.allCases {
                // Text-like slots must stand off the page: a difference in Oklab lightness.
                switch slot {
                case .background, .overlay, .header, .headerAttached, .headerAsk, .headerReadOnly, .select, .mark, .border, .logMissing: continue
                default:
                    let difference = abs(Oklab(theme.resolve(slot)!).l - Oklab(background).l)
                    #expect(difference > 0.2, "\(name): \(slot.name) is too close to the background")
                }
            }
        }
    }

    @Test func compiledInThemeIsTheFile() throws {
        #expect(try ThemeFile.read("quarterdeck-dark") == Theme.quarterdeckDark)
    }
}
