import Base

/// One event as a watcher receives it. The bytes are shared with the store and with every other watcher.
public struct WatchEvent: Hashable, Sendable {
    public var isDelete: Bool
    /// The encoded `mvccpb.KeyValue`; for a delete only key and mod_revision.
    public var kv: [UInt8]
    /// The encoded `mvccpb.KeyValue` before the event, for watchers that asked for it.
    public var previousKV: [UInt8]?

    @inlinable public init(isDelete: Bool, kv: [UInt8], previousKV: [UInt8]? = nil) {
        self.isDelete = isDelete
        self.kv = kv
        self.previousKV = previousKV
    }

    /// Size of the encoded `mvccpb.Event`, in bytes.
    @inlinable var encodedSize: Int {
        var size = (isDelete ? 2 : 0) + 1 + varintSize(UInt64(kv.count)) + kv.count
        if let previousKV { size += 1 + varintSize(UInt64(previousKV.count)) + previousKV.count }
        return size
    }

    /// Size inside a response: tag, length and event.
    @inlinable var encodedFieldSize: Int {
        let size = encodedSize
        return 1 + varintSize(UInt64(size)) + size
    }

    @inlinable func encode(into writer: inout ByteWriter) {
        if isDelete { writer.writeField(1, Int64(1)) }
        writer.writeTag(2, .lengthDelimited)
        writer.writeCounted(kv)
        if let previousKV {
            writer.writeTag(3, .lengthDelimited)
            writer.writeCounted(previousKV)
        }
    }
}

/// `etcdserverpb.WatchResponse`, still without the parts of the header that only the node knows.
public struct WatchResponse: Hashable, Sendable {
    /// 0 in the cancellation of a watcher whose history was compacted away.
    public var headerRevision: Revision
    public var watchID: WatchID
    public var created = false
    public var canceled = false
    /// Zero unless the watcher was cancelled by a compaction.
    public var compactRevision = Revision.zero
    public var cancelReason = ""
    /// More fragments of this response follow.
    public var fragment = false
    public let events: [WatchEvent]
    /// Bytes that the events take on the wire.
    public let eventBytes: Int

    public init(headerRevision: Revision, watchID: WatchID, events: [WatchEvent] = []) {
        self.init(headerRevision: headerRevision, watchID: watchID, events: events, eventBytes: WatchResponse.size(of: events))
    }

    /// For callers that already added up the events' sizes: many watchers share one list.
    init(headerRevision: Revision, watchID: WatchID, events: [WatchEvent], eventBytes: Int) {
        self.headerRevision = headerRevision
        self.watchID = watchID
        self.events = events
        self.eventBytes = eventBytes
    }

    static func size(of events: [WatchEvent]) -> Int {
        var size = 0
        for event in events { size += event.encodedFieldSize }
        return size
    }

    /// What this response counts for in the stream's backlog, in bytes; the connection gives the same number back with
    /// `WatchHub.delivered` once the response has left. At least the size on the wire.
    public var backlogBytes: Int { WatchResponse.overheadBytes + cancelReason.utf8.count + eventBytes }

    /// The most that everything except events and reason takes on the wire: header (1 + 1 + 4 x 11), watch_id 11, created,
    /// canceled and fragment 2 each, compact_revision 11, tag and length of the reason 2.
    static let overheadBytes = 46 + 11 + 6 + 11 + 2

    /// Appends the protobuf message. `header.revision` is replaced by the response's own.
    public func encode(header: ResponseHeader, into writer: inout ByteWriter) {
        writer.bytes.reserveCapacity(writer.bytes.count + backlogBytes)
        writer.writeMessage(1) {
            $0.writeField(1, header.clusterID.rawValue)
            $0.writeField(2, header.memberID.rawValue)
            $0.writeField(3, headerRevision.rawValue)
            $0.writeField(4, header.raftTerm.rawValue)
        }
        writer.writeField(2, watchID.rawValue)
        writer.writeField(3, created)
        writer.writeField(4, canceled)
        writer.writeField(5, compactRevision.rawValue)
        if !cancelReason.isEmpty { writer.writeField(6, Array(cancelReason.utf8)) }
        writer.writeField(7, fragment)
        for event in events {
            writer.writeTag(11, .lengthDelimited)
            writer.writeVarint(UInt64(event.encodedSize))
            event.encode(into: &writer)
        }
    }

    /// Splits the events, in order, into responses that stay below `limitBytes` where a single event allows it; all but
    /// the last carry `fragment`. A response below the limit, or with one event, stays whole. (etcd sendFragments)
    func fragments(limitBytes: Int) -> [WatchResponse] {
        guard events.count >= 2, backlogBytes >= limitBytes else { return [self] }
        var pieces: [WatchResponse] = []
        var first = 0
        while first < events.count {
            var size = backlogBytes - eventBytes + events[first].encodedFieldSize
            var next = first + 1
            while next < events.count {
                let grown = size + events[next].encodedFieldSize
                if grown >= limitBytes { break }
                size = grown
                next += 1
            }
            var piece = WatchResponse(headerRevision: headerRevision, watchID: watchID, events: Array(events[first..<next]))
            piece.fragment = next < events.count
            pieces.append(piece)
            first = next
        }
        return pieces
    }
}

/// A response and the stream it belongs to. The outputs of one stream must reach the client in the order of emission.
public struct WatchOutput: Hashable, Sendable {
    public var stream: WatchStreamID
    public var response: WatchResponse
    public init(stream: WatchStreamID, response: WatchResponse) {
        self.stream = stream
        self.response = response
    }
}
