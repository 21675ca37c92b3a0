import Base
import DequeModule

/// One member's consensus: a value that takes events and appends effects. No clock, no randomness of its own, no I/O.
///
/// `handle` changes state and queues; `flush`, called once after a batch of events, emits what the batch amounts to: one write
/// of everything new, appends to each peer within their bounds, a read round, and what may be applied. Thousands of proposals
/// in a batch cost one persist effect and a few messages per peer.
///
/// Whatever promises something that this member must not forget (a vote, its own candidacy, an acknowledgement, counting itself
/// in a quorum) is held back until `.persisted` covers it.
///
/// Not copyable: reading a deadline out of a class that owns it must not copy (and retain) all of it, a seventh of a simulation's time.
public struct RaftCore: ~Copyable, Sendable {
    public let id: MemberID
    let options: RaftOptions
    var generator: SeededGenerator

    // MARK: What must be durable
    var hardState: HardState
    /// What the latest persist batch said.
    var queuedHardState: HardState
    var log: LogView
    /// Entries up to here were given out in persist batches. Invariant: durable <= queued <= log.last.index.
    var queued: LogIndex
    /// Entries up to here are on this member's disk, or in its store.
    var durable: LogIndex
    var pendingReset: LogPosition?
    var tickets: Deque<PendingTicket> = []
    var lastTicket = PersistTicket(0)
    /// Promises of this batch; they join the batch's ticket at flush.
    var held: [Held] = []
    /// The oldest ticket took too long, and a note said so.
    var diskIsStuck = false

    // MARK: Commit and apply
    public internal(set) var commit: LogIndex
    /// Given out with `.apply`. Invariant: applied <= handedOut <= min(commit, durable).
    var handedOut: LogIndex
    var applied: LogIndex
    /// Bytes in (handedOut, commit].
    var backlogBytes = 0
    /// Bytes in (applied, handedOut].
    var unappliedBytes = 0
    /// Entries up to here are in a durable snapshot; those kept behind it cost this much.
    var compacted: LogIndex
    var compactedBytes = 0

    // MARK: Configuration: in effect as soon as it is in the log (Raft §4.1), taken back if the entry is
    /// The first is committed; the others, ascending, stand in the log behind `commit`. Never empty.
    var configurations: [(index: LogIndex, configuration: Configuration)]

    /// What the first leader of a cluster adds to the entry that states who founds it.
    let foundingContext: [UInt8]

    // MARK: Role
    public internal(set) var role: Role = .follower
    /// `.none` when unknown.
    public internal(set) var leader: MemberID = .none
    public internal(set) var lastLeaderContact: Instant
    /// This member's current draw from [T, 2T).
    var electionSpan: TimeSpan
    var electionDeadline: Instant
    var wasRearmedAfterPause = false
    /// The leader whose process is gone, until another leads or it is heard again; else `.none`.
    var goneLeader = MemberID.none
    var quick: QuickElection?
    var votes: [(id: MemberID, granted: Bool)] = []
    /// Meaningful while leader; empty otherwise.
    var lead = Leadership()
    /// Reads and proposals on their way to a leader elsewhere.
    var follow = Following()

    var lastDriven: Instant
    var wall = WallTime.unknown
    /// The slice sent or persisted last in this flush: in-step peers and the disk share one array.
    var sliceCache: (from: LogIndex, through: LogIndex, entries: [Entry])?

    /// - Parameters:
    ///   - generator: must differ between two lives of a process; it also makes the ids of forwarded reads unpredictable, so that
    ///     an answer meant for an earlier life is not taken for one of this.
    ///   - now: the first election timeout counts from here. With a term of zero (a cluster that never elected) it is a random
    ///     part of [T/4, T) so that a new cluster has a leader soon; later it is in [T, 2T).
    public init(id: MemberID, options: RaftOptions, restart: RaftRestart, generator: SeededGenerator, now: Instant) {
        precondition(id != .none, "a member needs an id")
        precondition(options.electionTimeout > options.heartbeatInterval, "heartbeats must come more often than elections")
        self.id = id
        self.options = options
        self.generator = generator
        hardState = restart.hardState
        queuedHardState = restart.hardState
        precondition(restart.applied >= restart.start.index,
                     "applied \(restart.applied.rawValue) lies before the log's start \(restart.start.index.rawValue)")
        var view = LogView(start: restart.start, entries: restart.entries)
        if let term = restart.appliedTerm, view.term(at: restart.applied) != term {
            let position = LogPosition(index: restart.applied, term: term)
            view = LogView(start: position)
            pendingReset = position
        }
        precondition(view.last.index >= restart.applied,
                     "the log ends at \(view.last.index.rawValue) but the store applied \(restart.applied.rawValue)")
        log = view
        queued = view.last.index
        durable = view.last.index
        commit = restart.applied
        handedOut = restart.applied
        applied = restart.applied
        compacted = view.start.index
        configurations = [(restart.applied, restart.configuration)]
        foundingContext = restart.foundingContext
        lastLeaderContact = now
        lastDriven = now
        electionSpan = options.electionTimeout
        electionDeadline = now
        follow.nextForwardID = self.generator.next()
        follow.commands.stream = self.generator.next()
        // Whoever led in the past must have had a term; without one nothing is disturbed by a quick start.
        redrawElectionSpan()
        if hardState.term == .zero {
            let quarter = options.electionTimeout.nanoseconds / 4
            electionSpan = TimeSpan(nanoseconds: Int64.random(in: quarter..<max(quarter + 1, options.electionTimeout.nanoseconds), using: &self.generator))
        }
        electionDeadline = now + electionSpan
        var index = restart.applied.next
        while index <= log.last.index {
            noteConfiguration(of: log.entry(at: index))
            index = index.next
        }
    }

