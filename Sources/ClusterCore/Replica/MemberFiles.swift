import Base
import Log
import Raft
import Store

/// Where a member keeps its backends. The real one is a directory of LMDB files; the simulator's loses what was not synced.
public protocol StoreFiles {
    /// The numbers that are there, in any order. A snapshot from the leader arrives under a new number beside the one in use.
    func numbers() throws -> [UInt64]
    /// Opens, or creates when missing.
    func open(_ number: UInt64) throws -> any Backend
    /// Opens one that is there, changing nothing; for inspection.
    func openForReading(_ number: UInt64) throws -> any Backend
    /// What cannot be removed now is tried again at the next start.
    func remove(_ number: UInt64)
    /// Makes the names durable.
    func sync() throws
}

extension StoreFiles {
    public func openForReading(_ number: UInt64) throws -> any Backend { try open(number) }

    /// Makes ready for `Replica.install` what a snapshot stream has put together: loads it, and makes its name as durable as its contents are. Until
    /// then the log must not follow it.
    public func adopt(_ backend: any Backend) throws -> (state: ReplicaState, reader: any BackendReader) {
        let reader = try backend.makeReader()
        let state = try ReplicaState.load(from: reader)
        if !planted(.installsSnapshotBeforeItsNameIsDurable) { try sync() }
        return (state, reader)
    }
}

/// A member's files: the write-ahead log (`member/log`, or a directory of its own) and the backends of `stores` (the highest complete one counts).
public struct MemberFiles {
    public let dataDirectory: String
    public let logDirectory: String
    public let disk: any Disk
    public let stores: any StoreFiles
    public var logOptions = LogOptions()

    /// - Parameter logDirectory: nil: below the data directory.
    public init(dataDirectory: String, logDirectory: String? = nil, disk: any Disk, stores: any StoreFiles) {
        self.dataDirectory = dataDirectory
        self.logDirectory = logDirectory ?? MemberFiles.logDirectory(in: dataDirectory)
        self.disk = disk
        self.stores = stores
    }

    public static func logDirectory(in dataDirectory: String) -> String { dataDirectory + "/member/log" }
    /// Whether somebody has been a member with this directory. For before it is opened: any file counts.
    public static func hasLog(in dataDirectory: String, logDirectory: String? = nil, disk: any Disk) -> Bool {
        (try? WriteAheadLog.exists(directory: logDirectory ?? MemberFiles.logDirectory(in: dataDirectory), disk: disk)) ?? true
    }

    /// Everything that a member starts from, consistent and durable.
    public struct Opened {
        public var log: WriteAheadLog
        public var backend: any Backend
        public var storeNumber: UInt64
        public var state: ReplicaState
        public var restart: RaftRestart
        public var repair: TailRepair?
        public var isNew: Bool
    }

    /// Why a member cannot start from its files. Every text names what is wrong and the remedy.
    public enum Fault: Error, CustomStringConvertible {
        /// A real etcd's data, a missing half, or halves that do not fit together.
        case unusable(String)
        /// There is no member here and none may be founded.
        case mayNotFound
        /// The member was removed from its cluster: its data is of no use any more.
        case removed
        case log(LogError)
        case other(String)
        public var description: String {
            switch self {
            case .unusable(let text), .other(let text): text
            case .mayNotFound: "there is no member here"
            case .removed: "the member has been permanently removed from the cluster; the data-dir used by this member must be removed"
            case .log(let error): "\(error)"
            }
        }
    }

