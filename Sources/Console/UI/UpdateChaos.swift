/// What only the Chaos view does. (Kill, restart, pause, lead and workload are the Overview's verbs, with the same keys here.)
enum ChaosVerb: Hashable, Sendable {
    /// At once where there is nothing to ask, else by the form.
    case act(FaultAct)
    /// X: a link one way, or a node off its peers; again, and it is let back.
    case cut
    case undo
    case heal
    case healAll
    case runScenario, stopScenario
}

extension Catalogue {
    static let chaosEntries: [CatalogueEntry] = {
        var list: [CatalogueEntry] = []
        func add(_ verb: Verb, _ name: String, _ context: Context, _ keys: [KeyPress], hint: String? = nil, _ help: String, rank: Int = 50, changes: Bool = true) {
            list.append(CatalogueEntry(verb: verb, name: name, context: context, keys: keys, hint: hint, help: help, rank: rank, changes: changes, section: changes ? .cluster : .look))
        }
        add(.open, "choose", .chaosTargets, [KeyPress(.enter)], hint: "set up", "set a fault up, with an end time; of a node: everything about it", rank: 10, changes: false)
        add(.chaos(.act(.stop)), "stop-node", .chaos, [KeyPress("S")], hint: "stop", "stop the node gently: leadership is handed over first", rank: 31)
        add(.chaos(.cut), "cut", .chaos, [KeyPress("X")], hint: "cut", "cut the selected link one way, or the node off its peers; again lets it back", rank: 14)
        add(.chaos(.act(.flaky)), "flaky-link", .chaos, [KeyPress("F")], hint: "flaky link", "delay, jitter, loss, duplicates or a rate on a link", rank: 17)
        add(.chaos(.act(.disk)), "disk-fault", .chaos, [KeyPress("I")], hint: "disk", "slow or stuck fsync, full disk, I/O errors", rank: 18)
        add(.chaos(.act(.clock)), "clock-fault", .chaos, [KeyPress("C")], hint: "clock", "let the clock leap or drift", rank: 19)
        add(.chaos(.act(.groups)), "break-up", .chaos, [KeyPress("B")], hint: "break up", "cut the cluster into groups", rank: 20)
        add(.chaos(.act(.tear)), "tear-log", .chaos, [KeyPress("T")], hint: "tear log", "kill the node and tear its last log record, as a power failure would", rank: 32)
        add(.chaos(.undo), "undo-fault", .chaos, [KeyPress("U")], hint: "undo", "heal the fault that came last", rank: 12)
        add(.chaos(.healAll), "heal-all", .chaos, [KeyPress("H")], hint: "heal all", "end every fault and start what is down", rank: 11)
        add(.chaos(.heal), "heal-fault", .chaosTargets, [KeyPress("D")], hint: "heal", "heal the selected fault, or the newest of what is selected in the matrix", rank: 21)
        add(.open, "look-at-scenario", .scenarios, [KeyPress(.enter)], hint: "look", "what the scenario does, and run it", rank: 10, changes: false)
        add(.chaos(.runScenario), "run-scenario", .scenarios, [KeyPress("R")], hint: "run", "run the scenario", rank: 9)
        add(.chaos(.stopScenario), "stop-scenario", .scenarios, [KeyPress("D")], hint: "stop", "stop the scenario that runs", rank: 13)
        return list
    }()

