#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif
import Base
import GRPC
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Who hears of one call's answers. Confined to the client's loop. Subclassed; not a protocol, so that the connection's
/// table needs no existentials.
class CallReceiver {
    /// `message` is valid during the call only.
    func received(_ message: UnsafeRawBufferPointer) {}
    func finished(_ status: CallStatus, from connection: ClientConnection) {}
}

/// One HTTP/2 connection to one endpoint: a channel handler around a `GRPCClientSession`. Confined to the client's loop.
///
/// Life: the channel becomes active, TLS (if any) agrees on h2, the server's SETTINGS arrive: `onReady`. Then calls, until
/// `onClosed`, which comes exactly once, also when the connection never became ready.
final class ClientConnection: ChannelInboundHandler, GRPCClientDelegate {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let endpoint: Endpoint
    private let configuration: ClientConfiguration
    private var session: GRPCClientSession!
    private var context: ChannelHandlerContext?
    private var receivers: [StreamID: CallReceiver] = [:]
    private var isFlushScheduled = false
    private var isReading = false
    private var isClosed = false
    private(set) var isReady = false
    /// The reason to report when the channel closes.
    private var closeReason: String?
    // Keepalive.
    private var keepAliveTask: Scheduled<Void>?
    private var pingDeadline: NIODeadline?
    private var pingSentAt = NIODeadline.uptimeNanoseconds(0)
    private var lastRead = NIODeadline.uptimeNanoseconds(0)
    /// Time from the last PING to its answer.
    private(set) var roundTrip: TimeSpan?

    var onReady: (ClientConnection) -> Void = { _ in }
    var onClosed: (ClientConnection, String) -> Void = { _, _ in }
    /// The server wants no new calls here.
    var onGoAway: (ClientConnection) -> Void = { _ in }

    init(endpoint: Endpoint, configuration: ClientConfiguration, isTLS: Bool) {
        self.endpoint = endpoint
        self.configuration = configuration
        expectsTLS = isTLS
        session = GRPCClientSession(delegate: self, authority: endpoint.authority, isTLS: isTLS)
    }

    private let expectsTLS: Bool

    var takesCalls: Bool { isReady && !isClosed && !session.hasGoAway }
    var openCalls: Int { receivers.count }

    // MARK: Calls

    /// Begins a call and returns its number; nil when the connection takes none.
    func start(_ path: [UInt8], metadata: [MetadataField], timeout: TimeSpan?, receiver: CallReceiver) -> StreamID? {
        guard takesCalls, let stream = session.startCall(path: path, metadata: metadata, timeout: timeout) else { return nil }
        receivers[stream] = receiver
        startKeepAlive()
        scheduleFlush()
        return stream
    }

    func send(_ stream: StreamID, _ message: [UInt8], endsStream: Bool) {
        session.sendMessage(stream, message)
        if endsStream { session.halfClose(stream) }
        scheduleFlush()
    }

    func cancel(_ stream: StreamID) {
        guard receivers.removeValue(forKey: stream) != nil else { return }
        session.cancel(stream)
        scheduleFlush()
    }

    func pause(_ stream: StreamID) { session.pause(stream) }

    func resume(_ stream: StreamID) {
        session.resume(stream)
        scheduleFlush()
    }

    /// Ends the connection; running calls fail with `reason`.
    func close(_ reason: String) {
        guard !isClosed else { return }
        if closeReason == nil { closeReason = reason }
        if let context {
            session.goAway()
            flush()
            context.close(promise: nil)
        } else {
            finishClosing()
        }
    }

    // MARK: Output

    /// One flush for all the calls that start or answer in the same turn of the loop.
    private func scheduleFlush() {
        guard !isFlushScheduled, !isReading, let context else { return }
        isFlushScheduled = true
        let handler = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.execute {
            handler.value.isFlushScheduled = false
            handler.value.flush()
        }
    }

