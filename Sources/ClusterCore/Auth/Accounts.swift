import Base

// Users, roles and permissions, and their coding: etcd's authpb messages byte for byte, since the tables convert one to one.
// (etcd-storage.md §3.4)

/// The name of a user: any bytes, compared byte by byte. Not a `String`, whose equality is that of Unicode and not of bytes.
public struct UserName: Hashable, Comparable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    public var bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public init(_ text: String) { bytes = Array(text.utf8) }
    public init(stringLiteral text: String) { self.init(text) }
    /// The user that must exist, and hold the role of the same name, before authentication can be enabled.
    public static let root: UserName = "root"
    public var isEmpty: Bool { bytes.isEmpty }
    public var description: String { String(decoding: bytes, as: UTF8.self) }
    public static func < (a: UserName, b: UserName) -> Bool { compareBytes(a.bytes, b.bytes) < 0 }
}

/// The name of a role: any bytes, compared byte by byte.
public struct RoleName: Hashable, Comparable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    public var bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public init(_ text: String) { bytes = Array(text.utf8) }
    public init(stringLiteral text: String) { self.init(text) }
    /// Its holders may do everything.
    public static let root: RoleName = "root"
    public var isEmpty: Bool { bytes.isEmpty }
    public var description: String { String(decoding: bytes, as: UTF8.self) }
    public static func < (a: RoleName, b: RoleName) -> Bool { compareBytes(a.bytes, b.bytes) < 0 }
}

/// `authpb.User`.
public struct AuthUser: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    public var name: UserName
    /// bcrypt's text form; empty for a user without a password.
    public var passwordHash: [UInt8]
    /// Ascending.
    public var roles: [RoleName]
    /// Known by certificate or by a token that somebody else signs. nil: an old record that does not say, which means false.
    public var hasNoPassword: Bool?

    public init(name: UserName, passwordHash: [UInt8] = [], roles: [RoleName] = [], hasNoPassword: Bool? = false) {
        self.name = name
        self.passwordHash = passwordHash
        self.roles = roles
        self.hasNoPassword = hasNoPassword
    }

    // The hash stays out of every log and dump.
    public var description: String { "user \(name) with roles \(roles)" }
    public var customMirror: Mirror { Mirror(self, children: ["name": name, "roles": roles]) }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 96)
        writer.writeField(1, name.bytes)
        writer.writeField(2, passwordHash)
        for role in roles {
            writer.writeTag(3, .lengthDelimited)
            writer.writeCounted(role.bytes)
        }
        if let hasNoPassword { writer.writeMessage(4) { $0.writeField(1, hasNoPassword) } }
        return writer.bytes
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> AuthUser {
        var user = AuthUser(name: UserName([]), hasNoPassword: nil)
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): user.name = UserName(try reader.readCounted())
            case (2, .lengthDelimited): user.passwordHash = try reader.readCounted()
            case (3, .lengthDelimited): user.roles.append(RoleName(try reader.readCounted()))
            case (4, .lengthDelimited):
                var options = try reader.readMessage()
                user.hasNoPassword = try decodeNoPassword(&options)
            default: try reader.skip(type)
            }
        }
        // Written in order; what another program wrote is put in order.
        user.roles.sort()
        return user
    }

    /// `authpb.UserAddOptions`.
    static func decodeNoPassword(_ reader: inout ByteReader) throws(DecodingFault) -> Bool {
        var hasNoPassword = false
        while let (field, type) = try reader.readTag() {
            if field == 1, type == .varint { hasNoPassword = try reader.readVarint() != 0 } else { try reader.skip(type) }
        }
        return hasNoPassword
    }
}

/// `authpb.Permission`.
public struct Permission: Hashable, Sendable {
    /// `authpb.Permission.Type`; an unknown number survives and allows nothing.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let read = Kind(rawValue: 0)
        public static let write = Kind(rawValue: 1)
        public static let readWrite = Kind(rawValue: 2)
        public var allowsReading: Bool { self == .read || self == .readWrite }
        public var allowsWriting: Bool { self == .write || self == .readWrite }
    }
    public var kind: Kind
    public var key: [UInt8]
    public var rangeEnd: [UInt8]

    public init(_ kind: Kind, key: [UInt8], rangeEnd: [UInt8] = []) {
        self.kind = kind
        self.key = key
        self.rangeEnd = rangeEnd
    }

    public var range: KeyRange { KeyRange(key: key, rangeEnd: rangeEnd) }

    /// A key, and an end above it or none or the open one. (etcd's isValidPermissionRange; 3.5.1 did not look)
    var isValid: Bool {
        guard !key.isEmpty else { return false }
        if case .bounded(let start, let end) = range { return start < end }
        return true
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, Int64(kind.rawValue))
        writer.writeField(2, key)
        writer.writeField(3, rangeEnd)
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> Permission {
        var permission = Permission(.read, key: [])
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .varint): permission.kind = Kind(rawValue: Int32(truncatingIfNeeded: try reader.readVarint()))
            case (2, .lengthDelimited): permission.key = try reader.readCounted()
            case (3, .lengthDelimited): permission.rangeEnd = try reader.readCounted()
            default: try reader.skip(type)
            }
        }
        return permission
    }
}

/// `authpb.Role`.
public struct AuthRole: Hashable, Sendable {
    public var name: RoleName
    /// By key.
    public var permissions: [Permission]

    public init(name: RoleName, permissions: [Permission] = []) {
        self.name = name
        self.permissions = permissions
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 64)
        writer.writeField(1, name.bytes)
        for permission in permissions { writer.writeMessage(2) { permission.encode(into: &$0) } }
        return writer.bytes
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> AuthRole {
        var role = AuthRole(name: RoleName([]))
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): role.name = RoleName(try reader.readCounted())
            case (2, .lengthDelimited):
                var body = try reader.readMessage()
                role.permissions.append(try Permission.decode(&body))
            default: try reader.skip(type)
            }
        }
        return role
    }
}
