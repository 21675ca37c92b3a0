import Base
import Store

// What clients of a simulated (or real) cluster did and saw: the input of every checker. Pure data, no cluster needed.

/// A point in true time, in nanoseconds from the run's start. Only its order counts.
public typealias Moment = Int64

/// One key-value as a client saw it.
public struct SeenKeyValue: Hashable, Sendable {
    public var key: [UInt8]
    public var value: [UInt8]
    public var createRevision: Int64
    public var modRevision: Int64
    public var version: Int64
    public var lease: Int64
    public init(key: [UInt8], value: [UInt8], createRevision: Int64, modRevision: Int64, version: Int64, lease: Int64 = 0) {
        self.key = key
        self.value = value
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.lease = lease
    }
}

/// A call of one client. A client has one call at a time.
public struct Operation: Sendable {
    public enum Call: Hashable, Sendable {
        case put(key: [UInt8], value: [UInt8], lease: Int64)
        /// `end` empty: the one key; [0]: everything from `key` on. As in etcd's API.
        case delete(key: [UInt8], end: [UInt8])
        /// `revision` 0: the newest. `isSerializable`: answered by the member alone.
        case range(key: [UInt8], end: [UInt8], revision: Int64, isSerializable: Bool)
        /// If the key's mod revision is `expected` (0: absent), put the value; else read the key.
        case compareAndSwap(key: [UInt8], expected: Int64, value: [UInt8])
        /// Puts all pairs in one transaction.
        case putAll([KeyAndValue])
        case compact(revision: Int64)
        case leaseGrant(id: Int64, ttlSeconds: Int64)
        case leaseRevoke(id: Int64)
        case leaseKeepAlive(id: Int64)
    }
    public struct KeyAndValue: Hashable, Sendable {
        public var key: [UInt8]
        public var value: [UInt8]
        public init(key: [UInt8], value: [UInt8]) {
            self.key = key
            self.value = value
        }
    }
    public enum Outcome: Hashable, Sendable {
        /// `revision` is the header's; `found` what a range or a failed compare read; `count` of a range, or keys deleted; `succeeded` of a compare.
        case done(revision: Int64, found: [SeenKeyValue], count: Int64, succeeded: Bool)
        /// Certainly without effect: refused before anyone could have taken it (etcd's code and text).
        case refused(String)
        /// It may have happened, or may still happen.
        case unknown
        /// `ttlSeconds` of a lease granted or renewed; 0: there is no such lease.
        case lease(revision: Int64, ttlSeconds: Int64)
    }
    public var client: Int
    /// The member it was sent to.
    public var member: UInt64
    public var call: Call
    public var start: Moment
    /// When the answer came; for `.unknown` when the client gave up.
    public var end: Moment
    public var outcome: Outcome
    /// Who the client said it was; nil: nobody.
    public var identity: Identity?
    public init(client: Int, member: UInt64, call: Call, start: Moment, end: Moment, outcome: Outcome, identity: Identity? = nil) {
        self.client = client
        self.member = member
        self.call = call
        self.start = start
        self.end = end
        self.outcome = outcome
        self.identity = identity
    }
}

/// What one watch of one client received, in order. A client whose stream broke goes on in a new record, from where the last one stood.
public struct WatchRecord: Sendable {
    public struct Event: Hashable, Sendable {
        public var isDelete: Bool
        /// Of a delete only key and mod revision count.
        public var kv: SeenKeyValue
        public var previous: SeenKeyValue?
        public init(isDelete: Bool, kv: SeenKeyValue, previous: SeenKeyValue? = nil) {
            self.isDelete = isDelete
            self.kv = kv
            self.previous = previous
        }
    }
    public enum Message: Hashable, Sendable {
        case created(headerRevision: Int64)
        /// `isFragment`: more of this response follows.
        case events([Event], headerRevision: Int64, isFragment: Bool)
        /// No events, a promise: everything up to `headerRevision` was delivered.
        case progress(headerRevision: Int64)
        /// `compactRevision` 0: not for a compaction.
        case cancelled(compactRevision: Int64, reason: String)
    }
    public var client: Int
    public var member: UInt64
    public var key: [UInt8]
    public var end: [UInt8]
    /// As asked for; 0: from now on.
    public var startRevision: Int64
    public var wantsPrevious: Bool
    public var wantsPuts = true
    public var wantsDeletes = true
    public var openedAt: Moment
    public var messages: [(at: Moment, message: Message)] = []
    /// Closed by the client or by the end of its member, else it was open at the end of the run.
    public var closedAt: Moment?
    public init(client: Int, member: UInt64, key: [UInt8], end: [UInt8], startRevision: Int64, wantsPrevious: Bool, openedAt: Moment) {
        self.client = client
        self.member = member
        self.key = key
        self.end = end
        self.startRevision = startRevision
        self.wantsPrevious = wantsPrevious
        self.openedAt = openedAt
    }
}

/// One revision as the state machine made it: the truth that everything else is compared with. The simulator takes it from the first member
/// that applies a revision (the state hash proves that all others did the same).
public struct TrueRevision: Sendable {
    public var revision: Int64
    /// In the order of the transaction.
    public var events: [WatchRecord.Event]
    /// When it was first applied anywhere.
    public var at: Moment
    /// What made it, where the source knows.
    public enum Cause: Hashable, Sendable {
        case unknown
        case write
        case leaseRevoked(Int64)
        case leaseExpired(Int64)
    }
    public var cause: Cause
    public init(revision: Int64, events: [WatchRecord.Event], at: Moment, cause: Cause = .unknown) {
        self.revision = revision
        self.events = events
        self.at = at
        self.cause = cause
    }
}

/// A broken promise.
public struct Violation: Hashable, Sendable, CustomStringConvertible {
    /// Short and fixed: "linearizability", "watch-ordered", ...
    public var invariant: String
    /// What was seen and what would have been right, on one line.
    public var detail: String
    public init(_ invariant: String, _ detail: String) {
        self.invariant = invariant
        self.detail = detail
    }
    public var description: String { "\(invariant): \(detail)" }
}
