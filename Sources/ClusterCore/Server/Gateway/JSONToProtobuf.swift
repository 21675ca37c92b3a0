import Base

/// Reads a JSON text into the wire form of a message, by the rules (and with the complaints) of the gateway of etcd 3.5. (etcd-http.md §2.2)
///
/// Fields are looked at in the order of their declaration, so the first complaint is etcd's. Names are the declared ones or lowerCamelCase;
/// of a name given twice the last counts, of a oneof's members the last declared one.
struct JSONToProtobuf {
    private let tape: JSONTape
    private var writer = ByteWriter()

    /// etcd knows no bound of its own here; a transaction has none of this depth, and each level takes room on the stack.
    private static let maxMessageDepth = 500

    /// - Parameter text: one whole value, as `JSONScanner` accepts it.
    static func message(_ text: [UInt8], _ schema: MessageSchema) throws(JSONFault) -> [UInt8] {
        var decoder = JSONToProtobuf(tape: JSONTape(valid: text))
        decoder.writer.bytes.reserveCapacity(text.count)
        try decoder.fields(of: 0, schema, depth: 0)
        return decoder.writer.bytes
    }

    private init(tape: JSONTape) { self.tape = tape }

    private mutating func fields(of node: Int, _ schema: MessageSchema, depth: Int) throws(JSONFault) {
        if tape.nodes[node].kind == .null { return }
        guard tape.nodes[node].kind == .object else { throw .mismatch(name(of: node), "map[string]json.RawMessage") }
        guard depth < JSONToProtobuf.maxMessageDepth else { throw JSONFault("messages within each other exceed depth \(JSONToProtobuf.maxMessageDepth)") }
        if schema.fields.isEmpty { return }
        // The places of the values, by field: under the declared name, and under the other, which counts before it.
        var places = [Int32](repeating: -1, count: schema.fields.count * 2)
        var key = node + 1
        while key < Int(tape.nodes[node].next) {
            let name = tape.string(key)
            for (at, field) in schema.fields.enumerated() {
                if name.elementsEqual(field.name.utf8) { places[2 * at] = Int32(key + 1) }
                if name.elementsEqual(field.jsonName.utf8) { places[2 * at + 1] = Int32(key + 1) }
            }
            key = Int(tape.nodes[key + 1].next)
        }
        var oneof: (name: String, start: Int)?
        for (at, field) in schema.fields.enumerated() {
            let place = Int(places[2 * at + 1] >= 0 ? places[2 * at + 1] : places[2 * at])
            guard place >= 0, tape.nodes[place].kind != .null else { continue }
            if let name = field.oneof {
                // What another member wrote goes.
                if let oneof, oneof.name == name { writer.bytes.removeLast(writer.bytes.count - oneof.start) }
                oneof = (name, writer.bytes.count)
            }
            if field.isRepeated { try list(place, field, depth) } else { try value(place, field, depth, isExplicit: field.oneof != nil) }
        }
    }

    private mutating func list(_ node: Int, _ field: MessageSchema.Field, _ depth: Int) throws(JSONFault) {
        guard tape.nodes[node].kind == .array else { throw .mismatch(name(of: node), "[]json.RawMessage") }
        var element = node + 1
        while element < Int(tape.nodes[node].next) {
            try value(element, field, depth, isExplicit: true)
            element = Int(tape.nodes[element].next)
        }
    }

