import Base
import DequeModule
import Raft
import Store

// Who belongs to the cluster, and changes of it.
//
// A member that is asked passes the wish to the leader, which alone can judge it: it knows who is connected and how far everyone's log is.
// The leader takes one wish at a time, judges it against the table that all earlier changes have reached, and appends a configuration entry
// that names the asker; the asker answers its client when it applies that entry. Since no other change can come between, what was judged is
// what is applied, and applying needs no judgement.
extension Replica {
    /// A client's wish that waits here.
    struct PendingChange {
        var number: UInt64
        var token: RequestToken
        var request: MembershipRequest
        /// In which a leader was asked; zero: none was yet. A leader takes a wish only in the term that it names, so once an entry of a later
        /// term is applied, it was applied by then or never will be, and another may be asked.
        var term: Term
        var startedAt: Instant
        var deadline: Instant
    }
    /// Leader: a wish that waits for its turn.
    struct QueuedChange {
        var asker: MemberID
        var number: UInt64
        var request: MembershipRequest
        var deadline: Instant
    }

    /// Wishes that one leader has waiting; more are refused.
    static let maxQueuedChanges = 64
    /// A learner may be promoted when it lacks at most this many entries: what a healthy one has on the way under load.
    static let maxPromotionLag: UInt64 = 1000

    // MARK: The asker's side

    func takeChange(_ request: MembershipRequest, _ token: RequestToken, at now: Instant, into effects: inout ReplicaEffects) {
        guard pendingChanges.count < Replica.maxQueuedChanges else {
            return effects.answers.append((token, .failed(.requestTooManyRequests)))
        }
        pendingChanges.append(PendingChange(number: nextNumber, token: token, request: request, term: .zero, startedAt: now,
                                            deadline: now + options.requestTimeout))
        nextNumber += 1
    }

    /// Asks the leader, if there is one, what no leader was asked yet.
    func askChanges(at now: Instant, into effects: inout ReplicaEffects) {
        guard !pendingChanges.isEmpty, raft.leader != .none else { return }
        for at in pendingChanges.indices where pendingChanges[at].term == .zero {
            pendingChanges[at].term = raft.term
            let change = pendingChanges[at]
            if raft.isLeader {
                queueChange(change.request, asker: id, number: change.number, at: now, into: &effects)
            } else {
                send(.changeMembership(number: change.number, term: raft.term, change.request), to: raft.leader, into: &effects)
            }
        }
    }

    /// See `proposeAgain(before:)`.
    func askChangesAgain(before term: Term) {
        for at in pendingChanges.indices where pendingChanges[at].term < term { pendingChanges[at].term = .zero }
        if !pendingChanges.isEmpty { mustAskAgain = true }
    }

    func changeRefused(_ number: UInt64, _ error: ServiceError, into effects: inout ReplicaEffects) {
        guard let at = pendingChanges.firstIndex(where: { $0.number == number }) else { return }  // given up meanwhile
        effects.answers.append((pendingChanges.remove(at: at).token, .failed(error)))
    }

    func expireChanges(at now: Instant, into effects: inout ReplicaEffects) {
        queuedChanges.removeAll { $0.deadline <= now }
        while let first = pendingChanges.first, first.deadline <= now {
            pendingChanges.removeFirst()
            effects.answers.append((first.token, .failed(timeoutError(startedAt: first.startedAt, at: now))))
        }
    }

    // MARK: The leader's side

    func queueChange(_ request: MembershipRequest, asker: MemberID, number: UInt64, at now: Instant, into effects: inout ReplicaEffects) {
        // A network may double what it carries.
        guard !takenChanges.contains(where: { $0.asker == asker && $0.number == number }) else { return }
        takenChanges.append((asker, number))
        if takenChanges.count > Replica.maxQueuedChanges * 2 { takenChanges.removeFirst() }
        guard queuedChanges.count < Replica.maxQueuedChanges else {
            return refuseChange(asker, number, .requestTooManyRequests, into: &effects)
        }
        queuedChanges.append(QueuedChange(asker: asker, number: number, request: request, deadline: now + options.requestTimeout))
    }

