import Base
import CLMDB
import Store
import Synchronization
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// The durable backend: one LMDB file (and `<file>-lock` beside it) with a named database per table, and a mark of its format.
///
/// A file that rotted is never served from: opening walks its pages (`LMDBFileCheck`), every record carries a checksum that every read verifies
/// (`RecordSeal`), and a scan of a whole table counts its records.
///
/// One thread commits; readers live on any thread, each confined to one at a time. The environment closes when the backend
/// and its last reader are gone.
public final class LMDBBackend: Backend, @unchecked Sendable {
    // @unchecked: everything but `cachedSize`, which is behind a mutex, never changes after init, and LMDB allows the use of
    // an environment and its databases from any thread.

    public let path: String
    /// The most that the file can grow to.
    public let mapSizeBytes: Int
    let environment: OpaquePointer
    let databases: [MDB_dbi]
    private let pageSize: Int
    private let registration: String
    /// Told of damage that a reader meets, on the reader's thread.
    let damageMet: @Sendable (BackendError) -> Void
    private let isReadOnly: Bool
    private let cachedSize = Mutex(BackendSize(allocatedBytes: 0, usedBytes: 0))

    /// Readers at one time: client loops, snapshots and a reserve. A slot is 64 bytes in the lock file.
    private static let maxReaders: UInt32 = 1022
    /// A record of LMDB's own table of tables.
    private static let formatKey = Array("quarterdeck-format".utf8)
    private static let format = Array("1".utf8)
    /// LMDB's file locks do not survive opening one file twice in one process, so paths in use are kept here.
    private static let open = Mutex<Set<String>>([])

    /// What to reserve for a store with this quota. The file grows only as far as it is used; the reservation costs address
    /// space, not memory or disk. It cannot grow while readers are active, so it is generous: live data, pages
    /// that readers still hold and half-empty pages stay below twice the quota, and 16 GiB is far above etcd's default quota.
    public static func mapSizeBytes(quotaBytes: Int) -> Int { max(quotaBytes * 2, 16 << 30) }

    /// Opens the file or creates it (mode 0600); its directory must exist.
    /// - Parameters:
    ///   - isReadOnly: changes nothing, not even the lock file; the caller sees to it that nobody writes meanwhile.
    ///   - syncs: false: a commit does not wait for the device. The file is consistent after the process's end, not after a power cut.
    ///   - damageMet: told when a read meets damage, whoever reads; the reader gets the error too.
    public init(path: String, mapSizeBytes: Int = LMDBBackend.mapSizeBytes(quotaBytes: 2 << 30), isReadOnly: Bool = false, syncs: Bool = true,
                damageMet: @escaping @Sendable (BackendError) -> Void = { _ in }) throws(BackendError) {
        self.path = path
        self.mapSizeBytes = mapSizeBytes
        self.isReadOnly = isReadOnly
        self.damageMet = damageMet
        let name = try Self.canonical(path)
        guard Self.open.withLock({ $0.insert(name).inserted }) else {
            throw BackendError(operation: "open \(path)", code: EBUSY, message: "the file is already open in this process")
        }
        var created: OpaquePointer?
        do throws(BackendError) {
            let isAbsent = Self.size(of: path) == 0 || Self.isStillborn(path, mapSizeBytes)
            if isReadOnly {
                guard !isAbsent else { throw BackendError.unfinished(path) }
            } else if isAbsent {
                unlink(path)
            }
            let isNew = Self.size(of: path) == nil
            if !isNew { try LMDBFileCheck.run(path: path) }
            let environment = try Self.openEnvironment(path, mapSizeBytes, isReadOnly: isReadOnly, syncs: syncs)
            created = environment
            if isNew {
                // The first pages before the name: a name without them would be taken for damage.
                try check(mdb_env_sync(environment, 1), "create \(path)")
                try Self.syncDirectory(of: path)
            }
            // Slots of processes that died keep old pages from being used again.
            var dead: Int32 = 0
            if !isReadOnly { try check(mdb_reader_check(environment, &dead), "open \(path)") }
            databases = try Self.openTables(environment, path, isReadOnly: isReadOnly)
            self.environment = environment
            var stat = MDB_stat()
            try check(mdb_env_stat(environment, &stat), "open \(path)")
            pageSize = Int(stat.ms_psize)
            registration = name
        } catch {
            if let created { mdb_env_close(created) }
            _ = Self.open.withLock { $0.remove(name) }
            throw error
        }
        try refreshSize()
    }

