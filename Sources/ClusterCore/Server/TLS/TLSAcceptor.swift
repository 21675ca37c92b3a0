import Auth
import Base
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// TLS of one listening port.
public struct TLSPort: Sendable {
    let material: TLSMaterial
    /// The same address is also an http:// one, as etcd allows: what does not begin as TLS is let through.
    var acceptsPlaintext = false
    /// Time for a handshake, from the connection on. (etcd)
    var handshakeTimeout = TimeSpan.seconds(10)
    /// Connections of one event loop that may be in their handshake. One more, and the oldest is closed: who means it is done in milliseconds, so
    /// half-open connections cost their sender a place, never the others. Each holds about 100 KiB at most.
    var maxHandshakes = 512
}

/// Makes TLS connections of those that one event loop accepts. Confined to the loop.
final class TLSAcceptor: @unchecked Sendable {
    // @unchecked: confined to `loop`, which the entry point asserts.
    /// Goes on with a connection once it is known who is there; adds its handlers at the end of the pipeline.
    typealias Admission = (_ channel: any Channel, _ identity: ClientIdentity?) throws -> Void

    fileprivate let port: TLSPort
    private let loop: any EventLoop
    private let rejections: RejectionLog
    /// Handshakes under way, by number; those before `oldest` are over.
    private var gates: [UInt64: TLSGate] = [:]
    private var oldest: UInt64 = 0
    private var next: UInt64 = 0

    init(_ port: TLSPort, loop: any EventLoop, rejections: RejectionLog) {
        self.port = port
        self.loop = loop
        self.rejections = rejections
    }

    var handshakesUnderWay: Int { gates.count }

    /// For a channel's initializer: completes when the handshake may begin.
    func accept(_ channel: any Channel, _ admit: @escaping Admission) -> EventLoopFuture<Void> {
        loop.preconditionInEventLoop()
        let begin = UncheckedBox({ [self] (contexts: TLSMaterial.Contexts) throws -> Void in
            guard let context = contexts.server else { throw NodeError.configuration("no certificate for \(port.material.side) TLS") }
            let gate = TLSGate(self, context, revoked: contexts.revoked, number: next, admit: admit)
            next += 1
            gates[gate.number] = gate
            makeRoom()
            do { try channel.pipeline.syncOperations.addHandler(gate, position: .first) } catch {
                settled(gate)
                throw error
            }
        })
        return port.material.current(on: loop).flatMapThrowing { try begin.value($0) }
    }

    private func makeRoom() {
        while gates.count > port.maxHandshakes {
            while gates[oldest] == nil { oldest += 1 }
            gates[oldest]!.reject("more than \(port.maxHandshakes) TLS handshakes are under way, and this is the oldest", isSilent: false)
        }
    }

    fileprivate func settled(_ gate: TLSGate) { gates[gate.number] = nil }

    fileprivate func note(_ channel: any Channel, _ reason: String) {
        rejections.note("rejected connection on \(port.material.side) endpoint", remote: channel.remoteAddress, reason)
    }
}

