import Base
import Raft
import Store

/// What members say to each other: consensus, and the few things that only the leader can answer (leases, changes of the membership).
public struct PeerMessage: Sendable {
    public enum Body: Sendable {
        case raft(Message)
        /// Renew a lease on the leader. `number` comes back in the answer.
        case leaseRenew(number: UInt64, lease: LeaseID)
        case leaseTimeToLive(number: UInt64, lease: LeaseID, wantsKeys: Bool)
        /// `ttl` 0: the lease does not exist.
        case leaseRenewed(number: UInt64, ttlSeconds: Int64)
        /// `remaining` -1: the lease does not exist.
        case leaseState(number: UInt64, remainingSeconds: Int64, grantedSeconds: Int64, keys: [[UInt8]])
        /// The asked member does not lead (any more).
        case notLeader(number: UInt64)
        /// The sender's state hash as of an entry that a check in the log has named.
        case stateHash(index: LogIndex, StateHash)
        /// Taken only by a leader of that term. The answer is the applied entry, or a refusal.
        case changeMembership(number: UInt64, term: Term, MembershipRequest)
        case membershipRefused(number: UInt64, ServiceError)
        /// The receiver was removed from the cluster; whatever it said was not heard.
        case removed
        /// From one that has heard no leader for long: does it still belong? Only a removed one is answered.
        case askStanding
    }
    public var from: MemberID
    public var to: MemberID
    public var body: Body
    public init(from: MemberID, to: MemberID, body: Body) {
        self.from = from
        self.to = to
        self.body = body
    }
}

extension PeerMessage {
    /// The body only; sender and receiver are in the transport's frame.
    public func encodeBody(into writer: inout ByteWriter) {
        switch body {
        case .raft(let message):
            writer.write(0 as UInt8)
            message.encode(into: &writer)
        case .leaseRenew(let number, let lease):
            writer.write(1 as UInt8)
            writer.write(number)
            writer.write(lease.rawValue)
        case .leaseTimeToLive(let number, let lease, let wantsKeys):
            writer.write(2 as UInt8)
            writer.write(number)
            writer.write(lease.rawValue)
            writer.write(UInt8(wantsKeys ? 1 : 0))
        case .leaseRenewed(let number, let ttl):
            writer.write(3 as UInt8)
            writer.write(number)
            writer.write(ttl)
        case .leaseState(let number, let remaining, let granted, let keys):
            writer.write(4 as UInt8)
            writer.write(number)
            writer.write(remaining)
            writer.write(granted)
            writer.writeVarint(UInt64(keys.count))
            for key in keys { writer.writeCounted(key) }
        case .notLeader(let number):
            writer.write(5 as UInt8)
            writer.write(number)
        case .stateHash(let index, let hash):
            writer.write(10 as UInt8)
            writer.write(index.rawValue)
            writer.write(hash.rawValue)
        case .changeMembership(let number, let term, let request):
            writer.write(6 as UInt8)
            writer.write(number)
            writer.write(term.rawValue)
            request.encode(into: &writer)
        case .membershipRefused(let number, let error):
            writer.write(7 as UInt8)
            writer.write(number)
            writer.write(error.code.rawValue)
            writer.writeCounted(Array(error.message.utf8))
        case .removed:
            writer.write(8 as UInt8)
        case .askStanding:
            writer.write(9 as UInt8)
        }
    }

    public static func decodeBody(_ reader: inout ByteReader, from: MemberID, to: MemberID) throws(DecodingFault) -> PeerMessage {
        let body: Body
        switch try reader.readByte() {
        case 0:
            let message = try Message.decode(&reader)
            guard message.from == from, message.to == to else { throw .malformed("message names other members than its frame") }
            body = .raft(message)
        case 1: body = .leaseRenew(number: try reader.read(), lease: LeaseID(try reader.read()))
        case 2: body = .leaseTimeToLive(number: try reader.read(), lease: LeaseID(try reader.read()), wantsKeys: try reader.readByte() != 0)
        case 3: body = .leaseRenewed(number: try reader.read(), ttlSeconds: try reader.read())
        case 4:
            let number: UInt64 = try reader.read()
            let remaining: Int64 = try reader.read()
            let granted: Int64 = try reader.read()
            let count = try reader.readVarint()
            guard count <= UInt64(reader.remaining) else { throw .truncated }
            var keys: [[UInt8]] = []
            for _ in 0..<count { keys.append(try reader.readCounted()) }
            body = .leaseState(number: number, remainingSeconds: remaining, grantedSeconds: granted, keys: keys)
        case 5: body = .notLeader(number: try reader.read())
        case 10: body = .stateHash(index: LogIndex(try reader.read()), StateHash(rawValue: try reader.read()))
        case 6:
            let number: UInt64 = try reader.read()
            let term = Term(try reader.read(UInt64.self))
            body = .changeMembership(number: number, term: term, try MembershipRequest.decode(&reader))
        case 7:
            let number: UInt64 = try reader.read()
            guard let code = StatusCode(rawValue: try reader.readByte()) else { throw .malformed("unknown status code") }
            body = .membershipRefused(number: number, ServiceError(code, String(decoding: try reader.readCounted(), as: UTF8.self)))
        case 8: body = .removed
        case 9: body = .askStanding
        case let kind: throw .malformed("peer message kind \(kind)")
        }
        guard reader.isAtEnd else { throw .malformed("bytes behind a peer message") }
        return PeerMessage(from: from, to: to, body: body)
    }
}
