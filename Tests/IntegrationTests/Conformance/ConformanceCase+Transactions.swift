import Base
import Foundation
import Wire

extension ConformanceCase {
    static let transactions: [ConformanceCase] = [
        .call("an empty one", .txn, PBTxnRequest()), .call("two puts", .txn, txn(then: [.set("a", "1"), .set("b", "2")])), .call("a range of them", .txn, txn(then: [.get("a", "z")])),
        .call("reads see earlier writes", .txn, txn(then: [.get("a"), .set("a", "3"), .get("a"), .remove("none"), .get("a") { $0.revision = 1 }, .remove("b", previous: true), .get("a", "z")])),
        .call("the ones before", .txn, txn(then: [.set("a", "4") { $0.prevKv = true }, .set("c", "1") { $0.prevKv = true }])), .call("the other branch", .txn, txn([compare("a", .version, .equal, .version(99))], then: [.set("a", "no")], else: [.set("a", "5"), .get("a")])),
        .call("the other branch, which is empty", .txn, txn([compare("a", .version, .equal, .version(99))], then: [.set("a", "no")])), .call("only deletions of nothing", .txn, txn(then: [.remove("none"), .remove("nor", "nos")])),
        .call("options of ranges", .txn, txn(then: [.get("a", "z") { $0.limit = 1 }, .get("a", "z") { $0.countOnly = true }, .get("a", "z") { $0.keysOnly = true }, .get("a", "z") { $0.sortOrder = .descend }, .get("a", "z") { $0.minModRevision = 5 }])),
        .call("serializable ranges", .txn, txn(then: [.get("a") { $0.serializable = true }])),
    ] + compares + [
        .call("a comparison without a key", .txn, txn([compare("", .version, .equal, .version(0))])), .call("of a range: all", .txn, txn([compare("a", to: "z", .version, .greater, .version(0))], then: [.get("a")])),
        .call("of a range: not all", .txn, txn([compare("a", to: "z", .version, .greater, .version(1))])), .call("of an empty range", .txn, txn([compare("x", to: "y", .version, .equal, .version(0))])), .call("values of an empty range", .txn, txn([compare("x", to: "y", .value, .notEqual, .value(Data()))])),
        .call("of everything from a key on", .txn, txn([compare("a", to: "\0", .create, .greater, .createRevision(1))])), .call("of a range that ends before it begins", .txn, txn([compare("z", to: "a", .version, .equal, .version(0))])),
        .call("without an operand", .txn, txn([compare("a", .version, .equal, nil)])), .call("of a missing key without an operand", .txn, txn([compare("none", .version, .equal, nil)])), .call("with another operand than the target's", .txn, txn([compare("a", .version, .greater, .value(Data("x".utf8)))])),
        .call("of values without an operand", .txn, txn([compare("a", .value, .greater, nil)])), .call("an unknown result", .txn, txn([compare("a", .version, .UNRECOGNIZED(9), .version(99))])), .call("an unknown target", .txn, txn([compare("a", .UNRECOGNIZED(9), .equal, .version(99))])),
        .call("an unknown target, not equal", .txn, txn([compare("a", .UNRECOGNIZED(9), .notEqual, .version(99))])), .call("two that hold", .txn, txn([compare("a", .version, .greater, .version(0)), compare("c", .version, .equal, .version(1))])), .call("one of two holds", .txn, txn([compare("a", .version, .greater, .version(0)), compare("c", .version, .equal, .version(9))])),
        // Nested.
        .call("nested", .txn, txn(then: [.nested([compare("a", .version, .greater, .version(0))], then: [.set("n", "1"), .get("n")], else: [.remove("a")])])), .call("nested, empty", .txn, txn(then: [.nested()])), .call("nested, three deep", .txn, txn(then: [.nested(then: [.nested(then: [.set("deep", "1")])]), .get("deep")])),
        .call("nested comparisons see what was before", .txn, txn(then: [.set("pre", "1"), .nested([compare("pre", .version, .equal, .version(0))], then: [.set("saw", "before")], else: [.set("saw", "after")]), .get("saw")])),
        .call("nested reads only", .txn, txn(then: [.nested(then: [.get("a")])])), .call("nested, the other branch", .txn, txn([compare("a", .version, .equal, .version(99))], else: [.nested([compare("a", .version, .equal, .version(99))], else: [.remove("n", previous: true)])])),
        .call("nested without a key", .txn, txn(then: [.nested(then: [.set("")])])), .call("nested comparison without a key", .txn, txn(then: [.nested([compare("", .version, .equal, nil)])])),
        // What is refused.
        .call("an operation that is none", .txn, txn(then: [PBRequestOp()])), .call("in the branch that is not taken", .txn, txn(else: [PBRequestOp()])), .call("a range without a key", .txn, txn(then: [.get("")])), .call("a put without a key", .txn, txn(then: [.set("")])), .call("a deletion without a key", .txn, txn(then: [.remove("")])),
        .call("a put that keeps the value and gives one", .txn, txn(then: [.set("a", "x") { $0.ignoreValue = true }])), .call("a put that keeps the lease and gives one", .txn, txn(then: [.set("a", "x") { $0.ignoreLease = true; $0.lease = 5 }])),
        .call("two puts of one key", .txn, txn(then: [.set("p"), .set("p")])), .call("in the other branch", .txn, txn(else: [.set("p"), .set("p")])), .call("one in each branch", .txn, txn(then: [.set("p", "then")], else: [.set("p", "else")])),
        .call("a put of what is deleted", .txn, txn(then: [.set("p"), .remove("o", "q")])), .call("a put beside what is deleted", .txn, txn(then: [.set("p"), .remove("q", "r")])), .call("a put and a deletion from its key on", .txn, txn(then: [.set("p"), .remove("p", "\0", previous: true)])),
        .call("deletions that overlap", .txn, txn(then: [.remove("a", "c"), .remove("b", "d")])), .call("a nested put, then a put", .txn, txn(then: [.nested(then: [.set("q")]), .set("q")])), .call("a put in both branches of a nested one", .txn, txn(then: [.nested(then: [.set("q", "1")], else: [.set("q", "2")])])),
        .call("and outside", .txn, txn(then: [.nested(then: [.set("q")], else: [.set("q")]), .set("q")])), .call("a nested put, then a nested deletion", .txn, txn(then: [.nested(then: [.set("q")]), .nested(then: [.remove("q")])])), .call("a nested deletion, then a nested put", .txn, txn(then: [.nested(then: [.remove("q")]), .nested(then: [.set("q")])])),
        .call("a put here, a deletion there", .txn, txn(then: [.nested(then: [.set("q")], else: [.remove("q")])])), .call("a deletion two deep, and a put", .txn, txn(then: [.nested(then: [.nested(then: [.remove("q")])]), .set("q")])),
        .call("128 operations", .txn, txn(then: (0..<128).map { .get("k\($0)") { $0.countOnly = true } })), .call("129 operations", .txn, txn(then: (0..<129).map { .get("k\($0)") })), .call("129 comparisons", .txn, txn((0..<129).map { compare("k\($0)", .version, .equal, nil) })),
        .call("128 of each", .txn, txn((0..<128).map { compare("m\($0)", .version, .equal, nil) }, then: (0..<128).map { .set("m\($0)") }, else: (0..<128).map { .set("m\($0)") })), .call("100 and 28 nested", .txn, txn(then: (0..<99).map { .get("k\($0)") } + [.nested(then: (0..<28).map { .get("k\($0)") })])),
        .call("100 and 29 nested", .txn, txn(then: (0..<99).map { .get("k\($0)") } + [.nested(then: (0..<29).map { .get("k\($0)") })])), .call("65 levels", .txn, (0..<64).reduce(txn(then: [.set("levels")])) { inner, _ in txn(then: [made { $0.requestTxn = inner }]) }),
        .call("a put under a lease that is not there", .txn, txn(then: [.set("l1", "x"), .set("l2", "x") { $0.lease = 99 }])), .call("of which nothing stays", .range, range("l1", "l3")), .call("a put that keeps the value of nothing", .txn, txn(then: [.set("l1", "x"), .set("l2") { $0.ignoreValue = true }])),
        .call("a put that keeps the value that comes just before", .txn, txn(then: [.nested(then: [.set("l1", "x")]), .nested(then: [.remove("l1")]), .get("l1")])), .call("a range in the future", .txn, txn(then: [.set("l1", "x"), .get("a") { $0.revision = 9999 }])),
        .steps("a range at the revision that it makes") { peer in
            let next = try await peer.value(.range, range("x"), PBRangeResponse.self).header.revision + 1
            return await peer.answer(.txn, txn(then: [.set("l1", "x"), .get("a") { $0.revision = next }]))
        },
        .call("a range below zero", .txn, txn(then: [.get("a") { $0.revision = -2 }])), .call("a range at minus one", .txn, txn(then: [.get("a") { $0.revision = -1 }])), .call("an old range", .txn, txn(then: [.set("l1", "y"), .get("a") { $0.revision = 3 }])),
        .call("compact", .compact, compact(6)), .call("a range before that", .txn, txn(then: [.set("l1", "z"), .get("a") { $0.revision = 3 }])), .call("a range at that", .txn, txn(then: [.set("l1", "z"), .get("a") { $0.revision = 6 }])), .call("a range below zero, compacted", .txn, txn(then: [.get("a") { $0.revision = -1 }])),
        .call("ranges only, before that", .txn, txn(then: [.get("a") { $0.revision = 3 }])), .bytes("garbage", .txn, [0x12, 0x02, 0x0a]), .bytes("an operation twice in one", .txn, [0x12, 0x0c, 0x0a, 0x03, 0x0a, 0x01, 0x61, 0x12, 0x05, 0x0a, 0x03, 0x74, 0x77, 0x6f]),
        .call("all that is there", .range, range("a", "z")), .call("its checksum", .hashKV, PBHashKVRequest()),
    ]

    /// Every target and result, on a key that is there and on one that is not.
    private static let compares: [ConformanceCase] = {
        let targets: [(PBCompare.CompareTarget, PBCompare.OneOf_TargetUnion)] = [(.version, .version(1)), (.create, .createRevision(2)), (.mod, .modRevision(5)), (.value, .value(Data("4".utf8))), (.lease, .lease(0))]
        return ["a", "none"].flatMap { key in
            targets.flatMap { target, operand in
                [PBCompare.CompareResult.equal, .greater, .less, .notEqual].map { result in
                    .call("\(key): \(target) \(result)", .txn, txn([compare(key, target, result, operand)]))
                }
            }
        }
    }()
}
