import Base
import Raft
import Replica
import Store

/// What a replicated log must have made of the store, entry by entry: a slow and obvious machine, the oracle of crash enumeration. A value: a
/// cluster that goes on from a survivor forks the history of the run that it came from.
struct ReferenceHistory {
    struct Key: Hashable {
        var value: [UInt8]
        var createRevision: Int64
        var modRevision: Int64
        var version: Int64
        var lease: Int64
    }
    /// The state behind one entry.
    struct Point {
        var term: Term
        var revision: Int64 = 1
        var compactRevision: Int64 = -1
        var keys: [[UInt8]: Key] = [:]
        /// Seconds by lease.
        var leases: [Int64: Int64] = [:]
        var configuration: Configuration
    }
    /// By index; the first is the state of a new member.
    private(set) var points: [Point]
    /// The entry of each point but the first.
    private(set) var entries: [Entry] = []
    /// The keys at each revision, from revision 1 on.
    private(set) var keysAt: [[[UInt8]: Key]] = [[:], [:]]
    /// A command that this machine cannot do, which no workload sends.
    private(set) var fault: String?

    init(founders: [Member]) {
        let configuration = Configuration(voters: founders.filter { !$0.isLearner }.map(\.id), learners: founders.filter(\.isLearner).map(\.id))
        points = [Point(term: .zero, configuration: configuration)]
    }

    var last: LogIndex { LogIndex(UInt64(entries.count)) }
    func term(at index: LogIndex) -> Term? { index <= last ? points[Int(index.rawValue)].term : nil }
    func entry(_ index: LogIndex) -> Entry? { index > .zero && index <= last ? entries[Int(index.rawValue) - 1] : nil }
    subscript(index: LogIndex) -> Point { points[Int(index.rawValue)] }

    /// The first entry at which `revision` was the newest; nil if there is none.
    func index(ofRevision revision: Int64) -> LogIndex? {
        points.firstIndex { $0.revision == revision }.map { LogIndex(UInt64($0)) }
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

    mutating func truncate(behind index: LogIndex) {
        entries.removeLast(entries.count - Int(index.rawValue))
        points.removeLast(points.count - 1 - Int(index.rawValue))
        keysAt.removeLast(keysAt.count - 1 - Int(points[points.count - 1].revision))
    }

    private mutating func apply(_ entry: Entry) {
        var point = points[points.count - 1]
        point.term = entry.term
        let before = point.revision
        switch entry.kind {
        case .empty: break
        case .configuration: point.configuration = point.configuration.applying(entryPayload: entry.payload)
        case .command:
            do {
                try apply(try Command.decode(entry.payload), to: &point)
            } catch { fault = "entry \(entry.index.rawValue): \(error)" }
        }
        if point.revision > before { keysAt.append(point.keys) }
        points.append(point)
    }

    private func apply(_ command: Command, to point: inout Point) throws {
        try command.body.withUnsafeBytes { raw in
            var body = ByteReader(raw)
            switch command.kind {
            case .put: put([try PutRequest.decode(&body)], to: &point)
            case .deleteRange:
                let request = try DeleteRangeRequest.decode(&body)
                delete(point.keys.keys.filter { request.range.contains(Base.Key($0)) }, from: &point)
            case .txn:
                // Workloads send unconditional puts.
                let request = try TxnRequest.decode(&body)
                put(request.success.compactMap { if case .put(let one) = $0 { one } else { nil } }, to: &point)
            case .compaction:
                let revision = try CompactionRequest.decode(&body).revision.rawValue
                if revision > point.compactRevision, revision <= point.revision { point.compactRevision = revision }
            case .leaseGrant:
                var id: Int64 = 0
                var ttl: Int64 = 0
                while let (field, type) = try body.readTag() {
                    switch field {
                    case 1: ttl = Int64(bitPattern: try body.readVarint())
                    case 2: id = Int64(bitPattern: try body.readVarint())
                    default: try body.skip(type)
                    }
                }
                if point.leases[id] == nil { point.leases[id] = ttl }
            case .leaseRevoke:
                var id: Int64 = 0
                while let (field, type) = try body.readTag() {
                    if field == 1 { id = Int64(bitPattern: try body.readVarint()) } else { try body.skip(type) }
                }
                if point.leases.removeValue(forKey: id) != nil { delete(point.keys.filter { $0.value.lease == id }.map(\.key), from: &point) }
            case .memberAttributes: break
            default: throw DecodingFault.malformed("command \(command.kind)")
            }
        }
    }

    private func put(_ requests: [PutRequest], to point: inout Point) {
        guard requests.allSatisfy({ $0.lease == .none || point.leases[$0.lease.rawValue] != nil }), !requests.isEmpty else { return }
        point.revision += 1
        for request in requests {
            let before = point.keys[request.key]
            point.keys[request.key] = Key(value: request.value, createRevision: before?.createRevision ?? point.revision, modRevision: point.revision,
                                          version: (before?.version ?? 0) + 1, lease: request.lease.rawValue)
        }
    }

    private func delete(_ keys: [[UInt8]], from point: inout Point) {
        guard !keys.isEmpty else { return }
        point.revision += 1
        for key in keys { point.keys[key] = nil }
    }
}
