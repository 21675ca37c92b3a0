import UI

/// Judges everything that a workload wrote and read, as it happens: is it a history that a linearizable store could have given?
///
/// Every write carries a number of its own, so that a value says which write it came from. Pure: no clock, no client. Times are
/// microseconds of any one clock, and must be those of the calls: `beginWrite` and `beginRead` before the request is sent, `endWrite`
/// and `endRead` after its answer came. From that order alone follows what an answer may be:
/// - a value at mod revision m is the write acknowledged with m, or one without an answer, which is resolved by being seen;
/// - a linearizable read sees at least the newest revision that was acknowledged, or read, before it started;
/// - a write gets a larger revision than everything that was acknowledged before it started, on any key, and no two writes share one;
/// - the version of a key counts every acknowledged write up to there, so that also a lost write that was overwritten is missed;
/// - a serializable read may be old, but what it sees existed at that revision.
///
/// Memory is bounded: settled history beyond `historyLimit` writes is dropped, and what is that old is no longer judged.
struct ConsistencyChecker: Sendable {
    enum WriteOutcome: Hashable, Sendable {
        case acknowledged(revision: Int64)
        /// It may have happened, or may still happen.
        case unknown
        /// It was never sent, or refused before anyone looked at it.
        case refused
    }

    /// What a read found.
    struct Found: Hashable, Sendable {
        /// nil: the value is none that this workload writes.
        var write: UInt64?
        var revision: Int64
        /// How many times the key was written since it exists; nil: not told.
        var version: Int64?
    }

    /// A read under way.
    struct ReadToken: Hashable, Sendable {
        fileprivate var key: Int
        fileprivate var isLinearizable: Bool
        fileprivate var start: Int64
        fileprivate var floor: Floor
    }

    /// The least that must be seen, and why.
    fileprivate struct Floor: Hashable, Sendable {
        var revision: Int64 = 0
        var at: Int64 = 0
        var isRead = false
        var key = 0
    }

    private struct Write {
        enum State {
            case pending, unknown, refused
            /// Acknowledged, or seen.
            case happened(revision: Int64)
        }
        var key: Int
        var start: Int64
        var floor: Floor
        var state = State.pending
        /// An acknowledgement or an end without one has come.
        var hasEnded = false
    }

    private struct KeyState {
        var floor = Floor()
        /// Newest write known to have happened here.
        var newest: (write: UInt64, revision: Int64)?
        /// Revisions of writes that happened, ascending, at most `ConsistencyChecker.recentLimit`; and how many are older.
        var recent: [Int64] = []
        var olderCount: Int64 = 0
        /// Writes without an answer yet, and those that never got one and were not seen.
        var open = 0
        /// Acknowledged revisions that no read has covered yet, ascending, each with how many it stands for.
        var unconfirmed: [(revision: Int64, count: Int)] = []
        var confirmedUpTo: Int64 = 0
        /// The same fault is told once a key, until a sound answer comes.
        var isFaulty = false
    }

    static let historyLimit = 65_536
    private static let recentLimit = 256
    private static let unconfirmedLimit = 256
    static let violationLimit = 20

    private let prefix: String
    /// Writes by number: `writes[0]` is number `firstWrite`.
    private var writes: [Write] = []
    private var firstWrite: UInt64 = 1
    private var keys: [Int: KeyState] = [:]
    private var byRevision: [Int64: UInt64] = [:]
    private var newestFloor = Floor()
    private(set) var verdict = ConsistencyVerdict()
    /// Also those beyond the ones that are kept as text.
    private(set) var violationCount = 0

    /// - Parameter prefix: of the keys' names, for the texts: key 7 is `prefix` and `7`.
    init(prefix: String) { self.prefix = prefix }

    /// Keys that were written or may have been, ascending.
    var touchedKeys: [Int] { keys.keys.sorted() }

    /// Writes that are remembered one by one.
    var historyCount: Int { writes.count }

    // MARK: Writes

    /// Numbers the write that is about to be sent.
    mutating func beginWrite(key: Int, at now: Int64) -> UInt64 {
        let number = firstWrite + UInt64(writes.count)
        writes.append(Write(key: key, start: now, floor: newestFloor))
        keys[key, default: KeyState()].open += 1
        dropSettled()
        return number
    }

