import Base

/// Everything that happened to the keys, revision by revision: what the checkers compare with. In the simulator `TruthModel` makes it
/// out of the log; for real processes it is filled with the revisions that an all-seeing watch delivered.
///
/// Memory is bounded by `forget(below:)`: reads at `floor` and above, and the events above `floor`, stay.
public struct TrueHistory: Sendable {
    /// The newest revision; 1: nothing happened yet.
    public private(set) var revision: Int64
    /// -1: never compacted.
    public private(set) var compactRevision: Int64 = -1
    /// Reads below are no longer possible here.
    public private(set) var floor: Int64

    private var keys = OrderedHistories()
    /// Revisions `floor + 1 ... revision`, behind `head` leftovers.
    private var revisions: [TrueRevision] = []
    private var head = 0
    /// The revisions that put a value, for values of the window. Looked up, never walked.
    private var revisionsOfValue: [Key: ValueUse] = [:]
    /// Compactions in order, the newest of those before the window included.
    private var compactions: [(revision: Int64, at: Moment)] = []

    /// Values that were put a second time, oldest first, at most `maxRepeats`. With unique values in the workload each is a broken promise.
    public private(set) var repeatedValues: [(value: [UInt8], first: Int64, second: Int64)] = []
    static let maxRepeats = 1_000

    /// Nearly every value is put once; `more` holds what nobody should have done.
    private struct ValueUse {
        var first: Int64
        var more: [Int64] = []
    }

    public init() {
        revision = 1
        floor = 1
    }

    // MARK: Growing

    /// Adds the next revision. Precondition: dense, and with the effects in `events` complete (create revision, version, previous).
    public mutating func append(_ next: TrueRevision) {
        for event in next.events { record(event, at: next.revision) }
        finish(next)
    }

    /// One change of the revision that `finish` will add; reads at that revision see it already.
    mutating func record(_ event: WatchRecord.Event, at main: Int64) {
        precondition(main == revision + 1, "revision \(main) behind \(revision)")
        keys.append(event.kv.key, KeyVersion(main: main, kv: event.isDelete ? nil : event.kv))
        guard !event.isDelete else { return }
        let value = Key(event.kv.value)
        // One hash for the usual case, that the value is new.
        guard var use = revisionsOfValue.updateValue(ValueUse(first: main), forKey: value) else { return }
        if use.first != main, use.more.last != main {
            use.more.append(main)
            if repeatedValues.count < TrueHistory.maxRepeats { repeatedValues.append((event.kv.value, use.first, main)) }
        }
        revisionsOfValue[value] = use
    }

    mutating func finish(_ next: TrueRevision) {
        precondition(next.revision == revision + 1, "revision \(next.revision) behind \(revision)")
        precondition(!next.events.isEmpty, "revision \(next.revision) without events")
        revision = next.revision
        revisions.append(next)
    }

    public mutating func compact(to revision: Int64, at: Moment) {
        compactRevision = revision
        compactions.append((revision, at))
    }

    /// Drops what only reads below `newFloor` and events at or below it need. Amortised O(log n) per dropped event.
    public mutating func forget(below newFloor: Int64) {
        let newFloor = min(newFloor, revision)
        guard newFloor > floor else { return }
        while floor < newFloor {
            floor += 1
            for event in revisions[head].events {
                keys.forget(event.kv.key, below: newFloor)
                guard !event.isDelete else { continue }
                let value = Key(event.kv.value)
                // Another event of this revision may have put the same value.
                if var use = revisionsOfValue[value], use.first == floor {
                    if use.more.isEmpty {
                        revisionsOfValue[value] = nil
                    } else {
                        use.first = use.more.removeFirst()
                        revisionsOfValue[value] = use
                    }
                }
            }
            revisions[head].events = []
            head += 1
        }
        if head > 256, head * 2 > revisions.count {
            revisions.removeFirst(head)
            head = 0
        }
        if compactions.count > 1_024 { compactions.removeFirst(compactions.count - 512) }
    }

    // MARK: Looking

    /// The revision itself; nil at or below the floor and above the newest.
    public subscript(revision: Int64) -> TrueRevision? {
        guard revision > floor, revision <= self.revision else { return nil }
        return revisions[head + Int(revision - floor) - 1]
    }

    /// When `revision` was made; nil outside the window.
    public func moment(of revision: Int64) -> Moment? {
        guard revision > floor, revision <= self.revision else { return nil }
        return revisions[head + Int(revision - floor) - 1].at
    }

    /// The newest revision made before `moment`, at least the floor.
    public func newestRevision(before moment: Moment) -> Int64 {
        var low = head
        var high = revisions.count
        while low < high {
            let middle = (low + high) / 2
            if revisions[middle].at < moment { low = middle + 1 } else { high = middle }
        }
        return floor + Int64(low - head)
    }

    /// Precondition: `at` is not below the floor.
    public func value(of key: [UInt8], at: Int64) -> SeenKeyValue? {
        precondition(at >= floor, "read at \(at) below the floor \(floor)")
        return keys.visible(key, at: at)
    }

    /// The newest state of one key, changes of an unfinished revision included (`TruthModel`).
    func newest(_ key: [UInt8]) -> SeenKeyValue? { keys.newest(key) }

    /// The key-values of a range, ascending. Precondition: `at` is not below the floor.
    public func range(_ key: [UInt8], _ end: [UInt8], at: Int64) -> [SeenKeyValue] {
        var found: [SeenKeyValue] = []
        forEach(key, end, at: at) {
            found.append($0)
            return true
        }
        return found
    }

    /// Walks what `range` returns, without building it.
    public func forEach(_ key: [UInt8], _ end: [UInt8], at: Int64, _ body: (SeenKeyValue) -> Bool) {
        precondition(at >= floor, "read at \(at) below the floor \(floor)")
        if end.isEmpty {
            if let kv = keys.visible(key, at: at) { _ = body(kv) }
            return
        }
        keys.forEach(from: key, to: end == [0] ? nil : end) { history in
            guard let kv = history.visible(at: at) else { return true }
            return body(kv)
        }
    }

    /// The first revision of the window that put `value`.
    public func revision(ofValue value: [UInt8]) -> Int64? { revisionsOfValue[Key(value)]?.first }

    /// Every revision of the window that put `value`, ascending.
    public func revisions(ofValue value: [UInt8]) -> [Int64] {
        guard let use = revisionsOfValue[Key(value)] else { return [] }
        return [use.first] + use.more
    }

    /// The compact revision as it stood at `moment`.
    public func compactRevision(at moment: Moment) -> Int64 {
        for compaction in compactions.reversed() where compaction.at <= moment { return compaction.revision }
        return -1
    }

    /// The number of keys with a remembered history.
    public var keyCount: Int { keys.count }
    /// The number of revisions in the window.
    public var windowCount: Int { revisions.count - head }
}

/// Whether `[key, end)` in etcd's form holds `candidate`.
func rangeContains(_ key: [UInt8], _ end: [UInt8], _ candidate: [UInt8]) -> Bool {
    if end.isEmpty { return candidate == key }
    guard compareBytes(candidate, key) >= 0 else { return false }
    return end == [0] || compareBytes(candidate, end) < 0
}
