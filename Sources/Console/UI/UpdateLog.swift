/// What only the Log view does.
enum LogVerb: Hashable, Sendable {
    case hold, level, nextNode, showsAll, older, newer, copy, export, clear
}

extension Catalogue {
    static let logEntries: [CatalogueEntry] = {
        func entry(_ verb: LogVerb, _ name: String, _ key: KeyPress, _ hint: String?, _ help: String, _ rank: Int) -> CatalogueEntry {
            CatalogueEntry(verb: .log(verb), name: name, context: .log, keys: [key], hint: hint, help: help, rank: rank, changes: false, section: .look)
        }
        return [
            entry(.hold, "hold-log", KeyPress(" "), "freeze", "hold the log still, or follow it again", 10),
            entry(.level, "log-level", KeyPress("v"), "level", "least level that is shown: debug, info, warn, error", 11),
            entry(.nextNode, "log-node", KeyPress("f"), "node", "lines of one node, of the console, or of all (also ← →)", 12),
            entry(.older, "match-before", KeyPress("n"), "older match", "to the match above", 21),
            entry(.newer, "match-after", KeyPress("N"), nil, "to the match below", 22),
            entry(.showsAll, "log-mode", KeyPress("m"), "mode", "only matching lines, or all with the matches marked", 23),
            entry(.copy, "copy-line", KeyPress("y"), "copy", "copy the selected line, or the newest", 24),
            entry(.export, "export-log", KeyPress("o"), "export", "write the lines that are shown to a file", 20),
            entry(.clear, "clear-log", KeyPress("c"), "clear", "forget the lines so far", 40),
        ]
    }()
}

extension Model {
    /// What the node filter offers: the nodes, then the console itself.
    var logNodes: [UInt64] { (cluster.kind == .attached ? [] : cluster.members.map(\.id)) + [0] }
    func logName(_ node: UInt64) -> String { node == 0 ? "console" : name(of: node) }

    private var logRows: Int { LogPlaces(rect: bodyRect, log: log).lines.rows }

    mutating func settleLog() {
        guard log.isHeld else { return }
        let rows = logRows
        log.settle(rows: rows)
    }

    var logCrumbs: [String] {
        var parts = ["log", log.node.map(logName) ?? "all nodes"]
        if !log.filter.isEmpty { parts.append(log.filter.text) }
        return parts
    }

    mutating func performInLog(_ verb: Verb, _ commands: inout [Command]) {
        let rows = logRows
        switch verb {
        case .down: log.move(1, rows: rows)
        case .up: log.move(-1, rows: rows)
        case .halfDown: log.move(rows / 2, rows: rows)
        case .halfUp: log.move(-rows / 2, rows: rows)
        case .pageDown: log.move(rows, rows: rows)
        case .pageUp: log.move(-rows, rows: rows)
        case .top: log.move(-LogState.limit, rows: rows)
        case .bottom: log.follow()
        case .left: log.cycleNode(-1, logNodes)
        case .right: log.cycleNode(1, logNodes)
        case .filter: log.isFiltering = true
        case .log(let verb): perform(verb, &commands)
        default: break
        }
    }

    private mutating func perform(_ verb: LogVerb, _ commands: inout [Command]) {
        switch verb {
        case .hold: if log.isHeld { log.follow() } else { log.hold() }
        case .level: log.cycleLevel()
        case .nextNode: log.cycleNode(1, logNodes)
        case .showsAll: log.toggleShowsAll()
        case .older: if !log.jump(-1, rows: logRows) { say("no older line has \(log.filter.text)", .dim) }
        case .newer: if !log.jump(1, rows: logRows) { say("no newer line has \(log.filter.text)", .dim) }
        case .copy:
            guard let line = log.selected ?? log.visible(1).last.map({ log[line: $0] }) else { return }
            let text = logText(line)
            send(.copy("the line"), &commands) { .copyToClipboard($0, text) }
        case .export:
            let clock = Format.clock(now, zone: timeZoneOffsetSeconds).split(separator: ":").joined()
            overlay = .prompt(Prompt(purpose: .exportLog, field: TextField("~/quarterdeck-\(clock).log")))
        case .clear: log.clear()
        }
    }

    /// A line as files and the clipboard get it.
    func logText(_ line: LogLine) -> String { "\(Format.iso(line.at)) \(logName(line.node)) \(line.level.label) \(line.part): \(line.text)" }

    mutating func exportLog(to path: String, _ commands: inout [Command]) {
        let lines = log.kept
        let text = lines.map(logText).joined(separator: "\n") + "\n"
        send(.export("\(Format.plural(Int64(lines.count), "line")) to \(path)"), &commands) { .export($0, path: path, content: Array(text.utf8)) }
    }

    func obstacle(to verb: LogVerb) -> String? {
        switch verb {
        case .hold: if log.count == 0 { return "no line yet" }
        case .older, .newer: if log.filter.isEmpty { return "nothing is searched for: / types a text" }
        case .showsAll: if log.filter.isEmpty { return "no text is filtered for: / types one" }
        case .copy, .export: if log.shown == 0 { return "no line is shown" }
        case .level, .nextNode, .clear: break
        }
        return nil
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInLog() -> Bool {
        if !log.filter.isEmpty { log.clearText(); return true }
        if log.isHeld { log.follow(); return true }
        if log.node != nil { log.choose(nil); return true }
        return false
    }

    /// Keys while the text is typed; false when the key is one for the list.
    mutating func handleLogFilter(_ key: KeyPress) -> Bool {
        switch key.code {
        case .escape: log.clearText()
        case .enter: log.isFiltering = false
        case .up, .down, .pageUp, .pageDown, .tab, .backTab, .function: return false
        default:
            if key == .control("c") || key == .control("z") || key == .control("l") || key == .control("p") { return false }
            let before = log.filter.text
            if log.filter.handle(key), log.filter.text != before { log.textChanged() }
        }
        return true
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInLog(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
        let places = LogPlaces(rect: body, log: log)
        if step != 0 {
            log.move(step, rows: places.lines.rows)
            // Turned down to the end: follow again.
            if step > 0, log.newer == 0, log.visible(1).last == log.selection { log.follow() }
            return
        }
        if position.row == places.chips.row, let chip = logChips(places.chips).first(where: { $0.rect.contains(position) }) { return log.choose(chip.node) }
        guard places.lines.contains(position) else { return }
        let shown = log.visible(places.lines.rows)
        let index = position.row - places.lines.row
        guard shown.indices.contains(index) else { return }
        log.hold()
        // The text of the selected line takes rows from the bottom: what was clicked stays under the mouse.
        let rows = LogPlaces(rect: body, log: log).lines.rows
        log.select(shown[index], bottom: shown[min(shown.count, rows) - 1])
    }
}
