/// A change of leadership, or the attempt at one, with what it cost. All times in microseconds since 1970.
struct Election: Hashable, Sendable, Identifiable {
    enum Cause: Hashable, Sendable {
        case firstLeader
        /// Somebody did it: the fault as a few words ("kill n1"), and who.
        case fault(String, by: String)
        case stopped(UInt64, by: String?)
        case transfer(to: UInt64, byYou: Bool)
        case connectionLost(UInt64)
        case died(UInt64)
        case steppedDown(UInt64, String)
        case timer(UInt64)
        case unknown
    }

    enum Phase: Int, CaseIterable, Hashable, Sendable {
        case detect, preVote, vote, firstCommit

        var title: String {
            switch self {
            case .detect: "detect"
            case .preVote: "pre-vote"
            case .vote: "vote"
            case .firstCommit: "first commit"
            }
        }

        var key: String {
            switch self {
            case .detect: "detect"
            case .preVote: "preVote"
            case .vote: "vote"
            case .firstCommit: "firstCommit"
            }
        }
    }

    /// Something that happened, in words.
    struct Step: Hashable, Sendable {
        var at: Int64
        var glyph: Unicode.Scalar
        var slot: Slot
        var text: String
    }

    /// What the canary's writes say.
    struct ClientCost: Hashable, Sendable {
        /// The longest time without an acknowledged write.
        var gap: Int64
        var firstAcknowledged: Int64?
        var failed: Int
        var retried: Int
        var writes: Int
    }

    /// What the checkers of the workload and of the canary said once the new leader was in office.
    struct WriteCheck: Hashable, Sendable {
        var lost: Int
        var checked: Int
    }

    /// Counts from 1 in a session.
    var number: Int
    var previous: UInt64?
    var fromTerm: UInt64?
    /// nil: nobody leads yet.
    var leader: UInt64?
    var term: UInt64
    var cause: Cause = .unknown
    var causeText = ""

    var lostAt: Int64
    var detectedAt: Int64?
    var votingAt: Int64?
    var electedAt: Int64?
    var committedAt: Int64?

    var votes = 0
    var voters = 0
    /// Rounds of voting that nobody won.
    var splitVotes = 0
    var steps: [Step] = []
    /// "n3's timer of 1,040 ms fired first (n2 had 231 ms left)"
    var remark: String?
    /// How wrong the times may be; nil: told by the nodes as it happened.
    var toleranceMilliseconds: Int64?
    /// Known from its outcome alone: phases and votes were not told.
    var isOutline = false
    var clients: ClientCost?
    var check: WriteCheck?

    var id: Int { number }

    var noLeader: Int64? { electedAt.map { max(0, $0 - lostAt) } }
    /// When everything that belongs to it was over, as far as is known.
    var end: Int64 { max(committedAt ?? electedAt ?? lostAt, clients?.firstAcknowledged ?? 0) }

    func duration(_ phase: Phase) -> Int64? {
        func span(_ from: Int64?, _ to: Int64?) -> Int64? {
            guard let from, let to else { return nil }
            return max(0, to - from)
        }
        return switch phase {
        case .detect: span(lostAt, detectedAt)
        case .preVote: span(detectedAt, votingAt)
        case .vote: span(votingAt, electedAt)
        case .firstCommit: span(electedAt, committedAt)
        }
    }
}

/// Names of nodes for sentences.
struct NodeNames: Hashable, Sendable {
    var names: [UInt64: String] = [:]

    subscript(_ id: UInt64) -> String { names[id] ?? Format.hex(id) }
    func list(_ ids: [UInt64]) -> String { ids.map { self[$0] }.sorted().joined(separator: " ") }
}

extension Fault {
    /// Enough to end a leadership by itself.
    fileprivate var endsLeadership: Bool {
        switch self {
        case .kill, .stop, .pause, .tornTail, .isolate, .partition: true
        case .cut, .wire, .disk, .clock: false
        }
    }

    func touches(_ node: UInt64) -> Bool {
        if case .wire(let from, let to, _) = self { return from == nil || to == nil || from == node || to == node }
        return nodes.contains(node)
    }
}

// MARK: Putting one together

/// What is known of the time around an election, and how to make an `Election` of it. A value: the same facts give the same election,
/// in whatever order they arrived.
struct ElectionFacts {
    var names: NodeNames
    var voters: Int
    /// In order of time.
    var events: [RaftEvent]
    var marks: [FaultMark]
    var lanes: [NodeLane]
    var timers: [UInt64: [TimerReading]]
    /// Transfers that a person asked for.
    var requests: [Int64]
    /// The outcome of the election before.
    var before: Election?

