import Base
import Log
import Logging
import NIOCore
import NIOEmbedded
import NIOHTTP1
@testable import Replica
@testable import Server
import Store

// The peer port's connections without sockets: frames in any pieces, the little HTTP beside them, and what a member that is asked for the list of
// members may answer.

extension FuzzTargets {
    static let peerConnections: [FuzzTarget] = [
        FuzzTarget(name: "peer-frames", seeds: PeerConnectionImages.frameSeeds, words: ["GET /members HTTP/1.1\r\n\r\n"], run: PeerConnectionImages.hear),
        FuzzTarget(name: "members-answer", seeds: PeerConnectionImages.answerSeeds, words: ["X-Etcd-Cluster-Id: ", "Content-Length: ", "\"peerURLs\":[", "\\u00"], run: PeerConnectionImages.readAnswer),
    ]
}

private enum PeerConnectionImages {
    private static let identity = NodeIdentity(cluster: ClusterID(0xc1), member: StoreImage.member, name: "n1", options: ReplicaOptions())
    private static let peer = MemberID(0xb2)
    private static let logger = Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }

    // MARK: Frames

    private static func frame(_ kind: PeerFrame.Kind, _ payload: [UInt8], from: MemberID = peer) -> [UInt8] {
        var writer = ByteWriter()
        PeerFrame(kind: kind, cluster: identity.cluster, from: from, to: identity.member).write(into: &writer) { $0.write(payload) }
        return writer.bytes
    }

    private static func messages(_ bodies: [[UInt8]]) -> [UInt8] {
        var writer = ByteWriter()
        writer.writeVarint(UInt64(bodies.count))
        for body in bodies {
            writer.write(UInt32(body.count))
            writer.write(body)
        }
        return writer.bytes
    }

    /// Which way a step's piece goes onto the connection: as it is, or in a frame of this kind whose checksum is right; 6: as the only message of a
    /// frame; 7: from another member.
    static func frameSeeds() -> [[UInt8]] {
        let bodies: [[UInt8]] = [PeerMessage.Body.notLeader(number: 4), .leaseRenew(number: 3, lease: LeaseID(9)), .removed, .askStanding].map { body in
            var writer = ByteWriter()
            PeerMessage(from: peer, to: identity.member, body: body).encodeBody(into: &writer)
            return writer.bytes
        }
        let one = [6] + piece(bodies[0]), all = [1] + piece(messages(bodies)), raw = [0] + piece(frame(.messages, messages(bodies)))
        let snapshot = [2] + piece([1, 2, 3]) + [3] + piece([4]) + [4] + piece([]) + [5] + piece([])
        return [[0] + one, [0] + all + one, [5] + raw + all, [3] + snapshot + one, [0] + [7] + piece(bodies[2]), [0, 0] + piece(Array("GET /members HTTP/1.1\r\nHost: x\r\n\r\n".utf8)),
                [9, 0] + piece(Array("GET /version HTTP/1.1\r\n\r\n".utf8))]
    }

    static func hear(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        let cut = Int(choices.byte())
        let loop = EmbeddedEventLoop(), member = SoleMember()
        var received = 0
        let transport = PeerTransport(identity: identity, loop: loop, links: OpenLinks(), generator: SeededGenerator(seed: 1), metrics: NodeMetrics(), logger: logger, intake: { channel, peer in
            SnapshotIntake(channel: channel, identity: identity, peer: peer, onBackendThread: { $0() }, logger: logger, makeBackend: { (MemoryBackend(), {}) }, completed: { _, answer in answer(true) })
        }, post: { events in
            received += events.count
            for event in events {
                // Its word about consensus is believed, as Raft does.
                if case .peer(let message) = event, case .raft = message.body { continue }
                member.tell(event)
            }
        })
        transport.memberList = { [Member(id: identity.member, name: "n1", peerURLs: ["http://p"])] }
        let channel = EmbeddedChannel(loop: loop)
        _ = transport.adopt(channel)
        channel.connect(to: try! SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        var stream: [UInt8] = []
        while !choices.isAtEnd {
            let way = choices.byte() % 8, payload = choices.piece()
            switch way {
            case 0: stream += payload
            case 6: stream += frame(.messages, messages([payload]))
            case 7: stream += frame(.messages, messages([payload]), from: MemberID(0xb3))
            default: stream += frame(PeerFrame.Kind(rawValue: way)!, payload)
            }
        }
        var rest = stream[...]
        while !rest.isEmpty, channel.isActive {
            let part = Array(rest.prefix(cut == 0 ? rest.count : cut))
            rest = rest.dropFirst(part.count)
            _ = try? channel.writeInbound(ByteBuffer(bytes: part))
            loop.run()
            while (try? channel.readOutbound(as: ByteBuffer.self)) != nil {}
        }
        // A message has five bytes before its body at least.
        precondition(received <= stream.count / 4, "\(received) messages from \(stream.count) bytes")
        _ = try? channel.finish(acceptAlreadyClosed: true)
        _ = transport.close(abruptly: true)
        try? loop.syncShutdownGracefully()
    }

    // MARK: Answers

    static func answerSeeds() -> [[UInt8]] {
        let list = Member.encodeList([Member(id: peer, name: "n2", peerURLs: ["http://127.0.0.1:2380"], clientURLs: ["http://127.0.0.1:2379"]), Member(id: identity.member, peerURLs: [], isLearner: true)])
        let body = String(decoding: list, as: UTF8.self)
        return ["HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: c1\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: +1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\nX-Etcd-Cluster-Id: ffffffffffffffff\r\n\r\n[]"].flatMap { [[0] + Array($0.utf8), [7] + Array($0.utf8)] }
    }

    static func readAnswer(_ raw: UnsafeRawBufferPointer) {
        guard let cut = raw.first.map(Int.init) else { return }
        let loop = EmbeddedEventLoop(), channel = EmbeddedChannel(loop: loop)
        let answer = loop.makePromise(of: RemoteCluster.self)
        var outcomes = 0
        answer.futureResult.whenComplete { result in
            outcomes += 1
            if case .success(let cluster) = result { precondition((try? Member.decodeList(Member.encodeList(cluster.members))) == cluster.members, "\(cluster.members)") }
        }
        try! channel.pipeline.syncOperations.addHTTPClientHandlers()
        try! channel.pipeline.syncOperations.addHandler(MembersQuestion(host: "x", answer: answer))
        channel.connect(to: try! SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        var rest = Array(raw.dropFirst())[...]
        while !rest.isEmpty, channel.isActive {
            let part = Array(rest.prefix(cut == 0 ? rest.count : cut))
            rest = rest.dropFirst(part.count)
            _ = try? channel.writeInbound(ByteBuffer(bytes: part))
            loop.run()
        }
        _ = try? channel.finish(acceptAlreadyClosed: true)
        loop.run()
        precondition(outcomes == 1, "\(outcomes) outcomes")
        try? loop.syncShutdownGracefully()
    }
}
