import Auth
import Base
import GRPC
import NIOCore
import Replica
import Store
import Wire

/// Where a connection's bytes go.
enum ByteOutlet {
    case socket(ChannelHandlerContext)
    /// The JSON gateway of this process.
    case gateway(GatewayLink)

    var isWritable: Bool {
        switch self {
        case .socket(let context): context.channel.isWritable
        case .gateway(let link): link.isWritable
        }
    }

    func write(_ bytes: ByteBuffer) {
        switch self {
        case .socket(let context): context.writeAndFlush(NIOAny(bytes), promise: nil)
        case .gateway(let link): link.write(bytes)
        }
    }

    /// Closes once everything that was written before has been passed on, or when that has taken too long.
    func closeAfterWrites(within limit: TimeSpan) {
        switch self {
        case .socket(let context):
            let channel = context.channel
            let promise = context.eventLoop.makePromise(of: Void.self)
            let timer = context.eventLoop.scheduleTask(in: .nanoseconds(limit.nanoseconds)) { channel.close(promise: nil) }
            promise.futureResult.whenComplete { _ in
                timer.cancel()
                channel.close(promise: nil)
            }
            context.writeAndFlush(NIOAny(ByteBuffer()), promise: promise)
        case .gateway(let link): link.serverCloses()
        }
    }
}

/// A client's HTTP/2 connection: bytes to and from the socket, and what its calls come to. Over TLS it carries requests to the HTTP endpoints, too.
///
/// Confined to its event loop. One write and one flush carry everything that a batch of answers or a burst of reading caused.
final class GRPCConnection: ChannelInboundHandler, GRPCServerDelegate {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    static let methods = MethodTable(MethodID.table)

    let loop: ClientLoop
    private(set) var session: GRPCServerSession!
    private var outlet: ByteOutlet?
    /// The calls that wait, by stream.
    var table = StreamTable()
    /// Something was queued since the last flush.
    var needsFlush = false
    private var output = ByteBuffer()
    private var isWriting = false
    private var isReceiving = false
    private var isClosing = false

    /// About the bytes of answers that have not left: never too low for long, corrected when it matters.
    private var queuedBytes = 0 { didSet { loop.answersChanged(by: queuedBytes - oldValue) } }
    /// The client does not read; its reads are put off.
    private(set) var isClogged = false
    private var postponed: [RequestToken] = []

    /// Bytes received that belong to no complete request yet, estimated from above; and what `PartialRequests` knows of them.
    private var partialBytes = 0
    private var publishedPartialBytes = 0
    /// Watch streams with responses that may have left.
    private var watchesToSettle: [(stream: StreamID, call: WatchCall)] = []

    /// Closes a connection that sends no settings.
    var greetingTimer: Scheduled<Void>?
    var vigil = Vigil()
    /// nil: pings are not policed.
    var pingPolicy: PingPolicy?
    /// Bytes of answers that left since the last look at who stands still.
    private var takenBytes = 0

    let isSecure: Bool
    /// Who the client is by its certificate.
    let identity: ClientIdentity?
    /// Requests to the HTTP endpoints whose answers are not complete.
    var httpStreams: [StreamID: HTTPStream] = [:]
    /// The last signed token that was found right: a client sends the same one with every request.
    private var checkedToken: (token: [UInt8], claims: TokenSigner.Claims)?

    /// - Parameter minPingInterval: 0: gRPC's own; nil: pings are not policed.
    init(loop: ClientLoop, isSecure: Bool = false, identity: ClientIdentity? = nil, minPingInterval: TimeSpan? = nil) {
        self.loop = loop
        self.isSecure = isSecure
        self.identity = identity
        pingPolicy = minPingInterval.map { PingPolicy(minInterval: $0 > .zero ? $0 : KeepAliveOptions.standardPingInterval) }
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = loop.bounds.maxConcurrentStreams
        session = GRPCServerSession(methods: GRPCConnection.methods, delegate: self,
                                    maxReceiveMessageBytes: loop.identity.options.maxRequestBytes + loop.bounds.requestOverheadBytes,
                                    settings: settings)
        if isSecure, loop.surface != .calls {
            session.plainDelegate = self
            session.isPlainAlone = loop.surface != .all
        }
    }

    // MARK: The socket

    func handlerAdded(context: ChannelHandlerContext) {
        begin(.socket(context))
    }

    func begin(_ outlet: ByteOutlet) {
        self.outlet = outlet
        loop.refreshStatus()
        output = ByteBufferAllocator().buffer(capacity: 4_096)
    }

