import Base
import Foundation
import Log
import Store
import Synchronization
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// How one node's disk behaves; outlives the node's lives, each of which has a `FaultyDisk` of its own over it.
final class DiskFaults: @unchecked Sendable {
    // @unchecked: `treatment` is only touched under `condition`'s lock.
    private let condition = NSCondition()
    private var treatment = DiskTreatment()
    /// Spares the lock where there is nothing to do.
    private let isSound = Atomic<Bool>(true)

    func obey(_ treatment: DiskTreatment) {
        condition.lock()
        self.treatment = treatment
        isSound.store(treatment == DiskTreatment(), ordering: .releasing)
        condition.broadcast()
        condition.unlock()
    }

    enum Access { case space, change, sync }

    /// Waits and fails as the treatment says, which may change meanwhile.
    fileprivate func pass(_ access: Access, _ life: DiskLife, _ operation: String, _ path: String) throws(DiskError) {
        if isSound.load(ordering: .acquiring), !life.isOver { return }
        condition.lock()
        defer { condition.unlock() }
        let began = Date()
        while true {
            if life.isOver { throw DiskError(operation, path, EINTR) }
            switch treatment.failure {
            case .full where access == .space: throw DiskError(operation, path, ENOSPC)
            case .broken: throw DiskError(operation, path, EIO)
            default: break
            }
            guard access == .sync else { return }
            if treatment.isStuck {
                condition.wait()
            } else {
                let until = began.addingTimeInterval(Double(treatment.syncDelayMicroseconds) / 1e6)
                guard Date() < until else { return }
                _ = condition.wait(until: until)
            }
        }
    }

    fileprivate func end(_ life: DiskLife) {
        condition.lock()
        life.isEnded.store(true, ordering: .releasing)
        condition.broadcast()
        condition.unlock()
    }
}

/// A life of a node as its disk sees it: once it is over nothing more is written.
private final class DiskLife: Sendable {
    let isEnded = Atomic<Bool>(false)
    var isOver: Bool { isEnded.load(ordering: .acquiring) }
}

/// A disk that does what its node's `DiskFaults` say, in front of the real one. Reading always works.
final class FaultyDisk: Disk {
    private let base: any Disk
    private let faults: DiskFaults
    private let life = DiskLife()

    init(_ base: any Disk, _ faults: DiskFaults) {
        self.base = base
        self.faults = faults
    }

    /// The node was killed: calls that wait return with an error, and so does everything that would change the disk from now on.
    func interrupt() { faults.end(life) }

    /// The same faults for what goes to the disk without this seam: LMDB writes its own file.
    func wrap(_ backend: any Backend) -> any Backend { FaultyBackend(backend, faults, life) }

    func list(_ directory: String) throws(DiskError) -> [String] { try base.list(directory) }
    func exists(_ path: String) throws(DiskError) -> Bool { try base.exists(path) }

    func makeDirectory(_ path: String) throws(DiskError) {
        try faults.pass(.change, life, "create directory", path)
        try base.makeDirectory(path)
    }

    func open(_ path: String, _ mode: OpenMode) throws(DiskError) -> any DiskFile {
        if mode != .existing && mode != .reading { try faults.pass(mode == .new ? .space : .change, life, "create", path) }
        return FaultyFile(try base.open(path, mode), path, faults, life)
    }

    func rename(_ from: String, to: String) throws(DiskError) {
        try faults.pass(.change, life, "rename", from)
        try base.rename(from, to: to)
    }

    func remove(_ path: String) throws(DiskError) {
        try faults.pass(.change, life, "remove", path)
        try base.remove(path)
    }

    func syncDirectory(_ path: String) throws(DiskError) {
        try faults.pass(.sync, life, "sync directory", path)
        try base.syncDirectory(path)
    }
}

private final class FaultyFile: DiskFile {
    private let base: any DiskFile
    private let path: String
    private let faults: DiskFaults
    private let life: DiskLife

    init(_ base: any DiskFile, _ path: String, _ faults: DiskFaults, _ life: DiskLife) {
        self.base = base
        self.path = path
        self.faults = faults
        self.life = life
    }

    var size: UInt64 { get throws(DiskError) { try base.size } }
    func read(at offset: UInt64, count: Int) throws(DiskError) -> [UInt8] { try base.read(at: offset, count: count) }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DiskError) {
        try faults.pass(.space, life, "write", path)
        try base.write(bytes, at: offset)
    }

    func sync() throws(DiskError) {
        try faults.pass(.sync, life, "sync", path)
        try base.sync()
    }

    func truncate(to size: UInt64) throws(DiskError) {
        try faults.pass(.change, life, "truncate", path)
        try base.truncate(to: size)
    }

    func preallocate(_ size: UInt64) throws(DiskError) {
        try faults.pass(.space, life, "allocate", path)
        try base.preallocate(size)
    }

    func close() { base.close() }
}

/// A commit is a write and a sync.
private final class FaultyBackend: Backend {
    private let base: any Backend
    private let faults: DiskFaults
    private let life: DiskLife

    init(_ base: any Backend, _ faults: DiskFaults, _ life: DiskLife) {
        self.base = base
        self.faults = faults
        self.life = life
    }

    func commit(_ batch: BackendBatch) throws(BackendError) {
        do throws(DiskError) {
            try faults.pass(.space, life, "commit", "")
            try faults.pass(.sync, life, "commit", "")
        } catch {
            throw BackendError(operation: error.operation, code: error.code, message: error.message)
        }
        try base.commit(batch)
    }

    func makeReader() throws(BackendError) -> any BackendReader { try base.makeReader() }
    var size: BackendSize { base.size }
}

extension DiskError {
    fileprivate init(_ operation: String, _ path: String, _ code: Int32) {
        self.init(operation: operation, path: path, code: code, message: String(cString: strerror(code)))
    }
}
