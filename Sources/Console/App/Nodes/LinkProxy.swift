import Base
import DequeModule
import NIOCore
import NIOPosix
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

    /// How long a sender waits before it sends a lost packet again, the first time (Linux: at least 200 ms); doubled for each further loss.
    fileprivate static let retransmission = TimeAmount.milliseconds(200)
    /// Held for one direction of a connection; its sender waits then.
    fileprivate static let heldLimitBytes = 8 << 20
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
                let listener = try await ServerBootstrap(group: group)
                    .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
                    .childChannelOption(ChannelOptions.autoRead, value: false)
                    .childChannelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
                    .childChannelInitializer { channel in
                        self.accept(channel, place)
                        return channel.eventLoop.makeSucceededVoidFuture()
                    }
                    .bind(host: "127.0.0.1", port: place.port).get()
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
            for connection in self.connections.values { connection.obey(plan) }
        }.get()
    }

    func stop() async {
        _ = try? await loop.submit {
            for listener in self.listeners { listener.close(promise: nil) }
            for connection in self.connections.values { connection.reset() }
            self.listeners = []
        }.get()
        try? await group.shutdownGracefully()
    }

    /// Connections that are open, for tests.
    func connectionCount() async -> Int { (try? await loop.submit { self.connections.count }.get()) ?? 0 }

    private func accept(_ channel: any Channel, _ place: Place) {
        let connection = ProxiedConnection(channel, to: place, owner: owner, plan: { [unowned self] in plan }, forget: { [weak self] in self?.connections[$0] = nil })
        connections[ObjectIdentifier(connection)] = connection
        do {
            try channel.pipeline.syncOperations.addHandler(ProxyHandler(connection, .asking))
        } catch {
            connection.reset()
        }
    }
}

private enum ProxySide { case asking, answering }

/// One connection that a member opened to another, and ours behind it.
private final class ProxiedConnection: @unchecked Sendable {
    // @unchecked: confined to the loop, as its flows are.
    private let place: LinkProxy.Place
    private let owner: (Int, Int) -> UInt64?
    private let plan: () -> FaultPlan
    private let forget: (ObjectIdentifier) -> Void
    private let asking: any Channel
    private var answering: (any Channel)?
    /// What has come before it is known whose it is.
    private var head = ByteBuffer()
    private var isKnown = false
    private var isConnecting = false
    private var openSides = 0
    private let forth: ProxyFlow
    private let back: ProxyFlow

    init(_ channel: any Channel, to place: LinkProxy.Place, owner: @escaping (Int, Int) -> UInt64?, plan: @escaping () -> FaultPlan, forget: @escaping (ObjectIdentifier) -> Void) {
        asking = channel
        self.place = place
        self.owner = owner
        self.plan = plan
        self.forget = forget
        forth = ProxyFlow(loop: channel.eventLoop)
        back = ProxyFlow(loop: channel.eventLoop)
        forth.source = channel
        back.sink = channel
    }

    // MARK: What comes

    func received(_ buffer: ByteBuffer, _ side: ProxySide) {
        guard side == .asking, !isKnown else { return (side == .asking ? forth : back).put(buffer) }
        var buffer = buffer
        head.writeBuffer(&buffer)
        let view = head.readableBytesView
        guard let end = view.firstRange(of: [13, 10, 13, 10]) else {
            if view.count > LinkProxy.headLimitBytes { reset() }
            return
        }
        know(RequestHead(String(decoding: view[..<end.lowerBound], as: UTF8.self)))
    }

    private func know(_ request: RequestHead) {
        isKnown = true
        if let source = request.from ?? owner(asking.remoteAddress?.port ?? 0, asking.localAddress?.port ?? 0), source != place.node {
            if request.carriesMessagesForth { forth.link = (source, place.node) }
            if request.carriesMessagesBack { back.link = (place.node, source) }
            forth.treatment = forth.treatment(in: plan())
            back.treatment = back.treatment(in: plan())
        }
        // Over a link that is cut no connection comes about.
        if !forth.isCut { connect() }
        forth.put(head)
        head = ByteBuffer()
    }

