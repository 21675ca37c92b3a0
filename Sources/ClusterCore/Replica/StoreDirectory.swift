import Base
import Log
import Store

/// A member's backends as files of one directory, named by their number: how the real ones (LMDB) and the simulator's are kept.
public struct StoreDirectory: StoreFiles, Sendable {
    public let directory: String
    private let disk: any Disk
    /// Behind the number, with its dot.
    private let suffix: String
    /// Files that the backend keeps beside its own, by what follows the name.
    private let companions: [String]
    private let openFile: @Sendable (_ path: String) throws -> any Backend
    private let openFileForReading: @Sendable (_ path: String) throws -> any Backend

    /// - Parameters:
    ///   - openFile: opens the backend at a path, or creates it when missing.
    ///   - openForReading: opens one that is there and leaves no trace; without it `openFile` has to do.
    public init(_ directory: String, on disk: any Disk, suffix: String, companions: [String] = [], openFile: @escaping @Sendable (_ path: String) throws -> any Backend,
                openForReading: (@Sendable (_ path: String) throws -> any Backend)? = nil) {
        self.directory = directory
        self.disk = disk
        self.suffix = suffix
        self.companions = companions
        self.openFile = openFile
        openFileForReading = openForReading ?? openFile
    }

    public static func directory(in dataDirectory: String) -> String { dataDirectory + "/member/store" }

    public func path(_ number: UInt64) -> String {
        let hex = String(number, radix: 16)
        return directory + "/" + String(repeating: "0", count: 16 - hex.utf8.count) + hex + suffix
    }

    private func number(_ name: String) -> UInt64? {
        guard name.hasSuffix(suffix), name.utf8.count == 16 + suffix.utf8.count else { return nil }
        return Hexadecimal.number(name.utf8.dropLast(suffix.utf8.count))
    }

    public func numbers() throws -> [UInt64] {
        try disk.makeDirectory(directory)
        return try disk.list(directory).compactMap(number)
    }

    public func open(_ number: UInt64) throws -> any Backend { try openFile(path(number)) }
    public func openForReading(_ number: UInt64) throws -> any Backend { try openFileForReading(path(number)) }

    public func remove(_ number: UInt64) {
        try? disk.remove(path(number))
        for companion in companions { try? disk.remove(path(number) + companion) }
        try? disk.syncDirectory(directory)
    }

    public func sync() throws { try disk.syncDirectory(directory) }
}
