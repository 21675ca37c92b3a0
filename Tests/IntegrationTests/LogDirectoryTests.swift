import Base
import Client
import Foundation
import Testing

extension Integration {
    /// `--wal-dir`: the log in a directory of its own, from founding to restoring.
    @Suite(.serialized) struct LogDirectoryTests {}
}

extension Integration.LogDirectoryTests {
    private func node(_ log: String?, in scratch: Scratch) throws -> ServeNode {
        let ports = try Ports.free(2)
        return ServeNode(name: "n1", clientPort: ports[0], peerPort: ports[1], initialCluster: "n1=http://127.0.0.1:\(ports[1])", extra: log.map { ["--wal-dir", $0] } ?? [], in: scratch)
    }

    private func segments(_ directory: String) -> [String] { ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).filter { $0.hasPrefix("wal-") } }

    private func stop(_ node: ServeNode) async throws {
        let process = try #require(node.process)
        process.signal(SIGTERM)
        #expect(try await process.exit() == 0)
    }

    /// Starts it and writes, or reads what was written before.
    private func serve(_ node: ServeNode, _ body: (EtcdClient) async throws -> Void) async throws {
        try node.start()
        let client = try EtcdClient(endpoints: [node.endpointText])
        try await eventually("an answer\n\(node.log)") { (try? await client.get("x", options: CallOptions(timeout: .seconds(2)))) != nil || node.log.contains("\"msg\":\"serving\"") }
        try await body(client)
        await client.close()
    }

    private func expectRefusal(_ node: ServeNode, _ words: String..., location: SourceLocation = #_sourceLocation) async throws {
        try node.start()
        let status = try await #require(node.process).exit()
        let lines = node.log.split(separator: "\n").filter { !$0.hasPrefix("{") }
        #expect(status == 1 && lines.count == 1 && words.allSatisfy { lines[0].contains($0) }, "\(node.log)", sourceLocation: location)
    }

    private func check(_ arguments: [String], in scratch: Scratch) async throws -> (status: Int32, output: String, errors: String) {
        let process = try ChildProcess([quarterdeck, "check"] + arguments, in: scratch)
        return (try await process.exit(), process.output, process.errors)
    }

    @Test func theLogStaysInItsDirectoryAndTheMemberKeepsToIt() async throws {
        let scratch = try Scratch()
        let log = scratch.file("wal/n1")
        let node = try node(log, in: scratch)
        try await serve(node) { client in
            for number in 0..<50 { try await client.put("k/\(number)", "v\(number)", options: CallOptions(timeout: .seconds(30))) }
        }
        #expect(segments(log).count == 1 && !FileManager.default.fileExists(atPath: node.dataDirectory + "/member/log"))
        // Nobody else takes the log while it runs.
        let second = ServeNode(name: "n1", clientPort: node.clientPort, peerPort: node.peerPort, initialCluster: node.initialCluster,
                               extra: ["--wal-dir", log, "--data-dir", scratch.file("other")], in: scratch)
        try await expectRefusal(second, log, "already in use by another process")
        let running = try await check([node.dataDirectory], in: scratch)
        #expect(running.status == 2 && running.errors.contains("in use by a running node"), "\(running)")
        try await node.kill()

        let sound = try await check([node.dataDirectory], in: scratch)
        #expect(sound.status == 0 && sound.output.contains("log: 1 segment in \(log)"), "\(sound)")
        #expect(try await check([node.dataDirectory, "--wal-dir", log + "/"], in: scratch).status == 0)
        #expect(try await check([node.dataDirectory, "--wal-dir", scratch.file("elsewhere")], in: scratch).status == 2)

        // Without it, and with another, the member does not start: it would have forgotten its votes.
        node.extra = []
        try await expectRefusal(node, "start with --wal-dir \(log)")
        node.extra = ["--wal-dir", scratch.file("elsewhere")]
        try await expectRefusal(node, "start with --wal-dir \(log)")
        node.extra = ["--wal-dir", log + "/"]
        try await serve(node) { (client) async throws in #expect(try await contents(client, "k/").count == 50) }
        try await stop(node)

        // Its disk is not there.
        try FileManager.default.moveItem(atPath: log, toPath: scratch.file("moved"))
        try await expectRefusal(node, "the log of \(node.dataDirectory) was in \(log) and is there no more")
        #expect(try await check([node.dataDirectory], in: scratch).status == 2)
        // Moved on purpose; and then home again.
        node.extra = ["--wal-dir", scratch.file("moved")]
        try await serve(node) { (client) async throws in #expect(try await contents(client, "k/").count == 50) }
        try await stop(node)
        #expect(try await check([node.dataDirectory], in: scratch).output.contains(scratch.file("moved")))
        try FileManager.default.moveItem(atPath: scratch.file("moved"), toPath: node.dataDirectory + "/member/log")
        node.extra = []
        try await serve(node) { (client) async throws in #expect(try await contents(client, "k/").count == 50) }
        try await stop(node)
        #expect(!FileManager.default.fileExists(atPath: node.dataDirectory + "/member/log-directory"))
        // From here on it would be a mistake again.
        node.extra = ["--wal-dir", log]
        try await expectRefusal(node, "start without --wal-dir")
        #expect(segments(log).isEmpty)
    }

    @Test func anothersLogAndTheDataDirectoryItselfAreRefused() async throws {
        let scratch = try Scratch()
        let one = try node(scratch.file("wal"), in: scratch)
        try await serve(one) { try await $0.put("k", "v", options: CallOptions(timeout: .seconds(30))) }
        try await one.kill()
        let ports = try Ports.free(2)
        let two = ServeNode(name: "n2", clientPort: ports[0], peerPort: ports[1], initialCluster: "n2=http://127.0.0.1:\(ports[1])", extra: ["--wal-dir", scratch.file("wal")], in: scratch)
        try await expectRefusal(two, scratch.file("wal"))
        two.extra = ["--wal-dir", two.dataDirectory]
        try await expectRefusal(two, "--wal-dir must be a directory of its own")
        #expect(try await check([one.dataDirectory], in: scratch).status == 0)
    }

    @Test func aSnapshotIsRestoredWithItsLogApart() async throws {
        let scratch = try Scratch()
        let node = try node(nil, in: scratch)
        try await serve(node) { client in
            for number in 0..<20 { try await client.put("k/\(number)", "v", options: CallOptions(timeout: .seconds(30))) }
            let save = try ChildProcess([quarterdeck, "snapshot", "save", scratch.file("snapshot"), "--endpoints", node.endpointText], in: scratch)
            #expect(try await save.exit() == 0, "\(save.errors)")
        }
        try await node.kill()
        let log = scratch.file("wal")
        func restore() async throws -> (status: Int32, errors: String) {
            let process = try ChildProcess([quarterdeck, "snapshot", "restore", scratch.file("snapshot"), "--data-dir", node.dataDirectory, "--wal-dir", log, "--name", "n1",
                                            "--initial-cluster", node.initialCluster, "--initial-advertise-peer-urls", "http://127.0.0.1:\(node.peerPort)"], in: scratch)
            return (try await process.exit(), process.errors)
        }
        try FileManager.default.removeItem(atPath: node.dataDirectory)
        try FileManager.default.createDirectory(atPath: log, withIntermediateDirectories: false)
        try Data().write(to: URL(fileURLWithPath: log + "/something"))
        let refused = try await restore()
        #expect(refused.status == 1 && refused.errors.contains("wal-dir \"\(log)\" not empty") && FileManager.default.fileExists(atPath: log + "/something"), "\(refused)")
        try FileManager.default.removeItem(atPath: log + "/something")
        let restored = try await restore()
        #expect(restored.status == 0 && segments(log).count == 1 && !FileManager.default.fileExists(atPath: node.dataDirectory + "/member/log"), "\(restored)")
        try await expectRefusal(node, "start with --wal-dir \(log)")
        node.extra = ["--wal-dir", log]
        try await serve(node) { (client) async throws in #expect(try await contents(client, "k/").count == 20) }
        try await node.kill()
    }
}
