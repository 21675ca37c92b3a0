import ArgumentParser
import Foundation
import UI

/// How to reach a cluster. Plain values, as the person gave them.
struct ConnectionOptions: Hashable, Sendable {
    /// `host:port`, or with a scheme (`https://host:port`).
    var endpoints: [String]
    var user: String?
    var password: String?
    /// PEM files.
    var certificateAuthority: String?
    var certificate: String?
    var key: String?
    var skipsVerification = false
    /// TLS even where no endpoint says https (a certificate was given).
    var usesTLS = false
    var dialTimeoutNanoseconds: Int64 = 2_000_000_000
    var commandTimeoutNanoseconds: Int64 = 5_000_000_000

    init(endpoints: [String]) { self.endpoints = endpoints }
}

/// How to reach a cluster, with etcdctl's names; the same for every command that connects.
struct ConnectionFlags: ParsableArguments {
    @Option(help: "gRPC endpoints, separated by commas.")
    var endpoints: String?
    @Option(help: ArgumentHelp("User name, asked for the password when there is none.", valueName: "name[:password]"))
    var user: String?
    @Option(help: "Password; --user then holds the name only.")
    var password: String?
    @Option(help: ArgumentHelp("Verify servers with this CA bundle.", valueName: "file"))
    var cacert: String?
    @Option(help: ArgumentHelp("Identify with this TLS certificate.", valueName: "file"))
    var cert: String?
    @Option(help: ArgumentHelp("The key of --cert.", valueName: "file"))
    var key: String?
    @Flag(name: .customLong("insecure-skip-tls-verify"), help: "Accept any server certificate. Only for tests.")
    var skipsVerification = false
    @Flag(name: .customLong("insecure-transport"), inversion: .prefixedNo, help: ArgumentHelp("Connect without TLS where the endpoint names no scheme.", visibility: .hidden))
    var insecureTransport = true
    @Option(name: .customLong("dial-timeout"), help: ArgumentHelp("Longest wait for a connection, such as 2s or 500ms. (default: 2s)", valueName: "time"))
    var dialTimeout: GoDuration?
    @Option(name: .customLong("command-timeout"), help: ArgumentHelp("Longest wait for an answer. (default: 5s)", valueName: "time"))
    var commandTimeout: GoDuration?

    /// Options over environment over defaults. (etcdctl refuses a flag that is also in the environment; that helps nobody here.)
    /// - Parameter endpoint: those given as arguments.
    func options(_ endpoint: [String] = [], environment: [String: String]) throws -> ConnectionOptions {
        func value(_ option: String?, _ variable: String) -> String? {
            option ?? environment["ETCDCTL_" + variable].flatMap { $0.isEmpty ? nil : $0 }
        }
        func time(_ option: GoDuration?, _ variable: String, _ standard: Int64) throws -> Int64 {
            if let option { return option.nanoseconds }
            guard let text = value(nil, variable) else { return standard }
            guard let read = GoDuration(argument: text) else { throw ValidationError("ETCDCTL_\(variable)=\(text): not a time such as 2s or 500ms") }
            return read.nanoseconds
        }
        func flag(_ option: Bool, _ variable: String) throws -> Bool {
            guard !option, let text = value(nil, variable) else { return option }
            switch text.lowercased() {
            case "1", "t", "true": return true
            case "0", "f", "false": return false
            default: throw ValidationError("ETCDCTL_\(variable)=\(text): neither true nor false")
            }
        }
        if !endpoint.isEmpty, endpoints != nil { throw ValidationError("give endpoints either as arguments or with --endpoints") }
        var list = endpoint
        if list.isEmpty { list = (value(endpoints, "ENDPOINTS") ?? "127.0.0.1:2379").split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) } }
        list = list.flatMap { $0.split(separator: ",").map(String.init) }.filter { !$0.isEmpty }
        guard !list.isEmpty else { throw ValidationError("no endpoint given") }
        for text in list { try AttachCommand.check(text) }
        var options = ConnectionOptions(endpoints: list)
        options.certificateAuthority = value(cacert, "CACERT")
        options.certificate = value(cert, "CERT")
        options.key = value(key, "KEY")
        options.skipsVerification = try flag(skipsVerification, "INSECURE_SKIP_TLS_VERIFY")
        options.usesTLS = options.certificateAuthority != nil || options.certificate != nil || options.skipsVerification || !insecureTransport
        options.dialTimeoutNanoseconds = try time(dialTimeout, "DIAL_TIMEOUT", options.dialTimeoutNanoseconds)
        options.commandTimeoutNanoseconds = try time(commandTimeout, "COMMAND_TIMEOUT", options.commandTimeoutNanoseconds)
        if (options.certificate == nil) != (options.key == nil) { throw ValidationError("--cert and --key belong together") }
        for (flag, path) in [("--cacert", options.certificateAuthority), ("--cert", options.certificate), ("--key", options.key)] {
            if let path, access(path, R_OK) != 0 { throw CommandFailure(description: "\(flag) \(path): \(String(cString: strerror(errno)).lowercased())") }
        }
        if let user = value(user, "USER") {
            let given = value(password, "PASSWORD")
            if let given {
                options.user = user
                options.password = given
            } else if let colon = user.firstIndex(of: ":") {
                options.user = String(user[..<colon])
                options.password = String(user[user.index(after: colon)...])
            } else {
                options.user = user
                options.password = try PasswordPrompt.ask("Password for \(user): ")
            }
            guard options.user?.isEmpty == false else { throw ValidationError("--user: the name is empty") }
        } else if password != nil {
            throw ValidationError("--password needs --user")
        }
        return options
    }
}

