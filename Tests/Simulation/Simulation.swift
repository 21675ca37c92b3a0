import Base
import Log
import Raft
import Replica
import Store

/// A cluster of complete members in one thread, under one seed: virtual time, and a network, disks, clocks and processes that fail as the seed
/// wants. The members are the shipped machine with the shipped log, files and snapshot stream; only what surrounds them is made up.
///
/// Everything random comes from streams split off the seed by name, so that more draws for one purpose do not shift another's.
public final class Simulation {
    enum Event {
        case turn(SimulatedNode, life: Int)
        case timer(SimulatedNode, life: Int, number: Int)
        case post(SimulatedNode, life: Int, ReplicaEvent)
        case message(to: SimulatedNode, life: Int, from: MemberID, bytes: [UInt8])
        case logWritten(SimulatedNode, life: Int)
        case committed(SimulatedNode, life: Int)
        case remove(SimulatedNode, life: Int, paths: [String])
        case start(SimulatedNode)
        case transfer(SnapshotTransfer)
        case client(SimulatedClient, serial: Int, SimulatedClient.Step)
        case watcher(SimulatedWatcher, serial: Int, SimulatedWatcher.Step)
        case administer
        case nemesis(number: Int)
        case undo(fault: Int)
        case phase(number: Int)
    }

    public let seed: UInt64
    public let dials: Dials
    public internal(set) var time: Moment = 0
    /// Events handled.
    public private(set) var events: UInt64 = 0
    /// Changes with everything that happens: two runs of one seed have the same.
    public private(set) var digest: UInt64 = 0xcbf2_9ce4_8422_2325
    public internal(set) var violation: Violation?
    var violator: SimulatedNode?
    public internal(set) var statistics = Statistics()

    var queue = EventQueue<Event>()
    var nodes: [SimulatedNode] = []
    var nodeOf: [UInt64: SimulatedNode] = [:]
    let cluster = ClusterID(0xc1)
    var founders: [Member] = []
    var invariants = Invariants()
    var network: SimulatedNetwork
    var nemesis: Nemesis
    var world: ClientWorld
    var scheduling: SeededGenerator
    var diskChance: SeededGenerator
    private var nodeSeeds: SeededGenerator
    private var processes: UInt32 = 0
    private var membershipIndex: UInt64 = 0
    /// Members in the table that nobody started: whoever added them never learned that they were.
    private(set) var orphans: [MemberID] = []
    private var removals: [SimulatedNode] = []
    /// Of the latest events, when wanted.
    public var trace: Trace?

    public init(seed: UInt64, profile: Profile) {
        self.seed = seed
        let root = SeededGenerator(seed: seed)
        dials = Dials.draw(profile, seed: seed)
        network = SimulatedNetwork(dials, root.split("network"))
        nemesis = Nemesis(dials, root.split("nemesis"))
        world = ClientWorld(dials, root.split("clients"))
        scheduling = root.split("scheduling")
        diskChance = root.split("disk")
        nodeSeeds = root.split("nodes")
        for number in 1...dials.nodes + dials.spares {
            let node = SimulatedNode(id: MemberID(UInt64(number) * 0x1111), number: number, isMember: number <= dials.nodes)
            nodes.append(node)
            nodeOf[node.id.rawValue] = node
        }
        founders = nodes.filter(\.isMember).map { Member(id: $0.id, peerURLs: ["http://n\($0.number):2380"]) }
        for node in nodes {
            if dials.maxDriftPPM > 0 { node.clock.setDrift(Int64.random(in: -dials.maxDriftPPM...dials.maxDriftPPM, using: &nodeSeeds), at: 0) }
            if node.isMember { start(node) }
        }
        world.begin(self)
        nemesis.begin(self)
    }

    // MARK: Running

    /// Handles events until `until` (true time) or the first broken promise.
    /// - Returns: false when a promise was broken.
    @discardableResult
    public func run(until end: Moment, events limit: UInt64 = .max) -> Bool {
        while violation == nil, events < limit, let next = queue.nextAt, next <= end {
            let (at, event) = queue.take()!
            time = max(time, at)
            events += 1
            handle(event)
        }
        if violation == nil, events < limit { time = max(time, end) }
        return violation == nil
    }

