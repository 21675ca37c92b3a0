import Base
import Client
import Foundation
import Testing

/// One `quarterdeck serve` that can be started, ended and started again on its data.
final class ServeNode {
    let name: String
    let clientPort: Int
    let peerPort: Int
    /// Where its peers connect, if not to `peerPort` itself.
    var advertisedPeerPort: Int
    let dataDirectory: String
    var initialCluster: String
    var extra: [String]
    let scratch: Scratch
    private(set) var process: ChildProcess?

    init(name: String, clientPort: Int, peerPort: Int, initialCluster: String, extra: [String] = [], in scratch: Scratch) {
        self.name = name
        self.clientPort = clientPort
        self.peerPort = peerPort
        advertisedPeerPort = peerPort
        self.initialCluster = initialCluster
        self.extra = extra
        self.scratch = scratch
        dataDirectory = scratch.file("data-\(name)")
    }

    var endpointText: String { "127.0.0.1:\(clientPort)" }
    var endpoint: Endpoint { get throws { try Endpoint(endpointText) } }

    var arguments: [String] {
        ["serve", "--name", name, "--data-dir", dataDirectory,
         "--listen-client-urls", "http://127.0.0.1:\(clientPort)", "--advertise-client-urls", "http://127.0.0.1:\(clientPort)",
         "--listen-peer-urls", "http://127.0.0.1:\(peerPort)", "--initial-advertise-peer-urls", "http://127.0.0.1:\(advertisedPeerPort)",
         "--initial-cluster", initialCluster] + extra
    }

    func start() throws { process = try ChildProcess([quarterdeck] + arguments, in: scratch) }
    func kill() async throws { try await process?.killNow() }

    /// What it logged since its last start.
    var log: String { process?.errors ?? "" }
}

/// Some `quarterdeck serve` processes that form a cluster.
final class ServeCluster {
    let nodes: [ServeNode]
    let scratch: Scratch
    let client: EtcdClient
    let relays: [Relay]

    /// - Parameter throughRelays: peers reach each other through `relays`.
    init(_ count: Int, extra: [String] = [], throughRelays: Bool = false, in scratch: Scratch) throws {
        self.scratch = scratch
        let ports = try Ports.free((throughRelays ? 3 : 2) * count)
        let advertised = (0..<count).map { ports[throughRelays ? 2 * count + $0 : 2 * $0 + 1] }
        let cluster = (0..<count).map { "n\($0 + 1)=http://127.0.0.1:\(advertised[$0])" }.joined(separator: ",")
        relays = throughRelays ? try (0..<count).map { try Relay(from: advertised[$0], to: ports[2 * $0 + 1]) } : []
        nodes = (0..<count).map {
            ServeNode(name: "n\($0 + 1)", clientPort: ports[2 * $0], peerPort: ports[2 * $0 + 1], initialCluster: cluster, extra: extra, in: scratch)
        }
        var configuration = ClientConfiguration(endpoints: try nodes.map { try $0.endpoint })
        configuration.dialTimeout = .seconds(1)
        client = try EtcdClient(configuration: configuration)
        for (node, port) in zip(nodes, advertised) {
            node.advertisedPeerPort = port
            try node.start()
        }
    }

    var endpoints: [String] { nodes.map(\.endpointText) }
    var etcdctl: Etcdctl { Etcdctl(endpoints, scratch) }
    var logs: String { nodes.map { "\($0.name):\n\($0.log)" }.joined(separator: "\n") }

    /// Closes the client and kills the processes.
    func end() async {
        await client.close()
        for node in nodes { try? await node.kill() }
        for relay in relays { relay.close() }
    }

    /// The member that leads, as far as a majority of those that answer says.
    func leader() async -> ServeNode? {
        var votes: [MemberID: Int] = [:]
        var nodesByID: [MemberID: ServeNode] = [:]
        for node in nodes where node.process?.status == nil {
            guard let status = try? await client.status(of: node.endpoint, options: CallOptions(timeout: .seconds(2))) else { continue }
            nodesByID[status.header.memberID] = node
            votes[status.leader, default: 0] += 1
        }
        for (id, count) in votes where count > nodes.count / 2 && id != .none { return nodesByID[id] }
        return nil
    }

    @discardableResult
    func waitForLeader(seconds: Double = 30) async throws -> ServeNode {
        var found: ServeNode?
        try await eventually("a leader\n\(logs)", seconds: seconds) {
            found = await leader()
            return found != nil
        }
        return found!
    }

    /// Until every member has applied what the leader has, and holds the same history. Returns the common checksum.
    @discardableResult
    func waitForEqualHashes(at revision: Revision, seconds: Double = 60) async throws -> UInt32 {
        var hashes: [UInt32] = []
        for node in nodes {
            try await eventually("\(node.name) at revision \(revision.rawValue)\n\(node.log.suffix(3_000))", seconds: seconds) {
                (try? await client.status(of: node.endpoint).header.revision).map { $0 >= revision } ?? false
            }
            hashes.append(try await client.hashKV(of: node.endpoint, revision: revision).hash)
        }
        #expect(Set(hashes).count == 1, "the members hold different histories: \(hashes)")
        return hashes[0]
    }
}

/// Runs a test on `quarterdeck serve` processes that are gone afterwards, whatever happens.
func withServers(_ count: Int = 1, extra: [String] = [], throughRelays: Bool = false, _ body: (ServeCluster) async throws -> Void) async throws {
    let scratch = try Scratch()
    let cluster = try ServeCluster(count, extra: extra, throughRelays: throughRelays, in: scratch)
    do {
        try await cluster.waitForLeader()
        try await body(cluster)
    } catch {
        let logs = cluster.logs
        await cluster.end()
        print("logs of the servers:\n\(logs.suffix(20_000))")
        throw error
    }
    await cluster.end()
}

/// Real etcd with one member.
func withRealEtcd(_ release: EtcdRelease = .v3_5, extra: [String] = [], _ body: (_ endpoint: String, _ scratch: Scratch) async throws -> Void) async throws {
    let scratch = try Scratch()
    let ports = try Ports.free(2)
    let client = "http://127.0.0.1:\(ports[0])", peer = "http://127.0.0.1:\(ports[1])"
    let process = try ChildProcess([
        release.server(), "--name", "n1", "--data-dir", scratch.file("etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "n1=\(peer)", "--log-level", "error", "--unsafe-no-fsync",
    ] + extra, in: scratch)
    do {
        let connection = try EtcdClient(endpoints: [client])
        _ = try await connection.get("x", options: CallOptions(timeout: .seconds(30)))
        await connection.close()
        try await body("127.0.0.1:\(ports[0])", scratch)
    } catch {
        try? await process.killNow()
        print("etcd \(release.rawValue) wrote:\n\(process.errors.suffix(4_000))")
        throw error
    }
    try await process.killNow()
}
