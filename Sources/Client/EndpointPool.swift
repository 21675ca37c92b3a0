import Base
import GRPC
import Logging
import NIOCore
import NIOPosix
import NIOSSL

/// What a client knows about one of its endpoints.
public struct EndpointState: Sendable, Hashable {
    public enum Phase: Sendable, Hashable {
        /// No connection and no reason to make one.
        case idle
        case connecting
        case ready
        /// The last attempt failed; the next one follows by itself when a call needs it.
        case failed(String)
    }
    public var endpoint: Endpoint
    public var phase: Phase
    /// The latest unary call's time from sending to answer.
    public var lastLatency: TimeSpan?
    /// Moving average of that (an eighth of each new value).
    public var averageLatency: TimeSpan?
    public var openCalls: Int
}

/// The client's connections, one per endpoint. Confined to the client's loop.
///
/// Connections are made when a call needs one and none is ready. After a failure an endpoint rests for a doubling time;
/// a call that waits goes to whichever endpoint is ready first.
final class EndpointPool {
    /// Connection state of one endpoint.
    private enum Link {
        case idle
        case connecting(ClientConnection?)
        case ready(ClientConnection)
        case resting(until: NIODeadline, reason: String)
    }

    private final class Slot {
        let endpoint: Endpoint
        let isTLS: Bool
        var link = Link.idle
        /// Failures since the last success; sets the rest.
        var failures = 0
        var lastLatency: TimeSpan?
        var averageLatency: TimeSpan?
        /// Callers that want this endpoint and no other.
        var waiters: [Waiter] = []
        init(endpoint: Endpoint, isTLS: Bool) {
            self.endpoint = endpoint
            self.isTLS = isTLS
        }
    }

    /// A caller that waits for a connection; called at most once.
    final class Waiter {
        var answer: ((Result<ClientConnection, EtcdError>) -> Void)?
        /// Endpoints whose failure this waiter has seen.
        fileprivate var failed: Set<Int> = []
        fileprivate var reasons: [String] = []
        init(_ answer: @escaping (Result<ClientConnection, EtcdError>) -> Void) { self.answer = answer }
        func cancel() { answer = nil }
        fileprivate func resolve(_ result: Result<ClientConnection, EtcdError>) {
            let answer = self.answer
            self.answer = nil
            answer?(result)
        }
    }

    private let loop: any EventLoop
    private let configuration: ClientConfiguration
    private let tlsContext: NIOSSLContext?
    private var slots: [Slot] = []
    /// Callers that take any endpoint.
    private var waiters: [Waiter] = []
    /// Where the next call goes first.
    private var preferred = 0
    private(set) var isClosed = false

    init(loop: any EventLoop, configuration: ClientConfiguration, tlsContext: NIOSSLContext?) {
        self.loop = loop
        self.configuration = configuration
        self.tlsContext = tlsContext
        for endpoint in configuration.endpoints { _ = slot(endpoint) }
        memberCount = slots.count
    }

    private func slot(_ endpoint: Endpoint) -> Int {
        if let known = slots.firstIndex(where: { $0.endpoint == endpoint }) { return known }
        slots.append(Slot(endpoint: endpoint, isTLS: endpoint.isTLS ?? (configuration.tls != nil)))
        return slots.count - 1
    }

    /// Endpoints that unpinned calls use come first; others were named by pinned calls only.
    private var memberCount = 0
    private var members: Range<Int> { 0..<memberCount }

    // MARK: Getting a connection

    /// A ready connection right now, if there is one.
    func ready(_ endpoint: Endpoint?) -> ClientConnection? {
        if let endpoint {
            if case .ready(let connection) = slots[slot(endpoint)].link, connection.takesCalls { return connection }
            return nil
        }
        let count = members.count
        for step in 0..<count {
            let index = (preferred + step) % count
            if case .ready(let connection) = slots[index].link, connection.takesCalls {
                preferred = configuration.balancing == .roundRobin ? (index + 1) % count : index
                return connection
            }
        }
        return nil
    }

