import Auth
import Base
import Raft
import Replica
import Store

/// One client: one call at a time, with a timeout. After a call whose outcome it cannot know it goes on as another client.
final class SimulatedClient {
    enum Step {
        case call
        /// `revision`: of the member's store, for answers without a header of their own.
        case answer(Answer, revision: Int64)
        /// A read may be evaluated on this snapshot.
        case evaluate(ReadGrant, RequestToken, SimulatedNode, life: Int)
        /// A password was compared, at this auth revision.
        case compared(revision: UInt64)
        case done(Operation.Outcome)
        case timeout
    }
    enum Habit {
        /// A bit of everything, at any member.
        case everything
        /// Only reads, one soon after the other, and stays with its member: it notices when that one has not noticed.
        case reads
        /// Keeps one lease alive, and is nearly late.
        case keepsLease
    }
    var id: Int
    let habit: Habit
    var serial = 0
    var call: Operation.Call?
    /// Under way to a token.
    var isLoggingIn = false
    var person = Person()
    /// Who it says it is in the present call.
    var identity: Identity?
    var started: Moment = 0
    var node: SimulatedNode
    var range = RangeRequest()
    /// Leases that it believes to have.
    var leases: [Int64] = []
    /// The latest mod revision seen of each key, to compare with.
    var seen: [Int: Int64] = [:]
    /// When the latest lease may end, as far as its keeper knows.
    var leaseEnds: Moment?
    init(id: Int, _ habit: Habit, node: SimulatedNode) {
        self.id = id
        self.habit = habit
        self.node = node
    }
}

/// One watch: reconnects from where it stood when its stream ends.
final class SimulatedWatcher {
    enum Step {
        case connect
        case response(WatchResponse)
        /// The stream is gone: node dead, or ended for want of a leader.
        case ended
        case leave
        case askProgress
    }
    let number: Int
    fileprivate var serial = 0
    fileprivate var stream = WatchStreamID(0)
    fileprivate var node: SimulatedNode?
    fileprivate var checker: WatchChecker?
    fileprivate var identity: Identity?
    fileprivate var messages = 0
    /// The next revision that it wants; 0: from now on.
    fileprivate var next: Int64 = 0
    fileprivate var lastArrival: Moment = 0
    /// Of its member, when it connected: it will be told at least that.
    fileprivate var opened: Int64 = 1
    /// How long it takes to work on a response.
    fileprivate let consumption: ClosedRange<Int64>
    init(number: Int, consumption: ClosedRange<Int64>) {
        self.number = number
        self.consumption = consumption
    }
}

/// All clients, what they do, and the judges of what they see.
final class ClientWorld {
    private(set) var judge: HistoryJudge
    var truth: TruthModel { judge.truth }
    let dials: Dials
    var generator: SeededGenerator
    private(set) var clients: [SimulatedClient] = []
    private var watchers: [SimulatedWatcher] = []
    /// Who waits for which answer, and what was committed when it was asked. Looked up, never walked.
    private var waiting: [UInt64: (client: SimulatedClient, serial: Int, commit: UInt64)] = [:]
    private var streams: [UInt64: (watcher: SimulatedWatcher, serial: Int)] = [:]
    var nextToken: UInt64 = 1
    private var nextStream: UInt64 = 1
    private var nextValue = 1
    private var nextLease: Int64 = 1000
    var nextPassword = 1
    private var nextClient = 0
    /// Clients finish their call and start none.
    var isQuiet = false
    private let weights: Int
    /// Reads of the past go back this many revisions.
    static let oldestRead: Int64 = 60

    init(_ dials: Dials, _ generator: SeededGenerator) {
        self.dials = dials
        self.generator = generator
        judge = HistoryJudge(clockDrift: dials.faults.contains(.clockLeap) ? nil : dials.maxDriftPPM > 0 ? 0.11 : 0.001,
                             overdueBound: dials.options.raft.electionTimeout.nanoseconds * 4 + 10_000_000_000)
        weights = dials.mix.reduce(0) { $0 + $1.1 }
    }

