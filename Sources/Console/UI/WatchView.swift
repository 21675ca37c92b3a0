extension Model {
    func drawWatch(_ canvas: inout Canvas, _ body: Rect) {
        let layout = WatchLayout(body: body, watches: watch.sessions.count, enlarged: isEnlarged ? panel : nil)
        drawWatchList(&canvas, layout.list)
        drawStream(&canvas, layout.stream)
    }

    private func drawWatchList(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let open = watch.sessions.count
        let inside = canvas.box(rect, panel == .watchList ? .heavy : .light, title: [Span("Watches", .title, .bold)], right: [Span(open == 0 ? "none open" : "\(open) open", .dim)])
        guard inside.rows > 0 else { return }
        if open == 0 {
            canvas.spans([Span("a", .key, .bold), Span("  opens a watch on a key or prefix; ", .dim), Span("w", .key, .bold), Span(" in Keys watches what is selected", .dim)],
                         inside.column + 1, inside.row + inside.rows / 2, width: inside.columns - 2)
            return
        }
        let columns = TableColumn.fit([
            TableColumn(0, "#", 2, right: true, priority: 0), TableColumn(1, "KEY OR PREFIX", 16, priority: 1, flexible: true),
            TableColumn(2, "FROM", 9, right: true, priority: 7), TableColumn(3, "AT REV", 10, right: true, priority: 5),
            TableColumn(4, "EVENTS", 9, right: true, priority: 4), TableColumn(5, "EV/S", 6, right: true, priority: 2),
            TableColumn(6, "RATE 30s", 15, priority: 6), TableColumn(7, "STATE", 10, priority: 3),
        ], room: inside.columns - 2)
        var x = inside.column + 1
        for column in columns {
            canvas.text(column.isRight ? column.title.leftPadded(column.width) : column.title, x, inside.row, .ink(.faint))
            x += column.width + 1
        }
        let visible = inside.rows - 1
        let first = max(0, min(watch.selection - visible + 1, open - visible))
        for line in 0..<max(0, visible) {
            let index = first + line
            guard index < open else { break }
            let session = watch.sessions[index]
            let y = inside.row + 1 + line
            x = inside.column + 1
            for column in columns {
                var style = Style.ink(.text)
                let text: String
                switch column.id {
                case 0: text = String(index + 1); style = .ink(.dim)
                case 1: text = session.title
                case 2: text = session.fromRevision.map { Format.count($0) } ?? "now"; style = .ink(.dim)
                case 3: text = session.revision.map { Format.count($0) } ?? "—"; style = .ink(session.revision == nil ? .faint : .text)
                case 4: text = Format.count(session.total)
                case 5: text = Format.short(session.perSecond.last ?? 0)
                case 6:
                    let values = session.perSecond.suffix(30)
                    // Two seconds a cell.
                    var pairs: [Int?] = []
                    var rest = Array(values)
                    while !rest.isEmpty { pairs.insert(rest.suffix(2).max(), at: 0); rest.removeLast(min(2, rest.count)) }
                    canvas.sparkline(pairs, x, y, width: column.width, maximum: max(4, values.max() ?? 0)) { _ in .slot(.series1) }
                    x += column.width + 1
                    continue
                default:
                    switch session.state {
                    case .opening: (text, style) = ("opening…", .ink(.warn))
                    case .live: (text, style) = (session.frozenAt == nil ? "live" : "live, held", .ink(.ok))
                    case .resuming(let since): (text, style) = ("resuming \(Format.age(milliseconds: now - since))", .ink(.warn))
                    case .failed: (text, style) = ("failed", .ink(.bad))
                    }
                }
                let shown = Format.fitted(text, column.width)
                canvas.text(column.isRight ? shown.leftPadded(column.width) : shown, x, y, style)
                x += column.width + 1
            }
            if index == watch.selection {
                canvas.background(Rect(column: inside.column, row: y, columns: inside.columns, rows: 1), .select)
                if panel == .watchList { canvas.text("▸", inside.column, y, .ink(.accent).on(.select)) }
            }
        }
    }

    private func drawStream(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        guard let session = watch.selected else {
            let inside = canvas.box(rect, panel == .stream ? .heavy : .light, title: [Span("Stream", .title, .bold)])
            drawPlaceholder(&canvas, inside, "no watch is open")
            return
        }
        var facts = session.facts(visibleRows: rect.rows - 4)
        facts.append(Span(" · buffer \(Format.count(min(session.appended - session.oldest, WatchSession.bufferLimit)))/\(Format.count(WatchSession.bufferLimit))", .dim))
        var footer: [Span] = []
        if session.frozenAt != nil {
            footer = [Span("‖ held", .warn, .bold), Span(session.newerThanFrozen > 0 ? " · ▲ \(Format.count(session.newerThanFrozen)) newer · " : " · ", .dim), Span("space", .key, .bold), Span(" follows", .dim)]
        }
        let inside = canvas.box(rect, panel == .stream ? .heavy : .light, title: [Span(Format.fittedTail(session.title, max(10, rect.columns / 2)), .title, .bold)], right: facts, footer: footer)
        guard inside.rows > 3 else { return }
        let foot = Rect(column: inside.column, row: inside.endRow - 1, columns: inside.columns, rows: 1)
        var area = inside
        _ = area.takeBottom(1)
        drawStreamHeader(&canvas, area)
        _ = area.takeTop(1)
        drawStreamRows(&canvas, area, session, selection: session.selection)
        canvas.text("filter: ", foot.column + 1, foot.row, .ink(.faint))
        if session.isFiltering, overlay == nil {
            canvas.field(session.filter, foot.column + 9, foot.row, width: foot.columns - 11)
        } else if session.isFiltered {
            canvas.text(session.filter.text, foot.column + 9, foot.row, width: foot.columns - 11, .ink(.match))
        } else {
            canvas.spans([Span("(none)  ", .faint), Span("/", .key, .bold), Span(" part of key or value, put, del", .faint)], foot.column + 9, foot.row, width: foot.columns - 11)
        }
    }

    private func streamColumns(_ width: Int) -> [TableColumn] {
        TableColumn.fit([
            TableColumn(0, "TIME", 9, priority: 3), TableColumn(1, "REV", 9, right: true, priority: 4), TableColumn(2, "OP", 3, priority: 0),
            TableColumn(3, "KEY", min(60, max(16, width * 34 / 100)), priority: 1), TableColumn(4, "CHANGE", 20, priority: 2, flexible: true),
            TableColumn(5, "V", 6, right: true, priority: 5), TableColumn(6, "SIZE", 7, right: true, priority: 6),
        ], room: width - 2)
    }

    private func drawStreamHeader(_ canvas: inout Canvas, _ area: Rect) {
        var x = area.column + 1
        for column in streamColumns(area.columns) {
            canvas.text(column.isRight ? column.title.leftPadded(column.width) : column.title, x, area.row, .ink(.faint))
            x += column.width + 1
        }
    }

    /// Newest on top. Formats only what is visible.
    func drawStreamRows(_ canvas: inout Canvas, _ area: Rect, _ session: WatchSession, selection: Int?) {
        guard !area.isEmpty else { return }
        let numbers = session.visibleLines(area.rows)
        if numbers.isEmpty {
            let text = switch session.state {
            case .opening: "opening…"
            case .failed(let reason): reason
            default: session.isFiltered ? "no event matches the filter" : "no event yet"
            }
            drawPlaceholder(&canvas, area, text, .faint)
            return
        }
        let columns = streamColumns(area.columns)
        for (line, number) in numbers.enumerated() {
            let y = area.row + line
            switch session[line: number] {
            case .note(let at, let text, let isBad):
                canvas.text(Format.stamp(at, zone: timeZoneOffsetSeconds), area.column + 1, y, .ink(.faint))
                canvas.text((isBad ? "▲ " : "✓ ") + text, area.column + 11, y, width: area.columns - 12, .ink(isBad ? .warn : .ok))
            case .event(let event): drawEvent(&canvas, event, columns, area, y, filter: session.filter.text)
            }
            if number == selection {
                canvas.background(Rect(column: area.column, row: y, columns: area.columns, rows: 1), .select)
                canvas.text("▸", area.column, y, .ink(.accent).on(.select))
            }
        }
    }

    private func drawEvent(_ canvas: inout Canvas, _ event: WatchEvent, _ columns: [TableColumn], _ area: Rect, _ y: Int, filter: String) {
        var x = area.column + 1
        for column in columns {
            switch column.id {
            case 0: canvas.text(Format.stamp(event.at, zone: timeZoneOffsetSeconds), x, y, .ink(.faint))
            case 1: canvas.textRight(Format.count(event.revision), endingAt: x + column.width, y, .ink(.dim))
            case 2: canvas.text(event.isDelete ? "DEL" : "PUT", x, y, .ink(event.isDelete ? .delete : event.version == 1 ? .add : .change, .bold))
            case 3: canvas.spans(Model.highlighted(Format.fittedTail(Format.text(event.key), column.width), filter), x, y, width: column.width)
            case 4:
                var spans: [Span] = []
                let half = max(8, (column.width - 3) / 2)
                if event.isDelete {
                    spans = event.previousValue.map { [Span("was ", .dim), Span(Format.text($0, limit: 200), .text)] } ?? [Span("deleted", .dim)]
                } else if let previous = event.previousValue, previous.count < 512, event.value.count < 512, ValueDocument.isJSON(previous), ValueDocument.isJSON(event.value) {
                    spans = [Span(LineDiff.summary(previous, event.value), .text)]
                } else if let previous = event.previousValue {
                    let old = Format.text(previous, limit: 200)
                    spans = [Span(Format.fitted(old, half), .dim), Span(" → ", .faint), Span(Format.text(event.value, limit: 200), .text)]
                } else {
                    spans = [Span(Format.text(event.value, limit: 200), .text)]
                }
                canvas.spans(spans, x, y, width: column.width)
            case 5: canvas.textRight(event.isDelete ? "—" : "v\(event.version)", endingAt: x + column.width, y, .ink(.dim))
            default: canvas.textRight(event.isDelete ? "—" : Format.shortBytes(Int64(event.value.count)), endingAt: x + column.width, y, .ink(.dim))
            }
            x += column.width + 1
        }
    }
}
