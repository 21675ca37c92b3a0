/// Everything that is made worse in a cluster on purpose: a state, not steps. A node that is given the same plan twice changes nothing the
/// second time, and an empty plan heals everything. Whole nodes (killed, paused) are not part of it: their host handles those.
///
/// Goes to child processes as JSON; field names are the contract between versions of the program that run at the same time.
public struct FaultPlan: Hashable, Codable, Sendable {
    /// One direction of one link.
    public struct Link: Hashable, Codable, Sendable {
        public var from: UInt64
        public var to: UInt64
        public var treatment: LinkTreatment
    }
    public struct Disk: Hashable, Codable, Sendable {
        public var node: UInt64
        public var treatment: DiskTreatment
    }
    public struct Clock: Hashable, Codable, Sendable {
        public var node: UInt64
        public var treatment: ClockTreatment
    }

    /// Only what is not sound, ordered by node; each link and node once.
    public private(set) var links: [Link] = []
    public private(set) var disks: [Disk] = []
    public private(set) var clocks: [Clock] = []

    /// Everything works.
    public init() {}

    /// An order may name a link or node twice, or figures that no clock can hold: the last word counts, within the bounds of its kind.
    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        func latest<Part, Key: Hashable>(_ parts: [Part], _ key: (Part) -> Key) -> [Part] { Array(Dictionary(parts.map { (key($0), $0) }) { $1 }.values) }
        links = latest(try fields.decode([Link].self, forKey: .links)) { [$0.from, $0.to] }
            .map { Link(from: $0.from, to: $0.to, treatment: $0.treatment.bounded) }
            .filter { $0.from != $0.to && !$0.treatment.isSound }.sorted { ($0.from, $0.to) < ($1.from, $1.to) }
        disks = latest(try fields.decode([Disk].self, forKey: .disks), \.node)
            .map { Disk(node: $0.node, treatment: $0.treatment.bounded) }.filter { $0.treatment != DiskTreatment() }.sorted { $0.node < $1.node }
        clocks = latest(try fields.decode([Clock].self, forKey: .clocks), \.node)
            .map { Clock(node: $0.node, treatment: $0.treatment.bounded) }.filter { $0.treatment != ClockTreatment() }.sorted { $0.node < $1.node }
    }

    public var isEmpty: Bool { links.isEmpty && disks.isEmpty && clocks.isEmpty }

    public subscript(from from: UInt64, to to: UInt64) -> LinkTreatment {
        get { links.first { $0.from == from && $0.to == to }?.treatment ?? LinkTreatment() }
        set {
            links.removeAll { $0.from == from && $0.to == to }
            let treatment = newValue.bounded
            guard from != to, !treatment.isSound else { return }
            links.append(Link(from: from, to: to, treatment: treatment))
            links.sort { ($0.from, $0.to) < ($1.from, $1.to) }
        }
    }

    public subscript(disk node: UInt64) -> DiskTreatment {
        get { disks.first { $0.node == node }?.treatment ?? DiskTreatment() }
        set {
            disks.removeAll { $0.node == node }
            let treatment = newValue.bounded
            guard treatment != DiskTreatment() else { return }
            disks.append(Disk(node: node, treatment: treatment))
            disks.sort { $0.node < $1.node }
        }
    }

    public subscript(clock node: UInt64) -> ClockTreatment {
        get { clocks.first { $0.node == node }?.treatment ?? ClockTreatment() }
        set {
            clocks.removeAll { $0.node == node }
            let treatment = newValue.bounded
            guard treatment != ClockTreatment() else { return }
            clocks.append(Clock(node: node, treatment: treatment))
            clocks.sort { $0.node < $1.node }
        }
    }

    /// No message passes between the node and any other of `nodes`, in either direction.
    public func isCutOff(_ node: UInt64, among nodes: [UInt64]) -> Bool {
        let others = nodes.filter { $0 != node }
        return !others.isEmpty && others.allSatisfy { self[from: node, to: $0].isCut && self[from: $0, to: node].isCut }
    }
}

/// What a link does to the messages that go over it, in its one direction. Order is kept, as TCP keeps it.
public struct LinkTreatment: Hashable, Codable, Sendable {
    /// Nothing gets through, and what is on the way is lost.
    public var isCut = false
    public var delayMicroseconds: Int64 = 0
    /// The delay varies evenly by up to this much either way, never below 0.
    public var jitterMicroseconds: Int64 = 0
    /// 0 ... 1 of all messages.
    public var lossShare: Double = 0
    public var duplicateShare: Double = 0
    /// nil: no limit.
    public var bytesPerSecond: Int?

    public init() {}
    public var isSound: Bool { self == LinkTreatment() }

    /// Delay and jitter up to a day each, shares of a whole, a rate above none.
    var bounded: LinkTreatment {
        var result = self
        result.delayMicroseconds = min(max(0, delayMicroseconds), 86_400_000_000)
        result.jitterMicroseconds = min(max(0, jitterMicroseconds), 86_400_000_000)
        // (What is no number compares with nothing.)
        result.lossShare = lossShare > 0 ? min(lossShare, 1) : 0
        result.duplicateShare = duplicateShare > 0 ? min(duplicateShare, 1) : 0
        result.bytesPerSecond = bytesPerSecond.map { max(1, $0) }
        return result
    }
}

/// What a disk does to its node. With several set, failing wins over being stuck, and that over being slow.
public struct DiskTreatment: Hashable, Codable, Sendable {
    public enum Failure: String, Hashable, Codable, Sendable {
        /// What needs space fails with ENOSPC.
        case full
        /// Writes and syncs fail with EIO; reads still work.
        case broken
    }

    /// Each sync takes this much longer.
    public var syncDelayMicroseconds: Int64 = 0
    /// A sync does not return until this ends.
    public var isStuck = false
    public var failure: Failure?

    public init() {}

    /// Up to a day.
    var bounded: DiskTreatment {
        var result = self
        result.syncDelayMicroseconds = min(max(0, syncDelayMicroseconds), 86_400_000_000)
        return result
    }
}

/// How a node's clock lies.
public struct ClockTreatment: Hashable, Codable, Sendable {
    /// The wall clock is this much ahead (negative: behind).
    public var offsetMilliseconds: Int64 = 0
    /// Timers have leapt ahead by this much, once: they leap again when it grows, and stay where they are when it shrinks, since a monotonic
    /// clock never goes back.
    public var leapMilliseconds: Int64 = 0
    /// Both clocks run this much too fast (negative: slow), parts per million.
    public var driftPartsPerMillion: Int64 = 0

    public init() {}

    /// A century at most. A clock may run at a hundredth of its speed but neither stand still nor run backwards, and eleven times too fast.
    var bounded: ClockTreatment {
        let century: Int64 = 100 * 366 * 86_400_000
        var result = self
        result.offsetMilliseconds = min(max(-century, offsetMilliseconds), century)
        result.leapMilliseconds = min(max(0, leapMilliseconds), century)
        result.driftPartsPerMillion = min(max(-990_000, driftPartsPerMillion), 10_000_000)
        return result
    }
}
