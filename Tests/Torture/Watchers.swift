import Base
import Client
import Simulation
import Synchronization

/// Opens a watch, writes down what comes, and stops when told or when the watch ends by itself.
struct WatchSession: Sendable {
    let client: EtcdClient
    let history: HistoryRecorder
    let clock: RunClock
    /// 0: any.
    let memberID: UInt64
    let endpoint: Endpoint?

    enum End: Sendable {
        /// It was told to stop.
        case stopped
        /// What it needed has been compacted; the oldest revision that is left.
        case compacted(Int64)
        case failed(String)
    }

    struct Result: Sendable {
        /// The newest revision up to which nothing is missing; 0: it never began.
        var seen: Int64 = 0
        var end = End.stopped
    }

    /// - Parameters:
    ///   - lifetime: nil: until `isOver`, which is asked with every message and every 50 ms.
    ///   - seen: told of progress.
    func run(_ query: WatchQuery, as number: Int, lifetimeMilliseconds: Int? = nil, isOver: @escaping @Sendable (Int64) -> Bool,
             seen: @Sendable (Int64) -> Void = { _ in }) async -> Result {
        var record = WatchRecord(client: number, member: memberID, key: query.range.start.bytes, end: query.range.wireRangeEnd, startRevision: query.startRevision.rawValue,
                                 wantsPrevious: query.wantsPrevious, openedAt: clock.now())
        record.wantsPuts = !query.skipsPuts
        record.wantsDeletes = !query.skipsDeletes
        let isComplete = query.range == .from(Key([0])) && query.wantsPrevious && record.wantsPuts && record.wantsDeletes
        let open = OpenWatch(record, isComplete: isComplete)
        let stream = client.watch(query, options: CallOptions(endpoint: endpoint))
        let position = Atomic<Int64>(max(0, query.startRevision.rawValue - 1))
        let ender = Task {
            let limit = lifetimeMilliseconds.map { ContinuousClock.now + .milliseconds($0) }
            while !isOver(position.load(ordering: .relaxed)), limit.map({ ContinuousClock.now < $0 }) ?? true, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(50)) }
            stream.cancel()
        }
        defer { ender.cancel() }
        var result = Result()
        do {
            let created = try await stream.started()
            history.add(open)
            open.add(.created(headerRevision: created.rawValue), at: clock.now())
            result.seen = max(0, query.startRevision == .zero ? created.rawValue : query.startRevision.rawValue - 1)
            position.store(result.seen, ordering: .relaxed)
            for try await batch in stream {
                let now = clock.now()
                if batch.isProgress {
                    open.add(.progress(headerRevision: batch.header.revision.rawValue), at: now)
                    result.seen = max(result.seen, batch.header.revision.rawValue)
                } else {
                    open.add(.events(batch.events.map { WatchRecord.Event($0) }, headerRevision: batch.header.revision.rawValue, isFragment: false), at: now)
                    result.seen = max(result.seen, batch.events.last!.kv.modRevision.rawValue)
                }
                position.store(result.seen, ordering: .relaxed)
                seen(result.seen)
            }
        } catch EtcdError.compacted(let oldest) {
            open.add(.cancelled(compactRevision: oldest.rawValue, reason: ""), at: clock.now())
            result.end = .compacted(oldest.rawValue)
        } catch is CancellationError {
        } catch {
            open.add(.cancelled(compactRevision: 0, reason: "\(error)"), at: clock.now())
            result.end = .failed("\(error)")
        }
        open.close(at: clock.now())
        return result
    }
}

/// A watch on everything from the first revision on, for the whole run: what the truth is made of. The library carries it over broken
/// connections; pinned to a member, it waits for that member.
struct Recorder: Sendable {
    let session: WatchSession
    let number: Int
    let position: Atomic64

