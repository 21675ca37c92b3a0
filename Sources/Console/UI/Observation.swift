/// What a node's consensus did, at the moment it did it: told by our own nodes (`quarterdeck.v1.Observer`), never guessed.
public struct RaftEvent: Hashable, Codable, Sendable {
    public enum Kind: Hashable, Codable, Sendable {
        /// No leader was heard of for this long.
        case electionTimeout(afterMicroseconds: Int64)
        /// The connection to the leader broke and nobody answers there: the election starts without waiting for the timer.
        case leaderConnectionLost(leader: UInt64)
        case preVoteAsked
        case voteAsked
        /// This node voted for another.
        case voteCast(for: UInt64, isPreVote: Bool)
        /// `reason` is a short text for people: "already voted", "log behind", "leader is fresh".
        case voteRefused(to: UInt64, isPreVote: Bool, reason: String)
        /// A vote that this node asked for has been answered.
        case voteReceived(from: UInt64, isGranted: Bool, isPreVote: Bool)
        case roleChanged(MemberState.Role)
        /// `leader` 0: none is known.
        case leaderChanged(leader: UInt64)
        case elected(votes: Int, voters: Int)
        case steppedDown(reason: String)
        /// The first entry of the term is committed: writes and reads are possible again.
        case firstCommit(index: UInt64)
        case transferStarted(to: UInt64)
        case transferAborted(to: UInt64)
        case snapshotSent(to: UInt64, isComplete: Bool)
        case snapshotInstalled(index: UInt64)
        case peerLost(UInt64)
        case peerFound(UInt64)
        case membershipChanged(String)
        /// Events were dropped because the observer did not keep up.
        case missed(Int)
    }

    public var node: UInt64
    /// Wall clock, microseconds since 1970, corrected for a node clock that is bent.
    public var atMicroseconds: Int64
    /// The term the event belongs to.
    public var term: UInt64
    public var kind: Kind

    public init(node: UInt64, atMicroseconds: Int64, term: UInt64, kind: Kind) {
        self.node = node
        self.atMicroseconds = atMicroseconds
        self.term = term
        self.kind = kind
    }

    public var at: Moment { Moment(milliseconds: atMicroseconds / 1_000) }
}

/// A node's consensus state at a moment. Only our own nodes tell it.
public struct NodeSample: Hashable, Codable, Sendable {
    public struct Peer: Hashable, Codable, Sendable {
        public enum Phase: String, Hashable, Codable, Sendable { case probe, replicate, snapshot }
        public var id: UInt64
        public var phase: Phase
        public var match: UInt64
        public var next: UInt64
        public var inFlightMessages: Int
        public var inFlightBytes: Int
        /// Round trip of the last heartbeat or append, microseconds; nil when none was measured.
        public var roundTripMicroseconds: Int?
        public var isActive: Bool

        public init(id: UInt64, phase: Phase, match: UInt64, next: UInt64, inFlightMessages: Int, inFlightBytes: Int, roundTripMicroseconds: Int?, isActive: Bool) {
            self.id = id
            self.phase = phase
            self.match = match
            self.next = next
            self.inFlightMessages = inFlightMessages
            self.inFlightBytes = inFlightBytes
            self.roundTripMicroseconds = roundTripMicroseconds
            self.isActive = isActive
        }
    }

    public var node: UInt64
    public var atMicroseconds: Int64
    public var role: MemberState.Role
    public var term: UInt64
    /// 0: has not voted in this term.
    public var vote: UInt64
    /// 0: none known.
    public var leader: UInt64
    public var commit: UInt64
    public var applied: UInt64
    public var lastIndex: UInt64
    /// Last index that is durable on this node.
    public var durable: UInt64
    /// Until the election timer fires; nil for a leader.
    public var timerLeftMicroseconds: Int64?
    /// The whole length of the timer that is running now.
    public var timerLengthMicroseconds: Int64?
    public var uncommittedBytes: Int
    /// Entries committed, not applied.
    public var unapplied: Int
    /// Log batches that wait for the disk thread or are being written.
    public var diskQueue: Int
    /// Requests that wait for a leader, a read round or their commit.
    public var pendingRequests: Int
    /// Only at the leader.
    public var peers: [Peer]
    /// Time requests spent in each stage since the sample before.
    public var stages: [StageLatency]

