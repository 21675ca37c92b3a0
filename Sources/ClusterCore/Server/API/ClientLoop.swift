import Auth
import Base
import GRPC
import Logging
import NIOCore
import Replica
import Store
import Synchronization
import Wire

/// Everything between client connections of one event loop and one member: the table of calls that wait, the events that go
/// to the member in one batch per turn, the reads on granted snapshots.
///
/// Confined to `eventLoop`, hence @unchecked Sendable: other threads only hold the reference and schedule work on the loop.
public final class ClientLoop: ClientLoopPort, @unchecked Sendable {
    public let number: UInt8
    public let eventLoop: any EventLoop
    let port: any ReplicaPort
    let identity: NodeIdentity
    let bounds: ClientBounds
    private let budget: AnswerBudget
    let partialRequests: PartialRequests
    let auth: AuthDesk
    let logger: Logger
    /// What the port serves.
    var surface = ClientSurface.all
    var access = HTTPAccess()
    var rejections: RejectionLog?
    /// The loops whose calls `/metrics` adds up: those of the same port, and for one without calls all others of the node.
    var siblings: [ClientLoop] = []

    private var calls: ContiguousArray<ClientCall> = []
    private var free: [UInt32] = []
    private(set) var waitingCalls = 0

    // To the member.
    private var outbox: [ReplicaEvent] = []
    private var isPostScheduled = false
    /// For the queue stage: requests in the outbox, and when the first came; nil while nobody observes.
    private var outboxRequests = 0
    private var outboxSince: Instant?
    /// Places of Observe streams.
    private var observers: [Int] = []

    // To the clients.
    private var touched: [GRPCConnection] = []
    private(set) var channels: [ObjectIdentifier: ClientChannel] = [:]
    var upkeep: Upkeep
    var upkeepTimer: Scheduled<Void>?
    /// The JSON gateway's connections to this server that carry no call now.
    var spareLinks: [GatewayLink] = []
    var counters = CallCounters()
    var receivedBytes: UInt64 = 0
    var sentBytes: UInt64 = 0

    // Reads.
    /// The member's backend as of the last read. It is held, not just its identity: after two snapshots in a row a new one may lie where the
    /// old one lay.
    private var current: (backend: any Backend, reader: any BackendReader)?
    private var scratch = ByteWriter(capacity: 4_096)
    private var readsWithoutRoom = ReadsWithoutRoom()
    /// Not yet said to the budget.
    private var unpublishedAnswerBytes = 0

    // What the member last said of itself.
    private(set) var revision = Revision.zero
    private(set) var term = Term.zero
    private(set) var hasLeader = false
    private(set) var isLearner = false
    private var statusReadAt = NIODeadline.uptimeNanoseconds(0)
    /// Age of the published status beyond which it is read again; a read takes a lock and copies.
    private static let statusAge: TimeAmount = .milliseconds(5)

    // Deadlines: `earliest` is at or before every deadline in the table.
    private var earliest = NIODeadline.distantFuture
    private var deadlineTimer: Scheduled<Void>?
    /// Least time between two looks through the table.
    private static let deadlineStep: TimeAmount = .milliseconds(5)

    private(set) var isPaused = false
    private var held: [ReplicaDelivery] = []
    private(set) var isDraining = false
    private(set) var isClosed = false
    private var whenEmpty: EventLoopPromise<Void>?

    init(number: UInt8, eventLoop: any EventLoop, port: any ReplicaPort, bounds: ClientBounds, budget: AnswerBudget,
         partialRequests: PartialRequests = PartialRequests(limit: .max), auth: AuthDesk, logger: Logger) {
        self.number = number
        self.eventLoop = eventLoop
        self.port = port
        self.bounds = bounds
        self.budget = budget
        self.partialRequests = partialRequests
        upkeep = Upkeep(bounds)
        self.auth = auth
        self.logger = logger
        identity = port.identity
    }

    // MARK: The table of calls

    static let maxCalls = 1 << 24

