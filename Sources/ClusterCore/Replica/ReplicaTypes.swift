import Auth
import Base
import Raft
import Store

/// Names a client's request while it waits; opaque to the machine, unique among those that wait.
public struct RequestToken: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// What a client asks of a member. Validated and decoded by the caller.
public enum Request: Sendable {
    /// A snapshot of the store that reflects everything acknowledged before now (ReadIndex).
    case read
    /// A snapshot of this member's store as it is.
    case localRead
    /// The same, when the backend holds everything that was applied before now: for who reads the backend itself.
    case durableRead
    /// A write: the request's own protobuf bytes. `cost` counts against the quota (0 for what frees space).
    case propose(Command.Kind, body: [UInt8], cost: Int)
    /// `lease` 0: this member chooses one.
    case leaseGrant(lease: LeaseID, ttlSeconds: Int64)
    /// History below the revision is to go: by the member's own rule, so nobody's rights are asked.
    case compactHistory(Revision)
    case leaseKeepAlive(LeaseID)
    case leaseTimeToLive(LeaseID, wantsKeys: Bool)
    case leases
    case members(linearizable: Bool)
    case changeMembership(MembershipRequest)
    case status
    case moveLeader(to: MemberID)
    case alarm(AlarmAction, member: MemberID, kind: UInt32)
    /// Nothing but whether the caller may: for what is done outside the machine.
    case permission(CallerRequirement)
}

public enum AlarmAction: UInt32, Sendable {
    case get = 0
    case activate = 1
    case deactivate = 2
}

/// An alarm that some member raised. Kinds are etcd's: 1 NOSPACE, 2 CORRUPT.
public struct Alarm: Hashable, Comparable, Sendable {
    public static let noSpace: UInt32 = 1
    public static let corrupt: UInt32 = 2
    public var member: MemberID
    public var kind: UInt32
    public init(member: MemberID, kind: UInt32) {
        self.member = member
        self.kind = kind
    }
    public static func < (a: Alarm, b: Alarm) -> Bool { (a.member, a.kind) < (b.member, b.kind) }
}

/// What a request comes to.
public enum Answer: Sendable {
    /// The response message, encoded.
    case encoded([UInt8])
    case failed(ServiceError)
    /// `ttlSeconds` 0: no such lease.
    case leaseRenewed(LeaseID, ttlSeconds: Int64)
    /// `remainingSeconds` -1: no such lease.
    case leaseState(LeaseID, remainingSeconds: Int64, grantedSeconds: Int64, keys: [[UInt8]])
    case leases([LeaseID])
    case members([Member])
    /// The members after the change. `added` as the asker named it: alone, it is the answer to a `.add`.
    case membershipChanged(added: Member?, members: [Member])
    case status(ReplicaStatus)
    case leaderMoved
    case permitted
}

/// Leave to read: every token may evaluate its request on this snapshot, on any thread, after it was found permitted for its caller.
public struct ReadGrant: Sendable {
    public var tokens: [RequestToken]
    /// Who sent them; nobody knows those that are not in here. Empty while authentication is disabled.
    public var callers: [RequestToken: Caller]
    /// Who may read what, as of the snapshot.
    public var auth: AuthStore
    public var snapshot: StoreSnapshot
    /// Where the snapshot finds revisions that left its overlay.
    public var backend: any Backend
    public var term: Term
    public init(tokens: [RequestToken], callers: [RequestToken: Caller], auth: AuthStore, snapshot: StoreSnapshot, backend: any Backend,
                term: Term) {
        self.tokens = tokens
        self.callers = callers
        self.auth = auth
        self.snapshot = snapshot
        self.backend = backend
        self.term = term
    }
}

/// What a member says of itself. Local; no quorum.
public struct ReplicaStatus: Sendable {
    public var raft: RaftStatus
    public var applied: LogIndex
    public var revision: Revision
    public var compactRevision: Int64
    public var size: BackendSize
    public var leases: Int
    public var watchers: Int
    public var alarms: [Alarm]
    public var isLearner: Bool
    public var membership: Membership
    public var counters: ReplicaCounters
    /// Requests that wait for a leader, a read round or their commit.
    public var pendingRequests = 0
    public var isAuthEnabled = false
    public var authRevision: UInt64 = 1
}

