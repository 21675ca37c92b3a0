import Auth
import Base
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
@testable import Raft
@testable import Replica
@testable import Server
@testable import Store

/// A member without consensus: a store in memory that answers at once, on a loop of its own. A test may take events away from
/// it and answer them itself, or not at all.
final class ScriptedMember: ReplicaPort, @unchecked Sendable {
    // Everything mutable is confined to `loop`, except what is under a lock.
    let identity: NodeIdentity
    let metrics = NodeMetrics()
    let loop: any EventLoop
    let store = KeyValueStore()
    /// Disabled, unless a test says otherwise on the loop.
    var auth = AuthStore()
    /// Changes as after the installation of a snapshot.
    var backend: any Backend = MemoryBackend()
    private var ports: [UInt8: any ClientLoopPort] = [:]
    private let status: NIOLockedValueBox<ReplicaStatus?>
    /// Returns true when it has dealt with the event.
    private var script: (ReplicaEvent, ScriptedMember) -> Bool = { _, _ in false }
    /// Every event, in order, for tests to look at.
    private let log = NIOLockedValueBox<[ReplicaEvent]>([])
    private let batches = NIOLockedValueBox<[Int]>([])

    static let member = MemberID(0xabc)
    static let cluster = ClusterID(0xdef)

    init(group: any EventLoopGroup, options: ReplicaOptions = ReplicaOptions()) {
        identity = NodeIdentity(cluster: ScriptedMember.cluster, member: ScriptedMember.member, name: "m", options: options)
        loop = group.next()
        status = NIOLockedValueBox(ScriptedMember.status())
    }

    static func status(leader: MemberID = ScriptedMember.member, revision: Revision = Revision(1), isLearner: Bool = false,
                       alarms: [Alarm] = [], allocated: Int64 = 20_480) -> ReplicaStatus {
        let raft = RaftStatus(id: member, role: .leader, hardState: HardState(term: Term(7)), leader: leader, commit: LogIndex(30), handedOut: LogIndex(29),
                              first: LogIndex(1), last: LogPosition(index: LogIndex(31), term: Term(7)), durable: LogIndex(30), uncommittedBytes: 0,
                              electionDeadline: .zero, configuration: Configuration(voters: [member]), transferTarget: .none, peers: [])
        return ReplicaStatus(raft: raft, applied: LogIndex(29), revision: revision, compactRevision: -1,
                             size: BackendSize(allocatedBytes: allocated, usedBytes: 16_384), leases: 0, watchers: 0, alarms: alarms,
                             isLearner: isLearner, membership: Membership(members: []), counters: ReplicaCounters())
    }

    var published: ReplicaStatus? {
        get { status.withLockedValue { $0 } }
        set { status.withLockedValue { $0 = newValue } }
    }
    var events: [ReplicaEvent] { log.withLockedValue { $0 } }
    var batchSizes: [Int] { batches.withLockedValue { $0 } }

    /// Loops that have observers now.
    var observingLoops: Set<UInt8> { observing.withLockedValue { $0 } }
    private let observing = NIOLockedValueBox<Set<UInt8>>([])
    func setObserving(_ port: any ClientLoopPort, _ isObserving: Bool) {
        let number = port.number
        observing.withLockedValue { if isObserving { $0.insert(number) } else { $0.remove(number) } }
    }
    func tell(_ news: ObserverNews) {
        var delivery = ReplicaDelivery()
        delivery.observed = news
        for number in observingLoops { deliver(delivery, to: number) }
    }

    func attach(_ port: any ClientLoopPort) { loop.execute { self.ports[port.number] = port } }
    func detach(_ port: any ClientLoopPort) { loop.execute { self.ports[port.number] = nil } }
    var attached: Int { get async throws { try await loop.submit { self.ports.count }.get() } }

    func setScript(_ script: @escaping @Sendable (ReplicaEvent, ScriptedMember) -> Bool) async throws {
        try await loop.submit { self.script = script }.get()
    }

    func post(_ events: [ReplicaEvent], _ arrival: RequestArrival? = nil) {
        log.withLockedValue { $0 += events }
        batches.withLockedValue { $0.append(events.count) }
        loop.execute { for event in events { self.take(event) } }
    }

