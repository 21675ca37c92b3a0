import Auth
import Base
import BoltFile
import LMDBBackend
import Log
import PosixDisk
import Raft
import Replica
import Store

/// Builds a member's data directory from a snapshot of a real etcd (3.4 and newer) or of ours: the same keys, revisions, leases, users, roles and
/// alarms, in a new cluster. Every member of it is restored from the same file, with its own name.
public struct SnapshotRestore: Sendable {
    public var path: String
    /// Name, data directory, initial cluster, advertised peer URLs and token count.
    public var configuration: NodeConfiguration
    public var skipsHashCheck = false
    /// Above 0: the revision goes up by this much, and all that was before counts as compacted, so that a client that has seen more than the
    /// snapshot holds is told so instead of being shown other history under revisions that it knows.
    public var bumpRevision: UInt64 = 0

    public init(path: String, configuration: NodeConfiguration) {
        self.path = path
        self.configuration = configuration
    }

    public struct Outcome: Sendable {
        public var member: MemberID
        public var cluster: ClusterID
        public var revision: Int64
        public var entries: Int
        /// Buckets that are none of etcd's; they are left out.
        public var unknownBuckets: [String]
    }

    /// A batch of the backend: its commit is in memory until it is durable.
    private static let batchBytes = 8 << 20
    private static let workDirectory = "restore.partial"

    /// Blocks until everything is durable. Whatever is left of a failure is removed.
    public func run(progress: (SnapshotProgress) -> Void = { _ in }) throws -> Outcome {
        let (members, own): ([Member], MemberID)
        do { (members, own) = try configuration.initialMembers() } catch { throw SnapshotError("\(error)") }
        let directory = configuration.effectiveDataDirectory
        let disk = PosixDisk()
        if try disk.exists(directory), !((try? disk.list(directory))?.isEmpty ?? false) {
            throw SnapshotError("data-dir \"\(directory)\" not empty or could not be read")
        }
        let logDirectory = configuration.separateLogDirectory
        guard logDirectory == nil || logDirectory != directory else { throw SnapshotError("--wal-dir must be a directory of its own, not --data-dir itself") }
        if let logDirectory, try disk.exists(logDirectory), !((try? SnapshotRestore.isVacant(logDirectory, disk)) ?? false) {
            throw SnapshotError("wal-dir \"\(logDirectory)\" not empty or could not be read")
        }
        let file = try SnapshotFile(path: path)
        if !skipsHashCheck { try file.verifyHash(progress) }

        let isNew = try !disk.exists(directory)
        let isLogNew = try logDirectory.map { directory throws(DiskError) in try !disk.exists(directory) } ?? false
        let work = directory + "/" + SnapshotRestore.workDirectory
        do {
            try disk.makeDirectory(work + "/member/store")
            let outcome = try build(file, members, own, in: work, logDirectory, disk, progress)
            // Under their own name only when whole: a member that starts finds everything or nothing.
            try disk.rename(work + "/member", to: directory + "/member")
            try disk.remove(work)
            try disk.syncDirectory(directory)
            try disk.syncDirectory(SnapshotRestore.parent(of: directory))
            return outcome
        } catch {
            SnapshotRestore.removeTree(isNew ? directory : work, disk)
            if let logDirectory {
                for name in (try? disk.list(logDirectory)) ?? [] where !SnapshotRestore.bystanders.contains(name) { try? disk.remove(logDirectory + "/" + name) }
                if isLogNew { try? disk.remove(logDirectory) }
            }
            if let fault = error as? BoltFault { throw SnapshotError("\(path): \(fault)") }
            throw error
        }
    }

    private func build(_ file: SnapshotFile, _ members: [Member], _ own: MemberID, in work: String, _ logDirectory: String?,
                       _ disk: PosixDisk, _ progress: (SnapshotProgress) -> Void) throws -> Outcome {
        let cluster = Identifiers.cluster(members: members.map(\.id))
        let reader = try BoltReader(file)
        // Room for what a large file becomes, and for the quota that its server will have at the least.
        let mapSize = LMDBBackend.mapSizeBytes(quotaBytes: Int(clamping: max(file.size * 2, 2 << 30)))
        let stores = StoreDirectory.lmdb(in: work, disk: disk, mapSizeBytes: mapSize, wrapBackend: { $0 })
        var outcome = Outcome(member: own, cluster: cluster, revision: 0, entries: 0, unknownBuckets: [])
        // The first entries of the log would be the members' own, one each, in term 1: all members of the cluster stand behind them. (etcd)
        let position = LogPosition(index: LogIndex(UInt64(members.count)), term: Term(1))
        do {
            let backend = try stores.open(1)
            try copy(reader, to: backend, members, position, &outcome) {
                progress(SnapshotProgress(step: "restoring", doneBytes: min(file.readBytes - (skipsHashCheck ? 0 : file.fileSize), file.size), totalBytes: file.size))
            }
        }
        try stores.sync()
        let log = try WriteAheadLog.create(directory: logDirectory ?? work + "/member/log", disk: disk, identity: LogIdentity(cluster: cluster, member: own),
                                           hardState: HardState(term: position.term, vote: members.map(\.id).min()!), start: position)
        log.close()
        if let logDirectory { try MemberFiles.noteLogDirectory(logDirectory, in: work, disk: disk) }
        try disk.syncDirectory(work + "/member")
        return outcome
    }

