import Base
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import Replica
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Where a member's peers listen.
struct PeerAddress: Hashable, Sendable {
    var id: MemberID
    var host: String
    var port: Int
    var isTLS = false
}

/// The connections between members: one out to each peer for what this member sends, one in from each for what it receives.
/// Messages are dropped, never queued without bound: consensus repeats what matters. A peer that is no member any more and asks all the same
/// is answered on the connection that it asks on.
///
/// Confined to the replica loop, hence @unchecked Sendable.
final class PeerTransport: @unchecked Sendable {
    /// Bytes on the way to one peer before messages to it are dropped: a few times what consensus keeps in flight.
    static let maxPendingBytes = 64 << 20
    /// Bytes kept while a connection is being made: enough for an election's messages.
    static let maxWaitingBytes = 256 << 10
    static let firstRetryDelay = TimeAmount.milliseconds(5)
    /// A connection that lived this long is made again at once when it ends. One that ended sooner waits like a failed attempt: the peer may be
    /// about to close its listener, or a proxy before it accepts what it cannot pass on.
    static let settledAfter = TimeAmount.milliseconds(100)
    static let maxRetryDelay = TimeAmount.milliseconds(500)
    static let connectTimeout = TimeAmount.seconds(1)

    let identity: NodeIdentity
    let loop: any EventLoop
    let links: any LinkPolicy
    /// Decides which messages a faulty link loses, doubles and delays.
    fileprivate var generator: SeededGenerator
    let metrics: NodeMetrics
    let logger: Logger
    private let post: ([ReplicaEvent]) -> Void
    private let intake: SnapshotIntakeFactory
    fileprivate let dialer: PeerDialer
    fileprivate let rejections: RejectionLog
    /// News of connections. Set before `setPeers`.
    var note: (ReplicaNote) -> Void = { _ in }
    /// For those who ask over HTTP.
    var memberList: () -> [Member] = { [] }
    /// How long the connection to a peer that has left stays: it has to be told that it was removed.
    static let farewell = TimeAmount.seconds(5)
    private var peers: [PeerLink] = []
    private var listeners: [any Channel] = []
    private var inbound: [ObjectIdentifier: any Channel] = [:]
    /// The connections on which a peer has said something, oldest first.
    private var inboundOfPeer: [MemberID: [any Channel]] = [:]
    private var isPaused = false
    private var isClosed = false

    init(identity: NodeIdentity, loop: any EventLoop, links: any LinkPolicy, generator: SeededGenerator, metrics: NodeMetrics, logger: Logger,
         dialer: PeerDialer = PeerDialer(), intake: @escaping SnapshotIntakeFactory, post: @escaping ([ReplicaEvent]) -> Void) {
        self.identity = identity
        self.loop = loop
        self.links = links
        self.generator = generator
        self.metrics = metrics
        self.logger = logger
        self.dialer = dialer
        rejections = RejectionLog(logger)
        self.intake = intake
        self.post = post
        links.observe { [weak self] in
            guard let self else { return }
            self.loop.execute { for link in self.peers { link.linkChanged() } }
        }
    }

