extension Model {
    func drawKeys(_ canvas: inout Canvas, _ body: Rect) {
        if let editor = keys.editor {
            drawEditor(&canvas, editor, body)
            return
        }
        let layout = KeysLayout(body: body, enlarged: isEnlarged ? panel : nil)
        drawTree(&canvas, layout.tree)
        drawValue(&canvas, layout.value)
        drawHistory(&canvas, layout.history)
    }

    private func border(_ panel: Panel) -> Canvas.Border { self.panel == panel ? .heavy : .light }

    // MARK: Tree

    private func drawTree(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        if keys.search != nil {
            drawSearch(&canvas, rect)
            return
        }
        var facts: [Span] = []
        if let count = cluster.keyCount { facts.append(Span(Format.plural(count, "key"), .dim)) }
        if !keys.marks.isEmpty { facts = [Span("\(keys.marks.count) marked", .warn)] }
        let title = keys.isFlat ? "flat" : "tree \(separatorText)"
        let inside = canvas.box(rect, border(.tree), title: [Span("Keys", .title, .bold), Span(" · \(title)", .dim)], right: facts,
                                footer: [Span("/", .key, .bold), Span(" filter", .faint)])
        guard !inside.isEmpty else { return }
        let rows = keys.tree.rows
        if rows.isEmpty {
            drawPlaceholder(&canvas, inside, "no keys yet · A adds one")
            return
        }
        if rows.count == 1, case .gap(let gap) = rows[0].kind {
            drawPlaceholder(&canvas, inside, gap.failure ?? (hasClusterData && cluster.connection == .connected ? "loading…" : connectionText), gap.failure == nil ? .dim : .bad)
            return
        }
        for line in 0..<inside.rows {
            let index = keys.scroll + line
            guard index < rows.count else { break }
            drawTreeRow(&canvas, rows[index], inside, inside.row + line, isSelected: index == keys.selection)
        }
        canvas.scrollMark(rect, offset: keys.scroll, visible: inside.rows, total: rows.count, focused: panel == .tree)
    }

    private func drawTreeRow(_ canvas: inout Canvas, _ row: KeyRow, _ inside: Rect, _ y: Int, isSelected: Bool) {
        let indent = min(row.depth * 2, max(0, inside.columns / 2))
        let x = inside.column + 1 + indent
        let end = inside.endColumn - 1
        let parent = row.depth == 0 || keys.tree.separator == nil ? 0 : nil
        switch row.kind {
        case .directory(let isExpanded, let count):
            let facts = [changeSpan(row)].compactMap { $0 } + [count.map { Span(" " + Format.count($0).leftPadded(6), .dim) } ?? Span("      …", .faint)]
            let width = end - x - 2 - facts.cellWidth
            canvas.text(isExpanded ? "▾" : "▸", x, y, .ink(.accent))
            canvas.text(name(row, parent), x + 2, y, width: width, .ink(.text))
            canvas.spans(facts, end - facts.cellWidth, y)
        case .key(let summary):
            // The name comes first: where it has no room, the size goes, then the version.
            let text = name(row, parent)
            var facts = keyFacts(summary, row)
            while facts.count > 1, end - x - 2 - facts.cellWidth < text.cellWidth { facts.remove(at: max(0, facts.count - 2)) }
            let width = end - x - 2 - facts.cellWidth
            let isMarked = keys.isMarked(summary.key)
            if isMarked { canvas.text("•", x, y, .ink(.match, .bold)) }
            canvas.text(text, x + 2, y, width: width, .ink(isMarked ? .match : .text))
            canvas.spans(facts, end - facts.cellWidth, y)
            if isMarked, !isSelected { canvas.background(Rect(column: inside.column, row: y, columns: inside.columns, rows: 1), .mark) }
        case .gap(let gap):
            canvas.text(gap.failure.map { "! \($0) · ↵ again" } ?? "loading…", x + 2, y, width: end - x - 2, .ink(gap.failure == nil ? .faint : .bad))
        }
        guard isSelected else { return }
        canvas.background(Rect(column: inside.column, row: y, columns: inside.columns, rows: 1), .select)
        if panel == .tree { canvas.text("▸", inside.column, y, .ink(.accent).on(.select)) }
    }

