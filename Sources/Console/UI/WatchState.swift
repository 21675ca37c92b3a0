/// One watch and what came of it.
struct WatchSession: Hashable, Sendable {
    enum State: Hashable, Sendable {
        case opening
        case live
        case resuming(since: Moment)
        case failed(String)
    }

    /// A line of the stream: an event, or what happened to the stream itself.
    enum Line: Hashable, Sendable {
        case event(WatchEvent)
        case note(at: Moment, text: String, isBad: Bool)
    }

    static let bufferLimit = 10_000

    let id: WatchID
    var target: WatchTarget
    var fromRevision: Int64?
    var state: State = .opening
    var revision: Int64?
    /// All events ever received.
    private(set) var total: Int64 = 0
    /// Events of each of the last seconds, oldest first.
    private(set) var perSecond: [Int] = []
    private var thisSecond = 0
    private var secondStart: Moment?

    // The ring: line `n` (counted from 0 for ever) is at n % bufferLimit.
    private var ring: [Line] = []
    /// Number of lines ever appended.
    private(set) var appended = 0
    /// Lines before this number are cleared or overwritten.
    private(set) var oldest = 0

    /// nil: following; else the number of the line that is held at the bottom.
    var frozenAt: Int?
    /// Line number of the selected event while frozen.
    var selection: Int?
    var filter = TextField()
    var isFiltering = false
    /// Numbers of the lines that match the filter; kept only while there is one.
    private var matches: [Int] = []

    init(id: WatchID, target: WatchTarget, fromRevision: Int64?) {
        self.id = id
        self.target = target
        self.fromRevision = fromRevision
    }

    var title: String {
        switch target {
        case .key(let key): Format.text(key)
        case .prefix(let prefix): prefix.bytes.isEmpty ? "all keys" : Format.text(prefix) + "*"
        }
    }

    subscript(line number: Int) -> Line { ring[number % WatchSession.bufferLimit] }

    var isFiltered: Bool { !filter.isEmpty }

    // MARK: Receiving

    mutating func append(_ events: [WatchEvent]) {
        total += Int64(events.count)
        thisSecond += events.count
        if let last = events.last { revision = max(revision ?? 0, last.revision) }
        // Of a batch larger than the buffer only the end can stay.
        for event in events.suffix(WatchSession.bufferLimit) { push(.event(event)) }
    }

    mutating func note(_ text: String, at now: Moment, isBad: Bool = false) { push(.note(at: now, text: text, isBad: isBad)) }

    private mutating func push(_ line: Line) {
        if ring.count < WatchSession.bufferLimit { ring.append(line) } else { ring[appended % WatchSession.bufferLimit] = line }
        if isFiltered, isMatch(line) { matches.append(appended) }
        appended += 1
        oldest = max(oldest, appended - WatchSession.bufferLimit)
        if matches.count > 2 * WatchSession.bufferLimit { dropOldMatches() }
    }

    /// Closes the seconds that ended before `now`.
    mutating func advance(to now: Moment) {
        guard let start = secondStart else {
            secondStart = now
            return
        }
        // The clock was set back.
        if now < start { secondStart = now }
        let elapsed = Int((now - start) / 1_000)
        guard elapsed >= 1 else { return }
        perSecond.append(thisSecond / elapsed)
        for _ in 1..<max(1, min(elapsed, 60)) { perSecond.append(thisSecond / elapsed) }
        if perSecond.count > 60 { perSecond.removeFirst(perSecond.count - 60) }
        thisSecond = 0
        secondStart = start.advanced(byMilliseconds: Int64(elapsed) * 1_000)
    }

    mutating func clear() {
        oldest = appended
        matches = []
        frozenAt = nil
        selection = nil
    }

    // MARK: Filtering

    mutating func refilter() {
        matches = []
        guard isFiltered else { return }
        for number in oldest..<appended where isMatch(self[line: number]) { matches.append(number) }
    }

    private func isMatch(_ line: Line) -> Bool {
        guard case .event(let event) = line else { return false }
        let needle = Array(filter.text.utf8)
        if needle == Array("put".utf8) { return !event.isDelete || event.key.bytes.containsBytes(needle) }
        if needle == Array("del".utf8) { return event.isDelete || event.key.bytes.containsBytes(needle) }
        return event.key.bytes.containsBytes(needle) || event.value.prefix(4_096).containsBytes(needle)
    }

