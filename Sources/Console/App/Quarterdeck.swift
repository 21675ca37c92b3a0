import ArgumentParser
import Base
import Simulation
import Foundation

struct Quarterdeck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quarterdeck",
        abstract: "A terminal operations console for etcd-style clusters, with a complete cluster engine inside.",
        discussion: """
            Without a subcommand it starts a playground: real nodes on this machine, in a temporary directory, that etcdctl reaches too.
            """,
        version: Version.text,
        subcommands: [PlaygroundCommand.self, AttachCommand.self, ReplayCommand.self, ScenarioCommand.self, ServeCommand.self, CheckCommand.self, SnapshotCommand.self,
                      SimulateCommand.self, BoundCommand.self],
        defaultSubcommand: PlaygroundCommand.self
    )

    /// Parses and runs. Errors are one line on standard error, and a status that is not 0: 64 for a bad command line, else 1.
    static func start() -> Never {
        do {
            let arguments = Array(CommandLine.arguments.dropFirst())
            var command: any ParsableCommand = if let serve = ServeCommand.command(of: arguments) { serve } else { try parseAsRoot(arguments) }
            try command.run()
            Foundation.exit(0)
        } catch let failure as CommandFailure {
            complain(failure.description)
            Foundation.exit(failure.status)
        } catch let code as ExitCode {
            Foundation.exit(code.rawValue)
        } catch {
            if exitCode(for: error).isSuccess { exit(withError: error) } // help and version
            let line = message(for: error).split(separator: "\n", omittingEmptySubsequences: true).joined(separator: " ")
            complain("\(line.isEmpty ? "\(error)" : line)  (--help shows the usage)")
            Foundation.exit(exitCode(for: error).rawValue)
        }
    }

    static func complain(_ line: String) { FileHandle.standardError.write(Data("quarterdeck: \(line)\n".utf8)) }
}

enum Version {
    static let text = "0.1.0"
}

/// Why a command cannot go on: one line for the person, and the process's exit status.
struct CommandFailure: Error, CustomStringConvertible {
    var description: String
    var status: Int32 = 1
}

/// How the console looks; the same for every command that opens it.
struct ConsoleFlags: ParsableArguments {
    @Flag(name: .customLong("read-only"), help: "Nothing that changes the cluster can be done from this console.")
    var isReadOnly = false
    @Option(help: "Colour theme: a file NAME.yaml in the themes folder of the configuration, or one that came along.")
    var theme: String?
    @Flag(help: "Draw with ASCII characters only.")
    var ascii = false
    @Flag(name: .customLong("no-mouse"), help: "Leave the mouse to the terminal.")
    var noMouse = false
    @Flag(help: "No full screen: one line of text for each thing that happens.")
    var plain = false
    @Option(name: .customLong("escape-delay"), help: ArgumentHelp("How long a lone Escape waits for the rest of a key, in ms: 10 to 100.", valueName: "ms"))
    var escapeDelay = 25
    @Flag(name: .customLong("no-sync"), help: "Do not bracket frames with synchronized output (mode 2026).")
    var noSynchronizedOutput = false
    @Option(help: ArgumentHelp("Record the session to this new file, for `quarterdeck replay`.", valueName: "file"))
    var record: String?

    func validate() throws {
        guard (10...100).contains(escapeDelay) else { throw ValidationError("--escape-delay \(escapeDelay): give 10 to 100 (milliseconds)") }
    }
}

/// A span of time as Go writes it and etcd's tools take it: 300ms, 1.5s, 2m, 1h30m.
struct GoDuration: ExpressibleByArgument, Hashable, Sendable {
    var nanoseconds: Int64

    init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    init?(argument: String) {
        guard let span = TimeSpan(goDuration: argument), span >= .zero else { return nil }
        nanoseconds = span.nanoseconds
    }

    var defaultValueDescription: String { "\(Double(nanoseconds) / 1e9)s" }
}
