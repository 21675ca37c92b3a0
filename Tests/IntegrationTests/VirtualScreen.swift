import Foundation

/// What a terminal would show for the bytes it got: enough of xterm for ncurses programs. A value, fed with bytes.
struct VirtualScreen {
    struct Cell: Equatable {
        var text = " "
        /// The parameters of the last SGR sequences, as they add up: only whether reverse or bold is on, and the colours.
        var style = Style()
    }

    struct Style: Equatable {
        var isBold = false
        var isReverse = false
        var foreground = ""
        var background = ""
    }

    private(set) var columns: Int
    private(set) var rows: Int
    private(set) var cells: [[Cell]]
    private(set) var cursor = (column: 0, row: 0)
    private(set) var isCursorVisible = true
    /// Private modes that are on (1049 alternate screen, 2004 paste, 1006 mouse ...).
    private(set) var modes: Set<Int> = []
    /// Answers the program expects from its terminal (device attributes, cursor position).
    var replies: [UInt8] = []

    private var mainScreen: [[Cell]]?
    private var saved = (column: 0, row: 0)
    private var region = (top: 0, bottom: 0)
    private var style = Style()
    private var wrapsNext = false
    private var lineDrawing = false
    private var pending: [UInt8] = []

    init(columns: Int, rows: Int) {
        self.columns = columns
        self.rows = rows
        cells = Array(repeating: Array(repeating: Cell(), count: columns), count: rows)
        region = (0, rows - 1)
    }

