import Base
import Simulation
import Store
import Testing

/// A truth of a few revisions and a watch over all keys.
private struct WatchStory {
    var log = LogOfCommands()
    var record = WatchRecord(client: 1, member: 2, key: bytes("a"), end: bytes("n"), startRevision: 2, wantsPrevious: true, openedAt: 0)

    /// 2: a=1, 3: b=2, 4: z=3 (outside), 5: a=4 and c=5 and d=6 together, 6: b deleted, 7: a=7.
    init() {
        _ = log.put("a", "1", at: 10)
        _ = log.put("b", "2", at: 20)
        _ = log.put("z", "3", at: 30)
        _ = log.apply(.txn, encoded(TxnRequest(success: [("a", "4"), ("c", "5"), ("d", "6")].map { .put(PutRequest(key: bytes($0.0), value: bytes($0.1))) }).encode), at: 40)
        _ = log.apply(.deleteRange, encoded(DeleteRangeRequest(key: bytes("b")).encode), at: 50)
        _ = log.put("a", "7", at: 60)
    }

    func events(_ revision: Int64) -> [WatchRecord.Event] { log.model.history[revision]!.events }

    mutating func say(_ message: WatchRecord.Message, at: Moment = 100) { record.messages.append((at, message)) }
    mutating func deliver(_ events: [WatchRecord.Event], header: Int64? = nil, isFragment: Bool = false, at: Moment = 100) {
        say(.events(events, headerRevision: header ?? events.last!.kv.modRevision, isFragment: isFragment), at: at)
    }
    func check(mustBeComplete: Bool = false) -> [String] {
        checkWatch(record, truth: log.model.history, mustBeComplete: mustBeComplete).map(\.invariant)
    }
}

@Suite struct WatchCheckerTests {
    @Test func aCompleteWatchIsRight() {
        var story = WatchStory()
        story.say(.created(headerRevision: 3), at: 25)
        story.deliver(story.events(2) + story.events(3), header: 4, at: 35)
        story.say(.progress(headerRevision: 4), at: 36)
        story.deliver(story.events(5), at: 41)
        story.deliver(story.events(6), at: 51)
        story.deliver(story.events(7), at: 61)
        #expect(story.check(mustBeComplete: true) == [])
    }

    @Test func aWatchFromNowBeginsBehindItsCreation() {
        var story = WatchStory()
        story.record.startRevision = 0
        story.say(.created(headerRevision: 5), at: 45)
        #expect(story.check() == [])
        #expect(story.check(mustBeComplete: true) == ["watch-complete"])
        var early = story
        early.deliver(story.events(5), at: 46)
        #expect(early.check() == ["watch-filter", "watch-filter", "watch-filter"])
        story.deliver(story.events(6) + story.events(7))
        #expect(story.check(mustBeComplete: true) == [])
    }

    @Test func filters() {
        var story = WatchStory()
        story.record.startRevision = 4
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(4))
        #expect(story.check() == ["watch-filter"])

