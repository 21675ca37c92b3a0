import Base
import Log
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import PosixDisk
import Raft
import Replica

/// A cluster of nodes inside this process, on loopback: the playground's engine, and the way to have a cluster in a test.
///
///     let cluster = try EmbeddedCluster(nodes: 3, dataDirectory: path)
///     try await cluster.start()
///     // http://\(cluster.nodes[0].clientURL.authority) is an etcd endpoint now
///     await cluster.stop()
public final class EmbeddedCluster: @unchecked Sendable {
    // @unchecked: `running` and `parts` are under their locks; the rest is immutable.

    /// Where one node of the cluster lives; stays the same when the node is killed and started again.
    public struct Place: Hashable, Sendable {
        public var name: String
        public var id: MemberID
        public var clientURL: NodeURL
        public var peerURL: NodeURL
        public var dataDirectory: String
    }

    /// News of one node.
    public struct Event: Sendable {
        public var node: MemberID
        public var at: WallTime
        public var note: ReplicaNote
    }

    /// The nodes that there are, running or not, in the order in which they came.
    public var nodes: [Place] { parts.withLockedValue { $0.map(\.place) } }
    private struct Part {
        var place: Place
        var configuration: NodeConfiguration
        var faults: NodeFaults
    }
    private let parts: NIOLockedValueBox<[Part]>
    /// Names are never used again.
    private let lastNumber: NIOLockedValueBox<Int>
    private let plan = NIOLockedValueBox<FaultPlan?>(nil)
    private let dataDirectory: String
    private let options: ReplicaOptions
    private let autoCompaction: AutoCompaction
    private let disk: @Sendable (MemberID) -> any Disk
    private let clock: @Sendable (MemberID) -> any NodeClock
    private let replicaGroup: MultiThreadedEventLoopGroup
    private let clientGroup: MultiThreadedEventLoopGroup
    private let logger: Logger
    private let running = NIOLockedValueBox<[MemberID: Node]>([:])
    /// The latest life of each node, also after its end.
    private let latest = NIOLockedValueBox<[MemberID: Life]>([:])
    private final class Life: @unchecked Sendable {
        // @unchecked: weak references are set once, and the runtime clears them atomically.
        private weak var node: Remains?
        private weak var driver: Remains?
        init(_ node: Node) { (self.node, driver) = (node.remains, node.driver.remains) }
        /// Its files and its directory lock are closed.
        var isOver: Bool { node == nil && driver == nil }
    }
    private let observer = NIOLockedValueBox<(@Sendable (Event) -> Void)?>(nil)

