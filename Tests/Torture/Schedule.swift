import Base

/// One thing that goes wrong for a while.
enum Fault: Sendable {
    /// Which member, decided when the fault begins.
    enum Target: Sendable, Hashable {
        case member(Int)
        /// Who leads at that moment; `otherwise` when nobody does.
        case leader(otherwise: Int)
        case all
    }
    enum Direction: String, Sendable { case both, out, `in` }

    /// SIGKILL; started again when the time is over.
    case kill(Target)
    /// SIGSTOP; SIGCONT when the time is over.
    case pause(Target)
    /// No byte passes between it and the others. `loses`: what is sent meanwhile is lost with the connection, else it arrives afterwards.
    case cut(Target, Direction, loses: Bool)
    /// One direction of one link.
    case cutLink(from: Int, to: Int, loses: Bool)
    /// Everything that leaves it is late.
    case delay(Target, milliseconds: Int, jitter: Int)
    case slow(Target, bytesPerSecond: Int)
    /// Its connections are reset again and again.
    case flap(Target, everyMilliseconds: Int)
    case diskSlow(Target, milliseconds: Int)
    case diskStuck(Target)
    case diskBroken(Target)
    case diskFull(Target)

    var kind: String {
        switch self {
        case .kill(.all): "kill-all"
        case .kill: "kill"
        case .pause: "pause"
        case .cut(_, .both, _): "cut"
        case .cut: "cut-one-way"
        case .cutLink: "cut-link"
        case .delay: "delay"
        case .slow: "slow"
        case .flap: "flap"
        case .diskSlow: "disk-slow"
        case .diskStuck: "disk-stuck"
        case .diskBroken: "disk-broken"
        case .diskFull: "disk-full"
        }
    }
}

/// A fault with its time, in milliseconds since the first could begin.
struct ScheduledFault: Sendable {
    var start: Int
    var duration: Int
    var fault: Fault
}

/// What goes wrong in a run, the same for the same seed.
enum Schedule {
    static func draw(seed: UInt64, milliseconds: Int, nodes: Int, profile: TortureOptions.Profile, engine: TortureOptions.Engine) -> [ScheduledFault] {
        var generator = SeededGenerator(seed: seed).split("schedule")
        // Each run has a taste of its own: some kinds never come, so that others meet more often.
        let kinds = kinds(profile, engine).filter { _ in profile != .all || Bool.random(using: &generator) || Bool.random(using: &generator) }
        guard !kinds.isEmpty else { return [] }
        var faults: [ScheduledFault] = []
        var now = 0
        while true {
            now += .random(in: 200...1_500, using: &generator)
            let first = drawOne(kinds, nodes, at: now, &generator)
            guard now + first.duration < milliseconds else { break }
            faults.append(first)
            // Sometimes a second one comes into it.
            if Int.random(in: 0..<3, using: &generator) == 0 {
                var second = drawOne(kinds, nodes, at: now + .random(in: 0...max(1, first.duration), using: &generator), &generator)
                second.duration = min(second.duration, max(100, milliseconds - second.start))
                if second.start < milliseconds { faults.append(second) }
                now = max(now + first.duration, second.start + second.duration)
            } else {
                now += first.duration
            }
        }
        return faults
    }

    private enum Kind: CaseIterable { case kill, pause, cut, cutLink, delay, slow, flap, diskSlow, diskStuck, diskBroken, diskFull }

    private static func kinds(_ profile: TortureOptions.Profile, _ engine: TortureOptions.Engine) -> [Kind] {
        switch profile {
        case .none: []
        case .kill: [.kill]
        case .pause: [.pause]
        case .net: [.cut, .cut, .cutLink, .delay, .slow, .flap]
        case .disk: engine == .etcd ? [] : [.diskSlow, .diskStuck, .diskBroken, .diskFull]
        case .all: [.kill, .kill, .pause, .pause, .cut, .cut, .cutLink, .delay, .slow, .flap]
            + (engine == .etcd ? [] : [.diskSlow, .diskStuck, .diskBroken, .diskFull])
        }
    }

    private static func drawOne(_ kinds: [Kind], _ nodes: Int, at start: Int, _ generator: inout SeededGenerator) -> ScheduledFault {
        let member = Int.random(in: 0..<nodes, using: &generator)
        let target: Fault.Target = Bool.random(using: &generator) ? .leader(otherwise: member) : .member(member)
        let loses = Bool.random(using: &generator)
        func span(_ range: ClosedRange<Int>) -> Int {
            // Short ones are as likely as long ones.
            Bool.random(using: &generator) ? .random(in: range.lowerBound...max(range.lowerBound, range.upperBound / 4), using: &generator) : .random(in: range, using: &generator)
        }
        let (fault, duration): (Fault, Int)
        switch kinds.randomElement(using: &generator)! {
        case .kill:
            fault = .kill(Int.random(in: 0..<6, using: &generator) == 0 ? .all : target)
            duration = span(0...4_000)
        case .pause:
            fault = .pause(target)
            duration = span(100...8_000)
        case .cut:
            let direction: Fault.Direction = [.both, .both, .in, .out].randomElement(using: &generator)!
            fault = .cut(target, direction, loses: loses)
            duration = span(200...8_000)
        case .cutLink:
            fault = .cutLink(from: member, to: (member + Int.random(in: 1..<max(2, nodes), using: &generator)) % nodes, loses: loses)
            duration = span(200...8_000)
        case .delay:
            let milliseconds = Int.random(in: 10...300, using: &generator)
            fault = .delay(target, milliseconds: milliseconds, jitter: milliseconds / 2)
            duration = span(500...6_000)
        case .slow:
            fault = .slow(target, bytesPerSecond: .random(in: 2_000...50_000, using: &generator))
            duration = span(500...6_000)
        case .flap:
            fault = .flap(target, everyMilliseconds: .random(in: 50...700, using: &generator))
            duration = span(500...5_000)
        case .diskSlow:
            fault = .diskSlow(target, milliseconds: .random(in: 5...150, using: &generator))
            duration = span(500...5_000)
        case .diskStuck:
            fault = .diskStuck(target)
            duration = span(200...5_000)
        case .diskBroken:
            fault = .diskBroken(target)
            duration = span(100...2_000)
        case .diskFull:
            fault = .diskFull(target)
            duration = span(100...3_000)
        }
        return ScheduledFault(start: start, duration: duration, fault: fault)
    }
}
