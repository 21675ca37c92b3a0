import Base
import LMDBBackend
import Log
import Replica
import Store

/// A member's backends on the real disk: `member/store/NUMBER.lmdb`.
struct LMDBStoreFiles: StoreFiles, Sendable {
    let directory: String
    let disk: any Disk
    let mapSizeBytes: Int
    /// Told when a read of one of them meets damage.
    var damageMet: @Sendable (BackendError) -> Void = { _ in }
    var wrapBackend: @Sendable (any Backend) -> any Backend = { $0 }

    static func directory(in dataDirectory: String) -> String { dataDirectory + "/member/store" }

    private func path(_ number: UInt64) -> String {
        let hex = String(number, radix: 16)
        return directory + "/" + String(repeating: "0", count: 16 - hex.count) + hex + ".lmdb"
    }

    private static func number(_ name: String) -> UInt64? {
        guard name.hasSuffix(".lmdb"), name.utf8.count == 21 else { return nil }
        return UInt64(name.dropLast(5), radix: 16)
    }

    func numbers() throws -> [UInt64] {
        try disk.makeDirectory(directory)
        return try disk.list(directory).compactMap(LMDBStoreFiles.number)
    }

    func open(_ number: UInt64) throws -> any Backend { wrapBackend(try LMDBBackend(path: path(number), mapSizeBytes: mapSizeBytes, damageMet: damageMet)) }

    func openForReading(_ number: UInt64) throws -> any Backend {
        try LMDBBackend(path: path(number), mapSizeBytes: mapSizeBytes, isReadOnly: true)
    }

    func remove(_ number: UInt64) {
        try? disk.remove(path(number))
        try? disk.remove(path(number) + "-lock")
        try? disk.syncDirectory(directory)
    }

    func sync() throws { try disk.syncDirectory(directory) }
}
