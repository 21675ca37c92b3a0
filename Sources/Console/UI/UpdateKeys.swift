extension Model {
    // MARK: Entering

    mutating func enterKeys(_ commands: inout [Command]) {
        if !keys.isFollowing {
            keys.isFollowing = true
            commands.append(.followKeys(true))
        }
        schedulePreview()
    }

    /// Forgets what was loaded and starts again, at the same key.
    mutating func reloadKeys() {
        let selected = keys.selectedKey ?? keys.currentDirectory
        keys.tree = KeyTree(root: KeyBytes([]), separator: keys.isFlat ? nil : keys.separator)
        keys.selection = 0
        keys.scroll = 0
        keys.history.key = nil
        if !selected.bytes.isEmpty { keys.reveal = selected }
        schedulePreview()
    }

    // MARK: Settling

    private var keysLayout: KeysLayout { KeysLayout(body: bodyRect, enlarged: isEnlarged ? panel : nil) }

    var treeRows: Int { max(1, (keysLayout.tree.isEmpty ? KeysLayout(body: bodyRect).tree : keysLayout.tree).rows - 2 - (keys.search == nil ? 0 : 1)) }

    /// Opens what is to be shown, asks for visible gaps, keeps selection and scroll in order.
    mutating func settleKeys(_ commands: inout [Command]) {
        let visible = treeRows
        if keys.reveal != nil { revealStep(&commands) }
        let count = keys.tree.rows.count
        keys.selection = min(max(0, keys.selection), max(0, count - 1))
        if keys.search != nil {
            keys.search!.selection = min(max(0, keys.search!.selection), max(0, keys.search!.results.count - 1))
        } else {
            if keys.selection < keys.scroll { keys.scroll = keys.selection }
            if keys.selection >= keys.scroll + visible { keys.scroll = keys.selection - visible + 1 }
            keys.scroll = min(max(0, keys.scroll), max(0, count - visible))
            loadVisibleGaps(visible, &commands)
        }
        if keys.selectedKey != keys.value.key || keys.selectedKey == nil {
            if keys.value.key != keys.selectedKey {
                keys.value = ValuePane(key: keys.selectedKey)
                keys.history = HistoryPane()
                if keys.selectedKey != nil { keys.previewDue = now.advanced(byMilliseconds: KeysState.restMilliseconds) } else { keys.previewDue = nil }
            }
        }
        settleEditor()
    }

    private mutating func loadVisibleGaps(_ visible: Int, _ commands: inout [Command]) {
        if keys.wantsBottom, let last = keys.tree.rows.indices.last {
            if case .gap(let gap) = keys.tree.rows[last].kind {
                if gap.loading == nil, let request = keys.tree.load(gap: last, fromEnd: gap.after != nil || gap.prefix == keys.tree.root) { commands.append(.loadDirectory(request)) }
            } else {
                keys.wantsBottom = false
                keys.selection = last
                keys.scroll = max(0, keys.tree.rows.count - visible)
            }
        }
        // One screen ahead in both directions, so that paging does not wait.
        let first = max(0, keys.scroll - visible), end = min(keys.tree.rows.count, keys.scroll + 2 * visible)
        guard first < end else { return }
        for index in first..<end {
            guard case .gap(let gap) = keys.tree.rows[index].kind, gap.loading == nil, gap.failure == nil else { continue }
            let fromEnd = gap.before != nil && (keys.selection > index || gap.after == nil && keys.selection >= index && index > 0)
            if let request = keys.tree.load(gap: index, fromEnd: fromEnd) { commands.append(.loadDirectory(request)) }
        }
    }

    /// Goes towards `keys.reveal`: opens the next directory on the way, or asks for the page it is on.
    private mutating func revealStep(_ commands: inout [Command]) {
        guard let target = keys.reveal else { return }
        var prefix = keys.tree.root
        while true {
            let rest = target.bytes[prefix.bytes.count...]
            var path = target
            var isDirectory = false
            if let separator = keys.tree.separator, let cut = rest.firstIndex(of: separator) {
                path = KeyBytes(Array(target.bytes[...cut]))
                isDirectory = true
            }
            let found = isDirectory ? keys.tree.index(ofDirectory: path) : keys.tree.index(ofKey: path)
            if let found {
                keys.selection = found
                if !isDirectory || path == target {
                    keys.reveal = nil
                    keys.revealMissing = nil
                    // What is around it is worth seeing too.
                    let visible = treeRows
                    if found < keys.scroll || found >= keys.scroll + visible { keys.scroll = max(0, found - visible / 3) }
                    return
                }
                keys.tree.expand(found)
                prefix = path
                continue
            }
            // Not loaded yet: is it in a gap?
            let place = keys.tree.position(of: path, rank: 2) - 1
            guard place >= 0, case .gap(let gap) = keys.tree.rows[place].kind, gap.prefix == prefix, gap.failure == nil, gap.before.map({ path < $0 }) ?? true else {
                if keys.revealMissing?.key != target { keys.revealMissing = RevealMiss(key: target, since: now) }
                if let since = keys.revealMissing?.since, now - since > 1_000 {
                    keys.reveal = nil
                    keys.revealMissing = nil
                    say("\(Format.fittedTail(Format.text(target), 40)) is not there", .dim)
                }
                return
            }
            if gap.loading == nil {
                // The first page of a directory that was just opened most likely has it; later ones are cut to end at it.
                let request = gap.after == nil && gap.before == nil && keys.tree.rows.count < 4 ? keys.tree.load(gap: place, fromEnd: false)
                    : keys.tree.load(gap: place, upTo: path, isDirectory: isDirectory)
                if let request { commands.append(.loadDirectory(request)) }
            }
            return
        }
    }

    // MARK: Pages and changes

    /// Runs a change of the tree with selection and scroll kept on the same rows.
    private mutating func keepingPlace(_ change: (inout KeyTree) -> Void, gapBecomes: Int? = nil) {
        let anchor = keys.tree.rows.indices.contains(keys.selection) ? keys.tree.rows[keys.selection] : nil
        let offset = keys.selection - keys.scroll
        change(&keys.tree)
        if let anchor {
            if anchor.isGap, let gapBecomes {
                keys.selection += gapBecomes
            } else {
                keys.selection = min(keys.tree.position(of: anchor.path, rank: anchor.rank), max(0, keys.tree.rows.count - 1))
            }
        }
        keys.scroll = max(0, keys.selection - offset)
    }

    mutating func receive(_ page: DirectoryPage) {
        let isOnGap = keys.tree.rows.indices.contains(keys.selection) && keys.tree.rows[keys.selection].isGap
        let grows = isOnGap && page.request.direction == .backward ? max(0, page.entries.count - (page.isComplete ? 1 : 0)) : 0
        keepingPlace({ tree in _ = tree.insert(page) }, gapBecomes: grows)
        if page.failure != nil { keys.wantsBottom = false }
        let moved = keys.tree.trim(around: keys.selection)
        keys.selection -= moved
        keys.scroll = max(0, keys.scroll - moved)
        if let selected = keys.selectedKey, selected != keys.value.key { schedulePreview() }
    }

    mutating func receive(_ changes: [KeyChange]) {
        let now = self.now
        keepingPlace({ tree in tree.apply(changes, now: now) })
        guard let selected = keys.value.key else { return }
        if let change = changes.last(where: { $0.summary.key == selected }) {
            if change.isDelete {
                keys.value.content = .missing
                keys.value.current = nil
            } else if keys.value.current.map({ $0.summary.modRevision < change.summary.modRevision }) ?? true {
                schedulePreview()
            }
        }
        if !keys.marks.isEmpty {
            for change in changes where change.isDelete { if keys.isMarked(change.summary.key) { keys.toggleMark(change.summary.key) } }
        }
    }

    // MARK: The value

    mutating func schedulePreview() {
        guard screen == .keys else { return }
        // Never put off: a key that changes all the time is still read, ten times a second at most.
        if keys.previewDue == nil { keys.previewDue = now.advanced(byMilliseconds: keys.value.current == nil ? KeysState.restMilliseconds : 100) }
    }

    mutating func loadPreview(_ commands: inout [Command]) {
        keys.previewDue = nil
        guard let key = keys.selectedKey else { return }
        if keys.value.key != key {
            keys.value = ValuePane(key: key)
            keys.history = HistoryPane()
        }
        if case .loading(_, let since) = keys.value.content, now - since < 2_000 {
            keys.previewDue = now.advanced(byMilliseconds: 100)
            return
        }
        let request = newRequest()
        keys.value.content = .loading(request, since: now)
        commands.append(.loadValue(request, key: key, revision: nil))
    }

    mutating func receiveValue(_ request: RequestID, _ key: KeyBytes, _ value: KeyValue?, _ failure: String?, _ commands: inout [Command]) {
        guard case .loading(request, _) = keys.value.content, keys.value.key == key else { return }
        if let failure {
            keys.value.content = .failed(failure)
            return
        }
        guard let value else {
            keys.value.content = .missing
            keys.value.current = nil
            return
        }
        let isSame = keys.value.current == value
        keys.value.content = .loaded
        keys.value.current = value
        keys.tree.learn(value.summary)
        if keys.value.version == nil, !isSame { keys.value.show(value.value, mode: keys.chosenMode) }
        if value.summary.lease != 0, leases.first(where: { $0.id == value.summary.lease }).map({ now - $0.sampledAt > 5_000 }) ?? true {
            commands.append(.loadLease(value.summary.lease))
        }
        if keys.history.key != key || keys.history.versions.first?.revision != value.summary.modRevision { loadHistory(&commands) }
    }

    private mutating func loadHistory(_ commands: inout [Command]) {
        guard let current = keys.value.current else { return }
        let request = newRequest()
        keys.history.request = request
        // A look costs one read a version: few of them until the panel has the focus.
        commands.append(.loadHistory(request, key: current.key, modRevision: current.summary.modRevision, limit: panel == .history ? HistoryPane.limit : 8))
    }

    mutating func showCurrentValue() {
        keys.value.version = nil
        if let current = keys.value.current { keys.value.show(current.value, mode: keys.chosenMode) }
    }

    // MARK: Actions

    mutating func performInKeys(_ verb: Verb, _ commands: inout [Command]) {
        switch verb {
        case .down: moveInKeys(1)
        case .up: moveInKeys(-1)
        case .halfDown: moveInKeys(treeRows / 2)
        case .halfUp: moveInKeys(-treeRows / 2)
        case .pageDown: moveInKeys(treeRows)
        case .pageUp: moveInKeys(-treeRows)
        case .top:
            keys.wantsBottom = false
            moveInKeys(-Int(Int32.max))
        case .bottom:
            if panel == .tree, keys.search == nil { keys.wantsBottom = true } else { moveInKeys(Int(Int32.max)) }
        case .left: leftInKeys()
        case .right: rightInKeys()
        case .open: openInKeys(&commands)
        case .filter:
            panel = .tree
            if keys.search == nil { keys.search = KeySearch() } else { keys.search!.isEditing = true }
        case .editKey:
            if mode == .readOnly { say("read-only: look with Enter, nothing can be written", .warn); return }
            if let current = keys.value.current { openEditor(EditorState(key: current.key, base: current)) }
        case .externalEdit:
            guard let current = keys.value.current else { return }
            openExternal(key: current.key, base: current, content: current.value, &commands)
        case .newKey:
            let directory = keys.currentDirectory
            overlay = .prompt(Prompt(purpose: .newKey, field: TextField(Format.isText(directory.bytes) ? Format.text(directory) : "")))
        case .renameKey:
            if let current = keys.value.current { overlay = .prompt(Prompt(purpose: .rename(current), field: TextField(Format.text(current.key)))) }
        case .deleteKey: askDelete(&commands)
        case .undo:
            guard let step = undoStack.last else { return }
            if mode == .ask { overlay = .confirm(Confirmation(question: .undo(step))) } else { undo(&commands) }
        case .mark:
            if let key = keys.selectedKey {
                keys.toggleMark(key)
                moveInKeys(1)
            }
        case .clearMarks: keys.marks = []
        case .valueMode:
            let all = ValueMode.allCases
            let next = all[(all.firstIndex(of: keys.value.mode)! + 1) % all.count]
            keys.chosenMode = next
            if let bytes = keys.value.shownBytes { keys.value.show(bytes, mode: next) }
        case .flatList:
            let selected = keys.selectedKey
            keys.isFlat.toggle()
            reloadKeys()
            keys.reveal = selected
            say(keys.isFlat ? "flat list" : "tree on \(separatorText)", .dim)
        case .history:
            if keys.selectedKey == nil { return say("a directory has no history: select a key", .warn) }
            panel = .history
            if !keys.history.isComplete, keys.history.request == nil { loadHistory(&commands) }
        case .restoreVersion:
            guard let version = keys.historyVersion else { return }
            if mode == .ask { overlay = .confirm(Confirmation(question: .restore(version))) } else { restore(version, &commands) }
        case .watchThis:
            guard let row = keys.selectedRow else { return }
            if case .directory = row.kind { openWatch(.prefix(row.path), from: nil, &commands) } else { openWatch(.key(row.path), from: nil, &commands) }
            go(to: .watch, &commands)
        case .copyKey:
            guard let row = keys.selectedRow else { return }
            let line = Model.etcdctlLine(row)
            send(.copy(line), &commands) { .copyToClipboard($0, line) }
        default: break
        }
    }

    var separatorText: String { keys.separator.map { Format.text([$0]) } ?? "nothing" }

    /// The etcdctl line that reads what a row shows, quoted for a shell.
    static func etcdctlLine(_ row: KeyRow) -> String {
        let quoted = EtcdctlText.quoted(row.path.bytes)
        if case .directory = row.kind { return "etcdctl get --prefix --keys-only \(quoted)" }
        return "etcdctl get \(quoted)"
    }

    private mutating func moveInKeys(_ delta: Int) {
        switch panel {
        case .value:
            keys.value.scroll = min(max(0, keys.value.scroll + delta), max(0, keys.value.document.lines.count - 1))
        case .history:
            keys.history.selection = min(max(0, keys.history.selection + delta), max(0, keys.history.versions.count - 1))
        default:
            if let search = keys.search {
                keys.search!.selection = min(max(0, search.selection + delta), max(0, search.results.count - 1))
            } else {
                keys.selection = min(max(0, keys.selection + delta), max(0, keys.tree.rows.count - 1))
                keys.reveal = nil
                if delta < 0 { keys.wantsBottom = false }
            }
        }
    }

    private mutating func leftInKeys() {
        switch panel {
        case .value:
            if keys.value.sideScroll == 0 { panel = .tree } else { keys.value.sideScroll = max(0, keys.value.sideScroll - 8) }
        case .history: panel = .tree
        default:
            guard keys.search == nil, keys.tree.rows.indices.contains(keys.selection) else { return }
            if case .directory(isExpanded: true, _) = keys.tree.rows[keys.selection].kind {
                keys.tree.collapse(keys.selection)
            } else if let parent = keys.tree.parent(of: keys.selection) {
                keys.selection = parent
            }
        }
    }

    private mutating func rightInKeys() {
        switch panel {
        case .value: keys.value.sideScroll += 8
        case .history: break
        default:
            guard let row = keys.selectedRow else { return }
            switch row.kind {
            case .directory(isExpanded: false, _): keys.tree.expand(keys.selection)
            case .directory(isExpanded: true, _): moveInKeys(1)
            case .key: panel = .value
            case .gap: break
            }
        }
    }

    private mutating func openInKeys(_ commands: inout [Command]) {
        switch panel {
        case .history:
            guard let version = keys.historyVersion else { return }
            keys.value.version = keys.history.selection == 0 ? nil : version
            if version.version == 0 { say("deleted at rev \(Format.count(version.revision))", .dim) }
            keys.value.show(keys.history.selection == 0 ? keys.value.current?.value ?? [] : version.value, mode: keys.chosenMode)
        case .value: break
        default:
            if keys.search != nil {
                guard let key = keys.selectedKey else { return }
                closeSearch(&commands)
                keys.reveal = key
                return
            }
            guard let row = keys.selectedRow else { return }
            switch row.kind {
            case .directory(let isExpanded, _): if isExpanded { keys.tree.collapse(keys.selection) } else { keys.tree.expand(keys.selection) }
            case .key: panel = .value
            case .gap: keys.tree.retry(gap: keys.selection)
            }
        }
    }

    // MARK: Searching

    mutating func closeSearch(_ commands: inout [Command]) {
        if keys.search?.request != nil, keys.search?.isFinished == false { commands.append(.cancelSearch) }
        keys.search = nil
    }

    /// Keys while the search text is typed; false when the key is one for the list.
    mutating func handleSearch(_ key: KeyPress, _ commands: inout [Command]) -> Bool {
        switch key.code {
        case .escape:
            closeSearch(&commands)
            return true
        case .enter:
            if keys.search!.field.isEmpty { closeSearch(&commands) } else { keys.search!.isEditing = false }
            return true
        case .up, .down, .pageUp, .pageDown, .tab, .backTab, .function: return false
        default: break
        }
        if key == .control("c") || key == .control("z") || key == .control("l") || key == .control("p") { return false }
        if keys.search!.field.handle(key) {
            keys.search!.askAt = now.advanced(byMilliseconds: 2 * KeysState.restMilliseconds)
            // What is on the screen already is narrowed at once; the answer corrects it.
            let needle = Array(keys.search!.field.text.utf8)
            keys.search!.results.removeAll { !$0.key.bytes.containsBytes(needle) }
            keys.search!.selection = 0
        }
        return true
    }

    mutating func runSearch(_ commands: inout [Command]) {
        guard keys.search != nil else { return }
        keys.search!.askAt = nil
        let text = Array(keys.search!.field.text.utf8)
        keys.search!.results = []
        keys.search!.scanned = 0
        keys.search!.failure = nil
        guard !text.isEmpty else {
            keys.search!.request = nil
            keys.search!.isFinished = true
            commands.append(.cancelSearch)
            return
        }
        let request = newRequest()
        keys.search!.request = request
        keys.search!.isFinished = false
        // A text that starts like a path is a prefix: one range request instead of a scan.
        let isPath = keys.separator.map { text.first == $0 } ?? false
        commands.append(.search(request, prefix: isPath ? KeyBytes(text) : KeyBytes([]), needle: isPath ? [] : text, limit: KeySearch.limit))
    }

    // MARK: Writing

    private mutating func askDelete(_ commands: inout [Command]) {
        if !keys.marks.isEmpty {
            let marked = keys.marks.map { key -> KeySummary in
                if let index = keys.tree.index(ofKey: key), case .key(let summary) = keys.tree.rows[index].kind { return summary }
                if let found = keys.search?.results.first(where: { $0.key == key }) { return found }
                return KeySummary(key: key, createRevision: 0, modRevision: 0, version: 0)
            }
            let proof = mode == .ask || marked.count > 50 ? String(marked.count) : nil
            overlay = .confirm(Confirmation(question: .deleteKeys(marked), proof: proof))
            return
        }
        guard let row = keys.selectedRow else { return }
        switch row.kind {
        case .directory:
            let request = newRequest()
            commands.append(.countPrefix(request, prefix: row.path, samples: 3))
            overlay = .confirm(Confirmation(question: .deletePrefix(row.path, request: request, count: nil, leased: nil, samples: [], failure: nil), proof: Model.lastPart(row.path, keys.separator)))
        case .key(let summary):
            let shown = keys.value.current?.summary.key == summary.key ? keys.value.current!.summary : summary
            overlay = .confirm(Confirmation(question: .deleteKey(shown), proof: mode == .ask ? Model.lastPart(summary.key, keys.separator) : nil))
        case .gap: break
        }
    }

    /// The word to type as proof: the last part of a path.
    static func lastPart(_ path: KeyBytes, _ separator: UInt8?) -> String {
        var bytes = path.bytes[...]
        if let separator {
            while bytes.last == separator { bytes = bytes.dropLast() }
            if let cut = bytes.lastIndex(of: separator) { bytes = bytes[(cut + 1)...] }
        }
        let text = Format.text(bytes)
        return text.isEmpty ? Format.text(path) : text
    }

    mutating func undo(_ commands: inout [Command]) {
        guard let step = undoStack.popLast() else { return }
        switch step.change {
        case .put(let key, let modRevision, let previous):
            if let previous {
                send(.undo(step), &commands) { .put($0, key: key, value: previous.value, lease: previous.summary.lease, expecting: .modRevision(modRevision)) }
            } else {
                send(.undo(step), &commands) { .delete($0, key: key, expecting: .modRevision(modRevision)) }
            }
        case .removed(let list): send(.undo(step), &commands) { .restore($0, list) }
        case .renamed(let from, let to, let value, let lease, let modRevision):
            send(.undo(step), &commands) { .rename($0, from: to, to: from, value: value, lease: lease, modRevision: modRevision) }
        }
    }

    mutating func restore(_ version: KeyVersion, _ commands: inout [Command]) {
        guard let current = keys.value.current else { return }
        send(.put(key: current.key, value: version.value, fromEditor: false), &commands) {
            .put($0, key: current.key, value: version.value, lease: current.summary.lease, expecting: .modRevision(current.summary.modRevision))
        }
    }

    // MARK: Mouse

    mutating func mouseInKeys(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
        if keys.editor != nil {
            if step != 0 { keys.editor!.text.place(at: TextEditor.Place(line: keys.editor!.text.cursor.line + step, column: keys.editor!.text.cursor.column)) }
            return
        }
        let layout = keysLayout
        if layout.tree.contains(position) {
            panel = .tree
            if step != 0 { moveInKeys(step); return }
            let inside = layout.tree.inset()
            guard position.row >= inside.row, position.row < inside.endRow else { return }
            if keys.search != nil {
                let index = position.row - inside.row - 1 + searchScroll(visible: inside.rows - 1)
                if index >= 0, index < keys.search!.results.count { keys.search!.selection = index }
                return
            }
            let index = keys.scroll + position.row - inside.row
            guard keys.tree.rows.indices.contains(index) else { return }
            // A second press on the selected row opens it.
            if index == keys.selection { openInKeys(&commands) } else { keys.selection = index }
        } else if layout.value.contains(position) {
            panel = .value
            moveInKeys(step)
        } else if layout.history.contains(position) {
            panel = .history
            if step != 0 { moveInKeys(step.signum()); return }
            let index = position.row - layout.history.row - 2
            if index >= 0, index < keys.history.versions.count { keys.history.selection = index }
        }
    }

    /// First shown result of a search.
    func searchScroll(visible: Int) -> Int {
        guard let search = keys.search else { return 0 }
        return max(0, search.selection - visible + 1)
    }
}
