import UI

/// Who led when, as heard from outside: from looks at what the nodes say, some dozens a second, and from their own news where they tell any.
/// Pure; times are milliseconds of one wall clock.
struct ElectionTally: Sendable {
    struct Election: Hashable, Sendable {
        var term: UInt64
        var leader: UInt64
        var at: Int64
        /// 0: leadership was handed over without a moment in between, or none was seen.
        var leaderlessMilliseconds: Int64
    }

    /// Those after the leader that was found first.
    private(set) var elections: [Election] = []
    /// Times without a leader that a majority followed, those that ended without an election too.
    private(set) var leaderless: [Int64] = []
    private(set) var leader: UInt64?
    private var term: UInt64 = 0
    private var lostAt: Int64?
    /// When nodes said that they were elected.
    private var told: [UInt64: Int64] = [:]

    /// What a look found; `leader` nil: no majority follows anyone.
    mutating func saw(leader found: UInt64?, term foundTerm: UInt64, at now: Int64) {
        guard let found else { return lost(at: now) }
        guard foundTerm >= term else { return }
        if term == 0 {
            (leader, term) = (found, foundTerm)
            return
        }
        if foundTerm > term {
            let began = told.removeValue(forKey: foundTerm).map { min($0, now) } ?? now
            add(Election(term: foundTerm, leader: found, at: max(began, lostAt ?? began), leaderlessMilliseconds: lostAt.map { max(0, began - $0) } ?? 0))
            term = foundTerm
            if let lostAt { leaderless.append(max(0, began - lostAt)) }
        } else if let lostAt {
            leaderless.append(max(0, now - lostAt))
        }
        (leader, lostAt) = (found, nil)
    }

    /// A node said that it was elected: exact where looks are not, and for terms that were over before the next look.
    mutating func elected(_ node: UInt64, term electedTerm: UInt64, at time: Int64) {
        guard term > 0, electedTerm > term else { return }
        told[electedTerm] = time
    }

    /// The node ended or was stopped in its tracks.
    mutating func died(_ node: UInt64, at now: Int64) {
        if node == leader { lost(at: now) }
    }

    private mutating func lost(at now: Int64) {
        guard leader != nil else { return }
        (leader, lostAt) = (nil, now)
    }

    private mutating func add(_ election: Election) {
        elections.append(election)
    }

    /// The longest time without a leader, counting one that still lasts.
    func longestLeaderless(at now: Int64) -> Int64 { max(leaderless.max() ?? 0, lostAt.map { now - $0 } ?? 0) }
}

/// Canary writes in order of being due, and what they say about what clients felt.
struct WriteRecord: Sendable {
    private(set) var writes: [CanaryWrite] = []
    private(set) var failed = 0
    private(set) var retried = 0

    mutating func add(_ more: [CanaryWrite]) {
        writes += more
        failed += more.count { $0.outcome == .failed }
        retried += more.count { $0.outcome == .retried }
    }

    var acknowledged: Int { writes.count - failed }
    var reportedUpTo: Int64 { (writes.last?.dueMicroseconds ?? 0) / 1_000 }

    /// When the first write that was sent at or after `moment` was acknowledged, in milliseconds after it.
    func resumed(after moment: Int64) -> Int64? {
        var first: Int64?
        for write in writes.reversed() {
            guard write.dueMicroseconds >= moment * 1_000 else { break }
            guard write.outcome != .failed else { continue }
            let end = write.dueMicroseconds + write.tookMicroseconds
            first = min(first ?? end, end)
        }
        return first.map { ($0 - moment * 1_000 + 999) / 1_000 }
    }

    /// The longest time between two acknowledgements that followed each other, and from the last until `now` if nothing more came for it.
    func longestGap(since start: Int64, until now: Int64?) -> Int64 {
        let ends = writes.filter { $0.outcome != .failed }.map { $0.dueMicroseconds + $0.tookMicroseconds }.filter { $0 >= start * 1_000 }.sorted()
        guard let last = ends.last else { return now.map { $0 - start } ?? 0 }
        var longest = ends[0] - start * 1_000
        for (a, b) in zip(ends, ends.dropFirst()) { longest = max(longest, b - a) }
        if let now { longest = max(longest, now * 1_000 - last) }
        return longest / 1_000
    }
}
