import LMDBBackend
import Log
import PosixDisk
import Replica
import Store

/// Looks at a stopped node's data directory, changing nothing in it.
public enum DataDirectoryCheck {
    /// Why there is no verdict.
    public struct Refusal: Error, CustomStringConvertible {
        public var description: String
    }

    /// - Parameters:
    ///   - logDirectory: nil: where the data directory says that its log is.
    ///   - progress: which part of the files, and how much of it is done (0 to 1).
    public static func run(_ directory: String, logDirectory: String? = nil, progress: (_ part: String, _ done: Double) -> Void = { _, _ in }) throws(Refusal) -> MemberInspection {
        let disk = PosixDisk()
        do {
            guard try disk.exists(directory) else { throw Refusal(description: "\(directory) does not exist") }
            let logDirectory = try logDirectory ?? MemberFiles.notedLogDirectory(in: directory, disk: disk)
            let locks = try ([directory] + [logDirectory].compactMap { $0 }).map { try DirectoryLock(directory: $0, leavesNoTrace: true) }
            defer { withExtendedLifetime(locks) {} }
            let stores = StoreDirectory.lmdb(in: directory, disk: disk, mapSizeBytes: LMDBBackend.mapSizeBytes(quotaBytes: 2 << 30))
            return try MemberFiles(dataDirectory: directory, logDirectory: logDirectory, disk: disk, stores: stores).inspect(progress: progress)
        } catch let refusal as Refusal {
            throw refusal
        } catch DirectoryLockError.inUse {
            throw Refusal(description: "\(directory) is in use by a running node: stop it first (its own checks go on while it runs)")
        } catch {
            throw Refusal(description: "\(error)")
        }
    }
}
