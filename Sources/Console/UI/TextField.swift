/// One line of text being typed. Positions count characters (grapheme clusters).
struct TextField: Hashable, Sendable {
    private(set) var characters: [Character] = []
    private(set) var cursor = 0

    init(_ text: String = "") {
        characters = Array(text)
        cursor = characters.count
    }

    var text: String { String(characters) }
    var isEmpty: Bool { characters.isEmpty }

    mutating func insert(_ text: String) {
        // One line only: a pasted line break becomes a blank.
        let piece = text.map { $0.isNewline ? " " : $0 }
        characters.insert(contentsOf: piece, at: cursor)
        cursor += piece.count
    }

    /// Handles an editing key; false when the key is not one.
    mutating func handle(_ key: KeyPress) -> Bool {
        switch (key.code, key.modifiers) {
        case (.character(let character), []): insert(String(character))
        case (.left, []), (.character("b"), .control): cursor = max(0, cursor - 1)
        case (.right, []), (.character("f"), .control): cursor = min(characters.count, cursor + 1)
        case (.home, []), (.character("a"), .control): cursor = 0
        case (.end, []), (.character("e"), .control): cursor = characters.count
        case (.backspace, []), (.character("h"), .control):
            if cursor > 0 {
                cursor -= 1
                characters.remove(at: cursor)
            }
        case (.delete, []): if cursor < characters.count { characters.remove(at: cursor) }
        case (.character("u"), .control):
            characters.removeFirst(cursor)
            cursor = 0
        case (.character("k"), .control): characters.removeLast(characters.count - cursor)
        case (.character("w"), .control), (.backspace, .alt):
            var start = cursor
            while start > 0, !characters[start - 1].isWordPart { start -= 1 }
            while start > 0, characters[start - 1].isWordPart { start -= 1 }
            characters.removeSubrange(start..<cursor)
            cursor = start
        default: return false
        }
        return true
    }
}

extension Character {
    /// Letters, digits and `_`: what word movement stops at the ends of.
    var isWordPart: Bool { isLetter || isNumber || self == "_" }
}

extension Canvas {
    /// Draws a field with its cursor, scrolled so that the cursor is inside `width`; returns where the cursor is.
    mutating func field(_ field: TextField, _ column: Int, _ row: Int, width: Int, _ style: Style = .ink(.text)) {
        guard width > 1 else { return }
        var start = 0
        var used = 0
        // Characters left of the cursor that fit, the cursor cell included.
        for index in stride(from: field.cursor - 1, through: 0, by: -1) {
            used += CharacterWidth.of(field.characters[index])
            if used > width - 1 { start = index + 1; break }
        }
        var x = column
        for index in start..<field.characters.count {
            let w = CharacterWidth.of(field.characters[index])
            if index == field.cursor { grid.cursor = Position(column: x, row: row) }
            if x + w > column + width { break }
            text(String(field.characters[index]), x, row, style)
            x += w
        }
        if field.cursor == field.characters.count { grid.cursor = Position(column: min(x, column + width - 1), row: row) }
    }
}
