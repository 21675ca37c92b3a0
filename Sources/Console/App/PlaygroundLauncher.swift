import Base
import Foundation
import Replica
import Server
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Makes the host of a playground's nodes. Quick: claims ports and directories, starts nothing (`NodeHost.start` does).
enum PlaygroundLauncher {
    /// Client ports of etcd's local clusters.
    private static let customaryPorts = [2379, 22379, 32379, 42379, 52379, 62379, 12379]

    /// - Throws: `NodeHostError` with one line (port in use, directory not writable, wrong data).
    static func make(_ options: PlaygroundOptions) throws -> any NodeHost {
        let ports = try ports(options)
        let directory: String
        if let given = options.dataDirectory {
            directory = given
        } else {
            var template = Array((NSTemporaryDirectory() as NSString).appendingPathComponent("quarterdeck-XXXXXX").utf8CString)
            guard mkdtemp(&template) != nil else {
                throw NodeHostError("cannot make a temporary directory in \(NSTemporaryDirectory()): \(String(cString: strerror(errno)))")
            }
            directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        var replica = ReplicaOptions()
        replica.raft.heartbeatInterval = .milliseconds(Int64(options.heartbeatMilliseconds))
        replica.raft.electionTimeout = .milliseconds(Int64(options.electionMilliseconds))
        let cluster = EmbeddedCluster(ports: ports, dataDirectory: directory, options: replica)
        return EmbeddedNodeHost(cluster: cluster, dataDirectory: directory, isTemporary: options.dataDirectory == nil)
    }

    private static func ports(_ options: PlaygroundOptions) throws -> [(client: Int, peer: Int)] {
        var ports: [(client: Int, peer: Int)] = []
        for node in 0..<options.nodeCount {
            if let base = options.basePort {
                let client = base + 10 * node
                for port in [client, client + 1] where !isFree(port) {
                    throw NodeHostError("127.0.0.1:\(port) is already in use: choose another --base-port")
                }
                ports.append((client, client + 1))
                continue
            }
            var client = customaryPorts[node]
            while !isFree(client) || !isFree(client + 1) || ports.contains(where: { abs($0.client - client) < 2 }) {
                client += 2
                guard client < 65_535 else { throw NodeHostError("no free port found above \(customaryPorts[node]): give --base-port") }
            }
            ports.append((client, client + 1))
        }
        return ports
    }

    private static func isFree(_ port: Int) -> Bool {
        #if canImport(Darwin)
        let descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #else
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #endif
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // As the listeners do, so that a port in TIME_WAIT counts as free.
        var reuse: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        } == 0
    }
}
