import Base
import Dispatch
import Logging
import Synchronization
import UI

/// Where all log lines come together on their way to the Log view. Any thread adds, none ever waits: lines go out ten times a second, and
/// what would be too much for a person anyway is counted instead of kept.
final class LogFunnel: Sendable {
    private struct State {
        var lines: [LogLine] = []
        var dropped = 0
        var isScheduled = false
    }

    private static let periodMilliseconds = 100
    /// Lines of one period. A node that logs more than 5,000 lines a second has one problem, not many.
    private static let limit = 500

    private let state = Mutex(State())
    private let deliver: @Sendable ([LogLine]) -> Void

    /// - Parameter deliver: called from a thread of its own, never twice at the same time.
    init(deliver: @escaping @Sendable ([LogLine]) -> Void) { self.deliver = deliver }

    convenience init(_ mailbox: Mailbox) { self.init { mailbox.post(.logs($0)) } }

    func add(_ line: LogLine) {
        let mustSchedule = state.withLock { state in
            if state.lines.count < LogFunnel.limit { state.lines.append(line) } else { state.dropped += 1 }
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        if mustSchedule { LogFunnel.queue.asyncAfter(deadline: .now() + .milliseconds(LogFunnel.periodMilliseconds)) { self.flush() } }
    }

    private static let queue = DispatchQueue(label: "logs")

    private func flush() {
        let (lines, dropped) = state.withLock { state in
            defer { state = State() }
            return (state.lines, state.dropped)
        }
        guard dropped > 0 else { return deliver(lines) }
        deliver(lines + [LogLine(at: Clock.now(), node: 0, level: .warning, part: "console", text: "\(dropped) log lines dropped: too many at once")])
    }
}

/// Makes a line of what a node tells about itself, in whichever form.
struct NodeLogReader: Sendable {
    /// Long fields and lines serve nobody on a screen.
    private static let fieldLimit = 60, fieldCountLimit = 6, textLimit = 400

    /// By member id, for what the nodes write in hexadecimal.
    var names: [UInt64: String]

    /// A line of a node's standard error: JSON as etcd and `quarterdeck serve` write it, or any text (a crash).
    func line(_ text: String, of node: UInt64, at now: Moment) -> LogLine {
        guard let fields = FlatJSON.fields(text), let message = fields.first(where: { $0.key == "msg" })?.value else {
            let isCrash = ["panic:", "fatal error:", "Fatal error:", "goroutine ", "SIG"].contains { text.hasPrefix($0) }
            return LogLine(at: now, node: node, level: isCrash ? .critical : .warning, part: "process", text: String(text.prefix(NodeLogReader.textLimit)))
        }
        var level = LogLine.Level.info, at = now, part: String?
        var rest: [(key: String, value: String)] = []
        for field in fields {
            switch field.key {
            case "msg", "member": break
            case "level":
                level = switch field.value {
                case "debug": .debug
                case "warn": .warning
                case "error": .error
                case "dpanic", "panic", "fatal": .critical
                default: .info
                }
            case "ts": at = NodeLogReader.moment(field.value) ?? now
            // etcd names the module for Raft, and the source file for all.
            case "logger": part = field.value
            case "caller": part = part ?? field.value.split(separator: "/").first.map(String.init)
            default: rest.append(field)
            }
        }
        return LogLine(at: at, node: node, level: level, part: part ?? NodeLogReader.part(of: message, isRaft: rest.contains { $0.key == "term" }),
                       text: self.text(message, rest))
    }

    func text(_ message: String, _ fields: [(key: String, value: String)]) -> String {
        var text = named(message)
        for field in fields.prefix(NodeLogReader.fieldCountLimit) where !field.value.isEmpty {
            let value = named(field.value)
            text += "  \(field.key)=\(value.count > NodeLogReader.fieldLimit ? value.prefix(NodeLogReader.fieldLimit) + "…" : value)"
        }
        return String(text.prefix(NodeLogReader.textLimit))
    }

    /// Member ids become names.
    private func named(_ text: String) -> String {
        var result = "", word = ""
        func finish() {
            if word.utf8.count >= 12, let id = Hexadecimal.number(word.utf8), let name = names[id] { result += name } else { result += word }
            word = ""
        }
        for character in text {
            if character.isHexDigit { word.append(character) } else {
                finish()
                result.append(character)
            }
        }
        finish()
        return result
    }

    /// What part of one of our own nodes speaks.
    static func part(of message: String, isRaft: Bool) -> String {
        if isRaft { return "raft" }
        let first = message.prefix { $0 != " " }.lowercased()
        return switch first {
        case "snapshot": "snapshot"
        case "peer": "peers"
        case "client": "clients"
        case "compacted", "lease", "alarms", "membership": "store"
        default: "node"
        }
    }

