import Base
import Client
import Foundation
import Synchronization
import UI

/// Watches over a cluster's health: for each member a loop that asks and one that follows what it tells, so that a slow one delays no
/// other, and a loop for what concerns all. Everything ends up in one `ClusterTracker`, whose state and events go to the mailbox.
final class ClusterMonitor: ObserverSink {
    private struct State {
        var tracker: ClusterTracker
        /// What the screen was told last.
        var published: ClusterState?
        /// Where each member is asked.
        var endpoints: [UInt64: Endpoint] = [:]
        var pollers: [UInt64: Task<Void, Never>] = [:]
        var followers: [UInt64: Task<Void, Never>] = [:]
        /// The naps of the loops, to wake them all.
        var naps: [Int: Task<Void, Never>] = [:]
        var lastNap = 0
        var lastAnswer: Moment?
        var revisions = RevisionClock()
        var lastFailure = "connecting"
        var onMemberLost: @Sendable (UInt64) -> Void = { _ in }
        var lostAt: [UInt64: Moment] = [:]
        /// Members that refuse connections.
        var refused: Set<UInt64> = []
        var countedAtRevision: Int64?
        var countDue = Moment(milliseconds: 0)
        var scraper: Task<Void, Never>?
    }

    /// Four times a second while something happens, once a second else.
    private static let quickMilliseconds: Int64 = 250
    private static let quietMilliseconds: Int64 = 1_000
    /// Silence of all members after which nobody is there.
    private static let lostAfterMilliseconds: Int64 = 2_500
    private static let slowPeriodMilliseconds: Int64 = 10_000

    private let client: EtcdClient
    private let host: (any NodeHost)?
    private let mailbox: Mailbox
    private let feed: ObserverFeed
    private let state: Mutex<State>

    init(client: EtcdClient, cluster: ClusterState, host: (any NodeHost)?, mailbox: Mailbox) {
        self.client = client
        self.host = host
        self.mailbox = mailbox
        feed = ObserverFeed(client: client, mailbox: mailbox)
        var cluster = cluster
        cluster.periodMilliseconds = ClusterMonitor.quietMilliseconds
        state = Mutex(State(tracker: ClusterTracker(cluster, now: Clock.now())))
    }

    // MARK: From other threads

    /// News of an embedded node; called from its threads.
    func post(_ event: NodeEvent) {
        let (lost, call) = state.withLock { state -> (Bool, @Sendable (UInt64) -> Void) in
            state.tracker.heard(event)
            publish(&state)
            var lost = false
            if event.process != .running, event.process != .starting {
                state.lostAt[event.node] = Moment(milliseconds: event.atMilliseconds)
                lost = true
            }
            return (lost, state.onMemberLost)
        }
        if lost { call(event.node) }
    }

    func onMemberLost(_ call: @escaping @Sendable (UInt64) -> Void) { state.withLock { $0.onMemberLost = call } }
    func willChange(_ member: UInt64) { state.withLock { $0.tracker.willChange(member) } }
    func name(of member: UInt64) -> String { state.withLock { $0.tracker.name(member) } }
    func leaderName() -> String? { state.withLock { $0.tracker.state.leader?.name } }
    func lostAt(_ member: UInt64) -> Moment? { state.withLock { $0.lostAt[member] } }

    func leaderEndpoint() -> Endpoint? {
        state.withLock { state in state.tracker.state.leader.flatMap { state.endpoints[$0.id] } }
    }

    func tell(_ kind: ClusterEvent.Kind) {
        state.withLock { state in
            state.tracker.note(kind, at: Clock.now())
            publish(&state)
        }
    }

    func sawRevision(_ revision: Int64) {
        state.withLock { state in
            state.tracker.sawRevision(revision)
            state.revisions.saw(revision, at: Clock.now())
        }
    }

    /// When a revision was made, if this console was there.
    func time(of revision: Int64) -> Moment? { state.withLock { $0.revisions.time(of: revision) } }

    /// Everything is asked now rather than at its next time.
    func refresh() {
        for nap in state.withLock({ Array($0.naps.values) }) { nap.cancel() }
    }

    private func publish(_ state: inout State) {
        let events = state.tracker.takeEvents()
        if !events.isEmpty { mailbox.post(.events(events)) }
        guard state.tracker.state != state.published else { return }
        state.published = state.tracker.state
        mailbox.post(.cluster(state.tracker.state))
    }

