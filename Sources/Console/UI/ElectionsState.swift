/// State of the Elections view: what the nodes, the canary and the faults told, as lanes over time and as a list of elections; and where
/// the person looks. Times are microseconds since 1970. Everything is bounded.
struct ElectionsState: Hashable, Sendable {
    struct VoteMark: Hashable, Sendable {
        var at: Int64
        var voter: UInt64
        var isPreVote: Bool
    }

    struct TermChange: Hashable, Sendable {
        var at: Int64
        var term: UInt64
    }

    private struct VerdictMark: Hashable, Sendable {
        var at: Int64
        var acknowledged: Int
        var confirmed: Int
        var violations: Int
    }

    private struct CanaryMark: Hashable, Sendable {
        var at: Int64
        var check: CanaryCheck
    }

    static let electionLimit = 500
    static let eventLimit = 4_096
    static let markLimit = 1_024
    /// Ten minutes of the canary; those around elections stay longer, as many again.
    static let writeLimit = 30_000
    static let timersPerNode = 128
    /// A write that took longer than this waited for the cluster.
    static let waitMicroseconds: Int64 = 100_000

    // MARK: What was heard
    private(set) var lanes: [NodeLane] = []
    private(set) var votes: [VoteMark] = []
    private(set) var terms: [TermChange] = []
    /// In order of being due.
    private(set) var writes: [CanaryWrite] = []
    private(set) var marks: [FaultMark] = []
    /// Oldest first; `number` counts up.
    private(set) var elections: [Election] = []
    /// Nobody leads, as far as is known.
    private(set) var pending: Election?
    /// The present time, as the model has it.
    var clock: Int64 = 0

    /// Those at the front that are kept only because they belong to elections.
    private var keptWrites = 0
    private var log: [RaftEvent] = []
    private var timers: [UInt64: [TimerReading]] = [:]
    private var requests: [Int64] = []
    private var verdicts: [VerdictMark] = []
    private var canaryChecks: [CanaryMark] = []
    private var faultHealth: [UInt64: RoleLanes.State] = [:]
    /// Leaders that were seen in office, without how they came to it: listed nowhere, but elections have predecessors.
    private var incumbents: [Election] = []
    private var names = NodeNames()
    private var lastNumber = 0

    // MARK: Where the person looks
    /// Index into `zooms`.
    var zoom = ElectionsState.liveZoom
    /// The zoom to come back to when following again.
    var liveZoomNow = ElectionsState.liveZoom
    /// The right edge of the timeline; nil: now, always.
    var right: Int64?
    /// Number of the election shown; nil: the newest.
    var selection: Int?
    /// Index into the steps of the election shown: where the cursor is.
    var step: Int?
    var bookmark: Int?
    /// The election that the shown one is laid beside; nil: the median of all.
    var compared: Int?

    /// Microseconds a column.
    static let zooms: [Int64] = [500, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 15_000_000, 60_000_000]
    /// A failover of a second is ten columns.
    static let liveZoom = 7

    var perColumn: Int64 { ElectionsState.zooms[zoom] }

    /// Everything heard is forgotten; where the person looks stays.
    mutating func forgetData() {
        var fresh = ElectionsState()
        (fresh.zoom, fresh.liveZoomNow, fresh.right, fresh.selection, fresh.step, fresh.bookmark, fresh.compared) = (zoom, liveZoomNow, right, selection, step, bookmark, compared)
        self = fresh
    }

    // MARK: Members and health

