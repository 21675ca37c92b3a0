import Auth
import Base
import Logging
import NIOCore
import Replica
import Store
import Testing
import Wire
@testable import Server

/// The JSON gateway over real sockets, before a scripted member.
@Suite struct APIGatewayTests {
    struct Answer {
        var status = ""
        var headers: [String: String] = [:]
        var body = ""

        /// The first answer in what a server sent, chunks put together.
        init(_ text: String) {
            let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
            let end = lines.firstIndex(of: "") ?? lines.endIndex
            status = lines.first.map { String($0.dropFirst(9)) } ?? ""
            for line in lines[..<end].dropFirst() {
                let sides = line.split(separator: ":", maxSplits: 1)
                headers[sides[0].lowercased()] = sides.count > 1 ? sides[1].drop { $0 == " " }.description : ""
            }
            let rest = lines.dropFirst(end + 1).joined(separator: "\r\n")
            guard headers["transfer-encoding"] == "chunked" else {
                body = rest
                return
            }
            var bytes = Array(rest.utf8)[...]
            while let line = bytes.firstIndex(of: 13), let count = Int(String(decoding: bytes[..<line], as: UTF8.self), radix: 16), count > 0 {
                body += String(decoding: bytes[(line + 2)...].prefix(count), as: UTF8.self)
                bytes = bytes[(line + 2)...].dropFirst(count + 2)
            }
        }
    }

    private func post(_ bed: TestBed, _ path: String, _ body: String, headers: String = "") async throws -> Answer {
        Answer(try await RawConnection.exchange(bed.port, group: bed.group,
            "POST \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\(headers)\r\n\(body)"))
    }

    /// Waits until the connection has got as many lines.
    private func lines(_ collector: RawConnection.Collector, _ count: Int) async -> [String] {
        #expect(await eventually { Answer(collector.text).body.split(separator: "\n").count >= count }, "\(collector.text)")
        return Answer(collector.text).body.split(separator: "\n").map(String.init)
    }

    private static let header = #""header":{"cluster_id":"3567","member_id":"2748","revision":""#

    // MARK: Unary calls

