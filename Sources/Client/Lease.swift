import Base
import GRPC
import NIOCore
import Wire

public struct LeaseGrant: Hashable, Sendable {
    public var header: ResponseHeader
    public var id: LeaseID
    /// Seconds, perhaps more than asked for.
    public var ttlSeconds: Int64
}

public struct LeaseInfo: Hashable, Sendable {
    public var header: ResponseHeader
    public var id: LeaseID
    /// Seconds left; -1: there is no such lease.
    public var remainingSeconds: Int64
    public var grantedSeconds: Int64
    /// Attached keys, if asked for, in no particular order.
    public var keys: [[UInt8]]
}

/// The server renewed a lease.
public struct LeaseRenewal: Hashable, Sendable {
    public var header: ResponseHeader
    public var id: LeaseID
    public var ttlSeconds: Int64
}

extension EtcdClient {
    /// - Parameter id: `.none`: the server picks one.
    public func grantLease(ttlSeconds: Int64, id: LeaseID = .none, options: CallOptions = CallOptions()) async throws -> LeaseGrant {
        var request = PBLeaseGrantRequest()
        request.ttl = ttlSeconds
        request.id = id.rawValue
        let answer = try await call(.leaseGrant, request, PBLeaseGrantResponse.self, options)
        return LeaseGrant(header: ResponseHeader(answer.header), id: LeaseID(answer.id), ttlSeconds: answer.ttl)
    }

    /// Ends a lease and deletes its keys.
    @discardableResult
    public func revokeLease(_ id: LeaseID, options: CallOptions = CallOptions()) async throws -> ResponseHeader {
        var request = PBLeaseRevokeRequest()
        request.id = id.rawValue
        return ResponseHeader(try await call(.leaseRevoke, request, PBLeaseRevokeResponse.self, options).header)
    }

    public func lease(_ id: LeaseID, withKeys: Bool = false, options: CallOptions = CallOptions()) async throws -> LeaseInfo {
        var request = PBLeaseTimeToLiveRequest()
        request.id = id.rawValue
        request.keys = withKeys
        let answer = try await call(.leaseTimeToLive, request, PBLeaseTimeToLiveResponse.self, options)
        return LeaseInfo(header: ResponseHeader(answer.header), id: LeaseID(answer.id), remainingSeconds: answer.ttl,
                         grantedSeconds: answer.grantedTtl, keys: answer.keys.map { [UInt8]($0) })
    }

    public func leases(options: CallOptions = CallOptions()) async throws -> [LeaseID] {
        try await call(.leaseLeases, PBLeaseLeasesRequest(), PBLeaseLeasesResponse.self, options).leases.map { LeaseID($0.id) }
    }

    /// Renews a lease once. Throws `leaseExpired` when there is no such lease.
    public func keepLeaseAliveOnce(_ id: LeaseID, options: CallOptions = CallOptions()) async throws -> LeaseRenewal {
        let result = OneShot<LeaseRenewal>()
        let core = self.core
        let single = LeaseSingle(core: core, id: id, options: options, result: result)
        core.loop.execute { single.start() }
        return try await withTaskCancellationHandler {
            try await result.wait()
        } onCancel: {
            core.loop.execute { single.finish(.failure(CancellationError())) }
        }
    }

    /// Renews a lease every third of its time until the stream is cancelled or dropped, or its task is cancelled. The
    /// elements are the renewals (the latest few are kept for a slow reader; nobody has to read). Ends with `leaseExpired`
    /// when the lease is gone, or when no renewal succeeded for as long as the lease lasts.
    public func keepLeaseAlive(_ id: LeaseID) -> LeaseKeepAlive {
        let core = self.core
        let entry = LeaseKeeper.Entry(id: id, loop: core.loop) { entry in core.leases.remove(entry) }
        core.loop.execute { core.leases.add(entry) }
        return LeaseKeepAlive(handle: LeaseKeepAlive.Handle(entry: entry))
    }
}

/// The renewals of one lease. See `EtcdClient.keepLeaseAlive`.
public struct LeaseKeepAlive: AsyncSequence, Sendable {
    public typealias Element = LeaseRenewal
    fileprivate let handle: Handle

    fileprivate final class Handle: Sendable {
        let entry: LeaseKeeper.Entry
        init(entry: LeaseKeeper.Entry) { self.entry = entry }
        deinit { entry.buffer.abandon() }
    }

    public func makeAsyncIterator() -> Iterator { Iterator(handle: handle) }

