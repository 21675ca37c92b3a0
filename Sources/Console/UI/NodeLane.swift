/// What a node was, over time: its role as it told it, and what happened to it from outside. Microseconds since 1970. Bounded.
struct NodeLane: Hashable, Sendable {
    struct Change: Hashable, Sendable {
        var at: Int64
        var state: RoleLanes.State
    }

    static let changeLimit = 2_048

    var member: UInt64
    var name: String
    /// Oldest first.
    private(set) var roles: [Change] = []
    /// Down, paused, cut off; `.unknown` stands for none of them: then the role counts.
    private(set) var healths: [Change] = []
    /// When the node itself was last heard of; its word counts more than what others say of it.
    var toldAt: Int64?

    init(member: UInt64, name: String) {
        self.member = member
        self.name = name
    }

    mutating func setRole(_ state: RoleLanes.State, at: Int64) { NodeLane.insert(Change(at: at, state: state), into: &roles) }

    mutating func setHealth(_ state: RoleLanes.State, at: Int64) {
        let before = NodeLane.state(healths, at)
        NodeLane.insert(Change(at: at, state: state), into: &healths)
        // It comes back as nobody until it tells what it is.
        if state == .down, before != .down, roles.last.map({ $0.at <= at }) ?? false { setRole(.unknown, at: at) }
    }

    /// Events may arrive a little out of order: a change goes where it belongs, and one that changes nothing is left out.
    private static func insert(_ change: Change, into list: inout [Change]) {
        var index = list.count
        while index > 0, change.at < list[index - 1].at { index -= 1 }
        if index > 0, list[index - 1].state == change.state { return }
        if index > 0, list[index - 1].at == change.at {
            list[index - 1] = change
        } else {
            list.insert(change, at: index)
            index += 1
        }
        if index < list.count, list[index].state == change.state { list.remove(at: index) }
        if list.count > changeLimit { list.removeFirst(changeLimit / 4) }
    }

    private static func state(_ list: [Change], _ at: Int64) -> RoleLanes.State? {
        var low = 0, high = list.count
        while low < high {
            let middle = (low + high) / 2
            if list[middle].at <= at { low = middle + 1 } else { high = middle }
        }
        return low == 0 ? nil : list[low - 1].state
    }

    /// nil: before anything was heard of it.
    func state(at: Int64) -> RoleLanes.State? {
        if let health = NodeLane.state(healths, at), health != .unknown { return health }
        return NodeLane.state(roles, at)
    }

    func role(at: Int64) -> RoleLanes.State? { NodeLane.state(roles, at) }

    /// The state at `start` (if known), then every change up to `end`, oldest first.
    func changes(from start: Int64, to end: Int64) -> [Change] {
        var result: [Change] = []
        if let first = state(at: start) { result.append(Change(at: start, state: first)) }
        var times: [Int64] = []
        for list in [roles, healths] {
            for change in list.reversed() {
                if change.at <= start { break }
                if change.at <= end { times.append(change.at) }
            }
        }
        times.sort()
        for time in times {
            guard let state = state(at: time), state != result.last?.state else { continue }
            result.append(Change(at: time, state: state))
        }
        return result
    }

    /// The last time before `at` that it went down, paused or was cut off, if it still was so then.
    func lossBefore(_ at: Int64) -> Change? {
        guard let last = healths.last(where: { $0.at <= at }), last.state != .unknown else { return nil }
        return last
    }
}

extension Canvas {
    /// A lane: one glyph for each stretch of time. A short candidacy is not hidden by what came of it, except by winning or dying.
    mutating func lane(_ lane: NodeLane, _ column: Int, _ row: Int, width: Int, from start: Int64, microsecondsPerColumn: Int64, until end: Int64 = .max) {
        let changes = lane.changes(from: start, to: min(end, start + Int64(width) * microsecondsPerColumn))
        var next = 0
        var state: RoleLanes.State?
        for index in 0..<max(0, width) {
            if start + Int64(index) * microsecondsPerColumn > end { break }
            let stop = start + Int64(index + 1) * microsecondsPerColumn
            var entered: [RoleLanes.State] = []
            while next < changes.count, changes[next].at < stop {
                if changes[next].at > start, state != nil { entered.append(changes[next].state) }
                state = changes[next].state
                next += 1
            }
            guard let state else { continue }
            let shown = entered.contains(.leader) ? .leader : entered.contains(.down) ? .down : entered.contains(.candidate) ? .candidate : entered.contains(.preCandidate) ? .preCandidate : state
            let (scalar, slot): (Unicode.Scalar, Slot) = switch shown {
            case .leader: (entered.contains(.leader) ? "♛" : "━", .leader)
            case .follower: ("─", .follower)
            case .preCandidate: ("◌", .candidate)
            case .candidate: ("╌", .candidate)
            case .learner: ("─", .learner)
            case .paused: ("‖", .warn)
            case .isolated: ("≠", .warn)
            case .down: (entered.contains(.down) ? "✕" : "╎", .down)
            case .unknown: ("·", .faint)
            }
            glyph(scalar, column + index, row, .ink(slot, scalar == "♛" || scalar == "✕" ? .bold : []))
        }
    }
}
