import Foundation
import Processes
import Server
import Synchronization
import UI

/// What kind of program the nodes of a `ProcessNodeHost` are.
protocol NodeProgram: Sendable {
    var engine: String { get }
    /// Path and arguments that run the node in the foreground, bound to this process by `qd_end_with_parent`.
    func command(for node: HostedNode) -> [String]
    /// Where a node listens once it has started.
    func port(of node: HostedNode) -> Int
    /// Children read `Supervision.Order`s from their standard input.
    var takesOrders: Bool { get }
    var faultSupport: FaultSupport { get }
    /// Before the first node starts.
    func prepare() async throws
    func hasStarted(_ node: HostedNode, as process: pid_t)
    /// What the plan asks of this process itself (links that run through it).
    func obey(_ plan: FaultPlan) async
    /// Cuts the log of a dead node.
    func tearLog(of node: HostedNode) throws
    /// After the last node has ended.
    func shutDown() async
}

/// The playground's nodes as processes of their own: killing is SIGKILL, pausing SIGSTOP, stopping SIGTERM. None outlives this process.
final class ProcessNodeHost: NodeHost {
    let nodes: [HostedNode]
    let dataDirectory: String
    let isTemporary: Bool
    private let program: any NodeProgram
    private let funnel: LogFunnel
    private let reader: NodeLogReader

    private struct Life {
        var state = NodeProcessState.starting
        var process: ChildProcess?
        var startedAtMilliseconds: Int64 = 0
        /// Why it will end, when that is our doing.
        var endReason: String?
        var lastLine: LogLine?
    }
    private let lives: Mutex<[UInt64: Life]>
    private let plan = Mutex(FaultPlan())
    private let handler = Mutex<(@Sendable (NodeEvent) -> Void)?>(nil)
    private let isOver = Mutex(false)

    /// A node listens within a fraction of a second; a large store or a loaded machine takes longer.
    private static let startLimitMilliseconds: Int64 = 30_000
    /// A clean stop hands leadership over and writes what is left.
    private static let stopLimitMilliseconds = 10_000
    /// All nodes at once, at the end of the console.
    private static let shutDownLimitMilliseconds = 3_000

    init(program: any NodeProgram, nodes: [HostedNode], dataDirectory: String, isTemporary: Bool, funnel: LogFunnel) {
        self.program = program
        self.nodes = nodes
        self.dataDirectory = dataDirectory
        self.isTemporary = isTemporary
        self.funnel = funnel
        reader = NodeLogReader(names: Dictionary(uniqueKeysWithValues: nodes.map { ($0.id, $0.name) }))
        lives = Mutex(Dictionary(uniqueKeysWithValues: nodes.map { ($0.id, Life()) }))
    }

    var engine: String? { program.engine }
    var faultSupport: FaultSupport { program.faultSupport }

    func observe(_ handler: @escaping @Sendable (NodeEvent) -> Void) { self.handler.withLock { $0 = handler } }

    // MARK: Starting

