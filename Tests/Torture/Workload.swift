import Base
import Client
import Simulation
import Synchronization

/// The keys of a run: few, so that everything meets.
enum TortureKeys {
    static let prefix = "t/"
    static let count = 10
    static let all: [[UInt8]] = (0..<count).map { Array("\(prefix)k\($0)".utf8) }
    static let start = Array(prefix.utf8)
    /// The end of the prefix.
    static let end = Array("t0".utf8)
    static let range = KeyRange.prefix(Key(prefix))
}

/// What the whole load knows and decides together.
final class LoadControl: Sendable {
    let isStopped = Atomic<Bool>(false)
    /// Acknowledged calls.
    let acknowledged = Atomic<Int>(0)
    private let newest = Mutex<Int64>(0)
    private let successes: Mutex<[Int]>

    init(clients: Int) { successes = Mutex(Array(repeating: 0, count: clients)) }

    /// The newest revision that anybody was told of.
    var revision: Int64 { newest.withLock { $0 } }
    func saw(_ revision: Int64) { newest.withLock { $0 = max($0, revision) } }
    func succeeded(_ client: Int) {
        acknowledged.add(1, ordering: .relaxed)
        successes.withLock { $0[client] += 1 }
    }
    /// Acknowledged calls of each client.
    var perClient: [Int] { successes.withLock { $0 } }
}

/// One client: one call at a time, drawn from its seed.
struct LoadClient: Sendable {
    let number: Int
    let client: EtcdClient
    /// The one member that it asks; nil: whichever the library picks.
    let member: Int?
    let endpoint: Endpoint?
    let memberIDs: [MemberID]
    let settings: Settings
    let history: HistoryRecorder
    let control: LoadControl
    let clock: RunClock

