import Base
import Raft

/// What a member asks of its log.
public enum LogJob: Sendable {
    case persist(PersistBatch)
    /// Entries up to here may leave the files.
    case compact(upTo: LogIndex)
}

extension WriteAheadLog {
    /// Does everything that waits, in the one order that is safe: all batches become one write and one sync, only then is the last of them reported,
    /// and only then do segments go. Real and simulated disk threads call it. The first failure is final: nothing is reported after it.
    /// - Parameters:
    ///   - willSync: called when a sync is about to begin.
    ///   - persisted: every batch up to this ticket is durable.
    ///   - released: files that are not needed any more. Removing a large one takes tens of milliseconds, which no sync should wait for.
    public func carryOut(_ jobs: [LogJob], willSync: () -> Void = {}, persisted: (PersistTicket) -> Void, released: ([String]) -> Void) throws(LogError) {
        var last: PersistTicket?
        for case .persist(let batch) in jobs {
            append(batch)
            last = batch.ticket
        }
        if let last {
            willSync()
            try sync()
            persisted(last)
        }
        for case .compact(let index) in jobs {
            let paths = try releaseSegments(upTo: index)
            if !paths.isEmpty { released(paths) }
        }
    }
}
