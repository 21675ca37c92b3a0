import Base
import Synchronization

/// The stages of a request's way through a member. Raw values are those of the Observer service.
public enum Stage: Int, CaseIterable, Sendable {
    /// From the client's connection until consensus took it.
    case queue = 0
    /// Log write and fsync; one record a write.
    case logWrite = 1
    /// From sending entries to a follower until it has them on its disk; one record an entry and follower.
    case replicate = 2
    /// From proposing until a quorum has it; one record an entry.
    case quorumWait = 3
    /// From commit until applied and answered; one record an entry.
    case apply = 4
    /// One record a commit.
    case backendCommit = 5
}

/// Counts by latency, in buckets four to a doubling.
public struct StageHistogram: Hashable, Sendable {
    /// Upper bounds in microseconds; one bucket more than bounds. Part of the Observer service's contract.
    public static let bounds: [Int] = {
        let steps = [1.0, 1.189207, 1.414214, 1.681793]
        return (0..<76).map { Int(62.5 * Double(1 << ($0 / 4)) * steps[$0 % 4]) }
    }()

    /// Empty until the first record.
    public private(set) var counts: [UInt64] = []
    public private(set) var sumMicroseconds: Int64 = 0
    public init() {}
    public var isEmpty: Bool { counts.isEmpty }
    public var total: UInt64 { counts.reduce(0, +) }

    public mutating func record(microseconds: Int64, count: Int) {
        if counts.isEmpty { counts = [UInt64](repeating: 0, count: StageHistogram.bounds.count + 1) }
        var low = 0, high = StageHistogram.bounds.count
        while low < high {
            let middle = (low + high) / 2
            if microseconds <= StageHistogram.bounds[middle] { high = middle } else { low = middle + 1 }
        }
        counts[low] &+= UInt64(count)
        sumMicroseconds &+= microseconds &* Int64(count)
    }

    public mutating func add(_ other: StageHistogram) {
        guard !other.isEmpty else { return }
        if isEmpty { return self = other }
        for bucket in counts.indices { counts[bucket] &+= other.counts[bucket] }
        sumMicroseconds &+= other.sumMicroseconds
    }
}

/// A histogram for each stage.
public struct StageFigures: Hashable, Sendable {
    public private(set) var histograms = [StageHistogram](repeating: StageHistogram(), count: Stage.allCases.count)
    public init() {}
    public subscript(_ stage: Stage) -> StageHistogram { histograms[stage.rawValue] }

    public mutating func record(_ stage: Stage, _ span: TimeSpan, count: Int) {
        histograms[stage.rawValue].record(microseconds: max(0, span.nanoseconds / 1_000), count: count)
    }
    public mutating func add(_ other: StageFigures) {
        for at in histograms.indices { histograms[at].add(other.histograms[at]) }
    }
}

/// Where the threads of a node record stages. While nobody observes the node this costs each of them one look at `isOn`.
///
/// Times are the machine's, not those of the node's own clock, which a person may have bent.
public final class StageTimes: Sendable {
    private let isWanted = Atomic<Bool>(false)
    private let figures = Mutex(StageFigures())

    public var isOn: Bool { isWanted.load(ordering: .relaxed) }

    /// What was recorded for an earlier observer is forgotten.
    func setOn(_ isOn: Bool) {
        guard isOn != self.isOn else { return }
        if isOn { _ = take() }
        isWanted.store(isOn, ordering: .relaxed)
    }

    /// nil while nobody observes.
    func now() -> Instant? { isOn ? SystemClock().now() : nil }

    func record(_ stage: Stage, _ span: TimeSpan, count: Int = 1) { figures.withLock { $0.record(stage, span, count: count) } }
    func record(_ stage: Stage, since start: Instant?) {
        if let start { record(stage, SystemClock().now() - start) }
    }

    /// Everything since the last call.
    func take() -> StageFigures {
        figures.withLock { figures in
            defer { figures = StageFigures() }
            return figures
        }
    }
}
