import Base

/// What is wrong with a JSON text or with its fit to a message. The words are those of Go's encoding/json, which etcd's clients get to see.
struct JSONFault: Error, Equatable {
    let message: String
    init(_ message: String) { self.message = message }

    static let unexpectedEnd = JSONFault("unexpected EOF")

    static func invalid(_ byte: UInt8, _ context: String) -> JSONFault { JSONFault("invalid character \(quoted(byte)) \(context)") }
    static func mismatch(_ what: String, _ type: String) -> JSONFault { JSONFault("json: cannot unmarshal \(what) into Go value of type \(type)") }

    private static func quoted(_ byte: UInt8) -> String {
        switch byte {
        case UInt8(ascii: "'"): return "'\\''"
        case UInt8(ascii: "\""): return "'\"'"
        default: return "'\(GoText.escaped(Unicode.Scalar(byte)))'"
        }
    }
}

/// How Go quotes text in its messages.
enum GoText {
    /// `strconv.Quote`.
    static func quoted(_ bytes: [UInt8]) -> String { "\"" + String(decoding: bytes, as: UTF8.self).unicodeScalars.map(escaped).joined() + "\"" }

    static func escaped(_ scalar: Unicode.Scalar) -> String {
        func hex(_ digits: Int) -> String {
            let text = String(scalar.value, radix: 16)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        switch scalar {
        case "\"": return "\\\""
        case "\\": return "\\\\"
        case "\u{7}": return "\\a"
        case "\u{8}": return "\\b"
        case "\u{c}": return "\\f"
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        case "\u{b}": return "\\v"
        default: break
        }
        if scalar.value < 0x20 || scalar.value == 0x7f { return "\\x" + hex(2) }
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: break
        case .spaceSeparator where scalar != " ": break
        default: return String(Character(scalar))
        }
        return scalar.value > 0xffff ? "\\U" + hex(8) : "\\u" + hex(4)
    }
}

/// Reads JSON byte by byte and knows where a value ends, so that the requests of a stream are found in whatever portions they come.
struct JSONScanner {
    enum Step {
        case more
        /// The value ended before this byte, which belongs to what follows.
        case endedBefore
        /// The value ended with this byte.
        case ended
    }

    private enum State: Equatable {
        case value, valueOrEndOfArray, key, keyOrEndOfObject, afterValue
        case string, escape, hex(left: Int)
        case minus, zero, digits, dot, fraction, exponent, exponentSign, exponentDigits
        case literal(StaticWord, at: Int)
    }
    private enum StaticWord: String { case `true`, `false`, null }
    private enum Container { case objectKey, objectValue, array }

    /// Go's bound on objects and arrays within each other.
    private static let maxDepth = 10_000

    private var state = State.value
    private var stack: [Container] = []
    /// A byte that is no space has been seen.
    private(set) var hasBegun = false

