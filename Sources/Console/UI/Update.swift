/// The only way a model changes. Returns what the runtime must do.
///
/// Cost: O(1) for input, O(batch · log) for data; never proportional to the number of keys.
public func update(_ model: inout Model, _ action: Action, at now: Moment) -> [Command] {
    model.move(to: now)
    var commands: [Command] = []
    switch action {
    case .key(let key): model.handle(key, &commands)
    case .mouse(let event): model.handle(event, &commands)
    case .paste(let text): model.paste(text)
    case .resized(let size): model.size = size
    case .focused(let isFocused): model.isFocused = isFocused
    case .tick: break
    case .data(let event): model.receive(event, &commands)
    }
    model.advance(&commands)
    model.settle(&commands)
    if model.mode == .readOnly {
        // The last line of defence: obstacles have been told before, so this drops nothing unless one was forgotten.
        let all = commands.count
        commands.removeAll(where: \.changesCluster)
        if commands.count < all { model.say("read-only: nothing was written", .warn) }
    }
    return commands
}

extension Model {
    // MARK: Time

    /// Small steps back (events stamped a little earlier) are ignored; a clock that was set back is followed, and nothing waits for
    /// the old time to come again.
    mutating func move(to time: Moment) {
        if now - time > 2_000 {
            if keys.previewDue != nil { keys.previewDue = time }
            if keys.search?.askAt != nil { keys.search!.askAt = time }
            if let toast, time < toast.at { self.toast?.at = time }
            now = time
        } else if now < time {
            now = time
        }
        elections.clock = now.microseconds
    }

    /// What time alone brings about.
    mutating func advance(_ commands: inout [Command]) {
        rates.advance(to: now)
        for index in watch.sessions.indices { watch.sessions[index].advance(to: now) }
        if let due = keys.previewDue, due <= now { loadPreview(&commands) }
        if let due = keys.search?.askAt, due <= now { runSearch(&commands) }
        if let toast, now - toast.at >= toast.milliseconds { self.toast = nil }
    }

    /// After every change: selections inside their lists, the visible gaps of the tree loading, scrolling to the selection.
    mutating func settle(_ commands: inout [Command]) {
        overview.selection = min(max(0, overview.selection), max(0, cluster.members.count - 1))
        overview.eventScroll = min(max(0, overview.eventScroll), max(0, events.count - 1))
        watch.selection = min(max(0, watch.selection), max(0, watch.sessions.count - 1))
        settleChaos()
        if screen == .log { settleLog() }
        if screen == .keys { settleKeys(&commands) }
        settleLatency(&commands)
    }

    var bodyRect: Rect { ScreenLayout(size).body }

    // MARK: Keys

    mutating func handle(_ key: KeyPress, _ commands: inout [Command]) {
        if size.columns < ScreenLayout.minimum.columns || size.rows < ScreenLayout.minimum.rows {
            // Nothing is visible to act on: only leaving makes sense, and it asks nothing that could not be read.
            if key == KeyPress("q") || key == .control("c") { leave(&commands) }
            return
        }
        // The clock of a recording may stand still; what was said is read by then.
        if let replay, !replay.isPlaying { toast = nil }
        if overlay != nil {
            handleOverlay(key, &commands)
            return
        }
        if screen == .keys, keys.editor != nil {
            handleEditor(key, &commands)
            return
        }
        if screen == .keys, keys.search?.isEditing == true, handleSearch(key, &commands) { return }
        if screen == .watch, watch.selected?.isFiltering == true, handleStreamFilter(key) { return }
        if screen == .latency, latency.isFiltering, handleSlowFilter(key) { return }
        if screen == .log, log.isFiltering, handleLogFilter(key) { return }
        guard let entry = Catalogue.entry(for: key, in: contexts) else {
            if case .character(let character) = key.code, key.modifiers.isEmpty { say("\(character) does nothing here · ? shows all keys", .dim) }
            return
        }
        perform(entry.verb, changes: entry.changes, &commands)
    }

    /// Does what a key, the palette or the mouse asked for, or says why not.
    mutating func perform(_ verb: Verb, changes: Bool, _ commands: inout [Command]) {
        if let reason = obstacle(to: verb, changes: changes) {
            say(reason, .warn)
            return
        }
        switch verb {
        case .view(let view): go(to: view, &commands)
        case .lastView: go(to: lastScreen, &commands)
        case .nextPanel: changePanel(1)
        case .previousPanel: changePanel(-1)
        case .enlarge: isEnlarged = true
        case .shrink: isEnlarged = false
        case .palette: overlay = .palette(PaletteState())
        case .help: overlay = .help(HelpState())
        case .refresh:
            commands.append(.refresh)
            if screen == .keys { reloadKeys() }
            say("asking again", .dim)
        case .redraw: commands.append(.redraw)
        case .suspend: commands.append(.suspend)
        case .saveScreen: send(.screen, &commands) { .saveScreen($0) }
        case .quit: overlay = .confirm(Confirmation(question: .quit))
        case .replay(let verb): performInReplay(verb, &commands)
        case .goBack: if !stepBack(&commands) { overlay = .confirm(Confirmation(question: .quit)) }
        case .back: _ = stepBack(&commands)
        default:
            switch screen {
            case .keys: performInKeys(verb, &commands)
            case .watch: performInWatch(verb, &commands)
            case .elections: performInElections(verb, &commands)
            case .latency: performInLatency(verb, &commands)
            case .chaos: performInChaos(verb, &commands)
            case .log: performInLog(verb, &commands)
            default: performInOverview(verb, &commands)
            }
        }
    }