    func run(seed: UInt64) async {
        var generator = SeededGenerator(seed: seed).split("client \(number)")
        var caller = Caller(client: client, endpoint: endpoint, memberID: member.map { memberIDs[$0] } ?? .none, timeoutMilliseconds: settings.callTimeoutMilliseconds,
                            history: history, clock: clock)
        var known: [[UInt8]: Int64] = [:]
        var leases: [Int64] = []
        var value = 0
        func newValue() -> [UInt8] {
            value += 1
            return Array("c\(number).\(value)".utf8)
        }
        while !control.isStopped.load(ordering: .relaxed), !Task.isCancelled {
            let key = TortureKeys.all.randomElement(using: &generator)!
            let call: ClientOperation.Call
            switch Int.random(in: 0..<100, using: &generator) {
            case ..<24: call = .put(key: key, value: newValue(), lease: 0)
            case ..<30: call = .delete(key: key, end: [])
            case ..<32:
                let bounds = [Int.random(in: 0..<TortureKeys.count, using: &generator), .random(in: 0..<TortureKeys.count, using: &generator)].sorted()
                call = .delete(key: TortureKeys.all[bounds[0]], end: TortureKeys.all[bounds[1]])
            case ..<46: call = .range(key: key, end: [], revision: 0, isSerializable: false)
            case ..<53: call = .range(key: key, end: [], revision: 0, isSerializable: true)
            case ..<58: call = .range(key: TortureKeys.start, end: TortureKeys.end, revision: 0, isSerializable: false)
            case ..<61: call = .range(key: TortureKeys.start, end: TortureKeys.end, revision: 0, isSerializable: true)
            case ..<65:
                // A little behind the newest, or a little ahead of it.
                let revision = max(1, control.revision + .random(in: -40...3, using: &generator))
                call = .range(key: TortureKeys.start, end: TortureKeys.end, revision: revision, isSerializable: Bool.random(using: &generator))
            case ..<80:
                let isBlind = Int.random(in: 0..<10, using: &generator) == 0
                call = .compareAndSwap(key: key, expected: isBlind ? 0 : known[key] ?? 0, value: newValue())
            case ..<88:
                let keys = TortureKeys.all.shuffled(using: &generator).prefix(.random(in: 2...4, using: &generator))
                call = .putAll(keys.map { .init(key: $0, value: newValue()) })
            case ..<91:
                // Positive, and never drawn twice.
                let id = Int64(number + 1) << 40 | Int64.random(in: 1..<1 << 39, using: &generator)
                call = .leaseGrant(id: id, ttlSeconds: .random(in: 1...6, using: &generator))
            case ..<95:
                guard let lease = leases.randomElement(using: &generator) else { continue }
                call = .put(key: key, value: newValue(), lease: lease)
            case ..<98:
                guard let lease = leases.randomElement(using: &generator) else { continue }
                call = .leaseKeepAlive(id: lease)
            default:
                guard let lease = leases.randomElement(using: &generator) else { continue }
                call = .leaseRevoke(id: lease)
            }
            let operation = await caller.perform(call)
            switch operation.outcome {
            case .done(let revision, let found, _, let succeeded):
                control.saw(revision)
                control.succeeded(number)
                for kv in found where kv.modRevision > known[kv.key] ?? 0 { known[kv.key] = kv.modRevision }
                switch call {
                case .put(let key, _, _): known[key] = revision
                case .compareAndSwap(let key, _, _): known[key] = succeeded ? revision : found.first?.modRevision ?? 0
                case .delete(let key, let end) where end.isEmpty: known[key] = 0
                case .range(let key, let end, 0, _) where end.isEmpty && found.isEmpty: known[key] = 0
                case .putAll(let pairs): for pair in pairs { known[pair.key] = revision }
                default: break
                }
            case .lease(_, let ttl):
                control.succeeded(number)
                switch call {
                case .leaseGrant(let id, _): leases.append(id)
                case .leaseKeepAlive(let id) where ttl == 0: leases.removeAll { $0 == id }
                case .leaseRevoke(let id): leases.removeAll { $0 == id }
                default: break
                }
            case .unknown:
                if case .leaseGrant(let id, _) = call { leases.append(id) }
            case .refused(let reason):
                if reason == ServiceError.leaseNotFound.message {
                    switch call {
                    case .put(_, _, let lease): leases.removeAll { $0 == lease }
                    case .leaseRevoke(let id): leases.removeAll { $0 == id }
                    default: break
                    }
                }
            }
            if leases.count > 4 { leases.removeFirst() } // left to run out
            // A refusal comes at once: do not spin on a member that is down.
            let isIdle = if case .refused = operation.outcome { true } else { false }
            let pause = Int.random(in: 0...settings.pauseMilliseconds, using: &generator) + (isIdle ? 20 : 0)
            if pause > 0 { try? await Task.sleep(for: .milliseconds(pause)) }
        }
    }
}

/// Makes calls and writes down exactly what is known of each: done, certainly without effect, or unknown. After an unknown one it goes on
/// under a new number, as a new client.
struct Caller: Sendable {
    let client: EtcdClient
    let endpoint: Endpoint?
    let memberID: MemberID
    let timeoutMilliseconds: Int64
    let history: HistoryRecorder
    let clock: RunClock
    private(set) var number: Int

    init(client: EtcdClient, endpoint: Endpoint?, memberID: MemberID, timeoutMilliseconds: Int64, history: HistoryRecorder, clock: RunClock) {
        self.client = client
        self.endpoint = endpoint
        self.memberID = memberID
        self.timeoutMilliseconds = timeoutMilliseconds
        self.history = history
        self.clock = clock
        number = history.newClient()
    }

    mutating func perform(_ call: ClientOperation.Call) async -> ClientOperation {
        var operation = ClientOperation(client: number, member: memberID.rawValue, call: call, start: clock.now(), end: 0, outcome: .unknown)
        do {
            let (outcome, header) = try await send(call)
            operation.outcome = outcome
            if let header { operation.member = header.memberID.rawValue }
        } catch let error as EtcdError {
            operation.outcome = outcome(of: error, call)
        } catch {
            operation.outcome = .unknown // cancelled
        }
        operation.end = clock.now()
        history.add(operation)
        if operation.outcome == .unknown { number = history.newClient() }
        return operation
    }

