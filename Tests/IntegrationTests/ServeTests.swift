import Base
import Client
import Foundation
import Processes
import Testing

extension Integration {
    /// `quarterdeck serve` as a process: how it refuses, how it ends, and that nothing acknowledged is lost.
    @Suite(.serialized) struct ServeTests {}
}

/// What writers were told is written. Values are known from the keys: a key is written once, with its own name as value.
final class Acknowledged: @unchecked Sendable {
    // @unchecked: the list is only touched under the lock.
    private let lock = NSLock()
    private var list: [(key: String, revision: Revision)] = []
    func add(_ key: String, _ revision: Revision) { lock.withLock { list.append((key, revision)) } }
    var count: Int { lock.withLock { list.count } }
    var all: [(key: String, revision: Revision)] { lock.withLock { list } }
}

/// Everything under a prefix, page by page.
func contents(_ client: EtcdClient, _ prefix: String, of endpoint: Endpoint? = nil) async throws -> [String: KeyValue] {
    var found: [String: KeyValue] = [:]
    var query = RangeQuery(.prefix(Key(prefix)))
    query.isSerializable = endpoint != nil
    for try await page in client.pages(query, options: CallOptions(timeout: .seconds(30), endpoint: endpoint)) {
        for kv in page.kvs { found[kv.keyText] = kv }
    }
    return found
}

extension Integration.ServeTests {
    private func expectRefusal(_ arguments: [String], _ words: String, status: Int32? = nil, environment: [String: String?] = [:], in scratch: Scratch,
                               _ location: SourceLocation = #_sourceLocation) async throws {
        let process = try ChildProcess([quarterdeck] + arguments, environment: environment, directory: scratch.path, in: scratch)
        let ended = try await process.exit()
        let lines = process.errors.split(separator: "\n").filter { !$0.hasPrefix("{") }
        #expect(ended != 0 && (status == nil || ended == status), "\(arguments): status \(ended)", sourceLocation: location)
        #expect(lines.count == 1 && lines[0].hasPrefix("quarterdeck: ") && lines[0].contains(words), "\(arguments): \(lines)", sourceLocation: location)
        #expect(process.output == "", sourceLocation: location)
    }

    @Test func aBadCommandLineIsRefusedWithOneLine() async throws {
        let scratch = try Scratch()
        try await expectRefusal(["serve", "--bogus"], "--bogus", status: 64, in: scratch)
        try await expectRefusal(["serve", "--heartbeat-interval", "soon"], "--heartbeat-interval soon", status: 64, in: scratch)
        try await expectRefusal(["serve", "--election-timeout", "100"], "--election-timeout[100ms]", status: 64, in: scratch)
        try await expectRefusal(["serve", "--listen-client-urls", "http://127.0.0.1:2379"], "--advertise-client-urls is required", status: 64, in: scratch)
        try await expectRefusal(["serve", "--listen-peer-urls", "127.0.0.1:2380"], "--listen-peer-urls", status: 64, in: scratch)
        try await expectRefusal(["serve", "--initial-cluster", "other=http://127.0.0.1:2380"], "couldn't find local name \"default\"", status: 64, in: scratch)
        try await expectRefusal(["serve"], "--log-level loud", status: 64, environment: ["ETCD_LOG_LEVEL": "loud"], in: scratch)
        try await expectRefusal(["serve", "--log-level", "shrill"], "--log-level shrill", status: 64, in: scratch)
        // As etcd: what is said twice is no matter of precedence.
        try await expectRefusal(["serve", "--log-level", "info"], "conflicting environment variable ETCD_LOG_LEVEL is shadowed by corresponding command-line flag", status: 1,
                                environment: ["ETCD_LOG_LEVEL": "info"], in: scratch)
        try await expectRefusal(["sail"], "sail", status: 64, in: scratch)
        try await expectRefusal(["playground", "--nodes", "4"], "--nodes 4", status: 64, in: scratch)
    }

