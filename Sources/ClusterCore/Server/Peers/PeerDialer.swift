import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Opens connections to other members' peer ports, with TLS where their URL wants it.
struct PeerDialer: Sendable {
    /// nil: this node has no TLS settings at all and dials http:// only.
    var tls: TLSMaterial?
    static let handshakeTimeout = TimeAmount.seconds(5)

    /// Completes when the connection can be used: with TLS, after its handshake.
    /// - Parameter initialize: adds the handlers that speak on it.
    func connect(host: String, port: Int, isTLS: Bool, on loop: any EventLoop, timeout: TimeAmount,
                 _ initialize: @escaping @Sendable (any Channel) throws -> Void) -> EventLoopFuture<any Channel> {
        @Sendable func bootstrap(_ initializer: @escaping @Sendable (any Channel) throws -> Void) -> EventLoopFuture<any Channel> {
            let bootstrap = ClientBootstrap(group: loop)
                .channelOption(.socketOption(.tcp_nodelay), value: 1)
                .connectTimeout(timeout)
                .channelInitializer { channel in channel.eventLoop.makeCompletedFuture { try initializer(channel) } }
            // A literal address needs no resolver's thread in between.
            let literal = try? SocketAddress(ipAddress: host, port: port)
            return literal.map { bootstrap.connect(to: $0) } ?? bootstrap.connect(host: host, port: port)
        }
        guard isTLS else { return bootstrap(initialize) }
        guard let tls else {
            return loop.makeFailedFuture(TLSFault("https://\(host):\(port) needs TLS, and this member has no --peer-trusted-ca-file, --peer-cert-file and --peer-key-file"))
        }
        return tls.current(on: loop).flatMap { contexts in
            let secured = loop.makePromise(of: Void.self)
            let connecting = bootstrap { channel in
                let name = (try? SocketAddress(ipAddress: host, port: 0)) == nil ? host : nil
                let pipeline = channel.pipeline.syncOperations
                try pipeline.addHandlers([TLSDialEnd(), try NIOSSLClientHandler(context: contexts.client, serverHostname: name), DialHandshake(secured)])
                try initialize(channel)
            }
            connecting.whenFailure { secured.fail($0) }
            let timer = loop.scheduleTask(in: PeerDialer.handshakeTimeout) { secured.fail(TLSFault("no TLS handshake within \(PeerDialer.handshakeTimeout.nanoseconds / 1_000_000_000) s")) }
            secured.futureResult.whenComplete { _ in timer.cancel() }
            return connecting.flatMap { channel in
                secured.futureResult.map { channel }.flatMapErrorThrowing { error in
                    closeTransport(channel).whenFailure { _ in }
                    throw error
                }
            }
        }
    }
}

/// Says when the handshake is over.
private final class DialHandshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    private let secured: EventLoopPromise<Void>

    init(_ secured: EventLoopPromise<Void>) { self.secured = secured }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        let isDone = if case .handshakeCompleted? = event as? TLSUserEvent { true } else { false }
        if isDone { secured.succeed() }
        context.fireUserInboundEventTriggered(event)
        if isDone { context.pipeline.syncOperations.removeHandler(context: context, promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // First to those behind: the promise's failure closes the connection, of which they would hear before its cause.
        context.fireErrorCaught(error)
        secured.fail(TLSFault(error, side: .peer, accepting: false))
    }

    func channelInactive(context: ChannelHandlerContext) {
        secured.fail(TLSFault("the connection was closed during the TLS handshake"))
        context.fireChannelInactive()
    }
}
