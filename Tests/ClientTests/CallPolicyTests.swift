import Base
import Client
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import Testing
import Wire

/// Attempts, failover, time limits, tokens: against servers whose answers are written down.
@Suite(.serialized) struct CallPolicyTests {
    private func server(_ script: @escaping (ScriptedServer) -> Void) async throws -> ScriptedServer {
        let server = ScriptedServer()
        script(server)
        try await server.start()
        return server
    }

    @Test func aCallGoesToTheEndpointThatAnswers() async throws {
        let live = try await server { $0.serveRange(as: "live") }
        let client = try EtcdClient(configuration: quick(try await deadEndpoint(), live.endpoint))
        for _ in 0..<3 { #expect(try await client.get("who")?.valueText == "live") }
        // A write was never sent to the dead one, so it may go on too.
        try await live.perform { $0.unary[.put] = { connection, stream, _, _ in connection.respond(stream, PBPutResponse()) } }
        try await client.put("a", "b")
        await client.close()
        try await live.stop()
    }

    @Test func callsShareOneConnection() async throws {
        let live = try await server { $0.serveRange(as: "x") }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<300 {
                group.addTask {
                    let answer = try await client.get("who")
                    #expect(answer != nil)
                }
            }
            try await group.waitForAll()
        }
        #expect(try await live.loop.submit { live.accepted }.get() == 1)
        let state = try #require(await client.endpointStates().first)
        #expect(state.phase == .ready)
        #expect(state.lastLatency != nil && state.averageLatency != nil)
        await client.close()
        try await live.stop()
    }

    @Test func aReadThatAMemberCannotServeIsTriedElsewhere() async throws {
        let leaderless = try await server {
            $0.unary[.range] = { connection, stream, _, _ in connection.finish(stream, .noLeader) }
        }
        let live = try await server { $0.serveRange(as: "live") }
        let client = try EtcdClient(configuration: quick(leaderless.endpoint, live.endpoint))
        let attempts = NIOLockedValueBox<[Int]>([])
        let options = CallOptions(onAttempts: { count in attempts.withLockedValue { $0.append(count) } })
        #expect(try await client.get("who", options: options)?.valueText == "live")
        // Which of the two is connected first, and so asked first, is not decided here.
        let asked = leaderless.log.withLockedValue { $0.count }
        #expect(attempts.withLockedValue { $0 } == [1 + asked], "told once, with all attempts")
        await client.close()
        try await leaderless.stop()
        try await live.stop()
    }

    @Test func aWriteThatWasSentIsNotRepeated() async throws {
        let breaking = try await server {
            $0.unary[.put] = { connection, _, _, _ in connection.close() }
        }
        let other = try await server { $0.unary[.put] = { connection, stream, _, _ in connection.respond(stream, PBPutResponse()) } }
        let client = try EtcdClient(configuration: quick(breaking.endpoint))
        let error = await failure { try await client.put("a", "b") }
        guard case .transport(_, _, wasSent: true)? = error as? EtcdError else { Issue.record("\(String(describing: error))"); return }
        #expect(breaking.log.withLockedValue { $0 } == [.put])
        #expect(other.log.withLockedValue { $0 }.isEmpty)
        await client.close()
        try await breaking.stop()
        try await other.stop()
    }

    @Test func aReadSurvivesABreakingConnection() async throws {
        let calls = NIOLockedValueBox(0)
        let live = try await server {
            $0.unary[.range] = { connection, stream, _, _ in
                let number = calls.withLockedValue { calls in
                    calls += 1
                    return calls
                }
                if number == 1 { connection.close() } else { connection.respond(stream, PBRangeResponse()) }
            }
        }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        #expect(try await client.get("who") == nil)
        #expect(calls.withLockedValue { $0 } == 2)
        await client.close()
        try await live.stop()
    }

    @Test func aServersErrorComesBackAsItIs() async throws {
        let live = try await server {
            $0.unary[.put] = { connection, stream, _, _ in connection.finish(stream, .leaseNotFound) }
        }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        let error = await failure { try await client.put("a", "b", lease: LeaseID(7)) }
        #expect(error as? EtcdError == .service(.leaseNotFound))
        #expect(live.log.withLockedValue { $0.count } == 1)
        await client.close()
        try await live.stop()
    }

    @Test func aPinnedCallAsksOnlyItsEndpoint() async throws {
        let dead = try await deadEndpoint()
        let live = try await server { server in
            server.unary[.status] = { connection, stream, _, _ in
                var answer = PBStatusResponse()
                answer.version = "9.9"
                connection.respond(stream, answer)
            }
        }
        let client = try EtcdClient(configuration: quick(live.endpoint, dead))
        #expect(try await client.status(of: live.endpoint).version == "9.9")
        let error = await failure { try await client.status(of: dead) }
        guard case .transport(dead.text, _, wasSent: false)? = error as? EtcdError else { Issue.record("\(String(describing: error))"); return }
        await client.close()
        try await live.stop()
    }