    /// Starts listening. Connections that arrive before `start` wait.
    /// - Parameters:
    ///   - tls: nil: plaintext.
    ///   - sharesPort: other sockets that allow it too may listen there.
    func listen(host: String, port: Int, tls: TLSPort? = nil, sharesPort: Bool = false) -> EventLoopFuture<any Channel> {
        let acceptor = tls.map { TLSAcceptor($0, loop: loop, rejections: rejections) }
        return ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 128)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.socketOption(.so_reuseport), value: sharesPort ? 1 : 0)
            .serverChannelInitializer(AcceptPause.add(logger))
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                self.adopt(channel, through: acceptor)
            }
            .bind(host: host, port: port)
            .map { channel in
                self.listeners.append(channel)
                return channel
            }
    }

    /// Hears a new connection from a peer; behind `acceptor`, once its handshake is over.
    func adopt(_ channel: any Channel, through acceptor: TLSAcceptor? = nil) -> EventLoopFuture<Void> {
        if isClosed { return loop.makeFailedFuture(ChannelError.alreadyClosed) }
        inbound[ObjectIdentifier(channel)] = channel
        if isPaused { _ = channel.setOption(.autoRead, value: false) }
        guard let acceptor else {
            return loop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(PeerReceiver(transport: self)) }
        }
        // It may end before it is let in.
        channel.closeFuture.whenComplete { _ in self.closed(channel, from: nil) }
        return acceptor.accept(channel) { channel, _ in try channel.pipeline.syncOperations.addHandler(PeerReceiver(transport: self)) }
    }

    /// Connects to whoever is new, anew to whoever moved, and leaves whoever is not named any more.
    func setPeers(_ addresses: [PeerAddress]) {
        loop.preconditionInEventLoop()
        guard !isClosed else { return }
        let wanted = addresses.filter { $0.id != identity.member }
        for link in peers where !wanted.contains(link.address) {
            // One that moved is elsewhere from now on; what is on the way to its old address is of no use.
            if wanted.contains(where: { $0.id == link.address.id }) {
                drop(link)
                post([.peerUnreachable(link.address.id)])
            } else {
                retire(link)
            }
        }
        for address in wanted {
            if let link = peers.first(where: { $0.address == address }) {
                link.isRetired = false
                continue
            }
            let link = PeerLink(address: address, transport: self)
            peers.append(link)
            link.connect()
        }
    }

    private func retire(_ link: PeerLink) {
        guard !link.isRetired else { return }
        link.isRetired = true
        let this = UncheckedBox((self, link))
        loop.scheduleTask(in: PeerTransport.farewell) { if this.value.1.isRetired { this.value.0.drop(this.value.1) } }
    }

    private func drop(_ link: PeerLink) {
        guard peers.contains(where: { $0 === link }) else { return }
        peers.removeAll { $0 === link }
        link.end()
    }

    func address(of peer: MemberID) -> PeerAddress? { peers.first { $0.address.id == peer }?.address }

    /// Sends a batch: one write a peer.
    func send(_ messages: [PeerMessage]) {
        guard !isClosed else { return }
        for message in messages {
            if let link = peers.first(where: { $0.address.id == message.to }), link.channel != nil || !link.isRetired {
                link.append(message)
            } else if let channel = inboundOfPeer[message.to]?.last, !links.isCut(from: identity.member, to: message.to) {
                var frame = ByteWriter()
                PeerTransport.encode([message], cluster: identity.cluster, from: identity.member, to: message.to, into: &frame)
                channel.writeAndFlush(channel.allocator.buffer(bytes: frame.bytes), promise: nil)
            }
        }
        for link in peers { link.flush() }
    }

    func setPaused(_ paused: Bool) {
        isPaused = paused
        for channel in listeners { _ = channel.setOption(.autoRead, value: !paused) }
        for channel in inbound.values { _ = channel.setOption(.autoRead, value: !paused) }
    }

    /// Abruptly: connections are reset, what was written but not sent is lost.
    func close(abruptly: Bool) -> EventLoopFuture<Void> {
        isClosed = true
        var closes = listeners.map { $0.close() }
        for link in peers { link.dropHeld() }
        for channel in Array(inbound.values) + peers.compactMap(\.channel) {
            if abruptly { resetOnClose(channel) }
            closes.append(abruptly ? closeTransport(channel) : channel.close())
        }
        listeners = []
        peers = []
        return EventLoopFuture.andAllComplete(closes, on: loop)
    }

    /// One frame of these messages.
    fileprivate static func encode(_ messages: [PeerMessage], cluster: ClusterID, from: MemberID, to: MemberID, into writer: inout ByteWriter) {
        PeerFrame(kind: .messages, cluster: cluster, from: from, to: to).write(into: &writer) { writer in
            writer.writeVarint(UInt64(messages.count))
            for message in messages {
                let at = writer.bytes.count
                writer.write(0 as UInt32)
                message.encodeBody(into: &writer)
                let length = UInt32(writer.bytes.count - at - 4)
                writer.bytes.withUnsafeMutableBytes { $0.storeBytes(of: length.littleEndian, toByteOffset: at, as: UInt32.self) }
            }
        }
    }

    fileprivate static func decode(_ payload: UnsafeRawBufferPointer, _ frame: PeerFrame, into events: inout [ReplicaEvent]) throws(PeerFrameFault) {
        do throws(DecodingFault) {
            var reader = ByteReader(payload)
            let count = try reader.readVarint()
            for _ in 0..<count {
                let length = Int(try reader.read(UInt32.self))
                guard length <= reader.remaining else { throw .truncated }
                var body = ByteReader(payload, offset: reader.offset, count: length)
                reader.offset += length
                events.append(.peer(try PeerMessage.decodeBody(&body, from: frame.from, to: frame.to)))
            }
        } catch { throw .decoding(error) }
    }

    // MARK: From the connections

    fileprivate func received(_ events: [ReplicaEvent]) { if !isClosed { post(events) } }
    fileprivate func opened(_ channel: any Channel, from peer: MemberID) {
        inboundOfPeer[peer, default: []].append(channel)
        peers.first { $0.address.id == peer }?.incomingOpened()
    }
    fileprivate func closed(_ channel: any Channel, from peer: MemberID?) {
        inbound.removeValue(forKey: ObjectIdentifier(channel))
        guard let peer else { return }
        inboundOfPeer[peer]?.removeAll { $0 === channel }
        if inboundOfPeer[peer]?.isEmpty == true { inboundOfPeer[peer] = nil }
        peers.first { $0.address.id == peer }?.incomingClosed()
    }
    fileprivate func incomingCount(_ peer: MemberID) -> Int { inboundOfPeer[peer]?.count ?? 0 }
    fileprivate func found(_ peer: MemberID) { if !isClosed { note(.peerFound(peer)) } }
    fileprivate func lost(_ peer: MemberID) {
        // Over a cut link no word of the connection's end would come either.
        guard !isClosed, !links.isCut(from: peer, to: identity.member) else { return }
        note(.peerLost(peer))
        post([.peerUnreachable(peer)])
    }
    /// Not while the link is cut: across a broken network nothing would be learned either.
    fileprivate func gone(_ peer: MemberID) {
        guard !isClosed, !links.isCut(from: identity.member, to: peer), !links.isCut(from: peer, to: identity.member) else { return }
        post([.peerGone(peer)])
    }
    fileprivate var mayConnect: Bool { !isClosed }
    /// A peer that cannot be reached for want of the right certificate stays so until somebody reads of it.
    fileprivate func noteTLS(_ address: PeerAddress?, _ reason: String) {
        let url = address.map { " \($0.id) at \(NodeURL(scheme: "https", host: $0.host, port: $0.port))" } ?? ""
        rejections.note("no TLS connection to peer\(url)", remote: nil, reason)
    }
    fileprivate func makeIntake(_ channel: any Channel, from peer: MemberID) -> SnapshotIntake { intake(channel, peer) }
}