    /// Opens what is there, or founds a new member.
    /// - Parameters:
    ///   - members: whom a new member takes for the cluster's founders.
    ///   - mayFound: false for a member that was told to join a cluster that exists: founding one beside it would split it.
    ///   - contacts: the members of a cluster that exists and has this one in its table: a new member joins them instead of founding.
    ///   - forcesNewCluster: everybody but this member is out of the cluster from now on. What its log holds counts as committed: some of it
    ///     may have been acknowledged, and nobody can tell any more. (etcd's last resort after the quorum is gone for good)
    public func open(identity: LogIdentity, members: [Member], mayFound: Bool, contacts: [Member]? = nil,
                     forcesNewCluster: Bool = false) throws(Fault) -> Opened {
        do {
            if try disk.exists(dataDirectory + "/member/snap/db") {
                throw Fault.unusable("\(dataDirectory) holds the data of a real etcd member, which this program does not read: choose another --data-dir")
            }
            try checkLogDirectory()
            var (found, others) = try findStore()
            let hasLog = try WriteAheadLog.exists(directory: logDirectory, disk: disk)
            if found == nil {
                guard !hasLog else {
                    throw Fault.unusable("\(logDirectory) has a log, but \(dataDirectory) no store: restore the missing files, or clear the directory and add this member anew")
                }
                guard mayFound || contacts != nil else { throw Fault.mayNotFound }
                let backend = try stores.open(1)
                try backend.commit(contacts.map { ReplicaState.join($0) } ?? ReplicaState.bootstrap(members))
                try stores.sync()
                found = FoundStore(number: 1, backend: backend, reader: try backend.makeReader(), applied: .zero)
            } else if !planted(.startsOnStoreWithoutName) {
                // The process that made it may have died before its name was durable; the log must not follow it before, nor others be removed.
                try stores.sync()
            }
            let store = found!
            // Their presence tells that the log may not have followed the snapshot that superseded them, so they stay until it has.
            let followsSnapshot = others.contains { $0 < store.number }
            if planted(.removesSupersededStoreFirst) { for number in others { stores.remove(number) } }
            var log: WriteAheadLog
            var recovered: RecoveredLog
            let state = try ReplicaState.load(from: store.reader)
            guard !state.membership.isRemoved(identity.member) else { throw Fault.removed }
            if hasLog {
                (log, recovered) = try WriteAheadLog.open(directory: logDirectory, disk: disk, identity: identity, options: logOptions)
            } else {
                guard state.applied == .zero else {
                    throw Fault.unusable("\(dataDirectory) has a store but no log: restore the missing files, or clear the directory and add this member anew")
                }
                try makeNamesDurable()
                log = try WriteAheadLog.create(directory: logDirectory, disk: disk, identity: identity, options: logOptions)
                recovered = RecoveredLog(hardState: HardState(), start: .zero, entries: [])
            }
            // Nothing was promised yet: this directory's log may still be taken for one that never was.
            try noteLogDirectory()
            var restart = try reconcile(&log, recovered, with: state, followsSnapshot: followsSnapshot)
            if forcesNewCluster {
                guard state.membership.member(identity.member) != nil else {
                    throw Fault.unusable("\(dataDirectory) holds no member that has joined its cluster: it cannot go on alone")
                }
                try standAlone(identity.member, &log, &restart)
            }
            for number in others { stores.remove(number) }
            return Opened(log: log, backend: store.backend, storeNumber: store.number, state: state, restart: restart, repair: recovered.repair, isNew: !hasLog)
        } catch let error as Fault {
            throw error
        } catch let error as LogError {
            throw .log(error)
        } catch {
            throw .other("data directory \(dataDirectory): \(error)")
        }
    }

    private struct FoundStore {
        var number: UInt64
        var backend: any Backend
        var reader: any BackendReader
        var applied: LogIndex
    }

    /// The complete store that is furthest, and the numbers of those that are not needed beside it. Not simply the newest: a snapshot that arrived
    /// whole may have been overtaken by the log meanwhile, and its copy, about to be thrown away, would miss what the log no longer has.
    private func findStore() throws -> (found: FoundStore?, others: [UInt64]) {
        var found: FoundStore?
        var others: [UInt64] = []
        for number in try stores.numbers().sorted(by: >) {
            let backend: any Backend
            do {
                backend = try stores.open(number)
            } catch {
                guard found != nil else { throw error }
                others.append(number)
                continue
            }
            let reader = try backend.makeReader()
            guard let applied = try ReplicaState.position(in: reader)?.position.index else {
                // A copy that never became complete.
                reader.release()
                stores.remove(number)
                continue
            }
            if let best = found {
                guard applied > best.applied else {
                    reader.release()
                    others.append(number)
                    continue
                }
                best.reader.release()
                others.append(best.number)
            }
            found = FoundStore(number: number, backend: backend, reader: reader, applied: applied)
        }
        return (found, others)
    }

