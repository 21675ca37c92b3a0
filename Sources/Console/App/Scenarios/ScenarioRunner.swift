import Synchronization
import UI

/// Plays a scenario on a stage, step after step. Waits are for conditions and each has its limit; whatever happens, the stage is left as it
/// was found. A failed expectation is remembered and the rest is still played; a step that cannot be done ends it.
final class ScenarioRunner: Sendable {
    enum News: Sendable {
        case progress(ScenarioProgress)
        /// A caption, when it changes.
        case caption(String)
        case step(ScenarioReport.Step)
    }

    /// Why a step could not be done.
    struct Failure: Error, CustomStringConvertible {
        var description: String
        init(_ description: String) { self.description = description }
    }

    private let scenario: Scenario
    private let stage: any ScenarioStage
    private let engine: String
    /// Somebody reads along: captions stay on for long enough, and `pause` means something.
    private let isWatched: Bool
    private let report: @Sendable (News) -> Void
    private let state = Mutex(State())

    private struct State {
        var startedAt: Int64 = 0
        var step = 0
        var caption: String
        /// Captions that were there before.
        var read: Set<String> = []
        var picked: [String: [UInt64]] = [:]
        /// When, and under whom, the latest thing was done to the nodes.
        var mark: (at: Int64, leader: UInt64?, term: UInt64) = (0, nil, 0)
        var lastFaults: [Fault] = []
        var steps: [ScenarioReport.Step] = []
        var firstFailure: String?
        var expectations: [ScenarioReport.Expectation] = []

        init(caption: String = "") { self.caption = caption }
    }

    /// Between two looks at a condition.
    private static let lookMilliseconds: Int64 = 20
    /// Nodes are up and follow a leader, from the start of their processes on.
    private static let startMilliseconds: Int64 = 30_000
    /// How long a single probing write may take.
    private static let probeMilliseconds: Int64 = 1_000
    /// For members to reach the revision at which they are compared.
    private static let compareMilliseconds: Int64 = 10_000
    static let probeKey = "/quarterdeck/scenario/probe"

    init(_ scenario: Scenario, on stage: any ScenarioStage, engine: String, isWatched: Bool, report: @escaping @Sendable (News) -> Void) {
        self.scenario = scenario
        self.stage = stage
        self.engine = engine
        self.isWatched = isWatched
        self.report = report
        state.withLock { $0.caption = scenario.title }
    }

    // MARK: The whole

    /// Ends early when its task is cancelled, cleaned up like always.
    func run() async -> ScenarioReport {
        let start = Clock.monotonicNanoseconds()
        state.withLock { $0.startedAt = Clock.now().milliseconds }
        tell()
        var outcome = ScenarioReport.Outcome.passed
        do {
            try await stage.begin()
            try await settle()
            try await play(scenario.steps)
        } catch {
            outcome = .failed
            fail("\(error)")
        }
        if Task.isCancelled { outcome = .stopped } else if state.withLock({ $0.firstFailure != nil }) { outcome = .failed }
        let seconds = Double(Clock.monotonicNanoseconds() - start) / 1e9
        let end = Clock.now().milliseconds
        // Of its own task: cleaning up is not cancelled with what it cleans up after.
        await Task.detached { [stage] in await stage.end() }.value
        let result = summarize(outcome, seconds: seconds, until: end)
        switch outcome {
        case .passed: tell(.passed)
        case .failed: tell(.failed(result.failure ?? "failed"))
        case .stopped: tell(.stopped)
        }
        return result
    }

    /// All nodes run, follow one leader, and have what it has.
    private func settle() async throws {
        let what = "until all nodes run and follow a leader"
        do {
            try await until(what, ScenarioRunner.startMilliseconds) {
                if let trouble = self.stage.log.facts.trouble { throw Failure(trouble) }
                let views = self.stage.views()
                guard let leader = views.agreedLeader else { return false }
                return views.allSatisfy { $0.isUp && $0.leader == leader.id }
            }
        } catch let late as Late {
            let bad = stage.views().filter { !$0.isUp }.map { name($0.id) }
            throw Failure(bad.isEmpty ? late.description : "\(bad.joined(separator: ", ")) \(bad.count == 1 ? "does" : "do") not run: a scenario needs all nodes at its start")
        }
        state.withLock { $0.startedAt = Clock.now().milliseconds }
        mark()
    }