    @Test func takenPortsAndWrongDirectoriesAreRefusedWithOneLine() async throws {
        try await withServers { cluster in
            let node = cluster.nodes[0]
            let scratch = cluster.scratch
            let free = try Ports.free(2)
            func arguments(client: Int, peer: Int, directory: String, name: String = "n1", more: [String] = []) -> [String] {
                ["serve", "--name", name, "--data-dir", directory, "--listen-client-urls", "http://127.0.0.1:\(client)", "--advertise-client-urls",
                 "http://127.0.0.1:\(client)", "--listen-peer-urls", "http://127.0.0.1:\(peer)", "--initial-advertise-peer-urls", "http://127.0.0.1:\(peer)"] + more
            }
            try await expectRefusal(arguments(client: node.clientPort, peer: free[1], directory: scratch.file("d1")), "127.0.0.1:\(node.clientPort) is already in use", in: scratch)
            try await expectRefusal(arguments(client: free[0], peer: node.peerPort, directory: scratch.file("d2")), "127.0.0.1:\(node.peerPort) is already in use", in: scratch)
            // A second process on the same data.
            try await expectRefusal(arguments(client: free[0], peer: free[1], directory: node.dataDirectory), "already in use by another process", in: scratch)
            // Told to join, with nothing to join with: must not found a cluster of its own.
            try await expectRefusal(arguments(client: free[0], peer: free[1], directory: scratch.file("d3"), more: ["--initial-cluster-state", "existing"]),
                                    "cannot fetch cluster info from peer urls", in: scratch)
            // A file where the directory should be; a directory that nobody may read.
            try Data().write(to: URL(fileURLWithPath: scratch.file("plain")))
            try await expectRefusal(arguments(client: free[0], peer: free[1], directory: scratch.file("plain")), scratch.file("plain"), in: scratch)
            if geteuid() != 0 {
                try FileManager.default.createDirectory(atPath: scratch.file("closed"), withIntermediateDirectories: false, attributes: [.posixPermissions: 0])
                try await expectRefusal(arguments(client: free[0], peer: free[1], directory: scratch.file("closed")), scratch.file("closed"), in: scratch)
            }
            try await cluster.client.put("k", "v")
            try await node.kill()
            // Its own member finds everything as it was.
            try node.start()
            #expect(try await cluster.client.get("k", options: CallOptions(timeout: .seconds(30)))?.valueText == "v")
        }
    }