/// How far a member's log has come.
public struct ReplicaProgress: Hashable, Sendable {
    public var isLeader: Bool
    public var last: LogIndex
    public var commit: LogIndex
    public var applied: LogIndex
}

/// Totals since the process started, for metrics.
public struct ReplicaCounters: Hashable, Sendable {
    public var proposalsCommitted: UInt64 = 0
    public var proposalsApplied: UInt64 = 0
    public var proposalsPending: Int = 0
    public var proposalsFailed: UInt64 = 0
    public var leaderChanges: UInt64 = 0
    public var leasesGranted: UInt64 = 0
    public var leasesRevoked: UInt64 = 0
    public var leasesRenewed: UInt64 = 0
    public var leasesExpired: UInt64 = 0
    public var puts: UInt64 = 0
    public var deletes: UInt64 = 0
    public var txns: UInt64 = 0
    public var events: UInt64 = 0
    public init() {}
}

/// A wish concerning a watch stream.
public enum WatchControl: Sendable {
    /// `requiresLeader`: end the stream when no leader is known for three election timeouts. `from`: who opens it; looked at anew for
    /// each watcher.
    case open(requiresLeader: Bool, from: Credential = .none)
    case request(WatchRequest)
    /// The connection has passed on this much; the stream's backlog shrinks.
    case delivered(responses: Int, bytes: Int)
    case close
}

/// What the machine is told.
public enum ReplicaEvent: Sendable {
    case timer
    case request(RequestToken, Request, requiresLeader: Bool, from: Credential = .none)
    /// The client no longer waits.
    case cancel(RequestToken)
    case watch(WatchStreamID, WatchControl)
    case peer(PeerMessage)
    case persisted(PersistTicket)
    /// The batch is durable.
    case backendCommitted(BackendCommitToken, BackendSize)
    case snapshotSent(to: MemberID, succeeded: Bool)
    case peerUnreachable(MemberID)
    /// Its connections are closed and a new one was refused: nobody listens there. Repeated while that is so.
    case peerGone(MemberID)
    /// Hand leadership to the most caught-up voter, if this member leads (graceful stop).
    case resign
    case transferLeadership(to: MemberID)
    /// A person's wish, from the console.
    case campaign
}

public struct BackendCommitToken: Hashable, Sendable {
    public var rawValue: UInt64
}

/// One write of the backend, to be made off the loop.
public struct BackendCommit: Sendable {
    public var token: BackendCommitToken
    public var batch: BackendBatch
}

/// What the machine wants done. Fields keep their capacity between batches.
public struct ReplicaEffects: Sendable {
    /// In order; may be joined into one write and one sync.
    public var persist: [PersistBatch] = []
    public var messages: [PeerMessage] = []
    public var answers: [(token: RequestToken, answer: Answer)] = []
    public var grants: [ReadGrant] = []
    public var watch: [WatchOutput] = []
    /// Streams that end because no leader is known.
    public var leaderlessStreams: [WatchStreamID] = []
    public var backendCommits: [BackendCommit] = []
    /// Entries up to here may leave the log's files.
    public var compactLog: LogIndex?
    /// Stream the store's state to these peers.
    public var snapshots: [MemberID] = []
    public var notes: [ReplicaNote] = []
    public init() {}

    public mutating func removeAll() {
        persist.removeAll(keepingCapacity: true)
        messages.removeAll(keepingCapacity: true)
        answers.removeAll(keepingCapacity: true)
        grants.removeAll(keepingCapacity: true)
        watch.removeAll(keepingCapacity: true)
        leaderlessStreams.removeAll(keepingCapacity: true)
        backendCommits.removeAll(keepingCapacity: true)
        compactLog = nil
        snapshots.removeAll(keepingCapacity: true)
        notes.removeAll(keepingCapacity: true)
    }
}

