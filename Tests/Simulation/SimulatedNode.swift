import Base
import Log
import Raft
import Replica
import Store

/// The clocks of one node as a function of true time.
struct SimulatedClock {
    private var anchor: Moment = 0
    private var reading: Int64 = 1_000_000_000
    /// How much faster than true time it runs, per million.
    private(set) var driftPPM: Int64 = 0
    var wallOffsetMilliseconds: Int64 = 0

    func now(_ time: Moment) -> Instant { Instant(nanoseconds: reading + scaled(time - anchor)) }
    func wall(_ time: Moment) -> WallTime { WallTime(milliseconds: 1_700_000_000_000 + wallOffsetMilliseconds + time / 1_000_000) }
    private func scaled(_ span: Int64) -> Int64 { span + Int64((Double(span) * Double(driftPPM) / 1e6).rounded()) }

    /// When the clock will show `deadline`, in true time.
    func moment(of deadline: Instant) -> Moment {
        if deadline == .distantFuture { return .max }
        let left = deadline.nanoseconds - reading
        return anchor + Int64((Double(left) / (1 + Double(driftPPM) / 1e6)).rounded(.up))
    }
    mutating func setDrift(_ ppm: Int64, at time: Moment) {
        reading = now(time).nanoseconds
        anchor = time
        driftPPM = ppm
    }
    /// The machine was suspended, or its timer jumped.
    mutating func leap(_ span: Int64, at time: Moment) {
        reading = now(time).nanoseconds + span
        anchor = time
    }
}

/// One machine of the simulated cluster: a disk, clocks, and at times a process with a member in it.
final class SimulatedNode {
    fileprivate(set) var id: MemberID
    let number: Int
    var disk = MemoryDisk()
    var stores: SimulatedStores
    var clock = SimulatedClock()
    /// Counts processes; what belongs to an earlier one is dropped.
    var life = 0
    var process: Process?
    var isPaused = false
    /// The disk completes nothing before.
    var stuckUntil: Moment = 0
    /// The same for the log alone, which may have a disk of its own.
    var logStuckUntil: Moment = 0
    /// Disk operations take this many times as long.
    var slowness: Int64 = 1
    /// Part of the cluster: starts with it, or was added. One that was removed or lost its data never comes back.
    var isMember: Bool
    var isLost = false
    /// Its disk is not empty any more.
    var hasBooted = false
    /// Whom it was told of when it joined; nil: a founder.
    private(set) var contacts: [Member]?
    /// Up to here a snapshot was made durable in the store, whether or not the log has followed.
    var installedThrough: UInt64 = 0
    /// What its store holds at least: the oldest that it may still show to somebody.
    var lowestRevision: Int64 = 1
    /// A disk fault struck since the last start that worked.
    var hadDiskFault = false
    /// Its data may be damaged: then it may refuse to start.
    var mayRefuse = false

    /// What it must remember, whatever happens to the process: checked when it starts again.
    var durable = ShadowLog()
    /// `durable` after the write that was under way when the process ended.
    var durableAfterWrite: ShadowLog?

    var dataDirectory: String { "/n\(number)" }

    init(id: MemberID, number: Int, isMember: Bool) {
        self.id = id
        self.number = number
        self.isMember = isMember
        stores = SimulatedStores(disk: disk, dataDirectory: "/n\(number)")
    }

    /// The machine loses power: of what was not synced, anything may survive.
    func losePower(using generator: inout SeededGenerator) {
        replaceDisk(disk.crash(.chosen, using: &generator))
    }

    /// Another disk takes the place of the present one, with the stores whose files are on it.
    func replaceDisk(_ new: MemoryDisk) {
        stores = stores.moved(to: new)
        disk = new
    }

    /// An empty disk, and the id that the cluster gave to the member that will start on it.
    func becomeNew(_ id: MemberID, contacts: [Member]) {
        self.id = id
        self.contacts = contacts
        disk = MemoryDisk()
        stores = SimulatedStores(disk: disk, dataDirectory: dataDirectory)
        durable = ShadowLog()
        durableAfterWrite = nil
        hasBooted = false
        isMember = true
        isLost = false
        mayRefuse = false
        installedThrough = 0
        lowestRevision = 1
    }