    /// A new state of the cluster: members, and for clusters that are polled their roles too.
    mutating func observe(_ cluster: ClusterState, at now: Moment) {
        let at = now.microseconds
        clock = max(clock, at)
        lanes.removeAll { lane in !cluster.members.contains { $0.id == lane.member } }
        for (index, member) in cluster.members.enumerated() {
            names.names[member.id] = member.name
            var place = lanes.firstIndex { $0.member == member.id } ?? lanes.count
            if place == lanes.count { lanes.append(NodeLane(member: member.id, name: member.name)) }
            if place != index, index < lanes.count {
                lanes.swapAt(place, index)
                place = index
            }
            lanes[place].name = member.name
            // A fault that is on is known better and sooner.
            if faultHealth[member.id] == nil {
                switch member.health {
                case .down(let since, _): lanes[place].setHealth(.down, at: since.microseconds)
                case .paused(let since): lanes[place].setHealth(.paused, at: since.microseconds)
                case .isolated(let since): lanes[place].setHealth(.isolated, at: since.microseconds)
                case .starting: if lanes[place].healths.isEmpty == false { lanes[place].setHealth(.unknown, at: at) }
                case .up: if lanes[place].healths.isEmpty == false { lanes[place].setHealth(.unknown, at: at) }
                }
            }
            // A node that tells its role itself tells it better.
            let isSilent = lanes[place].toldAt.map { at - $0 > 3_000_000 } ?? true
            let state = RoleLanes.state(of: member)
            if isSilent, member.isUp || state == .unknown, state != .paused, state != .isolated {
                if state != .unknown || lanes[place].roles.isEmpty { lanes[place].setRole(state, at: at) }
            }
            if isSilent, state == .leader, let term = member.term { heard(term: term, at: at) }
        }
        if let leader = cluster.leader, let term = leader.term { heardLeader(leader.id, term) }
        refreshPending()
    }

    private mutating func heardLeader(_ node: UInt64, _ term: UInt64) {
        guard incumbents.last.map({ $0.term < term }) ?? true, elections.last.map({ $0.term < term }) ?? true else { return }
        incumbents.append(Election(number: 0, previous: nil, fromTerm: nil, leader: node, term: term, lostAt: clock))
        if incumbents.count > 16 { incumbents.removeFirst() }
    }

    /// Who led before the election of this term; nil: before whatever is under way now.
    private func predecessor(_ term: UInt64?) -> Election? {
        let elected = elections.last { $0.term < term ?? .max }
        let seen = incumbents.last { $0.term < term ?? .max }
        guard let elected, let seen else { return elected ?? seen }
        return seen.term > elected.term ? seen : elected
    }

    private mutating func heard(term: UInt64, at: Int64) {
        guard terms.last.map({ $0.term < term && $0.at <= at }) ?? true else { return }
        terms.append(TermChange(at: at, term: term))
        if terms.count > ElectionsState.markLimit { terms.removeFirst(ElectionsState.markLimit / 4) }
    }

    // MARK: What nodes tell

    mutating func heard(_ events: [RaftEvent], cluster: ClusterState) {
        var affected: Set<UInt64> = []
        for event in events {
            var index = log.count
            while index > 0, event.atMicroseconds < log[index - 1].atMicroseconds { index -= 1 }
            log.insert(event, at: index)
            clock = max(clock, event.atMicroseconds)
            if let place = lanes.firstIndex(where: { $0.member == event.node }) {
                lanes[place].toldAt = max(lanes[place].toldAt ?? 0, event.atMicroseconds)
                switch event.kind {
                case .roleChanged(let role): lanes[place].setRole(RoleLanes.state(of: role), at: event.atMicroseconds)
                case .elected: lanes[place].setRole(.leader, at: event.atMicroseconds)
                default: break
                }
            }
            switch event.kind {
            case .voteCast(_, let isPreVote):
                votes.append(VoteMark(at: event.atMicroseconds, voter: event.node, isPreVote: isPreVote))
                if votes.count > ElectionsState.markLimit { votes.removeFirst(ElectionsState.markLimit / 4) }
            case .elected, .roleChanged(.leader):
                affected.insert(event.term)
                heard(term: event.term, at: event.atMicroseconds)
            default: break
            }
        }
        if log.count > ElectionsState.eventLimit { log.removeFirst(ElectionsState.eventLimit / 4) }
        // A late word may belong to the last elections: they are put together again.
        for election in elections.suffix(3) where !election.isOutline || events.contains(where: { $0.term == election.term }) { affected.insert(election.term) }
        for term in affected.sorted() { assemble(term) }
        refreshPending()
    }