    func handlerRemoved(context: ChannelHandlerContext) { outlet = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { take(unwrapInboundIn(data)) }

    func take(_ buffer: ByteBuffer) {
        loop.receivedBytes += UInt64(buffer.readableBytes)
        // Read, so that its end is seen, but not looked at.
        guard !isClosing else { return }
        vigil.hasHeard = true
        partialBytes += buffer.readableBytes
        do throws(ProtocolFault) {
            try receive(buffer)
        } catch {
            loop.logger.debug("client connection ended", metadata: ["reason": "\(error)"])
            flush()
            closeAfterWrites()
        }
        if greetingTimer != nil, session.hasSettings { endGreeting() }
        if (partialBytes - publishedPartialBytes).magnitude >= PartialRequests.step || partialBytes > loop.bounds.maxPartialRequestBytes { checkPartialRequests() }
    }

    private func endGreeting() {
        greetingTimer?.cancel()
        greetingTimer = nil
    }

    private func receive(_ buffer: ByteBuffer) throws(ProtocolFault) {
        var fault: ProtocolFault?
        isReceiving = true
        buffer.withUnsafeReadableBytes { bytes in
            do throws(ProtocolFault) { try session.receive(bytes) } catch { fault = error }
        }
        isReceiving = false
        if let fault { throw fault }
    }

    /// A whole message has been handed on.
    func received(_ count: Int) {
        partialBytes = max(0, partialBytes - count - 5)
    }

    private func checkPartialRequests() {
        partialBytes = session.bufferedRequestBytes + httpStreams.values.reduce(0) { $0 + $1.call.waitingBytes }
        publishPartial(partialBytes)
        guard partialBytes > loop.bounds.maxPartialRequestBytes || partialBytes > loop.bounds.fairPartialRequestBytes && loop.partialRequests.isFull else { return }
        loop.logger.warning("client connection closed: unfinished requests of \(partialBytes) bytes")
        session.terminate(.enhanceYourCalm)
        flush()
        closeAfterWrites()
    }

    private func publishPartial(_ bytes: Int) {
        loop.partialRequests.add(bytes - publishedPartialBytes)
        publishedPartialBytes = bytes
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        flush()
        // Answers made while reading may also have gone to other connections.
        loop.flushTouched()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { flush() }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    /// The client is gone.
    func end() {
        for place in table.all { loop.cancel(place, .canceled) }
        outlet = nil
        let requests = httpStreams.values
        httpStreams = [:]
        for request in requests { request.drop() }
        queuedBytes = 0
        publishPartial(0)
        endGreeting()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        loop.logger.debug("client connection failed", metadata: ["reason": "\(error)"])
        context.close(promise: nil)
    }

    /// Writes what the session has, as far as the socket takes it.
    func flush() {
        needsFlush = false
        // A call of the gateway may have been begun, and with it all that was touched is written: this one when it has read on.
        guard !isWriting, !isReceiving, !isClosing, !loop.isPaused, let outlet, let session else { return }
        isWriting = true
        let chunk = loop.bounds.writeChunkBytes
        do throws(ProtocolFault) {
            while outlet.isWritable {
                output.clear()
                let count = try session.drainOutput(limit: chunk) { bytes in
                    output.writeBytes(bytes)
                    // One frame at a time; type 0 is DATA, whose payload is what was queued.
                    if bytes.count > 9, bytes[3] == 0 {
                        queuedBytes -= bytes.count - 9
                        takenBytes += bytes.count - 9
                    }
                }
                guard count > 0 else { break }
                loop.sentBytes += UInt64(count)
                outlet.write(output)
                if count < chunk { break }
            }
        } catch {
            closeAfterWrites()
        }
        isWriting = false
        // A buffer that was large once is not kept for ever.
        if output.capacity > 2 * chunk { output = ByteBufferAllocator().buffer(capacity: 4_096) }
        if !watchesToSettle.isEmpty { settleWatches() }
        if isClogged { unclog() }
        // On a draining loop: the last call has ended and its answer has been handed to the channel.
        if session.isFinished || loop.isDraining && session.openStreams == 0 && !session.wantsWrite { closeAfterWrites() }
    }

    /// Closes once the channel has passed on everything that was written before.
    private func closeAfterWrites() {
        guard !isClosing, let outlet else { return }
        isClosing = true
        outlet.closeAfterWrites(within: loop.bounds.farewellTimeout)
    }

    /// Since it was asked last: whether the client took answers, or there were few.
    func takesAnswers() -> Bool {
        defer { takenBytes = 0 }
        return takenBytes >= loop.bounds.leastTakenBytes || session.bufferedResponseBytes < loop.bounds.stuckAnswerBytes
    }

    // MARK: Answers

    func respond(_ stream: StreamID, _ bytes: [UInt8]) {
        session.respondUnary(stream, message: bytes)
        queued(bytes.count + 5)
        loop.touch(self)
    }

    func finish(_ stream: StreamID, _ code: StatusCode, _ message: String) {
        session.finish(stream, code, message)
        loop.touch(self)
    }

    func queued(_ count: Int) {
        queuedBytes += count
        guard queuedBytes > loop.bounds.maxBufferedResponseBytes, !isClogged else { return }
        queuedBytes = session.bufferedResponseBytes
        isClogged = queuedBytes > loop.bounds.maxBufferedResponseBytes
    }

    func putOff(_ token: RequestToken) { postponed.append(token) }

    private func unclog() {
        queuedBytes = session.bufferedResponseBytes
        guard queuedBytes <= loop.bounds.maxBufferedResponseBytes / 2 else { return }
        isClogged = false
        let tokens = postponed
        postponed = []
        loop.askAgain(tokens)
        for request in Array(httpStreams.values) { request.call.resume() }
    }

    // MARK: Watch responses

    func send(_ response: WatchResponse, on stream: StreamID, of call: WatchCall) {
        var wire = 0
        let header = loop.header()
        session.sendMessage(stream) { writer in
            let start = writer.bytes.count
            response.encode(header: header, into: &writer)
            wire = writer.bytes.count - start + 5
        }
        loop.counters.send(.watch)
        call.sent(wire: wire, backlog: response.backlogBytes)
        queuedBytes += wire
        if !call.isTouched {
            call.isTouched = true
            watchesToSettle.append((stream, call))
        }
        loop.touch(self)
    }

    /// Tells the member what has left, so that it goes on with streams that were behind.
    private func settleWatches() {
        let streams = watchesToSettle
        watchesToSettle.removeAll(keepingCapacity: true)
        for (stream, call) in streams {
            call.isTouched = false
            settle(stream, call)
        }
    }

    private func settle(_ stream: StreamID, _ call: WatchCall) {
        guard table.find(stream) != nil else { return }
        let buffered = session.bufferedBytes(stream)
        let gone = call.settle(buffered: buffered)
        if gone.responses > 0 { loop.post(.watch(call.id, .delivered(responses: gone.responses, bytes: gone.bytes))) }
        if call.hasWaiting { session.notifyWhenDrained(stream, below: buffered / 2) }
    }

    func session(_ session: GRPCServerSession, drained stream: StreamID) {
        guard let place = table.find(stream) else { return }
        if case .observe(let call) = loop.work(place) { return advance(call, on: stream) }
        if case .snapshot(let call) = loop.work(place) { return loop.advance(call, place) }
        if case .lockElection(let call) = loop.work(place) { return loop.drained(call, place) }
        guard case .watch(let call) = loop.work(place) else { return }
        if !call.isTouched {
            call.isTouched = true
            watchesToSettle.append((stream, call))
        }
        loop.touch(self)
    }

    // MARK: Who asks

    /// What the request says of its sender. A token counts before a certificate, whether it is right or not. (§9.5)
    func credential(_ head: RequestHead) -> Credential {
        let token = head.token.isEmpty ? head.authorization : head.token
        guard !token.isEmpty else {
            // The gateway's certificate is not its client's.
            guard let identity, !head.isFromGateway else { return .none }
            return .commonName(identity.commonName)
        }
        return credential(ofToken: token)
    }

    private static let bearer = Array("Bearer ".utf8)

    private func credential(ofToken sent: [UInt8]) -> Credential {
        let token = sent.starts(with: GRPCConnection.bearer) ? Array(sent.dropFirst(GRPCConnection.bearer.count)) : sent
        switch loop.auth.tokens {
        case .simple: return .token(token)
        case .none: return .invalid
        case .signed(let signer):
            let now = loop.unixSeconds
            if let checkedToken, checkedToken.token == token, checkedToken.claims.expires.map({ now < $0 }) ?? true {
                return .claims(user: checkedToken.claims.user, revision: checkedToken.claims.revision)
            }
            guard let claims = signer.check(token, at: now) else { return .invalid }
            checkedToken = (token, claims)
            return .claims(user: claims.user, revision: claims.revision)
        }
    }

    // MARK: The end

    /// Lets running calls finish; streams without an end are ended.
    func drain() {
        session.goAway()
        for place in table.all {
            switch loop.work(place) {
            case .watch, .keepAlive, .healthWatch, .observe: loop.fail(place, .stopped)
            case .lockElection(let call): loop.stop(call, place)
            default: break
            }
        }
        for request in Array(httpStreams.values) { request.call.drain() }
        flush()
    }
}
