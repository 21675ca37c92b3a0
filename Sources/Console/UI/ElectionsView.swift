/// The Elections view's panels; an empty rectangle is a panel that found no place.
struct ElectionsLayout: Hashable {
    var timeline: Rect
    var steps = Rect.empty
    var cost = Rect.empty
    var list = Rect.empty

    init(body: Rect, lanes: Int, focused: Panel, enlarged: Panel? = nil) {
        if let enlarged {
            timeline = enlarged == .timeline ? body : .empty
            steps = enlarged == .steps ? body : .empty
            cost = enlarged == .cost ? body : .empty
            list = enlarged == .elections ? body : .empty
            return
        }
        var rest = body
        // Axis, heartbeats, clients, term, and a remark below the lanes.
        let rows = max(lanes, 1) + 5
        switch OverviewLayout.sizeClass(body) {
        case .small:
            timeline = rest.takeTop(min(rows + 2, body.rows - 8))
            // The list shares its place with steps and cost: Tab brings it.
            if focused == .elections {
                list = rest
            } else {
                steps = rest.takeLeft(rest.columns * 11 / 20)
                cost = rest
            }
        case .medium:
            timeline = rest.takeTop(min(rows + 3, body.rows - 19))
            var middle = rest.takeTop(min(13, rest.rows - 6))
            list = rest
            steps = middle.takeLeft(middle.columns / 2)
            cost = middle
        case .large:
            timeline = rest.takeTop(min(rows + 5, body.rows - 28))
            var middle = rest.takeTop(min(18, rest.rows / 2))
            list = rest
            steps = middle.takeLeft(middle.columns * 11 / 20)
            cost = middle
        }
    }
}

extension Model {
    var electionsLayout: ElectionsLayout { ElectionsLayout(body: bodyRect, lanes: elections.lanes.count, focused: panel, enlarged: isEnlarged ? panel : nil) }

    // MARK: Time and columns

    private var laneNameWidth: Int { min(10, max(3, elections.lanes.map(\.name.cellWidth).max() ?? 3)) }

    /// Where the lanes are drawn.
    var timelinePlot: Rect {
        let inside = electionsLayout.timeline.inset()
        return Rect(column: inside.column + laneNameWidth + 2, row: inside.row + 1, columns: inside.columns - laneNameWidth - 3, rows: inside.rows - 1)
    }

    var timelineWidth: Int {
        let width = timelinePlot.columns
        return width > 0 ? width : max(1, bodyRect.columns - laneNameWidth - 5)
    }

    /// The left edge. On a grid of whole columns, so that lanes move by columns and do not flicker.
    var timelineStart: Int64 {
        let step = elections.perColumn
        let right = elections.right ?? elections.clock
        let end = (right + step) / step * step
        return end - Int64(timelineWidth) * step
    }

    // MARK: The view

    func drawElections(_ canvas: inout Canvas, _ body: Rect) {
        let layout = electionsLayout
        if let compared = elections.election(elections.compared), let shown = elections.shown, compared.number != shown.number {
            drawComparison(&canvas, layout.timeline, shown, compared)
        } else {
            drawElectionTimeline(&canvas, layout.timeline)
        }
        drawSteps(&canvas, layout.steps)
        drawCost(&canvas, layout.cost)
        drawElectionList(&canvas, layout.list)
    }

    private func frame(_ panel: Panel) -> Canvas.Border { self.panel == panel ? .heavy : .light }

    // MARK: Timeline

