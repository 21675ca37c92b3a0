import Base
import RawHTTP2
import Testing
@testable import GRPC

/// What costs a client little and could cost the server much: each ends within a bound.
@Suite struct AbuseTests {
    private static let calm = HTTP2ErrorCode.enhanceYourCalm.rawValue

    // MARK: Streams

    @Test func aStreamBeyondTheLimitIsRefusedAndTheOthersGoOn() throws {
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = 2
        let abuser = try Abuser(settings)
        // What the client is told.
        let told = try #require(abuser.received.first { $0.kind == .settings && $0.flags == 0 })
        #expect(told.setting(3) == 2)
        abuser.send((0..<4).map { RawFrame.headers(StreamID(1 + 2 * $0), path: "/test.Echo/Chat") })
        try abuser.take()
        #expect(abuser.server.events == [.opened(1, method: 2), .opened(3, method: 2)])
        #expect(abuser.resets(of: 5) == [HTTP2ErrorCode.refusedStream.rawValue] && abuser.resets(of: 7) == [HTTP2ErrorCode.refusedStream.rawValue])
        #expect(abuser.goAways.isEmpty)
        // A place that was given back can be taken.
        abuser.send([.reset(1), .headers(9, path: "/test.Echo/Chat")])
        #expect(abuser.server.events.suffix(2) == [.cancelled(1), .opened(9, method: 2)])
    }

    @Test func streamsThatAreRefusedAreNotCollected() throws {
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = 10
        settings.maxQueuedFrames = 50
        let abuser = try Abuser(settings)
        let turns = try abuser.endurance(1_000, isReading: false) { [.headers(StreamID(1 + 2 * $0), path: "/test.Echo/Chat")] }
        #expect(try #require(turns) <= 110)
        #expect(abuser.goAways.last?.goAwayCode == Self.calm)
        // All at once, before anything can be answered.
        let other = try Abuser(settings)
        #expect(!other.send((0..<5_000).map { RawFrame.headers(StreamID(1 + 2 * $0), path: "/test.Echo/Unary") }) || other.server.session.isFinished)
    }

    @Test func rapidResetEndsTheConnection() throws {
        var settings = HTTP2Settings()
        settings.resetBurst = 100
        settings.resetsPerSecond = 1
        let abuser = try Abuser(settings)
        let turns = try abuser.endurance(10_000) { [.headers(StreamID(1 + 2 * $0), path: "/test.Echo/Chat"), .reset(StreamID(1 + 2 * $0))] }
        #expect((100...200).contains(try #require(turns)))
        #expect(!abuser.goAways.isEmpty)
        abuser.server.session.connectionClosed()
        // Nothing that was begun goes on.
        let opened = abuser.server.events.filter { if case .opened = $0 { true } else { false } }.count
        #expect(abuser.server.events.count == 2 * opened)
    }

    @Test func cancellingAsApplicationsDoIsNoAbuse() throws {
        let abuser = try Abuser()
        #expect(try abuser.endurance(4_000) { [.headers(StreamID(1 + 2 * $0), path: "/test.Echo/Chat"), .reset(StreamID(1 + 2 * $0))] } == nil)
    }

    @Test func makingTheServerResetEndsTheConnectionAsWell() throws {
        let abuser = try Abuser()
        abuser.server.records = false
        // Trailers with a name that is none are an error of their stream.
        let trailers = RawFrame.block([("Upper", "v")])
        let turns = try abuser.endurance(20_000) {
            [.headers(StreamID(1 + 2 * $0), path: "/test.Echo/Chat"), RawFrame(kind: .headers, flags: RawFrame.endHeaders | RawFrame.endStream, stream: StreamID(1 + 2 * $0), payload: trailers)]
        }
        #expect(try #require(turns) < 1_000)
        #expect(abuser.goAways.last?.goAwayCode == Self.calm)
    }

    // MARK: Headers

