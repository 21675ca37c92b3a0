import Base
import Log
import Raft
import Replica

/// Runs a workload once, and at each of its disk calls asks: if the power went here, would what is left boot, hold everything that was promised, and
/// go on? For every legal set of surviving writes, or as many as one has time for. (reliability.md §5.5)
///
///     let report = CrashEnumeration.run(.compaction, survivors: .full)
///
/// A call point is any call of the log's files, its directory, the stores' names, or a store's commit, of any member. What survives is rebuilt from
/// the live disk at that moment; nothing is run twice. With several members each image is examined alone (the others merely restart, as after the
/// death of their processes) and with all of them losing power at once.
public enum CrashEnumeration {
    /// How many of the legal survivors to look at. All kept, none kept and the death of the process alone are always among them.
    public struct Survivors: Sendable {
        /// Each pending part lost alone, and each kept alone.
        public var singles: Bool
        /// Sets drawn at random.
        public var random: Int
        /// Per call point, how many times the power goes once more, in the middle of the recovery.
        public var recoveryCuts: Int
        public init(singles: Bool, random: Int, recoveryCuts: Int) {
            self.singles = singles
            self.random = random
            self.recoveryCuts = recoveryCuts
        }
        public static let reduced = Survivors(singles: false, random: 1, recoveryCuts: 1)
        public static let full = Survivors(singles: true, random: 20, recoveryCuts: 4)
    }

    /// What a power cut keeps of one disk's pending parts.
    public enum SurvivorSet: Hashable, Sendable, CustomStringConvertible {
        case none, all
        case lost(Int)
        case kept(Int)
        case random(Int)
        /// Only the process dies: what is pending stays pending.
        case processDeath
        public var description: String {
            switch self {
            case .none: "none"
            case .all: "all"
            case .lost(let part): "lost:\(part)"
            case .kept(let part): "kept:\(part)"
            case .random(let number): "random:\(number)"
            case .processDeath: "process-death"
            }
        }
    }

    /// One examined image.
    public struct Place: Hashable, Sendable, CustomStringConvertible {
        public var workload: Workload
        public var call: Int
        /// Which call it was.
        public var operation: String
        public var survivors: SurvivorSet
        /// All members lose power, not only the one that made the call.
        public var isTogether: Bool
        /// The call of the recovery at which the power goes again.
        public var recoveryCall: Int?
        /// The call failed with this errno instead.
        public var failure: Int32?
        public var description: String {
            "workload=\(workload.rawValue) call=\(call) (\(operation))" + (failure.map { " errno=\($0)" } ?? "") + " survivors=\(survivors)" + (isTogether ? " all-members" : "")
                + (recoveryCall.map { " recovery-call=\($0)" } ?? "")
        }
    }

    public struct Failure: Sendable, CustomStringConvertible {
        public var place: Place
        public var violation: Violation
        /// One line, enough to see it again.
        public var description: String { "CRASH-FAIL \(place) invariant=\(violation)" }
    }

    public struct Report: Sendable, CustomStringConvertible {
        public var workload: Workload
        public var callPoints = 0
        public var images = 0
        public var boots = 0
        /// Runs in which one call failed.
        public var failedCalls = 0
        public var failures: [Failure] = []
        public var description: String {
            "\(workload.rawValue): \(callPoints) call points, \(failedCalls) failed calls, \(images) images, \(boots) boots, \(failures.count) failures"
        }
    }

    /// Enough to see what is wrong.
    static let maxFailures = 20

    /// Power cuts at every call.
    /// - Parameter calls: only these call points; nil for all.
    public static func run(_ workload: Workload, survivors: Survivors, calls: Range<Int>? = nil) -> Report {
        let enumerator = PowerCuts(workload, survivors, calls)
        enumerator.run()
        return enumerator.report
    }

    /// EIO, and where it can happen ENOSPC, at every call: the member must stop, promise nothing more, and be sound again when the disk works.
    /// - Parameter step: only every such call.
    public static func runFailures(_ workload: Workload, step: Int = 1) -> Report {
        let trace = CallTrace(workload)
        var report = Report(workload: workload)
        report.callPoints = trace.operations.count
        for (violation) in trace.cluster.violations { report.failures.append(Failure(place: Place(workload: workload, call: -1, operation: "clean run", survivors: .all, isTogether: false), violation: violation)) }
        for call in stride(from: 0, to: trace.operations.count, by: step) where report.failures.count < maxFailures {
            let codes = needsSpace(trace.operations[call].operation) ? [MemoryDisk.ioError, MemoryDisk.noSpace] : [MemoryDisk.ioError]
            for code in codes { FailedCall(workload, call, code).run(into: &report) }
        }
        return report
    }

