import Base
import Testing
@testable import Store

@Suite struct WatchIndexTests {
    private func watcher(_ sequence: UInt64, _ key: [UInt8], _ end: [UInt8]) -> Watcher {
        let stream = WatchStream(id: WatchStreamID(1), opening: 1, fragmentBytes: 1, tickPeriod: .zero)
        return Watcher(sequence: sequence, stream: stream, id: WatchID(Int64(sequence)), request: WatchCreateRequest(key: key, rangeEnd: end))
    }

    @Test(arguments: [UInt64](1...8))
    func findsWhatAWalkOverAllWatchersFinds(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        func key() -> [UInt8] { (0..<Int.random(in: 1...3, using: &random)).map { _ in UInt8.random(in: 0...3, using: &random) } }
        var index = WatchIndex()
        var all: [Watcher] = []
        var sequence: UInt64 = 0
        for step in 0..<600 {
            if all.isEmpty || Int.random(in: 0..<10, using: &random) < (step < 400 ? 6 : 3) {
                sequence += 1
                let end: [UInt8] = switch Int.random(in: 0..<4, using: &random) {
                case 0: []
                case 1: [0]
                default: key()
                }
                let new = watcher(sequence, key(), end)
                all.append(new)
                index.insert(new)
            } else {
                let old = all.remove(at: Int.random(in: 0..<all.count, using: &random))
                index.remove(old)
                // Back with the old sequence, as a watcher that caught up.
                if Bool.random(using: &random) {
                    index.insert(old)
                    all.append(old)
                }
            }
            let probe = Key(key())
            var found: [Watcher] = []
            index.collect(probe, into: &found)
            let expected = all.filter { $0.range.contains(probe) }.map(\.sequence).sorted()
            guard found.map(\.sequence) == expected, index.count == all.count else {
                Issue.record("seed \(seed) step \(step): \(found.map(\.sequence)) instead of \(expected)")
                return
            }
        }
    }

    @Test func sortedInsertionsKeepTheTreeFlat() {
        var index = WatchIndex()
        for at in 0..<4_096 {
            let key: [UInt8] = [UInt8(at >> 8), UInt8(at & 255)]
            index.insert(watcher(UInt64(at), key, key + [0, 0]))
        }
        #expect(index.height < 50)
    }
}
