import Base

// A leader with a stuck disk still sends heartbeats, so nobody replaces it, and serves nothing, since it applies only what is on its own
// disk. It notices by the age of its oldest unfinished write. (reliability.md 2.8; etcd #15247)
extension RaftCore {
    /// Half an election timeout: some hundred times an ordinary sync, so that a burst is no reason, and well before clients would have been
    /// served by waiting for an election.
    private var diskPatience: TimeSpan { options.electionTimeout / 2 }

    /// When the oldest write becomes suspicious.
    var diskDeadline: Instant {
        guard options.leavesStuckDisk, !diskIsStuck, let oldest = tickets.first else { return .distantFuture }
        return oldest.since + diskPatience
    }

    mutating func lookAtDisk(_ now: Instant, _ effects: inout [RaftEffect]) {
        if now >= diskDeadline {
            if now >= diskDeadline + options.heartbeatInterval * 2 {
                // Far too late: this process stood still, and its disk with it.
                tickets[0].since = now
                return
            }
            diskIsStuck = true
            effects.append(.note(.diskStuck(after: now - tickets[0].since)))
        }
        guard role == .leader, diskIsStuck, lead.transfer == nil, let heir = heirWithBetterDisk(now) else { return }
        onTransferLeadership(to: heir, now, &effects)
    }

    /// Who has on disk what this member's own could not write, so that all members on one slow disk do not pass leadership round. Asked
    /// again at each timer while there is none.
    private func heirWithBetterDisk(_ now: Instant) -> MemberID? {
        guard let oldest = tickets.first, let heir = bestHeir(at: now), let i = lead.indexOfPeer(heir) else { return nil }
        let match = lead.peers[i].match
        return match > durable && match >= oldest.through.index ? heir : nil
    }
}
