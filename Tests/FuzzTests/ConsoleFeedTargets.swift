import Base
@testable import Client
@testable import quarterdeck
@testable import UI
import Wire

// What servers tell the console, from the bytes to the screen: observers' streams and status answers, metrics pages, the logs of child processes.

extension FuzzTargets {
    static let consoleFeeds: [FuzzTarget] = [
        FuzzTarget(name: "observer-feed", seeds: FeedImages.observerSeeds, run: FeedImages.observe),
        FuzzTarget(name: "metrics-page", seeds: FeedImages.metricsSeeds, words: ["NaN", "+Inf", "-Inf", "1e308", "-1e308", "{le=\"", "\"} ", "0x1p1023", "\netcd_disk_wal_fsync_duration_seconds_bucket"], run: FeedImages.readMetrics),
        FuzzTarget(name: "child-logs", seeds: FeedImages.logSeeds, words: ["\"ts\":\"2026-11-26T19:12:01.123+0200\"", "\\u00", "\"msg\":\"", "panic: ", "{\"a\":[{}]}", "deadbeefdeadbeef"], maxBytes: 1 << 10, run: FeedImages.readLogs),
    ]
}

private enum FeedImages {
    private static let now: Int64 = 1_763_923_327_000_000

    private static func made<Message: ProtobufMessage>(_: Message.Type, _ fill: (inout Message) -> Void) -> Message {
        var message = Message()
        fill(&message)
        return message
    }

    private static func tracker() -> ClusterTracker {
        ClusterTracker(ClusterState(name: "fuzz", kind: .attached, connection: .connected, members: (1...3 as ClosedRange<UInt64>).map { MemberState(id: $0, name: "n\($0)", endpoint: "h:\($0)") }), now: Moment(milliseconds: now / 1_000))
    }

    // MARK: Observers and Status

    static func observerSeeds() -> [[UInt8]] {
        func event(_ kind: PBObservedEvent.OneOf_Kind, _ number: Int64) -> PBObservedEvent {
            made(PBObservedEvent.self) { ($0.sequence, $0.monotonicNanoseconds, $0.wallMicroseconds, $0.term, $0.kind) = (UInt64(number), number * 1_000_000, now + number * 1_000, 4, kind) }
        }
        let kinds: [PBObservedEvent.OneOf_Kind] = [.electionTimeout(1_000_000), .leaderConnectionLost(2), .roleChanged(.leader), .leaderChanged(1), .elected(made(PBObservedEvent.Elected.self) { ($0.votes, $0.voters) = (2, 3) }), .firstCommit(9),
                                                   .transferStarted(2), .peerLost(2), .diskStuck(300_000), .membershipChanged("n3 added")]
        let events = made(PBObserveResponse.self) { $0.memberID = 1; $0.life = 5; $0.missed = 2; $0.events = kinds.enumerated().map { event($0.element, Int64($0.offset + 1)) } }
        let stage = made(PBObservedStage.self) { $0.stage = .logWrite; $0.buckets = [4, 9, 76]; $0.counts = [1, 2, 3]; $0.sumMicroseconds = 900 }
        let peer = made(PBObservedPeer.self) { ($0.memberID, $0.phase, $0.match, $0.next, $0.inFlightMessages, $0.inFlightBytes, $0.active, $0.roundTripMicroseconds) = (2, .replicate, 9, 10, 1, 50, true, 400) }
        let state = made(PBObserveResponse.self) { message in
            message.memberID = 1
            message.state = made(PBObservedState.self) {
                ($0.monotonicNanoseconds, $0.wallMicroseconds, $0.role, $0.term, $0.vote, $0.leader, $0.commit, $0.applied, $0.last, $0.durable) = (5_000_000, now, .leader, 4, 1, 1, 9, 9, 10, 10)
                ($0.timerLeftMicroseconds, $0.timerLengthMicroseconds, $0.uncommittedBytes, $0.unappliedEntries, $0.diskQueue, $0.pendingRequests) = (5, 1_000_000, 9, 1, 1, 1)
                $0.peers = [peer]
                $0.stages = [stage]
            }
        }
        let status = made(PBStatusResponse.self) { ($0.version, $0.dbSize, $0.dbSizeInUse, $0.leader, $0.raftTerm, $0.raftIndex, $0.raftAppliedIndex) = ("3.5.1", 20_480, 16_384, 1, 4, 9, 9); $0.header.revision = 9; $0.header.memberID = 1 }
        let observed = [events, state].map { [0] + piece($0.encoded()) }, polled = [1] + piece(status.encoded())
        return observed + [polled, observed[0] + observed[1] + observed[0] + polled + polled]
    }