    /// nil when the table is full.
    func open(_ connection: GRPCConnection?, _ stream: StreamID, _ method: MethodID, _ work: ClientCall.Work, requiresLeader: Bool = false,
              credential: Credential = .none, deadline: NIODeadline = .distantFuture) -> Int? {
        let place: Int
        if let last = free.popLast() {
            place = Int(last)
        } else {
            guard calls.count < ClientLoop.maxCalls else { return nil }
            place = calls.count
            calls.append(ClientCall())
        }
        calls[place].stream = stream
        calls[place].method = method
        calls[place].requiresLeader = requiresLeader
        calls[place].credential = credential
        calls[place].connection = connection
        calls[place].work = work
        calls[place].deadline = deadline
        waitingCalls += 1
        if deadline < earliest { watchDeadline(deadline) }
        return place
    }

    /// Gives a place back. Answers that still come for it find nothing.
    func close(_ place: Int) {
        calls[place].generation &+= 1
        calls[place].connection = nil
        calls[place].credential = .none
        calls[place].work = .free
        calls[place].deadline = .distantFuture
        calls[place].roomDeadline = .distantFuture
        free.append(UInt32(place))
        waitingCalls -= 1
    }

    @inline(__always)
    private func slot(_ place: Int) -> UInt64 { UInt64(calls[place].generation) << 24 | UInt64(place) }
    @inline(__always)
    func token(_ place: Int) -> RequestToken { RequestToken(loop: number, slot: slot(place)) }
    func streamID(_ place: Int) -> WatchStreamID { WatchStreamID(loop: number, slot: slot(place)) }

    /// The place of a call that still waits.
    @inline(__always)
    func find(_ slot: UInt64) -> Int? {
        let place = Int(slot & 0xff_ffff)
        guard place < calls.count, calls[place].generation == UInt32(truncatingIfNeeded: slot >> 24 & 0xffff_ffff) else { return nil }
        if case .free = calls[place].work { return nil }
        return place
    }

    func work(_ place: Int) -> ClientCall.Work { calls[place].work }
    func setWork(_ place: Int, _ work: ClientCall.Work) { calls[place].work = work }
    func method(_ place: Int) -> MethodID { calls[place].method }
    func requiresLeader(_ place: Int) -> Bool { calls[place].requiresLeader }
    func credential(_ place: Int) -> Credential { calls[place].credential }
    func connection(_ place: Int) -> GRPCConnection? { calls[place].connection }
    func stream(_ place: Int) -> StreamID { calls[place].stream }

    // MARK: To the member

    func post(_ event: ReplicaEvent) {
        outbox.append(event)
        guard !isPostScheduled else { return }
        isPostScheduled = true
        outboxSince = port.metrics.stages.now()
        // Runs once all sockets of this turn have been read.
        eventLoop.execute { self.flushOutbox() }
    }

    func ask(_ place: Int, _ request: Request) {
        outboxRequests += 1
        post(.request(token(place), request, requiresLeader: calls[place].requiresLeader, from: calls[place].credential))
    }

    private func flushOutbox() {
        isPostScheduled = false
        guard !outbox.isEmpty, !isPaused else { return }
        guard !isClosed else {
            outbox = []
            return
        }
        let arrival = outboxRequests == 0 ? nil : outboxSince.map { RequestArrival(requests: outboxRequests, since: $0) }
        (outboxRequests, outboxSince) = (0, nil)
        let batch = outbox
        outbox = []
        outbox.reserveCapacity(min(batch.count, 1_024))
        port.post(batch, arrival)
        refreshStatus()
        if receivedBytes > 0 {
            port.metrics.clientReceivedBytes.add(receivedBytes, ordering: .relaxed)
            receivedBytes = 0
        }
    }

    /// Reads what the member published, unless that was done a moment ago.
    func refreshStatus(always: Bool = false) {
        let now = NIODeadline.now()
        guard always || now - statusReadAt >= ClientLoop.statusAge, let status = port.published else { return }
        statusReadAt = now
        revision = max(revision, status.revision)
        term = status.raft.hardState.term
        hasLeader = status.raft.leader != .none
        isLearner = status.isLearner
    }

    /// The header for what this loop answers itself, and for answers that come without one.
    func header() -> ResponseHeader {
        ResponseHeader(clusterID: identity.cluster, memberID: identity.member, revision: revision, raftTerm: term)
    }

