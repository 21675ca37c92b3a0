import UI

/// Turns what is heard of a cluster (what nodes tell of their consensus, answers to Status and their absence, the processes of nodes
/// that this console runs) into the state and the events that people see. A value without clock or I/O: every call carries its time.
///
/// Who leads comes from the members' own streams. Only where a member has none (real etcd) does its Status count.
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

        fileprivate var bounded: StatusAnswer {
            var result = self
            result.term = term.clamped(to: Bounds.index)
            result.raftIndex = raftIndex.clamped(to: Bounds.index)
            result.appliedIndex = appliedIndex.clamped(to: Bounds.index)
            result.revision = revision.clamped(to: 0...Int64(Bounds.index.upperBound))
            result.databaseBytes = databaseBytes.clamped(to: 0...Int64(Bounds.bytes.upperBound))
            result.databaseInUseBytes = databaseInUseBytes.clamped(to: 0...Int64(Bounds.bytes.upperBound))
            return result
        }
    }

    private(set) var state: ClusterState
    /// Events not yet taken.
    private var fresh: [ClusterEvent] = []
    private var lastEventID: UInt64 = 0
    /// Figures change: poll more often.
    private(set) var unstableUntil: Moment

    /// What happened before the console was there is no news.
    private let begin: Moment
    /// The processes are told by their owner, and with them who is up and who is not.
    private let isHosted: Bool
    /// Members that tell their consensus now, and those that cannot.
    private var streaming: Set<UInt64> = []
    private var silent: Set<UInt64> = []
    private var brokenAt: [UInt64: Moment] = [:]
    /// Log writes of the last seconds, for their percentile.
    private var logWrites: [UInt64: [(at: Moment, histogram: LatencyHistogram)]] = [:]

    /// The newest leadership known.
    private var leader: (id: UInt64, name: String, term: UInt64, since: Moment)?
    /// Since when the leader cannot commit, as far as is known.
    private var lossNoticed: Moment?
    /// An event has said so.
    private var isLossTold = false
    /// Elections whose first commit is awaited, by term.
    private var awaited: [UInt64: (event: ClusterEvent, gapStart: Moment?)] = [:]
    private var failures: [UInt64: Int] = [:]
    private var downSince: [UInt64: Moment] = [:]
    /// What the person did, so that its effect is told as theirs.
    private var ownDoing: Set<UInt64> = []

    init(_ state: ClusterState, now: Moment) {
        self.state = state
        begin = now
        isHosted = state.kind == .playground
        unstableUntil = now.advanced(byMilliseconds: 5_000)
    }

    /// Over which time the percentile of log writes is taken.
    private static let logWriteSpanMilliseconds: Int64 = 10_000
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
        let answer = answer.bounded
        failures[answer.member] = 0
        state.members[index].version = answer.version
        state.members[index].latencyMicroseconds = answer.latencyMicroseconds
        state.revision = max(state.revision ?? 0, answer.revision)
        state.members[index].dbSizeBytes = answer.databaseBytes
        state.members[index].dbSizeInUseBytes = answer.databaseInUseBytes
        if !isHosted { isUp(index, at: now) }
        // Our own nodes tell the rest themselves, sooner and better; in between nothing is guessed.
        if streaming.contains(answer.member) || state.isPushed { return }
        if isHosted, !state.members[index].isUp { return }
        if state.members[index].applied != answer.appliedIndex { unstableUntil = max(unstableUntil, now.advanced(byMilliseconds: 2_000)) }
        state.members[index].term = answer.term
        // Status tells the newest entry that the member knows; real etcd reports its commit index so.
        state.members[index].commit = answer.raftIndex
        state.members[index].applied = answer.appliedIndex
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
        } else if answer.leader == 0, leader?.term ?? 0 <= answer.term {
            tellLoss(at: now)
        }
    }

    private mutating func isUp(_ index: Int, at now: Moment) {
        if case .down = state.members[index].health {
            let id = state.members[index].id
            tell(.memberUp(member: state.members[index].name, afterMilliseconds: downSince.removeValue(forKey: id).map { now - $0 }), at: now)
        }
        state.members[index].health = .up
    }

    /// No answer. One refusal is proof (nobody listens); silence needs a second time.
    mutating func missed(_ id: UInt64, reason: String, isRefusal: Bool, at now: Moment) {
        guard let index = index(id) else { return }
        failures[id, default: 0] += 1
        state.members[index].latencyMicroseconds = nil
        if isHosted { return }
        guard isRefusal || failures[id]! >= 2 else { return }
        fell(index, reason: reason, at: now, since: brokenAt[id] ?? now)
    }

    private mutating func fell(_ index: Int, reason: String, at now: Moment, since: Moment) {
        let member = state.members[index]
        if case .down = member.health { return }
        let wasLeader = leader?.id == member.id && member.role == .leader
        state.members[index].health = .down(since: since, reason: reason)
        state.members[index].role = .unknown
        state.members[index].latencyMicroseconds = nil
        downSince[member.id] = since
        if wasLeader { noticeLoss(since, isTold: true) }
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

    mutating func setKeyCount(_ count: Int64) { state.keyCount = count.clamped(to: 0...Int64(Bounds.index.upperBound)) }
    mutating func setNote(_ note: String?) { state.note = note }
    mutating func setServerVersion(_ version: String) { state.serverVersion = version }
    mutating func setPeriod(milliseconds: Int64) { state.periodMilliseconds = milliseconds }
    mutating func sawRevision(_ revision: Int64) { state.revision = max(state.revision ?? 0, revision.clamped(to: 0...Int64(Bounds.index.upperBound))) }

    mutating func setAlarms(_ alarms: [ClusterState.Alarm], at now: Moment) {
        for alarm in alarms where !state.alarms.contains(alarm) { tell(.alarm(member: alarm.member, kind: alarm.kind, isRaised: true), at: now) }
        for alarm in state.alarms where !alarms.contains(alarm) { tell(.alarm(member: alarm.member, kind: alarm.kind, isRaised: false), at: now) }
        state.alarms = alarms
    }

    mutating func setMetrics(_ id: UInt64, fsyncMicroseconds: Int?, startedAt: Moment?) {
        guard let index = index(id) else { return }
        if !streaming.contains(id) { state.members[index].fsyncMicroseconds = fsyncMicroseconds }
        if let startedAt { state.members[index].startedAt = startedAt }
    }

    // MARK: Told by our own nodes

    /// The member's stream runs: its first word is there.
    mutating func streamOpened(_ id: UInt64, at now: Moment) {
        guard let index = index(id) else { return }
        streaming.insert(id)
        silent.remove(id)
        brokenAt[id] = nil
        failures[id] = 0
        if !isHosted { isUp(index, at: now) }
        state.isPushed = silent.isEmpty
    }

    /// The stream broke; it may come back.
    mutating func streamEnded(_ id: UInt64, at now: Moment) {
        if streaming.remove(id) != nil { brokenAt[id] = now }
    }

    /// The member does not tell its consensus: real etcd.
    mutating func hasNoStream(_ id: UInt64) {
        streaming.remove(id)
        silent.insert(id)
        state.isPushed = false
    }

    /// The latest states, each of another member.
    mutating func heard(_ samples: [NodeSample], at now: Moment) {
        for sample in samples {
            guard let index = index(sample.node), streaming.contains(sample.node), isRunning(index) else { continue }
            if state.members[index].applied != sample.applied { unstableUntil = max(unstableUntil, now.advanced(byMilliseconds: 2_000)) }
            state.members[index].sampledAt = now
            state.members[index].commit = sample.commit
            state.members[index].applied = sample.applied
            state.members[index].lastIndex = sample.lastIndex
            raft(index, role: sample.role, term: sample.term, at: Moment(milliseconds: sample.atMicroseconds / 1_000))
            follows(sample.node, leader: sample.leader, term: sample.term, at: Moment(milliseconds: sample.atMicroseconds / 1_000))
            if let writes = sample.stages.first(where: { $0.stage == .logWrite })?.histogram { wrote(index, writes, at: now) }
        }
    }

    private mutating func wrote(_ index: Int, _ histogram: LatencyHistogram, at now: Moment) {
        var recent = logWrites[state.members[index].id] ?? []
        recent.removeAll { now - $0.at > ClusterTracker.logWriteSpanMilliseconds }
        recent.append((now, histogram))
        logWrites[state.members[index].id] = recent
        var sum = LatencyHistogram()
        for (_, part) in recent { sum.add(part) }
        state.members[index].fsyncMicroseconds = sum.quantile(0.99)
    }

    mutating func heard(_ event: RaftEvent) {
        guard let index = index(event.node), event.at >= begin, isRunning(index) else { return }
        switch event.kind {
        case .roleChanged(let role): raft(index, role: role, term: event.term, at: event.at)
        case .leaderChanged(let leader): follows(event.node, leader: leader, term: event.term, at: event.at)
        case .firstCommit: firstCommit(event.term, at: event.at)
        case .electionTimeout(let after):
            // Nothing was heard of the leader for so long: it may have stood still, or hung.
            if let leader, leader.term == event.term { noticeLoss(event.at.advanced(byMilliseconds: -after / 1_000), isTold: false) }
        case .leaderConnectionLost(let lost): if let leader, leader.id == lost, leader.term == event.term { noticeLoss(event.at, isTold: false) }
        // It takes no proposals from here on.
        case .transferStarted: if leader?.id == event.node { noticeLoss(event.at, isTold: true) }
        case .transferAborted: if leader?.id == event.node { (lossNoticed, isLossTold) = (nil, false) }
        default: break
        }
    }

    /// A node that its owner says is dead has nothing to tell; what still arrives is from before.
    private func isRunning(_ index: Int) -> Bool {
        if isHosted, case .down = state.members[index].health { false } else { true }
    }

    /// A member knows another one as leader. Those with a stream say so themselves.
    private mutating func follows(_ id: UInt64, leader known: UInt64, term: UInt64, at now: Moment) {
        guard known != id else { return }
        if known == 0 {
            if let leader, leader.term <= term, !streaming.contains(leader.id) { tellLoss(at: now) }
        } else if !streaming.contains(known), index(known) != nil {
            lead(known, term: term, at: now, tolerance: nil)
        }
    }

    // MARK: Told by their owner

    mutating func heard(_ statuses: [NodeStatus], at now: Moment) {
        for status in statuses {
            guard let index = index(status.id) else { continue }
            state.members[index].startedAt = status.startedAtMilliseconds > 0 ? Moment(milliseconds: status.startedAtMilliseconds) : nil
            process(status.process, index, at: now)
            switch status.process {
            case .running, .paused, .isolated: break
            // The size of its database stays as it was.
            case .starting, .dead:
                state.members[index].commit = nil
                state.members[index].applied = nil
                state.members[index].lastIndex = nil
            }
        }
    }

    mutating func heard(_ event: NodeEvent) {
        guard let index = index(event.node) else { return }
        process(event.process, index, at: Moment(milliseconds: event.atMilliseconds))
    }

    private mutating func process(_ process: NodeProcessState, _ index: Int, at now: Moment) {
        let member = state.members[index]
        switch (process, member.health) {
        case (.dead(let reason), .down(let since, let old)):
            if reason != old { state.members[index].health = .down(since: since, reason: reason) }
        case (.dead(let reason), _): fell(index, reason: reason, at: now, since: now)
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
            if leader?.id == member.id { noticeLoss(now, isTold: true) }
            tell(.paused(member: member.name), at: now)
        case (.isolated, .isolated): break
        case (.isolated, _):
            state.members[index].health = .isolated(since: now)
            if leader?.id == member.id { noticeLoss(now, isTold: true) }
            tell(.isolated(member: member.name), at: now)
        }
    }

    private mutating func raft(_ index: Int, role: MemberState.Role, term: UInt64, at now: Moment) {
        let member = state.members[index]
        // A member's term never goes back.
        if let known = member.term, term < known { return }
        state.members[index].term = term
        guard role != member.role || term != member.term else { return }
        state.members[index].role = role
        switch role {
        case .leader: lead(member.id, term: term, at: now, tolerance: nil)
        case .preCandidate, .candidate:
            if role != member.role { tell(.campaign(member: member.name, term: role == .preCandidate ? term + 1 : term, isPreVote: role == .preCandidate), at: now) }
        case .follower, .learner, .unknown: break
        }
        if member.role == .leader, role != .leader, leader?.id == member.id, leader?.term == member.term { tellLoss(at: now) }
    }

    // MARK: Leadership

    private mutating func noticeLoss(_ since: Moment, isTold: Bool) {
        if lossNoticed == nil { lossNoticed = since }
        if isTold { isLossTold = true }
    }

    /// The leader is none any more, and nothing has been said of it.
    private mutating func tellLoss(at now: Moment) {
        guard let leader else { return }
        if !isLossTold { tell(.leaderLost(previous: leader.name, term: leader.term), at: now) }
        noticeLoss(now, isTold: true)
    }

    /// - Parameter tolerance: how exact the time is; nil for what a member told itself.
    private mutating func lead(_ id: UInt64, term: UInt64, at now: Moment, tolerance: Int64?) {
        if let leader, leader.term >= term { return }
        let previous = leader
        leader = (id, name(id), term, now)
        let gapStart = previous == nil ? nil : lossNoticed
        (lossNoticed, isLossTold) = (nil, false)
        // The first leadership seen on an attached cluster happened before we came.
        if previous == nil, !isHosted { return }
        // A polled cluster hides the first commit: what is known is when the new leader was seen, give or take a period.
        let isPushed = streaming.contains(id)
        let gap: Int64? = isPushed ? nil : gapStart.map { max(0, now - $0) }
        tell(.elected(leader: name(id), previous: previous.map(\.name), fromTerm: previous?.term, term: term,
                      unavailableMilliseconds: gap, toleranceMilliseconds: tolerance), at: now)
        if isPushed, let event = fresh.last {
            awaited[term] = (event, gapStart)
            awaited = awaited.filter { $0.key + 8 > term } // terms that never committed
        }
    }

    private mutating func firstCommit(_ term: UInt64, at now: Moment) {
        guard let waiting = awaited.removeValue(forKey: term) else { return }
        guard case .elected(let leader, let previous, let fromTerm, let term, _, _) = waiting.event.kind else { return }
        var event = waiting.event
        event.kind = .elected(leader: leader, previous: previous, fromTerm: fromTerm, term: term,
                              unavailableMilliseconds: waiting.gapStart.map { max(0, now - $0) }, toleranceMilliseconds: nil)
        fresh.append(event)
    }
}
