/// What only the Latency view does.
enum LatencyVerb: Hashable, Sendable {
    case source, widerWindow, narrowerWindow, previousNode, nextNode
    case baseline, clearBaseline, settings, exportCSV
}

extension Catalogue {
    static let latencyEntries: [CatalogueEntry] = {
        func entry(_ verb: Verb, _ name: String, _ keys: [KeyPress], hint: String? = nil, _ help: String, rank: Int = 50, changes: Bool = false, _ section: HelpSection = .look) -> CatalogueEntry {
            CatalogueEntry(verb: verb, name: name, context: .latency, keys: keys, hint: hint, help: help, rank: rank, changes: changes, section: section)
        }
        return [
            entry(.latency(.source), "latency-source", [KeyPress("m")], hint: "op", "heat map of puts, gets, wal fsync, backend commit, peer round trip", rank: 10),
            entry(.latency(.narrowerWindow), "shorter-window", [KeyPress("<")], hint: "window", "a shorter time: 1m, 5m, 15m, 1h", rank: 13),
            entry(.latency(.widerWindow), "longer-window", [KeyPress(">")], "a longer time: 1m, 5m, 15m, 1h"),
            entry(.latency(.previousNode), "latency-node-before", [KeyPress("(")], hint: "node", "the node before; past the first: the leader, whoever it is", rank: 14),
            entry(.latency(.nextNode), "latency-node", [KeyPress(")")], "the next node; past the last: the leader, whoever it is"),
            entry(.latency(.baseline), "mark-baseline", [KeyPress("b")], hint: "baseline", "keep what is shown, to compare with from now on", rank: 15),
            entry(.latency(.clearBaseline), "clear-baseline", [KeyPress("c")], "compare with nothing"),
            entry(.latency(.settings), "workload-settings", [KeyPress("e")], hint: "settings", "rates, keys, sizes and targets of the workload", rank: 12),
            entry(.latency(.exportCSV), "export-latency", [KeyPress("o")], hint: "export", "save all figures of the last hour as CSV", rank: 20),
            entry(.open, "open-slow-key", [KeyPress(.enter)], hint: "open", "show the slow request's key in Keys, or enlarge the panel", rank: 30),
            entry(.workload, "workload", [KeyPress("W")], hint: "workload", "switch the built-in workload on or off", rank: 11, changes: true, .cluster),
        ]
    }()
}

extension Model {
    mutating func performInLatency(_ verb: Verb, _ commands: inout [Command]) {
        switch verb {
        case .latency(let verb): perform(verb)
        case .workload:
            if !workload.isOn, cluster.kind == .attached { overlay = .confirm(Confirmation(question: .workload)) } else { switchWorkload(&commands) }
        case .down: moveInLatency(1)
        case .up: moveInLatency(-1)
        case .halfDown: moveInLatency(slowVisibleRows / 2)
        case .halfUp: moveInLatency(-slowVisibleRows / 2)
        case .pageDown: moveInLatency(slowVisibleRows)
        case .pageUp: moveInLatency(-slowVisibleRows)
        case .top: if panel == .heat { moveCursor(-100_000) } else { moveInLatency(-10_000) }
        case .bottom: if panel == .heat { latency.cursor = nil } else { moveInLatency(10_000) }
        case .left: moveCursor(-1)
        case .right: moveCursor(1)
        case .filter:
            panel = .slow
            latency.isFiltering = true
        case .open:
            guard panel == .slow else { isEnlarged.toggle(); return }
            let rows = slowRows
            guard rows.indices.contains(latency.slowSelection), case .request(let slow) = rows[latency.slowSelection] else { return }
            go(to: .keys, &commands)
            closeSearch(&commands)
            keys.reveal = KeyBytes(slow.request.key)
        default: break
        }
    }

    private mutating func perform(_ verb: LatencyVerb) {
        switch verb {
        case .source:
            let all = LatencySource.allCases
            latency.source = all[(latency.source.rawValue + 1) % all.count]
            panel = .heat
        case .widerWindow: latency.window = min(LatencyState.windows.count - 1, latency.window + 1)
        case .narrowerWindow: latency.window = max(0, latency.window - 1)
        case .nextNode: chooseNode(1)
        case .previousNode: chooseNode(-1)
        case .baseline:
            guard let shown = shownHistogram else { return }
            latency.baseline = LatencyState.Baseline(source: latency.source, node: latency.node, at: now, histogram: shown)
            say("baseline marked: p50 \(Format.milliseconds(shown.quantile(0.5) ?? 0)) p99 \(Format.milliseconds(shown.quantile(0.99) ?? 0)) ms")
        case .clearBaseline: latency.baseline = nil
        case .settings: overlay = .workloadForm(WorkloadForm(workload.settings))
        case .exportCSV:
            let clock = Format.clock(now, zone: timeZoneOffsetSeconds).split(separator: ":").joined()
            overlay = .prompt(Prompt(purpose: .exportLatency, field: TextField("~/latency-\(clock).csv")))
        }
    }

    private var heatColumnCount: Int { max(1, Model.heatColumns(latencyLayout.heat.isEmpty ? bodyRect : latencyLayout.heat).columns) }

    /// All of what the heat map shows.
    var shownHistogram: LatencyHistogram? {
        let time = heatTime(columns: heatColumnCount)
        return latency.sum(heatKeys(latency.source), from: time.from, to: time.to, isFine: time.isFine)?.histogram
    }

    /// The leader (nil), then each node.
    private mutating func chooseNode(_ step: Int) {
        let places: [UInt64?] = [nil] + cluster.members.map { $0.id }
        let index = places.firstIndex(of: latency.node) ?? 0
        latency.node = places[(index + step + places.count) % places.count]
    }