    private func take(_ event: ReplicaEvent) {
        if script(event, self) { return }
        guard case .request(let token, let request, _, _) = event else { return }
        switch request {
        case .read, .localRead, .durableRead: grant(token)
        case .propose(let kind, let body, _): answer(token, apply(kind, body))
        case .leaseGrant(let lease, let ttl):
            var writer = ByteWriter()
            header().encodeAsField(into: &writer)
            writer.writeField(2, lease.rawValue)
            writer.writeField(3, ttl)
            answer(token, .encoded(writer.bytes))
        case .leaseKeepAlive(let lease): answer(token, .leaseRenewed(lease, ttlSeconds: lease.rawValue == 404 ? 0 : 60))
        case .leaseTimeToLive(let lease, _): answer(token, .leaseState(lease, remainingSeconds: -1, grantedSeconds: 0, keys: []))
        case .leases: answer(token, .leases([LeaseID(5), LeaseID(-6)]))
        case .members: answer(token, .members([Member(id: ScriptedMember.member, name: "m", peerURLs: ["http://p"], clientURLs: ["http://c"])]))
        case .status: answer(token, .status(published!))
        case .moveLeader(let target): answer(token, target == ScriptedMember.member ? .leaderMoved : .failed(.badLeaderTransferee))
        case .alarm: answer(token, .encoded([]))
        case .changeMembership(.add(let member)):
            answer(token, .membershipChanged(added: member, members: [Member(id: ScriptedMember.member, name: "m", peerURLs: ["http://p"]), member]))
        case .changeMembership(.remove), .changeMembership(.promote): answer(token, .failed(.memberNotFound))
        case .changeMembership(.update(let id, let urls)): answer(token, .membershipChanged(added: nil, members: [Member(id: id, peerURLs: urls)]))
        case .permission: answer(token, .permitted)
        case .compactHistory: answer(token, .encoded([]))
        }
    }

    private func apply(_ kind: Command.Kind, _ body: [UInt8]) -> Answer {
        body.withUnsafeBytes { raw in
            var input = ByteReader(raw)
            var writer = ByteWriter()
            do {
                let reader = try backend.makeReader()
                switch kind {
                case .put:
                    try store.put(PutRequest.decode(&input), reader: reader, leaseExists: { _ in true }).encode(header: header(), into: &writer)
                case .deleteRange:
                    try store.deleteRange(DeleteRangeRequest.decode(&input), reader: reader).encode(header: header(), into: &writer)
                case .txn:
                    try store.txn(TxnRequest.decode(&input), reader: reader, leaseExists: { _ in true }).encode(header: header(), into: &writer)
                default: header().encodeAsField(into: &writer)
                }
                return .encoded(writer.bytes)
            } catch let error as ServiceError {
                return .failed(error)
            } catch {
                preconditionFailure("\(error)")
            }
        }
    }

    func header() -> ResponseHeader {
        ResponseHeader(clusterID: ScriptedMember.cluster, memberID: ScriptedMember.member, revision: store.revision, raftTerm: Term(7))
    }

    // MARK: Answers, on the loop

    func grant(_ token: RequestToken) {
        var delivery = ReplicaDelivery()
        delivery.grants = [ReadGrant(tokens: [token], callers: [:], auth: auth, snapshot: store.snapshot(), backend: backend, term: Term(7))]
        deliver(delivery, to: token.loop)
    }
    func answer(_ token: RequestToken, _ answer: Answer) {
        var delivery = ReplicaDelivery()
        delivery.answers = [(token, answer)]
        deliver(delivery, to: token.loop)
    }
    func emit(_ responses: [WatchResponse], on stream: WatchStreamID) {
        var delivery = ReplicaDelivery()
        delivery.watch = responses.map { WatchOutput(stream: stream, response: $0) }
        deliver(delivery, to: stream.loop)
    }
    func endLeaderless(_ stream: WatchStreamID) {
        var delivery = ReplicaDelivery()
        delivery.leaderlessStreams = [stream]
        deliver(delivery, to: stream.loop)
    }
    private func deliver(_ delivery: ReplicaDelivery, to number: UInt8) {
        guard let port = ports[number] else { return }
        port.eventLoop.execute { port.deliver(delivery) }
    }
}
