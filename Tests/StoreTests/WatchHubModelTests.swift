import Base
import Testing
@testable import Store

/// Random runs of the hub against the obvious: a client per watcher that knows the whole history, and checks every
/// response on arrival for being exactly what comes next.
@Suite struct WatchHubModelTests {
    @Test(arguments: [UInt64](1...40))
    func everyWatcherGetsExactlyItsEventsOrACancellation(seed: UInt64) {
        let run = WatchRun(seed: seed)
        run.run(steps: 1_000)
        #expect(run.failures.isEmpty, "seed \(seed): \(run.failures.first ?? "")")
        // A run in which nothing happened would prove nothing.
        #expect(run.eventsReceived > 20, "seed \(seed)")
    }

    @Test func theRunsMeetEverySituation() {
        var runs: [WatchRun] = []
        for seed in UInt64(1)...20 {
            runs.append(WatchRun(seed: seed))
            runs[runs.count - 1].run(steps: 1_000)
        }
        for (name, count) in [
            ("compaction cancels", runs.map(\.compactionCancels)), ("catch-up responses", runs.map(\.catchUpResponses)),
            ("fragments", runs.map(\.fragmentsReceived)), ("stream notices", runs.map(\.streamNotices)),
            ("watcher notices", runs.map(\.watcherNotices)), ("blocked", runs.map(\.timesBlocked)),
            ("previous values", runs.map(\.previousValues)), ("events", runs.map { $0.eventsReceived / 100 }),
        ] {
            #expect(count.reduce(0, +) > 30, "\(name): \(count)")
        }
    }

    @Test func sameSeedGivesTheSameOutputs() {
        let first = WatchRun(seed: 4711), second = WatchRun(seed: 4711)
        first.run(steps: 800)
        second.run(steps: 800)
        #expect(first.record == second.record)
        #expect(first.record.count > 100)
    }
}

private final class WatchRun {
    private struct Client {
        var request: WatchCreateRequest
        /// The first revision that may still bring something.
        var position: Int64
        var partial: [WatchEvent] = []
        var partialHeader = Revision.zero
        var hasPartial = false
    }
    private final class Stream {
        let id: UInt64
        let fragmentBytes: Int
        var clients: [Int64: Client] = [:]
        /// Creates in flight would be answered in order; ours are answered at once.
        var undelivered: [Int] = []
        var undeliveredBytes = 0
        init(id: UInt64, fragmentBytes: Int) {
            self.id = id
            self.fragmentBytes = fragmentBytes
        }
    }

