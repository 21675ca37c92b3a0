/// 24-bit sRGB.
public struct RGB: Hashable, Sendable {
    public var red: UInt8
    public var green: UInt8
    public var blue: UInt8

    public init(_ red: UInt8, _ green: UInt8, _ blue: UInt8) {
        self.red = red
        self.green = green
        self.blue = blue
    }

    /// Reads `#rrggbb` or `#rgb`; nil for anything else.
    public init?(hex: String) {
        guard hex.first == "#" else { return nil }
        let digits = hex.dropFirst().compactMap(\.hexDigitValue)
        guard digits.count == hex.utf8.count - 1 else { return nil }
        switch digits.count {
        case 3: self.init(UInt8(digits[0] * 17), UInt8(digits[1] * 17), UInt8(digits[2] * 17))
        case 6: self.init(UInt8(digits[0] * 16 + digits[1]), UInt8(digits[2] * 16 + digits[3]), UInt8(digits[4] * 16 + digits[5]))
        default: return nil
        }
    }
}

/// What a colour means. The theme says which colour that is; views name only slots and gradients.
public enum Slot: UInt8, CaseIterable, Hashable, Sendable {
    /// Page background and text, from loud to quiet.
    case background, text, dim, faint
    /// The one accent, and the three states.
    case accent, ok, warn, bad
    /// Panel borders, the focused one, panel titles, key caps in hints.
    case border, focus, title, key
    /// The selected row (background, text), marked rows, matched text of a filter, the overlay's background.
    case select, selectText, mark, match, overlay
    /// Raft roles.
    case leader, follower, candidate, learner, down
    /// Changes in data.
    case add, delete, change
    /// Header bar background per mode, and its text.
    case header, headerAttached, headerAsk, headerReadOnly, headerText
    /// Values as JSON.
    case jsonKey, jsonString, jsonNumber, jsonLiteral, jsonPunctuation
    /// Chart ink: first and second series.
    case series1, series2
    /// The log window: applied, committed, received, missing.
    case logApplied, logCommitted, logReceived, logMissing

    /// The name used in theme files: the case's name.
    public var name: String { String(describing: self) }
}

/// A run of colours from calm (0) to alarming (100).
public enum Gradient: UInt8, CaseIterable, Hashable, Sendable {
    case load, latency, lag, heat, age

    public var name: String { String(describing: self) }
}

/// A colour as views use it: a meaning, not a value. Resolved by `Theme`.
public struct Color: Hashable, Sendable {
    /// Tag in the top byte (0 terminal default, 1 slot, 2 gradient, 3 RGB), payload below.
    public var raw: UInt32

    @inlinable init(raw: UInt32) { self.raw = raw }

    /// Whatever the terminal has: used for text on no particular background.
    public static let terminalDefault = Color(raw: 0)

    public static func slot(_ slot: Slot) -> Color { Color(raw: 1 << 24 | UInt32(slot.rawValue)) }

    /// A step of a gradient, 0...100; values outside are clamped.
    public static func gradient(_ gradient: Gradient, _ step: Int) -> Color {
        Color(raw: 2 << 24 | UInt32(gradient.rawValue) << 8 | UInt32(min(100, max(0, step))))
    }

    public static func rgb(_ rgb: RGB) -> Color {
        Color(raw: 3 << 24 | UInt32(rgb.red) << 16 | UInt32(rgb.green) << 8 | UInt32(rgb.blue))
    }

    public enum Kind: Hashable, Sendable {
        case terminalDefault
        case slot(Slot)
        case gradient(Gradient, step: Int)
        case rgb(RGB)
    }

    public var kind: Kind {
        switch raw >> 24 {
        case 1: .slot(Slot(rawValue: UInt8(raw & 0xff))!)
        case 2: .gradient(Gradient(rawValue: UInt8(raw >> 8 & 0xff))!, step: Int(raw & 0xff))
        case 3: .rgb(RGB(UInt8(raw >> 16 & 0xff), UInt8(raw >> 8 & 0xff), UInt8(raw & 0xff)))
        default: .terminalDefault
        }
    }
}

/// Text attributes; the backend draws those that the terminal has.
public struct Attributes: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8

    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let bold = Attributes(rawValue: 1)
    public static let dim = Attributes(rawValue: 2)
    public static let italic = Attributes(rawValue: 4)
    public static let underline = Attributes(rawValue: 8)
    public static let reverse = Attributes(rawValue: 16)
}

/// How a cell looks.
public struct Style: Hashable, Sendable {
    public var foreground: Color
    public var background: Color
    public var attributes: Attributes

    public init(foreground: Color = .slot(.text), background: Color = .slot(.background), attributes: Attributes = []) {
        self.foreground = foreground
        self.background = background
        self.attributes = attributes
    }

    static let plain = Style()

    static func ink(_ slot: Slot, _ attributes: Attributes = []) -> Style {
        Style(foreground: .slot(slot), attributes: attributes)
    }

    func on(_ slot: Slot) -> Style {
        var copy = self
        copy.background = .slot(slot)
        return copy
    }

    func with(_ attributes: Attributes) -> Style {
        var copy = self
        copy.attributes.formUnion(attributes)
        return copy
    }
}