    /// A number that several tasks share.
    final class Atomic64: Sendable {
        private let value = Atomic<Int64>(0)
        func raise(to new: Int64) { _ = value.max(new, ordering: .relaxed) }
        var now: Int64 { value.load(ordering: .relaxed) }
    }

    func run(isOver: @escaping @Sendable () -> Bool) async {
        var next: Int64 = 1
        while !isOver(), !Task.isCancelled {
            let query = WatchQuery(.from(Key([0])), startRevision: Revision(next), wantsPrevious: true)
            let result = await session.run(query, as: number, isOver: { _ in isOver() }, seen: { position.raise(to: $0) })
            next = max(next, result.seen + 1)
            if case .compacted(let oldest) = result.end { next = max(next, oldest + 1) }
            // Pinned to a member that is down, it fails until it has begun.
            if case .failed = result.end { try? await Task.sleep(for: .milliseconds(50)) }
        }
    }
}

/// A watcher that comes and goes: it mostly goes on where it stood, sometimes from earlier, from now, or from a revision that is still to come.
struct Wanderer: Sendable {
    let session: WatchSession
    let history: HistoryRecorder
    let control: LoadControl

    func run(seed: UInt64, number index: Int) async {
        var generator = SeededGenerator(seed: seed).split("watcher \(index)")
        var seen: Int64 = 0
        var oldest: Int64 = 1
        while !control.isStopped.load(ordering: .relaxed), !Task.isCancelled {
            let range: KeyRange = switch Int.random(in: 0..<4, using: &generator) {
            case 0: .single(Key(TortureKeys.all.randomElement(using: &generator)!))
            case 1: .bounded(start: Key(TortureKeys.all[2]), end: Key(TortureKeys.all[6]))
            default: TortureKeys.range
            }
            var query = WatchQuery(range, wantsPrevious: Bool.random(using: &generator))
            switch Int.random(in: 0..<20, using: &generator) {
            case 0, 1: query.startRevision = .zero
            case 2, 3, 4: query.startRevision = Revision(max(oldest, seen - .random(in: 0...60, using: &generator), 1))
            case 5: query.startRevision = Revision(max(seen, control.revision) + .random(in: 1...20, using: &generator))
            default: query.startRevision = Revision(max(oldest, seen + 1))
            }
            switch Int.random(in: 0..<10, using: &generator) {
            case 0: query.skipsPuts = true
            case 1: query.skipsDeletes = true
            default: break
            }
            let result = await session.run(query, as: history.newClient(), lifetimeMilliseconds: .random(in: 300...5_000, using: &generator),
                                           isOver: { _ in control.isStopped.load(ordering: .relaxed) })
            seen = max(seen, result.seen)
            switch result.end {
            case .compacted(let revision): oldest = max(oldest, revision)
            case .failed: try? await Task.sleep(for: .milliseconds(50))
            case .stopped: break
            }
        }
    }
}

/// Forgets history while the run goes on.
struct Compactor: Sendable {
    let client: EtcdClient
    let settings: Settings
    let recorders: [Recorder]
    let history: HistoryRecorder
    let control: LoadControl
    let clock: RunClock

    func run(seed: UInt64) async {
        guard settings.compaction != .none else { return }
        var generator = SeededGenerator(seed: seed).split("compaction")
        var caller = Caller(client: client, endpoint: nil, memberID: .none, timeoutMilliseconds: 2_000, history: history, clock: clock)
        var last: Int64 = 1
        while !control.isStopped.load(ordering: .relaxed), !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(settings.compaction == .often ? Int.random(in: 100...400, using: &generator) : .random(in: 1_000...4_000, using: &generator)))
            let positions = recorders.map(\.position.now)
            // Whatever happens, one recorder has seen everything.
            guard let limit = settings.compaction == .often ? positions.max() : positions.min() else { continue }
            let revision = limit - .random(in: 0...50, using: &generator)
            guard revision > last else { continue }
            _ = await caller.perform(.compact(revision: revision))
            last = revision
        }
    }
}