    static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 }

    /// - Throws: `JSONFault` when no JSON text goes on like this.
    mutating func step(_ byte: UInt8) throws(JSONFault) -> Step {
        switch state {
        case .string:
            if byte == UInt8(ascii: "\"") {
                state = .afterValue
            } else if byte == UInt8(ascii: "\\") {
                state = .escape
            } else if byte < 0x20 {
                throw .invalid(byte, "in string literal")
            }
            return .more
        case .value, .valueOrEndOfArray:
            if JSONScanner.isSpace(byte) { return .more }
            hasBegun = true
            if state == .valueOrEndOfArray, byte == UInt8(ascii: "]") { return end() }
            return try begin(byte)
        case .key, .keyOrEndOfObject:
            if JSONScanner.isSpace(byte) { return .more }
            if byte == UInt8(ascii: "\"") {
                state = .string
                return .more
            }
            if state == .keyOrEndOfObject, byte == UInt8(ascii: "}") { return end() }
            throw .invalid(byte, "looking for beginning of object key string")
        case .afterValue: return try after(byte)
        case .escape:
            switch byte {
            case UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"), UInt8(ascii: "\\"), UInt8(ascii: "/"),
                 UInt8(ascii: "\""):
                state = .string
            case UInt8(ascii: "u"): state = .hex(left: 4)
            default: throw .invalid(byte, "in string escape code")
            }
            return .more
        case .hex(let left):
            guard JSONScanner.hexDigit(byte) != nil else { throw .invalid(byte, "in \\u hexadecimal character escape") }
            state = left > 1 ? .hex(left: left - 1) : .string
            return .more
        case .minus:
            guard JSONScanner.isDigit(byte) else { throw .invalid(byte, "in numeric literal") }
            state = byte == UInt8(ascii: "0") ? .zero : .digits
            return .more
        case .digits where JSONScanner.isDigit(byte): return .more
        case .zero, .digits:
            switch byte {
            case UInt8(ascii: "."): state = .dot
            case UInt8(ascii: "e"), UInt8(ascii: "E"): state = .exponent
            default: return try after(byte)
            }
            return .more
        case .dot:
            guard JSONScanner.isDigit(byte) else { throw .invalid(byte, "after decimal point in numeric literal") }
            state = .fraction
            return .more
        case .fraction:
            if JSONScanner.isDigit(byte) { return .more }
            guard byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E") else { return try after(byte) }
            state = .exponent
            return .more
        case .exponent where byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-"):
            state = .exponentSign
            return .more
        case .exponent, .exponentSign:
            guard JSONScanner.isDigit(byte) else { throw .invalid(byte, "in exponent of numeric literal") }
            state = .exponentDigits
            return .more
        case .exponentDigits: return JSONScanner.isDigit(byte) ? .more : try after(byte)
        case .literal(let word, let at):
            let letters = word.rawValue.utf8
            let expected = letters[letters.index(letters.startIndex, offsetBy: at)]
            guard byte == expected else { throw .invalid(byte, "in literal \(word.rawValue) (expecting '\(Unicode.Scalar(expected))')") }
            state = at + 1 == letters.count ? .afterValue : .literal(word, at: at + 1)
            return .more
        }
    }

    /// The input is over: whether what was read is a whole value.
    mutating func finish() -> Bool {
        guard hasBegun, let step = try? self.step(0x20) else { return false }
        if case .more = step { return false }
        return true
    }

    private mutating func begin(_ byte: UInt8) throws(JSONFault) -> Step {
        switch byte {
        case UInt8(ascii: "{"): try push(.objectKey, .keyOrEndOfObject, byte)
        case UInt8(ascii: "["): try push(.array, .valueOrEndOfArray, byte)
        case UInt8(ascii: "\""): state = .string
        case UInt8(ascii: "-"): state = .minus
        case UInt8(ascii: "0"): state = .zero
        case UInt8(ascii: "1")...UInt8(ascii: "9"): state = .digits
        case UInt8(ascii: "t"): state = .literal(.true, at: 1)
        case UInt8(ascii: "f"): state = .literal(.false, at: 1)
        case UInt8(ascii: "n"): state = .literal(.null, at: 1)
        default: throw .invalid(byte, "looking for beginning of value")
        }
        return .more
    }

    private mutating func push(_ container: Container, _ next: State, _ byte: UInt8) throws(JSONFault) {
        guard stack.count < JSONScanner.maxDepth else { throw .invalid(byte, "exceeded max depth") }
        stack.append(container)
        state = next
    }

    private mutating func end() -> Step {
        stack.removeLast()
        state = .afterValue
        return stack.isEmpty ? .ended : .more
    }

    private mutating func after(_ byte: UInt8) throws(JSONFault) -> Step {
        state = .afterValue
        guard let last = stack.last else { return .endedBefore }
        if JSONScanner.isSpace(byte) { return .more }
        switch last {
        case .objectKey:
            guard byte == UInt8(ascii: ":") else { throw .invalid(byte, "after object key") }
            stack[stack.count - 1] = .objectValue
            state = .value
            return .more
        case .objectValue:
            if byte == UInt8(ascii: "}") { return end() }
            guard byte == UInt8(ascii: ",") else { throw .invalid(byte, "after object key:value pair") }
            stack[stack.count - 1] = .objectKey
            state = .key
            return .more
        case .array:
            if byte == UInt8(ascii: "]") { return end() }
            guard byte == UInt8(ascii: ",") else { throw .invalid(byte, "after array element") }
            state = .value
            return .more
        }
    }

    static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }

    static func hexDigit(_ byte: UInt8) -> UInt32? {
        switch byte {
        case 0x30...0x39: UInt32(byte - 0x30)
        case 0x41...0x46: UInt32(byte - 0x41 + 10)
        case 0x61...0x66: UInt32(byte - 0x61 + 10)
        default: nil
        }
    }
}

/// The values of a body, one after the other, as its parts come in.
struct JSONStream {
    private var scanner = JSONScanner()
    private var bytes: [UInt8] = []
    /// Where the next value begins, and how far it was read.
    private var start = 0
    private var scanned = 0

    /// Bytes that wait for the rest of their value.
    var waitingBytes: Int { bytes.count - start }

    mutating func append(_ part: some Sequence<UInt8>) {
        if start > 0 {
            bytes.removeFirst(start)
            (start, scanned) = (0, scanned - start)
        }
        bytes.append(contentsOf: part)
    }

    /// The next whole value; nil when its end has not come yet. After a fault the stream is of no more use.
    mutating func next() throws(JSONFault) -> [UInt8]? {
        while scanned < bytes.count {
            switch try scanner.step(bytes[scanned]) {
            case .more: scanned += 1
            case .endedBefore: return take()
            case .ended:
                scanned += 1
                return take()
            }
        }
        return nil
    }

    /// The last value, when no more bytes will come; nil when only space was left.
    mutating func last() throws(JSONFault) -> [UInt8]? {
        guard scanner.hasBegun else { return nil }
        guard scanner.finish() else { throw .unexpectedEnd }
        return take()
    }

    private mutating func take() -> [UInt8] {
        let value = Array(bytes[start..<scanned])
        start = scanned
        scanner = JSONScanner()
        return value
    }
}
