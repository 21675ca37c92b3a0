import Auth
import Base
import Testing

@Suite struct TokenTableTests {
    private func at(_ seconds: Int64) -> Instant { Instant.zero + .seconds(seconds) }
    private func token(_ n: UInt64) -> [UInt8] { TokenTable.token(prefix: bytes("prefix"), index: LogIndex(n)) }

    @Test func aTokenLivesWhileItIsUsed() {
        var table = TokenTable(timeToLive: .seconds(300))
        table.insert(token(42), of: "u", at: at(0))
        #expect(token(42) == bytes("prefix.42"))
        #expect(table.use(token(42), at: at(299)) == "u")
        #expect(table.use(token(42), at: at(598)) == "u", "each use starts its time anew")
        #expect(table.use(token(42), at: at(898)) == nil)
        #expect(table.use(token(42), at: at(0)) == nil && table.count == 0, "gone is gone, whatever the clock says")
        #expect(table.use(bytes("other.42"), at: at(0)) == nil)
    }

    @Test func memoryOfExpiredTokensIsGivenUp() {
        var table = TokenTable(timeToLive: .seconds(10))
        for n in 0..<5_000 { table.insert(token(UInt64(n)), of: "u", at: at(0)) }
        #expect(table.use(token(7), at: at(9)) == "u")
        table.expire(at: at(10))
        #expect(table.count == 1)
        table.expire(at: at(19))
        #expect(table.count == 0)
    }

    @Test func aUserLosesAllTokensAndOthersKeepTheirs() {
        var table = TokenTable(timeToLive: .seconds(10))
        for n in 1...6 { table.insert(token(UInt64(n)), of: n % 2 == 0 ? "even" : "odd", at: at(0)) }
        table.invalidate("odd")
        #expect((1...6).map { table.use(token($0), at: at(1)) } == [nil, "even", nil, "even", nil, "even"])
        table.removeAll()
        #expect(table.count == 0 && table.use(token(2), at: at(1)) == nil)
        table.insert(token(9), of: "odd", at: at(1))
        #expect(table.use(token(9), at: at(2)) == "odd")
    }

    @Test func aFullTableForgetsWhoWasNotUsed() {
        var table = TokenTable(timeToLive: .seconds(1_000), maxTokens: 100)
        table.insert(token(1), of: "busy", at: at(0))
        for n in 2..<1_000 {
            table.insert(token(UInt64(n)), of: "idle", at: at(Int64(n) / 10))
            #expect(table.use(token(1), at: at(Int64(n) / 10 + 1)) == "busy")
        }
        #expect(table.count == 100 && table.use(token(2), at: at(100)) == nil && table.use(token(999), at: at(100)) == "idle")
    }

    @Test func onlyPrefixDotNumberIsAToken() {
        #expect(TokenTable.index(of: bytes("abc.17")) == LogIndex(17))
        #expect(TokenTable.index(of: bytes(".9223372036854775807")) == LogIndex(UInt64(Int64.max)))
        for nonsense in ["", ".", "abc", "abc.", "abc.x", "abc.1.2", "abc.-1", "abc.+1", "abc. 1", "abc.9223372036854775808", "abc.18446744073709551616", "a.99999999999999999999999"] {
            #expect(TokenTable.index(of: bytes(nonsense)) == nil, "\(nonsense)")
        }
    }
}