    private func refuseChange(_ asker: MemberID, _ number: UInt64, _ error: ServiceError, into effects: inout ReplicaEffects) {
        if asker == id {
            changeRefused(number, error, into: &effects)
        } else if asker != .none {
            send(.membershipRefused(number: number, error), to: asker, into: &effects)
        }
    }

    /// Gives consensus the next change, when the one before is applied here: then the table is what the next one must be judged by.
    func proposeChanges(at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        guard raft.isLeader, raft.hasCommittedInTerm, openChange == nil, let settled = raft.settledConfigurationIndex, settled <= applied.index else { return }
        while let next = queuedChanges.first {
            switch judge(next.request, at: now) {
            case .wait: return
            case .refused(let error):
                queuedChanges.removeFirst()
                refuseChange(next.asker, next.number, error, into: &effects)
            case .allowed(let step):
                queuedChanges.removeFirst()
                let entry = MembershipEntry(asker: next.asker, number: next.number, change: .request(next.request))
                openChange = next
                raft.handle(.proposeConfiguration(ConfigurationChange(steps: [step], context: entry.encoded())), at: now, wall: wall, into: &raftEffects)
                return
            }
        }
        admitNewVoter(at: now, wall: wall)
    }

    /// A member that was added as a voter starts to vote once it has caught up.
    private func admitNewVoter(at now: Instant, wall: WallTime) {
        guard !raft.configuration.learners.isEmpty else { return }
        let joining = raft.configuration.learners.filter { membership.member($0)?.isLearner == false }
        guard !joining.isEmpty else { return }
        let status = raft.status(includingPeers: true)
        guard let ready = joining.first(where: { isCaughtUp($0, status) }) else { return }
        let entry = MembershipEntry(change: .admit(ready))
        raft.handle(.proposeConfiguration(ConfigurationChange(steps: [.addVoter(ready)], context: entry.encoded())), at: now, wall: wall, into: &raftEffects)
    }

    /// Consensus did not take the change that was given last.
    func changeNotTaken(_ reason: RaftRefusal, into effects: inout ReplicaEffects) {
        guard let change = openChange else { return }  // an admission: tried again
        openChange = nil
        switch reason {
        // A transfer ends, or the asker finds the next leader.
        case .transferring, .configurationPending: queuedChanges.insert(change, at: 0)
        case .noLeader, .leaderChanged: break
        case .notAllowed, .tooManyUncommitted: refuseChange(change.asker, change.number, .memberNotEnoughStarted, into: &effects)
        }
    }

    /// What waits is not taken any more: the asker knows when to ask the next leader.
    func dropQueuedChanges() {
        queuedChanges = []
        takenChanges = []
        openChange = nil
    }

    private enum Judgement {
        case allowed(ConfigurationChange.Step)
        case refused(ServiceError)
        /// A leader this new has not heard everyone yet.
        case wait
    }

    private func judge(_ request: MembershipRequest, at now: Instant) -> Judgement {
        let table = membership.refusal(of: request, maxLearners: options.maxLearners)
        let strict = options.strictReconfigurationCheck
        let configuration = raft.configuration
        switch request {
        case .add(let member):
            if strict {
                if !membership.hasEnoughStarted(for: request) { return .refused(.memberNotEnoughStarted) }
                // The quorum after the change must be there without the newcomer, whose address may be wrong; a lone member has no other way.
                if !member.isLearner, configuration.voters.count > 1, let doubt = doubtAboutQuorum(of: configuration.voters + [member.id], at: now) {
                    return doubt
                }
            }
            return table.map { .refused($0) } ?? .allowed(.addLearner(member.id))
        case .remove(let id):
            if strict, !membership.hasEnoughStarted(for: request) { return .refused(.memberNotEnoughStarted) }
            let rest = configuration.voters.filter { $0 != id }
            if rest.isEmpty { return .refused(table ?? .memberNotEnoughStarted) }
            if strict, rest.count < configuration.voters.count, let doubt = doubtAboutQuorum(of: rest, at: now) { return doubt }
            return table.map { .refused($0) } ?? .allowed(.remove(id))
        case .update(let id, _):
            if let table { return .refused(table) }
            return .allowed(configuration.isVoter(id) ? .addVoter(id) : .addLearner(id))
        case .promote(let id):
            if let table { return .refused(table) }
            if !isCaughtUp(id, raft.status(includingPeers: true)) { return .refused(.learnerNotReady) }
            if strict, !membership.hasEnoughStarted(for: request) { return .refused(.memberNotEnoughStarted) }
            return .allowed(.addVoter(id))
        }
    }

