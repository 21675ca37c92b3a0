import Base
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Raft
import Replica
import Store

// Brings a follower that fell behind the log up to date: the whole backend, in chunks, on a connection and a thread of its own,
// so that heartbeats never wait behind it.

/// Sends one snapshot at a time to a peer.
final class SnapshotSender: @unchecked Sendable {
    // @unchecked: immutable but for what is under a lock.
    static let chunkBytes = 1 << 20
    /// Without a byte in either direction for this long the transfer is given up; loading a large store takes seconds.
    static let stallTimeout = TimeAmount.seconds(60)
    /// What a chunk that a faulty link loses costs: the time after which TCP sends again.
    static let retransmissionTimeout = TimeSpan.milliseconds(200)
    /// While a faulty link holds a chunk back, how often the link is looked at again.
    private static let holdStep = TimeSpan.milliseconds(20)
    private let identity: NodeIdentity
    private let loop: any EventLoop
    private let links: any LinkPolicy
    private let metrics: NodeMetrics
    private let logger: Logger
    private let finished: @Sendable (MemberID, Bool) -> Void
    private let generator: NIOLockedValueBox<SeededGenerator>
    /// nil: the node ends.
    private let streams = NIOLockedValueBox<[any Channel]?>([])

    init(identity: NodeIdentity, loop: any EventLoop, links: any LinkPolicy, generator: SeededGenerator, metrics: NodeMetrics, logger: Logger,
         finished: @escaping @Sendable (MemberID, Bool) -> Void) {
        self.identity = identity
        self.loop = loop
        self.links = links
        self.generator = NIOLockedValueBox(generator)
        self.metrics = metrics
        self.logger = logger
        self.finished = finished
    }

    func send(to peer: PeerAddress, from backend: any Backend) {
        let thread = Thread { [self] in
            do {
                try stream(to: peer, from: backend)
                finished(peer.id, true)
            } catch {
                logger.warning("snapshot not sent", metadata: ["peer": "\(peer.id)", "reason": "\(error)"])
                finished(peer.id, false)
            }
        }
        thread.name = "snapshot"
        thread.start()
    }

    /// The node ends: transfers under way are given up.
    func stop() {
        let open = streams.withLockedValue { streams in
            defer { streams = nil }
            return streams ?? []
        }
        for channel in open { channel.close(promise: nil) }
    }
    private var isStopped: Bool { streams.withLockedValue { $0 == nil } }

    struct Refused: Error, CustomStringConvertible {
        var description: String
    }