        story = WatchStory()
        story.record.wantsDeletes = false
        story.record.startRevision = 6
        story.say(.created(headerRevision: 7))
        var wrong = story
        story.deliver(story.events(7))
        #expect(story.check(mustBeComplete: true) == [])
        wrong.deliver(wrong.events(6))
        #expect(wrong.check() == ["watch-filter"])
    }

    @Test func anOldEventIsNotForAWatchThatStartsLater() {
        var story = WatchStory()
        story.record.startRevision = 3
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(2), header: 7)
        #expect(story.check() == ["watch-filter"])
    }

    @Test func order() {
        var story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(2) + story.events(3))
        story.deliver(story.events(2), header: 7)
        #expect(story.check() == ["watch-ordered"])

        story = WatchStory()
        story.record.startRevision = 5
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(5).reversed())
        #expect(story.check() == ["watch-ordered", "watch-ordered"])
    }

    @Test func uniqueness() {
        var story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(2) + story.events(2))
        #expect(story.check() == ["watch-unique"])
        story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(2))
        story.deliver(story.events(2))
        #expect(story.check() == ["watch-ordered"])
    }

    @Test func atomicity() {
        var story = WatchStory()
        story.record.startRevision = 5
        story.say(.created(headerRevision: 7))
        var torn = story
        torn.deliver([torn.events(5)[0]])
        torn.deliver(Array(torn.events(5)[1...]))
        #expect(torn.check().first == "watch-atomic")

        var fragments = story
        fragments.deliver([story.events(5)[0]], header: 6, isFragment: true)
        fragments.deliver(Array(story.events(5)[1...]) + story.events(6), header: 6)
        #expect(fragments.check() == [])

        var interrupted = story
        interrupted.deliver([story.events(5)[0]], header: 6, isFragment: true)
        interrupted.say(.progress(headerRevision: 7))
        #expect(interrupted.check().first == "watch-atomic")

        story.deliver([story.events(5)[0], story.events(5)[1]] + story.events(6))
        #expect(story.check() == ["watch-atomic"])
    }

    @Test func nothingIsMissingFromTheStartOrBehindIt() {
        var story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(3))
        #expect(story.check() == ["watch-resumable"])

        story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(2))
        story.deliver(story.events(5))
        #expect(story.check() == ["watch-reliable"])
    }

    @Test func progressIsAPromise() {
        var story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.deliver(story.events(2))
        var late = story
        late.say(.progress(headerRevision: 3))
        #expect(late.check() == ["watch-bookmarkable"])
        late.deliver(late.events(3))
        #expect(late.check() == ["watch-bookmarkable", "watch-bookmarkable"])
        story.deliver(story.events(3))
        story.say(.progress(headerRevision: 4))
        story.deliver(story.events(5))
        #expect(story.check() == [])
    }

    @Test func contentAndPreviousValues() {
        var story = WatchStory()
        story.record.startRevision = 7
        story.say(.created(headerRevision: 7))
        let right = story.events(7)[0]
        func check(_ change: (inout WatchRecord.Event) -> Void, wantsPrevious: Bool = true) -> [String] {
            var story = story
            story.record.wantsPrevious = wantsPrevious
            var event = right
            change(&event)
            story.deliver([event])
            return story.check()
        }
        #expect(check { _ in } == [])
        #expect(check { $0.kv.value = bytes("8") } == ["watch-content"])
        // An update that looks like a creation, and the other way round.
        #expect(check { $0.kv.createRevision = 7 } == ["watch-content"])
        #expect(check { $0.kv.version = 1 } == ["watch-content"])
        #expect(check { $0.previous = nil } == ["watch-previous"])
        #expect(check { $0.previous!.value = bytes("1") } == ["watch-previous"])
        #expect(check({ _ in }, wantsPrevious: false) == ["watch-previous"])
        #expect(check({ $0.previous = nil }, wantsPrevious: false) == [])
        _ = story.log.compact(7, at: 70)
        story.deliver([WatchRecord.Event(isDelete: false, kv: right.kv, previous: nil)])
        #expect(story.check() == [])
    }

    @Test func revisionsThatAreNotThereYet() {
        var story = WatchStory()
        story.say(.created(headerRevision: 3), at: 15)
        #expect(story.check() == ["watch-header"])
        story = WatchStory()
        story.say(.created(headerRevision: 7))
        story.say(.progress(headerRevision: 8))
        #expect(story.check().first == "watch-header")
    }

    @Test func creationComesFirst() {
        var story = WatchStory()
        story.deliver(story.events(2))
        story.say(.created(headerRevision: 7))
        #expect(story.check() == ["watch-created"])
        #expect(WatchStory().check(mustBeComplete: true) == ["watch-complete"])
    }

    @Test func cancelledForACompactionOnlyIfItNeededIt() {
        var story = WatchStory()
        story.say(.created(headerRevision: 7))
        _ = story.log.compact(5, at: 70)
        var right = story
        right.say(.cancelled(compactRevision: 5, reason: ""))
        #expect(right.check(mustBeComplete: true) == [])
        right.deliver(right.events(7))
        #expect(right.check() == ["watch-cancelled"])

        var needless = story
        needless.deliver(story.events(2) + story.events(3), header: 7)
        needless.deliver(story.events(5), header: 7)
        needless.say(.cancelled(compactRevision: 5, reason: ""))
        #expect(needless.check() == ["watch-cancelled"])

        var wrong = story
        wrong.say(.cancelled(compactRevision: 6, reason: ""))
        #expect(wrong.check() == ["watch-cancelled"])

        // Neither cancelled nor complete.
        #expect(story.check(mustBeComplete: true) == ["watch-complete"])
        story.record.closedAt = 80
        #expect(story.check(mustBeComplete: true) == [])
    }

    @Test func anIdleWatchDoesNotHoldTheTruth() {
        var story = WatchStory()
        story.record.key = bytes("none")
        story.record.end = []
        story.record.startRevision = 2
        var checker = WatchChecker(story.record)
        #expect(checker.receive(.created(headerRevision: 2), at: 10, truth: story.log.model.history) == [])
        #expect(checker.needed == 1)
        checker.advance(truth: story.log.model.history)
        #expect(checker.needed == 7)
        story.log.model.forget(below: 7)
        // A server that stands farther back may still be right to cancel it.
        _ = story.log.compact(5, at: 70)
        #expect(checker.receive(.cancelled(compactRevision: 5, reason: ""), at: 80, truth: story.log.model.history) == [])
        #expect(checker.unverifiable == 0)
    }

    @Test(arguments: 0..<60) func acceptsRandomValidWatches(seed: UInt64) {
        let maker = HistoryMaker(seed: seed)
        let truth = maker.log.model.history
        var events = 0
        for record in maker.watches {
            let violations = checkWatch(record, truth: truth, mustBeComplete: true)
            #expect(violations == [], "seed \(seed)")
            for (_, message) in record.messages { if case .events(let some, _, _) = message { events += some.count } }
        }
        #expect(events > 50)
    }

    /// Drops, repeats or alters one event of a valid watch.
    @Test(arguments: 0..<30) func noticesOneWrongEvent(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var maker = HistoryMaker(seed: 500 + seed)
        // Some run must leave an open watch with events.
        var attempt: UInt64 = 0
        while !maker.watches.contains(where: { $0.closedAt == nil && $0.messages.count > 2 && !$0.isCancelled }) {
            attempt += 1
            maker = HistoryMaker(seed: 500 + seed + 1_000 * attempt)
        }
        let truth = maker.log.model.history
        var tried = 0
        for var record in maker.watches where record.closedAt == nil {
            if record.isCancelled { continue }
            let places = record.messages.indices.filter { if case .events(let events, _, _) = record.messages[$0].message { !events.isEmpty } else { false } }
            guard let place = places.randomElement(using: &random), case .events(var events, let header, let isFragment) = record.messages[place].message else { continue }
            let at = Int.random(in: 0..<events.count, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: events.remove(at: at)
            case 1: events.insert(events[at], at: at)
            case 2: events[at].kv.modRevision += 1
            default: events[at].kv.key.append(0)
            }
            if events.isEmpty { record.messages.remove(at: place) } else { record.messages[place].message = .events(events, headerRevision: header, isFragment: isFragment) }
            tried += 1
            #expect(!checkWatch(record, truth: truth, mustBeComplete: true).isEmpty, "seed \(seed)")
        }
        #expect(tried > 0)
    }
}

