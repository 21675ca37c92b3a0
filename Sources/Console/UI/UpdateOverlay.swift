extension Model {
    mutating func handleOverlay(_ key: KeyPress, _ commands: inout [Command]) {
        switch key {
        case .control("c"):
            if case .confirm(let confirmation)? = overlay, confirmation.question == .quit {
                leave(&commands)
            } else { overlay = .confirm(Confirmation(question: .quit)) }
            return
        case .control("z"): commands.append(.suspend); return
        case .control("l"): commands.append(.redraw); return
        default: break
        }
        switch overlay {
        case .help(let state): handle(state, key)
        case .palette(let state): handle(state, key, &commands)
        case .confirm(let state): handle(state, key, &commands)
        case .prompt(let state): handle(state, key, &commands)
        case .node: handleNode(key, &commands)
        case .conflict(let state): handle(state, key, &commands)
        case .workloadForm(let state): handle(state, key, &commands)
        case .fault(let state): handle(state, key, &commands)
        case .scenario(let summary): handleScenario(summary, key, &commands)
        case nil: break
        }
    }

    // MARK: Help

    private mutating func handle(_ state: HelpState, _ key: KeyPress) {
        var state = state
        if state.isFiltering {
            switch key.code {
            case .escape:
                state.isFiltering = false
                state.field = TextField()
            case .enter: state.isFiltering = false
            default:
                _ = state.field.handle(key)
                state.scroll = 0
            }
            overlay = .help(state)
            return
        }
        switch key.code {
        case .escape, .character("q"), .character("?"):
            if !state.field.isEmpty { state.field = TextField() } else { overlay = nil; return }
        case .character("/"): state.isFiltering = true
        case .down, .character("j"): state.scroll += 1
        case .up, .character("k"): state.scroll -= 1
        case .pageDown, .character(" "): state.scroll += 10
        case .pageUp: state.scroll -= 10
        case .character("g"), .home: state.scroll = 0
        default: break
        }
        let lines = helpLines(filter: state.field.text)
        state.scroll = min(max(0, state.scroll), max(0, lines.count - 1))
        overlay = .help(state)
    }

    // MARK: Node details

    private mutating func handleNode(_ key: KeyPress, _ commands: inout [Command]) {
        switch key.code {
        case .escape, .enter, .character("q"): overlay = nil
        case .down, .character("j"): selectNode(1)
        case .up, .character("k"): selectNode(-1)
        default:
            // The capitals that work on the node's row work on its page too.
            if let entry = Catalogue.entry(for: key, in: [.overview]), entry.changes || entry.verb == .copyEndpoint {
                overlay = nil
                perform(entry.verb, changes: entry.changes, &commands)
            }
        }
    }

    private mutating func selectNode(_ delta: Int) {
        guard !cluster.members.isEmpty else { return }
        overview.selection = min(max(0, overview.selection + delta), cluster.members.count - 1)
        overlay = .node(cluster.members[overview.selection].id)
    }

    // MARK: Confirmations

    private mutating func handle(_ state: Confirmation, _ key: KeyPress, _ commands: inout [Command]) {
        var state = state
        if key.code == .escape {
            overlay = nil
            return
        }
        guard let proof = state.proof else {
            switch key.code {
            case .character("y"), .character("Y"): confirmed(state, &commands)
            case .enter where state.question == .quit: confirmed(state, &commands)
            case .character("n"), .character("N"), .character("q"): overlay = nil
            case .character("s") where state.question == .writeEdit: confirmed(state, &commands)
            default: break
            }
            return
        }
        if key.code == .enter {
            guard state.field.text == proof else { return say("type \(proof) to go on, Esc keeps everything", .warn) }
            if case .deletePrefix(_, _, let count, _, _, _) = state.question, count == nil { return say("wait for the count", .warn) }
            confirmed(state, &commands)
            return
        }
        _ = state.field.handle(key)
        overlay = .confirm(state)
    }

    private mutating func confirmed(_ state: Confirmation, _ commands: inout [Command]) {
        overlay = nil
        switch state.question {
        case .quit: leave(&commands)
        case .discardEdit:
            keys.editor = nil
            say("edit dropped, nothing written", .dim)
        case .deleteKey(let summary):
            send(.delete(key: summary.key), &commands) { .delete($0, key: summary.key, expecting: summary.modRevision > 0 ? .modRevision(summary.modRevision) : .none) }
        case .deleteKeys(let list): send(.deleteKeys(count: list.count), &commands) { .deleteKeys($0, list) }
        case .deletePrefix(let prefix, _, _, _, _, _): send(.deletePrefix(prefix), &commands) { .deletePrefix($0, prefix: prefix, undoLimit: 1_000) }
        case .writeEdit: write(&commands)
        case .overwrite: write(overwrite: true, &commands)
        case .restore(let version): restore(version, &commands)
        case .undo: undo(&commands)
        case .lead(let member, let name): send(.node("lead \(name)"), &commands) { .transferLeadership($0, to: member) }
        case .workload: switchWorkload(&commands)
        case .canary: switchCanary(&commands)
        }
    }

    private mutating func handle(_ state: Conflict, _ key: KeyPress, _ commands: inout [Command]) {
        var state = state
        switch key.code {
        case .escape: overlay = nil
        case .character("m"): resolve(0, state, &commands)
        case .character("t"): resolve(1, state, &commands)
        case .character("o"): resolve(2, state, &commands)
        case .enter: resolve(state.selection, state, &commands)
        case .down, .character("j"):
            state.selection = min(2, state.selection + 1)
            overlay = .conflict(state)
        case .up, .character("k"):
            state.selection = max(0, state.selection - 1)
            overlay = .conflict(state)
        default: break
        }
    }

    // MARK: Prompts

    private mutating func handle(_ state: Prompt, _ key: KeyPress, _ commands: inout [Command]) {
        var state = state
        switch key.code {
        case .escape: overlay = nil
        case .enter: accept(state, &commands)
        case .tab:
            if case .newKey = state.purpose, let separator = keys.separator { state.field.insert(Format.text([separator])) }
            overlay = .prompt(state)
        default:
            if state.field.handle(key) { state.problem = nil }
            overlay = .prompt(state)
        }
    }

    private mutating func accept(_ prompt: Prompt, _ commands: inout [Command]) {
        var prompt = prompt
        let text = prompt.field.text
        func refuse(_ problem: String) {
            prompt.problem = problem
            overlay = .prompt(prompt)
        }
        switch prompt.purpose {
        case .newKey:
            let key = KeyBytes(Model.unescaped(text))
            if key.bytes.isEmpty { return refuse("a key has at least one byte") }
            if keys.tree.index(ofKey: key) != nil { return refuse("this key exists: Esc, then e edits it") }
            overlay = nil
            openEditor(EditorState(key: key, base: nil))
        case .rename(let old):
            let key = KeyBytes(Model.unescaped(text))
            if key.bytes.isEmpty { return refuse("a key has at least one byte") }
            if key == old.key { return refuse("this is its name now") }
            overlay = nil
            send(.rename(from: old.key, to: key), &commands) {
                .rename($0, from: old.key, to: key, value: old.value, lease: old.summary.lease, modRevision: old.summary.modRevision)
            }
        case .addWatch:
            // `PREFIX`, `PREFIX @REV`; a text that does not end with the separator may be one key or a prefix: a known key is a key.
            var words = text
            var revision: Int64?
            if let at = words.lastIndex(of: "@"), let number = Int64(words[words.index(after: at)...].filter { $0 != "," }) {
                revision = number
                words = String(words[..<at])
                while words.last == " " { words.removeLast() }
            }
            let bytes = KeyBytes(Model.unescaped(words))
            overlay = nil
            openWatch(keys.tree.index(ofKey: bytes) != nil ? .key(bytes) : .prefix(bytes), from: revision, &commands)
            if screen != .watch { go(to: .watch, &commands) }
            panel = .stream
        case .saveStream:
            guard let session = watch.selected else { overlay = nil; return }
            let events = session.keptEvents
            if text.isEmpty { return refuse("a file name is missing") }
            if events.isEmpty { return refuse("there is no event to save yet") }
            overlay = nil
            send(.save(text), &commands) { .saveEvents($0, path: text, events: events) }
        case .exportLatency:
            if text.isEmpty { return refuse("a file name is missing") }
            overlay = nil
            let content = latencyCSV()
            send(.export(text), &commands) { .export($0, path: text, content: content) }
        case .exportElections:
            if text.isEmpty { return refuse("a file name is missing") }
            overlay = nil
            let content = Array(exportedElections.utf8)
            send(.export(text), &commands) { .export($0, path: text, content: content) }
        case .recordSession:
            if text.isEmpty { return refuse("a file name is missing") }
            overlay = nil
            send(.record(isOn: true), &commands) { .record($0, path: text) }
        case .exportLog:
            if text.isEmpty { return refuse("a file name is missing") }
            overlay = nil
            exportLog(to: text, &commands)
        }
    }

    /// `\xNN` typed in a key is that byte; everything else is taken as it is.
    static func unescaped(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count, bytes[index + 1] == UInt8(ascii: "x"),
               let high = Character(Unicode.Scalar(bytes[index + 2])).hexDigitValue, let low = Character(Unicode.Scalar(bytes[index + 3])).hexDigitValue {
                result.append(UInt8(high * 16 + low))
                index += 4
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return result
    }

    // MARK: Palette

    private mutating func handle(_ state: PaletteState, _ key: KeyPress, _ commands: inout [Command]) {
        var state = state
        switch (key.code, key.modifiers) {
        case (.escape, _):
            overlay = nil
            return
        case (.down, _), (.character("n"), .control): state.selection += 1
        case (.up, _), (.character("p"), .control): state.selection -= 1
        case (.pageDown, _): state.selection += 8
        case (.pageUp, _): state.selection -= 8
        case (.enter, _):
            let items = paletteItems(state.field.text)
            if items.indices.contains(state.selection), items[state.selection].completion.hasSuffix(" ") {
                // It needs an argument: go on typing.
                state.field = TextField(items[state.selection].completion)
                state.selection = 0
                overlay = .palette(state)
                return
            }
            overlay = nil
            guard items.indices.contains(state.selection) else { return }
            run(items[state.selection], &commands)
            return
        case (.tab, _):
            let items = paletteItems(state.field.text)
            if items.indices.contains(state.selection) { state.field = TextField(items[state.selection].completion) }
        default:
            if state.field.handle(key) { state.selection = 0 }
        }
        state.selection = min(max(0, state.selection), max(0, paletteItems(state.field.text).count - 1))
        overlay = .palette(state)
    }

    mutating func run(_ item: PaletteItem, _ commands: inout [Command]) {
        paletteHistory.removeAll { $0 == item.title }
        paletteHistory.append(item.title)
        if paletteHistory.count > 50 { paletteHistory.removeFirst() }
        switch item.action {
        case .entry(let entry):
            // What can be done where one is needs no change of view.
            if let here = Catalogue.entries(in: contexts).first(where: { $0.name == entry.name }) {
                perform(here.verb, changes: here.changes, &commands)
                return
            }
            if let screen = Model.screen(of: entry.context) { go(to: screen, &commands) }
            if let panel = Model.panel(of: entry.context) { self.panel = panel }
            perform(entry.verb, changes: entry.changes, &commands)
        case .node(let verb, let member):
            guard let index = cluster.members.firstIndex(where: { $0.id == member }) else { return }
            overview.selection = index
            go(to: .overview, &commands)
            perform(verb, changes: true, &commands)
        case .theme(let name): commands.append(.useTheme(name))
        case .separator(let separator):
            keys.separator = separator
            keys.isFlat = false
            go(to: .keys, &commands)
            reloadKeys()
            say("tree on \(separatorText)", .dim)
        case .goTo(let key):
            go(to: .keys, &commands)
            panel = .tree
            closeSearch(&commands)
            keys.reveal = key
        case .watch(let target):
            openWatch(target, from: nil, &commands)
            go(to: .watch, &commands)
            panel = .stream
        case .put(let key):
            go(to: .keys, &commands)
            if mode == .readOnly { say("read-only: nothing can be written", .warn); return }
            openEditor(EditorState(key: key, base: nil))
        case .faults(let list, let milliseconds): unless(item.obstacle) { $0.add(list, milliseconds: milliseconds, &commands) }
        case .heal(let fault): unless(item.obstacle) { model in if let fault { model.heal(fault, &commands) } else { model.healAll(&commands) } }
        case .scenario(let name): unless(item.obstacle) { $0.run(name, &commands) }
        case .load: overlay = .workloadForm(WorkloadForm(workload.settings))
        case .stopScenario: unless(item.obstacle) { $0.stopScenario(&commands) }
        case .phrase: say(item.obstacle ?? "something is missing", .warn)
        }
    }

    private mutating func unless(_ obstacle: String?, _ act: (inout Model) -> Void) {
        if let obstacle { say(obstacle, .warn) } else { act(&self) }
    }

    static func screen(of context: Context) -> ViewID? {
        switch context {
        case .overview: .overview
        case .keys, .tree, .value, .history, .editor: .keys
        case .watch, .watchList, .stream: .watch
        case .elections: .elections
        case .latency: .latency
        case .chaos, .chaosTargets, .scenarios: .chaos
        case .log: .log
        case .everywhere, .replay: nil
        }
    }

    private static func panel(of context: Context) -> Panel? {
        switch context {
        case .overview: .nodes
        case .tree: .tree
        case .value: .value
        case .history: .history
        case .watchList: .watchList
        case .stream: .stream
        case .scenarios: .scenarios
        case .chaosTargets: .links
        default: nil
        }
    }
}
