import Base
import Foundation
import Logging
import Processes
import Replica
import Server

/// Makes the host of a playground's nodes. Quick: claims ports and directories, starts nothing (`NodeHost.start` does).
enum PlaygroundLauncher {
    /// Client ports of etcd's local clusters.
    private static let customaryPorts = [2379, 22379, 32379, 42379, 52379, 62379, 12379]

    /// Tells the clusters of playgrounds from others; the same for all engines, and so are the ids of members.
    static let token = "quarterdeck-playground"

    /// - Throws: `NodeHostError` with one line (port in use, directory not writable, wrong data, no etcd).
    static func make(_ options: PlaygroundOptions, logs funnel: LogFunnel = LogFunnel(deliver: { _ in })) throws -> any NodeHost {
        let etcd = options.engine == .etcd ? try EtcdBinary.find(ProcessInfo.processInfo.environment) : nil
        let ports = try ports(options)
        let nodes = ports.enumerated().map { index, port in
            let peer = "127.0.0.1:\(port.peer)"
            return HostedNode(id: Identifiers.member(peerURLs: ["http://" + peer], token: token).rawValue, name: "n\(index + 1)",
                              clientEndpoint: "127.0.0.1:\(port.client)", peerEndpoint: peer)
        }
        let directory = try options.dataDirectory ?? TemporaryDirectory.make()
        let isTemporary = options.dataDirectory == nil
        let program: any NodeProgram
        switch options.engine {
        case .embedded:
            var replica = ReplicaOptions()
            replica.raft.heartbeatInterval = .milliseconds(Int64(options.heartbeatMilliseconds))
            replica.raft.electionTimeout = .milliseconds(Int64(options.electionMilliseconds))
            if let count = options.snapshotCount { replica.snapshotCount = UInt64(count) }
            if let count = options.catchUpEntries { replica.raft.keptEntries = count }
            let names = Dictionary(uniqueKeysWithValues: nodes.map { ($0.id, $0.name) })
            let logger = Logger(label: "quarterdeck") { _ in FunnelLogHandler(funnel, names: names) }
            let cluster = EmbeddedCluster(ports: ports, dataDirectory: directory, token: token, options: replica, logger: logger)
            return EmbeddedNodeHost(cluster: cluster, dataDirectory: directory, isTemporary: isTemporary)
        case .process: program = ServeProgram(executable: OwnExecutable.path, nodes: nodes, options: options, dataDirectory: directory)
        case .etcd: program = try EtcdProgram(etcd!, wrapper: OwnExecutable.path, nodes: nodes, options: options, dataDirectory: directory)
        }
        return ProcessNodeHost(program: program, nodes: nodes, dataDirectory: directory, isTemporary: isTemporary, funnel: funnel)
    }

    private static func ports(_ options: PlaygroundOptions) throws -> [(client: Int, peer: Int)] {
        var ports: [(client: Int, peer: Int)] = []
        for node in 0..<options.nodeCount {
            if let base = options.basePort {
                let client = base + 10 * node
                for port in [client, client + 1] where !LoopbackPort.isFree(port) {
                    throw NodeHostError("127.0.0.1:\(port) is already in use: choose another --base-port")
                }
                ports.append((client, client + 1))
                continue
            }
            var client = customaryPorts[node]
            while !LoopbackPort.isFree(client) || !LoopbackPort.isFree(client + 1) || ports.contains(where: { abs($0.client - client) < 2 }) {
                client += 2
                guard client < 65_535 else { throw NodeHostError("no free port found above \(customaryPorts[node]): give --base-port") }
            }
            ports.append((client, client + 1))
        }
        return ports
    }
}
