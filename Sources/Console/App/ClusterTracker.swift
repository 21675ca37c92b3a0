import UI

/// Turns what is heard of a cluster (answers to Status, their absence, news of nodes that this process runs) into the state and the
/// events that people see. A value without clock or I/O: every call carries its time.
struct ClusterTracker {
    /// An answer to Status, from any server.
    struct StatusAnswer: Hashable {
        var member: UInt64
        var leader: UInt64
        var term: UInt64
        var raftIndex: UInt64
        var appliedIndex: UInt64
        var revision: Int64
        var version: String
        var databaseBytes: Int64
        var databaseInUseBytes: Int64
        var isLearner: Bool
        var latencyMicroseconds: Int
    }

    private(set) var state: ClusterState
    /// Events not yet taken.
    private var fresh: [ClusterEvent] = []
    private var lastEventID: UInt64 = 0
    /// Figures change: poll more often.
    private(set) var unstableUntil: Moment

    /// The newest leadership known.
    private var leader: (id: UInt64, name: String, term: UInt64, since: Moment)?
    /// When the present leadership's predecessor was last known to commit.
    private var lastCommit: [UInt64: Moment] = [:]
    /// The leader's loss noticed: when writes stopped at the latest.
    private var lossNoticed: Moment?
    /// Elections whose first commit is awaited, by term.
    private var awaited: [UInt64: (event: ClusterEvent, gapStart: Moment?)] = [:]
    private var failures: [UInt64: Int] = [:]
    private var downSince: [UInt64: Moment] = [:]
    /// When a member last told its role itself. Samples are published from time to time and may be older than that.
    private var lastNews: [UInt64: Moment] = [:]
    /// What the person did, so that its effect is told as theirs.
    private var ownDoing: Set<UInt64> = []

    init(_ state: ClusterState, now: Moment) {
        self.state = state
        unstableUntil = now.advanced(byMilliseconds: 5_000)
    }

    private static let sampleLagMilliseconds: Int64 = 500
    /// How long after anything of note the cluster is polled quickly.
    private static let unrestMilliseconds: Int64 = 5_000

    mutating func takeEvents() -> [ClusterEvent] {
        defer { fresh = [] }
        return fresh
    }

    private mutating func tell(_ kind: ClusterEvent.Kind, at: Moment) {
        lastEventID += 1
        fresh.append(ClusterEvent(id: lastEventID, at: at, kind: kind))
        unstableUntil = max(unstableUntil, at.advanced(byMilliseconds: ClusterTracker.unrestMilliseconds))
    }

    /// This console started the nodes and knows their processes.
    private var isHosted: Bool { state.kind == .playground }

    private func index(_ id: UInt64) -> Int? { state.members.firstIndex { $0.id == id } }
    func name(_ id: UInt64) -> String { index(id).map { state.members[$0].name } ?? String(id, radix: 16) }

    /// An event that has no other source (workload switched, connection notes).
    mutating func note(_ kind: ClusterEvent.Kind, at now: Moment) { tell(kind, at: now) }

    mutating func willChange(_ id: UInt64) { ownDoing.insert(id) }

    // MARK: Members

    /// The member list changed or was read the first time.
    mutating func setMembers(_ members: [(id: UInt64, name: String, endpoint: String, isLearner: Bool)]) {
        state.members = members.map { new in
            var member = index(new.id).map { state.members[$0] } ?? MemberState(id: new.id, name: new.name, endpoint: new.endpoint)
            member.name = new.name.isEmpty ? String(new.id, radix: 16) : new.name
            member.endpoint = new.endpoint
            if new.isLearner { member.role = .learner } else if member.role == .learner { member.role = .follower }
            return member
        }
    }

    // MARK: Polled

