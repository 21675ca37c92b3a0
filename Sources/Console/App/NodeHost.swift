import Server
import UI

/// What a playground asks of the nodes that the console itself started. The console's data still come through the client library
/// like from any cluster; this seam adds what only an owner can have: faults, and news the moment they happen. Its caller for faults is
/// `FaultBoard`, which knows which of them are on.
///
/// All members may be called from any task at the same time. Operations on a node return when they have taken effect (killed: its
/// ports are closed; restarted: it listens) and throw `NodeHostError` with one line for the person.
protocol NodeHost: AnyObject, Sendable {
    /// The nodes in a fixed order, dead or alive. Their ids, names and endpoints do not change while the host lives. Available before
    /// `start` has finished, so that the first frame can list them.
    var nodes: [HostedNode] { get }

    /// Where the data live, for showing; and whether `shutDown` removes them.
    var dataDirectory: String { get }
    var isTemporary: Bool { get }
    /// What the nodes are, where that is not this process itself: `processes`, `etcd 3.5.16`.
    var engine: String? { get }

    /// Receives news from then on; called from the nodes' own threads, must return at once. Set once, before `start`.
    func observe(_ handler: @escaping @Sendable (NodeEvent) -> Void)

    /// Starts all nodes. Returns when they listen; does not wait for a leader.
    func start() async throws

    /// Each node's process now, in the order of `nodes`. Never waits for one that is slow or dead. What their consensus does is told by the
    /// nodes themselves (`ObserverFeed`) or asked for, as with any cluster.
    func statuses() -> [NodeStatus]

    /// Abruptly: nothing is flushed, connections drop, what was not fsynced is lost.
    func kill(_ id: UInt64) async throws
    /// Cleanly: leadership is handed over first. The node is `.dead(reason: "stopped")` then.
    func stop(_ id: UInt64) async throws
    /// Starts a dead node on its data directory, or stops a live one cleanly and starts it. It starts under the plan obeyed last.
    func restart(_ id: UInt64) async throws
    /// The node stops doing anything (no ticks, no messages, no answers) while its connections stay open; and goes on.
    func pause(_ id: UInt64) async throws
    func resume(_ id: UInt64) async throws
    /// Cuts the log of a dead node in the middle of its last record, as a power failure would.
    func tearLog(_ id: UInt64) async throws
    /// From now on links, disks and clocks are as the plan says, those of nodes that start later too; the plan before is forgotten. Dead
    /// nodes do not matter. A running node all of whose links are cut is `.isolated` then, and `.running` again when they are not.
    func obey(_ plan: FaultPlan) async throws
    /// What this engine cannot do. Does not change.
    var faultSupport: FaultSupport { get }

    /// Stops all nodes cleanly and removes the data directory when it is temporary. At most about 200 ms; never throws.
    func shutDown() async

    /// Removes what must not stay behind, in the last moment before the process dies (a signal): no waiting for nodes. Called
    /// instead of `shutDown`, from the main thread.
    func abandon()
}

extension NodeHost {
    var engine: String? { nil }
}

struct HostedNode: Hashable, Sendable {
    /// Member id.
    var id: UInt64
    var name: String
    /// `127.0.0.1:2379`, as clients reach it.
    var clientEndpoint: String
    var peerEndpoint: String

    var clientPort: Int { HostedNode.port(clientEndpoint) }
    var peerPort: Int { HostedNode.port(peerEndpoint) }
    private static func port(_ endpoint: String) -> Int { endpoint.split(separator: ":").last.flatMap { Int($0) } ?? 0 }
}

struct NodeHostError: Error, CustomStringConvertible, Sendable {
    /// One line for the person.
    var description: String
    init(_ description: String) { self.description = description }
}

enum NodeProcessState: Hashable, Sendable {
    case starting
    case running
    case paused
    /// Running with its peer links cut.
    case isolated
    /// Killed, or stopped by an error of its own (disk full, damaged log ...).
    case dead(reason: String)
}

/// What a node's owner knows of it.
struct NodeStatus: Hashable, Sendable {
    var id: UInt64
    var process: NodeProcessState
    /// Wall clock, milliseconds since 1970; 0: it does not run.
    var startedAtMilliseconds: Int64
}

/// A node's process changed its state, at the moment it did.
struct NodeEvent: Sendable {
    /// Member id.
    var node: UInt64
    /// Wall clock, milliseconds since 1970, at the node.
    var atMilliseconds: Int64
    var process: NodeProcessState
}

/// What `quarterdeck playground` was asked for.
struct PlaygroundOptions: Hashable, Sendable {
    /// What the nodes are.
    enum Engine: String, CaseIterable, Hashable, Sendable {
        /// Inside the console's process.
        case embedded
        /// `quarterdeck serve` processes.
        case process
        /// Processes of the real etcd found in PATH.
        case etcd
    }

    var engine = Engine.embedded
    /// 1, 3, 5 or 7.
    var nodeCount = 3
    /// nil: a temporary directory, removed at exit.
    var dataDirectory: String?
    /// nil: etcd's local-cluster ports (clients 2379, 22379, 32379, ...; peers one higher), the next free ones where taken.
    /// Else clients N, N+10, N+20, ... and peers one higher.
    var basePort: Int?
    var heartbeatMilliseconds = 100
    var electionMilliseconds = 1000
    /// nil: what the nodes have by themselves.
    var snapshotCount: Int?
    /// Log entries kept behind a snapshot for slow followers.
    var catchUpEntries: Int?

    /// As arguments of `quarterdeck serve` and of etcd, which has no such setting for what it keeps.
    var nodeArguments: [String] {
        (snapshotCount.map { ["--snapshot-count", "\($0)"] } ?? [])
            + (engine == .etcd ? [] : catchUpEntries.map { ["--experimental-snapshot-catchup-entries", "\($0)"] } ?? [])
    }
}
