/// How faults read for people. The one place: the Chaos view, forms, the palette, events and toasts all use it.
public enum FaultText {
    /// `n5 disk: fsync +20 ms`, `n2 → n3 cut`, `n1 n2 | n3 apart`. `name` gives a member's name by its id.
    public static func line(_ fault: Fault, _ name: (UInt64) -> String) -> String {
        switch fault {
        case .kill(let node): return "\(name(node)) killed"
        case .stop(let node): return "\(name(node)) stopped"
        case .pause(let node): return "\(name(node)) paused"
        case .tornTail(let node): return "\(name(node)) killed, its last log record torn"
        case .cut(let from, let to): return "\(name(from)) → \(name(to)) cut"
        case .isolate(let node): return "\(name(node)) cut off from its peers"
        case .partition(let groups): return groups.map { $0.map(name).joined(separator: " ") }.joined(separator: " | ") + " apart"
        case .wire(let from, let to, let wire):
            let place = switch (from, to) {
            case (nil, nil): "all links"
            case (let from?, nil): "\(name(from)) → all"
            case (nil, let to?): "all → \(name(to))"
            case (let from?, let to?): "\(name(from)) → \(name(to))"
            }
            return "\(place) \(text(wire))"
        case .disk(let node, let disk): return "\(name(node)) disk: \(text(disk))"
        case .clock(let node, let clock): return "\(name(node)) clock: \(text(clock))"
        }
    }

    /// As the cause of what followed: `kill n1`, `partition n1 n2 | n3`.
    public static func cause(_ fault: Fault, _ name: (UInt64) -> String) -> String {
        switch fault {
        case .kill(let node): "kill \(name(node))"
        case .stop(let node): "stop \(name(node))"
        case .pause(let node): "pause \(name(node))"
        case .tornTail(let node): "torn log of \(name(node))"
        case .cut(let from, let to): "cut \(name(from)) → \(name(to))"
        case .isolate(let node): "cut off \(name(node))"
        case .partition(let groups): "partition " + groups.map { $0.map(name).sorted().joined(separator: " ") }.joined(separator: " | ")
        case .wire, .disk, .clock: line(fault, name)
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
    public static func done(_ fault: Fault, _ name: (UInt64) -> String) -> String { line(fault, name) }

    /// The answer to healing it.
    public static func healed(_ fault: Fault, _ name: (UInt64) -> String) -> String {
        switch fault {
        case .kill(let node), .stop(let node), .tornTail(let node): "\(name(node)) restarted"
        case .pause(let node): "\(name(node)) goes on"
        case .isolate(let node): "\(name(node)) linked again"
        default: "healed: \(line(fault, name))"
        }
    }

    /// `delay 40 ms ±5, loss 1 %`.
    public static func text(_ wire: WireFault) -> String {
        var parts: [String] = []
        if wire.delayMilliseconds > 0 { parts.append("delay \(number(wire.delayMilliseconds)) ms" + (wire.jitterMilliseconds > 0 ? " ±\(number(wire.jitterMilliseconds))" : "")) }
        if wire.lossPercent > 0 { parts.append("loss \(number(wire.lossPercent)) %") }
        if wire.duplicatePercent > 0 { parts.append("duplicates \(number(wire.duplicatePercent)) %") }
        if let rate = wire.bytesPerSecond { parts.append("at most \(Format.bytes(rate))/s") }
        return parts.isEmpty ? "unchanged" : parts.joined(separator: ", ")
    }

    public static func text(_ disk: DiskFault) -> String {
        switch disk {
        case .slow(let milliseconds): "fsync +\(milliseconds) ms"
        case .stuck: "fsync stuck"
        case .full: "full (ENOSPC)"
        case .broken: "I/O errors (EIO)"
        }
    }

    public static func text(_ clock: ClockFault) -> String {
        switch clock {
        case .jump(let milliseconds): "jump \(signed(milliseconds))"
        case .drift(let ppm): "drift \(ppm > 0 ? "+" : "")\(ppm) ppm"
        }
    }

    /// A link's fault in the few columns of a matrix cell: `+40 ±5`, `loss 5%`, `+40 5%`.
    static func cell(_ wire: WireFault) -> String {
        if wire.delayMilliseconds > 0 {
            let delay = "+\(number(wire.delayMilliseconds))"
            if wire.lossPercent > 0 { return "\(delay) \(number(wire.lossPercent))%" }
            return delay + (wire.jitterMilliseconds > 0 ? " ±\(number(wire.jitterMilliseconds))" : "")
        }
        if wire.lossPercent > 0 { return "loss \(number(wire.lossPercent))%" }
        if wire.duplicatePercent > 0 { return "dup \(number(wire.duplicatePercent))%" }
        return wire.bytesPerSecond.map { Format.shortBytes(Int64($0)) + "/s" } ?? "ok"
    }

    static func cell(_ disk: DiskFault) -> String {
        switch disk {
        case .slow(let milliseconds): "+\(milliseconds) ms"
        case .stuck: "stuck"
        case .full: "full"
        case .broken: "EIO"
        }
    }

    static func cell(_ clock: ClockFault) -> String {
        switch clock {
        case .jump(let milliseconds): signed(milliseconds)
        case .drift(let ppm): "\(ppm > 0 ? "+" : "")\(ppm)ppm"
        }
    }

    private static func signed(_ milliseconds: Int) -> String {
        (milliseconds < 0 ? "-" : "+") + span(Int64(milliseconds.magnitude))
    }

    /// `30s`, `1m30s`, `500ms`: what `milliseconds(of:)` reads.
    public static func span(_ milliseconds: Int64) -> String {
        let milliseconds = max(0, milliseconds)
        if milliseconds % 1_000 != 0 { return milliseconds < 1_000 ? "\(milliseconds)ms" : "\(number(Double(milliseconds) / 1_000))s" }
        let seconds = milliseconds / 1_000
        if seconds < 60 { return "\(seconds)s" }
        if seconds < 3_600 { return "\(seconds / 60)m" + (seconds % 60 > 0 ? "\(seconds % 60)s" : "") }
        return "\(seconds / 3_600)h" + (seconds % 3_600 / 60 > 0 ? "\(seconds % 3_600 / 60)m" : "")
    }

    /// A time as people type it: `30s`, `1.5s`, `2m`, `1m30s`, `500ms`, `1h`; a bare number is seconds. nil: not a time.
    static func milliseconds(of text: String) -> Int64? {
        let text = text.filter { $0 != " " }
        var rest = Substring(text)
        var total = 0.0
        guard !rest.isEmpty else { return nil }
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && $0.isNumber || $0 == "." }
            let isFirst = digits.count == text.count
            guard let value = Double(digits) else { return nil }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { $0.isLetter }
            rest = rest.dropFirst(unit.count)
            switch unit {
            case "ms": total += value
            case "s": total += value * 1_000
            case "" where isFirst: total = value * 1_000
            case "m", "min": total += value * 60_000
            case "h": total += value * 3_600_000
            default: return nil
            }
        }
        return total.isFinite && total < 1e12 ? Int64(total.rounded()) : nil
    }

