import Base
import GRPC
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import RawHTTP2
import Replica
import TestCertificates
import Testing
import Wire
@testable import Server

@Suite(.serialized) struct KeepAliveTests {
    private static let calm = HTTP2ErrorCode.enhanceYourCalm.rawValue

    private static func bounds(_ change: (inout KeepAliveOptions) -> Void) -> ClientBounds {
        var bounds = ClientBounds()
        change(&bounds.keepAlive)
        return bounds
    }

    // MARK: Clients' pings

    @Test(arguments: [false, true]) func tooManyPingsEndTheConnection(hasCall: Bool) async throws {
        try await TestBed.run { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            if hasCall { peer.send([.headers(1, path: MethodID.watch.path)]) }
            peer.send((0..<4).map { .ping($0) })
            #expect(peer.readToEnd())
            let end = try #require(peer.frames.last { $0.kind == .goAway })
            #expect(end.goAwayCode == Self.calm && end.debug == "too_many_pings")
            // Those before were answered.
            #expect(peer.frames.filter { $0.kind == .ping && $0.flags == RawFrame.ack }.map { $0.payload[0] } == [0, 1, 2, 3])
            if hasCall { #expect(await eventually { bed.member.events.count == 2 }, "the call is over at the member, too") }
        }
    }

    @Test func pingsAtTheirIntervalAreWelcomeAndZeroMeansGRPCsOwn() async throws {
        try await TestBed.run(bounds: Self.bounds { $0.minPingInterval = TimeSpan(nanoseconds: 1) }) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            peer.send([.headers(1, path: MethodID.watch.path)])
            for number in 0..<50 {
                peer.send([.ping(UInt8(number))])
                #expect(peer.read { $0.frames.contains { $0.kind == .ping && $0.payload[0] == UInt8(number) } })
            }
            #expect(!peer.frames.contains { $0.kind == .goAway })
        }
        try await TestBed.run(bounds: Self.bounds { $0.minPingInterval = .zero }) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            peer.send([.headers(1, path: MethodID.watch.path)] + (0..<4).map { .ping($0) })
            #expect(peer.readToEnd() && peer.frames.last?.debug == "too_many_pings")
        }
    }

    @Test func answersMakePingsFree() async throws {
        try await TestBed.run { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            for turn in 0..<20 {
                let stream = Int32(1 + 2 * turn)
                peer.send([.headers(stream, path: MethodID.put.path), .message(stream, putRequest("k", "v"), ends: true)])
                #expect(peer.read { $0.frames.contains { $0.stream == stream && $0.flags & RawFrame.endStream != 0 } })
                peer.send([.ping(UInt8(turn))])
                #expect(peer.read { $0.frames.contains { $0.kind == .ping && $0.payload[0] == UInt8(turn) } })
            }
            #expect(!peer.frames.contains { $0.kind == .goAway })
        }
    }

    /// etcd does not watch them there: clients may be tuned to that.
    @Test func overTLSPingsAreNotCounted() async throws {
        try await Self.withTLS { bed in
            let (channel, collector) = try await Self.connectTLS(bed)
            try await channel.writeAndFlush(ByteBuffer(bytes: RawFrame.preface + (0..<100).flatMap { RawFrame.ping($0).bytes })).get()
            #expect(await eventually { collector.frames.filter { $0.kind == .ping }.count == 100 })
            #expect(channel.isActive && !collector.frames.contains { $0.kind == .goAway })
            try await channel.close().get()
            // Whoever comes to the same port without TLS is watched.
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            peer.send((0..<4).map { .ping($0) })
            #expect(peer.readToEnd() && peer.frames.last?.debug == "too_many_pings")
        }
    }

    /// A port with and without TLS.
    private static func withTLS(bounds: ClientBounds = ClientBounds(), _ body: (TestBed) async throws -> Void) async throws {
        try await withDirectory { directory in
            let pair = try TestAuthority(in: directory).issue("server", commonName: "server")
            var options = TLSOptions()
            (options.certificateFile, options.keyFile) = (pair.certificate, pair.key)
            let material = TLSMaterial(side: .client, options: options, rules: try .standard, logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
            try material.load()
            var tls = TLSPort(material: material, acceptsPlaintext: true)
            tls.handshakeTimeout = .seconds(300)
            try await TestBed.run(bounds: bounds, tls: tls, body)
        }
    }

    private static func connectTLS(_ bed: TestBed) async throws -> (any Channel, ByteCollector) {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .none
        configuration.applicationProtocols = ["h2"]
        let context = try NIOSSLContext(configuration: configuration)
        let collector = ByteCollector()
        let channel = try await ClientBootstrap(group: bed.group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandlers([try NIOSSLClientHandler(context: context, serverHostname: nil), collector])
            }
        }.connect(host: "127.0.0.1", port: bed.port).get()
        return (channel, collector)
    }

    // MARK: The server's pings

    @Test func whoVanishesIsNoticedAndItsCallsAreReleased() async throws {
        try await TestBed.run(bounds: Self.bounds { ($0.interval, $0.timeout) = (.milliseconds(40), .milliseconds(200)) }) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            peer.send([.headers(1, path: MethodID.watch.path), .headers(3, path: MethodID.leaseKeepAlive.path), .message(3, numberRequest(7))])
            #expect(peer.readToEnd())
            #expect(peer.frames.contains { $0.kind == .ping && $0.flags == 0 })
            let closed = await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } }
            #expect(closed)
        }
    }

    @Test func overTLSWhoVanishesIsNoticedAsWell() async throws {
        try await Self.withTLS(bounds: Self.bounds { ($0.interval, $0.timeout) = (.milliseconds(40), .milliseconds(200)) }) { bed in
            let (channel, collector) = try await Self.connectTLS(bed)
            try await channel.writeAndFlush(ByteBuffer(bytes: RawFrame.preface + RawFrame.headers(1, path: MethodID.watch.path).bytes)).get()
            try await channel.closeFuture.get()
            #expect(collector.frames.contains { $0.kind == .ping && $0.flags == 0 })
            let closed = await eventually { bed.member.events.contains { if case .watch(_, .close) = $0 { true } else { false } } }
            #expect(closed)
        }
    }

    @Test func whoAnswersStays() async throws {
        try await TestBed.run(bounds: Self.bounds { ($0.interval, $0.timeout) = (.milliseconds(20), .seconds(20)) }) { bed in
            let peer = try RawPeer(port: bed.port)
            peer.send(RawFrame.preface)
            for turn in 1...5 {
                #expect(peer.read { $0.frames.filter { $0.kind == .ping }.count >= turn })
                let asked = try #require(peer.frames.last { $0.kind == .ping })
                peer.send([RawFrame(kind: .ping, flags: RawFrame.ack, payload: asked.payload)])
            }
            peer.send([.headers(1, path: MethodID.put.path), .message(1, putRequest("k", "v"), ends: true)])
            #expect(peer.read { $0.frames.contains { $0.stream == 1 && $0.flags & RawFrame.endStream != 0 } })
        }
    }

    @Test func looksFindWhoIsGone() {
        var options = KeepAliveOptions()
        (options.interval, options.timeout) = (.seconds(100), .seconds(20))
        func at(_ seconds: Int64) -> Instant { Instant.zero + .seconds(seconds) }
        var vigil = Vigil()
        #expect(vigil.look(at: at(0), options) == .fine)
        #expect(vigil.look(at: at(99), options) == .fine && !vigil.isWaiting)
        #expect(vigil.look(at: at(100), options) == .ask && vigil.isWaiting)
        #expect(vigil.look(at: at(119), options) == .fine)
        vigil.hasHeard = true
        #expect(vigil.look(at: at(121), options) == .fine && !vigil.isWaiting, "anything will do for an answer")
        #expect(vigil.look(at: at(220), options) == .fine)
        #expect(vigil.look(at: at(221), options) == .ask)
        #expect(vigil.look(at: at(241), options) == .gone)
        for off in [(TimeSpan.zero, TimeSpan.seconds(1)), (.seconds(1), .zero)] {
            (options.interval, options.timeout) = off
            var vigil = Vigil()
            #expect((0..<1_000).allSatisfy { vigil.look(at: at($0 * 1_000), options) == .fine })
        }
    }

    @Test func looksAreRareAndInTime() {
        var bounds = ClientBounds()
        #expect(Upkeep(bounds).next(isWaiting: false) == .seconds(75) && Upkeep(bounds).next(isWaiting: true) == .seconds(5))
        (bounds.keepAlive.interval, bounds.keepAlive.timeout) = (.seconds(8), .seconds(100))
        #expect(Upkeep(bounds).next(isWaiting: false) == .seconds(1) && Upkeep(bounds).next(isWaiting: true) == .seconds(1))
        bounds.keepAlive.interval = .zero
        #expect(Upkeep(bounds).next(isWaiting: true) == .seconds(75))
    }
}

/// What a server sends, from a channel.
final class ByteCollector: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    private let collected = NIOLockedValueBox<[UInt8]>([])
    var frames: [RawFrame] { RawFrame.parse(collected.withLockedValue { $0 }) }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = unwrapInboundIn(data)
        collected.withLockedValue { $0 += part.readableBytesView }
    }
}