    /// Campaigns further apart than this are not of one election: the longest timer is two election timeouts.
    private static let seriesGap: Int64 = 5_000_000
    /// A transfer that takes longer has failed.
    private static let transferLimit: Int64 = 5_000_000
    /// A fault is stamped when it was asked for; its effect may be told with a clock a little behind.
    private static let stampSlack: Int64 = 300_000

    /// - Parameters:
    ///   - term: that a leader was elected in; nil: nobody leads, and this is how it looks at `now`.
    func election(number: Int, term: UInt64?, now: Int64) -> Election? {
        let start = before?.electedAt ?? .min
        let fromTerm = before?.term
        let previous = before?.leader
        let mine = events.filter { $0.at(after: start) }

        // Who won, and when.
        var leader: UInt64?
        var electedAt: Int64?
        var votes = 0, voters = self.voters
        if let term {
            for event in mine where event.term == term {
                if case .elected(let got, let of) = event.kind {
                    (leader, electedAt, votes, voters) = (event.node, event.atMicroseconds, got, of)
                    break
                }
                // The event itself may have been missed.
                if leader == nil, case .roleChanged(.leader) = event.kind { (leader, electedAt) = (event.node, event.atMicroseconds) }
            }
            guard leader != nil else { return nil }
        }
        let end = electedAt ?? now

        // The series of campaigns that led to it, backwards from its end.
        var series: [RaftEvent] = []
        for event in mine.reversed() where event.atMicroseconds <= end {
            guard isCampaign(event), !isAway(event.node, event.atMicroseconds, besides: previous) else { continue }
            if let last = series.last, last.atMicroseconds - event.atMicroseconds > ElectionFacts.seriesGap { break }
            series.append(event)
        }
        series.reverse()
        if term == nil, series.isEmpty, previous == nil { return nil }

        var election = Election(number: number, previous: previous, fromTerm: fromTerm, leader: leader, term: term ?? max(fromTerm ?? 0, series.map(\.term).max() ?? 0), lostAt: end)
        election.electedAt = electedAt
        election.votes = votes
        election.voters = voters
        findCause(&election, series, mine, end)

        let signs = series.filter { $0.atMicroseconds >= election.lostAt - 1_000 }
        election.detectedAt = signs.first?.atMicroseconds
        election.votingAt = signs.first { if case .voteAsked = $0.kind { true } else { false } }?.atMicroseconds
        if election.votingAt == nil, let electedAt, election.detectedAt != nil { election.votingAt = max(election.detectedAt!, min(electedAt, election.votingAt ?? electedAt)) }
        if let leader, let electedAt {
            election.committedAt = mine.first { if case .firstCommit = $0.kind { $0.node == leader && $0.term == election.term && $0.atMicroseconds >= electedAt } else { false } }?.atMicroseconds
        }
        let rounds = Set(series.compactMap { event -> UInt64? in if case .voteAsked = event.kind { event.term } else { nil } })
        election.splitVotes = rounds.count { $0 > (fromTerm ?? 0) && (term == nil || $0 < election.term) }
        election.remark = remark(election, series)
        election.steps = steps(election, mine, now)
        return election
    }

    private func isCampaign(_ event: RaftEvent) -> Bool {
        switch event.kind {
        case .electionTimeout, .leaderConnectionLost, .preVoteAsked, .voteAsked: true
        default: false
        }
    }

    /// Cut off nodes campaign in vain, for as long as they are: that is not this election.
    private func isAway(_ node: UInt64, _ at: Int64, besides previous: UInt64?) -> Bool {
        guard let lane = lanes.first(where: { $0.member == node }) else { return false }
        return lane.state(at: at) == .isolated
    }

    // MARK: Cause

