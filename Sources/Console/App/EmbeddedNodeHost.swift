import Base
import Foundation
import Logging
import NIOConcurrencyHelpers
import Raft
import Replica
import Server
import UI

/// The playground's nodes inside this process: real sockets, real files, and the switches that only their owner has.
final class EmbeddedNodeHost: NodeHost, @unchecked Sendable {
    // @unchecked: what changes is under `state`'s lock.
    let nodes: [HostedNode]
    let dataDirectory: String
    let isTemporary: Bool
    private let cluster: EmbeddedCluster

    private struct Life {
        var process = NodeProcessState.starting
        var startedAtMilliseconds: Int64 = 0
    }
    private let lives: NIOLockedValueBox<[UInt64: Life]>
    private let plan = NIOLockedValueBox(FaultPlan())
    private let handler = NIOLockedValueBox<(@Sendable (NodeEvent) -> Void)?>(nil)

    init(cluster: EmbeddedCluster, dataDirectory: String, isTemporary: Bool) {
        self.cluster = cluster
        self.dataDirectory = dataDirectory
        self.isTemporary = isTemporary
        nodes = cluster.nodes.map {
            HostedNode(id: $0.id.rawValue, name: $0.name, clientEndpoint: $0.clientURL.authority, peerEndpoint: $0.peerURL.authority)
        }
        lives = NIOLockedValueBox(Dictionary(uniqueKeysWithValues: cluster.nodes.map { ($0.id.rawValue, Life()) }))
    }

    func observe(_ handler: @escaping @Sendable (NodeEvent) -> Void) { self.handler.withLockedValue { $0 = handler } }

    func start() async throws {
        do { try await cluster.start() } catch { throw NodeHostError("\(error)") }
        for node in nodes { hasStarted(node.id) }
    }

    // MARK: News

    private static func now() -> Int64 { SystemClock().wall().milliseconds }

    private func say(_ node: UInt64, _ process: NodeProcessState) {
        handler.withLockedValue { $0 }?(NodeEvent(node: node, atMilliseconds: EmbeddedNodeHost.now(), process: process))
    }

    private func set(_ node: UInt64, _ process: NodeProcessState) {
        let changed = lives.withLockedValue { lives in
            guard lives[node]!.process != process else { return false }
            lives[node]!.process = process
            if case .running = process, lives[node]!.startedAtMilliseconds == 0 { lives[node]!.startedAtMilliseconds = EmbeddedNodeHost.now() }
            if case .dead = process { lives[node]!.startedAtMilliseconds = 0 }
            return true
        }
        if changed { say(node, process) }
    }

    private func runningState(_ id: UInt64) -> NodeProcessState {
        plan.withLockedValue { $0 }.isCutOff(id, among: nodes.map(\.id)) ? .isolated : .running
    }

    private func hasStarted(_ id: UInt64) {
        set(id, runningState(id))
        guard let node = cluster.node(MemberID(id)) else { return }
        node.ended.whenSuccess { [weak self] error in
            // A killed node has said so itself; what remains is one that could not go on.
            if let error { self?.set(id, .dead(reason: "\(error)")) }
        }
    }

    func statuses() -> [NodeStatus] {
        lives.withLockedValue { lives in
            nodes.map { NodeStatus(id: $0.id, process: lives[$0.id]!.process, startedAtMilliseconds: lives[$0.id]!.startedAtMilliseconds) }
        }
    }

    // MARK: Faults

    private func name(_ id: UInt64) -> String { nodes.first { $0.id == id }?.name ?? String(id, radix: 16) }

    private func running(_ id: UInt64) throws -> Node {
        guard let node = cluster.node(MemberID(id)) else { throw NodeHostError("\(name(id)) does not run: R starts it") }
        return node
    }

    func kill(_ id: UInt64) async throws {
        _ = try running(id)
        set(id, .dead(reason: "killed"))
        await cluster.kill(MemberID(id))
    }

    func stop(_ id: UInt64) async throws {
        await end(try running(id), id)
        set(id, .dead(reason: "stopped"))
    }

    private func end(_ node: Node, _ id: UInt64) async {
        // One that stands still can neither hand over nor finish what it has begun.
        await node.setPaused(false)
        await cluster.stop(MemberID(id))
    }

    func restart(_ id: UInt64) async throws {
        if let node = cluster.node(MemberID(id)) { await end(node, id) }
        set(id, .starting)
        do {
            try await cluster.start(MemberID(id))
        } catch {
            set(id, .dead(reason: "\(error)"))
            throw NodeHostError("\(name(id)): \(error)")
        }
        hasStarted(id)
    }

    func pause(_ id: UInt64) async throws {
        let node = try running(id)
        set(id, .paused)
        await node.setPaused(true)
    }

    func resume(_ id: UInt64) async throws {
        await (try running(id)).setPaused(false)
        set(id, runningState(id))
    }

    func tearLog(_ id: UInt64) async throws {
        do { try await cluster.tearLog(MemberID(id)) } catch { throw NodeHostError("\(error)") }
    }

    var faultSupport: FaultSupport { FaultSupport() }

    func obey(_ plan: FaultPlan) async throws {
        self.plan.withLockedValue { $0 = plan }
        cluster.obey(plan)
        for node in nodes {
            let state = runningState(node.id)
            let isRunning = lives.withLockedValue { [.running, .isolated].contains($0[node.id]!.process) }
            if isRunning { set(node.id, state) }
        }
    }

    // MARK: The end

    func shutDown() async {
        if isTemporary {
            await cluster.abandon()
        } else {
            // A clean stop needs its disk.
            cluster.obey(FaultPlan())
            await cluster.stop()
        }
        abandon()
    }

    func abandon() {
        if isTemporary { try? FileManager.default.removeItem(atPath: dataDirectory) }
    }
}
