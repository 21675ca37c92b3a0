/// What the built-in workload does.
public struct WorkloadSettings: Hashable, Codable, Sendable {
    public enum Distribution: String, CaseIterable, Hashable, Codable, Sendable { case uniform, zipf, sequential }
    public enum Consistency: String, CaseIterable, Hashable, Codable, Sendable { case linearizable, serializable }
    public enum Target: String, CaseIterable, Hashable, Codable, Sendable { case all, leader }
    public enum Pace: String, CaseIterable, Hashable, Codable, Sendable {
        /// Operations are due at the set rate, whatever the cluster does: a stall shows in all that it delayed.
        case open
        /// Each client starts its next operation when the last is answered, at most at the set rate.
        case closed
    }

    public var putsPerSecond: Int
    public var readsPerSecond: Int
    public var clients: Int
    public var valueBytes: Int
    public var keyCount: Int
    public var distribution: Distribution
    public var consistency: Consistency
    public var target: Target
    public var pace: Pace

    public init(putsPerSecond: Int = 50, readsPerSecond: Int = 50, clients: Int = 8, valueBytes: Int = 128, keyCount: Int = 64, distribution: Distribution = .uniform, consistency: Consistency = .linearizable, target: Target = .all, pace: Pace = .open) {
        self.putsPerSecond = putsPerSecond
        self.readsPerSecond = readsPerSecond
        self.clients = clients
        self.valueBytes = valueBytes
        self.keyCount = keyCount
        self.distribution = distribution
        self.consistency = consistency
        self.target = target
        self.pace = pace
    }
}

/// What the workload's own check of everything that it wrote and read says so far.
public struct ConsistencyVerdict: Hashable, Codable, Sendable {
    public var acknowledgedWrites: Int
    /// Acknowledged writes that were read back, or overwritten by a later one that was.
    public var confirmedWrites: Int
    public var checkedReads: Int
    /// Writes without an answer: they may have happened or not, and both are right.
    public var unknownWrites: Int
    /// What was wrong, oldest first, with keys and revisions; at most 20 are kept. Empty: consistent so far.
    public var violations: [String]

    public init(acknowledgedWrites: Int = 0, confirmedWrites: Int = 0, checkedReads: Int = 0, unknownWrites: Int = 0, violations: [String] = []) {
        self.acknowledgedWrites = acknowledgedWrites
        self.confirmedWrites = confirmedWrites
        self.checkedReads = checkedReads
        self.unknownWrites = unknownWrites
        self.violations = violations
    }
}

/// An operation that took long.
public struct SlowRequest: Hashable, Codable, Sendable {
    public var at: Moment
    public var tookMicroseconds: Int
    /// "put" or "get".
    public var operation: String
    public var key: String
    /// Nil when it succeeded.
    public var error: String?

    public init(at: Moment, tookMicroseconds: Int, operation: String, key: String, error: String? = nil) {
        self.at = at
        self.tookMicroseconds = tookMicroseconds
        self.operation = operation
        self.key = key
        self.error = error
    }
}

/// A second of the built-in workload.
public struct WorkloadSample: Hashable, Codable, Sendable {
    public struct Latency: Hashable, Codable, Sendable {
        public var count: Int
        public var p50Microseconds: Int
        public var p99Microseconds: Int
        public var maxMicroseconds: Int

        public init(count: Int, p50Microseconds: Int, p99Microseconds: Int, maxMicroseconds: Int) {
            self.count = count
            self.p50Microseconds = p50Microseconds
            self.p99Microseconds = p99Microseconds
            self.maxMicroseconds = maxMicroseconds
        }
    }

    /// Upper bounds of `putBuckets` in microseconds; the last bucket counts everything above the last bound.
    public static let bucketBoundsMicroseconds = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 64_000, 1_000_000]

    public var at: Moment
    /// nil when none finished in that second.
    public var put: Latency?
    public var read: Latency?
    public var failed: Int
    /// Succeeded after the client library tried again.
    public var retried: Int
    /// Puts of this second by latency: `bucketBoundsMicroseconds.count + 1` numbers.
    public var putBuckets: [Int]
    /// The same puts and reads, finely, for the heat map.
    public var putHistogram: LatencyHistogram?
    public var readHistogram: LatencyHistogram?
    /// Slower than 100 ms, at most 20 a second.
    public var slow: [SlowRequest]
    public var settings: WorkloadSettings
    public var verdict: ConsistencyVerdict
    /// The workload has ended, every key was read back, and what it wrote is deleted.
    public var isFinal: Bool

    public init(at: Moment, put: Latency?, read: Latency?, failed: Int, retried: Int = 0, putBuckets: [Int], putHistogram: LatencyHistogram? = nil, readHistogram: LatencyHistogram? = nil, slow: [SlowRequest] = [], settings: WorkloadSettings = WorkloadSettings(), verdict: ConsistencyVerdict = ConsistencyVerdict(), isFinal: Bool = false) {
        self.at = at
        self.put = put
        self.read = read
        self.failed = failed
        self.retried = retried
        self.putBuckets = putBuckets
        self.putHistogram = putHistogram
        self.readHistogram = readHistogram
        self.slow = slow
        self.settings = settings
        self.verdict = verdict
        self.isFinal = isFinal
    }
}

extension WorkloadSettings {
    public static let rateRange = 0...20_000, clientRange = 1...1_000, valueRange = 24...1_048_576, keyRange = 1...100_000
    /// Together with the rate: what a machine and a person's patience stand.
    public static let bytesPerSecondLimit = 64 << 20

    /// Why these settings cannot be carried out; nil: they can.
    public var problem: String? {
        func outside(_ value: Int, _ range: ClosedRange<Int>, _ what: String) -> String? {
            range.contains(value) ? nil : "\(what): \(Format.count(range.lowerBound)) to \(Format.count(range.upperBound))"
        }
        if let problem = outside(putsPerSecond, WorkloadSettings.rateRange, "puts a second") ?? outside(readsPerSecond, WorkloadSettings.rateRange, "gets a second")
            ?? outside(clients, WorkloadSettings.clientRange, "clients") ?? outside(valueBytes, WorkloadSettings.valueRange, "value bytes")
            ?? outside(keyCount, WorkloadSettings.keyRange, "keys") { return problem }
        if putsPerSecond == 0, readsPerSecond == 0 { return "puts and gets are both 0: nothing to do" }
        if (putsPerSecond + readsPerSecond) * valueBytes > WorkloadSettings.bytesPerSecondLimit { return "more than 64 MB a second: smaller values, or fewer" }
        return nil
    }
}
