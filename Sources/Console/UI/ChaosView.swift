/// The Chaos view's panels; an empty rectangle is a panel that found no place.
struct ChaosLayout: Hashable {
    var links = Rect.empty
    var newFault = Rect.empty
    var active = Rect.empty
    var scenarios = Rect.empty
    var load = Rect.empty
    var happened = Rect.empty

    var panels: [(panel: Panel, rect: Rect)] {
        [(.links, links), (.newFault, newFault), (.activeFaults, active), (.scenarios, scenarios), (.load, load), (.happened, happened)].filter { !$0.1.isEmpty }
    }

    /// - Parameter focus: where there is room for one pair of the lower panels, the focused one's pair is shown.
    init(body: Rect, members: Int, focus: Panel, enlarged: Panel? = nil) {
        switch enlarged {
        case .newFault: newFault = body
        case .activeFaults: active = body
        case .scenarios: scenarios = body
        case .load: load = body
        case .happened: happened = body
        case .some: links = body
        case nil:
            var rest = body
            let isWide = body.columns >= 110
            // Matrix, what the nodes suffer, the sentence about the quorum; beside it all the acts.
            let wanted = max(max(1, members) + 8, FaultAct.allCases.count + (isWide ? 5 : 2))
            var top = rest.takeTop(min(wanted + (body.rows > 40 ? 2 : 0), body.rows - 7))
            links = top.takeLeft(isWide ? top.columns * 58 / 100 : max(top.columns - 26, top.columns * 64 / 100))
            newFault = top
            var pairs: [Rect] = [rest]
            if rest.rows >= 15 { pairs = [rest.takeTop(min(16, max(7, rest.rows * 44 / 100))), rest] }
            let showsBoth = pairs.count == 2
            if showsBoth || focus != .load && focus != .happened {
                active = pairs[0].takeLeft(links.columns)
                scenarios = pairs[0]
            }
            if showsBoth || focus == .load || focus == .happened {
                let last = pairs.count - 1
                load = pairs[last].takeLeft(links.columns)
                happened = pairs[last]
            }
        }
    }
}

/// Where the cells of a matrix of links are: drawing and mouse use the same.
struct MatrixPlaces {
    var inside: Rect
    var labelWidth: Int
    var cellWidth: Int
    var count: Int

    init(inside: Rect, names: [String]) {
        self.inside = inside
        count = names.count
        labelWidth = min(16, max(8, (names.map(\.cellWidth).max() ?? 2) + 4))
        cellWidth = min(11, max(4, (inside.columns - labelWidth - 2) / max(1, count)))
    }

    func column(_ index: Int) -> Int { inside.column + labelWidth + 1 + index * cellWidth }
    func row(_ index: Int) -> Int { inside.row + 1 + index }
    /// Nodes that find place to the right and below.
    var shownColumns: Int { min(count, max(0, (inside.columns - labelWidth - 1) / cellWidth)) }

    /// The row's node and the receiving one; `column` nil: the label.
    func place(at position: Position) -> (row: Int, column: Int?)? {
        let row = position.row - inside.row - 1
        guard row >= 0, row < count, position.column >= inside.column, position.column < inside.endColumn else { return nil }
        let column = position.column < self.column(0) ? nil : (position.column - self.column(0)) / cellWidth
        return (row, column.flatMap { $0 < shownColumns ? $0 : nil })
    }
}

extension Model {
    func drawChaos(_ canvas: inout Canvas, _ body: Rect) {
        if cluster.kind == .attached { return drawChaosLocked(&canvas, body) }
        let layout = ChaosLayout(body: body, members: cluster.members.count, focus: panel, enlarged: isEnlarged ? panel : nil)
        drawLinks(&canvas, layout.links)
        drawActs(&canvas, layout.newFault)
        drawActiveFaults(&canvas, layout.active)
        drawScenarios(&canvas, layout.scenarios)
        drawLoad(&canvas, layout.load)
        drawHappened(&canvas, layout.happened)
    }

