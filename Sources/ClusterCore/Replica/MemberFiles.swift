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
}

/// A member's files: `member/log` (the write-ahead log) and the backends of `stores` (the highest complete one counts).
public struct MemberFiles {
    public let dataDirectory: String
    public let disk: any Disk
    public let stores: any StoreFiles
    public var logOptions = LogOptions()

    public init(dataDirectory: String, disk: any Disk, stores: any StoreFiles) {
        self.dataDirectory = dataDirectory
        self.disk = disk
        self.stores = stores
    }

    public static func logDirectory(in dataDirectory: String) -> String { dataDirectory + "/member/log" }
    public var logDirectory: String { MemberFiles.logDirectory(in: dataDirectory) }

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
        case log(LogError)
        case other(String)
        public var description: String {
            switch self {
            case .unusable(let text), .other(let text): text
            case .mayNotFound: "there is no member here"
            case .log(let error): "\(error)"
            }
        }
    }

    /// Opens what is there, or founds a new member.
    /// - Parameters:
    ///   - members: whom a new member takes for the cluster's founders.
    ///   - mayFound: false for a member that was told to join a cluster that exists: founding one beside it would split it.
    public func open(identity: LogIdentity, members: [Member], mayFound: Bool) throws(Fault) -> Opened {
        do {
            if try disk.exists(dataDirectory + "/member/snap/db") {
                throw Fault.unusable("\(dataDirectory) holds the data of a real etcd member, which this program does not read: choose another --data-dir")
            }
            var found: (number: UInt64, backend: any Backend, reader: any BackendReader)?
            // Superseded by a snapshot; removed only when the log has followed, since their presence tells that it may not have.
            var superseded: [UInt64] = []
            for number in try stores.numbers().sorted(by: >) {
                if found != nil {
                    superseded.append(number)
                    continue
                }
                let backend = try stores.open(number)
                let reader = try backend.makeReader()
                if try ReplicaState.position(in: reader) != nil {
                    found = (number, backend, reader)
                } else {
                    // A copy that never became complete.
                    reader.release()
                    stores.remove(number)
                }
            }
            let hasLog = try WriteAheadLog.exists(directory: logDirectory, disk: disk)
            if found == nil {
                guard !hasLog else {
                    throw Fault.unusable("\(dataDirectory) has a log but no store: restore the missing files, or clear the directory and add this member anew")
                }
                guard mayFound else { throw Fault.mayNotFound }
                let backend = try stores.open(1)
                try backend.commit(ReplicaState.bootstrap(members))
                try stores.sync()
                found = (1, backend, try backend.makeReader())
            }
            let (number, backend, reader) = found!
            var log: WriteAheadLog
            var recovered: RecoveredLog
            let state = try ReplicaState.load(from: reader)
            if hasLog {
                (log, recovered) = try WriteAheadLog.open(directory: logDirectory, disk: disk, identity: identity, options: logOptions)
            } else {
                guard state.applied == .zero else {
                    throw Fault.unusable("\(dataDirectory) has a store but no log: restore the missing files, or clear the directory and add this member anew")
                }
                log = try WriteAheadLog.create(directory: logDirectory, disk: disk, identity: identity, options: logOptions)
                recovered = RecoveredLog(hardState: HardState(), start: .zero, entries: [])
            }
            let restart = try reconcile(&log, recovered, with: state, followsSnapshot: !superseded.isEmpty)
            for number in superseded { stores.remove(number) }
            return Opened(log: log, backend: backend, storeNumber: number, state: state, restart: restart, repair: recovered.repair, isNew: !hasLog)
        } catch let error as Fault {
            throw error
        } catch let error as LogError {
            throw .log(error)
        } catch {
            throw .other("data directory \(dataDirectory): \(error)")
        }
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
