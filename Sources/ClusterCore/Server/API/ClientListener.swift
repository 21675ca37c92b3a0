import Base
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Replica
import Synchronization
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What a port serves.
public enum ClientSurface: Sendable {
    /// gRPC and the HTTP endpoints.
    case all
    /// gRPC alone: what `--listen-client-urls` serves beside `--listen-client-http-urls`.
    case calls
    /// The HTTP endpoints alone: `--listen-client-http-urls`.
    case http
    /// Of those only metrics and health: `--listen-metrics-urls`.
    case metrics
}

/// A port on which a member serves clients: gRPC and HTTP endpoints side by side. Thread-safe.
public final class ClientListener: Sendable {
    private let server: any Channel
    private let loops: [ClientLoop]
    private let numbers: LoopNumbers.Lease
    /// The bound TCP port, also when 0 was asked for.
    public let boundPort: Int

    /// Binds and serves. Connections are spread over the loops of `group`.
    /// - Parameter tls: nil: plaintext.
    /// - Parameter sharesPort: other sockets that allow it too may listen there.
    /// - Parameter surface: what it serves.
    /// - Parameter access: who may use the HTTP endpoints.
    /// - Parameter counting: the listeners whose calls its metrics count besides its own.
    /// - Throws: NIO's `IOError` when the port cannot be bound (`EADDRINUSE`: somebody else has it).
    public static func start(port: any ReplicaPort, group: any EventLoopGroup, host: String, tcpPort: Int, tls: TLSPort? = nil, sharesPort: Bool = false,
                             bounds: ClientBounds = ClientBounds(), auth: AuthDesk = AuthDesk(), surface: ClientSurface = .all, access: HTTPAccess = HTTPAccess(),
                             counting: [ClientListener] = [], logger: Logger) async throws -> ClientListener {
        var eventLoops: [any EventLoop] = []
        for eventLoop in group.makeIterator() { eventLoops.append(eventLoop) }
        let numbers = LoopNumbers.take(eventLoops.count, of: port)
        let budget = AnswerBudget(limit: bounds.maxTotalResponseBytes)
        let partialRequests = PartialRequests(limit: bounds.maxTotalPartialRequestBytes)
        let loops = zip(eventLoops, numbers.numbers).map {
            ClientLoop(number: $1, eventLoop: $0, port: port, bounds: bounds, budget: budget, partialRequests: partialRequests, auth: auth, logger: logger)
        }
        let connections = ConnectionCount(limit: bounds.maxConnections)
        let rejections = RejectionLog(logger)
        let acceptors = tls.map { tls in loops.map { TLSAcceptor(tls, loop: $0.eventLoop, rejections: rejections) } }
        for loop in loops {
            // Before any connection exists, so nothing reads it meanwhile.
            loop.surface = surface
            loop.access = access
            loop.rejections = rejections
            loop.siblings = (surface == .metrics ? [] : loops) + counting.flatMap(\.loops)
            port.attach(loop)
        }
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.socketOption(.so_reuseport), value: sharesPort ? 1 : 0)
            .serverChannelInitializer(AcceptPause.add(logger))
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .noticingLostHosts()
            .childChannelOption(.writeBufferWaterMark, value: .init(low: bounds.writeChunkBytes / 2, high: bounds.writeChunkBytes * 2))
            .childChannelInitializer { channel in
                guard let index = loops.firstIndex(where: { $0.eventLoop === channel.eventLoop }), !loops[index].isDraining,
                      connections.enter() else {
                    return channel.eventLoop.makeFailedFuture(ConnectionRefused())
                }
                channel.closeFuture.whenComplete { _ in connections.leave() }
                return loops[index].adopt(channel, through: acceptors?[index], rejections: rejections)
            }
        do {
            // Go's listeners take IPv4 for "localhost", and so does everything that is told to connect there.
            let server = try await bootstrap.bind(host: host == "localhost" ? "127.0.0.1" : host, port: tcpPort).get()
            return ClientListener(server: server, loops: loops, numbers: numbers)
        } catch {
            for loop in loops { try? await loop.eventLoop.submit { loop.retire() }.get() }
            numbers.giveBack()
            throw error
        }
    }

    private init(server: any Channel, loops: [ClientLoop], numbers: LoopNumbers.Lease) {
        self.server = server
        self.loops = loops
        self.numbers = numbers
        boundPort = server.localAddress?.port ?? 0
    }

    /// Takes no new connections or calls, lets running calls finish for up to `deadline`, then closes.
    public func close(within deadline: TimeSpan = .seconds(2)) async {
        try? await server.close().get()
        let drained = loops.map { loop in
            loop.eventLoop.flatSubmit {
                let timer = loop.eventLoop.scheduleTask(in: .nanoseconds(deadline.nanoseconds)) { _ = loop.closeAll(abruptly: false) }
                return loop.drain().always { _ in timer.cancel() }
            }
        }
        for future in drained { try? await future.get() }
        for loop in loops { try? await loop.eventLoop.submit { loop.retire() }.get() }
        numbers.giveBack()
    }

    /// What SIGKILL does to a process's sockets: closed at once, connections reset, nothing flushed. The future completes when
    /// the port is free.
    @discardableResult
    public func abort() -> EventLoopFuture<Void> {
        let numbers = numbers
        var ends = [server.close().recover { _ in }]
        for loop in loops {
            ends.append(loop.eventLoop.flatSubmit { loop.closeAll(abruptly: true) }.flatMap { loop.eventLoop.submit { loop.retire() } })
        }
        return EventLoopFuture.andAllComplete(ends, on: server.eventLoop).always { _ in numbers.giveBack() }
    }

    /// Stands still as a process under SIGSTOP: the kernel still takes connections and bytes, nothing reads or answers them.
    /// The future completes when it is in force.
    @discardableResult
    public func setPaused(_ paused: Bool) -> EventLoopFuture<Void> {
        var steps = [server.setOption(.autoRead, value: !paused)]
        for loop in loops { steps.append(loop.eventLoop.submit { loop.setPaused(paused) }) }
        return EventLoopFuture.andAllComplete(steps, on: server.eventLoop)
    }
}