    private func connect() {
        isConnecting = true
        ClientBootstrap(group: asking.eventLoop)
            .channelOption(ChannelOptions.autoRead, value: false)
            .channelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { [self] channel in
                answering = channel
                back.source = channel
                return channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(ProxyHandler(self, .answering)) }
            }
            .connect(host: "127.0.0.1", port: place.memberPort)
            .whenComplete { [self] result in
                isConnecting = false
                switch result {
                // Nobody listens: its process does not run.
                case .failure: reset()
                case .success(let channel): forth.sink = channel
                }
            }
    }

    func opened() { openSides += 1 }

    func ended(_ side: ProxySide) {
        openSides -= 1
        if side == .asking {
            back.sinkEnded()
            if answering == nil, !isConnecting { forth.drop() }
            forth.sourceEnded()
        } else {
            forth.sinkEnded()
            back.sourceEnded()
        }
        if openSides == 0 { forget(ObjectIdentifier(self)) }
    }

    func canWrite(_ side: ProxySide) { (side == .asking ? back : forth).sinkHasRoom() }
    /// Whether more may be read from this side now; if not, it is read on when there is room.
    func wantsMore(_ side: ProxySide) -> Bool { side == .asking ? !isKnown || forth.wantsMore() : back.wantsMore() }

    // MARK: Faults

    func obey(_ plan: FaultPlan) {
        let broken = [forth, back].map { $0.change(to: $0.treatment(in: plan)) }
        if broken.contains(true) { reset() }
    }

    func reset() {
        for channel in [asking, answering].compactMap({ $0 }) where channel.isActive {
            _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
            channel.close(promise: nil)
        }
        asking.close(promise: nil)
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

/// One direction of a connection.
private final class ProxyFlow: @unchecked Sendable {
    private struct Held {
        var bytes: ByteBuffer
        var due: NIODeadline
    }

    private let loop: any EventLoop
    /// The link whose messages flow here; nil: none do.
    var link: (from: UInt64, to: UInt64)?
    var treatment = LinkTreatment()
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
    private var isWaiting = false

    init(loop: any EventLoop) { self.loop = loop }

    var isCut: Bool { treatment.isCut || treatment.lossShare >= 1 }

    func treatment(in plan: FaultPlan) -> LinkTreatment { link.map { plan[from: $0.from, to: $0.to] } ?? LinkTreatment() }

    // MARK: Through

    func put(_ bytes: ByteBuffer) {
        guard !isSinkOver, bytes.readableBytes > 0 else { return }
        if isCut { return hasLost = true }
        if held.isEmpty, treatment.isSound, let sink { return sink.writeAndFlush(bytes, promise: nil) }
        guard let rate = treatment.bytesPerSecond else { return hold(bytes) }
        // In pieces of a twentieth of a second, so that a slow line drips rather than gulps.
        var rest = bytes
        while let piece = rest.readSlice(length: min(rest.readableBytes, max(256, rate / 20))), piece.readableBytes > 0 { hold(piece) }
    }

    private func hold(_ bytes: ByteBuffer) {
        let now = NIODeadline.now()
        var due = now
        if let rate = treatment.bytesPerSecond {
            lineFree = max(lineFree, now) + .nanoseconds(Int64(Double(bytes.readableBytes) / Double(max(1, rate)) * 1e9))
            due = lineFree
        }
        let jitter = treatment.jitterMicroseconds
        due = due + .microseconds(max(0, treatment.delayMicroseconds + (jitter > 0 ? .random(in: -jitter...jitter) : 0)))
        var wait = LinkProxy.retransmission
        while treatment.lossShare > 0, Double.random(in: 0..<1) < treatment.lossShare, wait < .seconds(60) {
            due = due + wait
            wait = wait * 2
        }
        // Bytes keep their order.
        lastDue = max(lastDue, due)
        held.append(Held(bytes: bytes, due: lastDue))
        heldBytes += bytes.readableBytes
        deliver()
    }

    private func deliver() {
        guard let sink else { return }
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
        } else if isSourceOver, !isCut, !hasLost {
            sink.close(promise: nil)
        }
        if isWaiting { sinkHasRoom() }
    }

    func drop() {
        held = []
        heldBytes = 0
        timer?.cancel()
        timer = nil
    }

    // MARK: Pace

    func wantsMore() -> Bool {
        // What is cut off is still read, and lost: its sender does not notice.
        let hasRoom = isCut || isSinkOver || heldBytes < LinkProxy.heldLimitBytes && (sink?.isWritable ?? true)
        isWaiting = !hasRoom
        return hasRoom
    }

    func sinkHasRoom() {
        guard isWaiting, wantsMore() else { return }
        source?.read()
    }

    // MARK: Ends

    func sourceEnded() {
        isSourceOver = true
        // Behind what is still on its way. Over a cut link nobody hears of it.
        deliver()
    }

    func sinkEnded() {
        isSinkOver = true
        drop()
        sinkHasRoom()
    }

    // MARK: Faults

    /// True: bytes were lost, or an end, and the link works again: the connection cannot go on.
    func change(to new: LinkTreatment) -> Bool {
        guard new != treatment else { return false }
        treatment = new
        if isCut {
            // What is on the way is lost.
            if !held.isEmpty { hasLost = true }
            drop()
            if isWaiting { sinkHasRoom() }
            return false
        }
        if hasLost || isSourceOver { return true }
        // What was sent so far comes at once: nobody who changes a link waits for its old delay.
        lineFree = .now()
        lastDue = .now()
        for index in held.indices { held[index].due = .now() }
        deliver()
        return false
    }
}

private final class ProxyHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let connection: ProxiedConnection
    private let side: ProxySide

    init(_ connection: ProxiedConnection, _ side: ProxySide) {
        self.connection = connection
        self.side = side
    }

    func channelActive(context: ChannelHandlerContext) {
        connection.opened()
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { connection.received(unwrapInboundIn(data), side) }
    func channelReadComplete(context: ChannelHandlerContext) { if connection.wantsMore(side) { context.read() } }
    func channelWritabilityChanged(context: ChannelHandlerContext) { if context.channel.isWritable { connection.canWrite(side) } }
    func channelInactive(context: ChannelHandlerContext) { connection.ended(side) }
    // A reset of one side ends it; the other is closed in turn.
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
