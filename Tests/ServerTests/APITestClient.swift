import Base
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Wire

/// A gRPC client over a real socket. Thread-safe: everything happens on the channel's loop.
final class TestClient: @unchecked Sendable {
    // The handler is confined to the channel's loop.
    let channel: any Channel
    private let handler: Handler

    static func connect(_ port: Int, group: any EventLoopGroup) async throws -> TestClient {
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
    final class Call: @unchecked Sendable {
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
        func next() async -> [UInt8]? {
            await wait()
            return state.withLockedValue { $0.messages.isEmpty ? nil : $0.messages.removeFirst() }
        }

        /// Waits for the end; what was not taken before is in `messages`.
        func end() async -> (messages: [[UInt8]], status: CallStatus) {
            var messages: [[UInt8]] = []
            while let message = await next() { messages.append(message) }
            return (messages, state.withLockedValue { $0.status! })
        }

        func send(_ message: [UInt8]) { onSession { session, stream in session.sendMessage(stream, message) } }
        func halfClose() { onSession { session, stream in session.halfClose(stream) } }
        func cancel() { onSession { session, stream in session.cancel(stream) } }
        func pause() { onSession { session, stream in session.pause(stream) } }
        func resume() { onSession { session, stream in session.resume(stream) } }

        private func onSession(_ body: @escaping @Sendable (GRPCClientSession, StreamID) -> Void) {
            client.channel.eventLoop.execute { [self] in
                body(client.handler.session, state.withLockedValue { $0.stream })
                client.handler.flush()
            }
        }
    }

    func start(_ method: MethodID, metadata: [MetadataField] = [], timeout: TimeSpan? = nil) -> Call {
        start(path: method.path, metadata: metadata, timeout: timeout)
    }

    func start(path: String, metadata: [MetadataField] = [], timeout: TimeSpan? = nil) -> Call {
        let call = Call(client: self)
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

    func call(_ method: MethodID, _ request: [UInt8] = [], metadata: [MetadataField] = [], timeout: TimeSpan? = nil) async
        -> (messages: [[UInt8]], status: CallStatus) {
        let call = start(method, metadata: metadata, timeout: timeout)
        call.send(request)
        call.halfClose()
        return await call.end()
    }

    /// Many calls in one write.
    func startTogether(_ method: MethodID, _ requests: [[UInt8]]) -> [Call] {
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

    func setReading(_ reading: Bool) async throws { try await channel.setOption(.autoRead, value: reading).get() }
    func close() async { try? await channel.close().get() }
    var hasGoAway: Bool { get async throws { try await channel.eventLoop.submit { self.handler.session.hasGoAway }.get() } }
    /// Why the connection ended, once it has.
    var closeError: (any Error)? { handler.error.withLockedValue { $0 } }

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

/// A plain socket, for HTTP/1.1 and nonsense.
enum RawConnection {
    /// Sends `text` and returns everything until the server closes.
    static func exchange(_ port: Int, group: any EventLoopGroup, _ text: String) async throws -> String {
        let (channel, collector) = try await open(port, group: group)
        try await channel.writeAndFlush(ByteBuffer(string: text)).get()
        // A server that never closes fails the test instead of holding it up.
        let limit = channel.eventLoop.scheduleTask(in: .seconds(30)) { channel.close(promise: nil) }
        try await channel.closeFuture.get()
        limit.cancel()
        return collector.text
    }

    static func open(_ port: Int, group: any EventLoopGroup) async throws -> (any Channel, Collector) {
        let collector = Collector()
        let channel = try await ClientBootstrap(group: group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(collector) }
        }.connect(host: "127.0.0.1", port: port).get()
        return (channel, collector)
    }

    final class Collector: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let collected = NIOLockedValueBox("")
        private let failure = NIOLockedValueBox<(any Error)?>(nil)
        var text: String { collected.withLockedValue { $0 } }
        var error: (any Error)? { failure.withLockedValue { $0 } }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let part = String(buffer: unwrapInboundIn(data))
            collected.withLockedValue { $0 += part }
        }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            failure.withLockedValue { $0 = error }
            context.close(promise: nil)
        }
    }
}

/// Field `number` of an encoded message: the last varint, or the last bytes.
struct Fields {
    var numbers: [UInt32: [UInt64]] = [:]
    var bytes: [UInt32: [[UInt8]]] = [:]

    init(_ message: [UInt8]) {
        message.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            while let tag = try? reader.readTag() {
                let (field, type) = tag
                if type == .varint {
                    numbers[field, default: []].append((try? reader.readVarint()) ?? 0)
                } else if let value = try? reader.readCounted() {
                    bytes[field, default: []].append(value)
                }
            }
        }
    }
    func number(_ field: UInt32) -> UInt64 { numbers[field]?.last ?? 0 }
    func text(_ field: UInt32) -> String { String(decoding: bytes[field]?.last ?? [], as: UTF8.self) }
    func texts(_ field: UInt32) -> [String] { (bytes[field] ?? []).map { String(decoding: $0, as: UTF8.self) } }
    /// Nil when absent.
    func message(_ field: UInt32) -> Fields? { bytes[field]?.last.map(Fields.init) }
}

/// Polls `condition` until it holds; false after `limit`.
func eventually(within limit: Duration = .seconds(10), _ condition: () async throws -> Bool) async rethrows -> Bool {
    let clock = ContinuousClock()
    let end = clock.now + limit
    while clock.now < end {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(2))
    }
    return false
}
