import ArgumentParser
import Foundation
import Simulation

extension TortureOptions.Engine: ExpressibleByArgument {}
extension TortureOptions.Profile: ExpressibleByArgument {}

@main struct TortureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "torture",
        abstract: "Runs real processes under load and faults, and checks what their clients saw.",
        discussion: "Members are killed, stopped, cut off and given bad disks while clients read, write and watch. At the end the history must be "
            + "linearizable, every watch complete, and all members equal. The same seed gives the same calls and the same faults, not the same timing."
    )

    @Option(help: "Decides settings, calls and faults. (default: drawn, and printed)") var seed: UInt64?
    @Option(help: "How long faults go on: 90, 90s, 5m.") var duration = "60s"
    @Option(help: "Members.") var nodes = 3
    @Option(help: "Clients.") var clients = 8
    @Option(help: "kill, pause, net, disk, all or none.") var profile = TortureOptions.Profile.all
    @Option(help: "quarterdeck, or etcd for comparison.") var engine = TortureOptions.Engine.quarterdeck
    @Option(help: "The program quarterdeck. (default: beside this program)") var binary: String?
    @Option(help: "Where data, logs and history go. (default: a new directory, removed after a run without faults)") var dataDir: String?
    @Option(help: "Acknowledged calls a second before the first fault, below which a run fails as \"no load\".") var floor = 50.0
    @Option(help: "Runs, one after another, with the seeds that follow.") var runs = 1
    @Flag(help: "Keep data, logs and history also when nothing was wrong.") var keep = false
    @Flag(help: "Print the summary as JSON.") var json = false
    @Flag(help: "Say nothing on standard error.") var quiet = false

    func run() async throws {
        guard let seconds = TortureCommand.seconds(duration) else { throw ValidationError("--duration \(duration): expected a time such as 90s or 5m") }
        guard (1...9).contains(nodes), (1...200).contains(clients), runs > 0 else { throw ValidationError("--nodes 1 to 9, --clients 1 to 200, --runs at least 1") }
        let first = seed ?? UInt64.random(in: 1..<1_000_000)
        var hasFailed = false
        for seed in first..<first + UInt64(runs) {
            var options = TortureOptions(seed: seed, binary: binary ?? TortureCommand.sibling("quarterdeck"), directory: try directory(seed))
            options.seconds = seconds
            options.nodeCount = nodes
            options.clientCount = clients
            options.engine = engine
            options.profile = profile
            options.keeps = keep
            options.minimumRate = floor
            options.isQuiet = quiet
            if engine == .etcd { options.etcdBinary = try TortureCommand.etcd() }
            if await !TortureReport.run(options, asJSON: json) { hasFailed = true }
        }
        if hasFailed { throw ExitCode(1) }
    }

    private func directory(_ seed: UInt64) throws -> String {
        if let dataDir { return runs == 1 ? dataDir : dataDir + "/\(seed)" }
        return NSTemporaryDirectory() + "torture-\(seed)-\(getpid())"
    }

    static func seconds(_ text: String) -> Double? {
        if text.hasSuffix("ms") { return Double(text.dropLast(2)).map { $0 / 1e3 } }
        if text.hasSuffix("m") { return Double(text.dropLast()).map { $0 * 60 } }
        return Double(text.hasSuffix("s") ? String(text.dropLast()) : text).flatMap { $0 >= 0 ? $0 : nil }
    }

    private static func sibling(_ name: String) -> String {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name).path
    }

    private static func etcd() throws -> String {
        let environment = ProcessInfo.processInfo.environment
        let directories = (environment["QUARTERDECK_ETCD_DIR"].map { [$0] } ?? []) + (environment["PATH"] ?? "").split(separator: ":").map(String.init)
        guard let path = directories.lazy.map({ $0 + "/etcd" }).first(where: { access($0, X_OK) == 0 }) else {
            throw ValidationError("--engine etcd: no etcd in PATH or QUARTERDECK_ETCD_DIR")
        }
        return path
    }
}

/// Runs, and says on one line how it went.
enum TortureReport {
    /// True: nothing was wrong.
    static func run(_ options: TortureOptions, asJSON: Bool) async -> Bool {
        var options = options
        options.directory = URL(fileURLWithPath: options.directory).path
        do {
            let outcome = try await TortureRun(options).run()
            if outcome.violations.isEmpty {
                if !options.keeps { try? FileManager.default.removeItem(atPath: options.directory) }
            }
            if !outcome.violations.isEmpty || options.keeps {
                try? HistoryFile.write(outcome.evidence, to: options.directory + "/history.jsonl")
                try? Data(outcome.violations.map { "\($0)\n" }.joined().utf8).write(to: URL(fileURLWithPath: options.directory + "/violations.txt"))
            }
            say(asJSON ? json(options, outcome) : summary(options, outcome))
            return outcome.violations.isEmpty
        } catch {
            say(failure(options, "no-end", "\(error)", more: 0))
            return false
        }
    }

    /// At once, also into a file.
    private static func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

    private static func faults(_ outcome: TortureRun.Outcome) -> String {
        outcome.faults.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    }

    private static func failure(_ options: TortureOptions, _ invariant: String, _ detail: String, more: Int) -> String {
        "TORTURE-FAIL seed=\(options.seed) engine=\(options.engine.rawValue) profile=\(options.profile.rawValue) invariant=\(invariant) detail=\"\(detail.prefix(600))\""
            + (more > 0 ? " and \(more) more" : "") + " kept: \(options.directory) repeat: \(options.command)"
    }

    static func summary(_ options: TortureOptions, _ outcome: TortureRun.Outcome) -> String {
        if let first = outcome.violations.first { return failure(options, first.invariant, first.detail, more: outcome.violations.count - 1) }
        return String(format: "torture: pass seed=%llu engine=%@ profile=%@ faults=%.0fs calls=%d (done %d, refused %d, unknown %d) rate=%.0f/s revisions=%d watches=%d events=%d restarts=%d search=%@ judged in %.1fs; ",
                      options.seed, options.engine.rawValue, options.profile.rawValue, outcome.faultSeconds, outcome.evidence.operations.count, outcome.done, outcome.refused, outcome.unknown,
                      outcome.rate, outcome.verdict.revisions, outcome.records, outcome.verdict.watchEvents, outcome.restarts, outcome.verdict.search, outcome.judgeSeconds)
            + faults(outcome) + (options.keeps ? "; kept: \(options.directory)" : "")
    }

    private static func json(_ options: TortureOptions, _ outcome: TortureRun.Outcome) -> String {
        let object: [String: Any] = [
            "seed": options.seed, "engine": options.engine.rawValue, "profile": options.profile.rawValue, "nodes": options.nodeCount, "clients": options.clientCount,
            "faultSeconds": outcome.faultSeconds, "calls": outcome.evidence.operations.count, "done": outcome.done, "refused": outcome.refused, "unknown": outcome.unknown,
            "rate": outcome.rate, "revisions": outcome.verdict.revisions, "watches": outcome.records, "watchEvents": outcome.verdict.watchEvents, "restarts": outcome.restarts, "search": outcome.verdict.search,
            "faults": outcome.faults, "judgeSeconds": outcome.judgeSeconds, "repeat": options.command,
            "violations": outcome.violations.map { ["invariant": $0.invariant, "detail": $0.detail] },
            "kept": outcome.violations.isEmpty && !options.keeps ? "" : options.directory,
        ]
        return String(decoding: (try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])) ?? Data(), as: UTF8.self)
    }
}
