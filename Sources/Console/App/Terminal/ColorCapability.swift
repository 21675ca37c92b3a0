import UI

/// What to ask of the terminal before it is opened, and what it turned out to be.
struct ColorCapability: Sendable {
    /// Whether to try a direct-colour description of the terminal.
    var wantsDirect: Bool
    /// `NO_COLOR` is set: attributes only. (no-color.org: any value but the empty one)
    var isSwitchedOff: Bool

    /// Reads COLORTERM, NO_COLOR, TERM and the names that some terminals leave in the environment.
    init(environment: [String: String]) {
        isSwitchedOff = !(environment["NO_COLOR"] ?? "").isEmpty
        let term = environment["TERM"] ?? ""
        let program = environment["TERM_PROGRAM"] ?? ""
        let inTmux = environment["TMUX"] != nil
        let saysSo = ["truecolor", "24bit"].contains((environment["COLORTERM"] ?? "").lowercased())
        let isKnown = term.hasSuffix("-direct") || ["xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm", "contour"].contains(term)
            || ["iTerm.app", "WezTerm", "vscode", "ghostty"].contains(program) && term.hasPrefix("xterm")
        // COLORTERM is inherited through everything that starts a shell. A Linux console, a real screen or a VT is not what it speaks of.
        let cannot = ["linux", "dumb", "ansi", "cygwin"].contains(term) || term.hasPrefix("vt") || term.hasPrefix("screen") && !inTmux
            || term.hasSuffix("-mono") || term.hasSuffix("-m")
        wantsDirect = !isSwitchedOff && !cannot && (saysSo || isKnown)
    }

    /// The depth to draw in, from the number of colours that the opened terminal has.
    func depth(colors: Int, isDirect: Bool) -> ColorDepth {
        if isSwitchedOff { return .mono }
        if isDirect { return .trueColor }
        return switch colors {
        case 256...: .indexed256
        case 16...: .ansi16
        case 8...: .ansi8
        default: .mono
        }
    }
}
