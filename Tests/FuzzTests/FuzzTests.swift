import Foundation
import Synchronization
import Testing

/// Every decoder of bytes from outside, without coverage guidance: replays what was kept and what honest input looks like, then mutations of
/// both. `Tests/fuzz` is the coverage-guided way through the same targets; what it finds is kept in `Corpus`.
///
/// `QUARTERDECK_FUZZ_SEED` and `QUARTERDECK_FUZZ_SECONDS` repeat a run, or make it longer.
@Suite(.serialized) struct FuzzTests {
    /// Mutations of each target: what takes a second or two where nothing else runs.
    static let mutations = 3_000
    /// No target takes longer than this, however slow the machine.
    static let secondsPerTarget = 3.0

    private static let environment = ProcessInfo.processInfo.environment
    private static let seed = environment["QUARTERDECK_FUZZ_SEED"].flatMap { UInt64($0) } ?? 0x51de
    private static let seconds = environment["QUARTERDECK_FUZZ_SECONDS"].flatMap { Double($0) }

    @Test(arguments: FuzzTargets.all.map(\.name)) func anyBytesAreSurvived(name: String) throws {
        let target = try #require(FuzzTargets.named(name))
        let kept = try Corpus.kept(name)
        let pool = target.seeds() + kept.map(\.bytes)
        try #require(!pool.isEmpty)
        let run = GuardedRun(target)
        print("fuzz \(name): seed \(Self.seed), \(kept.count) kept inputs; if this process dies, the input is in \(run.path)")
        for bytes in pool { run(bytes) }
        run([])
        var mutator = Mutator(target, pool: pool, seed: Self.seed)
        let end = Date(timeIntervalSinceNow: Self.seconds ?? Self.secondsPerTarget)
        var done = 0
        while Self.seconds != nil || done < Self.mutations, Date() < end {
            run(mutator.next())
            done += 1
        }
        run.finish()
        print("fuzz \(name): \(done) mutations")
    }

    /// The corpus belongs to targets that exist, and stays small enough for a repository.
    @Test func theCorpusIsInOrder() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: Corpus.path).filter { !$0.hasPrefix(".") }
        #expect(Set(folders).subtracting(FuzzTargets.all.map(\.name)).isEmpty)
        var total = 0
        for folder in folders {
            for input in try Corpus.kept(folder) { total += input.bytes.count }
        }
        #expect(total < 512 << 10)
    }

    /// Small inputs that stand for much: what they cost must grow as they do, no faster.
    @Test(arguments: Amplification.all) func whatAnInputCostsGrowsAsItDoes(_ case: Amplification) throws {
        let target = try #require(FuzzTargets.named(`case`.target))
        let run = GuardedRun(target)
        run(`case`.bytes)
        run.finish()
    }
}

/// Inputs that try to be dear: many elements of few bytes, deep nesting, names for names.
struct Amplification: Sendable, CustomTestStringConvertible {
    var target: String
    var name: String
    var bytes: [UInt8]
    var testDescription: String { "\(target): \(name)" }

    static let all: [Amplification] = [
        // Empty operations: two bytes each.
        Amplification(target: "kv-requests", name: "empty operations", bytes: [3] + Array(repeatElement([0x12, 0x00], count: 500_000).joined())),
        Amplification(target: "raft-message", name: "empty payloads", bytes: Array(repeating: 0, count: 16) + [1, 13, 0x80, 0x80, 0x20] + Array(repeating: 0, count: 1 << 19)),
        Amplification(target: "value-view", name: "brackets", bytes: Array("[".utf8) + Array(repeatElement(Array("[],".utf8), count: 150_000).joined()) + Array("[]]".utf8)),
        Amplification(target: "store-records", name: "nesting", bytes: [0] + Array(repeating: UInt8(ascii: "["), count: 200_000)),
    ]
}

enum Corpus {
    static let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/Corpus"

