import Base
import Client
import Foundation
import Synchronization
import UI

/// Carries the UI's commands out against one cluster, always through the client library, embedded nodes or not. Every command runs
/// in a task of its own; answers go to the mailbox.
final class ClusterSession: CommandRunner {
    let client: EtcdClient
    let mailbox: Mailbox
    let host: (any NodeHost)?
    let monitor: ClusterMonitor
    /// The faults of nodes that this console started.
    let faults: FaultBoard?
    let canary: Canary
    let scenarios: ScenarioDesk?
    private let journal: Journal
    let recorder: SessionRecorder
    private let state = Mutex(State())

    /// Work under way that a later command replaces or ends.
    private struct State {
        var search: Task<Void, Never>?
        var follow: Task<Void, Never>?
        var workload: (task: Task<Void, Never>, workload: Workload)?
        var watches: [WatchID: WatchPump] = [:]
        /// Previews and histories, oldest first: flicking through a list must not queue up answers nobody waits for.
        var previews: [Task<Void, Never>] = []
        var background: [Task<Void, Never>] = []
        var isStopped = false
    }

    /// Unanswered previews that may be under way at the same time.
    private static let previewLimit = 3

    /// - Parameters:
    ///   - playground: what the nodes of `host` were started with.
    ///   - scenario: is played as soon as they run.
    /// - Throws: `CommandFailure` when the endpoints or TLS files cannot be used. Connects to nothing yet.
    init(cluster: ClusterState, connection: ConnectionOptions, host: (any NodeHost)?, playground: PlaygroundOptions = PlaygroundOptions(),
         scenario: Scenario? = nil, mailbox: Mailbox, logs: LogFunnel? = nil) throws {
        let configuration: ClientConfiguration
        do {
            configuration = try ClusterSession.configuration(connection)
            client = try EtcdClient(configuration: configuration)
        } catch {
            throw CommandFailure(description: "\(error)")
        }
        self.mailbox = mailbox
        self.host = host
        journal = Journal(logs ?? LogFunnel(mailbox))
        let monitor = ClusterMonitor(client: client, cluster: cluster, host: host, mailbox: mailbox)
        self.monitor = monitor
        faults = host.map { host in
            FaultBoard(host: host) { news in
                switch news {
                case .faults(let active): mailbox.post(.faults(active))
                case .told(let kind): monitor.tell(kind)
                case .willEnd(let node): monitor.willChange(node)
                }
            }
        }
        canary = Canary(configuration: configuration) { mailbox.post($0) }
        recorder = SessionRecorder(program: "quarterdeck \(Version.text)") { [weak mailbox] event in mailbox?.post(event) }
        recorder.hear(.cluster(cluster), at: Clock.now())
        mailbox.tap("recorder") { [recorder] event in recorder.hear(event, at: Clock.now()) }
        scenarios = host.map { ScenarioDesk(host: $0, playground: playground, first: scenario) }
    }

    static func configuration(_ options: ConnectionOptions) throws -> ClientConfiguration {
        var configuration = ClientConfiguration(endpoints: [])
        for text in options.endpoints { configuration.endpoints += try ClientConfiguration(text).endpoints }
        configuration.user = options.user
        configuration.password = options.password
        if options.usesTLS {
            configuration.tls = .init(caFile: options.certificateAuthority, certificateFile: options.certificate, keyFile: options.key,
                                      skipsVerification: options.skipsVerification)
        }
        configuration.dialTimeout = TimeSpan(nanoseconds: options.dialTimeoutNanoseconds)
        configuration.requestTimeout = TimeSpan(nanoseconds: options.commandTimeoutNanoseconds)
        // A cluster on this machine or next to it: a dead member is noticed soon, and tried again soon.
        configuration.keepAliveInterval = .seconds(5)
        configuration.keepAliveTimeout = .seconds(2)
        configuration.maximumBackoff = .milliseconds(500)
        return configuration
    }

    // MARK: CommandRunner

