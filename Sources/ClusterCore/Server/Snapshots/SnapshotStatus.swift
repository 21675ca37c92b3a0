import Base
import BoltFile
import Log
import Store

/// What a snapshot file holds, as `etcdutl snapshot status` of etcd 3.5 tells it.
public struct SnapshotStatus: Hashable, Sendable {
    /// CRC-32C over the names, keys and values of all buckets.
    public var hash: UInt32
    /// Of the last change.
    public var revision: Int64
    /// Entries of all buckets. (etcd 3.5; 3.6 counts living keys.)
    public var totalKeys: Int
    /// Of the database, in bytes.
    public var totalBytes: UInt64

    /// Reads the whole file and checks its structure; the hash at its end is not looked at. (etcd)
    public static func read(_ path: String, progress: (SnapshotProgress) -> Void = { _ in }) throws -> SnapshotStatus {
        let file = try SnapshotFile(path: path)
        do {
            let reader = try BoltReader(file)
            let total = reader.meta.sizeBytes
            var status = SnapshotStatus(hash: 0, revision: 0, totalKeys: 0, totalBytes: total)
            let walk = try BoltWalk(reader)
            for bucket in walk.buckets {
                let isKeyTable = bucket.name == Array(Table.key.name.utf8)
                status.hash = CRC32C.checksum(bucket.name, seed: status.hash)
                var cursor = walk.cursor(bucket)
                while try cursor.advance() {
                    var fault: String?
                    cursor.withEntry { key, value in
                        status.hash = CRC32C.checksum(key, seed: status.hash)
                        status.hash = CRC32C.checksum(value, seed: status.hash)
                        guard isKeyTable else { return }
                        fault = Table.key.fault(key: key, value: value)
                        if let revision = Table.mainRevision(ofKey: key) { status.revision = revision }
                    }
                    if let fault { throw SnapshotError("\(path) is damaged: \(fault)") }
                    status.totalKeys += 1
                    if status.totalKeys % 4_096 == 0 { progress(SnapshotProgress(step: "reading", doneBytes: min(file.readBytes, total), totalBytes: total)) }
                }
            }
            try walk.finish()
            progress(SnapshotProgress(step: "reading", doneBytes: total, totalBytes: total))
            return status
        } catch let fault as BoltFault {
            throw SnapshotError("\(path): \(fault)")
        }
    }
}
