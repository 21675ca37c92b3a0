import Base

/// One entry of the replicated log.
public struct Entry: Hashable, Sendable {
    public enum Kind: UInt8, Sendable {
        /// A new leader's first entry: commits what earlier terms left. (Raft §5.4.2)
        case empty = 0
        /// A command of the state machine.
        case command = 1
        /// A `ConfigurationChange` (encoded), or an empty payload to leave a joint configuration.
        case configuration = 2
    }
    public var index: LogIndex
    public var term: Term
    public var kind: Kind
    /// The proposing leader's wall clock when it appended the entry. Replicated and shown; never used for a decision.
    public var proposedAt: WallTime
    public var payload: [UInt8]

    @inlinable public init(index: LogIndex, term: Term, kind: Kind, proposedAt: WallTime, payload: [UInt8]) {
        self.index = index
        self.term = term
        self.kind = kind
        self.proposedAt = proposedAt
        self.payload = payload
    }
    /// What the entry counts for in byte bounds: payload plus a fixed overhead.
    @inlinable public var cost: Int { payload.count + 40 }
}

/// A place in the log named safely: an index alone may be rewritten by a later term.
public struct LogPosition: Hashable, Sendable {
    public var index: LogIndex
    public var term: Term
    @inlinable public init(index: LogIndex, term: Term) {
        self.index = index
        self.term = term
    }
    public static let zero = LogPosition(index: .zero, term: .zero)
}

/// What a member must never forget: durable before any message that depends on it leaves. (Raft figure 2)
public struct HardState: Hashable, Sendable {
    public var term: Term
    /// Whom this member voted for in `term`; `.none` if nobody.
    public var vote: MemberID
    public init(term: Term = .zero, vote: MemberID = .none) {
        self.term = term
        self.vote = vote
    }
}

/// Who takes part. While a joint change is under way both `voters` and `outgoingVoters` must agree. (Raft §6)
/// All lists are sorted ascending and without duplicates.
public struct Configuration: Hashable, Sendable {
    public var voters: [MemberID]
    /// The old voters during a joint change; empty otherwise.
    public var outgoingVoters: [MemberID]
    public var learners: [MemberID]
    /// Outgoing voters that become learners when the joint change ends.
    public var nextLearners: [MemberID]
    /// The leader proposes the end of the joint change by itself.
    public var leavesJointAutomatically: Bool

    public init(voters: [MemberID], outgoingVoters: [MemberID] = [], learners: [MemberID] = [], nextLearners: [MemberID] = [],
                leavesJointAutomatically: Bool = false) {
        self.voters = voters.sorted()
        self.outgoingVoters = outgoingVoters.sorted()
        self.learners = learners.sorted()
        self.nextLearners = nextLearners.sorted()
        self.leavesJointAutomatically = leavesJointAutomatically
    }
    /// What makes this no configuration that consensus could have come to; nil: nothing does. For what is read from outside.
    public var objection: String? {
        for list in [voters, outgoingVoters, learners, nextLearners] {
            if list.first == MemberID.none { return "a member without a number" }
            for (one, next) in zip(list, list.dropFirst()) where one == next { return "member \(one) is there twice" }
        }
        if voters.isEmpty, isJoint { return "a joint configuration without new voters" }
        for learner in learners where isVoter(learner) { return "member \(learner) votes and learns" }
        for next in nextLearners where !outgoingVoters.contains(next) { return "member \(next) is to learn and was no voter" }
        return nil
    }

    public var isJoint: Bool { !outgoingVoters.isEmpty }
    public func isVoter(_ id: MemberID) -> Bool { voters.contains(id) || outgoingVoters.contains(id) }
    /// One voter and nobody else.
    public var isAlone: Bool { voters.count == 1 && outgoingVoters.isEmpty && learners.isEmpty && nextLearners.isEmpty }
    /// Everyone the leader replicates to, sorted.
    public var everyone: [MemberID] {
        var all = Set(voters)
        all.formUnion(outgoingVoters)
        all.formUnion(learners)
        all.formUnion(nextLearners)
        return all.sorted()
    }
}

