import Foundation
import TestCertificates
import Testing

extension Integration {
    /// The HTTP endpoints over TLS, and who is let to them: curl's requests to real etcd and to our server, compared.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct HTTPOverTLSTests {}
}

/// curl on one server: many requests in one process, over one connection where HTTP/2 allows it.
private struct Curl {
    typealias Request = Integration.HTTPDifferentialTests.Request

    let base: String
    let flags: [String]
    let scratch: Scratch
    private static let number = Counter()

    /// The answers, in order; an empty status where there was none.
    func run(_ requests: [Request]) async throws -> [HTTPExchange.Answer] {
        var lines: [String] = []
        let stem = scratch.file("curl-\(Curl.number.increment())")
        for (index, request) in requests.enumerated() {
            if index > 0 { lines.append("next") }
            lines += ["url = \"\(base)\(request.path)\"", "path-as-is", "silent", "globoff", "max-time = 30", "include", "output = \"\(stem).\(index)\"", "header = \"Expect:\""] + flags
            lines += request.headers.map { "header = \"\($0)\"" }
            lines.append(request.method == "HEAD" ? "head" : "request = \"\(request.method)\"")
            if let body = request.body {
                try Data(body.utf8).write(to: URL(fileURLWithPath: "\(stem).\(index).body"))
                // Curl would say it is a form.
                if !request.headers.contains(where: { $0.hasPrefix("Content-Type") }) { lines.append("header = \"Content-Type:\"") }
                lines.append("data-binary = \"@\(stem).\(index).body\"")
            }
        }
        try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: stem))
        let process = try ChildProcess(["curl", "-K", stem], in: scratch)
        _ = try await process.exit(seconds: 120)
        return requests.indices.map { index in Curl.answer((try? Data(contentsOf: URL(fileURLWithPath: "\(stem).\(index)"))) ?? Data()) }
    }

    /// A request whose answer has no end: its first lines.
    func lines(_ count: Int, of request: Request) async throws -> [String] {
        let process = try ChildProcess(["curl", "-sN", "--max-time", "60", "-X", request.method, "-d", request.body ?? "", base + request.path]
            + flags.flatMap { line in
                let sides = line.components(separatedBy: " = ")
                return ["--" + sides[0]] + sides.dropFirst().map { $0.trimmingCharacters(in: ["\""]) }
            }, in: scratch)
        try await eventually("\(count) lines of \(request): \(process.output)\(process.errors)") { process.output.split(separator: "\n").count >= count }
        try await process.killNow()
        return process.output.split(separator: "\n").prefix(count).map(String.init)
    }

    private static func answer(_ data: Data) -> HTTPExchange.Answer {
        // Written like a status line of HTTP/1.1, and without the framing that curl has undone already.
        let text = String(decoding: data, as: UTF8.self).replacingOccurrences(of: "HTTP/2 ", with: "HTTP/2.0 ", options: .anchored)
        return HTTPExchange.Answer(Array(text.replacingOccurrences(of: "Transfer-Encoding: chunked\r\n", with: "").utf8))
    }
}

extension Integration.HTTPOverTLSTests {
    fileprivate typealias Request = Integration.HTTPDifferentialTests.Request
    private typealias Script = Integration.HTTPDifferentialTests

    /// Runs the body with real etcd and with ours, each with these flags and a certificate.
    private func withBoth(_ flags: [String], _ scratch: Scratch, _ body: (_ server: SecureServer, _ name: String) async throws -> Void) async throws {
        for (name, program) in [("etcd", [try EtcdTools.path("etcd"), "--log-level", "error", "--unsafe-no-fsync"]), ("ours", [quarterdeck, "serve"])] {
            let server = try SecureServer(program, flags, in: scratch)
            do {
                try await server.waitUntilItListens()
                try await body(server, name)
            } catch {
                await server.kill()
                print("log of \(name):\n\(server.log.suffix(10_000))")
                throw error
            }
            await server.kill()
        }
    }

    private func waitUntilItAnswers(_ curl: Curl) async throws {
        try await eventually("an answer of \(curl.base)") { try await curl.run([Request(method: "GET", path: "/health")])[0].status.hasPrefix("200") }
    }

