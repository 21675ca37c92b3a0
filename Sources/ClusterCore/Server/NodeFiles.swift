import LMDBBackend
import Log
import Replica
import Store

extension StoreDirectory {
    /// A member's backends on the real disk: `member/store/NUMBER.lmdb`.
    /// - Parameter damageMet: told when a read of one of them meets damage.
    static func lmdb(in dataDirectory: String, disk: any Disk, mapSizeBytes: Int, syncs: Bool = true, damageMet: @escaping @Sendable (BackendError) -> Void = { _ in },
                     wrapBackend: @escaping @Sendable (any Backend) -> any Backend = { $0 }) -> StoreDirectory {
        StoreDirectory(directory(in: dataDirectory), on: disk, suffix: ".lmdb", companions: ["-lock"], openFile: { path in
            wrapBackend(try LMDBBackend(path: path, mapSizeBytes: mapSizeBytes, syncs: syncs, damageMet: damageMet))
        }, openForReading: { path in
            try LMDBBackend(path: path, mapSizeBytes: mapSizeBytes, isReadOnly: true)
        })
    }
}