    private var random: SeededGenerator
    private let model = WatchModel()
    private let hub: WatchHub
    private let limits: WatchLimits
    private var streams: [Stream] = []
    private var streamsOpened: UInt64 = 0
    private var now = Instant.zero
    private var pendingCreate: WatchCreateRequest?
    private(set) var failures: [String] = []
    private(set) var record: [WatchOutput] = []
    private(set) var eventsReceived = 0
    private(set) var compactionCancels = 0
    private(set) var catchUpResponses = 0
    private(set) var fragmentsReceived = 0
    private(set) var streamNotices = 0
    private(set) var watcherNotices = 0
    private(set) var timesBlocked = 0
    private(set) var previousValues = 0
    private let keyCount: Int
    /// The most responses that a reader takes at a time.
    private let readerSpeed: Int

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        var limits = WatchLimits()
        limits.outstandingResponses = Int.random(in: 1...20, using: &random)
        limits.outstandingBytes = Int.random(in: 200...5_000, using: &random)
        limits.revisionsPerResponse = Int.random(in: 1...12, using: &random)
        limits.watchersPerPass = Int.random(in: 1...12, using: &random)
        limits.deliveriesPerPass = Int.random(in: 1...100, using: &random)
        self.limits = limits
        keyCount = Int.random(in: 2...12, using: &random)
        readerSpeed = Int.random(in: 2...30, using: &random)
        model.returnsTooMuch = Bool.random(using: &random)
        hub = WatchHub(limits: limits, progressInterval: .seconds(3), generator: SeededGenerator(seed: seed ^ 77))
        for _ in 0..<3 { open() }
    }

    private func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    private func key() -> String { "k" + String(Int.random(in: 0..<keyCount, using: &random), radix: 16) }
    private func fail(_ text: String) { failures.append(text) }

    private func open() {
        streamsOpened += 1
        let stream = Stream(id: streamsOpened, fragmentBytes: Int.random(in: 100...400, using: &random))
        hub.openStream(WatchStreamID(stream.id), fragmentBytes: stream.fragmentBytes, at: now)
        streams.append(stream)
    }

    func run(steps: Int) {
        for step in 0..<steps {
            var outputs: [WatchOutput] = []
            self.step(into: &outputs)
            receive(outputs)
            if !failures.isEmpty {
                failures[0] = "step \(step): " + failures[0]
                return
            }
        }
        finish()
    }

    private func step(into outputs: inout [WatchOutput]) {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<40: write(into: &outputs)
        case 40..<55:
            guard let stream = streams.randomElement(using: &random) else { return }
            credit(stream, Int.random(in: 0...readerSpeed, using: &random))
        case 55..<75:
            let budget = WatchCatchUpBudget(
                revisions: Int.random(in: 1...20, using: &random), bytes: Int.random(in: 1...600, using: &random),
                passes: Int.random(in: 1...3, using: &random))
            _ = try! hub.catchUp(budget, history: model, into: &outputs)
        case 75..<85: create(into: &outputs)
        case 85..<88:
            guard let stream = streams.randomElement(using: &random), let id = stream.clients.keys.sorted().randomElement(using: &random) else { return }
            hub.cancel(WatchStreamID(stream.id), WatchID(id), into: &outputs)
        case 88..<90: compact(into: &outputs)
        case 90..<93:
            guard let stream = streams.randomElement(using: &random) else { return }
            hub.progress(WatchStreamID(stream.id), into: &outputs)
        case 93..<98:
            now = now + .seconds(Int64.random(in: 0...9, using: &random))
            hub.tick(now, into: &outputs)
        case 98:
            // A snapshot from the leader: the store jumps.
            guard chance(40) else { return }
            for _ in 0..<Int.random(in: 0...12, using: &random) { model.write(transaction()) }
            if chance(50) { model.compactRevision = Int64.random(in: max(model.compactRevision, 0)...model.current.rawValue, using: &random) }
            hub.storeReplaced(revision: model.current, compactRevision: Revision(model.compactRevision), into: &outputs)
        default:
            guard chance(30), let stream = streams.randomElement(using: &random) else { return }
            hub.closeStream(WatchStreamID(stream.id))
            streams.removeAll { $0 === stream }
            open()
        }
    }

    private func transaction() -> [WatchModel.Write] {
        (0..<(chance(70) ? 1 : Int.random(in: 2...5, using: &random))).map { _ in
            chance(70) ? .put(key(), String(repeating: "v", count: Int.random(in: 0...60, using: &random))) : .delete(key())
        }
    }

    private func write(into outputs: inout [WatchOutput]) {
        guard let events = model.write(transaction()) else { return }
        try! hub.publish(model.current, events, history: model, into: &outputs)
    }

    private func compact(into outputs: inout [WatchOutput]) {
        let low = model.compactRevision + 1
        guard low <= model.current.rawValue else { return }
        // Mostly near the present, where the slow ones are.
        let revision = chance(60) ? max(low, model.current.rawValue - Int64.random(in: 0...15, using: &random)) : Int64.random(in: low...model.current.rawValue, using: &random)
        model.compactRevision = revision
        hub.compacted(Revision(revision), into: &outputs)
    }

    private func create(into outputs: inout [WatchOutput]) {
        guard let stream = streams.randomElement(using: &random), stream.clients.count < 8 else { return }
        let end: [UInt8] = switch Int.random(in: 0..<4, using: &random) {
        case 0, 1: []
        case 2: [0]
        default: Array(key().utf8)
        }
        let current = model.current.rawValue
        let start: Int64 = switch Int.random(in: 0..<5, using: &random) {
        case 0, 1: 0
        case 2: Int64.random(in: 1...current + 5, using: &random)
        case 3: max(1, current - Int64.random(in: 0...20, using: &random))
        default: max(model.compactRevision, 1)
        }
        let request = WatchCreateRequest(
            key: Array(key().utf8), rangeEnd: end, startRevision: Revision(start), progressNotify: chance(40),
            filters: chance(20) ? .noPut : chance(20) ? .noDelete : [], previousKV: chance(40), fragment: chance(40))
        pendingCreate = request
        hub.create(WatchStreamID(stream.id), request, into: &outputs)
        if outputs.isEmpty { fail("create was not answered") }
    }

    private func credit(_ stream: Stream, _ count: Int) {
        let some = stream.undelivered.prefix(count)
        stream.undelivered.removeFirst(some.count)
        let bytes = some.reduce(0, +)
        stream.undeliveredBytes -= bytes
        hub.delivered(WatchStreamID(stream.id), responses: some.count, bytes: bytes)
    }

    // MARK: the clients

    private func receive(_ outputs: [WatchOutput]) {
        record += outputs
        for output in outputs where failures.isEmpty {
            guard let stream = streams.first(where: { $0.id == output.stream.rawValue }) else {
                fail("output for closed stream \(output.stream.rawValue)")
                return
            }
            let response = output.response
            if !response.events.isEmpty {
                let continues = stream.clients[response.watchID.rawValue]?.hasPartial ?? false
                if !continues && (stream.undelivered.count >= limits.outstandingResponses || stream.undeliveredBytes >= limits.outstandingBytes) {
                    fail("events on a full stream \(stream.id)")
                }
            }
            stream.undelivered.append(response.backlogBytes)
            stream.undeliveredBytes += response.backlogBytes
            if stream.undelivered.count == limits.outstandingResponses { timesBlocked += 1 }
            receive(response, stream)
        }
    }

    private func receive(_ response: WatchResponse, _ stream: Stream) {
        let id = response.watchID.rawValue
        if response.created {
            guard !response.canceled else {
                // The only refusal that this run provokes.
                if response.watchID != .none || !(pendingCreate?.isEmptyRange ?? false) { fail("refused: \(describe(response))") }
                return
            }
            let request = pendingCreate!
            pendingCreate = nil
            if stream.clients[id] != nil { fail("id \(id) given twice") }
            let start = request.startRevision.rawValue
            stream.clients[id] = Client(request: request, position: start == 0 ? response.headerRevision.rawValue + 1 : start)
            return
        }
        if response.canceled {
            guard let client = stream.clients.removeValue(forKey: id) else { return fail("cancelled unknown \(id)") }
            if response.compactRevision != .zero {
                compactionCancels += 1
                if response.headerRevision != .zero || !response.cancelReason.isEmpty { fail("form of \(describe(response))") }
                if response.compactRevision.rawValue != model.compactRevision || client.position >= model.compactRevision {
                    fail("\(stream.id)/\(id) at \(client.position) cancelled by compaction \(response.compactRevision.rawValue)")
                }
            }
            return
        }
        if response.events.isEmpty {
            if response.headerRevision != model.current { fail("notice for \(response.headerRevision.rawValue)") }
            if id == -1 {
                streamNotices += 1
                if stream.clients.isEmpty { fail("notice on a stream without watchers") }
                for id in stream.clients.keys.sorted() { notice(response, stream, id) }
            } else {
                watcherNotices += 1
                if stream.clients[id]?.request.progressNotify != true { fail("notice not asked for by \(id)") }
                notice(response, stream, id)
            }
            return
        }
        events(response, stream, id)
    }

    /// Everything up to the header must have arrived.
    private func notice(_ response: WatchResponse, _ stream: Stream, _ id: Int64) {
        guard let client = stream.clients[id] else { return fail("notice for unknown \(id)") }
        let revision = response.headerRevision.rawValue
        if client.request.startRevision.rawValue > revision { fail("notice for \(id) before its start") }
        if client.position <= revision {
            for missing in client.position...revision where !expected(client.request, missing).isEmpty {
                fail("notice \(revision) for \(stream.id)/\(id) overtook revision \(missing)")
            }
            stream.clients[id]!.position = revision + 1
        }
    }

    private func events(_ response: WatchResponse, _ stream: Stream, _ id: Int64) {
        guard var client = stream.clients[id] else { return fail("events for unknown \(id)") }
        if response.fragment || client.hasPartial {
            fragmentsReceived += 1
            if !client.request.fragment { fail("fragments not asked for by \(id)") }
            if client.hasPartial && response.headerRevision != client.partialHeader { fail("header changed between fragments") }
            if response.backlogBytes >= stream.fragmentBytes && response.events.count > 1 { fail("fragment of \(response.backlogBytes) bytes") }
        }
        client.partial += response.events
        client.partialHeader = response.headerRevision
        client.hasPartial = response.fragment
        if response.fragment {
            stream.clients[id] = client
            return
        }
        let events = client.partial
        client.partial = []

        // Exactly what the history says comes next.
        let last = modRevision(events[events.count - 1].kv)
        if last < client.position || last > response.headerRevision.rawValue || response.headerRevision > model.current {
            return fail("\(stream.id)/\(id) at \(client.position) got \(describe(response)) at \(model.current.rawValue)")
        }
        var wanted: [WatchEvent] = []
        var revisions = 0
        for revision in client.position...last {
            let some = expected(client.request, revision)
            if !some.isEmpty { revisions += 1 }
            wanted += some
        }
        if wanted != events {
            return fail("\(stream.id)/\(id) at \(client.position): got \(events.map { modRevision($0.kv) }), expected \(wanted.map { modRevision($0.kv) }), or other previous values")
        }
        if revisions > limits.revisionsPerResponse { fail("\(revisions) revisions in one response") }
        if revisions > 1 { catchUpResponses += 1 }
        previousValues += events.count { $0.previousKV != nil }
        eventsReceived += events.count
        client.position = last + 1
        stream.clients[id] = client
    }

    private func expected(_ request: WatchCreateRequest, _ revision: Int64) -> [WatchEvent] {
        if revision < 2 { return [] }
        var result: [WatchEvent] = []
        for event in model.events(of: revision) where request.range.contains(event.key) {
            if request.filters.contains(event.kind == .put ? .noPut : .noDelete) { continue }
            var previous: [UInt8]?
            if request.previousKV && !event.isCreate && revision - 1 >= model.compactRevision {
                previous = model.value(of: event.key, at: revision - 1)
            }
            result.append(WatchEvent(isDelete: event.kind == .delete, kv: event.kv, previousKV: previous))
        }
        return result
    }

    /// All readers get fast: everybody who is not cancelled must end up with everything.
    private func finish() {
        var rounds = 0
        while failures.isEmpty {
            for stream in streams { credit(stream, stream.undelivered.count) }
            guard hub.hasCatchUpWork else { break }
            var outputs: [WatchOutput] = []
            _ = try! hub.catchUp(WatchCatchUpBudget(), history: model, into: &outputs)
            receive(outputs)
            rounds += 1
            if rounds > 100_000 { fail("catching up does not end") }
        }
        if hub.behindWatcherCount != 0 { fail("\(hub.behindWatcherCount) watchers left behind") }
        for stream in streams {
            for (id, client) in stream.clients.sorted(by: { $0.key < $1.key }) where client.position <= model.current.rawValue {
                for revision in client.position...model.current.rawValue where !expected(client.request, revision).isEmpty {
                    fail("\(stream.id)/\(id) never got revision \(revision)")
                }
            }
        }
    }
}
