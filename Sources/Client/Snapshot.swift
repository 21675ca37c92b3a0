import Base
import NIOCore
import Wire

/// A member's database as it streams in. The pieces joined are the file: the database and, as its last 32 bytes, its SHA-256.
public struct SnapshotStream: AsyncSequence, Sendable {
    public struct Element: Sendable {
        public var bytes: [UInt8]
        /// What follows this piece, checksum not counted.
        public var remainingBytes: UInt64
        /// The storage version, from 3.6 servers; else empty.
        public var version: String
    }

    fileprivate let handle: Handle
    fileprivate final class Handle: Sendable {
        let buffer: StreamBuffer<SnapshotStream.Element>
        init(buffer: StreamBuffer<SnapshotStream.Element>) { self.buffer = buffer }
        deinit { buffer.abandon() }
    }

    public func makeAsyncIterator() -> Iterator { Iterator(handle: handle) }

    public struct Iterator: AsyncIteratorProtocol, Sendable {
        fileprivate let handle: Handle
        public mutating func next() async throws -> SnapshotStream.Element? { try await handle.buffer.next() }
    }
}

extension EtcdClient {
    /// Streams the database of one member. Not taken up again after a failure: the sequence throws. A slow reader makes
    /// the server wait.
    public func snapshot(of endpoint: Endpoint? = nil, options: CallOptions = CallOptions()) -> SnapshotStream {
        var options = options
        if let endpoint { options.endpoint = endpoint }
        let receiver = SnapshotReceiver(core: core, options: options)
        core.loop.execute { receiver.start() }
        return SnapshotStream(handle: SnapshotStream.Handle(buffer: receiver.buffer))
    }
}

/// Confined to the client's loop, apart from `buffer`.
private final class SnapshotReceiver: @unchecked Sendable {
    // Sendable because tasks touch only `buffer`.
    private let core: ClientCore
    private let options: CallOptions
    private(set) var buffer: StreamBuffer<SnapshotStream.Element>!
    private var call: StreamCall?
    private var isStopped = false

    init(core: ClientCore, options: CallOptions) {
        self.core = core
        self.options = options
        buffer = StreamBuffer(
            limit: core.configuration.watchBufferBytes,
            onRoom: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.call?.resume() } },
            onAbandoned: { [weak self, loop = core.loop] in loop.execute { [weak self] in self?.stop() } })
    }

    func start() {
        guard !isStopped else { return }
        let call = StreamCall(core: core, .snapshot, options)
        self.call = call
        call.onOpen = { $0.send([], endsStream: true) }
        call.onMessage = { [self] in received($0) }
        call.onEnd = { [self] error in
            self.call = nil
            buffer.finish(error)
        }
        call.start()
    }

    func stop() {
        isStopped = true
        call?.cancel()
        call = nil
    }

    private func received(_ message: UnsafeRawBufferPointer) {
        var piece = SnapshotStream.Element(bytes: [], remainingBytes: 0, version: "")
        var reader = ByteReader(message)
        do {
            try reader.readFields { (r, field, type) throws(DecodingFault) in
                switch (field, type) {
                case (2, .varint): piece.remainingBytes = try r.readVarint()
                case (3, .lengthDelimited): piece.bytes = try r.readCounted()
                case (4, .lengthDelimited): piece.version = String(decoding: try r.readCountedSlice(), as: UTF8.self)
                default: return false
                }
                return true
            }
        } catch {
            stop()
            return buffer.finish(EtcdError.malformedResponse("snapshot: \(error)"))
        }
        if buffer.push(piece, cost: message.count) { call?.pause() }
    }
}
