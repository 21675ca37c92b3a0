import Base
import Log
import Replica
import Store

/// A member's stores on a `MemoryDisk`: the shipped names and directory, with a `MemoryBackend` behind each file. A file holds nothing but the
/// number of its backend, so that everything about names (not durable before `sync`, lost or kept by a power cut) is the disk's own doing.
/// Commits are atomic calls of the disk (`MemoryDisk.Operation.commit`): its faults, its power cut and its count of calls hold for them too.
///
/// Used by one thread at a time, hence `@unchecked Sendable`.
public final class SimulatedStores: StoreFiles, @unchecked Sendable {
    public let disk: MemoryDisk
    /// By the number that a file holds, from 1 on. Those whose file is gone stay; they cost nothing.
    private var backends: [MemoryBackend]
    private let dataDirectory: String
    // The closure that opens a file needs `self`, unowned: the directory lives no longer than this.
    private var directory: StoreDirectory!

    /// No store yet.
    public convenience init(disk: MemoryDisk, dataDirectory: String) { self.init(disk, dataDirectory, []) }

    private init(_ disk: MemoryDisk, _ dataDirectory: String, _ backends: [MemoryBackend]) {
        self.disk = disk
        self.dataDirectory = dataDirectory
        self.backends = backends
        directory = StoreDirectory(StoreDirectory.directory(in: dataDirectory), on: disk, suffix: ".memory") { [unowned self] path in try self.openFile(path) }
    }

    /// The same stores on another disk: what a power cut left of this one's (`MemoryDisk.crash`), or a fork of it. Cheap: the tables are shared
    /// until one side changes them. Which of the files exist there is that disk's affair. After the death of a process alone, the same object
    /// goes on being used with the same disk.
    public func moved(to survivor: MemoryDisk) -> SimulatedStores {
        SimulatedStores(survivor, dataDirectory, backends.map { MemoryBackend(copying: $0) })
    }

    public func numbers() throws -> [UInt64] { try directory.numbers() }
    public func open(_ number: UInt64) throws -> any Backend { try directory.open(number) }
    public func remove(_ number: UInt64) { directory.remove(number) }
    public func sync() throws { try directory.sync() }

    /// The tables of a store as the disk holds them now; nil when there is no such file. No call of the disk, for checks.
    public func contents(of number: UInt64) -> MemoryBackend? {
        guard let bytes = disk.bytes(of: directory.path(number)), let id = Self.identifier(bytes) else { return nil }
        return backends[id - 1]
    }

    /// nil: the file was never written to the end, which counts as missing.
    private static func identifier(_ bytes: [UInt8]) -> Int? {
        guard bytes.count == 8 else { return nil }
        let id = bytes.reversed().reduce(0) { $0 << 8 | Int($1) }
        return id == 0 ? nil : id
    }

    private func openFile(_ path: String) throws(DiskError) -> any Backend {
        let file = try disk.open(path, .createIfMissing)
        defer { file.close() }
        if let id = Self.identifier(try file.read(at: 0, count: 8)) { return SimulatedBackend(backends[id - 1], disk, path) }
        let backend = MemoryBackend()
        // Before the file names it: the power may go at any of the calls below, and what they wrote may survive.
        backends.append(backend)
        var writer = ByteWriter(capacity: 8)
        writer.write(UInt64(backends.count))
        var failure: DiskError?
        writer.bytes.withUnsafeBytes { raw in
            do throws(DiskError) { try file.write(raw, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        // From here on the file is whole, but its name is not durable yet.
        try file.sync()
        return SimulatedBackend(backend, disk, path)
    }
}

/// A `MemoryBackend` whose commits are calls of a disk.
private final class SimulatedBackend: Backend, @unchecked Sendable {
    // @unchecked: one thread at a time, like the disk.
    private let memory: MemoryBackend
    private let disk: MemoryDisk
    private let path: String

    init(_ memory: MemoryBackend, _ disk: MemoryDisk, _ path: String) {
        self.memory = memory
        self.disk = disk
        self.path = path
    }

    /// A commit that fails leaves the tables as they were: LMDB writes beside what is in use.
    func commit(_ batch: BackendBatch) throws(BackendError) {
        do throws(DiskError) {
            try disk.call(.commit, path)
        } catch {
            throw BackendError(operation: "commit", code: error.code, message: error.message)
        }
        try memory.commit(batch)
    }
    func makeReader() throws(BackendError) -> any BackendReader { try memory.makeReader() }
    var size: BackendSize { memory.size }
}