    var lines: [String] {
        cells.map { row in
            var line = row.map(\.text).joined()
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
    }

    var text: String { lines.joined(separator: "\n") }

    mutating func resize(columns: Int, rows: Int) {
        func fitted(_ screen: [[Cell]]) -> [[Cell]] {
            (0..<rows).map { row in (0..<columns).map { column in row < screen.count && column < screen[row].count ? screen[row][column] : Cell() } }
        }
        cells = fitted(cells)
        mainScreen = mainScreen.map(fitted)
        (self.columns, self.rows) = (columns, rows)
        region = (0, rows - 1)
        cursor = (min(cursor.column, columns - 1), min(cursor.row, rows - 1))
    }

    mutating func feed(_ bytes: some Sequence<UInt8>) {
        pending.append(contentsOf: bytes)
        var at = 0
        while at < pending.count, let used = step(from: at) { at += used }
        pending.removeFirst(at)
    }

    // MARK: One thing at a time

    /// Number of bytes taken, nil when more are needed.
    private mutating func step(from at: Int) -> Int? {
        let byte = pending[at]
        switch byte {
        case 0x1b: return escape(from: at)
        case 7, 0: return 1
        case 8: cursor.column = max(0, cursor.column - 1); wrapsNext = false; return 1
        case 9: cursor.column = min(columns - 1, (cursor.column / 8 + 1) * 8); return 1
        case 10, 11, 12: lineFeed(); return 1
        case 13: cursor.column = 0; wrapsNext = false; return 1
        case 14: lineDrawing = true; return 1
        case 15: lineDrawing = false; return 1
        case 0..<0x20, 0x7f: return 1
        default: break
        }
        let length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4
        guard at + length <= pending.count else { return nil }
        let character = String(decoding: pending[at..<at + length], as: UTF8.self)
        put(lineDrawing ? VirtualScreen.lineCharacters[character] ?? character : character)
        return length
    }

    private static let lineCharacters = ["q": "─", "x": "│", "l": "┌", "k": "┐", "m": "└", "j": "┘", "n": "┼", "t": "├", "u": "┤", "v": "┴", "w": "┬", "a": "▒", "`": "◆"]

    private mutating func put(_ text: String) {
        let scalar = text.unicodeScalars.first!
        let width = VirtualScreen.width(of: scalar)
        if width == 0 { // combines with what stands before
            let column = wrapsNext ? cursor.column : max(0, cursor.column - 1)
            let base = cells[cursor.row][column].text.isEmpty && column > 0 ? column - 1 : column
            cells[cursor.row][base].text += text
            return
        }
        if wrapsNext {
            cursor.column = 0
            lineFeed()
        }
        let cellsNeeded = max(1, width)
        if cursor.column + cellsNeeded > columns { cursor.column = 0; lineFeed() }
        // Half of a wide character that is overwritten leaves a blank.
        if cells[cursor.row][cursor.column].text.isEmpty, cursor.column > 0 { cells[cursor.row][cursor.column - 1].text = " " }
        cells[cursor.row][cursor.column] = Cell(text: text, style: style)
        if cellsNeeded == 2 { cells[cursor.row][cursor.column + 1] = Cell(text: "", style: style) }
        let after = cursor.column + cellsNeeded
        if after < columns, cells[cursor.row][after].text.isEmpty { cells[cursor.row][after].text = " " }
        wrapsNext = after >= columns
        cursor.column = min(after, columns - 1)
    }

    /// Columns of a code point; enough for what tests show.
    private static func width(of scalar: Unicode.Scalar) -> Int {
        switch scalar.value {
        case 0x300...0x36f, 0x200b...0x200f, 0xfe00...0xfe0f, 0x20d0...0x20ff: 0
        case 0x1100...0x115f, 0x2e80...0xa4cf, 0xac00...0xd7a3, 0xf900...0xfaff, 0xfe30...0xfe6f, 0xff00...0xff60, 0xffe0...0xffe6, 0x1f300...0x1faff, 0x20000...0x3fffd: 2
        default: 1
        }
    }

    private mutating func lineFeed() {
        wrapsNext = false
        if cursor.row == region.bottom { scroll(1, from: region.top) } else { cursor.row = min(rows - 1, cursor.row + 1) }
    }

    /// Lines from `top` to the region's end move up by `count` (down if negative).
    private mutating func scroll(_ count: Int, from top: Int) {
        let blank = Array(repeating: Cell(text: " ", style: Style(background: style.background)), count: columns)
        for _ in 0..<min(abs(count), rows) where top <= region.bottom {
            if count > 0 {
                cells.remove(at: top)
                cells.insert(blank, at: region.bottom)
            } else {
                cells.remove(at: region.bottom)
                cells.insert(blank, at: top)
            }
        }
    }

    private mutating func escape(from at: Int) -> Int? {
        guard at + 1 < pending.count else { return nil }
        switch pending[at + 1] {
        case UInt8(ascii: "["): return control(from: at)
        case UInt8(ascii: "]"), UInt8(ascii: "P"): // OSC, DCS: up to BEL or ST
            for end in at + 2..<max(at + 2, pending.count) {
                if pending[end] == 7 { return end + 1 - at }
                if pending[end] == 0x1b, end + 1 < pending.count, pending[end + 1] == 0x5c { return end + 2 - at }
            }
            return nil
        case UInt8(ascii: "("), UInt8(ascii: ")"):
            guard at + 2 < pending.count else { return nil }
            if pending[at + 1] == UInt8(ascii: "(") { lineDrawing = pending[at + 2] == UInt8(ascii: "0") }
            return 3
        case UInt8(ascii: "7"): saved = cursor
        case UInt8(ascii: "8"): cursor = saved
        case UInt8(ascii: "M"): if cursor.row == region.top { scroll(-1, from: region.top) } else { cursor.row = max(0, cursor.row - 1) }
        case UInt8(ascii: "c"): self = VirtualScreen(columns: columns, rows: rows)
        default: break
        }
        return 2
    }

    private mutating func control(from at: Int) -> Int? {
        var end = at + 2
        while end < pending.count, !(0x40...0x7e).contains(pending[end]) { end += 1 }
        guard end < pending.count else { return nil }
        let body = String(decoding: pending[(at + 2)..<end], as: UTF8.self)
        let isPrivate = body.hasPrefix("?") || body.hasPrefix(">")
        let digits = body.drop { "?>".contains($0) }.prefix { $0.isNumber || $0 == ";" || $0 == ":" }
        let numbers = digits.split(omittingEmptySubsequences: false, whereSeparator: { $0 == ";" || $0 == ":" }).map { Int($0) ?? 0 }
        func n(_ index: Int = 0) -> Int { max(1, index < numbers.count ? numbers[index] : 1) }
        let used = end + 1 - at
        let final = Character(Unicode.Scalar(pending[end]))
        if isPrivate {
            if final == "h" || final == "l" { for mode in numbers { setMode(mode, final == "h") } }
            if final == "c" { replies.append(contentsOf: Array("\u{1b}[?62;22c".utf8)) }
            return used
        }
        wrapsNext = false
        switch final {
        case "A": cursor.row = max(0, cursor.row - n())
        case "B", "e": cursor.row = min(rows - 1, cursor.row + n())
        case "C", "a": cursor.column = min(columns - 1, cursor.column + n())
        case "D": cursor.column = max(0, cursor.column - n())
        case "G", "`": cursor.column = min(columns, n()) - 1
        case "d": cursor.row = min(rows, n()) - 1
        case "H", "f": cursor = (min(columns, n(1)) - 1, min(rows, n(0)) - 1)
        case "J": eraseDisplay(numbers.first ?? 0)
        case "K": erase(row: cursor.row, numbers.first ?? 0)
        case "X": blank(cursor.row, cursor.column..<min(columns, cursor.column + n()))
        case "P":
            let count = min(n(), columns - cursor.column)
            cells[cursor.row].removeSubrange(cursor.column..<cursor.column + count)
            cells[cursor.row].append(contentsOf: Array(repeating: Cell(), count: count))
        case "@":
            let count = min(n(), columns - cursor.column)
            cells[cursor.row].removeLast(count)
            cells[cursor.row].insert(contentsOf: Array(repeating: Cell(), count: count), at: cursor.column)
        case "L": scroll(-n(), from: cursor.row)
        case "M": scroll(n(), from: cursor.row)
        case "S": scroll(n(), from: region.top)
        case "T": scroll(-n(), from: region.top)
        case "r":
            region = (n(0) - 1, min(rows, numbers.count > 1 ? n(1) : rows) - 1)
            cursor = (0, 0)
        case "b":
            if cursor.column > 0 {
                let text = cells[cursor.row][cursor.column - 1].text
                for _ in 0..<n() { put(text) }
            }
        case "m": select(numbers.isEmpty ? [0] : numbers)
        case "n": if numbers.first == 6 { replies.append(contentsOf: Array("\u{1b}[\(cursor.row + 1);\(cursor.column + 1)R".utf8)) }
        case "c": replies.append(contentsOf: Array("\u{1b}[?62;22c".utf8))
        default: break
        }
        return used
    }

    private mutating func setMode(_ mode: Int, _ isOn: Bool) {
        if mode == 1049 || mode == 47 || mode == 1047 {
            if isOn, mainScreen == nil {
                mainScreen = cells
                saved = cursor
                cells = Array(repeating: Array(repeating: Cell(), count: columns), count: rows)
            } else if !isOn, let main = mainScreen {
                cells = main
                cursor = saved
                mainScreen = nil
            }
        }
        if mode == 25 { isCursorVisible = isOn }
        if isOn { modes.insert(mode) } else { modes.remove(mode) }
    }

    private mutating func eraseDisplay(_ how: Int) {
        if how == 0 {
            erase(row: cursor.row, 0)
            for row in (cursor.row + 1)..<max(cursor.row + 1, rows) { blank(row, 0..<columns) }
        } else if how == 1 {
            for row in 0..<cursor.row { blank(row, 0..<columns) }
            erase(row: cursor.row, 1)
        } else {
            for row in 0..<rows { blank(row, 0..<columns) }
        }
    }

    private mutating func erase(row: Int, _ how: Int) {
        blank(row, how == 0 ? cursor.column..<columns : how == 1 ? 0..<min(columns, cursor.column + 1) : 0..<columns)
    }

    private mutating func blank(_ row: Int, _ range: Range<Int>) {
        for column in range { cells[row][column] = Cell(text: " ", style: Style(background: style.background)) }
    }

    private mutating func select(_ numbers: [Int]) {
        var index = 0
        while index < numbers.count {
            let code = numbers[index]
            switch code {
            case 0: style = Style()
            case 1: style.isBold = true
            case 22: style.isBold = false
            case 7: style.isReverse = true
            case 27: style.isReverse = false
            case 38, 48:
                let length = index + 1 < numbers.count && numbers[index + 1] == 2 ? 5 : 3
                let value = numbers[index..<min(numbers.count, index + length)].map(String.init).joined(separator: ";")
                if code == 38 { style.foreground = value } else { style.background = value }
                index += length - 1
            case 39: style.foreground = ""
            case 49: style.background = ""
            case 30...37, 90...97: style.foreground = "\(code)"
            case 40...47, 100...107: style.background = "\(code)"
            default: break
            }
            index += 1
        }
    }
}
