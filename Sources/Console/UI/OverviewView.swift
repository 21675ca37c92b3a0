extension Model {
    func drawOverview(_ canvas: inout Canvas, _ body: Rect) {
        let layout = OverviewLayout(body: body, members: cluster.members.count, hasWatch: !watch.sessions.isEmpty, enlarged: isEnlarged ? panel : nil)
        drawNodes(&canvas, layout.nodes)
        drawRates(&canvas, layout.ops)
        drawLatency(&canvas, layout.latency)
        drawHistogram(&canvas, layout.histogram)
        drawTimeline(&canvas, layout.timeline)
        drawEvents(&canvas, layout.events)
        drawWatchPreview(&canvas, layout.watch)
        drawRaft(&canvas, layout.raft)
        drawHeat(&canvas, layout.heat)
        drawRoundTrips(&canvas, layout.roundTrips)
        drawLogTail(&canvas, layout.log)
    }

    private func border(_ panel: Panel) -> Canvas.Border { self.panel == panel ? .heavy : .light }

    /// What a panel says instead of data, in its middle.
    func drawPlaceholder(_ canvas: inout Canvas, _ inside: Rect, _ text: String, _ slot: Slot = .dim) {
        guard !inside.isEmpty else { return }
        let shown = Format.fitted(text, inside.columns)
        canvas.text(shown, inside.column + (inside.columns - shown.cellWidth) / 2, inside.row + (inside.rows - 1) / 2, .ink(slot))
    }

    var connectionText: String {
        switch cluster.connection {
        case .connecting: cluster.kind == .playground ? "starting nodes…" : "connecting…"
        case .lost(_, let reason): "no endpoint answers: \(reason)"
        case .connected: "waiting for the first figures…"
        }
    }

    // MARK: Nodes

    private enum NodeColumn: Int { case name, role, term, commit, applied, lag, log, rtt, fsync, db, inUse, version, up, endpoint, timer, flight }

    private func nodeColumns(room: Int) -> [TableColumn] {
        // A node that faults act on carries their number: `n5 ▲2`.
        let marks = cluster.members.map { faults(on: $0.id).isEmpty ? 0 : 3 }
        let nameWidth = min(16, max(4, zip(cluster.members, marks).map { $0.name.cellWidth + $1 }.max() ?? 4))
        let hasTimers = cluster.members.contains { samples[$0.id]?.timerLengthMicroseconds != nil }
        let endpointWidth = max(8, cluster.members.map(\.endpoint.cellWidth).max() ?? 8)
        var columns = [
            TableColumn(NodeColumn.name.rawValue, "NODE", nameWidth, priority: 0),
            TableColumn(NodeColumn.role.rawValue, "ROLE", 11, priority: 1),
            TableColumn(NodeColumn.endpoint.rawValue, "CLIENT", endpointWidth, priority: hasTimers ? 15 : 10),
            TableColumn(NodeColumn.term.rawValue, "TERM", 5, right: true, priority: 8),
            TableColumn(NodeColumn.commit.rawValue, "COMMIT", 9, right: true, priority: 9),
            TableColumn(NodeColumn.applied.rawValue, "APPLIED", 9, right: true, priority: 3),
            TableColumn(NodeColumn.lag.rawValue, "LAG", 5, right: true, priority: 2),
            TableColumn(NodeColumn.log.rawValue, "LOG WINDOW", 12, priority: 4, flexible: true),
            TableColumn(NodeColumn.rtt.rawValue, "RTT ms", 6, right: true, priority: 5),
        ]
        if leaderSample?.peers.isEmpty == false { columns.append(TableColumn(NodeColumn.flight.rawValue, "IN FLIGHT", 9, right: true, priority: 11)) }
        if hasTimers { columns.append(TableColumn(NodeColumn.timer.rawValue, "TIMER", 8, priority: 10)) }
        if cluster.members.contains(where: { $0.fsyncMicroseconds != nil }) {
            columns.append(TableColumn(NodeColumn.fsync.rawValue, "FSYNC", 6, right: true, priority: 11))
        }
        columns += [
            TableColumn(NodeColumn.db.rawValue, "DB", 6, right: true, priority: 6),
            TableColumn(NodeColumn.inUse.rawValue, "IN USE", 6, right: true, priority: 13),
            TableColumn(NodeColumn.version.rawValue, "VERSION", 8, right: true, priority: 12),
            TableColumn(NodeColumn.up.rawValue, "UP", 7, right: true, priority: 7),
        ]
        return TableColumn.fit(columns, room: room)
    }

    private func drawNodes(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let commit = cluster.members.compactMap(\.commit).max()
        var facts: [Span] = []
        if let heard = clusterHeardAt, now - heard > 3 * max(1_000, cluster.periodMilliseconds) { facts.append(Span("\(Format.age(milliseconds: now - heard)) old · ", .warn)) }
        if let commit {
            facts.append(Span("commit ", .dim))
            facts.append(Span(Format.count(commit), .text))
        }
        let voters = cluster.members.count { $0.role != .learner }
        if rect.columns >= 110, voters > 0 { facts.append(Span(" · quorum \(voters / 2 + 1) of \(voters)", .dim)) }
        let inside = canvas.box(rect, border(.nodes), title: [Span("Nodes", .title, .bold)], right: facts)
        guard !inside.isEmpty else { return }
        if cluster.members.isEmpty {
            drawPlaceholder(&canvas, inside, connectionText)
            return
        }
        let columns = nodeColumns(room: inside.columns - 2)
        var x = inside.column + 1
        for column in columns {
            let title = column.id == NodeColumn.log.rawValue && column.width >= 22 ? "LOG WINDOW · last \(LogWindow.length)" : column.title
            canvas.text(column.isRight ? title.leftPadded(column.width) : title, x, inside.row, .ink(.faint))
            x += column.width + 1
        }
        let newest = cluster.members.compactMap { member in member.lastIndex ?? member.commit ?? member.applied }.max() ?? 0
        let window = LogWindow(newest: newest)
        let remarks = self.remarks
        let footRows = inside.rows - 1 - cluster.members.count
        let visible = footRows >= 0 ? cluster.members.count : inside.rows - 1
        let first = max(0, min(overview.selection - visible + 1, cluster.members.count - visible))
        for line in 0..<max(0, visible) {
            let index = first + line
            guard cluster.members.indices.contains(index) else { break }
            let row = inside.row + 1 + line
            drawNode(&canvas, cluster.members[index], columns, inside, row, window: window, commit: commit ?? 0)
            if index == overview.selection {
                canvas.background(Rect(column: inside.column, row: row, columns: inside.columns, rows: 1), .select)
                if panel == .nodes { canvas.text("▸", inside.column, row, .ink(.accent).on(.select)) }
            }
        }
        // Below: what needs attention comes before the legend.
        var row = inside.row + 1 + visible
        var left = inside.endRow - row
        let legend = columns.contains { $0.id == NodeColumn.log.rawValue } && (left > remarks.count || remarks.isEmpty)
        if legend, left > 0 {
            drawLegend(&canvas, inside, row)
            row += 1
            left -= 1
        }
        for remark in remarks.prefix(max(0, left)) {
            canvas.spans([Span("! ", remark.slot, .bold), Span(remark.text, remark.slot)], inside.column + 1, row, width: inside.columns - 2)
            row += 1
        }
    }

    private func drawLegend(_ canvas: inout Canvas, _ inside: Rect, _ row: Int) {
        let isWide = inside.columns >= 100
        let parts: [(String, Slot, String)] = [
            ("█", .logApplied, "applied"), ("▓", .logCommitted, isWide ? "committed, not applied" : "committed"),
            ("▒", .logReceived, isWide ? "received, not committed" : "received"), ("░", .logMissing, "missing"),
        ]
        var spans: [Span] = []
        for (glyph, slot, text) in parts {
            spans.append(Span(glyph, slot))
            spans.append(Span(" \(text)  ", .faint))
        }
        canvas.spans(spans, inside.column + 1, row, width: inside.columns - 2)
    }

    private func drawNode(_ canvas: inout Canvas, _ member: MemberState, _ columns: [TableColumn], _ inside: Rect, _ row: Int, window: LogWindow, commit: UInt64) {
        let state = RoleLanes.state(of: member)
        let isStale = member.sampledAt.map { now - $0 > 3 * max(1_000, cluster.periodMilliseconds) } ?? false
        let isGone = state == .down || state == .unknown
        let ink: Slot = isGone || isStale ? .dim : .text
        let none = "—"
        var x = inside.column + 1
        for column in columns {
            var text = none
            var style = Style.ink(ink)
            switch NodeColumn(rawValue: column.id)! {
            case .name:
                let count = faults(on: member.id).count
                canvas.text(member.name, x, row, width: column.width - (count > 0 ? 3 : 0), .ink(ink, state == .leader ? .bold : []))
                if count > 0 { canvas.textRight("▲\(min(count, 9))", endingAt: x + column.width, row, .ink(.warn)) }
                x += column.width + 1
                continue
            case .role:
                let (glyph, label, slot) = Model.roleText(state)
                canvas.text(glyph, x, row, .ink(slot))
                canvas.text(label, x + 2, row, .ink(state == .leader ? slot : isGone ? slot : ink, state == .leader ? .bold : []))
                x += column.width + 1
                continue
            case .term: if let term = member.term { text = String(term) }
            case .commit: if let value = member.commit, !isGone { text = Format.count(value) }
            case .applied: if let value = member.applied, !isGone { text = Format.count(value) }
            case .lag:
                if let applied = member.applied, !isGone {
                    let lag = commit > applied ? commit - applied : 0
                    text = lag < 100_000 ? Format.count(lag) : Format.short(Int(clamping: lag))
                    style = lag == 0 ? .ink(.dim) : Style(foreground: .gradient(.lag, 30 + Int(min(lag, 700)) / 10))
                }
            case .log:
                if let applied = member.applied, !isGone {
                    let known = member.commit ?? applied
                    canvas.logWindow(window, applied: applied, commit: max(known, applied), last: max(member.lastIndex ?? known, known), x, row, width: column.width)
                }
                x += column.width + 1
                continue
            case .rtt:
                // What the leader measures to its peers, where it tells; else the round trip of our own question.
                if leaderSample?.node == member.id { text = "·" } else if let latency = leaderSample.map({ _ in roundTrip(member.id, cluster.leader?.id ?? 0) }) ?? member.latencyMicroseconds, !isGone {
                    text = Format.milliseconds(latency)
                    style = Style(foreground: .gradient(.latency, min(100, latency / 500)))
                    if latency < 5_000 { style = .ink(.dim) }
                }
            case .fsync:
                if let fsync = member.fsyncMicroseconds, !isGone {
                    text = Format.milliseconds(fsync)
                    style = fsync < 10_000 ? .ink(.dim) : Style(foreground: .gradient(.latency, min(100, 40 + fsync / 500)))
                }
            case .db: if let size = member.dbSizeBytes { text = Format.shortBytes(size) }
            case .inUse: if let size = member.dbSizeInUseBytes { text = Format.shortBytes(size) }
            case .version: if let version = member.version { text = version }
            case .up:
                switch member.health {
                case .down(let since, _):
                    text = "✕ \(Format.age(milliseconds: now - since))"
                    style = .ink(.down)
                case .paused(let since):
                    text = "‖ \(Format.age(milliseconds: now - since))"
                    style = .ink(.warn)
                case .isolated(let since):
                    text = "≠ \(Format.age(milliseconds: now - since))"
                    style = .ink(.warn)
                case .up, .starting:
                    if let started = member.startedAt { text = Format.age(milliseconds: now - started) }
                    style = .ink(.dim)
                }
            case .flight:
                if leaderSample?.node == member.id { text = "·" } else if !isGone, let peer = leaderSample?.peers.first(where: { $0.id == member.id }), peer.isActive {
                    switch peer.phase {
                    case .replicate: text = peer.inFlightMessages == 0 ? "0" : "\(peer.inFlightMessages)·\(Format.shortBytes(Int64(peer.inFlightBytes)))"
                    case .probe, .snapshot: text = peer.phase.rawValue
                    }
                    style = peer.phase == .replicate ? .ink(.dim) : .ink(.warn)
                }
            case .timer:
                if let sample = samples[member.id], isFresh(sample), sample.timerLeftMicroseconds != nil, !isGone {
                    drawTimer(&canvas, sample, x, row, width: column.width)
                    x += column.width + 1
                    continue
                }
                if state == .leader { text = "·" }
            case .endpoint:
                text = member.endpoint
                style = .ink(.dim)
            }
            if text == none || text == "·" { style = .ink(.faint) }
            let shown = Format.fitted(text, column.width)
            canvas.text(column.isRight ? shown.leftPadded(column.width) : shown, x, row, style)
            x += column.width + 1
        }
    }

    static func roleText(_ state: RoleLanes.State) -> (glyph: String, label: String, slot: Slot) {
        switch state {
        case .leader: ("♛", "LEADER", .leader)
        case .follower: ("●", "follower", .follower)
        case .preCandidate: ("◌", "pre-vote", .candidate)
        case .candidate: ("╌", "candidate", .candidate)
        case .learner: ("○", "learner", .learner)
        case .paused: ("‖", "paused", .warn)
        case .isolated: ("≠", "cut off", .warn)
        case .down: ("✕", "down", .down)
        case .unknown: ("·", "starting", .dim)
        }
    }

    /// What a person should know, most urgent first.
    var remarks: [(text: String, slot: Slot)] {
        var list: [(String, Slot)] = []
        let voters = cluster.members.filter { $0.role != .learner }
        let connected = quorumFacts().working
        let quorum = voters.count / 2 + 1
        let away = voters.filter { RoleLanes.state(of: $0) == .down || RoleLanes.state(of: $0) == .paused || RoleLanes.state(of: $0) == .isolated }
        if !voters.isEmpty, connected < quorum, !away.isEmpty || !faults.isEmpty {
            list.append(("no quorum: \(connected) of \(voters.count) work together, \(quorum) are needed; writes and linearizable reads wait", .bad))
        } else if !away.isEmpty {
            let spare = connected - quorum
            list.append(("\(away.map(\.name).joined(separator: ", ")) away: \(connected) of \(voters.count) voters work, \(spare == 0 ? "no further failure is safe" : "\(spare) more failure\(spare == 1 ? " is" : "s are") safe")", .warn))
        }
        for alarm in cluster.alarms {
            list.append((alarm.kind == "NOSPACE" ? "\(alarm.member): NOSPACE: the quota is used up, writes are refused" : "\(alarm.member): \(alarm.kind): its data differs from the others'", .bad))
        }
        if let commit = cluster.members.compactMap(\.commit).max() {
            let slow = cluster.members.filter { member in RoleLanes.state(of: member) != .down && (member.applied.map { commit > $0 + 100 } ?? false) }
            if let worst = slow.min(by: { ($0.applied ?? 0) < ($1.applied ?? 0) }), let applied = worst.applied {
                let behind = commit - applied
                var text = "\(worst.name) is \(Format.count(behind)) entries behind"
                if let rate = rates.perSecond.last ?? nil, rate > 0 { text += " (≈\(Format.span(milliseconds: Int64(min(Double(behind) * 1_000 / Double(rate), 1e15)))))" }
                if let fault = faults(on: worst.id).last { text += " · fault #\(fault.id) is on: \(faultLine(fault.fault))" }
                list.append((text, .warn))
            }
        }
        if case .lost(_, let reason) = cluster.connection { list.insert(("no endpoint answers: \(reason)", .bad), at: 0) }
        return list.map { (text: $0.0, slot: $0.1) }
    }

    // MARK: Writes a second

    private func drawRates(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let inside = rect.inset()
        let shown = Array(rates.perSecond.suffix(inside.columns * 2))
        let top = shown.compactMap { $0 }.max() ?? 0
        var facts: [Span] = []
        if let last = shown.last ?? nil {
            facts = [Span(Format.count(last), .text), Span(" · max \(Format.count(top))", .dim)]
        }
        canvas.box(rect, .light, title: [Span(rect.columns > 50 ? "Writes/s · revisions" : "Writes/s", .title, .bold)], right: facts)
        guard !inside.isEmpty else { return }
        if shown.compactMap({ $0 }).isEmpty {
            drawPlaceholder(&canvas, inside, cluster.connection == .connected ? "measuring…" : connectionText)
            return
        }
        var chart = Rect(column: inside.column + 1, row: inside.row, columns: inside.columns - 2, rows: inside.rows)
        let axis = chart.takeBottom(1)
        canvas.area(shown, chart, maximum: max(4, top))
        drawTimeAxis(&canvas, axis, seconds: chart.columns * 2)
        // Where writes stopped: seconds without a leader, marked below the curve.
        drawGaps(&canvas, axis, secondsPerColumn: 2)
    }

    private func drawTimeAxis(_ canvas: inout Canvas, _ rect: Rect, seconds: Int) {
        guard !rect.isEmpty else { return }
        canvas.text("-" + Format.age(milliseconds: Int64(seconds) * 1_000), rect.column, rect.row, .ink(.faint))
        canvas.textRight("now", endingAt: rect.endColumn, rect.row, .ink(.faint))
    }

    /// Marks the last election in a time axis: `↑ 1.08s`.
    func drawGaps(_ canvas: inout Canvas, _ rect: Rect, secondsPerColumn: Int) {
        for event in events.reversed() {
            guard case .elected(_, let previous?, _, _, let gap?, _) = event.kind, !previous.isEmpty else { continue }
            let column = rect.endColumn - 1 - Int((now - event.at) / 1_000) / secondsPerColumn
            let label = "no leader \(Format.span(milliseconds: gap))"
            guard column > rect.column + 7, column < rect.endColumn - 4 else { return }
            canvas.text("↑", column, rect.row, .ink(.warn))
            if column + 2 + label.cellWidth < rect.endColumn - 4 {
                canvas.text(label, column + 2, rect.row, .ink(.dim))
            } else if column - 1 - label.cellWidth > rect.column + 7 {
                canvas.textRight(label, endingAt: column - 1, rect.row, .ink(.dim))
            }
            return
        }
    }

    // MARK: Latency

    private func drawLatency(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        var facts: [Span] = []
        if workload.isOn, let sample = workload.last {
            facts = [Span("\(sample.put?.count ?? 0) put/s  \(sample.read?.count ?? 0) get/s", .dim)]
            if sample.failed > 0 { facts.append(Span("  \(sample.failed) failed", .bad)) }
        } else if !workload.samples.isEmpty {
            facts = [Span("stopped", .dim)]
        }
        let inside = canvas.box(rect, .light, title: [Span("Latency ms", .title, .bold)], right: facts)
        guard !inside.isEmpty else { return }
        if workload.samples.isEmpty {
            drawWorkloadInvitation(&canvas, inside)
            return
        }
        let rows: [(String, (WorkloadSample) -> Int?)] = [
            ("put  p50", { $0.put?.p50Microseconds }), ("     p99", { $0.put?.p99Microseconds }),
            ("get  p50", { $0.read?.p50Microseconds }), ("     p99", { $0.read?.p99Microseconds }),
        ]
        let width = inside.columns - 2 - 9 - 8
        guard width > 4 else { return }
        let height = max(1, min(5, (inside.rows - 1) / rows.count))
        let shown = workload.samples.suffix(height == 1 ? width : width * 2)
        var row = inside.row
        for (index, (label, value)) in rows.enumerated() {
            guard row + height <= inside.endRow else { break }
            // p50 and p99 of an operation share a scale, so that their distance is seen; spikes are cut at ten times the median p99.
            let pair = rows[index | 1].1
            let scale = Model.scale(shown.compactMap(pair))
            let values = shown.map(value)
            canvas.text(label, inside.column + 1, row + height - 1, .ink(index % 2 == 0 ? .text : .dim))
            if height == 1 {
                canvas.sparkline(values, inside.column + 10, row, width: width, maximum: scale) { $0 > 100_000 ? .slot(.bad) : .slot(index % 2 == 0 ? .series1 : .series2) }
            } else {
                canvas.area(values, Rect(column: inside.column + 10, row: row, columns: width, rows: height), maximum: scale, slot: index % 2 == 0 ? .series1 : .series2)
            }
            if let last = values.last ?? nil {
                canvas.textRight(Format.milliseconds(last), endingAt: inside.endColumn - 1, row + height - 1, Style.latency(last))
            } else {
                canvas.textRight("—", endingAt: inside.endColumn - 1, row + height - 1, .ink(.faint))
            }
            row += height
        }
        if row < inside.endRow {
            let axis = Rect(column: inside.column + 10, row: row, columns: width, rows: 1)
            canvas.text("-\(Format.age(milliseconds: Int64(height == 1 ? width : width * 2) * 1_000))", axis.column, row, .ink(.faint))
            canvas.textRight("now", endingAt: axis.endColumn, row, .ink(.faint))
            canvas.text("W", inside.column + 1, row, .ink(.key, .bold))
            canvas.text(workload.isOn ? "stops" : "starts", inside.column + 3, row, .ink(.faint))
        }
    }

    /// The top of a latency scale: the largest value, but a lone spike must not flatten the rest.
    private static func scale(_ values: [Int]) -> Int {
        guard !values.isEmpty else { return 1 }
        let sorted = values.sorted()
        return max(1, min(sorted[sorted.count - 1], sorted[sorted.count / 2] * 4))
    }

    func drawWorkloadInvitation(_ canvas: inout Canvas, _ inside: Rect) {
        let reason = obstacle(to: .workload, changes: true)
        let lines: [[Span]]
        if let reason, mode == .readOnly {
            lines = [[Span("put and get latency of a small workload", .dim)], [Span(reason, .faint)]]
        } else if workload.isOn || workload.isSwitching {
            lines = [[Span("workload starting…", .dim)]]
        } else {
            lines = [[Span("W", .key, .bold), Span("  starts a small workload", .text)], [Span("puts and gets, rate-limited, to show", .dim)], [Span("what clients feel", .dim)]]
        }
        let top = inside.row + max(0, (inside.rows - lines.count) / 2)
        for (index, line) in lines.prefix(inside.rows).enumerated() {
            let width = min(line.cellWidth, inside.columns)
            canvas.spans(line, inside.column + (inside.columns - width) / 2, top + index, width: inside.columns)
        }
    }

    // MARK: Histogram

    private func drawHistogram(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let buckets = workload.buckets(last: 60)
        let total = buckets.reduce(0, +)
        let inside = canvas.box(rect, .light, title: [Span("Put latency", .title, .bold), Span(" · 60s", .dim)], right: total > 0 ? [Span(Format.plural(Int64(total), "put"), .dim)] : [])
        guard total > 0 else {
            drawWorkloadInvitation(&canvas, inside)
            return
        }
        let top = buckets.max() ?? 1
        for (index, value) in buckets.enumerated() where index < inside.rows {
            let bounds = WorkloadSample.bucketBoundsMicroseconds
            let label = index < bounds.count ? "≤" + Model.bucketBound(bounds[index]) : ">" + Model.bucketBound(bounds[bounds.count - 1])
            canvas.text(label, inside.column + 1, inside.row + index, .ink(.dim))
            canvas.bar(value, of: top, inside.column + 9, inside.row + index, width: inside.columns - 17,
                       Style(foreground: .gradient(.latency, index * 100 / (buckets.count - 1))))
            if value > 0 { canvas.textRight(Format.count(value), endingAt: inside.endColumn - 1, inside.row + index, .ink(.text)) }
        }
        if let put = workload.last?.put, inside.rows > buckets.count {
            canvas.spans([Span("p50 ", .dim), Span(Format.milliseconds(put.p50Microseconds), .text), Span("  p99 ", .dim), Span(Format.milliseconds(put.p99Microseconds), .text),
                          Span("  max ", .dim), Span(Format.milliseconds(put.maxMicroseconds), .text), Span(" ms in the last second", .faint)],
                         inside.column + 1, inside.row + buckets.count + 1 < inside.endRow ? inside.row + buckets.count + 1 : inside.row + buckets.count, width: inside.columns - 2)
        }
    }

    static func bucketBound(_ microseconds: Int) -> String {
        if microseconds >= 1_000_000 { return "\(microseconds / 1_000_000)s" }
        return microseconds >= 1_000 ? "\(microseconds / 1_000)ms" : "0.\(microseconds / 100)ms"
    }

    // MARK: Elections

    func drawTimeline(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let lanes = elections.lanes
        let nameWidth = min(10, max(2, lanes.map(\.name.cellWidth).max() ?? 2))
        let seconds = 60
        let inside = canvas.box(rect, .light, title: [Span("Elections", .title, .bold)], right: [Span("\(seconds)s", .dim)])
        guard !inside.isEmpty else { return }
        if lanes.isEmpty {
            drawPlaceholder(&canvas, inside, connectionText)
            return
        }
        let width = inside.columns - nameWidth - 3
        guard width > 10 else { return }
        let x0 = inside.column + nameWidth + 2
        var marks = stride(from: 0, through: seconds, by: 15).map { $0 }
        marks.reverse()
        for mark in marks {
            let column = x0 + width - 1 - mark * (width - 1) / seconds
            let label = mark == 0 ? "now" : "-\(mark)s"
            canvas.text(label, mark == seconds ? x0 : mark == 0 ? x0 + width - 3 : column - 1, inside.row, .ink(.faint))
        }
        // Whole columns, so that the lanes move by columns and do not flicker.
        let perColumn = Int64(seconds) * 1_000_000 / Int64(width)
        let start = (now.microseconds / perColumn + 1 - Int64(width)) * perColumn
        for (index, lane) in lanes.enumerated() {
            let row = inside.row + 1 + index
            guard row < inside.endRow else { break }
            canvas.text(Format.fitted(lane.name, nameWidth), inside.column + 1, row, .ink(.text))
            canvas.lane(lane, x0, row, width: width, from: start, microsecondsPerColumn: perColumn, until: now.microseconds)
        }
        let foot = inside.row + 1 + lanes.count
        guard foot < inside.endRow else { return }
        canvas.spans([Span("━", .leader), Span(" leader  ", .faint), Span("─", .follower), Span(" follower  ", .faint), Span("╌", .candidate), Span(" candidate  ", .faint), Span("╎", .down), Span(" down  ", .faint), Span("‖", .warn), Span(" paused  ", .faint), Span("≠", .warn), Span(" cut off", .faint)],
                     inside.column + 1, foot, width: inside.columns - 2)
        if foot + 1 < inside.endRow, let last = events.last(where: { if case .elected(_, _?, _, _, _, _) = $0.kind { true } else { false } }) {
            canvas.spans([Span("last: ", .faint)] + EventText(last).spans(width: inside.columns - 20) + [Span(" · \(Format.age(milliseconds: now - last.at)) ago", .faint)],
                         inside.column + 1, foot + 1, width: inside.columns - 2)
        }
    }

    // MARK: Events

    private func drawEvents(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let facts: [Span] = overview.eventScroll > 0 ? [Span("▼ \(overview.eventScroll) newer", .warn)] : [Span("live", .dim)]
        let inside = canvas.box(rect, border(.events), title: [Span("Events", .title, .bold)], right: facts)
        guard !inside.isEmpty else { return }
        drawEventRows(&canvas, rect, inside, focused: panel == .events)
    }

    /// Newest on top.
    func drawEventRows(_ canvas: inout Canvas, _ rect: Rect, _ inside: Rect, focused: Bool) {
        if events.isEmpty {
            drawPlaceholder(&canvas, inside, hasClusterData ? "nothing happened yet" : connectionText, .faint)
            return
        }
        var row = inside.row
        for event in events.reversed().dropFirst(overview.eventScroll) {
            guard row < inside.endRow else { break }
            let stamp = Format.stamp(event.at, zone: timeZoneOffsetSeconds)
            canvas.text(stamp, inside.column + 1, row, .ink(.faint))
            canvas.spans(EventText(event).spans(width: inside.columns - 12), inside.column + 11, row, width: inside.columns - 12)
            row += 1
        }
        canvas.scrollMark(rect, offset: overview.eventScroll, visible: inside.rows, total: events.count, focused: focused)
    }

    /// The last events of the newest watch.
    private func drawWatchPreview(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        guard let session = watch.selected else {
            let inside = canvas.box(rect, .light, title: [Span("Watch", .title, .bold)], right: [Span("3 full view", .faint)])
            let line = [Span("w", .key, .bold), Span(" in Keys watches what is selected there; ", .dim), Span("3", .key, .bold), Span(" then ", .dim), Span("a", .key, .bold), Span(" opens any watch", .dim)]
            if !inside.isEmpty, line.cellWidth < inside.columns { canvas.spans(line, inside.column + (inside.columns - line.cellWidth) / 2, inside.row + (inside.rows - 1) / 2) }
            return
        }
        let inside = canvas.box(rect, .light, title: [Span("Watch ", .title, .bold), Span(session.title, .text)], right: session.facts(visibleRows: rect.rows - 2) + [Span(" · 3 full view", .faint)])
        drawStreamRows(&canvas, inside, session, selection: nil)
    }
}

extension Style {
    static func latency(_ microseconds: Int) -> Style {
        microseconds < 20_000 ? .ink(.text) : Style(foreground: .gradient(.latency, min(100, 40 + microseconds / 2_000)))
    }
}
