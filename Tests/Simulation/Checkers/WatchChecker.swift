import Base

/// One watch against the truth, message by message. Promises (etcd's, and reliability.md §5.4 number 21):
/// - *filter*: only events of the asked keys and kinds;
/// - *ordered* and *unique*: by revision and place in the revision, each once;
/// - *atomic*: all events of a revision in one response, unless it says that it is a fragment;
/// - *resumable*: from the start revision on, nothing missing; *reliable*: nor behind anything delivered;
/// - *bookmarkable*: a progress message is never followed by an event it covers, nor sent before one;
/// - *previous* and *content*: key-values, creation and previous values are the truth's; a previous value is absent only if compacted;
/// - *cancelled with the compact revision or complete*: a compaction ends a watch only if it needed older revisions, and says so.
///
/// Holds a position, no events. O(1) for each revision and event.
public struct WatchChecker: Sendable {
    /// The request; its messages are not looked at.
    public let request: WatchRecord
    private let trustsMoments: Bool

    /// The first revision whose events may still come.
    private var position: Int64?
    /// Of the events of revision `position` that the watch wants, these were delivered.
    private var delivered = 0
    /// Nothing that the watch wants lies in `position..<scanned`.
    private var scanned: Int64 = 0
    private var promised: Int64 = 0
    private var anyDelivered = false
    /// The header of the response whose next fragment must follow.
    private var openFragment: Int64?
    public private(set) var isCancelled = false
    /// Revisions that the truth had forgotten before they could be checked: 0 when `needed` is respected.
    public private(set) var unverifiable = 0

    public init(_ request: WatchRecord, trustsMoments: Bool = true) {
        self.request = request
        self.trustsMoments = trustsMoments
        if request.startRevision > 0 { position = request.startRevision }
    }

    /// The truth may forget below this revision. Nil: the watch needs nothing of the past.
    public var needed: Int64? {
        guard let position, !isCancelled else { return nil }
        return max(position, scanned) - 1
    }

    /// Steps over new revisions that the watch does not want, so that an idle watch does not hold up forgetting.
    public mutating func advance(truth: TrueHistory) {
        guard let position, !isCancelled, delivered == 0 else { return }
        scanned = max(scanned, position, 2)
        while scanned <= truth.revision, let made = truth[scanned], !made.events.contains(where: wants) { scanned += 1 }
    }

    /// The highest revision this message shows to the client, to tell `ClientHistoryChecker.observe`.
    public static func shownRevision(_ message: WatchRecord.Message) -> Int64 {
        switch message {
        case .created(let header), .events(_, let header, _), .progress(let header): header
        case .cancelled: 0
        }
    }

    // MARK: Messages

    public mutating func receive(_ message: WatchRecord.Message, at: Moment, truth: TrueHistory) -> [Violation] {
        var violations: [Violation] = []
        if isCancelled {
            violations.append(violation("watch-cancelled", "got \(message) after its cancellation"))
            return violations
        }
        if openFragment != nil {
            if case .events = message {} else { violations.append(violation("watch-atomic", "got \(message) between fragments of a response")) }
        }
        switch message {
        case .created(let header):
            if isCreated { violations.append(violation("watch-created", "was created twice")) }
            checkHeader(header, at, truth, into: &violations)
            isCreated = true
            if request.startRevision <= 0 { position = header + 1 }
        case .events(let events, let header, let isFragment):
            guard requireCreated("events", into: &violations) else { break }
            checkHeader(header, at, truth, into: &violations)
            receive(events, header, isFragment, at, truth, into: &violations)
        case .progress(let header):
            guard requireCreated("progress", into: &violations) else { break }
            checkHeader(header, at, truth, into: &violations)
            if let missing = firstMissing(through: header, truth) {
                violations.append(violation("watch-bookmarkable", "was told that all up to \(header) was delivered, \(missing) was not"))
            }
            promised = max(promised, header)
            move(to: header + 1)
        case .cancelled(let compactRevision, let reason):
            isCancelled = true
            guard compactRevision != 0 else { break }
            let actual = trustsMoments ? truth.compactRevision(at: at) : truth.compactRevision
            if compactRevision > actual {
                violations.append(violation("watch-cancelled", "was cancelled for compact revision \(compactRevision), the compact revision is \(actual) (\(reason))"))
            }
            if let position, position >= compactRevision {
                violations.append(violation("watch-cancelled", "was cancelled for compact revision \(compactRevision), it needed only \(position) and later (\(reason))"))
            }
        }
        return violations
    }

