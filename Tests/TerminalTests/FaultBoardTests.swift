import Foundation
import Server
import Synchronization
import Testing
import UI
@testable import quarterdeck

/// A host that only remembers what it was told.
private final class ScriptedHost: NodeHost {
    struct State {
        var calls: [String] = []
        var plans: [FaultPlan] = []
        var refusals: [String: String] = [:]
        /// `obey` waits while this is true.
        var isHeld = false
        var handler: (@Sendable (NodeEvent) -> Void)?
    }
    let state = Mutex(State())
    let support: FaultSupport
    let nodes = (1...5 as ClosedRange<UInt64>).map { HostedNode(id: $0, name: "n\($0)", clientEndpoint: "127.0.0.1:\($0)2379", peerEndpoint: "127.0.0.1:\($0)2380") }
    var dataDirectory: String { "" }
    var isTemporary: Bool { true }
    var faultSupport: FaultSupport { support }
    init(support: FaultSupport = FaultSupport()) { self.support = support }

    var calls: [String] { state.withLock { $0.calls } }
    var plan: FaultPlan { state.withLock { $0.plans.last ?? FaultPlan() } }

    private func call(_ text: String) throws {
        try state.withLock { state in
            state.calls.append(text)
            if let refusal = state.refusals[text] { throw NodeHostError(refusal) }
        }
    }
    private func say(_ node: UInt64, _ process: NodeProcessState) {
        state.withLock { $0.handler }?(NodeEvent(node: node, atMilliseconds: 0, process: process))
    }

    func observe(_ handler: @escaping @Sendable (NodeEvent) -> Void) { state.withLock { $0.handler = handler } }
    func start() async throws {}
    func statuses() -> [NodeStatus] { [] }
    func kill(_ id: UInt64) async throws {
        try call("kill \(id)")
        say(id, .dead(reason: "killed"))
    }
    func stop(_ id: UInt64) async throws {
        try call("stop \(id)")
        say(id, .dead(reason: "stopped"))
    }
    func restart(_ id: UInt64) async throws {
        try call("restart \(id)")
        say(id, .running)
    }
    func pause(_ id: UInt64) async throws { try call("pause \(id)") }
    func resume(_ id: UInt64) async throws { try call("resume \(id)") }
    func tearLog(_ id: UInt64) async throws { try call("tear \(id)") }
    func obey(_ plan: FaultPlan) async throws {
        while state.withLock({ $0.isHeld }) { await Task.yield() }
        try state.withLock { state in
            if let refusal = state.refusals["obey"] { throw NodeHostError(refusal) }
            state.plans.append(plan)
        }
    }
    func transferLeadership(to id: UInt64) async throws {}
    func shutDown() async {}
    func abandon() {}
    func dieAlone(_ id: UInt64) { say(id, .dead(reason: "the log stopped")) }
}

private final class Heard: Sendable {
    let news = Mutex<[FaultBoard.News]>([])
    var told: [ClusterEvent.Kind] { news.withLock { $0.compactMap { if case .told(let kind) = $0 { kind } else { nil } } } }
    var lists: [[Fault]] { news.withLock { $0.compactMap { if case .faults(let active) = $0 { active.map(\.fault) } else { nil } } } }
    var willEnd: [UInt64] { news.withLock { $0.compactMap { if case .willEnd(let node) = $0 { node } else { nil } } } }
}

private func board(_ host: ScriptedHost) -> (FaultBoard, Heard) {
    let heard = Heard()
    let board = FaultBoard(host: host) { news in heard.news.withLock { $0.append(news) } }
    host.observe { [weak board] in board?.heard($0) }
    return (board, heard)
}

private func eventually(_ what: Comment, seconds: Int = 30, _ condition: () async -> Bool) async throws {
    let end = ContinuousClock.now + .seconds(seconds)
    while await !condition() {
        try #require(ContinuousClock.now < end, what)
        try await Task.sleep(for: .milliseconds(5))
    }
}

@Suite struct FaultBoardTests {
    // MARK: Composition