    /// - Parameter isExplicit: the default is written too: an element of a list, a member of a oneof.
    private mutating func value(_ node: Int, _ field: MessageSchema.Field, _ depth: Int, isExplicit: Bool) throws(JSONFault) {
        let kind = tape.nodes[node].kind
        func mismatch(_ type: String) -> JSONFault { .mismatch(name(of: node), type) }
        switch field.kind {
        case .bool:
            guard kind == .true || kind == .false || kind == .null else { throw mismatch("bool") }
            number(kind == .true ? 1 : 0, field, isExplicit)
        case .int64: number(UInt64(bitPattern: try integer(node, Int64.self, "int64")), field, isExplicit)
        case .uint64: number(try integer(node, UInt64.self, "uint64"), field, isExplicit)
        case .uint32: number(UInt64(try integer(node, UInt32.self, "uint32")), field, isExplicit)
        case .enumeration(let schema):
            if kind == .string {
                let raw = tape.slice(node)
                guard let value = schema.values.firstIndex(where: { raw.dropFirst().dropLast().elementsEqual($0.utf8) }) else {
                    throw JSONFault("unknown value \(GoText.quoted(Array(raw))) for enum \(schema.name)")
                }
                number(UInt64(value), field, isExplicit)
            } else {
                number(UInt64(bitPattern: Int64(try integer(node, Int32.self, "protoreflect.EnumNumber"))), field, isExplicit)
            }
        case .string:
            guard kind == .string || kind == .null else { throw mismatch("string") }
            counted(kind == .string ? tape.string(node) : [], field, isExplicit)
        case .bytes:
            switch kind {
            case .string: counted(try Base64.decode(tape.string(node)), field, isExplicit)
            case .null: counted([], field, isExplicit)
            case .array: counted(try byteList(node), field, isExplicit)
            default: throw mismatch("[]uint8")
            }
        case .message(let schema):
            writer.writeTag(field.number, .lengthDelimited)
            let start = writer.bytes.count
            try fields(of: node, schema(), depth: depth + 1)
            var length = ByteWriter(capacity: 10)
            length.writeVarint(UInt64(writer.bytes.count - start))
            writer.bytes.insert(contentsOf: length.bytes, at: start)
        }
    }

    private mutating func number(_ value: UInt64, _ field: MessageSchema.Field, _ isExplicit: Bool) {
        guard value != 0 || isExplicit else { return }
        writer.writeTag(field.number, .varint)
        writer.writeVarint(value)
    }

    private mutating func counted(_ bytes: [UInt8], _ field: MessageSchema.Field, _ isExplicit: Bool) {
        guard !bytes.isEmpty || isExplicit else { return }
        writer.writeTag(field.number, .lengthDelimited)
        writer.writeCounted(bytes)
    }

    // MARK: Numbers

    /// A number, or one in quotes. What is in the quotes is read as JSON of its own, without a look at escapes, as etcd has it.
    private func integer<T: FixedWidthInteger>(_ node: Int, _ type: T.Type, _ typeName: String) throws(JSONFault) -> T {
        var text = tape.slice(node)
        var kind = tape.nodes[node].kind
        if kind == .string {
            text = text.dropFirst().dropLast()
            (kind, text) = try JSONToProtobuf.single(text)
        }
        switch kind {
        case .null: return 0
        case .number:
            guard let value = T(String(decoding: text, as: UTF8.self)) else { throw .mismatch("number \(String(decoding: text, as: UTF8.self))", typeName) }
            return value
        default: throw .mismatch(JSONToProtobuf.name(kind), typeName)
        }
    }

    /// The one value in a text and its kind.
    private static func single(_ text: ArraySlice<UInt8>) throws(JSONFault) -> (JSONTape.Kind, ArraySlice<UInt8>) {
        var scanner = JSONScanner()
        var end: Int?
        for at in text.indices {
            if end == nil {
                switch try scanner.step(text[at]) {
                case .more: continue
                case .ended:
                    end = at + 1
                    continue
                case .endedBefore: end = at
                }
            }
            guard JSONScanner.isSpace(text[at]) else { throw .invalid(text[at], "after top-level value") }
        }
        if end == nil {
            guard scanner.finish() else { throw JSONFault("unexpected end of JSON input") }
            end = text.endIndex
        }
        let value = text[..<end!].drop(while: JSONScanner.isSpace)
        let kind: JSONTape.Kind = switch value.first {
        case UInt8(ascii: "{"): .object
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "t"): .true
        case UInt8(ascii: "f"): .false
        case UInt8(ascii: "n"): .null
        default: .number
        }
        return (kind, value)
    }

    /// Go reads an array of numbers into bytes as well.
    private func byteList(_ node: Int) throws(JSONFault) -> [UInt8] {
        var bytes: [UInt8] = []
        var element = node + 1
        while element < Int(tape.nodes[node].next) {
            switch tape.nodes[element].kind {
            case .null: bytes.append(0)
            case .number:
                let text = String(decoding: tape.slice(element), as: UTF8.self)
                guard let value = UInt8(text) else { throw .mismatch("number \(text)", "uint8") }
                bytes.append(value)
            default: throw .mismatch(name(of: element), "uint8")
            }
            element = Int(tape.nodes[element].next)
        }
        return bytes
    }

    private func name(of node: Int) -> String { JSONToProtobuf.name(tape.nodes[node].kind) }

    private static func name(_ kind: JSONTape.Kind) -> String {
        switch kind {
        case .object: "object"
        case .array: "array"
        case .string: "string"
        case .number: "number"
        case .true, .false: "bool"
        case .null: "null"
        }
    }
}

