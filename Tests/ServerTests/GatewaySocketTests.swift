import Base
import NIOCore
import Replica
import Store
import Testing
@testable import Server

/// The gateway's calls over WebSockets, before a scripted member. What etcd's clients hear is compared in `HTTPOverTLSTests`.
@Suite struct GatewaySocketTests {
    private static func opening(_ path: String, _ fields: String = "", host: String = "x") -> String {
        "GET \(path) HTTP/1.1\r\nHost: \(host)\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\(fields)\r\n"
    }

    /// A client's frame; its mask changes nothing.
    private static func frame(_ text: String, opcode: UInt8 = 1, announcing length: Int? = nil) -> ByteBuffer {
        let count = length ?? text.utf8.count
        var buffer = ByteBuffer(bytes: [0x80 | opcode])
        if count < 126 { buffer.writeInteger(0x80 | UInt8(count)) } else {
            buffer.writeInteger(UInt8(0xff))
            buffer.writeInteger(UInt64(count))
        }
        buffer.writeInteger(UInt32(0))
        buffer.writeString(text)
        return buffer
    }

    private func open(_ bed: TestBed, _ path: String, _ fields: String = "") async throws -> (any Channel, RawConnection.Collector) {
        let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group)
        try await channel.writeAndFlush(ByteBuffer(string: Self.opening(path, fields))).get()
        #expect(await eventually { collector.text.hasPrefix("HTTP/1.1 101 Switching Protocols\r\n") && collector.text.contains("\r\n\r\n") }, "\(collector.text)")
        return (channel, collector)
    }

    private func serveWatches(_ bed: TestBed) async throws {
        try await bed.member.setScript { event, member in
            guard case .watch(let stream, .request(let request)) = event else { return false }
            guard case .create = request else { return true }
            var response = WatchResponse(headerRevision: Revision(5), watchID: WatchID(0))
            response.created = true
            member.emit([response], on: stream)
            return true
        }
    }

    private static let watch = #"{"create_request":{"key":"YWFh"}}"#

    private func watching(_ bed: TestBed) async throws -> (any Channel, RawConnection.Collector, WatchStreamID) {
        try await serveWatches(bed)
        let (channel, collector) = try await open(bed, "/v3/watch")
        try await channel.writeAndFlush(Self.frame(Self.watch)).get()
        #expect(await eventually { collector.text.hasSuffix(#""created":true}}"#) }, "\(collector.text)")
        for case .watch(let stream, .open) in bed.member.events { return (channel, collector, stream) }
        throw ChannelError.eof
    }

    @Test func aWatchIsToldUntilItsClientSaysGoodbye() async throws {
        try await TestBed.run { bed in
            let (channel, collector, stream) = try await watching(bed)
            bed.member.loop.execute { bed.member.emit([WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [WatchEvent(isDelete: true, kv: [0x0a, 0x01, 0x61])])], on: stream) }
            #expect(await eventually { collector.text.hasSuffix(#""events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}"#) })
            try await channel.writeAndFlush(Self.frame("\u{3}", opcode: 8)).get()
            try await channel.closeFuture.get()
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
        }
    }

    @Test func aClientThatIsGoneIsForgotten() async throws {
        try await TestBed.run { bed in
            let (channel, _, _) = try await watching(bed)
            try await channel.close()
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
        }
    }

    /// A call with one request is one message, and its answer another.
    @Test func otherCallsAreAnsweredAndEnd() async throws {
        try await TestBed.run { bed in
            for (path, request, answer) in [("/v3/kv/put", #"{"key":"Zm9v"}"#, #"{"header":{"#), ("/v3/kv/range", "!", #""code":3"#), ("/v3beta/maintenance/status", "{}", #""dbSize""#)] {
                let (channel, collector) = try await open(bed, path)
                try await channel.writeAndFlush(Self.frame(request)).get()
                try await channel.closeFuture.get()
                #expect(collector.text.contains(answer), "\(path) \(collector.text)")
            }
        }
    }

    @Test func whoAsksIsSaidBySubprotocolOrCookie() async throws {
        try await TestBed.run { bed in
            for field in ["Sec-WebSocket-Protocol: Bearer, tok.1\r\n", "Cookie: a=b; token=tok.1\r\n"] {
                let (channel, collector) = try await open(bed, "/v3/kv/put", field)
                #expect(collector.text.contains("Sec-WebSocket-Protocol: Bearer\r\n") == field.hasPrefix("Sec"))
                try await channel.writeAndFlush(Self.frame(#"{"key":"Zm9v"}"#)).get()
                try await channel.closeFuture.get()
                guard case .request(_, .propose, _, .token(let token))? = bed.member.events.last else {
                    Issue.record("\(bed.member.events)")
                    return
                }
                #expect(token == Array("tok.1".utf8))
            }
        }
    }

    @Test func aSlowReaderHoldsTheMemberBack() async throws {
        try await TestBed.run { bed in
            let (channel, _, stream) = try await watching(bed)
            func credit() -> Int {
                bed.member.events.reduce(0) { if case .watch(_, .delivered(let responses, _)) = $1 { $0 + responses } else { $0 } }
            }
            #expect(await eventually { credit() == 1 })
            try await channel.setOption(.autoRead, value: false).get()
            var kv = ByteWriter()
            kv.writeField(5, [UInt8](repeating: 7, count: 20_000))
            let response = WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [WatchEvent(isDelete: false, kv: kv.bytes)])
            bed.member.loop.execute { bed.member.emit(Array(repeating: response, count: 1_000), on: stream) }
            #expect(await eventually { credit() > 10 })
            #expect(credit() < 500)
            try await channel.setOption(.autoRead, value: true).get()
            #expect(await eventually(within: .seconds(60)) { credit() == 1_001 })
            try await channel.close()
        }
    }

    @Test func aDrainedServerSaysSoAndCloses() async throws {
        try await TestBed.run { bed in
            let (channel, collector, _) = try await watching(bed)
            let (silent, _) = try await open(bed, "/v3/kv/put")
            await bed.listener.close(within: .seconds(60))
            try await channel.closeFuture.get()
            try await silent.closeFuture.get()
            #expect(collector.text.contains("etcdserver: server stopped"))
        }
    }

    @Test func messagesAreBounded() async throws {
        var options = ReplicaOptions()
        options.maxRequestBytes = 10_000
        var bounds = ClientBounds()
        bounds.requestOverheadBytes = 1_000
        bounds.httpIdleTimeout = .milliseconds(200)
        try await TestBed.run(options: options, bounds: bounds) { bed in
            let (channel, _) = try await open(bed, "/v3/watch")
            try await channel.writeAndFlush(Self.frame("", announcing: 1 << 30)).get()
            try await channel.closeFuture.get()
            // Many messages that are no whole request together.
            let (other, collector) = try await open(bed, "/v3/watch")
            for _ in 0..<3 { try? await other.writeAndFlush(Self.frame("{\"x\":[" + String(repeating: "[1],", count: 2_500))).get() }
            try await other.closeFuture.get()
            #expect(collector.text.contains("request body is too large"))
            // One that asks nothing.
            let (silent, _) = try await open(bed, "/v3/kv/put")
            try await silent.closeFuture.get()
        }
    }

    /// What may not, or is no path of the gateway, is answered as the request that it is.
    @Test func onlyTheGatewaysPathsBecomeOne() async throws {
        var access = HTTPAccess()
        access.hosts = ["x"]
        try await TestBed.run(access: access) { bed in
            for (text, status) in [(Self.opening("/version"), "200 OK"), (Self.opening("/v3/nope"), "404 Not Found"), (Self.opening("//v3/watch"), "301 Moved Permanently"),
                                   (Self.opening("/v3/watch", host: "y"), "421 Misdirected Request"), (Self.opening("/v3/watch", host: "\""), "400 Bad Request: malformed Host header"),
                                   (Self.opening("/v3/watch").replacing("Version: 13", with: "Version: 12"), "405 Method Not Allowed")] {
                let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group)
                try await channel.writeAndFlush(ByteBuffer(string: text)).get()
                #expect(await eventually { collector.text.hasPrefix("HTTP/1.1 \(status)\r\n") }, "\(text) \(collector.text)")
                // Some are closed already.
                try? await channel.close()
            }
        }
    }
}