    mutating func endWrite(_ number: UInt64, _ outcome: WriteOutcome, at now: Int64) {
        guard let index = index(number), !writes[index].hasEnded else { return }
        writes[index].hasEnded = true
        let write = writes[index]
        switch outcome {
        case .unknown:
            // One that was seen already is resolved.
            guard case .pending = write.state else { return }
            writes[index].state = .unknown
            verdict.unknownWrites += 1
        case .refused:
            guard case .pending = write.state else { return violation(write.key, "write \(number) was refused before anyone looked at it, but was seen") }
            writes[index].state = .refused
            keys[write.key]!.open -= 1
        case .acknowledged(let revision):
            verdict.acknowledgedWrites += 1
            if revision <= write.floor.revision {
                violation(write.key, "a write that started at \(text(write.start)) was acknowledged with revision \(revision), though revision \(write.floor.revision) "
                    + (write.floor.isRead ? "had been read" : "had been acknowledged") + " before it, at \(text(write.floor.at))"
                    + (write.floor.key == write.key ? "" : ", on \(name(write.floor.key))"))
            }
            if case .happened(let seen) = write.state {
                if seen != revision { violation(write.key, "write \(number) was acknowledged with revision \(revision), but read at revision \(seen)") }
            } else {
                happened(number, index, at: revision)
            }
            raise(write.key, Floor(revision: revision, at: now, key: write.key))
            expect(write.key, revision)
        }
    }

    /// What is known to have happened: the book of revisions.
    private mutating func happened(_ number: UInt64, _ index: Int, at revision: Int64) {
        let key = writes[index].key
        writes[index].state = .happened(revision: revision)
        keys[key]!.open -= 1
        if let other = byRevision[revision], other != number {
            violation(key, "revision \(revision) belongs to two writes: \(other) and \(number)")
        }
        byRevision[revision] = number
        var state = keys[key]!
        if revision > state.newest?.revision ?? 0 { state.newest = (number, revision) }
        var place = state.recent.count
        while place > 0, state.recent[place - 1] > revision { place -= 1 }
        state.recent.insert(revision, at: place)
        if state.recent.count > ConsistencyChecker.recentLimit {
            state.recent.removeFirst(64)
            state.olderCount += 64
        }
        keys[key] = state
    }

    /// An acknowledged write that some read must cover.
    private mutating func expect(_ key: Int, _ revision: Int64) {
        if revision <= keys[key]!.confirmedUpTo {
            verdict.confirmedWrites += 1
            return
        }
        var place = keys[key]!.unconfirmed.count
        while place > 0, keys[key]!.unconfirmed[place - 1].revision > revision { place -= 1 }
        keys[key]!.unconfirmed.insert((revision, 1), at: place)
        if keys[key]!.unconfirmed.count > ConsistencyChecker.unconfirmedLimit {
            // Confirmed together with the next one: later than it might be, never too early.
            keys[key]!.unconfirmed[1].count += keys[key]!.unconfirmed[0].count
            keys[key]!.unconfirmed.removeFirst()
        }
    }

    private mutating func raise(_ key: Int, _ floor: Floor) {
        if floor.revision > keys[key]!.floor.revision { keys[key]!.floor = floor }
        if floor.revision > newestFloor.revision { newestFloor = floor }
    }

    // MARK: Reads

    func beginRead(key: Int, isLinearizable: Bool, at now: Int64) -> ReadToken {
        ReadToken(key: key, isLinearizable: isLinearizable, start: now, floor: keys[key]?.floor ?? Floor())
    }

    /// `found` nil: the key does not exist. A read that failed is simply forgotten.
    mutating func endRead(_ token: ReadToken, _ found: Found?, at now: Int64) {
        verdict.checkedReads += 1
        let key = token.key, floor = token.floor
        let before = floor.isRead ? "was read before it started, at \(text(floor.at))" : "was acknowledged before it started, at \(text(floor.at))"
        guard let found else {
            if token.isLinearizable, floor.revision > 0 {
                fault(key, "a read at \(text(token.start)) found no such key, though revision \(floor.revision) \(before)")
            }
            return
        }
        var isSound = true
        if token.isLinearizable, found.revision < floor.revision {
            isSound = false
            fault(key, "a read at \(text(token.start)) saw revision \(found.revision), though revision \(floor.revision) \(before)")
        }
        guard resolve(key, found, token) else { return }
        if isSound { isSound = checkVersion(key, found, token) }
        confirm(key, upTo: found.revision)
        if token.isLinearizable { raise(key, Floor(revision: found.revision, at: now, isRead: true, key: key)) }
        if isSound { keys[key]!.isFaulty = false }
    }

