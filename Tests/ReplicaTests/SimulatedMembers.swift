import Auth
import Base
import Raft
import Store

@testable import Replica

/// A cluster of complete members in one thread: virtual time, a network that delays, loses and cuts, disks that forget what was not
/// synced when a member crashes. Everything random comes from one seed.
final class SimulatedMembers {
    final class Host {
        let id: MemberID
        var replica: Replica?
        var backend = MemoryBackend()
        // What the log's disk holds.
        var hardState = HardState()
        var start = LogPosition.zero
        var entries: [Entry] = []
        /// Counts lives; completions of an earlier life are dropped.
        var life = 0
        /// When the log's disk has written all it was given.
        var diskBusyUntil = Instant(nanoseconds: 0)
        var timerAt = Instant.distantFuture
        var isPaused = false
        var answers: [RequestToken: Answer] = [:]
        var grants: [RequestToken: ReadGrant] = [:]
        var watch: [WatchOutput] = []
        var notes: [ReplicaNote] = []
        /// Said that it was removed, and was stopped.
        var wasRemoved: Bool { notes.contains { if case .removed = $0 { true } else { false } } }
        init(id: MemberID) { self.id = id }
    }
    private enum Event {
        case turn(MemberID, life: Int, ReplicaEvent)
        case persisted(MemberID, life: Int, PersistBatch)
        case committed(MemberID, life: Int, BackendCommit)
        case snapshot(from: MemberID, to: MemberID)
    }
    private var queue: [(at: Instant, order: Int, event: Event)] = []
    private var order = 0
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    var generator: SeededGenerator
    private(set) var members: [Host] = []
    let options: ReplicaOptions
    let cluster = ClusterID(0xc1)
    var lossPercent = 0
    var cuts: Set<[MemberID]> = []
    /// Sees every member after each of its turns.
    var afterTurn: (Host) -> Void = { _ in }
    /// Sees every batch on its way to a backend.
    var onCommit: (Host, BackendBatch) -> Void = { _, _ in }
    private var nextToken: UInt64 = 1
    private var incarnation: UInt32 = 0

    init(count: Int, seed: UInt64, configure: (inout ReplicaOptions) -> Void = { _ in }) {
        generator = SeededGenerator(seed: seed)
        var options = ReplicaOptions()
        configure(&options)
        self.options = options
        members = (1...count).map { Host(id: MemberID(UInt64($0))) }
        for member in members {
            try! member.backend.commit(ReplicaState.bootstrap(members.map { Member(id: $0.id, peerURLs: ["http://m\($0.id)"]) }))
            start(member.id)
        }
    }

    subscript(id: MemberID) -> Host { member(id)! }
    func member(_ id: MemberID) -> Host? { members.first { $0.id == id } }
    var wall: WallTime { WallTime(milliseconds: now.nanoseconds / 1_000_000) }
    var leader: Host? { members.filter { $0.replica?.isLeader == true && !$0.isPaused && !$0.replica!.isHalted }.max { $0.replica!.term < $1.replica!.term } }

    // MARK: Life and death

    /// A new machine for a member that the cluster has in its table; starts with nothing but whom to talk to.
    @discardableResult
    func join(_ id: MemberID, contacts: [Member]) -> Host {
        precondition(member(id) == nil)
        let host = Host(id: id)
        members.append(host)
        try! host.backend.commit(ReplicaState.join(contacts))
        start(id)
        return host
    }

    /// As the shell does: what is left is written, then the process ends.
    private func stopRemoved(_ host: Host) {
        if let commit = host.replica!.isCommittingBackend ? nil : host.replica!.finalCommit() { try! host.backend.commit(commit.batch) }
        crash(host.id, isNoticed: true)
    }

    func start(_ id: MemberID) {
        let member = self[id]
        precondition(member.replica == nil)
        incarnation += 1
        let reader = try! member.backend.makeReader()
        let state = try! ReplicaState.load(from: reader)
        let restart = RaftRestart(hardState: member.hardState, configuration: state.configuration, start: member.start, entries: member.entries,
                                  applied: state.applied.index)
        var options = options
        options.name = "m\(id)"
        options.clientURLs = ["http://c\(id)"]
        member.replica = Replica(id: id, cluster: cluster, options: options, state: state, restart: restart, backend: member.backend, reader: reader,
                                 incarnation: incarnation, generator: generator.split("member \(id) \(incarnation)"), now: now)
        member.timerAt = now
    }

