/// State of the Log view: the newest lines of all nodes and of the console's own journal, in one bounded ring.
///
/// A line costs O(1) when it comes, a frame O(rows shown); only a new filter looks through the ring, once.
struct LogState: Hashable, Sendable {
    static let limit = 20_000

    /// Line `n`, counted from 0 for ever, is at `n % limit`.
    private var ring: [LogLine] = []
    private(set) var appended = 0
    /// Lines before this number are cleared or overwritten.
    private(set) var oldest = 0
    /// Numbers of the lines that pass the filters, ascending; kept only while something is filtered out.
    private var passing: [Int] = []

    /// Least level shown.
    private(set) var level: LogLine.Level = .info
    /// nil: all; 0: the console's own journal.
    private(set) var node: UInt64?
    var filter = TextField()
    var isFiltering = false
    /// The text only marks what matches; all lines stay.
    private(set) var showsAll = false
    /// The text that `passing` was made with.
    private var needle: [UInt8] = []

    /// nil: following; else the number of the line held at the bottom.
    private(set) var heldAt: Int?
    private(set) var selection: Int?

    subscript(line number: Int) -> LogLine { ring[number % LogState.limit] }

    var count: Int { appended - oldest }
    var isHeld: Bool { heldAt != nil }
    /// Lines that came since the screen is held.
    var newer: Int { heldAt.map { appended - 1 - $0 } ?? 0 }
    /// Whether some lines may be hidden.
    private var isNarrowed: Bool { level != .debug || node != nil || (!needle.isEmpty && !showsAll) }
    /// Lines shown in all.
    var shown: Int { isNarrowed ? passing.count - firstPassing : count }

    // MARK: Receiving

    mutating func heard(_ lines: [LogLine]) {
        // Lines of several nodes arrive in batches: within one, time is the order. Of a batch larger than the ring only the end stays.
        let isSorted = zip(lines, lines.dropFirst()).allSatisfy { $0.at <= $1.at }
        let sorted = isSorted ? lines : lines.enumerated().sorted { ($0.element.at, $0.offset) < ($1.element.at, $1.offset) }.map(\.element)
        for line in sorted.suffix(LogState.limit) {
            if ring.count < LogState.limit { ring.append(line) } else { ring[appended % LogState.limit] = line }
            if isNarrowed, passes(line) { passing.append(appended) }
            appended += 1
        }
        oldest = max(oldest, appended - LogState.limit)
        if passing.count > 2 * LogState.limit { passing.removeFirst(firstPassing) }
        if let held = heldAt, held < oldest { heldAt = oldest }
        if let chosen = selection, chosen < oldest { selection = oldest }
    }