    /// Pieces: 0 an observer's message, 1 an answer to Status.
    static func observe(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        var clock = ClockCorrection(), tracker = tracker(), screen = Screen(.attached)
        var received = now, steps = 0
        for id in 1...3 as ClosedRange<UInt64> { tracker.streamOpened(id, at: Moment(milliseconds: now / 1_000)) }
        while !choices.isAtEnd, steps < 16 {
            let kind = choices.byte() & 1, message = choices.piece()
            received += 10_000
            steps += 1
            if kind == 1 {
                guard let status = try? PBStatusResponse(decoding: message) else { continue }
                tracker.hasNoStream(status.header.memberID)
                tracker.heard(ClusterTracker.StatusAnswer(
                    member: status.header.memberID, leader: status.leader, term: status.raftTerm, raftIndex: status.raftIndex, appliedIndex: status.raftAppliedIndex, revision: status.header.revision, version: status.version,
                    databaseBytes: status.dbSize, databaseInUseBytes: status.dbSizeInUse, isLearner: status.isLearner, latencyMicroseconds: 400), at: Moment(milliseconds: received / 1_000), toleranceMilliseconds: 250)
            } else {
                guard let response = try? PBObserveResponse(decoding: message) else { continue }
                let update = MemberObservation(response, position: ObserverPosition(life: response.life, sequence: 0)), node = update.member.rawValue
                var correction: Int64 = 0
                if let time = update.state?.time ?? update.events.last?.time { correction = clock.correction(of: time, receivedMicroseconds: received) }
                let events = update.events.compactMap { RaftEvent($0, node: node, correction: correction) }
                for event in events { tracker.heard(event) }
                screen.tell(.raft(events))
                guard let state = update.state else { continue }
                var sample = NodeSample(state, node: node, correction: correction)
                sample.stages = NodeSample.sum(sample.stages, sample.stages)
                tracker.heard([sample], at: Moment(milliseconds: received / 1_000))
                screen.tell(.samples([sample]))
            }
        }
        screen.tell(.events(tracker.takeEvents()))
        screen.tell(.cluster(tracker.state))
        screen.look(raw.count)
    }

    // MARK: Metrics

    static func metricsSeeds() -> [[UInt8]] {
        func page(_ counts: [Int]) -> String {
            var text = "# HELP etcd_disk_wal_fsync_duration_seconds x\n"
            for name in ["etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds"] {
                for (bound, count) in zip(["0.001", "0.002", "0.004", "+Inf"], counts) { text += "\(name)_bucket{le=\"\(bound)\"} \(count)\n" }
                text += "\(name)_sum 0.5\n"
            }
            text += "etcd_network_peer_round_trip_time_seconds_bucket{To=\"a\",le=\"0.1\"} \(counts[0])\netcd_network_peer_round_trip_time_seconds_bucket{To=\"a\",le=\"+Inf\"} \(counts[3])\n"
            return text + "etcd_server_proposals_committed_total 1.04e+02\netcd_server_proposals_pending 1\netcd_server_leader_changes_seen_total 2\nprocess_start_time_seconds 1.763923327e+09\n"
        }
        let first = Array(page([5, 8, 9, 10]).utf8), second = Array(page([6, 12, 13, 15]).utf8)
        return [first + [0] + second, second + [0] + first, first]
    }

    /// Two pages, behind one another with a zero between.
    static func readMetrics(_ raw: UnsafeRawBufferPointer) {
        let pages = raw.split(separator: 0, maxSplits: 1).map { String(decoding: $0, as: UTF8.self) }
        guard let first = pages.first, let second = pages.last else { return }
        let before = MetricsReading(first), sample = MetricsReading(second).since(before, node: 1, at: Moment(milliseconds: now / 1_000), spanMilliseconds: 1_000)
        precondition(sample == sample.bounded, "\(sample)")
        var tracker = tracker(), screen = Screen(.attached)
        let metrics = MetricsProbe.Metrics(second)
        tracker.setMetrics(1, fsyncMicroseconds: metrics.fsyncP99Microseconds, startedAt: metrics.startedAt)
        screen.tell(.cluster(tracker.state))
        screen.tell(.metrics([sample, sample]))
        screen.look([4, 0][raw.count % 2])
    }

    // MARK: Logs

    static func logSeeds() -> [[UInt8]] {
        [#"{"level":"info","ts":"2026-11-26T19:12:01.123Z","caller":"etcdserver/server.go:1","msg":"hello a1a1a1a1a1a1a1a1","term":5,"urls":["a","b"]}"#, #"{"level":"warn","ts":"2026-11-26T19:12:01.1234567+02:00","logger":"raft","msg":"x\n\u00e9\"y"}"#,
         "panic: runtime error", "goroutine 1 [running]:", "{\"msg\":"].map { Array($0.utf8) }
    }

    static func readLogs(_ raw: UnsafeRawBufferPointer) {
        let reader = NodeLogReader(names: [0xa1a1_a1a1_a1a1_a1a1: "n1"])
        let lines = String(decoding: raw, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).prefix(64).map { reader.line(String($0), of: 1, at: Moment(milliseconds: now / 1_000)) }
        for line in lines { precondition(line.text.count <= 400, "\(line.text.count) characters") }
        var screen = Screen()
        screen.tell(.logs(lines))
        screen.look(Screen.viewKeys.count - 1)
    }
}