    /// Forgets everything that was not synced. `isNoticed`: the others find its connections closed and new ones refused.
    func crash(_ id: MemberID, isNoticed: Bool = false) {
        let member = self[id]
        member.replica = nil
        member.life += 1
        member.timerAt = .distantFuture
        member.isPaused = false
        guard isNoticed else { return }
        for other in members where other.replica != nil {
            // After everything that it sent: a connection ends behind its last byte.
            let delay = TimeSpan.microseconds(Int64.random(in: 2001...4000, using: &generator))
            schedule(delay, .turn(other.id, life: other.life, .peerUnreachable(id)))
            schedule(delay, .turn(other.id, life: other.life, .peerGone(id)))
        }
    }

    // MARK: Requests

    @discardableResult
    func ask(_ id: MemberID, _ request: Request, from credential: Credential = .none) -> RequestToken {
        let token = RequestToken(rawValue: nextToken)
        nextToken += 1
        schedule(.zero, .turn(id, life: self[id].life, .request(token, request, requiresLeader: false, from: credential)))
        return token
    }
    func put(_ id: MemberID, _ key: String, _ value: String, lease: LeaseID = .none, from credential: Credential = .none) -> RequestToken {
        let request = PutRequest(key: Array(key.utf8), value: Array(value.utf8), lease: lease)
        var writer = ByteWriter()
        request.encode(into: &writer)
        return ask(id, .propose(.put, body: writer.bytes, cost: request.quotaCost), from: credential)
    }
    func watch(_ id: MemberID, _ stream: WatchStreamID, _ control: WatchControl) {
        schedule(.zero, .turn(id, life: self[id].life, .watch(stream, control)))
    }
    func value(_ key: String, in grant: ReadGrant) -> KeyValue? {
        let reader = try! grant.backend.makeReader()
        return try! grant.snapshot.range(RangeRequest(key: Array(key.utf8)), reader: reader).kvs.keyValues.first
    }

    // MARK: Time

    private func schedule(_ delay: TimeSpan, _ event: Event) {
        order += 1
        queue.append((now + delay, order, event))
    }

    /// Runs until the condition holds; false when it did not within `limit` of virtual time.
    @discardableResult
    func run(for limit: TimeSpan, until condition: () -> Bool = { false }) -> Bool {
        let end = now + limit
        while true {
            if condition() { return true }
            let timer = members.filter { $0.replica != nil && !$0.isPaused }.min { $0.timerAt < $1.timerAt }
            let next = queue.indices.min { (queue[$0].at, queue[$0].order) < (queue[$1].at, queue[$1].order) }
            let eventAt = next.map { queue[$0].at } ?? .distantFuture
            let timerAt = timer?.timerAt ?? .distantFuture
            guard min(eventAt, timerAt) <= end else {
                now = end
                return condition()
            }
            if timerAt < eventAt, let timer {
                now = max(now, timerAt)
                turn(timer, .timer)
            } else {
                let (at, _, event) = queue.remove(at: next!)
                now = max(now, at)
                handle(event)
            }
        }
    }

    private func handle(_ event: Event) {
        switch event {
        case .turn(let id, let life, let event):
            let member = self[id]
            guard member.replica != nil, member.life == life else { return }
            if member.isPaused { return schedule(.milliseconds(50), .turn(id, life: life, event)) }
            turn(member, event)
        case .persisted(let id, let life, let batch):
            let member = self[id]
            guard member.replica != nil, member.life == life else { return }
            if let hardState = batch.hardState { member.hardState = hardState }
            if let reset = batch.reset {
                member.start = reset
                member.entries = []
            }
            if let first = batch.entries.first {
                member.entries.removeAll { $0.index >= first.index }
                member.entries.append(contentsOf: batch.entries)
            }
            schedule(.zero, .turn(id, life: life, .persisted(batch.ticket)))
        case .committed(let id, let life, let commit):
            let member = self[id]
            guard member.replica != nil, member.life == life else { return }
            try! member.backend.commit(commit.batch)
            schedule(.zero, .turn(id, life: life, .backendCommitted(commit.token, member.backend.size)))
        case .snapshot(let from, let to):
            if let receiver = member(to) { install(from: self[from], to: receiver) }
        }
    }

