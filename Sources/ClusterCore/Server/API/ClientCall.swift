import Auth
import Base
import GRPC
import NIOCore
import Replica
import Store
import Wire

/// A call that waits: a place in its loop's table. Its token is loop, generation and place, so an answer that comes too late
/// for a place that is used again finds nothing.
struct ClientCall {
    /// Changes whenever the place is given back.
    var generation: UInt32 = 0
    var stream: StreamID = 0
    var method: MethodID = .range
    var requiresLeader = false
    /// Who asks, as far as the client says.
    var credential = Credential.none
    /// When the client stops waiting; `.distantFuture`: never.
    var deadline: NIODeadline = .distantFuture
    /// When a read that waits for room for its answer is refused; `.distantFuture`: it does not.
    var roomDeadline: NIODeadline = .distantFuture
    var connection: GRPCConnection?
    var work: Work = .free

    /// What is to be done with the member's answer.
    enum Work {
        case free
        /// The answer says it all.
        case answered
        /// The answer, and these fields behind it.
        case answeredWith([UInt8])
        /// A granted snapshot is read.
        case range(RangeRequest)
        case readTxn(TxnRequest)
        /// Long reads, made on a thread of their own.
        case hash
        case hashKV(Revision)
        case snapshot(SnapshotCall)
        /// One renewal of a keep-alive stream; `place` counts the stream's requests.
        case renewal(KeepAliveCall, place: Int)
        case watch(WatchCall)
        case keepAlive(KeepAliveCall)
        case healthWatch
        case observe(ObserveCall)
        /// A question of this server's own (`/health`).
        case probe(ReadProbe)
        case authQuery(AuthQuery)
        case login(LoginCall)
        case lockElection(LockElectionCall)
        /// What is done once the member has said that the caller may.
        case admission(Admission)
    }

    /// What the member has no part in beyond permitting it.
    enum Admission {
        case defragment
        case observe(ObserveCall)
        case addUser(UserName, Secret)
        case changePassword(UserName, Secret)
        case downgrade(PBDowngradeRequest)
    }
}

/// A Watch stream as its connection sees it: what was handed to HTTP/2 and has not left yet.
final class WatchCall {
    let id: WatchStreamID
    /// Bytes on the wire and bytes in the member's books, of responses that have not left, in order.
    private var waiting: [(wire: Int, backlog: Int)] = []
    private var head = 0
    private var wireBytes = 0
    /// Listed in the connection's streams to settle.
    var isTouched = false

    init(id: WatchStreamID) { self.id = id }

    func sent(wire: Int, backlog: Int) {
        waiting.append((wire, backlog))
        wireBytes += wire
    }

    /// What has left, when `buffered` bytes of the stream are still there.
    func settle(buffered: Int) -> (responses: Int, bytes: Int) {
        var responses = 0
        var bytes = 0
        while head < waiting.count, wireBytes - waiting[head].wire >= buffered {
            wireBytes -= waiting[head].wire
            bytes += waiting[head].backlog
            responses += 1
            head += 1
        }
        if head == waiting.count {
            waiting.removeAll(keepingCapacity: waiting.capacity <= 256)
            head = 0
        } else if head > 512 {
            waiting.removeFirst(head)
            head = 0
        }
        return (responses, bytes)
    }

    var hasWaiting: Bool { head < waiting.count }
}

/// An Observe stream: what is to be told and has not been handed to HTTP/2, since the client does not keep up. Bounded: old events are
/// dropped, and a state takes the place of the one before.
final class ObserveCall {
    /// The position behind which the client wants events.
    private var sequence: UInt64
    private var life: UInt64
    private var isWelcomed = false
    private var notes: [ObservedNote] = []
    private var picture: ObservedPicture?
    private var missed: UInt64 = 0
    private var hasPicture = false
    private let limit: Int

    init(life: UInt64, sequence: UInt64, limit: Int) {
        (self.life, self.sequence, self.limit) = (life, sequence, limit)
    }

    func take(_ news: ObserverNews) {
        if !isWelcomed {
            isWelcomed = true
            if life != news.life { (life, sequence) = (news.life, 0) }
            // Of what went before its time a new observer misses nothing; one that returns does.
            if sequence > 0, let first = news.notes.first, first.sequence > sequence + 1 { missed += first.sequence - sequence - 1 }
        }
        for note in news.notes where note.sequence > sequence {
            sequence = note.sequence
            notes.append(note)
        }
        if notes.count > limit {
            // More than the one at a time, which would move them all for each.
            let dropped = notes.count - limit * 3 / 4
            notes.removeFirst(dropped)
            missed += UInt64(dropped)
        }
        if var next = news.picture {
            // A state that was never sent still has its part of what was measured.
            if let waiting = picture {
                var stages = waiting.stages
                stages.add(next.stages)
                next.stages = stages
            } else if !hasPicture {
                // Measured before this stream was there.
                next.stages = StageFigures()
            }
            hasPicture = true
            picture = next
        }
    }

    /// Everything that waits, as one message; nil when there is nothing.
    func next(of member: MemberID) -> [UInt8]? {
        guard !notes.isEmpty || picture != nil || missed > 0 else { return nil }
        let message = ObserverMessage.encode(member: member, life: life, missed: missed, notes: notes, picture: picture)
        notes.removeAll(keepingCapacity: notes.capacity <= 64)
        picture = nil
        missed = 0
        return message
    }
}

/// A LeaseKeepAlive stream: answers leave in the order of the requests, whatever order the member answers in.
final class KeepAliveCall {
    struct Entry {
        var lease: LeaseID
        /// The running question's place in the loop's table; nil before it is asked and after it is answered.
        var running: RequestToken?
        var result: Result<Int64, ServiceError>?
    }
    /// The unanswered, oldest first, from `head` on.
    var entries: [Entry] = []
    var head = 0
    /// The number of `entries[0]` among all requests of the stream.
    var base = 0
    /// Index of the first entry that was not asked yet.
    var next = 0
    /// Questions that are with the member.
    var running = 0
    var isHalfClosed = false

    var waiting: Int { entries.count - head }

    func trim() {
        guard head == entries.count || head > 1_024 else { return }
        entries.removeFirst(head)
        base += head
        next -= head
        head = 0
    }
}

/// A read whose only purpose is to succeed.
final class ReadProbe {
    private let body: (ServiceError?) -> Void
    init(_ body: @escaping (ServiceError?) -> Void) { self.body = body }
    func finish(_ error: ServiceError?) { body(error) }
}
