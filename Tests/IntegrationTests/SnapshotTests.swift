import Base
import Client
import Foundation
import Testing

extension Integration {
    /// Snapshots go both ways: ours to a real etcd, a real etcd's to ours, with etcd's own tools in between.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct SnapshotTests {}
}

/// All that must survive a snapshot, as a client sees it.
private struct Picture: Equatable {
    var revision: Revision
    var keys: [KeyValue]
    /// As of some revisions before.
    var earlier: [[KeyValue]]
    var hash: UInt32
    var compactRevision: Revision
    var leases: [LeaseID]
    /// Granted seconds and keys, by lease.
    var leaseFacts: [String]
    var alarms: Set<Alarm>

    /// What is not the same, in words.
    func differences(from other: Picture) -> [String] {
        var found: [String] = []
        func compare<T: Equatable>(_ what: String, _ field: KeyPath<Picture, T>) {
            if self[keyPath: field] != other[keyPath: field] { found.append("\(what): \(String(describing: self[keyPath: field]).prefix(600)) instead of \(String(describing: other[keyPath: field]).prefix(600))") }
        }
        compare("revision", \.revision)
        compare("keys", \.keys)
        compare("earlier keys", \.earlier)
        compare("hash", \.hash)
        compare("compact revision", \.compactRevision)
        compare("leases", \.leases)
        compare("keys of leases", \.leaseFacts)
        compare("alarms", \.alarms)
        return found
    }

    static func take(_ client: EtcdClient) async throws -> Picture {
        let options = CallOptions(timeout: .seconds(60))
        func all(at revision: Revision) async throws -> [KeyValue] {
            var query = RangeQuery(.from(Key([0])))
            query.revision = revision
            var found: [KeyValue] = []
            for try await page in client.pages(query, pageSize: 200, options: options) { found += page.kvs }
            return found
        }
        let revision = try await client.range(RangeQuery(.single(Key("x"))), options: options).header.revision
        let hash = try await client.hashKV(revision: revision, options: options)
        let leases = try await client.leases(options: options).sorted { $0.rawValue < $1.rawValue }
        var facts: [String] = []
        for lease in leases {
            let info = try await client.lease(lease, withKeys: true, options: options)
            facts.append("\(lease.rawValue) \(info.grantedSeconds) \(info.keys.map { String(decoding: $0, as: UTF8.self) }.sorted())")
        }
        var earlier: [[KeyValue]] = []
        let oldest = max(hash.compactRevision.rawValue, 1)
        for old in stride(from: oldest, to: revision.rawValue, by: Int(max(1, (revision.rawValue - oldest) / 4))) { earlier.append(try await all(at: Revision(old))) }
        return Picture(revision: revision, keys: try await all(at: revision), earlier: earlier, hash: hash.hash, compactRevision: hash.compactRevision,
                       leases: leases, leaseFacts: facts, alarms: Set(try await client.alarms(options: options)))
    }
}

/// A real etcd on a data directory.
private final class RealMember {
    let process: ChildProcess
    let endpoint: String
    let client: EtcdClient

    init(_ release: EtcdRelease, _ dataDirectory: String, clientPort: Int, peerPort: Int, in scratch: Scratch) async throws {
        endpoint = "127.0.0.1:\(clientPort)"
        let client = "http://127.0.0.1:\(clientPort)", peer = "http://127.0.0.1:\(peerPort)"
        process = try ChildProcess([
            release.server(), "--name", "m1", "--data-dir", dataDirectory, "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "m1=\(peer)", "--log-level", "error",
            "--unsafe-no-fsync", "--quota-backend-bytes", "\(4 << 30)",
        ], in: scratch)
        self.client = try patientClient([endpoint])
        _ = try await self.client.get("x", options: CallOptions(timeout: .seconds(60)))
    }

    func end() async throws {
        await client.close()
        try await process.killNow()
    }
}

/// With time for a machine that does other things too.
private func patientClient(_ endpoints: [String]) throws -> EtcdClient {
    var configuration = ClientConfiguration(endpoints: try endpoints.map { try Endpoint($0) })
    configuration.dialTimeout = .seconds(1)
    configuration.requestTimeout = .seconds(60)
    return try EtcdClient(configuration: configuration)
}

/// The result of a program that was waited for, and the most memory that it had while it ran.
private struct Run {
    var status: Int32
    var output: String
    var errors: String
    var peakBytes = 0
}