    public struct Iterator: AsyncIteratorProtocol, Sendable {
        fileprivate let handle: Handle
        public mutating func next() async throws -> LeaseRenewal? { try await handle.entry.buffer.next() }
    }

    /// Stops renewing; the lease runs out by itself. A waiting reader gets nil.
    public func cancel() {
        handle.entry.buffer.finish()
        handle.entry.buffer.abandon()
    }
}

private func encodedKeepAlive(_ id: LeaseID) -> [UInt8] {
    var request = PBLeaseKeepAliveRequest()
    request.id = id.rawValue
    return request.encoded()
}

/// One renewal on a stream of its own. Confined to the loop.
private final class LeaseSingle: @unchecked Sendable {
    // Sendable because it is used on the core's loop only.
    private let core: ClientCore
    private let id: LeaseID
    private let options: CallOptions
    private let result: OneShot<LeaseRenewal>
    private var call: StreamCall?
    private var timer: Scheduled<Void>?
    private var isOver = false
    private var attempts = 0
    private var last: EtcdError?

    init(core: ClientCore, id: LeaseID, options: CallOptions, result: OneShot<LeaseRenewal>) {
        self.core = core
        self.id = id
        self.options = options
        self.result = result
    }

    func start() {
        let limit = options.timeout ?? core.configuration.requestTimeout
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        timer = core.loop.scheduleTask(in: .nanoseconds(limit.nanoseconds)) {
            let single = bound.value
            single.finish(.failure(EtcdError.deadlineExceeded(last: single.last?.description)))
        }
        attempt()
    }

    private func attempt() {
        guard !isOver else { return }
        attempts += 1
        let call = StreamCall(core: core, .leaseKeepAlive, options)
        self.call = call
        call.onOpen = { [id] in $0.send(encodedKeepAlive(id), endsStream: true) }
        call.onMessage = { [self] bytes in
            guard let answer = try? PBLeaseKeepAliveResponse(decoding: bytes) else {
                return finish(.failure(EtcdError.malformedResponse("lease renewal")))
            }
            guard answer.ttl > 0 else { return finish(.failure(EtcdError.leaseExpired(id))) }
            finish(.success(LeaseRenewal(header: ResponseHeader(answer.header), id: id, ttlSeconds: answer.ttl)))
        }
        call.onEnd = { [self] error in
            // A renewal may be repeated: try on, as with a read.
            switch error {
            case .service(let service) where service.code != .unavailable && !core.wantsNewToken(service): return finish(.failure(error!))
            case .closed?, .configuration?: return finish(.failure(error!))
            case .service(let service) where core.wantsNewToken(service): core.discardToken(call.usedToken)
            default: break
            }
            guard options.endpoint == nil || error == nil else { return finish(.failure(error!)) }
            last = error
            let bound = NIOLoopBound(self, eventLoop: core.loop)
            core.loop.scheduleTask(in: core.backoff(attempt: attempts)) { bound.value.attempt() }
        }
        call.start()
    }

    func finish(_ outcome: Result<LeaseRenewal, any Error>) {
        guard !isOver else { return }
        isOver = true
        timer?.cancel()
        call?.cancel()
        call = nil
        switch outcome {
        case .success(let value): result.succeed(value)
        case .failure(let error): result.fail(error)
        }
    }
}

/// Renews all the leases of a client over one stream. Confined to the client's loop.
final class LeaseKeeper {
    /// One lease that is kept. Confined to the loop, apart from `buffer`.
    final class Entry: @unchecked Sendable {
        // Sendable because tasks touch only `buffer`.
        let id: LeaseID
        private(set) var buffer: StreamBuffer<LeaseRenewal>!
        fileprivate var timer: Scheduled<Void>?
        /// When the lease is lost unless renewed; unknown before the first renewal.
        fileprivate var deadline = NIODeadline.distantFuture
        fileprivate var isRemoved = false

        init(id: LeaseID, loop: any EventLoop, onAbandoned: @escaping @Sendable (Entry) -> Void) {
            self.id = id
            buffer = StreamBuffer(limit: .max, onRoom: {}, onAbandoned: { [weak self] in
                loop.execute { [weak self] in if let self { onAbandoned(self) } }
            })
        }
    }

    /// A year. Servers may say anything, etcd's longest lease is of 285.
    static let maxSeconds: Int64 = 366 * 86_400

    private unowned let core: ClientCore
    private var entries: [LeaseID: [Entry]] = [:]
    private var call: StreamCall?
    private var isOpen = false
    private var reconnect: Scheduled<Void>?
    private var failures = 0

    init(core: ClientCore) { self.core = core }

