import Base
import Replica
import Store

/// Commits the backend off the loop and does other slow work on it.
final class BackendThread: Sendable {
    enum Job: Sendable {
        case commit(BackendCommit, any Backend)
        case run(@Sendable () -> Void)
    }
    private let worker: WorkerThread<Job>

    init(name: String, clock: any NodeClock, metrics: NodeMetrics, committed: @escaping @Sendable (BackendCommitToken, BackendSize) -> Void,
         failed: @escaping @Sendable (BackendError) -> Void) {
        worker = WorkerThread(name: name) { jobs in
            for job in jobs {
                switch job {
                case .run(let work): work()
                case .commit(let commit, let backend):
                    let start = metrics.stages.now()
                    let began = clock.now()
                    do throws(BackendError) {
                        try backend.commit(commit.batch)
                    } catch {
                        failed(error)
                        return false
                    }
                    metrics.backendCommit.record(nanoseconds: (clock.now() - began).nanoseconds)
                    metrics.stages.record(.backendCommit, since: start)
                    committed(commit.token, backend.size)
                }
            }
            return true
        } end: {}
    }

    func submit(_ job: Job) { worker.submit(job) }
    func stop(abandoning: Bool) { worker.stop(abandoning: abandoning) }
}