/// A change of the configuration, carried by a `.configuration` entry.
public struct ConfigurationChange: Hashable, Sendable {
    public enum Step: Hashable, Sendable {
        case addVoter(MemberID)
        case addLearner(MemberID)
        case remove(MemberID)
    }
    public var steps: [Step]
    /// One step over one voter can be applied at once; anything more goes through a joint configuration.
    public var forcesJoint: Bool
    /// Opaque to consensus: what the state machine wants to know about the change (URLs, names).
    public var context: [UInt8]
    public init(steps: [Step], forcesJoint: Bool = false, context: [UInt8] = []) {
        self.steps = steps
        self.forcesJoint = forcesJoint
        self.context = context
    }
}

/// Names one batch of log writes; completions come back in order.
public struct PersistTicket: Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    public init(_ value: UInt64) { rawValue = value }
    public static func < (a: PersistTicket, b: PersistTicket) -> Bool { a.rawValue < b.rawValue }
}

/// What one write to the log holds. The disk thread may join several into one write and one sync, in order.
public struct PersistBatch: Sendable {
    public var ticket: PersistTicket
    /// Present when term or vote changed.
    public var hardState: HardState?
    /// Consecutive entries; the first may overwrite entries of an earlier term from its index on.
    public var entries: [Entry]
    /// After a snapshot was installed: forget every entry, the log now starts behind this position.
    public var reset: LogPosition?
    public init(ticket: PersistTicket, hardState: HardState? = nil, entries: [Entry] = [], reset: LogPosition? = nil) {
        self.ticket = ticket
        self.hardState = hardState
        self.entries = entries
        self.reset = reset
    }
}

/// What a snapshot stands for.
public struct SnapshotMetadata: Hashable, Sendable {
    public var position: LogPosition
    public var configuration: Configuration
    public init(position: LogPosition, configuration: Configuration) {
        self.position = position
        self.configuration = configuration
    }
}

/// Names one read request of this member, unique for the life of the process.
public struct ReadID: Hashable, Sendable {
    public var rawValue: UInt64
    public init(_ value: UInt64) { rawValue = value }
}

/// Numbers the rounds of heartbeats that confirm leadership for reads: unique within a term, never reused.
public struct ReadRound: Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    public init(_ value: UInt64) { rawValue = value }
    public static let none = ReadRound(0)
    public static func < (a: ReadRound, b: ReadRound) -> Bool { a.rawValue < b.rawValue }
}

/// A message between the consensus cores of two members.
public struct Message: Hashable, Sendable {
    public var from: MemberID
    public var to: MemberID
    /// The sender's term; for pre-votes the term it would campaign in.
    public var term: Term
    public var body: Body

    public enum Body: Hashable, Sendable {
        /// `isTransfer`: the old leader asked for this election, so a fresh leader is no reason to refuse.
        case requestVote(last: LogPosition, isPreVote: Bool, isTransfer: Bool)
        case voteReply(granted: Bool, isPreVote: Bool, refusal: VoteRefusal?)
        /// `commit` is the leader's commit index.
        case append(previous: LogPosition, entries: [Entry], commit: LogIndex)
        /// Everything up to `match` is durable at the sender.
        case appendAccepted(match: LogIndex)
        /// The entry at `rejected` did not match; `hint` is the follower's best guess where the logs agree (term-hint back-up).
        case appendRejected(rejected: LogIndex, hint: LogPosition)
        /// `commit` never exceeds what the receiver is known to hold. `round` confirms reads; `.none` if there are none.
        case heartbeat(commit: LogIndex, round: ReadRound)
        case heartbeatReply(round: ReadRound)
        /// The follower's answer once a streamed snapshot was installed or refused.
        case snapshotReply(installed: LogPosition?)
        /// Campaign at once: the leader hands over. (Raft §3.10)
        case timeoutNow
        /// Asks the leader for a read index on behalf of reads at `from`. The id is the member's own and used once.
        case requestReadIndex(id: ReadID)
        case readIndexReply(id: ReadID, index: LogIndex)
        /// The leader could not confirm the read (stepped down, no commit in its term yet): ask again.
        case readIndexRefused(id: ReadID)
        /// Commands that a follower passes on. Taken only in the term that the message names, each number (from 1 on) once.
        /// `stream` is drawn anew by each life of the follower.
        case forward(stream: UInt64, number: UInt64, payloads: [[UInt8]])
        /// The leader has taken, or refused, message `number`, and has all up to `through`. What is not confirmed is sent again.
        case forwardTaken(stream: UInt64, number: UInt64, through: UInt64, refused: RaftRefusal?)
    }
    public init(from: MemberID, to: MemberID, term: Term, body: Body) {
        self.from = from
        self.to = to
        self.term = term
        self.body = body
    }
}