    /// The whole script of the JSON gateway and the other paths, over HTTP/2 as curl negotiates it.
    @Test func bothAnswerTheSameOverHTTP2() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server")
        // What is no URL: etcd resets the stream, we say 400. Bodies above the limit: curl sends on or not, as it comes.
        let script = (Script.keys + Script.badJSON + Script.leasesAndWatches + Script.administration + Script.routing)
            .filter { $0.lines == nil && $0.path != "/health%zz" && ($0.body?.utf8.count ?? 0) < 1 << 20 }
            .map { request in
                // Answered before its body has come, which curl may stumble over.
                var request = request
                if ["/v3", "/v3/auth//status", "/v3/kv/../auth/status?x=1"].contains(request.path) || request.headers == ["Grpc-Timeout: 1n"] { request.body = nil }
                return request
            }
        let watches = Script.leasesAndWatches.filter { $0.lines != nil }
        #expect(script.count > 240 && watches.count == 5)
        var answers: [[[String]]] = [], streams: [[[String]]] = []
        try await withBoth(["--cert-file", pair.certificate, "--key-file", pair.key], scratch) { server, name in
            let curl = Curl(base: server.url, flags: ["cacert = \"\(authority.file)\"", "http2"], scratch: scratch)
            try await waitUntilItAnswers(curl)
            #expect(try await curl.run([Request(method: "GET", path: "/version")])[0].body.contains("etcdcluster"))
            // Before authentication is on.
            var lines: [[String]] = []
            _ = try await curl.run(Script.keys.prefix(6).map { $0 })
            for watch in watches { lines.append(try await curl.lines(min(watch.lines!, 1), of: watch)) }
            streams.append(lines.map { $0.map { Script.normalised(body: $0) } })
            answers.append(try await curl.run(script).map(Script.normalised))
        }
        for (number, request) in script.enumerated() { #expect(answers[1][number] == answers[0][number], "request \(number): \(request)") }
        #expect(streams[1] == streams[0])
        #expect(answers[0].count { $0[0].hasPrefix("200") } > 90)
    }

