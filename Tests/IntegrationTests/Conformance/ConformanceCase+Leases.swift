import Base
import Foundation
import Wire

extension ConformanceCase {
    private static func grant(_ ttl: Int64, _ id: Int64 = 0) -> PBLeaseGrantRequest { made { $0.ttl = ttl; $0.id = id } }
    private static func revoke(_ id: Int64) -> PBLeaseRevokeRequest { made { $0.id = id } }
    private static func left(_ id: Int64, keys: Bool = false) -> PBLeaseTimeToLiveRequest { made { $0.id = id; $0.keys = keys } }
    private static func keep(_ id: Int64) -> PBLeaseKeepAliveRequest { made { $0.id = id } }

    /// Requests on one stream, their answers, and how it ends when the client is done.
    private static func keeping(_ name: String, deviation: String? = nil, _ requests: [PBLeaseKeepAliveRequest]) -> ConformanceCase {
        .steps(name, deviation: deviation) { peer in
            let stream = peer.open(.leaseKeepAlive)
            for request in requests { stream.send(request) }
            let answers = await stream.next(requests.count)
            stream.halfClose()
            return answers + "\n" + (await stream.next())
        }
    }

    /// The seconds that are left run.
    private static func withoutSeconds(_ name: String, _ request: PBLeaseTimeToLiveRequest) -> ConformanceCase {
        .steps(name) { await $0.answer(.leaseTimeToLive, request).replacingOccurrences(of: #"\bTTL: [1-9]\d*"#, with: "TTL: N", options: .regularExpression) }
    }

    static let leases: [ConformanceCase] = [
        .call("none", .leaseLeases, PBLeaseLeasesRequest()), .call("an empty grant", .leaseGrant, PBLeaseGrantRequest()), .call("of a second", .leaseGrant, grant(1, 5)), .call("of seconds below zero", .leaseGrant, grant(-10, 6)),
        .call("of the least seconds", .leaseGrant, grant(.min, 7)), .call("with an id", .leaseGrant, grant(600, 0x10)), .call("with that id again", .leaseGrant, grant(600, 0x10)), .call("with an id below zero", .leaseGrant, grant(600, -3)), .call("with the largest id", .leaseGrant, grant(600, .max)),
        .call("with the least id", .leaseGrant, grant(600, .min)), .call("as long as may be", .leaseGrant, grant(9_000_000_000, 0x11)), .call("longer than may be", .leaseGrant, grant(9_000_000_001, 0x12)), .call("longest", .leaseGrant, grant(.max, 0x12)),
        .call("no revision was used", .range, range("x")), .call("a key", .put, put("a", "1") { $0.lease = 0x10 }), .call("another", .put, put("c", "1") { $0.lease = 0x10 }), .call("a third", .put, put("b", "1") { $0.lease = 0x10 }), .call("a key of one below zero", .put, put("n", "1") { $0.lease = -3 }),
        withoutSeconds("what is left", left(0x10)), withoutSeconds("with its keys", left(0x10, keys: true)), withoutSeconds("without keys", left(0x11, keys: true)), withoutSeconds("below zero", left(-3, keys: true)), .call("what is left of nothing", .leaseTimeToLive, left(0x404)), .call("of the id zero", .leaseTimeToLive, left(0, keys: true)),
        .call("the key goes to another", .put, put("b", "2") { $0.lease = 0x11 }), .call("the key stays with it", .put, put("b", "3") { $0.ignoreLease = true; $0.prevKv = true }), withoutSeconds("the keys that stayed", left(0x10, keys: true)), withoutSeconds("the key that came", left(0x11, keys: true)),
        .call("the key goes free", .put, put("b", "4")), withoutSeconds("nothing is left of it", left(0x11, keys: true)),
        keeping("kept alive", [keep(0x10), keep(0x404), keep(0x10), keep(0), keep(-3), keep(0x11)]), keeping("nothing to keep", []),
        .steps("garbage on the stream") { peer in
            let stream = peer.open(.leaseKeepAlive)
            stream.send(keep(0x10))
            let first = await stream.next()
            stream.send([0x08])
            return first + "\n" + (await stream.next())
        },
        .call("the end of nothing", .leaseRevoke, revoke(0x404)), .call("the end of the id zero", .leaseRevoke, revoke(0)), .call("the end of one without keys", .leaseRevoke, revoke(0x11)), .call("the end of one with two", .leaseRevoke, revoke(0x10)), .call("which are gone", .range, range("a", "z")),
        .call("again", .leaseRevoke, revoke(0x10)), .call("the end of one below zero", .leaseRevoke, revoke(-3)), .call("the key went with it", .range, range("n")), keeping("kept alive after its end", [keep(0x10)]), .call("a key under what ended", .put, put("a", "1") { $0.lease = 0x10 }),
        .call("the id again", .leaseGrant, grant(60, 0x10)), .call("with a key in a transaction", .txn, txn(then: [.set("t", "1") { $0.lease = 0x10 }, .remove("t2")])), withoutSeconds("which it has", left(0x10, keys: true)), .call("compared", .txn, txn([compare("t", .lease, .equal, .lease(0x10))])),
        .call("the key is deleted", .deleteRange, delete("t")), withoutSeconds("and is not its any more", left(0x10, keys: true)), .call("its end then changes nothing", .leaseRevoke, revoke(0x10)), .call("the revision", .range, range("x")),
        .steps("those that are left") { peer in
            // Those of two seconds may have gone.
            let ids = try await peer.value(.leaseLeases, PBLeaseLeasesRequest(), PBLeaseLeasesResponse.self).leases.map(\.id).filter { $0 == .min || $0 == .max }
            return "\(ids.sorted())"
        },
        .bytes("a grant of garbage", .leaseGrant, [0x08]), .bytes("a grant with unknown fields", .leaseGrant, grant(60, 0x20).encoded() + [0xc0, 0x3e, 0x01]),
    ]
}
