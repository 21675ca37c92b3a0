extension Model {
    func drawOverlay(_ overlay: Overlay, _ canvas: inout Canvas, _ layout: ScreenLayout) {
        switch overlay {
        case .help(let state): drawHelp(state, &canvas)
        case .palette(let state): drawPalette(state, &canvas)
        case .confirm(let state): drawConfirmation(state, &canvas)
        case .prompt(let state): drawPrompt(state, &canvas)
        case .node(let id): drawNodePage(id, &canvas)
        case .conflict(let state): drawConflict(state, &canvas, layout.body)
        case .workloadForm(let state): drawWorkloadForm(state, &canvas)
        case .fault(let form): drawFaultForm(form, &canvas)
        case .scenario(let summary): drawScenarioPage(summary, &canvas)
        }
    }

    /// A box in the middle of the screen; everything behind it steps back.
    func overlayBox(_ canvas: inout Canvas, columns: Int, rows: Int, title: String, right: [Span] = [], footer: [Span] = []) -> Rect {
        canvas.quiet(Rect(column: 0, row: 1, columns: size.columns, rows: size.rows - 1))
        let width = min(size.columns - 4, columns), height = min(size.rows - 4, rows)
        let rect = Rect(column: (size.columns - width) / 2, row: max(2, (size.rows - height) / 2), columns: width, rows: height)
        return canvas.box(rect, .heavy, title: [Span(title, .title, .bold)], right: right, footer: footer, fill: .overlay)
    }

    func put(_ spans: [Span], _ canvas: inout Canvas, _ column: Int, _ row: Int, width: Int) {
        canvas.spans(spans.map { Span($0.text, $0.style.on(.overlay)) }, column, row, width: width)
    }

    // MARK: Help

    struct HelpLine: Hashable {
        var key: String
        var text: String
        var isTitle = false
        var obstacle = false
    }

    /// Everything that can be done here, by section; narrowed by a word.
    func helpLines(filter: String) -> [HelpLine] {
        let current = contexts == [.editor] ? [Context.editor] : contexts
        var lines: [HelpLine] = []
        for section in HelpSection.allCases {
            var own: [HelpLine] = []
            if section == .move {
                own = Model.movement(glyphs).filter { filter.isEmpty || Fuzzy.score(filter, $0.key + " " + $0.text) != nil }
            }
            for entry in Catalogue.entries(in: current) where entry.section == section && section != .move {
                let keys = entry.keys.map { $0.label(glyphs) }.joined(separator: " ")
                if filter.isEmpty || Fuzzy.score(filter, keys + " " + entry.name + " " + entry.help) != nil {
                    own.append(HelpLine(key: keys, text: entry.help, obstacle: entry.changes && mode == .readOnly))
                }
            }
            if own.isEmpty { continue }
            if !lines.isEmpty { lines.append(HelpLine(key: "", text: "")) }
            lines.append(HelpLine(key: "", text: section == .cluster && mode == .readOnly ? "CAPITALS ARE OFF: READ-ONLY" : section.title, isTitle: true))
            lines += own
        }
        if filter.isEmpty {
            lines.append(HelpLine(key: "", text: ""))
            lines.append(HelpLine(key: "", text: "GLYPHS", isTitle: true))
            for (glyph, text) in [("♛", "leader"), ("●", "follower"), ("◌", "pre-vote"), ("╌", "candidate"), ("○", "learner"), ("‖", "paused"), ("≠", "cut off"), ("✕", "down"), ("▲", "faults on it"), ("Δ", "changed"), ("◷", "leased")] {
                lines.append(HelpLine(key: glyph, text: text))
            }
        }
        return lines
    }

    /// Opposite movements share a line.
    private static func movement(_ glyphs: GlyphSet) -> [HelpLine] {
        let pairs: [(Verb, Verb?, String)] = [
            (.down, .up, "row down, up"), (.left, .right, "close or left, open or right"), (.top, .bottom, "first, last row"),
            (.halfDown, .halfUp, "half a page"), (.pageDown, .pageUp, "a page"), (.nextPanel, .previousPanel, "next panel, the one before"),
            (.lastView, nil, "the view before"), (.back, nil, "one step back"),
        ]
        var lines = pairs.map { first, second, text in
            let verbs = [first, second].compactMap { $0 }
            let keys = Catalogue.entries.filter { verbs.contains($0.verb) }.map { $0.keys[0].label(glyphs) }
            return HelpLine(key: keys.joined(separator: " "), text: text)
        }
        lines[0].text += " (and arrows, Home, End)"
        lines.append(HelpLine(key: "1…0", text: "views; grey ones are not in this version"))
        return lines
    }

    private func drawHelp(_ state: HelpState, _ canvas: inout Canvas) {
        let lines = helpLines(filter: state.field.text)
        let twoColumns = size.columns >= 100
        let wanted = twoColumns ? (lines.count + 1) / 2 + 4 : lines.count + 4
        let name = keys.editor != nil && screen == .keys ? "Editor" : screen.title
        let inside = overlayBox(&canvas, columns: twoColumns ? 116 : 74, rows: wanted, title: "Help · \(name)", right: [Span("/ search · Esc", .dim)])
        guard inside.rows > 2 else { return }
        var area = inside
        if state.isFiltering || !state.field.isEmpty {
            let top = area.takeTop(1)
            put([Span("/ ", .key, .bold)], &canvas, top.column + 1, top.row, width: top.columns)
            canvas.field(state.field, top.column + 3, top.row, width: top.columns - 4, Style.ink(.text).on(.overlay))
            if !state.isFiltering { canvas.grid.cursor = nil }
        }
        let perColumn = area.rows
        let capacity = twoColumns ? perColumn * 2 : perColumn
        let scroll = min(state.scroll, max(0, lines.count - capacity))
        let columnWidth = twoColumns ? area.columns / 2 : area.columns
        // Break the two columns at a section when that leaves room.
        var firstCount = min(perColumn, lines.count - scroll)
        if twoColumns, lines.count - scroll <= capacity {
            let half = (lines.count - scroll + 1) / 2
            let breaks = lines.indices.filter { lines[$0].isTitle && $0 - scroll >= half && $0 - scroll <= perColumn && lines.count - $0 <= perColumn }
            if let place = breaks.first { firstCount = place - scroll }
        }
        for line in 0..<capacity {
            let index = scroll + line
            guard index < lines.count else { break }
            let isSecond = twoColumns && line >= firstCount
            let x = area.column + 2 + (isSecond ? columnWidth : 0)
            let y = area.row + (isSecond ? line - firstCount : line)
            guard y < area.endRow else { continue }
            let item = lines[index]
            if item.isTitle {
                put([Span(item.text, .accent, .bold)], &canvas, x, y, width: columnWidth - 3)
            } else {
                put([Span(item.key, item.obstacle ? .faint : .key, .bold)], &canvas, x, y, width: 11)
                put([Span(item.text, item.obstacle ? .faint : .text)], &canvas, x + 12, y, width: columnWidth - 15)
            }
        }
        if lines.count > capacity {
            let more = lines.count - capacity - scroll
            if more > 0 { canvas.textRight("▼ \(more) more ", endingAt: inside.endColumn - 1, inside.endRow, Style.ink(.dim).on(.overlay)) }
        }
    }

    // MARK: Palette

    private func drawPalette(_ state: PaletteState, _ canvas: inout Canvas) {
        let items = paletteItems(state.field.text)
        let rows = min(max(size.rows - 8, 8), 22)
        let inside = overlayBox(&canvas, columns: min(90, max(66, size.columns * 6 / 10)), rows: rows, title: "Command", right: [Span("↑↓ ↵ · Tab completes · Esc", .dim)])
        guard inside.rows > 4 else { return }
        put([Span(": ", .key, .bold)], &canvas, inside.column + 1, inside.row, width: 2)
        canvas.field(state.field, inside.column + 3, inside.row, width: inside.columns - 4, Style.ink(.text).on(.overlay))
        for column in inside.column + 1..<inside.endColumn - 1 { canvas.glyph("─", column, inside.row + 1, Style.ink(.border).on(.overlay)) }
        let list = Rect(column: inside.column, row: inside.row + 2, columns: inside.columns, rows: inside.rows - 4)
        if items.isEmpty { put([Span("nothing is called like that", .faint)], &canvas, list.column + 3, list.row, width: list.columns - 4) }
        let scroll = max(0, min(state.selection - list.rows + 1, items.count - list.rows))
        let titleWidth = min(28, list.columns * 2 / 5)
        for line in 0..<list.rows {
            let index = scroll + line
            guard index < items.count else { break }
            let item = items[index]
            let y = list.row + line
            let isOff = item.obstacle != nil && !item.completion.hasSuffix(" ")
            put([Span(Format.fitted(item.title, titleWidth), isOff ? .faint : .text)], &canvas, list.column + 3, y, width: titleWidth)
            put([Span(item.detail, isOff ? .faint : .dim)], &canvas, list.column + 4 + titleWidth, y, width: list.columns - titleWidth - 12)
            canvas.textRight(item.key, endingAt: list.endColumn - 2, y, Style.ink(isOff ? .faint : .key).on(.overlay))
            if index == state.selection {
                canvas.background(Rect(column: list.column, row: y, columns: list.columns, rows: 1), .select)
                canvas.text("▸", list.column + 1, y, Style.ink(.accent).on(.select))
            }
        }
        let foot: [Span]
        if items.indices.contains(state.selection), let obstacle = items[state.selection].obstacle { foot = [Span(obstacle, .warn)] } else {
            foot = [Span("go KEY", .dim), Span(" shows it  ", .faint), Span("watch PREFIX", .dim), Span(" streams it  ", .faint), Span("put KEY", .dim), Span(" writes one", .faint)]
        }
        put(foot, &canvas, inside.column + 3, inside.endRow - 1, width: inside.columns - 5)
    }

    // MARK: Confirmations

    private func drawConfirmation(_ state: Confirmation, _ canvas: inout Canvas) {
        let (title, right, body) = confirmationText(state)
        let width = min(size.columns - 8, 74)
        let inside = overlayBox(&canvas, columns: width, rows: body.count + 6, title: title, right: right)
        guard inside.rows > 2 else { return }
        var row = inside.row + 1
        for line in body.prefix(max(0, inside.rows - 4)) {
            put(line, &canvas, inside.column + 2, row, width: inside.columns - 4)
            row += 1
        }
        let foot = inside.endRow - 2
        if let proof = state.proof {
            let lead = [Span("type ", .text), Span(proof, .warn, .bold), Span(" and ↵: ", .text)]
            put(lead, &canvas, inside.column + 2, foot, width: inside.columns - 4)
            canvas.field(state.field, inside.column + 2 + min(lead.cellWidth, inside.columns - 12), foot, width: max(4, inside.columns - 6 - lead.cellWidth), Style.ink(.text, .bold).on(.overlay))
            put([Span("Esc", .key, .bold), Span(" keeps everything", .dim)], &canvas, inside.column + 2, foot + 1, width: inside.columns - 4)
        } else {
            put([Span("y", .key, .bold), Span(" yes", .text), Span("    n", .key, .bold), Span(" no", .text)], &canvas, inside.column + 2, foot, width: inside.columns - 4)
        }
    }

    private func confirmationText(_ state: Confirmation) -> (title: String, right: [Span], body: [[Span]]) {
        switch state.question {
        case .quit:
            var body: [[Span]] = []
            if replay != nil {
                body.append([Span("The recording stays as it is.", .text)])
            } else if cluster.kind == .playground {
                body.append([Span("The \(Format.plural(Int64(cluster.members.count), "node")) of this playground stop with it.", .text)])
            } else {
                body.append([Span("The cluster goes on; only this console closes.", .text)])
            }
            if let recordingPath { body.append([Span("The recording ends too: \(recordingPath)", .dim)]) }
            if keys.editor?.isModified == true { body.append([Span("An edit is not written: it will be lost.", .warn)]) }
            if !pendingWrites.isEmpty { body.append([Span("\(Format.plural(Int64(pendingWrites.count), "write")) still under way.", .warn)]) }
            return ("Quit?", [], body)
        case .discardEdit:
            return ("Drop this edit?", [], [[Span("The text you typed has not been written.", .text)]])
        case .deleteKey(let summary):
            var body = [[Span(Format.fittedTail(Format.text(summary.key), 66), .text, .bold)], [Span("rev \(Format.count(summary.modRevision))  v\(summary.version)", .dim)]]
            if summary.lease != 0 { body.append([Span("It is attached to lease \(Format.hex(summary.lease)); undo keeps that if the lease lives.", .dim)]) }
            body.append([Span("Deleted only if nobody changed it meanwhile. ", .dim), Span("U", .key, .bold), Span(" undoes.", .dim)])
            return ("Delete key?", [], body)
        case .deleteKeys(let list):
            var body = list.prefix(8).map { [Span(Format.fittedTail(Format.text($0.key), 66), .text)] }
            if list.count > 8 { body.append([Span("… and \(Format.count(list.count - 8)) more", .dim)]) }
            return ("Delete \(Format.plural(Int64(list.count), "marked key"))?", [Span("U undoes", .dim)], body)
        case .deletePrefix(let prefix, _, let count, let leased, let samples, let failure):
            var body: [[Span]] = [[Span(Format.fittedTail(Format.text(prefix), 66), .text, .bold)], []]
            if let failure { body.append([Span("cannot count: \(failure)", .bad)]) } else if let count {
                body.append([Span(Format.plural(count, "key"), .bad, .bold), Span(cluster.revision.map { " at rev \(Format.count($0))" } ?? "", .dim)])
                if let leased, leased > 0 { body.append([Span("\(Format.count(leased)) of them have leases: these are not restored by undo", .warn)]) }
                let covering = watch.sessions.count { session in session.target.bytes.hasPrefix(prefix) || prefix.hasPrefix(session.target.bytes) }
                if covering > 0 { body.append([Span("\(Format.plural(Int64(covering), "watch")) open here see\(covering == 1 ? "s" : "") it".replacingWatchs, .dim)]) }
                if let first = samples.first { body.append([Span("first: ", .dim), Span(Format.fittedTail(Format.text(first), 58), .text)]) }
                if count > 1_000 { body.append([Span("more than 1,000: undo will not be possible", .warn)]) }
            } else {
                body.append([Span("counting…", .dim)])
            }
            return ("Delete everything below", [Span(count.map { $0 <= 1_000 ? "U undoes" : "no undo" } ?? "", .dim)], body + [[]])
        case .writeEdit:
            guard let editor = keys.editor else { return ("Write?", [], []) }
            var body: [[Span]] = [[Span(Format.fittedTail(Format.text(editor.key), 66), .text, .bold)], []]
            let changes = LineDiff.diff(editor.base.map { LineDiff.lines($0.value) } ?? [], LineDiff.lines(editor.bytes ?? []))
            let visible = changes.filter { if case .same = $0 { false } else { true } }
            for change in visible.prefix(max(4, size.rows - 16)) {
                switch change {
                case .removed(let line): body.append([Span("- \(line)", .delete)])
                case .added(let line): body.append([Span("+ \(line)", .add)])
                case .same: break
                }
            }
            return ("Write this change?", [Span("ASK mode", .warn)], body)
        case .overwrite:
            return ("Overwrite theirs?", [], [[Span("Their change is lost from the value; it stays in the key's history.", .warn)], [Span("Mine is written without looking at the revision.", .text)]])
        case .restore(let version):
            return ("Restore this version?", [Span("ASK mode", .warn)], [[Span("v\(version.version) of rev \(Format.count(version.revision)) is written as a new revision.", .text)]])
        case .undo(let step):
            return ("Undo?", [Span("ASK mode", .warn)], [[Span(step.title, .text, .bold)], [Span("Only if nothing changed it since.", .dim)]])
        case .lead(_, let name):
            return ("Hand leadership to \(name)?", [Span(cluster.kind == .attached ? "attached cluster" : "ASK mode", .warn)], [[Span("Writes wait for a moment while it takes over.", .text)]])
        case .workload:
            return ("Start the workload here?", [Span("attached cluster", .warn)], [[Span("It writes and reads a few keys of its own, rate-limited,", .text)], [Span("on a cluster that this console did not start.", .text)]])
        case .canary:
            return ("Start the canary here?", [Span("attached cluster", .warn)], [[Span("It writes one small key of its own many times a second,", .text)], [Span("on a cluster that this console did not start.", .text)]])
        }
    }

    // MARK: Prompt

    private func drawPrompt(_ state: Prompt, _ canvas: inout Canvas) {
        let (title, label, hint): (String, String, String) = switch state.purpose {
        case .newKey: ("Add a key", "key", "the value is written in the editor next · Tab adds the separator")
        case .rename: ("Rename", "new name", "one transaction; the lease stays; refused if the name is taken")
        case .addWatch: ("Open a watch", "prefix", "empty: all keys · add @REVISION to start in the past")
        case .exportLatency: ("Export figures", "file", "CSV of the last hour, five seconds a line; an existing file is not overwritten")
        case .saveStream: ("Save events", "file", "one JSON object a line; an existing file is not overwritten")
        case .exportElections: ("Export elections", "file", "JSON: \(Format.plural(Int64(elections.elections.count), "election")) with phases, steps and cost; an existing file is not overwritten")
        case .recordSession: ("Record this session", "file", "everything heard from now on, for quarterdeck replay; r again ends it")
        case .exportLog: ("Export the log", "file", "the lines that are shown, oldest first; an existing file is not overwritten")
        }
        let inside = overlayBox(&canvas, columns: min(90, max(66, size.columns / 2)), rows: 7, title: title, right: [Span("↵ · Esc", .dim)])
        guard inside.rows > 3 else { return }
        put([Span("\(label)  ", .dim)], &canvas, inside.column + 2, inside.row + 1, width: 12)
        canvas.field(state.field, inside.column + 4 + label.cellWidth, inside.row + 1, width: inside.columns - 6 - label.cellWidth, Style.ink(.text, .bold).on(.overlay))
        put([Span(state.problem ?? hint, state.problem == nil ? .faint : .warn)], &canvas, inside.column + 2, inside.row + 3, width: inside.columns - 4)
    }

    // MARK: Node

    private func drawNodePage(_ id: UInt64, _ canvas: inout Canvas) {
        guard let member = cluster.members.first(where: { $0.id == id }) else { return }
        let state = RoleLanes.state(of: member)
        let role = Model.roleText(state)
        var rows: [(String, [Span])] = []
        func fact(_ label: String, _ text: String?, _ slot: Slot = .text) { rows.append((label, [Span(text ?? "—", text == nil ? .faint : slot)])) }
        rows.append(("role", [Span("\(role.glyph) \(role.label)", role.slot, .bold)]))
        fact("member id", Format.hex(member.id))
        fact("client address", member.endpoint)
        fact("version", member.version)
        fact("term", member.term.map(String.init))
        fact("commit index", member.commit.map { Format.count($0) })
        fact("applied index", member.applied.map { Format.count($0) })
        fact("last log index", member.lastIndex.map { Format.count($0) })
        if let commit = cluster.members.compactMap(\.commit).max(), let applied = member.applied { fact("lag", "\(Format.count(commit > applied ? commit - applied : 0)) entries") }
        fact("database", member.dbSizeBytes.map { "\(Format.bytes(Int($0)))" + (member.dbSizeInUseBytes.map { ", \(Format.bytes(Int($0))) in use" } ?? "") })
        fact("status round trip", member.latencyMicroseconds.map { Format.milliseconds($0) + " ms" })
        fact("log fsync p99", member.fsyncMicroseconds.map { Format.milliseconds($0) + " ms" })
        // What only our own nodes tell, where the screen has room for it.
        if size.rows >= 30, let sample = samples[id], isFresh(sample) {
            fact("voted for", sample.vote == 0 ? "nobody in this term" : name(of: sample.vote))
            if let left = sample.timerLeftMicroseconds, let length = sample.timerLengthMicroseconds { fact("election timer", "\(Format.milliseconds(Int(left))) of \(Format.milliseconds(Int(length))) ms left") }
            fact("durable index", Format.count(sample.durable))
            fact("waiting", "\(Format.plural(Int64(sample.pendingRequests), "request")), \(sample.diskQueue) for the disk, \(sample.unapplied) to apply")
            if let peer = leaderSample?.peers.first(where: { $0.id == id }) {
                fact("from the leader", "match \(Format.count(peer.match)), \(peer.phase.rawValue), \(peer.inFlightMessages) in flight" + (peer.roundTripMicroseconds.map { ", \(Format.milliseconds($0)) ms" } ?? ""))
            }
        }
        for fault in faults(on: id).suffix(3) { fact("fault #\(fault.id)", faultLine(fault.fault), .warn) }
        fact("up for", member.isUp ? member.startedAt.map { Format.age(milliseconds: now - $0) } : nil)
        switch member.health {
        case .down(let since, let reason): rows.append(("down", [Span("\(Format.age(milliseconds: now - since)): \(reason)", .down)]))
        case .paused(let since): rows.append(("paused", [Span("\(Format.age(milliseconds: now - since)) ago by you", .warn)]))
        case .isolated(let since): rows.append(("cut off", [Span("\(Format.age(milliseconds: now - since)) ago by you", .warn)]))
        case .up, .starting: break
        }
        if let sampled = member.sampledAt { rows.append(("figures", [Span("\(Format.age(milliseconds: now - sampled)) old", .dim)])) }
        let inside = overlayBox(&canvas, columns: 60, rows: rows.count + 5, title: "Node \(member.name)", right: [Span("j k next · Esc", .dim)])
        for (index, row) in rows.enumerated() where index + 1 < inside.rows {
            put([Span(row.0, .dim)], &canvas, inside.column + 2, inside.row + 1 + index, width: 18)
            put(row.1, &canvas, inside.column + 21, inside.row + 1 + index, width: inside.columns - 23)
        }
        var keys: [Span] = []
        for entry in Catalogue.entries where entry.context == .overview && entry.changes && entry.verb != .workload && entry.verb != .chaos(.healAll) {
            let isOff = obstacle(to: entry.verb, changes: true) != nil
            keys += [Span(entry.keys[0].label, isOff ? .faint : .key, isOff ? [] : .bold), Span(" \(entry.hint ?? "")  ", isOff ? .faint : .dim)]
        }
        if inside.rows > 3 { put(keys, &canvas, inside.column + 2, inside.endRow - 1, width: inside.columns - 4) }
    }

    // MARK: Conflict

    private func drawConflict(_ state: Conflict, _ canvas: inout Canvas, _ body: Rect) {
        let rows = conflictRows
        let rect = Rect(column: body.column, row: body.endRow - rows, columns: body.columns, rows: rows)
        let now = state.theirs.map { "refused: now rev \(Format.count($0.summary.modRevision))" } ?? "refused: it was deleted"
        let inside = canvas.box(rect, .light, title: [Span("Changed while you were editing", .warn, .bold)], right: [Span(now, .warn)])
        guard inside.rows > 6 else { return }
        let third = (inside.columns - 4) / 3
        let base = keys.editor?.base?.summary.modRevision
        let heads = ["BASE \(base.map { Format.count($0) } ?? "none")", "YOURS", "THEIRS \(state.theirs.map { Format.count($0.summary.modRevision) } ?? "deleted")"]
        for (index, head) in heads.enumerated() {
            canvas.text(head, inside.column + 1 + index * (third + 2), inside.row, width: third, .ink(.dim, .bold))
        }
        let mine = LineDiff.diff(state.merge.base, state.merge.mine), theirs = LineDiff.diff(state.merge.base, state.merge.theirs)
        func changes(_ diff: [LineDiff.Line]) -> [(String, Slot)] {
            diff.compactMap {
                switch $0 {
                case .same: nil
                case .removed(let line): ("- " + trimmed(line), .delete)
                case .added(let line): ("+ " + trimmed(line), .add)
                }
            }
        }
        func trimmed(_ line: String) -> String { String(line.drop { $0 == " " }) }
        // The base shows what either side took away.
        let gone = (mine + theirs).compactMap { line -> String? in if case .removed(let text) = line { trimmed(text) } else { nil } }
        var seen: Set<String> = []
        let baseLines = gone.filter { seen.insert($0).inserted }
        let room = inside.rows - 7
        let columns: [[(String, Slot)]] = [baseLines.map { ($0, .text) }, changes(mine).filter { $0.1 == .add } .isEmpty ? changes(mine) : changes(mine).filter { $0.1 == .add }, changes(theirs).filter { $0.1 == .add }.isEmpty ? changes(theirs) : changes(theirs).filter { $0.1 == .add }]
        for (index, list) in columns.enumerated() {
            let x = inside.column + 1 + index * (third + 2)
            for (line, item) in list.prefix(max(1, room)).enumerated() {
                canvas.text(item.0, x, inside.row + 1 + line, width: third, .ink(item.1))
            }
        }
        for index in 1...2 { for row in inside.row..<inside.row + max(1, room) + 1 { canvas.glyph("│", inside.column + index * (third + 2) - 1, row, .ink(.border)) } }
        let foot = inside.endRow - 5
        let conflicts = state.merge.conflicts, clean = state.merge.clean
        let verdict = state.theirs == nil ? "The key is gone: keeping mine creates it again."
            : "\(conflicts == 0 ? "No conflict" : Format.plural(Int64(conflicts), "conflict")), \(Format.plural(Int64(clean), "change")) of theirs merge\(clean == 1 ? "s" : "") cleanly."
        canvas.text(verdict, inside.column + 1, foot, width: inside.columns - 2, .ink(.text))
        let choices: [(String, String)] = [
            ("m", conflicts == 0 ? "merge: take both, review, save on theirs" : "merge: keep mine where both changed, theirs elsewhere; review, then ^S"),
            ("t", "take theirs and drop my edit"),
            ("o", "overwrite theirs with mine (asks again)"),
            ("Esc", "back to the editor; nothing has been written"),
        ]
        for (index, choice) in choices.enumerated() {
            canvas.spans([Span(index == state.selection ? "▸ " : "  ", .accent), Span(choice.0.padded(4), .key, .bold), Span(choice.1, .text)], inside.column + 1, foot + 1 + index, width: inside.columns - 2)
        }
    }
}

extension String {
    /// "2 watchs" → "2 watches".
    fileprivate var replacingWatchs: String {
        guard let space = firstIndex(of: " ") else { return self }
        let rest = self[space...]
        return rest.hasPrefix(" watchs") ? self[..<space] + " watches" + rest.dropFirst(7) : self
    }
}
