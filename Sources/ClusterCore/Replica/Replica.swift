import Auth
import Base
import DequeModule
import Raft
import Store

/// One member of a cluster as a deterministic machine: events in, effects out. Consensus, store, watches, leases and
/// membership live inside; clocks, randomness, disks and sockets outside.
///
/// Confined to the replica loop. `handle` takes a batch of events, then one `flush` turns what gathered into effects: one
/// log write, one append message a peer, one read round, one snapshot for all reads of the batch.
public final class Replica {
    public let id: MemberID
    public let cluster: ClusterID
    public let options: ReplicaOptions

    var raft: RaftCore
    var store: KeyValueStore
    /// Reads the latest commit of `backend`; refreshed once a batch of applies.
    var reader: any BackendReader
    var backend: any Backend
    var hub: WatchHub
    var leases: LeaseTable
    var membership: Membership
    var alarms: [Alarm]
    /// nil: none is under way.
    var downgrade: Downgrade?
    var auth: AuthStore
    /// This member's own; nothing that is applied depends on it.
    var tokens: TokenTable
    var generator: SeededGenerator

    /// The configuration as of `applied`; consensus itself goes by the one in its log. Written together with `applied`.
    var appliedConfiguration: Configuration
    /// The last entry whose effect is in the store.
    public internal(set) var applied: LogPosition
    /// Of the state at `applied`: equal on every member that has applied as much.
    public internal(set) var stateHash: StateHash
    /// What the backend holds durably.
    var written: LogIndex
    var backendSize: BackendSize

    // MARK: Requests that wait

    /// Commands given to consensus and not applied yet, by number. Looked up, and sorted before any walk.
    var proposals: [UInt64: PendingProposal] = [:]
    /// Deadlines in order of arrival; numbers that are no longer in `proposals` are skipped.
    var proposalDeadlines = Deque<(deadline: Instant, number: UInt64)>()
    /// Numbers of commands that no leader has been given yet, oldest first.
    var unproposed: [UInt64] = []
    var unproposedBytes = 0
    var nextNumber: UInt64
    /// Tokens of proposals, so that a cancelled client's entry is forgotten.
    var numberOfToken: [RequestToken: UInt64] = [:]

    /// What reads say of their sender, until they are served; nothing for those that say nothing. Looked up only.
    var credentials: [RequestToken: Credential] = [:]
    /// The same for watch streams, for as long as they are open.
    var watchCallers: [WatchStreamID: WatchCaller] = [:]
    /// Reads that arrived since the last flush.
    var arrivedReads: [RequestToken] = []
    var arrivedQuestions: [Question] = []
    /// Batches of reads by the id given to consensus, oldest first.
    var readBatches = Deque<ReadBatch>()
    var nextRead: UInt64 = 1
    var localReads: [RequestToken] = []
    /// Wait until the backend holds what was applied when they came.
    var durableReads: [(token: RequestToken, applied: LogIndex)] = []
    /// Questions that only a leader can answer and that wait for one, or for the leader's answer.
    var leaderQuestions: [UInt64: LeaderQuestion] = [:]
    var leadershipMoves: [LeadershipMove] = []
    /// Keepalives of leases whose revoke is proposed and not applied yet.
    var renewalsBehindRevoke: [(lease: LeaseID, asker: Asker)] = []
    /// Keepalives of leases whose checkpoint is being taken back.
    var renewalsBehindCheckpoint: [(lease: LeaseID, ttlSeconds: Int64, asker: Asker)] = []
    /// Leases whose checkpoint is proposed and not applied yet.
    var checkpointedLeases: Set<LeaseID> = []
    /// Leases that this round of checkpoints has still to look at, the next one last.
    var leasesToCheckpoint: [LeaseID] = []
    var nextLeaseCheckpoint: Instant = .zero
    /// Wishes to change the membership whose client waits here, oldest first.
    var pendingChanges: [PendingChange] = []
    /// Leader: wishes that wait for their turn, the one that is in the log and not applied yet, and those taken in this term.
    var queuedChanges: [QueuedChange] = []
    var openChange: QueuedChange?
    var takenChanges = Deque<(asker: MemberID, number: UInt64)>()
    var physicalCompactions: [(token: RequestToken, answer: [UInt8])] = []

    // MARK: Clocks of the machine

