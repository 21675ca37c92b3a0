import Base
import Replica

/// What kind of world a run draws its dials from.
public enum Profile: String, CaseIterable, Sendable {
    /// Five nodes, some 200 calls a second, every kind of fault that the seed switches on. The yardstick for speed.
    case busy
    /// One, three or five nodes (and spares that join), everything else drawn: the widest net. (swarm testing)
    case swarm
    /// Three nodes, 20 calls a second: long lives, slow faults, many leases.
    case calm
    /// Three nodes with second-long heartbeats and few calls: weeks of elections, expiries and compactions.
    case longhaul
    /// No faults at all: nothing may go wrong, and everything must make progress.
    case clean
}

/// Everything that differs from run to run, drawn from the seed before the first event.
public struct Dials: Sendable {
    /// Kinds of fault; each seed switches some on.
    public enum Fault: String, CaseIterable, Sendable {
        // Network
        case loss, duplicates, reordering, delay, cut, oneWayCut, partition, flap, reset
        // Processes
        case kill, powerCut, killAll, powerCutAll, pause, restartLoop
        // Disks
        case slowDisk, stuckDisk, diskError, diskFull, storeError, bitRot, wipe, oldImage
        // Clocks
        case drift, clockLeap
        // Operations under load
        case transfer, compaction, membership, snapshotChurn, leaseStorm
    }

    public var profile: Profile
    public var nodes = 5
    /// Members that may join later.
    public var spares = 0
    public var faults: Set<Fault> = []
    /// Between two faults, on average, and how long one lasts.
    public var faultEvery = TimeSpan.seconds(4)
    public var faultLasts = TimeSpan.seconds(3)
    /// Trouble and rest take turns; in each rest everything is healed and must recover.
    public var troubleLasts = TimeSpan.seconds(40)

    // Clients
    public var clients = 8
    /// From one call's end to the next one's start, on average.
    public var thinkTime = TimeSpan.milliseconds(35)
    public var clientTimeout = TimeSpan.seconds(4)
    public var keys = 12
    public var watchers = 6
    public var valueBytes = 64
    /// Answers that never reach the client, in per mille.
    public var lostAnswersPerMille = 0
    /// Share of calls, in parts of their sum.
    public var mix: [(OperationKind, Int)] = []
    public enum OperationKind: Sendable {
        case put, delete, deleteRange, read, readRange, readOld, serializable, compareAndSwap, putAll, leaseGrant, leasePut, leaseRenew, leaseRevoke
    }

    // Network
    public var latency: ClosedRange<Int64> = 50_000...2_000_000
    public var lossPerMille = 0
    public var duplicatePerMille = 0
    public var keepsOrder = true

    // Disk, in nanoseconds
    public var syncTime: ClosedRange<Int64> = 100_000...3_000_000
    public var commitTime: ClosedRange<Int64> = 500_000...8_000_000
    public var segmentBytes = 64 << 10
    public var snapshotChunkBytes = 4 << 10

    /// Per million, each node its own.
    public var maxDriftPPM: Int64 = 0
    public var options = ReplicaOptions()

