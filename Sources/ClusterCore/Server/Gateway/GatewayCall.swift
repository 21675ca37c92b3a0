import Base
import GRPC
import NIOCore
import NIOHTTP1
import Wire

/// One request of the JSON gateway: JSON in, a gRPC call to the own server, JSON out. (etcd-http.md §2)
///
/// A unary call is begun when the body is complete. The body of a bidirectional one is a row of JSON values, each sent as soon as it is whole; its
/// answer is a row of lines, whatever happens to the body. Belongs to its request, which drops it when it is over.
final class GatewayCall: GatewayCaller {
    private unowned let http: HTTPCall
    private let route: GatewayRoute
    private let timeout: Result<TimeSpan?, JSONFault>
    private let deadline: NIODeadline
    private let metadata: [MetadataField]
    /// The form parser of etcd's gateway eats the body when a form overrides the method.
    private let hasNoBody: Bool

    private var link: GatewayLink?
    private var body = JSONStream()
    private var bodyBytes = 0
    /// Requests that were sent.
    private var requests = 0
    /// Nothing more of the body is looked at.
    private var isBodyDone = false
    /// Errors are told as those of a stream though no message of it came: etcd's gateway does so when it was not told of the call's headers
    /// before, because the body held no request, or because the server had nothing but an error to say.
    private var isHeaderless = false
    /// A unary call's message.
    private var answer: [UInt8]?
    private var hasAnswered = false

    init(_ route: GatewayRoute, _ head: HTTPRequestHead, hasNoBody: Bool, on http: HTTPCall) {
        self.route = route
        self.http = http
        self.hasNoBody = hasNoBody
        timeout = GatewayCall.timeout(head.headers)
        let limit = (try? timeout.get()).map { min($0.nanoseconds, 1 << 60) }
        // One in the past may lie before the clock's beginning.
        deadline = limit.map { $0 <= 0 ? .uptimeNanoseconds(0) : NIODeadline.now() + .nanoseconds($0) } ?? .distantFuture
        metadata = GatewayCall.metadata(head.headers)
    }

    private var isBidirectional: Bool { route.method.kind == .bidirectional }
    private var isStream: Bool { route.method.kind != .unary }

    // MARK: The request

    /// The head has come.
    func begin() {
        guard isBidirectional else { return }
        http.beginAnswer()
        begin(then: {})
    }

    /// Part of the body has come.
    func take(_ part: ByteBuffer) {
        guard !isBodyDone, !hasNoBody else { return }
        bodyBytes += part.readableBytes
        body.append(part.readableBytesView)
        guard isBidirectional else {
            if bodyBytes > http.loop.maxGatewayBodyBytes { http.refuseBody() }
            return
        }
        if body.waitingBytes > http.loop.maxGatewayBodyBytes { return http.refuseBody() }
        do throws(JSONFault) {
            while !isBodyDone, let text = try body.next() { try send(text) }
        } catch {
            bodyFailed(error)
        }
        link?.pump()
    }

    /// The body is complete.
    func endBody() {
        if isBodyDone { return }
        if isBidirectional {
            do throws(JSONFault) { if let text = try body.last() { try send(text) } } catch { return bodyFailed(error) }
            isBodyDone = true
            isHeaderless = requests == 0
            link?.halfClose()
            link?.pump()
            return
        }
        isBodyDone = true
        http.beginAnswer()
        begin { [self] in
            do throws(JSONFault) {
                // What stands behind the first value is not looked at.
                if let text = try body.next() { try send(text) } else if let text = try body.last() { try send(text) } else { link?.send([]) }
                body = JSONStream()
            } catch {
                drop()
                return fail(.invalidArgument, error.message)
            }
            link?.halfClose()
            link?.pump()
        }
    }

    /// Bytes of the body that are no whole value yet.
    var waitingBytes: Int { body.waitingBytes }

    private func send(_ text: [UInt8]) throws(JSONFault) {
        link?.send(try JSONToProtobuf.message(text, route.request))
        requests += 1
    }

    /// The first value decides about the call; after it a bad one is just the end of the body.
    private func bodyFailed(_ fault: JSONFault) {
        isBodyDone = true
        if requests > 0 {
            link?.halfClose()
            link?.pump()
        } else {
            drop()
            fail(.unknown, fault.message)
        }
    }

    private func begin(then go: () -> Void) {
        guard case .success(let timeout) = timeout else {
            if case .failure(let fault) = timeout { fail(.invalidArgument, fault.message) }
            return
        }
        guard NIODeadline.now() < deadline else { return fail(.deadlineExceeded, "context deadline exceeded") }
        let link = http.loop.takeLink()
        guard link.start(route.method, metadata, timeout: timeout, for: self) else {
            http.loop.giveBack(link)
            return fail(.unavailable, ServiceError.stopped.message)
        }
        self.link = link
        go()
    }

    // MARK: The answer

    var isReading: Bool { http.isWritable }

    func received(_ message: UnsafeRawBufferPointer) {
        do throws(DecodingFault) {
            guard isStream else { return answer = try ProtobufToJSON.text(message, route.response) }
            let line = try ProtobufToJSON.text(message, route.response, prefix: "{\"result\":", suffix: "}\n")
            if !hasAnswered { beginStream(.ok, withMetadata: !isHeaderless) }
            http.writeBody(line)
        } catch {
            // Our own server wrote it, of what its disk holds.
            http.loop.logger.error("an answer is no \(route.response.name)", metadata: ["path": "\(route.path)", "reason": "\(error)"])
            drop()
            fail(.internal, "answer to \(route.path) is no \(route.response.name): \(error)")
        }
    }