    mutating func heard(_ answer: StatusAnswer, at now: Moment, toleranceMilliseconds: Int64?) {
        guard let index = index(answer.member) else { return }
        failures[answer.member] = 0
        let wasDown: Bool
        switch state.members[index].health {
        case .down: wasDown = true
        default: wasDown = false
        }
        state.members[index].version = answer.version
        state.members[index].latencyMicroseconds = answer.latencyMicroseconds
        state.revision = max(state.revision ?? 0, answer.revision)
        // Our own nodes tell their state themselves, sooner and better.
        if state.isPushed { return }
        // An answer that a node gave before it died.
        if isHosted, wasDown { return }
        if wasDown {
            tell(.memberUp(member: state.members[index].name, afterMilliseconds: downSince[answer.member].map { now - $0 }), at: now)
            downSince[answer.member] = nil
        }
        switch state.members[index].health {
        // Who started a node knows better what state its process is in.
        case .paused, .isolated: break
        case .starting, .up, .down: state.members[index].health = .up
        }
        if state.members[index].applied != answer.appliedIndex { unstableUntil = max(unstableUntil, now.advanced(byMilliseconds: 2_000)) }
        state.members[index].term = answer.term
        // Status tells the newest entry that the member knows; real etcd reports its commit index so.
        state.members[index].commit = answer.raftIndex
        state.members[index].applied = answer.appliedIndex
        state.members[index].dbSizeBytes = answer.databaseBytes
        state.members[index].dbSizeInUseBytes = answer.databaseInUseBytes
        state.members[index].sampledAt = now
        state.members[index].role = answer.isLearner ? .learner : answer.leader == answer.member ? .leader : answer.leader == 0 ? .unknown : .follower
        if answer.leader == answer.member {
            lead(answer.member, term: answer.term, at: now, tolerance: toleranceMilliseconds)
            // Only one can lead: an older leader that was not heard of since is none any more.
            for other in state.members.indices where other != index && state.members[other].role == .leader && (state.members[other].term ?? 0) < answer.term {
                state.members[other].role = .unknown
            }
        } else if answer.leader != 0, (leader?.term ?? 0) < answer.term, self.index(answer.leader) != nil {
            lead(answer.leader, term: answer.term, at: now, tolerance: toleranceMilliseconds)
        } else if answer.leader == 0, leader?.term ?? 0 <= answer.term, let old = leader, lossNoticed == nil {
            lossNoticed = now
            tell(.leaderLost(previous: old.name, term: old.term), at: now)
        }
    }

    /// No answer. One refusal is proof (nobody listens); silence needs a second time.
    mutating func missed(_ id: UInt64, reason: String, isRefusal: Bool, at now: Moment) {
        guard let index = index(id) else { return }
        failures[id, default: 0] += 1
        state.members[index].latencyMicroseconds = nil
        if state.isPushed || isHosted { return }
        guard isRefusal || failures[id]! >= 2 else { return }
        fell(index, reason: reason, at: now)
    }

    private mutating func fell(_ index: Int, reason: String, at now: Moment) {
        let member = state.members[index]
        if case .down = member.health { return }
        let wasLeader = leader?.id == member.id && member.role == .leader
        state.members[index].health = .down(since: now, reason: reason)
        state.members[index].role = .unknown
        state.members[index].latencyMicroseconds = nil
        downSince[member.id] = now
        if wasLeader, lossNoticed == nil { lossNoticed = now }
        tell(.memberDown(member: member.name, reason: reason, byYou: ownDoing.remove(member.id) != nil, wasLeader: wasLeader), at: now)
    }

    /// Whether anybody answers.
    mutating func setConnected(_ isConnected: Bool, reason: String, at now: Moment) {
        if isConnected {
            if case .lost(let since, _) = state.connection {
                tell(.note("connected again after \((now - since) / 1_000) s", isBad: false), at: now)
            }
            state.connection = .connected
        } else if case .lost = state.connection {
            return
        } else {
            if state.connection == .connected { tell(.note("no endpoint answers: \(reason)", isBad: true), at: now) }
            state.connection = .lost(since: now, reason: reason)
        }
    }