    deinit {
        mdb_env_close(environment)
        _ = Self.open.withLock { $0.remove(registration) }
    }

    private static func openEnvironment(_ path: String, _ mapSizeBytes: Int, isReadOnly: Bool, syncs: Bool = true) throws(BackendError) -> OpaquePointer {
        var created: OpaquePointer?
        try check(mdb_env_create(&created), "open \(path)")
        let environment = created!
        do throws(BackendError) {
            try check(mdb_env_set_maxdbs(environment, MDB_dbi(Table.allCases.count)), "open \(path)")
            try check(mdb_env_set_mapsize(environment, mapSizeBytes), "open \(path)")
            try check(mdb_env_set_maxreaders(environment, maxReaders), "open \(path)")
            // NOTLS: a reader belongs to its object, not to a thread. NORDAHEAD: reads are scattered, and what is hot is in
            // memory already.
            let flags = MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD | (isReadOnly ? MDB_RDONLY | MDB_NOLOCK : 0) | (syncs ? 0 : MDB_NOSYNC)
            try check(mdb_env_open(environment, path, UInt32(flags), 0o600), "open \(path)")
            return environment
        } catch {
            mdb_env_close(environment)
            throw error
        }
    }

    /// nil: there is no such file.
    private static func size(of path: String) -> Int? {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : nil
    }

    /// Whether the file has no more than its two first pages, and they make no sense: the power went between its creation and their sync, so
    /// nothing was ever committed to it. (A commit adds pages, and only after that sync.) It counts as missing, or a snapshot that was just
    /// beginning to arrive would keep the member from starting.
    private static func isStillborn(_ path: String, _ mapSizeBytes: Int) -> Bool {
        guard let size = size(of: path), size > 0, size <= 2 * Int(sysconf(Int32(_SC_PAGESIZE))) else { return false }
        do throws(BackendError) {
            mdb_env_close(try openEnvironment(path, mapSizeBytes, isReadOnly: true))
            return false
        } catch { return error.code == MDB_INVALID }
    }

    private static func openTables(_ environment: OpaquePointer, _ path: String, isReadOnly: Bool) throws(BackendError) -> [MDB_dbi] {
        var transaction: OpaquePointer?
        try check(mdb_txn_begin(environment, nil, isReadOnly ? UInt32(MDB_RDONLY) : 0, &transaction), "open \(path)")
        let databases: [MDB_dbi]
        do throws(BackendError) {
            let isNew = try checkFormat(transaction!, path, isReadOnly: isReadOnly)
            var opened: [MDB_dbi] = []
            for table in Table.allCases {
                var database: MDB_dbi = 0
                let status = mdb_dbi_open(transaction, table.name, isNew ? UInt32(MDB_CREATE) : 0, &database)
                if status == MDB_NOTFOUND || status == MDB_INCOMPATIBLE {
                    throw BackendError.damaged(path, "table \(table.name) is \(status == MDB_NOTFOUND ? "missing" : "no table")")
                }
                try check(status, "open table \(table.name) of \(path)")
                opened.append(database)
            }
            databases = opened
        } catch {
            mdb_txn_abort(transaction)
            throw error
        }
        try check(mdb_txn_commit(transaction), "open \(path)")
        return databases
    }