/// Why a vote was not given; shown to people who watch an election.
public enum VoteRefusal: UInt8, Hashable, Sendable {
    case staleTerm = 0
    case alreadyVoted = 1
    case logBehind = 2
    case leaderIsFresh = 3
    case notVoter = 4
}

public enum Role: UInt8, Hashable, Sendable {
    case follower = 0
    case preCandidate = 1
    case candidate = 2
    case leader = 3
}

/// Why a proposal or read was not taken.
public enum RaftRefusal: UInt8, Error, Hashable, Sendable {
    /// No leader is known (or forwarding is off and this member is not it).
    case noLeader = 0
    /// The bound on uncommitted bytes is reached.
    case tooManyUncommitted = 1
    /// A leader transfer is under way.
    case transferring = 2
    /// An earlier configuration change is not finished.
    case configurationPending = 3
    /// The leader changed while the request waited.
    case leaderChanged = 4
    /// This member was removed or is a learner and may not do that.
    case notAllowed = 5
}

/// What the core is told.
public enum RaftEvent: Sendable {
    /// Time passed; deadlines are compared with `now`.
    case timer
    case message(Message)
    /// Commands of this member, in order. Taken as leader, forwarded as follower, or refused (`.refused`).
    case propose(payloads: [[UInt8]])
    case proposeConfiguration(ConfigurationChange)
    /// A linearizable read that arrived now.
    case read(ReadID)
    /// Every batch up to this ticket is durable.
    case persisted(PersistTicket)
    /// The state machine has applied everything up to here.
    case applied(LogIndex)
    /// Entries up to here are in a durable snapshot (the backend) and may be forgotten, but for those kept for slow peers.
    case compact(upTo: LogIndex)
    /// A streamed snapshot is complete and installed in the store; the core resets its log behind it.
    case snapshotInstalled(SnapshotMetadata, from: MemberID)
    /// The stream to a peer ended. On success the follower's `snapshotReply` tells the rest.
    case snapshotSent(to: MemberID, succeeded: Bool)
    /// Nothing more is on the way to this peer (connection lost): probe before pipelining again.
    case peerUnreachable(MemberID)
    /// The peer's process is gone: its connections are closed and a new one was refused at once, so nobody listens there. A hint, not
    /// a proof, and may be repeated: if it was the leader, this member asks for pre-votes without waiting for the timer.
    case peerGone(MemberID)
    case transferLeadership(to: MemberID)
    /// Campaign now, as an operator's or a test's wish.
    case campaign
}

/// What the core wants done. The shell obeys in order.
public enum RaftEffect: Sendable {
    /// Write and sync, then report `.persisted(ticket)`. Messages that need it are held back by the core.
    case persist(PersistBatch)
    case send(Message)
    /// Committed entries in order, each exactly once. The shell applies them and reports `.applied`.
    case apply([Entry])
    /// The read may be served once the state machine has applied `index`.
    case readReady(ReadID, index: LogIndex)
    case readRefused(ReadID, RaftRefusal)
    /// The proposals given with the latest `.propose` were not taken, all of them.
    case proposalRefused(payloads: [[UInt8]], RaftRefusal)
    case configurationRefused(ConfigurationChange, RaftRefusal)
    /// The peer needs entries that were forgotten: stream it the store's state (out of band), then report `.snapshotSent`.
    case sendSnapshot(to: MemberID)
    /// Something worth showing happened.
    case note(RaftNote)
}

