@testable import UI

/// An etcd of a few lines: answers the UI's commands from a sorted array, at once and in order. Public UI types only.
struct FakeCluster {
    struct Entry {
        var summary: KeySummary
        var value: [UInt8]
    }

    private(set) var entries: [Entry] = []
    private(set) var revision: Int64 = 1
    private var past: [KeyBytes: [KeyVersion]] = [:]
    /// Commands seen, for assertions.
    var seen: [Command] = []
    /// Changes not told yet.
    var changes: [KeyChange] = []
    var now = Moment(milliseconds: 0)

    private func position(_ key: KeyBytes) -> Int {
        var low = 0, high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].summary.key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func entry(_ key: KeyBytes) -> Entry? {
        let index = position(key)
        return index < entries.count && entries[index].summary.key == key ? entries[index] : nil
    }

    @discardableResult
    mutating func put(_ key: KeyBytes, _ value: [UInt8], lease: UInt64 = 0) -> Int64 {
        revision += 1
        let index = position(key)
        var summary = KeySummary(key: key, createRevision: revision, modRevision: revision, version: 1, lease: lease, valueSizeBytes: value.count)
        if let old = entry(key) {
            summary.createRevision = old.summary.createRevision
            summary.version = old.summary.version + 1
            entries[index] = Entry(summary: summary, value: value)
        } else {
            entries.insert(Entry(summary: summary, value: value), at: index)
        }
        past[key, default: []].insert(KeyVersion(revision: revision, version: summary.version, value: value, lease: lease, at: now), at: 0)
        changes.append(KeyChange(summary: summary, isDelete: false))
        return revision
    }

    mutating func put(_ key: String, _ value: String, lease: UInt64 = 0) { put(KeyBytes(key), Array(value.utf8), lease: lease) }

    mutating func delete(_ key: KeyBytes) {
        guard entry(key) != nil else { return }
        revision += 1
        entries.remove(at: position(key))
        past[key, default: []].insert(KeyVersion(revision: revision, version: 0, value: [], at: now), at: 0)
        changes.append(KeyChange(summary: KeySummary(key: key, createRevision: 0, modRevision: revision, version: 0), isDelete: true))
    }

    /// Direct children of a prefix between bounds, ascending.
    func directory(_ request: DirectoryRequest) -> DirectoryPage {
        var children: [DirectoryEntry] = []
        for entry in entries where entry.summary.key.hasPrefix(request.prefix) {
            let key = entry.summary.key
            if let separator = request.separator, let cut = key.bytes[request.prefix.bytes.count...].firstIndex(of: separator) {
                let path = KeyBytes(Array(key.bytes[...cut]))
                if case .directory(path, let count)? = children.last { children[children.count - 1] = .directory(prefix: path, keyCount: (count ?? 0) + 1) } else { children.append(.directory(prefix: path, keyCount: 1)) }
            } else {
                children.append(.key(entry.summary))
            }
        }
        children.removeAll { child in
            if let after = request.after, !(after < child.path) { return true }
            if let before = request.before, !(child.path < before) { return true }
            return false
        }
        let isComplete = children.count <= request.limit
        let page = request.direction == .forward ? Array(children.prefix(request.limit)) : Array(children.suffix(request.limit))
        return DirectoryPage(request: request, entries: page, isComplete: isComplete, revision: revision)
    }