    func schedule(_ event: Event, after delay: Int64) {
        queue.put(event, at: time + max(0, delay), chance: UInt32(truncatingIfNeeded: scheduling.next()))
    }

    private func handle(_ event: Event) {
        switch event {
        case .turn(let node, let life):
            if node.life == life { turn(node) }
        case .timer(let node, let life, let number):
            guard node.life == life, let process = node.process, process.timerNumber == number else { return }
            process.timerAt = .max
            turn(node)
        case .post(let node, let life, let event):
            if node.life == life { arrived(event, at: node) }
        case .message(let node, let life, let from, let bytes):
            guard node.life == life, node.process != nil, network.isOpen(from, node.id) else { return }
            let message: PeerMessage? = bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                return try? PeerMessage.decodeBody(&reader, from: from, to: node.id)
            }
            guard let message else { return fail(Violation("coding", "a message from \(from) to \(node.id) cannot be read back"), node) }
            arrived(.peer(message), at: node)
        case .logWritten(let node, let life):
            if node.life == life { logWritten(node) }
        case .committed(let node, let life):
            if node.life == life { backendCommitted(node) }
        case .remove(let node, let life, let paths):
            if node.life == life { for path in paths { try? node.disk.remove(path) } }
        case .start(let node):
            if node.process == nil, !node.isLost { start(node) }
        case .transfer(let transfer): step(transfer)
        case .client(let client, let serial, let step): world.step(client, serial, step, in: self)
        case .watcher(let watcher, let serial, let step): world.step(watcher, serial, step, in: self)
        case .administer: world.administer(self)
        case .nemesis(let number): nemesis.strike(number, in: self)
        case .undo(let fault): nemesis.undo(fault, in: self)
        case .phase(let number): nemesis.changePhase(number, in: self)
        }
    }

    func fail(_ violation: Violation?, _ node: SimulatedNode? = nil) {
        guard self.violation == nil, let violation else { return }
        self.violation = violation
        violator = node
    }

    /// For digests: order matters.
    func mix(_ number: UInt64) {
        digest = (digest ^ number) &* 0x100_0000_01b3
        digest ^= digest >> 29
    }

    // MARK: Processes

    func options(of node: SimulatedNode) -> ReplicaOptions {
        var options = dials.options
        options.name = "n\(node.number)"
        options.clientURLs = ["http://n\(node.number):2379"]
        return options
    }

    /// Boots the node's process from its disk, with the shipped start-up code.
    func start(_ node: SimulatedNode) {
        precondition(node.process == nil)
        let identity = LogIdentity(cluster: cluster, member: node.id)
        var files = MemberFiles(dataDirectory: node.dataDirectory, disk: node.disk, stores: node.stores)
        files.logOptions = LogOptions(segmentSizeBytes: dials.segmentBytes)
        let opened: MemberFiles.Opened
        let reader: any BackendReader
        do {
            opened = try files.open(identity: identity, members: founders, mayFound: node.contacts == nil, contacts: node.contacts)
            reader = try opened.backend.makeReader()
        } catch MemberFiles.Fault.removed {
            trace?.add(self, "n\(node.number) was removed and does not start")
            return left(node)
        } catch {
            trace?.add(self, "n\(node.number) cannot start: \(error)")
            if node.disk.isOff || !node.disk.faults.isEmpty || node.disk.capacityBytes != nil {
                // The disk's fault of the moment; the operator tries again.
                nemesis.couldNotStart(node, self)
            } else if node.mayRefuse {
                node.isLost = true
                statistics.refusedStarts += 1
            } else if node.hadDiskFault {
                // It struck in the middle of this attempt.
                node.hadDiskFault = false
                nemesis.couldNotStart(node, self)
            } else {
                fail(Violation("boot", "\(error)"), node)
            }
            return
        }
        processes += 1
        node.life += 1
        let now = node.clock.now(time)
        let shadow = ShadowLog(opened.restart)
        if let violation = recovered(node, shadow) { return fail(violation, node) }
        let replica = Replica(id: node.id, cluster: cluster, options: options(of: node), state: opened.state, restart: opened.restart, backend: opened.backend,
                              reader: reader, incarnation: processes, generator: nodeSeeds.split("node \(node.number) \(processes)"), now: now)
        let process = SimulatedNode.Process(replica: replica, log: opened.log, backend: opened.backend, storeNumber: opened.storeNumber, shadow: shadow)
        node.process = process
        node.durable = shadow
        node.durableAfterWrite = nil
        node.mayRefuse = false
        node.hadDiskFault = false
        node.hasBooted = true
        let commit = max(opened.state.applied.index.rawValue, shadow.start)
        process.seen = SimulatedNode.Seen(term: shadow.hardState.term.rawValue, vote: shadow.hardState.vote.rawValue, role: .follower, commit: commit,
                                          applied: opened.state.applied.index.rawValue, revision: opened.state.store.revision.rawValue,
                                          authRevision: opened.state.auth.revision, isAuthEnabled: opened.state.auth.isEnabled)
        node.lowestRevision = process.seen.revision
        statistics.starts += 1
        trace?.add(self, "n\(node.number) starts, term \(process.seen.term) applied \(process.seen.applied) last \(shadow.last)")
        if opened.state.configuration.voters == [node.id], !opened.state.configuration.isJoint { post(.campaign, to: node) }
        scheduleTurn(node, process)
    }

    /// What a member finds on its disk is what was durable, or that and the write which was under way.
    private func recovered(_ node: SimulatedNode, _ shadow: ShadowLog) -> Violation? {
        guard node.hasBooted else { return nil }
        // A snapshot was installed in the store, and the log had not followed yet.
        if shadow.last == shadow.start, shadow.start > node.durable.last, shadow.start <= node.installedThrough { return nil }
        func agrees(_ expected: ShadowLog) -> Bool {
            guard shadow.hardState == expected.hardState, shadow.last == expected.last else { return false }
            return shadow.last == shadow.start || shadow.lastTerm == expected.lastTerm
        }
        if agrees(node.durable) { return nil }
        if let after = node.durableAfterWrite {
            if agrees(after) { return nil }
            // Several batches make one write, all or nothing; a started segment repeats the hard state alone.
        }
        let expected = node.durable
        return Violation("recovery", "found start \(shadow.start) term \(shadow.hardState.term.rawValue) vote \(shadow.hardState.vote) last \(shadow.last)@\(shadow.lastTerm), durable were start \(node.durable.start) "
            + "term \(expected.hardState.term.rawValue) vote \(expected.hardState.vote) last \(expected.last)@\(expected.lastTerm)"
            + (node.durableAfterWrite.map { ", or after the last write term \($0.hardState.term.rawValue) last \($0.last)@\($0.lastTerm)" } ?? ""))
    }

    /// The newest table of members that anybody has applied.
    func membershipChanged(_ membership: Membership, of process: SimulatedNode.Process) {
        let index = process.replica.applied.index.rawValue
        guard index > membershipIndex else { return }
        membershipIndex = index
        orphans = membership.members.map(\.id).filter { nodeOf[$0.rawValue] == nil }
        for node in nodes where node.isMember && membership.isRemoved(node.id) {
            node.isMember = false
            statistics.membershipChanges += 1
        }
    }

    /// The member knows that it was removed: its process ends, and its machine may get another member.
    func left(_ node: SimulatedNode) {
        stop(node, .kill)
        node.isMember = false
        node.isLost = false
    }

    enum Death: Equatable {
        /// The process dies; what it wrote stays with the system.
        case kill
        /// The machine dies too: what was not synced is gone, in any part.
        case powerCut
        /// Its disk or store failed.
        case failed(String)
    }

    func stop(_ node: SimulatedNode, _ death: Death) {
        guard let process = node.process else { return }
        trace?.add(self, "n\(node.number) ends: \(death)")
        statistics.deaths += 1
        if !process.logInFlight.isEmpty, death == .kill || death == .powerCut {
            // The write that was under way got some way.
            var after = node.durable
            for case .persist(let batch) in process.logInFlight { after.take(batch) }
            node.durableAfterWrite = after
            node.disk.faults = [.powerCut(after: Int(diskChance.next() % 7))]
            if (try? process.log.write(process.logInFlight)) != nil { _ = try? process.log.release(process.logInFlight) }
        }
        process.log.close()
        let wasFailing = !node.disk.faults.isEmpty && !node.disk.isOff
        if death == .powerCut { node.losePower(using: &diskChance) } else { node.disk.restorePower() }
        // A commit under way happened or did not, as a whole.
        if let commit = process.commitInFlight, !wasFailing, diskChance.next() & 1 == 0, let number = try? node.stores.numbers().max(), number == process.storeNumber {
            try? node.stores.open(number).commit(commit.batch)
        }
        node.disk.capacityBytes = nil
        node.process = nil
        node.life += 1
        node.isPaused = false
        network.died(node, self)
        world.died(node, self)
    }

    /// The loop takes it up at once, or later together with what else comes by then.
    private func arrived(_ event: ReplicaEvent, at node: SimulatedNode) {
        guard let process = node.process else { return }
        process.mailbox.append(event)
        if process.isTurnDue || node.isPaused { return }
        if scheduling.next() & 3 != 0 { turn(node) } else { scheduleTurn(node, process) }
    }

    func post(_ event: ReplicaEvent, to node: SimulatedNode) {
        guard let process = node.process else { return }
        process.mailbox.append(event)
        scheduleTurn(node, process)
    }

    func scheduleTurn(_ node: SimulatedNode, _ process: SimulatedNode.Process) {
        guard !process.isTurnDue, !node.isPaused else { return }
        process.isTurnDue = true
        schedule(.turn(node, life: node.life), after: Int64(scheduling.next() % 100_000))
    }

    func setPaused(_ node: SimulatedNode, _ paused: Bool) {
        guard let process = node.process, node.isPaused != paused else { return }
        node.isPaused = paused
        process.isTurnDue = false
        if !paused { scheduleTurn(node, process) }
    }

    /// One batch, as `ReplicaDriver.turn`: everything that waits goes in, everything that came of it goes out.
    private func turn(_ node: SimulatedNode) {
        guard let process = node.process, !node.isPaused else { return }
        process.isTurnDue = false
        let replica = process.replica
        let batch = process.mailbox
        process.mailbox.removeAll(keepingCapacity: true)
        let now = node.clock.now(time)
        let wall = node.clock.wall(time)
        for event in batch { replica.handle(event, at: now, wall: wall, into: &process.effects) }
        if replica.nextDeadline <= now { replica.handle(.timer, at: now, wall: wall, into: &process.effects) }
        replica.flush(at: now, wall: wall, into: &process.effects)
        if replica.hasBackgroundWork {
            replica.work(at: now, into: &process.effects)
            if replica.hasBackgroundWork { scheduleTurn(node, process) }
        }
        statistics.turns += 1
        carryOut(node, process)
        guard violation == nil, node.process === process else { return }
        let elections = invariants.elections
        fail(invariants.turned(node, process, nodes) { index, entry in world.committed(index, entry, in: self) }, node)
        if invariants.elections > elections {
            world.setStable(since: nil)
            nemesis.elected(node, self)
        }
        if dials.users > 0 { fail(world.compareAccounts(of: node, process), node) }
        while let removed = removals.popLast() { left(removed) }
        guard node.process === process else { return }
        mix(UInt64(time) ^ node.id.rawValue << 48)
        mix(process.seen.term << 40 ^ process.seen.commit << 20 ^ process.seen.applied)
        if let install = process.waitingInstall, !replica.isCommittingBackend {
            process.waitingInstall = nil
            install()
        }
        arm(node, process)
    }

    private func arm(_ node: SimulatedNode, _ process: SimulatedNode.Process) {
        let due = max(node.clock.moment(of: process.replica.nextDeadline), time + 1_000)
        guard due < process.timerAt || process.timerAt <= time else { return }
        process.timerAt = due
        process.timerNumber += 1
        guard due < .max else { return }
        schedule(.timer(node, life: node.life, number: process.timerNumber), after: due - time)
    }

    /// The node's clock changed: its timer is set anew.
    func clockChanged(_ node: SimulatedNode) {
        guard let process = node.process else { return }
        process.timerAt = .max
        scheduleTurn(node, process)
    }

    private func carryOut(_ node: SimulatedNode, _ process: SimulatedNode.Process) {
        let effects = process.effects
        process.effects.removeAll()
        for batch in effects.persist {
            if let violation = invariants.appending(batch, on: process) { return fail(violation, node) }
            process.shadow.take(batch)
            process.logJobs.append(.persist(batch))
        }
        for message in effects.messages {
            if let violation = invariants.sending(message, from: node) { return fail(violation, node) }
            network.send(message, from: node, self)
        }
        for commit in effects.backendCommits {
            precondition(process.commitInFlight == nil, "two commits in flight")
            process.commitInFlight = commit
            process.commitRevision = process.seen.revision
            schedule(.committed(node, life: node.life), after: min(Int64.random(in: dials.commitTime, using: &diskChance) * node.slowness, Simulation.slowestDisk))
        }
        if let index = effects.compactLog { process.logJobs.append(.compact(upTo: index)) }
        writeLog(node, process)
        for peer in effects.snapshots { begin(SnapshotTransfer(from: node, to: peer, self)) }
        for (token, answer) in effects.answers { world.answered(token, answer, by: node, self) }
        for grant in effects.grants { world.granted(grant, by: node, self) }
        for output in effects.watch { world.watched(output, by: node, self) }
        for stream in effects.leaderlessStreams { world.streamEnded(stream, by: node, self) }
        for note in effects.notes { take(note, of: node, process) }
    }

    private func take(_ note: ReplicaNote, of node: SimulatedNode, _ process: SimulatedNode.Process) {
        trace?.add(self, "n\(node.number) \(note)")
        switch note {
        case .cannotApply(let index, let reason): fail(Violation("apply", "entry \(index.rawValue) cannot be applied: \(reason)"), node)
        case .diverged(let divergence): fail(Violation("diverged", "\(divergence)"), node)
        case .statesDiffer(let index): fail(Violation("diverged", "no two states agree at \(index.rawValue)"), node)
        case .raft(.messageRefused(let peer, let fault)) where !nemesis.toleratesBadMessages:
            fail(Violation("message", "a message from \(peer) was refused: \(fault)"), node)
        case .snapshotInstalled: statistics.snapshots += 1
        case .membershipChanged(let membership): membershipChanged(membership, of: process)
        case .raft(.configurationChanged): nemesis.changesMembers(node, self)
        case .removed: removals.append(node)
        default: break
        }
    }

    // MARK: Disks

    /// However slow, a disk completes after this long. One that never does is a stuck one.
    private static let slowestDisk: Int64 = 10_000_000_000

    /// As `DiskThread`: whatever waits becomes one write and one sync.
    private func writeLog(_ node: SimulatedNode, _ process: SimulatedNode.Process) {
        guard process.logInFlight.isEmpty, !process.logJobs.isEmpty else { return }
        process.logInFlight = process.logJobs
        process.logJobs = []
        schedule(.logWritten(node, life: node.life), after: max(max(node.stuckUntil, node.logStuckUntil) - time, 0) + min(Int64.random(in: dials.syncTime, using: &diskChance) * node.slowness, Simulation.slowestDisk))
    }

    private func logWritten(_ node: SimulatedNode) {
        guard let process = node.process else { return }
        let stuckUntil = max(node.stuckUntil, node.logStuckUntil)
        if stuckUntil > time { return schedule(.logWritten(node, life: node.life), after: stuckUntil - time) }
        let jobs = process.logInFlight
        do throws(LogError) {
            let ticket = try process.log.write(jobs)
            for case .persist(let batch) in jobs { node.durable.take(batch) }
            let paths = try process.log.release(jobs)
            process.logInFlight = []
            if let ticket { post(.persisted(ticket), to: node) }
            if !paths.isEmpty { schedule(.remove(node, life: node.life, paths: paths), after: Int64(diskChance.next() % 50_000_000)) }
            statistics.syncs += 1
            writeLog(node, process)
        } catch {
            // Some of it may have arrived; nothing more is written by this process.
            var after = node.durable
            for case .persist(let batch) in jobs { after.take(batch) }
            node.durableAfterWrite = after
            process.logInFlight = []
            statistics.diskFailures += 1
            stop(node, .failed("\(error)"))
            nemesis.ended(node, self)
        }
    }

    private func backendCommitted(_ node: SimulatedNode) {
        guard let process = node.process, let commit = process.commitInFlight else { return }
        if node.stuckUntil > time { return schedule(.committed(node, life: node.life), after: node.stuckUntil - time) }
        do {
            try process.backend.commit(commit.batch)
            process.commitInFlight = nil
            node.lowestRevision = max(node.lowestRevision, process.commitRevision)
            post(.backendCommitted(commit.token, process.backend.size), to: node)
        } catch {
            process.commitInFlight = nil
            statistics.diskFailures += 1
            stop(node, .failed("\(error)"))
            nemesis.ended(node, self)
        }
    }
}

