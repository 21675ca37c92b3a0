/// Everything a person can make the console do by one key.
enum Verb: Hashable, Sendable {
    case view(ViewID)
    case up, down, left, right, top, bottom, halfUp, halfDown, pageUp, pageDown
    case nextPanel, previousPanel, open, back, goBack, lastView
    case filter, palette, help, enlarge, shrink
    case refresh, redraw, suspend, saveScreen, quit
    case kill, restart, pause, isolate, lead, workload, copyEndpoint
    case newKey, editKey, externalEdit, deleteKey, renameKey, undo
    case mark, clearMarks, valueMode, flatList, history, watchThis, copyKey, restoreVersion
    case addWatch, closeWatch, freeze, clearStream, saveStream
    case editorSave, editorExternal, editorUndo, editorRedo, editorFormat, editorCancel
    case elections(ElectionsVerb)
    case latency(LatencyVerb)
    case chaos(ChaosVerb)
    case log(LogVerb)
    case replay(ReplayVerb)
}

/// Where a key means something. The active ones are looked through in order: the panel's, the view's, everywhere.
enum Context: Hashable, Sendable {
    case everywhere, overview, keys, tree, value, history, watch, watchList, stream, editor
    case elections, latency, chaos, log
    /// Panels of Chaos: all but the scenarios, and those.
    case chaosTargets, scenarios
    /// Before all others while a recording is replayed: its arrows and blank are the recording's.
    case replay
}

/// A row of the catalogue.
struct CatalogueEntry: Sendable {
    var verb: Verb
    /// For configuration and the palette: `kill-node`.
    var name: String
    var context: Context
    var keys: [KeyPress]
    /// One or two words for the hints line; nil: not hinted.
    var hint: String?
    /// What it does, for help and palette.
    var help: String
    /// Hints with small numbers stay longest.
    var rank: Int
    /// Changes the cluster's data or nodes: off in read-only mode.
    var changes: Bool
    var section: HelpSection
}

enum HelpSection: Int, CaseIterable, Hashable, Sendable {
    case cluster, look, move, chrome

    var title: String {
        switch self {
        case .move: "MOVE"
        case .look: "LOOK"
        case .cluster: "CAPITALS CHANGE THE CLUSTER"
        case .chrome: "CONSOLE"
        }
    }
}