    /// A running member: the machine and what the shell around it keeps.
    final class Process {
        let replica: Replica
        let log: WriteAheadLog
        var backend: any Backend
        /// Of the store in use.
        var storeNumber: UInt64
        var effects = ReplicaEffects()
        var mailbox: [ReplicaEvent] = []
        var isTurnDue = false
        var timerAt: Moment = .max
        /// Only the latest timer counts.
        var timerNumber = 0
        var logJobs: [LogJob] = []
        var logInFlight: [LogJob] = []
        var commitInFlight: BackendCommit?
        /// The revision that the commit in flight has at least.
        var commitRevision: Int64 = 1
        /// A loaded snapshot that waits for the commit in flight.
        var waitingInstall: (() -> Void)?
        /// What is in the machine's log, written or not.
        var shadow: ShadowLog
        var seen = Seen()
        init(replica: Replica, log: WriteAheadLog, backend: any Backend, storeNumber: UInt64, shadow: ShadowLog) {
            self.replica = replica
            self.log = log
            self.backend = backend
            self.storeNumber = storeNumber
            self.shadow = shadow
        }
    }

    /// What was seen of a process after its latest turn.
    struct Seen {
        var term: UInt64 = 0
        var vote: UInt64 = 0
        var role = Role.follower
        var commit: UInt64 = 0
        var applied: UInt64 = 0
        var revision: Int64 = 0
        var authRevision: UInt64 = 0
        var isAuthEnabled = false
        /// The newest in its log; nil before the first turn.
        var configuration: Configuration?
    }
}

/// Terms of a member's log entries and its hard state, followed from what the machine hands to the disk.
struct ShadowLog {
    var hardState = HardState()
    private(set) var start: UInt64 = 0
    private(set) var startTerm: UInt64 = 0
    /// Terms of start + 1, start + 2, ...
    private var terms: [UInt64] = []
    /// The configurations of what is held, oldest first: one that holds from the start on, and those of entries behind it.
    private var configurations: [(index: UInt64, configuration: Configuration)] = [(0, Configuration(voters: []))]
    /// What a snapshot that is being installed says, for the reset that follows.
    var snapshotConfiguration: Configuration?

    var last: UInt64 { start + UInt64(terms.count) }
    var lastTerm: UInt64 { terms.last ?? startTerm }
    /// The newest in the log, committed or not: the one that counts. (Raft §4.1)
    var configuration: Configuration { configurations[configurations.count - 1].configuration }

    /// nil outside of what is held.
    func term(at index: UInt64) -> UInt64? {
        if index == start { return startTerm }
        guard index > start, index <= last else { return nil }
        return terms[Int(index - start - 1)]
    }

    mutating func reset(to position: LogPosition) {
        start = position.index.rawValue
        startTerm = position.term.rawValue
        terms.removeAll()
        configurations = [(start, snapshotConfiguration ?? configuration)]
        snapshotConfiguration = nil
    }

    mutating func take(_ batch: PersistBatch) {
        if let state = batch.hardState { hardState = state }
        if let position = batch.reset { reset(to: position) }
        guard let first = batch.entries.first?.index.rawValue else { return }
        if first <= last {
            terms.removeLast(Int(last - first + 1))
            while configurations.count > 1, configurations[configurations.count - 1].index >= first { configurations.removeLast() }
        }
        for entry in batch.entries {
            terms.append(entry.term.rawValue)
            if entry.kind == .configuration { configurations.append((entry.index.rawValue, configuration.applying(entryPayload: entry.payload))) }
        }
    }

    /// Forgets what lies at or before `index`.
    mutating func trim(through index: UInt64) {
        guard index > start + 512, index <= last, let term = term(at: index) else { return }
        terms.removeFirst(Int(index - start))
        start = index
        startTerm = term
        while configurations.count > 1, configurations[1].index <= index { configurations.removeFirst() }
    }

    init() {}
    init(_ restart: RaftRestart) {
        hardState = restart.hardState
        start = restart.start.index.rawValue
        startTerm = restart.start.term.rawValue
        terms = restart.entries.map(\.term.rawValue)
        configurations = [(restart.applied.rawValue, restart.configuration)]
        for entry in restart.entries where entry.kind == .configuration && entry.index > restart.applied {
            configurations.append((entry.index.rawValue, configuration.applying(entryPayload: entry.payload)))
        }
    }
}
