import CNghttp2
import Foundation
@testable import GRPC
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL

/// A client of the HTTP endpoints over HTTP/2 and TLS. Thread-safe: everything happens on the channel's loop.
final class HTTP2TestClient: @unchecked Sendable {
    // What is not under a lock is confined to the channel's loop.
    struct Answer: Sendable {
        var fields: [String: String] = [:]
        var body = ""
        var isClosed = false
        var resetCode: UInt32 = 0
        var status: String { fields[":status"] ?? "" }
        var lines: [String] { body.split(separator: "\n").map(String.init) }
    }

    private let channel: any Channel
    private let handler: Handler

    /// - Parameter window: bytes that a stream may bring before they are read; they never are when `reads` is false.
    static func connect(_ port: Int, group: any EventLoopGroup, trusting file: String, window: Int32 = 1 << 20, reads: Bool = true) async throws -> HTTP2TestClient {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = ["h2"]
        configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(file))
        let context = try NIOSSLContext(configuration: configuration)
        let handler = Handler(window: window, reads: reads)
        let channel = try await ClientBootstrap(group: group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandlers([try NIOSSLClientHandler(context: context, serverHostname: "localhost"), handler])
            }
        }.connect(host: "127.0.0.1", port: port).get()
        return HTTP2TestClient(channel: channel, handler: handler)
    }

    private init(channel: any Channel, handler: Handler) {
        self.channel = channel
        self.handler = handler
    }

    /// - Parameter ends: false: more of the body follows, by `send`.
    func start(_ method: String, _ path: String, _ fields: [(String, String)] = [], body: String = "", ends: Bool = true) async throws -> StreamID {
        try await channel.eventLoop.submit { [self] in
            let stream = handler.session.start([(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)] + fields,
                                               Array(body.utf8), ends: ends)
            handler.flush()
            return stream
        }.get()
    }

    func send(_ stream: StreamID, _ text: String, ends: Bool = false) async throws {
        try await channel.eventLoop.submit { [self] in
            handler.session.send(stream, Array(text.utf8), ends: ends)
            handler.flush()
        }.get()
    }

    func reset(_ stream: StreamID) async throws {
        try await channel.eventLoop.submit { [self] in
            handler.session.reset(stream, .cancel)
            handler.flush()
        }.get()
    }

    /// What has come, reading from now on.
    func read() async throws {
        try await channel.eventLoop.submit { [self] in
            handler.session.readAll()
            handler.flush()
        }.get()
    }

    func answer(_ stream: StreamID) -> Answer { handler.session.answers.withLockedValue { $0[stream] ?? Answer() } }

    /// A whole request and its whole answer.
    func run(_ method: String, _ path: String, _ fields: [(String, String)] = [], body: String = "") async throws -> Answer {
        let stream = try await start(method, path, fields, body: body)
        _ = await eventually { answer(stream).isClosed }
        return answer(stream)
    }

    func close() async { try? await channel.close().get() }
    var closed: EventLoopFuture<Void> { channel.closeFuture }

    private final class Body {
        var bytes: [UInt8]
        var ends: Bool
        init(_ bytes: [UInt8], _ ends: Bool) { (self.bytes, self.ends) = (bytes, ends) }
    }

    fileprivate final class Session: HTTP2Session {
        let answers = NIOLockedValueBox<[StreamID: Answer]>([:])
        private var bodies: [StreamID: Body] = [:]
        private var unread: [StreamID: Int] = [:]
        var reads: Bool

        init(window: Int32, reads: Bool) {
            var settings = HTTP2Settings()
            settings.streamWindowBytes = window
            self.reads = reads
            super.init(role: .client, settings: settings)
        }

        private func change(_ stream: StreamID, _ body: (inout Answer) -> Void) { answers.withLockedValue { body(&$0[stream, default: Answer()]) } }
        override func header(_ stream: StreamID, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> Bool {
            change(stream) { $0.fields[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self) }
            return true
        }
        override func data(_ stream: StreamID, _ bytes: UnsafeRawBufferPointer, endStream: Bool) {
            change(stream) { $0.body += String(decoding: bytes, as: UTF8.self) }
            consumeConnection(bytes.count)
            if reads { consumeStream(stream, bytes.count) } else { unread[stream, default: 0] += bytes.count }
        }
        override func closed(_ stream: StreamID, _ code: UInt32) {
            bodies[stream] = nil
            change(stream) { ($0.isClosed, $0.resetCode) = (true, code) }
        }
        func readAll() {
            reads = true
            for (stream, count) in unread { consumeStream(stream, count) }
            unread = [:]
        }

        func start(_ fields: [(String, String)], _ bytes: [UInt8], ends: Bool) -> StreamID {
            var storage: [UnsafeMutablePointer<CChar>] = []
            defer { storage.forEach { free($0) } }
            func copy(_ text: String) -> UnsafeMutablePointer<UInt8> {
                let pointer = strdup(text)!
                storage.append(pointer)
                return UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: UInt8.self)
            }
            let pairs = fields.map { nghttp2_nv(name: copy($0), value: copy($1), namelen: $0.utf8.count, valuelen: $1.utf8.count, flags: 0) }
            let body = Body(bytes, ends)
            var provider = nghttp2_data_provider()
            provider.source.ptr = Unmanaged.passUnretained(body).toOpaque()
            provider.read_callback = { _, _, buffer, length, flags, source, _ in
                let body = Unmanaged<Body>.fromOpaque(source!.pointee.ptr).takeUnretainedValue()
                let count = min(length, body.bytes.count)
                for index in 0..<count { buffer![index] = body.bytes[index] }
                body.bytes.removeFirst(count)
                if body.bytes.isEmpty, body.ends { flags!.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue }
                return count == 0 && !body.ends ? Int(NGHTTP2_ERR_DEFERRED.rawValue) : count
            }
            let stream = nghttp2_submit_request(raw, nil, pairs, pairs.count, &provider, nil)
            bodies[stream] = body
            return stream
        }

        func send(_ stream: StreamID, _ bytes: [UInt8], ends: Bool) {
            guard let body = bodies[stream] else { return }
            body.bytes += bytes
            body.ends = ends
            _ = nghttp2_session_resume_data(raw, stream)
        }
    }

    fileprivate final class Handler: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let session: Session
        private var context: ChannelHandlerContext?

        init(window: Int32, reads: Bool) { session = Session(window: window, reads: reads) }
        func channelActive(context: ChannelHandlerContext) {
            self.context = context
            flush()
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            unwrapInboundIn(data).withUnsafeReadableBytes { bytes in try? session.receive(bytes) }
            flush()
        }
        func channelInactive(context: ChannelHandlerContext) { self.context = nil }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
        func flush() {
            guard let context else { return }
            var out = context.channel.allocator.buffer(capacity: 1_024)
            _ = try? session.drainOutput { out.writeBytes($0) }
            if out.readableBytes > 0 { context.writeAndFlush(wrapOutboundOut(out), promise: nil) }
        }
    }
}