    @Test func continuationsWithoutEndAreCutOff() throws {
        let abuser = try Abuser()
        let fields = RawFrame.block([("x", "y")])
        abuser.send([RawFrame(kind: .headers, stream: 1, payload: RawFrame.headers(1, path: "/test.Echo/Unary").payload)])
        let turns = try abuser.endurance(1_000) { _ in [RawFrame(kind: .continuation, stream: 1, payload: fields)] }
        #expect(try #require(turns) <= 10)
        #expect(abuser.server.events.isEmpty)
        let empty = try Abuser()
        empty.send([RawFrame(kind: .headers, stream: 1)])
        #expect(try #require(try empty.endurance(1_000) { _ in [RawFrame(kind: .continuation, stream: 1)] }) <= 10)
    }

    @Test func veryManySmallFieldsAreNotKept() throws {
        let abuser = try Abuser()
        // 16 KB of fields with nothing in them but a letter: above 64 KiB as HPACK counts.
        let many = (0..<3_000).map { _ in ("a", "") }
        abuser.send([.headers(1, path: "/test.Echo/Unary", extra: many)])
        try abuser.take()
        #expect(abuser.server.events.isEmpty && abuser.resets(of: 1).count == 1)
        abuser.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        abuser.send([.headers(3, path: "/test.Echo/Unary"), .data(3, framed([]), ends: true)])
        #expect(abuser.server.events == [.called(3, method: 0, request: [])])
    }

    @Test func aCompressionBombIsNotUnpacked() throws {
        let abuser = try Abuser()
        // One field of 4,000 bytes goes into the table; each further byte of the block stands for it. (RFC 7541 §6.1)
        var bomb = RawFrame.headers(1, path: "/test.Echo/Unary").payload
        bomb += [0x40] + RawFrame.text("x") + RawFrame.text(String(repeating: "v", count: 3_900))
        bomb += [UInt8](repeating: 0xbe, count: 12_000)
        abuser.send([RawFrame(kind: .headers, flags: RawFrame.endHeaders, stream: 1, payload: bomb)])
        try abuser.take()
        #expect(abuser.server.events.isEmpty && abuser.resets(of: 1).count == 1 && abuser.goAways.isEmpty)
        // Again and again it ends the connection.
        let again = RawFrame.headers(1, path: "/test.Echo/Unary").payload + [UInt8](repeating: 0xbe, count: 12_000)
        let turns = try abuser.endurance(2_000) { [RawFrame(kind: .headers, flags: RawFrame.endHeaders, stream: StreamID(3 + 2 * $0), payload: again)] }
        #expect(try #require(turns) < 1_000)
        #expect(abuser.goAways.last?.goAwayCode == Self.calm)
    }

    // MARK: Frames that carry nothing

