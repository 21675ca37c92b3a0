import Base
import Testing
@testable import Store

@Suite struct LeaseTableTests {
    private func seconds(_ n: Int64) -> Instant { .zero + .seconds(n) }
    private let extension1 = TimeSpan.seconds(1)

    private func leader(_ leases: [(id: Int64, ttl: Int64)] = []) -> LeaseTable {
        var table = LeaseTable()
        table.promote(now: .zero, extension: extension1)
        for lease in leases { _ = try! table.grant(LeaseID(lease.id), ttlSeconds: lease.ttl, minimumTTLSeconds: 2, now: .zero) }
        return table
    }

    // MARK: grant, revoke, attach

    /// etcd-api.md A.9 and §6.1.
    @Test func grantedTimeFollowsTheRulesOfTheAPI() throws {
        var table = LeaseTable()
        for (id, ttl) in [(1, 1), (2, 0), (3, -10), (-3, 2)] as [(Int64, Int64)] {
            #expect(try table.grant(LeaseID(id), ttlSeconds: ttl, minimumTTLSeconds: 2, now: .zero) == 2)
        }
        #expect(try table.grant(LeaseID(4), ttlSeconds: 9_000_000_000, minimumTTLSeconds: 2, now: .zero) == 9_000_000_000)
        #expect(throws: ServiceError.leaseTTLTooLarge) {
            try table.grant(LeaseID(5), ttlSeconds: 9_000_000_001, minimumTTLSeconds: 2, now: .zero)
        }
        #expect(throws: ServiceError.leaseExist) { try table.grant(LeaseID(1), ttlSeconds: 5, minimumTTLSeconds: 2, now: .zero) }
        #expect(table.ids.map(\.rawValue) == [-3, 1, 2, 3, 4])
    }

    @Test func minimumTimeIsOneAndAHalfElectionTimeoutsInWholeSeconds() {
        func minimum(_ election: Int64, _ heartbeat: Int64) -> Int64 {
            LeaseTable.minimumTTLSeconds(electionTimeout: .milliseconds(election), heartbeatInterval: .milliseconds(heartbeat))
        }
        #expect(minimum(1_000, 100) == 2)
        #expect(minimum(500, 100) == 1)
        #expect(minimum(2_000, 100) == 3)
        #expect(minimum(10_000, 1_000) == 15)
    }

    @Test func revokeReturnsTheAttachedKeysInOrderAndForgetsThem() throws {
        var table = leader([(1, 10), (2, 10)])
        for key in ["c", "a", "b", "d"] { table.attach(Key(key), to: LeaseID(1)) }
        table.attach(Key("b"), to: LeaseID(2))
        table.detach(Key("d"))
        table.detach(Key("unknown"))
        #expect(table.keys(of: LeaseID(1)) == [Key("a"), Key("c")])
        #expect(table.lease(of: Key("b")) == LeaseID(2) && table.lease(of: Key("d")) == .none)
        #expect(try table.revoke(LeaseID(1)) == [Key("a"), Key("c")])
        #expect(table.lease(of: Key("a")) == .none)
        #expect(throws: ServiceError.leaseNotFound) { try table.revoke(LeaseID(1)) }
        #expect(table.attach(Key("x"), to: LeaseID(1)) == false)
        #expect(table.lease(of: Key("x")) == .none)
        #expect(table.attachedKeyCount == 1)
    }

    @Test func tableFollowsTheStoresEvents() {
        var table = leader([(1, 10), (2, 10)])
        func event(_ kind: StoreEvent.Kind, _ key: String, _ lease: Int64) -> StoreEvent {
            StoreEvent(kind: kind, key: Key(key), change: ChangeID(main: Revision(2), sub: 0), kv: [], isCreate: false, lease: LeaseID(lease))
        }
        table.follow([event(.put, "a", 1), event(.put, "b", 1), event(.put, "c", 1), event(.put, "d", 1)])
        table.follow([event(.put, "a", 2), event(.put, "b", 0), event(.delete, "c", 0)])
        #expect(table.keys(of: LeaseID(1)) == [Key("d")])
        #expect(table.keys(of: LeaseID(2)) == [Key("a")])
    }

    // MARK: the clock

    @Test func leaseIsNamedAtItsExpiryAndNotBefore() {
        var table = leader([(1, 5), (2, 3)])
        #expect(table.nextExpiry() == seconds(3))
        #expect(table.takeExpired(now: Instant(nanoseconds: seconds(3).nanoseconds - 1), max: 9) == [])
        #expect(table.takeExpired(now: seconds(3), max: 9).map(\.id.rawValue) == [2])
        #expect(table.takeExpired(now: seconds(5), max: 9).map(\.id.rawValue) == [1])
        #expect(table.revokingCount == 2)
    }

    @Test func expiredLeasesComeByExpiryAndIDAndNoMoreThanAskedFor() {
        var table = leader([(5, 3), (-1, 3), (3, 2), (4, 3)])
        #expect(table.takeExpired(now: seconds(9), max: 3).map(\.id.rawValue) == [3, -1, 4])
        #expect(table.takeExpired(now: seconds(9), max: 3).map(\.id.rawValue) == [5])
    }

    @Test func renewalPostponesExpiry() {
        var table = leader([(1, 5)])
        #expect(table.renew(LeaseID(1), now: seconds(4)) == .renewed(ttlSeconds: 5, clearsCheckpoint: false))
        #expect(table.remaining(LeaseID(1), now: seconds(6)) == .seconds(3))
        #expect(table.takeExpired(now: seconds(8), max: 9) == [])
        #expect(table.takeExpired(now: seconds(9), max: 9) == [ExpiredLease(id: LeaseID(1), renewalSequence: 1)])
        #expect(table.renew(LeaseID(7), now: seconds(9)) == .unknown)
        #expect(table.remaining(LeaseID(1), now: seconds(60)) == .zero)
        #expect(table.remaining(LeaseID(7), now: seconds(9)) == nil)
    }

    @Test func leaseBeingRevokedCannotBeRenewedAndIsNamedAgainAfterTheRetryTime() {
        var table = leader([(1, 5)])
        #expect(table.takeExpired(now: seconds(5), max: 9).count == 1)
        #expect(table.renew(LeaseID(1), now: seconds(5)) == .revoking)
        #expect(table.nextExpiry() == seconds(12))
        #expect(table.takeExpired(now: seconds(11), max: 9) == [])
        #expect(table.takeExpired(now: seconds(12), max: 9).count == 1)
        #expect(table.revokingCount == 1)
        _ = try? table.revoke(LeaseID(1))
        #expect(table.revokingCount == 0)
        #expect(table.nextExpiry() == nil)
    }

    @Test func droppedRevokeLeavesTheLeaseRenewableAndDue() {
        var table = leader([(1, 5), (2, 5)])
        _ = table.takeExpired(now: seconds(5), max: 9)
        table.revokeDropped(LeaseID(1))
        table.revokeDropped(LeaseID(2))
        table.revokeDropped(LeaseID(3))
        #expect(table.revokingCount == 0)
        #expect(table.renew(LeaseID(1), now: seconds(6)) == .renewed(ttlSeconds: 5, clearsCheckpoint: false))
        #expect(table.takeExpired(now: seconds(6), max: 9).map(\.id.rawValue) == [2])
        #expect(table.nextExpiry() == seconds(11))
    }

    @Test func followerHasLeasesButNoClock() {
        var table = LeaseTable()
        _ = try! table.grant(LeaseID(1), ttlSeconds: 5, minimumTTLSeconds: 2, now: .zero)
        #expect(table.renew(LeaseID(1), now: .zero) == .notPrimary)
        #expect(table.takeExpired(now: .distantFuture, max: 9) == [])
        #expect(table.nextExpiry() == nil)
        #expect(table.remaining(LeaseID(1), now: .zero) == nil)
        #expect(table.idsInListOrder == [LeaseID(1)])
    }

    @Test func promotionGivesEveryLeaseItsWholeTimeAndTheExtension() {
        var table = leader([(1, 5), (2, 3)])
        _ = table.takeExpired(now: seconds(4), max: 9)
        table.demote()
        #expect(table.nextExpiry() == nil)
        table.promote(now: seconds(100), extension: extension1)
        #expect(table.revokingCount == 0)
        #expect(table.remaining(LeaseID(1), now: seconds(100)) == .seconds(6))
        #expect(table.nextExpiry() == seconds(104))
        // The renewal ends the extension: expiry moves to an earlier time.
        #expect(table.renew(LeaseID(2), now: seconds(100)) == .renewed(ttlSeconds: 3, clearsCheckpoint: false))
        #expect(table.nextExpiry() == seconds(103))
        #expect(table.idsInListOrder.map(\.rawValue) == [2, 1])
    }

    @Test func checkpointShortensTheTimeAfterAPromotionAndAsksToBeCleared() {
        var table = leader([(1, 100)])
        #expect(table.checkpoint(LeaseID(1), remainingTTLSeconds: 40) == true)
        #expect(table.checkpoint(LeaseID(2), remainingTTLSeconds: 40) == false)
        table.promote(now: seconds(10), extension: extension1)
        #expect(table.nextExpiry() == seconds(51))
        #expect(table.renew(LeaseID(1), now: seconds(20)) == .renewed(ttlSeconds: 100, clearsCheckpoint: true))
        table.checkpoint(LeaseID(1), remainingTTLSeconds: 0)
        #expect(table.renew(LeaseID(1), now: seconds(20)) == .renewed(ttlSeconds: 100, clearsCheckpoint: false))
    }

    @Test func manyLeasesAreSpreadAfterAPromotion() {
        var table = LeaseTable()
        for id in 1...3_000 { _ = try! table.grant(LeaseID(Int64(id)), ttlSeconds: 10, minimumTTLSeconds: 2, now: .zero) }
        table.promote(now: .zero, extension: .zero)
        #expect(table.takeExpired(now: Instant(nanoseconds: seconds(10).nanoseconds - 1), max: .max) == [])
        var total = 0
        for second in 10...14 {
            let expired = table.takeExpired(now: Instant(nanoseconds: seconds(Int64(second) + 1).nanoseconds - 1), max: .max).count
            #expect(expired <= 750)
            total += expired
        }
        #expect(total == 3_000)
    }

    @Test func shortLivedLeasesDoNotPileUpInTheClock() {
        var table = leader()
        for id in 1...10_000 {
            _ = try! table.grant(LeaseID(Int64(id)), ttlSeconds: 1_000, minimumTTLSeconds: 2, now: .zero)
            _ = try! table.revoke(LeaseID(Int64(id)))
        }
        #expect(table.clock!.heapCount <= 128)
    }

    // MARK: persistence

    @Test func recordIsEtcdsLeaseMessageUnderABigEndianKey() throws {
        var batch = BackendBatch()
        LeaseRecord(id: LeaseID(0x0102), grantedTTLSeconds: 60).add(to: &batch)
        LeaseRecord(id: LeaseID(-2), grantedTTLSeconds: 300, remainingTTLSeconds: 7).add(to: &batch)
        LeaseRecord.addRemoval(of: LeaseID(1), to: &batch)
        let reader = LeaseRows(batch)
        #expect(reader.rows[0].0 == [0, 0, 0, 0, 0, 0, 1, 2] && reader.rows[0].1 == [0x08, 0x82, 2, 0x10, 60])
        #expect(reader.rows[1].0 == [255, 255, 255, 255, 255, 255, 255, 254])
        #expect(reader.deleted == [[0, 0, 0, 0, 0, 0, 0, 1]])
        let table = try LeaseTable.load(from: reader)
        #expect(table.ids.map(\.rawValue) == [-2, 0x0102])
        #expect(table.record(of: LeaseID(-2)) == LeaseRecord(id: LeaseID(-2), grantedTTLSeconds: 300, remainingTTLSeconds: 7))
    }

    @Test func damagedRecordIsReported() {
        var batch = BackendBatch()
        batch.put(.lease, LeaseRecord.key(LeaseID(5)), [0x08, 6, 0x10, 60])
        #expect(throws: StoreLoadError.self) { try LeaseTable.load(from: LeaseRows(batch)) }
        batch = BackendBatch()
        batch.put(.lease, LeaseRecord.key(LeaseID(5)), [0x08])
        #expect(throws: StoreLoadError.self) { try LeaseTable.load(from: LeaseRows(batch)) }
    }

    // MARK: model

    @Test(arguments: [UInt64](1...20))
    func neverEarlyAndNeverForgotten(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        struct Model {
            var ttl: Int64
            /// Nobody may revoke it before this.
            var notBefore: Instant
            var expiry: Instant
            var revoking: Instant?
        }
        var table = leader()
        var model: [Int64: Model] = [:]
        var now = Instant.zero
        var isLeader = true
        var named = 0
        let retry = TimeSpan.seconds(7)
        for step in 0..<1_500 {
            let id = Int64.random(in: -5...5, using: &random)
            func fail(_ text: String) { Issue.record("seed \(seed) step \(step): lease \(id) \(text)") }
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<5:
                let ttl = Int64.random(in: -1...12, using: &random)
                let granted = try? table.grant(LeaseID(id), ttlSeconds: ttl, minimumTTLSeconds: 2, now: now)
                if (granted != nil) != (id != 0 && model[id] == nil) { return fail("granted: \(String(describing: granted))") }
                if let granted {
                    let expiry = now + .seconds(granted)
                    model[id] = Model(ttl: granted, notBefore: expiry, expiry: expiry)
                }
            case 5..<9:
                let renewal = table.renew(LeaseID(id), now: now)
                switch model[id] {
                case _ where !isLeader: if renewal != .notPrimary { return fail("\(renewal) on a follower") }
                case nil: if renewal != .unknown { return fail("\(renewal) though unknown") }
                case let lease? where lease.revoking != nil: if renewal != .revoking { return fail("\(renewal) while revoking") }
                case let lease?:
                    if renewal != .renewed(ttlSeconds: lease.ttl, clearsCheckpoint: false) { return fail("\(renewal)") }
                    model[id]!.expiry = now + .seconds(lease.ttl)
                    model[id]!.notBefore = now + .seconds(lease.ttl)
                }
            case 9..<10:
                if (try? table.revoke(LeaseID(id))) == nil, model[id] != nil { return fail("could not be revoked") }
                model[id] = nil
            case 10..<11:
                if Bool.random(using: &random) {
                    table.demote()
                    isLeader = false
                } else {
                    table.promote(now: now, extension: extension1, retryAfter: retry)
                    isLeader = true
                    for id in model.keys.sorted() {
                        model[id]!.expiry = now + .seconds(model[id]!.ttl) + extension1
                        model[id]!.notBefore = now + .seconds(model[id]!.ttl)
                        model[id]!.revoking = nil
                    }
                }
            case 11..<12:
                table.revokeDropped(LeaseID(id))
                if isLeader { model[id]?.revoking = nil }
            case 12..<16:
                let max = Int.random(in: 0...4, using: &random)
                let got = table.takeExpired(now: now, max: max).map(\.id.rawValue)
                let due = !isLeader ? [] : model.map { (time: $0.value.revoking ?? $0.value.expiry, id: $0.key) }
                    .filter { $0.time <= now }.sorted { ($0.time, $0.id) < ($1.time, $1.id) }.prefix(max).map(\.id)
                if got != due { return fail("named \(got) instead of \(due)") }
                for id in got {
                    if now < model[id]!.notBefore { return fail("named early") }
                    model[id]!.revoking = now + retry
                    named += 1
                    // Most of them are applied at once.
                    if Int.random(in: 0..<3, using: &random) > 0 {
                        _ = try? table.revoke(LeaseID(id))
                        model[id] = nil
                    }
                }
            default: now = now + .milliseconds(Int64.random(in: 0...1_500, using: &random))
            }
            let next = !isLeader ? nil : model.values.map { $0.revoking ?? $0.expiry }.min()
            if table.nextExpiry() != next { return fail("next expiry \(String(describing: table.nextExpiry())) instead of \(String(describing: next))") }
            if table.revokingCount != (isLeader ? model.values.count { $0.revoking != nil } : 0) { return fail("revoking count") }
            if table.ids.map(\.rawValue) != model.keys.sorted() { return fail("ids") }
        }
        #expect(named > 5, "seed \(seed)")
    }
}

/// The lease rows of a batch as a backend shows them, by key.
private final class LeaseRows: BackendReader {
    private(set) var rows: [([UInt8], [UInt8])] = []
    private(set) var deleted: [[UInt8]] = []

    init(_ batch: BackendBatch) {
        for change in batch.changes {
            switch change {
            case .put(.lease, let key, let value): rows.append((key, value))
            case .delete(.lease, let key): deleted.append(key)
            default: break
            }
        }
        rows.sort { compareBytes($0.0, $1.0) < 0 }
    }
    func refresh() throws(BackendError) {}
    func release() {}
    func get<R>(_ table: Table, _ key: [UInt8], _ body: (UnsafeRawBufferPointer) -> R) throws(BackendError) -> R? { nil }
    func scan(_ table: Table, from: [UInt8], _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Bool) throws(BackendError) {
        guard table == .lease else { return }
        for (key, value) in rows {
            if !key.withUnsafeBytes({ k in value.withUnsafeBytes { body(k, $0) } }) { return }
        }
    }
}