    private func play(_ steps: [Scenario.Step]) async throws {
        for step in steps {
            if case .repeated(let times, let inner) = step.action {
                if let say = step.say { await caption(say) }
                for _ in 0..<times { try await play(inner) }
            } else {
                try await play(step)
            }
        }
    }

    private func play(_ step: Scenario.Step) async throws {
        try Task.checkCancellation()
        let number = state.withLock { state in
            state.step += 1
            state.expectations = []
            return state.step
        }
        if let say = step.say { await caption(say) }
        tell()
        let began = Clock.now().milliseconds, start = Clock.monotonicNanoseconds()
        var detail = "", failure: (any Error)?
        do { detail = try await perform(step.action) } catch { failure = error }
        let expectations = state.withLock { $0.expectations }
        let broken = expectations.first { !$0.held }.map { "expected \($0.what): \($0.wanted), found \($0.found)" }
        let text = failure.map { "\($0)" } ?? broken ?? detail
        let done = ScenarioReport.Step(number: number, line: step.line, action: ScenarioText.name(step.action), caption: step.say, detail: text,
                                       startSeconds: rounded(Double(began - state.withLock { $0.startedAt }) / 1_000), seconds: rounded(Double(Clock.monotonicNanoseconds() - start) / 1e9),
                                       failed: failure != nil || broken != nil, expectations: expectations.isEmpty ? nil : expectations)
        state.withLock { $0.steps.append(done) }
        if !(failure is CancellationError) { report(.step(done)) }
        if let broken { fail("line \(step.line): \(broken)") }
        if let failure {
            if failure is CancellationError { throw failure }
            throw Failure("line \(step.line): \(failure)")
        }
    }

    private func rounded(_ seconds: Double) -> Double { (seconds * 1_000).rounded() / 1_000 }
    private func fail(_ text: String) { state.withLock { $0.firstFailure = $0.firstFailure ?? text } }

    // MARK: Telling

    private static func count(_ steps: [Scenario.Step]) -> Int {
        steps.reduce(0) { sum, step in
            if case .repeated(let times, let inner) = step.action { sum + times * count(inner) } else { sum + 1 }
        }
    }

    private func tell(_ progress: ScenarioProgress.State = .running, waitingFor: String? = nil) {
        let (step, caption) = state.withLock { (max(1, $0.step), $0.caption) }
        report(.progress(ScenarioProgress(name: scenario.name, title: scenario.title, step: step, steps: ScenarioRunner.count(scenario.steps), caption: caption, waitingFor: waitingFor, state: progress)))
    }

    private func caption(_ text: String) async {
        let (isOther, isNew) = state.withLock { state in
            defer { state.caption = text }
            return (state.caption != text, state.read.insert(text).inserted)
        }
        guard isOther else { return }
        report(.caption(text))
        tell()
        // As long as one reads it; a glance suffices for what was there before.
        if isWatched { try? await Task.sleep(for: .milliseconds(isNew ? min(6_000, 1_200 + 35 * text.count) : 800)) }
    }

    private func name(_ node: UInt64) -> String { stage.nodes.first { $0.id == node }?.name ?? String(node, radix: 16) }
    private func names(_ nodes: [UInt64]) -> String { nodes.map(name).joined(separator: " ") }

    // MARK: Waiting

    private struct Late: Error, CustomStringConvertible {
        var description: String
    }

    /// - Parameter what: "until there is a leader".
    @discardableResult
    private func until(_ what: String, _ milliseconds: Int64, _ condition: () async throws -> Bool) async throws -> Int64 {
        let start = Clock.monotonicNanoseconds()
        var told: Int64 = -200
        while true {
            // The time is taken before the look: a machine that stalls never turns a true condition into a failure.
            let waited = (Clock.monotonicNanoseconds() - start) / 1_000_000
            if try await condition() { return (Clock.monotonicNanoseconds() - start) / 1_000_000 }
            guard waited < milliseconds else { throw Late(description: "waited \(ScenarioText.milliseconds(milliseconds)) in vain \(what)\(situation())") }
            if waited - told >= 200 {
                told = waited
                let tenths = waited / 100
                tell(waitingFor: "waits \(what) (\(tenths / 10).\(tenths % 10) s)")
            }
            try await Task.sleep(for: .milliseconds(ScenarioRunner.lookMilliseconds))
        }
    }

