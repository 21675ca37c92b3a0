import Base
import Raft

/// One member as the cluster knows it.
public struct Member: Hashable, Sendable {
    public var id: MemberID
    /// Empty until the member has started and published itself.
    public var name: String
    public var peerURLs: [String]
    /// Empty until the member has started and published itself.
    public var clientURLs: [String]
    public var isLearner: Bool
    public init(id: MemberID, name: String = "", peerURLs: [String], clientURLs: [String] = [], isLearner: Bool = false) {
        self.id = id
        self.name = name
        self.peerURLs = peerURLs
        self.clientURLs = clientURLs
        self.isLearner = isLearner
    }
}

/// The one list of members, replicated through the log. Sorted by id; ids that were removed never come back.
public struct Membership: Hashable, Sendable {
    public private(set) var members: [Member]
    public private(set) var removed: [MemberID]

    public init(members: [Member], removed: [MemberID] = []) {
        self.members = members.sorted { $0.id < $1.id }
        self.removed = removed.sorted()
    }
    public func member(_ id: MemberID) -> Member? { members.first { $0.id == id } }

    /// Once true, true for ever. Binary search: asked for every message, and the list only grows.
    public func isRemoved(_ id: MemberID) -> Bool {
        var low = 0
        var high = removed.count
        while low < high {
            let middle = (low + high) / 2
            if removed[middle] < id { low = middle + 1 } else { high = middle }
        }
        return low < removed.count && removed[low] == id
    }

    /// - Throws: when the member was removed before. A leader does not propose that, so the entry that wants it is not one of ours.
    mutating func insert(_ member: Member) throws(DecodingFault) {
        guard !isRemoved(member.id) else { throw .malformed("member \(member.id) was removed and cannot come back") }
        members.removeAll { $0.id == member.id }
        members.append(member)
        members.sort { $0.id < $1.id }
    }
    mutating func remove(_ id: MemberID) {
        members.removeAll { $0.id == id }
        guard !isRemoved(id) else { return }
        removed.append(id)
        removed.sort()
    }
    mutating func setPeerURLs(_ urls: [String], of id: MemberID) {
        if let at = members.firstIndex(where: { $0.id == id }) { members[at].peerURLs = urls }
    }
    mutating func promote(_ id: MemberID) {
        if let at = members.firstIndex(where: { $0.id == id }) { members[at].isLearner = false }
    }

    /// A member's row in both tables.
    static func key(of id: MemberID) -> [UInt8] { Array(id.description.utf8) }
    /// The value of a removed member's row. (etcd)
    static let removedMark = Array("removed".utf8)

    /// Returns the changed member, or nil when it is unknown (a late message of one that was removed).
    mutating func setAttributes(_ attributes: MemberAttributes) -> Member? {
        guard let at = members.firstIndex(where: { $0.id == attributes.member }) else { return nil }
        members[at].name = attributes.name
        members[at].clientURLs = attributes.clientURLs
        return members[at]
    }
}

// MARK: - How membership is kept (etcd's JSON, shared/reference/etcd-storage.md §3.2 and §3.5)

extension Member {
    func json() -> [UInt8] {
        var text = JSONText()
        text.raw("{\"id\":\(id.rawValue),\"peerURLs\":")
        text.strings(peerURLs)
        if isLearner { text.raw(",\"isLearner\":true") }
        if !name.isEmpty {
            text.raw(",\"name\":")
            text.string(name)
        }
        if !clientURLs.isEmpty {
            text.raw(",\"clientURLs\":")
            text.strings(clientURLs)
        }
        text.raw("}")
        return text.bytes
    }

    static func decode(json bytes: [UInt8]) throws(DecodingFault) -> Member {
        try decode(JSONValue.parse(bytes))
    }