    private func drawChaosLocked(_ canvas: inout Canvas, _ body: Rect) {
        let inside = canvas.box(body, .heavy, title: [Span("Chaos", .title, .bold)], right: [Span("locked", .warn)])
        let lines: [[Span]] = [
            [Span("Faults act only on nodes that this console started.", .text, .bold)], [],
            [Span("\(Format.fitted(cluster.name, 24)) is attached: nothing here can break its nodes.", .dim)], [],
            [Span("quarterdeck playground", .accent), Span("                     nodes in this program", .dim)],
            [Span("quarterdeck playground --engine process", .accent), Span("    nodes as processes", .dim)],
            [Span("quarterdeck playground --engine etcd", .accent), Span("       real etcd: kill, pause, links", .dim)],
        ]
        let width = min(inside.columns - 2, lines.map(\.cellWidth).max() ?? 0)
        let top = inside.row + max(0, (inside.rows - lines.count) / 2)
        for (index, line) in lines.prefix(inside.rows).enumerated() { canvas.spans(line, inside.column + (inside.columns - width) / 2, top + index, width: width) }
    }

    private func chaosBorder(_ panel: Panel) -> Canvas.Border { self.panel == panel ? .heavy : .light }

    private func selectRow(_ canvas: inout Canvas, _ inside: Rect, _ row: Int, focused: Bool) {
        canvas.background(Rect(column: inside.column, row: row, columns: inside.columns, rows: 1), .select)
        if focused { canvas.text("▸", inside.column, row, .ink(.accent).on(.select)) }
    }

    // MARK: Links and nodes

    private func drawLinks(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let right = rect.columns >= 60 ? "a row sends to a column · ms" : "row sends to column"
        let inside = canvas.box(rect, chaosBorder(.links), title: [Span("Links and nodes", .title, .bold)], right: [Span(right, .dim)])
        guard !inside.isEmpty else { return }
        if cluster.members.isEmpty { return drawPlaceholder(&canvas, inside, connectionText) }
        let places = MatrixPlaces(inside: inside, names: cluster.members.map(\.name))
        drawMatrix(&canvas, places, selection: (overview.selection, chaosTarget?.peer == nil ? nil : chaos.column), focused: panel == .links)
        // What each node suffers, below its column. Blank lines go first where room is short.
        let facts = [("process", processText), ("disk", diskText), ("clock", clockText)] as [(String, (MemberState) -> (String, Slot))]
        var row = places.row(cluster.members.count)
        if inside.endRow - row >= facts.count + 2 { row += 1 }
        for (label, text) in facts where row < inside.endRow - 1 {
            canvas.text(label, inside.column + 1, row, .ink(.faint))
            for index in 0..<places.shownColumns {
                let (shown, slot) = text(cluster.members[index])
                // Where a cell is narrow the word says more than its glyph.
                let fits = shown.cellWidth < places.cellWidth
                canvas.text(fits ? shown : String(shown.drop { !$0.isLetter }), places.column(index), row, width: places.cellWidth - 1, .ink(slot))
            }
            row += 1
        }
        let quorum = quorumFacts()
        if inside.endRow - row >= 2 { row += 1 }
        guard row < inside.endRow else { return }
        canvas.text("quorum", inside.column + 1, row, .ink(.faint))
        let x = places.column(0)
        let room = inside.endColumn - x - 1
        canvas.text(quorum.sentence.cellWidth <= room ? quorum.sentence : quorum.brief, x, row, width: room, .ink(quorum.slot, quorum.holds ? [] : .bold))
    }

