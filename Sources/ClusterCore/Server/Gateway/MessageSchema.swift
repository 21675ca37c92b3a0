/// What the JSON gateway must know of a message: its fields in the order of their declaration, with names and types. The tables are in
/// `MessageSchema+etcd.swift`; a test compares them with the Protos.
struct MessageSchema: Sendable {
    struct Field: Sendable {
        let number: UInt32
        let name: String
        /// The name in lowerCamelCase, which is accepted as well.
        let jsonName: String
        let kind: Kind
        let isRepeated: Bool
        /// At most one of the fields with the same `oneof` is there; they stand beside each other.
        let oneof: String?
    }

    enum Kind: Sendable {
        case bool, int64, uint32, uint64, string, bytes
        case enumeration(EnumSchema)
        /// Looked up late, since messages contain each other.
        case message(@Sendable () -> MessageSchema)
    }

    let name: String
    let fields: [Field]

    init(_ name: String, _ fields: [Field] = []) {
        self.name = name
        self.fields = fields
    }
}

struct EnumSchema: Sendable {
    let name: String
    /// Numbers are places.
    let values: [String]

    init(_ name: String, _ values: String...) {
        self.name = name
        self.values = values
    }
}

extension MessageSchema.Field {
    private static func make(_ number: UInt32, _ name: String, _ kind: MessageSchema.Kind, repeated: Bool = false, oneof: String? = nil) -> Self {
        var jsonName = ""
        var isUpper = false
        for character in name {
            if character == "_" {
                isUpper = true
            } else {
                jsonName += isUpper ? character.uppercased() : String(character)
                isUpper = false
            }
        }
        return Self(number: number, name: name, jsonName: jsonName, kind: kind, isRepeated: repeated, oneof: oneof)
    }

    static func bool(_ number: UInt32, _ name: String) -> Self { make(number, name, .bool) }
    static func int64(_ number: UInt32, _ name: String, oneof: String? = nil) -> Self { make(number, name, .int64, oneof: oneof) }
    static func uint32(_ number: UInt32, _ name: String) -> Self { make(number, name, .uint32) }
    static func uint64(_ number: UInt32, _ name: String) -> Self { make(number, name, .uint64) }
    static func string(_ number: UInt32, _ name: String, repeated: Bool = false) -> Self { make(number, name, .string, repeated: repeated) }
    static func bytes(_ number: UInt32, _ name: String, repeated: Bool = false, oneof: String? = nil) -> Self {
        make(number, name, .bytes, repeated: repeated, oneof: oneof)
    }
    static func enumeration(_ number: UInt32, _ name: String, _ schema: EnumSchema, repeated: Bool = false) -> Self {
        make(number, name, .enumeration(schema), repeated: repeated)
    }
    static func message(_ number: UInt32, _ name: String, _ schema: @autoclosure @escaping @Sendable () -> MessageSchema, repeated: Bool = false,
                        oneof: String? = nil) -> Self {
        make(number, name, .message(schema), repeated: repeated, oneof: oneof)
    }
}
