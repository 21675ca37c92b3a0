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
    private let dialer: PeerDialer
    private let finished: @Sendable (MemberID, Bool) -> Void
    private let generator: NIOLockedValueBox<SeededGenerator>
    /// nil: the node ends.
    private let streams = NIOLockedValueBox<[any Channel]?>([])

    init(identity: NodeIdentity, loop: any EventLoop, links: any LinkPolicy, generator: SeededGenerator, metrics: NodeMetrics, logger: Logger,
         dialer: PeerDialer = PeerDialer(), finished: @escaping @Sendable (MemberID, Bool) -> Void) {
        self.identity = identity
        self.loop = loop
        self.links = links
        self.generator = NIOLockedValueBox(generator)
        self.metrics = metrics
        self.logger = logger
        self.dialer = dialer
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
        var cutter = try SnapshotCutter(reader)
        let answer = loop.makePromise(of: Void.self)
        // Whatever becomes of the connection, somebody has to have asked.
        answer.futureResult.whenFailure { _ in }
        let channel: any Channel
        do {
            channel = try dialer.connect(host: peer.host, port: peer.port, isTLS: peer.isTLS, on: loop, timeout: .seconds(2)) { channel in
                // A peer that stands still must not hold the leader's only stream to it for ever.
                try channel.pipeline.syncOperations.addHandler(IdleStateHandler(allTimeout: SnapshotSender.stallTimeout))
                try channel.pipeline.syncOperations.addHandler(SnapshotAnswer(answer))
            }.wait()
        } catch {
            answer.fail(error)
            throw error
        }
        streams.withLockedValue { $0?.append(channel) }
        defer {
            streams.withLockedValue { $0?.removeAll { $0 === channel } }
            channel.close(promise: nil)
        }
        func write(_ kind: PeerFrame.Kind, _ body: (inout ByteWriter) -> Void) throws {
            var writer = ByteWriter(capacity: 256)
            PeerFrame(kind: kind, cluster: identity.cluster, from: identity.member, to: peer.id).write(into: &writer, body)
            metrics.peer(peer.id).sentBytes.add(UInt64(writer.bytes.count), ordering: .relaxed)
            // Waiting for each chunk is the flow control: one chunk in memory.
            var rest = writer.bytes[...]
            while !rest.isEmpty {
                let slice = rest.prefix(try hold(rest.count, isStart: rest.startIndex == 0, to: peer.id))
                try channel.writeAndFlush(channel.allocator.buffer(bytes: slice)).wait()
                rest = rest.dropFirst(slice.count)
            }
        }
        while let piece = try cutter.next() { try write(PeerFrame.Kind(piece.kind)) { $0.write(piece.payload) } }
        try answer.futureResult.wait()
        logger.info("snapshot sent", metadata: ["peer": "\(peer.id)", "index": "\(cutter.metadata.position.index.rawValue)", "entries": "\(cutter.entries)"])
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
    func errorCaught(context: ChannelHandlerContext, error: any Error) { end(.failure(TLSFault.ofPeer(error))) }
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
    private let onBackendThread: (@escaping @Sendable () -> Void) -> Void
    private let makeBackend: @Sendable () throws -> (backend: any Backend, discard: @Sendable () -> Void)
    private let completed: (Received, _ answer: @escaping (Bool) -> Void) -> Void
    private let logger: Logger
    private var file: (assembly: SnapshotAssembly, discard: @Sendable () -> Void)?
    private var isAbandoned = false

    init(channel: any Channel, identity: NodeIdentity, peer: MemberID, onBackendThread: @escaping (@escaping @Sendable () -> Void) -> Void, logger: Logger,
         makeBackend: @escaping @Sendable () throws -> (backend: any Backend, discard: @Sendable () -> Void),
         completed: @escaping (Received, _ answer: @escaping (Bool) -> Void) -> Void) {
        self.channel = channel
        self.identity = identity
        self.peer = peer
        self.onBackendThread = onBackendThread
        self.logger = logger
        self.makeBackend = makeBackend
        self.completed = completed
    }

    func take(_ kind: SnapshotPiece.Kind, _ payload: UnsafeRawBufferPointer) {
        let bytes = [UInt8](payload)
        _ = channel.setOption(.autoRead, value: false)
        onBackendThread { [self] in
            do {
                if try write(SnapshotPiece(kind: kind, payload: bytes)) { return }
                channel.eventLoop.execute { [self] in _ = channel.setOption(.autoRead, value: true) }
            } catch {
                logger.warning("snapshot not received", metadata: ["peer": "\(peer)", "reason": "\(error)"])
                file?.discard()
                file = nil
                channel.close(promise: nil)
            }
        }
    }

    /// - Returns: whether that was the last piece.
    private func write(_ piece: SnapshotPiece) throws -> Bool {
        if piece.kind == .begin {
            file?.discard()
            file = nil
            let made = try makeBackend()
            file = (SnapshotAssembly(into: made.backend), made.discard)
            return false
        }
        guard file != nil else { throw SnapshotStreamFault.outOfOrder(piece.kind) }
        guard let metadata = try file!.assembly.take(piece) else { return false }
        let whole = Received(metadata: metadata, from: peer, backend: file!.assembly.backend, discard: file!.discard)
        file = nil
        channel.eventLoop.execute { [self] in
            completed(whole) { [self] accepted in
                guard accepted else { return channel.close(promise: nil) }
                var writer = ByteWriter()
                PeerFrame(kind: .snapshotAccepted, cluster: identity.cluster, from: identity.member, to: peer).write(into: &writer) { _ in }
                _ = channel.writeAndFlush(channel.allocator.buffer(bytes: writer.bytes))
            }
        }
        return true
    }

    /// The connection is gone: what was received so far is useless.
    func abandon() {
        onBackendThread { [self] in
            file?.discard()
            file = nil
        }
    }
}
