/// A text of lines with a cursor, selection-free, with undo and redo. Columns count characters (grapheme clusters), so a cursor
/// never stands inside one.
struct TextEditor: Hashable, Sendable {
    struct Place: Hashable, Comparable, Sendable {
        var line: Int
        var column: Int

        static func < (a: Place, b: Place) -> Bool { a.line != b.line ? a.line < b.line : a.column < b.column }
    }

    /// One replacement; its inverse is itself with texts swapped.
    struct Edit: Hashable, Sendable {
        var start: Place
        var removed: [[Character]]
        var inserted: [[Character]]
        var cursorBefore: Place
        var cursorAfter: Place
        /// Typed in one go with the edit before: undone together.
        var joinsPrevious: Bool
    }

    static let undoLimit = 10_000

    private(set) var lines: [[Character]]
    private(set) var cursor = Place(line: 0, column: 0)
    /// The column that up and down try to keep.
    private var wishedColumn = 0
    private var undone: [Edit] = []
    private var done: [Edit] = []
    private var isTyping = false

    init(_ text: String) {
        lines = TextEditor.split(text)
    }

    /// Lines end at LF only: a CR stays a character of its line, so that any text comes back byte for byte.
    private static func split(_ text: String) -> [[Character]] {
        text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { Array(String($0)) }
    }

    var text: String { lines.map { String($0) }.joined(separator: "\n") }
    var isEmpty: Bool { lines.count == 1 && lines[0].isEmpty }
    var canUndo: Bool { !done.isEmpty }
    var canRedo: Bool { !undone.isEmpty }

    // MARK: Changing

    mutating func insert(_ text: String) { replace(cursor..<cursor, with: TextEditor.split(text), isTyping: text.count == 1 && text != "\n") }

    /// Replaces everything; one step of undo.
    mutating func replaceAll(_ text: String) {
        let end = Place(line: lines.count - 1, column: lines[lines.count - 1].count)
        replace(Place(line: 0, column: 0)..<end, with: TextEditor.split(text), isTyping: false)
        place(at: Place(line: 0, column: 0))
    }

    private mutating func replace(_ range: Range<Place>, with inserted: [[Character]], isTyping typing: Bool) {
        let removed = slice(range)
        if removed.count == 1, removed[0].isEmpty, inserted.count == 1, inserted[0].isEmpty { return }
        let before = cursor
        let edit = Edit(start: range.lowerBound, removed: removed, inserted: inserted, cursorBefore: before,
                        cursorAfter: TextEditor.end(range.lowerBound, inserted), joinsPrevious: typing && isTyping)
        swap(edit.start, removed: edit.removed, inserted: edit.inserted)
        // A cluster can form across the seam (a letter and a combining mark): count again.
        place(at: edit.cursorAfter)
        done.append(edit)
        if done.count > TextEditor.undoLimit { done.removeFirst(TextEditor.undoLimit / 10) }
        undone = []
        isTyping = typing
    }

    mutating func undo() {
        while let edit = done.popLast() {
            swap(edit.start, removed: edit.inserted, inserted: edit.removed)
            place(at: edit.cursorBefore)
            undone.append(edit)
            if !edit.joinsPrevious { break }
        }
        isTyping = false
    }

    mutating func redo() {
        while let edit = undone.popLast() {
            swap(edit.start, removed: edit.removed, inserted: edit.inserted)
            place(at: edit.cursorAfter)
            done.append(edit)
            if !(undone.last?.joinsPrevious ?? false) { break }
        }
        isTyping = false
    }

    private static func end(_ start: Place, _ text: [[Character]]) -> Place {
        text.count == 1 ? Place(line: start.line, column: start.column + text[0].count) : Place(line: start.line + text.count - 1, column: text[text.count - 1].count)
    }

    private func slice(_ range: Range<Place>) -> [[Character]] {
        let a = range.lowerBound, b = range.upperBound
        if a.line == b.line { return [Array(lines[a.line][a.column..<b.column])] }
        return [Array(lines[a.line][a.column...])] + lines[a.line + 1..<b.line] + [Array(lines[b.line][..<b.column])]
    }

