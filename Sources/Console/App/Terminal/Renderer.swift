import CNcurses
import UI

/// Where changed cells go: the terminal, or a test that looks at them.
protocol CellSink: AnyObject {
    /// Cells of one row from `column` on, each advancing by its width.
    func put(column: Int, row: Int, cells: UnsafeBufferPointer<qd_cell>)
    func setCursor(_ position: Position?)
    func repaint()
    func flush()
}

/// Shows grids: compares each with the one before and passes on only what changed. Nothing changed: nothing is sent at all.
/// Confined to the thread of its sink.
struct Renderer {
    let depth: ColorDepth
    let isASCII: Bool
    private var shown: CellGrid?
    private var shownTheme: Theme?
    private var needsRepaint = false
    private var styles: [Style: Look] = [:]
    private var buffer: [qd_cell] = []

    private struct Look {
        var attributes: UInt16
        var foreground: Int32
        var background: Int32
    }

    struct Statistics: Equatable {
        var runs = 0
        var cells = 0
    }

    init(depth: ColorDepth, isASCII: Bool) {
        self.depth = depth
        self.isASCII = isASCII
    }

    /// The grid on the screen (for saving it); nil before the first frame.
    var screen: CellGrid? { shown }

    /// The next frame sends every cell, and tells the terminal to forget what it shows.
    mutating func invalidate() {
        shown = nil
        needsRepaint = true
    }

    /// Shows `grid`. The answer says how much went out; zero runs and an unmoved cursor send no byte.
    @discardableResult
    mutating func show(_ grid: CellGrid, theme: Theme, on sink: some CellSink) -> Statistics {
        if theme != shownTheme {
            styles.removeAll(keepingCapacity: true)
            shownTheme = theme
            shown = nil
        }
        let grid = isASCII ? grid.inASCII() : grid
        let runs = grid.runs(changedFrom: shown)
        let cursorMoved = shown == nil || shown!.cursor != grid.cursor
        defer { shown = grid }
        guard !runs.isEmpty || cursorMoved || needsRepaint else { return Statistics() }
        if needsRepaint {
            sink.repaint()
            needsRepaint = false
        }
        var statistics = Statistics(runs: runs.count)
        for run in runs {
            let look = look(of: run.style, theme)
            buffer.removeAll(keepingCapacity: true)
            for column in run.column..<run.column + run.columns {
                let cell = grid[column, run.row]
                guard !cell.isContinuation else { continue } // drawn with its left half
                let isWide = column + 1 < grid.size.columns && grid[column + 1, run.row].isContinuation
                buffer.append(Self.cell(grid.scalars(column, run.row), isWide: isWide, look.attributes, look.foreground, look.background))
            }
            statistics.cells += run.columns
            buffer.withUnsafeBufferPointer { sink.put(column: run.column, row: run.row, cells: $0) }
        }
        sink.setCursor(grid.cursor)
        sink.flush()
        return statistics
    }

    private static func cell(_ scalars: [Unicode.Scalar], isWide: Bool, _ attributes: UInt16, _ foreground: Int32, _ background: Int32) -> qd_cell {
        var cell = qd_cell()
        func scalar(_ index: Int) -> UInt32 { index < scalars.count ? scalars[index].value : 0 }
        cell.text = (scalar(0), scalar(1), scalar(2), scalar(3), scalar(4))
        cell.length = UInt8(min(5, scalars.count))
        cell.width = isWide ? 2 : 1
        cell.attributes = attributes
        cell.foreground = foreground
        cell.background = background
        return cell
    }

    private mutating func look(of style: Style, _ theme: Theme) -> Look {
        if let known = styles[style] { return known }
        let concrete = theme.concrete(style, depth: depth)
        var bits = 0
        if concrete.attributes.contains(.bold) { bits |= QD_BOLD }
        if concrete.attributes.contains(.dim) { bits |= QD_DIM }
        if concrete.attributes.contains(.italic) { bits |= QD_ITALIC }
        if concrete.attributes.contains(.underline) { bits |= QD_UNDERLINE }
        if concrete.attributes.contains(.reverse) { bits |= QD_REVERSE }
        let look = Look(attributes: UInt16(bits), foreground: Self.number(concrete.foreground), background: Self.number(concrete.background))
        // Styles come from a theme's few slots and gradients; RGB from user data cannot appear, so the table stays small.
        styles[style] = look
        return look
    }

    private static func number(_ color: TerminalColor) -> Int32 {
        switch color {
        case .terminalDefault: -1
        case .rgb(let rgb): Int32(rgb.red) << 16 | Int32(rgb.green) << 8 | Int32(rgb.blue)
        case .indexed(let index): Int32(index)
        }
    }
}
