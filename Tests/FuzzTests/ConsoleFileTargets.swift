import ArgumentParser
import Base
import CNcurses
import Foundation
@testable import quarterdeck
@testable import Server
@testable import UI

// What the program reads of people and of its own parent: the command line and its environment, theme and scenario files, recordings, the orders of
// the console that started a node, and the keyboard.

extension FuzzTargets {
    static let consoleFiles: [FuzzTarget] = [
        FuzzTarget(name: "command-line", seeds: CommandImages.seeds,
                   words: ["--", "=", "http://", "https://[::1]:2380", ",", "\nETCD_NAME=", "\nETCDCTL_ENDPOINTS=", "9223372036854775807", "1h30m", "--endpoints", "serve\n", "attach\n", "playground\n", "snapshot\nrestore\n"],
                   maxBytes: 1 << 10, run: CommandImages.parse),
        FuzzTarget(name: "theme-file", seeds: FileImages.themes, words: ["#", "palette:\n", "slots:\n", "gradients:\n", "&a ", "*a", "<<: ", "default"], run: FileImages.readTheme),
        FuzzTarget(name: "scenario-file", seeds: FileImages.scenarios, words: ["- ", "fault: ", "for: ", "repeat: {times: ", "steps: [", "wire n1 <-> n2 ", "clock n1 ", " jump ", " drift ", "&a ", "*a", "99999999999999999999", "h"],
                   run: FileImages.readScenario),
        FuzzTarget(name: "recording", seeds: RecordingImages.seeds, words: ["9223372036854775807", "-9223372036854775808", "18446744073709551615", "1e308", "\"t\":", "\n{", "null", "[]"], run: RecordingImages.play),
        FuzzTarget(name: "fault-orders", seeds: FaultOrderImages.seeds, words: ["9223372036854775807", "-9223372036854775808", "1e308", "\"treatment\":{", "\n", "null"], run: FaultOrderImages.obey),
        FuzzTarget(name: "terminal-input", seeds: KeyboardImages.seeds, words: ["\u{1b}[", "\u{1b}]", "\u{1b}O", "0;1;1M", "64;999999;1m"], maxBytes: 512, run: KeyboardImages.type),
    ]
}

// MARK: - Command line

private enum CommandImages {
    /// A line is an argument, or a variable of the environment when it begins with ETCD.
    static func seeds() -> [[UInt8]] {
        ["serve\n--name\nb\n--initial-advertise-peer-urls\nhttp://10.0.0.2:2380\n--initial-cluster\nc=http://10.0.0.3:2380,b=http://10.0.0.2:2380,a=http://[::1]:2380\n--snapshot-count=500\n--quota-backend-bytes\n1073741824",
         "serve\nETCD_NAME=n1\nETCD_LISTEN_CLIENT_URLS=http://h:1\nETCD_ADVERTISE_CLIENT_URLS=http://h:1\nETCD_STRICT_RECONFIG_CHECK=t\n--election-timeout\n1000\n--auth-token\nsimple",
         "attach\na:1\nb:2,c:3\n--user\nroot:se:cret\n--dial-timeout\n1.5s\n--command-timeout=2h3m4.5ms\nETCDCTL_INSECURE_SKIP_TLS_VERIFY=true", "attach\nETCDCTL_ENDPOINTS=https://x:9, y:8\n--read-only",
         "playground\n--nodes\n5\n--engine\nprocess\n--base-port\n1000\n--theme\npaper\n--escape-delay\n50", "replay\nfile", "scenario\n--list", "scenario\nx\n--json\n--engine\netcd", "check\ndir\n--json",
         "snapshot\nrestore\nf\n--bump-revision\n5\n--mark-compacted\n--initial-cluster\nn1=http://h:1", "snapshot\nstatus\nf\n-w\ntable", "simulate\n--seed\n7\n--profile\nswarm\n--simulated\n60", "bound\n--parent\n1\n--\nls\n-l", "--version", "-h"].map { Array($0.utf8) }
    }

