/// Charts made of characters. Values come oldest first; the newest is drawn at the right edge.
extension Canvas {
    /// An area chart of braille dots: 2 × 4 dots a cell. nil is a hole (no data). Returns nothing; the scale is the caller's text.
    mutating func area(_ values: [Int?], _ rect: Rect, maximum: Int, gradient: Gradient = .load, slot: Slot? = nil) {
        guard !rect.isEmpty else { return }
        let dots = rect.columns * 2, height = rect.rows * 4
        let shown = values.suffix(dots)
        let offset = dots - shown.count
        var levels = [Int](repeating: 0, count: dots)
        for (index, value) in shown.enumerated() {
            guard let value, value > 0 else { continue }
            levels[offset + index] = max(1, min(height, (value * height + maximum - 1) / max(1, maximum)))
        }
        for row in 0..<rect.rows {
            let base = (rect.rows - 1 - row) * 4
            let style = slot.map { Style.ink($0) } ?? Style(foreground: .gradient(gradient, rect.rows == 1 ? 50 : (rect.rows - 1 - row) * 100 / (rect.rows - 1)))
            for column in 0..<rect.columns {
                let bits = Canvas.leftDots(levels[2 * column] - base) | Canvas.rightDots(levels[2 * column + 1] - base)
                if bits > 0 { glyph(Unicode.Scalar(0x2800 + bits)!, rect.column + column, rect.row + row, style) }
            }
        }
    }

    /// Dots of the left column of a braille cell filled from the bottom up to `level` of 4.
    private static func leftDots(_ level: Int) -> UInt32 { [0, 0x40, 0x44, 0x46, 0x47][min(4, max(0, level))] }
    private static func rightDots(_ level: Int) -> UInt32 { [0, 0x80, 0xa0, 0xb0, 0xb8][min(4, max(0, level))] }

    /// One row of eighth blocks, one value a cell; nil is a blank.
    mutating func sparkline(_ values: [Int?], _ column: Int, _ row: Int, width: Int, maximum: Int, color: (Int) -> Color) {
        guard width > 0 else { return }
        let shown = values.suffix(width)
        var x = column + width - shown.count
        for value in shown {
            if let value {
                let level = maximum <= 0 ? 0 : min(7, max(0, value * 8 / (maximum + 1)))
                glyph(Unicode.Scalar(0x2581 + UInt32(level))!, x, row, Style(foreground: color(value)))
            }
            x += 1
        }
    }

    /// A horizontal bar with eighths of a cell.
    mutating func bar(_ value: Int, of maximum: Int, _ column: Int, _ row: Int, width: Int, _ style: Style) {
        guard width > 0, maximum > 0, value > 0 else { return }
        let eighths = max(1, min(width * 8, value * width * 8 / maximum))
        for index in 0..<eighths / 8 { glyph("█", column + index, row, style) }
        if eighths % 8 > 0 { glyph(Unicode.Scalar(0x2590 - UInt32(eighths % 8))!, column + eighths / 8, row, style) }
    }

    /// A gauge: a bar on a visible track.
    mutating func gauge(_ value: Int, of maximum: Int, _ column: Int, _ row: Int, width: Int, _ style: Style) {
        for index in 0..<max(0, width) { glyph("░", column + index, row, .ink(.faint)) }
        bar(value, of: maximum, column, row, width: width, style)
    }

    /// A member's log over the last entries of the cluster: each cell shows the worst state among its entries, so one entry behind
    /// is seen.
    mutating func logWindow(_ window: LogWindow, applied: UInt64, commit: UInt64, last: UInt64, _ column: Int, _ row: Int, width: Int) {
        guard width > 0, window.count > 0 else { return }
        for index in 0..<width {
            // Cell i covers entries (first, end]; each at least one entry.
            let end = window.first + (UInt64(index + 1) * window.count + UInt64(width) - 1) / UInt64(width)
            let (scalar, slot): (Unicode.Scalar, Slot) = if end <= applied { ("█", .logApplied) }
                else if end <= commit { ("▓", .logCommitted) }
                else if end <= last { ("▒", .logReceived) }
                else { ("░", .logMissing) }
            glyph(scalar, column + index, row, .ink(slot))
        }
    }
}

/// The last entries of a cluster's log: (first, first + count].
struct LogWindow: Hashable {
    static let length: UInt64 = 512
    var first: UInt64
    var count: UInt64

    init(newest: UInt64) {
        count = min(LogWindow.length, newest)
        first = newest - count
    }
}

/// A column of a table.
struct TableColumn: Hashable {
    var id: Int
    var title: String
    var width: Int
    var isRight: Bool
    /// Columns with the smallest number stay longest.
    var priority: Int
    /// Takes what is left, if anything; at most one per table.
    var isFlexible = false

    init(_ id: Int, _ title: String, _ width: Int, right: Bool = false, priority: Int, flexible: Bool = false) {
        self.id = id
        self.title = title
        self.width = width
        isRight = right
        self.priority = priority
        isFlexible = flexible
    }

    /// The columns that fit in `room` cells with one blank between, in their order; the flexible one gets the rest.
    static func fit(_ columns: [TableColumn], room: Int, gap: Int = 1) -> [TableColumn] {
        var kept = columns
        func total(_ list: [TableColumn]) -> Int { list.reduce(0) { $0 + $1.width } + gap * max(0, list.count - 1) }
        while total(kept) > room, let worst = kept.indices.max(by: { kept[$0].priority < kept[$1].priority }), kept.count > 1 {
            kept.remove(at: worst)
        }
        if let index = kept.firstIndex(where: \.isFlexible) { kept[index].width += max(0, room - total(kept)) }
        return kept
    }
}