    mutating func setKeyCount(_ count: Int64) { state.keyCount = count }
    mutating func setNote(_ note: String?) { state.note = note }
    mutating func setServerVersion(_ version: String) { state.serverVersion = version }
    mutating func setPeriod(milliseconds: Int64) { state.periodMilliseconds = milliseconds }
    mutating func sawRevision(_ revision: Int64) { state.revision = max(state.revision ?? 0, revision) }

    mutating func setAlarms(_ alarms: [ClusterState.Alarm], at now: Moment) {
        for alarm in alarms where !state.alarms.contains(alarm) { tell(.alarm(member: alarm.member, kind: alarm.kind, isRaised: true), at: now) }
        for alarm in state.alarms where !alarms.contains(alarm) { tell(.alarm(member: alarm.member, kind: alarm.kind, isRaised: false), at: now) }
        state.alarms = alarms
    }

    mutating func setMetrics(_ id: UInt64, fsyncMicroseconds: Int?, startedAt: Moment?) {
        guard let index = index(id) else { return }
        state.members[index].fsyncMicroseconds = fsyncMicroseconds
        if let startedAt { state.members[index].startedAt = startedAt }
    }

    // MARK: Told by our own nodes

    mutating func heard(_ statuses: [NodeStatus], at now: Moment) {
        for status in statuses {
            guard let index = index(status.id) else { continue }
            if status.isProcessOnly {
                state.members[index].startedAt = status.startedAtMilliseconds > 0 ? Moment(milliseconds: status.startedAtMilliseconds) : nil
                process(status.process, index, at: now)
                if !isRunning(status.process) {
                    state.members[index].commit = nil
                    state.members[index].applied = nil
                }
                continue
            }
            if state.members[index].applied != status.appliedIndex { unstableUntil = max(unstableUntil, now.advanced(byMilliseconds: 2_000)) }
            state.revision = max(state.revision ?? 0, status.revision)
            if status.sampledAtMilliseconds > 0 { state.members[index].sampledAt = Moment(milliseconds: status.sampledAtMilliseconds) }
            state.members[index].startedAt = status.startedAtMilliseconds > 0 ? Moment(milliseconds: status.startedAtMilliseconds) : nil
            // A dead node has no figures; the size of its database stays as it was.
            if status.databaseBytes > 0 {
                state.members[index].dbSizeBytes = status.databaseBytes
                state.members[index].dbSizeInUseBytes = status.databaseInUseBytes
            }
            state.members[index].fsyncMicroseconds = status.fsyncP99Microseconds
            guard isRunning(status.process) else {
                process(status.process, index, at: now)
                state.members[index].commit = nil
                state.members[index].applied = nil
                state.members[index].lastIndex = nil
                continue
            }
            process(status.process, index, at: now)
            state.members[index].commit = status.commitIndex
            state.members[index].applied = status.appliedIndex
            state.members[index].lastIndex = status.lastIndex
            if let news = lastNews[status.id], now - news < ClusterTracker.sampleLagMilliseconds { continue }
            raft(index, role: status.role, term: status.term, at: now)
        }
    }

    private func isRunning(_ process: NodeProcessState) -> Bool {
        switch process {
        case .running, .paused, .isolated: true
        case .starting, .dead: false
        }
    }

    mutating func heard(_ event: NodeEvent) {
        guard let index = index(event.node) else { return }
        let at = Moment(milliseconds: event.atMilliseconds)
        switch event.kind {
        case .process(let process): self.process(process, index, at: at)
        case .raft(let role, let term, _):
            lastNews[event.node] = max(lastNews[event.node] ?? at, at)
            raft(index, role: role, term: term, at: at)
        case .firstCommit(let term): firstCommit(term, at: at)
        case .lastCommit(let term, let milliseconds): lastCommit[term] = Moment(milliseconds: milliseconds)
        case .log: break
        }
    }

