import ArgumentParser
import Base
import Foundation

/// `quarterdeck simulate`, and the small program of the tests.
public struct SimulateCommand: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run clusters in the deterministic simulator: virtual time, every fault, one seed.",
        discussion: """
            The same seed does the same in every process. A run that breaks a promise prints one line that starts with SIM-FAIL and says how to see it \
            again, and the exit status is 1.
            """)

    @Option(help: "The seed of the first run.") var seed: UInt64 = 1
    @Option(help: "How many seeds, one after the other.") var seeds: UInt64 = 1
    @Option(help: ArgumentHelp("What the dials are drawn from: \(Profile.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "name"))
    var profile: String = Profile.busy.rawValue
    @Option(help: ArgumentHelp("Virtual seconds of each run.", valueName: "seconds")) var simulated: Int64 = 60
    @Option(help: ArgumentHelp("Stop after this event.", valueName: "event")) var until: UInt64?
    @Flag(help: "Print what happens, as it happens.") var trace = false
    @Option(help: ArgumentHelp("Runs at the same time.", valueName: "n")) var jobs = 1
    @Flag(help: "One JSON object a run.") var json = false
    @Flag(help: "A line for every run, not only for those that fail.") var verbose = false

    @Option(help: ArgumentHelp("Plant a fault in the engine and look for it; all: every one, each in a process of its own. Needs a build with the trait PlantedFaults.", valueName: "fault"))
    var plant: String?
    @Option(help: ArgumentHelp("Instead of seeds: lose power at every disk call of a workload (\(CrashEnumeration.Workload.allCases.map(\.rawValue).joined(separator: ", ")), all).", valueName: "workload"))
    var enumerate: String?
    @Option(help: ArgumentHelp("With --enumerate: only this disk call.", valueName: "number")) var call: Int?
    @Flag(help: "With --enumerate: every legal set of surviving writes instead of a few.") var full = false

    public init() {}

    public func validate() throws {
        guard Profile(rawValue: profile) != nil else {
            throw ValidationError("there is no profile \(profile): choose one of \(Profile.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        guard simulated > 0, simulated <= 100_000_000 else { throw ValidationError("--simulated takes 1 to 100000000 seconds") }
        if let plant {
            guard PlantedFault.isCompiledIn else {
                throw ValidationError("this program plants no faults: build it with swift build -c release --product simulate --traits PlantedFaults --scratch-path .build/planted")
            }
            guard plant == "all" || PlantedFault(rawValue: plant) != nil else {
                throw ValidationError("there is no planted fault \(plant): choose all or one of \(PlantedFault.allCases.map(\.rawValue).joined(separator: ", "))")
            }
        }
        if let enumerate, enumerate != "all", CrashEnumeration.Workload(rawValue: enumerate) == nil {
            throw ValidationError("there is no workload \(enumerate): choose all or one of \(CrashEnumeration.Workload.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        guard seeds > 0, jobs > 0, jobs <= 256 else { throw ValidationError("--seeds and --jobs start at 1") }
    }

    public func run() throws {
        if let plant { return try hunt(plant) }
        if let enumerate { return try enumerateCrashes(enumerate) }
        let profile = Profile(rawValue: profile)!
        let campaign = Campaign(profile: profile, first: seed, count: seeds, simulated: .seconds(simulated), jobs: jobs)
        if trace || until != nil {
            let shown: (@Sendable (String) -> Void)? = trace ? { @Sendable line in say(line) } : nil
            let result = Simulation.run(seed: seed, profile: profile, simulated: .seconds(simulated), events: until ?? .max, trace: Trace(print: shown))
            Self.report(result, always: true, json: json)
            for line in result.nodes { say(line) }
            if result.violation != nil { throw ExitCode(1) }
            return
        }
        let showsProgress = isatty(2) != 0 && !json
        let total = campaign.run { [seeds, json, always = verbose || json] result, summary in
            Self.report(result, always: always, json: json)
            if showsProgress {
                FileHandle.standardError.write(Data("\r\(summary.runs) of \(seeds) runs, \(summary.failures) failed, \(Int(summary.speed)) simulated s/s \u{1b}[K".utf8))
            }
        }
        if showsProgress { FileHandle.standardError.write(Data("\r\u{1b}[K".utf8)) }
        if !json { say(total.text) }
        if total.failures > 0 { throw ExitCode(1) }
    }

    private func hunt(_ name: String) throws {
        if let fault = PlantedFault(rawValue: name) {
            guard let noticed = PlantedFaultHunt.hunt(fault, from: seed) else { return say("nobody noticed \(name)") }
            say(noticed)
            throw ExitCode(1)
        }
        let outcomes = PlantedFaultHunt.huntAll(from: seed, jobs: jobs) { say($0.text) }
        let missed = outcomes.count { $0.noticed == nil }
        say("\(outcomes.count) planted faults, \(missed) missed")
        if missed > 0 { throw ExitCode(1) }
    }

    private func enumerateCrashes(_ name: String) throws {
        var failures = 0
        for workload in CrashEnumeration.Workload.allCases where name == "all" || workload.rawValue == name {
            let start = Date()
            let calls = call.map { $0..<$0 + 1 }
            for report in [CrashEnumeration.run(workload, survivors: full ? .full : .reduced, calls: calls), CrashEnumeration.runFailures(workload, calls: calls)] {
                for failure in report.failures { say(failure) }
                failures += report.failures.count
                say(report)
            }
            say("\(workload.rawValue): \(Int(Date().timeIntervalSince(start).rounded())) s")
        }
        if failures > 0 { throw ExitCode(1) }
    }

    private static func report(_ result: RunResult, always: Bool, json: Bool) {
        if json { return say(result.json) }
        if let failure = result.failure {
            say(failure)
            say("  \(result.dials)")
        } else if always {
            say("ok seed=\(result.seed) profile=\(result.profile.rawValue) events=\(result.events) t=\(seconds(result.simulated))s digest=\(hex(result.digest)) \(result.dials)")
        }
    }
}

/// A line on standard output, at once: long hunts are followed through pipes.
private func say(_ text: some CustomStringConvertible) {
    print(text)
    fflush(nil)
}
