import Base
import Client
@testable import GRPC
import NIOCore
import Replica
import Store
import TestCertificates
import Testing
import Wire
@testable import Server

/// The HTTP endpoints over HTTP/2 and TLS, before a scripted member.
@Suite(.serialized) struct HTTP2EndpointTests {
    private func run(options: ReplicaOptions = ReplicaOptions(), bounds: ClientBounds = ClientBounds(), surface: ClientSurface = .all, access: HTTPAccess = HTTPAccess(),
                     _ body: (TestBed, _ authority: String) async throws -> Void) async throws {
        try await withDirectory { directory in
            let authority = try TestAuthority(in: directory)
            let pair = try authority.issue("server", commonName: "server")
            var tls = TLSOptions()
            (tls.certificateFile, tls.keyFile) = (pair.certificate, pair.key)
            let log = WrittenLog()
            let material = TLSMaterial(side: .client, options: tls, rules: try NodeTLS().rules(), logger: log.logger)
            try material.load()
            var port = TLSPort(material: material)
            port.handshakeTimeout = .seconds(300)
            try await TestBed.run(options: options, bounds: bounds, tls: port, surface: surface, access: access, logger: log.logger) { try await body($0, authority.file) }
        }
    }

    private func connect(_ bed: TestBed, _ authority: String, window: Int32 = 1 << 20, reads: Bool = true) async throws -> HTTP2TestClient {
        try await HTTP2TestClient.connect(bed.port, group: bed.group, trusting: authority, window: window, reads: reads)
    }

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

    private func watchStream(_ bed: TestBed) -> WatchStreamID? {
        for case .watch(let stream, .open) in bed.member.events { return stream }
        return nil
    }

    private func lines(_ client: HTTP2TestClient, _ stream: StreamID, _ count: Int) async -> [String] {
        #expect(await eventually { client.answer(stream).lines.count >= count }, "\(client.answer(stream))")
        return client.answer(stream).lines
    }

    private static let put = #"{"key":"Zm9v","value":"YmFy"}"#
    private static let watch = #"{"create_request":{"key":"YWFh"}}"#

    @Test func endpointsAndCallsShareAConnectionsPort() async throws {
        try await run { bed, authority in
            let client = try await connect(bed, authority)
            let version = try await client.run("GET", "/version")
            #expect(version.status == "200" && version.body == "{\"etcdserver\":\"3.5.33\",\"etcdcluster\":\"3.5.0\"}" && version.resetCode == 0)
            #expect(version.fields["content-type"] == "application/json" && version.fields["content-length"] == "45")
            #expect(version.fields["access-control-allow-origin"] == "*" && version.fields["date"] != nil && version.fields["connection"] == nil)
            #expect(try await client.run("GET", "/health").body == #"{"health":"true","reason":""}"#)
            #expect(try await client.run("GET", "/readyz?verbose").body.hasSuffix("[+]non_learner ok\nok\n"))
            let put = try await client.run("POST", "/v3/kv/put", body: Self.put)
            #expect(put.status == "200" && put.fields["grpc-metadata-content-type"] == "application/grpc" && put.body.hasPrefix(#"{"header":{"#))
            #expect(try await client.run("POST", "/v3/kv/range", [("content-type", "application/grpc")], body: #"{"key":"Zm9v"}"#).body.contains(#""value":"YmFy""#))
            let bad = try await client.run("POST", "/v3/kv/put", body: "!")
            #expect(bad.status == "400" && bad.body.contains(#""code":3"#))
            #expect(try await client.run("POST", "/v3/lease/keepalive", body: #"{"ID":"77"} {"ID":404}"#).lines.count == 2)
            let head = try await client.run("HEAD", "/v3")
            #expect(head.status == "301" && head.fields["location"] == "/v3/" && head.body == "")
            #expect(try await client.run("GET", "/nowhere").status == "404")
            #expect(try await client.run("DELETE", "/version").fields["allow"] == "GET")
            #expect(try await client.run("OPTIONS", "/nowhere").status == "200")
            #expect(try await client.run("POST", "/etcdserverpb.KV/Put").status == "404")
            let metrics = try await client.run("GET", "/metrics")
            #expect(metrics.body.contains("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n"))
            #expect(metrics.fields["content-length"] == "\(metrics.body.utf8.count)")
            await client.close()
        }
    }

    @Test func manyRequestsOfOneConnectionAreAnsweredSideBySide() async throws {
        try await run { bed, authority in
            let client = try await connect(bed, authority)
            var streams: [StreamID] = []
            for n in 0..<200 {
                streams.append(n % 2 == 0 ? try await client.start("POST", "/v3/kv/put", body: Self.put) : try await client.start("GET", "/health"))
            }
            #expect(await eventually { streams.allSatisfy { client.answer($0).isClosed } })
            #expect(streams.allSatisfy { client.answer($0).status == "200" && client.answer($0).resetCode == 0 })
            await client.close()
        }
    }

