import Foundation

/// `--log-rotation-config-json`: when a log file makes room for a new one, and how many old ones stay. The names are those of etcd's library.
struct LogRotation: Hashable, Sendable {
    /// Bytes from which on a new file begins.
    var maxBytes = 100 << 20
    /// Old files are removed after so many days; 0: never.
    var maxAgeDays = 0
    /// Old files that stay; 0: all.
    var maxBackups = 0
    /// For the time in an old file's name; otherwise UTC.
    var usesLocalTime = false

    static let standard = "{\"maxsize\": 100}"

    private struct Text: Decodable {
        var maxsize: Int?
        var maxage: Int?
        var maxbackups: Int?
        var localtime: Bool?
        var compress: Bool?
    }

    /// - Throws: one line without the flag's name.
    init(json: String) throws(CommandFailure) {
        func wrong(_ what: String) -> CommandFailure { CommandFailure(description: "--log-rotation-config-json: \(what)", status: 64) }
        let text: Text
        do { text = try JSONDecoder().decode(Text.self, from: Data(json.utf8)) } catch {
            throw wrong("\(json) is no object of maxsize, maxage, maxbackups (numbers), localtime and compress (true or false)")
        }
        guard text.compress != true else { throw wrong("old log files are not compressed here: leave compress out") }
        func count(_ number: Int?, _ name: String, _ most: Int) throws(CommandFailure) -> Int {
            guard (0...most).contains(number ?? 0) else { throw wrong("\(name) must be a number from 0 to \(most)") }
            return number ?? 0
        }
        // 0 is their way to say the default.
        let megabytes = try count(text.maxsize, "maxsize", 1 << 20)
        if megabytes > 0 { maxBytes = megabytes << 20 }
        maxAgeDays = try count(text.maxage, "maxage", 36_500)
        maxBackups = try count(text.maxbackups, "maxbackups", 1_000_000)
        usesLocalTime = text.localtime ?? false
    }
}
