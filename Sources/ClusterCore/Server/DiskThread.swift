import Base
import Log
import NIOConcurrencyHelpers
import Raft
import Replica

/// Writes the log off the loop: everything that waits becomes one write and one sync. (group commit)
final class DiskThread: Sendable {
    enum Job: Sendable {
        case persist(PersistBatch)
        case compact(upTo: LogIndex)
    }
    private let worker: WorkerThread<Job>

    /// `log` belongs to the thread from here on. `failed` is called once, after which nothing is written any more: whether
    /// earlier bytes reached the disk is unknown then, so the node must stop. (reliability.md §2.3)
    /// `released` gets the segment files that are no longer needed; removing a large file takes tens of milliseconds, which no
    /// sync should wait for.
    init(name: String, log: WriteAheadLog, clock: any NodeClock, metrics: NodeMetrics, persisted: @escaping @Sendable (PersistTicket) -> Void,
         released: @escaping @Sendable ([String]) -> Void, failed: @escaping @Sendable (LogError) -> Void) {
        let log = UncheckedBox(log)
        worker = WorkerThread(name: name) { jobs in
            var last: PersistTicket?
            let start = metrics.stages.now()
            do throws(LogError) {
                for job in jobs {
                    if case .persist(let batch) = job {
                        log.value.append(batch)
                        last = batch.ticket
                    }
                }
                if let last {
                    let began = clock.now()
                    try log.value.sync()
                    metrics.walFsync.record(nanoseconds: (clock.now() - began).nanoseconds)
                    metrics.walWriteBytes.add(UInt64(log.value.statistics.lastSyncBytes), ordering: .relaxed)
                    metrics.stages.record(.logWrite, since: start)
                    persisted(last)
                }
                for job in jobs {
                    guard case .compact(let index) = job else { continue }
                    let paths = try log.value.releaseSegments(upTo: index)
                    if !paths.isEmpty { released(paths) }
                }
                return true
            } catch {
                failed(error)
                return false
            }
        } end: {
            log.value.close()
        }
    }

    func submit(_ job: Job) { worker.submit(job) }
    func stop(abandoning: Bool) { worker.stop(abandoning: abandoning) }
}

/// Carries a value that is confined to one thread at a time over to that thread.
struct UncheckedBox<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}