/// The one table of actions: dispatch, the hints line, help and the palette all come from it, so nothing is hidden and nothing clashes.
enum Catalogue {
    static let entries: [CatalogueEntry] = {
        var list = electionsEntries + latencyEntries + chaosEntries + logEntries + replayEntries
        func add(_ verb: Verb, _ name: String, _ context: Context, _ keys: [KeyPress], hint: String? = nil, _ help: String,
                 rank: Int = 50, changes: Bool = false, _ section: HelpSection) {
            list.append(CatalogueEntry(verb: verb, name: name, context: context, keys: keys, hint: hint, help: help, rank: rank, changes: changes, section: section))
        }
        for view in ViewID.allCases {
            add(.view(view), "view-\(view.title.lowercased())", .everywhere, [KeyPress(Character(view.keyLabel))], "go to \(view.title)", .move)
        }
        add(.down, "down", .everywhere, [KeyPress("j"), KeyPress(.down)], "next row", .move)
        add(.up, "up", .everywhere, [KeyPress("k"), KeyPress(.up)], "row above", .move)
        add(.left, "left", .everywhere, [KeyPress("h"), KeyPress(.left)], "close, or left", .move)
        add(.right, "right", .everywhere, [KeyPress("l"), KeyPress(.right)], "open, or right", .move)
        add(.top, "top", .everywhere, [KeyPress("g"), KeyPress(.home)], "first row", .move)
        add(.bottom, "bottom", .everywhere, [KeyPress("G"), KeyPress(.end)], "last row", .move)
        add(.halfDown, "half-page-down", .everywhere, [.control("d")], "half a page down", .move)
        add(.halfUp, "half-page-up", .everywhere, [.control("u")], "half a page up", .move)
        add(.pageDown, "page-down", .everywhere, [KeyPress(.pageDown)], "a page down", .move)
        add(.pageUp, "page-up", .everywhere, [KeyPress(.pageUp)], "a page up", .move)
        add(.nextPanel, "next-panel", .everywhere, [KeyPress(.tab)], "next panel", rank: 60, .move)
        add(.previousPanel, "previous-panel", .everywhere, [KeyPress(.backTab)], "previous panel", .move)
        add(.lastView, "last-view", .everywhere, [KeyPress("-")], "the view before", .move)
        add(.back, "back", .everywhere, [KeyPress(.escape)], "one step back", .move)

        add(.open, "node-details", .overview, [KeyPress(.enter)], hint: "node", "everything about this node", rank: 10, .look)
        add(.copyEndpoint, "copy-endpoint", .overview, [KeyPress("y")], hint: "copy", "copy the node's address", rank: 58, .look)
        add(.kill, "kill-node", .overview, [KeyPress("K")], hint: "kill", "kill the node: nothing flushed, links dropped", rank: 11, changes: true, .cluster)
        add(.restart, "restart-node", .overview, [KeyPress("R")], hint: "restart", "start the node again", rank: 13, changes: true, .cluster)
        add(.pause, "pause-node", .overview, [KeyPress("P")], hint: "pause", "pause the node, or let it run on", rank: 12, changes: true, .cluster)
        add(.isolate, "isolate-node", .overview, [KeyPress("X")], hint: "isolate", "cut the node off its peers, or let it back", rank: 14, changes: true, .cluster)
        add(.lead, "lead-here", .overview, [KeyPress("L")], hint: "lead here", "hand leadership to this node", rank: 15, changes: true, .cluster)
        add(.workload, "workload", .overview, [KeyPress("W")], hint: "workload", "switch the built-in workload on or off", rank: 16, changes: true, .cluster)

        add(.open, "open-key", .tree, [KeyPress(.enter)], hint: "open", "open a directory, or the value", rank: 10, .look)
        add(.editKey, "edit-key", .keys, [KeyPress("e")], hint: "edit", "edit the value here (^S inside writes it)", rank: 12, .look)
        add(.externalEdit, "edit-in-editor", .keys, [KeyPress("v")], hint: "$EDITOR", "edit the value in $EDITOR", rank: 30, .look)
        add(.history, "history", .keys, [KeyPress("t")], hint: "history", "earlier versions of this key", rank: 26, .look)
        add(.watchThis, "watch-key", .keys, [KeyPress("w")], hint: "watch", "watch this key or directory", rank: 21, .look)
        add(.valueMode, "value-mode", .keys, [KeyPress("m")], hint: "mode", "show the value as json, text or hex", rank: 40, .look)
        add(.flatList, "flat-list", .keys, [KeyPress("s")], hint: "tree/flat", "tree or flat list", rank: 41, .look)
        add(.copyKey, "copy-key", .keys, [KeyPress("y")], hint: "copy", "copy the etcdctl line that reads this key", rank: 42, .look)
        add(.mark, "mark", .tree, [KeyPress(" ")], hint: "mark", "mark this key; D deletes the marked ones", rank: 44, .look)
        add(.clearMarks, "clear-marks", .tree, [KeyPress("*")], "take all marks off", .look)
        add(.newKey, "add-key", .keys, [KeyPress("A")], hint: "add", "add a key", rank: 15, changes: true, .cluster)
        add(.deleteKey, "delete", .keys, [KeyPress("D")], hint: "delete", "delete the key, the marked keys, or the directory", rank: 16, changes: true, .cluster)
        add(.renameKey, "rename-key", .tree, [KeyPress("R")], hint: "rename", "rename the key", rank: 17, changes: true, .cluster)
        add(.renameKey, "rename-key", .value, [KeyPress("R")], hint: "rename", "rename the key", rank: 17, changes: true, .cluster)
        add(.restoreVersion, "restore-version", .history, [KeyPress("R")], hint: "restore", "write this old value as a new revision", rank: 20, changes: true, .cluster)
        add(.open, "show-version", .history, [KeyPress(.enter)], hint: "show", "show this version", rank: 10, .look)
        add(.undo, "undo", .keys, [KeyPress("U")], hint: "undo", "take the last change made here back", rank: 18, changes: true, .cluster)

        add(.open, "follow-watch", .watchList, [KeyPress(.enter)], hint: "stream", "go to this watch's stream", rank: 10, .look)
        add(.open, "open-event-key", .stream, [KeyPress(.enter)], hint: "key", "show the event's key in Keys", rank: 10, .look)
        add(.addWatch, "add-watch", .watch, [KeyPress("a")], hint: "add", "open a watch", rank: 12, .look)
        add(.closeWatch, "close-watch", .watch, [KeyPress("x")], hint: "close", "close this watch", rank: 14, .look)
        add(.freeze, "freeze", .watch, [KeyPress(" ")], hint: "freeze", "hold the stream still, or follow it again; all is counted and kept", rank: 11, .look)
        add(.clearStream, "clear-stream", .watch, [KeyPress("c")], hint: "clear", "forget the events so far", rank: 20, .look)
        add(.saveStream, "save-stream", .watch, [KeyPress("o")], hint: "save", "save the events to a JSON-lines file", rank: 21, .look)

        add(.filter, "filter", .everywhere, [KeyPress("/")], hint: "filter", "narrow what is listed", rank: 19, .look)
        add(.enlarge, "enlarge", .everywhere, [KeyPress("+")], hint: "enlarge", "the focused panel fills the screen", rank: 70, .look)
        add(.shrink, "shrink", .everywhere, [KeyPress("_")], "all panels again", .look)
        add(.palette, "command", .everywhere, [KeyPress(":"), .control("p")], hint: "command", "any action by name", rank: 5, .chrome)
        add(.help, "help", .everywhere, [KeyPress("?")], hint: "help", "this page", rank: 4, .chrome)
        add(.refresh, "refresh", .everywhere, [KeyPress(.function(5))], "ask the cluster now", .chrome)
        add(.redraw, "redraw", .everywhere, [.control("l")], "paint the screen again", .chrome)
        add(.saveScreen, "save-screen", .everywhere, [.control("s")], "save the screen as text", .chrome)
        add(.suspend, "suspend", .everywhere, [.control("z")], "to the shell; fg comes back", .chrome)
        add(.goBack, "quit-view", .everywhere, [KeyPress("q")], "back; from the Overview: quit", .chrome)
        add(.quit, "quit", .everywhere, [.control("c")], "quit (asks)", .chrome)

        add(.editorSave, "editor-save", .editor, [.control("s")], hint: "save", "write the value", rank: 1, changes: true, .cluster)
        add(.editorExternal, "editor-external", .editor, [.control("o")], hint: "$EDITOR", "go on in $EDITOR", rank: 2, .look)
        add(.editorUndo, "editor-undo", .editor, [.control("u")], hint: "undo", "take the last change back", rank: 3, .look)
        add(.editorRedo, "editor-redo", .editor, [.control("r")], hint: "redo", "the change again", rank: 4, .look)
        add(.editorFormat, "editor-format", .editor, [KeyPress(.function(2))], hint: "format", "lay the JSON out", rank: 5, .look)
        add(.editorCancel, "editor-cancel", .editor, [KeyPress(.escape)], hint: "cancel", "leave the editor", rank: 6, .look)
        return list + chaosShared
    }()

