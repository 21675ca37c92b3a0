/// What the heat map shows.
enum LatencySource: Int, CaseIterable, Hashable, Sendable {
    case put, get, walFsync, backendCommit, peerRoundTrip

    var title: String {
        switch self {
        case .put: "Put latency"
        case .get: "Get latency"
        case .walFsync: "WAL fsync"
        case .backendCommit: "Backend commit"
        case .peerRoundTrip: "Peer round trip"
        }
    }

    /// What is drawn beside it where there is room.
    var companion: LatencySource {
        switch self {
        case .put: .get
        case .get: .put
        case .walFsync, .peerRoundTrip: .backendCommit
        case .backendCommit: .walFsync
        }
    }

    /// Measured by the workload; the others are the nodes' own figures.
    var isWorkload: Bool { self == .put || self == .get }
}

/// Whose figures a series holds.
struct LatencyKey: Hashable, Sendable {
    enum What: Hashable, Sendable {
        case put, get
        /// Pushed by our own nodes.
        case stage(StageLatency.Stage)
        /// Read from `/metrics`.
        case scraped(LatencySource)
    }

    var what: What
    /// 0: of the workload.
    var node: UInt64 = 0
}

/// A histogram without its empty ends: a second's worth takes a tenth of the room.
struct CompactHistogram: Hashable, Sendable {
    var bounds: [Int]
    var first: Int
    var counts: [UInt32]
    var sum: Int64
    /// Exact, where it was told; else nil.
    var maximum: Int?

    init(_ full: LatencyHistogram, maximum: Int? = nil) {
        bounds = full.boundsMicroseconds
        sum = full.sumMicroseconds
        self.maximum = maximum
        let from = full.counts.firstIndex { $0 > 0 } ?? 0
        let to = full.counts.lastIndex { $0 > 0 } ?? -1
        first = from
        counts = from <= to ? full.counts[from...to].map { UInt32(clamping: $0) } : []
    }

    mutating func add(_ other: CompactHistogram) {
        guard other.bounds == bounds, !other.counts.isEmpty else { return }
        if counts.isEmpty { (first, counts) = (other.first, []) }
        let from = min(first, other.first), to = max(first + counts.count, other.first + other.counts.count)
        var merged = [UInt32](repeating: 0, count: to - from)
        for (index, count) in counts.enumerated() { merged[first - from + index] = count }
        for (index, count) in other.counts.enumerated() { merged[other.first - from + index] &+= count }
        (first, counts) = (from, merged)
        sum += other.sum
        if let theirs = other.maximum { maximum = max(theirs, maximum ?? 0) }
    }

    func add(to full: inout LatencyHistogram) {
        guard full.boundsMicroseconds == bounds else { return }
        for (index, count) in counts.enumerated() { full.counts[first + index] += Int(count) }
        full.sumMicroseconds += sum
    }

    var total: Int { counts.reduce(0) { $0 + Int($1) } }

    /// As `LatencyHistogram.quantile`.
    func quantile(_ share: Double) -> Int? {
        let total = total
        guard total > 0 else { return nil }
        let wanted = max(1, Int((share * Double(total)).rounded(.up)))
        var seen = 0
        for (index, count) in counts.enumerated() {
            seen += Int(count)
            if seen >= wanted { return bounds[min(first + index, bounds.count - 1)] }
        }
        return bounds.last
    }
}

/// A figure over time: every second of the last eight minutes, and every five seconds of the last hour. Seconds without data have none.
struct LatencySeries: Hashable, Sendable {
    struct Slot: Hashable, Sendable {
        /// Seconds since 1970 of its start.
        var second: Int64
        var histogram: CompactHistogram
    }

    static let fineSeconds: Int64 = 480
    static let coarseStep: Int64 = 5
    static let coarseSeconds: Int64 = 3_600

    private(set) var fine: [Slot] = []
    private(set) var coarse: [Slot] = []

    mutating func add(_ histogram: CompactHistogram, at moment: Moment) {
        let second = moment.milliseconds / 1_000
        LatencySeries.add(histogram, second, to: &fine, keep: LatencySeries.fineSeconds)
        LatencySeries.add(histogram, second - second % LatencySeries.coarseStep, to: &coarse, keep: LatencySeries.coarseSeconds)
    }

    private static func add(_ histogram: CompactHistogram, _ second: Int64, to slots: inout [Slot], keep: Int64) {
        if let last = slots.last, last.second >= second {
            // Nodes tell several times a second; a clock that was set back goes on in the newest slot.
            if last.histogram.bounds == histogram.bounds { slots[slots.count - 1].histogram.add(histogram) }
            return
        }
        slots.append(Slot(second: second, histogram: histogram))
        if let first = slots.first, second - first.second > keep + keep / 4 { slots.removeAll { $0.second < second - keep } }
    }