    func number(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &generator) }
    func oneIn(_ n: UInt64) -> Bool { generator.next() % n == 0 }

    func begin(_ simulation: Simulation) {
        for number in 0..<dials.clients {
            nextClient += 1
            let habit: SimulatedClient.Habit = number < dials.readers ? .reads : number < dials.readers + dials.leaseKeepers ? .keepsLease : .everything
            let at = habit == .reads ? number % dials.nodes : Int(generator.next() % UInt64(dials.nodes))
            let client = SimulatedClient(id: nextClient, habit, node: simulation.nodes[at])
            if dials.users > 0 { client.person = person(of: client) }
            clients.append(client)
            simulation.schedule(.client(client, serial: 0, .call), after: self.number(0...1_000_000_000))
        }
        if dials.users > 0 { simulation.schedule(.administer, after: 0) }
        for number in 0..<dials.watchers {
            let slow = [0...1_000_000, 0...1_000_000, 1_000_000...100_000_000, 50_000_000...3_000_000_000] as [ClosedRange<Int64>]
            let watcher = SimulatedWatcher(number: number, consumption: slow[Int(generator.next() % 4)])
            watchers.append(watcher)
            simulation.schedule(.watcher(watcher, serial: 0, .connect), after: self.number(0...2_000_000_000))
        }
    }

    func key(_ number: Int) -> [UInt8] { Array((number < 10 ? "k0\(number)" : "k\(number)").utf8) }

    private func value() -> [UInt8] {
        var bytes = Array("v\(nextValue).".utf8)
        nextValue += 1
        if bytes.count < dials.valueBytes { bytes += [UInt8](repeating: UInt8(ascii: "x"), count: dials.valueBytes - bytes.count) }
        return bytes
    }

    // MARK: Calls

    func step(_ client: SimulatedClient, _ serial: Int, _ step: SimulatedClient.Step, in simulation: Simulation) {
        guard client.serial == serial else { return }
        if client.isLoggingIn { return login(client, step, simulation) }
        switch step {
        case .compared: preconditionFailure("nobody logs in")
        case .call:
            if isQuiet { return simulation.schedule(.client(client, serial: serial, .call), after: 50_000_000) }
            begin(client, simulation)
        case .answer(let answer, let revision): finish(client, outcome(of: answer, revision, for: client), simulation)
        case .evaluate(let grant, let token, let node, let life):
            // The process that gave the snapshot must still be there.
            guard node.life == life, node.process != nil else { return finish(client, .unknown, simulation) }
            finish(client, evaluate(client.range, grant, token), simulation)
        case .done(let outcome): finish(client, outcome, simulation)
        case .timeout: finish(client, .unknown, simulation)
        }
    }

    private func begin(_ client: SimulatedClient, _ simulation: Simulation) {
        client.serial += 1
        client.started = simulation.time
        if client.node.process == nil || !client.node.isMember || oneIn(client.habit == .reads ? 200 : 12) {
            let candidates = simulation.nodes.filter { $0.isMember && $0.process != nil }
            client.node = candidates.isEmpty || oneIn(10) ? simulation.nodes[Int(generator.next() % UInt64(simulation.nodes.count))]
                : candidates[Int(generator.next() % UInt64(candidates.count))]
        }
        if beginLogin(client, simulation) { return }
        let credential = identify(client)
        let (call, request) = choose(client)
        client.call = call
        simulation.statistics.calls += 1
        let node = client.node
        let travel = number(20_000...500_000)
        guard node.process != nil else {
            return simulation.schedule(.client(client, serial: client.serial, .done(.refused("connection refused"))), after: travel)
        }
        send(request, by: client, from: credential, after: travel, simulation)
        simulation.schedule(.client(client, serial: client.serial, .timeout), after: dials.clientTimeout.nanoseconds)
    }

    func send(_ request: Request, by client: SimulatedClient, from credential: Credential, after travel: Int64, _ simulation: Simulation) {
        let token = RequestToken(rawValue: nextToken)
        nextToken += 1
        waiting[token.rawValue] = (client, client.serial, simulation.invariants.ledger.commit)
        let node = client.node
        simulation.schedule(.post(node, life: node.life, .request(token, request, requiresLeader: false, from: credential)), after: travel)
    }

    private func choose(_ client: SimulatedClient) -> (Operation.Call, Request) {
        let kind = kind(for: client)
        let number = Int(generator.next() % UInt64(dials.keys))
        let key = key(number)
        func propose(_ kind: Command.Kind, cost: Int, _ encode: (inout ByteWriter) -> Void) -> Request {
            var writer = ByteWriter()
            encode(&writer)
            return .propose(kind, body: writer.bytes, cost: cost)
        }
        func read(_ range: RangeRequest, _ call: Operation.Call) -> (Operation.Call, Request) {
            client.range = range
            return (call, range.serializable ? .localRead : .read)
        }
        switch kind {
        case .put:
            let request = PutRequest(key: key, value: value())
            return (.put(key: key, value: request.value, lease: 0), propose(.put, cost: request.quotaCost) { request.encode(into: &$0) })
        case .leasePut:
            guard let lease = client.leases.last else { return grant(client) }
            let request = PutRequest(key: key, value: value(), lease: LeaseID(lease))
            return (.put(key: key, value: request.value, lease: lease), propose(.put, cost: request.quotaCost) { request.encode(into: &$0) })
        case .delete:
            let request = DeleteRangeRequest(key: key)
            return (.delete(key: key, end: []), propose(.deleteRange, cost: 0) { request.encode(into: &$0) })
        case .deleteRange:
            let request = DeleteRangeRequest(key: key, rangeEnd: self.key(min(number + 2, 99)))
            return (.delete(key: key, end: request.rangeEnd), propose(.deleteRange, cost: 0) { request.encode(into: &$0) })
        case .read:
            return read(RangeRequest(key: key), .range(key: key, end: [], revision: 0, isSerializable: false))
        case .readRange:
            let all = RangeRequest(key: self.key(0), rangeEnd: Array("l".utf8))
            return read(all, .range(key: all.key, end: all.rangeEnd, revision: 0, isSerializable: false))
        case .readOld:
            let revision = max(1, truth.revision - self.number(0...ClientWorld.oldestRead))
            let serializable = oneIn(2)
            let old = RangeRequest(key: self.key(0), rangeEnd: Array("l".utf8), revision: Revision(revision), serializable: serializable)
            return read(old, .range(key: old.key, end: old.rangeEnd, revision: revision, isSerializable: serializable))
        case .serializable:
            let one = oneIn(2)
            let request = RangeRequest(key: one ? key : self.key(0), rangeEnd: one ? [] : Array("l".utf8), serializable: true)
            return read(request, .range(key: request.key, end: request.rangeEnd, revision: 0, isSerializable: true))
        case .compareAndSwap:
            let expected = client.seen[number] ?? 0
            let put = PutRequest(key: key, value: value())
            let request = TxnRequest(compare: [Compare(key: key, target: .modRevision, result: .equal, operand: .modRevision(expected))],
                                     success: [.put(put)], failure: [.range(RangeRequest(key: key))])
            return (.compareAndSwap(key: key, expected: expected, value: put.value), propose(.txn, cost: request.quotaCost) { request.encode(into: &$0) })
        case .putAll:
            var pairs: [Operation.KeyAndValue] = []
            for offset in 0..<Int(self.number(2...4)) where number + offset < dials.keys { pairs.append(.init(key: self.key(number + offset), value: value())) }
            let request = TxnRequest(success: pairs.map { .put(PutRequest(key: $0.key, value: $0.value)) })
            return (.putAll(pairs), propose(.txn, cost: request.quotaCost) { request.encode(into: &$0) })
        case .leaseGrant:
            return grant(client)
        case .leaseRenew:
            guard let lease = client.leases.last else { return grant(client) }
            return (.leaseKeepAlive(id: lease), .leaseKeepAlive(LeaseID(lease)))
        case .leaseRevoke:
            guard let lease = client.leases.first else { return grant(client) }
            return (.leaseRevoke(id: lease), propose(.leaseRevoke, cost: 0) { $0.writeField(1, lease) })
        }
    }

    private func kind(for client: SimulatedClient) -> Dials.OperationKind {
        switch client.habit {
        case .everything: break
        case .reads: return oneIn(4) ? .readRange : .read
        case .keepsLease:
            if client.leaseEnds == nil { return .leaseGrant }
            return oneIn(12) ? .leasePut : .leaseRenew
        }
        var point = Int(generator.next() % UInt64(weights))
        for (candidate, weight) in dials.mix {
            if point < weight { return candidate }
            point -= weight
        }
        return .put
    }

    /// From the end of one call to the start of the next one.
    func pause(of client: SimulatedClient, _ simulation: Simulation) -> Int64 {
        if client.habit == .keepsLease, let ends = client.leaseEnds {
            // The renewal shall meet the lease's end on its way.
            let early = dials.latency.upperBound * 4 + 2_000_000
            return max(100_000, ends - simulation.time + number(-early...dials.latency.upperBound * 2 + dials.syncTime.upperBound))
        }
        let mean = Double(dials.thinkTime.nanoseconds) * (client.habit == .reads ? 0.3 : 1)
        return max(100_000, Int64(mean * Double(generator.next() >> 11) / Double(1 << 52)))
    }

    private func grant(_ client: SimulatedClient) -> (call: Operation.Call, request: Request) {
        nextLease += 1
        let seconds = client.habit == .keepsLease ? 1 : number(1...12)
        return (.leaseGrant(id: nextLease, ttlSeconds: seconds), .leaseGrant(lease: LeaseID(nextLease), ttlSeconds: seconds))
    }

    // MARK: Answers

    /// The machine has an answer: it travels back, or is lost.
    func answered(_ token: RequestToken, _ answer: Answer, by node: SimulatedNode, _ simulation: Simulation) {
        if simulation.nemesis.answered(token, answer, simulation) { return }
        guard let (client, serial, _) = waiting.removeValue(forKey: token.rawValue) else { return }
        if dials.lostAnswersPerMille > 0, generator.next() % 1000 < UInt64(dials.lostAnswersPerMille) { return }
        simulation.schedule(.client(client, serial: serial, .answer(answer, revision: node.process?.seen.revision ?? 1)), after: number(20_000...500_000))
    }

    func granted(_ grant: ReadGrant, by node: SimulatedNode, _ simulation: Simulation) {
        for token in grant.tokens {
            guard let (client, serial, commit) = waiting.removeValue(forKey: token.rawValue), client.serial == serial else { continue }
            if dials.users > 0, oneIn(8) { simulation.fail(judge.compare(grant.auth), node) }
            if client.isLoggingIn {
                comparePassword(of: client, with: grant.auth, simulation)
                continue
            }
            simulation.fail(Invariants.reading(client.range, askedAt: commit, from: node), node)
            // Mostly at once; sometimes the reader thread is late, and the store has moved on.
            if oneIn(5) {
                simulation.schedule(.client(client, serial: serial, .evaluate(grant, token, node, life: node.life)), after: number(0...300_000_000))
            } else {
                let outcome = evaluate(client.range, grant, token)
                simulation.schedule(.client(client, serial: serial, .done(outcome)), after: number(20_000...500_000))
            }
        }
    }

    private func evaluate(_ range: RangeRequest, _ grant: ReadGrant, _ token: RequestToken) -> Operation.Outcome {
        do {
            try grant.auth.requirePermission(for: range, by: grant.callers[token])
            let reader = try grant.backend.makeReader()
            defer { reader.release() }
            let result = try grant.snapshot.range(range, reader: reader)
            return .done(revision: result.revision.rawValue, found: result.kvs.keyValues.map(SeenKeyValue.init), count: result.count, succeeded: true)
        } catch let error as ServiceError {
            return .refused(error.message)
        } catch {
            return .refused("\(error)")
        }
    }

    private func outcome(of answer: Answer, _ revision: Int64, for client: SimulatedClient) -> Operation.Outcome {
        switch answer {
        case .failed(let error):
            return ClientWorld.isCertain(error) ? .refused(error.message) : .unknown
        case .encoded(let bytes):
            let response: ReadResponse? = switch client.call! {
            case .delete: ReadResponse.delete(bytes)
            case .compareAndSwap, .putAll: ReadResponse.txn(bytes)
            case .leaseGrant: ReadResponse.leaseGrant(bytes)
            default: ReadResponse.put(bytes)
            }
            guard let response else { return .refused("an answer that cannot be read") }
            if case .leaseGrant = client.call! { return .lease(revision: response.revision, ttlSeconds: response.ttlSeconds) }
            return .done(revision: response.revision, found: response.found, count: response.count, succeeded: response.succeeded)
        case .leaseRenewed(_, let seconds): return .lease(revision: revision, ttlSeconds: seconds)
        default: return .unknown
        }
    }

    /// Refusals that say for certain that nothing happened: made before anyone could take the command, or the command's own outcome.
    static func isCertain(_ error: ServiceError) -> Bool {
        switch error {
        case .timeout, .timeoutDueToLeaderFail, .timeoutDueToConnectionLost, .leaderChanged, .stopped, .timeoutWaitAppliedIndex, .deadlineExceeded: false
        default: true
        }
    }

    private func finish(_ client: SimulatedClient, _ outcome: Operation.Outcome, _ simulation: Simulation) {
        guard let call = client.call else { return }
        client.serial += 1
        client.call = nil
        let operation = Operation(client: client.id, member: client.node.id.rawValue, call: call, start: client.started, end: simulation.time, outcome: outcome,
                                  identity: client.identity)
        switch outcome {
        case .unknown:
            simulation.statistics.unknown += 1
            nextClient += 1
            client.id = nextClient
        case .refused(let text):
            simulation.statistics.refused += 1
            if dials.users > 0, refusedAsPerson(client, text) { simulation.statistics.denied += 1 }
        default:
            simulation.statistics.acknowledged += 1
        }
        learn(client, operation)
        simulation.fail(judge.finished(operation), client.node)
        simulation.schedule(.client(client, serial: client.serial, .call), after: pause(of: client, simulation))
    }

    private func learn(_ client: SimulatedClient, _ operation: Operation) {
        switch (operation.call, operation.outcome) {
        case (.leaseGrant, .lease(_, let ttl)), (.leaseKeepAlive, .lease(_, let ttl)): client.leaseEnds = ttl > 0 ? operation.start + ttl * 1_000_000_000 : nil
        case (.leaseGrant, _), (.leaseKeepAlive, _): client.leaseEnds = nil
        default: break
        }
        switch (operation.call, operation.outcome) {
        case (.leaseGrant(let id, _), .lease): client.leases.append(id)
        case (.leaseRevoke(let id), _): client.leases.removeAll { $0 == id }
        case (.leaseKeepAlive(let id), .lease(_, 0)): client.leases.removeAll { $0 == id }
        case (.put(_, _, let lease), .refused) where lease != 0: client.leases.removeAll { $0 == lease }
        case (.compareAndSwap(let key, _, _), .done(_, let found, _, false)):
            if let number = Int(String(decoding: key.dropFirst(), as: UTF8.self)) { client.seen[number] = found.first?.modRevision ?? 0 }
        case (.range(_, _, 0, false), .done(_, let found, _, _)):
            for kv in found { if let number = Int(String(decoding: kv.key.dropFirst(), as: UTF8.self)) { client.seen[number] = kv.modRevision } }
        default: break
        }
        if client.leases.count > 8 { client.leases.removeFirst() }
    }

    // MARK: What the cluster did

    /// The next entry of the one true log.
    func committed(_ index: UInt64, _ entry: Ledger.Version, in simulation: Simulation) -> Violation? {
        judge.committed(index, entry, at: simulation.time)
    }

    /// The node's process ended: calls to it have no outcome, streams end.
    func died(_ node: SimulatedNode, _ simulation: Simulation) {
        for client in clients where client.node === node && (client.call != nil || client.isLoggingIn) {
            simulation.schedule(.client(client, serial: client.serial, .done(.unknown)), after: number(100_000...2_000_000))
        }
        for watcher in watchers where watcher.node === node {
            simulation.schedule(.watcher(watcher, serial: watcher.serial, .ended), after: number(100_000...2_000_000))
        }
    }

    // MARK: Watches

    func step(_ watcher: SimulatedWatcher, _ serial: Int, _ step: SimulatedWatcher.Step, in simulation: Simulation) {
        guard watcher.serial == serial else { return }
        switch step {
        case .connect: connect(watcher, simulation)
        case .response(let response): consume(watcher, response, simulation)
        case .ended: end(watcher, simulation, reconnectAfter: number(1_000_000...200_000_000))
        case .leave:
            if let node = watcher.node { simulation.schedule(.post(node, life: node.life, .watch(watcher.stream, .close)), after: 0) }
            end(watcher, simulation, reconnectAfter: number(1_000_000...3_000_000_000))
        case .askProgress:
            guard let node = watcher.node else { return }
            simulation.schedule(.post(node, life: node.life, .watch(watcher.stream, .request(.progress))), after: number(20_000...500_000))
            simulation.schedule(.watcher(watcher, serial: serial, .askProgress), after: number(1_000_000_000...20_000_000_000))
        }
    }

    private func connect(_ watcher: SimulatedWatcher, _ simulation: Simulation) {
        let candidates = simulation.nodes.filter { $0.isMember && $0.process != nil }
        guard !candidates.isEmpty else { return simulation.schedule(.watcher(watcher, serial: watcher.serial, .connect), after: 200_000_000) }
        let node = candidates[Int(generator.next() % UInt64(candidates.count))]
        watcher.serial += 1
        watcher.node = node
        watcher.opened = node.process!.seen.revision
        watcher.lastArrival = simulation.time
        watcher.stream = WatchStreamID(nextStream)
        nextStream += 1
        streams[watcher.stream.rawValue] = (watcher, watcher.serial)
        // Now and then somewhere else in history: far back, in the future, or where history begins.
        if watcher.next == 0 || oneIn(6) {
            watcher.next = [0, max(1, truth.revision - number(0...60)), truth.revision + number(1...10), max(1, truth.compactRevision + number(-1...1))][Int(generator.next() % 4)]
        }
        // It asks for other keys than before, of which the judges may have forgotten more.
        if watcher.next > 0 { watcher.next = max(watcher.next, truth.history.floor + 1) }
        let everything = oneIn(2)
        let first = Int(generator.next() % UInt64(dials.keys))
        let key = everything ? self.key(0) : self.key(first)
        let end = everything ? Array("l".utf8) : oneIn(2) ? [] : self.key(min(first + 3, 99))
        var request = WatchCreateRequest(key: key, rangeEnd: end, startRevision: Revision(watcher.next), progressNotify: oneIn(2), previousKV: oneIn(2), fragment: true)
        var record = WatchRecord(client: watcher.number, member: node.id.rawValue, key: key, end: end, startRevision: watcher.next, wantsPrevious: request.previousKV,
                                 openedAt: simulation.time)
        if oneIn(5) {
            request.filters = oneIn(2) ? .noPut : .noDelete
            record.wantsPuts = request.filters != .noPut
            record.wantsDeletes = request.filters != .noDelete
        }
        let credential: Credential
        (credential, watcher.identity) = identifyWatcher()
        watcher.checker = WatchChecker(record)
        watcher.messages = 0
        let travel = number(20_000...500_000)
        simulation.schedule(.post(node, life: node.life, .watch(watcher.stream, .open(requiresLeader: oneIn(3), from: credential))), after: travel)
        simulation.schedule(.post(node, life: node.life, .watch(watcher.stream, .request(.create(request)))), after: travel + 1)
        simulation.schedule(.watcher(watcher, serial: watcher.serial, .leave), after: number(500_000_000...40_000_000_000))
        simulation.schedule(.watcher(watcher, serial: watcher.serial, .askProgress), after: number(100_000_000...10_000_000_000))
    }

    func watched(_ output: WatchOutput, by node: SimulatedNode, _ simulation: Simulation) {
        guard let (watcher, serial) = streams[output.stream.rawValue], watcher.serial == serial else { return }
        // One connection: in order.
        watcher.lastArrival = max(watcher.lastArrival + 1, simulation.time + number(20_000...500_000)) + number(isQuiet ? 10_000...100_000 : watcher.consumption)
        simulation.schedule(.watcher(watcher, serial: serial, .response(output.response)), after: watcher.lastArrival - simulation.time)
    }

    func streamEnded(_ stream: WatchStreamID, by node: SimulatedNode, _ simulation: Simulation) {
        guard let (watcher, serial) = streams[stream.rawValue], watcher.serial == serial else { return }
        simulation.schedule(.watcher(watcher, serial: serial, .ended), after: max(watcher.lastArrival - simulation.time, 0) + 1)
    }

    private func consume(_ watcher: SimulatedWatcher, _ response: WatchResponse, _ simulation: Simulation) {
        guard watcher.checker != nil, let node = watcher.node else { return }
        simulation.schedule(.post(node, life: node.life, .watch(watcher.stream, .delivered(responses: 1, bytes: response.backlogBytes))), after: 10_000)
        let message: WatchRecord.Message
        if response.canceled {
            message = .cancelled(compactRevision: response.compactRevision.rawValue, reason: response.cancelReason)
        } else if response.created {
            message = .created(headerRevision: response.headerRevision.rawValue)
        } else if response.events.isEmpty {
            message = .progress(headerRevision: response.headerRevision.rawValue)
        } else {
            let events = response.events.compactMap { event -> WatchRecord.Event? in
                guard let kv = ReadResponse.keyValue(event.kv) else { return nil }
                return WatchRecord.Event(isDelete: event.isDelete, kv: kv, previous: event.previousKV.flatMap { ReadResponse.keyValue($0) })
            }
            guard events.count == response.events.count else { return simulation.fail(Violation("coding", "a watch event cannot be read"), node) }
            message = .events(events, headerRevision: response.headerRevision.rawValue, isFragment: response.fragment)
            simulation.statistics.watchEvents += events.count
            if let last = events.last { watcher.next = max(watcher.next, last.kv.modRevision + (response.fragment ? 0 : 1)) }
        }
        watcher.messages += 1
        simulation.fail(judge.received(message, by: &watcher.checker!, from: watcher.identity, at: simulation.time), node)
        if case .cancelled(let compact, _) = message {
            if compact > 0 { watcher.next = compact }
            if let node = watcher.node { simulation.schedule(.post(node, life: node.life, .watch(watcher.stream, .close)), after: 0) }
            end(watcher, simulation, reconnectAfter: number(1_000_000...(compact > 0 ? 100_000_000 : 2_000_000_000)))
        } else if watcher.messages > 4_000 {
            step(watcher, watcher.serial, .leave, in: simulation)
        }
    }

    private func end(_ watcher: SimulatedWatcher, _ simulation: Simulation, reconnectAfter delay: Int64) {
        streams.removeValue(forKey: watcher.stream.rawValue)
        watcher.serial += 1
        let node = watcher.node
        watcher.node = nil
        if watcher.checker != nil {
            simulation.fail(judge.closed(&watcher.checker!, mustBeComplete: false), node)
            watcher.checker = nil
        }
        simulation.schedule(.watcher(watcher, serial: watcher.serial, .connect), after: delay)
    }
}

