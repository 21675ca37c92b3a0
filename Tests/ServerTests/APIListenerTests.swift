import Base
import GRPC
import Logging
import NIOCore
import NIOPosix
import Replica
import Store
import Testing
import Wire
@testable import Server

@Suite struct APIListenerTests {
    @Test func aTakenPortIsReportedAsSuch() async throws {
        try await TestBed.run { bed in
            do {
                _ = try await ClientListener.start(port: bed.member, group: bed.group, host: "127.0.0.1", tcpPort: bed.port, logger: Logger(label: "test"))
                Issue.record("bound twice")
            } catch let error as IOError {
                #expect(error.errnoCode == EADDRINUSE)
            }
            // The loops of the failed attempt are gone again.
            #expect(try await eventually { try await bed.member.attached == 1 })
        }
    }

    @Test func twoListenersOfAMemberDoNotMixTheirAnswers() async throws {
        try await TestBed.run { bed in
            let other = try await ClientListener.start(port: bed.member, group: bed.group, host: "localhost", tcpPort: 0, logger: Logger(label: "test"))
            let one = try await bed.client()
            let two = try await TestClient.connect(other.boundPort, group: bed.group)
            for n in 0..<20 {
                #expect(await one.call(.put, putRequest("a\(n)", "v")).status.code == .ok)
                #expect(await two.call(.range, rangeRequest("a\(n)")).messages.first.map { Fields($0).number(4) } == 1)
            }
            await other.close()
            #expect(await one.call(.status).status.code == .ok)
        }
    }

    @Test func connectionsAreServedByAllLoops() async throws {
        try await TestBed.run(loops: 3) { bed in
            var clients: [TestClient] = []
            for _ in 0..<6 { clients.append(try await bed.client()) }
            for client in clients { #expect(await client.call(.put, putRequest("k", "v")).status.code == .ok) }
            var loops = Set<UInt8>()
            for case .request(let token, _, _, _) in bed.member.events { loops.insert(token.loop) }
            #expect(loops == [0, 1, 2])
        }
    }

    @Test func protocolIsToldFromTheFirstBytesHoweverTheyArrive() async throws {
        var bounds = ClientBounds()
        // Byte by byte takes its time on a busy machine; the timeout has a test of its own.
        bounds.sniffTimeout = .seconds(300)
        try await TestBed.run(bounds: bounds) { bed in
            let text = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group)
            for byte in text.utf8 { try await channel.writeAndFlush(ByteBuffer(bytes: [byte])).get() }
            try await channel.closeFuture.get()
            #expect(collector.text.hasPrefix("HTTP/1.1 200 OK"))
            // The preface byte by byte, then a request line that only begins like it.
            let (second, answer) = try await RawConnection.open(bed.port, group: bed.group)
            for byte in "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8 { try await second.writeAndFlush(ByteBuffer(bytes: [byte])).get() }
            try await second.writeAndFlush(ByteBuffer(bytes: [0, 0, 0, 4, 0, 0, 0, 0, 0])).get()
            #expect(await eventually { answer.text.utf8.count >= 9 })
            try await second.close().get()
            let broken = try await RawConnection.exchange(bed.port, group: bed.group, "PRI /version HTTP/1.1\r\nConnection: close\r\n\r\n")
            #expect(broken.hasPrefix("HTTP/1.1 4"))
        }
    }

    @Test func aSilentConnectionIsClosed() async throws {
        var bounds = ClientBounds()
        bounds.sniffTimeout = .milliseconds(50)
        try await TestBed.run(bounds: bounds) { bed in
            let (channel, collector) = try await RawConnection.open(bed.port, group: bed.group)
            try await channel.closeFuture.get()
            #expect(collector.text == "")
        }
    }

    @Test func connectionsBeyondTheLimitAreClosedAndCountedOff() async throws {
        var bounds = ClientBounds()
        bounds.maxConnections = 2
        try await TestBed.run(bounds: bounds) { bed in
            let one = try await bed.client()
            let two = try await bed.client()
            #expect(await one.call(.status).status.code == .ok)
            #expect(await two.call(.status).status.code == .ok)
            let third = try await bed.client()
            #expect(await third.call(.status).status.code == .unavailable)
            await one.close()
            // The server hears of the end a little later than we do.
            let admitted = try await eventually {
                let next = try await bed.client()
                let isAdmitted = await next.call(.status).status.code == .ok
                await next.close()
                return isAdmitted
            }
            #expect(admitted)
        }
    }

