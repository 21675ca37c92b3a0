import Foundation
import Testing

extension Integration {
    /// The same HTTP requests to real etcd and to our server: status, body and the headers that clients look at may differ only in ids, terms and
    /// sizes, which are each server's own.
    ///
    /// Left out is what etcd itself answers sometimes so, sometimes so (deadlines in the middle of a stream), what 3.5.1 does and its
    /// successors do not (unknown sort orders), and what kills it (unknown alarm actions).
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct HTTPDifferentialTests {
        struct Request: CustomStringConvertible {
            var method = "POST"
            var path: String
            var body: String?
            var headers: [String] = []
            /// For an answer without an end: so many lines, then the client leaves.
            var lines: Int?
            var host = "x"

            var text: String {
                let length = body.map { "Content-Length: \($0.utf8.count)\r\n" } ?? ""
                return "\(method) \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\(headers.map { $0 + "\r\n" }.joined())\(length)\r\n\(body ?? "")"
            }
            var description: String { "\(method) \(path) \((body ?? "").prefix(200)) \(headers) \(host)" }
        }

        private static func post(_ path: String, _ bodies: String...) -> [Request] { bodies.map { Request(path: path, body: $0) } }
        private static func stream(_ path: String, _ body: String, lines: Int) -> Request { Request(path: path, body: body, lines: lines) }
        private static func get(_ paths: String...) -> [Request] { paths.map { Request(method: "GET", path: $0) } }
        private static func send(_ method: String, _ paths: String...) -> [Request] {
            paths.map { Request(method: method, path: $0, body: ["GET", "HEAD", "OPTIONS"].contains(method) ? nil : "{}") }
        }
        private static func base64(_ count: Int) -> String { Data(repeating: 0x78, count: count).base64EncodedString() }

        static let keys: [Request] = ([
            post("/v3/kv/range", #"{"key":"Zm9v"}"#), post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#, #"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#, #"{"key":"Zm9v","value":"YmF5","prevKv":true}"#),
            post("/v3/kv/range", #"{"key":"Zm9v"}"#, #"{"key":"Zm9v","keys_only":true}"#, #"{"key":"Zm9v","countOnly":true}"#), post("/v3/kv/put", #"{"key":"YS8x","value":"MQ=="}"#, #"{"key":"YS8y","value":""}"#, #"{"key":"YS8z"}"#),
            post("/v3/kv/range", #"{"key":"YS8=","range_end":"YTA="}"#, #"{"key":"YS8=","rangeEnd":"YTA=","limit":2}"#, #"{"key":"YS8=","rangeEnd":"YTA=","limit":"2","sort_order":"DESCEND"}"#,
                 #"{"key":"YS8=","rangeEnd":"YTA=","sort_order":2,"sort_target":"MOD"}"#, #"{"key":"AA==","range_end":"AA==","serializable":true}"#, #"{"key":"Zm9v","revision":"2"}"#, #"{"key":"Zm9v","revision":9999}"#,
                 #"{"key":"Zm9v","revision":"-1"}"#, #"{"key":"Zm9v","min_mod_revision":"99","maxModRevision":100}"#, "{}", "", "null", "  ", #"{"key":null}"#, #"{"key":"Zm9v","unknown":[1,{"a":"b"}],"x":null}"#,
                 #"{"key":"Zm9v"} trailing"#, #"{"key":"Zm9v"}{"key":1}"#, #"{"key":"YQ==","key":"Zm9v"}"#, #"{"Key":"Zm9v"}"#, #"{"key":"Zm9v","range_end":"YTA=","rangeEnd":null}"#, #"{"key":[102,111,111]}"#, #"{"key":[102,300]}"#,
                 #"{"\u006bey":"Zm9\u0076"}"#, #"{"key":"Zm9v\n"}"#, #"{"key":"Zm9"}"#, #"{"key":"Zg="}"#, #"{"key":"Zg=a"}"#, #"{"key":"Zg==Zg=="}"#, #"{"key":"Zm9v%%"}"#, #"{"key":"Zm9-"}"#, #"{"key":"="}"#),
            post("/v3/kv/put", "{}", #"{"key":"ZQ==","value":"dg==","lease":"1234"}"#, #"{"key":"ZQ==","ignore_value":true}"#, #"{"key":"Zm9v","value":"dg==","ignore_value":true}"#, #"{"key":"Zm9v","value":"dg==","ignoreLease":true}"#),
            post("/v3/kv/deleterange", #"{"key":"bm9uZQ=="}"#, #"{"key":"YS8x","prev_kv":true}"#, #"{"key":"YS8=","range_end":"YTA="}"#, "{}"),
            post("/v3/kv/txn",
                 #"{"compare":[{"key":"Zm9v","target":"VERSION","version":"4"}],"success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"YQ==","value":"PD4m"}},{"request_delete_range":{"key":"Yg==","prev_kv":true}}],"failure":[{"request_put":{"key":"ZmFpbA==","value":"eA=="}}]}"#,
                 #"{"compare":[{"key":"Zm9v","target":"VALUE","result":"NOT_EQUAL","value":"eA=="}],"success":[{"request_txn":{"success":[{"request_range":{"key":"YQ=="}}]}}]}"#,
                 #"{"compare":[{"key":"Zm9v","target":"CREATE","result":"GREATER","create_revision":0}],"success":[{"request_range":{"key":"YQ==","count_only":true}}]}"#, #"{"compare":[{"key":"Zm9v","target":"LEASE","lease":"0"}]}"#,
                 #"{"compare":[{"key":"Zm9v","target":"MOD","result":2,"modRevision":"1"}]}"#, #"{"compare":[{"key":"YQ==","range_end":"eg==","target":"VERSION","result":"GREATER","version":"0"}],"success":[],"failure":[]}"#, "{}",
                 #"{"success":[{}]}"#, #"{"success":[null]}"#, #"{"success":{}}"#, #"{"success":[5]}"#, #"{"success":[{"request_put":{"key":"YQ==","value":"PD4m"},"request_range":{"key":"Zm9v"}}]}"#,
                 #"{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}"#, #"{"success":[{"request_range":{"key":5},"request_put":{"key":"YQ=="}}]}"#, #"{"success":[{"request_range":null,"request_put":{"key":"YQ=="}}]}"#,
                 #"{"success":["# + [String](repeating: #"{"request_range":{"key":"YQ=="}}"#, count: 129).joined(separator: ",") + "]}"),
            post("/v3/kv/compaction", #"{"revision":"3"}"#, #"{"revision":3,"physical":true}"#, #"{"revision":5000}"#), post("/v3/kv/range", #"{"key":"Zm9v","revision":1}"#),
            post("/v3/kv/put", #"{"key":"Zm9v","value":"\#(base64(1_700_000))"}"#, #"{"key":"Zm9v","value":"\#(base64(2_200_000))"}"#),
        ] as [[Request]]).flatMap { $0 }

        private static let bad: [String] = [
            "garbage", "{", #"{"key""#, #"{"key":"#, #"{"key":"Zm9v""#, #"{"key":"Zm9v",}"#, #"{"key" "x"}"#, "{key:1}", "[1,2", "{\"key\":\"a\tb\"}", #"{"key":"\x"}"#, #"{"key":"\u12g4"}"#, #"{"a":01}"#, #"{"a":1.}"#, #"{"a":1.x}"#,
            #"{"a":-x}"#, #"{"a":1ex}"#, #"{"a":tru}"#, #"{"a":nul1}"#, #"{"a":[1 2]}"#, #"{"a":1 "b":2}"#, "[]", #""x""#, "5", "true", "'x'", "\u{1}", "é", #"{"key":"Zm9v"}}"#, #"{"a":falsy}"#, #"{"a":1e+}"#, #"{"a":""#, "\\", #"{"key":{}}"#,
            #"{"key":5}"#, #"{"key":true}"#, #"{"key":1.5}"#, #"{"limit":"x","key":5}"#,
        ]
        private static let numbers: [String] = [#""x""#, "true", "1.5", #""1.5""#, "99999999999999999999", #""-9223372036854775809""#, "-9223372036854775808", #""""#, #"" 5 ""#, #""5 5""#, #""null""#, "null", #""true""#, #""[1]""#, "[1]", "{}", #""\u0035""#, "1e1", #""007""#, #""0x1""#, "-0"]
        private static let orders: [String] = [#""NOPE""#, #""1""#, "true", "1.5", "null", "[]", "{}", #""asc\"end""#, #""ASC\u0045ND""#, "99999999999", #""é\t\u0001""#]
        private static let flags: [String] = [#""true""#, "1", "null", "{}", "[true]", "false"]
        static let badJSON: [Request] = {
            var bodies = bad
            bodies += numbers.map { #"{"key":"Zm9v","limit":\#($0)}"# }
            bodies += orders.map { #"{"key":"Zm9v","sort_order":\#($0)}"# }
            bodies += flags.map { #"{"key":"Zm9v","serializable":\#($0)}"# }
            return bodies.map { Request(path: "/v3/kv/range", body: $0) }
        }()

        static let leasesAndWatches: [Request] = ([
            post("/v3/lease/grant", #"{"TTL":"100","ID":"777"}"#, #"{"TTL":100,"ID":777}"#, #"{"TTL":9000000001}"#), post("/v3/kv/put", #"{"key":"bGs=","value":"eA==","lease":777}"#), post("/v3/kv/range", #"{"key":"bGs="}"#),
            post("/v3/lease/timetolive", #"{"ID":778,"keys":true}"#), post("/v3/kv/lease/timetolive", #"{"ID":"778"}"#), post("/v3/lease/leases", "{}"), post("/v3/kv/lease/leases", ""),
            post("/v3/lease/keepalive", #"{"ID":777}{"ID":778}"#, " {\"ID\":\"777\"} \n {} ", "", "x", #"{"ID":777} x"#, #"{"ID":777}{"ID":"x"}"#, #"{"ID":"x"}"#, #"{"ID":77"#, "[]"),
            post("/v3/lease/revoke", #"{"ID":778}"#), post("/v3/kv/lease/revoke", #"{"ID":777}"#), post("/v3/kv/range", #"{"key":"bGs="}"#), post("/v3/lease/revoke", "{}"),
            [stream("/v3/watch", #"{"create_request":{"key":"Zm9v","start_revision":"4","prev_kv":true}}"#, lines: 2), stream("/v3/watch", #"{"create_request":{"key":"Zm9v"}} {"create_request":{"key":"YQ==","watch_id":7}}"#, lines: 2),
             stream("/v3/watch", #"{"create_request":{"key":"Zm9v"}} garbage"#, lines: 1), stream("/v3/watch", #"{"create_request":{"key":"Zm9v","start_revision":1}}"#, lines: 2),
             stream("/v3/watch", #"{"create_request":{"key":"Zm9v","filters":["NOPUT",1]}}{"cancel_request":{"watch_id":0}}"#, lines: 2)],
            post("/v3/watch", "garbage", #"{"create_request":5}"#, #"{"create_request":{"key":"Zm9v","filters":["NOPUT","NOPE"]}}"#),
            [
             Request(path: "/v3/watch", body: #"{"cancel_request":{"watch_id":5}}"#, headers: ["Grpc-Timeout: 300m"]), Request(path: "/v3/watch", body: #"{"create_request":{"key":"Zm9v"}}"#, headers: ["Grpc-Timeout: 1n"])],
        ] as [[Request]]).flatMap { $0 }

        static let administration: [Request] = ([
            post("/v3/cluster/member/list", "{}", #"{"linearizable":true}"#), post("/v3/cluster/member/add", #"{"peerURLs":["bad"]}"#, "{}", #"{"peerURLs":"x"}"#), post("/v3/cluster/member/remove", #"{"ID":5}"#),
            post("/v3/cluster/member/promote", #"{"ID":5}"#), post("/v3/cluster/member/update", #"{"ID":"5","peerURLs":["http://127.0.0.1:1"]}"#),
            post("/v3/maintenance/alarm", "{}", #"{"action":"ACTIVATE","memberID":1,"alarm":"NOSPACE"}"#, #"{"action":"GET"}"#), get("/health", "/health?exclude=NOSPACE", "/health?exclude=NOSPACE&exclude=CORRUPT&serializable=true"),
            post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#), post("/v3/maintenance/alarm", #"{"action":"DEACTIVATE","memberID":"1","alarm":1}"#), get("/health"),
            post("/v3/maintenance/status", "{}"), post("/v3/maintenance/hash", "{}"), post("/v3/maintenance/defragment", "{}"), post("/v3/maintenance/transfer-leadership", #"{"targetID":"5"}"#),
            post("/v3/auth/status", "{}"), post("/v3/auth/authenticate", #"{"name":"root","password":"p"}"#), post("/v3/auth/enable", "{}"), post("/v3/auth/disable", "{}"),
            post("/v3/auth/user/add", #"{"name":"root","password":"rootpw"}"#, #"{"name":"root","password":"x"}"#, #"{"name":"a<b>&\u2028\"é","password":"x"}"#, #"{"name":"bob","options":{"no_password":true}}"#, "{}"),
            post("/v3/auth/user/list", "{}"), post("/v3/auth/user/get", #"{"name":"root"}"#, #"{"name":"nobody"}"#), post("/v3/auth/role/add", #"{"name":"root"}"#, #"{"name":"r"}"#, #"{"name":"r"}"#),
            post("/v3/auth/role/grant", #"{"name":"r","perm":{"permType":"READWRITE","key":"Zm9v"}}"#, #"{"name":"r","perm":{"key":"YQ==","range_end":"Yg=="}}"#, #"{"name":"r"}"#), post("/v3/auth/role/get", #"{"role":"r"}"#, #"{"role":"zero"}"#),
            post("/v3/auth/role/list", "{}"), post("/v3/auth/user/grant", #"{"user":"root","role":"root"}"#, #"{"user":"bob","role":"r"}"#), post("/v3/auth/user/get", #"{"name":"bob"}"#), post("/v3/auth/user/revoke", #"{"name":"bob","role":"zero"}"#),
            post("/v3/auth/role/revoke", #"{"role":"r","key":"YQ==","range_end":"Yg=="}"#, #"{"role":"r","key":"YQ=="}"#), post("/v3/auth/user/changepw", #"{"name":"nobody","password":"x"}"#),
            post("/v3/auth/enable", "{}"), post("/v3/auth/status", "{}"), post("/v3/kv/range", #"{"key":"Zm9v"}"#), post("/v3/auth/authenticate", #"{"name":"root","password":"bad"}"#), post("/v3/auth/user/list", "{}"),
            [Request(path: "/v3/kv/range", body: #"{"key":"Zm9v"}"#, headers: ["Authorization: nonsense"]), Request(path: "/v3/kv/range", body: #"{"key":"Zm9v"}"#, headers: ["Grpc-Metadata-Token: nonsense"])], get("/health", "/version"),
        ] as [[Request]]).flatMap { $0 }

        static let routing: [Request] = ([
            send("GET", "/v3/kv/range", "/v3", "/v3/", "//health?a=b", "/./version", "/nope", "/", "/health/", "/version?x=1", "/v2/keys", "/debug", "/debug/vars/", "/config/local/log", "/members", "/raft", "/version/", "/health%zz"),
            send("HEAD", "/v3/kv/range", "/nope", "/health", "/version"), send("PUT", "/v3/kv/range", "/version"), send("DELETE", "/health"), send("OPTIONS", "/version", "/v3/kv/range", "/nope"),
            send("POST", "/v3/kv/nope", "/v3/", "/v3", "/v3beta/kv/nope", "/v3beta/auth/status", "/v3alpha/kv/range", "/v3/auth/status/", "/v3/auth/status:x", "/v3/auth/:x", "/v3/auth//status", "/v3/kv/../auth/status?x=1", "/v3/auth%2Fstatus", "/v3/auth/status?x=1",
                 "/nope", "/health", "/version", "/debug/vars"),
            ["5x", "5", "xS", "0m", "1n", "10S", "-1S"].map { Request(path: "/v3/auth/status", body: "{}", headers: ["Grpc-Timeout: \($0)"]) },
            [Request(path: "/v3/auth/status", body: "{}", headers: ["X-HTTP-Method-Override: PUT", "Content-Type: application/x-www-form-urlencoded"]),
             Request(path: "/v3/kv/range", body: #"{"key":"Zm9v"}"#, headers: ["X-HTTP-Method-Override: post", "Content-Type: application/x-www-form-urlencoded"]),
             Request(path: "/v3/auth/status", body: "{}", headers: ["X-HTTP-Method-Override: PUT", "Content-Type: application/json"]), Request(method: "GET", path: "/version", headers: ["Origin: http://x"])],
        ] as [[Request]]).flatMap { $0 }

        @Test func bothAnswerTheSame() async throws {
            let script = Self.keys + Self.badJSON + Self.leasesAndWatches + Self.administration + Self.routing
            #expect(script.count > 250)
            try await expectSameOnBoth { subject in
                var transcript = Transcript()
                for request in script {
                    let answer = try await HTTPExchange.run(request.text, port: subject.port, lines: request.lines)
                    transcript.add("\(request)", Self.normalised(answer).joined(separator: "\n"))
                }
                return transcript
            }
        }

        /// A token goes the whole way, in each of its places.
        @Test func loginsWorkOverJSON() async throws {
            try await withServers { cluster in
                let port = cluster.nodes[0].clientPort
                func call(_ path: String, _ body: String, _ headers: String...) async throws -> HTTPExchange.Answer {
                    try await HTTPExchange.run(Request(path: path, body: body, headers: headers).text, port: port)
                }
                for (path, body) in [("user/add", #"{"name":"root","password":"pw"}"#), ("role/add", #"{"name":"root"}"#), ("user/grant", #"{"user":"root","role":"root"}"#), ("enable", "{}")] {
                    #expect(try await call("/v3/auth/" + path, body).status == "200 OK")
                }
                let token = try #require(try JSON(try await call("/v3/auth/authenticate", #"{"name":"root","password":"pw"}"#).body)["token"].text)
                #expect(try await call("/v3/kv/put", #"{"key":"YQ=="}"#).status == "400 Bad Request")
                for header in ["Authorization: \(token)", "Authorization: Bearer \(token)", "Grpc-Metadata-Token: \(token)"] {
                    #expect(try await call("/v3/kv/put", #"{"key":"YQ=="}"#, header).status == "200 OK")
                    let snapshot = try await call("/v3/maintenance/snapshot", "{}", header)
                    let lines = snapshot.body.split(separator: "\n").map(String.init)
                    #expect(snapshot.status == "200 OK" && lines.count >= 2)
                    // The last piece is the checksum of the others.
                    #expect(try JSON(lines[lines.count - 1])["result"]["blob"].text.flatMap { Data(base64Encoded: $0) }?.count == 32)
                }
                #expect(try await call("/v3/maintenance/snapshot", "{}").status == "400 Bad Request")
                #expect(try await call("/v3/maintenance/snapshot", "{}").body
                    == #"{"error":{"grpc_code":3,"http_code":400,"message":"etcdserver: user name is empty","http_status":"Bad Request"}}"#)
            }
        }

        @Test func metricsHaveAPortOfTheirOwn() async throws {
            let port = try Ports.free()[0]
            try await withServers(extra: ["--listen-metrics-urls", "http://127.0.0.1:\(port)"]) { cluster in
                func get(_ path: String, _ port: Int) async throws -> HTTPExchange.Answer { try await HTTPExchange.run(Request(method: "GET", path: path).text, port: port) }
                _ = try await HTTPExchange.run(Request(path: "/v3/kv/put", body: #"{"key":"YQ=="}"#).text, port: cluster.nodes[0].clientPort)
                let page = try await get("/metrics", port)
                #expect(page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
                #expect(page.body.contains("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n"))
                #expect(try await get("/health", port).body == #"{"health":"true","reason":""}"#)
                #expect(try await get("/readyz", port).body == "ok\n")
                #expect(try await get("/version", port).status == "404 Not Found")
                #expect(try await get("/livez?verbose", cluster.nodes[0].clientPort).body == "[+]serializable_read ok\nok\n")
            }
        }

        static func normalised(_ answer: HTTPExchange.Answer) -> [String] {
            let looked = ["content-type", "access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers", "allow", "location", "x-content-type-options",
                          "grpc-metadata-content-type", "connection", "trailer", "www-authenticate"]
            var (status, headers, body) = (answer.status, answer.headers, normalised(body: answer.body))
            // Whether a stream's time ran out at etcd's gateway or behind it is a race within etcd.
            if body == #"{"error":{"grpc_code":2,"http_code":500,"message":"context deadline exceeded","http_status":"Internal Server Error"}}"# {
                status = status.replacingOccurrences(of: "500", with: "504").replacingOccurrences(of: "Internal Server Error", with: "Gateway Timeout")
                headers["grpc-metadata-content-type"] = nil
                body = #"{"error":"context deadline exceeded","code":4,"message":"context deadline exceeded"}"#
            }
            return [status] + looked.map { "\($0): \(headers[$0] ?? "")" } + [body]
        }

        static func normalised(body text: String) -> String {
            var body = text
            for (pattern, replacement) in [
                (#""(cluster_id|member_id|raft_term|leader|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|hash)":"?\d+"?"#, #""$1":N"#), (#""ID":"\d{15,}""#, #""ID":N"#),
                (#""version":"3\.5\.\d+""#, #""version":V"#), (#""etcdserver":"[^"]*""#, #""etcdserver":V"#), (#"127\.0\.0\.1:\d+"#, "ADDRESS"),
            ] {
                body = body.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression)
            }
            return body
        }
    }
}

/// One request over a plain socket.
enum HTTPExchange {
    struct Answer: Sendable {
        /// Code and reason.
        var status = ""
        /// By lower-case name.
        var headers: [String: String] = [:]
        /// Chunks put together.
        var body = ""

        init(_ bytes: [UInt8]) {
            let text = String(decoding: bytes, as: UTF8.self)
            let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
            let end = lines.firstIndex(of: "") ?? lines.endIndex
            status = lines.first.map { String($0.dropFirst(9)) } ?? ""
            for line in lines[..<end].dropFirst() {
                let sides = line.split(separator: ":", maxSplits: 1)
                if sides.count == 2 { headers[sides[0].lowercased()] = sides[1].drop { $0 == " " }.description }
            }
            let rest = lines.dropFirst(end + 1).joined(separator: "\r\n")
            guard headers["transfer-encoding"] == "chunked" else {
                body = rest
                return
            }
            var chunks = Array(rest.utf8)[...]
            var joined: [UInt8] = []
            while let line = chunks.firstIndex(of: 13), let count = Int(String(decoding: chunks[..<line], as: UTF8.self), radix: 16), count > 0 {
                joined += chunks[(line + 2)...].prefix(count)
                chunks = chunks[(line + 2)...].dropFirst(count + 2)
            }
            body = String(decoding: joined, as: UTF8.self)
        }
    }

    /// - Parameter lines: leaves after so many lines of the body, instead of waiting for the server's end.
    static func run(_ request: String, port: Int, lines: Int? = nil) async throws -> Answer {
        try await withCheckedThrowingContinuation { continuation in
            Thread { continuation.resume(with: Result { try exchange(request, port, lines) }) }.start()
        }
    }

    private static func exchange(_ request: String, _ port: Int, _ lines: Int?) throws -> Answer {
        #if canImport(Darwin)
        let descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #else
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #endif
        signal(SIGPIPE, SIG_IGN)
        guard descriptor >= 0 else { throw Late(description: "socket: \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        var limit = timeval(tv_sec: 30, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) } }
        guard connected == 0 else { throw Late(description: "connect to \(port): \(String(cString: strerror(errno)))") }
        var out = Array(request.utf8)[...]
        while !out.isEmpty {
            let count = out.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, 0) }
            // A server may answer and leave before it has read everything.
            guard count > 0 else { break }
            out = out.dropFirst(count)
        }
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EAGAIN { throw Late(description: "no end of the answer to \(request.prefix(200)): \(String(decoding: answer.prefix(2_000), as: UTF8.self))") }
            guard count > 0 else { break }
            answer += chunk[..<count]
            if let lines, Answer(answer).body.split(separator: "\n", omittingEmptySubsequences: false).count > lines { break }
        }
        return Answer(answer)
    }
}