    func start() async throws {
        try await program.prepare()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for node in nodes { group.addTask { try await self.start(node) } }
            // Those that start go on; the person sees what is wrong with the others.
            var first: (any Error)?
            while let result = await group.nextResult() {
                if case .failure(let error) = result { first = first ?? error }
            }
            if let first { throw first }
        }
    }

    private func start(_ node: HostedNode) async throws {
        let id = node.id
        // What is still said of the life before is about nobody any more: it must not end the new one.
        lives.withLock { $0[id]!.process = nil }
        set(id, .starting)
        let environment = ChildProcess.nodeEnvironment
        let process: ChildProcess
        do {
            process = try await ChildProcess.start(program.command(for: node), environment: environment, takesInput: program.takesOrders,
                                                  line: { [weak self] in self?.heard($0, from: id) },
                                                  ended: { [weak self] in self?.ended($0, $1, id) })
        } catch {
            set(id, .dead(reason: "\(error)"))
            throw NodeHostError("\(node.name): \(error)")
        }
        let isKept = isOver.withLock { isOver in
            guard !isOver else { return false }
            lives.withLock { lives in
                lives[id]!.process = process
                lives[id]!.endReason = nil
                lives[id]!.startedAtMilliseconds = Clock.now().milliseconds
            }
            return true
        }
        guard isKept else {
            process.signal(SIGKILL)
            throw NodeHostError("the console ends")
        }
        program.hasStarted(node, as: process.pid)
        // It waits for this before it starts.
        if program.takesOrders { process.send(Supervision.Order(plan: plan.withLock { $0 }).line) }
        let deadline = Clock.monotonicNanoseconds() + ProcessNodeHost.startLimitMilliseconds * 1_000_000
        while !LoopbackPort.isListening(program.port(of: node)) {
            if let end = process.end {
                let reason = reason(end, id)
                set(id, .dead(reason: reason), life: process)
                throw NodeHostError("\(node.name): \(reason)")
            }
            guard Clock.monotonicNanoseconds() < deadline else {
                throw NodeHostError("\(node.name) runs but does not listen after \(ProcessNodeHost.startLimitMilliseconds / 1_000) s")
            }
            try? await Task.sleep(for: .milliseconds(5))
        }
        // Paused or ended meanwhile: that stands.
        set(id, runningState(id), from: { $0 == .starting }, life: process)
    }

    private func runningState(_ id: UInt64) -> NodeProcessState {
        plan.withLock { $0.isCutOff(id, among: nodes.map(\.id)) } ? .isolated : .running
    }

    // MARK: News

    private func say(_ id: UInt64, _ process: NodeProcessState) {
        handler.withLock { $0 }?(NodeEvent(node: id, atMilliseconds: Clock.now().milliseconds, process: process))
    }

    private func set(_ id: UInt64, _ state: NodeProcessState, from isExpected: (NodeProcessState) -> Bool = { _ in true }, life process: ChildProcess? = nil) {
        let hasChanged = lives.withLock { lives in
            guard lives[id]!.state != state, isExpected(lives[id]!.state), process == nil || lives[id]!.process === process else { return false }
            lives[id]!.state = state
            if case .dead = state { lives[id]!.startedAtMilliseconds = 0 }
            return true
        }
        if hasChanged { say(id, state) }
    }

    private func heard(_ text: String, from id: UInt64) {
        guard !text.isEmpty else { return }
        let line = reader.line(text, of: id, at: Clock.now())
        if line.level >= .info { funnel.add(line) }
        lives.withLock { $0[id]!.lastLine = line }
    }

    private func ended(_ process: ChildProcess, _ end: ChildProcess.End, _ id: UInt64) {
        guard lives.withLock({ $0[id]!.process === process }) else { return } // before it was known: its starter tells
        let reason = reason(end, id)
        funnel.add(LogLine(at: Clock.now(), node: id, level: .warning, part: "process", text: "process \(process.pid): \(reason)"))
        set(id, .dead(reason: reason), life: process)
    }

    private func reason(_ end: ChildProcess.End, _ id: UInt64) -> String {
        lives.withLock { lives in
            if let reason = lives[id]!.endReason { return reason }
            if let signal = end.signal { return "killed by signal \(signal)" }
            // The last thing that our own program says is what was wrong, after its name.
            let last = lives[id]!.lastLine.map { ": " + ($0.text.hasPrefix("quarterdeck: ") ? String($0.text.dropFirst(13)) : $0.text) } ?? ""
            return "exit \(end.code)\(last)"
        }
    }

    func statuses() -> [NodeStatus] {
        lives.withLock { lives in
            nodes.map { node in
                let life = lives[node.id]!
                return NodeStatus(id: node.id, process: life.state, startedAtMilliseconds: life.startedAtMilliseconds)
            }
        }
    }

    /// The system's number of the node's process, while it lives.
    func processID(_ id: UInt64) -> pid_t? {
        lives.withLock { $0[id]?.process }.flatMap { $0.end == nil ? $0.pid : nil }
    }

    // MARK: What a person does to a node

    private func node(_ id: UInt64) -> HostedNode { nodes.first { $0.id == id }! }

    private func running(_ id: UInt64) throws -> ChildProcess {
        guard let process = lives.withLock({ $0[id]?.process }), process.end == nil else { throw NodeHostError("\(node(id).name) does not run: R starts it") }
        return process
    }

    private func end(_ process: ChildProcess, _ id: UInt64, by signal: Int32, _ reason: String) {
        lives.withLock { $0[id]!.endReason = reason }
        process.signal(signal)
        // A stopped process takes no signal but SIGKILL.
        if signal != SIGKILL { process.signal(SIGCONT) }
    }

    func kill(_ id: UInt64) async throws {
        let process = try running(id)
        end(process, id, by: SIGKILL, "killed")
        _ = await process.ended()
        // News in order: dead, and only then what the caller does next.
        set(id, .dead(reason: "killed"), life: process)
    }

    func stop(_ id: UInt64) async throws {
        let process = try running(id)
        end(process, id, by: SIGTERM, "stopped")
        if await process.ended(withinMilliseconds: ProcessNodeHost.stopLimitMilliseconds) == nil {
            lives.withLock { $0[id]!.endReason = "killed: it did not stop within \(ProcessNodeHost.stopLimitMilliseconds / 1_000) s" }
            process.signal(SIGKILL)
            _ = await process.ended()
        }
        set(id, .dead(reason: lives.withLock { $0[id]!.endReason } ?? "stopped"), life: process)
    }

    func restart(_ id: UInt64) async throws {
        if lives.withLock({ $0[id]?.process?.end == nil && $0[id]?.process != nil }) { try await stop(id) }
        try await start(node(id))
    }

    func pause(_ id: UInt64) async throws {
        let process = try running(id)
        process.signal(SIGSTOP)
        let deadline = Clock.monotonicNanoseconds() + 1_000_000_000
        while !process.isStopped, process.end == nil, Clock.monotonicNanoseconds() < deadline { try? await Task.sleep(for: .milliseconds(1)) }
        set(id, .paused, life: process)
    }

    func resume(_ id: UInt64) async throws {
        let process = try running(id)
        process.signal(SIGCONT)
        set(id, runningState(id), from: { $0 == .paused }, life: process)
    }

    func tearLog(_ id: UInt64) async throws {
        guard processID(id) == nil else { throw NodeHostError("\(node(id).name) runs: only a dead node's log can be torn") }
        try program.tearLog(of: node(id))
    }

    func obey(_ plan: FaultPlan) async throws {
        self.plan.withLock { $0 = plan }
        await program.obey(plan)
        if program.takesOrders {
            let line = Supervision.Order(plan: plan).line
            for process in lives.withLock({ $0.values.compactMap(\.process) }) where process.end == nil { process.send(line) }
        }
        for node in nodes { set(node.id, runningState(node.id), from: { $0 == .running || $0 == .isolated }) }
    }

    // MARK: The end

    func shutDown() async {
        isOver.withLock { $0 = true }
        let live = lives.withLock { lives in nodes.compactMap { node in lives[node.id]!.process.map { (node.id, $0) } } }
        for (id, process) in live {
            let isPaused = lives.withLock { $0[id]!.state == .paused }
            // What is thrown away needs no clean end; what is paused may not get one in time.
            if isTemporary || isPaused {
                end(process, id, by: SIGKILL, "killed")
            } else if program.takesOrders {
                // All stop together: nobody should wait for an heir.
                lives.withLock { $0[id]!.endReason = "stopped" }
                process.send(Supervision.Order(stops: true).line)
            } else {
                end(process, id, by: SIGTERM, "stopped")
            }
        }
        await withTaskGroup(of: Void.self) { group in
            for (_, process) in live {
                group.addTask {
                    guard await process.ended(withinMilliseconds: ProcessNodeHost.shutDownLimitMilliseconds) == nil else { return }
                    process.signal(SIGKILL)
                    _ = await process.ended()
                }
            }
        }
        await program.shutDown()
        abandon()
    }

    func abandon() {
        isOver.withLock { $0 = true }
        let live = lives.withLock { $0.values.compactMap(\.process) }
        for process in live { process.signal(SIGKILL) }
        guard isTemporary else { return }
        // What was killed a moment ago may still be making files; the helper of `qd_remove_at_end` has the last word.
        try? FileManager.default.removeItem(atPath: dataDirectory)
    }
}
