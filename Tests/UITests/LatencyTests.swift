import Testing
@testable import UI

/// Made-up minutes of the Latency view: a workload, a slow disk, a leader that dies.
enum LatencyScene: String, CaseIterable {
    case empty, live, putsBySecond, fsync, attached, slow, violation, form, formProblem, ended

    static func play(_ scene: LatencyScene, _ size: Size, glyphs: GlyphSet = .unicode) -> Session {
        var s = Session(size, kind: scene == .attached ? .attached : .playground, mode: .readWrite, glyphs: glyphs)
        s.tell(.cluster(Sample.cluster(kind: scene == .attached ? .attached : .playground, now: s.model.now, nodes: size.columns >= 120 ? 5 : 3)))
        s.press(KeyPress("5"))
        switch scene {
        case .empty: s.wait(1_000)
        case .live: live(&s)
        case .putsBySecond:
            live(&s)
            for _ in 0..<28 { s.press(.left) }
            s.press(KeyPress(")"))
        case .fsync:
            live(&s)
            s.press(KeyPress("m"), KeyPress("m"))
        case .attached:
            metrics(&s, seconds: 90)
            s.press(KeyPress("m"), KeyPress("m"))
        case .slow:
            live(&s)
            for _ in 0..<4 { s.press(.tab) }
            s.press(KeyPress("j"))
        case .violation:
            live(&s, seconds: 20, violations: ["/quarterdeck/workload/ab12cd/7: a read at 12.345 s saw revision 118, though revision 131 was acknowledged before it started, at 12.290 s"])
        case .form:
            s.press(KeyPress("e"), KeyPress(.down))
            s.type("250")
            for _ in 0..<4 { s.press(.down) }
            s.press(KeyPress(" "))
        case .formProblem:
            s.press(KeyPress("e"))
            s.type("99999")
            s.press(.enter)
        case .ended:
            live(&s, seconds: 30)
            s.press(KeyPress("W"))
            s.tell(.workload(WorkloadSample(at: s.model.now, put: nil, read: nil, failed: 0, putBuckets: [], verdict: ConsistencyVerdict(acknowledgedWrites: 4_810, confirmedWrites: 4_810, checkedReads: 11_000, unknownWrites: 3), isFinal: true)))
        }
        s.tell(.cluster(s.model.cluster))
        return s
    }

    /// Counts around a middle: the middle, one and two fine buckets away, and a tail.
    static func histogram(around microseconds: Int, _ count: Int, tail: Int = 0, tailAt: Int = 0) -> LatencyHistogram {
        var histogram = LatencyHistogram()
        for index in 0..<count {
            let spread = [100, 84, 119, 71, 141, 100, 92, 170, 108, 240][index % 10]
            histogram.record(microseconds: microseconds * spread / 100)
        }
        for _ in 0..<tail { histogram.record(microseconds: tailAt) }
        return histogram
    }

