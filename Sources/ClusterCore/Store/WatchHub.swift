import Base

/// All watchers of a member: takes what is applied, gives out the responses that the clients get.
///
/// Confined to the replica loop. Every call appends its responses to `outputs`; the outputs of one stream must leave in
/// the order in which they were appended. A watcher is either *live* (in the index; gets events as they are published) or
/// *behind* (owed history from `next` on; served by `catchUp`). It never gets an event twice, never misses one, and gets
/// all its events of one revision in one response. (etcd-api.md §5; DESIGN.md)
public final class WatchHub {
    /// The last revision published.
    public private(set) var currentRevision: Revision
    /// History below this is gone; -1 when nothing was ever compacted.
    public private(set) var compactRevision: Revision
    let limits: WatchLimits
    let progressInterval: TimeSpan
    private var generator: SeededGenerator

    /// Looked up, never walked; `streamsInOrder` has the same streams by opening.
    private var streams: [WatchStreamID: WatchStream] = [:]
    private(set) var streamsInOrder: [WatchStream] = []
    var live = WatchIndex()
    /// Streams with room and with watchers that are behind, in the order of service.
    var readyStreams: [WatchStream] = []
    var behindCount = 0
    private var openings: UInt64 = 0
    private var creations: UInt64 = 0
    private var nextTick = Instant.distantFuture
    // Scratch space of `publish`, kept for its capacity.
    private var found: [Watcher] = []
    private var hits: [Hit] = []

    /// - Parameters:
    ///   - progressInterval: between two progress notices of a quiet watcher; each stream adds up to 10 % of its own.
    ///   - generator: draws those additions.
    public init(
        currentRevision: Revision = Revision(1), compactRevision: Revision = Revision(-1), limits: WatchLimits = WatchLimits(),
        progressInterval: TimeSpan = .seconds(600), generator: SeededGenerator
    ) {
        self.currentRevision = currentRevision
        self.compactRevision = compactRevision
        self.limits = limits
        self.progressInterval = progressInterval
        self.generator = generator
    }

    deinit {
        for stream in streamsInOrder { stream.forgetWatchers() }
    }

    // MARK: streams

    /// - Parameter fragmentBytes: responses of watchers that asked for fragments are split to stay below this;
    ///   etcd's is the greatest request plus 512 KiB.
    public func openStream(_ id: WatchStreamID, fragmentBytes: Int = 1_572_864 + 524_288, at now: Instant) {
        precondition(streams[id] == nil, "watch stream \(id.rawValue) opened twice")
        openings += 1
        let jitter = Int64.random(in: 0...max(progressInterval.nanoseconds / 10, 0), using: &generator)
        let stream = WatchStream(
            id: id, opening: openings, fragmentBytes: fragmentBytes,
            tickPeriod: TimeSpan(nanoseconds: progressInterval.nanoseconds + jitter))
        stream.nextTick = now + stream.tickPeriod
        nextTick = min(nextTick, stream.nextTick)
        streams[id] = stream
        streamsInOrder.append(stream)
    }

    /// Forgets the stream and its watchers without a response. A stream that is already gone is ignored: the client's
    /// cancellation and the end of its connection may both report it.
    public func closeStream(_ id: WatchStreamID) {
        guard let stream = streams.removeValue(forKey: id) else { return }
        for watcher in stream.watchers where !watcher.isBehind { live.remove(watcher) }
        behindCount -= stream.behind.count
        if stream.isQueued { readyStreams.removeAll { $0 === stream } }
        stream.forgetWatchers()
        var low = 0, high = streamsInOrder.count
        while low < high {
            let middle = (low + high) / 2
            if streamsInOrder[middle].opening < stream.opening { low = middle + 1 } else { high = middle }
        }
        streamsInOrder.remove(at: low)
    }

    /// The connection got rid of `responses` outputs that counted `bytes` (`WatchResponse.backlogBytes`) together.
    public func delivered(_ id: WatchStreamID, responses: Int, bytes: Int) {
        // Credit for a stream that was closed meanwhile is legal: it crossed the closing.
        guard let stream = streams[id] else { return }
        stream.outstandingResponses -= responses
        stream.outstandingBytes -= bytes
        precondition(
            stream.outstandingResponses >= 0 && stream.outstandingBytes >= 0,
            "stream \(id.rawValue) was credited \(responses) responses, \(bytes) bytes too much")
        if stream.isBlocked && stream.outstandingResponses <= limits.outstandingResponses / 2
            && stream.outstandingBytes <= limits.outstandingBytes / 2
        {
            stream.isBlocked = false
            enqueueIfReady(stream)
        }
    }