    @Test func streamsBeyondTheLimitWaitForTheirTurn() async throws {
        var bounds = ClientBounds()
        bounds.maxConcurrentStreams = 10
        try await TestBed.run(bounds: bounds) { bed in
            let client = try await bed.client()
            #expect(await client.call(.status).status.code == .ok)
            let calls = client.startTogether(.put, (0..<100).map { putRequest("k\($0)", "v") })
            for call in calls { #expect(await call.end().status.code == .ok) }
        }
    }

    @Test func closingLetsRunningCallsFinishAndEndsStreams() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, member in
                guard case .request(let token, .propose, _, _) = event else { return false }
                _ = member.loop.scheduleTask(in: .milliseconds(100)) { member.answer(token, .encoded([])) }
                return true
            }
            let client = try await bed.client()
            let watch = client.start(.watch)
            let put = client.start(.put)
            put.send(putRequest("k", "v"))
            put.halfClose()
            #expect(await eventually { bed.member.events.count == 2 })
            await bed.listener.close(within: .seconds(20))
            #expect(await put.end().status.code == .ok)
            let ended = await watch.end().status
            #expect(ended.code == .unavailable && ended.message == ServiceError.stopped.message)
            #expect(try await client.hasGoAway)
            #expect(try await bed.member.attached == 0)
            await #expect(throws: (any Error).self) { _ = try await bed.client() }
        }
    }

    @Test func closingDoesNotWaitForEver() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let client = try await bed.client()
            let put = client.start(.put)
            put.send(putRequest("k", "v"))
            put.halfClose()
            #expect(await eventually { bed.member.events.count == 1 })
            await bed.listener.close(within: .milliseconds(50))
            #expect(await put.end().status.code == .unavailable)
        }
    }

    @Test func abortResetsConnectionsAndFreesThePort() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, _ in if case .request = event { true } else { false } }
            let client = try await bed.client()
            let put = client.start(.put)
            put.send(putRequest("k", "v"))
            put.halfClose()
            #expect(await eventually { bed.member.events.count == 1 })
            try await bed.listener.abort().get()
            #expect(await put.end().status.code == .unavailable)
            #expect((client.closeError as? IOError)?.errnoCode == ECONNRESET)
            let again = try await ClientListener.start(port: bed.member, group: bed.group, host: "127.0.0.1", tcpPort: bed.port, logger: Logger(label: "test"))
            try await again.abort().get()
        }
    }

    @Test func aPausedListenerAnswersNobodyUntilItResumes() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            #expect(await client.call(.put, putRequest("k", "v")).status.code == .ok)
            let seen = bed.member.events.count
            try await bed.listener.setPaused(true).get()
            // Both directions stand still: what arrives now is read only later, in one batch.
            let early = client.startTogether(.range, (0..<20).map { _ in rangeRequest("k") })
            let stranger = try await bed.client()
            let late = stranger.start(.range)
            late.send(rangeRequest("k"))
            late.halfClose()
            try await Task.sleep(for: .milliseconds(100))
            #expect(bed.member.events.count == seen)
            bed.listener.setPaused(false)
            for call in early { #expect(await call.end().status.code == .ok) }
            #expect(await late.end().status.code == .ok)
        }
    }

    @Test func answersThatArriveWhilePausedAreSentAfterwards() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, member in
                guard case .request(let token, .propose, _, _) = event else { return false }
                bed.listener.setPaused(true)
                // Behind the pause on the same loop.
                _ = member.loop.scheduleTask(in: .milliseconds(20)) {
                    member.answer(token, .encoded([]))
                    _ = member.loop.scheduleTask(in: .milliseconds(50)) { bed.listener.setPaused(false) }
                }
                return true
            }
            let client = try await bed.client()
            let clock = ContinuousClock()
            let start = clock.now
            #expect(await client.call(.put, putRequest("k", "v")).status.code == .ok)
            #expect(clock.now - start >= .milliseconds(65))
        }
    }
}