    /// ISO 8601 with a time zone: 2026-11-26T19:12:01.123Z, …+0200, …+02:00.
    static func moment(_ text: String) -> Moment? {
        let bytes = Array(text.utf8)
        func number(_ range: Range<Int>) -> Int64? {
            guard range.upperBound <= bytes.count else { return nil }
            var value: Int64 = 0
            for byte in bytes[range] {
                guard byte >= 48, byte < 58 else { return nil }
                value = value * 10 + Int64(byte - 48)
            }
            return value
        }
        guard let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), let hour = number(11..<13), let minute = number(14..<16),
              let second = number(17..<19), (1...12).contains(month) else { return nil }
        var at = 19, milliseconds: Int64 = 0
        if at < bytes.count, bytes[at] == UInt8(ascii: ".") {
            var digits = 0
            at += 1
            while at < bytes.count, bytes[at] >= 48, bytes[at] < 58 {
                if digits < 3 { milliseconds = milliseconds * 10 + Int64(bytes[at] - 48) }
                digits += 1
                at += 1
            }
            while digits < 3 {
                milliseconds *= 10
                digits += 1
            }
        }
        var offsetMinutes: Int64 = 0
        if at < bytes.count, bytes[at] == UInt8(ascii: "+") || bytes[at] == UInt8(ascii: "-"), let hours = number(at + 1..<at + 3) {
            let minutesAt = at + 3 < bytes.count && bytes[at + 3] == UInt8(ascii: ":") ? at + 4 : at + 3
            offsetMinutes = (hours * 60 + (number(minutesAt..<minutesAt + 2) ?? 0)) * (bytes[at] == UInt8(ascii: "-") ? -1 : 1)
        }
        // Days since 1970 of the proleptic Gregorian calendar, years beginning in March.
        let marchYear = month > 2 ? year : year - 1
        let era = marchYear / 400, yearOfEra = marchYear % 400
        let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
        let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        return Moment(milliseconds: ((days * 24 + hour) * 60 + minute - offsetMinutes) * 60_000 + second * 1_000 + milliseconds)
    }
}

/// A JSON object's fields in their order; values that are objects or arrays stay as they are written.
enum FlatJSON {
    static func fields(_ text: String) -> [(key: String, value: String)]? {
        var scanner = Scanner(bytes: Array(text.utf8))
        return scanner.object()
    }

    private struct Scanner {
        let bytes: [UInt8]
        var at = 0
        init(bytes: [UInt8]) { self.bytes = bytes }

        private var byte: UInt8 { at < bytes.count ? bytes[at] : 0 }
        private mutating func skipBlanks() { while byte == 32 || byte == 9 || byte == 13 || byte == 10 { at += 1 } }
        private mutating func take(_ wanted: UInt8) -> Bool {
            skipBlanks()
            guard byte == wanted else { return false }
            at += 1
            return true
        }

        mutating func object() -> [(key: String, value: String)]? {
            guard take(UInt8(ascii: "{")) else { return nil }
            var fields: [(key: String, value: String)] = []
            if take(UInt8(ascii: "}")) { return fields }
            repeat {
                skipBlanks()
                guard let key = string(), take(UInt8(ascii: ":")), let value = value() else { return nil }
                fields.append((key, value))
            } while take(UInt8(ascii: ","))
            return take(UInt8(ascii: "}")) ? fields : nil
        }

        private mutating func value() -> String? {
            skipBlanks()
            if byte == UInt8(ascii: "\"") { return string() }
            let start = at
            var depth = 0
            while at < bytes.count {
                switch byte {
                case UInt8(ascii: "\""): guard string() != nil else { return nil }
                case UInt8(ascii: "{"), UInt8(ascii: "["):
                    depth += 1
                    at += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"), UInt8(ascii: ","):
                    if depth == 0 { return String(decoding: bytes[start..<at], as: UTF8.self) }
                    if byte != UInt8(ascii: ",") { depth -= 1 }
                    at += 1
                default: at += 1
                }
            }
            return nil
        }

        private mutating func string() -> String? {
            guard byte == UInt8(ascii: "\"") else { return nil }
            at += 1
            var result: [UInt8] = []
            while at < bytes.count {
                let next = bytes[at]
                at += 1
                switch next {
                case UInt8(ascii: "\""): return String(decoding: result, as: UTF8.self)
                case UInt8(ascii: "\\"):
                    guard at < bytes.count else { return nil }
                    let escaped = bytes[at]
                    at += 1
                    switch escaped {
                    // Line breaks have no place in a line.
                    case UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"): result.append(32)
                    case UInt8(ascii: "b"), UInt8(ascii: "f"): break
                    case UInt8(ascii: "u"):
                        guard at + 4 <= bytes.count, let code = Hexadecimal.number(bytes[at..<at + 4]) else { return nil }
                        at += 4
                        // Halves of a pair do not occur in what nodes write.
                        if code >= 32, let scalar = Unicode.Scalar(UInt32(code)) { result += Array(String(Character(scalar)).utf8) }
                    default: result.append(escaped)
                    }
                default: result.append(next)
                }
            }
            return nil
        }
    }
}

/// Hands what nodes inside this process log to the Log view. `member` in the metadata is the name of the node.
struct FunnelLogHandler: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    private let funnel: LogFunnel
    private let reader: NodeLogReader
    private let ids: [String: UInt64]

    init(_ funnel: LogFunnel, names: [UInt64: String]) {
        self.funnel = funnel
        reader = NodeLogReader(names: names)
        ids = Dictionary(names.map { ($0.value, $0.key) }) { first, _ in first }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var fields = metadata.merging(event.metadata ?? [:]) { $1 }
        let node = fields.removeValue(forKey: "member").flatMap { ids["\($0)"] } ?? 0
        let level: LogLine.Level = switch event.level {
        case .trace, .debug: .debug
        case .info, .notice: .info
        case .warning: .warning
        case .error: .error
        case .critical: .critical
        }
        let message = "\(event.message)"
        let part = NodeLogReader.part(of: message, isRaft: fields["term"] != nil)
        let sorted = fields.map { (key: $0.key, value: "\($0.value)") }.sorted { $0.key < $1.key }
        funnel.add(LogLine(at: Clock.now(), node: node, level: level, part: part, text: reader.text(message, sorted)))
    }
}
