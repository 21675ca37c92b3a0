import Base
import NIOCore
import NIOHTTP1
import Replica
import Store

/// A client's HTTP/1.1 connection: health, version and metrics for people, probes and Prometheus. (etcd-http.md §1-7)
///
/// Confined to its event loop.
final class HTTPConnection: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let loop: ClientLoop
    private var context: ChannelHandlerContext?
    private var head: HTTPRequestHead?
    private var bodyBytes = 0
    /// A request is being answered.
    private var isAnswering = false
    private var isEnding = false
    private var idleTimer: Scheduled<Void>?
    /// Tells an answer that comes late from the one that is waited for.
    private var requestNumber = 0

    init(loop: ClientLoop) { self.loop = loop }

    /// The handlers between the socket and this one.
    static func codec(_ bounds: ClientBounds) -> [any ChannelHandler] {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderListSize = bounds.maxHTTPHeadBytes
        limits.maxHeaderFieldSize = min(limits.maxHeaderFieldSize, bounds.maxHTTPHeadBytes)
        return [
            HTTPResponseEncoder(),
            ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)),
            HTTPServerPipelineHandler(),
            HTTPServerProtocolErrorHandler(),
        ]
    }

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
    }

    private func startIdleTimer() {
        guard let channel = context?.channel else { return }
        idleTimer?.cancel()
        idleTimer = loop.eventLoop.scheduleTask(in: .nanoseconds(loop.bounds.httpIdleTimeout.nanoseconds)) { channel.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            bodyBytes = 0
        case .body(let part):
            bodyBytes += part.readableBytes
            if bodyBytes > loop.bounds.maxHTTPBodyBytes, head != nil {
                head?.headers.replaceOrAdd(name: "connection", value: "close")
                begin()
                respond(.payloadTooLarge, "request body is too large\n")
            }
        case .end:
            // Answered before its end: too large.
            guard let head, !isAnswering else { return }
            begin()
            route(head)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func drain() {
        isEnding = true
        if !isAnswering { context?.close(promise: nil) }
    }

    private func begin() {
        isAnswering = true
        requestNumber += 1
        idleTimer?.cancel()
        idleTimer = nil
    }

    // MARK: Routing

    private func route(_ head: HTTPRequestHead) {
        let target = HTTPTarget(head.uri)
        if head.method == .OPTIONS { return respond(.ok, "") }
        switch target.path {
        case "/version":
            guard isGet(head) else { return }
            respond(.ok, "{\"etcdserver\":\"\(ServerVersion.etcd)\",\"etcdcluster\":\"\(ServerVersion.cluster)\"}", type: "application/json")
        case "/health":
            guard isGet(head) else { return }
            health(target)
        case "/metrics":
            guard isGet(head) else { return }
            metrics()
        case _ where target.path == "/livez" || target.path.hasPrefix("/livez/"):
            guard isGet(head) else { return }
            checks(target, root: "/livez", [.serializableRead])
        case _ where target.path == "/readyz" || target.path.hasPrefix("/readyz/"):
            guard isGet(head) else { return }
            checks(target, root: "/readyz", [.dataCorruption, .serializableRead, .linearizableRead, .nonLearner])
        case _ where target.path.hasPrefix("/v3/"):
            respond(.notFound, "{\"code\":5,\"message\":\"Not Found\"}", type: "application/json")
        default:
            respond(.notFound, "404 page not found\n", extra: [("X-Content-Type-Options", "nosniff")])
        }
    }

    private func isGet(_ head: HTTPRequestHead) -> Bool {
        if head.method == .GET { return true }
        respond(.methodNotAllowed, "Method Not Allowed\n", extra: [("Allow", "GET"), ("X-Content-Type-Options", "nosniff")])
        return false
    }

    // MARK: Health

    /// Alarms, then the leader, then a read, as etcd has it. (§4)
    private func health(_ target: HTTPTarget) {
        let serializable = target.value("serializable") == "true"
        let excluded = target.values("exclude")
        let status = loop.port.published
        for alarm in status?.alarms ?? [] where !excluded.contains(alarmName(alarm.kind)) {
            return unhealthy("ALARM \(alarmName(alarm.kind))")
        }
        if !serializable, status == nil || status?.raft.leader == MemberID.none { return unhealthy("RAFT NO LEADER") }
        let number = requestNumber
        loop.probe(linearizable: !serializable) { [self] error in
            guard number == requestNumber else { return }
            if let error { return unhealthy("RANGE ERROR:\(error.message)") }
            loop.port.metrics.healthSuccesses.add(1, ordering: .relaxed)
            respond(.ok, "{\"health\":\"true\",\"reason\":\"\"}")
        }
    }

    private func unhealthy(_ reason: String) {
        loop.port.metrics.healthFailures.add(1, ordering: .relaxed)
        respond(.serviceUnavailable, "{\"health\":\"false\",\"reason\":\"\(reason)\"}\n")
    }

    private enum Check: String {
        case serializableRead = "serializable_read"
        case linearizableRead = "linearizable_read"
        case dataCorruption = "data_corruption"
        case nonLearner = "non_learner"
    }

    private func checks(_ target: HTTPTarget, root: String, _ all: [Check]) {
        var wanted = all
        if target.path.count > root.count + 1 {
            let name = String(target.path.dropFirst(root.count + 1))
            wanted = all.filter { $0.rawValue == name }
            guard !wanted.isEmpty else { return respond(.notFound, "404 page not found\n", extra: [("X-Content-Type-Options", "nosniff")]) }
        } else {
            let excluded = target.values("exclude")
            wanted.removeAll { excluded.contains($0.rawValue) }
        }
        run(wanted[...], number: requestNumber, verbose: target.has("verbose"), lines: "", failed: false)
    }

    private func run(_ checks: ArraySlice<Check>, number: Int, verbose: Bool, lines: String, failed: Bool) {
        guard number == requestNumber else { return }
        guard let check = checks.first else {
            if failed { return respond(.serviceUnavailable, lines) }
            return respond(.ok, verbose ? lines + "ok\n" : "ok\n")
        }
        func finish(_ failure: String?) {
            let line = failure.map { "[-]\(check.rawValue) failed: \($0)\n" } ?? "[+]\(check.rawValue) ok\n"
            run(checks.dropFirst(), number: number, verbose: verbose, lines: lines + line, failed: failed || failure != nil)
        }
        switch check {
        case .serializableRead: loop.probe(linearizable: false) { finish($0?.message) }
        case .linearizableRead: loop.probe(linearizable: true) { finish($0?.message) }
        case .dataCorruption:
            let corrupt = loop.port.published?.alarms.contains { $0.kind == Alarm.corrupt } ?? false
            finish(corrupt ? "alarm activated: CORRUPT" : nil)
        case .nonLearner: finish(loop.port.published?.isLearner ?? false ? "not supported for learner" : nil)
        }
    }

    // MARK: Metrics

    private func metrics() {
        let number = requestNumber
        let loops = loop.siblings.isEmpty ? [loop] : loop.siblings
        let counters = loops.map { sibling in sibling.eventLoop.submit { sibling.counters } }
        EventLoopFuture.whenAllSucceed(counters, on: loop.eventLoop).assumeIsolated().whenComplete { [self] result in
            guard number == requestNumber, case .success(let parts) = result else { return }
            var sum = CallCounters()
            for part in parts { sum.add(part) }
            let text = MetricsText.render(identity: loop.identity, status: loop.port.published, metrics: loop.port.metrics, calls: sum)
            respond(.ok, text, type: "text/plain; version=0.0.4; charset=utf-8")
        }
    }

    // MARK: Answers

    private func respond(_ status: HTTPResponseStatus, _ body: String, type: String = "text/plain; charset=utf-8", extra: [(String, String)] = []) {
        guard let context, let request = head, isAnswering else { return }
        isAnswering = false
        requestNumber += 1
        head = nil
        let keepsAlive = request.isKeepAlive && !isEnding
        var response = HTTPResponseHead(version: request.version, status: status)
        response.headers.add(name: "Access-Control-Allow-Headers", value: "accept, content-type, authorization")
        response.headers.add(name: "Access-Control-Allow-Methods", value: "POST, GET, OPTIONS, PUT, DELETE")
        response.headers.add(name: "Access-Control-Allow-Origin", value: "*")
        response.headers.add(name: "Content-Type", value: type)
        response.headers.add(name: "Content-Length", value: String(body.utf8.count))
        for (name, value) in extra { response.headers.add(name: name, value: value) }
        if !keepsAlive { response.headers.add(name: "Connection", value: "close") }
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        if !body.isEmpty { context.write(wrapOutboundOut(.body(.byteBuffer(context.channel.allocator.buffer(string: body)))), promise: nil) }
        let promise = keepsAlive ? nil : context.eventLoop.makePromise(of: Void.self)
        if let promise {
            let channel = context.channel
            promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
        } else {
            startIdleTimer()
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: promise)
    }
}

/// Path and query of a request line.
struct HTTPTarget {
    let path: String
    private let query: [(name: String, value: String)]

    init(_ uri: String) {
        let parts = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        path = HTTPTarget.decode(parts[0])
        query = parts.count < 2 ? [] : parts[1].split(separator: "&").map { pair in
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (HTTPTarget.decode(sides[0]), sides.count > 1 ? HTTPTarget.decode(sides[1]) : "")
        }
    }

    func value(_ name: String) -> String? { query.first { $0.name == name }?.value }
    func values(_ name: String) -> [String] { query.filter { $0.name == name }.map(\.value) }
    func has(_ name: String) -> Bool { query.contains { $0.name == name } }

    /// Percent escapes and '+'; an escape that is none stays as it is.
    private static func decode(_ text: Substring) -> String {
        guard text.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) else { return String(text) }
        let bytes = Array(text.utf8)
        var out: [UInt8] = []
        var at = 0
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "%"), at + 2 < bytes.count,
               let value = Hexadecimal.number(bytes[at + 1...at + 2]) {
                out.append(UInt8(value))
                at += 3
            } else {
                out.append(bytes[at] == UInt8(ascii: "+") ? 0x20 : bytes[at])
                at += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
