import Base
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Wire

/// A gRPC client over a real socket that sends what it is told: any path, metadata and bytes. Thread-safe: everything happens on the
/// channel's loop.
public final class TestClient: @unchecked Sendable {
    // The handler is confined to the channel's loop.
    public let channel: any Channel
    private let handler: Handler

    public static func connect(_ port: Int, group: any EventLoopGroup) async throws -> TestClient {
        let handler = Handler()
        let channel = try await ClientBootstrap(group: group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(handler) }
        }.connect(host: "127.0.0.1", port: port).get()
        return TestClient(channel: channel, handler: handler)
    }

    private init(channel: any Channel, handler: Handler) {
        self.channel = channel
        self.handler = handler
    }

    /// One call in progress.
    public final class Call: @unchecked Sendable {
        fileprivate struct State {
            var stream: StreamID = 0
            var messages: [[UInt8]] = []
            var status: CallStatus?
            var waiter: CheckedContinuation<Void, Never>?
        }
        fileprivate let state = NIOLockedValueBox(State())
        fileprivate let client: TestClient
        fileprivate init(client: TestClient) { self.client = client }

        fileprivate func change(_ body: (inout State) -> Void) {
            let waiter = state.withLockedValue { state in
                body(&state)
                defer { state.waiter = nil }
                return state.waiter
            }
            waiter?.resume()
        }

        private func wait() async {
            await withCheckedContinuation { continuation in
                let ready = state.withLockedValue { state in
                    if !state.messages.isEmpty || state.status != nil { return true }
                    state.waiter = continuation
                    return false
                }
                if ready { continuation.resume() }
            }
        }

        /// The next message; nil when the call has ended.
        public func next() async -> [UInt8]? {
            await wait()
            return state.withLockedValue { $0.messages.isEmpty ? nil : $0.messages.removeFirst() }
        }

        /// Waits for the end; what was not taken before is in `messages`.
        public func end() async -> (messages: [[UInt8]], status: CallStatus) {
            var messages: [[UInt8]] = []
            while let message = await next() { messages.append(message) }
            return (messages, state.withLockedValue { $0.status! })
        }

        public func send(_ message: [UInt8]) { onSession { session, stream in session.sendMessage(stream, message) } }
        public func halfClose() { onSession { session, stream in session.halfClose(stream) } }
        public func cancel() { onSession { session, stream in session.cancel(stream) } }
        public func pause() { onSession { session, stream in session.pause(stream) } }
        public func resume() { onSession { session, stream in session.resume(stream) } }

        /// An answer that never ends would hold up the tests.
        fileprivate func expire(_ limit: TimeAmount) {
            cancel()
            change { $0.status = $0.status ?? CallStatus(.deadlineExceeded, "no end within \(limit.nanoseconds / 1_000_000) ms") }
        }

        private func onSession(_ body: @escaping @Sendable (GRPCClientSession, StreamID) -> Void) {
            client.channel.eventLoop.execute { [self] in
                body(client.handler.session, state.withLockedValue { $0.stream })
                client.handler.flush()
            }
        }
    }

    public func start(_ method: MethodID, metadata: [MetadataField] = [], timeout: TimeSpan? = nil) -> Call {
        start(path: method.path, metadata: metadata, timeout: timeout)
    }

    /// - Parameter timeout: told to the server.
    /// - Parameter limit: after which the call is given up here.
    public func start(path: String, metadata: [MetadataField] = [], timeout: TimeSpan? = nil, limit: TimeAmount? = nil) -> Call {
        let call = Call(client: self)
        if let limit { channel.eventLoop.scheduleTask(in: limit) { [weak call] in call?.expire(limit) } }
        channel.eventLoop.execute { [self] in
            guard let stream = handler.session.startCall(path: Array(path.utf8), metadata: metadata, timeout: timeout) else {
                return call.change { $0.status = CallStatus(.unavailable, "no stream", isUnprocessed: true) }
            }
            call.state.withLockedValue { $0.stream = stream }
            handler.calls[stream] = call
            handler.flush()
        }
        return call
    }

    public func call(_ method: MethodID, _ request: [UInt8] = [], metadata: [MetadataField] = [], timeout: TimeSpan? = nil) async
        -> (messages: [[UInt8]], status: CallStatus) {
        let call = start(method, metadata: metadata, timeout: timeout)
        call.send(request)
        call.halfClose()
        return await call.end()
    }

    /// Many calls in one write.
    public func startTogether(_ method: MethodID, _ requests: [[UInt8]]) -> [Call] {
        let calls = requests.map { _ in Call(client: self) }
        channel.eventLoop.execute { [self] in
            for (call, request) in zip(calls, requests) {
                let stream = handler.session.startCall(path: Array(method.path.utf8))!
                call.state.withLockedValue { $0.stream = stream }
                handler.calls[stream] = call
                handler.session.sendMessage(stream, request)
                handler.session.halfClose(stream)
            }
            handler.flush()
        }
        return calls
    }

    public func setReading(_ reading: Bool) async throws { try await channel.setOption(.autoRead, value: reading).get() }
    public func close() async { try? await channel.close().get() }
    public var hasGoAway: Bool { get async throws { try await channel.eventLoop.submit { self.handler.session.hasGoAway }.get() } }
    /// Why the connection ended, once it has.
    public var closeError: (any Error)? { handler.error.withLockedValue { $0 } }

    fileprivate final class Handler: ChannelInboundHandler, GRPCClientDelegate, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private(set) var session: GRPCClientSession!
        var calls: [StreamID: Call] = [:]
        let error = NIOLockedValueBox<(any Error)?>(nil)
        private var context: ChannelHandlerContext?

        init() {
            session = GRPCClientSession(delegate: self, authority: "test", isTLS: false)
        }
        func channelActive(context: ChannelHandlerContext) {
            self.context = context
            flush()
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            buffer.withUnsafeReadableBytes { bytes in try? session.receive(bytes) }
            flush()
        }
        func channelInactive(context: ChannelHandlerContext) {
            self.context = nil
            session.connectionClosed("connection closed")
        }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            self.error.withLockedValue { $0 = error }
            context.close(promise: nil)
        }
        func flush() {
            guard let context else { return }
            var out = context.channel.allocator.buffer(capacity: 1_024)
            _ = try? session.drainOutput { out.writeBytes($0) }
            if out.readableBytes > 0 { context.writeAndFlush(wrapOutboundOut(out), promise: nil) }
        }
        func sessionReady(_ session: GRPCClientSession) {}
        func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
            calls[stream]?.change { $0.messages.append([UInt8](message)) }
        }
        func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus) {
            calls.removeValue(forKey: stream)?.change { $0.status = status }
        }
        func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String) {}
        func session(_ session: GRPCClientSession, pong payload: UInt64) {}
    }
}
