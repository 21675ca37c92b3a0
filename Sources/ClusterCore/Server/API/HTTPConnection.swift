import Base
import NIOCore
import NIOHTTP1
import Replica

/// A client's HTTP/1.1 connection: the JSON gateway, and health, version and metrics for people, probes and Prometheus. (etcd-http.md §1-7)
///
/// One request at a time: `HTTPServerPipelineHandler` keeps those behind it. Confined to its event loop.
final class HTTPConnection: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    let loop: ClientLoop
    /// Who the client is by its certificate.
    private let identity: ClientIdentity?
    private var context: ChannelHandlerContext?

    /// The request that is read or answered; nil between requests.
    private var head: HTTPRequestHead?
    private var call: GatewayCall?
    private var bodyBytes = 0
    private var isRequestComplete = false
    private var isAnswering = false
    private var hasWrittenHead = false
    /// After this answer the connection closes.
    private var isEnding = false
    /// In the middle of writing the end of an answer, which may bring the next request.
    private var isFinishing = false
    private var idleTimer: Scheduled<Void>?
    /// Tells an answer that comes late from the one that is waited for.
    private(set) var requestNumber = 0

    init(loop: ClientLoop, identity: ClientIdentity? = nil) {
        self.loop = loop
        self.identity = identity
    }

    /// The handlers between the socket and this one.
    static func codec(_ bounds: ClientBounds) -> [any ChannelHandler] {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderListSize = bounds.maxHTTPHeadBytes
        limits.maxHeaderFieldSize = min(limits.maxHeaderFieldSize, bounds.maxHTTPHeadBytes)
        return [
            HTTPResponseEncoder(),
            ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)),
            HTTPServerPipelineHandler(),
        ]
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
        requestNumber += 1
        context = nil
        call?.drop()
        call = nil
        head = nil
    }

    private func startIdleTimer() {
        guard let channel = context?.channel else { return }
        idleTimer?.cancel()
        idleTimer = loop.eventLoop.scheduleTask(in: .nanoseconds(loop.bounds.httpIdleTimeout.nanoseconds)) { channel.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): receive(head)
        case .body(let part):
            bodyBytes += part.readableBytes
            if let call {
                call.take(part)
            } else if head != nil, !isAnswering, bodyBytes > loop.bounds.maxHTTPBodyBytes {
                refuseBody()
            }
        case .end:
            isRequestComplete = true
            // What was answered before its end is closed, now or when the answer has left.
            guard head != nil else { return }
            guard isFinishing else { return requestComplete() }
            // Pipelined requests that are answered at once would otherwise be answered within each other.
            let number = requestNumber
            loop.eventLoop.assumeIsolated().execute { [self] in
                if number == requestNumber { requestComplete() }
            }
        }
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

    /// The client sends no more, which calls of the gateway take for its end; what else it waits for it gets.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed? = event as? ChannelEvent {
            isEnding = true
            if head == nil { context.close(promise: nil) } else if isRequestComplete { call?.clientHasLeft() }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if let error = error as? HTTPParserError, !hasWrittenHead, !(isAnswering && isRequestComplete) {
            // The decoder closes the connection as soon as this returns.
            call?.drop()
            call = nil
            refuse(error == .headerOverflow ? .requestHeaderFieldsTooLarge : .badRequest)
        }
        context.close(promise: nil)
    }

    func drain() {
        isEnding = true
        if head == nil { context?.close(promise: nil) } else { call?.drain() }
    }

    /// After a pause.
    func resume() { call?.resume() }

    /// Whether what is written leaves, as far as can be seen now.
    func takesAnswers() -> Bool { context?.channel.isWritable ?? true }

    var isWritable: Bool { context?.channel.isWritable ?? false }

    // MARK: Requests

    private func receive(_ head: HTTPRequestHead) {
        self.head = head
        (bodyBytes, isRequestComplete, isAnswering, hasWrittenHead) = (0, false, false, false)
        if head.version == .http1_1, !head.headers.contains(name: "Host") {
            return refuse(.badRequest, ": missing required Host header")
        }
        let expectation = head.headers.first(name: "Expect")?.lowercased()
        if let expectation, expectation != "100-continue" {
            isEnding = true
            beginAnswer()
            return respond(.expectationFailed, [], [], isPlain: true)
        }
        guard let target = HTTPTarget(head.uri) else { return refuse(.badRequest) }
        guard loop.surface == .all, head.method != .OPTIONS, !target.needsRedirect, let route = GatewayRoute.find(target.path) else { return }
        var method = head.method
        var hasNoBody = false
        if method == .POST, let override = head.headers.first(name: "X-HTTP-Method-Override"), !override.isEmpty,
           head.headers.first(name: "Content-Type") == "application/x-www-form-urlencoded" {
            method = HTTPMethod(rawValue: override.uppercased())
            hasNoBody = true
        }
        guard method == .POST, !isMistakenForItsCertificate(target) else { return }
        if expectation != nil {
            context?.writeAndFlush(wrapOutboundOut(.head(HTTPResponseHead(version: head.version, status: .continue))), promise: nil)
        }
        let call = GatewayCall(route, head, hasNoBody: hasNoBody, on: self)
        self.call = call
        call.begin()
    }

    private func requestComplete() {
        if let call { return call.endBody() }
        guard let head, !isAnswering, let target = HTTPTarget(head.uri) else { return }
        beginAnswer()
        answer(head, target)
    }

    /// The time between requests is over.
    func beginAnswer() {
        isAnswering = true
        idleTimer?.cancel()
        idleTimer = nil
    }

    private func answer(_ head: HTTPRequestHead, _ target: HTTPTarget) {
        if loop.surface == .all {
            if isMistakenForItsCertificate(target) {
                return respond(.badRequest, Array("CommonName of client sending a request against gateway will be ignored and not used as expected\n".utf8),
                               HTTPConnection.plainText, isPlain: true)
            }
            if head.method == .OPTIONS { return respond(.ok, [], []) }
        }
        if target.needsRedirect { return redirect(head, to: target) }
        switch target.path {
        case "/metrics": return metrics()
        case "/health": return onlyGet(head) { health(target) }
        case _ where HealthCheck.find(target.path) != nil: return onlyGet(head) { check(target) }
        case _ where loop.surface == .metrics: break
        case "/version":
            return onlyGet(head) {
                respond(.ok, Array("{\"etcdserver\":\"\(ServerVersion.etcd)\",\"etcdcluster\":\"\(ServerVersion.cluster)\"}".utf8),
                        [("Content-Type", "application/json")])
            }
        case "/debug/vars": return onlyGet(head) { variables() }
        case "/v3": return redirect(head, to: target)
        case _ where GatewayRoute.find(target.path) != nil: return respondText(.methodNotAllowed, "Method Not Allowed\n")
        case _ where target.path.hasPrefix("/v3/"): return respondText(.notFound, "Not Found\n")
        default: break
        }
        respondText(.notFound, "404 page not found\n")
    }

    private func onlyGet(_ head: HTTPRequestHead, _ body: () -> Void) {
        if head.method == .GET { return body() }
        respond(.methodNotAllowed, Array("Method Not Allowed\n".utf8), [("Allow", "GET")] + HTTPConnection.plainText)
    }

    private func redirect(_ head: HTTPRequestHead, to target: HTTPTarget) {
        let location = target.redirection
        guard head.method == .GET || head.method == .HEAD else { return respond(.movedPermanently, [], [("Location", location)]) }
        var escaped = location.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
        escaped = escaped.replacing("\"", with: "&#34;").replacing("'", with: "&#39;")
        respond(.movedPermanently, Array("<a href=\"\(escaped)\">Moved Permanently</a>.\n\n".utf8),
                [("Content-Type", "text/html; charset=utf-8"), ("Location", location)])
    }

    /// etcd's gateway would act with the server's own certificate, so it refuses clients that may count on theirs. (§2.5)
    private func isMistakenForItsCertificate(_ target: HTTPTarget) -> Bool {
        guard let identity, !identity.commonName.bytes.isEmpty, target.path.hasPrefix("/v3/") else { return false }
        return loop.port.published?.isAuthEnabled ?? false
    }

    // MARK: Answers

    /// What Go's `http.Error` says of its text.
    private static let plainText = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]

    func respondText(_ status: HTTPResponseStatus, _ body: String) { respond(status, Array(body.utf8), HTTPConnection.plainText) }

    /// A whole answer.
    /// - Parameter isPlain: without what every answer of the client port carries.
    func respond(_ status: HTTPResponseStatus, _ body: [UInt8], _ headers: [(String, String)], isPlain: Bool = false) {
        guard head != nil, isAnswering, !hasWrittenHead else { return }
        writeHead(status, headers, length: body.count, isPlain: isPlain)
        if !body.isEmpty { write(body, flush: false) }
        endAnswer()
    }

    /// - Parameter length: nil for an answer in parts, as they come.
    func writeHead(_ status: HTTPResponseStatus, _ headers: [(String, String)], length: Int?, isPlain: Bool = false) {
        guard let context, let request = head else { return }
        hasWrittenHead = true
        var response = HTTPResponseHead(version: request.version, status: status)
        if loop.surface == .all, !isPlain {
            response.headers.add(name: "Access-Control-Allow-Headers", value: "accept, content-type, authorization")
            response.headers.add(name: "Access-Control-Allow-Methods", value: "POST, GET, OPTIONS, PUT, DELETE")
            response.headers.add(name: "Access-Control-Allow-Origin", value: "*")
        }
        for (name, value) in headers { response.headers.add(name: name, value: value) }
        response.headers.add(name: "Date", value: HTTPDate.text(unixSeconds: loop.unixSeconds))
        if let length {
            response.headers.add(name: "Content-Length", value: String(length))
        } else if request.version == .http1_1 {
            response.headers.add(name: "Transfer-Encoding", value: "chunked")
        } else {
            isEnding = true
        }
        if !request.isKeepAlive || !isRequestComplete && length != nil { isEnding = true }
        if isEnding {
            response.headers.add(name: "Connection", value: "close")
        } else if request.version == .http1_0 {
            response.headers.add(name: "Connection", value: "keep-alive")
        }
        context.write(wrapOutboundOut(.head(response)), promise: nil)
    }

    /// A part of an answer, passed on at once.
    func writeBody(_ bytes: [UInt8]) { write(bytes, flush: true) }

    private func write(_ bytes: [UInt8], flush: Bool) {
        guard let context, let head, head.method != .HEAD else { return }
        let part = wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: bytes))))
        // Until the socket has taken it, it has its share of the room that all clients' answers have.
        let promise = context.eventLoop.makePromise(of: Void.self)
        loop.answersChanged(by: bytes.count)
        promise.futureResult.whenComplete { [loop] _ in loop.answersChanged(by: -bytes.count) }
        if flush { context.writeAndFlush(part, promise: promise) } else { context.write(part, promise: promise) }
    }

    /// The answer is complete: the next request may come, or the connection closes.
    func endAnswer() {
        guard let context, head != nil, hasWrittenHead else { return }
        // A rest of the request that nobody reads would be taken for the next one.
        if !isRequestComplete { isEnding = true }
        (head, call, isAnswering, hasWrittenHead) = (nil, nil, false, false)
        requestNumber += 1
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

    /// The body is larger than anything that could be answered.
    func refuseBody() {
        isEnding = true
        call?.drop()
        call = nil
        beginAnswer()
        if hasWrittenHead { return endAnswer() }
        respondText(.payloadTooLarge, "request body is too large\n")
    }

    /// An answer to what is no request, in the words of Go's server.
    private func refuse(_ status: HTTPResponseStatus, _ details: String = "") {
        isEnding = true
        if head == nil { head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/") }
        beginAnswer()
        hasWrittenHead = false
        respond(status, Array("\(status.code) \(status.reasonPhrase)\(details)".utf8), [("Content-Type", "text/plain; charset=utf-8")], isPlain: true)
    }
}
