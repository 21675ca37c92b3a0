import Base
import Raft
import Replica
import Store

/// Watches every turn of every member. Each check looks only at what the turn changed, so that all of them can always be on.
struct Invariants {
    var ledger = Ledger()
    /// Who led each term that is remembered, ascending by term.
    private var leaders: [(term: UInt64, leader: MemberID)] = []
    private(set) var elections = 0
    private(set) var checks: UInt64 = 0

    /// A member handed a write to its disk: what it appended must match what others have.
    mutating func appending(_ batch: PersistBatch, on process: SimulatedNode.Process) -> Violation? {
        checks += 1
        for entry in batch.entries {
            let previous = entry.index.rawValue - 1
            let term: UInt64? = if let reset = batch.reset, reset.index.rawValue == previous { reset.term.rawValue } else if entry.index == batch.entries[0].index {
                process.shadow.term(at: previous)
            } else { batch.entries[Int(entry.index.rawValue - batch.entries[0].index.rawValue) - 1].term.rawValue }
            if let violation = ledger.appended(entry, previousTerm: term) { return violation }
        }
        if let first = batch.entries.first?.index.rawValue, first <= process.seen.commit, batch.reset == nil {
            return Violation("committed-prefix", "entry \(first) is overwritten, committed are \(process.seen.commit)")
        }
        return nil
    }

    /// A message is about to leave. Votes and acknowledgements promise what must be durable by now. (Raft figure 2)
    func sending(_ message: PeerMessage, from node: SimulatedNode) -> Violation? {
        guard case .raft(let raft) = message.body else { return nil }
        switch raft.body {
        case .voteReply(granted: true, isPreVote: false, _):
            guard node.durable.hardState.term == raft.term, node.durable.hardState.vote == raft.to else {
                return Violation("vote-durable", "vote for \(raft.to) in term \(raft.term.rawValue) leaves, durable is the one for \(node.durable.hardState.vote) in term \(node.durable.hardState.term.rawValue)")
            }
        case .appendAccepted(let match):
            guard node.durable.last >= match.rawValue else {
                return Violation("ack-durable", "acknowledges \(match.rawValue), durable are \(node.durable.last)")
            }
        default: break
        }
        return nil
    }

    /// A linearizable read sees all that anybody knew to be committed when it was asked, an empty entry as well: whoever answers led until then,
    /// for all that a quorum knew, and has applied as much. That shows a deposed leader's answer before a client happens to see that it is stale.
    /// (Raft §6.4)
    static func reading(_ range: RangeRequest, askedAt commit: UInt64, from node: SimulatedNode) -> Violation? {
        guard !range.serializable, let applied = node.process?.replica.applied.index.rawValue, applied < commit else { return nil }
        return Violation("fresh-read", "a read that was asked when \(commit) was committed is answered as of \(applied)")
    }

    /// A member is about to replace its store by a streamed snapshot, having said that it wants it: that must take it forward, however late the
    /// snapshot comes.
    static func installing(_ snapshot: SnapshotMetadata, on process: SimulatedNode.Process) -> Violation? {
        guard snapshot.position.index.rawValue <= process.seen.commit else { return nil }
        return Violation("snapshot-forward", "a snapshot at \(snapshot.position.index.rawValue) is installed over \(process.seen.commit), which are committed")
    }