    /// Does what a command says and returns the answers.
    mutating func carryOut(_ command: Command) -> [DataEvent] {
        seen.append(command)
        func done(_ id: RequestID, removed: [KeyValue] = [], count: Int64 = 0, detail: String? = nil) -> [DataEvent] {
            [.finished(CommandResult(request: id, outcome: .done(revision: revision, detail: detail), durationMicroseconds: 1_900, removed: removed, removedCount: count))]
        }
        func refuse(_ id: RequestID, _ key: KeyBytes) -> [DataEvent] {
            [.finished(CommandResult(request: id, outcome: .conflict(current: entry(key).map { KeyValue(summary: $0.summary, value: $0.value) }), durationMicroseconds: 1_500))]
        }
        func holds(_ expectation: Expectation, _ key: KeyBytes) -> Bool {
            switch expectation {
            case .modRevision(let revision): entry(key)?.summary.modRevision == revision
            case .absent: entry(key) == nil
            case .none: true
            }
        }
        func old(_ key: KeyBytes) -> [KeyValue] { entry(key).map { [KeyValue(summary: $0.summary, value: $0.value)] } ?? [] }
        switch command {
        case .loadDirectory(let request): return [.directory(directory(request))]
        case .loadValue(let id, let key, _):
            return [.value(id, key: key, value: old(key).first, failure: nil)]
        case .loadHistory(let id, let key, _, let limit):
            let versions = past[key] ?? []
            return [.history(id, key: key, versions: Array(versions.prefix(limit)), isComplete: versions.count <= limit, compactRevision: nil, failure: nil)]
        case .loadLease(let id): return [.lease(LeaseState(id: id, grantedSeconds: 30, leftSeconds: 27, sampledAt: now))]
        case .countPrefix(let id, let prefix, let samples):
            let list = entries.filter { $0.summary.key.hasPrefix(prefix) }
            return [.count(id, prefix: prefix, count: Int64(list.count), samples: list.prefix(samples).map(\.summary.key), leased: list.count { $0.summary.lease != 0 }, failure: nil)]
        case .search(let id, let prefix, let needle, let limit):
            let found = entries.filter { entry in
                guard entry.summary.key.hasPrefix(prefix) else { return false }
                let key = String(decoding: entry.summary.key.bytes, as: UTF8.self)
                return needle.isEmpty || key.contains(String(decoding: needle, as: UTF8.self))
            }
            return [.searchResults(id, keys: found.prefix(limit).map(\.summary), scanned: Int64(entries.count), isFinished: true, failure: nil)]
        case .put(let id, let key, let value, let lease, let expecting):
            guard holds(expecting, key) else { return refuse(id, key) }
            let removed = old(key)
            put(key, value, lease: lease)
            return done(id, removed: removed)
        case .delete(let id, let key, let expecting):
            guard holds(expecting, key) else { return refuse(id, key) }
            let removed = old(key)
            delete(key)
            return done(id, removed: removed, count: Int64(removed.count))
        case .rename(let id, let from, let to, let value, let lease, let modRevision):
            guard entry(to) == nil, entry(from)?.summary.modRevision == modRevision else { return refuse(id, from) }
            let removed = old(from)
            delete(from)
            put(to, value, lease: lease)
            return done(id, removed: removed)
        case .deleteKeys(let id, let list):
            let removed = list.flatMap { old($0.key) }
            for summary in list { delete(summary.key) }
            return done(id, removed: removed, count: Int64(removed.count))
        case .deletePrefix(let id, let prefix, let undoLimit):
            let list = entries.filter { $0.summary.key.hasPrefix(prefix) }.map { KeyValue(summary: $0.summary, value: $0.value) }
            for item in list { delete(item.key) }
            return done(id, removed: list.count <= undoLimit ? list : [], count: Int64(list.count))
        case .restore(let id, let list):
            for item in list where entry(item.key) == nil { put(item.key, item.value, lease: item.summary.lease) }
            return done(id, detail: "\(list.count) back")
        case .openWatch(let id, _, _): return [.watch(id, .live(revision: revision))]
        case .saveEvents(let id, let path, let events): return done(id, detail: "\(events.count) events saved to \(path)")
        case .setWorkload(let id, _): return done(id)
        case .copyToClipboard(let id, _), .saveScreen(let id): return done(id)
        case .addFault(let id, _, _), .healFault(let id, _), .healAllFaults(let id), .restartNode(let id, _), .transferLeadership(let id, _), .runScenario(let id, _), .stopScenario(let id),
             .setCanary(let id, _), .record(let id, _), .export(let id, _, _):
            return done(id)
        case .openEditor, .scrapeMetrics, .followKeys, .cancelSearch, .closeWatch, .useTheme, .refresh, .redraw, .suspend, .replay, .quit: return []
        }
    }
}