    private static func needsSpace(_ operation: MemoryDisk.Operation) -> Bool {
        switch operation {
        case .makeDirectory, .open, .rename, .write, .preallocate, .commit: true
        case .list, .look, .remove, .syncDirectory, .read, .sync, .truncate: false
        }
    }
}

/// The calls of one clean run, in order.
final class CallTrace {
    let cluster: CrashCluster
    private(set) var operations: [(operation: MemoryDisk.Operation, path: String)] = []

    init(_ workload: CrashEnumeration.Workload) {
        cluster = CrashCluster(workload.setup, seed: 1)
        var script = CrashScript(cluster) { [unowned self] node in
            node.disk.beforeCall = { [unowned self] operation, path in operations.append((operation, path)) }
        }
        do { try script.perform(workload) } catch { cluster.violated("script", "the workload came to an end early: \(cluster.nodes.compactMap(\.failure))") }
    }
}

/// One run of a workload with a look at the disks before every call.
private final class PowerCuts {
    let workload: CrashEnumeration.Workload
    let survivors: CrashEnumeration.Survivors
    let calls: Range<Int>?
    let cluster: CrashCluster
    var report: CrashEnumeration.Report

    init(_ workload: CrashEnumeration.Workload, _ survivors: CrashEnumeration.Survivors, _ calls: Range<Int>?) {
        self.workload = workload
        self.survivors = survivors
        self.calls = calls
        cluster = CrashCluster(workload.setup, seed: 1)
        report = CrashEnumeration.Report(workload: workload)
    }

    func run() {
        var script = CrashScript(cluster) { [unowned self] node in
            node.disk.beforeCall = { [unowned self, unowned node] operation, path in before(operation, path, of: node) }
        }
        do { try script.perform(workload) } catch { cluster.violated("script", "the workload came to an end early: \(cluster.nodes.compactMap(\.failure))") }
        let end = CrashEnumeration.Place(workload: workload, call: report.callPoints, operation: "end of the clean run", survivors: .all, isTogether: false)
        for violation in cluster.violations { report.failures.append(CrashEnumeration.Failure(place: end, violation: violation)) }
    }

    private func before(_ operation: MemoryDisk.Operation, _ path: String, of node: CrashNode) {
        let call = report.callPoints
        report.callPoints += 1
        guard calls?.contains(call) ?? true, report.failures.count < CrashEnumeration.maxFailures else { return }
        var place = CrashEnumeration.Place(workload: workload, call: call, operation: "\(operation) \(path)", survivors: .none, isTogether: false)
        for set in sets(parts: node.disk.pendingParts) {
            place.survivors = set
            // With a single part lost the others are interesting only once.
            for isTogether in workload.memberCount > 1 && set != .processDeath && (survivors.singles || set == .none) ? [false, true] : [false] {
                place.isTogether = isTogether
                examine(place, node)
            }
        }
        var generator = SeededGenerator(seed: UInt64(call)).split("recovery")
        for cut in 0..<survivors.recoveryCuts {
            // What a dead process left unsynced is read and used by the next one, and may still be lost.
            place.survivors = cut % 2 == 0 ? .processDeath : .random(100 + cut)
            place.isTogether = false
            place.recoveryCall = Int(generator.next() % 30)
            examine(place, node)
        }
    }

    private func sets(parts: Int) -> [CrashEnumeration.SurvivorSet] {
        guard parts > 0 else { return [.none] }
        // All that is pending is kept by the death of the process too, and is still pending then: the harder case.
        var sets: [CrashEnumeration.SurvivorSet] = survivors.singles || workload.memberCount == 1 ? [.none, .all, .processDeath] : [.none, .processDeath]
        guard parts > 1 else { return sets }
        if survivors.singles {
            sets += (0..<parts).map { .lost($0) }
            if parts > 2 { sets += (0..<parts).map { .kept($0) } }
        }
        // Two parts have four sets, and the singles are two of them.
        if parts > 2 || !survivors.singles { sets += (0..<survivors.random).map { .random($0) } }
        return sets
    }

