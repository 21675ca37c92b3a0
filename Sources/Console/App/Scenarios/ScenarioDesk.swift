import Synchronization
import UI

/// The scenarios of a console with nodes of its own: which there are, and the one that runs.
final class ScenarioDesk: Sendable {
    private let library = ScenarioLibrary()
    private let host: any NodeHost
    private let playground: PlaygroundOptions
    /// Is played when the nodes run.
    private let first: Scenario?
    private let state = Mutex(State())

    private struct State {
        var run: (name: String, task: Task<Void, Never>, stage: SessionStage)?
        var isClosed = false
    }

    init(host: any NodeHost, playground: PlaygroundOptions, first: Scenario?) {
        self.host = host
        self.playground = playground
        self.first = first
    }

    /// The nodes run.
    func begin(in session: ClusterSession) {
        session.mailbox.post(.scenarios(library.summaries { $0.obstacle(on: host, playground: playground) }))
        guard let first else { return }
        do { try run(first, in: session) } catch { session.mailbox.post(.notice("scenario \(first.name): \(error)", isBad: true)) }
    }

    /// - Throws: why not, in one line.
    func run(_ name: String, in session: ClusterSession) throws {
        // The very one that the console was opened with need not be in the library.
        try run(first?.name == name ? first! : try library.scenario(name), in: session)
    }

    private func run(_ scenario: Scenario, in session: ClusterSession) throws {
        if let obstacle = scenario.obstacle(on: host, playground: playground) { throw NodeHostError(obstacle) }
        let stage = try SessionStage(session, scenario: scenario.name, isOwner: false)
        let runner = ScenarioRunner(scenario, on: stage, engine: host.engine ?? "embedded", isWatched: true) { [weak session] news in
            guard let session else { return }
            switch news {
            case .progress(let progress): session.mailbox.post(.scenario(progress))
            case .caption: break
            case .step(let step):
                if step.failed { session.monitor.tell(.note("scenario \(scenario.name): \(step.detail)", isBad: true)) }
            }
        }
        try state.withLock { state in
            if let running = state.run { throw NodeHostError("scenario \(running.name) runs already") }
            guard !state.isClosed else { return }
            session.monitor.tell(.note("scenario \(scenario.name) starts: \(scenario.title)", isBad: false))
            let task = Task.detached { [weak self, weak session] in
                let report = await runner.run()
                self?.state.withLock { $0.run = nil }
                session?.monitor.tell(.note("scenario \(scenario.name) \(report.summary)", isBad: report.outcome == .failed))
            }
            state.run = (scenario.name, task, stage)
        }
    }

    /// Returns when everything is mended. False: none runs.
    func stop() async -> Bool {
        guard let run = state.withLock({ $0.run }) else { return false }
        run.task.cancel()
        await run.task.value
        return true
    }

    /// The console goes.
    func close() {
        let run = state.withLock { state in
            state.isClosed = true
            return state.run
        }
        run?.stage.abandon()
        run?.task.cancel()
    }
}

extension ClusterSession {
    func runScenario(_ id: RequestID, _ name: String) {
        let start = Clock.monotonicNanoseconds()
        guard let scenarios else { return finish(id, .failed("only nodes that this console started can be played with"), since: start) }
        do {
            try scenarios.run(name, in: self)
            finish(id, .done(revision: nil, detail: nil), since: start)
        } catch {
            finish(id, .failed("\(error)"), since: start)
        }
    }

    func stopScenario(_ id: RequestID) async {
        let start = Clock.monotonicNanoseconds()
        let hasStopped = await scenarios?.stop() ?? false
        finish(id, hasStopped ? .done(revision: nil, detail: "stopped") : .failed("no scenario runs"), since: start)
    }
}