    @Test func silenceEndsAtTheTimeLimitAndTheServerHearsOfIt() async throws {
        let live = try await server { $0.unary[.range] = { _, _, _, _ in } }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        let error = await failure { try await client.get("who", options: CallOptions(timeout: .milliseconds(100))) }
        guard case .deadlineExceeded? = error as? EtcdError else { Issue.record("\(String(describing: error))"); return }
        try await until("server sees the cancellation") { live.cancelled.withLockedValue { $0 } == 1 }
        await client.close()
        try await live.stop()
    }

    @Test func theTimeLimitIsSentAlong() async throws {
        let seen = NIOLockedValueBox<TimeSpan?>(nil)
        let live = try await server {
            $0.unary[.range] = { connection, stream, head, _ in
                seen.withLockedValue { $0 = head.timeout }
                connection.respond(stream, PBRangeResponse())
            }
        }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        _ = try await client.get("who", options: CallOptions(timeout: .seconds(3), requiresLeader: true))
        let timeout = try #require(seen.withLockedValue { $0 })
        #expect(timeout > .seconds(1) && timeout <= .milliseconds(3_001))
        await client.close()
        try await live.stop()
    }

    @Test func withNobodyThereTheLimitNamesTheReason() async throws {
        let client = try EtcdClient(configuration: quick(try await deadEndpoint(), try await deadEndpoint()))
        let error = await failure { try await client.get("who", options: CallOptions(timeout: .milliseconds(200))) }
        guard case .deadlineExceeded(let last?)? = error as? EtcdError else { Issue.record("\(String(describing: error))"); return }
        #expect(last.contains("refused"), "\(last)")
        await client.close()
    }

    @Test func cancellingTheTaskResetsTheCall() async throws {
        let arrived = NIOLockedValueBox(false)
        let live = try await server { $0.unary[.range] = { _, _, _, _ in arrived.withLockedValue { $0 = true } } }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        let task = Task { try await client.get("who") }
        try await until("call arrived") { arrived.withLockedValue { $0 } }
        task.cancel()
        let error = await failure { try await task.value }
        #expect(error is CancellationError)
        try await until("server sees the cancellation") { live.cancelled.withLockedValue { $0 } == 1 }
        await client.close()
        try await live.stop()
    }

    @Test func aMuteServerFailsWithinTheDialTimeout() async throws {
        let mute = try await server { $0.isMute = true }
        let live = try await server { $0.serveRange(as: "live") }
        var configuration = quick(mute.endpoint, live.endpoint)
        configuration.dialTimeout = .milliseconds(150)
        let client = try EtcdClient(configuration: configuration)
        let error = await failure { try await client.status(of: mute.endpoint) }
        guard case .transport(_, let reason, wasSent: false)? = error as? EtcdError else { Issue.record("\(String(describing: error))"); return }
        #expect(reason.contains("dial timeout"))
        #expect(try await client.get("who")?.valueText == "live")
        await client.close()
        try await mute.stop()
        try await live.stop()
    }

    @Test func anUnansweredProbeEndsTheConnection() async throws {
        let live = try await server { server in
            server.unary[.range] = { connection, _, _, _ in connection.isDeaf = true }
        }
        var configuration = quick(live.endpoint)
        configuration.keepAliveInterval = .milliseconds(50)
        configuration.keepAliveTimeout = .milliseconds(50)
        let client = try EtcdClient(configuration: configuration)
        // A write, since it fails at once instead of being tried again.
        try await live.perform { $0.unary[.put] = { connection, _, _, _ in connection.isDeaf = true } }
        let error = await failure { try await client.put("a", "b") }
        guard case .transport(_, let reason, wasSent: true)? = error as? EtcdError else { Issue.record("\(String(describing: error))"); return }
        #expect(reason.contains("keepalive"))
        await client.close()
        try await live.stop()
    }

    @Test func answeredProbesKeepAQuietConnection() async throws {
        let pending = NIOLockedValueBox<StreamID?>(nil)
        let live = try await server { server in
            server.unary[.range] = { _, stream, _, _ in pending.withLockedValue { $0 = stream } }
        }
        var configuration = quick(live.endpoint)
        configuration.keepAliveInterval = .milliseconds(20)
        configuration.keepAliveTimeout = .milliseconds(500)
        let client = try EtcdClient(configuration: configuration)
        let task = Task { try await client.get("who") }
        try await until("call arrived") { pending.withLockedValue { $0 } != nil }
        // Long enough for several probes.
        try await live.loop.scheduleTask(in: .milliseconds(200)) {
            live.connections[0].respond(pending.withLockedValue { $0! }, PBRangeResponse())
        }.futureResult.get()
        #expect(try await task.value == nil)
        #expect(try await live.loop.submit { live.accepted }.get() == 1)
        await client.close()
        try await live.stop()
    }

