import Testing
import UI
@testable import quarterdeck

/// Histories written down by hand: sound ones pass, and every kind of planted fault is found.
@Suite struct ConsistencyCheckerTests {
    private var checker = ConsistencyChecker(prefix: "/w/")
    private var now: Int64 = 0

    private mutating func tick() -> Int64 {
        now += 1_000
        return now
    }

    private mutating func begin(_ key: Int = 1) -> UInt64 { let at = tick(); return checker.beginWrite(key: key, at: at) }
    private mutating func acknowledge(_ write: UInt64, _ revision: Int64) { let at = tick(); checker.endWrite(write, .acknowledged(revision: revision), at: at) }

    @discardableResult
    private mutating func put(_ key: Int = 1, _ revision: Int64) -> UInt64 {
        let write = begin(key)
        acknowledge(write, revision)
        return write
    }

    private mutating func read(_ key: Int = 1, _ write: UInt64?, _ revision: Int64, version: Int64? = nil, isLinearizable: Bool = true) {
        let token = checker.beginRead(key: key, isLinearizable: isLinearizable, at: tick())
        let at = tick()
        checker.endRead(token, ConsistencyChecker.Found(write: write, revision: revision, version: version), at: at)
    }

    private mutating func readNothing(_ key: Int = 1) {
        let token = checker.beginRead(key: key, isLinearizable: true, at: tick())
        let at = tick()
        checker.endRead(token, nil, at: at)
    }

    private var violations: [String] { checker.verdict.violations }

    // MARK: Sound histories

    @Test mutating func writesThatAreReadAreConfirmed() {
        readNothing()
        let a = put(1, 10), b = put(1, 12)
        put(2, 13)
        #expect(checker.verdict == ConsistencyVerdict(acknowledgedWrites: 3, confirmedWrites: 0, checkedReads: 1))
        read(1, b, 12, version: 2)
        #expect(checker.verdict.confirmedWrites == 2, "the overwritten one counts too")
        read(2, 3, 13, version: 1)
        #expect(checker.verdict == ConsistencyVerdict(acknowledgedWrites: 3, confirmedWrites: 3, checkedReads: 3))
        #expect(a == 1 && b == 2)
    }

    @Test mutating func overlappingOperationsMaySeeEitherOrder() {
        let a = begin(), b = begin()
        let early = checker.beginRead(key: 1, isLinearizable: true, at: tick())
        acknowledge(b, 11)
        // Started before b was acknowledged: may still see a, and a's answer comes last.
        checker.endRead(early, ConsistencyChecker.Found(write: a, revision: 10, version: 1), at: tick())
        acknowledge(a, 10)
        read(1, b, 11, version: 2)
        #expect(violations == [] && checker.verdict.confirmedWrites == 2)
    }

    @Test mutating func aWriteWithoutAnAnswerIsResolvedByBeingSeen() {
        put(1, 10)
        let lost = begin(), other = begin()
        checker.endWrite(lost, .unknown, at: tick())
        checker.endWrite(other, .unknown, at: tick())
        #expect(checker.verdict.unknownWrites == 2)
        // It happened late, as it may.
        read(1, lost, 19, version: 2)
        #expect(checker.verdict.unknownWrites == 1)
        read(1, lost, 19, version: 2)
        let last = put(1, 25)
        read(1, last, 25, version: 3)
        read(1, last, 25, version: 4)
        #expect(violations == [], "the other may have happened in between")
    }

    @Test mutating func aValueSeenBeforeItsAcknowledgementIsRight() {
        let write = begin()
        read(1, write, 10, version: 1)
        acknowledge(write, 10)
        #expect(violations == [] && checker.verdict.confirmedWrites == 1)
    }

    @Test mutating func serializableReadsMayBeOld() {
        let a = put(1, 10), b = put(1, 20)
        read(1, b, 20, version: 2)
        read(1, a, 10, version: 1, isLinearizable: false)
        #expect(violations == [])
        read(1, a, 11, version: 1, isLinearizable: false)
        #expect(violations.count == 1)
    }

    @Test mutating func aRefusedWriteIsForgotten() {
        let write = begin()
        checker.endWrite(write, .refused, at: tick())
        let next = put(1, 5)
        read(1, next, 5, version: 1)
        #expect(violations == [] && checker.verdict.unknownWrites == 0)
    }

    // MARK: Planted faults

    @Test mutating func aLostWriteIsFound() {
        put(1, 10)
        readNothing()
        #expect(violations == ["/w/1: a read at 0.003 s found no such key, though revision 10 was acknowledged before it started, at 0.002 s"])
    }

