import Base
import LMDBBackend
import Log
import PosixDisk
import Raft
import Replica
import Store

/// A member's files: `member/log` (the write-ahead log) and `member/store/NUMBER.lmdb` (the backend; the highest complete one counts,
/// since a snapshot from the leader arrives as a new file beside the old one).
struct NodeFiles {
    let dataDirectory: String
    let disk: any Disk
    var wrapBackend: @Sendable (any Backend) -> any Backend = { $0 }
    var logDirectory: String { dataDirectory + "/member/log" }
    var storeDirectory: String { dataDirectory + "/member/store" }

    /// Everything that a member starts from, consistent and durable.
    struct Opened {
        var log: WriteAheadLog
        var backend: any Backend
        var storeNumber: UInt64
        var state: ReplicaState
        var restart: RaftRestart
        var repair: TailRepair?
        var isNew: Bool
    }

    func storePath(_ number: UInt64) -> String {
        let hex = String(number, radix: 16)
        return storeDirectory + "/" + String(repeating: "0", count: 16 - hex.count) + hex + ".lmdb"
    }

    private static func storeNumber(_ name: String) -> UInt64? {
        guard name.hasSuffix(".lmdb"), name.utf8.count == 21 else { return nil }
        return UInt64(name.dropLast(5), radix: 16)
    }

    /// Opens what is there, or founds a new member.
    /// - Parameter mayFound: false for a member that was told to join a cluster that exists: founding one beside it would split it.
    func open(identity: LogIdentity, members: [Member], mapSizeBytes: Int, mayFound: Bool) throws(NodeError) -> Opened {
        do {
            if try disk.exists(dataDirectory + "/member/snap/db") {
                throw NodeError.dataDirectory("\(dataDirectory) holds the data of a real etcd member, which this program does not read: choose another --data-dir")
            }
            try disk.makeDirectory(storeDirectory)
            var found: (number: UInt64, backend: any Backend, reader: any BackendReader)?
            let numbers = try disk.list(storeDirectory).compactMap(NodeFiles.storeNumber).sorted(by: >)
            // Superseded by a snapshot; removed only when the log has followed, since their presence tells that it may not have.
            var superseded: [UInt64] = []
            for number in numbers {
                if found != nil {
                    superseded.append(number)
                    continue
                }
                let backend = try openStore(number, mapSizeBytes: mapSizeBytes)
                let reader = try backend.makeReader()
                if try ReplicaState.position(in: reader) != nil {
                    found = (number, backend, reader)
                } else {
                    // A copy that never became complete.
                    reader.release()
                    removeStore(number)
                }
            }
            let hasLog = try WriteAheadLog.exists(directory: logDirectory, disk: disk)
            if found == nil {
                guard !hasLog else {
                    throw NodeError.dataDirectory("\(dataDirectory) has a log but no store: restore the missing files, or clear the directory and add this member anew")
                }
                guard mayFound else {
                    throw NodeError.configuration("--initial-cluster-state existing: joining a running cluster is not supported yet, and \(dataDirectory) holds no member; "
                        + "use an existing --data-dir, or new to found a cluster")
                }
                let backend = try openStore(1, mapSizeBytes: mapSizeBytes)
                try backend.commit(ReplicaState.bootstrap(members))
                try disk.syncDirectory(storeDirectory)
                found = (1, backend, try backend.makeReader())
            }
            let (number, backend, reader) = found!
            var log: WriteAheadLog
            var recovered: RecoveredLog
            let state = try ReplicaState.load(from: reader)
            if hasLog {
                (log, recovered) = try WriteAheadLog.open(directory: logDirectory, disk: disk, identity: identity)
            } else {
                guard state.applied == .zero else {
                    throw NodeError.dataDirectory("\(dataDirectory) has a store but no log: restore the missing files, or clear the directory and add this member anew")
                }
                log = try WriteAheadLog.create(directory: logDirectory, disk: disk, identity: identity)
                recovered = RecoveredLog(hardState: HardState(), start: .zero, entries: [])
            }
            let restart = try reconcile(&log, recovered, with: state, followsSnapshot: !superseded.isEmpty)
            for number in superseded { removeStore(number) }
            return Opened(log: log, backend: backend, storeNumber: number, state: state, restart: restart, repair: recovered.repair, isNew: !hasLog)
        } catch let error as NodeError {
            throw error
        } catch let error as LogError {
            throw .dataDirectory("\(error)")
        } catch {
            throw .dataDirectory("data directory \(dataDirectory): \(error)")
        }
    }

    /// The store may be ahead of the log when a snapshot was installed and the process died before the log followed: the log then
    /// starts anew behind it. A store behind the log's beginning has lost data.
    private func reconcile(_ log: inout WriteAheadLog, _ recovered: RecoveredLog, with state: ReplicaState,
                           followsSnapshot: Bool) throws -> RaftRestart {
        let applied = state.applied
        var start = recovered.start
        var entries = recovered.entries
        func term(at index: LogIndex) -> Term? {
            if index == start.index { return start.term }
            guard index > start.index, let first = entries.first?.index, index >= first, index <= entries[entries.count - 1].index else { return nil }
            return entries[Int(index.rawValue - first.rawValue)].term
        }
        if applied.index < start.index {
            throw NodeError.dataDirectory("the store in \(dataDirectory) ends at entry \(applied.index.rawValue) but the log begins behind "
                + "\(start.index.rawValue): clear the directory and add this member anew")
        }
        if term(at: applied.index) != applied.term {
            guard followsSnapshot, applied.index > start.index else {
                throw NodeError.dataDirectory("the log in \(dataDirectory) ends at entry \(recovered.last.index.rawValue) but the store holds \(applied.index.rawValue): the log has lost what it had acknowledged; clear the directory and add this member anew")
            }
            log.append(PersistBatch(ticket: PersistTicket(0), reset: applied))
            try log.sync()
            start = applied
            entries = []
        }
        return RaftRestart(hardState: recovered.hardState, configuration: state.configuration, start: start, entries: entries, applied: applied.index,
                           appliedTerm: applied.term)
    }

    func openStore(_ number: UInt64, mapSizeBytes: Int) throws -> any Backend { wrapBackend(try LMDBBackend(path: storePath(number), mapSizeBytes: mapSizeBytes)) }

    func removeStore(_ number: UInt64) {
        // What cannot be removed now is tried again at the next start.
        try? disk.remove(storePath(number))
        try? disk.remove(storePath(number) + "-lock")
        try? disk.syncDirectory(storeDirectory)
    }
}