/// Makes the receiver of a snapshot that a peer begins to stream on a connection.
typealias SnapshotIntakeFactory = (any Channel, MemberID) -> SnapshotIntake

/// Makes the next close a reset: the peer learns of it at once and nothing more is delivered.
func resetOnClose(_ channel: any Channel) {
    (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenFailure { _ in }
}

/// The outgoing connection to one peer, and what is known of the peer's life.
///
/// The peer is gone when nothing is left of its connections, neither the one to it nor those from it, and a new one is refused at once. A
/// connection that merely broke is made again; a host that does not answer refuses nothing. Everything it sent was read before its connections
/// ended, so no message of it comes after the news; should one come all the same, the news is repeated with each attempt.
private final class PeerLink {
    let address: PeerAddress
    private unowned let transport: PeerTransport
    private(set) var channel: (any Channel)?
    private var isConnecting = false
    private var retryDelay = PeerTransport.firstRetryDelay
    private var retry: Scheduled<Void>?
    private var connectedAt = NIODeadline.now()
    /// Open connections on which the peer sends.
    private var incoming = 0
    /// The peer is no member any more. The link lives a little longer, but a connection that ends is not made again.
    var isRetired = false
    private var hasEnded = false
    /// It showed life once: one that was never there is not gone.
    private var wasSeen = false
    private var messages: [PeerMessage] = []
    private var waiting = ByteWriter()
    private var pendingBytes = 0
    private let counters: PeerCounters
    /// Frames that a link fault holds back.
    private var line = DelayLine<[UInt8]>()
    private var lineTimer: Scheduled<Void>?

    init(address: PeerAddress, transport: PeerTransport) {
        self.address = address
        self.transport = transport
        counters = transport.metrics.peer(address.id)
        // It may have been heard before it was known.
        incoming = transport.incomingCount(address.id)
        wasSeen = incoming > 0
    }

    func connect() {
        guard transport.mayConnect, !hasEnded, !isRetired, channel == nil, !isConnecting else { return }
        isConnecting = true
        retry?.cancel()
        retry = nil
        // Held until the attempt has ended and the connection is closed: both may come after the node's own end.
        let transport = transport
        let this = UncheckedBox(self)
        transport.dialer.connect(host: address.host, port: address.port, isTLS: address.isTLS, on: transport.loop, timeout: PeerTransport.connectTimeout) { channel in
            try channel.pipeline.syncOperations.addHandler(PeerSender(transport, peer: this.value.address.id) { withExtendedLifetime(transport) { this.value.disconnected() } })
        }.whenComplete { result in withExtendedLifetime(transport) { this.value.connected(result) } }
    }

    private func connected(_ result: Result<any Channel, any Error>) {
        isConnecting = false
        switch result {
        case .success(let channel):
            guard transport.mayConnect, !hasEnded else { return channel.close(promise: nil) }
            self.channel = channel
            connectedAt = .now()
            wasSeen = true
            transport.found(address.id)
            if !waiting.bytes.isEmpty { write(takeWaiting()) }
        case .failure(let error):
            if !waiting.bytes.isEmpty { counters.sendFailures.add(1, ordering: .relaxed) }
            waiting.bytes.removeAll()
            if wasSeen && incoming == 0 && PeerLink.isRefusal(error) { transport.gone(address.id) }
            if error is TLSFault || error is NodeError { transport.noteTLS(address, "\(error)") }
            retryLater()
        }
    }

    private func disconnected() {
        guard channel != nil else { return }
        channel = nil
        pendingBytes = 0
        dropHeld()
        guard !hasEnded, !isRetired else { return }
        transport.lost(address.id)
        if NIODeadline.now() - connectedAt >= PeerTransport.settledAfter {
            retryDelay = PeerTransport.firstRetryDelay
            connect()
        } else {
            retryLater()
        }
    }

    /// Nothing is sent to the peer any more.
    func end() {
        hasEnded = true
        retry?.cancel()
        retry = nil
        dropHeld()
        waiting.bytes.removeAll()
        messages.removeAll()
        channel?.close(promise: nil)
    }

    /// The first frame came on a connection from the peer.
    func incomingOpened() {
        incoming += 1
        wasSeen = true
    }

    func incomingClosed() {
        incoming -= 1
        // Gone, or only this connection? The outgoing one tells by ending too; without one, an attempt does.
        if incoming == 0 { connect() }
    }

    private static func isRefusal(_ error: any Error) -> Bool {
        if let error = error as? IOError { return error.errnoCode == ECONNREFUSED }
        guard let error = error as? NIOConnectionError, !error.connectionErrors.isEmpty else { return false }
        return error.connectionErrors.allSatisfy { ($0.error as? IOError)?.errnoCode == ECONNREFUSED }
    }

    private func retryLater() {
        guard transport.mayConnect else { return }
        let this = UncheckedBox(self)
        let transport = transport
        retry = transport.loop.scheduleTask(in: retryDelay) {
            _ = transport
            this.value.connect()
        }
        retryDelay = min(retryDelay * 2, PeerTransport.maxRetryDelay)
    }

    func append(_ message: PeerMessage) { messages.append(message) }

    func flush() {
        guard !messages.isEmpty else { return }
        defer { messages.removeAll(keepingCapacity: true) }
        if let treatment = transport.links.treatment(from: transport.identity.member, to: address.id) {
            worsen(treatment)
            if messages.isEmpty { return }
            if treatment.takesTime { return hold() }
        }
        // What was held back goes first.
        if !line.isEmpty { linkChanged() }
        guard channel != nil || waiting.bytes.count < PeerTransport.maxWaitingBytes, pendingBytes < PeerTransport.maxPendingBytes else {
            counters.sendFailures.add(UInt64(messages.count), ordering: .relaxed)
            return
        }
        encode(into: &waiting)
        if channel != nil { write(takeWaiting()) }
    }

    /// One frame of all messages that wait.
    private func encode(into writer: inout ByteWriter) {
        PeerTransport.encode(messages, cluster: transport.identity.cluster, from: transport.identity.member, to: address.id, into: &writer)
    }

    // MARK: Link faults

    /// Loses and doubles messages.
    private func worsen(_ treatment: LinkTreatment) {
        guard treatment.isCut || treatment.lossShare > 0 || treatment.duplicateShare > 0 else { return }
        messages = messages.flatMap { [PeerMessage](repeating: $0, count: treatment.copies(using: &transport.generator)) }
    }

    /// Puts what waits into the line as one frame.
    private func hold() {
        var frame = ByteWriter()
        encode(into: &frame)
        let now = PeerLink.now()
        followTreatment(at: now)
        if line.put(frame.bytes, bytes: frame.bytes.count, at: now, using: &transport.generator), lineTimer == nil { armLine() }
    }

    private static func now() -> Int64 { Int64(NIODeadline.now().uptimeNanoseconds) }

    private func followTreatment(at now: Int64) {
        let treatment = transport.links.treatment(from: transport.identity.member, to: address.id) ?? LinkTreatment()
        line.change(to: treatment, at: now, using: &transport.generator)
        if treatment.isCut { waiting.bytes.removeAll() }
    }

    func linkChanged() {
        followTreatment(at: PeerLink.now())
        release()
    }

    func dropHeld() {
        line.removeAll()
        lineTimer?.cancel()
        lineTimer = nil
    }

    /// Sends what is due.
    private func release() {
        let now = PeerLink.now()
        while let bytes = line.take(at: now) {
            if channel != nil {
                if pendingBytes < PeerTransport.maxPendingBytes { write(bytes) }
            } else if waiting.bytes.count < PeerTransport.maxWaitingBytes {
                waiting.bytes += bytes
            }
        }
        armLine()
    }

    private func armLine() {
        lineTimer?.cancel()
        lineTimer = nil
        guard let due = line.nextDue, transport.mayConnect else { return }
        let this = UncheckedBox(self)
        let transport = transport
        lineTimer = transport.loop.scheduleTask(deadline: .uptimeNanoseconds(UInt64(max(0, due)))) {
            _ = transport
            this.value.lineTimer = nil
            this.value.release()
        }
    }

    private func takeWaiting() -> [UInt8] {
        let bytes = waiting.bytes
        waiting.bytes = []
        waiting.bytes.reserveCapacity(4096)
        return bytes
    }

    private func write(_ bytes: [UInt8]) {
        guard let channel else { return }
        let count = bytes.count
        pendingBytes += count
        counters.sentBytes.add(UInt64(count), ordering: .relaxed)
        let this = UncheckedBox(self)
        channel.writeAndFlush(channel.allocator.buffer(bytes: bytes)).whenComplete { _ in
            this.value.pendingBytes = max(0, this.value.pendingBytes - count)
        }
    }
}

/// Watches an outgoing connection. A peer sends on it only what it has to say to one that is no member any more.
private final class PeerSender: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let transport: PeerTransport
    private let peer: MemberID
    private let closed: () -> Void
    private var reader = PeerFrameReader()
    init(_ transport: PeerTransport, peer: MemberID, closed: @escaping () -> Void) {
        self.transport = transport
        self.peer = peer
        self.closed = closed
    }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        reader.append(unwrapInboundIn(data))
        var events: [ReplicaEvent] = []
        do throws(PeerFrameFault) {
            while try reader.next({ frame, payload throws(PeerFrameFault) in
                guard frame.cluster == transport.identity.cluster else { throw .wrongCluster(frame.cluster) }
                guard frame.to == transport.identity.member, frame.from == peer else { throw .wrongReceiver(frame.to) }
                if frame.kind == .messages, !transport.links.isCut(from: frame.from, to: frame.to) { try PeerTransport.decode(payload, frame, into: &events) }
            }) {}
        } catch {
            transport.logger.warning("peer connection refused", metadata: ["peer": "\(peer)", "reason": "\(error)"])
            context.close(promise: nil)
        }
        if !events.isEmpty { transport.received(events) }
    }
    func channelInactive(context: ChannelHandlerContext) { closed() }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // With TLS 1.3 the other side's verdict on our certificate comes after the handshake.
        if case NIOSSLError.handshakeFailed = error {
        } else if let error = error as? BoringSSLError { transport.noteTLS(transport.address(of: peer), TLSFault(error, side: .peer, accepting: false).description) }
        context.close(promise: nil)
    }
}

