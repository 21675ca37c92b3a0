import Base
import Testing

@testable import Store

@Suite struct StoreCompactionTests {
    @Test func boundsOfCompactionAreThoseOfTheContract() throws {
        let harness = try StoreHarness()
        #expect(throws: ServiceError.compacted) { try harness.store.compact(to: Revision(-1)) }
        #expect(throws: ServiceError.futureRev) { try harness.store.compact(to: Revision(2)) }
        #expect(throws: Never.self) { try harness.store.compact(to: Revision(0)) }
        #expect(throws: ServiceError.compacted) { try harness.store.compact(to: Revision(0)) }
        #expect(throws: Never.self) { try harness.store.compact(to: Revision(1)) }
        #expect(harness.store.compactRevision == Revision(1))
        try harness.reload()
        #expect(harness.store.compactRevision == Revision(1))
        #expect(harness.store.finishedCompactRevision == Revision(1))
    }

    @Test func readingAtTheCompactRevisionWorksAndBelowFails() throws {
        let harness = try StoreHarness()
        for n in 1...5 { try harness.put("k", "\(n)") }
        try harness.store.compact(to: Revision(4))
        try harness.flush()
        #expect(try harness.range(RangeRequest(key: bytes("k"), revision: Revision(4))).kvs.keyValues.first?.value == bytes("3"))
        #expect(throws: ServiceError.compacted) { try harness.range(RangeRequest(key: bytes("k"), revision: Revision(3))) }
        #expect(throws: ServiceError.futureRev) { try harness.range(RangeRequest(key: bytes("k"), revision: Revision(7))) }
    }

    /// The pre-check of a transaction compares a negative revision as it stands. (§4.4)
    @Test func negativeRevisionInsideATransactionIsCompacted() throws {
        let harness = try StoreHarness()
        try harness.put("k", "v")
        #expect(throws: ServiceError.compacted) { try harness.txn(TxnRequest(success: [putOp("x", "1"), rangeOp("k", revision: -2)])) }
        #expect(throws: Never.self) { try harness.txn(TxnRequest(success: [rangeOp("k", revision: -1)])) }
        try harness.store.compact(to: Revision(1))
        #expect(throws: ServiceError.compacted) { try harness.txn(TxnRequest(success: [rangeOp("k", revision: -1)])) }
        #expect(harness.store.revision == Revision(2), "a refused transaction leaves nothing behind")
        #expect(try harness.range(RangeRequest(key: bytes("k"), revision: Revision(-7))).count == 1)
    }

    @Test func livingSnapshotHoldsDeletionsBack() throws {
        let harness = try StoreHarness()
        for n in 1...3 { try harness.put("k", "\(n)") }
        try harness.flush()
        var snapshot: StoreSnapshot? = harness.store.snapshot()
        try harness.put("k", "4")
        try harness.store.compact(to: Revision(5))
        try harness.flush()
        #expect(harness.store.finishedCompactRevision == Revision(-1))
        #expect(!harness.store.hasPendingChanges)
        #expect(try harness.storedKeys().count == 4)
        let request = RangeRequest(key: bytes("k"), revision: Revision(2))
        #expect(try snapshot!.range(request, reader: harness.refreshed()).kvs.keyValues.first?.value == bytes("1"))
        // A snapshot of after the compaction holds nothing back.
        let later = harness.store.snapshot()
        snapshot = nil
        #expect(harness.store.hasPendingChanges)
        try harness.flush()
        #expect(try harness.storedKeys().count == 1)
        #expect(harness.store.finishedCompactRevision == Revision(5))
        #expect(try later.range(RangeRequest(key: bytes("k")), reader: harness.refreshed()).kvs.keyValues.first?.value == bytes("4"))
    }

    @Test func tombstoneOfTheCompactRevisionStaysUntilTheNextCompaction() throws {
        let harness = try StoreHarness()
        try harness.put("k", "1")
        try harness.delete("k")
        try harness.store.compact(to: Revision(3))
        try harness.flush()
        #expect(try harness.storedKeys().map { String($0.prefix(36)) } == ["00000000000000035f000000000000000074"])
        let page = try harness.store.snapshot().history(
            of: [.single(Key("k"))], from: Revision(3), through: Revision(3), reader: harness.refreshed())
        #expect(page.events.map(\.kind) == [.delete] && page.next == Revision(4))
        try harness.reload()
        try harness.put("x", "1")
        try harness.store.compact(to: Revision(4))
        try harness.flush()
        #expect(try harness.storedKeys().count == 1)
    }

