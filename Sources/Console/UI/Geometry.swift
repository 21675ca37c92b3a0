/// A width and a height in terminal cells.
public struct Size: Hashable, Sendable {
    public var columns: Int
    public var rows: Int

    public init(columns: Int, rows: Int) {
        self.columns = columns
        self.rows = rows
    }
}

/// A cell of the screen; (0, 0) is the top left one.
public struct Position: Hashable, Sendable {
    public var column: Int
    public var row: Int

    public init(column: Int, row: Int) {
        self.column = column
        self.row = row
    }
}

/// A rectangle of cells. An empty one (no columns or no rows) is legal: drawing into it does nothing.
public struct Rect: Hashable, Sendable {
    public var column: Int
    public var row: Int
    public var columns: Int
    public var rows: Int

    public init(column: Int, row: Int, columns: Int, rows: Int) {
        self.column = column
        self.row = row
        self.columns = max(0, columns)
        self.rows = max(0, rows)
    }

    public static let empty = Rect(column: 0, row: 0, columns: 0, rows: 0)

    public var endColumn: Int { column + columns }
    public var endRow: Int { row + rows }
    public var isEmpty: Bool { columns == 0 || rows == 0 }

    public func contains(_ position: Position) -> Bool {
        position.column >= column && position.column < endColumn && position.row >= row && position.row < endRow
    }

    public func intersection(_ other: Rect) -> Rect {
        let left = max(column, other.column), top = max(row, other.row)
        return Rect(column: left, row: top,
                    columns: min(endColumn, other.endColumn) - left, rows: min(endRow, other.endRow) - top)
    }

    /// The rectangle without a margin of `columns` cells left and right and `rows` cells above and below.
    public func inset(columns dx: Int = 1, rows dy: Int = 1) -> Rect {
        Rect(column: column + dx, row: row + dy, columns: columns - 2 * dx, rows: rows - 2 * dy)
    }

    /// Cuts `count` rows off the top and returns them.
    mutating func takeTop(_ count: Int) -> Rect {
        let n = min(max(0, count), rows)
        defer { row += n; rows -= n }
        return Rect(column: column, row: row, columns: columns, rows: n)
    }

    mutating func takeBottom(_ count: Int) -> Rect {
        let n = min(max(0, count), rows)
        rows -= n
        return Rect(column: column, row: endRow, columns: columns, rows: n)
    }

    mutating func takeLeft(_ count: Int) -> Rect {
        let n = min(max(0, count), columns)
        defer { column += n; columns -= n }
        return Rect(column: column, row: row, columns: n, rows: rows)
    }

    mutating func takeRight(_ count: Int) -> Rect {
        let n = min(max(0, count), columns)
        columns -= n
        return Rect(column: endColumn, row: row, columns: n, rows: rows)
    }
}
