import Base
import Raft

/// Work for the one who writes the log: the disk thread of a node, the simulator's disk.
public enum LogJob: Sendable {
    case persist(PersistBatch)
    case compact(upTo: LogIndex)
}

extension WriteAheadLog {
    /// Makes everything that waits durable with one write and one sync. (group commit)
    /// - Returns: the ticket to report; nil when nothing was to be written. All earlier ones are done with it.
    public func write(_ jobs: [LogJob]) throws(LogError) -> PersistTicket? {
        var last: PersistTicket?
        for case .persist(let batch) in jobs {
            append(batch)
            last = batch.ticket
        }
        if last != nil, !planted(.reportsWritesBeforeSync) { try sync() }
        return last
    }

    /// Lets go of the entries that the jobs say are in the store. Call after `write`.
    /// - Returns: files to remove, at leisure. (`releaseSegments`)
    public func release(_ jobs: [LogJob]) throws(LogError) -> [String] {
        var paths: [String] = []
        for case .compact(let index) in jobs { paths += try releaseSegments(upTo: index) }
        return paths
    }
}