extension WatchRecord {
    fileprivate var isCancelled: Bool {
        if case .cancelled? = messages.last?.message { true } else { false }
    }
}

@Suite struct LeaseCheckerTests {
    private let second: Moment = 1_000_000_000
    private func checker() -> LeaseChecker { LeaseChecker(.init(driftBound: 0.1, overdueBound: 2 * second)) }
    private func operation(_ call: Operation.Call, _ time: ClosedRange<Moment>, _ outcome: Operation.Outcome, client: Int = 1) -> Operation {
        Operation(client: client, member: 1, call: call, start: time.lowerBound * second, end: time.upperBound * second, outcome: outcome)
    }
    private func renewal(_ time: ClosedRange<Moment>, ttl: Int64 = 10) -> Operation {
        operation(.leaseKeepAlive(id: 5), time, .lease(revision: 1, ttlSeconds: ttl))
    }
    private func granted() -> LeaseChecker {
        var checker = checker()
        checker.granted(5, ttlSeconds: 10, at: second / 2)
        #expect(checker.check(operation(.leaseGrant(id: 5, ttlSeconds: 10), 0...1, .lease(revision: 1, ttlSeconds: 10))) == [])
        return checker
    }

    @Test func expiryBehindTheTimeIsRight() {
        var checker = granted()
        #expect(checker.check(renewal(6...7)) == [])
        #expect(checker.ended(5, byExpiry: true, at: 16 * second) == [])
        #expect(checker.check(renewal(17...18, ttl: 0)) == [])
    }

