/// The file system as the log and the snapshot files see it. The real one is `PosixDisk`; tests and the simulator hand in
/// one that loses un-synced writes. Every call blocks; callers live on a disk thread (or in the simulator's only one).
/// A write is durable only after `sync`; a created, renamed or removed name only after `syncDirectory`.
public protocol Disk: AnyObject, Sendable {
    /// Names (not paths) in a directory, sorted.
    func list(_ directory: String) throws(DiskError) -> [String]
    func exists(_ path: String) throws(DiskError) -> Bool
    /// Creates missing parents too (mode 0700). Already there is fine.
    func makeDirectory(_ path: String) throws(DiskError)
    /// Opens for reading and writing, or as `mode` says.
    func open(_ path: String, _ mode: OpenMode) throws(DiskError) -> any DiskFile
    func rename(_ from: String, to: String) throws(DiskError)
    func remove(_ path: String) throws(DiskError)
    func syncDirectory(_ path: String) throws(DiskError)
}

public enum OpenMode: Sendable {
    /// Fails when the file does not exist.
    case existing
    /// Reading only; fails when the file does not exist.
    case reading
    /// Fails when the file exists.
    case new
    case createIfMissing
}

/// An open file. Confined to one thread at a time.
public protocol DiskFile: AnyObject {
    var size: UInt64 { get throws(DiskError) }
    /// Reads up to `count` bytes at `offset`; fewer only at the end of the file.
    func read(at offset: UInt64, count: Int) throws(DiskError) -> [UInt8]
    /// Writes everything or throws.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DiskError)
    /// Makes the file's bytes durable (fdatasync; F_FULLFSYNC on macOS).
    func sync() throws(DiskError)
    func truncate(to size: UInt64) throws(DiskError)
    /// Reserves space so that later writes change no metadata. Best effort.
    func preallocate(_ size: UInt64) throws(DiskError)
    func close()
}

/// A failed call to the file system.
public struct DiskError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What was tried: "open", "write", "sync", ...
    public var operation: String
    public var path: String
    /// errno
    public var code: Int32
    /// strerror's words
    public var message: String
    public init(operation: String, path: String, code: Int32, message: String) {
        self.operation = operation
        self.path = path
        self.code = code
        self.message = message
    }
    public var description: String { "cannot \(operation) \(path): \(message)" }
}
