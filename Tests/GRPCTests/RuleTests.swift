import Base
import CNghttp2
import Testing
@testable import GRPC

/// A client that sends exactly the headers and bytes it is told, to see how the server treats what no gRPC client sends.
final class RawClient {
    struct Answer {
        var headers: [(String, String)] = []
        var body: [UInt8] = []
        var isClosed = false
        var resetCode: UInt32 = 0
        subscript(_ name: String) -> String? { headers.last { $0.0 == name }?.1 }
    }

    private final class Session: HTTP2Session {
        var answers: [StreamID: Answer] = [:]
        override func header(_ stream: StreamID, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> Bool {
            answers[stream, default: Answer()].headers.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
            return true
        }
        override func data(_ stream: StreamID, _ bytes: UnsafeRawBufferPointer, endStream: Bool) {
            answers[stream, default: Answer()].body += [UInt8](bytes)
        }
        override func closed(_ stream: StreamID, _ code: UInt32) {
            answers[stream, default: Answer()].isClosed = true
            answers[stream, default: Answer()].resetCode = code
        }
    }

    private final class Body {
        var bytes: [UInt8]
        let ends: Bool
        init(_ bytes: [UInt8], ends: Bool) { (self.bytes, self.ends) = (bytes, ends) }
    }

    private let session = Session(role: .client, settings: HTTP2Settings())
    private var bodies: [Body] = []
    let server: RecordingServer

    init(server: RecordingServer = RecordingServer()) { self.server = server }

    static let usual: [(String, String)] = [
        (":method", "POST"), (":scheme", "http"), (":path", "/test.Echo/Unary"), (":authority", "x"), ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]

    /// `usual` with some fields replaced, added or (nil) left out.
    static func headers(_ changes: [String: String?] = [:]) -> [(String, String)] {
        var fields = usual.compactMap { name, value -> (String, String)? in
            guard let change = changes[name] else { return (name, value) }
            return change.map { (name, $0) }
        }
        for (name, value) in changes.sorted(by: { $0.key < $1.key }) where !usual.contains(where: { $0.0 == name }) {
            if let value { fields.append((name, value)) }
        }
        return fields
    }

    /// Sends one request with its body and returns the answer.
    /// - Parameter ends: false: more of the body would follow.
    func request(_ headers: [(String, String)], body bytes: [UInt8], ends: Bool = true) throws -> Answer {
        let body = Body(bytes, ends: ends)
        bodies.append(body)
        var storage: [UnsafeMutablePointer<UInt8>] = []
        defer { storage.forEach { $0.deallocate() } }
        func copy(_ text: String) -> UnsafeMutablePointer<UInt8> {
            let pointer = UnsafeMutablePointer<UInt8>.allocate(capacity: max(text.utf8.count, 1))
            for (index, byte) in text.utf8.enumerated() { pointer[index] = byte }
            storage.append(pointer)
            return pointer
        }
        let fields = headers.map { name, value in
            nghttp2_nv(name: copy(name), value: copy(value), namelen: name.utf8.count, valuelen: value.utf8.count, flags: 0)
        }
        var provider = nghttp2_data_provider()
        provider.source.ptr = Unmanaged.passUnretained(body).toOpaque()
        provider.read_callback = { _, _, buffer, length, flags, source, _ in
            let body = Unmanaged<Body>.fromOpaque(source!.pointee.ptr).takeUnretainedValue()
            let count = min(length, body.bytes.count)
            for index in 0..<count { buffer![index] = body.bytes[index] }
            body.bytes.removeFirst(count)
            if body.bytes.isEmpty, body.ends { flags!.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue }
            return count == 0 && !body.ends ? Int(NGHTTP2_ERR_DEFERRED.rawValue) : count
        }
        let stream = nghttp2_submit_request(session.raw, nil, fields, fields.count, &provider, nil)
        last = stream
        try exchange()
        return answer
    }

    /// The stream of the last request, and what has come on it.
    private(set) var last: StreamID = 0
    var answer: Answer { session.answers[last] ?? Answer() }

    func reset() throws {
        session.reset(last, .cancel)
        try exchange()
    }

    /// Lets the server send as much more on the last stream.
    func widen(by bytes: Int) throws {
        session.consumeStream(last, bytes)
        session.consumeConnection(bytes)
        try exchange()
    }

