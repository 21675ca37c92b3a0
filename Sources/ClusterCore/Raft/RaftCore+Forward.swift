import Base
import DequeModule

/// Commands on their way to a leader elsewhere.
struct Forwarding: Sendable {
    /// Names this life of the member, so that a message of an earlier one is not taken for one of this.
    var stream: UInt64 = 0
    /// Commands that wait for the flush, which sends them as one message.
    var waiting: [[UInt8]] = []
    /// The term in which they were proposed; they are not passed on in another one.
    var term = Term.zero
    /// Number of the next message in `term`; the first is 1.
    var next: UInt64 = 1
    /// Sent, and not known to have arrived.
    var sent = Deque<Sent>()
    /// Of the commands in `waiting` and `sent`.
    var bytes = 0

    struct Sent: Sendable {
        let number: UInt64
        let payloads: [[UInt8]]
        let bytes: Int
        var at: Instant
    }
}

/// How far a leader has taken the commands of one life of a member, in its present term.
struct ForwardStream: Sendable {
    let member: MemberID
    let stream: UInt64
    /// The first message that was not taken; earlier ones that come again are repetitions.
    var next: UInt64 = 1
    /// Taken ahead of it, ascending: a network may reorder, and commands under way at the same time have no order of their own.
    var ahead: [UInt64] = []

    /// Whether the message comes for the first time.
    mutating func take(_ number: UInt64) -> Bool {
        guard number >= next, number - next < RaftCore.forwardWindow else { return false }
        if number > next {
            let at = ahead.firstIndex { $0 >= number } ?? ahead.count
            if at < ahead.count, ahead[at] == number { return false }
            ahead.insert(number, at: at)
            return true
        }
        next += 1
        while ahead.first == next {
            ahead.removeFirst()
            next += 1
        }
        return true
    }
}

// A follower's commands reach the leader of its term each once, whatever the network loses, repeats or reorders: messages are numbered within
// the term, the leader takes each number once, and what it does not confirm is sent again. Between terms nothing is carried over: what was given
// to a leader of term t is in the log with term t or nowhere, so the origin may propose it anew once an entry of a later term is applied.
extension RaftCore {
    /// Unconfirmed messages are sent again after this many heartbeats.
    static let forwardPatience: Int64 = 5
    /// How far ahead of a missing message others are taken.
    static let forwardWindow: UInt64 = 4096
    /// Lives of members that a leader remembers in one term; the oldest is forgotten, whose late messages are then dropped.
    static let maxForwardStreams = 256

    // MARK: Follower

    mutating func forward(_ payloads: [[UInt8]], _ effects: inout [RaftEffect]) {
        if follow.commands.term != term { refuseForwards(.leaderChanged, &effects) }
        if follow.commands.bytes > options.maxUncommittedBytes {
            return effects.append(.proposalRefused(payloads: payloads, .tooManyUncommitted))
        }
        follow.commands.term = term
        follow.commands.waiting.append(contentsOf: payloads)
        follow.commands.bytes += cost(payloads)
    }

    private func cost(_ payloads: [[UInt8]]) -> Int { payloads.reduce(0) { $0 + $1.count + 40 } }

    /// What was not sent is given back; what was sent may be in the log and is the origin's to follow up.
    mutating func refuseForwards(_ reason: RaftRefusal, _ effects: inout [RaftEffect]) {
        let waiting = follow.commands.waiting
        if follow.commands.term != term {
            follow.commands.sent.removeAll()
            follow.commands.bytes = cost(waiting)
            follow.commands.next = 1
        }
        guard !waiting.isEmpty else { return }
        follow.commands.waiting = []
        follow.commands.bytes -= cost(waiting)
        effects.append(.proposalRefused(payloads: waiting, reason))
    }

    /// Sends what waited for this flush, and again what the leader seems not to have.
    mutating func sendCommands(_ now: Instant, _ effects: inout [RaftEffect]) {
        if follow.commands.term != term { refuseForwards(.leaderChanged, &effects) }
        if let oldest = follow.commands.sent.first, now - oldest.at >= options.heartbeatInterval * RaftCore.forwardPatience {
            for i in follow.commands.sent.indices {
                follow.commands.sent[i].at = now
                let message = follow.commands.sent[i]
                send(.forward(stream: follow.commands.stream, number: message.number, payloads: message.payloads), to: leader, &effects)
            }
        }
        guard !follow.commands.waiting.isEmpty else { return }
        let payloads = follow.commands.waiting
        follow.commands.waiting = []
        let number = follow.commands.next
        follow.commands.next += 1
        follow.commands.sent.append(Forwarding.Sent(number: number, payloads: payloads, bytes: cost(payloads), at: now))
        send(.forward(stream: follow.commands.stream, number: number, payloads: payloads), to: leader, &effects)
    }

    mutating func onForwardTaken(stream: UInt64, number: UInt64, through: UInt64, refused: RaftRefusal?, _ effects: inout [RaftEffect]) {
        guard role == .follower, stream == follow.commands.stream, follow.commands.term == term else { return }
        while let first = follow.commands.sent.first, first.number <= through, first.number != number { confirm(at: 0) }
        guard let at = follow.commands.sent.firstIndex(where: { $0.number == number }) else { return }
        let payloads = follow.commands.sent[at].payloads
        confirm(at: at)
        while let first = follow.commands.sent.first, first.number <= through { confirm(at: 0) }
        if let refused { effects.append(.proposalRefused(payloads: payloads, refused)) }
    }

    private mutating func confirm(at index: Int) { follow.commands.bytes -= follow.commands.sent.remove(at: index).bytes }

    // MARK: Leader

    mutating func onForward(stream: UInt64, number: UInt64, payloads: [[UInt8]], from peer: MemberID, term messageTerm: Term, _ effects: inout [RaftEffect]) {
        // Not leader (any more), or passed on in another term: dropped. While leadership is handed over too: the next term brings the commands
        // again, or, if nothing comes of it, the sender's patience.
        guard role == .leader, messageTerm == term, lead.transfer == nil else { return }
        let at: Int
        if let known = lead.forwards.lastIndex(where: { $0.member == peer && $0.stream == stream }) {
            at = known
        } else {
            if lead.forwards.count == RaftCore.maxForwardStreams { lead.forwards.removeFirst() }
            lead.forwards.append(ForwardStream(member: peer, stream: stream))
            at = lead.forwards.count - 1
        }
        var refusal: RaftRefusal?
        if lead.forwards[at].take(number) || planted(.takesForwardsTwice) {
            refusal = refusalOfProposal(payloads)
            if refusal == nil { appendCommands(payloads) }
        } else if number >= lead.forwards[at].next, !lead.forwards[at].ahead.contains(number) {
            // Beyond the window: comes again.
            return
        }
        send(.forwardTaken(stream: stream, number: number, through: lead.forwards[at].next - 1, refused: refusal), to: peer, &effects)
    }
}
