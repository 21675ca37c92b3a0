import Base
@testable import Raft

let T = TimeSpan.milliseconds(100)
let beat = TimeSpan.milliseconds(10)

func member(_ n: UInt64) -> MemberID { MemberID(n) }
func index(_ n: UInt64) -> LogIndex { LogIndex(n) }
func position(_ index: UInt64, _ term: UInt64) -> LogPosition { LogPosition(index: LogIndex(index), term: Term(term)) }
func entry(_ index: UInt64, _ term: UInt64, _ payload: [UInt8] = [1]) -> Entry {
    Entry(index: LogIndex(index), term: Term(term), kind: .command, proposedAt: .unknown, payload: payload)
}
func log(_ terms: [UInt64]) -> [Entry] { terms.enumerated().map { entry(UInt64($0) + 1, $1) } }

func benchOptions() -> RaftOptions {
    var options = RaftOptions()
    options.electionTimeout = T
    options.heartbeatInterval = beat
    return options
}

/// One core driven by hand: every step is `handle` and `flush`; writes wait until `sync`.
final class Single {
    var core: RaftCore
    var now = Instant.zero
    var effects: [RaftEffect] = []
    var unsynced: [PersistBatch] = []
    var applied: [Entry] = []
    /// Report entries as applied as soon as they are given out.
    var appliesAtOnce = true

    init(_ id: UInt64 = 1, voters: [UInt64] = [1, 2, 3], learners: [UInt64] = [], term: UInt64 = 0, entries: [Entry] = [], applied: UInt64 = 0,
         start: LogPosition = .zero, options: RaftOptions = benchOptions(), seed: UInt64 = 1) {
        let configuration = Configuration(voters: voters.map(member), learners: learners.map(member))
        core = RaftCore(id: MemberID(id), options: options,
                        restart: RaftRestart(hardState: HardState(term: Term(term)), configuration: configuration, start: start,
                                             entries: entries, applied: LogIndex(applied)),
                        generator: SeededGenerator(seed: seed), now: .zero)
    }

    /// The effects of this batch of events.
    @discardableResult func step(_ events: RaftEvent...) -> [RaftEffect] { batch(events) }

    @discardableResult func batch(_ events: [RaftEvent]) -> [RaftEffect] {
        var new: [RaftEffect] = []
        for event in events { core.handle(event, at: now, wall: WallTime(milliseconds: 7), into: &new) }
        core.flush(at: now, into: &new)
        for effect in new {
            if case .persist(let batch) = effect { unsynced.append(batch) }
            if case .apply(let entries) = effect { applied += entries }
        }
        effects += new
        if appliesAtOnce, new.contains(where: { if case .apply = $0 { true } else { false } }) {
            return new + step(.applied(applied.last!.index))
        }
        return new
    }

    @discardableResult func receive(_ body: Message.Body, from peer: UInt64, term: UInt64) -> [RaftEffect] {
        step(message(body, from: peer, term: term))
    }

    func message(_ body: Message.Body, from peer: UInt64, term: UInt64) -> RaftEvent {
        .message(Message(from: MemberID(peer), to: core.id, term: Term(term), body: body))
    }

    @discardableResult func sync() -> [RaftEffect] {
        guard let last = unsynced.last else { return [] }
        unsynced = []
        return step(.persisted(last.ticket))
    }

    func wait(_ span: TimeSpan) { now = now + span }

    /// Lets time pass to the next deadline and reports it.
    @discardableResult func waitForDeadline() -> [RaftEffect] {
        now = max(now, core.nextDeadline)
        return step(.timer)
    }

    /// Wins an election against the votes of `voters` and brings the first entry to commit.
    func lead(votes: [UInt64] = [2, 3]) {
        while core.role == .follower { waitForDeadline() }
        for voter in votes where core.role == .preCandidate {
            receive(.voteReply(granted: true, isPreVote: true, refusal: nil), from: voter, term: core.term.rawValue + 1)
        }
        sync()
        for voter in votes where core.role == .candidate {
            receive(.voteReply(granted: true, isPreVote: false, refusal: nil), from: voter, term: core.term.rawValue)
        }
        sync()
        for voter in votes { receive(.appendAccepted(match: core.lastIndex), from: voter, term: core.term.rawValue) }
        precondition(core.hasCommittedInTerm, "did not come to lead")
        effects = []
    }

    var term: UInt64 { core.term.rawValue }

    // `#expect` copies what it asks, and a core cannot be copied.
    var isLeader: Bool { core.isLeader }
    var hasCommittedInTerm: Bool { core.hasCommittedInTerm }
    var leaderIsFresh: Bool { core.leaderIsFresh(at: now) }
    func wantsSnapshot(at index: LogIndex) -> Bool { core.wantsSnapshot(at: index) }
}

