import Base
import Wire

// The Observer service of Quarterdeck's own nodes. Real etcd does not have it: the stream ends with an error that
// `isUnimplemented`.

/// What one member tells of its consensus, in one message.
public struct MemberObservation: Sendable, Hashable {
    public var member: MemberID
    /// Events that came before those of this update and were lost because the reader did not keep up.
    public var missed: Int
    /// In the order in which they happened.
    public var events: [ObservedEvent]
    /// As of after the events; nil when only events are told.
    public var state: ObservedState?
    /// Where a later stream goes on, so that it tells no event twice and names those that are lost.
    public var position: ObserverPosition
}

/// How far the events of a member have been read. Means nothing to another life of the member's process, which begins anew.
public struct ObserverPosition: Sendable, Hashable {
    var life: UInt64
    var sequence: UInt64
}

/// When something was, by the member's own clocks.
public struct ObservedTime: Sendable, Hashable {
    /// Its monotonic clock, in nanoseconds; the origin means nothing.
    public var monotonicNanoseconds: Int64
    /// Its wall clock, in microseconds since 1970 (UTC). As wrong as the member's clock is.
    public var wallMicroseconds: Int64
    public init(monotonicNanoseconds: Int64, wallMicroseconds: Int64) {
        self.monotonicNanoseconds = monotonicNanoseconds
        self.wallMicroseconds = wallMicroseconds
    }
}

public enum ObservedRole: Sendable, Hashable {
    case follower, preCandidate, candidate, leader, learner
}

/// Something that a member's consensus did.
public struct ObservedEvent: Sendable, Hashable {
    public enum SnapshotPhase: Sendable, Hashable { case started, complete, failed }

    public enum Kind: Sendable, Hashable {
        /// No leader was heard of for this long.
        case electionTimeout(after: TimeSpan)
        /// The connection to the leader broke; the election does not wait for the timer.
        case leaderConnectionLost(leader: MemberID)
        case preVoteAsked
        case voteAsked
        /// The member voted for a candidate, itself perhaps.
        case voteCast(for: MemberID, isPreVote: Bool)
        case voteRefused(to: MemberID, isPreVote: Bool, reason: String)
        /// The answer to a vote that the member asked for.
        case voteReceived(from: MemberID, isGranted: Bool, isPreVote: Bool)
        case roleChanged(ObservedRole)
        /// `.none`: it knows none.
        case leaderChanged(MemberID)
        case elected(votes: Int, voters: Int)
        case steppedDown(reason: String)
        /// The first entry of the term is committed: writes and reads are possible again.
        case firstCommit(LogIndex)
        case transferStarted(to: MemberID)
        case transferAborted(to: MemberID)
        case snapshotSent(to: MemberID, SnapshotPhase)
        case snapshotInstalled(LogIndex)
        /// The connection to another member broke, or was made.
        case peerLost(MemberID)
        case peerFound(MemberID)
        /// What changed, for people.
        case membershipChanged(String)
        /// The log's disk has not finished a write for this long: a leader hands over, another member does not campaign.
        case diskStuck(after: TimeSpan)
        /// It finished the write after this long.
        case diskRecovered(after: TimeSpan)
    }

    public var time: ObservedTime
    /// The term that the event belongs to.
    public var term: Term
    public var kind: Kind
}

/// The state of a member's consensus.
public struct ObservedState: Sendable, Hashable {
    public struct Peer: Sendable, Hashable {
        public enum Phase: Sendable, Hashable { case probe, replicate, snapshot }
        public var id: MemberID
        public var phase: Phase
        /// What it has on its disk as far as the leader knows, and what it is sent next.
        public var match: LogIndex
        public var next: LogIndex
        public var inFlightMessages: Int
        public var inFlightBytes: Int
        /// Heard of within the election timeout.
        public var isActive: Bool
        /// Of the latest heartbeat that it answered; nil before the first.
        public var roundTrip: TimeSpan?
    }

    public enum Stage: Sendable, Hashable, CaseIterable {
        /// From the client's connection until consensus took it.
        case queue
        /// Log write and fsync.
        case logWrite
        /// From sending entries to a follower until it has them on its disk.
        case replicate
        /// From proposing until a quorum has it.
        case quorumWait
        /// From commit until applied and answered.
        case apply
        case backendCommit
    }

    /// How long requests spent in a stage since the state before.
    public struct StageLatency: Sendable, Hashable {
        public var stage: Stage
        /// Those of the buckets that hold something, ascending. Bucket b holds latencies up to 62.5 us * 2^(b/4), rounded down, above those
        /// of bucket b-1; bucket 76 has no bound.
        public var buckets: [(bucket: Int, count: Int)] { zip(places, counts).map { ($0, $1) } }
        public var sumMicroseconds: Int64
        var places: [Int]
        var counts: [Int]
    }

