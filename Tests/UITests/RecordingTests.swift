import Foundation
import Testing
@testable import UI

@Suite struct RecordingTests {
    static let start = ElectionsTests.start

    static func lines(_ script: ElectionScript, until end: Int64 = .max) throws -> [Data] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return try [encoder.encode(RecordingHeader(program: "quarterdeck 0.1.0", start: script.start, cluster: script.first))]
            + script.sorted.filter { $0.at <= end }.map { try encoder.encode(RecordedEvent(at: script.moment($0.at), event: $0.event)) }
    }

    static func decoded(_ lines: [Data]) throws -> (header: RecordingHeader, events: [RecordedEvent]) {
        let decoder = JSONDecoder()
        return (try decoder.decode(RecordingHeader.self, from: lines[0]), try lines.dropFirst().map { try decoder.decode(RecordedEvent.self, from: $0) })
    }

    @Test func aReplayEndsInTheStateThatWasRecorded() throws {
        let script = ElectionScript.minute(start: Self.start)
        let live = ElectionsTests.session(script)
        let (header, events) = try Self.decoded(try Self.lines(script))
        var replayed = Session(Size(columns: 120, rows: 36))
        replayed.tell(.playback(Playback(events: events[...], restart: header)))
        #expect(replayed.model.now == live.model.now)
        #expect(replayed.model.elections == live.model.elections)
        #expect(replayed.model.samples == live.model.samples && replayed.model.faults == live.model.faults)
        #expect(replayed.model.cluster == live.model.cluster)
        #expect(replayed.model.rates == live.model.rates)
        #expect(view(replayed.model).lines == view(live.model).lines)
    }

    @Test func goingBackForgetsWhatCameLater() throws {
        let script = ElectionScript.minute(start: Self.start)
        let (header, events) = try Self.decoded(try Self.lines(script))
        var session = Session(Size(columns: 120, rows: 36))
        session.tell(.playback(Playback(events: events[...], restart: header)))
        session.press(KeyPress("4"))
        let early = script.moment(22_500_000)
        let count = events.firstIndex { $0.at > early } ?? events.count
        session.tell(.playback(Playback(events: events[..<count], restart: header)))
        #expect(session.model.elections.elections.map(\.number) == [1, 2])
        #expect(session.model.now <= early && session.model.now > script.moment(22_300_000))
        #expect(session.model.screen == .elections)
        // And on from there in pieces: the same as in one.
        for piece in stride(from: count, to: events.count, by: 97) { session.tell(.playback(Playback(events: events[piece..<min(events.count, piece + 97)]))) }
        var whole = Session(Size(columns: 120, rows: 36))
        whole.tell(.playback(Playback(events: events[...], restart: header)))
        #expect(session.model.elections.elections == whole.model.elections.elections)
    }

    @Test func everyKindComesBackAsItWas() throws {
        var histogram = LatencyHistogram()
        for value in [90, 2_000, 2_100, 20_000_000] { histogram.record(microseconds: value) }
        var coarse = LatencyHistogram(boundsMicroseconds: [10, 20])
        coarse.record(microseconds: 15)
        var sample = NodeSample(node: 7, atMicroseconds: 5, role: .leader, term: 3, peers: [.init(id: 8, phase: .replicate, match: 4, next: 5, inFlightMessages: 1, inFlightBytes: 10, roundTripMicroseconds: nil, isActive: true)])
        sample.stages = [StageLatency(stage: .logWrite, histogram: histogram), StageLatency(stage: .apply, histogram: coarse)]
        let fault = ActiveFault(id: 3, fault: .wire(from: nil, to: 9, WireFault(delayMilliseconds: 40, jitterMilliseconds: 5)), since: Self.start, ends: nil, by: "flap")
        let kinds: [RaftEvent.Kind] = [.electionTimeout(afterMicroseconds: 9), .leaderConnectionLost(leader: 2), .preVoteAsked, .voteRefused(to: 4, isPreVote: true, reason: "log behind"), .steppedDown(reason: "term 5"), .missed(3)]
        let events: [DataEvent] = [
            .cluster(Sample.cluster(now: Self.start)), .events([ClusterEvent(id: 1, at: Self.start, kind: .faultOn("n5 disk"))]), .raft(kinds.map { RaftEvent(node: 1, atMicroseconds: 2, term: 3, kind: $0) }),
            .samples([sample]), .metrics([MetricsSample(node: 1, at: Self.start, spanMilliseconds: 1_000, walFsync: coarse)]),
            .canary([CanaryWrite(dueMicroseconds: 1, tookMicroseconds: 2, outcome: .failed), CanaryWrite(dueMicroseconds: 3, tookMicroseconds: 4, outcome: .retried, revision: 9)]), .isCanaryOn(true), .canaryCheck(CanaryCheck(acknowledged: 9, confirmed: 8, lost: 1, lostRevisions: [7])),
            .faults([fault]), .faultSupport(FaultSupport(reasons: [.diskFull: "real etcd"])), .logs([LogLine(at: Self.start, node: 1, level: .error, part: "wal", text: "fsync \"slow\"\n")]),
            .scenario(ScenarioProgress(name: "a", title: "b", step: 1, steps: 2, caption: "c", state: .failed("x"))),
            .workload(WorkloadSample(at: Self.start, put: nil, read: nil, failed: 1, putBuckets: [1], putHistogram: histogram)),
        ]
        for event in events {
            #expect(RecordedEvent.belongs(event))
            let bytes = try JSONEncoder().encode(RecordedEvent(at: Self.start, event: event))
            let back = try JSONDecoder().decode(RecordedEvent.self, from: bytes)
            #expect(back.at == Self.start)
            #expect("\(back.event)" == "\(event)")
        }
        #expect(!RecordedEvent.belongs(.keysStale) && !RecordedEvent.belongs(.notice("x", isBad: false)))
        #expect(throws: (any Error).self) { try JSONDecoder().decode(RecordedEvent.self, from: Data(#"{"t":1,"other":[]}"#.utf8)) }
    }

    /// The file that the program's own tests replay: a transfer and a kill.
    @Test func theRecordingInTheTestsIsOfThisFormat() throws {
        let text = try Self.lines(ElectionScript.minute(start: Self.start), until: 24_000_000).map { String(decoding: $0, as: UTF8.self) }.joined(separator: "\n")
        expectGolden(text, "recording")
    }

    /// However a recording is cut into pieces, the same elections come of it: a busy machine hears it in other pieces than an idle one.
    @Test func piecesMakeNoDifference() throws {
        let script = ElectionScript.minute(start: Self.start)
        let (header, events) = try Self.decoded(try Self.lines(script, until: 24_000_000))
        let end = script.moment(24_000_000)
        func elections(_ cuts: [Int64]) -> [Election] {
            var session = Session(Size(columns: 120, rows: 36))
            session.tell(.playback(Playback(events: [], restart: header)))
            var next = 0
            for moment in cuts.map({ script.moment($0) }) + [end] {
                let count = events.firstIndex { $0.at > moment } ?? events.count
                session.tell(.playback(Playback(events: events[next..<max(next, count)], until: moment)))
                next = max(next, count)
            }
            return session.model.elections.elections
        }
        let whole = elections([])
        #expect(whole.count == 2)
        for cut in stride(from: 0 as Int64, to: 24_000_000, by: 391_000) { #expect(elections([cut]) == whole, "cut at \(cut) us") }
        #expect(elections(Array(stride(from: 0 as Int64, to: 24_000_000, by: 25_000))) == whole)
        #expect(elections(Array(stride(from: 0 as Int64, to: 24_000_000, by: 2_500_000))) == whole)
    }

    @Test func keysOfAReplay() throws {
        let script = ElectionScript.minute(start: Self.start)
        let (header, events) = try Self.decoded(try Self.lines(script))
        var session = Session(Size(columns: 120, rows: 36))
        session.tell(.playback(Playback(events: events[..<20], restart: header)))
        session.tell(.replay(ReplayState(start: Self.start, end: script.moment(60_000_000), position: Self.start, isPlaying: true, speed: 1, elections: [script.moment(6_011_000), script.moment(22_114_000)])))
        #expect(session.screen.contains("REPLAY") && session.screen.contains("01:00") && session.screen.contains("▶ replay"))
        func last() -> ReplayControl? { session.commands.reversed().lazy.compactMap { if case .replay(let control) = $0 { control } else { nil } }.first }
        session.press(KeyPress(" "))
        #expect(last() == .pause)
        session.press(KeyPress("."))
        #expect(last() == .speed(2))
        session.press(KeyPress(","))
        #expect(last() == .speed(0.5))
        let here = session.model.now
        session.press(KeyPress(.right))
        #expect(last() == .seek(here.advanced(byMilliseconds: 5_000)))
        // A key held down: each jump goes on from the one before, whether that was heard already or not.
        session.press(KeyPress(.right), KeyPress(.right))
        #expect(last() == .seek(here.advanced(byMilliseconds: 15_000)))
        session.press(KeyPress(.left), KeyPress(.left), KeyPress(.left), KeyPress(.left))
        #expect(last() == .seek(Self.start))
        session.press(KeyPress("}"))
        #expect(last() == .seek(script.moment(5_011_000)))
        session.press(KeyPress("4"))
        let crumbs = ScreenLayout(session.model.size).crumbs
        let bar = session.model.replayBar(crumbs)
        session.act(.mouse(MouseEvent(kind: .leftPress, position: Position(column: bar.endColumn - 1, row: bar.row))))
        #expect(last() == .seek(script.moment(60_000_000)))
    }

    @Test func theRecordingHasTheClock() throws {
        let script = ElectionScript.minute(start: Self.start)
        let (header, events) = try Self.decoded(try Self.lines(script))
        var session = Session(Size(columns: 120, rows: 36))
        session.tell(.playback(Playback(events: events[..<0], restart: header)))
        session.tell(.replay(ReplayState(start: Self.start, end: script.moment(60_000_000), position: Self.start, isPlaying: true, speed: 1)))
        // However late what was heard is delivered, and whatever is pressed meanwhile: it is heard when it was.
        session.advance(to: script.moment(70_000_000))
        session.press(KeyPress("4"))
        #expect(session.model.now == Self.start)
        session.tell(.playback(Playback(events: events[...], until: script.moment(60_000_000))))
        #expect(session.model.now == script.moment(60_000_000))
        #expect(session.model.rates.perSecond.count == 59 || session.model.rates.perSecond.count == 60)
        #expect(session.model.elections.marks.map(\.at) == [21_031_000, 34_000_000, 44_090_000, 52_000_000].map { Self.start.microseconds + $0 })
    }

    @Test func nothingIsChangedInARecording() throws {
        let script = ElectionScript.minute(start: Self.start)
        let (header, events) = try Self.decoded(try Self.lines(script))
        var random = Seeded(9)
        var session = Session(Size(columns: 100, rows: 30))
        session.tell(.playback(Playback(events: events[..<200], restart: header)))
        session.tell(.replay(ReplayState(start: Self.start, end: script.moment(60_000_000), position: Self.start, isPlaying: false, speed: 1)))
        session.press(KeyPress("4"), KeyPress("K"))
        #expect(session.screen.contains("this is a recording: nothing can be changed in it"))
        for step in 0..<600 {
            session.act(SafetyTests.randomAction(&random, session.model.size))
            if step % 20 == 0 { SafetyTests.check(session.model, "step \(step)") }
        }
        for command in session.commands where command.changesCluster { Issue.record("\(command)") }
    }
}

