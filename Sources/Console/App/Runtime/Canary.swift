import Base
import Client
import Foundation
import Synchronization
import UI

/// A small put, fifty times a second, whose only purpose is to show what clients feel while something happens: each with a short time
/// limit and the client library's failover, and each acknowledged one is looked for in a watch of the key.
///
/// Runs by a person's wish, and by itself from just before something is done to a playground's nodes until ten seconds after the last
/// sign of trouble in its own writes. Has no connection and no task while it does not run.
final class Canary: Sendable {
    static let prefix = "/quarterdeck/canary/"
    static let periodNanoseconds: Int64 = 20_000_000
    private static let timeoutNanoseconds: Int64 = 1_000_000_000
    /// A write that took longer is a sign of trouble.
    private static let troubleMicroseconds = 100_000
    private static let batchNanoseconds: Int64 = 100_000_000

    private struct State {
        var isWished = false
        /// Runs by itself until then, nanoseconds.
        var armedUntil: Int64 = 0
        var run: Task<Void, Never>?
        var key: String?
        var isClosed = false
        // Of the present run:
        /// Writes in order of being due; nil: no answer yet. The first is number `firstWrite`.
        var writes: [CanaryWrite?] = []
        var firstWrite = 0
        var ledger = CanaryLedger()
        var toldCheck = CanaryCheck()
    }

    private let configuration: ClientConfiguration
    private let quietNanoseconds: Int64
    private let post: @Sendable (DataEvent) -> Void
    private let state = Mutex(State())

    /// - Parameter quiet: how long nothing must have been wrong before it ends by itself; longer than a write's time limit, or a stall would go unseen.
    init(configuration: ClientConfiguration, quiet: TimeSpan = .seconds(10), post: @escaping @Sendable (DataEvent) -> Void) {
        self.configuration = configuration
        quietNanoseconds = quiet.nanoseconds
        self.post = post
    }

    // MARK: From other threads

    func setWished(_ isOn: Bool) {
        state.withLock { state in
            state.isWished = isOn
            // A person who stops it means it.
            if !isOn { state.armedUntil = 0 }
        }
        if isOn { start() }
    }

    /// Something is about to be done to the nodes.
    func arm() {
        state.withLock { $0.armedUntil = max($0.armedUntil, Clock.monotonicNanoseconds() + quietNanoseconds) }
        start()
    }

    var isRunning: Bool { state.withLock { $0.run != nil } }

    /// The console goes: at once, without tidying up. Returns the key that is left behind, if one is.
    @discardableResult
    func close() -> String? {
        let (run, key) = state.withLock { state in
            state.isClosed = true
            return (state.run, state.key)
        }
        run?.cancel()
        return key
    }

    private func start() {
        let hasStarted = state.withLock { state in
            guard state.run == nil, !state.isClosed else { return false }
            (state.writes, state.firstWrite, state.ledger, state.toldCheck) = ([], 0, CanaryLedger(), CanaryCheck())
            state.run = Task.detached { await self.run() }
            return true
        }
        if hasStarted { post(.isCanaryOn(true)) }
    }

    private var isWanted: Bool {
        state.withLock { $0.isWished || $0.armedUntil > Clock.monotonicNanoseconds() } && !Task.isCancelled
    }

    // MARK: A run