    /// A JSON array of members, as etcd's peer port answers.
    public static func encodeList(_ members: [Member]) -> [UInt8] {
        var text = JSONText()
        text.raw("[")
        for (i, member) in members.enumerated() {
            if i > 0 { text.raw(",") }
            text.bytes.append(contentsOf: member.json())
        }
        text.raw("]")
        return text.bytes
    }

    public static func decodeList(_ bytes: [UInt8]) throws(DecodingFault) -> [Member] {
        guard case .array(let items) = try JSONValue.parse(bytes) else { throw .malformed("no list of members") }
        var members: [Member] = []
        for item in items { members.append(try decode(item)) }
        return members
    }

    private static func decode(_ object: JSONValue) throws(DecodingFault) -> Member {
        guard case .number(let id)? = object["id"] else { throw .malformed("member without id") }
        return Member(id: MemberID(id), name: object["name"]?.text ?? "", peerURLs: object["peerURLs"]?.texts ?? [],
                      clientURLs: object["clientURLs"]?.texts ?? [], isLearner: object["isLearner"]?.flag ?? false)
    }
}

extension Configuration {
    /// etcd's `meta/confState`.
    func json() -> [UInt8] {
        var text = JSONText()
        text.raw("{")
        for (name, ids) in [("voters", voters), ("learners", learners), ("voters_outgoing", outgoingVoters), ("learners_next", nextLearners)]
        where !ids.isEmpty {
            text.raw("\"\(name)\":[\(ids.map { String($0.rawValue) }.joined(separator: ","))],")
        }
        text.raw("\"auto_leave\":\(leavesJointAutomatically)}")
        return text.bytes
    }

    static func decode(json bytes: [UInt8]) throws(DecodingFault) -> Configuration {
        let object = try JSONValue.parse(bytes)
        func ids(_ name: String) -> [MemberID] { object[name]?.numbers.map { MemberID($0) } ?? [] }
        let configuration = Configuration(voters: ids("voters"), outgoingVoters: ids("voters_outgoing"), learners: ids("learners"),
                                          nextLearners: ids("learners_next"), leavesJointAutomatically: object["auto_leave"]?.flag ?? false)
        if let objection = configuration.objection { throw .malformed(objection) }
        return configuration
    }
}

