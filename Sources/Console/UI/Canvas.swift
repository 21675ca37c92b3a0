/// A piece of text in one style.
struct Span: Hashable, Sendable {
    var text: String
    var style: Style

    init(_ text: String, _ style: Style = .plain) {
        self.text = text
        self.style = style
    }

    init(_ text: String, _ slot: Slot, _ attributes: Attributes = []) {
        self.text = text
        style = .ink(slot, attributes)
    }
}

extension [Span] {
    var cellWidth: Int { reduce(0) { $0 + $1.text.cellWidth } }
}

/// Drawing on a grid, clipped to a rectangle. Coordinates are those of the whole grid.
struct Canvas {
    var grid: CellGrid
    private(set) var clip: Rect

    init(size: Size) {
        grid = CellGrid(size: size)
        clip = Rect(column: 0, row: 0, columns: grid.size.columns, rows: grid.size.rows)
    }

    /// Draws with the clip narrowed to `rect`.
    mutating func within(_ rect: Rect, _ body: (inout Canvas) -> Void) {
        let saved = clip
        clip = clip.intersection(rect)
        body(&self)
        clip = saved
    }

    // MARK: Text

    /// Writes text on one row and returns the columns it took (also those clipped away). Control characters become `�`.
    @discardableResult
    mutating func text(_ text: String, _ column: Int, _ row: Int, _ style: Style = .plain) -> Int {
        guard row >= clip.row, row < clip.endRow else { return text.cellWidth }
        var x = column
        let end = clip.endColumn
        var isAscii = true
        for byte in text.utf8 where byte >= 0x80 { isAscii = false; break }
        if isAscii {
            for byte in text.utf8 {
                if x >= clip.column, x < end { grid.set(x, row, scalar: byte >= 0x20 && byte < 0x7f ? UInt32(byte) : 0xfffd, style: style) }
                x += 1
            }
            return x - column
        }
        for character in text {
            let width = CharacterWidth.of(character)
            if x >= clip.column, x + width <= end {
                let first = character.unicodeScalars.first!
                if first.value < 0x20 || first.value == 0x7f {
                    grid.set(x, row, scalar: 0xfffd, style: style)
                } else if width == 1, character.unicodeScalars.count == 1 {
                    grid.set(x, row, scalar: first.value, style: style)
                } else {
                    grid.set(x, row, character: character, width: width, style: style)
                }
            } else if x < end, x + width > end {
                grid.set(x, row, scalar: 0x20, style: style)
            }
            x += width
        }
        return x - column
    }

    /// Text cut to `width` with an ellipsis.
    @discardableResult
    mutating func text(_ text: String, _ column: Int, _ row: Int, width: Int, _ style: Style = .plain) -> Int {
        self.text(Format.fitted(text, width), column, row, style)
    }

    mutating func textRight(_ text: String, endingAt column: Int, _ row: Int, _ style: Style = .plain) {
        self.text(text, column - text.cellWidth, row, style)
    }

    /// Spans one after the other, cut at `width`.
    @discardableResult
    mutating func spans(_ spans: [Span], _ column: Int, _ row: Int, width: Int = .max) -> Int {
        var x = column
        let end = width == .max ? Int.max : column + width
        for span in spans {
            if x >= end { break }
            let w = span.text.cellWidth
            if x + w > end {
                x += text(Format.fitted(span.text, end - x), x, row, span.style)
                break
            }
            x += text(span.text, x, row, span.style)
        }
        return x - column
    }

    mutating func glyph(_ scalar: Unicode.Scalar, _ column: Int, _ row: Int, _ style: Style) {
        guard clip.contains(Position(column: column, row: row)) else { return }
        grid.set(column, row, scalar: scalar.value, style: style)
    }

    mutating func fill(_ rect: Rect, _ scalar: Unicode.Scalar = " ", _ style: Style = .plain) {
        let area = rect.intersection(clip)
        guard !area.isEmpty else { return }
        for row in area.row..<area.endRow {
            for column in area.column..<area.endColumn { grid.set(column, row, scalar: scalar.value, style: style) }
        }
    }

