import Base
import Testing

@testable import Store

/// A store with its backend, driven as a member drives it.
final class StoreHarness {
    let backend: MemoryBackend
    let reader: any BackendReader
    var store: KeyValueStore

    init(_ backend: MemoryBackend = MemoryBackend()) throws {
        self.backend = backend
        reader = try backend.makeReader()
        store = try KeyValueStore.load(from: reader)
    }

    @discardableResult
    func put(_ key: String, _ value: String, lease: Int64 = 0) throws -> PutResult {
        try store.put(
            PutRequest(key: Array(key.utf8), value: Array(value.utf8), lease: LeaseID(lease), prevKV: true), reader: refreshed(),
            leaseExists: { _ in true })
    }

    @discardableResult
    func delete(_ key: String, _ end: String = "") throws -> DeleteRangeResult {
        try store.deleteRange(
            DeleteRangeRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8), prevKV: true), reader: refreshed())
    }

    @discardableResult
    func txn(_ request: TxnRequest) throws -> TxnResult {
        try request.validate(maxTxnOps: 128)
        return try store.txn(request, reader: refreshed(), leaseExists: { _ in true })
    }

    func range(_ request: RangeRequest) throws -> RangeResult { try store.snapshot().range(request, reader: refreshed()) }

    func refreshed() throws -> any BackendReader {
        try reader.refresh()
        return reader
    }

    /// Everything to the backend.
    func flush() throws {
        var rounds = 0
        repeat {
            store.compactStep()
            var batch = BackendBatch()
            let token = store.takeBatch(into: &batch)
            try backend.commit(batch)
            store.batchCommitted(token)
            rounds += 1
            precondition(rounds < 1_000, "flush does not end")
        } while store.hasPendingChanges || store.hasCompactionWork
    }

    func reload() throws {
        try flush()
        store = try KeyValueStore.load(from: refreshed())
    }

    func storedKeys() throws -> [String] {
        var found: [String] = []
        try refreshed().scan(.key, from: []) { key, value in
            found.append(hex(key) + " " + hex(value))
            return true
        }
        return found
    }

    func hash(_ revision: Int64 = 0) throws -> HashKVResult {
        try store.snapshot().hashKV(revision: Revision(revision), reader: refreshed())
    }
}