    private mutating func swap(_ start: Place, removed: [[Character]], inserted: [[Character]]) {
        let end = TextEditor.end(start, removed)
        let head = lines[start.line][..<start.column], tail = lines[end.line][end.column...]
        var fresh = inserted
        fresh[0] = Array(head) + fresh[0]
        fresh[fresh.count - 1] += tail
        lines.replaceSubrange(start.line...end.line, with: fresh)
    }

    // MARK: Moving

    mutating func place(at place: Place) {
        let line = min(max(0, place.line), lines.count - 1)
        cursor = Place(line: line, column: min(max(0, place.column), lines[line].count))
        wishedColumn = cursor.column
    }

    private mutating func moveLines(_ delta: Int) {
        let line = min(max(0, cursor.line + delta), lines.count - 1)
        if line == cursor.line {
            place(at: Place(line: line, column: delta < 0 ? 0 : lines[line].count))
            return
        }
        cursor = Place(line: line, column: min(wishedColumn, lines[line].count))
    }

    private var previousPlace: Place {
        if cursor.column > 0 { return Place(line: cursor.line, column: cursor.column - 1) }
        return cursor.line > 0 ? Place(line: cursor.line - 1, column: lines[cursor.line - 1].count) : cursor
    }

    private var nextPlace: Place {
        if cursor.column < lines[cursor.line].count { return Place(line: cursor.line, column: cursor.column + 1) }
        return cursor.line + 1 < lines.count ? Place(line: cursor.line + 1, column: 0) : cursor
    }

    private func wordPlace(_ forward: Bool) -> Place {
        let line = lines[cursor.line]
        var column = cursor.column
        if forward {
            if column == line.count { return nextPlace }
            while column < line.count, !line[column].isWordPart { column += 1 }
            while column < line.count, line[column].isWordPart { column += 1 }
        } else {
            if column == 0 { return previousPlace }
            while column > 0, !line[column - 1].isWordPart { column -= 1 }
            while column > 0, line[column - 1].isWordPart { column -= 1 }
        }
        return Place(line: cursor.line, column: column)
    }

    /// Handles an editing or moving key; false when the key is not one. `pageRows` is what PgUp and PgDn move by.
    mutating func handle(_ key: KeyPress, pageRows: Int) -> Bool {
        let typed = isTyping
        isTyping = false
        switch (key.code, key.modifiers) {
        case (.character(let character), []):
            isTyping = typed
            insert(String(character))
        case (.enter, _): insertLine()
        case (.tab, []): insert("  ")
        case (.backspace, []), (.character("h"), .control): replace(previousPlace..<cursor, with: [[]], isTyping: false)
        case (.delete, []), (.character("d"), .control): replace(cursor..<nextPlace, with: [[]], isTyping: false)
        case (.character("w"), .control), (.backspace, .alt): replace(wordPlace(false)..<cursor, with: [[]], isTyping: false)
        case (.character("k"), .control):
            let end = Place(line: cursor.line, column: lines[cursor.line].count)
            replace(cursor..<(end == cursor ? nextPlace : end), with: [[]], isTyping: false)
        case (.left, []), (.character("b"), .control): place(at: previousPlace)
        case (.right, []), (.character("f"), .control): place(at: nextPlace)
        case (.left, _), (.character("b"), .alt): place(at: wordPlace(false))
        case (.right, _), (.character("f"), .alt): place(at: wordPlace(true))
        case (.up, _), (.character("p"), .control): moveLines(-1)
        case (.down, _), (.character("n"), .control): moveLines(1)
        case (.pageUp, _): moveLines(-max(1, pageRows - 1))
        case (.pageDown, _): moveLines(max(1, pageRows - 1))
        case (.home, []), (.character("a"), .control): place(at: Place(line: cursor.line, column: 0))
        case (.end, []), (.character("e"), .control): place(at: Place(line: cursor.line, column: lines[cursor.line].count))
        case (.home, _): place(at: Place(line: 0, column: 0))
        case (.end, _): place(at: Place(line: lines.count - 1, column: .max))
        default: return false
        }
        return true
    }

    /// A new line starts where the text of the one above starts.
    private mutating func insertLine() {
        let indent = lines[cursor.line].prefix(cursor.column).prefix { $0 == " " || $0 == "\t" }
        insert("\n" + String(indent))
    }
}