    mutating func heard(_ samples: [NodeSample]) {
        for sample in samples {
            if let left = sample.timerLeftMicroseconds {
                timers[sample.node, default: []].append(TimerReading(at: sample.atMicroseconds, left: left, length: sample.timerLengthMicroseconds))
                if timers[sample.node]!.count > ElectionsState.timersPerNode { timers[sample.node]!.removeFirst(ElectionsState.timersPerNode / 4) }
            }
            guard let place = lanes.firstIndex(where: { $0.member == sample.node }) else { continue }
            // Also what was missed in the stream of events is put right here.
            if lanes[place].toldAt.map({ $0 <= sample.atMicroseconds }) ?? true {
                lanes[place].toldAt = sample.atMicroseconds
                lanes[place].setRole(RoleLanes.state(of: sample.role), at: sample.atMicroseconds)
                if sample.role == .leader {
                    heard(term: sample.term, at: sample.atMicroseconds)
                    heardLeader(sample.node, sample.term)
                }
            }
        }
    }

    mutating func heard(_ writes: [CanaryWrite]) {
        guard let first = writes.first else { return }
        for write in writes {
            var index = self.writes.count
            while index > 0, write.dueMicroseconds < self.writes[index - 1].dueMicroseconds { index -= 1 }
            self.writes.insert(write, at: index)
        }
        while self.writes.count - keptWrites > ElectionsState.writeLimit { forgetWrites() }
        let earliest = (writes.map(\.dueMicroseconds).min() ?? first.dueMicroseconds) - 15_000_000
        for index in elections.indices.reversed() {
            guard (elections[index].electedAt ?? elections[index].lostAt) > earliest else { break }
            elections[index].clients = clients(elections[index])
        }
    }

    /// The oldest quarter goes, except what belongs to an election; of that, too, the oldest goes when it becomes too much. Each write is
    /// looked at once.
    private mutating func forgetWrites() {
        let old = keptWrites..<keptWrites + ElectionsState.writeLimit / 4
        var kept: [CanaryWrite] = []
        var index = 0
        for write in writes[old] {
            while index < elections.count, elections[index].end + 2_000_000 < write.dueMicroseconds { index += 1 }
            if index < elections.count, write.dueMicroseconds > elections[index].lostAt - 2_000_000 { kept.append(write) }
        }
        writes.replaceSubrange(old, with: kept)
        keptWrites += kept.count
        if keptWrites > ElectionsState.writeLimit {
            writes.removeFirst(ElectionsState.writeLimit / 4)
            keptWrites -= ElectionsState.writeLimit / 4
        }
    }

    mutating func heard(_ active: [ActiveFault], before: [ActiveFault], at now: Moment) {
        let at = now.microseconds
        func mark(_ fault: ActiveFault, _ isOn: Bool, _ at: Int64) {
            marks.append(FaultMark(at: at, id: fault.id, fault: fault.fault, by: fault.by, isOn: isOn))
        }
        for fault in active where !before.contains(where: { $0.id == fault.id }) { mark(fault, true, fault.since.microseconds) }
        for fault in before where !active.contains(where: { $0.id == fault.id }) { mark(fault, false, min(at, fault.ends?.microseconds ?? at)) }
        marks.sort { $0.at < $1.at }
        if marks.count > ElectionsState.markLimit { marks.removeFirst(ElectionsState.markLimit / 4) }

        var health: [UInt64: (state: RoleLanes.State, since: Int64)] = [:]
        for fault in active {
            let state: RoleLanes.State
            var nodes = fault.fault.nodes
            switch fault.fault {
            case .kill, .stop, .tornTail: state = .down
            case .pause: state = .paused
            case .isolate: state = .isolated
            case .partition(let groups):
                state = .isolated
                // Who cannot reach a majority. Nodes in no group keep all their links.
                let free = lanes.count - nodes.count
                nodes = groups.filter { $0.count + free < lanes.count / 2 + 1 }.flatMap { $0 }
            default: continue
            }
            for node in nodes where health[node].map({ $0.state != .down }) ?? true { health[node] = (state, fault.since.microseconds) }
        }
        for place in lanes.indices {
            let node = lanes[place].member
            if let now = health[node] {
                if faultHealth[node] != now.state { lanes[place].setHealth(now.state, at: now.since) }
            } else if faultHealth[node] != nil {
                lanes[place].setHealth(.unknown, at: at)
            }
            faultHealth[node] = health[node]?.state
        }
        for election in elections.suffix(2) where !election.isOutline { assemble(election.term) }
        refreshPending()
    }

