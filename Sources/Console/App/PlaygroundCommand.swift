import ArgumentParser
import CProcesses
import Foundation
import UI

struct PlaygroundCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "playground",
        abstract: "Start a cluster of real nodes on this machine and open the console on it."
    )

    @Option(help: "What the nodes are: embedded in this process, a process each (quarterdeck serve), or the real etcd of the PATH.")
    var engine = PlaygroundOptions.Engine.embedded
    @Option(help: "How many nodes: 1, 3, 5 or 7.")
    var nodes = 3
    @Option(name: .customLong("data-dir"), help: ArgumentHelp("Keep the data here. (default: a temporary directory, removed at exit)", valueName: "dir"))
    var dataDirectory: String?
    @Option(name: .customLong("base-port"), help: ArgumentHelp("Client ports N, N+10, N+20 ..., peers one higher. (default: 2379, 22379, 32379 ..., or the next free ones)", valueName: "n"))
    var basePort: Int?
    @OptionGroup var console: ConsoleFlags

    func validate() throws {
        guard [1, 3, 5, 7].contains(nodes) else { throw ValidationError("--nodes \(nodes): give 1, 3, 5 or 7") }
        if let basePort, !(1...65_535).contains(basePort) || basePort + (nodes - 1) * 10 + 1 > 65_535 {
            throw ValidationError("--base-port \(basePort): the ports of \(nodes) nodes must lie between 1 and 65535")
        }
    }

    func run() throws {
        var options = PlaygroundOptions()
        options.engine = engine
        options.nodeCount = nodes
        options.dataDirectory = dataDirectory.map(Paths.expanded)
        options.basePort = basePort
        try PlaygroundCommand.open(options, console: console)
    }

    /// - Parameter scenario: is played as soon as the nodes run.
    static func open(_ options: PlaygroundOptions, console: ConsoleFlags, scenario: Scenario? = nil) throws {
        // Before anything starts a thread.
        let signals = SignalInbox.install()
        let mailbox = Mailbox()
        let funnel = LogFunnel(mailbox)
        let host: any NodeHost
        do { host = try PlaygroundLauncher.make(options, logs: funnel) } catch { throw CommandFailure(description: "\(error)") }
        // Even a SIGKILL leaves nothing behind. Without the helper all other ends still clean up.
        if host.isTemporary { _ = qd_remove_at_end(host.dataDirectory) }
        Thread.detachNewThread { TemporaryDirectory.sweep() }
        // Two playgrounds beside each other are told apart by where their data are kept.
        let name = options.dataDirectory.map { ($0 as NSString).lastPathComponent } ?? "demo"
        var cluster = ClusterState(name: name, kind: .playground, mode: console.isReadOnly ? .readOnly : .readWrite,
                                   members: host.nodes.map { MemberState(id: $0.id, name: $0.name, endpoint: $0.clientEndpoint) })
        cluster.engine = host.engine
        cluster.serverVersion = options.engine == .etcd ? host.engine : "quarterdeck \(Version.text)"
        cluster.isPushed = options.engine != .etcd
        let connection = ConnectionOptions(endpoints: host.nodes.map(\.clientEndpoint))
        let runner = try ClusterSession(cluster: cluster, connection: connection, host: host, playground: options, scenario: scenario, mailbox: mailbox, logs: funnel)
        if let path = console.record { try runner.recordFromStart(path) }
        try ConsoleSession(flags: console, signals: signals, mailbox: mailbox, runner: runner, cluster: cluster).run()
    }
}

extension PlaygroundOptions.Engine: ExpressibleByArgument {}