    /// With `--client-cert-auth` and authentication the gateway refuses whoever has a name in the certificate, over either HTTP.
    @Test func namedCertificatesAreRefusedByTheGateway() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server"), root = try authority.issue("root", commonName: "root"), nameless = try authority.issue("nameless")
        let flags = ["--cert-file", pair.certificate, "--key-file", pair.key, "--client-cert-auth", "--trusted-ca-file", authority.file,
                     "--cors", "http://a.example:80", "--host-whitelist", "nobody"]
        let put = Request(path: "/v3/kv/put", body: #"{"key":"YQ==","value":"Yg=="}"#)
        let requests = [put, Request(path: "/v3beta/kv/range", body: #"{"key":"YQ=="}"#), Request(method: "GET", path: "/v3/nope"), Request(method: "GET", path: "/v3"),
                        Request(method: "OPTIONS", path: "/v3/kv/put"), Request(method: "OPTIONS", path: "/x"), Request(method: "GET", path: "/health"), Request(method: "GET", path: "/version"),
                        Request(method: "GET", path: "/version", headers: ["Origin: http://a.example:80"]), Request(method: "GET", path: "/version", headers: ["Origin: http://b:1"])]
        var answers: [[[String]]] = []
        try await withBoth(flags, scratch) { server, name in
            func curl(_ own: TestAuthority.Pair, _ version: String) -> Curl {
                Curl(base: server.url, flags: ["cacert = \"\(authority.file)\"", "cert = \"\(own.certificate)\"", "key = \"\(own.key)\"", version], scratch: scratch)
            }
            try await waitUntilItAnswers(curl(root, "http2"))
            var all = try await curl(root, "http2").run(requests)
            #expect(all[0].status.hasPrefix("200"))
            for command in [["user", "add", "root", "--no-password"], ["role", "add", "root"], ["user", "grant-role", "root", "root"], ["auth", "enable"]] {
                let result = try await server.ctl(scratch).run(["--cacert", authority.file, "--cert", root.certificate, "--key", root.key] + command)
                #expect(result.status == 0, "\(command): \(result.errors)")
            }
            for own in [root, nameless] {
                for version in ["http2", "http1.1"] { all += try await curl(own, version).run(requests) }
            }
            #expect(all[10].status.hasPrefix("400") && all[10].body == "CommonName of client sending a request against gateway will be ignored and not used as expected\n")
            answers.append(all.map(Script.normalised))
        }
        for (number, (theirs, ours)) in zip(answers[0], answers[1]).enumerated() { #expect(ours == theirs, "request \(number)") }
        #expect(answers[0].count == 50)
    }

    /// Lock and Election as etcdctl has them, with certificates and as the users that these name.
    @Test func locksAndElectionsWorkWithCertificates() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server"), alice = try authority.issue("alice", commonName: "alice"), root = try authority.issue("root", commonName: "root")
        try await withBoth(["--cert-file", pair.certificate, "--key-file", pair.key, "--client-cert-auth", "--trusted-ca-file", authority.file], scratch) { server, name in
            func flags(_ own: TestAuthority.Pair) -> [String] { ["--cacert", authority.file, "--cert", own.certificate, "--key", own.key] }
            func must(_ own: TestAuthority.Pair, _ arguments: String...) async throws -> String {
                let result = try await server.ctl(scratch).run(flags(own) + arguments)
                guard result.status == 0 else { throw Late(description: "\(name): \(arguments): \(result.errors)") }
                return result.output
            }
            for command in [["user", "add", "root", "--no-password"], ["role", "add", "root"], ["user", "grant-role", "root", "root"], ["user", "add", "alice", "--no-password"],
                            ["role", "add", "a"], ["role", "grant-permission", "a", "readwrite", "a/", "--prefix"], ["user", "grant-role", "alice", "a"], ["auth", "enable"]] {
                let result = try await server.ctl(scratch).run(flags(root) + ["--command-timeout=20s"] + command)
                #expect(result.status == 0, "\(name): \(command): \(result.errors)")
            }
            let ctl = server.ctl(scratch)
            let holder = try ctl.start(flags(alice) + ["lock", "a/mutex"])
            try await eventually("\(name): the lock\n\(holder.errors)") { holder.output.hasPrefix("a/mutex/") }
            let waiter = try ctl.start(flags(alice) + ["lock", "a/mutex", "echo", "inside"])
            try await eventually("\(name): two keys") { try await must(alice, "get", "a/mutex/", "--prefix", "--keys-only").split(separator: "\n").count == 2 }
            #expect(waiter.output == "")
            holder.signal(SIGINT)
            _ = try await holder.exit()
            #expect(try await waiter.exit() == 0)
            #expect(waiter.output == "inside\n", "\(name): \(waiter.errors)")
            let candidate = try ctl.start(flags(alice) + ["elect", "a/seat", "alice"])
            try await eventually("\(name): alice leads\n\(candidate.errors)") { candidate.output.contains("alice") }
            let listener = try ctl.start(flags(alice) + ["elect", "-l", "a/seat"])
            try await eventually("\(name): the listener hears of it\n\(listener.errors)") { listener.output.contains("alice") }
            for process in [candidate, listener] {
                process.signal(SIGINT)
                _ = try await process.exit()
            }
            // Others' keys are others'.
            let stranger = try await ctl.run(flags(alice) + ["--command-timeout=20s", "lock", "b/mutex", "true"])
            #expect(stranger.status != 0 && stranger.errors.contains("permission denied"), "\(name): \(stranger.errors)")
        }
    }

    // MARK: Without TLS

    /// `--cors` and `--host-whitelist`: who is answered, and what the answer says to a browser.
    @Test func originsAndHostsAreCheckedAlike() async throws {
        let flags = ["--cors", "http://a.example:80,https://b.example:8080", "--host-whitelist", "good.example,127.0.0.1,::1"]
        let get = { (host: String, headers: [String], path: String) in Request(method: "GET", path: path, headers: headers, host: host) }
        var script: [Request] = []
        for host in ["good.example", "good.example:80", "127.0.0.1", "[::1]:3", "[::1]", "GOOD.example", "bad.example:80", "bad.example", "a:b:c", "", ":80", "bad\"host", "good.example."] {
            script += [get(host, [], "/version"), Request(path: "/v3/kv/range", body: #"{"key":"YQ=="}"#, host: host), Request(method: "OPTIONS", path: "/v3/kv/range", host: host)]
        }
        for origin in ["http://a.example:80", "http://A.example:80", "http://a.example", "https://b.example:8080", "null", "*", ""] {
            script += [get("127.0.0.1", ["Origin: \(origin)"], "/version"), get("127.0.0.1", ["Origin: \(origin)"], "//version"), get("127.0.0.1", ["Origin: \(origin)"], "/nope"),
                       Request(path: "/v3/kv/put", body: #"{"key":"YQ=="}"#, headers: ["Origin: \(origin)"], host: "127.0.0.1"),
                       Request(method: "OPTIONS", path: "/v3/kv/put", headers: ["Origin: \(origin)", "Access-Control-Request-Method: POST"], host: "127.0.0.1")]
        }
        script += [get("good.example", [], "http://bad.example/version"), get("bad.example", [], "http://good.example:7/version"), get("bad", [], "//version"), get("bad", [], "/v3"), get("bad", [], "/nope")]
        try await compare(script, flags)
    }

    @Test func theGatewayCanBeLeftOut() async throws {
        let script = ["/v3/kv/range", "/v3", "/v3/", "/v3/nope", "/v3beta/kv/range", "/version", "/health"].flatMap { path in
            [Request(path: path, body: "{}"), Request(method: "GET", path: path), Request(method: "OPTIONS", path: path)]
        }
        try await compare(script, ["--enable-grpc-gateway=false"])
    }

    private func compare(_ script: [Request], _ flags: [String]) async throws {
        try await withRealEtcd(extra: flags) { endpoint, _ in
            let port = try #require(Int(endpoint.split(separator: ":")[1]))
            try await withServers(extra: flags) { cluster in
                for (number, request) in script.enumerated() {
                    let theirs = try await HTTPExchange.run(request.text, port: port)
                    let ours = try await HTTPExchange.run(request.text, port: cluster.nodes[0].clientPort)
                    #expect(Script.normalised(ours) == Script.normalised(theirs), "request \(number): \(request)")
                }
            }
        }
    }

    /// What a client over a WebSocket hears of streams: a script in Python says it, without TLS and with it.
    @Test func bothSpeakWebSocketAlike() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server")
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Clients/websocket_script.py").path
        for scheme in ["http", "https"] {
            var transcripts: [String] = []
            for program in [[try EtcdTools.path("etcd"), "--log-level", "error", "--unsafe-no-fsync"], [quarterdeck, "serve"]] {
                let server = try SecureServer(program, ["--cert-file", pair.certificate, "--key-file", pair.key], clientScheme: scheme, in: scratch)
                do {
                    try await server.waitUntilItListens()
                    let base = "\(scheme)://127.0.0.1:\(server.clientPort)"
                    try await waitUntilItAnswers(Curl(base: base, flags: ["cacert = \"\(authority.file)\""], scratch: scratch))
                    let client = try ChildProcess(["python3", path, "\(server.clientPort)"] + (scheme == "https" ? [authority.file] : []), in: scratch)
                    #expect(try await client.exit(seconds: 60) == 0, "\(client.errors)")
                    transcripts.append(Script.normalised(body: client.output))
                } catch {
                    await server.kill()
                    throw error
                }
                await server.kill()
            }
            #expect(transcripts[1] == transcripts[0])
            #expect(transcripts[0].split(separator: "\n").count > 15, "\(transcripts[0])")
        }
    }

    // MARK: Ports of their own

    @Test func endpointsHaveAPortOfTheirOwn() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server")
        let ports = try Ports.free(2)
        let server = try SecureServer.ours(["--cert-file", pair.certificate, "--key-file", pair.key,
                                            "--listen-client-http-urls", "http://127.0.0.1:\(ports[0]),https://127.0.0.1:\(ports[1])"], in: scratch)
        do {
            try await server.waitUntilItListens()
            let ctl = server.ctl(scratch)
            #expect(try await ctl.run(["--cacert", authority.file, "--command-timeout=20s", "put", "k", "v"]).output == "OK\n", "\(server.log)")
            let plain = Curl(base: "http://127.0.0.1:\(ports[0])", flags: [], scratch: scratch)
            let secure = Curl(base: "https://127.0.0.1:\(ports[1])", flags: ["cacert = \"\(authority.file)\"", "http2"], scratch: scratch)
            for curl in [plain, secure] {
                let answers = try await curl.run([Request(path: "/v3/kv/range", body: #"{"key":"aw=="}"#), Request(method: "GET", path: "/version"), Request(method: "GET", path: "/health"),
                                                  Request(method: "GET", path: "/metrics")])
                #expect(answers[0].body.contains(#""value":"dg==""#) && answers[1].body.contains("etcdserver") && answers[2].body == #"{"health":"true","reason":""}"#)
                // What came over the other port.
                #expect(answers[3].body.contains("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n"))
            }
            // Neither is where the other is.
            let calls = Curl(base: server.url, flags: ["cacert = \"\(authority.file)\"", "http1.1"], scratch: scratch)
            #expect(try await calls.run([Request(method: "GET", path: "/version")])[0].status == "")
            try await server.waitForLog("HTTP/1.1 to a port for gRPC alone")
            let misled = try await Etcdctl(["http://127.0.0.1:\(ports[0])"], scratch).run(["--dial-timeout=1s", "--command-timeout=1s", "get", "k"])
            #expect(misled.status != 0)
            try await server.waitForLog("HTTP/2 without TLS to a port for HTTP endpoints alone")
        } catch {
            await server.kill()
            print("log of the server:\n\(server.log.suffix(10_000))")
            throw error
        }
        await server.kill()
    }
}
