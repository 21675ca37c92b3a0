import Log
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Keeps a data directory, or one for the log alone, to one process, and within it to one member: an advisory lock (flock) on the file `LOCK` in it.
/// The kernel gives the lock back when the process dies, so a crash leaves nothing to clean up.
public final class DirectoryLock: Sendable {
    public let directory: String
    /// -1: nobody has ever locked it.
    private let descriptor: Int32

    /// Takes the lock or fails at once. Creates the directory if it is missing.
    /// - Parameter leavesNoTrace: creates nothing; where no process has ever locked the directory there is nothing to take.
    public init(directory: String, leavesNoTrace: Bool = false) throws(DirectoryLockError) {
        self.directory = directory
        let path = directory + "/LOCK"
        do throws(DiskError) {
            if leavesNoTrace {
                descriptor = try PosixDisk().exists(path) ? try openDescriptor(path, O_RDONLY | O_CLOEXEC, "open") : -1
            } else {
                try PosixDisk().makeDirectory(directory)
                descriptor = try openDescriptor(path, O_RDWR | O_CREAT | O_CLOEXEC, "open")
            }
        } catch {
            throw .disk(error)
        }
        while descriptor >= 0, flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            if code == EINTR { continue }
            // Not `release`: other descriptors of this file keep their locks.
            _ = close(descriptor)
            throw code == EWOULDBLOCK ? .inUse(directory: directory) : .disk(.code(code, "lock", path))
        }
    }
    /// Gives the directory free. The file stays: removing it would let two processes lock two files of one name.
    deinit { if descriptor >= 0 { _ = close(descriptor) } }
}

public enum DirectoryLockError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Somebody holds the lock.
    case inUse(directory: String)
    case disk(DiskError)

    public var description: String {
        switch self {
        case .inUse(let directory):
            "directory \(directory) is already in use by another process: stop that one, or choose another directory"
        case .disk(let error):
            "\(error): check the path and its permissions"
        }
    }
}
