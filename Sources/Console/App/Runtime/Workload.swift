import Base
import Client
import Foundation
import Histogram
import Synchronization
import UI

/// The built-in workload that a person switches on to see what puts and gets take, and whether the cluster keeps its promises: every
/// value carries the number of its write, and `ConsistencyChecker` judges every answer.
///
/// `clients` tasks take operations from one schedule, so that at most that many are under way. With an open pace a latency counts from
/// the moment the operation was due, so that a stall shows in all that it delayed; what waits longer than a request may take counts as
/// failed without being sent. With a closed pace it counts from the start of the call, and lost time is not made up for.
final class Workload: Sendable {
    static let prefix = "/quarterdeck/workload/"
    private static let timeoutNanoseconds: Int64 = 5_000_000_000
    static let slowMicroseconds = 100_000
    private static let slowPerSecond = 20
    /// Naps are no longer than this, so that a change of the settings is obeyed soon.
    private static let napNanoseconds: Int64 = 100_000_000
    /// Read-backs of the end that are under way at the same time, and for how long they are tried.
    private static let readBackWidth = 16
    private static let readBackNanoseconds: Int64 = 10_000_000_000

    private struct Second {
        var puts = Series()
        var reads = Series()
        var failed = 0
        var retried = 0
        var buckets = [Int](repeating: 0, count: WorkloadSample.bucketBoundsMicroseconds.count + 1)
        var slow: [SlowRequest] = []
    }

    private struct Series {
        /// Microseconds, three significant digits, up to a minute; for the exact percentiles of the second.
        var exact = Histogram<UInt32>(lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: .three)
        var fine = LatencyHistogram()

        mutating func record(_ microseconds: Int) {
            exact.record(UInt64(min(microseconds, 60_000_000)))
            fine.record(microseconds: microseconds)
        }

        var latency: WorkloadSample.Latency? {
            guard exact.totalCount > 0 else { return nil }
            return WorkloadSample.Latency(count: Int(exact.totalCount), p50Microseconds: Int(exact.valueAtPercentile(50)),
                                          p99Microseconds: Int(exact.valueAtPercentile(99)), maxMicroseconds: Int(exact.max))
        }
    }

    private struct State {
        var settings: WorkloadSettings
        /// Counts changes of the settings: a slot taken under older ones is given up.
        var generation = 0
        var schedule: WorkloadSchedule
        var keys: WorkloadKeys
        var checker: ConsistencyChecker
        var second = Second()
        var workers: [Task<Void, Never>] = []
        var isStopping = false
    }

    /// A turn of one client.
    private struct Turn {
        var isPut: Bool
        var due: Int64
        var key: Int
        var generation: Int
        var settings: WorkloadSettings
    }

    private let client: EtcdClient
    /// Where the leader is asked for puts and gets of target `leader`; nil: not known now.
    private let leader: @Sendable () -> Endpoint?
    private let post: @Sendable (WorkloadSample) -> Void
    private let state: Mutex<State>
    private let started = Clock.monotonicNanoseconds()
    /// This run's own keys: another console's workload, or what a crashed one left behind, is none of them.
    let keyPrefix: String

    /// - Parameter configuration: of the cluster; the workload has connections of its own, to all endpoints in turn.
    init(configuration: ClientConfiguration, settings: WorkloadSettings, leader: @escaping @Sendable () -> Endpoint?, post: @escaping @Sendable (WorkloadSample) -> Void) throws {
        var configuration = configuration
        configuration.balancing = .roundRobin
        client = try EtcdClient(configuration: configuration)
        self.leader = leader
        self.post = post
        keyPrefix = Workload.prefix + String(UInt32.random(in: 0x10_0000...0xff_ffff), radix: 16) + "/"
        state = Mutex(State(settings: settings, schedule: WorkloadSchedule(settings, at: Clock.monotonicNanoseconds()), keys: WorkloadKeys(settings, seed: UInt64.random(in: 0 ... .max)),
                            checker: ConsistencyChecker(prefix: keyPrefix)))
    }

    // MARK: From other threads

    /// Obeyed within a tenth of a second.
    func change(_ settings: WorkloadSettings) {
        state.withLock { state in
            guard settings != state.settings, !state.isStopping else { return }
            state.settings = settings
            state.generation += 1
            state.schedule = WorkloadSchedule(settings, at: Clock.monotonicNanoseconds())
            state.keys.change(settings)
        }
        adjustWorkers()
    }

