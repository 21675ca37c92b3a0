import Base
import Client
import Synchronization
import UI

/// A scenario's stage on the nodes of a console, or of a scenario that runs without one: the session's own faults, client, load and canary.
final class SessionStage: ScenarioStage {
    let nodes: [HostedNode]
    let log = ScenarioLog()
    private let session: ClusterSession
    private let board: FaultBoard
    private let host: any NodeHost
    private let endpoints: [UInt64: Endpoint]
    private let name: String
    /// The nodes are thrown away afterwards: those that are down need not start again.
    private let isOwner: Bool
    private let state = Mutex(State())

    private struct State {
        var heard: [UInt64: Heard] = [:]
        var tasks: [Task<Void, Never>] = []
        var isLoading = false
        var hasWritten = false
        /// The console goes, and the nodes with it: nothing is to be mended.
        var isAbandoned = false
    }

    private struct Heard {
        var status: MemberStatus
        var at: Int64
    }

    private static let lookMilliseconds: Int64 = 20
    private static let askTimeoutMilliseconds: Int64 = 500
    /// An answer older than this says nothing about now.
    private static let staleNanoseconds: Int64 = 800_000_000
    /// The load reads back everything for ten seconds at most, after its last operations had five.
    private static let loadEndMilliseconds: Int64 = 20_000

    init(_ session: ClusterSession, scenario: String, isOwner: Bool) throws {
        guard let host = session.host, let board = session.faults else { throw NodeHostError("only nodes that this console started can be played with") }
        self.session = session
        self.board = board
        self.host = host
        nodes = host.nodes
        name = scenario
        self.isOwner = isOwner
        endpoints = Dictionary(uniqueKeysWithValues: try host.nodes.map { ($0.id, try Endpoint($0.clientEndpoint)) })
    }

    // MARK: Looking and listening

    func begin() async throws {
        guard await board.active.isEmpty else { throw NodeHostError("faults are on: heal all of them first") }
        guard !session.isLoading else { throw NodeHostError("the workload runs: stop it first") }
        session.mailbox.tap("scenario") { [log, nodes] event in
            log.heard(event)
            guard case .events(let events) = event else { return }
            for event in events {
                let (member, at) = (event.kind.endedMember, event.at.milliseconds)
                if let node = nodes.first(where: { $0.name == member }) { log.change { $0.tally.died(node.id, at: at) } }
            }
        }
        var tasks = nodes.map { node in
            Task.detached { [weak self] in
                while !Task.isCancelled, let self {
                    await self.ask(node.id)
                    try? await Task.sleep(for: .milliseconds(SessionStage.lookMilliseconds))
                }
            }
        }
        tasks.append(Task.detached { [weak self] in
            var count = 0
            while !Task.isCancelled, let self {
                let leader = self.views().agreedLeader, now = Clock.now().milliseconds
                self.log.change { $0.tally.saw(leader: leader?.id, term: leader?.term ?? 0, at: now) }
                // It would fall silent by itself after a while without trouble.
                if count % 50 == 0, leader != nil || count > 0 { self.session.canary.arm() }
                count += leader != nil || count > 0 ? 1 : 0
                try? await Task.sleep(for: .milliseconds(SessionStage.lookMilliseconds))
            }
        })
        state.withLock { $0.tasks = tasks }
    }

    private func ask(_ node: UInt64) async {
        let options = CallOptions(timeout: .milliseconds(SessionStage.askTimeoutMilliseconds))
        let began = Clock.monotonicNanoseconds()
        let status = try? await session.client.status(of: endpoints[node]!, options: options)
        // Of the time it was asked: the answer may have been given at any moment since.
        state.withLock { $0.heard[node] = status.map { Heard(status: $0, at: began) } }
    }

    func views() -> [NodeView] {
        let heard = state.withLock { $0.heard }
        let now = Clock.monotonicNanoseconds()
        return host.statuses().map { status in
            let process: NodeView.Process = switch status.process {
            case .starting: .starting
            case .running, .isolated: .running
            case .paused: .paused
            case .dead: .down
            }
            guard let last = heard[status.id], now - last.at < SessionStage.staleNanoseconds, last.status.header.memberID.rawValue == status.id else {
                return NodeView(id: status.id, process: process, isHeard: false)
            }
            return NodeView(id: status.id, process: process, isHeard: true, leader: last.status.leader.rawValue, term: last.status.raftTerm.rawValue, commit: last.status.raftIndex.rawValue,
                            applied: last.status.raftAppliedIndex.rawValue, revision: last.status.header.revision.rawValue)
        }
    }

