import Foundation
import Testing

/// The harness itself, on programs that every machine has.
@Suite struct PseudoTerminalTests {
    @Test func showsWhatAProgramPrints() throws {
        let terminal = try PseudoTerminal(["/bin/sh", "-c", "printf '\\033[2J\\033[3;5Hgr\\303\\274n \\346\\274\\242x'; read line; echo \"got $line\""], columns: 40, rows: 6)
        try terminal.wait(for: "漢x")
        #expect(terminal.screen.lines[2] == "    grün 漢x")
        terminal.send("hello")
        terminal.send(.enter)
        try terminal.wait(for: "got hello")
        #expect(try terminal.waitForExit() == 0)
    }

    @Test func reportsExitStatusAndSignals() throws {
        #expect(try PseudoTerminal(["/bin/sh", "-c", "exit 7"]).waitForExit() == 7)
        let sleeper = try PseudoTerminal(["/bin/sh", "-c", "echo ready; exec sleep 100"])
        try sleeper.wait(for: "ready")
        sleeper.signal(SIGTERM)
        #expect(try sleeper.waitForExit() == 128 + SIGTERM)
    }

    @Test func noticesModesThatWereNotRestored() throws {
        let tidy = try PseudoTerminal(["/bin/sh", "-c", "printf '\\033[?1049h\\033[?1006h'; stty raw; printf '\\033[?1006l\\033[?1049l'; stty sane; echo sane; read x"])
        let untidy = try PseudoTerminal(["/bin/sh", "-c", "read x; printf '\\033[?1049h\\033[?25l'; stty raw; exit 0"])
        let before = untidy.lineModes
        untidy.send(.enter)
        _ = try untidy.waitForExit()
        let left = try #require(untidy.whatIsNotRestored(since: before))
        #expect(left.contains("line modes") && left.contains("1049") && left.contains("cursor"))
        try tidy.wait(for: "sane") // a carriage return that arrives while the terminal is raw never becomes the newline that read waits for
        tidy.send(.enter)
        _ = try tidy.waitForExit()
        #expect(tidy.screen.modes.isDisjoint(with: [1049, 1006]))
    }

    @Test func resizeReachesTheProgram() throws {
        let terminal = try PseudoTerminal(["/bin/sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"], columns: 80, rows: 24)
        try terminal.wait(for: "ready")
        terminal.resize(columns: 100, rows: 30)
        try terminal.wait(for: "30 100")
    }

    @Test func screenFollowsEditingSequences() {
        var screen = VirtualScreen(columns: 10, rows: 4)
        screen.feed(Array("abcdefghij\u{1b}[1;3H\u{1b}[2P\u{1b}[4;1Hend\u{1b}[2;1Hx\u{1b}[1;1H\u{1b}[@".utf8))
        #expect(screen.lines == [" abefghij", "x", "", "end"])
        screen.feed(Array("\u{1b}[2;3r\u{1b}[3;1Hlast\nnew".utf8))
        #expect(screen.lines[1].hasPrefix("last"))
        screen.feed(Array("\u{1b}[?1049h\u{1b}[H漢字\u{1b}[1;2Hq\u{1b}[?1049l".utf8))
        #expect(screen.lines[0] == " abefghij")
    }
}
