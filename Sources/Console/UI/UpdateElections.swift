/// What only the Elections view does.
enum ElectionsVerb: Hashable, Sendable {
    case zoomIn, zoomOut, earlier, later, hold
    case bookmark, compare, export, record
    case killLeader, pauseLeader, cutOffLeader, restartDown, moveLeader, healAll, canary
}

extension Catalogue {
    static let electionsEntries: [CatalogueEntry] = {
        var list: [CatalogueEntry] = []
        func add(_ verb: ElectionsVerb, _ name: String, _ key: Character, hint: String?, _ help: String, rank: Int, changes: Bool = false) {
            list.append(CatalogueEntry(verb: .elections(verb), name: name, context: .elections, keys: [KeyPress(key)], hint: hint, help: help, rank: rank, changes: changes, section: changes ? .cluster : .look))
        }
        add(.earlier, "earlier-election", "(", hint: ") election", "the election before: the timeline shows it", rank: 11)
        add(.later, "later-election", ")", hint: nil, "the election after; from the last one back to now", rank: 12)
        add(.zoomIn, "zoom-in", "<", hint: "> zoom", "less time on the timeline", rank: 14)
        add(.zoomOut, "zoom-out", ">", hint: nil, "more time on the timeline", rank: 14)
        add(.hold, "hold-timeline", " ", hint: "hold", "hold the timeline still, or follow what happens now", rank: 24)
        add(.bookmark, "bookmark-election", "b", hint: "bookmark", "mark this election, for comparing", rank: 26)
        add(.compare, "compare-elections", "c", hint: "compare", "lay this election beside the marked one, or the one before; again: beside the median", rank: 13)
        add(.export, "export-elections", "o", hint: "export", "write all elections to a JSON file", rank: 18)
        add(.record, "record", "r", hint: "record", "record this session to a file for `quarterdeck replay`, or end the recording", rank: 19)
        add(.killLeader, "kill-leader", "K", hint: "kill leader", "kill whoever leads: nothing flushed, links dropped", rank: 10, changes: true)
        add(.restartDown, "restart-down", "R", hint: "restart", "start the nodes that are down again", rank: 15, changes: true)
        add(.pauseLeader, "pause-leader", "P", hint: "pause", "pause the leader, or let a paused node run on", rank: 21, changes: true)
        add(.cutOffLeader, "cut-off-leader", "X", hint: "cut off", "cut the leader off its peers, or let a cut off node back", rank: 22, changes: true)
        add(.moveLeader, "move-leader", "L", hint: "move", "hand leadership to the follower that is furthest", rank: 17, changes: true)
        add(.healAll, "heal-all", "H", hint: "heal", "end every fault that is on", rank: 23, changes: true)
        add(.canary, "canary", "C", hint: "canary", "switch the canary on or off: small writes that show what clients feel", rank: 16, changes: true)
        return list
    }()
}

extension Model {
    // MARK: Who is meant

    private var downMembers: [MemberState] {
        cluster.members.filter { if case .down = $0.health { true } else { false } }
    }

    private var pausedMember: MemberState? {
        cluster.members.first { if case .paused = $0.health { true } else { false } }
    }

    private var isolatedMember: MemberState? {
        cluster.members.first { if case .isolated = $0.health { true } else { false } }
    }

    /// Who leadership would be handed to: the follower with the longest log.
    private var heir: MemberState? {
        cluster.members.filter { $0.role == .follower && $0.health == .up && $0.id != cluster.leader?.id }.max { ($0.lastIndex ?? $0.applied ?? 0) < ($1.lastIndex ?? $1.applied ?? 0) }
    }

    func obstacle(to verb: ElectionsVerb) -> String? {
        let ownOnly = "only nodes that this console started can be stopped or cut off"
        switch verb {
        case .zoomIn: return elections.zoom == 0 ? "this is as close as it gets" : nil
        case .zoomOut: return elections.zoom == ElectionsState.zooms.count - 1 ? "this is as wide as it gets" : nil
        case .earlier, .later, .export: return elections.elections.isEmpty ? "no election was seen yet" : nil
        case .bookmark: return elections.shown == nil ? "no election was seen yet" : nil
        case .compare: return elections.elections.count < 2 ? "it takes two elections to compare" : nil
        case .hold: return nil
        case .record: return replay != nil ? "this is a recording" : nil
        case .killLeader:
            if cluster.kind == .attached { return ownOnly }
            return cluster.leader == nil ? "nobody leads now" : nil
        case .pauseLeader:
            if cluster.kind == .attached { return ownOnly }
            return cluster.leader == nil && pausedMember == nil ? "nobody leads now" : faultSupport.reason(.pause)
        case .cutOffLeader:
            if cluster.kind == .attached { return ownOnly }
            return cluster.leader == nil && isolatedMember == nil ? "nobody leads now" : faultSupport.reason(.isolate)
        case .restartDown:
            if cluster.kind == .attached { return ownOnly }
            return downMembers.isEmpty ? "no node is down" : nil
        case .moveLeader:
            if cluster.leader == nil { return "no leader now: leadership cannot be handed over" }
            return heir == nil ? "no follower could take over" : nil
        case .healAll:
            if cluster.kind == .attached { return ownOnly }
            return faults.isEmpty ? "no fault is on" : nil
        case .canary: return cluster.members.isEmpty ? "no node yet" : nil
        }
    }

