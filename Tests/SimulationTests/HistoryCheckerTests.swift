import Base
import Replica
import Simulation
import Store
import Testing

/// A short history by hand: effects go to the truth at their moments, calls are fed in the order written.
struct Story {
    var log = LogOfCommands()
    var checker = ClientHistoryChecker()
    var operations: [Operation] = []
    var violations: [Violation] = []

    mutating func feed(_ call: Operation.Call, _ time: ClosedRange<Moment>, _ outcome: Operation.Outcome, client: Int = 1) {
        let operation = Operation(client: client, member: 1, call: call, start: time.lowerBound, end: time.upperBound, outcome: outcome)
        operations.append(operation)
        violations += checker.check(operation, truth: log.model.history)
    }
    mutating func wrote(_ key: String, _ value: String, _ time: ClosedRange<Moment>, revision: Int64, client: Int = 1) {
        feed(.put(key: bytes(key), value: bytes(value), lease: 0), time, .done(revision: revision, found: [], count: 0, succeeded: true), client: client)
    }
    mutating func read(_ key: String, _ found: [SeenKeyValue], _ time: ClosedRange<Moment>, revision: Int64, client: Int = 1, isSerializable: Bool = false, at: Int64 = 0) {
        feed(.range(key: bytes(key), end: [], revision: at, isSerializable: isSerializable), time,
             .done(revision: revision, found: found, count: Int64(found.count), succeeded: true), client: client)
    }
    mutating func finish() -> [String] {
        violations += checker.finish(truth: log.model.history)
        return violations.map(\.invariant)
    }
    /// What the search says of the same calls.
    func searched() -> Bool {
        var search = LinearizabilitySearch()
        let verdict = search.check(operations)
        if case .undecided = verdict { Issue.record("the search of a few calls is undecided") }
        return verdict == .linearizable
    }
}

func seen(_ key: String, _ value: String, created: Int64, modified: Int64, version: Int64 = 1, lease: Int64 = 0) -> SeenKeyValue {
    SeenKeyValue(key: bytes(key), value: bytes(value), createRevision: created, modRevision: modified, version: version, lease: lease)
}

