import Base
import DequeModule
import Raft

/// The one true log, as far as anybody has seen it: every entry that any member ever appended, and which of them are committed.
struct Ledger {
    struct Version {
        var term: UInt64
        var previousTerm: UInt64
        var kind: Entry.Kind
        var payload: [UInt8]
    }
    private struct Slot {
        /// One for most indexes; more where leaders of several terms tried.
        var versions: [Version] = []
        var committed: UInt64?
        var stateHash: UInt64?
    }

    /// Index of the first slot.
    private var base: UInt64 = 1
    private var slots = Deque<Slot>()
    /// Everything up to here is committed.
    private(set) var commit: UInt64 = 0

    private mutating func with<R>(_ index: UInt64, _ body: (inout Slot) -> R) -> R? {
        guard index >= base else { return nil }
        while base + UInt64(slots.count) <= index { slots.append(Slot()) }
        return body(&slots[Int(index - base)])
    }

    /// Log matching: entries of one index and term are the same, and so is what comes before them. (Raft figure 3)
    mutating func appended(_ entry: Entry, previousTerm: UInt64?) -> Violation? {
        with(entry.index.rawValue) { slot in
            let term = entry.term.rawValue
            for version in slot.versions where version.term == term {
                if version.kind != entry.kind || version.payload != entry.payload {
                    return Violation("log-matching", "index \(entry.index.rawValue) term \(term): two different entries")
                }
                if let previousTerm, version.previousTerm != previousTerm {
                    return Violation("log-matching", "index \(entry.index.rawValue) term \(term) follows term \(previousTerm) here and \(version.previousTerm) elsewhere")
                }
                return nil
            }
            // What came before is unknown when the log begins right here: nothing to compare.
            slot.versions.append(Version(term: term, previousTerm: previousTerm ?? 0, kind: entry.kind, payload: entry.payload))
            return nil
        } ?? nil
    }

    /// A member takes this entry for committed. The prefix never changes and has one history. (state machine safety)
    /// - Returns: the entry when it is the first to say so.
    mutating func committed(_ index: UInt64, term: UInt64) -> (violation: Violation?, first: Version?) {
        guard index >= base else { return (nil, nil) }
        let next = commit + 1
        let result: (violation: Violation?, first: Version?)? = with(index) { slot in
            if let known = slot.committed {
                guard known != term else { return (nil, nil) }
                return (Violation("committed-prefix", "index \(index) was committed with term \(known), now with term \(term)"), nil)
            }
            guard let version = slot.versions.first(where: { $0.term == term }) else {
                return (Violation("committed-prefix", "index \(index) term \(term) is committed but was never appended"), nil)
            }
            guard index == next else { return (Violation("committed-prefix", "index \(index) is committed before \(next)"), nil) }
            slot.committed = term
            return (nil, version)
        }
        guard let result else { return (nil, nil) }
        if result.first != nil { commit = index }
        return result
    }

    func committedTerm(_ index: UInt64) -> UInt64? {
        guard index >= base, index < base + UInt64(slots.count) else { return nil }
        return slots[Int(index - base)].committed
    }

    /// State machine equality: after the same entry every member is in the same state.
    mutating func applied(_ index: UInt64, hash: UInt64, by member: MemberID) -> Violation? {
        with(index) { slot in
            guard let known = slot.stateHash else {
                slot.stateHash = hash
                return nil
            }
            guard known != hash else { return nil }
            return Violation("state-machine", "after index \(index) the state of \(member) is \(hex(hash)), elsewhere it was \(hex(known))")
        } ?? nil
    }

    /// Forgets what lies before `index`.
    mutating func forget(before index: UInt64) {
        guard index > base + 4096 else { return }
        let count = min(Int(index - base), slots.count)
        slots.removeFirst(count)
        base += UInt64(count)
    }
}

func hex(_ number: UInt64) -> String { String(number, radix: 16) }
