import Base
import Store
import Testing

@Suite struct StateHashTests {
    @Test func isTheCatalogueChecksum() {
        var hash = StateHash.initial
        hash.fold(Array("123456789".utf8))
        #expect(hash.rawValue == 0x995d_c9bb_df19_39fa) // CRC-64/XZ
        #expect(hash.description == "995dc9bbdf1939fa" && StateHash.initial.description == "0000000000000000")
    }

    @Test func piecesChain() {
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        var whole = StateHash.initial
        whole.fold(bytes)
        for cut in [0, 1, 8, 255, 999] {
            var hash = StateHash.initial
            hash.fold(Array(bytes[..<cut]))
            hash.fold(Array(bytes[cut...]))
            #expect(hash == whole)
        }
    }

    @Test func numbersAreFoldedLittleEndian() {
        var numbers = StateHash.initial
        numbers.fold(1, 2, 3, 0x0102)
        var bytes = StateHash.initial
        bytes.fold([1] + Array(repeating: 0, count: 7) + [2] + Array(repeating: 0, count: 7) + [3] + Array(repeating: 0, count: 7) + [2, 1]
            + Array(repeating: 0, count: 6))
        #expect(numbers == bytes)
    }

    /// Whatever once parted stays apart, however long both go on alike.
    @Test func differencesDoNotHeal() {
        var a = StateHash(rawValue: 7)
        var b = StateHash(rawValue: 8)
        for n in 0..<10_000 {
            a.fold(UInt64(n))
            b.fold(UInt64(n))
            #expect(a != b)
        }
    }

    @Test func everyPartOfAnEventCounts() {
        let event = StoreEvent(kind: .put, key: Key([1]), change: ChangeID(main: Revision(5), sub: 2), kv: [1, 2, 3], isCreate: false,
                               lease: .none, previousLease: LeaseID(9))
        var variants = [event, event, event, event, event, event, event]
        variants[1].kind = .delete
        variants[2].change = ChangeID(main: Revision(6), sub: 2)
        variants[3].change = ChangeID(main: Revision(5), sub: 3)
        variants[4].kv = [1, 2, 4]
        variants[5].isCreate = true
        variants[6].previousLease = LeaseID(8)
        var seen: [StateHash] = []
        for variant in variants {
            var hash = StateHash.initial
            hash.fold(variant)
            #expect(!seen.contains(hash))
            seen.append(hash)
        }
    }
}