@Suite struct ClientHistoryCheckerTests {
    @Test func aPlainHistoryIsRight() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 11...12, revision: 2, client: 2)
        _ = story.log.put("a", "2", at: 15)
        story.wrote("a", "2", 14...20, revision: 3)
        // Overlaps with the write: both answers would be right.
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 13...21, revision: 2, client: 2)
        #expect(story.finish() == [])
        #expect(story.searched())
    }

    @Test func aStaleReadIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("a", "2", at: 15)
        story.wrote("a", "2", 14...20, revision: 3)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 21...22, revision: 2, client: 2)
        #expect(story.finish() == ["linearizability"])
        #expect(!story.searched())
    }

    @Test func aStaleReadBehindAnothersReadIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        // The write is still under way; one reader has seen it, the next must.
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 6...8, revision: 2, client: 2)
        story.read("a", [], 9...10, revision: 1, client: 3)
        story.wrote("a", "1", 0...11, revision: 2)
        #expect(story.finish() == ["linearizability"])
        #expect(!story.searched())
    }

    @Test func aClientsOwnCallsAreOrderedEvenInOneMoment() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        story.read("a", [], 10...12, revision: 1)
        #expect(story.finish() == ["linearizability"])
        #expect(!story.searched())
    }

    @Test func anotherClientsCallInTheSameMomentIsConcurrent() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        story.read("a", [], 10...12, revision: 1, client: 2)
        #expect(story.finish() == [])
        #expect(story.searched())
    }

    @Test func whatAWatchSawCounts() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.checker.observe(revision: 2, at: 7)
        story.read("a", [], 8...9, revision: 1, client: 2)
        story.wrote("a", "1", 0...10, revision: 2)
        #expect(story.finish() == ["linearizability"])
    }

    @Test func aLostWriteIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("b", "other", at: 15)
        story.wrote("b", "other", 13...22, revision: 3, client: 2)
        story.wrote("a", "2", 14...22, revision: 3)
        #expect(story.finish() == ["exactly-once"])
        // The search needs a reader to notice.
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 30...31, revision: 3, client: 2)
        #expect(!story.searched())
    }

    @Test func anAnswerToAnothersWriteIsFound() {
        var story = Story()
        _ = story.log.delete("a")
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.apply(.deleteRange, encoded(DeleteRangeRequest(key: bytes("a")).encode), at: 15)
        let answer = Operation.Outcome.done(revision: 3, found: [], count: 1, succeeded: true)
        story.feed(.delete(key: bytes("a"), end: []), 12...20, answer)
        story.feed(.delete(key: bytes("a"), end: []), 12...21, answer, client: 2)
        #expect(story.finish() == ["exactly-once"])
        #expect(!story.searched())
    }

    @Test func aPhantomIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("a", "from nowhere", at: 15)
        story.read("a", [seen("a", "from nowhere", created: 2, modified: 3, version: 2)], 20...21, revision: 3)
        #expect(story.finish() == ["exactly-once"])
        #expect(!story.searched())
    }

    @Test func aWriteAppliedTwiceIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("a", "2", at: 15)
        story.wrote("a", "2", 14...20, revision: 3)
        _ = story.log.put("a", "1", at: 25)
        story.read("a", [seen("a", "1", created: 2, modified: 4, version: 3)], 30...31, revision: 4)
        // Once as a value that came twice, once as a revision without an author.
        #expect(story.finish() == ["exactly-once", "exactly-once"])
        #expect(!story.searched())
    }

    @Test func anUnknownWriteMayHappenOnceAndLate() {
        var story = Story()
        story.feed(.put(key: bytes("a"), value: bytes("1"), lease: 0), 0...10, .unknown)
        story.read("a", [], 11...12, revision: 1)
        _ = story.log.put("a", "1", at: 50)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 60...61, revision: 2)
        #expect(story.finish() == [])
        #expect(story.searched())
        _ = story.log.delete("a")
        _ = story.log.put("a", "1", at: 70)
        // The second time, and a delete by nobody.
        #expect(story.finish() == ["exactly-once", "exactly-once", "exactly-once"])
    }

    @Test func anUnknownWriteDoesNotHappenBeforeItsStart() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 6...8, revision: 2, client: 2)
        story.feed(.put(key: bytes("a"), value: bytes("1"), lease: 0), 10...20, .unknown)
        #expect(story.finish() == ["linearizability", "linearizability"])
        #expect(!story.searched())
    }

    @Test(arguments: [false, true]) func aRefusedWriteThatHappenedIsFound(isLate: Bool) {
        var story = Story()
        if !isLate { _ = story.log.put("a", "1", at: 5) }
        story.feed(.put(key: bytes("a"), value: bytes("1"), lease: 0), 0...10, .refused("etcdserver: too many requests"))
        if isLate { _ = story.log.put("a", "1", at: 15) }
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 20...21, revision: 2, client: 2)
        // As refused, and as a revision without an author.
        #expect(story.finish() == ["exactly-once", "exactly-once"])
        #expect(!story.searched())
    }

    @Test func reorderedWritesAreFound() {
        var story = Story()
        _ = story.log.put("a", "2", at: 5)
        _ = story.log.put("a", "1", at: 6)
        // "1" was acknowledged before "2" began, and yet "2" comes first.
        story.wrote("a", "1", 0...10, revision: 3)
        story.wrote("a", "2", 20...30, revision: 2, client: 2)
        #expect(story.finish() == ["linearizability", "linearizability"])
        story.read("a", [seen("a", "1", created: 2, modified: 3, version: 2)], 40...41, revision: 3)
        #expect(!story.searched())
    }

    @Test func aReadFromTheFutureIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 15)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 5...10, revision: 2, client: 2)
        story.wrote("a", "1", 12...20, revision: 2)
        #expect(story.finish().contains("linearizability"))
        #expect(!story.searched())
        // Without exact moments the write's own start tells.
        var later = ClientHistoryChecker(trustsMoments: false)
        let violations = story.operations.flatMap { later.check($0, truth: story.log.model.history) }
        #expect(violations.map(\.invariant) == ["linearizability"])
    }

    @Test func aRevisionThatDoesNotExistIsFound() {
        var story = Story()
        story.read("a", [], 5...10, revision: 9)
        #expect(story.finish() == ["linearizability"])
    }

    @Test func comparisonsAreChecked() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("a", "2", at: 15)
        // It expected another revision than the one it met.
        story.feed(.compareAndSwap(key: bytes("a"), expected: 7, value: bytes("2")), 12...20, .done(revision: 3, found: [], count: 0, succeeded: true))
        #expect(story.violations.map(\.invariant) == ["exactly-once"])
        // It failed though it holds.
        let now = seen("a", "2", created: 2, modified: 3, version: 2)
        story.feed(.compareAndSwap(key: bytes("a"), expected: 3, value: bytes("3")), 22...30, .done(revision: 3, found: [now], count: 1, succeeded: false))
        #expect(story.violations.map(\.invariant) == ["exactly-once", "linearizability"])
        // It read something else.
        story.feed(.compareAndSwap(key: bytes("a"), expected: 0, value: bytes("4")), 32...40, .done(revision: 3, found: [], count: 0, succeeded: false))
        #expect(story.violations.map(\.invariant) == ["exactly-once", "linearizability", "linearizability"])
        #expect(!story.searched())
    }

    @Test func aTornTransactionIsFound() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.feed(.putAll([.init(key: bytes("a"), value: bytes("1")), .init(key: bytes("b"), value: bytes("2"))]), 0...10,
                   .done(revision: 2, found: [], count: 0, succeeded: true))
        #expect(story.finish().first == "exactly-once")
    }

    @Test func serializableReadsShowTheirRevision() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("a", "2", at: 15)
        story.wrote("a", "2", 12...20, revision: 3)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 30...31, revision: 2, isSerializable: true)
        story.read("a", [], 32...33, revision: 1, isSerializable: true)
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 34...35, revision: 3, at: 2)
        #expect(story.violations == [])
        story.read("a", [seen("a", "2", created: 2, modified: 3, version: 2)], 36...37, revision: 2, isSerializable: true)
        story.read("a", [seen("a", "2", created: 2, modified: 3, version: 2)], 38...39, revision: 3, isSerializable: true, at: 2)
        story.read("a", [seen("a", "2", created: 2, modified: 3, version: 2)], 38...39, revision: 2, isSerializable: true, at: 3)
        #expect(story.finish() == ["serializable-read", "serializable-read", "serializable-read"])
    }

    @Test func refusalsForRevisionsAreTrue() {
        var story = Story()
        _ = story.log.put("a", "1", at: 5)
        story.wrote("a", "1", 0...10, revision: 2)
        _ = story.log.put("a", "2", at: 15)
        story.wrote("a", "2", 12...20, revision: 3)
        func read(_ at: Int64, _ time: ClosedRange<Moment>, _ error: ServiceError, isSerializable: Bool = false) {
            story.feed(.range(key: bytes("a"), end: [], revision: at, isSerializable: isSerializable), time, .refused(error.description))
        }
        read(4, 21...22, .futureRev)
        read(3, 21...22, .futureRev, isSerializable: true)
        #expect(story.violations == [])
        read(3, 23...24, .futureRev)
        read(2, 25...26, .compacted)
        #expect(story.violations.map(\.invariant) == ["linearizability", "linearizability"])
        _ = story.log.compact(3, at: 30)
        story.feed(.compact(revision: 3), 27...32, .done(revision: 3, found: [], count: 0, succeeded: true))
        read(2, 33...34, .compacted)
        #expect(story.violations.count == 2)
        read(3, 35...36, .compacted, isSerializable: true)
        #expect(story.violations.count == 3)
        // Acknowledged as compacted, and yet answered.
        story.read("a", [seen("a", "1", created: 2, modified: 2)], 37...38, revision: 3, at: 2)
        #expect(story.violations.count == 4)
        story.feed(.compact(revision: 4), 39...40, .done(revision: 3, found: [], count: 0, succeeded: true))
        #expect(story.violations.count == 5)
    }

    @Test func endsOfLeasesNeedNoAuthorAndRevokesOne() {
        var story = Story()
        _ = story.log.grant(5, ttl: 3)
        _ = story.log.put("a", "1", lease: 5, at: 5)
        story.feed(.put(key: bytes("a"), value: bytes("1"), lease: 5), 0...10, .done(revision: 2, found: [], count: 0, succeeded: true))
        _ = story.log.expire(5, term: 1)
        #expect(story.finish() == [])
        _ = story.log.grant(6, ttl: 3)
        _ = story.log.put("a", "2", lease: 6, at: 15)
        story.feed(.put(key: bytes("a"), value: bytes("2"), lease: 6), 12...20, .done(revision: 4, found: [], count: 0, succeeded: true))
        _ = story.log.revoke(6)
        #expect(story.finish() == ["exactly-once"])
    }

    // MARK: Random histories

    @Test(arguments: 0..<60) func acceptsRandomValidHistories(seed: UInt64) {
        let maker = HistoryMaker(seed: seed)
        let truth = maker.log.model.history
        for trustsMoments in [true, false] {
            var checker = ClientHistoryChecker(trustsMoments: trustsMoments)
            var violations: [Violation] = []
            for operation in maker.operations { violations += checker.check(operation, truth: truth) }
            violations += checker.finish(truth: truth)
            #expect(violations == [], "seed \(seed)")
            #expect(checker.unverifiable == 0)
        }
        #expect(maker.operations.count > 200)
    }

    @Test(arguments: 0..<6) func acceptsThemWhileForgetting(seed: UInt64) {
        var options = HistoryMaker.Options()
        options.ticks = 1_500
        // What a reader of an old revision may want is not known to the floor.
        options.withOldReads = false
        options.withLeases = seed % 2 == 0
        var checker = ClientHistoryChecker()
        var violations: [Violation] = []
        var truth = TrueHistory()
        var fed = 0
        var widest = 0
        func feed(_ maker: HistoryMaker) {
            let all = maker.log.model.history
            while truth.revision < all.revision { truth.append(all[truth.revision + 1]!) }
            if all.compactRevision > truth.compactRevision { truth.compact(to: all.compactRevision, at: 0) }
            for operation in maker.operations[fed...] { violations += checker.check(operation, truth: truth) }
            fed = maker.operations.count
        }
        let maker = HistoryMaker(seed: seed, options) { maker, now in
            feed(maker)
            guard now % 500 == 0 else { return }
            let oldest = maker.oldestStart(now)
            let floor = checker.floor(startedBefore: oldest, truth: truth)
            violations += checker.forget(startedBefore: oldest, floor: floor, truth: truth)
            truth.forget(below: floor)
            widest = max(widest, truth.windowCount)
        }
        feed(maker)
        violations += checker.finish(truth: truth)
        #expect(violations == [], "seed \(seed)")
        #expect(checker.unverifiable == 0)
        #expect(widest < 300 && truth.revision > 300, "\(widest) of \(truth.revision)")
    }

    /// One answer of a valid history is changed: the fast checker sees every change that matters, whatever it is.
    @Test(arguments: 0..<60) func noticesOneWrongAnswer(seed: UInt64) throws {
        let maker = HistoryMaker(seed: 1_000 + seed)
        var random = SeededGenerator(seed: seed)
        let truth = maker.log.model.history
        var operations = maker.operations
        var changed: (at: Int, what: String)?
        while changed == nil {
            let at = Int.random(in: 0..<operations.count, using: &random)
            let operation = operations[at]
            guard case .done(let revision, var found, let count, let succeeded) = operation.outcome else { continue }
            switch (operation.call, Int.random(in: 0..<4, using: &random)) {
            case (.range, 0) where !found.isEmpty:
                found.removeLast()
                operations[at].outcome = .done(revision: revision, found: found, count: count - 1, succeeded: succeeded)
                changed = (at, "a key is missing")
            case (.range, 1) where !found.isEmpty:
                found[0].version += 1
                operations[at].outcome = .done(revision: revision, found: found, count: count, succeeded: succeeded)
                changed = (at, "a wrong version")
            case (.range(let key, let end, 0, false), 2):
                // An older state under its own revision: stale if someone knew better.
                let bound = operations[..<at].filter { $0.end < operation.start }.map(\.outcome.headerRevision).max() ?? 1
                guard bound > 2 else { continue }
                let stale = truth.range(key, end, at: bound - 1)
                operations[at].outcome = .done(revision: bound - 1, found: stale, count: Int64(stale.count), succeeded: true)
                changed = (at, "a stale read")
            case (.put, 3), (.putAll, 3):
                operations[at].outcome = .done(revision: revision + 1, found: [], count: 0, succeeded: true)
                changed = (at, "a wrong revision")
            case (.put, 2), (.putAll, 2):
                operations[at].outcome = .refused("etcdserver: too many requests")
                changed = (at, "a refusal of what happened")
            default: continue
            }
        }
        var checker = ClientHistoryChecker()
        var violations: [Violation] = []
        for operation in operations { violations += checker.check(operation, truth: truth) }
        violations += checker.finish(truth: truth)
        #expect(!violations.isEmpty, "seed \(seed): \(changed!.what) in \(operations[changed!.at])")
    }
}

