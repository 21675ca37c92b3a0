@testable import Client
import Foundation
import Server
import Testing
import UI
@testable import quarterdeck

/// What nodes and metrics pages may say without being right: the console says something, and stays.
@Suite struct HostileFiguresTests {
    private static let figures = ["NaN", "+Inf", "-Inf", "1e300", "-1e300", "9.3e18", "-9.3e18", "1"]

    @Test(arguments: figures, figures) func metricsPagesMayHoldAnyNumber(_ before: String, _ now: String) {
        func page(_ value: String) -> String {
            """
            etcd_disk_wal_fsync_duration_seconds_bucket{le="\(value)"} \(value)
            etcd_disk_wal_fsync_duration_seconds_bucket{le="0.1"} 5
            etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} \(value)
            etcd_disk_wal_fsync_duration_seconds_sum \(value)
            etcd_server_proposals_committed_total \(value)
            etcd_server_proposals_pending \(value)
            etcd_server_proposals_failed_total \(value)
            etcd_server_slow_apply_total \(value)
            etcd_server_leader_changes_seen_total \(value)
            process_start_time_seconds \(value)
            """
        }
        let sample = MetricsReading(page(now)).since(MetricsReading(page(before)), node: 1, at: Moment(milliseconds: 0), spanMilliseconds: 1_000)
        #expect(sample == sample.bounded)
        let metrics = MetricsProbe.Metrics(page(now))
        #expect(metrics.startedAt == metrics.startedAt?.bounded)
        #expect(metrics.fsyncP99Microseconds ?? 0 >= 0)
    }

    @Test(arguments: [Int64.min, -1, 0, .max], [Int64.min, -1, 0, .max]) func observersMayTellAnyTime(_ wall: Int64, _ monotonic: Int64) throws {
        var clock = ClockCorrection()
        let time = ObservedTime(monotonicNanoseconds: monotonic, wallMicroseconds: wall)
        for received in [0, 1_763_923_327_000_000, 1_763_923_328_000_000] as [Int64] {
            let correction = clock.correction(of: time, receivedMicroseconds: received)
            let event = try #require(RaftEvent(ObservedEvent(time: time, term: .init(.max), kind: .electionTimeout(after: .microseconds(wall))), node: 1, correction: correction))
            #expect(event == event.bounded)
        }
    }

    @Test func ordersAreCutAtLineEndsAndNoLineIsLongerThanAnyPlan() throws {
        var plan = FaultPlan()
        plan[from: 1, to: 2].isCut = true
        let first = Supervision.Order(plan: plan).line + [10], second = Supervision.Order(stops: true).line + [10]
        var reader = Supervision.OrderReader()
        var found: [Supervision.Order] = []
        for byte in first + Array("nonsense\n".utf8) + second { found += reader.take([byte]) }
        #expect(found.map(\.plan) == [plan, nil] && found.map(\.stops) == [nil, true])
        #expect(reader.take([UInt8](repeating: 32, count: Supervision.OrderReader.maxBytes + 1)).isEmpty)
        #expect(reader.take(second).isEmpty)
        #expect(reader.take(second + first + second.dropLast()).count == 2)
        #expect(reader.take([10]).count == 1)
    }
}
