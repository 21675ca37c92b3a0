import Base
import Testing
@testable import GRPC

/// What a connection that serves HTTP endpoints beside its calls is told, as values.
private final class RecordingEndpoint: PlainRequestDelegate {
    enum Event: Equatable {
        case requested(String), body([UInt8]), ended, cancelled, drained
    }
    var events: [Event] = []
    var heads: [PlainRequestHead] = []
    var onRequest: (GRPCServerSession, StreamID) -> Void = { _, _ in }
    var onEnd: (GRPCServerSession, StreamID) -> Void = { _, _ in }

    func session(_ session: GRPCServerSession, claims path: String) -> Bool { path.hasPrefix("/v3/") }
    func session(_ session: GRPCServerSession, requested stream: StreamID, _ head: PlainRequestHead) {
        events.append(.requested("\(head.method) \(head.path)"))
        heads.append(head)
        onRequest(session, stream)
    }
    func session(_ session: GRPCServerSession, body: UnsafeRawBufferPointer, of stream: StreamID) { events.append(.body([UInt8](body))) }
    func session(_ session: GRPCServerSession, requestEnded stream: StreamID) {
        events.append(.ended)
        onEnd(session, stream)
    }
    func session(_ session: GRPCServerSession, plainCancelled stream: StreamID) { events.append(.cancelled) }
    func session(_ session: GRPCServerSession, plainDrained stream: StreamID) { events.append(.drained) }
}

@Suite struct PlainRequestTests {
    private func pair(alone: Bool = false) -> (RawClient, RecordingEndpoint) {
        let client = RawClient(), endpoint = RecordingEndpoint()
        client.server.session.plainDelegate = endpoint
        client.server.session.isPlainAlone = alone
        return (client, endpoint)
    }

    @Test func theContentTypeTellsThemFromCalls() throws {
        let (client, endpoint) = pair()
        defer { withExtendedLifetime(endpoint) {} }
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        endpoint.onEnd = { session, stream in
            session.respondPlain(stream, status: 201, [("x-kind", "plain"), ("empty", "")], hasBody: true)
            session.sendBody(stream, Array("one,".utf8))
            session.sendBody(stream, Array("two".utf8))
            session.finishBody(stream)
        }
        let plain = try client.request(RawClient.headers([":path": "/health?x=1", "content-type": "application/json", "origin": "http://x"]), body: [1, 2])
        #expect(plain[":status"] == "201" && plain["x-kind"] == "plain" && plain["empty"] == "" && plain["grpc-status"] == nil && plain["content-type"] == nil)
        #expect(plain.body == Array("one,two".utf8) && plain.isClosed && plain.resetCode == 0)
        #expect(endpoint.events == [.requested("POST /health?x=1"), .body([1, 2]), .ended])
        #expect(endpoint.heads[0].fields.map(\.name) == ["content-type", "te", "origin"] && endpoint.heads[0].fields[2].value == "http://x")
        let call = try client.request(RawClient.headers(), body: framed([7]))
        #expect(call["grpc-status"] == "0" && call.body == framed([7]))
        let unknown = try client.request(RawClient.headers([":path": "/nope.Nope/Nope"]), body: framed([]))
        #expect(unknown["grpc-status"] == "12")
        // Paths that are no call's whatever the client says, and preflights.
        #expect(try client.request(RawClient.headers([":path": "/v3/kv/put"]), body: [])["x-kind"] == "plain")
        #expect(try client.request(RawClient.headers([":method": "OPTIONS"]), body: [])["x-kind"] == "plain")
        // A path of a call without gRPC's content type.
        #expect(try client.request(RawClient.headers(["content-type": nil]), body: [])["x-kind"] == "plain")
        #expect(endpoint.heads.last?.path == "/test.Echo/Unary")
        #expect(client.server.session.openStreams == 0)
    }