    func finished(_ status: CallStatus) {
        isBodyDone = true
        giveBack()
        guard status.code == .ok else {
            // A deadline is the gateway's own in etcd: it learns nothing from the server then.
            if isStream, !hasAnswered, status.code != .deadlineExceeded { isHeaderless = true }
            // Over TLS etcd's calls go through Go's HTTP server, which sends headers before an error, too.
            return fail(status.code, status.message, withMetadata: http.isSecure && status.code != .deadlineExceeded && !(isBidirectional && requests == 0))
        }
        if isStream {
            if !hasAnswered { beginStream(.ok, withMetadata: !isHeaderless) }
            http.endAnswer()
        } else if let answer {
            http.respond(.ok, answer, GatewayCall.headers(true))
        } else {
            fail(.internal, "OK without an answer")
        }
    }

    private func beginStream(_ status: HTTPResponseStatus, withMetadata: Bool) {
        hasAnswered = true
        http.writeHead(status, GatewayCall.headers(withMetadata), length: nil)
    }

    private static func headers(_ withMetadata: Bool) -> [(String, String)] {
        [("Content-Type", "application/json")] + (withMetadata ? [("Grpc-Metadata-Content-Type", "application/grpc")] : [])
    }

    private func fail(_ code: StatusCode, _ message: String, withMetadata: Bool = false) {
        isBodyDone = true
        let status = GatewayCall.httpStatus(code)
        let text = message.isEmpty ? nil : ProtobufToJSON.quoted(message)
        guard hasAnswered || isHeaderless else {
            let body = text.map { "{\"error\":\($0),\"code\":\(code.rawValue),\"message\":\($0)}" } ?? "{\"code\":\(code.rawValue)}"
            return http.respond(status, Array(body.utf8), GatewayCall.headers(withMetadata))
        }
        if !hasAnswered { beginStream(status, withMetadata: withMetadata) }
        let words = text.map { ",\"message\":\($0)" } ?? ""
        http.writeBody(Array("{\"error\":{\"grpc_code\":\(code.rawValue),\"http_code\":\(status.code)\(words),\"http_status\":\"\(status.reasonPhrase)\"}}".utf8))
        http.endAnswer()
    }

    // MARK: The end

    /// The client has closed its side. For Go's server, and so for etcd's gateway, it does not wait any more.
    func clientHasLeft() {
        guard link != nil else { return }
        drop()
        fail(.canceled, "context canceled")
    }

    /// The connection is gone.
    func drop() {
        isBodyDone = true
        link?.cancel()
        giveBack()
    }

    func drain() { if isStream { link?.drain() } }

    /// The answer can go on.
    func resume() { link?.pump() }

    private func giveBack() {
        guard let link else { return }
        self.link = nil
        http.loop.giveBack(link)
    }

    // MARK: Headers

    /// etcd's gateway reads `Grpc-Timeout` more leniently than gRPC does. 0 is no limit.
    private static func timeout(_ headers: HTTPHeaders) -> Result<TimeSpan?, JSONFault> {
        guard let text = headers.first(name: "Grpc-Timeout"), !text.isEmpty else { return .success(nil) }
        let units: [Character: Int64] = ["H": 3_600_000_000_000, "M": 60_000_000_000, "S": 1_000_000_000, "m": 1_000_000, "u": 1_000, "n": 1]
        guard let unit = units[text.last!], let count = Int64(text.dropLast()) else { return .failure(JSONFault("invalid grpc-timeout: \(text)")) }
        if count == 0 { return .success(nil) }
        let (span, overflow) = count.multipliedReportingOverflow(by: unit)
        return .success(TimeSpan(nanoseconds: overflow ? (count < 0 ? -1 : .max) : span))
    }

    /// Of all that etcd's gateway passes on, what a server looks at.
    private static func metadata(_ headers: HTTPHeaders) -> [MetadataField] {
        var fields: [MetadataField] = []
        for (header, name) in [("Authorization", "authorization"), ("Grpc-Metadata-Authorization", "authorization"), ("Grpc-Metadata-Token", "token"),
                               ("Grpc-Metadata-Hasleader", "hasleader"), ("Grpc-Metadata-Client-Api-Version", "client-api-version")] {
            if let value = headers.first(name: header) { fields.append(MetadataField(name, value)) }
        }
        return fields
    }

    static func httpStatus(_ code: StatusCode) -> HTTPResponseStatus {
        switch code {
        case .ok: .ok
        case .canceled: .requestTimeout
        case .invalidArgument, .failedPrecondition, .outOfRange: .badRequest
        case .deadlineExceeded: .gatewayTimeout
        case .notFound: .notFound
        case .alreadyExists, .aborted: .conflict
        case .permissionDenied: .forbidden
        case .resourceExhausted: .tooManyRequests
        case .unimplemented: .notImplemented
        case .unavailable: .serviceUnavailable
        case .unauthenticated: .unauthorized
        case .unknown, .internal, .dataLoss: .internalServerError
        }
    }
}

extension ClientLoop {
    /// Links kept for later calls; a link has two HTTP/2 sessions, some 50 KiB.
    private static let maxSpareLinks = 16

    func takeLink() -> GatewayLink { spareLinks.popLast() ?? GatewayLink(loop: self) }

    func giveBack(_ link: GatewayLink) {
        if link.isFree, !isDraining, spareLinks.count < ClientLoop.maxSpareLinks { spareLinks.append(link) } else { link.end() }
    }

    /// Room for the largest message in base64 and then some, so that what is too large for gRPC is mostly refused in its words.
    var maxGatewayBodyBytes: Int { 2 * (identity.options.maxRequestBytes + bounds.requestOverheadBytes) }
}
