import Base
import GRPC
import Testing

private func echo(_ server: RecordingServer) {
    server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
}

@Suite struct CallTests {
    @Test func unaryCallCarriesRequestAndAnswer() throws {
        let pair = SessionPair()
        echo(pair.server)
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream, [1, 2, 3])
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.server.events == [.called(stream, method: 0, request: [1, 2, 3])])
        #expect(pair.client.messages[stream] == [[1, 2, 3]])
        #expect(pair.client.finished[stream] == CallStatus(.ok, ""))
        #expect(pair.client.session.openCalls == 0)
        #expect(pair.server.session.openStreams == 0)
        #expect(pair.client.isReady)
    }

    @Test func answerWrittenInPlaceEqualsAnswerFromBytes() throws {
        let pair = SessionPair()
        pair.server.onCall = { session, stream, request in
            session.respondUnary(stream) { writer in writer.writeField(1, request) }
        }
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream) { $0.writeField(2, Int64(300)) }
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.client.messages[stream] == [[0x0a, 3, 0x10, 0xac, 0x02]])
    }

    @Test func emptyMessagesAreMessages() throws {
        let pair = SessionPair()
        echo(pair.server)
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream, [])
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.client.messages[stream] == [[]])
        #expect(pair.client.finished[stream]?.code == .ok)
    }

    @Test func everyFragmentationGivesTheSameEvents() throws {
        for portion in [1, 2, 3, 5, 7, 9, 13, 17, 64, 1_000] {
            let pair = SessionPair()
            echo(pair.server)
            pair.server.onMessage = { session, stream, message in session.sendMessage(stream, message.reversed()) }
            let unary = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
            let big = (0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            pair.client.session.sendMessage(unary, big)
            pair.client.session.halfClose(unary)
            let chat = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
            for size in [0, 1, 4, 5, 6, 300] { pair.client.session.sendMessage(chat, [UInt8](repeating: UInt8(size % 251), count: size)) }
            pair.client.session.halfClose(chat)
            try pair.exchange(portion: portion)
            #expect(pair.client.messages[unary] == [big], "portion \(portion)")
            #expect(pair.client.messages[chat]?.map(\.count) == [0, 1, 4, 5, 6, 300], "portion \(portion)")
            #expect(pair.server.events.filter { $0 == .halfClosed(chat) }.count == 1, "portion \(portion)")
        }
    }

    @Test func everySplitPointOfARequestWorks() throws {
        // The bytes of one connection, cut in two at each place.
        let recorder = SessionPair()
        let stream = try #require(recorder.client.session.startCall(path: "/test.Echo/Unary", metadata: [MetadataField("token", "secret")],
                                                                    timeout: .seconds(3)))
        recorder.client.session.sendMessage(stream, Array("hello".utf8))
        recorder.client.session.halfClose(stream)
        let bytes = try SessionPair.output(of: recorder.client.session)
        for cut in 0...bytes.count {
            let server = RecordingServer()
            echo(server)
            try SessionPair.feed(Array(bytes[..<cut]), to: server.session)
            try SessionPair.feed(Array(bytes[cut...]), to: server.session)
            #expect(server.events == [.called(stream, method: 0, request: Array("hello".utf8))], "cut at \(cut)")
            #expect(server.heads[stream]?.token == Array("secret".utf8))
        }
    }

    @Test func metadataReachesTheServer() throws {
        let pair = SessionPair()
        echo(pair.server)
        let fields = [MetadataField("token", "t1"), MetadataField("authorization", "Bearer x"), MetadataField("hasleader", "true"),
                      MetadataField("client-api-version", "3.5"), MetadataField("grpcgateway-accept", "application/json"),
                      MetadataField("x-other", "ignored"), MetadataField("token", "t2"), MetadataField("authorization", "y")] // the first of a name counts
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary", metadata: fields, timeout: .milliseconds(1_500)))
        pair.client.session.sendMessage(stream, [])
        pair.client.session.halfClose(stream)
        let plain = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(plain, [])
        pair.client.session.halfClose(plain)
        try pair.exchange()
        let head = try #require(pair.server.heads[stream])
        #expect(head.token == Array("t1".utf8))
        #expect(head.authorization == Array("Bearer x".utf8))
        #expect(head.requiresLeader)
        #expect(head.isFromGateway)
        #expect(head.clientAPIVersion == Array("3.5".utf8))
        #expect(head.timeout == .milliseconds(1_500))
        let other = try #require(pair.server.heads[plain])
        #expect(other.token.isEmpty && other.authorization.isEmpty && !other.requiresLeader && other.timeout == nil && !other.isFromGateway)
    }

    @Test func serverStreamSendsManyMessagesThenStatus() throws {
        let pair = SessionPair()
        pair.server.onCall = { session, stream, _ in
            for index in 0..<100 { session.sendMessage(stream, [UInt8(index)]) }
            session.finish(stream, .outOfRange, "no more")
        }
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/List"))
        pair.client.session.sendMessage(stream, [])
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.client.messages[stream] == (0..<100).map { [UInt8($0)] })
        #expect(pair.client.finished[stream] == CallStatus(.outOfRange, "no more"))
    }

    @Test func halfCloseKeepsABidirectionalCallOpen() throws {
        let pair = SessionPair()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        pair.client.session.halfClose(stream)
        try pair.exchange()
        #expect(pair.server.events == [.opened(stream, method: 2), .halfClosed(stream)])
        pair.server.session.sendMessage(stream, [9])
        try pair.exchange()
        #expect(pair.client.messages[stream] == [[9]])
        #expect(pair.client.finished[stream] == nil)
        pair.server.session.finish(stream, .ok)
        try pair.exchange()
        #expect(pair.client.finished[stream]?.code == .ok)
    }

    @Test func headersAloneCanBeSentFirst() throws {
        let pair = SessionPair()
        pair.server.onOpen = { session, stream in session.sendHeaders(stream) }
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.server.session.finish(stream, .aborted, "later")
        try pair.exchange()
        #expect(pair.client.finished[stream] == CallStatus(.aborted, "later"))
    }

    @Test func clientCancelReachesTheServerOnce() throws {
        let pair = SessionPair()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.client.session.cancel(stream)
        try pair.exchange()
        #expect(pair.server.events == [.opened(stream, method: 2), .cancelled(stream)])
        #expect(pair.client.finished[stream] == nil)
        // Late actions on a call that is gone do nothing.
        pair.server.session.sendMessage(stream, [1])
        pair.server.session.finish(stream, .ok)
        try pair.exchange()
        #expect(pair.client.messages[stream] == nil)
    }

    @Test func cancelBeforeAnythingWasSentLeavesNothingBehind() throws {
        let pair = SessionPair()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        pair.client.session.sendMessage(stream, [1])
        pair.client.session.cancel(stream)
        try pair.exchange()
        #expect(pair.client.session.openCalls == 0)
        #expect(pair.client.finished.isEmpty)
        #expect(pair.server.session.openStreams == 0)
    }

    @Test func answerBeforeTheRequestEndedStopsTheClient() throws {
        let pair = SessionPair()
        pair.server.onOpen = { session, stream in session.finish(stream, .permissionDenied, "no") }
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        #expect(pair.client.finished[stream] == CallStatus(.permissionDenied, "no"))
        #expect(pair.server.session.openStreams == 0)
        #expect(pair.server.events == [.opened(stream, method: 2)])
    }

    @Test func abortResetsWithoutFurtherEvents() throws {
        let pair = SessionPair()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.server.session.sendMessage(stream, [UInt8](repeating: 1, count: 100))
        pair.server.session.abort(stream)
        try pair.exchange()
        #expect(pair.client.finished[stream]?.code == .canceled)
        #expect(pair.server.events == [.opened(stream, method: 2)])
    }

    @Test func closingTheConnectionCancelsTheServersCalls() throws {
        let pair = SessionPair()
        let first = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        let second = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.server.session.connectionClosed()
        #expect(pair.server.events.suffix(2) == [.cancelled(first), .cancelled(second)])
    }

    @Test func closingTheConnectionTellsSentFromUnsent() throws {
        let pair = SessionPair()
        let sent = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        let unsent = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        pair.client.session.connectionClosed("gone")
        #expect(pair.client.finished[sent] == CallStatus(.unavailable, "gone", isUnprocessed: false))
        #expect(pair.client.finished[unsent] == CallStatus(.unavailable, "gone", isUnprocessed: true))
    }

    @Test func goAwayLetsRunningCallsFinishAndRefusesNewOnes() throws {
        let pair = SessionPair()
        let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Chat"))
        try pair.exchange()
        pair.server.session.announceShutdown()
        try pair.exchange()
        pair.server.session.goAway()
        try pair.exchange()
        #expect(pair.client.goAways == 2)
        #expect(pair.client.session.startCall(path: "/test.Echo/Unary") == nil)
        pair.server.session.sendMessage(stream, [5])
        pair.server.session.finish(stream, .ok)
        try pair.exchange()
        #expect(pair.client.messages[stream] == [[5]])
        #expect(pair.client.finished[stream]?.code == .ok)
        #expect(pair.server.session.isFinished)
    }

    @Test func callsBeyondTheGoAwayAreUnprocessed() throws {
        let pair = SessionPair()
        try pair.exchange()
        pair.server.session.goAway()
        let answer = try SessionPair.output(of: pair.server.session)
        // Started before the client hears of it.
        let late = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
        _ = try SessionPair.output(of: pair.client.session)
        try SessionPair.feed(answer, to: pair.client.session)
        try pair.exchange()
        #expect(pair.client.finished[late]?.isUnprocessed == true)
        #expect(pair.client.finished[late]?.code == .unavailable)
    }

    @Test func pingIsAnswered() throws {
        let pair = SessionPair()
        try pair.exchange()
        pair.client.session.ping(0x0102_0304_0506_0708)
        try pair.exchange()
        #expect(pair.client.pongs == [0x0102_0304_0506_0708])
    }

    @Test func streamsBeyondTheLimitWaitForTheirTurn() throws {
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = 2
        let pair = SessionPair(server: RecordingServer(settings: settings))
        try pair.exchange()
        let streams = try (0..<5).map { _ in try #require(pair.client.session.startCall(path: "/test.Echo/Chat")) }
        try pair.exchange()
        #expect(pair.server.session.openStreams == 2)
        for stream in streams {
            pair.server.session.finish(stream, .ok)
            pair.client.session.halfClose(stream)
            try pair.exchange()
        }
        #expect(streams.allSatisfy { pair.client.finished[$0]?.code == .ok })
    }

    @Test func manyCallsReuseTheirMemory() throws {
        let pair = SessionPair()
        echo(pair.server)
        pair.server.records = false
        for round in 0..<50 {
            let streams = try (0..<40).map { _ in try #require(pair.client.session.startCall(path: "/test.Echo/Unary")) }
            for stream in streams {
                pair.client.session.sendMessage(stream, Array("\(round) \(stream)".utf8))
                pair.client.session.halfClose(stream)
            }
            try pair.exchange()
            for stream in streams { #expect(pair.client.messages[stream] == [Array("\(round) \(stream)".utf8)]) }
        }
        #expect(pair.server.session.openStreams == 0)
    }
}
