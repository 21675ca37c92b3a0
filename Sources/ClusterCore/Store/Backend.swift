import Base

/// The tables of the durable store: one to one etcd's bbolt buckets, so that snapshots convert without translation.
/// (shared/reference/etcd-storage.md §3)
public enum Table: UInt8, CaseIterable, Sendable {
    /// Change (17 bytes: main big-endian, '_', sub big-endian; 't' behind it for a tombstone) -> encoded `mvccpb.KeyValue`.
    case key = 0
    /// Lease id (8 bytes big-endian) -> protobuf {ID, TTL, RemainingTTL}.
    case lease = 1
    case meta = 2
    case members = 3
    case membersRemoved = 4
    case cluster = 5
    case alarm = 6
    case auth = 7
    case authUsers = 8
    case authRoles = 9

    /// The bucket's name in etcd's files.
    public var name: String {
        switch self {
        case .key: "key"
        case .lease: "lease"
        case .meta: "meta"
        case .members: "members"
        case .membersRemoved: "members_removed"
        case .cluster: "cluster"
        case .alarm: "alarm"
        case .auth: "auth"
        case .authUsers: "authUsers"
        case .authRoles: "authRoles"
        }
    }
}

/// One atomic change of the backend: everything or nothing, durable when `commit` returns.
public struct BackendBatch: Sendable {
    public enum Change: Sendable {
        case put(Table, key: [UInt8], value: [UInt8])
        case delete(Table, key: [UInt8])
        /// Empties the table.
        case clear(Table)
    }
    public var changes: [Change] = []
    /// Bytes of keys and values, to bound a batch.
    public var bytes = 0
    public init() {}
    public var isEmpty: Bool { changes.isEmpty }
    public mutating func put(_ table: Table, _ key: [UInt8], _ value: [UInt8]) {
        changes.append(.put(table, key: key, value: value))
        bytes += key.count + value.count
    }
    public mutating func delete(_ table: Table, _ key: [UInt8]) {
        changes.append(.delete(table, key: key))
        bytes += key.count
    }
}

/// Sizes of the database.
public struct BackendSize: Hashable, Sendable {
    /// Allocated in the file.
    public var allocatedBytes: Int64
    /// Allocated minus free pages.
    public var usedBytes: Int64
    public init(allocatedBytes: Int64, usedBytes: Int64) {
        self.allocatedBytes = allocatedBytes
        self.usedBytes = usedBytes
    }
}

/// The durable ordered tables. The real one is LMDB (`LMDBBackend`); `MemoryBackend` has the same commit semantics.
/// One thread commits at a time; readers live on any thread, each confined to one.
public protocol Backend: AnyObject, Sendable {
    /// Atomic, durable on return. A failure is final: the node stops.
    func commit(_ batch: BackendBatch) throws(BackendError)
    /// A consistent picture of the latest commit.
    func makeReader() throws(BackendError) -> any BackendReader
    var size: BackendSize { get }
}

/// A consistent picture of one commit. Confined to one thread.
public protocol BackendReader: AnyObject {
    /// Moves to the latest commit; cheap.
    func refresh() throws(BackendError)
    /// Lends the value to `body`; nil when the key is absent.
    func get<R>(_ table: Table, _ key: [UInt8], _ body: (UnsafeRawBufferPointer) -> R) throws(BackendError) -> R?
    /// Walks entries with key >= `from` ascending until `body` returns false.
    func scan(_ table: Table, from: [UInt8], _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool) throws(BackendError)
    /// Gives the picture back, so that its pages can be reused; `refresh` takes a new one.
    func release()
}

public struct BackendError: Error, Equatable, Sendable, CustomStringConvertible {
    public var operation: String
    public var code: Int32
    public var message: String
    public init(operation: String, code: Int32, message: String) {
        self.operation = operation
        self.code = code
        self.message = message
    }
    public var description: String { "backend \(operation) failed: \(message)" }

    /// `code` of what the device gave back wrong, as LMDB's MDB_CORRUPTED. Such a store must not serve.
    public static let damagedCode: Int32 = -30796
    public var isDamage: Bool { code == BackendError.damagedCode }

    /// `code` of a file whose creation was interrupted: nothing was ever committed to it.
    public static let unfinishedCode: Int32 = -30793
    public static func unfinished(_ path: String) -> BackendError {
        BackendError(operation: "open \(path)", code: unfinishedCode, message: "the file holds no store: its creation was interrupted")
    }

    public static func damaged(_ path: String, _ detail: String) -> BackendError {
        BackendError(operation: "check of \(path)", code: damagedCode, message: "the store is damaged: \(detail); remove this member from the cluster, "
            + "clear its data directory and add it again, or restore a snapshot")
    }
}
