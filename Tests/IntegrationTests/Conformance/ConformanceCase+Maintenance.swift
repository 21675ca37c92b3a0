import Base
import Foundation
import Wire

extension ConformanceCase {
    private static func alarm(_ action: PBAlarmRequest.AlarmAction, _ kind: PBAlarmType, member: UInt64 = 0) -> PBAlarmRequest {
        made {
            $0.action = action
            $0.alarm = kind
            $0.memberID = member
        }
    }
    private static func add(_ urls: [String], learner: Bool = false) -> PBMemberAddRequest { made { $0.peerUrls = urls; $0.isLearner = learner } }
    private static func downgrade(_ action: PBDowngradeRequest.DowngradeAction, _ version: String) -> PBDowngradeRequest { made { $0.action = action; $0.version = version } }

    /// To the only member, whose id is each server's own.
    private static func toMember<Request: ProtobufMessage>(_ name: String, _ method: MethodID, deviation: String? = nil, _ request: @escaping @Sendable (UInt64) -> Request) -> ConformanceCase {
        .steps(name, deviation: deviation) { peer in
            let id = try await peer.value(.status, PBStatusRequest(), PBStatusResponse.self).header.memberID
            return await peer.answer(method, request(id))
        }
    }

    static let maintenance: [ConformanceCase] = [
        .steps("the members") { peer in
            // A member makes its name known when it has started.
            try await eventually("the member's name") { try await !peer.value(.memberList, PBMemberListRequest(), PBMemberListResponse.self).members[0].name.isEmpty }
            return await peer.answer(.memberList, PBMemberListRequest())
        },
         .call("the members, linearizable", .memberList, made(PBMemberListRequest.self) { $0.linearizable = true }), .call("add an empty one", .memberAdd, PBMemberAddRequest()),
        .call("add without a URL", .memberAdd, add([""])), .call("add with a bad URL", .memberAdd, add(["nonsense"])), .call("with a good and a bad URL", .memberAdd, add(["http://127.0.0.1:7", "x://127.0.0.1:7"])), .call("with a path", .memberAdd, add(["http://127.0.0.1:7/p"])),
        .call("without a port", .memberAdd, add(["http://127.0.0.1"])), .call("remove an empty one", .memberRemove, PBMemberRemoveRequest()), .call("remove nobody", .memberRemove, made(PBMemberRemoveRequest.self) { $0.id = 5 }), .call("update an empty one", .memberUpdate, PBMemberUpdateRequest()),
        .call("update nobody", .memberUpdate, made(PBMemberUpdateRequest.self) { $0.id = 5; $0.peerUrls = ["http://127.0.0.1:7"] }), .call("promote an empty one", .memberPromote, PBMemberPromoteRequest()), .call("promote nobody", .memberPromote, made(PBMemberPromoteRequest.self) { $0.id = 5 }),
        toMember("promote a voter", .memberPromote) { id in made(PBMemberPromoteRequest.self) { $0.id = id } }, toMember("update without a URL", .memberUpdate) { id in made(PBMemberUpdateRequest.self) { $0.id = id } }, toMember("update with a bad URL", .memberUpdate) { id in made(PBMemberUpdateRequest.self) { $0.id = id; $0.peerUrls = ["frob"] } },
        .call("add a learner", .memberAdd, add(["http://127.0.0.1:9"], learner: true)), .call("add another", .memberAdd, add(["http://127.0.0.1:8"], learner: true)), .call("add one that is there", .memberAdd, add(["http://127.0.0.1:9"])),
        .steps("promote and remove it") { peer in
            let members = try await peer.value(.memberList, PBMemberListRequest(), PBMemberListResponse.self).members
            let id = members.first { $0.isLearner }!.id
            return await peer.answer(.memberPromote, made(PBMemberPromoteRequest.self) { $0.id = id }) + "\n" + peer.answer(.memberRemove, made(PBMemberRemoveRequest.self) { $0.id = id }) + "\n"
                + peer.answer(.memberRemove, made(PBMemberRemoveRequest.self) { $0.id = id })
        },
        .bytes("garbage for a member", .memberAdd, [0x0a, 0x09]),
        .call("the status", .status, PBStatusRequest()), .bytes("the status, asked with unknown fields", .status, [0xc0, 0x3e, 0x01]), .call("defragment", .defragment, PBDefragmentRequest()), .steps("a checksum of everything") { await $0.answer(.hash, []).replacingOccurrences(of: #"\d+ bytes"#, with: "bytes", options: .regularExpression) },
        .call("a checksum of the keys", .hashKV, PBHashKVRequest()), .call("hand over to nobody", .moveLeader, PBMoveLeaderRequest()), .call("hand over to one that is not there", .moveLeader, made(PBMoveLeaderRequest.self) { $0.targetID = 5 }), toMember("hand over to oneself", .moveLeader) { id in made(PBMoveLeaderRequest.self) { $0.targetID = id } },
        .steps("a snapshot") { peer in
            let stream = peer.open(.snapshot)
            stream.send([])
            stream.halfClose()
            // Sizes are each server's own: that there are pieces, and that it ends well.
            var count = 0, last = await stream.next()
            while !last.hasPrefix("OK"), !last.contains("Deadline") { count += 1; last = await stream.next() }
            return "\(count > 1) \(last)"
        },
        .call("downgrade, empty", .downgrade, PBDowngradeRequest()), .call("downgrade by one", .downgrade, downgrade(.validate, "3.4.0")), .call("by two", .downgrade, downgrade(.validate, "3.3.0")), .call("upwards", .downgrade, downgrade(.validate, "3.6.0")),
        .call("cancel none", .downgrade, downgrade(.cancel, "")), .call("an unknown action", .downgrade, downgrade(.UNRECOGNIZED(9), "3.4.0")),
        // Alarms, and what they keep from happening.
        .call("no alarms", .alarm, PBAlarmRequest()), .call("no alarms of a kind", .alarm, alarm(.get, .nospace)), .call("raise none", .alarm, alarm(.activate, .none)), .call("the list", .alarm, alarm(.get, .none)), .call("lay none", .alarm, alarm(.deactivate, .none)),
        .call("a lease to write under", .leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = 5 }), .call("a key", .put, put("k", "1")),
        .call("no space", .alarm, alarm(.activate, .nospace)), .call("again", .alarm, alarm(.activate, .nospace)), .call("the list of it", .alarm, alarm(.get, .nospace)), .call("the list of the other", .alarm, alarm(.get, .corrupt)), .call("a put", .put, put("k", "2")), .call("a put without a key", .put, put("")),
        .call("a transaction that puts", .txn, txn(then: [.set("k", "2")])), .call("a transaction that might", .txn, txn([compare("k", .version, .equal, .version(99))], then: [.set("k", "2")])), .call("a transaction that deletes", .txn, txn(then: [.remove("none")])), .call("a transaction that reads", .txn, txn(then: [.get("k")])),
        .call("a range", .range, range("k")), .call("a deletion", .deleteRange, delete("none")), .call("a grant", .leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = 6 }), .call("a compaction", .compact, compact(1)), .call("the end of a lease", .leaseRevoke, made(PBLeaseRevokeRequest.self) { $0.id = 5 }), .call("a user", .userAdd, made(PBAuthUserAddRequest.self) { $0.name = "u"; $0.password = "p" }),
        .call("the status with it", .status, PBStatusRequest()), .call("laid for nobody", .alarm, alarm(.deactivate, .nospace, member: 77)), .call("laid", .alarm, alarm(.deactivate, .nospace)), .call("a put again", .put, put("k", "3")),
        .call("corrupt, of another member", .alarm, alarm(.activate, .corrupt, member: 77)), .call("a put then", .put, put("k", "4")), .call("a range then", .range, range("k")), .call("a serializable range then", .range, range("k") { $0.serializable = true }), .call("a deletion then", .deleteRange, delete("k")), .call("a transaction then", .txn, txn(then: [.set("k", "4")])),
        .call("a transaction that reads then", .txn, txn(then: [.get("k")])), .call("a compaction then", .compact, compact(1)), .call("a grant then", .leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = 7 }), .call("an end of a lease then", .leaseRevoke, made(PBLeaseRevokeRequest.self) { $0.id = 99 }), .call("a checksum then", .hashKV, PBHashKVRequest()),
        .call("the status then", .status, PBStatusRequest()), .call("both", .alarm, alarm(.activate, .nospace, member: 78)), .call("the list of both", .alarm, alarm(.get, .none)), .call("a put with both", .put, put("k", "5"), deviation: "of two alarms the graver is told; etcd tells the one that was raised last"), .call("laid for all of one kind", .alarm, alarm(.deactivate, .corrupt, member: 77)), .call("and the other", .alarm, alarm(.deactivate, .nospace, member: 78)),
        .call("a put after all", .put, put("k", "6")),
        // Unknown kinds and actions are not asked for: they kill real etcd.
        .call("the list of an unknown kind", .alarm, alarm(.get, .UNRECOGNIZED(7))), .bytes("garbage for alarms", .alarm, [0x08]),
        .call("healthy", .healthCheck, PBHealthCheckRequest()), .call("the health of a service", .healthCheck, made(PBHealthCheckRequest.self) { $0.service = "etcdserverpb.KV" }), .steps("health, watched") { peer in
            let stream = peer.open(.healthWatch)
            stream.send(PBHealthCheckRequest())
            stream.halfClose()
            let answer = await stream.next()
            stream.cancel()
            return answer
        },
        .call("the health of all services", .healthList, PBHealthCheckRequest(), deviation: "answered, as servers with a newer gRPC"),
    ]
}