    private mutating func moveInLatency(_ delta: Int) {
        if panel == .slow { latency.slowSelection += delta } else if panel == .stages || panel == .fsync { chooseNode(delta.signum()) } else { moveCursor(-delta) }
    }

    private mutating func moveCursor(_ delta: Int) {
        let time = heatTime(columns: heatColumnCount)
        let column = (latency.cursor.flatMap { time.column(of: $0) } ?? time.columns) + delta
        latency.cursor = column >= time.columns ? nil : Moment(milliseconds: time.start(max(0, column)) * 1_000)
    }

    func obstacle(to verb: LatencyVerb) -> String? {
        switch verb {
        case .baseline: shownHistogram == nil ? "nothing to keep yet: no figures of \(latency.source.title.lowercased())" : nil
        case .clearBaseline: latency.baseline == nil ? "no baseline: b marks one" : nil
        case .exportCSV: latency.series.isEmpty ? "no figures to export yet" : nil
        case .widerWindow: latency.window == LatencyState.windows.count - 1 ? "an hour is all that is kept" : nil
        case .narrowerWindow: latency.window == 0 ? "a minute is the shortest" : nil
        case .previousNode, .nextNode: cluster.members.isEmpty ? "no node yet" : nil
        case .source, .settings: nil
        }
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInLatency() -> Bool {
        if latency.cursor != nil { latency.cursor = nil; return true }
        if !latency.filter.isEmpty { latency.filter = TextField(); return true }
        if latency.node != nil { latency.node = nil; return true }
        if panel != .heat { panel = .heat; return true }
        return false
    }

    /// Keys while the filter is typed; false when the key is one for the list.
    mutating func handleSlowFilter(_ key: KeyPress) -> Bool {
        switch key.code {
        case .escape:
            latency.isFiltering = false
            latency.filter = TextField()
        case .enter: latency.isFiltering = false
        case .up, .down, .pageUp, .pageDown, .tab, .backTab, .function: return false
        default:
            if key == .control("c") || key == .control("z") || key == .control("l") || key == .control("p") { return false }
            if latency.filter.handle(key) { latency.slowSelection = 0 }
        }
        return true
    }

    /// After every change: selections inside their lists; the runtime reads `/metrics` while it is looked at.
    mutating func settleLatency(_ commands: inout [Command]) {
        if screen == .latency {
            latency.slowSelection = min(max(0, latency.slowSelection), max(0, slowRows.count - 1))
            if let node = latency.node, !cluster.members.isEmpty, !cluster.members.contains(where: { $0.id == node }) { latency.node = nil }
        }
        let isWanted = screen == .latency && replay == nil
        if isWanted != (latency.scrapingSince != nil) {
            latency.scrapingSince = isWanted ? now : nil
            commands.append(.scrapeMetrics(isWanted))
        }
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInLatency(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
        let layout = latencyLayout(body)
        if layout.heat.contains(position) || layout.companion.contains(position) {
            panel = .heat
            if step != 0 { moveCursor(step.signum()); return }
            let area = Model.heatColumns(layout.heat)
            guard position.column >= area.column, position.column < area.endColumn else { latency.cursor = nil; return }
            let time = heatTime(columns: area.columns)
            let start = Moment(milliseconds: time.start(position.column - area.column) * 1_000)
            latency.cursor = latency.cursor == start ? nil : start
        } else if layout.slow.contains(position) {
            panel = .slow
            if step != 0 { latency.slowSelection += step.signum(); return }
            let visible = slowVisibleRows, total = slowRows.count
            let first = max(0, min(latency.slowSelection - visible + 1, total - visible))
            let row = position.row - layout.slow.row - 2
            if row >= 0, first + row < total { latency.slowSelection = first + row }
        } else if layout.fsync.contains(position) {
            panel = .fsync
            let row = position.row - layout.fsync.row - 2
            if step == 0, cluster.members.indices.contains(row) { latency.node = latency.node == cluster.members[row].id ? nil : cluster.members[row].id }
        } else if layout.stages.contains(position) {
            panel = .stages
            if step != 0 { chooseNode(step.signum()) }
        } else if layout.rates.contains(position) {
            panel = .rates
        }
    }

    // MARK: Export

    /// Every slot of five seconds of the last hour: one line for each thing that was measured.
    func latencyCSV() -> [UInt8] {
        var text = "time_ms,what,node,seconds,count,p50_us,p90_us,p99_us,p999_us,max_us,mean_us\n"
        func name(_ what: LatencyKey.What) -> String {
            switch what {
            case .put: "put"
            case .get: "get"
            case .stage(let stage): stage.rawValue
            case .scraped(let source): "metrics_\(source)"
            }
        }
        let order = latency.series.keys.sorted { (name($0.what), $0.node) < (name($1.what), $1.node) }
        for key in order {
            let node = key.node == 0 ? "" : cluster.members.first { $0.id == key.node }?.name ?? Format.hex(key.node)
            let quoted = node.contains(",") || node.contains("\"") ? "\"" + node.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\"" : node
            for slot in latency.series[key]?.coarse ?? [] {
                let h = slot.histogram
                let quantiles = [0.5, 0.9, 0.99, 0.999].map { h.quantile($0).map(String.init) ?? "" }.joined(separator: ",")
                text += "\(slot.second * 1_000),\(name(key.what)),\(quoted),\(LatencySeries.coarseStep),\(h.total),\(quantiles),\(h.maximum.map(String.init) ?? ""),\(h.total > 0 ? String(h.sum / Int64(h.total)) : "")\n"
            }
        }
        return Array(text.utf8)
    }
}