    // MARK: requests

    /// One request of a client, in the stream's order. `refusal` is the verdict of the permission check for a create
    /// request, nil when there is nothing against it. A stream that is closed meanwhile is ignored.
    public func handle(
        _ request: WatchRequest, on stream: WatchStreamID, refusal: WatchRefusal? = nil, into outputs: inout [WatchOutput]
    ) {
        switch request {
        case .create(let create): self.create(stream, create, refusal: refusal, into: &outputs)
        case .cancel(let id): cancel(stream, id, into: &outputs)
        case .progress: progress(stream, into: &outputs)
        case .unknown: break
        }
    }

    /// Answers at once: created; or created and cancelled with id -1 (refused); or created, then cancelled with the compact
    /// revision when history from the start revision on is gone. The order of the checks is etcd's.
    public func create(
        _ streamID: WatchStreamID, _ request: WatchCreateRequest, refusal: WatchRefusal? = nil, into outputs: inout [WatchOutput]
    ) {
        guard let stream = streams[streamID] else { return }
        let reason: WatchRefusal? =
            request.startRevision < .zero ? .negativeStartRevision
            : refusal ?? (request.isEmptyRange ? .emptyRange
            : request.watchID != .automatic && stream.slots[request.watchID] != nil ? .duplicateID : nil)
        if let reason {
            var response = WatchResponse(headerRevision: currentRevision, watchID: .none)
            response.created = true
            response.canceled = true
            response.cancelReason = reason.rawValue
            emit(response, on: stream, into: &outputs)
            return
        }

        let id = request.watchID == .automatic ? stream.drawID() : request.watchID
        creations += 1
        let watcher = Watcher(sequence: creations, stream: stream, id: id, request: request)
        stream.slots[id] = .watcher(watcher)
        stream.watchers.append(watcher)
        if watcher.notifies { stream.notifyingWatchers += 1 }
        var response = WatchResponse(headerRevision: currentRevision, watchID: id)
        response.created = true
        emit(response, on: stream, into: &outputs)

        watcher.next = request.startRevision == .zero ? currentRevision.next : request.startRevision
        if watcher.next > currentRevision {
            live.insert(watcher)
        } else {
            addBehind(watcher)
            if watcher.next < compactRevision { cancelCompacted(watcher, into: &outputs) }
        }
    }

    /// An id that the stream does not know gets no answer, as in etcd. Also frees the id of a watcher that a compaction
    /// had cancelled.
    public func cancel(_ streamID: WatchStreamID, _ id: WatchID, into outputs: inout [WatchOutput]) {
        guard let stream = streams[streamID], let slot = stream.slots.removeValue(forKey: id) else { return }
        if case .watcher(let watcher) = slot { remove(watcher) }
        var response = WatchResponse(headerRevision: currentRevision, watchID: id)
        response.canceled = true
        emit(response, on: stream, into: &outputs)
    }

    /// A manual progress request: one notice for the whole stream if every event up to the current revision has been
    /// emitted for every one of its watchers, else nothing (etcd queues no retry). A stream whose backlog is full gets
    /// nothing either, so that requests cannot grow it.
    public func progress(_ streamID: WatchStreamID, into outputs: inout [WatchOutput]) {
        guard let stream = streams[streamID], !stream.isBlocked || planted(.progressOvertakesEvents), !stream.watchers.isEmpty, stream.behind.isEmpty || planted(.progressOvertakesEvents),
            stream.watchers.allSatisfy({ $0.startRevision <= currentRevision })
        else { return }
        emit(WatchResponse(headerRevision: currentRevision, watchID: .none), on: stream, into: &outputs)
    }

    // MARK: events

    /// The store went to `revision` by these events, in their order. Called for every revision, in order.
    public func publish(
        _ revision: Revision, _ events: [StoreEvent], history: some WatchHistorySource, into outputs: inout [WatchOutput]
    ) throws(ServiceError) {
        precondition(
            revision == currentRevision.next, "revision \(revision.rawValue) published after \(currentRevision.rawValue)")
        currentRevision = revision
        guard !live.isEmpty else { return }
        if events.count == 1 {
            try publishSingle(events[0], history, &outputs)
        } else {
            try publishMany(events, history, &outputs)
        }
    }