    static func live(_ s: inout Session, seconds: Int = 100, violations: [String] = []) {
        var acknowledged = 0
        let members = s.model.cluster.members
        for second in 0..<seconds {
            let isGap = second == 70, isSlowDisk = (40..<55).contains(second)
            if second == 40 { s.tell(.faults([ActiveFault(id: 1, fault: .disk(members[1].id, .slow(milliseconds: 20)), since: s.model.now)])) }
            if second == 55 { s.tell(.faults([])) }
            if second == 70 { s.tell(.events([ClusterEvent(id: 900, at: s.model.now.advanced(byMilliseconds: 31), kind: .memberDown(member: "n1", reason: "killed", byYou: true, wasLeader: true))])) }
            if second == 71 { s.tell(.events([ClusterEvent(id: 901, at: s.model.now.advanced(byMilliseconds: 114), kind: .elected(leader: "n3", previous: "n1", fromTerm: 11, term: 12, unavailableMilliseconds: 1_083, toleranceMilliseconds: nil))])) }
            let at = s.model.now
            let middle = 1_800 + (second * 53) % 17 * 40 + (isSlowDisk ? 9_000 : 0)
            let puts = isGap ? LatencyHistogram() : histogram(around: middle, 400, tail: second == 71 ? 30 : 0, tailAt: 1_050_000)
            let gets = isGap ? LatencyHistogram() : histogram(around: 450, 900)
            acknowledged += puts.total
            func latency(_ histogram: LatencyHistogram, most: Int) -> WorkloadSample.Latency? {
                histogram.total == 0 ? nil : .init(count: histogram.total, p50Microseconds: histogram.quantile(0.5)!, p99Microseconds: histogram.quantile(0.99)!, maxMicroseconds: most)
            }
            var slow: [SlowRequest] = []
            if second == 71 {
                for index in 0..<4 { slow.append(SlowRequest(at: at.advanced(byMilliseconds: -1_000 + Int64(index) * 20), tookMicroseconds: 1_083_000 - index * 20_000, operation: index == 2 ? "get" : "put", key: "/quarterdeck/workload/ab12cd/\(index * 7)", error: index == 3 ? "time limit passed" : nil)) }
            }
            if second == 50 { slow.append(SlowRequest(at: at, tookMicroseconds: 148_000, operation: "put", key: "/quarterdeck/workload/ab12cd/21")) }
            if second == 20 { slow.append(SlowRequest(at: at, tookMicroseconds: 112_000, operation: "get", key: "/quarterdeck/workload/ab12cd/3")) }
            s.tell(.workload(WorkloadSample(at: at, put: latency(puts, most: second == 71 ? 1_083_000 : middle * 3), read: latency(gets, most: 1_900), failed: second == 71 ? 3 : 0, retried: second == 71 ? 5 : 0,
                                            putBuckets: [0, 0, puts.total, 0, 0, 0, 0, 0, 0], putHistogram: puts, readHistogram: gets, slow: slow,
                                            settings: WorkloadSettings(putsPerSecond: 400, readsPerSecond: 900, clients: 32),
                                            verdict: ConsistencyVerdict(acknowledgedWrites: acknowledged, confirmedWrites: max(0, acknowledged - 37), checkedReads: second * 900, unknownWrites: second > 71 ? 3 : 0, violations: violations))))
            s.tell(.samples(members.enumerated().map { index, member in
                let fsync = 800 + index * 130 + (isSlowDisk && index == 1 ? 20_000 : 0)
                return NodeSample(node: member.id, atMicroseconds: at.milliseconds * 1_000, role: index == 2 ? .leader : .follower, term: 12, stages: [
                    StageLatency(stage: .queue, histogram: histogram(around: 40, 400)), StageLatency(stage: .logWrite, histogram: histogram(around: fsync, 60)),
                    StageLatency(stage: .replicate, histogram: histogram(around: 700, 800)), StageLatency(stage: .quorumWait, histogram: histogram(around: middle - 600, 400)),
                    StageLatency(stage: .apply, histogram: histogram(around: 110, 400)), StageLatency(stage: .backendCommit, histogram: histogram(around: 2_400, 10)),
                ])
            }))
            var state = s.model.cluster
            state.revision = (state.revision ?? 0) + Int64(puts.total)
            s.tell(.cluster(state))
            s.wait(1_000)
        }
    }

