import NIOCore
import NIOConcurrencyHelpers
import NIOPosix

/// Passes TCP connections on from one port of this machine to another, and can break them all while it goes on listening: what a device between
/// two members does when it forgets its connections.
final class Relay: Sendable {
    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        var accepted = 0
    }
    private let state = NIOLockedValueBox(State())
    private let listener: NIOLockedValueBox<(any Channel)?> = NIOLockedValueBox(nil)

    init(from port: Int, to target: Int) throws {
        let state = self.state
        let channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { incoming in
                state.withLockedValue {
                    $0.channels[ObjectIdentifier(incoming)] = incoming
                    $0.accepted += 1
                }
                incoming.closeFuture.whenComplete { _ in state.withLockedValue { _ = $0.channels.removeValue(forKey: ObjectIdentifier(incoming)) } }
                return ClientBootstrap(group: incoming.eventLoop)
                    .channelOption(.socketOption(.tcp_nodelay), value: 1)
                    .channelInitializer { outgoing in
                        outgoing.eventLoop.makeCompletedFuture { try outgoing.pipeline.syncOperations.addHandler(PassOn(to: incoming)) }
                    }
                    .connect(host: "127.0.0.1", port: target)
                    .flatMapThrowing { outgoing in
                        try incoming.pipeline.syncOperations.addHandler(PassOn(to: outgoing))
                    }
                    .flatMap { incoming.setOption(.autoRead, value: true) }
            }
            .bind(host: "127.0.0.1", port: port).wait()
        listener.withLockedValue { $0 = channel }
    }

    /// Connections taken so far.
    var accepted: Int { state.withLockedValue { $0.accepted } }

    func breakConnections() {
        for channel in state.withLockedValue({ Array($0.channels.values) }) { channel.close(promise: nil) }
    }

    func close() {
        listener.withLockedValue { $0 }?.close(promise: nil)
        breakConnections()
    }

    /// Both ends live on one loop, and end together.
    private final class PassOn: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let other: any Channel
        init(to other: any Channel) { self.other = other }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { other.writeAndFlush(unwrapInboundIn(data), promise: nil) }
        func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