    static func parse(_ raw: UnsafeRawBufferPointer) {
        var arguments: [String] = [], environment: [String: String] = [:]
        for line in String(decoding: raw, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).prefix(64) {
            if line.hasPrefix("ETCD"), let equals = line.firstIndex(of: "=") { environment[String(line[..<equals])] = String(line[line.index(after: equals)...]) } else { arguments.append(String(line)) }
        }
        let command: any ParsableCommand
        do { command = try Quarterdeck.parseAsRoot(arguments) } catch {
            _ = Quarterdeck.exitCode(for: error)
            return
        }
        switch command {
        case let serve as ServeCommand:
            guard let options = try? serve.options(environment: environment) else { return }
            let configuration = ServeRunner.configuration(options)
            guard (try? configuration.validate()) != nil, let (members, own) = try? configuration.initialMembers() else { return }
            precondition(members.contains { $0.id == own }, "\(arguments)")
        case let attach as AttachCommand:
            // Nobody is asked for it.
            environment["ETCDCTL_PASSWORD"] = environment["ETCDCTL_PASSWORD"].flatMap { $0.isEmpty ? nil : $0 } ?? "x"
            guard let options = try? attach.connectionOptions(environment: environment) else { return }
            _ = try? ClusterSession.configuration(options)
            _ = AttachCommand.clusterName(options.endpoints)
        default: break
        }
    }
}

// MARK: - YAML

private enum FileImages {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    private static func files(_ folder: String) -> [[UInt8]] {
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: "\(root)/\(folder)")) ?? []).filter { $0.hasSuffix(".yaml") }.sorted()
        return names.compactMap { FileManager.default.contents(atPath: "\(root)/\(folder)/\($0)").map { [UInt8]($0) } }
    }

    static func themes() -> [[UInt8]] { files("themes") + [Array("base: light\ngradients:\n  load: [\"#000000\", \"#ffffff\"]\nslots: {text: default}\n".utf8)] }

    static func readTheme(_ raw: UnsafeRawBufferPointer) {
        guard let theme = try? ThemeLibrary.parse(String(decoding: raw, as: UTF8.self), name: "x") else { return }
        for slot in Slot.allCases { _ = theme.resolve(slot) }
        for depth in [ColorDepth.trueColor, .ansi8, .mono] { _ = theme.concrete(Style(foreground: .gradient(.heat, 100)), depth: depth) }
    }

    static func scenarios() -> [[UInt8]] { files("scenarios") + files("Tests/BadScenarios") }

    static func readScenario(_ raw: UnsafeRawBufferPointer) {
        guard let scenario = try? ScenarioParser.parse(String(decoding: raw, as: UTF8.self), file: "x.yaml") else { return }
        // What it wants of the nodes it may have.
        let playground = scenario.playground(engine: .embedded)
        precondition([1, 3, 5, 7].contains(playground.nodeCount) && playground.electionMilliseconds >= 5 * playground.heartbeatMilliseconds, "\(playground)")
    }
}

// MARK: - Recordings

private enum RecordingImages {
    private static let start = Moment(milliseconds: 1_763_923_327_000)

