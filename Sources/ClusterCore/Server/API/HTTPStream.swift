import Base
import GRPC
import NIOCore
import NIOHTTP1

/// A request over HTTP/2 that is no gRPC call, on its stream. Belongs to the connection, until the answer is complete or the client gone.
final class HTTPStream: HTTPCarrier {
    private unowned let connection: GRPCConnection
    private let id: StreamID
    private(set) var call: HTTPCall!
    /// Runs while the request comes.
    private var timer: Scheduled<Void>?

    /// Bytes of an answer that HTTP/2 has not taken, beyond which the rest waits where it comes from.
    private static let maxAheadBytes = 64 << 10

    init(_ head: PlainRequestHead, _ id: StreamID, of connection: GRPCConnection) {
        self.connection = connection
        self.id = id
        let request = HTTPRequestHead(version: HTTPVersion(major: 2, minor: 0), method: HTTPMethod(rawValue: head.method), uri: head.path,
                                      headers: HTTPHeaders(head.fields.map { ($0.name, $0.value) }))
        call = HTTPCall(request, on: self, of: connection.loop, isSecure: connection.isSecure, identity: connection.identity)
    }

    func begin() {
        let limit = connection.loop.bounds.httpIdleTimeout
        timer = connection.loop.eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(limit.nanoseconds)) { [weak self] in self?.giveUp() }
        call.begin()
    }

    /// The request does not come to an end.
    private func giveUp() {
        connection.session.abort(id)
        connection.forget(id)
        drop()
        connection.flush()
    }

    func drop() {
        answerBegins()
        call.drop()
    }

    // MARK: The answer

    var isWritable: Bool { !connection.isClogged && connection.session.bufferedBytes(id) < HTTPStream.maxAheadBytes }

    func sendContinue() { connection.session.sendContinue(id) }

    func answerBegins() {
        timer?.cancel()
        timer = nil
    }

    func writeHead(of call: HTTPCall, _ status: HTTPResponseStatus, _ headers: HTTPHeaders, length: Int?) {
        connection.session.respondPlain(id, status: status.code, headers.map { ($0.name.lowercased(), $0.value) }, hasBody: length != 0 && call.head.method != .HEAD)
        connection.loop.touch(connection)
    }

    func write(_ bytes: [UInt8], flush: Bool) {
        connection.session.sendBody(id, bytes)
        connection.queued(bytes.count)
        connection.loop.touch(connection)
        if !isWritable { connection.session.notifyWhenDrained(id, below: HTTPStream.maxAheadBytes / 2) }
    }

    func end(_ call: HTTPCall) {
        answerBegins()
        connection.session.finishBody(id)
        connection.forget(id)
        connection.loop.touch(connection)
    }
}

// HTTP endpoints beside the calls, where a connection came over TLS: without it etcd leaves HTTP/2 to gRPC alone. (etcd-http.md §1)
extension GRPCConnection: PlainRequestDelegate {
    func session(_ session: GRPCServerSession, claims path: String) -> Bool {
        loop.access.servesGateway && (path.hasPrefix("/v3/") || path.hasPrefix("/v3beta/"))
    }

    func session(_ session: GRPCServerSession, requested stream: StreamID, _ head: PlainRequestHead) {
        guard httpStreams.count < loop.bounds.maxHTTPStreams else { return session.abort(stream, .refusedStream) }
        let request = HTTPStream(head, stream, of: self)
        httpStreams[stream] = request
        request.begin()
    }

    func session(_ session: GRPCServerSession, body: UnsafeRawBufferPointer, of stream: StreamID) {
        httpStreams[stream]?.call.take(ByteBuffer(bytes: body))
    }

    func session(_ session: GRPCServerSession, requestEnded stream: StreamID) { httpStreams[stream]?.call.complete() }
    func session(_ session: GRPCServerSession, plainCancelled stream: StreamID) { httpStreams.removeValue(forKey: stream)?.drop() }
    func session(_ session: GRPCServerSession, plainDrained stream: StreamID) { httpStreams[stream]?.call.resume() }

    func forget(_ stream: StreamID) { httpStreams[stream] = nil }
}
