import Foundation
import Synchronization
import Testing
@testable import UI
@testable import quarterdeck

@Suite struct RecorderTests {
    private static let start = Moment(milliseconds: 1_763_923_327_000)

    /// A directory that is gone afterwards.
    private func withFile(_ body: (String) throws -> Void) throws {
        let directory = NSTemporaryDirectory() + "quarterdeck-recorder-\(UInt64.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try body(directory + "/session.jsonl")
    }

    private func cluster(revision: Int64 = 1, leader: UInt64 = 1) -> ClusterState {
        var state = ClusterState(name: "demo", kind: .playground, connection: .connected, members: (1...3).map { MemberState(id: $0, name: "n\($0)", endpoint: "127.0.0.1:\($0)", role: $0 == leader ? .leader : .follower, health: .up) })
        state.revision = revision
        return state
    }

    private func events(_ recording: Recording) throws -> [RecordedEvent] {
        let decoder = JSONDecoder()
        return try recording.lines.indices.map { try recording.decode($0, decoder) }
    }

    @Test func aRecordingBeginsWithWhatWasKnownAndEndsWithTheLastThingHeard() throws {
        try withFile { path in
            let told = Mutex<[DataEvent]>([])
            let recorder = SessionRecorder(program: "test") { event in told.withLock { $0.append(event) } }
            let fault = ActiveFault(id: 1, fault: .pause(2), since: Self.start)
            recorder.hear(.cluster(cluster()), at: Self.start)
            recorder.hear(.faults([fault]), at: Self.start)
            recorder.hear(.isCanaryOn(true), at: Self.start)
            try recorder.begin(path, at: Self.start.advanced(byMilliseconds: 500))
            recorder.hear(.raft([RaftEvent(node: 1, atMicroseconds: 7, term: 3, kind: .preVoteAsked)]), at: Self.start.advanced(byMilliseconds: 600))
            recorder.hear(.notice("not of the cluster", isBad: false), at: Self.start.advanced(byMilliseconds: 700))
            let ended = try #require(recorder.end())
            #expect(ended.path == path)
            #expect(recorder.end() == nil)
            let recording = try Recording(path: path)
            #expect(recording.header.start == Self.start.advanced(byMilliseconds: 500) && recording.header.cluster.name == "demo" && recording.header.program == "test")
            let kinds = try events(recording).map { "\($0.event)".prefix { $0 != "(" } }
            #expect(kinds == ["cluster", "faults", "isCanaryOn", "raft"])
            #expect(recording.end == Self.start.advanced(byMilliseconds: 600))
            #expect(told.withLock { $0.count } == 2)
            var info = stat()
            #expect(stat(path, &info) == 0 && info.st_mode & 0o777 == 0o600 && info.st_size == off_t(ended.bytes))
            // Never over another file.
            #expect(throws: FileFailure.self) { try recorder.begin(path, at: Self.start) }
        }
    }

    @Test func figuresAloneAreWrittenOnceASecondAndChangesAtOnce() throws {
        try withFile { path in
            let recorder = SessionRecorder(program: "test") { _ in }
            recorder.hear(.cluster(cluster()), at: Self.start)
            try recorder.begin(path, at: Self.start)
            for step in 1...100 as ClosedRange<Int64> { recorder.hear(.cluster(cluster(revision: step)), at: Self.start.advanced(byMilliseconds: step * 50)) }
            recorder.hear(.cluster(cluster(revision: 101, leader: 2)), at: Self.start.advanced(byMilliseconds: 5_010))
            for step in 0..<40 as Range<Int64> { recorder.hear(.samples([NodeSample(node: 1, atMicroseconds: step * 100_000, role: .leader, term: 3, leader: 1, timerLeftMicroseconds: step)]), at: Self.start.advanced(byMilliseconds: step * 100)) }
            recorder.end()
            let events = try events(try Recording(path: path))
            let states = events.compactMap { if case .cluster(let state) = $0.event { state } else { nil } }
            #expect(states.count <= 8 && states.last?.leader?.id == 2)
            #expect(events.count { if case .samples = $0.event { true } else { false } } == 4)
        }
    }