    /// The Overview's verbs that work in Chaos too: same name, same key.
    static let chaosShared: [CatalogueEntry] = {
        func entry(_ verb: Verb, _ name: String, _ context: Context, _ key: Character, _ hint: String, _ help: String, _ rank: Int) -> CatalogueEntry {
            CatalogueEntry(verb: verb, name: name, context: context, keys: [KeyPress(key)], hint: hint, help: help, rank: rank, changes: true, section: .cluster)
        }
        return [
            entry(.kill, "kill-node", .chaos, "K", "kill", "kill the node: nothing flushed, links dropped", 15),
            entry(.pause, "pause-node", .chaos, "P", "pause", "pause the node, or let it run on", 16),
            entry(.restart, "restart-node", .chaosTargets, "R", "restart", "start the node again", 22),
            entry(.lead, "lead-here", .chaos, "L", "lead here", "hand leadership to this node", 33),
            entry(.workload, "workload", .chaos, "W", "workload", "the built-in workload", 23),
            CatalogueEntry(verb: .latency(.settings), name: "workload-settings", context: .chaos, keys: [KeyPress("e")], hint: "settings", help: "rates, keys, sizes and targets of the workload", rank: 34, changes: false, section: .look),
            entry(.chaos(.healAll), "heal-all", .overview, "H", "heal all", "end every fault and start what is down", 71),
        ]
    }()
}

extension Model {
    private var page: Int { max(1, bodyRect.rows / 3) }

    /// The node of the matrix's row and, when a link is selected, the node it goes to.
    var chaosTarget: (node: MemberState, peer: MemberState?)? {
        guard cluster.members.indices.contains(overview.selection) else { return nil }
        let peer = chaos.column.flatMap { cluster.members.indices.contains($0) && $0 != overview.selection ? cluster.members[$0] : nil }
        return (cluster.members[overview.selection], peer)
    }

    var chaosTargetText: String {
        guard let target = chaosTarget else { return "no node" }
        return target.peer.map { "\(target.node.name) → \($0.name)" } ?? target.node.name
    }

    var selectedFault: ActiveFault? { faults.indices.contains(chaos.active) ? faults[chaos.active] : nil }
    var selectedScenario: ScenarioSummary? { scenarios.indices.contains(chaos.scenario) ? scenarios[chaos.scenario] : nil }
    var runningScenario: ScenarioProgress? { scenario?.state == .running ? scenario : nil }

    mutating func performInChaos(_ verb: Verb, _ commands: inout [Command]) {
        switch verb {
        case .down: moveInChaos(1)
        case .up: moveInChaos(-1)
        case .halfDown, .pageDown: moveInChaos(page)
        case .halfUp, .pageUp: moveInChaos(-page)
        case .top: moveInChaos(-10_000)
        case .bottom: moveInChaos(10_000)
        case .left: if panel == .links { moveColumn(-1) }
        case .right: if panel == .links { moveColumn(1) }
        case .open: openInChaos(&commands)
        case .chaos(let verb): perform(verb, &commands)
        case .latency(.settings): overlay = .workloadForm(WorkloadForm(workload.settings))
        default: performInOverview(verb, &commands)
        }
    }

    private mutating func openInChaos(_ commands: inout [Command]) {
        switch panel {
        case .links:
            guard let target = chaosTarget else { return }
            if target.peer == nil { overlay = .node(target.node.id) } else { openFaultForm(.cut) }
        case .newFault: openFaultForm(FaultAct.allCases[chaos.act])
        case .activeFaults:
            // To where it acts.
            guard let node = selectedFault?.fault.nodes.first, let index = cluster.members.firstIndex(where: { $0.id == node }) else { return }
            overview.selection = index
            chaos.column = nil
            if case .cut(_, let to)? = selectedFault?.fault { chaos.column = cluster.members.firstIndex { $0.id == to } }
            panel = .links
        case .scenarios: if let selectedScenario { overlay = .scenario(selectedScenario) }
        case .load: overlay = .workloadForm(WorkloadForm(workload.settings))
        default: break
        }
    }

    mutating func perform(_ verb: ChaosVerb, _ commands: inout [Command]) {
        switch verb {
        case .act(let act):
            guard act.isImmediate, let target = chaosTarget else { return openFaultForm(act) }
            if act == .stop { add([.stop(target.node.id)], milliseconds: nil, &commands) }
        case .cut: toggleCut(&commands)
        case .undo: if let last = faults.last { heal(last.fault, &commands) }
        case .heal: if let fault = faultToHeal { heal(fault.fault, &commands) }
        case .healAll: healAll(&commands)
        case .runScenario: if let selectedScenario { run(selectedScenario.name, &commands) }
        case .stopScenario: stopScenario(&commands)
        }
    }

