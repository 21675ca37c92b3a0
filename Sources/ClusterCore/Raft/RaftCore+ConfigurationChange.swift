import Base

/// Why a change makes no configuration.
public enum ConfigurationFault: Error, Hashable, Sendable {
    /// No voter would be left.
    case noVoters
    /// A joint change is under way: it must end first.
    case isJoint
    /// There is no joint change to end.
    case isNotJoint
    /// A step names nobody.
    case noMember
}

extension Configuration {
    /// The configuration after `change`: at once if at most one voter differs, else joint with the present one as the outgoing
    /// half (Raft §4.3). Without steps the change ends a joint configuration. Pure: every member computes the same.
    public func applying(_ change: ConfigurationChange) throws(ConfigurationFault) -> Configuration {
        if change.steps.isEmpty { return try leavingJoint() }
        guard !isJoint else { throw .isJoint }
        var newVoters = voters
        var newLearners = learners
        for step in change.steps {
            let member: MemberID
            switch step {
            case .addVoter(let id), .addLearner(let id), .remove(let id): member = id
            }
            guard member != .none else { throw .noMember }
            newVoters.removeAll { $0 == member }
            newLearners.removeAll { $0 == member }
            switch step {
            case .addVoter: newVoters.append(member)
            case .addLearner: newLearners.append(member)
            case .remove: break
            }
        }
        guard !newVoters.isEmpty else { throw .noVoters }
        let differing = newVoters.count { !voters.contains($0) } + voters.count { !newVoters.contains($0) }
        guard differing > 1 || change.forcesJoint else {
            return Configuration(voters: newVoters, learners: newLearners)
        }
        // A voter that becomes a learner stays a voter of the outgoing half till the end.
        return Configuration(voters: newVoters, outgoingVoters: voters, learners: newLearners.filter { !voters.contains($0) },
                             nextLearners: newLearners.filter { voters.contains($0) }, leavesJointAutomatically: true)
    }

    /// The configuration after a `.configuration` entry with this payload. A payload that cannot be read or makes no sense
    /// changes nothing, for every member alike; a leader never appends one.
    public func applying(entryPayload payload: [UInt8]) -> Configuration {
        if let whole = Configuration(bootstrapPayload: payload) { return whole }
        guard let change = try? ConfigurationChange(entryPayload: payload), let next = try? applying(change) else { return self }
        return next
    }

    private func leavingJoint() throws(ConfigurationFault) -> Configuration {
        guard isJoint else { throw .isNotJoint }
        return Configuration(voters: voters, learners: learners + nextLearners)
    }
}

extension RaftCore {
    /// Leader only (`.noLeader` elsewhere: the server passes such requests on itself). One change at a time, and none before this
    /// term's first commit, which a change taking effect on append needs for safety.
    mutating func onProposeConfiguration(_ change: ConfigurationChange, _ now: Instant, _ effects: inout [RaftEffect]) {
        func refuse(_ reason: RaftRefusal, _ effects: inout [RaftEffect]) {
            effects.append(.configurationRefused(change, reason))
        }
        guard role == .leader else { return refuse(.noLeader, &effects) }
        guard lead.transfer == nil else { return refuse(.transferring, &effects) }
        guard lead.hasCommitted, configurations.count == 1 else { return refuse(.configurationPending, &effects) }
        do {
            _ = try configuration.applying(change)
        } catch .isJoint {
            return refuse(.configurationPending, &effects)
        } catch {
            return refuse(.notAllowed, &effects)
        }
        appendConfiguration(change.steps.isEmpty ? [] : change.entryPayload, now, &effects)
    }

    /// The first leader of a cluster writes down who is in it, as the log's first entry: the founders know it from their start,
    /// but a member that joins later and replays the log has only the log.
    mutating func appendFoundingConfiguration(_ now: Instant, _ effects: inout [RaftEffect]) {
        guard log.last == .zero else { return }
        appendConfiguration(configuration.bootstrapPayload(context: foundingContext), now, &effects)
    }

    private mutating func appendConfiguration(_ payload: [UInt8], _ now: Instant, _ effects: inout [RaftEffect]) {
        appendEntry(.configuration, payload)
        noteConfiguration(of: log.entry(at: log.last.index), &effects)
        rebuildPeers(now, &effects)
        lead.commitMayAdvance = true
    }

