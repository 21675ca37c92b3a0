import Base
import Foundation
@testable import Raft
import Testing

/// Seeds of one test: fixed, or `RAFT_SEEDS=from-to` for a longer search.
func seeds(_ count: Int) -> [UInt64] {
    if let range = ProcessInfo.processInfo.environment["RAFT_SEEDS"]?.split(separator: "-").compactMap({ UInt64($0) }), range.count == 2 {
        return Array(range[0]...range[1])
    }
    return (1...UInt64(count)).map { $0 }
}

func simulationOptions() -> RaftOptions {
    var options = RaftOptions()
    options.electionTimeout = .milliseconds(100)
    options.heartbeatInterval = .milliseconds(20)
    options.keptEntries = 10
    options.maxAppendBytes = 300
    options.maxInflightMessages = 6
    options.maxInflightBytes = 2000
    options.maxUnappliedBytes = 1000
    options.maxUncommittedBytes = 20_000
    options.maxReadRounds = 3
    return options
}

@Suite struct SimulationTests {
    @Test func threeMembersKeepEveryPromiseUnderFaults() throws {
        try sweep(nodes: 3, voters: 3, changesConfiguration: false, seeds: seeds(50))
    }

    @Test func fiveMembersKeepEveryPromiseUnderFaults() throws {
        try sweep(nodes: 5, voters: 5, changesConfiguration: false, seeds: seeds(25))
    }

    @Test func membershipChangesKeepEveryPromiseUnderFaults() throws {
        try sweep(nodes: 5, voters: 3, changesConfiguration: true, seeds: seeds(50))
    }

    @Test func aSingleMemberKeepsEveryPromiseUnderFaults() throws {
        try sweep(nodes: 1, voters: 1, changesConfiguration: false, seeds: seeds(10))
    }

    private func sweep(nodes: Int, voters: Int, changesConfiguration: Bool, seeds: [UInt64]) throws {
        var reads = 0, writes = 0, snapshots = 0, elections = 0, changes = 0, gone = 0, stuck = 0
        for seed in seeds {
            var generator = SeededGenerator(seed: seed &* 77)
            let weather = Weather.drawn(from: &generator, changesConfiguration: changesConfiguration)
            var options = simulationOptions()
            // Safety must not hang on what only keeps elections rare.
            if generator.next() % 4 == 0 { options.forwardsProposals = false }
            if generator.next() % 4 == 0 { options.checksQuorum = false }
            if generator.next() % 4 == 0 { options.preVotes = false }
            if generator.next() % 4 == 0 { options.failsOverQuickly = false }
            if generator.next() % 4 == 0 { options.leavesStuckDisk = false }
            let cluster = SimulatedCluster(seed: seed, nodeCount: nodes, voters: voters, options: options, weather: weather)
            if !changesConfiguration { cluster.staticVoters = cluster.nodes.prefix(voters).map(\.id) }
            if ProcessInfo.processInfo.environment["RAFT_TRACE"] != nil { cluster.trace = { print($0) } }
            do {
                cluster.startWorkAndFaults()
                try cluster.run(for: .milliseconds(1200))
                try cluster.healAndSettle()
            } catch {
                Issue.record("\(error) [\(nodes) nodes, check-quorum \(options.checksQuorum), pre-vote \(options.preVotes), \(weather)]")
                return
            }
            reads += cluster.readsServed
            writes += cluster.acknowledged.count
            snapshots += cluster.snapshotsInstalled
            elections += cluster.elections
            changes += cluster.configurationsSettled
            gone += cluster.leadersFoundGone
            stuck += cluster.stuckDisks
        }
        print("\(nodes) nodes, \(seeds.count) seeds: \(reads) reads, \(writes) writes, \(snapshots) snapshots, \(elections) elections, \(changes) configurations, \(gone) leaders found gone, \(stuck) stuck disks")
        // A test of faults that nobody suffered proves nothing.
        #expect(reads > seeds.count && writes > seeds.count)
        if nodes > 1 { #expect(elections > seeds.count && snapshots > 0 && gone > 0 && stuck > 0) }
        if changesConfiguration { #expect(changes > seeds.count) }
    }
}