    mutating func performInElections(_ verb: Verb, _ commands: inout [Command]) {
        let page = max(1, electionsLayout.steps.rows - 2)
        switch verb {
        case .down: moveInElections(1)
        case .up: moveInElections(-1)
        case .halfDown: moveInElections(page / 2)
        case .halfUp: moveInElections(-page / 2)
        case .pageDown: moveInElections(page)
        case .pageUp: moveInElections(-page)
        case .top: moveInElections(-100_000)
        case .bottom: moveInElections(100_000)
        case .left: pan(-1)
        case .right: pan(1)
        case .open:
            if panel == .elections { panel = .steps }
            show(elections.shown)
        case .elections(let verb): perform(verb, &commands)
        default: break
        }
    }

    private mutating func perform(_ verb: ElectionsVerb, _ commands: inout [Command]) {
        switch verb {
        case .zoomIn: zoom(-1)
        case .zoomOut: zoom(1)
        case .earlier: selectElection(1)
        case .later: selectElection(-1)
        case .hold: if elections.right == nil { elections.right = elections.clock } else { followElections() }
        case .bookmark:
            guard let number = elections.shown?.number else { return }
            elections.bookmark = elections.bookmark == number ? nil : number
            say(elections.bookmark == nil ? "bookmark taken off" : "election \(number) is marked: c compares another with it", .dim)
        case .compare: compare()
        case .export:
            overlay = .prompt(Prompt(purpose: .exportElections, field: TextField("~/elections-\(clockDigits).json")))
        case .record:
            if recordingPath != nil {
                send(.record(isOn: false), &commands) { .record($0, path: nil) }
            } else {
                overlay = .prompt(Prompt(purpose: .recordSession, field: TextField("~/quarterdeck-\(clockDigits).jsonl")))
            }
        case .killLeader:
            guard let leader = cluster.leader else { return }
            send(.node("kill \(leader.name)"), remark: quorumRemark([.kill(leader.id)]), &commands) { .addFault($0, .kill(leader.id), milliseconds: nil) }
            followElections()
        case .pauseLeader:
            if let paused = pausedMember {
                send(.node("resume \(paused.name)"), &commands) { .healFault($0, .pause(paused.id)) }
            } else if let leader = cluster.leader {
                send(.node("pause \(leader.name)"), remark: quorumRemark([.pause(leader.id)]), &commands) { .addFault($0, .pause(leader.id), milliseconds: nil) }
                followElections()
            }
        case .cutOffLeader:
            if let isolated = isolatedMember {
                send(.node("rejoin \(isolated.name)"), &commands) { .healFault($0, .isolate(isolated.id)) }
            } else if let leader = cluster.leader {
                send(.node("isolate \(leader.name)"), remark: quorumRemark([.isolate(leader.id)]), &commands) { .addFault($0, .isolate(leader.id), milliseconds: nil) }
                followElections()
            }
        case .restartDown:
            for member in downMembers { send(.node("restart \(member.name)"), &commands) { .restartNode($0, member: member.id) } }
        case .moveLeader:
            guard let heir else { return }
            if cluster.kind == .attached || mode == .ask {
                overlay = .confirm(Confirmation(question: .lead(member: heir.id, name: heir.name)))
            } else {
                send(.node("lead \(heir.name)"), &commands) { .transferLeadership($0, to: heir.id) }
                followElections()
            }
        case .healAll: healAll(&commands)
        case .canary:
            if !isCanaryOn, cluster.kind == .attached { overlay = .confirm(Confirmation(question: .canary)) } else { switchCanary(&commands) }
        }
    }

    mutating func switchCanary(_ commands: inout [Command]) {
        let isOn = !isCanaryOn
        send(.canary(isOn), &commands) { .setCanary($0, isOn: isOn) }
    }

    /// For file names: `184207`.
    private var clockDigits: String { Format.clock(now, zone: timeZoneOffsetSeconds).split(separator: ":").joined() }

    // MARK: Moving

    private mutating func moveInElections(_ delta: Int) {
        if panel == .elections {
            selectElection(delta)
            return
        }
        guard let election = elections.shown else { return }
        let steps = elections.steps(of: election)
        guard !steps.isEmpty else { return }
        let step = min(max(0, elections.step.map { $0 + delta } ?? (delta > 0 ? 0 : steps.count - 1)), steps.count - 1)
        elections.step = step
        // What is stepped through is held still, and in sight.
        if elections.selection == nil { elections.selection = election.number }
        let width = Int64(timelineWidth) * elections.perColumn
        let right = elections.right ?? elections.clock
        let span = max(election.end - election.lostAt, 1)
        if elections.right == nil || steps[step].at > right || steps[step].at < right - width || span < width / 20 { show(election) }
    }