private func run(_ command: [String], in scratch: Scratch, seconds: Double = 120) async throws -> Run {
    let process = try ChildProcess(command, environment: ["ETCDCTL_API": "3"], in: scratch)
    var peak = 0
    try await eventually("end of \(command); it wrote:\n\(process.output)\(process.errors)", seconds: seconds) {
        peak = max(peak, memory(process.pid, "VmHWM") ?? 0)
        return process.status != nil
    }
    return Run(status: process.status!, output: process.output, errors: process.errors, peakBytes: peak)
}

/// A line of /proc/PID/status, in bytes; nil where there is none.
private func memory(_ process: pid_t, _ name: String) -> Int? {
    guard let text = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8),
          let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name + ":") }) else { return nil }
    return line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
}

private func expectSuccess(_ run: Run, _ location: SourceLocation = #_sourceLocation) throws {
    guard run.status == 0 else { throw Late(description: "status \(run.status) at \(location.line):\n\(run.output)\(run.errors)") }
}

/// History worth keeping: versions, deletions, keys that came back, transactions, leases, a compaction, odd bytes, a value over several pages.
private func fill(_ client: EtcdClient) async throws {
    for n in 0..<300 { try await client.put("k/\(n % 120)", String(repeating: "v\(n) ", count: 1 + n % 50)) }
    for n in stride(from: 0, to: 120, by: 7) { try await client.delete("k/\(n)") }
    for n in stride(from: 0, to: 120, by: 21) { try await client.put("k/\(n)", "again") }
    try await client.txn(Transaction(then: (0..<40).map { .put(PutCommand(Array("txn/\($0)".utf8), [UInt8($0)])) }))
    try await client.put([0, 255, 10], (0..<70_000).map { UInt8(truncatingIfNeeded: $0) })
    try await client.put("empty", "")
    for (id, ttl) in [(1, 10_000), (0x7fff_ffff_ffff_fff0, 20_000), (5, 30_000)] as [(Int64, Int64)] { // etcd itself forgets negative ones when it starts
        let lease = try await client.grantLease(ttlSeconds: ttl, id: LeaseID(id)).id
        for n in 0..<3 { try await client.put("leased/\(id)/\(n)", "x", lease: lease) }
    }
    let revision = try await client.get("empty")!.modRevision
    try await client.compact(Revision(revision.rawValue - 150), isPhysical: true)
    for n in 0..<50 { try await client.put("late/\(n)", "\(n)") }
    try await client.delete("late/7")
}

extension Integration.SnapshotTests {
    /// `etcdutl snapshot`, which in 3.4 is etcdctl's.
    private func etcdTool(_ arguments: [String], _ release: EtcdRelease, in scratch: Scratch) async throws -> Run {
        try await run([release == .v3_4 ? release.etcdctl() : EtcdTools.path("etcdutl"), "snapshot"] + arguments, in: scratch)
    }
    private func ours(_ arguments: [String], in scratch: Scratch) async throws -> Run { try await run([quarterdeck, "snapshot"] + arguments, in: scratch) }

    /// Both programs say the same of a file, in every form.
    private func expectEqualStatus(_ file: String, _ release: EtcdRelease, in scratch: Scratch) async throws {
        for format in ["simple", "json", "fields", "table"] {
            let theirs = try await etcdTool(["status", file, "-w", format], release, in: scratch)
            let mine = try await ours(["status", file, "-w", format], in: scratch)
            try expectSuccess(theirs)
            try expectSuccess(mine)
            #expect(mine.output == theirs.output)
        }
    }

    /// Restores with etcd's own tool and hands over a real etcd that runs on the result.
    private func withRealMember<R>(_ release: EtcdRelease = .v3_5, from file: String, in scratch: Scratch, _ body: (RealMember) async throws -> R) async throws -> R {
        let ports = try Ports.free(2)
        let directory = scratch.file("real-\(ports[0])")
        let peer = "http://127.0.0.1:\(ports[1])"
        try expectSuccess(try await etcdTool(["restore", file, "--name", "m1", "--data-dir", directory, "--initial-cluster", "m1=\(peer)", "--initial-advertise-peer-urls", peer],
                                           release, in: scratch))
        let member = try await RealMember(release, directory, clientPort: ports[0], peerPort: ports[1], in: scratch)
        do {
            let result = try await body(member)
            try await member.end()
            return result
        } catch {
            try? await member.end()
            throw error
        }
    }