/// A model with a fake cluster behind it and a clock that a test moves: what a person would see, key by key.
struct Session {
    var model: Model
    var cluster: FakeCluster

    init(_ size: Size = Size(columns: 80, rows: 24), kind: ClusterState.Kind = .playground, mode: WriteMode = .readWrite, isReadOnly: Bool = false, glyphs: GlyphSet = .unicode, state: ClusterState? = nil) {
        cluster = FakeCluster()
        let now = Moment(milliseconds: 1_763_923_327_000)
        cluster.now = now
        model = Model(size: size, now: now, cluster: state ?? Sample.cluster(kind: kind, mode: mode, now: now), glyphs: glyphs, isReadOnly: isReadOnly)
        Sample.fill(&cluster)
        cluster.changes = []
    }

    var commands: [Command] { cluster.seen }

    /// Runs an action and everything that follows from it.
    mutating func act(_ action: Action) {
        var queue = update(&model, action, at: model.now)
        while !queue.isEmpty {
            for answer in cluster.carryOut(queue.removeFirst()) { queue += update(&model, .data(answer), at: model.now) }
            if !cluster.changes.isEmpty {
                let changes = cluster.changes
                cluster.changes = []
                queue += update(&model, .data(.changes(changes, revision: cluster.revision)), at: model.now)
            }
        }
    }

    mutating func tell(_ event: DataEvent) { act(.data(event)) }

    /// Lets the time pass in a few steps, with ticks.
    mutating func wait(_ milliseconds: Int64 = 200) {
        var left = milliseconds
        while left > 0 {
            let step = min(max(50, milliseconds / 4), left)
            cluster.now = model.now.advanced(byMilliseconds: step)
            var queue = update(&model, .tick, at: cluster.now)
            while !queue.isEmpty { for answer in cluster.carryOut(queue.removeFirst()) { queue += update(&model, .data(answer), at: model.now) } }
            left -= step
        }
    }

    /// Someone else writes.
    mutating func meanwhile(_ change: (inout FakeCluster) -> Void) {
        change(&cluster)
        let changes = cluster.changes
        cluster.changes = []
        act(.data(.changes(changes, revision: cluster.revision)))
    }

    mutating func press(_ keys: KeyPress...) { for key in keys { act(.key(key)) } }
    mutating func press(_ code: KeyPress.Code) { act(.key(KeyPress(code))) }
    mutating func type(_ text: String) { for character in text { act(.key(character == "\n" ? KeyPress(.enter) : character == "\t" ? KeyPress(.tab) : KeyPress(character))) } }

    var grid: CellGrid { view(model) }
    var screen: String { grid.lines.joined(separator: "\n") }
}

/// Made-up facts, always the same.
enum Sample {
    static func cluster(kind: ClusterState.Kind = .playground, mode: WriteMode = .readWrite, now: Moment, nodes: Int = 3) -> ClusterState {
        var state = ClusterState(name: kind == .playground ? "demo" : "staging", kind: kind, mode: mode, connection: .connected)
        state.serverVersion = kind == .playground ? "quarterdeck 0.1" : "etcd 3.5.16"
        state.revision = 48_213
        state.keyCount = 312
        let ids: [UInt64] = [0x8211_f1d0_f64f_3269, 0xfd42_2379_fda5_0e48, 0x91bc_3c39_8fb3_c146, 0x8e9e_05c5_2164_694d, 0xa826_6ecf_0316_71f3]
        for index in 0..<nodes {
            var member = MemberState(id: ids[index], name: "n\(index + 1)", endpoint: "127.0.0.1:\(2379 + 10_000 * (index * 2))", role: index == 2 % nodes ? .leader : .follower, health: .up)
            member.term = 12
            member.commit = 48_230
            member.applied = index == 1 ? 48_221 : 48_230
            member.lastIndex = 48_230
            member.dbSizeBytes = 12_400_000
            member.dbSizeInUseBytes = 11_900_000
            member.version = kind == .playground ? "3.6.0" : "3.5.16"
            member.latencyMicroseconds = 380 + 70 * index
            if kind == .playground { member.fsyncMicroseconds = 900 + 150 * index }
            member.startedAt = now.advanced(byMilliseconds: -7_860_000)
            member.sampledAt = now
            state.members.append(member)
        }
        return state
    }

