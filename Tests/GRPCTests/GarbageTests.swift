import Base
import GRPC
import Testing

/// Input that no honest peer sends: nothing may crash, and a call that was announced must be reported as over.
@Suite struct GarbageTests {
    static let seeds: [UInt64] = (1...40).map { $0 &* 0x9e37 }

    @Test(arguments: seeds) func randomBytesNeverCrashTheServer(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let server = RecordingServer()
        var bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        if seed % 3 == 0 { bytes = [] }
        for _ in 0..<Int.random(in: 0..<4_000, using: &generator) { bytes.append(UInt8.random(in: 0...255, using: &generator)) }
        feed(bytes, to: server, &generator)
    }

    @Test(arguments: seeds) func damagedConversationsNeverCrashTheServer(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let pair = SessionPair()
        var streams: [StreamID] = []
        for index in 0..<20 {
            let path: StaticString = index % 3 == 0 ? "/test.Echo/Unary" : index % 3 == 1 ? "/test.Echo/Chat" : "/test.Echo/List"
            let stream = try #require(pair.client.session.startCall(path: path, metadata: [MetadataField("token", "abc\(index)")]))
            pair.client.session.sendMessage(stream, [UInt8](repeating: UInt8(index), count: index * 40))
            if index % 2 == 0 { pair.client.session.halfClose(stream) }
            if index % 7 == 6 { pair.client.session.cancel(stream) }
            streams.append(stream)
        }
        var bytes = try SessionPair.output(of: pair.client.session)
        for _ in 0..<Int.random(in: 1...20, using: &generator) {
            let place = Int.random(in: 24..<bytes.count, using: &generator)
            switch Int.random(in: 0..<3, using: &generator) {
            case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
            case 1: bytes.remove(at: place)
            default: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: place)
            }
        }
        let server = RecordingServer()
        server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        server.onMessage = { session, stream, message in session.sendMessage(stream, message) }
        feed(bytes, to: server, &generator)
        // Each opened call ends exactly once.
        let opened = server.events.filter { if case .opened = $0 { true } else { false } }.count
        let ended = server.events.filter { if case .cancelled = $0 { true } else { false } }.count
        #expect(opened == ended, "seed \(seed)")
    }

    @Test(arguments: seeds) func damagedAnswersNeverCrashTheClient(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let client = RecordingClient()
        let server = RecordingServer()
        server.onCall = { session, stream, request in
            if stream % 4 == 1 { session.respondUnary(stream, message: request) } else { session.finish(stream, .internal, "no %") }
        }
        server.onMessage = { session, stream, message in session.sendMessage(stream, message) }
        var streams: [StreamID] = []
        for index in 0..<20 {
            let stream = try #require(client.session.startCall(path: index % 2 == 0 ? "/test.Echo/Unary" : "/test.Echo/Chat"))
            client.session.sendMessage(stream, [UInt8](repeating: UInt8(index), count: index * 30))
            streams.append(stream)
        }
        try SessionPair.feed(try SessionPair.output(of: client.session), to: server.session)
        var bytes = try SessionPair.output(of: server.session)
        for _ in 0..<Int.random(in: 1...20, using: &generator) {
            bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
        do {
            try SessionPair.feed(bytes, to: client.session, portion: Int.random(in: 1...500, using: &generator))
            _ = try SessionPair.output(of: client.session)
        } catch is ProtocolFault {
            // As it should be for bytes like these.
        }
        client.session.connectionClosed("end of test")
        #expect(Set(client.finished.keys) == Set(streams), "seed \(seed)")
    }

    private func feed(_ bytes: [UInt8], to server: RecordingServer, _ generator: inout SeededGenerator) {
        do {
            var offset = 0
            while offset < bytes.count, !server.session.isFinished {
                let count = min(Int.random(in: 1...300, using: &generator), bytes.count - offset)
                try SessionPair.feed(Array(bytes[offset..<offset + count]), to: server.session)
                _ = try SessionPair.output(of: server.session)
                offset += count
            }
        } catch is ProtocolFault {
            // The connection ends; that is the answer to garbage.
        } catch {
            Issue.record("\(error)")
        }
        server.session.connectionClosed()
    }
}
