import Base
import Raft
import Replica
import Store

/// Links between members: each direction on its own delays, loses, doubles, reorders and cuts.
///
/// With `keepsOrder` a link is like a TCP connection: what arrives, arrives in order, and is lost only with the connection. Without, it is worse
/// than any that the shipped transport makes, which consensus must bear all the same.
final class SimulatedNetwork {
    struct Link: Hashable {
        var from: UInt64
        var to: UInt64
    }
    private struct State {
        /// Cuts in force; the link is open when there is none.
        var cuts = 0
        var extraDelay: Int64 = 0
        var lastArrival: Moment = 0
    }
    private var links: [Link: State] = [:]
    private let latency: ClosedRange<Int64>
    private let dials: Dials
    var lossPerMille: Int
    var duplicatePerMille: Int
    private var generator: SeededGenerator

    init(_ dials: Dials, _ generator: SeededGenerator) {
        self.dials = dials
        latency = dials.latency
        lossPerMille = 0
        duplicatePerMille = 0
        self.generator = generator
    }

    func isOpen(_ from: MemberID, _ to: MemberID) -> Bool { (links[Link(from: from.rawValue, to: to.rawValue)]?.cuts ?? 0) == 0 }

    func cut(_ from: MemberID, _ to: MemberID, by count: Int) {
        links[Link(from: from.rawValue, to: to.rawValue), default: State()].cuts += count
    }
    func delay(_ from: MemberID, _ to: MemberID, by span: Int64) {
        links[Link(from: from.rawValue, to: to.rawValue), default: State()].extraDelay += span
    }

    /// How long something takes from one member to another now.
    func transit(_ from: MemberID, _ to: MemberID) -> Int64 {
        var span = Int64.random(in: latency, using: &generator)
        // A heavy tail.
        if generator.next() % 200 == 0 { span *= 10 }
        return span + (links[Link(from: from.rawValue, to: to.rawValue)]?.extraDelay ?? 0)
    }

    /// Encoded here and decoded on arrival, so that the coding is part of every run.
    func send(_ message: PeerMessage, from node: SimulatedNode, _ simulation: Simulation) {
        guard let target = simulation.nodeOf[message.to.rawValue], target !== node, target.process != nil, isOpen(node.id, target.id) else { return }
        if lossPerMille > 0, generator.next() % 1000 < UInt64(lossPerMille) { return }
        var writer = ByteWriter(capacity: 64)
        message.encodeBody(into: &writer)
        let copies = duplicatePerMille > 0 && generator.next() % 1000 < UInt64(duplicatePerMille) ? 2 : 1
        simulation.statistics.messages += 1
        for _ in 0..<copies {
            let link = Link(from: node.id.rawValue, to: target.id.rawValue)
            var arrival = simulation.time + transit(node.id, target.id)
            if dials.keepsOrder { arrival = max(arrival, (links[link]?.lastArrival ?? 0) + 1) }
            links[link, default: State()].lastArrival = max(arrival, links[link]?.lastArrival ?? 0)
            if case .raft(let raft) = message.body, case .timeoutNow = raft.body { simulation.nemesis.abdicates(node, arrival: arrival, simulation) }
            simulation.schedule(.message(to: target, life: target.life, from: node.id, bytes: writer.bytes), after: arrival - simulation.time)
        }
    }

    /// The others find the connections of a dead process closed and new ones refused: after everything that it sent, and only across open links.
    func died(_ node: SimulatedNode, _ simulation: Simulation) {
        for other in simulation.nodes where other !== node && other.process != nil && isOpen(node.id, other.id) && isOpen(other.id, node.id) {
            let last = links[Link(from: node.id.rawValue, to: other.id.rawValue)]?.lastArrival ?? 0
            let delay = max(last - simulation.time, 0) + transit(node.id, other.id)
            simulation.schedule(.post(other, life: other.life, .peerUnreachable(node.id)), after: delay)
            simulation.schedule(.post(other, life: other.life, .peerGone(node.id)), after: delay + 1)
        }
    }

    /// A connection breaks and is made again: what is on the way is lost, the sender learns it.
    func reset(_ from: SimulatedNode, _ to: SimulatedNode, _ simulation: Simulation) {
        simulation.schedule(.post(from, life: from.life, .peerUnreachable(to.id)), after: transit(to.id, from.id))
    }
}

/// A store's state on its way from a leader to a follower, piece by piece over a connection of its own.
final class SnapshotTransfer {
    let from: SimulatedNode
    let fromLife: Int
    let to: SimulatedNode?
    let toLife: Int
    let peer: MemberID
    let startedAt: Moment
    /// Each piece takes this many times as long as a message.
    fileprivate var slowness: Int64 = 1
    fileprivate var reader: (any BackendReader)?
    fileprivate var cutter: SnapshotCutter?
    fileprivate var assembly: SnapshotAssembly?
    fileprivate var storeNumber: UInt64 = 0
    fileprivate var isWaiting = false
    fileprivate var isFinished = false

