import Base

/// One change of one key, as watchers and the lease table learn of it. The events of a revision come in `sub` order.
public struct StoreEvent: Hashable, Sendable {
    public enum Kind: UInt8, Sendable {
        case put = 0
        case delete = 1
    }
    public var kind: Kind
    public var key: Key
    public var change: ChangeID
    /// Encoded `mvccpb.KeyValue` as an Event carries it: for a put the stored bytes, for a delete key and mod_revision only.
    public var kv: [UInt8]
    /// A put that began a new generation: create_revision == mod_revision. Such an event has no prev_kv.
    public var isCreate: Bool
    /// The lease the key hangs on after this change; `.none` for a delete.
    public var lease: LeaseID
    /// The lease the key hung on before this change. Known only in events of apply (`takeEvents`); `.none` in events
    /// read from history.
    public var previousLease: LeaseID

    public init(
        kind: Kind, key: Key, change: ChangeID, kv: [UInt8], isCreate: Bool, lease: LeaseID = .none, previousLease: LeaseID = .none
    ) {
        self.kind = kind
        self.key = key
        self.change = change
        self.kv = kv
        self.isCreate = isCreate
        self.lease = lease
        self.previousLease = previousLease
    }
}

/// A piece of history, whole revisions only.
public struct HistoryPage: Sendable {
    /// In (main, sub) order.
    public var events: [StoreEvent]
    /// The first revision that this page does not cover: ask again from here. `through + 1` when everything was covered.
    /// May advance without events when the work bound was reached before anything matched.
    public var next: Revision
}