    // MARK: From the member

    public func deliver(_ delivery: ReplicaDelivery) {
        guard !isClosed else { return }
        if isPaused {
            held.append(delivery)
            return
        }
        if !delivery.watch.isEmpty || !delivery.answers.isEmpty { refreshStatus() }
        revision = max(revision, delivery.revision)
        for (token, answer) in delivery.answers {
            if let place = find(token.slot) { take(answer, place) }
        }
        for grant in delivery.grants { evaluate(grant) }
        for output in delivery.watch {
            guard let place = find(output.stream.rawValue & 0x00ff_ffff_ffff_ffff) else { continue }
            switch calls[place].work {
            case .watch(let watch): calls[place].connection?.send(output.response, on: calls[place].stream, of: watch)
            case .lockElection(let call): watched(output.response, call, place)
            default: continue
            }
        }
        for stream in delivery.leaderlessStreams {
            guard let place = find(stream.rawValue & 0x00ff_ffff_ffff_ffff) else { continue }
            fail(place, .noLeader)
        }
        if let news = delivery.observed { tell(news) }
        flushTouched()
        if sentBytes > 0 {
            port.metrics.clientSentBytes.add(sentBytes, ordering: .relaxed)
            sentBytes = 0
        }
        if isPostScheduled { flushOutbox() }
    }

    private func take(_ answer: Answer, _ place: Int) {
        switch answer {
        case .encoded(let bytes):
            switch calls[place].work {
            case .lockElection(let call): return answered(bytes, call, place)
            case .answeredWith(let more): return respond(place, bytes + more)
            default: return respond(place, bytes)
            }
        case .failed(let error):
            if case .lockElection(let call) = calls[place].work { return refused(error, call, place) }
            if case .login(let call) = calls[place].work, error == .authOldRevision, call.mayTryAgain() { return ask(place, .read) }
            return fail(place, error)
        case .permitted:
            if case .admission(let admission) = calls[place].work { return go(on: admission, place) }
        case .leaseRenewed(_, let ttl):
            if case .renewal(let call, let index) = calls[place].work { return renewed(place, call, index, .success(ttl)) }
        case .leaseState(let lease, let remaining, let granted, let keys):
            return respond(place) {
                ResponseMessage.leaseTimeToLive(self.header(), lease: lease, remaining: remaining, granted: granted, keys: keys, into: &$0)
            }
        case .leases(let leases):
            return respond(place) { ResponseMessage.leases(self.header(), leases, into: &$0) }
        case .members(let members):
            return respond(place) {
                var header = self.header()
                header.revision = .zero
                ResponseMessage.members(header, members, into: &$0)
            }
        case .membershipChanged(let added, let members):
            return respond(place) {
                var header = self.header()
                header.revision = .zero
                ResponseMessage.membershipChanged(header, added: added, members, into: &$0)
            }
        case .status(let status):
            revision = max(revision, status.revision)
            term = status.raft.hardState.term
            return respond(place) {
                ResponseMessage.status(self.header(), status, quota: self.identity.options.effectiveQuotaBytes, into: &$0)
            }
        case .leaderMoved:
            return respond(place, [])
        }
        preconditionFailure("the member answered \(calls[place].method) with \(answer)")
    }

    // MARK: Reads

    private func reader(for backend: any Backend) throws(BackendError) -> any BackendReader {
        if let current, current.backend === backend { return current.reader }
        // The member has a new backend after it installed a snapshot.
        let reader = try backend.makeReader()
        current = (backend, reader)
        return reader
    }

