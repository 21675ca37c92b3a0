import Yams

/// The part of YAML that files of this program may use.
enum YAMLFile {
    struct Fault: Error, CustomStringConvertible {
        /// From 1.
        var line: Int
        var description: String
    }

    /// Scenarios and themes are hand-written; the longest that comes along has 2 KB.
    static let maxBytes = 256 << 10

    /// The only document; nil: there is none.
    /// - Throws: `Fault`, or a `YamlError` of the syntax.
    static func compose(_ text: String) throws -> Node? {
        guard text.utf8.count <= maxBytes else { throw Fault(line: 1, description: "longer than \(maxBytes >> 10) KB") }
        try refuseAliases(Array(text.utf8))
        return try Yams.compose(yaml: text)
    }

    /// An alias of a node that has aliases makes a few lines as large as one likes, already where the parser compares keys. So a name behind `&`
    /// that is also behind `*` is refused before it: nothing without both is an alias, and the two of one name mean nothing in a text.
    private static func refuseAliases(_ bytes: [UInt8]) throws(Fault) {
        var anchors: Set<ArraySlice<UInt8>> = []
        var aliases: [(name: ArraySlice<UInt8>, line: Int)] = []
        var line = 1
        var at = 0
        while at < bytes.count {
            let byte = bytes[at]
            at += 1
            if byte == 10 { line += 1 }
            guard byte == UInt8(ascii: "&") || byte == UInt8(ascii: "*") else { continue }
            let name = bytes[at...].prefix { byte in
                switch byte {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"), UInt8(ascii: "-"): true
                default: false
                }
            }
            if byte == UInt8(ascii: "&") { anchors.insert(name) } else { aliases.append((name, line)) }
        }
        anchors.remove([])
        if let alias = aliases.first(where: { anchors.contains($0.name) }) {
            throw Fault(line: alias.line, description: "*\(String(decoding: alias.name, as: UTF8.self)): aliases are not supported; write it out")
        }
    }
}