/// Writes the little JSON that etcd's schema asks for.
struct JSONText {
    var bytes: [UInt8] = []
    mutating func raw(_ text: String) { bytes.append(contentsOf: text.utf8) }
    mutating func string(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes.append(contentsOf: [UInt8(ascii: "\\"), byte])
            case 0..<0x20:
                let hex = Array("0123456789abcdef".utf8)
                bytes.append(contentsOf: Array("\\u00".utf8) + [hex[Int(byte >> 4)], hex[Int(byte & 15)]])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
    mutating func strings(_ list: [String]) {
        raw("[")
        for (i, text) in list.enumerated() {
            if i > 0 { raw(",") }
            string(text)
        }
        raw("]")
    }
}

/// Reads the little JSON that etcd's schema holds: objects, arrays, strings, unsigned integers, booleans, null. Ids exceed
/// 2^53, so numbers stay integers.
indirect enum JSONValue {
    case object([(name: String, value: JSONValue)])
    case array([JSONValue])
    case string(String)
    case number(UInt64)
    case bool(Bool)
    case null

    subscript(name: String) -> JSONValue? {
        guard case .object(let fields) = self else { return nil }
        return fields.last { $0.name == name }?.value
    }
    var text: String? { if case .string(let text) = self { text } else { nil } }
    var flag: Bool? { if case .bool(let flag) = self { flag } else { nil } }
    var texts: [String] { if case .array(let items) = self { items.compactMap(\.text) } else { [] } }
    var numbers: [UInt64] {
        guard case .array(let items) = self else { return [] }
        return items.compactMap { if case .number(let n) = $0 { n } else { nil } }
    }

    static func parse(_ bytes: [UInt8]) throws(DecodingFault) -> JSONValue {
        var parser = Parser(bytes: bytes)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.at == bytes.count else { throw .malformed("JSON: text behind the value") }
        return value
    }

    private struct Parser {
        let bytes: [UInt8]
        var at = 0
        mutating func skipSpace() {
            while at < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[at]) { at += 1 }
        }
        mutating func peek() throws(DecodingFault) -> UInt8 {
            skipSpace()
            guard at < bytes.count else { throw .truncated }
            return bytes[at]
        }
        mutating func expect(_ character: Character) throws(DecodingFault) {
            guard try peek() == character.asciiValue! else { throw .malformed("JSON: \(character) expected at byte \(at)") }
            at += 1
        }
        mutating func word(_ text: StaticString, _ value: JSONValue) throws(DecodingFault) -> JSONValue {
            for byte in UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount) {
                guard at < bytes.count, bytes[at] == byte else { throw .malformed("JSON: unknown word at byte \(at)") }
                at += 1
            }
            return value
        }
        mutating func value(depth: Int) throws(DecodingFault) -> JSONValue {
            guard depth < 32 else { throw .malformed("JSON: nested too deeply") }
            switch try peek() {
            case UInt8(ascii: "{"):
                at += 1
                var fields: [(name: String, value: JSONValue)] = []
                if try peek() == UInt8(ascii: "}") { at += 1; return .object([]) }
                while true {
                    _ = try peek()
                    let name = try string()
                    try expect(":")
                    fields.append((name, try value(depth: depth + 1)))
                    if try peek() == UInt8(ascii: ",") { at += 1; continue }
                    try expect("}")
                    return .object(fields)
                }
            case UInt8(ascii: "["):
                at += 1
                var items: [JSONValue] = []
                if try peek() == UInt8(ascii: "]") { at += 1; return .array([]) }
                while true {
                    items.append(try value(depth: depth + 1))
                    if try peek() == UInt8(ascii: ",") { at += 1; continue }
                    try expect("]")
                    return .array(items)
                }
            case UInt8(ascii: "\""): return .string(try string())
            case UInt8(ascii: "t"): return try word("true", .bool(true))
            case UInt8(ascii: "f"): return try word("false", .bool(false))
            case UInt8(ascii: "n"): return try word("null", .null)
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                var n: UInt64 = 0
                while at < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at]) {
                    let (product, tooBig) = n.multipliedReportingOverflow(by: 10)
                    let (sum, over) = product.addingReportingOverflow(UInt64(bytes[at] - UInt8(ascii: "0")))
                    guard !tooBig, !over else { throw .malformed("JSON: number over 64 bits") }
                    n = sum
                    at += 1
                }
                return .number(n)
            default: throw .malformed("JSON: unexpected byte at \(at)")
            }
        }
        mutating func string() throws(DecodingFault) -> String {
            try expect("\"")
            var text: [UInt8] = []
            while true {
                guard at < bytes.count else { throw .truncated }
                let byte = bytes[at]
                at += 1
                switch byte {
                case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
                case UInt8(ascii: "\\"):
                    guard at < bytes.count else { throw .truncated }
                    let escape = bytes[at]
                    at += 1
                    switch escape {
                    case UInt8(ascii: "n"): text.append(0x0a)
                    case UInt8(ascii: "t"): text.append(0x09)
                    case UInt8(ascii: "r"): text.append(0x0d)
                    case UInt8(ascii: "b"): text.append(0x08)
                    case UInt8(ascii: "f"): text.append(0x0c)
                    case UInt8(ascii: "u"):
                        guard at + 4 <= bytes.count, let code = Hexadecimal.number(bytes[at..<at + 4]) else {
                            throw .malformed("JSON: bad \\u escape")
                        }
                        at += 4
                        let scalar = Unicode.Scalar(UInt32(code)) ?? "\u{fffd}"
                        text.append(contentsOf: String(Character(scalar)).utf8)
                    default: text.append(escape)
                    }
                default: text.append(byte)
                }
            }
        }
    }
}