    private func change(_ body: (inout ClusterTracker) -> Void) {
        state.withLock { state in
            body(&state.tracker)
            publish(&state)
        }
    }

    private func nap(milliseconds: Int64) async {
        let task = Task { _ = try? await Task.sleep(for: .milliseconds(milliseconds)) }
        let number = state.withLock { state in
            state.lastNap += 1
            state.naps[state.lastNap] = task
            return state.lastNap
        }
        await withTaskCancellationHandler { await task.value } onCancel: { task.cancel() }
        state.withLock { _ = $0.naps.removeValue(forKey: number) }
    }

    private func period() -> Int64 {
        state.withLock { $0.tracker.unstableUntil > Clock.now() ? ClusterMonitor.quickMilliseconds : ClusterMonitor.quietMilliseconds }
    }

    // MARK: What concerns all

    func run() async {
        if let host {
            state.withLock { state in
                for node in host.nodes { state.endpoints[node.id] = try? Endpoint(node.clientEndpoint) }
            }
            startPollers()
        }
        var slowDue = Clock.now()
        while !Task.isCancelled {
            if let host {
                let statuses = host.statuses()
                change { $0.heard(statuses, at: Clock.now()) }
            }
            if Clock.now() >= slowDue {
                // A list that could not be had is asked for again soon.
                let isComplete = host == nil ? await readMembers() : true
                if isComplete {
                    slowDue = Clock.now().advanced(byMilliseconds: ClusterMonitor.slowPeriodMilliseconds)
                    await readSlowFacts()
                }
            }
            await countKeys()
            updateConnection()
            await nap(milliseconds: period())
        }
        for task in state.withLock({ Array($0.pollers.values) + Array($0.followers.values) }) { task.cancel() }
        scrapeMetrics(false)
    }

    private func updateConnection() {
        let now = Clock.now()
        state.withLock { state in
            let isHeard = state.lastAnswer.map { now - $0 < ClusterMonitor.lostAfterMilliseconds } ?? false
            // A playground that is still starting is not a lost one.
            if !isHeard, state.lastAnswer == nil, host != nil { return }
            state.tracker.setConnected(isHeard, reason: state.lastFailure, at: now)
            publish(&state)
        }
    }

    /// The member list, and at which of the given endpoints each member is. False when nobody told.
    private func readMembers() async -> Bool {
        let list: MemberList
        do {
            list = try await client.members(isLinearizable: false)
        } catch {
            let text = ClusterSession.text(of: error)
            state.withLock { $0.lastFailure = text }
            return false
        }
        var found: [UInt64: Endpoint] = [:]
        await withTaskGroup(of: (UInt64, Endpoint)?.self) { group in
            for endpoint in client.configuration.endpoints {
                group.addTask { [client] in
                    let status = try? await client.status(options: CallOptions(timeout: .seconds(1), endpoint: endpoint))
                    return status.map { ($0.header.memberID.rawValue, endpoint) }
                }
            }
            for await case let (member, endpoint)? in group { found[member] = endpoint }
        }
        let members = list.members.map { member -> (id: UInt64, name: String, endpoint: String, isLearner: Bool) in
            let id = member.id.rawValue
            if found[id] == nil, let known = state.withLock({ $0.endpoints[id] }) { found[id] = known }
            // A member that none of the given endpoints is: where it says it is.
            if found[id] == nil { found[id] = member.clientURLs.lazy.compactMap { try? Endpoint($0) }.first }
            let text = found[id]?.text ?? "no client URL"
            return (id, member.name, text.range(of: "://").map { String(text[$0.upperBound...]) } ?? text, member.isLearner)
        }.sorted { ($0.name, $0.id) < ($1.name, $1.id) }
        state.withLock { state in
            state.endpoints = found
            state.tracker.setMembers(members)
            publish(&state)
        }
        startPollers()
        return true
    }

