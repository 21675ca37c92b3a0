import LMDBBackend
import Log
import Replica
import Store

extension StoreDirectory {
    /// A member's backends on the real disk: `member/store/NUMBER.lmdb`.
    static func lmdb(in dataDirectory: String, disk: any Disk, mapSizeBytes: Int, wrapBackend: @escaping @Sendable (any Backend) -> any Backend) -> StoreDirectory {
        StoreDirectory(directory(in: dataDirectory), on: disk, suffix: ".lmdb", companions: ["-lock"]) { path in
            wrapBackend(try LMDBBackend(path: path, mapSizeBytes: mapSizeBytes))
        }
    }
}
