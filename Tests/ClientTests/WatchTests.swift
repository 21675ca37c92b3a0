import Base
import Client
import GRPC
import NIOConcurrencyHelpers
import Testing
import Wire

/// The watch's promise (each event once, in order, across failures) against a server whose answers are written down.
@Suite(.serialized) struct WatchTests {
    private func run(_ script: @escaping (ScriptedServer) -> Void, _ body: @Sendable @escaping (EtcdClient, ScriptedServer) async throws -> Void) async throws {
        let server = ScriptedServer()
        script(server)
        try await server.start()
        let client = try EtcdClient(configuration: quick(server.endpoint))
        try await within { try await body(client, server) }
        await client.close()
        try await server.stop()
    }

    @Test func aWatchGoesOnAfterTheLastRevisionSeen() async throws {
        let starts = NIOLockedValueBox<[Int64]>([])
        try await run({ server in
            server.onWatch = { connection, stream, request, number in
                starts.withLockedValue { $0.append(request.startRevision) }
                connection.send(stream, watchCreated(20))
                if number == 1 {
                    connection.send(stream, watchEvents([putEvent("a", 11), putEvent("b", 11)], at: 11))
                    connection.send(stream, watchEvents([putEvent("a", 12)], at: 12))
                    connection.close()
                } else {
                    // A server that repeats itself does not show.
                    connection.send(stream, watchEvents([putEvent("a", 12), putEvent("a", 13)], at: 13))
                }
            }
        }) { client, _ in
            var iterator = client.watch(prefix: "", startRevision: Revision(11)).makeAsyncIterator()
            var seen: [Int64] = []
            while seen.last != 13, let batch = try await iterator.next() { seen += batch.events.map(\.kv.modRevision.rawValue) }
            #expect(seen == [11, 11, 12, 13])
        }
        #expect(starts.withLockedValue { $0 } == [11, 13])
    }

    @Test func fromNowOnMeansFromTheFirstCreation() async throws {
        let starts = NIOLockedValueBox<[Int64]>([])
        try await run({ server in
            server.onWatch = { connection, stream, request, number in
                starts.withLockedValue { $0.append(request.startRevision) }
                connection.send(stream, watchCreated(Int64(40 + number)))
                if number == 1 { connection.close() } else { connection.send(stream, watchEvents([putEvent("x", 42)], at: 42)) }
            }
        }) { client, _ in
            let stream = client.watch(prefix: "x")
            let started = try await stream.started()
            #expect(started == Revision(41))
            var iterator = stream.makeAsyncIterator()
            let batch = try await iterator.next()
            #expect(batch?.events.first?.kv.modRevision == Revision(42))
        }
        // Nothing after 41 was seen, so the second watch must not begin at "now".
        #expect(starts.withLockedValue { $0 } == [0, 42])
    }

    @Test func progressMovesTheResumePoint() async throws {
        let starts = NIOLockedValueBox<[Int64]>([])
        try await run({ server in
            server.onWatch = { connection, stream, request, number in
                starts.withLockedValue { $0.append(request.startRevision) }
                connection.send(stream, watchCreated(5))
                if number == 1 {
                    connection.send(stream, watchEvents([], at: 99))
                    connection.close()
                }
            }
        }) { client, _ in
            var iterator = client.watch(WatchQuery(.prefix(Key("")), wantsProgress: true)).makeAsyncIterator()
            let batch = try #require(try await iterator.next())
            #expect(batch.isProgress && batch.header.revision == Revision(99))
            try await until("second watch") { starts.withLockedValue { $0.count } == 2 }
        }
        #expect(starts.withLockedValue { $0 } == [0, 100])
    }

    @Test func fragmentsAreOneBatchAndHalfOfOneIsNone() async throws {
        let starts = NIOLockedValueBox<[Int64]>([])
        try await run({ server in
            server.onWatch = { connection, stream, request, number in
                starts.withLockedValue { $0.append(request.startRevision) }
                connection.send(stream, watchCreated(1))
                connection.send(stream, watchEvents([putEvent("a", 7), putEvent("b", 7)], at: 8, fragment: true))
                if number == 1 { return connection.close() }
                connection.send(stream, watchEvents([putEvent("c", 7)], at: 8, fragment: true))
                connection.send(stream, watchEvents([putEvent("d", 8)], at: 8))
            }
        }) { client, _ in
            var iterator = client.watch(prefix: "", startRevision: Revision(7)).makeAsyncIterator()
            let batch = try #require(try await iterator.next())
            #expect(batch.events.map(\.kv.keyText) == ["a", "b", "c", "d"])
        }
        #expect(starts.withLockedValue { $0 } == [7, 7])
    }

