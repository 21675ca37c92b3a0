import Base

/// A command of the replicated log: an envelope of ours around the request's own protobuf bytes, exactly as they arrived.
///
/// Layout: format (1 byte) | kind (1) | proposer (8, little-endian) | request number (8) | body. Nothing in it is local to a
/// member, so every member decodes the same command and reaches the same result.
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
    }

    public static let format: UInt8 = 1
    public static let headerSize = 18

    public var kind: Kind
    /// The member that answers the client; `.none` when nobody waits.
    public var proposer: MemberID
    /// Unique per proposer and process start; finds the waiting request again.
    public var number: UInt64
    public var body: [UInt8]

    public init(kind: Kind, proposer: MemberID, number: UInt64, body: [UInt8]) {
        self.kind = kind
        self.proposer = proposer
        self.number = number
        self.body = body
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: Command.headerSize + body.count)
        writer.write(Command.format)
        writer.write(kind.rawValue)
        writer.write(proposer.rawValue)
        writer.write(number)
        writer.write(body)
        return writer.bytes
    }

    /// Reads the envelope; `body` stays in `bytes` from `headerSize` on.
    @inline(__always)
    static func decodeHeader(_ bytes: UnsafeRawBufferPointer) throws(DecodingFault) -> (kind: Kind, proposer: MemberID, number: UInt64) {
        guard bytes.count >= headerSize else { throw .truncated }
        guard bytes[0] == format else { throw .malformed("command format \(bytes[0])") }
        guard let kind = Kind(rawValue: bytes[1]) else { throw .malformed("command kind \(bytes[1])") }
        let proposer = MemberID(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self)))
        let number = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 10, as: UInt64.self))
        return (kind, proposer, number)
    }

    public static func decode(_ bytes: [UInt8]) throws(DecodingFault) -> Command {
        guard bytes.count >= headerSize else { throw .truncated }
        guard bytes[0] == format else { throw .malformed("command format \(bytes[0])") }
        guard let kind = Kind(rawValue: bytes[1]) else { throw .malformed("command kind \(bytes[1])") }
        var proposer: UInt64 = 0
        var number: UInt64 = 0
        for i in 0..<8 {
            proposer |= UInt64(bytes[2 + i]) << UInt64(8 * i)
            number |= UInt64(bytes[10 + i]) << UInt64(8 * i)
        }
        return Command(kind: kind, proposer: MemberID(proposer), number: number, body: Array(bytes[headerSize...]))
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
