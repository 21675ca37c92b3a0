import Base
import NIOConcurrencyHelpers
import Synchronization

/// Counts and histograms that several threads of a node write and `/metrics` reads.
public final class NodeMetrics: Sendable {
    public let walFsync = BucketHistogram(exponentialFrom: 0.001, factor: 2, count: 14)
    public let backendCommit = BucketHistogram(exponentialFrom: 0.001, factor: 2, count: 14)
    /// Where a request's time goes; measured while somebody observes the node.
    public let stages = StageTimes()
    public let slowApplies = Atomic<UInt64>(0)
    public let walWriteBytes = Atomic<UInt64>(0)
    public let clientReceivedBytes = Atomic<UInt64>(0)
    public let clientSentBytes = Atomic<UInt64>(0)
    private let peerCounters = NIOLockedValueBox<[MemberID: PeerCounters]>([:])
    public let healthSuccesses = Atomic<UInt64>(0)
    public let healthFailures = Atomic<UInt64>(0)
    let healthChecks: [HealthCheckCount] = HealthCheck.Root.allCases.flatMap { root in root.checks.map { HealthCheckCount(root, $0) } }
    public init() {}

    /// Peers with counters of their own; strangers that name themselves on the peer port take none beyond it.
    private static let maxPeers = 256

    /// What goes to a peer and comes from it; kept by those who count. Made at the first question.
    func peer(_ id: MemberID) -> PeerCounters {
        peerCounters.withLockedValue { peers in
            if let known = peers[id] { return known }
            let counters = PeerCounters()
            if peers.count < NodeMetrics.maxPeers { peers[id] = counters }
            return counters
        }
    }

    /// In the order of their ids.
    var peers: [(id: MemberID, counters: PeerCounters)] {
        peerCounters.withLockedValue { $0.sorted { $0.key < $1.key }.map { (id: $0.key, counters: $0.value) } }
    }

    func checked(_ root: HealthCheck.Root, _ check: HealthCheck, succeeded: Bool) {
        healthChecks.first { $0.root == root && $0.check == check }?.record(succeeded)
    }
}

/// The traffic with one peer.
public final class PeerCounters: Sendable {
    public let sentBytes = Atomic<UInt64>(0)
    public let receivedBytes = Atomic<UInt64>(0)
    /// Messages that were dropped, and attempts to connect that failed with messages waiting.
    public let sendFailures = Atomic<UInt64>(0)
    /// Of heartbeats, while this member leads.
    public let roundTrip = BucketHistogram(exponentialFrom: 0.0001, factor: 2, count: 16)
}

/// How often a check of `/livez` or `/readyz` ran, and how it ended last.
final class HealthCheckCount: Sendable {
    let root: HealthCheck.Root
    let check: HealthCheck
    let successes = Atomic<UInt64>(0)
    let failures = Atomic<UInt64>(0)
    let lastSucceeded = Atomic<Bool>(false)

    init(_ root: HealthCheck.Root, _ check: HealthCheck) { (self.root, self.check) = (root, check) }

    func record(_ succeeded: Bool) {
        if succeeded { successes.add(1, ordering: .relaxed) } else { failures.add(1, ordering: .relaxed) }
        lastSucceeded.store(succeeded, ordering: .relaxed)
    }
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
