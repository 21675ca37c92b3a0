import Base
import BoltFile
import Crypto
import Foundation
import Log
import Logging
import NIOConcurrencyHelpers
import Store
import Synchronization

/// Where a node makes the snapshots that its clients take: bounded in number, in files that have no name, on threads of their own. Thread-safe.
public final class SnapshotDesk: @unchecked Sendable {
    // @unchecked: what changes is under `condition`'s lock.
    /// Made or being read at once, each a copy of the store on the disk; more is "too many requests".
    static let maxAtOnce = 4
    /// What a copy must leave free: a full disk would end the node.
    static let reservedBytes: UInt64 = 128 << 20

    private let directory: String
    private let disk: any Disk
    private let logger: Logger
    private let condition = NSCondition()
    private var taken = 0
    private var writing = 0
    private var number = 0
    private var hasEnded = false

    /// - Parameter directory: the member's; must exist. What a crash left there is removed.
    init(directory: String, disk: any Disk, logger: Logger) {
        self.directory = directory
        self.disk = disk
        self.logger = logger
        for name in (try? disk.list(directory)) ?? [] where name.hasPrefix("snapshot-") && name.hasSuffix(".spool") { try? disk.remove(directory + "/" + name) }
    }

    /// A place among those that are made at once; its end gives it back.
    final class Place: Sendable {
        fileprivate let desk: SnapshotDesk
        fileprivate init(_ desk: SnapshotDesk) { self.desk = desk }
        deinit { desk.locked { $0.taken -= 1 } }
    }

    /// nil: there are too many, or the node ends.
    func enter() -> Place? {
        let isFree = locked { desk in
            guard !desk.hasEnded, desk.taken < SnapshotDesk.maxAtOnce else { return false }
            desk.taken += 1
            return true
        }
        return isFree ? Place(self) : nil
    }

    private func locked<R>(_ body: (SnapshotDesk) -> R) -> R {
        condition.lock()
        defer { condition.unlock() }
        return body(self)
    }

    /// The node ends: what is being written is given up. Returns when nobody reads the backend here any more.
    func stop() {
        condition.lock()
        hasEnded = true
        while writing > 0 { condition.wait() }
        condition.unlock()
    }

    /// Writes the backend's latest commit into a spool, on a thread of its own, which calls `completion`.
    func spool(_ backend: any Backend, _ place: Place, isCancelled: @escaping @Sendable () -> Bool, completion: @escaping @Sendable (Result<SnapshotSpool, ServiceError>) -> Void) {
        let path: String? = locked { desk in
            guard !desk.hasEnded else { return nil }
            desk.writing += 1
            desk.number += 1
            return "\(desk.directory)/snapshot-\(desk.number).spool"
        }
        guard let path else { return completion(.failure(.stopped)) }
        let thread = Thread { [self] in
            let result = make(backend, place, path) { isCancelled() || self.locked(\.hasEnded) }
            locked { desk in
                desk.writing -= 1
                desk.condition.broadcast()
            }
            completion(result)
        }
        thread.name = "snapshot"
        thread.start()
    }

    private func make(_ backend: any Backend, _ place: Place, _ path: String, isCancelled: () -> Bool) -> Result<SnapshotSpool, ServiceError> {
        do {
            let used = UInt64(max(0, backend.size.usedBytes))
            if let free = SnapshotDesk.freeBytes(directory), free < used + used / 8 + SnapshotDesk.reservedBytes {
                throw ServiceError(.resourceExhausted, "etcdserver: no space for a snapshot: the data directory's disk has \(free >> 20) MiB left, \((used + used / 8 + SnapshotDesk.reservedBytes) >> 20) are needed")
            }
            let file = try disk.open(path, .new)
            defer { try? disk.remove(path) }
            let reader = try backend.makeReader()
            defer { reader.release() }
            let size = try SnapshotExport.write(reader, to: DiskFileSink(file), isCancelled: isCancelled)
            return .success(SnapshotSpool(file, size: size, place))
        } catch is SnapshotExport.Cancelled {
            return .failure(.stopped)
        } catch let error as ServiceError {
            return .failure(error)
        } catch {
            logger.error("a snapshot could not be made", metadata: ["reason": "\(error)"])
            return .failure(ServiceError(.internal, "etcdserver: snapshot: \(error)"))
        }
    }

    private static func freeBytes(_ path: String) -> UInt64? {
        var info = statvfs()
        guard statvfs(path, &info) == 0 else { return nil }
        return UInt64(info.f_bavail) * UInt64(info.f_frsize)
    }
}

/// A whole snapshot in a file without a name: it goes when this does. Read from front to back by one job at a time.
final class SnapshotSpool: @unchecked Sendable {
    // @unchecked: `file`, `hash` and `offset` belong to the job that reads.
    let size: UInt64
    private let file: any DiskFile
    private let place: SnapshotDesk.Place
    private var hash = SHA256()
    private var offset: UInt64 = 0

    init(_ file: any DiskFile, size: UInt64, _ place: SnapshotDesk.Place) {
        self.file = file
        self.size = size
        self.place = place
    }
    deinit { file.close() }

    struct Piece: Sendable {
        var bytes: [UInt8]
        /// What follows it, without the hash.
        var remaining: UInt64
        var isHash: Bool
    }

    /// The next pieces, `blobBytes` each, up to `bytes` altogether. The last one of all is the hash.
    func read(_ bytes: Int, blobBytes: Int) throws -> [Piece] {
        var pieces: [Piece] = []
        let end = min(size, offset + UInt64(bytes))
        while offset < end {
            let blob = try file.read(at: offset, count: Int(min(UInt64(blobBytes), size - offset)))
            guard !blob.isEmpty else { throw DiskError(operation: "read", path: "the snapshot's spool", code: EIO, message: "it ends at \(offset) of \(size) bytes") }
            hash.update(data: blob)
            offset += UInt64(blob.count)
            pieces.append(Piece(bytes: blob, remaining: size - offset, isHash: false))
        }
        if offset == size { pieces.append(Piece(bytes: Array(hash.finalize()), remaining: 0, isHash: true)) }
        return pieces
    }
}

/// A file as the bulk writer's end.
struct DiskFileSink: BoltSink {
    let file: any DiskFile
    init(_ file: any DiskFile) { self.file = file }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(BoltFault) {
        do { try file.write(bytes, at: offset) } catch { throw .io("\(error)") }
    }
}
