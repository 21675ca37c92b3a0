import Base
import Client
import Foundation
import Testing

extension Integration {
    /// Three processes, writers that never rest, and members that die.
    @Suite(.serialized) struct FailoverTests {}
}

/// Clients that write to all endpoints without pause, and a watch that must see each revision once.
final class Load {
    let acknowledged = Acknowledged()
    private let client: EtcdClient
    private let stopping = Counter()
    private var writers: [Task<Void, Never>] = []
    private let watcher: Task<[Revision], any Error>

    /// Every write of the cluster must be one of this load's, or the watch cannot account for all revisions.
    init(_ cluster: ServeCluster, writers count: Int = 3) async throws {
        var configuration = cluster.client.configuration
        configuration.maximumBackoff = .milliseconds(100)
        configuration.requestTimeout = .seconds(10)
        let client = try EtcdClient(configuration: configuration)
        self.client = client
        let watch = client.watch(prefix: "load/", startRevision: Revision(2))
        _ = try await watch.started()
        watcher = Task {
            var seen: [Revision] = []
            for try await batch in watch {
                for event in batch.events {
                    // The last write of all.
                    if event.kv.keyText == "load/end" { return seen + [event.kv.modRevision] }
                    seen.append(event.kv.modRevision)
                }
            }
            return seen
        }
        let acknowledged = self.acknowledged, stopping = self.stopping
        for writer in 0..<count {
            writers.append(Task {
                for number in 0... {
                    let key = "load/\(writer)/\(number)"
                    // Again until it is acknowledged: the same key with the same value, so a second time does no harm.
                    while stopping.value == 0 {
                        if let answer = try? await client.put(key, key) {
                            acknowledged.add(key, answer.header.revision)
                            break
                        }
                    }
                    if stopping.value > 0 { return }
                }
            })
        }
    }

    func waitForMore(_ count: Int, _ why: String, seconds: Double = 60) async throws {
        let goal = acknowledged.count + count
        try await eventually("\(count) more writes \(why), got \(acknowledged.count) of \(goal)", seconds: seconds) { acknowledged.count >= goal }
    }

