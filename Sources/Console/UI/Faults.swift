/// Something that a person breaks on purpose, on nodes that this console started. Nodes are named by member id.
public enum Fault: Hashable, Codable, Sendable {
    // MARK: Processes
    /// Abruptly, as SIGKILL: nothing flushed, connections reset. Healed by starting the node again.
    case kill(UInt64)
    /// A graceful stop; leadership is handed over first.
    case stop(UInt64)
    /// As SIGSTOP: stands still with its connections open.
    case pause(UInt64)
    /// Kills the node and cuts its log in the middle of the last record, as a power failure would. Healed by starting it.
    case tornTail(UInt64)

    // MARK: Links
    /// Messages from `from` no longer reach `to`; the other direction still works.
    case cut(from: UInt64, to: UInt64)
    /// All links of the node, both ways.
    case isolate(UInt64)
    /// Links between different groups are cut both ways; nodes in no group keep all their links.
    case partition([[UInt64]])
    /// Makes links worse. `nil` stands for every node.
    case wire(from: UInt64?, to: UInt64?, WireFault)

    // MARK: Disk and clock
    case disk(UInt64, DiskFault)
    case clock(UInt64, ClockFault)

    /// The nodes it acts on, for marking them.
    public var nodes: [UInt64] {
        switch self {
        case .kill(let node), .stop(let node), .pause(let node), .tornTail(let node), .isolate(let node), .disk(let node, _), .clock(let node, _): [node]
        case .cut(let from, let to): [from, to]
        case .partition(let groups): groups.flatMap { $0 }
        case .wire(let from, let to, _): [from, to].compactMap { $0 }
        }
    }
}

/// What a link does to messages, in the one direction.
public struct WireFault: Hashable, Codable, Sendable {
    public var delayMilliseconds: Double
    /// The delay varies by up to this much, either way.
    public var jitterMilliseconds: Double
    public var lossPercent: Double
    public var duplicatePercent: Double
    /// nil: no limit.
    public var bytesPerSecond: Int?

    public init(delayMilliseconds: Double = 0, jitterMilliseconds: Double = 0, lossPercent: Double = 0, duplicatePercent: Double = 0, bytesPerSecond: Int? = nil) {
        self.delayMilliseconds = delayMilliseconds
        self.jitterMilliseconds = jitterMilliseconds
        self.lossPercent = lossPercent
        self.duplicatePercent = duplicatePercent
        self.bytesPerSecond = bytesPerSecond
    }
}

public enum DiskFault: Hashable, Codable, Sendable {
    /// Every fsync takes this much longer.
    case slow(milliseconds: Int)
    /// fsync does not return until healed.
    case stuck
    /// Writes fail with ENOSPC.
    case full
    /// Writes and fsyncs fail with EIO.
    case broken
}

public enum ClockFault: Hashable, Codable, Sendable {
    /// Wall clock and timers leap by this much, once (negative: wall clock only, timers never go back).
    case jump(milliseconds: Int)
    /// The clock runs this much too fast (negative: slow), parts per million.
    case drift(partsPerMillion: Int)
}

/// A fault that is on.
public struct ActiveFault: Hashable, Codable, Sendable, Identifiable {
    /// Counts up from 1 in a session.
    public var id: Int
    public var fault: Fault
    public var since: Moment
    /// When it heals by itself; nil: when somebody heals it, or the console ends.
    public var ends: Moment?
    /// "you", or the name of the scenario that did it.
    public var by: String

    public init(id: Int, fault: Fault, since: Moment, ends: Moment? = nil, by: String = "you") {
        self.id = id
        self.fault = fault
        self.since = since
        self.ends = ends
        self.by = by
    }
}

/// The kinds a person chooses among, and what the engine cannot do.
public enum FaultKind: String, CaseIterable, Hashable, Codable, Sendable {
    case kill, stop, pause, tornTail, cut, isolate, partition, wire, diskSlow, diskStuck, diskFull, diskBroken, clockJump, clockDrift
}

public struct FaultSupport: Hashable, Codable, Sendable {
    /// Why a kind is not to be had; absent: it is.
    public var reasons: [FaultKind: String]
    public init(reasons: [FaultKind: String] = [:]) { self.reasons = reasons }
    public func reason(_ kind: FaultKind) -> String? { reasons[kind] }
}

extension Fault {
    public var kind: FaultKind {
        switch self {
        case .kill: .kill
        case .stop: .stop
        case .pause: .pause
        case .tornTail: .tornTail
        case .cut: .cut
        case .isolate: .isolate
        case .partition: .partition
        case .wire: .wire
        case .disk(_, .slow): .diskSlow
        case .disk(_, .stuck): .diskStuck
        case .disk(_, .full): .diskFull
        case .disk(_, .broken): .diskBroken
        case .clock(_, .jump): .clockJump
        case .clock(_, .drift): .clockDrift
        }
    }
}