    private func evaluate(_ grant: ReadGrant) {
        let reader: any BackendReader
        do throws(BackendError) {
            reader = try self.reader(for: grant.backend)
            try reader.refresh()
        } catch {
            let failure = ServiceError(.internal, "etcdserver: \(error.description)")
            for token in grant.tokens { if let place = find(token.slot) { fail(place, failure) } }
            return
        }
        defer { reader.release() }
        revision = max(revision, grant.snapshot.revision)
        term = max(term, grant.term)
        let header = ResponseHeader(clusterID: identity.cluster, memberID: identity.member, raftTerm: grant.term)
        for token in grant.tokens {
            guard let place = find(token.slot) else { continue }
            if let connection = calls[place].connection, connection.isClogged {
                // It does not read what it has: its reads are asked again once there is room.
                connection.putOff(token)
                continue
            }
            let caller = grant.callers[token]
            switch calls[place].work {
            case .range(let request) where budget.isFull(forOneKey: request.rangeEnd.isEmpty): waitForRoom(token, place)
            case .readTxn where budget.isFull(forOneKey: false): waitForRoom(token, place)
            case .range(let request): read(place, request, grant, caller, header, reader)
            case .readTxn(let request):
                do throws(ServiceError) {
                    // Nothing is put, so no lease is concerned.
                    try grant.auth.requirePermission(for: request, by: caller, keysOfLease: { _ in [] })
                    let result = try grant.snapshot.readOnlyTxn(request, reader: reader)
                    respond(place) { result.encode(header: header, into: &$0) }
                } catch {
                    fail(place, error)
                }
            case .probe(let probe):
                close(place)
                do throws(ServiceError) {
                    _ = try grant.snapshot.range(RangeRequest(key: [0], limit: 1, keysOnly: true), reader: reader)
                    probe.finish(nil)
                } catch {
                    probe.finish(error)
                }
            case .hash, .hashKV:
                do throws(ServiceError) {
                    try grant.auth.requireRoot(caller)
                    hash(place, token, grant, header)
                } catch {
                    fail(place, error)
                }
            case .authQuery(let query): answer(query, place, grant, caller, header)
            case .login(let call): compare(call, place, grant)
            case .snapshot(let call):
                do throws(ServiceError) {
                    try grant.auth.requireRoot(caller)
                    begin(call, place, token, of: grant.backend)
                } catch {
                    fail(place, error)
                }
            case .lockElection(let call): look(call, place, grant, caller, header, reader)
            case .free, .answered, .answeredWith, .renewal, .watch, .keepAlive, .healthWatch, .observe, .admission:
                preconditionFailure("the member granted a read to \(calls[place].method)")
            }
        }
    }

    @inline(__always)
    private func read(_ place: Int, _ request: RangeRequest, _ grant: ReadGrant, _ caller: Caller?, _ header: ResponseHeader,
                      _ reader: any BackendReader) {
        var writer = ByteWriter()
        swap(&writer, &scratch)
        do throws(ServiceError) {
            try grant.auth.requirePermission(for: request, by: caller)
            try grant.snapshot.rangeEncoded(request, header: header, reader: reader, into: &writer)
            respond(place, writer.bytes)
        } catch {
            fail(place, error)
        }
        if writer.bytes.capacity <= 64 << 10 {
            writer.bytes.removeAll(keepingCapacity: true)
            swap(&writer, &scratch)
        } else {
            // A large answer is kept by its stream, not copied: the next one gets memory of its own.
            scratch = ByteWriter(capacity: 4_096)
        }
    }

    /// A hash reads the whole store, so it has a thread of its own for as long as it takes.
    private func hash(_ place: Int, _ token: RequestToken, _ grant: ReadGrant, _ header: ResponseHeader) {
        let work = calls[place].work
        let snapshot = grant.snapshot
        let backend = grant.backend
        let wanted: Revision? = if case .hashKV(let revision) = work { revision } else { nil }
        setWork(place, .answered)
        LongReads.run { [self] in
            var writer = ByteWriter(capacity: 64)
            var failure: ServiceError?
            do {
                let reader = try backend.makeReader()
                try reader.refresh()
                defer { reader.release() }
                if let wanted {
                    ResponseMessage.hashKV(header, try snapshot.hashKV(revision: wanted, reader: reader), into: &writer)
                } else {
                    var header = header
                    header.revision = snapshot.revision
                    ResponseMessage.hash(header, try backendHash(reader), into: &writer)
                }
            } catch let error as ServiceError {
                failure = error
            } catch let error as BackendError {
                failure = ServiceError(.internal, "etcdserver: \(error.description)")
            } catch {
                preconditionFailure("untyped \(error)")
            }
            let bytes = writer.bytes
            let outcome = failure
            eventLoop.execute { [self] in
                guard let place = find(token.slot) else { return }
                if let outcome { fail(place, outcome) } else { respond(place, bytes) }
                flushTouched()
            }
        }
    }