    /// Hints of narrow screens.
    static func short(_ hint: String) -> String {
        switch hint {
        case "restart": "up"
        case "kill leader": "kill"
        case "isolate": "cut"
        case "lead here": "lead"
        case "workload": "load"
        case "command": "cmd"
        case "history": "hist"
        case "delete": "del"
        case "rename": "ren"
        case "tree/flat": "tree"
        case "flaky link": "flaky"
        default: hint
        }
    }

    static func entry(for key: KeyPress, in contexts: [Context]) -> CatalogueEntry? {
        for context in contexts {
            if let entry = entries.first(where: { $0.context == context && $0.keys.contains(key) }) { return entry }
        }
        return nil
    }

    static func entries(in contexts: [Context]) -> [CatalogueEntry] {
        contexts.flatMap { context in entries.filter { $0.context == context } }
    }
}

extension KeyPress {
    /// As hints and help write it: `^s`, `↵`, `Tab`, `K`.
    var label: String {
        let base: String = switch code {
        case .character(" "): "space"
        case .character(let character): String(character)
        case .enter: "↵"
        case .escape: "Esc"
        case .tab: "Tab"
        case .backTab: "S-Tab"
        case .backspace: "⌫"
        case .delete: "Del"
        case .insert: "Ins"
        case .up: "↑"
        case .down: "↓"
        case .left: "←"
        case .right: "→"
        case .home: "Home"
        case .end: "End"
        case .pageUp: "PgUp"
        case .pageDown: "PgDn"
        case .function(let number): "F\(number)"
        }
        if modifiers.contains(.control) { return "^" + base }
        if modifiers.contains(.alt) { return "M-" + base }
        return base
    }

    /// In the ascii set, where ↵ has no glyph.
    func label(_ glyphs: GlyphSet) -> String {
        guard glyphs == .ascii else { return label }
        return switch code {
        case .enter: "Enter"
        case .up: "Up"
        case .down: "Down"
        case .left: "Left"
        case .right: "Right"
        default: label
        }
    }
}