    /// Round trips and faults of every link; also the Overview's.
    func drawMatrix(_ canvas: inout Canvas, _ places: MatrixPlaces, selection: (row: Int, column: Int?)?, focused: Bool) {
        let inside = places.inside
        for index in 0..<places.shownColumns {
            let isChosen = selection?.column == index
            canvas.text(cluster.members[index].name, places.column(index), inside.row, width: places.cellWidth - 1, .ink(isChosen ? .accent : .dim, isChosen ? .bold : []))
        }
        for (row, member) in cluster.members.enumerated() {
            let y = places.row(row)
            guard y < inside.endRow else { break }
            let state = RoleLanes.state(of: member)
            let role = Model.roleText(state)
            canvas.text(member.name, inside.column + 1, y, width: places.labelWidth - 3, .ink(state == .down ? .dim : .text, state == .leader ? .bold : []))
            canvas.text(role.glyph, inside.column + places.labelWidth - 1, y, .ink(role.slot))
            for column in 0..<places.shownColumns {
                let (text, style) = linkText(link(member, cluster.members[column]), places.cellWidth - 1)
                canvas.text(text, places.column(column), y, width: places.cellWidth - 1, style)
            }
            guard let selection, selection.row == row else { continue }
            if let column = selection.column {
                canvas.background(Rect(column: places.column(column), row: y, columns: places.cellWidth - 1, rows: 1), .select)
                if focused { canvas.text("▸", places.column(column) - 1, y, .ink(.accent)) }
            } else {
                selectRow(&canvas, inside, y, focused: focused)
            }
        }
    }

    /// What a cell of `width` can hold of a link: narrow ones lose precision, never the order of magnitude.
    private func linkText(_ link: LinkState, _ width: Int) -> (String, Style) {
        func fitting(_ texts: [String]) -> String { texts.first { $0.cellWidth <= width } ?? texts[texts.count - 1] }
        switch link {
        case .none: return ("·", .ink(.faint))
        case .down: return (fitting(["down", "—"]), .ink(.faint))
        case .cut: return ("✕", .ink(.bad, .bold))
        case .worse(let wire, _):
            let text = FaultText.cell(wire)
            return (fitting([text, String(text.prefix { $0 != " " }), "▲"]), .ink(.warn))
        case .open(let trip?):
            let text = fitting([Format.milliseconds(trip), FaultText.number(Double(trip) / 1_000), String(trip / 1_000)])
            return (text, trip < 5_000 ? .ink(.text) : Style(foreground: .gradient(.latency, min(100, 30 + trip / 500))))
        case .open(nil): return ("ok", .ink(.dim))
        }
    }

    private func processText(_ member: MemberState) -> (String, Slot) {
        switch member.health {
        case .up, .isolated: return ("▸ run", .ok)
        case .starting: return ("starting", .dim)
        case .paused: return ("‖ paused", .warn)
        case .down:
            for fault in faults.reversed() {
                switch fault.fault {
                case .kill(member.id): return ("✕ killed", .down)
                case .stop(member.id): return ("✕ stopped", .down)
                case .tornTail(member.id): return ("✕ torn", .down)
                default: continue
                }
            }
            return ("✕ down", .down)
        }
    }

    private func diskText(_ member: MemberState) -> (String, Slot) {
        let found = faults.reversed().lazy.compactMap { fault in if case .disk(member.id, let disk) = fault.fault { disk } else { nil } }.first
        return found.map { (FaultText.cell($0), $0.isSlow ? .warn : .bad) } ?? (reason(against: .disk) == nil ? "ok" : "—", .dim)
    }

    private func clockText(_ member: MemberState) -> (String, Slot) {
        let found = faults.reversed().lazy.compactMap { fault in if case .clock(member.id, let clock) = fault.fault { clock } else { nil } }.first
        return found.map { (FaultText.cell($0), .warn) } ?? (reason(against: .clock) == nil ? "ok" : "—", .dim)
    }

    // MARK: Add a fault