    private func drawElectionTimeline(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let inside = rect.inset()
        let plot = timelinePlot
        let start = timelineStart, step = elections.perColumn
        let end = start + Int64(plot.columns) * step
        var facts = [Span("\(Model.perColumnText(step))/col", .dim)]
        if rect.columns >= 100 { facts.append(Span(" · \(Model.axisText(start, step * Int64(plot.columns), zone: timeZoneOffsetSeconds)) → \(Model.axisText(end, step * Int64(plot.columns), zone: timeZoneOffsetSeconds))", .dim)) }
        if let shown = elections.shown, shown.electedAt != nil { facts.append(Span(" · election \(shown.number) of \(elections.elections.last?.number ?? shown.number)", .text)) }
        facts.append(elections.right == nil ? Span(" · live", .ok) : Span(" · held", .warn))
        var footer: [Span] = []
        if elections.right != nil { footer = [Span(replay == nil ? "space" : "Esc", .key, .bold), Span(" follows now", .dim)] }
        canvas.box(rect, frame(.timeline), title: [Span("Timeline", .title, .bold)], right: facts, footer: footer)
        guard inside.rows > 2, plot.columns > 10 else { return }
        if elections.lanes.isEmpty {
            drawPlaceholder(&canvas, inside, connectionText)
            return
        }
        let cursor = cursorPlace(plot, start, step)
        drawTimelineAxis(&canvas, Rect(column: plot.column, row: inside.row, columns: plot.columns, rows: 1), start, step, besides: cursor?.label ?? 0..<0)
        var row = inside.row + 1
        for lane in elections.lanes {
            guard row < inside.endRow else { break }
            let isLeader = lane.state(at: min(end, elections.clock)) == .leader
            canvas.text(Format.fitted(lane.name, laneNameWidth), inside.column + 1, row, .ink(.text, isLeader ? .bold : []))
            canvas.lane(lane, plot.column, row, width: plot.columns, from: start, microsecondsPerColumn: step, until: elections.clock)
            row += 1
        }
        drawMarks(&canvas, plot, start, step)
        if row < inside.endRow { drawHeartbeats(&canvas, inside.column + 1, plot, row, start, step); row += 1 }
        if row < inside.endRow { drawClients(&canvas, inside.column + 1, plot, row, start, step); row += 1 }
        if row < inside.endRow { drawTerms(&canvas, inside.column + 1, plot, row, start, step); row += 1 }
        if let cursor {
            canvas.background(Rect(column: cursor.column, row: inside.row, columns: 1, rows: row - inside.row), .select)
            canvas.text(cursor.text, cursor.label.lowerBound, inside.row, .ink(.accent, .bold))
        }
        let left = inside.endRow - row
        if left >= 3 { row += 1 }
        if left >= 2 {
            drawTimelineLegend(&canvas, inside, row)
            row += 1
        }
        if row < inside.endRow { canvas.spans(timelineRemark(inside.columns), inside.column + 1, row, width: inside.columns - 2) }
    }

    /// What stands below the lanes: why this node began, how exact the times are, or what to do.
    private func timelineRemark(_ width: Int) -> [Span] {
        guard let election = elections.shown, !elections.elections.isEmpty || elections.pending != nil else { return invitation }
        if election.electedAt == nil {
            return [Span("no leader for \(Format.span(milliseconds: (elections.clock - election.lostAt) / 1_000)): ", .bad, .bold), Span(election.causeText, .text)]
        }
        if elections.elections.allSatisfy({ $0.cause == .firstLeader }), elections.selection == nil { return invitation }
        if let tolerance = election.toleranceMilliseconds {
            return [Span("± \(tolerance) ms: ", .warn), Span("this cluster is asked from outside; votes, timers and phases are told by quarterdeck's own nodes only", .dim)]
        }
        if election.isOutline { return [Span("only the outcome of election \(election.number) was heard, not its steps", .dim)] }
        if let remark = election.remark { return [Span(remark, .dim)] }
        return [Span(election.causeText, .dim)]
    }

    private var invitation: [Span] {
        if cluster.kind == .attached { return [Span("nothing happened yet: ", .dim), Span("L", .key, .bold), Span(" hands leadership to another node and shows what that costs", .dim)] }
        if mode == .readOnly { return [Span("nothing happened yet", .dim)] }
        return [Span("K", .key, .bold), Span(" kills the leader: watch what happens", .text), Span("  ·  ", .faint), Span("L", .key, .bold), Span(" moves leadership without a kill", .dim)]
    }

    static func perColumnText(_ microseconds: Int64) -> String {
        microseconds < 1_000 ? "\(microseconds)us" : microseconds < 1_000_000 ? "\(microseconds / 1_000)ms" : microseconds % 1_000_000 == 0 ? "\(microseconds / 1_000_000)s" : "\(microseconds / 1_000_000).\(microseconds / 100_000 % 10)s"
    }

    /// A time with as many digits as the window needs: `18:41`, `41:25`, `41:25.5`, `25.512`.
    static func axisText(_ at: Int64, _ window: Int64, zone: Int) -> String {
        let moment = Moment(microseconds: at)
        let stamp = Format.stamp(moment, zone: zone)
        if window >= 1_800_000_000 { return String(Format.clock(moment, zone: zone).prefix(5)) }
        if window >= 20_000_000 { return String(stamp.prefix(5)) }
        if window >= 2_000_000 { return String(stamp.prefix(7)) }
        return stamp
    }

