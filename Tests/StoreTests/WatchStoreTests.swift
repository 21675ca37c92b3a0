import Base
import Testing
@testable import Store

/// The hub on the real store and its history, and the lease table behind both.
@Suite struct WatchStoreTests {
    private final class Member {
        let store = KeyValueStore()
        let backend = MemoryBackend()
        let reader: any BackendReader
        let hub = WatchHub(generator: SeededGenerator(seed: 1))
        var leases = LeaseTable()
        var outputs: [WatchOutput] = []

        init() {
            reader = try! backend.makeReader()
            hub.openStream(WatchStreamID(1), at: .zero)
        }

        var history: StoreHistory { StoreHistory(store.snapshot(), reader: reader) }

        func put(_ key: String, _ value: String, lease: Int64 = 0) {
            _ = try! store.put(
                PutRequest(key: Array(key.utf8), value: Array(value.utf8), lease: LeaseID(lease)), reader: reader,
                leaseExists: { leases.contains($0) })
            publish()
        }
        func delete(_ key: String, _ end: String = "") {
            _ = try! store.deleteRange(DeleteRangeRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8)), reader: reader)
            publish()
        }
        func revoke(_ id: Int64) {
            store.deleteKeys(try! leases.revoke(LeaseID(id)))
            publish()
        }
        /// As the replica does it: by revision, in order.
        private func publish() {
            let events = store.takeEvents()
            leases.follow(events)
            var first = 0
            while first < events.count {
                let revision = events[first].change.main
                var end = first
                while end < events.count, events[end].change.main == revision { end += 1 }
                try! hub.publish(revision, Array(events[first..<end]), history: history, into: &outputs)
                first = end
            }
        }
        func commit() {
            var batch = BackendBatch()
            let token = store.takeBatch(into: &batch)
            try! backend.commit(batch)
            store.batchCommitted(token)
            try! reader.refresh()
        }
        func compact(_ revision: Int64) {
            try! store.compact(to: Revision(revision))
            hub.compacted(Revision(revision), into: &outputs)
            while !store.compactStep() {}
        }
        func create(_ key: String, _ end: String = "", start: Int64, previous: Bool = true) {
            hub.create(
                WatchStreamID(1),
                WatchCreateRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8), startRevision: Revision(start), previousKV: previous),
                into: &outputs)
        }
        func catchUp() {
            while try! hub.catchUp(WatchCatchUpBudget(revisions: 7, bytes: 300, passes: 2), history: history, into: &outputs) {}
        }
        func events(_ id: Int64) -> [WatchEvent] {
            outputs.filter { $0.response.watchID.rawValue == id }.flatMap(\.response.events)
        }
        func credit() {
            hub.delivered(WatchStreamID(1), responses: outputs.count, bytes: outputs.reduce(0) { $0 + $1.response.backlogBytes })
            outputs = []
        }
    }

    @Test(arguments: [UInt64](1...10))
    func lateWatcherGetsFromTheStoreWhatALiveOneGot(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let member = Member()
        member.create("k", "l", start: 1)
        member.create("k3", start: 1)
        for _ in 0..<100 {
            let key = "k\(Int.random(in: 0..<6, using: &random))"
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<6: member.put(key, String(repeating: "v", count: Int.random(in: 0..<50, using: &random)))
            case 6..<7: member.put("other", "x")
            case 7..<8: member.delete(key)
            case 8: member.delete(key, "k9")
            default: member.commit()
            }
        }
        member.create("k", "l", start: 1)
        member.create("k3", start: 1)
        member.catchUp()
        #expect(member.events(2) == member.events(0), "seed \(seed)")
        #expect(member.events(3) == member.events(1), "seed \(seed)")
        #expect(member.events(0).count > 50, "seed \(seed)")
        #expect(member.events(0).contains { $0.previousKV != nil } && member.events(0).contains { $0.isDelete }, "seed \(seed)")
    }

    @Test(arguments: [false, true])
    func watchAtTheCompactRevisionSeesItsDelete(durable: Bool) {
        let member = Member()
        member.put("a", "1")  // 2
        member.put("b", "1")  // 3
        member.delete("a")  // 4
        member.put("b", "2")  // 5
        if durable { member.commit() }
        member.compact(4)
        if durable { member.commit() }
        member.create("\0", "\0", start: 4)
        member.create("a", start: 3)
        member.catchUp()
        #expect(member.outputs.map { describe($0.response) } == [
            "0@5 created", "1@5 created", "1@0 canceled compacted 4", "0@5 delete 4, put 5",
        ])
        // The state before the delete was compacted away, the one before the put is revision 4's.
        #expect(member.events(0).map { $0.previousKV == nil } == [true, false])
    }

    /// etcd-api.md A.9.
    @Test func revokedLeaseDeletesItsKeysInOneRevision() throws {
        let member = Member()
        _ = try member.leases.grant(LeaseID(77), ttlSeconds: 60, minimumTTLSeconds: 2, now: .zero)
        _ = try member.leases.grant(LeaseID(78), ttlSeconds: 60, minimumTTLSeconds: 2, now: .zero)
        for key in ["c", "a", "b"] { member.put(key, "v", lease: 77) }
        member.put("c", "v")
        member.create("\0", "\0", start: 0)
        member.credit()
        member.revoke(77)
        #expect(member.outputs.map { describe($0.response) } == ["0@6 delete 6, delete 6"])
        #expect(member.events(0).map { modRevision($0.kv) } == [6, 6])
        #expect(member.store.revision == Revision(6))
        member.revoke(78)
        #expect(member.store.revision == Revision(6))
        #expect(member.leases.attachedKeyCount == 0)
    }
}
