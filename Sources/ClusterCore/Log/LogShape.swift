import Base
import Raft

/// What the log holds, without the entries themselves: positions, terms and which segment still matters. The writer keeps
/// one to know what it may remove; recovery builds the same one from the records, so the two can be compared.
/// Invariant: `start.index <= base.index`, `base.index <= last.index`; `runs` covers (base.index, last.index] ascending.
struct LogShape {
    var hardState = HardState()
    /// The log begins behind this position.
    var start: LogPosition
    /// Entries up to here are not at hand: equal to `start`, but for recovery from segments whose predecessors were removed.
    var base: LogPosition
    var last: LogPosition
    /// Where each term begins.
    private(set) var runs: [(first: LogIndex, term: Term)] = []
    /// The segments in order, the active one last, with the highest index in each that was not overwritten (zero: none).
    var segments: [(number: UInt64, lastLive: LogIndex)] = []

    init(hardState: HardState, start: LogPosition, last: LogPosition) {
        self.hardState = hardState
        self.start = start
        base = last
        self.last = last
    }

    /// The term of the entry at `index`; nil outside of [base.index, last.index].
    func term(at index: LogIndex) -> Term? {
        if index == base.index { return base.term }
        guard index > base.index, index <= last.index else { return nil }
        // Runs are few: a term is an election.
        for run in runs.reversed() where run.first <= index { return run.term }
        return nil
    }

    /// nil when an entry of this index and term may follow (overwriting from there on); else what is wrong.
    func objection(to index: LogIndex, term: Term) -> String? {
        if index > last.index.next { return "entry \(index.rawValue) follows entry \(last.index.rawValue)" }
        if index <= start.index { return "entry \(index.rawValue) lies before the log's start \(start.index.rawValue)" }
        if let before = self.term(at: index.previous), term < before {
            return "entry \(index.rawValue) of term \(term.rawValue) follows one of term \(before.rawValue)"
        }
        return nil
    }

    /// Precondition: no objection.
    mutating func append(_ index: LogIndex, _ term: Term) {
        if index <= last.index { truncate(from: index) }
        if runs.last?.term != term { runs.append((index, term)) }
        last = LogPosition(index: index, term: term)
    }

    private mutating func truncate(from index: LogIndex) {
        while let run = runs.last, run.first >= index { runs.removeLast() }
        for i in segments.indices where segments[i].lastLive >= index { segments[i].lastLive = index.previous }
        let term = self.term(at: index.previous) ?? .zero
        last = LogPosition(index: index.previous, term: term)
        if index <= base.index {
            // What came before was in a removed segment, and so was the term.
            base = last
            runs.removeAll()
        }
    }

    mutating func reset(to position: LogPosition) {
        start = position
        base = position
        last = position
        runs.removeAll(keepingCapacity: true)
        for i in segments.indices { segments[i].lastLive = .zero }
    }

    /// Moves the start forward. Precondition: the position is in the log.
    mutating func advanceStart(to position: LogPosition) {
        precondition(position.index >= start.index && position.index <= last.index,
                     "start \(position.index.rawValue) outside of the log \(start.index.rawValue)...\(last.index.rawValue)")
        start = position
        guard position.index > base.index else { return }
        base = position
        while runs.count > 1, runs[1].first <= position.index.next { runs.removeFirst() }
        if position.index == last.index { runs.removeAll() }
    }

    /// How many segments from the front hold nothing behind `start`. Never the active one.
    var removableSegments: Int {
        var count = 0
        while count < segments.count - 1, segments[count].lastLive <= start.index { count += 1 }
        return count
    }
}
