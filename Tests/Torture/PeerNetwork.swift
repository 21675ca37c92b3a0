import DequeModule
import NIOCore
import NIOPosix
import Processes
import Synchronization

/// What one direction of a link between two members does to the bytes that go over it.
struct LinkState: Hashable, Sendable {
    /// Nothing arrives.
    var isCut = false
    /// Of a cut link: bytes are lost, and the connection with them when the link works again. Else they wait, and arrive late, as when TCP
    /// sends again what was lost.
    var loses = false
    var delayMilliseconds = 0
    var jitterMilliseconds = 0
    var bytesPerSecond: Int?

    /// Both at once: the worse of each.
    func and(_ other: LinkState) -> LinkState {
        var both = self
        both.loses = isCut && loses || other.isCut && other.loses
        both.isCut = isCut || other.isCut
        both.delayMilliseconds = max(delayMilliseconds, other.delayMilliseconds)
        both.jitterMilliseconds = max(jitterMilliseconds, other.jitterMilliseconds)
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
    private var faults: [Int: [Link: LinkState]] = [:]
    private var states: [Link: LinkState] = [:]

    init(_ places: [Place]) {
        self.places = places
        loop = group.next()
    }

    func start() async throws {
        for (member, place) in places.enumerated() {
            let listener = try await ServerBootstrap(group: group)
                .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(ChannelOptions.autoRead, value: false)
                .childChannelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
                .childChannelInitializer { channel in channel.eventLoop.makeCompletedFuture { try self.accept(channel, member) } }
                .bind(host: "127.0.0.1", port: place.port).get()
            try await loop.submit { self.listeners.append(listener) }.get()
        }
    }

    func stop() async {
        try? await loop.submit {
            for listener in self.listeners { listener.close(promise: nil) }
            for connection in self.connections.values { connection.reset() }
        }.get()
        try? await group.shutdownGracefully()
    }

    func hasStarted(_ member: Int, as process: pid_t) { processes.withLock { $0[member] = process } }

    /// Returns when every connection is treated so.
    func begin(_ fault: Int, _ links: [Link: LinkState]) async {
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
            for connection in self.connections.values where connection.joins(member) { connection.reset() }
        }.get()
    }

    private func apply() {
        states = faults.values.reduce(into: [:]) { states, links in states.merge(links) { $0.and($1) } }
        for connection in connections.values { connection.obey(states) }
    }

    private func accept(_ channel: any Channel, _ member: Int) throws {
        let source = SocketOwner.find(channel.remoteAddress?.port ?? 0, places[member].port, among: processes.withLock { $0 })
        // Its process is gone already.
        guard let source, source != member else { return channel.close(promise: nil) }
        let connection = PeerConnection(channel, from: source, to: member, port: places[member].memberPort) { [unowned self] in connections[$0] = nil }
        connections[ObjectIdentifier(connection)] = connection
        try channel.pipeline.syncOperations.addHandler(PeerHandler(connection, isAsking: true))
        connection.obey(states)
        connection.connectIfPossible()
    }
}

/// One connection that a member opened to another, and ours behind it. Confined to the loop.
private final class PeerConnection: @unchecked Sendable {
    private let source: Int
    private let target: Int
    private let port: Int
    private let forget: (ObjectIdentifier) -> Void
    private let asking: any Channel
    private var answering: (any Channel)?
    private var hasAsked = false
    private var openSides = 1
    private let forth: PeerFlow
    private let back: PeerFlow

    init(_ channel: any Channel, from source: Int, to target: Int, port: Int, forget: @escaping (ObjectIdentifier) -> Void) {
        asking = channel
        self.source = source
        self.target = target
        self.port = port
        self.forget = forget
        forth = PeerFlow(loop: channel.eventLoop)
        back = PeerFlow(loop: channel.eventLoop)
        forth.source = channel
        back.sink = channel
    }

    func joins(_ member: Int) -> Bool { source == member || target == member }

    /// Over a link that is cut no connection comes about.
    func connectIfPossible() {
        guard !hasAsked, !forth.state.isCut, !back.state.isCut, asking.isActive || openSides == 1 else { return }
        hasAsked = true
        ClientBootstrap(group: asking.eventLoop)
            .channelOption(ChannelOptions.autoRead, value: false)
            .channelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(PeerHandler(self, isAsking: false)) }
            }
            .connect(host: "127.0.0.1", port: port)
            .whenComplete { [self] result in
                switch result {
                // Nobody listens: its process does not run.
                case .failure: reset()
                case .success(let channel):
                    answering = channel
                    openSides += 1
                    guard asking.isActive else { return reset() }
                    back.source = channel
                    forth.sink = channel
                    channel.read()
                }
            }
    }

    func received(_ bytes: ByteBuffer, _ isAsking: Bool) { (isAsking ? forth : back).put(bytes) }
    func readDone(_ isAsking: Bool) { (isAsking ? forth : back).readOn() }
    func canWrite(_ isAsking: Bool) { (isAsking ? back : forth).readOn() }

    func ended(_ isAsking: Bool) {
        openSides -= 1
        if isAsking {
            back.sinkEnded()
            if answering == nil { forth.sinkEnded() }
            forth.sourceEnded()
        } else {
            forth.sinkEnded()
            back.sourceEnded()
        }
        if openSides == 0 { forget(ObjectIdentifier(self)) }
    }

    func obey(_ states: [Link: LinkState]) {
        let isBroken = [forth.change(to: states[Link(from: source, to: target)] ?? LinkState()), back.change(to: states[Link(from: target, to: source)] ?? LinkState())]
        if isBroken.contains(true) { reset() } else { connectIfPossible() }
    }

    func reset() {
        for channel in [asking, answering].compactMap({ $0 }) where channel.isActive {
            _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
            channel.close(promise: nil)
        }
    }
}

