import Base
import Log
import NIOConcurrencyHelpers
import Raft
import Replica

/// Writes the log off the loop: everything that waits becomes one write and one sync. (group commit)
final class DiskThread: Sendable {
    private let worker: WorkerThread<LogJob>

    /// `log` belongs to the thread from here on. `failed` is called once, after which nothing is written any more: whether
    /// earlier bytes reached the disk is unknown then, so the node must stop. (reliability.md §2.3)
    /// `released` gets the segment files that are no longer needed; removing a large file takes tens of milliseconds, which no
    /// sync should wait for.
    init(name: String, log: WriteAheadLog, clock: any NodeClock, metrics: NodeMetrics, persisted: @escaping @Sendable (PersistTicket) -> Void,
         released: @escaping @Sendable ([String]) -> Void, failed: @escaping @Sendable (LogError) -> Void) {
        let log = UncheckedBox(log)
        worker = WorkerThread(name: name) { jobs in
            let start = metrics.stages.now()
            do throws(LogError) {
                let began = clock.now()
                if let last = try log.value.write(jobs) {
                    metrics.walFsync.record(nanoseconds: (clock.now() - began).nanoseconds)
                    metrics.walWriteBytes.add(UInt64(log.value.statistics.lastSyncBytes), ordering: .relaxed)
                    metrics.stages.record(.logWrite, since: start)
                    persisted(last)
                }
                let paths = try log.value.release(jobs)
                if !paths.isEmpty { released(paths) }
                return true
            } catch {
                failed(error)
                return false
            }
        } end: {
            log.value.close()
        }
    }

    func submit(_ job: LogJob) { worker.submit(job) }
    func stop(abandoning: Bool) { worker.stop(abandoning: abandoning) }
}

/// Carries a value that is confined to one thread at a time over to that thread.
struct UncheckedBox<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}
