/// Faults as lines for people.
public enum FaultText {
    /// "n5 disk: fsync +20 ms". `name`: of a node.
    public static func line(_ fault: Fault, _ name: (UInt64) -> String) -> String {
        switch fault {
        case .kill(let node): "\(name(node)) killed"
        case .stop(let node): "\(name(node)) stopped"
        case .pause(let node): "\(name(node)) paused"
        case .tornTail(let node): "\(name(node)) log: last record torn"
        case .cut(let from, let to): "\(name(from)) → \(name(to)): cut"
        case .isolate(let node): "\(name(node)) cut off"
        case .partition(let groups): "cut \(groups.map { $0.map(name).joined(separator: " ") }.joined(separator: " | "))"
        case .wire(let from, let to, let wire): "\(from.map(name) ?? "all") → \(to.map(name) ?? "all"): \(text(wire))"
        case .disk(let node, let disk): "\(name(node)) disk: \(text(disk))"
        case .clock(let node, .jump(let milliseconds)): "\(name(node)) clock: \(milliseconds < 0 ? "-" : "+")\(Format.span(milliseconds: Int64(abs(milliseconds))))"
        case .clock(let node, .drift(let partsPerMillion)): "\(name(node)) clock: \(partsPerMillion < 0 ? "" : "+")\(partsPerMillion) ppm"
        }
    }

    /// The line of its event; nil: its node tells it by what it does (dead, paused, cut off).
    public static func told(_ fault: Fault, _ name: (UInt64) -> String) -> String? {
        switch fault {
        case .kill, .stop, .pause, .isolate: nil
        default: line(fault, name)
        }
    }

    /// The answer to switching it on.
    public static func done(_ fault: Fault, _ name: (UInt64) -> String) -> String {
        if case .tornTail(let node) = fault { return "\(name(node)) killed, its log torn in the last record" }
        return line(fault, name)
    }

    /// The answer to healing it.
    public static func healed(_ fault: Fault, _ name: (UInt64) -> String) -> String {
        switch fault {
        case .kill(let node), .stop(let node), .tornTail(let node): "\(name(node)) restarted"
        case .pause(let node): "\(name(node)) goes on"
        case .isolate(let node): "\(name(node)) linked again"
        default: "healed: \(line(fault, name))"
        }
    }

    /// "30.0 s"
    public static func span(_ milliseconds: Int64) -> String { Format.span(milliseconds: max(0, milliseconds)) }

    private static func text(_ wire: WireFault) -> String {
        var parts: [String] = []
        func number(_ value: Double) -> String { value == value.rounded() ? String(Int(value)) : String(value) }
        if wire.delayMilliseconds > 0 || wire.jitterMilliseconds > 0 {
            parts.append("+\(number(wire.delayMilliseconds))\(wire.jitterMilliseconds > 0 ? " ±\(number(wire.jitterMilliseconds))" : "") ms")
        }
        if wire.lossPercent > 0 { parts.append("\(number(wire.lossPercent)) % lost") }
        if wire.duplicatePercent > 0 { parts.append("\(number(wire.duplicatePercent)) % twice") }
        if let rate = wire.bytesPerSecond { parts.append("\(Format.bytes(rate))/s") }
        return parts.joined(separator: ", ")
    }

    private static func text(_ disk: DiskFault) -> String {
        switch disk {
        case .slow(let milliseconds): "fsync +\(milliseconds) ms"
        case .stuck: "fsync stuck"
        case .full: "full (ENOSPC)"
        case .broken: "broken (EIO)"
        }
    }
}