    var backendCommitInFlight: (token: BackendCommitToken, storeToken: BatchToken?, applied: LogIndex)?
    var nextBackendToken: UInt64 = 1
    var dirtySince: Instant?
    /// Changes of the small tables that the next backend commit carries.
    var smallChanges = BackendBatch()
    var nextPublish: Instant = .zero
    var leaderlessSince: Instant?
    /// When a leader was last seen to change, to explain a timeout.
    var lastElection: Instant?
    var streamsThatNeedLeader: [WatchStreamID] = []
    var isRaisingNoSpace = false
    /// The store was nearly full, and what follows from there being room again is not done yet.
    var wasNearlyFull = false
    /// When the alarm may be taken back, or be asked about again.
    var nextNoSpaceEnd: Instant = .zero
    /// When the next lease is due, on a promoted leader.
    var leaseDeadline: Instant?
    var nextLeaderCheck: Instant
    var logBytesSinceCompaction = 0
    var compactedThrough: LogIndex

    // MARK: Comparison of states

    var comparison: StateComparison
    /// The last applied entry that asks for a check, and when the first of those not covered by one was applied.
    var lastUnchecked = LogIndex.zero
    var uncheckedSince: Instant?
    /// What this member's latest proposed check covers, as leader.
    var proposedCheck = LogIndex.zero
    /// This member's own hash, not told to the others yet.
    var dueReport: StateCheck?

    /// Commands or reads given to an earlier leader wait to be given to the present one.
    var mustAskAgain = false

    public internal(set) var counters = ReplicaCounters()
    var raftEffects: [RaftEffect] = []
    /// Set when a committed entry could not be applied or this member's state is not the cluster's: it does nothing any more.
    var isHalted = false
    /// This member is not part of the cluster any more: it answers nothing and says nothing.
    public internal(set) var isRemoved = false
    /// Whom a joining member was told of; empty once it has found itself in the table.
    var contacts: [Member]
    /// When this member was elected, if it leads.
    var leadsSince: Instant = .zero

    struct PendingProposal {
        var token: RequestToken?
        var payload: [UInt8]
        /// The term in which consensus was given the command.
        var term: Term
        var startedAt: Instant
        var deadline: Instant
        /// Lets the command be proposed again when the auth revision has moved under it.
        var credential = Credential.none
    }
    struct ReadBatch {
        var id: ReadID
        var tokens: [RequestToken]
        var questions: [Question]
        var deadline: Instant
        /// nil until consensus has named the index.
        var index: LogIndex?
        /// Refused for want of a leader: asked again when there is one.
        var waitsForLeader = false
    }
    /// What a read round answers besides plain reads.
    enum Question {
        case members(RequestToken)
        case renew(LeaseID, Asker)
        case leaseState(LeaseID, wantsKeys: Bool, Asker)
        /// A request whose token this member may not have heard of yet.
        case request(RequestToken, Request, Credential)
        /// A stream whose watchers wait for the same.
        case stream(WatchStreamID)
        var clientToken: RequestToken? {
            switch self {
            case .members(let token), .renew(_, .client(let token, _)), .leaseState(_, _, .client(let token, _)), .request(let token, _, _): token
            case .renew(_, .peer), .leaseState(_, _, .peer), .stream: nil
            }
        }
    }
    enum Asker {
        case client(RequestToken, Caller?)
        case peer(MemberID, number: UInt64)
    }
    struct LeaderQuestion {
        var token: RequestToken
        var caller: Caller?
        var lease: LeaseID
        /// nil: a renewal.
        var wantsKeys: Bool?
        var askedLeader: MemberID
        var deadline: Instant
    }
    struct LeadershipMove {
        var token: RequestToken
        var target: MemberID
        var deadline: Instant
    }