    mutating func heard(_ sample: WorkloadSample) {
        let verdict = sample.verdict
        guard verdict.acknowledgedWrites > 0 else { return }
        verdicts.append(VerdictMark(at: sample.at.microseconds, acknowledged: verdict.acknowledgedWrites, confirmed: verdict.confirmedWrites, violations: verdict.violations.count))
        if verdicts.count > WorkloadSeries.seconds { verdicts.removeFirst(60) }
        for index in elections.indices.suffix(4) { elections[index].check = check(elections[index]) ?? elections[index].check }
    }

    mutating func heard(_ check: CanaryCheck, at now: Moment) {
        canaryChecks.append(CanaryMark(at: now.microseconds, check: check))
        if canaryChecks.count > WorkloadSeries.seconds { canaryChecks.removeFirst(60) }
        for index in elections.indices.suffix(4) { elections[index].check = self.check(elections[index]) ?? elections[index].check }
    }

    /// What was seen from outside: all there is for clusters that are polled.
    mutating func heard(_ events: [ClusterEvent], cluster: ClusterState) {
        seen += events.filter(\.isAboutLeadership)
        if seen.count > 128 { seen.removeFirst(seen.count - 128) }
        for event in events {
            switch event.kind {
            case .transferRequested:
                requests.append(event.at.microseconds)
                if requests.count > 64 { requests.removeFirst() }
                for election in elections.suffix(1) where !election.isOutline { assemble(election.term) }
            case .elected(let leader, let previous, let fromTerm, let term, let unavailable, let tolerance):
                if let index = elections.lastIndex(where: { $0.term == term }) {
                    guard elections[index].isOutline else { continue }
                    // The same told again, once the first commit is known.
                    elections[index] = outline(event, number: elections[index].number, leader, previous, fromTerm, term, unavailable, tolerance, cluster)
                } else if cluster.isPushed || previous != nil {
                    guard elections.last.map({ $0.term < term }) ?? true else { continue }
                    lastNumber += 1
                    append(outline(event, number: lastNumber, leader, previous, fromTerm, term, unavailable, tolerance, cluster))
                }
                heard(term: term, at: event.at.microseconds)
            default: break
            }
        }
    }

    /// The last events that may belong to an election of which only the outline is known.
    private var seen: [ClusterEvent] = []

    private func outline(_ event: ClusterEvent, number: Int, _ leader: String, _ previous: String?, _ fromTerm: UInt64?, _ term: UInt64, _ unavailable: Int64?, _ tolerance: Int64?, _ cluster: ClusterState) -> Election {
        func id(_ name: String) -> UInt64? { cluster.members.first { $0.name == name }?.id }
        let electedAt = event.at.microseconds
        let after = elections.last { $0.number < number }?.electedAt ?? .min
        let related: [ClusterEvent] = seen.filter { $0.at <= event.at && event.at - $0.at < 15_000 && $0.at.microseconds > after }
        let down = related.last { if case .memberDown(_, _, _, true) = $0.kind { true } else { false } }
        let transfer = related.last { if case .transferRequested = $0.kind { event.at - $0.at < 5_000 } else { false } }
        let lost = related.last { if case .leaderLost = $0.kind { true } else { false } }
        var election = Election(number: number, previous: previous.flatMap(id), fromTerm: fromTerm, leader: id(leader), term: term, lostAt: electedAt)
        election.isOutline = true
        election.toleranceMilliseconds = tolerance
        election.electedAt = electedAt
        let away = related.last { event in
            switch event.kind {
            case .paused(let member), .isolated(let member): member == previous
            default: false
            }
        }
        if let transfer {
            election.cause = election.leader.map { .transfer(to: $0, byYou: true) } ?? .unknown
            election.causeText = "handed over to \(leader) (you)"
            election.lostAt = transfer.at.microseconds
        } else if let down, case .memberDown(let member, let reason, let byYou, _) = down.kind {
            election.cause = election.previous.map { .died($0) } ?? .unknown
            election.causeText = "\(member) \(reason)" + (byYou ? " (you)" : "")
            election.lostAt = down.at.microseconds
        } else if let away {
            election.causeText = EventText(away).short
            election.lostAt = away.at.microseconds
        } else if previous == nil {
            election.cause = .firstLeader
            election.causeText = "first leader of this session"
        } else {
            election.causeText = "not seen from outside"
            if let lost { election.lostAt = lost.at.microseconds }
        }
        if let unavailable { election.lostAt = min(electedAt, electedAt - unavailable * 1_000) }
        if election.previous == nil, election.cause != .firstLeader, let index = elections.last(where: { $0.number < number })?.leader { election.previous = index }
        let told: [ClusterEvent] = related.filter { $0.at.microseconds >= election.lostAt - 250_000 } + [event]
        election.steps = told.map { event in
            let text = EventText(event)
            return Election.Step(at: event.at.microseconds, glyph: text.glyph, slot: text.slot, text: text.long)
        }
        election.clients = clients(election)
        election.check = check(election)
        return election
    }