    /// Puts the configuration of an entry into effect.
    mutating func noteConfiguration(of entry: Entry, _ effects: inout [RaftEffect]) {
        guard noteConfiguration(of: entry) else { return }
        effects.append(.note(.configurationChanged(configuration)))
    }

    @discardableResult
    mutating func noteConfiguration(of entry: Entry) -> Bool {
        guard entry.kind == .configuration else { return false }
        let before = configuration
        configurations.append((entry.index, before.applying(entryPayload: entry.payload)))
        return configuration != before
    }

    /// The entries from `index` on were overwritten by another leader's.
    mutating func takeBackConfigurations(from index: LogIndex, _ effects: inout [RaftEffect]) {
        guard configurations.count > 1, configurations[configurations.count - 1].index >= index else { return }
        let before = configuration
        while configurations.count > 1, configurations[configurations.count - 1].index >= index { configurations.removeLast() }
        if configuration != before { effects.append(.note(.configurationChanged(configuration))) }
    }

    /// The newest configuration is committed: a joint one ends by itself, and a leader that is no voter any more steps down.
    mutating func onConfigurationSettled(_ now: Instant, _ effects: inout [RaftEffect]) {
        guard configurations.count == 1, lead.hasCommitted else { return }
        if configuration.isJoint {
            if configuration.leavesJointAutomatically { appendConfiguration([], now, &effects) }
            return
        }
        if !configuration.isVoter(id) {
            handLeadershipOn(&effects)
            return becomeFollower(term: term, leader: .none, .removed, now, &effects)
        }
        rebuildPeers(now, &effects)
    }

    /// The one that is furthest may campaign at once, so that no election timeout passes.
    private mutating func handLeadershipOn(_ effects: inout [RaftEffect]) {
        for peer in lead.peers {
            send(.heartbeat(commit: min(peer.match, commit), round: .none), to: peer.id, &effects)
        }
        var best: Progress?
        for peer in lead.peers where peer.isVoter && peer.match > best?.match ?? .zero { best = peer }
        if let best { send(.timeoutNow, to: best.id, &effects) }
    }

    /// Peers are everyone in the newest configuration, and until that is committed everyone in the old one: a member that is
    /// removed should learn it, for then it does not campaign.
    mutating func rebuildPeers(_ now: Instant, _ effects: inout [RaftEffect]) {
        var members = configuration.everyone
        if configurations.count > 1 {
            for member in configurations[0].configuration.everyone where !members.contains(member) { members.append(member) }
            members.sort()
        }
        let old = lead.peers
        lead.peers = []
        for member in members where member != id {
            var progress = old.first { $0.id == member } ?? Progress(id: member, isVoter: true, next: log.last.index.next, now: now)
            progress.isVoter = configuration.isVoter(member)
            progress.departure = nil
            lead.peers.append(progress)
        }
        for var gone in old where !members.contains(gone.id) {
            if lead.transfer?.target == gone.id {
                lead.transfer = nil
                effects.append(.note(.transferAborted(to: gone.id)))
            }
            if gone.departure == nil { gone.departure = (configurations[0].index, now + options.electionTimeout) }
            gone.isVoter = false
            lead.peers.append(gone)
        }
        lead.peers.sort { $0.id < $1.id }
        seeOffRemoved(now, &effects)
    }

    /// A removed member that holds the entry of its removal gets the commit index once more, and then nothing. Others that were faster have
    /// committed without it; it is waited for, but not longer than an election timeout.
    mutating func seeOffRemoved(_ now: Instant, _ effects: inout [RaftEffect]) {
        guard lead.peers.contains(where: { $0.departure != nil }) else { return }
        for peer in lead.peers {
            guard let departure = peer.departure, peer.match >= departure.index || now >= departure.deadline else { continue }
            send(.heartbeat(commit: min(peer.match, commit), round: .none), to: peer.id, &effects)
        }
        lead.peers.removeAll { peer in peer.departure.map { peer.match >= $0.index || now >= $0.deadline } ?? false }
    }
}
