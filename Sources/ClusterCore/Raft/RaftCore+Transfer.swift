import Base

extension RaftCore {
    /// Lets the target catch up, then tells it to campaign at once. Proposals are refused meanwhile; after an election timeout
    /// the leader goes on as before. (Raft §3.10)
    mutating func onTransferLeadership(to target: MemberID, _ now: Instant, _ effects: inout [RaftEffect]) {
        // A wish that came too late, or makes no sense: nothing happens, and whoever waits for the new leader times out.
        guard role == .leader, target != id, configuration.isVoter(target), let i = lead.indexOfPeer(target),
              lead.transfer?.target != target else { return }
        if let other = lead.transfer { effects.append(.note(.transferAborted(to: other.target))) }
        lead.transfer = Transfer(target: target, deadline: now + options.electionTimeout)
        effects.append(.note(.transferStarted(to: target)))
        continueTransfer(peerAt: i, &effects)
        if lead.peers[i].match < log.last.index { lead.peers[i].mustSend = true }
    }

    /// The voter that holds most of the log and was heard of lately; of equals the one with the lowest id.
    public func bestHeir(at now: Instant) -> MemberID? {
        var best: Progress?
        for peer in lead.peers where configuration.isVoter(peer.id) && now < peer.lastHeard + options.electionTimeout {
            if best.map({ peer.match > $0.match }) ?? true { best = peer }
        }
        return best?.id
    }

    mutating func continueTransfer(peerAt i: Int, _ effects: inout [RaftEffect]) {
        guard let transfer = lead.transfer, !transfer.isAsked, transfer.target == lead.peers[i].id,
              lead.peers[i].match == log.last.index else { return }
        lead.transfer?.isAsked = true
        send(.timeoutNow, to: transfer.target, &effects)
    }
}
