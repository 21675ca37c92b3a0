import Base
import RawHTTP2
import Testing
@testable import GRPC

@Suite struct PingPolicyTests {
    private func seconds(_ n: Double) -> Instant { Instant(nanoseconds: Int64(n * 1e9) + 1) }

    /// At which of the pings the policy has had enough; nil: at none.
    private func verdict(_ pings: [(at: Double, calls: Int, hasSent: Bool)]) -> Int? {
        var policy = PingPolicy(minInterval: .seconds(5))
        return pings.firstIndex { !policy.allows(at: seconds($0.at), openCalls: $0.calls, hasSent: $0.hasSent) }
    }

    @Test func theThirdStrikeIsTooMany() {
        // The first ping has none before it.
        #expect(verdict((0..<10).map { (Double($0), 1, false) }) == 3)
        #expect(verdict((0..<10).map { (Double($0) * 4.99, 1, false) }) == 3)
        #expect(verdict((0..<1_000).map { (Double($0) * 5, 1, false) }) == nil)
    }

    @Test func withoutCallsPingsMustBeTwoHoursApart() {
        #expect(verdict((0..<10).map { (Double($0) * 600, 0, false) }) == 3)
        #expect(verdict((0..<10).map { (Double($0) * 7_200, 0, false) }) == nil)
        // One that idles between its calls has few pings, and strikes are not forgotten by time.
        #expect(verdict([(0, 1, false), (10, 0, false), (20, 1, false), (30, 0, false), (40, 1, false), (50, 0, false)]) == 5)
    }

    @Test func answersMakeTheNextPingFreeAndForgiveAll() {
        #expect(verdict((0..<100).map { (Double($0) / 10, 1, $0 % 3 == 0) }) == nil)
        #expect(verdict((0..<100).map { (Double($0) / 10, 0, true) }) == nil)
        #expect(verdict([(0, 1, false), (1, 1, false), (2, 1, false), (3, 1, true), (4, 1, false), (5, 1, false), (6, 1, false)]) == 6)
    }

    /// What clients do by default: gRPC in C and Go measure with pings while they receive; etcdctl asks every 2 s during a call; Java and Go with
    /// keep-alive ask at least 10 s apart.
    @Test func clientsOnDefaultsAreNeverPunished() {
        #expect(verdict((0..<1_000).map { (Double($0) / 5, 1, true) }) == nil)
        #expect(verdict((0..<1_000).map { (Double($0) * 10, 1, false) }) == nil)
        // One command whose answer takes six seconds: three pings, two of them strikes.
        #expect(verdict([(2, 1, false), (4, 1, false), (6, 1, false)]) == nil)
    }

    @Test func theSessionSaysWhenItHasSent() throws {
        let abuser = try Abuser()
        #expect(!abuser.server.session.takeHasSent(), "settings do not count")
        abuser.send([.ping()])
        try abuser.take()
        #expect(!abuser.server.session.takeHasSent(), "nor do answers to pings")
        abuser.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        abuser.send([.headers(1, path: "/test.Echo/Unary"), .data(1, framed([]), ends: true)])
        #expect(!abuser.server.session.takeHasSent(), "nothing has left yet")
        try abuser.take()
        #expect(abuser.server.session.takeHasSent())
        #expect(!abuser.server.session.takeHasSent())
    }
}