    /// Restores `count` members with our command, and hands over the cluster that serves the result.
    private func withOurs<R>(_ count: Int, from file: String, flags: [String] = [], in scratch: Scratch, _ body: (EtcdClient, [ServeNode]) async throws -> R) async throws -> R {
        let ports = try Ports.free(2 * count)
        let cluster = (0..<count).map { "n\($0 + 1)=http://127.0.0.1:\(ports[2 * $0 + 1])" }.joined(separator: ",")
        let nodes = (0..<count).map {
            ServeNode(name: "n\($0 + 1)", clientPort: ports[2 * $0], peerPort: ports[2 * $0 + 1], initialCluster: cluster,
                      extra: ["--initial-cluster-token", "restored", "--quota-backend-bytes", "\(4 << 30)"], in: scratch)
        }
        for node in nodes {
            try? FileManager.default.removeItem(atPath: node.dataDirectory)
            try expectSuccess(try await ours(["restore", file, "--name", node.name, "--data-dir", node.dataDirectory, "--initial-cluster", cluster,
                                              "--initial-cluster-token", "restored", "--initial-advertise-peer-urls", "http://127.0.0.1:\(node.peerPort)"] + flags, in: scratch))
            try node.start()
        }
        let client = try patientClient(nodes.map(\.endpointText))
        func end() async {
            await client.close()
            for node in nodes { try? await node.kill() }
        }
        do {
            _ = try await client.get("x", options: CallOptions(timeout: .seconds(60)))
            let result = try await body(client, nodes)
            await end()
            return result
        } catch {
            print("logs of the servers:\n\(nodes.map(\.log).joined(separator: "\n").suffix(8_000))")
            await end()
            throw error
        }
    }

    @Test(arguments: EtcdRelease.allCases) func aRealEtcdStartsFromOurSnapshot(_ release: EtcdRelease) async throws {
        try await withServers { cluster in
            let scratch = cluster.scratch
            let client = try patientClient(cluster.endpoints)
            try await fill(client)
            let member = try await client.members().members[0]
            _ = try await client.raise(Alarm(member: member.id, kind: .noSpace))
            let before = try await Picture.take(client)
            await client.close()
            #expect(before.leases.count == 3 && before.alarms.count == 1 && before.compactRevision.rawValue > 0)

            let file = scratch.file("ours.db"), same = scratch.file("ours-too.db")
            try await cluster.etcdctl("snapshot", "save", file)
            let saved = try await ours(["save", same, "--endpoints", cluster.endpoints[0]], in: scratch)
            try expectSuccess(saved)
            #expect(saved.output.hasPrefix("Snapshot saved at \(same)"))
            // Nothing but what is left of leases was written in between.
            func counts(_ file: String) async throws -> [Int64?] {
                let status = try JSON(try await ours(["status", file, "-w", "json"], in: scratch).output)
                return [status["revision"].number, status["totalKey"].number]
            }
            let theirs = try await counts(file), mine = try await counts(same)
            #expect(theirs == mine)
            #expect(!FileManager.default.fileExists(atPath: same + ".part"))
            try await expectEqualStatus(file, release, in: scratch)

            try await withRealMember(release, from: file, in: scratch) { real in
                let there = try await Picture.take(real.client)
                #expect(there.differences(from: before) == [])
                // It lives: the alarm can be disarmed, and writing goes on where it was.
                for alarm in try await real.client.alarms() { _ = try await real.client.disarm(alarm) }
                #expect(try await real.client.put("after", "1").header.revision.rawValue == before.revision.rawValue + 1)
            }
        }
    }