    func exchange() throws {
        while true {
            let up = try SessionPair.output(of: session)
            try SessionPair.feed(up, to: server.session)
            let down = try SessionPair.output(of: server.session)
            try SessionPair.feed(down, to: session)
            if up.isEmpty && down.isEmpty { break }
        }
    }
}

@Suite struct RuleTests {
    @Test func requestWithoutTeOrUserAgentIsServed() throws {
        let client = RawClient()
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        let answer = try client.request(RawClient.headers(["te": nil]), body: framed([7]))
        #expect(answer[":status"] == "200")
        #expect(answer["content-type"] == "application/grpc")
        #expect(answer["grpc-status"] == "0")
        #expect(answer["grpc-message"] == nil)
        #expect(answer.body == framed([7]))
    }

    @Test func contentTypeWithSuffixIsServed() throws {
        let client = RawClient()
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        #expect(try client.request(RawClient.headers(["content-type": "application/grpc+proto"]), body: framed([]))["grpc-status"] == "0")
    }

    @Test func otherMethodsAreRefusedWith405() throws {
        let answer = try RawClient().request(RawClient.headers([":method": "GET"]), body: [])
        #expect(answer[":status"] == "405")
        #expect(answer.isClosed)
    }

    @Test func otherContentTypesAreRefusedWith415() throws {
        let client = RawClient()
        #expect(try client.request(RawClient.headers(["content-type": "text/plain"]), body: framed([]))[":status"] == "415")
        #expect(try client.request(RawClient.headers(["content-type": nil]), body: framed([]))[":status"] == "415")
        #expect(try client.request(RawClient.headers(["content-type": "application/grpcish"]), body: framed([]))[":status"] == "415")
        #expect(client.server.events.isEmpty)
    }

    @Test func unknownServiceAndMethodHaveGRPCsTexts() throws {
        let client = RawClient()
        let service = try client.request(RawClient.headers([":path": "/other.Service/X"]), body: framed([]))
        #expect(service["grpc-status"] == "12")
        #expect(service["grpc-message"] == "unknown service other.Service")
        let method = try client.request(RawClient.headers([":path": "/test.Echo/Other"]), body: framed([]))
        #expect(method["grpc-message"] == "unknown method Other for service test.Echo")
        let odd = try client.request(RawClient.headers([":path": "/nothing"]), body: framed([]))
        #expect(odd["grpc-status"] == "12")
        #expect(client.server.events.isEmpty)
    }

    @Test func trailersOnlyAnswerIsOneHeaderBlock() throws {
        let client = RawClient()
        client.server.onCall = { session, stream, _ in session.finish(stream, .notFound, "50% of ünïcode\n") }
        let answer = try client.request(RawClient.headers(), body: framed([]))
        #expect(answer.headers.map(\.0) == [":status", "content-type", "grpc-status", "grpc-message"])
        #expect(answer["grpc-message"] == "50%25 of %C3%BCn%C3%AFcode%0A")
        #expect(answer.body.isEmpty)
    }