    static func fill(_ cluster: inout FakeCluster) {
        for index in 1...12 { cluster.put("/app/web/assets/\(Format3.pad(index))", "x") }
        cluster.put("/app/web/cfg/flags", #"{"beta":false,"ttl":3}"#)
        cluster.put("/app/web/cfg/flags", #"{"beta":true,"ttl":3}"#)
        cluster.put("/app/web/cfg/limits", #"{"rps":250}"#)
        cluster.put("/app/web/cfg/motd", "Welcome aboard.\nMind the step.")
        cluster.put("/app/web/cfg/flags", #"{"beta":true,"ttl":30,"regions":["eu","us"],"owner":null}"#)
        for index in 1...40 { cluster.put("/app/batch/job/\(index)", "queued") }
        cluster.put("/app/api/quota/eu", "12")
        cluster.put("/app/api/quota/us", "88")
        cluster.put("/locks/build/7a31", "runner-12", lease: 0x7a31)
        cluster.put("/svc/api/10.0.0.7:8080", #"{"w":100}"#, lease: 0x12)
        cluster.put("/svc/api/10.0.0.9:8080", #"{"w":100}"#, lease: 0x12)
        cluster.put(KeyBytes([0x62, 0x69, 0x6e, 0x00, 0xff]), [0, 1, 2, 0xff, 0x41])
        cluster.put("registry", "plain key without a separator")
    }

    /// A minute of the Overview's life: rates, a workload, an election.
    static func live(_ session: inout Session, seconds: Int = 60) {
        session.tell(.cluster(session.model.cluster))
        var revision = session.model.cluster.revision ?? 0
        session.tell(.events([ClusterEvent(id: 1, at: session.model.now, kind: .note("3 nodes started in 210ms", isBad: false)), ClusterEvent(id: 2, at: session.model.now.advanced(byMilliseconds: 300), kind: .elected(leader: "n1", previous: nil, fromTerm: nil, term: 11, unavailableMilliseconds: nil, toleranceMilliseconds: nil)), ClusterEvent(id: 3, at: session.model.now.advanced(byMilliseconds: 900), kind: .workload(isOn: true))]))
        for second in 0..<seconds {
            var state = session.model.cluster
            revision += Int64(300 + (second * 37) % 140 + (second % 7 == 0 ? 90 : 0))
            let isGap = second == 40
            if !isGap { state.revision = revision }
            for index in state.members.indices {
                state.members[index].sampledAt = session.model.now
                state.members[index].role = second < 40 ? (index == 0 ? .leader : .follower) : (index == 2 ? .leader : .follower)
                if second >= 40, index == 0 { state.members[index].health = .down(since: session.model.now.advanced(byMilliseconds: -Int64(second - 40) * 1_000), reason: "killed") }
                if isGap, index == 2 { state.members[index].role = .candidate }
                let commit = UInt64(48_230 + second * 300)
                state.members[index].commit = commit
                state.members[index].applied = commit - (index == 1 ? 9 : 0)
                state.members[index].lastIndex = commit + (index == 2 ? 4 : 0)
                state.members[index].term = second < 40 ? 11 : 12
            }
            session.tell(.cluster(state))
            let jitter = (second * 53) % 17
            session.tell(.workload(WorkloadSample(at: session.model.now, put: isGap ? nil : .init(count: 50, p50Microseconds: 1_500 + jitter * 60, p99Microseconds: 3_100 + jitter * 220, maxMicroseconds: second == 41 ? 1_083_000 : 5_200),
                read: .init(count: 50, p50Microseconds: 380 + jitter * 9, p99Microseconds: 900 + jitter * 40, maxMicroseconds: 1_900), failed: isGap ? 3 : 0, putBuckets: isGap ? [0, 0, 0, 0, 0, 0, 0, 0, 0] : [0, 4, 28, 14, 3, 1, 0, second == 41 ? 1 : 0, 0])))
            if second == 40 {
                session.tell(.events([ClusterEvent(id: 10, at: session.model.now.advanced(byMilliseconds: 31), kind: .memberDown(member: "n1", reason: "killed", byYou: true, wasLeader: true))]))
            }
            if second == 41 {
                session.tell(.events([ClusterEvent(id: 11, at: session.model.now.advanced(byMilliseconds: 114), kind: .elected(leader: "n3", previous: "n1", fromTerm: 11, term: 12, unavailableMilliseconds: 1_083, toleranceMilliseconds: nil))]))
            }
            session.wait(1_000)
        }
        session.tell(.cluster(session.model.cluster))
    }
}

extension Sample {
    static func id(_ index: Int) -> UInt64 { [0x8211_f1d0_f64f_3269, 0xfd42_2379_fda5_0e48, 0x91bc_3c39_8fb3_c146, 0x8e9e_05c5_2164_694d, 0xa826_6ecf_0316_71f3][index] }

    /// Five nodes under load, n1 killed while it led, n5 with a slow disk behind a slow link; scenarios to choose.
    static func chaos(_ session: inout Session) {
        session.tell(.cluster(cluster(now: session.model.now, nodes: 5)))
        live(&session)
        let now = session.model.now
        var state = session.model.cluster
        state.members[4].applied = state.members[4].commit.map { $0 - 242 }
        state.members[4].lastIndex = state.members[4].applied.map { $0 + 40 }
        session.tell(.cluster(state))
        session.tell(.faults([
            ActiveFault(id: 1, fault: .kill(id(0)), since: now.advanced(byMilliseconds: -20_000)),
            ActiveFault(id: 3, fault: .disk(id(4), .slow(milliseconds: 20)), since: now.advanced(byMilliseconds: -125_000), ends: now.advanced(byMilliseconds: 1_675_000)),
            ActiveFault(id: 4, fault: .wire(from: id(4), to: nil, WireFault(delayMilliseconds: 40, jitterMilliseconds: 5)), since: now.advanced(byMilliseconds: -71_000)),
            ActiveFault(id: 5, fault: .cut(from: id(1), to: id(3)), since: now.advanced(byMilliseconds: -9_000), ends: now.advanced(byMilliseconds: 21_000), by: "flapping-link"),
        ]))
        session.tell(.scenarios([
            ScenarioSummary(name: "leader-killed", title: "Leader killed five times", description: "Kills whoever leads, five times, and waits each time until writes go on. No acknowledged write may be lost."),
            ScenarioSummary(name: "leader-in-minority", title: "Leader in the minority", description: "Cuts the leader and one follower off from the others."),
            ScenarioSummary(name: "rolling-restart", title: "Rolling restart", description: "Restarts every node, one after the other."),
            ScenarioSummary(name: "slow-disk", title: "Slow disk on the leader", description: "The leader's disk gets slow until it hands over."),
            ScenarioSummary(name: "flapping-link", title: "Flapping link", description: "A link that comes and goes each second."),
            ScenarioSummary(name: "full-disk", title: "Full disk", description: "A follower's disk is full.", obstacle: "needs disk faults"),
        ]))
        samples(&session)
        session.tell(.events([
            ClusterEvent(id: 20, at: now.advanced(byMilliseconds: -9_000), kind: .faultOn("n2 → n4 cut")),
            ClusterEvent(id: 21, at: now.advanced(byMilliseconds: -4_000), kind: .note("n5 is a snapshot behind: one is being sent", isBad: false)),
        ]))
        var sample = session.model.workload.last!
        sample.verdict = ConsistencyVerdict(acknowledgedWrites: 48_101, confirmedWrites: 48_040, checkedReads: 96_311, unknownWrites: 3)
        sample.settings = WorkloadSettings(putsPerSecond: 400, readsPerSecond: 2_000, clients: 32)
        sample.retried = 41
        session.tell(.workload(sample))
    }

    /// What the nodes tell of themselves now: n3 leads; n1 tells nothing.
    static func samples(_ session: inout Session) {
        let at = session.model.now.milliseconds * 1_000
        let cluster = session.model.cluster
        var list: [NodeSample] = []
        for (index, member) in cluster.members.enumerated() where member.isUp {
            let commit = member.commit ?? 0
            var sample = NodeSample(node: member.id, atMicroseconds: at, role: member.role, term: 12, vote: id(2), leader: id(2), commit: commit, applied: member.applied ?? 0, lastIndex: commit + 4, durable: commit + (index == 4 ? 0 : 4))
            if member.role == .leader {
                sample.uncommittedBytes = 4_100
                sample.pendingRequests = 9
                sample.peers = cluster.members.indices.filter { $0 != index }.map { peer in
                    let isDown = !cluster.members[peer].isUp
                    let behind: UInt64 = peer == 4 ? 242 : 0
                    return NodeSample.Peer(id: cluster.members[peer].id, phase: isDown ? .probe : .replicate, match: isDown ? commit - 9_000 : commit + 4 - behind, next: commit + 5 - behind,
                                           inFlightMessages: isDown ? 0 : peer == 4 ? 12 : 1, inFlightBytes: isDown ? 0 : peer == 4 ? 61_000 : 840, roundTripMicroseconds: isDown ? nil : peer == 4 ? 41_000 : 380 + 70 * peer, isActive: !isDown)
                }
            } else {
                sample.timerLengthMicroseconds = 1_000_000 + Int64(index) * 130_000
                sample.timerLeftMicroseconds = 930_000 - Int64(index) * 90_000
            }
            list.append(sample)
        }
        session.tell(.samples(list))
    }

    static func logs(_ session: inout Session) {
        if session.model.cluster.members.count < 5 { session.tell(.cluster(cluster(now: session.model.now, nodes: 5))) }
        session.tell(.cluster(session.model.cluster))
        let start = session.model.now.advanced(byMilliseconds: -60_000)
        let lines: [(UInt64, LogLine.Level, String, String)] = [
            (id(0), .info, "raft", "became leader at term 11, first index 47,310"), (id(4), .debug, "wal", "cut segment 00000012.wal at 64 MiB"),
            (id(1), .info, "raft", "voted for n1 in term 11"), (id(2), .warning, "peer", "n5 answers slowly: 41 ms"),
            (id(4), .warning, "wal", "fsync took 21.3 ms, more than 10 ms"), (0, .info, "journal", "fault #3 on: n5 disk: fsync +20 ms"),
            (id(0), .critical, "process", "killed by signal 9"), (0, .info, "journal", "kill n1 (by you)"),
            (id(2), .info, "raft", "election timeout after 1,040 ms, asking for pre-votes of term 12; the last entry heard of was 48,101 of term 11, and n2, n4 and n5 are known to be alive since their last answers"),
            (id(1), .info, "raft", "pre-vote for n3, term 12, granted"), (id(3), .info, "raft", "voted for n3 in term 12 (was n1 in 11)"),
            (id(2), .info, "raft", "became leader at term 12, first index 48,102"), (id(3), .error, "peer", "n1: connection refused"),
        ]
        session.tell(.logs((0..<120).map { index in
            let line = lines[(index * 5 + index / 13) % lines.count]
            return LogLine(at: start.advanced(byMilliseconds: Int64(index) * 493), node: line.0, level: line.1, part: line.2, text: line.3)
        }))
    }
}

enum Format3 {
    static func pad(_ value: Int) -> String { String(repeating: "0", count: max(0, 3 - String(value).count)) + String(value) }
}