    /// `delta` rows down the list, which has the newest on top. Beyond the top: back to now.
    private mutating func selectElection(_ delta: Int) {
        let list = elections.listed
        guard !list.isEmpty else { return }
        let isLive = elections.selection == nil
        let place = elections.shown.flatMap { shown in list.firstIndex { $0.number == shown.number } } ?? 0
        let next = isLive && delta > 0 && elections.right == nil && panel != .elections ? place + delta - 1 : place + delta
        if next < 0, !isLive {
            followElections()
            return
        }
        let election = list[min(max(0, next), list.count - 1)]
        elections.selection = election.number
        elections.step = nil
        show(election)
    }

    /// Puts an election into the middle of the timeline, as large as it fits.
    private mutating func show(_ election: Election?) {
        guard let election else { return }
        elections.selection = election.number
        let width = Int64(max(1, timelineWidth))
        let end = election.electedAt == nil ? elections.clock : election.end
        let span = max(end - election.lostAt, 20_000)
        if elections.right == nil { elections.liveZoomNow = elections.zoom }
        elections.zoom = ElectionsState.zooms.firstIndex { $0 * width * 2 >= span * 3 } ?? ElectionsState.zooms.count - 1
        elections.right = election.lostAt + span / 2 + width * elections.perColumn / 2
    }

    /// Back to what happens now.
    mutating func followElections() {
        if elections.right != nil || elections.selection != nil { elections.zoom = elections.liveZoomNow }
        elections.right = nil
        elections.selection = nil
        elections.step = nil
    }

    private mutating func pan(_ direction: Int64) {
        let step = max(1, Int64(timelineWidth) / 8) * elections.perColumn
        let right = (elections.right ?? elections.clock) + direction * step
        if right >= elections.clock {
            if elections.right != nil, elections.step == nil, elections.selection == nil { elections.right = nil } else { elections.right = right }
        } else {
            elections.right = right
        }
    }

    private mutating func zoom(_ delta: Int) {
        let width = Int64(timelineWidth)
        let before = elections.perColumn
        elections.zoom = min(max(0, elections.zoom + delta), ElectionsState.zooms.count - 1)
        guard let right = elections.right else {
            elections.liveZoomNow = elections.zoom
            return
        }
        // About the cursor, else about the middle.
        var focus = right - width * before / 2
        if let step = elections.step, let election = elections.shown {
            let steps = elections.steps(of: election)
            if steps.indices.contains(step), steps[step].at <= right, steps[step].at >= right - width * before { focus = steps[step].at }
        }
        elections.right = focus + (right - focus) * elections.perColumn / before
    }

    private mutating func compare() {
        if elections.compared != nil {
            elections.compared = nil
            say("compared with the median of all", .dim)
            return
        }
        guard let shown = elections.shown else { return }
        if let mark = elections.bookmark, mark != shown.number, elections.election(mark) != nil {
            elections.compared = mark
        } else {
            elections.compared = elections.elections.last { $0.number != shown.number && $0.number < shown.number }?.number ?? elections.elections.first { $0.number != shown.number }?.number
        }
        if elections.selection == nil { elections.selection = shown.number }
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInElections() -> Bool {
        if elections.compared != nil { elections.compared = nil; return true }
        if elections.step != nil { elections.step = nil; return true }
        if elections.right != nil || elections.selection != nil { followElections(); return true }
        if panel != .timeline { panel = .timeline; return true }
        return false
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInElections(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
        let layout = electionsLayout
        if layout.timeline.contains(position) {
            panel = .timeline
            let plot = timelinePlot
            if step != 0 {
                pan(Int64(step.signum()))
            } else if let election = elections.shown, plot.contains(position) {
                // The step that happened nearest to where was clicked.
                let at = timelineStart + Int64(position.column - plot.column) * elections.perColumn + elections.perColumn / 2
                let steps = elections.steps(of: election)
                guard let nearest = steps.indices.min(by: { abs(steps[$0].at - at) < abs(steps[$1].at - at) }), abs(steps[nearest].at - at) < 6 * elections.perColumn else { return }
                if elections.right == nil { elections.right = elections.clock }
                elections.selection = election.number
                elections.step = nearest
            }
        } else if layout.steps.contains(position) {
            panel = .steps
            if step != 0 { moveInElections(step.signum()); return }
            guard let election = elections.shown else { return }
            let index = stepScroll(layout.steps.rows - 2) + position.row - layout.steps.row - 1
            let steps = elections.steps(of: election)
            guard steps.indices.contains(index) else { return }
            elections.step = index - 1
            moveInElections(1)
        } else if layout.cost.contains(position) {
            panel = .cost
        } else if layout.list.contains(position) {
            panel = .elections
            if step != 0 { selectElection(step.signum()); return }
            let list = elections.listed
            let index = listScroll(layout.list.rows - 3) + position.row - layout.list.row - 2
            guard list.indices.contains(index) else { return }
            elections.selection = list[index].number
            elections.step = nil
            show(list[index])
        }
    }
}