func hex(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { byte in
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
    }.joined()
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

func putOp(_ key: String, _ value: String) -> RequestOp { .put(PutRequest(key: bytes(key), value: bytes(value))) }
func rangeOp(_ key: String, revision: Int64 = 0) -> RequestOp {
    .range(RangeRequest(key: bytes(key), revision: Revision(revision)))
}
func deleteOp(_ key: String, _ end: String = "") -> RequestOp { .deleteRange(DeleteRangeRequest(key: bytes(key), rangeEnd: bytes(end))) }

/// Appendix A of the API reference: observed on a real server.
@Suite struct StoreVectorsTests {
    @Test func crcIsCastagnoli() {
        var crc = CRC32C()
        crc.update("12345")
        crc.update("6789")
        #expect(crc.value == 0xe306_9283)
    }

    /// Runs the operations of table A.1; `flushing`: which steps are made durable at once.
    func runA1(flushing: (Int) -> Bool) throws {
        let harness = try StoreHarness()
        func step(_ number: Int, _ revision: Int64, _ hash: UInt32, _ compacted: Int64, _ operation: () throws -> Void) throws {
            try operation()
            if flushing(number) { try harness.flush() }
            #expect(harness.store.revision == Revision(revision), "step \(number)")
            let result = try harness.hash()
            #expect(result.hash == hash, "step \(number)")
            #expect(result.compactRevision == Revision(compacted), "step \(number)")
            #expect(result.revision == Revision(revision))
        }
        try step(0, 1, 1_084_519_789, -1) {}
        try step(1, 2, 3_305_255_506, -1) { try harness.put("foo", "bar") }
        try step(2, 3, 2_020_292_994, -1) { try harness.put("foo", "baz") }
        try step(3, 4, 2_673_401_265, -1) { try harness.put("a", "") }
        try step(4, 5, 708_043_971, -1) { try harness.delete("foo") }
        try step(5, 6, 3_977_841_661, -1) { try harness.txn(TxnRequest(success: [putOp("x", "1"), putOp("y", "2")])) }
        try step(6, 7, 349_537_406, -1) { try harness.put("x", "3") }
        #expect(try harness.hash(3).hash == 2_020_292_994, "an older revision hashes as it did when it was current")
        #expect(try harness.hash(5).hash == 708_043_971)
        let entries = [
            "00000000000000025f0000000000000000 0a03666f6f1002180220012a03626172",
            "00000000000000035f0000000000000000 0a03666f6f1002180320022a0362617a",
            "00000000000000045f0000000000000000 0a0161100418042001",
            "00000000000000055f000000000000000074 0a03666f6f",
            "00000000000000065f0000000000000000 0a01781006180620012a0131",
            "00000000000000065f0000000000000001 0a01791006180620012a0132",
            "00000000000000075f0000000000000000 0a01781006180720022a0133",
        ]
        if flushing(6) { #expect(try harness.storedKeys() == entries) }
        try step(7, 7, 2_489_526_336, 4) { try harness.store.compact(to: Revision(4)) }
        #expect(try harness.hash(5).hash == 1_146_139_272)
        #expect(try harness.hash(6).hash == 2_563_201_950)
        if flushing(7) { #expect(try harness.storedKeys() == Array(entries[1...])) }
        try step(8, 7, 1_954_047_954, 6) { try harness.store.compact(to: Revision(6)) }
        try harness.flush()
        #expect(try harness.storedKeys() == [entries[2]] + entries[4...])
        #expect(try harness.hash().hash == 1_954_047_954)
        #expect(throws: ServiceError.compacted) { try harness.hash(5) }
        #expect(throws: ServiceError.futureRev) { try harness.hash(8) }
        try harness.reload()
        #expect(try harness.hash().hash == 1_954_047_954)
        #expect(harness.store.revision == Revision(7))
        #expect(harness.store.compactRevision == Revision(6))
    }

    @Test func hashKVMatchesTheObservedTableWhenEverythingIsDurable() throws { try runA1 { _ in true } }
    @Test func hashKVMatchesTheObservedTableWhenNothingIsDurable() throws { try runA1 { _ in false } }
    @Test func hashKVMatchesTheObservedTableWhenSomeIsDurable() throws { try runA1 { $0 % 2 == 1 } }

    @Test func subHeadersOfTransactionsAreAsObserved() throws {
        let harness = try StoreHarness()
        for n in 2...16 { try harness.put("w1", "\(n)") }
        #expect(harness.store.revision == Revision(16))
        // w1 was first written at 2: at revision 1 there is none. The observed store had nothing there at revision 3.
        let result = try harness.txn(
            TxnRequest(success: [
                rangeOp("w1"), putOp("w1", "new"), rangeOp("w1"), deleteOp("w9"),
                .txn(TxnRequest(success: [putOp("w2", "x"), rangeOp("w2")])), rangeOp("w1", revision: 1),
            ]))
        #expect(result.revision == Revision(17))
        func revisions(_ responses: [OpResult]) -> [Int64] {
            responses.flatMap { op -> [Int64] in
                switch op {
                case .none: []
                case .range(let result): [result.revision.rawValue]
                case .put(let result): [result.revision.rawValue]
                case .deleteRange(let result): [result.revision.rawValue]
                case .txn(let result): revisions(result.responses)
                }
            }
        }
        #expect(revisions(result.responses) == [16, 17, 17, 17, 17, 17, 17])
        guard case .range(let last) = result.responses[5], case .range(let third) = result.responses[2] else {
            Issue.record("operations answered with other kinds")
            return
        }
        #expect(last.count == 0 && last.kvs.count == 0)
        #expect(third.kvs.keyValues.first?.value == bytes("new"))

        var writer = ByteWriter()
        let nested = TxnResult(
            revision: Revision(17), succeeded: true,
            responses: [.txn(TxnResult(revision: Revision(17), succeeded: true, responses: [.put(PutResult(revision: Revision(17)))]))])
        nested.encode(header: ResponseHeader(memberID: MemberID(5), raftTerm: Term(2)), into: &writer)
        // header{member 5, revision 17, term 2}; succeeded; responses{txn{header{} succeeded responses{put{header{17}}}}}
        #expect(hex(writer.bytes) == "0a06100518112002" + "1001" + "1a0e" + "220c" + "0a00" + "1001" + "1a06" + "1204" + "0a021811")
    }

    @Test func budgetOfOperationsShrinksWithEachLevel() {
        func request(nested: Int) -> TxnRequest {
            let inner = RequestOp.txn(TxnRequest(success: Array(repeating: rangeOp("k"), count: nested)))
            return TxnRequest(success: Array(repeating: rangeOp("k"), count: 99) + [inner])
        }
        #expect(throws: Never.self) { try request(nested: 28).validate(maxTxnOps: 128) }
        #expect(throws: ServiceError.tooManyOps) { try request(nested: 29).validate(maxTxnOps: 128) }
        let compares = Array(repeating: Compare(key: bytes("k")), count: 129)
        #expect(throws: ServiceError.tooManyOps) { try TxnRequest(compare: compares).validate(maxTxnOps: 128) }
    }

    @Test func operationsAreValidatedAsThePlainRequests() {
        func check(_ op: RequestOp) throws { try TxnRequest(failure: [.txn(TxnRequest(success: [op]))]).validate(maxTxnOps: 128) }
        #expect(throws: ServiceError.keyNotFound) { try check(.none) }
        #expect(throws: ServiceError.emptyKey) { try check(rangeOp("")) }
        #expect(throws: ServiceError.emptyKey) { try check(deleteOp("")) }
        #expect(throws: ServiceError.emptyKey) { try check(putOp("", "x")) }
        #expect(throws: ServiceError.valueProvided) { try check(.put(PutRequest(key: [1], value: [1], ignoreValue: true))) }
        #expect(throws: ServiceError.leaseProvided) { try check(.put(PutRequest(key: [1], lease: LeaseID(1), ignoreLease: true))) }
        #expect(throws: ServiceError.invalidSortOption) { try check(.range(RangeRequest(key: [1], sortOrder: SortOrder(rawValue: 3)))) }
        #expect(throws: ServiceError.emptyKey) { try TxnRequest(compare: [Compare()]).validate(maxTxnOps: 128) }
        #expect(throws: Never.self) { try check(.put(PutRequest(key: [1], ignoreValue: true, ignoreLease: true))) }
    }

    @Test func duplicateKeysAreFoundInTheObservedAsymmetricWay() {
        func txn(then: [RequestOp] = [], otherwise: [RequestOp] = []) -> RequestOp {
            .txn(TxnRequest(success: then, failure: otherwise))
        }
        let put = putOp("k", "v")
        let delete = deleteOp("k")
        let accepted: [[RequestOp]] = [
            [txn(then: [put]), txn(then: [delete])],
            [txn(then: [put], otherwise: [delete])],
            [txn(then: [put], otherwise: [put])],
            [put, deleteOp("k", "\0")],
            [deleteOp("k", "\0"), put],
            [put, deleteOp("k", "a")],
            [put, deleteOp("a", "k")],
            [put, putOp("l", "v"), rangeOp("k"), rangeOp("k")],
            [deleteOp("a", "z"), deleteOp("k"), deleteOp("k")],
        ]
        let refused: [[RequestOp]] = [
            [put, put],
            [txn(then: [delete]), txn(then: [put])],
            [txn(then: [put, delete])],
            [txn(then: [txn(then: [delete])]), put],
            [txn(then: [put], otherwise: [put]), put],
            [txn(then: [put]), txn(otherwise: [put])],
            [put, delete],
            [delete, put],
            [put, deleteOp("a", "l")],
            [txn(otherwise: [put]), deleteOp("k", "kk")],
        ]
        for ops in accepted {
            #expect(throws: Never.self, "\(ops)") { try TxnRequest(success: ops).validate(maxTxnOps: 128) }
            #expect(throws: Never.self, "\(ops)") { try TxnRequest(failure: ops).validate(maxTxnOps: 128) }
        }
        for ops in refused {
            #expect(throws: ServiceError.duplicateKey, "\(ops)") { try TxnRequest(success: ops).validate(maxTxnOps: 128) }
            #expect(throws: ServiceError.duplicateKey, "\(ops)") { try TxnRequest(failure: ops).validate(maxTxnOps: 128) }
        }
        #expect(throws: Never.self) { try TxnRequest(success: [put], failure: [put]).validate(maxTxnOps: 128) }
    }

    @Test func oneRevisionMayPutAndDeleteTheSameKey() throws {
        let harness = try StoreHarness()
        try harness.txn(TxnRequest(success: [putOp("k", "v"), deleteOp("k", "\0")]))
        // [k, "\0") names every key from k on when it runs.
        #expect(harness.store.takeEvents().map(\.kind) == [.put, .delete])
        #expect(try harness.range(RangeRequest(key: bytes("k"))).count == 0)
        try harness.put("k", "1")
        try harness.put("k", "2")
        try harness.txn(TxnRequest(success: [deleteOp("k", "\0"), putOp("k", "3")]))
        let kv = try #require(try harness.range(RangeRequest(key: bytes("k"))).kvs.keyValues.first)
        #expect(kv == KeyValue(key: bytes("k"), createRevision: Revision(5), modRevision: Revision(5), version: 1, value: bytes("3")))
        try harness.reload()
        #expect(try harness.range(RangeRequest(key: bytes("k"))).kvs.keyValues == [kv])
        #expect(try harness.range(RangeRequest(key: bytes("k"), revision: Revision(2))).count == 0)
        #expect(try harness.range(RangeRequest(key: bytes("k"), revision: Revision(4))).kvs.keyValues.first?.version == 2)
    }

    @Test func impliedSortWithLimitSortsOnlyTheFirstKeys() throws {
        let harness = try StoreHarness()
        for key in ["s4", "s3", "s2", "s1"] { try harness.put(key, key) }
        func keys(_ order: SortOrder) throws -> [String] {
            let result = try harness.range(
                RangeRequest(key: bytes("s"), rangeEnd: bytes("t"), limit: 2, sortOrder: order, sortTarget: .modRevision))
            #expect(result.more && result.count == 4)
            return result.kvs.keyValues.map { String(decoding: $0.key, as: UTF8.self) }
        }
        #expect(try keys(.none) == ["s3", "s2"])
        #expect(try keys(.ascending) == ["s4", "s3"])
        #expect(try keys(.descending) == ["s1", "s2"])
    }

    @Test func valueCompareOfAMissingKeyIsAlwaysFalse() throws {
        let harness = try StoreHarness()
        for result in [Compare.Result.equal, .notEqual, .greater, .less] {
            let compare = Compare(key: bytes("no"), target: .value, result: result, operand: .value([]))
            #expect(try !harness.txn(TxnRequest(compare: [compare])).succeeded)
        }
        let version = Compare(key: bytes("no"), target: .version, result: .equal, operand: .version(0))
        #expect(try harness.txn(TxnRequest(compare: [version])).succeeded)
        let modified = Compare(key: bytes("no"), rangeEnd: bytes("np"), target: .modRevision, result: .less, operand: .modRevision(5))
        #expect(try harness.txn(TxnRequest(compare: [modified])).succeeded)
        #expect(harness.store.revision == Revision(1), "compares change nothing")
    }
}