    // MARK: Elections

    private func facts(_ term: UInt64?) -> ElectionFacts {
        ElectionFacts(names: names, voters: lanes.count, events: log, marks: marks, lanes: lanes, timers: timers, requests: requests,
                      before: predecessor(term))
    }

    private mutating func assemble(_ term: UInt64) {
        let known = elections.lastIndex { $0.term == term }
        guard var election = facts(term).election(number: known.map { elections[$0].number } ?? lastNumber + 1, term: term, now: clock) else { return }
        // What was forgotten meanwhile does not undo what was known.
        if let known, !elections[known].isOutline, elections[known].steps.count > election.steps.count { return }
        election.clients = clients(election)
        election.check = check(election)
        if let known {
            elections[known] = election
        } else {
            lastNumber += 1
            append(election)
        }
    }

    private mutating func append(_ election: Election) {
        var index = elections.count
        while index > 0, (elections[index - 1].electedAt ?? 0) > (election.electedAt ?? .max) { index -= 1 }
        elections.insert(election, at: index)
        if elections.count > ElectionsState.electionLimit { elections.removeFirst(ElectionsState.electionLimit / 5) }
        pending = nil
    }

    /// Nobody leads a majority, and somebody tries to, or the leader was seen to go.
    private mutating func refreshPending() {
        guard !lanes.isEmpty, let before = predecessor(nil) else { return }
        let states = lanes.map { $0.state(at: clock) }
        let content = states.count { $0 == .leader || $0 == .follower || $0 == .learner }
        guard !(states.contains(.leader) && content > lanes.count / 2) else {
            pending = nil
            return
        }
        let isGone = lanes.first { $0.member == before.leader }.map { $0.state(at: clock) != .leader } ?? true
        let tries = states.contains(.candidate) || states.contains(.preCandidate)
        guard isGone || tries else {
            pending = nil
            return
        }
        pending = facts(nil).election(number: lastNumber + 1, term: nil, now: clock)
    }

    // MARK: Cost

    /// Indices of the writes that were due between two times.
    func writes(from start: Int64, to end: Int64) -> Range<Int> {
        func place(_ at: Int64) -> Int {
            var low = 0, high = writes.count
            while low < high {
                let middle = (low + high) / 2
                if writes[middle].dueMicroseconds < at { low = middle + 1 } else { high = middle }
            }
            return low
        }
        let first = place(start)
        return first..<max(first, place(end))
    }

    private func clients(_ election: Election) -> Election.ClientCost? {
        guard let electedAt = election.electedAt else { return nil }
        let end = election.committedAt ?? electedAt
        let window = writes[writes(from: election.lostAt - 5_000_000, to: end + 3_000_000)]
        guard !window.isEmpty else { return nil }
        let answers = window.filter { $0.outcome != .failed }.map { $0.dueMicroseconds + $0.tookMicroseconds }.sorted()
        var gap: Int64 = 0
        for (a, b) in zip(answers, answers.dropFirst()) where b >= election.lostAt { gap = max(gap, b - a) }
        // A canary that began with the loss has no answer before it to count from.
        if let first = answers.first, first >= election.lostAt { gap = max(gap, first - max(election.lostAt, window[window.startIndex].dueMicroseconds)) }
        let hit = window.filter { $0.dueMicroseconds + $0.tookMicroseconds >= election.lostAt && $0.dueMicroseconds <= end + 500_000 }
        // Until a write is acknowledged again nobody knows how long the gap is.
        guard let back = answers.first(where: { $0 >= electedAt }), !hit.isEmpty || gap > 0 else { return nil }
        return Election.ClientCost(gap: gap, firstAcknowledged: back, failed: hit.count { $0.outcome == .failed }, retried: hit.count { $0.outcome == .retried }, writes: hit.count)
    }

