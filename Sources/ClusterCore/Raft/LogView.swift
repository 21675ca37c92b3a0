import Base
import DequeModule

/// The log since the last compaction, in memory. What is durable of it the core knows, not this.
///
/// Invariant: entries are consecutive from `start.index + 1` and their terms never go back. (Raft §5.3)
struct LogView: Sendable {
    /// The entry before the first one held; its payload is in the store.
    private(set) var start: LogPosition
    private(set) var last: LogPosition
    private var entries: Deque<Entry>
    /// Where each term begins behind `start`, ascending. A log has few terms, so a term lookup reads the end of this.
    private var runs: [(from: LogIndex, term: Term)]

    init(start: LogPosition, entries initial: [Entry] = []) {
        self.start = start
        last = start
        entries = []
        runs = []
        for entry in initial { append(entry) }
    }

    var firstIndex: LogIndex { start.index.next }
    var count: Int { entries.count }

    /// Nil before `start` and behind `last`. Constant time for recent terms.
    func term(at index: LogIndex) -> Term? {
        if index == last.index { return last.term }
        if index == start.index { return start.term }
        guard index > start.index, index < last.index else { return nil }
        var i = runs.count - 1
        while runs[i].from > index { i -= 1 }
        return runs[i].term
    }

    func holds(_ position: LogPosition) -> Bool { term(at: position.index) == position.term }

    func cost(at index: LogIndex) -> Int { entries[offset(of: index)].cost }

    func entry(at index: LogIndex) -> Entry { entries[offset(of: index)] }

    /// The bytes that the entries from `from` to `through` count for.
    func cost(from: LogIndex, through: LogIndex) -> Int {
        guard from <= through else { return 0 }
        var sum = 0
        for i in offset(of: from)...offset(of: through) { sum += entries[i].cost }
        return sum
    }

    /// The last index of a run from `from` that stays within `maxBytes` (at least one entry), and its bytes.
    func extent(from: LogIndex, through limit: LogIndex, maxBytes: Int) -> (through: LogIndex, bytes: Int) {
        let first = offset(of: from)
        let end = offset(of: limit)
        var bytes = entries[first].cost
        var i = first + 1
        while i <= end {
            let cost = entries[i].cost
            if bytes + cost > maxBytes { break }
            bytes += cost
            i += 1
        }
        return (start.index.advanced(by: i), bytes)
    }

    func slice(from: LogIndex, through: LogIndex) -> [Entry] {
        guard from <= through else { return [] }
        let first = offset(of: from)
        let count = offset(of: through) - first + 1
        return [Entry](unsafeUninitializedCapacity: count) { buffer, initialized in
            for i in 0..<count { buffer.initializeElement(at: i, to: entries[first + i]) }
            initialized = count
        }
    }

    mutating func append(_ entry: Entry) {
        precondition(entry.index == last.index.next && entry.term >= last.term,
                     "append of \(entry.index.rawValue)@\(entry.term.rawValue) behind \(last.index.rawValue)@\(last.term.rawValue)")
        if entries.isEmpty || entry.term != last.term { runs.append((entry.index, entry.term)) }
        entries.append(entry)
        last = LogPosition(index: entry.index, term: entry.term)
    }

    /// Forgets `index` and everything behind it.
    mutating func truncate(from index: LogIndex) {
        precondition(index > start.index, "truncate from \(index.rawValue), log starts behind \(start.index.rawValue)")
        guard index <= last.index else { return }
        let term = term(at: index.previous)!
        entries.removeLast(entries.count - offset(of: index))
        while let run = runs.last, run.from >= index { runs.removeLast() }
        last = LogPosition(index: index.previous, term: term)
    }

    /// Forgets everything up to `index`.
    mutating func dropPrefix(through index: LogIndex) {
        guard index > start.index else { return }
        precondition(index <= last.index, "drop through \(index.rawValue), log ends at \(last.index.rawValue)")
        let term = term(at: index)!
        entries.removeFirst(index.rawValue == last.index.rawValue ? entries.count : offset(of: index) + 1)
        start = LogPosition(index: index, term: term)
        var kept = 0
        while kept + 1 < runs.count, runs[kept + 1].from <= index.next { kept += 1 }
        if kept > 0 { runs.removeFirst(kept) }
        if entries.isEmpty { runs.removeAll() }
    }

    /// Starts over behind `position`.
    mutating func reset(to position: LogPosition) {
        self = LogView(start: position)
    }

    /// The last index at or before `index` whose term is at most `term`: where a log that has `term` there may still agree
    /// with this one. (The idea is etcd's findConflictByTerm.) One below `start.index` if it lies before what is held.
    func lastIndex(withTermAtMost term: Term, upTo index: LogIndex) -> LogIndex {
        let unknown = start.index == .zero ? LogIndex.zero : start.index.previous
        guard index >= start.index else { return min(index, unknown) }
        var upper = min(index, last.index)
        var i = runs.count - 1
        while i >= 0 {
            let run = runs[i]
            if run.from <= upper {
                if run.term <= term { return upper }
                upper = max(run.from, firstIndex).previous
            }
            i -= 1
        }
        return start.term <= term ? start.index : unknown
    }

    private func offset(of index: LogIndex) -> Int { Int(index.rawValue &- start.index.rawValue) - 1 }
}
