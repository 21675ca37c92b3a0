import Base
@testable import Raft
import Testing

@Suite struct LogViewTests {
    @Test func behavesLikeAPlainArray() {
        for seed in UInt64(1)...40 {
            var generator = SeededGenerator(seed: seed)
            var view = LogView(start: .zero)
            var model: [Entry] = []
            var start = 0
            var startTerm = Term.zero
            for _ in 0..<200 {
                let last = start + model.count
                switch Int.random(in: 0..<10, using: &generator) {
                case 0 where !model.isEmpty:
                    let from = Int.random(in: start + 1...last, using: &generator)
                    view.truncate(from: LogIndex(UInt64(from)))
                    model.removeLast(last - from + 1)
                case 1 where !model.isEmpty:
                    let through = Int.random(in: start + 1...last, using: &generator)
                    startTerm = model[through - start - 1].term
                    view.dropPrefix(through: LogIndex(UInt64(through)))
                    model.removeFirst(through - start)
                    start = through
                default:
                    let term = Term((model.last?.term ?? startTerm).rawValue + UInt64(Int.random(in: 0..<4, using: &generator) / 3))
                    let new = Entry(index: LogIndex(UInt64(last + 1)), term: term, kind: .command, proposedAt: .unknown,
                                    payload: [UInt8](repeating: 1, count: Int.random(in: 0..<50, using: &generator)))
                    view.append(new)
                    model.append(new)
                }
                check(view, model, start, startTerm, seed, &generator)
            }
        }
    }

    private func check(_ view: LogView, _ model: [Entry], _ start: Int, _ startTerm: Term, _ seed: UInt64, _ generator: inout SeededGenerator) {
        let last = start + model.count
        #expect(view.start == LogPosition(index: LogIndex(UInt64(start)), term: startTerm), "seed \(seed)")
        #expect(view.last == LogPosition(index: LogIndex(UInt64(last)), term: model.last?.term ?? startTerm), "seed \(seed)")
        func term(_ i: Int) -> Term? { i == start ? startTerm : i > start && i <= last ? model[i - start - 1].term : nil }
        let i = Int.random(in: max(0, start - 2)...last + 2, using: &generator)
        #expect(view.term(at: LogIndex(UInt64(i))) == term(i), "seed \(seed) index \(i)")
        let bound = Term((model.last?.term ?? startTerm).rawValue &- UInt64(Int.random(in: 0..<4, using: &generator)))
        if bound.rawValue < 1 << 60 {
            var expected = min(i, last)
            while expected >= start, term(expected)! > bound { expected -= 1 }
            #expect(view.lastIndex(withTermAtMost: bound, upTo: LogIndex(UInt64(i))) == LogIndex(UInt64(max(expected, 0))), "seed \(seed)")
        }
        guard !model.isEmpty else { return }
        let from = Int.random(in: start + 1...last, using: &generator)
        let bytes = Int.random(in: 0..<400, using: &generator)
        let (through, used) = view.extent(from: LogIndex(UInt64(from)), through: view.last.index, maxBytes: bytes)
        let slice = view.slice(from: LogIndex(UInt64(from)), through: through)
        #expect(slice == Array(model[(from - start - 1)..<(Int(through.rawValue) - start)]), "seed \(seed)")
        #expect(used == slice.reduce(0) { $0 + $1.cost } && (used <= bytes || slice.count == 1), "seed \(seed)")
    }
}

@Suite struct QuorumTests {
    private func reached(_ voters: [UInt64], _ outgoing: [UInt64], _ values: [UInt64: Int]) -> Int {
        Quorum.reached(in: Configuration(voters: voters.map(member), outgoingVoters: outgoing.map(member))) { values[$0.rawValue] ?? 0 }
    }

    @Test func majorityHasReachedTheMedian() {
        #expect(reached([1], [], [1: 7]) == 7)
        #expect(reached([1, 2], [], [1: 7, 2: 3]) == 3)
        #expect(reached([1, 2, 3], [], [1: 7, 2: 3, 3: 5]) == 5)
        #expect(reached([1, 2, 3, 4], [], [1: 7, 2: 3, 3: 5, 4: 9]) == 5)
        #expect(reached([1, 2, 3, 4, 5], [], [1: 1, 2: 2, 3: 3, 4: 4, 5: 5]) == 3)
    }

    @Test func jointConfigurationNeedsBothMajorities() {
        #expect(reached([3, 4, 5], [1, 2, 3], [1: 9, 2: 9, 3: 9, 4: 2, 5: 1]) == 2)
        #expect(reached([3, 4, 5], [1, 2, 3], [1: 1, 2: 2, 3: 9, 4: 9, 5: 9]) == 2)
    }

    @Test func votesAreWonOrLostOnlyWhenDecided() {
        let three = Configuration(voters: [member(1), member(2), member(3)])
        func result(_ configuration: Configuration, _ votes: [UInt64: Bool]) -> Quorum.VoteResult {
            Quorum.result(in: configuration) { votes[$0.rawValue] }
        }
        #expect(result(three, [1: true]) == .pending)
        #expect(result(three, [1: true, 2: false]) == .pending)
        #expect(result(three, [1: true, 3: true]) == .won)
        #expect(result(three, [2: false, 3: false]) == .lost)
        let joint = Configuration(voters: [member(3), member(4), member(5)], outgoingVoters: [member(1), member(2), member(3)])
        #expect(result(joint, [1: true, 2: true, 3: true]) == .pending)
        #expect(result(joint, [1: true, 2: true, 3: true, 4: true]) == .won)
        #expect(result(joint, [1: false, 2: false, 3: true, 4: true]) == .lost)
        #expect(result(Configuration(voters: []), [:]) == .lost)
    }
}
