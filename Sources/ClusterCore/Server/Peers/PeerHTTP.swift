import Base
import NIOCore
import NIOHTTP1
import NIOPosix
import Replica

// The little HTTP that members speak on the peer port, in etcd's shape: a member that joins asks those that run who they are.

/// Answers one HTTP request on a connection to the peer port, then closes it.
struct PeerHTTPAnswer {
    /// No request of ours is near this long.
    static let maxRequestBytes = 8 << 10
    private var request: [UInt8] = []
    private var isAnswered = false

    /// Whether a connection that begins with these bytes speaks HTTP. A frame cannot: it would be longer than any.
    static func isHTTP(_ bytes: ByteBuffer) -> Bool { bytes.readableBytesView.starts(with: "GET ".utf8) }

    /// The whole answer once the request is complete; nil while more bytes are needed.
    mutating func take(_ bytes: ByteBuffer, identity: NodeIdentity, members: () -> [Member]) -> [UInt8]? {
        // What comes behind the request, while the answer is on its way.
        guard !isAnswered else { return nil }
        request.append(contentsOf: bytes.readableBytesView)
        let answer = answer(identity: identity, members: members)
        isAnswered = answer != nil
        return answer
    }

    private func answer(identity: NodeIdentity, members: () -> [Member]) -> [UInt8]? {
        guard request.count <= PeerHTTPAnswer.maxRequestBytes else { return PeerHTTPAnswer.response("413 Payload Too Large", "", identity) }
        guard let end = request.firstIndex(of: UInt8(ascii: "\r")), request.suffix(4) == Array("\r\n\r\n".utf8)[...] else { return nil }
        let line = String(decoding: request[..<end], as: UTF8.self).split(separator: " ")
        guard line.count == 3 else { return PeerHTTPAnswer.response("400 Bad Request", "", identity) }
        switch line[1] {
        case "/members": return PeerHTTPAnswer.response("200 OK", String(decoding: Member.encodeList(members()), as: UTF8.self) + "\n", identity)
        case "/version":
            return PeerHTTPAnswer.response("200 OK", "{\"etcdserver\":\"\(ServerVersion.etcd)\",\"etcdcluster\":\"\(ServerVersion.cluster)\"}", identity)
        default: return PeerHTTPAnswer.response("404 Not Found", "404 page not found\n", identity)
        }
    }

    private static func response(_ status: String, _ body: String, _ identity: NodeIdentity) -> [UInt8] {
        Array("HTTP/1.1 \(status)\r\nContent-Type: application/json\r\nX-Etcd-Cluster-Id: \(identity.cluster)\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)".utf8)
    }
}

/// A cluster as one of its members describes it.
struct RemoteCluster: Sendable {
    var id: ClusterID
    var members: [Member]

    /// How long a member may take to answer: one that stands still must not hold a start up.
    static let answerTimeout = TimeAmount.seconds(2)

    struct Unreachable: Error, CustomStringConvertible {
        var description: String
    }

    /// Asks all at once; the first good answer counts.
    static func fetch(from urls: [NodeURL], by dialer: PeerDialer = PeerDialer(), on group: any EventLoopGroup) async throws -> RemoteCluster {
        try await withThrowingTaskGroup(of: Result<RemoteCluster, any Error>.self) { tasks in
            for url in urls {
                tasks.addTask {
                    do { return .success(try await fetch(url, dialer, on: group)) } catch { return .failure(Unreachable(description: "\(url): \(error)")) }
                }
            }
            var failures: [String] = []
            for try await result in tasks {
                switch result {
                case .success(let cluster):
                    tasks.cancelAll()
                    return cluster
                case .failure(let error): failures.append("\(error)")
                }
            }
            throw Unreachable(description: failures.sorted().joined(separator: "; "))
        }
    }

    private static func fetch(_ url: NodeURL, _ dialer: PeerDialer, on group: any EventLoopGroup) async throws -> RemoteCluster {
        let loop = group.next()
        let answer = loop.makePromise(of: RemoteCluster.self)
        let connecting = dialer.connect(host: url.host, port: url.port, isTLS: url.scheme == "https", on: loop, timeout: answerTimeout) { channel in
            try channel.pipeline.syncOperations.addHTTPClientHandlers()
            try channel.pipeline.syncOperations.addHandler(MembersQuestion(host: url.authority, answer: answer))
        }
        connecting.whenFailure { answer.fail($0) }
        let timeout = loop.scheduleTask(in: answerTimeout) { answer.fail(Unreachable(description: "no answer")) }
        answer.futureResult.whenComplete { _ in
            timeout.cancel()
            connecting.whenSuccess { $0.close(promise: nil) }
        }
        return try await answer.futureResult.get()
    }
}

/// Asks for `/members` and reads the answer.
final class MembersQuestion: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart
    /// A hundred members with long URLs stay far below.
    private static let maxAnswerBytes = 1 << 20
    private let host: String
    private let answer: EventLoopPromise<RemoteCluster>
    private var head: HTTPResponseHead?
    private var body: [UInt8] = []

    init(host: String, answer: EventLoopPromise<RemoteCluster>) {
        self.host = host
        self.answer = answer
    }

    func channelActive(context: ChannelHandlerContext) {
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/members", headers: ["Host": host, "Connection": "close"])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body(let part):
            body.append(contentsOf: part.readableBytesView)
            if body.count > MembersQuestion.maxAnswerBytes { fail("the list of members has no end") }
        case .end:
            guard let head, head.status == .ok else { return fail("HTTP status \(head?.status.code ?? 0)") }
            guard let text = head.headers.first(name: "X-Etcd-Cluster-Id"), let cluster = Hexadecimal.number(text.utf8) else {
                return fail("no cluster id in the answer")
            }
            do throws(DecodingFault) {
                answer.succeed(RemoteCluster(id: ClusterID(cluster), members: try Member.decodeList(body)))
            } catch { fail("\(error)") }
        }
    }

    func channelInactive(context: ChannelHandlerContext) { fail("the connection was closed") }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(TLSFault.ofPeer(error))
        context.close(promise: nil)
    }
    private func fail(_ reason: String) { answer.fail(RemoteCluster.Unreachable(description: reason)) }
}