    @Test func aGoodbyeMovesNewCallsToANewConnection() async throws {
        let live = try await server { $0.serveRange(as: "x") }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        _ = try await client.get("who")
        try await live.perform { $0.connections[0].goAway() }
        for _ in 0..<5 { #expect(try await client.get("who") != nil) }
        try await until("second connection") { try await live.loop.submit { live.accepted }.get() == 2 }
        await client.close()
        try await live.stop()
    }

    @Test func aStaleTokenIsReplacedOnce() async throws {
        let issued = NIOLockedValueBox(0)
        let live = try await server { server in
            server.unary[.authenticate] = { connection, stream, _, request in
                let request = try! PBAuthenticateRequest(decoding: request)
                guard request.name == "root", request.password == "pw" else { return connection.finish(stream, .authFailed) }
                var answer = PBAuthenticateResponse()
                answer.token = issued.withLockedValue { count in
                    count += 1
                    return "token.\(count)"
                }
                connection.respond(stream, answer)
            }
            server.unary[.put] = { connection, stream, head, _ in
                if head.token == Array("token.2".utf8) { connection.respond(stream, PBPutResponse()) } else { connection.finish(stream, .invalidAuthToken) }
            }
        }
        var configuration = quick(live.endpoint)
        configuration.user = "root"
        configuration.password = "pw"
        let client = try EtcdClient(configuration: configuration)
        try await client.put("a", "b")
        try await client.put("a", "c")
        #expect(live.log.withLockedValue { $0 } == [.authenticate, .put, .authenticate, .put, .put])

        configuration.password = "wrong"
        let other = try EtcdClient(configuration: configuration)
        #expect(await failure { try await other.put("a", "b") } as? EtcdError == .service(.authFailed))
        await other.close()
        await client.close()
        try await live.stop()
    }

    @Test func credentialsAreIgnoredWhereAuthenticationIsOff() async throws {
        let live = try await server { server in
            server.unary[.authenticate] = { connection, stream, _, _ in connection.finish(stream, .authNotEnabled) }
            server.serveRange(as: "open")
        }
        var configuration = quick(live.endpoint)
        configuration.user = "root"
        configuration.password = "pw"
        let client = try EtcdClient(configuration: configuration)
        _ = try await client.get("who")
        #expect(try await client.get("who")?.valueText == "open")
        #expect(live.log.withLockedValue { $0 } == [.authenticate, .range, .range])
        await client.close()
        try await live.stop()
    }

    @Test func aClosedClientRefusesCalls() async throws {
        let live = try await server { $0.unary[.range] = { _, _, _, _ in } }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        let task = Task { try await client.get("who") }
        try await until("call arrived") { live.log.withLockedValue { $0.count } == 1 }
        await client.close()
        #expect(await failure { try await task.value } is EtcdError)
        #expect(await failure { try await client.get("who") } as? EtcdError == .closed)
        try await live.stop()
    }

    @Test func pagesCoverARangeAtOneRevision() async throws {
        let queries = NIOLockedValueBox<[PBRangeRequest]>([])
        let live = try await server { server in
            server.unary[.range] = { connection, stream, _, bytes in
                let request = try! PBRangeRequest(decoding: bytes)
                queries.withLockedValue { $0.append(request) }
                let all = ["k1", "k2", "k3", "k4", "k5"].filter { Array($0.utf8).lexicographicallyPrecedes([UInt8](request.key)) == false }
                var answer = PBRangeResponse()
                answer.header = header(77)
                answer.count = Int64(all.count)
                answer.more = all.count > Int(request.limit)
                for key in all.prefix(Int(request.limit)) {
                    var kv = PBKeyValue()
                    kv.key = .init(Array(key.utf8))
                    answer.kvs.append(kv)
                }
                connection.respond(stream, answer)
            }
        }
        let client = try EtcdClient(configuration: quick(live.endpoint))
        var pages: [[String]] = []
        for try await page in client.pages(RangeQuery(.prefix(Key("k"))), pageSize: 2) { pages.append(page.kvs.map(\.keyText)) }
        #expect(pages == [["k1", "k2"], ["k3", "k4"], ["k5"]])
        #expect(queries.withLockedValue { $0.map(\.revision) } == [0, 77, 77])
        await client.close()
        try await live.stop()
    }

    @Test func endpointsAreReadInTheirForms() throws {
        #expect(try Endpoint("host:1234").address == .tcp(host: "host", port: 1234))
        #expect(try Endpoint("host").address == .tcp(host: "host", port: 2379))
        #expect(try Endpoint("http://h:1/").isTLS == false)
        #expect(try Endpoint("https://h").isTLS == true)
        #expect(try Endpoint("[::1]:2379").address == .tcp(host: "::1", port: 2379))
        #expect(try Endpoint("https://[fe80::1]").address == .tcp(host: "fe80::1", port: 2379))
        #expect(try Endpoint("unix:///tmp/s").address == .unix(path: "/tmp/s"))
        for bad in ["", ":", "h:0", "h:70000", "h:x", "ftp://h:1", "http://"] {
            #expect(throws: EtcdError.self, "\(bad)") { try Endpoint(bad) }
        }
        #expect(try ClientConfiguration("a:1,b:2", "c:3").endpoints.map(\.text) == ["a:1", "b:2", "c:3"])
    }
}