    @Test func compactionIsATypedEnd() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, _, _ in
                connection.send(stream, watchCreated(50))
                var answer = PBWatchResponse()
                answer.canceled = true
                answer.compactRevision = 30
                connection.send(stream, answer)
            }
        }) { client, _ in
            var iterator = client.watch(prefix: "", startRevision: Revision(3)).makeAsyncIterator()
            let error = await failure { try await iterator.next() }
            #expect(error as? EtcdError == .compacted(Revision(30)))
            let end = try await iterator.next()
            #expect(end == nil)
        }
    }

    @Test func refusalsAreErrors() async throws {
        let reasons = ["rpc error: code = PermissionDenied desc = etcdserver: permission denied", "mvcc: watcher range is empty"]
        try await run({ server in
            server.onWatch = { connection, stream, _, number in
                var answer = watchCreated(50)
                answer.canceled = true
                answer.watchID = -1
                answer.cancelReason = reasons[number - 1]
                connection.send(stream, answer)
            }
        }) { client, _ in
            var first = client.watch(prefix: "a").makeAsyncIterator()
            #expect(await failure { try await first.next() } as? EtcdError == .service(.permissionDenied))
            let second = client.watch(prefix: "b")
            #expect(await failure { try await second.started() } as? EtcdError == .watchCanceled("mvcc: watcher range is empty"))
        }
    }

    @Test func aMemberWithoutLeaderIsLeftForAnother() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, _, number in
                if number < 4 { return connection.finish(stream, .noLeader) }
                connection.send(stream, watchCreated(9))
                connection.send(stream, watchEvents([putEvent("k", 10)], at: 10))
            }
        }) { client, _ in
            var iterator = client.watch(prefix: "").makeAsyncIterator()
            let batch = try await iterator.next()
            #expect(batch?.events.count == 1)
        }
    }

    @Test func otherStatusesEndTheWatch() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, _, _ in connection.finish(stream, .permissionDenied) }
        }) { client, _ in
            var iterator = client.watch(prefix: "").makeAsyncIterator()
            #expect(await failure { try await iterator.next() } as? EtcdError == .service(.permissionDenied))
        }
    }

    @Test func aSlowReaderMakesTheServerWaitAndLosesNothing() async throws {
        let total = 3_000
        let stream = NIOLockedValueBox<StreamID>(0)
        let server = ScriptedServer()
        server.onWatch = { connection, id, _, _ in
            stream.withLockedValue { $0 = id }
            connection.send(id, watchCreated(1))
            let value = String(repeating: "v", count: 4_000)
            for revision in 2..<(2 + Int64(total)) { connection.session.sendMessage(id, watchEvents([putEvent("k", revision, value: value)], at: revision).encoded()) }
            connection.flush()
        }
        try await server.start()
        var configuration = quick(server.endpoint)
        configuration.watchBufferBytes = 100_000
        let client = try EtcdClient(configuration: configuration)
        let watch = client.watch(prefix: "")
        _ = try await watch.started()
        // 12 MB were sent; the client takes its buffer and about two windows and no more.
        try await until("server is stopped by the window") {
            let waiting = try await server.loop.submit { server.connections.first?.session.bufferedBytes(stream.withLockedValue { $0 }) ?? 0 }.get()
            return waiting > 0 && waiting < 12_000_000
        }
        let blocked = try await server.loop.submit { server.connections[0].session.bufferedBytes(stream.withLockedValue { $0 }) }.get()
        #expect(blocked > 8_000_000)
        // Other calls go on meanwhile.
        try await server.perform { $0.serveRange(as: "free") }
        #expect(try await client.get("who")?.valueText == "free")
        try await within(.seconds(30)) {
            var expected: Int64 = 2
            for try await batch in watch {
                for event in batch.events {
                    #expect(event.kv.modRevision.rawValue == expected)
                    expected += 1
                }
                if expected == 2 + Int64(total) { break }
            }
        }
        await client.close()
        try await server.stop()
    }

    @Test func cancellingEndsTheReaderAndTheServersStream() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, _, _ in connection.send(stream, watchCreated(1)) }
        }) { client, server in
            let watch = client.watch(prefix: "")
            _ = try await watch.started()
            let reader = Task { try await watch.first { _ in true } }
            watch.cancel()
            #expect(try await reader.value == nil)
            try await until("server sees the end") { server.cancelled.withLockedValue { $0 } == 1 }
        }
    }

    @Test func aDroppedWatchEndsOnTheServer() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, _, _ in connection.send(stream, watchCreated(1)) }
        }) { client, server in
            do {
                let watch = client.watch(prefix: "")
                _ = try await watch.started()
            }
            try await until("server sees the end") { server.cancelled.withLockedValue { $0 } == 1 }
        }
    }

    @Test func cancellingTheReadingTaskEndsTheWatch() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, _, _ in connection.send(stream, watchCreated(1)) }
        }) { client, server in
            let watch = client.watch(prefix: "")
            _ = try await watch.started()
            let reader = Task { for try await _ in watch {} }
            reader.cancel()
            #expect(await failure { try await reader.value } is CancellationError)
            try await until("server sees the end") { server.cancelled.withLockedValue { $0 } == 1 }
        }
    }

    @Test func watchesOfOneClientShareAConnection() async throws {
        try await run({ server in
            server.onWatch = { connection, stream, request, _ in
                connection.send(stream, watchCreated(1))
                connection.send(stream, watchEvents([putEvent(String(decoding: request.key, as: UTF8.self), 2)], at: 2))
            }
        }) { client, server in
            let watches = (0..<20).map { (index: $0, watch: client.watch(WatchQuery(.single(Key("key\($0)"))))) }
            for (index, watch) in watches {
                var iterator = watch.makeAsyncIterator()
                let batch = try await iterator.next()
                #expect(batch?.events.first?.kv.keyText == "key\(index)")
            }
            let accepted = try await server.loop.submit { server.accepted }.get()
            #expect(accepted == 1)
        }
    }
}