    /// Gives cells another background and keeps their text.
    mutating func background(_ rect: Rect, _ slot: Slot) {
        grid.restyle(rect.intersection(clip)) { $0.background = .slot(slot) }
    }

    /// Makes everything in the rectangle quiet: shown behind an overlay.
    mutating func quiet(_ rect: Rect) {
        grid.restyle(rect.intersection(clip)) { cell in
            cell.foreground = .slot(.faint)
            cell.attributes = []
        }
    }

    // MARK: Boxes

    enum Border { case light, heavy }

    /// A panel: border, title on the left, facts on the right of the top border, and a footer on the bottom one. Returns the inside.
    @discardableResult
    mutating func box(_ rect: Rect, _ border: Border, title: [Span] = [], right: [Span] = [], footer: [Span] = [], fill: Slot? = nil) -> Rect {
        guard rect.columns >= 2, rect.rows >= 2 else { return .empty }
        var style = Style.ink(border == .heavy ? .focus : .border)
        if let fill {
            self.fill(rect, " ", Style.plain.on(fill))
            style = style.on(fill)
        }
        let (h, v, corners): (Unicode.Scalar, Unicode.Scalar, [Unicode.Scalar]) = border == .heavy
            ? ("━", "┃", ["┏", "┓", "┗", "┛"]) : ("─", "│", ["╭", "╮", "╰", "╯"])
        let last = rect.endColumn - 1, bottom = rect.endRow - 1
        for column in rect.column..<rect.endColumn {
            glyph(h, column, rect.row, style)
            glyph(h, column, bottom, style)
        }
        for row in rect.row..<rect.endRow {
            glyph(v, rect.column, row, style)
            glyph(v, last, row, style)
        }
        glyph(corners[0], rect.column, rect.row, style)
        glyph(corners[1], last, rect.row, style)
        glyph(corners[2], rect.column, bottom, style)
        glyph(corners[3], last, bottom, style)

        // `╭─ Title ───── facts ─╮`: the title has the right of way, facts are cut or dropped.
        func onFill(_ spans: [Span]) -> [Span] { fill.map { slot in spans.map { Span($0.text, $0.style.on(slot)) } } ?? spans }
        let room = rect.columns - 6
        guard room > 0 else { return rect.inset() }
        var used = 0
        if !title.isEmpty {
            let w = min(title.cellWidth, room)
            text(" ", rect.column + 2, rect.row, style)
            spans(onFill(title), rect.column + 3, rect.row, width: w)
            text(" ", rect.column + 3 + w, rect.row, style)
            used = w + 2
        }
        let left = rect.columns - 5 - used
        if !right.isEmpty, left > 4 {
            let w = min(right.cellWidth, left - 2)
            let start = last - 2 - w
            text(" ", start - 1, rect.row, style)
            spans(onFill(right), start, rect.row, width: w)
            text(" ", start + w, rect.row, style)
        }
        if !footer.isEmpty {
            let w = min(footer.cellWidth, room)
            let start = last - 2 - w
            text(" ", start - 1, bottom, style)
            spans(onFill(footer), start, bottom, width: w)
            text(" ", start + w, bottom, style)
        }
        return rect.inset()
    }

    /// A scroll mark on a panel's right border: where the window of `visible` rows stands in `total`.
    mutating func scrollMark(_ rect: Rect, offset: Int, visible: Int, total: Int, focused: Bool) {
        guard total > visible, visible > 0, rect.rows > 4 else { return }
        let track = rect.rows - 2
        let length = max(1, track * visible / total)
        let place = min(track - length, max(0, (track - length) * offset / max(1, total - visible)))
        for row in 0..<length {
            glyph("▐", rect.endColumn - 1, rect.row + 1 + place + row, .ink(focused ? .focus : .dim))
        }
    }
}
