import Base
import NIOCore
import NIOHTTP1
import Replica
import Wire

/// What carries one request and its answer: a connection of HTTP/1.1, or a stream of HTTP/2.
protocol HTTPCarrier: AnyObject {
    /// Whether a further part of the answer would leave soon.
    var isWritable: Bool { get }
    /// The client waits to hear that its body is wanted.
    func sendContinue()
    /// From here on the time is the server's.
    func answerBegins()
    /// - Parameter length: nil for an answer in parts, as they come.
    func writeHead(of call: HTTPCall, _ status: HTTPResponseStatus, _ headers: HTTPHeaders, length: Int?)
    func write(_ bytes: [UInt8], flush: Bool)
    /// The answer is complete, and nothing more is heard of the call.
    func end(_ call: HTTPCall)
}

/// A request to an HTTP endpoint and its answer, whichever HTTP it came over: the JSON gateway, and health, version and metrics for people, probes
/// and Prometheus. (etcd-http.md §1-7)
///
/// Confined to its event loop. Its carrier feeds it and outlives it: after `drop` or `end` it does not touch the carrier any more.
final class HTTPCall {
    let loop: ClientLoop
    let head: HTTPRequestHead
    private unowned let carrier: any HTTPCarrier
    let isSecure: Bool
    /// Who the client is by its certificate.
    private let identity: ClientIdentity?

    private var target: HTTPTarget?
    private var refusal: (status: HTTPResponseStatus, text: String)?
    /// What CORS says in the answer; nil: nothing.
    private var allowedOrigin: String?
    private var gateway: GatewayCall?
    private var bodyBytes = 0
    /// The request has come as a whole.
    private(set) var isComplete = false
    private(set) var isAnswering = false
    private(set) var hasWrittenHead = false
    private(set) var isOver = false

    init(_ head: HTTPRequestHead, on carrier: any HTTPCarrier, of loop: ClientLoop, isSecure: Bool, identity: ClientIdentity?) {
        self.head = head
        self.carrier = carrier
        self.loop = loop
        self.isSecure = isSecure
        self.identity = identity
    }

    // MARK: What the carrier says

    /// The head is there. A call of the gateway begins at once, anything else waits for the end of the request.
    func begin() {
        guard let target = HTTPTarget(head.uri) else { return refuse(.badRequest) }
        self.target = target
        if loop.surface != .metrics {
            refusal = HTTPCall.refusal(of: head, target, isSecure: isSecure, identity: identity, loop)
            if refusal == nil { allowedOrigin = loop.access.allowedOrigin(head.headers.first(name: "Origin") ?? "") }
        }
        guard refusal == nil, head.method != .OPTIONS, !target.needsRedirect, let route = route(target) else { return }
        var method = head.method
        var hasNoBody = false
        if method == .POST, let override = head.headers.first(name: "X-HTTP-Method-Override"), !override.isEmpty,
           head.headers.first(name: "Content-Type") == "application/x-www-form-urlencoded" {
            method = HTTPMethod(rawValue: override.uppercased())
            hasNoBody = true
        }
        guard method == .POST else { return }
        if head.headers.first(name: "Expect")?.lowercased() == "100-continue" { carrier.sendContinue() }
        let call = GatewayCall(route, head, hasNoBody: hasNoBody, on: self)
        gateway = call
        call.begin()
    }

    func take(_ part: ByteBuffer) {
        guard !isOver else { return }
        bodyBytes += part.readableBytes
        if let gateway {
            gateway.take(part)
        } else if !isAnswering, bodyBytes > loop.bounds.maxHTTPBodyBytes {
            refuseBody()
        }
    }

    /// The request is complete.
    func complete() {
        isComplete = true
        if let gateway { return gateway.endBody() }
        guard !isOver, !isAnswering, let target else { return }
        beginAnswer()
        answer(target)
    }

    /// The client sends no more, which calls of the gateway take for its end; what else it waits for it gets.
    func clientHasLeft() { gateway?.clientHasLeft() }

    func drain() { gateway?.drain() }
    /// The answer can go on.
    func resume() { gateway?.resume() }
    /// The client is gone.
    func drop() {
        isOver = true
        gateway?.drop()
        gateway = nil
    }

    /// Bytes held of a body that is not complete.
    var waitingBytes: Int { gateway?.waitingBytes ?? 0 }
    var isWritable: Bool { !isOver && carrier.isWritable }

    // MARK: The way of a request, in etcd's order

    private static func refusal(of head: HTTPRequestHead, _ target: HTTPTarget, isSecure: Bool, identity: ClientIdentity?,
                                _ loop: ClientLoop) -> (HTTPResponseStatus, String)? {
        // By TLS the client knows whom it reached, whatever a name resolves to.
        if !isSecure {
            let host = HTTPAccess.hostname(target.authority ?? head.headers.first(name: "Host") ?? "")
            guard loop.access.allows(host: host) else {
                loop.rejections?.note("rejecting HTTP request to prevent DNS rebinding attacks", remote: nil, "the host \"\(host)\" is not in --host-whitelist")
                return (.misdirectedRequest, HTTPAccess.refusal(of: host))
            }
        }
        // etcd's gateway would act with the server's own certificate, so it refuses clients that may count on theirs. (§2.5)
        if let identity, !identity.commonName.bytes.isEmpty, loop.access.servesGateway, target.path.hasPrefix("/v3/"), loop.port.published?.isAuthEnabled ?? false {
            return (.badRequest, "CommonName of client sending a request against gateway will be ignored and not used as expected\n")
        }
        return nil
    }

