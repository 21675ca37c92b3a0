import Base
import Client
import Foundation
import Simulation
import Synchronization

/// One run: members, load, watchers, faults; then everything healed, a common end, and the evidence.
struct TortureRun: Sendable {
    let options: TortureOptions
    let settings: Settings
    let clock = RunClock()

    struct Outcome: Sendable {
        var evidence: Evidence
        var verdict: Judge.Verdict
        var faults: [String: Int]
        var restarts: Int
        /// Acknowledged calls a second before the first fault.
        var rate: Double
        var done = 0, refused = 0, unknown = 0
        var records = 0
        /// Of faults, without load before and the end.
        var faultSeconds: Double
        var judgeSeconds: Double

        var violations: [Violation] { verdict.violations }
    }

    init(_ options: TortureOptions) {
        self.options = options
        settings = Settings(seed: options.seed)
    }

    private func say(_ line: String) {
        if !options.isQuiet { FileHandle.standardError.write(Data((line + "\n").utf8)) }
    }

    /// - Throws: `TortureError` when there was no run to judge: a program that does not start, a cluster that never elects.
    func run() async throws -> Outcome {
        // A member that ends while we write to it is no reason to end.
        signal(SIGPIPE, SIG_IGN)
        say("torture: seed \(options.seed), \(options.engine.rawValue), \(options.nodeCount) nodes, \(options.clientCount) clients, profile \(options.profile.rawValue), \(settings.description)")
        try FileManager.default.createDirectory(atPath: options.directory, withIntermediateDirectories: true)
        let cluster = try Cluster(options, settings)
        do {
            let outcome = try await run(on: cluster)
            await cluster.end()
            return outcome
        } catch {
            await cluster.end()
            throw error
        }
    }