    /// After each turn of a member.
    /// - Returns: entries that are committed as of now, in order, and the first broken promise.
    mutating func turned(_ node: SimulatedNode, _ process: SimulatedNode.Process, _ nodes: [SimulatedNode],
                         firstCommitted: (UInt64, Ledger.Version) -> Violation?) -> Violation? {
        checks += 1
        let status = process.replica.status(includingPeers: false)
        let raft = status.raft
        let seen = process.seen
        let term = raft.hardState.term.rawValue
        if term < seen.term { return Violation("term-monotone", "term went from \(seen.term) to \(term)") }
        if term == seen.term, seen.vote != 0, raft.hardState.vote.rawValue != seen.vote {
            return Violation("vote-once", "term \(term): vote went from \(hex(seen.vote)) to \(raft.hardState.vote)")
        }
        let commit = raft.commit.rawValue
        let applied = status.applied.rawValue
        if commit < seen.commit { return Violation("commit-monotone", "commit went from \(seen.commit) to \(commit)") }
        if applied < seen.applied { return Violation("applied-monotone", "applied went from \(seen.applied) to \(applied)") }
        if status.revision.rawValue < seen.revision { return Violation("revision-monotone", "revision went from \(seen.revision) to \(status.revision.rawValue)") }
        guard applied <= commit, commit <= raft.last.index.rawValue, raft.durable <= raft.last.index else {
            return Violation("order", "applied \(applied), commit \(commit), last \(raft.last.index.rawValue), durable \(raft.durable.rawValue)")
        }
        process.seen = SimulatedNode.Seen(term: term, vote: raft.hardState.vote.rawValue, role: raft.role, commit: commit, applied: applied,
                                          revision: status.revision.rawValue, authRevision: status.authRevision, isAuthEnabled: status.isAuthEnabled,
                                          configuration: raft.configuration)
        if raft.role == .leader, seen.role != .leader || seen.term != term {
            if let violation = elected(node, process, term) { return violation }
        }
        if !process.replica.isRemoved, raft.configuration != process.shadow.configuration {
            return Violation("configuration", "\(raft.configuration) is in force, the newest in the log is \(process.shadow.configuration)")
        }
        if commit > seen.commit {
            var news: (index: UInt64, term: UInt64)?
            // A snapshot carries over what the shadow does not hold; its position was committed elsewhere, or the hash will tell.
            for index in max(seen.commit, process.shadow.start) + 1...max(commit, process.shadow.start + 1) where index <= commit {
                // A member that finds itself removed in a snapshot says nothing more, to its disk neither.
                if process.replica.isRemoved, index > process.shadow.last { break }
                guard let entryTerm = process.shadow.term(at: index) else { return Violation("order", "commit \(commit) lies behind the log's end \(process.shadow.last)") }
                let (violation, first) = ledger.committed(index, term: entryTerm)
                if let violation { return violation }
                guard let first else { continue }
                // A change that was appended in this very turn came behind the commit.
                if let violation = quorumHolds(index, entryTerm, raft.configuration, nodes), quorumHolds(index, entryTerm, seen.configuration ?? raft.configuration, nodes) != nil {
                    return violation
                }
                if let violation = firstCommitted(index, first) { return violation }
                news = (index, entryTerm)
            }
            if let (index, term) = news, let violation = nobodyCanWinWithout(index, term, raft.configuration, nodes),
               nobodyCanWinWithout(index, term, seen.configuration ?? raft.configuration, nodes) != nil { return violation }
            // What an earlier leader left counts as committed only together with an entry of the leader's own. (Raft §5.4.2)
            if raft.role == .leader, seen.role == .leader, seen.term == term, let committedTerm = process.shadow.term(at: commit), committedTerm != term {
                return Violation("commit-own-term", "the leader of term \(term) commits up to entry \(commit) of term \(committedTerm)")
            }
        }
        if applied > seen.applied {
            for index in seen.applied + 1...applied {
                guard let hash = process.replica.stateHash(at: LogIndex(index)) else { continue }
                if let violation = ledger.applied(index, hash: hash.rawValue, by: node.id) { return violation }
            }
        }
        return nil
    }

    /// Election safety and leader completeness. (Raft figure 3)
    private mutating func elected(_ node: SimulatedNode, _ process: SimulatedNode.Process, _ term: UInt64) -> Violation? {
        if let known = leaders.last(where: { $0.term == term }) {
            guard known.leader == node.id else { return Violation("election-safety", "term \(term) has two leaders, \(known.leader) and \(node.id)") }
            return nil
        }
        leaders.append((term, node.id))
        if leaders.count > 512 { leaders.removeFirst(256) }
        elections += 1
        guard node.durable.hardState.term.rawValue == term, node.durable.hardState.vote == node.id else {
            return Violation("vote-durable", "leads term \(term) on a vote of its own that is not durable")
        }
        let commit = ledger.commit
        if commit > process.shadow.start, let committed = ledger.committedTerm(commit) {
            // A leader of an older term that wins late, when a newer one has committed already, harms nobody.
            guard committed > term || process.shadow.term(at: commit) == committed else {
                return Violation("leader-completeness", "the leader of term \(term) lacks entry \(commit) of term \(committed), which is committed")
            }
        }
        return nil
    }

    /// Leader completeness, before it is too late: by what is on their disks, no voter without the entry could ever be elected. A copy of an entry
    /// of an earlier term on every disk of a quorum does not make that sure. (Raft §5.4.2)
    private func nobodyCanWinWithout(_ index: UInt64, _ term: UInt64, _ configuration: Configuration, _ nodes: [SimulatedNode]) -> Violation? {
        func members(_ voters: [MemberID]) -> [SimulatedNode] { voters.compactMap { voter in nodes.first { $0.id == voter && !$0.isLost } } }
        let halves = configuration.outgoingVoters.isEmpty ? [configuration.voters] : [configuration.voters, configuration.outgoingVoters]
        for candidate in members(configuration.everyone) {
            let log = candidate.durable
            if log.start >= index || log.term(at: index) == term { continue }
            let wins = halves.allSatisfy { voters in
                members(voters).count { ($0.durable.lastTerm, $0.durable.last) <= (log.lastTerm, log.last) } * 2 > voters.count
            }
            guard !wins else {
                return Violation("leader-completeness", "\(candidate.id) could be elected without entry \(index) of term \(term), which counts as committed: its log ends at \(log.last)@\(log.lastTerm)")
            }
        }
        return nil
    }

    /// What is committed is on the disks of a quorum of the configuration that decided it.
    private func quorumHolds(_ index: UInt64, _ term: UInt64, _ configuration: Configuration, _ nodes: [SimulatedNode]) -> Violation? {
        func holds(_ voters: [MemberID]) -> Bool {
            var count = 0
            for voter in voters {
                guard let node = nodes.first(where: { $0.id == voter }) else { continue }
                if node.durable.start >= index || node.durable.term(at: index) == term { count += 1 }
            }
            return count * 2 > voters.count
        }
        guard holds(configuration.voters), configuration.outgoingVoters.isEmpty || holds(configuration.outgoingVoters) else {
            return Violation("quorum-durable", "entry \(index) of term \(term) counts as committed without being durable on a quorum of \(configuration.voters.map(\.description))")
        }
        return nil
    }
}