    static func seeds() -> [[UInt8]] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        var cluster = ClusterState(name: "demo", kind: .playground, connection: .connected, members: (1...3 as ClosedRange<UInt64>).map { id in
            var member = MemberState(id: id, name: "n\(id)", endpoint: "127.0.0.1:\(id)", role: id == 1 ? .leader : .follower, health: .up)
            (member.term, member.commit, member.applied, member.lastIndex, member.dbSizeBytes) = (3, 9, 9, 9, 20_480)
            return member
        })
        cluster.revision = 9
        var histogram = LatencyHistogram(), coarse = LatencyHistogram(boundsMicroseconds: [1_000, 2_000])
        for value in [90, 2_000, 20_000_000] { histogram.record(microseconds: value); coarse.record(microseconds: value) }
        let at = start.milliseconds * 1_000
        let sample = NodeSample(node: 1, atMicroseconds: at + 900_000, role: .leader, term: 3, vote: 1, leader: 1, commit: 9, applied: 9, lastIndex: 9, durable: 9, timerLeftMicroseconds: 5, timerLengthMicroseconds: 1_000_000,
                                peers: [.init(id: 2, phase: .replicate, match: 9, next: 10, inFlightMessages: 1, inFlightBytes: 10, roundTripMicroseconds: 400, isActive: true)],
                                stages: [StageLatency(stage: .logWrite, histogram: histogram)])
        let raft: [RaftEvent.Kind] = [.electionTimeout(afterMicroseconds: 1_000_000), .preVoteAsked, .voteReceived(from: 2, isGranted: true, isPreVote: false), .voteCast(for: 1, isPreVote: false), .roleChanged(.leader), .elected(votes: 2, voters: 3),
                                      .firstCommit(index: 10), .missed(4)]
        var workload = WorkloadSample(at: start, put: .init(count: 5, p50Microseconds: 400, p99Microseconds: 900, maxMicroseconds: 1_000), read: nil, failed: 1, putBuckets: [5, 0, 0, 0, 0, 0, 0, 0, 0], putHistogram: histogram)
        workload.slow = [SlowRequest(at: start, tookMicroseconds: 200_000, operation: "put", key: "k")]
        workload.verdict = ConsistencyVerdict(acknowledgedWrites: 5, confirmedWrites: 4, checkedReads: 3)
        let fault = ActiveFault(id: 3, fault: .wire(from: nil, to: 2, WireFault(delayMilliseconds: 40, jitterMilliseconds: 5)), since: start, ends: start.advanced(byMilliseconds: 30_000), by: "flap")
        let events: [DataEvent] = [
            .cluster(cluster), .raft(raft.enumerated().map { RaftEvent(node: 1, atMicroseconds: at + Int64($0.offset) * 100_000, term: 4, kind: $0.element) }), .samples([sample]), .workload(workload),
            .events([ClusterEvent(id: 1, at: start, kind: .elected(leader: "n1", previous: "n2", fromTerm: 3, term: 4, unavailableMilliseconds: 900, toleranceMilliseconds: 250)), ClusterEvent(id: 2, at: start, kind: .memberDown(member: "n2", reason: "x", byYou: true, wasLeader: false))]),
            .canary((0..<20).map { CanaryWrite(dueMicroseconds: at + $0 * 20_000, tookMicroseconds: 500, outcome: .acknowledged, revision: $0 + 1) }), .isCanaryOn(true), .canaryCheck(CanaryCheck(acknowledged: 20, confirmed: 19, lost: 1, lostRevisions: [7])),
            .metrics([MetricsSample(node: 2, at: start, spanMilliseconds: 1_000, walFsync: coarse, proposalsCommitted: 5)]), .faults([fault, ActiveFault(id: 4, fault: .clock(1, .drift(partsPerMillion: -500)), since: start)]),
            .faultSupport(FaultSupport(reasons: [.diskFull: "no"])), .logs([LogLine(at: start, node: 1, level: .warning, part: "raft", text: "hello")]), .scenario(ScenarioProgress(name: "x", title: "X", step: 1, steps: 5, caption: "c")),
        ]
        let header = [UInt8](try! encoder.encode(RecordingHeader(program: "quarterdeck 0.1.0", start: start, cluster: cluster)))
        let lines = events.enumerated().map { [UInt8](try! encoder.encode(RecordedEvent(at: start.advanced(byMilliseconds: Int64($0.offset) * 300), event: $0.element))) }
        func file(_ lines: [[UInt8]]) -> [UInt8] { [UInt8](([header] + lines).joined(separator: [10])) + [10] }
        let cut: [UInt8] = file([lines[1]]) + lines[0].prefix(40)
        return [file(lines), cut] + lines.map { line in file([line]) }
    }

    static func play(_ raw: UnsafeRawBufferPointer) {
        guard let recording = try? Recording(Data(raw), path: "x") else { return }
        let decoder = JSONDecoder()
        let events = recording.lines.indices.prefix(64).compactMap { try? recording.decode($0, decoder) }
        precondition(recording.end >= recording.header.start)
        var screen = Screen()
        screen.tell(.replay(ReplayState(start: recording.header.start, end: recording.end, position: recording.header.start, isPlaying: false, speed: 1)))
        screen.tell(.playback(Playback(events: events[...], until: recording.end, restart: recording.header)))
        screen.look(raw.count)
    }
}

