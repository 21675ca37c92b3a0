import Base
@testable import Client
import Foundation
import NIOCore
import NIOPosix
import Testing
import Wire

/// The hand-written coding of the hot messages against the generated one.
@Suite struct CodingTests {
    private func encoded(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter()
        body(&writer)
        return writer.bytes
    }

    private func decoded<T>(_ bytes: [UInt8], _ body: (inout ByteReader) throws(DecodingFault) -> T) throws -> T {
        try bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            return try body(&reader)
        }
    }

    @Test func requestsReadBackFieldByField() throws {
        var query = RangeQuery(.bounded(start: Key("a"), end: Key("b")), limit: 5, revision: Revision(77), isSerializable: true, keysOnly: true, countOnly: true)
        query.order = .descending
        query.target = .modRevision
        query.minModRevision = Revision(1)
        query.maxModRevision = Revision(2)
        query.minCreateRevision = Revision(3)
        query.maxCreateRevision = Revision(4)
        let range = try PBRangeRequest(decoding: encoded(query.encode))
        #expect([UInt8](range.key) == Array("a".utf8) && [UInt8](range.rangeEnd) == Array("b".utf8))
        #expect(range.limit == 5 && range.revision == 77 && range.sortOrder == .descend && range.sortTarget == .mod)
        #expect(range.serializable && range.keysOnly && range.countOnly)
        #expect([range.minModRevision, range.maxModRevision, range.minCreateRevision, range.maxCreateRevision] == [1, 2, 3, 4])

        let put = try PBPutRequest(decoding: encoded(PutCommand([1], [2], lease: LeaseID(-3), wantsPrevious: true, ignoresValue: true, ignoresLease: true).encode))
        #expect([UInt8](put.key) == [1] && [UInt8](put.value) == [2] && put.lease == -3 && put.prevKv && put.ignoreValue && put.ignoreLease)

        let delete = try PBDeleteRangeRequest(decoding: encoded(DeleteCommand(.from(Key([9])), wantsPrevious: true).encode))
        #expect([UInt8](delete.key) == [9] && [UInt8](delete.rangeEnd) == [0] && delete.prevKv)
    }

    @Test func comparisonsWriteTheirUnionEvenWhenZero() throws {
        let targets: [(Comparison.Target, PBCompare.CompareTarget, PBCompare.OneOf_TargetUnion)] = [
            (.version(0), .version, .version(0)), (.createRevision(.zero), .create, .createRevision(0)),
            (.modRevision(Revision(8)), .mod, .modRevision(8)), (.value([]), .value, .value(.init())), (.lease(LeaseID(-1)), .lease, .lease(-1)),
        ]
        for (target, kind, union) in targets {
            let compare = try PBCompare(decoding: encoded(Comparison(.prefix(Key("p")), .less, target).encode))
            #expect(compare.target == kind && compare.targetUnion == union && compare.result == .less)
            #expect([UInt8](compare.key) == Array("p".utf8) && [UInt8](compare.rangeEnd) == Array("q".utf8))
        }
    }

    @Test func answersReadWhatTheGeneratedCodeWrites() throws {
        var header = PBResponseHeader()
        header.clusterID = .max
        header.memberID = 7
        header.revision = 12
        header.raftTerm = 3
        var kv = PBKeyValue()
        kv.key = .init([1, 2])
        kv.value = .init([UInt8](repeating: 9, count: 300))
        kv.createRevision = 4
        kv.modRevision = 5
        kv.version = 6
        kv.lease = -8
        let expected = KeyValue(key: [1, 2], value: [UInt8](repeating: 9, count: 300), createRevision: Revision(4), modRevision: Revision(5), version: 6,
                                lease: LeaseID(-8))
        let head = ResponseHeader(clusterID: ClusterID(.max), memberID: MemberID(7), revision: Revision(12), raftTerm: Term(3))

        var range = PBRangeResponse()
        range.header = header
        range.kvs = [kv, PBKeyValue()]
        range.more = true
        range.count = 99
        let rangeResult = try decoded(range.encoded(), RangeResult.decode)
        #expect(rangeResult.header == head && rangeResult.kvs == [expected, KeyValue()] && rangeResult.more && rangeResult.count == 99)

        var put = PBPutResponse()
        put.header = header
        put.prevKv = kv
        let putResult = try decoded(put.encoded(), PutResult.decode)
        #expect(putResult.header == head && putResult.previous == expected)

        var delete = PBDeleteRangeResponse()
        delete.deleted = 2
        delete.prevKvs = [kv]
        var nested = PBTxnResponse()
        nested.responses = [.with { $0.responseDeleteRange = delete }]
        var txn = PBTxnResponse()
        txn.header = header
        txn.succeeded = true
        txn.responses = [.with { $0.responseRange = range }, .with { $0.responsePut = put }, .with { $0.responseTxn = nested }]
        let result = try decoded(txn.encoded()) { (reader) throws(DecodingFault) in try TransactionResult.decode(&reader) }
        #expect(result.succeeded && result.header == head && result.outcomes.count == 3)
        #expect(result.outcomes[0] == .range(rangeResult) && result.outcomes[1] == .put(putResult))
        guard case .transaction(let inner) = result.outcomes[2], case .delete(let deletion)? = inner.outcomes.first else {
            Issue.record("\(result)")
            return
        }
        #expect(deletion.deleted == 2 && deletion.previous == [expected])

        var watch = PBWatchResponse()
        watch.header = header
        watch.watchID = -1
        watch.created = true
        watch.canceled = true
        watch.compactRevision = 31
        watch.cancelReason = "why"
        watch.fragment = true
        watch.events = [.with { $0.type = .delete; $0.kv = kv; $0.prevKv = kv }, .with { $0.kv = kv }]
        let answer = try decoded(watch.encoded(), WatchAnswer.decode)
        #expect(answer.header == head && answer.watchID == -1 && answer.created && answer.canceled && answer.isFragment)
        #expect(answer.compactRevision == Revision(31) && answer.reason == "why")
        #expect(answer.events == [WatchEvent(kind: .delete, kv: expected, previous: expected), WatchEvent(kind: .put, kv: expected, previous: nil)])
    }

    @Test(arguments: (1...20).map { UInt64($0) }) func damagedAnswersAreFaultsNotCrashes(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var range = PBRangeResponse()
        for index in 0..<5 {
            range.kvs.append(.with {
                $0.key = .init([UInt8](repeating: UInt8(index), count: 20))
                $0.value = .init([UInt8](repeating: 1, count: 50))
                $0.modRevision = 1_000
            })
        }
        let good = range.encoded()
        for _ in 0..<200 {
            var bytes = good
            for _ in 0..<3 { bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator) }
            bytes.removeLast(Int.random(in: 0...10, using: &generator))
            // Whatever comes out, it comes out.
            _ = try? decoded(bytes, RangeResult.decode)
            _ = try? decoded(bytes, WatchAnswer.decode)
            _ = try? decoded(bytes) { (reader) throws(DecodingFault) in try TransactionResult.decode(&reader) }
        }
        #expect((try? decoded(good, RangeResult.decode))?.kvs.count == 5)
    }

    @Test func transactionsNestedTooDeepAreRefused() {
        var bytes: [UInt8] = []
        for _ in 0..<200 {
            let inner = bytes
            bytes = encoded { w in w.writeMessage(3) { $0.writeMessage(4) { $0.write(inner) } } }
        }
        #expect(throws: DecodingFault.self) { try decoded(bytes) { (reader) throws(DecodingFault) in try TransactionResult.decode(&reader) } }
    }

    /// The list of methods is written twice, in the .proto files and as an enum.
    @Test func methodListEqualsTheProtoFiles() throws {
        let protos = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Sources/ClusterCore/Wire/Protos")
        var expected: Set<String> = []
        for file in ["rpc", "lock", "election", "health", "observer"] {
            let text = try String(contentsOf: protos.appendingPathComponent("\(file).proto"), encoding: .utf8)
            let package = try #require(text.firstMatch(of: /package ([\w.]+);/)).1
            var service = ""
            for line in text.split(separator: "\n") {
                if let match = line.firstMatch(of: /^service (\w+)/) { service = String(match.1) }
                if let match = line.firstMatch(of: /rpc (\w+)\((stream )?\w+\) returns \((stream )?/) {
                    let kind: CallKind = match.2 != nil ? .bidirectional : match.3 != nil ? .serverStream : .unary
                    expected.insert("/\(package).\(service)/\(match.1) \(kind)")
                }
            }
        }
        #expect(Set(MethodID.allCases.map { "\($0.path) \($0.kind)" }) == expected)
        #expect(MethodID.allCases.map { Int($0.rawValue) } == Array(0..<MethodID.allCases.count))
    }

    @Test func refusalReasonsAreRead() {
        #expect(Watcher.serviceError(in: "rpc error: code = PermissionDenied desc = etcdserver: permission denied") == .permissionDenied)
        #expect(Watcher.serviceError(in: ServiceError.compacted.message) == .compacted)
        #expect(Watcher.serviceError(in: "mvcc: watcher range is empty") == nil)
        #expect(Watcher.serviceError(in: " desc = code = x") == nil)
    }
}