extension Model {
    /// The contexts that the next key is looked up in.
    var contexts: [Context] {
        if screen == .keys, keys.editor != nil { return [.editor] }
        let own: Context? = switch panel {
        case .nodes, .events: nil
        case .tree: .tree
        case .value: .value
        case .history: .history
        case .watchList: .watchList
        case .stream: .stream
        case .scenarios: .scenarios
        case .links, .newFault, .activeFaults, .load, .happened: .chaosTargets
        default: nil
        }
        let view: Context? = switch screen {
        case .overview: .overview
        case .keys: .keys
        case .watch: .watch
        case .elections: .elections
        case .latency: .latency
        case .chaos: .chaos
        case .log: .log
        default: nil
        }
        return [replay == nil ? nil : .replay, own, view, .everywhere].compactMap { $0 }
    }

    /// Why an action cannot be done now; nil: it can.
    func obstacle(to verb: Verb, changes: Bool) -> String? {
        if changes, mode == .readOnly {
            if replay != nil { return "this is a recording: nothing can be changed in it" }
            return isReadOnly ? "read-only: capitals are off (started with --read-only)" : "this cluster is read-only"
        }
        let member = cluster.members.indices.contains(overview.selection) ? cluster.members[overview.selection] : nil
        let playgroundOnly = "only nodes that this console started can be stopped or cut off"
        switch verb {
        case .view(let view):
            return view.isImplemented ? nil : "\(view.title) is not in this version"
        case .kill:
            if cluster.kind == .attached { return playgroundOnly }
            guard let member else { return "no node yet" }
            if case .down = member.health { return "\(member.name) is down: R restarts it" }
            return faultSupport.reason(.kill)
        case .restart:
            if cluster.kind == .attached { return playgroundOnly }
            guard member != nil else { return "no node yet" }
        case .pause, .isolate:
            if cluster.kind == .attached { return playgroundOnly }
            guard let member else { return "no node yet" }
            if case .down = member.health { return "\(member.name) is down: R restarts it" }
            return faultSupport.reason(verb == .pause ? .pause : .isolate)
        case .lead:
            guard let member else { return "no node yet" }
            if case .down = member.health { return "\(member.name) is down" }
            if member.role == .leader { return "\(member.name) leads already" }
            if member.role == .learner { return "\(member.name) is a learner and cannot lead" }
            if cluster.leader == nil { return "no leader now: leadership cannot be handed over" }
        case .workload:
            if workload.isSwitching { return "the workload is being switched" }
        case .copyEndpoint:
            if member == nil { return "no node yet" }
        case .editKey, .externalEdit:
            return keys.editObstacle
        case .renameKey:
            guard case .key? = keys.selectedRow?.kind else { return "select a key to rename" }
            guard keys.value.current != nil else { return "the value is still on its way" }
        case .deleteKey:
            if keys.marks.isEmpty, keys.selectedRow.map(\.isGap) ?? true { return "select a key or a directory" }
        case .history:
            if keys.selectedKey == nil { return "a directory has no history: select a key" }
        case .copyKey:
            if keys.selectedRow.map(\.isGap) ?? true { return "select a key" }
        case .valueMode:
            if keys.value.current == nil { return "no value to show" }
        case .restoreVersion:
            guard keys.historyVersion != nil else { return "no earlier version selected" }
            if keys.historySelection == 0 { return "that is the value now" }
            if keys.historyVersion?.version == 0 { return "that is a deletion: D deletes" }
        case .undo:
            if undoStack.isEmpty { return "nothing to undo: no change made here yet" }
        case .watchThis:
            if keys.selectedRow.map(\.isGap) ?? true { return "select a key or a directory" }
        case .mark:
            guard case .key? = keys.selectedRow?.kind else { return "only keys can be marked; D on a directory deletes all of it" }
        case .closeWatch, .freeze, .clearStream, .saveStream:
            if watch.sessions.isEmpty { return "no watch is open: a opens one" }
        case .elections(let verb): return obstacle(to: verb)
        case .latency(let verb): return obstacle(to: verb)
        case .chaos(let verb): return obstacle(to: verb)
        case .log(let verb): return obstacle(to: verb)
        case .open: if screen == .chaos, cluster.kind == .attached { return Model.playgroundOnly }
        case .replay(let verb): return obstacle(to: verb)
        case .filter:
            if [.overview, .elections, .chaos].contains(screen) { return "nothing to filter here" }
            if screen == .watch, watch.sessions.isEmpty { return "no watch is open: a opens one" }
        case .editorSave:
            if keys.editor?.savingRequest != nil { return "being written" }
        default: break
        }
        return nil
    }
}