    /// Marks a new file; refuses one of another format. True for a new one.
    private static func checkFormat(_ transaction: OpaquePointer, _ path: String, isReadOnly: Bool) throws(BackendError) -> Bool {
        var main: MDB_dbi = 0
        try check(mdb_dbi_open(transaction, nil, 0, &main), "open \(path)")
        var stat = MDB_stat()
        try check(mdb_stat(transaction, main, &stat), "open \(path)")
        func lent(_ bytes: [UInt8], _ body: (UnsafeMutablePointer<MDB_val>) -> Int32) -> Int32 {
            bytes.withUnsafeBytes { raw in
                var value = MDB_val(raw)
                return body(&value)
            }
        }
        if stat.ms_entries == 0 {
            guard !isReadOnly else { throw BackendError.unfinished(path) }
            try check(lent(formatKey) { key in lent(format) { mdb_put(transaction, main, key, $0, 0) } }, "mark \(path)")
            return true
        }
        var found = MDB_val()
        let status = lent(formatKey) { mdb_get(transaction, main, $0, &found) }
        if status != MDB_NOTFOUND { try check(status, "open \(path)") }
        guard status == MDB_SUCCESS, UnsafeRawBufferPointer(found).elementsEqual(format) else {
            let what = status == MDB_SUCCESS ? "format \"\(String(decoding: UnsafeRawBufferPointer(found), as: UTF8.self))\"" : "no mark of a format"
            throw BackendError(operation: "open \(path)", code: MDB_VERSION_MISMATCH,
                               message: "the store has \(what), this version reads format \"\(String(decoding: format, as: UTF8.self))\": start the version "
                                   + "that wrote it, or clear the data directory and add this member anew")
        }
        return false
    }

    // MARK: Commit

    public func commit(_ batch: BackendBatch) throws(BackendError) {
        guard !batch.isEmpty else { return }
        precondition(!isReadOnly, "\(path) was opened for reading")
        var transaction: OpaquePointer?
        try check(mdb_txn_begin(environment, nil, 0, &transaction), "commit")
        do throws(BackendError) {
            try apply(batch, transaction!)
        } catch {
            mdb_txn_abort(transaction)
            throw describeFull(error)
        }
        // Syncs data pages, then the meta page. Frees the transaction whatever comes of it.
        do throws(BackendError) {
            try check(mdb_txn_commit(transaction), "commit")
        } catch {
            throw describeFull(error)
        }
        try refreshSize()
    }

    private func apply(_ batch: BackendBatch, _ transaction: OpaquePointer) throws(BackendError) {
        // Revisions come in ascending order: a cursor that stays at the end appends without a search, and pages are
        // filled instead of split in halves.
        var appender: OpaquePointer?
        defer { if let appender { mdb_cursor_close(appender) } }
        for change in batch.changes {
            switch change {
            case .put(.key, let key, let value):
                if appender == nil { try check(mdb_cursor_open(transaction, databases[Int(Table.key.rawValue)], &appender), "put into key") }
                var status = put(.key, key, value) { mdb_cursor_put(appender, $0, $1, UInt32(MDB_APPEND | MDB_RESERVE)) }
                if status == MDB_KEYEXIST { status = put(.key, key, value) { mdb_cursor_put(appender, $0, $1, UInt32(MDB_RESERVE)) } }
                try check(status, "put into key")
            case .put(let table, let key, let value):
                try check(put(table, key, value) { mdb_put(transaction, databases[Int(table.rawValue)], $0, $1, UInt32(MDB_RESERVE)) }, "put into \(table.name)")
            case .delete(let table, let key):
                let status = key.withUnsafeBytes { raw in
                    var name = MDB_val(raw)
                    return mdb_del(transaction, databases[Int(table.rawValue)], &name, nil)
                }
                // Nothing there is fine; neither is a key that cannot be there.
                if status != MDB_NOTFOUND && status != MDB_BAD_VALSIZE { try check(status, "delete from \(table.name)") }
            case .clear(let table):
                try check(mdb_drop(transaction, databases[Int(table.rawValue)], 0), "clear \(table.name)")
            }
        }
    }