extension Operation.Outcome {
    fileprivate var headerRevision: Int64 {
        switch self {
        case .done(let revision, _, _, _), .lease(let revision, _): revision
        case .refused, .unknown: 1
        }
    }
}

@Suite struct LinearizabilitySearchTests {
    @Test(arguments: 0..<60) func acceptsRandomValidHistories(seed: UInt64) {
        var options = HistoryMaker.Options()
        options.ticks = 200
        options.withRanges = seed % 3 == 0
        options.clients = 3 + Int(seed % 4)
        let maker = HistoryMaker(seed: seed, options)
        var search = LinearizabilitySearch()
        #expect(search.check(maker.operations) == .linearizable, "seed \(seed) after \(search.steps) steps")
    }

    /// A read that shows what was overwritten before it began, with the writes acknowledged.
    @Test(arguments: 0..<60) func findsStaleReadsInRandomHistories(seed: UInt64) {
        var options = HistoryMaker.Options()
        options.ticks = 200
        options.withRanges = false
        options.withLeases = false
        options.withOldReads = false
        options.unknownPercent = 6
        let maker = HistoryMaker(seed: seed, options)
        let history = maker.operations
        // A write, the next acknowledged write of the key behind it, and a read behind both that is made to show the first. Unless some
        // later write may have put it back: values are unique, so none can.
        func written(_ operation: Operation) -> (key: [UInt8], value: [UInt8])? {
            guard case .done(_, _, _, true) = operation.outcome, case .put(let key, let value, _) = operation.call else { return nil }
            return (key, value)
        }
        var tried = 0
        for first in history.indices {
            guard let old = written(history[first]) else { continue }
            guard let second = history.indices.first(where: { history[$0].start > history[first].end && written(history[$0])?.key == old.key }) else { continue }
            guard let read = history.indices.first(where: {
                guard case .range(old.key, [], 0, false) = history[$0].call, case .done = history[$0].outcome else { return false }
                return history[$0].start > history[second].end
            }) else { continue }
            var broken = history
            guard case .done(let revision, _, _, _) = history[first].outcome else { continue }
            let kv = SeenKeyValue(key: old.key, value: old.value, createRevision: 2, modRevision: revision, version: 1)
            broken[read].outcome = .done(revision: revision, found: [kv], count: 1, succeeded: true)
            var search = LinearizabilitySearch()
            guard case .violated = search.check(broken) else {
                Issue.record("seed \(seed): \(broken[read]) passed after \(search.steps) steps")
                return
            }
            tried += 1
            if tried == 5 { return }
        }
        #expect(tried > 0)
    }

