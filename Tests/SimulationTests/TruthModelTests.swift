import Base
import Raft
import Replica
import Simulation
import Store
import Testing

@Suite struct TruthModelTests {
    @Test func versionsAndRevisionsCount() {
        var log = LogOfCommands()
        #expect(log.put("foo", "bar").revision == 2)
        #expect(log.put("foo", "baz").revision == 3)
        let deleted = log.delete("foo")
        #expect(deleted.revision == 4 && deleted.effect == .deleted(count: 1, previous: []))
        let nothing = log.delete("foo")
        #expect(nothing.revision == 4 && nothing.effect == .deleted(count: 0, previous: []))
        #expect(log.put("foo", "again").effect == .put(previous: nil))
        let history = log.model.history
        #expect(history.value(of: bytes("foo"), at: 3) == SeenKeyValue(key: bytes("foo"), value: bytes("baz"), createRevision: 2, modRevision: 3, version: 2))
        #expect(history.value(of: bytes("foo"), at: 4) == nil)
        #expect(history.value(of: bytes("foo"), at: 5)?.version == 1)
        #expect(history[4]?.events.first?.previous?.value == bytes("baz"))
        #expect(history[5]?.events.first?.previous == nil)
    }

    @Test func entriesWithoutCommandChangeNothing() {
        var model = TruthModel()
        #expect(model.apply(index: 1, term: 1, kind: .empty, payload: [], at: 0).effect == .none)
        #expect(model.apply(index: 2, term: 1, kind: .configuration, payload: [1, 2], at: 0).effect == .none)
        if case .undecodable = model.apply(index: 3, term: 1, kind: .command, payload: [9], at: 0).effect {} else { Issue.record("a foreign format was accepted") }
        #expect(model.revision == 1 && model.appliedIndex == 3)
    }

    @Test func expiryCountsOnlyInItsTerm() {
        var log = LogOfCommands()
        #expect(log.grant(5, ttl: -3).effect == .granted(lease: 5, ttlSeconds: 1))
        #expect(log.grant(5, ttl: 3).effect == .refused(.leaseExist))
        #expect(log.put("b", "1", lease: 5).revision == 2)
        #expect(log.put("a", "2", lease: 5).revision == 3)
        #expect(log.put("c", "3", lease: 6).effect == .refused(.leaseNotFound))
        #expect(log.put("c", "3", lease: 5).revision == 4)
        #expect(log.put("c", "4").revision == 5)
        log.term = 2
        #expect(log.expire(5, term: 1).effect == .ignoredExpiry(lease: 5))
        #expect(log.expire(5, term: 2).effect == .expired(lease: 5, keys: 2))
        #expect(log.model.revision == 6)
        #expect(log.model.history[6]?.events.map(\.kv.key) == [bytes("a"), bytes("b")])
        #expect(log.model.history[6]?.cause == .leaseExpired(5))
        #expect(log.expire(5, term: 2).effect == .ignoredExpiry(lease: 5))
        #expect(log.revoke(5).effect == .refused(.leaseNotFound))
    }

    @Test func compactionRefusesThePastAndTheFuture() {
        var log = LogOfCommands()
        _ = log.put("a", "1")
        _ = log.put("a", "2", at: 40)
        #expect(log.compact(4).effect == .refused(.futureRev))
        #expect(log.compact(3, at: 50).effect == .compacted(3))
        #expect(log.compact(3).effect == .refused(.compacted))
        #expect(log.model.history.compactRevision(at: 49) == -1)
        #expect(log.model.history.compactRevision(at: 50) == 3)
        let read = TxnRequest(success: [.range(RangeRequest(key: bytes("a"), revision: Revision(2))), .put(PutRequest(key: bytes("b")))])
        #expect(log.txn(read).effect == .refused(.compacted))
    }

    @Test func alarmsRefuseWrites() {
        var log = LogOfCommands()
        func alarm(_ action: Int64, _ kind: Int64) -> [UInt8] {
            encoded { $0.writeField(1, action); $0.writeField(2, Int64(7)); $0.writeField(3, kind) }
        }
        _ = log.put("a", "1")
        _ = log.apply(.alarm, alarm(1, 1))
        #expect(log.put("a", "2").effect == .refused(.noSpace))
        #expect(log.delete("a").revision == 3)
        _ = log.apply(.alarm, alarm(1, 2))
        #expect(log.delete("a").effect == .refused(.corrupt))
        _ = log.apply(.alarm, alarm(2, 2))
        _ = log.apply(.alarm, alarm(2, 1))
        #expect(log.put("a", "2").revision == 4)
    }