    func start() {
        let monitor = monitor
        monitor.onMemberLost { [weak self] member in self?.memberLost(member) }
        if let host {
            mailbox.post(.faultSupport(host.faultSupport))
            host.observe { [weak monitor, weak faults] event in
                faults?.heard(event)
                monitor?.post(event)
            }
            background { [mailbox] in
                do {
                    try await host.start()
                    self.scenarios?.begin(in: self)
                } catch {
                    mailbox.post(.notice("nodes did not start: \(error)", isBad: true))
                }
            }
        }
        background { await monitor.run() }
    }

    func perform(_ command: Command) {
        // What clients feel is worth seeing from just before.
        if host != nil, ClusterSession.disturbsNodes(command) { canary.arm() }
        journal.began(command)
        switch command {
        case .loadDirectory(let request): background { await self.loadDirectory(request) }
        case .loadValue(let id, let key, let revision): preview { await self.loadValue(id, key, revision) }
        case .loadHistory(let id, let key, let modRevision, let limit): preview { await self.loadHistory(id, key, modRevision, limit) }
        case .loadLease(let id): background { await self.loadLease(id) }
        case .countPrefix(let id, let prefix, let samples): background { await self.countPrefix(id, prefix, samples) }
        case .search(let id, let prefix, let needle, let limit): replace(\.search) { await self.search(id, prefix, needle, limit) }
        case .cancelSearch: replace(\.search, with: nil)
        case .followKeys(let isOn):
            if isOn {
                guard state.withLock({ $0.follow == nil }) else { return }
                replace(\.follow) { await self.followKeys() }
            } else {
                replace(\.follow, with: nil)
            }

        case .put(let id, let key, let value, let lease, let expecting): background { await self.put(id, key, value, lease, expecting) }
        case .delete(let id, let key, let expecting): background { await self.delete(id, key, expecting) }
        case .rename(let id, let from, let to, let value, let lease, let modRevision):
            background { await self.rename(id, from, to, value, lease, modRevision) }
        case .deleteKeys(let id, let keys): background { await self.deleteKeys(id, keys) }
        case .deletePrefix(let id, let prefix, let undoLimit): background { await self.deletePrefix(id, prefix, undoLimit) }
        case .restore(let id, let keys): background { await self.restore(id, keys) }

        case .openWatch(let id, let target, let revision): openWatch(id, target, revision)
        case .closeWatch(let id): state.withLock { $0.watches.removeValue(forKey: id) }?.stop()
        case .saveEvents(let id, let path, let events): background { await self.saveEvents(id, path, events) }

        case .restartNode(let id, let member): control(id) { try await $0.restart(member) }
        case .addFault(let id, let fault, let milliseconds): control(id) { try await $0.add(fault, milliseconds: milliseconds) }
        case .healFault(let id, let fault): control(id) { try await $0.heal(fault) }
        case .healAllFaults(let id): control(id) { try await $0.healAll() }
        case .runScenario(let id, let name): runScenario(id, name)
        case .stopScenario(let id): background { await self.stopScenario(id) }
        case .export(let id, let path, let content): FileExport.write(content, to: path, answering: id, mailbox)
        case .record(let id, let path): background { self.record(id, path) }
        case .replay: break
        case .transferLeadership(let id, let member): background { await self.transferLeadership(id, to: member) }
        case .setWorkload(let id, let settings): setWorkload(id, settings)
        case .setCanary(let id, let isOn):
            canary.setWished(isOn)
            finish(id, .done(revision: nil, detail: nil), since: Clock.monotonicNanoseconds())
        case .scrapeMetrics(let isOn): monitor.scrapeMetrics(isOn)

        case .refresh: monitor.refresh()
        case .openEditor, .copyToClipboard, .saveScreen, .useTheme, .redraw, .suspend, .quit:
            preconditionFailure("\(command) belongs to the console's own thread")
        }
    }

    func stop() async {
        recorder.end()
        let (tasks, workload) = state.withLock { state -> ([Task<Void, Never>], Workload?) in
            state.isStopped = true
            for watch in state.watches.values { watch.stop() }
            return (state.background + state.previews + [state.search, state.follow, state.workload?.task].compactMap { $0 }, state.workload?.workload)
        }
        for task in tasks { task.cancel() }
        scenarios?.close()
        await faults?.stop()
        monitor.scrapeMetrics(false)
        let canaryKey = canary.close()
        if host == nil {
            // Somebody else's cluster: what was written there goes, as far as the little time allows.
            let limit = CallOptions(timeout: .milliseconds(150))
            if let workload { _ = try? await client.delete(DeleteCommand(.prefix(Key(workload.keyPrefix))), options: limit) }
            if let canaryKey { _ = try? await client.delete(DeleteCommand(.single(Key(canaryKey))), options: limit) }
        }
        await client.close()
        await host?.shutDown()
    }