    /// Nil when a quorum of these voters is connected. (reliability.md, incident 38)
    private func doubtAboutQuorum(of voters: [MemberID], at now: Instant) -> Judgement? {
        let peers = raft.status(includingPeers: true).peers
        let connected = voters.count { voter in voter == id || peers.contains { $0.id == voter && hasAnswered($0) } }
        guard connected < Quorum.size(of: voters.count) else { return nil }
        return now < leadsSince + options.raft.electionTimeout ? .wait : .refused(.unhealthy)
    }

    /// Heard lately and in this term. A new leader's peers count as heard when it is elected, which proves nothing.
    private func hasAnswered(_ peer: PeerStatus) -> Bool { peer.isRecentlyActive && (peer.match > .zero || peer.roundTrip != nil) }

    /// etcd asks for 90 % of the leader's index alone; in a long log that may be far behind, and a dead learner counts as ready. A quiet one may
    /// still be probed though it has everything.
    private func isCaughtUp(_ id: MemberID, _ status: RaftStatus) -> Bool {
        guard let peer = status.peers.first(where: { $0.id == id }), hasAnswered(peer), peer.phase != .snapshot else { return false }
        let last = status.last.index.rawValue
        return last - min(last, peer.match.rawValue) <= Replica.maxPromotionLag && Double(peer.match.rawValue) >= Double(last) * 0.9
    }

    // MARK: Applying

    /// The configuration and what the entry says of the members, in one step.
    func applyConfiguration(_ entry: Entry, at now: Instant, into effects: inout ReplicaEffects) throws(DecodingFault) {
        let context = try ConfigurationChange(entryPayload: entry.payload).context
        appliedConfiguration = appliedConfiguration.applying(entryPayload: entry.payload)
        guard !context.isEmpty else { return }
        let change = try MembershipEntry.decode(context)
        let before = membership
        switch change.change {
        case .request(.add(let member)): try membership.insert(member)
        case .request(.remove(let member)): membership.remove(member)
        case .request(.update(let member, let urls)): membership.setPeerURLs(urls, of: member)
        case .request(.promote(let member)): membership.promote(member)
        case .admit: break
        case .found(let founders): membership = Membership(members: founders, removed: membership.removed)
        case .alone(let member):
            for other in membership.members where other.id != member { membership.remove(other.id) }
            membership.promote(member)
        }
        writeMembership(from: before)
        if openChange?.asker == change.asker, openChange?.number == change.number { openChange = nil }
        effects.notes.append(.membershipChanged(membership))
        if change.asker == id, let at = pendingChanges.firstIndex(where: { $0.number == change.number }) {
            let pending = pendingChanges.remove(at: at)
            var added: Member?
            if case .add(let member) = pending.request { added = member }
            effects.answers.append((pending.token, .membershipChanged(added: added, members: membership.members)))
        }
        // What waits for its turn goes on at once.
        mustAskAgain = true
        noticeRemoval(into: &effects)
    }

