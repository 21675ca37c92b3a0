import Base
import Foundation
import Wire

extension ConformanceCase {
    static let writes: [ConformanceCase] = [
        .call("an empty put", .put, PBPutRequest()), .call("an empty deletion", .deleteRange, PBDeleteRangeRequest()), .call("a put", .put, put("k", "1")), .call("the same again", .put, put("k", "1")),
        .call("the one before", .put, put("k", "2") { $0.prevKv = true }), .call("the one before where none is", .put, put("new", "2") { $0.prevKv = true }), .call("the one before a deleted one", .deleteRange, delete("new", previous: true)),
        .call("after the deletion", .put, put("new", "3") { $0.prevKv = true }), .call("an empty value", .put, put("k", "")), .call("of which the one before tells", .put, put("k", "5") { $0.prevKv = true }),
        .call("keep the value", .put, put("k", "") { $0.ignoreValue = true; $0.prevKv = true }), .call("keep the value and give one", .put, put("k", "x") { $0.ignoreValue = true }), .call("keep the value of nothing", .put, put("none") { $0.ignoreValue = true }),
        .call("keep the lease", .put, put("k", "6") { $0.ignoreLease = true }), .call("keep the lease and give one", .put, put("k", "x") { $0.ignoreLease = true; $0.lease = 7 }), .call("keep the lease of nothing", .put, put("none") { $0.ignoreLease = true }),
        .call("keep both", .put, put("k") { $0.ignoreLease = true; $0.ignoreValue = true }), .call("keep both without a key", .put, put("") { $0.ignoreLease = true; $0.ignoreValue = true; $0.lease = 4 }),
        .call("under a lease that is not there", .put, put("k", "x") { $0.lease = 77 }), .call("under a lease below zero that is not there", .put, put("k", "x") { $0.lease = -77 }),
        .call("keys and values of any bytes", .put, made(PBPutRequest.self) { $0.key = Data([0, 255, 10, 128]); $0.value = Data((0...255).map { UInt8($0) }); $0.prevKv = true }),
        .call("they are there", .range, made(PBRangeRequest.self) { $0.key = Data([0, 255, 10, 128]) }), .call("a key of 40,000 bytes", .put, put(String(repeating: "k", count: 40_000), "1")),
        .call("delete nothing", .deleteRange, delete("nope")), .call("delete nothing, with the ones before", .deleteRange, delete("nope", "nopf", previous: true)), .call("delete a range that ends before it begins", .deleteRange, delete("z", "a")),
        .call("delete with an end without a key", .deleteRange, delete("", "z")), .call("put a", .put, put("d/a", "1")), .call("put b", .put, put("d/b", "2")), .call("put c", .put, put("d/c", "3")),
        .call("delete two", .deleteRange, delete("d/a", "d/c", previous: true)), .call("delete from a key on", .deleteRange, delete("k", "\0", previous: true)), .call("delete everything", .deleteRange, delete("\0", "\0")),
        .call("nothing is left", .range, range("\0", "\0") { $0.countOnly = true }),
        .bytes("a put with unknown fields", .put, put("u", "1").encoded() + [0xc0, 0x3e, 0x01, 0x9d, 0x3f, 1, 2, 3, 4]), .bytes("a put of garbage", .put, [0x0a]), .bytes("a deletion of garbage", .deleteRange, [0x0a, 0xff]),
        .call("as large as may be", .put, put("big", String(repeating: "v", count: 1_572_000))), .call("larger than a request may be", .put, put("big", String(repeating: "v", count: 1_573_000))),
        .call("larger than a message may be", .put, put("big", String(repeating: "v", count: 2_097_200))), .call("larger than a request may be, in a transaction", .txn, txn(then: [.set("a", String(repeating: "v", count: 800_000)), .set("b", String(repeating: "v", count: 800_000))])),
        .call("a deletion larger than a request may be", .deleteRange, delete(String(repeating: "k", count: 1_600_000))), .call("a range larger than a request may be", .range, range(String(repeating: "k", count: 1_600_000))),
        .call("no revision was used", .range, range("x")),
        // Compactions and checksums: the histories are equal, so these are too.
        .call("an empty compaction", .compact, PBCompactionRequest()), .call("which is done", .compact, PBCompactionRequest()), .call("below zero", .compact, compact(-1)), .call("least", .compact, compact(.min)), .call("in the future", .compact, compact(99)),
        .call("furthest", .compact, compact(.max)), .call("a checksum", .hashKV, PBHashKVRequest()), .call("a checksum of before", .hashKV, made(PBHashKVRequest.self) { $0.revision = 7 }), .call("a checksum of the future", .hashKV, made(PBHashKVRequest.self) { $0.revision = 999 }),
        .call("a checksum below zero", .hashKV, made(PBHashKVRequest.self) { $0.revision = -3 }), .call("compaction", .compact, compact(5)), .call("again", .compact, compact(5)), .call("backwards", .compact, compact(4)), .call("physical", .compact, compact(9, physical: true)),
        .call("physical again", .compact, compact(9, physical: true)), .call("a checksum after it", .hashKV, PBHashKVRequest()), .call("a checksum at it", .hashKV, made(PBHashKVRequest.self) { $0.revision = 9 }, deviation: "answered, as 3.5.5 and later: what is at the compacted revision is there"), .call("a checksum before it", .hashKV, made(PBHashKVRequest.self) { $0.revision = 8 }),
        .bytes("a compaction of garbage", .compact, [0x08]),
    ]
}
