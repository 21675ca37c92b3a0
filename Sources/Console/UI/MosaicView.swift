/// The Overview's panels that only large screens have room for: Raft as a picture, round trips, the heat of put latency, the log's tail.
extension Model {
    // MARK: Raft

    /// The leader above its followers, with what each link carries: round trip, entries in flight, how far the follower's log matches,
    /// and what is left of its election timer. Real etcd tells none of these; then the roles alone are drawn.
    func drawRaft(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let voters = cluster.members.count { $0.role != .learner }
        var facts: [Span] = []
        if voters > 0 { facts = [Span("quorum \(voters / 2 + 1) of \(voters)", .dim)] }
        let inside = canvas.box(rect, .light, title: [Span("Raft", .title, .bold)], right: facts)
        guard inside.rows >= 10 else { return }
        if cluster.members.isEmpty { return drawPlaceholder(&canvas, inside, connectionText) }
        let leader = cluster.leader
        let below = cluster.members.filter { $0.id != leader?.id }
        let middle = inside.column + inside.columns / 2
        // The leader.
        let top = Rect(column: middle - 10, row: inside.row, columns: 21, rows: 4)
        if let leader {
            let box = raftBox(&canvas, top, .leader)
            centered(&canvas, [Span("♛ ", .leader), Span(Format.fitted(leader.name, 8), .leader, .bold), Span(leader.term.map { "  term \($0)" } ?? "", .dim)], box, 0)
            let last = leaderSample?.lastIndex ?? leader.lastIndex ?? leader.commit
            centered(&canvas, [Span(last.map { Format.count($0) } ?? "—", .text)] + (leaderSample.map { $0.pendingRequests > 0 ? [Span(" · \($0.pendingRequests) wait", .dim)] : [] } ?? []), box, 1)
        } else {
            let box = raftBox(&canvas, top, .bad)
            centered(&canvas, [Span("no leader", .bad, .bold)], box, 0)
            centered(&canvas, [Span(hasClusterData ? "writes wait" : "", .dim)], box, 1)
        }
        if below.isEmpty { return }
        let pitch = min(18, (inside.columns - 2) / below.count)
        let width = pitch - (pitch > 8 ? 1 : 0)
        let left = inside.column + (inside.columns - pitch * below.count + pitch - width) / 2
        let centers = below.indices.map { left + $0 * pitch + width / 2 }
        // The trunk: one bar from which a link hangs for each follower.
        let bar = top.endRow
        let style = Style.ink(leader == nil ? .faint : .border)
        for column in min(middle, centers[0])...max(middle, centers[centers.count - 1]) { canvas.glyph("─", column, bar, style) }
        for (index, center) in centers.enumerated() { canvas.glyph(index == 0 && center < middle ? "┌" : index == centers.count - 1 && center > middle ? "┐" : "┬", center, bar, style) }
        canvas.glyph(centers.contains(middle) ? "┼" : "┴", middle, bar, style)
        canvas.glyph("┬", middle, top.endRow - 1, .ink(leader == nil ? .bad : .leader))
        for (index, member) in below.enumerated() {
            let peer = leaderSample?.peers.first { $0.id == member.id }
            drawRaftLink(&canvas, leader, member, peer, center: centers[index], row: bar + 1, width: width)
            drawFollower(&canvas, member, peer, Rect(column: left + index * pitch, row: bar + 4, columns: width, rows: 5))
        }
        let foot = bar + 9
        guard foot < inside.endRow else { return }
        if samples.isEmpty {
            canvas.text(cluster.isPushed ? "links and timers: not told yet" : "match, flights and timers: etcd does not tell them", inside.column + 1, inside.endRow - 1, width: inside.columns - 2, .ink(.faint))
        } else {
            canvas.text("round trip ms · entries in flight · matching index", inside.column + 1, inside.endRow - (inside.endRow - foot > 1 ? 2 : 1), width: inside.columns - 2, .ink(.faint))
            if inside.endRow - foot > 1 { canvas.text("bar: what is left of the election timer", inside.column + 1, inside.endRow - 1, width: inside.columns - 2, .ink(.faint)) }
        }
    }

    private func raftBox(_ canvas: inout Canvas, _ rect: Rect, _ slot: Slot) -> Rect {
        let inside = canvas.box(rect, .light)
        // The border in the role's colour.
        for row in rect.row..<rect.endRow {
            for column in rect.column..<rect.endColumn where row == rect.row || row == rect.endRow - 1 || column == rect.column || column == rect.endColumn - 1 { canvas.ink(column, row, slot) }
        }
        return inside
    }

    private func centered(_ canvas: inout Canvas, _ spans: [Span], _ inside: Rect, _ line: Int) {
        guard line < inside.rows else { return }
        let width = min(spans.cellWidth, inside.columns)
        canvas.spans(spans, inside.column + (inside.columns - width) / 2, inside.row + line, width: inside.columns)
    }