    init(from: SimulatedNode, to peer: MemberID, _ simulation: Simulation) {
        self.from = from
        fromLife = from.life
        self.peer = peer
        to = simulation.nodeOf[peer.rawValue]
        toLife = to?.life ?? 0
        startedAt = simulation.time
    }
}

extension Simulation {
    /// As long as one side stands still, a transfer waits; then it is given up. (`SnapshotSender.stallTimeout`)
    private static let stallTimeout: Int64 = 60_000_000_000

    func begin(_ transfer: SnapshotTransfer) {
        guard let process = transfer.from.process, let target = transfer.to, target.process != nil, network.isOpen(transfer.from.id, target.id) else {
            return schedule(.post(transfer.from, life: transfer.fromLife, .snapshotSent(to: transfer.peer, succeeded: false)), after: 1_000_000)
        }
        do {
            let reader = try process.backend.makeReader()
            transfer.reader = reader
            transfer.cutter = try SnapshotCutter(reader, chunkBytes: dials.snapshotChunkBytes)
        } catch {
            return schedule(.post(transfer.from, life: transfer.fromLife, .snapshotSent(to: transfer.peer, succeeded: false)), after: 1_000_000)
        }
        transfer.slowness = nemesis.sendsSnapshot(from: transfer.from, to: transfer.peer, self)
        schedule(.transfer(transfer), after: network.transit(transfer.from.id, target.id))
    }

    /// One piece arrives.
    func step(_ transfer: SnapshotTransfer) {
        guard let target = transfer.to, !transfer.isFinished else { return }
        let bothLive = transfer.from.life == transfer.fromLife && target.life == transfer.toLife && target.process != nil
        guard bothLive, network.isOpen(transfer.from.id, target.id), network.isOpen(target.id, transfer.from.id),
              time - transfer.startedAt < Simulation.stallTimeout || !(transfer.from.isPaused || target.isPaused) else { return give(up: transfer, target) }
        if transfer.from.isPaused || target.isPaused || target.stuckUntil > time || transfer.isWaiting {
            return schedule(.transfer(transfer), after: 20_000_000)
        }
        do {
            guard let piece = try transfer.cutter!.next() else { return }
            if piece.kind == .begin {
                // Once its last chunk is there it is whole, and a member that starts finds it, installed or not.
                target.installedThrough = max(target.installedThrough, transfer.cutter!.metadata.position.index.rawValue)
                transfer.storeNumber = try (target.stores.numbers().max() ?? 0) + 1
                transfer.assembly = SnapshotAssembly(into: try target.stores.open(transfer.storeNumber))
            } else if let metadata = try transfer.assembly!.take(piece) {
                return arrived(transfer, metadata, target)
            }
            schedule(.transfer(transfer), after: network.transit(transfer.from.id, target.id) * (nemesis.isTrouble ? transfer.slowness : 1))
        } catch {
            // The receiver's disk failed: its store thread stops the node.
            give(up: transfer, target)
        }
    }

    private func give(up transfer: SnapshotTransfer, _ target: SimulatedNode) {
        statistics.failedTransfers += 1
        transfer.isFinished = true
        transfer.reader?.release()
        if target.life == transfer.toLife, target.process != nil, transfer.assembly != nil { target.stores.remove(transfer.storeNumber) }
        transfer.assembly = nil
        schedule(.post(transfer.from, life: transfer.fromLife, .snapshotSent(to: transfer.peer, succeeded: false)), after: 1_000_000)
    }

    /// Everything is there: load it, and when the member still wants it, switch over as soon as no commit is in flight. (`Node.install`)
    private func arrived(_ transfer: SnapshotTransfer, _ metadata: SnapshotMetadata, _ target: SimulatedNode) {
        guard let process = target.process, process.replica.wants(metadata), let backend = transfer.assembly?.backend else { return give(up: transfer, target) }
        transfer.isWaiting = true
        let install = { [self] in
            guard !transfer.isFinished, target.process === process, process.replica.wants(metadata), let reader = try? backend.makeReader(), let state = try? ReplicaState.load(from: reader),
                  (try? target.stores.sync()) != nil else { return give(up: transfer, target) }
            if let violation = Invariants.installing(metadata, on: process) { return fail(violation, target) }
            process.backend = backend
            process.storeNumber = transfer.storeNumber
            process.shadow.snapshotConfiguration = metadata.configuration
            process.replica.install(metadata, from: transfer.from.id, state: state, backend: backend, reader: reader, at: target.clock.now(time),
                                    wall: target.clock.wall(time), into: &process.effects)
            transfer.isFinished = true
            transfer.reader?.release()
            schedule(.post(transfer.from, life: transfer.fromLife, .snapshotSent(to: transfer.peer, succeeded: true)), after: network.transit(target.id, transfer.from.id))
            scheduleTurn(target, process)
        }
        guard process.replica.isCommittingBackend else { return install() }
        process.waitingInstall = install
        // Looks after it: the target may die meanwhile.
        schedule(.transfer(transfer), after: 20_000_000)
    }
}
