import Foundation
import UI

/// The figures of a `/metrics` page that the Latency view needs, as they stand: counted since the process started.
struct MetricsReading: Sendable {
    /// A cumulative histogram: `counts[i]` is everything up to `bounds[i]` seconds; the last bound is infinite.
    struct Cumulative: Hashable, Sendable {
        var bounds: [Double] = []
        var counts: [Double] = []
        var sum = 0.0

        /// Prometheus' own histograms have a dozen or two.
        private static let maxBounds = 256

        fileprivate mutating func add(upTo bound: Double, _ count: Double) {
            // Several series of one histogram (a peer each) add up.
            if let index = bounds.firstIndex(of: bound) { counts[index] += count; return }
            guard bounds.count < Cumulative.maxBounds else { return }
            let index = bounds.firstIndex { $0 > bound } ?? bounds.count
            bounds.insert(bound, at: index)
            counts.insert(count, at: index)
        }
    }

    var walFsync = Cumulative()
    var backendCommit = Cumulative()
    var peerRoundTrip = Cumulative()
    var proposalsCommitted = 0.0
    var proposalsPending = 0.0
    var proposalsFailed = 0.0
    var slowApplies = 0.0
    var leaderChanges = 0.0
    /// Seconds since 1970.
    var startedAt = 0.0

    /// Reads Prometheus text.
    init(_ text: String) {
        for line in text.split(whereSeparator: \.isNewline) {
            // Most lines are none of ours.
            guard line.utf8.first == UInt8(ascii: "e") || line.utf8.first == UInt8(ascii: "p"), let blank = line.utf8.lastIndex(of: UInt8(ascii: " ")),
                  let value = Double(line[line.index(after: blank)...]), value.isFinite else { continue }
            let series = line[..<blank]
            let nameEnd = series.utf8.firstIndex(of: UInt8(ascii: "{")) ?? series.endIndex
            let name = series[..<nameEnd]
            switch name {
            case "etcd_disk_wal_fsync_duration_seconds_bucket": walFsync.add(upTo: MetricsReading.bound(series), value)
            case "etcd_disk_wal_fsync_duration_seconds_sum": walFsync.sum += value
            case "etcd_disk_backend_commit_duration_seconds_bucket": backendCommit.add(upTo: MetricsReading.bound(series), value)
            case "etcd_disk_backend_commit_duration_seconds_sum": backendCommit.sum += value
            case "etcd_network_peer_round_trip_time_seconds_bucket": peerRoundTrip.add(upTo: MetricsReading.bound(series), value)
            case "etcd_network_peer_round_trip_time_seconds_sum": peerRoundTrip.sum += value
            case "etcd_server_proposals_committed_total": proposalsCommitted = value
            case "etcd_server_proposals_pending": proposalsPending = value
            case "etcd_server_proposals_failed_total": proposalsFailed = value
            case "etcd_server_slow_apply_total": slowApplies = value
            case "etcd_server_leader_changes_seen_total": leaderChanges = value
            case "process_start_time_seconds": startedAt = value
            default: break
            }
        }
    }

    /// The `le` label.
    private static func bound(_ series: Substring) -> Double {
        guard let label = series.range(of: "le=\"") else { return .infinity }
        let text = series[label.upperBound...].prefix { $0 != "\"" }
        // (A bound that is no number would have no place among the others.)
        return Double(text).flatMap { $0.isNaN ? nil : $0 } ?? .infinity
    }

    /// What happened since `before`. A process that has started anew counts from zero again: then everything it counted is new.
    func since(_ before: MetricsReading, node: UInt64, at now: Moment, spanMilliseconds: Int64) -> MetricsSample {
        let isRestarted = startedAt != before.startedAt || walFsync.counts.last ?? 0 < before.walFsync.counts.last ?? 0
        func grown(_ value: Double, _ old: Double) -> Int { Bounds.count(isRestarted ? value : value - old) }
        return MetricsSample(
            node: node, at: now, spanMilliseconds: spanMilliseconds,
            walFsync: MetricsReading.difference(walFsync, isRestarted ? nil : before.walFsync),
            backendCommit: MetricsReading.difference(backendCommit, isRestarted ? nil : before.backendCommit),
            peerRoundTrip: MetricsReading.difference(peerRoundTrip, isRestarted ? nil : before.peerRoundTrip),
            // An index of the log, not a counter: it goes on where it was.
            proposalsCommitted: Bounds.count(proposalsCommitted - before.proposalsCommitted), proposalsPending: Bounds.count(proposalsPending),
            proposalsFailed: grown(proposalsFailed, before.proposalsFailed), slowApplies: grown(slowApplies, before.slowApplies),
            leaderChanges: grown(leaderChanges, before.leaderChanges))
    }

    /// nil when the page has no such histogram.
    static func difference(_ now: Cumulative, _ before: Cumulative?) -> LatencyHistogram? {
        let finite = now.bounds.filter(\.isFinite)
        guard !finite.isEmpty else { return nil }
        var result = LatencyHistogram(boundsMicroseconds: finite.map { Bounds.count(($0 * 1e6).rounded()) })
        var below = 0.0, belowBefore = 0.0
        for (index, bound) in now.bounds.enumerated() {
            // A series that is new (a peer that was added) counts from zero.
            let old = before.flatMap { before in before.bounds.firstIndex(of: bound).map { before.counts[$0] } } ?? 0
            let count = Bounds.count((now.counts[index] - below) - (old - belowBefore))
            result.counts[min(index, finite.count)] = min(result.counts[min(index, finite.count)] + count, Bounds.count.upperBound)
            (below, belowBefore) = (now.counts[index], old)
        }
        result.sumMicroseconds = Int64(Bounds.count(((now.sum - (before?.sum ?? 0)) * 1e6).rounded()))
        // Bounds that are no bounds count nothing.
        return result.bounded
    }
}
