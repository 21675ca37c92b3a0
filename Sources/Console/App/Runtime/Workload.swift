import Base
import Client
import Foundation
import Histogram
import Synchronization
import UI

/// The built-in workload that a person switches on to see what writes and reads take: a put and a linearizable read every 20 ms, on
/// sixteen keys of their own. Latencies count from the moment an operation was due, so that a stall shows in all that it delayed.
final class Workload: Sendable {
    static let prefix = "/quarterdeck/workload/"
    private static let periodMilliseconds: Int64 = 20
    private static let keyCount = 16
    /// More than this under way: the cluster does not keep up, and what is due counts as failed.
    private static let inFlightLimit = 256

    private struct Second {
        var puts = Series()
        var reads = Series()
        var failed = 0
        var buckets = [Int](repeating: 0, count: WorkloadSample.bucketBoundsMicroseconds.count + 1)
    }

    private struct Series {
        /// Microseconds, three significant digits, up to a minute.
        var histogram = Histogram<UInt32>(lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: .three)

        var latency: WorkloadSample.Latency? {
            guard histogram.totalCount > 0 else { return nil }
            return WorkloadSample.Latency(count: Int(histogram.totalCount), p50Microseconds: Int(histogram.valueAtPercentile(50)),
                                          p99Microseconds: Int(histogram.valueAtPercentile(99)), maxMicroseconds: Int(histogram.max))
        }
    }

    private struct State {
        var second = Second()
        var inFlight = 0
    }

    private let client: EtcdClient
    private let mailbox: Mailbox
    private let state = Mutex(State())

    init(client: EtcdClient, mailbox: Mailbox) {
        self.client = client
        self.mailbox = mailbox
    }

    func run() async {
        await withTaskGroup(of: Void.self) { group in
            var due = Clock.monotonicNanoseconds()
            var sampleDue = due + 1_000_000_000
            var number = 0
            while !Task.isCancelled {
                let key = Array("\(Workload.prefix)\(number % Workload.keyCount)".utf8)
                let value = Array("written by the console's own workload, number \(number)".utf8)
                let client = client
                add(due, isPut: true, &group) { _ = try await client.put(key, value, options: CallOptions(timeout: .seconds(5))) }
                add(due, isPut: false, &group) { _ = try await client.get(key, options: CallOptions(timeout: .seconds(5))) }
                number += 1
                due += Workload.periodMilliseconds * 1_000_000
                if due >= sampleDue {
                    report()
                    sampleDue += 1_000_000_000
                }
                let wait = due - Clock.monotonicNanoseconds()
                if wait > 0 { try? await Task.sleep(for: .nanoseconds(wait), tolerance: .milliseconds(1)) }
            }
            group.cancelAll()
        }
        // What it wrote does not stay behind. (This task is cancelled: a new one.)
        let cleaner = self.client
        Task.detached { _ = try? await cleaner.delete(DeleteCommand(.prefix(Key(Workload.prefix)))) }
    }

    private func add(_ due: Int64, isPut: Bool, _ group: inout TaskGroup<Void>, _ operation: @escaping @Sendable () async throws -> Void) {
        let mayStart = state.withLock { state in
            guard state.inFlight < Workload.inFlightLimit else {
                state.second.failed += 1
                return false
            }
            state.inFlight += 1
            return true
        }
        guard mayStart else { return }
        group.addTask {
            let isGood = (try? await operation()) != nil
            let microseconds = UInt64(max(1, Clock.microseconds(since: due)))
            self.state.withLock { state in
                state.inFlight -= 1
                guard isGood else {
                    state.second.failed += 1
                    return
                }
                if isPut {
                    state.second.puts.histogram.record(min(microseconds, 60_000_000))
                    let bounds = WorkloadSample.bucketBoundsMicroseconds
                    state.second.buckets[bounds.firstIndex { Int(microseconds) <= $0 } ?? bounds.count] += 1
                } else {
                    state.second.reads.histogram.record(min(microseconds, 60_000_000))
                }
            }
        }
    }

    private func report() {
        let second = state.withLock { state in
            defer { state.second = Second() }
            return state.second
        }
        mailbox.post(.workload(WorkloadSample(at: Clock.now(), put: second.puts.latency, read: second.reads.latency, failed: second.failed, putBuckets: second.buckets)))
    }
}