    /// What the nodes look like, for a message about a wait in vain.
    private func situation() -> String {
        let views = stage.views()
        let leader = views.agreedLeader.map { "\(name($0.id)) leads term \($0.term)" } ?? "nobody leads"
        return "; " + ([leader] + views.filter { !$0.isUp }.map { "\(name($0.id)) \($0.process == .running ? "does not answer" : "is \($0.process)")" }).joined(separator: ", ")
    }

    /// From now on counts as the latest thing done.
    private func mark() {
        let leader = stage.views().agreedLeader
        let now = Clock.now().milliseconds
        state.withLock { state in
            state.mark = (now, leader?.id, max(leader?.term ?? 0, state.mark.term))
        }
    }

    // MARK: Nodes

    private func resolve(_ selector: Scenario.Selector, without taken: Set<UInt64> = []) async throws -> [UInt64] {
        let ids = stage.nodes.map(\.id)
        func leader() async throws -> UInt64 {
            var found: UInt64?
            try await until("until there is a leader to be named", 5_000) {
                found = self.stage.views().agreedLeader?.id
                return found != nil
            }
            return found!
        }
        let running = Set(stage.views().filter { $0.process == .running }.map(\.id))
        let found: [UInt64]
        switch selector {
        case .leader: found = [try await leader()]
        case .followers:
            let leader = try await leader()
            found = ids.filter { $0 != leader && running.contains($0) }
        case .anyFollower:
            let leader = try await leader()
            found = Array(ids.filter { $0 != leader && running.contains($0) }.prefix(1))
        case .number(let number): found = number <= ids.count ? [ids[number - 1]] : []
        case .all: found = ids.filter { !taken.contains($0) }
        case .rest: found = ids.filter { !taken.contains($0) }
        case .down: found = stage.views().filter { $0.process == .down }.map(\.id)
        case .majority(let withLeader):
            let leader = try await leader()
            let others = ids.filter { $0 != leader }
            found = Array(((withLeader ? [leader] : []) + others).prefix(ids.count / 2 + 1))
        case .minority(let withLeader):
            let leader = try await leader()
            let others = ids.filter { $0 != leader }
            found = Array(((withLeader ? [leader] : []) + others).prefix((ids.count - 1) / 2))
        case .picked(let name): found = state.withLock { $0.picked[name] } ?? []
        }
        guard !found.isEmpty else { throw Failure("there is no node that could be \(ScenarioText.text(selector))") }
        return found
    }

    private func faults(_ form: Scenario.FaultForm) async throws -> [Fault] {
        func pairs(_ from: Scenario.Selector, _ to: Scenario.Selector, _ isMutual: Bool) async throws -> [(UInt64, UInt64)] {
            // "all" and "rest" mean all but the other side.
            let senders: [UInt64], receivers: [UInt64]
            if from == .all || from == .rest {
                receivers = try await resolve(to)
                senders = try await resolve(from, without: Set(receivers))
            } else {
                senders = try await resolve(from)
                receivers = try await resolve(to, without: Set(senders))
            }
            var pairs: [(UInt64, UInt64)] = []
            for from in senders {
                for to in receivers where from != to {
                    pairs.append((from, to))
                    if isMutual { pairs.append((to, from)) }
                }
            }
            return pairs
        }
        switch form {
        case .kill(let nodes): return try await resolve(nodes).map(Fault.kill)
        case .stop(let nodes): return try await resolve(nodes).map(Fault.stop)
        case .pause(let nodes): return try await resolve(nodes).map(Fault.pause)
        case .tear(let nodes): return try await resolve(nodes).map(Fault.tornTail)
        case .isolate(let nodes): return try await resolve(nodes).map(Fault.isolate)
        case .cut(let from, let to, let isMutual): return try await pairs(from, to, isMutual).map { .cut(from: $0.0, to: $0.1) }
        case .wire(.all, .all, _, let wire): return [.wire(from: nil, to: nil, wire)]
        case .wire(let from, let to, let isMutual, let wire): return try await pairs(from, to, isMutual).map { .wire(from: $0.0, to: $0.1, wire) }
        case .partition(let parts):
            var groups = [[UInt64]](repeating: [], count: parts.count)
            var taken: Set<UInt64> = []
            // The rest is known last.
            for (index, part) in parts.enumerated() where part != .rest {
                groups[index] = try await resolve(part).filter { !taken.contains($0) }
                taken.formUnion(groups[index])
            }
            for (index, part) in parts.enumerated() where part == .rest { groups[index] = try await resolve(part, without: taken) }
            return [.partition(groups)]
        case .disk(let nodes, let fault): return try await resolve(nodes).map { .disk($0, fault) }
        case .clock(let nodes, let fault): return try await resolve(nodes).map { .clock($0, fault) }
        }
    }

