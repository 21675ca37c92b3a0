import Base
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import Replica
import Store
import Testing
import Wire
@testable import Server

@Suite struct APIStreamTests {
    private func encoded(_ request: WatchRequest) -> [UInt8] {
        var writer = ByteWriter()
        request.encode(into: &writer)
        return writer.bytes
    }

    /// Answers creations, and hands the stream's number out.
    private func serveWatches(_ bed: TestBed) async throws {
        try await bed.member.setScript { event, member in
            guard case .watch(let stream, .request(.create)) = event else { return false }
            var response = WatchResponse(headerRevision: Revision(5), watchID: WatchID(0))
            response.created = true
            member.emit([response], on: stream)
            return true
        }
    }

    @Test func watchResponsesCarryTheHeaderAndSurviveHalfClose() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let client = try await bed.client()
            let call = client.start(.watch)
            call.send(encoded(.create(WatchCreateRequest(key: [0x61]))))
            let created = Fields(try #require(await call.next()))
            #expect(created.number(3) == 1)
            let header = try #require(created.message(1))
            #expect(header.number(1) == 0xdef && header.number(2) == 0xabc && header.number(3) == 5 && header.number(4) == 7)
            call.halfClose()
            guard case .watch(let stream, .open(requiresLeader: false, from: .none)) = bed.member.events[0] else {
                Issue.record("\(bed.member.events)")
                return
            }
            let event = WatchEvent(isDelete: false, kv: [0x0a, 0x01, 0x61])
            bed.member.loop.execute { bed.member.emit([WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [event])], on: stream) }
            let update = Fields(try #require(await call.next()))
            #expect(update.message(1)?.number(3) == 6)
            #expect(update.message(11)?.message(2)?.text(1) == "a")
        }
    }

    @Test func deliveredResponsesAreCreditedOnceTheyHaveLeft() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let client = try await bed.client()
            let call = client.start(.watch)
            call.send(encoded(.create(WatchCreateRequest(key: [0x61]))))
            _ = try #require(await call.next())
            func credit() -> (responses: Int, bytes: Int) {
                bed.member.events.reduce((0, 0)) { sum, event in
                    guard case .watch(_, .delivered(let responses, let bytes)) = event else { return sum }
                    return (sum.0 + responses, sum.1 + bytes)
                }
            }
            #expect(await eventually { credit().responses == 1 })
            guard case .watch(let stream, _) = bed.member.events[0] else { return }
            // Far more than the stream's window of 1 MiB: the client gives none of it back yet.
            call.pause()
            let event = WatchEvent(isDelete: false, kv: [UInt8](repeating: 0, count: 100_000))
            let response = WatchResponse(headerRevision: Revision(6), watchID: WatchID(0), events: [event])
            bed.member.loop.execute { bed.member.emit(Array(repeating: response, count: 40), on: stream) }
            #expect(await eventually { credit().responses > 5 })
            let held = credit().responses
            #expect(held < 20)
            call.resume()
            var count = 0
            while count < 40, await call.next() != nil { count += 1 }
            #expect(count == 40)
            #expect(await eventually { credit().responses == 41 })
            var created = WatchResponse(headerRevision: Revision(5), watchID: WatchID(0))
            created.created = true
            #expect(credit().bytes == created.backlogBytes + 40 * response.backlogBytes)
        }
    }

    @Test func cancellingAWatchClosesItAtTheMember() async throws {
        try await TestBed.run { bed in
            try await serveWatches(bed)
            let client = try await bed.client()
            let call = client.start(.watch)
            call.send(encoded(.create(WatchCreateRequest(key: [0x61]))))
            _ = await call.next()
            call.cancel()
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
        }
    }

    @Test func aWatchWithoutLeaderEndsInEtcdsWords() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, member in
                guard case .watch(let stream, .open(requiresLeader: true, from: .none)) = event else { return false }
                member.endLeaderless(stream)
                return true
            }
            let client = try await bed.client()
            let end = await client.start(.watch, metadata: [MetadataField("hasleader", "true")]).end()
            #expect(end.status.code == .unavailable)
            #expect(end.status.message == ServiceError.noLeader.message)
        }
    }

    @Test func nonsenseOnAWatchEndsItWithAnError() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let call = client.start(.watch)
            call.send([0x0a, 0xff])
            #expect(await call.end().status.code == .internal)
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
        }
    }

    @Test func keepAliveAnswersInTheOrderOfTheRequests() async throws {
        try await TestBed.run { bed in
            // Answers come in pairs, the later one first.
            let waiting = NIOLockedValueBox<[(RequestToken, LeaseID)]>([])
            try await bed.member.setScript { event, member in
                guard case .request(let token, .leaseKeepAlive(let lease), _, _) = event else { return false }
                let ready = waiting.withLockedValue { list -> [(RequestToken, LeaseID)] in
                    list.append((token, lease))
                    if list.count < 2 { return [] }
                    defer { list = [] }
                    return list.reversed()
                }
                for (token, lease) in ready { member.answer(token, .leaseRenewed(lease, ttlSeconds: lease.rawValue == 404 ? 0 : 60)) }
                return true
            }
            let client = try await bed.client()
            let call = client.start(.leaseKeepAlive)
            for lease in [77, 404, 78, 79] as [Int64] { call.send(numberRequest(lease)) }
            call.halfClose()
            let end = await call.end()
            #expect(end.status.code == .ok)
            #expect(end.messages.map { Fields($0).number(2) } == [77, 404, 78, 79])
            #expect(end.messages.map { Fields($0).number(3) } == [60, 0, 60, 60])
            #expect(end.messages.allSatisfy { Fields($0).message(1)?.number(2) == 0xabc })
        }
    }

    @Test func manyRenewalsOnOneStreamAllGetAnAnswer() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let call = client.start(.leaseKeepAlive)
            for lease in 1...5_000 { call.send(numberRequest(Int64(lease))) }
            call.halfClose()
            let end = await call.end()
            #expect(end.status.code == .ok)
            #expect(end.messages.map { Fields($0).number(2) } == (1...5_000).map { UInt64($0) })
        }
    }

    @Test func aFailedRenewalEndsTheStreamAfterWhatCameBefore() async throws {
        try await TestBed.run { bed in
            try await bed.member.setScript { event, member in
                guard case .request(let token, .leaseKeepAlive(let lease), _, _) = event else { return false }
                if lease.rawValue == 2 { member.answer(token, .failed(.notPrimaryLessor)) } else { member.answer(token, .leaseRenewed(lease, ttlSeconds: 9)) }
                return true
            }
            let client = try await bed.client()
            let call = client.start(.leaseKeepAlive)
            for lease in [1, 2, 3] as [Int64] { call.send(numberRequest(lease)) }
            let end = await call.end()
            #expect(end.messages.map { Fields($0).number(2) } == [1])
            #expect(end.status.code == .unknown && end.status.message == "not a primary lessor")
        }
    }

    @Test func streamDeadlinesEndStreams() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let end = await client.start(.watch, timeout: .milliseconds(40)).end()
            #expect(end.status.code == .deadlineExceeded)
            #expect(await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } })
        }
    }
}