    /// Without a useless fraction: 40, 0.5.
    static func number(_ value: Double) -> String {
        let tenths = (value * 10).rounded() / 10
        return tenths == tenths.rounded() && abs(tenths) < 1e15 ? String(Int64(tenths)) : String(tenths)
    }
}

/// What a person can do to break something, in the order of the Add a fault panel: one key each.
enum FaultAct: CaseIterable, Hashable, Sendable {
    case kill, stop, pause, tear, cut, groups, flaky, disk, clock

    var key: Character {
        switch self {
        case .kill: "K"
        case .stop: "S"
        case .pause: "P"
        case .tear: "T"
        case .cut: "X"
        case .groups: "B"
        case .flaky: "F"
        case .disk: "I"
        case .clock: "C"
        }
    }

    var title: String {
        switch self {
        case .kill: "kill"
        case .stop: "stop gently"
        case .pause: "pause"
        case .tear: "tear the log"
        case .cut: "cut"
        case .groups: "break up"
        case .flaky: "flaky link"
        case .disk: "disk"
        case .clock: "clock"
        }
    }

    var detail: String {
        switch self {
        case .kill: "as SIGKILL: nothing flushed"
        case .stop: "hands leadership over first"
        case .pause: "still, with connections open"
        case .tear: "power loss: last record torn"
        case .cut: "link one way · node off peers"
        case .groups: "into groups: n1 n2 | n3"
        case .flaky: "delay jitter loss dup rate"
        case .disk: "slow · stuck · full · errors"
        case .clock: "jump · drift"
        }
    }

    var kinds: [FaultKind] {
        switch self {
        case .kill: [.kill]
        case .stop: [.stop]
        case .pause: [.pause]
        case .tear: [.tornTail]
        case .cut: [.cut, .isolate]
        case .groups: [.partition]
        case .flaky: [.wire]
        case .disk: [.diskSlow, .diskStuck, .diskFull, .diskBroken]
        case .clock: [.clockJump, .clockDrift]
        }
    }

    /// Its key does it at once; the others ask for their figures in a form. (Every one has a form: it also sets the end.)
    var isImmediate: Bool {
        switch self {
        case .kill, .stop, .pause, .cut: true
        case .tear, .groups, .flaky, .disk, .clock: false
        }
    }
}
