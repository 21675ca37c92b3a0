import Base
import Log
import PosixDisk
import Raft
import Testing
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// A fresh directory that is removed at the end.
final class ScratchDirectory {
    let path: String
    init() {
        var template = Array("/tmp/quarterdeck-test-XXXXXX".utf8CString)
        path = String(cString: mkdtemp(&template))
    }
    deinit { Self.remove(path) }

    private static func remove(_ path: String) {
        let disk = PosixDisk()
        for name in (try? disk.list(path)) ?? [] {
            if (try? disk.remove(path + "/" + name)) == nil { remove(path + "/" + name) }
        }
        try? disk.remove(path)
    }
}

private func mode(_ path: String) -> Int {
    var info = stat()
    return stat(path, &info) == 0 ? Int(info.st_mode & 0o777) : -1
}

@Suite struct RealFiles {
    let scratch = ScratchDirectory()
    let disk = PosixDisk()

    @Test func logWorksOnRealFiles() throws {
        let directory = scratch.path + "/member/wal"
        let options = LogOptions(segmentSizeBytes: 64 << 10)
        let log = try WriteAheadLog.create(directory: directory, disk: disk, identity: here, options: options)
        for i in 1...300 as ClosedRange<UInt64> { try log.persist(batch(i == 1 ? hardState(1, 1) : nil, [entry(i, 1, bytes: 400)])) }
        #expect(log.segmentCount == 3)
        log.close()
        let (log2, recovered) = try WriteAheadLog.open(directory: directory, disk: disk, identity: here, options: options)
        #expect(recovered.entries == entries(1...300, 1, bytes: 400))
        try log2.compact(upTo: LogIndex(250))
        #expect(try disk.list(directory) == ["wal-0000000000000002.log", "wal-0000000000000003.log"])
        try log2.persist(batch(nil, entries(301...302, 1)))
        log2.close()
        // A torn tail on a real file.
        let path = directory + "/wal-0000000000000003.log"
        let file = try disk.open(path, .existing)
        let bytes = try file.read(at: 0, count: 1 << 20)
        #expect(bytes.count == 64 << 10)
        try file.truncate(to: UInt64(bytes.lastIndex { $0 != 0 }! - 100))
        file.close()
        let repaired = try WriteAheadLog.open(directory: directory, disk: disk, identity: here, options: options).recovered
        #expect(repaired.repair != nil)
        #expect(repaired.start == position(250, 1))
        #expect(repaired.entries == entries(251...300, 1, bytes: 400))
        #expect(mode(directory) == 0o700)
        #expect(mode(path) == 0o600)
    }

    @Test func filesReadWhatWasWritten() throws {
        let path = scratch.path + "/x"
        let file = try disk.open(path, .new)
        try [1, 2, 3, 4].withUnsafeBytes { try file.write(UnsafeRawBufferPointer(rebasing: $0[..<4]), at: 10) }
        try file.sync()
        #expect(try file.size == 14)
        #expect(try file.read(at: 8, count: 100).count == 6)
        #expect(try file.read(at: 50, count: 10) == [])
        try file.preallocate(9000)
        #expect(try file.size == 9000)
        try file.preallocate(100)
        #expect(try file.size == 9000)
        try file.truncate(to: 12)
        #expect(try file.size == 12)
    }

    @Test func namesWork() throws {
        let file = scratch.path + "/b"
        try disk.open(file, .new).close()
        #expect(throws: DiskError.self) { try disk.open(file, .new) }
        try disk.open(file, .createIfMissing).close()
        let error = #expect(throws: DiskError.self) { try disk.open(scratch.path + "/none", .existing) }
        #expect(error == DiskError(operation: "open", path: scratch.path + "/none", code: ENOENT, message: "No such file or directory"))
        try disk.makeDirectory(scratch.path + "/deep/er/dir")
        try disk.makeDirectory(scratch.path + "/deep/er/dir")
        #expect(throws: DiskError.self) { try disk.makeDirectory(file) }
        try disk.rename(file, to: scratch.path + "/a")
        #expect(try disk.list(scratch.path) == ["a", "deep"])
        #expect(try disk.exists(scratch.path + "/a"))
        #expect(try !disk.exists(file))
        try disk.syncDirectory(scratch.path)
        try disk.remove(scratch.path + "/deep/er/dir")
        #expect(try !disk.exists(scratch.path + "/deep/er/dir"))
        #expect(throws: DiskError.self) { try disk.list(scratch.path + "/none") }
    }

    @Test func directoryIsLockedOnce() throws {
        let data = scratch.path + "/data"
        var lock: DirectoryLock? = try DirectoryLock(directory: data)
        let error = #expect(throws: DirectoryLockError.inUse(directory: data)) { try DirectoryLock(directory: data) }
        #expect("\(error!)".contains("already in use by another process"))
        #expect(lock != nil)
        lock = nil
        _ = try DirectoryLock(directory: data)
    }
}