    @Test func aWatchGoesOnBehindItsBodyUntilTheClientGivesUp() async throws {
        try await run { bed, authority in
            try await serveWatches(bed)
            let client = try await connect(bed, authority)
            let stream = try await client.start("POST", "/v3/watch", body: "{\"create_request", ends: false)
            try await client.send(stream, "\":{\"key\":\"YQ==\"}}")
            #expect(await lines(client, stream, 1)[0].hasSuffix(#""created":true}}"#))
            try await client.send(stream, #"{"create_request":{"watch_id":7}} and garbage"#, ends: true)
            #expect(await lines(client, stream, 2)[1].contains(#""watch_id":"7","created":true"#))
            let event = WatchEvent(isDelete: true, kv: [0x0a, 0x01, 0x61])
            let watch = try #require(watchStream(bed))
            bed.member.loop.execute { bed.member.emit([WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [event])], on: watch) }
            #expect(await lines(client, stream, 3)[2].hasSuffix(#""events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}"#))
            try await client.reset(stream)
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
            #expect(try await client.run("GET", "/version").status == "200")
            await client.close()
        }
    }

    @Test func aClientThatLeavesCallsItsCallsOff() async throws {
        try await run { bed, authority in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let client = try await connect(bed, authority)
            func cancels() -> Int { bed.member.events.count { if case .cancel = $0 { true } else { false } } }
            let first = try await client.start("POST", "/v3/kv/put", body: Self.put)
            #expect(await eventually { !bed.member.events.isEmpty })
            try await client.reset(first)
            #expect(await eventually { cancels() == 1 })
            for _ in 0..<3 { _ = try await client.start("POST", "/v3/kv/put", body: Self.put) }
            #expect(await eventually { bed.member.events.count == 5 })
            await client.close()
            #expect(await eventually { cancels() == 4 })
        }
    }