extension [RaftEffect] {
    var sent: [Message] { compactMap { if case .send(let message) = $0 { message } else { nil } } }
    func sent(to peer: UInt64) -> [Message.Body] { sent.filter { $0.to == MemberID(peer) }.map(\.body) }
    var persisted: [PersistBatch] { compactMap { if case .persist(let batch) = $0 { batch } else { nil } } }
    var notes: [RaftNote] { compactMap { if case .note(let note) = $0 { note } else { nil } } }
    var applied: [Entry] { flatMap { effect -> [Entry] in if case .apply(let entries) = effect { entries } else { [] } } }
    var readsReady: [(ReadID, LogIndex)] { compactMap { if case .readReady(let id, let index) = $0 { (id, index) } else { nil } } }
    var readsRefused: [(ReadID, RaftRefusal)] { compactMap { if case .readRefused(let id, let why) = $0 { (id, why) } else { nil } } }
    var proposalsRefused: [RaftRefusal] { compactMap { if case .proposalRefused(_, let why) = $0 { why } else { nil } } }
    var changesRefused: [RaftRefusal] { compactMap { if case .configurationRefused(_, let why) = $0 { why } else { nil } } }
    var snapshotsAsked: [MemberID] { compactMap { if case .sendSnapshot(let to) = $0 { to } else { nil } } }
}

extension [Message.Body] {
    var appends: [(previous: LogPosition, entries: [Entry], commit: LogIndex)] {
        compactMap { if case .append(let previous, let entries, let commit) = $0 { (previous, entries, commit) } else { nil } }
    }
    var rounds: [ReadRound] { compactMap { if case .heartbeat(_, let round) = $0, round != .none { round } else { nil } } }
}

/// Several cores with a perfect network and disk, for scenarios: messages are delivered in order until nothing moves; time
/// passes in small steps.
final class Bench {
    let members: [Single]
    /// Messages for which it says false are lost.
    var passes: (Message) -> Bool = { _ in true }
    var delivered = 0
    /// What each member's store holds, for snapshots.
    private var wire: [Message] = []
    /// Members whose disk finishes nothing.
    var stuck: Set<UInt64> = []
    /// Members whose process is gone: nothing reaches them, nothing leaves them.
    var dead: Set<UInt64> = []

    init(_ count: Int, voters: Int? = nil, options: RaftOptions = benchOptions()) {
        let ids = (1...UInt64(count)).map { $0 }
        members = ids.map { id in
            Single(id, voters: id <= UInt64(voters ?? count) ? Array(ids.prefix(voters ?? count)) : [], options: options, seed: id)
        }
    }

    subscript(_ id: UInt64) -> Single { members[Int(id) - 1] }
    var leader: Single? { living.filter { $0.core.isLeader }.max { $0.core.term < $1.core.term } }
    var now: Instant { members[0].now }

    func give(_ event: RaftEvent, to id: UInt64) {
        collect(self[id].step(event))
        settle()
    }

    private func collect(_ effects: [RaftEffect]) { wire += effects.sent.filter { passes($0) && !dead.contains($0.to.rawValue) } }

    /// Ends a member's process; `noticing` learn of it by their connections at once.
    func kill(_ id: UInt64, noticing: [UInt64]) {
        dead.insert(id)
        wire.removeAll { $0.to == member(id) }
        for other in noticing { collect(self[other].step(.peerUnreachable(member(id)), .peerGone(member(id)))) }
        settle()
    }

    var living: [Single] { members.filter { !dead.contains($0.core.id.rawValue) } }

    /// Delivers and syncs until nothing is left.
    func settle() {
        while true {
            var isIdle = true
            for single in living where !single.unsynced.isEmpty && !stuck.contains(single.core.id.rawValue) {
                isIdle = false
                collect(single.sync())
            }
            let batch = wire
            wire = []
            for message in batch {
                isIdle = false
                delivered += 1
                collect(self[message.to.rawValue].step(.message(message)))
            }
            if isIdle { return }
        }
    }

    func run(for span: TimeSpan) {
        let end = now + span
        while now < end {
            for single in members { single.wait(.milliseconds(1)) }
            for single in living where single.core.nextDeadline <= now { collect(single.step(.timer)) }
            settle()
        }
    }

    @discardableResult func elect() -> Single {
        for _ in 0..<100 where leader?.core.hasCommittedInTerm != true { run(for: .milliseconds(10)) }
        return leader!
    }
}
