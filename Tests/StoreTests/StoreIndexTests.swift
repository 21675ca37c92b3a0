import Base
import Testing

@testable import Store

@Suite struct StoreIndexTests {
    /// The index against a sorted array of keys; old copies must stay as they were.
    @Test(arguments: [(1, 4), (2, 40), (3, 3_000), (4, 100_000)])
    func treeMatchesASortedArray(seed: UInt64, keySpace: Int) throws {
        var random = SeededGenerator(seed: seed)
        var index = KeyIndex()
        /// Key -> (main of the latest change, alive).
        var model: [[UInt8]: (main: Int64, live: Bool)] = [:]
        var copies: [(KeyIndex, [[UInt8]: (main: Int64, live: Bool)])] = []

        func key(_ random: inout SeededGenerator) -> [UInt8] {
            let text = String(Int.random(in: 0..<keySpace, using: &random), radix: 7)
            // Some long ones, so that nodes split by bytes as well.
            return bytes(text.hasSuffix("66") ? text + String(repeating: "x", count: 3_000) : text)
        }
        func check(_ index: KeyIndex, _ model: [[UInt8]: (main: Int64, live: Bool)], _ random: inout SeededGenerator) throws {
            index.checkInvariants()
            let sorted = model.keys.sorted { compareBytes($0, $1) < 0 }
            var walked: [[UInt8]] = []
            index.forEach(in: .everything) { key, entry in
                walked.append([UInt8](key))
                return true
            }
            try #require(walked == sorted, "seed \(seed)")
            try #require(index.liveCount == model.values.filter(\.live).count, "seed \(seed)")
            for _ in 0..<5 {
                let start = key(&random)
                let end = Bool.random(using: &random) ? key(&random) : nil
                let inside = sorted.filter { candidate in
                    compareBytes(start, candidate) <= 0 && (end.map { compareBytes(candidate, $0) < 0 } ?? true)
                }
                let bounds = KeyBounds(start: start, end: end)
                var part: [[UInt8]] = []
                index.forEach(in: bounds) { key, _ in
                    part.append([UInt8](key))
                    return part.count < 200
                }
                try #require(part == Array(inside.prefix(200)), "seed \(seed)")
                try #require(index.liveCount(in: bounds) == inside.filter { model[$0]!.live }.count, "seed \(seed)")
                let found = index.find(start)
                try #require(found?.latestMain == model[start]?.main, "seed \(seed)")
            }
        }
        for main in 1...6_000 as ClosedRange<Int64> {
            let key = key(&random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0...1:
                if model[key] != nil {
                    index.remove(key)
                    model[key] = nil
                }
            case 2...3:
                index.modify(key) {
                    $0.record(StoredChange(main: main, sub: 0, tombstone: true), createRevision: 0, version: 0, lease: 0)
                }
                model[key] = (main, false)
            default:
                index.modify(key) {
                    $0.record(StoredChange(main: main, sub: 0, tombstone: false), createRevision: main, version: 1, lease: 0)
                }
                model[key] = (main, true)
            }
            if main % 500 == 0 {
                copies.append((index, model))
                if copies.count > 3 { copies.removeFirst() }
            }
            if main % 250 == 0 {
                try check(index, model, &random)
                for (copy, then) in copies { try check(copy, then, &random) }
            }
        }
        // Down to nothing.
        for key in model.keys.sorted(by: { compareBytes($0, $1) < 0 }) {
            index.remove(key)
            model[key] = nil
        }
        try check(index, model, &random)
        #expect(index.liveCount == 0)
    }

    @Test func ascendingInsertionKeepsNodesFull() {
        var index = KeyIndex()
        for n in 0..<10_000 {
            let text = String(n)
            index.modify(bytes(String(repeating: "0", count: 8 - text.count) + text)) {
                $0.record(StoredChange(main: Int64(n + 1), sub: 0, tombstone: false), createRevision: 1, version: 1, lease: 0)
            }
        }
        index.checkInvariants()
        #expect(index.liveCount == 10_000)
        #expect(index.liveCount(in: KeyBounds(start: bytes("00000100"), end: bytes("00000200"))) == 100)
    }