    // MARK: Steps

    /// Returns what came of it.
    private func perform(_ action: Scenario.Action) async throws -> String {
        switch action {
        case .say, .repeated: return ""
        case .pick(let picks):
            var parts: [String] = []
            for pick in picks {
                let nodes = try await resolve(pick.nodes)
                state.withLock { $0.picked[pick.name] = nodes }
                parts.append("\(pick.name) is \(names(nodes))")
            }
            return parts.joined(separator: ", ")
        case .load(let settings):
            try await stage.setLoad(settings)
            guard let settings else { return "load off, all of it read back: \(verdict())" }
            return "load: \(settings.putsPerSecond) puts/s, \(settings.readsPerSecond) reads/s"
        case .fault(let form, let milliseconds):
            let faults = try await faults(form)
            mark()
            var told: [String] = []
            for fault in faults { told.append(try await stage.add(fault, milliseconds: milliseconds)) }
            state.withLock { $0.lastFaults = faults }
            return told.joined(separator: "; ")
        case .heal(let healing): return try await heal(healing)
        case .restart(let selector):
            let nodes = try await resolve(selector)
            mark()
            for node in nodes { try await stage.restart(node) }
            return "\(names(nodes)) restarted"
        case .lead(let selector):
            let nodes = try await resolve(selector)
            guard nodes.count == 1 else { throw Failure("only one node can lead, not \(names(nodes))") }
            mark()
            try await stage.transferLeadership(to: nodes[0])
            return "\(name(nodes[0])) leads"
        case .put(let key, let value, let times):
            for number in 1...times { try await stage.put(times > 1 ? "\(key)/\(number)" : key, value, timeoutMilliseconds: 5_000) }
            return times > 1 ? "\(times) keys put below \(key)" : "\(key) put"
        case .compact: return "compacted up to revision \(try await stage.compact())"
        case .wait(let condition, let within):
            let waited = try await wait(condition, within)
            let leader = stage.views().agreedLeader.map { ", \(name($0.id)) leads term \($0.term)" } ?? ""
            return "after \(ScenarioText.milliseconds(waited)): \(await text(condition))\(leader)"
        case .hold(let milliseconds):
            try await Task.sleep(for: .milliseconds(milliseconds))
            return "held for \(ScenarioText.milliseconds(milliseconds))"
        case .pause(let milliseconds):
            if isWatched { try await Task.sleep(for: .milliseconds(milliseconds)) }
            return isWatched ? "" : "nobody watches: no pause"
        case .expect(let expectations):
            for expectation in expectations {
                let result = try await check(expectation)
                state.withLock { $0.expectations.append(result) }
            }
            return state.withLock { $0.expectations.map { "\($0.what): \($0.found)" }.joined(separator: ", ") }
        }
    }

    private func verdict() -> String {
        guard let verdict = stage.log.facts.pastLoads.last else { return "nothing was written" }
        return "\(ScenarioText.count(verdict.acknowledgedWrites)) acknowledged writes, \(ScenarioText.count(verdict.confirmedWrites)) confirmed, \(verdict.violations.isEmpty ? "consistent" : verdict.violations[0])"
    }

