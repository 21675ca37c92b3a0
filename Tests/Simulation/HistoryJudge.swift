import Base

/// Judges what the clients of one run saw, as it comes in, against the truth of the log.
struct HistoryJudge {
    /// How much faster than true time a node's clock may run, in per mille; nil: clocks leap, so that no lease is judged for its length.
    let leaseDriftPerMille: Int64?

    init(leaseDriftPerMille: Int64?) { self.leaseDriftPerMille = leaseDriftPerMille }

    mutating func finished(_ operation: Operation, _ truth: TruthModel) -> Violation? { nil }
    mutating func committed(_ truth: TruthModel, at: Moment) -> Violation? { nil }
    mutating func leaseExpired(_ lease: Int64, at: Moment) -> Violation? { nil }
    mutating func closed(_ record: WatchRecord, _ truth: TruthModel) -> Violation? { nil }
}
