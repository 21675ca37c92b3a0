import Base

// The changes of authentication as they stand in the replicated log: etcd's request messages, except that a password comes as its hash
// and never as text. (etcd-api.md §3.8, §3.10)

/// `AuthUserAddRequest` without the password; field 4 is the hash itself, not its base64 form.
public struct UserAddition: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    public var name: UserName
    public var hasNoPassword: Bool
    public var passwordHash: [UInt8]

    public init(name: UserName, hasNoPassword: Bool = false, passwordHash: [UInt8] = []) {
        self.name = name
        self.hasNoPassword = hasNoPassword
        self.passwordHash = passwordHash
    }

    public var description: String { "addition of user \(name)" }
    public var customMirror: Mirror { Mirror(self, children: ["name": name]) }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 96)
        writer.writeField(1, name.bytes)
        if hasNoPassword { writer.writeMessage(3) { $0.writeField(1, true) } }
        writer.writeField(4, passwordHash)
        return writer.bytes
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> UserAddition {
        var addition = UserAddition(name: UserName([]))
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): addition.name = UserName(try reader.readCounted())
            case (3, .lengthDelimited):
                var options = try reader.readMessage()
                addition.hasNoPassword = try AuthUser.decodeNoPassword(&options)
            case (4, .lengthDelimited): addition.passwordHash = try reader.readCounted()
            default: try reader.skip(type)
            }
        }
        return addition
    }
}

/// A login that was found right: `InternalAuthenticateRequest` with the revision at which the password was compared, in field 4.
public struct Login: Hashable, Sendable, CustomStringConvertible, CustomReflectable {
    public var user: UserName
    /// The random part of the token; the entry's index follows it.
    public var tokenPrefix: [UInt8]
    public var checkedRevision: UInt64

    public init(user: UserName, tokenPrefix: [UInt8], checkedRevision: UInt64) {
        self.user = user
        self.tokenPrefix = tokenPrefix
        self.checkedRevision = checkedRevision
    }

    public var description: String { "login of \(user)" }
    public var customMirror: Mirror { Mirror(self, children: ["user": user]) }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 48)
        writer.writeField(1, user.bytes)
        writer.writeField(3, tokenPrefix)
        writer.writeField(4, checkedRevision)
        return writer.bytes
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> Login {
        var login = Login(user: UserName([]), tokenPrefix: [], checkedRevision: 0)
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): login.user = UserName(try reader.readCounted())
            case (3, .lengthDelimited): login.tokenPrefix = try reader.readCounted()
            case (4, .varint): login.checkedRevision = try reader.readVarint()
            default: try reader.skip(type)
            }
        }
        return login
    }
}

/// The messages that consist of byte strings: fields 1 to 3, whichever they have.
public struct NameFields: Hashable, Sendable {
    public var first: [UInt8] = []
    public var second: [UInt8] = []
    public var third: [UInt8] = []
    public init(_ first: [UInt8] = [], _ second: [UInt8] = [], _ third: [UInt8] = []) {
        self.first = first
        self.second = second
        self.third = third
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: first.count + second.count + third.count + 12)
        writer.writeField(1, first)
        writer.writeField(2, second)
        writer.writeField(3, third)
        return writer.bytes
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> NameFields {
        var fields = NameFields()
        while let (field, type) = try reader.readTag() {
            guard field <= 3 else {
                try reader.skip(type)
                continue
            }
            guard type == .lengthDelimited else { throw .malformed("wire type of field \(field)") }
            let value = try reader.readCounted()
            switch field {
            case 1: fields.first = value
            case 2: fields.second = value
            default: fields.third = value
            }
        }
        return fields
    }
}

/// `AuthRoleGrantPermissionRequest`.
public struct PermissionGrant: Hashable, Sendable {
    public var role: RoleName
    public var permission: Permission?
    public init(role: RoleName, permission: Permission?) {
        self.role = role
        self.permission = permission
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 64)
        writer.writeField(1, role.bytes)
        if let permission { writer.writeMessage(2) { permission.encode(into: &$0) } }
        return writer.bytes
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> PermissionGrant {
        var grant = PermissionGrant(role: RoleName([]), permission: nil)
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): grant.role = RoleName(try reader.readCounted())
            case (2, .lengthDelimited):
                var body = try reader.readMessage()
                grant.permission = try Permission.decode(&body)
            default: try reader.skip(type)
            }
        }
        return grant
    }
}
