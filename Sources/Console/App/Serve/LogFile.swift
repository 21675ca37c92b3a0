import Foundation

/// A file that log lines go to. Confined to its sink's thread.
final class LogFile {
    private let path: String
    private let rotation: LogRotation?
    private var descriptor: Int32
    private var size: Int

    /// Goes on with a file that is there.
    init(_ path: String, rotation: LogRotation? = nil) throws(FileFailure) {
        self.path = path
        self.rotation = rotation
        descriptor = try LogFile.open(path)
        size = LogFile.size(descriptor)
    }

    deinit { close(descriptor) }

    private static func open(_ path: String) throws(FileFailure) -> Int32 {
        let descriptor = Foundation.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileFailure(path: path, number: errno) }
        return descriptor
    }

    private static func size(_ descriptor: Int32) -> Int {
        var info = stat()
        return fstat(descriptor, &info) == 0 ? Int(info.st_size) : 0
    }

    /// Whole lines, which stay together in one file. Returns how many of their bytes went there: fewer when the disk is full.
    func write(_ bytes: UnsafeRawBufferPointer, at now: Date = Date()) -> Int {
        if let rotation, size > 0, size + bytes.count > rotation.maxBytes { rotate(rotation, at: now) }
        var done = 0
        while done < bytes.count {
            let count = Foundation.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            done += count
        }
        size += done
        return done
    }

    // MARK: Rotation

    /// What fails here leaves the file as it is, and the next write tries again.
    private func rotate(_ rotation: LogRotation, at now: Date) {
        let old = LogFile.backupName(path, at: now, rotation)
        // Two in a millisecond: the one before must not go under.
        guard access(old, F_OK) != 0, rename(path, old) == 0, let fresh = try? LogFile.open(path) else { return }
        close(descriptor)
        descriptor = fresh
        size = LogFile.size(fresh)
        for path in LogFile.surplus(of: LogFile.backups(of: path, rotation), rotation, at: now) { unlink(path) }
    }

    private static func formatter(_ rotation: LogRotation) -> DateFormatter {
        let formatter = DateFormatter()
        formatter.locale = Locale(identifier: "en_US_POSIX")
        formatter.timeZone = rotation.usesLocalTime ? .current : TimeZone(identifier: "UTC")
        formatter.dateFormat = "yyyy-MM-dd'T'HH-mm-ss.SSS"
        return formatter
    }

    /// etcd.log becomes etcd-2026-11-27T15-04-05.000.log.
    static func backupName(_ path: String, at time: Date, _ rotation: LogRotation) -> String {
        let ending = (path as NSString).pathExtension
        return (path as NSString).deletingPathExtension + "-" + formatter(rotation).string(from: time) + (ending.isEmpty ? "" : "." + ending)
    }

    /// The old files beside this one, the newest first.
    static func backups(of path: String, _ rotation: LogRotation) -> [(path: String, time: Date)] {
        let file = (path as NSString).lastPathComponent as NSString
        let directory = (path as NSString).deletingLastPathComponent
        let stem = file.deletingPathExtension + "-"
        let ending = file.pathExtension.isEmpty ? "" : "." + file.pathExtension
        let formatter = formatter(rotation)
        var found: [(path: String, time: Date)] = []
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory.isEmpty ? "." : directory)) ?? [] {
            guard name.hasPrefix(stem), name.hasSuffix(ending), name.count > stem.count + ending.count,
                  let time = formatter.date(from: String(name.dropFirst(stem.count).dropLast(ending.count))) else { continue }
            found.append(((directory as NSString).appendingPathComponent(name), time))
        }
        return found.sorted { $0.time > $1.time }
    }

    /// Which of the old files go.
    static func surplus(of backups: [(path: String, time: Date)], _ rotation: LogRotation, at now: Date) -> [String] {
        backups.enumerated().filter { place, backup in
            (rotation.maxBackups > 0 && place >= rotation.maxBackups)
                || (rotation.maxAgeDays > 0 && now.timeIntervalSince(backup.time) > Double(rotation.maxAgeDays) * 86_400)
        }.map(\.element.path)
    }
}