    private func findCause(_ election: inout Election, _ series: [RaftEvent], _ mine: [RaftEvent], _ end: Int64) {
        let sign = series.first?.atMicroseconds ?? end
        guard let previous = election.previous else {
            election.cause = .firstLeader
            election.causeText = "first leader of this session"
            election.lostAt = min(sign, lanes.compactMap { $0.roles.first?.at }.min() ?? sign)
            return
        }
        let transfer = mine.last { event in
            guard case .transferStarted = event.kind else { return false }
            return event.node == previous && event.atMicroseconds <= end && end - event.atMicroseconds < ElectionFacts.transferLimit
        }
        let steppedDown = mine.last { event in
            guard case .steppedDown = event.kind else { return false }
            return event.node == previous && event.atMicroseconds <= end + ElectionFacts.stampSlack
        }
        // The fault that was on when the first sign came; the strongest kind, then the newest.
        let on = marks.filter { mark in
            mark.isOn && mark.at <= sign + ElectionFacts.stampSlack && mark.fault.touches(previous)
                && !marks.contains { !$0.isOn && $0.id == mark.id && $0.at < sign && $0.at >= mark.at }
        }
        let before = self.before?.electedAt ?? .min
        let fault = on.last { $0.fault.endsLeadership && $0.at > before } ?? on.last { !$0.fault.endsLeadership } ?? on.last
        if let transfer, case .transferStarted(let to) = transfer.kind, election.leader == nil || election.leader == to {
            election.lostAt = transfer.atMicroseconds
            if let fault, case .stop = fault.fault {
                election.cause = .stopped(previous, by: fault.by)
            } else {
                election.cause = .transfer(to: to, byYou: requests.contains { abs($0 - transfer.atMicroseconds) < 3_000_000 })
            }
        } else if let fault, fault.fault.endsLeadership, fault.at > before {
            election.lostAt = min(fault.at, series.first { $0.atMicroseconds > fault.at - ElectionFacts.stampSlack }?.atMicroseconds ?? fault.at)
            election.cause = .fault(FaultText.cause(fault.fault) { names[$0] }, by: fault.by)
        } else if let loss = lanes.first(where: { $0.member == previous })?.lossBefore(end), loss.state == .down, loss.at > before {
            election.lostAt = min(loss.at, series.first { $0.atMicroseconds > loss.at - 2_000_000 }?.atMicroseconds ?? loss.at)
            election.cause = .died(previous)
        } else if let steppedDown, case .steppedDown(let reason) = steppedDown.kind, !series.contains(where: { $0.atMicroseconds < steppedDown.atMicroseconds }) {
            election.lostAt = steppedDown.atMicroseconds
            election.cause = fault.map { fault -> Election.Cause in .fault(FaultText.cause(fault.fault) { names[$0] }, by: fault.by) } ?? .steppedDown(previous, reason)
        } else if let first = series.first {
            switch first.kind {
            case .electionTimeout(let after):
                election.lostAt = first.atMicroseconds - after
                election.cause = fault.map { fault -> Election.Cause in .fault(FaultText.cause(fault.fault) { names[$0] }, by: fault.by) } ?? .timer(first.node)
            case .leaderConnectionLost(let lost):
                election.lostAt = first.atMicroseconds
                election.cause = fault.map { fault -> Election.Cause in .fault(FaultText.cause(fault.fault) { names[$0] }, by: fault.by) } ?? .connectionLost(lost)
            default: election.lostAt = first.atMicroseconds
            }
        }
        election.causeText = text(election.cause)
    }

    private func text(_ cause: Election.Cause) -> String {
        switch cause {
        case .firstLeader: "first leader of this session"
        case .fault(let words, let by): "\(words) (\(by))"
        case .stopped(let node, let by): "stop \(names[node])" + (by.map { " (\($0))" } ?? "")
        case .transfer(let to, let byYou): "handed over to \(names[to])" + (byYou ? " (you)" : "")
        case .connectionLost(let node): "connection to \(names[node]) lost"
        case .died(let node): "\(names[node]) went down"
        case .steppedDown(let node, let reason): "\(names[node]) stepped down: \(reason)"
        case .timer(let node): "\(names[node])'s timer fired"
        case .unknown: "not known"
        }
    }

    /// Why it was this node that began.
    private func remark(_ election: Election, _ series: [RaftEvent]) -> String? {
        guard let first = series.first(where: { $0.atMicroseconds >= election.lostAt - 1_000 }) else { return nil }
        switch first.kind {
        case .leaderConnectionLost(let lost):
            let nodes = series.filter { if case .leaderConnectionLost(lost) = $0.kind { true } else { false } }.map(\.node)
            let after = first.atMicroseconds - election.lostAt
            return "\(names.list(Array(Set(nodes)))) saw the connection to \(names[lost]) break" + (after > 0 ? " after \(Format.exact(after))" : "") + ": no timer had to run out"
        case .electionTimeout(let after):
            var others: [String] = []
            for lane in lanes.sorted(by: { $0.name < $1.name }) where lane.member != first.node && lane.member != election.previous {
                guard lane.state(at: first.atMicroseconds) == .follower, let left = timeLeft(lane.member, at: first.atMicroseconds, since: election.lostAt) else { continue }
                others.append("\(lane.name)\(others.isEmpty ? " had" : "") \(left.isExact ? "" : "≈")\(Format.exact(left.microseconds))\(others.isEmpty ? " left" : "")")
            }
            return "\(names[first.node])'s timer of \(Format.exact(after)) fired first" + (others.isEmpty ? "" : " (\(others.joined(separator: ", ")))")
        default: return nil
        }
    }

