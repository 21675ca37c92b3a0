import Base

/// Judges what the clients of one run saw, as it comes in, against the truth of the log. Drops what is judged, so that a run of any length fits
/// in memory.
struct HistoryJudge {
    private(set) var truth = TruthModel()
    private var clients = ClientHistoryChecker()
    private var leases: LeaseChecker?

    /// - Parameters:
    ///   - clockDrift: how much faster or slower than true time a node's clock may run; nil: clocks leap, so that no lease is judged for its length.
    ///   - overdueBound: how long past its time a lease may live under a stable leader.
    init(clockDrift: Double?, overdueBound: Moment) {
        // Two clocks differ by up to twice the drift of one: a lease outlives its leader.
        leases = clockDrift.map { LeaseChecker(.init(driftBound: $0, overdueBound: overdueBound)) }
    }

    /// Revisions that could not be judged because they were forgotten too early: a fault of the simulator.
    var unverifiable: Int { clients.unverifiable }

    mutating func committed(_ index: UInt64, _ entry: Ledger.Version, at: Moment) -> Violation? {
        let result = truth.apply(index: index, term: entry.term, kind: entry.kind, payload: entry.payload, at: at)
        if case .undecodable(let reason) = result.effect { return Violation("apply", "entry \(index) cannot be decoded: \(reason)") }
        return leases?.follow(result, at: at).first
    }

    mutating func finished(_ operation: Operation) -> Violation? {
        clients.check(operation, truth: truth.history).first ?? leases?.check(operation).first
    }

    mutating func received(_ message: WatchRecord.Message, by checker: inout WatchChecker, at: Moment) -> Violation? {
        if let violation = checker.receive(message, at: at, truth: truth.history).first { return violation }
        clients.observe(revision: WatchChecker.shownRevision(message), at: at)
        return nil
    }

    func closed(_ checker: inout WatchChecker, mustBeComplete: Bool) -> Violation? {
        checker.finish(truth: truth.history, mustBeComplete: mustBeComplete).first
    }

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
        truth.forget(below: floor)
        return nil
    }

    /// Nothing is under way any more: everything must be explained.
    mutating func finish() -> Violation? {
        if let violation = clients.finish(truth: truth.history).first { return violation }
        return clients.unverifiable == 0 ? nil : Violation("simulator", "\(clients.unverifiable) revisions were forgotten before they were judged")
    }
}
