import Base

/// A look at the tables that the store owns, record by record: what is there, and what cannot be. Changes nothing, keeps every key in memory.
public struct StoreInspection: Sendable {
    public var revision = Revision(1)
    public var compactRevision = Revision(-1)
    public var records = 0
    public var keys = 0
    public var leases = 0
    /// One line each: what no correct member writes. The first of them; `problemCount` says how many there are.
    public private(set) var problems: [String] = []
    public private(set) var problemCount = 0
    /// More of the same tell nothing new.
    public static let maxProblems = 20

    private mutating func note(_ problem: String) {
        problemCount += 1
        if problems.count < StoreInspection.maxProblems { problems.append(problem) }
    }

    private struct KeyState {
        var change: StoredChange
        var created: Int64
        var version: Int64
        var lease: Int64
        var isAlive: Bool { version > 0 }
    }

    /// - Parameter progress: records looked at, every few thousand.
    public static func run(_ reader: any BackendReader, progress: (_ records: Int) -> Void = { _ in }) throws(BackendError) -> StoreInspection {
        var it = StoreInspection()
        let finished = try it.mark(MetaKey.finishedCompactRevision, reader)
        let scheduled = try it.mark(MetaKey.scheduledCompactRevision, reader)
        if let finished, finished > scheduled ?? -1 {
            it.note("table meta: compaction \(finished) is finished but was never begun")
        }
        let compacted = max(finished ?? -1, scheduled ?? -1)
        it.compactRevision = Revision(compacted)

        var states: [Key: KeyState] = [:]
        var last: StoredChange?
        // Revisions written by a restore that moved the counter on: what lies before one need not be there.
        var mayHaveGap = false
        try reader.scan(.key, from: []) { key, value in
            it.records += 1
            if it.records % 4096 == 0 { progress(it.records) }
            guard let change = parseChangeKey(key), change.main > 0 else {
                it.note("table key: a record whose key of \(key.count) bytes is not a revision")
                return true
            }
            defer { last = change }
            if value.count == 0 {
                mayHaveGap = true
                return true
            }
            it.checkOrder(change, behind: last, compacted: compacted, mayHaveGap: mayHaveGap)
            mayHaveGap = false
            guard let view = KeyValueView(value), view.keyCount > 0 else {
                it.note("table key: revision \(change.id) is not a key-value")
                return true
            }
            let name = Key([UInt8](view.key(in: value)))
            it.checkHistory(change, view, of: name, before: states[name], compacted: compacted)
            states[name] = change.isTombstone
                ? KeyState(change: change, created: 0, version: 0, lease: 0)
                : KeyState(change: change, created: view.createRevision, version: view.version, lease: view.lease)
            return true
        }
        it.revision = Revision(max(last?.main ?? 1, compacted, 1))
        it.keys = states.values.count { $0.isAlive }
        if let last, compacted > last.main { it.note("table meta: compaction \(compacted) lies behind the last revision \(last.main)") }

        let leases: LeaseTable
        do throws(StoreLoadError) {
            leases = try LeaseTable.load(from: reader)
        } catch {
            switch error {
            case .backend(let error): throw error
            case .corrupt(let detail):
                it.note("table lease: \(detail)")
                return it
            }
        }
        it.leases = leases.count
        let orphans = states.filter { $0.value.isAlive && $0.value.lease != 0 && !leases.contains(LeaseID($0.value.lease)) }.keys.sorted()
        for key in orphans { it.note("key \(StoreInspection.quoted(key)) hangs on lease \(String(states[key]!.lease, radix: 16)), which does not exist") }
        return it
    }

    private mutating func mark(_ name: [UInt8], _ reader: any BackendReader) throws(BackendError) -> Int64? {
        guard let found = try reader.get(.meta, name, { parseChangeKey($0) }) else { return nil }
        guard let change = found else {
            note("table meta: \(String(decoding: name, as: UTF8.self)) is not a revision")
            return nil
        }
        return change.main
    }

    /// Above the compaction every revision is there, and its changes are numbered from 0.
    private mutating func checkOrder(_ change: StoredChange, behind last: StoredChange?, compacted: Int64, mayHaveGap: Bool) {
        guard change.main > compacted else { return }
        if let last, change.main == last.main {
            if change.sub != last.sub + 1 { note("table key: change \(change.id) follows change \(last.id)") }
            return
        }
        let before = max(last?.main ?? 1, compacted)
        if change.main > before + 1, before > 0, !mayHaveGap {
            note(change.main == before + 2 ? "table key: revision \(before + 1) is missing" : "table key: revisions \(before + 1) to \(change.main - 1) are missing")
        }
        if change.sub != 0 { note("table key: the changes of revision \(change.main) before number \(change.sub) are missing") }
    }

    /// A key-value says how often and since when its key has been written; that has to fit what was written before it.
    private mutating func checkHistory(_ change: StoredChange, _ view: KeyValueView, of name: Key, before: KeyState?, compacted: Int64) {
        func at(_ problem: String) -> String { "key \(StoreInspection.quoted(name)) at revision \(change.id): \(problem)" }
        if change.isTombstone {
            if change.main > compacted, !(before?.isAlive ?? false) { note(at("deleted though it did not exist")) }
            return
        }
        if view.modRevision != change.main { note(at("says that it was written at revision \(view.modRevision)")) }
        guard view.version >= 1, view.createRevision >= 1, view.createRevision <= change.main else {
            return note(at("version \(view.version), created at \(view.createRevision)"))
        }
        if let before, before.isAlive {
            if view.version != before.version + 1 || view.createRevision != before.created {
                // Between two versions below the compaction others may have been removed.
                guard change.main > compacted || view.version <= before.version else { return }
                note(at("version \(view.version), created at \(view.createRevision), follows version \(before.version), created at \(before.created)"))
            }
        } else if change.main > compacted, view.version != 1 || view.createRevision != change.main {
            note(at("version \(view.version), created at \(view.createRevision), though it did not exist before"))
        }
    }

    static func quoted(_ key: Key) -> String {
        key.bytes.allSatisfy { $0 >= 0x20 && $0 < 0x7f } ? "\"\(String(decoding: key.bytes, as: UTF8.self))\""
            : "0x" + key.bytes.map { (byte: UInt8) in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }
}