/// Something worth logging or showing.
public enum ReplicaNote: Sendable {
    case raft(RaftNote)
    case membershipChanged(Membership)
    /// This member was removed from the cluster: it must stop and can never come back.
    case removed
    case alarmsChanged([Alarm])
    case compacted(Revision)
    case authSwitched(isEnabled: Bool)
    case leaseExpired(LeaseID, keys: Int)
    case snapshotInstalled(LogPosition)
    /// The stream to a peer has ended.
    case snapshotSent(to: MemberID, succeeded: Bool)
    /// The connection to a peer broke, or was made. Told by the shell's transport, never by the machine.
    case peerLost(MemberID)
    case peerFound(MemberID)
    /// A committed entry that this version cannot decode: the member must stop, or it would diverge.
    case cannotApply(LogIndex, String)
    /// This member's state is not that of the majority: it has fenced itself and must stop.
    case diverged(StateDivergence)
    /// The voters' states differ at this entry and no majority agrees: the CORRUPT alarm is raised.
    case statesDiffer(LogIndex)
}

/// How a member behaves. All bounds have a name and a reason.
public struct ReplicaOptions: Sendable {
    public var raft = RaftOptions()
    public var name = "default"
    public var clientURLs: [String] = []
    public var maxRequestBytes = 1_572_864
    public var maxTxnOps = 128
    /// Applied entries between compactions of the log.
    public var snapshotCount: UInt64 = 10_000
    /// 0: 2 GiB; negative: no quota. (etcd's rule)
    public var quotaBytes: Int64 = 0
    /// Longest time that an applied change stays out of the backend. The log has it; this bounds replay at start.
    public var backendCommitInterval: TimeSpan = .milliseconds(250)
    /// The same while a compaction has history to delete: a batch of it at a time, and the disk to the log in between.
    public var compactionCommitInterval: TimeSpan = .milliseconds(40)
    /// A batch this large is written at once.
    public var backendCommitBytes = 8 << 20
    /// Applied but not yet in the backend; more refuses writes with "too many requests" until the disk has caught up.
    public var maxUnwrittenBytes = 256 << 20
    /// Writes that wait for a leader to appear, in bytes; more is refused.
    public var maxWaitingBytes = 64 << 20
    /// Clients' commands that wait for their commit; more are refused with "too many requests". Bytes alone would let small ones pile up, since each
    /// costs some hundred beyond its own. (etcd refuses when applying is 5,000 entries behind committing; here both are one step.)
    public var maxPendingProposals = 200_000
    /// Log entries held in memory since the last compaction, in bytes; more compacts the log early.
    public var maxLogBytes = 64 << 20
    /// Refuses changes after which the voters that are started and connected would be no quorum.
    public var strictReconfigurationCheck = true
    public var maxLearners = 1
    /// How often the members compare their states while commands come; zero: never.
    public var stateCheckInterval: TimeSpan = .seconds(1)
    /// How often a leader looks at leases to write down how much of their time is left; zero: never, so that each election gives every lease its
    /// whole time again.
    public var leaseCheckpointInterval: TimeSpan = .seconds(1)
    public var watchProgressInterval: TimeSpan = .seconds(600)
    /// How long a simple token lives since its last use.
    public var authTokenTimeToLive: TimeSpan = .seconds(300)
    /// How long a request may wait: 5 s + 2 election timeouts. (etcd)
    public var requestTimeout: TimeSpan { .seconds(5) + raft.electionTimeout * 2 }
    /// ceil(3/2 of the election timeout), in seconds. (etcd's minimum lease TTL)
    public var minLeaseTTLSeconds: Int64 {
        let ticks = raft.electionTimeout.nanoseconds / max(1, raft.heartbeatInterval.nanoseconds)
        let nanoseconds = 3 * ticks / 2 * raft.heartbeatInterval.nanoseconds
        return max(1, (nanoseconds + 999_999_999) / 1_000_000_000)
    }
    public var effectiveQuotaBytes: Int64 { quotaBytes == 0 ? 2 << 30 : quotaBytes < 0 ? .max : quotaBytes }
    public init() {}
}