    @Test func aloneTheyAreAllThereIs() throws {
        let (client, endpoint) = pair(alone: true)
        defer { withExtendedLifetime(endpoint) {} }
        endpoint.onEnd = { session, stream in session.respondPlain(stream, status: 404, [], hasBody: false) }
        let answer = try client.request(RawClient.headers(), body: framed([7]))
        #expect(answer[":status"] == "404" && answer.body == [] && answer.isClosed)
        #expect(client.server.events == [])
    }

    @Test func whoAnswersBeforeTheEndOfTheRequestTellsTheClientToStop() throws {
        for hasBody in [false, true] {
            let (client, endpoint) = pair()
            defer { withExtendedLifetime(endpoint) {} }
            endpoint.onRequest = { session, stream in
                session.respondPlain(stream, status: 413, [], hasBody: hasBody)
                session.sendBody(stream, [9])
                session.finishBody(stream)
            }
            let answer = try client.request(RawClient.headers([":path": "/x", "content-type": nil]), body: [1, 2, 3], ends: false)
            #expect(answer[":status"] == "413" && answer.body == (hasBody ? [9] : []) && answer.isClosed && answer.resetCode == HTTP2ErrorCode.noError.rawValue)
            // The rest of the body is nobody's.
            #expect(endpoint.events == [.requested("POST /x")])
            #expect(client.server.session.openStreams == 0)
        }
    }

    @Test func aClientThatGivesUpIsHeardOfOnce() throws {
        let (client, endpoint) = pair()
        defer { withExtendedLifetime(endpoint) {} }
        _ = try client.request(RawClient.headers([":path": "/x", "content-type": nil]), body: [1], ends: false)
        try client.reset()
        #expect(endpoint.events == [.requested("POST /x"), .body([1]), .cancelled])
        _ = try client.request(RawClient.headers([":path": "/y", "content-type": nil]), body: [])
        client.server.session.connectionClosed()
        #expect(endpoint.events.suffix(3) == [.requested("POST /y"), .ended, .cancelled])
    }

    @Test func theClientsWindowHoldsTheAnswerBackAndTheRestIsToldOf() throws {
        let (client, endpoint) = pair()
        defer { withExtendedLifetime(endpoint) {} }
        endpoint.onEnd = { session, stream in
            session.respondPlain(stream, status: 200, [], hasBody: true)
            session.sendBody(stream, [UInt8](repeating: 5, count: 3 << 20))
            session.sendBody(stream, [UInt8](repeating: 6, count: 10))
            session.notifyWhenDrained(stream, below: 100)
        }
        let window = Int(HTTP2Settings().streamWindowBytes)
        #expect(try client.request(RawClient.headers([":path": "/x", "content-type": nil]), body: []).body.count == window)
        #expect(client.server.session.bufferedBytes(client.last) == (3 << 20) + 10 - window && !endpoint.events.contains(.drained))
        var rounds = 0
        while client.answer.body.count < (3 << 20) + 10, rounds < 10 {
            try client.widen(by: window)
            rounds += 1
        }
        #expect(client.answer.body.suffix(11) == [5] + [UInt8](repeating: 6, count: 10))
        #expect(endpoint.events.filter { $0 == .drained }.count == 1 && !client.answer.isClosed)
        client.server.session.finishBody(client.last)
        try client.exchange()
        #expect(client.answer.isClosed && client.answer.resetCode == 0)
    }

    @Test func aBodyMayBeAskedFor() throws {
        let (client, endpoint) = pair()
        defer { withExtendedLifetime(endpoint) {} }
        endpoint.onRequest = { session, stream in session.sendContinue(stream) }
        endpoint.onEnd = { session, stream in session.respondPlain(stream, status: 200, [], hasBody: false) }
        let answer = try client.request(RawClient.headers([":path": "/x", "content-type": nil, "expect": "100-continue"]), body: [1])
        #expect(answer.headers.filter { $0.0 == ":status" }.map(\.1) == ["100", "200"])
    }

    @Test func withoutAnEndpointTheyAreRefusedInGRPCsWords() throws {
        let answer = try RawClient().request(RawClient.headers([":path": "/health", "content-type": nil]), body: [])
        #expect(answer[":status"] == "415" && answer["grpc-status"] == "3")
    }
}