    private func drawActs(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let isWide = rect.columns >= 40
        let inside = canvas.box(rect, chaosBorder(.newFault), title: [Span(isWide ? "Add a fault" : "Break", .title, .bold)], right: [Span(isWide ? "target " : "", .dim), Span(chaosTargetText, .accent)])
        for (index, act) in FaultAct.allCases.enumerated() {
            let row = inside.row + index
            guard row < inside.endRow else { break }
            let reason = mode == .readOnly ? "read-only" : reason(against: act)
            let isOff = reason != nil
            canvas.text(String(act.key), inside.column + 1, row, .ink(isOff ? .faint : .key, isOff ? [] : .bold))
            canvas.text(act.title, inside.column + 4, row, width: inside.columns - 5, .ink(isOff ? .faint : .text))
            if isWide { canvas.text(reason ?? act.detail, inside.column + 18, row, width: inside.columns - 19, .ink(isOff ? .faint : .dim)) }
            if panel == .newFault, index == chaos.act { selectRow(&canvas, inside, row, focused: true) }
        }
        let foot = inside.row + FaultAct.allCases.count + 1
        guard isWide, foot < inside.endRow else { return }
        canvas.spans([Span("↵", .key, .bold), Span(" sets one up with an end time, like ", .dim), Span("30s", .text)], inside.column + 1, foot, width: inside.columns - 2)
        if foot + 1 < inside.endRow { canvas.text("all faults end with this program, even a crash", inside.column + 1, foot + 1, width: inside.columns - 2, .ink(.faint)) }
    }

    // MARK: Active

    func activeScroll(_ rows: Int) -> Int { max(0, min(chaos.active - rows + 1, faults.count - rows)) }

    private func drawActiveFaults(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let inside = canvas.box(rect, chaosBorder(.activeFaults), title: [Span("Active", .title, .bold), Span(faults.isEmpty ? "" : " · \(faults.count) on", .warn)],
                                right: rect.columns >= 60 ? [Span("H", .key, .bold), Span(" heal all · ", .dim), Span("U", .key, .bold), Span(" undo last · ", .dim), Span("D", .key, .bold), Span(" heal", .dim)] : rect.columns >= 40 ? [Span("H", .key, .bold), Span(" heal all · ", .dim), Span("U", .key, .bold), Span(" undo", .dim)] : [])
        guard inside.rows > 1 else { return }
        if faults.isEmpty { return drawPlaceholder(&canvas, inside, "no fault is on", .faint) }
        let columns = TableColumn.fit([
            TableColumn(0, "#", 3, right: true, priority: 0), TableColumn(1, "FAULT", 16, priority: 1, flexible: true), TableColumn(2, "SINCE", 6, right: true, priority: 4),
            TableColumn(3, "ENDS", 11, priority: 2), TableColumn(4, "EFFECT", rect.columns >= 90 ? 22 : 14, priority: 3), TableColumn(5, "BY", 12, priority: 6),
        ].filter { $0.id != 5 || faults.contains { $0.by != "you" } }, room: inside.columns - 2)
        var x = inside.column + 1
        for column in columns {
            canvas.text(column.isRight ? column.title.leftPadded(column.width) : column.title, x, inside.row, .ink(.faint))
            x += column.width + 1
        }
        let visible = inside.rows - 1
        let first = activeScroll(visible)
        for line in 0..<visible {
            let index = first + line
            guard faults.indices.contains(index) else { break }
            let fault = faults[index]
            let row = inside.row + 1 + line
            x = inside.column + 1
            for column in columns {
                let (text, slot): (String, Slot) = switch column.id {
                case 0: (String(fault.id), .dim)
                case 1: (faultLine(fault.fault), fault.fault.isDown ? .down : .warn)
                case 2: (Format.age(milliseconds: now - fault.since), .dim)
                case 3: (endText(fault), fault.ends == nil ? .dim : .text)
                case 4: effect(of: fault.fault).map { ($0, .text) } ?? ("—", .faint)
                default: (fault.by, .dim)
                }
                let shown = Format.fitted(text, column.width)
                canvas.text(column.isRight ? shown.leftPadded(column.width) : shown, x, row, .ink(slot))
                x += column.width + 1
            }
            if index == chaos.active, panel == .activeFaults { selectRow(&canvas, inside, row, focused: true) }
        }
        canvas.scrollMark(rect, offset: first, visible: visible, total: faults.count, focused: panel == .activeFaults)
    }