    @Test(arguments: EtcdRelease.allCases, [1, 3]) func ourMembersStartFromARealEtcdsSnapshot(_ release: EtcdRelease, count: Int) async throws {
        try await withRealEtcd(release) { endpoint, scratch in
            let client = try patientClient([endpoint])
            try await fill(client)
            // Users and roles, with authentication off.
            try await client.addUser("root", password: "secret")
            try await client.addUser("guest", password: nil)
            try await client.addRole("reader")
            try await client.grantPermission(Permission(.read, .prefix(Key("k/"))), to: "reader")
            try await client.grantRole("reader", to: "guest")
            let before = try await Picture.take(client)
            let file = scratch.file("real.db")
            try expectSuccess(try await ours(["save", file, "--endpoints", endpoint], in: scratch))
            await client.close()
            try await expectEqualStatus(file, release, in: scratch)

            let again = scratch.file("again.db")
            try await withOurs(count, from: file, in: scratch) { client, nodes in
                let restored = try await Picture.take(client)
                #expect(restored.differences(from: before) == [])
                let members = try await client.members().members
                #expect(members.count == count && Set(members.flatMap(\.peerURLs)) == Set(nodes.map { "http://127.0.0.1:\($0.peerPort)" }))
                #expect(try await client.put("after", "1").header.revision.rawValue == before.revision.rawValue + 1)
                let revision = Revision(before.revision.rawValue + 1)
                for node in nodes {
                    try await eventually("\(node.name) has it") { try await client.status(of: node.endpoint).header.revision >= revision }
                    #expect(try await client.hashKV(of: node.endpoint, revision: before.revision).hash == before.hash)
                }
                // Ended and started again: the log that the restore made bears it.
                try await nodes[0].kill()
                try nodes[0].start()
                try await eventually("\(nodes[0].name) is back") { (try? await client.status(of: nodes[0].endpoint).header.revision) ?? .zero >= revision }
                try expectSuccess(try await ours(["save", again, "--endpoints", nodes[count - 1].endpointText], in: scratch))
            }
            // And back: what is in the tables that no client of ours reads was carried through.
            try await withRealMember(release, from: again, in: scratch) { real in
                #expect(try await real.client.get("after")?.valueText == "1")
                #expect(try await real.client.hashKV(revision: before.revision).hash == before.hash)
                #expect(try await real.client.users().sorted() == ["guest", "root"])
                #expect(try await real.client.roles(of: "guest") == ["reader"])
                #expect(try await real.client.permissions(of: "reader") == [Permission(.read, .prefix(Key("k/")))])
                try await real.client.grantRole("root", to: "root")
                try await real.client.enableAuth()
                // The password's hash is the one that was set.
                let ctl = Etcdctl([real.endpoint], scratch, release)
                #expect(try await ctl("get", "after", "--user", "root:secret", "--print-value-only") == "1\n")
            }
        }
    }

    @Test func aSnapshotHoldsWhatWasAcknowledgedAndNothingHalf() async throws {
        try await withServers { cluster in
            let scratch = cluster.scratch
            let acknowledged = Counter(), stops = Counter()
            // One writer: pairs of keys that are always equal, in one transaction.
            let client = cluster.client
            let writer = Task {
                while stops.value == 0 {
                    let n = acknowledged.value + 1
                    let value = Array("\(n)".utf8)
                    try await client.txn(Transaction(then: [.put(PutCommand(Array("a".utf8), value)), .put(PutCommand(Array("z".utf8), value)),
                                                             .put(PutCommand(Array("n/\(n)".utf8), value))]))
                    acknowledged.increment()
                }
            }
            var floors: [Int] = []
            for round in 0..<4 {
                let goal = acknowledged.value + 20
                try await eventually("writes") { acknowledged.value >= goal }
                floors.append(acknowledged.value)
                try expectSuccess(try await ours(["save", scratch.file("round-\(round).db"), "--endpoints", cluster.endpoints[0]], in: scratch))
            }
            stops.increment()
            try await writer.value
            for (round, floor) in floors.enumerated() where round % 3 == 0 {
                try await withOurs(1, from: scratch.file("round-\(round).db"), in: scratch) { client, _ in
                    let a = try #require(try await client.get("a").flatMap { Int($0.valueText) })
                    #expect(try await client.get("z")?.valueText == "\(a)")
                    #expect(a >= floor, "acknowledged \(floor) before the snapshot began, it holds \(a)")
                    #expect(try await client.range(RangeQuery(.prefix(Key("n/")), countOnly: true)).count == Int64(a))
                }
            }
        }
    }

