import Foundation
import UI

/// The scenarios: files that came along, and those of the person.
struct ScenarioLibrary: Sendable {
    /// Searched in this order; the first file of a name wins.
    var directories: [String]

    init(executable: String? = Bundle.main.executablePath) { directories = Paths.shared("scenarios", executable: executable) }
    init(directories: [String]) { self.directories = directories }

    /// Each name once, in order.
    func names() -> [String] {
        var found: Set<String> = []
        for directory in directories {
            for file in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] where file.hasSuffix(".yaml") && !file.hasPrefix(".") {
                found.insert(String(file.dropLast(5)))
            }
        }
        return found.sorted()
    }

    /// - Parameter reference: a name, or the path of a file: with a slash or `.yaml` in it.
    func scenario(_ reference: String) throws(ScenarioFailure) -> Scenario {
        if reference.contains("/") || reference.hasSuffix(".yaml") {
            guard let data = FileManager.default.contents(atPath: Paths.expanded(reference)) else { throw ScenarioFailure(description: "\(reference): no such file") }
            return try ScenarioParser.parse(String(decoding: data, as: UTF8.self), file: reference)
        }
        for directory in directories {
            let path = directory + "/" + reference + ".yaml"
            guard let data = FileManager.default.contents(atPath: path) else { continue }
            return try ScenarioParser.parse(String(decoding: data, as: UTF8.self), file: Paths.abbreviated(path))
        }
        let names = names()
        throw ScenarioFailure(description: "no scenario \"\(reference)\"; " + (names.isEmpty ? "none is installed" : "there are: \(names.joined(separator: ", "))"))
    }

    /// All of them for a list. A file with a mistake is in it, with the mistake as its obstacle.
    func summaries(obstacle: (Scenario) -> String?) -> [ScenarioSummary] {
        names().map { name in
            do throws(ScenarioFailure) {
                let scenario = try scenario(name)
                return ScenarioSummary(name: name, title: scenario.title, description: scenario.description, obstacle: obstacle(scenario))
            } catch {
                return ScenarioSummary(name: name, title: name, description: "", obstacle: error.description)
            }
        }
    }
}

extension Scenario {
    /// Why it cannot be played on these nodes; nil: it can.
    /// - Parameter playground: what they were started with.
    func obstacle(on host: any NodeHost, playground: PlaygroundOptions) -> String? {
        if host.nodes.count < nodes { return "needs \(nodes) nodes, this playground has \(host.nodes.count): quarterdeck playground --nodes \(nodes)" }
        for kind in Scenario.kinds(steps) {
            if let reason = host.faultSupport.reason(kind) { return reason }
        }
        if self.options.catchUpEntries != nil, playground.engine == .etcd { return "needs catch-up-entries, which real etcd does not let one choose" }
        var options: [String] = []
        if let count = self.options.snapshotCount, playground.snapshotCount.map({ $0 > count }) ?? true { options.append("snapshot-count \(count)") }
        if let count = self.options.catchUpEntries, playground.catchUpEntries.map({ $0 > count }) ?? true { options.append("catch-up-entries \(count)") }
        if let span = self.options.heartbeatMilliseconds, span != playground.heartbeatMilliseconds { options.append("heartbeat-interval \(span)ms") }
        if let span = self.options.electionMilliseconds, span != playground.electionMilliseconds { options.append("election-timeout \(span)ms") }
        return options.isEmpty ? nil : "needs nodes with \(options.joined(separator: ", ")): quarterdeck scenario \(name) --screen"
    }

    /// Every kind of fault in it, in the order of its steps.
    private static func kinds(_ steps: [Step]) -> [FaultKind] {
        steps.flatMap { step -> [FaultKind] in
            switch step.action {
            case .repeated(_, let inner): kinds(inner)
            case .fault(let form, _): [form.kind]
            default: []
            }
        }
    }

    /// A playground that it can be played in.
    func playground(engine: PlaygroundOptions.Engine) -> PlaygroundOptions {
        var playground = PlaygroundOptions()
        playground.engine = engine
        playground.nodeCount = nodes
        playground.snapshotCount = options.snapshotCount
        playground.catchUpEntries = options.catchUpEntries
        if let span = options.heartbeatMilliseconds { playground.heartbeatMilliseconds = span }
        if let span = options.electionMilliseconds { playground.electionMilliseconds = span }
        return playground
    }
}

extension Scenario.FaultForm {
    var kind: FaultKind {
        switch self {
        case .kill: .kill
        case .stop: .stop
        case .pause: .pause
        case .tear: .tornTail
        case .isolate: .isolate
        case .cut: .cut
        case .partition: .partition
        case .wire: .wire
        case .disk(_, let fault): Fault.disk(0, fault).kind
        case .clock(_, let fault): Fault.clock(0, fault).kind
        }
    }
}