// MARK: - Checkpoints

extension Simulation {
    /// All is well again: everything that is compared only now and then.
    func checkpoint() {
        let members = nodes.filter { $0.isMember && $0.process != nil }
        // What nobody will ask about any more is forgotten, so that long runs fit in memory.
        let applied = members.map { min($0.process!.seen.applied, $0.durable.last) }.min() ?? 0
        for node in members {
            node.process!.shadow.trim(through: min(applied, node.process!.seen.applied))
            node.durable.trim(through: applied)
        }
        if applied > 2000 { invariants.ledger.forget(before: applied - 2000) }
        for node in members {
            if let violation = bounds(node) { return fail(violation, node) }
        }
        fail(world.checkpoint(self))
    }

    /// Memory is bounded everywhere.
    private func bounds(_ node: SimulatedNode) -> Violation? {
        let status = node.process!.replica.status()
        let options = dials.options
        if status.raft.uncommittedBytes > options.raft.maxUncommittedBytes + options.maxRequestBytes + 4096 {
            return Violation("bounds", "\(status.raft.uncommittedBytes) uncommitted bytes, the bound is \(options.raft.maxUncommittedBytes)")
        }
        for peer in status.raft.peers where peer.inflightMessages > options.raft.maxInflightMessages || peer.inflightBytes > options.raft.maxInflightBytes + options.maxRequestBytes + 4096 {
            return Violation("bounds", "\(peer.inflightMessages) messages, \(peer.inflightBytes) bytes on the way to \(peer.id)")
        }
        return nil
    }

    /// The end of the run: heals everything and demands what a rest demands; then nobody starts anything any more, and everybody must have everything.
    func finish() {
        nemesis.finish(self)
        let end = time + 900_000_000_000
        while violation == nil, !nemesis.isFinished, time < end { run(until: time + 50_000_000) }
        world.quiesce()
        let patience = time + nemesis.patience
        while violation == nil, let open = unfinished {
            guard time < max(patience, world.lastArrival + 1_000_000_000) else { return fail(Violation("liveness", "at the end \(open)")) }
            run(until: time + 50_000_000)
        }
        if violation == nil { fail(world.finish(self)) }
    }

    private var unfinished: String? {
        if !world.isIdle { return "calls are still open" }
        let members = nodes.filter { $0.isMember && !$0.isLost }
        for node in members where node.process?.seen.revision != world.truth.revision {
            return "n\(node.number) is at revision \(node.process?.seen.revision ?? 0) of \(world.truth.revision)"
        }
        return world.lacking
    }
}
