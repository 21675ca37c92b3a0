/// Wall-clock time in milliseconds since the Unix epoch (UTC). The UI never reads a clock: the runtime passes it in.
public struct Moment: Hashable, Comparable, Codable, Sendable {
    public var milliseconds: Int64

    public init(milliseconds: Int64) { self.milliseconds = milliseconds }

    public static func < (a: Moment, b: Moment) -> Bool { a.milliseconds < b.milliseconds }
    public static func - (a: Moment, b: Moment) -> Int64 { a.milliseconds - b.milliseconds }
    public func advanced(byMilliseconds n: Int64) -> Moment { Moment(milliseconds: milliseconds + n) }
}

/// A key, or a prefix of keys: any bytes, ordered as unsigned bytes like etcd orders them.
public struct KeyBytes: Hashable, Comparable, Sendable {
    public var bytes: [UInt8]

    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public init(_ text: String) { bytes = Array(text.utf8) }

    public static func < (a: KeyBytes, b: KeyBytes) -> Bool {
        let n = min(a.bytes.count, b.bytes.count)
        var i = 0
        while i < n {
            let x = a.bytes[i], y = b.bytes[i]
            if x != y { return x < y }
            i += 1
        }
        return a.bytes.count < b.bytes.count
    }

    public func hasPrefix(_ prefix: KeyBytes) -> Bool { bytes.starts(with: prefix.bytes) }

    /// The smallest key after all keys that start with this prefix; nil when there is none (empty or only 0xff bytes).
    public var prefixEnd: KeyBytes? {
        var end = bytes
        while let last = end.popLast() {
            if last < 0xff { return KeyBytes(end + [last + 1]) }
        }
        return nil
    }
}

/// What may be written from this console.
public enum WriteMode: Hashable, Codable, Sendable {
    case readWrite
    /// Each write asks one level harder (attached clusters by default).
    case ask
    /// Capitals are off.
    case readOnly
}

/// How the console stands with the cluster.
public enum ConnectionState: Hashable, Codable, Sendable {
    case connecting
    case connected
    /// No endpoint answers. `reason` is one short line.
    case lost(since: Moment, reason: String)
}

/// A member as last heard of. Everything the source does not tell is nil and drawn as "—".
public struct MemberState: Hashable, Codable, Sendable {
    public enum Role: String, Hashable, Codable, Sendable {
        case leader, follower, preCandidate, candidate, learner, unknown
    }

    public enum Health: Hashable, Codable, Sendable {
        /// Started, or first asked, and not heard of yet.
        case starting
        case up
        case paused(since: Moment)
        /// Runs, but its peer links are cut.
        case isolated(since: Moment)
        case down(since: Moment, reason: String)
    }

    /// Member id as etcd prints it in hexadecimal.
    public var id: UInt64
    public var name: String
    /// Client address as shown: `127.0.0.1:2379`.
    public var endpoint: String
    public var role: Role
    public var health: Health
    public var term: UInt64?
    public var commit: UInt64?
    public var applied: UInt64?
    /// Last index in the member's log; nil when the source does not tell (real etcd).
    public var lastIndex: UInt64?
    public var dbSizeBytes: Int64?
    public var dbSizeInUseBytes: Int64?
    public var version: String?
    /// Round trip of the last status request, microseconds.
    public var latencyMicroseconds: Int?
    /// 99th percentile of the log's fsync, microseconds (own nodes and /metrics).
    public var fsyncMicroseconds: Int?
    /// When the member started, if known.
    public var startedAt: Moment?
    /// When these figures were read; older than three periods is drawn dimmed.
    public var sampledAt: Moment?

    public init(id: UInt64, name: String, endpoint: String, role: Role = .unknown, health: Health = .starting) {
        self.id = id
        self.name = name
        self.endpoint = endpoint
        self.role = role
        self.health = health
    }

    public var isUp: Bool {
        switch health {
        case .up, .isolated, .paused: true
        case .starting, .down: false
        }
    }
}

/// The whole cluster as last heard of. The runtime sends a new one when something changed (`DataEvent.cluster`).
public struct ClusterState: Hashable, Codable, Sendable {
    public enum Kind: String, Hashable, Codable, Sendable { case playground, attached }

    public struct Alarm: Hashable, Codable, Sendable {
        public var member: String
        /// `NOSPACE` or `CORRUPT`.
        public var kind: String

        public init(member: String, kind: String) {
            self.member = member
            self.kind = kind
        }
    }

