import Base
import Log
import Raft

let here = LogIdentity(cluster: ClusterID(0xc1), member: MemberID(0xa1))
let directory = "/data/wal"

func entry(_ index: UInt64, _ term: UInt64, bytes: Int = 20, kind: Entry.Kind = .command) -> Entry {
    let payload = (0..<bytes).map { UInt8(truncatingIfNeeded: UInt64($0) &* 7 &+ index &* 31 &+ term) }
    return Entry(index: LogIndex(index), term: Term(term), kind: kind, proposedAt: WallTime(milliseconds: Int64(index) * 1000), payload: payload)
}

func entries(_ range: ClosedRange<UInt64>, _ term: UInt64, bytes: Int = 20) -> [Entry] {
    range.map { entry($0, term, bytes: bytes) }
}

func position(_ index: UInt64, _ term: UInt64) -> LogPosition { LogPosition(index: LogIndex(index), term: Term(term)) }

func hardState(_ term: UInt64, _ vote: UInt64) -> HardState { HardState(term: Term(term), vote: MemberID(vote)) }

func batch(_ hardState: HardState? = nil, _ entries: [Entry] = [], reset: LogPosition? = nil) -> PersistBatch {
    PersistBatch(ticket: PersistTicket(0), hardState: hardState, entries: entries, reset: reset)
}

func segmentPath(_ number: Int) -> String {
    let digits = String(number, radix: 16)
    return directory + "/wal-" + String(repeating: "0", count: 16 - digits.count) + digits + ".log"
}

func create(_ disk: MemoryDisk, segmentSize: Int = 16384) throws -> WriteAheadLog {
    try WriteAheadLog.create(directory: directory, disk: disk, identity: here, options: LogOptions(segmentSizeBytes: segmentSize))
}

func reopen(_ disk: MemoryDisk, segmentSize: Int = 16384, cutsDamagedTail: Bool = false) throws -> (log: WriteAheadLog, recovered: RecoveredLog) {
    try WriteAheadLog.open(directory: directory, disk: disk, identity: here,
                           options: LogOptions(segmentSizeBytes: segmentSize, cutsDamagedTail: cutsDamagedTail))
}

extension WriteAheadLog {
    func persist(_ batch: PersistBatch) throws(LogError) {
        append(batch)
        try sync()
    }
}

/// What a log should hold, kept the obvious way. Remembers all entries since the last reset, compacted or not.
struct LogModel: Equatable {
    var hardState = HardState()
    var origin = LogPosition.zero
    var entries: [Entry] = []

    var last: LogPosition { entries.last.map { LogPosition(index: $0.index, term: $0.term) } ?? origin }

    mutating func apply(_ batch: PersistBatch) {
        if let state = batch.hardState { hardState = state }
        if let reset = batch.reset {
            origin = reset
            entries = []
        }
        for entry in batch.entries {
            entries.removeAll { $0.index >= entry.index }
            entries.append(entry)
        }
    }

    func term(at index: LogIndex) -> Term? {
        index == origin.index ? origin.term : entries.first { $0.index == index }?.term
    }

    /// What differs in what was read back; nil if it is the same log, starting anywhere up to `compacted`.
    func difference(from recovered: RecoveredLog, compacted: LogIndex) -> String? {
        if recovered.hardState != hardState { return "hard state \(recovered.hardState), expected \(hardState)" }
        let latestStart = max(origin.index, min(compacted, last.index))
        if recovered.start.index < origin.index || recovered.start.index > latestStart {
            return "start \(recovered.start.index.rawValue), expected \(origin.index.rawValue)...\(latestStart.rawValue)"
        }
        if term(at: recovered.start.index) != recovered.start.term { return "start term \(recovered.start)" }
        let expected = entries.filter { $0.index > recovered.start.index }
        if recovered.entries != expected {
            return "entries \(recovered.entries.map { ($0.index.rawValue, $0.term.rawValue) }), expected \(expected.map { ($0.index.rawValue, $0.term.rawValue) })"
        }
        return nil
    }
}

/// Draws batches as a Raft core would emit them: terms grow, overwriting begins behind `floor`, now and then a reset.
struct BatchMaker {
    var generator: SeededGenerator
    init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

    mutating func below(_ bound: Int) -> Int { Int(generator.next() % UInt64(bound)) }

    mutating func next(after model: LogModel, floor: LogIndex) -> PersistBatch {
        var result = batch()
        var term = max(model.hardState.term, model.last.term)
        let dice = below(20)
        if dice < 5 {
            term = Term(term.rawValue + UInt64(below(3)))
            result.hardState = HardState(term: term, vote: MemberID(UInt64(below(4))))
        }
        var last = model.last
        if dice == 5 {
            last = LogPosition(index: LogIndex(model.last.index.rawValue + UInt64(below(30))), term: term)
            result.reset = last
        }
        if dice > 3 {
            var first = last.index.next
            if dice < 9, result.reset == nil, last.index > floor {
                // A new leader overwrites what it never committed.
                first = LogIndex(last.index.rawValue - UInt64(below(Int(min(5, last.index.rawValue - floor.rawValue)))))
                term = term.next
                result.hardState = HardState(term: term)
            }
            let size = below(10) == 0 ? 3000 : 120
            for i in 0..<UInt64(1 + below(6)) {
                result.entries.append(entry(first.rawValue + i, term.rawValue, bytes: below(size), kind: below(9) == 0 ? .empty : .command))
            }
        }
        return result
    }
}