    /// Versions, leases and changes of a key, aligned at the right.
    private func keyFacts(_ summary: KeySummary, _ row: KeyRow?) -> [Span] {
        var spans: [Span] = []
        if let row, let change = changeSpan(row) { spans.append(change) }
        if summary.lease != 0 {
            let left = leaseLeft(summary.lease).map { "\($0)s" } ?? ""
            spans.append(Span(" ◷\(left)", .learner))
        }
        if let size = summary.valueSizeBytes { spans.append(Span(" " + Format.shortBytes(Int64(size)).leftPadded(5), .dim)) }
        spans.append(Span(" " + "v\(summary.version)".leftPadded(4), .dim))
        return spans
    }

    /// `Δ 2s` where something changed in the last minute.
    private func changeSpan(_ row: KeyRow) -> Span? {
        guard let at = row.changedAt, now - at < 60_000 else { return nil }
        let age = now - at
        return Span(" Δ\(Format.age(milliseconds: age).leftPadded(3))", age < 5_000 ? .change : .dim, age < 2_000 ? .bold : [])
    }

    /// Seconds a lease has left now.
    func leaseLeft(_ id: UInt64) -> Int64? {
        guard let lease = leases.first(where: { $0.id == id }), lease.leftSeconds >= 0 else { return nil }
        return max(0, lease.leftSeconds - (now - lease.sampledAt) / 1_000)
    }

    /// A row's own part of its path.
    private func name(_ row: KeyRow, _ start: Int?) -> String {
        let bytes = row.path.bytes
        guard let separator = keys.tree.separator, start == nil else { return bytes.isEmpty ? "(empty key)" : Format.text(bytes) }
        let body = row.rank == 0 ? bytes.dropLast() : bytes[...]
        guard let cut = body.lastIndex(of: separator) else { return Format.text(bytes) }
        let own = bytes[(cut + 1)...]
        return own.isEmpty ? "(same name as the directory)" : Format.text(own)
    }

    private func drawSearch(_ canvas: inout Canvas, _ rect: Rect) {
        guard let search = keys.search else { return }
        var facts: [Span] = []
        if !search.isFinished { facts = [Span("scanned \(Format.count(search.scanned))…", .warn)] } else if !search.field.isEmpty, search.askAt == nil {
            facts = [Span(search.results.count >= KeySearch.limit ? "first \(Format.count(KeySearch.limit))" : Format.plural(Int64(search.results.count), "match").replacingMatchs, .dim)]
        }
        if !keys.marks.isEmpty { facts = [Span("\(keys.marks.count) marked", .warn)] }
        let inside = canvas.box(rect, border(.tree), title: [Span("Keys", .title, .bold), Span(" · filter", .dim)], right: facts,
                                footer: search.isEditing ? [Span("↵", .key, .bold), Span(" list  ", .faint), Span("Esc", .key, .bold), Span(" all keys", .faint)] : [Span("↵", .key, .bold), Span(" go there  ", .faint), Span("Esc", .key, .bold), Span(" all keys", .faint)])
        guard inside.rows > 1 else { return }
        canvas.text("/", inside.column + 1, inside.row, .ink(.key, .bold))
        if search.isEditing, overlay == nil { canvas.field(search.field, inside.column + 2, inside.row, width: inside.columns - 3, .ink(.text)) } else { canvas.text(search.field.text, inside.column + 2, inside.row, width: inside.columns - 3, .ink(.match)) }
        let list = Rect(column: inside.column, row: inside.row + 1, columns: inside.columns, rows: inside.rows - 1)
        if let failure = search.failure { return drawPlaceholder(&canvas, list, failure, .bad) }
        if search.results.isEmpty {
            return drawPlaceholder(&canvas, list, search.field.isEmpty ? "type a part of a key, or a path" : search.isFinished && search.askAt == nil ? "no key matches" : "searching…", .faint)
        }
        let scroll = searchScroll(visible: list.rows)
        let needle = search.field.text
        for line in 0..<list.rows {
            let index = scroll + line
            guard index < search.results.count else { break }
            let summary = search.results[index]
            let facts = keyFacts(summary, nil)
            let y = list.row + line
            let text = Format.fittedTail(Format.text(summary.key), list.columns - 4 - facts.cellWidth)
            if keys.isMarked(summary.key) { canvas.text("•", list.column + 1, y, .ink(.match, .bold)) }
            canvas.spans(Model.highlighted(text, needle), list.column + 3, y)
            canvas.spans(facts, list.endColumn - 1 - facts.cellWidth, y)
            if index == search.selection {
                canvas.background(Rect(column: list.column, row: y, columns: list.columns, rows: 1), .select)
                canvas.text("▸", list.column, y, .ink(.accent).on(.select))
            }
        }
    }