    /// Place of the first passing line that is still in the ring.
    private var firstPassing: Int {
        var low = 0, high = passing.count
        while low < high {
            let middle = (low + high) / 2
            if passing[middle] < oldest { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: Filters

    private func passes(_ line: LogLine) -> Bool {
        line.level >= level && (node == nil || line.node == node) && (showsAll || needle.isEmpty || matches(line))
    }

    /// Whether the text of the filter is in the line.
    func matches(_ line: LogLine) -> Bool { !needle.isEmpty && (line.text.utf8.containsBytes(needle) || line.part.utf8.containsBytes(needle)) }

    private mutating func refilter() {
        passing = []
        guard isNarrowed else { return }
        for number in oldest..<appended where passes(self[line: number]) { passing.append(number) }
        if let chosen = selection, !passes(self[line: chosen]) { selection = heldAt.flatMap { last(upTo: $0) } }
    }

    mutating func textChanged() {
        needle = Array(filter.text.utf8)
        refilter()
    }

    mutating func clearText() {
        filter = TextField()
        isFiltering = false
        textChanged()
    }

    mutating func cycleLevel() {
        level = LogLine.Level(rawValue: (level.rawValue + 1) % LogLine.Level.critical.rawValue) ?? .debug
        refilter()
    }

    /// - Parameter nodes: what can be chosen, in order; nil (all) comes before them.
    mutating func cycleNode(_ step: Int, _ nodes: [UInt64]) {
        let choices: [UInt64?] = [nil] + nodes.map { $0 }
        let index = choices.firstIndex(of: node) ?? 0
        choose(choices[(index + step + choices.count) % choices.count])
    }

    mutating func choose(_ chosen: UInt64?) {
        node = chosen
        refilter()
    }

    mutating func toggleShowsAll() {
        showsAll.toggle()
        refilter()
    }

    mutating func clear() {
        oldest = appended
        passing = []
        follow()
    }

    // MARK: What is shown

    /// The last shown line at or before a number.
    private func last(upTo number: Int) -> Int? {
        guard isNarrowed else { return min(number, appended - 1) >= oldest ? min(number, appended - 1) : nil }
        let place = position(after: number) - 1
        return place >= 0 && passing[place] >= oldest ? passing[place] : nil
    }

    /// Place in `passing` of the first line after a number.
    private func position(after number: Int) -> Int {
        var low = 0, high = passing.count
        while low < high {
            let middle = (low + high) / 2
            if passing[middle] <= number { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Numbers of the lines to draw, oldest first, at most `rows`: the last of them is the newest, or the one that is held.
    func visible(_ rows: Int) -> [Int] {
        let bottom = heldAt ?? appended - 1
        guard rows > 0, bottom >= oldest else { return [] }
        guard isNarrowed else { return Array(max(oldest, bottom - rows + 1)...bottom) }
        let end = position(after: bottom)
        return Array(passing[max(firstPassing, end - rows)..<max(end, max(firstPassing, end - rows))])
    }

    /// All lines that pass, oldest first: for the file.
    var kept: [LogLine] { isNarrowed ? passing[firstPassing...].map { self[line: $0] } : (oldest..<appended).map { self[line: $0] } }

    var selected: LogLine? { selection.map { self[line: $0] } }

    mutating func follow() {
        heldAt = nil
        selection = nil
    }

    mutating func hold() {
        guard heldAt == nil, count > 0 else { return }
        heldAt = appended - 1
        selection = last(upTo: appended - 1)
    }

    /// Holds the screen with this line selected and `bottom` as the last one shown.
    mutating func select(_ number: Int, bottom: Int) {
        heldAt = max(number, bottom)
        selection = number
    }

    /// Moves the selection by shown lines, up is negative, and scrolls to keep it in sight. Holds the screen.
    mutating func move(_ delta: Int, rows: Int) {
        guard count > 0 else { return }
        let wasFollowing = heldAt == nil
        hold()
        guard let current = selection else { return }
        if wasFollowing, delta == -1 { return }
        show(number(current, plus: delta), rows: rows)
    }

    private func number(_ from: Int, plus delta: Int) -> Int {
        guard isNarrowed else { return min(appended - 1, max(oldest, from + delta)) }
        guard firstPassing < passing.count else { return from }
        let place = position(after: from) - 1 + delta
        return passing[min(passing.count - 1, max(firstPassing, place))]
    }

    /// Keeps the selected line in sight when the screen or the filters changed.
    mutating func settle(rows: Int) {
        if let selection, isHeld { show(selection, rows: rows) }
    }

    private mutating func show(_ target: Int, rows: Int) {
        selection = target
        if target > heldAt ?? appended - 1 { heldAt = target }
        if let top = visible(rows).first, target < top { heldAt = number(target, plus: rows - 1) }
    }

    /// To the next line that matches the text: older with -1, newer with 1; false when there is none.
    mutating func jump(_ step: Int, rows: Int) -> Bool {
        guard !needle.isEmpty, count > 0 else { return false }
        let isFresh = heldAt == nil
        hold()
        var place = selection ?? appended - 1
        // The newest line itself counts when the search starts from following.
        if isFresh, step < 0, matches(self[line: place]) { return true }
        while true {
            let next = number(place, plus: step)
            if next == place { return false }
            place = next
            if matches(self[line: place]) {
                show(place, rows: rows)
                return true
            }
        }
    }
}
