import Base
import Raft

/// A wish to change who belongs to the cluster, or where a member is found.
public enum MembershipRequest: Hashable, Sendable {
    /// The id is drawn by whoever proposes: it depends on time. A member that is not to stay a learner is admitted as one all the same and
    /// becomes a voter as soon as it has caught up, so that a wrong address never costs the quorum. (reliability.md, incident 39)
    case add(Member)
    case remove(MemberID)
    /// Nothing else of the member changes. (reliability.md, incident 40)
    case update(MemberID, peerURLs: [String])
    /// A learner becomes a voter.
    case promote(MemberID)
}

/// What a `.configuration` entry says of the members, besides the configuration that consensus reads out of it.
///
/// Layout: format (1 byte) | asker (8, little-endian) | number (8) | kind (1) | body.
struct MembershipEntry: Hashable {
    enum Change: Hashable {
        case request(MembershipRequest)
        /// A member that was added as a voter has caught up and votes from now on. The table of members always said so.
        case admit(MemberID)
        /// The founders, as the first leader knows them.
        case found([Member])
        /// An operator's word: everybody but this member is out. (`--force-new-cluster`)
        case alone(MemberID)
    }
    /// Who answers the client; `.none` when nobody waits.
    var asker = MemberID.none
    var number: UInt64 = 0
    var change: Change

    private static let format: UInt8 = 1

    func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 64)
        writer.write(MembershipEntry.format)
        writer.write(asker.rawValue)
        writer.write(number)
        switch change {
        case .request(let request): request.encode(into: &writer)
        case .admit(let id):
            writer.write(16 as UInt8)
            writer.write(id.rawValue)
        case .found(let members):
            writer.write(17 as UInt8)
            writer.writeVarint(UInt64(members.count))
            for member in members { writer.writeCounted(member.json()) }
        case .alone(let id):
            writer.write(18 as UInt8)
            writer.write(id.rawValue)
        }
        return writer.bytes
    }

    static func decode(_ bytes: [UInt8]) throws(DecodingFault) -> MembershipEntry {
        // Returned, not thrown: a typed throw through this closure crashes the 6.3 compiler.
        let result: Result<MembershipEntry, DecodingFault> = bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            do throws(DecodingFault) { return .success(try decode(&reader)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> MembershipEntry {
        let format = try reader.readByte()
        guard format == MembershipEntry.format else { throw .malformed("membership entry format \(format)") }
        let asker = MemberID(try reader.read(UInt64.self))
        let number = try reader.read(UInt64.self)
        let kind = try reader.readByte()
        let change: Change
        switch kind {
        case 16: change = .admit(MemberID(try reader.read(UInt64.self)))
        case 17:
            let count = try reader.readVarint()
            guard count <= UInt64(reader.remaining) else { throw .truncated }
            var members: [Member] = []
            for _ in 0..<count { members.append(try Member.decode(json: try reader.readCounted())) }
            change = .found(members)
        case 18: change = .alone(MemberID(try reader.read(UInt64.self)))
        default: change = .request(try MembershipRequest.decode(kind, &reader))
        }
        guard reader.isAtEnd else { throw .malformed("bytes behind a membership entry") }
        return MembershipEntry(asker: asker, number: number, change: change)
    }
}

extension MembershipRequest {
    /// Kind (1) | body. Used in entries and between members.
    func encode(into writer: inout ByteWriter) {
        switch self {
        case .add(let member):
            writer.write(1 as UInt8)
            writer.writeCounted(member.json())
        case .remove(let id):
            writer.write(2 as UInt8)
            writer.write(id.rawValue)
        case .update(let id, let urls):
            writer.write(3 as UInt8)
            writer.write(id.rawValue)
            writer.writeVarint(UInt64(urls.count))
            for url in urls { writer.writeCounted(Array(url.utf8)) }
        case .promote(let id):
            writer.write(4 as UInt8)
            writer.write(id.rawValue)
        }
    }

    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> MembershipRequest {
        let kind = try reader.readByte()
        return try decode(kind, &reader)
    }

    fileprivate static func decode(_ kind: UInt8, _ reader: inout ByteReader) throws(DecodingFault) -> MembershipRequest {
        switch kind {
        case 1: return .add(try Member.decode(json: try reader.readCounted()))
        case 2: return .remove(MemberID(try reader.read(UInt64.self)))
        case 3:
            let id = MemberID(try reader.read(UInt64.self))
            let count = try reader.readVarint()
            guard count <= UInt64(reader.remaining) else { throw .truncated }
            var urls: [String] = []
            for _ in 0..<count { urls.append(String(decoding: try reader.readCounted(), as: UTF8.self)) }
            return .update(id, peerURLs: urls)
        case 4: return .promote(MemberID(try reader.read(UInt64.self)))
        default: throw .malformed("membership change kind \(kind)")
        }
    }
}

// MARK: - Whether a change may be made

extension Membership {
    /// What the request makes of the table, whoever asks: nil when it may be. (etcd, ValidateConfigurationChange)
    func refusal(of request: MembershipRequest, maxLearners: Int) -> ServiceError? {
        switch request {
        case .add(let member):
            if isRemoved(member.id) { return .memberNotFound }
            if self.member(member.id) != nil { return .memberExist }
            if members.contains(where: { other in other.peerURLs.contains { member.peerURLs.contains($0) } }) { return .peerURLExist }
            if member.isLearner, members.count(where: \.isLearner) >= maxLearners { return .tooManyLearners }
            return nil
        case .remove(let id):
            return member(id) == nil ? .memberNotFound : nil
        case .update(let id, let urls):
            if member(id) == nil { return .memberNotFound }
            let isTaken = members.contains { other in other.id != id && other.peerURLs.contains { urls.contains($0) } }
            return isTaken ? .peerURLExist : nil
        case .promote(let id):
            guard let member = member(id) else { return .memberNotFound }
            return member.isLearner ? nil : .memberNotLearner
        }
    }

    /// Whether enough of the voters have ever started for the change to leave a quorum of started ones. (etcd, IsReadyTo...)
    func hasEnoughStarted(for request: MembershipRequest) -> Bool {
        let voters = members.filter { !$0.isLearner }
        let started = voters.count { !$0.name.isEmpty }
        func isQuorum(_ started: Int, of count: Int) -> Bool { started >= Quorum.size(of: count) }
        switch request {
        case .add(let member):
            // One member may always take a second one: else a cluster restored from a backup could never grow.
            return member.isLearner || (started == 1 && voters.count == 1) || isQuorum(started, of: voters.count + 1)
        case .remove(let id):
            if member(id)?.isLearner == true { return true }
            let rest = voters.filter { $0.id != id }
            return isQuorum(rest.count { !$0.name.isEmpty }, of: rest.count)
        case .update: return true
        case .promote: return isQuorum(started + 1, of: voters.count + 1)
        }
    }
}