    /// The part that matched in another colour.
    static func highlighted(_ text: String, _ needle: String, _ ink: Slot = .text) -> [Span] {
        guard !needle.isEmpty else { return [Span(text, ink)] }
        let characters = Array(text), wanted = Array(needle)
        let folds = needle == needle.lowercased()
        func same(_ a: Character, _ b: Character) -> Bool { a == b || folds && a.lowercased() == String(b) }
        guard characters.count >= wanted.count else { return [Span(text, ink)] }
        for start in 0...(characters.count - wanted.count) where (0..<wanted.count).allSatisfy({ same(characters[start + $0], wanted[$0]) }) {
            return [Span(String(characters[..<start]), ink), Span(String(characters[start..<start + wanted.count]), .match, .bold), Span(String(characters[(start + wanted.count)...]), ink)]
        }
        return [Span(text, ink)]
    }

    // MARK: Value

    private func drawValue(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let pane = keys.value
        var title = [Span("Value", .title, .bold)]
        var facts: [Span] = []
        if let key = pane.key { title = [Span(Format.fittedTail(Format.text(key), max(10, rect.columns - 22)), .title, .bold)] }
        if let bytes = pane.shownBytes, pane.key != nil { facts = [Span(pane.mode.title, .accent), Span(" · \(Format.bytes(bytes.count))", .dim)] }
        let footer: [Span] = pane.current == nil ? [] : [Span("m", .key, .bold), Span(" mode  ", .faint), Span("e", .key, .bold), Span(" edit", .faint)]
        let inside = canvas.box(rect, border(.value), title: title, right: facts, footer: footer)
        guard inside.rows > 1 else { return }
        guard pane.key != nil else {
            drawDirectoryFacts(&canvas, inside)
            return
        }
        switch pane.content {
        case .failed(let reason): return drawPlaceholder(&canvas, inside, reason, .bad)
        case .missing: return drawPlaceholder(&canvas, inside, "this key was deleted", .warn)
        case .nothing, .loading, .loaded: break
        }
        guard let current = pane.current else {
            if case .loading(_, let since) = pane.content, now - since >= 150 { drawPlaceholder(&canvas, inside, "loading…") }
            return
        }
        var row = inside.row
        canvas.spans(metadata(current, width: inside.columns - 2), inside.column + 1, row, width: inside.columns - 2)
        row += 1
        if let version = pane.version {
            canvas.spans([Span("v\(version.version) of rev \(Format.count(version.revision))", .warn, .bold), Span(" · not the value now · Esc back", .dim)], inside.column + 1, row, width: inside.columns - 2)
        }
        row += 1
        let lines = pane.document.lines
        let area = Rect(column: inside.column, row: row, columns: inside.columns, rows: inside.endRow - row)
        let gutter = pane.mode == .json || pane.mode == .text && lines.count > 1 ? max(2, String(lines.count).utf8.count) + 2 : 1
        for line in 0..<area.rows {
            let index = pane.scroll + line
            guard index < lines.count else {
                if index == lines.count, pane.document.isCut {
                    canvas.text("… first \(Format.bytes(ValuePane.previewLimit)) of \(Format.bytes(pane.shownBytes?.count ?? 0)); v opens all of it", area.column + 1, area.row + line, width: area.columns - 2, .ink(.warn))
                }
                break
            }
            if gutter > 1 { canvas.textRight(String(index + 1), endingAt: area.column + gutter, area.row + line, .ink(.faint)) }
            let text = Rect(column: area.column + gutter + (gutter > 1 ? 1 : 0), row: area.row + line, columns: area.columns - gutter - (gutter > 1 ? 2 : 1), rows: 1)
            let width = lines[index].cellWidth - pane.sideScroll
            canvas.within(text) { $0.spans(lines[index], text.column - pane.sideScroll, text.row) }
            if width > text.columns { canvas.text("…", text.endColumn - 1, text.row, .ink(.faint)) }
            if pane.sideScroll > 0, lines[index].cellWidth > 0 { canvas.text("…", text.column, text.row, .ink(.faint)) }
        }
        canvas.scrollMark(rect, offset: pane.scroll, visible: area.rows, total: lines.count, focused: panel == .value)
    }

