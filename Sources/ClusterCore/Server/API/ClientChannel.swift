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
    /// Set by whoever terminates TLS, before the first byte of a call.
    var identity: ClientIdentity?
    /// Set once it has turned out to be HTTP/1.1.
    var http: HTTPConnection?
    var isTLS = false
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
    }

    /// Lets what runs finish; the connection closes when it is idle.
    func drain() {
        if let grpc {
            grpc.drain()
        } else if let http {
            http.drain()
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

/// Waits for the first bytes of a connection and decides who takes it: the HTTP/2 preface goes to gRPC, everything else is
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
        let isPreface = loop.surface == .all && zip(bytes, ProtocolSniffer.preface).allSatisfy { $0 == $1 }
        if isPreface && bytes.count < ProtocolSniffer.preface.count { return }
        if !isPreface, beginsAsTLS(received!) {
            rejections.note("rejected connection on client endpoint", remote: context.remoteAddress, "TLS to a plaintext port: the URL must begin with http://")
            return context.close(promise: nil)
        }
        let pipeline = context.pipeline.syncOperations
        do {
            if isPreface {
                let connection = GRPCConnection(loop: loop, identity: record.identity, minPingInterval: record.isTLS ? nil : loop.bounds.keepAlive.minPingInterval)
                record.grpc = connection
                // Settings follow a preface at once.
                connection.greetingTimer = timer
                timer = nil
                try pipeline.addHandler(connection, position: .after(self))
            } else {
                let connection = HTTPConnection(loop: loop, identity: record.identity)
                record.http = connection
                try context.channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
                try pipeline.addHandlers(HTTPConnection.codec(loop.bounds) + [connection], position: .after(self))
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

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