    private func drawRaftLink(_ canvas: inout Canvas, _ leader: MemberState?, _ member: MemberState, _ peer: NodeSample.Peer?, center: Int, row: Int, width: Int) {
        let there = leader.map { link($0, member) } ?? .down, back = leader.map { link(member, $0) } ?? .down
        var slot = Slot.border, glyph: Unicode.Scalar = "│", label = "", ink = Style.ink(.text)
        switch (there, back) {
        case (.down, _), (_, .down): (slot, glyph) = (.faint, "╎")
        case (.cut, _), (_, .cut): (slot, glyph, label, ink) = (.bad, "╎", there == .cut && back == .cut ? "✕ cut" : there == .cut ? "✕ to it" : "✕ from it", .ink(.bad, .bold))
        default:
            if case .worse = there { slot = .warn }
            if case .worse = back { slot = .warn }
            if let trip = peer?.roundTripMicroseconds {
                label = Format.milliseconds(trip)
                if trip >= 20_000 { slot = .warn }
                ink = trip < 5_000 ? .ink(.text) : Style(foreground: .gradient(.latency, min(100, 30 + trip / 500)))
            }
        }
        for line in 0..<3 { canvas.glyph(glyph, center, row + line, .ink(slot)) }
        func tag(_ text: String, _ line: Int, _ style: Style) {
            guard !text.isEmpty else { return }
            let shown = Format.fitted(text, width)
            canvas.text(shown, center - shown.cellWidth / 2, row + line, style)
        }
        tag(label, 0, ink)
        guard let peer, peer.isActive else { return }
        switch peer.phase {
        case .probe: tag("probe", 1, .ink(.warn))
        case .snapshot: tag("snapshot", 1, .ink(.warn))
        case .replicate: if peer.inFlightMessages > 0 { tag("\(peer.inFlightMessages)·\(Format.shortBytes(Int64(peer.inFlightBytes)))", 1, .ink(.dim)) }
        }
    }

    private func drawFollower(_ canvas: inout Canvas, _ member: MemberState, _ peer: NodeSample.Peer?, _ rect: Rect) {
        let state = RoleLanes.state(of: member)
        let role = Model.roleText(state)
        let quiet = state == .down || state == .unknown
        let box = raftBox(&canvas, rect, quiet ? .faint : state == .follower || state == .learner ? .border : role.slot)
        // The mark of its faults where it fits beside the name; else the name's colour says it.
        let count = faults(on: member.id).count
        let hasRoom = count > 0 && member.name.cellWidth + 5 <= box.columns
        centered(&canvas, [Span("\(role.glyph) ", role.slot), Span(Format.fitted(member.name, max(2, box.columns - 2 - (hasRoom ? 3 : 0))), quiet ? .dim : count > 0 && !hasRoom ? .warn : .text, .bold)] + (hasRoom ? [Span(" ▲\(count)", .warn)] : []), box, 0)
        func away(_ word: String, _ since: Moment, _ slot: Slot) {
            let age = Format.age(milliseconds: now - since)
            centered(&canvas, [Span("\(word) \(age)".cellWidth <= box.columns ? "\(word) \(age)" : age, slot)], box, 1)
        }
        switch member.health {
        case .down(let since, _): return away("down", since, .down)
        case .paused(let since): return away("paused", since, .warn)
        case .starting: return centered(&canvas, [Span("starting", .dim)], box, 1)
        case .up, .isolated: break
        }
        let match = peer?.match ?? member.applied
        let shown = match.map { Format.count($0) } ?? "—"
        let isBehind = peer.map { peer in leaderSample.map { $0.lastIndex > peer.match + 100 } ?? false } ?? false
        centered(&canvas, [Span(shown.cellWidth <= box.columns ? shown : Format.short(Int(clamping: match ?? 0)), isBehind ? .warn : .dim)], box, 1)
        if let sample = samples[member.id], isFresh(sample), state != .learner { drawTimer(&canvas, sample, box.column + (box.columns > 6 ? 1 : 0), box.row + 2, width: box.columns - (box.columns > 6 ? 2 : 0)) }
    }

    /// What was left of the election timer when the node last told; alarming when it is nearly out.
    func drawTimer(_ canvas: inout Canvas, _ sample: NodeSample, _ column: Int, _ row: Int, width: Int) {
        guard let left = sample.timerLeftMicroseconds, let length = sample.timerLengthMicroseconds, length > 0 else { return }
        let share = Int(max(0, min(left, length)) * 100 / length)
        canvas.gauge(share, of: 100, column, row, width: width, .ink(share > 40 ? .series1 : share > 15 ? .warn : .bad))
    }

    // MARK: Round trips