    /// At the end. `mustBeComplete`: the cluster is healed and had time to deliver, so an open watch has everything.
    public mutating func finish(truth: TrueHistory, mustBeComplete: Bool) -> [Violation] {
        guard mustBeComplete, !isCancelled, request.closedAt == nil else { return [] }
        guard isCreated else { return [violation("watch-complete", "was never created")] }
        if openFragment != nil { return [violation("watch-complete", "waits for the rest of a response")] }
        if let missing = firstMissing(through: truth.revision, truth) { return [violation("watch-complete", "never got \(missing)")] }
        return []
    }

    // MARK: Inside

    private var isCreated = false

    private func violation(_ invariant: String, _ detail: String) -> Violation {
        let from = request.startRevision > 0 ? " from \(request.startRevision)" : ""
        return Violation(invariant, "watch of \(showRange(request.key, request.end))\(from) by client \(request.client) at member \(request.member) \(detail)")
    }

    private func requireCreated(_ what: String, into violations: inout [Violation]) -> Bool {
        if !isCreated { violations.append(violation("watch-created", "got \(what) before it was created")) }
        return isCreated
    }

    private func wants(_ event: WatchRecord.Event) -> Bool {
        (event.isDelete ? request.wantsDeletes : request.wantsPuts) && rangeContains(request.key, request.end, event.kv.key)
    }

    private func checkHeader(_ header: Int64, _ at: Moment, _ truth: TrueHistory, into violations: inout [Violation]) {
        if header > truth.revision {
            violations.append(violation("watch-header", "saw revision \(header), the newest is \(truth.revision)"))
        } else if trustsMoments, let made = truth.moment(of: header), made > at {
            violations.append(violation("watch-header", "saw revision \(header) at \(at), it was made at \(made)"))
        }
    }

    private mutating func move(to next: Int64) {
        guard let now = position, next > now else { return }
        position = next
        delivered = 0
    }

    /// What the watch wants of `revision`, as text, if that is not all delivered; and looks at all before it.
    private mutating func firstMissing(through last: Int64, _ truth: TrueHistory) -> String? {
        guard let position else { return nil }
        // Nothing happened at revision 1.
        var at = delivered > 0 ? position : max(position, scanned, 2)
        if at <= truth.floor, at <= last {
            let known = min(truth.floor, last) + 1
            unverifiable += Int(known - at)
            at = known
        }
        while at <= last, let made = truth[at] {
            var left = at == position ? delivered : 0
            for event in made.events where wants(event) {
                if left == 0 { return "\(show(event)) of revision \(at)" }
                left -= 1
            }
            at += 1
        }
        scanned = max(scanned, at)
        return nil
    }

    private mutating func receive(
        _ events: [WatchRecord.Event], _ header: Int64, _ isFragment: Bool, _ at: Moment, _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        if let openFragment, openFragment != header {
            violations.append(violation("watch-atomic", "got fragments with headers \(openFragment) and \(header)"))
        }
        openFragment = isFragment ? header : nil
        if events.isEmpty { violations.append(violation("watch-header", "got a response without events that is no progress")) }
        for event in events { receive(event, at, truth, into: &violations) }
        if let last = events.last, last.kv.modRevision > header {
            violations.append(violation("watch-header", "got \(show(last)) of revision \(last.kv.modRevision) under header revision \(header)"))
        }
        guard !isFragment, delivered > 0, let position else { return }
        if let missing = firstMissing(through: position, truth) {
            violations.append(violation("watch-atomic", "got a response that ends in revision \(position) without \(missing)"))
        }
        move(to: position + 1)
    }

