import Base
import Log
import Raft
import Replica
import Store

/// Complete members in one thread, for crash enumeration: the shipped start-up, machine, log and stores over `MemoryDisk`, with queues in place of
/// threads. Whatever a member's disk or store thread would do next is a job that waits; `step` picks one. Time moves only when nothing else can.
final class CrashCluster {
    struct Setup {
        var founders: [Member]
        var options: ReplicaOptions
        var log: LogOptions
        var cluster = ClusterID(0xc4a54)
        /// Bytes in one piece of a snapshot stream.
        var chunkBytes = 2048
    }
    let setup: Setup
    private(set) var nodes: [CrashNode] = []
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    var history: ReferenceHistory
    /// The highest entry whose outcome a client was told.
    private(set) var acknowledged = LogIndex.zero
    /// What was seen and must not be.
    private(set) var violations: [Violation] = []
    /// Members whose links are cut.
    var isolated: Set<MemberID> = []
    /// Jobs are taken in any order that threads could bring about; else in the plainest.
    private var shuffle: SeededGenerator?
    private var lives: UInt32
    private var tokens: UInt64 = 0
    private(set) var boots = 0

    private init(_ setup: Setup, _ history: ReferenceHistory, _ acknowledged: LogIndex, shuffle: SeededGenerator?, lives: UInt32) {
        self.setup = setup
        self.history = history
        self.acknowledged = acknowledged
        self.shuffle = shuffle
        self.lives = lives
    }

    /// A cluster to be founded.
    convenience init(_ setup: Setup, seed: UInt64) {
        self.init(setup, ReferenceHistory(founders: setup.founders), .zero, shuffle: SeededGenerator(seed: seed), lives: 0)
    }

    /// One that goes on from what is left of `origin`'s disks.
    convenience init(after origin: CrashCluster) {
        self.init(origin.setup, origin.history, origin.acknowledged, shuffle: nil, lives: origin.lives)
        now = origin.now
    }

    subscript(id: MemberID) -> CrashNode { nodes.first { $0.id == id }! }
    var hasFailed: Bool { nodes.contains { $0.failure != nil } }

    func violated(_ invariant: String, _ detail: String) { violations.append(Violation(invariant, detail)) }

    // MARK: Life

    /// A member whose files are `disk` and `stores`; off.
    @discardableResult
    func add(_ id: MemberID, _ disk: MemoryDisk, _ stores: SimulatedStores, _ promises: CrashNode.Promises = .init(), contacts: [Member]? = nil) -> CrashNode {
        let node = CrashNode(id, disk, stores, promises, contacts: contacts)
        nodes.append(node)
        return node
    }

    /// Starts a member from its files, as the shipped node does.
    func boot(_ node: CrashNode) throws(MemberFiles.Fault) {
        precondition(node.replica == nil, "member \(node.id) runs")
        boots += 1
        lives += 1
        var files = MemberFiles(dataDirectory: CrashNode.dataDirectory, disk: node.disk, stores: node.stores)
        files.logOptions = setup.log
        let opened = try files.open(identity: LogIdentity(cluster: setup.cluster, member: node.id), members: setup.founders, mayFound: node.contacts == nil,
                                    contacts: node.contacts)
        node.start(opened, setup, incarnation: lives, at: now)
    }

    /// A member's machine loses power: another disk takes the place of its own.
    func replace(_ node: CrashNode, _ disk: MemoryDisk, _ stores: SimulatedStores) -> CrashNode {
        node.stop()
        let other = CrashNode(node.id, disk, stores, node.promises, contacts: node.contacts)
        nodes[nodes.firstIndex { $0 === node }!] = other
        return other
    }

    /// A machine that is not part of the cluster any more is thrown away.
    func discard(_ node: CrashNode) {
        node.stop()
        nodes.removeAll { $0 === node }
    }

    // MARK: Requests