    @Test func forgettingKeepsWhatReadsAtTheFloorNeed() {
        var log = LogOfCommands()
        for round in 0..<2_000 {
            _ = log.put("k\(round % 10)", "\(round)")
            if round % 7 == 0 { _ = log.delete("k\(round % 10)") }
        }
        let before = log.model.history
        let floor = before.revision - 20
        log.model.forget(below: floor)
        let after = log.model.history
        for at in floor...before.revision {
            #expect(after.range([0], [0], at: at) == before.range([0], [0], at: at))
            #expect(after[at]?.events == (at == floor ? nil : before[at]?.events))
        }
        #expect(after.windowCount == 20)
        #expect(after.revision(ofValue: bytes("1999")) == before.revision(ofValue: bytes("1999")))
        #expect(after.revision(ofValue: bytes("3")) == nil)
        #expect(before.revision(ofValue: bytes("3")) != nil)
    }

    // MARK: Against the store

    /// The store's side of a random run.
    private struct StoreSide {
        let store = KeyValueStore()
        var leases = LeaseTable()
        let reader: any BackendReader

        init() throws { reader = try MemoryBackend().makeReader() }
    }

    private func seen(_ kv: KeyValue) -> SeenKeyValue {
        SeenKeyValue(key: kv.key, value: kv.value, createRevision: kv.createRevision.rawValue, modRevision: kv.modRevision.rawValue,
                     version: kv.version, lease: kv.lease.rawValue)
    }

    private func response(_ result: OpResult) throws -> TruthModel.Response {
        switch result {
        case .none: .none
        case .range(let range): .range(found: range.kvs.keyValues.map(seen), count: range.count, more: range.more)
        case .put(let put): .put(previous: try put.previous.map { seen(try decodeKeyValue($0)) })
        case .deleteRange(let delete): .deleted(count: delete.deleted, previous: delete.previous.keyValues.map(seen))
        case .txn(let txn): .txn(succeeded: txn.succeeded, responses: try txn.responses.map(response))
        }
    }

    @Test(arguments: 0..<40) func agreesWithTheStore(seed: UInt64) throws {
        var draw = CommandDrawing(random: SeededGenerator(seed: seed))
        var log = LogOfCommands()
        var side = try StoreSide()
        for step in 0..<300 {
            let now = Moment(step)
            var answer: TruthModel.Result?
            var expected = TruthModel.Effect.none
            let leases = side.leases
            do throws(ServiceError) {
                switch draw.below(20) {
                case 0...6:
                    let request = draw.put()
                    answer = log.put(request, at: now)
                    let put = try side.store.put(request, reader: side.reader) { leases.contains($0) }
                    expected = .put(previous: put.previous.map { seen((try? decodeKeyValue($0))!) })
                case 7...9:
                    let request = draw.delete()
                    answer = log.apply(.deleteRange, encoded(request.encode), at: now)
                    let delete = try side.store.deleteRange(request, reader: side.reader)
                    expected = .deleted(count: delete.deleted, previous: delete.previous.keyValues.map(seen))
                case 10...15:
                    let request = draw.txn(revision: log.model.revision, depth: 0)
                    answer = log.apply(.txn, encoded(request.encode), at: now)
                    let txn = try side.store.txn(request, reader: side.reader) { leases.contains($0) }
                    expected = .txn(succeeded: txn.succeeded, responses: txn.responses.map { (try? response($0))! })
                case 16:
                    let target = draw.revision(log.model.revision)
                    answer = log.compact(target, at: now)
                    try side.store.compact(to: Revision(target))
                    expected = .compacted(target)
                case 17, 18:
                    let (lease, ttl) = (draw.lease(), Int64(draw.below(5)) - 1)
                    answer = log.grant(lease, ttl: ttl)
                    let granted = try side.leases.grant(LeaseID(lease), ttlSeconds: ttl, minimumTTLSeconds: 1, now: .zero)
                    expected = .granted(lease: lease, ttlSeconds: granted)
                default:
                    let lease = draw.lease()
                    answer = log.revoke(lease)
                    let keys = try side.leases.revoke(LeaseID(lease))
                    side.store.deleteKeys(keys)
                    expected = .revoked(lease: lease, keys: keys.count)
                }
            } catch {
                expected = .refused(error)
            }
            let result = try #require(answer)
            #expect(result.effect == expected, "seed \(seed) step \(step)")
            let events = side.store.takeEvents()
            side.leases.follow(events)
            #expect(result.revision == side.store.revision.rawValue, "seed \(seed) step \(step)")
            #expect(log.model.compactRevision == side.store.compactRevision.rawValue)
            guard !events.isEmpty else { continue }
            let truth = try #require(log.model.history[result.revision])
            #expect(truth.events.count == events.count)
            for (mine, theirs) in zip(truth.events, events) {
                #expect(mine.isDelete == (theirs.kind == StoreEvent.Kind.delete))
                #expect(try mine.kv == seen(decodeKeyValue(theirs.kv)), "seed \(seed) step \(step)")
                let isCreation = !mine.isDelete && mine.kv.createRevision == mine.kv.modRevision
                #expect(isCreation == theirs.isCreate)
                let before = result.revision - 1
                if !isCreation, before >= side.store.compactRevision.rawValue {
                    let range = try side.store.snapshot().range(RangeRequest(key: mine.kv.key, revision: Revision(before)), reader: side.reader)
                    // Revision 0 would mean the newest.
                    #expect(mine.previous == range.kvs.keyValues.first.map(seen), "seed \(seed) step \(step)")
                }
            }
        }
        // Every readable revision, every lease.
        let lowest = max(1, side.store.compactRevision.rawValue)
        for at in lowest...side.store.revision.rawValue {
            let range = try side.store.snapshot().range(RangeRequest(key: [0], rangeEnd: [0], revision: Revision(at)), reader: side.reader)
            #expect(log.model.history.range([0], [0], at: at) == range.kvs.keyValues.map(seen))
        }
        #expect(log.model.leaseCount == side.leases.count)
        for lease in side.leases.ids {
            #expect(log.model.keys(ofLease: lease.rawValue) == side.leases.keys(of: lease).map(\.bytes))
        }
    }
}

