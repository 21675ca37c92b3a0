import Base
import Testing
@testable import Store

@Suite struct WatchHubTests {
    /// A bench whose store is at `revision`.
    private func bench(at revision: Int64, limits: WatchLimits = WatchLimits()) -> WatchBench {
        let bench = WatchBench(limits: limits)
        while bench.model.current.rawValue < revision { bench.put("filler") }
        bench.open(1)
        return bench
    }

    // MARK: requests

    /// etcd-api.md A.5.
    @Test func idsAreAssignedAndRefusedAsRecordedFromEtcd() {
        let bench = bench(at: 19)
        bench.create(1, "w/", "w0")
        bench.create(1, "w/0")
        bench.create(1, "x", id: 5)
        bench.create(1, "x", id: 5)
        bench.create(1, "x", id: 1)
        bench.create(1, "x")
        bench.create(1, "b", "a")
        bench.cancel(1, 99)
        bench.cancel(1, 5)
        bench.create(1, "x", id: 5)
        let duplicate = "-1@19 created canceled(mvcc: duplicate watch ID provided on the WatchStream)"
        #expect(bench.log() == [
            "0@19 created", "1@19 created", "5@19 created", duplicate, duplicate, "2@19 created",
            "-1@19 created canceled(mvcc: watcher range is empty)", "5@19 canceled", "5@19 created",
        ])
    }

    @Test func automaticIDsSkipExplicitOnesAndAreNotReused() {
        let bench = bench(at: 1)
        bench.create(1, "a", id: 1)
        bench.create(1, "a", id: -7)
        bench.create(1, "a")
        bench.create(1, "a")
        bench.cancel(1, 0)
        bench.create(1, "a")
        #expect(bench.log() == ["1@1 created", "-7@1 created", "0@1 created", "2@1 created", "0@1 canceled", "3@1 created"])
    }

    @Test func idsBelongToTheirStream() {
        let bench = bench(at: 1)
        bench.open(2)
        bench.create(1, "a")
        bench.create(2, "a")
        bench.put("a")
        #expect(bench.outputs.map(\.stream.rawValue) == [1, 2, 1, 2])
        #expect(bench.log() == ["0@1 created", "0@1 created", "0@2 put 2", "0@2 put 2"])
    }

    @Test func negativeStartIsRefusedBeforeEverythingElse() {
        let bench = bench(at: 1)
        bench.create(1, "b", "a", start: -1, refusal: .permissionDenied)
        #expect(bench.log() == ["-1@1 created canceled(etcdserver: mvcc: required revision has been compacted)"])
    }

    @Test func refusedPermissionComesBeforeRangeAndIDChecks() {
        let bench = bench(at: 1)
        bench.create(1, "a", id: 3)
        bench.create(1, "b", "a", id: 3, refusal: .permissionDenied)
        bench.create(1, "b", "a", id: 3)
        #expect(bench.log() == [
            "3@1 created", "-1@1 created canceled(rpc error: code = PermissionDenied desc = etcdserver: permission denied)",
            "-1@1 created canceled(mvcc: watcher range is empty)",
        ])
    }

    @Test func emptyKeyStandsForTheZeroByte() {
        let bench = bench(at: 1)
        bench.create(1, "")
        bench.create(1, "", "\0")
        _ = bench.take()
        bench.put("\0")
        bench.put("a")
        #expect(bench.log() == ["0@2 put 2", "1@2 put 2", "1@3 put 3"])
    }

    @Test func requestsOnAClosedStreamAreIgnored() {
        let bench = bench(at: 1)
        bench.create(1, "a")
        bench.create(1, "a", "b", start: 1)
        bench.hub.closeStream(WatchStreamID(1))
        bench.hub.closeStream(WatchStreamID(1))
        _ = bench.take()
        bench.create(1, "a")
        bench.cancel(1, 0)
        bench.progress(1)
        bench.hub.delivered(WatchStreamID(1), responses: 2, bytes: 100)
        bench.put("a")
        bench.catchUpFully()
        #expect(bench.log() == [])
        #expect(bench.hub.watcherCount == 0 && bench.hub.streamCount == 0)
    }

    @Test func streamsAndWatchersAreFreedWithTheirHub() {
        weak var closed: WatchStream?
        weak var open: Watcher?
        do {
            let bench = bench(at: 3)
            bench.create(1, "a")
            bench.open(2)
            bench.create(2, "a", start: 1)
            closed = bench.hub.streamsInOrder[0]
            open = bench.hub.streamsInOrder[1].watchers[0]
            bench.hub.closeStream(WatchStreamID(1))
            #expect(closed == nil && open != nil)
        }
        #expect(open == nil)
    }

    @Test func nothingFollowsACancellation() {
        let bench = bench(at: 1)
        bench.create(1, "a")
        bench.create(1, "a", start: 1)
        bench.put("a")
        bench.cancel(1, 0)
        bench.cancel(1, 1)
        _ = bench.take()
        bench.put("a")
        bench.catchUpFully()
        #expect(bench.log() == [])
    }

    // MARK: events

    /// etcd-api.md A.6.
    @Test func liveWatcherGetsAResponseForEveryRevisionAndALateOneAllInOne() {
        let bench = bench(at: 1)
        bench.create(1, "w/", "w0")
        _ = bench.take()
        bench.put("w/1", "a")
        bench.put("w/1", "b")
        bench.delete("w/1")
        bench.write([.put("w/1", "1"), .put("w/2", "2"), .put("other", "o"), .put("w/3", "3")])
        bench.write([.delete("w/1"), .delete("w/2"), .delete("w/3")])
        #expect(bench.log() == [
            "0@2 put 2", "0@3 put 3", "0@4 delete 4", "0@5 put 5, put 5, put 5", "0@6 delete 6, delete 6, delete 6",
        ])
        bench.put("elsewhere")
        bench.create(1, "w/", "w0", start: 2)
        #expect(bench.log() == ["1@7 created"])
        bench.catchUpFully()
        #expect(bench.log() == ["1@7 put 2, put 3, delete 4, put 5, put 5, put 5, delete 6, delete 6, delete 6"])
        // From here on it is live.
        bench.put("w/9")
        #expect(bench.log() == ["0@8 put 8", "1@8 put 8"])
    }

    /// etcd-api.md A.7.
    @Test func largeResponseIsFragmentedOnlyForWatchersThatAskedForIt() {
        let bench = bench(at: 1)
        let value = String(repeating: "x", count: 600_000)
        for at in 0..<5 { bench.put("k\(at)", value) }
        bench.create(1, "k", "l", start: 2, fragment: true)
        bench.create(1, "k", "l", start: 2)
        _ = bench.take()
        bench.catchUpFully()
        #expect(bench.log() == ["0@6 put 2, put 3, put 4 fragment", "0@6 put 5, put 6", "1@6 put 2, put 3, put 4, put 5, put 6"])
    }

    @Test func outputsFollowTheOrderOfCreation() {
        let bench = bench(at: 1)
        bench.open(2)
        bench.create(1, "a", "c")
        bench.create(2, "b")
        bench.create(1, "b")
        bench.create(2, "\0", "\0")
        bench.create(1, "a", "c")
        bench.create(2, "c")
        _ = bench.take()
        bench.put("b")
        #expect(bench.outputs.map { "\($0.stream.rawValue)/\($0.response.watchID.rawValue)" } == ["1/0", "2/0", "1/1", "2/1", "1/2"])
    }

    @Test func filtersDropEventsAndEmptyResponses() {
        let bench = bench(at: 1)
        bench.create(1, "a", "c", filters: .noPut)
        bench.create(1, "a", "c", filters: .noDelete)
        bench.create(1, "a", "c", filters: [.noPut, .noDelete])
        _ = bench.take()
        bench.put("a")
        bench.delete("a")
        bench.write([.put("a", "1"), .put("b", "1"), .delete("a")])
        let expected = ["1@2 put 2", "0@3 delete 3", "0@4 delete 4", "1@4 put 4, put 4"]
        #expect(bench.log() == expected)
        bench.create(1, "a", "c", start: 1, id: 10, filters: .noPut)
        bench.create(1, "a", "c", start: 1, id: 11, filters: [.noPut, .noDelete])
        _ = bench.take()
        bench.catchUpFully()
        #expect(bench.log() == ["10@4 delete 3, delete 4"])
        #expect(bench.hub.behindWatcherCount == 0)
    }

    @Test func previousValueIsAttachedExceptToCreationsAndCompactedOnes() {
        let bench = bench(at: 1)
        bench.create(1, "a", previous: true)
        _ = bench.take()
        bench.put("a", "1")
        bench.put("a", "2")
        bench.delete("a")
        bench.write([.put("a", "3"), .delete("a")])
        let live = bench.take().flatMap(\.events)
        let first = bench.model.value(of: Key("a"), at: 2)
        let second = bench.model.value(of: Key("a"), at: 3)
        #expect(first != nil && second != nil)
        // The last transaction creates and deletes: before it the key did not exist.
        #expect(live.map(\.previousKV) == [nil, first, second, nil, nil])
        #expect(live.map(\.isDelete) == [false, false, true, false, true])

        bench.compact(3)
        bench.create(1, "a", start: 3, previous: true)
        bench.create(1, "a", start: 3)
        _ = bench.take()
        bench.catchUpFully()
        let caughtUp = bench.take()
        #expect(caughtUp.map(\.watchID.rawValue) == [1, 2])
        // Revision 3's previous state would be read at 2, below the compaction; revision 4's at 3, which still works.
        #expect(caughtUp[0].events.map(\.previousKV) == [nil, second, nil, nil])
        #expect(caughtUp[1].events.map(\.previousKV) == [nil, nil, nil, nil])
    }

    @Test func startInTheFutureWaitsForItsRevision() {
        let bench = bench(at: 5)
        bench.create(1, "a", start: 8)
        bench.create(1, "a", start: 6)
        _ = bench.take()
        for _ in 6...9 { bench.put("a") }
        #expect(bench.log() == ["1@6 put 6", "1@7 put 7", "0@8 put 8", "1@8 put 8", "0@9 put 9", "1@9 put 9"])
    }

    @Test func catchUpPutsAtMostAThousandRevisionsIntoAResponse() {
        let bench = bench(at: 1)
        for _ in 0..<2_345 { bench.write([.put("a", "1"), .put("b", "2")]) }
        bench.create(1, "a", "c", start: 1)
        _ = bench.take()
        bench.catchUpFully()
        let responses = bench.take()
        #expect(responses.map(\.events.count) == [2_000, 2_000, 690])
        #expect(responses.allSatisfy { $0.headerRevision == bench.model.current })
        #expect(responses.flatMap(\.events).map { modRevision($0.kv) } == (2...2_346).flatMap { [$0, $0] })
    }

    @Test func oneWalkServesWatchersAtDifferentPositions() {
        let bench = bench(at: 1)
        for _ in 0..<100 { bench.put("a") }
        for start in [50, 10, 90, 2] { bench.create(1, "a", start: Int64(start)) }
        _ = bench.take()
        bench.catchUpFully()
        #expect(bench.model.historyCalls == 1)
        #expect(bench.take().map(\.events.count) == [52, 92, 12, 100])
    }

    @Test func thousandsOfWatchersOfOnePrefixAllGetTheEvent() {
        let bench = bench(at: 1)
        for stream in 2...41 {
            bench.open(UInt64(stream))
            for _ in 0..<100 { bench.create(UInt64(stream), "p/", "p0") }
        }
        bench.outputs = []
        for stream in 2...41 { bench.hub.delivered(WatchStreamID(UInt64(stream)), responses: 100, bytes: 100 * WatchResponse.overheadBytes) }
        bench.put("p/x")
        #expect(bench.outputs.count == 4_000)
        #expect(bench.hub.behindWatcherCount == 0)
    }

    // MARK: compaction

    @Test func watchAtTheCompactRevisionWorksAndBelowItIsCancelled() {
        let bench = bench(at: 1)
        bench.put("a")  // 2
        bench.delete("a")  // 3
        bench.put("a")  // 4
        bench.compact(3)
        bench.create(1, "a", start: 2)
        bench.create(1, "a", start: 3)
        bench.create(1, "a", start: 4)
        #expect(bench.log() == ["0@4 created", "0@0 canceled compacted 3", "1@4 created", "2@4 created"])
        bench.catchUpFully()
        #expect(bench.log() == ["1@4 delete 3, put 4", "2@4 put 4"])
    }

    @Test func compactionCancelsOnlyWatchersThatNeedTheLostRevisions() {
        let bench = bench(at: 1)
        for _ in 0..<10 { bench.put("a") }
        bench.create(1, "a", start: 3)
        bench.create(1, "a", start: 6)
        bench.create(1, "a")
        bench.create(1, "a", start: 4)
        _ = bench.take()
        bench.compact(5)
        #expect(bench.log() == ["0@0 canceled compacted 5", "3@0 canceled compacted 5"])
        bench.catchUpFully()
        #expect(bench.log() == ["1@11 put 6, put 7, put 8, put 9, put 10, put 11"])
    }

    @Test func idOfACompactedWatcherStaysReservedUntilItIsCancelled() {
        let bench = bench(at: 5)
        bench.compact(4)
        bench.create(1, "a", start: 2, id: 7)
        _ = bench.take()
        bench.create(1, "a", id: 7)
        bench.cancel(1, 7)
        bench.create(1, "a", id: 7)
        #expect(bench.log() == [
            "-1@5 created canceled(mvcc: duplicate watch ID provided on the WatchStream)", "7@5 canceled", "7@5 created",
        ])
    }

    // MARK: progress

    @Test func progressRequestIsAnsweredOnlyWhenEveryWatcherIsSynced() {
        let bench = bench(at: 5)
        bench.progress(1)
        #expect(bench.log() == [])
        bench.create(1, "a")
        bench.progress(1)
        #expect(bench.log() == ["0@5 created", "-1@5"])
        bench.create(1, "filler", start: 2)
        bench.progress(1)
        #expect(bench.log() == ["1@5 created"])
        bench.catchUpFully()
        bench.progress(1)
        #expect(bench.log() == ["1@5 put 2, put 3, put 4, put 5", "-1@5"])
        bench.create(1, "a", start: 7)
        bench.progress(1)
        bench.put("b")
        bench.progress(1)
        #expect(bench.log() == ["2@5 created"])
        bench.put("b")
        bench.progress(1)
        #expect(bench.log() == ["-1@7"])
    }

    @Test func periodicNoticeSkipsWatchersThatGotEvents() {
        let bench = WatchBench(progressInterval: .seconds(10))
        bench.open(1)
        bench.create(1, "a", notify: true)
        bench.create(1, "b", notify: true)
        bench.create(1, "b")
        bench.create(1, "b", start: 9, notify: true)
        _ = bench.take()
        #expect(bench.hub.nextDeadline >= .zero + .seconds(10) && bench.hub.nextDeadline <= .zero + .seconds(11))
        bench.tick(.zero + .milliseconds(9_999))
        #expect(bench.log() == [])
        bench.put("a")
        bench.tick(.zero + .seconds(11))
        #expect(bench.log() == ["0@2 put 2", "1@2"])
        bench.tick(.zero + .seconds(22))
        #expect(bench.log() == ["0@2", "1@2"])
    }

    @Test func watcherThatIsBehindGetsNoPeriodicNotice() {
        let bench = WatchBench(progressInterval: .seconds(10))
        bench.open(1)
        bench.put("a")
        bench.create(1, "a", start: 2, notify: true)
        _ = bench.take()
        bench.tick(.zero + .seconds(11))
        #expect(bench.log() == [])
        bench.catchUpFully()
        bench.tick(.zero + .seconds(22))
        bench.tick(.zero + .seconds(33))
        #expect(bench.log() == ["0@2 put 2", "0@2"])
    }

    // MARK: slow readers

    private func small(responses: Int) -> WatchLimits {
        var limits = WatchLimits()
        limits.outstandingResponses = responses
        return limits
    }

    @Test func fullBacklogStopsEventsUntilHalfOfItIsDelivered() {
        let bench = bench(at: 1, limits: small(responses: 4))
        bench.create(1, "a")
        for _ in 0..<6 { bench.put("a") }
        #expect(bench.log() == ["0@1 created", "0@2 put 2", "0@3 put 3", "0@4 put 4"])
        #expect(bench.hub.behindWatcherCount == 1 && !bench.hub.hasCatchUpWork)
        bench.progress(1)
        #expect(!bench.catchUp())
        bench.hub.delivered(WatchStreamID(1), responses: 1, bytes: 0)
        #expect(!bench.hub.hasCatchUpWork)
        bench.hub.delivered(WatchStreamID(1), responses: 1, bytes: 0)
        #expect(bench.hub.hasCatchUpWork)
        bench.catchUpFully()
        #expect(bench.log() == ["0@7 put 5, put 6, put 7"])
        bench.put("a")
        #expect(bench.log() == ["0@8 put 8"])
    }

    @Test func oneFullStreamDoesNotHoldUpAnother() {
        let bench = bench(at: 1, limits: small(responses: 2))
        bench.open(2)
        bench.create(1, "a")
        bench.create(2, "a")
        for _ in 0..<3 {
            bench.put("a")
            bench.hub.delivered(WatchStreamID(2), responses: 1, bytes: 0)
        }
        bench.hub.delivered(WatchStreamID(2), responses: 1, bytes: 0)
        #expect(bench.outputs.filter { $0.stream.rawValue == 1 }.map { describe($0.response) } == ["0@1 created", "0@2 put 2"])
        #expect(bench.outputs.filter { $0.stream.rawValue == 2 }.map { describe($0.response) }
            == ["0@1 created", "0@2 put 2", "0@3 put 3", "0@4 put 4"])
    }

    @Test func slowWatchersOfOneStreamTakeTurns() {
        let bench = bench(at: 1, limits: small(responses: 10))
        for _ in 0..<10 { bench.create(1, "a") }
        bench.hub.delivered(WatchStreamID(1), responses: 10, bytes: 10 * WatchResponse.overheadBytes)
        bench.put("a")
        _ = bench.take()
        var received = [Int](repeating: 0, count: 10)
        for _ in 0..<10 {
            // Room for five and a write between them: each watcher comes up every other time.
            bench.put("a")
            bench.hub.delivered(WatchStreamID(1), responses: 5, bytes: 0)
            bench.catchUpFully()
            for response in bench.take() { received[Int(response.watchID.rawValue)] += 1 }
        }
        #expect(received.reduce(0, +) == 50)
        #expect(received.max()! - received.min()! <= 1, "\(received)")
    }

    @Test func slowWatcherWhoseHistoryIsCompactedIsCancelledNotSkipped() {
        let bench = bench(at: 1, limits: small(responses: 2))
        bench.create(1, "a")
        for _ in 0..<5 { bench.put("a") }
        _ = bench.take()
        bench.compact(3)
        #expect(bench.log() == [])
        bench.compact(4)
        #expect(bench.log() == ["0@0 canceled compacted 4"])
        bench.hub.delivered(WatchStreamID(1), responses: 3, bytes: 0)
        bench.catchUpFully()
        #expect(bench.log() == [])
    }

    // MARK: snapshot install

    @Test func watchersKeepTheirPositionWhenTheStoreIsReplaced() {
        let bench = bench(at: 3)
        bench.create(1, "a")
        bench.create(1, "b", start: 50)
        bench.create(1, "filler", start: 2)
        _ = bench.take()
        for _ in 0..<4 { bench.model.write([.put("a", "x")]) }
        bench.hub.storeReplaced(revision: Revision(7), compactRevision: Revision(-1), into: &bench.outputs)
        bench.catchUpFully()
        bench.put("a")
        #expect(bench.log().sorted() == ["0@7 put 4, put 5, put 6, put 7", "0@8 put 8", "2@7 put 2, put 3"])
    }

    @Test func watcherIsCancelledWhenTheNewStoreLacksItsHistory() {
        let bench = bench(at: 3)
        bench.create(1, "a")
        _ = bench.take()
        for _ in 0..<4 { bench.model.write([.put("a", "x")]) }
        bench.model.compactRevision = 5
        bench.hub.storeReplaced(revision: Revision(7), compactRevision: Revision(5), into: &bench.outputs)
        #expect(bench.log() == ["0@0 canceled compacted 5"])
        #expect(bench.hub.watcherCount == 0)
    }
}