    @Test func unfinishedCompactionIsResumedAfterARestart() throws {
        let harness = try StoreHarness()
        for round in 0..<4 {
            for n in 0..<50 { try harness.put("key\(n)", "\(round)") }
        }
        try harness.flush()
        try harness.store.compact(to: Revision(180))
        // A part of the deletions becomes durable, then the member dies.
        while !harness.store.compactStep(maxKeys: 7) {}
        var batch = BackendBatch()
        _ = harness.store.takeBatch(into: &batch, maxDeletions: 20)
        try harness.backend.commit(batch)
        harness.store = try KeyValueStore.load(from: harness.refreshed())
        #expect(harness.store.compactRevision == Revision(180))
        #expect(harness.store.finishedCompactRevision == Revision(-1))
        #expect(harness.store.hasCompactionWork)
        try harness.flush()
        #expect(harness.store.finishedCompactRevision == Revision(180))
        // 200 changes 2...201; at 180 each key keeps its newest: 50 minus the 21 above 180, which count by themselves.
        #expect(try harness.storedKeys().count == 50 + 21)
    }

    @Test func compactionsThatOvertakeEachOtherAllFinish() throws {
        let harness = try StoreHarness()
        for n in 0..<300 { try harness.put("key\(n % 60)", "\(n)") }
        for target in [50, 51, 120, 290] as [Int64] {
            try harness.store.compact(to: Revision(target))
            harness.store.compactStep(maxKeys: 10)
        }
        try harness.flush()
        #expect(harness.store.finishedCompactRevision == Revision(290))
        let fresh = try StoreHarness()
        for n in 0..<300 { try fresh.put("key\(n % 60)", "\(n)") }
        try fresh.store.compact(to: Revision(290))
        try fresh.flush()
        #expect(try harness.storedKeys() == fresh.storedKeys())
    }

    @Test func loadAcceptsHistoryThatBeginsInTheMiddle() throws {
        let backend = MemoryBackend()
        var batch = BackendBatch()
        let first = KeyValue(key: bytes("k"), createRevision: Revision(3), modRevision: Revision(40), version: 9, value: bytes("v"), lease: LeaseID(5))
        batch.put(.key, changeKey(main: 40, sub: 0, tombstone: false), first.encoded())
        batch.put(.key, changeKey(main: 41, sub: 0, tombstone: true), KeyValue(key: bytes("gone")).encoded())
        // Written by etcdutl --bump-revision.
        batch.put(.key, changeKey(main: 1_000, sub: 0, tombstone: false), [])
        batch.put(.meta, MetaKey.finishedCompactRevision, changeKey(main: 40, sub: 0, tombstone: false))
        try backend.commit(batch)
        let harness = try StoreHarness(backend)
        #expect(harness.store.revision == Revision(1_000))
        #expect(harness.store.compactRevision == Revision(40))
        #expect(harness.store.keyCount == 1)
        var leased: [String] = []
        harness.store.forEachLeasedKey { leased.append("\(String(decoding: $0.bytes, as: UTF8.self)) \($1.rawValue)") }
        #expect(leased == ["k 5"])
        let put = try harness.put("k", "w")
        #expect(try put.previous.map { try decodeKeyValue($0) } == first)
        let now = try harness.range(RangeRequest(key: bytes("k"))).kvs.keyValues.first
        #expect(now?.version == 10 && now?.createRevision == Revision(3) && now?.modRevision == Revision(1_001))
    }

    @Test func loadReportsWhatItCannotRead() throws {
        func load(_ key: [UInt8], _ value: [UInt8], _ table: Table = .key) throws {
            let backend = MemoryBackend()
            var batch = BackendBatch()
            batch.put(table, key, value)
            try backend.commit(batch)
            _ = try KeyValueStore.load(from: backend.makeReader())
        }
        #expect(throws: StoreLoadError.self) { try load([1, 2, 3], [1]) }
        #expect(throws: StoreLoadError.self) { try load(changeKey(main: 2, sub: 0, tombstone: false), [0xff]) }
        #expect(throws: StoreLoadError.self) { try load(changeKey(main: 0, sub: 0, tombstone: false), KeyValue(key: [1]).encoded()) }
        #expect(throws: StoreLoadError.self) { try load(MetaKey.finishedCompactRevision, [1, 2], .meta) }
    }

    @Test func missingRevisionIsReportedAndMarksTheStore() throws {
        let harness = try StoreHarness()
        try harness.put("k", "v")
        try harness.flush()
        var batch = BackendBatch()
        batch.changes.append(.clear(.key))
        try harness.backend.commit(batch)
        #expect(throws: ServiceError.self) { try harness.range(RangeRequest(key: bytes("k"))) }
        #expect(harness.store.fault == nil)
        #expect(throws: ServiceError.self) { try harness.put("k", "w") }  // asks for prev_kv
        #expect(harness.store.fault != nil)
        #expect(harness.store.revision == Revision(2))
    }