    /// Which write a value came from. False when it is none of this workload's, or at the wrong revision.
    private mutating func resolve(_ key: Int, _ found: Found, _ token: ReadToken) -> Bool {
        if keys[key] == nil { keys[key] = KeyState() }
        let m = found.revision
        guard let number = found.write else {
            fault(key, "a read at \(text(token.start)) saw, at revision \(m), a value that this workload never wrote")
            return false
        }
        if let newest = keys[key]!.newest, newest.write == number || newest.revision == m {
            if newest.write == number, newest.revision == m { return true }
            if newest.write == number {
                fault(key, "write \(number) happened at revision \(newest.revision), but a read at \(text(token.start)) saw it at revision \(m)")
                return false
            }
        }
        guard let index = index(number) else {
            if number >= firstWrite || number == 0 {
                fault(key, "a read at \(text(token.start)) saw, at revision \(m), write \(number), which was never made")
                return false
            }
            return true // too long ago to be judged
        }
        guard writes[index].key == key else {
            fault(key, "a read at \(text(token.start)) saw, at revision \(m), write \(number), which was made to \(name(writes[index].key))")
            return false
        }
        switch writes[index].state {
        case .happened(let revision):
            if revision != m { fault(key, "write \(number) happened at revision \(revision), but a read at \(text(token.start)) saw it at revision \(m)") }
            return revision == m
        case .refused:
            fault(key, "a read at \(text(token.start)) saw, at revision \(m), write \(number), which was refused before anyone looked at it")
            return false
        case .unknown:
            verdict.unknownWrites -= 1
            happened(number, index, at: m)
            return true
        case .pending:
            happened(number, index, at: m)
            return true
        }
    }

    /// Counts the writes: each adds one to the version, seen or overwritten.
    private mutating func checkVersion(_ key: Int, _ found: Found, _ token: ReadToken) -> Bool {
        guard let version = found.version, let state = keys[key] else { return true }
        // Older than what is remembered one by one.
        if state.olderCount > 0, found.revision < state.recent.first ?? 0 { return true }
        let known = state.olderCount + Int64(state.recent.count { $0 <= found.revision })
        if version < known {
            let missing = known - version
            fault(key, "\(missing) of \(known) writes up to revision \(found.revision) \(missing == 1 ? "is" : "are") missing: the key says it was written \(version) times (read at \(text(token.start)))")
            return false
        }
        if version > known + Int64(state.open) {
            fault(key, "written \(version) times by revision \(found.revision), though no more than \(known + Int64(state.open)) of this workload's can have happened (read at \(text(token.start)))")
            return false
        }
        return true
    }

    private mutating func confirm(_ key: Int, upTo revision: Int64) {
        guard var state = keys[key] else { return }
        var done = 0
        while done < state.unconfirmed.count, state.unconfirmed[done].revision <= revision {
            verdict.confirmedWrites += state.unconfirmed[done].count
            done += 1
        }
        state.unconfirmed.removeFirst(done)
        state.confirmedUpTo = max(state.confirmedUpTo, revision)
        keys[key] = state
    }

    // MARK: Bookkeeping

    private func index(_ number: UInt64) -> Int? {
        number >= firstWrite && number < firstWrite + UInt64(writes.count) ? Int(number - firstWrite) : nil
    }

    /// The oldest writes go, a quarter at a time. One that still waits for its answer by then never gets judged.
    private mutating func dropSettled() {
        guard writes.count > ConsistencyChecker.historyLimit * 5 / 4 else { return }
        let count = writes.count - ConsistencyChecker.historyLimit
        for write in writes[..<count] {
            if case .happened(let revision) = write.state { byRevision[revision] = nil }
        }
        writes.removeFirst(count)
        firstWrite += UInt64(count)
    }

    private func name(_ key: Int) -> String { prefix + String(key) }

    /// Seconds on the clock of the calls, to the millisecond.
    private func text(_ time: Int64) -> String {
        let milliseconds = time / 1_000
        let rest = String(milliseconds % 1_000)
        return "\(milliseconds / 1_000)." + String(repeating: "0", count: max(0, 3 - rest.utf8.count)) + rest + " s"
    }

    private mutating func fault(_ key: Int, _ words: String) {
        if keys[key] == nil { keys[key] = KeyState() }
        guard !keys[key]!.isFaulty else {
            violationCount += 1
            return
        }
        keys[key]!.isFaulty = true
        violation(key, words)
    }

    private mutating func violation(_ key: Int, _ words: String) {
        violationCount += 1
        if verdict.violations.count < ConsistencyChecker.violationLimit { verdict.violations.append("\(name(key)): \(words)") }
    }
}