    /// - Parameters:
    ///   - state: what was loaded from the backend (`ReplicaState.load`).
    ///   - incarnation: a number that no earlier run of this member used, so that its commands are told from theirs.
    public init(id: MemberID, cluster: ClusterID, options: ReplicaOptions, state: ReplicaState, restart: RaftRestart,
                backend: any Backend, reader: any BackendReader, incarnation: UInt32, generator: SeededGenerator, now: Instant) {
        self.id = id
        self.cluster = cluster
        self.options = options
        self.backend = backend
        self.reader = reader
        self.generator = generator.split("replica")
        var restart = restart
        if restart.start == .zero, restart.entries.isEmpty, !state.membership.members.isEmpty {
            restart.foundingContext = MembershipEntry(change: .found(state.membership.members)).encoded()
        }
        raft = RaftCore(id: id, options: options.raft, restart: restart, generator: generator.split("raft"), now: now)
        store = state.store
        leases = state.leases
        membership = state.membership
        contacts = state.contacts
        isRemoved = state.membership.isRemoved(id)
        alarms = state.alarms
        downgrade = state.downgrade
        auth = state.auth
        tokens = TokenTable(timeToLive: options.authTokenTimeToLive)
        appliedConfiguration = state.configuration
        applied = state.applied
        stateHash = state.stateHash
        comparison = StateComparison(at: state.applied.index, state.stateHash)
        written = state.applied.index
        compactedThrough = restart.start.index
        logBytesSinceCompaction = restart.entries.reduce(0) { $0 + $1.cost }
        backendSize = backend.size
        hub = WatchHub(currentRevision: store.revision, compactRevision: store.compactRevision, progressInterval: options.watchProgressInterval,
                       generator: generator.split("watch"))
        nextNumber = UInt64(incarnation) << 32 | 1
        nextLeaderCheck = now + options.raft.electionTimeout
        sizeChanged(to: backendSize)
    }

    public var isLeader: Bool { raft.isLeader }
    public var leader: MemberID { raft.leader }
    public var term: Term { raft.term }
    public var revision: Revision { store.revision }
    /// As the table of members says: one that is to vote and still catches up serves clients like any other.
    public var isLearner: Bool { (membership.member(id) ?? contacts.first { $0.id == id })?.isLearner ?? false }
    public var memberList: Membership { membership }

    // MARK: Events

    public func handle(_ event: ReplicaEvent, at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        guard !isHalted else {
            // The shell waits for the write under way before it closes the files.
            if case .backendCommitted(let token, _) = event, backendCommitInFlight?.token == token { backendCommitInFlight = nil }
            return
        }
        switch event {
        case .request(let token, let request, let requiresLeader, let credential):
            if isRemoved {
                effects.answers.append((token, .failed(.stopped)))
            } else if requiresLeader && raft.leader == .none {
                effects.answers.append((token, .failed(.noLeader)))
            } else {
                take(request, token, from: credential, at: now, into: &effects)
            }
        case .cancel(let token):
            if !credentials.isEmpty { credentials.removeValue(forKey: token) }
            if let number = numberOfToken.removeValue(forKey: token) { proposals[number]?.token = nil }
            pendingChanges.removeAll { $0.token == token }
        case .watch(let stream, let control):
            takeWatch(control, on: stream, at: now, into: &effects)
        case .peer(let message):
            takePeer(message, at: now, wall: wall, into: &effects)
        case .persisted(let ticket):
            raft.handle(.persisted(ticket), at: now, wall: wall, into: &raftEffects)
        case .backendCommitted(let token, let size):
            backendCommitted(token, size, at: now, wall: wall, into: &effects)
        case .snapshotSent(let peer, let succeeded):
            raft.handle(.snapshotSent(to: peer, succeeded: succeeded), at: now, wall: wall, into: &raftEffects)
            effects.notes.append(.snapshotSent(to: peer, succeeded: succeeded))
        case .peerUnreachable(let peer):
            raft.handle(.peerUnreachable(peer), at: now, wall: wall, into: &raftEffects)
        case .peerGone(let peer):
            raft.handle(.peerGone(peer), at: now, wall: wall, into: &raftEffects)
        case .resign:
            if raft.isLeader, let heir = raft.bestHeir(at: now) {
                raft.handle(.transferLeadership(to: heir), at: now, wall: wall, into: &raftEffects)
            }
        case .transferLeadership(let heir):
            raft.handle(.transferLeadership(to: heir), at: now, wall: wall, into: &raftEffects)
        case .campaign:
            raft.handle(.campaign, at: now, wall: wall, into: &raftEffects)
        case .timer:
            raft.handle(.timer, at: now, wall: wall, into: &raftEffects)
        }
    }