    public init(node: UInt64, atMicroseconds: Int64, role: MemberState.Role, term: UInt64, vote: UInt64 = 0, leader: UInt64 = 0, commit: UInt64 = 0, applied: UInt64 = 0, lastIndex: UInt64 = 0, durable: UInt64 = 0,
                timerLeftMicroseconds: Int64? = nil, timerLengthMicroseconds: Int64? = nil, uncommittedBytes: Int = 0, unapplied: Int = 0, diskQueue: Int = 0, pendingRequests: Int = 0, peers: [Peer] = [], stages: [StageLatency] = []) {
        self.node = node
        self.atMicroseconds = atMicroseconds
        self.role = role
        self.term = term
        self.vote = vote
        self.leader = leader
        self.commit = commit
        self.applied = applied
        self.lastIndex = lastIndex
        self.durable = durable
        self.timerLeftMicroseconds = timerLeftMicroseconds
        self.timerLengthMicroseconds = timerLengthMicroseconds
        self.uncommittedBytes = uncommittedBytes
        self.unapplied = unapplied
        self.diskQueue = diskQueue
        self.pendingRequests = pendingRequests
        self.peers = peers
        self.stages = stages
    }
}

/// How long requests spent in one stage of their way, as a histogram with logarithmic buckets.
public struct StageLatency: Hashable, Codable, Sendable {
    public enum Stage: String, CaseIterable, Hashable, Codable, Sendable {
        /// From the client's loop until consensus took it.
        case queue
        /// Log write and fsync on this node.
        case logWrite
        /// From sending an entry to a follower until its acknowledgement.
        case replicate
        /// From proposing until a quorum has it.
        case quorumWait
        case apply
        case backendCommit

        public var title: String {
            switch self {
            case .queue: "queue"
            case .logWrite: "wal fsync"
            case .replicate: "replicate"
            case .quorumWait: "quorum wait"
            case .apply: "apply"
            case .backendCommit: "backend commit"
            }
        }
    }

    public var stage: Stage
    public var histogram: LatencyHistogram

    public init(stage: Stage, histogram: LatencyHistogram) {
        self.stage = stage
        self.histogram = histogram
    }
}

/// Counts by latency in fixed bounds: exact to add, to take differences of, and to draw as a column of a heat map.
public struct LatencyHistogram: Hashable, Codable, Sendable {
    /// Upper bounds, ascending, microseconds. There is one count more than bounds: the last is above them all.
    public var boundsMicroseconds: [Int]
    public var counts: [Int]
    public var sumMicroseconds: Int64

    /// Bounds for our own measurements: four a doubling from 62 us to 17 s, fine enough for percentiles within 19 %.
    public static let fineBounds: [Int] = {
        var bounds: [Int] = []
        var base = 62.5
        while base < 17_000_000 {
            for step in 0..<4 { bounds.append(Int(base * [1.0, 1.189207, 1.414214, 1.681793][step])) }
            base *= 2
        }
        return bounds
    }()

    public init(boundsMicroseconds: [Int] = LatencyHistogram.fineBounds) {
        self.boundsMicroseconds = boundsMicroseconds
        counts = [Int](repeating: 0, count: boundsMicroseconds.count + 1)
        sumMicroseconds = 0
    }

    public var total: Int { counts.reduce(0, +) }

    public mutating func record(microseconds: Int) {
        var low = 0, high = boundsMicroseconds.count
        while low < high {
            let middle = (low + high) / 2
            if microseconds <= boundsMicroseconds[middle] { high = middle } else { low = middle + 1 }
        }
        counts[low] += 1
        sumMicroseconds += Int64(microseconds)
    }

    /// Both must have the same bounds; others are ignored.
    public mutating func add(_ other: LatencyHistogram) {
        guard other.boundsMicroseconds == boundsMicroseconds else { return }
        for index in counts.indices { counts[index] += other.counts[index] }
        sumMicroseconds += other.sumMicroseconds
    }

