import Foundation
import Server
import Synchronization
import UI

/// Which faults are on, and what that means for each node: every fault goes through here, whoever wants it. Links, disks and clocks follow from
/// the list as one plan, which the host obeys; whole nodes are killed, stopped, paused and started at once. Faults with an end time end here
/// too. Works without a console: what happens is told to one callback.
///
/// The list is state, so that the same fault twice is one fault and everything can be taken back. Nothing survives the process.
actor FaultBoard {
    enum News: Sendable {
        /// All that are on, oldest first.
        case faults([ActiveFault])
        /// For faults that are not seen by what their nodes do anyway (a dead, paused or cut-off node tells itself).
        case told(ClusterEvent.Kind)
        /// This node is about to end, as somebody wants it.
        case willEnd(UInt64)
    }

    let host: any NodeHost
    private let report: @Sendable (News) -> Void
    private(set) var active: [ActiveFault] = [] {
        didSet { if active != oldValue { report(.faults(active)) } }
    }
    private var lastID = 0
    private var timers: [Int: Task<Void, Never>] = [:]
    /// Work under way: one thing at a time on a node, and one plan after the other. They do not wait for each other, since a node that starts on
    /// a stuck disk comes up only when a new plan frees it.
    private var tails: [Work: Task<Void, Never>] = [:]
    private enum Work: Hashable { case plan, node(UInt64) }
    /// Also of nodes that died by themselves.
    private let dead = Mutex<Set<UInt64>>([])

    /// `report` is called on any thread and must return at once.
    init(host: any NodeHost, report: @escaping @Sendable (News) -> Void) {
        self.host = host
        self.report = report
    }

    deinit { for timer in timers.values { timer.cancel() } }

    /// The owner of the host hands its news on.
    nonisolated func heard(_ event: NodeEvent) {
        let process = event.process
        dead.withLock { dead in
            if case .dead = process { dead.insert(event.node) } else { dead.remove(event.node) }
        }
    }

    // MARK: Asked for

    /// Returns when it has taken effect; the answer is a short fact for the person. A fault that is on already only ends at another time.
    /// - Throws: `NodeHostError` with one line. The fault is not on then.
    @discardableResult
    func add(_ fault: Fault, milliseconds: Int64? = nil, by: String = "you") async throws -> String {
        if let reason = host.faultSupport.reason(fault.kind) { throw NodeHostError(reason) }
        try check(fault)
        let now = Clock.now()
        let ends = milliseconds.map { now.advanced(byMilliseconds: $0) }
        let until = milliseconds.map { ", for \(FaultText.span($0))" } ?? ""
        if let index = active.firstIndex(where: { $0.fault == fault }) {
            active[index].ends = ends
            setTimer(active[index].id, milliseconds)
            return line(fault) + (milliseconds == nil ? ", until healed" : until)
        }
        // A node that is down cannot be taken down again. (Its fault, were it the same, was found above.)
        if let node = fault.mustRun, isDead(node) { throw NodeHostError("\(name(node)) does not run: R starts it") }
        lastID += 1
        let id = lastID
        active.append(ActiveFault(id: id, fault: fault, since: now, ends: ends, by: by))
        do {
            try await begin(fault)
        } catch {
            active.removeAll { $0.id == id }
            throw error
        }
        guard active.contains(where: { $0.id == id }) else { return "\(line(fault)), and healed meanwhile" }
        setTimer(id, milliseconds)
        if let text = FaultText.told(fault, name) { report(.told(.faultOn(text + until))) }
        return FaultText.line(fault, name) + until
    }

    /// - Throws: `NodeHostError` when it is not on, or when its node does not start.
    @discardableResult
    func heal(_ fault: Fault) async throws -> String {
        guard let found = active.first(where: { $0.fault == fault }) else { throw NodeHostError("\(line(fault)): not on") }
        try await heal(found)
        return FaultText.healed(fault, name)
    }

    /// Everything works again: nodes that are down start, whatever ended them, and paused ones go on.
    /// - Throws: `NodeHostError` naming the nodes that did not start; all others are healed.
    @discardableResult
    func healAll() async throws -> String {
        let healed = active
        let onPlan = healed.filter { $0.fault.isPlanned }
        active.removeAll { $0.fault.isPlanned }
        for fault in onPlan { timers.removeValue(forKey: fault.id)?.cancel() }
        var failures: [String] = []
        do { try await obeyPlan() } catch { failures.append("\(error)") }
        for fault in onPlan { tellEnd(of: fault) }

        let paused = Set(healed.compactMap { if case .pause(let node) = $0.fault { node } else { nil } })
        let down = Set(healed.filter { $0.fault.isDeath }.flatMap(\.fault.nodes)).union(dead.withLock { $0 })
        await withTaskGroup(of: String?.self) { group in
            for node in host.nodes.map(\.id) where paused.contains(node) || down.contains(node) {
                group.addTask {
                    do {
                        if down.contains(node) { try await self.restart(node) } else { try await self.heal(.pause(node)) }
                        return nil
                    } catch { return "\(error)" }
                }
            }
            for await failure in group { if let failure { failures.append(failure) } }
        }
        guard failures.isEmpty else { throw NodeHostError(failures.sorted().joined(separator: "; ")) }
        let started = down.isEmpty ? "" : ", \(down.map(name).sorted().joined(separator: " ")) started"
        return healed.isEmpty && down.isEmpty ? "nothing was on" : "\(healed.count) \(healed.count == 1 ? "fault" : "faults") healed\(started)"
    }

    /// Starts a dead node, or stops a live one cleanly and starts it. Its `.kill`, `.stop`, `.tornTail` and `.pause` end.
    @discardableResult
    func restart(_ node: UInt64) async throws -> String {
        guard host.nodes.contains(where: { $0.id == node }) else { throw NodeHostError("no such node") }
        try await inOrder(.node(node)) { [host] in
            if !self.isDead(node) { self.report(.willEnd(node)) }
            try await host.restart(node)
        }
        forget { $0.fault.isDeath && $0.fault.nodes == [node] || $0.fault == .pause(node) }
        return "\(name(node)) restarted"
    }

    /// Cancels the timers. What is on stays as it is; the host ends next.
    func stop() {
        for timer in timers.values { timer.cancel() }
        timers = [:]
    }

    // MARK: How

    private func begin(_ fault: Fault) async throws {
        switch fault {
        case .kill(let node):
            try await end(node) { try await $0.kill(node) }
        case .stop(let node):
            try await end(node) { try await $0.stop(node) }
        case .tornTail(let node):
            try await end(node) { [isDead = isDead(node)] host in
                if !isDead { try await host.kill(node) }
                try await host.tearLog(node)
            }
        case .pause(let node):
            try await inOrder(.node(node)) { [host] in try await host.pause(node) }
        case .cut, .isolate, .partition, .wire, .disk, .clock:
            try await obeyPlan()
        }
    }

    private func end(_ node: UInt64, _ work: @escaping @Sendable (any NodeHost) async throws -> Void) async throws {
        try await inOrder(.node(node)) { [host, report] in
            report(.willEnd(node))
            try await work(host)
        }
        // There is nothing left that could be paused.
        forget { $0.fault == .pause(node) }
    }

    private func heal(_ found: ActiveFault) async throws {
        switch found.fault {
        case .kill(let node), .stop(let node), .tornTail(let node):
            try await restart(node)
        case .pause(let node):
            try await inOrder(.node(node)) { [host] in try await host.resume(node) }
            forget { $0.id == found.id }
        case .cut, .isolate, .partition, .wire, .disk, .clock:
            forget { $0.id == found.id }
            do {
                try await obeyPlan()
            } catch {
                active = (active + [found]).sorted { $0.id < $1.id }
                throw error
            }
            tellEnd(of: found)
        }
    }

    private func tellEnd(of fault: ActiveFault) {
        guard let text = FaultText.told(fault.fault, name) else { return }
        report(.told(.faultOff("\(text), after \(FaultText.span(Clock.now() - fault.since))")))
    }

    private func forget(_ isOver: (ActiveFault) -> Bool) {
        for fault in active where isOver(fault) { timers.removeValue(forKey: fault.id)?.cancel() }
        active.removeAll(where: isOver)
    }

    private func setTimer(_ id: Int, _ milliseconds: Int64?) {
        timers.removeValue(forKey: id)?.cancel()
        guard let milliseconds else { return }
        timers[id] = Task { [weak self] in
            guard (try? await Task.sleep(for: .milliseconds(milliseconds))) != nil else { return }
            await self?.timeIsUp(id)
        }
    }

    private func timeIsUp(_ id: Int) async {
        // From here on a heal by somebody else must not cancel this one half-way.
        timers[id] = nil
        guard let fault = active.first(where: { $0.id == id }) else { return }
        do {
            try await heal(fault)
        } catch {
            // It stays on, for the person to heal.
            if let index = active.firstIndex(where: { $0.id == id }) { active[index].ends = nil }
            report(.told(.note("\(line(fault.fault)) did not end: \(error)", isBad: true)))
        }
    }

    /// The newest plan, when those before are through: plans never overtake each other.
    private func obeyPlan() async throws {
        try await inOrder(.plan) { [host] in try await host.obey(self.plan) }
    }

    private var plan: FaultPlan { FaultBoard.plan(of: active.map(\.fault), nodes: host.nodes.map(\.id)) }

    private func inOrder(_ key: Work, _ work: @escaping @Sendable () async throws -> Void) async throws {
        let before = tails[key]
        let task = Task {
            await before?.value
            try await work()
        }
        tails[key] = Task { _ = try? await task.value }
        try await task.value
    }

    private nonisolated func isDead(_ node: UInt64) -> Bool { dead.withLock { $0.contains(node) } }
    private func name(_ node: UInt64) -> String { host.nodes.first { $0.id == node }?.name ?? String(node, radix: 16) }
    private func line(_ fault: Fault) -> String { FaultText.line(fault, name) }

    private func check(_ fault: Fault) throws {
        for node in fault.nodes where !host.nodes.contains(where: { $0.id == node }) { throw NodeHostError("no such node: \(String(node, radix: 16))") }
        switch fault {
        case .cut(let from, let to) where from == to: throw NodeHostError("a node has no link to itself")
        case .partition(let groups):
            guard groups.filter({ !$0.isEmpty }).count > 1 else { throw NodeHostError("a partition needs two groups") }
            guard Set(fault.nodes).count == fault.nodes.count else { throw NodeHostError("a node can be in one group only") }
        case .wire(let from, let to, let wire):
            guard from == nil || from != to else { throw NodeHostError("a node has no link to itself") }
            guard wire != WireFault() else { throw NodeHostError("this makes no link worse: give a delay, loss, duplication or rate") }
            guard wire.delayMilliseconds >= 0, wire.jitterMilliseconds >= 0, wire.delayMilliseconds + wire.jitterMilliseconds <= 3_600_000 else {
                throw NodeHostError("delay and jitter must lie between 0 and an hour")
            }
            guard (0...100).contains(wire.lossPercent), (0...100).contains(wire.duplicatePercent) else { throw NodeHostError("loss and duplication must lie between 0 and 100 %") }
            guard wire.bytesPerSecond ?? 1 > 0 else { throw NodeHostError("the rate must be above 0; cut the link to let nothing through") }
        case .disk(_, .slow(let milliseconds)):
            guard (1...3_600_000).contains(milliseconds) else { throw NodeHostError("the delay must lie between 1 ms and an hour") }
        case .clock(_, .jump(let milliseconds)):
            guard milliseconds != 0, abs(milliseconds) <= 100 * 366 * 86_400_000 else { throw NodeHostError("the clock must jump by something, and by a century at most") }
        case .clock(_, .drift(let partsPerMillion)):
            guard partsPerMillion != 0, (-990_000...1_000_000).contains(partsPerMillion) else { throw NodeHostError("the drift must lie between -990000 and 1000000 ppm") }
        default: break
        }
    }

    // MARK: Several at once

    /// What several faults come to: a cut wins, delays and jitters add up, a message passes all losses, the lowest rate counts; fsync delays add
    /// up, and EIO wins over ENOSPC; clock jumps and drifts add up.
    static func plan(of faults: [Fault], nodes: [UInt64]) -> FaultPlan {
        var plan = FaultPlan()
        func cut(_ from: UInt64, _ to: UInt64) { if from != to { plan[from: from, to: to].isCut = true } }
        for fault in faults {
            switch fault {
            case .kill, .stop, .pause, .tornTail: break
            case .cut(let from, let to): cut(from, to)
            case .isolate(let node):
                for other in nodes {
                    cut(node, other)
                    cut(other, node)
                }
            case .partition(let groups):
                for (number, group) in groups.enumerated() {
                    for (other, rest) in groups.enumerated() where other != number {
                        for from in group { for to in rest { cut(from, to) } }
                    }
                }
            case .wire(let from, let to, let wire):
                for a in from.map({ [$0] }) ?? nodes {
                    for b in to.map({ [$0] }) ?? nodes where a != b { plan[from: a, to: b].add(wire) }
                }
            case .disk(let node, let disk):
                switch disk {
                case .slow(let milliseconds): plan[disk: node].syncDelayMicroseconds += Int64(milliseconds) * 1_000
                case .stuck: plan[disk: node].isStuck = true
                case .full: if plan[disk: node].failure == nil { plan[disk: node].failure = .full }
                case .broken: plan[disk: node].failure = .broken
                }
            case .clock(let node, .jump(let milliseconds)):
                plan[clock: node].offsetMilliseconds += Int64(milliseconds)
                plan[clock: node].leapMilliseconds += Int64(max(0, milliseconds))
            case .clock(let node, .drift(let partsPerMillion)):
                plan[clock: node].driftPartsPerMillion += Int64(partsPerMillion)
            }
        }
        return plan
    }
}

extension LinkTreatment {
    fileprivate mutating func add(_ wire: WireFault) {
        delayMicroseconds += Int64(wire.delayMilliseconds * 1_000)
        jitterMicroseconds += Int64(wire.jitterMilliseconds * 1_000)
        lossShare = 1 - (1 - lossShare) * (1 - wire.lossPercent / 100)
        duplicateShare = 1 - (1 - duplicateShare) * (1 - wire.duplicatePercent / 100)
        if let rate = wire.bytesPerSecond { bytesPerSecond = min(rate, bytesPerSecond ?? rate) }
    }
}

extension Fault {
    /// Part of the plan that the host obeys.
    fileprivate var isPlanned: Bool {
        switch self {
        case .kill, .stop, .pause, .tornTail: false
        case .cut, .isolate, .partition, .wire, .disk, .clock: true
        }
    }

    /// Healed by starting the node.
    fileprivate var isDeath: Bool {
        switch self {
        case .kill, .stop, .tornTail: true
        default: false
        }
    }

    /// The node without whose running it makes no sense.
    fileprivate var mustRun: UInt64? {
        switch self {
        case .kill(let node), .stop(let node), .pause(let node): node
        default: nil
        }
    }
}