    private func readSlowFacts() async {
        let alarms = try? await client.alarms(options: CallOptions(timeout: .seconds(2)))
        state.withLock { state in
            if let alarms {
                state.tracker.setAlarms(alarms.map { alarm in
                    let kind = switch alarm.kind {
                    case .noSpace: "NOSPACE"
                    case .corrupt: "CORRUPT"
                    case .other(let number): "alarm \(number)"
                    }
                    return ClusterState.Alarm(member: state.tracker.name(alarm.member.rawValue), kind: kind)
                }, at: Clock.now())
            }
            publish(&state)
        }
    }

    /// All keys, where the revision says that there may be others now. What a server needs for it grows with the keys (etcd walks its
    /// index), so that it is asked for a hundredth of the time at most.
    private func countKeys() async {
        let (revision, isDue) = state.withLock { state in
            (state.tracker.state.revision, state.lastAnswer != nil && state.tracker.state.revision != state.countedAtRevision && state.countDue <= Clock.now())
        }
        guard isDue else { return }
        let start = Clock.monotonicNanoseconds()
        let query = RangeQuery(.prefix(Key([])), isSerializable: true, countOnly: true)
        let count = try? await client.range(query, options: CallOptions(timeout: .seconds(2))).count
        let tookMilliseconds = Int64(Clock.microseconds(since: start) / 1_000)
        state.withLock { state in
            // Without the right to read everything there is no number; asking again and again would not bring it.
            state.countDue = Clock.now().advanced(byMilliseconds: count == nil ? 30_000 : max(1_000, tookMilliseconds * 100))
            guard let count else { return }
            state.countedAtRevision = revision
            state.tracker.setKeyCount(count)
            publish(&state)
        }
    }

    // MARK: One member

    private func startPollers() {
        state.withLock { state in
            for (member, poller) in state.pollers where state.endpoints[member] == nil {
                poller.cancel()
                state.pollers[member] = nil
            }
            for (member, follower) in state.followers where state.endpoints[member] == nil {
                follower.cancel()
                state.followers[member] = nil
            }
            for member in state.endpoints.keys where state.pollers[member] == nil {
                state.pollers[member] = Task.detached { await self.poll(member) }
                state.followers[member] = Task.detached { [feed] in await feed.follow(member, for: self) }
            }
        }
    }

    // MARK: What members tell

    func endpoint(of member: UInt64) -> Endpoint? { state.withLock { $0.endpoints[member] } }

    func streamOpened(_ member: UInt64) {
        let now = Clock.now()
        state.withLock { state in
            state.lastAnswer = now
            state.tracker.streamOpened(member, at: now)
            if state.tracker.state.isPushed { state.tracker.setNote(nil) }
            state.tracker.setConnected(true, reason: "", at: now)
            publish(&state)
        }
    }

    func streamEnded(_ member: UInt64, _ error: any Error) {
        let now = Clock.now()
        if (error as? EtcdError)?.isUnimplemented == true {
            change {
                $0.hasNoStream(member)
                $0.setNote("state is asked for, not told: elections show within ±\(ClusterMonitor.quickMilliseconds) ms")
            }
            return
        }
        change { $0.streamEnded(member, at: now) }
        // Who refuses to be called again is down; the same as for the member's poller.
        let reason = ClusterMonitor.shortReason(error)
        if reason.contains("refused") { isLost(member, reason) }
    }

    func heard(_ events: [RaftEvent]) {
        change { tracker in
            for event in events { tracker.heard(event) }
        }
    }

    func heard(_ samples: [NodeSample]) {
        let now = Clock.now()
        state.withLock { state in
            state.lastAnswer = now
            state.tracker.heard(samples, at: now)
            publish(&state)
        }
    }

    private func poll(_ member: UInt64) async {
        var metricsDue = Clock.now()
        while !Task.isCancelled {
            guard let endpoint = state.withLock({ $0.endpoints[member] }) else { return }
            do {
                let status = try await client.status(options: CallOptions(timeout: .seconds(1), endpoint: endpoint))
                heard(status, member)
                // Our own nodes of a playground tell what stands there.
                if host == nil || !state.withLock({ $0.tracker.state.isPushed }), Clock.now() >= metricsDue {
                    metricsDue = Clock.now().advanced(byMilliseconds: ClusterMonitor.slowPeriodMilliseconds / 2)
                    await readMetrics(member, endpoint)
                }
            } catch {
                guard !Task.isCancelled else { return }
                isLost(member, ClusterMonitor.shortReason(error))
            }
            await nap(milliseconds: period())
        }
    }