    private func outcome(of error: EtcdError, _ call: ClientOperation.Call) -> ClientOperation.Outcome {
        switch error {
        case .transport(_, _, wasSent: false), .configuration: return .refused("not sent")
        case .service(let service):
            switch service.code {
            // What the state machine or the door says of the request itself. Everything else (no leader, too slow, stopping) may come after
            // it was proposed.
            case .invalidArgument, .notFound, .failedPrecondition, .outOfRange, .alreadyExists, .resourceExhausted, .permissionDenied: return .refused(service.message)
            default: return .unknown
            }
        // The library keeps no header of it: 1 says nothing.
        case .leaseExpired: return .lease(revision: 1, ttlSeconds: 0)
        case .malformedResponse(let detail):
            history.report(Violation("malformed-response", "\(call): \(detail)"))
            return .unknown
        default: return .unknown
        }
    }

    private func send(_ call: ClientOperation.Call) async throws -> (ClientOperation.Outcome, ResponseHeader?) {
        let options = CallOptions(timeout: .milliseconds(timeoutMilliseconds), endpoint: endpoint)
        func done(_ header: ResponseHeader, found: [KeyValue] = [], count: Int64 = 0, succeeded: Bool = true) -> (ClientOperation.Outcome, ResponseHeader?) {
            (.done(revision: header.revision.rawValue, found: found.map { SeenKeyValue($0) }, count: count, succeeded: succeeded), header)
        }
        switch call {
        case .put(let key, let value, let lease):
            return done(try await client.put(PutCommand(key, value, lease: LeaseID(lease)), options: options).header)
        case .delete(let key, let end):
            let result = try await client.delete(DeleteCommand(KeyRange(key: key, rangeEnd: end)), options: options)
            return done(result.header, count: result.deleted)
        case .range(let key, let end, let revision, let isSerializable):
            let query = RangeQuery(KeyRange(key: key, rangeEnd: end), revision: Revision(revision), isSerializable: isSerializable)
            let result = try await client.range(query, options: options)
            return done(result.header, found: result.kvs, count: result.count)
        case .compareAndSwap(let key, let expected, let value):
            let range = KeyRange.single(Key(key))
            let transaction = Transaction(if: [Comparison(range, .equal, .modRevision(Revision(expected)))],
                                          then: [.put(PutCommand(key, value))], else: [.range(RangeQuery(range))])
            let result = try await client.txn(transaction, options: options)
            var found: [KeyValue] = []
            if case .range(let read)? = result.outcomes.first { found = read.kvs }
            return done(result.header, found: found, count: Int64(found.count), succeeded: result.succeeded)
        case .putAll(let pairs):
            let result = try await client.txn(Transaction(then: pairs.map { .put(PutCommand($0.key, $0.value)) }), options: options)
            return done(result.header, succeeded: result.succeeded)
        case .compact(let revision):
            return done(try await client.compact(Revision(revision), options: options))
        case .leaseGrant(let id, let ttl):
            let grant = try await client.grantLease(ttlSeconds: ttl, id: LeaseID(id), options: options)
            return (.lease(revision: grant.header.revision.rawValue, ttlSeconds: grant.ttlSeconds), grant.header)
        case .leaseRevoke(let id):
            return done(try await client.revokeLease(LeaseID(id), options: options))
        case .leaseKeepAlive(let id):
            let renewal = try await client.keepLeaseAliveOnce(LeaseID(id), options: options)
            return (.lease(revision: renewal.header.revision.rawValue, ttlSeconds: renewal.ttlSeconds), renewal.header)
        }
    }
}