    private func publishSingle(
        _ event: StoreEvent, _ history: some WatchHistorySource, _ outputs: inout [WatchOutput]
    ) throws(ServiceError) {
        live.collect(event.key, into: &found)
        defer { found.removeAll(keepingCapacity: true) }
        // Nearly all watchers of a key want the same list: made once, shared.
        var plain: WatchResponse?
        var withPrevious: WatchResponse?
        for watcher in found where watcher.next <= currentRevision && watcher.wants(event) {
            guard !watcher.stream.isBlocked else {
                fallBehind(watcher)
                continue
            }
            var response: WatchResponse
            if watcher.wantsPrevious {
                if withPrevious == nil {
                    let previous = try previousKV(of: event, history)
                    withPrevious = WatchResponse(
                        headerRevision: currentRevision, watchID: .none, events: [WatchEvent(event, previousKV: previous)])
                }
                response = withPrevious!
            } else {
                if plain == nil {
                    plain = WatchResponse(headerRevision: currentRevision, watchID: .none, events: [WatchEvent(event)])
                }
                response = plain!
            }
            response.watchID = watcher.id
            emitEvents(response, to: watcher, into: &outputs)
        }
    }

    private struct Hit {
        var watcher: Watcher
        var event: Int
    }

    private func publishMany(
        _ events: [StoreEvent], _ history: some WatchHistorySource, _ outputs: inout [WatchOutput]
    ) throws(ServiceError) {
        defer { hits.removeAll(keepingCapacity: true) }
        for (at, event) in events.enumerated() {
            live.collect(event.key, into: &found)
            for watcher in found where watcher.next <= currentRevision && watcher.wants(event) {
                hits.append(Hit(watcher: watcher, event: at))
            }
            found.removeAll(keepingCapacity: true)
        }
        hits.sort { ($0.watcher.sequence, $0.event) < ($1.watcher.sequence, $1.event) }
        var lists = WatchEventLists(events: events)
        var wanted: [Int] = []
        var first = 0
        while first < hits.count {
            let watcher = hits[first].watcher
            wanted.removeAll(keepingCapacity: true)
            while first < hits.count, hits[first].watcher === watcher {
                wanted.append(hits[first].event)
                first += 1
            }
            guard !watcher.stream.isBlocked else {
                fallBehind(watcher)
                continue
            }
            let list = try lists.list(of: wanted, withPrevious: watcher.wantsPrevious, hub: self, history)
            emitEvents(
                WatchResponse(headerRevision: currentRevision, watchID: watcher.id, events: list.events, eventBytes: list.bytes),
                to: watcher, into: &outputs)
        }
    }

    /// The store now refuses reads below `revision`: watchers that are owed older events are cancelled.
    public func compacted(_ revision: Revision, into outputs: inout [WatchOutput]) {
        precondition(
            revision >= compactRevision, "compaction went back from \(compactRevision.rawValue) to \(revision.rawValue)")
        compactRevision = revision
        guard behindCount > 0 else { return }
        var lost: [Watcher] = []
        for stream in streamsInOrder {
            for watcher in stream.behind where watcher.next < revision && !planted(.keepsWatchersBelowCompaction) { lost.append(watcher) }
        }
        lost.sort { $0.sequence < $1.sequence }
        for watcher in lost { cancelCompacted(watcher, into: &outputs) }
    }

    /// The store was replaced by a leader's snapshot: the watchers keep their position and catch up from the new history,
    /// or are cancelled where it no longer reaches back.
    public func storeReplaced(revision: Revision, compactRevision: Revision, into outputs: inout [WatchOutput]) {
        precondition(revision >= currentRevision, "store replaced by an older one: \(revision.rawValue) < \(currentRevision.rawValue)")
        let owed = currentRevision.next
        currentRevision = revision
        for stream in streamsInOrder {
            for watcher in stream.watchers where !watcher.isBehind && max(watcher.next, owed) <= revision {
                live.remove(watcher)
                watcher.next = max(watcher.next, owed)
                addBehind(watcher)
            }
        }
        compacted(max(compactRevision, self.compactRevision), into: &outputs)
    }

    // MARK: progress notices