/// The first handler of an accepted connection: looks at its first byte, and stays, so that the connection can be cut beneath TLS.
final class TLSGate: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer

    /// A TLS record that carries a handshake.
    static let handshakeRecord: UInt8 = 22
    fileprivate let number: UInt64
    private let acceptor: TLSAcceptor
    private let sslContext: NIOSSLContext
    private let revoked: RevocationList?
    fileprivate let admit: TLSAcceptor.Admission
    private var context: ChannelHandlerContext?
    private var timer: Scheduled<Void>?
    private enum Phase { case waiting, handshake, over }
    private var phase = Phase.waiting
    /// The handshake failed and the other side is told why.
    private var isLingering = false
    private var isDeaf = false
    /// How long that may take.
    private static let farewell = TimeAmount.seconds(1)

    fileprivate init(_ acceptor: TLSAcceptor, _ sslContext: NIOSSLContext, revoked: RevocationList?, number: UInt64, admit: @escaping TLSAcceptor.Admission) {
        self.acceptor = acceptor
        self.sslContext = sslContext
        self.revoked = revoked
        self.number = number
        self.admit = admit
    }

    fileprivate var material: TLSMaterial { acceptor.port.material }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        let this = NIOLoopBound(self, eventLoop: context.eventLoop)
        let timeout = acceptor.port.handshakeTimeout
        timer = context.eventLoop.scheduleTask(in: .nanoseconds(timeout.nanoseconds)) {
            this.value.reject("no TLS handshake within \(timeout.milliseconds / 1_000) s", isSilent: false)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        settle()
        self.context = nil
    }

    func channelInactive(context: ChannelHandlerContext) {
        // One that comes and goes without a word is a probe of the port.
        if phase == .waiting { settle() }
        context.fireChannelInactive()
        settle()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard phase == .waiting else { return isDeaf ? () : context.fireChannelRead(data) }
        let bytes = unwrapInboundIn(data)
        guard let first = bytes.readableBytesView.first else { return }
        if first == TLSGate.handshakeRecord {
            phase = .handshake
            do {
                let handlers: [any ChannelHandler] = [TLSGate.sslHandler(sslContext, revoked), TLSHandshake(self)]
                try context.pipeline.syncOperations.addHandlers(handlers, position: .after(self))
            } catch { return reject("\(error)", isSilent: false) }
        } else if acceptor.port.acceptsPlaintext {
            settle()
            do { try admit(context.channel, nil) } catch { return context.close(promise: nil) }
        } else {
            return reject("\(TLSGate.describe(bytes)) to a TLS port: the URL must begin with https://", isSilent: false)
        }
        context.fireChannelRead(data)
    }

    /// What a connection seems to speak that does not begin as TLS does.
    static func describe(_ bytes: ByteBuffer) -> String {
        let start = bytes.readableBytesView.prefix(16)
        if start.starts(with: "PRI * HTTP/2".utf8) { return "plaintext HTTP/2 (gRPC)" }
        if ["GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC"].contains(where: { start.starts(with: $0.utf8) }) { return "plaintext HTTP" }
        return "plaintext"
    }

    /// The handshake has come to an end, one way or the other.
    fileprivate func settle() {
        guard phase != .over else { return }
        phase = .over
        timer?.cancel()
        timer = nil
        acceptor.settled(self)
    }

    /// Closes without an answer.
    /// - Parameter isSilent: the handshake itself has said why to the other side and closes.
    fileprivate func reject(_ reason: String, isSilent: Bool) {
        guard phase != .over, let context else { return settle() }
        settle()
        acceptor.note(context.channel, reason)
        if isSilent { isLingering = true } else { context.close(promise: nil) }
    }

    /// With TLS 1.3 a client believes in the connection and sends while it is being refused. Closed with bytes that nobody read, the connection would
    /// be reset, and the alert with the reason be lost with it.
    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        guard isLingering, mode == .all else { return context.close(mode: mode, promise: promise) }
        isLingering = false
        isDeaf = true
        context.close(mode: .output, promise: nil)
        let this = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: TLSGate.farewell) { this.value.close(promise: promise) }
    }

    private static func sslHandler(_ context: NIOSSLContext, _ revoked: RevocationList?) -> NIOSSLServerHandler {
        guard let revoked else { return NIOSSLServerHandler(context: context) }
        // The way to see the whole chain on top of the library's own verification; the newer ways replace that, or see the leaf only.
        return (RevocationCheck.self as any HandlerWithChain.Type).make(context, revoked)
    }
}

/// Reaches `RevocationCheck` without its warning.
private protocol HandlerWithChain {
    static func make(_ context: NIOSSLContext, _ revoked: RevocationList) -> NIOSSLServerHandler
}

private enum RevocationCheck: HandlerWithChain {
    @available(*, deprecated, message: "the library would like another callback")
    static func make(_ context: NIOSSLContext, _ revoked: RevocationList) -> NIOSSLServerHandler {
        // The initializer is declared as throwing and does not throw.
        try! NIOSSLServerHandler(context: context, verificationCallback: { verdict, certificate in
            revoked.contains(certificate.serialNumber) ? .failed : verdict
        })
    }
}