    private func endText(_ fault: ActiveFault) -> String {
        if let ends = fault.ends { return "in \(Format.age(milliseconds: ends - now + 999))" }
        return fault.fault.isDown ? "R restarts" : "when healed"
    }

    // MARK: Scenarios

    /// Rows above the list that tell of the one that runs, or ran.
    func scenarioHeadRows(_ rows: Int) -> Int { scenario == nil ? 0 : rows >= 8 ? 4 : 2 }
    func scenarioScroll(_ rows: Int) -> Int { max(0, min(chaos.scenario - rows + 1, scenarios.count - rows)) }

    private func drawScenarios(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let isRunning = runningScenario != nil
        let inside = canvas.box(rect, chaosBorder(.scenarios), title: [Span("Scenarios", .title, .bold)],
                                right: [Span(isRunning ? "D" : "R", .key, .bold), Span(isRunning ? " stops" : " runs", .dim)])
        guard !inside.isEmpty else { return }
        var list = inside
        if let scenario {
            var head = list.takeTop(min(scenarioHeadRows(inside.rows), inside.rows))
            let (mark, slot) = Model.mark(of: scenario.state)
            let top = head.takeTop(1)
            let count = "\(scenario.step) of \(scenario.steps)"
            canvas.spans([Span("\(mark) ", slot, .bold), Span(scenario.title, .text, .bold)], top.column + 1, top.row, width: top.columns - 4 - count.cellWidth)
            canvas.textRight(count, endingAt: top.endColumn - 1, top.row, .ink(slot))
            var lines = [Span(scenario.caption, .text)]
            if case .failed(let why) = scenario.state { lines = [Span(why, .bad)] }
            if head.rows == 1, let waiting = scenario.waitingFor { lines = [Span(waiting, .dim)] }
            canvas.spans(lines, head.column + 1, head.row, width: head.columns - 2)
            if head.rows >= 3 {
                canvas.text(scenario.waitingFor ?? Model.endText(of: scenario.state), head.column + 1, head.row + 1, width: head.columns - 2, .ink(slot == .accent ? .dim : slot))
                for column in head.column + 1..<head.endColumn - 1 { canvas.glyph("─", column, head.row + 2, .ink(.border)) }
                canvas.bar(max(1, scenario.step), of: max(1, scenario.steps), head.column + 1, head.row + 2, width: head.columns - 2, .ink(slot))
            }
        }
        if scenarios.isEmpty { return drawPlaceholder(&canvas, list, "no scenario was found", .faint) }
        let first = scenarioScroll(list.rows)
        let numberWidth = String(scenarios.count).count
        for line in 0..<list.rows {
            let index = first + line
            guard scenarios.indices.contains(index) else { break }
            let item = scenarios[index]
            let row = list.row + line
            let isOff = item.obstacle != nil
            canvas.text(String(index + 1).leftPadded(numberWidth), list.column + 1, row, .ink(.faint))
            canvas.spans([Span(item.title, isOff ? .faint : .text)] + (item.obstacle.map { [Span(" · \($0)", .faint)] } ?? []), list.column + numberWidth + 2, row, width: list.columns - numberWidth - 3)
            if index == chaos.scenario, panel == .scenarios { selectRow(&canvas, list, row, focused: true) }
        }
        canvas.scrollMark(Rect(column: rect.column, row: list.row - 1, columns: rect.columns, rows: list.rows + 2), offset: first, visible: list.rows, total: scenarios.count, focused: panel == .scenarios)
    }

