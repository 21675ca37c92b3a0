import Foundation
import Logging

/// Lines on their way to a descriptor or a file. Who logs never waits: a pipe that nobody reads, or a disk that stands still, costs lines and not the
/// node's service (incident 48, docs/incidents.md). What did not fit is counted, and told once there is room again.
final class LogSink: @unchecked Sendable {
    // @unchecked: everything that changes is under the condition's lock.
    static let standardError = LogSink(descriptor: 2)

    private enum Target {
        /// Shared with others, and perhaps a pipe.
        case descriptor(Int32)
        case file(LogFile)
    }
    private let target: Target
    private let limit: Int
    private let condition = NSCondition()
    private var waiting: [UInt8] = []
    private var dropped = 0
    private var isWriting = false
    private var isStarted = false

    /// - Parameter limit: bytes that may wait.
    init(descriptor: Int32, limit: Int = 1 << 20) {
        target = .descriptor(descriptor)
        self.limit = limit
    }

    init(file: LogFile, limit: Int = 1 << 20) {
        target = .file(file)
        self.limit = limit
    }

    /// - Parameter line: with its line end.
    func take(_ line: String) {
        condition.withLock {
            guard waiting.count + line.utf8.count <= limit else {
                dropped += 1
                return
            }
            waiting.append(contentsOf: line.utf8)
            if !isStarted {
                isStarted = true
                Thread.detachNewThread { [self] in run() }
            }
            condition.broadcast()
        }
    }

    /// Waits until everything is written, at most so long. To be called before the process ends.
    func flush(withinSeconds seconds: Double) {
        let limit = Date(timeIntervalSinceNow: seconds)
        condition.withLock {
            while isWriting || !waiting.isEmpty {
                guard condition.wait(until: limit) else { return }
            }
        }
    }

    private func run() {
        while true {
            var bytes: [UInt8] = []
            condition.withLock {
                isWriting = false
                condition.broadcast()
                while waiting.isEmpty { condition.wait() }
                isWriting = true
                swap(&bytes, &waiting)
                if dropped > 0 {
                    bytes.append(contentsOf: "{\"level\":\"warn\",\"ts\":\"\(JSONLogHandler.timestamp())\",\"msg\":\"log lines were dropped because nobody took them\",\"lines\":\(dropped)}\n".utf8)
                    dropped = 0
                }
            }
            bytes.withUnsafeBytes { bytes in
                switch target {
                case .descriptor(let descriptor): write(bytes, to: descriptor)
                case .file(let file):
                    // What a full disk did not take.
                    let lost = bytes[file.write(bytes)...].count { $0 == UInt8(ascii: "\n") }
                    if lost > 0 { condition.withLock { dropped += lost } }
                }
            }
        }
    }

    private func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Foundation.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                var descriptors = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&descriptors, 1, -1)
            } else if errno != EINTR {
                // Closed: there is nobody to tell.
                return
            }
        }
    }
}

/// One JSON object a line, with the keys that etcd's logs have: level, ts, msg, then the fields.
struct JSONLogHandler: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level
    private let sinks: [LogSink]

    init(level: Logger.Level, sinks: [LogSink]) {
        logLevel = level
        self.sinks = sinks
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let level = switch event.level {
        case .trace, .debug: "debug"
        case .info, .notice: "info"
        case .warning: "warn"
        case .error: "error"
        case .critical: "fatal"
        }
        var line = "{\"level\":\"\(level)\",\"ts\":\"\(JSONLogHandler.timestamp())\",\"msg\":\(JSONLogHandler.quoted("\(event.message)"))"
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            line += ",\(JSONLogHandler.quoted(key)):\(JSONLogHandler.quoted("\(value)"))"
        }
        line += "}\n"
        for sink in sinks { sink.take(line) }
    }

    static func timestamp() -> String {
        Date().formatted(.iso8601.year().month().day().timeZone(separator: .omitted).time(includingFractionalSeconds: true))
    }

    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case _ where scalar.value < 0x20: out += "\\u" + String(repeating: "0", count: scalar.value < 16 ? 3 : 2) + String(scalar.value, radix: 16)
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