    private mutating func receive(_ event: WatchRecord.Event, _ at: Moment, _ truth: TrueHistory, into violations: inout [Violation]) {
        let revision = event.kv.modRevision
        if !rangeContains(request.key, request.end, event.kv.key) || !(event.isDelete ? request.wantsDeletes : request.wantsPuts) {
            violations.append(violation("watch-filter", "got \(show(event)) of revision \(revision)"))
            return
        }
        guard revision <= truth.revision else {
            violations.append(violation("watch-content", "got \(show(event)) of revision \(revision), the newest is \(truth.revision)"))
            return
        }
        guard let position else { return }
        if revision < position {
            let what = revision <= promised ? "watch-bookmarkable" : anyDelivered ? "watch-ordered" : "watch-filter"
            violations.append(violation(what, "got \(show(event)) of revision \(revision), it stands at \(position)\(revision <= promised ? ", progress at \(promised)" : "")"))
            return
        }
        if revision > position {
            if let missing = firstMissing(through: revision - 1, truth) {
                let what = delivered > 0 && missing.hasSuffix(" \(position)") ? "watch-atomic" : anyDelivered ? "watch-reliable" : "watch-resumable"
                violations.append(violation(what, "got revision \(revision), and not \(missing)"))
            }
            move(to: revision)
        }
        anyDelivered = true
        defer { delivered += 1 }
        guard let made = truth[revision] else {
            unverifiable += 1
            return
        }
        var expected: WatchRecord.Event?
        var place = 0
        for candidate in made.events where wants(candidate) {
            if place == delivered {
                expected = candidate
                break
            }
            place += 1
        }
        guard let expected else {
            violations.append(violation("watch-unique", "got \(show(event)), one event more than revision \(revision) has for it"))
            return
        }
        if event.isDelete != expected.isDelete || event.kv.key != expected.kv.key || (!event.isDelete && event.kv != expected.kv) {
            let name = made.events.contains { $0.isDelete == event.isDelete && $0.kv.key == event.kv.key && ($0.isDelete || $0.kv == event.kv) } ? "watch-ordered" : "watch-content"
            violations.append(violation(name, "got \(show(event)) \(show([event.kv])) in revision \(revision), it is \(show(expected)) \(show([expected.kv]))"))
            return
        }
        checkPrevious(event, expected, at, truth, into: &violations)
    }

    private func checkPrevious(
        _ event: WatchRecord.Event, _ expected: WatchRecord.Event, _ at: Moment, _ truth: TrueHistory, into violations: inout [Violation]
    ) {
        let right = request.wantsPrevious ? expected.previous : nil
        guard event.previous != right else { return }
        let compacted = trustsMoments ? truth.compactRevision(at: at) : truth.compactRevision
        if event.previous == nil, event.kv.modRevision - 1 < compacted { return }
        violations.append(violation("watch-previous", "got \(show(event)) of revision \(event.kv.modRevision) with \(event.previous.map { show([$0]) } ?? "nothing") before it, there was \(right.map { show([$0]) } ?? "nothing")"))
    }
}

/// A whole record at once, for histories that are complete.
public func checkWatch(_ record: WatchRecord, truth: TrueHistory, mustBeComplete: Bool = false, trustsMoments: Bool = true) -> [Violation] {
    var checker = WatchChecker(record, trustsMoments: trustsMoments)
    var violations: [Violation] = []
    for (at, message) in record.messages { violations += checker.receive(message, at: at, truth: truth) }
    return violations + checker.finish(truth: truth, mustBeComplete: mustBeComplete)
}