    @Test func messageAboveTheLimitIsRefusedByItsAnnouncedLength() throws {
        let client = RawClient(server: RecordingServer(maxReceiveMessageBytes: 1_000))
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: []) }
        #expect(try client.request(RawClient.headers(), body: framed([UInt8](repeating: 0, count: 1_000)))["grpc-status"] == "0")
        let answer = try client.request(RawClient.headers(), body: framed([UInt8](repeating: 0, count: 1_001)))
        #expect(answer["grpc-status"] == "8")
        #expect(answer["grpc-message"] == "grpc: received message larger than max (1001 vs. 1000)")
        // Larger than every window: the refusal does not wait for the rest.
        let huge = try client.request(RawClient.headers(), body: framed([UInt8](repeating: 0, count: 3 << 20)))
        #expect(huge["grpc-message"] == "grpc: received message larger than max (3145728 vs. 1000)")
    }

    @Test func compressionThatWasNotNamedIsRefused() throws {
        let client = RawClient()
        let plain = try client.request(RawClient.headers(), body: framed([1], flag: 1))
        #expect(plain["grpc-status"] == "13")
        #expect(plain["grpc-message"] == "grpc: compressed flag set with identity or empty encoding")
        let unknown = try client.request(RawClient.headers(["grpc-encoding": "snappy"]), body: framed([1]))
        #expect(unknown["grpc-status"] == "12")
        #expect(unknown["grpc-message"] == "grpc: Decompressor is not installed for grpc-encoding \"snappy\"")
        #expect(unknown["grpc-accept-encoding"] == "identity,gzip")
        let odd = try client.request(RawClient.headers(), body: framed([1], flag: 7))
        #expect(odd["grpc-message"] == "grpc: received unexpected payload format 7")
        #expect(client.server.events.isEmpty)
    }

    @Test func gzipMessagesAreUnderstoodAndAnsweredInKind() throws {
        let client = RawClient()
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        let headers = RawClient.headers(["grpc-encoding": "gzip"])
        // Of Python's gzip. A small answer is not worth it.
        let small = try client.request(headers, body: framed([31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 99, 100, 98, 6, 0, 29, 128, 188, 85, 3, 0, 0, 0], flag: 1))
        #expect(small["grpc-status"] == "0" && small["grpc-encoding"] == "gzip" && small.body == framed([1, 2, 3]))
        let text = Array(String(repeating: "what repeats gets small ", count: 4_000).utf8)
        let packed = try #require(Gzip.compress(text))
        #expect(packed.count < text.count / 10)
        let large = try client.request(headers, body: framed(packed, flag: 1))
        #expect(large["grpc-status"] == "0" && large.body.first == 1 && large.body.count < text.count / 10)
        let answered = try large.body.dropFirst(5).withUnsafeBytes { raw throws in try Gzip.decompress(raw, limit: 1 << 20) }
        #expect(answered == text)
        // Without compression in the request there is none in the answer.
        #expect(try client.request(RawClient.headers(), body: framed(text)).body == framed(text))
    }

    @Test func gzipBombsAndDamageAreRefused() throws {
        let server = RecordingServer(maxReceiveMessageBytes: 1_000)
        let client = RawClient(server: server)
        let headers = RawClient.headers(["grpc-encoding": "gzip"])
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: []) }
        let bomb = try #require(Gzip.compress([UInt8](repeating: 0, count: 250_000)))
        #expect(bomb.count <= 1_000, "it passes the limit of what arrives: \(bomb.count)")
        let refused = try client.request(headers, body: framed(bomb, flag: 1))
        #expect(refused["grpc-status"] == "8")
        #expect(refused["grpc-message"] == "grpc: received message after decompression larger than max (1001 vs. 1000)")
        for damaged in [[], [1, 2, 3], Array(bomb.dropLast(9)), Array(bomb.dropLast(8)) + [UInt8](repeating: 9, count: 8), [UInt8](repeating: 0x1f, count: 40)] {
            let answer = try client.request(headers, body: framed(damaged, flag: 1))
            #expect(["13", "8"].contains(answer["grpc-status"]), "\(damaged.prefix(4)) \(answer["grpc-message"] ?? "")")
        }
        #expect(try client.request(headers, body: framed([31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 99, 100, 98, 6, 0, 29, 128, 188, 86, 3, 0, 0, 0], flag: 1))["grpc-message"]
            == "grpc: failed to decompress the received message: gzip: invalid checksum")
        #expect(try client.request(headers, body: framed([31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 99, 100], flag: 1))["grpc-message"]
            == "grpc: failed to decompress the received message: unexpected EOF")
        #expect(client.server.events.isEmpty)
    }

    @Test(arguments: [0, 1, 999, 1_000, 1_023, 1_024, 5_000, 100_000]) func gzipKeepsEveryByteAndItsLimit(count: Int) throws {
        var generator = SeededGenerator(seed: UInt64(count))
        // Half of it repeats.
        let plain = (0..<count).map { $0 % 64 < 32 ? UInt8(truncatingIfNeeded: $0 / 7) : UInt8(truncatingIfNeeded: generator.next()) }
        guard let packed = Gzip.compress(plain) else {
            #expect(count < Gzip.leastBytes)
            return
        }
        #expect(try packed.withUnsafeBytes { raw throws in try Gzip.decompress(raw, limit: count) } == plain)
        #expect(throws: Gzip.Fault.tooLarge) { try packed.withUnsafeBytes { raw throws in try Gzip.decompress(raw, limit: count - 1) } }
        // Members one behind the other are one stream.
        #expect(try (packed + packed).withUnsafeBytes { raw throws in try Gzip.decompress(raw, limit: 2 * count) } == plain + plain)
    }

    @Test func uncompressedMessageUnderGzipEncodingIsServed() throws {
        let client = RawClient()
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        #expect(try client.request(RawClient.headers(["grpc-encoding": "gzip"]), body: framed([1]))["grpc-status"] == "0")
    }

    @Test func callWithoutMessageIsAnError() throws {
        let client = RawClient()
        #expect(try client.request(RawClient.headers(), body: [])["grpc-status"] == "13")
        #expect(try client.request(RawClient.headers(), body: [0, 0, 0, 0, 9, 1])["grpc-message"] == "unexpected EOF")
    }

    @Test func truncatedStreamMessageCancelsTheCall() throws {
        let client = RawClient()
        let answer = try client.request(RawClient.headers([":path": "/test.Echo/Chat"]), body: [0, 0, 0, 0, 9, 1])
        #expect(answer["grpc-status"] == "13")
        #expect(client.server.events == [.opened(1, method: 2), .cancelled(1)])
    }

    @Test func malformedTimeoutIsRefused() throws {
        let answer = try RawClient().request(RawClient.headers(["grpc-timeout": "soon"]), body: framed([]))
        #expect(answer[":status"] == "400")
    }

    @Test func headerBlockAboveTheLimitResetsTheStreamOnly() throws {
        var settings = HTTP2Settings()
        settings.maxHeaderListBytes = 20_000
        let client = RawClient(server: RecordingServer(settings: settings))
        client.server.onCall = { session, stream, request in session.respondUnary(stream, message: request) }
        var many = RawClient.headers()
        for index in 0..<40 { many.append(("x-\(index)", String(repeating: "v", count: 1_500 + index))) }
        #expect(try client.request(many, body: framed([]))["grpc-status"] == nil)
        #expect(client.server.events.isEmpty)
        #expect(try client.request(RawClient.headers(), body: framed([]))["grpc-status"] == "0")
    }

    @Test func pathsAreFoundByTheirBytes() {
        let paths = ["/a.B/C", "/a.B/D", "/x/y", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/q.W/Range"]
        let table = MethodTable(paths.map { ($0, .unary) })
        for (index, path) in paths.enumerated() {
            #expect(Array(path.utf8).withUnsafeBytes { table.find($0) } == UInt16(index))
            #expect(Array((path + "x").utf8).withUnsafeBytes { table.find($0) } == nil)
            #expect(Array(path.utf8.dropLast()).withUnsafeBytes { table.find($0) } == nil)
        }
        #expect([UInt8]().withUnsafeBytes { table.find($0) } == nil)
    }

    @Test func timeoutsParseAndPrint() {
        func parse(_ text: String) -> TimeSpan? { Array(text.utf8).withUnsafeBytes(TimeoutHeader.parse) }
        #expect(parse("5S") == .seconds(5))
        #expect(parse("250m") == .milliseconds(250))
        #expect(parse("7u") == .microseconds(7))
        #expect(parse("9n") == TimeSpan(nanoseconds: 9))
        #expect(parse("2M") == .seconds(120))
        #expect(parse("99999999H") == TimeSpan(nanoseconds: .max))
        for bad in ["", "5", "S", "-1S", "1x", "123456789S", "1.5S", " 1S"] { #expect(parse(bad) == nil, "\(bad)") }
        for span in [0, 1, 999, 100_000_000, 123_456_789_012, 3_600_000_000_000, 90_061_000_000_001] {
            let text = TimeoutHeader.format(TimeSpan(nanoseconds: Int64(span)))
            #expect(text.count <= 9)
            let back = text.withUnsafeBytes(TimeoutHeader.parse)
            // Rounded up, by little: the next coarser unit is at most a thousand times as long.
            #expect(back.map { $0.nanoseconds >= Int64(span) && $0.nanoseconds - Int64(span) <= Int64(span) / 50_000 } == true, "\(span)")
        }
    }

    @Test func statusTextsSurviveTheirEncoding() {
        for text in ["", "plain", "100%", "%41", "a%2", "snow ☃ and \u{0}\u{7f}\n", "etcdserver: mvcc: required revision has been compacted"] {
            let encoded = StatusMessage.encode(text)
            #expect(encoded.allSatisfy { $0 >= 0x20 && $0 <= 0x7e })
            #expect(encoded.withUnsafeBytes(StatusMessage.decode) == text)
        }
        #expect(Array("%zz%4".utf8).withUnsafeBytes(StatusMessage.decode) == "%zz%4")
    }
}