    private func turn(_ member: Host, _ event: ReplicaEvent) {
        let replica = member.replica!
        var effects = ReplicaEffects()
        replica.handle(event, at: now, wall: wall, into: &effects)
        if replica.nextDeadline <= now { replica.handle(.timer, at: now, wall: wall, into: &effects) }
        replica.flush(at: now, wall: wall, into: &effects)
        while replica.hasBackgroundWork { replica.work(at: now, into: &effects) }
        carryOut(effects, of: member)
        afterTurn(member)
        if member.wasRemoved, !replica.isCommittingBackend { return stopRemoved(member) }
        member.timerAt = max(replica.nextDeadline, now + .microseconds(1))
    }

    private func carryOut(_ effects: ReplicaEffects, of member: Host) {
        for batch in effects.persist {
            // One disk writes one batch after the other: a later one never overtakes.
            member.diskBusyUntil = max(now, member.diskBusyUntil) + .microseconds(Int64.random(in: 100...3000, using: &generator))
            schedule(member.diskBusyUntil - now, .persisted(member.id, life: member.life, batch))
        }
        for message in effects.messages { deliver(message) }
        for (token, answer) in effects.answers { member.answers[token] = answer }
        for grant in effects.grants {
            for token in grant.tokens { member.grants[token] = grant }
        }
        member.watch.append(contentsOf: effects.watch)
        for commit in effects.backendCommits {
            onCommit(member, commit.batch)
            schedule(.milliseconds(5), .committed(member.id, life: member.life, commit))
        }
        if let index = effects.compactLog {
            // As the files do: entries leave, position stays.
            if let at = member.entries.firstIndex(where: { $0.index == index }) {
                member.start = LogPosition(index: index, term: member.entries[at].term)
                member.entries.removeFirst(at + 1)
            }
        }
        for peer in effects.snapshots { schedule(.milliseconds(20), .snapshot(from: member.id, to: peer)) }
        member.notes.append(contentsOf: effects.notes)
    }

    /// Encoded and decoded, so that the coding is exercised too.
    private func deliver(_ message: PeerMessage) {
        guard let receiver = member(message.to), !cuts.contains([message.from, message.to]), Int.random(in: 0..<100, using: &generator) >= lossPercent else { return }
        var writer = ByteWriter()
        message.encodeBody(into: &writer)
        let copy = writer.bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            return try! PeerMessage.decodeBody(&reader, from: message.from, to: message.to)
        }
        schedule(.microseconds(Int64.random(in: 50...2000, using: &generator)), .turn(message.to, life: receiver.life, .peer(copy)))
    }

    private func install(from: Host, to: Host) {
        guard from.replica != nil else { return }
        guard let replica = to.replica, !to.isPaused, !cuts.contains([from.id, to.id]), !replica.isCommittingBackend else {
            return schedule(.milliseconds(10), .turn(from.id, life: from.life, .snapshotSent(to: to.id, succeeded: false)))
        }
        let source = try! from.backend.makeReader()
        let metadata = try! ReplicaState.position(in: source)!
        if replica.wants(metadata) {
            let copy = MemoryBackend()
            var batch = BackendBatch()
            for table in Table.allCases {
                try! source.scan(table, from: []) { key, value in
                    batch.put(table, [UInt8](key), [UInt8](value))
                    return true
                }
            }
            try! copy.commit(batch)
            to.backend = copy
            let reader = try! copy.makeReader()
            var effects = ReplicaEffects()
            replica.install(metadata, from: from.id, state: try! ReplicaState.load(from: reader), backend: copy, reader: reader, at: now, wall: wall,
                            into: &effects)
            replica.flush(at: now, wall: wall, into: &effects)
            carryOut(effects, of: to)
        }
        schedule(.zero, .turn(from.id, life: from.life, .snapshotSent(to: to.id, succeeded: true)))
    }
}

extension Answer {
    var error: ServiceError? { if case .failed(let error) = self { error } else { nil } }
    var isSuccess: Bool { error == nil }
}
