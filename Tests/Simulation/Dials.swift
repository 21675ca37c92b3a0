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
    /// Small clusters, few kinds of fault, and those in the very moments in which they hurt most, one after the other.
    case ambush
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
        case slowDisk, stuckDisk, stuckLog, diskError, diskFull, storeError, bitRot, wipe, oldImage
        // Clocks
        case drift, clockLeap
        // Operations under load
        case transfer, compaction, membership, leaseStorm
        // In the moment in which they hurt most (`Nemesis`, ambushes)
        case usurper, regicide, splitChange, snapshotChurn
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
    /// Of them, those that only read, without waiting for much, and stay with their member.
    public var readers = 1
    /// Of them, those that keep one lease alive, at the last moment.
    public var leaseKeepers = 1
    /// People with rights of their own; none: nobody ever switches authentication on.
    public var users = 0
    /// Between two changes of users, roles, permissions and the switch, on average.
    public var accountChangeEvery = TimeSpan.milliseconds(500)
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

    /// The dials of a seed.
    public static func draw(_ profile: Profile, seed: UInt64) -> Dials {
        var generator = SeededGenerator(seed: seed).split("dials")
        return draw(profile, using: &generator)
    }

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
            dials.clients = Int(number(2...14))
            dials.readers = min(Int(number(0...3)), dials.clients / 2)
            dials.leaseKeepers = min(Int(number(0...2)), (dials.clients - dials.readers) / 2)
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
            // Piece by piece over a slow link, small ones would take longer than anybody's patience.
            dials.snapshotChunkBytes = dials.latency.upperBound > 50_000_000 ? 256 << 10 : among([200, 4 << 10, 64 << 10])
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
        case .ambush:
            dials.nodes = among([3, 3, 5])
            dials.spares = 1
            dials.faults = someFaults(of: [.usurper, .regicide, .splitChange, .snapshotChurn, .stuckLog, .transfer, .kill, .powerCut, .cut, .pause, .drift, .membership, .compaction, .duplicates],
                                      percent: among([30, 50]))
            dials.faultEvery = .milliseconds(number(200...2500))
            dials.faultLasts = .milliseconds(number(200...3000))
            dials.troubleLasts = .milliseconds(number(10_000...40_000))
            dials.clients = dials.nodes * 2 + 2
            dials.readers = dials.nodes
            dials.leaseKeepers = 2
            dials.thinkTime = .milliseconds(number(5...60))
            dials.clientTimeout = .milliseconds(number(300...2_000))
            dials.keys = Int(number(2...10))
            dials.watchers = 3
            // Longer than what one message takes, so that entries travel one by one.
            dials.valueBytes = among([8, 64, 600])
            dials.syncTime = among([100_000...3_000_000, 10_000...50_000, 1_000_000...80_000_000])
            dials.commitTime = among([500_000...8_000_000, 10_000...100_000])
            dials.segmentBytes = 16 << 10
            dials.snapshotChunkBytes = 2 << 10
            options.snapshotCount = among([10, 50, 400])
            options.raft.keptEntries = among([0, 1, 20])
            options.raft.maxAppendBytes = among([1, 200, 4 << 10])
            options.raft.failsOverQuickly = among([true, false])
            options.backendCommitInterval = .milliseconds(among([5, 50, 250]))
            options.backendCommitBytes = among([2 << 10, 64 << 10])
            let election = among([(300, 30), (1000, 100)] as [(Int64, Int64)])
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
            dials.readers = 0
            dials.leaseKeepers = 0
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
        if dials.faults.contains(.snapshotChurn) {
            options.snapshotCount = min(options.snapshotCount, among([10, 50]))
            options.raft.keptEntries = min(options.raft.keptEntries, 20)
        }
        let peopled: Int64 = switch profile {
        case .clean, .longhaul: 0
        case .busy, .ambush, .calm: 25
        case .swarm: 30
        }
        if number(0...99) < peopled {
            dials.users = Int(number(1...5))
            dials.accountChangeEvery = .milliseconds(among([50, 300, 1_500]))
        }
        dials.mix = [(.put, 24), (.delete, 4), (.deleteRange, 1), (.read, 14), (.readRange, 6), (.readOld, 3), (.serializable, 8), (.compareAndSwap, 14), (.putAll, 5),
                     (.leaseGrant, 3), (.leasePut, 6), (.leaseRenew, 4), (.leaseRevoke, 1)]
        // The watch is on one more node than there are voters, so that every member serves some.
        dials.options = options
        return dials
    }

    /// The fault classes in a fixed order, for texts.
    public var faultNames: String { Fault.allCases.filter(faults.contains).map(\.rawValue).joined(separator: ",") }
}
