import Base
import NIOCore
import NIOHTTP1
import NIOWebSocket

/// A call of the JSON gateway over a WebSocket: a message of the client is a request, a line of the answer is a message. (etcd-http.md §2.4)
///
/// Stands where the `HTTPConnection` stood that was asked for it, and carries one call, with which the connection ends. Confined to its event loop.
final class GatewaySocket: ChannelInboundHandler, HTTPCarrier {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    private let loop: ClientLoop
    private let takesManyRequests: Bool
    private var call: HTTPCall!
    private var context: ChannelHandlerContext?
    /// Of a line that has not ended.
    private var unfinished: [UInt8] = []
    private var idleTimer: Scheduled<Void>?
    private var isClosing = false

    /// The handlers of HTTP/1.1 with a way out of it where the gateway is served.
    static func codec(for record: ClientChannel, _ connection: HTTPConnection, _ loop: ClientLoop) -> [any ChannelHandler] {
        let codec = HTTPConnection.codec(loop.bounds)
        guard loop.surface != .metrics, loop.access.servesGateway else { return codec.all + [connection] }
        let loopBound = NIOLoopBound(loop, eventLoop: loop.eventLoop)
        let maxBytes = loop.maxGatewayBodyBytes
        let upgrader = NIOWebSocketServerUpgrader(maxFrameSize: maxBytes, shouldUpgrade: { channel, head in
            channel.eventLoop.makeSucceededFuture(GatewaySocket.answer(to: head, isSecure: record.isSecure, identity: record.identity, loopBound.value))
        }, upgradePipelineHandler: { channel, head in
            channel.eventLoop.makeCompletedFuture {
                let socket = GatewaySocket(head, isSecure: record.isSecure, identity: record.identity, loopBound.value)
                record.http = nil
                record.gatewaySocket = socket
                // A message in as many frames as anybody sends.
                let whole = NIOWebSocketFrameAggregator(minNonFinalFragmentSize: 1, maxAccumulatedFrameCount: 1_024, maxAccumulatedFrameSize: maxBytes)
                try channel.pipeline.syncOperations.addHandlers([whole, socket])
            }
        })
        let upgrade = HTTPServerUpgradeHandler(upgraders: [upgrader], httpEncoder: codec.encoder, extraHTTPHandlers: codec.others + [connection],
                                               upgradeCompletionHandler: { _ in })
        return codec.all + [upgrade, connection]
    }

    /// The fields that go with 101; nil: it stays a request like another.
    private static func answer(to head: HTTPRequestHead, isSecure: Bool, identity: ClientIdentity?, _ loop: ClientLoop) -> HTTPHeaders? {
        let connection = head.headers[canonicalForm: "Connection"]
        guard head.method == .GET, head.version == .http1_1, connection.contains(where: { $0.lowercased() == "upgrade" }), HTTPConnection.fault(of: head) == nil,
              HTTPCall.mayBecomeASocket(head, isSecure: isSecure, identity: identity, loop) else { return nil }
        let protocols = head.headers.first(name: "Sec-WebSocket-Protocol") ?? ""
        return protocols.hasPrefix("Bearer") ? ["Sec-WebSocket-Protocol": "Bearer"] : [:]
    }

    private init(_ head: HTTPRequestHead, isSecure: Bool, identity: ClientIdentity?, _ loop: ClientLoop) {
        self.loop = loop
        // Whatever it was asked with, it is a call; of the other headers only these count. A browser cannot set any of its own.
        var request = HTTPRequestHead(version: head.version, method: .POST, uri: head.uri)
        for name in ["Host", "Origin"] { for value in head.headers[name] { request.headers.add(name: name, value: value) } }
        if let token = GatewaySocket.token(head.headers) { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        takesManyRequests = HTTPTarget(head.uri).flatMap { GatewayRoute.find($0.path) }?.method.kind == .bidirectional
        call = HTTPCall(request, on: self, of: loop, isSecure: isSecure, identity: identity)
    }

    /// From the subprotocol `Bearer, TOKEN`, or a cookie.
    private static func token(_ headers: HTTPHeaders) -> String? {
        if let protocols = headers.first(name: "Sec-WebSocket-Protocol"), let bearer = protocols.firstRange(of: "Bearer,") {
            return String(protocols[bearer.upperBound...].drop { $0 == " " })
        }
        for cookie in headers[canonicalForm: "Cookie"].flatMap({ $0.split(separator: ";") }) {
            let sides = cookie.drop { $0 == " " }.split(separator: "=", maxSplits: 1)
            if sides.count == 2, sides[0] == "token" { return String(sides[1]) }
        }
        return nil
    }

    // MARK: The client

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        let channel = context.channel
        idleTimer = loop.eventLoop.scheduleTask(in: .nanoseconds(loop.bounds.httpIdleTimeout.nanoseconds)) { channel.close(promise: nil) }
        call.begin()
    }

    func handlerRemoved(context: ChannelHandlerContext) { leave() }
    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    private func leave() {
        answerBegins()
        context = nil
        call.drop()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        switch frame.opcode {
        case .text, .binary:
            guard !call.isComplete else { return }
            call.take(frame.unmaskedData)
            // Where one request is all, the first message is it.
            if takesManyRequests { call.take(ByteBuffer(string: "\n")) } else { call.complete() }
        case .ping: context.writeAndFlush(wrapOutboundOut(WebSocketFrame(fin: true, opcode: .pong, data: frame.unmaskedData)), promise: nil)
        case .connectionClose: close()
        default: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        loop.flushTouched()
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { call.resume() }
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed? = event as? ChannelEvent { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    /// What nobody has asked yet is not waited for.
    func drain() { if call.isOver || !call.isAnswering { close() } else { call.drain() } }
    /// After a pause.
    func resume() { call.resume() }

    /// Says so, then closes.
    private func close() {
        guard let context, !isClosing else { return }
        isClosing = true
        call.drop()
        let channel = context.channel
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
        var data = ByteBuffer()
        data.write(webSocketErrorCode: .normalClosure)
        context.writeAndFlush(wrapOutboundOut(WebSocketFrame(fin: true, opcode: .connectionClose, data: data)), promise: promise)
    }

    // MARK: The answer

    var isWritable: Bool { context?.channel.isWritable ?? false }
    func sendContinue() {}

    func answerBegins() {
        idleTimer?.cancel()
        idleTimer = nil
    }

    /// There is no place for it.
    func writeHead(of call: HTTPCall, _ status: HTTPResponseStatus, _ headers: HTTPHeaders, length: Int?) {}

    func write(_ bytes: [UInt8], flush: Bool) {
        var rest = bytes[...]
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            send(unfinished + rest[..<end])
            unfinished = []
            rest = rest[(end + 1)...]
        }
        unfinished += rest
        context?.flush()
    }

    private func send(_ line: [UInt8]) {
        guard let context, !line.isEmpty else { return }
        // Until the socket has taken it, it has its share of the room that all clients' answers have.
        let promise = context.eventLoop.makePromise(of: Void.self)
        loop.answersChanged(by: line.count)
        promise.futureResult.whenComplete { [loop] _ in loop.answersChanged(by: -line.count) }
        context.write(wrapOutboundOut(WebSocketFrame(fin: true, opcode: .text, data: ByteBuffer(bytes: line))), promise: promise)
    }

    func end(_ call: HTTPCall) {
        send(unfinished)
        unfinished = []
        close()
    }
}
