import Base

// The KV requests as plain structs. Their protobuf coding is in RequestCoding.swift, the API-level checks in
// Validation.swift. Enum fields keep any number that arrives: unknown numbers are legal proto3.

/// `RangeRequest.SortOrder` of the API; unknown numbers survive decoding.
public struct SortOrder: RawRepresentable, Hashable, Sendable {
    public var rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }
    public static let none = SortOrder(rawValue: 0)
    public static let ascending = SortOrder(rawValue: 1)
    public static let descending = SortOrder(rawValue: 2)
    public var isKnown: Bool { (0...2).contains(rawValue) }
}

/// `RangeRequest.SortTarget` of the API; unknown numbers survive decoding.
public struct SortTarget: RawRepresentable, Hashable, Sendable {
    public var rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }
    public static let key = SortTarget(rawValue: 0)
    public static let version = SortTarget(rawValue: 1)
    public static let createRevision = SortTarget(rawValue: 2)
    public static let modRevision = SortTarget(rawValue: 3)
    public static let value = SortTarget(rawValue: 4)
    public var isKnown: Bool { (0...4).contains(rawValue) }
}

/// Reads a key or a range of keys. (etcd-api.md §4.1)
public struct RangeRequest: Hashable, Sendable {
    public var key: [UInt8]
    public var rangeEnd: [UInt8]
    /// At most this many key-values; 0 or negative: no limit.
    public var limit: Int64
    /// The revision to read at; 0 or negative: the current one.
    public var revision: Revision
    public var sortOrder: SortOrder
    public var sortTarget: SortTarget
    /// May be answered from local state without a round to the quorum.
    public var serializable: Bool
    public var keysOnly: Bool
    public var countOnly: Bool
    // Filters; 0 = not set.
    public var minModRevision: Revision
    public var maxModRevision: Revision
    public var minCreateRevision: Revision
    public var maxCreateRevision: Revision

    public init(
        key: [UInt8] = [], rangeEnd: [UInt8] = [], limit: Int64 = 0, revision: Revision = .zero,
        sortOrder: SortOrder = .none, sortTarget: SortTarget = .key, serializable: Bool = false,
        keysOnly: Bool = false, countOnly: Bool = false,
        minModRevision: Revision = .zero, maxModRevision: Revision = .zero,
        minCreateRevision: Revision = .zero, maxCreateRevision: Revision = .zero
    ) {
        self.key = key
        self.rangeEnd = rangeEnd
        self.limit = limit
        self.revision = revision
        self.sortOrder = sortOrder
        self.sortTarget = sortTarget
        self.serializable = serializable
        self.keysOnly = keysOnly
        self.countOnly = countOnly
        self.minModRevision = minModRevision
        self.maxModRevision = maxModRevision
        self.minCreateRevision = minCreateRevision
        self.maxCreateRevision = maxCreateRevision
    }

    public var range: KeyRange { KeyRange(key: key, rangeEnd: rangeEnd) }

    /// Whether any of the four revision filters is set.
    var hasFilter: Bool {
        minModRevision != .zero || maxModRevision != .zero || minCreateRevision != .zero || maxCreateRevision != .zero
    }
}

/// Writes one key. (etcd-api.md §4.2)
public struct PutRequest: Hashable, Sendable {
    public var key: [UInt8]
    public var value: [UInt8]
    public var lease: LeaseID
    /// Answer with the key-value as it was before.
    public var prevKV: Bool
    /// Keep the value that the key has.
    public var ignoreValue: Bool
    /// Keep the lease that the key has.
    public var ignoreLease: Bool

    public init(
        key: [UInt8] = [], value: [UInt8] = [], lease: LeaseID = .none, prevKV: Bool = false,
        ignoreValue: Bool = false, ignoreLease: Bool = false
    ) {
        self.key = key
        self.value = value
        self.lease = lease
        self.prevKV = prevKV
        self.ignoreValue = ignoreValue
        self.ignoreLease = ignoreLease
    }
}

/// Deletes every key of a range. (etcd-api.md §4.3)
public struct DeleteRangeRequest: Hashable, Sendable {
    public var key: [UInt8]
    public var rangeEnd: [UInt8]
    /// Answer with the key-values as they were before.
    public var prevKV: Bool

    public init(key: [UInt8] = [], rangeEnd: [UInt8] = [], prevKV: Bool = false) {
        self.key = key
        self.rangeEnd = rangeEnd
        self.prevKV = prevKV
    }

    public var range: KeyRange { KeyRange(key: key, rangeEnd: rangeEnd) }
}

/// One condition of a transaction. (etcd-api.md §4.4)
public struct Compare: Hashable, Sendable {
    /// `Compare.CompareResult`; unknown numbers survive decoding and make the condition true.
    public struct Result: RawRepresentable, Hashable, Sendable {
        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let equal = Result(rawValue: 0)
        public static let greater = Result(rawValue: 1)
        public static let less = Result(rawValue: 2)
        public static let notEqual = Result(rawValue: 3)
    }

    /// `Compare.CompareTarget`; unknown numbers survive decoding and compare as equal.
    public struct Target: RawRepresentable, Hashable, Sendable {
        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let version = Target(rawValue: 0)
        public static let createRevision = Target(rawValue: 1)
        public static let modRevision = Target(rawValue: 2)
        public static let value = Target(rawValue: 3)
        public static let lease = Target(rawValue: 4)
    }

    /// The `target_union` oneof: which member arrived, whatever `target` says.
    public enum Operand: Hashable, Sendable {
        case none
        case version(Int64)
        case createRevision(Int64)
        case modRevision(Int64)
        case value([UInt8])
        case lease(Int64)
    }

    public var result: Result
    public var target: Target
    public var key: [UInt8]
    public var rangeEnd: [UInt8]
    public var operand: Operand

    public init(
        key: [UInt8] = [], rangeEnd: [UInt8] = [], target: Target = .version, result: Result = .equal, operand: Operand = .none
    ) {
        self.key = key
        self.rangeEnd = rangeEnd
        self.target = target
        self.result = result
        self.operand = operand
    }

    public var range: KeyRange { KeyRange(key: key, rangeEnd: rangeEnd) }
}

/// One operation of a transaction's branch.
public indirect enum RequestOp: Hashable, Sendable {
    /// The oneof was empty: refused by validation.
    case none
    case range(RangeRequest)
    case put(PutRequest)
    case deleteRange(DeleteRangeRequest)
    case txn(TxnRequest)
}

/// Conditions and the two branches. (etcd-api.md §4.4)
public struct TxnRequest: Hashable, Sendable {
    public var compare: [Compare]
    public var success: [RequestOp]
    public var failure: [RequestOp]

    public init(compare: [Compare] = [], success: [RequestOp] = [], failure: [RequestOp] = []) {
        self.compare = compare
        self.success = success
        self.failure = failure
    }
}

/// Forgets history below a revision. (etcd-api.md §4.5)
public struct CompactionRequest: Hashable, Sendable {
    public var revision: Revision
    /// Answer only when this member has removed and committed it.
    public var physical: Bool

    public init(revision: Revision = .zero, physical: Bool = false) {
        self.revision = revision
        self.physical = physical
    }
}