    static func mark(of state: ScenarioProgress.State) -> (String, Slot) {
        switch state {
        case .running: ("▸", .accent)
        case .passed: ("✓", .ok)
        case .failed: ("✕", .bad)
        case .stopped: ("·", .dim)
        }
    }

    static func endText(of state: ScenarioProgress.State) -> String {
        switch state {
        case .running: "goes on"
        case .passed: "all expectations held"
        case .failed(let why): why
        case .stopped: "stopped; its faults are healed"
        }
    }

    /// The narrator's line of a running scenario, and for a while how the last one ended; nil: nothing to tell. For every view.
    var narration: [Span]? {
        guard let scenario else { return nil }
        let (mark, slot) = Model.mark(of: scenario.state)
        guard scenario.state == .running else {
            guard let heard = scenarioHeardAt, now - heard < 15_000 else { return nil }
            return [Span("\(mark) ", slot, .bold), Span(scenario.title, .text), Span(" · ", .faint), Span(Model.endText(of: scenario.state), slot)]
        }
        return [Span("\(mark) \(scenario.step)/\(scenario.steps) ", slot, .bold), Span(scenario.caption, .text)] + (scenario.waitingFor.map { [Span(" · \($0)", .dim)] } ?? [])
    }

    // MARK: Load

    private func drawLoad(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let state: Span = workload.isSwitching ? Span("switching…", .warn) : workload.isOn ? Span("running", .ok) : Span("off", .dim)
        let inside = canvas.box(rect, chaosBorder(.load), title: [Span("Load", .title, .bold)], right: [Span("W", .key, .bold), Span(workload.isOn ? " stops · " : " starts · ", .dim), Span("e", .key, .bold), Span(rect.columns >= 50 ? " settings · " : " set · ", .dim), state])
        guard !inside.isEmpty else { return }
        let last = workload.isOn ? workload.last : nil
        let settings = last?.settings ?? workload.settings
        let wide = inside.columns >= 60
        let x = inside.column + 1
        let sparkAt = x + 34
        func row(_ y: Int, _ label: String, _ set: String, _ value: String?, _ slot: Slot, _ spark: ((WorkloadSample) -> Int?)? = nil) {
            guard y < inside.endRow else { return }
            canvas.text(label, x, y, .ink(.dim))
            canvas.textRight(set, endingAt: x + 22, y, .ink(.text))
            canvas.textRight(value ?? "—", endingAt: x + 32, y, .ink(value == nil ? .faint : .text))
            guard let spark, wide, !workload.samples.isEmpty else { return }
            let shown = workload.samples.suffix(max(0, inside.endColumn - 1 - sparkAt)).map(spark)
            // Some air above the largest, so that the rows do not grow together.
            canvas.sparkline(shown, sparkAt, y, width: inside.endColumn - 1 - sparkAt, maximum: max(1, (shown.compactMap { $0 }.max() ?? 1) * 3 / 2)) { _ in .slot(slot) }
        }
        var y = inside.row
        var verdict = verdictLines
        if inside.rows >= verdict.count + 6 {
            canvas.textRight("SET", endingAt: x + 22, y, .ink(.faint))
            canvas.textRight("NOW", endingAt: x + 32, y, .ink(.faint))
            y += 1
        }
        if inside.rows < 6 { verdict = Array(verdict.prefix(1)) }
        let bottom = inside.endRow - verdict.count
        if y < bottom { row(y, "put/s", Format.count(settings.putsPerSecond), last.map { Format.count($0.put?.count ?? 0) }, .series1) { $0.put?.count ?? 0 }; y += 1 }
        if y < bottom { row(y, "get/s", Format.count(settings.readsPerSecond), last.map { Format.count($0.read?.count ?? 0) }, .series2) { $0.read?.count ?? 0 }; y += 1 }
        if y < bottom { row(y, "put p99 ms", "", last?.put.map { Format.milliseconds($0.p99Microseconds) }, .dim) { $0.put?.p99Microseconds }; y += 1 }
        if y < bottom {
            var spans = [Span("failed ", .dim), Span(last.map { String($0.failed) } ?? "—", (last?.failed ?? 0) > 0 ? .bad : .text), Span("  retried ", .dim), Span(last.map { String($0.retried) } ?? "—", .text)]
            if wide { spans.append(Span("  in the last second", .faint)) }
            canvas.spans(spans, x, y, width: inside.columns - 2)
            y += 1
        }
        if y < bottom {
            canvas.text("\(settings.clients) clients · \(Format.bytes(settings.valueBytes)) values · \(Format.count(settings.keyCount)) keys, \(settings.distribution.rawValue) · \(settings.consistency.rawValue) · \(settings.pace.rawValue) loop",
                        x, y, width: inside.columns - 2, .ink(.dim))
            y += 1
        }
        y = inside.rows > 14 ? y + 1 : max(y, bottom)
        for line in verdict where y < inside.endRow {
            canvas.spans(line, x, y, width: inside.columns - 2)
            y += 1
        }
    }

