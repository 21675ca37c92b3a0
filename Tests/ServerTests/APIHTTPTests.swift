import Base
import NIOCore
import Replica
import Store
import Testing
import Wire
@testable import Server

@Suite struct APIHTTPTests {
    private func get(_ bed: TestBed, _ path: String, method: String = "GET", headers: String = "") async throws -> (status: String, head: String, body: String) {
        let text = try await RawConnection.exchange(bed.port, group: bed.group, "\(method) \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\(headers)\r\n")
        // Swift takes CR LF for one character.
        let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
        let end = lines.firstIndex(of: "") ?? lines.endIndex
        return (lines.first.map(String.init) ?? "", lines[..<end].joined(separator: "\n"), lines.dropFirst(end + 1).joined(separator: "\r\n"))
    }

    @Test func versionIsEtcdsJSON() async throws {
        try await TestBed.run { bed in
            let answer = try await get(bed, "/version")
            #expect(answer.status == "HTTP/1.1 200 OK")
            #expect(answer.body == "{\"etcdserver\":\"3.5.33\",\"etcdcluster\":\"3.5.0\"}")
            #expect(answer.head.contains("Content-Type: application/json"))
            #expect(answer.head.contains("Access-Control-Allow-Origin: *"))
        }
    }

    @Test func wrongMethodsAndPathsAreRefused() async throws {
        try await TestBed.run { bed in
            let post = try await get(bed, "/version", method: "POST", headers: "Content-Length: 0\r\n")
            #expect(post.status == "HTTP/1.1 405 Method Not Allowed")
            #expect(post.head.contains("Allow: GET"))
            let missing = try await get(bed, "/nowhere")
            #expect(missing.status == "HTTP/1.1 404 Not Found")
            #expect(missing.body == "404 page not found\n")
            #expect(try await get(bed, "/v3/kv/nothing", method: "POST", headers: "Content-Length: 0\r\n").body == "Not Found\n")
            #expect(try await get(bed, "/v3/kv/range").status == "HTTP/1.1 405 Method Not Allowed")
            #expect(try await get(bed, "/health", method: "OPTIONS").status == "HTTP/1.1 200 OK")
        }
    }

    @Test func healthAsksForALinearizableRead() async throws {
        try await TestBed.run { bed in
            let answer = try await get(bed, "/health")
            #expect(answer.status == "HTTP/1.1 200 OK")
            #expect(answer.body == "{\"health\":\"true\",\"reason\":\"\"}")
            #expect(bed.member.events.contains { if case .request(_, .read, _, _) = $0 { true } else { false } })
            _ = try await get(bed, "/health?serializable=true")
            #expect(bed.member.events.contains { if case .request(_, .localRead, _, _) = $0 { true } else { false } })
        }
    }

    @Test func healthNamesWhatIsWrong() async throws {
        try await TestBed.run { bed in
            bed.member.published = ScriptedMember.status(leader: .none)
            let leaderless = try await get(bed, "/health")
            #expect(leaderless.status == "HTTP/1.1 503 Service Unavailable")
            #expect(leaderless.body == "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n")
            #expect(try await get(bed, "/health?serializable=true").status == "HTTP/1.1 200 OK")
            bed.member.published = ScriptedMember.status(alarms: [Alarm(member: MemberID(1), kind: Alarm.noSpace)])
            #expect(try await get(bed, "/health").body.contains("ALARM NOSPACE"))
            #expect(try await get(bed, "/health?exclude=NOSPACE").status == "HTTP/1.1 200 OK")
            bed.member.published = ScriptedMember.status()
            try await bed.member.setScript { event, member in
                guard case .request(let token, .read, _, _) = event else { return false }
                member.answer(token, .failed(.timeout))
                return true
            }
            #expect(try await get(bed, "/health").body == "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n")
        }
    }