/// What consensus did, for logs, metrics and screens. Never fed back.
public enum RaftNote: Hashable, Sendable {
    case roleChanged(Role, term: Term, leader: MemberID)
    case leaderChanged(to: MemberID, term: Term)
    case electionTimeout(after: TimeSpan)
    /// The leader's process is gone (`peerGone`): what follows did not wait for the election timeout.
    case leaderConnectionLost(MemberID, term: Term)
    case preVoteAsked(term: Term)
    case voteAsked(term: Term)
    case voteCast(for: MemberID, term: Term, isPreVote: Bool)
    case voteRefused(to: MemberID, term: Term, isPreVote: Bool, VoteRefusal)
    case voteReceived(from: MemberID, granted: Bool, isPreVote: Bool, term: Term)
    case elected(term: Term, votes: Int, voters: Int)
    case steppedDown(term: Term, reason: StepDownReason)
    case firstCommit(term: Term, index: LogIndex)
    case configurationChanged(Configuration)
    case transferStarted(to: MemberID)
    case transferAborted(to: MemberID)
    /// This member's disk has not finished a write for this long: a leader hands over, anyone else does not campaign.
    case diskStuck(after: TimeSpan)
    /// It finished after all.
    case diskRecovered(after: TimeSpan)
    case snapshotNeeded(by: MemberID)
    /// A member does not have what it had acknowledged: an old disk was put back, or its disk lies. It is brought up to date again, but what was
    /// committed by its word may now be on too few disks.
    case peerForgot(MemberID, acknowledged: LogIndex, has: LogIndex)
    /// A message that no correct member sends was ignored.
    case messageRefused(from: MemberID, MessageFault)
}

/// What was wrong with a message from a peer. The peer's fault or damage on the way, never a reason to stop.
public enum MessageFault: UInt8, Hashable, Sendable {
    /// An append would overwrite entries that are committed here.
    case conflictBelowCommit = 0
    /// Entries that are not consecutive, whose terms go back, or are above the message's term.
    case malformedEntries = 1
    /// An acknowledgement of entries that were never sent.
    case impossibleMatch = 2
    /// Two leaders in one term, or a term out of range.
    case impossibleTerm = 3
}

public enum StepDownReason: UInt8, Hashable, Sendable {
    case higherTerm = 0
    case lostQuorum = 1
    case removed = 2
}

/// How the core behaves. All bounds have a name and a reason.
public struct RaftOptions: Sendable {
    /// Followers campaign after a random time in [electionTimeout, 2 * electionTimeout) without a leader.
    public var electionTimeout: TimeSpan = .milliseconds(1000)
    public var heartbeatInterval: TimeSpan = .milliseconds(100)
    /// One append message carries at most this much (one entry always fits).
    public var maxAppendBytes = 1 << 20
    /// Append messages on the way to one peer.
    public var maxInflightMessages = 256
    /// Bytes on the way to one peer.
    public var maxInflightBytes = 16 << 20
    /// Appended but not committed at the leader; more is refused with `.tooManyUncommitted`.
    public var maxUncommittedBytes = 256 << 20
    /// Committed but not applied; handing out stops until the state machine reports progress.
    public var maxUnappliedBytes = 64 << 20
    /// Entries kept behind the compaction point for slow followers, in number and bytes (whichever is less).
    public var keptEntries = 5000
    public var keptBytes = 32 << 20
    /// Read rounds on the way at once.
    public var maxReadRounds = 8
    public var forwardsProposals = true
    public var checksQuorum = true
    public var preVotes = true
    /// A leader whose process is gone is replaced at once instead of after the election timeout.
    public var failsOverQuickly = true
    /// A leader whose own disk is stuck hands over.
    public var leavesStuckDisk = true
    public init() {}
}

