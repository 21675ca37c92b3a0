import Base
@testable import Raft

/// Which faults a run suffers; each seed draws its own mixture.
struct Weather {
    var loss = 0.0
    var duplication = 0.0
    /// Longest time of a message on its way.
    var delay = TimeSpan.milliseconds(5)
    var diskDelay = TimeSpan.milliseconds(3)
    var crashes = 0.0
    var partitions = 0.0
    var pauses = 0.0
    var transfers = 0.0
    var configurationChanges = 0.0
    var slowDisks = 0.0
    /// How many of a member's peers notice its crash by their connections.
    var noticedCrashes = 0.0
    /// A member is told that another is gone although it lives.
    var wrongHints = 0.0

    static func drawn(from generator: inout SeededGenerator, changesConfiguration: Bool) -> Weather {
        func draw(_ likely: Double, _ most: Double) -> Double {
            Double.random(in: 0..<1, using: &generator) < likely ? Double.random(in: 0..<most, using: &generator) : 0
        }
        var weather = Weather()
        weather.loss = draw(0.6, 0.25)
        weather.duplication = draw(0.5, 0.2)
        weather.delay = .microseconds(Int64.random(in: 200..<30_000, using: &generator))
        weather.diskDelay = .microseconds(Int64.random(in: 100..<20_000, using: &generator))
        weather.crashes = draw(0.7, 0.3)
        weather.partitions = draw(0.7, 0.3)
        weather.pauses = draw(0.4, 0.2)
        weather.transfers = draw(0.4, 0.2)
        weather.slowDisks = draw(0.3, 0.2)
        weather.noticedCrashes = draw(0.7, 1)
        weather.wrongHints = draw(0.3, 0.2)
        if changesConfiguration {
            weather.configurationChanges = 0.5
            weather.partitions = max(weather.partitions, draw(0.8, 0.6))
        }
        return weather
    }
}

/// A rule of consensus was broken.
struct Violation: Error, CustomStringConvertible {
    let seed: UInt64
    let time: Instant
    let text: String
    var description: String { "seed \(seed) at \(Double(time.nanoseconds) / 1e6) ms: \(text)" }
}

/// Complete cores with disks, stores and a network between them, in one thread and virtual time. Every effect is checked
/// against the promises of consensus when it is carried out.
final class SimulatedCluster {
    enum Happening {
        case arrive(Message)
        case wake(Int, incarnation: Int)
        case flush(Int, incarnation: Int)
        case written(Int, incarnation: Int)
        case applied(Int, incarnation: Int, LogIndex)
        case backendCommit(Int, incarnation: Int)
        case snapshotArrives(SnapshotMetadata, from: Int, to: Int, incarnation: Int)
        case snapshotSent(by: Int, incarnation: Int, to: Int, succeeded: Bool)
        case refused(Int, by: Int, incarnation: Int)
        case restart(Int)
        case resume(Int, incarnation: Int)
        case heal
        case misfortune
        case client
    }

    struct DiskImage {
        var hardState = HardState()
        var start = LogPosition.zero
        var entries: [Entry] = []
        var last: LogPosition { entries.last.map { LogPosition(index: $0.index, term: $0.term) } ?? start }

        func term(at index: LogIndex) -> Term? {
            if index == start.index { return start.term }
            guard index > start.index, index <= last.index else { return nil }
            return entries[Int(index.rawValue - start.index.rawValue) - 1].term
        }

        mutating func write(_ batch: PersistBatch) {
            if let state = batch.hardState { hardState = state }
            if let reset = batch.reset {
                start = reset
                entries = []
            }
            if let first = batch.entries.first {
                precondition(first.index > start.index && first.index <= last.index.next, "hole in the log")
                entries.removeLast(entries.count - Int(first.index.rawValue - start.index.rawValue - 1))
                entries += batch.entries
            }
        }