    /// As a real etcd tells it: its own edges, no stages.
    static func metrics(_ s: inout Session, seconds: Int) {
        let bounds = (0..<14).map { 1_000 << $0 }
        for second in 0..<seconds {
            s.tell(.metrics(s.model.cluster.members.enumerated().map { index, member in
                func histogram(_ around: Int, _ count: Int) -> LatencyHistogram {
                    var histogram = LatencyHistogram(boundsMicroseconds: bounds)
                    for step in 0..<count { histogram.record(microseconds: around * (60 + (step * 37 + second * 11) % 130) / 100) }
                    return histogram
                }
                return MetricsSample(node: member.id, at: s.model.now, spanMilliseconds: 1_000, walFsync: histogram(index == 1 && (30..<40).contains(second) ? 14_000 : 1_400, 80), backendCommit: histogram(5_000, 10),
                                     peerRoundTrip: histogram(900, 4), proposalsCommitted: 410 + second % 40, proposalsPending: second % 3, slowApplies: second == 33 ? 2 : 0)
            }))
            s.wait(1_000)
        }
    }
}

@Suite struct LatencyViewTests {
    @Test(arguments: LatencyScene.allCases, GoldenTests.sizes)
    func screenIsAsRecorded(scene: LatencyScene, size: Size) {
        expectGolden(LatencyScene.play(scene, size).screen, "latency-\(scene.rawValue)-\(size.columns)x\(size.rows)")
    }

    @Test func coloursAreAsRecorded() {
        expectGolden(LatencyScene.play(.live, Size(columns: 80, rows: 24)).grid.styleMap, "latency-live-80x24-styles")
    }

    @Test(arguments: [LatencyScene.live, .form])
    func asciiScreenIsAsRecorded(scene: LatencyScene) {
        let screen = LatencyScene.play(scene, Size(columns: 80, rows: 24), glyphs: .ascii).screen
        #expect(screen.unicodeScalars.allSatisfy { $0.value == 0x0a || (0x20..<0x7f).contains($0.value) })
        expectGolden(screen, "latency-\(scene.rawValue)-80x24-ascii")
    }

    @Test func monochromeAttributesAreAsRecorded() {
        let grid = LatencyScene.play(.live, Size(columns: 80, rows: 24)).grid
        let lines = (0..<24).map { row in
            var line = String((0..<80).map { column -> Character in
                let attributes = Theme.quarterdeckDark.concrete(grid[column, row].style, depth: .mono).attributes
                return attributes.contains(.reverse) ? "r" : attributes.contains(.bold) ? "b" : attributes.contains(.dim) ? "d" : "."
            })
            while line.last == "." { line.removeLast() }
            return line
        }
        expectGolden(lines.joined(separator: "\n"), "latency-live-80x24-mono")
    }