    /// What the workload's own check says of everything it wrote and read.
    var verdictLines: [[Span]] {
        guard let verdict = workload.last?.verdict, verdict.acknowledgedWrites + verdict.checkedReads > 0 else { return [[Span("— ", .faint), Span("consistency: nothing checked yet", .dim)]] }
        if let first = verdict.violations.first {
            return [[Span("✕ ", .bad, .bold), Span("\(Format.plural(Int64(verdict.violations.count), "violation")) of consistency", .bad, .bold)], [Span("  \(first)", .bad)]]
        }
        var lines = [[Span("✓ ", .ok, .bold), Span("consistent so far: \(Format.count(verdict.acknowledgedWrites)) writes acknowledged, no violation", .text)]]
        var facts = "  \(Format.count(verdict.confirmedWrites)) read back, \(Format.plural(Int64(verdict.checkedReads), "read")) checked"
        if verdict.unknownWrites > 0 { facts += ", \(Format.count(verdict.unknownWrites)) without an answer" }
        lines.append([Span(facts, .dim)])
        return lines
    }

    // MARK: What happened

    private func drawHappened(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let facts: [Span] = overview.eventScroll > 0 ? [Span("▼ \(overview.eventScroll) newer", .warn)] : [Span("live", .dim)]
        let inside = canvas.box(rect, chaosBorder(.happened), title: [Span("What happened", .title, .bold)], right: facts)
        guard !inside.isEmpty else { return }
        drawEventRows(&canvas, rect, inside, focused: panel == .happened)
    }

    // MARK: Overlays