        mutating func drop(before index: LogIndex) {
            guard index.previous > start.index, index.previous <= last.index else { return }
            let term = term(at: index.previous)!
            entries.removeFirst(Int(index.previous.rawValue - start.index.rawValue))
            start = LogPosition(index: index.previous, term: term)
        }
    }

    struct StoreImage {
        var position = LogPosition.zero
        var configuration: Configuration
    }

    /// A core cannot be copied out of what holds it.
    final class Process {
        var core: RaftCore
        init(_ core: consuming RaftCore) { self.core = core }
    }

    final class Node {
        let id: MemberID
        var process: Process?
        var incarnation = 0
        var pausedUntil: Instant?
        var waitingWhilePaused: [Happening] = []
        var disk = DiskImage()
        var writes: [PersistBatch] = []
        var lastWriteDone = Instant.zero
        var diskIsSlowUntil = Instant.zero
        var store: StoreImage
        var durableStore: StoreImage
        var flushScheduled = false
        var wakeAt = Instant.distantFuture
        var lastCommit = LogIndex.zero
        var lastTerm = Term.zero
        var reads: [UInt64: LogIndex] = [:]
        var proposed: Set<UInt64> = []
        var latePersisted: PersistTicket?

        init(id: MemberID, configuration: Configuration) {
            self.id = id
            store = StoreImage(configuration: configuration)
            durableStore = store
        }
    }

    let seed: UInt64
    var options: RaftOptions
    var weather: Weather
    var generator: SeededGenerator
    private(set) var now = Instant.zero
    private var queue = EventQueue<Happening>()
    let nodes: [Node]
    var blocked: Set<Int> = []
    var clientInterval = TimeSpan.milliseconds(15)
    var isCalm = false

    // What the cluster as a whole has promised.
    var leaders: [Term: MemberID] = [:]
    /// `by`: the term of the member that applied it first; it was committed in that term or an earlier one.
    var committed: [(term: Term, value: UInt64, by: Term)] = []
    var written: [LogPosition: (value: UInt64, previous: Term?)] = [:]
    var acknowledged: Set<UInt64> = []
    var nextValue: UInt64 = 1
    var nextRead: UInt64 = 1
    var readsServed = 0
    var snapshotsInstalled = 0
    var configurationsSettled = 0
    var elections = 0
    var leadersFoundGone = 0
    var stuckDisks = 0
    var staticVoters: [MemberID]?
    private var flushes = 0
    var trace: ((String) -> Void)?

    init(seed: UInt64, nodeCount: Int, voters: Int, options: RaftOptions, weather: Weather) {
        self.seed = seed
        self.options = options
        self.weather = weather
        generator = SeededGenerator(seed: seed)
        let ids = (1...nodeCount).map { MemberID(UInt64($0)) }
        let first = Configuration(voters: Array(ids.prefix(voters)))
        nodes = ids.enumerated().map { Node(id: $1, configuration: $0 < voters ? first : Configuration(voters: [])) }
        for i in nodes.indices { boot(i) }
    }

    func fail(_ text: String) -> Violation { Violation(seed: seed, time: now, text: text) }

    // MARK: Time

    func schedule(_ happening: Happening, after span: TimeSpan) { queue.push(happening, at: now + span) }

    func random(upTo span: TimeSpan) -> TimeSpan {
        TimeSpan(nanoseconds: Int64.random(in: 0...max(1, span.nanoseconds), using: &generator))
    }