    /// No new operations; then everything is read back and deleted, and `run` returns.
    func stop() { state.withLock { $0.isStopping = true } }

    var verdict: ConsistencyVerdict { state.withLock { $0.checker.verdict } }

    /// Until `stop`, or at once (leaving its keys behind) when cancelled.
    func run() async {
        adjustWorkers()
        await withTaskCancellationHandler {
            var due = Clock.monotonicNanoseconds()
            while !isOver {
                due += 1_000_000_000
                while !isOver, Clock.monotonicNanoseconds() < due { await nap(until: due) }
                // What came after the last full second is in the final sample.
                if !isOver { report(isFinal: false) }
            }
            // What is under way still gets its answer.
            for worker in state.withLock({ $0.workers }) { await worker.value }
            guard !Task.isCancelled else { return }
            await readBack()
            _ = try? await client.delete(DeleteCommand(.prefix(Key(keyPrefix))), options: CallOptions(timeout: .seconds(5)))
            report(isFinal: true)
        } onCancel: {
            for worker in state.withLock({ $0.workers }) { worker.cancel() }
        }
        await client.close()
    }

    private var isOver: Bool { Task.isCancelled || state.withLock { $0.isStopping } }

    private func nap(until due: Int64) async {
        let wait = min(due - Clock.monotonicNanoseconds(), Workload.napNanoseconds)
        if wait > 0 { try? await Task.sleep(for: .nanoseconds(wait), tolerance: .milliseconds(1)) }
    }

    /// Microseconds since the run began: the clock of the checker.
    private func now() -> Int64 { (Clock.monotonicNanoseconds() - started) / 1_000 }

    // MARK: Clients

    /// Starts clients that are missing; those too many end by themselves.
    private func adjustWorkers() {
        state.withLock { state in
            guard !state.isStopping else { return }
            while state.workers.count < state.settings.clients {
                let number = state.workers.count
                state.workers.append(Task.detached { await self.work(number) })
            }
        }
    }

    private func work(_ number: Int) async {
        while !isOver {
            let turn = state.withLock { state -> Turn? in
                guard number < state.settings.clients, let slot = state.schedule.take(at: Clock.monotonicNanoseconds()) else { return nil }
                return Turn(isPut: slot.isPut, due: slot.due, key: state.keys.next(), generation: state.generation, settings: state.settings)
            }
            guard let turn else {
                // One client too many, for now; it is back when the settings want it.
                await nap(until: .max)
                continue
            }
            while Clock.monotonicNanoseconds() < turn.due, !isOver, state.withLock({ $0.generation == turn.generation }) { await nap(until: turn.due) }
            guard Clock.monotonicNanoseconds() >= turn.due, !isOver else { continue }
            await perform(turn)
        }
    }

    private func perform(_ turn: Turn) async {
        let start = Clock.monotonicNanoseconds()
        // A closed pace owes nothing for the time before its call.
        let since = turn.settings.pace == .open ? turn.due : start
        let left = Workload.timeoutNanoseconds - (start - since)
        guard left > 0 else {
            return finish(turn, since, attempts: 0, failure: "not sent: it was due \((start - since) / 1_000_000_000) s ago and all \(turn.settings.clients) clients were waiting")
        }
        if turn.isPut {
            let number = state.withLock { $0.checker.beginWrite(key: turn.key, at: now()) }
            let command = PutCommand(key(turn.key), WorkloadValue.make(number, size: turn.settings.valueBytes))
            do {
                let (result, attempts) = try await attempt(turn, left) { try await self.client.put(command, options: $0) }
                state.withLock { $0.checker.endWrite(number, .acknowledged(revision: result.header.revision.rawValue), at: now()) }
                finish(turn, since, attempts: attempts, failure: nil)
            } catch {
                state.withLock { $0.checker.endWrite(number, Workload.wasNeverSent(error) ? .refused : .unknown, at: now()) }
                finish(turn, since, attempts: 1, failure: ClusterSession.text(of: error))
            }
        } else {
            let isLinearizable = turn.settings.consistency == .linearizable
            let token = state.withLock { $0.checker.beginRead(key: turn.key, isLinearizable: isLinearizable, at: now()) }
            let query = RangeQuery(.single(Key(key(turn.key))), isSerializable: !isLinearizable)
            do {
                let (result, attempts) = try await attempt(turn, left) { try await self.client.range(query, options: $0) }
                let found = result.kvs.first.map(WorkloadValue.found)
                state.withLock { $0.checker.endRead(token, found, at: now()) }
                finish(turn, since, attempts: attempts, failure: nil)
            } catch {
                finish(turn, since, attempts: 1, failure: ClusterSession.text(of: error))
            }
        }
    }