    @Test func aDamagedLogIsReportedAndNothingIsServed() async throws {
        try await withServers { cluster in
            let node = cluster.nodes[0]
            for number in 0..<200 { try await cluster.client.put("k/\(number)", String(repeating: "v", count: 500)) }
            try await node.kill()
            let logs = node.dataDirectory + "/member/log"
            let segment = try #require(try FileManager.default.contentsOfDirectory(atPath: logs).filter { $0.hasSuffix(".log") }.sorted().last)
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: logs + "/" + segment))
            try file.seek(toOffset: 20_000) // well before the end: not a torn tail
            try file.write(contentsOf: Data(repeating: 0xa5, count: 64))
            try file.close()
            try await expectRefusal(node.arguments, segment, in: cluster.scratch)
        }
    }

    @Test(arguments: [SIGTERM, SIGINT]) func aSignalEndsItCleanlyWithTheDataIntact(signal: Int32) async throws {
        try await withServers { cluster in
            let node = cluster.nodes[0]
            for number in 0..<50 { try await cluster.client.put("k/\(number)", "v\(number)") }
            let before = try await cluster.client.hashKV(of: node.endpoint)
            let process = try #require(node.process)
            process.signal(signal)
            #expect(try await process.exit(seconds: 15) == 0)
            #expect(LoopbackPort.isFree(node.clientPort) && LoopbackPort.isFree(node.peerPort))
            try node.start()
            try await cluster.waitForLeader()
            let after = try await cluster.client.hashKV(of: node.endpoint)
            #expect(after.hash == before.hash && after.header.revision == before.header.revision && before.header.revision == Revision(51))
            #expect(try await contents(cluster.client, "k/").count == 50)
        }
    }

    @Test func environmentVariablesStandInForFlags() async throws {
        let scratch = try Scratch()
        let ports = try Ports.free(2)
        let client = "http://127.0.0.1:\(ports[0])", peer = "http://127.0.0.1:\(ports[1])"
        let process = try ChildProcess([quarterdeck, "serve", "--name", "flagged"], environment: [
            "ETCD_DATA_DIR": scratch.file("from-environment"), "ETCD_LISTEN_CLIENT_URLS": client, "ETCD_ADVERTISE_CLIENT_URLS": client,
            "ETCD_LISTEN_PEER_URLS": peer, "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer, "ETCD_INITIAL_CLUSTER": "flagged=\(peer)", "ETCD_INITIAL_CLUSTER_TOKEN": "etcd-cluster",
            "ETCD_MAX_TXN_OPS": "2",
        ], in: scratch)
        let connection = try EtcdClient(endpoints: [client])
        try await connection.put("k", "v", options: CallOptions(timeout: .seconds(30)))
        let members = try await connection.members().members
        #expect(members.map(\.name) == ["flagged"] && members.map(\.clientURLs) == [[client]] && members.map(\.peerURLs) == [[peer]])
        #expect(FileManager.default.fileExists(atPath: scratch.file("from-environment") + "/member"))
        let three = Transaction(then: (0..<3).map { .put(PutCommand(Array("t\($0)".utf8), [])) })
        await #expect(throws: EtcdError.self) { try await connection.txn(three) }
        await connection.close()
        process.signal(SIGTERM)
        #expect(try await process.exit() == 0)
    }

    @Test func plainHTTPOnTheClientPortTellsHealthVersionAndMetrics() async throws {
        try await withServers { cluster in
            try await cluster.client.put("k", "v")
            func page(_ path: String) async throws -> String {
                let url = try #require(URL(string: "http://\(cluster.nodes[0].endpointText)\(path)"))
                let process = try ChildProcess(["curl", "-sS", "--max-time", "10", url.absoluteString], in: cluster.scratch)
                #expect(try await process.exit() == 0, "\(process.errors)")
                return process.output
            }
            #expect(try JSON(try await page("/health"))["health"].text == "true")
            #expect(try JSON(try await page("/version"))["etcdserver"].text?.hasPrefix("3.5") == true)
            let metrics = try await page("/metrics")
            for line in ["etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_server_proposals_applied_total", "etcd_disk_wal_fsync_duration_seconds_count",
                         "etcd_disk_backend_commit_duration_seconds_count", "etcd_mvcc_db_total_size_in_bytes", "etcd_network_client_grpc_received_bytes_total"] {
                #expect(metrics.contains("\n" + line), "no \(line)")
            }
        }
    }

    /// Kills the only member at a moment chosen by the seed, several times on the same data.
    @Test(arguments: [UInt64(1), 2, 3]) func noAcknowledgedWriteIsLostWhenItIsKilled(seed: UInt64) async throws {
        print("noAcknowledgedWriteIsLostWhenItIsKilled: seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        try await withServers(extra: ["--snapshot-count", "100"]) { cluster in
            let node = cluster.nodes[0]
            let acknowledged = Acknowledged()
            for round in 0..<3 {
                let goal = acknowledged.count + 50 + Int(generator.next() % 250)
                let client = cluster.client
                let stopped = Counter()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for writer in 0..<4 {
                        group.addTask {
                            // Until the server is killed under it.
                            for number in 0... {
                                let key = "w/\(round)/\(writer)/\(number)"
                                guard let answer = try? await client.put(key, key, options: CallOptions(timeout: .seconds(5))) else { break }
                                acknowledged.add(key, answer.header.revision)
                                if stopped.value > 0 { break }
                            }
                        }
                    }
                    try await eventually("\(goal) writes\n\(node.log.suffix(2_000))", seconds: 60) { acknowledged.count >= goal }
                    try await node.kill()
                    stopped.increment()
                    group.cancelAll()
                    try await group.waitForAll()
                }
                try node.start()
                try await cluster.waitForLeader()
                let found = try await contents(client, "w/")
                let lost = acknowledged.all.filter { found[$0.key]?.valueText != $0.key || found[$0.key]?.modRevision != $0.revision }
                #expect(lost.isEmpty, "seed \(seed), round \(round): \(lost.count) of \(acknowledged.count) acknowledged writes are gone, the first \(lost.prefix(3))")
            }
        }
    }
}