    public static func draw(_ profile: Profile, using generator: inout SeededGenerator) -> Dials {
        var dials = Dials(profile: profile)
        var options = ReplicaOptions()
        options.raft.electionTimeout = .milliseconds(1000)
        options.raft.heartbeatInterval = .milliseconds(100)
        options.snapshotCount = 400
        options.raft.keptEntries = 100
        options.maxRequestBytes = 64 << 10
        func among<T>(_ choices: [T]) -> T { choices[Int(generator.next() % UInt64(choices.count))] }
        func number(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &generator) }
        func someFaults(of all: [Fault], percent: Int64) -> Set<Fault> {
            var chosen: Set<Fault> = []
            for fault in all where number(0...99) < percent { chosen.insert(fault) }
            return chosen
        }
        switch profile {
        case .clean:
            dials.nodes = among([1, 3, 5])
        case .busy:
            dials.nodes = 5
            dials.spares = 2
            dials.faults = someFaults(of: Fault.allCases, percent: 40)
        case .swarm:
            dials.nodes = among([1, 3, 3, 4, 5, 5])
            dials.spares = among([0, 2, 3])
            dials.faults = someFaults(of: Fault.allCases, percent: among([15, 30, 50, 80]))
            dials.faultEvery = .milliseconds(number(300...8000))
            dials.faultLasts = .milliseconds(number(100...10_000))
            dials.troubleLasts = .milliseconds(number(5_000...90_000))
            dials.clients = Int(number(1...12))
            dials.thinkTime = .milliseconds(number(2...300))
            dials.clientTimeout = .milliseconds(number(200...8_000))
            dials.keys = Int(number(2...40))
            dials.watchers = Int(number(0...16))
            dials.valueBytes = among([8, 64, 600, 4000])
            dials.lostAnswersPerMille = among([0, 0, 10, 200])
            dials.latency = among([50_000...2_000_000, 10_000...100_000, 1_000_000...40_000_000, 20_000...300_000_000])
            dials.syncTime = among([100_000...3_000_000, 10_000...50_000, 1_000_000...80_000_000])
            dials.commitTime = among([500_000...8_000_000, 10_000...100_000, 5_000_000...400_000_000])
            dials.segmentBytes = among([4 << 10, 16 << 10, 256 << 10])
            dials.snapshotChunkBytes = among([200, 4 << 10, 64 << 10])
            options.snapshotCount = among([10, 50, 400, 5000])
            options.raft.keptEntries = among([0, 1, 20, 500])
            options.raft.maxAppendBytes = among([200, 4 << 10, 1 << 20])
            options.raft.maxInflightMessages = among([1, 4, 256])
            options.raft.maxInflightBytes = among([2 << 10, 64 << 10, 16 << 20])
            options.raft.maxUnappliedBytes = among([4 << 10, 64 << 20])
            options.raft.maxUncommittedBytes = among([20 << 10, 256 << 20])
            options.raft.maxReadRounds = among([1, 2, 8])
            options.raft.failsOverQuickly = among([true, true, false])
            options.raft.leavesStuckDisk = among([true, true, false])
            options.raft.forwardsProposals = true
            options.backendCommitInterval = .milliseconds(among([5, 100, 250, 2000]))
            options.backendCommitBytes = among([2 << 10, 64 << 10, 8 << 20])
            options.watchProgressInterval = .milliseconds(among([500, 5_000, 600_000]))
            var election = among([(300, 30), (1000, 100), (1000, 100), (5000, 500)] as [(Int64, Int64)])
            // Timers shorter than a few round trips elect nobody for long: a wrong setting, not a fault.
            while election.0 < dials.latency.upperBound / 1_000_000 * 12 { election = (election.0 * 4, election.1 * 4) }
            options.raft.electionTimeout = .milliseconds(election.0)
            options.raft.heartbeatInterval = .milliseconds(election.1)
        case .calm:
            dials.nodes = 3
            dials.spares = 1
            dials.clients = 3
            dials.thinkTime = .milliseconds(150)
            dials.watchers = 3
            dials.faultEvery = .seconds(15)
            dials.faultLasts = .seconds(6)
            dials.troubleLasts = .seconds(180)
            dials.faults = someFaults(of: Fault.allCases, percent: 40)
            options.raft.heartbeatInterval = .milliseconds(250)
            options.raft.electionTimeout = .milliseconds(2500)
            options.backendCommitInterval = .milliseconds(2000)
        case .longhaul:
            dials.nodes = 3
            dials.spares = 1
            dials.clients = 2
            dials.thinkTime = .seconds(8)
            dials.clientTimeout = .seconds(30)
            dials.watchers = 2
            dials.faultEvery = .seconds(120)
            dials.faultLasts = .seconds(40)
            dials.troubleLasts = .seconds(1500)
            dials.faults = someFaults(of: Fault.allCases, percent: 40)
            options.snapshotCount = 100
            options.raft.keptEntries = 20
            options.raft.heartbeatInterval = .milliseconds(2000)
            options.raft.electionTimeout = .milliseconds(20_000)
            options.backendCommitInterval = .milliseconds(5000)

        }
        if dials.faults.contains(.loss) { dials.lossPerMille = Int(among([10, 50, 300])) }
        if dials.faults.contains(.duplicates) { dials.duplicatePerMille = Int(among([10, 100, 500])) }
        if dials.faults.contains(.reordering) { dials.keepsOrder = false }
        if dials.faults.contains(.drift) { dials.maxDriftPPM = 50_000 }
        dials.mix = [(.put, 24), (.delete, 4), (.deleteRange, 1), (.read, 14), (.readRange, 6), (.readOld, 3), (.serializable, 8), (.compareAndSwap, 14), (.putAll, 5),
                     (.leaseGrant, 3), (.leasePut, 6), (.leaseRenew, 4), (.leaseRevoke, 1)]
        // The watch is on one more node than there are voters, so that every member serves some.
        dials.options = options
        return dials
    }

    /// The fault classes in a fixed order, for texts.
    public var faultNames: String { Fault.allCases.filter(faults.contains).map(\.rawValue).joined(separator: ",") }
}