    @Test func cutsWinAndDelaysAddUp() {
        let plan = FaultBoard.plan(of: [
            .wire(from: 1, to: nil, WireFault(delayMilliseconds: 40, jitterMilliseconds: 5, lossPercent: 50, bytesPerSecond: 9_000)),
            .wire(from: 1, to: 2, WireFault(delayMilliseconds: 2.5, lossPercent: 50, duplicatePercent: 10, bytesPerSecond: 1_000)),
            .cut(from: 1, to: 3),
        ], nodes: [1, 2, 3])
        let both = plan[from: 1, to: 2]
        #expect(both.delayMicroseconds == 42_500 && both.jitterMicroseconds == 5_000 && both.lossShare == 0.75 && both.bytesPerSecond == 1_000)
        #expect(abs(both.duplicateShare - 0.1) < 1e-9 && !both.isCut)
        #expect(plan[from: 1, to: 3].isCut && plan[from: 1, to: 3].delayMicroseconds == 40_000)
        #expect(plan.links.count == 2)
    }

    @Test func partitionsCutBetweenGroupsAndLeaveTheRest() {
        let plan = FaultBoard.plan(of: [.partition([[1, 2], [3]]), .isolate(5)], nodes: [1, 2, 3, 4, 5])
        func isCut(_ a: UInt64, _ b: UInt64) -> Bool { plan[from: a, to: b].isCut && plan[from: b, to: a].isCut }
        #expect(isCut(1, 3) && isCut(2, 3) && !plan[from: 1, to: 2].isCut)
        #expect(!plan[from: 4, to: 1].isCut && !plan[from: 3, to: 4].isCut)
        for node in 1...4 as ClosedRange<UInt64> { #expect(isCut(5, node)) }
        #expect(plan.isCutOff(5, among: [1, 2, 3, 4, 5]) && !plan.isCutOff(3, among: [1, 2, 3, 4, 5]))
    }

    @Test func disksAndClocksCombine() {
        let plan = FaultBoard.plan(of: [
            .disk(1, .slow(milliseconds: 20)), .disk(1, .slow(milliseconds: 5)), .disk(1, .broken), .disk(1, .full), .disk(2, .stuck),
            .clock(3, .jump(milliseconds: 5_000)), .clock(3, .jump(milliseconds: -2_000)), .clock(3, .drift(partsPerMillion: 100)), .clock(3, .drift(partsPerMillion: -40)),
            .kill(4), .pause(5),
        ], nodes: [1, 2, 3, 4, 5])
        #expect(plan[disk: 1].syncDelayMicroseconds == 25_000 && plan[disk: 1].failure == .broken && plan[disk: 2].isStuck)
        let clock = plan[clock: 3]
        #expect(clock.offsetMilliseconds == 3_000 && clock.leapMilliseconds == 5_000 && clock.driftPartsPerMillion == 60)
        #expect(plan.links.isEmpty && plan.disks.count == 2 && plan.clocks.count == 1)
    }

    // MARK: The list

    @Test func addingAndHealingTellsTheHostTheListAndTheEvents() async throws {
        let host = ScriptedHost()
        let (board, heard) = board(host)
        let slow = Fault.disk(5, .slow(milliseconds: 20))
        #expect(try await board.add(slow) == "n5 disk: fsync +20 ms")
        #expect(host.plan[disk: 5].syncDelayMicroseconds == 20_000)
        try await board.add(.isolate(2))
        #expect(await board.active.map(\.id) == [1, 2])
        try await board.heal(slow)
        #expect(host.plan[disk: 5] == DiskTreatment() && host.plan.isCutOff(2, among: [1, 2, 3, 4, 5]))
        #expect(heard.lists == [[slow], [slow, .isolate(2)], [.isolate(2)]])
        // A node that is cut off tells so itself.
        guard case .faultOn("n5 disk: fsync +20 ms") = heard.told[0], case .faultOff(let off) = heard.told[1] else { return #expect(Bool(false), "\(heard.told)") }
        #expect(off.hasPrefix("n5 disk: fsync +20 ms, after ") && heard.told.count == 2)
        await #expect(throws: NodeHostError.self) { try await board.heal(slow) }
    }

    @Test func theSameFaultAgainOnlyMovesItsEnd() async throws {
        let (board, heard) = board(ScriptedHost())
        try await board.add(.cut(from: 1, to: 2), milliseconds: 3_600_000, by: "scenario")
        let first = await board.active[0]
        try await board.add(.cut(from: 1, to: 2))
        let second = await board.active[0]
        #expect(first.id == second.id && first.by == "scenario" && second.by == "scenario" && first.ends != nil && second.ends == nil)
        #expect(heard.told.count == 1)
    }

    @Test func timedFaultEndsByItself() async throws {
        let host = ScriptedHost()
        let (board, heard) = board(host)
        try await board.add(.cut(from: 1, to: 2), milliseconds: 20)
        try await board.add(.kill(3), milliseconds: 20)
        try await eventually("both over") { await board.active.isEmpty }
        try await eventually("both healed") { host.plan.isEmpty && host.calls == ["kill 3", "restart 3"] }
        try await eventually("the end told") { heard.told.contains { if case .faultOff = $0 { true } else { false } } }
    }

    @Test func faultHealedByHandDoesNotEndASecondTime() async throws {
        let host = ScriptedHost()
        let (board, _) = board(host)
        try await board.add(.kill(3), milliseconds: 30)
        try await board.heal(.kill(3))
        try await board.add(.kill(3))
        // A later timer shows that the earlier one has passed.
        try await board.add(.cut(from: 1, to: 2), milliseconds: 60)
        try await eventually("the later one over") { await board.active.map(\.fault) == [.kill(3)] }
        #expect(host.calls == ["kill 3", "restart 3", "kill 3"])
    }

    @Test func timedFaultThatCannotEndStaysForThePerson() async throws {
        let host = ScriptedHost()
        let (board, heard) = board(host)
        host.state.withLock { $0.refusals["restart 3"] = "n3: disk full" }
        try await board.add(.kill(3), milliseconds: 10)
        try await eventually("told") { heard.told.contains(.note("n3 killed did not end: n3: disk full", isBad: true)) }
        #expect(await board.active.map(\.fault) == [.kill(3)])
        #expect(await board.active[0].ends == nil)
    }

    // MARK: Nodes

    @Test func restartFromAnywhereEndsWhatHadEndedTheNode() async throws {
        let host = ScriptedHost()
        let (board, heard) = board(host)
        try await board.add(.pause(1))
        try await board.add(.tornTail(1))
        // Killing a paused node leaves nothing to pause.
        #expect(await board.active.map(\.fault) == [.tornTail(1)])
        #expect(host.calls == ["pause 1", "kill 1", "tear 1"])
        try await board.add(.stop(2))
        await #expect(throws: NodeHostError.self) { try await board.add(.kill(2)) }
        try await board.add(.tornTail(2))
        try await board.add(.cut(from: 1, to: 2))
        try await board.restart(1)
        try await board.restart(2)
        #expect(await board.active.map(\.fault) == [.cut(from: 1, to: 2)])
        #expect(Array(host.calls.dropFirst(3)) == ["stop 2", "tear 2", "restart 1", "restart 2"])
        // Who ends by somebody's wish is named before; starting a dead one ends nobody.
        #expect(heard.willEnd == [1, 2, 2])
        try await board.restart(1)
        #expect(heard.willEnd == [1, 2, 2, 1])
    }

    @Test func healAllStartsEveryDeadNodeAndEndsEverything() async throws {
        let host = ScriptedHost()
        let (board, heard) = board(host)
        for fault in [Fault.kill(1), .stop(2), .pause(3), .isolate(4), .disk(5, .full), .wire(from: nil, to: nil, WireFault(delayMilliseconds: 10))] {
            try await board.add(fault, milliseconds: 3_600_000)
        }
        host.dieAlone(5)
        #expect(try await board.healAll() == "6 faults healed, n1 n2 n5 started")
        #expect(await board.active.isEmpty)
        #expect(host.plan.isEmpty && Set(host.calls.suffix(4)) == ["restart 1", "restart 2", "restart 5", "resume 3"])
        #expect(heard.lists.last == [])
        #expect(try await board.healAll() == "nothing was on")
    }

    @Test func healAllNamesTheNodesThatDoNotStartAndHealsTheRest() async throws {
        let host = ScriptedHost()
        let (board, _) = board(host)
        host.state.withLock { $0.refusals["restart 1"] = "n1: port in use" }
        try await board.add(.kill(1))
        try await board.add(.kill(2))
        try await board.add(.cut(from: 3, to: 4))
        await #expect(throws: NodeHostError.self) { try await board.healAll() }
        #expect(await board.active.map(\.fault) == [.kill(1)])
        #expect(host.plan.isEmpty)
    }

    // MARK: Refusals

    @Test func whatTheEngineCannotDoOrMakesNoSenseIsRefusedAndNotListed() async throws {
        let host = ScriptedHost(support: FaultSupport(reasons: [.clockJump: "etcd has no clock of its own"]))
        let (board, heard) = board(host)
        let refused: [Fault] = [
            .clock(1, .jump(milliseconds: 5)), .kill(9), .cut(from: 1, to: 1), .partition([[1, 2]]), .partition([[1], [1, 2]]), .wire(from: 1, to: 2, WireFault()),
            .wire(from: 1, to: 2, WireFault(lossPercent: 101)), .wire(from: 2, to: 2, WireFault(delayMilliseconds: 1)), .wire(from: 1, to: 2, WireFault(bytesPerSecond: 0)),
            .disk(1, .slow(milliseconds: 0)), .clock(1, .drift(partsPerMillion: 0)),
        ]
        for fault in refused { await #expect(throws: NodeHostError.self, "\(fault)") { try await board.add(fault) } }
        host.state.withLock { $0.refusals = ["kill 1": "n1 does not run", "obey": "gone"] }
        for fault in [Fault.kill(1), .cut(from: 1, to: 2)] { await #expect(throws: NodeHostError.self) { try await board.add(fault) } }
        #expect(await board.active.isEmpty)
        #expect(heard.told.isEmpty)
    }

    // MARK: Order

    @Test func newestPlanIsTheLastOneObeyed() async throws {
        let host = ScriptedHost()
        let (board, _) = board(host)
        host.state.withLock { $0.isHeld = true }
        async let first = board.add(.cut(from: 1, to: 2))
        async let second = board.add(.cut(from: 2, to: 1))
        async let third = board.add(.disk(1, .stuck))
        try await eventually("all wait") { await board.active.count == 3 }
        host.state.withLock { $0.isHeld = false }
        _ = try await (first, second, third)
        #expect(host.plan.links.count == 2 && host.plan.disks.count == 1)
    }
}

/// The board on real nodes in this process.
@Suite(.serialized) struct FaultBoardClusterTests {
    private func run(_ body: (EmbeddedNodeHost, FaultBoard, _ states: @escaping @Sendable () -> [NodeProcessState]) async throws -> Void) async throws {
        let host = try #require(try PlaygroundLauncher.make(PlaygroundOptions()) as? EmbeddedNodeHost)
        let board = FaultBoard(host: host) { _ in }
        let keeper = Keeper()
        host.observe { [weak board] event in
            board?.heard(event)
            keeper.states.withLock { $0[event.node] = event.process }
        }
        try await host.start()
        var failure: (any Error)?
        do { try await body(host, board) { host.nodes.map { node in keeper.states.withLock { $0[node.id] ?? .starting } } } } catch { failure = error }
        await board.stop()
        await host.shutDown()
        if let failure { throw failure }
    }

    private final class Keeper: Sendable { let states = Mutex<[UInt64: NodeProcessState]>([:]) }

    @Test func nodesAreKilledStoppedPausedCutOffAndAllHealedAtOnce() async throws {
        try await run { host, board, states in
            let ids = host.nodes.map(\.id)
            try await board.add(.kill(ids[0]))
            #expect(states()[0] == .dead(reason: "killed"))
            try await board.add(.isolate(ids[1]))
            try await board.add(.pause(ids[2]))
            #expect(states()[1...] == [.isolated, .paused])
            try await board.healAll()
            #expect(states() == [.running, .running, .running])
            try await board.add(.stop(ids[0]))
            #expect(states()[0] == .dead(reason: "stopped"))
            // Cut off while it is down: it starts so.
            try await board.add(.isolate(ids[0]))
            try await board.restart(ids[0])
            #expect(states()[0] == .isolated)
            try await board.add(.pause(ids[0]))
            try await board.heal(.isolate(ids[0]))
            #expect(states()[0] == .paused)
            try await board.restart(ids[0])
            #expect(states()[0] == .running)
            #expect(await board.active.isEmpty)
        }
    }

    @Test func fullDiskKillsTheNodeAndHealAllStartsIt() async throws {
        try await run { host, board, states in
            let id = host.nodes[0].id
            // Votes and the leader's first entry are writes enough.
            try await board.add(.disk(id, .full))
            try await board.add(.wire(from: nil, to: nil, WireFault(delayMilliseconds: 1)), milliseconds: 50)
            try await eventually("its end") { if case .dead(let reason) = states()[0] { reason.contains("No space left") } else { false } }
            try await eventually("the timed one over") { await board.active.map(\.fault) == [.disk(id, .full)] }
            try await board.healAll()
            #expect(states()[0] == .running)
        }
    }

    @Test func tornLogIsMendedByTheNextStart() async throws {
        try await run { host, board, states in
            let id = host.nodes[0].id
            #expect(try await board.add(.tornTail(id)).contains("torn"))
            #expect(states()[0] == .dead(reason: "killed"))
            try await board.heal(.tornTail(id))
            #expect(states()[0] == .running)
        }
    }
}
