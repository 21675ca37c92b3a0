import Base
import Client
import Foundation
import Simulation
import Testing
@testable import torture

extension Integration {
    /// The torture run, small enough for every change; and the proof that it fails when it should.
    @Suite(.serialized) struct TortureTests {}
}

extension Integration.TortureTests {
    /// The search is not needed to see a lie, and slow in a debug build.
    private static let searchBudget = 20_000

    private static func options(_ name: String, seed: UInt64, profile: TortureOptions.Profile, seconds: Double, in scratch: Scratch) -> TortureOptions {
        var options = TortureOptions(seed: seed, binary: quarterdeck, directory: scratch.file(name))
        options.profile = profile
        options.seconds = seconds
        options.warmUpSeconds = 2
        // A debug build on a busy machine; a run without load would still be told from one with it.
        options.minimumRate = 15
        options.searchBudget = searchBudget
        return options
    }

    /// QUARTERDECK_TORTURE_SEED repeats one that failed.
    @Test(.timeLimit(.minutes(5))) func realProcessesKeepTheirPromisesUnderTorture() async throws {
        let seed = ProcessInfo.processInfo.environment["QUARTERDECK_TORTURE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1..<1_000_000)
        // Outside of a scratch directory: what failed is kept.
        var options = TortureOptions(seed: seed, binary: quarterdeck, directory: NSTemporaryDirectory() + "torture-\(seed)-\(getpid())")
        options.seconds = 15
        options.warmUpSeconds = 2
        options.minimumRate = 15
        options.searchBudget = Self.searchBudget
        let outcome = try await TortureRun(options).run()
        print(TortureReport.summary(options, outcome))
        #expect(outcome.violations.isEmpty, "\(outcome.violations.map(\.description).joined(separator: "\n"))\nkept: \(options.directory) repeat: \(options.command)")
        #expect(!outcome.faults.isEmpty)
        if outcome.violations.isEmpty { try? FileManager.default.removeItem(atPath: options.directory) } else { try HistoryFile.write(outcome.evidence, to: options.directory + "/history.jsonl") }
    }

    // MARK: The judge

    /// One lie in the evidence of a run, and the promises one of which it breaks.
    private struct Lie: Sendable {
        var name: String
        var expected: Set<String>
        /// False: the run has nothing to tell this lie about.
        var tell: @Sendable (inout Evidence) -> Bool
    }

    private static func firstRead(_ evidence: Evidence, _ isRight: (ClientOperation) -> Bool) -> Int? {
        evidence.operations.firstIndex { operation in
            guard case .range(_, _, 0, false) = operation.call, case .done(_, let found, _, _) = operation.outcome, !found.isEmpty else { return false }
            return isRight(operation)
        }
    }

    private static let lies: [Lie] = [
        Lie(name: "a read shows another value", expected: ["linearizability"]) { evidence in
            guard let index = firstRead(evidence, { _ in true }), case .done(let revision, var found, let count, let succeeded) = evidence.operations[index].outcome else { return false }
            found[0].value = Array("nobody wrote this".utf8)
            evidence.operations[index].outcome = .done(revision: revision, found: found, count: count, succeeded: succeeded)
            return true
        },
        Lie(name: "a read shows an older state", expected: ["linearizability"]) { evidence in
            // Rightly answered, had it been asked a while ago.
            guard let early = firstRead(evidence, { _ in true }), case .range(let key, let end, _, _) = evidence.operations[early].call,
                  let late = evidence.operations.lastIndex(where: {
                      guard case .range(key, end, 0, false) = $0.call, case .done(let revision, _, _, _) = $0.outcome,
                            case .done(let old, _, _, _) = evidence.operations[early].outcome else { return false }
                      return revision > old + 10
                  }) else { return false }
            evidence.operations[late].outcome = evidence.operations[early].outcome
            return true
        },
        Lie(name: "an acknowledged write is not there", expected: ["exactly-once", "linearizability"]) { evidence in
            guard let index = evidence.operations.firstIndex(where: {
                guard case .put(_, _, 0) = $0.call, case .done = $0.outcome else { return false }
                return true
            }), case .put(let key, _, _) = evidence.operations[index].call else { return false }
            evidence.operations[index].call = .put(key: key, value: Array("lost".utf8), lease: 0)
            return true
        },
        Lie(name: "a refused write is there", expected: ["exactly-once", "linearizability"]) { evidence in
            guard let index = evidence.operations.firstIndex(where: {
                guard case .put(_, _, 0) = $0.call, case .done = $0.outcome else { return false }
                return true
            }) else { return false }
            evidence.operations[index].outcome = .refused("not sent")
            return true
        },
        Lie(name: "a whole revision was never told", expected: ["revision-missing"]) { evidence in
            let victim = evidence.finalRevision / 2
            guard victim > max(1, evidence.compactRevision) else { return false }
            for place in evidence.watches.indices {
                for number in evidence.watches[place].messages.indices {
                    guard case .events(let events, let header, let isFragment) = evidence.watches[place].messages[number].message else { continue }
                    evidence.watches[place].messages[number].message = .events(events.filter { $0.kv.modRevision != victim }, headerRevision: header, isFragment: isFragment)
                }
                evidence.watches[place].messages.removeAll { if case .events(let events, _, _) = $0.message { events.isEmpty } else { false } }
            }
            return true
        },
        Lie(name: "one watch misses an event", expected: ["watch-reliable", "watch-resumable", "watch-atomic"]) { evidence in
            for place in evidence.watches.indices where evidence.watches[place].key != [0] {
                let places = evidence.watches[place].messages.indices.filter { if case .events = evidence.watches[place].messages[$0].message { true } else { false } }
                guard places.count >= 3 else { continue }
                evidence.watches[place].messages.remove(at: places[places.count / 2])
                return true
            }
            return false
        },
        Lie(name: "one watch tells an event twice", expected: ["watch-ordered", "watch-unique"]) { evidence in
            for place in evidence.watches.indices where evidence.watches[place].key != [0] {
                guard let number = evidence.watches[place].messages.lastIndex(where: { if case .events = $0.message { true } else { false } }) else { continue }
                evidence.watches[place].messages.insert(evidence.watches[place].messages[number], at: number)
                return true
            }
            return false
        },
        Lie(name: "two members tell a revision differently", expected: ["members-differ"]) { evidence in
            for place in evidence.watches.indices where evidence.watches[place].key == [0] && evidence.watches[place].member != 0 {
                for number in evidence.watches[place].messages.indices {
                    guard case .events(var events, let header, let isFragment) = evidence.watches[place].messages[number].message else { continue }
                    events[0].kv.version += 1
                    evidence.watches[place].messages[number].message = .events(events, headerRevision: header, isFragment: isFragment)
                    return true
                }
            }
            return false
        },
        Lie(name: "a serializable read shows what never was", expected: ["serializable-read"]) { evidence in
            guard let index = evidence.operations.firstIndex(where: {
                guard case .range(_, _, 0, true) = $0.call, case .done(_, let found, _, _) = $0.outcome else { return false }
                return found.count > 1
            }), case .done(let revision, var found, let count, let succeeded) = evidence.operations[index].outcome else { return false }
            found.removeLast()
            evidence.operations[index].outcome = .done(revision: revision, found: found, count: count - 1, succeeded: succeeded)
            return true
        },
        Lie(name: "a member has another hash", expected: ["hash"]) { evidence in
            evidence.ends[1].hash ^= 1
            return true
        },
        Lie(name: "a member holds a key more", expected: ["content", "key-count"]) { evidence in
            evidence.ends[2].content.append(SeenKeyValue(key: Array("t/x".utf8), value: [], createRevision: 2, modRevision: 2, version: 1))
            evidence.ends[2].count += 1
            return true
        },
    ]

    @Test(.timeLimit(.minutes(5))) func theJudgeSeesEveryLie() async throws {
        let scratch = try Scratch()
        // A seed that does not compact, so that each lie has something to lie about.
        let seed = try #require((UInt64(1)...).first { Settings(seed: $0).compaction == .none })
        let run = TortureRun(Self.options("run", seed: seed, profile: .none, seconds: 1, in: scratch))
        let outcome = try await run.run()
        #expect(outcome.violations.isEmpty, "\(outcome.violations)")
        for lie in Self.lies {
            var evidence = outcome.evidence
            guard lie.tell(&evidence) else {
                Issue.record("the run has nothing for: \(lie.name)")
                continue
            }
            let found = Judge.judge(evidence, searchBudget: Self.searchBudget).violations
            #expect(found.contains { lie.expected.contains($0.invariant) }, "\(lie.name): found \(found.prefix(3))")
        }
    }

    @Test func aRunWithoutLoadSaysNothing() async throws {
        let scratch = try Scratch()
        var options = Self.options("run", seed: 7, profile: .none, seconds: 0, in: scratch)
        options.clientCount = 1
        options.warmUpSeconds = 0.5
        options.minimumRate = 1e6
        let outcome = try await TortureRun(options).run()
        #expect(outcome.violations.map(\.invariant) == ["no-load"])
        #expect(TortureReport.summary(options, outcome).hasPrefix("TORTURE-FAIL seed=7 engine=quarterdeck profile=none invariant=no-load"))
    }

    /// The same seed plans the same faults.
    @Test func aScheduleIsItsSeeds() {
        func text(_ seed: UInt64) -> String {
            Schedule.draw(seed: seed, milliseconds: 60_000, nodes: 3, profile: .all, engine: .quarterdeck).map { "\($0)" }.joined(separator: "\n")
        }
        #expect(text(5) == text(5))
        #expect(text(5) != text(6))
        // Each kind comes in some of them.
        let kinds = Set((UInt64(1)...40).flatMap { Schedule.draw(seed: $0, milliseconds: 60_000, nodes: 3, profile: .all, engine: .quarterdeck).map(\.fault.kind) })
        #expect(kinds == ["kill", "kill-all", "pause", "cut", "cut-one-way", "cut-link", "delay", "slow", "flap", "disk-slow", "disk-stuck", "disk-broken", "disk-full"])
    }

    // MARK: A disk that lies

    /// A follower comes back with an older copy of its data, while the two others hold everything. It may refuse to start; if it starts, it must
    /// catch up, and nothing that was acknowledged may be missing anywhere.
    @Test func anOlderCopyOfAMembersDataLosesNothingThatTheOthersHold() async throws {
        let scratch = try Scratch()
        let options = Self.options("run", seed: 3, profile: .none, seconds: 0, in: scratch)
        let run = TortureRun(options)
        try FileManager.default.createDirectory(atPath: options.directory, withIntermediateDirectories: true)
        let cluster = try Cluster(options, run.settings)
        do {
            try await cluster.startAll()
            try #require(await cluster.waitForLeader(withinSeconds: 30))
            let client = try Cluster.client(cluster.endpoints)
            let history = HistoryRecorder()
            var caller = Caller(client: client, endpoint: nil, memberID: .none, timeoutMilliseconds: 5_000, history: history, clock: run.clock)
            var values: [String: [UInt8]] = [:]
            func write(_ count: Int) async {
                for number in 0..<count {
                    let key = "t/k\(number % 10)", value = Array("v\(values.count).\(number).\(caller.number).\(run.clock.now())".utf8)
                    if case .done = await caller.perform(.put(key: Array(key.utf8), value: value, lease: 0)).outcome { values[key] = value }
                }
            }
            await write(60)
            let leader = try #require(await cluster.leader())
            let victim = (leader + 1) % 3
            let data = cluster.dataDirectory(victim), copy = scratch.file("copy")
            await cluster.kill(victim)
            try FileManager.default.copyItem(atPath: data, toPath: copy)
            try await cluster.start(victim)
            await write(200)
            // Now it has acknowledged what the copy does not hold.
            _ = try await run.finish(cluster, history, client)
            await cluster.kill(victim)
            try FileManager.default.removeItem(atPath: data)
            try FileManager.default.moveItem(atPath: copy, toPath: data)
            try await cluster.start(victim)
            await write(60)
            if await condition(withinSeconds: 5, { await !cluster.runs(victim) }) {
                // It noticed, and said so.
                #expect(await cluster.unexpected.count == 1)
                for (key, value) in values { #expect(try await client.get(key)?.value == value) }
            } else {
                let (revision, _, ends) = try await run.finish(cluster, history, client)
                #expect(Set(ends.map(\.hash)).count == 1 && Set(ends.map(\.content)).count == 1, "at \(revision): \(ends.map(\.hash))")
                for end in ends {
                    for (key, value) in values { #expect(end.content.first { $0.key == Array(key.utf8) }?.value == value, "\(key) on \(end.name)") }
                }
                #expect(await cluster.unexpected.isEmpty)
            }
            await client.close()
        } catch {
            await cluster.end()
            throw error
        }
        await cluster.end()
    }
}