    mutating func run(_ scenario: String, _ commands: inout [Command]) { send(.scenario(scenario), &commands) { .runScenario($0, name: scenario) } }

    mutating func stopScenario(_ commands: inout [Command]) {
        guard let running = runningScenario else { return }
        send(.scenario(running.name), &commands) { .stopScenario($0) }
    }

    mutating func openFaultForm(_ act: FaultAct) {
        overlay = .fault(FaultForm(act, members: cluster.members, node: overview.selection, peer: chaosTarget?.peer == nil || screen != .chaos ? nil : chaos.column, support: faultSupport))
    }

    /// Switches faults on and says when they cost the quorum.
    mutating func add(_ list: [Fault], milliseconds: Int64?, _ commands: inout [Command]) {
        let remark = quorumRemark(list)
        for fault in list {
            let end = milliseconds.map { " for \(FaultText.span($0))" } ?? ""
            send(.fault(faultLine(fault) + end), remark: remark, &commands) { .addFault($0, fault, milliseconds: milliseconds) }
        }
    }

    mutating func heal(_ fault: Fault, _ commands: inout [Command]) {
        send(.fault(FaultText.healed(fault, name(of:))), &commands) { .healFault($0, fault) }
    }

    mutating func healAll(_ commands: inout [Command]) { send(.fault("heal all"), &commands) { .healAllFaults($0) } }

    private mutating func toggleCut(_ commands: inout [Command]) {
        guard let target = chaosTarget else { return }
        guard let peer = target.peer else { return performInOverview(.isolate, &commands) }
        let fault = Fault.cut(from: target.node.id, to: peer.id)
        if faults.contains(where: { $0.fault == fault }) { heal(fault, &commands) } else { add([fault], milliseconds: nil, &commands) }
    }

    /// What D heals: the selected one in Active; elsewhere the newest that acts on what is selected in the matrix.
    var faultToHeal: ActiveFault? {
        if panel == .activeFaults { return selectedFault }
        guard let target = chaosTarget else { return nil }
        guard let peer = target.peer else { return faults(on: target.node.id).last }
        return faults.last { fault in
            switch fault.fault {
            case .cut(target.node.id, peer.id): true
            case .wire(let from, let to, _): (from ?? target.node.id) == target.node.id && (to ?? peer.id) == peer.id
            case .isolate(let node): node == target.node.id || node == peer.id
            case .partition(let groups): groups.contains { $0.contains(target.node.id) } && groups.contains { $0.contains(peer.id) }
            default: false
            }
        }
    }

    func obstacle(to verb: ChaosVerb) -> String? {
        if mode == .readOnly { return isReadOnly ? "read-only: capitals are off (started with --read-only)" : "this cluster is read-only" }
        if cluster.kind == .attached { return Model.playgroundOnly }
        switch verb {
        case .act(let act):
            if let reason = reason(against: act) { return reason }
            guard let target = chaosTarget else { return "no node yet" }
            if act == .stop || act == .tear, case .down = target.node.health { return "\(target.node.name) is down: R restarts it" }
        case .cut:
            guard let target = chaosTarget else { return "no node yet" }
            if target.peer == nil { return obstacle(to: .isolate, changes: true) }
            return faultSupport.reason(.cut)
        case .undo: if faults.isEmpty { return "nothing to undo: no fault is on" }
        case .heal: if faultToHeal == nil { return panel == .activeFaults || faults.isEmpty ? "no fault is on" : "no fault on \(chaosTargetText)" }
        case .healAll: if faults.isEmpty, cluster.members.allSatisfy({ $0.health == .up || $0.health == .starting }) { return "nothing to heal: no fault is on" }
        case .runScenario:
            if let running = runningScenario { return "\(running.name) runs: D stops it" }
            guard let scenario = selectedScenario else { return "no scenario was found" }
            return scenario.obstacle
        case .stopScenario: if runningScenario == nil { return "no scenario runs" }
        }
        return nil
    }

