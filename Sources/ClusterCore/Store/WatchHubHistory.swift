import Base

/// Where the hub gets events of the past. The replica adapts the store to it; calls happen on the replica loop.
public protocol WatchHistorySource {
    /// The events of `from...through` whose key lies in one of `ranges`, in (main, sub) order.
    ///
    /// The source may return more than asked (other keys), never less, and never a part of a revision. It stops early, at
    /// the end of a revision, when it has looked at `limits.revisions` revisions or gathered `limits.bytes`; revisions that an
    /// index lets it skip need not count. At least one revision is always covered, so that a walk makes progress.
    /// `from` is never below the compact revision and `through` never above the current one. Includes the tombstones of
    /// the compact revision itself. A throw is a failure of the backend: the member stops.
    func events(
        in ranges: [KeyRange], from: Revision, through: Revision, limits: WatchHistoryLimits
    ) throws(ServiceError) -> WatchHistorySlice

    /// The encoded `mvccpb.KeyValue` of `key` as it was just before revision `before`; nil when the key did not exist then
    /// or that revision can no longer be read.
    func previous(of key: Key, before: Revision) throws(ServiceError) -> [UInt8]?
}

/// How much history one request may walk through.
public struct WatchHistoryLimits: Hashable, Sendable {
    /// Revisions to look at.
    public var revisions: Int
    /// Bytes of the events gathered.
    public var bytes: Int
    public init(revisions: Int, bytes: Int) {
        self.revisions = revisions
        self.bytes = bytes
    }
}

/// A piece of history: whole revisions.
public struct WatchHistorySlice: Sendable {
    public var events: [StoreEvent]
    /// The last revision that is completely covered: `from <= through <=` what was asked for.
    public var through: Revision
    public init(events: [StoreEvent], through: Revision) {
        self.events = events
        self.through = through
    }
}

/// What one call of `WatchHub.catchUp` may spend before it returns to the replica loop.
public struct WatchCatchUpBudget: Hashable, Sendable {
    /// Revisions of history to walk through.
    public var revisions: Int
    /// Bytes of history to gather.
    public var bytes: Int
    /// Passes over history; each serves up to `WatchHub.maxWatchersPerPass` watchers.
    public var passes: Int
    /// The defaults take a few milliseconds of a loop that also carries heartbeats.
    public init(revisions: Int = 5_000, bytes: Int = 4 << 20, passes: Int = 8) {
        self.revisions = revisions
        self.bytes = bytes
        self.passes = passes
    }
}
