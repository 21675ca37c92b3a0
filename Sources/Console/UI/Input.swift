/// One key stroke as the terminal reported it.
public struct KeyPress: Hashable, Sendable {
    public enum Code: Hashable, Sendable {
        /// A printable character. Capitals arrive as capitals without `.shift`; control-p is `"p"` with `.control`.
        case character(Character)
        case enter, escape, tab, backTab, backspace, delete, insert
        case up, down, left, right, home, end, pageUp, pageDown
        /// F1 is `function(1)`.
        case function(Int)
    }

    public struct Modifiers: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8

        public init(rawValue: UInt8) { self.rawValue = rawValue }

        public static let control = Modifiers(rawValue: 1)
        public static let alt = Modifiers(rawValue: 2)
        /// Only for keys that are not characters (shift-up).
        public static let shift = Modifiers(rawValue: 4)
    }

    public var code: Code
    public var modifiers: Modifiers

    public init(_ code: Code, _ modifiers: Modifiers = []) {
        self.code = code
        self.modifiers = modifiers
    }

    /// A plain character key.
    public init(_ character: Character) { self.init(.character(character)) }

    /// Control and a lower-case letter.
    public static func control(_ character: Character) -> KeyPress { KeyPress(.character(character), .control) }
}

/// A mouse report, position in cells from (0, 0).
public struct MouseEvent: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        case leftPress, middlePress, rightPress, release, drag, wheelUp, wheelDown
    }

    public var kind: Kind
    public var position: Position

    public init(kind: Kind, position: Position) {
        self.kind = kind
        self.position = position
    }
}
