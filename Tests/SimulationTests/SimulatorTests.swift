import Base
import Simulation
import Testing

/// A few runs of each profile, in debug. The many come in release: `Tests/run` and `quarterdeck simulate`.
@Suite struct SimulatorTests {
    private func run(_ profile: Profile, _ seeds: ClosedRange<UInt64>, seconds: Int64) {
        print("simulator: profile \(profile.rawValue), seeds \(seeds)")
        for seed in seeds {
            let result = Simulation.run(seed: seed, profile: profile, simulated: .seconds(seconds))
            if let failure = result.failure { Issue.record("\(failure)\n\(result.dials)") }
        }
    }

    @Test func everyPromiseIsKeptUnderEveryFault() { run(.swarm, 1...8, seconds: 20) }
    @Test func everyPromiseIsKeptInTheWorstMoments() { run(.ambush, 1...4, seconds: 15) }
    @Test func fiveNodesUnderLoadKeepEveryPromise() { run(.busy, 1...1, seconds: 15) }
    @Test func longLivesKeepEveryPromise() { run(.longhaul, 1...6, seconds: 3600) }

    @Test func withoutFaultsEverybodyMakesProgress() {
        for seed in UInt64(1)...3 {
            let result = Simulation.run(seed: seed, profile: .clean, simulated: .seconds(6))
            #expect(result.failure == nil)
            #expect(result.statistics.acknowledged > 100 && result.statistics.unknown == 0, "\(result.dials)")
            #expect(result.statistics.deaths == 0)
        }
    }

    /// Some may, some may not, and both happens.
    @Test func peopleWithRightsUseTheCluster() {
        var total = Statistics()
        for seed in (UInt64(1)...60).filter({ Dials.draw(.swarm, seed: $0).users > 0 }).prefix(4) {
            let result = Simulation.run(seed: seed, profile: .swarm, simulated: .seconds(15))
            if let failure = result.failure { Issue.record("\(failure)\n\(result.dials)") }
            total.denied += result.statistics.denied
            total.acknowledged += result.statistics.acknowledged
        }
        #expect(total.denied > 20 && total.acknowledged > 100, "\(total)")
    }

    /// The same seed does the same, event by event; another one does not.
    @Test func aSeedReproducesItsRun() {
        let first = Simulation.run(seed: 17, profile: .swarm, simulated: .seconds(10))
        let second = Simulation.run(seed: 17, profile: .swarm, simulated: .seconds(10), trace: Trace())
        let other = Simulation.run(seed: 18, profile: .swarm, simulated: .seconds(10))
        #expect(first.digest == second.digest && first.events == second.events && first.statistics.calls == second.statistics.calls)
        #expect(first.digest != other.digest)
        #expect(!second.trace.isEmpty)
    }

    @Test func aRunStopsWhereItIsTold() {
        let result = Simulation.run(seed: 3, profile: .swarm, simulated: .seconds(60), events: 500)
        #expect(result.events == 500 && result.violation == nil && result.nodes.count >= 1)
    }

    /// The faults do happen: a run that injects nothing proves nothing.
    @Test func theRunsMeetTheirFaults() {
        var total = Statistics()
        for seed in UInt64(100)...115 {
            let statistics = Simulation.run(seed: seed, profile: .swarm, simulated: .seconds(20)).statistics
            total.deaths += statistics.deaths
            total.faults += statistics.faults
            total.snapshots += statistics.snapshots
            total.diskFailures += statistics.diskFailures
            total.membershipChanges += statistics.membershipChanges
            total.unknown += statistics.unknown
            total.watchEvents += statistics.watchEvents
            total.rests += statistics.rests
        }
        #expect(total.deaths > 10 && total.faults > 30 && total.snapshots > 0 && total.membershipChanges > 0 && total.unknown > 10 && total.watchEvents > 1000
            && total.rests > 10, "\(total)")
    }
}

/// Seeds that found something once. Later changes shift what a seed draws, so each is kept beside the direct test that its finding left.
@Suite struct FormerFailureTests {
    struct Former: Sendable, CustomTestStringConvertible {
        var seed: UInt64
        var profile: Profile
        /// What it found, and the test that shows it directly.
        var found: String
        var testDescription: String { "\(profile.rawValue) \(seed): \(found)" }
    }

    @Test(arguments: [
        Former(seed: 1, profile: .busy, found: "a power cut took a new member's directories with its votes (CrashEnumerationTests)"),
        Former(seed: 8, profile: .busy, found: "a doubled message wrote twice (aForwardThatComesTwiceIsTakenOnce)"),
        Former(seed: 1440, profile: .swarm, found: "a whole snapshot that was not installed yet is found at start (recovery)"),
        Former(seed: 61, profile: .swarm, found: "small pieces over a slow link outlast everybody's patience (a dial)"),
    ])
    func staysMended(_ former: Former) {
        let result = Simulation.run(seed: former.seed, profile: former.profile, simulated: .seconds(former.profile == .busy ? 20 : 60))
        if let failure = result.failure { Issue.record("\(failure)") }
    }
}