/// What servers may say without being right.
@Suite struct HostileAnswerTests {
    /// A client that connects to nothing.
    private func withCore(_ body: (ClientCore) async throws -> Void) async throws {
        let core = try ClientCore(loop: MultiThreadedEventLoopGroup.singleton.next(), configuration: ClientConfiguration(endpoints: []))
        try await body(core)
        try await core.loop.submit { core.close() }.get()
    }

    @Test(arguments: [Int64.max, Int64.max / 1_000, 9_000_000_001]) func aLeaseMayLastLongerThanAnyClock(ttl: Int64) async throws {
        try await withCore { core in
            let entry = LeaseKeeper.Entry(id: LeaseID(7), loop: core.loop) { _ in }
            var answer = PBLeaseKeepAliveResponse()
            answer.id = 7
            answer.ttl = ttl
            let bytes = answer.encoded()
            try await core.loop.submit {
                core.leases.add(entry)
                bytes.withUnsafeBytes { core.leases.received($0) }
            }.get()
            #expect(try await entry.buffer.next()?.ttlSeconds == ttl)
        }
    }

    @Test func aServerMayNameTheLastRevisionThereIs() async throws {
        try await withCore { core in
            let watcher = Watcher(core: core, query: WatchQuery(.single(Key("a"))), options: CallOptions())
            let messages = [watchCreated(.max), watchEvents([], at: .max), watchEvents([putEvent("a", .max)], at: .max)].map { $0.encoded() }
            try await core.loop.submit { for message in messages { message.withUnsafeBytes { watcher.received($0) } } }.get()
            #expect(try await watcher.started.wait() == Revision(.max))
            #expect(try await watcher.buffer.next()?.isProgress == true)
            #expect(try await watcher.buffer.next()?.events.first?.kv.modRevision == Revision(.max))
        }
    }
}
