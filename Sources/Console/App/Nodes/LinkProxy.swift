import Base
import NIOCore
import NIOPosix
import Processes
import Server

/// The links between real etcd members: each member tells the others a port of ours as its own, and what passes there is treated as a
/// `FaultPlan` says, each direction of each link by itself.
///
/// Which direction bytes belong to (etcd's `rafthttp`): messages from A to B travel in two ways. B asks A for a stream (`GET /raft/stream/...`
/// on A's port) and A's answer, which never ends, carries them; or A posts them (`POST /raft...` on B's port). So on one connection only one
/// side carries messages, and the other, a request without content or an answer without one, passes untouched: a link that is cut one way
/// still works the other way. Anything else (probes, versions, leases) is asked and answered, and needs both directions. Who asks stands in
/// `X-Server-From`; where that is missing, the system is asked which process the other end of the connection belongs to.
///
/// What TCP makes of faults: a cut swallows bytes silently, and a connection that lost some is reset when the cut ends, since its rest would
/// make no sense. A lost packet is not lost but late: the line stalls for as long as a sender waits before it sends again. Duplicates never
/// reach a program.
final class LinkProxy: @unchecked Sendable {
    // @unchecked: everything that changes is confined to `loop`.
    struct Place: Sendable {
        /// Member id.
        var node: UInt64
        /// Where the others connect to, and where the member listens. Both on 127.0.0.1.
        var port: Int
        var memberPort: Int
    }

    /// Requests with a longer head are not etcd's.
    fileprivate static let headLimitBytes = 16 << 10

    private let places: [Place]
    private let owner: @Sendable (_ from: Int, _ to: Int) -> UInt64?
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let loop: any EventLoop
    private var plan = FaultPlan()
    private var listeners: [any Channel] = []
    private var connections: [ObjectIdentifier: ProxiedConnection] = [:]

    /// - Parameter owner: the member whose process has the connection between these ports; nil: unknown, no fault acts on it.
    init(_ places: [Place], owner: @escaping @Sendable (_ from: Int, _ to: Int) -> UInt64? = { _, _ in nil }) {
        self.places = places
        self.owner = owner
        loop = group.next()
    }

    /// - Throws: `NodeHostError` with one line.
    func start() async throws {
        for place in places {
            do {
                let listener = try await LinkConnection.listen(on: place.port, group) { try self.accept($0, place) }
                try await loop.submit { self.listeners.append(listener) }.get()
            } catch {
                throw NodeHostError("127.0.0.1:\(place.port): \(error)")
            }
        }
    }

    /// Returns when every connection is treated so.
    func obey(_ plan: FaultPlan) async {
        _ = try? await loop.submit {
            self.plan = plan
            for proxied in self.connections.values { proxied.obey(plan) }
        }.get()
    }

    func stop() async {
        _ = try? await loop.submit {
            for listener in self.listeners { listener.close(promise: nil) }
            for proxied in self.connections.values { proxied.connection.reset() }
            self.listeners = []
        }.get()
        try? await group.shutdownGracefully()
    }

    /// Connections that are open, for tests.
    func connectionCount() async -> Int { (try? await loop.submit { self.connections.count }.get()) ?? 0 }

    private func accept(_ channel: any Channel, _ place: Place) throws {
        let connection = LinkConnection(channel, port: place.memberPort) { [weak self] in self?.connections[$0] = nil }
        let proxied = ProxiedConnection(connection, to: place, owner: owner) { [unowned self] in plan }
        connections[ObjectIdentifier(connection)] = proxied
        try channel.pipeline.syncOperations.addHandler(LinkHandler(connection, .asking))
    }
}

/// A connection and the links that it is part of.
private final class ProxiedConnection: @unchecked Sendable {
    // @unchecked: confined to the loop.
    let connection: LinkConnection
    private let place: LinkProxy.Place
    private let owner: (Int, Int) -> UInt64?
    private let plan: () -> FaultPlan
    /// What has come before it is known whose it is.
    private var head = ByteBuffer()
    /// The links whose messages flow in either direction; nil: none do.
    private var forth: (from: UInt64, to: UInt64)?
    private var back: (from: UInt64, to: UInt64)?

    init(_ connection: LinkConnection, to place: LinkProxy.Place, owner: @escaping (Int, Int) -> UInt64?, plan: @escaping () -> FaultPlan) {
        self.connection = connection
        self.place = place
        self.owner = owner
        self.plan = plan
        connection.inspect = { [unowned self] in look($0) }
    }

    private func look(_ buffer: ByteBuffer) {
        var buffer = buffer
        head.writeBuffer(&buffer)
        let view = head.readableBytesView
        guard let end = view.firstRange(of: [13, 10, 13, 10]) else {
            if view.count > LinkProxy.headLimitBytes { connection.reset() }
            return
        }
        know(RequestHead(String(decoding: view[..<end.lowerBound], as: UTF8.self)))
    }

    private func know(_ request: RequestHead) {
        connection.inspect = nil
        if let source = request.from ?? owner(connection.asking.remoteAddress?.port ?? 0, connection.asking.localAddress?.port ?? 0), source != place.node {
            if request.carriesMessagesForth { forth = (source, place.node) }
            if request.carriesMessagesBack { back = (place.node, source) }
            obey(plan())
        }
        // Over a link that is cut no connection comes about.
        if !connection.forth.isCut { connection.connect() }
        connection.forth.put(head)
        head = ByteBuffer()
    }

    func obey(_ plan: FaultPlan) {
        func conditions(_ link: (from: UInt64, to: UInt64)?) -> LinkConditions { link.map { LinkConditions(plan[from: $0.from, to: $0.to]) } ?? LinkConditions() }
        connection.change(forth: conditions(forth), back: conditions(back))
    }

    /// What the first request on a connection says about all of them: etcd keeps separate connections for each purpose.
    private struct RequestHead {
        var from: UInt64?
        var carriesMessagesForth = true
        var carriesMessagesBack = true

        init(_ text: String) {
            let lines = text.split(separator: "\r\n")
            let words = lines.first?.split(separator: " ") ?? []
            if words.count >= 2, words[1].hasPrefix("/raft") {
                if words[0] == "GET", words[1].hasPrefix("/raft/stream") { carriesMessagesForth = false }
                if words[0] == "POST" { carriesMessagesBack = false }
            }
            for line in lines.dropFirst() {
                guard let colon = line.firstIndex(of: ":"), line[..<colon].lowercased() == "x-server-from" else { continue }
                from = Hexadecimal.number(line[line.index(after: colon)...].utf8.drop { $0 == UInt8(ascii: " ") })
            }
        }
    }
}

extension LinkConditions {
    /// Duplicates never reach a program over TCP.
    fileprivate init(_ treatment: LinkTreatment) {
        self.init()
        cut = treatment.isCut || treatment.lossShare >= 1 ? .losing : nil
        delayMicroseconds = treatment.delayMicroseconds
        jitterMicroseconds = treatment.jitterMicroseconds
        lossShare = treatment.lossShare
        bytesPerSecond = treatment.bytesPerSecond
    }
}