/// What a core starts from.
public struct RaftRestart: Sendable {
    public var hardState: HardState
    /// As of `applied`. Configuration entries behind `applied` are found in `entries`.
    public var configuration: Configuration
    /// Where the log begins: everything up to here is in the store.
    public var start: LogPosition
    /// The entries behind `start`, consecutive, all durable.
    public var entries: [Entry]
    /// What the store has applied durably (>= start.index): committed by definition.
    public var applied: LogIndex
    /// The term of the entry at `applied`, if the store remembers it. When the log does not hold that entry (a crash between
    /// installing a snapshot and resetting the log), the core starts its log behind it and persists a reset. Without it the
    /// log must reach `applied`.
    public var appliedTerm: Term?
    /// Joins the cluster's first entry if this member writes it: what the state machine wants to say about the founders.
    public var foundingContext: [UInt8] = []
    /// The one that is in effect from the start: a configuration counts from when it is in the log.
    public var latestConfiguration: Configuration {
        entries.reduce(configuration) { $1.kind == .configuration && $1.index > applied ? $0.applying(entryPayload: $1.payload) : $0 }
    }
    public init(hardState: HardState, configuration: Configuration, start: LogPosition, entries: [Entry], applied: LogIndex,
                appliedTerm: Term? = nil) {
        self.appliedTerm = appliedTerm
        self.hardState = hardState
        self.configuration = configuration
        self.start = start
        self.entries = entries
        self.applied = applied
    }
}

/// What the leader knows of a peer.
public struct PeerStatus: Hashable, Sendable {
    public enum Phase: UInt8, Hashable, Sendable { case probe = 0, replicate = 1, snapshot = 2 }
    public var id: MemberID
    public var phase: Phase
    public var match: LogIndex
    public var next: LogIndex
    public var inflightMessages: Int
    public var inflightBytes: Int
    public var isRecentlyActive: Bool
    public var isLearner: Bool
    /// Of the latest heartbeat that it answered; nil before the first.
    public var roundTrip: TimeSpan?
    public init(id: MemberID, phase: Phase, match: LogIndex, next: LogIndex, inflightMessages: Int, inflightBytes: Int,
                isRecentlyActive: Bool, isLearner: Bool, roundTrip: TimeSpan? = nil) {
        self.id = id
        self.phase = phase
        self.match = match
        self.next = next
        self.inflightMessages = inflightMessages
        self.inflightBytes = inflightBytes
        self.isRecentlyActive = isRecentlyActive
        self.isLearner = isLearner
        self.roundTrip = roundTrip
    }
}

/// A picture of the core, cheap to take (peers only when leader).
public struct RaftStatus: Sendable {
    public var id: MemberID
    public var role: Role
    public var hardState: HardState
    /// `.none` when unknown.
    public var leader: MemberID
    public var commit: LogIndex
    /// What was handed out with `.apply`.
    public var handedOut: LogIndex
    public var first: LogIndex
    public var last: LogPosition
    /// What this member's disk holds.
    public var durable: LogIndex
    public var uncommittedBytes: Int
    /// `.distantFuture` where no timer runs.
    public var electionDeadline: Instant
    /// The whole length of the election timer that runs now.
    public var electionSpan: TimeSpan
    /// Log writes that wait for the disk or are under way.
    public var openWrites: Int
    public var configuration: Configuration
    public var transferTarget: MemberID
    public var peers: [PeerStatus]
    public init(id: MemberID, role: Role, hardState: HardState, leader: MemberID, commit: LogIndex, handedOut: LogIndex, first: LogIndex,
                last: LogPosition, durable: LogIndex, uncommittedBytes: Int, electionDeadline: Instant, configuration: Configuration,
                transferTarget: MemberID, peers: [PeerStatus], electionSpan: TimeSpan = .zero, openWrites: Int = 0) {
        self.id = id
        self.role = role
        self.hardState = hardState
        self.leader = leader
        self.commit = commit
        self.handedOut = handedOut
        self.first = first
        self.last = last
        self.durable = durable
        self.uncommittedBytes = uncommittedBytes
        self.electionDeadline = electionDeadline
        self.electionSpan = electionSpan
        self.openWrites = openWrites
        self.configuration = configuration
        self.transferTarget = transferTarget
        self.peers = peers
    }
}
