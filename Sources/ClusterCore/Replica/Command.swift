import Auth
import Base

/// A command of the replicated log: an envelope of ours around the request's own protobuf bytes, exactly as they arrived.
///
/// Layout: format (1 byte) | kind (1) | proposer (8, little-endian) | request number (8) | origin, in format 2 | body. Nothing in it is
/// local to a member, so every member decodes the same command and reaches the same result.
///
/// Format 1 has no origin: it says `.nobody`. Origin: kind (1 byte: 1 the member itself, 2 a user) and, of a user, auth revision (8) |
/// length of the name (varint) | name.
public struct Command: Sendable {
    public enum Kind: UInt8, Sendable {
        case put = 1
        case deleteRange = 2
        case txn = 3
        case compaction = 4
        case leaseGrant = 5
        case leaseRevoke = 6
        /// A leader found the lease expired. Body: lease id (8) | the leader's term (8).
        case leaseExpire = 7
        case alarm = 8
        /// A member says its name and client URLs.
        case memberAttributes = 9
        /// Members compare their state hashes at an index (`StateCheck`).
        case stateCheck = 10
        /// How much of their time leases have left (`LeaseCheckpoint`).
        case leaseCheckpoint = 11
        /// A job to go back to an older version, as DowngradeRequest.
        case downgrade = 12
        case authEnable = 32
        case authDisable = 33
        /// A password was found right. Body: `Login`.
        case authenticate = 34
        case userAdd = 35
        case userDelete = 36
        case userChangePassword = 37
        case userGrantRole = 38
        case userRevokeRole = 39
        case roleAdd = 40
        case roleDelete = 41
        case roleGrantPermission = 42
        case roleRevokePermission = 43
    }

    /// On whose behalf a command was proposed. Permissions are checked for it when the command is applied.
    public enum Origin: Hashable, Sendable {
        /// A client that nobody knows: authentication was disabled, or it brought no credential.
        case nobody
        /// The cluster's own business: nobody asked for it.
        case member
        case user(Caller)

        var caller: Caller? { if case .user(let caller) = self { caller } else { nil } }
    }

    /// The envelope, without the body.
    struct Header {
        var kind: Kind
        var proposer: MemberID
        var number: UInt64
        var origin: Origin
        /// Where the body begins.
        var size: Int
    }

    static let plainFormat: UInt8 = 1
    static let originFormat: UInt8 = 2
    /// Of a command without origin, and the start of every other.
    public static let headerSize = 18

    public var kind: Kind
    /// The member that answers the client; `.none` when nobody waits.
    public var proposer: MemberID
    /// Unique per proposer and process start; finds the waiting request again.
    public var number: UInt64
    public var origin: Origin
    public var body: [UInt8]

    public init(kind: Kind, proposer: MemberID, number: UInt64, origin: Origin = .nobody, body: [UInt8]) {
        self.kind = kind
        self.proposer = proposer
        self.number = number
        self.origin = origin
        self.body = body
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: Command.headerSize + body.count)
        writer.write(origin == .nobody ? Command.plainFormat : Command.originFormat)
        writer.write(kind.rawValue)
        writer.write(proposer.rawValue)
        writer.write(number)
        switch origin {
        case .nobody: break
        case .member: writer.write(UInt8(1))
        case .user(let caller):
            writer.write(UInt8(2))
            writer.write(caller.revision)
            writer.writeCounted(caller.user.bytes)
        }
        writer.write(body)
        return writer.bytes
    }

    /// Reads the envelope; the body stays in `bytes` from `size` on.
    @inline(__always)
    static func decodeHeader(_ bytes: UnsafeRawBufferPointer) throws(DecodingFault) -> Header {
        guard bytes.count >= headerSize else { throw .truncated }
        let format = bytes[0]
        guard format == plainFormat || format == originFormat else { throw .malformed("command format \(format)") }
        guard let kind = Kind(rawValue: bytes[1]) else { throw .malformed("command kind \(bytes[1])") }
        let proposer = MemberID(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self)))
        let number = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 10, as: UInt64.self))
        var header = Header(kind: kind, proposer: proposer, number: number, origin: .nobody, size: headerSize)
        if format == originFormat {
            var reader = ByteReader(bytes, offset: headerSize, count: bytes.count - headerSize)
            header.origin = try decodeOrigin(&reader)
            header.size = reader.offset
        }
        return header
    }

    private static func decodeOrigin(_ reader: inout ByteReader) throws(DecodingFault) -> Origin {
        switch try reader.readByte() {
        case 1: return .member
        case 2:
            let revision = try reader.read(UInt64.self)
            return .user(Caller(user: UserName(try reader.readCounted()), revision: revision))
        case let other: throw .malformed("command origin \(other)")
        }
    }

    public static func decode(_ bytes: [UInt8]) throws(DecodingFault) -> Command {
        // Returned, not thrown: a typed throw through this closure crashes the 6.3 compiler.
        let result: Result<Command, DecodingFault> = bytes.withUnsafeBytes { raw in
            do throws(DecodingFault) {
                let header = try decodeHeader(raw)
                return .success(Command(kind: header.kind, proposer: header.proposer, number: header.number, origin: header.origin,
                                        body: [UInt8](raw[header.size...])))
            } catch { return .failure(error) }
        }
        return try result.get()
    }
}

/// Body of `.leaseExpire`. The entry only counts when it was appended in the term it names: a deposed leader's expiry that
/// surfaces later must not end a lease that its successor has extended. (reliability.md, incidents 9 and 12)
struct LeaseExpiry {
    var lease: LeaseID
    var term: Term

    func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 16)
        writer.write(lease.rawValue)
        writer.write(term.rawValue)
        return writer.bytes
    }
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> LeaseExpiry {
        LeaseExpiry(lease: LeaseID(try reader.read(Int64.self)), term: Term(try reader.read(UInt64.self)))
    }
}

/// Body of `.memberAttributes`.
struct MemberAttributes {
    var member: MemberID
    var name: String
    var clientURLs: [String]

    func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(member.rawValue)
        writer.writeCounted(Array(name.utf8))
        writer.writeVarint(UInt64(clientURLs.count))
        for url in clientURLs { writer.writeCounted(Array(url.utf8)) }
        return writer.bytes
    }
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> MemberAttributes {
        let member = MemberID(try reader.read(UInt64.self))
        let name = String(decoding: try reader.readCounted(), as: UTF8.self)
        let count = try reader.readVarint()
        guard count <= UInt64(reader.remaining) else { throw .truncated }
        var urls: [String] = []
        for _ in 0..<count { urls.append(String(decoding: try reader.readCounted(), as: UTF8.self)) }
        return MemberAttributes(member: member, name: name, clientURLs: urls)
    }
}
