import Base
import Client
import Foundation
import Synchronization
import UI

/// Collects items and passes them on once a frame, so that ten thousand a second are thirty messages for the console's thread.
/// The first after a rest goes at once.
final class FrameBatcher<Item: Sendable>: Sendable {
    private struct State {
        var items: [Item] = []
        var lastFlush: Int64 = 0
        var isScheduled = false
    }

    private static var frameNanoseconds: Int64 { 33_000_000 }
    private let state = Mutex(State())
    private let pass: @Sendable ([Item]) -> Void

    init(_ pass: @escaping @Sendable ([Item]) -> Void) { self.pass = pass }

    func add(_ items: [Item]) {
        let now = Clock.monotonicNanoseconds()
        let wait = state.withLock { state -> Int64? in
            state.items += items
            guard !state.isScheduled else { return nil }
            state.isScheduled = true
            return max(0, state.lastFlush + Self.frameNanoseconds - now)
        }
        guard let wait else { return }
        if wait == 0 { return flush() }
        Task.detached {
            try? await Task.sleep(for: .nanoseconds(wait))
            self.flush()
        }
    }

    func flush() {
        let items = state.withLock { state in
            defer {
                state.items = []
                state.isScheduled = false
                state.lastFlush = Clock.monotonicNanoseconds()
            }
            return state.items
        }
        if !items.isEmpty { pass(items) }
    }
}

/// One watch of the Watch view: reads the client's stream, tells events by frame, and what happens to the stream.
final class WatchPump: Sendable {
    private struct State {
        var task: Task<Void, Never>?
        var stream: WatchStream?
        /// Who sent the last message, and the newest revision seen.
        var member: UInt64?
        var revision: Int64 = 0
        var isResuming = false
    }

    private let id: WatchID
    private let target: WatchTarget
    private let fromRevision: Int64?
    private let client: EtcdClient
    private let mailbox: Mailbox
    private let monitor: ClusterMonitor
    private let batcher: FrameBatcher<UI.WatchEvent>
    private let state = Mutex(State())

    init(id: WatchID, target: WatchTarget, fromRevision: Int64?, client: EtcdClient, mailbox: Mailbox, monitor: ClusterMonitor) {
        self.id = id
        self.target = target
        self.fromRevision = fromRevision
        self.client = client
        self.mailbox = mailbox
        self.monitor = monitor
        batcher = FrameBatcher { events in mailbox.post(.watch(id, .events(events))) }
    }

    func start() { state.withLock { $0.task = Task.detached { await self.run() } } }

    func stop() {
        let (task, stream) = state.withLock { ($0.task, $0.stream) }
        stream?.cancel()
        task?.cancel()
    }

    private func run() async {
        let range: KeyRange = switch target {
        case .key(let key): .single(key)
        case .prefix(let prefix): .prefix(prefix)
        }
        var query = WatchQuery(range, startRevision: Revision(fromRevision ?? 0), wantsPrevious: true, wantsProgress: true)
        while !Task.isCancelled {
            let stream = client.watch(query)
            state.withLock { $0.stream = stream }
            do {
                let revision = try await stream.started().rawValue
                state.withLock { $0.revision = max($0.revision, (fromRevision ?? 0) > 0 ? 0 : revision) }
                mailbox.post(.watch(id, .live(revision: revision)))
                // Its answer tells which member serves the watch, before there is any event.
                stream.requestProgress()
                for try await batch in stream { await received(batch) }
                return // cancelled
            } catch EtcdError.compacted(let revision) {
                batcher.flush()
                mailbox.post(.watch(id, .compacted(compactRevision: revision.rawValue)))
                query.startRevision = revision
            } catch {
                batcher.flush()
                if !Task.isCancelled, !(error is CancellationError) { mailbox.post(.watch(id, .failed(ClusterSession.text(of: error)))) }
                return
            }
        }
    }

    private func received(_ batch: WatchBatch) async {
        let member = batch.header.memberID.rawValue
        let (resumedAfter, lost) = state.withLock { state -> (Int64?, UInt64?) in
            defer {
                state.member = member
                state.isResuming = false
                state.revision = max(state.revision, batch.events.last?.kv.modRevision.rawValue ?? batch.header.revision.rawValue)
            }
            guard let before = state.member, before != member || state.isResuming else { return (nil, nil) }
            return (state.revision, before)
        }
        if let resumedAfter, let lost {
            batcher.flush()
            let now = Clock.now()
            let gap = monitor.lostAt(lost).map { max(0, now - $0) } ?? 0
            mailbox.post(.watch(id, .resumed(afterRevision: resumedAfter, endpoint: monitor.name(of: member), milliseconds: gap)))
        }
        if batch.isProgress {
            batcher.flush()
            mailbox.post(.watch(id, .progress(revision: batch.header.revision.rawValue)))
            return
        }
        let now = Clock.now()
        batcher.add(batch.events.map { event in
            UI.WatchEvent(at: now, revision: event.kv.modRevision.rawValue, isDelete: event.kind == .delete, key: KeyBytes(event.kv.key), value: event.kv.value,
                          previousValue: event.previous?.value, version: event.kv.version, lease: UInt64(bitPattern: event.kv.lease.rawValue))
        })
        await mailbox.room()
    }

