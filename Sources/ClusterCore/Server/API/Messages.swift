import Auth
import Base
import Raft
import Replica
import Store

// The small messages of the API beside KV and Watch. They are a handful of numbers each, so the field primitives of Base
// carry them without the copies of generated code. (Field numbers: etcd-api.md §3.5-3.9)

/// A request that consists of numbers only: fields 1 to 3, whichever it has.
struct NumberFields {
    private(set) var first: UInt64 = 0
    private(set) var second: UInt64 = 0
    private(set) var third: UInt64 = 0

    static func decode(_ raw: UnsafeRawBufferPointer) throws(DecodingFault) -> NumberFields {
        var fields = NumberFields()
        var reader = ByteReader(raw)
        while let (field, type) = try reader.readTag() {
            guard type == .varint, field <= 3 else {
                guard field > 3 else { throw .malformed("wire type of field \(field)") }
                try reader.skip(type)
                continue
            }
            let value = try reader.readVarint()
            switch field {
            case 1: fields.first = value
            case 2: fields.second = value
            default: fields.third = value
            }
        }
        return fields
    }
}

/// A request of which nothing is used; it must still be a message.
func decodeIgnoringFields(_ raw: UnsafeRawBufferPointer) throws(DecodingFault) {
    var reader = ByteReader(raw)
    while let (_, type) = try reader.readTag() { try reader.skip(type) }
}

/// `grpc.health.v1.HealthCheckRequest.service`.
func decodeHealthService(_ raw: UnsafeRawBufferPointer) throws(DecodingFault) -> [UInt8] {
    var service: [UInt8] = []
    var reader = ByteReader(raw)
    while let (field, type) = try reader.readTag() {
        if field == 1, type == .lengthDelimited { service = try reader.readCounted() } else { try reader.skip(type) }
    }
    return service
}

enum HealthStatus: UInt64 {
    case serving = 1
    case notServing = 2
    case serviceUnknown = 3
}

enum ResponseMessage {
    /// A response whose only field is the header.
    static func headerOnly(_ header: ResponseHeader, into writer: inout ByteWriter) { header.encodeAsField(into: &writer) }

    static func leaseKeepAlive(_ header: ResponseHeader, lease: LeaseID, ttl: Int64, into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        writer.writeField(2, lease.rawValue)
        writer.writeField(3, ttl)
    }

    static func leaseTimeToLive(_ header: ResponseHeader, lease: LeaseID, remaining: Int64, granted: Int64, keys: [[UInt8]],
                                into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        writer.writeField(2, lease.rawValue)
        writer.writeField(3, remaining)
        writer.writeField(4, granted)
        for key in keys {
            writer.writeTag(5, .lengthDelimited)
            writer.writeCounted(key)
        }
    }

    static func leases(_ header: ResponseHeader, _ leases: [LeaseID], into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        for lease in leases { writer.writeMessage(2) { $0.writeField(1, lease.rawValue) } }
    }

    /// The header's revision stays 0 in all answers about members.
    static func members(_ header: ResponseHeader, _ members: [Member], into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        for member in members { self.member(member, field: 2, into: &writer) }
    }

    /// The answer to an addition has the new member before the list.
    static func membershipChanged(_ header: ResponseHeader, added: Member?, _ members: [Member], into writer: inout ByteWriter) {
        guard let added else { return self.members(header, members, into: &writer) }
        header.encodeAsField(into: &writer)
        member(added, field: 2, into: &writer)
        for member in members { self.member(member, field: 3, into: &writer) }
    }

    private static func member(_ member: Member, field: UInt32, into writer: inout ByteWriter) {
        writer.writeMessage(field) { body in
            body.writeField(1, member.id.rawValue)
            body.writeField(2, Array(member.name.utf8))
            for url in member.peerURLs { body.writeString(3, url) }
            for url in member.clientURLs { body.writeString(4, url) }
            body.writeField(5, member.isLearner)
        }
    }

    static func status(_ header: ResponseHeader, _ status: ReplicaStatus, quota: Int64, into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        writer.writeString(2, ServerVersion.etcd)
        writer.writeField(3, status.size.allocatedBytes)
        writer.writeField(4, status.raft.leader.rawValue)
        writer.writeField(5, status.raft.commit.rawValue)
        writer.writeField(6, status.raft.hardState.term.rawValue)
        writer.writeField(7, status.applied.rawValue)
        if status.raft.leader == .none { writer.writeString(8, ServiceError.noLeader.message) }
        for alarm in status.alarms {
            let member = alarm.member == .none ? "" : "memberID:\(alarm.member.rawValue) "
            writer.writeString(8, "\(member)alarm:\(alarmName(alarm.kind)) ")
        }
        writer.writeField(9, status.size.usedBytes)
        writer.writeField(10, status.isLearner)
    }

    static func hash(_ header: ResponseHeader, _ hash: UInt32, into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        writer.writeField(2, UInt64(hash))
    }

    static func hashKV(_ header: ResponseHeader, _ result: HashKVResult, into writer: inout ByteWriter) {
        var header = header
        header.revision = result.revision
        header.encodeAsField(into: &writer)
        writer.writeField(2, UInt64(result.hash))
        writer.writeField(3, result.compactRevision.rawValue)
        writer.writeField(4, result.hashRevision.rawValue)
    }

    static func auth(_ header: ResponseHeader, _ answer: AuthAnswer, into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        func list(_ field: UInt32, _ names: [[UInt8]]) {
            for name in names {
                writer.writeTag(field, .lengthDelimited)
                writer.writeCounted(name)
            }
        }
        switch answer {
        case .status(let isEnabled, let revision):
            writer.writeField(2, isEnabled)
            writer.writeField(3, revision)
        case .user(let user): list(2, user.roles.map(\.bytes))
        case .users(let names): list(2, names.map(\.bytes))
        case .role(let role): for permission in role.permissions { writer.writeMessage(2) { permission.encode(into: &$0) } }
        case .roles(let names): list(2, names.map(\.bytes))
        }
    }

    static func authenticated(_ header: ResponseHeader, token: [UInt8], into writer: inout ByteWriter) {
        header.encodeAsField(into: &writer)
        writer.writeField(2, token)
    }

    static func health(_ status: HealthStatus, into writer: inout ByteWriter) { writer.writeField(1, status.rawValue) }

    /// The only service is the nameless one.
    static func healthList(_ status: HealthStatus, into writer: inout ByteWriter) {
        writer.writeMessage(1) { entry in
            entry.writeMessage(2) { $0.writeField(1, status.rawValue) }
        }
    }
}

/// etcd's name of an alarm kind.
func alarmName(_ kind: UInt32) -> String {
    switch kind {
    case Alarm.noSpace: "NOSPACE"
    case Alarm.corrupt: "CORRUPT"
    default: "UNKNOWN"
    }
}

extension ByteWriter {
    /// A repeated string's element, written even when empty.
    fileprivate mutating func writeString(_ field: UInt32, _ text: String) {
        writeTag(field, .lengthDelimited)
        writeVarint(UInt64(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }
}
