import Foundation
import Testing
import UI
@testable import quarterdeck

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

@Suite struct ScenarioParserTests {
    private func steps(_ text: String) throws -> [Scenario.Action] {
        try ScenarioParser.parse("title: t\nnodes: 5\nsteps:\n" + text, file: "t.yaml").steps.map(\.action)
    }

    private func fault(_ text: String) throws -> Scenario.FaultForm? {
        if case .fault(let form, _) = try steps("  - fault: \(text)").first { form } else { nil }
    }

    @Test func readsAWholeFile() throws {
        let scenario = try ScenarioParser.parse("""
            title: A  title
            description: >
              Two
              lines.
            nodes: 5
            options: {snapshot-count: 500, heartbeat-interval: 50ms, election-timeout: 1s}
            steps:
              - say: hello
              - pick: {victim: leader, other: any follower}
              - say: now
                fault: kill victim
                for: 1.5s
              - repeat:
                  times: 3
                  steps:
                    - wait: {for: victim caught up, within: 5s}
            """, file: "some/where/a-name.yaml")
        #expect(scenario.name == "a-name" && scenario.title == "A title" && scenario.description == "Two lines." && scenario.nodes == 5)
        #expect(scenario.options == Scenario.NodeOptions(snapshotCount: 500, heartbeatMilliseconds: 50, electionMilliseconds: 1_000))
        #expect(scenario.steps == [
            .init(say: "hello", action: .say, line: 8),
            .init(say: nil, action: .pick([.init(name: "victim", nodes: .leader), .init(name: "other", nodes: .anyFollower)]), line: 9),
            .init(say: "now", action: .fault(.kill(.picked("victim")), milliseconds: 1_500), line: 10),
            .init(say: nil, action: .repeated(times: 3, steps: [.init(say: nil, action: .wait(.caughtUp(.picked("victim")), withinMilliseconds: 5_000), line: 16)]), line: 13),
        ])
    }

    @Test func readsEveryFault() throws {
        #expect(try fault("stop n2") == .stop(.number(2)))
        #expect(try fault("pause leader") == .pause(.leader))
        #expect(try fault("tear any follower") == .tear(.anyFollower))
        #expect(try fault("isolate minority with leader") == .isolate(.minority(withLeader: true)))
        #expect(try fault("cut all -> n1") == .cut(from: .all, to: .number(1), isMutual: false))
        #expect(try fault("cut leader <-> any follower") == .cut(from: .leader, to: .anyFollower, isMutual: true))
        #expect(try fault("partition minority with leader | rest") == .partition([.minority(withLeader: true), .rest]))
        #expect(try fault("wire n1 -> any follower delay 200ms jitter 50ms loss 10% duplicate 1.5% rate 64KB")
            == .wire(from: .number(1), to: .anyFollower, isMutual: false, WireFault(delayMilliseconds: 200, jitterMilliseconds: 50, lossPercent: 10, duplicatePercent: 1.5, bytesPerSecond: 65_536)))
        #expect(try fault("disk leader slow 150ms") == .disk(.leader, .slow(milliseconds: 150)))
        #expect(try fault("disk all stuck") == .disk(.all, .stuck))
        #expect(try fault("disk n3 full") == .disk(.number(3), .full))
        #expect(try fault("disk n3 broken") == .disk(.number(3), .broken))
        #expect(try fault("clock leader jump +5s") == .clock(.leader, .jump(milliseconds: 5_000)))
        #expect(try fault("clock n1 jump -1h") == .clock(.number(1), .jump(milliseconds: -3_600_000)))
        #expect(try fault("clock n1 drift -500ppm") == .clock(.number(1), .drift(partsPerMillion: -500)))
    }

    @Test func readsLoadsConditionsAndExpectations() throws {
        let actions = try steps("""
              - load: {puts: 1_000, reads: 0, clients: 3, value-bytes: 64, keys: 9, distribution: zipf, consistency: serializable, target: leader, pace: closed}
              - load: off
              - heal: wire
              - put: /a/b some words
                times: 20
              - wait: {for: 500 writes}
              - wait: {for: all caught up, within: 200ms}
              - expect: {elections at most: 2, elections at least: 1, elections: 0, leader: n2, writes resumed within: 2s, lost acknowledged writes: 0}
            """)
        #expect(actions == [
            .load(WorkloadSettings(putsPerSecond: 1_000, readsPerSecond: 0, clients: 3, valueBytes: 64, keyCount: 9, distribution: .zipf, consistency: .serializable, target: .leader, pace: .closed)),
            .load(nil), .heal(.verb("wire")), .put(key: "/a/b", value: "some words", times: 20), .wait(.writes(500), withinMilliseconds: 10_000), .wait(.caughtUp(.all), withinMilliseconds: 200),
            .expect([.elections(0...2), .elections(1...Int.max), .elections(0...0), .leaderIs(.number(2)), .writesResumed(withinMilliseconds: 2_000), .lostWrites(atMost: 0)]),
        ])
    }

    /// Each file says in its first line what it must be refused with.
    @Test(arguments: try FileManager.default.contentsOfDirectory(atPath: root + "/Tests/BadScenarios").sorted())
    func badFilesAreRefusedWithTheReason(_ name: String) throws {
        let text = try String(contentsOfFile: root + "/Tests/BadScenarios/" + name, encoding: .utf8)
        let wanted = try #require(text.split(separator: "\n").first?.dropFirst("# refused: ".count))
        let failure = try #require(throws: ScenarioFailure.self) { try ScenarioParser.parse(text, file: name) }
        #expect(failure.description == wanted)
    }

    @Test func whatIsShippedCanBeRead() throws {
        let library = ScenarioLibrary(directories: [root + "/scenarios"])
        let summaries = library.summaries { _ in nil }
        #expect(summaries.count >= 10)
        for summary in summaries {
            #expect(summary.obstacle == nil && !summary.description.isEmpty && summary.title.count <= 70, "\(summary)")
        }
    }

    @Test func unknownNamesListTheKnownOnes() throws {
        let failure = try #require(throws: ScenarioFailure.self) { try ScenarioLibrary(directories: [root + "/scenarios"]).scenario("nonesuch") }
        #expect(failure.description.hasPrefix("no scenario \"nonesuch\"; there are: ") && failure.description.contains("rolling-restart"))
    }
}

