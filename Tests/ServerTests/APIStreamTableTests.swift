import Base
import GRPC
import Testing
import Store
@testable import Server

@Suite struct APIStreamTableTests {
    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
    func tableAgreesWithADictionary(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var table = StreamTable()
        var model: [StreamID: Int] = [:]
        var next: StreamID = 1
        var live: [StreamID] = []
        for step in 0..<4_000 {
            if live.count < 200, live.isEmpty || generator.next() % 2 == 0 {
                // Like a connection: ascending, with gaps.
                next += 2 * StreamID(generator.next() % 5 + 1)
                table.insert(next, step)
                model[next] = step
                live.append(next)
            } else {
                let victim = live.remove(at: Int(generator.next() % UInt64(live.count)))
                table.remove(victim)
                model[victim] = nil
                #expect(table.find(victim) == nil, "seed \(seed) step \(step)")
            }
            #expect(table.count == model.count, "seed \(seed) step \(step)")
        }
        for (stream, slot) in model { #expect(table.find(stream) == slot, "seed \(seed)") }
        #expect(Set(table.all) == Set(model.values), "seed \(seed)")
    }

    @Test func watchBooksGiveBackWhatHasLeftInOrder() {
        let call = WatchCall(id: WatchStreamID(1))
        call.sent(wire: 100, backlog: 150)
        call.sent(wire: 200, backlog: 250)
        call.sent(wire: 300, backlog: 350)
        #expect(call.settle(buffered: 600) == (0, 0))
        #expect(call.settle(buffered: 501) == (0, 0))
        #expect(call.settle(buffered: 500) == (1, 150))
        #expect(call.hasWaiting)
        call.sent(wire: 50, backlog: 60)
        #expect(call.settle(buffered: 50) == (2, 600))
        #expect(call.settle(buffered: 0) == (1, 60))
        #expect(!call.hasWaiting)
    }
}
