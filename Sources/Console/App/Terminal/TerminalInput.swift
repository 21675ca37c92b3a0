import CNcurses
import UI

/// What the terminal said.
enum TerminalEvent: Hashable, Sendable {
    case key(KeyPress)
    case mouse(MouseEvent)
    case paste(String)
    case focused(Bool)
    /// The answer to a DECRQM query of a private mode: 0 unknown, 1 set, 2 reset, 3 always set, 4 always reset.
    case privateMode(Int, state: Int)
}

/// Turns what the key reader yields (characters, key codes, beginnings of reports) into events. A value: it carries half-received
/// reports from one read to the next.
struct InputDecoder {
    enum Raw: Hashable {
        case character(UInt32)
        case key(UInt32)
        /// Nothing more has arrived for now.
        case pause
    }

    /// A paste longer than this is cut: it is text for a field, not a file transfer.
    static let pasteLimitScalars = 1 << 20

    private enum State {
        case ground
        /// Escape came; what follows at once belongs to it (alt), a pause makes it the Escape key.
        case escape
        /// Inside a sequence that nobody knows: swallowed up to its final byte.
        case unknownSequence(introducer: UInt32, length: Int)
        case mouse([UInt8])
        case privateReport([UInt8])
        case paste
    }

    private var state = State.ground
    private var pasted = String.UnicodeScalarView()
    private var pastedCount = 0

    /// Whether a sequence is half received.
    var isInsideSequence: Bool {
        if case .ground = state { false } else { true }
    }

    mutating func feed(_ raw: Raw, into events: inout [TerminalEvent]) {
        switch state {
        case .ground: ground(raw, alt: false, into: &events)
        case .escape: escape(raw, into: &events)
        case .unknownSequence(let introducer, let length): unknown(raw, introducer, length, into: &events)
        case .mouse(let text): mouse(raw, text, into: &events)
        case .privateReport(let text): privateReport(raw, text, into: &events)
        case .paste: paste(raw, into: &events)
        }
    }

    private mutating func ground(_ raw: Raw, alt: Bool, into events: inout [TerminalEvent]) {
        switch raw {
        case .pause: break
        case .character(27) where !alt: state = .escape
        case .character(let scalar):
            if let key = Self.key(forScalar: scalar, alt: alt) { events.append(.key(key)) }
        case .key(let code):
            switch Int(code) {
            case QD_REPORT_MOUSE: state = .mouse([])
            case QD_REPORT_PRIVATE: state = .privateReport([])
            case QD_REPORT_PASTE_BEGIN: state = .paste
            case QD_REPORT_PASTE_END: break // its beginning was lost
            case QD_REPORT_FOCUS_IN: events.append(.focused(true))
            case QD_REPORT_FOCUS_OUT: events.append(.focused(false))
            default:
                if let key = Self.key(forCode: Int(code), alt: alt) { events.append(.key(key)) }
            }
        }
    }

    private mutating func escape(_ raw: Raw, into events: inout [TerminalEvent]) {
        state = .ground
        switch raw {
        case .pause: events.append(.key(KeyPress(.escape)))
        case .character(27): // the first was a key of its own
            events.append(.key(KeyPress(.escape)))
            state = .escape
        // "[" CSI, "O" SS3, "]" OSC, "P" DCS, "_" APC. What ncurses knows of these never gets here.
        case .character(let scalar) where [0x5b, 0x4f, 0x5d, 0x50, 0x5f].contains(scalar):
            state = .unknownSequence(introducer: scalar, length: 0)
        case .key(let code) where code >= UInt32(QD_REPORT_MOUSE):
            events.append(.key(KeyPress(.escape)))
            ground(raw, alt: false, into: &events)
        default: ground(raw, alt: true, into: &events)
        }
    }

    private mutating func unknown(_ raw: Raw, _ introducer: UInt32, _ length: Int, into events: inout [TerminalEvent]) {
        guard case .character(let scalar) = raw else {
            state = .ground
            // Alt with one of the introducers is told from a sequence only by the pause after it.
            if length == 0, raw == .pause, let key = Self.key(forScalar: introducer, alt: true) { events.append(.key(key)) }
            return
        }
        let isOver = switch introducer {
        case 0x4f: true
        case 0x5b: (0x40...0x7e).contains(scalar)
        default: scalar == 7 || scalar == 0x9c || scalar == 0x5c // BEL, ST, or the "\" of "ESC \"
        }
        state = isOver || length > 4096 ? .ground : .unknownSequence(introducer: introducer, length: length + 1)
    }

    /// Feeds all that one read gave, and the pause after it.
    mutating func feed(_ all: some Sequence<Raw>, into events: inout [TerminalEvent]) {
        for raw in all { feed(raw, into: &events) }
        feed(.pause, into: &events)
    }

    private mutating func mouse(_ raw: Raw, _ text: [UInt8], into events: inout [TerminalEvent]) {
        switch raw {
        case .pause: break // the rest is on its way
        case .character(let scalar) where (0x30...0x3b).contains(scalar) && text.count < 32:
            state = .mouse(text + [UInt8(scalar)])
        case .character(let final) where final == 0x4d || final == 0x6d:
            state = .ground
            if let event = Self.mouseEvent(text, isRelease: final == 0x6d) { events.append(.mouse(event)) }
        default:
            state = .ground // garbage: drop it
        }
    }

