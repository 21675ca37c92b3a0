import Base
@testable import GRPC

// The layers of a gRPC connection by themselves, for both roles.

extension FuzzTargets {
    static let grpc: [FuzzTarget] = [
        FuzzTarget(name: "grpc-framing", seeds: SessionImages.framingSeeds, run: SessionImages.assemble),
        FuzzTarget(name: "grpc-metadata", seeds: { ["\u{0}1500m", "\u{0}99999999H", "\u{1}no %41%zz%e2%82%ac", "\u{2}/etcdserverpb.KV/Put", "\u{2}/a/b/c"].map { Array($0.utf8) } },
                   words: ["%", "/"], run: SessionImages.readMetadata),
        FuzzTarget(name: "grpc-client", seeds: SessionImages.answerSeeds, run: SessionImages.feedClient),
        FuzzTarget(name: "grpc-server", seeds: SessionImages.callSeeds, run: SessionImages.feedServer),
    ]
}

private enum SessionImages {
    // MARK: Messages in a stream of bytes

    static func framingSeeds() -> [[UInt8]] {
        [[3, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 1, 9], [1, 1, 0, 0, 0, 2, 5, 5], [4, 0, 0xff, 0xff, 0xff, 0xff, 1]]
    }

    private enum Item: Equatable {
        case message([UInt8])
        case fault(MessageAssembler.Fault)
    }

    /// However the bytes are cut, the messages are the same.
    static func assemble(_ raw: UnsafeRawBufferPointer) {
        guard let cut = raw.first else { return }
        let bytes = [UInt8](raw.dropFirst())
        func read(_ step: Int) -> ([Item], Bool) {
            var assembler = MessageAssembler()
            var items: [Item] = []
            var rest = bytes[...]
            while !rest.isEmpty {
                let part = Array(rest.prefix(step))
                rest = rest.dropFirst(part.count)
                let isOver = part.withUnsafeBytes { part in
                    var offset = 0
                    while true {
                        switch assembler.step(part, &offset, limit: 1 << 16) {
                        case .needsMore: return false
                        case .lent(let range): items.append(.message([UInt8](part[range])))
                        case .collected(let message):
                            items.append(.message(message))
                            assembler.recycle(message)
                        case .fault(let fault):
                            items.append(.fault(fault))
                            return true
                        }
                        precondition(assembler.collectedBytes <= bytes.count)
                    }
                }
                if isOver { return (items, false) }
            }
            return (items, assembler.isInsideMessage)
        }
        let whole = read(max(1, bytes.count)), pieces = read(Int(cut) % 7 + 1)
        precondition(whole.0 == pieces.0 && whole.1 == pieces.1, "\(whole.0.count) items at once, \(pieces.0.count) in pieces of \(Int(cut) % 7 + 1)")
    }

    // MARK: Metadata

    private static let methods = MethodTable([("/etcdserverpb.KV/Put", .unary), ("/etcdserverpb.KV/Range", .unary), ("/a/b", .bidirectional)])

    static func readMetadata(_ raw: UnsafeRawBufferPointer) {
        guard let kind = raw.first else { return }
        let text = UnsafeRawBufferPointer(rebasing: raw[1...])
        switch kind % 3 {
        case 0:
            guard let span = TimeoutHeader.parse(text) else { return }
            precondition(span >= .zero)
            let again = TimeoutHeader.format(span).withUnsafeBytes { TimeoutHeader.parse($0) }
            // Rounded up to what eight digits hold, which is at most an hour's part.
            precondition(again.map { $0 >= span || $0.nanoseconds > 1 << 60 } ?? false, "\(span) was written as \(String(describing: again))")
        case 1:
            let message = StatusMessage.decode(text)
            let again = StatusMessage.encode(message).withUnsafeBytes { StatusMessage.decode($0) }
            precondition(again == message, "\(message) became \(again)")
        default:
            if let method = methods.find(text) { precondition(methods.path(method).utf8.elementsEqual(text)) }
            _ = methods.unimplementedMessage(String(decoding: text, as: UTF8.self))
        }
    }

    // MARK: Sessions

    private static let echo: [(path: String, kind: CallKind)] = [("/t.E/Unary", .unary), ("/t.E/Chat", .bidirectional), ("/t.E/List", .serverStream)]

    private static func startCalls(_ session: GRPCClientSession) -> [StreamID] {
        echo.flatMap { method in
            (0..<2).compactMap { number in
                guard let stream = session.startCall(path: Array(method.path.utf8), metadata: [MetadataField("x", "y")]) else { return nil }
                session.sendMessage(stream, Array(repeating: 5, count: 9))
                if number == 0 { session.halfClose(stream) }
                return stream
            }
        }
    }

    static func answerSeeds() -> [[UInt8]] {
        let client = SilentClient(), server = EchoServer()
        _ = startCalls(client.session)
        server.feed((try? client.takeOutput()) ?? [])
        let answer = (try? server.takeOutput()) ?? []
        client.feed(answer)
        client.session.ping(4)
        server.feed((try? client.takeOutput()) ?? [])
        server.session.goAway()
        return [[0] + answer, [9] + answer + ((try? server.takeOutput()) ?? [])]
    }