    private func copy(_ reader: BoltReader, to backend: any Backend, _ members: [Member], _ position: LogPosition, _ outcome: inout Outcome,
                      _ tell: () -> Void) throws {
        let walk = try BoltWalk(reader)
        let tables = walk.buckets.map { Table(bucket: $0.name) }
        for needed in [Table.key, .meta] where !tables.contains(needed) {
            throw SnapshotError("\(path) is no snapshot of etcd 3: it has no bucket \"\(needed.name)\"")
        }
        var batch = BackendBatch()
        func commit() throws {
            try backend.commit(batch)
            batch = BackendBatch()
            tell()
        }
        var meta: [(key: [UInt8], value: [UInt8])] = []
        // Members that were restored from different files would hold different things for ever: their first comparison tells.
        var stateHash = StateHash.initial
        for (bucket, table) in zip(walk.buckets, tables) {
            var cursor = walk.cursor(bucket)
            guard let table else {
                outcome.unknownBuckets.append(bucket.text)
                while try cursor.advance() {}
                continue
            }
            while try cursor.advance() {
                let (entry, fault, revision) = cursor.withEntry { key, value in
                    ((key: [UInt8](key), value: [UInt8](value)), table.fault(key: key, value: value), table == .key ? Table.mainRevision(ofKey: key) : nil)
                }
                if let fault { throw SnapshotError("\(path) is damaged: \(fault)") }
                if let revision { outcome.revision = revision }
                switch table {
                // Of another cluster, and written anew.
                case .members, .membersRemoved: continue
                // The compaction marks only: what else is there is consensus' and the old cluster's. Goes last, so that a store that was not finished is none.
                case .meta:
                    if [MetaKey.scheduledCompactRevision, MetaKey.finishedCompactRevision].contains(entry.key) { meta.append(entry) }
                    continue
                case .key, .lease, .cluster, .alarm, .auth, .authUsers, .authRoles:
                    guard entry.key.count <= AuthStore.maxNameBytes else {
                        throw SnapshotError("\(path): a name in \(table.name) has \(entry.key.count) bytes, and this store takes \(AuthStore.maxNameBytes) at most: rename it before the snapshot")
                    }
                    batch.put(table, entry.key, entry.value)
                    stateHash.fold(UInt64(table.rawValue), UInt64(entry.key.count), UInt64(entry.value.count))
                    stateHash.fold(entry.key)
                    stateHash.fold(entry.value)
                    outcome.entries += 1
                    if batch.bytes >= SnapshotRestore.batchBytes { try commit() }
                }
            }
        }
        try walk.finish()
        if bumpRevision > 0 {
            guard let amount = Int64(exactly: bumpRevision), !outcome.revision.addingReportingOverflow(amount).overflow else {
                throw SnapshotError("--bump-revision \(bumpRevision): revision \(outcome.revision) cannot go up by so much")
            }
            outcome.revision += amount
            let mark = Table.revisionKey(main: outcome.revision)
            batch.put(.key, mark, [])
            stateHash.fold(mark)
            outcome.entries += 1
            meta.removeAll { $0.key == MetaKey.scheduledCompactRevision }
            meta.append((MetaKey.scheduledCompactRevision, mark))
        }
        try commit()
        for (key, value) in meta { batch.put(.meta, key, value) }
        batch.changes += ReplicaState.bootstrap(members, applied: position, stateHash: stateHash).changes
        try commit()
    }

    /// What may be in a directory for a log before there is one: the lock of a member before, and what the file system puts into its root.
    private static let bystanders: Set<String> = ["LOCK", "lost+found"]

    private static func isVacant(_ directory: String, _ disk: PosixDisk) throws -> Bool { try disk.list(directory).allSatisfy { bystanders.contains($0) } }

    private static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func removeTree(_ path: String, _ disk: PosixDisk) {
        for name in (try? disk.list(path)) ?? [] {
            if (try? disk.remove(path + "/" + name)) == nil { removeTree(path + "/" + name, disk) }
        }
        try? disk.remove(path)
    }
}