    /// The rows that differ, for the batch that also carries the applied index.
    private func writeMembership(from before: Membership) {
        for member in before.members where membership.member(member.id) == nil { smallChanges.delete(.members, Membership.key(of: member.id)) }
        for member in membership.members where before.member(member.id) != member {
            smallChanges.put(.members, Membership.key(of: member.id), member.json())
        }
        for id in membership.removed where !before.isRemoved(id) { smallChanges.put(.membersRemoved, Membership.key(of: id), Membership.removedMark) }
        if !contacts.isEmpty, membership.member(id) != nil {
            contacts = []
            smallChanges.delete(.meta, ReplicaState.contactsKey)
        }
    }

    // MARK: Being removed

    /// This member was removed: it says so, refuses what waits, and is silent from now on. The shell stops it.
    func noticeRemoval(into effects: inout ReplicaEffects) {
        guard !isRemoved, membership.isRemoved(id) else { return }
        isRemoved = true
        effects.notes.append(.removed)
    }

    /// Another member says that this one was removed, and it did not live to see the entry. A member that hears a leader knows better: the
    /// word then comes from one that an operator has cut out of this cluster (`--force-new-cluster`).
    func toldOfRemoval(by peer: MemberID, at now: Instant, into effects: inout ReplicaEffects) {
        guard !isRemoved, !hearsLeader(at: now), membership.member(peer) != nil || contacts.contains(where: { $0.id == peer }) else { return }
        let before = membership
        membership.remove(id)
        writeMembership(from: before)
        markDirty(at: now)
        effects.notes.append(.membershipChanged(membership))
        noticeRemoval(into: &effects)
    }

    private func hearsLeader(at now: Instant) -> Bool {
        raft.isLeader || (raft.leader != .none && now < raft.lastLeaderContact + options.raft.electionTimeout)
    }

    /// A learner that was removed while it was away would never say a word, and so never be told.
    func askStanding(at now: Instant, into effects: inout ReplicaEffects) {
        guard !raft.isLeader, now >= raft.lastLeaderContact + options.raft.electionTimeout * 3 else { return }
        for peer in peers { send(.askStanding, to: peer.id, into: &effects) }
    }

    /// After the last answers of the flush that removed this member.
    func refuseEverything(into effects: inout ReplicaEffects) {
        for number in proposals.keys.sorted() { fail(number, .stopped, into: &effects) }
        unproposed = []
        for change in pendingChanges { effects.answers.append((change.token, .failed(.stopped))) }
        pendingChanges = []
        for batch in readBatches {
            for token in batch.tokens { effects.answers.append((token, .failed(.stopped))) }
            for question in batch.questions { if let token = question.clientToken { effects.answers.append((token, .failed(.stopped))) } }
        }
        readBatches.removeAll()
        for token in arrivedReads { effects.answers.append((token, .failed(.stopped))) }
        arrivedReads = []
        credentials = [:]
        for question in arrivedQuestions { if let token = question.clientToken { effects.answers.append((token, .failed(.stopped))) } }
        arrivedQuestions = []
        for number in leaderQuestions.keys.sorted() { effects.answers.append((leaderQuestions[number]!.token, .failed(.stopped))) }
        leaderQuestions = [:]
        for move in leadershipMoves { effects.answers.append((move.token, .failed(.stopped))) }
        leadershipMoves = []
    }

    /// Messages of a member that was removed count for nothing, and it is told. The leader that has just removed itself is heard out: it hands
    /// leadership on.
    func isFenced(_ message: PeerMessage, into effects: inout ReplicaEffects) -> Bool {
        guard membership.isRemoved(message.from), message.from != raft.leader else { return false }
        if case .removed = message.body { return true }
        send(.removed, to: message.from, into: &effects)
        return true
    }

    /// The table; or what this member was told when it joined, as long as it has not found itself there.
    public var knownMembers: [Member] { contacts.isEmpty ? membership.members : contacts }

    /// Whom this member talks to: everyone in the table, and while it has not found itself there, those that it was told of when it joined.
    public var peers: [Member] {
        var all = contacts
        for member in membership.members where !contacts.contains(where: { $0.id == member.id }) { all.append(member) }
        return all.filter { $0.id != id && !membership.isRemoved($0.id) }.sorted { $0.id < $1.id }
    }
}
