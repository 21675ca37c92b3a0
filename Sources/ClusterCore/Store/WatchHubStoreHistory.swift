import Base

/// The store's history as the hub asks for it: a snapshot and a reader that was refreshed after the snapshot was taken.
public struct StoreHistory: WatchHistorySource {
    private let snapshot: StoreSnapshot
    private let reader: any BackendReader

    public init(_ snapshot: StoreSnapshot, reader: any BackendReader) {
        self.snapshot = snapshot
        self.reader = reader
    }

    public func events(
        in ranges: [KeyRange], from: Revision, through: Revision, limits: WatchHistoryLimits
    ) throws(ServiceError) -> WatchHistorySlice {
        let page = try snapshot.history(
            of: ranges, from: from, through: through, maxRevisions: limits.revisions, maxBytes: limits.bytes, reader: reader)
        return WatchHistorySlice(events: page.events, through: Revision(page.next.rawValue - 1))
    }

    public func previous(of key: Key, before: Revision) throws(ServiceError) -> [UInt8]? {
        try snapshot.previousValue(of: key, before: ChangeID(main: before, sub: 0), reader: reader)
    }
}