/// Draws requests over few keys and leases, so that everything meets everything.
struct CommandDrawing {
    var random: SeededGenerator
    static let keys: [[UInt8]] = ["a", "ab", "b", "b\0", "c", "ca", "d", "zz"].map { Array($0.utf8) } + [[0], [0xff], [0xff, 0xff]]

    mutating func below(_ n: Int) -> Int { Int.random(in: 0..<n, using: &random) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    mutating func key() -> [UInt8] { CommandDrawing.keys[below(CommandDrawing.keys.count)] }
    mutating func end() -> [UInt8] {
        switch below(10) {
        case 0...3: []
        case 4: [0]
        case 5: [0, 0]
        default: key()
        }
    }
    mutating func value() -> [UInt8] { chance(10) ? [] : [UInt8(below(4)), UInt8(below(3))] }
    mutating func lease() -> Int64 { [0, -5, 7, 8, 9][below(5)] }
    mutating func revision(_ newest: Int64) -> Int64 { chance(15) ? Int64(below(5)) - 3 : Int64(below(Int(newest) + 3)) }
    mutating func put() -> PutRequest {
        var request = PutRequest(key: key(), value: value(), lease: chance(40) ? LeaseID(lease()) : .none, prevKV: chance(30))
        if chance(10) { (request.ignoreValue, request.value) = (true, []) }
        if chance(10) { (request.ignoreLease, request.lease) = (true, .none) }
        return request
    }
    mutating func delete() -> DeleteRangeRequest { DeleteRangeRequest(key: key(), rangeEnd: end(), prevKV: chance(30)) }
    mutating func range(_ newest: Int64) -> RangeRequest {
        var request = RangeRequest(key: key(), rangeEnd: end(), revision: chance(30) ? Revision(revision(newest)) : .zero)
        if chance(40) { request.limit = Int64(below(6)) - 1 }
        request.sortOrder = SortOrder(rawValue: Int32(chance(50) ? below(3) : 0))
        request.sortTarget = SortTarget(rawValue: Int32(chance(50) ? below(5) : 0))
        request.keysOnly = chance(20)
        request.countOnly = chance(10)
        if chance(15) { request.minModRevision = Revision(revision(newest)) }
        if chance(15) { request.maxModRevision = Revision(revision(newest)) }
        if chance(15) { request.minCreateRevision = Revision(revision(newest)) }
        if chance(15) { request.maxCreateRevision = Revision(revision(newest)) }
        return request
    }
    mutating func compare(_ newest: Int64) -> Compare {
        let operand: Compare.Operand = switch below(6) {
        case 0: .version(Int64(below(3)))
        case 1: .createRevision(revision(newest))
        case 2: .modRevision(revision(newest))
        case 3: .value(value())
        case 4: .lease(lease())
        default: .none
        }
        return Compare(key: key(), rangeEnd: end(), target: .init(rawValue: Int32(below(6))), result: .init(rawValue: Int32(below(5))), operand: operand)
    }
    mutating func operations(_ newest: Int64, _ depth: Int) -> [RequestOp] {
        (0..<below(4)).map { _ in
            switch below(depth < 2 ? 5 : 4) {
            case 0, 1: .put(put())
            case 2: .deleteRange(delete())
            case 3: .range(range(newest))
            default: .txn(txn(revision: newest, depth: depth + 1))
            }
        }
    }
    mutating func txn(revision newest: Int64, depth: Int) -> TxnRequest {
        TxnRequest(compare: (0..<below(3)).map { _ in compare(newest) }, success: operations(newest, depth), failure: operations(newest, depth))
    }
}
