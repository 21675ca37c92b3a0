import Base

/// One change of a key as the index and the durable table name it.
struct StoredChange: Hashable {
    var main: Int64
    /// sub << 1 | tombstone
    fileprivate var subAndTombstone: UInt32

    /// Changes of one transaction are numbered in 31 bits.
    static let maxSub = UInt32.max >> 1

    init(main: Int64, sub: UInt32, tombstone: Bool) {
        precondition(sub <= StoredChange.maxSub, "change \(main).\(sub): sub does not fit into 31 bits")
        self.main = main
        subAndTombstone = sub << 1 | (tombstone ? 1 : 0)
    }

    fileprivate init(main: Int64, subAndTombstone: UInt32) {
        self.main = main
        self.subAndTombstone = subAndTombstone
    }

    var sub: UInt32 { subAndTombstone >> 1 }
    var isTombstone: Bool { subAndTombstone & 1 != 0 }
    var id: ChangeID { ChangeID(main: Revision(main), sub: Int64(sub)) }

    /// By (main, sub).
    static func < (a: StoredChange, b: StoredChange) -> Bool {
        a.main != b.main ? a.main < b.main : a.subAndTombstone < b.subAndTombstone
    }
}

/// A grow-only row of changes that a writer and any number of snapshots share: a slot is written once, by the writer,
/// behind the count that any snapshot holds. So a put costs no copy of the key's history even while snapshots live.
///
/// Safe across threads (`IndexNode` vouches for it): readers only touch slots below the count that they received together with the reference; the
/// writer only touches the slot at its own count, which no reader has.
final class ChangeRow: ManagedBuffer<Int, StoredChange> {
    static func make(capacity: Int) -> ChangeRow {
        let made = ChangeRow.create(minimumCapacity: capacity) { _ in capacity }
        return unsafeDowncast(made, to: ChangeRow.self)
    }
    // `StoredChange` is trivial: nothing to deinitialize.
}

/// What pruning took from a key.
enum PrunedChanges {
    case one(StoredChange)
    /// Slots of a row that its key let go of: nobody writes them any more.
    case run(ChangeRow, Range<UInt32>)

    var count: Int {
        switch self {
        case .one: 1
        case .run(_, let slots): slots.count
        }
    }

    /// In order of time.
    subscript(_ at: Int) -> StoredChange {
        precondition(at >= 0 && at < count, "change \(at) of \(count)")
        switch self {
        case .one(let change): return change
        case .run(let row, let slots): return row.withUnsafeMutablePointerToElements { $0[Int(slots.lowerBound) + at] }
        }
    }
}

/// A key's history in the index: the latest change inline, the older ones in a shared row. (etcd's keyIndex; there the
/// generations are separate lists, here a tombstone inside the row ends one)
struct KeyEntry {
    /// 0: nothing recorded yet.
    private(set) var latestMain: Int64 = 0
    /// Of the latest change; 0 when that is a tombstone.
    private(set) var createRevision: Int64 = 0
    private(set) var version: Int64 = 0
    private(set) var lease: Int64 = 0
    /// As in StoredChange; packed so that an entry takes 48 bytes.
    private var latestSubAndTombstone: UInt32 = 0
    private var olderCount: UInt32 = 0
    private var older: ChangeRow?

    init() {}

    var latestIsTombstone: Bool { latestSubAndTombstone & 1 != 0 }
    var isLive: Bool { latestMain != 0 && !latestIsTombstone }
    var latest: StoredChange { StoredChange(main: latestMain, subAndTombstone: latestSubAndTombstone) }
    var changeCount: Int { latestMain == 0 ? 0 : Int(olderCount) + 1 }

    /// The change at `position` in order of time, `changeCount - 1` being the latest.
    func change(at position: Int) -> StoredChange {
        if position == Int(olderCount) { return latest }
        precondition(position < Int(olderCount), "change \(position) of \(changeCount)")
        return older!.withUnsafeMutablePointerToElements { $0[position] }
    }

    /// Makes `change` the latest. Revisions only grow.
    mutating func record(_ change: StoredChange, createRevision: Int64, version: Int64, lease: Int64) {
        if latestMain != 0 {
            precondition(latest < change, "change \(change.id) recorded behind \(latest.id)")
            appendOlder(latest)
        }
        latestMain = change.main
        latestSubAndTombstone = change.subAndTombstone
        self.createRevision = createRevision
        self.version = version
        self.lease = lease
    }