    private mutating func process(_ process: NodeProcessState, _ index: Int, at now: Moment) {
        let member = state.members[index]
        switch (process, member.health) {
        case (.dead(let reason), .down(let since, let old)):
            if reason != old { state.members[index].health = .down(since: since, reason: reason) }
        case (.dead(let reason), _): fell(index, reason: reason, at: now)
        case (.starting, .starting): break
        case (.starting, _): state.members[index].health = .starting
        case (.running, .up): break
        case (.running, .paused):
            state.members[index].health = .up
            tell(.resumed(member: member.name), at: now)
        case (.running, .isolated):
            state.members[index].health = .up
            tell(.rejoined(member: member.name), at: now)
        case (.running, .starting), (.running, .down):
            state.members[index].health = .up
            // The first start of a playground is no news.
            if let since = downSince.removeValue(forKey: member.id) { tell(.memberUp(member: member.name, afterMilliseconds: now - since), at: now) }
        case (.paused, .paused): break
        case (.paused, _):
            state.members[index].health = .paused(since: now)
            if leader?.id == member.id, lossNoticed == nil { lossNoticed = now }
            tell(.paused(member: member.name), at: now)
        case (.isolated, .isolated): break
        case (.isolated, _):
            state.members[index].health = .isolated(since: now)
            if leader?.id == member.id, lossNoticed == nil { lossNoticed = now }
            tell(.isolated(member: member.name), at: now)
        }
    }

    private mutating func raft(_ index: Int, role: NodeRole, term: UInt64, at now: Moment) {
        let member = state.members[index]
        // News and samples may cross: a node's term never goes back.
        if let known = member.term, term < known { return }
        let new: MemberState.Role = switch role {
        case .follower: .follower
        case .preCandidate: .preCandidate
        case .candidate: .candidate
        case .leader: .leader
        case .learner: .learner
        }
        state.members[index].term = term
        guard new != member.role || term != member.term else { return }
        state.members[index].role = new
        switch new {
        case .leader: lead(member.id, term: term, at: now, tolerance: nil)
        case .preCandidate, .candidate:
            if new != member.role { tell(.campaign(member: member.name, term: new == .preCandidate ? term + 1 : term, isPreVote: new == .preCandidate), at: now) }
        case .follower, .learner, .unknown: break
        }
        if member.role == .leader, new != .leader, leader?.id == member.id, leader?.term == member.term, lossNoticed == nil {
            lossNoticed = now
            tell(.leaderLost(previous: member.name, term: member.term ?? 0), at: now)
        }
    }

    // MARK: Leadership

    private mutating func lead(_ id: UInt64, term: UInt64, at now: Moment, tolerance: Int64?) {
        if let leader, leader.term >= term { return }
        let previous = leader
        leader = (id, name(id), term, now)
        let gapStart = previous == nil ? nil : previous.flatMap { lastCommit[$0.term] } ?? lossNoticed
        lossNoticed = nil
        // The first leadership seen on an attached cluster happened before we came.
        if previous == nil, !state.isPushed { return }
        // A polled cluster hides the first commit: what is known is when the new leader was seen, give or take a period.
        let gap: Int64? = state.isPushed ? nil : gapStart.map { now - $0 }
        tell(.elected(leader: name(id), previous: previous.map(\.name), fromTerm: previous?.term, term: term,
                      unavailableMilliseconds: gap, toleranceMilliseconds: tolerance), at: now)
        if state.isPushed, let event = fresh.last {
            awaited[term] = (event, gapStart)
            awaited = awaited.filter { $0.key + 8 > term } // terms that never committed
        }
    }

    private mutating func firstCommit(_ term: UInt64, at now: Moment) {
        guard let waiting = awaited.removeValue(forKey: term) else { return }
        guard case .elected(let leader, let previous, let fromTerm, let term, _, _) = waiting.event.kind else { return }
        let gapStart = fromTerm.flatMap { lastCommit[$0] } ?? waiting.gapStart
        var event = waiting.event
        event.kind = .elected(leader: leader, previous: previous, fromTerm: fromTerm, term: term,
                              unavailableMilliseconds: gapStart.map { max(0, now - $0) }, toleranceMilliseconds: nil)
        fresh.append(event)
    }
}
