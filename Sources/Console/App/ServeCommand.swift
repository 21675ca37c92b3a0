import ArgumentParser
import Base
import Foundation
import Server

/// An address of a listener or of a member, from a URL such as `http://127.0.0.1:2379`.
struct ServiceURL: Hashable, Sendable, CustomStringConvertible {
    var isTLS: Bool
    var host: String
    var port: Int

    /// - Throws: one line that says what is wrong.
    init(parsing text: String) throws(CommandFailure) {
        guard let scheme = text.range(of: "://") else { throw CommandFailure(description: "URL \"\(text)\": expected http://host:port", status: 64) }
        switch text[..<scheme.lowerBound] {
        case "http": isTLS = false
        case "https": isTLS = true
        default: throw CommandFailure(description: "URL \"\(text)\": only http:// and https:// are supported", status: 64)
        }
        var rest = text[scheme.upperBound...]
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        guard let colon = rest.lastIndex(of: ":"), let port = Int(rest[rest.index(after: colon)...]), (1...65_535).contains(port) else {
            throw CommandFailure(description: "URL \"\(text)\": expected a port", status: 64)
        }
        guard !rest.contains("/") else { throw CommandFailure(description: "URL \"\(text)\": must not have a path", status: 64) }
        var host = String(rest[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty else { throw CommandFailure(description: "URL \"\(text)\": expected a host", status: 64) }
        self.host = host
        self.port = port
    }

    var description: String { "\(isTLS ? "https" : "http")://\(host.contains(":") ? "[\(host)]" : host):\(port)" }
}

/// A member of the first configuration: `name=url` of `--initial-cluster`; one name may have several URLs.
struct InitialMember: Hashable, Sendable {
    var name: String
    var peerURLs: [ServiceURL]
}

/// What `quarterdeck serve` was asked for, complete and checked; nothing in it needs interpretation.
struct ServeOptions: Hashable, Sendable {
    enum ClusterStateFlag: String, Hashable, Sendable { case new, existing }

    var name: String
    var dataDirectory: String
    /// Of the log, absolute; nil: below the data directory.
    var logDirectory: String?
    var listenClientURLs: [ServiceURL]
    var advertiseClientURLs: [ServiceURL]
    /// For the HTTP endpoints alone.
    var listenClientHTTPURLs: [ServiceURL] = []
    var http = HTTPAccess()
    /// For metrics and health alone.
    var listenMetricsURLs: [ServiceURL] = []
    var listenPeerURLs: [ServiceURL]
    var initialAdvertisePeerURLs: [ServiceURL]
    /// In the order given.
    var initialCluster: [InitialMember]
    var initialClusterToken: String
    var initialClusterState: ClusterStateFlag
    var heartbeatIntervalMilliseconds: Int
    var electionTimeoutMilliseconds: Int
    var snapshotCount: Int
    /// Log entries kept behind a snapshot for slow followers.
    var snapshotCatchUpEntries: Int
    /// 0: the default of 2 GiB; below: none.
    var quotaBackendBytes: Int64
    var maxRequestBytes: Int
    var maxTxnOps: Int
    var maxLearners: Int
    var checksReconfiguration: Bool
    var forcesNewCluster: Bool
    var authToken = "simple"
    var authTokenTTLSeconds = 300
    var bcryptCost = 10
    var autoCompaction = AutoCompaction.off
    /// `initialCluster` is this member alone then, and the token is the discovery's.
    var discovery: DiscoveryOptions?
    var records: RecordDiscovery?
    /// What a person should know of how the options were found; to be logged.
    var warnings: [String] = []
    var tls = NodeTLS()
    var log = LogOptions()
    /// Whether a member that is alone leads at once.
    var advancesFirstElection = true
    var preVotes = true
    var sharesPorts = false
    var watchProgressInterval = TimeSpan.seconds(600)
    /// Verify the files before anything is served.
    var checksFilesFirst = false
    var stateCheckInterval = TimeSpan.seconds(1)
    var checkpointsLeases = true
    var slowApply = TimeSpan.milliseconds(100)
    var locksMemory = false
    /// False: never wait for the disk.
    var syncsDisk = true
    var clientLimits = ClientLimits()
    /// The console that started this node and ends it with itself.
    var console: pid_t?
}

/// Its flags are the rows of `ServeFlags`, not properties: the same table reads variables and files.
struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run one node in the foreground, with etcd's flags.",
        discussion: "quarterdeck serve --help lists the flags."
    )

    @Argument(parsing: .captureForPassthrough, help: ArgumentHelp("Flags; see above.", valueName: "flags")) var words: [String] = []

    func run() throws {
        switch try ServeSettings.read(words, environment: ProcessInfo.processInfo.environment) {
        case .help: print(ServeHelp.text)
        case .version: print(ServeHelp.version)
        case .run(let settings):
            let status = try ServeRunner.run(ServeOptions(settings))
            if status != 0 { throw ExitCode(status) }
        }
    }

    /// The command of these arguments of the program; nil for another. Help is this command's own, so nobody else is to see that it is asked for.
    static func command(of arguments: [String]) -> ServeCommand? {
        var command = ServeCommand()
        if arguments.first == "serve" {
            command.words = Array(arguments.dropFirst())
        } else {
            guard arguments == ["help", "serve"] else { return nil }
            command.words = ["--help"]
        }
        return command
    }

    /// nil: help or version is wanted.
    func options(environment: [String: String]) throws(CommandFailure) -> ServeOptions? {
        guard case .run(let settings) = try ServeSettings.read(words, environment: environment) else { return nil }
        return try ServeOptions(settings)
    }
}