    private func drawTimelineAxis(_ canvas: inout Canvas, _ rect: Rect, _ start: Int64, _ step: Int64, besides taken: Range<Int>) {
        let window = step * Int64(rect.columns)
        let label = Model.axisText(start, window, zone: timeZoneOffsetSeconds).cellWidth
        let nice: [Int64] = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 15_000_000, 30_000_000, 60_000_000, 120_000_000, 300_000_000, 600_000_000, 1_800_000_000, 3_600_000_000]
        let distance = nice.first { $0 / step >= Int64(label + 6) } ?? nice.last!
        var at = (start / distance + 1) * distance
        while at < start + window {
            let column = rect.column + Int((at - start) / step)
            if column + label <= rect.endColumn, !(column - 1..<column + label + 1).overlaps(taken) { canvas.text(Model.axisText(at, window, zone: timeZoneOffsetSeconds), column, rect.row, .ink(.faint)) }
            at += distance
        }
    }

    /// Votes where they were cast, faults where they began and ended.
    private func drawMarks(_ canvas: inout Canvas, _ plot: Rect, _ start: Int64, _ step: Int64) {
        let end = start + Int64(plot.columns) * step
        func place(_ node: UInt64, _ at: Int64) -> Position? {
            guard at >= start, at < end, let lane = elections.lanes.firstIndex(where: { $0.member == node }) else { return nil }
            return Position(column: plot.column + Int((at - start) / step), row: plot.row + lane)
        }
        for mark in elections.marks where mark.at >= start && mark.at < end {
            // What a node's own lane shows needs no mark.
            switch mark.fault {
            case .kill, .stop, .tornTail, .pause, .isolate: continue
            case .cut, .partition, .wire, .disk, .clock: break
            }
            for node in mark.fault.nodes {
                if let position = place(node, mark.at) { canvas.glyph(mark.isOn ? "▲" : "▽", position.column, position.row, .ink(mark.isOn ? .warn : .ok, .bold)) }
            }
        }
        for vote in elections.votes {
            guard let position = place(vote.voter, vote.at), position.row < plot.endRow else { continue }
            // A crown stays a crown.
            let there = canvas.grid[position.column, position.row].scalar
            if there == 0x265b || there == 0x2715 || vote.isPreVote && there == 0x25c2 { continue }
            canvas.glyph(vote.isPreVote ? "◃" : "◂", position.column, position.row, .ink(vote.isPreVote ? .candidate : .ok, .bold))
        }
    }

    private func drawHeartbeats(_ canvas: inout Canvas, _ name: Int, _ plot: Rect, _ row: Int, _ start: Int64, _ step: Int64) {
        canvas.text("hb", name, row, .ink(.dim))
        let last = elections.clock
        for column in 0..<plot.columns {
            let from = start + Int64(column) * step
            if from > last { break }
            if elections.hasHeartbeat(from: from, to: min(from + step, last)) { canvas.glyph("·", plot.column + column, row, .ink(.dim)) }
        }
    }

    private func drawClients(_ canvas: inout Canvas, _ name: Int, _ plot: Rect, _ row: Int, _ start: Int64, _ step: Int64) {
        canvas.text("cl", name, row, .ink(.dim))
        let end = start + Int64(plot.columns) * step
        let range = elections.writes(from: start, to: end)
        if range.isEmpty, !isCanaryOn {
            let text = mode == .readOnly ? [Span("no canary wrote then", .faint)] : [Span("no canary wrote then · ", .faint), Span("C", .key, .bold), Span(" switches it on or off", .faint)]
            canvas.spans(text, plot.column, row, width: plot.columns)
            return
        }
        // The worst of each column.
        var worst = [Int](repeating: 0, count: plot.columns)
        for write in elections.writes[range] {
            let column = Int((write.dueMicroseconds - start) / step)
            let rank = write.outcome == .failed ? 3 : write.tookMicroseconds > ElectionsState.waitMicroseconds ? 2 : 1
            worst[column] = max(worst[column], rank)
        }
        // Writes without an answer so far are told only when they have one.
        if isCanaryOn, let last = elections.writes.last?.dueMicroseconds, elections.clock - last > 150_000 {
            for column in 0..<plot.columns {
                let from = start + Int64(column) * step
                if from > last, from <= elections.clock, worst[column] == 0 { worst[column] = 2 }
            }
        }
        for (column, rank) in worst.enumerated() where rank > 0 {
            let (scalar, slot): (Unicode.Scalar, Slot) = rank == 1 ? ("●", .ok) : rank == 2 ? ("○", .warn) : ("✕", .bad)
            canvas.glyph(scalar, plot.column + column, row, .ink(slot))
        }
    }

    private func drawTerms(_ canvas: inout Canvas, _ name: Int, _ plot: Rect, _ row: Int, _ start: Int64, _ step: Int64) {
        canvas.text("t", name, row, .ink(.dim))
        var column = 0
        var shown: UInt64?
        while column < plot.columns {
            let from = start + Int64(column) * step
            if from > elections.clock { break }
            guard elections.hasHeartbeat(from: from, to: min(from + step, elections.clock)) || elections.term(at: from + step) != shown, let term = elections.term(at: from + step) else {
                column += 1
                continue
            }
            let text = String(term)
            // Room to the next change, so that a number is never cut by the next one.
            if column + text.cellWidth <= plot.columns {
                canvas.text(text, plot.column + column, row, .ink(term != shown && shown != nil ? .leader : .faint, term != shown && shown != nil ? .bold : []))
            }
            var next = column + text.cellWidth + 8
            for ahead in column + 1..<max(column + 2, min(next, plot.columns)) where elections.term(at: start + Int64(ahead + 1) * step) != term { next = ahead; break }
            shown = term
            column = max(column + 1, next)
        }
    }

    /// Where the chosen step is, and its time, to the left of it where there is no room to its right.
    private func cursorPlace(_ plot: Rect, _ start: Int64, _ step: Int64) -> (column: Int, label: Range<Int>, text: String)? {
        guard let index = elections.step, let election = elections.shown else { return nil }
        let steps = elections.steps(of: election)
        guard steps.indices.contains(index) else { return nil }
        let at = steps[index].at
        guard at >= start, at < start + Int64(plot.columns) * step else { return nil }
        let column = plot.column + Int((at - start) / step)
        let time = Format.relative(at - election.lostAt)
        let width = time.cellWidth + 2
        return column + width <= plot.endColumn ? (column, column..<column + width, "▾ " + time) : (column, column - width + 1..<column + 1, time + " ▾")
    }

    private func drawTimelineLegend(_ canvas: inout Canvas, _ inside: Rect, _ row: Int) {
        let parts: [(String, Slot, String)] = [
            ("━", .leader, "leader"), ("─", .follower, "follower"), ("◌", .candidate, "pre-vote"), ("╌", .candidate, "candidate"), ("♛", .leader, "elected"), ("◂", .ok, "vote"), ("✕", .down, "kill"),
            ("╎", .down, "down"), ("●", .ok, "write ok"), ("○", .warn, "write waits"), ("▲", .warn, "fault on"), ("▽", .ok, "off"), ("‖", .warn, "paused"), ("≠", .warn, "cut off"), ("·", .dim, "heartbeat"),
        ]
        var x = inside.column + 1
        for (glyph, slot, text) in parts {
            let width = 3 + text.cellWidth + 1
            guard x + width <= inside.endColumn else { break }
            x += canvas.spans([Span(glyph, slot), Span(" \(text)  ", .faint)], x, row)
        }
    }

    // MARK: Two elections laid over each other

    /// Both from the moment the leader was lost, on one scale: who leads, what the phases were, what clients saw.
    private func drawComparison(_ canvas: inout Canvas, _ rect: Rect, _ a: Election, _ b: Election) {
        guard !rect.isEmpty else { return }
        let inside = canvas.box(rect, frame(.timeline), title: [Span("Elections \(a.number) and \(b.number)", .title, .bold), Span(" from the loss of the leader", .dim)], right: [Span("c", .key, .bold), Span(" back to the timeline", .dim)])
        let labels = 4
        let plot = Rect(column: inside.column + labels + 1, row: inside.row, columns: inside.columns - labels - 2, rows: inside.rows)
        guard plot.columns > 20, plot.rows > 5 else { return }
        let longest = max(a.end - a.lostAt, b.end - b.lostAt, 20_000)
        let step = ElectionsState.zooms.first { $0 * Int64(plot.columns) * 5 >= longest * 6 } ?? ElectionsState.zooms.last!
        let lead = Int64(plot.columns / 12)
        let nice: [Int64] = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 60_000_000, 600_000_000]
        let distance: Int64 = nice.first { $0 / step >= 14 } ?? 3_600_000_000
        var at: Int64 = 0
        while at < (Int64(plot.columns) - lead) * step {
            let column = plot.column + Int(lead + at / step)
            let label = at == 0 ? "+0" : Format.relative(at)
            if column + label.cellWidth <= plot.endColumn { canvas.text(label, column, plot.row, .ink(.faint)) }
            at += distance
        }
        var row = plot.row + 1
        let air = plot.rows >= 9 ? 1 : 0
        for election in [a, b] {
            guard row + 1 < plot.endRow else { break }
            canvas.text("#\(election.number)", inside.column + 1, row, .ink(election.number == a.number ? .accent : .text, .bold))
            canvas.text("cl", inside.column + 1, row + 1, .ink(.dim))
            for column in 0..<plot.columns {
                let from = election.lostAt + (Int64(column) - lead) * step
                let (scalar, slot) = Model.phaseGlyph(election, from, from + step)
                canvas.glyph(scalar, plot.column + column, row, .ink(slot))
                let writes = elections.writes[elections.writes(from: from, to: from + step)]
                if let worst = writes.max(by: { Model.rank($0) < Model.rank($1) }) {
                    let (scalar, slot): (Unicode.Scalar, Slot) = Model.rank(worst) == 1 ? ("●", .ok) : Model.rank(worst) == 2 ? ("○", .warn) : ("✕", .bad)
                    canvas.glyph(scalar, plot.column + column, row + 1, .ink(slot))
                }
            }
            let leader = "\(election.previous.map { names(of: $0) } ?? "—") → \(election.leader.map { names(of: $0) } ?? "—") · \(election.causeText)"
            if air > 0, row + 2 < plot.endRow { canvas.text(leader, plot.column, row + 2, width: plot.columns, .ink(.dim)) }
            row += 2 + air + (plot.rows >= 11 ? 1 : 0)
        }
        if row < plot.endRow {
            canvas.spans([Span("━", .leader), Span(" a leader  ", .faint), Span("╎", .down), Span(" not noticed  ", .faint), Span("◌", .candidate), Span(" pre-vote  ", .faint), Span("╌", .candidate), Span(" vote  ", .faint), Span("♛", .leader), Span(" elected  ", .faint), Span("✓", .ok), Span(" first commit", .faint)],
                         inside.column + 1, row, width: inside.columns - 2)
        }
    }

    private func names(of id: UInt64) -> String { cluster.members.first { $0.id == id }?.name ?? Format.hex(id) }

    private static func rank(_ write: CanaryWrite) -> Int { write.outcome == .failed ? 3 : write.tookMicroseconds > ElectionsState.waitMicroseconds ? 2 : 1 }

    private static func phaseGlyph(_ election: Election, _ from: Int64, _ to: Int64) -> (Unicode.Scalar, Slot) {
        func holds(_ at: Int64?) -> Bool { at.map { $0 >= from && $0 < to } ?? false }
        if holds(election.electedAt) { return ("♛", .leader) }
        if holds(election.committedAt) { return ("✓", .ok) }
        if let elected = election.electedAt, from >= elected { return ("━", .leader) }
        if let voting = election.votingAt, to > voting { return ("╌", .candidate) }
        if let detected = election.detectedAt, to > detected { return ("◌", .candidate) }
        if to > election.lostAt { return ("╎", .down) }
        return ("━", .leader)
    }

    // MARK: Steps

    /// First visible row of the steps, so that the chosen one is in sight; while an election is under way, the newest.
    func stepScroll(_ rows: Int) -> Int {
        guard let election = elections.shown, rows > 0 else { return 0 }
        let count = elections.steps(of: election).count
        if let step = elections.step { return max(0, min(step - rows / 2, count - rows)) }
        return election.electedAt == nil ? max(0, count - rows) : 0
    }

    private func drawSteps(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let election = elections.shown
        var title = [Span("What happened", .title, .bold)]
        if let election, election.electedAt != nil { title.append(Span(" · " + (election.fromTerm.map { "term \($0) → \(election.term)" } ?? "term \(election.term)"), .text)) } else if election != nil { title.append(Span(" · so far", .warn)) }
        let inside = canvas.box(rect, frame(.steps), title: title, right: election == nil ? [] : [Span("↑↓", .key, .bold), Span(" step", .dim)])
        guard !inside.isEmpty else { return }
        guard let election else {
            drawCentred(&canvas, inside, [[Span("each election is told here,", .dim)], [Span("step by step", .dim)]])
            return
        }
        let steps = elections.steps(of: election)
        if steps.isEmpty {
            drawPlaceholder(&canvas, inside, election.isOutline ? "its steps were not told" : "nothing was told yet", .faint)
            return
        }
        let scroll = stepScroll(inside.rows)
        let times = steps.map { Format.relative($0.at - election.lostAt) }
        let timeWidth = min(12, max(7, times.map(\.cellWidth).max() ?? 7))
        for line in 0..<inside.rows {
            let index = scroll + line
            guard index < steps.count else { break }
            let step = steps[index], row = inside.row + line
            canvas.textRight(times[index], endingAt: inside.column + 2 + timeWidth, row, .ink(.dim))
            canvas.glyph(step.glyph, inside.column + 4 + timeWidth, row, .ink(step.slot, .bold))
            canvas.text(step.text, inside.column + 6 + timeWidth, row, width: inside.columns - 7 - timeWidth, .ink(step.slot == .dim ? .dim : .text))
            if index == elections.step {
                canvas.background(Rect(column: inside.column, row: row, columns: inside.columns, rows: 1), .select)
                canvas.text("▸", inside.column, row, .ink(.accent).on(.select))
            }
        }
        canvas.scrollMark(rect, offset: scroll, visible: inside.rows, total: steps.count, focused: panel == .steps)
    }

    private func drawCentred(_ canvas: inout Canvas, _ inside: Rect, _ lines: [[Span]]) {
        let top = inside.row + max(0, (inside.rows - lines.count) / 2)
        for (index, line) in lines.prefix(inside.rows).enumerated() {
            let width = min(line.cellWidth, inside.columns - 2)
            canvas.spans(line, inside.column + 1 + (inside.columns - 2 - width) / 2, top + index, width: inside.columns - 2)
        }
    }

    // MARK: Cost

    private func drawCost(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let election = elections.shown
        let other = elections.election(elections.compared).flatMap { $0.number == election?.number ? nil : $0 }
        let isMedian = other == nil
        let count = elections.elections.count { $0.cause != .firstLeader }
        var facts: [Span] = []
        if let other { facts = [Span("beside ", .dim), Span("election \(other.number)", .text)] } else if count > 1 { facts = [Span(rect.columns >= 50 ? "compare with: median of \(count)" : "median of \(count)", .dim)] }
        let inside = canvas.box(rect, frame(.cost), title: [Span(rect.columns >= 44 ? "Cost to clients" : "Cost", .title, .bold)], right: facts)
        guard !inside.isEmpty else { return }
        guard let election else {
            drawCentred(&canvas, inside, [[Span("phases, gap of the clients,", .dim)], [Span("failed and lost writes", .dim)]])
            return
        }
        func reference(_ value: (Election) -> Int64?) -> Int64? { other.flatMap(value) ?? (other == nil && count > 1 ? elections.median(value) : nil) }
        let references = Election.Phase.allCases.map { phase in reference { $0.duration(phase) } }
        let durations = Election.Phase.allCases.map { election.duration($0) }
        let hasReference = references.contains { $0 != nil }
        let labelWidth = 13, valueWidth = 9
        let otherWidth = hasReference && inside.columns >= 44 ? 10 : 0
        let barWidth = inside.columns - labelWidth - valueWidth - otherWidth - 3
        let longest = max(durations.compactMap { $0 }.max() ?? 0, isMedian ? 0 : references.compactMap { $0 }.max() ?? 0)
        var row = inside.row
        if election.isOutline {
            canvas.text(inside.columns < 50 ? "phases are not told here" : "phases are told by quarterdeck's own nodes only", inside.column + 1, row, width: inside.columns - 2, .ink(.faint))
            row += 1
        } else {
            // Two bars a phase where there is room for both.
            let pairs = !isMedian && inside.rows >= 12
            for (index, phase) in Election.Phase.allCases.enumerated() {
                guard row < inside.endRow else { break }
                canvas.text(phase.title, inside.column + 1, row, .ink(.text))
                if let value = durations[index] {
                    if barWidth > 3 { canvas.bar(Int(clamping: value), of: Int(clamping: max(1, longest)), inside.column + 1 + labelWidth, row, width: barWidth, .ink(Model.slot(of: phase))) }
                    canvas.textRight(Format.exact(value), endingAt: inside.column + 2 + labelWidth + max(0, barWidth) + valueWidth, row, .ink(.text))
                } else {
                    canvas.textRight("—", endingAt: inside.column + 2 + labelWidth + max(0, barWidth) + valueWidth, row, .ink(.faint))
                }
                if otherWidth > 0, let value = references[index] {
                    canvas.textRight(Format.exact(value), endingAt: inside.endColumn - 1, row, .ink(.dim))
                    if pairs, barWidth > 3 {
                        row += 1
                        canvas.text("  #\(other?.number ?? 0)", inside.column + 1, row, .ink(.faint))
                        canvas.bar(Int(clamping: value), of: Int(clamping: max(1, longest)), inside.column + 1 + labelWidth, row, width: barWidth, .ink(.faint))
                        if let mine = durations[index] {
                            let difference = mine - value
                            canvas.textRight(Format.relative(difference), endingAt: inside.endColumn - 1, row, .ink(difference > 1_000 ? .warn : difference < -1_000 ? .ok : .dim))
                        }
                    }
                }
                row += 1
            }
        }
        let lines = costLines(election, other, count, isNarrow: inside.columns < 50)
        if inside.endRow - row > lines.count { row += 1 }
        for line in lines {
            guard row < inside.endRow else { break }
            canvas.text(line.label, inside.column + 1, row, .ink(.text))
            canvas.spans(line.spans, inside.column + 1 + labelWidth, row, width: inside.columns - labelWidth - 2)
            row += 1
        }
    }

    private static func slot(of phase: Election.Phase) -> Slot {
        switch phase {
        case .detect: .down
        case .preVote, .vote: .candidate
        case .firstCommit: .ok
        }
    }

    /// From the most important to the least: small panels show the first ones.
    private func costLines(_ election: Election, _ other: Election?, _ count: Int, isNarrow: Bool) -> [(label: String, spans: [Span])] {
        var lines: [(String, [Span])] = []
        let around = election.toleranceMilliseconds.map { " ± \($0) ms" } ?? ""
        if let value = election.noLeader {
            var spans = [Span(Format.exact(value) + around, .text, .bold)]
            if let other, let reference = other.noLeader {
                spans.append(Span("  #\(other.number) \(Format.exact(reference))", .dim))
            } else if isNarrow {
                if count > 1, let median = elections.median(\.noLeader) { spans.append(Span("  ~\(Format.exact(median))", .dim)) }
            } else if count > 1, let median = elections.median(\.noLeader) {
                let all = elections.elections.filter { $0.cause != .firstLeader }.compactMap(\.noLeader)
                spans.append(Span("  median \(Format.exact(median)) · best \(Format.exact(all.min() ?? 0)) · max \(Format.exact(all.max() ?? 0))", .dim))
            }
            lines.append(("no leader", spans))
        } else {
            lines.append(("no leader", [Span("for \(Format.span(milliseconds: (elections.clock - election.lostAt) / 1_000)) so far", .bad, .bold)]))
        }
        if let clients = election.clients {
            var spans = isNarrow ? [Span(Format.exact(clients.gap), .text, .bold), Span("  ", .dim), Span("\(Format.count(clients.failed)) failed", clients.failed > 0 ? .bad : .dim)]
                : [Span(Format.exact(clients.gap), .text, .bold), Span("  failed ", .dim), Span(Format.count(clients.failed), clients.failed > 0 ? .bad : .text), Span(" · retried ok ", .dim), Span(Format.count(clients.retried), .text)]
            if let other, let gap = other.clients?.gap { spans.append(Span("  #\(other.number) \(Format.exact(gap))", .dim)) }
            lines.append(("client gap", spans))
        } else {
            lines.append(("client gap", isCanaryOn ? [Span("not known yet", .dim)] : [Span(isNarrow ? "not seen" : "not measured", .dim)] + (mode == .readOnly ? [] : [Span(" · ", .faint), Span("C", .key, .bold), Span(" canary", .faint)])))
        }
        if let check = election.check {
            lines.append(("lost writes", check.lost == 0 ? [Span("0", .ok, .bold), Span(" of \(Format.count(check.checked))" + (isNarrow ? " checked" : " acknowledged and checked"), .dim)] : [Span("\(check.lost) inconsistencies", .bad, .bold), Span(" in \(Format.count(check.checked)) checked writes", .dim)]))
        } else if election.electedAt == nil || workload.isOn && elections.clock - election.end < 5_000_000 {
            lines.append(("lost writes", [Span("not checked yet", .dim)]))
        } else {
            lines.append(("lost writes", [Span("not checked", .dim), Span(isNarrow ? "" : " · neither workload nor canary ran", .faint)]))
        }
        if election.votes > 0 {
            var spans = [Span("\(election.votes) of \(election.voters)", .text)]
            spans.append(election.splitVotes > 0 ? Span("  split ×\(election.splitVotes)", .warn) : Span("  no split vote", .dim))
            lines.append(("votes", spans))
        }
        if let committed = election.committedAt { lines.append(("writes again", [Span("after \(Format.exact(committed - election.lostAt))", .text)])) }
        lines.append(("cause", [Span(election.causeText, .text)]))
        return lines.map { (label: $0.0, spans: $0.1) }
    }

    // MARK: The list

    func listScroll(_ rows: Int) -> Int {
        let list = elections.listed
        guard rows > 0, let shown = elections.shown, let index = list.firstIndex(where: { $0.number == shown.number }) else { return 0 }
        return max(0, min(index - rows / 2, list.count - rows))
    }

    private func drawElectionList(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let list = elections.listed
        var facts: [Span] = []
        if let path = recordingPath { facts.append(Span("● recording \(Format.fittedTail(path, 30)) ", .bad)) }
        facts += [Span("( )", .key, .bold), Span(" choose · ", .dim), Span("c", .key, .bold), Span(" compare two · ", .dim), Span("o", .key, .bold), Span(" export", .dim)]
        let inside = canvas.box(rect, frame(.elections), title: [Span("Elections", .title, .bold)], right: facts)
        guard inside.rows > 1 else { return }
        if list.isEmpty {
            drawCentred(&canvas, inside, [invitation])
            return
        }
        let isWide = inside.columns >= 160
        var columns = [
            TableColumn(0, "#", 4, right: true, priority: 0), TableColumn(1, "WHEN", 12, priority: 2), TableColumn(2, "TERM", 9, priority: 3), TableColumn(3, "LEADER", 9, priority: 1),
            TableColumn(4, "CAUSE", isWide ? 30 : 20, priority: 4, flexible: true), TableColumn(5, "NO LEADER", 10, right: true, priority: 1), TableColumn(6, "CLIENT GAP", 10, right: true, priority: 5),
            TableColumn(7, "FAILED", 6, right: true, priority: 6), TableColumn(8, "LOST", 4, right: true, priority: 7),
        ]
        if isWide {
            let phases = Election.Phase.allCases.map { TableColumn(10 + $0.rawValue, ["DETECT", "PRE-VOTE", "VOTE", "COMMIT"][$0.rawValue], 9, right: true, priority: 8) }
            columns.insert(contentsOf: phases, at: 5)
            columns.append(TableColumn(15, "RETRIED", 7, right: true, priority: 9))
        }
        columns.append(TableColumn(9, "DETECT, VOTE", isWide ? 24 : 14, priority: 10))
        columns = TableColumn.fit(columns, room: inside.columns - 2)
        var x = inside.column + 1
        for column in columns {
            canvas.text(column.isRight ? column.title.leftPadded(column.width) : column.title, x, inside.row, .ink(.faint))
            x += column.width + 1
        }
        let rows = inside.rows - 1
        let scroll = listScroll(rows)
        let longest = list.filter { $0.cause != .firstLeader }.compactMap(\.noLeader).max() ?? 1
        for line in 0..<rows {
            let index = scroll + line
            guard index < list.count else { break }
            drawElectionRow(&canvas, list[index], columns, inside, inside.row + 1 + line, longest)
        }
        canvas.scrollMark(rect, offset: scroll, visible: rows, total: list.count, focused: panel == .elections)
    }

    /// The time without a leader as one bar, its phases by colour.
    private func drawPhases(_ canvas: inout Canvas, _ election: Election, _ column: Int, _ row: Int, width: Int, longest: Int64) {
        guard let value = election.noLeader, value > 0 else { return }
        canvas.bar(Int(clamping: value), of: Int(clamping: max(1, longest)), column, row, width: width, .ink(election.isOutline ? .dim : Model.slot(of: .vote)))
        // What was spent on noticing, over it; an eighth of a cell is the least that is seen of either.
        guard !election.isOutline, let detect = election.duration(.detect), detect > 0 else { return }
        let cells = Int(detect) * width / Int(max(1, longest))
        for index in 0..<min(cells, width) { canvas.glyph("█", column + index, row, .ink(Model.slot(of: .detect))) }
    }

    private func drawElectionRow(_ canvas: inout Canvas, _ election: Election, _ columns: [TableColumn], _ inside: Rect, _ row: Int, _ longest: Int64) {
        var x = inside.column + 1
        let mark: (String, Slot)? = elections.bookmark == election.number ? ("★", .warn) : elections.compared == election.number ? ("◂", .accent) : nil
        func exact(_ value: Int64?) -> (String, Slot) { value.map { (Format.exact($0), .text) } ?? ("—", .faint) }
        for column in columns {
            var text = "", slot = Slot.text
            switch column.id {
            case 0: (text, slot) = (String(election.number), .dim)
            case 1: text = Format.clock(Moment(microseconds: election.lostAt), zone: timeZoneOffsetSeconds) + "." + Format.pad(Int(election.lostAt / 1_000 % 1_000), 3)
            case 2: text = (election.fromTerm.map { "\($0) → " } ?? "") + (election.electedAt == nil ? "?" : String(election.term))
            case 3: (text, slot) = ("\(election.previous.map { names(of: $0) } ?? "—") → \(election.leader.map { names(of: $0) } ?? "?")", election.leader == nil ? .bad : .text)
            case 4: text = election.causeText + (election.splitVotes > 0 ? ", split vote ×\(election.splitVotes)" : "")
            case 5:
                (text, slot) = exact(election.noLeader)
                if election.electedAt == nil { (text, slot) = (Format.span(milliseconds: (elections.clock - election.lostAt) / 1_000), .bad) } else if election.toleranceMilliseconds != nil { text = "≈" + text }
            case 6: (text, slot) = exact(election.clients?.gap)
            case 7: (text, slot) = election.clients.map { (Format.count($0.failed), $0.failed > 0 ? .bad : .dim) } ?? ("—", .faint)
            case 8: (text, slot) = election.check.map { (String($0.lost), $0.lost > 0 ? .bad : .ok) } ?? ("—", .faint)
            case 15: (text, slot) = election.clients.map { (Format.count($0.retried), .dim) } ?? ("—", .faint)
            case 9:
                if election.cause != .firstLeader { drawPhases(&canvas, election, x, row, width: column.width, longest: longest) }
            default: (text, slot) = exact(Election.Phase(rawValue: column.id - 10).flatMap { election.duration($0) })
            }
            let shown = Format.fitted(text, column.width)
            canvas.text(column.isRight ? shown.leftPadded(column.width) : shown, x, row, .ink(slot))
            if column.id == 0, let mark { canvas.text(mark.0, x, row, .ink(mark.1)) }
            x += column.width + 1
        }
        if election.number == elections.shown?.number {
            canvas.background(Rect(column: inside.column, row: row, columns: inside.columns, rows: 1), .select)
            canvas.text("▸", inside.column, row, .ink(panel == .elections ? .accent : .dim).on(.select))
        }
    }
}