@Suite struct ElectionTallyTests {
    @Test func countsElectionsAndTimesWithoutALeader() {
        var tally = ElectionTally()
        tally.saw(leader: nil, term: 0, at: 0)
        tally.saw(leader: 1, term: 2, at: 100)
        #expect(tally.elections.isEmpty && tally.leaderless.isEmpty)
        tally.died(1, at: 500)
        tally.saw(leader: nil, term: 0, at: 520)
        tally.elected(2, term: 3, at: 700)
        tally.saw(leader: 2, term: 3, at: 712)
        #expect(tally.elections == [.init(term: 3, leader: 2, at: 700, leaderlessMilliseconds: 200)])
        // Handed over: no moment without one.
        tally.saw(leader: 3, term: 4, at: 900)
        #expect(tally.elections.last == .init(term: 4, leader: 3, at: 900, leaderlessMilliseconds: 0))
        // Out of sight for a moment, and back.
        tally.saw(leader: nil, term: 0, at: 1_000)
        #expect(tally.longestLeaderless(at: 1_050) == 200)
        tally.saw(leader: 3, term: 4, at: 1_300)
        #expect(tally.elections.count == 2 && tally.leaderless == [200, 300] && tally.longestLeaderless(at: 9_000) == 300)
        // An old term is none.
        tally.saw(leader: 1, term: 2, at: 1_400)
        #expect(tally.leader == 3)
    }

    @Test func gapsAndResumptionFollowFromTheCanary() {
        var record = WriteRecord()
        #expect(record.resumed(after: 0) == nil && record.longestGap(since: 0, until: nil) == 0)
        record.add([CanaryWrite(dueMicroseconds: 1_000_000, tookMicroseconds: 5_000, outcome: .acknowledged), CanaryWrite(dueMicroseconds: 1_020_000, tookMicroseconds: 1_000_000, outcome: .failed),
                    CanaryWrite(dueMicroseconds: 1_040_000, tookMicroseconds: 400_000, outcome: .retried), CanaryWrite(dueMicroseconds: 1_060_000, tookMicroseconds: 300_000, outcome: .acknowledged)])
        #expect(record.failed == 1 && record.retried == 1 && record.acknowledged == 3)
        #expect(record.resumed(after: 1_010) == 350)
        #expect(record.resumed(after: 1_061) == nil)
        #expect(record.longestGap(since: 1_000, until: nil) == 355)
        #expect(record.longestGap(since: 1_000, until: 2_440) == 1_000)
    }
}

/// Files may come from anywhere.
@Suite struct HostileYAMLTests {
    /// Each line has the one before nine times.
    private static let laughs = "a0: &a0 [x]\n" + (1...40).map { "a\($0): &a\($0) [" + Array(repeating: "*a\($0 - 1)", count: 9).joined(separator: ", ") + "]\n" }.joined()

    @Test(arguments: [laughs, laughs + "? *a40\n: x\n", "title: t\nnodes: 3\n" + laughs + "steps: *a40\n"]) func aliasesAreRefusedBeforeTheyGrow(_ text: String) throws {
        let failure = try #require(throws: ScenarioFailure.self) { try ScenarioParser.parse(text, file: "t.yaml") }
        #expect(failure.description.contains("aliases are not supported"))
        #expect(failure.description.hasPrefix("t.yaml:"))
        #expect(throws: ThemeFailure.self) { try ThemeLibrary.parse(text, name: "t") }
    }

    @Test func whatLooksAlikeInATextIsNone() throws {
        let scenario = try ScenarioParser.parse("title: R&D *and* this & that\nsteps:\n  - say: \"2 * 3 &x\"\n", file: "t.yaml")
        #expect(scenario.title == "R&D *and* this & that")
    }

    @Test func repeatsAreNotNestedWithoutEnd() throws {
        func nested(_ depth: Int) -> String {
            var text = "[{say: x}]"
            for _ in 0..<depth { text = "[{repeat: {times: 1000, steps: \(text)}}]" }
            return "title: t\nsteps: \(text)\n"
        }
        #expect(try ScenarioParser.parse(nested(3), file: "t.yaml").steps.count == 1)
        let failure = try #require(throws: ScenarioFailure.self) { try ScenarioParser.parse(nested(100), file: "t.yaml") }
        #expect(failure.description.contains("nested too deeply"))
    }

    @Test func timesBeyondAnyAreRefused() {
        for time in ["8999999999999999999ns", "2500000h", "99999999999999999999h"] {
            #expect(throws: ScenarioFailure.self) { try ScenarioParser.parse("title: t\nsteps:\n  - hold: \(time)\n", file: "t.yaml") }
        }
    }
}
