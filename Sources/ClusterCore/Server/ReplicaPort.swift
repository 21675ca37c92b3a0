import Base
import NIOCore
import Replica
import Store

/// What the member has for the requests of one client loop: one batch per turn of the replica loop.
public struct ReplicaDelivery: Sendable {
    public var answers: [(token: RequestToken, answer: Answer)] = []
    public var grants: [ReadGrant] = []
    public var watch: [WatchOutput] = []
    /// Watch streams to end with "etcdserver: no leader".
    public var leaderlessStreams: [WatchStreamID] = []
    /// News for the loop's Observe streams.
    var observed: ObserverNews?
    /// Of the member when it answered: for headers of answers that come without them.
    public var revision = Revision.zero
    public init() {}
    public var isEmpty: Bool { answers.isEmpty && grants.isEmpty && watch.isEmpty && leaderlessStreams.isEmpty && observed == nil }
}

/// One event loop's end of the line between client connections and the member. The upper 8 bits of every token and stream id
/// that it hands out are its `number`, so that answers find back.
public protocol ClientLoopPort: AnyObject, Sendable {
    var number: UInt8 { get }
    var eventLoop: any EventLoop { get }
    /// Called on `eventLoop`.
    func deliver(_ delivery: ReplicaDelivery)
}

extension RequestToken {
    public init(loop: UInt8, slot: UInt64) { self.init(rawValue: UInt64(loop) << 56 | slot & 0x00ff_ffff_ffff_ffff) }
    public var loop: UInt8 { UInt8(rawValue >> 56) }
    public var slot: UInt64 { rawValue & 0x00ff_ffff_ffff_ffff }
}

extension WatchStreamID {
    public init(loop: UInt8, slot: UInt64) { self.init(UInt64(loop) << 56 | slot & 0x00ff_ffff_ffff_ffff) }
    public var loop: UInt8 { UInt8(rawValue >> 56) }
}

/// The member as client connections see it. Thread-safe.
public protocol ReplicaPort: AnyObject, Sendable {
    var identity: NodeIdentity { get }
    /// Hands events over; answers come to the loop whose number their tokens carry. Wakes the replica loop at most once a batch.
    /// `arrival` times the batch's requests, while somebody observes the member.
    func post(_ events: [ReplicaEvent], _ arrival: RequestArrival?)
    func attach(_ loop: any ClientLoopPort)
    /// The loop's connections are closed; nothing is delivered any more.
    func detach(_ loop: any ClientLoopPort)
    /// Whether the loop has Observe streams. Said again for each new stream: what the member remembers then comes in the next delivery.
    func setObserving(_ loop: any ClientLoopPort, _ isObserving: Bool)
    /// The latest picture that the replica loop published (at most a few milliseconds old while anything changes).
    var published: ReplicaStatus? { get }
    var metrics: NodeMetrics { get }
    /// Where snapshots for clients are made; nil where there are no files.
    var snapshotDesk: SnapshotDesk? { get }
}

extension ReplicaPort {
    public var snapshotDesk: SnapshotDesk? { nil }
}

/// Requests of a batch, and when the first of them came in.
public struct RequestArrival: Sendable {
    public var requests: Int
    public var since: Instant
}

/// Who a node is.
public struct NodeIdentity: Sendable {
    public var cluster: ClusterID
    public var member: MemberID
    public var name: String
    public var options: ReplicaOptions
    public init(cluster: ClusterID, member: MemberID, name: String, options: ReplicaOptions) {
        self.cluster = cluster
        self.member = member
        self.name = name
        self.options = options
    }
}

/// The versions that the server claims, since tools compare them.
public enum ServerVersion {
    /// The etcd release whose behaviour this server follows.
    public static let etcd = "3.5.33"
    public static let cluster = "3.5.0"
    /// What a cluster of that version may go back to.
    public static let downgradeTarget = "3.4.0"
    public static let quarterdeck = "0.1.0"
}
