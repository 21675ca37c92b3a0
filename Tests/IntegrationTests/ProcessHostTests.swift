import Foundation
import Server
import Synchronization
import Testing
import UI
@testable import quarterdeck

extension Integration {
    /// The owner of nodes that are processes, without a console and with a program that starts and ends at once.
    @Suite(.serialized) struct ProcessHostTests {
        /// The word of a process's end may come when the next one is under way already: it must not end that.
        @Test func nodesRestartedOverAndOverRun() async throws {
            let scratch = try Scratch()
            let listener = try Listener()
            let nodes = (1...8).map { HostedNode(id: UInt64($0), name: "n\($0)", clientEndpoint: "127.0.0.1:1", peerEndpoint: "127.0.0.1:2") }
            let host = ProcessNodeHost(program: Sleeper(port: listener.port), nodes: nodes, dataDirectory: scratch.path, isTemporary: false, funnel: LogFunnel(deliver: { _ in }))
            try await host.start()
            // Somebody who looks all the time stretches the moments between a process's end and the word of it.
            let isOver = Mutex(false)
            for _ in 0..<2 { Thread.detachNewThread { while !isOver.withLock({ $0 }) { _ = host.statuses() } } }
            defer { isOver.withLock { $0 = true } }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (place, node) in nodes.enumerated() {
                    group.addTask {
                        for round in 1...60 {
                            try await host.restart(node.id)
                            #expect(host.statuses()[place].process == .running, "\(node.name) after restart \(round)")
                        }
                    }
                }
                try await group.waitForAll()
            }
            await host.shutDown()
        }
    }
}

/// Its nodes do nothing; what listens for them is the test.
private struct Sleeper: NodeProgram {
    let port: Int
    let engine = "sleep"
    let takesOrders = false
    let faultSupport = FaultSupport()
    func command(for node: HostedNode) -> [String] { ["/bin/sleep", "1000"] }
    func port(of node: HostedNode) -> Int { port }
    func prepare() async throws {}
    func hasStarted(_ node: HostedNode, as process: pid_t) {}
    func obey(_ plan: FaultPlan) async {}
    func tearLog(of node: HostedNode) throws {}
    func shutDown() async {}
}

private final class Listener {
    let port: Int
    private let descriptor: Int32

    init() throws {
        port = try Ports.free()[0]
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let isBound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        } == 0
        guard isBound, listen(descriptor, 4_096) == 0 else { throw Late(description: "listen: \(String(cString: strerror(errno)))") }
    }

    deinit { close(descriptor) }
}
