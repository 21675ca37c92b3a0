import Base
import Foundation

/// Looks for planted faults: proves that the simulator and the crash enumeration can see. Each is hunted in a process of its own, since a fault may
/// well stop the engine at one of its own checks, which counts as noticed.
public struct PlantedFaultHunt {
    /// Seeds of 60 simulated seconds that a fault may hide from.
    public static let seeds: UInt64 = 400

    public struct Outcome: Sendable {
        public var fault: PlantedFault
        /// nil: nobody noticed.
        public var noticed: String?
        public var seconds: Double
        public var text: String {
            let name = fault.rawValue.padding(toLength: 38, withPad: " ", startingAt: 0)
            return "\(noticed == nil ? "MISSED" : "noticed") \(name) \(noticed ?? "by nobody") (\(Int(seconds.rounded())) s)"
        }
    }

    /// Plants one fault in this process and runs until something is noticed.
    public static func hunt(_ fault: PlantedFault, from first: UInt64 = 1, seeds: UInt64 = seeds) -> String? {
        #if PLANTED_FAULTS
        PlantedFault.active = fault
        #endif
        if fault.isOfTheDisk {
            for workload in CrashEnumeration.Workload.allCases {
                let report = CrashEnumeration.run(workload, survivors: .reduced)
                if let failure = report.failures.first { return "by crash enumeration: \(failure)" }
                if let failure = CrashEnumeration.runFailures(workload, step: 3).failures.first { return "by failing calls: \(failure)" }
            }
        }
        var tried: UInt64 = 0
        for seed in first...UInt64.max {
            if tried == seeds { break }
            // Some show only in the very worst moments, others of rare paths in the widest net, and a few where trouble does not hide them.
            let profile: Profile = seed % 8 == 0 ? .busy : seed % 2 == 1 ? .ambush : .swarm
            if fault.isOfTheAccounts, Dials.draw(profile, seed: seed).users == 0 { continue }
            tried += 1
            let result = Simulation.run(seed: seed, profile: profile, simulated: .seconds(60))
            if let violation = result.violation { return "by seed \(seed) of profile \(profile.rawValue): \(violation)" }
        }
        return nil
    }

    /// Hunts all of them, `jobs` at a time, each in a child process of this program.
    public static func huntAll(_ faults: [PlantedFault] = PlantedFault.allCases, from first: UInt64 = 1, jobs: Int, report: @escaping @Sendable (Outcome) -> Void) -> [Outcome] {
        let collected = Collected()
        let queue = OperationQueue()
        queue.maxConcurrentOperationCount = jobs
        for fault in faults {
            queue.addOperation {
                let outcome = huntInChild(fault, from: first)
                collected.add(outcome)
                report(outcome)
            }
        }
        queue.waitUntilAllOperationsAreFinished()
        return collected.all
    }

    private static func huntInChild(_ fault: PlantedFault, from first: UInt64) -> Outcome {
        let start = Date()
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["--plant", fault.rawValue, "--seed", "\(first)"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        do { try process.run() } catch { return Outcome(fault: fault, noticed: nil, seconds: 0) }
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let noticed: String? = switch (process.terminationReason, process.terminationStatus) {
        case (.uncaughtSignal, let signal): "by a check of the engine itself (signal \(signal))"
        case (_, 1): text.split(separator: "\n").first.map(String.init) ?? "by something that does not say what"
        default: nil
        }
        return Outcome(fault: fault, noticed: noticed, seconds: Date().timeIntervalSince(start))
    }

    private final class Collected: @unchecked Sendable {
        // @unchecked: under the lock.
        private let lock = NSLock()
        private var outcomes: [Outcome] = []
        func add(_ outcome: Outcome) { lock.withLock { outcomes.append(outcome) } }
        var all: [Outcome] { lock.withLock { outcomes } }
    }
}

extension PlantedFault {
    /// Shows only where people have rights of their own.
    public var isOfTheAccounts: Bool {
        switch self {
        case .permitsWhatWasUnderWay, .permitsByFirstKey, .keepsTokensOfDeletedUsers, .leavesAccountsOutOfSnapshots: true
        default: false
        }
    }

    /// Shows when the power goes at the right call: crash enumeration looks at every one.
    public var isOfTheDisk: Bool {
        switch self {
        case .reportsWritesBeforeSync, .releasesSegmentsBeforeStart, .leavesSegmentNameUnsynced, .leavesDirectoriesUnsynced, .ignoresFailedSync, .trustsRecoveredTail,
             .leavesTornTail, .writesAppliedIndexFirst, .removesSupersededStoreFirst, .installsSnapshotBeforeItsNameIsDurable, .startsOnStoreWithoutName, .votesBeforeSync:
            true
        default: false
        }
    }
}
