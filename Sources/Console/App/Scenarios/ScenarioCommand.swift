import ArgumentParser
import CNcurses
import CProcesses
import Foundation
import Synchronization
import UI

struct ScenarioCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scenario",
        abstract: "Play a scenario on nodes of its own: faults, what is waited for, and what must be true then.",
        discussion: "Ends with status 0 when every expectation held, 1 when one did not, 2 for a file that cannot be used."
    )

    @Argument(help: "A scenario's name (see --list), or the path of a YAML file.")
    var scenario: String?
    @Flag(help: "List the scenarios there are.")
    var list = false
    @Flag(help: "One JSON document instead of lines: steps, times, elections, verdict, expectations.")
    var json = false
    @Flag(help: "Play it, narrated, in the console, which stays open.")
    var screen = false
    @Option(help: "What the nodes are: embedded in this process, a process each (quarterdeck serve), or the real etcd of the PATH.")
    var engine = PlaygroundOptions.Engine.embedded
    @Option(name: .customLong("base-port"), help: ArgumentHelp("Client ports N, N+10, N+20 ..., peers one higher. (default: 2379, 22379, 32379 ..., or the next free ones)", valueName: "n"))
    var basePort: Int?
    @OptionGroup var console: ConsoleFlags

    /// Of a file that cannot be used, and of a scenario that these nodes cannot play.
    private static let badFile: Int32 = 2

    func validate() throws {
        guard list || scenario != nil else { throw ValidationError("give a scenario's name or file; --list shows those there are") }
        guard !(json && screen) else { throw ValidationError("--json and --screen exclude each other") }
    }

    func run() throws {
        let library = ScenarioLibrary()
        if list { return show(library) }
        let played: Scenario
        do { played = try library.scenario(scenario!) } catch { throw CommandFailure(description: error.description, status: ScenarioCommand.badFile) }
        var options = played.playground(engine: engine)
        options.basePort = basePort
        if screen { return try PlaygroundCommand.open(options, console: console, scenario: played) }
        try play(played, options)
    }

    private func show(_ library: ScenarioLibrary) {
        let summaries = library.summaries { _ in nil }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: (try? encoder.encode(summaries)) ?? Data("[]".utf8), as: UTF8.self))
            return
        }
        let width = summaries.map(\.name.count).max() ?? 0
        for summary in summaries {
            print(summary.name + String(repeating: " ", count: width - summary.name.count + 2) + (summary.obstacle ?? summary.title))
        }
    }

    // MARK: Without a screen

    private func play(_ scenario: Scenario, _ options: PlaygroundOptions) throws {
        let signals = SignalInbox.install()
        let mailbox = Mailbox()
        let host: any NodeHost
        do { host = try PlaygroundLauncher.make(options, logs: LogFunnel(mailbox)) } catch { throw CommandFailure(description: "\(error)") }
        // Even a SIGKILL leaves nothing behind.
        if host.isTemporary { _ = qd_remove_at_end(host.dataDirectory) }
        if let obstacle = scenario.obstacle(on: host, playground: options) {
            host.abandon()
            throw CommandFailure(description: "\(scenario.name): \(obstacle)", status: ScenarioCommand.badFile)
        }
        var cluster = ClusterState(name: scenario.name, kind: .playground, mode: .readWrite, members: host.nodes.map { MemberState(id: $0.id, name: $0.name, endpoint: $0.clientEndpoint) })
        cluster.isPushed = options.engine != .etcd
        let connection = ConnectionOptions(endpoints: host.nodes.map(\.clientEndpoint))
        let session = try ClusterSession(cluster: cluster, connection: connection, host: host, playground: options, mailbox: mailbox)
        let stage = try SessionStage(session, scenario: scenario.name, isOwner: true)
        let isQuiet = json
        if !isQuiet { ScenarioCommand.say("\(scenario.title)\n\(scenario.nodes) nodes, \(options.engine.rawValue)\n") }
        let runner = ScenarioRunner(scenario, on: stage, engine: host.engine ?? "embedded", isWatched: false) { news in
            if !isQuiet, let line = ScenarioCommand.line(news) { ScenarioCommand.say(line) }
        }
        let result = Mutex<ScenarioReport?>(nil)
        let flag = Completion()
        session.start()
        let run = Task.detached {
            let report = await runner.run()
            result.withLock { $0 = report }
            await session.stop()
            flag.complete()
        }
        var descriptors = [signals.descriptor, mailbox.descriptor, flag.descriptor]
        var signal: ProcessSignal?
        while !flag.isComplete {
            _ = qd_wait(&descriptors, 3, -1)
            // Nobody draws it; the log has heard it.
            _ = mailbox.take()
            for found in signals.take() where [.interrupt, .terminate, .hangUp, .quit].contains(found) {
                if signal != nil {
                    session.abandon()
                    throw ExitCode(130)
                }
                signal = found
                run.cancel()
            }
        }
        guard let report = result.withLock({ $0 }) else { throw CommandFailure(description: "\(scenario.name): no result") }
        ScenarioCommand.say(json ? report.json + "\n" : "\n\(report.summary)\n")
        if report.outcome == .failed { Quarterdeck.complain("\(scenario.name): \(report.failure ?? "failed")") }
        switch report.outcome {
        case .passed: return
        case .failed: throw ExitCode(1)
        case .stopped: throw ExitCode(signal == .terminate ? 143 : 130)
        }
    }

    private static func say(_ text: String) { FileHandle.standardOutput.write(Data(text.utf8)) }

    private static func line(_ news: ScenarioRunner.News) -> String? {
        switch news {
        case .progress: return nil
        case .caption(let text): return "\n  \(text)\n"
        case .step(let step):
            guard step.action != "say", !step.detail.isEmpty else { return nil }
            return String(format: "%7.2fs  ", step.startSeconds) + (step.failed ? "FAILED  " : "") + "\(step.action): \(step.detail)\n"
        }
    }
}
