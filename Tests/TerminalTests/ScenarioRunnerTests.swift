import Foundation
import Synchronization
import Testing
import UI
@testable import quarterdeck

private func words(_ fault: Fault) -> String {
    switch fault {
    case .partition(let groups): "partition " + groups.map { $0.map { "n\($0)" }.joined(separator: " ") }.joined(separator: " | ")
    default: "\(fault.verb) " + fault.nodes.map { "n\($0)" }.joined(separator: " ")
    }
}

/// Five nodes that do as told: node 1 leads until it dies, then the first that lives.
private final class FakeStage: ScenarioStage {
    struct State {
        var down: Set<UInt64> = []
        var paused: Set<UInt64> = []
        var leader: UInt64? = 1
        var term: UInt64 = 2
        var electsAtOnce = true
        var active: [Fault] = []
        var done: [String] = []
        var refusesWrites = false
        var hashes: [UInt64: UInt32] = [1: 7, 2: 7, 3: 7, 4: 7, 5: 7]
        var failsToBegin: String?
    }
    let nodes = (1...5).map { HostedNode(id: UInt64($0), name: "n\($0)", clientEndpoint: "127.0.0.1:1", peerEndpoint: "127.0.0.1:2") }
    let log = ScenarioLog()
    let state = Mutex(State())

    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }
    var done: [String] { state.withLock { $0.done } }

    private func elect(_ state: inout State) {
        guard state.electsAtOnce, state.leader == nil || state.down.union(state.paused).contains(state.leader!) else { return }
        state.leader = nodes.map(\.id).first { !state.down.contains($0) && !state.paused.contains($0) }
        state.term += 1
        let (leader, term) = (state.leader, state.term)
        log.change { facts in
            facts.tally.saw(leader: leader, term: term, at: Clock.now().milliseconds)
        }
    }

    func begin() async throws {
        let (failure, leader, term) = state.withLock { ($0.failsToBegin, $0.leader, $0.term) }
        if let failure { throw NodeHostError(failure) }
        log.change { $0.tally.saw(leader: leader, term: term, at: Clock.now().milliseconds) }
    }

    func views() -> [NodeView] {
        state.withLock { state in
            nodes.map { node in
                NodeView(id: node.id, process: state.down.contains(node.id) ? .down : state.paused.contains(node.id) ? .paused : .running, isHeard: !state.down.contains(node.id) && !state.paused.contains(node.id),
                         leader: state.leader ?? 0, term: state.term, commit: 10, applied: 10, revision: 10)
            }
        }
    }

    func add(_ fault: Fault, milliseconds: Int64?) async throws -> String {
        state.withLock { state in
            state.active.append(fault)
            state.done.append("add \(words(fault))\(milliseconds.map { " for \($0)" } ?? "")")
            switch fault {
            case .kill(let node), .stop(let node): state.down.insert(node)
            case .pause(let node): state.paused.insert(node)
            default: break
            }
            elect(&state)
            return words(fault)
        }
    }

    func heal(_ fault: Fault) async throws {
        state.withLock { state in
            state.active.removeAll { $0 == fault }
            state.done.append("heal \(words(fault))")
            for node in fault.nodes { state.down.remove(node); state.paused.remove(node) }
        }
    }

    func faults() async -> [Fault] { state.withLock { $0.active } }

    func restart(_ node: UInt64) async throws {
        state.withLock { state in
            state.done.append("restart n\(node)")
            state.down.remove(node)
            state.active.removeAll { $0 == .kill(node) || $0 == .stop(node) }
        }
    }

    func transferLeadership(to node: UInt64) async throws {
        state.withLock { state in
            state.done.append("lead n\(node)")
            state.leader = node
            state.term += 1
        }
    }

    func setLoad(_ settings: WorkloadSettings?) async throws {
        state.withLock { $0.done.append(settings.map { "load \($0.putsPerSecond)" } ?? "load off") }
        log.heard(.workload(WorkloadSample(at: Clock.now(), put: nil, read: nil, failed: 0, putBuckets: [], verdict: ConsistencyVerdict(acknowledgedWrites: 500, confirmedWrites: 500, checkedReads: 9), isFinal: settings == nil)))
    }

    func put(_ key: String, _ value: String, timeoutMilliseconds: Int64) async throws {
        if state.withLock({ $0.refusesWrites }) { throw NodeHostError("no leader") }
        if key != ScenarioRunner.probeKey { state.withLock { $0.done.append("put \(key) \(value)") } }
    }

    func compact() async throws -> Int64 { 10 }
    func hashes() async throws -> (revision: Int64, hashes: [UInt64: UInt32]) { (10, state.withLock { $0.hashes }) }
    func end() async { state.withLock { $0.done.append("end") } }
}