    /// A client that does not read one stream stops the member for it, and nothing else of the connection.
    @Test func aSlowReaderHoldsTheMemberBack() async throws {
        try await run { bed, authority in
            try await serveWatches(bed)
            let client = try await connect(bed, authority, window: 64 << 10, reads: false)
            let stream = try await client.start("POST", "/v3/watch", body: Self.watch)
            _ = await lines(client, stream, 1)
            let watch = try #require(watchStream(bed))
            func credit() -> Int {
                bed.member.events.reduce(0) { if case .watch(_, .delivered(let responses, _)) = $1 { $0 + responses } else { $0 } }
            }
            #expect(await eventually { credit() == 1 })
            var kv = ByteWriter()
            kv.writeField(5, [UInt8](repeating: 7, count: 20_000))
            let response = WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [WatchEvent(isDelete: false, kv: kv.bytes)])
            bed.member.loop.execute { bed.member.emit(Array(repeating: response, count: 1_000), on: watch) }
            #expect(await eventually { client.answer(stream).body.utf8.count >= 60_000 })
            // A stream's window, what waits ahead of it, and the gateway's own window: some 2 MB of 27.
            #expect(try await client.run("GET", "/version").status == "200")
            #expect(credit() < 200)
            try await client.read()
            #expect(await eventually(within: .seconds(60)) { credit() == 1_001 })
            #expect(await lines(client, stream, 1_001).count == 1_001)
            await client.close()
        }
    }

    @Test func oneConnectionHasSoManyRequestsOpen() async throws {
        var bounds = ClientBounds()
        bounds.maxHTTPStreams = 2
        try await run(bounds: bounds) { bed, authority in
            try await serveWatches(bed)
            let client = try await connect(bed, authority)
            let streams = [try await client.start("POST", "/v3/watch", body: Self.watch), try await client.start("POST", "/v3/watch", body: Self.watch)]
            for stream in streams { _ = await lines(client, stream, 1) }
            let refused = try await client.run("GET", "/version")
            #expect(refused.status == "" && refused.resetCode == HTTP2ErrorCode.refusedStream.rawValue)
            try await client.reset(streams[0])
            #expect(try await client.run("GET", "/version").status == "200")
            await client.close()
        }
    }

    @Test func requestsWithoutAnEndAreGivenUp() async throws {
        var bounds = ClientBounds()
        bounds.httpIdleTimeout = .milliseconds(50)
        try await run(bounds: bounds) { bed, authority in
            try await serveWatches(bed)
            let client = try await connect(bed, authority)
            let watch = try await client.start("POST", "/v3/watch", body: Self.watch)
            let late = try await client.start("POST", "/v3/kv/put", body: "{", ends: false)
            #expect(await eventually { client.answer(late).isClosed })
            #expect(client.answer(late).resetCode == HTTP2ErrorCode.cancel.rawValue && client.answer(late).status == "")
            // An answer may take its time, and the connection lives.
            #expect(await lines(client, watch, 1).count == 1 && !client.answer(watch).isClosed)
            #expect(try await client.run("GET", "/version").status == "200")
            await client.close()
        }
    }

    @Test func bodiesAreBoundedEachAndTogether() async throws {
        var options = ReplicaOptions()
        options.maxRequestBytes = 10_000
        var bounds = ClientBounds()
        bounds.requestOverheadBytes = 1_000
        bounds.maxPartialRequestBytes = 60_000
        try await run(options: options, bounds: bounds) { bed, authority in
            let client = try await connect(bed, authority)
            let more = String(repeating: "A", count: 15_000), start = "{\"key\":\"" + more
            for (path, text) in [("/v3/kv/put", start + more), ("/v3/watch", start + more), ("/version", String(repeating: "b", count: 70_000))] {
                let stream = try await client.start("POST", path, body: text, ends: false)
                #expect(await eventually { client.answer(stream).isClosed })
                #expect(client.answer(stream).status == "413" && client.answer(stream).resetCode == HTTP2ErrorCode.noError.rawValue, "\(path) \(client.answer(stream))")
            }
            // Each may be, all of them may not.
            for _ in 0..<6 { _ = try await client.start("POST", "/v3/kv/put", body: start, ends: false) }
            try await client.closed.get()
        }
    }

    @Test func aDrainedServerEndsStreamsAndFinishesCalls() async throws {
        try await run { bed, authority in
            try await serveWatches(bed)
            let client = try await connect(bed, authority)
            let stream = try await client.start("POST", "/v3/watch", body: Self.watch)
            _ = await lines(client, stream, 1)
            await bed.listener.close(within: .seconds(60))
            try await client.closed.get()
            #expect(client.answer(stream).body.hasSuffix(#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: server stopped","http_status":"Service Unavailable"}}"#))
        }
    }

    @Test func aPausedServerPausesThem() async throws {
        try await run { bed, authority in
            try await serveWatches(bed)
            let client = try await connect(bed, authority)
            let stream = try await client.start("POST", "/v3/watch", body: Self.watch)
            _ = await lines(client, stream, 1)
            let watch = try #require(watchStream(bed))
            try await bed.listener.setPaused(true).get()
            bed.member.loop.execute { bed.member.emit([WatchResponse(headerRevision: Revision(9), watchID: WatchID(0))], on: watch) }
            try await bed.listener.setPaused(false).get()
            #expect(await lines(client, stream, 2)[1].contains(#""revision":"9""#))
            await client.close()
        }
    }

    // MARK: Ports for one of both

    @Test func aPortForCallsHasNoEndpoints() async throws {
        try await run(surface: .calls) { bed, authority in
            let client = try await connect(bed, authority)
            #expect(try await client.run("GET", "/version").status == "405")
            #expect(try await client.run("POST", "/v3/kv/put", body: Self.put).status == "415")
            await client.close()
            var configuration = try ClientConfiguration("https://127.0.0.1:\(bed.port)")
            configuration.tls = .init(caFile: authority)
            let calls = try EtcdClient(configuration: configuration)
            try await calls.put("k", "v")
            await calls.close()
        }
        let log = WrittenLog()
        try await TestBed.run(surface: .calls, logger: log.logger) { bed in
            let nothing = try await RawConnection.exchange(bed.port, group: bed.group, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(nothing == "")
            #expect(await eventually { log.lines.contains { $0.contains("HTTP/1.1 to a port for gRPC alone: HTTP endpoints are at --listen-client-http-urls") } })
            let client = try await bed.client()
            #expect(await client.call(.put, putRequest("k", "v")).status.code == .ok)
        }
    }

    @Test func aPortForEndpointsHasNoCalls() async throws {
        for surface in [ClientSurface.http, .metrics] {
            try await run(surface: surface) { bed, authority in
                let client = try await connect(bed, authority)
                #expect(try await client.run("GET", "/health").status == "200")
                #expect(try await client.run("GET", "/version").status == (surface == .http ? "200" : "404"))
                #expect(try await client.run("POST", "/v3/kv/put", body: Self.put).status == (surface == .http ? "200" : "404"))
                #expect(try await client.run("POST", "/etcdserverpb.KV/Put", [("content-type", "application/grpc")]).status == "404")
                await client.close()
            }
        }
        let log = WrittenLog()
        try await TestBed.run(surface: .http, logger: log.logger) { bed in
            let nothing = try await RawConnection.exchange(bed.port, group: bed.group, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            #expect(nothing == "")
            #expect(await eventually { log.lines.contains { $0.contains("HTTP/2 without TLS to a port for HTTP endpoints alone: gRPC is at --listen-client-urls") } })
            let version = try await RawConnection.exchange(bed.port, group: bed.group, "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(version.hasPrefix("HTTP/1.1 200 OK"))
        }
    }

    /// Without TLS etcd leaves HTTP/2 to gRPC.
    @Test func withoutTLSThereAreNoEndpointsOverHTTP2() async throws {
        try await TestBed.run { bed in
            let call = try await bed.client().start(path: "/version")
            call.halfClose()
            #expect(await call.end().status.code == .unimplemented)
        }
    }
}

@Suite struct HTTPAccessTests {
    @Test func namesAreSplitFromTheirPortsAsGoDoes() {
        for (authority, name) in [("a", "a"), ("a:80", "a"), ("a:", "a"), (":80", ""), ("", ""), ("[::1]:3", "::1"), ("[::1]", "[::1]"), ("::1", "::1"), ("a:b:c", "a:b:c"),
                                  ("[a:80", "[a:80"), ("a]:80", "a]:80"), ("[[a]]:80", "[[a]]:80"), ("[]:80", ""), ("[:80", "[:80"), ("A.Example:1", "A.Example")] {
            #expect(HTTPAccess.hostname(authority) == name, "\(authority)")
        }
    }

    @Test func whoIsListedMayAndAnEmptyListIsEverybody() {
        var access = HTTPAccess()
        #expect(access.allows(host: "x") && access.allowedOrigin("http://x") == "*" && access.allowedOrigin("") == "*")
        (access.hosts, access.origins) = (["a", ""], ["http://a"])
        #expect(access.allows(host: "a") && access.allows(host: "") && !access.allows(host: "A") && !access.allows(host: "b"))
        #expect(access.allowedOrigin("http://a") == "http://a" && access.allowedOrigin("http://A") == nil && access.allowedOrigin("") == nil)
        (access.hosts, access.origins) = ([], [])
        #expect(access.allows(host: "b") && access.allowedOrigin("http://b") == "*")
    }

    @Test func aHostThatIsNoneIsRefused() async throws {
        var access = HTTPAccess()
        access.hosts = ["good.example"]
        try await TestBed.run(access: access) { bed in
            func get(_ target: String, _ headers: String) async throws -> String {
                try await RawConnection.exchange(bed.port, group: bed.group, "GET \(target) HTTP/1.1\r\nConnection: close\r\n\(headers)\r\n")
            }
            #expect(try await get("/version", "Host: good.example:1\r\n").hasPrefix("HTTP/1.1 200 "))
            let bad = try await get("/version", "Host: bad.example:1\r\n")
            #expect(bad.hasPrefix("HTTP/1.1 421 Misdirected Request\r\n") && bad.contains("--host-whitelist \"bad.example\"\n") && !bad.contains("Access-Control"))
            // A URL says it over the header.
            #expect(try await get("http://bad.example/version", "Host: good.example\r\n").hasPrefix("HTTP/1.1 421 "))
            #expect(try await get("http://good.example:7/version", "Host: bad.example\r\n").hasPrefix("HTTP/1.1 200 "))
            for (headers, words) in [("Host: bad\"host\r\n", "malformed Host header"), ("Host: é\r\n", "malformed Host header"), ("Host: a\r\nHost: good.example\r\n", "too many Host headers")] {
                let answer = try await get("/version", headers)
                #expect(answer.hasPrefix("HTTP/1.1 400 ") && answer.hasSuffix("400 Bad Request: \(words)"), "\(headers) \(answer)")
            }
        }
    }

    @Test func oneAddressServesCallsOrEndpoints() {
        var configuration = NodeConfiguration()
        configuration.listenClientHTTPURLs = [NodeURL(host: "localhost", port: 2381), NodeURL(host: "localhost", port: 2379)]
        let failure = #expect(throws: NodeError.self) { try configuration.validate() }
        #expect("\(failure!)".hasPrefix("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379"))
    }

    @Test func theGatewayCanBeLeftOut() async throws {
        var access = HTTPAccess()
        access.servesGateway = false
        try await TestBed.run(access: access) { bed in
            for path in ["/v3/kv/put", "/v3", "/v3/", "/v3beta/kv/put"] {
                let answer = try await RawConnection.exchange(bed.port, group: bed.group, "POST \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
                #expect(answer.hasPrefix("HTTP/1.1 404 ") && answer.hasSuffix("404 page not found\n"), "\(path) \(answer)")
            }
        }
    }
}
