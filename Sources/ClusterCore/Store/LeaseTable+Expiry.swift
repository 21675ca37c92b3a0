import Base

/// A lease whose time is up. The revoke to propose names the leader's term; see `LeaseTable.renewalSequence`.
public struct ExpiredLease: Hashable, Sendable {
    public var id: LeaseID
    public var renewalSequence: UInt64
}

/// The answer to a keepalive.
public enum LeaseRenewal: Hashable, Sendable {
    /// Extended to now + granted time. `clearsCheckpoint`: a checkpointed rest is on record, and the keepalive may only be
    /// answered once an applied checkpoint of 0 took it back; otherwise the next leader would expire the lease early.
    case renewed(ttlSeconds: Int64, clearsCheckpoint: Bool)
    /// Answer TTL 0.
    case unknown
    /// Its revoke is on the way and may or may not be applied: answer when the outcome is known.
    case revoking
    /// This member is no promoted leader.
    case notPrimary
}

extension LeaseTable {
    /// Expiries due within a second after a promotion, at most; see `promote`. (etcd: three quarters of 1000 a second)
    static let spreadPerSecond: Int64 = 750
    static let spreadFromCount = 1_000

    public var isPrimary: Bool { clock != nil }

    /// This member leads and has applied everything of earlier terms. Every lease gets its whole time (or its checkpointed
    /// rest) and `extension` (the election timeout) from now on, since nobody knows when it was last renewed.
    /// With 1000 leases or more, later expiries are pushed back so that at most 750 fall into a second.
    /// - Parameter retryAfter: how long a proposed revoke may take before `takeExpired` names the lease again.
    public mutating func promote(now: Instant, extension: TimeSpan, retryAfter: TimeSpan = .seconds(7)) {
        var starts: [(expiry: Instant, id: LeaseID)] = []
        for id in ids {
            let record = record(of: id)!
            let rest = record.remainingTTLSeconds > 0 ? record.remainingTTLSeconds : record.grantedTTLSeconds
            starts.append((now + (planted(.newLeaderForgetsTimes) ? .seconds(1) : .seconds(rest)) + `extension`, id))
        }
        if starts.count >= LeaseTable.spreadFromCount {
            starts.sort { $0 < $1 }
            let gap = TimeSpan(nanoseconds: 1_000_000_000 / LeaseTable.spreadPerSecond + 1)
            for at in 1..<starts.count { starts[at].expiry = max(starts[at].expiry, starts[at - 1].expiry + gap) }
        }
        var clock = LeaseClock(retryAfter: retryAfter)
        for start in starts { clock.start(start.id, expiry: start.expiry) }
        self.clock = clock
    }

    /// No longer leader: the clock is forgotten, the leases stay.
    public mutating func demote() { clock = nil }

    /// A keepalive, on a leader whose leadership was confirmed after the request arrived.
    public mutating func renew(_ id: LeaseID, now: Instant) -> LeaseRenewal {
        guard clock != nil else { return .notPrimary }
        guard let record = record(of: id) else { return .unknown }
        guard clock!.renew(id, expiry: now + .seconds(record.grantedTTLSeconds)) else { return .revoking }
        return .renewed(ttlSeconds: record.grantedTTLSeconds, clearsCheckpoint: record.remainingTTLSeconds > 0)
    }

    /// What is left until expiry, zero at the least; nil for an unknown lease or on a member that is no promoted leader.
    public func remaining(_ id: LeaseID, now: Instant) -> TimeSpan? {
        guard let expiry = clock?.expiry(of: id) else { return nil }
        return max(expiry - now, .zero)
    }

    /// Up to `max` leases whose time is up, by due time and id, to propose revokes for. They count as being revoked from now
    /// on: keepalives wait, and the lease is named again after `retryAfter` if it still exists then.
    public mutating func takeExpired(now: Instant, max: Int) -> [ExpiredLease] {
        guard clock != nil else { return [] }
        return clock!.takeExpired(now: now, max: max)
    }

    /// The proposed revoke never entered the log: the lease is open for renewal again, or is named by the next
    /// `takeExpired`. Not for a proposal whose fate is merely unknown.
    public mutating func revokeDropped(_ id: LeaseID) { clock?.revokeDropped(id) }

    /// Leases whose revoke is proposed and not yet applied.
    public var revokingCount: Int { clock?.revokingCount ?? 0 }

    /// When `takeExpired` has something to do next; nil on a member that is no promoted leader or without leases.
    public mutating func nextExpiry() -> Instant? { clock?.nextDue() }

    /// How often the lease was renewed under this leadership. Followers do not know it, so apply must not look at it: it is
    /// for the leader alone, to drop a revoke before it is appended when a renewal came first. The protection at apply is
    /// the term in the proposal. Nil for an unknown lease or on a member that is no promoted leader.
    public func renewalSequence(_ id: LeaseID) -> UInt64? { clock?.renewals(of: id) }
}

