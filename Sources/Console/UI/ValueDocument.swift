/// A value laid out in lines, ready to draw.
struct ValueDocument: Hashable, Sendable {
    var lines: [[Span]]
    /// True when only the beginning was laid out.
    var isCut: Bool

    static let empty = ValueDocument(lines: [], isCut: false)

    init(lines: [[Span]], isCut: Bool) {
        self.lines = lines
        self.isCut = isCut
    }

    init(_ value: [UInt8], mode: ValueMode, limit: Int) {
        isCut = value.count > limit
        let shown = isCut ? Array(value.prefix(limit)) : value
        switch mode {
        case .json:
            if !isCut, let layout = try? JSON.layout(shown) {
                lines = layout.map { line in line.map { piece in Span(ValueDocument.visible(piece.text), piece.kind?.slot ?? .text) } }
                return
            }
            lines = ValueDocument.textLines(shown)
        case .text: lines = ValueDocument.textLines(shown)
        case .hex: lines = ValueDocument.hexLines(shown)
        }
    }

    /// Objects and arrays count as JSON; a lone number or word is text to people.
    static func isJSON(_ value: [UInt8]) -> Bool {
        guard value.count <= ValuePane.previewLimit, let first = value.first(where: { $0 > 0x20 }),
              first == UInt8(ascii: "{") || first == UInt8(ascii: "[") else { return false }
        return JSON.check(value) == nil
    }

    private static func textLines(_ bytes: [UInt8]) -> [[Span]] {
        if bytes.isEmpty { return [[Span("(empty)", .faint)]] }
        return bytes.split(separator: 0x0a, omittingEmptySubsequences: false).map { line in
            [Span(Format.text(line, limit: 4_096).replacingTabs, .text)]
        }
    }

    static func visible(_ text: String) -> String { Format.text(Array(text.utf8), limit: 4_096) }

    private static func hexLines(_ bytes: [UInt8]) -> [[Span]] {
        if bytes.isEmpty { return [[Span("(empty)", .faint)]] }
        return stride(from: 0, to: bytes.count, by: 16).map { start in
            let row = bytes[start..<min(start + 16, bytes.count)]
            var hex = ""
            for (index, byte) in row.enumerated() {
                hex += Format.hexByte(byte) + (index == 7 ? "  " : " ")
            }
            let text = String(decoding: row.map { $0 >= 0x20 && $0 < 0x7f ? $0 : UInt8(ascii: ".") }, as: UTF8.self)
            let offset = Format.hex(UInt64(start))
            return [Span(String(repeating: "0", count: max(0, 6 - offset.utf8.count)) + offset + "  ", .faint), Span(hex.padded(50), .text), Span(text, .dim)]
        }
    }
}

extension String {
    /// Tab characters were escaped as `\t` by then: in text they are better seen as room.
    fileprivate var replacingTabs: String {
        guard utf8.contains(UInt8(ascii: "\\")) else { return self }
        var result = ""
        var rest = self[...]
        while let place = rest.firstIndex(of: "\\") {
            let next = rest.index(after: place)
            result += rest[..<place]
            if next < rest.endIndex, rest[next] == "t" { result += "    "; rest = rest[rest.index(after: next)...] } else { result += "\\"; rest = rest[next...] }
        }
        return result + rest
    }
}

/// Bytes as editable hexadecimal text.
enum HexText {
    static func dump(_ bytes: [UInt8]) -> String {
        stride(from: 0, to: bytes.count, by: 16).map { start in
            bytes[start..<min(start + 16, bytes.count)].map { Format.hexByte($0) }.joined(separator: " ")
        }.joined(separator: "\n")
    }

    /// nil when something is not a pair of hexadecimal digits.
    static func parse(_ text: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        var high: UInt8?
        for character in text {
            if character.isWhitespace {
                if high != nil { return nil }
                continue
            }
            guard let digit = character.hexDigitValue else { return nil }
            if let half = high {
                bytes.append(half << 4 | UInt8(digit))
                high = nil
            } else {
                high = UInt8(digit)
            }
        }
        return high == nil ? bytes : nil
    }
}
