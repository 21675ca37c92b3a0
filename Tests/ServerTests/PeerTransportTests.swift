import Base
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Replica
import Testing

@testable import Server

/// What a member concludes from its connections to a peer. The peer is played by plain sockets.
@Suite(.serialized) struct PeerTransportTests {
    private static let own = MemberID(1), peer = MemberID(2)

    /// A transport of member 1 and a port at which member 2 listens or does not.
    private final class Bed {
        let group = MultiThreadedEventLoopGroup.singleton
        let events = NIOLockedValueBox<[ReplicaEvent]>([])
        let accepted = NIOLockedValueBox<[any Channel]>([])
        let found = NIOLockedValueBox(0)
        let transport: PeerTransport
        let ownPort: Int
        var listener: (any Channel)?
        private(set) var peerPort = 0

        init() async throws {
            let events = self.events
            let identity = NodeIdentity(cluster: ClusterID(7), member: own, name: "n1", options: ReplicaOptions())
            transport = PeerTransport(identity: identity, loop: group.next(), links: OpenLinks(), generator: SeededGenerator(seed: 1), metrics: NodeMetrics(), logger: Logger(label: "test"),
                                      intake: { _, _ in preconditionFailure("no snapshots here") }, post: { new in events.withLockedValue { $0 += new } })
            ownPort = try await transport.listen(host: "127.0.0.1", port: 0).get().localAddress!.port!
            try await listen()
            let address = PeerAddress(id: peer, host: "127.0.0.1", port: peerPort)
            let transport = self.transport
            let found = self.found
            try await transport.loop.submit {
                transport.note = { if case .peerFound = $0 { found.withLockedValue { $0 += 1 } } }
                transport.setPeers([address])
            }.get()
            try await isConnected(1)
        }

        func listen() async throws {
            let accepted = self.accepted
            listener = try await ServerBootstrap(group: group)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    accepted.withLockedValue { $0.append(channel) }
                    return channel.eventLoop.makeSucceededVoidFuture()
                }
                .bind(host: "127.0.0.1", port: peerPort).get()
            peerPort = listener!.localAddress!.port!
        }

        /// At both ends: one that breaks before the transport has it was never there to be lost.
        func isConnected(_ times: Int) async throws {
            try await until("connection \(times)") { accepted.withLockedValue { $0.count } >= times && found.withLockedValue { $0 } >= times }
        }

        /// A connection from the peer, on which it says something.
        func connectAsPeer() async throws -> any Channel {
            let channel = try await connectSaying(cluster: ClusterID(7), to: own)
            try await until("the peer's message") { heard > 0 }
            return channel
        }

        /// A connection on which one message comes, for whomever.
        func connectSaying(cluster: ClusterID, to receiver: MemberID) async throws -> any Channel {
            let channel = try await ClientBootstrap(group: group).connect(host: "127.0.0.1", port: ownPort).get()
            var writer = ByteWriter()
            PeerFrame(kind: .messages, cluster: cluster, from: peer, to: receiver).write(into: &writer) { body in
                let at = body.bytes.count + 5
                body.writeVarint(1)
                body.write(0 as UInt32)
                PeerMessage(from: peer, to: receiver, body: .notLeader(number: 1)).encodeBody(into: &body)
                let length = UInt32(body.bytes.count - at)
                body.bytes.withUnsafeMutableBytes { $0.storeBytes(of: length.littleEndian, toByteOffset: at - 4, as: UInt32.self) }
            }
            try await channel.writeAndFlush(ByteBuffer(bytes: writer.bytes)).get()
            return channel
        }

        private func count(_ matches: (ReplicaEvent) -> Bool) -> Int { events.withLockedValue { $0.count(where: matches) } }
        var lost: Int { count { if case .peerUnreachable(peer) = $0 { true } else { false } } }
        var gone: Int { count { if case .peerGone(peer) = $0 { true } else { false } } }
        var heard: Int { count { if case .peer = $0 { true } else { false } } }

        func resetAccepted() {
            for channel in accepted.withLockedValue({ $0 }) {
                resetOnClose(channel)
                channel.close(promise: nil)
            }
        }

        func end() async throws {
            let transport = self.transport
            try await transport.loop.flatSubmit { transport.close(abruptly: true) }.get()
            try? await listener?.close().get()
            resetAccepted()
        }
    }

    private static func until(_ what: String, _ condition: () -> Bool) async throws {
        let limit = ContinuousClock.now + .seconds(20)
        while !condition() {
            try #require(ContinuousClock.now < limit, "waited for \(what)")
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    @Test func peerWhoseConnectionsAreClosedAndRefusedIsGone() async throws {
        let bed = try await Bed()
        let incoming = try await bed.connectAsPeer()
        // As the kernel does for a process that was killed: everything at once.
        try await bed.listener!.close().get()
        bed.resetAccepted()
        try await incoming.close().get()
        try await Self.until("the news") { bed.gone > 0 }
        #expect(bed.lost == 1)
        // Said again while nobody listens, until it is back; and when it goes again.
        try await Self.until("the same news") { bed.gone > 1 }
        try await bed.listen()
        try await bed.isConnected(2)
        let before = bed.gone
        try await bed.listener!.close().get()
        bed.resetAccepted()
        try await Self.until("the second news") { bed.gone > before }
        try await bed.end()
    }

    @Test func connectionThatBreaksAndIsMadeAgainIsNoEnd() async throws {
        let bed = try await Bed()
        for round in 1...5 {
            bed.resetAccepted()
            try await bed.isConnected(round + 1)
            try await Self.until("the loss") { bed.lost == round }
        }
        #expect(bed.gone == 0)
        try await bed.end()
    }

    @Test func peerThatIsStillHeardIsNotGone() async throws {
        let bed = try await Bed()
        let incoming = try await bed.connectAsPeer()
        // Its listener is closed, or a firewall refuses; but it still sends.
        try await bed.listener!.close().get()
        bed.resetAccepted()
        try await Self.until("the loss") { bed.lost == 1 }
        let heard = bed.heard
        let second = try await bed.connectAsPeer()
        try await Self.until("another message") { bed.heard > heard }
        #expect(bed.gone == 0)
        try await incoming.close().get()
        try await second.close().get()
        try await Self.until("the news") { bed.gone > 0 }
        try await bed.end()
    }

    /// Incident 50: a message that is not for this member of this cluster ends its connection, and is not looked at.
    @Test(arguments: [(ClusterID(8), MemberID(1)), (ClusterID(7), MemberID(3)), (ClusterID(8), MemberID(3))])
    func whatIsForAnotherIsNotTaken(_ cluster: ClusterID, _ receiver: MemberID) async throws {
        let bed = try await Bed()
        let stray = try await bed.connectSaying(cluster: cluster, to: receiver)
        try await stray.closeFuture.get()
        #expect(bed.heard == 0)
        // The right one is heard as before.
        _ = try await bed.connectAsPeer()
        try await bed.end()
    }
}