    private func run(on cluster: Cluster) async throws -> Outcome {
        try await cluster.startAll()
        guard await cluster.waitForLeader(withinSeconds: 30) else { throw TortureError("no leader within 30 s; logs in \(options.directory)") }
        let ids = await cluster.ids()
        let endpoints = cluster.endpoints
        let history = HistoryRecorder()
        let control = LoadControl(clients: options.clientCount)
        let watchesEnd = Atomic64()

        let everywhere = try Cluster.client(endpoints, telling: history)
        let pinned = try endpoints.map { try Cluster.client([$0], telling: history) }
        func session(_ member: Int?) -> WatchSession {
            WatchSession(client: member.map { pinned[$0] } ?? everywhere, history: history, clock: clock, memberID: member.map { ids[$0].rawValue } ?? 0,
                         endpoint: member.map { endpoints[$0] })
        }
        let recorders = ([nil] + endpoints.indices.map { $0 }).map { Recorder(session: session($0), number: history.newClient(), position: Recorder.Atomic64()) }
        let faults = FaultDriver(cluster: cluster, clock: clock, say: { [self] in say($0) })
        let schedule = Schedule.draw(seed: options.seed, milliseconds: Int(options.seconds * 1_000), nodes: options.nodeCount, profile: options.profile, engine: options.engine)

        var rate = 0.0
        var faultSeconds = 0.0
        var isStuck: String?
        let end: (Int64, Int64, [Evidence.MemberEnd]) = try await withThrowingTaskGroup(of: Void.self) { watchers in
            for recorder in recorders { watchers.addTask { await recorder.run(isOver: { watchesEnd.now > 0 && (watchesEnd.now > 1 || recorder.position.now >= watchesEnd.revision) }) } }
            return try await withThrowingTaskGroup(of: Void.self) { load in
                for number in 0..<options.clientCount {
                    // A quarter of them takes whichever member the library picks.
                    let member = number % 4 == 3 ? nil : number % endpoints.count
                    let client = LoadClient(number: number, client: member.map { pinned[$0] } ?? everywhere, member: member, endpoint: member.map { endpoints[$0] },
                                            memberIDs: ids, settings: settings, history: history, control: control, clock: clock)
                    load.addTask { await client.run(seed: options.seed) }
                }
                for index in 0..<6 {
                    let wanderer = Wanderer(session: session(index % 3 == 2 ? nil : index % endpoints.count), history: history, control: control)
                    load.addTask { await wanderer.run(seed: options.seed, number: index) }
                }
                let compactor = Compactor(client: everywhere, settings: settings, recorders: recorders, history: history, control: control, clock: clock)
                load.addTask { await compactor.run(seed: options.seed) }
                defer { control.isStopped.store(true, ordering: .relaxed) }

                try await Task.sleep(for: .seconds(options.warmUpSeconds))
                rate = Double(control.acknowledged.load(ordering: .relaxed)) / options.warmUpSeconds
                say(String(format: "%7.3f s  %.0f acknowledged calls/s; faults begin: %d", Double(clock.now()) / 1e9, rate, schedule.count))
                let began = clock.now()
                await faults.run(schedule)
                faultSeconds = Double(clock.now() - began) / 1e9
                try await cluster.heal()
                say(String(format: "%7.3f s  healed", Double(clock.now()) / 1e9))

                // Alive again: every client, so every member, is served.
                let before = control.perClient
                if await !condition(withinSeconds: 30, { zip(control.perClient, before).allSatisfy { $0 >= $1 + 3 } }) {
                    let idle = zip(control.perClient, before).enumerated().filter { $0.element.0 < $0.element.1 + 3 }.map(\.offset)
                    isStuck = "clients \(idle) got no answers within 30 s of the last fault"
                }
                control.isStopped.store(true, ordering: .relaxed)
                try await load.waitForAll()
                let end = try await finish(cluster, history, everywhere)
                watchesEnd.finish(at: end.0)
                if await !condition(withinSeconds: 30, { recorders.allSatisfy { $0.position.now >= end.0 } }) {
                    history.report(Violation("watch-stuck", "watches on everything stand at \(recorders.map(\.position.now)), the last revision is \(end.0), 30 s after it"))
                    watchesEnd.giveUp()
                }
                return end
            }
        }
        // Whatever is left of the history, as each member tells it now.
        for index in endpoints.indices {
            let from = max(1, end.1 + 1)
            let result = await session(index).run(WatchQuery(.from(Key([0])), startRevision: Revision(from), wantsPrevious: true), as: history.newClient(),
                                                  lifetimeMilliseconds: 20_000, isOver: { $0 >= end.0 })
            if result.seen < end.0 { history.report(Violation("watch-stuck", "n\(index + 1): a last watch from \(from) came to \(result.seen) of \(end.0): \(result.end)")) }
        }
        if let isStuck { history.report(Violation("liveness", isStuck)) }
        for text in await cluster.unexpected { history.report(Violation("process-ended", text)) }
        for index in endpoints.indices where await !cluster.runs(index) { history.report(Violation("process-ended", "n\(index + 1) does not run at the end")) }
        for client in pinned + [everywhere] { await client.close() }

        let evidence = Evidence(operations: history.operations, watches: history.records, reports: history.reports, ends: end.2, finalRevision: end.0, compactRevision: end.1)
        let judgeStart = clock.now()
        var verdict = Judge.judge(evidence, searchBudget: options.searchBudget)
        if rate < options.minimumRate {
            verdict.violations.append(Violation("no-load", "\(Int(rate)) acknowledged calls/s before the first fault, at least \(Int(options.minimumRate)) are needed for the run to say anything"))
        }
        var outcome = Outcome(evidence: evidence, verdict: verdict, faults: faults.counts.all, restarts: await cluster.lives() - options.nodeCount, rate: rate,
                              records: evidence.watches.count, faultSeconds: faultSeconds, judgeSeconds: Double(clock.now() - judgeStart) / 1e9)
        for operation in evidence.operations {
            switch operation.outcome {
            case .done, .lease: outcome.done += 1
            case .refused: outcome.refused += 1
            case .unknown: outcome.unknown += 1
            }
        }
        return outcome
    }

