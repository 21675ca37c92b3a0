import Foundation
import UI
import Yams

/// A scenario file that cannot be used: where, what is wrong, what is allowed. One line.
struct ScenarioFailure: Error, Hashable, CustomStringConvertible {
    var description: String
}

/// Reads scenario files. `scenarios/README.md` says what they may hold; everything else is refused.
struct ScenarioParser {
    /// For messages.
    private let file: String
    private var picked: Set<String> = []
    private var nodes = 3

    private init(file: String) { self.file = file }

    /// - Parameter file: its path as messages show it; the scenario's name is the last part without `.yaml`.
    static func parse(_ text: String, file: String) throws(ScenarioFailure) -> Scenario {
        var parser = ScenarioParser(file: file)
        let root: Node
        do {
            guard let composed = try YAMLFile.compose(text) else { throw ScenarioFailure(description: "\(file): empty") }
            root = composed
        } catch let failure as ScenarioFailure {
            throw failure
        } catch let fault as YAMLFile.Fault {
            throw parser.failure(fault.line, fault.description)
        } catch let YamlError.scanner(_, problem, mark, _), let YamlError.parser(_, problem, mark, _), let YamlError.composer(_, problem, mark, _) {
            throw parser.failure(mark.line, "not valid YAML: \(problem)")
        } catch let YamlError.duplicatedKeysInMapping(duplicates, context) {
            throw parser.failure(context.mark.line, "\(duplicates.map { "\"\($0)\"" }.joined(separator: ", ")) is there twice")
        } catch {
            throw ScenarioFailure(description: "\(file): not valid YAML: \(String(describing: error).split(separator: "\n").first ?? "")")
        }
        return try parser.scenario(root)
    }

    // MARK: Pieces

    private func failure(_ line: Int, _ text: String) -> ScenarioFailure { ScenarioFailure(description: "\(file):\(line): \(text)") }
    private func failure(_ node: Node, _ text: String) -> ScenarioFailure { failure(node.mark?.line ?? 1, text) }
    private static func list(_ words: some Sequence<String>) -> String { words.joined(separator: ", ") }

    /// The entries of a mapping in the file's order; each key known, and there once.
    private func entries(_ node: Node, _ what: String, _ known: [String]?) throws(ScenarioFailure) -> [(key: String, name: Node, value: Node)] {
        guard case .mapping(let mapping) = node else { throw failure(node, "\(what): not a mapping of names and values") }
        var found: [(key: String, name: Node, value: Node)] = []
        for (name, value) in mapping {
            guard case .scalar(let scalar) = name else { throw failure(name, "\(what): a name must be a word") }
            let key = scalar.string
            if let known, !known.contains(key) { throw failure(name, "\(what): unknown entry \"\(key)\"; known: \(ScenarioParser.list(known))") }
            found.append((key, name, value))
        }
        return found
    }

    private func text(_ node: Node, _ what: String) throws(ScenarioFailure) -> String {
        guard case .scalar(let scalar) = node else { throw failure(node, "\(what): not a text") }
        let text = scalar.string.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        guard !text.isEmpty else { throw failure(node, "\(what): empty") }
        return text
    }

    private func number(_ node: Node, _ what: String, _ range: ClosedRange<Int>) throws(ScenarioFailure) -> Int {
        let text = try text(node, what)
        guard let number = Int(text.filter { $0 != "_" }), range.contains(number) else {
            throw failure(node, "\(what): \(text) is not a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private func flag(_ node: Node, _ what: String) throws(ScenarioFailure) -> Bool {
        switch try text(node, what) {
        case "true", "yes": return true
        case "false", "no": return false
        case let text: throw failure(node, "\(what): \(text) is neither true nor false")
        }
    }

    /// Milliseconds, more than none and at most ten minutes: a scenario that waits for longer than that hangs.
    private func duration(_ node: Node, _ what: String) throws(ScenarioFailure) -> Int64 {
        let text = try text(node, what)
        guard let milliseconds = ScenarioParser.milliseconds(text), milliseconds > 0, milliseconds <= 600_000 else {
            throw failure(node, "\(what): \(text) is not a time like 300ms, 1.5s or 1m, of at most 10m")
        }
        return milliseconds
    }

    private static func milliseconds(_ text: String) -> Int64? { GoDuration(argument: text).map { $0.nanoseconds / 1_000_000 + ($0.nanoseconds % 1_000_000 >= 500_000 ? 1 : 0) } }

    // MARK: The file

    private mutating func scenario(_ root: Node) throws(ScenarioFailure) -> Scenario {
        var scenario = Scenario(name: ScenarioParser.name(of: file), title: "", description: "", nodes: 3, steps: [])
        let entries = try entries(root, "a scenario", ["title", "description", "nodes", "options", "steps"])
        for entry in entries where entry.key == "nodes" {
            scenario.nodes = try number(entry.value, "nodes", 1...7)
            guard [1, 3, 5, 7].contains(scenario.nodes) else { throw failure(entry.value, "nodes: \(scenario.nodes) is not 1, 3, 5 or 7") }
        }
        nodes = scenario.nodes
        for entry in entries {
            switch entry.key {
            case "title": scenario.title = try text(entry.value, "title")
            case "description": scenario.description = try text(entry.value, "description")
            case "options": scenario.options = try options(entry.value)
            case "steps": scenario.steps = try steps(entry.value, "")
            default: break
            }
        }
        guard !scenario.title.isEmpty else { throw failure(root, "no title") }
        guard !scenario.steps.isEmpty else { throw failure(root, "no steps") }
        return scenario
    }

    static func name(of file: String) -> String {
        let name = (file as NSString).lastPathComponent
        return name.hasSuffix(".yaml") ? String(name.dropLast(5)) : name
    }

    private func options(_ node: Node) throws(ScenarioFailure) -> Scenario.NodeOptions {
        var options = Scenario.NodeOptions()
        for (key, _, value) in try entries(node, "options", ["snapshot-count", "catch-up-entries", "heartbeat-interval", "election-timeout"]) {
            switch key {
            case "snapshot-count": options.snapshotCount = try number(value, key, 1...1_000_000)
            case "catch-up-entries": options.catchUpEntries = try number(value, key, 1...1_000_000)
            case "heartbeat-interval": options.heartbeatMilliseconds = Int(try duration(value, key))
            default: options.electionMilliseconds = Int(try duration(value, key))
            }
        }
        let heartbeat = options.heartbeatMilliseconds ?? PlaygroundOptions().heartbeatMilliseconds
        guard options.electionMilliseconds ?? PlaygroundOptions().electionMilliseconds >= 5 * heartbeat else {
            throw failure(node, "options: election-timeout must be at least 5 times heartbeat-interval (\(heartbeat)ms)")
        }
        return options
    }

    // MARK: Steps

    /// Repeats within repeats: more is no experiment that anybody would follow.
    private static let maxDepth = 8

    private mutating func steps(_ node: Node, _ place: String) throws(ScenarioFailure) -> [Scenario.Step] {
        guard case .sequence(let sequence) = node else { throw failure(node, "steps: not a list") }
        guard !sequence.isEmpty else { throw failure(node, "steps: empty") }
        guard place.count(where: { $0 == "." }) < ScenarioParser.maxDepth else { throw failure(node, "steps: nested too deeply") }
        var steps: [Scenario.Step] = []
        for (index, node) in sequence.enumerated() { steps.append(try step(node, "step \(place)\(index + 1)")) }
        return steps
    }

    private static let actions = ["pick", "load", "fault", "heal", "restart", "lead", "put", "compact", "wait", "hold", "pause", "repeat", "expect"]

    private mutating func step(_ node: Node, _ place: String) throws(ScenarioFailure) -> Scenario.Step {
        let entries = try entries(node, place, ["say", "for", "times"] + ScenarioParser.actions)
        let actions = entries.filter { ScenarioParser.actions.contains($0.key) }
        guard actions.count <= 1 else {
            throw failure(actions[1].name, "\(place): does two things, \(actions[0].key) and \(actions[1].key); make it two steps")
        }
        var step = Scenario.Step(say: nil, action: .say, line: node.mark?.line ?? 1)
        if let say = entries.first(where: { $0.key == "say" }) { step.say = try text(say.value, "\(place): say") }
        guard let action = actions.first else {
            guard step.say != nil else { throw failure(node, "\(place): nothing to do; one of: say, \(ScenarioParser.list(ScenarioParser.actions))") }
            if let extra = entries.first(where: { $0.key != "say" }) { throw failure(extra.name, "\(place): \"\(extra.key)\" belongs to another kind of step") }
            return step
        }
        for (key, owner) in [("for", "fault"), ("times", "put")] {
            if let extra = entries.first(where: { $0.key == key }), action.key != owner { throw failure(extra.name, "\(place): \"\(key)\" only goes with \(owner)") }
        }
        let what = "\(place): \(action.key)"
        let value = action.value
        switch action.key {
        case "pick": step.action = .pick(try picks(value, what))
        case "load": step.action = .load(try load(value, what))
        case "fault":
            var milliseconds: Int64?
            if let span = entries.first(where: { $0.key == "for" }) { milliseconds = try duration(span.value, "\(place): for") }
            step.action = .fault(try fault(value, what), milliseconds: milliseconds)
        case "heal":
            switch try text(value, what) {
            case "all": step.action = .heal(.all)
            case "last": step.action = .heal(.last)
            case let verb where ScenarioParser.verbs.contains(verb): step.action = .heal(.verb(verb))
            case let other: throw failure(value, "\(what): \"\(other)\" is not all, last, or a kind of fault: \(ScenarioParser.list(ScenarioParser.verbs))")
            }
        case "restart": step.action = .restart(try selector(text(value, what), value, what))
        case "lead": step.action = .lead(try selector(text(value, what), value, what))
        case "put":
            let words = try text(value, what).split(separator: " ", maxSplits: 1).map(String.init)
            var times = 1
            if let entry = entries.first(where: { $0.key == "times" }) { times = try number(entry.value, "\(place): times", 1...100_000) }
            step.action = .put(key: words[0], value: words.count > 1 ? words[1] : "", times: times)
        case "compact":
            guard try text(value, what) == "all" else { throw failure(value, "\(what): only \"all\" is possible: everything up to now") }
            step.action = .compact
        case "wait": step.action = try wait(value, what)
        case "hold": step.action = .hold(milliseconds: try duration(value, what))
        case "pause": step.action = .pause(milliseconds: try duration(value, what))
        case "repeat":
            var times = 0
            var inner: [Scenario.Step] = []
            for (key, _, value) in try self.entries(value, what, ["times", "steps"]) {
                if key == "times" { times = try number(value, "\(what) times", 1...1_000) } else { inner = try steps(value, "\(place.dropFirst(5)).") }
            }
            guard times > 0, !inner.isEmpty else { throw failure(value, "\(what): needs times and steps") }
            step.action = .repeated(times: times, steps: inner)
        default: step.action = .expect(try expectations(value, what))
        }
        return step
    }

    private mutating func picks(_ node: Node, _ what: String) throws(ScenarioFailure) -> [Scenario.Pick] {
        var picks: [Scenario.Pick] = []
        for (name, key, value) in try entries(node, what, nil) {
            guard name.first?.isLetter == true, name.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "-" }) else { throw failure(key, "\(what): \"\(name)\" is not a name: letters, digits and -") }
            guard ScenarioParser.plainSelector(name) == nil, !["to", "on", "by"].contains(name) else { throw failure(key, "\(what): \"\(name)\" has a meaning of its own") }
            picks.append(Scenario.Pick(name: name, nodes: try selector(text(value, what), value, what)))
            picked.insert(name)
        }
        guard !picks.isEmpty else { throw failure(node, "\(what): nothing picked") }
        return picks
    }

    private func load(_ node: Node, _ what: String) throws(ScenarioFailure) -> WorkloadSettings? {
        if case .scalar(let scalar) = node {
            guard ["off", "false"].contains(scalar.string) else { throw failure(node, "\(what): \"\(scalar.string)\" is neither off nor {puts: 200, reads: 200, ...}") }
            return nil
        }
        var settings = WorkloadSettings()
        func choice<Choice: RawRepresentable & CaseIterable>(_ node: Node, _ what: String, _: Choice.Type) throws(ScenarioFailure) -> Choice where Choice.RawValue == String {
            let text = try text(node, what)
            guard let found = Choice(rawValue: text) else { throw failure(node, "\(what): \"\(text)\" is none of: \(ScenarioParser.list(Choice.allCases.map(\.rawValue)))") }
            return found
        }
        for (key, _, value) in try entries(node, what, ["puts", "reads", "clients", "value-bytes", "keys", "distribution", "consistency", "target", "pace"]) {
            let what = "\(what) \(key)"
            switch key {
            case "puts": settings.putsPerSecond = try number(value, what, 0...20_000)
            case "reads": settings.readsPerSecond = try number(value, what, 0...20_000)
            case "clients": settings.clients = try number(value, what, 1...1_000)
            case "value-bytes": settings.valueBytes = try number(value, what, 24...1_048_576)
            case "keys": settings.keyCount = try number(value, what, 1...100_000)
            case "distribution": settings.distribution = try choice(value, what, WorkloadSettings.Distribution.self)
            case "consistency": settings.consistency = try choice(value, what, WorkloadSettings.Consistency.self)
            case "target": settings.target = try choice(value, what, WorkloadSettings.Target.self)
            default: settings.pace = try choice(value, what, WorkloadSettings.Pace.self)
            }
        }
        guard settings.putsPerSecond + settings.readsPerSecond > 0 else { throw failure(node, "\(what): neither puts nor reads") }
        return settings
    }

    // MARK: Nodes

    private static let selectors = "leader, followers, any follower, n1 ... n7, all, rest, down, majority or minority with or without leader, or a name from pick"

    private static func plainSelector(_ text: String) -> Scenario.Selector? {
        switch text {
        case "leader": .leader
        case "followers": .followers
        case "any follower": .anyFollower
        case "all": .all
        case "rest": .rest
        case "down": .down
        case "majority with leader": .majority(withLeader: true)
        case "majority without leader", "majority": .majority(withLeader: false)
        case "minority with leader": .minority(withLeader: true)
        case "minority without leader", "minority": .minority(withLeader: false)
        default:
            if text.hasPrefix("n"), text.count == 2, let number = Int(text.dropFirst()) { .number(number) } else { nil }
        }
    }

    private func selector(_ text: String, _ node: Node, _ what: String) throws(ScenarioFailure) -> Scenario.Selector {
        if let found = ScenarioParser.plainSelector(text) {
            if case .number(let number) = found, !(1...nodes).contains(number) { throw failure(node, "\(what): there is no \(text); the scenario has \(nodes) nodes") }
            return found
        }
        if picked.contains(text) { return .picked(text) }
        throw failure(node, "\(what): \"\(text)\" names no nodes; known: \(ScenarioParser.selectors)")
    }

    // MARK: Faults

    static let verbs = ["kill", "stop", "pause", "tear", "isolate", "cut", "partition", "wire", "disk", "clock"]

    /// `kill leader`, `cut all -> n1`, `partition minority with leader | rest`, `wire n1 <-> n2 delay 200ms loss 10%`, `disk leader slow 200ms`.
    private func fault(_ node: Node, _ what: String) throws(ScenarioFailure) -> Scenario.FaultForm {
        let all = try text(node, what)
        let words = all.split(separator: " ").map(String.init)
        let verb = words[0], rest = words.dropFirst().joined(separator: " ")
        guard ScenarioParser.verbs.contains(verb) else { throw failure(node, "\(what): unknown fault \"\(verb)\"; known: \(ScenarioParser.list(ScenarioParser.verbs))") }
        guard !rest.isEmpty else { throw failure(node, "\(what): \(verb) whom?") }
        switch verb {
        case "kill": return .kill(try selector(rest, node, what))
        case "stop": return .stop(try selector(rest, node, what))
        case "pause": return .pause(try selector(rest, node, what))
        case "tear": return .tear(try selector(rest, node, what))
        case "isolate": return .isolate(try selector(rest, node, what))
        case "partition":
            var groups: [Scenario.Selector] = []
            for part in rest.split(separator: "|", omittingEmptySubsequences: false) {
                groups.append(try selector(part.trimmingCharacters(in: .whitespaces), node, what))
            }
            guard groups.count > 1 else { throw failure(node, "\(what): a partition needs groups, like minority with leader | rest") }
            return .partition(groups)
        case "cut":
            let (from, to, isMutual, tail) = try link(words.dropFirst(), node, what)
            guard tail.isEmpty else { throw failure(node, "\(what): \"\(tail[0])\" after the nodes; a cut has no more words") }
            return .cut(from: from, to: to, isMutual: isMutual)
        case "wire":
            let (from, to, isMutual, tail) = try link(words.dropFirst(), node, what)
            return .wire(from: from, to: to, isMutual: isMutual, try wire(tail, node, what))
        case "disk": return try disk(words.dropFirst(), node, what)
        default: return try clock(words.dropFirst(), node, what)
        }
    }

    /// `a -> b ...` or `a <-> b ...`; what follows the nodes starts with one of the words of `wire`.
    private func link(_ words: ArraySlice<String>, _ node: Node, _ what: String) throws(ScenarioFailure) -> (Scenario.Selector, Scenario.Selector, Bool, [String]) {
        guard let arrow = words.firstIndex(where: { $0 == "->" || $0 == "<->" }), arrow > words.startIndex else {
            throw failure(node, "\(what): a link is FROM -> TO, or A <-> B for both ways")
        }
        let end = words[(arrow + 1)...].firstIndex { ScenarioParser.wireWords.contains($0) } ?? words.endIndex
        let from = try selector(words[..<arrow].joined(separator: " "), node, what)
        let to = try selector(words[(arrow + 1)..<end].joined(separator: " "), node, what)
        return (from, to, words[arrow] == "<->", Array(words[end...]))
    }

    private static let wireWords = ["delay", "jitter", "loss", "duplicate", "rate"]

    private func wire(_ words: [String], _ node: Node, _ what: String) throws(ScenarioFailure) -> WireFault {
        var wire = WireFault()
        guard !words.isEmpty else { throw failure(node, "\(what): makes no link worse; say delay 200ms, jitter 50ms, loss 10%, duplicate 1%, rate 64KB") }
        var index = 0
        while index < words.count {
            let word = words[index]
            guard ScenarioParser.wireWords.contains(word) else { throw failure(node, "\(what): unknown word \"\(word)\"; known: \(ScenarioParser.list(ScenarioParser.wireWords))") }
            guard index + 1 < words.count else { throw failure(node, "\(what): \(word) of what?") }
            let value = words[index + 1]
            switch word {
            case "delay", "jitter":
                guard let span = GoDuration(argument: value) else { throw failure(node, "\(what): \(word): \(value) is not a time like 200ms") }
                let milliseconds = Double(span.nanoseconds) / 1e6
                if word == "delay" { wire.delayMilliseconds = milliseconds } else { wire.jitterMilliseconds = milliseconds }
            case "loss", "duplicate":
                guard value.hasSuffix("%"), let percent = Double(value.dropLast()), (0...100).contains(percent) else { throw failure(node, "\(what): \(word): \(value) is not a share like 10%") }
                if word == "loss" { wire.lossPercent = percent } else { wire.duplicatePercent = percent }
            default:
                let units = [("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)]
                guard let unit = units.first(where: { value.hasSuffix($0.0) }), let number = Int(value.dropLast(unit.0.count)), (1...1_000_000).contains(number) else {
                    throw failure(node, "\(what): rate: \(value) is not bytes a second like 64KB")
                }
                wire.bytesPerSecond = number * unit.1
            }
            index += 2
        }
        return wire
    }

    private func disk(_ words: ArraySlice<String>, _ node: Node, _ what: String) throws(ScenarioFailure) -> Scenario.FaultForm {
        guard let index = words.lastIndex(where: { ["slow", "stuck", "full", "broken"].contains($0) }), index > words.startIndex else {
            throw failure(node, "\(what): a disk is slow 200ms, stuck, full or broken")
        }
        let nodes = try selector(words[..<index].joined(separator: " "), node, what)
        let tail = Array(words[(index + 1)...])
        let fault: DiskFault
        switch words[index] {
        case "slow":
            guard let value = tail.first, let milliseconds = ScenarioParser.milliseconds(value), (1...600_000).contains(milliseconds) else {
                throw failure(node, "\(what): slow by how much? slow 200ms")
            }
            fault = .slow(milliseconds: Int(milliseconds))
        case "stuck": fault = .stuck
        case "full": fault = .full
        default: fault = .broken
        }
        let expected = words[index] == "slow" ? 1 : 0
        guard tail.count == expected else { throw failure(node, "\(what): \"\(tail[expected])\" is one word too many") }
        return .disk(nodes, fault)
    }

    private func clock(_ words: ArraySlice<String>, _ node: Node, _ what: String) throws(ScenarioFailure) -> Scenario.FaultForm {
        guard let index = words.lastIndex(where: { ["jump", "drift"].contains($0) }), index > words.startIndex, words.count == index - words.startIndex + 2 else {
            throw failure(node, "\(what): a clock does a jump +5s (or -5s) or a drift 500ppm")
        }
        let nodes = try selector(words[..<index].joined(separator: " "), node, what)
        let isBack = words[index + 1].hasPrefix("-")
        let value = words[index + 1].drop { $0 == "+" || $0 == "-" }
        if words[index] == "jump" {
            guard let milliseconds = ScenarioParser.milliseconds(String(value)), milliseconds > 0 else { throw failure(node, "\(what): \(words[index + 1]) is not a time like +5s or -5s") }
            return .clock(nodes, .jump(milliseconds: Int(isBack ? -milliseconds : milliseconds)))
        }
        guard value.hasSuffix("ppm"), let parts = Int(value.dropLast(3)), parts > 0 else { throw failure(node, "\(what): \(words[index + 1]) is not a drift like 500ppm or -500ppm") }
        return .clock(nodes, .drift(partsPerMillion: isBack ? -parts : parts))
    }

    // MARK: Conditions

    private static let conditions = [
        "a leader", "another leader", "no leader", "NODE leads", "NODES follow", "NODES down", "NODES up", "NODES caught up", "writes succeed", "writes fail", "500 writes", "a snapshot installed",
    ]

    private func wait(_ node: Node, _ what: String) throws(ScenarioFailure) -> Scenario.Action {
        var condition: Scenario.Condition?
        var within: Int64 = 10_000
        for (key, _, value) in try entries(node, what, ["for", "within"]) {
            if key == "within" { within = try duration(value, "\(what) within") } else { condition = try self.condition(value, "\(what) for") }
        }
        guard let condition else { throw failure(node, "\(what): for what? {for: a leader, within: 5s}") }
        return .wait(condition, withinMilliseconds: within)
    }

    private func condition(_ node: Node, _ what: String) throws(ScenarioFailure) -> Scenario.Condition {
        let text = try text(node, what)
        switch text {
        case "a leader": return .leader
        case "another leader": return .anotherLeader
        case "no leader": return .noLeader
        case "writes succeed": return .writesSucceed
        case "writes fail": return .writesFail
        case "a snapshot installed": return .snapshotInstalled
        default: break
        }
        let words = text.split(separator: " ")
        if words.count == 2, words[1] == "writes", let count = Int(words[0].filter { $0 != "_" }), count > 0 { return .writes(count) }
        for (endings, make) in ScenarioParser.nodeConditions {
            for ending in endings where text.hasSuffix(" " + ending) { return make(try selector(String(text.dropLast(ending.count + 1)), node, what)) }
        }
        throw failure(node, "\(what): unknown condition \"\(text)\"; known: \(ScenarioParser.list(ScenarioParser.conditions))")
    }

    private static let nodeConditions: [(endings: [String], make: @Sendable (Scenario.Selector) -> Scenario.Condition)] = [
        (["caught up"], { .caughtUp($0) }), (["leads"], { .leads($0) }), (["follow", "follows"], { .follows($0) }), (["down"], { .down($0) }), (["up"], { .up($0) }),
    ]

    // MARK: Expectations

    private static let expectations = [
        "lost acknowledged writes", "consistency", "elections", "elections at most", "elections at least", "writes resumed within", "write gap at most", "leaderless at most", "leader unchanged",
        "term unchanged", "leader", "all members equal", "running nodes", "writes succeed", "snapshots installed at least", "failed operations at most",
    ]

    private func expectations(_ node: Node, _ what: String) throws(ScenarioFailure) -> [Scenario.Expectation] {
        var found: [Scenario.Expectation] = []
        for (key, _, value) in try entries(node, what, ScenarioParser.expectations) {
            let what = "\(what) \(key)"
            let many = 0...1_000_000
            switch key {
            case "lost acknowledged writes": found.append(.lostWrites(atMost: try number(value, what, many)))
            case "consistency":
                guard try text(value, what) == "clean" else { throw failure(value, "\(what): only \"clean\" can be expected") }
                found.append(.consistencyClean)
            case "elections":
                let count = try number(value, what, many)
                found.append(.elections(count...count))
            case "elections at most": found.append(.elections(0...(try number(value, what, many))))
            case "elections at least": found.append(.elections((try number(value, what, many))...Int.max))
            case "writes resumed within": found.append(.writesResumed(withinMilliseconds: try duration(value, what)))
            case "write gap at most": found.append(.writeGap(atMostMilliseconds: try duration(value, what)))
            case "leaderless at most": found.append(.leaderless(atMostMilliseconds: try duration(value, what)))
            case "leader unchanged": found.append(.leaderUnchanged(try flag(value, what)))
            case "term unchanged": found.append(.termUnchanged(try flag(value, what)))
            case "leader": found.append(.leaderIs(try selector(text(value, what), value, what)))
            case "all members equal": found.append(.membersEqual(try flag(value, what)))
            case "running nodes": found.append(.running(try number(value, what, 0...7)))
            case "writes succeed": found.append(.writesSucceed(try flag(value, what)))
            case "snapshots installed at least": found.append(.snapshotsInstalled(atLeast: try number(value, what, many)))
            default: found.append(.failedOperations(atMost: try number(value, what, many)))
            }
        }
        guard !found.isEmpty else { throw failure(node, "\(what): nothing expected") }
        return found
    }
}