    private func timeLeft(_ node: UInt64, at: Int64, since lost: Int64) -> (microseconds: Int64, isExact: Bool)? {
        let readings = (timers[node] ?? []).filter { $0.at <= at + 50_000 }
        // Read while no heartbeat came any more: exact.
        if let reading = readings.last(where: { $0.at >= lost }) {
            let left = reading.at + reading.left - at
            return left > 0 ? (left, true) : nil
        }
        // Read before the last heartbeat, which started the timer again: its length is known, its start within a heartbeat.
        guard let length = readings.last?.length else { return nil }
        let left = lost + length - at
        return left > 0 ? (left, false) : nil
    }

    // MARK: Steps

    private struct Draft {
        var at: Int64
        var glyph: Unicode.Scalar
        var slot: Slot
        var nodes: [UInt64]
        var text: (String) -> String
    }

    private func steps(_ election: Election, _ mine: [RaftEvent], _ now: Int64) -> [Election.Step] {
        var drafts: [Draft] = []
        var groups: [String: Int] = [:]
        func add(_ at: Int64, _ glyph: Unicode.Scalar, _ slot: Slot, _ text: String) { drafts.append(Draft(at: at, glyph: glyph, slot: slot, nodes: [], text: { _ in text })) }
        /// The same said by several nodes is one line.
        func group(_ key: String, _ at: Int64, _ glyph: Unicode.Scalar, _ slot: Slot, _ node: UInt64, _ text: @escaping (String) -> String) {
            if let index = groups[key] {
                if !drafts[index].nodes.contains(node) { drafts[index].nodes.append(node) }
            } else {
                groups[key] = drafts.count
                drafts.append(Draft(at: at, glyph: glyph, slot: slot, nodes: [node], text: text))
            }
        }
        let from = election.lostAt - 1_000
        let to = election.electedAt.map { (election.committedAt ?? $0) + 250_000 } ?? now
        let needed = (election.voters > 0 ? election.voters : voters) / 2 + 1

        let isFault: Bool
        if case .fault = election.cause { isFault = true } else { isFault = false }
        for mark in marks where mark.at >= from && mark.at <= to {
            let wasLeader = mark.isOn && election.previous.map { mark.fault.touches($0) } ?? false
            add(mark.at, mark.isOn ? (mark.fault.endsNode ? "✕" : "▲") : "▽", mark.isOn ? .bad : .ok,
                (mark.isOn ? "" : "healed: ") + "\(FaultText.cause(mark.fault) { names[$0] }) (\(mark.by))" + (wasLeader ? ", it led" + reign(election) : ""))
        }
        if !isFault, let previous = election.previous, !drafts.contains(where: { $0.at <= election.lostAt }) {
            switch election.cause {
            case .died: add(election.lostAt, "✕", .down, "\(names[previous]) goes down, it led\(reign(election))")
            case .timer: add(election.lostAt, "✕", .warn, "last heard of \(names[previous])")
            default: break
            }
        }
        var casts: Set<String> = []
        for event in mine { if case .voteCast(let candidate, let isPre) = event.kind { casts.insert("\(event.term) \(isPre) \(candidate) \(event.node)") } }
        for event in mine where event.atMicroseconds >= from && event.atMicroseconds <= to {
            let at = event.atMicroseconds, node = names[event.node]
            switch event.kind {
            case .electionTimeout(let after): add(at, "╌", .candidate, "\(node)'s timer fires (\(Format.exact(after)))")
            case .leaderConnectionLost(let leader):
                group("lost \(leader)", at, "≠", .warn, event.node) { "\($0) \($0.contains(" ") ? "lose" : "loses") the connection to \(names[leader])" }
            case .diskStuck(let after): add(at, "▲", .warn, "\(node)'s disk is stuck for \(Format.exact(after))")
            case .diskRecovered(let after): add(at, "▽", .ok, "\(node)'s disk works again after \(Format.exact(after))")
            case .preVoteAsked: add(at, "◌", .candidate, "\(node) asks pre-votes, term \(event.term)")
            case .voteAsked: add(at, "▸", .candidate, "\(node) asks votes, term \(event.term)")
            case .voteCast(let candidate, let isPre):
                group("cast \(isPre) \(candidate) \(event.term)", at, isPre ? "◃" : "◂", isPre ? .candidate : .ok, event.node) { isPre ? "\($0) would vote for \(names[candidate])" : "\($0) \($0.contains(" ") ? "vote" : "votes") for \(names[candidate])" }
            case .voteReceived(let voter, true, let isPre):
                // What the voter told itself is not told twice.
                guard voter != event.node, !casts.contains("\(event.term) \(isPre) \(event.node) \(voter)") else { continue }
                let candidate = event.node
                group("cast \(isPre) \(candidate) \(event.term)", at, isPre ? "◃" : "◂", isPre ? .candidate : .ok, voter) { isPre ? "\($0) would vote for \(names[candidate])" : "\($0) \($0.contains(" ") ? "vote" : "votes") for \(names[candidate])" }
            case .voteReceived: break
            case .voteRefused(let candidate, let isPre, let reason):
                group("refused \(isPre) \(candidate) \(event.term) \(reason)", at, "✕", .warn, event.node) { "\($0) \($0.contains(" ") ? "refuse" : "refuses") \(names[candidate]): \(reason)" }
            case .elected(let votes, let voters):
                var supporters = mine.compactMap { other -> UInt64? in
                    if case .voteCast(event.node, false) = other.kind, other.term == event.term, other.atMicroseconds <= at { other.node } else { nil }
                }
                for other in mine { if case .voteReceived(let voter, true, false) = other.kind, other.node == event.node, other.term == event.term, other.atMicroseconds <= at { supporters.append(voter) } }
                supporters = Array(Set(supporters + [event.node]))
                add(at, "♛", .leader, "\(node) leads term \(event.term): \(votes) of \(voters) votes" + (supporters.count > 1 ? " (\(names.list(supporters)))" : "") + ", \(needed) needed")
            case .steppedDown(let reason): add(at, "▽", .warn, "\(node) steps down: \(reason)")
            case .firstCommit: if event.node == election.leader { add(at, "✓", .ok, "first entry of term \(event.term) committed") }
            case .transferStarted(let target): add(at, "▸", .accent, "\(node) hands leadership to \(names[target])")
            case .transferAborted(let target): add(at, "✕", .warn, "\(node) gives up handing over to \(names[target])")
            case .leaderChanged(let leader) where leader == election.leader && leader != event.node && at >= election.electedAt ?? .max:
                group("follows \(leader)", at, "●", .follower, event.node) { "\($0) \($0.contains(" ") ? "follow" : "follows") \(names[leader])" }
            case .membershipChanged(let text): add(at, "·", .dim, text)
            case .missed(let count): add(at, "·", .warn, "\(Format.plural(Int64(count), "event")) of \(node) were missed")
            case .leaderChanged, .roleChanged, .snapshotSent, .snapshotInstalled, .peerLost, .peerFound: break
            }
        }
        let sorted = drafts.enumerated().sorted { $0.element.at != $1.element.at ? $0.element.at < $1.element.at : $0.offset < $1.offset }.map(\.element)
        return sorted.prefix(ElectionFacts.stepLimit).map { Election.Step(at: $0.at, glyph: $0.glyph, slot: $0.slot, text: $0.text(names.list($0.nodes))) }
    }

