import CNcurses
import Testing
import UI
@testable import quarterdeck

private func decode(_ reads: [InputDecoder.Raw]...) -> [TerminalEvent] {
    var decoder = InputDecoder()
    var events: [TerminalEvent] = []
    for read in reads { decoder.feed(read, into: &events) }
    return events
}

private func text(_ string: String) -> [InputDecoder.Raw] { string.unicodeScalars.map { .character($0.value) } }
private func report(_ code: Int) -> InputDecoder.Raw { .key(UInt32(code)) }
private func key(_ kind: Int, _ modifiers: Int = 0) -> InputDecoder.Raw { .key(UInt32(QD_KEY_BASE + kind * 8 + modifiers)) }

@Suite struct InputDecoderTests {
    @Test func plainCharactersAreKeys() {
        #expect(decode(text("aZ/é♛")) == "aZ/é♛".map { .key(KeyPress($0)) })
    }

    @Test func controlCharactersBecomeTheirLetters() {
        #expect(decode([.character(3), .character(16), .character(0), .character(28)]) == [
            .key(.control("c")), .key(.control("p")), .key(.control(" ")), .key(.control("\\")),
        ])
    }

    @Test func namedControlCharactersAreNamedKeys() {
        #expect(decode([.character(9), .character(13), .character(10), .character(127), .character(8)]) == [
            .key(KeyPress(.tab)), .key(KeyPress(.enter)), .key(KeyPress(.enter)), .key(KeyPress(.backspace)), .key(KeyPress(.backspace)),
        ])
    }

    @Test func escapeAloneIsEscape() {
        #expect(decode([.character(27)]) == [.key(KeyPress(.escape))])
        #expect(decode([.character(27), .character(27)]) == [.key(KeyPress(.escape)), .key(KeyPress(.escape))])
    }

    @Test func escapeThenLaterCharacterAreTwoKeys() {
        #expect(decode([.character(27)], text("j")) == [.key(KeyPress(.escape)), .key(KeyPress("j"))])
    }

    @Test func escapeWithACharacterInOneReadIsAlt() {
        #expect(decode([.character(27)] + text("j")) == [.key(KeyPress(.character("j"), .alt))])
        #expect(decode([.character(27), key(QD_KEY_UP)]) == [.key(KeyPress(.up, .alt))])
        #expect(decode([.character(27)] + text("[")) == [.key(KeyPress(.character("["), .alt))])
    }

    @Test func unknownSequencesLeaveNoGarbage() {
        #expect(decode([.character(27)] + text("[27;5;9~x")) == [.key(KeyPress("x"))])
        #expect(decode([.character(27)] + text("Oxy")) == [.key(KeyPress("y"))])
        #expect(decode([.character(27)] + text("]11;rgb:0000/0000/0000") + [.character(7)] + text("q")) == [.key(KeyPress("q"))])
    }

    @Test func modifiersOfSpecialKeysAreRead() {
        #expect(decode([key(QD_KEY_UP, 4), key(QD_KEY_PAGE_DOWN), key(QD_KEY_TAB, 1), key(QD_KEY_F1 + 4), key(QD_KEY_LEFT, 3)]) == [
            .key(KeyPress(.up, .control)), .key(KeyPress(.pageDown)), .key(KeyPress(.backTab)), .key(KeyPress(.function(5))),
            .key(KeyPress(.left, [.shift, .alt])),
        ])
    }

    @Test func everyDefinedKeyHasAMeaning() {
        for kind in 0..<QD_KEY_KINDS {
            for modifiers in 0..<8 { #expect(InputDecoder.key(forCode: QD_KEY_BASE + kind * 8 + modifiers, alt: false) != nil) }
        }
        #expect(InputDecoder.key(forCode: QD_KEY_BASE + QD_KEY_KINDS * 8, alt: false) == nil)
        #expect(InputDecoder.key(forCode: 258, alt: false) == nil)
    }

    @Test(arguments: [
        ("0;1;1M", MouseEvent.Kind.leftPress, 0, 0), ("2;250;60M", .rightPress, 249, 59), ("0;3;4m", .release, 2, 3),
        ("32;5;6M", .drag, 4, 5), ("64;7;8M", .wheelUp, 6, 7), ("65;7;8M", .wheelDown, 6, 7), ("16;7;8M", .leftPress, 6, 7),
    ])
    func mouseReportsAreRead(_ report: String, _ kind: MouseEvent.Kind, _ column: Int, _ row: Int) {
        #expect(decode([.key(UInt32(QD_REPORT_MOUSE))] + text(report)) == [.mouse(MouseEvent(kind: kind, position: Position(column: column, row: row)))])
    }

    @Test func mouseReportMayArriveInPieces() {
        #expect(decode([report(QD_REPORT_MOUSE)] + text("0;1"), text("2;3"), text("M")) == [
            .mouse(MouseEvent(kind: .leftPress, position: Position(column: 11, row: 2))),
        ])
    }

    @Test(arguments: ["35;1;1M", "0;0;1M", "0;1M", "0;1;1;1M", "0;;1M", "0;99999999;1M", "66;1;1M", "x"])
    func meaninglessMouseReportsAreDropped(_ bad: String) {
        #expect(decode([report(QD_REPORT_MOUSE)] + text(bad) + text("k")) == [.key(KeyPress("k"))])
    }

    @Test func pasteIsOneEventAndRunsNoKeys() {
        let paste = [report(QD_REPORT_PASTE_BEGIN)] + text("q\tD\r\u{1b}[ü") + [key(QD_KEY_UP), .character(3)] + text("!") + [report(QD_REPORT_PASTE_END)]
        #expect(decode(paste + text("z")) == [.paste("q\tD\n[ü!"), .key(KeyPress("z"))])
    }

    @Test func pasteMayArriveInPieces() {
        #expect(decode([report(QD_REPORT_PASTE_BEGIN)] + text("a"), text("b"), text("c") + [report(QD_REPORT_PASTE_END)]) == [.paste("abc")])
    }

    @Test func hugePasteIsCut() {
        var decoder = InputDecoder()
        var events: [TerminalEvent] = []
        decoder.feed(report(QD_REPORT_PASTE_BEGIN), into: &events)
        for _ in 0..<InputDecoder.pasteLimitScalars + 10 { decoder.feed(.character(0x78), into: &events) }
        decoder.feed(report(QD_REPORT_PASTE_END), into: &events)
        guard case .paste(let pasted)? = events.first else { Issue.record("no paste"); return }
        #expect(pasted.utf8.count == InputDecoder.pasteLimitScalars)
        #expect(!decoder.isInsideSequence)
    }

    @Test func focusReportsAreRead() {
        #expect(decode([report(QD_REPORT_FOCUS_OUT), report(QD_REPORT_FOCUS_IN)]) == [.focused(false), .focused(true)])
    }

    @Test func answerAboutAPrivateModeIsRead() {
        #expect(decode([report(QD_REPORT_PRIVATE)] + text("2026;2$y")) == [.privateMode(2026, state: 2)])
        #expect(decode([report(QD_REPORT_PRIVATE)] + text("62;22c") + text("a")) == [.key(KeyPress("a"))])
    }
}
