import Auth
import Base

/// Judges what the clients of one run saw, as it comes in, against the truth of the log. Drops what is judged, so that a run of any length fits
/// in memory.
struct HistoryJudge {
    private(set) var truth = TruthModel()
    private var clients = ClientHistoryChecker()
    private var leases: LeaseChecker?
    private var permissions = PermissionChecker()
    /// Of the watches that are closed.
    private var unverifiableWatched = 0
    /// One of them.
    private var unverifiableWatch = ""

    /// - Parameters:
    ///   - clockDrift: how much faster or slower than true time a node's clock may run; nil: clocks leap, so that no lease is judged for its length.
    ///   - overdueBound: how long past its time a lease may live under a stable leader.
    init(clockDrift: Double?, overdueBound: Moment) {
        // Two clocks differ by up to twice the drift of one: a lease outlives its leader.
        leases = clockDrift.map { LeaseChecker(.init(driftBound: $0, overdueBound: overdueBound)) }
    }

    mutating func committed(_ index: UInt64, _ entry: Ledger.Version, at: Moment) -> Violation? {
        let result = truth.apply(index: index, term: entry.term, kind: entry.kind, payload: entry.payload, at: at)
        if case .undecodable(let reason) = result.effect { return Violation("apply", "entry \(index) cannot be decoded: \(reason)") }
        permissions.follow(truth, at: at)
        return leases?.follow(result, at: at).first
    }

    mutating func finished(_ operation: Operation) -> Violation? {
        clients.check(operation, truth: truth.history).first ?? leases?.check(operation).first ?? permissions.check(operation)
    }

    mutating func received(_ message: WatchRecord.Message, by checker: inout WatchChecker, from identity: Identity?, at: Moment) -> Violation? {
        if case .created(let revision) = message, let violation = permissions.created(checker.request, by: identity, revision: revision, at: at) { return violation }
        if let violation = checker.receive(message, at: at, truth: truth.history).first { return violation }
        clients.observe(revision: WatchChecker.shownRevision(message), at: at)
        return nil
    }

    mutating func closed(_ checker: inout WatchChecker, mustBeComplete: Bool) -> Violation? {
        let violation = checker.finish(truth: truth.history, mustBeComplete: mustBeComplete).first
        unverifiableWatched += checker.unverifiable
        if checker.unverifiable > 0 { unverifiableWatch = "from \(checker.request.startRevision), opened at \(seconds(checker.request.openedAt)), floor \(truth.history.floor)" }
        return violation
    }

    /// What a member shows of its accounts, against what the log made of them.
    func compare(_ accounts: AuthStore) -> Violation? { permissions.compare(accounts) }
    func compare(_ member: MemberID, _ seen: SimulatedNode.Seen) -> Violation? {
        permissions.compare(member, applied: seen.applied, revision: seen.authRevision, isEnabled: seen.isAuthEnabled)
    }
    func issued(to user: [UInt8], index: UInt64) -> Violation? { permissions.issued(to: user, index: index, truth) }

    /// The cluster has had one leader since `moment`, or none for sure.
    mutating func setStable(since moment: Moment?) { leases?.stableSince = moment }

    /// Looks at what is compared only now and then, and forgets.
    /// - Parameters:
    ///   - oldest: no call that is still under way began before.
    ///   - needed: the lowest revision that a watch or a member may still show to somebody.
    mutating func checkpoint(oldest: Moment, needed: Int64, at: Moment) -> Violation? {
        if let violation = leases?.checkOverdue(at: at).first { return violation }
        let floor = min(clients.floor(startedBefore: oldest, truth: truth.history), needed) - ClientWorld.oldestRead
        guard floor > 1 else { return nil }
        if let violation = clients.forget(startedBefore: oldest, floor: floor, truth: truth.history).first { return violation }
        leases?.forget(startedBefore: oldest)
        permissions.forget(startedBefore: oldest, floor: floor)
        truth.forget(below: floor)
        return nil
    }

    /// Nothing is under way any more: everything must be explained.
    /// - Parameter knowsPast: false when members joined with nothing, and showed revisions on their way that nobody remembers any more.
    mutating func finish(knowsPast: Bool) -> Violation? {
        if let violation = clients.finish(truth: truth.history).first { return violation }
        guard knowsPast, clients.unverifiable + unverifiableWatched > 0 else { return nil }
        return Violation("simulator", "\(clients.unverifiable) revisions of calls and \(unverifiableWatched) of watches (the last one \(unverifiableWatch)) were forgotten before they were judged")
    }
}
