import Log

// A log in a directory of its own, on a disk of its own perhaps. A member that were started without its log, or beside it, would have forgotten what it
// promised; so the data directory remembers where the log is, in a note that is there before the member's first promise.
extension MemberFiles {
    static func noteOfLogDirectory(in dataDirectory: String) -> String { dataDirectory + "/member/log-directory" }

    /// Longer ones are no paths.
    private static let longestNote = 4096

    /// Where the log of this data directory was last; nil: in it, or there was none.
    public static func notedLogDirectory(in dataDirectory: String, disk: any Disk) throws(DiskError) -> String? {
        let path = noteOfLogDirectory(in: dataDirectory)
        guard try disk.exists(path) else { return nil }
        let file = try disk.open(path, .reading)
        defer { file.close() }
        return String(decoding: try file.read(at: 0, count: longestNote), as: UTF8.self)
    }

    /// Whether the log is to be where this data directory's log is. One whose files were moved is where they are now.
    /// - Throws: `unusable` with the remedy, or the disk's fault.
    public func checkLogDirectory() throws {
        let home = MemberFiles.logDirectory(in: dataDirectory)
        guard let noted = try MemberFiles.notedLogDirectory(in: dataDirectory, disk: disk) else {
            guard logDirectory != home, try WriteAheadLog.exists(directory: home, disk: disk) else { return }
            throw Fault.unusable("\(dataDirectory) has its log in \(home), not in \(logDirectory): start without --wal-dir, or move the files of \(home) to \(logDirectory) first")
        }
        if try WriteAheadLog.exists(directory: noted, disk: disk) {
            guard noted != logDirectory else { return }
            throw Fault.unusable("\(dataDirectory) has its log in \(noted), not in \(logDirectory): start with --wal-dir \(noted), or move its files to \(logDirectory) first")
        }
        guard noted != logDirectory, try WriteAheadLog.exists(directory: logDirectory, disk: disk) else {
            throw Fault.unusable("the log of \(dataDirectory) was in \(noted) and is there no more: mount its disk, say where it is now with --wal-dir, "
                + "or clear both directories and add this member anew")
        }
    }

    /// Writes down where the log is. The log must be durable there.
    func noteLogDirectory() throws(DiskError) {
        let wanted = logDirectory == MemberFiles.logDirectory(in: dataDirectory) ? nil : logDirectory
        guard try MemberFiles.notedLogDirectory(in: dataDirectory, disk: disk) != wanted else { return }
        try MemberFiles.noteLogDirectory(wanted, in: dataDirectory, disk: disk)
    }

    /// Durable when it returns. Nil takes the note away.
    public static func noteLogDirectory(_ directory: String?, in dataDirectory: String, disk: any Disk) throws(DiskError) {
        let path = noteOfLogDirectory(in: dataDirectory)
        if let directory {
            let temporary = path + ".new"
            let file = try disk.open(temporary, .createIfMissing)
            defer { file.close() }
            let text = Array(directory.utf8)
            try file.truncate(to: 0)
            var failure: DiskError?
            text.withUnsafeBytes { raw in
                do throws(DiskError) { try file.write(raw, at: 0) } catch { failure = error }
            }
            if let failure { throw failure }
            try file.sync()
            try disk.rename(temporary, to: path)
        } else {
            try disk.remove(path)
        }
        try disk.syncDirectory(dataDirectory + "/member")
    }
}