    mutating func go(to view: ViewID, _ commands: inout [Command]) {
        guard view.isImplemented, view != screen else { return }
        lastScreen = screen
        screen = view
        isEnlarged = false
        switch view {
        case .keys:
            panel = .tree
            enterKeys(&commands)
        case .watch: panel = watch.sessions.isEmpty ? .watchList : .stream
        case .elections: panel = .timeline
        case .latency: panel = .heat
        case .chaos: panel = .links
        case .log: panel = .log
        default: panel = .nodes
        }
    }

    /// One step back; false at the very start.
    private mutating func stepBack(_ commands: inout [Command]) -> Bool {
        if isEnlarged { isEnlarged = false; return true }
        switch screen {
        case .keys:
            if keys.search != nil { closeSearch(&commands); return true }
            if keys.value.version != nil { showCurrentValue(); return true }
            if panel != .tree { panel = .tree; return true }
        case .watch:
            if let index = selectedWatch {
                if watch.sessions[index].isFiltered {
                    watch.sessions[index].filter = TextField()
                    watch.sessions[index].refilter()
                    return true
                }
                if watch.sessions[index].frozenAt != nil { thaw(index); return true }
            }
        case .elections: if stepBackInElections() { return true }
        case .latency: if stepBackInLatency() { return true }
        case .chaos: if stepBackInChaos() { return true }
        case .log: if stepBackInLog() { return true }
        default:
            if overview.eventScroll > 0 { overview.eventScroll = 0; return true }
            if panel != .nodes { panel = .nodes; return true }
            return false
        }
        go(to: .overview, &commands)
        return true
    }

    var panels: [Panel] {
        switch screen {
        case .keys: [.tree, .value, .history]
        case .watch: [.watchList, .stream]
        case .elections: [.timeline, .steps, .cost, .elections]
        case .latency: [.heat, .stages, .fsync, .rates, .slow]
        case .chaos: [.links, .newFault, .activeFaults, .scenarios, .load, .happened]
        case .log: [.log]
        default: [.nodes, .events]
        }
    }

    private mutating func changePanel(_ step: Int) {
        let all = panels
        let index = all.firstIndex(of: panel) ?? 0
        panel = all[(index + step + all.count) % all.count]
    }

    mutating func leave(_ commands: inout [Command]) {
        isQuitting = true
        commands.append(.quit)
    }

    // MARK: Requests

    /// Emits a command that will be answered by `.finished`.
    /// - Parameter remark: a warning to add to its receipt.
    mutating func send(_ kind: PendingWrite.Kind, remark: String? = nil, _ commands: inout [Command], _ make: (RequestID) -> Command) {
        let request = newRequest()
        let command = make(request)
        if command.changesCluster, mode == .readOnly {
            say("read-only: nothing was written", .warn)
            return
        }
        pendingWrites.append(PendingWrite(request: request, kind: kind, since: now, remark: remark))
        commands.append(command)
    }

    // MARK: Overview

    mutating func performInOverview(_ verb: Verb, _ commands: inout [Command]) {
        let member = cluster.members.indices.contains(overview.selection) ? cluster.members[overview.selection] : nil
        let page = max(1, bodyRect.rows / 2)
        switch verb {
        case .down: moveOverview(1)
        case .up: moveOverview(-1)
        case .halfDown: moveOverview(page / 2)
        case .halfUp: moveOverview(-page / 2)
        case .pageDown: moveOverview(page)
        case .pageUp: moveOverview(-page)
        case .top: moveOverview(-10_000)
        case .bottom: moveOverview(10_000)
        case .open: if let member { overlay = .node(member.id) }
        case .copyEndpoint: if let member { send(.copy(member.endpoint), &commands) { .copyToClipboard($0, member.endpoint) } }
        case .kill: if let member { send(.node("kill \(member.name)"), remark: quorumRemark([.kill(member.id)]), &commands) { .addFault($0, .kill(member.id), milliseconds: nil) } }
        case .restart: if let member { send(.node("restart \(member.name)"), &commands) { .restartNode($0, member: member.id) } }
        case .pause:
            guard let member else { return }
            if case .paused = member.health { send(.node("resume \(member.name)"), &commands) { .healFault($0, .pause(member.id)) } } else { send(.node("pause \(member.name)"), remark: quorumRemark([.pause(member.id)]), &commands) { .addFault($0, .pause(member.id), milliseconds: nil) } }
        case .isolate:
            guard let member else { return }
            if case .isolated = member.health { send(.node("rejoin \(member.name)"), &commands) { .healFault($0, .isolate(member.id)) } } else { send(.node("isolate \(member.name)"), remark: quorumRemark([.isolate(member.id)]), &commands) { .addFault($0, .isolate(member.id), milliseconds: nil) } }
        case .lead:
            guard let member else { return }
            if cluster.kind == .attached || mode == .ask {
                overlay = .confirm(Confirmation(question: .lead(member: member.id, name: member.name)))
            } else {
                send(.node("lead \(member.name)"), &commands) { .transferLeadership($0, to: member.id) }
            }
        case .workload:
            if !workload.isOn, cluster.kind == .attached { overlay = .confirm(Confirmation(question: .workload)) } else { switchWorkload(&commands) }
        case .chaos(.healAll): healAll(&commands)
        default: break
        }
    }

