import Base
import DequeModule

/// What the leader knows of one peer's log and how it may send to it.
///
/// - `probe`: where the logs agree is a guess; one append on the way, paused until an answer or a heartbeat's reply.
/// - `replicate`: they agree at `match`; appends are sent ahead of answers within the bounds of `Inflight`.
/// - `snapshot`: the peer needs entries that were forgotten; nothing is sent until the stream has ended.
///
/// Invariant: match < next.
struct Progress: Sendable {
    let id: MemberID
    var isVoter: Bool
    var phase: PeerStatus.Phase = .probe
    /// Everything up to here is durable at the peer.
    var match: LogIndex = .zero
    /// The next entry to send.
    var next: LogIndex
    var inflight = Inflight()
    /// In `probe`: the one append is on its way.
    var isPaused = false
    /// No progress between two heartbeat ticks although entries wait: the next heartbeat reply sends an append again, which
    /// finds out whether earlier ones were lost. Not on every reply, since read rounds produce thousands of them a second.
    var wantsRecheck = false
    var matchAtTick: LogIndex = .zero
    /// Send an append at the next flush even if there is nothing new.
    var mustSend = false
    /// The commit index last sent.
    var toldCommit: LogIndex = .zero
    /// When the peer was last heard in this term.
    var lastHeard: Instant
    /// The newest read round it answered. It answers also for all earlier ones: they started before it replied.
    var ackedRound: ReadRound = .none
    /// From a timed heartbeat to its answer. (`Leadership.timedRounds`)
    var roundTrip: TimeSpan?
    /// Its removal is committed, and it is kept until it has acknowledged that entry, so that it can learn of it; not for ever.
    var departure: (index: LogIndex, deadline: Instant)?
    /// The stream has ended well; when the follower's reply is missing for long, probe.
    var snapshotSentAt: Instant?

    init(id: MemberID, isVoter: Bool, next: LogIndex, now: Instant) {
        self.id = id
        self.isVoter = isVoter
        self.next = next
        lastHeard = now
    }

    mutating func becomeProbe(next: LogIndex) {
        phase = .probe
        self.next = max(next, match.next)
        isPaused = false
        inflight.removeAll()
        snapshotSentAt = nil
    }

    mutating func becomeReplicate() {
        phase = .replicate
        next = match.next
        isPaused = false
        inflight.removeAll()
        snapshotSentAt = nil
    }

    mutating func becomeSnapshot() {
        phase = .snapshot
        isPaused = false
        inflight.removeAll()
        snapshotSentAt = nil
    }
}

/// Appends on the way to one peer, in order.
struct Inflight: Sendable {
    private var sent: Deque<(last: LogIndex, bytes: Int)> = []
    private(set) var bytes = 0
    var count: Int { sent.count }

    mutating func add(last: LogIndex, bytes: Int) {
        sent.append((last, bytes))
        self.bytes += bytes
    }

    /// The peer holds everything up to `index`.
    mutating func free(through index: LogIndex) {
        while let first = sent.first, first.last <= index {
            bytes -= first.bytes
            sent.removeFirst()
        }
    }

    mutating func removeAll() {
        sent.removeAll(keepingCapacity: true)
        bytes = 0
    }
}
