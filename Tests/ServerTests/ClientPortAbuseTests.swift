import Base
import GRPC
import NIOCore
import NIOPosix
import RawHTTP2
import Replica
import Store
import Testing
import Wire
@testable import Server

private enum FrameFlood {
    /// More than a client may send for nothing.
    static let size = 20_000
}

/// Clients that want to cost more than they pay, on real sockets: what each may hold is bounded, and so is its time.
@Suite(.serialized) struct ClientPortAbuseTests {
    private static let calm = HTTP2ErrorCode.enhanceYourCalm.rawValue

    // MARK: Slow beginnings

    @Test(arguments: ["", "PRI * HTTP/2.0\r\n\r\nSM", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{0}\u{0}\u{6}\u{4}\u{0}"])
    func whoNeverGreetsIsClosed(_ beginning: String) async throws {
        var bounds = ClientBounds()
        bounds.sniffTimeout = .milliseconds(100)
        try await TestBed.run(bounds: bounds) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(Array(beginning.utf8))
            #expect(peer.readToEnd())
        }
    }

    @Test func greetingEndsThatTime() async throws {
        var bounds = ClientBounds()
        bounds.sniffTimeout = .seconds(2)
        try await TestBed.run(bounds: bounds) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            // Its settings are answered, so its time has ended; a silent connection shows when the time would have been over.
            #expect(peer.read { $0.frames.contains { $0.kind == .settings && $0.flags == RawFrame.ack } })
            #expect(try RawPeer(port: bed.port).readToEnd())
            peer.send([.headers(1, path: MethodID.put.path), .message(1, putRequest("k", "v"), ends: true)])
            #expect(peer.read { $0.frames.contains { $0.stream == 1 && $0.flags & RawFrame.endStream != 0 } })
        }
    }