    /// "button;x;y" of an SGR report. Bits of button: 0-1 which, 2-4 modifiers, 5 motion, 6 wheel.
    static func mouseEvent(_ text: [UInt8], isRelease: Bool) -> MouseEvent? {
        let numbers = text.split(separator: 0x3b, omittingEmptySubsequences: false).map { digits in
            digits.isEmpty || digits.count > 6 ? -1 : digits.reduce(0) { $0 * 10 + Int($1) - 0x30 }
        }
        guard numbers.count == 3, numbers.allSatisfy({ $0 >= 0 }), numbers[1] >= 1, numbers[2] >= 1 else { return nil }
        let button = numbers[0]
        let kind: MouseEvent.Kind
        if button & 64 != 0 {
            guard !isRelease, button & 3 < 2 else { return nil } // sideways wheels mean nothing here
            kind = button & 1 == 0 ? .wheelUp : .wheelDown
        } else if isRelease {
            kind = .release
        } else if button & 32 != 0 {
            guard button & 3 != 3 else { return nil } // motion without a button
            kind = .drag
        } else {
            switch button & 3 {
            case 0: kind = .leftPress
            case 1: kind = .middlePress
            case 2: kind = .rightPress
            default: kind = .release
            }
        }
        return MouseEvent(kind: kind, position: Position(column: numbers[1] - 1, row: numbers[2] - 1))
    }

    private mutating func privateReport(_ raw: Raw, _ text: [UInt8], into events: inout [TerminalEvent]) {
        switch raw {
        case .pause: break
        case .character(let scalar) where (0x20...0x3f).contains(scalar) && text.count < 64:
            state = .privateReport(text + [UInt8(scalar)])
        case .character(let final):
            state = .ground
            // "mode;state$y" answers DECRQM; anything else (device attributes) is not asked for.
            guard final == 0x79, text.last == 0x24 else { return }
            let numbers = text.dropLast().split(separator: 0x3b).map { Int(String(decoding: $0, as: UTF8.self)) ?? -1 }
            if numbers.count == 2, numbers[0] > 0 { events.append(.privateMode(numbers[0], state: numbers[1])) }
        case .key: state = .ground
        }
    }

    private mutating func paste(_ raw: Raw, into events: inout [TerminalEvent]) {
        switch raw {
        case .key(let code) where code == UInt32(QD_REPORT_PASTE_END):
            if !pasted.isEmpty { events.append(.paste(String(pasted))) }
            pasted = .init()
            pastedCount = 0
            state = .ground
        case .character(let value):
            // Carriage returns are line ends that the terminal made of them. Other controls have no place in text: an escape here
            // is half of a key that somebody hid in the clipboard.
            let cleaned: UInt32 = value == 13 ? 10 : value
            if pastedCount < Self.pasteLimitScalars, cleaned == 9 || cleaned == 10 || cleaned >= 32 && cleaned != 127,
               let scalar = Unicode.Scalar(cleaned) {
                pasted.append(scalar)
                pastedCount += 1
            }
        case .key, .pause: break
        }
    }

    // MARK: Single keys

    static func key(forScalar value: UInt32, alt: Bool) -> KeyPress? {
        let modifiers: KeyPress.Modifiers = alt ? .alt : []
        switch value {
        case 0: return KeyPress(.character(" "), modifiers.union(.control))
        case 8, 127: return KeyPress(.backspace, modifiers)
        case 9: return KeyPress(.tab, modifiers)
        case 10, 13: return KeyPress(.enter, modifiers)
        case 27: return KeyPress(.escape, modifiers)
        case 1...26: return KeyPress(.character(Character(Unicode.Scalar(UInt8(value + 96)))), modifiers.union(.control))
        case 28...31: return KeyPress(.character(Character(Unicode.Scalar(UInt8(value + 64)))), modifiers.union(.control))
        default: return Unicode.Scalar(value).map { KeyPress(.character(Character($0)), modifiers) }
        }
    }

    static func key(forCode code: Int, alt: Bool) -> KeyPress? {
        let number = code - Int(QD_KEY_BASE)
        guard number >= 0, number / 8 < Int(QD_KEY_KINDS) else { return nil }
        var modifiers: KeyPress.Modifiers = alt ? .alt : []
        if number & 1 != 0 { modifiers.insert(.shift) }
        if number & 2 != 0 { modifiers.insert(.alt) }
        if number & 4 != 0 { modifiers.insert(.control) }
        let kind = number / 8
        if kind == Int(QD_KEY_TAB) {
            return modifiers.contains(.shift) ? KeyPress(.backTab, modifiers.subtracting(.shift)) : KeyPress(.tab, modifiers)
        }
        let plain: [KeyPress.Code] = [.up, .down, .right, .left, .home, .end, .insert, .delete, .pageUp, .pageDown, .tab, .backspace, .enter]
        if kind < plain.count { return KeyPress(plain[kind], modifiers) }
        return KeyPress(.function(kind - plain.count + 1), modifiers)
    }
}