    // MARK: Room for answers

    func answersChanged(by bytes: Int) {
        unpublishedAnswerBytes += bytes
        guard unpublishedAnswerBytes.magnitude >= AnswerBudget.step else { return }
        budget.add(unpublishedAnswerBytes)
        unpublishedAnswerBytes = 0
    }

    /// Reads of ranges may be waiting.
    var isShortOfRoom: Bool { !budget.hasRoom }

    private func waitForRoom(_ token: RequestToken, _ place: Int) {
        if calls[place].roomDeadline == .distantFuture { calls[place].roomDeadline = .now() + .nanoseconds(bounds.maxWaitForRoom.nanoseconds) }
        readsWithoutRoom.append(token)
        scheduleLookForRoom()
    }

    private func scheduleLookForRoom() {
        guard !readsWithoutRoom.isTimed, !readsWithoutRoom.isEmpty, !isClosed else { return }
        readsWithoutRoom.isTimed = true
        eventLoop.scheduleTask(in: ReadsWithoutRoom.interval) { [self] in
            readsWithoutRoom.isTimed = false
            if budget.hasRoom { askAgain(readsWithoutRoom.next(ReadsWithoutRoom.batch)) }
            let now = NIODeadline.now()
            for token in readsWithoutRoom.remove(where: { token in find(token.slot).map { calls[$0].roomDeadline <= now } ?? true }) {
                if let place = find(token.slot) { fail(place, .requestTooManyRequests) }
            }
            flushTouched()
            scheduleLookForRoom()
        }
    }

    /// Reads that were put off because their connection was clogged.
    func askAgain(_ tokens: [RequestToken]) {
        for token in tokens {
            guard let place = find(token.slot) else { continue }
            switch calls[place].work {
            case .range(let request): ask(place, request.serializable ? .localRead : .read)
            case .readTxn(let request): ask(place, request.isSerializable ? .localRead : .read)
            case .hash, .hashKV: ask(place, .localRead)
            case .snapshot: ask(place, .durableRead)
            case .lockElection: ask(place, .read)
            default: break
            }
        }
    }

    /// Asks the member for a read and says whether it succeeded.
    func probe(linearizable: Bool, _ body: @escaping (ServiceError?) -> Void) {
        guard !isClosed, let place = open(nil, 0, .range, .probe(ReadProbe(body))) else { return body(.stopped) }
        ask(place, linearizable ? .read : .localRead)
    }

    func endpoint(_ place: Int) -> (connection: GRPCConnection?, stream: StreamID) { (calls[place].connection, calls[place].stream) }

    // MARK: Ends of calls

    /// Answers a call with one message and OK.
    func respond(_ place: Int, _ bytes: [UInt8]) {
        guard let connection = calls[place].connection else { return close(place) }
        guard bytes.count <= bounds.maxResponseBytes else {
            return fail(place, ServiceError(.resourceExhausted,
                                            "grpc: trying to send message larger than max (\(bytes.count) vs. \(bounds.maxResponseBytes))"))
        }
        let stream = calls[place].stream
        connection.respond(stream, bytes)
        counters.send(calls[place].method)
        counters.handle(calls[place].method, .ok)
        connection.table.remove(stream)
        close(place)
    }

    func respond(_ place: Int, _ write: (inout ByteWriter) -> Void) {
        var writer = ByteWriter(capacity: 128)
        write(&writer)
        respond(place, writer.bytes)
    }

    func fail(_ place: Int, _ error: ServiceError) {
        switch calls[place].work {
        case .renewal(let call, let index): return renewed(place, call, index, .failure(error))
        case .probe(let probe):
            close(place)
            return probe.finish(error)
        case .free, .answered, .answeredWith, .range, .readTxn, .hash, .hashKV, .snapshot, .watch, .keepAlive, .healthWatch, .observe, .authQuery, .login, .admission,
             .lockElection: break
        }
        let stream = calls[place].stream
        let connection = calls[place].connection
        drop(place, error.code)
        connection?.finish(stream, error.code, error.message)
    }

