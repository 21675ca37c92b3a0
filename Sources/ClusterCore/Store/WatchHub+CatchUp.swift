import Base

extension WatchHub {
    /// Serves watchers that are behind from history, as far as the budget goes. Called by the replica between batches.
    ///
    /// Streams take turns, and so do the watchers of a stream; one walk through history serves every watcher whose position
    /// lies in it. Returns whether there is more to do now: watchers of full streams do not count, `delivered` wakes them.
    public func catchUp(
        _ budget: WatchCatchUpBudget, history: some WatchHistorySource, into outputs: inout [WatchOutput]
    ) throws(ServiceError) -> Bool {
        var rest = budget
        while !readyStreams.isEmpty, rest.passes > 0, rest.revisions > 0, rest.bytes > 0 {
            try serve(&rest, history, &outputs)
        }
        return !readyStreams.isEmpty
    }

    /// One walk through history.
    private func serve(
        _ budget: inout WatchCatchUpBudget, _ history: some WatchHistorySource, _ outputs: inout [WatchOutput]
    ) throws(ServiceError) {
        let (group, from) = nextGroup(within: budget.revisions)
        let through = currentRevision
        precondition(
            compactRevision <= from && from <= through,
            "walk \(from.rawValue)...\(through.rawValue) with compaction at \(compactRevision.rawValue)")
        let slice = try history.events(
            in: group.map(\.range), from: from, through: through,
            limits: WatchHistoryLimits(revisions: budget.revisions, bytes: budget.bytes))
        precondition(
            from <= slice.through && slice.through <= through,
            "history \(from.rawValue)...\(through.rawValue) answered through \(slice.through.rawValue)")
        let reached = distribute(slice, over: group)

        budget.passes -= 1
        // What the source looked at is not known, only what it covered: all of it counts, up to what it was allowed.
        budget.revisions -= Int(min(slice.through.rawValue - from.rawValue + 1, Int64(budget.revisions)))
        for event in slice.events { budget.bytes -= event.kv.count }

        var lists = WatchEventLists(events: slice.events)
        var leaderMoved = false
        var touched: [WatchStream] = []
        for (place, watcher) in group.enumerated() {
            if touched.last !== watcher.stream { touched.append(watcher.stream) }
            let isOwed = !watcher.passEvents.isEmpty
            // The group's watchers are in the order of service, so those that find no more room are first next time.
            if !(isOwed && watcher.stream.isBlocked) && watcher.next <= reached {
                if isOwed {
                    let list = try lists.list(of: watcher.passEvents, withPrevious: watcher.wantsPrevious, hub: self, history)
                    emitEvents(
                        WatchResponse(headerRevision: currentRevision, watchID: watcher.id, events: list.events, eventBytes: list.bytes),
                        to: watcher, into: &outputs)
                }
                watcher.next = watcher.passIsFull ? watcher.passLast.next : planted(.catchUpSkipsARevision) ? reached.next.next : reached.next
                watcher.passMoved = true
                if place == 0 { leaderMoved = true }
            }
        }
        for stream in touched { reorder(stream) }
        for watcher in group {
            watcher.passEvents.removeAll()
            watcher.passRevisions = 0
            watcher.passLast = .zero
            watcher.passIsFull = false
            watcher.passMoved = false
        }
        if leaderMoved, let first = readyStreams.first, first === touched.first {
            readyStreams.removeFirst()
            readyStreams.append(first)
        }
    }

    /// The watchers that take part in the next walk, in the order of service, and where it begins. The first in line leads:
    /// the walk begins earlier if other candidates need it, but not so early that it would end before reaching the leader.
    /// (Bytes may end it there all the same; then the leader stays first while the others close up.)
    private func nextGroup(within revisions: Int) -> (group: [Watcher], from: Revision) {
        var candidates: [Watcher] = []
        gathering: for stream in readyStreams {
            for watcher in stream.behind {
                if candidates.count >= limits.watchersPerPass { break gathering }
                candidates.append(watcher)
            }
        }
        let leader = candidates[0]
        var from = leader.next
        for watcher in candidates where watcher.next < from && leader.next.rawValue - watcher.next.rawValue < Int64(revisions) {
            from = watcher.next
        }
        return (candidates.filter { from <= $0.next }, from)
    }

