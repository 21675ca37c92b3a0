import Base
import Testing

@testable import Store

/// Random histories on the store and on `StoreModel`: answers, events, reads at every revision, hashes, snapshots that
/// outlive compactions, restarts.
@Suite struct StoreRandomTests {
    enum Operation {
        case put(PutRequest)
        case delete(DeleteRangeRequest)
        case txn(TxnRequest)
        case compact(Revision)
        case deleteKeys([Key])
    }

    enum Answer: Hashable {
        case put(PutResult)
        case delete(DeleteRangeResult)
        case txn(TxnResult)
        case revision(Revision)
        case refused(ServiceError)
    }

    /// Draws requests over few keys, so that everything meets everything.
    struct Drawing {
        var random: SeededGenerator
        static let keys: [[UInt8]] = ["a", "b", "ab", "b\0", "b\0\0", "c", "ca", "cb", "d", "zz"].map(bytes) + [[0], [0xff], [0xff, 0xff]]

        mutating func below(_ n: Int) -> Int { Int.random(in: 0..<n, using: &random) }
        mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
        mutating func key() -> [UInt8] { Drawing.keys[below(Drawing.keys.count)] }
        mutating func end() -> [UInt8] {
            switch below(10) {
            case 0...3: []
            case 4: [0]
            case 5: [0, 0]
            default: key()
            }
        }
        mutating func value() -> [UInt8] {
            if chance(10) { return [] }
            if chance(3) { return Array(repeating: 7, count: 300) }
            return [UInt8(below(4)), UInt8(below(3))]
        }
        mutating func lease() -> LeaseID {
            switch below(10) {
            case 0: LeaseID(-5)
            case 1: LeaseID(7)
            case 2: LeaseID(99)  // does not exist
            default: .none
            }
        }
        mutating func revision(_ model: StoreModel) -> Revision {
            switch below(10) {
            case 0...4: .zero
            case 5: Revision(Int64(below(4)) - 2)
            default: Revision(Int64(below(Int(model.revision.rawValue) + 3)))
            }
        }
        mutating func range(_ model: StoreModel) -> RangeRequest {
            var request = RangeRequest(key: key(), rangeEnd: end(), revision: revision(model))
            if chance(40) { request.limit = Int64(below(6)) - 1 }
            if chance(2) { request.limit = .max }
            request.sortOrder = SortOrder(rawValue: Int32(chance(50) ? below(3) : 0))
            request.sortTarget = SortTarget(rawValue: Int32(chance(50) ? below(5) : 0))
            request.keysOnly = chance(20)
            request.countOnly = chance(10)
            if chance(15) { request.minModRevision = revision(model) }
            if chance(15) { request.maxModRevision = revision(model) }
            if chance(15) { request.minCreateRevision = revision(model) }
            if chance(15) { request.maxCreateRevision = revision(model) }
            return request
        }
        mutating func put() -> PutRequest {
            var request = PutRequest(key: key(), value: value(), lease: lease(), prevKV: chance(30))
            if chance(10) {
                request.ignoreValue = true
                request.value = []
            }
            if chance(10) {
                request.ignoreLease = true
                request.lease = .none
            }
            return request
        }
        mutating func delete() -> DeleteRangeRequest { DeleteRangeRequest(key: key(), rangeEnd: end(), prevKV: chance(50)) }
        mutating func compare(_ model: StoreModel) -> Compare {
            let number = Int64(below(Int(model.revision.rawValue) + 1)) / (chance(50) ? 1 : 5)
            let operand: Compare.Operand =
                switch below(6) {
                case 0: .version(number)
                case 1: .createRevision(number)
                case 2: .modRevision(number)
                case 3: .value(value())
                case 4: .lease(chance(50) ? 7 : 0)
                default: .none
                }
            return Compare(
                key: key(), rangeEnd: end(), target: .init(rawValue: Int32(below(6))), result: .init(rawValue: Int32(below(5))),
                operand: operand)
        }
        mutating func txn(_ model: StoreModel, depth: Int = 0) -> TxnRequest {
            func ops(_ drawing: inout Drawing) -> [RequestOp] {
                (0..<drawing.below(4)).map { _ in
                    switch drawing.below(depth < 3 ? 10 : 8) {
                    case 0...2: .range(drawing.range(model))
                    case 3...5: .put(drawing.put())
                    case 6, 7: .deleteRange(drawing.delete())
                    default: .txn(drawing.txn(model, depth: depth + 1))
                    }
                }
            }
            return TxnRequest(compare: (0..<below(2)).map { _ in compare(model) }, success: ops(&self), failure: ops(&self))
        }
        mutating func operation(_ model: StoreModel) -> Operation {
            switch below(20) {
            case 0...9: return .put(put())
            case 10...12: return .delete(delete())
            case 13...17:
                while true {
                    let request = txn(model)
                    if (try? request.validate(maxTxnOps: 128)) != nil { return .txn(request) }
                }
            case 18:
                return .deleteKeys(Set((0..<below(4)).map { _ in Key(key()) }).sorted())
            default:
                return .compact(Revision(model.revision.rawValue - Int64(below(8)) + 1))
            }
        }
    }