    func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &generator) < probability
    }

    func run(for span: TimeSpan) throws {
        let end = now + span
        while let (time, happening) = queue.pop(notAfter: end) {
            now = max(now, time)
            try happen(happening)
        }
        now = end
    }

    /// False if `condition` did not come true in time.
    func run(upTo span: TimeSpan, until condition: () -> Bool) throws -> Bool {
        let end = now + span
        while !condition() {
            guard let (time, happening) = queue.pop(notAfter: end) else {
                now = end
                return condition()
            }
            now = max(now, time)
            try happen(happening)
        }
        return true
    }

    private func happen(_ happening: Happening) throws {
        switch happening {
        case .arrive(let message):
            try deliver(.message(message), to: Int(message.to.rawValue) - 1, or: happening)
        case .wake(let i, let incarnation):
            guard let process = nodes[i].process, nodes[i].incarnation == incarnation, nodes[i].pausedUntil == nil else { return }
            guard nodes[i].wakeAt <= now else { return }
            nodes[i].wakeAt = .distantFuture
            if process.core.nextDeadline <= now { try deliver(.timer, to: i, or: happening) } else { arm(i) }
        case .flush(let i, let incarnation):
            guard nodes[i].incarnation == incarnation else { return }
            if nodes[i].pausedUntil != nil { return nodes[i].waitingWhilePaused.append(happening) }
            nodes[i].flushScheduled = false
            try flush(i)
        case .written(let i, let incarnation):
            guard nodes[i].incarnation == incarnation, !nodes[i].writes.isEmpty else { return }
            let batch = nodes[i].writes.removeFirst()
            nodes[i].disk.write(batch)
            try deliver(.persisted(batch.ticket), to: i, or: nil)
        case .applied(let i, let incarnation, let index):
            guard nodes[i].incarnation == incarnation else { return }
            try deliver(.applied(index), to: i, or: happening)
        case .backendCommit(let i, let incarnation):
            guard nodes[i].incarnation == incarnation else { return }
            nodes[i].durableStore = nodes[i].store
            try deliver(.compact(upTo: nodes[i].store.position.index), to: i, or: nil)
            // In order with the writes: none may still be on its way to what is dropped.
            if let process = nodes[i].process, nodes[i].writes.isEmpty, chance(0.5) {
                nodes[i].disk.drop(before: min(process.core.firstIndex, nodes[i].durableStore.position.index.next))
            }
            schedule(happening, after: .milliseconds(30) + random(upTo: .milliseconds(60)))
        case .snapshotArrives(let metadata, let from, let to, let incarnation):
            try snapshotArrives(metadata, from: from, to: to, incarnation: incarnation)
        case .snapshotSent(let i, let incarnation, let to, let succeeded):
            guard nodes[i].incarnation == incarnation else { return }
            try deliver(.snapshotSent(to: nodes[to].id, succeeded: succeeded), to: i, or: happening)
        case .refused(let gone, let i, let incarnation):
            guard nodes[i].incarnation == incarnation, nodes[gone].process == nil else { return }
            try deliver(.peerGone(nodes[gone].id), to: i, or: happening)
        case .restart(let i):
            if nodes[i].process == nil { boot(i) }
        case .resume(let i, let incarnation):
            guard nodes[i].incarnation == incarnation, nodes[i].pausedUntil != nil else { return }
            nodes[i].pausedUntil = nil
            nodes[i].wakeAt = .distantFuture
            let missed = nodes[i].waitingWhilePaused
            nodes[i].waitingWhilePaused = []
            // Everything that came in meanwhile is read at once, the timer last or first.
            if chance(0.5) { try deliver(.timer, to: i, or: nil) }
            for event in missed { try happen(event) }
            arm(i)
        case .heal:
            blocked = []
        case .misfortune:
            if !isCalm {
                try misfortune()
                schedule(.misfortune, after: .milliseconds(20) + random(upTo: .milliseconds(80)))
            }
        case .client:
            if !isCalm {
                try clientStep()
                schedule(.client, after: random(upTo: clientInterval))
            }
        }
    }

    private func arm(_ i: Int) {
        guard let process = nodes[i].process else { return }
        let deadline = process.core.nextDeadline
        guard deadline < nodes[i].wakeAt, deadline != .distantFuture else { return }
        nodes[i].wakeAt = max(deadline, now)
        queue.push(.wake(i, incarnation: nodes[i].incarnation), at: max(deadline, now))
    }

    // MARK: Nodes

    func boot(_ i: Int) {
        let node = nodes[i]
        node.incarnation += 1
        node.store = node.durableStore
        let restart = RaftRestart(hardState: node.disk.hardState, configuration: node.store.configuration, start: node.disk.start,
                                  entries: node.disk.entries, applied: node.store.position.index, appliedTerm: node.store.position.term)
        node.process = Process(RaftCore(id: node.id, options: options, restart: restart, generator: SeededGenerator(seed: generator.next()), now: now))
        node.lastCommit = node.process!.core.commit
        node.wakeAt = .distantFuture
        node.flushScheduled = false
        node.lastWriteDone = now
        node.reads = [:]
        node.latePersisted = nil
        node.proposed = []
        schedule(.backendCommit(i, incarnation: node.incarnation), after: random(upTo: .milliseconds(60)))
        schedule(.flush(i, incarnation: node.incarnation), after: .zero)
        arm(i)
    }

    /// What was being written may be there or not, in order.
    func crash(_ i: Int) {
        let node = nodes[i]
        guard node.process != nil else { return }
        trace?("crash \(node.id)")
        let survived = Int.random(in: 0...node.writes.count, using: &generator)
        for batch in node.writes.prefix(survived) { node.disk.write(batch) }
        node.writes = []
        node.process = nil
        node.pausedUntil = nil
        node.waitingWhilePaused = []
        node.incarnation += 1
        for other in nodes.indices where other != i && nodes[other].process != nil && !blocked.contains(link(other, i)) && chance(weather.noticedCrashes) {
            schedule(.refused(i, by: other, incarnation: nodes[other].incarnation), after: random(upTo: .milliseconds(4)))
        }
    }

    func deliver(_ event: RaftEvent, to i: Int, or retry: Happening?) throws {
        let node = nodes[i]
        guard node.process != nil else { return }
        if node.pausedUntil != nil {
            if let retry {
                node.waitingWhilePaused.append(retry)
            } else if case .persisted(let ticket) = event {
                // Already on the disk; the loop hears of it later.
                let incarnation = node.incarnation
                node.waitingWhilePaused.append(.applied(i, incarnation: incarnation, .zero))
                node.latePersisted = max(node.latePersisted ?? ticket, ticket)
            }
            return
        }
        var effects: [RaftEffect] = []
        if let late = node.latePersisted {
            node.latePersisted = nil
            node.process!.core.handle(.persisted(late), at: now, wall: wall, into: &effects)
        }
        node.process!.core.handle(event, at: now, wall: wall, into: &effects)
        try carryOut(effects, of: i)
        if node.flushScheduled { return }
        if chance(0.2) {
            node.flushScheduled = true
            schedule(.flush(i, incarnation: node.incarnation), after: random(upTo: .microseconds(500)))
        } else {
            try flush(i)
        }
    }

    var wall: WallTime { WallTime(milliseconds: now.nanoseconds / 1_000_000) }

    private func flush(_ i: Int) throws {
        guard nodes[i].process != nil else { return }
        var effects: [RaftEffect] = []
        nodes[i].process!.core.flush(at: now, into: &effects)
        try carryOut(effects, of: i)
        flushes += 1
        if flushes % 3 == 0, let process = nodes[i].process { try check(process.core, of: nodes[i]) }
        arm(i)
    }

    private func check(_ core: borrowing RaftCore, of node: Node) throws {
        if core.commit < node.lastCommit { throw fail("\(node.id): commit went back from \(node.lastCommit) to \(core.commit)") }
        node.lastCommit = core.commit
        if core.term < node.lastTerm && node.incarnation == 0 { throw fail("\(node.id): term went back") }
        if core.term < node.disk.hardState.term { throw fail("\(node.id): term below its disk's") }
        let status = core.status(includingPeers: true)
        guard core.log.start.index <= core.applied, core.applied <= core.handedOut, core.handedOut <= core.commit,
              core.commit <= core.log.last.index, core.handedOut <= core.durable else {
            throw fail("\(node.id): order of indices broken: \(status)")
        }
        let uncommitted = core.role == .leader ? core.log.cost(from: core.commit.next, through: core.log.last.index) : 0
        guard core.lead.uncommittedBytes == uncommitted,
              core.backlogBytes == core.log.cost(from: core.handedOut.next, through: core.commit),
              core.unappliedBytes == core.log.cost(from: core.applied.next, through: core.handedOut) else {
            throw fail("\(node.id): byte accounts are off: \(core.lead.uncommittedBytes) of \(uncommitted), backlog \(core.backlogBytes), unapplied \(core.unappliedBytes)")
        }
        for peer in status.peers {
            guard peer.match < peer.next else { throw fail("\(node.id): match not below next for \(peer)") }
            guard peer.inflightMessages <= options.maxInflightMessages,
                  peer.inflightBytes <= options.maxInflightBytes + options.maxAppendBytes else {
                throw fail("\(node.id): too much on the way to \(peer)")
            }
        }
        if core.nextDeadline <= now && core.role == .leader && core.lead.heartbeatDeadline <= now {
            throw fail("\(node.id): heartbeat is not re-armed")
        }
    }

    // MARK: Effects

    private func carryOut(_ effects: [RaftEffect], of i: Int) throws {
        let node = nodes[i]
        for effect in effects {
            switch effect {
            case .persist(let batch):
                try checkWritten(batch.entries, by: node)
                node.writes.append(batch)
                var delay = random(upTo: weather.diskDelay)
                if now < node.diskIsSlowUntil { delay = delay + options.electionTimeout }
                node.lastWriteDone = max(node.lastWriteDone, now + delay)
                queue.push(.written(i, incarnation: node.incarnation), at: node.lastWriteDone)
            case .send(let message):
                try checkSent(message, by: node)
                transmit(message)
            case .apply(let entries):
                for entry in entries { try apply(entry, at: i) }
                schedule(.applied(i, incarnation: node.incarnation, node.store.position.index), after: random(upTo: .milliseconds(2)))
            case .readReady(let id, let index):
                guard let floor = node.reads.removeValue(forKey: id.rawValue) else { throw fail("\(node.id): read answered twice") }
                if index < floor { throw fail("\(node.id): stale read: index \(index.rawValue), \(floor.rawValue) was applied when it came") }
                readsServed += 1
            case .readRefused(let id, _):
                guard node.reads.removeValue(forKey: id.rawValue) != nil else { throw fail("\(node.id): read refused twice") }
            case .proposalRefused, .configurationRefused:
                break
            case .sendSnapshot(let to):
                let metadata = SnapshotMetadata(position: node.store.position, configuration: node.store.configuration)
                schedule(.snapshotArrives(metadata, from: i, to: Int(to.rawValue) - 1, incarnation: node.incarnation),
                         after: .milliseconds(5) + random(upTo: .milliseconds(30)))
            case .note(let note):
                trace?("\(Double(now.nanoseconds) / 1e6) \(node.id): \(note)")
                switch note {
                case .elected(let term, _, _):
                    elections += 1
                    try checkElected(node, term)
                case .leaderConnectionLost: leadersFoundGone += 1
                case .diskStuck: stuckDisks += 1
                default: break
                }
                if case .messageRefused(_, let fault) = note { throw fail("\(node.id): refused a correct member's message: \(fault)") }
            }
        }
    }

    private func checkWritten(_ entries: [Entry], by node: Node) throws {
        var previous: Term?
        for entry in entries {
            let position = LogPosition(index: entry.index, term: entry.term)
            let value = SimulatedCluster.value(of: entry)
            if let known = written[position] {
                if known.value != value { throw fail("\(node.id): two entries at \(entry.index.rawValue) in term \(entry.term.rawValue)") }
                if let a = known.previous, let b = previous, a != b { throw fail("log matching broken at \(entry.index.rawValue)") }
                if known.previous == nil { written[position]?.previous = previous }
            } else {
                written[position] = (value, previous)
            }
            previous = entry.term
        }
    }

    private func checkSent(_ message: Message, by node: Node) throws {
        switch message.body {
        case .voteReply(granted: true, isPreVote: false, _):
            guard node.disk.hardState == HardState(term: message.term, vote: message.to) else { throw fail("\(node.id): vote sent before it was durable") }
        case .requestVote(let last, isPreVote: false, _):
            let held = node.disk.last.term > node.durableStore.position.term ? node.disk.last
                : LogPosition(index: max(node.disk.last.index, node.durableStore.position.index), term: node.durableStore.position.term)
            guard (held.term, held.index) >= (last.term, last.index) else { throw fail("\(node.id): asked for votes with a log that is not durable") }
        case .appendAccepted(let match):
            let held = max(node.disk.last.index, node.durableStore.position.index)
            guard held >= match, node.disk.hardState.term == message.term else {
                throw fail("\(node.id): acknowledged \(match.rawValue) with \(held.rawValue) on disk in term \(node.disk.hardState.term.rawValue)")
            }
            if match > node.durableStore.position.index, let process = node.process, node.disk.term(at: match) != process.core.log.term(at: match) {
                throw fail("\(node.id): acknowledged an entry at \(match.rawValue) that its disk does not hold")
            }
        default: break
        }
    }

    private func checkElected(_ node: Node, _ term: Term) throws {
        if let other = leaders[term], other != node.id { throw fail("two leaders in term \(term.rawValue): \(other) and \(node.id)") }
        leaders[term] = node.id
        guard node.disk.hardState.term == term, node.disk.hardState.vote == node.id else { throw fail("\(node.id): elected with a vote that is not durable") }
        // A late winner of an old term need not hold what a newer term has committed. (seed 2689)
        let last = LogIndex(UInt64(committed.lastIndex { $0.by < term }.map { $0 + 1 } ?? 0))
        guard let process = node.process, last > process.core.log.start.index else { return }
        guard process.core.log.term(at: last) == committed[Int(last.rawValue) - 1].term else {
            throw fail("\(node.id): elected in term \(term.rawValue) without the committed entry \(last.rawValue)")
        }
    }

    static func value(of entry: Entry) -> UInt64 {
        var value = UInt64(entry.kind.rawValue)
        for byte in entry.payload { value = value &* 1_099_511_628_211 &+ UInt64(byte) &+ 1 }
        return value
    }

    private func apply(_ entry: Entry, at i: Int) throws {
        let node = nodes[i]
        guard entry.index == node.store.position.index.next else {
            throw fail("\(node.id): applied \(entry.index.rawValue) behind \(node.store.position.index.rawValue)")
        }
        let value = SimulatedCluster.value(of: entry)
        let slot = Int(entry.index.rawValue) - 1
        if slot < committed.count {
            guard (committed[slot].term, committed[slot].value) == (entry.term, value) else { throw fail("\(node.id): applied something else at \(entry.index.rawValue)") }
        } else {
            committed.append((entry.term, value, node.process?.core.term ?? entry.term))
            if let voters = staticVoters {
                let holders = voters.count { voter in
                    let other = nodes[Int(voter.rawValue) - 1]
                    return other.disk.term(at: entry.index) == entry.term || other.durableStore.position.index >= entry.index
                }
                if holders < Quorum.size(of: voters.count) { throw fail("\(entry.index.rawValue) applied with only \(holders) durable copies") }
            }
        }
        node.store.position = LogPosition(index: entry.index, term: entry.term)
        if entry.kind == .configuration {
            node.store.configuration = node.store.configuration.applying(entryPayload: entry.payload)
            configurationsSettled += 1
        }
        if node.proposed.remove(value) != nil { acknowledged.insert(value) }
    }

    // MARK: Network

    func link(_ from: Int, _ to: Int) -> Int { from * 100 + to }

    private func transmit(_ message: Message) {
        let from = Int(message.from.rawValue) - 1
        let to = Int(message.to.rawValue) - 1
        guard nodes.indices.contains(to), !blocked.contains(link(from, to)) else { return }
        var copies = 1
        if !isCalm {
            if chance(weather.loss) { copies = 0 } else if chance(weather.duplication) { copies = 2 }
        }
        for _ in 0..<copies { schedule(.arrive(message), after: .microseconds(100) + random(upTo: weather.delay)) }
    }

    private func snapshotArrives(_ metadata: SnapshotMetadata, from: Int, to: Int, incarnation: Int) throws {
        let isCutOff = blocked.contains(link(from, to)) || nodes[from].incarnation != incarnation || nodes[to].process == nil
            || nodes[to].pausedUntil != nil || chance(isCalm ? 0 : weather.loss)
        if !isCutOff {
            let node = nodes[to]
            if node.process!.core.wantsSnapshot(at: metadata.position.index) {
                snapshotsInstalled += 1
                node.store = StoreImage(position: metadata.position, configuration: metadata.configuration)
                node.durableStore = node.store
            }
            try deliver(.snapshotInstalled(metadata, from: nodes[from].id), to: to, or: nil)
        }
        try happen(.snapshotSent(by: from, incarnation: incarnation, to: to, succeeded: !isCutOff))
    }

    // MARK: Faults and work

    private func misfortune() throws {
        let i = Int.random(in: nodes.indices, using: &generator)
        if chance(weather.crashes) {
            // Sometimes the power goes for everyone.
            let victims = chance(0.1) ? Array(nodes.indices) : [i]
            for victim in victims where nodes[victim].process != nil {
                crash(victim)
                schedule(.restart(victim), after: .milliseconds(5) + random(upTo: options.electionTimeout * 3))
            }
        }
        if chance(weather.partitions) {
            blocked = []
            let isOneWay = chance(0.4)
            let side = nodes.map { _ in chance(0.5) }
            for a in nodes.indices {
                for b in nodes.indices where a != b {
                    if isOneWay ? chance(0.3) : side[a] != side[b] { blocked.insert(link(a, b)) }
                }
            }
            schedule(.heal, after: random(upTo: options.electionTimeout * 5))
            if chance(0.5) {
                for node in nodes where node.process != nil { try deliver(.peerUnreachable(nodes[i].id), to: Int(node.id.rawValue) - 1, or: nil) }
            }
        }
        if chance(weather.pauses), nodes[i].process != nil, nodes[i].pausedUntil == nil {
            nodes[i].pausedUntil = now
            schedule(.resume(i, incarnation: nodes[i].incarnation), after: random(upTo: options.electionTimeout * 4))
        }
        if chance(weather.wrongHints) {
            let other = Int.random(in: nodes.indices, using: &generator)
            if other != i { try deliver(.peerGone(nodes[other].id), to: i, or: nil) }
        }
        if chance(weather.slowDisks) { nodes[i].diskIsSlowUntil = now + random(upTo: options.electionTimeout * 3) }
        if chance(weather.transfers), let leader = anyLeader() {
            try deliver(.transferLeadership(to: nodes[i].id), to: leader, or: nil)
        }
        if chance(weather.configurationChanges), let leader = anyLeader() { try proposeChange(at: leader) }
        if chance(0.02) { try deliver(.campaign, to: i, or: nil) }
    }

    private func proposeChange(at leader: Int) throws {
        var steps: [ConfigurationChange.Step] = []
        for _ in 0..<Int.random(in: 1...5, using: &generator) {
            let id = nodes.randomElement(using: &generator)!.id
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: steps.append(.remove(id))
            case 1: steps.append(.addLearner(id))
            default: steps.append(.addVoter(id))
            }
        }
        // Two voters at least stay, or a single crash is a long silence.
        guard let next = try? nodes[leader].process!.core.configuration.applying(ConfigurationChange(steps: steps)), next.voters.count >= 2 else { return }
        try deliver(.proposeConfiguration(ConfigurationChange(steps: steps, forcesJoint: chance(0.3))), to: leader, or: nil)
    }

    func anyLeader() -> Int? {
        let all = nodes.indices.filter { nodes[$0].process?.core.isLeader == true && nodes[$0].pausedUntil == nil }
        return all.max { nodes[$0].process!.core.term < nodes[$1].process!.core.term }
    }

    private func clientStep() throws {
        let i = chance(0.7) ? anyLeader() ?? 0 : Int.random(in: nodes.indices, using: &generator)
        let node = nodes[i]
        guard node.process != nil, node.pausedUntil == nil else { return }
        if chance(0.5) {
            try propose(Int.random(in: 1...6, using: &generator), at: i)
        } else {
            try read(at: i)
        }
    }

    func propose(_ count: Int, at i: Int) throws {
        var payloads: [[UInt8]] = []
        for _ in 0..<count {
            let value = nextValue
            nextValue += 1
            let payload = withUnsafeBytes(of: value.littleEndian) { [UInt8]($0) }
            nodes[i].proposed.insert(SimulatedCluster.value(of: Entry(index: .zero, term: .zero, kind: .command, proposedAt: .unknown, payload: payload)))
            payloads.append(payload)
        }
        try deliver(.propose(payloads: payloads), to: i, or: nil)
    }

    func read(at i: Int) throws {
        let id = nextRead
        nextRead += 1
        // Everything that anyone has applied may have been seen by someone.
        nodes[i].reads[id] = LogIndex(UInt64(committed.count))
        try deliver(.read(ReadID(id)), to: i, or: nil)
    }

    // MARK: The end of a run

    func startWorkAndFaults() {
        schedule(.client, after: random(upTo: clientInterval))
        schedule(.misfortune, after: random(upTo: .milliseconds(100)))
    }

    /// Everything works again. The cluster must elect, commit and bring everyone up to date.
    func healAndSettle() throws {
        isCalm = true
        blocked = []
        for i in nodes.indices {
            nodes[i].diskIsSlowUntil = .zero
            if nodes[i].pausedUntil != nil { try happen(.resume(i, incarnation: nodes[i].incarnation)) }
            if nodes[i].process == nil { boot(i) }
        }
        let patience = options.electionTimeout * 40
        guard try run(upTo: patience, until: { anyLeader().map { nodes[$0].process!.core.hasCommittedInTerm } ?? false }) else {
            throw fail("no leader after everything healed: \(nodes.map { $0.process!.core.status(includingPeers: false) })")
        }
        var marker: UInt64 = 0
        let settled = try run(upTo: patience) {
            guard let leader = anyLeader(), nodes[leader].process!.core.lead.transfer == nil else { return false }
            if marker == 0 || !nodes[leader].proposed.contains(marker) && !acknowledged.contains(marker) {
                marker = SimulatedCluster.value(of: Entry(index: .zero, term: .zero, kind: .command, proposedAt: .unknown,
                                                          payload: withUnsafeBytes(of: nextValue.littleEndian) { [UInt8]($0) }))
                do { try propose(1, at: leader) } catch { return false }
                return false
            }
            guard acknowledged.contains(marker) else { return false }
            let configuration = nodes[leader].store.configuration
            return !configuration.isJoint && configuration.everyone.allSatisfy { id in
                let node = nodes[Int(id.rawValue) - 1]
                return node.store.position.index.rawValue == UInt64(committed.count) && node.store.configuration == configuration
            }
        }
        guard settled else {
            throw fail("not everyone caught up after everything healed: \(committed.count) committed, "
                + "\(nodes.map { $0.process!.core.status(includingPeers: true) })")
        }
        let present = Set(committed.map(\.value))
        for value in acknowledged where !present.contains(value) { throw fail("an acknowledged write is lost") }
    }
}
