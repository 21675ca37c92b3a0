import Testing
import UI
@testable import quarterdeck

@Suite struct ColorCapabilityTests {
    @Test(arguments: [
        (["TERM": "xterm-256color", "COLORTERM": "truecolor"], true), (["TERM": "xterm-256color"], false),
        (["TERM": "xterm-kitty"], true), (["TERM": "tmux-256color", "COLORTERM": "24bit"], true),
        (["TERM": "linux", "COLORTERM": "truecolor"], false), (["TERM": "screen-256color", "COLORTERM": "truecolor"], false),
        (["TERM": "screen-256color", "COLORTERM": "truecolor", "TMUX": "/tmp/x"], true), (["TERM": "vt100", "COLORTERM": "truecolor"], false),
        (["TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"], true), (["TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"], false),
        ([:], false),
    ] as [([String: String], Bool)])
    func directColourIsTriedWhereTheTerminalCanShowIt(_ environment: [String: String], _ wanted: Bool) {
        #expect(ColorCapability(environment: environment).wantsDirect == wanted)
    }

    @Test func depthFollowsTheTerminal() {
        let plain = ColorCapability(environment: ["TERM": "x"])
        #expect(plain.depth(colors: 1 << 24, isDirect: true) == .trueColor)
        #expect(plain.depth(colors: 256, isDirect: false) == .indexed256)
        #expect(plain.depth(colors: 88, isDirect: false) == .ansi16)
        #expect(plain.depth(colors: 8, isDirect: false) == .ansi8)
        #expect(plain.depth(colors: 0, isDirect: false) == .mono)
    }

    @Test func noColorWins() {
        #expect(ColorCapability(environment: ["NO_COLOR": "yes", "TERM": "xterm"]).depth(colors: 256, isDirect: false) == .mono)
        #expect(ColorCapability(environment: ["NO_COLOR": "", "TERM": "xterm"]).depth(colors: 256, isDirect: false) == .indexed256)
    }
}
