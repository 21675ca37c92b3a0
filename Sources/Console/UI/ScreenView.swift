/// Draws the whole screen. Pure: the same model gives the same grid.
public func view(_ model: Model) -> CellGrid {
    var canvas = Canvas(size: model.size)
    if model.size.columns < ScreenLayout.minimum.columns || model.size.rows < ScreenLayout.minimum.rows {
        drawTooSmall(model, &canvas)
    } else {
        let layout = ScreenLayout(model.size)
        model.drawHeader(&canvas, layout.header)
        model.drawTabs(&canvas, layout.tabs)
        switch model.screen {
        case .keys: model.drawKeys(&canvas, layout.body)
        case .watch: model.drawWatch(&canvas, layout.body)
        case .elections: model.drawElections(&canvas, layout.body)
        case .latency: model.drawLatencyView(&canvas, layout.body)
        case .chaos: model.drawChaos(&canvas, layout.body)
        case .log: model.drawLog(&canvas, layout.body)
        default: model.drawOverview(&canvas, layout.body)
        }
        model.drawCrumbs(&canvas, layout.crumbs)
        model.drawHints(&canvas, layout.hints)
        if let overlay = model.overlay { model.drawOverlay(overlay, &canvas, layout) }
    }
    return model.glyphs == .ascii ? canvas.grid.inASCII() : canvas.grid
}

private func drawTooSmall(_ model: Model, _ canvas: inout Canvas) {
    let size = model.size
    let lines = [
        "This terminal is \(size.columns)×\(size.rows).",
        "Quarterdeck needs \(ScreenLayout.minimum.columns)×\(ScreenLayout.minimum.rows).",
        "",
        "Make the window larger, or q to quit.",
    ]
    let top = max(0, (size.rows - lines.count) / 2)
    for (index, line) in lines.enumerated() {
        canvas.text(line, max(0, (size.columns - line.cellWidth) / 2), top + index, .ink(index == 1 ? .text : .dim, index == 1 ? .bold : []))
    }
}

extension Model {
    // MARK: Header

    private var headerSlot: Slot {
        switch mode {
        case .readOnly: .headerReadOnly
        case .ask: .headerAsk
        case .readWrite: cluster.kind == .playground ? .header : .headerAttached
        }
    }

    private var modeText: String {
        switch mode {
        case .readWrite: "RW"
        case .ask: "ASK"
        case .readOnly: replay != nil ? "REPLAY" : "RO"
        }
    }

