/// The views of the console, in the order of their number keys. Those not in this version keep their place.
public enum ViewID: Int, CaseIterable, Hashable, Sendable {
    case overview = 1, keys, watch, elections, latency, members, leases, access, chaos, log

    var isImplemented: Bool {
        switch self {
        case .overview, .keys, .watch, .elections, .latency, .chaos, .log: true
        case .members, .leases, .access: false
        }
    }
    var keyLabel: String { self == .log ? "0" : String(rawValue) }

    var title: String {
        switch self {
        case .overview: "Overview"
        case .keys: "Keys"
        case .watch: "Watch"
        case .elections: "Elections"
        case .latency: "Latency"
        case .members: "Members"
        case .leases: "Leases"
        case .access: "Access"
        case .chaos: "Chaos"
        case .log: "Log"
        }
    }

    /// Fits 80 columns with all ten.
    var shortTitle: String {
        switch self {
        case .overview: "Overview"
        case .elections: "Elect"
        case .latency: "Perf"
        case .members: "Memb"
        case .leases: "Lease"
        case .access: "Auth"
        default: title
        }
    }
}

/// A part of a view that can have the keyboard.
enum Panel: Hashable, Sendable {
    case nodes, events
    case tree, value, history
    case watchList, stream
    case timeline, steps, cost, elections
    case heat, stages, fsync, rates, slow
    case links, newFault, activeFaults, scenarios, load, happened
    case log
}

/// A line that says what just happened, at the right of the crumbs row.
struct Toast: Hashable, Sendable {
    var text: String
    var slot: Slot
    var at: Moment
    /// Bad news stays longer.
    var milliseconds: Int64 { slot == .bad || slot == .warn ? 8_000 : 5_000 }
}

/// The whole state of the console. Changed only by `update`, drawn only by `view`.
public struct Model: Sendable {
    // MARK: The terminal
    public internal(set) var size: Size
    public internal(set) var now: Moment
    /// Seconds to add to UTC for the clock on the screen.
    public var timeZoneOffsetSeconds = 0
    public internal(set) var theme: Theme
    /// Names the palette offers; set by the app from the files it found.
    public var themeNames: [String] = [Theme.quarterdeckDark.name]
    public var glyphs: GlyphSet
    /// `--read-only`: no command that changes the cluster is ever emitted.
    public let isReadOnly: Bool
    var isFocused = true

    // MARK: The cluster
    public internal(set) var cluster: ClusterState
    var hasClusterData = false
    var clusterHeardAt: Moment?
    /// Newest last; at most `eventLimit`.
    var events: [ClusterEvent] = []
    var rates = RateSeries()
    var workload = WorkloadSeries()
    /// Leases shown somewhere, by last answer.
    var leases: [LeaseState] = []

    // MARK: Where the person is
    var screen: ViewID = .overview
    var lastScreen: ViewID = .overview
    var panel: Panel = .nodes
    /// The focused panel fills the body.
    var isEnlarged = false
    var overlay: Overlay?
    var toast: Toast?
    var overview = OverviewState()
    var keys: KeysState
    var watch = WatchState()
    var elections = ElectionsState()
    var latency = LatencyState()
    var chaos = ChaosState()
    var log = LogState()

    // MARK: What was heard, for several views
    /// The newest of each node.
    var samples: [UInt64: NodeSample] = [:]
    /// Oldest first.
    var faults: [ActiveFault] = []
    var faultSupport = FaultSupport()
    var isCanaryOn = false
    /// nil until the canary ran.
    var canaryCheck: CanaryCheck?
    var scenarios: [ScenarioSummary] = []
    /// The one that runs, or the last that ran.
    var scenario: ScenarioProgress?
    /// When its last news came: what has ended is told for a while.
    var scenarioHeardAt: Moment?
    var recordingPath: String?
    /// Set in a replay.
    var replay: ReplayState?
    /// A jump that was asked for and not heard yet: the next one starts from there.
    var replayTarget: Moment?
    var paletteHistory: [String] = []

    // MARK: Requests under way
    private var lastRequest: UInt64 = 0
    var pendingWrites: [PendingWrite] = []
    var undoStack: [UndoStep] = []

    static let eventLimit = 500
    static let undoLimit = 100

    /// - Parameter cluster: what is known before the first answer: its name, kind and, for a playground, its members' names.
    public init(size: Size, now: Moment, cluster: ClusterState, theme: Theme = .quarterdeckDark, glyphs: GlyphSet = .unicode, isReadOnly: Bool = false, separator: UInt8? = UInt8(ascii: "/")) {
        self.size = size
        self.now = now
        self.theme = theme
        self.glyphs = glyphs
        self.isReadOnly = isReadOnly
        self.cluster = cluster
        if isReadOnly { self.cluster.mode = .readOnly }
        keys = KeysState(separator: separator)
        elections.observe(cluster, at: now)
    }

    /// The mode that counts: read-only wins over what the cluster allows, and what is recorded cannot be changed.
    var mode: WriteMode { isReadOnly || replay != nil ? .readOnly : cluster.mode }

    /// True after the person asked to leave (`Command.quit` was emitted).
    public internal(set) var isQuitting = false

    /// When the screen will change, or a command become due, without any further event; nil: nothing is waiting. The runtime sends
    /// `.tick` then. The clock of the header counts, so this is at most a second away; unfocused terminals tick as rarely.
    public var nextDeadline: Moment? {
        var due = now.advanced(byMilliseconds: 1_000 - ((now.milliseconds % 1_000) + 1_000) % 1_000)
        if let preview = keys.previewDue { due = min(due, preview) }
        if let search = keys.searchDue { due = min(due, search) }
        // The timeline moves by columns.
        if screen == .elections, elections.right == nil { due = min(due, now.advanced(byMilliseconds: max(250, elections.perColumn / 1_000))) }
        return max(due, now.advanced(byMilliseconds: 1))
    }

