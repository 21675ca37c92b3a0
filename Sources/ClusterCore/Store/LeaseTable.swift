import Base

/// The cluster's leases on one member. Confined to the replica loop.
///
/// Two parts that never mix. The *replicated* part (id, granted time, attached keys) changes only by applied entries and is
/// equal on every member. The *clock* exists only on a promoted leader and decides nothing but when to propose a revoke;
/// no applied entry may depend on it. A lease may live longer than its time, never shorter. (etcd-api.md §6)
public struct LeaseTable: Sendable {
    /// The longest time to live that may be asked for, in seconds. (etcd MaxLeaseTTL)
    public static let maxTTLSeconds: Int64 = 9_000_000_000

    private struct Entry {
        var record: LeaseRecord
        var keys: Set<Key> = []
    }
    // Neither is walked without sorting.
    private var entries: [LeaseID: Entry] = [:]
    private var leaseOfKey: [Key: LeaseID] = [:]
    /// Nil on every member but a promoted leader.
    var clock: LeaseClock?

    public init() {}

    // MARK: what every member knows

    public var count: Int { entries.count }
    /// Keys attached to some lease.
    public var attachedKeyCount: Int { leaseOfKey.count }
    public func contains(_ id: LeaseID) -> Bool { entries[id] != nil }
    public func record(of id: LeaseID) -> LeaseRecord? { entries[id]?.record }
    /// `.none` when the key hangs on no lease.
    public func lease(of key: Key) -> LeaseID { leaseOfKey[key] ?? .none }

    /// The attached keys in ascending order; empty for an unknown lease.
    public func keys(of id: LeaseID) -> [Key] { entries[id].map { $0.keys.sorted() } ?? [] }

    /// Every lease, by id.
    public var ids: [LeaseID] { entries.keys.sorted() }

    /// Every lease as `LeaseLeases` lists them: on a leader by expiry, elsewhere by id.
    public var idsInListOrder: [LeaseID] {
        guard let clock else { return ids }
        return ids.map { (clock.expiry(of: $0) ?? .distantFuture, $0) }.sorted { $0 < $1 }.map { $0.1 }
    }

    // MARK: applied entries

    /// The least time to live, in whole seconds: one and a half election timeouts, rounded up. 2 with etcd's defaults.
    public static func minimumTTLSeconds(electionTimeout: TimeSpan, heartbeatInterval: TimeSpan) -> Int64 {
        precondition(heartbeatInterval > .zero, "heartbeat interval of \(heartbeatInterval.nanoseconds) ns")
        let electionTicks = electionTimeout.nanoseconds / heartbeatInterval.nanoseconds
        let minimum = heartbeatInterval * (3 * electionTicks / 2)
        return (minimum.nanoseconds + 999_999_999) / 1_000_000_000
    }

    /// What a request for `requested` seconds gets: at least `minimum`; zero and negative numbers are raised too.
    public static func effectiveTTLSeconds(requested: Int64, minimum: Int64) throws(ServiceError) -> Int64 {
        guard requested <= maxTTLSeconds else { throw .leaseTTLTooLarge }
        return max(requested, minimum)
    }

    /// Grants the lease and returns its effective time to live in seconds. `minimumTTLSeconds` must be the same on every
    /// member that applies the entry. `now` matters on a promoted leader only. The caller has picked an id: 0 is refused.
    public mutating func grant(
        _ id: LeaseID, ttlSeconds: Int64, minimumTTLSeconds: Int64, now: Instant
    ) throws(ServiceError) -> Int64 {
        guard id != .none else { throw .leaseNotFound }
        let effective = try LeaseTable.effectiveTTLSeconds(requested: ttlSeconds, minimum: minimumTTLSeconds)
        guard entries[id] == nil else { throw .leaseExist }
        entries[id] = Entry(record: LeaseRecord(id: id, grantedTTLSeconds: effective))
        clock?.start(id, expiry: now + .seconds(effective))
        return effective
    }

    /// Removes the lease and returns the keys that hung on it, ascending; the caller deletes them in one revision.
    public mutating func revoke(_ id: LeaseID) throws(ServiceError) -> [Key] {
        guard let entry = entries.removeValue(forKey: id) else { throw .leaseNotFound }
        for key in entry.keys { leaseOfKey[key] = nil }
        clock?.stop(id)
        return entry.keys.sorted()
    }

    /// Hangs the key on the lease, off its former one. False, without an effect, when the lease does not exist: a put that
    /// names it was refused, and what a restored store names may be gone.
    @discardableResult
    public mutating func attach(_ key: Key, to id: LeaseID) -> Bool {
        guard entries[id] != nil else { return false }
        if let old = leaseOfKey.updateValue(id, forKey: key) {
            if old == id { return true }
            entries[old]!.keys.remove(key)
        }
        entries[id]!.keys.insert(key)
        return true
    }

    public mutating func detach(_ key: Key) {
        guard let id = leaseOfKey.removeValue(forKey: key) else { return }
        entries[id]!.keys.remove(key)
    }

    /// Follows the store: a put attaches to the lease it names or detaches, a delete detaches.
    public mutating func follow(_ events: [StoreEvent]) {
        for event in events {
            if event.lease != .none {
                attach(event.key, to: event.lease)
            } else if !leaseOfKey.isEmpty {
                detach(event.key)
            }
        }
    }

    /// A replicated checkpoint of the rest of a lease's time; 0 takes an earlier one back. False when the lease is gone.
    @discardableResult
    public mutating func checkpoint(_ id: LeaseID, remainingTTLSeconds: Int64) -> Bool {
        guard entries[id] != nil else { return false }
        entries[id]!.record.remainingTTLSeconds = remainingTTLSeconds
        return true
    }

    /// A lease from the backend.
    mutating func restore(_ record: LeaseRecord) {
        entries[record.id] = Entry(record: record)
    }
}