/// One direction of a connection. Confined to the loop.
private final class PeerFlow: @unchecked Sendable {
    private struct Held {
        var bytes: ByteBuffer
        var due: NIODeadline
    }
    /// Its sender waits when so much is held.
    private static let heldLimitBytes = 4 << 20

    private let loop: any EventLoop
    private(set) var state = LinkState()
    var source: (any Channel)?
    var sink: (any Channel)? { didSet { deliver() } }
    private var held: Deque<Held> = []
    private var heldBytes = 0
    private var lastDue = NIODeadline.uptimeNanoseconds(0)
    /// When the line has sent all that it took.
    private var lineFree = NIODeadline.uptimeNanoseconds(0)
    private var timer: Scheduled<Void>?
    private var hasLost = false
    private var isSourceOver = false
    private var isSinkOver = false
    private var isReading = true

    init(loop: any EventLoop) { self.loop = loop }

    func put(_ bytes: ByteBuffer) {
        guard !isSinkOver, bytes.readableBytes > 0 else { return }
        if state.isCut, state.loses { return hasLost = true }
        let now = NIODeadline.now()
        var due = now
        if let rate = state.bytesPerSecond {
            lineFree = max(lineFree, now) + .nanoseconds(Int64(Double(bytes.readableBytes) / Double(max(1, rate)) * 1e9))
            due = lineFree
        }
        let jitter = state.jitterMilliseconds
        due = due + .milliseconds(Int64(max(0, state.delayMilliseconds + (jitter > 0 ? .random(in: -jitter...jitter) : 0))))
        // Bytes keep their order.
        lastDue = max(lastDue, due)
        held.append(Held(bytes: bytes, due: lastDue))
        heldBytes += bytes.readableBytes
        deliver()
    }

    private func deliver() {
        guard let sink, !state.isCut else { return }
        let now = NIODeadline.now()
        var hasWritten = false
        while let first = held.first, first.due <= now {
            held.removeFirst()
            heldBytes -= first.bytes.readableBytes
            sink.write(first.bytes, promise: nil)
            hasWritten = true
        }
        if hasWritten { sink.flush() }
        timer?.cancel()
        timer = nil
        if let next = held.first {
            timer = loop.scheduleTask(deadline: next.due) { [weak self] in self?.deliver() }
        } else if isSourceOver, !hasLost {
            sink.close(promise: nil)
        }
        if !isReading { readOn() }
    }

    private var hasRoom: Bool { isSinkOver || state.isCut && state.loses || heldBytes < Self.heldLimitBytes && (sink?.isWritable ?? true) }

    func readOn() {
        isReading = hasRoom
        if isReading { source?.read() }
    }

    func sourceEnded() {
        isSourceOver = true
        // Behind what is still on its way. Over a cut link nobody hears of it.
        deliver()
    }

    func sinkEnded() {
        isSinkOver = true
        held = []
        heldBytes = 0
        timer?.cancel()
        timer = nil
        if !isReading { readOn() }
    }

    /// True: bytes were lost and the link works again: the connection cannot go on.
    func change(to new: LinkState) -> Bool {
        guard new != state else { return false }
        state = new
        if state.isCut {
            if state.loses, !held.isEmpty {
                hasLost = true
                held = []
                heldBytes = 0
            }
            timer?.cancel()
            timer = nil
            if !isReading { readOn() }
            return false
        }
        if hasLost { return true }
        lineFree = .now()
        lastDue = .now()
        for index in held.indices { held[index].due = .now() }
        deliver()
        return false
    }
}

private final class PeerHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let connection: PeerConnection
    private let isAsking: Bool

    init(_ connection: PeerConnection, isAsking: Bool) {
        self.connection = connection
        self.isAsking = isAsking
    }

    func channelActive(context: ChannelHandlerContext) { if isAsking { context.read() } }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { connection.received(unwrapInboundIn(data), isAsking) }
    func channelReadComplete(context: ChannelHandlerContext) { connection.readDone(isAsking) }
    func channelWritabilityChanged(context: ChannelHandlerContext) { if context.channel.isWritable { connection.canWrite(isAsking) } }
    func channelInactive(context: ChannelHandlerContext) { connection.ended(isAsking) }
    // A reset of one side ends it; the other is closed in turn.
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
