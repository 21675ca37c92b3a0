extension Model {
    var selectedWatch: Int? { watch.sessions.indices.contains(watch.selection) ? watch.selection : nil }

    private var streamRect: Rect { WatchLayout(body: bodyRect, watches: watch.sessions.count, enlarged: isEnlarged ? panel : nil).stream }
    var streamRows: Int { max(1, streamRect.rows - 4) }

    mutating func openWatch(_ target: WatchTarget, from revision: Int64?, _ commands: inout [Command]) {
        if let index = watch.sessions.firstIndex(where: { $0.target == target && revision == nil }) {
            watch.selection = index
            return
        }
        let id = watch.newID()
        watch.sessions.append(WatchSession(id: id, target: target, fromRevision: revision))
        watch.selection = watch.sessions.count - 1
        commands.append(.openWatch(id, target: target, fromRevision: revision))
    }

    mutating func performInWatch(_ verb: Verb, _ commands: inout [Command]) {
        switch verb {
        case .down: moveInWatch(1)
        case .up: moveInWatch(-1)
        case .halfDown: moveInWatch(streamRows / 2)
        case .halfUp: moveInWatch(-streamRows / 2)
        case .pageDown: moveInWatch(streamRows)
        case .pageUp: moveInWatch(-streamRows)
        case .top: moveInWatch(-WatchSession.bufferLimit)
        case .bottom: if panel == .stream, let index = selectedWatch { thaw(index) } else { moveInWatch(WatchSession.bufferLimit) }
        case .left: panel = .watchList
        case .right: if !watch.sessions.isEmpty { panel = .stream }
        case .open:
            if panel == .watchList {
                if !watch.sessions.isEmpty { panel = .stream }
            } else { openEventKey(&commands) }
        case .addWatch:
            let place = screen == .keys || lastScreen == .keys ? keys.selectedRow.map { Format.text($0.path) } : nil
            overlay = .prompt(Prompt(purpose: .addWatch, field: TextField(place ?? "")))
        case .closeWatch:
            guard let index = selectedWatch else { return }
            commands.append(.closeWatch(watch.sessions[index].id))
            watch.sessions.remove(at: index)
            if watch.sessions.isEmpty { panel = .watchList }
        case .freeze:
            guard let index = selectedWatch else { return }
            if watch.sessions[index].frozenAt == nil {
                watch.sessions[index].frozenAt = watch.sessions[index].appended - 1
                watch.sessions[index].selection = watch.sessions[index].visibleLines(1).first
                panel = .stream
            } else {
                thaw(index)
            }
        case .clearStream: if let index = selectedWatch { watch.sessions[index].clear() }
        case .saveStream:
            guard let session = watch.selected else { return }
            let name = session.target.bytes.bytes.map { byte -> Character in
                let character = Character(Unicode.Scalar(byte))
                return byte < 0x80 && (character.isLetter || character.isNumber) ? character : "-"
            }
            let slug = String(name.prefix(40)).split(separator: "-").joined(separator: "-")
            let clock = Format.clock(now, zone: timeZoneOffsetSeconds).split(separator: ":").joined()
            overlay = .prompt(Prompt(purpose: .saveStream, field: TextField("~/watch-\(slug.isEmpty ? "all" : slug)-\(clock).jsonl")))
        case .filter:
            guard let index = selectedWatch else { return }
            watch.sessions[index].isFiltering = true
            panel = .stream
        default: break
        }
    }

    mutating func thaw(_ index: Int) {
        watch.sessions[index].frozenAt = nil
        watch.sessions[index].selection = nil
    }

    private mutating func moveInWatch(_ delta: Int) {
        if panel == .watchList {
            watch.selection += delta
        } else if let index = selectedWatch {
            // Newest is on top: down is towards older events.
            watch.sessions[index].move(-delta, visibleRows: streamRows)
        }
    }

    /// The event's key in the Keys view.
    private mutating func openEventKey(_ commands: inout [Command]) {
        guard let session = watch.selected else { return }
        let number = session.selection ?? session.visibleLines(1).first
        guard let number, case .event(let event) = session[line: number] else { return }
        go(to: .keys, &commands)
        closeSearch(&commands)
        keys.reveal = event.key
    }

    /// Keys while the filter is typed; false when the key is one for the list.
    mutating func handleStreamFilter(_ key: KeyPress) -> Bool {
        guard let index = selectedWatch else { return false }
        switch key.code {
        case .escape:
            watch.sessions[index].isFiltering = false
            watch.sessions[index].filter = TextField()
        case .enter: watch.sessions[index].isFiltering = false
        case .up, .down, .pageUp, .pageDown, .tab, .backTab, .function: return false
        default:
            if key == .control("c") || key == .control("z") || key == .control("l") || key == .control("p") { return false }
            guard watch.sessions[index].filter.handle(key) else { return true }
        }
        watch.sessions[index].refilter()
        return true
    }

    mutating func mouseInWatch(_ position: Position, step: Int, _ body: Rect) {
        let layout = WatchLayout(body: body, watches: watch.sessions.count, enlarged: isEnlarged ? panel : nil)
        if layout.list.contains(position) {
            panel = .watchList
            if step != 0 { watch.selection += step.signum(); return }
            let index = position.row - layout.list.row - 2
            if watch.sessions.indices.contains(index) { watch.selection = index }
        } else if layout.stream.contains(position), let index = selectedWatch {
            panel = .stream
            if step != 0 { watch.sessions[index].move(-step, visibleRows: streamRows); return }
            let row = position.row - layout.stream.row - 2
            let shown = watch.sessions[index].visibleLines(streamRows)
            guard shown.indices.contains(row) else { return }
            let bottom = watch.sessions[index].appended - 1
            if watch.sessions[index].frozenAt == nil { watch.sessions[index].frozenAt = bottom }
            watch.sessions[index].selection = shown[row]
        }
    }
}