    /// In the order of their names.
    static func kept(_ target: String) throws -> [(name: String, bytes: [UInt8])] {
        let folder = path + "/" + target
        guard FileManager.default.fileExists(atPath: folder) else { return [] }
        return try FileManager.default.contentsOfDirectory(atPath: folder).sorted().filter { !$0.hasPrefix(".") }.map { name in
            (name, [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder + "/" + name))))
        }
    }
}

/// Runs a target on one input after the other. Leaves the running one in a file, for the case that it kills the process, and kills the process
/// itself when one takes too long or too much memory.
final class GuardedRun {
    /// An input of some kilobytes takes milliseconds; a machine may be very busy.
    static let hangSeconds = 30
    /// Address space that an input may take for itself, over what any did before: `fixedBytes + bytesPerByte * count`. The fixed part is for the
    /// allocator's arenas and what a target sets up.
    static let fixedBytes = 192 << 20
    static let bytesPerByte = 1_024

    let path: String
    private let target: FuzzTarget
    private let file: Int32
    private let watch: Watch
    private var peakBytes: Int

    init(_ target: FuzzTarget) {
        self.target = target
        path = FileManager.default.temporaryDirectory.path + "/quarterdeck-fuzz-\(target.name)-\(getpid())"
        file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        precondition(file >= 0, "cannot create \(path)")
        watch = Watch(target.name, path)
        peakBytes = GuardedRun.peakAddressSpaceBytes()
    }

    func callAsFunction(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { raw in
            _ = ftruncate(file, 0)
            var written = 0
            while written < raw.count {
                let count = pwrite(file, raw.baseAddress! + written, raw.count - written, off_t(written))
                guard count > 0 else { break }
                written += count
            }
            watch.begin()
            target.run(raw)
            watch.end()
        }
        let peak = GuardedRun.peakAddressSpaceBytes()
        let limit = GuardedRun.fixedBytes + GuardedRun.bytesPerByte * bytes.count
        precondition(peak - peakBytes <= limit, "fuzz \(target.name): \(bytes.count) bytes took \((peak - peakBytes) >> 20) MiB of address space; the input is in \(path)")
        peakBytes = peak
    }

    func finish() {
        watch.stop()
        close(file)
        unlink(path)
    }

    /// The most that the process ever had, as Linux counts it; 0 elsewhere.
    private static func peakAddressSpaceBytes() -> Int {
        #if os(Linux)
        let status = open("/proc/self/status", O_RDONLY | O_CLOEXEC)
        guard status >= 0 else { return 0 }
        defer { close(status) }
        var buffer = [UInt8](repeating: 0, count: 2_048)
        let count = read(status, &buffer, buffer.count)
        guard count > 0, let label = buffer[..<count].firstRange(of: Array("VmPeak:".utf8)) else { return 0 }
        let digits = buffer[label.upperBound..<count].drop { $0 < 0x30 }.prefix { $0 >= 0x30 && $0 <= 0x39 }
        return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) } << 10
        #else
        return 0
        #endif
    }

    /// Looks now and then whether the present input still runs.
    private final class Watch: Sendable {
        private let began = Atomic<Int64>(0)
        private let isOver = Atomic<Bool>(false)

        init(_ name: String, _ path: String) {
            Thread.detachNewThread { [self] in
                while !isOver.load(ordering: .acquiring) {
                    usleep(200_000)
                    let began = began.load(ordering: .acquiring)
                    if began != 0, Watch.now() - began > Int64(GuardedRun.hangSeconds) * 1_000_000_000 { fatalError("fuzz \(name): an input runs for over \(GuardedRun.hangSeconds) s: \(path)") }
                }
            }
        }
        func begin() { began.store(Watch.now(), ordering: .releasing) }
        func end() { began.store(0, ordering: .releasing) }
        func stop() { isOver.store(true, ordering: .releasing) }

        private static func now() -> Int64 {
            var time = timespec()
            clock_gettime(CLOCK_MONOTONIC, &time)
            return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
        }
    }
}
