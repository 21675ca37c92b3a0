import Logging
import NIOCore
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// In the pipeline of a listening socket. Without descriptors `accept` fails while the connection still waits, and NIO, whose socket stays readable, tries
/// again without end; its own `AcceptBackoffHandler` delays reads, and after an error none is asked for. So the listener hears nothing for a
/// moment: who waits in the kernel's queue is served when there is room.
final class AcceptPause: ChannelInboundHandler {
    typealias InboundIn = any Channel

    private static let length = TimeAmount.milliseconds(100)
    private static let logInterval = TimeAmount.seconds(60)
    private let logger: Logger
    private var loggedAt: NIODeadline?

    init(logger: Logger) { self.logger = logger }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let fault = error as? IOError, [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(fault.errnoCode) else { return context.fireErrorCaught(error) }
        if loggedAt.map({ .now() - $0 >= AcceptPause.logInterval }) ?? true {
            loggedAt = .now()
            logger.warning("connections must wait: the process has no file descriptors left, raise its limit (ulimit -n)",
                           metadata: ["port": "\(context.localAddress?.port ?? 0)", "reason": "\(fault)"])
        }
        let channel = context.channel
        try? channel.syncOptions?.setOption(.autoRead, value: false)
        // A listener that is paused meanwhile (playground) takes connections again early; they are not read.
        context.eventLoop.scheduleTask(in: AcceptPause.length) { _ = channel.setOption(.autoRead, value: true) }
    }

    /// For `serverChannelInitializer`.
    static func add(_ logger: Logger) -> @Sendable (any Channel) -> EventLoopFuture<Void> {
        { channel in channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(AcceptPause(logger: logger)) } }
    }
}