    private func heal(_ healing: Scenario.Healing) async throws -> String {
        let active = await stage.faults()
        let chosen: [Fault]
        switch healing {
        case .all: chosen = active
        case .last:
            let last = state.withLock { $0.lastFaults }
            chosen = active.filter(last.contains)
        case .verb(let verb): chosen = active.filter { $0.verb == verb }
        }
        mark()
        for fault in chosen { try await stage.heal(fault) }
        // Nodes that ended by themselves, of what was wrong with their disk.
        let dead = healing == .all ? stage.views().filter { $0.process == .down }.map(\.id).filter { node in !chosen.contains { $0.nodes == [node] && ["kill", "stop", "tear"].contains($0.verb) } } : []
        for node in dead { try await stage.restart(node) }
        let healed = chosen.map { FaultText.healed($0, name) } + dead.map { "\(name($0)) restarted" }
        return healed.isEmpty ? "nothing was on" : healed.joined(separator: "; ")
    }

    // MARK: Conditions

    private func text(_ condition: Scenario.Condition) async -> String {
        let picked = state.withLock { $0.picked }
        return ScenarioText.text(condition) { selector in
            if case .picked(let name) = selector, let nodes = picked[name] { self.names(nodes) } else { ScenarioText.text(selector) }
        }
    }

    private func wait(_ condition: Scenario.Condition, _ within: Int64) async throws -> Int64 {
        let what = "until " + (await text(condition))
        func nodes(_ selector: Scenario.Selector) async throws -> Set<UInt64> { Set(try await resolve(selector)) }
        /// Looks at the views of some nodes.
        func each(_ selector: Scenario.Selector, _ isGood: @escaping (NodeView, [NodeView]) -> Bool) async throws -> Int64 {
            let wanted = try await nodes(selector)
            return try await until(what, within) {
                let views = self.stage.views()
                return views.filter { wanted.contains($0.id) }.allSatisfy { isGood($0, views) }
            }
        }
        switch condition {
        case .leader: return try await until(what, within) { self.stage.views().agreedLeader != nil }
        case .anotherLeader:
            let before = state.withLock { $0.mark.leader }
            return try await until(what, within) { self.stage.views().agreedLeader.map { $0.id != before } ?? false }
        case .noLeader: return try await until(what, within) { self.stage.views().agreedLeader == nil }
        case .leads(let selector): return try await each(selector) { view, views in views.agreedLeader?.id == view.id }
        case .follows(let selector): return try await each(selector) { view, views in view.isUp && views.agreedLeader.map { $0.id == view.leader } ?? false }
        case .down(let selector): return try await each(selector) { view, _ in view.process == .down }
        case .up(let selector): return try await each(selector) { view, _ in view.isUp }
        case .caughtUp(let selector):
            // What the leader has committed when the wait begins; there may be none yet.
            var goal: UInt64?
            let wanted = try await nodes(selector)
            return try await until(what, within) {
                let views = self.stage.views()
                guard let leader = views.agreedLeader, let view = views.first(where: { $0.id == leader.id }) else { return false }
                let least = goal ?? view.commit
                goal = least
                return views.filter { wanted.contains($0.id) }.allSatisfy { $0.isUp && $0.leader == leader.id && $0.applied >= least }
            }
        case .writesSucceed: return try await until(what, within) { await self.canWrite() }
        case .writesFail: return try await until(what, within) { !(await self.canWrite()) }
        case .writes(let count):
            let goal = stage.log.facts.acknowledgedWrites + count
            return try await until(what, within) { self.stage.log.facts.acknowledgedWrites >= goal }
        case .snapshotInstalled: return try await until(what, within) { self.stage.log.facts.snapshotsInstalled > 0 }
        }
    }

    private func canWrite() async -> Bool {
        (try? await stage.put(ScenarioRunner.probeKey, "probe", timeoutMilliseconds: ScenarioRunner.probeMilliseconds)) != nil
    }

    // MARK: Expectations