    /// Turns everything that gathered into effects. Call once after each batch of events.
    public func flush(at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        guard !isHalted else { return }
        if isRemoved {
            refuseEverything(into: &effects)
            return maintain(at: now, into: &effects)
        }
        expireRequests(at: now, into: &effects)
        publishOwnAttributes(at: now)
        proposeExpiredLeases(at: now, wall: wall)
        proposeLeaseCheckpoints(at: now)
        proposeStateCheck(at: now)
        proposeEndOfNoSpace(at: now)
        giveToConsensus(at: now, wall: wall, into: &effects)
        // Applying can free consensus to hand out more (unapplied bound), and a read round can let a request go on that waited for its token,
        // so go on until nothing new comes. What a new leader is asked again goes out at once: the next event may be a heartbeat away.
        repeat {
            mustAskAgain = false
            raft.flush(at: now, into: &raftEffects)
            carryOut(at: now, wall: wall, into: &effects)
            if raftEffects.isEmpty && !isHalted {
                compareStates(at: now, into: &effects)
                if !isHalted { serveReads(at: now, into: &effects) }
            }
            if mustAskAgain { giveToConsensus(at: now, wall: wall, into: &effects) }
        } while (mustAskAgain || !raftEffects.isEmpty) && !isHalted
        guard !isHalted else { return }
        if isRemoved { refuseEverything(into: &effects) }
        checkLeader(at: now, into: &effects)
        maintain(at: now, into: &effects)
        counters.proposalsPending = proposals.count
    }

    private func giveToConsensus(at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        propose(at: now, wall: wall)
        startReads(at: now, wall: wall)
        askChanges(at: now, into: &effects)
        proposeChanges(at: now, wall: wall, into: &effects)
    }

    /// When `handle(.timer)` and `flush` are wanted next at the latest.
    public var nextDeadline: Instant {
        guard !isHalted else { return .distantFuture }
        if isRemoved {
            return backendCommitInFlight == nil ? backendCommitDue ?? .distantFuture : .distantFuture
        }
        var deadline = raft.nextDeadline
        if raft.isLeader, let leaseDeadline { deadline = min(deadline, leaseDeadline) }
        if let leaseCheckpointDeadline { deadline = min(deadline, leaseCheckpointDeadline) }
        if let stateCheckDeadline { deadline = min(deadline, stateCheckDeadline) }
        if let first = proposalDeadlines.first { deadline = min(deadline, first.deadline) }
        if let first = pendingChanges.first { deadline = min(deadline, first.deadline) }
        if let first = readBatches.first { deadline = min(deadline, first.deadline) }
        if let backendCommitDue, backendCommitInFlight == nil { deadline = min(deadline, backendCommitDue) }
        deadline = min(deadline, nextLeaderCheck)
        deadline = min(deadline, hub.nextDeadline)
        return deadline
    }

    /// True when there is work that should not wait for a timer: catching up watchers, removing compacted history.
    public var hasBackgroundWork: Bool { !isHalted && (hub.hasCatchUpWork || store.hasCompactionWork) }

    /// Does a bounded slice of background work. Call between batches while `hasBackgroundWork`.
    public func work(at now: Instant, into effects: inout ReplicaEffects) {
        guard !isHalted else { return }
        if store.hasCompactionWork {
            store.compactStep(maxKeys: Replica.compactionStepKeys)
            markDirty(at: now)
        }
        if hub.hasCatchUpWork {
            refreshReader()
            do {
                _ = try hub.catchUp(WatchCatchUpBudget(), history: history, into: &effects.watch)
            } catch {
                halt(applied.index, "history cannot be read: \(error)", into: &effects)
            }
        }
        maintain(at: now, into: &effects)
    }

    /// Keys looked at in one step of compaction: about 100 us, so that the loop answers in between.
    static let compactionStepKeys = 1000

    public func status(includingPeers: Bool = true) -> ReplicaStatus {
        ReplicaStatus(raft: raft.status(includingPeers: includingPeers), applied: applied.index, revision: store.revision,
                      compactRevision: store.compactRevision.rawValue, size: backendSize, leases: leases.count, watchers: hub.watcherCount, alarms: alarms,
                      isLearner: isLearner, membership: membership, counters: counters,
                      pendingRequests: pendingRequests, isAuthEnabled: auth.isEnabled, authRevision: auth.revision)
    }

    private var pendingRequests: Int { proposals.count + pendingChanges.count + leaderQuestions.count + readBatches.reduce(0) { $0 + $1.tokens.count + $1.questions.count } }

    /// How far the log has come, for timing: cheap enough for every batch.
    public var progress: ReplicaProgress {
        ReplicaProgress(isLeader: raft.isLeader, last: raft.lastIndex, commit: raft.commit, applied: applied.index)
    }

    func header(revision: Revision? = nil) -> ResponseHeader {
        ResponseHeader(clusterID: cluster, memberID: id, revision: revision ?? store.revision, raftTerm: raft.term)
    }

    func refreshReader() {
        do { try reader.refresh() } catch { preconditionFailure("the backend cannot be read: \(error)") }
    }

    func markDirty(at now: Instant) {
        if dirtySince == nil { dirtySince = now }
    }
}
