import Base
import BoltFile
import Store

/// A backend's tables as the database file of a real etcd. A copy, key by key: the tables are etcd's buckets.
enum SnapshotExport {
    /// What etcd knows of `meta`. What this program keeps there besides is its own.
    private static let metaKeys = [MetaKey.confState, MetaKey.consistentIndex, MetaKey.finishedCompactRevision, MetaKey.scheduledCompactRevision, MetaKey.term]
    private static let clusterVersionKey = Array("clusterVersion".utf8)

    struct Cancelled: Error {}

    /// - Parameter reader: one picture; the whole of it is read.
    /// - Parameter isCancelled: asked now and then; true ends the work with `Cancelled`.
    /// - Returns: the file's size in bytes.
    static func write(_ reader: any BackendReader, to sink: any BoltSink, isCancelled: () -> Bool) throws -> UInt64 {
        var writer = BoltWriter(to: sink)
        for table in Table.inFileOrder {
            try writer.begin(bucket: Array(table.name.utf8))
            switch table {
            case .meta: for (key, value) in try meta(reader) { try writer.put(key, value) }
            case .cluster: for (key, value) in try cluster(reader) { try writer.put(key, value) }
            default:
                var fault: BoltFault?
                var isStopped = false
                var count = 0
                try reader.scan(table, from: []) { key, value in
                    do throws(BoltFault) { try writer.put(key, value) } catch { fault = error }
                    count += 1
                    if count % 256 == 0, isCancelled() { isStopped = true }
                    return fault == nil && !isStopped
                }
                if let fault { throw fault }
                if isStopped { throw Cancelled() }
            }
        }
        return try writer.finish()
    }

    private static func meta(_ reader: any BackendReader) throws -> [(key: [UInt8], value: [UInt8])] {
        var entries: [(key: [UInt8], value: [UInt8])] = []
        for key in metaKeys.sorted(by: { compareBytes($0, $1) < 0 }) {
            guard var value = try reader.get(.meta, key, { [UInt8]($0) }) else { continue }
            // A member that has applied nothing yet. etcd takes term 0 for a file of an older version.
            if key == MetaKey.term, value.allSatisfy({ $0 == 0 }), !value.isEmpty { value[value.count - 1] = 1 }
            entries.append((key, value))
        }
        return entries
    }

    /// The version is what this server claims: a file that was restored from an older or newer etcd's snapshot is one of this version now.
    /// etcd 3.4 does not look at it, nor at what 3.5 added to `meta`: it keeps its members and version elsewhere, and starts from the file too.
    private static func cluster(_ reader: any BackendReader) throws -> [(key: [UInt8], value: [UInt8])] {
        var entries: [(key: [UInt8], value: [UInt8])] = []
        try reader.scan(.cluster, from: []) { key, value in
            entries.append(([UInt8](key), [UInt8](value)))
            return true
        }
        entries.removeAll { $0.key == clusterVersionKey }
        entries.append((clusterVersionKey, Array(ServerVersion.cluster.utf8)))
        return entries.sorted { compareBytes($0.key, $1.key) < 0 }
    }
}

extension Table {
    /// By name, as buckets lie in a file.
    static let inFileOrder = allCases.sorted { compareBytes(Array($0.name.utf8), Array($1.name.utf8)) < 0 }
    /// nil: no bucket of etcd's.
    init?(bucket name: [UInt8]) {
        guard let table = Table.allCases.first(where: { Array($0.name.utf8) == name }) else { return nil }
        self = table
    }
}