/// Standard base64 with padding. (RFC 4648 §4)
enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xff, count: 256)
        for (value, letter) in alphabet.enumerated() { values[Int(letter)] = UInt8(value) }
        return values
    }()

    static func append(_ bytes: UnsafeRawBufferPointer, to text: inout [UInt8]) {
        text.reserveCapacity(text.count + (bytes.count + 2) / 3 * 4)
        alphabet.withUnsafeBufferPointer { alphabet in
            var at = 0
            while at + 3 <= bytes.count {
                let group = UInt32(bytes[at]) << 16 | UInt32(bytes[at + 1]) << 8 | UInt32(bytes[at + 2])
                for shift: UInt32 in [18, 12, 6, 0] { text.append(alphabet[Int(group >> shift & 63)]) }
                at += 3
            }
            guard at < bytes.count else { return }
            let group = UInt32(bytes[at]) << 16 | (at + 1 < bytes.count ? UInt32(bytes[at + 1]) << 8 : 0)
            text.append(alphabet[Int(group >> 18)])
            text.append(alphabet[Int(group >> 12 & 63)])
            text.append(at + 1 < bytes.count ? alphabet[Int(group >> 6 & 63)] : UInt8(ascii: "="))
            text.append(UInt8(ascii: "="))
        }
    }

    /// Line ends are skipped, padding is wanted, and a fault is where Go finds it.
    static func decode(_ text: [UInt8]) throws(JSONFault) -> [UInt8] {
        func fault(_ at: Int) -> JSONFault { JSONFault("illegal base64 data at input byte \(at)") }
        func isLineEnd(_ at: Int) -> Bool { text[at] == 0x0a || text[at] == 0x0d }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 4 * 3)
        var group: UInt32 = 0
        var filled = 0
        var at = 0
        while at < text.count {
            let value = values[Int(text[at])]
            if value != 0xff {
                group = group << 6 | UInt32(value)
                filled += 1
                if filled == 4 {
                    bytes.append(UInt8(truncatingIfNeeded: group >> 16))
                    bytes.append(UInt8(truncatingIfNeeded: group >> 8))
                    bytes.append(UInt8(truncatingIfNeeded: group))
                    (group, filled) = (0, 0)
                }
                at += 1
                continue
            }
            if isLineEnd(at) {
                at += 1
                continue
            }
            guard text[at] == UInt8(ascii: "="), filled >= 2 else { throw fault(at) }
            at += 1
            if filled == 2 {
                while at < text.count, isLineEnd(at) { at += 1 }
                guard at < text.count else { throw fault(text.count) }
                guard text[at] == UInt8(ascii: "=") else { throw fault(at - 1) }
                at += 1
            }
            while at < text.count, isLineEnd(at) { at += 1 }
            guard at == text.count else { throw fault(at) }
            if filled == 2 {
                bytes.append(UInt8(truncatingIfNeeded: group >> 4))
            } else {
                bytes.append(UInt8(truncatingIfNeeded: group >> 10))
                bytes.append(UInt8(truncatingIfNeeded: group >> 2))
            }
            return bytes
        }
        guard filled == 0 else { throw fault(text.count - filled) }
        return bytes
    }
}
