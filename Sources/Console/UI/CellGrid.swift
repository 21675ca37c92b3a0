/// One cell of the screen: a grapheme cluster (or the right half of a wide one) and how it looks.
public struct Cell: Hashable, Sendable {
    /// First code point of the cluster; 0 in the right half of a wide character.
    public var scalar: UInt32
    public var foreground: Color
    public var background: Color
    /// 0: the cluster is `scalar` alone; else 1 + index into the grid's table of longer clusters.
    var cluster: UInt16
    public var attributes: Attributes

    public var isContinuation: Bool { scalar == 0 }
    public var style: Style { Style(foreground: foreground, background: background, attributes: attributes) }

    init(scalar: UInt32, style: Style, cluster: UInt16 = 0) {
        self.scalar = scalar
        foreground = style.foreground
        background = style.background
        self.cluster = cluster
        attributes = style.attributes
    }
}

/// Neighbouring cells of one row that share a style and that the terminal must be told.
public struct CellRun: Hashable, Sendable {
    public var row: Int
    public var column: Int
    /// Cells covered; wide characters are covered whole.
    public var columns: Int
    public var style: Style
    public var text: String
}

/// A screen as a value. `view` makes one; the backend shows the difference to the one before.
///
/// Invariant: a wide character's left cell is always followed by its continuation cell, in the same row.
public struct CellGrid: Sendable {
    public let size: Size
    public private(set) var cells: [Cell]
    /// Clusters of more than one code point, named by `Cell.cluster`.
    private var clusters: [[Unicode.Scalar]] = []
    /// Where the text cursor is shown; nil: hidden.
    public var cursor: Position?

    public init(size: Size, style: Style = Style()) {
        self.size = Size(columns: max(0, size.columns), rows: max(0, size.rows))
        cells = Array(repeating: Cell(scalar: 0x20, style: style), count: self.size.columns * self.size.rows)
    }

    public subscript(_ column: Int, _ row: Int) -> Cell { cells[row * size.columns + column] }

    /// The code points of a cell; empty for the right half of a wide character.
    public func scalars(_ column: Int, _ row: Int) -> [Unicode.Scalar] {
        let cell = cells[row * size.columns + column]
        if cell.cluster > 0 { return clusters[Int(cell.cluster) - 1] }
        return cell.scalar == 0 ? [] : [Unicode.Scalar(cell.scalar)!]
    }

    // MARK: Writing (by Canvas)

    /// Writes one narrow code point. Out of bounds is ignored.
    mutating func set(_ column: Int, _ row: Int, scalar: UInt32, style: Style) {
        guard column >= 0, row >= 0, column < size.columns, row < size.rows else { return }
        let index = row * size.columns + column
        breakWide(index, column)
        cells[index] = Cell(scalar: scalar, style: style)
    }

    /// Writes a cluster of `width` cells; both halves must be inside.
    mutating func set(_ column: Int, _ row: Int, character: Character, width: Int, style: Style) {
        guard column >= 0, row >= 0, column + width <= size.columns, row < size.rows else { return }
        let index = row * size.columns + column
        breakWide(index, column)
        let scalars = character.unicodeScalars
        let first = scalars.first!
        var cell = Cell(scalar: first.value, style: style)
        if scalars.count > 1 {
            if scalars.count > CharacterWidth.longestCluster || clusters.count >= 0xfffe {
                cell.scalar = 0xfffd
            } else {
                clusters.append(Array(scalars))
                cell.cluster = UInt16(clusters.count)
            }
        }
        cells[index] = cell
        if width == 2 {
            breakWide(index + 1, column + 1)
            cells[index + 1] = Cell(scalar: 0, style: style)
        }
    }

    /// Changes the look of cells without touching their text (selection bars). Cells outside are ignored.
    mutating func restyle(_ rect: Rect, _ change: (inout Cell) -> Void) {
        let area = rect.intersection(Rect(column: 0, row: 0, columns: size.columns, rows: size.rows))
        guard !area.isEmpty else { return }
        for row in area.row..<area.endRow {
            for column in area.column..<area.endColumn { change(&cells[row * size.columns + column]) }
        }
    }

    /// Overwriting one half of a wide character blanks the other.
    private mutating func breakWide(_ index: Int, _ column: Int) {
        if cells[index].scalar == 0, column > 0 {
            cells[index - 1].scalar = 0x20
            cells[index - 1].cluster = 0
        }
        if column + 1 < size.columns, cells[index + 1].scalar == 0 { cells[index + 1].scalar = 0x20 }
    }

    // MARK: Reading

    /// What must be written to turn a screen showing `previous` into this one; everything when sizes differ or `previous` is nil.
    /// Runs are in row order; unchanged single cells between changes of one style are included when that keeps a run whole.
    public func runs(changedFrom previous: CellGrid?) -> [CellRun] {
        var result: [CellRun] = []
        let old = previous?.size == size ? previous : nil
        for row in 0..<size.rows {
            var column = 0
            while column < size.columns {
                if let old, isSame(as: old, column, row) { column += 1; continue }
                var start = column
                if self[start, row].isContinuation, start > 0 { start -= 1 }
                let style = self[start, row].style
                var end = column + 1
                while end < size.columns, self[end, row].style == style || self[end, row].isContinuation {
                    if let old, !self[end, row].isContinuation, isSame(as: old, end, row),
                       end + 1 >= size.columns || isSame(as: old, end + 1, row) { break }
                    end += 1
                }
                result.append(CellRun(row: row, column: start, columns: end - start, style: style, text: text(row: row, from: start, to: end)))
                column = end
            }
        }
        return result
    }

    private func isSame(as other: CellGrid, _ column: Int, _ row: Int) -> Bool {
        let a = self[column, row], b = other[column, row]
        if a.cluster == 0 && b.cluster == 0 { return a == b }
        return a.style == b.style && scalars(column, row) == other.scalars(column, row)
    }

    /// The text of part of a row, wide characters once.
    public func text(row: Int, from start: Int = 0, to end: Int? = nil) -> String {
        var line = String.UnicodeScalarView()
        for column in start..<(end ?? size.columns) {
            let cell = self[column, row]
            if cell.cluster > 0 { line.append(contentsOf: scalars(column, row)) } else if cell.scalar != 0 { line.append(Unicode.Scalar(cell.scalar)!) }
        }
        return String(line)
    }

    /// All rows as text, trailing blanks removed.
    public var lines: [String] {
        (0..<size.rows).map { row in
            var line = Substring(text(row: row))
            while line.last == " " { line.removeLast() }
            return String(line)
        }
    }

    /// The grid with every character outside ASCII replaced by the glyph of the ascii set, or `?` in user data.
    public func inASCII() -> CellGrid {
        var copy = self
        for index in copy.cells.indices where copy.cells[index].scalar > 0x7e || copy.cells[index].cluster > 0 {
            copy.cells[index].scalar = UInt32(Glyphs.ascii(for: copy.cells[index].scalar))
            copy.cells[index].cluster = 0
        }
        // A wide character became one narrow one: its right half is a blank now.
        for index in copy.cells.indices where copy.cells[index].scalar == 0 { copy.cells[index].scalar = 0x20 }
        copy.clusters = []
        return copy
    }
}
