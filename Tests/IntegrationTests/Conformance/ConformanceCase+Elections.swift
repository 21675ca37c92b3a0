import Base
import Foundation
import Wire

extension ConformanceCase {
    private static func lock(_ name: String, _ lease: Int64 = 0) -> PBLockRequest { made { $0.name = Data(name.utf8); $0.lease = lease } }
    private static func campaign(_ name: String, _ lease: Int64, _ value: String = "") -> PBCampaignRequest { made { $0.name = Data(name.utf8); $0.lease = lease; $0.value = Data(value.utf8) } }
    private static func leader(_ name: String) -> PBLeaderRequest { made { $0.name = Data(name.utf8) } }
    private static func key(_ name: String, _ lease: Int64, revision: Int64) -> PBLeaderKey {
        made {
            $0.name = Data(name.utf8)
            $0.key = Data("\(name)/\(String(lease, radix: 16))".utf8)
            $0.lease = lease
            $0.rev = revision
        }
    }

    static let elections: [ConformanceCase] = [
        .steps("leases") { peer in
            var answers: [String] = []
            for id in [0x10, 0x11, 0x12] as [Int64] { answers.append(await peer.answer(.leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = id })) }
            return answers.joined(separator: "\n")
        },
        .call("a lock", .lock, lock("L", 0x10)), .call("again", .lock, lock("L", 0x10)), .call("another's", .lock, lock("M/deep", 0x10)), .call("a lock without a name", .lock, lock("", 0x11)), .call("under nothing", .lock, lock("L", 0x404)), .call("an empty unlock", .unlock, PBUnlockRequest()),
        .call("an unlock of nothing", .unlock, made(PBUnlockRequest.self) { $0.key = Data("nothing".utf8) }), .call("its key", .range, range("L/10")), .call("the unlock", .unlock, made(PBUnlockRequest.self) { $0.key = Data("L/10".utf8) }), .call("again gone", .unlock, made(PBUnlockRequest.self) { $0.key = Data("L/10".utf8) }),
        .steps("the second waits for the first") { peer in
            var answers = [await peer.answer(.lock, lock("W", 0x10))]
            let second = peer.open(.lock)
            second.send(lock("W", 0x11))
            second.halfClose()
            try await eventually("the second's key") { try await peer.value(.range, range("W/", "W0"), PBRangeResponse.self).count == 2 }
            answers.append(await peer.answer(.unlock, made(PBUnlockRequest.self) { $0.key = Data("W/10".utf8) }))
            answers.append(await second.next(2))
            return answers.joined(separator: "\n")
        },
        .steps("the first's lease ends") { peer in
            _ = await peer.answer(.leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = 0x20 })
            var answers = [await peer.answer(.lock, lock("X", 0x20))]
            let second = peer.open(.lock)
            second.send(lock("X", 0x11))
            second.halfClose()
            try await eventually("the second's key") { try await peer.value(.range, range("X/", "X0"), PBRangeResponse.self).count == 2 }
            answers.append(await peer.answer(.leaseRevoke, made(PBLeaseRevokeRequest.self) { $0.id = 0x20 }))
            answers.append(await second.next(2))
            return answers.joined(separator: "\n")
        },
        .bytes("garbage for a lock", .lock, [0x0a]), .bytes("garbage for an unlock", .unlock, [0x0a]),
        .call("nobody leads", .leader, leader("E")), .call("nobody leads without a name", .leader, PBLeaderRequest()), .call("a campaign", .campaign, campaign("E", 0x10, "one")), .call("who leads", .leader, leader("E")), .call("a campaign of the leader", .campaign, campaign("E", 0x10, "two")), .call("which it says", .leader, leader("E")),
        .call("the lock without a name ends", .unlock, made(PBUnlockRequest.self) { $0.key = Data("/11".utf8) }),
        .call("a campaign without a name", .campaign, campaign("", 0x12, "anonymous")), .call("who leads that", .leader, leader("")), .call("a campaign under nothing", .campaign, campaign("E", 0x404)), .call("an empty proclamation", .proclaim, PBProclaimRequest()), .call("a proclamation without a leader", .proclaim, made(PBProclaimRequest.self) { $0.value = Data("x".utf8) }),
        .steps("a proclamation") { peer in
            let now = try await peer.value(.leader, leader("E"), PBLeaderResponse.self).kv.createRevision
            return await peer.answer(.proclaim, made(PBProclaimRequest.self) { $0.leader = key("E", 0x10, revision: now); $0.value = Data("three".utf8) })
        },
        .call("of another revision", .proclaim, made(PBProclaimRequest.self) { $0.leader = key("E", 0x10, revision: 3); $0.value = Data("lie".utf8) }), .call("who still leads", .leader, leader("E")), .call("an empty resignation", .resign, PBResignRequest()), .call("a resignation of another revision", .resign, made(PBResignRequest.self) { $0.leader = key("E", 0x10, revision: 3) }),
        .steps("seen from outside") { peer in
            let stream = peer.open(.observe)
            stream.send(leader("E"))
            stream.halfClose()
            var answers = [await stream.next()]
            let revision = try await peer.value(.leader, leader("E"), PBLeaderResponse.self).kv.createRevision
            answers.append(await peer.answer(.proclaim, made(PBProclaimRequest.self) { $0.leader = key("E", 0x10, revision: revision); $0.value = Data("four".utf8) }))
            answers.append(await stream.next())
            let second = peer.open(.campaign)
            second.send(campaign("E", 0x11, "second"))
            second.halfClose()
            try await eventually("the second's key") { try await peer.value(.range, range("E/", "E0"), PBRangeResponse.self).count == 2 }
            answers.append(await peer.answer(.resign, made(PBResignRequest.self) { $0.leader = key("E", 0x10, revision: revision) }))
            answers.append(await second.next(2))
            answers.append(await stream.next())
            stream.cancel()
            return answers.joined(separator: "\n")
        },
        .steps("seen before anybody leads") { peer in
            let stream = peer.open(.observe)
            stream.send(leader("F"))
            stream.halfClose()
            var answers = [await peer.answer(.campaign, campaign("F", 0x12, "late"))]
            answers.append(await stream.next())
            stream.cancel()
            return answers.joined(separator: "\n")
        },
        .bytes("garbage for a campaign", .campaign, [0x0a]), .bytes("garbage for observers", .observe, [0x0a]), .call("its end", .leaseRevoke, made(PBLeaseRevokeRequest.self) { $0.id = 0x12 }), .call("takes the leader with it", .leader, leader("F")), .call("the revision at the end", .range, range("x")),
    ]
}
