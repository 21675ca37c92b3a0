import Base
import Client
import Foundation
import Synchronization
import Testing
import UI
@testable import quarterdeck

extension Integration {
    /// The workload, the canary and the metrics of the console against a real embedded cluster.
    @Suite(.serialized) struct WorkloadTests {}
}

/// Three embedded nodes with short timers.
private final class Nodes: Sendable {
    let host: any NodeHost
    let configuration: ClientConfiguration
    let client: EtcdClient
    private let known = Mutex<Endpoint?>(nil)
    private let follower = Mutex<Task<Void, Never>?>(nil)

    init(electionMilliseconds: Int = 300) async throws {
        var options = PlaygroundOptions()
        options.basePort = try Ports.base(3)
        options.heartbeatMilliseconds = 30
        options.electionMilliseconds = electionMilliseconds
        host = try PlaygroundLauncher.make(options)
        var configuration = ClientConfiguration(endpoints: try host.nodes.map { try Endpoint($0.clientEndpoint) })
        configuration.maximumBackoff = .milliseconds(200)
        self.configuration = configuration
        client = try EtcdClient(configuration: configuration)
        try await host.start()
        try await client.put("ready", "yes", options: CallOptions(timeout: .seconds(30)))
        follow()
    }

    /// Who leads, asked of the members that run.
    func leader() async throws -> UInt64 {
        for _ in 0..<400 {
            for (node, status) in zip(host.nodes, host.statuses()) where status.process == .running {
                let answer = try? await client.status(options: CallOptions(timeout: .seconds(1), endpoint: try Endpoint(node.clientEndpoint)))
                if let answer, answer.leader.rawValue == node.id { return node.id }
            }
            try await Task.sleep(for: .milliseconds(25))
        }
        throw NodeHostError("nobody leads")
    }

    /// The leader that was found last; asked anew all the time.
    func leaderEndpoint() -> Endpoint? { known.withLock { $0 } }

    func follow() {
        follower.withLock { follower in
            follower = Task {
                while !Task.isCancelled {
                    if let id = try? await leader(), let node = host.nodes.first(where: { $0.id == id }) { known.withLock { $0 = try? Endpoint(node.clientEndpoint) } }
                    try? await Task.sleep(for: .milliseconds(25))
                }
            }
        }
    }

    func end() async {
        follower.withLock { $0 }?.cancel()
        await client.close()
        await host.shutDown()
    }
}

/// What was posted.
private final class Posted<Element: Sendable>: Sendable {
    private let list = Mutex<[Element]>([])
    func add(_ element: Element) { list.withLock { $0.append(element) } }
    var all: [Element] { list.withLock { $0 } }
}

extension Posted where Element == DataEvent {
    var canaryWrites: [CanaryWrite] {
        var writes: [CanaryWrite] = []
        for case .canary(let batch) in all { writes += batch }
        return writes
    }

    var canaryCheck: CanaryCheck? {
        var last: CanaryCheck?
        for case .canaryCheck(let check) in all { last = check }
        return last
    }

    var canarySwitches: [Bool] {
        var switches: [Bool] = []
        for case .isCanaryOn(let isOn) in all { switches.append(isOn) }
        return switches
    }
}

private func start(_ nodes: Nodes, _ settings: WorkloadSettings, _ samples: Posted<WorkloadSample>) throws -> (workload: Workload, task: Task<Void, Never>) {
    let workload = try Workload(configuration: nodes.configuration, settings: settings, leader: { nodes.leaderEndpoint() }, post: { samples.add($0) })
    return (workload, Task { await workload.run() })
}

extension Integration.WorkloadTests {
    @Test func anOpenLoopKeepsItsRateAndReadsAllBack() async throws {
        let nodes = try await Nodes()
        let samples = Posted<WorkloadSample>()
        let (workload, task) = try start(nodes, WorkloadSettings(putsPerSecond: 200, readsPerSecond: 100, clients: 16, keyCount: 20), samples)
        try await eventually("4 samples") { samples.all.count >= 4 }
        // Gets alone from here, and more of them.
        workload.change(WorkloadSettings(putsPerSecond: 0, readsPerSecond: 300, clients: 16, keyCount: 20, distribution: .zipf))
        let changed = samples.all.count
        try await eventually("4 samples more") { samples.all.count >= changed + 4 }
        workload.stop()
        await task.value
        let all = samples.all, last = try #require(all.last)
        let puts = all[..<4].reduce(0) { $0 + ($1.put?.count ?? 0) }, gets = all[(changed + 1)..<(changed + 4)].reduce(0) { $0 + ($1.read?.count ?? 0) }
        #expect((640...900).contains(puts), "about 800 puts in four seconds: \(puts)")
        #expect((720...1_080).contains(gets), "about 900 gets in three seconds: \(gets)")
        #expect(all[(changed + 1)...].allSatisfy { ($0.put?.count ?? 0) == 0 })
        #expect(all.dropLast().allSatisfy { !$0.isFinal } && last.isFinal)
        #expect(all[1].putHistogram?.total == all[1].put?.count && all[1].settings.putsPerSecond == 200)
        #expect(last.verdict.violations == [] && last.verdict.confirmedWrites == last.verdict.acknowledgedWrites && last.verdict.acknowledgedWrites >= puts)
        #expect(last.verdict.checkedReads > gets)
        let left = try await nodes.client.range(RangeQuery(.prefix(Key(Workload.prefix)), countOnly: true)).count
        #expect(left == 0, "what it wrote is gone")
        await nodes.end()
    }

