import UI

/// Whether each acknowledged canary write is in the key's history: the revisions that were acknowledged against those that a watch of the
/// key brought. A watch brings everything, in order, so that an acknowledged revision which it has passed without showing is lost.
struct CanaryLedger: Sendable {
    private var acknowledged: Set<Int64> = []
    private var seen: Set<Int64> = []
    /// Every event up to here has come.
    private var watched: Int64 = 0
    /// Where the watch starts; nil until the first acknowledgement.
    private(set) var start: Int64?
    private(set) var check = CanaryCheck()

    /// More lost ones are counted, not named.
    static let namedLimit = 20

    mutating func acknowledge(_ revision: Int64) {
        if start == nil { start = revision }
        // Acknowledged out of order before the watch began: nothing can be said about it.
        guard revision >= start! else { return }
        check.acknowledged += 1
        acknowledged.insert(revision)
        settle(revision)
    }

    mutating func saw(_ revisions: [Int64], upTo revision: Int64) {
        for revision in revisions {
            seen.insert(revision)
            settle(revision)
        }
        watched = max(watched, revision)
        for missing in acknowledged.filter({ $0 <= watched }).sorted() { settle(missing) }
        // Seen without an acknowledgement: an unknown outcome that happened. An answer later than a few thousand writes will not come.
        if seen.count > 8_192 { seen = seen.filter { $0 > watched - 4_096 } }
    }

    private mutating func settle(_ revision: Int64) {
        guard acknowledged.contains(revision) else { return }
        if seen.remove(revision) != nil {
            check.confirmed += 1
        } else if revision <= watched {
            check.lost += 1
            if check.lostRevisions.count < CanaryLedger.namedLimit { check.lostRevisions.append(revision) }
        } else {
            return
        }
        acknowledged.remove(revision)
    }

    /// Acknowledged, and the watch is not there yet.
    var isComplete: Bool { acknowledged.isEmpty }
}
