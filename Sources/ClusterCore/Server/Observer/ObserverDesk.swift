import Base
import NIOCore
import Raft
import Replica

/// Something that happened at a member, as its observers are told.
struct ObservedNote: Sendable {
    /// Counts the notes of this life, from 1.
    var sequence: UInt64
    var at: Instant
    var wallMicroseconds: Int64
    var term: Term
    var isLearner: Bool
    var note: ReplicaNote
    /// Of a change of the membership: what changed.
    var text = ""
}

/// A member's state, as its observers are told.
struct ObservedPicture: Sendable {
    var at: Instant
    var wallMicroseconds: Int64
    var status: ReplicaStatus
    /// Since the picture before.
    var stages: StageFigures
}

/// News for the observers on one client loop.
struct ObserverNews: Sendable {
    var life: UInt64
    var notes: [ObservedNote] = []
    var picture: ObservedPicture?
}

/// What a member tells its observers: notes as they happen, a picture of its state when it changed, at most ten a second, and at least
/// one a second. Without observers only the latest notes are kept, for those that come later. Confined to the replica loop.
struct ObserverDesk {
    /// Between two pictures while the log moves.
    static let busyInterval = TimeSpan.milliseconds(100)
    /// Between two pictures when something changed that people wait for, such as a role.
    static let urgentInterval = TimeSpan.milliseconds(10)
    static let quietInterval = TimeSpan.seconds(1)
    /// Notes that one who connects (again) is still told: some elections' worth.
    static let maxRemembered = 256

    private let life: UInt64
    private var remembered = CircularBuffer<ObservedNote>()
    private var lastSequence: UInt64 = 0
    private var fresh: [ObservedNote] = []
    /// Client loops that want news.
    private(set) var loops: [UInt8] = []
    /// Those that were added since the last news: they get everything.
    private var newLoops: [UInt8] = []
    private var membership: Membership

    private var lastPicture = Instant.zero
    private var isUrgent = false
    private var told: ReplicaProgress?
    private var hasMoved = false

    init(life: UInt64, membership: Membership) {
        self.life = life
        self.membership = membership
    }

    var isObserved: Bool { !loops.isEmpty }

    mutating func add(_ loop: UInt8) {
        if !loops.contains(loop) { loops.append(loop) }
        newLoops.append(loop)
    }

    mutating func remove(_ loop: UInt8) {
        loops.removeAll { $0 == loop }
        newLoops.removeAll { $0 == loop }
    }

    mutating func take(_ note: ReplicaNote, term: Term, isLearner: Bool, at now: Instant, wallMicroseconds: Int64) {
        var text = ""
        var term = term
        switch note {
        case .raft(let raft):
            switch raft {
            case .configurationChanged, .messageRefused: return
            case .roleChanged(_, let at, _), .leaderChanged(_, let at), .preVoteAsked(let at), .voteAsked(let at), .voteCast(_, let at, _),
                 .voteRefused(_, let at, _, _), .voteReceived(_, _, _, let at), .elected(let at, _, _), .steppedDown(let at, _), .firstCommit(let at, _),
                 .leaderConnectionLost(_, let at):
                term = at
            case .electionTimeout, .transferStarted, .transferAborted, .snapshotNeeded, .diskStuck, .diskRecovered: break
            }
            isUrgent = true
        case .membershipChanged(let now):
            guard let changes = ObserverDesk.changes(from: membership, to: now) else { return }
            membership = now
            text = changes
        case .snapshotInstalled, .snapshotSent, .peerLost, .peerFound: break
        case .alarmsChanged, .compacted, .leaseExpired, .cannotApply, .diverged, .statesDiffer: return
        }
        lastSequence += 1
        let observed = ObservedNote(sequence: lastSequence, at: now, wallMicroseconds: wallMicroseconds, term: term, isLearner: isLearner, note: note, text: text)
        if remembered.count == ObserverDesk.maxRemembered { remembered.removeFirst() }
        remembered.append(observed)
        if isObserved { fresh.append(observed) }
    }

    /// One line for people; nil when nothing changed that they would care for.
    private static func changes(from old: Membership, to new: Membership) -> String? {
        func name(_ member: Member) -> String { member.name.isEmpty ? member.id.description : member.name }
        var changes: [String] = []
        for member in new.members {
            guard let before = old.member(member.id) else {
                changes.append("\(name(member)) added\(member.isLearner ? " as a learner" : "")")
                continue
            }
            if before.isLearner, !member.isLearner { changes.append("\(name(member)) promoted") }
            if before.peerURLs != member.peerURLs { changes.append("\(name(member)) moved to \(member.peerURLs.joined(separator: ", "))") }
            // A member tells its name when it first starts: no change that people would care for.
            if before.name != member.name, !before.name.isEmpty { changes.append("\(before.name) is \(name(member)) now") }
        }
        for member in old.members where new.member(member.id) == nil { changes.append("\(name(member)) removed") }
        return changes.isEmpty ? nil : changes.joined(separator: ", ")
    }

    // MARK: After a batch

    /// When the next picture is due, as far as it is not made with a batch.
    var deadline: Instant {
        guard isObserved else { return .distantFuture }
        return lastPicture + (isUrgent ? ObserverDesk.urgentInterval : hasMoved ? ObserverDesk.busyInterval : ObserverDesk.quietInterval)
    }

    /// The news for each loop that wants some, at most one a loop.
    mutating func news(_ progress: ReplicaProgress, at now: Instant, wallMicroseconds: Int64, stages: StageTimes,
                       status: () -> ReplicaStatus) -> [(loop: UInt8, news: ObserverNews)] {
        guard isObserved else { return [] }
        if progress != told { hasMoved = true }
        var news = ObserverNews(life: life)
        if now >= deadline || !newLoops.isEmpty {
            news.picture = ObservedPicture(at: now, wallMicroseconds: wallMicroseconds, status: status(), stages: stages.take())
            (lastPicture, told, isUrgent, hasMoved) = (now, progress, false, false)
        }
        if fresh.isEmpty, news.picture == nil { return [] }
        news.notes = fresh
        fresh.removeAll(keepingCapacity: true)
        var welcome = news
        if !newLoops.isEmpty { welcome.notes = Array(remembered) }
        defer { newLoops.removeAll(keepingCapacity: true) }
        return loops.map { ($0, newLoops.contains($0) ? welcome : news) }
    }
}