    /// LMDB makes room in the page; value and seal go right there.
    @inline(__always)
    private func put(_ table: Table, _ key: [UInt8], _ value: [UInt8],
                     _ body: (UnsafeMutablePointer<MDB_val>, UnsafeMutablePointer<MDB_val>) -> Int32) -> Int32 {
        key.withUnsafeBytes { rawKey in
            var name = MDB_val(rawKey)
            var data = MDB_val(mv_size: value.count + RecordSeal.size, mv_data: nil)
            let status = body(&name, &data)
            if status == MDB_SUCCESS { value.withUnsafeBytes { RecordSeal.write(table, rawKey, $0, to: data.mv_data) } }
            return status
        }
    }

    private func describeFull(_ error: BackendError) -> BackendError {
        guard error.code == MDB_MAP_FULL else { return error }
        return BackendError(operation: error.operation, code: error.code,
                            message: "\(path) has reached its reserved size of \(mapSizeBytes) bytes: start with a larger quota, or compact")
    }

    // MARK: Reading

    public func makeReader() throws(BackendError) -> any BackendReader { try LMDBReader(self) }

    /// As of the latest commit.
    public var size: BackendSize { cachedSize.withLock { $0 } }

    /// Free pages are listed in LMDB's own table 0, a list per transaction that freed them.
    private func refreshSize() throws(BackendError) {
        var info = MDB_envinfo()
        try check(mdb_env_info(environment, &info), "size")
        var transaction: OpaquePointer?
        try check(mdb_txn_begin(environment, nil, UInt32(MDB_RDONLY), &transaction), "size")
        defer { mdb_txn_abort(transaction) }
        var cursor: OpaquePointer?
        try check(mdb_cursor_open(transaction, 0, &cursor), "size")
        defer { mdb_cursor_close(cursor) }
        var free = 0
        var key = MDB_val()
        var value = MDB_val()
        var status = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
        while status == MDB_SUCCESS {
            free += UnsafeRawBufferPointer(value).loadUnaligned(as: Int.self)
            status = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
        }
        if status != MDB_NOTFOUND { try check(status, "size") }
        let allocated = Int64(info.me_last_pgno + 1) * Int64(pageSize)
        let used = max(0, allocated - Int64(free) * Int64(pageSize))
        cachedSize.withLock { $0 = BackendSize(allocatedBytes: allocated, usedBytes: used) }
    }

    // MARK: Copy

    /// Writes a compact copy of the latest commit to a new file (mode 0600) and makes it durable, name included. Runs
    /// beside commits, from any thread; for snapshots. On failure nothing is left behind.
    public func copy(to target: String) throws(BackendError) {
        let descriptor = Self.openFile(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC)
        guard descriptor >= 0 else { throw BackendError(lmdb: errno, "copy to \(target)") }
        do throws(BackendError) {
            defer { _ = close(descriptor) }
            try check(mdb_env_copyfd2(environment, descriptor, UInt32(MDB_CP_COMPACT)), "copy to \(target)")
            guard fsync(descriptor) == 0 else { throw BackendError(lmdb: errno, "copy to \(target)") }
        } catch {
            unlink(target)
            throw error
        }
        try Self.syncDirectory(of: target)
    }

    // MARK: Files

    private static func openFile(_ path: String, _ flags: Int32) -> Int32 {
        #if canImport(Darwin)
        Darwin.open(path, flags, 0o600)
        #elseif canImport(Musl)
        Musl.open(path, flags, 0o600)
        #else
        Glibc.open(path, flags, 0o600)
        #endif
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func syncDirectory(of path: String) throws(BackendError) {
        let directory = directory(of: path)
        let descriptor = openFile(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw BackendError(lmdb: errno, "sync \(directory)") }
        defer { _ = close(descriptor) }
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw BackendError(lmdb: errno, "sync \(directory)") }
    }

    /// One name for a file, however it is written.
    private static func canonical(_ path: String) throws(BackendError) -> String {
        let parent = directory(of: path)
        guard let resolved = realpath(parent, nil) else { throw BackendError(lmdb: errno, "open \(path)") }
        defer { free(resolved) }
        let name = path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? path
        return String(cString: resolved) + "/" + name
    }
}