    private func metadata(_ value: KeyValue, width: Int) -> [Span] {
        let summary = value.summary
        var spans = [Span("rev ", .dim), Span(Format.count(summary.modRevision), .text)]
        if width >= 50 { spans += [Span("  created ", .dim), Span(Format.count(summary.createRevision), .text)] }
        spans += [Span("  v", .dim), Span(String(summary.version), .text), Span("  lease ", .dim)]
        if summary.lease == 0 { spans.append(Span("—", .faint)) } else {
            spans.append(Span(Format.hex(summary.lease), .learner))
            if let lease = leases.first(where: { $0.id == summary.lease }) {
                if let left = leaseLeft(lease.id) {
                    spans.append(Span(" \(left)s", left < 10 ? .warn : .text))
                    spans.append(Span(" of \(lease.grantedSeconds)s", .dim))
                } else {
                    spans.append(Span(" gone", .bad))
                }
            }
        }
        return spans
    }

    private func drawDirectoryFacts(_ canvas: inout Canvas, _ inside: Rect) {
        guard let row = keys.selectedRow, case .directory(let isExpanded, let count) = row.kind else {
            if keys.tree.rows.isEmpty { drawPlaceholder(&canvas, inside, "") }
            return
        }
        let path = Format.text(row.path)
        let lines: [[Span]] = [
            [Span("directory ", .dim), Span(Format.fittedTail(path, inside.columns - 12), .text, .bold)],
            [Span(count.map { Format.plural($0, "key") } ?? "keys not counted", .text), Span(" below it", .dim)],
            [],
            [Span("↵", .key, .bold), Span(isExpanded ? "  closes it" : "  opens it", .dim)],
            [Span("w", .key, .bold), Span("  watches it", .dim)],
            [Span("A", .key, .bold), Span("  adds a key in it", .dim)],
            [Span("D", .key, .bold), Span("  deletes all of it, after a count", .dim)],
        ]
        for (index, line) in lines.prefix(max(0, inside.rows - 1)).enumerated() {
            canvas.spans(line, inside.column + 2, inside.row + 1 + index, width: inside.columns - 4)
        }
    }

    // MARK: History

