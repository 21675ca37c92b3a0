import Base
import GRPC
import NIOCore
import Wire

/// What a call of the gateway hears of its answer. On the loop, from inside the HTTP/2 session: it must not be called into but for its actions.
protocol GatewayCaller: AnyObject {
    /// Whether what comes can be passed on now.
    var isReading: Bool { get }
    func received(_ message: UnsafeRawBufferPointer)
    /// Comes once, unless the call was cancelled.
    func finished(_ status: CallStatus)
}

/// A gRPC client and the server's end of its connection, back to back in memory: the gateway is a client of its own server, as in etcd, so that a
/// call has one implementation, with its checks, limits, flow control and counters, whatever it came in as.
///
/// Carries one call at a time, and is used again (`ClientLoop.spareLinks`). Confined to its loop.
final class GatewayLink: GRPCClientDelegate {
    private let loop: ClientLoop
    private var client: GRPCClientSession!
    private let server: GRPCConnection
    private var stream: StreamID?
    private weak var caller: (any GatewayCaller)?

    private var toServer = ByteBuffer()
    private var toClient = ByteBuffer()
    private var isPumping = false
    private var isScheduled = false
    private var isServerClosed = false
    private(set) var hasEnded = false

    /// Bytes that wait for a caller that does not read; beyond, the server keeps what it has.
    private static let maxWaitingBytes = 64 << 10

    init(loop: ClientLoop) {
        self.loop = loop
        server = GRPCConnection(loop: loop)
        client = GRPCClientSession(delegate: self, authority: "gateway", isTLS: false, userAgent: "quarterdeck-gateway")
        server.begin(.gateway(self))
    }

    // MARK: The call

    /// Begins a call; `send`, `halfClose` and `pump` go on with it. False when the server takes no more.
    func start(_ method: MethodID, _ metadata: [MetadataField], timeout: TimeSpan?, for caller: any GatewayCaller) -> Bool {
        precondition(stream == nil, "the gateway's link carries a call already")
        guard !hasEnded else { return false }
        stream = client.startCall(path: Array(method.path.utf8), metadata: metadata, timeout: timeout)
        guard stream != nil else { return false }
        self.caller = caller
        return true
    }

    func send(_ message: [UInt8]) {
        if let stream { client.sendMessage(stream, message) }
    }

    func halfClose() {
        if let stream { client.halfClose(stream) }
    }

    /// The caller is gone: the call is called off, and nothing more is heard of it.
    func cancel() {
        caller = nil
        guard let stream else { return }
        self.stream = nil
        client.cancel(stream)
        pump()
    }

    /// No call runs, and another may.
    var isFree: Bool { stream == nil && !hasEnded && !isServerClosed && !client.hasGoAway }

    /// Streams without an end are ended; others may finish.
    func drain() {
        server.drain()
        pump()
    }

    /// For good. A call that runs is cancelled.
    func end() {
        guard !hasEnded else { return }
        hasEnded = true
        caller = nil
        stream = nil
        server.end()
    }

    // MARK: The server's end

    var isWritable: Bool { toClient.readableBytes < GatewayLink.maxWaitingBytes }

    /// The server sends. Passed on by the next `pump`: this may be in the middle of its work.
    func write(_ bytes: ByteBuffer) {
        toClient.writeImmutableBuffer(bytes)
        schedule()
    }

    /// The server is done with this connection, once everything has been passed on.
    func serverCloses() {
        isServerClosed = true
        schedule()
    }

    private func schedule() {
        guard !isPumping, !isScheduled else { return }
        isScheduled = true
        loop.eventLoop.assumeIsolated().execute { [self] in
            isScheduled = false
            pump()
        }
    }

    // MARK: Back and forth

    /// Carries bytes both ways until nothing moves any more.
    func pump() {
        guard !isPumping, !hasEnded, !loop.isPaused else { return }
        isPumping = true
        var failure: String?
        do throws(ProtocolFault) {
            var moved = true
            while moved, !hasEnded {
                moved = false
                toServer.clear()
                if try client.drainOutput({ toServer.writeBytes($0) }) > 0 {
                    moved = true
                    server.take(toServer)
                }
                server.flush()
                if toClient.readableBytes > 0, caller?.isReading ?? true {
                    let bytes = toClient
                    toClient = ByteBuffer()
                    moved = true
                    try receive(bytes)
                }
            }
        } catch {
            failure = "\(error)"
        }
        isPumping = false
        if toServer.capacity > 2 * GatewayLink.maxWaitingBytes { toServer = ByteBuffer() }
        // What was asked may have been answered for others, too.
        loop.flushTouched()
        if failure != nil || client.isFinished || isServerClosed && toClient.readableBytes == 0 { close(failure ?? "transport is closing") }
    }

    private func receive(_ buffer: ByteBuffer) throws(ProtocolFault) {
        var fault: ProtocolFault?
        buffer.withUnsafeReadableBytes { bytes in
            do throws(ProtocolFault) { try client.receive(bytes) } catch { fault = error }
        }
        if let fault { throw fault }
    }

    private func close(_ reason: String) {
        let caller = caller
        let isRunning = stream != nil
        end()
        if isRunning { caller?.finished(CallStatus(.unavailable, reason)) }
    }

    // MARK: What the session tells

    func sessionReady(_ session: GRPCClientSession) {}
    func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
        if stream == self.stream { caller?.received(message) }
    }
    func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus) {
        guard stream == self.stream else { return }
        self.stream = nil
        let caller = caller
        self.caller = nil
        caller?.finished(status)
    }
    func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String) {}
    func session(_ session: GRPCClientSession, pong payload: UInt64) {}
}
