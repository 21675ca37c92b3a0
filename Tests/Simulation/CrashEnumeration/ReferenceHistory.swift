import Base
import Raft
import Replica
import Store

/// What a replicated log must have made of the store, entry by entry: the oracle of crash enumeration, with `TruthModel` for the commands. A value:
/// a cluster that goes on from a survivor forks the history of the run that it came from.
struct ReferenceHistory {
    /// The state behind one entry; the keys are those of `truth` at its revision.
    struct Point {
        var term = Term.zero
        var revision: Int64 = 1
        var compactRevision: Int64 = -1
        /// Ascending.
        var leases: [Int64] = []
        var configuration: Configuration
        /// As the first member that applied the entry had it.
        var hash: StateHash?
    }
    /// By index; the first is the state of a new member.
    private var points: [Point]
    /// The entry of each point but the first.
    private var entries: [Entry] = []
    private var truth = TruthModel()
    /// Something that no workload may bring about.
    private(set) var fault: String?

    init(founders: [Member]) {
        points = [Point(configuration: Configuration(voters: founders.filter { !$0.isLearner }.map(\.id), learners: founders.filter(\.isLearner).map(\.id)))]
    }

    var last: LogIndex { LogIndex(UInt64(entries.count)) }
    func term(at index: LogIndex) -> Term? { index <= last ? points[Int(index.rawValue)].term : nil }
    func entry(_ index: LogIndex) -> Entry? { index > .zero && index <= last ? entries[Int(index.rawValue) - 1] : nil }
    subscript(index: LogIndex) -> Point { points[Int(index.rawValue)] }

    /// Every key as of a revision, ascending. Precondition: it exists.
    func keys(at revision: Int64) -> [SeenKeyValue] { truth.history.range([0], [0], at: revision) }
    func value(of key: [UInt8], at revision: Int64) -> [UInt8]? { truth.history.value(of: key, at: revision)?.value }

    /// The first entry at which `revision` was the newest; nil if there is none.
    func index(ofRevision revision: Int64) -> LogIndex? {
        points.lastIndex { $0.revision < revision }.map { LogIndex(UInt64($0 + 1)) }.flatMap { $0 <= last && self[$0].revision == revision ? $0 : nil }
    }

    /// Takes over what a member was told to write. Members repeat each other; an entry of another term overwrites the rest.
    mutating func record(_ written: [Entry]) {
        for entry in written {
            if let term = term(at: entry.index) {
                if term == entry.term { continue }
                truncate(behind: entry.index.previous)
            }
            guard entry.index == last.next else {
                fault = "entry \(entry.index.rawValue) was written behind \(last.rawValue)"
                return
            }
            entries.append(entry)
            apply(entry)
        }
    }

    /// - Returns: what is wrong, if another member had another hash behind the same entry.
    mutating func applied(_ index: LogIndex, _ hash: StateHash) -> String? {
        guard index <= last else { return "entry \(index.rawValue) was applied and never written" }
        guard let known = points[Int(index.rawValue)].hash else {
            points[Int(index.rawValue)].hash = hash
            return nil
        }
        return known == hash ? nil : "behind entry \(index.rawValue) the state is \(hash), it was \(known)"
    }

    /// A leader of a later term did without these entries. Rare, so the model starts anew.
    private mutating func truncate(behind index: LogIndex) {
        let kept = entries.prefix(Int(index.rawValue))
        let hashes = points.map(\.hash)
        truth = TruthModel()
        points.removeLast(points.count - 1)
        entries = []
        for entry in kept {
            entries.append(entry)
            apply(entry)
            points[points.count - 1].hash = hashes[points.count - 1]
        }
    }

    private mutating func apply(_ entry: Entry) {
        var point = points[points.count - 1]
        point.term = entry.term
        point.hash = nil
        if entry.kind == .configuration { point.configuration = point.configuration.applying(entryPayload: entry.payload) }
        switch truth.apply(index: entry.index.rawValue, term: entry.term.rawValue, kind: entry.kind, payload: entry.payload, at: Moment(entry.index.rawValue)).effect {
        case .granted(let lease, _): point.leases = (point.leases + [lease]).sorted()
        case .revoked(let lease, _), .expired(let lease, _): point.leases.removeAll { $0 == lease }
        case .undecodable(let reason): fault = "entry \(entry.index.rawValue): \(reason)"
        default: break
        }
        point.revision = truth.revision
        point.compactRevision = truth.compactRevision
        points.append(point)
    }
}