    @Test func aClosedLoopAsksForNoMoreThanItsRateAndMakesUpForNothing() async throws {
        let nodes = try await Nodes()
        let samples = Posted<WorkloadSample>()
        let settings = WorkloadSettings(putsPerSecond: 100, readsPerSecond: 20_000, clients: 4, keyCount: 8, distribution: .sequential, consistency: .serializable, target: .leader, pace: .closed)
        let (workload, task) = try start(nodes, settings, samples)
        try await eventually("3 samples") { samples.all.count >= 3 }
        workload.stop()
        await task.value
        let all = samples.all, last = try #require(all.last)
        // Four clients cannot make 20,000 calls a second here; the puts share the clients with them.
        let puts = all.reduce(0) { $0 + ($1.put?.count ?? 0) }
        #expect(puts > 0 && puts <= 100 * all.count + 4, "\(puts) puts in \(all.count) s")
        #expect(all.contains { ($0.read?.count ?? 0) > 0 })
        #expect(last.verdict.violations == [] && last.verdict.confirmedWrites == last.verdict.acknowledgedWrites)
        await nodes.end()
    }

    /// The leader dies twice under writes, and stands still once; whatever clients felt, nothing that was acknowledged is lost and no read goes back.
    @Test(arguments: [WorkloadSettings.Target.all, .leader]) func theVerdictStaysCleanWhenLeadersDie(target: WorkloadSettings.Target) async throws {
        let nodes = try await Nodes()
        let samples = Posted<WorkloadSample>()
        let (workload, task) = try start(nodes, WorkloadSettings(putsPerSecond: 300, readsPerSecond: 300, clients: 24, keyCount: 12, target: target), samples)
        func acknowledged() -> Int { workload.verdict.acknowledgedWrites }
        for _ in 0..<2 {
            let before = acknowledged()
            try await eventually("200 writes more than \(before)") { acknowledged() > before + 200 }
            let leader = try await nodes.leader()
            try await nodes.host.kill(leader)
            let atKill = acknowledged()
            try await eventually("200 writes after the kill at \(atKill), got \(acknowledged())", seconds: 60) { acknowledged() > atKill + 200 }
            try await nodes.host.restart(leader)
        }
        // A leader that stands still is missed by the timer only.
        let before = acknowledged()
        try await eventually("200 writes more than \(before)") { acknowledged() > before + 200 }
        let leader = try await nodes.leader()
        try await nodes.host.pause(leader)
        let atPause = acknowledged()
        try await eventually("200 writes after the pause at \(atPause), got \(acknowledged())", seconds: 60) { acknowledged() > atPause + 200 }
        try await nodes.host.resume(leader)
        workload.stop()
        await task.value
        let last = try #require(samples.all.last)
        #expect(last.isFinal && last.verdict.violations == [], "\(last.verdict.violations)")
        #expect(last.verdict.confirmedWrites == last.verdict.acknowledgedWrites, "\(last.verdict)")
        // The stall of the pause is seen: requests that were due while nobody led took long, and say so.
        let slow = samples.all.flatMap(\.slow)
        #expect(!slow.isEmpty && slow.allSatisfy { $0.tookMicroseconds > Workload.slowMicroseconds || $0.error != nil })
        #expect(samples.all.allSatisfy { $0.slow.count <= 20 })
        await nodes.end()
    }

    @Test func theCanaryConfirmsWhatItWrote() async throws {
        let nodes = try await Nodes()
        let posted = Posted<DataEvent>()
        let canary = Canary(configuration: nodes.configuration) { posted.add($0) }
        func writes() -> [CanaryWrite] { posted.canaryWrites }
        canary.setWished(true)
        try await eventually("50 writes") { writes().count >= 50 }
        try await nodes.host.kill(try await nodes.leader())
        let before = writes().count
        try await eventually("100 acknowledged writes after the kill", seconds: 60) { writes()[before...].count { $0.outcome != .failed } >= 100 }
        canary.setWished(false)
        try await eventually("the end") { !canary.isRunning }
        let all = writes(), last = try #require(posted.canaryCheck)
        #expect(zip(all, all.dropFirst()).allSatisfy { $0.dueMicroseconds < $1.dueMicroseconds }, "in order of being due")
        let periods = zip(all, all.dropFirst()).map { $1.dueMicroseconds - $0.dueMicroseconds }
        #expect(periods.sorted()[periods.count / 2] == Canary.periodNanoseconds / 1_000 || abs(periods.sorted()[periods.count / 2] - 20_000) < 100)
        #expect(all.allSatisfy { ($0.outcome == .failed) == ($0.revision == 0) })
        #expect(last.lost == 0 && last.confirmed == last.acknowledged && last.acknowledged >= 100, "\(last)")
        #expect(try await nodes.client.range(RangeQuery(.prefix(Key(Canary.prefix)), countOnly: true)).count == 0)
        await nodes.end()
    }

