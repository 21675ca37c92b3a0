/// What only a replay does.
enum ReplayVerb: Hashable, Sendable {
    case playPause, back, forward, backMinute, forwardMinute, slower, faster, previousElection, nextElection
}

extension Catalogue {
    static let replayEntries: [CatalogueEntry] = {
        var list: [CatalogueEntry] = []
        func add(_ verb: ReplayVerb, _ name: String, _ keys: [KeyPress], hint: String?, _ help: String, rank: Int) {
            list.append(CatalogueEntry(verb: .replay(verb), name: name, context: .replay, keys: keys, hint: hint, help: help, rank: rank, changes: false, section: .look))
        }
        add(.playPause, "replay-pause", [KeyPress(" ")], hint: "play/pause", "let the recording run, or hold it", rank: 1)
        add(.back, "replay-back", [KeyPress(.left)], hint: "→ scrub", "five seconds back in the recording", rank: 2)
        add(.forward, "replay-forward", [KeyPress(.right)], hint: nil, "five seconds on in the recording", rank: 2)
        add(.backMinute, "replay-back-minute", [KeyPress("[")], hint: nil, "a minute back in the recording", rank: 8)
        add(.forwardMinute, "replay-forward-minute", [KeyPress("]")], hint: nil, "a minute on in the recording", rank: 8)
        add(.slower, "replay-slower", [KeyPress(",")], hint: ". speed", "play the recording slower", rank: 3)
        add(.faster, "replay-faster", [KeyPress(".")], hint: nil, "play the recording faster", rank: 3)
        add(.previousElection, "replay-election-before", [KeyPress("{")], hint: "} election", "to the election before, in the whole recording", rank: 4)
        add(.nextElection, "replay-election-after", [KeyPress("}")], hint: nil, "to the next election in the recording", rank: 4)
        return list
    }()
}

extension Model {
    private static let speeds = [0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 100]
    /// What is shown before an election when jumping to it.
    private static let leadMilliseconds: Int64 = 1_000

    func obstacle(to verb: ReplayVerb) -> String? {
        guard let replay else { return "only while a recording is replayed" }
        switch verb {
        case .previousElection: return replay.elections.contains { $0 < replay.start.advanced(byMilliseconds: now - replay.start) } ? nil : "no election before this"
        case .nextElection: return replay.elections.contains { $0.advanced(byMilliseconds: -Model.leadMilliseconds) > now } ? nil : "no election after this"
        default: return nil
        }
    }

    mutating func performInReplay(_ verb: ReplayVerb, _ commands: inout [Command]) {
        guard let replay else { return }
        let here = replayTarget ?? now
        func seek(_ moment: Moment) {
            let target = min(max(moment, replay.start), replay.end)
            replayTarget = target
            commands.append(.replay(.seek(target)))
        }
        switch verb {
        case .playPause:
            // At its end it begins again.
            if !replay.isPlaying, here >= replay.end { seek(replay.start) }
            commands.append(.replay(replay.isPlaying ? .pause : .play))
        case .back: seek(here.advanced(byMilliseconds: -5_000))
        case .forward: seek(here.advanced(byMilliseconds: 5_000))
        case .backMinute: seek(here.advanced(byMilliseconds: -60_000))
        case .forwardMinute: seek(here.advanced(byMilliseconds: 60_000))
        case .slower: if let speed = Model.speeds.last(where: { $0 < replay.speed }) { commands.append(.replay(.speed(speed))) }
        case .faster: if let speed = Model.speeds.first(where: { $0 > replay.speed }) { commands.append(.replay(.speed(speed))) }
        case .previousElection:
            // The one whose beginning is on the screen already does not count as before.
            if let mark = replay.elections.last(where: { here - $0 > 500 }) { seek(mark.advanced(byMilliseconds: -Model.leadMilliseconds)) }
        case .nextElection:
            if let mark = replay.elections.first(where: { $0.advanced(byMilliseconds: -Model.leadMilliseconds) > here }) { seek(mark.advanced(byMilliseconds: -Model.leadMilliseconds)) }
        }
    }