    func drawFaultForm(_ form: FaultForm, _ canvas: inout Canvas) {
        let labels = form.fields.map(\.label.cellWidth).max() ?? 4
        let inside = overlayBox(&canvas, columns: 78, rows: form.fields.count + 7, title: "\(form.act.title.prefix(1).uppercased())\(form.act.title.dropFirst())", right: [Span("Tab next · ↵ on · Esc", .dim)])
        guard inside.rows > 4 else { return }
        func put(_ spans: [Span], _ column: Int, _ row: Int) { canvas.spans(spans.map { Span($0.text, $0.style.on(.overlay)) }, column, row, width: inside.endColumn - 1 - column) }
        for (index, field) in form.fields.enumerated() {
            let y = inside.row + 1 + index
            guard y < inside.endRow - 3 else { break }
            let isUsed = form.isUsed(field.id), isFocused = index == form.focus
            put([Span(field.label.leftPadded(labels), isFocused ? .accent : isUsed ? .dim : .faint)], inside.column + 2, y)
            let x = inside.column + 4 + labels
            switch field.input {
            case .choice(let list, let chosen):
                var spans: [Span] = []
                for (place, title) in list.enumerated() {
                    let off = form.unavailable(field.id, place, faultSupport)
                    if place == chosen { spans.append(Span("[\(title)]", .ink(!isUsed || off != nil ? .faint : isFocused ? .accent : .text, .bold))) } else { spans.append(Span(" \(title) ", off == nil && isUsed ? .dim : .faint)) }
                }
                put(spans, x, y)
            case .text(let text):
                let style = Style.ink(!isUsed ? .faint : .text, isFocused ? .bold : [])
                if isFocused {
                    canvas.field(text, x, y, width: field.id == .groups ? 30 : 13, style.on(form.isFresh && !text.isEmpty ? .select : .overlay))
                    if field.id == .groups { continue }
                } else {
                    put([Span(text.isEmpty && field.id == .duration ? "until healed" : text.text, text.isEmpty ? .ink(.faint) : style)], x, y)
                }
            }
            if isFocused, case .text = field.input { put([Span(field.hint, .faint)], x + 14, y) }
        }
        let foot = inside.endRow - 3
        for column in inside.column + 1..<inside.endColumn - 1 { canvas.glyph("─", column, foot - 1, Style.ink(.border).on(.overlay)) }
        do {
            let wanted = try form.faults(cluster.members)
            let reason = obstacle(to: wanted.faults)
            let end = wanted.milliseconds.map { ", for \(FaultText.span($0))" } ?? ", until healed"
            put([Span("▲ ", .warn, .bold), Span(wanted.faults.map(faultLine).joined(separator: " and ") + end, .text)], inside.column + 2, foot)
            if let reason { put([Span(reason, .warn)], inside.column + 2, foot + 1) } else if let remark = quorumRemark(wanted.faults) { put([Span(remark, .bad)], inside.column + 2, foot + 1) } else {
                put([Span(quorumFacts(with: wanted.faults).sentence, .dim)], inside.column + 2, foot + 1)
            }
        } catch {
            put([Span((form.problem ?? error).text, form.problem == nil ? .dim : .warn)], inside.column + 2, foot)
        }
    }

    func drawScenarioPage(_ summary: ScenarioSummary, _ canvas: inout Canvas) {
        let width = min(size.columns - 8, 74)
        let lines = Format.wrapped(summary.description, width - 6)
        let inside = overlayBox(&canvas, columns: width, rows: lines.count + 7, title: summary.title, right: [Span(summary.name, .dim)])
        guard inside.rows > 3 else { return }
        func put(_ spans: [Span], _ row: Int) { canvas.spans(spans.map { Span($0.text, $0.style.on(.overlay)) }, inside.column + 2, row, width: inside.columns - 4) }
        for (index, line) in lines.prefix(max(0, inside.rows - 4)).enumerated() { put([Span(line, .text)], inside.row + 1 + index) }
        if let reason = obstacle(to: .runScenario) ?? summary.obstacle {
            put([Span(reason, .warn), Span("    Esc", .key, .bold), Span(" back", .dim)], inside.endRow - 2)
        } else {
            put([Span("R", .key, .bold), Span(" or ", .dim), Span("↵", .key, .bold), Span(" runs it", .text), Span("    Esc", .key, .bold), Span(" back", .dim)], inside.endRow - 2)
        }
    }
}

extension FaultForm {
    /// Why a choice is not to be had with this engine.
    func unavailable(_ field: FieldID, _ index: Int, _ support: FaultSupport) -> String? {
        switch (act, field) {
        case (.disk, .what): FaultForm.disks.indices.contains(index) ? support.reason(FaultForm.disks[index].kind) : nil
        case (.clock, .what): FaultForm.clocks.indices.contains(index) ? support.reason(FaultForm.clocks[index].kind) : nil
        default: nil
        }
    }
}

extension DiskFault {
    var isSlow: Bool { if case .slow = self { true } else { false } }
}

extension Fault {
    /// Its node is not running while it is on.
    var isDown: Bool {
        switch self {
        case .kill, .stop, .tornTail: true
        default: false
        }
    }
}