    /// When `tick` has something to do next.
    public var nextDeadline: Instant { nextTick }

    /// Sends the periodic notices that are due: to live watchers that asked for them and got no event since the last time.
    public func tick(_ now: Instant, into outputs: inout [WatchOutput]) {
        guard nextTick <= now else { return }
        nextTick = .distantFuture
        for stream in streamsInOrder {
            if stream.nextTick <= now {
                // From now, not from the deadline: after a stall there is no burst to make up for it.
                stream.nextTick = now + stream.tickPeriod
                if stream.notifyingWatchers > 0 && !stream.isBlocked { notify(stream, &outputs) }
            }
            nextTick = min(nextTick, stream.nextTick)
        }
    }

    private func notify(_ stream: WatchStream, _ outputs: inout [WatchOutput]) {
        for watcher in stream.watchers where watcher.notifies {
            if watcher.quietSinceTick && !watcher.isBehind && watcher.startRevision <= currentRevision && !stream.isBlocked {
                emit(WatchResponse(headerRevision: currentRevision, watchID: watcher.id), on: stream, into: &outputs)
            }
            watcher.quietSinceTick = true
        }
    }

    // MARK: figures

    public var streamCount: Int { streamsInOrder.count }
    public var watcherCount: Int { live.count + behindCount }
    /// Watchers that are owed history ("slow watchers" in etcd's metrics).
    public var behindWatcherCount: Int { behindCount }
    /// Whether `catchUp` would do something.
    public var hasCatchUpWork: Bool { !readyStreams.isEmpty }

    // MARK: leaves

    func emit(_ response: WatchResponse, on stream: WatchStream, into outputs: inout [WatchOutput]) {
        stream.outstandingResponses += 1
        stream.outstandingBytes += response.backlogBytes
        if stream.outstandingResponses >= limits.outstandingResponses || stream.outstandingBytes >= limits.outstandingBytes {
            block(stream)
        }
        outputs.append(WatchOutput(stream: stream.id, response: response))
    }

    func emitEvents(_ response: WatchResponse, to watcher: Watcher, into outputs: inout [WatchOutput]) {
        watcher.quietSinceTick = false
        if watcher.fragments && response.backlogBytes >= watcher.stream.fragmentBytes {
            for piece in response.fragments(limitBytes: watcher.stream.fragmentBytes) {
                emit(piece, on: watcher.stream, into: &outputs)
            }
        } else {
            emit(response, on: watcher.stream, into: &outputs)
        }
    }

    /// The state before the event's revision, for watchers that asked for it. A creation has none.
    func previousKV(of event: StoreEvent, _ history: some WatchHistorySource) throws(ServiceError) -> [UInt8]? {
        let revision = event.change.main
        // The state is read at revision - 1, which must not be compacted.
        if event.kind == .put && event.isCreate || revision.rawValue - 1 < compactRevision.rawValue { return nil }
        return try history.previous(of: event.key, before: revision)
    }

    private func block(_ stream: WatchStream) {
        guard !stream.isBlocked else { return }
        stream.isBlocked = true
        if stream.isQueued {
            stream.isQueued = false
            readyStreams.removeAll { $0 === stream }
        }
    }

    func enqueueIfReady(_ stream: WatchStream) {
        guard !stream.isBlocked, !stream.isQueued, !stream.behind.isEmpty else { return }
        stream.isQueued = true
        readyStreams.append(stream)
    }

    /// A live watcher meets an event of the current revision that its stream has no room for.
    private func fallBehind(_ watcher: Watcher) {
        live.remove(watcher)
        watcher.next = currentRevision
        addBehind(watcher)
    }

    private func addBehind(_ watcher: Watcher) {
        watcher.isBehind = true
        behindCount += 1
        watcher.stream.behind.append(watcher)
        enqueueIfReady(watcher.stream)
    }

    private func cancelCompacted(_ watcher: Watcher, into outputs: inout [WatchOutput]) {
        let stream = watcher.stream
        remove(watcher)
        // etcd keeps the id until the client cancels it.
        stream.slots[watcher.id] = .reserved
        var response = WatchResponse(headerRevision: .zero, watchID: watcher.id)
        response.canceled = true
        response.compactRevision = compactRevision
        emit(response, on: stream, into: &outputs)
    }

