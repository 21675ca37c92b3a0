// The distinct numbers of a cluster, each with a type of its own so that the compiler keeps them apart.

/// A Raft term: the number of an election period. Starts at 0 (no election seen). (Raft §5.1)
public struct Term: RawRepresentable, Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ value: UInt64) { self.rawValue = value }
    public static let zero = Term(0)
    @inlinable public static func < (a: Term, b: Term) -> Bool { a.rawValue < b.rawValue }
    @inlinable public var next: Term { Term(rawValue + 1) }
}

/// A position in the replicated log. The first entry has index 1; 0 means "before the log".
public struct LogIndex: RawRepresentable, Hashable, Comparable, Sendable, Strideable {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ value: UInt64) { self.rawValue = value }
    public static let zero = LogIndex(0)
    @inlinable public static func < (a: LogIndex, b: LogIndex) -> Bool { a.rawValue < b.rawValue }
    @inlinable public var next: LogIndex { LogIndex(rawValue + 1) }
    /// Precondition: not zero.
    @inlinable public var previous: LogIndex { LogIndex(rawValue - 1) }
    @inlinable public func distance(to other: LogIndex) -> Int { Int(other.rawValue) - Int(rawValue) }
    @inlinable public func advanced(by n: Int) -> LogIndex { LogIndex(UInt64(Int(rawValue) + n)) }
}

/// A store revision as the API shows it (etcd's *main* revision). 1 on an empty store; every transaction that
/// changes something adds exactly 1.
public struct Revision: RawRepresentable, Hashable, Comparable, Sendable {
    public var rawValue: Int64
    @inlinable public init(rawValue: Int64) { self.rawValue = rawValue }
    @inlinable public init(_ value: Int64) { self.rawValue = value }
    public static let zero = Revision(0)
    @inlinable public static func < (a: Revision, b: Revision) -> Bool { a.rawValue < b.rawValue }
    @inlinable public var next: Revision { Revision(rawValue + 1) }
}

/// One change inside the store: the transaction's revision and the change's place in it (etcd's main.sub).
public struct ChangeID: Hashable, Comparable, Sendable {
    public var main: Revision
    public var sub: Int64
    @inlinable public init(main: Revision, sub: Int64) {
        self.main = main
        self.sub = sub
    }
    @inlinable public static func < (a: ChangeID, b: ChangeID) -> Bool {
        a.main != b.main ? a.main < b.main : a.sub < b.sub
    }
}

/// A lease. Any non-zero number, negative ones included; 0 means "no lease".
public struct LeaseID: RawRepresentable, Hashable, Comparable, Sendable {
    public var rawValue: Int64
    @inlinable public init(rawValue: Int64) { self.rawValue = rawValue }
    @inlinable public init(_ value: Int64) { self.rawValue = value }
    public static let none = LeaseID(0)
    @inlinable public static func < (a: LeaseID, b: LeaseID) -> Bool { a.rawValue < b.rawValue }
}

/// A member of a cluster; 0 means "nobody". Printed as lower-case hex without padding.
public struct MemberID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ value: UInt64) { self.rawValue = value }
    public static let none = MemberID(0)
    @inlinable public static func < (a: MemberID, b: MemberID) -> Bool { a.rawValue < b.rawValue }
    public var description: String { String(rawValue, radix: 16) }
}

/// A cluster. Printed as lower-case hex without padding.
public struct ClusterID: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ value: UInt64) { self.rawValue = value }
    public var description: String { String(rawValue, radix: 16) }
}
