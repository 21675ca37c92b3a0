import Base

/// One key at one revision.
public struct KeyValue: Hashable, Sendable {
    public var key: [UInt8]
    public var value: [UInt8]
    /// Revision at which the key last came into being.
    public var createRevision: Revision
    /// Revision of this version.
    public var modRevision: Revision
    /// 1 for a new key, one more with every change.
    public var version: Int64
    public var lease: LeaseID

    public init(key: [UInt8] = [], value: [UInt8] = [], createRevision: Revision = .zero, modRevision: Revision = .zero,
                version: Int64 = 0, lease: LeaseID = .none) {
        self.key = key
        self.value = value
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.lease = lease
    }

    /// Key and value as text, with replacement characters where they are not UTF-8.
    public var keyText: String { String(decoding: key, as: UTF8.self) }
    public var valueText: String { String(decoding: value, as: UTF8.self) }
}

/// Who answered, and at what point of the store's history. Cluster calls leave `revision` 0.
public struct ResponseHeader: Hashable, Sendable {
    public var clusterID: ClusterID
    public var memberID: MemberID
    public var revision: Revision
    public var raftTerm: Term
    public init(clusterID: ClusterID = ClusterID(0), memberID: MemberID = .none, revision: Revision = .zero, raftTerm: Term = .zero) {
        self.clusterID = clusterID
        self.memberID = memberID
        self.revision = revision
        self.raftTerm = raftTerm
    }
}

/// What to read.
public struct RangeQuery: Hashable, Sendable {
    public enum Order: Int64, Hashable, Sendable { case none, ascending, descending }
    public enum Target: Int64, Hashable, Sendable { case key, version, createRevision, modRevision, value }

    public var range: KeyRange
    /// At most so many keys; 0: all.
    public var limit: Int64 = 0
    /// As the store was then; 0: now.
    public var revision: Revision = .zero
    public var order: Order = .none
    public var target: Target = .key
    /// Answered by the asked member from what it has: quicker, perhaps stale, and possible without a quorum.
    public var isSerializable = false
    public var keysOnly = false
    public var countOnly = false
    /// Limits on the revisions of the keys returned, inclusive; 0: none.
    public var minModRevision: Revision = .zero
    public var maxModRevision: Revision = .zero
    public var minCreateRevision: Revision = .zero
    public var maxCreateRevision: Revision = .zero

    public init(_ range: KeyRange, limit: Int64 = 0, revision: Revision = .zero, isSerializable: Bool = false, keysOnly: Bool = false,
                countOnly: Bool = false) {
        self.range = range
        self.limit = limit
        self.revision = revision
        self.isSerializable = isSerializable
        self.keysOnly = keysOnly
        self.countOnly = countOnly
    }
}

public struct RangeResult: Hashable, Sendable {
    public var header = ResponseHeader()
    public var kvs: [KeyValue] = []
    /// The limit cut the answer.
    public var more = false
    /// Keys in the range, whatever the limit.
    public var count: Int64 = 0
    public init() {}
}

/// What to write.
public struct PutCommand: Hashable, Sendable {
    public var key: [UInt8]
    public var value: [UInt8]
    /// `.none` detaches the key from its lease.
    public var lease: LeaseID = .none
    /// Return the version before.
    public var wantsPrevious = false
    /// Keep the present value (and leave `value` empty), or the present lease.
    public var ignoresValue = false
    public var ignoresLease = false
    public init(_ key: [UInt8], _ value: [UInt8], lease: LeaseID = .none, wantsPrevious: Bool = false, ignoresValue: Bool = false,
                ignoresLease: Bool = false) {
        self.key = key
        self.value = value
        self.lease = lease
        self.wantsPrevious = wantsPrevious
        self.ignoresValue = ignoresValue
        self.ignoresLease = ignoresLease
    }
}

public struct PutResult: Hashable, Sendable {
    public var header = ResponseHeader()
    public var previous: KeyValue?
    public init() {}
}

public struct DeleteCommand: Hashable, Sendable {
    public var range: KeyRange
    public var wantsPrevious = false
    public init(_ range: KeyRange, wantsPrevious: Bool = false) {
        self.range = range
        self.wantsPrevious = wantsPrevious
    }
}

public struct DeleteResult: Hashable, Sendable {
    public var header = ResponseHeader()
    public var deleted: Int64 = 0
    public var previous: [KeyValue] = []
    public init() {}
}

/// A condition of a transaction. Applies to every key of the range; an empty range holds.
public struct Comparison: Hashable, Sendable {
    public enum Relation: Int64, Hashable, Sendable { case equal, greater, less, notEqual }
    public enum Target: Hashable, Sendable {
        /// 0 means that the key does not exist.
        case version(Int64)
        case createRevision(Revision)
        case modRevision(Revision)
        /// Never true of a key that does not exist.
        case value([UInt8])
        case lease(LeaseID)
    }
    public var range: KeyRange
    public var relation: Relation
    public var target: Target
    public init(_ range: KeyRange, _ relation: Relation, _ target: Target) {
        self.range = range
        self.relation = relation
        self.target = target
    }
    public init(_ key: String, _ relation: Relation, _ target: Target) { self.init(.single(Key(key)), relation, target) }
}

/// If all comparisons hold, one list of operations, else the other, at one revision.
public struct Transaction: Hashable, Sendable {
    public indirect enum Operation: Hashable, Sendable {
        case range(RangeQuery)
        case put(PutCommand)
        case delete(DeleteCommand)
        case transaction(Transaction)
    }
    public enum Outcome: Hashable, Sendable {
        case range(RangeResult)
        case put(PutResult)
        case delete(DeleteResult)
        indirect case transaction(TransactionResult)
    }
    public var comparisons: [Comparison]
    public var success: [Operation]
    public var failure: [Operation]
    public init(if comparisons: [Comparison] = [], then success: [Operation] = [], else failure: [Operation] = []) {
        self.comparisons = comparisons
        self.success = success
        self.failure = failure
    }
}

public struct TransactionResult: Hashable, Sendable {
    public var header = ResponseHeader()
    /// All comparisons held.
    public var succeeded = false
    /// One for each operation of the list that ran.
    public var outcomes: [Transaction.Outcome] = []
    public init() {}
}
