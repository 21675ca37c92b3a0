import Log
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// The real file system. Directories are made with mode 0700, files with 0600. Holds nothing that changes, so any thread may use it.
public final class PosixDisk: Disk {
    private let syncs: Bool

    /// - Parameter syncs: false: nothing waits for the device, and a power cut takes what it likes. For those who have nothing to lose.
    public init(syncs: Bool = true) { self.syncs = syncs }

    public func list(_ directory: String) throws(DiskError) -> [String] {
        guard let stream = opendir(directory) else { throw .last("list", directory) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw .last("list", directory) }
                break
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: $0.pointee)) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    public func exists(_ path: String) throws(DiskError) -> Bool {
        var info = stat()
        if stat(path, &info) == 0 { return true }
        if errno == ENOENT || errno == ENOTDIR { return false }
        throw .last("look up", path)
    }

    public func makeDirectory(_ path: String) throws(DiskError) {
        if mkdir(path, 0o700) == 0 { return }
        switch errno {
        case EEXIST:
            var info = stat()
            guard stat(path, &info) == 0 else { throw .last("create directory", path) }
            guard info.st_mode & S_IFMT == S_IFDIR else { throw .code(ENOTDIR, "create directory", path) }
        case ENOENT:
            var trimmed = path
            while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
            guard let slash = trimmed.lastIndex(of: "/"), slash != trimmed.startIndex else { throw .code(ENOENT, "create directory", path) }
            try makeDirectory(String(trimmed[..<slash]))
            if mkdir(trimmed, 0o700) != 0, errno != EEXIST { throw .last("create directory", path) }
        default:
            throw .last("create directory", path)
        }
    }

    public func open(_ path: String, _ mode: OpenMode) throws(DiskError) -> any DiskFile {
        let flags: Int32 = switch mode {
        case .existing: O_RDWR | O_CLOEXEC
        case .reading: O_RDONLY | O_CLOEXEC
        case .new: O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL
        case .createIfMissing: O_RDWR | O_CLOEXEC | O_CREAT
        }
        return PosixFile(descriptor: try openDescriptor(path, flags, "open"), path: path, syncs: syncs)
    }

    public func rename(_ from: String, to: String) throws(DiskError) {
        #if canImport(Darwin)
        let status = Darwin.rename(from, to)
        #elseif canImport(Musl)
        let status = Musl.rename(from, to)
        #else
        let status = Glibc.rename(from, to)
        #endif
        if status != 0 { throw .last("rename", from) }
    }

    public func remove(_ path: String) throws(DiskError) {
        if unlink(path) == 0 { return }
        // Linux says EISDIR, POSIX and macOS EPERM, for a directory.
        if errno == EISDIR || errno == EPERM, rmdir(path) == 0 { return }
        throw .last("remove", path)
    }

    public func syncDirectory(_ path: String) throws(DiskError) {
        guard syncs else { return }
        let descriptor = try openDescriptor(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, "sync directory")
        defer { _ = close(descriptor) }
        while fsync(descriptor) != 0 {
            if errno == EINTR { continue }
            // Some network file systems cannot sync a directory and do not need it.
            if errno == EINVAL { return }
            throw .last("sync directory", path)
        }
    }
}

func openDescriptor(_ path: String, _ flags: Int32, _ operation: String) throws(DiskError) -> Int32 {
    while true {
        let descriptor = open(path, flags, 0o600)
        if descriptor >= 0 { return descriptor }
        if errno != EINTR { throw .last(operation, path) }
    }
}

/// An open file. Confined to one thread at a time.
final class PosixFile: DiskFile {
    private var descriptor: Int32
    private let path: String
    private let syncs: Bool

    init(descriptor: Int32, path: String, syncs: Bool) {
        self.descriptor = descriptor
        self.path = path
        self.syncs = syncs
    }
    deinit { close() }

    var size: UInt64 {
        get throws(DiskError) {
            var info = stat()
            guard fstat(descriptor, &info) == 0 else { throw .last("look up", path) }
            return UInt64(info.st_size)
        }
    }

    func read(at offset: UInt64, count: Int) throws(DiskError) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            filled = 0
            while filled < count {
                // One call moves at most 2 GB.
                let moved = pread(descriptor, buffer.baseAddress! + filled, min(count - filled, 1 << 30), off_t(offset) + off_t(filled))
                if moved < 0 {
                    if errno == EINTR { continue }
                    failure = errno
                    return
                }
                if moved == 0 { return }
                filled += moved
            }
        }
        if failure != 0 { throw .code(failure, "read", path) }
        return bytes
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DiskError) {
        var done = 0
        while done < bytes.count {
            let moved = pwrite(descriptor, bytes.baseAddress! + done, min(bytes.count - done, 1 << 30), off_t(offset) + off_t(done))
            if moved < 0 {
                if errno == EINTR { continue }
                throw .last("write", path)
            }
            if moved == 0 { throw .code(EIO, "write", path) }
            done += moved
        }
    }

    func sync() throws(DiskError) {
        guard syncs else { return }
        #if canImport(Darwin)
        // fsync on macOS leaves the bytes in the drive's cache.
        if fcntl(descriptor, F_FULLFSYNC) == 0 { return }
        // File systems without it (network, some external ones) offer no more than fsync.
        guard errno == ENOTSUP || errno == EINVAL || errno == ENOTTY else { throw .last("sync", path) }
        if fsync(descriptor) != 0 { throw .last("sync", path) }
        #else
        // A failed sync is not tried again: the kernel may have dropped the dirty pages. EINTR means it did not run.
        while fdatasync(descriptor) != 0 {
            if errno == EINTR { continue }
            throw .last("sync", path)
        }
        #endif
    }

    func truncate(to size: UInt64) throws(DiskError) {
        while ftruncate(descriptor, off_t(size)) != 0 {
            if errno != EINTR { throw .last("truncate", path) }
        }
    }

    func preallocate(_ size: UInt64) throws(DiskError) {
        guard try self.size < size else { return }
        #if canImport(Darwin)
        var store = fstore_t(fst_flags: UInt32(F_ALLOCATEALL), fst_posmode: F_PEOFPOSMODE, fst_offset: 0, fst_length: off_t(size), fst_bytesalloc: 0)
        if fcntl(descriptor, F_PREALLOCATE, &store) != 0, errno == ENOSPC { throw .last("reserve space for", path) }
        try truncate(to: size)
        #else
        while true {
            // Where the file system cannot reserve, the C library may write a byte into every block instead: slower, same result.
            let status = posix_fallocate(descriptor, 0, off_t(size))
            switch status {
            case 0: return
            case EINTR: continue
            case EOPNOTSUPP, EINVAL, ENOSYS:
                // Cannot reserve: the size at least, so that writes do not change it.
                try truncate(to: size)
                return
            default: throw .code(status, "reserve space for", path)
            }
        }
        #endif
    }

    func close() {
        guard descriptor >= 0 else { return }
        #if canImport(Darwin)
        _ = Darwin.close(descriptor)
        #elseif canImport(Musl)
        _ = Musl.close(descriptor)
        #else
        _ = Glibc.close(descriptor)
        #endif
        descriptor = -1
    }
}

extension DiskError {
    /// With errno of the call before.
    static func last(_ operation: String, _ path: String) -> DiskError { code(errno, operation, path) }

    static func code(_ code: Int32, _ operation: String, _ path: String) -> DiskError {
        DiskError(operation: operation, path: path, code: code, message: String(cString: strerror(code)))
    }
}