    @Test func aRunnerPlaysPausesAndSeeks() async throws {
        let path = (#filePath as NSString).deletingLastPathComponent + "/../UITests/Goldens/recording.txt"
        let recording = try Recording(path: path)
        let mailbox = Mailbox()
        let runner = ReplayRunner(recording, mailbox: mailbox)
        var model = Model(size: Size(columns: 120, rows: 36), now: runner.now(), cluster: recording.header.cluster)
        func hear() { for event in mailbox.take() { _ = update(&model, .data(event), at: runner.now()) } }
        // Blocking: a task that sleeps waits for the test threads, which other suites keep busy for seconds.
        func wait(_ condition: () -> Bool) throws {
            let limit = ContinuousClock.now + .seconds(20)
            while !condition() {
                hear()
                guard ContinuousClock.now < limit else { throw CommandFailure(description: "did not happen") }
                Thread.sleep(forTimeInterval: 0.005)
            }
        }
        runner.start()
        try wait { model.replay?.loadedPercent == 100 }
        #expect(model.replay?.elections.count == 2)
        runner.perform(.replay(.pause))
        runner.perform(.replay(.seek(recording.end)))
        try wait { model.elections.elections.count == 2 }
        #expect(runner.now() == recording.end)
        runner.perform(.replay(.seek(recording.header.start.advanced(byMilliseconds: 10_000))))
        try wait { model.elections.elections.count == 1 }
        #expect(model.now == runner.now() && model.replay?.position == recording.header.start.advanced(byMilliseconds: 10_000))
        // A hundred times as fast: fourteen seconds in a moment, and there it stops.
        runner.perform(.replay(.speed(100)))
        runner.perform(.replay(.play))
        try wait { model.replay?.isPlaying == false && model.elections.elections.count == 2 }
        #expect(runner.now() == recording.end)
        // Nothing can be done to it.
        runner.perform(.addFault(RequestID(number: 9), .kill(1), milliseconds: nil))
        let answers = mailbox.take()
        #expect(answers.contains { if case .finished(let result) = $0, case .failed(let text) = result.outcome { text.contains("this is a recording") } else { false } })
        await runner.stop()
        #expect(runner.damage == nil)
    }

    /// How long going back to the end of an hour takes: what happens when a person scrubs.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["QUARTERDECK_BENCH"] == "1")) func scrubbingAnHour() throws {
        var model = Model(size: Size(columns: 120, rows: 36), now: Self.start, cluster: cluster())
        var events: [RecordedEvent] = []
        for second in 0..<3_600 as Range<Int64> {
            let at = Self.start.advanced(byMilliseconds: second * 1_000)
            events.append(RecordedEvent(at: at, event: .cluster(cluster(revision: second * 400))))
            for node in 1...3 as ClosedRange<UInt64> { events.append(RecordedEvent(at: at, event: .samples([NodeSample(node: node, atMicroseconds: at.milliseconds * 1_000, role: node == 1 ? .leader : .follower, term: 3, leader: 1, timerLeftMicroseconds: 900_000)]))) }
            for part in 0..<5 as Range<Int64> {
                events.append(RecordedEvent(at: at.advanced(byMilliseconds: part * 200), event: .canary((0..<10).map { CanaryWrite(dueMicroseconds: (at.milliseconds + part * 200 + $0 * 20) * 1_000, tookMicroseconds: 2_000, outcome: .acknowledged) })))
            }
            events.append(RecordedEvent(at: at, event: .workload(WorkloadSample(at: at, put: nil, read: nil, failed: 0, putBuckets: [0, 4, 28], verdict: ConsistencyVerdict(acknowledgedWrites: 5, confirmedWrites: 5)))))
        }
        let began = ContinuousClock.now
        _ = update(&model, .data(.playback(Playback(events: events[...], restart: RecordingHeader(program: "test", start: Self.start, cluster: cluster())))), at: Self.start)
        print("an hour of \(events.count) events heard in \(ContinuousClock.now - began)")
    }
}
