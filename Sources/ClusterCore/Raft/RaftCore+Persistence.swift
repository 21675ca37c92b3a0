import Base
import DequeModule

/// A write on its way to the disk.
struct PendingTicket: Sendable {
    let ticket: PersistTicket
    /// When it was given out, or the one before it was done.
    var since: Instant
    /// The last entry that is on disk once this and all earlier tickets are done. Moved back when the log is truncated, so that
    /// a completion never vouches for an entry that took the place of the one written. (the ABA rule)
    var through: LogPosition
    var held: [Held]
}

/// A promise waiting for the disk.
enum Held: Sendable {
    case message(Message)
    /// Everything up to `match` agrees with the leader of `term`.
    case accept(match: LogIndex, term: Term, to: MemberID)
    /// This member's vote for itself.
    case ownVote(term: Term)
}

extension RaftCore {
    /// Holds a message until everything decided so far is durable. Repeated acknowledgements in one batch become one.
    mutating func hold(_ promise: Held) {
        if case .accept(let match, let term, let leader) = promise, case .accept(let earlier, term, leader) = held.last {
            held[held.count - 1] = .accept(match: max(match, earlier), term: term, to: leader)
            return
        }
        held.append(promise)
    }

    mutating func emitPersist(_ now: Instant, _ effects: inout [RaftEffect]) {
        let hasEntries = queued < log.last.index
        if hasEntries || hardState != queuedHardState || pendingReset != nil {
            lastTicket = PersistTicket(lastTicket.rawValue + 1)
            let entries = hasEntries ? slice(from: queued.next, through: log.last.index) : []
            effects.append(.persist(PersistBatch(ticket: lastTicket, hardState: hardState != queuedHardState ? hardState : nil,
                                                 entries: entries, reset: pendingReset)))
            tickets.append(PendingTicket(ticket: lastTicket, since: now, through: log.last, held: held))
            held.removeAll(keepingCapacity: true)
            queued = log.last.index
            queuedHardState = hardState
            pendingReset = nil
        } else if !held.isEmpty {
            // Nothing new to write, but what the promise rests on may still be on its way to the disk.
            if tickets.isEmpty {
                // Its owner is `.persisted`; with no write under way the promise is already kept.
                let promises = held
                held.removeAll(keepingCapacity: true)
                for promise in promises { keepOutsideTicket(promise, &effects) }
            } else {
                tickets[tickets.count - 1].held.append(contentsOf: held)
                held.removeAll(keepingCapacity: true)
            }
        }
    }

    mutating func onPersisted(_ ticket: PersistTicket, _ now: Instant, _ effects: inout [RaftEffect]) {
        precondition(ticket <= lastTicket, "ticket \(ticket.rawValue) completed, the last given out is \(lastTicket.rawValue)")
        if diskIsStuck, let first = tickets.first, first.ticket <= ticket {
            diskIsStuck = false
            effects.append(.note(.diskRecovered(after: now - first.since)))
        }
        while let first = tickets.first, first.ticket <= ticket {
            tickets.removeFirst()
            if first.through.index > durable {
                precondition(log.holds(first.through), "durable \(first.through.index.rawValue)@\(first.through.term.rawValue) is not in the log")
                durable = first.through.index
                lead.commitMayAdvance = true
            }
            for promise in first.held { keep(promise, now, &effects) }
        }
        if !tickets.isEmpty { tickets[0].since = now }
    }

    private mutating func keep(_ promise: Held, _ now: Instant, _ effects: inout [RaftEffect]) {
        switch promise {
        case .ownVote(let voteTerm):
            if role == .candidate && voteTerm == term { recordVote(from: id, granted: true, now, &effects) }
        default:
            keepOutsideTicket(promise, &effects)
        }
    }