    private func stream(to peer: PeerAddress, from backend: any Backend) throws {
        guard !links.isCut(from: identity.member, to: peer.id) else { throw Refused(description: "the link is cut") }
        let reader = try backend.makeReader()
        defer { reader.release() }
        guard let metadata = try ReplicaState.position(in: reader) else { throw Refused(description: "the backend is empty") }
        let answer = loop.makePromise(of: Void.self)
        let channel = try ClientBootstrap(group: loop)
            .connectTimeout(.seconds(2))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    // A peer that stands still must not hold the leader's only stream to it for ever.
                    try channel.pipeline.syncOperations.addHandler(IdleStateHandler(allTimeout: SnapshotSender.stallTimeout))
                    try channel.pipeline.syncOperations.addHandler(SnapshotAnswer(answer))
                }
            }
            .connect(host: peer.host, port: peer.port).wait()
        streams.withLockedValue { $0?.append(channel) }
        defer {
            streams.withLockedValue { $0?.removeAll { $0 === channel } }
            channel.close(promise: nil)
        }
        func write(_ kind: PeerFrame.Kind, _ body: (inout ByteWriter) -> Void) throws {
            var writer = ByteWriter(capacity: 256)
            PeerFrame(kind: kind, cluster: identity.cluster, from: identity.member, to: peer.id).write(into: &writer, body)
            metrics.peerSentBytes.add(UInt64(writer.bytes.count), ordering: .relaxed)
            // Waiting for each chunk is the flow control: one chunk in memory.
            var rest = writer.bytes[...]
            while !rest.isEmpty {
                let slice = rest.prefix(try hold(rest.count, isStart: rest.startIndex == 0, to: peer.id))
                try channel.writeAndFlush(channel.allocator.buffer(bytes: slice)).wait()
                rest = rest.dropFirst(slice.count)
            }
        }
        try write(.snapshotBegin) {
            $0.write(metadata.position.index.rawValue)
            $0.write(metadata.position.term.rawValue)
        }
        var total: UInt64 = 0
        // The meta table goes last: a copy that ends early has no applied index and is never mistaken for a whole one.
        for table in Table.allCases.filter({ $0 != .meta }) + [.meta] {
            var from: [UInt8]? = []
            while let start = from {
                from = nil
                var chunk = ByteWriter(capacity: SnapshotSender.chunkBytes + 4096)
                var count: UInt64 = 0
                try reader.scan(table, from: start) { key, value in
                    if chunk.bytes.count >= SnapshotSender.chunkBytes {
                        from = [UInt8](key)
                        return false
                    }
                    chunk.writeVarint(UInt64(key.count))
                    chunk.write(key)
                    chunk.writeVarint(UInt64(value.count))
                    chunk.write(value)
                    count += 1
                    return true
                }
                guard count > 0 else { break }
                total += count
                try write(.snapshotChunk) {
                    $0.write(table.rawValue)
                    $0.writeVarint(count)
                    $0.write(chunk.bytes)
                }
            }
        }
        try write(.snapshotEnd) { $0.write(total) }
        try answer.futureResult.wait()
        logger.info("snapshot sent", metadata: ["peer": "\(peer.id)", "index": "\(metadata.position.index.rawValue)", "entries": "\(total)"])
    }

    /// Keeps a chunk back for as long as the link's faults want it. The stream is one chunk at a time, as over a connection whose window is a
    /// chunk: a delay costs each of them. What is lost comes late, as TCP repeats it, and what comes twice makes no difference.
    /// - Returns: how much may go now, of the `bytes` still to be sent of the chunk.
    private func hold(_ bytes: Int, isStart: Bool, to peer: MemberID) throws -> Int {
        let clock = SystemClock()
        let began = clock.now()
        var wanted: (treatment: LinkTreatment, until: Instant)?
        while true {
            if isStopped { throw Refused(description: "the node ends") }
            guard let treatment = links.treatment(from: identity.member, to: peer) else { return bytes }
            if treatment.isCut { throw Refused(description: "the link was cut") }
            // On a slow link a few times a second, so that the receiver never takes it for dead.
            let slice = treatment.bytesPerSecond.map { min(bytes, max(512, $0 / 4)) } ?? bytes
            if wanted?.treatment != treatment { wanted = (treatment, began + holdTime(treatment, slice, isStart: isStart)) }
            let left = wanted!.until - clock.now()
            guard left > .zero else { return slice }
            Thread.sleep(forTimeInterval: min(left, SnapshotSender.holdStep).seconds)
        }
    }

    private func holdTime(_ treatment: LinkTreatment, _ bytes: Int, isStart: Bool) -> TimeSpan {
        generator.withLockedValue { generator in
            var microseconds: Int64 = 0
            if let rate = treatment.bytesPerSecond { microseconds += Int64(min(Double(bytes) / Double(max(1, rate)) * 1e6, 1e12)) }
            guard isStart else { return .microseconds(microseconds) }
            microseconds += treatment.delayMicroseconds
            if treatment.jitterMicroseconds > 0 {
                microseconds = max(0, microseconds + Int64.random(in: -treatment.jitterMicroseconds...treatment.jitterMicroseconds, using: &generator))
            }
            if treatment.lossShare > 0, Double.random(in: 0..<1, using: &generator) < treatment.lossShare {
                microseconds += SnapshotSender.retransmissionTimeout.nanoseconds / 1_000
            }
            return .microseconds(microseconds)
        }
    }
}

/// Waits for the receiver's word that it has everything.
private final class SnapshotAnswer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private var promise: EventLoopPromise<Void>?
    private var reader = PeerFrameReader()
    init(_ promise: EventLoopPromise<Void>) { self.promise = promise }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        reader.append(unwrapInboundIn(data))
        do throws(PeerFrameFault) {
            while try reader.next({ frame, _ throws(PeerFrameFault) in
                if frame.kind == .snapshotAccepted { end(.success(())) }
            }) {}
        } catch { end(.failure(error)) }
    }
    func channelInactive(context: ChannelHandlerContext) { end(.failure(SnapshotSender.Refused(description: "the peer closed the connection"))) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { end(.failure(error)) }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is IdleStateHandler.IdleStateEvent else { return context.fireUserInboundEventTriggered(event) }
        end(.failure(SnapshotSender.Refused(description: "the peer stands still")))
        context.close(promise: nil)
    }
    private func end(_ result: Result<Void, any Error>) {
        promise?.completeWith(result)
        promise = nil
    }
}

