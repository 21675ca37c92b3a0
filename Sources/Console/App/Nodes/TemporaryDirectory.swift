import Foundation

/// The directory of a playground that is thrown away. It is marked as ours by a lock on a file in it: whoever finds one that nobody locks
/// may remove it, since its owner has ended, however that happened.
enum TemporaryDirectory {
    private static let prefix = "quarterdeck-"
    private static let lockName = "owner.lock"

    /// - Throws: `NodeHostError` with one line.
    static func make() throws -> String {
        var template = Array((NSTemporaryDirectory() as NSString).appendingPathComponent(prefix + "XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else {
            throw NodeHostError("cannot make a temporary directory in \(NSTemporaryDirectory()): \(String(cString: strerror(errno)))")
        }
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // Locked before it has its name, so that no other console ever sees it unlocked; stays open for as long as this process lives.
        let new = path + "/" + lockName + ".new"
        let file = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        if file >= 0, flock(file, LOCK_EX | LOCK_NB) == 0 { rename(new, path + "/" + lockName) }
        return path
    }

    /// Removes what consoles left behind that were killed together with the helper that cleans up after them.
    static func sweep(_ parent: String = NSTemporaryDirectory()) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? [] where name.hasPrefix(prefix) && name.utf8.count == prefix.utf8.count + 6 {
            let path = (parent as NSString).appendingPathComponent(name)
            let file = open(path + "/" + lockName, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
            guard file >= 0 else { continue }
            if flock(file, LOCK_EX | LOCK_NB) == 0 { try? FileManager.default.removeItem(atPath: path) }
            close(file)
        }
    }
}