    // MARK: Doing

    func add(_ fault: Fault, milliseconds: Int64?) async throws -> String {
        session.canary.arm()
        return try await board.add(fault, milliseconds: milliseconds, by: name)
    }

    func heal(_ fault: Fault) async throws { try await board.heal(fault) }
    func faults() async -> [Fault] { await board.active.filter { $0.by == name }.map(\.fault) }

    func restart(_ node: UInt64) async throws {
        session.canary.arm()
        try await board.restart(node)
    }

    func transferLeadership(to node: UInt64) async throws {
        guard let leader = views().agreedLeader, let endpoint = endpoints[leader.id] else { throw NodeHostError("no leader is known to ask") }
        guard leader.id != node else { return }
        try await session.client.moveLeader(to: MemberID(node), options: CallOptions(timeout: .seconds(10), endpoint: endpoint))
    }

    func setLoad(_ settings: WorkloadSettings?) async throws {
        if let settings {
            try session.startLoad(settings)
            state.withLock { $0.isLoading = true }
            return
        }
        guard state.withLock({ state in
            defer { state.isLoading = false }
            return state.isLoading
        }) else { return }
        let before = log.facts.endedLoads
        session.stopLoad()
        let limit = Clock.monotonicNanoseconds() + SessionStage.loadEndMilliseconds * 1_000_000
        while log.facts.endedLoads == before {
            guard Clock.monotonicNanoseconds() < limit else { throw NodeHostError("what the load wrote was not read back within \(SessionStage.loadEndMilliseconds / 1_000) s") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    func put(_ key: String, _ value: String, timeoutMilliseconds: Int64) async throws {
        state.withLock { $0.hasWritten = true }
        // Of the leader, where one is known: a node that is cut off takes a write and can answer nothing.
        let leader = views().agreedLeader.flatMap { endpoints[$0.id] }
        _ = try await session.client.put(key, value, options: CallOptions(timeout: .milliseconds(timeoutMilliseconds), endpoint: leader))
    }

    func compact() async throws -> Int64 {
        guard let revision = views().map(\.revision).max(), revision > 0 else { throw NodeHostError("no revision is known") }
        _ = try await session.client.compact(Revision(revision))
        return revision
    }

    func hashes() async throws -> (revision: Int64, hashes: [UInt64: UInt32]) {
        let options = CallOptions(timeout: .seconds(2))
        // The newest that all have, so that the comparison waits for nobody who keeps up.
        var revision = Int64.max
        for (node, endpoint) in endpoints where host.statuses().contains(where: { $0.id == node && [.running, .isolated].contains($0.process) }) {
            revision = min(revision, try await session.client.status(of: endpoint, options: options).header.revision.rawValue)
        }
        var hashes: [UInt64: UInt32] = [:]
        for (node, endpoint) in endpoints { hashes[node] = try? await session.client.hashKV(of: endpoint, revision: Revision(revision), options: options).hash }
        return (revision, hashes)
    }

    // MARK: The end

    func end() async {
        let (tasks, isLoading, hasWritten, isAbandoned) = state.withLock { state in
            defer { state.tasks = [] }
            return (state.tasks, state.isLoading, state.hasWritten, state.isAbandoned)
        }
        defer {
            for task in tasks { task.cancel() }
            session.mailbox.tap("scenario", nil)
        }
        if isAbandoned { return }
        if isLoading {
            state.withLock { $0.isLoading = false }
            session.stopLoad()
        }
        for fault in await faults().reversed() where !(isOwner && [.kill, .stop, .tornTail].contains(fault.kind)) { try? await board.heal(fault) }
        if isOwner { return }
        for status in host.statuses() {
            if case .dead = status.process { try? await board.restart(status.id) }
        }
        if hasWritten { _ = try? await session.client.delete(ScenarioRunner.probeKey, options: CallOptions(timeout: .seconds(2))) }
    }

    /// Before the session stops in the middle of it.
    func abandon() { state.withLock { $0.isAbandoned = true } }
}

extension ClusterEvent.Kind {
    /// Of the news that a member is gone or stands still.
    fileprivate var endedMember: String? {
        switch self {
        case .memberDown(let member, _, _, _): member
        case .paused(let member): member
        default: nil
        }
    }
}