    @Test func livezAndReadyzRunTheirChecks() async throws {
        try await TestBed.run { bed in
            #expect(try await get(bed, "/livez").body == "ok\n")
            #expect(try await get(bed, "/readyz?verbose").body
                == "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n")
            try await bed.member.setScript { event, member in
                guard case .request(let token, .read, _, _) = event else { return false }
                member.answer(token, .failed(.timeout))
                return true
            }
            let failing = try await get(bed, "/readyz")
            #expect(failing.status == "HTTP/1.1 503 Service Unavailable")
            #expect(failing.body.contains("[-]linearizable_read failed: etcdserver: request timed out\n"))
            #expect(try await get(bed, "/readyz?exclude=linearizable_read").body == "ok\n")
            #expect(try await get(bed, "/readyz/serializable_read").body == "ok\n")
            #expect(try await get(bed, "/readyz/nothing").status == "HTTP/1.1 404 Not Found")
        }
    }

    @Test func metricsCountCallsPerMethodAndCode() async throws {
        try await TestBed.run(loops: 2) { bed in
            let one = try await bed.client()
            let two = try await bed.client()
            for client in [one, two] {
                for _ in 0..<3 { _ = await client.call(.put, putRequest("k", "v")) }
                _ = await client.call(.put, [])
            }
            let answer = try await get(bed, "/metrics")
            #expect(answer.head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"))
            let lines = Set(answer.body.split(separator: "\n").map(String.init))
            let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\""
            #expect(lines.contains("grpc_server_handled_total{grpc_code=\"OK\",\(put)} 6"))
            #expect(lines.contains("grpc_server_handled_total{grpc_code=\"InvalidArgument\",\(put)} 2"))
            #expect(lines.contains("grpc_server_handled_total{grpc_code=\"DataLoss\",\(put)} 0"))
            #expect(lines.contains("grpc_server_started_total{\(put)} 8"))
            #expect(lines.contains("etcd_server_has_leader 1"))
            #expect(lines.contains("etcd_server_id{server_id=\"abc\"} 1"))
            #expect(lines.contains("etcd_server_version{server_version=\"3.5.33\"} 1"))
            #expect(lines.contains("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 0"))
            #expect(lines.contains { $0.hasPrefix("process_resident_memory_bytes ") && !$0.hasSuffix(" 0") })
            #expect(lines.contains { $0.hasPrefix("process_open_fds ") && !$0.hasSuffix(" 0") })
            #expect(lines.contains { $0.hasPrefix("process_start_time_seconds 1") })
        }
    }

    @Test func oneConnectionCarriesSeveralRequests() async throws {
        try await TestBed.run { bed in
            let request = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
            let text = try await RawConnection.exchange(bed.port, group: bed.group,
                                                        request + request + "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(text.components(of: "HTTP/1.1 200 OK") == 3)
        }
    }

    @Test func oversizedHeadsAndBodiesAreCutOff() async throws {
        var bounds = ClientBounds()
        bounds.maxHTTPHeadBytes = 4_096
        bounds.maxHTTPBodyBytes = 1_000
        try await TestBed.run(bounds: bounds) { bed in
            let head = try await RawConnection.exchange(bed.port, group: bed.group,
                                                        "GET /version HTTP/1.1\r\nHost: x\r\nX-Big: \(String(repeating: "a", count: 10_000))\r\n\r\n")
            #expect(!head.hasPrefix("HTTP/1.1 200"))
            let body = try await get(bed, "/version", method: "POST", headers: "Content-Length: 2000\r\n\r\n" + String(repeating: "b", count: 2_000))
            #expect(body.status == "HTTP/1.1 413 Payload Too Large")
        }
    }
}

extension String {
    func components(of needle: String) -> Int {
        var count = 0
        var rest = self[...]
        while let at = rest.firstRange(of: needle) {
            count += 1
            rest = rest[at.upperBound...]
        }
        return count
    }
}

@Suite struct HTTPTargetTests {
    @Test func anEscapeIsTwoDigitsAndNothingElse() {
        // A sign is none.
        for path in ["/a%+1", "/a%-1", "/a%g0", "/a%4", "/%"] { #expect(HTTPTarget(path)?.path == nil, "\(path)") }
        #expect(HTTPTarget("/a%2fb%41")?.path == "/a/bA")
        // In the query whatever is none is left out.
        let target = HTTPTarget("/?x=%41+&y=%+1&z=1")
        #expect(target?.value("x") == "A " && target?.value("y") == nil && target?.value("z") == "1")
    }
}