    /// A new member's directories, all the way up: a power cut that took one of their names would take the member's votes with it, and it would
    /// found itself anew. Done before there is a log, and the log is there before anything is promised. (found by the simulator)
    private func makeNamesDurable() throws {
        if planted(.leavesDirectoriesUnsynced) { return }
        try stores.sync()
        try syncUpwards(from: dataDirectory + "/member", own: dataDirectory)
        if logDirectory != MemberFiles.logDirectory(in: dataDirectory), try disk.exists(logDirectory) { try syncUpwards(from: logDirectory, own: logDirectory) }
    }

    private func syncUpwards(from lowest: String, own: String) throws(DiskError) {
        var directory: String? = lowest
        while let path = directory {
            do throws(DiskError) {
                try disk.syncDirectory(path)
            } catch {
                // Above the directory that is its own stand some that others made, and may keep to themselves.
                guard path.utf8.count < own.utf8.count, MemberFiles.isForeign(error.code) else { throw error }
            }
            directory = WriteAheadLog.parentDirectory(path)
        }
    }

    /// EPERM, EACCES, EROFS: where nothing can be read or written, nothing was created a moment ago.
    private static func isForeign(_ code: Int32) -> Bool { code == 1 || code == 13 || code == 30 }
    /// Ends the log with an entry that makes the member the only one. A configuration counts from when it is in the log, so no one else
    /// is needed to elect it; and applying the entry changes the tables as with every other.
    private func standAlone(_ member: MemberID, _ log: inout WriteAheadLog, _ restart: inout RaftRestart) throws {
        let last = restart.entries.last.map { LogPosition(index: $0.index, term: $0.term) } ?? restart.start
        restart.hardState.term = max(restart.hardState.term, last.term, Term(1))
        let payload = Configuration(voters: [member]).bootstrapPayload(context: MembershipEntry(change: .alone(member)).encoded())
        let entry = Entry(index: last.index.next, term: restart.hardState.term, kind: .configuration, proposedAt: .unknown, payload: payload)
        restart.entries.append(entry)
        log.append(PersistBatch(ticket: PersistTicket(0), hardState: restart.hardState, entries: [entry]))
        try log.sync()
    }

    /// The store may be ahead of the log when a snapshot was installed and the process died before the log followed: the log then
    /// starts anew behind it. A store behind the log's beginning has lost data.
    private func reconcile(_ log: inout WriteAheadLog, _ recovered: RecoveredLog, with state: ReplicaState,
                           followsSnapshot: Bool) throws -> RaftRestart {
        let applied = state.applied
        var start = recovered.start
        var entries = recovered.entries
        if applied.index < start.index {
            throw Fault.unusable("the store in \(dataDirectory) ends at entry \(applied.index.rawValue) but the log begins behind "
                + "\(start.index.rawValue): clear the directory and add this member anew")
        }
        if recovered.term(at: applied.index) != applied.term {
            guard followsSnapshot, applied.index > start.index else {
                throw Fault.unusable("the log in \(dataDirectory) ends at entry \(recovered.last.index.rawValue) but the store holds \(applied.index.rawValue): the log has lost what it had acknowledged; clear the directory and add this member anew")
            }
            log.append(PersistBatch(ticket: PersistTicket(0), reset: applied))
            try log.sync()
            start = applied
            entries = []
        }
        return RaftRestart(hardState: recovered.hardState, configuration: state.configuration, start: start, entries: entries, applied: applied.index,
                           appliedTerm: applied.term)
    }
}