/// Reads an incoming connection.
private final class PeerReceiver: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let transport: PeerTransport
    private var reader = PeerFrameReader()
    private var intake: SnapshotIntake?
    private var peer: MemberID?
    private var http: PeerHTTPAnswer?
    private var isFirst = true
    private var counters: PeerCounters?
    /// Came before it was known from whom.
    private var uncountedBytes: UInt64 = 0

    init(transport: PeerTransport) { self.transport = transport }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        if isFirst {
            isFirst = false
            if !isSecured(context), beginsAsTLS(bytes) {
                transport.rejections.note("rejected connection on peer endpoint", remote: context.remoteAddress, "TLS to a plaintext port: the URL must begin with http://")
                return context.close(promise: nil)
            }
            if PeerHTTPAnswer.isHTTP(bytes) { http = PeerHTTPAnswer() }
        }
        if http != nil {
            if let answer = http!.take(bytes, identity: transport.identity, members: transport.memberList) {
                context.writeAndFlush(NIOAny(context.channel.allocator.buffer(bytes: answer))).assumeIsolated().whenComplete { _ in context.close(promise: nil) }
            }
            return
        }
        uncountedBytes += UInt64(bytes.readableBytes)
        reader.append(bytes)
        var events: [ReplicaEvent] = []
        do throws(PeerFrameFault) {
            while try reader.next({ frame, payload throws(PeerFrameFault) in
                guard frame.cluster == transport.identity.cluster else { throw .wrongCluster(frame.cluster) }
                guard frame.to == transport.identity.member else { throw .wrongReceiver(frame.to) }
                if peer == nil {
                    peer = frame.from
                    counters = transport.metrics.peer(frame.from)
                    transport.opened(context.channel, from: frame.from)
                }
                let delivers = !transport.links.isCut(from: frame.from, to: frame.to)
                switch frame.kind {
                case .messages:
                    if delivers { try PeerTransport.decode(payload, frame, into: &events) }
                case .snapshotBegin, .snapshotChunk, .snapshotEnd:
                    guard delivers else { return context.close(promise: nil) }
                    if intake == nil { intake = transport.makeIntake(context.channel, from: frame.from) }
                    if let kind = frame.kind.snapshotPiece { intake!.take(kind, payload) }
                case .snapshotAccepted: break
                }
            }) {}
        } catch {
            transport.logger.warning("peer connection refused", metadata: ["peer": "\(context.remoteAddress?.description ?? "?")", "reason": "\(error)"])
            context.close(promise: nil)
        }
        if let counters {
            counters.receivedBytes.add(uncountedBytes, ordering: .relaxed)
            uncountedBytes = 0
        }
        if !events.isEmpty { transport.received(events) }
    }

    private func isSecured(_ context: ChannelHandlerContext) -> Bool { (try? context.pipeline.syncOperations.context(handlerType: TLSGate.self)) != nil }

    func channelInactive(context: ChannelHandlerContext) {
        intake?.abandon()
        transport.closed(context.channel, from: peer)
        context.fireChannelInactive()
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