    static func run(_ operation: Operation, on model: inout StoreModel) -> Answer {
        do throws(ServiceError) {
            switch operation {
            case .put(let request): return .put(try model.put(request))
            case .delete(let request): return .delete(model.deleteRange(request))
            case .txn(let request): return .txn(try model.txn(request))
            case .compact(let revision):
                try model.compact(to: revision)
                return .revision(model.revision)
            case .deleteKeys(let keys):
                model.deleteKeys(keys)
                return .revision(model.revision)
            }
        } catch {
            return .refused(error)
        }
    }

    static func run(_ operation: Operation, on store: KeyValueStore, _ reader: any BackendReader, _ leases: Set<LeaseID>) -> Answer {
        do throws(ServiceError) {
            switch operation {
            case .put(let request): return .put(try store.put(request, reader: reader) { leases.contains($0) })
            case .delete(let request): return .delete(try store.deleteRange(request, reader: reader))
            case .txn(let request): return .txn(try store.txn(request, reader: reader) { leases.contains($0) })
            case .compact(let revision):
                try store.compact(to: revision)
                return .revision(store.revision)
            case .deleteKeys(let keys): return .revision(store.deleteKeys(keys))
            }
        } catch {
            return .refused(error)
        }
    }

    /// One member with a disk that lags behind, and its oracle.
    struct Member {
        var model = StoreModel()
        var backend = MemoryBackend()
        var reader: any BackendReader
        var store = KeyValueStore()
        /// Handed out, not yet committed.
        var inFlight: [(batch: BackendBatch, token: BatchToken, operations: Int)] = []
        /// Applied, not known to be durable: a restart repeats them, as the log does.
        var sinceDurable: [(Operation, Answer)] = []
        var snapshots: [(StoreSnapshot, StoreModel)] = []

        init() throws {
            reader = try backend.makeReader()
            model.leases = [LeaseID(7), LeaseID(-5)]
        }

        mutating func apply(_ operation: Operation, _ context: String) throws {
            let before = model.changes.count
            let expected = StoreRandomTests.run(operation, on: &model)
            let actual = StoreRandomTests.run(operation, on: store, reader, model.leases)
            try #require(actual == expected, "\(operation) \(context)")
            sinceDurable.append((operation, expected))
            try checkEvents(before, context)
            try #require(store.revision == model.revision && store.compactRevision == model.compactRevision, "\(context)")
        }

        private func checkEvents(_ before: Int, _ context: String) throws {
            let all = [KeyRange.from(Key([]))]
            var expected = model.events(all, from: .zero, through: model.revision)
            expected.removeFirst(before)
            let actual = store.takeEvents()
            for at in expected.indices {
                // The lease that the key hung on before.
                let id = expected[at].change
                let earlier = model.changes.last { $0.id < id && $0.key == expected[at].key.bytes }
                expected[at].previousLease = earlier?.kv?.lease ?? .none
            }
            try #require(actual == expected, "events, \(context)")
        }