    /// Whether a request to go on as a WebSocket has come to the gateway, past all checks.
    static func mayBecomeASocket(_ head: HTTPRequestHead, isSecure: Bool, identity: ClientIdentity?, _ loop: ClientLoop) -> Bool {
        guard let target = HTTPTarget(head.uri), !target.needsRedirect, GatewayRoute.find(target.path) != nil else { return false }
        return HTTPCall.refusal(of: head, target, isSecure: isSecure, identity: identity, loop) == nil
    }

    private func route(_ target: HTTPTarget) -> GatewayRoute? {
        loop.surface != .metrics && loop.access.servesGateway ? GatewayRoute.find(target.path) : nil
    }

    private func answer(_ target: HTTPTarget) {
        if let refusal { return respondText(refusal.status, refusal.text) }
        if loop.surface != .metrics, head.method == .OPTIONS { return respond(.ok, [], []) }
        if target.needsRedirect { return redirect(to: target) }
        switch target.path {
        case "/metrics": return metrics()
        case "/health": return onlyGet { health(target) }
        case _ where HealthCheck.find(target.path) != nil: return onlyGet { check(target) }
        case _ where loop.surface == .metrics: break
        case "/version":
            return onlyGet {
                respond(.ok, Array("{\"etcdserver\":\"\(ServerVersion.etcd)\",\"etcdcluster\":\"\(ServerVersion.cluster)\"}".utf8),
                        [("Content-Type", "application/json")])
            }
        case "/debug/vars": return onlyGet { variables() }
        case _ where !loop.access.servesGateway: break
        case "/v3": return redirect(to: target)
        case _ where GatewayRoute.find(target.path) != nil: return respondText(.methodNotAllowed, "Method Not Allowed\n")
        case _ where target.path.hasPrefix("/v3/"): return respondText(.notFound, "Not Found\n")
        default: break
        }
        respondText(.notFound, "404 page not found\n")
    }

    private func onlyGet(_ body: () -> Void) {
        if head.method == .GET { return body() }
        respond(.methodNotAllowed, Array("Method Not Allowed\n".utf8), [("Allow", "GET")] + HTTPCall.plainText)
    }

    private func redirect(to target: HTTPTarget) {
        let location = target.redirection
        guard head.method == .GET || head.method == .HEAD else { return respond(.movedPermanently, [], [("Location", location)]) }
        var escaped = location.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
        escaped = escaped.replacing("\"", with: "&#34;").replacing("'", with: "&#39;")
        respond(.movedPermanently, Array("<a href=\"\(escaped)\">Moved Permanently</a>.\n\n".utf8),
                [("Content-Type", "text/html; charset=utf-8"), ("Location", location)])
    }

    // MARK: Answers

    /// What Go's `http.Error` says of its text.
    private static let plainText = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]

    func beginAnswer() {
        guard !isAnswering, !isOver else { return }
        isAnswering = true
        carrier.answerBegins()
    }

    func respondText(_ status: HTTPResponseStatus, _ body: String) { respond(status, Array(body.utf8), HTTPCall.plainText) }

    /// A whole answer.
    func respond(_ status: HTTPResponseStatus, _ body: [UInt8], _ headers: [(String, String)]) {
        guard !isOver, isAnswering, !hasWrittenHead else { return }
        writeHead(status, headers, length: body.count)
        if !body.isEmpty { write(body, flush: false) }
        endAnswer()
    }

    /// - Parameter length: nil for an answer in parts, as they come.
    func writeHead(_ status: HTTPResponseStatus, _ headers: [(String, String)], length: Int?) {
        guard !isOver else { return }
        hasWrittenHead = true
        var all = HTTPHeaders()
        if let allowedOrigin {
            all.add(name: "Access-Control-Allow-Headers", value: "accept, content-type, authorization")
            all.add(name: "Access-Control-Allow-Methods", value: "POST, GET, OPTIONS, PUT, DELETE")
            all.add(name: "Access-Control-Allow-Origin", value: allowedOrigin)
        }
        for (name, value) in headers { all.add(name: name, value: value) }
        all.add(name: "Date", value: HTTPDate.text(unixSeconds: loop.unixSeconds))
        if let length { all.add(name: "Content-Length", value: String(length)) }
        carrier.writeHead(of: self, status, all, length: length)
    }

    /// A part of an answer, passed on at once.
    func writeBody(_ bytes: [UInt8]) { write(bytes, flush: true) }

    private func write(_ bytes: [UInt8], flush: Bool) {
        if !isOver, head.method != .HEAD { carrier.write(bytes, flush: flush) }
    }

    func endAnswer() {
        guard !isOver, hasWrittenHead else { return }
        isOver = true
        gateway = nil
        carrier.end(self)
    }

    /// The body is larger than anything that could be answered.
    func refuseBody() {
        gateway?.drop()
        gateway = nil
        beginAnswer()
        if hasWrittenHead { return endAnswer() }
        respondText(.payloadTooLarge, "request body is too large\n")
    }

    /// An answer to what is no request, in the words of Go's server.
    func refuse(_ status: HTTPResponseStatus, _ details: String = "") {
        allowedOrigin = nil
        gateway?.drop()
        gateway = nil
        beginAnswer()
        // Go says nothing more of an expectation.
        if status == .expectationFailed { return respond(status, [], []) }
        let reason = status.reasonPhrase + details
        respond(.custom(code: status.code, reasonPhrase: reason), Array("\(status.code) \(reason)".utf8), [("Content-Type", "text/plain; charset=utf-8")])
    }
}
