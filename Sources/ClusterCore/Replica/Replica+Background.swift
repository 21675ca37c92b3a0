import Auth
import Base
import Raft
import Store

// What goes on besides requests: the backend's commits, the log's compaction, watchers, the wait for a leader.
extension Replica {
    // MARK: Watches

    func takeWatch(_ control: WatchControl, on stream: WatchStreamID, at now: Instant, into effects: inout ReplicaEffects) {
        switch control {
        case .open(let requiresLeader, let credential):
            if credential != .none { watchCallers[stream] = WatchCaller(credential: credential) }
            hub.openStream(stream, fragmentBytes: options.maxRequestBytes + (512 << 10), at: now)
            if requiresLeader {
                if raft.leader == .none {
                    effects.leaderlessStreams.append(stream)
                } else {
                    streamsThatNeedLeader.append(stream)
                }
            }
        case .request(let request):
            takeWatchRequest(request, on: stream, at: now, into: &effects)
        case .delivered(let responses, let bytes):
            hub.delivered(stream, responses: responses, bytes: bytes)
        case .close:
            hub.closeStream(stream)
            streamsThatNeedLeader.removeAll { $0 == stream }
            if !watchCallers.isEmpty { watchCallers.removeValue(forKey: stream) }
        }
    }

    var history: StoreHistory { StoreHistory(store.snapshot(), reader: reader) }

    // MARK: Leader watch

    /// Streams opened with "hasleader" end when no leader was known at three checks in a row, one election timeout apart.
    func checkLeader(at now: Instant, into effects: inout ReplicaEffects) {
        if raft.leader == .none {
            if leaderlessSince == nil { leaderlessSince = now }
        } else {
            leaderlessSince = nil
        }
        guard now >= nextLeaderCheck else { return }
        nextLeaderCheck = now + options.raft.electionTimeout
        askStanding(at: now, into: &effects)
        if let since = leaderlessSince, now - since >= options.raft.electionTimeout * 2, !streamsThatNeedLeader.isEmpty {
            effects.leaderlessStreams.append(contentsOf: streamsThatNeedLeader)
            for stream in streamsThatNeedLeader {
                hub.closeStream(stream)
                watchCallers.removeValue(forKey: stream)
            }
            streamsThatNeedLeader = []
        }
    }

    // MARK: Backend and log

    /// Starts a commit of the backend when one is due, and compacts the log behind what is durable there.
    func maintain(at now: Instant, into effects: inout ReplicaEffects) {
        hub.tick(now, into: &effects.watch)
        tokens.expire(at: now)
        leaseDeadline = leases.nextExpiry()
        serveDurableReads(at: now, into: &effects)
        if backendCommitInFlight == nil, let backendCommitDue,
           backendCommitDue <= now || store.pendingBytes >= options.backendCommitBytes || !durableReads.isEmpty {
            startBackendCommit(into: &effects)
        }
        let entries = written.rawValue - min(written.rawValue, compactedThrough.rawValue)
        if entries > 0, entries >= options.snapshotCount || logBytesSinceCompaction >= options.maxLogBytes {
            compactedThrough = written
            logBytesSinceCompaction = 0
            raft.handle(.compact(upTo: written), at: now, wall: .unknown, into: &raftEffects)
            // The files may lose what consensus no longer keeps for slow followers.
            let first = raft.status(includingPeers: false).first
            if first.rawValue > 1 { effects.compactLog = first.previous }
        }
    }

    /// When what changed is to be written at the latest; nil when there is nothing to write.
    var backendCommitDue: Instant? {
        dirtySince.map { $0 + (store.hasReadyDeletions ? min(options.compactionCommitInterval, options.backendCommitInterval) : options.backendCommitInterval) }
    }

    private func serveDurableReads(at now: Instant, into effects: inout ReplicaEffects) {
        guard !durableReads.isEmpty else { return }
        var tokens = durableReads.filter { $0.applied <= written }.map(\.token)
        guard !tokens.isEmpty else { return }
        durableReads.removeAll { $0.applied <= written }
        let callers = takeCallers(of: &tokens, at: now, into: &effects)
        guard !tokens.isEmpty else { return }
        effects.grants.append(ReadGrant(tokens: tokens, callers: callers, auth: auth, snapshot: store.snapshot(), backend: backend, term: raft.term))
    }

