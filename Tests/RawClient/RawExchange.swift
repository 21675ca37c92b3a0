import Base
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RawHTTP2

/// One call whose header fields and body are the caller's to the last byte, over a connection of its own.
///
/// A client session does what is not the call (preface, settings, windows, reading the answer). The frames with which it would open its call
/// are replaced on their way out.
public enum RawExchange {
    /// What a gRPC client says of a call.
    public static func fields(path: String) -> [(String, String)] {
        [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"), ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "raw")]
    }

    /// - Parameter body: what follows the header fields, below a stream's first window (64 KiB); the client then ends its side.
    public static func run(_ port: Int, _ fields: [(String, String)], _ body: [UInt8], group: any EventLoopGroup) async throws -> (messages: [[UInt8]], status: CallStatus) {
        let promise = group.next().makePromise(of: ([[UInt8]], CallStatus).self)
        let handler = Handler(fields, body, promise)
        let channel = try await ClientBootstrap(group: group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(handler) }
        }.connect(host: "127.0.0.1", port: port).get()
        let limit = channel.eventLoop.scheduleTask(in: .seconds(20)) { handler.finish(CallStatus(.deadlineExceeded, "no end within 20 s")) }
        let result = try await promise.futureResult.get()
        limit.cancel()
        try? await channel.close().get()
        return result
    }

    private final class Handler: ChannelInboundHandler, GRPCClientDelegate, @unchecked Sendable {
        // @unchecked: confined to the channel's loop once it is there.
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private var session: GRPCClientSession!
        private let fields: [(String, String)]
        private let body: [UInt8]
        private let promise: EventLoopPromise<([[UInt8]], CallStatus)>
        private var messages: [[UInt8]] = []
        private var isOver = false

        init(_ fields: [(String, String)], _ body: [UInt8], _ promise: EventLoopPromise<([[UInt8]], CallStatus)>) {
            self.fields = fields
            self.body = body
            self.promise = promise
            session = GRPCClientSession(delegate: self, authority: "test", isTLS: false)
        }

        func channelActive(context: ChannelHandlerContext) {
            let stream = session.startCall(path: Array("/".utf8))!
            session.halfClose(stream)
            flush(context)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            unwrapInboundIn(data).withUnsafeReadableBytes { bytes in try? session.receive(bytes) }
            flush(context)
        }

        func channelInactive(context: ChannelHandlerContext) { session.connectionClosed("connection closed") }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        private func flush(_ context: ChannelHandlerContext) {
            var bytes: [UInt8] = []
            _ = try? session.drainOutput { bytes.append(contentsOf: $0) }
            guard !bytes.isEmpty else { return }
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: replaced(bytes))), promise: nil)
        }

        /// The session's frames, in which headers and data are ours. (RFC 9113 §4.1)
        private func replaced(_ bytes: [UInt8]) -> [UInt8] {
            let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
            var out: [UInt8] = [], at = 0
            if bytes.starts(with: preface) {
                out += preface
                at = preface.count
            }
            while at + 9 <= bytes.count {
                let length = Int(bytes[at]) << 16 | Int(bytes[at + 1]) << 8 | Int(bytes[at + 2])
                let stream = bytes[(at + 5)..<(at + 9)].reduce(Int32(0)) { $0 << 8 | Int32($1) }
                switch RawFrame.Kind(rawValue: bytes[at + 3]) {
                case .headers: out += RawFrame(kind: .headers, flags: RawFrame.endHeaders, stream: stream, payload: RawFrame.block(fields)).bytes
                case .data: out += stride(from: 0, to: max(body.count, 1), by: 16_384).flatMap { start in
                    let end = min(start + 16_384, body.count)
                    return RawFrame.data(stream, Array(body[start..<end]), ends: end == body.count).bytes
                }
                default: out += bytes[at..<(at + 9 + length)]
                }
                at += 9 + length
            }
            return out
        }

        func finish(_ status: CallStatus) {
            guard !isOver else { return }
            isOver = true
            promise.succeed((messages, status))
        }

        func sessionReady(_ session: GRPCClientSession) {}
        func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID) { messages.append([UInt8](message)) }
        func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus) { finish(status) }
        func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String) { finish(CallStatus(.unavailable, "goaway \(code.rawValue) \(debug)")) }
        func session(_ session: GRPCClientSession, pong payload: UInt64) {}
    }
}