/// A recording's file may come from anywhere.
@Suite struct HostileRecordingTests {
    private func event(_ json: String) throws -> RecordedEvent { try JSONDecoder().decode(RecordedEvent.self, from: Data(json.utf8)) }

    @Test func figuresBeyondAllReasonAreTakenForTheBound() throws {
        let huge = "9223372036854775807", tiny = "-9223372036854775808"
        var session = Session(Size(columns: 120, rows: 36))
        let lines = [
            "{\"t\":\(tiny),\"raft\":[{\"node\":1,\"atMicroseconds\":\(tiny),\"term\":18446744073709551615,\"kind\":{\"electionTimeout\":{\"afterMicroseconds\":\(tiny)}}}]}",
            "{\"t\":\(huge),\"canary\":[[\(huge),\(huge),0,1],[\(tiny),\(tiny),1,1]]}",
            "{\"t\":1,\"canaryCheck\":{\"acknowledged\":\(huge),\"confirmed\":\(tiny),\"lost\":\(huge),\"lostRevisions\":[\(tiny)]}}",
            "{\"t\":2,\"samples\":[{\"node\":1,\"atMicroseconds\":\(huge),\"role\":\"leader\",\"term\":5,\"vote\":1,\"leader\":1,\"commit\":18446744073709551615,\"applied\":0,\"lastIndex\":18446744073709551615,\"durable\":1,"
                + "\"timerLeftMicroseconds\":\(tiny),\"timerLengthMicroseconds\":\(huge),\"uncommittedBytes\":\(huge),\"unapplied\":\(huge),\"diskQueue\":\(tiny),\"pendingRequests\":\(huge),\"peers\":[],"
                + "\"stages\":[{\"stage\":\"logWrite\",\"histogram\":{\"b\":[],\"s\":\(huge),\"n\":[0,5]}},{\"stage\":\"apply\",\"histogram\":{\"s\":\(huge),\"n\":[0,\(huge),1,\(huge),\(huge),1]}}]}]}",
        ]
        let events = try lines.map(event)
        let header = RecordingHeader(program: "x", start: ElectionsTests.start, cluster: session.model.cluster)
        session.tell(.playback(Playback(events: events[...], restart: header)))
        for key in "14570" { session.press(KeyPress(key)); _ = view(session.model) }
        #expect(events.allSatisfy { $0.at == $0.at.bounded })
    }
}