    /// Asks a member and runs until it answers; nil when it does not, or a member failed meanwhile.
    func ask(_ node: CrashNode, _ request: Request, within limit: TimeSpan = .seconds(30)) -> Answer? {
        tokens += 1
        let token = RequestToken(rawValue: tokens)
        node.inbox.append(.request(token, request, requiresLeader: false))
        guard run(within: limit, until: { node.answers[token] != nil || hasFailed }), let answer = node.answers.removeValue(forKey: token) else { return nil }
        if case .encoded(let bytes) = answer { acknowledge(bytes, of: request) }
        return answer
    }

    /// The store as a member serves it without asking anyone.
    func localRead(_ node: CrashNode) -> ReadGrant? {
        tokens += 1
        let token = RequestToken(rawValue: tokens)
        node.inbox.append(.request(token, .localRead, requiresLeader: false))
        turn(node)
        return node.grants.removeValue(forKey: token)
    }

    /// The client has the answer: from here on the write must never be lost.
    private func acknowledge(_ answer: [UInt8], of request: Request) {
        guard case .propose(let kind, let body, _) = request, kind != .compaction, let revision = Self.revision(of: answer) else { return }
        guard let index = history.index(ofRevision: revision) else {
            return violated("acknowledged", "an answer names revision \(revision), which no entry makes")
        }
        if kind == .put, let request = body.withUnsafeBytes({ raw in
            var reader = ByteReader(raw)
            return try? PutRequest.decode(&reader)
        }), history.value(of: request.key, at: revision) != request.value {
            violated("acknowledged", "revision \(revision) was answered for another write")
        }
        acknowledged = max(acknowledged, index)
    }