    @Test mutating func aLostWriteThatWasOverwrittenIsFoundByTheVersion() {
        put(1, 10)
        put(1, 11)
        let c = put(1, 12)
        read(1, c, 12, version: 2)
        #expect(violations == ["/w/1: 1 of 3 writes up to revision 12 is missing: the key says it was written 2 times (read at 0.007 s)"])
    }

    @Test mutating func aStaleReadIsFound() {
        let a = put(1, 10)
        put(1, 12)
        read(1, a, 10)
        #expect(violations == ["/w/1: a read at 0.005 s saw revision 10, though revision 12 was acknowledged before it started, at 0.004 s"])
    }

    @Test mutating func readsThatGoBackAreFound() {
        let a = put(1, 10)
        let b = begin()
        read(1, b, 12)
        read(1, a, 10)
        #expect(violations.count == 1 && violations[0].contains("saw revision 10, though revision 12 was read before it started"))
    }

    @Test mutating func aValueFromNowhereIsFound() {
        put(1, 10)
        read(1, nil, 11)
        read(2, 77, 12)
        let other = put(3, 13)
        read(4, other, 13)
        #expect(violations.count == 3)
        #expect(violations[0].contains("/w/1") && violations[0].contains("never wrote"))
        #expect(violations[1].contains("/w/2") && violations[1].contains("never made"))
        #expect(violations[2].contains("/w/4") && violations[2].contains("made to /w/3"))
    }

    @Test mutating func aRevisionUsedTwiceIsFound() {
        let a = begin(1), b = begin(2)
        acknowledge(a, 10)
        acknowledge(b, 10)
        #expect(violations.first == "/w/2: revision 10 belongs to two writes: 1 and 2")
    }

    @Test mutating func revisionsThatDoNotGrowAreFound() {
        put(1, 10)
        put(2, 9)
        #expect(violations == ["/w/2: a write that started at 0.003 s was acknowledged with revision 9, though revision 10 had been acknowledged before it, at 0.002 s, on /w/1"])
    }

    @Test mutating func aValueAtAnotherRevisionIsFound() {
        let a = put(1, 10)
        read(1, a, 14)
        #expect(violations.count == 1 && violations[0].contains("write 1 happened at revision 10, but a read"))
        let b = begin(2)
        read(2, b, 20)
        acknowledge(b, 21)
        #expect(violations.count == 2 && violations[1].contains("acknowledged with revision 21, but read at revision 20"))
    }

    @Test mutating func aRefusedWriteThatHappenedIsFound() {
        let write = begin()
        checker.endWrite(write, .refused, at: tick())
        read(1, write, 7)
        #expect(violations.count == 1 && violations[0].contains("refused before anyone looked at it"))
    }

    @Test mutating func writesNobodyMadeAreFoundByTheVersion() {
        let a = put(1, 10)
        read(1, a, 10, version: 3)
        #expect(violations.count == 1 && violations[0].contains("written 3 times by revision 10, though no more than 1 of this"))
    }

    @Test mutating func aFaultIsToldOnceAndTheListIsBounded() {
        let a = put(1, 10)
        put(1, 12)
        for _ in 0..<50 { read(1, a, 10) }
        #expect(violations.count == 1 && checker.violationCount == 50)
        for key in 100..<200 { read(key, nil, 5) }
        #expect(violations.count == ConsistencyChecker.violationLimit && checker.violationCount == 150)
    }

    // MARK: Against a model