/// Receives one snapshot into a new backend file beside the one in use. Frames arrive on the replica loop, the writing happens on
/// the backend thread; reading from the connection stops while a chunk is being written.
final class SnapshotIntake: @unchecked Sendable {
    // @unchecked: `state` and `channel` are confined to the replica loop; `file` to the backend thread.
    struct Received: Sendable {
        var metadata: SnapshotMetadata
        var from: MemberID
        var backend: any Backend
        /// Removes the file when the snapshot is not wanted after all.
        var discard: @Sendable () -> Void
    }
    private let channel: any Channel
    private let identity: NodeIdentity
    private let peer: MemberID
    private let backendThread: BackendThread
    private let makeBackend: @Sendable () throws -> (backend: any Backend, discard: @Sendable () -> Void)
    private let completed: (Received, _ answer: @escaping (Bool) -> Void) -> Void
    private let logger: Logger
    private var file: (backend: any Backend, discard: @Sendable () -> Void)?
    private var received: UInt64 = 0
    private var isAbandoned = false

    init(channel: any Channel, identity: NodeIdentity, peer: MemberID, backendThread: BackendThread, logger: Logger,
         makeBackend: @escaping @Sendable () throws -> (backend: any Backend, discard: @Sendable () -> Void),
         completed: @escaping (Received, _ answer: @escaping (Bool) -> Void) -> Void) {
        self.channel = channel
        self.identity = identity
        self.peer = peer
        self.backendThread = backendThread
        self.logger = logger
        self.makeBackend = makeBackend
        self.completed = completed
    }

    func take(_ kind: PeerFrame.Kind, _ payload: UnsafeRawBufferPointer) {
        let bytes = [UInt8](payload)
        _ = channel.setOption(.autoRead, value: false)
        backendThread.submit(.run { [self] in
            do {
                switch kind {
                case .snapshotBegin:
                    file?.discard()
                    file = try makeBackend()
                    received = 0
                case .snapshotChunk: try write(bytes)
                case .snapshotEnd: return try finish(bytes)
                default: break
                }
                channel.eventLoop.execute { [self] in _ = channel.setOption(.autoRead, value: true) }
            } catch {
                logger.warning("snapshot not received", metadata: ["peer": "\(peer)", "reason": "\(error)"])
                file?.discard()
                file = nil
                channel.close(promise: nil)
            }
        })
    }

    private func write(_ bytes: [UInt8]) throws {
        guard let file else { throw SnapshotSender.Refused(description: "a chunk without a beginning") }
        var batch = BackendBatch()
        try bytes.withUnsafeBytes { (raw: UnsafeRawBufferPointer) throws -> Void in
            var reader = ByteReader(raw)
            let number = try reader.readByte()
            guard let table = Table(rawValue: number) else { throw DecodingFault.malformed("table \(number)") }
            let count = try reader.readVarint()
            guard count <= UInt64(raw.count) else { throw DecodingFault.truncated }
            for _ in 0..<count {
                let key = try reader.readCounted()
                batch.put(table, key, try reader.readCounted())
            }
            received += count
        }
        try file.backend.commit(batch)
    }

    private func finish(_ bytes: [UInt8]) throws {
        guard let file else { throw SnapshotSender.Refused(description: "an end without a beginning") }
        let announced = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard announced == received else { throw SnapshotSender.Refused(description: "\(received) of \(announced) entries arrived") }
        guard let metadata = try ReplicaState.position(in: try file.backend.makeReader()) else {
            throw SnapshotSender.Refused(description: "no applied index in it")
        }
        self.file = nil
        let whole = Received(metadata: metadata, from: peer, backend: file.backend, discard: file.discard)
        channel.eventLoop.execute { [self] in
            completed(whole) { [self] accepted in
                guard accepted else { return channel.close(promise: nil) }
                var writer = ByteWriter()
                PeerFrame(kind: .snapshotAccepted, cluster: identity.cluster, from: identity.member, to: peer).write(into: &writer) { _ in }
                _ = channel.writeAndFlush(channel.allocator.buffer(bytes: writer.bytes))
            }
        }
    }

    /// The connection is gone: what was received so far is useless.
    func abandon() {
        backendThread.submit(.run { [self] in
            file?.discard()
            file = nil
        })
    }
}
