import Base
import NIOCore
import NIOHTTP1
import NIOWebSocket
import Replica

/// A client's HTTP/1.1 connection.
///
/// One request at a time: `HTTPServerPipelineHandler` keeps those behind it. Confined to its event loop.
final class HTTPConnection: ChannelInboundHandler, RemovableChannelHandler, HTTPCarrier {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let loop: ClientLoop
    private let isSecure: Bool
    /// Who the client is by its certificate.
    private let identity: ClientIdentity?
    private var context: ChannelHandlerContext?

    /// The request that is read or answered; nil between requests.
    private var call: HTTPCall?
    /// After this answer the connection closes.
    private var isEnding = false
    /// In the middle of writing the end of an answer, which may bring the next request.
    private var isFinishing = false
    private var idleTimer: Scheduled<Void>?

    init(loop: ClientLoop, isSecure: Bool = false, identity: ClientIdentity? = nil) {
        self.loop = loop
        self.isSecure = isSecure
        self.identity = identity
    }

    /// The handlers between the socket and this one, the encoder first.
    struct Codec {
        let encoder: HTTPResponseEncoder
        let others: [any ChannelHandler & RemovableChannelHandler]
        var all: [any ChannelHandler] { [encoder] + others }
    }

    static func codec(_ bounds: ClientBounds) -> Codec {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderListSize = bounds.maxHTTPHeadBytes
        limits.maxHeaderFieldSize = min(limits.maxHeaderFieldSize, bounds.maxHTTPHeadBytes)
        // What follows on a request to speak something else is of that.
        let decoder = ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: limits))
        return Codec(encoder: HTTPResponseEncoder(), others: [decoder, HTTPServerPipelineHandler()])
    }

    // MARK: The socket

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        startIdleTimer()
    }

    func handlerRemoved(context: ChannelHandlerContext) { end() }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    private func end() {
        idleTimer?.cancel()
        idleTimer = nil
        context = nil
        call?.drop()
        call = nil
    }

    private func startIdleTimer() {
        guard let channel = context?.channel else { return }
        idleTimer?.cancel()
        idleTimer = loop.eventLoop.scheduleTask(in: .nanoseconds(loop.bounds.httpIdleTimeout.nanoseconds)) { channel.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): receive(head)
        case .body(let part): call?.take(part)
        case .end:
            // What was answered before its end is closed, now or when the answer has left.
            guard let call else { return }
            guard isFinishing else { return call.complete() }
            // Pipelined requests that are answered at once would otherwise be answered within each other.
            loop.eventLoop.assumeIsolated().execute { [self] in
                if call === self.call { call.complete() }
            }
        }
    }

    private func receive(_ head: HTTPRequestHead) {
        let call = HTTPCall(head, on: self, of: loop, isSecure: isSecure, identity: identity)
        self.call = call
        if let fault = HTTPConnection.fault(of: head) { return call.refuse(.badRequest, ": \(fault)") }
        if let expectation = head.headers.first(name: "Expect")?.lowercased(), expectation != "100-continue" { return call.refuse(.expectationFailed) }
        call.begin()
    }

    /// What Go's server would not take, in its words.
    static func fault(of head: HTTPRequestHead) -> String? {
        let hosts = head.headers["Host"]
        if hosts.isEmpty, head.version == .http1_1 { return "missing required Host header" }
        if hosts.count > 1 { return "too many Host headers" }
        if let host = hosts.first, !HTTPAccess.isHost(host) { return "malformed Host header" }
        return nil
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        // Calls of the gateway may have been answered, for others as well.
        loop.flushTouched()
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { call?.resume() }
        context.fireChannelWritabilityChanged()
    }

    /// The client sends no more.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed? = event as? ChannelEvent {
            isEnding = true
            guard let call else { return context.close(promise: nil) }
            if call.isComplete { call.clientHasLeft() }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // It is answered as the request that it remains.
        if error is NIOWebSocketUpgradeError { return }
        if let error = error as? HTTPParserError {
            let call = call ?? HTTPCall(HTTPRequestHead(version: .http1_1, method: .GET, uri: "/"), on: self, of: loop, isSecure: isSecure, identity: identity)
            if !call.hasWrittenHead, !(call.isAnswering && call.isComplete) {
                self.call = call
                isEnding = true
                // The decoder closes the connection as soon as this returns.
                call.refuse(error == .headerOverflow ? .requestHeaderFieldsTooLarge : .badRequest)
            }
        }
        context.close(promise: nil)
    }

    func drain() {
        isEnding = true
        if let call { call.drain() } else { context?.close(promise: nil) }
    }

    /// After a pause.
    func resume() { call?.resume() }

    /// Whether what is written leaves, as far as can be seen now.
    func takesAnswers() -> Bool { context?.channel.isWritable ?? true }

    // MARK: The answer

    var isWritable: Bool { context?.channel.isWritable ?? false }

    func sendContinue() {
        context?.writeAndFlush(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
    }

    func answerBegins() {
        idleTimer?.cancel()
        idleTimer = nil
    }

    func writeHead(of call: HTTPCall, _ status: HTTPResponseStatus, _ headers: HTTPHeaders, length: Int?) {
        guard let context else { return }
        let request = call.head
        var response = HTTPResponseHead(version: request.version, status: status, headers: headers)
        if length == nil {
            if request.version == .http1_1 { response.headers.add(name: "Transfer-Encoding", value: "chunked") } else { isEnding = true }
        }
        if !request.isKeepAlive || !call.isComplete && length != nil { isEnding = true }
        if isEnding {
            response.headers.add(name: "Connection", value: "close")
        } else if request.version == .http1_0 {
            response.headers.add(name: "Connection", value: "keep-alive")
        }
        context.write(wrapOutboundOut(.head(response)), promise: nil)
    }

    func write(_ bytes: [UInt8], flush: Bool) {
        guard let context else { return }
        let part = wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: bytes))))
        // Until the socket has taken it, it has its share of the room that all clients' answers have.
        let promise = context.eventLoop.makePromise(of: Void.self)
        loop.answersChanged(by: bytes.count)
        promise.futureResult.whenComplete { [loop] _ in loop.answersChanged(by: -bytes.count) }
        if flush { context.writeAndFlush(part, promise: promise) } else { context.write(part, promise: promise) }
    }

    /// The next request may come, or the connection closes.
    func end(_ call: HTTPCall) {
        self.call = nil
        guard let context else { return }
        // A rest of the request that nobody reads would be taken for the next one.
        if !call.isComplete { isEnding = true }
        isFinishing = true
        if isEnding {
            let channel = context.channel
            let promise = context.eventLoop.makePromise(of: Void.self)
            promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: promise)
        } else {
            startIdleTimer()
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
        isFinishing = false
    }
}