    /// The header's revision: field 3 of field 1.
    private static func revision(of answer: [UInt8]) -> Int64? {
        answer.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            guard let (field, _) = try? reader.readTag(), field == 1, let header = try? reader.readCountedSlice() else { return nil }
            var inner = ByteReader(header)
            while let (field, type) = try? inner.readTag() {
                if field == 3 { return (try? inner.readVarint()).map { Int64(bitPattern: $0) } }
                guard (try? inner.skip(type)) != nil else { return nil }
            }
            return nil
        }
    }

    // MARK: Running

    /// Runs until the condition holds; false when it did not within `limit` of virtual time.
    @discardableResult
    func run(within limit: TimeSpan, until condition: () -> Bool) -> Bool {
        let end = now + limit
        while !condition() {
            if step() { continue }
            guard let deadline = nodes.compactMap({ $0.failure == nil ? $0.replica?.nextDeadline : nil }).min(), deadline <= end else { return false }
            now = max(now, deadline) + .microseconds(1)
            for node in nodes { turn(node) }
            for node in nodes { violations.append(contentsOf: node.takeViolations()) }
        }
        return true
    }

    private enum Job { case turn(Int), log(Int), store(Int) }

    /// Does one thing that can be done now; false when there is none.
    private func step() -> Bool {
        var jobs: [Job] = []
        for (i, node) in nodes.enumerated() where node.isRunning {
            if !node.inbox.isEmpty || node.isBusy { jobs.append(.turn(i)) }
            if !node.logJobs.isEmpty { jobs.append(.log(i)) }
            if !node.storeJobs.isEmpty { jobs.append(.store(i)) }
            if shuffle == nil, !jobs.isEmpty { break }
        }
        guard !jobs.isEmpty else { return false }
        let at = shuffle == nil ? 0 : Int(shuffle!.next() % UInt64(jobs.count))
        switch jobs[at] {
        case .turn(let i): turn(nodes[i])
        case .log(let i): nodes[i].doLogJobs()
        case .store(let i):
            nodes[i].doStoreJob(setup)
            for sender in nodes[i].takeRefusedSnapshots() { answerSnapshot(from: sender, to: nodes[i].id, succeeded: false) }
        }
        for node in nodes { violations.append(contentsOf: node.takeViolations()) }
        return true
    }

    /// One batch of events, then everything that came of it, like the shipped driver.
    private func turn(_ node: CrashNode) {
        guard node.isRunning, let replica = node.replica else { return }
        let wall = WallTime(milliseconds: now.nanoseconds / 1_000_000)
        var effects = ReplicaEffects()
        let events = node.inbox
        node.inbox = []
        for event in events { replica.handle(event, at: now, wall: wall, into: &effects) }
        if replica.nextDeadline <= now { replica.handle(.timer, at: now, wall: wall, into: &effects) }
        replica.flush(at: now, wall: wall, into: &effects)
        if replica.hasBackgroundWork { replica.work(at: now, into: &effects) }
        node.isBusy = replica.hasBackgroundWork
        carryOut(effects, of: node)
        // With no commit in flight and no event in between: what the shipped node waits for before it installs.
        if !replica.isCommittingBackend, let received = node.adopted {
            node.adopted = nil
            var effects = ReplicaEffects()
            let isWanted = replica.wants(received.metadata)
            if isWanted {
                node.backend = received.backend
                node.promises.stored = received.metadata.position.index
                replica.install(received.metadata, from: received.from, state: received.state, backend: received.backend, reader: received.reader, at: now,
                                wall: wall, into: &effects)
                replica.flush(at: now, wall: wall, into: &effects)
                carryOut(effects, of: node)
            } else {
                node.stores.remove(received.number)
            }
            answerSnapshot(from: received.from, to: node.id, succeeded: isWanted)
        }
        // Its last words are out; the shipped node stops now.
        if node.isRemoved { return node.stop() }
        node.checkOrder()
        guard let replica = node.replica else { return }
        let applied = replica.progress.applied
        while node.checkedThrough < applied {
            node.checkedThrough = node.checkedThrough.next
            guard let hash = replica.stateHash(at: node.checkedThrough) else { continue }
            if let fault = history.applied(node.checkedThrough, hash) { violated("state-machine", "member \(node.id): \(fault)") }
        }
    }

    private func answerSnapshot(from: MemberID, to: MemberID, succeeded: Bool) {
        guard let sender = nodes.first(where: { $0.id == from }), sender.isRunning else { return }
        sender.inbox.append(.snapshotSent(to: to, succeeded: succeeded))
    }

    private func carryOut(_ effects: ReplicaEffects, of node: CrashNode) {
        for batch in effects.persist {
            history.record(batch.entries)
            node.logJobs.append(.persist(batch))
        }
        if let fault = history.fault { violated("history", fault) }
        for message in effects.messages {
            node.promises.note(message, history)
            guard let target = nodes.first(where: { $0.id == message.to }), target.isRunning, !isolated.contains(message.to), !isolated.contains(node.id) else {
                continue
            }
            target.inbox.append(.peer(message))
        }
        for commit in effects.backendCommits { node.storeJobs.append(.commit(commit, node.backend)) }
        if let index = effects.compactLog { node.logJobs.append(.compact(upTo: index)) }
        for peer in effects.snapshots { sendSnapshot(from: node, to: peer) }
        for (token, answer) in effects.answers { node.answers[token] = answer }
        for grant in effects.grants {
            for token in grant.tokens { node.grants[token] = grant }
        }
        for note in effects.notes {
            switch note {
            case .cannotApply(let index, let reason): violated("applies", "member \(node.id), entry \(index.rawValue): \(reason)")
            case .diverged(let divergence): violated("state-machine", "member \(node.id): \(divergence)")
            case .removed: node.isRemoved = true
            case .statesDiffer(let index): violated("state-machine", "the states differ at entry \(index.rawValue)")
            default: break
            }
        }
    }

    private func sendSnapshot(from node: CrashNode, to peer: MemberID) {
        guard let target = nodes.first(where: { $0.id == peer }), target.isRunning, !isolated.contains(peer), !isolated.contains(node.id) else {
            return node.inbox.append(.snapshotSent(to: peer, succeeded: false))
        }
        do {
            let reader = try node.backend.makeReader()
            defer { reader.release() }
            var cutter = try SnapshotCutter(reader, chunkBytes: setup.chunkBytes)
            while let piece = try cutter.next() { target.storeJobs.append(.receive(piece, from: node.id)) }
        } catch { violated("snapshot", "member \(node.id) cannot send one: \(error)") }
    }
}