    // MARK: Reading

    public var term: Term { hardState.term }
    public var isLeader: Bool { role == .leader }
    public var lastIndex: LogIndex { log.last.index }
    public var firstIndex: LogIndex { log.firstIndex }
    /// Entries up to here are on this member's disk.
    public var durableIndex: LogIndex { durable }
    /// The configuration in effect: the newest in the log, committed or not.
    public var configuration: Configuration { configurations[configurations.count - 1].configuration }
    /// The newest committed one.
    public var committedConfiguration: Configuration { configurations[0].configuration }
    /// The entry of the configuration in effect once that is committed; nil while a change is open.
    public var settledConfigurationIndex: LogIndex? { configurations.count == 1 ? configurations[0].index : nil }
    /// A leader knows the true commit index only after it committed an entry of its own term; reads wait until then. (Raft §6.4)
    public var hasCommittedInTerm: Bool { role == .leader && lead.hasCommitted }

    /// Whether a snapshot at this index would bring the member forward. The shell asks before it streams and again before it
    /// replaces its store.
    public func wantsSnapshot(at index: LogIndex) -> Bool { index > commit }

    /// The earliest time at which `.timer` has something to do.
    public var nextDeadline: Instant {
        var deadline = Instant.distantFuture
        if role == .leader {
            deadline = lead.heartbeatDeadline
            if options.checksQuorum { deadline = min(deadline, lead.quorumDeadline) }
            if let transfer = lead.transfer { deadline = min(deadline, transfer.deadline) }
        } else {
            if mayCampaign { deadline = electionDeadline }
            deadline = min(deadline, readDeadline)
        }
        return min(deadline, diskDeadline)
    }

    public func status(includingPeers: Bool) -> RaftStatus {
        var peers: [PeerStatus] = []
        if includingPeers && role == .leader {
            let learners = configuration.learners
            peers = lead.peers.filter { $0.departure == nil }.map { peer in
                PeerStatus(id: peer.id, phase: peer.phase, match: peer.match, next: peer.next, inflightMessages: peer.inflight.count,
                           inflightBytes: peer.inflight.bytes, isRecentlyActive: lastDriven - peer.lastHeard < options.electionTimeout,
                           isLearner: learners.contains(peer.id), roundTrip: peer.roundTrip)
            }
        }
        return RaftStatus(id: id, role: role, hardState: hardState, leader: leader, commit: commit, handedOut: handedOut,
                          first: log.firstIndex, last: log.last, durable: durable, uncommittedBytes: lead.uncommittedBytes,
                          electionDeadline: mayCampaign && role != .leader ? electionDeadline : .distantFuture,
                          configuration: configuration, transferTarget: lead.transfer?.target ?? .none, peers: peers, electionSpan: electionSpan, openWrites: tickets.count)
    }

    // MARK: Driving

    /// Takes one event. Answers that need nothing durable and notes are appended at once; the rest follows at `flush`.
    ///
    /// `now` never goes back. `wall` only marks entries.
    public mutating func handle(_ event: RaftEvent, at now: Instant, wall: WallTime, into effects: inout [RaftEffect]) {
        self.wall = wall
        noticePause(at: now)
        switch event {
        case .timer: onTimer(now, &effects)
        case .message(let message): onMessage(message, now, &effects)
        case .propose(let payloads): onPropose(payloads, &effects)
        case .proposeConfiguration(let change): onProposeConfiguration(change, now, &effects)
        case .read(let read): onRead(read, now)
        case .persisted(let ticket): onPersisted(ticket, now, &effects)
        case .applied(let index): onApplied(index)
        case .compact(let index): onCompact(upTo: index)
        case .snapshotInstalled(let metadata, let from): onSnapshotInstalled(metadata, from: from, now, &effects)
        case .snapshotSent(let peer, let succeeded): onSnapshotSent(to: peer, succeeded: succeeded, now)
        case .peerUnreachable(let peer): onPeerUnreachable(peer)
        case .peerGone(let peer): onPeerGone(peer, now, &effects)
        case .transferLeadership(let target): onTransferLeadership(to: target, now, &effects)
        case .campaign:
            if role != .leader && mayCampaign && !diskIsStuck { startCampaign(isTransfer: false, now, &effects) }
        }
    }

