/// A JSON text that was found valid, cut into its values: one pass, no copies, however deep it is.
struct JSONTape {
    enum Kind: UInt8 { case object, array, string, number, `true`, `false`, null }

    struct Node {
        var kind: Kind
        /// In the text, quotes and brackets included.
        var start: Int32
        var end: Int32
        /// The place behind this value and all that is in it.
        var next: Int32
    }

    let text: [UInt8]
    /// In the order of the text; the members of an object are key, value, key, value.
    private(set) var nodes: [Node] = []

    /// - Parameter text: one whole value, as `JSONScanner` accepts it.
    init(valid text: [UInt8]) {
        self.text = text
        var open: [Int] = []
        var at = 0
        while at < text.count {
            let byte = text[at]
            let start = at
            at += 1
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                open.append(nodes.count)
                append(byte == UInt8(ascii: "{") ? .object : .array, start, at)
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                let node = open.removeLast()
                nodes[node].end = Int32(at)
                nodes[node].next = Int32(nodes.count)
            case UInt8(ascii: "\""):
                while text[at] != UInt8(ascii: "\"") { at += text[at] == UInt8(ascii: "\\") ? 2 : 1 }
                at += 1
                append(.string, start, at)
            case UInt8(ascii: "t"), UInt8(ascii: "n"):
                at += 3
                append(byte == UInt8(ascii: "t") ? .true : .null, start, at)
            case UInt8(ascii: "f"):
                at += 4
                append(.false, start, at)
            case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
                while at < text.count, JSONTape.isPartOfNumber(text[at]) { at += 1 }
                append(.number, start, at)
            default: break // space, comma, colon
            }
        }
    }

    private mutating func append(_ kind: Kind, _ start: Int, _ end: Int) {
        nodes.append(Node(kind: kind, start: Int32(start), end: Int32(end), next: Int32(nodes.count + 1)))
    }

    private static func isPartOfNumber(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"), UInt8(ascii: "+"), UInt8(ascii: "-"): true
        default: false
        }
    }

    func slice(_ node: Int) -> ArraySlice<UInt8> { text[Int(nodes[node].start)..<Int(nodes[node].end)] }

    /// A string's bytes without quotes and escapes, as UTF-8; what is not UTF-8 becomes U+FFFD.
    func string(_ node: Int) -> [UInt8] {
        let raw = slice(node).dropFirst().dropLast()
        // Mostly there is nothing to do.
        if raw.allSatisfy({ $0 < 0x80 && $0 != UInt8(ascii: "\\") }) { return Array(raw) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(raw.count)
        var at = raw.startIndex
        func unit(_ at: Int) -> UInt32 { (0..<4).reduce(0) { $0 << 4 | (JSONScanner.hexDigit(raw[at + $1]) ?? 0) } }
        while at < raw.endIndex {
            guard raw[at] == UInt8(ascii: "\\") else {
                bytes.append(raw[at])
                at += 1
                continue
            }
            let escape = raw[at + 1]
            at += 2
            switch escape {
            case UInt8(ascii: "b"): bytes.append(8)
            case UInt8(ascii: "f"): bytes.append(12)
            case UInt8(ascii: "n"): bytes.append(10)
            case UInt8(ascii: "r"): bytes.append(13)
            case UInt8(ascii: "t"): bytes.append(9)
            case UInt8(ascii: "u"):
                var value = unit(at)
                at += 4
                // The second half of a pair; a lone half is no character.
                if value & 0xfc00 == 0xd800, at + 6 <= raw.endIndex, raw[at] == UInt8(ascii: "\\"), raw[at + 1] == UInt8(ascii: "u"),
                   unit(at + 2) & 0xfc00 == 0xdc00 {
                    value = 0x10000 + (value & 0x3ff) << 10 + unit(at + 2) & 0x3ff
                    at += 6
                }
                bytes.append(contentsOf: String(Character(Unicode.Scalar(value) ?? "\u{fffd}")).utf8)
            default: bytes.append(escape)
            }
        }
        if bytes.allSatisfy({ $0 < 0x80 }) { return bytes }
        return Array(String(decoding: bytes, as: UTF8.self).utf8)
    }
}