    @Test func expiryBeforeTheTimeIsFound() {
        var checker = granted()
        #expect(checker.ended(5, byExpiry: true, at: 8 * second).map(\.invariant) == ["lease-early"])
        checker = granted()
        #expect(checker.check(renewal(6...7)) == [])
        // Within the drift of 10 % of the clock: 6 + 9.
        #expect(checker.ended(5, byExpiry: true, at: 14 * second).map(\.invariant) == ["lease-early"])
    }

    @Test func aRenewalAcknowledgedAfterAnEarlyExpiryTellsToo() {
        var checker = granted()
        #expect(checker.ended(5, byExpiry: true, at: 11 * second) == [])
        #expect(checker.check(renewal(10...12)).map(\.invariant) == ["lease-early"])
    }

    @Test func aRevokeMayComeAtAnyTime() {
        var checker = granted()
        #expect(checker.ended(5, byExpiry: false, at: 3 * second) == [])
        #expect(checker.check(operation(.leaseRevoke(id: 5), 2...4, .done(revision: 2, found: [], count: 0, succeeded: true))) == [])
        #expect(checker.check(renewal(5...6)).map(\.invariant) == ["lease-revived"])
        #expect(checker.check(operation(.put(key: bytes("a"), value: bytes("1"), lease: 5), 7...8, .done(revision: 3, found: [], count: 0, succeeded: true))).map(\.invariant) == ["lease-revived"])
    }

    @Test func aRenewalUnderWayMeanwhileIsRight() {
        var checker = granted()
        #expect(checker.ended(5, byExpiry: false, at: 3 * second) == [])
        #expect(checker.check(operation(.leaseRevoke(id: 5), 2...4, .done(revision: 2, found: [], count: 0, succeeded: true))) == [])
        #expect(checker.check(renewal(1...5)) == [])
    }

    @Test func denialsOfALivingLeaseAreFound() {
        var checker = granted()
        #expect(checker.check(renewal(2...3, ttl: 0)).map(\.invariant) == ["lease-denied"])
        checker = granted()
        let refused = operation(.put(key: bytes("a"), value: bytes("1"), lease: 5), 2...3, .refused(ServiceError.leaseNotFound.description))
        #expect(checker.check(refused).map(\.invariant) == ["lease-denied"])
        checker = granted()
        #expect(checker.check(operation(.leaseRevoke(id: 5), 2...4, .done(revision: 2, found: [], count: 0, succeeded: true))).map(\.invariant) == ["lease-denied"])
        // Nobody knows of the lease before its grant is acknowledged.
        checker = self.checker()
        checker.granted(5, ttlSeconds: 10, at: 5 * second)
        #expect(checker.check(renewal(1...6, ttl: 0)) == [])
    }

    @Test func aLeaseThatLivesTooLongIsFoundWhileStable() {
        var checker = granted()
        #expect(checker.checkOverdue(at: 100 * second) == [])
        checker.stableSince = 20 * second
        // 20 + 10 / 0.9 + 2.
        #expect(checker.checkOverdue(at: 33 * second) == [])
        #expect(checker.checkOverdue(at: 34 * second).map(\.invariant) == ["lease-overdue"])
        #expect(checker.check(renewal(25...26)) == [])
        #expect(checker.checkOverdue(at: 34 * second) == [])
        #expect(checker.ended(5, byExpiry: true, at: 45 * second).map(\.invariant) == ["lease-overdue"])
    }

    @Test func wrongTimesAreFound() {
        var checker = granted()
        #expect(checker.check(operation(.leaseGrant(id: 6, ttlSeconds: 10), 2...3, .lease(revision: 1, ttlSeconds: 9))).map(\.invariant) == ["lease-time"])
    }

    @Test func endedLeasesAreForgotten() {
        var checker = granted()
        _ = checker.ended(5, byExpiry: true, at: 20 * second)
        checker.forget(startedBefore: 50 * second)
        #expect(checker.count == 1)
        #expect(checker.check(renewal(51...52, ttl: 0)) == [])
        checker.forget(startedBefore: 52 * second)
        #expect(checker.count == 1)
        checker.forget(startedBefore: 53 * second)
        #expect(checker.count == 0)
    }
}
