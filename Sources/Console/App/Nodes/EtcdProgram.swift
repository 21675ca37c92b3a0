import CProcesses
import Foundation
import Processes
import Server
import Synchronization
import UI

/// Real etcd, one process a member. Its links run through this process, which is where faults can act on them.
struct EtcdProgram: NodeProgram {
    let engine: String
    let takesOrders = false
    private let binary: String
    private let wrapper: String
    private let options: PlaygroundOptions
    private let dataDirectory: String
    private let nodes: [HostedNode]
    /// Where the members listen for their peers, behind the ports that they tell each other.
    private let peerPorts: [UInt64: Int]
    private let proxy: LinkProxy
    private let processes = SharedProcesses()

    private final class SharedProcesses: Sendable { let pids = Mutex<[UInt64: pid_t]>([:]) }

    /// - Throws: `NodeHostError` with one line.
    init(_ etcd: EtcdBinary, wrapper: String, nodes: [HostedNode], options: PlaygroundOptions, dataDirectory: String) throws {
        for node in nodes {
            let member = dataDirectory + "/" + node.name + "/member"
            guard !["/log", "/store"].contains(where: { FileManager.default.fileExists(atPath: member + $0) }) else {
                throw NodeHostError("\(dataDirectory) holds data of quarterdeck's own nodes, which etcd does not read: choose another --data-dir")
            }
        }
        engine = "etcd \(etcd.version)"
        binary = etcd.path
        self.wrapper = wrapper
        self.nodes = nodes
        self.options = options
        self.dataDirectory = dataDirectory
        let taken = Set(nodes.flatMap { [$0.clientPort, $0.peerPort] })
        var ports: [UInt64: Int] = [:]
        for node in nodes {
            guard let port = (node.peerPort + 1..<min(65_536, node.peerPort + 1_000)).first(where: { port in
                !taken.contains(port) && !ports.values.contains(port) && LoopbackPort.isFree(port)
            }) else { throw NodeHostError("no free port found above \(node.peerPort): give another --base-port") }
            ports[node.id] = port
        }
        peerPorts = ports
        proxy = LinkProxy(nodes.map { .init(node: $0.id, port: $0.peerPort, memberPort: ports[$0.id]!) }) { [processes] from, to in
            SocketOwner.find(from, to, among: processes.pids.withLock { $0 })
        }
    }

    var faultSupport: FaultSupport {
        var reasons: [FaultKind: String] = [:]
        for kind in [FaultKind.diskSlow, .diskStuck, .diskFull, .diskBroken] { reasons[kind] = "real etcd has no disk seam" }
        for kind in [FaultKind.clockJump, .clockDrift] { reasons[kind] = "real etcd reads the machine's clock" }
        reasons[.tornTail] = "real etcd's log is not ours to cut"
        return FaultSupport(reasons: reasons)
    }

    func command(for node: HostedNode) -> [String] {
        [wrapper, "bound", "--parent", "\(getpid())", "--", binary, "--name", node.name, "--data-dir", dataDirectory + "/" + node.name,
         "--listen-client-urls", "http://\(node.clientEndpoint)", "--advertise-client-urls", "http://\(node.clientEndpoint)",
         "--listen-peer-urls", "http://127.0.0.1:\(peerPorts[node.id]!)", "--initial-advertise-peer-urls", "http://\(node.peerEndpoint)",
         "--initial-cluster", nodes.map { "\($0.name)=http://\($0.peerEndpoint)" }.joined(separator: ","), "--initial-cluster-token", PlaygroundLauncher.token,
         "--initial-cluster-state", "new", "--heartbeat-interval", "\(options.heartbeatMilliseconds)", "--election-timeout", "\(options.electionMilliseconds)",
         "--logger", "zap", "--log-outputs", "stderr"] + options.nodeArguments
    }

    /// Its client port opens only when there is a quorum.
    func port(of node: HostedNode) -> Int { peerPorts[node.id]! }
    func prepare() async throws { try await proxy.start() }
    func hasStarted(_ node: HostedNode, as process: pid_t) { processes.pids.withLock { $0[node.id] = process } }
    func obey(_ plan: FaultPlan) async { await proxy.obey(plan) }
    func tearLog(of node: HostedNode) throws { throw NodeHostError(faultSupport.reason(.tornTail)!) }
    func shutDown() async { await proxy.stop() }
}

/// An etcd that is installed.
struct EtcdBinary: Hashable, Sendable {
    var path: String
    /// `3.5.16`.
    var version: String

    /// In QUARTERDECK_ETCD_DIR, else in PATH.
    /// - Throws: `NodeHostError` with one line that says how to get it.
    static func find(_ environment: [String: String]) throws -> EtcdBinary {
        var directories = (environment["PATH"] ?? "").split(separator: ":").map(String.init)
        if let given = environment["QUARTERDECK_ETCD_DIR"], !given.isEmpty { directories.insert(given, at: 0) }
        guard let path = directories.lazy.map({ $0 + "/etcd" }).first(where: isProgram) else {
            throw NodeHostError("--engine etcd: there is no etcd in PATH; install it (apt install etcd-server, brew install etcd, or a release from "
                + "github.com/etcd-io/etcd/releases) or name its directory in QUARTERDECK_ETCD_DIR")
        }
        let output = try output(of: [path, "--version"])
        guard let line = output.split(separator: "\n").first(where: { $0.hasPrefix("etcd Version:") }) else {
            throw NodeHostError("--engine etcd: \(path) does not say which version it is: \(output.prefix(200).split(separator: "\n").first ?? "no output")")
        }
        return EtcdBinary(path: path, version: line.dropFirst("etcd Version:".count).trimmingCharacters(in: .whitespaces))
    }

    private static func isProgram(_ path: String) -> Bool {
        var isDirectory: ObjCBool = false
        return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && !isDirectory.boolValue && access(path, X_OK) == 0
    }

    private static func output(of command: [String]) throws -> String {
        var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var descriptor: Int32 = -1
        let pid = qd_start_child(&arguments, nil, nil, &descriptor)
        guard pid > 0 else { throw NodeHostError("\(command[0]): \(String(cString: strerror(-pid)).lowercased())") }
        var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 4096)
        while case let n = read(descriptor, &buffer, buffer.count), n > 0 { bytes += buffer[..<n] }
        close(descriptor)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return String(decoding: bytes, as: UTF8.self)
    }
}