    /// Ends a call without a word to its client: what runs at the member is called off.
    func drop(_ place: Int, _ code: StatusCode) {
        // What nobody called is not counted either.
        if calls[place].connection != nil { counters.handle(calls[place].method, code) }
        switch calls[place].work {
        case .watch: post(.watch(streamID(place), .close))
        case .keepAlive(let call):
            for index in call.head..<call.entries.count {
                guard let token = call.entries[index].running else { continue }
                post(.cancel(token))
                if let place = find(token.slot) { close(place) }
            }
            call.entries = []
            call.head = 0
            call.next = 0
        case .observe:
            observers.removeAll { $0 == place }
            if observers.isEmpty { port.setObserving(self, false) }
        case .snapshot(let call): call.end()
        case .lockElection(let call): closeWatch(of: call, place)
        case .free, .answered, .answeredWith, .range, .readTxn, .hash, .hashKV, .renewal, .healthWatch, .probe, .authQuery, .login, .admission: break
        }
        calls[place].connection?.table.remove(calls[place].stream)
        close(place)
    }

    /// The client no longer waits for this call.
    func cancel(_ place: Int, _ code: StatusCode) {
        switch calls[place].work {
        case .watch, .keepAlive, .healthWatch, .observe: break
        case .lockElection(let call): return leave(call, place, code)
        default: post(.cancel(token(place)))
        }
        drop(place, code)
    }

    /// The place goes on without its client, until it is closed.
    func orphan(_ place: Int) {
        calls[place].connection?.table.remove(calls[place].stream)
        calls[place].connection = nil
        calls[place].deadline = .distantFuture
    }

    // MARK: Observers

    /// The call's place tells of the member from now on.
    func observe(_ place: Int) {
        observers.append(place)
        port.setObserving(self, true)
    }

    private func tell(_ news: ObserverNews) {
        for place in observers {
            guard case .observe(let call) = calls[place].work else { continue }
            call.take(news)
            calls[place].connection?.advance(call, on: calls[place].stream)
        }
    }

    // MARK: Keep-alive

    private func renewed(_ place: Int, _ call: KeepAliveCall, _ index: Int, _ result: Result<Int64, ServiceError>) {
        let connection = calls[place].connection
        let stream = calls[place].stream
        close(place)
        let at = index - call.base
        precondition(at >= call.head && at < call.entries.count, "renewal \(index) of a stream at \(call.base)+\(call.head)")
        call.entries[at].running = nil
        call.entries[at].result = result
        call.running -= 1
        connection?.advance(call, on: stream)
    }

    // MARK: Deadlines

    private func watchDeadline(_ deadline: NIODeadline) {
        earliest = deadline
        guard !isPaused else { return }
        deadlineTimer?.cancel()
        deadlineTimer = eventLoop.scheduleTask(deadline: max(deadline, .now() + ClientLoop.deadlineStep)) { self.expire() }
    }

    private func expire() {
        deadlineTimer = nil
        guard !isPaused, !isClosed else { return }
        let now = NIODeadline.now()
        earliest = .distantFuture
        var next = NIODeadline.distantFuture
        for place in calls.indices where calls[place].deadline != .distantFuture {
            if calls[place].deadline <= now { expire(place) } else { next = min(next, calls[place].deadline) }
        }
        if next < earliest { watchDeadline(next) }
        flushTouched()
    }

    /// As Go's contexts say it, which etcd passes on.
    static let timeIsUp = ServiceError(.deadlineExceeded, "context deadline exceeded")

    private func expire(_ place: Int) {
        // etcd answers this one call with its own words. (§8.8)
        let error = calls[place].method == .moveLeader ? ServiceError.leaderTransferTimeout : ClientLoop.timeIsUp
        let stream = calls[place].stream
        let connection = calls[place].connection
        cancel(place, error.code)
        connection?.finish(stream, error.code, error.message)
    }