    private func examine(_ place: CrashEnumeration.Place, _ node: CrashNode) {
        guard report.failures.count < CrashEnumeration.maxFailures else { return }
        let generator = SeededGenerator(seed: UInt64(place.call)).split("\(place.survivors) \(place.isTogether)")
        var images: [CrashExamination.Image] = []
        for member in cluster.nodes {
            let set: CrashEnumeration.SurvivorSet = member === node ? place.survivors : place.isTogether ? others(place.survivors) : .processDeath
            let disk = image(of: member.disk, set, generator.split("member \(member.id)"))
            images.append(CrashExamination.Image(id: member.id, disk: disk, stores: member.stores.moved(to: disk)))
        }
        if let recoveryCall = place.recoveryCall {
            let at = images.firstIndex { $0.id == node.id }!
            guard let left = cutRecovery(of: images[at], at: recoveryCall, generator) else { return }
            images[at] = left
        }
        report.images += 1
        var examination = CrashExamination(generator: generator)
        examination.examine(images, of: cluster)
        report.boots += examination.boots
        report.failures += examination.violations.map { CrashEnumeration.Failure(place: place, violation: $0) }
    }

    private func others(_ set: CrashEnumeration.SurvivorSet) -> CrashEnumeration.SurvivorSet {
        switch set {
        case .lost, .kept: .none
        default: set
        }
    }

    private func image(of disk: MemoryDisk, _ set: CrashEnumeration.SurvivorSet, _ generator: SeededGenerator) -> MemoryDisk {
        switch set {
        case .none: return disk.crash { _ in false }
        case .all: return disk.crash { _ in true }
        case .lost(let part): return disk.crash { $0 != part }
        case .kept(let part): return disk.crash { $0 == part }
        case .processDeath: return disk.fork()
        case .random:
            var generator = generator
            return disk.crash(using: &generator)
        }
    }

    /// Starts the member and takes the power away in the middle. nil when it was up by then.
    private func cutRecovery(of image: CrashExamination.Image, at call: Int, _ generator: SeededGenerator) -> CrashExamination.Image? {
        var generator = generator.split("recovery cut")
        image.disk.faults = [.powerCut(after: call)]
        let cluster = CrashCluster(after: self.cluster)
        let node = cluster.add(image.id, image.disk, image.stores, contacts: self.cluster[image.id].contacts)
        report.boots += 1
        do throws(MemberFiles.Fault) {
            try cluster.boot(node)
            return nil
        } catch {}
        let disk = image.disk.crash(using: &generator)
        return CrashExamination.Image(id: image.id, disk: disk, stores: image.stores.moved(to: disk))
    }
}

/// One run of a workload in which one call fails.
private struct FailedCall {
    let workload: CrashEnumeration.Workload
    let call: Int
    let code: Int32

    init(_ workload: CrashEnumeration.Workload, _ call: Int, _ code: Int32) {
        self.workload = workload
        self.call = call
        self.code = code
    }

    func run(into report: inout CrashEnumeration.Report) {
        report.failedCalls += 1
        let cluster = CrashCluster(workload.setup, seed: 1)
        var place = CrashEnumeration.Place(workload: workload, call: call, operation: "", survivors: .processDeath, isTogether: false, failure: code)
        let calls = Counter()
        var script = CrashScript(cluster) { [call, code] node in
            node.disk.beforeCall = { [unowned node] operation, path in
                if calls.value == call {
                    node.disk.faults = [MemoryDisk.Fault(nil, code: code)]
                    calls.operation = "\(operation) \(path)"
                }
                calls.value += 1
            }
        }
        // A call whose failure does no harm (the removal of a file) lets the script come to its end.
        try? script.perform(workload)
        place.operation = calls.operation
        for node in cluster.nodes { node.disk.beforeCall = nil }
        func fail(_ violations: [Violation]) { report.failures += violations.map { CrashEnumeration.Failure(place: place, violation: $0) } }
        fail(cluster.violations)
        // The disk works again: first with everything that the process had written, even what its kernel gave up; then after a power cut.
        for set in [CrashEnumeration.SurvivorSet.processDeath, .none] {
            place.survivors = set
            let images = cluster.nodes.map { node in
                let disk = set == .none ? node.disk.crash { _ in false } : node.disk.fork()
                return CrashExamination.Image(id: node.id, disk: disk, stores: node.stores.moved(to: disk))
            }
            report.images += 1
            var examination = CrashExamination(generator: SeededGenerator(seed: UInt64(call)))
            examination.examine(images, of: cluster)
            report.boots += examination.boots
            fail(examination.violations)
        }
    }

    private final class Counter {
        var value = 0
        var operation = ""
    }
}
