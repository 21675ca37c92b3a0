import Base

/// A Watch call (one gRPC stream). The number is handed in by whoever owns the call and is never used twice.
public struct WatchStreamID: RawRepresentable, Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ value: UInt64) { self.rawValue = value }
    @inlinable public static func < (a: WatchStreamID, b: WatchStreamID) -> Bool { a.rawValue < b.rawValue }
}

/// A watcher within its stream. Clients may choose any non-zero number, negative ones included.
public struct WatchID: RawRepresentable, Hashable, Comparable, Sendable {
    public var rawValue: Int64
    @inlinable public init(rawValue: Int64) { self.rawValue = rawValue }
    @inlinable public init(_ value: Int64) { self.rawValue = value }
    /// In a create request: the server picks the id.
    public static let automatic = WatchID(0)
    /// In a response: a refused create request, or a progress notice for every watcher of the stream.
    public static let none = WatchID(-1)
    @inlinable public static func < (a: WatchID, b: WatchID) -> Bool { a.rawValue < b.rawValue }
}

/// `etcdserverpb.WatchCreateRequest`.
public struct WatchCreateRequest: Hashable, Sendable {
    public var key: [UInt8]
    public var rangeEnd: [UInt8]
    /// 0: only what happens from now on; otherwise every event with a revision >= this one.
    public var startRevision: Revision
    public var progressNotify: Bool
    public var filters: WatchFilters
    public var previousKV: Bool
    public var watchID: WatchID
    public var fragment: Bool

    public init(
        key: [UInt8], rangeEnd: [UInt8] = [], startRevision: Revision = .zero, progressNotify: Bool = false,
        filters: WatchFilters = [], previousKV: Bool = false, watchID: WatchID = .automatic, fragment: Bool = false
    ) {
        self.key = key
        self.rangeEnd = rangeEnd
        self.startRevision = startRevision
        self.progressNotify = progressNotify
        self.filters = filters
        self.previousKV = previousKV
        self.watchID = watchID
        self.fragment = fragment
    }

    /// The keys that are watched, after etcd's rule that an empty key stands for the key "\0". Permission is checked on it.
    public var range: KeyRange { KeyRange(key: key.isEmpty ? [0] : key, rangeEnd: rangeEnd) }

    /// Whether `range_end` names a range that can hold no key.
    public var isEmptyRange: Bool {
        if case .bounded(let start, let end) = range { return !(start < end) }
        return false
    }
}

/// The events that a watcher does not want.
public struct WatchFilters: OptionSet, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let noPut = WatchFilters(rawValue: 1)
    public static let noDelete = WatchFilters(rawValue: 2)
}

/// `etcdserverpb.WatchRequest`.
public enum WatchRequest: Hashable, Sendable {
    case create(WatchCreateRequest)
    case cancel(WatchID)
    case progress
    /// An empty or unknown union; etcd ignores it.
    case unknown
}

extension WatchRequest {
    /// Reads one request from the bytes of a gRPC message. Unknown fields and enum numbers are legal.
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> WatchRequest {
        var request = WatchRequest.unknown
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            // The last member of the union wins, as in every protobuf decoder.
            case (1, .lengthDelimited):
                var body = try reader.readMessage()
                request = .create(try WatchCreateRequest.decode(&body))
            case (2, .lengthDelimited):
                var body = try reader.readMessage()
                request = .cancel(try decodeCancel(&body))
            case (3, .lengthDelimited):
                _ = try reader.readMessage()
                request = .progress
            default: try reader.skip(type)
            }
        }
        return request
    }

    private static func decodeCancel(_ reader: inout ByteReader) throws(DecodingFault) -> WatchID {
        var id = WatchID(0)
        while let (field, type) = try reader.readTag() {
            if field == 1, type == .varint {
                id = WatchID(Int64(bitPattern: try reader.readVarint()))
            } else {
                try reader.skip(type)
            }
        }
        return id
    }

    public func encode(into writer: inout ByteWriter) {
        switch self {
        case .create(let request): writer.writeMessage(1) { request.encode(into: &$0) }
        case .cancel(let id): writer.writeMessage(2) { $0.writeField(1, id.rawValue) }
        case .progress: writer.writeMessage(3) { _ in }
        case .unknown: break
        }
    }
}

extension WatchCreateRequest {
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> WatchCreateRequest {
        var request = WatchCreateRequest(key: [])
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): request.key = try reader.readCounted()
            case (2, .lengthDelimited): request.rangeEnd = try reader.readCounted()
            case (3, .varint): request.startRevision = Revision(Int64(bitPattern: try reader.readVarint()))
            case (4, .varint): request.progressNotify = try reader.readVarint() != 0
            case (5, .varint): request.addFilter(try reader.readVarint())
            case (5, .lengthDelimited):
                // proto3 packs repeated enums by default; both forms are legal.
                var packed = try reader.readMessage()
                while !packed.isAtEnd { request.addFilter(try packed.readVarint()) }
            case (6, .varint): request.previousKV = try reader.readVarint() != 0
            case (7, .varint): request.watchID = WatchID(Int64(bitPattern: try reader.readVarint()))
            case (8, .varint): request.fragment = try reader.readVarint() != 0
            default: try reader.skip(type)
            }
        }
        return request
    }

    /// A number that is no FilterType filters nothing.
    private mutating func addFilter(_ number: UInt64) {
        switch number {
        case 0: filters.insert(.noPut)
        case 1: filters.insert(.noDelete)
        default: break
        }
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, key)
        writer.writeField(2, rangeEnd)
        writer.writeField(3, startRevision.rawValue)
        writer.writeField(4, progressNotify)
        if !filters.isEmpty {
            writer.writeMessage(5) {
                if filters.contains(.noPut) { $0.writeVarint(0) }
                if filters.contains(.noDelete) { $0.writeVarint(1) }
            }
        }
        writer.writeField(6, previousKV)
        writer.writeField(7, watchID.rawValue)
        writer.writeField(8, fragment)
    }
}

/// Why a watch was not created; the raw value is the response's `cancel_reason`, byte for byte etcd's.
public enum WatchRefusal: String, Sendable, CaseIterable {
    case permissionDenied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    case invalidAuthToken = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    case authOldRevision = "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
    case userEmpty = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
    case negativeStartRevision = "etcdserver: mvcc: required revision has been compacted"
    case emptyRange = "mvcc: watcher range is empty"
    case duplicateID = "mvcc: duplicate watch ID provided on the WatchStream"
}