    /// A store of a few lines, with operations that overlap at random: never a violation; with one fault planted: always one.
    @Test(arguments: 0..<40) func randomHistories(seed: UInt64) {
        var random = SplitMix(state: seed)
        let fault = Int(seed % 4)
        var checker = ConsistencyChecker(prefix: "/w/")
        var store: [Int: (write: UInt64, revision: Int64, version: Int64)] = [:]
        var older: [Int: (write: UInt64, revision: Int64, version: Int64)] = [:]
        var revision: Int64 = 1
        enum Open { case write(UInt64, Int, applied: Int64?), read(ConsistencyChecker.ReadToken, Int) }
        var open: [Open] = []
        var isPlanted = false
        for step in 0..<3_000 {
            let now = Int64(step) * 1_000
            let key = Int.random(in: 0..<5, using: &random)
            if open.count < 6, Bool.random(using: &random) {
                open.append(Bool.random(using: &random) ? .write(checker.beginWrite(key: key, at: now), key, applied: nil) : .read(checker.beginRead(key: key, isLinearizable: true, at: now), key))
            } else if !open.isEmpty {
                let index = Int.random(in: 0..<open.count, using: &random)
                switch open[index] {
                case .write(let write, let key, nil):
                    // Takes effect, or never does.
                    switch Int.random(in: 0..<20, using: &random) {
                    case 0:
                        checker.endWrite(write, .unknown, at: now)
                        open.remove(at: index)
                    default:
                        revision += 1
                        older[key] = store[key]
                        if fault == 1, step > 2_000, !isPlanted, store[key] != nil { isPlanted = true } else { store[key] = (write, revision, (store[key]?.version ?? 0) + 1) }
                        open[index] = .write(write, key, applied: revision)
                    }
                case .write(let write, _, let at?):
                    checker.endWrite(write, Int.random(in: 0..<20, using: &random) == 0 ? .unknown : .acknowledged(revision: at), at: now)
                    open.remove(at: index)
                case .read(let token, let key):
                    var found = store[key]
                    if fault == 2, step > 2_000, let old = older[key], old.revision < found?.revision ?? 0 { found = old }
                    if fault == 3, step > 2_000, found != nil { found!.write = 1 }
                    checker.endRead(token, found.map { ConsistencyChecker.Found(write: $0.write, revision: $0.revision, version: $0.version) }, at: now)
                    open.remove(at: index)
                }
            }
        }
        // The read-back of the end.
        for key in checker.touchedKeys {
            let token = checker.beginRead(key: key, isLinearizable: true, at: 4_000_000)
            checker.endRead(token, store[key].map { ConsistencyChecker.Found(write: $0.write, revision: $0.revision, version: $0.version) }, at: 4_001_000)
        }
        if fault == 0 {
            #expect(checker.verdict.violations == [])
            #expect(checker.verdict.confirmedWrites == checker.verdict.acknowledgedWrites)
        } else if fault == 1 {
            // Not there, or one write too few in the count, unless unanswered ones may stand for it.
            #expect(!checker.verdict.violations.isEmpty || checker.verdict.unknownWrites > 0)
        } else {
            #expect(!checker.verdict.violations.isEmpty)
        }
    }

    @Test func memoryIsBounded() {
        var checker = ConsistencyChecker(prefix: "/w/")
        var revision: Int64 = 0
        var last: UInt64 = 0
        for step in 0..<300_000 {
            last = checker.beginWrite(key: step % 7, at: Int64(step))
            revision += 1
            checker.endWrite(last, step % 1_000 == 3 ? .unknown : .acknowledged(revision: revision), at: Int64(step))
        }
        #expect(checker.historyCount <= ConsistencyChecker.historyLimit * 5 / 4 + 1)
        let token = checker.beginRead(key: (300_000 - 1) % 7, isLinearizable: true, at: 400_000)
        checker.endRead(token, ConsistencyChecker.Found(write: last, revision: revision, version: nil), at: 400_001)
        #expect(checker.verdict.violations == [])
    }
}

struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}

@Suite struct CanaryLedgerTests {
    @Test func acknowledgedWritesAreConfirmedByTheWatch() {
        var ledger = CanaryLedger()
        for revision in [10, 11, 13] as [Int64] { ledger.acknowledge(revision) }
        #expect(ledger.start == 10 && !ledger.isComplete)
        ledger.saw([10, 11], upTo: 11)
        ledger.saw([12, 13], upTo: 13)
        #expect(ledger.check == CanaryCheck(acknowledged: 3, confirmed: 3) && ledger.isComplete)
        // The watch may be ahead of the answer.
        ledger.saw([14], upTo: 14)
        ledger.acknowledge(14)
        ledger.acknowledge(9)
        #expect(ledger.check == CanaryCheck(acknowledged: 4, confirmed: 4))
    }

    @Test func aLostWriteIsNamed() {
        var ledger = CanaryLedger()
        for revision in [10, 11, 12] as [Int64] { ledger.acknowledge(revision) }
        ledger.saw([10], upTo: 10)
        #expect(ledger.check.lost == 0, "the watch is not there yet")
        ledger.saw([12], upTo: 12)
        #expect(ledger.check == CanaryCheck(acknowledged: 3, confirmed: 2, lost: 1, lostRevisions: [11]))
        ledger.acknowledge(13)
        ledger.saw([], upTo: 20)
        #expect(ledger.check.lostRevisions == [11, 13] && ledger.isComplete)
    }
}