    /// When the recorders may stop.
    private final class Atomic64: Sendable {
        private let state = Mutex<(phase: Int, revision: Int64)>((0, 0))
        var now: Int { state.withLock { $0.phase } }
        var revision: Int64 { state.withLock { $0.revision } }
        func finish(at revision: Int64) { state.withLock { $0 = (1, revision) } }
        func giveUp() { state.withLock { $0.phase = 2 } }
    }

    // MARK: The end

    /// Ends all leases, writes once more through every member, waits until all members are there, and asks each what it holds.
    /// - Returns: the last revision, the compact revision and the members' answers.
    func finish(_ cluster: Cluster, _ history: HistoryRecorder, _ client: EtcdClient) async throws -> (Int64, Int64, [Evidence.MemberEnd]) {
        let ids = await cluster.ids()
        let endpoints = cluster.endpoints
        func caller(_ index: Int?) -> Caller {
            Caller(client: client, endpoint: index.map { endpoints[$0] }, memberID: index.map { ids[$0] } ?? .none, timeoutMilliseconds: 3_000, history: history, clock: clock)
        }
        var reaper = caller(nil)
        let areLeasesGone = await condition(withinSeconds: 30) {
            guard let leases = try? await client.leases(options: CallOptions(timeout: .seconds(3))) else { return false }
            for lease in leases { _ = await reaper.perform(.leaseRevoke(id: lease.rawValue)) }
            return leases.isEmpty
        }
        guard areLeasesGone else { throw TortureError("leases could not be ended within 30 s of the last fault; logs in \(options.directory)") }
        var last: Int64 = 0
        for index in endpoints.indices {
            var writer = caller(index)
            let isWritten = await condition(withinSeconds: 30) {
                let operation = await writer.perform(.put(key: Array("t/end".utf8), value: Array("end.\(index).\(writer.number).\(clock.now())".utf8), lease: 0))
                guard case .done(let revision, _, _, _) = operation.outcome else { return false }
                last = revision
                return true
            }
            guard isWritten else { throw TortureError("no write through n\(index + 1) within 30 s of the last fault; logs in \(options.directory)") }
        }
        // A write of unknown outcome may still have come in behind the last known one.
        var ends: [Evidence.MemberEnd] = []
        var said = "nothing"
        let areEqual = await condition(withinSeconds: 60, everyMilliseconds: 100) {
            ends = []
            for index in endpoints.indices {
                var query = RangeQuery(.from(Key([0])))
                query.isSerializable = true
                let options = CallOptions(timeout: .seconds(3), endpoint: endpoints[index])
                do {
                    said = "n\(index + 1) is asked for all keys"
                    let held = try await client.range(query, options: options)
                    said = "n\(index + 1) is asked for its hash at \(held.header.revision)"
                    let hash = try await client.hashKV(of: endpoints[index], revision: held.header.revision, options: options)
                    ends.append(.init(name: "n\(index + 1)", id: ids[index].rawValue, revision: held.header.revision.rawValue, hash: hash.hash,
                                      compactRevision: max(0, hash.compactRevision.rawValue), content: held.kvs.map { SeenKeyValue($0) }, count: held.count))
                } catch {
                    said += ": \(error)"
                    return false
                }
            }
            said = ends.map { "\($0.name) at \($0.revision), compacted \($0.compactRevision)" }.joined(separator: "; ")
            return ends.allSatisfy { $0.revision >= last && $0.revision == ends[0].revision && $0.compactRevision == ends[0].compactRevision }
        }
        guard areEqual else { throw TortureError("the members do not converge within 60 s of the last write (at \(last)): \(said); logs in \(options.directory)") }
        let compacted = ends[0].compactRevision
        if compacted > 0 {
            for index in endpoints.indices {
                ends[index].hashAtCompaction = try await client.hashKV(of: endpoints[index], revision: Revision(compacted), options: CallOptions(timeout: .seconds(3))).hash
            }
        }
        return (ends[0].revision, compacted, ends)
    }
}