    @Test func joinedKeysAreSearchedTogether() {
        // Each key alone is right; the two reads of both saw the writes in different orders.
        func put(_ key: String, _ client: Int) -> Operation {
            Operation(client: client, member: 1, call: .put(key: bytes(key), value: bytes(key + "1"), lease: 0), start: 0, end: 100,
                      outcome: .done(revision: client == 1 ? 2 : 3, found: [], count: 0, succeeded: true))
        }
        func read(_ found: [SeenKeyValue], _ client: Int) -> Operation {
            Operation(client: client, member: 1, call: .range(key: bytes("a"), end: bytes("c"), revision: 0, isSerializable: false), start: 10, end: 20,
                      outcome: .done(revision: 3, found: found, count: Int64(found.count), succeeded: true))
        }
        let a = seen("a", "a1", created: 2, modified: 2), b = seen("b", "b1", created: 3, modified: 3)
        var search = LinearizabilitySearch()
        #expect(search.check([put("a", 1), put("b", 2), read([a], 3), read([a, b], 4)]) == .linearizable)
        #expect(search.check([put("a", 1), put("b", 2), read([a], 3), read([b], 4)]) != .linearizable)
    }

    @Test func theBudgetBounds() {
        var operations: [Operation] = []
        for client in 0..<14 {
            operations.append(Operation(client: client, member: 1, call: .put(key: bytes("a"), value: bytes("\(client)"), lease: 0), start: 0, end: 100,
                                        outcome: .done(revision: Int64(client + 2), found: [], count: 0, succeeded: true)))
        }
        operations.append(Operation(client: 99, member: 1, call: .range(key: bytes("a"), end: [], revision: 0, isSerializable: false), start: 200, end: 201,
                                    outcome: .done(revision: 16, found: [], count: 0, succeeded: true)))
        var search = LinearizabilitySearch(budget: 1_000)
        #expect(search.check(operations) == .undecided(keys: [bytes("a")]))
        #expect(search.steps <= 1_001)
    }

    @Test func leasedKeysMayVanish() {
        func done(_ revision: Int64, _ found: [SeenKeyValue] = []) -> Operation.Outcome { .done(revision: revision, found: found, count: Int64(found.count), succeeded: true) }
        let put = Operation(client: 1, member: 1, call: .put(key: bytes("a"), value: bytes("1"), lease: 5), start: 0, end: 1, outcome: done(2))
        let there = Operation(client: 1, member: 1, call: .range(key: bytes("a"), end: [], revision: 0, isSerializable: false), start: 2, end: 3,
                              outcome: done(2, [seen("a", "1", created: 2, modified: 2, lease: 5)]))
        var gone = there
        (gone.start, gone.end, gone.outcome) = (4, 5, done(3))
        var back = there
        (back.start, back.end) = (6, 7)
        var search = LinearizabilitySearch()
        #expect(search.check([put, there, gone]) == .linearizable)
        #expect(search.check([put, there, gone, back]) != .linearizable)
    }
}
