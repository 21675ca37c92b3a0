import Base
import Client
import GRPC
import NIOConcurrencyHelpers
import Testing
import Wire

/// What an observed election makes of accidents and of refusals.
@Suite(.serialized) struct ElectionStreamTests {
    private static func leader(_ value: String, _ revision: Int64) -> PBLeaderResponse {
        var answer = PBLeaderResponse()
        answer.kv.key = .init(Array("e/1".utf8))
        answer.kv.value = .init(Array(value.utf8))
        answer.kv.modRevision = revision
        answer.kv.createRevision = 1
        return answer
    }

    /// Runs `script` for each call, with its number from 1 on.
    private func run(_ script: @escaping (ScriptedServer.Connection, StreamID, Int) -> Void,
                     _ body: @Sendable @escaping (EtcdClient, ScriptedServer) async throws -> Void) async throws {
        let server = ScriptedServer()
        var number = 0
        server.unary[.observe] = { connection, stream, _, request in
            number += 1
            #expect((try? PBLeaderRequest(decoding: request))?.name == .init(Array("e".utf8)))
            script(connection, stream, number)
        }
        try await server.start()
        let client = try EtcdClient(configuration: quick(server.endpoint))
        try await within { try await body(client, server) }
        await client.close()
        try await server.stop()
    }

    private static let election = Array("e".utf8)

    @Test func itGoesOnElsewhereAndTellsNothingTwice() async throws {
        try await run({ connection, stream, number in
            switch number {
            case 1:
                connection.send(stream, Self.leader("a", 1))
                connection.send(stream, Self.leader("b", 2))
                connection.close()
            // What a new stream begins with is known.
            case 2:
                connection.send(stream, Self.leader("b", 2))
                connection.finish(stream, ServiceError(.unavailable, "etcdserver: no leader"))
            case 3: connection.finish(stream, ServiceError(.unknown, "election: observe closed early"))
            case 4: connection.finish(stream, ServiceError(.ok, ""))
            default:
                connection.send(stream, Self.leader("b", 2))
                connection.send(stream, Self.leader("a", 1))
            }
        }) { client, _ in
            var values: [String] = []
            for try await leader in client.observe(election: Self.election) {
                values.append(leader.valueText)
                // The same as long before, and news all the same.
                if values.count == 3 { break }
            }
            #expect(values == ["a", "b", "a"])
        }
    }

    @Test func aRefusalEndsIt() async throws {
        for refusal in [ServiceError.permissionDenied, ServiceError(.unimplemented, "unknown service v3electionpb.Election")] {
            let calls = NIOLockedValueBox(0)
            try await run({ connection, stream, number in
                calls.withLockedValue { $0 = number }
                connection.finish(stream, refusal)
            }) { client, _ in
                var leaders = client.observe(election: Self.election).makeAsyncIterator()
                #expect(await failure { try await leaders.next() } as? EtcdError == .service(refusal))
                let after = try await leaders.next()
                #expect(after == nil)
            }
            #expect(calls.withLockedValue { $0 } == 1)
        }
    }

    @Test func whatMayBeARefusalEndsItTheThirdTimeInARow() async throws {
        let early = ServiceError(.unknown, "election: observe closed early")
        let calls = NIOLockedValueBox(0)
        try await run({ connection, stream, number in
            calls.withLockedValue { $0 = number }
            // News in between: what came before does not count.
            if number == 2 { connection.send(stream, Self.leader("a", 1)) }
            connection.finish(stream, early)
        }) { client, _ in
            var leaders = client.observe(election: Self.election).makeAsyncIterator()
            let first = try await leaders.next()
            #expect(first?.valueText == "a")
            #expect(await failure { try await leaders.next() } as? EtcdError == .service(early))
        }
        #expect(calls.withLockedValue { $0 } == 4)
    }

    @Test func oneEndpointAloneEndsWithItsConnection() async throws {
        try await run({ connection, stream, _ in
            connection.send(stream, Self.leader("a", 1))
            connection.close()
        }) { client, server in
            var leaders = client.observe(election: Self.election, options: CallOptions(endpoint: server.endpoint)).makeAsyncIterator()
            let first = try await leaders.next()
            #expect(first?.valueText == "a")
            guard case .transport? = await failure({ try await leaders.next() }) as? EtcdError else {
                Issue.record("no transport error")
                return
            }
        }
    }

    @Test func aDroppedSequenceEndsTheCall() async throws {
        try await run({ connection, stream, _ in connection.send(stream, Self.leader("a", 1)) }) { client, server in
            for try await _ in client.observe(election: Self.election) { break }
            try await until("the call's end") { server.cancelled.withLockedValue { $0 } == 1 }
        }
    }
}
