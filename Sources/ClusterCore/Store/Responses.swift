import Base

// What the store answers. Key-values stay the bytes in which they are stored, which are the bytes that the API sends:
// an answer is spliced, not rebuilt. The coding is in ResponseCoding.swift.

/// The header of every answer. `encode` of the results puts the result's own revision in.
public struct ResponseHeader: Hashable, Sendable {
    public var clusterID: ClusterID
    /// The member that answers.
    public var memberID: MemberID
    public var revision: Revision
    /// The term known to that member when the answer was made.
    public var raftTerm: Term

    public init(clusterID: ClusterID = ClusterID(0), memberID: MemberID = .none, revision: Revision = .zero, raftTerm: Term = .zero) {
        self.clusterID = clusterID
        self.memberID = memberID
        self.revision = revision
        self.raftTerm = raftTerm
    }
}

/// A decoded `mvccpb.KeyValue`. The store itself passes the encoded form around.
public struct KeyValue: Hashable, Sendable {
    public var key: [UInt8]
    public var createRevision: Revision
    public var modRevision: Revision
    /// Number of puts since the key was created; 1 after the first. 0 in a tombstone.
    public var version: Int64
    public var value: [UInt8]
    public var lease: LeaseID

    public init(
        key: [UInt8], createRevision: Revision = .zero, modRevision: Revision = .zero, version: Int64 = 0,
        value: [UInt8] = [], lease: LeaseID = .none
    ) {
        self.key = key
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.value = value
        self.lease = lease
    }
}

/// Encoded key-values one behind the other, each with tag and length as it stands in its response message.
public struct EncodedKeyValues: Hashable, Sendable {
    /// Field 2 of RangeResponse.
    static let rangeTag: UInt8 = 2 << 3 | 2
    /// Field 3 of DeleteRangeResponse.
    static let deleteTag: UInt8 = 3 << 3 | 2

    public internal(set) var bytes: [UInt8] = []
    public internal(set) var count = 0

    /// Decoded copies, for callers that need fields instead of bytes.
    public var keyValues: [KeyValue] {
        var result: [KeyValue] = []
        result.reserveCapacity(count)
        bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            while (try? reader.readByte()) != nil, let one = try? reader.readCountedSlice() {
                if let kv = try? decodeKeyValue(one) { result.append(kv) }
            }
        }
        return result
    }
}

public struct RangeResult: Hashable, Sendable {
    /// The store revision at which the range was evaluated.
    public var revision: Revision
    public var kvs = EncodedKeyValues()
    public var more = false
    /// Keys alive in the range, whatever limit and filters say.
    public var count: Int64 = 0
}

public struct PutResult: Hashable, Sendable {
    public var revision: Revision
    /// The encoded key-value before the put, if asked for and present.
    public var previous: [UInt8]?
}

public struct DeleteRangeResult: Hashable, Sendable {
    public var revision: Revision
    public var deleted: Int64 = 0
    public var previous = EncodedKeyValues()
}

public struct TxnResult: Hashable, Sendable {
    public var revision: Revision
    public var succeeded: Bool
    public var responses: [OpResult]
}

/// The answer to one operation of a transaction. Its header carries only a revision; a nested transaction's header is
/// present and empty. (etcd-api.md §4.4, A.3)
public indirect enum OpResult: Hashable, Sendable {
    case none
    case range(RangeResult)
    case put(PutResult)
    case deleteRange(DeleteRangeResult)
    case txn(TxnResult)
}

/// `HashKV`'s answer.
public struct HashKVResult: Hashable, Sendable {
    public var hash: UInt32
    /// -1: never compacted.
    public var compactRevision: Revision
    /// The store's current revision.
    public var revision: Revision
    /// The revision that was hashed.
    public var hashRevision: Revision
}
