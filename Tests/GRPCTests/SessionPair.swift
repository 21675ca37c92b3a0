import Base
import GRPC

/// A server's events as values.
enum ServerEvent: Equatable {
    case called(StreamID, method: UInt16, request: [UInt8])
    case opened(StreamID, method: UInt16)
    case message(StreamID, [UInt8])
    case halfClosed(StreamID)
    case cancelled(StreamID)
    case drained(StreamID)
}

final class RecordingServer: GRPCServerDelegate {
    var session: GRPCServerSession!
    var events: [ServerEvent] = []
    var heads: [StreamID: RequestHead] = [:]
    /// Runs for each call, inside the event.
    var onCall: (GRPCServerSession, StreamID, [UInt8]) -> Void = { _, _, _ in }
    var onOpen: (GRPCServerSession, StreamID) -> Void = { _, _ in }
    var onMessage: (GRPCServerSession, StreamID, [UInt8]) -> Void = { _, _, _ in }
    var onDrained: (GRPCServerSession, StreamID) -> Void = { _, _ in }
    /// False keeps `events` empty, for large runs.
    var records = true

    static let methods: [(path: String, kind: CallKind)] = [
        ("/test.Echo/Unary", .unary), ("/test.Echo/List", .serverStream), ("/test.Echo/Chat", .bidirectional),
    ]

    init(maxReceiveMessageBytes: Int = 2 << 20, settings: HTTP2Settings = HTTP2Settings()) {
        session = GRPCServerSession(methods: MethodTable(RecordingServer.methods), delegate: self,
                                    maxReceiveMessageBytes: maxReceiveMessageBytes, settings: settings)
    }

    private func record(_ event: ServerEvent) { if records { events.append(event) } }

    func session(_ session: GRPCServerSession, called stream: StreamID, _ head: RequestHead, request: UnsafeRawBufferPointer) {
        record(.called(stream, method: head.method, request: [UInt8](request)))
        if records { heads[stream] = head }
        onCall(session, stream, [UInt8](request))
    }
    func session(_ session: GRPCServerSession, opened stream: StreamID, _ head: RequestHead) {
        record(.opened(stream, method: head.method))
        if records { heads[stream] = head }
        onOpen(session, stream)
    }
    func session(_ session: GRPCServerSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
        record(.message(stream, [UInt8](message)))
        onMessage(session, stream, [UInt8](message))
    }
    func session(_ session: GRPCServerSession, halfClosed stream: StreamID) { record(.halfClosed(stream)) }
    func session(_ session: GRPCServerSession, cancelled stream: StreamID) { record(.cancelled(stream)) }
    func session(_ session: GRPCServerSession, drained stream: StreamID) {
        record(.drained(stream))
        onDrained(session, stream)
    }
}

final class RecordingClient: GRPCClientDelegate {
    var session: GRPCClientSession!
    var isReady = false
    var messages: [StreamID: [[UInt8]]] = [:]
    var receivedBytes: [StreamID: Int] = [:]
    var finished: [StreamID: CallStatus] = [:]
    var goAways = 0
    var pongs: [UInt64] = []

    init(maxReceiveMessageBytes: Int = Int(Int32.max), settings: HTTP2Settings = HTTP2Settings()) {
        session = GRPCClientSession(delegate: self, authority: "test:1", isTLS: false, maxReceiveMessageBytes: maxReceiveMessageBytes,
                                    settings: settings)
    }
    func sessionReady(_ session: GRPCClientSession) { isReady = true }
    func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
        messages[stream, default: []].append([UInt8](message))
        receivedBytes[stream, default: 0] += message.count
    }
    func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus) {
        precondition(finished[stream] == nil, "stream \(stream) finished twice")
        finished[stream] = status
    }
    func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String) { goAways += 1 }
    func session(_ session: GRPCClientSession, pong payload: UInt64) { pongs.append(payload) }
}

/// A client and a server joined by two byte pipes.
struct SessionPair {
    let client: RecordingClient
    let server: RecordingServer

    init(client: RecordingClient = RecordingClient(), server: RecordingServer = RecordingServer()) {
        self.client = client
        self.server = server
    }

    /// Carries bytes both ways until neither side has any, in portions of at most `portion` bytes.
    func exchange(portion: Int = .max) throws {
        while true {
            let up = try SessionPair.output(of: client.session)
            try SessionPair.feed(up, to: server.session, portion: portion)
            let down = try SessionPair.output(of: server.session)
            try SessionPair.feed(down, to: client.session, portion: portion)
            if up.isEmpty && down.isEmpty { return }
        }
    }

    static func output(of session: HTTP2Session) throws -> [UInt8] {
        var bytes: [UInt8] = []
        try session.drainOutput { bytes.append(contentsOf: $0) }
        return bytes
    }

    static func feed(_ bytes: [UInt8], to session: HTTP2Session, portion: Int = .max) throws {
        var offset = 0
        while offset < bytes.count {
            let count = min(portion, bytes.count - offset)
            try bytes.withUnsafeBytes { raw in
                try session.receive(UnsafeRawBufferPointer(rebasing: raw[offset..<offset + count]))
            }
            offset += count
        }
    }
}

/// A gRPC message with its prefix.
func framed(_ message: [UInt8], flag: UInt8 = 0) -> [UInt8] {
    var writer = ByteWriter()
    writer.write(flag)
    writer.writeBigEndian(UInt32(message.count))
    writer.write(message)
    return writer.bytes
}