    @Test func leaseRevocationDeletesInOneRevision() throws {
        let harness = try StoreHarness()
        for key in ["c", "a", "b"] { try harness.put(key, "v", lease: 7) }
        _ = harness.store.takeEvents()
        #expect(harness.store.deleteKeys([Key("a"), Key("b"), Key("missing"), Key("zz")]) == Revision(5))
        let events = harness.store.takeEvents()
        #expect(events.map(\.key) == [Key("a"), Key("b")])
        #expect(events.map(\.change) == [ChangeID(main: Revision(5), sub: 0), ChangeID(main: Revision(5), sub: 1)])
        #expect(events.allSatisfy { $0.previousLease == LeaseID(7) && $0.lease == .none })
        #expect(try events.map { try decodeKeyValue($0.kv) } == [
            KeyValue(key: bytes("a"), modRevision: Revision(5)), KeyValue(key: bytes("b"), modRevision: Revision(5)),
        ])
        #expect(harness.store.deleteKeys([Key("a")]) == Revision(5), "nothing alive: the revision stays")
    }

    /// A long history of one key is read page by page without gathering it again each time.
    @Test func historyOfAHotKeyPagesByRevision() throws {
        let harness = try StoreHarness()
        for n in 0..<500 { try harness.put("hot", "\(n)") }
        try harness.flush()
        for n in 500..<600 { try harness.put("hot", "\(n)") }
        let snapshot = harness.store.snapshot()
        var next = Revision(2)
        var pages: [Int] = []
        while next <= snapshot.revision {
            let page = try snapshot.history(
                of: [.single(Key("hot"))], from: next, through: snapshot.revision, maxRevisions: 150, reader: harness.refreshed())
            pages.append(page.events.count)
            next = page.next
        }
        #expect(pages == [150, 150, 150, 150])
    }

    @Test func historyOfManyKeysIsOneWalk() throws {
        let harness = try StoreHarness()
        for n in 0..<600 { try harness.put("k\(n)", "v") }
        try harness.flush()
        for n in 0..<20 { try harness.put("other\(n)", "v") }
        for n in 0..<10 { try harness.put("k\(n)", "w") }
        let snapshot = harness.store.snapshot()
        let page = try snapshot.history(of: [.prefix(Key("k"))], from: Revision(2), through: Revision(10_000), maxRevisions: 10_000, reader: harness.refreshed())
        #expect(page.events.count == 610)
        #expect(page.next == snapshot.revision.next)
        let bounded = try snapshot.history(of: [.prefix(Key("k"))], from: Revision(602), through: Revision(10_000), maxRevisions: 15, reader: harness.refreshed())
        #expect(bounded.events.isEmpty && bounded.next == Revision(617), "looked at 15 revisions of other keys")
    }

    @Test func largeValuesLeaveMemoryWithTheirBatch() throws {
        let harness = try StoreHarness()
        let value = String(repeating: "x", count: 100_000)
        for n in 0..<10 { try harness.put("k\(n)", value) }
        #expect(harness.store.pendingBytes > 1_000_000)
        var batch = BackendBatch()
        let token = harness.store.takeBatch(into: &batch)
        #expect(harness.store.pendingBytes == 0)
        try harness.put("later", value)
        try harness.backend.commit(batch)
        harness.store.batchCommitted(token)
        #expect(harness.store.overlayCount <= 3, "only the chunk that the later put shares may stay")
        #expect(try harness.range(RangeRequest(key: bytes("k"), rangeEnd: bytes("z"))).count == 11)
    }

    @Test func backendHashLeavesOutWhatDiffersBetweenMembers() throws {
        let backend = MemoryBackend()
        var batch = BackendBatch()
        batch.put(.key, [1], [2])
        batch.put(.meta, bytes("a"), [3])
        try backend.commit(batch)
        let before = try backendHash(backend.makeReader())
        batch = BackendBatch()
        batch.put(.meta, MetaKey.consistentIndex, [9])
        batch.put(.meta, MetaKey.term, [9])
        try backend.commit(batch)
        #expect(try backendHash(backend.makeReader()) == before)
        batch = BackendBatch()
        batch.put(.meta, bytes("a"), [4])
        try backend.commit(batch)
        #expect(try backendHash(backend.makeReader()) != before)
    }
}