    private mutating func appendOlder(_ change: StoredChange) {
        let count = Int(olderCount)
        if older == nil {
            older = ChangeRow.make(capacity: 3)
        } else if count == older!.header {
            let grown = ChangeRow.make(capacity: count * 2 + 2)
            older!.withUnsafeMutablePointerToElements { source in
                grown.withUnsafeMutablePointerToElements { $0.initialize(from: source, count: count) }
            }
            older = grown
        }
        older!.withUnsafeMutablePointerToElements { ($0 + count).initialize(to: change) }
        olderCount += 1
    }

    /// The number of changes with main <= `revision`.
    func changeCount(through revision: Int64) -> Int {
        if latestMain == 0 { return 0 }
        if latestMain <= revision { return changeCount }
        guard let older else { return 0 }
        return older.withUnsafeMutablePointerToElements { row in
            var low = 0
            var high = Int(olderCount)
            while low < high {
                let middle = (low + high) / 2
                if row[middle].main <= revision { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }

    /// The newest change with main <= `revision`, tombstone or not.
    func newest(through revision: Int64) -> StoredChange? {
        if latestMain != 0 && latestMain <= revision { return latest }
        let count = changeCount(through: revision)
        return count == 0 ? nil : change(at: count - 1)
    }

    /// The change that a read at `revision` sees; nil when the key is not alive there.
    func visible(at revision: Int64) -> StoredChange? {
        guard let change = newest(through: revision), !change.isTombstone else { return nil }
        return change
    }

    /// Forgets what no read at `revision` or later needs, and calls `dropped` with it. Tombstones of
    /// exactly `revision` stay, so that a watcher opened there sees the deletion (etcd >= 3.5.18).
    /// Returns false when nothing is left: the key leaves the index.
    ///
    /// Takes no longer for a long history than for a short one, but for what the key got behind `revision`: a counter that was
    /// written a million times must not hold up the loop.
    mutating func prune(to revision: Int64, dropped: (PrunedChanges) -> Void) -> Bool {
        let through = changeCount(through: revision)
        guard through > 0 else { return true }
        let newest = change(at: through - 1)
        // Only here can there be changes that stay: those of `revision` itself, and the newest.
        var tail = through - 1
        while tail > 0 && change(at: tail - 1).main == revision { tail -= 1 }
        var kept: [StoredChange] = []
        var alsoDropped: [StoredChange] = []
        for position in tail..<through {
            let change = change(at: position)
            let keep = change.isTombstone ? change.main == revision && !planted(.compactsTombstonesAway) : position == through - 1
            if keep { kept.append(change) } else { alsoDropped.append(change) }
        }
        if kept.count == through { return true }
        if tail > 0 { dropped(.run(older!, 0..<UInt32(tail))) }
        for change in alsoDropped { dropped(.one(change)) }
        if through == changeCount {
            // `newest` is the latest: it stays inline or the key goes.
            guard let last = kept.last else { return false }
            precondition(last == newest, "pruning to \(revision) dropped the latest change \(newest.id) and kept \(last.id)")
            kept.removeLast()
        }
        let restAt = min(through, Int(olderCount))
        let restCount = Int(olderCount) - restAt
        let remaining = kept.count + restCount
        guard remaining > 0 else {
            older = nil
            olderCount = 0
            return true
        }
        // A new row: snapshots go on reading the old one.
        let row = ChangeRow.make(capacity: remaining + 2)
        row.withUnsafeMutablePointerToElements { target in
            for (at, change) in kept.enumerated() { (target + at).initialize(to: change) }
            if restCount > 0 {
                older!.withUnsafeMutablePointerToElements { source in
                    (target + kept.count).initialize(from: source + restAt, count: restCount)
                }
            }
        }
        older = row
        olderCount = UInt32(remaining)
        return true
    }

    /// Whether `prune(to:)` would drop anything; without allocation.
    func hasPrunable(to revision: Int64) -> Bool {
        if latestMain == 0 { return false }
        if olderCount == 0 { return latestIsTombstone && latestMain < revision }
        let through = changeCount(through: revision)
        if through == 0 { return false }
        if through > 1 {
            // More than one at or below: the older go, unless all are tombstones of the revision itself (or precede its put).
            for position in 0..<through - 1 {
                let change = change(at: position)
                if !(change.isTombstone && change.main == revision) { return true }
            }
        }
        let newest = change(at: through - 1)
        return newest.isTombstone && newest.main < revision
    }
}