    /// Hears a stretch of a recording, everything at its own time, so that the model is what it was then.
    mutating func receive(_ playback: Playback, _ commands: inout [Command]) {
        if let header = playback.restart { forgetData(header) }
        for recorded in playback.events {
            if recorded.at > now {
                now = recorded.at
                elections.clock = now.microseconds
                advance(&commands)
            }
            receive(recorded.event, &commands)
            advance(&commands)
        }
        if let until = playback.until, until > now {
            now = until
            elections.clock = now.microseconds
        }
        if let target = replayTarget, now >= target || playback.restart != nil { replayTarget = nil }
    }

    /// Everything heard is forgotten; where the person is stays.
    private mutating func forgetData(_ header: RecordingHeader) {
        now = header.start
        cluster = header.cluster
        hasClusterData = false
        clusterHeardAt = nil
        events = []
        rates = RateSeries()
        workload = WorkloadSeries()
        leases = []
        samples = [:]
        faults = []
        faultSupport = FaultSupport()
        isCanaryOn = false
        scenario = nil
        overview.eventScroll = 0
        elections.forgetData()
        latency = LatencyState()
        log = LogState()
        elections.observe(cluster, at: now)
    }

    // MARK: Drawing

    /// Where the bar of the replay is, inside its row.
    func replayBar(_ rect: Rect) -> Rect { Rect(column: rect.column + 11, row: rect.row, columns: max(10, min(rect.columns - 24, rect.columns / 2)), rows: 1) }

    /// The recording as a line: how far it is, and its elections.
    func drawReplay(_ canvas: inout Canvas, _ rect: Rect, _ replay: ReplayState, isBrief: Bool) {
        let length = max(1, replay.end - replay.start)
        let bar = replayBar(rect)
        canvas.spans([Span(replay.isPlaying ? "▶ " : "‖ ", replay.isPlaying ? .ok : .warn, .bold), Span(Format.minutes(now - replay.start), .text)], rect.column + 1, rect.row)
        guard !isBrief else { return }
        let place = Int(min(length, max(0, now - replay.start)) * Int64(bar.columns - 1) / length)
        for column in 0..<bar.columns { canvas.glyph(column <= place ? "━" : "─", bar.column + column, bar.row, .ink(column <= place ? .accent : .faint)) }
        for mark in replay.elections {
            let column = Int(min(length, max(0, mark - replay.start)) * Int64(bar.columns - 1) / length)
            canvas.glyph("♛", bar.column + column, bar.row, .ink(column <= place ? .leader : .dim))
        }
        canvas.glyph("●", bar.column + place, bar.row, .ink(.accent, .bold))
        canvas.spans([Span(Format.minutes(length), .dim), Span("  \(Model.speedText(replay.speed))", replay.speed == 1 ? .dim : .warn)] + (replay.loadedPercent < 100 ? [Span("  reading \(replay.loadedPercent)%", .warn)] : []), bar.endColumn + 1, rect.row)
    }

    static func speedText(_ speed: Double) -> String {
        speed == speed.rounded() ? "\(Int(speed))×" : "\(speed)×"
    }

    /// A click on the bar.
    mutating func seekOnBar(_ position: Position, _ rect: Rect, _ commands: inout [Command]) {
        guard let replay else { return }
        let bar = replayBar(rect)
        guard bar.contains(position) else { return }
        let length = replay.end - replay.start
        commands.append(.replay(.seek(replay.start.advanced(byMilliseconds: length * Int64(position.column - bar.column) / Int64(max(1, bar.columns - 1))))))
    }
}

extension Format {
    /// `02:13`, `1:02:13`.
    static func minutes(_ milliseconds: Int64) -> String {
        let seconds = Int(max(0, milliseconds) / 1_000)
        let tail = pad(seconds % 3_600 / 60, 2) + ":" + pad(seconds % 60, 2)
        return seconds < 3_600 ? tail : "\(seconds / 3_600):" + tail
    }
}