        mutating func takeBatch(_ drawing: inout Drawing) {
            let waiting = inFlight.reduce(0) { $0 + $1.operations }
            var batch = BackendBatch()
            let token = store.takeBatch(into: &batch, maxDeletions: 1 + drawing.below(10))
            inFlight.append((batch, token, sinceDurable.count - waiting))
        }

        /// `reported`: false leaves the store without knowledge of the commit.
        mutating func commit() throws {
            guard !inFlight.isEmpty else { return }
            let (batch, token, operations) = inFlight.removeFirst()
            try backend.commit(batch)
            store.batchCommitted(token)
            sinceDurable.removeFirst(operations)
            try reader.refresh()
        }

        mutating func restart(_ context: String) throws {
            inFlight = []
            snapshots = []
            try reader.refresh()
            store = try KeyValueStore.load(from: reader)
            for (operation, answer) in sinceDurable {
                let again = StoreRandomTests.run(operation, on: store, reader, model.leases)
                try #require(again == answer, "repeated \(operation) \(context)")
            }
            _ = store.takeEvents()
            try #require(store.revision == model.revision && store.compactRevision == model.compactRevision, "restart \(context)")
        }
    }

    static func checkReads(
        _ snapshot: StoreSnapshot, _ model: StoreModel, _ reader: any BackendReader, _ drawing: inout Drawing, _ context: String
    ) throws {
        for _ in 0..<3 {
            let request = drawing.range(model)
            let expected: Answer
            do throws(ServiceError) {
                expected = .txn(TxnResult(revision: .zero, succeeded: true, responses: [.range(try model.range(request))]))
            } catch { expected = .refused(error) }
            var actual = Answer.revision(.zero)
            do {
                let result = try snapshot.range(request, reader: reader)
                actual = .txn(TxnResult(revision: .zero, succeeded: true, responses: [.range(result)]))
                var spliced = ByteWriter()
                spliced.write(bytes("before"))
                try snapshot.rangeEncoded(request, header: ResponseHeader(memberID: MemberID(3)), reader: reader, into: &spliced)
                var whole = ByteWriter()
                whole.write(bytes("before"))
                result.encode(header: ResponseHeader(memberID: MemberID(3)), into: &whole)
                try #require(spliced.bytes == whole.bytes, "\(request) \(context)")
            } catch let error as ServiceError { actual = .refused(error) }
            try #require(actual == expected, "\(request) \(context)")
        }
        let at = drawing.revision(model)
        if at >= .zero {
            let expected = Result { () throws(ServiceError) in try model.hashKV(at) }
            let actual = Result { () throws(ServiceError) in try snapshot.hashKV(revision: at, reader: reader).hash }
            try #require(actual == expected, "hash at \(at) \(context)")
        }
        try checkHistory(snapshot, model, reader, &drawing, context)
    }