    /// The member did not answer. That nobody listens there is told to those who wait for it, once.
    private func isLost(_ member: UInt64, _ reason: String) {
        let isRefusal = reason.contains("refused")
        let call = state.withLock { state -> (@Sendable (UInt64) -> Void)? in
            state.lastFailure = reason
            state.tracker.missed(member, reason: reason, isRefusal: isRefusal, at: Clock.now())
            publish(&state)
            guard isRefusal, state.refused.insert(member).inserted else { return nil }
            state.lostAt[member] = Clock.now()
            return state.onMemberLost
        }
        call?(member)
    }

    private func heard(_ status: MemberStatus, _ member: UInt64) {
        let now = Clock.now()
        let answer = ClusterTracker.StatusAnswer(
            member: member, leader: status.leader.rawValue, term: status.raftTerm.rawValue, raftIndex: status.raftIndex.rawValue,
            appliedIndex: status.raftAppliedIndex.rawValue, revision: status.header.revision.rawValue, version: status.version,
            databaseBytes: status.dbSizeBytes, databaseInUseBytes: status.dbSizeInUseBytes, isLearner: status.isLearner,
            latencyMicroseconds: Int(status.latency.nanoseconds / 1_000))
        let tolerance = period()
        state.withLock { state in
            state.lastAnswer = now
            state.refused.remove(member)
            state.revisions.saw(answer.revision, at: now)
            state.tracker.heard(answer, at: now, toleranceMilliseconds: tolerance)
            if host == nil { state.tracker.setServerVersion("etcd \(status.version)") }
            state.tracker.setConnected(true, reason: "", at: now)
            publish(&state)
        }
    }

    private func readMetrics(_ member: UInt64, _ endpoint: Endpoint) async {
        guard case .tcp(let host, let port) = endpoint.address, endpoint.isTLS != true, client.configuration.tls == nil,
              let text = await MetricsProbe.fetch(host: host, port: port) else { return }
        let metrics = MetricsProbe.Metrics(text)
        change { $0.setMetrics(member, fsyncMicroseconds: metrics.fsyncP99Microseconds, startedAt: metrics.startedAt) }
    }

    // MARK: Metrics, each second

    /// Reads every member's `/metrics` each second while somebody looks at what comes of it.
    func scrapeMetrics(_ isOn: Bool) {
        state.withLock { state in
            state.scraper?.cancel()
            state.scraper = isOn ? Task.detached { await self.scrape() } : nil
        }
    }

    private func scrape() async {
        var before: [UInt64: (reading: MetricsReading, at: Int64)] = [:]
        var due = Clock.monotonicNanoseconds()
        while !Task.isCancelled {
            let endpoints = state.withLock { $0.endpoints }
            let isTLS = client.configuration.tls != nil
            let readings = await withTaskGroup(of: (UInt64, MetricsReading)?.self) { group in
                for (member, endpoint) in endpoints {
                    guard case .tcp(let host, let port) = endpoint.address, endpoint.isTLS != true, !isTLS else { continue }
                    group.addTask { await MetricsProbe.fetch(host: host, port: port).map { (member, MetricsReading($0)) } }
                }
                var all: [UInt64: MetricsReading] = [:]
                for await case let (member, reading)? in group { all[member] = reading }
                return all
            }
            let now = Clock.monotonicNanoseconds()
            var samples: [MetricsSample] = []
            for (member, reading) in readings.sorted(by: { $0.key < $1.key }) {
                if let old = before[member] { samples.append(reading.since(old.reading, node: member, at: Clock.now(), spanMilliseconds: (now - old.at) / 1_000_000)) }
                before[member] = (reading, now)
            }
            if !samples.isEmpty, !Task.isCancelled { mailbox.post(.metrics(samples)) }
            due = max(due + 1_000_000_000, now)
            try? await Task.sleep(for: .nanoseconds(max(0, due - Clock.monotonicNanoseconds())), tolerance: .milliseconds(10))
        }
    }

    /// The reason without the endpoint, which stands beside it.
    private static func shortReason(_ error: any Error) -> String {
        switch error {
        case EtcdError.transport(_, let reason, _): reason
        case EtcdError.deadlineExceeded: "no answer within 1 s"
        default: ClusterSession.text(of: error)
        }
    }
}
