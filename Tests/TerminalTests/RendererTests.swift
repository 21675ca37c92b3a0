import CNcurses
import Testing
@testable import UI
@testable import quarterdeck

/// A terminal that only remembers.
private final class FakeSink: CellSink {
    var screen: [[String]]
    var columnsWritten = 0
    var flushes = 0
    var repaints = 0
    var cursor: Position?
    var colors: Set<Int32> = []

    init(_ size: Size) { screen = Array(repeating: Array(repeating: " ", count: size.columns), count: size.rows) }

    func put(column: Int, row: Int, cells: UnsafeBufferPointer<qd_cell>) {
        var column = column
        for cell in cells {
            let all = [cell.text.0, cell.text.1, cell.text.2, cell.text.3, cell.text.4]
            screen[row][column] = all.prefix(Int(cell.length)).map { String(Unicode.Scalar($0)!) }.joined()
            if cell.width == 2 { screen[row][column + 1] = "" }
            colors.insert(cell.foreground)
            column += Int(cell.width)
            columnsWritten += Int(cell.width)
        }
    }

    func setCursor(_ position: Position?) { cursor = position }
    func repaint() { repaints += 1 }
    func flush() { flushes += 1 }
    var lines: [String] { screen.map { $0.joined() } }
}

private let size = Size(columns: 20, rows: 4)

private func grid(_ lines: [String], _ style: Style = .plain) -> CellGrid {
    var grid = CellGrid(size: size)
    for (row, line) in lines.enumerated() {
        var column = 0
        for character in line {
            let width = CharacterWidth.of(character)
            grid.set(column, row, character: character, width: width, style: style)
            column += width
        }
    }
    return grid
}

@Suite struct RendererTests {
    @Test func firstFrameSendsEverythingAndTheSameFrameNothing() {
        let sink = FakeSink(size)
        var renderer = Renderer(depth: .trueColor, isASCII: false)
        renderer.show(grid(["hello", "wörld"]), theme: .quarterdeckDark, on: sink)
        #expect(sink.columnsWritten == 80)
        #expect(sink.flushes == 1)
        let again = renderer.show(grid(["hello", "wörld"]), theme: .quarterdeckDark, on: sink)
        #expect(again == Renderer.Statistics())
        #expect(sink.flushes == 1)
    }

    @Test func onlyChangedCellsAreSent() {
        let sink = FakeSink(size)
        var renderer = Renderer(depth: .trueColor, isASCII: false)
        renderer.show(grid(["hello", "world"]), theme: .quarterdeckDark, on: sink)
        sink.columnsWritten = 0
        renderer.show(grid(["hello", "wOrld"]), theme: .quarterdeckDark, on: sink)
        #expect(sink.columnsWritten == 1)
        #expect(sink.lines[1].hasPrefix("wOrld"))
    }

    @Test func movedCursorAloneIsAFrame() {
        let sink = FakeSink(size)
        var renderer = Renderer(depth: .trueColor, isASCII: false)
        var screen = grid(["x"])
        renderer.show(screen, theme: .quarterdeckDark, on: sink)
        screen.cursor = Position(column: 1, row: 0)
        renderer.show(screen, theme: .quarterdeckDark, on: sink)
        #expect(sink.flushes == 2)
        #expect(sink.cursor == Position(column: 1, row: 0))
    }

    @Test func wideCharactersReplacedByNarrowOnesAndBackLeaveNoHalves() {
        let sink = FakeSink(size)
        var renderer = Renderer(depth: .trueColor, isASCII: false)
        for line in ["a漢字b", "abcdef", "漢abc字", "ab漢字", "e\u{301}x漢", "漢字漢字"] {
            renderer.show(grid([line]), theme: .quarterdeckDark, on: sink)
            #expect(sink.lines[0].trimmingTail == line)
        }
    }

    @Test func invalidateSendsEverythingAgain() {
        let sink = FakeSink(size)
        var renderer = Renderer(depth: .trueColor, isASCII: false)
        renderer.show(grid(["x"]), theme: .quarterdeckDark, on: sink)
        renderer.invalidate()
        sink.columnsWritten = 0
        renderer.show(grid(["x"]), theme: .quarterdeckDark, on: sink)
        #expect(sink.columnsWritten == 80)
        #expect(sink.repaints == 1)
    }

    @Test func asciiScreenHasOnlyAscii() {
        let sink = FakeSink(size)
        var renderer = Renderer(depth: .mono, isASCII: true)
        renderer.show(grid(["┏━ ♛ 漢 é █"]), theme: .quarterdeckDark, on: sink)
        #expect(sink.lines.allSatisfy { $0.unicodeScalars.allSatisfy { $0.value < 0x7f } })
        #expect(sink.colors == [-1])
    }

    @Test func randomScreensAlwaysEndUpOnTheTerminal() {
        for seed in UInt64(1)...40 {
            var state = seed &* 0x9e37_79b9_7f4a_7c15
            func next(_ bound: Int) -> Int {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int(state >> 33) % bound
            }
            let sink = FakeSink(size)
            var renderer = Renderer(depth: .indexed256, isASCII: false)
            let alphabet: [Character] = ["a", "b", " ", "漢", "字", "e\u{301}", "♛"]
            var screen = CellGrid(size: size)
            for _ in 0..<60 {
                for _ in 0..<next(12) {
                    let character = alphabet[next(alphabet.count)]
                    screen.set(next(20), next(4), character: character, width: CharacterWidth.of(character), style: .ink(next(2) == 0 ? .ok : .bad))
                }
                renderer.show(screen, theme: .quarterdeckDark, on: sink)
                let expected = (0..<4).map { screen.text(row: $0) }
                #expect(sink.lines == expected, "seed \(seed)")
                if sink.lines != expected { return }
            }
        }
    }
}

extension String {
    fileprivate var trimmingTail: String {
        var copy = self
        while copy.last == " " { copy.removeLast() }
        return copy
    }
}