// MARK: - Orders of the console to a node

private enum FaultOrderImages {
    static func seeds() -> [[UInt8]] {
        var plan = FaultPlan()
        plan[from: 1, to: 2].delayMicroseconds = 40_000
        plan[from: 1, to: 2].jitterMicroseconds = 5_000
        plan[from: 2, to: 1].isCut = true
        plan[from: 1, to: 3].lossShare = 0.5
        plan[from: 1, to: 3].bytesPerSecond = 1_000
        plan[disk: 1].syncDelayMicroseconds = 20_000
        plan[disk: 2].failure = .full
        plan[clock: 1].offsetMilliseconds = -5_000
        plan[clock: 1].leapMilliseconds = 5_000
        plan[clock: 1].driftPartsPerMillion = -500
        let order = Supervision.Order(plan: plan).line + [10], empty = Supervision.Order(plan: FaultPlan()).line + [10], stop = Supervision.Order(stops: true).line + [10]
        return [[0] + order, [0] + order + empty + stop, [9] + empty + order]
    }

    /// A clock that stands still unless it is moved.
    private final class StillClock: NodeClock, @unchecked Sendable {
        // @unchecked: used in one thread only.
        var nanoseconds: Int64 = 1_000_000_000
        func now() -> Instant { Instant(nanoseconds: nanoseconds) }
        func wall() -> WallTime { WallTime(milliseconds: 1_763_923_327_000 + nanoseconds / 1_000_000) }
    }

    static func obey(_ raw: UnsafeRawBufferPointer) {
        guard let cut = raw.first.map(Int.init) else { return }
        var reader = Supervision.OrderReader(), orders: [Supervision.Order] = []
        var rest = Array(raw.dropFirst())[...]
        while !rest.isEmpty {
            let part = rest.prefix(cut == 0 ? rest.count : cut)
            rest = rest.dropFirst(part.count)
            orders += reader.take(part)
        }
        let base = StillClock(), clock = FaultyClock(base), links = FaultyLinks(), disk = DiskFaults()
        var generator = SeededGenerator(seed: 1)
        var last = clock.now()
        for plan in orders.compactMap(\.plan).prefix(16) {
            // Sent on it is the same.
            precondition((try? JSONDecoder().decode(FaultPlan.self, from: JSONEncoder().encode(plan))) == plan, "\(plan)")
            clock.obey(plan[clock: 1])
            links.obey(plan)
            disk.obey(plan[disk: 1])
            for step in [0, 1, 1_000_000_000, 3_600_000_000_000] as [Int64] {
                base.nanoseconds += step
                precondition(clock.now() >= last, "time went back")
                last = clock.now()
                _ = (clock.wall(), clock.wallMicroseconds())
            }
            for span in [0, 1, 1_000_000_000, .max] as [Int64] { precondition(clock.realTime(for: TimeSpan(nanoseconds: span)) >= .zero) }
            for link in plan.links.prefix(8) {
                var line = DelayLine<Int>()
                line.change(to: link.treatment, at: 0, using: &generator)
                var isOrdered = true, before = Int64.min
                for number in 0..<4 {
                    _ = link.treatment.copies(using: &generator)
                    guard line.put(number, bytes: 1 << 20, at: base.nanoseconds + Int64(number), using: &generator) else { continue }
                    isOrdered = isOrdered && line.nextDue! >= before
                    before = line.nextDue!
                }
                precondition(isOrdered)
                line.change(to: LinkTreatment(), at: base.nanoseconds, using: &generator)
                while line.take(at: .max) != nil {}
            }
        }
    }
}