    public var name: String
    public var kind: Kind
    public var mode: WriteMode
    public var connection: ConnectionState
    /// For the header at large sizes: `quarterdeck 0.1`, `etcd 3.5.16`.
    public var serverVersion: String?
    /// What a playground's nodes are where that is not this program's own process: `processes`, `etcd 3.5.16`.
    public var engine: String?
    /// In the order to show; keep it stable.
    public var members: [MemberState]
    public var alarms: [Alarm]
    /// Newest revision heard of.
    public var revision: Int64?
    public var compactRevision: Int64?
    /// Total number of keys, when known.
    public var keyCount: Int64?
    /// True when members are our own nodes that push their Raft state (exact elections), false for polled Status.
    public var isPushed: Bool
    /// How old figures may get before they are stale: the runtime's polling period, milliseconds.
    public var periodMilliseconds: Int64
    /// Extra facts a person must know when attached ("2 of 3 endpoints answer", "auth on: as user web").
    public var note: String?

    public init(name: String, kind: Kind, mode: WriteMode = .readWrite, connection: ConnectionState = .connecting, members: [MemberState] = []) {
        self.name = name
        self.kind = kind
        self.mode = mode
        self.connection = connection
        self.members = members
        alarms = []
        isPushed = kind == .playground
        periodMilliseconds = 1000
    }

    public var leader: MemberState? {
        members.filter { $0.role == .leader && $0.isUp }.max { ($0.term ?? 0) < ($1.term ?? 0) }
    }
}

/// One line of the Events panel. Sending the same `id` again replaces the line (an election whose first commit came later).
public struct ClusterEvent: Hashable, Codable, Sendable {
    public enum Kind: Hashable, Codable, Sendable {
        /// `unavailableMilliseconds`: from the last moment the old leader could commit to the first commit of the new one;
        /// nil while not known. `toleranceMilliseconds` for polled clusters ("± 250 ms").
        case elected(leader: String, previous: String?, fromTerm: UInt64?, term: UInt64, unavailableMilliseconds: Int64?, toleranceMilliseconds: Int64?)
        case leaderLost(previous: String, term: UInt64)
        case campaign(member: String, term: UInt64, isPreVote: Bool)
        case memberDown(member: String, reason: String, byYou: Bool, wasLeader: Bool)
        case memberUp(member: String, afterMilliseconds: Int64?)
        case paused(member: String)
        case resumed(member: String)
        case isolated(member: String)
        case rejoined(member: String)
        case transferRequested(from: String?, to: String)
        case alarm(member: String, kind: String, isRaised: Bool)
        case compacted(revision: Int64)
        case leaseExpired(lease: UInt64, keys: Int)
        case workload(isOn: Bool)
        /// A fault other than those above was switched on, or ended; both as a line for people: "n5 disk: fsync +20 ms".
        case faultOn(String)
        case faultOff(String)
        /// Anything else that is a fact: connection changes of the console, defragmentation ...
        case note(String, isBad: Bool)
    }

    public var id: UInt64
    public var at: Moment
    public var kind: Kind

    public init(id: UInt64, at: Moment, kind: Kind) {
        self.id = id
        self.at = at
        self.kind = kind
    }
}

/// A key without its value, as lists show it.
public struct KeySummary: Hashable, Sendable {
    public var key: KeyBytes
    public var createRevision: Int64
    public var modRevision: Int64
    public var version: Int64
    /// 0: no lease.
    public var lease: UInt64
    /// nil when listed keys-only.
    public var valueSizeBytes: Int?

    public init(key: KeyBytes, createRevision: Int64, modRevision: Int64, version: Int64, lease: UInt64 = 0, valueSizeBytes: Int? = nil) {
        self.key = key
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.lease = lease
        self.valueSizeBytes = valueSizeBytes
    }
}

/// A key with its value.
public struct KeyValue: Hashable, Sendable {
    public var summary: KeySummary
    public var value: [UInt8]

    public init(summary: KeySummary, value: [UInt8]) {
        self.summary = summary
        self.summary.valueSizeBytes = value.count
        self.value = value
    }

    public var key: KeyBytes { summary.key }
}

/// One row of a directory listing.
public enum DirectoryEntry: Hashable, Sendable {
    case key(KeySummary)
    /// `prefix` ends with the separator; `keyCount` counts all keys below (count-only range), nil when not asked.
    case directory(prefix: KeyBytes, keyCount: Int64?)