    @Test func aRequestHeadThatComesInDropsIsNotWaitedFor() async throws {
        var bounds = ClientBounds()
        bounds.httpIdleTimeout = .milliseconds(300)
        try await TestBed.run(bounds: bounds) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(Array("GET /version HTTP/1.1\r\nHost: x\r\n".utf8))
            var drops = 0
            while !peer.isClosed, drops < 500 {
                peer.send(Array("X-\(drops): y\r\n".utf8))
                peer.read(waiting: 20)
                drops += 1
            }
            #expect(peer.isClosed)
        }
    }

    @Test func halfARequestIsGivenUpAndTheConnectionStays() async throws {
        var bounds = ClientBounds()
        bounds.stuckTimeout = .milliseconds(100)
        try await TestBed.run(bounds: bounds) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            peer.send([.headers(1, path: MethodID.put.path), .data(1, [0, 0, 0, 4, 0, 1, 2, 3]), .headers(3, path: MethodID.watch.path)])
            #expect(peer.read { $0.frames.contains { $0.kind == .reset && $0.stream == 1 } })
            peer.send([.headers(5, path: MethodID.put.path), .message(5, putRequest("k", "v"), ends: true)])
            #expect(peer.read { $0.frames.contains { $0.stream == 5 && $0.flags & RawFrame.endStream != 0 } })
            #expect(!peer.frames.contains { $0.stream == 3 }, "a watch may wait for ever")
        }
    }

    // MARK: Memory

    @Test func unfinishedRequestsOfAllClientsShareTheirRoom() async throws {
        var bounds = ClientBounds()
        bounds.maxTotalPartialRequestBytes = 4 << 20
        bounds.fairPartialRequestBytes = 1 << 20
        try await TestBed.run(bounds: bounds) { bed in
            let part = [UInt8](repeating: 0, count: 16_000)
            func begin() throws -> RawPeer {
                let peer = try RawPeer(port: bed.port)
                peer.send(RawFrame.preface)
                #expect(peer.read { $0.frames.contains { $0.kind == .settings && $0.flags == 0 } })
                peer.send([RawFrame(kind: .settings, flags: RawFrame.ack)])
                // Of a message of 1.9 MB, 1.6 MB, as fast as the server's windows allow; they are as large.
                peer.send([.headers(1, path: MethodID.put.path), .data(1, [0, 0, 0x1d, 0, 0])])
                for _ in 0..<64 { peer.send([.data(1, part)]) }
                #expect(peer.read { $0.frames.contains { $0.kind == .windowUpdate && $0.stream == 1 } || $0.isClosed })
                for _ in 0..<36 { peer.send([.data(1, part)]) }
                return peer
            }
            var peers: [RawPeer] = []
            var cut: RawPeer?
            while cut == nil, peers.count < 20 {
                let peer = try begin()
                peers.append(peer)
                // What it sent has been read when a ping behind it is answered.
                peer.send([.ping(9)])
                _ = peer.read { $0.frames.contains { $0.kind == .ping } || $0.isClosed }
                cut = peer.frames.contains { $0.kind == .goAway && $0.goAwayCode == Self.calm } ? peer : nil
            }
            #expect(cut != nil && peers.count <= 5, "\(peers.count)")
            // Small requests are served meanwhile, and the others kept what they have.
            let client = try await bed.client()
            #expect(await client.call(.put, putRequest("k", "v")).status.code == .ok)
            for peer in peers.dropLast() {
                peer.read()
                #expect(!peer.isClosed)
            }
        }
    }

    @Test func whoDoesNotReadAnswersIsCutOffWhenOthersWait() async throws {
        var bounds = ClientBounds()
        bounds.maxTotalResponseBytes = 4 << 20
        bounds.stuckAnswerBytes = 256 << 10
        bounds.stuckTimeout = .milliseconds(200)
        try await TestBed.run(bounds: bounds) { bed in
            let client = try await bed.client()
            #expect(await client.call(.put, putRequest("k", String(repeating: "v", count: 1 << 20))).status.code == .ok)
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            // It may be sent everything, and takes nothing.
            peer.send([.settings((4, 0x7fff_ffff)), .windowUpdate(0, 0x7fff_0000)])
            let range = rangeRequest("k", end: "l")
            for turn in 0..<32 { peer.send([.headers(Int32(1 + 2 * turn), path: MethodID.range.path), .message(Int32(1 + 2 * turn), range, ends: true)]) }
            // What waits for room is called off when it is gone, and others have the room.
            let cut = await eventually { bed.member.events.contains { if case .cancel = $0 { true } else { false } } }
            #expect(cut)
            #expect(await client.call(.range, range).status.code == .ok)
            #expect(peer.readToEnd())
        }
    }

    @Test func answersToSettingsThatNobodyReadsAreNotCollected() async throws {
        var bounds = ClientBounds()
        bounds.farewellTimeout = .milliseconds(100)
        try await TestBed.run(bounds: bounds) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            let flood = (0..<1_000).flatMap { _ in RawFrame.settings((4, 65_535)).bytes }
            var floods = 0
            while peer.send(flood), floods < 2_000 { floods += 1 }
            #expect(peer.isClosed, "after \(floods) thousand")
        }
    }

    @Test func aConnectionThatIsToEndDoesSoThoughItsClientDoesNotRead() async throws {
        var bounds = ClientBounds()
        bounds.farewellTimeout = .milliseconds(100)
        try await TestBed.run(bounds: bounds) { bed in
            let client = try await bed.client()
            #expect(await client.call(.put, putRequest("k", String(repeating: "v", count: 1 << 20))).status.code == .ok)
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            peer.send([.settings((4, 0x7fff_ffff)), .windowUpdate(0, 0x7fff_0000), .headers(1, path: MethodID.watch.path)])
            for turn in 1..<40 { peer.send([.headers(Int32(1 + 2 * turn), path: MethodID.range.path), .message(Int32(1 + 2 * turn), rangeRequest("k"), ends: true)]) }
            #expect(await eventually { bed.member.events.count >= 40 })
            // Larger than all that the kernel takes for it; then what ends a connection.
            peer.send((0..<FrameFlood.size).map { _ in RawFrame(kind: .priority, stream: 1, payload: [0, 0, 0, 0, 1]) })
            let released = await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } }
            #expect(released)
            #expect(peer.readToEnd())
        }
    }

    @Test func thousandsOfIdleConnectionsCostLittleAndAreGivenBack() async throws {
        var bounds = ClientBounds()
        bounds.maxConnections = 1_500
        try await TestBed.run(bounds: bounds, loops: 2) { bed in
            let before = ProcessFigures.read()
            var peers: [RawPeer] = []
            for _ in 0..<1_500 {
                let peer = try RawPeer(port: bed.port)
                peer.send(RawFrame.preface)
                peers.append(peer)
            }
            for peer in peers { #expect(peer.read { $0.frames.contains { $0.kind == .settings && $0.flags == RawFrame.ack } }) }
            let cost = Int(ProcessFigures.read().residentBytes) - Int(before.residentBytes)
            #expect(cost < 1_500 * 128 << 10, "\(cost / 1_500) bytes for each")
            // No more than that.
            #expect(try RawPeer(port: bed.port).readToEnd())
            peers[700].send([.headers(1, path: MethodID.put.path), .message(1, putRequest("k", "v"), ends: true)])
            #expect(peers[700].read { $0.frames.contains { $0.stream == 1 && $0.flags & RawFrame.endStream != 0 } })
            peers = []
            let served = try await eventually {
                let client = try await bed.client()
                let isServed = await client.call(.put, putRequest("k", "v")).status.code == .ok
                await client.close()
                return isServed
            }
            #expect(served)
        }
    }

    @Test func clientsLeaveDescriptorsForTheRest() {
        #expect(DescriptorLimit.connections(ofDescriptors: 1_024) == 874)
        #expect(DescriptorLimit.connections(ofDescriptors: 100) == 50)
        #expect(DescriptorLimit.connections(ofDescriptors: .max) == .max - 150)
        DescriptorLimit.raise()
        #expect(DescriptorLimit.connections > 0)
    }
}