    @Test func theCanaryRunsByItselfWhileThereIsTrouble() async throws {
        let nodes = try await Nodes()
        let posted = Posted<DataEvent>()
        let canary = Canary(configuration: nodes.configuration, quiet: .seconds(3)) { posted.add($0) }
        #expect(!canary.isRunning)
        canary.arm()
        #expect(canary.isRunning)
        // No quorum for longer than the quiet time: it goes on until that is over.
        let killed = nodes.host.nodes.suffix(2).map(\.id)
        for id in killed { try await nodes.host.kill(id) }
        try await eventually("70 failed writes") { posted.canaryWrites.count { $0.outcome == .failed } >= 70 }
        #expect(canary.isRunning)
        for id in killed { try await nodes.host.restart(id) }
        try await eventually("the end by itself", seconds: 60) { !canary.isRunning }
        #expect(posted.canarySwitches == [true, false])
        await nodes.end()
    }

    @Test func metricsOfOurNodesAreReadAsDifferences() async throws {
        let nodes = try await Nodes()
        let endpoint = try Endpoint(nodes.host.nodes[0].clientEndpoint)
        guard case .tcp(let host, let port) = endpoint.address else { return }
        let before = MetricsReading(try #require(await MetricsProbe.fetch(host: host, port: port)))
        for number in 0..<50 { try await nodes.client.put("m", "\(number)") }
        var sample: MetricsSample?
        try await eventually("50 proposals counted") {
            guard let text = await MetricsProbe.fetch(host: host, port: port) else { return false }
            sample = MetricsReading(text).since(before, node: 1, at: Moment(milliseconds: 0), spanMilliseconds: 1_000)
            return sample!.proposalsCommitted >= 50 && sample!.walFsync?.total ?? 0 > 0
        }
        #expect(sample!.leaderChanges == 0 && sample!.proposalsFailed == 0)
        await nodes.end()
    }

    @Test func aSessionCarriesItAllOut() async throws {
        let nodes = try await Nodes()
        let mailbox = Mailbox()
        let session = try ClusterSession(cluster: ClusterState(name: "t", kind: .attached), connection: ConnectionOptions(endpoints: nodes.configuration.endpoints.map(\.text)), host: nil, mailbox: mailbox)
        session.start()
        var events: [DataEvent] = []
        func outcome(_ id: UInt64) async throws -> CommandResult.Outcome {
            var found: CommandResult.Outcome?
            try await eventually("answer \(id)") {
                events += mailbox.take()
                for case .finished(let result) in events where result.request.number == id { found = result.outcome }
                return found != nil
            }
            return found!
        }
        // A new file, never one that is there.
        let scratch = try Scratch()
        session.perform(.export(RequestID(number: 1), path: scratch.file("a.csv"), content: Array("a,b\n".utf8)))
        guard case .done(_, let detail?) = try await outcome(1) else { Issue.record("not saved"); return }
        #expect(detail.hasPrefix("saved to "))
        #expect(try String(contentsOfFile: scratch.file("a.csv"), encoding: .utf8) == "a,b\n")
        session.perform(.export(RequestID(number: 2), path: scratch.file("a.csv"), content: []))
        guard case .failed = try await outcome(2) else { Issue.record("overwritten"); return }
        // Metrics while they are wanted.
        session.perform(.scrapeMetrics(true))
        try await eventually("figures of all three members") {
            events += mailbox.take()
            for case .metrics(let samples) in events where samples.count == 3 && samples.allSatisfy({ $0.walFsync != nil }) { return true }
            return false
        }
        session.perform(.scrapeMetrics(false))
        // A workload that is refused, started, changed and ended.
        session.perform(.setWorkload(RequestID(number: 3), settings: WorkloadSettings(valueBytes: 1)))
        guard case .failed(let problem) = try await outcome(3) else { Issue.record("accepted"); return }
        #expect(problem.hasPrefix("value bytes"))
        session.perform(.setWorkload(RequestID(number: 4), settings: WorkloadSettings()))
        session.perform(.setWorkload(RequestID(number: 5), settings: WorkloadSettings(putsPerSecond: 20)))
        func samples() -> [WorkloadSample] {
            var all: [WorkloadSample] = []
            for case .workload(let sample) in events { all.append(sample) }
            return all
        }
        try await eventually("a sample under the new settings") {
            events += mailbox.take()
            return samples().contains { $0.settings.putsPerSecond == 20 && $0.put != nil }
        }
        session.perform(.setWorkload(RequestID(number: 6), settings: nil))
        try await eventually("the last sample") {
            events += mailbox.take()
            return samples().last?.isFinal == true
        }
        #expect(samples().last?.verdict.violations == [])
        await session.stop()
        await nodes.end()
    }
}