struct AttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Open the console on a running cluster: etcd 3.4 or newer, or quarterdeck's own nodes.",
        discussion: "Every option has the name and the environment variable (ETCDCTL_ENDPOINTS, ETCDCTL_USER ...) that etcdctl gives it; options win."
    )

    @Argument(help: "Endpoints, host:port. (default: --endpoints, ETCDCTL_ENDPOINTS, 127.0.0.1:2379)")
    var endpoint: [String] = []
    @OptionGroup var connection: ConnectionFlags
    @OptionGroup var console: ConsoleFlags

    func run() throws {
        let signals = SignalInbox.install()
        let connection = try connectionOptions(environment: ProcessInfo.processInfo.environment)
        let name = AttachCommand.clusterName(connection.endpoints)
        // A name that says "production" gets no second chance to be hit by accident.
        let isReadOnly = console.isReadOnly || name.lowercased().hasPrefix("prod")
        let cluster = ClusterState(name: name, kind: .attached, mode: isReadOnly ? .readOnly : .ask)
        let mailbox = Mailbox()
        let runner = try ClusterSession(cluster: cluster, connection: connection, host: nil, mailbox: mailbox)
        if let path = console.record { try runner.recordFromStart(path) }
        var flags = console
        flags.isReadOnly = isReadOnly
        try ConsoleSession(flags: flags, signals: signals, mailbox: mailbox, runner: runner, cluster: cluster).run()
    }

    static func clusterName(_ endpoints: [String]) -> String {
        let first = endpoints.first ?? "cluster"
        return first.range(of: "://").map { String(first[$0.upperBound...]) } ?? first
    }

    func connectionOptions(environment: [String: String]) throws -> ConnectionOptions {
        try connection.options(endpoint, environment: environment)
    }

    static func check(_ endpoint: String) throws {
        var rest = Substring(endpoint)
        if let scheme = endpoint.range(of: "://") {
            let name = endpoint[..<scheme.lowerBound].lowercased()
            guard ["http", "https"].contains(name) else { throw ValidationError("endpoint \(endpoint): \(name):// is not supported, only http:// and https://") }
            rest = endpoint[scheme.upperBound...]
        }
        let port = rest.split(separator: ":", omittingEmptySubsequences: false).last.map(String.init) ?? ""
        guard rest.contains(":"), let number = Int(port), (1...65_535).contains(number), !rest.hasPrefix(":") || rest.hasPrefix(":::") else {
            throw ValidationError("endpoint \(endpoint): expected host:port")
        }
    }
}

/// A password from the terminal, without showing it.
enum PasswordPrompt {
    static func ask(_ prompt: String) throws -> String {
        let terminal = open("/dev/tty", O_RDWR | O_CLOEXEC)
        guard terminal >= 0 else { throw CommandFailure(description: "no terminal to ask for the password; use --user name:password or ETCDCTL_PASSWORD") }
        defer { close(terminal) }
        var saved = termios()
        tcgetattr(terminal, &saved)
        var silent = saved
        silent.c_lflag &= ~tcflag_t(ECHO)
        // No character of it may be echoed, however fast it is typed.
        tcsetattr(terminal, TCSAFLUSH, &silent)
        defer { tcsetattr(terminal, TCSANOW, &saved) }
        _ = prompt.withCString { write(terminal, $0, strlen($0)) }
        var password: [UInt8] = []
        var byte: UInt8 = 0
        while read(terminal, &byte, 1) == 1, byte != 10, byte != 13 { password.append(byte) }
        _ = write(terminal, "\n", 1)
        return String(decoding: password, as: UTF8.self)
    }
}