    @Test func panelsTileTheBody() {
        for columns in stride(from: 80, through: 260, by: 9) {
            for rows in stride(from: 24, through: 90, by: 5) {
                let body = ScreenLayout(Size(columns: columns, rows: rows)).body
                for members in [0, 1, 3, 5, 7] {
                    for focus in [Panel.heat, .stages, .fsync, .rates, .slow] {
                        for isEnlarged in [false, true] {
                            let layout = LatencyLayout(body: body, members: members, focus: focus, hasSlow: members % 2 == 0, isEnlarged: isEnlarged)
                            let panels = [layout.heat, layout.companion, layout.stages, layout.fsync, layout.rates, layout.slow].filter { !$0.isEmpty }
                            #expect(panels.reduce(layout.verdict.columns) { $0 + $1.columns * $1.rows } == body.columns * body.rows, "\(columns)x\(rows) \(members) \(focus)")
                            for (index, panel) in panels.enumerated() {
                                #expect(panel.rows >= 6 && panel.columns >= 20 && panel.intersection(body) == panel, "\(columns)x\(rows) \(members) \(focus): \(panel)")
                                for other in panels[(index + 1)...] { #expect(panel.intersection(other).isEmpty) }
                            }
                            // What has the keyboard is on the screen.
                            let own = switch focus { case .stages: layout.stages; case .fsync: layout.fsync; case .rates: layout.rates; case .slow: layout.slow; default: layout.heat }
                            #expect(!own.isEmpty)
                        }
                    }
                }
            }
        }
    }

    @Test(arguments: [81, 82, 83] as [UInt64])
    func anythingAPersonDoesHereLeavesASoundScreen(seed: UInt64) {
        var random = Seeded(seed)
        var session = LatencyScene.play(seed == 81 ? .attached : .live, Size(columns: 100, rows: 30), glyphs: seed == 83 ? .ascii : .unicode)
        for step in 0..<200 {
            if session.model.screen != .latency, session.model.overlay == nil { session.press(KeyPress("5")) }
            session.act(SafetyTests.randomAction(&random, session.model.size))
            if step % 20 == 0 { session.act(.resized(Size(columns: Int.random(in: 80...220, using: &random), rows: Int.random(in: 24...70, using: &random)))) }
            if step % 4 == 0 { SafetyTests.check(session.model, "seed \(seed) step \(step)") }
        }
    }

    // MARK: What keys do

    @Test func metricsAreReadWhileTheViewIsOpen() {
        var session = Session()
        session.press(KeyPress("5"))
        #expect(session.commands.last == .scrapeMetrics(true))
        session.press(KeyPress("1"))
        #expect(session.commands.last == .scrapeMetrics(false))
        #expect(session.commands.count { if case .scrapeMetrics = $0 { true } else { false } } == 2)
    }

    @Test func aBaselineShowsTheDifference() {
        var session = LatencyScene.play(.live, Size(columns: 120, rows: 36))
        session.press(KeyPress("b"))
        #expect(session.screen.contains("baseline marked"))
        #expect(session.screen.contains("p50 ±0"))
        session.tell(.workload(WorkloadSample(at: session.model.now, put: .init(count: 90_000, p50Microseconds: 64_000, p99Microseconds: 64_000, maxMicroseconds: 64_000), read: nil, failed: 0, putBuckets: [],
                                              putHistogram: LatencyScene.histogram(around: 64_000, 90_000))))
        #expect(session.screen.contains("p50 +"))
        session.press(KeyPress("m"))
        #expect(session.screen.contains("b marks this as the baseline"))
        session.press(KeyPress("c"), KeyPress("m"), KeyPress("m"), KeyPress("m"), KeyPress("m"))
        #expect(session.model.latency.baseline == nil && session.model.latency.source == .put)
    }

    @Test func slowRequestsSayWhy() {
        let session = LatencyScene.play(.slow, Size(columns: 120, rows: 36))
        let model = session.model
        func why(_ second: Int, _ took: Int, error: String? = nil, value: Int = 128) -> String {
            let start = model.now.milliseconds - Int64(100 - second) * 1_000
            return model.slowReason(LatencyState.Slow(request: SlowRequest(at: Moment(milliseconds: start), tookMicroseconds: took, operation: "put", key: "k", error: error), valueBytes: value))
        }
        #expect(why(70, 1_000_000) == "no leader (n3 elected, term 12)")
        #expect(why(45, 150_000).hasPrefix("n2 disk: fsync +20 ms"))
        #expect(why(20, 150_000) == "unknown")
        #expect(why(20, 150_000, value: 1_000_000) == "large value (1.0 MB)")
        #expect(why(20, 150_000, error: "not sent: it was due 5 s ago") == "all clients were busy")
    }

    @Test func theFormRefusesWhatCannotBe() {
        var session = LatencyScene.play(.formProblem, Size(columns: 80, rows: 24))
        #expect(session.screen.contains("puts a second: 0 to 20,000"))
        session.type("\u{0}")
        for _ in 0..<6 { session.press(.backspace) }
        session.type("300")
        session.press(.enter)
        #expect(session.model.overlay == nil)
        guard case .setWorkload(_, let settings?)? = session.commands.last(where: { if case .setWorkload = $0 { true } else { false } }) else { Issue.record("no workload"); return }
        #expect(settings.putsPerSecond == 300 && settings.readsPerSecond == 50)
    }

    @Test func theFormChangesARunningWorkload() {
        var session = LatencyScene.play(.live, Size(columns: 80, rows: 24))
        session.press(KeyPress("e"))
        for _ in 0..<5 { session.press(.tab) }
        session.press(KeyPress(" "), KeyPress(.down), KeyPress(.right), KeyPress(.enter))
        guard case .setWorkload(_, let settings?)? = session.commands.last else { Issue.record("\(String(describing: session.commands.last))"); return }
        #expect(settings.distribution == .zipf && settings.consistency == .serializable)
    }

    @Test func readOnlyKeepsTheSettingsAndStartsNothing() {
        var session = Session(isReadOnly: true)
        session.press(KeyPress("5"), KeyPress("e"))
        session.type("7")
        session.press(.enter)
        #expect(session.commands.filter(\.changesCluster) == [])
        #expect(session.model.workload.settings.putsPerSecond == 7)
    }

    @Test func exportIsOneLineASlot() {
        var session = LatencyScene.play(.live, Size(columns: 80, rows: 24))
        session.press(KeyPress("o"), KeyPress(.enter))
        guard case .export(_, let path, let content)? = session.commands.last else { Issue.record("no export"); return }
        #expect(path.hasPrefix("~/latency-") && path.hasSuffix(".csv"))
        let lines = String(decoding: content, as: UTF8.self).split(separator: "\n")
        #expect(lines[0] == "time_ms,what,node,seconds,count,p50_us,p90_us,p99_us,p999_us,max_us,mean_us")
        #expect(lines.allSatisfy { line in line.utf8.count { $0 == UInt8(ascii: ",") } == 10 })
        #expect(lines.contains { $0.contains(",put,,5,2000,") })
        #expect(lines.contains { $0.contains(",logWrite,n2,5,") })
    }

    @Test func theVerdictIsAlwaysThere() {
        for scene in [LatencyScene.live, .slow, .fsync, .ended] {
            for size in GoldenTests.sizes {
                var session = LatencyScene.play(scene, size)
                #expect(session.screen.contains("writes"), "\(scene) \(size)")
                session.press(KeyPress("+"))
                #expect(session.screen.contains("writes"), "\(scene) \(size) enlarged")
            }
        }
        #expect(LatencyScene.play(.violation, Size(columns: 80, rows: 24)).screen.contains("✕ 1 violation:"))
    }

    @Test func aLateSampleDoesNotSwitchAnEndedWorkloadOn() {
        let session = LatencyScene.play(.ended, Size(columns: 80, rows: 24))
        #expect(!session.model.workload.isOn)
        #expect(session.screen.contains("4,810 acknowledged writes readable"))
    }

    @Test func seriesAreBounded() {
        var series = LatencySeries()
        for second in 0..<10_000 { series.add(CompactHistogram(LatencyScene.histogram(around: 900, 3)), at: Moment(milliseconds: Int64(second) * 1_000)) }
        #expect(series.fine.count <= 601 && series.coarse.count <= 901)
        #expect(series.slots(9_990, 10_000, isFine: true).count == 10)
        #expect(series.slots(9_990, 10_000, isFine: false).map(\.histogram.total) == [15, 15])
    }

    @Test func compactHistogramsAddAsFullOnes() {
        var random = Seeded(5)
        var full = LatencyHistogram(), compact = CompactHistogram(LatencyHistogram())
        for _ in 0..<50 {
            var part = LatencyHistogram()
            for _ in 0..<Int.random(in: 0..<20, using: &random) { part.record(microseconds: Int.random(in: 1...30_000_000, using: &random) >> Int.random(in: 0..<20, using: &random)) }
            full.add(part)
            compact.add(CompactHistogram(part))
        }
        var back = LatencyHistogram()
        compact.add(to: &back)
        #expect(back == full && compact.total == full.total)
        for share in [0.01, 0.5, 0.9, 0.99, 1] { #expect(compact.quantile(share) == full.quantile(share)) }
    }
}