@Suite struct MetricsReadingTests {
    private static func page(_ fsync: [Int], committed: Int, failed: Int = 0, started: Double = 1_000, rtt: [(String, Int)] = []) -> String {
        let bounds = ["0.001", "0.002", "0.004", "+Inf"]
        var text = "# HELP x y\n"
        for (index, count) in fsync.enumerated() { text += "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"\(bounds[index])\"} \(count)\n" }
        text += "etcd_disk_wal_fsync_duration_seconds_sum \(Double(fsync.last!) * 0.0015)\netcd_disk_wal_fsync_duration_seconds_count \(fsync.last!)\n"
        for (peer, count) in rtt { for bound in ["0.0001", "+Inf"] { text += "etcd_network_peer_round_trip_time_seconds_bucket{To=\"\(peer)\",le=\"\(bound)\"} \(count)\n" } }
        return text + "etcd_server_proposals_committed_total \(committed)\netcd_server_proposals_failed_total \(failed)\netcd_server_proposals_pending 2\nprocess_start_time_seconds \(started)\n"
    }

    @Test func differencesAreExact() {
        let before = MetricsReading(Self.page([5, 8, 9, 10], committed: 100, rtt: [("a", 3), ("b", 4)]))
        let sample = MetricsReading(Self.page([6, 12, 13, 15], committed: 140, failed: 1, rtt: [("a", 5), ("b", 9)])).since(before, node: 7, at: Moment(milliseconds: 5), spanMilliseconds: 1_000)
        #expect(sample.walFsync?.boundsMicroseconds == [1_000, 2_000, 4_000])
        #expect(sample.walFsync?.counts == [1, 3, 0, 1])
        #expect(sample.walFsync?.sumMicroseconds == 7_500)
        #expect(sample.peerRoundTrip?.counts == [7, 0], "all peers together")
        #expect(sample.backendCommit == nil)
        #expect(sample.proposalsCommitted == 40 && sample.proposalsPending == 2 && sample.proposalsFailed == 1 && sample.node == 7)
    }

    @Test func aRestartCountsFromZero() {
        let before = MetricsReading(Self.page([50, 80, 90, 100], committed: 100, failed: 9))
        let sample = MetricsReading(Self.page([1, 2, 2, 3], committed: 104, failed: 1, started: 2_000)).since(before, node: 1, at: Moment(milliseconds: 0), spanMilliseconds: 1_000)
        #expect(sample.walFsync?.counts == [1, 1, 0, 1])
        #expect(sample.proposalsFailed == 1 && sample.proposalsCommitted == 4)
    }

    @Test func aPageOfRealEtcdIsRead() {
        let reading = MetricsReading(realEtcdPage)
        #expect(reading.walFsync.bounds.count == 15 && reading.walFsync.counts.last == 5)
        #expect(reading.proposalsCommitted == 4 && reading.leaderChanges == 1 && reading.startedAt == 1_795_720_426.54)
        let sample = reading.since(MetricsReading(""), node: 1, at: Moment(milliseconds: 0), spanMilliseconds: 1_000)
        #expect(sample.walFsync?.boundsMicroseconds == (0..<14).map { 1_000 << $0 })
        #expect(sample.walFsync?.total == 5 && sample.backendCommit?.total == 6 && sample.walFsync?.sumMicroseconds == 2_620)
    }
}

/// From etcd 3.5.16, unchanged but for lines that nobody reads here.
private let realEtcdPage = """
# HELP etcd_disk_backend_commit_duration_seconds The latency distributions of commit called by backend.
# TYPE etcd_disk_backend_commit_duration_seconds histogram
etcd_disk_backend_commit_duration_seconds_bucket{le="0.001"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.002"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.004"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.008"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.016"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.032"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.064"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.128"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.256"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="0.512"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="1.024"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="2.048"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="4.096"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="8.192"} 6
etcd_disk_backend_commit_duration_seconds_bucket{le="+Inf"} 6
etcd_disk_backend_commit_duration_seconds_sum 0.002206446
etcd_disk_backend_commit_duration_seconds_count 6
# HELP etcd_disk_wal_fsync_duration_seconds The latency distributions of fsync called by WAL.
# TYPE etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.004"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.008"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.016"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.032"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.064"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.128"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.256"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.512"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="1.024"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="2.048"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="4.096"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="8.192"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 5
etcd_disk_wal_fsync_duration_seconds_sum 0.0026199150000000004
etcd_disk_wal_fsync_duration_seconds_count 5
etcd_server_leader_changes_seen_total 1
etcd_server_proposals_applied_total 4
etcd_server_proposals_committed_total 4
etcd_server_proposals_failed_total 0
etcd_server_proposals_pending 0
etcd_server_slow_apply_total 0
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79572042654e+09
"""
