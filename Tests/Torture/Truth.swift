import Base
import Simulation

/// What clients saw in a run, all of it: the input of the judgement. Values only, so that a test can falsify it.
struct Evidence: Sendable {
    var operations: [ClientOperation]
    var watches: [WatchRecord]
    /// What was seen at once to be wrong.
    var reports: [Violation]
    /// The members at the end.
    var ends: [MemberEnd]
    /// The revision of the last write of all.
    var finalRevision: Int64
    /// Of the members.
    var compactRevision: Int64

    struct MemberEnd: Sendable {
        var name: String
        var id: UInt64
        var revision: Int64
        /// Over the history up to the final revision.
        var hash: UInt32
        var compactRevision: Int64
        /// Over the history up to the compact revision.
        var hashAtCompaction: UInt32?
        /// Every key that it holds itself, at the final revision.
        var content: [SeenKeyValue]
        var count: Int64
    }
}

/// One history made of what all watches on everything delivered.
struct Truth {
    private(set) var revisions: [TrueRevision] = []
    private(set) var violations: [Violation] = []

    init(_ evidence: Evidence) {
        var events: [Int64: (events: [WatchRecord.Event], from: WatchRecord)] = [:]
        for watch in evidence.watches where watch.key == [0] && watch.end == [0] && watch.wantsPrevious && watch.wantsPuts && watch.wantsDeletes {
            for (_, message) in watch.messages {
                guard case .events(let all, _, _) = message else { continue }
                var rest = all[...]
                while let first = rest.first {
                    let revision = first.kv.modRevision
                    let group = Array(rest.prefix { $0.kv.modRevision == revision })
                    rest = rest.dropFirst(group.count)
                    guard let known = events[revision] else {
                        events[revision] = (group, watch)
                        continue
                    }
                    // What came before may be forgotten by the time that one of them asks.
                    guard !Truth.isSame(known.events, group) else {
                        if group.contains(where: { $0.previous != nil }), !known.events.contains(where: { $0.previous != nil }) { events[revision] = (group, watch) }
                        continue
                    }
                    violations.append(Violation("members-differ", "revision \(revision) is \(Truth.text(known.events)) on \(Truth.name(known.from.member)) and "
                        + "\(Truth.text(group)) on \(Truth.name(watch.member))"))
                }
            }
        }
        let moments = Truth.moments(evidence)
        var state: [Key: SeenKeyValue] = [:] // looked up only
        var revision: Int64 = 2
        while revision <= evidence.finalRevision {
            guard let found = events[revision] else {
                violations.append(Violation("revision-missing", "no watch on everything ever delivered revision \(revision) of \(evidence.finalRevision)"))
                return
            }
            var complete: [WatchRecord.Event] = []
            for var event in found.events {
                let key = Key(event.kv.key)
                let previous = state[key]
                // Replayed, every number follows from what was before.
                if let told = event.previous, told != previous {
                    violations.append(Violation("revision-replay", "revision \(revision) says that before it was \(Truth.text(told)), it was \(previous.map(Truth.text) ?? "nothing")"))
                }
                event.previous = previous
                if event.isDelete {
                    if previous == nil { violations.append(Violation("revision-replay", "revision \(revision) deletes \(Truth.text(event.kv.key)), which does not exist")) }
                    state[key] = nil
                } else {
                    var expected = event.kv
                    expected.createRevision = previous?.createRevision ?? revision
                    expected.version = (previous?.version ?? 0) + 1
                    if expected != event.kv { violations.append(Violation("revision-replay", "revision \(revision) makes \(Truth.text(event.kv)), expected \(Truth.text(expected))")) }
                    state[key] = event.kv
                }
                complete.append(event)
            }
            revisions.append(TrueRevision(revision: revision, events: complete, at: moments[Int(revision)]))
            revision += 1
        }
        if let beyond = events.keys.max(), beyond > evidence.finalRevision {
            violations.append(Violation("revision-missing", "a watch delivered revision \(beyond), the members end at \(evidence.finalRevision)"))
        }
    }

    private static func isSame(_ a: [WatchRecord.Event], _ b: [WatchRecord.Event]) -> Bool {
        a.count == b.count && zip(a, b).allSatisfy { $0.isDelete == $1.isDelete && $0.kv == $1.kv && ($0.previous == nil || $1.previous == nil || $0.previous == $1.previous) }
    }

    /// By when each revision had certainly been made: the first moment at which anybody was told of it or of a later one. Thus never before
    /// it was made, and a read that begins afterwards has no excuse.
    private static func moments(_ evidence: Evidence) -> [Moment] {
        var moments = [Moment](repeating: .max, count: Int(evidence.finalRevision) + 1)
        func told(_ revision: Int64, _ moment: Moment) {
            guard revision > 0 else { return }
            let index = min(Int(revision), moments.count - 1)
            moments[index] = min(moments[index], moment)
        }
        for operation in evidence.operations {
            switch operation.outcome {
            case .done(let revision, let found, _, _):
                told(revision, operation.end)
                for kv in found { told(kv.modRevision, operation.end) }
            case .lease(let revision, _): told(revision, operation.end)
            case .refused, .unknown: break
            }
        }
        for watch in evidence.watches {
            for (moment, message) in watch.messages {
                switch message {
                case .created(let revision), .progress(let revision): told(revision, moment)
                case .events(let events, let revision, _):
                    told(revision, moment)
                    for event in events { told(event.kv.modRevision, moment) }
                case .cancelled(let revision, _): told(revision, moment)
                }
            }
        }
        for index in moments.indices.dropLast().reversed() { moments[index] = min(moments[index], moments[index + 1]) }
        return moments
    }

    // MARK: For messages

    static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
    static func text(_ kv: SeenKeyValue) -> String {
        "\(text(kv.key))=\(text(kv.value)) (create \(kv.createRevision), mod \(kv.modRevision), version \(kv.version)\(kv.lease == 0 ? "" : ", lease \(String(kv.lease, radix: 16))"))"
    }
    static func text(_ events: [WatchRecord.Event]) -> String {
        "[" + events.map { $0.isDelete ? "delete \(text($0.kv.key))" : "put \(text($0.kv))" }.joined(separator: ", ") + "]"
    }
    static func name(_ member: UInt64) -> String { member == 0 ? "any member" : "member \(String(member, radix: 16))" }
}
