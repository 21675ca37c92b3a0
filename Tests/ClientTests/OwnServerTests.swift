import Base
import Client
import Foundation
import Testing

/// The contract against three of our own nodes, each `quarterdeck serve` in a process.
@Suite(.serialized) struct OwnServerTests {
    @Test func allCases() async throws {
        let nodes = try await OwnNodes(3)
        defer { nodes.stop() }
        let client = try EtcdClient(endpoints: nodes.endpoints)
        // Up and with a leader.
        try await client.put("ready", "yes", options: CallOptions(timeout: .seconds(30)))
        await client.close()
        for test in ContractCase.all {
            do {
                try await test.run(nodes.endpoints)
            } catch {
                Issue.record("\(test.name): \(error)")
            }
        }
        try await ContractCase.compaction.run(nodes.endpoints)
        try await ContractCase.authentication.run(nodes.endpoints)
    }

    @Test func aNodeTellsWhatItsConsensusDoes() async throws {
        let nodes = try await OwnNodes(1)
        defer { nodes.stop() }
        let client = try EtcdClient(endpoints: nodes.endpoints)
        try await client.put("ready", "yes", options: CallOptions(timeout: .seconds(30)))
        let endpoint = client.configuration.endpoints[0]
        var position: ObserverPosition?
        var events: [ObservedEvent] = []
        var state: ObservedState?
        for try await update in client.observe(endpoint) {
            events += update.events
            position = update.position
            state = update.state
            break
        }
        // An observer that comes late is told of the election all the same.
        let kinds = events.map(\.kind)
        #expect(kinds.contains(.elected(votes: 1, voters: 1)) && kinds.contains(.roleChanged(.leader)))
        #expect(kinds.contains { if case .firstCommit = $0 { true } else { false } })
        let first = try #require(state)
        #expect(first.role == .leader && first.leader == first.vote && first.term.rawValue >= 1 && first.timerLeft == nil && first.peers.isEmpty)
        #expect(abs(Int64(Date().timeIntervalSince1970 * 1e6) - first.time.wallMicroseconds) < 30_000_000)
        // Taken up again it repeats nothing, and tells what is written.
        let last = position
        try await within(.seconds(20)) {
            var hasWritten = false
            for try await update in client.observe(endpoint, after: last) {
                #expect(update.events.isEmpty && update.missed == 0)
                if !hasWritten {
                    hasWritten = true
                    try await client.put("more", "yes")
                } else if let state = update.state, state.applied > first.applied {
                    #expect(state.stages.contains { $0.stage == .quorumWait && $0.buckets.reduce(0) { $0 + $1.count } >= 1 } )
                    return
                }
            }
        }
        let error = await failure { for try await _ in client.observe(try Endpoint("127.0.0.1:1")) {} } as? EtcdError
        #expect(error?.isUnimplemented == false)
        await client.close()
    }

    @Test func aSnapshotStreams() async throws {
        let nodes = try await OwnNodes(1)
        defer { nodes.stop() }
        let client = try EtcdClient(endpoints: nodes.endpoints)
        try await client.put("ready", "yes", options: CallOptions(timeout: .seconds(30)))
        var size = 0
        for try await piece in client.snapshot() { size += piece.bytes.count }
        // At least four pages of the file and its checksum.
        #expect(size > 16_384 + 31)
        await client.close()
    }
}

/// Processes on free ports, in a directory of their own.
private final class OwnNodes {
    let endpoints: [String]
    private var processes: [Process] = []
    private let directory: URL

    init(_ count: Int) async throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("quarterdeck-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        // Ports that were free a moment ago: all are held before the first is given back.
        let holders = (0..<2 * count).map { _ in ScriptedServer() }
        for holder in holders { try await holder.start() }
        let ports = holders.map(\.port)
        for holder in holders { try await holder.stop() }
        endpoints = (0..<count).map { "http://127.0.0.1:\(ports[2 * $0])" }
        let peers = (0..<count).map { "http://127.0.0.1:\(ports[2 * $0 + 1])" }
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        let given = ProcessInfo.processInfo.environment["QUARTERDECK_BINARY"]
        for index in 0..<count {
            let process = Process()
            process.executableURL = given.map { URL(fileURLWithPath: $0) } ?? folder.appendingPathComponent("quarterdeck")
            process.arguments = [
                "serve", "--name", "n\(index)", "--data-dir", directory.appendingPathComponent("n\(index)").path,
                "--listen-client-urls", endpoints[index], "--advertise-client-urls", endpoints[index],
                "--listen-peer-urls", peers[index], "--initial-advertise-peer-urls", peers[index],
                "--initial-cluster", (0..<count).map { "n\($0)=\(peers[$0])" }.joined(separator: ","), "--log-level", "error",
            ]
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            processes.append(process)
        }
    }

    func stop() {
        for process in processes { kill(process.processIdentifier, SIGKILL) }
        for process in processes { process.waitUntilExit() }
        try? FileManager.default.removeItem(at: directory)
    }
}
