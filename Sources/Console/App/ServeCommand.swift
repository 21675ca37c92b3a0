import ArgumentParser
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
    /// 0: the default of 2 GiB.
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
    var clientLimits = ClientLimits()
    /// debug, info, warn, error.
    var logLevel: String
    /// The console that started this node and ends it with itself.
    var console: pid_t?
}

struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run one node in the foreground.",
        discussion: """
            Options have etcd's names and meanings; each can also come from its ETCD_ variable (ETCD_DATA_DIR ...), or all of them from a file in YAML, \
            which leaves no say to the others.
            """
    )

    @Option(help: "Name of this member. (default: default)") var name: String?
    @Option(name: .customLong("data-dir"), help: "Where the data live. (default: NAME.etcd)") var dataDir: String?
    @Option(name: .customLong("listen-client-urls"), help: "Where clients are heard, separated by commas. (default: http://localhost:2379)") var listenClientURLs: String?
    @Option(name: .customLong("advertise-client-urls"), help: "Where clients find this member. (default: http://localhost:2379)") var advertiseClientURLs: String?
    @Option(name: .customLong("listen-metrics-urls"), help: "Where metrics and health alone are served, besides.") var listenMetricsURLs: String?
    @Option(name: .customLong("listen-peer-urls"), help: "Where peers are heard. (default: http://localhost:2380)") var listenPeerURLs: String?
    @Option(name: .customLong("initial-advertise-peer-urls"), help: "Where peers find this member. (default: http://localhost:2380)") var initialAdvertisePeerURLs: String?
    @Option(name: .customLong("initial-cluster"), help: "All first members, name=url separated by commas.") var initialCluster: String?
    @Option(name: .customLong("initial-cluster-token"), help: "Tells this cluster from others. (default: etcd-cluster)") var initialClusterToken: String?
    @Option(name: .customLong("initial-cluster-state"), help: "new or existing. (default: new)") var initialClusterState: String?
    @Option(name: .customLong("heartbeat-interval"), help: "Milliseconds. (default: 100)") var heartbeatInterval: String?
    @Option(name: .customLong("election-timeout"), help: "Milliseconds. (default: 1000)") var electionTimeout: String?
    @Option(name: .customLong("snapshot-count"), help: "Entries applied between snapshots. (default: 10000)") var snapshotCount: String?
    @Option(name: .customLong("experimental-snapshot-catchup-entries"), help: "Entries kept behind a snapshot for slow followers. (default: 5000)") var snapshotCatchUpEntries: String?
    @Option(name: .customLong("quota-backend-bytes"), help: "Size at which the NOSPACE alarm goes off; 0 for 2 GiB. (default: 0)") var quotaBackendBytes: String?
    @Option(name: .customLong("max-request-bytes"), help: "(default: 1572864)") var maxRequestBytes: String?
    @Option(name: .customLong("max-txn-ops"), help: "(default: 128)") var maxTxnOps: String?
    @Option(name: .customLong("experimental-max-learners"), help: "Learners at a time. (default: 1)") var maxLearners: String?
    @Option(name: .customLong("strict-reconfig-check"), help: "Refuse membership changes that could cost the quorum. (default: true)") var strictReconfigCheck: String?
    @Flag(name: .customLong("force-new-cluster"), help: "Go on alone from this member's data; all other members are out of the cluster.") var forceNewCluster = false
    @Option(name: .customLong("auth-token"), help: "How users are recognised: simple, or jwt,sign-method=...,pub-key=...,priv-key=...,ttl=... (default: simple)") var authToken: String?
    @Option(name: .customLong("auth-token-ttl"), help: "Seconds that a simple token lives after its last use. (default: 300)") var authTokenTTL: String?
    @Option(name: .customLong("bcrypt-cost"), help: "Cost of hashing a password, 4 to 31. (default: 10)") var bcryptCost: String?
    @Option(name: .customLong("auto-compaction-mode"), help: "periodic or revision. (default: periodic)") var autoCompactionMode: String?
    @Option(name: .customLong("auto-compaction-retention"), help: "History to keep: a time such as 1h or 5m, or plain hours; in the mode revision a number of revisions; 0 for all. (default: 0)") var autoCompactionRetention: String?
    @OptionGroup(title: "Discovery") var discovery: ServeDiscoveryFlags
    @Option(name: .customLong("config-file"), help: "Take all options from this file.") var configFile: String?
    @OptionGroup(title: "Limits for clients") var clientLimits: ServeLimitFlags
    @OptionGroup(title: "TLS") var tls: ServeTLSFlags
    @OptionGroup(title: "HTTP") var http: ServeHTTPFlags
    @Option(name: .customLong("log-level"), help: "debug, info, warn or error. (default: info)") var logLevel: String?

    @Option(help: ArgumentHelp("Obey the console with this process number: orders come on standard input, and its end is ours.", visibility: .hidden)) var supervised: Int32?

    func run() throws {
        let status = try ServeRunner.run(options(arguments: CommandLine.arguments, environment: ProcessInfo.processInfo.environment))
        if status != 0 { throw ExitCode(status) }
    }

    /// The file if there is one, else options and environment over defaults, all checked. etcd's rules and messages where it has them.
    /// - Parameter arguments: what the options were read from; tells which of them were given.
    func options(arguments: [String] = [], environment: [String: String]) throws(CommandFailure) -> ServeOptions {
        let given = Set(arguments.filter { $0.hasPrefix("--") }.map { String($0.dropFirst(2).prefix { $0 != "=" }) })
        // A console's nodes get their options from it alone, and from its own environment nothing.
        let file = (configFile ?? environment["ETCD_CONFIG_FILE"]).flatMap { $0.isEmpty ? nil : $0 }
        guard let file else {
            var warnings: [String] = []
            for name in environment.keys.sorted() where name.hasPrefix("ETCD_") && environment[name] != "" {
                if name == "ETCD_VERSION" {
                    warnings.append("cannot set special environment variable ETCD_VERSION")
                } else if let flag = given.first(where: { ServeConfigFile.variable($0) == name }) {
                    throw CommandFailure(description: "conflicting environment variable \(name) is shadowed by corresponding command-line flag --\(flag) "
                        + "(either unset environment variable or disable flag)", status: 1)
                } else if !ServeCommand.variables.contains(name) {
                    warnings.append("unrecognized environment variable \(name)")
                }
            }
            var options = try settings(environment)
            options.warnings = warnings
            return options
        }
        let variables = try ServeConfigFile.variables(file)
        // Whatever else was said counts for nothing: this is how a command without any options would understand the file.
        var bare: ServeCommand
        do { bare = try ServeCommand.parse([]) } catch { preconditionFailure("serve needs no options: \(error)") }
        bare.supervised = supervised
        var options = try bare.settings(variables, isFile: true)
        options.warnings = ["loaded server configuration from \(file), other configuration command line flags and environment variables will be ignored if provided"]
        for name in variables.keys.sorted() where !ServeCommand.variables.contains(name) {
            options.warnings.append("\(file): nothing here is called \(name.dropFirst(5).lowercased().replacingOccurrences(of: "_", with: "-"))")
        }
        return options
    }

    /// The variables of all options, as the help names them.
    private static let variables: Set<String> = {
        var names: Set<String> = ["ETCD_UNSUPPORTED_ARCH"]
        for word in ServeCommand.helpMessage(includeHidden: true, columns: 500).split(whereSeparator: { $0 == " " || $0 == "\n" || $0 == "," }) where word.hasPrefix("--") {
            names.insert(ServeConfigFile.variable(String(word.dropFirst(2))))
        }
        return names
    }()

    private func settings(_ environment: [String: String], isFile: Bool = false) throws(CommandFailure) -> ServeOptions {
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line, status: 64) }
        func value(_ option: String?, _ flag: String) -> String? {
            option ?? environment["ETCD_" + flag.uppercased().replacingOccurrences(of: "-", with: "_")].flatMap { $0.isEmpty ? nil : $0 }
        }
        func number(_ option: String?, _ flag: String, _ standard: Int, _ range: ClosedRange<Int>) throws(CommandFailure) -> Int {
            guard let text = value(option, flag) else { return standard }
            guard let read = Int(text), range.contains(read) else {
                let limits = range.upperBound == .max ? "a number of at least \(range.lowerBound)" : "a number from \(range.lowerBound) to \(range.upperBound)"
                throw wrong("--\(flag) \(text): expected \(limits)")
            }
            return read
        }
        func truth(_ option: String?, _ flag: String, _ standard: Bool) throws(CommandFailure) -> Bool {
            switch value(option, flag) {
            case nil: return standard
            case "true"?, "1"?, "t"?, "T"?, "TRUE"?, "True"?: return true
            case "false"?, "0"?, "f"?, "F"?, "FALSE"?, "False"?: return false
            case let text?: throw wrong("--\(flag) \(text): expected true or false")
            }
        }
        func urls(_ text: String) throws(CommandFailure) -> [ServiceURL] {
            var list: [ServiceURL] = []
            for part in text.split(separator: ",") { list.append(try ServiceURL(parsing: part.trimmingCharacters(in: .whitespaces))) }
            return list
        }
        func urls(_ option: String?, _ flag: String, _ standard: String) throws(CommandFailure) -> [ServiceURL] {
            let list: [ServiceURL]
            do throws(CommandFailure) { list = try urls(value(option, flag) ?? standard) } catch { throw wrong("--\(flag): \(error.description)") }
            guard !list.isEmpty else { throw wrong("--\(flag): expected at least one URL") }
            return list
        }
        let name = value(name, "name") ?? "default"
        guard !name.contains("="), !name.contains(",") else { throw wrong("--name \(name): must not contain = or ,") }
        // A file leaves the default, as etcd does.
        if !isFile, value(listenClientURLs, "listen-client-urls") != nil, value(advertiseClientURLs, "advertise-client-urls") == nil {
            throw wrong("--advertise-client-urls is required when --listen-client-urls is set explicitly")
        }
        let records = try discovery.records(environment: environment)
        let discovery = try discovery.options(environment: environment)
        if [discovery != nil, records != nil, value(initialCluster, "initial-cluster") != nil].filter({ $0 }).count > 1 {
            throw wrong("multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"")
        }
        let advertisePeer = try urls(initialAdvertisePeerURLs, "initial-advertise-peer-urls", "http://localhost:2380")
        var members: [InitialMember] = []
        if let text = value(initialCluster, "initial-cluster") {
            for part in text.split(separator: ",") {
                guard let equals = part.firstIndex(of: "="), equals != part.startIndex else { throw wrong("--initial-cluster: \"\(part)\" is not name=url") }
                let member = part[..<equals].trimmingCharacters(in: .whitespaces)
                let url: ServiceURL
                do { url = try ServiceURL(parsing: String(part[part.index(after: equals)...])) } catch { throw wrong("--initial-cluster: \(error.description)") }
                if let index = members.firstIndex(where: { $0.name == member }) {
                    members[index].peerURLs.append(url)
                } else {
                    members.append(InitialMember(name: member, peerURLs: [url]))
                }
            }
            guard let own = members.first(where: { $0.name == name }) else {
                throw wrong("couldn't find local name \"\(name)\" in the initial cluster configuration")
            }
            guard Set(own.peerURLs) == Set(advertisePeer) else {
                throw wrong("--initial-cluster has \(name)=\(own.peerURLs.map(\.description).joined(separator: ",")) but --initial-advertise-peer-urls is \(advertisePeer.map(\.description).joined(separator: ","))")
            }
        } else {
            members = [InitialMember(name: name, peerURLs: advertisePeer)]
        }
        let all = members.flatMap(\.peerURLs)
        guard Set(all).count == all.count else { throw wrong("--initial-cluster: two members have the same URL") }
        let heartbeat = try number(heartbeatInterval, "heartbeat-interval", 100, 1...10_000)
        let election = try number(electionTimeout, "election-timeout", 1_000, 1...50_000)
        guard election >= 5 * heartbeat else {
            throw wrong("--election-timeout[\(election)ms] should be at least as 5 times as --heartbeat-interval[\(heartbeat)ms]")
        }
        let stateText = value(initialClusterState, "initial-cluster-state") ?? "new"
        guard let state = ServeOptions.ClusterStateFlag(rawValue: stateText) else { throw wrong("--initial-cluster-state \(stateText): expected new or existing") }
        let compaction: AutoCompaction
        do throws(NodeError) {
            compaction = try AutoCompaction(mode: value(autoCompactionMode, "auto-compaction-mode") ?? "periodic",
                                            retention: value(autoCompactionRetention, "auto-compaction-retention") ?? "0")
        } catch { throw wrong(error.description) }
        let http = try http.settings(environment: environment)
        let level = value(logLevel, "log-level") ?? "info"
        guard ["debug", "info", "warn", "error"].contains(level) else { throw wrong("--log-level \(level): expected debug, info, warn or error") }
        return ServeOptions(
            name: name, dataDirectory: value(dataDir, "data-dir") ?? "\(name).etcd",
            listenClientURLs: try urls(listenClientURLs, "listen-client-urls", "http://localhost:2379"),
            advertiseClientURLs: try urls(advertiseClientURLs, "advertise-client-urls", "http://localhost:2379"),
            listenClientHTTPURLs: http.urls, http: http.access,
            listenMetricsURLs: value(listenMetricsURLs, "listen-metrics-urls") == nil ? [] : try urls(listenMetricsURLs, "listen-metrics-urls", ""),
            listenPeerURLs: try urls(listenPeerURLs, "listen-peer-urls", "http://localhost:2380"),
            initialAdvertisePeerURLs: advertisePeer, initialCluster: members,
            initialClusterToken: discovery?.token ?? value(initialClusterToken, "initial-cluster-token") ?? "etcd-cluster", initialClusterState: state,
            heartbeatIntervalMilliseconds: heartbeat, electionTimeoutMilliseconds: election,
            snapshotCount: try number(snapshotCount, "snapshot-count", 10_000, 1...Int.max),
            snapshotCatchUpEntries: try number(snapshotCatchUpEntries, "experimental-snapshot-catchup-entries", 5_000, 1...Int.max),
            quotaBackendBytes: Int64(try number(quotaBackendBytes, "quota-backend-bytes", 0, 0...Int.max)),
            maxRequestBytes: try number(maxRequestBytes, "max-request-bytes", 1_572_864, 1...512 << 20),
            maxTxnOps: try number(maxTxnOps, "max-txn-ops", 128, 1...1_000_000),
            maxLearners: try number(maxLearners, "experimental-max-learners", 1, 1...1_000),
            checksReconfiguration: try truth(strictReconfigCheck, "strict-reconfig-check", true),
            forcesNewCluster: try truth(forceNewCluster ? "true" : nil, "force-new-cluster", false),
            authToken: authToken ?? environment["ETCD_AUTH_TOKEN"] ?? "simple",
            authTokenTTLSeconds: try number(authTokenTTL, "auth-token-ttl", 300, 0...1_000_000_000),
            // Beyond its range etcd takes the default, and so does the node.
            bcryptCost: try number(bcryptCost, "bcrypt-cost", 10, 0...1_000), autoCompaction: compaction, discovery: discovery, records: records, tls: try tls.settings(environment: environment),
            clientLimits: try clientLimits.settings(environment: environment, isFile: isFile), logLevel: level, console: supervised)
    }
}