    mutating func switchWorkload(_ commands: inout [Command]) {
        let isOn = !workload.isOn
        workload.isSwitching = true
        let settings = isOn ? workload.settings : nil
        send(.workload(isOn), &commands) { .setWorkload($0, settings: settings) }
    }

    private mutating func moveOverview(_ delta: Int) {
        if panel == .events { overview.eventScroll += delta } else { overview.selection += delta }
    }

    // MARK: Mouse

    mutating func handle(_ event: MouseEvent, _ commands: inout [Command]) {
        let layout = ScreenLayout(size)
        guard size.columns >= ScreenLayout.minimum.columns, size.rows >= ScreenLayout.minimum.rows else { return }
        if overlay != nil {
            switch event.kind {
            case .wheelUp: handleOverlay(KeyPress(.up), &commands)
            case .wheelDown: handleOverlay(KeyPress(.down), &commands)
            default: break
            }
            return
        }
        let step: Int
        switch event.kind {
        case .wheelUp: step = -3
        case .wheelDown: step = 3
        case .leftPress: step = 0
        default: return
        }
        if step == 0, layout.tabs.contains(event.position) {
            if let tab = tabPlaces(layout.tabs).first(where: { $0.rect.contains(event.position) }), keys.editor == nil || screen != .keys {
                perform(.view(tab.view), changes: false, &commands)
            }
            return
        }
        if replay != nil, step == 0, layout.crumbs.contains(event.position) { seekOnBar(event.position, layout.crumbs, &commands) }
        guard layout.body.contains(event.position) else { return }
        switch screen {
        case .keys: mouseInKeys(event.position, step: step, layout.body, &commands)
        case .watch: mouseInWatch(event.position, step: step, layout.body)
        case .elections: mouseInElections(event.position, step: step, layout.body, &commands)
        case .latency: mouseInLatency(event.position, step: step, layout.body, &commands)
        case .chaos: mouseInChaos(event.position, step: step, layout.body, &commands)
        case .log: mouseInLog(event.position, step: step, layout.body, &commands)
        default:
            let place = OverviewLayout(body: layout.body, members: cluster.members.count, hasWatch: !watch.sessions.isEmpty, enlarged: isEnlarged ? panel : nil)
            if place.events.contains(event.position) {
                panel = .events
                overview.eventScroll += step
            } else if place.nodes.contains(event.position) {
                panel = .nodes
                let row = event.position.row - place.nodes.row - 2
                if step != 0 { overview.selection += step.signum() } else if row >= 0, row < cluster.members.count { overview.selection = row }
            } else if step == 0 {
                if place.watch.contains(event.position) { go(to: .watch, &commands) }
                if place.log.contains(event.position) { go(to: .log, &commands) }
                if place.roundTrips.contains(event.position) { go(to: .chaos, &commands) }
            }
        }
    }

    // MARK: Paste

    mutating func paste(_ text: String) {
        switch overlay {
        case .palette(var state):
            state.field.insert(text)
            state.selection = 0
            overlay = .palette(state)
        case .prompt(var prompt):
            prompt.field.insert(text)
            overlay = .prompt(prompt)
        case .workloadForm(var form):
            form.insert(text)
            overlay = .workloadForm(form)
        case .fault(var form):
            form.insert(text)
            overlay = .fault(form)
        case .help(var state) where state.isFiltering:
            state.field.insert(text)
            overlay = .help(state)
        case .confirm(var confirmation) where confirmation.proof != nil:
            confirmation.field.insert(text)
            overlay = .confirm(confirmation)
        case nil:
            if screen == .keys, keys.editor != nil, keys.editor?.savingRequest == nil {
                // Terminals send CR for line ends in pastes.
                keys.editor?.text.insert(String(String.UnicodeScalarView(text.unicodeScalars.map { $0 == "\r" ? "\n" : $0 })))
            } else if screen == .keys, keys.search?.isEditing == true {
                keys.search?.field.insert(text)
                keys.search?.askAt = now.advanced(byMilliseconds: KeysState.restMilliseconds)
            } else if screen == .watch, let index = selectedWatch, watch.sessions[index].isFiltering {
                watch.sessions[index].filter.insert(text)
                watch.sessions[index].refilter()
            } else if screen == .latency, latency.isFiltering {
                latency.filter.insert(text)
            } else if screen == .log, log.isFiltering {
                log.filter.insert(text)
                log.textChanged()
            } else {
                say("pasted text goes into editors and fields only: nothing was run", .dim)
            }
        default: break
        }
    }
}