    /// A server that says anything.
    static func feedClient(_ raw: UnsafeRawBufferPointer) {
        guard let cut = raw.first else { return }
        let client = SilentClient(maxReceiveMessageBytes: 1 << 16)
        let streams = startCalls(client.session)
        _ = try? client.takeOutput()
        var rest = Array(raw.dropFirst())[...], turns = 0
        while !rest.isEmpty {
            let part = Array(rest.prefix(cut == 0 ? rest.count : Int(cut)))
            rest = rest.dropFirst(part.count)
            client.feed(part)
            turns += 1
            if turns % 8 == 1, let stream = streams.first {
                client.session.pause(stream)
                client.session.resume(stream)
            }
            if (try? client.takeOutput()) == nil { break }
        }
        client.session.connectionClosed("end")
        for stream in streams { precondition(client.endings[stream] == 1, "call \(stream) ended \(client.endings[stream] ?? 0) times") }
    }

    static func callSeeds() -> [[UInt8]] {
        let client = SilentClient()
        _ = startCalls(client.session)
        return [[0] + ((try? client.takeOutput()) ?? []), [5] + ((try? client.takeOutput()) ?? [])]
    }

    static func feedServer(_ raw: UnsafeRawBufferPointer) {
        guard let cut = raw.first else { return }
        let server = EchoServer()
        if raw.count % 2 == 0 { server.session.plainDelegate = server }
        var rest = Array(raw.dropFirst())[...]
        while !rest.isEmpty {
            let part = Array(rest.prefix(cut == 0 ? rest.count : Int(cut)))
            rest = rest.dropFirst(part.count)
            server.feed(part)
            if (try? server.takeOutput()) == nil { break }
        }
        server.session.connectionClosed()
        precondition(server.running.isEmpty, "calls \(server.running.keys.sorted()) never ended")
    }
}

/// Answers what it is asked, and keeps count of what it was told.
private final class EchoServer: GRPCServerDelegate, PlainRequestDelegate {
    private(set) var session: GRPCServerSession!
    /// The streaming calls and plain requests that have begun and not ended.
    private(set) var running: [StreamID: Bool] = [:]

    init() {
        session = GRPCServerSession(methods: MethodTable([("/t.E/Unary", .unary), ("/t.E/Chat", .bidirectional), ("/t.E/List", .serverStream)]), delegate: self, maxReceiveMessageBytes: 1 << 16)
    }
    func session(_ session: GRPCServerSession, called stream: StreamID, _ head: RequestHead, request: UnsafeRawBufferPointer) {
        switch head.method {
        case 0: session.respondUnary(stream, message: [UInt8](request))
        default:
            session.sendMessage(stream, [UInt8](request))
            session.finish(stream, request.count % 2 == 0 ? .ok : .internal, "done %")
        }
    }
    func session(_ session: GRPCServerSession, opened stream: StreamID, _ head: RequestHead) {
        precondition(running[stream] == nil, "call \(stream) opened twice")
        running[stream] = true
    }
    func session(_ session: GRPCServerSession, received message: UnsafeRawBufferPointer, on stream: StreamID) {
        precondition(running[stream] == true, "a message on call \(stream), which is over")
        session.sendMessage(stream, [UInt8](message))
        if message.first == 0xff { finish(stream) }
    }
    func session(_ session: GRPCServerSession, halfClosed stream: StreamID) { finish(stream) }
    func session(_ session: GRPCServerSession, cancelled stream: StreamID) { running[stream] = nil }
    func session(_ session: GRPCServerSession, drained stream: StreamID) {}

    private func finish(_ stream: StreamID) {
        running[stream] = nil
        session.finish(stream, .ok)
    }

    func session(_ session: GRPCServerSession, claims path: String) -> Bool { path.hasPrefix("/v3/") }
    func session(_ session: GRPCServerSession, requested stream: StreamID, _ head: PlainRequestHead) {
        precondition(running[stream] == nil, "request \(stream) began twice")
        running[stream] = true
        session.respondPlain(stream, status: 200, [("x-path", String(head.path.utf8.count))], hasBody: true)
    }
    func session(_ session: GRPCServerSession, body: UnsafeRawBufferPointer, of stream: StreamID) {
        precondition(running[stream] == true, "a body of request \(stream), which is over")
        session.sendBody(stream, [UInt8](body))
        if body.first == 0xff { requestFinished(stream) }
    }
    func session(_ session: GRPCServerSession, requestEnded stream: StreamID) { requestFinished(stream) }
    func session(_ session: GRPCServerSession, plainCancelled stream: StreamID) { running[stream] = nil }
    func session(_ session: GRPCServerSession, plainDrained stream: StreamID) {}
    private func requestFinished(_ stream: StreamID) {
        running[stream] = nil
        session.finishBody(stream)
    }

    func feed(_ bytes: [UInt8]) {
        guard !bytes.isEmpty, !session.isFinished else { return }
        bytes.withUnsafeBytes { raw in _ = try? session.receive(raw) }
    }

    func takeOutput() throws(ProtocolFault) -> [UInt8] {
        var bytes: [UInt8] = []
        try session.drainOutput { bytes += $0 }
        return bytes
    }
}
