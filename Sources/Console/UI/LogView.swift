/// The parts of the Log view: drawing and mouse use the same.
struct LogPlaces {
    /// What is filtered.
    var chips: Rect
    var lines: Rect
    /// The whole text of the selected line, while it is held.
    var detail: Rect
    var foot: Rect

    init(rect: Rect, log: LogState) {
        var rest = rect.inset()
        chips = rest.takeTop(1)
        foot = rest.takeBottom(1)
        detail = log.isHeld && rest.rows >= 10 ? rest.takeBottom(4) : .empty
        lines = rest
    }
}

extension Model {
    func drawLog(_ canvas: inout Canvas, _ body: Rect) {
        let places = LogPlaces(rect: body, log: log)
        var facts: [Span] = []
        if log.shown < log.count { facts = [Span("\(Format.count(log.shown)) of ", .dim)] }
        facts.append(Span(Format.plural(Int64(log.count), "line"), .dim))
        if log.appended > log.count { facts.append(Span(" · the newest of \(Format.count(log.appended))", .faint)) }
        var footer: [Span] = []
        if log.isHeld {
            footer = [Span("‖ held", .warn, .bold), Span(log.newer > 0 ? " · ▼ \(Format.count(log.newer)) newer · " : " · ", .dim), Span("space", .key, .bold), Span(" follows", .dim)]
        }
        canvas.box(body, .heavy, title: [Span("Log", .title, .bold)], right: facts, footer: footer)
        drawLogChips(&canvas, places.chips)
        drawLogLines(&canvas, places.lines, select: true)
        drawLogDetail(&canvas, places.detail)
        let foot = places.foot
        canvas.text("filter: ", foot.column + 1, foot.row, .ink(.faint))
        if log.isFiltering, overlay == nil {
            canvas.field(log.filter, foot.column + 9, foot.row, width: foot.columns - 11)
        } else if !log.filter.isEmpty {
            canvas.spans([Span(log.filter.text, .match), Span(log.showsAll ? "  marked in all lines · " : "  only lines with it · ", .faint), Span("m", .key, .bold), Span(" changes that · ", .faint), Span("n N", .key, .bold), Span(" older, newer", .faint)], foot.column + 9, foot.row, width: foot.columns - 11)
        } else {
            canvas.spans([Span("(none)  ", .faint), Span("/", .key, .bold), Span(" part of a line", .faint)], foot.column + 9, foot.row, width: foot.columns - 11)
        }
    }

    // MARK: Filters

    /// `all n1 n2 n3 console`, each with its place.
    func logChips(_ rect: Rect) -> [(node: UInt64?, text: String, rect: Rect)] {
        var x = rect.column + 1
        let choices: [UInt64?] = [nil] + logNodes.map { $0 }
        return choices.map { node in
            let text = node.map(logName) ?? "all"
            let width = text.cellWidth + 2
            defer { x += width }
            return (node, text, Rect(column: x, row: rect.row, columns: width, rows: 1))
        }
    }

    private func drawLogChips(_ canvas: inout Canvas, _ rect: Rect) {
        let level = [Span("level ≥ ", .faint), Span(log.level.label, Model.slot(of: log.level), .bold), Span("  "), Span("v", .key, .bold)]
        canvas.within(Rect(column: rect.column, row: rect.row, columns: max(0, rect.columns - level.cellWidth - 3), rows: 1)) { canvas in
            for chip in logChips(rect) {
                if chip.node == log.node {
                    canvas.text("[\(chip.text)]", chip.rect.column, rect.row, .ink(.accent, .bold))
                } else {
                    canvas.text(chip.text, chip.rect.column + 1, rect.row, .ink(chip.node.map { logSlot($0) } ?? .dim))
                }
            }
            if cluster.kind == .attached, let last = logChips(rect).last {
                canvas.text(rect.columns >= 110 ? "attached: only this console's own journal; the nodes keep their logs where they run" : "attached: only its own journal", last.rect.endColumn + 2, rect.row, width: rect.endColumn - level.cellWidth - 4 - last.rect.endColumn, .ink(.warn))
            }
        }
        canvas.spans(level, rect.endColumn - 1 - level.cellWidth, rect.row)
    }

    static func slot(of level: LogLine.Level) -> Slot {
        switch level {
        case .debug: .faint
        case .info: .dim
        case .warning: .warn
        case .error, .critical: .bad
        }
    }

    /// A colour for each node, the same in every line.
    private func logSlot(_ node: UInt64) -> Slot {
        let slots: [Slot] = [.series1, .follower, .series2, .learner, .leader, .jsonKey, .jsonString]
        guard node != 0, let index = cluster.members.firstIndex(where: { $0.id == node }) else { return .dim }
        return slots[index % slots.count]
    }

    // MARK: Lines

    /// Newest at the bottom. Formats only what is visible.
    func drawLogLines(_ canvas: inout Canvas, _ rect: Rect, select: Bool) {
        guard !rect.isEmpty else { return }
        let numbers = log.visible(rect.rows)
        if numbers.isEmpty {
            let text = if log.count > 0 { "no line passes the filters" } else if cluster.kind == .attached { "nothing in this console's journal yet" } else { "no line yet" }
            return drawPlaceholder(&canvas, rect, text, .faint)
        }
        let nameWidth = min(12, max(2, logNodes.map { logName($0).cellWidth }.max() ?? 2))
        let isWide = rect.columns >= 70
        for (index, number) in numbers.enumerated() {
            let y = rect.row + index
            let line = log[line: number]
            var x = rect.column + 1
            x += canvas.text(isWide ? Format.longStamp(line.at, zone: timeZoneOffsetSeconds) : Format.stamp(line.at, zone: timeZoneOffsetSeconds), x, y, .ink(.faint)) + 1
            canvas.text(logName(line.node), x, y, width: nameWidth, .ink(logSlot(line.node), .bold))
            x += nameWidth + 1
            canvas.text(line.level.label, x, y, .ink(Model.slot(of: line.level), line.level >= .warning ? .bold : []))
            x += 6
            if isWide {
                canvas.text(line.part, x, y, width: 9, .ink(.dim))
                x += 10
            }
            let ink: Slot = line.level >= .error ? .bad : line.level == .debug ? .dim : .text
            canvas.spans(Model.highlighted(Format.oneLine(line.text), log.filter.text, ink), x, y, width: rect.endColumn - 1 - x)
            if select, number == log.selection {
                canvas.background(Rect(column: rect.column, row: y, columns: rect.columns, rows: 1), .select)
                canvas.text("▸", rect.column, y, .ink(.accent).on(.select))
            }
        }
    }

    private func drawLogDetail(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty, let line = log.selected else { return }
        for column in rect.column + 1..<rect.endColumn - 1 { canvas.glyph("─", column, rect.row, .ink(.border)) }
        let lines = Format.wrapped(line.text, rect.columns - 4)
        for (index, text) in lines.prefix(rect.rows - 1).enumerated() {
            canvas.text(index == rect.rows - 2 && lines.count > rect.rows - 1 ? text + " …" : text, rect.column + 2, rect.row + 1 + index, width: rect.columns - 4, .ink(.text))
        }
    }
}