/// The expiry clock of a promoted leader.
///
/// Every lease has one valid entry in a heap, at or before its due time. A renewal only notes the later expiry; the entry
/// is moved when it surfaces. So a renewal costs one dictionary access however many leases there are.
struct LeaseClock: Sendable {
    private struct State {
        var expiry: Instant
        /// Set while a revoke is proposed: when to name the lease again.
        var retryAt: Instant?
        var renewals: UInt64 = 0
        /// The time of the valid heap entry, and its number: entries with another number are leftovers.
        var queuedAt: Instant
        var entry: UInt64
        var due: Instant { retryAt ?? expiry }
    }

    private struct Due: Comparable {
        var time: Instant
        var id: LeaseID
        var entry: UInt64
        static func < (a: Due, b: Due) -> Bool {
            a.time != b.time ? a.time < b.time : a.id != b.id ? a.id < b.id : a.entry < b.entry
        }
    }

    private let retryAfter: TimeSpan
    /// Looked up, never walked.
    private var states: [LeaseID: State] = [:]
    private var heap: [Due] = []
    private var entriesMade: UInt64 = 0
    private(set) var revokingCount = 0

    init(retryAfter: TimeSpan) { self.retryAfter = retryAfter }

    /// For tests.
    var heapCount: Int { heap.count }

    func expiry(of id: LeaseID) -> Instant? { states[id]?.expiry }
    func renewals(of id: LeaseID) -> UInt64? { states[id]?.renewals }

    mutating func start(_ id: LeaseID, expiry: Instant) {
        states[id] = State(expiry: expiry, queuedAt: expiry, entry: 0)
        enqueue(id, at: expiry)
    }

    mutating func stop(_ id: LeaseID) {
        guard let state = states.removeValue(forKey: id) else { return }
        if state.retryAt != nil { revokingCount -= 1 }
        dropLeftovers()
    }

    /// False when a revoke is proposed.
    mutating func renew(_ id: LeaseID, expiry: Instant) -> Bool {
        guard var state = states[id] else { preconditionFailure("lease \(id.rawValue) has no clock") }
        guard state.retryAt == nil || planted(.renewsLeasesBeingRevoked) else { return false }
        state.expiry = expiry
        state.renewals += 1
        states[id] = state
        // Earlier than before only after a promotion, which had added the extension.
        if expiry < state.queuedAt { enqueue(id, at: expiry) }
        return true
    }

    mutating func revokeDropped(_ id: LeaseID) {
        // Legal when the lease is gone: a client's revoke was faster.
        guard let state = states[id], state.retryAt != nil else { return }
        revokingCount -= 1
        states[id]!.retryAt = nil
        if state.expiry < state.queuedAt { enqueue(id, at: state.expiry) }
    }

    mutating func takeExpired(now: Instant, max: Int) -> [ExpiredLease] {
        var result: [ExpiredLease] = []
        while result.count < max, let due = nextDue(), due <= now {
            let id = heap[0].id
            guard let state = states[id] else { preconditionFailure("lease \(id.rawValue) has no clock") }
            if state.retryAt == nil { revokingCount += 1 }
            states[id]!.retryAt = now + retryAfter
            _ = popFirst()
            enqueue(id, at: now + retryAfter)
            result.append(ExpiredLease(id: id, renewalSequence: state.renewals))
        }
        return result
    }

    /// The earliest due time; brings the top of the heap up to date.
    mutating func nextDue() -> Instant? {
        while let first = heap.first {
            guard let state = states[first.id], state.entry == first.entry else {
                _ = popFirst()
                continue
            }
            if state.due == first.time { return first.time }
            _ = popFirst()
            enqueue(first.id, at: state.due)
        }
        return nil
    }

    /// Gives the lease its valid heap entry; an earlier one becomes a leftover.
    private mutating func enqueue(_ id: LeaseID, at time: Instant) {
        entriesMade += 1
        states[id]!.queuedAt = time
        states[id]!.entry = entriesMade
        push(Due(time: time, id: id, entry: entriesMade))
    }

    /// Leases that come and go long before they expire would leave their heap entries behind for ever: rebuilds the heap
    /// when most of it is leftovers.
    private mutating func dropLeftovers() {
        guard heap.count > 64, heap.count > 2 * states.count else { return }
        heap = heap.filter { states[$0.id]?.entry == $0.entry }.sorted()
    }

    // MARK: binary heap

    private mutating func push(_ due: Due) {
        heap.append(due)
        var at = heap.count - 1
        while at > 0, heap[at] < heap[(at - 1) / 2] {
            heap.swapAt(at, (at - 1) / 2)
            at = (at - 1) / 2
        }
    }

    private mutating func popFirst() -> Due? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        guard !heap.isEmpty else { return first }
        heap[0] = last
        var at = 0
        while true {
            var least = at
            for child in [2 * at + 1, 2 * at + 2] where child < heap.count && heap[child] < heap[least] { least = child }
            if least == at { return first }
            heap.swapAt(at, least)
            at = least
        }
    }
}
