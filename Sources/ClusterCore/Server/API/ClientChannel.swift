import Base
import NIOCore
import NIOHTTP1
import NIOPosix
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// One accepted connection, whatever it speaks. Confined to its event loop, hence @unchecked Sendable.
final class ClientChannel: @unchecked Sendable {
    let channel: any Channel
    /// Set once the connection has turned out to be gRPC.
    var grpc: GRPCConnection?
    /// Set, like `identity`, by whoever terminates TLS, before the first byte of a call.
    var isSecure = false
    var identity: ClientIdentity?
    /// Set once it has turned out to be HTTP/1.1.
    var http: HTTPConnection?
    /// Set once that has become a WebSocket.
    var gatewaySocket: GatewaySocket?
    /// Looks in a row that found answers waiting for it, with no room for others. (`ClientLoop.look`)
    var stuckLooks: UInt8 = 0

    init(channel: any Channel) { self.channel = channel }

    func setReading(_ reading: Bool) {
        try? channel.syncOptions?.setOption(.autoRead, value: reading)
    }

    /// Goes on after a pause.
    func resume() {
        grpc?.flush()
        http?.resume()
        gatewaySocket?.resume()
    }

    /// Lets what runs finish; the connection closes when it is idle.
    func drain() {
        if let grpc {
            grpc.drain()
        } else if let http {
            http.drain()
        } else if let gatewaySocket {
            gatewaySocket.drain()
        } else {
            channel.close(promise: nil)
        }
    }

    func close(abruptly: Bool) {
        if abruptly {
            // No lingering: what was not sent is thrown away and the peer gets a reset.
            // On its own loop, so the option is set when this returns.
            (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenFailure { _ in }
            return closeTransport(channel).whenFailure { _ in }
        }
        channel.close(promise: nil)
    }
}

/// Waits for the first bytes of a connection and decides who takes it: one with the HTTP/2 preface is a `GRPCConnection`, everything else is
/// taken for HTTP/1.1, which refuses it if it is not.
final class ProtocolSniffer: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    private let record: ClientChannel
    private let loop: ClientLoop
    private let rejections: RejectionLog
    private var received: ByteBuffer?
    private var timer: Scheduled<Void>?

    init(record: ClientChannel, loop: ClientLoop, rejections: RejectionLog) {
        self.record = record
        self.loop = loop
        self.rejections = rejections
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: .nanoseconds(loop.bounds.sniffTimeout.nanoseconds)) { channel.close(promise: nil) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { timer?.cancel() }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        if received == nil { received = buffer } else { received!.writeBuffer(&buffer) }
        let bytes = received!.readableBytesView
        let isPreface = (loop.surface != .metrics || record.isSecure) && zip(bytes, ProtocolSniffer.preface).allSatisfy { $0 == $1 }
        if isPreface && bytes.count < ProtocolSniffer.preface.count { return }
        if !isPreface, beginsAsTLS(received!) {
            rejections.note("rejected connection on client endpoint", remote: context.remoteAddress, "TLS to a plaintext port: the URL must begin with http://")
            return context.close(promise: nil)
        }
        if let reason = mismatch(isHTTP2: isPreface) {
            rejections.note("rejected connection on client endpoint", remote: context.remoteAddress, reason)
            return context.close(promise: nil)
        }
        let pipeline = context.pipeline.syncOperations
        do {
            if isPreface {
                let connection = GRPCConnection(loop: loop, isSecure: record.isSecure, identity: record.identity,
                                                minPingInterval: record.isSecure ? nil : loop.bounds.keepAlive.minPingInterval)
                record.grpc = connection
                // Settings follow a preface at once.
                connection.greetingTimer = timer
                timer = nil
                try pipeline.addHandler(connection, position: .after(self))
            } else {
                let connection = HTTPConnection(loop: loop, isSecure: record.isSecure, identity: record.identity)
                record.http = connection
                try context.channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
                try pipeline.addHandlers(GatewaySocket.codec(for: record, connection, loop), position: .after(self))
            }
        } catch {
            // The channel is being closed.
            return context.close(promise: nil)
        }
        let all = received!
        received = nil
        context.fireChannelRead(wrapInboundOut(all))
        context.fireChannelReadComplete()
        pipeline.removeHandler(context: context, promise: nil)
    }
    typealias InboundOut = ByteBuffer

    /// Why this port is the wrong one for what the client speaks.
    private func mismatch(isHTTP2: Bool) -> String? {
        switch loop.surface {
        case .calls where !isHTTP2: "HTTP/1.1 to a port for gRPC alone: HTTP endpoints are at --listen-client-http-urls"
        case .http where isHTTP2 && !record.isSecure: "HTTP/2 without TLS to a port for HTTP endpoints alone: gRPC is at --listen-client-urls"
        default: nil
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
