import NIOCore
import NIOPosix
import Processes
import Synchronization

extension LinkConditions {
    /// Both at once: the worse of each.
    func and(_ other: LinkConditions) -> LinkConditions {
        var both = self
        both.cut = cut == .losing || other.cut == .losing ? .losing : cut ?? other.cut
        both.delayMicroseconds = max(delayMicroseconds, other.delayMicroseconds)
        both.jitterMicroseconds = max(jitterMicroseconds, other.jitterMicroseconds)
        both.bytesPerSecond = [bytesPerSecond, other.bytesPerSecond].compactMap { $0 }.min()
        return both
    }
}

struct Link: Hashable, Sendable {
    var from: Int
    var to: Int
}

/// The network between the members: each tells the others a port of ours as its own. Whatever the protocol, bytes on a connection between A
/// and B go from A to B or from B to A, and each direction is treated by itself; who made a connection is asked of the system.
final class PeerNetwork: @unchecked Sendable {
    // @unchecked: everything that changes is confined to `loop`, but for `processes`.
    struct Place: Sendable {
        /// Where the others connect to, and where the member listens.
        var port: Int
        var memberPort: Int
    }

    private let places: [Place]
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let loop: any EventLoop
    private let processes = Mutex<[Int: pid_t]>([:])
    private var listeners: [any Channel] = []
    private var connections: [ObjectIdentifier: PeerConnection] = [:]
    /// What each fault that is on does.
    private var faults: [Int: [Link: LinkConditions]] = [:]
    private var states: [Link: LinkConditions] = [:]

    init(_ places: [Place]) {
        self.places = places
        loop = group.next()
    }

    func start() async throws {
        for (member, place) in places.enumerated() {
            let listener = try await LinkConnection.listen(on: place.port, group) { try self.accept($0, member) }
            try await loop.submit { self.listeners.append(listener) }.get()
        }
    }

    func stop() async {
        try? await loop.submit {
            for listener in self.listeners { listener.close(promise: nil) }
            for peer in self.connections.values { peer.connection.reset() }
        }.get()
        try? await group.shutdownGracefully()
    }

    func hasStarted(_ member: Int, as process: pid_t) { processes.withLock { $0[member] = process } }

    /// Returns when every connection is treated so.
    func begin(_ fault: Int, _ links: [Link: LinkConditions]) async {
        try? await loop.submit {
            self.faults[fault] = links
            self.apply()
        }.get()
    }

    func end(_ fault: Int) async {
        try? await loop.submit {
            self.faults[fault] = nil
            self.apply()
        }.get()
    }

    func heal() async {
        try? await loop.submit {
            self.faults = [:]
            self.apply()
        }.get()
    }

    /// Breaks all connections from and to a member.
    func resetConnections(of member: Int) async {
        try? await loop.submit {
            for peer in self.connections.values where peer.link.from == member || peer.link.to == member { peer.connection.reset() }
        }.get()
    }

    private func apply() {
        states = faults.values.reduce(into: [:]) { states, links in states.merge(links) { $0.and($1) } }
        for peer in connections.values { treat(peer) }
    }

    private func accept(_ channel: any Channel, _ member: Int) throws {
        let source = SocketOwner.find(channel.remoteAddress?.port ?? 0, places[member].port, among: processes.withLock { $0 })
        // Its process is gone already.
        guard let source, source != member else { return channel.close(promise: nil) }
        let connection = LinkConnection(channel, port: places[member].memberPort) { [unowned self] in connections[$0] = nil }
        let peer = PeerConnection(connection: connection, link: Link(from: source, to: member))
        connections[ObjectIdentifier(connection)] = peer
        try channel.pipeline.syncOperations.addHandler(LinkHandler(connection, .asking))
        treat(peer)
    }

    private func treat(_ peer: PeerConnection) {
        peer.connection.change(forth: states[peer.link] ?? LinkConditions(), back: states[Link(from: peer.link.to, to: peer.link.from)] ?? LinkConditions())
        // Over a link that is cut no connection comes about.
        if !peer.connection.forth.isCut, !peer.connection.back.isCut { peer.connection.connect() }
    }
}

private struct PeerConnection {
    let connection: LinkConnection
    /// From the one who asked.
    let link: Link
}
