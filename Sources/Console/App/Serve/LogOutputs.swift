import Foundation
import Logging

/// Where the log goes and what is in it: `--log-outputs`, `--log-level`, rotation.
struct LogOptions: Hashable, Sendable {
    enum Output: Hashable, Sendable {
        case standardError, standardOutput
        case file(String)
    }
    /// None is there twice.
    var outputs: [Output] = [.standardError]
    var level = Logger.Level.info
    /// nil: files grow.
    var rotation: LogRotation?

    init() {}

    /// - Throws: one line.
    init(_ settings: inout ServeSettings) throws(CommandFailure) {
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line, status: 64) }
        level = switch settings.text("log-level") {
        case "debug": .debug
        case "warn": .warning
        case "error": .error
        case "info": .info
        // What has these levels in etcd ends the process there.
        default: .critical
        }
        let names = settings.list("log-outputs")
        guard names.count == 1 || !names.contains("default") else { throw wrong("--log-outputs: multi logoutput for \"default\" is not supported yet") }
        outputs = []
        for name in names {
            let output: Output
            switch name {
            case "default", "stderr": output = .standardError
            case "stdout": output = .standardOutput
            case "systemd/journal":
                output = .standardError
                settings.warn("--log-outputs systemd/journal: the log goes to standard error, which systemd takes to the journal")
            default: output = .file(name)
            }
            if !outputs.contains(output) { outputs.append(output) }
        }
        guard settings.truth("enable-log-rotation") else { return }
        let files = outputs.filter { if case .file = $0 { true } else { false } }
        guard files.count == 1 else { throw wrong("--enable-log-rotation requires a single file path in --log-outputs") }
        rotation = try LogRotation(json: settings.text("log-rotation-config-json"))
    }

    /// Opens the files.
    /// - Throws: one line with the file's name.
    func open() throws(CommandFailure) -> [LogSink] {
        var sinks: [LogSink] = []
        for output in outputs {
            switch output {
            case .standardError: sinks.append(.standardError)
            case .standardOutput: sinks.append(LogSink(descriptor: 1))
            case .file(let path):
                do throws(FileFailure) { sinks.append(LogSink(file: try LogFile(path, rotation: rotation))) } catch {
                    throw CommandFailure(description: "--log-outputs: the log file cannot be opened: \(error)", status: 1)
                }
            }
        }
        return sinks
    }
}