    private func remove(_ watcher: Watcher) {
        let stream = watcher.stream
        stream.watchers.removeInOrder(watcher)
        if watcher.notifies { stream.notifyingWatchers -= 1 }
        if watcher.isBehind {
            behindCount -= 1
            stream.behind.removeAll { $0 === watcher }
            if stream.behind.isEmpty && stream.isQueued {
                stream.isQueued = false
                readyStreams.removeAll { $0 === stream }
            }
        } else {
            live.remove(watcher)
        }
    }
}

/// The hub's bounds.
public struct WatchLimits: Hashable, Sendable {
    /// Responses of one stream that are emitted and not yet delivered. etcd's output channel holds as many.
    public var outstandingResponses = 128
    /// Bytes of the same. With one response beyond it, the most that a slow reader costs in memory.
    public var outstandingBytes = 4 << 20
    /// Distinct revisions in one response of a catching-up watcher. (etcd watchBatchMaxRevs)
    public var revisionsPerResponse = 1_000
    /// Watchers that share one walk through history. (etcd maxWatchersPerSync)
    public var watchersPerPass = 512
    /// Deliveries (event x watcher) found in one walk, so that many watchers of everything cannot hold the loop for long.
    public var deliveriesPerPass = 65_536
    public init() {}
}

/// One Watch call.
final class WatchStream {
    enum Slot {
        case watcher(Watcher)
        /// Cancelled by a compaction; the client has not cancelled the id yet.
        case reserved
    }

    let id: WatchStreamID
    let opening: UInt64
    let fragmentBytes: Int
    let tickPeriod: TimeSpan
    var nextTick = Instant.distantFuture
    /// Looked up, never walked.
    var slots: [WatchID: Slot] = [:]
    /// By creation.
    var watchers: [Watcher] = []
    /// The watchers that are owed history, in the order of service.
    var behind: [Watcher] = []
    var notifyingWatchers = 0
    var outstandingResponses = 0
    var outstandingBytes = 0
    /// The backlog was full and has not yet shrunk to half: no events until then. Half, since catching up goes through
    /// history and is cheaper in few large steps.
    var isBlocked = false
    /// Whether the stream is in `WatchHub.readyStreams`.
    var isQueued = false
    private var nextID: Int64 = 0

    init(id: WatchStreamID, opening: UInt64, fragmentBytes: Int, tickPeriod: TimeSpan) {
        self.id = id
        self.opening = opening
        self.fragmentBytes = fragmentBytes
        self.tickPeriod = tickPeriod
    }

    /// Breaks the cycle between the stream and its watchers.
    func forgetWatchers() {
        watchers = []
        behind = []
        slots = [:]
    }

    /// The next id that is not in use, counting up from 0; freed ids are not used again.
    func drawID() -> WatchID {
        while slots[WatchID(nextID)] != nil { nextID += 1 }
        defer { nextID += 1 }
        return WatchID(nextID)
    }
}

/// One watcher.
final class Watcher {
    /// The order of creation in the hub.
    let sequence: UInt64
    let stream: WatchStream
    let id: WatchID
    let range: KeyRange
    /// As requested; 0 = from now on.
    let startRevision: Revision
    let filters: WatchFilters
    let wantsPrevious: Bool
    let fragments: Bool
    let notifies: Bool
    /// Behind: the first revision that is still owed. Live: the watcher gets no revision below this one (it starts in the
    /// future, or it is simply up to date and the number old).
    var next = Revision.zero
    var isBehind = false
    /// No event since the last periodic notice.
    var quietSinceTick = true

    // Only during a pass of `catchUp`:
    /// Places of the watcher's events in the slice.
    var passEvents: [Int] = []
    var passRevisions = 0
    var passLast = Revision.zero
    /// Another revision did not fit into the response.
    var passIsFull = false
    /// The watcher's position went forward.
    var passMoved = false

    init(sequence: UInt64, stream: WatchStream, id: WatchID, request: WatchCreateRequest) {
        self.sequence = sequence
        self.stream = stream
        self.id = id
        range = request.range
        startRevision = request.startRevision
        filters = request.filters
        wantsPrevious = request.previousKV
        fragments = request.fragment
        notifies = request.progressNotify
    }

    func wants(_ event: StoreEvent) -> Bool {
        filters.isEmpty || !filters.contains(event.kind == .put ? .noPut : .noDelete)
    }
}
