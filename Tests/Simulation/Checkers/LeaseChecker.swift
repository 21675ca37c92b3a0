import Base

/// Leases in true time. Promises:
/// - a lease never expires before its time since the start of the last renewal (or grant) that was acknowledged with time left;
/// - a renewal, a put or anything else that finds the lease alive does not begin after its end was acknowledged to anyone;
/// - a lease that lives through a whole call is not denied in it;
/// - under a stable leader a lease is gone at last a bound after its time. (reliability.md §5.4 numbers 15, 16)
///
/// Demands on the workload: a lease id is used for one lease only. Memory: the leases that live, and the ended ones until `forget`.
public struct LeaseChecker: Sendable {
    public struct Options: Sendable {
        /// How much faster (never early) or slower (never overdue) than true time the clocks of members may run: 0.05 for 5 %.
        public var driftBound: Double
        /// How long past its time a lease may live under a stable leader: scan period, proposal, extension after an election.
        public var overdueBound: Moment
        /// The moments of ends are exact. False for real processes, where an end is seen later than it happens: denials are not judged then.
        public var trustsMoments: Bool
        public init(driftBound: Double = 0.05, overdueBound: Moment, trustsMoments: Bool = true) {
            precondition(driftBound >= 0 && driftBound < 1, "drift bound of \(driftBound)")
            self.driftBound = driftBound
            self.overdueBound = overdueBound
            self.trustsMoments = trustsMoments
        }
    }

    private struct Lease {
        var ttlSeconds: Int64
        /// The earliest moment at which it may expire.
        var aliveUntil: Moment
        /// No acknowledged or possible renewal was effective later.
        var lastPossibleRenewal: Moment
        /// Its grant was acknowledged to a client, at this moment.
        var grantAcknowledged: Moment?
        /// The first application of its end, and how.
        var ended: Moment?
        var hasExpired = false
        /// The first moment at which someone was told of its end.
        var endAcknowledged: Moment?
    }

    public var options: Options
    /// Since when the cluster has had one leader that reaches a quorum; nil: it has none, or not for sure. The caller keeps it up to date;
    /// only the overdue check looks at it.
    public var stableSince: Moment?
    private var leases: [Int64: Lease] = [:]
    /// The ids of `leases`, ascending: what is walked.
    private var ids: [Int64] = []

    public init(_ options: Options) { self.options = options }

    public var count: Int { ids.count }

    private func least(_ ttlSeconds: Int64) -> Moment { Moment(Double(ttlSeconds) * 1e9 * (1 - options.driftBound)) }
    private func most(_ ttlSeconds: Int64) -> Moment { Moment(Double(ttlSeconds) * 1e9 / (1 - options.driftBound)) + options.overdueBound }

    // MARK: The truth

    /// Follows what a command did, at the moment of its first application.
    public mutating func follow(_ result: TruthModel.Result, at: Moment) -> [Violation] {
        switch result.effect {
        case .granted(let lease, let ttlSeconds): granted(lease, ttlSeconds: ttlSeconds, at: at)
        case .revoked(let lease, _): return ended(lease, byExpiry: false, at: at)
        case .expired(let lease, _): return ended(lease, byExpiry: true, at: at)
        default: break
        }
        return []
    }

    /// The lease was granted at `at`, first application.
    public mutating func granted(_ lease: Int64, ttlSeconds: Int64, at: Moment) {
        guard leases[lease] == nil else { return }
        // Its clock starts when the leader applies the grant: not before anyone did.
        leases[lease] = Lease(ttlSeconds: ttlSeconds, aliveUntil: at + least(ttlSeconds), lastPossibleRenewal: at)
        ids.insert(lease, at: position(of: lease))
    }

    /// The lease ended at `at`, first application.
    public mutating func ended(_ id: Int64, byExpiry: Bool, at: Moment) -> [Violation] {
        guard let lease = leases[id], lease.ended == nil else { return [] }
        leases[id]!.ended = at
        leases[id]!.hasExpired = byExpiry
        guard byExpiry else { return [] }
        var violations: [Violation] = []
        if at < lease.aliveUntil {
            violations.append(Violation("lease-early", "lease \(id) of \(lease.ttlSeconds) s expired at \(at), \(lease.aliveUntil - at) ns before its time"))
        }
        if let overdue = overdue(id, lease, at: at) { violations.append(overdue) }
        return violations
    }

    // MARK: The clients