    /// Slots that begin in [from, to), from the finer list where it reaches that far.
    func slots(_ from: Int64, _ to: Int64, isFine: Bool) -> ArraySlice<Slot> {
        let list = isFine ? fine : coarse
        func place(_ second: Int64) -> Int {
            var low = 0, high = list.count
            while low < high {
                let middle = (low + high) / 2
                if list[middle].second < second { low = middle + 1 } else { high = middle }
            }
            return low
        }
        let start = place(from)
        return list[start..<max(start, place(to))]
    }
}

/// Numbers a second, of what `/metrics` counts for all nodes together and of what the workload does.
struct LatencyRates: Hashable, Sendable {
    var puts: Int?
    var gets: Int?
    var failed: Int?
    var retried: Int?
    var proposals: Int?
    var pending: Int?
    var failedProposals: Int?
    var slowApplies: Int?
    var leaderChanges: Int?
}

/// State of the Latency view.
struct LatencyState: Hashable, Sendable {
    static let windows: [Int64] = [60, 300, 900, 3_600]
    static let rateSeconds: Int64 = 600
    static let slowLimit = 200
    static let faultLimit = 100
    /// What operators of etcd alarm on: the 99th percentile of the log's fsync.
    static let fsyncLimitMicroseconds = 10_000

    /// A figure kept to compare with.
    struct Baseline: Hashable, Sendable {
        var source: LatencySource
        var node: UInt64?
        var at: Moment
        var histogram: LatencyHistogram
    }

    /// A slow request with what was known about it when it came.
    struct Slow: Hashable, Sendable {
        var request: SlowRequest
        var valueBytes: Int
    }

    /// A fault that is on or was.
    struct FaultSpan: Hashable, Sendable {
        var fault: ActiveFault
        var until: Moment?
    }

    // MARK: What was heard
    private(set) var series: [LatencyKey: LatencySeries] = [:]
    private(set) var rates: [Int64: LatencyRates] = [:]
    /// Newest last.
    private(set) var slow: [Slow] = []
    private(set) var faults: [FaultSpan] = []
    /// When each node's `/metrics` last answered.
    private(set) var scrapedAt: [UInt64: Moment] = [:]
    /// Seconds with failed operations, and how many.
    private(set) var failures: [Int64: Int] = [:]

    // MARK: What the person chose
    var source = LatencySource.put
    var window = 0
    /// nil: the leader.
    var node: UInt64?
    var baseline: Baseline?
    /// A column of the heat map that is looked at; nil: now.
    var cursor: Moment?
    var slowSelection = 0
    var filter = TextField()
    var isFiltering = false
    /// Since when the runtime reads `/metrics`; nil: it does not.
    var scrapingSince: Moment?

    var windowSeconds: Int64 { LatencyState.windows[window] }

    mutating func heard(_ sample: WorkloadSample) {
        if let histogram = sample.putHistogram, sample.put != nil { add(histogram, LatencyKey(what: .put), sample.at, maximum: sample.put?.maxMicroseconds) }
        if let histogram = sample.readHistogram, sample.read != nil { add(histogram, LatencyKey(what: .get), sample.at, maximum: sample.read?.maxMicroseconds) }
        let second = sample.at.milliseconds / 1_000
        if sample.failed > 0 { failures[second, default: 0] += sample.failed }
        note(second) { rates in
            rates.puts = (rates.puts ?? 0) + (sample.put?.count ?? 0)
            rates.gets = (rates.gets ?? 0) + (sample.read?.count ?? 0)
            rates.failed = (rates.failed ?? 0) + sample.failed
            rates.retried = (rates.retried ?? 0) + sample.retried
        }
        slow += sample.slow.map { Slow(request: $0, valueBytes: sample.settings.valueBytes) }
        if slow.count > LatencyState.slowLimit { slow.removeFirst(slow.count - LatencyState.slowLimit) }
    }

    mutating func heard(_ samples: [NodeSample], cluster: ClusterState) {
        for sample in samples {
            let at = Moment(milliseconds: sample.atMicroseconds / 1_000)
            for stage in sample.stages where stage.histogram.total > 0 { add(stage.histogram, LatencyKey(what: .stage(stage.stage), node: sample.node), at) }
        }
        forget(except: cluster)
    }