    /// The upper bound of the bucket that holds this share of all records; beyond the last bound, that bound. nil when empty.
    public func quantile(_ share: Double) -> Int? {
        let total = total
        guard total > 0 else { return nil }
        let wanted = max(1, Int((share * Double(total)).rounded(.up)))
        var seen = 0
        for (index, count) in counts.enumerated() {
            seen += count
            if seen >= wanted { return boundsMicroseconds[min(index, boundsMicroseconds.count - 1)] }
        }
        return boundsMicroseconds.last
    }
}

/// One write of the canary: a small put, many times a second, whose only purpose is to show what clients feel.
public struct CanaryWrite: Hashable, Codable, Sendable {
    public enum Outcome: String, Hashable, Codable, Sendable {
        case acknowledged
        /// Acknowledged after the client library tried again.
        case retried
        /// An error or no answer in time: the write may have happened or not.
        case failed
    }

    public var dueMicroseconds: Int64
    public var tookMicroseconds: Int64
    public var outcome: Outcome
    /// 0 unless acknowledged.
    public var revision: Int64

    public init(dueMicroseconds: Int64, tookMicroseconds: Int64, outcome: Outcome, revision: Int64 = 0) {
        self.dueMicroseconds = dueMicroseconds
        self.tookMicroseconds = tookMicroseconds
        self.outcome = outcome
        self.revision = revision
    }
}

/// What became of the canary's acknowledged writes: each must appear in a watch of its key.
public struct CanaryCheck: Hashable, Codable, Sendable {
    public var acknowledged: Int
    /// Seen in the watch.
    public var confirmed: Int
    /// The watch has gone past them without bringing them.
    public var lost: Int
    /// Those lost, at most 20.
    public var lostRevisions: [Int64]

    public init(acknowledged: Int = 0, confirmed: Int = 0, lost: Int = 0, lostRevisions: [Int64] = []) {
        self.acknowledged = acknowledged
        self.confirmed = confirmed
        self.lost = lost
        self.lostRevisions = lostRevisions
    }
}

/// What a `/metrics` scrape of a node said since the scrape before. For clusters that do not push (real etcd).
public struct MetricsSample: Hashable, Codable, Sendable {
    public var node: UInt64
    public var at: Moment
    /// Over which time the counts grew.
    public var spanMilliseconds: Int64
    public var walFsync: LatencyHistogram?
    public var backendCommit: LatencyHistogram?
    public var peerRoundTrip: LatencyHistogram?
    public var proposalsCommitted: Int
    public var proposalsPending: Int
    public var proposalsFailed: Int
    public var slowApplies: Int
    public var leaderChanges: Int

    public init(node: UInt64, at: Moment, spanMilliseconds: Int64, walFsync: LatencyHistogram? = nil, backendCommit: LatencyHistogram? = nil, peerRoundTrip: LatencyHistogram? = nil,
                proposalsCommitted: Int = 0, proposalsPending: Int = 0, proposalsFailed: Int = 0, slowApplies: Int = 0, leaderChanges: Int = 0) {
        self.node = node
        self.at = at
        self.spanMilliseconds = spanMilliseconds
        self.walFsync = walFsync
        self.backendCommit = backendCommit
        self.peerRoundTrip = peerRoundTrip
        self.proposalsCommitted = proposalsCommitted
        self.proposalsPending = proposalsPending
        self.proposalsFailed = proposalsFailed
        self.slowApplies = slowApplies
        self.leaderChanges = leaderChanges
    }
}

/// A line of a node's log, or of the console's own journal (`node` 0).
public struct LogLine: Hashable, Codable, Sendable {
    public enum Level: Int, CaseIterable, Hashable, Comparable, Codable, Sendable {
        case debug, info, warning, error, critical
        public static func < (a: Level, b: Level) -> Bool { a.rawValue < b.rawValue }
        public var label: String { ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"][rawValue] }
    }

    public var at: Moment
    public var node: UInt64
    public var level: Level
    /// What part of the node: `raft`, `wal`, `process`, `journal`.
    public var part: String
    public var text: String

    public init(at: Moment, node: UInt64, level: Level, part: String, text: String) {
        self.at = at
        self.node = node
        self.level = level
        self.part = part
        self.text = text
    }
}