    func drawHeader(_ canvas: inout Canvas, _ rect: Rect) {
        let background = headerSlot
        canvas.fill(rect, " ", Style(foreground: .slot(.headerText), background: .slot(background)))
        func ink(_ slot: Slot, _ attributes: Attributes = []) -> Style { Style(foreground: .slot(slot), background: .slot(background), attributes: attributes) }
        let isWide = rect.columns >= 110
        let kind = replay != nil ? "recording" : cluster.kind == .playground ? "playground" : "attached"
        let modeStyle = ink(mode == .readWrite ? .ok : .warn, .bold)
        var left: [Span]
        if isWide {
            left = [Span("◆ ", ink(.accent)), Span("quarterdeck", ink(.headerText, .bold)), Span("   ", ink(.faint))]
            // A playground that was not given a name is called one: say it once.
            if cluster.name != kind { left += [Span(Format.fitted(cluster.name, 24), ink(.headerText)), Span(" ▸ ", ink(.faint))] }
            left += [Span(kind, ink(.headerText)), Span(cluster.engine.map { " · \($0)" } ?? "", ink(.dim)), Span(" ▸ ", ink(.faint)),
                    Span(cluster.members.isEmpty ? "…" : Format.plural(Int64(cluster.members.count), "node"), ink(.headerText)), Span("   ", ink(.faint)), Span(modeText, modeStyle)]
            if rect.columns >= 150, let version = cluster.serverVersion, version != cluster.engine { left.append(Span("   \(version)", ink(.dim))) }
        } else {
            left = [Span("◆ ", ink(.accent)), Span(Format.fitted(cluster.name, 16), ink(.headerText, .bold)),
                    Span(" · " + [cluster.name == kind ? nil : kind, cluster.engine].compactMap(\.self).map { $0 + " · " }.joined(), ink(.dim)), Span(modeText, modeStyle)]
        }
        if !faults.isEmpty { left += [Span(isWide ? "   " : " ", ink(.faint)), Span("CHAOS \(faults.count) on", ink(.warn, .bold))] }
        let end = canvas.spans(left, rect.column, rect.row, width: rect.columns)

        // Right: items with a priority; the least important are shed first.
        let gap = isWide ? 3 : 2
        var items: [(rank: Int, spans: [Span])] = []
        switch cluster.connection {
        case .connecting: items.append((1, [Span("connecting…", ink(.warn))]))
        case .lost(let since, _): items.append((1, [Span("✕ no answer \(Format.age(milliseconds: now - since))", ink(.bad, .bold))]))
        case .connected:
            if let leader = cluster.leader {
                items.append((1, [Span("♛ ", ink(.leader)), Span(Format.fitted(leader.name, 16), ink(.headerText, .bold))]))
            } else {
                items.append((1, [Span("no leader", ink(.bad, .bold))]))
            }
        }
        let term = cluster.members.compactMap(\.term).max()
        if let term { items.append((4, [Span("term ", ink(.dim)), Span(String(term), ink(.headerText))])) }
        if let revision = cluster.revision { items.append((2, [Span("rev ", ink(.dim)), Span(Format.count(revision), ink(.headerText))])) }
        if rect.columns >= 160, let commit = cluster.members.compactMap(\.commit).max() {
            items.append((8, [Span("commit ", ink(.dim)), Span(Format.count(commit), ink(.headerText))]))
        }
        if !cluster.members.isEmpty {
            let up = cluster.members.count(where: \.isUp)
            var pips = cluster.members.prefix(9).map { member -> Span in
                switch RoleLanes.state(of: member) {
                case .down: Span("✕", ink(.down))
                case .paused: Span("‖", ink(.warn))
                case .isolated: Span("≠", ink(.warn))
                case .learner: Span("○", ink(.learner))
                case .preCandidate, .candidate: Span("◌", ink(.candidate))
                case .unknown: Span("·", ink(.faint))
                case .leader, .follower: Span("●", ink(.ok))
                }
            }
            pips.append(Span(" \(up)/\(cluster.members.count)", ink(up == cluster.members.count ? .headerText : .warn)))
            items.append((3, pips))
        }
        if let put = workload.isOn ? workload.last?.put : nil { items.append((6, [Span(isWide ? "put p99 " : "p99 ", ink(.dim)), Span(Format.milliseconds(put.p99Microseconds) + "ms", ink(.headerText))])) }
        if rect.columns >= 160, let keys = cluster.keyCount { items.append((9, [Span("keys ", ink(.dim)), Span(Format.count(keys), ink(.headerText))])) }
        if !cluster.alarms.isEmpty { items.append((2, [Span("▲ \(cluster.alarms[0].kind)", ink(.bad, .bold))])) }
        items.append((5, [Span(Format.clock(now, zone: timeZoneOffsetSeconds), ink(.dim))]))
        func width(_ items: [(rank: Int, spans: [Span])]) -> Int { items.reduce(0) { $0 + $1.spans.cellWidth } + gap * max(0, items.count - 1) }
        while items.count > 1, width(items) > rect.columns - end - 2, let worst = items.indices.max(by: { items[$0].rank < items[$1].rank }) { items.remove(at: worst) }
        var x = rect.endColumn - width(items)
        guard x > end else { return }
        for item in items {
            x += canvas.spans(item.spans, x, rect.row)
            x += gap
        }
    }

    // MARK: Tabs

    /// Every tab with its place: drawing and mouse use the same.
    func tabPlaces(_ rect: Rect) -> [(view: ViewID, text: String, rect: Rect)] {
        let isWide = rect.columns >= 110
        var x = rect.column
        return ViewID.allCases.map { view in
            let text = "\(view.keyLabel) \(isWide ? view.title : view.shortTitle)"
            let width = text.cellWidth + 2
            // Narrow screens have one blank between tabs; the open one's brackets take a cell more.
            defer { x += width - (isWide || view == screen ? 0 : 1) }
            return (view, text, Rect(column: x, row: rect.row, columns: width, rows: 1))
        }
    }

    func drawTabs(_ canvas: inout Canvas, _ rect: Rect) {
        for tab in tabPlaces(rect) {
            if tab.view == screen {
                canvas.text("[", tab.rect.column, rect.row, .ink(.accent))
                canvas.text(tab.text, tab.rect.column + 1, rect.row, .ink(.text, .bold))
                canvas.text("]", tab.rect.endColumn - 1, rect.row, .ink(.accent))
            } else {
                let implemented = tab.view.isImplemented
                canvas.text(tab.view.keyLabel, tab.rect.column + 1, rect.row, .ink(implemented ? .key : .faint))
                canvas.text(String(tab.text.dropFirst()), tab.rect.column + 2, rect.row, .ink(implemented ? .dim : .faint))
            }
        }
    }

    // MARK: Crumbs and receipts