@Suite struct ScenarioRunnerTests {
    private func play(_ steps: String, on stage: FakeStage = FakeStage(), news: @escaping @Sendable (ScenarioRunner.News) -> Void = { _ in }) async throws -> ScenarioReport {
        let scenario = try ScenarioParser.parse("title: t\nnodes: 5\nsteps:\n" + steps, file: "t.yaml")
        return await ScenarioRunner(scenario, on: stage, engine: "fake", isWatched: false, report: news).run()
    }

    @Test func nodesAreFoundWhenTheStepRuns() async throws {
        let stage = FakeStage()
        let report = try await play("""
              - pick: {victim: leader}
              - fault: kill leader
              - wait: {for: another leader, within: 1s}
              - fault: kill leader
              - fault: partition minority with leader | rest
              - fault: cut all -> n4
              - fault: wire majority without leader -> n5 delay 5ms
              - restart: victim
              - restart: down
              - lead: n5
            """, on: stage)
        #expect(report.outcome == .passed, "\(report.failure ?? "")")
        #expect(stage.done == [
            "add kill n1", "add kill n2", "add partition n3 n1 | n2 n4 n5", "add cut n1 n4", "add cut n2 n4", "add cut n3 n4", "add cut n5 n4",
            "add wire n1 n5", "add wire n2 n5", "add wire n4 n5", "restart n1", "restart n2", "lead n5", "end",
        ])
        #expect(report.elections.map(\.leader) == ["n2", "n3"] && report.steps.count == 10)
    }

    @Test func repeatsCountAsSteps() async throws {
        let stage = FakeStage()
        let progress = Mutex<[ScenarioProgress]>([])
        let report = try await play("""
              - say: hello
              - say: twice
                repeat:
                  times: 2
                  steps:
                    - fault: isolate n2
                      for: 2s
                    - heal: last
            """, on: stage) { if case .progress(let now) = $0 { progress.withLock { $0.append(now) } } }
        #expect(stage.done == ["add isolate n2 for 2000", "heal isolate n2", "add isolate n2 for 2000", "heal isolate n2", "end"])
        #expect(report.steps.map(\.number) == [1, 2, 3, 4, 5] && report.steps.map(\.line) == [4, 9, 11, 9, 11])
        let last = try #require(progress.withLock { $0.last })
        #expect(last.step == 5 && last.steps == 5 && last.caption == "twice" && last.state == .passed)
    }

    @Test func healingPicksByKind() async throws {
        let stage = FakeStage()
        _ = try await play("""
              - fault: isolate n2
              - fault: disk n3 full
              - fault: stop n4
              - heal: disk
              - heal: all
            """, on: stage)
        #expect(stage.done.suffix(4) == ["heal disk n3", "heal isolate n2", "heal stop n4", "end"])
    }

    @Test func aWaitInVainEndsItWithTheReason() async throws {
        let stage = FakeStage()
        stage.change { $0.electsAtOnce = false }
        let report = try await play("""
              - fault: kill leader
              - wait: {for: another leader, within: 100ms}
              - fault: kill n2
            """, on: stage)
        #expect(report.outcome == .failed && stage.done == ["add kill n1", "end"])
        #expect(report.failure == "line 5: waited 100 ms in vain until there is another leader; nobody leads, n1 is down")
        #expect(report.steps.last?.failed == true)
    }

    @Test func aBrokenExpectationIsToldAndTheRestStillRuns() async throws {
        let stage = FakeStage()
        let report = try await play("""
              - fault: kill leader
              - expect: {elections: 0, running nodes: 4}
              - restart: down
              - expect: {running nodes: 4}
            """, on: stage)
        #expect(report.outcome == .failed && report.failure == "line 5: expected elections: 0, found 1")
        #expect(report.steps.map(\.failed) == [false, true, false, true])
        #expect(report.steps[1].expectations?.map(\.held) == [false, true])
        #expect(stage.done.last == "end")
    }

    @Test func expectationsHold() async throws {
        let stage = FakeStage()
        let report = try await play("""
              - load: {puts: 10}
              - wait: {for: writes succeed, within: 1s}
              - load: off
              - lead: n3
              - put: /a words here
                times: 2
              - expect:
                  leader: n3
                  leader unchanged: false
                  term unchanged: false
                  all members equal: true
                  consistency: clean
                  lost acknowledged writes: 0
                  failed operations at most: 0
                  leaderless at most: 1s
                  snapshots installed at least: 0
                  writes succeed: true
            """, on: stage)
        #expect(report.outcome == .passed, "\(report.failure ?? "")")
        #expect(stage.done == ["load 10", "load off", "lead n3", "put /a/1 words here", "put /a/2 words here", "end"])
        #expect(report.load.acknowledgedWrites == 500)
    }

    @Test func lostWritesDifferencesAndViolationsAreFound() async throws {
        let stage = FakeStage()
        stage.change { $0.hashes[2] = 8 }
        stage.log.change { facts in
            facts.pastLoads = [ConsistencyVerdict(acknowledgedWrites: 10, confirmedWrites: 7, checkedReads: 1, violations: ["/k/1: a write is missing"])]
        }
        let report = try await play("  - expect: {lost acknowledged writes: 0, consistency: clean, all members equal: true, writes succeed: false}", on: stage)
        #expect(report.steps[0].expectations?.map(\.found) == ["3 of 10", "/k/1: a write is missing", "different at revision 10: n1 7 n2 8 n3 7 n4 7 n5 7", "yes"])
        #expect(report.steps[0].expectations?.contains { $0.held } == false)
        #expect(report.violations == ["/k/1: a write is missing"])
    }

    /// The canary's own client may hang on a node that is cut off.
    @Test func writesResumeWhenTheLeaderTakesOne() async throws {
        let stage = FakeStage()
        #expect(try await play("  - fault: isolate n2\n  - expect: {writes resumed within: 2s}", on: stage).outcome == .passed)
        let refusing = FakeStage()
        refusing.change { $0.refusesWrites = true }
        let report = try await play("  - fault: isolate n2\n  - expect: {writes resumed within: 10ms}", on: refusing)
        #expect(report.failure == "line 5: expected writes resumed: within 10 ms, found not yet")
    }

    @Test func nothingWrittenIsNotNothingLost() async throws {
        let report = try await play("  - expect: {lost acknowledged writes: 0, consistency: clean}")
        #expect(report.steps[0].expectations?.map(\.found) == ["nothing was written", "nothing was written or read"])
        #expect(report.outcome == .failed)
    }

    @Test func nodesThatAreDownAtTheStartAreNamed() async throws {
        let stage = FakeStage()
        stage.log.change { $0.trouble = "nodes did not start: n2: port in use" }
        let report = try await play("  - say: hello", on: stage)
        #expect(report.outcome == .failed && report.failure == "nodes did not start: n2: port in use" && stage.done == ["end"])
        let refused = FakeStage()
        refused.change { $0.failsToBegin = "faults are on: heal all of them first" }
        #expect(try await play("  - say: hello", on: refused).failure == "faults are on: heal all of them first")
    }

    @Test func cancelledItCleansUpAndSaysStopped() async throws {
        let stage = FakeStage()
        let isWaiting = AsyncStream<Void>.makeStream()
        let scenario = try ScenarioParser.parse("title: t\nnodes: 5\nsteps:\n  - fault: isolate n2\n  - wait: {for: no leader, within: 5m}", file: "t.yaml")
        let runner = ScenarioRunner(scenario, on: stage, engine: "fake", isWatched: false) { news in
            if case .progress(let progress) = news, progress.waitingFor?.hasPrefix("waits until nobody leads") == true { isWaiting.continuation.yield() }
        }
        let run = Task { await runner.run() }
        for await _ in isWaiting.stream { break }
        run.cancel()
        let report = await run.value
        #expect(report.outcome == .stopped && report.failure == nil && stage.done == ["add isolate n2", "end"])
    }

    @Test func theReportIsJSONWithTheContractsNames() async throws {
        let report = try await play("  - expect: {running nodes: 5}")
        let fields = try #require(try JSONSerialization.jsonObject(with: Data(report.json.utf8)) as? [String: Any])
        #expect(Set(fields.keys).isSuperset(of: ["scenario", "title", "engine", "nodes", "outcome", "seconds", "steps", "elections", "leaderless", "canary", "load", "violations"]))
        #expect(fields["outcome"] as? String == "passed")
    }
}