    public var time: ObservedTime
    public var role: ObservedRole
    public var term: Term
    /// `.none`: it has not voted in this term.
    public var vote: MemberID
    /// `.none`: it knows none.
    public var leader: MemberID
    public var commit: LogIndex
    public var applied: LogIndex
    public var last: LogIndex
    /// The last entry that is on its disk.
    public var durable: LogIndex
    /// Until the election timer fires, and its whole length; nil where none runs (leaders, learners).
    public var timerLeft: TimeSpan?
    public var timerLength: TimeSpan?
    public var uncommittedBytes: Int
    /// Entries that are committed and not applied.
    public var unappliedEntries: Int
    /// Log writes that wait for the disk or are under way.
    public var diskQueue: Int
    /// Requests that wait for a leader, a read round or their commit.
    public var pendingRequests: Int
    /// Only at a leader.
    public var peers: [Peer]
    public var stages: [StageLatency]
}

/// What a member tells, from one connection. Ends with an `EtcdError`: of `isUnimplemented` where the server is not one of ours, else
/// of a broken connection or a stopped server; call `observe` again with the last position then. A slow reader never slows the member:
/// it misses events, and states in between are left out. One reader at a time.
public struct ObserverStream: AsyncSequence, Sendable {
    public typealias Element = MemberObservation
    fileprivate let handle: Handle

    /// Ends the call when the last copy of the stream and of its iterators is gone.
    fileprivate final class Handle: Sendable {
        let buffer: StreamBuffer<MemberObservation>
        init(buffer: StreamBuffer<MemberObservation>) { self.buffer = buffer }
        deinit { buffer.abandon() }
    }

    public func makeAsyncIterator() -> Iterator { Iterator(handle: handle) }

    public struct Iterator: AsyncIteratorProtocol, Sendable {
        fileprivate let handle: Handle
        public mutating func next() async throws -> MemberObservation? { try await handle.buffer.next() }
    }
}

extension EtcdClient {
    /// Follows the consensus of the member at `endpoint` as it happens: its events at once, its state when it changed (about ten times a
    /// second) and at least once a second. The first update holds the state and the events that the member still remembers.
    ///
    /// Only Quarterdeck's own nodes offer this.
    /// - Parameter position: where an earlier stream from the same member ended.
    public func observe(_ endpoint: Endpoint, after position: ObserverPosition? = nil, options: CallOptions = CallOptions()) -> ObserverStream {
        var options = options
        options.endpoint = endpoint
        options.timeout = nil
        let receiver = ObserverReceiver(core: core, options: options, position: position)
        core.loop.execute { receiver.start() }
        return ObserverStream(handle: ObserverStream.Handle(buffer: receiver.buffer))
    }
}

/// Confined to the client's loop, apart from `buffer`.
private final class ObserverReceiver: @unchecked Sendable {
    // Sendable because tasks touch only `buffer`.
    private let core: ClientCore
    private let options: CallOptions
    private var position: ObserverPosition
    private(set) var buffer: StreamBuffer<MemberObservation>!
    private var call: StreamCall?
    private var isStopped = false

    /// Unread updates, in bytes of their messages, above which the server is no longer read from: it then drops what is old.
    private static let bufferBytes = 256 << 10

    init(core: ClientCore, options: CallOptions, position: ObserverPosition?) {
        self.core = core
        self.options = options
        self.position = position ?? ObserverPosition(life: 0, sequence: 0)
        buffer = StreamBuffer(
            limit: ObserverReceiver.bufferBytes,
            onRoom: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.call?.resume() } },
            onAbandoned: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.stop() } })
    }

    func start() {
        guard !isStopped else { return }
        let call = StreamCall(core: core, .observeMember, options)
        self.call = call
        var request = PBObserveRequest()
        request.life = position.life
        request.sequence = position.sequence
        let bytes = request.encoded()
        call.onOpen = { $0.send(bytes, endsStream: true) }
        call.onMessage = { [self] in received($0) }
        call.onEnd = { [self] error in
            self.call = nil
            let endpoint = options.endpoint?.text ?? ""
            buffer.finish(error ?? EtcdError.transport(endpoint: endpoint, reason: "the stream ended", wasSent: true))
        }
        call.start()
    }

    func stop() {
        isStopped = true
        call?.cancel()
        call = nil
    }

    private func received(_ message: UnsafeRawBufferPointer) {
        let response: PBObserveResponse
        do {
            response = try PBObserveResponse(decoding: message)
        } catch {
            stop()
            return buffer.finish(EtcdError.malformedResponse("observe: \(error)"))
        }
        if response.life != position.life { position = ObserverPosition(life: response.life, sequence: 0) }
        if let last = response.events.last { position.sequence = last.sequence }
        if buffer.push(MemberObservation(response, position: position), cost: message.count + 64) { call?.pause() }
    }
}

// MARK: From the wire

extension MemberObservation {
    init(_ response: PBObserveResponse, position: ObserverPosition) {
        member = MemberID(response.memberID)
        missed = Int(clamping: response.missed)
        events = response.events.compactMap(ObservedEvent.init)
        state = response.hasState ? ObservedState(response.state) : nil
        self.position = position
    }
}