/// The connection is closed because the listener has as many as it may, or is ending.
struct ConnectionRefused: Error {}

/// Connections of all loops of a listener, within those of all listeners of the process.
private final class ConnectionCount: Sendable {
    private static let all = Atomic<Int>(0)
    private let count = Atomic<Int>(0)
    private let limit: Int
    private let limitOfAll = DescriptorLimit.connections

    init(limit: Int) { self.limit = limit }

    func enter() -> Bool {
        let isWithin = count.add(1, ordering: .relaxed).newValue <= limit
        if ConnectionCount.all.add(1, ordering: .relaxed).newValue <= limitOfAll, isWithin { return true }
        leave()
        return false
    }
    func leave() {
        count.subtract(1, ordering: .relaxed)
        ConnectionCount.all.subtract(1, ordering: .relaxed)
    }
}

extension ServerBootstrap {
    /// The kernel finds out about hosts that are gone, with etcd's times instead of its own two hours.
    fileprivate func noticingLostHosts() -> ServerBootstrap {
        let bootstrap = childChannelOption(.socketOption(.so_keepalive), value: 1)
        #if os(Linux)
        return bootstrap.childChannelOption(.tcpOption(.init(rawValue: TCP_KEEPIDLE)), value: 30).childChannelOption(.tcpOption(.init(rawValue: TCP_KEEPINTVL)), value: 30)
        #else
        return bootstrap
        #endif
    }
}

/// Numbers for client loops, unique among all listeners of a member.
enum LoopNumbers {
    private static let used = NIOLockedValueBox<[ObjectIdentifier: Set<UInt8>]>([:])

    struct Lease: Sendable {
        let numbers: [UInt8]
        fileprivate let owner: ObjectIdentifier

        func giveBack() {
            used.withLockedValue { used in
                used[owner]?.subtract(numbers)
                if used[owner]?.isEmpty ?? false { used[owner] = nil }
            }
        }
    }

    static func take(_ count: Int, of port: any ReplicaPort) -> Lease {
        let owner = ObjectIdentifier(port)
        return used.withLockedValue { used in
            let taken = used[owner] ?? []
            let free = (0...UInt8.max).filter { !taken.contains($0) }.prefix(count)
            precondition(free.count == count, "more than 256 client loops of one member")
            used[owner] = taken.union(free)
            return Lease(numbers: Array(free), owner: owner)
        }
    }
}