// MARK: - Keyboard

private enum KeyboardImages {
    /// Bytes that stand for what the key reader says besides characters. They occur in no UTF-8.
    private static let pause: UInt8 = 0xf8, mouse: UInt8 = 0xf9, privateReport: UInt8 = 0xfa, pasteBegin: UInt8 = 0xfb, pasteEnd: UInt8 = 0xfc, focus: UInt8 = 0xfd, key: UInt8 = 0xfe, scalar: UInt8 = 0xff

    static func seeds() -> [[UInt8]] {
        func text(_ text: String) -> [UInt8] { Array(text.utf8) }
        func press(_ kind: Int) -> [UInt8] { [key, UInt8(truncatingIfNeeded: QD_KEY_BASE + kind * 8), UInt8((QD_KEY_BASE + kind * 8) >> 8)] }
        return [
            text("4") + press(Int(QD_KEY_DOWN)) + text("\r") + [27, pause] + text("?") + press(Int(QD_KEY_F1)), text("2/app\u{e9}\u{1f600}\r") + [27] + text("j"), [mouse] + text("0;12;5M") + [mouse] + text("0;12;5m") + [mouse] + text("64;3;3M"),
            text(":") + [pasteBegin] + text("put a b\r\u{1b}[31m\t") + [pasteEnd] + text("\r"), [privateReport] + text("2026;1$y") + [focus, pause], [27] + text("[27;5;9~x") + [27] + text("]11;rgb:0/0/0") + [7], [scalar, 0xff, 0xff, 0xff, 0xff, scalar, 0, 0xd8, 0, 0],
            text("eK y9 X") + press(Int(QD_KEY_TAB)) + press(Int(QD_KEY_PAGE_DOWN)), text("5bw`Wn") + [3, 27, 27, pause],
        ]
    }

    static func type(_ raw: UnsafeRawBufferPointer) {
        var decoder = InputDecoder(), events: [TerminalEvent] = []
        func feed(_ input: InputDecoder.Raw) { decoder.feed(input, into: &events) }
        var run: [UInt8] = [], at = 0
        func flush() {
            for scalar in String(decoding: run, as: UTF8.self).unicodeScalars { feed(.character(scalar.value)) }
            run = []
        }
        func next() -> UInt32 {
            defer { at += 1 }
            return at < raw.count ? UInt32(raw[at]) : 0
        }
        while at < raw.count {
            let byte = raw[at]
            at += 1
            guard byte >= pause else {
                run.append(byte)
                continue
            }
            flush()
            switch byte {
            case pause: feed(.pause)
            case mouse: feed(.key(UInt32(QD_REPORT_MOUSE)))
            case privateReport: feed(.key(UInt32(QD_REPORT_PRIVATE)))
            case pasteBegin: feed(.key(UInt32(QD_REPORT_PASTE_BEGIN)))
            case pasteEnd: feed(.key(UInt32(QD_REPORT_PASTE_END)))
            case focus: feed(.key(UInt32(next() & 1 == 0 ? QD_REPORT_FOCUS_IN : QD_REPORT_FOCUS_OUT)))
            case key: feed(.key(next() | next() << 8))
            default: feed(.character(next() | next() << 8 | next() << 16 | next() << 24))
            }
        }
        flush()
        // Whatever was begun: a person gets out of it.
        feed(.key(UInt32(QD_REPORT_PASTE_END)))
        for _ in 0..<3 { feed(.pause) }
        var screen = Screen(raw.count % 2 == 0 ? .playground : .attached)
        for event in events.prefix(256) {
            switch event {
            case .key(let key): screen.press(key)
            case .mouse(let event): screen.perform(.mouse(event))
            case .paste(let text): screen.perform(.paste(text))
            case .focused(let has): screen.perform(.focused(has))
            case .privateMode: break
            }
        }
        _ = view(screen.model)
    }
}