@Suite(.serialized) struct LeaseTests {
    private func renewal(_ id: Int64, ttl: Int64) -> PBLeaseKeepAliveResponse {
        var answer = PBLeaseKeepAliveResponse()
        answer.id = id
        answer.ttl = ttl
        return answer
    }

    @Test func aLeaseIsRenewedEveryThirdOfItsTimeUntilItIsGone() async throws {
        let server = ScriptedServer()
        let count = NIOLockedValueBox(0)
        server.onKeepAlive = { connection, stream, request in
            let number = count.withLockedValue { count in
                count += 1
                return count
            }
            connection.send(stream, self.renewal(request.id, ttl: number < 4 ? 1 : 0))
        }
        try await server.start()
        let client = try EtcdClient(configuration: quick(server.endpoint))
        let start = ContinuousClock.now
        try await within {
            var renewals = 0
            let error = await failure {
                for try await renewal in client.keepLeaseAlive(LeaseID(77)) {
                    #expect(renewal.id == LeaseID(77) && renewal.ttlSeconds == 1)
                    renewals += 1
                }
            }
            #expect(renewals == 3)
            #expect(error as? EtcdError == .leaseExpired(LeaseID(77)))
        }
        // Three waits of a third of a second.
        #expect(ContinuousClock.now - start >= .milliseconds(900))
        await client.close()
        try await server.stop()
    }

    @Test func renewingGoesOnAfterABrokenConnection() async throws {
        let server = ScriptedServer()
        let count = NIOLockedValueBox(0)
        server.onKeepAlive = { connection, stream, request in
            let number = count.withLockedValue { count in
                count += 1
                return count
            }
            if number == 2 { connection.close() } else { connection.send(stream, self.renewal(request.id, ttl: 1)) }
        }
        try await server.start()
        let client = try EtcdClient(configuration: quick(server.endpoint))
        try await within {
            var renewals = 0
            for try await _ in client.keepLeaseAlive(LeaseID(5)) {
                renewals += 1
                if renewals == 3 { break }
            }
            #expect(renewals == 3)
        }
        await client.close()
        try await server.stop()
    }

    @Test func aSingleRenewalTellsWhetherTheLeaseExists() async throws {
        let server = ScriptedServer()
        server.onKeepAlive = { connection, stream, request in
            connection.send(stream, self.renewal(request.id, ttl: request.id == 1 ? 60 : 0))
        }
        try await server.start()
        let client = try EtcdClient(configuration: quick(server.endpoint))
        #expect(try await client.keepLeaseAliveOnce(LeaseID(1)).ttlSeconds == 60)
        #expect(await failure { try await client.keepLeaseAliveOnce(LeaseID(2)) } as? EtcdError == .leaseExpired(LeaseID(2)))
        await client.close()
        try await server.stop()
    }
}