    private func flush() {
        // A bound per portion keeps large uploads from being buffered a second time; the rest follows when the socket has
        // taken this one.
        let portion = 1 << 20
        var taken = portion
        while taken >= portion {
            guard let context, !isClosed, context.channel.isWritable else { return }
            var output = context.channel.allocator.buffer(capacity: 4096)
            do throws(ProtocolFault) {
                taken = try session.drainOutput(limit: portion) { output.writeBytes($0) }
            } catch {
                closeReason = closeReason ?? error.description
                context.close(promise: nil)
                return
            }
            if output.readableBytes > 0 { context.writeAndFlush(wrapOutboundOut(output), promise: nil) }
        }
        if session.isFinished { context?.close(promise: nil) }
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) {
        // Given up while the socket was still connecting.
        if isClosed { return context.close(promise: nil) }
        self.context = context
        if context.channel.isActive { channelActive(context: context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        lastRead = .now()
        // With TLS the preface waits for the handshake, whose end names the protocol.
        if !expectsTLS { flush() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent {
            if let negotiated, negotiated != "h2" {
                closeReason = "server speaks \(negotiated), not HTTP/2"
                context.close(promise: nil)
                return
            }
            flush()
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        lastRead = .now()
        isReading = true
        buffer.withUnsafeReadableBytes { bytes in
            do throws(ProtocolFault) {
                try session.receive(bytes)
            } catch {
                closeReason = closeReason ?? error.description
            }
        }
        isReading = false
        if closeReason != nil { context.close(promise: nil) }
    }

    func channelReadComplete(context: ChannelHandlerContext) { flush() }

    func channelWritabilityChanged(context: ChannelHandlerContext) { if context.channel.isWritable { flush() } }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        closeReason = closeReason ?? describe(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { finishClosing() }

    func handlerRemoved(context: ChannelHandlerContext) {
        finishClosing()
        self.context = nil
    }

    private func finishClosing() {
        guard !isClosed else { return }
        isClosed = true
        keepAliveTask?.cancel()
        // A plaintext client of a TLS port hears nothing at all.
        let reason = closeReason ?? (isReady || expectsTLS ? "connection closed by the server"
            : "connection closed by the server before it said a word: it may want TLS (https://)")
        session.connectionClosed(reason)
        receivers.removeAll()
        onClosed(self, reason)
        onReady = { _ in }
        onClosed = { _, _ in }
        onGoAway = { _ in }
    }

    // MARK: Keepalive

    /// Runs while calls are open: silence for `keepAliveInterval` makes a PING, no answer makes an end.
    private func startKeepAlive() {
        guard keepAliveTask == nil, let context else { return }
        scheduleKeepAlive(after: configuration.keepAliveInterval, context)
    }

    private func scheduleKeepAlive(after span: TimeSpan, _ context: ChannelHandlerContext) {
        let handler = NIOLoopBound(self, eventLoop: context.eventLoop)
        keepAliveTask = context.eventLoop.scheduleTask(in: .nanoseconds(span.nanoseconds)) { handler.value.checkKeepAlive() }
    }

    private func checkKeepAlive() {
        keepAliveTask = nil
        guard let context, !isClosed else { return }
        let now = NIODeadline.now()
        if let deadline = pingDeadline {
            guard lastRead >= pingSentAt else {
                if now >= deadline { return close("keepalive probe was not answered") }
                return scheduleKeepAlive(after: TimeSpan(nanoseconds: (deadline - now).nanoseconds), context)
            }
            pingDeadline = nil
        }
        guard !receivers.isEmpty else { return }
        let due = lastRead + .nanoseconds(configuration.keepAliveInterval.nanoseconds)
        guard now >= due else { return scheduleKeepAlive(after: TimeSpan(nanoseconds: (due - now).nanoseconds), context) }
        ping()
        pingDeadline = now + .nanoseconds(configuration.keepAliveTimeout.nanoseconds)
        scheduleKeepAlive(after: configuration.keepAliveTimeout, context)
    }

    private func ping() {
        pingSentAt = .now()
        session.ping(UInt64(pingSentAt.uptimeNanoseconds))
        scheduleFlush()
    }

    // MARK: GRPCClientDelegate

    func sessionReady(_ session: GRPCClientSession) {
        isReady = true
        onReady(self)
    }

    func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
        receivers[stream]?.received(message)
    }

    func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus) {
        receivers.removeValue(forKey: stream)?.finished(status, from: self)
    }

    func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String) {
        if code != .noError { closeReason = closeReason ?? "server said goodbye: \(debug.isEmpty ? "error \(code.rawValue)" : debug)" }
        onGoAway(self)
    }

    func session(_ session: GRPCClientSession, pong payload: UInt64) {
        roundTrip = TimeSpan(nanoseconds: (NIODeadline.now() - .uptimeNanoseconds(payload)).nanoseconds)
    }
}

/// A short text for people.
func describe(_ error: any Error) -> String {
    switch error {
    case let error as NIOConnectionError:
        error.connectionErrors.first.map { describe($0.error) } ?? "cannot resolve \(error.host)"
    case let error as IOError: String(cString: strerror(error.errnoCode)).lowercased()
    case ChannelError.connectTimeout: "connect timed out"
    case NIOSSLError.handshakeFailed(let cause): describeTLS("\(cause)")
    case let error as BoringSSLError: describeTLS("\(error)")
    case let error as NIOSSLExtraError where error == .failedToValidateHostname: "the server's certificate is for other hosts than this one: \(error)"
    case NIOSSLError.unableToValidateCertificate: "the server's certificate is for other hosts than this one"
    default: "\(error)"
    }
}

/// What a failed handshake means, out of the library's words for it.
private func describeTLS(_ text: String) -> String {
    func has(_ part: String) -> Bool { text.firstRange(of: part) != nil }
    return if has("EOF during handshake") {
        "TLS handshake failed: the server closed the connection; it may not speak TLS (http:// instead of https://)"
    } else if has("WRONG_VERSION_NUMBER") || has("HTTP_REQUEST") {
        "TLS handshake failed: the server does not speak TLS (http:// instead of https://)"
    } else if has("CERTIFICATE_VERIFY_FAILED") {
        "TLS handshake failed: the server's certificate is not from an authority that this client trusts, or has run out"
    } else if has("ALERT_CERTIFICATE_REQUIRED") {
        "TLS: the server wants a client certificate"
    } else if has("ALERT_BAD_CERTIFICATE") || has("ALERT_UNKNOWN_CA") || has("ALERT_CERTIFICATE") || has("ALERT_HANDSHAKE_FAILURE") {
        "TLS: the server does not accept this client's certificate, or wants one: \(text)"
    } else {
        "TLS handshake failed: \(text)"
    }
}