    /// Notes every watcher's events of the slice in the watcher. Returns the last revision that was distributed completely.
    private func distribute(_ slice: WatchHistorySlice, over group: [Watcher]) -> Revision {
        var index = WatchIndex()
        for watcher in group { index.insert(watcher) }
        var deliveries = 0
        var revision = Revision.zero
        var found: [Watcher] = []
        for (place, event) in slice.events.enumerated() {
            if event.change.main != revision {
                if deliveries >= limits.deliveriesPerPass { return revision }
                revision = event.change.main
            }
            found.removeAll(keepingCapacity: true)
            index.collect(event.key, into: &found)
            for watcher in found where watcher.next <= revision && !watcher.passIsFull && watcher.wants(event) {
                if watcher.passLast != revision {
                    if watcher.passRevisions == limits.revisionsPerResponse {
                        watcher.passIsFull = true
                        continue
                    }
                    watcher.passRevisions += 1
                    watcher.passLast = revision
                }
                watcher.passEvents.append(place)
                deliveries += 1
            }
        }
        return slice.through
    }

    /// After a walk: those that are up to date go live, those that got something go to the end of the line.
    private func reorder(_ stream: WatchStream) {
        var waiting: [Watcher] = []
        var moved: [Watcher] = []
        for watcher in stream.behind {
            if watcher.next > currentRevision {
                watcher.isBehind = false
                behindCount -= 1
                live.insert(watcher)
            } else if watcher.passMoved {
                moved.append(watcher)
            } else {
                waiting.append(watcher)
            }
        }
        stream.behind = waiting + moved
        if stream.behind.isEmpty && stream.isQueued {
            stream.isQueued = false
            readyStreams.removeAll { $0 === stream }
        }
        enqueueIfReady(stream)
    }
}

extension WatchEvent {
    init(_ event: StoreEvent, previousKV: [UInt8]? = nil) {
        self.init(isDelete: event.kind == .delete, kv: event.kv, previousKV: previousKV)
    }
}

/// Makes the event lists of responses from one batch of store events. Previous values are looked up once per event, and a
/// watcher that wants the same as the one before shares its list.
struct WatchEventLists {
    private enum Previous {
        case unknown
        case known([UInt8]?)
    }
    typealias List = (events: [WatchEvent], bytes: Int)

    private let events: [StoreEvent]
    private var previous: [Previous] = []
    private var lastPlaces: [Int] = []
    private var plain: List?
    private var withPrevious: List?

    init(events: [StoreEvent]) { self.events = events }

    mutating func list(
        of places: [Int], withPrevious wantsPrevious: Bool, hub: WatchHub, _ history: some WatchHistorySource
    ) throws(ServiceError) -> List {
        if places != lastPlaces {
            lastPlaces = places
            plain = nil
            withPrevious = nil
        }
        if let list = wantsPrevious ? withPrevious : plain { return list }
        var list: List = ([], 0)
        list.events.reserveCapacity(places.count)
        for place in places {
            var event = WatchEvent(events[place])
            if wantsPrevious { event.previousKV = try previousKV(place, hub, history) }
            list.bytes += event.encodedFieldSize
            list.events.append(event)
        }
        if wantsPrevious { withPrevious = list } else { plain = list }
        return list
    }

    private mutating func previousKV(
        _ place: Int, _ hub: WatchHub, _ history: some WatchHistorySource
    ) throws(ServiceError) -> [UInt8]? {
        if previous.isEmpty { previous = Array(repeating: .unknown, count: events.count) }
        if case .known(let kv) = previous[place] { return kv }
        let kv = try hub.previousKV(of: events[place], history)
        previous[place] = .known(kv)
        return kv
    }
}