    func drawRoundTrips(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let inside = canvas.box(rect, .light, title: [Span("Peer RTT ms", .title, .bold)], right: [Span("row → column · 9 Chaos", .dim)])
        guard !inside.isEmpty else { return }
        if cluster.members.isEmpty { return drawPlaceholder(&canvas, inside, connectionText) }
        if !cluster.isPushed, samples.isEmpty { return drawPlaceholder(&canvas, inside, "etcd tells no round trips of its peers here", .faint) }
        drawMatrix(&canvas, MatrixPlaces(inside: inside, names: cluster.members.map(\.name)), selection: nil, focused: false)
        let foot = inside.row + cluster.members.count + 2
        guard foot < inside.endRow else { return }
        canvas.spans([Span("✕", .bad), Span(" cut  ", .faint), Span("+n", .warn), Span(" by a fault  ", .faint), Span("ok", .dim), Span(" open; the leader's are measured", .faint)], inside.column + 1, foot, width: inside.columns - 2)
    }

    // MARK: Heat of put latency

    /// Columns are seconds, rows latencies; a cell is as bright as it holds many puts.
    func drawHeat(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let inside = canvas.box(rect, .light, title: [Span("Put latency heat", .title, .bold)], right: [Span("1 column = 1s · bright = more", .dim)])
        guard inside.rows > 3 else { return }
        if workload.samples.isEmpty { return drawWorkloadInvitation(&canvas, inside) }
        let columns = inside.columns - 9
        let shown = Array(workload.samples.suffix(max(0, columns)))
        let isFine = shown.contains { $0.putHistogram != nil }
        // Bounds of the rows, slowest first; the topmost row holds all that is above.
        var bounds = isFine ? (0..<12).map { 500 << $0 } : WorkloadSample.bucketBoundsMicroseconds
        let room = inside.rows - 2
        if bounds.count > room { bounds = Array(bounds.suffix(room)) }
        let cells = shown.map { sample -> [Int] in
            var counts = [Int](repeating: 0, count: bounds.count + 1)
            func add(_ value: Int, upTo bound: Int?) {
                guard value > 0 else { return }
                counts[bound.flatMap { bound in bounds.firstIndex { bound <= $0 } } ?? bounds.count] += value
            }
            if let histogram = sample.putHistogram {
                for (index, value) in histogram.counts.enumerated() { add(value, upTo: index < histogram.boundsMicroseconds.count ? histogram.boundsMicroseconds[index] : nil) }
            } else if !isFine {
                for (index, value) in sample.putBuckets.enumerated() { add(value, upTo: index < WorkloadSample.bucketBoundsMicroseconds.count ? WorkloadSample.bucketBoundsMicroseconds[index] : nil) }
            }
            return counts
        }
        let most = max(1, cells.joined().max() ?? 1)
        let rows = min(bounds.count + 1, inside.rows - 1)
        let x0 = inside.column + 8
        for line in 0..<rows {
            let bucket = bounds.count - line
            let y = inside.row + line
            let label = bucket == bounds.count ? ">" + Model.bucketBound(bounds[bounds.count - 1]) : "≤" + Model.bucketBound(bounds[bucket])
            canvas.textRight(label, endingAt: x0 - 1, y, .ink(.dim))
            for (index, counts) in cells.enumerated() where counts[bucket] > 0 {
                // The root spreads few and many apart.
                let share = Int((Double(counts[bucket]) / Double(most)).squareRoot() * 100)
                let glyph: Unicode.Scalar = share > 75 ? "█" : share > 45 ? "▓" : share > 20 ? "▒" : "░"
                canvas.glyph(glyph, x0 + columns - cells.count + index, y, Style(foreground: .gradient(.heat, 25 + share * 3 / 4)))
            }
        }
        let axis = inside.row + rows
        guard axis < inside.endRow else { return }
        canvas.text("-" + Format.age(milliseconds: Int64(columns) * 1_000), x0, axis, .ink(.faint))
        canvas.textRight("now", endingAt: x0 + columns, axis, .ink(.faint))
        drawGaps(&canvas, Rect(column: x0, row: axis, columns: columns, rows: 1), secondsPerColumn: 1)
    }

    // MARK: Log

    func drawLogTail(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        var facts = [Span(log.isHeld ? "held · " : "", .warn), Span("level ≥ \(log.level.label) · ", .dim)]
        if !log.filter.isEmpty { facts.append(Span("/\(log.filter.text) · ", .match)) }
        facts.append(Span("0 full view", .faint))
        let inside = canvas.box(rect, .light, title: [Span("Log", .title, .bold), Span(log.node.map { " · \(logName($0))" } ?? " · all nodes", .dim)], right: facts)
        drawLogLines(&canvas, inside, select: false)
    }
}

extension Canvas {
    /// Gives a cell another colour and keeps its text.
    mutating func ink(_ column: Int, _ row: Int, _ slot: Slot) {
        grid.restyle(Rect(column: column, row: row, columns: 1, rows: 1).intersection(clip)) { $0.foreground = .slot(slot) }
    }
}
