import Base
import Foundation
import Wire

extension ConformanceCase {
    static let ranges: [ConformanceCase] = [
        .call("nothing there", .range, range("x")), .call("an empty request", .range, PBRangeRequest()), .call("a key of zero", .range, range("\0")),
        .steps("some keys, versions and revisions of each") { peer in
            var answers: [String] = []
            // Written in another order than theirs, with values in a third.
            for (key, value) in [("s4", "a"), ("s3", "d"), ("s2", "b"), ("s1", "c"), ("s2", "e"), ("s4", "a"), ("s2", "0"), ("t", ""), ("gone", "1")] { answers.append(await peer.answer(.put, put(key, value))) }
            answers.append(await peer.answer(.deleteRange, delete("gone")))
            return answers.joined(separator: "\n")
        },
        .call("a key", .range, range("s2")), .call("a deleted key", .range, range("gone")), .call("half open", .range, range("s1", "s4")), .call("an end before the key", .range, range("s4", "s1")),
        .call("an end equal to the key", .range, range("s1", "s1")), .call("from a key on", .range, range("s3", "\0")), .call("everything", .range, range("\0", "\0")), .call("an end of two zeros", .range, range("\0", "\0\0")),
        .call("an end without a key", .range, range("", "z")), .call("no end but one of zero", .range, range("", "\0")),
        .call("count only", .range, range("s", "t") { $0.countOnly = true }), .call("count only, with a limit", .range, range("s", "t") { $0.countOnly = true; $0.limit = 1 }),
        .call("count only, with filters", .range, range("s", "t") { $0.countOnly = true; $0.minModRevision = 7 }), .call("count and keys only", .range, range("s", "t") { $0.countOnly = true; $0.keysOnly = true }),
        .call("count of one", .range, range("s1") { $0.countOnly = true }), .call("count of none", .range, range("nope") { $0.countOnly = true }),
        .call("keys only", .range, range("s", "t") { $0.keysOnly = true }), .call("limit", .range, range("s", "t") { $0.limit = 2 }), .call("limit as many as there are", .range, range("s", "t") { $0.limit = 4 }),
        .call("limit below zero", .range, range("s", "t") { $0.limit = -1 }), .call("limit, largest", .range, range("s", "t") { $0.limit = .max }), .call("limit of one key", .range, range("s1") { $0.limit = 1 }),
    ] + sorted + filtered + [
        .call("serializable", .range, range("s", "t") { $0.serializable = true }), .call("at an old revision", .range, range("s", "t") { $0.revision = 4 }), .call("at the first revision", .range, range("s", "t") { $0.revision = 1 }),
        .call("at the newest revision", .range, range("s", "t") { $0.revision = 11 }), .call("at the revision of a deletion", .range, range("gone") { $0.revision = 11 }), .call("before a deletion", .range, range("gone") { $0.revision = 10 }),
        .call("in the future", .range, range("s") { $0.revision = 12 }), .call("far in the future", .range, range("s") { $0.revision = .max }), .call("at a revision below zero", .range, range("s", "t") { $0.revision = -1 }),
        .call("at the least revision", .range, range("s1") { $0.revision = .min }), .call("serializable, in the future", .range, range("s") { $0.revision = 99; $0.serializable = true }),
        .bytes("unknown fields", .range, range("s1").encoded() + [0xc0, 0x3e, 0x01, 0xca, 0x3e, 0x01, 0x78]), .bytes("a field twice", .range, range("zzz").encoded() + range("s1").encoded()),
        .bytes("a bool of 2", .range, range("s1").encoded() + [0x40, 0x02]), .bytes("an empty field that is there", .range, [0x0a, 0x00, 0x12, 0x00]),
        // An unknown order is none, and none with another target than the key is ascending: 3.5.1 answers in the order of the keys. An unknown target kills it.
        .call("an unknown order", .range, range("s", "t") { $0.sortOrder = .UNRECOGNIZED(7) }, deviation: "INVALID_ARGUMENT, as 3.6"),
        .bytes("garbage", .range, [0xff, 0xff, 0xff]), .bytes("a message cut off", .range, [0x0a, 0x05, 0x61]), .bytes("a wire type that a field has not", .range, [0x08, 0x01]), .bytes("a field of number zero", .range, [0x00, 0x01]),
        .bytes("a group", .range, [0x0b, 0x0c]), .bytes("a varint without an end", .range, [0x18] + [UInt8](repeating: 0xff, count: 11)), .bytes("an unknown wire type", .range, [0x0f]),
        .call("with a large answer, then small", .put, put("large", String(repeating: "x", count: 1_500_000))), .steps("a large answer") { "\(await $0.answer(.range, range("large")).count)" },
        .call("compact", .compact, compact(9)), .call("before the compacted revision", .range, range("s2") { $0.revision = 8 }), .call("at the compacted revision", .range, range("s", "t") { $0.revision = 9 }),
        .call("serializable, before the compacted revision", .range, range("s2") { $0.revision = 8; $0.serializable = true }), .call("below zero after a compaction", .range, range("s1") { $0.revision = -1 }),
    ]

    /// Every target in every order, with and without a limit.
    private static let sorted: [ConformanceCase] = [PBRangeRequest.SortTarget.key, .version, .create, .mod, .value].flatMap { target in
        [PBRangeRequest.SortOrder.none, .ascend, .descend].flatMap { order in
            [0, 2].map { limit in
                .call("sorted by \(target), \(order), limit \(limit)", .range, range("s", "t") { $0.sortTarget = target; $0.sortOrder = order; $0.limit = Int64(limit) })
            }
        }
    }

    private static let filtered: [ConformanceCase] = [
        .call("changed since", .range, range("s", "t") { $0.minModRevision = 6 }), .call("changed until", .range, range("s", "t") { $0.maxModRevision = 5 }), .call("changed between", .range, range("s", "t") { $0.minModRevision = 5; $0.maxModRevision = 7 }),
        .call("changed between nothing", .range, range("s", "t") { $0.minModRevision = 7; $0.maxModRevision = 5 }), .call("made since", .range, range("s", "t") { $0.minCreateRevision = 4 }), .call("made until", .range, range("s", "t") { $0.maxCreateRevision = 3 }),
        .call("made and changed", .range, range("s", "t") { $0.minCreateRevision = 2; $0.maxModRevision = 6 }), .call("filters below zero", .range, range("s", "t") { $0.minModRevision = -5; $0.maxCreateRevision = -5 }),
        .call("a filter and a limit", .range, range("s", "t") { $0.minModRevision = 5; $0.limit = 1 }), .call("a filter, a limit and an order", .range, range("s", "t") { $0.minModRevision = 4; $0.limit = 1; $0.sortTarget = .mod; $0.sortOrder = .descend }),
        .call("a filter that all pass, and a limit of all", .range, range("s", "t") { $0.minModRevision = 1; $0.limit = 4 }),
    ]
}
