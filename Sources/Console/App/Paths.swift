import Foundation

/// Where things live, by the XDG base directory specification.
enum Paths {
    static func home() -> String { ProcessInfo.processInfo.environment["HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? NSHomeDirectory() }

    static func configuration() -> String { base("XDG_CONFIG_HOME", ".config") }
    static func state() -> String { base("XDG_STATE_HOME", ".local/state") }

    private static func base(_ variable: String, _ standard: String) -> String {
        // The specification: relative paths are invalid and ignored.
        if let path = ProcessInfo.processInfo.environment[variable], path.hasPrefix("/") { return path + "/quarterdeck" }
        return home() + "/" + standard + "/quarterdeck"
    }

    /// Where files of a kind may be that people add to and that came along, the person's own first.
    static func shared(_ folder: String, executable: String? = Bundle.main.executablePath) -> [String] {
        var directories = [configuration() + "/" + folder, folder]
        // Installed (bin/quarterdeck beside share/quarterdeck), or run from a build directory below the checkout.
        var place = (executable ?? "") as NSString
        for _ in 0..<5 where place.length > 1 {
            place = place.deletingLastPathComponent as NSString
            directories.append(place.appendingPathComponent("share/quarterdeck/" + folder))
            directories.append(place.appendingPathComponent(folder))
        }
        return directories
    }

    /// `~` at the front is the home directory.
    static func expanded(_ path: String) -> String {
        if path == "~" { return home() }
        return path.hasPrefix("~/") ? home() + path.dropFirst(1) : path
    }

    static func abbreviated(_ path: String) -> String {
        let home = home()
        return home.count > 1 && path.hasPrefix(home + "/") ? "~" + path.dropFirst(home.count) : path
    }

    /// A directory only we can read, made where missing.
    static func makePrivateDirectory(_ path: String) throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    }
}

/// An error of the operating system with the words a person needs.
struct FileFailure: Error, CustomStringConvertible {
    var path: String
    var number: Int32
    var description: String { "\(Paths.abbreviated(path)): \(String(cString: strerror(number)).lowercased())" }
}

enum PrivateFile {
    /// Creates a file (mode 0600) that must not exist yet, with this content.
    static func create(_ path: String, _ content: [UInt8]) throws(FileFailure) {
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw FileFailure(path: path, number: errno) }
        defer { close(file) }
        var offset = 0
        while offset < content.count {
            let n = content.withUnsafeBytes { write(file, $0.baseAddress! + offset, content.count - offset) }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { throw FileFailure(path: path, number: errno) }
            offset += n
        }
    }
}