    private func drawHistory(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let history = keys.history
        var facts: [Span] = []
        if let compact = history.compactRevision, compact > 0 { facts = [Span("kept back to rev \(Format.count(compact))", .dim)] } else if history.isComplete, !history.versions.isEmpty { facts = [Span("complete", .dim)] }
        let footer: [Span] = history.versions.isEmpty ? [] : [Span("↵", .key, .bold), Span(" show  ", .faint), Span("R", mode == .readOnly ? .faint : .key, .bold), Span(" restore", .faint)]
        let inside = canvas.box(rect, border(.history), title: [Span("History", .title, .bold)], right: facts, footer: footer)
        guard inside.rows > 1 else { return }
        guard keys.value.key != nil else { return }
        if let failure = history.failure { return drawPlaceholder(&canvas, inside, failure, .bad) }
        if history.versions.isEmpty {
            if history.request != nil { drawPlaceholder(&canvas, inside, "loading…", .faint) }
            return
        }
        let columns = TableColumn.fit([
            TableColumn(0, "REV", 9, right: true, priority: 0), TableColumn(1, "V", 5, right: true, priority: 1),
            TableColumn(2, "WHEN", 8, right: true, priority: 4), TableColumn(3, "SIZE", 6, right: true, priority: 3),
            TableColumn(4, "CHANGE", 12, priority: 2, flexible: true),
        ], room: inside.columns - 2)
        var x = inside.column + 1
        for column in columns {
            canvas.text(column.isRight ? column.title.leftPadded(column.width) : column.title, x, inside.row, .ink(.faint))
            x += column.width + 1
        }
        let visible = inside.rows - 1
        let first = max(0, min(history.selection - visible + 1, history.versions.count - visible))
        for line in 0..<visible {
            let index = first + line
            let y = inside.row + 1 + line
            guard index < history.versions.count else {
                if index == history.versions.count, !history.isComplete {
                    let text = history.compactRevision.map { $0 > 0 ? "older versions are compacted away" : "older versions not read" } ?? "older versions not read · t reads more"
                    canvas.text(text, inside.column + 1, y, width: inside.columns - 2, .ink(.faint))
                }
                break
            }
            let version = history.versions[index]
            let older = history.versions.indices.contains(index + 1) ? history.versions[index + 1] : nil
            x = inside.column + 1
            for column in columns {
                let text: String = switch column.id {
                case 0: Format.count(version.revision)
                case 1: version.version == 0 ? "—" : "v\(version.version)"
                case 2: version.at.map { Format.age(milliseconds: now - $0) } ?? "—"
                case 3: version.version == 0 ? "—" : Format.shortBytes(Int64(version.value.count))
                default: changeText(version, older)
                }
                let shown = Format.fitted(text, column.width)
                canvas.text(column.isRight ? shown.leftPadded(column.width) : shown, x, y, .ink(column.id == 0 ? .text : column.id == 4 ? .text : .dim))
                x += column.width + 1
            }
            if index == history.selection, panel == .history || keys.value.version != nil {
                canvas.background(Rect(column: inside.column, row: y, columns: inside.columns, rows: 1), .select)
                if panel == .history { canvas.text("▸", inside.column, y, .ink(.accent).on(.select)) }
            }
        }
    }

    private func changeText(_ version: KeyVersion, _ older: KeyVersion?) -> String {
        if version.version == 0 { return "deleted" }
        if version.version == 1 { return "created" }
        guard let older else { return Format.text(version.value, limit: 80) }
        return older.version == 0 ? "created again" : LineDiff.summary(older.value, version.value)
    }

    // MARK: Editor