    /// A key's history against an array, with pruning; a copy taken before keeps its view.
    @Test(arguments: [11, 12, 13, 14, 15] as [UInt64])
    func entryHistoryMatchesAnArray(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var entry = KeyEntry()
        var model: [StoredChange] = []
        var copies: [(KeyEntry, [StoredChange])] = []
        var main: Int64 = 0
        var sub: UInt32 = 0
        for _ in 0..<2_000 {
            if Int.random(in: 0..<4, using: &random) > 0 {
                main += Int64.random(in: 1...3, using: &random)
                sub = 0
            } else {
                sub += 1
                if main == 0 { main = 1 }
            }
            let change = StoredChange(main: main, sub: sub, tombstone: Int.random(in: 0..<4, using: &random) == 0)
            entry.record(change, createRevision: 1, version: 1, lease: 0)
            model.append(change)
            if Int.random(in: 0..<100, using: &random) == 0 { copies.append((entry, model)) }
            if Int.random(in: 0..<40, using: &random) == 0 {
                let target = Int64.random(in: 0...main, using: &random)
                let newest = model.lastIndex { $0.main <= target }
                var kept: [StoredChange] = []
                var gone: [StoredChange] = []
                for (at, change) in model.enumerated() {
                    let keep = change.main > target || (change.isTombstone ? change.main == target : at == newest)
                    if keep { kept.append(change) } else { gone.append(change) }
                }
                var dropped: [StoredChange] = []
                let isPrunable = entry.hasPrunable(to: target)
                let remains = entry.prune(to: target) { pruned in dropped += (0..<pruned.count).map { pruned[$0] } }
                try #require(isPrunable == !gone.isEmpty, "seed \(seed)")
                try #require(dropped == gone, "seed \(seed)")
                try #require(remains == !kept.isEmpty, "seed \(seed)")
                model = kept
                if !remains { entry = KeyEntry() }
            }
            for (entry, model) in copies + [(entry, model)] {
                try #require(entry.changeCount == model.count, "seed \(seed)")
                let at = Int64.random(in: 0...main + 1, using: &random)
                try #require(entry.newest(through: at) == model.last { $0.main <= at }, "seed \(seed)")
                try #require(entry.isLive == (model.last.map { !$0.isTombstone } ?? false), "seed \(seed)")
            }
            if copies.count > 5 { copies.removeFirst() }
        }
    }

    /// Else a compaction step over a counter would hold up the loop for as long as its history is.
    @Test func pruningALongHistoryHandsItOverInOnePiece() throws {
        var entry = KeyEntry()
        for main in 1...100_000 as ClosedRange<Int64> {
            entry.record(StoredChange(main: main, sub: 0, tombstone: false), createRevision: 1, version: main, lease: 0)
        }
        let before = entry
        var pruned: [PrunedChanges] = []
        #expect(entry.prune(to: 99_990) { pruned.append($0) })
        #expect(pruned.map(\.count) == [99_989])
        #expect(pruned.first?[0].main == 1 && pruned.first?[99_988].main == 99_989)
        #expect(entry.changeCount == 11)
        // A snapshot's copy reads on.
        #expect(before.newest(through: 500)?.main == 500)
    }

    @Test func rangeSetsMeltOverlapsAndDropEmptyIntervals() {
        var random = SeededGenerator(seed: 21)
        for _ in 0..<300 {
            let ranges: [KeyRange] = (0..<Int.random(in: 0..<6, using: &random)).map { _ in
                func key() -> [UInt8] { (0..<Int.random(in: 1...2, using: &random)).map { _ in UInt8.random(in: 0...4, using: &random) } }
                switch Int.random(in: 0..<6, using: &random) {
                case 0: return .from(Key(key()))
                case 1...2: return .single(Key(key()))
                default: return .bounded(start: Key(key()), end: Key(key()))
                }
            }
            let set = KeyRangeSet(ranges)
            for a in 0...5 as ClosedRange<UInt8> {
                for key in [[a]] + (0...5).map({ [a, $0] }) {
                    #expect(set.contains(key) == ranges.contains { $0.contains(Key(key)) }, "\(ranges) \(key)")
                }
            }
        }
    }
}
