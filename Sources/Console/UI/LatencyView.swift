extension Model {
    var latencyLayout: LatencyLayout { latencyLayout(bodyRect) }

    func latencyLayout(_ body: Rect) -> LatencyLayout {
        LatencyLayout(body: body, members: cluster.members.count, focus: panel, hasSlow: !latency.slow.isEmpty || !verdictViolations.isEmpty, isEnlarged: isEnlarged)
    }

    func drawLatencyView(_ canvas: inout Canvas, _ body: Rect) {
        let layout = latencyLayout(body)
        drawHeatMap(&canvas, layout.heat, latency.source, isMain: true)
        drawHeatMap(&canvas, layout.companion, latency.source.companion, isMain: false)
        drawStages(&canvas, layout.stages)
        drawFsync(&canvas, layout.fsync)
        drawLatencyRates(&canvas, layout.rates)
        drawSlow(&canvas, layout.slow)
        drawVerdict(&canvas, layout.verdict)
    }

    private func border(_ panel: Panel) -> Canvas.Border { self.panel == panel ? .heavy : .light }
    // MARK: Time

    /// How seconds fall on the columns of the heat map.
    struct HeatTime: Hashable {
        var columns: Int
        /// Seconds of a column.
        var step: Int64
        /// First second of the newest column.
        var last: Int64
        var isFine: Bool

        func start(_ column: Int) -> Int64 { last - Int64(columns - 1 - column) * step }
        var from: Int64 { start(0) }
        var to: Int64 { last + step }
        /// nil: not on the map.
        func column(of moment: Moment) -> Int? {
            let second = Int64((Double(moment.milliseconds) / 1_000).rounded(.down))
            guard second >= from, second < to else { return nil }
            return Int((second - from) / step)
        }
    }

    func heatTime(columns: Int) -> HeatTime {
        let columns = max(1, columns)
        var step = max(1, (latency.windowSeconds + Int64(columns) - 1) / Int64(columns))
        let isFine = step < LatencySeries.coarseStep && step * Int64(columns) <= LatencySeries.fineSeconds
        if !isFine { step = (step + LatencySeries.coarseStep - 1) / LatencySeries.coarseStep * LatencySeries.coarseStep }
        // A second is told when it is over: the newest column is not empty half of the time.
        let second = now.milliseconds / 1_000
        let keys = heatKeys(latency.source)
        let isHere = keys.contains { latency.series[$0]?.fine.last?.second ?? 0 >= second }
        let newest = isHere ? second : second - 1
        return HeatTime(columns: columns, step: step, last: newest - newest % step, isFine: isFine)
    }

    func heatKeys(_ source: LatencySource) -> [LatencyKey] { latency.keys(source, nodes: latency.node.map { [$0] } ?? cluster.members.map(\.id), now: now) }

    // MARK: Heat map

    /// A row of the heat map: buckets `from..<to` of the histogram.
    struct HeatBand: Hashable {
        var from: Int
        var to: Int
        var label: String
        var isSlow: Bool
    }

    /// Rows from the bottom up: what is below the floor together, then bands of one width, and what is above them all.
    static func heatBands(_ bounds: [Int], rows: Int, floor: Int) -> [HeatBand] {
        guard rows > 1, !bounds.isEmpty else { return [] }
        // Upper bounds of the bands, by their place. Four of our own double the latency, one of etcd's does.
        let isFine = bounds == LatencyHistogram.fineBounds
        let unit = isFine ? 4 : 1, steps = rows - 2
        var first = isFine ? max(0, min(7, (bounds.lastIndex { $0 <= floor } ?? 0) / 4)) * 4 : 0
        // Room to spare beyond four seconds goes below the floor.
        if isFine, steps > 16 - first / 4 { first = max(0, 16 - steps) * 4 }
        let doublings = isFine ? 14 - first / 4 : bounds.count - 1
        var edges = [first]
        if steps >= doublings {
            // A row for each, or for each half.
            let step = isFine && steps >= doublings * 2 ? 2 : unit
            while edges.count < rows - 1, edges.last! + step < bounds.count { edges.append(edges.last! + step) }
        } else {
            // Where rows are few, the rare high ones take more together.
            for step in 0..<steps { edges.append(edges.last! + unit * (doublings / steps + (step >= steps - doublings % steps ? 1 : 0))) }
        }
        var bands: [HeatBand] = []
        var from = 0
        for edge in edges {
            bands.append(HeatBand(from: from, to: edge + 1, label: (bands.isEmpty ? "≤" : "") + edgeText(bounds[edge]), isSlow: bounds[edge] > 130_000))
            from = edge + 1
        }
        bands.append(HeatBand(from: from, to: bounds.count + 1, label: ">" + edgeText(bounds[from - 1]), isSlow: bounds[from - 1] >= 100_000))
        return bands
    }

    /// 62 us, 0.5ms, 16ms, 1s: at most five columns.
    private static func edgeText(_ microseconds: Int) -> String {
        switch microseconds {
        case ..<200: "\(microseconds)us"
        case ..<950: "." + String((microseconds + 5) / 10 % 100 + 1_000).suffix(2) + "ms"
        case ..<3_000: "\(microseconds / 1_000)" + (microseconds % 1_000 < 50 ? "" : ".\(microseconds % 1_000 / 100)") + "ms"
        case ..<950_000: "\((microseconds + 500) / 1_000)ms"
        case ..<10_000_000: "\((microseconds + 50_000) / 1_000_000)" + ((microseconds + 50_000) % 1_000_000 < 100_000 ? "" : ".\((microseconds + 50_000) % 1_000_000 / 100_000)") + "s"
        default: "\(microseconds / 1_000_000)s"
        }
    }

    static let heatLabelWidth = 7

    /// Where the columns of the map are inside the panel.
    static func heatColumns(_ panel: Rect) -> Rect {
        let inside = panel.inset()
        return Rect(column: inside.column + heatLabelWidth + 1, row: inside.row, columns: inside.columns - heatLabelWidth - 2, rows: max(0, inside.rows - 3))
    }

    private func drawHeatMap(_ canvas: inout Canvas, _ rect: Rect, _ source: LatencySource, isMain: Bool) {
        guard !rect.isEmpty else { return }
        var area = Model.heatColumns(rect)
        // Only the chosen one is compared with its baseline.
        if !isMain { area.rows += 1 }
        let time = heatTime(columns: area.columns)
        let keys = heatKeys(source)
        var facts: [Span] = []
        if !source.isWorkload { facts += [Span(latency.node.map(name(of:)) ?? "all nodes", .text), Span(" · ", .faint)] }
        facts.append(Span("1 col = \(Format.age(milliseconds: time.step * 1_000))", .dim))
        let isWide = rect.columns >= 100
        if isWide { facts.append(Span(" · brighter = more", .dim)) }
        let title = [Span(source.title, .title, .bold), Span(isWide ? " heat map" : "", .title, .bold)]
        let inside = canvas.box(rect, isMain ? border(.heat) : .light, title: title, right: facts, footer: isWide ? heatFooter(source, keys) : [])
        guard inside.rows >= 5, area.columns > 8 else { return }
        guard let whole = latency.sum(keys, from: time.from, to: time.to, isFine: time.isFine) else {
            drawHeatInvitation(&canvas, inside, source)
            return
        }
        let bands = Model.heatBands(whole.histogram.boundsMicroseconds, rows: area.rows, floor: whole.histogram.quantile(0.02) ?? 0)
        var cells = [[Int]](repeating: [], count: time.columns)
        var most = 1
        for column in 0..<time.columns {
            guard let sum = latency.sum(keys, from: time.start(column), to: time.start(column) + time.step, isFine: time.isFine) else { continue }
            cells[column] = bands.map { band in sum.histogram.counts[band.from..<band.to].reduce(0, +) }
            most = max(most, cells[column].max() ?? 0)
        }
        for (index, band) in bands.enumerated() {
            let row = area.endRow - 1 - index
            canvas.textRight(band.label, endingAt: area.column - 1, row, .ink(band.isSlow ? .warn : .faint))
            for column in 0..<time.columns where !cells[column].isEmpty && cells[column][index] > 0 {
                let (shade, intensity) = Model.shade(cells[column][index], of: most)
                let ink: Color = band.isSlow ? .gradient(.latency, 55 + intensity * 45 / 100) : .gradient(.heat, 25 + intensity * 75 / 100)
                canvas.glyph(shade, area.column + column, row, Style(foreground: ink))
            }
        }
        if let cursor = latency.cursor, let column = time.column(of: cursor) {
            canvas.background(Rect(column: area.column + column, row: area.row, columns: 1, rows: area.rows), .select)
        }
        drawHeatAxis(&canvas, Rect(column: area.column, row: area.endRow, columns: area.columns, rows: 1), source, time)
        drawPercentiles(&canvas, Rect(column: inside.column + 1, row: area.endRow + 1, columns: inside.columns - 2, rows: 1), source, keys, time, whole)
        if isMain { drawBaseline(&canvas, Rect(column: inside.column + 1, row: area.endRow + 2, columns: inside.columns - 2, rows: 1), whole.histogram) }
    }

    /// Four shades; the scale is logarithmic, so that a single slow request is seen beside thousands of quick ones.
    private static func shade(_ count: Int, of most: Int) -> (Unicode.Scalar, intensity: Int) {
        // Bits stand in for the logarithm: the same on every machine.
        func log(_ value: Int) -> Int { (Int.bitWidth - 1 - value.leadingZeroBitCount) * 16 + ((value << 4) >> (Int.bitWidth - 1 - value.leadingZeroBitCount)) - 16 }
        let intensity = most <= 1 ? 100 : min(100, log(count) * 100 / max(1, log(most)))
        return (intensity < 35 ? "░" : intensity < 62 ? "▒" : intensity < 88 ? "▓" : "█", intensity)
    }

    private func heatFooter(_ source: LatencySource, _ keys: [LatencyKey]) -> [Span] {
        guard !source.isWorkload, keys.contains(where: { if case .scraped = $0.what { latency.series[$0] != nil } else { false } }),
              let bounds = keys.lazy.compactMap({ latency.series[$0]?.coarse.last?.histogram.bounds }).first, bounds != LatencyHistogram.fineBounds,
              let low = bounds.first, let next = bounds.dropFirst().first, let high = bounds.last else { return [] }
        return [Span("exact for the server's own edges: \(Model.edgeText(low)), \(Model.edgeText(next)) … \(Model.edgeText(high))", .dim)]
    }

    private func drawHeatInvitation(_ canvas: inout Canvas, _ inside: Rect, _ source: LatencySource) {
        let lines: [[Span]]
        if source.isWorkload {
            let settings = workload.settings
            if workload.isOn || workload.isSwitching {
                lines = [[Span("waiting for the first second of the workload…", .dim)]]
            } else if mode == .readOnly {
                lines = [[Span("a workload of puts and gets would be drawn here", .dim)], [Span(obstacle(to: .workload, changes: true) ?? "", .faint)], [],
                         [Span("m", .key, .bold), Span("  what the nodes themselves tell", .text)]]
            } else {
                lines = [[Span("W", .key, .bold), Span("  starts the workload: ", .text), Span("\(Format.count(settings.putsPerSecond)) puts and \(Format.count(settings.readsPerSecond)) gets a second", .text, .bold)],
                         [Span("e", .key, .bold), Span("  other rates, keys, sizes, targets", .text)], [Span("m", .key, .bold), Span("  what the nodes themselves tell", .text)], [],
                         [Span("every answer is checked: nothing acknowledged may get lost", .dim)]]
            }
        } else {
            lines = [[Span(metricsReason ?? "waiting for figures of the nodes…", .dim)]]
        }
        let shown = lines.prefix(inside.rows)
        let width = min(inside.columns - 2, shown.map(\.cellWidth).max() ?? 0)
        for (index, line) in shown.enumerated() {
            canvas.spans(line, inside.column + (inside.columns - width) / 2, inside.row + max(0, (inside.rows - shown.count) / 2) + index, width: width)
        }
    }

    /// Why `/metrics` gives nothing; nil: it does, or nobody has waited long enough to say.
    var metricsReason: String? {
        let heard = cluster.members.count { member in latency.scrapedAt[member.id].map { now - $0 < 5_000 } ?? false }
        if heard > 0 { return nil }
        guard let since = latency.scrapingSince, now - since > 4_000 else { return nil }
        return cluster.connection == .connected ? "— no member answers /metrics here (it is asked without TLS only)" : connectionText
    }

    /// Ages, and what happened when.
    private func drawHeatAxis(_ canvas: inout Canvas, _ rect: Rect, _ source: LatencySource, _ time: HeatTime) {
        let left = "-" + Format.age(milliseconds: (time.to - time.from) * 1_000)
        canvas.text(left, rect.column, rect.row, .ink(.faint))
        canvas.textRight("now", endingAt: rect.endColumn, rect.row, .ink(.faint))
        for column in 0..<time.columns where latency.failed(from: time.start(column), to: time.start(column) + time.step) > 0 && source.isWorkload {
            canvas.glyph("✕", rect.column + column, rect.row, .ink(.bad))
        }
        // Every mark has its glyph; labels go where there is room, what explains most first, the newest first.
        let marks = latencyMarks(from: time.from).reversed().compactMap { mark in time.column(of: mark.at).map { (mark, rect.column + $0) } }
        var isFree = (0..<rect.endColumn).map { $0 >= rect.column + left.cellWidth && $0 < rect.endColumn - 4 }
        for (mark, column) in marks {
            canvas.glyph(mark.glyph, column, rect.row, .ink(mark.slot, .bold))
            isFree[column] = false
        }
        for rank in 0...2 {
            for (mark, column) in marks where mark.rank == rank {
                let width = mark.label.cellWidth + 2
                let places = [column + 1..<column + 1 + width, column - width..<column]
                guard let place = places.first(where: { range in range.lowerBound >= 0 && range.upperBound <= isFree.count && range.allSatisfy { isFree[$0] } }) else { continue }
                canvas.text(mark.label, place.lowerBound + 1, rect.row, .ink(.dim))
                for column in place { isFree[column] = false }
            }
        }
    }

    struct LatencyMark: Hashable {
        var at: Moment
        var glyph: Unicode.Scalar
        var slot: Slot
        var label: String
        /// Smaller ones are labelled first.
        var rank: Int
    }

    /// Faults and elections since `from`, oldest first.
    func latencyMarks(from: Int64) -> [LatencyMark] {
        let start = Moment(milliseconds: from * 1_000)
        var marks: [LatencyMark] = []
        for span in latency.faults {
            if span.fault.since >= start { marks.append(LatencyMark(at: span.fault.since, glyph: "▲", slot: .warn, label: faultLine(span.fault.fault), rank: 0)) }
            if let until = span.until, until >= start { marks.append(LatencyMark(at: until, glyph: "▽", slot: .ok, label: "healed", rank: 2)) }
        }
        for event in events where event.at >= start {
            switch event.kind {
            case .elected(let leader, let previous, _, _, let gap, _) where previous != nil:
                marks.append(LatencyMark(at: event.at, glyph: "↑", slot: .leader, label: "♛ \(leader)" + (gap.map { " after \(Format.span(milliseconds: $0))" } ?? ""), rank: 0))
            case .memberDown(let member, _, _, _): marks.append(LatencyMark(at: event.at, glyph: "✕", slot: .down, label: "\(member) down", rank: 1))
            default: break
            }
        }
        return marks.sorted { ($0.at, $0.label) < ($1.at, $1.label) }
    }

    private func drawPercentiles(_ canvas: inout Canvas, _ rect: Rect, _ source: LatencySource, _ keys: [LatencyKey], _ time: HeatTime, _ whole: (histogram: LatencyHistogram, maximum: Int?)) {
        var spans: [Span] = []
        var shown: (histogram: LatencyHistogram, maximum: Int?)? = whole
        var from = time.from, to = time.to
        if let cursor = latency.cursor, let column = time.column(of: cursor) {
            (from, to) = (time.start(column), time.start(column) + time.step)
            shown = latency.sum(keys, from: from, to: to, isFine: time.isFine)
            spans = [Span(Format.clock(Moment(milliseconds: from * 1_000), zone: timeZoneOffsetSeconds), .accent, .bold), Span("  ", .dim)]
        }
        let failed = source.isWorkload ? latency.failed(from: from, to: to) : 0
        // A bucket's upper bound is all that is known of what is in it.
        let isRough = whole.histogram.boundsMicroseconds != LatencyHistogram.fineBounds
        for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            // The bucket's upper bound, but never more than the largest.
            let value = shown?.histogram.quantile(share).map { min($0, shown?.maximum ?? $0) }
            spans += [Span("\(label) ", .dim), value.map { Span((isRough ? "≤" : "") + Format.milliseconds($0), Style.latency($0)) } ?? Span("—", .faint), Span("  ", .dim)]
        }
        if let maximum = shown?.maximum { spans += [Span("max ", .dim), Span(Format.milliseconds(maximum), Style.latency(maximum)), Span("  ", .dim)] }
        spans += [Span("n ", .dim), Span(Format.count(shown?.histogram.total ?? 0), .text)]
        if source.isWorkload { spans += [Span("  errors ", .dim), Span(Format.count(failed), failed > 0 ? .bad : .text)] }
        spans.append(Span("  ms", .faint))
        canvas.spans(spans, rect.column, rect.row, width: rect.columns)
    }

    private func drawBaseline(_ canvas: inout Canvas, _ rect: Rect, _ histogram: LatencyHistogram) {
        guard let baseline = latency.baseline, baseline.source == latency.source, baseline.node == latency.node else {
            canvas.spans([Span("b", .key, .bold), Span(" marks this as the baseline to compare with", .faint)], rect.column, rect.row, width: rect.columns)
            return
        }
        var spans = [Span("against \(Format.clock(baseline.at, zone: timeZoneOffsetSeconds))  ", .dim)]
        for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            guard let now = histogram.quantile(share), let then = baseline.histogram.quantile(share) else { continue }
            let change = now - then
            let text = change == 0 ? "±0" : (change > 0 ? "+" : "−") + Format.milliseconds(abs(change))
            // A fifth and half a millisecond: below that it is noise.
            let slot: Slot = abs(change) * 5 < then || abs(change) < 500 ? .text : change > 0 ? .bad : .ok
            spans += [Span("\(label) ", .dim), Span(text, slot), Span("  ", .dim)]
        }
        spans += [Span("b", .key, .bold), Span(" anew  ", .faint), Span("c", .key, .bold), Span(" clears", .faint)]
        canvas.spans(spans, rect.column, rect.row, width: rect.columns)
    }

    // MARK: By stage

    /// The node whose stages are shown: the chosen one, else the leader.
    var stageNode: MemberState? { latency.node.flatMap { id in cluster.members.first { $0.id == id } } ?? cluster.leader ?? cluster.members.first }

    /// The minute that the tables are about: the last one, or the one that ends where the cursor is.
    private var tableSpan: (from: Int64, to: Int64) {
        let end = (latency.cursor ?? now).milliseconds / 1_000 + 1
        return (end - 60, end)
    }

    private func drawStages(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let node = stageNode
        var facts: [Span] = []
        if let node {
            let role = Model.roleText(RoleLanes.state(of: node))
            facts = [Span("\(role.glyph) ", role.slot), Span(node.name, .text)]
            if rect.columns >= 44 { facts.append(Span(" · 60s", .dim)) }
        }
        let inside = canvas.box(rect, border(.stages), title: [Span(rect.columns >= 36 ? "By stage, ms" : "Stages, ms", .title, .bold)], right: facts)
        guard inside.rows > 1 else { return }
        guard let node else { return drawPlaceholder(&canvas, inside, connectionText) }
        struct Line { var title: String; var p50: Int?; var p99: Int?; var isRough: Bool; var needsUs: Bool }
        let (from, to) = tableSpan
        var lines: [Line] = StageLatency.Stage.allCases.map { stage in
            var sum = latency.sum([LatencyKey(what: .stage(stage), node: node.id)], from: from, to: to, isFine: true)
            var isRough = false
            if sum == nil, stage == .logWrite || stage == .backendCommit {
                sum = latency.sum([LatencyKey(what: .scraped(stage == .logWrite ? .walFsync : .backendCommit), node: node.id)], from: from, to: to, isFine: true)
                isRough = sum != nil
            }
            return Line(title: stage.title, p50: sum?.histogram.quantile(0.5), p99: sum?.histogram.quantile(0.99), isRough: isRough, needsUs: stage != .logWrite && stage != .backendCommit)
        }
        let trips = latency.keys(.peerRoundTrip, nodes: [node.id], now: now)
        if let sum = latency.sum(trips, from: from, to: to, isFine: true) {
            lines.append(Line(title: "peer rtt", p50: sum.histogram.quantile(0.5), p99: sum.histogram.quantile(0.99), isRough: trips[0].what != .peers, needsUs: false))
        }
        let isOurs = latency.series.keys.contains { if case .stage = $0.what { true } else { false } }
        let top = max(1_000, lines.compactMap(\.p99).max() ?? 0)
        let barColumn = inside.column + 31
        canvas.text("STAGE", inside.column + 1, inside.row, .ink(.faint))
        canvas.textRight("P50", endingAt: inside.column + 22, inside.row, .ink(.faint))
        canvas.textRight("P99", endingAt: inside.column + 29, inside.row, .ink(.faint))
        for (index, line) in lines.enumerated() where inside.row + 1 + index < inside.endRow {
            let row = inside.row + 1 + index
            canvas.text(line.title, inside.column + 1, row, .ink(line.p99 == nil ? .dim : .text))
            if line.p99 == nil, line.needsUs, !isOurs, cluster.kind == .attached { canvas.text("◊", inside.column + 2 + line.title.cellWidth, row, .ink(.faint)) }
            for (value, end) in [(line.p50, 22), (line.p99, 29)] {
                canvas.textRight(value.map { (line.isRough ? "≤" : "") + Format.milliseconds($0) } ?? "—", endingAt: inside.column + end, row, value.map { Style.latency($0) } ?? .ink(.faint))
            }
            if let p99 = line.p99 { canvas.bar(p99, of: top, barColumn, row, width: inside.endColumn - 1 - barColumn, Style(foreground: .gradient(.latency, min(100, p99 / 400)))) }
        }
        var row = inside.row + 2 + lines.count
        var remarks: [[Span]] = []
        if let worst = nodeP99(.walFsync).max(by: { $0.p99 < $1.p99 }), cluster.members.count > 1 {
            remarks.append([Span("slowest disk: ", .dim), Span(name(of: worst.node), .text), Span("  wal fsync p99 ", .dim), Span(Format.milliseconds(worst.p99), Style.latency(worst.p99))])
        }
        if !isOurs, cluster.kind == .attached { remarks.append([Span("◊ told by our own server only", .faint)]) }
        if row + remarks.count > inside.endRow { row -= 1 }
        for remark in remarks where row < inside.endRow {
            canvas.spans(remark, inside.column + 1, row, width: inside.columns - 2)
            row += 1
        }
    }

    /// The figure of each node that has one, over the minute of the tables.
    private func nodeP99(_ source: LatencySource) -> [(node: UInt64, p99: Int)] {
        let (from, to) = tableSpan
        return cluster.members.compactMap { member in
            latency.sum(latency.keys(source, nodes: [member.id], now: now), from: from, to: to, isFine: true)?.histogram.quantile(0.99).map { (member.id, $0) }
        }
    }

    // MARK: Disk by node

    private func drawFsync(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let isWide = rect.columns >= 52
        let inside = canvas.box(rect, border(.fsync), title: [Span(isWide ? "WAL fsync and backend commit, p99 ms" : "Disk p99 ms", .title, .bold)], right: [Span("fsync limit 10", .dim)])
        guard inside.rows > 1 else { return }
        if cluster.members.isEmpty { return drawPlaceholder(&canvas, inside, connectionText) }
        let nameWidth = min(10, max(4, cluster.members.map(\.name.cellWidth).max() ?? 2))
        // NODE fsync-spark value | commit-spark value
        let room = inside.columns - 2 - nameWidth - 1
        let hasCommitSpark = room >= 44
        let spark = max(0, hasCommitSpark ? (room - 18) / 2 : room - 17)
        let fsyncEnd = inside.column + 1 + nameWidth + 1 + spark + 8
        let commitEnd = inside.endColumn - 1
        canvas.text("NODE", inside.column + 1, inside.row, .ink(.faint))
        canvas.textRight("FSYNC", endingAt: fsyncEnd, inside.row, .ink(.faint))
        canvas.textRight("COMMIT", endingAt: commitEnd, inside.row, .ink(.faint))
        let end = (latency.cursor ?? now).milliseconds / 1_000
        // All nodes on one scale: fsync up to its limit, commits up to the slowest.
        let commitTop = max(LatencyState.fsyncLimitMicroseconds, cluster.members.compactMap { member in perSecondP99(latency.keys(.backendCommit, nodes: [member.id], now: now)[0], until: end, count: 60).compactMap { $0 }.max() }.max() ?? 0)
        var over: [(name: String, count: Int)] = []
        let remarkRows = inside.rows - 1 > cluster.members.count ? 1 : 0
        for (index, member) in cluster.members.enumerated() {
            let row = inside.row + 1 + index
            let fsync = latency.keys(.walFsync, nodes: [member.id], now: now), commit = latency.keys(.backendCommit, nodes: [member.id], now: now)
            let high = latency.series[fsync[0]]?.slots(end - 300, end + 1, isFine: true).count { $0.histogram.quantile(0.99) ?? 0 > LatencyState.fsyncLimitMicroseconds } ?? 0
            if high > 0 { over.append((member.name, high)) }
            guard row < inside.endRow - remarkRows + (cluster.members.count <= inside.rows - 1 - remarkRows ? 0 : remarkRows) else { continue }
            let isChosen = latency.node == member.id
            canvas.text(Format.fitted(member.name, nameWidth), inside.column + 1, row, .ink(isChosen ? .accent : .text, member.role == .leader || isChosen ? .bold : []))
            func figure(_ keys: [LatencyKey], _ column: Int, _ width: Int, _ valueEnd: Int, limit: Int?, _ slot: Slot) {
                let values = perSecondP99(keys[0], until: end, count: width)
                let top = limit ?? commitTop
                if width > 3 { canvas.sparkline(values.map { $0.map { min($0, top) } }, column, row, width: width, maximum: top) { value in limit.map { value >= $0 } ?? false ? .slot(.warn) : .slot(slot) } }
                let last = values.suffix(5).compactMap { $0 }.last
                let isRough = keys[0].what == .scraped(.walFsync) || keys[0].what == .scraped(.backendCommit)
                canvas.textRight(last.map { (isRough ? "≤" : "") + Format.milliseconds($0) } ?? "—", endingAt: valueEnd, row,
                                 last.map { $0 > limit ?? .max ? .ink(.bad, .bold) : Style.latency($0) } ?? .ink(.faint))
            }
            figure(fsync, inside.column + 2 + nameWidth, spark, fsyncEnd, limit: LatencyState.fsyncLimitMicroseconds, .series1)
            figure(commit, fsyncEnd + 2, hasCommitSpark ? commitEnd - 8 - fsyncEnd - 2 : 0, commitEnd, limit: nil, .series2)
        }
        let row = inside.row + 1 + cluster.members.count
        guard row < inside.endRow else { return }
        if over.isEmpty {
            if let reason = metricsReason, nodeP99(.walFsync).isEmpty { canvas.text(reason, inside.column + 1, row, width: inside.columns - 2, .ink(.faint)) }
        } else {
            let text = over.map { "\($0.name) \($0.count)×" }.joined(separator: ", ")
            canvas.text(inside.columns > 44 ? "over the limit in 5 min: \(text)" : "over 10ms: \(text)", inside.column + 1, row, width: inside.columns - 2, .ink(.warn))
        }
    }

    /// The 99th percentile of each of the last seconds, newest last; nil where nothing was told.
    private func perSecondP99(_ key: LatencyKey, until end: Int64, count: Int) -> [Int?] {
        guard count > 0 else {
            return [latency.series[key]?.slots(end - 5, end + 1, isFine: true).last?.histogram.quantile(0.99)]
        }
        var values = [Int?](repeating: nil, count: count)
        for slot in latency.series[key]?.slots(end - Int64(count) + 1, end + 1, isFine: true) ?? [] { values[count - 1 - Int(end - slot.second)] = slot.histogram.quantile(0.99) }
        return values
    }

    // MARK: Rates

    private func drawLatencyRates(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let inside = canvas.box(rect, border(.rates), title: [Span("Rates", .title, .bold)], right: [Span("per second", .dim)])
        guard inside.rows > 1 else { return }
        let end = now.milliseconds / 1_000 - 1
        func last(_ value: (LatencyRates) -> Int?) -> [Int?] { (0..<60).map { second in latency.rates[end - 59 + Int64(second)].flatMap(value) } }
        let revisions = Array(rates.perSecond.suffix(60))
        var rows: [(title: String, values: [Int?], slot: Slot, isTotal: Bool)] = [
            ("revisions", revisions, .series1, false), ("puts", last(\.puts), .series1, false), ("gets", last(\.gets), .series1, false),
            ("failed", last(\.failed), .bad, true), ("retried", last(\.retried), .warn, true),
            ("proposals", last(\.proposals), .series2, false), ("pending", last(\.pending), .series2, false),
            ("slow applies", last(\.slowApplies), .warn, true), ("leader changes", last(\.leaderChanges), .warn, true),
        ]
        let told = rows.filter { $0.values.contains { $0 != nil } }
        if told.count >= inside.rows - 1 { rows = told }
        let titleWidth = 14, sparkColumn = inside.column + titleWidth + 19
        canvas.textRight("NOW", endingAt: inside.column + titleWidth + 8, inside.row, .ink(.faint))
        canvas.textRight("1 MIN", endingAt: inside.column + titleWidth + 17, inside.row, .ink(.faint))
        if inside.endColumn - 1 - sparkColumn > 5 { canvas.text("60s", sparkColumn, inside.row, .ink(.faint)) }
        for (index, line) in rows.enumerated() where inside.row + 1 + index < inside.endRow {
            let row = inside.row + 1 + index
            let known = line.values.compactMap { $0 }
            canvas.text(line.title, inside.column + 1, row, .ink(known.isEmpty ? .dim : .text))
            let sum = known.reduce(0, +)
            // Events are counted, rates are averaged.
            let minute = known.isEmpty ? nil : line.isTotal ? sum : sum / known.count
            let newest = line.values.suffix(3).compactMap { $0 }.last
            let isBad = line.isTotal && sum > 0
            canvas.textRight(newest.map { Format.count($0) } ?? "—", endingAt: inside.column + titleWidth + 8, row, .ink(newest == nil ? .faint : line.isTotal && newest! > 0 ? line.slot : .text))
            canvas.textRight(minute.map { Format.count($0) + (line.isTotal ? "×" : "") } ?? "—", endingAt: inside.column + titleWidth + 17, row, .ink(minute == nil ? .faint : isBad ? line.slot : .dim))
            let width = min(60, inside.endColumn - 1 - sparkColumn)
            if width > 5, !line.isTotal || sum > 0 { canvas.sparkline(line.values, sparkColumn, row, width: width, maximum: max(4, (known.max() ?? 0) * 4 / 3)) { _ in .slot(line.slot) } }
        }
    }

    // MARK: Slow requests

    /// Rows of the list: violations of consistency, which matter most, then slow requests, newest first.
    enum SlowRow: Hashable {
        case violation(String)
        case request(LatencyState.Slow)
    }

    var verdictViolations: [String] { workload.last?.verdict.violations ?? [] }

    var slowRows: [SlowRow] {
        let word = latency.filter.text.lowercased()
        return verdictViolations.map { SlowRow.violation($0) } + latency.slow.reversed().filter { slow in
            word.isEmpty || "\(slow.request.operation) \(slow.request.key) \(slowReason(slow)) \(slow.request.error ?? "")".lowercased().contains(word)
        }.map { SlowRow.request($0) }
    }

    var slowVisibleRows: Int { max(1, latencyLayout.slow.rows - 3) }

    private func drawSlow(_ canvas: inout Canvas, _ rect: Rect) {
        guard !rect.isEmpty else { return }
        let rows = slowRows
        var facts: [Span] = [Span("over 100 ms, or failed", .dim)]
        if !rows.isEmpty { facts.append(Span(" · \(Format.count(rows.count))", .text)) }
        let inside = canvas.box(rect, border(.slow), title: [Span("Slow requests", .title, .bold)], right: facts, footer: panel == .slow && !rows.isEmpty ? [Span("↵", .key, .bold), Span(" key  ", .dim), Span("/", .key, .bold), Span(" filter", .dim)] : [])
        guard inside.rows > 0 else { return }
        var area = inside
        if latency.isFiltering || !latency.filter.isEmpty {
            let line = area.takeBottom(1)
            canvas.text("filter: ", line.column + 1, line.row, .ink(.faint))
            if latency.isFiltering, overlay == nil { canvas.field(latency.filter, line.column + 9, line.row, width: line.columns - 11) } else { canvas.text(latency.filter.text, line.column + 9, line.row, width: line.columns - 11, .ink(.match)) }
        }
        if rows.isEmpty {
            let text = !latency.filter.isEmpty ? "none matches the filter" : workload.samples.isEmpty ? "the workload's slow and failed requests come here, each with its reason" : "none so far: every request took less than 100 ms"
            return drawPlaceholder(&canvas, area, text, .faint)
        }
        let columns = TableColumn.fit([
            TableColumn(0, "TIME", 12, priority: 1), TableColumn(1, "TOOK", 8, right: true, priority: 0), TableColumn(2, "OP", 3, priority: 2),
            TableColumn(3, "KEY", min(34, max(14, area.columns / 5)), priority: 4), TableColumn(4, "WHY", 18, priority: 0, flexible: true),
        ], room: area.columns - 2)
        let head = area.takeTop(1)
        var x = head.column + 1
        for column in columns {
            canvas.text(column.isRight ? column.title.leftPadded(column.width) : column.title, x, head.row, .ink(.faint))
            x += column.width + 1
        }
        let first = max(0, min(latency.slowSelection - area.rows + 1, rows.count - area.rows))
        for line in 0..<area.rows where first + line < rows.count {
            let y = area.row + line
            switch rows[first + line] {
            case .violation(let text):
                canvas.spans([Span("✕ ", .bad, .bold), Span(text, .bad)], area.column + 1, y, width: area.columns - 2)
            case .request(let slow):
                x = area.column + 1
                for column in columns {
                    switch column.id {
                    case 0: canvas.text(Format.clock(slow.request.at, zone: timeZoneOffsetSeconds) + "." + Format.pad(Int(slow.request.at.milliseconds % 1_000), 3), x, y, .ink(.faint))
                    case 1: canvas.textRight(Format.count(slow.request.tookMicroseconds / 1_000) + "ms", endingAt: x + column.width, y, slow.request.error == nil ? Style.latency(slow.request.tookMicroseconds) : .ink(.bad))
                    case 2: canvas.text(slow.request.operation, x, y, .ink(.text))
                    case 3: canvas.text(Format.fittedTail(slow.request.key, column.width), x, y, .ink(.dim))
                    default:
                        let why = slowReason(slow)
                        var spans = [Span(why, why == "unknown" ? .faint : .text)]
                        if let error = slow.request.error { spans += [Span(" · ", .faint), Span(error, .bad)] }
                        canvas.spans(spans, x, y, width: column.width)
                    }
                    x += column.width + 1
                }
            }
            if first + line == latency.slowSelection, panel == .slow {
                canvas.background(Rect(column: area.column, row: y, columns: area.columns, rows: 1), .select)
                canvas.text("▸", area.column, y, .ink(.accent).on(.select))
            }
        }
        canvas.scrollMark(rect, offset: first, visible: area.rows, total: rows.count, focused: panel == .slow)
    }

    /// What overlaps a slow request in time and explains it; "unknown" when nothing does.
    func slowReason(_ slow: LatencyState.Slow) -> String {
        let start = slow.request.at.advanced(byMilliseconds: -50), end = slow.request.at.advanced(byMilliseconds: Int64(slow.request.tookMicroseconds / 1_000) + 50)
        // Nobody led, or somebody who could not commit.
        for event in events.reversed() where event.at >= start {
            guard case .elected(let leader, let previous, _, let term, let gap, _) = event.kind, previous != nil || gap != nil else { continue }
            if event.at.advanced(byMilliseconds: -(gap ?? 0)) <= end { return "no leader (\(leader) elected, term \(term))" }
        }
        if let lost = events.last(where: { if case .leaderLost = $0.kind { true } else { false } }), lost.at <= end,
           !events.contains(where: { event in if case .elected = event.kind { event.at > lost.at && event.at <= start } else { false } }) { return "no leader" }
        let faults = latency.faults.filter { span in span.fault.since <= end && (span.until ?? now) >= start && !isHarmless(span.fault.fault) }.map(\.fault.fault)
        // A disk that was made slow is named once.
        let slowed = faults.compactMap { if case .disk(let node, _) = $0 { node } else { nil } }
        // The disks of those seconds: what is over the limit, worst first.
        let from = start.milliseconds / 1_000, to = end.milliseconds / 1_000 + 2
        let disks = cluster.members.filter { !slowed.contains($0.id) }.compactMap { member -> (text: String, p99: Int)? in
            guard let sum = latency.sum(latency.keys(.walFsync, nodes: [member.id], now: now), from: from, to: to, isFine: true)?.histogram,
                  let p99 = sum.quantile(0.99), p99 > LatencyState.fsyncLimitMicroseconds else { return nil }
            return ("\(member.name) fsync \(sum.boundsMicroseconds == LatencyHistogram.fineBounds ? "" : "≤")\(Format.milliseconds(p99))ms", p99)
        }.sorted { $0.p99 > $1.p99 }
        var parts = faults.prefix(2).map(faultLine)
        parts += disks.prefix(2).map(\.text)
        if slow.request.operation == "put", slow.valueBytes >= 65_536 { parts.append("large value (\(Format.bytes(slow.valueBytes)))") }
        if !parts.isEmpty { return parts.joined(separator: ", ") }
        if let error = slow.request.error, error.hasPrefix("not sent") { return "all clients were busy" }
        if let down = cluster.members.first(where: { member in if case .down(let since, _) = member.health { since >= start && since <= end } else { false } }) { return "\(down.name) went down" }
        return "unknown"
    }

    /// A clock that is bent slows nothing by itself.
    private func isHarmless(_ fault: Fault) -> Bool { if case .clock = fault { true } else { false } }

    // MARK: Verdict

    private func drawVerdict(_ canvas: inout Canvas, _ rect: Rect) {
        let keys: [Span] = [Span("W", .key, .bold), Span(workload.isOn ? " stops  " : " starts  ", .faint), Span("e", .key, .bold), Span(" settings", .faint)]
        guard let spans = verdictSpans(width: rect.columns - 2) else {
            var spans = [Span("workload: ", .dim), Span(workload.settings.summary, .text), Span("   ", .dim)]
            if (spans + keys).cellWidth < rect.columns - 2 { spans += keys }
            canvas.spans(spans, rect.column + 1, rect.row, width: rect.columns - 2)
            return
        }
        let used = canvas.spans(spans, rect.column + 1, rect.row, width: rect.columns - 2)
        if used + keys.cellWidth + 4 < rect.columns { canvas.spans(keys, rect.endColumn - 1 - keys.cellWidth, rect.row) }
    }

    /// What the workload's check says so far, or said at its end; nil when no workload has run. For any view.
    func verdictSpans(width: Int) -> [Span]? {
        guard let last = workload.last else { return nil }
        let verdict = last.verdict
        if let newest = verdict.violations.last {
            return [Span("✕ \(Format.plural(Int64(verdict.violations.count), "violation")): ", .bad, .bold), Span(newest, .bad)]
        }
        // From all there is to say to what must be said.
        for isShort in [false, true] {
            let writes = isShort ? "writes" : "acknowledged writes"
            var spans: [Span]
            if verdict.confirmedWrites >= verdict.acknowledgedWrites {
                spans = [Span("✓ ", .ok, .bold), Span("\(Format.count(verdict.acknowledgedWrites)) acknowledged writes readable", .text)]
            } else {
                spans = [Span("✓ ", .ok, .bold), Span("\(Format.count(verdict.confirmedWrites)) of \(Format.count(verdict.acknowledgedWrites)) \(writes) read back", .text)]
                if last.isFinal { spans[0] = Span("? ", .warn, .bold) }
            }
            let isLinearizable = last.settings.consistency == .linearizable
            spans.append(Span(" · " + (isShort ? "" : "per-key ") + (isLinearizable ? "history linearizable" : "history sound") + (last.isFinal || isShort ? "" : " so far"), .text))
            if verdict.unknownWrites > 0 { spans.append(Span(" · \(Format.count(verdict.unknownWrites)) \(isShort ? "unanswered" : "without an answer")", .warn)) }
            if !workload.isOn { spans.append(Span(last.isFinal ? " · ended" : " · reading everything back…", .dim)) }
            if spans.cellWidth <= width || isShort { return spans }
        }
        return nil
    }
}

extension WorkloadSettings {
    /// In a few words: `50 put/s 50 get/s · 8 clients · 128 B · 64 keys uniform`.
    var summary: String {
        var text = "\(Format.count(putsPerSecond)) put/s \(Format.count(readsPerSecond)) get/s · \(Format.plural(Int64(clients), "client")) · \(Format.bytes(valueBytes)) · \(Format.plural(Int64(keyCount), "key"))"
        if distribution != .uniform { text += " \(distribution.rawValue)" }
        if consistency != .linearizable { text += " · \(consistency.rawValue)" }
        if target != .all { text += " · leader" }
        if pace != .open { text += " · closed loop" }
        return text
    }
}