    private func drawEditor(_ canvas: inout Canvas, _ editor: EditorState, _ body: Rect) {
        var rect = body
        if overlayIsConflict { rect = rect.takeTop(body.rows - conflictRows) }
        var facts: [Span] = [Span(editor.base.map { "based on rev \(Format.count($0.summary.modRevision))" } ?? "new key", .dim)]
        if editor.lease != 0 { facts.append(Span(" · lease \(Format.hex(editor.lease)) stays", .learner)) }
        if editor.savingRequest != nil { facts.append(Span(" · writing…", .warn)) } else if editor.isModified { facts.append(Span(" · modified", .change)) }
        let inside = canvas.box(rect, .heavy, title: [Span("Edit ", .title, .bold), Span(Format.fittedTail(Format.text(editor.key), max(10, rect.columns - 50)), .text, .bold)], right: facts)
        guard inside.rows > 1 else { return }
        let rows = inside.rows - 1
        let gutter = max(2, String(editor.text.lines.count).utf8.count) + 2
        let width = inside.columns - gutter - 2
        // Long lines scroll sideways, all together, as far as the cursor needs.
        let cursorColumn = editor.text.lines[editor.text.cursor.line].prefix(editor.text.cursor.column).reduce(0) { $0 + CharacterWidth.of($1) }
        let side = max(0, cursorColumn - width + 1)
        for line in 0..<rows {
            let index = editor.scroll + line
            guard index < editor.text.lines.count else {
                canvas.text("~", inside.column + gutter - 1, inside.row + line, .ink(.faint))
                continue
            }
            canvas.textRight(String(index + 1), endingAt: inside.column + gutter, inside.row + line, .ink(index == editor.text.cursor.line ? .dim : .faint))
            let text = Rect(column: inside.column + gutter + 1, row: inside.row + line, columns: width, rows: 1)
            canvas.within(text) { canvas in
                var x = text.column - side
                for character in editor.text.lines[index] {
                    if x >= text.endColumn { break }
                    let w = CharacterWidth.of(character)
                    if let value = character.asciiValue, value < 0x20 || value == 0x7f {
                        canvas.glyph(Unicode.Scalar(value == 0x7f ? 0x2421 : 0x2400 + UInt32(value))!, x, text.row, .ink(.change))
                    } else if x + w > text.column {
                        canvas.text(String(character), x, text.row, .ink(Model.editorSlot(character)))
                    }
                    x += w
                }
            }
        }
        let status = editorStatus(editor)
        canvas.spans(status, inside.column + 1, inside.endRow - 1, width: inside.columns - 20)
        let place = editor.text.cursor
        canvas.textRight("line \(place.line + 1), column \(place.column + 1)", endingAt: inside.endColumn - 1, inside.endRow - 1, .ink(.faint))
        if overlay == nil { canvas.grid.cursor = Position(column: inside.column + gutter + 1 + cursorColumn - side, row: inside.row + place.line - editor.scroll) }
    }

    /// Punctuation stands back a little, so that words are seen.
    private static func editorSlot(_ character: Character) -> Slot {
        "{}[],:\"".contains(character) ? .jsonPunctuation : character.isNumber ? .jsonNumber : .text
    }

    private func editorStatus(_ editor: EditorState) -> [Span] {
        if editor.format == .hex {
            guard let bytes = editor.bytes else { return [Span("hex digits are not complete", .warn)] }
            return [Span("hex · \(Format.bytes(bytes.count))", .dim)]
        }
        let text = Array(editor.text.text.utf8)
        let size = editor.bytes?.count ?? text.count
        let limit = Span(" · \(Format.plural(Int64(size), "byte"))", size > EditorState.sizeLimit ? .bad : .dim)
        let looksLikeJSON = text.first { $0 > 0x20 }.map { $0 == UInt8(ascii: "{") || $0 == UInt8(ascii: "[") } ?? false
        guard looksLikeJSON || ValueDocument.isJSON(editor.base?.value ?? []) else { return [Span("text", .dim), limit] }
        guard text.count <= 256 * 1_024 else { return [Span("json, too large to check while typing", .dim), limit] }
        guard let problem = JSON.check(text) else { return [Span("valid json", .ok), limit] + (editor.laidOut == nil ? [] : [Span(" · written on one line, as it was", .dim)]) }
        let before = text.prefix(problem.offset)
        return [Span("not valid json: ", .warn), Span("\(problem.message), line \(before.count { $0 == 0x0a } + 1)", .warn), limit]
    }
}

extension String {
    /// "2 matchs" → "2 matches".
    fileprivate var replacingMatchs: String { hasSuffix("matchs") ? String(dropLast()) + "es" : self }
}
