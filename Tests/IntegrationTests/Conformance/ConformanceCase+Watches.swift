import Base
import Foundation
import GRPC
import Wire

extension ConformanceCase {
    /// A watch stream, and a conversation to write with meanwhile.
    private static func watching(_ name: String, deviation: String? = nil, metadata: [MetadataField] = [], _ body: @escaping @Sendable (Conversation.Stream, Conversation) async throws -> String) -> ConformanceCase {
        .steps(name, deviation: deviation) { peer in
            let stream = peer.open(.watch, metadata: metadata)
            let answer = try await body(stream, peer)
            stream.cancel()
            return answer
        }
    }

    /// Requests, and the first so many answers.
    private static func asking(_ name: String, _ requests: [PBWatchRequest], _ count: Int, deviation: String? = nil) -> ConformanceCase {
        watching(name, deviation: deviation) { stream, _ in
            for request in requests { stream.send(request) }
            return await stream.next(count)
        }
    }

    static let watches: [ConformanceCase] = [
        .steps("some history") { peer in
            var answers: [String] = []
            for n in 0..<6 { answers.append(await peer.answer(.put, put("w/\(n % 3)", "\(n)"))) }
            answers.append(await peer.answer(.deleteRange, delete("w/0", "w/2")))
            answers.append(await peer.answer(.txn, txn(then: [.set("w/5", "a"), .remove("w/2"), .set("w/6", "b"), .set("other", "c")])))
            return answers.joined(separator: "\n")
        },
        asking("a key", [watch("w/1")], 1), asking("an empty create", [made { $0.createRequest = PBWatchCreateRequest() }], 1), asking("no key and an end of zero", [watch("", "\0")], 1),
        asking("numbers of watches", [watch("a"), watch("b"), watch("c") { $0.watchID = 5 }, watch("d") { $0.watchID = 5 }, watch("e") { $0.watchID = 1 }, watch("f")], 6), asking("a number below zero", [watch("a") { $0.watchID = -7 }, watch("b")], 2),
        asking("a number again after its end", [watch("a") { $0.watchID = 5 }, cancelWatch(5), watch("b") { $0.watchID = 5 }, cancelWatch(5)], 4), asking("an end before the key", [watch("b", "a"), watch("b", "b"), watch("b", "c")], 3),
        asking("the end of nothing", [cancelWatch(99), watch("a"), cancelWatch(0), cancelWatch(0), watch("b")], 3), asking("requests without anything", [PBWatchRequest(), watch("a"), PBWatchRequest(), watch("b")], 2),
        asking("all of history", [watch("w/", "w0") { $0.startRevision = 1 }], 2), asking("all of it with the ones before", [watch("w/", "w0") { $0.startRevision = 1; $0.prevKv = true }], 2), asking("history without deletions", [watch("w/", "w0") { $0.startRevision = 1; $0.filters = [.nodelete] }], 2),
        asking("history without puts", [watch("w/", "w0") { $0.startRevision = 1; $0.filters = [.noput]; $0.prevKv = true }], 2), asking("history from the middle", [watch("w/1", "") { $0.startRevision = 4 }], 2),
        asking("history without anything", [watch("w/", "w0") { $0.startRevision = 1; $0.filters = [.nodelete, .noput] }, watch("w/1") { $0.startRevision = 1 }], 3), asking("an unknown filter", [watch("w/", "w0") { $0.startRevision = 8; $0.filters = [.UNRECOGNIZED(9)] }], 2),
        asking("filters twice", [watch("w/", "w0") { $0.startRevision = 8; $0.filters = [.noput, .noput] }], 2),
        watching("what happens now") { stream, peer in
            stream.send(watch("w/", "w0") { $0.prevKv = true })
            var answers = [await stream.next()]
            _ = await peer.answer(.put, put("w/1", "now"))
            answers.append(await stream.next())
            _ = await peer.answer(.put, put("elsewhere"))
            _ = await peer.answer(.txn, txn(then: [.set("w/1", "then"), .set("w/7", "new"), .remove("w/5")]))
            answers.append(await stream.next())
            _ = await peer.answer(.deleteRange, delete("w/", "w0"))
            answers.append(await stream.next())
            return answers.joined(separator: "\n")
        },
        watching("two watches of one key") { stream, peer in
            stream.send(watch("w/1"))
            stream.send(watch("w/", "w0") { $0.filters = [.noput] })
            var answers = [await stream.next(2)]
            _ = await peer.answer(.put, put("w/1", "x"))
            answers.append(await stream.next())
            _ = await peer.answer(.deleteRange, delete("w/1"))
            // Which of the two hears of it first is chance.
            answers.append([await stream.next(), await stream.next()].sorted().joined(separator: "\n"))
            return answers.joined(separator: "\n")
        },
        watching("from a revision to come") { stream, peer in
            let now = try await peer.value(.range, range("x"), PBRangeResponse.self).header.revision
            stream.send(watch("w/f") { $0.startRevision = now + 3 })
            var answers = [await stream.next()]
            for n in 1...4 { _ = await peer.answer(.put, put("w/f", "\(n)")) }
            answers.append(await stream.next(2))
            return answers.joined(separator: "\n")
        },
        watching("progress of one that is up to date") { stream, peer in
            stream.send(watch("w/p"))
            var answers = [await stream.next()]
            _ = await peer.answer(.put, put("p"))
            stream.send(askProgress)
            answers.append(await stream.next())
            stream.send(askProgress)
            answers.append(await stream.next())
            return answers.joined(separator: "\n")
        },
        asking("notices of progress", [watch("a") { $0.progressNotify = true }, askProgress], 2), asking("progress without a watch", [askProgress, watch("a"), cancelWatch(0)], 3, deviation: "no answer, as 3.5.8 and later: there is nothing that progresses"),
        watching("nothing after the end") { stream, peer in
            stream.send(watch("w/e"))
            stream.send(cancelWatch(0))
            var answers = [await stream.next(2)]
            _ = await peer.answer(.put, put("w/e"))
            stream.send(watch("w/other"))
            answers.append(await stream.next())
            return answers.joined(separator: "\n")
        },
        watching("a client that has no more to say still hears") { stream, peer in
            stream.send(watch("w/h"))
            stream.halfClose()
            var answers = [await stream.next()]
            _ = await peer.answer(.put, put("w/h", "1"))
            answers.append(await stream.next())
            return answers.joined(separator: "\n")
        },
        watching("a client that needs a leader", metadata: [MetadataField("hasleader", "true")]) { stream, _ in
            stream.send(watch("a"))
            return await stream.next()
        },
        watching("garbage") { stream, _ in
            stream.send([0x0a, 0xff])
            return await stream.next()
        },
        watching("garbage after a watch") { stream, _ in
            stream.send(watch("a"))
            let first = await stream.next()
            stream.send([0xff, 0xff])
            return first + "\n" + (await stream.next())
        },
        watching("a request with unknown fields") { stream, _ in
            stream.send(watch("a").encoded() + [0xc0, 0x3e, 0x01])
            return await stream.next()
        },
        .steps("large values") { peer in
            for n in 0..<5 { _ = await peer.answer(.put, put("large/\(n)", String(repeating: "f", count: 600_000))) }
            return await peer.answer(.range, range("large/", "large0") { $0.keysOnly = true })
        },
        watching("in pieces") { stream, peer in
            let now = try await peer.value(.range, range("x"), PBRangeResponse.self).header.revision
            stream.send(watch("large/", "large0") { $0.startRevision = now - 4; $0.fragment = true })
            let answers = [await stream.next(), await stream.next(), await stream.next()]
            return answers.map { "\($0.count) \($0.replacingOccurrences(of: "f{100,}", with: "F", options: .regularExpression))" }.joined(separator: "\n")
        },
        watching("in one piece") { stream, peer in
            let now = try await peer.value(.range, range("x"), PBRangeResponse.self).header.revision
            stream.send(watch("large/", "large0") { $0.startRevision = now - 4 })
            let answers = [await stream.next(), await stream.next()]
            return answers.map { "\($0.count) \($0.replacingOccurrences(of: "f{100,}", with: "F", options: .regularExpression))" }.joined(separator: "\n")
        },
        .call("compact", .compact, compact(6, physical: true)), asking("from before the compaction", [watch("w/", "w0") { $0.startRevision = 3 }], 2), asking("from the compaction on", [watch("w/1") { $0.startRevision = 6 }], 2),
        asking("below zero, compacted", [watch("a") { $0.startRevision = -1 }], 1, deviation: "refused at once, as 3.5.24 and later"), asking("the one before is compacted", [watch("w/2") { $0.startRevision = 7; $0.prevKv = true }], 2),
        watching("with a lease that ends") { stream, peer in
            _ = await peer.answer(.leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = 42 })
            for key in ["w/l2", "w/l1", "w/l3"] { _ = await peer.answer(.put, put(key, "x") { $0.lease = 42 }) }
            stream.send(watch("w/l", "w/m"))
            var answers = [await stream.next()]
            _ = await peer.answer(.leaseRevoke, made(PBLeaseRevokeRequest.self) { $0.id = 42 })
            answers.append(await stream.next())
            return answers.joined(separator: "\n")
        },
    ]
}
