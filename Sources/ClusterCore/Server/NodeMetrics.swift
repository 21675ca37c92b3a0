import Synchronization

/// Counts and histograms that several threads of a node write and `/metrics` reads.
public final class NodeMetrics: Sendable {
    public let walFsync = BucketHistogram(exponentialFrom: 0.001, factor: 2, count: 14)
    public let backendCommit = BucketHistogram(exponentialFrom: 0.001, factor: 2, count: 14)
    /// Where a request's time goes; measured while somebody observes the node.
    public let stages = StageTimes()
    public let walWriteBytes = Atomic<UInt64>(0)
    public let clientReceivedBytes = Atomic<UInt64>(0)
    public let clientSentBytes = Atomic<UInt64>(0)
    public let peerReceivedBytes = Atomic<UInt64>(0)
    public let peerSentBytes = Atomic<UInt64>(0)
    public let healthSuccesses = Atomic<UInt64>(0)
    public let healthFailures = Atomic<UInt64>(0)
    public init() {}
}

/// A histogram with fixed upper bounds in seconds, as Prometheus exposes them. Lock-free.
public final class BucketHistogram: Sendable {
    public let bounds: [Double]
    private let counts: AtomicCounters
    private let sumNanoseconds = Atomic<UInt64>(0)

    public init(exponentialFrom start: Double, factor: Double, count: Int) {
        var bounds: [Double] = []
        var bound = start
        for _ in 0..<count {
            bounds.append(bound)
            bound *= factor
        }
        self.bounds = bounds
        counts = AtomicCounters(count: count + 1)
    }

    public func record(nanoseconds: Int64) {
        let seconds = Double(nanoseconds) / 1e9
        var bucket = 0
        while bucket < bounds.count, seconds > bounds[bucket] { bucket += 1 }
        counts.increment(bucket)
        sumNanoseconds.add(UInt64(max(0, nanoseconds)), ordering: .relaxed)
    }

    /// The upper bound of the bucket in which this share of all records lies, in microseconds; nil without records.
    public func quantileMicroseconds(_ quantile: Double) -> Int? {
        let counts = counts.read()
        let total = counts.reduce(0, +)
        guard total > 0 else { return nil }
        var seen: UInt64 = 0
        for (bucket, count) in counts.enumerated() {
            seen += count
            if Double(seen) >= quantile * Double(total) { return Int(bounds[min(bucket, bounds.count - 1)] * 1e6) }
        }
        return nil
    }

    /// Counts per bucket (the last one is beyond all bounds), not cumulative, and the sum in seconds.
    public func read() -> (counts: [UInt64], sumSeconds: Double) {
        (counts.read(), Double(sumNanoseconds.load(ordering: .relaxed)) / 1e9)
    }
}

/// A fixed number of counters that any thread may increment.
public final class AtomicCounters: Sendable {
    private final class Cell: Sendable { let value = Atomic<UInt64>(0) }
    private let cells: [Cell]
    public init(count: Int) { cells = (0..<count).map { _ in Cell() } }
    @inline(__always)
    public func increment(_ index: Int, by n: UInt64 = 1) { cells[index].value.add(n, ordering: .relaxed) }
    public func read() -> [UInt64] { cells.map { $0.value.load(ordering: .relaxed) } }
}