    mutating func heard(_ samples: [MetricsSample]) {
        for sample in samples {
            scrapedAt[sample.node] = sample.at
            if let histogram = sample.walFsync { add(histogram, LatencyKey(what: .scraped(.walFsync), node: sample.node), sample.at) }
            if let histogram = sample.backendCommit { add(histogram, LatencyKey(what: .scraped(.backendCommit), node: sample.node), sample.at) }
            if let histogram = sample.peerRoundTrip { add(histogram, LatencyKey(what: .scraped(.peerRoundTrip), node: sample.node), sample.at) }
            note(sample.at.milliseconds / 1_000) { rates in
                // Every member commits every proposal: the one that is furthest says how many there were.
                let perSecond = sample.proposalsCommitted * 1_000 / max(1, Int(sample.spanMilliseconds))
                rates.proposals = max(rates.proposals ?? 0, perSecond)
                rates.pending = max(rates.pending ?? 0, sample.proposalsPending)
                rates.failedProposals = (rates.failedProposals ?? 0) + sample.proposalsFailed
                rates.slowApplies = (rates.slowApplies ?? 0) + sample.slowApplies
                rates.leaderChanges = max(rates.leaderChanges ?? 0, sample.leaderChanges)
            }
        }
    }

    mutating func heard(_ active: [ActiveFault], at now: Moment) {
        for index in faults.indices where faults[index].until == nil && !active.contains(where: { $0.id == faults[index].fault.id }) { faults[index].until = now }
        for fault in active {
            if let index = faults.lastIndex(where: { $0.fault.id == fault.id }) { faults[index].fault = fault } else { faults.append(FaultSpan(fault: fault)) }
        }
        if faults.count > LatencyState.faultLimit { faults.removeFirst(faults.count - LatencyState.faultLimit) }
    }

    private mutating func add(_ histogram: LatencyHistogram, _ key: LatencyKey, _ at: Moment, maximum: Int? = nil) {
        series[key, default: LatencySeries()].add(CompactHistogram(histogram, maximum: maximum), at: at)
    }

    private mutating func note(_ second: Int64, _ change: (inout LatencyRates) -> Void) {
        change(&rates[second, default: LatencyRates()])
        if rates.count > Int(LatencyState.rateSeconds) * 5 / 4 { rates = rates.filter { $0.key > second - LatencyState.rateSeconds } }
        if failures.count > Int(LatencySeries.coarseSeconds) * 5 / 4 { failures = failures.filter { $0.key > second - LatencySeries.coarseSeconds } }
    }

    /// Members that are gone for good take their series with them.
    private mutating func forget(except cluster: ClusterState) {
        guard !cluster.members.isEmpty, series.count > 2 + 9 * cluster.members.count else { return }
        series = series.filter { entry in entry.key.node == 0 || cluster.members.contains { $0.id == entry.key.node } }
    }

    // MARK: Reading

    /// The keys whose sum is shown for a source: pushed figures where there are any lately, else scraped ones.
    func keys(_ source: LatencySource, nodes: [UInt64], now: Moment) -> [LatencyKey] {
        switch source {
        case .put: return [LatencyKey(what: .put)]
        case .get: return [LatencyKey(what: .get)]
        case .walFsync, .backendCommit, .peerRoundTrip:
            return nodes.map { node in
                let pushed = LatencyKey(what: .stage(source == .walFsync ? .logWrite : .backendCommit), node: node)
                if source != .peerRoundTrip, let last = series[pushed]?.coarse.last, now.milliseconds / 1_000 - last.second < LatencySeries.coarseSeconds { return pushed }
                return LatencyKey(what: .scraped(source), node: node)
            }
        }
    }

    /// The sum over a span of time, [from, to) in seconds; nil when there is nothing. Series with other bounds than the first are left out.
    func sum(_ keys: [LatencyKey], from: Int64, to: Int64, isFine: Bool) -> (histogram: LatencyHistogram, maximum: Int?)? {
        var result: LatencyHistogram?
        var maximum: Int?
        for key in keys {
            for slot in series[key]?.slots(from, to, isFine: isFine) ?? [] {
                if result == nil { result = LatencyHistogram(boundsMicroseconds: slot.histogram.bounds) }
                slot.histogram.add(to: &result!)
                if let most = slot.histogram.maximum { maximum = max(most, maximum ?? 0) }
            }
        }
        guard let result, result.total > 0 else { return nil }
        return (result, maximum)
    }

    func failed(from: Int64, to: Int64) -> Int {
        guard to - from < 600 else { return failures.reduce(0) { $0 + ($1.key >= from && $1.key < to ? $1.value : 0) } }
        return (from..<max(from, to)).reduce(0) { $0 + (failures[$1] ?? 0) }
    }
}
