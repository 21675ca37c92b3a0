import Base

/// Writes a message's wire form as the JSON of etcd 3.5's gateway: declared names, 64-bit numbers as strings, defaults left out. (etcd-http.md §2.2)
///
/// Fields come out in the order in which they are on the wire. This server writes them in the order of their numbers, which is the one of their
/// declaration; elements of a list stand together.
struct ProtobufToJSON {
    private(set) var text: [UInt8] = []

    /// - Throws: when `message` is no message of this schema, which would be a fault of this server.
    static func text(_ message: UnsafeRawBufferPointer, _ schema: MessageSchema, prefix: String = "", suffix: String = "") throws(DecodingFault) -> [UInt8] {
        var encoder = ProtobufToJSON()
        encoder.text.reserveCapacity(message.count + message.count / 2 + 128)
        encoder.text.append(contentsOf: prefix.utf8)
        try encoder.message(ByteReader(message), schema)
        encoder.text.append(contentsOf: suffix.utf8)
        return encoder.text
    }

    private mutating func message(_ message: ByteReader, _ schema: MessageSchema) throws(DecodingFault) {
        var reader = message
        var isFirst = true
        var list: UInt32?
        text.append(UInt8(ascii: "{"))
        while let (number, type) = try reader.readTag() {
            guard let field = schema.fields.first(where: { $0.number == number }) else {
                try reader.skip(type)
                continue
            }
            if let open = list, open != number {
                text.append(UInt8(ascii: "]"))
                list = nil
            }
            if field.isRepeated, list == number {
                text.append(UInt8(ascii: ","))
                try value(field, type, &reader)
                continue
            }
            let before = text.count
            if !isFirst { text.append(UInt8(ascii: ",")) }
            text.append(UInt8(ascii: "\""))
            text.append(contentsOf: field.name.utf8)
            text.append(contentsOf: field.isRepeated ? "\":[".utf8 : "\":".utf8)
            let isDefault = try value(field, type, &reader)
            if field.isRepeated {
                list = number
            } else if isDefault, field.oneof == nil {
                // It was on the wire, but is not told.
                text.removeLast(text.count - before)
                continue
            }
            isFirst = false
        }
        if list != nil { text.append(UInt8(ascii: "]")) }
        text.append(UInt8(ascii: "}"))
    }

    /// Returns true for the default of a scalar.
    @discardableResult
    private mutating func value(_ field: MessageSchema.Field, _ type: WireType, _ reader: inout ByteReader) throws(DecodingFault) -> Bool {
        switch field.kind {
        case .bool:
            let value = try varint(type, &reader)
            text.append(contentsOf: value == 0 ? "false".utf8 : "true".utf8)
            return value == 0
        case .int64:
            let value = Int64(bitPattern: try varint(type, &reader))
            quoted("\(value)")
            return value == 0
        case .uint64:
            let value = try varint(type, &reader)
            quoted("\(value)")
            return value == 0
        case .uint32:
            let value = UInt32(truncatingIfNeeded: try varint(type, &reader))
            text.append(contentsOf: "\(value)".utf8)
            return value == 0
        case .enumeration(let schema):
            let value = Int(Int32(truncatingIfNeeded: try varint(type, &reader)))
            if schema.values.indices.contains(value) { quoted(schema.values[value]) } else { text.append(contentsOf: "\(value)".utf8) }
            return value == 0
        case .string:
            let value = try slice(type, &reader)
            ProtobufToJSON.append(value, to: &text)
            return value.isEmpty
        case .bytes:
            let value = try slice(type, &reader)
            text.append(UInt8(ascii: "\""))
            Base64.append(value, to: &text)
            text.append(UInt8(ascii: "\""))
            return value.isEmpty
        case .message(let schema):
            guard type == .lengthDelimited else { throw .malformed("wire type of \(field.name)") }
            try message(try reader.readMessage(), schema())
            return false
        }
    }

    private func varint(_ type: WireType, _ reader: inout ByteReader) throws(DecodingFault) -> UInt64 {
        guard type == .varint else { throw .malformed("wire type of a number") }
        return try reader.readVarint()
    }

    private func slice(_ type: WireType, _ reader: inout ByteReader) throws(DecodingFault) -> UnsafeRawBufferPointer {
        guard type == .lengthDelimited else { throw .malformed("wire type of a text") }
        return try reader.readCountedSlice()
    }

    private mutating func quoted(_ plain: String) {
        text.append(UInt8(ascii: "\""))
        text.append(contentsOf: plain.utf8)
        text.append(UInt8(ascii: "\""))
    }

    /// A string as Go writes it: what could mean something in HTML is escaped as well.
    static func append(_ string: some Sequence<UInt8>, to text: inout [UInt8]) {
        text.append(UInt8(ascii: "\""))
        for scalar in String(decoding: Array(string), as: UTF8.self).unicodeScalars {
            switch scalar {
            case "\"", "\\":
                text.append(UInt8(ascii: "\\"))
                text.append(UInt8(scalar.value))
            case "\n": text.append(contentsOf: "\\n".utf8)
            case "\r": text.append(contentsOf: "\\r".utf8)
            case "\t": text.append(contentsOf: "\\t".utf8)
            case "<", ">", "&", "\u{2028}", "\u{2029}", "\u{0}"..."\u{1f}":
                let hex = String(scalar.value, radix: 16)
                text.append(contentsOf: "\\u\(String(repeating: "0", count: 4 - hex.count))\(hex)".utf8)
            default: text.append(contentsOf: String(scalar).utf8)
            }
        }
        text.append(UInt8(ascii: "\""))
    }

    static func quoted(_ string: String) -> String {
        var text: [UInt8] = []
        append(string.utf8, to: &text)
        return String(decoding: text, as: UTF8.self)
    }
}