    /// The member that this watch hangs on is gone: say so, and ask the next one for a sign of life instead of waiting for an event.
    func memberLost(_ member: UInt64) {
        let (revision, stream) = state.withLock { state -> (Int64?, WatchStream?) in
            guard state.member == member, !state.isResuming else { return (nil, nil) }
            state.isResuming = true
            return (state.revision, state.stream)
        }
        guard let revision, let stream else { return }
        batcher.flush()
        mailbox.post(.watch(id, .resuming(afterRevision: revision, reason: "lost \(monitor.name(of: member))")))
        Task.detached {
            for _ in 0..<100 where self.state.withLock({ $0.isResuming }) {
                try? await Task.sleep(for: .milliseconds(100))
                stream.requestProgress()
            }
        }
    }
}

// MARK: The key tree's own watch, and saving

extension ClusterSession {
    func followKeys() async {
        let mailbox = mailbox, monitor = monitor
        let batcher = FrameBatcher<KeyChange> { changes in
            let revision = changes.last!.summary.modRevision
            monitor.sawRevision(revision)
            mailbox.post(.changes(changes, revision: revision))
        }
        var query = WatchQuery(.prefix(Key([])))
        while !Task.isCancelled {
            do {
                let stream = client.watch(query)
                _ = try await stream.started()
                // Pages may have been read before the watch began.
                mailbox.post(.keysStale)
                for try await batch in stream {
                    batcher.add(batch.events.map { event in
                        KeyChange(summary: KeySummary(event.kv, valueSize: event.kv.value.count), isDelete: event.kind == .delete)
                    })
                    await mailbox.room()
                }
                return
            } catch EtcdError.compacted(let revision) {
                // What happened below it is gone: the next watch reads the tree anew when it begins.
                query.startRevision = revision
            } catch {
                guard !Task.isCancelled, !(error is CancellationError) else { return }
                mailbox.post(.notice("the tree does not follow changes: \(Self.text(of: error))", isBad: true))
                return
            }
        }
    }

    func saveEvents(_ id: RequestID, _ path: String, _ events: [UI.WatchEvent]) async {
        let start = Clock.monotonicNanoseconds()
        let path = Paths.expanded(path)
        var text: [UInt8] = []
        text.reserveCapacity(events.count * 128)
        for event in events { EventLines.append(event, to: &text) }
        do {
            try PrivateFile.create(path, text)
            finish(id, .done(revision: nil, detail: "saved \(events.count) events to \(Paths.abbreviated(path))"), since: start)
        } catch {
            finish(id, .failed(error.number == EEXIST ? "\(Paths.abbreviated(path)) exists: choose another name" : error.description), since: start)
        }
    }
}

/// Watch events as JSON lines. Bytes that are not UTF-8 go into a field with `_base64` behind its name.
enum EventLines {
    static func append(_ event: UI.WatchEvent, to text: inout [UInt8]) {
        func raw(_ string: String) { text.append(contentsOf: string.utf8) }
        raw("{\"time\":\"\(time(event.at))\",\"revision\":\(event.revision),\"type\":\"\(event.isDelete ? "DELETE" : "PUT")\",")
        field("key", event.key.bytes, &text)
        if !event.isDelete {
            raw(",")
            field("value", event.value, &text)
            raw(",\"version\":\(event.version)")
            if event.lease != 0 { raw(",\"lease\":\"\(String(event.lease, radix: 16))\"") }
        }
        if let previous = event.previousValue {
            raw(",")
            field("prev_value", previous, &text)
        }
        raw("}\n")
    }

    private static func field(_ name: String, _ bytes: [UInt8], _ text: inout [UInt8]) {
        guard let string = String(validating: bytes, as: UTF8.self) else {
            text.append(contentsOf: "\"\(name)_base64\":\"\(Data(bytes).base64EncodedString())\"".utf8)
            return
        }
        text.append(contentsOf: "\"\(name)\":\"".utf8)
        for byte in string.utf8 {
            switch byte {
            case 0x22: text.append(contentsOf: "\\\"".utf8)
            case 0x5c: text.append(contentsOf: "\\\\".utf8)
            case 10: text.append(contentsOf: "\\n".utf8)
            case 13: text.append(contentsOf: "\\r".utf8)
            case 9: text.append(contentsOf: "\\t".utf8)
            case 0..<32, 127:
                let digits = String(byte, radix: 16)
                text.append(contentsOf: "\\u\(String(repeating: "0", count: 4 - digits.count))\(digits)".utf8)
            default: text.append(byte)
            }
        }
        text.append(0x22)
    }

    /// RFC 3339 in UTC with milliseconds.
    static func time(_ moment: Moment) -> String {
        var seconds = time_t(moment.milliseconds / 1_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ value: Int32, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = "\(padded(parts.tm_year + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
        return "\(date)T\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2)).\(padded(Int32(moment.milliseconds % 1_000), 3))Z"
    }
}