    private mutating func dropOldMatches() {
        let first = matches.firstIndex { $0 >= oldest } ?? matches.count
        matches.removeFirst(first)
    }

    // MARK: What is shown

    /// Following a fast stream, every N-th event is drawn, so that a person can read; all are counted and kept.
    func oneIn(visibleRows: Int) -> Int {
        guard frozenAt == nil, !isFiltered, let rate = perSecond.last else { return 1 }
        var n = 1
        while rate / n > max(1, visibleRows) * 2 { n *= 2 }
        return n
    }

    /// Numbers of the lines to draw, newest first, `count` at most.
    func visibleLines(_ count: Int) -> [Int] {
        var result: [Int] = []
        let bottom = frozenAt ?? appended - 1
        if isFiltered {
            var index = matches.count - 1
            while index >= 0, result.count < count {
                let number = matches[index]
                if number < oldest { break }
                if number <= bottom { result.append(number) }
                index -= 1
            }
            return result
        }
        let step = oneIn(visibleRows: count)
        var number = bottom
        if step > 1 { number -= ((number % step) + step) % step }
        while number >= oldest, result.count < count {
            result.append(number)
            number -= step
        }
        return result
    }

    /// Lines newer than what is held.
    var newerThanFrozen: Int { frozenAt.map { appended - 1 - $0 } ?? 0 }

    /// All events kept that match the filter, oldest first.
    var keptEvents: [WatchEvent] {
        let numbers = isFiltered ? matches.filter { $0 >= oldest } : Array(oldest..<appended)
        return numbers.compactMap { if case .event(let event) = self[line: $0] { event } else { nil } }
    }

    /// Moves the selection while frozen by `delta` shown lines (up is negative) and scrolls to keep it in sight.
    mutating func move(_ delta: Int, visibleRows: Int) {
        guard appended > oldest else { return }
        if frozenAt == nil {
            frozenAt = appended - 1
            selection = visibleLines(1).first
        }
        guard let current = selection else {
            selection = visibleLines(1).first
            return
        }
        var number = current
        if isFiltered {
            guard let place = matches.firstIndex(where: { $0 >= current }) else { return }
            let target = min(matches.count - 1, max(0, place + delta))
            number = matches[target]
        } else {
            number += delta
        }
        number = min(appended - 1, max(oldest, number))
        selection = number
        // The held line is the bottom one: newer rows scroll in when the selection goes below it, older when above the top.
        if number > frozenAt! { frozenAt = number }
        let shown = visibleLines(visibleRows)
        if let top = shown.last, number < top {
            frozenAt = max(number, isFiltered ? number : number + visibleRows - 1)
            frozenAt = min(frozenAt!, appended - 1)
        }
    }

    func facts(visibleRows: Int) -> [Span] {
        var spans: [Span] = [Span("\(Format.count(perSecond.last ?? 0)) ev/s", .text)]
        let n = oneIn(visibleRows: visibleRows)
        if n > 1 { spans.append(Span(" · 1 in \(n) drawn, all counted", .warn)) }
        return spans
    }
}

/// State of the Watch view.
struct WatchState: Hashable, Sendable {
    var sessions: [WatchSession] = []
    var selection = 0
    private var lastID = 0

    var selected: WatchSession? { sessions.indices.contains(selection) ? sessions[selection] : nil }

    mutating func newID() -> WatchID {
        lastID += 1
        return WatchID(number: lastID)
    }
}

extension Collection<UInt8> {
    /// Whether `needle` occurs; ASCII letters of either case match when the needle is all lower case.
    func containsBytes(_ needle: [UInt8]) -> Bool {
        guard let head = needle.first else { return true }
        guard needle.count <= count else { return false }
        let foldsCase = !needle.contains { $0 >= 0x41 && $0 <= 0x5a }
        func same(_ a: UInt8, _ b: UInt8) -> Bool { a == b || (foldsCase && a >= 0x41 && a <= 0x5a && a + 32 == b) }
        var start = startIndex
        let last = index(startIndex, offsetBy: count - needle.count)
        while start <= last {
            if same(self[start], head) {
                var a = start
                var isMatch = true
                for b in needle {
                    if !same(self[a], b) { isMatch = false; break }
                    a = index(after: a)
                }
                if isMatch { return true }
            }
            start = index(after: start)
        }
        return false
    }
}
