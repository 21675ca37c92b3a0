import NIOCore
import NIOPosix

/// A connection that one process opened to another by way of a port of ours, and ours behind it.
package final class LinkConnection: @unchecked Sendable {
    // @unchecked: confined to the loop, as its flows are.
    package enum Side: Sendable { case asking, answering }

    private let port: Int
    private let forget: (ObjectIdentifier) -> Void
    package let asking: any Channel
    private var answering: (any Channel)?
    private var hasConnected = false
    private var openSides = 0
    package let forth: LinkFlow
    package let back: LinkFlow
    /// While it is set, it gets what the one who asks sends, and nothing goes through.
    package var inspect: ((ByteBuffer) -> Void)?

    /// - Parameters:
    ///   - port: where the process that is asked listens, on 127.0.0.1.
    ///   - forget: called when both sides have ended.
    package init(_ channel: any Channel, port: Int, forget: @escaping (ObjectIdentifier) -> Void) {
        asking = channel
        self.port = port
        self.forget = forget
        forth = LinkFlow(loop: channel.eventLoop)
        back = LinkFlow(loop: channel.eventLoop)
        forth.source = channel
        back.sink = channel
    }

    /// Where others connect to. What `accept` makes of a connection is to be put into its pipeline: a `LinkHandler`.
    package static func listen(on port: Int, _ group: any EventLoopGroup, _ accept: @escaping @Sendable (any Channel) throws -> Void) async throws -> any Channel {
        try await ServerBootstrap(group: group)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(ChannelOptions.autoRead, value: false)
            .childChannelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in channel.eventLoop.makeCompletedFuture { try accept(channel) } }
            .bind(host: "127.0.0.1", port: port).get()
    }

    /// Once. Until then what is asked waits; where nobody listens, the one who asked hears of it.
    package func connect() {
        guard !hasConnected else { return }
        hasConnected = true
        ClientBootstrap(group: asking.eventLoop)
            .channelOption(ChannelOptions.autoRead, value: false)
            .channelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { [self] channel in
                answering = channel
                back.source = channel
                return channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LinkHandler(self, .answering)) }
            }
            .connect(host: "127.0.0.1", port: port)
            .whenComplete { [self] result in
                switch result {
                // Nobody listens: its process does not run.
                case .failure: reset()
                case .success(let channel): forth.sink = channel
                }
            }
    }

    // MARK: What comes

    fileprivate func received(_ bytes: ByteBuffer, _ side: Side) {
        if side == .asking, let inspect { return inspect(bytes) }
        (side == .asking ? forth : back).put(bytes)
    }

    fileprivate func readDone(_ side: Side) {
        if side == .asking, inspect != nil { asking.read() } else { (side == .asking ? forth : back).readOn() }
    }

    fileprivate func opened() { openSides += 1 }
    fileprivate func canWrite(_ side: Side) { (side == .asking ? back : forth).sinkHasRoom() }

    fileprivate func ended(_ side: Side) {
        openSides -= 1
        if side == .asking {
            back.sinkEnded()
            // Nobody was asked, and nobody will be.
            if !hasConnected { forth.sinkEnded() }
            hasConnected = true
            forth.sourceEnded()
        } else {
            forth.sinkEnded()
            back.sourceEnded()
        }
        guard openSides == 0 else { return }
        inspect = nil
        forget(ObjectIdentifier(self))
    }

    // MARK: Faults

    /// What the two directions do from now on.
    package func change(forth new: LinkConditions, back newBack: LinkConditions) {
        let isBroken = [forth.change(to: new), back.change(to: newBack)]
        if isBroken.contains(true) { reset() }
    }

    package func reset() {
        for channel in [asking, answering].compactMap({ $0 }) where channel.isActive {
            _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
            channel.close(promise: nil)
        }
        asking.close(promise: nil)
    }
}

package final class LinkHandler: ChannelInboundHandler {
    package typealias InboundIn = ByteBuffer
    private let connection: LinkConnection
    private let side: LinkConnection.Side

    package init(_ connection: LinkConnection, _ side: LinkConnection.Side) {
        self.connection = connection
        self.side = side
    }

    package func channelActive(context: ChannelHandlerContext) {
        connection.opened()
        context.read()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) { connection.received(unwrapInboundIn(data), side) }
    package func channelReadComplete(context: ChannelHandlerContext) { connection.readDone(side) }
    package func channelWritabilityChanged(context: ChannelHandlerContext) { if context.channel.isWritable { connection.canWrite(side) } }
    package func channelInactive(context: ChannelHandlerContext) { connection.ended(side) }
    // A reset of one side ends it; the other is closed in turn.
    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