    /// Everything applied so far and the index it reflects, in one batch: never one without the other.
    private func startBackendCommit(into effects: inout ReplicaEffects) {
        var batch = smallChanges
        smallChanges = BackendBatch()
        let storeToken = store.takeBatch(into: &batch)
        ReplicaState.writeMeta(applied: applied, configuration: appliedConfiguration, stateHash: stateHash, into: &batch)
        if planted(.writesAppliedIndexFirst) {
            var early = BackendBatch()
            ReplicaState.writeMeta(applied: applied, configuration: appliedConfiguration, stateHash: stateHash, into: &early)
            // Number zero: nobody waits for it.
            effects.backendCommits.append(BackendCommit(token: BackendCommitToken(rawValue: 0), batch: early))
        }
        let token = BackendCommitToken(rawValue: nextBackendToken)
        nextBackendToken += 1
        backendCommitInFlight = (token, storeToken, applied.index)
        dirtySince = nil
        effects.backendCommits.append(BackendCommit(token: token, batch: batch))
    }

    func backendCommitted(_ token: BackendCommitToken, _ size: BackendSize, at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        // A commit to a backend that a snapshot has replaced since tells nothing about the new one.
        guard let inFlight = backendCommitInFlight, inFlight.token == token else { return }
        backendCommitInFlight = nil
        sizeChanged(to: size)
        written = inFlight.applied
        if let storeToken = inFlight.storeToken { store.batchCommitted(storeToken) }
        refreshReader()
        if store.hasPendingChanges || !smallChanges.isEmpty || applied.index > written { markDirty(at: now) }
        if !physicalCompactions.isEmpty, store.finishedCompactRevision >= store.compactRevision {
            for (compaction, answer) in physicalCompactions { effects.answers.append((compaction, .encoded(answer))) }
            physicalCompactions = []
        }
    }

    /// Writes what is left, for a clean stop. Call when no commit is in flight; nil when there is nothing to write.
    public func finalCommit() -> BackendCommit? {
        precondition(backendCommitInFlight == nil, "a commit is in flight")
        guard !isHalted, applied.index > written || store.hasPendingChanges || !smallChanges.isEmpty else { return nil }
        var effects = ReplicaEffects()
        startBackendCommit(into: &effects)
        return effects.backendCommits.first
    }

    public var isCommittingBackend: Bool { backendCommitInFlight != nil }

    // MARK: Snapshots

    /// Whether a streamed snapshot at this position would take the member forward.
    public func wants(_ snapshot: SnapshotMetadata) -> Bool { planted(.installsOldSnapshots) || raft.wantsSnapshot(at: snapshot.position.index) }

    /// The streamed state is durable under the backend's name and loaded: it replaces store, leases and membership. Watchers go
    /// on from where they were; if their history is gone they learn it. Call while no commit is in flight.
    public func install(_ snapshot: SnapshotMetadata, from peer: MemberID, state: ReplicaState, backend: any Backend,
                        reader: any BackendReader, at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        precondition(wants(snapshot), "a snapshot that is behind the commit index must not be installed")
        self.backend = backend
        self.reader = reader
        store = state.store
        leases = state.leases
        membership = state.membership
        if state.membership.member(id) != nil { contacts = [] }
        alarms = state.alarms
        downgrade = state.downgrade
        auth = state.auth
        // What became of their users in the entries that were skipped is not known.
        tokens.removeAll()
        appliedConfiguration = snapshot.configuration
        applied = snapshot.position
        stateHash = state.stateHash
        comparison = StateComparison(at: applied.index, stateHash)
        uncheckedSince = nil
        dueReport = nil
        written = snapshot.position.index
        compactedThrough = snapshot.position.index
        logBytesSinceCompaction = 0
        sizeChanged(to: backend.size)
        backendCommitInFlight = nil
        smallChanges = BackendBatch()
        dirtySince = nil
        if !contacts.isEmpty {
            // The leader's picture was taken before it knew this member.
            smallChanges.put(.meta, ReplicaState.contactsKey, Member.encodeList(contacts))
            markDirty(at: now)
        }
        hub.storeReplaced(revision: store.revision, compactRevision: store.compactRevision, into: &effects.watch)
        // Commands that the snapshot contains are applied without this member having seen them: their outcome is unknown here.
        for number in proposals.keys.sorted() where proposals[number]!.term != .zero { fail(number, .timeout, into: &effects) }
        pendingChanges.removeAll { change in
            guard change.term != .zero else { return false }
            effects.answers.append((change.token, .failed(.timeout)))
            return true
        }
        raft.handle(.snapshotInstalled(snapshot, from: peer), at: now, wall: wall, into: &raftEffects)
        effects.notes.append(.snapshotInstalled(snapshot.position))
        effects.notes.append(.membershipChanged(membership))
        noticeRemoval(into: &effects)
    }
}
