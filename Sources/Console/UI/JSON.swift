/// JSON as text: checked, laid out and coloured without ever changing a number or the order of keys.
enum JSON {
    enum Kind: Hashable, Sendable { case punctuation, key, string, number, literal }

    struct Token: Hashable, Sendable {
        var kind: Kind
        var range: Range<Int>
    }

    struct Problem: Error, Hashable, Sendable {
        /// Byte offset.
        var offset: Int
        var message: String
    }

    /// Deeper values are refused rather than trusted to the stack.
    static let depthLimit = 200

    /// All tokens of a document.
    static func tokens(_ bytes: [UInt8]) throws(Problem) -> [Token] {
        var scanner = Scanner(bytes: bytes)
        try scanner.value(depth: 0, isKey: false)
        scanner.skipBlanks()
        if scanner.offset < bytes.count { throw Problem(offset: scanner.offset, message: "text after the end") }
        return scanner.tokens
    }

    /// A short verdict for the editor's status line.
    static func check(_ bytes: [UInt8]) -> Problem? {
        do throws(Problem) {
            _ = try tokens(bytes)
            return nil
        } catch {
            return error
        }
    }

    /// One token a piece, laid out over lines: two blanks an indent.
    static func layout(_ bytes: [UInt8]) throws(Problem) -> [[(kind: Kind?, text: String)]] {
        let tokens = try tokens(bytes)
        var lines: [[(kind: Kind?, text: String)]] = [[]]
        var depth = 0
        func text(_ token: Token) -> String { String(decoding: bytes[token.range], as: UTF8.self) }
        func isPunctuation(_ token: Token, _ byte: UInt8) -> Bool { token.kind == .punctuation && bytes[token.range.lowerBound] == byte }
        func newLine() {
            lines.append([])
            if depth > 0 { lines[lines.count - 1].append((nil, String(repeating: "  ", count: depth))) }
        }
        for (index, token) in tokens.enumerated() {
            if token.kind != .punctuation {
                lines[lines.count - 1].append((token.kind, text(token)))
                continue
            }
            switch bytes[token.range.lowerBound] {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                lines[lines.count - 1].append((.punctuation, text(token)))
                let next = tokens[index + 1]
                if isPunctuation(next, UInt8(ascii: "}")) || isPunctuation(next, UInt8(ascii: "]")) { continue }
                depth += 1
                newLine()
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                let last = tokens[index - 1]
                if !(isPunctuation(last, UInt8(ascii: "{")) || isPunctuation(last, UInt8(ascii: "["))) {
                    depth -= 1
                    newLine()
                }
                lines[lines.count - 1].append((.punctuation, text(token)))
            case UInt8(ascii: ","):
                lines[lines.count - 1].append((.punctuation, ","))
                newLine()
            default:
                lines[lines.count - 1].append((.punctuation, ": "))
            }
        }
        return lines
    }

    static func formatted(_ bytes: [UInt8]) throws(Problem) -> String {
        try layout(bytes).map { line in line.map(\.text).joined() }.joined(separator: "\n")
    }

    /// On one line, with blanks after colons and commas if `model` has them.
    static func compacted(_ bytes: [UInt8], like model: [UInt8]) throws(Problem) -> [UInt8] {
        let isSpaced = model.containsBytes(Array("\": ".utf8)) || model.containsBytes(Array(", \"".utf8))
        var result: [UInt8] = []
        for token in try tokens(bytes) {
            result += bytes[token.range]
            let byte = bytes[token.range.lowerBound]
            if isSpaced, token.kind == .punctuation, byte == UInt8(ascii: ":") || byte == UInt8(ascii: ",") { result.append(0x20) }
        }
        return result
    }

    private struct Scanner {
        let bytes: [UInt8]
        var offset = 0
        var tokens: [Token] = []

        init(bytes: [UInt8]) { self.bytes = bytes }

        mutating func skipBlanks() {
            while offset < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[offset]) { offset += 1 }
        }

        mutating func value(depth: Int, isKey: Bool) throws(Problem) {
            skipBlanks()
            guard depth < depthLimit else { throw Problem(offset: offset, message: "nested too deeply") }
            guard offset < bytes.count else { throw Problem(offset: offset, message: "a value is missing") }
            switch bytes[offset] {
            case UInt8(ascii: "{"): try object(depth: depth)
            case UInt8(ascii: "["): try array(depth: depth)
            case UInt8(ascii: "\""): try string(.string)
            case UInt8(ascii: "-"), 0x30...0x39: try number()
            case UInt8(ascii: "t"): try literal("true")
            case UInt8(ascii: "f"): try literal("false")
            case UInt8(ascii: "n"): try literal("null")
            default: throw Problem(offset: offset, message: "not a value")
            }
        }