    func drawCrumbs(_ canvas: inout Canvas, _ rect: Rect) {
        var x = rect.column + 1
        if let replay {
            // What is said has the whole row for its seconds.
            let isSaying = toast.map { now - $0.at < $0.milliseconds } ?? false
            drawReplay(&canvas, rect, replay, isBrief: isSaying)
            x = isSaying ? rect.column + 11 : replayBar(rect).endColumn + 20
        } else if let narration {
            // A running scenario tells its story in every view; receipts of its acts are in the events.
            let room = rect.columns - 2
            x += canvas.spans(narration, x, rect.row, width: room)
            if x > rect.endColumn - 24 { return }
        } else {
            let parts = crumbs
            for (index, part) in parts.enumerated() {
                if index > 0 { x += canvas.text(" › ", x, rect.row, .ink(.faint)) }
                x += canvas.text(Format.fitted(part, 40), x, rect.row, .ink(index == parts.count - 1 ? .dim : .faint))
                if x > rect.columns / 2 { break }
            }
        }
        let (text, slot): (String, Slot)
        if let toast, now - toast.at < toast.milliseconds {
            (text, slot) = (toast.text, toast.slot)
        } else if let pending = pendingWrites.last, now - pending.since >= 150 {
            (text, slot) = ("\(pending.verb)… \(Format.age(milliseconds: now - pending.since))", .dim)
        } else if let note = cluster.note {
            (text, slot) = (note, .dim)
        } else {
            return
        }
        let room = rect.endColumn - 2 - x
        canvas.textRight(Format.fitted(text, max(0, room)), endingAt: rect.endColumn - 1, rect.row, .ink(slot))
    }

    var crumbs: [String] {
        switch screen {
        case .keys:
            if let editor = keys.editor { return ["keys", "edit", Format.text(editor.key)] }
            return ["keys"] + keys.crumbs
        case .watch:
            guard let session = watch.selected else { return ["watch"] }
            return ["watch", session.title]
        case .latency:
            return ["latency", latency.source.title.lowercased()] + (latency.node.flatMap { id in cluster.members.first { $0.id == id } }.map { [$0.name] } ?? [])
        case .elections:
            guard let election = elections.shown else { return ["elections"] }
            return ["elections", election.electedAt == nil ? "no leader" : "term \(election.term)"]
        case .chaos: return cluster.kind == .attached ? ["chaos"] : ["chaos", chaosTargetText]
        case .log: return logCrumbs
        default:
            let member = cluster.members.indices.contains(overview.selection) ? cluster.members[overview.selection].name : nil
            return ["overview"] + (member.map { [$0] } ?? [])
        }
    }

    // MARK: Hints

    func drawHints(_ canvas: inout Canvas, _ rect: Rect) {
        let freshness = freshnessSpans
        let room = rect.columns - freshness.cellWidth - 3
        struct Hint { var spans: [Span]; var rank: Int; var group: Int; var width: Int }
        var hints: [Hint] = []
        var seen: Set<Verb> = []
        for entry in Catalogue.entries(in: contexts) {
            guard let full = entry.hint, seen.insert(entry.verb).inserted, let key = entry.keys.first else { continue }
            let isOff = obstacle(to: entry.verb, changes: entry.changes) != nil
            if entry.verb == .filter, isOff { continue }
            let label = key.label(glyphs)
            let hint = rect.columns >= 110 ? full : Catalogue.short(full)
            let group = entry.context == .everywhere ? (entry.verb == .filter || entry.verb == .enlarge ? 0 : 2) : (entry.changes && entry.context != .editor ? 1 : 0)
            hints.append(Hint(spans: [Span(label, .ink(isOff ? .faint : .key, isOff ? [] : .bold)), Span(" " + hint, isOff ? .faint : .dim)],
                              rank: entry.rank, group: group, width: label.cellWidth + 1 + hint.cellWidth))
        }
        func total(_ list: [Hint]) -> Int {
            list.reduce(-2) { $0 + $1.width + 2 } + (list.contains { $0.group == 1 } && list.contains { $0.group == 0 } ? 2 : 0)
        }
        while total(hints) > room, let worst = hints.indices.max(by: { hints[$0].rank < hints[$1].rank }) { hints.remove(at: worst) }
        var x = rect.column + 1
        var lastGroup = 0
        for group in 0...2 {
            for hint in hints where hint.group == group {
                if group == 1, lastGroup == 0, x > rect.column + 1 { x += canvas.text("│ ", x, rect.row, .ink(.faint)) }
                x += canvas.spans(hint.spans, x, rect.row) + 2
                lastGroup = group
            }
        }
        canvas.spans(freshness, rect.endColumn - 1 - freshness.cellWidth, rect.row)
    }

    private var freshnessSpans: [Span] {
        if let replay { return [Span(replay.isPlaying ? "▶ " : "‖ ", replay.isPlaying ? .ok : .warn), Span("replay", .dim)] }
        switch cluster.connection {
        case .connecting: return [Span("◷ connecting", .warn)]
        case .lost: return [Span("✕ no answer", .bad)]
        case .connected:
            guard let heard = clusterHeardAt else { return [Span("◷ connecting", .warn)] }
            let age = now - heard
            if age > 3 * max(1_000, cluster.periodMilliseconds) { return [Span("◷ \(Format.age(milliseconds: age)) old", .warn)] }
            return [Span("◷ ", .ok), Span("live", .dim)]
        }
    }
}