    // MARK: Connections

    func touch(_ connection: GRPCConnection) {
        guard !connection.needsFlush else { return }
        connection.needsFlush = true
        touched.append(connection)
    }

    /// One write and one flush per connection that has something to send.
    func flushTouched() {
        while let connection = touched.popLast() {
            if connection.needsFlush { connection.flush() }
        }
    }

    /// Serves a new connection, whatever it turns out to speak; behind `acceptor`, once its handshake is over.
    func adopt(_ channel: any Channel, through acceptor: TLSAcceptor? = nil, rejections: RejectionLog) -> EventLoopFuture<Void> {
        let record = ClientChannel(channel: channel)
        channel.closeFuture.whenComplete { _ in self.unregister(record) }
        register(record)
        guard let acceptor else {
            return eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(ProtocolSniffer(record: record, loop: self, rejections: rejections))
            }
        }
        return acceptor.accept(channel) { channel, identity in
            record.identity = identity
            record.isSecure = isSecured(channel)
            try channel.pipeline.syncOperations.addHandler(ProtocolSniffer(record: record, loop: self, rejections: rejections))
        }
    }

    func register(_ channel: ClientChannel) {
        channels[ObjectIdentifier(channel)] = channel
        counters.connections += 1
        if isPaused { channel.setReading(false) }
        startUpkeep()
    }

    func unregister(_ channel: ClientChannel) {
        guard channels.removeValue(forKey: ObjectIdentifier(channel)) != nil else { return }
        counters.connections -= 1
        guard channels.isEmpty else { return }
        stopUpkeep()
        whenEmpty?.succeed()
    }

    // MARK: Standing still and ending

    /// Stands still as a stopped process does: nothing is read, written or timed. What arrives waits.
    func setPaused(_ paused: Bool) {
        eventLoop.preconditionInEventLoop()
        guard paused != isPaused, !isClosed else { return }
        isPaused = paused
        for channel in channels.values { channel.setReading(!paused) }
        if paused {
            deadlineTimer?.cancel()
            deadlineTimer = nil
            stopUpkeep()
            return
        }
        // Nobody was heard meanwhile.
        for channel in channels.values { channel.grpc?.vigil.hasHeard = true }
        startUpkeep()
        flushOutbox()
        let waiting = held
        held = []
        for delivery in waiting { deliver(delivery) }
        for channel in channels.values { channel.resume() }
        if earliest != .distantFuture { watchDeadline(earliest) }
    }

    /// Takes no new calls and lets those that run finish; streams that would run for ever are ended.
    func drain() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        isDraining = true
        for channel in channels.values { channel.drain() }
        if channels.isEmpty || isClosed { return eventLoop.makeSucceededVoidFuture() }
        let promise = whenEmpty ?? eventLoop.makePromise(of: Void.self)
        whenEmpty = promise
        return promise.futureResult
    }

    /// Closes every connection at once.
    /// - Parameter abruptly: with a reset and nothing flushed, as when the process is killed.
    func closeAll(abruptly: Bool) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        isDraining = true
        isPaused = false
        held = []
        if abruptly {
            isClosed = true
            outbox = []
        }
        for channel in channels.values { channel.close(abruptly: abruptly) }
        if channels.isEmpty { return eventLoop.makeSucceededVoidFuture() }
        let promise = whenEmpty ?? eventLoop.makePromise(of: Void.self)
        whenEmpty = promise
        return promise.futureResult
    }

    /// The end: no connection is left.
    func retire() {
        eventLoop.preconditionInEventLoop()
        if !isClosed { flushOutbox() }
        isClosed = true
        deadlineTimer?.cancel()
        deadlineTimer = nil
        stopUpkeep()
        for place in calls.indices {
            // Only the server's own questions have no connection that gives them back.
            if case .probe(let probe) = calls[place].work {
                close(place)
                probe.finish(.stopped)
            }
        }
        current = nil
        for link in spareLinks { link.end() }
        spareLinks = []
        // Those that ended with what `drain` told them still wait for a flush that nothing brings about any more; they know this loop.
        touched = []
        siblings = []
        port.detach(self)
    }
}