    private func check(_ expectation: Scenario.Expectation) async throws -> ScenarioReport.Expectation {
        let log = stage.log
        let (mark, startedAt) = state.withLock { ($0.mark, $0.startedAt) }
        func result(_ what: String, _ wanted: String, _ found: String, _ held: Bool) -> ScenarioReport.Expectation {
            ScenarioReport.Expectation(what: what, wanted: wanted, found: found, held: held)
        }
        func yes(_ flag: Bool) -> String { flag ? "yes" : "no" }
        switch expectation {
        case .lostWrites(let most):
            // The watch that looks for the canary's writes is a moment behind them.
            _ = try? await until("until the canary's writes are looked for", 3_000) { log.facts.canaryCheck.confirmed + log.facts.canaryCheck.lost >= log.facts.canaryCheck.acknowledged - 10 }
            try Task.checkCancellation()
            let facts = log.facts
            let written = facts.acknowledgedWrites + facts.canaryCheck.acknowledged
            let found = written == 0 ? "nothing was written" : "\(facts.lostWrites) of \(ScenarioText.count(written))"
            return result("lost acknowledged writes", "at most \(most)", found, written > 0 && facts.lostWrites <= most)
        case .consistencyClean:
            let facts = log.facts
            let isEmpty = facts.verdicts.allSatisfy { $0.acknowledgedWrites + $0.checkedReads == 0 }
            let found = isEmpty ? "nothing was written or read" : facts.violations.first ?? "clean, \(ScenarioText.count(facts.verdicts.reduce(0) { $0 + $1.checkedReads })) reads checked"
            return result("consistency", "clean", found, !isEmpty && facts.violations.isEmpty)
        case .elections(let range):
            let count = log.facts.tally.elections.count
            let wanted = range.lowerBound == range.upperBound ? "\(range.lowerBound)" : range.upperBound == .max ? "at least \(range.lowerBound)" : "at most \(range.upperBound)"
            return result("elections", wanted, "\(count)", range.contains(count))
        case .writesResumed(let within):
            // The canary knows exactly, but is one client: where the node that it talks to is cut off, it waits for that one. A write to the
            // leader tells what the cluster does.
            var probed: Int64?
            _ = try? await until("until writes are acknowledged again", within + ScenarioRunner.probeMilliseconds) {
                if log.facts.canary.resumed(after: mark.at) != nil { return true }
                if await self.canWrite() { probed = Clock.now().milliseconds - mark.at }
                return probed != nil
            }
            if probed != nil { _ = try? await until("until the canary tells of its writes", 300) { log.facts.canary.resumed(after: mark.at) != nil } }
            try Task.checkCancellation()
            let found = log.facts.canary.resumed(after: mark.at).map { min($0, probed ?? $0) } ?? probed
            return result("writes resumed", "within \(ScenarioText.milliseconds(within))", found.map { "after \(ScenarioText.milliseconds($0))" } ?? "not yet", found.map { $0 <= within } ?? false)
        case .writeGap(let most):
            let now = Clock.now().milliseconds
            let isToldInFull = (try? await until("until the canary's writes are told", 2_500) { log.facts.canary.resumed(after: now) != nil }) != nil
            try Task.checkCancellation()
            let gap = log.facts.canary.longestGap(since: startedAt, until: isToldInFull ? nil : Clock.now().milliseconds)
            return result("write gap", "at most \(ScenarioText.milliseconds(most))", ScenarioText.milliseconds(gap), gap <= most)
        case .leaderless(let most):
            let longest = log.facts.tally.longestLeaderless(at: Clock.now().milliseconds)
            return result("leaderless", "at most \(ScenarioText.milliseconds(most))", ScenarioText.milliseconds(longest), longest <= most)
        case .leaderUnchanged(let wanted):
            let leader = stage.views().agreedLeader?.id
            return result("leader unchanged", yes(wanted), leader == nil ? "nobody leads" : yes(leader == mark.leader), leader != nil && (leader == mark.leader) == wanted)
        case .termUnchanged(let wanted):
            let term = stage.views().filter(\.isUp).map(\.term).max() ?? 0
            return result("term unchanged", yes(wanted), term == mark.term ? "still \(term)" : "\(term) after \(mark.term)", (term == mark.term) == wanted)
        case .leaderIs(let selector):
            let nodes = try await resolve(selector)
            let leader = stage.views().agreedLeader?.id
            return result("leader", names(nodes), leader.map(name) ?? "none", leader.map(nodes.contains) ?? false)
        case .membersEqual(let wanted):
            let (isEqual, found) = try await compare()
            return result("all members equal", yes(wanted), found, isEqual == wanted)
        case .running(let count):
            let running = stage.views().count { $0.isUp }
            return result("running nodes", "\(count)", "\(running)", running == count)
        case .writesSucceed(let wanted):
            let can = await canWrite()
            return result("writes succeed", yes(wanted), yes(can), can == wanted)
        case .snapshotsInstalled(let least):
            let count = log.facts.snapshotsInstalled
            return result("snapshots installed", "at least \(least)", "\(count)", count >= least)
        case .failedOperations(let most):
            let facts = log.facts
            let count = facts.failedOperations + facts.canary.failed
            return result("failed operations", "at most \(most)", "\(count)", count <= most)
        }
    }