    /// - Parameters:
    ///   - ports: client and peer port of each node, both on 127.0.0.1.
    ///   - disk, clock: what each node has behind its faults; the defaults are the real ones.
    public init(ports: [(client: Int, peer: Int)], dataDirectory: String, token: String = "quarterdeck-playground",
                options: ReplicaOptions = ReplicaOptions(), autoCompaction: AutoCompaction = .off, logger: Logger = Logger(label: "quarterdeck", factory: { _ in SwiftLogNoOpLogHandler() }),
                disk: @escaping @Sendable (MemberID) -> any Disk = { _ in PosixDisk() },
                clock: @escaping @Sendable (MemberID) -> any NodeClock = { _ in SystemClock() }) {
        precondition(!ports.isEmpty, "a cluster has at least one node")
        let members = ports.enumerated().map { (name: "n\($0.offset + 1)", url: NodeURL(host: "127.0.0.1", port: $0.element.peer)) }
        var parts: [Part] = []
        for (member, port) in zip(members, ports) {
            var configuration = NodeConfiguration()
            configuration.name = member.name
            configuration.dataDirectory = dataDirectory + "/" + member.name
            configuration.listenClientURLs = [NodeURL(host: "127.0.0.1", port: port.client)]
            configuration.advertiseClientURLs = configuration.listenClientURLs
            configuration.listenPeerURLs = [member.url]
            configuration.initialAdvertisePeerURLs = [member.url]
            configuration.initialCluster = members
            configuration.initialClusterToken = token
            configuration.options = options
            configuration.autoCompaction = autoCompaction
            let id = Identifiers.member(peerURLs: [member.url.description], token: token)
            let place = Place(name: member.name, id: id, clientURL: configuration.listenClientURLs[0], peerURL: member.url, dataDirectory: configuration.dataDirectory)
            parts.append(Part(place: place, configuration: configuration, faults: NodeFaults(member: id, disk: disk(id), clock: clock(id))))
        }
        lastNumber = NIOLockedValueBox(parts.count)
        self.parts = NIOLockedValueBox(parts)
        self.logger = logger
        self.dataDirectory = dataDirectory
        self.options = options
        self.autoCompaction = autoCompaction
        self.disk = disk
        self.clock = clock
        // Each machine has a loop of its own, as it would have in a process of its own.
        replicaGroup = MultiThreadedEventLoopGroup(numberOfThreads: ports.count)
        clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: min(2, ports.count))
    }

    /// Receives every node's news from then on, on the nodes' own loops; must return at once.
    public func observe(_ handler: @escaping @Sendable (Event) -> Void) { observer.withLockedValue { $0 = handler } }

    public func node(_ id: MemberID) -> Node? { running.withLockedValue { $0[id] } }

    /// Starts every node. On a failure those already started are killed.
    public func start() async throws(NodeError) {
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for place in nodes { group.addTask { try await self.start(place.id) } }
                try await group.waitForAll()
            }
        } catch {
            for place in nodes { await kill(place.id) }
            throw (error as? NodeError) ?? .stopped("\(error)")
        }
    }

    /// Starts a node that does not run, on the data it has.
    public func start(_ id: MemberID) async throws(NodeError) {
        let part = try part(id)
        guard node(id) == nil else { throw .configuration("\(part.place.name) runs already") }
        await filesClosed(id)
        var environment = NodeEnvironment(clientGroup: clientGroup, replicaGroup: replicaGroup, logger: logger)
        part.faults.govern(&environment)
        environment.observe = { [observer] note, at in observer.withLockedValue { $0 }?(Event(node: id, at: at, note: note)) }
        let node = try await Node.start(part.configuration, in: environment)
        latest.withLockedValue { $0[id] = Life(node) }
        running.withLockedValue { $0[id] = node }
        node.ended.whenSuccess { [weak self] _ in self?.forget(node, id) }
    }

    private func part(_ id: MemberID) throws(NodeError) -> Part {
        guard let part = parts.withLockedValue({ $0.first { $0.place.id == id } }) else { throw .configuration("no node \(id) in this cluster") }
        return part
    }

    // MARK: Members

    /// Adds a member to the running cluster and starts it. A voter votes once it has caught up.
    @discardableResult
    public func addNode(port: (client: Int, peer: Int), isLearner: Bool = false) async throws -> Place {
        let name = lastNumber.withLockedValue { number in
            number += 1
            return "n\(number)"
        }
        let peerURL = NodeURL(host: "127.0.0.1", port: port.peer)
        let id = Identifiers.member(peerURLs: [peerURL.description], token: String(SystemClock().wall().milliseconds / 1_000))
        let members = try await anyNode(but: .none).changeMembership(.add(Member(id: id, peerURLs: [peerURL.description], isLearner: isLearner)))
        var configuration = NodeConfiguration()
        configuration.name = name
        configuration.dataDirectory = dataDirectory + "/" + name
        configuration.listenClientURLs = [NodeURL(host: "127.0.0.1", port: port.client)]
        configuration.advertiseClientURLs = configuration.listenClientURLs
        configuration.listenPeerURLs = [peerURL]
        configuration.initialAdvertisePeerURLs = [peerURL]
        for member in members {
            for url in member.peerURLs { configuration.initialCluster.append((name: member.id == id ? name : "\(member.id)", url: try NodeURL(parsing: url))) }
        }
        configuration.isExistingCluster = true
        configuration.options = options
        configuration.autoCompaction = autoCompaction
        let place = Place(name: name, id: id, clientURL: configuration.listenClientURLs[0], peerURL: peerURL, dataDirectory: configuration.dataDirectory)
        let faults = NodeFaults(member: id, disk: disk(id), clock: clock(id))
        if let plan = plan.withLockedValue({ $0 }) { faults.obey(plan) }
        parts.withLockedValue { [configuration] in $0.append(Part(place: place, configuration: configuration, faults: faults)) }
        try await start(id)
        return place
    }

    /// Removes a member from the cluster. It is no node of this cluster any more when this returns; its data directory stays, and is of no use.
    public func removeNode(_ id: MemberID) async throws {
        _ = try part(id)
        try await anyNode(but: id).changeMembership(.remove(id))
        if let node = node(id) { _ = try await node.ended.get() }
        parts.withLockedValue { $0.removeAll { $0.place.id == id } }
    }

    /// One that runs, and leads if one does: asked for a change of the membership.
    private func anyNode(but id: MemberID) throws(NodeError) -> Node {
        let all = nodes.filter { $0.id != id }.compactMap { node($0.id) }
        guard let node = all.first(where: { $0.status?.raft.role == .leader }) ?? all.first else { throw .configuration("no other node of this cluster runs") }
        return node
    }

    /// Files and directory lock of a life that has ended close with its last reference, which a task that is just ending may still hold.
    private func filesClosed(_ id: MemberID) async {
        guard let before = latest.withLockedValue({ $0[id] }) else { return }
        let deadline = SystemClock().now() + .seconds(5)
        while !before.isOver, SystemClock().now() < deadline { try? await Task.sleep(for: .milliseconds(2)) }
    }

    // MARK: Faults

    /// From now on links, disks and clocks of all nodes are as the plan says, also of those that start later.
    public func obey(_ plan: FaultPlan) {
        self.plan.withLockedValue { $0 = plan }
        for part in parts.withLockedValue({ $0 }) { part.faults.obey(plan) }
    }

    /// Leaves the log of a node that does not run as a power failure in the middle of a write does.
    @discardableResult
    public func tearLog(_ id: MemberID) async throws(NodeError) -> TornWrite {
        let part = try part(id)
        guard node(id) == nil else { throw .configuration("\(part.place.name) runs: its log can only be torn when it is dead") }
        await filesClosed(id)
        return try part.faults.tearLog(dataDirectory: part.place.dataDirectory)
    }

    public func stop(_ id: MemberID) async {
        guard let node = node(id) else { return }
        await node.stop()
        forget(node, id)
    }
    public func kill(_ id: MemberID) async {
        guard let node = node(id) else { return }
        await node.kill()
        forget(node, id)
    }

    /// Its own end is announced a moment after `stop` and `kill` return.
    private func forget(_ node: Node, _ id: MemberID) { running.withLockedValue { if $0[id] === node { $0[id] = nil } } }

    /// Stops every node cleanly and gives the threads back.
    public func stop() async {
        await withTaskGroup(of: Void.self) { group in
            for place in nodes { group.addTask { await self.node(place.id)?.stop(handingOver: false) } }
        }
        try? await replicaGroup.shutdownGracefully()
        try? await clientGroup.shutdownGracefully()
    }

    /// Kills every node and gives the threads back.
    public func abandon() async {
        for place in nodes { await kill(place.id) }
        try? await replicaGroup.shutdownGracefully()
        try? await clientGroup.shutdownGracefully()
    }
}

/// The last property of an object: gone only when all those before it are, unlike a weak reference to the object itself, which is nil as soon
/// as its end begins.
final class Remains: Sendable {}