    @Test(arguments: [false, true]) func pingsAndSettingsAreAnsweredWithinABound(isReading: Bool) throws {
        for frame in [RawFrame.ping(), .settings(), .settings((4, 70_000))] {
            let abuser = try Abuser()
            let turns = try #require(try abuser.endurance(20_000, isReading: isReading) { _ in [frame] })
            #expect(turns <= (isReading ? FrameBudget.full : 1_000))
            if isReading { #expect(abuser.goAways.map(\.goAwayCode) == [Self.calm] && abuser.goAways[0].debug == "frames that carry nothing") }
        }
    }

    @Test func frequentSettingsOfAFrameAreRefused() throws {
        let abuser = try Abuser()
        let many = RawFrame(kind: .settings, payload: (0..<33).flatMap { _ in RawFrame.settings((1, 4_096)).payload })
        abuser.send([many])
        try abuser.take()
        #expect(abuser.goAways.map(\.goAwayCode) == [Self.calm] && abuser.server.session.isFinished)
    }

    @Test func emptyFramesEndTheConnection() throws {
        let kinds: [RawFrame] = [.data(1), .windowUpdate(0, 1), .windowUpdate(1, 1), RawFrame(kind: .priority, stream: 1, payload: [0, 0, 0, 0, 1])]
        for frame in kinds {
            let abuser = try Abuser()
            abuser.send([.headers(1, path: "/test.Echo/Chat")])
            let turns = try #require(try abuser.endurance(FrameBudget.full + 100) { _ in [frame] }, "\(frame.kind)")
            #expect(turns <= FrameBudget.full)
            #expect(abuser.goAways.map(\.goAwayCode) == [Self.calm], "\(frame.kind)")
        }
    }

    @Test func answersAreNotSentByteByByteWithoutEnd() throws {
        let abuser = try Abuser()
        abuser.server.onCall = { session, stream, _ in session.respondUnary(stream, message: [UInt8](repeating: 1, count: 100_000)) }
        abuser.send([.settings((4, 1)), .headers(1, path: "/test.Echo/Unary"), .data(1, framed([]), ends: true)])
        let turns = try abuser.endurance(60_000) { _ in [.windowUpdate(1, 1)] }
        #expect(try #require(turns) <= FrameBudget.full)
        // Each paid for one byte.
        #expect(abuser.received.filter { $0.kind == .data }.reduce(0) { $0 + $1.payload.count } <= FrameBudget.full + 1)
    }

    @Test func whatIsNoAbuseGoesOnForEver() throws {
        // A client that reads with a small window, and pings and changes its settings all the while, as those do which measure.
        var small = HTTP2Settings()
        small.streamWindowBytes = 8_192
        small.connectionWindowBytes = 65_535
        let pair = SessionPair(client: RecordingClient(settings: small))
        pair.server.records = false
        pair.server.onCall = { session, stream, _ in session.respondUnary(stream, message: [UInt8](repeating: 1, count: 4_000_000)) }
        for _ in 0..<10 {
            let stream = try #require(pair.client.session.startCall(path: "/test.Echo/Unary"))
            pair.client.session.sendMessage(stream, [])
            pair.client.session.halfClose(stream)
            try pair.exchange()
            #expect(pair.client.finished[stream]?.code == .ok)
            for number in 0..<200 { pair.client.session.ping(UInt64(number)) }
            try pair.exchange()
        }
        #expect(pair.client.goAways == 0 && pair.client.pongs.count == 2_000)
        // An idle one for as long as its owner looks after it now and then.
        let abuser = try Abuser()
        for _ in 0..<5 {
            #expect(try abuser.endurance(FrameBudget.full - 100) { _ in [.ping()] } == nil)
            abuser.server.session.age(limit: 4)
        }
    }

    // MARK: Half a request

    @Test func halfARequestIsGivenUp() throws {
        let abuser = try Abuser()
        let half = Array(framed([UInt8](repeating: 1, count: 100)).prefix(50))
        abuser.send([.headers(1, path: "/test.Echo/Unary"), .data(1, half), .headers(3, path: "/test.Echo/Unary"), .headers(5, path: "/test.Echo/Chat"), .data(5, half),
                     .headers(7, path: "/test.Echo/Chat"), .data(7, framed([1])), .headers(9, path: "/test.Echo/Unary"), .data(9, framed([2]), ends: true)])
        for _ in 0..<3 { abuser.server.session.age(limit: 4) }
        // A message arrived meanwhile: the next one has its own time.
        abuser.send([.data(5, Array(framed([UInt8](repeating: 1, count: 100)).dropFirst(50)) + half)])
        #expect(abuser.server.session.openStreams == 5)
        abuser.server.session.age(limit: 4)
        try abuser.take()
        let given = abuser.received.filter { $0.kind == .headers && $0.flags & RawFrame.endStream != 0 }.map(\.stream)
        #expect(given == [1, 3])
        #expect(abuser.resets(of: 1) == [0] && abuser.resets(of: 3) == [0], "and told to stop")
        for _ in 0..<3 { abuser.server.session.age(limit: 4) }
        #expect(abuser.server.events.last == .cancelled(5))
        // A watch that waits and a call that the server has not answered are nobody's fault.
        for _ in 0..<10 { abuser.server.session.age(limit: 4) }
        try abuser.take()
        #expect(abuser.server.session.openStreams == 2)
    }
}