    /// One call, to the leader where that is wanted. A pinned call has a single attempt: the next leader is asked as long as nobody has
    /// looked at the request.
    private func attempt<Answer: Sendable>(_ turn: Turn, _ left: Int64, _ call: @Sendable (CallOptions) async throws -> Answer) async throws -> (Answer, attempts: Int) {
        let deadline = Clock.monotonicNanoseconds() + left
        let attempts = Mutex(0)
        while true {
            let timeout = TimeSpan(nanoseconds: max(1_000_000, deadline - Clock.monotonicNanoseconds()))
            let endpoint = turn.settings.target == .leader ? leader() : nil
            do {
                let answer = try await call(CallOptions(timeout: timeout, endpoint: endpoint, onAttempts: { count in attempts.withLock { $0 += count } }))
                return (answer, attempts.withLock { $0 })
            } catch {
                guard endpoint != nil, turn.isPut ? Workload.wasNeverSent(error) : Workload.isWorthRepeating(error), Clock.monotonicNanoseconds() + 20_000_000 < deadline, !Task.isCancelled else { throw error }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    private static func wasNeverSent(_ error: any Error) -> Bool {
        if case EtcdError.transport(_, _, wasSent: false) = error { true } else { false }
    }

    private static func isWorthRepeating(_ error: any Error) -> Bool {
        if case EtcdError.transport = error { true } else { false }
    }

    private func key(_ number: Int) -> [UInt8] { Array((keyPrefix + String(number)).utf8) }

    private func finish(_ turn: Turn, _ since: Int64, attempts: Int, failure: String?) {
        // Ended by the end of the console: says nothing about the cluster.
        if Task.isCancelled { return }
        let microseconds = max(1, Clock.microseconds(since: since))
        let began = Clock.now().advanced(byMilliseconds: -Int64(microseconds / 1_000))
        let number = key(turn.key)
        state.withLock { state in
            if failure != nil || microseconds > Workload.slowMicroseconds, state.second.slow.count < Workload.slowPerSecond {
                state.second.slow.append(SlowRequest(at: began, tookMicroseconds: microseconds, operation: turn.isPut ? "put" : "get", key: String(decoding: number, as: UTF8.self), error: failure))
            }
            guard failure == nil else {
                state.second.failed += 1
                return
            }
            if attempts > 1 { state.second.retried += 1 }
            if turn.isPut {
                state.second.puts.record(microseconds)
                let bounds = WorkloadSample.bucketBoundsMicroseconds
                state.second.buckets[bounds.firstIndex { microseconds <= $0 } ?? bounds.count] += 1
            } else {
                state.second.reads.record(microseconds)
            }
        }
    }

    // MARK: The end

    /// Every key that was written is read once more, so that every acknowledged write has been looked for.
    private func readBack() async {
        let deadline = Clock.monotonicNanoseconds() + Workload.readBackNanoseconds
        let keys = state.withLock { $0.checker.touchedKeys }
        await withTaskGroup(of: Void.self) { group in
            for (index, number) in keys.enumerated() {
                if index >= Workload.readBackWidth { await group.next() }
                let left = deadline - Clock.monotonicNanoseconds()
                guard left > 0, !Task.isCancelled else { break }
                group.addTask {
                    let token = self.state.withLock { $0.checker.beginRead(key: number, isLinearizable: true, at: self.now()) }
                    guard let result = try? await self.client.range(RangeQuery(.single(Key(self.key(number)))), options: CallOptions(timeout: TimeSpan(nanoseconds: left))) else { return }
                    self.state.withLock { $0.checker.endRead(token, result.kvs.first.map(WorkloadValue.found), at: self.now()) }
                }
            }
        }
    }

    private func report(isFinal: Bool) {
        let (second, settings, verdict) = state.withLock { state in
            defer { state.second = Second() }
            return (state.second, state.settings, state.checker.verdict)
        }
        post(WorkloadSample(at: Clock.now(), put: second.puts.latency, read: second.reads.latency, failed: second.failed, retried: second.retried, putBuckets: second.buckets,
                            putHistogram: second.puts.fine, readHistogram: second.reads.fine, slow: second.slow, settings: settings, verdict: verdict, isFinal: isFinal))
    }
}