    /// A majority lost for long campaigns without end; what is told is the beginning.
    private static let stepLimit = 200

    private func reign(_ election: Election) -> String {
        guard let since = before?.electedAt, before?.toleranceMilliseconds == nil, election.lostAt > since else { return "" }
        return " \(Format.span(milliseconds: (election.lostAt - since) / 1_000))"
    }
}

extension RaftEvent {
    fileprivate func at(after start: Int64) -> Bool { atMicroseconds > start }
}

extension Fault {
    fileprivate var endsNode: Bool {
        switch self {
        case .kill, .stop, .tornTail: true
        default: false
        }
    }
}

/// A fault that was switched on or ended.
struct FaultMark: Hashable, Sendable {
    var at: Int64
    var id: Int
    var fault: Fault
    var by: String
    var isOn: Bool
}

/// An election timer as a node told it.
struct TimerReading: Hashable, Sendable {
    var at: Int64
    var left: Int64
    var length: Int64?
}

extension Format {
    /// Microseconds as exact milliseconds: `27 ms`, `1,040 ms`, `0.4 ms`.
    static func exact(_ microseconds: Int64) -> String {
        let value = abs(microseconds)
        if value < 10_000, value % 1_000 >= 50 { return (microseconds < 0 ? "-" : "") + "\((value + 50) / 1_000).\((value + 50) / 100 % 10) ms" }
        return "\(count((microseconds + (microseconds < 0 ? -500 : 500)) / 1_000)) ms"
    }

    /// `+1,040 ms` after something.
    static func relative(_ microseconds: Int64) -> String { (microseconds < 0 ? "" : "+") + exact(microseconds) }
}
