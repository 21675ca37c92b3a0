import Base

extension RaftCore {
    /// Leader: the stream is over. What the follower made of it says its reply; if the reply is lost, a later probe finds out.
    mutating func onSnapshotSent(to peer: MemberID, succeeded: Bool, _ now: Instant) {
        // The peer may have left, caught up otherwise, or the leadership may be over.
        guard role == .leader, let i = lead.indexOfPeer(peer), lead.peers[i].phase == .snapshot else { return }
        if succeeded {
            lead.peers[i].snapshotSentAt = now
        } else {
            waitAfterSnapshot(peerAt: i)
        }
    }

    /// Leader: the follower installed the snapshot, or would not.
    mutating func onSnapshotReply(_ installed: LogPosition?, from peer: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) {
        guard role == .leader, let i = lead.indexOfPeer(peer) else { return }
        lead.peers[i].lastHeard = now
        guard let installed else {
            if lead.peers[i].phase == .snapshot { waitAfterSnapshot(peerAt: i) }
            return
        }
        // A snapshot holds what was committed, so it agrees with this log as far as this log goes.
        guard installed.index <= log.last.index, log.term(at: installed.index) ?? installed.term == installed.term else {
            effects.append(.note(.messageRefused(from: peer, .impossibleMatch)))
            return
        }
        if installed.index > lead.peers[i].match {
            lead.peers[i].match = installed.index
            lead.commitMayAdvance = true
        }
        if lead.peers[i].phase == .snapshot {
            // The log may have been compacted beyond it meanwhile; then the next append finds that out.
            lead.peers[i].becomeReplicate()
        } else {
            lead.peers[i].next = max(lead.peers[i].next, installed.index.next)
        }
    }

    /// Asks again only after the peer answered a heartbeat.
    private mutating func waitAfterSnapshot(peerAt i: Int) {
        lead.peers[i].becomeProbe(next: log.firstIndex)
        lead.peers[i].isPaused = true
    }

    /// Follower: the store is at the snapshot now, durably. If the log holds the snapshot's position it stays as it is: entries
    /// behind it may have been acknowledged. Otherwise the log begins anew behind it.
    ///
    /// The shell asks `wantsSnapshot` immediately before it replaces its store, with no other event in between. If the answer is
    /// no, it throws the snapshot away and reports this event all the same: the leader then learns that the member has it all.
    mutating func onSnapshotInstalled(_ metadata: SnapshotMetadata, from peer: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) {
        let position = metadata.position
        if position.index > commit {
            if log.holds(position) {
                advanceCommit(to: position.index, &effects)
            } else {
                precondition(role != .leader, "a leader installed a snapshot at \(position.index.rawValue) over its log to \(log.last.index.rawValue)")
                let before = configuration
                log.reset(to: position)
                sliceCache = nil
                // Writes under way no longer vouch for anything: what they wrote is in the snapshot or was never committed.
                for i in tickets.indices where tickets[i].through.index > position.index { tickets[i].through = position }
                commit = position.index
                queued = position.index
                durable = position.index
                compacted = position.index
                compactedBytes = 0
                pendingReset = position
                configurations = [(position.index, metadata.configuration)]
                if metadata.configuration != before { effects.append(.note(.configurationChanged(metadata.configuration))) }
            }
            // Entries given out before and not applied yet are overtaken.
            durable = max(durable, position.index)
            handedOut = position.index
            applied = position.index
            backlogBytes = 0
            unappliedBytes = 0
        }
        electionDeadline = max(electionDeadline, now + electionSpan)
        hold(.message(Message(from: id, to: peer, term: term, body: .snapshotReply(installed: position))))
    }
}