    private func run() async {
        defer { ended() }
        guard let client = try? EtcdClient(configuration: configuration) else { return }
        let key = Canary.prefix + String(UInt32.random(in: 0x10_0000...0xff_ffff), radix: 16)
        state.withLock { $0.key = key }
        let watcher = Mutex<Task<Void, Never>?>(nil)
        await withDiscardingTaskGroup { group in
            var due = Clock.monotonicNanoseconds()
            var tellDue = due + Canary.batchNanoseconds
            var number = 0
            while isWanted {
                let this = (number: number, due: due)
                state.withLock { $0.writes.append(nil) }
                group.addTask { await self.write(this.number, this.due, key, client) }
                number += 1
                due += Canary.periodNanoseconds
                let now = Clock.monotonicNanoseconds()
                // The whole process stood still: those writes were not due, nobody was there.
                if now - due > Canary.timeoutNanoseconds { due = now }
                if now >= tellDue {
                    tellDue = now + Canary.batchNanoseconds
                    watch(key, client, watcher)
                    tell()
                }
                let wait = due - Clock.monotonicNanoseconds()
                if wait > 0 { try? await Task.sleep(for: .nanoseconds(wait), tolerance: .milliseconds(1)) }
            }
            if Task.isCancelled { group.cancelAll() }
        }
        watch(key, client, watcher)
        tell()
        if !Task.isCancelled {
            // The watch comes to the last write, or to nothing more for want of a quorum.
            let limit = Clock.monotonicNanoseconds() + 2 * Canary.timeoutNanoseconds
            while !state.withLock({ $0.ledger.isComplete }), Clock.monotonicNanoseconds() < limit, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(20)) }
            tell()
            _ = try? await client.delete(DeleteCommand(.single(Key(key))), options: CallOptions(timeout: .seconds(5)))
        }
        watcher.withLock { $0 }?.cancel()
        await client.close()
    }

    private func ended() {
        let mustRunAgain = state.withLock { state in
            (state.run, state.key) = (nil, nil)
            return (state.isWished || state.armedUntil > Clock.monotonicNanoseconds()) && !state.isClosed
        }
        post(.isCanaryOn(false))
        // Armed in the very moment it ended.
        if mustRunAgain { start() }
    }

    private func write(_ number: Int, _ due: Int64, _ key: String, _ client: EtcdClient) async {
        let dueWall = Canary.wallMicroseconds() - (Clock.monotonicNanoseconds() - due) / 1_000
        let attempts = Mutex(1)
        let options = CallOptions(timeout: TimeSpan(nanoseconds: Canary.timeoutNanoseconds), onAttempts: { count in attempts.withLock { $0 = count } })
        let answer = try? await client.put(Array(key.utf8), Array("canary \(number)".utf8), options: options)
        let took = Clock.microseconds(since: due)
        let write = CanaryWrite(dueMicroseconds: dueWall, tookMicroseconds: Int64(took), outcome: answer == nil ? .failed : attempts.withLock { $0 } > 1 ? .retried : .acknowledged,
                                revision: answer?.header.revision.rawValue ?? 0)
        state.withLock { state in
            if number >= state.firstWrite { state.writes[number - state.firstWrite] = write }
            if let answer { state.ledger.acknowledge(answer.header.revision.rawValue) }
            if answer == nil || took > Canary.troubleMicroseconds, state.armedUntil > 0 {
                state.armedUntil = max(state.armedUntil, Clock.monotonicNanoseconds() + quietNanoseconds)
            }
        }
    }

    /// Posts the writes that have their answer, as far as all before them have theirs, and the check when it moved.
    private func tell() {
        let (batch, check) = state.withLock { state -> ([CanaryWrite], CanaryCheck?) in
            let count = state.writes.firstIndex { $0 == nil } ?? state.writes.count
            let batch = state.writes[..<count].compactMap { $0 }
            state.writes.removeFirst(count)
            state.firstWrite += count
            guard state.ledger.check != state.toldCheck else { return (batch, nil) }
            state.toldCheck = state.ledger.check
            return (batch, state.toldCheck)
        }
        if !batch.isEmpty { post(.canary(batch)) }
        if let check { post(.canaryCheck(check)) }
    }

    /// Opens the watch once the first acknowledged revision is known: it starts there, whatever the cluster is going through.
    private func watch(_ key: String, _ client: EtcdClient, _ watcher: borrowing Mutex<Task<Void, Never>?>) {
        guard let start = state.withLock({ $0.ledger.start }) else { return }
        watcher.withLock { task in
            guard task == nil else { return }
            task = Task.detached {
                let stream = client.watch(WatchQuery(.single(Key(key)), startRevision: Revision(start)))
                do {
                    for try await batch in stream {
                        let revisions = batch.events.filter { $0.kind == .put }.map(\.kv.modRevision.rawValue)
                        // A progress report covers everything up to its revision; events cover everything up to the last of them.
                        self.state.withLock { $0.ledger.saw(revisions, upTo: batch.isProgress ? batch.header.revision.rawValue : revisions.last ?? 0) }
                    }
                } catch {
                    // Compacted away, or the end: what was not seen stays unconfirmed, which is told.
                }
            }
        }
    }

    private static func wallMicroseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000
    }
}
