import Base
import NIOCore
import Raft
import Replica

/// Times entries on their way through one member from what goes in and out of the machine with each batch, so that the machine itself
/// needs no clock. A mark stands for all entries of a batch. Confined to the replica loop; used only while somebody observes.
struct StageMeter {
    private struct Mark {
        var through: LogIndex
        var count: Int
        var at: Instant
    }
    /// Marks kept of each kind: entries that come while so many wait for a quorum are not timed.
    private static let maxMarks = 4_096

    private var proposed = CircularBuffer<Mark>()
    private var committed = CircularBuffer<Mark>()
    private var sent: [(peer: MemberID, marks: CircularBuffer<Mark>)] = []
    private var last: ReplicaProgress?

    /// Before the batch: what a peer has on its disk now.
    mutating func accepted(_ match: LogIndex, from peer: MemberID, at now: Instant, into times: StageTimes) {
        guard let place = sent.firstIndex(where: { $0.peer == peer }) else { return }
        while let mark = sent[place].marks.first, mark.through <= match {
            times.record(.replicate, now - mark.at, count: mark.count)
            sent[place].marks.removeFirst()
        }
    }

    /// The batch's messages to peers.
    mutating func sends(_ messages: [PeerMessage], at now: Instant) {
        for message in messages {
            guard case .raft(let raft) = message.body, case .append(_, let entries, _) = raft.body, let through = entries.last?.index else { continue }
            let place: Int
            if let known = sent.firstIndex(where: { $0.peer == message.to }) {
                place = known
            } else {
                place = sent.count
                sent.append((message.to, CircularBuffer()))
            }
            // Sent again: what was sent before is taken as lost.
            if let newest = sent[place].marks.last, newest.through >= entries[0].index { sent[place].marks.removeAll(keepingCapacity: true) }
            if sent[place].marks.count < StageMeter.maxMarks { sent[place].marks.append(Mark(through: through, count: entries.count, at: now)) }
        }
    }

    /// After the batch, which took from `start` to `end`.
    mutating func handled(_ progress: ReplicaProgress, from start: Instant, to end: Instant, into times: StageTimes) {
        guard let before = last, before.isLeader == progress.isLeader else {
            proposed.removeAll()
            committed.removeAll()
            sent.removeAll()
            last = progress
            return
        }
        last = progress
        if progress.isLeader, progress.last > before.last, proposed.count < StageMeter.maxMarks {
            proposed.append(Mark(through: progress.last, count: before.last.distance(to: progress.last), at: start))
        }
        if progress.commit > before.commit, committed.count < StageMeter.maxMarks {
            committed.append(Mark(through: progress.commit, count: before.commit.distance(to: progress.commit), at: start))
        }
        while let mark = proposed.first, mark.through <= progress.commit {
            times.record(.quorumWait, start - mark.at, count: mark.count)
            proposed.removeFirst()
        }
        while let mark = committed.first, mark.through <= progress.applied {
            times.record(.apply, end - mark.at, count: mark.count)
            committed.removeFirst()
        }
    }
}