    /// Calls `answer` with a connection, at once or later; with an error when every endpoint has failed.
    func connection(_ endpoint: Endpoint?, _ answer: @escaping (Result<ClientConnection, EtcdError>) -> Void) -> Waiter {
        let waiter = Waiter(answer)
        if isClosed {
            waiter.resolve(.failure(.closed))
        } else if let connection = ready(endpoint) {
            waiter.resolve(.success(connection))
        } else if let endpoint {
            let index = slot(endpoint)
            slots[index].waiters.append(waiter)
            // A pinned call is a question about this endpoint: it tries at once, whatever the rest.
            connect(index, evenIfResting: true)
        } else if members.isEmpty {
            waiter.resolve(.failure(.configuration("no endpoints")))
        } else {
            waiters.append(waiter)
            for index in members { connect(index, evenIfResting: false) }
            for index in members {
                if case .resting(_, let reason) = slots[index].link { noteFailure(index, reason, of: waiter) }
            }
        }
        return waiter
    }

    /// The endpoint's member cannot serve: the next call tries another one first.
    func avoid(_ endpoint: Endpoint) {
        guard let index = slots.firstIndex(where: { $0.endpoint == endpoint }), members.contains(index), preferred == index else { return }
        preferred = (index + 1) % members.count
        // Have the alternative at hand.
        connect(preferred, evenIfResting: false)
    }

    func noteLatency(_ endpoint: Endpoint, _ span: TimeSpan) {
        guard let index = slots.firstIndex(where: { $0.endpoint == endpoint }) else { return }
        let slot = slots[index]
        slot.lastLatency = span
        slot.averageLatency = slot.averageLatency.map { TimeSpan(nanoseconds: $0.nanoseconds + (span.nanoseconds - $0.nanoseconds) / 8) } ?? span
    }

    func states() -> [EndpointState] {
        slots.map { slot in
            let phase: EndpointState.Phase = switch slot.link {
            case .idle: .idle
            case .connecting: .connecting
            case .ready: .ready
            case .resting(_, let reason): .failed(reason)
            }
            var calls = 0
            if case .ready(let connection) = slot.link { calls = connection.openCalls }
            return EndpointState(endpoint: slot.endpoint, phase: phase, lastLatency: slot.lastLatency,
                                 averageLatency: slot.averageLatency, openCalls: calls)
        }
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        let waiting = waiters + slots.flatMap(\.waiters)
        waiters.removeAll()
        for slot in slots {
            slot.waiters.removeAll()
            let link = slot.link
            slot.link = .idle
            switch link {
            case .ready(let connection): connection.close("client closed")
            case .connecting(let connection): connection?.close("client closed")
            case .idle, .resting: break
            }
        }
        for waiter in waiting { waiter.resolve(.failure(.closed)) }
    }

    // MARK: Connecting