private extension SeenKeyValue {
    init(_ kv: KeyValue) {
        self.init(key: kv.key, value: kv.value, createRevision: kv.createRevision.rawValue, modRevision: kv.modRevision.rawValue, version: kv.version, lease: kv.lease.rawValue)
    }
}

// MARK: - Checkpoints

extension ClientWorld {
    /// Judges what is compared only now and then, and forgets what nobody will ask about any more.
    func checkpoint(_ simulation: Simulation) -> Violation? {
        var oldest = simulation.time
        for client in clients where client.call != nil || client.isLoggingIn { oldest = min(oldest, client.started) }
        // Serializable reads show what their member has, and a member that restarts has what its store holds.
        var needed = min(truth.revision, simulation.nemesis.oldestImage)
        for node in simulation.nodes where node.isMember && !node.isLost { needed = min(needed, node.lowestRevision) }
        for watcher in watchers {
            // One that is not connected goes on where it stopped.
            guard watcher.checker != nil else {
                if watcher.next > 0 { needed = min(needed, watcher.next - 1) }
                continue
            }
            watcher.checker!.advance(truth: truth.history)
            if !watcher.checker!.isCancelled { needed = min(needed, watcher.checker!.needed ?? watcher.opened) }
        }
        return judge.checkpoint(oldest: oldest, needed: needed - 1, at: simulation.time)
    }

    /// No client starts anything any more; those that watch go on till they have everything.
    func quiesce() { isQuiet = true }
    var isIdle: Bool { clients.allSatisfy { $0.call == nil && !$0.isLoggingIn } }
    /// When the last response is read that is on its way to a slow watch.
    var lastArrival: Moment { watchers.reduce(0) { $1.checker == nil ? $0 : max($0, $1.lastArrival) } }
    /// What a watch has not shown yet.
    var lacking: String? {
        for watcher in watchers {
            guard var checker = watcher.checker, let violation = checker.finish(truth: truth.history, mustBeComplete: true).first else { continue }
            return "\(violation.detail); it takes up to \(watcher.consumption.upperBound / 1_000_000) ms over a response, the last one arrives at \(seconds(watcher.lastArrival))"
        }
        return nil
    }
    func setStable(since moment: Moment?) { judge.setStable(since: moment) }

    func finish(_ simulation: Simulation) -> Violation? {
        for watcher in watchers where watcher.checker != nil {
            if let violation = judge.closed(&watcher.checker!, mustBeComplete: true) { return violation }
        }
        return judge.finish(knowsPast: simulation.statistics.membershipChanges == 0)
    }
}