    /// Whether all nodes have the same history up to one revision.
    private func compare() async throws -> (Bool, String) {
        var last = "they could not be asked"
        do {
            try await until("until all members can be compared", ScenarioRunner.compareMilliseconds) {
                do {
                    let (revision, hashes) = try await self.stage.hashes()
                    guard hashes.count == self.stage.nodes.count else {
                        last = "only \(self.names(hashes.keys.sorted())) can be compared"
                        return false
                    }
                    last = Set(hashes.values).count == 1 ? "equal at revision \(revision)"
                        : "different at revision \(revision): " + self.stage.nodes.map { "\($0.name) \(String(hashes[$0.id]!, radix: 16))" }.joined(separator: " ")
                    return true
                } catch {
                    try Task.checkCancellation()
                    last = "\(error)"
                    return false
                }
            }
        } catch is Late {}
        return (last.hasPrefix("equal"), last)
    }

    // MARK: The report

    private func summarize(_ outcome: ScenarioReport.Outcome, seconds: Double, until end: Int64) -> ScenarioReport {
        let facts = stage.log.facts
        let state = state.withLock { $0 }
        let verdicts = facts.verdicts
        let elections = facts.tally.elections.map {
            ScenarioReport.Election(term: $0.term, leader: name($0.leader), atSeconds: rounded(Double($0.at - state.startedAt) / 1_000), leaderlessMilliseconds: $0.leaderlessMilliseconds)
        }
        return ScenarioReport(
            scenario: scenario.name, title: scenario.title, engine: engine, nodes: stage.nodes.count, outcome: outcome,
            failure: outcome == .stopped ? nil : state.firstFailure, seconds: rounded(seconds), steps: state.steps, elections: elections,
            leaderless: .init(count: facts.tally.leaderless.count, longestMilliseconds: facts.tally.longestLeaderless(at: end), totalMilliseconds: facts.tally.leaderless.reduce(0, +)),
            canary: .init(acknowledged: facts.canary.acknowledged, retried: facts.canary.retried, failed: facts.canary.failed,
                          longestGapMilliseconds: facts.canary.acknowledged == 0 ? 0 : facts.canary.longestGap(since: state.startedAt, until: nil),
                          confirmed: facts.canaryCheck.confirmed, lost: facts.canaryCheck.lost),
            load: .init(acknowledgedWrites: facts.acknowledgedWrites, confirmedWrites: verdicts.reduce(0) { $0 + $1.confirmedWrites }, unknownWrites: verdicts.reduce(0) { $0 + $1.unknownWrites },
                        checkedReads: verdicts.reduce(0) { $0 + $1.checkedReads }, failedOperations: facts.failedOperations),
            violations: facts.violations)
    }
}

extension Fault {
    /// The word that scenario files have for it.
    var verb: String {
        switch kind {
        case .kill: "kill"
        case .stop: "stop"
        case .pause: "pause"
        case .tornTail: "tear"
        case .cut: "cut"
        case .isolate: "isolate"
        case .partition: "partition"
        case .wire: "wire"
        case .diskSlow, .diskStuck, .diskFull, .diskBroken: "disk"
        case .clockJump, .clockDrift: "clock"
        }
    }
}