    mutating func newRequest() -> RequestID {
        lastRequest += 1
        return RequestID(number: lastRequest)
    }

    mutating func say(_ text: String, _ slot: Slot = .ok) { toast = Toast(text: text, slot: slot, at: now) }

    /// The first commands of a session: the app carries them out when the first frame is on the screen.
    public mutating func start() -> [Command] { [.refresh] }
}

/// A write whose answer is awaited, with what is needed to understand the answer.
struct PendingWrite: Hashable, Sendable {
    enum Kind: Hashable, Sendable {
        case put(key: KeyBytes, value: [UInt8], fromEditor: Bool)
        case delete(key: KeyBytes)
        case rename(from: KeyBytes, to: KeyBytes)
        case deleteKeys(count: Int)
        case deletePrefix(KeyBytes)
        case undo(UndoStep)
        case node(String)
        case workload(Bool)
        case canary(Bool)
        case fault(String)
        case scenario(String)
        case export(String)
        case record(isOn: Bool)
        case copy(String)
        case save(String)
        case screen
    }

    var request: RequestID
    var kind: Kind
    var since: Moment
    /// A warning that belongs to the receipt ("the quorum is lost").
    var remark: String?

    var verb: String {
        switch kind {
        case .put: "put"
        case .delete, .deleteKeys, .deletePrefix: "delete"
        case .rename: "rename"
        case .undo: "undo"
        case .node(let what): what
        case .workload: "workload"
        case .canary: "canary"
        case .fault(let what): what
        case .scenario: "scenario"
        case .export: "export"
        case .record: "recording"
        case .copy: "copy"
        case .save: "save"
        case .screen: "screen"
        }
    }
}

/// How to take a write back.
struct UndoStep: Hashable, Sendable {
    enum Change: Hashable, Sendable {
        /// We wrote `key`, now at `modRevision`; before it was `previous`, or nothing.
        case put(key: KeyBytes, modRevision: Int64, previous: KeyValue?)
        /// We removed these.
        case removed([KeyValue])
        case renamed(from: KeyBytes, to: KeyBytes, value: [UInt8], lease: UInt64, modRevision: Int64)
    }

    var title: String
    var change: Change
}

/// State of the Overview.
struct OverviewState: Hashable, Sendable {
    /// Index into `cluster.members`.
    var selection = 0
    var eventScroll = 0
}

/// What a member can be, for lanes, tables and pips.
enum RoleLanes {
    enum State: Hashable, Sendable {
        case unknown, leader, follower, preCandidate, candidate, learner, paused, isolated, down
    }

    static func state(of member: MemberState) -> State {
        switch member.health {
        case .down: return .down
        case .starting: return .unknown
        case .paused: return .paused
        case .isolated: return .isolated
        case .up: break
        }
        return state(of: member.role)
    }
}

/// Revisions per second, from the cluster's revision against the clock: real with any workload, ours or not.
struct RateSeries: Hashable, Sendable {
    static let seconds = 600
    /// One entry a second, oldest first; nil while nothing was heard.
    private(set) var perSecond: [Int?] = []
    private var lastRevision: Int64?
    private var secondStart: Moment?
    private var atSecondStart: Int64?

    mutating func observe(revision: Int64?) {
        // Servers may say anything.
        if let revision = revision?.clamped(to: 0...Int64(Bounds.index.upperBound)) { lastRevision = max(revision, lastRevision ?? revision) }
    }

    /// Closes the seconds that ended before `now`.
    mutating func advance(to now: Moment) {
        guard let start = secondStart else {
            secondStart = now
            atSecondStart = lastRevision
            return
        }
        // The clock was set back.
        if now < start { secondStart = now }
        let elapsed = Int((now - start) / 1_000)
        guard elapsed >= 1 else { return }
        var delta: Int?
        if let from = atSecondStart, let to = lastRevision { delta = Int(max(0, to - from)) / elapsed }
        for _ in 0..<min(elapsed, RateSeries.seconds) { perSecond.append(delta) }
        if perSecond.count > RateSeries.seconds { perSecond.removeFirst(perSecond.count - RateSeries.seconds) }
        secondStart = start.advanced(byMilliseconds: Int64(elapsed) * 1_000)
        atSecondStart = lastRevision
    }
}

/// The built-in workload's last minutes.
struct WorkloadSeries: Hashable, Sendable {
    static let seconds = 600
    var isOn = false
    /// A switch was asked for and not answered yet.
    var isSwitching = false
    /// What it does, or will do when switched on.
    var settings = WorkloadSettings()
    private(set) var samples: [WorkloadSample] = []

    mutating func append(_ sample: WorkloadSample) {
        samples.append(sample)
        if samples.count > WorkloadSeries.seconds { samples.removeFirst(60) }
    }

    var last: WorkloadSample? { samples.last }

    /// Put latencies of the last `count` seconds, summed by bucket.
    func buckets(last count: Int) -> [Int] {
        var sum = [Int](repeating: 0, count: WorkloadSample.bucketBoundsMicroseconds.count + 1)
        for sample in samples.suffix(count) {
            for (index, value) in sample.putBuckets.prefix(sum.count).enumerated() { sum[index] += value }
        }
        return sum
    }
}
