import Base
import Client
import Foundation
import Logging
import Server

/// Where the first members of a cluster find each other: a registry in another cluster. (etcd 3.6, `--discovery-token`)
struct DiscoveryOptions: Hashable, Sendable {
    var token: String
    var connection: ConnectionOptions
}

extension ServeSettings {
    /// nil: the DNS is not asked.
    func recordDiscovery() throws(CommandFailure) -> RecordDiscovery? {
        guard let domain = textIfAny("discovery-srv") else { return nil }
        var discovery = RecordDiscovery(domain: domain, serviceName: text("discovery-srv-name"))
        if let resolver = textIfAny("discovery-srv-resolver") {
            let parts = resolver.split(separator: ":")
            guard parts.count == 2, let port = Int(parts[1]), (1...65_535).contains(port) else {
                throw CommandFailure(description: "--discovery-srv-resolver \(resolver): expected an IPv4 address and a port, as in 127.0.0.1:53", status: 64)
            }
            discovery.server = RecordDiscovery.Record(host: String(parts[0]), port: port)
        }
        return discovery
    }

    /// nil: there is none.
    func discovery() throws(CommandFailure) -> DiscoveryOptions? {
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line, status: 64) }
        let token = textIfAny("discovery-token")
        let endpoints = textIfAny("discovery-endpoints")
        guard (token == nil) == (endpoints == nil) else { throw wrong("both --discovery-token and --discovery-endpoints must be set") }
        guard let token, let endpoints else { return nil }
        let list = endpoints.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
        guard list.allSatisfy({ !$0.isEmpty }) else { throw wrong("--discovery-endpoints must not contain empty endpoints") }
        var connection = ConnectionOptions(endpoints: list)
        do { for endpoint in list { try AttachCommand.check(endpoint) } } catch { throw wrong("--discovery-endpoints: \(error)") }
        connection.certificateAuthority = textIfAny("discovery-cacert")
        connection.certificate = textIfAny("discovery-cert")
        connection.key = textIfAny("discovery-key")
        connection.usesTLS = connection.certificateAuthority != nil || connection.certificate != nil
        guard (connection.certificate == nil) == (connection.key == nil) else { throw wrong("--discovery-cert and --discovery-key belong together") }
        if let user = textIfAny("discovery-user") {
            let parts = user.split(separator: ":", maxSplits: 1).map(String.init)
            connection.user = parts.first
            connection.password = textIfAny("discovery-password") ?? (parts.count == 2 ? parts[1] : "")
        }
        return DiscoveryOptions(token: token, connection: connection)
    }
}

/// The registry of one token: a size that somebody wrote before, and one key for each member, `NAME=URL[,NAME=URL]`. The first so many members, by
/// the creation of their keys, are the cluster.
struct DiscoveryRegistry: Sendable {
    static let prefix = "/_etcd/registry"

    static func sizeKey(_ token: String) -> String { "\(prefix)/\(token)/_config/size" }
    static func memberPrefix(_ token: String) -> String { "\(prefix)/\(token)/members" }
    static func memberKey(_ token: String, _ member: MemberID) -> String { "\(memberPrefix(token))/\(String(member.rawValue, radix: 16))" }

    var size: Int
    private var members: [(key: String, text: String, created: Revision)] = []

    /// - Throws: etcd's words when the size is missing or no number.
    init(size: KeyValue?) throws(CommandFailure) {
        guard let size else { throw CommandFailure(description: "discovery: size key not found") }
        guard let number = Int(size.valueText), number > 0 else { throw CommandFailure(description: "discovery: size key is bad") }
        self.size = number
    }

    /// A member's key. What is not of the form stays out, as it does in etcd; a key that is there already counts once.
    mutating func add(_ kv: KeyValue) {
        let text = kv.valueText.trimmingCharacters(in: .whitespacesAndNewlines)
        let key = kv.keyText.trimmingCharacters(in: .whitespacesAndNewlines)
        guard text.split(separator: ",", omittingEmptySubsequences: false).allSatisfy({ $0.contains("=") }), !members.contains(where: { $0.key == key }) else { return }
        members.append((key, text, kv.createRevision))
        members.sort { $0.created < $1.created }
    }

    /// As many others as the cluster has members were there first.
    func isFull(without key: String) -> Bool { !members.prefix(size).contains { $0.key == key } && members.count >= size }
    var isComplete: Bool { members.count >= size }

    /// In the form of `--initial-cluster`.
    var text: String { members.prefix(size).map(\.text).joined(separator: ",") }
}

enum Discovery {
    /// Waits between attempts while the registry cannot be reached, in seconds: doubled up to this. (etcd)
    private static let longestWaitSeconds = 256

    /// Registers this member and waits until the cluster is complete.
    /// - Parameter own: `NAME=URL[,NAME=URL]`.
    /// - Returns: the first members, as `--initial-cluster` names them.
    /// - Throws: what waiting cannot mend.
    static func join(_ options: DiscoveryOptions, member: MemberID, own: String, logger: Logger) async throws -> String {
        let client = try await connect(options.connection)
        var wait = 2
        while true {
            do {
                let text = try await attempt(client, options.token, member, own, logger)
                await client.close()
                return text
            } catch let error as EtcdError {
                logger.warning("the discovery service does not answer", metadata: ["reason": "\(error)", "again-after": "\(wait)s"])
                try await Task.sleep(for: .seconds(wait))
                wait = min(2 * wait, longestWaitSeconds)
            } catch {
                await client.close()
                throw error
            }
        }
    }

    private static func connect(_ connection: ConnectionOptions) async throws -> EtcdClient {
        do { return try EtcdClient(configuration: ClusterSession.configuration(connection)) } catch {
            throw CommandFailure(description: "--discovery-endpoints: \(error)")
        }
    }

    private static func attempt(_ client: EtcdClient, _ token: String, _ member: MemberID, _ own: String, _ logger: Logger) async throws -> String {
        let key = DiscoveryRegistry.memberKey(token, member)
        let (before, _) = try await read(client, token)
        guard !before.isFull(without: key) else { throw CommandFailure(description: "discovery: cluster is full") }
        _ = try await client.put(Array(key.utf8), Array(own.utf8))
        let (found, revision) = try await read(client, token)
        var registry = found
        guard !registry.isFull(without: key) else { throw CommandFailure(description: "discovery: cluster is full") }
        if registry.isComplete { return registry.text }
        logger.info("waiting for peers from discovery service", metadata: ["size": "\(registry.size)", "so-far": "\(registry.text)"])
        for try await batch in client.watch(prefix: DiscoveryRegistry.memberPrefix(token), startRevision: revision.next) {
            for event in batch.events where event.kind == .put { registry.add(event.kv) }
            if registry.isComplete { break }
        }
        return registry.text
    }

    private static func read(_ client: EtcdClient, _ token: String) async throws -> (DiscoveryRegistry, Revision) {
        var registry = try DiscoveryRegistry(size: try await client.get(DiscoveryRegistry.sizeKey(token)))
        let found = try await client.range(RangeQuery(.prefix(Key(DiscoveryRegistry.memberPrefix(token)))))
        for kv in found.kvs { registry.add(kv) }
        return (registry, found.header.revision)
    }
}