    @Test func aRaisedRevisionCountsAsCompacted() async throws {
        try await withServers { cluster in
            let scratch = cluster.scratch
            let client = try patientClient(cluster.endpoints)
            try await fill(client)
            let before = try await Picture.take(client)
            await client.close()
            let file = scratch.file("a.db"), raised = scratch.file("b.db")
            try await cluster.etcdctl("snapshot", "save", file)
            let revision = Revision(before.revision.rawValue + 1_000)
            try await withOurs(1, from: file, flags: ["--bump-revision", "1000", "--mark-compacted"], in: scratch) { client, nodes in
                #expect(try await client.range(RangeQuery(.single(Key("x")))).header.revision == revision)
                let all = try await contents(client, "")
                #expect(all.count == before.keys.count && before.keys.allSatisfy { all[$0.keyText] == $0 })
                var watch = client.watch(prefix: "", startRevision: before.revision).makeAsyncIterator()
                do {
                    _ = try await watch.next()
                    Issue.record("a watch from before was not told of the compaction")
                } catch { #expect(error as? EtcdError == .compacted(revision)) }
                do {
                    _ = try await client.range(RangeQuery(.single(Key("empty")), revision: before.revision))
                    Issue.record("history from before is still there")
                } catch { #expect(error as? EtcdError == .service(.compacted)) }
                #expect(try await client.put("after", "1").header.revision.rawValue == revision.rawValue + 1)
                try expectSuccess(try await ours(["save", raised, "--endpoints", nodes[0].endpointText], in: scratch))
            }
            try await withRealMember(from: raised, in: scratch) { real in
                let found = try await contents(real.client, "")
                #expect(found.count == before.keys.count + 1 && before.keys.allSatisfy { found[$0.keyText] == $0 })
                #expect(try await real.client.get("after")?.modRevision.rawValue == revision.rawValue + 1)
            }
        }
    }

    @Test func whatCannotBeRestoredIsRefusedWithOneLine() async throws {
        try await withServers { cluster in
            let scratch = cluster.scratch
            let client = try patientClient(cluster.endpoints)
            try await fill(client)
            await client.close()
            let file = scratch.file("good.db")
            try await cluster.etcdctl("snapshot", "save", file)
            let good = try Data(contentsOf: URL(fileURLWithPath: file))
            func damaged(_ name: String, _ change: (inout Data) -> Void) throws -> String {
                var data = good
                change(&data)
                try data.write(to: URL(fileURLWithPath: scratch.file(name)))
                return scratch.file(name)
            }
            func expect(_ arguments: [String], _ words: String, status: Int32 = 1, _ location: SourceLocation = #_sourceLocation) async throws {
                let result = try await ours(arguments, in: scratch)
                #expect(result.status == status && result.output == "", "\(arguments): \(result)", sourceLocation: location)
                let lines = result.errors.split(separator: "\n")
                #expect(lines.count == 1 && lines[0].hasPrefix("quarterdeck: ") && lines[0].contains(words), "\(arguments): \(lines)", sourceLocation: location)
            }
            let target = scratch.file("target")
            let into = ["--data-dir", target]
            let flipped = try damaged("flipped.db") { $0[$0.count / 2] ^= 1 }
            try await expect(["restore", flipped] + into, "expected sha256")
            let bare = try damaged("bare.db") { $0.removeLast(32) }
            try await expect(["restore", bare] + into, "snapshot missing hash but --skip-hash-check=false")
            let short = try damaged("short.db") { $0.removeLast(8_192 + 32) }
            try await expect(["restore", short, "--skip-hash-check"] + into, "the database is cut off")
            try await expect(["status", short], "the database is cut off")
            // The header of a page, with the hash check turned off.
            let torn = try damaged("torn.db") { for at in 0..<16 { $0[4_096 * 3 + at] = 0xee } }
            try await expect(["restore", torn, "--skip-hash-check"] + into, "the database is damaged")
            try await expect(["status", torn], "the database is damaged")
            let text = try damaged("text.db") { $0 = Data("this is no database".utf8) }
            try await expect(["restore", text, "--skip-hash-check"] + into, "no bbolt database")
            try await expect(["status", text], "no bbolt database")
            try await expect(["status", scratch.file("nothing.db")], "no such file")
            #expect(!FileManager.default.fileExists(atPath: target), "a refused restore leaves nothing")
            try await expect(["restore", file, "--bump-revision", "5"] + into, "--mark-compacted required", status: 64)
            try await expect(["restore", file, "--mark-compacted"] + into, "--mark-compacted required", status: 64)
            try await expect(["restore", file, "--name", "x", "--initial-cluster", "y=http://localhost:1"] + into, "couldn't find local name \"x\"", status: 64)
            try await expect(["restore", file, "--data-dir", cluster.nodes[0].dataDirectory], "not empty or could not be read")
            // As a real etcd's file in use, copied: without a hash.
            let taken = try await ours(["restore", bare, "--skip-hash-check"] + into, in: scratch)
            try expectSuccess(taken)
            try await expect(["restore", file] + into, "not empty or could not be read")
            // Nobody there; and nothing is left of it.
            try await expect(["save", scratch.file("none.db"), "--endpoints", "127.0.0.1:1", "--command-timeout", "1s"], "snapshot: ")
            #expect(!FileManager.default.fileExists(atPath: scratch.file("none.db.part")))
        }
    }

    /// etcd's names may be longer than ours.
    @Test func aNameThatIsTooLongIsSaidAndLeavesNothing() async throws {
        try await withRealEtcd { endpoint, scratch in
            let client = try patientClient([endpoint])
            try await client.addRole(String(repeating: "r", count: 512))
            await client.close()
            let file = scratch.file("long.db"), target = scratch.file("target")
            try expectSuccess(try await ours(["save", file, "--endpoints", endpoint], in: scratch))
            let result = try await ours(["restore", file, "--data-dir", target], in: scratch)
            #expect(result.status == 1 && result.errors.contains("a name in authRoles has 512 bytes"), "\(result)")
            #expect(!FileManager.default.fileExists(atPath: target))
        }
    }

    @Test func aLargeDatabaseGoesBothWaysInLittleMemory() async throws {
        let valueBytes = 100_000, count = 1_300
        let total = valueBytes * count
        try await withRealEtcd { endpoint, scratch in
            let client = try patientClient([endpoint])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for worker in 0..<8 {
                    group.addTask {
                        for n in stride(from: worker, to: count, by: 8) {
                            try await client.put(Array("large/\(n)".utf8), [UInt8](repeating: UInt8(truncatingIfNeeded: n), count: valueBytes), options: CallOptions(timeout: .seconds(60)))
                        }
                    }
                }
                try await group.waitForAll()
            }
            let revision = try await client.range(RangeQuery(.single(Key("x")))).header.revision
            let hash = try await client.hashKV(revision: revision, options: CallOptions(timeout: .seconds(60))).hash
            await client.close()
            let file = scratch.file("large.db"), back = scratch.file("back.db")
            let saved = try await ours(["save", file, "--endpoints", endpoint], in: scratch)
            try expectSuccess(saved)
            let size = try #require(try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int)
            #expect(size > total)
            let status = try await ours(["status", file], in: scratch)
            try expectSuccess(status)
            // What the restore needs, without the mapped file, is a bound that does not depend on the file.
            let bound = 64 << 20
            try await withOurs(1, from: file, in: scratch) { client, nodes in
                #expect(try await client.hashKV(revision: revision, options: CallOptions(timeout: .seconds(60))).hash == hash)
                let server = nodes[0].process!.pid
                let idle = try #require(memory(server, "RssAnon"))
                var peak = idle
                let save = try ChildProcess([quarterdeck, "snapshot", "save", back, "--endpoints", nodes[0].endpointText], in: scratch)
                try await eventually("the snapshot", seconds: 120) {
                    peak = max(peak, memory(server, "RssAnon") ?? 0)
                    return save.status != nil
                }
                #expect(save.status == 0, "\(save.errors)")
                print("snapshot of \(size >> 20) MiB: save of etcd's \(saved.peakBytes >> 20) MiB, status \(status.peakBytes >> 20) MiB, server's private memory \(idle >> 20) -> \(peak >> 20) MiB")
                #expect(peak - idle < bound, "the server needed \((peak - idle) >> 20) MiB")
                // Clients that take a snapshot and do not read it: a bounded number, and nobody else suffers.
                var iterators = (0..<4).map { _ in client.snapshot().makeAsyncIterator() }
                for at in iterators.indices { _ = try await iterators[at].next() }
                do {
                    for try await _ in client.snapshot() {}
                    Issue.record("a fifth snapshot at once was not refused")
                } catch { #expect(error as? EtcdError == .service(.requestTooManyRequests)) }
                try await client.put("meanwhile", "1")
                iterators = []
                try await eventually("room for another snapshot") {
                    var size = 0
                    do { for try await piece in client.snapshot() { size += piece.bytes.count } } catch EtcdError.service(.requestTooManyRequests) { return false }
                    return size > total
                }
            }
            let restored = try await ours(["restore", back, "--data-dir", scratch.file("measured")], in: scratch)
            try expectSuccess(restored)
            print("restore: \(restored.peakBytes >> 20) MiB")
            for (what, peakBytes) in [("save", saved.peakBytes), ("status", status.peakBytes), ("restore", restored.peakBytes)] {
                #expect(peakBytes > 0 && peakBytes < bound + (32 << 20), "\(what) needed \(peakBytes >> 20) MiB")
            }
            try await withRealMember(from: back, in: scratch) { real in
                let theirs = try await real.client.hashKV(revision: revision, options: CallOptions(timeout: .seconds(60))).hash
                #expect(theirs == hash)
                let counted = try await real.client.range(RangeQuery(.prefix(Key("large/")), countOnly: true)).count
                #expect(counted == Int64(count))
            }
        }
    }
}