/// Sits behind TLS until the handshake is over; then looks at the certificate and lets the connection in.
private final class TLSHandshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let gate: TLSGate
    /// Came while a peer's names were looked up.
    private var held: [ByteBuffer] = []
    private var isHolding = false

    init(_ gate: TLSGate) { self.gate = gate }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .handshakeCompleted? = event as? TLSUserEvent else { return context.fireUserInboundEventTriggered(event) }
        do {
            let names = try context.pipeline.syncOperations.nioSSL_peerCertificate().map { try CertificateNames($0) }
            check(names, context)
        } catch {
            refuse("its certificate cannot be read: \(error)", context)
        }
    }

    private func check(_ names: CertificateNames?, _ context: ChannelHandlerContext) {
        let (options, side) = (gate.material.options, gate.material.side)
        guard let names, options.demandsCertificate, !gate.material.isSelfSigned else { return letIn(nil, context) }
        // etcd's words, and what they hide.
        if !options.allowedCommonNames.isEmpty, !options.allowedCommonNames.contains(names.commonName) {
            return refuse("client certificate authentication failed: its CN \"\(names.commonName)\" is not in \(side.flag("cert-allowed-cn"))", context)
        }
        if !options.allowedHostnames.isEmpty, !options.allowedHostnames.contains(where: { names.isGood(for: $0) }) {
            return refuse("client certificate authentication failed: it is for none of the hosts in \(side.flag("cert-allowed-hostname"))", context)
        }
        guard side == .peer, !options.skipsAddressCheck, let address = context.remoteAddress?.ipAddress, !names.isGood(for: address),
              !(names.addresses.isEmpty && names.dnsNames.isEmpty) else { return letIn(names, context) }
        // The resolver may take its time: nothing is read meanwhile, and the handshake's time goes on.
        isHolding = true
        try? context.channel.syncOptions?.setOption(.autoRead, value: false)
        let this = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        NIOSingletons.posixBlockingThreadPool.runIfActive(eventLoop: context.eventLoop) { names.mismatch(withAddress: address) }.whenComplete { result in
            let (handshake, context) = this.value
            guard context.channel.isActive else { return }
            if case .success(let reason?) = result { return handshake.refuse(reason, context) }
            try? context.channel.syncOptions?.setOption(.autoRead, value: true)
            handshake.letIn(names, context)
        }
    }

    private func letIn(_ names: CertificateNames?, _ context: ChannelHandlerContext) {
        gate.settle()
        var identity: ClientIdentity?
        if gate.material.options.requiresClientCertificate, let name = names?.commonName, !name.isEmpty { identity = ClientIdentity(commonName: UserName(Array(name.utf8))) }
        do { try gate.admit(context.channel, identity) } catch { return context.close(promise: nil) }
        isHolding = false
        let bytes = held
        held = []
        for buffer in bytes { context.fireChannelRead(wrapInboundOut(buffer)) }
        if !bytes.isEmpty { context.fireChannelReadComplete() }
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    private func refuse(_ reason: String, _ context: ChannelHandlerContext) { gate.reject(reason, isSilent: false) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // At most what the socket had when reading was turned off.
        if isHolding { held.append(unwrapInboundIn(data)) } else { context.fireChannelRead(data) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // After a failed handshake TLS has told the other side why, and closes by itself.
        let isToldAlready = if case NIOSSLError.handshakeFailed = error { true } else { false }
        gate.reject(TLSFault(error, side: gate.material.side, accepting: true).description, isSilent: isToldAlready)
    }
}


/// Whether what was let in came over TLS: an address may be http:// and https:// at once. On its event loop.
func isSecured(_ channel: any Channel) -> Bool {
    (try? channel.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self)) != nil
}

/// Closes a connection as the end of its process would, without a word of TLS. On its event loop.
func closeTransport(_ channel: any Channel) -> EventLoopFuture<Void> {
    let pipeline = channel.pipeline.syncOperations
    guard let end = (try? pipeline.context(handlerType: TLSGate.self)) ?? (try? pipeline.context(handlerType: TLSDialEnd.self)) else { return channel.close() }
    let promise = channel.eventLoop.makePromise(of: Void.self)
    end.close(promise: promise)
    return promise.futureResult
}

/// The first handler of a dialled TLS connection.
final class TLSDialEnd: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
}

/// Whether a connection to a port without TLS begins with a TLS handshake: its record, a version, a ClientHello.
func beginsAsTLS(_ bytes: ByteBuffer) -> Bool {
    let view = bytes.readableBytesView
    guard view.count >= 3, view.first == TLSGate.handshakeRecord, view[view.startIndex + 1] == 3 else { return false }
    return view.count < 6 || view[view.startIndex + 5] == 1
}