    /// Emits what the events since the last flush amount to.
    public mutating func flush(at now: Instant, into effects: inout [RaftEffect]) {
        if role == .leader { advanceCommit(now, &effects) }
        if role == .leader { seeOffRemoved(now, &effects) }
        if role == .leader { confirmReads(&effects) }
        emitPersist(now, &effects)
        if role == .leader {
            let round = startReadRound(&effects)
            sendAppends(now, &effects)
            sendHeartbeats(newRound: round, now, &effects)
        } else {
            sendForwarded(now, &effects)
        }
        handOut(&effects)
        sliceCache = nil
    }

    private mutating func onTimer(_ now: Instant, _ effects: inout [RaftEffect]) {
        lookAtDisk(now, &effects)
        if role == .leader {
            onLeaderTimer(now, &effects)
        } else {
            expireReads(now, &effects)
            if mayCampaign && now >= electionDeadline { onElectionTimeout(now, &effects) }
        }
    }

    private mutating func onMessage(_ message: Message, _ now: Instant, _ effects: inout [RaftEffect]) {
        // Not for us, or a reflection: a wiring fault that the transport should have caught.
        guard message.to == id, message.from != id, message.from != .none else { return }
        if message.from == goneLeader { goneLeader = .none }
        guard message.term.rawValue < 1 << 62 else {
            effects.append(.note(.messageRefused(from: message.from, .impossibleTerm)))
            return
        }
        switch message.body {
        case .requestVote(let last, let isPreVote, let isTransfer):
            return onRequestVote(message, last: last, isPreVote: isPreVote, isTransfer: isTransfer, now, &effects)
        case .voteReply(let granted, let isPreVote, let refusal):
            return onVoteReply(message, granted: granted, isPreVote: isPreVote, refusal: refusal, now, &effects)
        case .forward(let stream, let number, let payloads):
            return onForward(stream: stream, number: number, payloads: payloads, from: message.from, term: message.term, &effects)
        case .requestReadIndex(let read):
            if message.term > term { becomeFollower(term: message.term, leader: .none, .higherTerm, now, &effects) }
            return onRequestReadIndex(read, from: message.from, now, &effects)
        default:
            break
        }
        if message.term < term {
            // A leader that was cut off must learn that its time is over; it cannot learn it from votes, since those who follow
            // a fresh leader give none. (etcd raft, checkQuorum with a member of a higher term)
            switch message.body {
            case .append, .heartbeat, .timeoutNow: send(.heartbeatReply(round: .none), to: message.from, &effects)
            default: break
            }
            return
        }
        if message.term > term {
            let newLeader: MemberID
            switch message.body {
            case .append, .heartbeat: newLeader = message.from
            default: newLeader = .none
            }
            becomeFollower(term: message.term, leader: newLeader, .higherTerm, now, &effects)
        }
        switch message.body {
        case .append(let previous, let entries, let commit):
            guard acceptLeader(message.from, now, &effects) else { return }
            onAppend(previous: previous, entries: entries, commit: commit, now, &effects)
        case .heartbeat(let commit, let round):
            guard acceptLeader(message.from, now, &effects) else { return }
            // Bounded by what this member has: a leader's belief about it may be wrong after a disk was restored.
            advanceCommit(to: min(commit, log.last.index), &effects)
            send(.heartbeatReply(round: round), to: message.from, &effects)
        case .appendAccepted(let match): onAppendAccepted(match, from: message.from, now, &effects)
        case .appendRejected(let rejected, let hint): onAppendRejected(rejected, hint: hint, from: message.from, now, &effects)
        case .heartbeatReply(let round): onHeartbeatReply(round, from: message.from, now)
        case .snapshotReply(let installed): onSnapshotReply(installed, from: message.from, now, &effects)
        case .timeoutNow:
            // With a stuck disk its vote would never be cast; the leader gives up after a while and goes on.
            if role == .follower && message.from == leader && mayCampaign && !diskIsStuck { startCampaign(isTransfer: true, now, &effects) }
        case .forwardTaken(let stream, let number, let through, let refused):
            onForwardTaken(stream: stream, number: number, through: through, refused: refused, &effects)
        case .readIndexReply(let read, let index): onReadIndexReply(read, index: index, from: message.from, &effects)
        case .readIndexRefused(let read): onReadIndexRefused(read, from: message.from, now)
        case .requestVote, .voteReply, .forward, .requestReadIndex: break
        }
    }

    func send(_ body: Message.Body, to peer: MemberID, _ effects: inout [RaftEffect]) {
        effects.append(.send(Message(from: id, to: peer, term: term, body: body)))
    }

    /// A leader that was not driven for an election timeout (a stopped process, a suspended machine) may long be replaced. It
    /// forgets its open read rounds and must hear a quorum again within an election timeout.
    private mutating func noticePause(at now: Instant) {
        let pause = now - lastDriven
        if now > lastDriven { lastDriven = now }
        guard role == .leader, pause > options.electionTimeout else { return }
        requeueReads()
        lead.timedRounds.removeAll()
        for i in lead.peers.indices { lead.peers[i].lastHeard = now }
        lead.quorumDeadline = now + options.electionTimeout
        lead.heartbeatDeadline = now
    }
}