    @Test func callsGoToTheMemberAndBack() async throws {
        try await TestBed.run { bed in
            let put = try await post(bed, "/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#)
            #expect(put.status == "200 OK")
            #expect(put.headers["content-type"] == "application/json" && put.headers["grpc-metadata-content-type"] == "application/grpc")
            #expect(put.headers["access-control-allow-origin"] == "*" && put.headers["date"] != nil)
            #expect(put.body == "{\(Self.header)2\",\"raft_term\":\"7\"}}")
            let range = try await post(bed, "/v3beta/kv/range", #"{"key":"Zm9v"}"#)
            #expect(range.body == "{\(Self.header)2\",\"raft_term\":\"7\"},"
                + #""kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}],"count":"1"}"#)
            let empty = try await post(bed, "/v3/kv/range", "")
            #expect(empty.status == "400 Bad Request" && empty.headers["grpc-metadata-content-type"] == nil)
            #expect(empty.body == #"{"error":"etcdserver: key is not provided","code":3,"message":"etcdserver: key is not provided"}"#)
            #expect(try await post(bed, "/v3/cluster/member/remove", #"{"ID":5}"#).status == "404 Not Found")
            #expect(try await post(bed, "/v3/lease/leases", "{}").body.hasSuffix(#""leases":[{"ID":"5"},{"ID":"-6"}]}"#))
        }
    }

    @Test func whoAsksIsSaidByHeaders() async throws {
        try await TestBed.run { bed in
            for header in ["Authorization: tok.1\r\n", "Authorization: Bearer tok.1\r\n", "Grpc-Metadata-Token: tok.1\r\n"] {
                _ = try await post(bed, "/v3/kv/put", #"{"key":"Zm9v"}"#, headers: header)
                guard case .request(_, .propose, _, .token(let token))? = bed.member.events.last else {
                    Issue.record("\(bed.member.events)")
                    return
                }
                #expect(String(decoding: token, as: UTF8.self) == "tok.1")
            }
            _ = try await post(bed, "/v3/kv/put", #"{"key":"Zm9v"}"#, headers: "Grpc-Metadata-Hasleader: true\r\nGrpc-Metadata-Nonsense: x\r\n")
            guard case .request(_, .propose, true, .none)? = bed.member.events.last else {
                Issue.record("\(bed.member.events)")
                return
            }
        }
    }

    @Test func deadlinesAreTheCallers() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let late = try await post(bed, "/v3/kv/range", #"{"key":"Zm9v"}"#, headers: "Grpc-Timeout: 50m\r\n")
            #expect(late.status == "504 Gateway Timeout")
            #expect(late.body == #"{"error":"context deadline exceeded","code":4,"message":"context deadline exceeded"}"#)
            #expect(await eventually { bed.member.events.contains { if case .cancel = $0 { true } else { false } } })
            for past in ["-1n", "-1000000H", "-9223372036854775808H"] {
                #expect(try await post(bed, "/v3/kv/range", "{}", headers: "Grpc-Timeout: \(past)\r\n").status == "504 Gateway Timeout")
            }
            #expect(try await post(bed, "/v3/kv/range", "{}", headers: "Grpc-Timeout: 5x\r\n").body
                == #"{"error":"invalid grpc-timeout: 5x","code":3,"message":"invalid grpc-timeout: 5x"}"#)
        }
    }

    @Test func aClientThatLeavesCallsItsCallOff() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let (channel, _) = try await RawConnection.open(bed.port, group: bed.group)
            try await channel.writeAndFlush(ByteBuffer(string: "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"key\":\"Zm9v\"}")).get()
            #expect(await eventually { !bed.member.events.isEmpty })
            try await channel.close()
            #expect(await eventually { bed.member.events.contains { if case .cancel = $0 { true } else { false } } })
        }
    }

    // MARK: Streams

    private func serveWatches(_ bed: TestBed) async throws {
        try await bed.member.setScript { event, member in
            guard case .watch(let stream, .request(let request)) = event else { return false }
            guard case .create(let create) = request else { return true }
            var response = WatchResponse(headerRevision: Revision(5), watchID: create.watchID == .automatic ? WatchID(0) : create.watchID)
            response.created = true
            member.emit([response], on: stream)
            return true
        }
    }

    @Test func aWatchGoesOnBehindItsBodyUntilTheClientLeaves() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group)
            try await channel.writeAndFlush(ByteBuffer(string: "POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                + "10\r\n{\"create_request\r\n11\r\n\":{\"key\":\"YQ==\"}}\r\n")).get()
            #expect(await lines(collector, 1) == ["{\"result\":{\(Self.header)5\",\"raft_term\":\"7\"},\"created\":true}}"])
            #expect(Answer(collector.text).headers["content-type"] == "application/json")
            #expect(Answer(collector.text).headers["grpc-metadata-content-type"] == "application/grpc")
            // More requests in the same body, then its end.
            try await channel.writeAndFlush(ByteBuffer(string: "2d\r\n{\"create_request\":{\"watch_id\":7}} and garbage\r\n0\r\n\r\n")).get()
            #expect(await lines(collector, 2)[1].contains(#""watch_id":"7","created":true"#))
            guard case .watch(let stream, .open)? = bed.member.events.first else {
                Issue.record("\(bed.member.events)")
                return
            }
            let event = WatchEvent(isDelete: true, kv: [0x0a, 0x01, 0x61])
            bed.member.loop.execute { bed.member.emit([WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [event])], on: stream) }
            #expect(await lines(collector, 3)[2].hasSuffix(#""events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}"#))
            try await channel.close()
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
        }
    }

    @Test func aStreamThatFailsSaysSoInItsLastLine() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let (_, collector) = try await RawConnection.open(bed.port, group: bed.group, sending: Self.watch)
            _ = await lines(collector, 1)
            guard case .watch(let stream, .open)? = bed.member.events.first else { return }
            bed.member.loop.execute { bed.member.endLeaderless(stream) }
            #expect(await eventually { collector.text.hasSuffix("0\r\n\r\n") })
            let answer = Answer(collector.text)
            #expect(answer.status == "200 OK")
            #expect(answer.body.hasSuffix("}\n" + #"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#))
            // Before the first line it is an answer like another, unless nothing was asked.
            let nothing = try await post(bed, "/v3/watch", "", headers: "Grpc-Timeout: 20m\r\n")
            #expect(nothing.status == "504 Gateway Timeout" && nothing.headers["grpc-metadata-content-type"] == nil)
            #expect(nothing.body == #"{"error":{"grpc_code":4,"http_code":504,"message":"context deadline exceeded","http_status":"Gateway Timeout"}}"#)
            let early = try await post(bed, "/v3/watch", #"{"cancel_request":{}}"#, headers: "Grpc-Timeout: 20m\r\n")
            #expect(early.body == #"{"error":"context deadline exceeded","code":4,"message":"context deadline exceeded"}"#)
            let garbage = try await post(bed, "/v3/watch", "garbage")
            #expect(garbage.status == "500 Internal Server Error" && garbage.body.contains(#""code":2"#))
        }
    }

    private static let watch = "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 33\r\n\r\n{\"create_request\":{\"key\":\"YWFh\"}}"

    @Test func keepAlivesAreAnsweredOneByOneAndEndWithTheBody() async throws {
        try await TestBed.run { bed in
            let answer = try await post(bed, "/v3/lease/keepalive", #"{"ID":"77"} {"ID":404}"#)
            #expect(answer.status == "200 OK" && answer.headers["transfer-encoding"] == "chunked")
            let lines = answer.body.split(separator: "\n")
            #expect(lines.count == 2)
            #expect(lines.first?.hasSuffix(#""ID":"77","TTL":"60"}}"#) ?? false)
            #expect(lines.last?.hasSuffix(#""ID":"404"}}"#) ?? false)
            let empty = try await post(bed, "/v3/lease/keepalive", "")
            #expect(empty.status == "200 OK" && empty.body == "" && empty.headers["grpc-metadata-content-type"] == nil)
        }
    }

    /// A client that does not read stops the member, not the server's memory.
    @Test func aSlowReaderHoldsTheMemberBack() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group, sending: Self.watch)
            _ = await lines(collector, 1)
            guard case .watch(let stream, .open)? = bed.member.events.first else { return }
            func credit() -> Int {
                bed.member.events.reduce(0) { if case .watch(_, .delivered(let responses, _)) = $1 { $0 + responses } else { $0 } }
            }
            #expect(await eventually { credit() == 1 })
            try await channel.setOption(.autoRead, value: false).get()
            var kv = ByteWriter()
            kv.writeField(5, [UInt8](repeating: 7, count: 20_000))
            let event = WatchEvent(isDelete: false, kv: kv.bytes)
            let response = WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [event])
            bed.member.loop.execute { bed.member.emit(Array(repeating: response, count: 1_000), on: stream) }
            // 20 MB of events, 27 MB of JSON: the sockets take at most some MB, a stream's window one more.
            #expect(await eventually { credit() > 10 })
            #expect(credit() < 500)
            try await channel.setOption(.autoRead, value: true).get()
            #expect(await eventually(within: .seconds(60)) { credit() == 1_001 })
            try await channel.close()
        }
    }

    // MARK: HTTP

    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        try await TestBed.run { bed in
            let body = #"{"key":"Zm9v"}"#
            let put = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
            let version = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
            let bad = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n!"
            let last = "GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            let text = try await RawConnection.exchange(bed.port, group: bed.group, put + version + bad + put + String(repeating: bad, count: 2_000) + last)
            let statuses = text.split(separator: "\r\n").filter { $0.contains("HTTP/1.1 ") }.map { $0.suffix(from: $0.firstRange(of: "HTTP/1.1 ")!.upperBound) }
            #expect(statuses.count == 2_005)
            #expect(statuses.prefix(5) == ["200 OK", "200 OK", "400 Bad Request", "200 OK", "400 Bad Request"])
            #expect(statuses.last == "404 Not Found")
        }
    }

    @Test func aBodyMayBeAskedForAndComeInChunks() async throws {
        try await TestBed.run { bed in
            let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group)
            try await channel.writeAndFlush(ByteBuffer(string: "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")).get()
            #expect(await eventually { collector.text == "HTTP/1.1 100 Continue\r\n\r\n" }, "\(collector.text)")
            try await channel.writeAndFlush(ByteBuffer(string: "5\r\n{\"key\r\n9\r\n\":\"YQ==\"}\r\n0\r\n\r\n")).get()
            try await channel.closeFuture.get()
            #expect(collector.text.contains("HTTP/1.1 200 OK"))
            let other = try await RawConnection.exchange(bed.port, group: bed.group, "GET /version HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n")
            #expect(other.hasPrefix("HTTP/1.1 417 Expectation Failed\r\n"))
        }
    }

    @Test func whatIsNoRequestIsRefusedAsByGo() async throws {
        var bounds = ClientBounds()
        bounds.maxHTTPHeadBytes = 4_096
        try await TestBed.run(bounds: bounds) { bed in
            func exchange(_ text: String) async throws -> Answer { Answer(try await RawConnection.exchange(bed.port, group: bed.group, text)) }
            let nameless = try await exchange("GET /version HTTP/1.1\r\n\r\n")
            #expect(nameless.status.hasPrefix("400 ") && nameless.body == "400 Bad Request: missing required Host header")
            let bad = try await exchange("GET /version HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n")
            #expect(bad.status == "400 Bad Request" && bad.body == "400 Bad Request")
            let large = try await exchange("GET /version HTTP/1.1\r\nHost: x\r\nBig: \(String(repeating: "a", count: 10_000))\r\n\r\n")
            #expect(large.status == "431 Request Header Fields Too Large")
            let many = try await exchange("GET /version HTTP/1.1\r\nHost: x\r\n\(String(repeating: "A: b\r\n", count: 3_000))\r\n")
            #expect(many.status == "431 Request Header Fields Too Large")
            #expect(try await exchange("GET /health%zz HTTP/1.1\r\nHost: x\r\n\r\n").status == "400 Bad Request")
        }
    }

    @Test func bodiesBeyondEveryMessageAreRefusedBeforeTheyAreThere() async throws {
        var options = ReplicaOptions()
        options.maxRequestBytes = 10_000
        var bounds = ClientBounds()
        bounds.requestOverheadBytes = 1_000
        try await TestBed.run(options: options, bounds: bounds) { bed in
            let answer = Answer(try await RawConnection.exchange(bed.port, group: bed.group,
                "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{\"key\":\"" + String(repeating: "A", count: 30_000)))
            #expect(answer.status == "413 Payload Too Large" && answer.headers["connection"] == "close")
            // What fits is gRPC's to refuse, in its words.
            let message = try await post(bed, "/v3/kv/put", "{\"key\":\"\(String(repeating: "AAAA", count: 4_000))\"}")
            #expect(message.status == "429 Too Many Requests" && message.body.contains("grpc: received message larger than max (12003 vs. 11000)"))
            // A stream's value that has no end.
            let endless = Answer(try await RawConnection.exchange(bed.port, group: bed.group,
                "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{\"x\":\"" + String(repeating: "A", count: 30_000)))
            #expect(endless.status == "413 Payload Too Large")
        }
    }

    @Test func pathsAreCleanedByRedirection() async throws {
        try await TestBed.run { bed in
            let redirected = Answer(try await RawConnection.exchange(bed.port, group: bed.group, "GET //a/../health?x=1&y=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            #expect(redirected.status == "301 Moved Permanently" && redirected.headers["location"] == "/health?x=1&y=2")
            #expect(redirected.body == "<a href=\"/health?x=1&amp;y=2\">Moved Permanently</a>.\n\n")
            let posted = try await post(bed, "/v3", "{}")
            #expect(posted.headers["location"] == "/v3/" && posted.body == "" && posted.headers["content-type"] == nil)
        }
    }

    @Test func aDrainedServerEndsStreamsAndFinishesCalls() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let (watch, watched) = try await RawConnection.open(bed.port, group: bed.group, sending: Self.watch)
            let (idle, _) = try await RawConnection.open(bed.port, group: bed.group, sending: "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            _ = await lines(watched, 1)
            await bed.listener.close(within: .seconds(60))
            try await watch.closeFuture.get()
            try await idle.closeFuture.get()
            #expect(Answer(watched.text).body.hasSuffix(#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: server stopped","http_status":"Service Unavailable"}}"#))
        }
    }

    @Test func aPausedServerPausesItsGateway() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group, sending: Self.watch)
            _ = await lines(collector, 1)
            guard case .watch(let stream, .open)? = bed.member.events.first else { return }
            try await bed.listener.setPaused(true).get()
            bed.member.loop.execute { bed.member.emit([WatchResponse(headerRevision: Revision(9), watchID: WatchID(0))], on: stream) }
            try await bed.listener.setPaused(false).get()
            #expect(await lines(collector, 2)[1].contains(#""revision":"9""#))
            try await channel.close()
        }
    }

    // MARK: The port for metrics

    @Test func aPortOfMetricsServesNothingElse() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            _ = await client.call(.put, putRequest("k", "v"))
            let metrics = try await ClientListener.start(port: bed.member, group: bed.group, host: "127.0.0.1", tcpPort: 0, surface: .metrics, counting: [bed.listener],
                                                         logger: Logger(label: "test"))
            func get(_ path: String) async throws -> Answer {
                Answer(try await RawConnection.exchange(metrics.boundPort, group: bed.group, "GET \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            }
            let page = try await get("/metrics")
            #expect(page.headers["access-control-allow-origin"] == nil)
            #expect(page.body.contains("grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n"))
            #expect(try await get("/health").body == #"{"health":"true","reason":""}"#)
            #expect(try await get("/livez").body == "ok\n")
            #expect(try await get("/readyz/data_corruption?verbose").body == "[+]data_corruption ok\nok\n")
            #expect(try await get("/metrics").body.contains("etcd_server_healthchecks_total{name=\"data_corruption\",status=\"success\",type=\"readyz\"} 1\n"))
            for path in ["/version", "/v3/kv/range", "/debug/vars", "/"] { #expect(try await get(path).body == "404 page not found\n") }
            // gRPC is not spoken here.
            let preface = try await RawConnection.exchange(metrics.boundPort, group: bed.group, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            #expect(!preface.contains("200 OK"))
            await metrics.close()
        }
    }
}

extension RawConnection {
    fileprivate static func open(_ port: Int, group: any EventLoopGroup, sending text: String) async throws -> (any Channel, Collector) {
        let (channel, collector) = try await open(port, group: group)
        try await channel.writeAndFlush(ByteBuffer(string: text)).get()
        return (channel, collector)
    }
}