    func abandon() {
        recorder.end()
        host?.abandon()
    }

    /// Records from the very beginning, before anything has started.
    func recordFromStart(_ path: String) throws {
        do throws(FileFailure) {
            try recorder.begin(path, at: Clock.now())
        } catch {
            abandon()
            throw CommandFailure(description: "--record \(error)")
        }
    }

    private func record(_ id: RequestID, _ path: String?) {
        let start = Clock.monotonicNanoseconds()
        let outcome: CommandResult.Outcome
        if let path {
            do throws(FileFailure) {
                try recorder.begin(path, at: Clock.now())
                outcome = .done(revision: nil, detail: "recording to \(path): r ends it")
            } catch {
                outcome = .failed("\(error)")
            }
        } else if let file = recorder.end() {
            outcome = .done(revision: nil, detail: "recorded \(file.bytes / 1_000) kB to \(Paths.abbreviated(file.path)): quarterdeck replay shows it")
        } else {
            outcome = .failed("no recording runs")
        }
        finish(id, outcome, since: start)
    }

    // MARK: Tasks

    func background(_ work: @escaping @Sendable () async -> Void) {
        state.withLock { state in
            guard !state.isStopped else { return }
            if state.background.count > 256 { state.background.removeFirst(128) } // those are long done; only for cancelling at the end
            state.background.append(Task.detached { await work() })
        }
    }

    private func preview(_ work: @escaping @Sendable () async -> Void) {
        state.withLock { state in
            guard !state.isStopped else { return }
            state.previews.append(Task.detached { await work() })
            if state.previews.count > ClusterSession.previewLimit { state.previews.removeFirst().cancel() }
        }
    }

    private func replace(_ path: WritableKeyPath<State, Task<Void, Never>?> & Sendable, with work: (@Sendable () async -> Void)?) {
        state.withLock { state in
            state[keyPath: path]?.cancel()
            state[keyPath: path] = state.isStopped ? nil : work.map { work in Task.detached { await work() } }
        }
    }

    private func replace(_ path: WritableKeyPath<State, Task<Void, Never>?> & Sendable, _ work: @escaping @Sendable () async -> Void) {
        replace(path, with: work)
    }

    // MARK: Watches

    private func openWatch(_ id: WatchID, _ target: WatchTarget, _ revision: Int64?) {
        let pump = WatchPump(id: id, target: target, fromRevision: revision, client: client, mailbox: mailbox, monitor: monitor)
        let old = state.withLock { state -> WatchPump? in
            guard !state.isStopped else { return nil }
            defer { state.watches[id] = pump }
            return state.watches[id]
        }
        old?.stop()
        pump.start()
    }

    private func memberLost(_ member: UInt64) {
        for pump in state.withLock({ Array($0.watches.values) }) { pump.memberLost(member) }
    }

    // MARK: Nodes

    private func control(_ id: RequestID, _ work: @escaping @Sendable (FaultBoard) async throws -> String) {
        background {
            let start = Clock.monotonicNanoseconds()
            let outcome: CommandResult.Outcome
            if let faults = self.faults {
                do {
                    outcome = .done(revision: nil, detail: try await work(faults))
                } catch {
                    outcome = .failed(ClusterSession.text(of: error))
                }
                self.monitor.refresh()
            } else {
                outcome = .failed("only nodes that this console started can be controlled")
            }
            self.finish(id, outcome, since: start)
        }
    }