/// A read transaction that is parked between uses. Confined to one thread at a time.
final class LMDBReader: BackendReader {
    private let backend: LMDBBackend
    private let transaction: OpaquePointer
    private var isActive = true

    init(_ backend: LMDBBackend) throws(BackendError) {
        self.backend = backend
        var begun: OpaquePointer?
        try check(mdb_txn_begin(backend.environment, nil, UInt32(MDB_RDONLY), &begun), "begin reading")
        transaction = begun!
    }
    deinit { mdb_txn_abort(transaction) }

    func refresh() throws(BackendError) {
        release()
        try check(mdb_txn_renew(transaction), "begin reading")
        isActive = true
    }

    func release() {
        guard isActive else { return }
        mdb_txn_reset(transaction)
        isActive = false
    }

    func get<R>(_ table: Table, _ key: [UInt8], _ body: (UnsafeRawBufferPointer) -> R) throws(BackendError) -> R? {
        precondition(isActive, "backend reader used after release: refresh it first")
        var value = MDB_val()
        let (status, opened): (Int32, UnsafeRawBufferPointer?) = key.withUnsafeBytes { raw in
            var name = MDB_val(raw)
            let status = mdb_get(transaction, backend.databases[Int(table.rawValue)], &name, &value)
            return (status, status == MDB_SUCCESS ? RecordSeal.open(table, raw, UnsafeRawBufferPointer(value)) : nil)
        }
        // A key that no table can hold is absent.
        if status == MDB_NOTFOUND || status == MDB_BAD_VALSIZE { return nil }
        try check(status, "get from \(table.name)")
        guard let opened else { throw met(key.withUnsafeBytes { .unsealed(backend.path, table, $0) }) }
        return body(opened)
    }

    func scan(_ table: Table, from: [UInt8], _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool) throws(BackendError) {
        precondition(isActive, "backend reader used after release: refresh it first")
        var cursor: OpaquePointer?
        try check(mdb_cursor_open(transaction, backend.databases[Int(table.rawValue)], &cursor), "scan \(table.name)")
        defer { mdb_cursor_close(cursor) }
        var key = MDB_val()
        var value = MDB_val()
        var status: Int32
        if from.isEmpty {
            status = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
        } else {
            status = from.withUnsafeBytes { raw in
                key = MDB_val(raw)
                return mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)
            }
        }
        var count = 0
        while status == MDB_SUCCESS {
            let name = UnsafeRawBufferPointer(key)
            guard let opened = RecordSeal.open(table, name, UnsafeRawBufferPointer(value)) else { throw met(.unsealed(backend.path, table, name)) }
            if !body(name, opened) { return }
            count += 1
            status = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
        }
        if status != MDB_NOTFOUND { try check(status, "scan \(table.name)") }
        guard from.isEmpty else { return }
        // No checksum tells of a record that is gone.
        var stat = MDB_stat()
        try check(mdb_stat(transaction, backend.databases[Int(table.rawValue)], &stat), "scan \(table.name)")
        guard count == stat.ms_entries else { throw met(.damaged(backend.path, "table \(table.name) has \(count) of its \(stat.ms_entries) records")) }
    }

    private func met(_ damage: BackendError) -> BackendError {
        backend.damageMet(damage)
        return damage
    }
}

extension MDB_val {
    @inline(__always) init(_ raw: UnsafeRawBufferPointer) {
        self.init(mv_size: raw.count, mv_data: UnsafeMutableRawPointer(mutating: raw.baseAddress))
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always) init(_ value: MDB_val) { self.init(start: value.mv_data, count: value.mv_size) }
}

extension BackendError {
    init(lmdb code: Int32, _ operation: String) {
        self.init(operation: operation, code: code, message: String(cString: mdb_strerror(code)))
    }
}

@inline(__always)
func check(_ status: Int32, _ operation: @autoclosure () -> String) throws(BackendError) {
    if status != MDB_SUCCESS { throw BackendError(lmdb: status, operation()) }
}
