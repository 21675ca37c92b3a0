import DequeModule
import NIOCore

/// What one direction of a link between two processes does to the bytes that go over it.
package struct LinkConditions: Hashable, Sendable {
    package enum Cut: Hashable, Sendable {
        /// Bytes wait and arrive late, as when TCP sends again what was lost.
        case holding
        /// Bytes are lost, and their connection with them when the link works again: its rest would make no sense.
        case losing
    }

    package var cut: Cut?
    package var delayMicroseconds: Int64 = 0
    /// The delay varies evenly by up to this much either way, never below 0.
    package var jitterMicroseconds: Int64 = 0
    /// 0 ..< 1 of all packets. A lost packet is not lost but late: the line stalls for as long as a sender waits before it sends again.
    package var lossShare = 0.0
    /// nil: no limit.
    package var bytesPerSecond: Int?

    package init(cut: Cut? = nil, delayMicroseconds: Int64 = 0, jitterMicroseconds: Int64 = 0, bytesPerSecond: Int? = nil) {
        self.cut = cut
        self.delayMicroseconds = delayMicroseconds
        self.jitterMicroseconds = jitterMicroseconds
        self.bytesPerSecond = bytesPerSecond
    }
}

/// One direction of a connection that goes through us: takes bytes from one channel and gives them to the other as the link's conditions say.
/// Bytes keep their order.
package final class LinkFlow: @unchecked Sendable {
    // @unchecked: confined to the loop.
    private struct Held {
        var bytes: ByteBuffer
        var due: NIODeadline
    }

    /// How long a sender waits before it sends a lost packet again, the first time (Linux: at least 200 ms); doubled for each further loss.
    private static let retransmission = TimeAmount.milliseconds(200)
    /// Held at most; the sender waits then.
    private static let heldLimitBytes = 8 << 20

    private let loop: any EventLoop
    package private(set) var conditions: LinkConditions
    package var source: (any Channel)?
    package var sink: (any Channel)? { didSet { deliver() } }
    private var held: Deque<Held> = []
    private var heldBytes = 0
    private var lastDue = NIODeadline.uptimeNanoseconds(0)
    /// When the line has sent all that it took.
    private var lineFree = NIODeadline.uptimeNanoseconds(0)
    private var timer: Scheduled<Void>?
    private var hasLost = false
    private var isSourceOver = false
    private var isSinkOver = false
    private var isReading = true

    package init(loop: any EventLoop, conditions: LinkConditions = LinkConditions()) {
        self.loop = loop
        self.conditions = conditions
    }

    package var isCut: Bool { conditions.cut != nil }

    // MARK: Through

    package func put(_ bytes: ByteBuffer) {
        guard !isSinkOver, bytes.readableBytes > 0 else { return }
        if conditions.cut == .losing { return hasLost = true }
        if held.isEmpty, conditions == LinkConditions(), let sink { return sink.writeAndFlush(bytes, promise: nil) }
        guard let rate = conditions.bytesPerSecond else { return hold(bytes) }
        // In pieces of a twentieth of a second, so that a slow line drips rather than gulps.
        var rest = bytes
        while let piece = rest.readSlice(length: min(rest.readableBytes, max(256, rate / 20))), piece.readableBytes > 0 { hold(piece) }
    }

    private func hold(_ bytes: ByteBuffer) {
        let now = NIODeadline.now()
        var due = now
        if let rate = conditions.bytesPerSecond {
            lineFree = max(lineFree, now) + .nanoseconds(Int64(Double(bytes.readableBytes) / Double(max(1, rate)) * 1e9))
            due = lineFree
        }
        let jitter = conditions.jitterMicroseconds
        due = due + .microseconds(max(0, conditions.delayMicroseconds + (jitter > 0 ? .random(in: -jitter...jitter) : 0)))
        var wait = LinkFlow.retransmission
        while conditions.lossShare > 0, Double.random(in: 0..<1) < conditions.lossShare, wait < .seconds(60) {
            due = due + wait
            wait = wait * 2
        }
        lastDue = max(lastDue, due)
        held.append(Held(bytes: bytes, due: lastDue))
        heldBytes += bytes.readableBytes
        deliver()
    }

    private func deliver() {
        guard let sink, !isCut else { return }
        let now = NIODeadline.now()
        var hasWritten = false
        while let first = held.first, first.due <= now {
            held.removeFirst()
            heldBytes -= first.bytes.readableBytes
            sink.write(first.bytes, promise: nil)
            hasWritten = true
        }
        if hasWritten { sink.flush() }
        timer?.cancel()
        timer = nil
        if let next = held.first {
            timer = loop.scheduleTask(deadline: next.due) { [weak self] in self?.deliver() }
        } else if isSourceOver, !hasLost {
            sink.close(promise: nil)
        }
        if !isReading { readOn() }
    }

    private func drop() {
        held = []
        heldBytes = 0
        timer?.cancel()
        timer = nil
    }

    // MARK: Pace

    /// What is lost is still read: its sender does not notice.
    private var hasRoom: Bool { isSinkOver || conditions.cut == .losing || heldBytes < LinkFlow.heldLimitBytes && (sink?.isWritable ?? true) }

    /// A read is over, or there may be room again.
    package func readOn() {
        isReading = hasRoom
        if isReading { source?.read() }
    }

    package func sinkHasRoom() { if !isReading { readOn() } }

    // MARK: Ends

    /// Comes through behind what is still on its way. Over a cut link nobody hears of it.
    package func sourceEnded() {
        isSourceOver = true
        deliver()
    }

    package func sinkEnded() {
        isSinkOver = true
        drop()
        sinkHasRoom()
    }

    // MARK: Faults

    /// True: bytes were lost and the link works again: the connection cannot go on.
    package func change(to new: LinkConditions) -> Bool {
        guard new != conditions else { return false }
        conditions = new
        if new.cut == .losing {
            if !held.isEmpty { hasLost = true }
            drop()
        }
        if isCut {
            // What is held waits for the end of the cut, not for its time.
            timer?.cancel()
            sinkHasRoom()
            return false
        }
        if hasLost { return true }
        // What was sent so far comes at once: nobody who changes a link waits for its old delay.
        lineFree = .now()
        lastDue = .now()
        for index in held.indices { held[index].due = .now() }
        deliver()
        return false
    }
}
