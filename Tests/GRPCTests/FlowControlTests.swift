import Base
import GRPC
import Testing

@Suite struct FlowControlTests {
    @Test func messagesLargerThanEveryWindowPassBothWays() throws {
        var settings = HTTP2Settings()
        settings.streamWindowBytes = 70_000
        settings.connectionWindowBytes = 100_000
        let pair = SessionPair(client: RecordingClient(settings: settings),
                               server: RecordingServer(maxReceiveMessageBytes: 8 << 20, settings: settings))
        pair.server.onCall = { session, stream, request in session.respondUnary(stream, message: request + request) }
        let big = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 ^ ($0 >> 8)) }
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream, big)
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.client.messages[stream] == [big + big])
        #expect(pair.client.finished[stream]?.code == .ok)
    }

    @Test func pausedReaderStopsTheServerAndResumesWithoutLoss() throws {
        var settings = HTTP2Settings()
        settings.streamWindowBytes = 100_000
        let pair = SessionPair(client: RecordingClient(settings: settings))
        let slow = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        let quick = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.client.session.pause(slow)
        for index in 0..<500 { pair.server.session.sendMessage(slow, [UInt8](repeating: UInt8(index % 256), count: 1_000)) }
        try pair.exchange()
        #expect(pair.server.session.bufferedBytes(slow) > 350_000)
        #expect(pair.client.receivedBytes[slow, default: 0] <= 100_000)
        // Other calls of the connection go on.
        pair.server.session.sendMessage(quick, [UInt8](repeating: 1, count: 300_000))
        try pair.exchange()
        #expect(pair.client.receivedBytes[quick] == 300_000)
        pair.client.session.resume(slow)
        try pair.exchange()
        #expect(pair.client.messages[slow]?.map { $0[0] } == (0..<500).map { UInt8($0 % 256) })
        #expect(pair.server.session.bufferedBytes(slow) == 0)
    }

    @Test func drainNoticeComesOnceTheBufferFell() throws {
        var settings = HTTP2Settings()
        settings.streamWindowBytes = 65_536
        let pair = SessionPair(client: RecordingClient(settings: settings))
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.client.session.pause(stream)
        for _ in 0..<100 { pair.server.session.sendMessage(stream, [UInt8](repeating: 7, count: 2_000)) }
        pair.server.session.notifyWhenDrained(stream, below: 10_000)
        // A delegate that answers the notice with more output gets it sent.
        pair.server.onDrained = { session, stream in session.sendMessage(stream, [42]) }
        try pair.exchange()
        #expect(!pair.server.events.contains(.drained(stream)))
        pair.client.session.resume(stream)
        try pair.exchange()
        #expect(pair.server.events.filter { $0 == .drained(stream) }.count == 1)
        #expect(pair.client.messages[stream]?.count == 101)
        #expect(pair.client.messages[stream]?.last == [42])
    }

    @Test func drainLimitSplitsTheOutputWithoutLosingAny() throws {
        let pair = SessionPair()
        try pair.exchange()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream, [UInt8](repeating: 3, count: 500_000))
        pair.client.session.halfClose(stream)
        var portions = 0
        while pair.client.session.wantsWrite {
            var bytes: [UInt8] = []
            let count = try pair.client.session.drainOutput(limit: 20_000) { bytes.append(contentsOf: $0) }
            #expect(count == bytes.count)
            #expect(count < 20_000 + 16_384 + 9)
            try SessionPair.feed(bytes, to: pair.server.session)
            portions += 1
        }
        #expect(portions > 10)
        #expect(pair.server.events == [.called(stream, method: 0, request: [UInt8](repeating: 3, count: 500_000))])
    }

    @Test func responseAboveTheClientsLimitEndsTheCall() throws {
        let pair = SessionPair(client: RecordingClient(maxReceiveMessageBytes: 100))
        pair.server.onCall = { session, stream, _ in session.respondUnary(stream, message: [UInt8](repeating: 0, count: 101)) }
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream, [])
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.client.finished[stream] == CallStatus(.resourceExhausted, "grpc: received message larger than max (101 vs. 100)"))
    }

    @Test func mixedSmallAndLargeMessagesKeepTheirOrder() throws {
        let pair = SessionPair()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        let sizes = [10, 40_000, 3, 0, 32_768, 32_767, 100_000, 5, 70_000, 70_000, 1]
        for (index, size) in sizes.enumerated() {
            let message = [UInt8](repeating: UInt8(index), count: size)
            if index % 2 == 0 {
                pair.server.session.sendMessage(stream, message)
            } else {
                pair.server.session.sendMessage(stream) { $0.write(message) }
            }
        }
        try pair.exchange()
        #expect(pair.client.messages[stream] == sizes.enumerated().map { [UInt8](repeating: UInt8($0), count: $1) })
    }
}