        private mutating func punctuation() {
            tokens.append(Token(kind: .punctuation, range: offset..<offset + 1))
            offset += 1
        }

        private mutating func object(depth: Int) throws(Problem) {
            punctuation()
            skipBlanks()
            if offset < bytes.count, bytes[offset] == UInt8(ascii: "}") { return punctuation() }
            while true {
                skipBlanks()
                guard offset < bytes.count, bytes[offset] == UInt8(ascii: "\"") else { throw Problem(offset: offset, message: "a key in quotes is missing") }
                try string(.key)
                skipBlanks()
                guard offset < bytes.count, bytes[offset] == UInt8(ascii: ":") else { throw Problem(offset: offset, message: "\":\" is missing") }
                punctuation()
                try value(depth: depth + 1, isKey: false)
                skipBlanks()
                guard offset < bytes.count else { throw Problem(offset: offset, message: "\"}\" is missing") }
                if bytes[offset] == UInt8(ascii: "}") { return punctuation() }
                guard bytes[offset] == UInt8(ascii: ",") else { throw Problem(offset: offset, message: "\",\" or \"}\" is missing") }
                punctuation()
            }
        }

        private mutating func array(depth: Int) throws(Problem) {
            punctuation()
            skipBlanks()
            if offset < bytes.count, bytes[offset] == UInt8(ascii: "]") { return punctuation() }
            while true {
                try value(depth: depth + 1, isKey: false)
                skipBlanks()
                guard offset < bytes.count else { throw Problem(offset: offset, message: "\"]\" is missing") }
                if bytes[offset] == UInt8(ascii: "]") { return punctuation() }
                guard bytes[offset] == UInt8(ascii: ",") else { throw Problem(offset: offset, message: "\",\" or \"]\" is missing") }
                punctuation()
            }
        }

        private mutating func string(_ kind: Kind) throws(Problem) {
            let start = offset
            offset += 1
            while offset < bytes.count {
                let byte = bytes[offset]
                switch byte {
                case UInt8(ascii: "\""):
                    offset += 1
                    tokens.append(Token(kind: kind, range: start..<offset))
                    return
                case UInt8(ascii: "\\"):
                    guard offset + 1 < bytes.count, Array("\"\\/bfnrtu".utf8).contains(bytes[offset + 1]) else { throw Problem(offset: offset, message: "unknown escape") }
                    if bytes[offset + 1] == UInt8(ascii: "u") {
                        guard offset + 6 <= bytes.count, bytes[offset + 2..<offset + 6].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else { throw Problem(offset: offset, message: "\\u needs four hex digits") }
                        offset += 4
                    }
                    offset += 2
                case 0..<0x20: throw Problem(offset: offset, message: "line break in a string")
                default: offset += 1
                }
            }
            throw Problem(offset: start, message: "the string has no end")
        }

        private mutating func digits() throws(Problem) {
            guard offset < bytes.count, (0x30...0x39).contains(bytes[offset]) else { throw Problem(offset: offset, message: "a digit is missing") }
            while offset < bytes.count, (0x30...0x39).contains(bytes[offset]) { offset += 1 }
        }

        private mutating func number() throws(Problem) {
            let start = offset
            if bytes[offset] == UInt8(ascii: "-") { offset += 1 }
            let isZero = offset < bytes.count && bytes[offset] == 0x30
            let first = offset
            try digits()
            if isZero, offset - first > 1 { throw Problem(offset: first, message: "a number starts with 0") }
            if offset < bytes.count, bytes[offset] == UInt8(ascii: ".") {
                offset += 1
                try digits()
            }
            if offset < bytes.count, bytes[offset] | 0x20 == UInt8(ascii: "e") {
                offset += 1
                if offset < bytes.count, bytes[offset] == UInt8(ascii: "+") || bytes[offset] == UInt8(ascii: "-") { offset += 1 }
                try digits()
            }
            tokens.append(Token(kind: .number, range: start..<offset))
        }

        private mutating func literal(_ word: String) throws(Problem) {
            let start = offset
            guard bytes[offset...].starts(with: word.utf8) else { throw Problem(offset: offset, message: "not a value") }
            offset += word.utf8.count
            tokens.append(Token(kind: .literal, range: start..<offset))
        }
    }
}

extension JSON.Kind {
    var slot: Slot {
        switch self {
        case .punctuation: .jsonPunctuation
        case .key: .jsonKey
        case .string: .jsonString
        case .number: .jsonNumber
        case .literal: .jsonLiteral
        }
    }
}
