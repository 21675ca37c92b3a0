import Base
import GRPC
import NIOCore
import Wire

/// Who leads an election, and what they say, as it changes. Each element is a leader's key; of changes that follow close on each other a server
/// may leave out all but the last. Survives broken connections and restarts of servers, and then tells nothing twice in a row. One reader at a time.
public struct ElectionStream: AsyncSequence, Sendable {
    public typealias Element = KeyValue
    fileprivate let handle: Handle

    /// Ends the call when the last copy of the stream and of its iterators is gone.
    fileprivate final class Handle: Sendable {
        let buffer: StreamBuffer<KeyValue>
        init(buffer: StreamBuffer<KeyValue>) { self.buffer = buffer }
        deinit { buffer.abandon() }
    }

    public func makeAsyncIterator() -> Iterator { Iterator(handle: handle) }

    public struct Iterator: AsyncIteratorProtocol, Sendable {
        fileprivate let handle: Handle
        public mutating func next() async throws -> KeyValue? { try await handle.buffer.next() }
    }
}

extension EtcdClient {
    /// Follows an election: the one who leads now, if anybody does, and each that leads after. Returns at once; connecting and reconnecting go on
    /// in the background. A call to one endpoint (`options.endpoint`) ends with its connection.
    public func observe(election name: [UInt8], options: CallOptions = CallOptions()) -> ElectionStream {
        let observer = ElectionObserver(core: core, name: name, options: options)
        core.loop.execute { observer.start() }
        return ElectionStream(handle: ElectionStream.Handle(buffer: observer.buffer))
    }
}

/// Confined to the client's loop, apart from `buffer`.
private final class ElectionObserver: @unchecked Sendable {
    // Sendable because tasks touch only `buffer`.
    private let core: ClientCore
    private let options: CallOptions
    private let request: [UInt8]
    private(set) var buffer: StreamBuffer<KeyValue>!
    private var call: StreamCall?
    private var retry: Scheduled<Void>?
    /// Since the last message.
    private var failures = 0
    /// Told last: a new connection begins with the leader of now.
    private var last: KeyValue?
    private var isStopped = false

    init(core: ClientCore, name: [UInt8], options: CallOptions) {
        self.core = core
        var options = options
        options.timeout = nil
        self.options = options
        var request = PBLeaderRequest()
        request.name = .init(name)
        self.request = request.encoded()
        buffer = StreamBuffer(
            limit: core.configuration.watchBufferBytes,
            onRoom: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.call?.resume() } },
            onAbandoned: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.stop() } })
    }

    func start() {
        guard !isStopped else { return }
        guard !core.isClosed else { return fail(.closed) }
        let call = StreamCall(core: core, .observe, options)
        self.call = call
        let request = self.request
        call.onOpen = { $0.send(request, endsStream: true) }
        call.onMessage = { [unowned self] in received($0) }
        // Strong: the observer lives as long as its call.
        call.onEnd = { [self, unowned call] in ended($0, call.usedToken) }
        call.start()
    }

    func stop() {
        isStopped = true
        retry?.cancel()
        call?.cancel()
        call = nil
    }

    private func fail(_ error: EtcdError) {
        guard !isStopped else { return }
        stop()
        buffer.finish(error)
    }

    private func received(_ message: UnsafeRawBufferPointer) {
        let leader: KeyValue
        do {
            let response = try PBLeaderResponse(decoding: message)
            guard response.hasKv else { return }
            leader = KeyValue(response.kv)
        } catch {
            return fail(.malformedResponse("observe: \(error)"))
        }
        failures = 0
        guard leader != last else { return }
        last = leader
        if buffer.push(leader, cost: message.count + 64) { call?.pause() }
    }

    /// Accidents are tried again, refusals end it. etcd does not always tell which it is: what fails underneath is UNKNOWN there, "observe closed early"
    /// with no permission as with no quorum. So that, and a fresh token that is refused, counts as an answer when it comes for the third time.
    private func ended(_ error: EtcdError?, _ token: MetadataField?) {
        call = nil
        guard !isStopped else { return }
        switch error {
        case .closed, .configuration: return fail(error!)
        case .transport where options.endpoint != nil: return fail(error!)
        case .service(let service):
            let isStale = core.wantsNewToken(service)
            guard isStale || [.unavailable, .internal, .unknown].contains(service.code) else { return fail(.service(service)) }
            if isStale || service.code == .unknown, failures >= 2 { return fail(.service(service)) }
            if isStale { core.discardToken(token) }
        default: break
        }
        failures += 1
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        retry = core.loop.scheduleTask(in: failures == 1 ? .zero : core.backoff(attempt: failures - 2)) { bound.value.start() }
    }
}

extension KeyValue {
    init(_ kv: PBKeyValue) {
        self.init(key: [UInt8](kv.key), value: [UInt8](kv.value), createRevision: Revision(kv.createRevision), modRevision: Revision(kv.modRevision), version: kv.version,
                  lease: LeaseID(kv.lease))
    }
}
