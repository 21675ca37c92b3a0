import Testing
@testable import UI

@Suite struct EditorTests {
    @Test(arguments: ["", "a", "a\nb", "\n\n", "trailing\n", "e\u{301}\u{302}x", "tab\tand\r\nreturn", "日本\n👩‍👩‍👧 ok"])
    func anyTextComesBackByteForByte(text: String) {
        #expect(Array(TextEditor(text).text.utf8) == Array(text.utf8))
    }

    @Test(arguments: [31, 32, 33, 34, 35, 36] as [UInt64])
    func undoAndRedoWalkThroughEveryState(seed: UInt64) {
        var random = Seeded(seed)
        var editor = TextEditor("one\ntwo\n\nthree é 日本")
        var keys: [KeyPress] = [KeyPress("x"), KeyPress("é"), KeyPress(.enter), KeyPress(.backspace), KeyPress(.delete), .control("k"), .control("w"), KeyPress(.tab)]
        keys += [.left, .right, .up, .down, .home, .end, .pageDown].map { KeyPress($0) }
        var states = [editor.text]
        for _ in 0..<300 {
            let before = editor.text
            let isHandled = editor.handle(keys.randomElement(using: &random)!, pageRows: 5)
            #expect(isHandled)
            // Typing that joins the step before replaces its state.
            if editor.text != before { states.append(editor.text) }
            #expect(editor.cursor.line < editor.lines.count && editor.cursor.column <= editor.lines[editor.cursor.line].count)
        }
        let final = editor.text
        var undone: [String] = []
        while editor.canUndo {
            editor.undo()
            undone.append(editor.text)
            #expect(states.contains(editor.text), "seed \(seed): undo made a text that never was")
        }
        #expect(editor.text == states[0], "seed \(seed)")
        for expected in undone.dropLast().reversed() {
            editor.redo()
            #expect(editor.text == expected, "seed \(seed)")
        }
        editor.redo()
        #expect(editor.text == final, "seed \(seed)")
        #expect(!editor.canRedo)
    }

    @Test func aWordTypedInOneGoIsUndoneAtOnce() {
        var editor = TextEditor("")
        for character in "hello" { _ = editor.handle(KeyPress(character), pageRows: 5) }
        _ = editor.handle(KeyPress(.enter), pageRows: 5)
        for character in "you" { _ = editor.handle(KeyPress(character), pageRows: 5) }
        editor.undo()
        #expect(editor.text == "hello\n")
        editor.undo()
        editor.undo()
        #expect(editor.text == "")
        editor.redo()
        #expect(editor.text == "hello")
    }

    @Test func newLineKeepsTheIndent() {
        var editor = TextEditor("  \"a\": 1,")
        _ = editor.handle(KeyPress(.end), pageRows: 5)
        _ = editor.handle(KeyPress(.enter), pageRows: 5)
        #expect(editor.text == "  \"a\": 1,\n  ")
    }

    @Test(arguments: [
        (#"{"b":1,"a":[true,null,{"x":-1.5e3}],"e":{}}"#, nil),
        (#"[]"#, nil), (#" "x" "#, nil), ("1", nil),
        ("", 0), ("{", 1), (#"{"a":}"#, 5), (#"{"a" 1}"#, 5), ("[1,]", 3), (#""abc"#, 0), ("01", 0), ("1 2", 2), (#"{"a":1,}"#, 7), ("\"a\u{1}\"", 2), ("tru", 0),
    ] as [(String, Int?)])
    func jsonIsJudgedWithThePlaceOfTheFault(text: String, offset: Int?) {
        #expect(JSON.check(Array(text.utf8))?.offset == offset)
    }

    @Test func jsonLayoutChangesOnlyBlanks() throws {
        let source = #"{"b":1.50,"a":[true,null,{"x":-1.5e3,"k":"a\"b"}],"e":{},"l":[]}"#
        let text = try JSON.formatted(Array(source.utf8))
        #expect(text.hasPrefix("{\n  \"b\": 1.50,\n  \"a\": [\n    true,"))
        #expect(try JSON.compacted(Array(text.utf8), like: Array(source.utf8)) == Array(source.utf8))
        #expect(try JSON.formatted(Array(text.utf8)) == text)
        let deep = String(repeating: "[", count: 100_000)
        #expect(JSON.check(Array(deep.utf8))?.message == "nested too deeply")
    }

    @Test func hexTextRoundTripsAndRefusesHalfBytes() {
        let bytes = (0...255).map { UInt8($0) }
        #expect(HexText.parse(HexText.dump(bytes)) == bytes)
        #expect(HexText.parse("0") == nil)
        #expect(HexText.parse("0g") == nil)
        #expect(HexText.parse("") == [])
    }

    @Test func diffSummaryReadsAsTheChange() {
        func summary(_ a: String, _ b: String) -> String { LineDiff.summary(Array(a.utf8), Array(b.utf8)) }
        #expect(summary(#"{"a":1,"ttl":3}"#, #"{"a":1,"ttl":30}"#) == #""ttl": 3 → 30"#)
        #expect(summary(#"{"a":1,"canary":5}"#, #"{"a":1}"#) == #"removed "canary": 5"#)
        #expect(summary(#"{"a":1}"#, #"{"a":1,"canary":5}"#) == #"added "canary": 5"#)
        #expect(summary("12", "13") == "12 → 13")
        #expect(summary("x", "x") == "same value written again")
    }

    @Test(arguments: [41, 42, 43, 44] as [UInt64])
    func diffTurnsOldIntoNew(seed: UInt64) {
        var random = Seeded(seed)
        for _ in 0..<100 {
            let old = (0..<Int.random(in: 0...8, using: &random)).map { _ in ["a", "b", "c"].randomElement(using: &random)! }
            let new = (0..<Int.random(in: 0...8, using: &random)).map { _ in ["a", "b", "c"].randomElement(using: &random)! }
            let diff = LineDiff.diff(old, new)
            #expect(diff.compactMap { if case .added = $0 { nil } else { $0.text } } == old, "seed \(seed)")
            #expect(diff.compactMap { if case .removed = $0 { nil } else { $0.text } } == new, "seed \(seed)")
        }
    }

    @Test func mergeTakesBothSidesAndCountsConflicts() {
        let base = ["{", "  a", "  b", "  c", "  d", "}"]
        let mine = ["{", "  a", "  B1", "  c", "  d", "}"]
        let theirs = ["{", "  a", "  b", "  c", "  D2", "}"]
        let clean = ThreeWayMerge(base: base, mine: mine, theirs: theirs)
        #expect(clean.merged == ["{", "  a", "  B1", "  c", "  D2", "}"])
        #expect(clean.conflicts == 0 && clean.clean == 1)
        let clash = ThreeWayMerge(base: base, mine: mine, theirs: ["{", "  a", "  B2", "  c", "  D2", "}"])
        #expect(clash.merged == ["{", "  a", "  B1", "  c", "  D2", "}"])
        #expect(clash.conflicts == 1 && clash.clean == 1)
        #expect(ThreeWayMerge(base: base, mine: base, theirs: theirs).merged == theirs)
        #expect(ThreeWayMerge(base: base, mine: mine, theirs: base).merged == mine)
    }
}

extension LineDiff.Line {
    var text: String {
        switch self {
        case .same(let text), .removed(let text), .added(let text): text
        }
    }
}