    /// By the workload's checker and by the watch on the canary's key, as far as they ran.
    private func check(_ election: Election) -> Election.WriteCheck? {
        guard let committedAt = election.committedAt ?? election.electedAt else { return nil }
        let next = elections.first { $0.number > election.number }?.lostAt ?? .max
        let span = committedAt..<max(committedAt, min(next, committedAt + 10_000_000))
        var found: Election.WriteCheck?
        if let after = verdicts.last(where: { span.contains($0.at) }) {
            let before = verdicts.last { $0.at <= election.lostAt }?.violations ?? 0
            // The checker keeps twenty: beyond that it cannot be told what is new.
            if before < 20 { found = Election.WriteCheck(lost: max(0, after.violations - before), checked: after.confirmed) }
        }
        if let after = canaryChecks.last(where: { span.contains($0.at) })?.check, after.confirmed + after.lost > 0 {
            // Each start of the canary counts anew.
            let before = canaryChecks.last { $0.at <= election.lostAt }?.check
            let lostBefore = before.map { $0.acknowledged <= after.acknowledged ? $0.lost : 0 } ?? 0
            found = Election.WriteCheck(lost: (found?.lost ?? 0) + max(0, after.lost - lostBefore), checked: (found?.checked ?? 0) + after.confirmed)
        }
        return found
    }

    // MARK: What is shown

    var newest: Election? { pending ?? elections.last }

    /// The election that steps and cost are about.
    var shown: Election? {
        guard let selection else { return newest }
        return elections.first { $0.number == selection } ?? (pending?.number == selection ? pending : newest)
    }

    func election(_ number: Int?) -> Election? { number.flatMap { number in elections.first { $0.number == number } } }

    /// Newest first, the one under way on top.
    var listed: [Election] { (pending.map { [$0] } ?? []) + elections.reversed() }

    func steps(of election: Election) -> [Election.Step] {
        var steps = election.steps
        if let at = election.clients?.firstAcknowledged {
            let step = Election.Step(at: at, glyph: "●", slot: .ok, text: "first client write acknowledged")
            steps.insert(step, at: steps.firstIndex { $0.at > at } ?? steps.count)
        }
        return steps
    }

    /// The middle of all elections with a loss and an end, first leaders left out.
    func median(_ value: (Election) -> Int64?) -> Int64? {
        let values = elections.filter { $0.cause != .firstLeader }.compactMap(value).sorted()
        return values.isEmpty ? nil : values[values.count / 2]
    }

    /// Where the lanes know a leader in office: followers hear its heartbeats.
    func hasHeartbeat(from start: Int64, to end: Int64) -> Bool {
        lanes.contains { $0.state(at: start) == .leader && $0.state(at: end) == .leader }
    }

    func term(at: Int64) -> UInt64? { terms.last { $0.at <= at }?.term }
}

extension ClusterEvent {
    fileprivate var isAboutLeadership: Bool {
        switch kind {
        case .leaderLost, .campaign, .memberDown, .paused, .isolated, .transferRequested, .faultOn: true
        default: false
        }
    }
}

extension Moment {
    var microseconds: Int64 { milliseconds * 1_000 }
    init(microseconds: Int64) { self.init(milliseconds: microseconds / 1_000) }
}

extension RoleLanes {
    static func state(of role: MemberState.Role) -> State {
        switch role {
        case .leader: .leader
        case .follower: .follower
        case .preCandidate: .preCandidate
        case .candidate: .candidate
        case .learner: .learner
        case .unknown: .unknown
        }
    }
}