    /// Overwrites one key of the load again and again.
    func writeBulk(count: Int, bytes: Int) async throws {
        let client = self.client
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<4 {
                group.addTask {
                    for number in 0..<count / 4 {
                        try await client.put(Array("load/bulk".utf8), [UInt8](repeating: UInt8(truncatingIfNeeded: writer + number), count: bytes), options: CallOptions(timeout: .seconds(30)))
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Ends the load and checks it: every acknowledged write is on every member, and the watch saw each revision once, in order.
    func finish(_ cluster: ServeCluster) async throws {
        stopping.increment()
        for writer in writers { await writer.value }
        let last = try await client.put("load/end", "end", options: CallOptions(timeout: .seconds(30))).header.revision
        let watching = watcher
        let result = try await withThrowingTaskGroup(of: [Revision]?.self) { group in
            group.addTask { try await watching.value }
            group.addTask {
                try await Task.sleep(for: .seconds(60))
                watching.cancel()
                return nil
            }
            defer { group.cancelAll() }
            return try await group.next()!
        }
        let seen = try #require(result, "the watch never saw the last write")
        let wanted = (2...last.rawValue).map { Revision($0) }
        if seen != wanted {
            let counts = Dictionary(grouping: seen, by: { $0 }).mapValues(\.count)
            let missing = wanted.filter { counts[$0] == nil }, repeated = counts.filter { $0.value > 1 }.keys.sorted()
            Issue.record("the watch saw \(seen.count) revisions of \(wanted.count); missing \(missing.prefix(5)) (\(missing.count)), repeated \(repeated.prefix(5)) (\(repeated.count))")
        }
        try await cluster.waitForEqualHashes(at: last)
        let all = acknowledged.all
        for node in cluster.nodes {
            let found = try await contents(client, "load/", of: node.endpoint)
            let lost = all.filter { found[$0.key]?.valueText != $0.key }
            #expect(lost.isEmpty, "\(node.name) lacks \(lost.count) of \(all.count) acknowledged writes, the first \(lost.prefix(3))")
        }
        await client.close()
    }
}

extension Integration.FailoverTests {
    @Test func theLeaderIsKilledUnderLoadAndNothingAcknowledgedIsLost() async throws {
        try await withServers(3) { cluster in
            let load = try await Load(cluster)
            try await load.waitForMore(200, "before the first kill")
            for round in 1...2 {
                let leader = try await cluster.waitForLeader()
                try await leader.kill()
                try await load.waitForMore(200, "after kill \(round) of the leader \(leader.name)\n\(cluster.logs.suffix(4_000))")
                let heir = try await cluster.waitForLeader()
                #expect(heir !== leader)
                // It comes back, as a follower, and catches up while the others go on.
                try leader.start()
                try await load.waitForMore(100, "while \(leader.name) is coming back")
                let now = try await cluster.client.status(of: heir.endpoint).header.revision
                try await eventually("\(leader.name) catching up\n\(leader.log.suffix(3_000))") {
                    (try? await cluster.client.status(of: leader.endpoint).header.revision).map { $0 >= now } ?? false
                }
            }
            try await load.finish(cluster)
        }
    }

    @Test func aLeaderThatIsAskedToStopHandsOverFirst() async throws {
        try await withServers(3) { cluster in
            let load = try await Load(cluster)
            try await load.waitForMore(100, "before the stop")
            let leader = try await cluster.waitForLeader()
            let term = try await cluster.client.status(of: leader.endpoint).raftTerm
            let process = try #require(leader.process)
            process.signal(SIGTERM)
            #expect(try await process.exit(seconds: 20) == 0)
            try await load.waitForMore(100, "after the stop")
            let heir = try await cluster.waitForLeader()
            #expect(heir !== leader)
            // One election, won at the first attempt: the heir was told to campaign, nobody waited for a timeout.
            #expect(try await cluster.client.status(of: heir.endpoint).raftTerm.rawValue == term.rawValue + 1)
            try leader.start()
            try await load.finish(cluster)
        }
    }

    @Test func aKilledLeaderIsReplacedLongBeforeTheTimer() async throws {
        // A timer that nobody can mistake for a quick election, on however slow a machine.
        try await withServers(3, extra: ["--election-timeout", "6000"]) { cluster in
            let load = try await Load(cluster)
            try await load.waitForMore(100, "before the kill")
            let leader = try await cluster.waitForLeader()
            let survivors = cluster.nodes.filter { $0 !== leader }
            let start = ContinuousClock.now
            try await leader.kill()
            try await load.waitForMore(100, "after the kill\n\(cluster.logs.suffix(4_000))")
            #expect(ContinuousClock.now - start < .seconds(4))
            let heir = try await cluster.waitForLeader()
            #expect(survivors.contains { $0 === heir } && heir.log.contains("is gone: its connections closed"), "\(heir.log)")
            #expect(!survivors.contains { $0.log.contains("no leader heard of for 6") || $0.log.contains("no leader heard of for 7") })
            try leader.start()
            try await load.finish(cluster)
        }
    }

    @Test func connectionsThatBreakAndAreMadeAgainCauseNoElection() async throws {
        try await withServers(3, throughRelays: true) { cluster in
            let load = try await Load(cluster)
            try await load.waitForMore(50, "before the blips")
            let leader = try await cluster.waitForLeader()
            let term = try await cluster.client.status(of: leader.endpoint).raftTerm
            for round in 1...10 {
                let before = cluster.relays.map(\.accepted)
                // Every connection between members at once, or all of those to the leader.
                for (node, relay) in zip(cluster.nodes, cluster.relays) where round % 2 == 0 || node === leader { relay.breakConnections() }
                try await eventually("members connecting again after blip \(round)") {
                    zip(cluster.nodes, zip(cluster.relays, before)).allSatisfy { node, counts in
                        !(round % 2 == 0 || node === leader) || counts.0.accepted >= counts.1 + 2
                    }
                }
                try await load.waitForMore(20, "after blip \(round)\n\(cluster.logs.suffix(4_000))")
            }
            #expect(try await cluster.waitForLeader() === leader)
            #expect(try await cluster.client.status(of: leader.endpoint).raftTerm == term)
            #expect(!cluster.logs.contains("is gone: its connections closed"))
            try await load.finish(cluster)
        }
    }

    @Test func leadershipMovesOnRequestWithinMilliseconds() async throws {
        try await withServers(3, extra: ["--election-timeout", "6000"]) { cluster in
            let load = try await Load(cluster)
            var spans: [Duration] = []
            for _ in 1...10 {
                try await load.waitForMore(20, "between moves")
                let leader = try await cluster.waitForLeader()
                let target = try #require(cluster.nodes.first { $0 !== leader })
                let id = try await cluster.client.status(of: target.endpoint).header.memberID
                let start = ContinuousClock.now
                try await cluster.client.moveLeader(to: id, options: CallOptions(endpoint: leader.endpoint))
                spans.append(ContinuousClock.now - start)
                #expect(try await cluster.client.status(of: target.endpoint).leader == id)
            }
            print("MoveLeader:", spans)
            #expect(spans.sorted()[5] < .milliseconds(500), "\(spans)")
            try await load.finish(cluster)
        }
    }

    @Test func aFollowerThatWasAwayTooLongCatchesUpFromASnapshot() async throws {
        try await withServers(3, extra: ["--snapshot-count", "100"]) { cluster in
            let load = try await Load(cluster)
            try await load.waitForMore(50, "before the follower goes")
            let leader = try await cluster.waitForLeader()
            let follower = try #require(cluster.nodes.first { $0 !== leader })
            try await follower.kill()
            // The others keep 5,000 entries or 32 MB of them for members that are behind: more than that is written now.
            try await load.writeBulk(count: 640, bytes: 64 << 10)
            try follower.start()
            try await eventually("\(follower.name) installing a snapshot\n\(cluster.logs.suffix(6_000))", seconds: 60) { follower.log.contains("snapshot installed") }
            try await load.waitForMore(100, "with \(follower.name) back")
            try await load.finish(cluster)
            // And it starts again from what it was sent.
            try await follower.kill()
            try follower.start()
            let revision = try await cluster.client.status(of: leader.endpoint).header.revision
            try await cluster.waitForEqualHashes(at: revision)
        }
    }

    @Test func withoutAQuorumNothingIsAcknowledgedAndReadsSaySo() async throws {
        try await withServers(3) { cluster in
            try await cluster.client.put("k", "v")
            let survivor = cluster.nodes[0]
            try await cluster.waitForEqualHashes(at: Revision(2))
            try await cluster.nodes[1].kill()
            try await cluster.nodes[2].kill()
            let only = try survivor.endpoint
            try await eventually("the survivor noticing that nobody leads") {
                try await cluster.client.status(of: only).leader == .none
            }
            await #expect(throws: (any Error).self) {
                try await cluster.client.put("k", "lost", options: CallOptions(timeout: .seconds(3), endpoint: only))
            }
            let refused = await #expect(throws: EtcdError.self) {
                _ = try await cluster.client.get("k", options: CallOptions(timeout: .seconds(3), endpoint: only, requiresLeader: true))
            }
            #expect(refused?.isService(.noLeader) == true, "\(String(describing: refused))")
            var query = RangeQuery(.single(Key("k")), isSerializable: true)
            #expect(try await cluster.client.range(query, options: CallOptions(endpoint: only)).kvs.map(\.valueText) == ["v"])
            try cluster.nodes[1].start()
            try await cluster.waitForLeader()
            query.isSerializable = false
            let value = try await cluster.client.range(query, options: CallOptions(timeout: .seconds(30))).kvs.first?.valueText
            #expect(value == "v" || value == "lost", "a write without an answer may happen or not, but nothing else may")
            try await cluster.client.put("k", "again", options: CallOptions(timeout: .seconds(30)))
        }
    }
}