extension ObservedRole {
    init(_ role: PBObservedRole) {
        self = switch role {
        case .follower, .UNRECOGNIZED: .follower
        case .preCandidate: .preCandidate
        case .candidate: .candidate
        case .leader: .leader
        case .learner: .learner
        }
    }
}

extension ObservedEvent {
    /// nil for a kind that a newer server tells and this client does not know.
    init?(_ event: PBObservedEvent) {
        time = ObservedTime(monotonicNanoseconds: event.monotonicNanoseconds, wallMicroseconds: event.wallMicroseconds)
        term = Term(event.term)
        switch event.kind {
        case .electionTimeout(let microseconds): kind = .electionTimeout(after: .microseconds(microseconds))
        case .leaderConnectionLost(let leader): kind = .leaderConnectionLost(leader: MemberID(leader))
        case .preVoteAsked: kind = .preVoteAsked
        case .voteAsked: kind = .voteAsked
        case .voteCast(let vote): kind = .voteCast(for: MemberID(vote.member), isPreVote: vote.preVote)
        case .voteRefused(let vote): kind = .voteRefused(to: MemberID(vote.member), isPreVote: vote.preVote, reason: vote.reason)
        case .voteReceived(let vote): kind = .voteReceived(from: MemberID(vote.member), isGranted: vote.granted, isPreVote: vote.preVote)
        case .roleChanged(let role): kind = .roleChanged(ObservedRole(role))
        case .leaderChanged(let leader): kind = .leaderChanged(MemberID(leader))
        case .elected(let elected): kind = .elected(votes: Int(elected.votes), voters: Int(elected.voters))
        case .steppedDown(let reason): kind = .steppedDown(reason: reason)
        case .firstCommit(let index): kind = .firstCommit(LogIndex(index))
        case .transferStarted(let heir): kind = .transferStarted(to: MemberID(heir))
        case .transferAborted(let heir): kind = .transferAborted(to: MemberID(heir))
        case .snapshotSent(let snapshot):
            let phase: SnapshotPhase = switch snapshot.phase {
            case .started, .UNRECOGNIZED: .started
            case .complete: .complete
            case .failed: .failed
            }
            kind = .snapshotSent(to: MemberID(snapshot.member), phase)
        case .snapshotInstalled(let index): kind = .snapshotInstalled(LogIndex(index))
        case .peerLost(let peer): kind = .peerLost(MemberID(peer))
        case .peerFound(let peer): kind = .peerFound(MemberID(peer))
        case .membershipChanged(let text): kind = .membershipChanged(text)
        case .diskStuck(let microseconds): kind = .diskStuck(after: .microseconds(microseconds))
        case .diskRecovered(let microseconds): kind = .diskRecovered(after: .microseconds(microseconds))
        case nil: return nil
        }
    }
}

extension ObservedState {
    init(_ state: PBObservedState) {
        time = ObservedTime(monotonicNanoseconds: state.monotonicNanoseconds, wallMicroseconds: state.wallMicroseconds)
        role = ObservedRole(state.role)
        term = Term(state.term)
        vote = MemberID(state.vote)
        leader = MemberID(state.leader)
        commit = LogIndex(state.commit)
        applied = LogIndex(state.applied)
        last = LogIndex(state.last)
        durable = LogIndex(state.durable)
        timerLeft = state.hasTimerLeftMicroseconds ? .microseconds(state.timerLeftMicroseconds) : nil
        timerLength = state.hasTimerLengthMicroseconds ? .microseconds(state.timerLengthMicroseconds) : nil
        uncommittedBytes = Int(clamping: state.uncommittedBytes)
        unappliedEntries = Int(clamping: state.unappliedEntries)
        diskQueue = Int(clamping: state.diskQueue)
        pendingRequests = Int(clamping: state.pendingRequests)
        peers = state.peers.map(Peer.init)
        stages = state.stages.compactMap(StageLatency.init)
    }
}

extension ObservedState.Peer {
    init(_ peer: PBObservedPeer) {
        id = MemberID(peer.memberID)
        phase = switch peer.phase {
        case .probe, .UNRECOGNIZED: .probe
        case .replicate: .replicate
        case .snapshot: .snapshot
        }
        match = LogIndex(peer.match)
        next = LogIndex(peer.next)
        inFlightMessages = Int(clamping: peer.inFlightMessages)
        inFlightBytes = Int(clamping: peer.inFlightBytes)
        isActive = peer.active
        roundTrip = peer.roundTripMicroseconds > 0 ? .microseconds(peer.roundTripMicroseconds) : nil
    }
}

extension ObservedState.StageLatency {
    init?(_ message: PBObservedStage) {
        guard message.buckets.count == message.counts.count else { return nil }
        switch message.stage {
        case .queue: stage = .queue
        case .logWrite: stage = .logWrite
        case .replicate: stage = .replicate
        case .quorumWait: stage = .quorumWait
        case .apply: stage = .apply
        case .backendCommit: stage = .backendCommit
        case .UNRECOGNIZED: return nil
        }
        places = message.buckets.map(Int.init)
        counts = message.counts.map { Int(clamping: $0) }
        sumMicroseconds = message.sumMicroseconds
    }
}