    /// What was promised in an earlier term is not sent any more: the log may have been rewritten since.
    private func keepOutsideTicket(_ promise: Held, _ effects: inout [RaftEffect]) {
        switch promise {
        case .message(let message):
            if message.term == term { effects.append(.send(message)) }
        case .accept(let match, let acceptedTerm, let leader):
            if acceptedTerm == term { send(.appendAccepted(match: match), to: leader, &effects) }
        case .ownVote:
            // A candidacy always changes the hard state, so it always has a ticket.
            preconditionFailure("own vote in term \(term.rawValue) without a write")
        }
    }

    /// Forgets entries from `index` on, in the log and in what the disk was believed to hold.
    mutating func truncateLog(from index: LogIndex, _ effects: inout [RaftEffect]) {
        precondition(index > commit, "truncate from \(index.rawValue), committed \(commit.rawValue)")
        log.truncate(from: index)
        sliceCache = nil
        queued = min(queued, log.last.index)
        durable = min(durable, log.last.index)
        for i in tickets.indices where tickets[i].through.index > log.last.index { tickets[i].through = log.last }
        if !planted(.keepsOverwrittenConfigurations) { takeBackConfigurations(from: index, &effects) }
    }

    /// A run of entries as an array, shared while callers ask for the same run.
    mutating func slice(from: LogIndex, through: LogIndex) -> [Entry] {
        if let cached = sliceCache, cached.from == from, cached.through == through { return cached.entries }
        let entries = log.slice(from: from, through: through)
        sliceCache = (from, through, entries)
        return entries
    }

    // MARK: Commit, apply, compact

    /// Moves the commit index forward and settles what hangs on it.
    mutating func advanceCommit(to index: LogIndex, _ effects: inout [RaftEffect]) {
        guard index > commit else { return }
        let bytes = role == .leader && index == log.last.index ? lead.uncommittedBytes : log.cost(from: commit.next, through: index)
        if role == .leader { lead.uncommittedBytes -= bytes }
        backlogBytes += bytes
        commit = index
        var settled = 0
        while settled + 1 < configurations.count, configurations[settled + 1].index <= index { settled += 1 }
        if settled > 0 { configurations.removeFirst(settled) }
    }

    /// Gives out what is committed and on this member's own disk: so its store never runs ahead of its log.
    mutating func handOut(_ effects: inout [RaftEffect]) {
        let limit = planted(.appliesBeforeSync) ? commit : min(commit, durable)
        guard limit > handedOut else { return }
        let room = options.maxUnappliedBytes - unappliedBytes
        let first = handedOut.next
        if unappliedBytes > 0 && room < log.cost(at: first) { return }
        let (through, bytes) = backlogBytes <= room && limit == commit
            ? (limit, backlogBytes) : log.extent(from: first, through: limit, maxBytes: room)
        effects.append(.apply(slice(from: first, through: through)))
        handedOut = through
        unappliedBytes += bytes
        backlogBytes -= bytes
    }

    mutating func onApplied(_ index: LogIndex) {
        precondition(index <= handedOut, "applied \(index.rawValue), handed out \(handedOut.rawValue)")
        // Not further than before: reported for entries that a snapshot has overtaken.
        guard index > applied else { return }
        unappliedBytes = index == handedOut ? 0 : unappliedBytes - log.cost(from: applied.next, through: index)
        applied = index
    }

    /// Drops what is in a durable snapshot, but for the newest `keptEntries` of at most `keptBytes`: a peer that is a little
    /// behind is spared a snapshot.
    mutating func onCompact(upTo wanted: LogIndex) {
        let index = min(wanted, applied)
        guard index > compacted else { return }
        compactedBytes += log.cost(from: max(compacted, log.start.index).next, through: index)
        compacted = index
        var drop = log.start.index
        while drop < compacted, drop.distance(to: compacted) > options.keptEntries || compactedBytes > options.keptBytes {
            drop = drop.next
            compactedBytes -= log.cost(at: drop)
        }
        log.dropPrefix(through: drop)
    }
}