    func add(_ entry: Entry) {
        guard !entry.isRemoved else { return }
        guard !core.isClosed else { return entry.buffer.finish(EtcdError.closed) }
        entries[entry.id, default: []].append(entry)
        if isOpen {
            call?.send(encodedKeepAlive(entry.id))
        } else if call == nil, reconnect == nil {
            connect()
        }
    }

    func remove(_ entry: Entry) {
        entry.isRemoved = true
        entry.timer?.cancel()
        guard var same = entries[entry.id] else { return }
        same.removeAll { $0 === entry }
        entries[entry.id] = same.isEmpty ? nil : same
        if entries.isEmpty { disconnect() }
    }

    func close() {
        let all = entries.keys.sorted().flatMap { entries[$0] ?? [] }
        entries.removeAll()
        disconnect()
        for entry in all { end(entry, EtcdError.closed) }
    }

    private func end(_ entry: Entry, _ error: any Error) {
        entry.isRemoved = true
        entry.timer?.cancel()
        entry.buffer.finish(error)
    }

    private func disconnect() {
        reconnect?.cancel()
        reconnect = nil
        call?.cancel()
        call = nil
        isOpen = false
    }

    private func connect() {
        let call = StreamCall(core: core, .leaseKeepAlive, CallOptions())
        self.call = call
        call.onOpen = { [unowned self] in
            isOpen = true
            for id in entries.keys.sorted() { $0.send(encodedKeepAlive(id)) }
        }
        call.onMessage = { [unowned self] in received($0) }
        call.onEnd = { [unowned self, unowned call] in ended($0, token: call.usedToken) }
        call.start()
    }

    private func ended(_ error: EtcdError?, token: MetadataField?) {
        call = nil
        isOpen = false
        failures += 1
        switch error {
        case .service(let service):
            if core.wantsNewToken(service) {
                core.discardToken(token)
            } else if service.code == .permissionDenied || service.code == .unimplemented || service.code == .unauthenticated
                        || service.code == .invalidArgument {
                let all = entries.keys.sorted().flatMap { entries[$0] ?? [] }
                entries.removeAll()
                for entry in all { end(entry, EtcdError.service(service)) }
                return
            }
        default: break
        }
        guard !entries.isEmpty, !core.isClosed else { return }
        // What ran out while nobody could be reached is lost.
        let now = NIODeadline.now()
        for id in entries.keys.sorted() where (entries[id] ?? []).contains(where: { $0.deadline <= now }) { expire(id) }
        guard !entries.isEmpty else { return }
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        reconnect = core.loop.scheduleTask(in: core.backoff(attempt: failures)) {
            bound.value.reconnect = nil
            bound.value.connect()
        }
    }

    private func expire(_ id: LeaseID) {
        for entry in entries.removeValue(forKey: id) ?? [] { end(entry, EtcdError.leaseExpired(id)) }
        if entries.isEmpty { disconnect() }
    }

    /// An answer of any server. Internal for tests.
    func received(_ message: UnsafeRawBufferPointer) {
        guard let answer = try? PBLeaseKeepAliveResponse(decoding: message) else { return }
        failures = 0
        let id = LeaseID(answer.id)
        guard let same = entries[id] else { return }
        guard answer.ttl > 0 else { return expire(id) }
        let renewal = LeaseRenewal(header: ResponseHeader(answer.header), id: id, ttlSeconds: answer.ttl)
        let now = NIODeadline.now()
        // A longer lease is renewed as if it lasted this long.
        let seconds = min(answer.ttl, LeaseKeeper.maxSeconds)
        for entry in same {
            entry.deadline = now + .seconds(seconds)
            entry.buffer.pushLatest(renewal, keeping: 16)
            schedule(entry, .milliseconds(max(seconds * 1_000 / 3, 100)))
        }
    }

    private func schedule(_ entry: Entry, _ delay: TimeAmount) {
        entry.timer?.cancel()
        let bound = NIOLoopBound((self, entry), eventLoop: core.loop)
        entry.timer = core.loop.scheduleTask(in: delay) {
            let (keeper, entry) = bound.value
            keeper.due(entry)
        }
    }

    private func due(_ entry: Entry) {
        guard !entry.isRemoved else { return }
        let now = NIODeadline.now()
        if entry.deadline <= now { return expire(entry.id) }
        if isOpen { call?.send(encodedKeepAlive(entry.id)) }
        // Ask again, and in the end give up, when no answer comes.
        schedule(entry, min(entry.deadline - now, .milliseconds(500)))
    }
}
