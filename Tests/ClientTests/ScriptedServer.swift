import Base
import Client
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Wire

/// A gRPC server whose behaviour a test writes down. Handlers run on the server's loop.
final class ScriptedServer: @unchecked Sendable {
    // Sendable because everything that changes is confined to `loop` or behind `log`.
    typealias Unary = (_ connection: Connection, _ stream: StreamID, _ head: RequestHead, _ request: [UInt8]) -> Void

    /// One accepted connection.
    final class Connection: ChannelInboundHandler, GRPCServerDelegate {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        unowned let server: ScriptedServer
        private(set) var session: GRPCServerSession!
        private var context: ChannelHandlerContext?
        let number: Int
        /// Swallows what arrives, to look dead.
        var isDeaf = false
        /// Inside `receive`, where nothing may be sent: it follows after.
        private var isReceiving = false
        private var closesAfterwards = false

        init(server: ScriptedServer, number: Int) {
            self.server = server
            self.number = number
            session = GRPCServerSession(methods: MethodTable(MethodID.table), delegate: self)
        }

        func flush() {
            guard let context, !isReceiving else { return }
            var out = context.channel.allocator.buffer(capacity: 1024)
            do { try session.drainOutput { out.writeBytes($0) } } catch { return context.close(promise: nil) }
            if out.readableBytes > 0 { context.writeAndFlush(wrapOutboundOut(out), promise: nil) }
        }

        func respond(_ stream: StreamID, _ message: some ProtobufMessage) {
            session.respondUnary(stream, message: message.encoded())
            flush()
        }
        func send(_ stream: StreamID, _ message: some ProtobufMessage) {
            session.sendMessage(stream, message.encoded())
            flush()
        }
        func finish(_ stream: StreamID, _ error: ServiceError) {
            session.finish(stream, error)
            flush()
        }
        /// Closes after what was sent so far.
        func close() {
            if isReceiving { closesAfterwards = true } else { context?.close(promise: nil) }
        }
        func goAway() {
            session.goAway()
            flush()
        }

        func handlerAdded(context: ChannelHandlerContext) {
            self.context = context
            if !server.isMute { flush() }
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            if isDeaf || server.isMute { return }
            let buffer = unwrapInboundIn(data)
            isReceiving = true
            buffer.withUnsafeReadableBytes { bytes in
                do { try session.receive(bytes) } catch { closesAfterwards = true }
            }
            isReceiving = false
            flush()
            if closesAfterwards { context.close(promise: nil) }
        }
        func channelWritabilityChanged(context: ChannelHandlerContext) { if context.channel.isWritable { flush() } }
        func channelInactive(context: ChannelHandlerContext) {
            session.connectionClosed()
            server.connections.removeAll { $0 === self }
            self.context = nil
        }

        func session(_ session: GRPCServerSession, called stream: StreamID, _ head: RequestHead, request: UnsafeRawBufferPointer) {
            let method = MethodID(rawValue: head.method)!
            server.log.withLockedValue { $0.append(method) }
            if let handler = server.unary[method] {
                handler(self, stream, head, [UInt8](request))
            } else {
                session.finish(stream, .unimplemented, "not scripted")
            }
        }
        func session(_ session: GRPCServerSession, opened stream: StreamID, _ head: RequestHead) {
            server.log.withLockedValue { $0.append(MethodID(rawValue: head.method)!) }
            server.streamHeads[stream] = head
        }
        func session(_ session: GRPCServerSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
            let bytes = [UInt8](message)
            let method = server.streamHeads[stream].flatMap { MethodID(rawValue: $0.method) }
            if method == .watch {
                guard let request = try? PBWatchRequest(decoding: bytes), case .createRequest(let create)? = request.requestUnion else { return }
                server.watchesSeen += 1
                server.onWatch(self, stream, create, server.watchesSeen)
            } else if method == .leaseKeepAlive, let request = try? PBLeaseKeepAliveRequest(decoding: bytes) {
                server.onKeepAlive(self, stream, request)
            }
        }
        func session(_ session: GRPCServerSession, halfClosed stream: StreamID) {}
        func session(_ session: GRPCServerSession, cancelled stream: StreamID) { server.cancelled.withLockedValue { $0 += 1 } }
        func session(_ session: GRPCServerSession, drained stream: StreamID) {}
    }

    let loop: any EventLoop = MultiThreadedEventLoopGroup.singleton.next()
    var unary: [MethodID: Unary] = [:]
    /// Gets the connection, the stream, the request and the number of watches seen so far (this one included).
    var onWatch: (Connection, StreamID, PBWatchCreateRequest, Int) -> Void = { _, _, _, _ in }
    var onKeepAlive: (Connection, StreamID, PBLeaseKeepAliveRequest) -> Void = { _, _, _ in }
    /// Called with each new connection.
    var onConnect: (Connection) -> Void = { _ in }
    /// Accepts connections but says nothing on them.
    var isMute = false
    var connections: [Connection] = []
    var accepted = 0
    fileprivate var streamHeads: [StreamID: RequestHead] = [:]
    fileprivate var watchesSeen = 0
    let log = NIOLockedValueBox<[MethodID]>([])
    let cancelled = NIOLockedValueBox(0)
    private var listener: (any Channel)?
    private(set) var port = 0

    /// Listens on a free port, or on the one given.
    func start(port: Int = 0) async throws {
        let server = self
        let channel = try await ServerBootstrap(group: loop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    server.accepted += 1
                    let connection = Connection(server: server, number: server.accepted)
                    server.connections.append(connection)
                    try channel.pipeline.syncOperations.addHandler(connection)
                    server.onConnect(connection)
                }
            }
            .bind(host: "127.0.0.1", port: port).get()
        self.port = channel.localAddress!.port!
        try await loop.submit { server.listener = channel }.get()
    }

    var endpoint: Endpoint { try! Endpoint("127.0.0.1:\(port)") }

    func stop() async throws {
        let server = self
        try await loop.submit { server.listener }.get()?.close().get()
        try await loop.submit { for connection in server.connections { connection.close() } }.get()
    }

    /// Runs on the server's loop.
    func perform(_ body: @escaping @Sendable (ScriptedServer) -> Void) async throws {
        let server = self
        try await loop.submit { body(server) }.get()
    }

    /// Answers Range with one pair, `key` = "who", value = `name`.
    func serveRange(as name: String) {
        unary[.range] = { connection, stream, _, _ in
            var answer = PBRangeResponse()
            var kv = PBKeyValue()
            kv.key = .init(Array("who".utf8))
            kv.value = .init(Array(name.utf8))
            answer.kvs = [kv]
            answer.count = 1
            connection.respond(stream, answer)
        }
    }
}

/// A header with a revision.
func header(_ revision: Int64) -> PBResponseHeader {
    var header = PBResponseHeader()
    header.revision = revision
    return header
}

func putEvent(_ key: String, _ revision: Int64, value: String = "") -> PBEvent {
    var event = PBEvent()
    event.kv.key = .init(Array(key.utf8))
    event.kv.value = .init(Array(value.utf8))
    event.kv.modRevision = revision
    event.kv.createRevision = revision
    event.kv.version = 1
    return event
}

func watchCreated(_ revision: Int64) -> PBWatchResponse {
    var answer = PBWatchResponse()
    answer.header = header(revision)
    answer.created = true
    return answer
}

func watchEvents(_ events: [PBEvent], at revision: Int64, fragment: Bool = false) -> PBWatchResponse {
    var answer = PBWatchResponse()
    answer.header = header(revision)
    answer.events = events
    answer.fragment = fragment
    return answer
}
