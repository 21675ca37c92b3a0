import Base
import Foundation
import Server
import UI

/// `quarterdeck serve`, this very program, with every fault at the seams of the shipped code.
struct ServeProgram: NodeProgram {
    let executable: String
    let nodes: [HostedNode]
    let options: PlaygroundOptions
    let dataDirectory: String

    let engine = "processes"
    let takesOrders = true
    let faultSupport = FaultSupport()

    func command(for node: HostedNode) -> [String] {
        [executable, "serve", "--name", node.name, "--data-dir", dataDirectory + "/" + node.name,
         "--listen-client-urls", "http://\(node.clientEndpoint)", "--advertise-client-urls", "http://\(node.clientEndpoint)",
         "--listen-peer-urls", "http://\(node.peerEndpoint)", "--initial-advertise-peer-urls", "http://\(node.peerEndpoint)",
         "--initial-cluster", nodes.map { "\($0.name)=http://\($0.peerEndpoint)" }.joined(separator: ","), "--initial-cluster-token", PlaygroundLauncher.token,
         "--heartbeat-interval", "\(options.heartbeatMilliseconds)", "--election-timeout", "\(options.electionMilliseconds)",
         "--supervised", "\(getpid())"] + options.nodeArguments
    }

    func port(of node: HostedNode) -> Int { node.clientPort }
    func prepare() async throws {}
    func hasStarted(_ node: HostedNode, as process: pid_t) {}
    func obey(_ plan: FaultPlan) async {}

    func tearLog(of node: HostedNode) throws {
        do throws(NodeError) {
            try NodeFaults(member: MemberID(node.id)).tearLog(dataDirectory: dataDirectory + "/" + node.name)
        } catch {
            throw NodeHostError("\(node.name): \(error)")
        }
    }

    func shutDown() async {}
}