    static func checkHistory(
        _ snapshot: StoreSnapshot, _ model: StoreModel, _ reader: any BackendReader, _ drawing: inout Drawing, _ context: String
    ) throws {
        let ranges = (0..<1 + drawing.below(3)).map { _ in KeyRange(key: drawing.key(), rangeEnd: drawing.end()) }
        // A revision that was compacted to keeps at least the newest change per key; only above it is everything there.
        let from = max(Revision(Int64(drawing.below(Int(model.revision.rawValue) + 1))), model.compactRevision.next)
        if model.compactRevision > Revision(0) {
            #expect(throws: ServiceError.compacted) {
                try snapshot.history(of: ranges, from: Revision(model.compactRevision.rawValue - 1), through: from, reader: reader)
            }
        }
        var next = from
        var events: [StoreEvent] = []
        var pages = 0
        while next <= model.revision {
            let page = try snapshot.history(
                of: ranges, from: next, through: model.revision, maxRevisions: 1 + drawing.below(5), maxBytes: 1 + drawing.below(200),
                reader: reader)
            try #require(page.next > next, "no progress at \(next) \(context)")
            try #require(page.events.allSatisfy { $0.change.main >= next && $0.change.main < page.next }, "\(context)")
            events += page.events
            next = page.next
            pages += 1
        }
        try #require(events == model.events(ranges, from: from, through: model.revision), "history \(ranges) from \(from) \(context)")
        if let event = events.first {
            let at = Revision(event.change.main.rawValue - 1)
            let expected = at < model.compactRevision ? nil : model.visible(event.key.bytes, at: at)?.encoded()
            #expect(try snapshot.previousValue(of: event.key, before: event.change, reader: reader) == expected, "\(context)")
        }
    }

    @Test(arguments: (1...40).map { UInt64($0) })
    func randomHistoriesMatchTheModel(seed: UInt64) throws {
        var drawing = Drawing(random: SeededGenerator(seed: seed))
        var member = try Member()
        for step in 0..<250 {
            let context = "seed \(seed) step \(step)"
            switch drawing.below(20) {
            case 0...9: try member.apply(drawing.operation(member.model), context)
            case 10: member.takeBatch(&drawing)
            case 11, 12: try member.commit()
            case 13:
                // Often a whole pass, so that deletions meet snapshots from before it.
                for _ in 0..<drawing.below(10) { member.store.compactStep(maxKeys: 1 + drawing.below(4)) }
                if drawing.chance(50) {
                    member.takeBatch(&drawing)
                    while !member.inFlight.isEmpty { try member.commit() }
                }
            case 14:
                member.snapshots.append((member.store.snapshot(), member.model))
                if member.snapshots.count > 4 { member.snapshots.remove(at: drawing.below(5)) }
            case 15, 16:
                guard !member.snapshots.isEmpty else { break }
                let (snapshot, model) = member.snapshots[drawing.below(member.snapshots.count)]
                try StoreRandomTests.checkReads(snapshot, model, member.reader, &drawing, "old snapshot, \(context)")
            case 17: if drawing.chance(10) { member.snapshots = [] }
            case 18: if drawing.chance(20) { try member.restart(context) }
            default:
                try StoreRandomTests.checkReads(member.store.snapshot(), member.model, member.reader, &drawing, context)
            }
            member.store.index.checkInvariants()
        }
        // In the end everything that compaction may remove is removed, and nothing else.
        member.snapshots = []
        var rounds = 0
        repeat {
            member.store.compactStep()
            member.takeBatch(&drawing)
            while !member.inFlight.isEmpty { try member.commit() }
            rounds += 1
            try #require(rounds < 1_000)
        } while member.store.hasPendingChanges || member.store.hasCompactionWork
        #expect(member.store.finishedCompactRevision == member.model.compactRevision)
        var stored: [ChangeID] = []
        try member.reader.scan(.key, from: []) { key, _ in
            stored.append(parseChangeKey(key)!.id)
            return true
        }
        let compacted = member.model.compactRevision
        let expected = member.model.changes.filter { change in
            if change.id.main > compacted { return true }
            if change.kv == nil { return change.id.main == compacted }
            return member.model.newest(change.key, at: compacted)?.id == change.id
        }.map(\.id)
        #expect(stored == expected, "seed \(seed)")
        #expect(member.store.overlayCount == 0)
        let hash = try member.store.snapshot().hashKV(revision: .zero, reader: member.reader).hash
        #expect(try hash == member.model.hashKV(.zero))
        try member.restart("seed \(seed) end")
        #expect(try member.store.snapshot().hashKV(revision: .zero, reader: member.reader).hash == hash)
    }
}

extension Result where Failure == ServiceError {
    fileprivate init(_ body: () throws(ServiceError) -> Success) {
        do throws(ServiceError) { self = .success(try body()) } catch { self = .failure(error) }
    }
}