    private func connect(_ index: Int, evenIfResting: Bool) {
        let slot = slots[index]
        switch slot.link {
        case .connecting, .ready: return
        case .resting(let until, _): guard evenIfResting || NIODeadline.now() >= until else { return }
        case .idle: break
        }
        slot.link = .connecting(nil)
        let connection = ClientConnection(endpoint: slot.endpoint, configuration: configuration, isTLS: slot.isTLS)
        let bound = NIOLoopBound(connection, eventLoop: loop)
        let endpoint = slot.endpoint
        let context = slot.isTLS ? tlsContext : nil
        let serverName = configuration.tls?.serverName
        connection.onReady = { [weak self] in self?.becameReady(index, $0) }
        connection.onClosed = { [weak self] in self?.closed(index, $0, $1) }
        connection.onGoAway = { [weak self] in self?.saidGoodbye(index, $0) }
        slot.link = .connecting(connection)

        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(.nanoseconds(configuration.dialTimeout.nanoseconds))
            .channelOption(.socketOption(.tcp_nodelay), value: endpoint.isUnix ? 0 : 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let context {
                        try channel.pipeline.syncOperations.addHandler(
                            try NIOSSLClientHandler(context: context, serverHostname: endpoint.tlsName(override: serverName)))
                    }
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
        let connected = switch endpoint.address {
        case .tcp(let host, let port): bootstrap.connect(host: host, port: port)
        case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
        }
        connected.whenFailure { error in
            bound.value.close(describe(error))
        }
        // The handshakes have to be done in time as well.
        loop.scheduleTask(in: .nanoseconds(configuration.dialTimeout.nanoseconds)) {
            let connection = bound.value
            if !connection.isReady { connection.close("no answer within the dial timeout") }
        }
    }

    private func becameReady(_ index: Int, _ connection: ClientConnection) {
        let slot = slots[index]
        guard case .connecting(let current?) = slot.link, current === connection else { return }
        slot.link = .ready(connection)
        slot.failures = 0
        configuration.logger.debug("connected", metadata: ["endpoint": "\(slot.endpoint)"])
        let pinned = slot.waiters
        slot.waiters.removeAll()
        for waiter in pinned { waiter.resolve(.success(connection)) }
        guard members.contains(index) else { return }
        let any = waiters
        waiters.removeAll()
        if !any.isEmpty, ready(nil) == nil || configuration.balancing == .sticky { preferred = index }
        for waiter in any { waiter.resolve(.success(connection)) }
    }

    /// No new calls there; the running ones finish on the old connection.
    private func saidGoodbye(_ index: Int, _ connection: ClientConnection) {
        let slot = slots[index]
        if case .ready(let current) = slot.link, current === connection { slot.link = .idle }
    }

    private func closed(_ index: Int, _ connection: ClientConnection, _ reason: String) {
        let slot = slots[index]
        switch slot.link {
        case .ready(let current) where current === connection: break
        case .connecting(let current) where current === connection: break
        default: return
        }
        slot.failures += 1
        let shift = min(slot.failures - 1, 16)
        let rest = min(configuration.minimumBackoff * (1 << Int64(shift)), configuration.maximumBackoff)
        slot.link = .resting(until: .now() + .nanoseconds(rest.nanoseconds), reason: reason)
        configuration.logger.debug("connection lost", metadata: ["endpoint": "\(slot.endpoint)", "reason": "\(reason)"])
        let pinned = slot.waiters
        slot.waiters.removeAll()
        for waiter in pinned {
            waiter.resolve(.failure(.transport(endpoint: slot.endpoint.text, reason: reason, wasSent: false)))
        }
        guard members.contains(index) else { return }
        if preferred == index { preferred = (index + 1) % members.count }
        for waiter in waiters { noteFailure(index, reason, of: waiter) }
        waiters.removeAll { $0.answer == nil }
    }

    /// A waiter gives up when every endpoint has failed while it waited.
    private func noteFailure(_ index: Int, _ reason: String, of waiter: Waiter) {
        guard waiter.answer != nil, waiter.failed.insert(index).inserted else { return }
        waiter.reasons.append("\(slots[index].endpoint.text): \(reason)")
        guard waiter.failed.count == members.count else { return }
        let endpoint = slots[index].endpoint.text
        let text = waiter.reasons.count == 1 ? reason : "no endpoint answers (\(waiter.reasons.joined(separator: "; ")))"
        waiters.removeAll { $0 === waiter }
        waiter.resolve(.failure(.transport(endpoint: endpoint, reason: text, wasSent: false)))
    }
}

extension Endpoint {
    fileprivate var isUnix: Bool { if case .unix = address { true } else { false } }

    /// The name for SNI and verification; nil for an IP address, which is verified as such.
    fileprivate func tlsName(override: String?) -> String? {
        if let override { return override }
        guard case .tcp(let host, _) = address else { return nil }
        return (try? SocketAddress(ipAddress: host, port: 0)) == nil ? host : nil
    }
}