    // MARK: Moving

    private mutating func moveInChaos(_ delta: Int) {
        switch panel {
        case .newFault: chaos.act += delta
        case .activeFaults: chaos.active += delta
        case .scenarios: chaos.scenario += delta
        case .happened: overview.eventScroll += delta
        case .load: break
        default: overview.selection += delta
        }
        settleChaos()
    }

    /// From the node to its links and back; the diagonal is the node itself and is passed over.
    private mutating func moveColumn(_ step: Int) {
        var next = (chaos.column ?? -1) + step
        if next == overview.selection { next += step }
        chaos.column = next < 0 ? nil : next < cluster.members.count ? next : chaos.column
    }

    mutating func settleChaos() {
        overview.selection = min(max(0, overview.selection), max(0, cluster.members.count - 1))
        chaos.act = min(max(0, chaos.act), FaultAct.allCases.count - 1)
        chaos.active = min(max(0, chaos.active), max(0, faults.count - 1))
        chaos.scenario = min(max(0, chaos.scenario), max(0, scenarios.count - 1))
        if let column = chaos.column, !cluster.members.indices.contains(column) { chaos.column = nil }
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInChaos() -> Bool {
        if panel == .links, chaos.column != nil { chaos.column = nil; return true }
        if panel == .happened, overview.eventScroll > 0 { overview.eventScroll = 0; return true }
        if panel != .links, cluster.kind != .attached { panel = .links; return true }
        return false
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInChaos(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
        guard cluster.kind != .attached else { return }
        let layout = ChaosLayout(body: body, members: cluster.members.count, focus: panel, enlarged: isEnlarged ? panel : nil)
        guard let hit = layout.panels.first(where: { $0.rect.contains(position) }) else { return }
        panel = hit.panel
        if step != 0 { return moveInChaos(hit.panel == .happened ? step : step.signum()) }
        let row = position.row - hit.rect.row - 1
        switch hit.panel {
        case .links:
            let matrix = MatrixPlaces(inside: hit.rect.inset(), names: cluster.members.map(\.name))
            guard let place = matrix.place(at: position) else { return }
            overview.selection = place.row
            chaos.column = place.column == place.row ? nil : place.column
        case .newFault: if FaultAct.allCases.indices.contains(row) { chaos.act = row }
        case .activeFaults:
            let index = activeScroll(hit.rect.rows - 3) + row - 1
            if row >= 1, faults.indices.contains(index) { chaos.active = index }
        case .scenarios:
            let top = scenarioHeadRows(hit.rect.rows - 2)
            let index = scenarioScroll(hit.rect.rows - 2 - top) + row - top
            if row >= top, scenarios.indices.contains(index) { chaos.scenario = index }
        default: break
        }
    }

    // MARK: The form

    mutating func handle(_ state: FaultForm, _ key: KeyPress, _ commands: inout [Command]) {
        var state = state
        switch key.code {
        case .escape: overlay = nil
        case .enter:
            do throws(FaultForm.Problem) {
                let wanted = try state.faults(cluster.members)
                if let reason = obstacle(to: wanted.faults) { throw FaultForm.Problem(field: .what, text: reason) }
                overlay = nil
                add(wanted.faults, milliseconds: wanted.milliseconds, &commands)
            } catch {
                state.problem = error
                state.isFresh = true
                if let index = state.used.first(where: { state.fields[$0].id == error.field }) { state.focus = index }
                overlay = .fault(state)
            }
        default:
            _ = state.handle(key)
            overlay = .fault(state)
        }
    }

    mutating func handleScenario(_ summary: ScenarioSummary, _ key: KeyPress, _ commands: inout [Command]) {
        switch key.code {
        case .escape, .character("q"): overlay = nil
        case .character("R"), .character("y"), .enter:
            overlay = nil
            if let reason = obstacle(to: .runScenario) { say(reason, .warn) } else { run(summary.name, &commands) }
        default: break
        }
    }
}