    public var path: KeyBytes {
        switch self {
        case .key(let summary): summary.key
        case .directory(let prefix, _): prefix
        }
    }
}

/// Asks for direct children of `prefix`, in key order: keys without a further separator, and one entry for each directory.
/// With `separator == nil` every key under the prefix is a child (flat list). Carried out by skip-scan with limits: never more
/// than 1,000 keys in one request.
public struct DirectoryRequest: Hashable, Sendable {
    public enum Direction: Hashable, Sendable { case forward, backward }

    public var prefix: KeyBytes
    public var separator: UInt8?
    public var direction: Direction
    /// Exclusive lower bound: start after this child (and after everything below it when it is a directory); nil: from the start.
    public var after: KeyBytes?
    /// Exclusive upper bound; nil: to the end of the prefix. `.backward` fills from this end.
    public var before: KeyBytes?
    /// Most entries to answer with.
    public var limit: Int

    public init(prefix: KeyBytes, separator: UInt8?, direction: Direction = .forward, after: KeyBytes? = nil, before: KeyBytes? = nil, limit: Int) {
        self.prefix = prefix
        self.separator = separator
        self.direction = direction
        self.after = after
        self.before = before
        self.limit = limit
    }
}

/// The answer to a `DirectoryRequest`: `entries` ascending, whatever the direction; `isComplete` when nothing is left between
/// the bounds asked for beyond these entries.
public struct DirectoryPage: Hashable, Sendable {
    public var request: DirectoryRequest
    public var entries: [DirectoryEntry]
    public var isComplete: Bool
    /// The revision the page was read at (changes up to it are contained).
    public var revision: Int64
    public var failure: String?

    public init(request: DirectoryRequest, entries: [DirectoryEntry], isComplete: Bool, revision: Int64, failure: String? = nil) {
        self.request = request
        self.entries = entries
        self.isComplete = isComplete
        self.revision = revision
        self.failure = failure
    }
}

/// A version of a key in the History panel.
public struct KeyVersion: Hashable, Sendable {
    public var revision: Int64
    /// 0 for a tombstone.
    public var version: Int64
    public var value: [UInt8]
    public var lease: UInt64
    /// When it was written, if the source knows (our nodes' log time, or this console saw it happen).
    public var at: Moment?

    public init(revision: Int64, version: Int64, value: [UInt8], lease: UInt64 = 0, at: Moment? = nil) {
        self.revision = revision
        self.version = version
        self.value = value
        self.lease = lease
        self.at = at
    }
}

/// A change of a key, as a watch over the whole key space tells it.
public struct KeyChange: Hashable, Sendable {
    public var summary: KeySummary
    public var isDelete: Bool

    public init(summary: KeySummary, isDelete: Bool) {
        self.summary = summary
        self.isDelete = isDelete
    }
}

/// An event of a watch opened in the Watch view.
public struct WatchEvent: Hashable, Sendable {
    public var at: Moment
    public var revision: Int64
    public var isDelete: Bool
    public var key: KeyBytes
    public var value: [UInt8]
    /// nil: not known (compacted) or the key was created by this event (see `version`).
    public var previousValue: [UInt8]?
    public var version: Int64
    public var lease: UInt64

    public init(at: Moment, revision: Int64, isDelete: Bool, key: KeyBytes, value: [UInt8], previousValue: [UInt8]?, version: Int64, lease: UInt64) {
        self.at = at
        self.revision = revision
        self.isDelete = isDelete
        self.key = key
        self.value = value
        self.previousValue = previousValue
        self.version = version
        self.lease = lease
    }
}

/// What a watch looks at.
public enum WatchTarget: Hashable, Sendable {
    case key(KeyBytes)
    /// An empty prefix is every key.
    case prefix(KeyBytes)

    public var bytes: KeyBytes {
        switch self {
        case .key(let key), .prefix(let key): key
        }
    }
}

/// A live lease's figures.
public struct LeaseState: Hashable, Sendable {
    public var id: UInt64
    public var grantedSeconds: Int64
    /// Seconds left at `sampledAt`; negative: the lease is gone.
    public var leftSeconds: Int64
    public var sampledAt: Moment

    public init(id: UInt64, grantedSeconds: Int64, leftSeconds: Int64, sampledAt: Moment) {
        self.id = id
        self.grantedSeconds = grantedSeconds
        self.leftSeconds = leftSeconds
        self.sampledAt = sampledAt
    }
}