    private func transferLeadership(_ id: RequestID, to member: UInt64) async {
        let start = Clock.monotonicNanoseconds()
        monitor.tell(.transferRequested(from: monitor.leaderName(), to: monitor.name(of: member)))
        do {
            guard let endpoint = monitor.leaderEndpoint() else { throw NodeHostError("no leader is known to ask") }
            try await client.moveLeader(to: MemberID(member), options: CallOptions(endpoint: endpoint))
            finish(id, .done(revision: nil, detail: "\(monitor.name(of: member)) leads"), since: start)
        } catch {
            finish(id, .failed(ClusterSession.text(of: error)), since: start)
        }
        monitor.refresh()
    }

    private static func disturbsNodes(_ command: Command) -> Bool {
        switch command {
        case .addFault, .healFault, .healAllFaults, .restartNode, .transferLeadership, .runScenario: true
        default: false
        }
    }

    private func setWorkload(_ id: RequestID, _ settings: WorkloadSettings?) {
        let start = Clock.monotonicNanoseconds()
        do {
            if let settings { try startLoad(settings) } else { stopLoad() }
            finish(id, .done(revision: nil, detail: nil), since: start)
        } catch {
            finish(id, .failed(ClusterSession.text(of: error)), since: start)
        }
    }

    var isLoading: Bool { state.withLock { $0.workload != nil } }

    /// Or changes the load that runs.
    func startLoad(_ settings: WorkloadSettings) throws {
        if let problem = settings.problem { throw NodeHostError(problem) }
        if let running = state.withLock({ $0.workload }) { return running.workload.change(settings) }
        let workload = try Workload(configuration: client.configuration, settings: settings, leader: { [monitor] in monitor.leaderEndpoint() }, post: { [weak self] sample in
            var sample = sample
            // The next one runs already.
            if sample.isFinal, self?.state.withLock({ $0.workload }) != nil { sample.isFinal = false }
            self?.mailbox.post(.workload(sample))
        })
        state.withLock { state in
            guard !state.isStopped else { return }
            state.workload = (Task.detached { await workload.run() }, workload)
        }
        monitor.tell(.workload(isOn: true))
    }

    /// It reads everything back and tidies up in its own time; its last sample says so.
    func stopLoad() {
        let running = state.withLock { state in
            defer { state.workload = nil }
            return state.workload
        }
        running?.workload.stop()
        if let running { background { await withTaskCancellationHandler { await running.task.value } onCancel: { running.task.cancel() } } }
        monitor.tell(.workload(isOn: false))
    }

    // MARK: Answers

    func finish(_ id: RequestID, _ outcome: CommandResult.Outcome, since start: Int64, removed: [UI.KeyValue] = [], removedCount: Int64 = 0) {
        let microseconds = Clock.microseconds(since: start)
        mailbox.post(.finished(CommandResult(request: id, outcome: outcome, durationMicroseconds: microseconds, removed: removed, removedCount: removedCount)))
        journal.ended(id, outcome, microseconds: microseconds, removedCount: removedCount)
    }

    /// One line for a person.
    static func text(of error: any Error) -> String {
        switch error {
        case is CancellationError: "cancelled"
        case let error as EtcdError: error.description
        case let error as CustomStringConvertible: error.description
        default: "\(error)"
        }
    }
}

// MARK: Conversions

extension UI.KeyValue {
    init(_ kv: Client.KeyValue) { self.init(summary: KeySummary(kv, valueSize: kv.value.count), value: kv.value) }
}

extension KeySummary {
    init(_ kv: Client.KeyValue, valueSize: Int?) {
        self.init(key: KeyBytes(kv.key), createRevision: kv.createRevision.rawValue, modRevision: kv.modRevision.rawValue, version: kv.version,
                  lease: UInt64(bitPattern: kv.lease.rawValue), valueSizeBytes: valueSize)
    }
}

extension KeyRange {
    /// `[start, end)`; nil: no upper end.
    init(from start: [UInt8], to end: [UInt8]?) {
        // A request's key must not be empty; one zero byte is the first key there can be.
        let first = Key(start.isEmpty ? [0] : start)
        if let end { self = .bounded(start: first, end: Key(end)) } else { self = .from(first) }
    }

    static func prefix(_ prefix: KeyBytes) -> KeyRange { .prefix(Key(prefix.bytes)) }
    static func single(_ key: KeyBytes) -> KeyRange { .single(Key(key.bytes)) }
}