    /// Checks one completed call, in the order of ends. Calls that do not touch leases are ignored.
    public mutating func check(_ operation: Operation) -> [Violation] {
        switch (operation.call, operation.outcome) {
        case (.leaseGrant(let id, let asked), .lease(_, let ttl)):
            var violations: [Violation] = []
            if ttl < asked { violations.append(Violation("lease-time", "\(describe(operation)) was granted \(ttl) s")) }
            if leases[id] == nil {
                // Where nobody tells what was applied, the acknowledgement does.
                leases[id] = Lease(ttlSeconds: ttl, aliveUntil: .min, lastPossibleRenewal: operation.end)
                ids.insert(id, at: position(of: id))
            }
            if leases[id]!.ttlSeconds != ttl {
                violations.append(Violation("lease-time", "\(describe(operation)) was granted \(ttl) s, the lease has \(leases[id]!.ttlSeconds)"))
            }
            leases[id]!.grantAcknowledged = min(leases[id]!.grantAcknowledged ?? .max, operation.end)
            return violations + renewed(id, ttl, operation)
        case (.leaseKeepAlive(let id), .lease(_, let ttl)):
            if ttl > 0 { return renewed(id, ttl, operation) + alive(id, operation) }
            return gone(id, operation)
        case (.leaseKeepAlive(let id), .unknown):
            // It may be on its way for a while; the overdue check has a bound for that.
            if let lease = leases[id] { leases[id]!.lastPossibleRenewal = max(lease.lastPossibleRenewal, operation.end) }
            return []
        case (.leaseRevoke(let id), .done), (.leaseRevoke(let id), .lease):
            return gone(id, operation)
        case (.leaseRevoke(let id), .refused(let text)) where text.contains(ServiceError.leaseNotFound.message):
            return gone(id, operation)
        case (.put(_, _, let id), .done) where id != 0:
            return alive(id, operation)
        case (.put(_, _, let id), .refused(let text)) where id != 0 && text.contains(ServiceError.leaseNotFound.message):
            return gone(id, operation)
        default:
            return []
        }
    }

    /// Looks for leases that should have been gone by now; O(leases). For checkpoints, with `stableSince` set.
    public func checkOverdue(at now: Moment) -> [Violation] {
        guard stableSince != nil else { return [] }
        return ids.compactMap { id in
            guard let lease = leases[id], lease.ended == nil else { return nil }
            return overdue(id, lease, at: now)
        }
    }

    /// Drops leases that ended before `moment`: no call still to be fed started before it. Ids are never used again.
    public mutating func forget(startedBefore moment: Moment) {
        ids.removeAll { id in
            // An end that nobody was told of yet is kept: the first telling makes later renewals wrong.
            guard let lease = leases[id], let ended = lease.ended, ended < moment, lease.endAcknowledged.map({ $0 < moment }) ?? (moment - ended > 60_000_000_000) else { return false }
            leases[id] = nil
            return true
        }
    }

    // MARK: Inside

    private func position(of id: Int64) -> Int {
        var low = 0
        var high = ids.count
        while low < high {
            let middle = (low + high) / 2
            if ids[middle] < id { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func overdue(_ id: Int64, _ lease: Lease, at: Moment) -> Violation? {
        guard let stableSince else { return nil }
        let last = max(lease.lastPossibleRenewal, stableSince) + most(lease.ttlSeconds)
        guard at > last else { return nil }
        return Violation("lease-overdue", "lease \(id) of \(lease.ttlSeconds) s lived until \(at) at least, \(at - last) ns past its time and bound")
    }

    /// A grant or renewal was acknowledged with time left: it was effective at some moment from its start on.
    private mutating func renewed(_ id: Int64, _ ttlSeconds: Int64, _ operation: Operation) -> [Violation] {
        guard let lease = leases[id] else { return [] }
        let until = operation.start + least(ttlSeconds)
        leases[id]!.aliveUntil = max(lease.aliveUntil, until)
        leases[id]!.lastPossibleRenewal = max(lease.lastPossibleRenewal, operation.end)
        guard let ended = lease.ended, lease.hasExpired, operation.start <= ended, ended < until else { return [] }
        return [Violation("lease-early", "lease \(id) of \(ttlSeconds) s expired at \(ended), \(until - ended) ns too early for \(describe(operation))")]
    }

    /// The lease was found alive by a call: its end was acknowledged to nobody before the call began.
    private func alive(_ id: Int64, _ operation: Operation) -> [Violation] {
        guard let told = leases[id]?.endAcknowledged, told < operation.start else { return [] }
        return [Violation("lease-revived", "\(describe(operation)) found the lease alive, its end was acknowledged at \(told)")]
    }

    /// The lease was found gone by a call.
    private mutating func gone(_ id: Int64, _ operation: Operation) -> [Violation] {
        guard let lease = leases[id] else { return [] }
        // Before the acknowledgement of its grant it may rightly not be there yet.
        guard let granted = lease.grantAcknowledged, granted < operation.start else { return [] }
        acknowledgeEnd(id, operation.end)
        if options.trustsMoments, lease.ended.map({ $0 > operation.end }) ?? true {
            return [Violation("lease-denied", "\(describe(operation)) did not find the lease, which lives\(lease.ended.map { " until \($0)" } ?? "")")]
        }
        return []
    }

    private mutating func acknowledgeEnd(_ id: Int64, _ at: Moment) {
        guard let lease = leases[id] else { return }
        leases[id]!.endAcknowledged = min(lease.endAcknowledged ?? .max, at)
    }
}
