import Base
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import Replica
import Store
import Testing
import Wire
@testable import Server

@Suite struct APICallTests {
    @Test func putThenRangeGivesTheValueAndFullHeaders() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let put = await client.call(.put, putRequest("k", "v"))
            #expect(put.status.code == .ok)
            let header = try #require(Fields(put.messages[0]).message(1))
            #expect(header.number(1) == 0xdef && header.number(2) == 0xabc && header.number(3) == 2 && header.number(4) == 7)
            let range = await client.call(.range, rangeRequest("k"))
            let answer = Fields(try #require(range.messages.first))
            #expect(answer.message(1)?.number(3) == 2)
            #expect(answer.message(1)?.number(4) == 7)
            #expect(answer.message(2)?.text(5) == "v")
            #expect(answer.number(4) == 1)
        }
    }

    @Test func linearizableAndSerializableRangesAskDifferently() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            _ = await client.call(.range, rangeRequest("k"))
            _ = await client.call(.range, rangeRequest("k", serializable: true))
            let asked = bed.member.events.compactMap { event -> String? in
                guard case .request(_, let request, _, _) = event else { return nil }
                switch request {
                case .read: return "read"
                case .localRead: return "localRead"
                default: return "other"
                }
            }
            #expect(asked == ["read", "localRead"])
        }
    }

    @Test func badRequestsAreRefusedBeforeTheMemberHearsOfThem() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let cases: [(MethodID, [UInt8], ServiceError)] = [
                (.range, [], .emptyKey),
                (.put, [], .emptyKey),
                (.deleteRange, [], .emptyKey),
                (.leaseGrant, numberRequest(9_000_000_001), .leaseTTLTooLarge),
                (.range, [0x0a, 0x05, 0x61], ServiceError(.internal, "grpc: error unmarshalling request: unexpected EOF")),
            ]
            for (method, request, error) in cases {
                let result = await client.call(method, request)
                #expect(result.status.code == error.code, "\(method)")
                #expect(result.status.message == error.message, "\(method)")
            }
            #expect(bed.member.events.isEmpty)
        }
    }

    @Test func unknownMethodsAreAnsweredInGRPCWords() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            for (path, text) in [("/etcdserverpb.KV/Nothing", "unknown method Nothing for service etcdserverpb.KV"),
                                 ("/other.Thing/Do", "unknown service other.Thing")] {
                let call = client.start(path: path)
                call.halfClose()
                let end = await call.end()
                #expect(end.status.code == .unimplemented)
                #expect(end.status.message == text)
            }
        }
    }

    @Test func transactionsAreRoutedByWhatTheyHold() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            func txn(_ request: TxnRequest) async -> (messages: [[UInt8]], status: CallStatus) {
                var writer = ByteWriter()
                request.encode(into: &writer)
                return await client.call(.txn, writer.bytes)
            }
            let key = Array("k".utf8)
            let compare = Compare(key: key, target: .version, result: .equal, operand: .version(0))
            #expect(Fields(await txn(TxnRequest(compare: [compare])).messages[0]).number(2) == 1)
            _ = await txn(TxnRequest(success: [.range(RangeRequest(key: key))]))
            _ = await txn(TxnRequest(success: [.range(RangeRequest(key: key, serializable: true))]))
            _ = await txn(TxnRequest(compare: [compare], success: [.put(PutRequest(key: key, value: key))]))
            let failed = await txn(TxnRequest(success: [.put(PutRequest(key: key)), .put(PutRequest(key: key))]))
            #expect(failed.status.message == ServiceError.duplicateKey.message)
            let asked = bed.member.events.compactMap { event -> String? in
                guard case .request(_, let request, _, _) = event else { return nil }
                switch request {
                case .read: return "read"
                case .localRead: return "local"
                case .propose(let kind, _, let cost): return "\(kind) \(cost)"
                default: return "other"
                }
            }
            #expect(asked == ["local", "read", "local", "txn 258"])
        }
    }

    @Test func aFullStoreAnswersNoSpaceBeforeItLooksAtThePut() async throws {
        var options = ReplicaOptions()
        options.quotaBytes = 10_000
        try await TestBed.run(options: options) { bed in
            let client = try await bed.client()
            #expect(await client.call(.put, []).status.message == ServiceError.noSpace.message)
        }
    }

    @Test func memberFailuresReachTheClientAsTheyAre() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, member in
                guard case .request(let token, _, _, _) = event else { return false }
                member.answer(token, .failed(.timeoutDueToLeaderFail))
                return true
            }
            let client = try await bed.client()
            for method in [MethodID.put, .range] {
                let result = await client.call(method, putRequest("k", ""))
                #expect(result.status.code == .unavailable)
                #expect(result.status.message == ServiceError.timeoutDueToLeaderFail.message)
            }
        }
    }

    @Test func hasleaderTravelsWithTheRequest() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            _ = await client.call(.range, rangeRequest("k"), metadata: [MetadataField("hasleader", "true")])
            guard case .request(_, _, true, _) = bed.member.events[0] else {
                Issue.record("\(bed.member.events)")
                return
            }
            bed.member.published = ScriptedMember.status(leader: .none)
            let local = await client.call(.healthCheck, metadata: [MetadataField("hasleader", "true")])
            #expect(local.status.message == ServiceError.noLeader.message)
            #expect(await client.call(.healthCheck).status.code == .ok)
        }
    }

    @Test func coldMethodsFillTheirHeadersAsEtcdDoes() async throws {
        try await TestBed.run { bed in
            bed.member.published = ScriptedMember.status(revision: Revision(12), alarms: [Alarm(member: MemberID(3), kind: Alarm.noSpace)])
            let client = try await bed.client()
            let members = Fields(await client.call(.memberList).messages[0])
            #expect(members.message(1)?.number(2) == 0xabc && members.message(1)?.number(3) == 0 && members.message(1)?.number(4) == 7)
            #expect(members.message(2)?.text(2) == "m" && members.message(2)?.texts(4) == ["http://c"])
            let status = Fields(await client.call(.status).messages[0])
            #expect(status.message(1)?.number(3) == 12)
            #expect(status.text(2) == "3.5.33" && status.number(3) == 20_480 && status.number(4) == 0xabc && status.number(5) == 30)
            #expect(status.number(6) == 7 && status.number(7) == 29 && status.number(9) == 16_384)
            #expect(status.texts(8) == ["memberID:3 alarm:NOSPACE "])
            let defragment = await client.call(.defragment)
            #expect(defragment.messages == [[]] && defragment.status.code == .ok)
            #expect(await client.call(.moveLeader, numberRequest(0xabc)).messages == [[]])
            #expect(await client.call(.moveLeader, numberRequest(1)).status.message == ServiceError.badLeaderTransferee.message)
            let leases = Fields(await client.call(.leaseLeases).messages[0])
            #expect(leases.bytes[2]?.map { Int64(bitPattern: Fields($0).number(1)) } == [5, -6])
            #expect(leases.message(1)?.number(3) == 12)
            let unknown = Fields(await client.call(.leaseTimeToLive, numberRequest(9)).messages[0])
            #expect(unknown.number(2) == 9 && Int64(bitPattern: unknown.number(3)) == -1 && unknown.number(4) == 0)
            let auth = Fields(await client.call(.authStatus).messages[0])
            #expect(auth.number(2) == 0 && auth.number(3) == 1 && auth.message(1)?.number(3) == 1, "its revision is the snapshot's")
        }
    }

    @Test func hashKVIsThatOfTheStore() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let empty = Fields(await client.call(.hashKV).messages[0])
            #expect(empty.number(2) == 1_084_519_789)
            #expect(Int64(bitPattern: empty.number(3)) == -1)
            _ = await client.call(.put, putRequest("foo", "bar"))
            let one = Fields(await client.call(.hashKV).messages[0])
            #expect(one.number(2) == 3_305_255_506 && one.message(1)?.number(3) == 2)
            #expect(await client.call(.hashKV, numberRequest(9)).status.message == ServiceError.futureRev.message)
            #expect(await client.call(.hash).status.code == .ok)
        }
    }

    @Test func aLearnerServesOnlyWhatItMay() async throws {
        try await TestBed.run { bed in
            bed.member.published = ScriptedMember.status(isLearner: true)
            let client = try await bed.client()
            // The loop learns of it with the first request that goes to the member.
            _ = await client.call(.status)
            #expect(await client.call(.range, rangeRequest("k")).status.message == ServiceError.notSupportedForLearner.message)
            #expect(await client.call(.put, putRequest("k", "v")).status.message == ServiceError.notSupportedForLearner.message)
            #expect(await client.call(.healthCheck).status.message == ServiceError.notSupportedForLearner.message)
            #expect(await client.call(.range, rangeRequest("k", serializable: true)).status.code == .ok)
            #expect(await client.call(.status).status.code == .ok)
            let watch = client.start(.watch)
            #expect(await watch.end().status.message == ServiceError.notSupportedForLearner.message)
        }
    }

    @Test func deadlinesEndCallsAtTheClientAndTheMember() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let client = try await bed.client()
            let result = await client.call(.put, putRequest("k", "v"), timeout: .milliseconds(30))
            #expect(result.status.code == .deadlineExceeded)
            #expect(result.status.message == "context deadline exceeded")
            #expect(await eventually { bed.member.events.contains { if case .cancel = $0 { true } else { false } } })
            // Over before they are looked at.
            let asked = bed.member.events.count
            for method in [MethodID.put, .snapshot, .watch] {
                #expect(await client.call(method, putRequest("k", "v"), timeout: TimeSpan(nanoseconds: 1)).status.message == "context deadline exceeded", "\(method)")
            }
            #expect(bed.member.events.count == asked)
            let moved = await client.call(.moveLeader, numberRequest(1), timeout: .milliseconds(30))
            #expect(moved.status.message == ServiceError.leaderTransferTimeout.message)
        }
    }

    @Test func aCancelledCallIsCalledOffAndItsLateAnswerGoesNowhere() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request(_, .propose, _, _) = event { true } else { false } }
            let client = try await bed.client()
            func proposals() -> [RequestToken] {
                bed.member.events.compactMap { if case .request(let token, .propose, _, _) = $0 { token } else { nil } }
            }
            let first = client.start(.put)
            first.send(putRequest("k", "v"))
            first.halfClose()
            #expect(await eventually { proposals().count == 1 })
            first.cancel()
            #expect(await eventually { bed.member.events.contains { if case .cancel(let token) = $0 { token == proposals()[0] } else { false } } })
            // The next call takes the place that the first one had.
            let second = client.start(.put)
            second.send(putRequest("k", "v"))
            second.halfClose()
            #expect(await eventually { proposals().count == 2 })
            let tokens = proposals()
            #expect(tokens[0] != tokens[1] && tokens[0].slot & 0xff_ffff == tokens[1].slot & 0xff_ffff)
            bed.member.loop.execute {
                bed.member.answer(tokens[0], .encoded([0x10, 0x01]))
                bed.member.answer(tokens[1], .encoded([0x10, 0x02]))
            }
            let end = await second.end()
            #expect(end.status.code == .ok)
            #expect(end.messages == [[0x10, 0x02]])
        }
    }

    @Test func aClosedConnectionCallsOffWhatItWaitedFor() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let client = try await bed.client()
            let calls = client.startTogether(.put, (0..<5).map { putRequest("k\($0)", "v") })
            let watch = client.start(.watch)
            #expect(await eventually { bed.member.events.count == 6 })
            await client.close()
            #expect(await eventually { bed.member.events.filter { if case .cancel = $0 { true } else { false } }.count == 5 })
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
            for call in calls { #expect(await call.end().status.code == .unavailable) }
            _ = await watch.end()
        }
    }

    @Test func requestsOfOneBurstReachTheMemberInOneBatch() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            _ = await client.call(.range, rangeRequest("warm"))
            let before = bed.member.batchSizes.count
            let calls = client.startTogether(.range, (0..<100).map { rangeRequest("k\($0)") })
            for call in calls { #expect(await call.end().status.code == .ok) }
            let batches = bed.member.batchSizes[before...]
            #expect(batches.reduce(0, +) == 100)
            // One write of the client may reach the server in more than one read, but never one by one.
            #expect(batches.count <= 10, "\(batches)")
        }
    }

    @Test func healthServiceKnowsOnlyTheNamelessService() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            #expect(Fields(await client.call(.healthCheck).messages[0]).number(1) == 1)
            var named = ByteWriter()
            named.writeField(1, Array("etcd".utf8))
            let other = await client.call(.healthCheck, named.bytes)
            #expect(other.status.code == .notFound && other.status.message == "unknown service")
            let watch = client.start(.healthWatch)
            watch.send(named.bytes)
            watch.halfClose()
            let first = try #require(await watch.next())
            #expect(Fields(first).number(1) == 3)
            watch.cancel()
        }
    }

    @Test func largeAnswersArriveWhole() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let value = String(repeating: "x", count: 200_000)
            for n in 0..<10 { _ = await client.call(.put, putRequest("big\(n)", value)) }
            let result = await client.call(.range, rangeRequest("big", end: "bih"))
            #expect(result.status.code == .ok)
            #expect(Fields(result.messages[0]).bytes[2]?.count == 10)
            #expect(result.messages[0].count > 2_000_000)
        }
    }

    @Test func aClientThatDoesNotReadHasItsReadsPutOff() async throws {
        var bounds = ClientBounds()
        bounds.maxBufferedResponseBytes = 1 << 20
        try await TestBed.run(bounds: bounds) { bed in
            let client = try await bed.client()
            let value = String(repeating: "x", count: 500_000)
            _ = await client.call(.put, putRequest("big", value))
            try await client.setReading(false)
            let calls = client.startTogether(.range, (0..<200).map { _ in rangeRequest("big") })
            // 100 MB in all: socket buffers and the bound hold some, the rest is asked again later.
            #expect(await eventually { bed.member.events.filter { if case .request(_, .read, _, _) = $0 { true } else { false } }.count >= 200 })
            try await client.setReading(true)
            for call in calls {
                let end = await call.end()
                #expect(end.status.code == .ok)
                #expect(end.messages.first?.count ?? 0 > 500_000)
            }
            let asked = bed.member.events.filter { if case .request(_, .read, _, _) = $0 { true } else { false } }.count
            #expect(asked > 200)
        }
    }

    /// A member that installs several snapshots in a row has a new backend each time, and one may lie in memory where the one before lay: reads
    /// went on in the old one, which misses what came since. (Found by the torture run, seed 827459.)
    @Test func everyBackendIsReadFromItself() async throws {
        final class Passing: Backend {
            let base = MemoryBackend()
            let readers = NIOLockedValueBox(0)
            /// Of a size that nothing else has, so that the next one gets its place.
            let size160 = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            func commit(_ batch: BackendBatch) throws(BackendError) { try base.commit(batch) }
            /// As that of a backend behind fault injection: it keeps what is behind, not this.
            func makeReader() throws(BackendError) -> any BackendReader {
                readers.withLockedValue { $0 += 1 }
                return try base.makeReader()
            }
            var size: BackendSize { base.size }
        }
        try await TestBed.run { bed in
            let client = try await bed.client()
            for round in 0..<10 {
                let readers = try await bed.member.loop.submit {
                    let place = ObjectIdentifier(bed.member.backend)
                    // Let go of before the next is made, as the member does when its store is replaced.
                    bed.member.backend = MemoryBackend()
                    let others = (0..<1_000).map { _ in Passing() }
                    let backend = others.first { ObjectIdentifier($0) == place } ?? others[0]
                    bed.member.backend = backend
                    return backend.readers
                }.get()
                #expect(await client.call(.range, rangeRequest("k")).status.code == .ok)
                #expect(readers.withLockedValue { $0 } > 0, "round \(round)")
                // Behind this the loop has let go of what it was granted.
                #expect(await client.call(.leaseLeases, []).status.code == .ok)
            }
        }
    }

    /// Incident 32: clients that ask for everything share the memory for answers, and nobody waits for ever.
    @Test func largeAnswersOfAllClientsShareTheirMemory() async throws {
        var bounds = ClientBounds()
        bounds.maxTotalResponseBytes = 4 << 20
        bounds.maxWaitForRoom = .milliseconds(500)
        try await TestBed.run(bounds: bounds) { bed in
            let idle = try await bed.client(), other = try await bed.client()
            for number in 0..<8 { _ = await other.call(.put, putRequest("big\(number)", String(repeating: "x", count: 1_000_000))) }
            // Takes nothing: what it asked for fills the sockets and then the budget.
            try await idle.setReading(false)
            let held = idle.startTogether(.range, (0..<4).map { _ in rangeRequest("big", end: "bih") })
            #expect(await eventually { bed.member.events.filter { if case .request(_, .read, _, _) = $0 { true } else { false } }.count >= 4 })
            #expect(await eventually { await other.call(.range, rangeRequest("big", end: "bih")).status.message == ServiceError.requestTooManyRequests.message })
            // What is small still comes.
            #expect(await other.call(.range, rangeRequest("nothing")).status.code == .ok)
            try await idle.setReading(true)
            var answered = 0
            for call in held {
                let end = await call.end()
                // The first fits; those behind it come once it has left, or are refused.
                if end.status.code == .ok { answered += 1 } else { #expect(end.status.message == ServiceError.requestTooManyRequests.message) }
            }
            #expect(answered > 0)
            let again = await other.call(.range, rangeRequest("big", end: "bih"))
            #expect(again.status.code == .ok && again.messages.first?.count ?? 0 > 8_000_000)
        }
    }
}
