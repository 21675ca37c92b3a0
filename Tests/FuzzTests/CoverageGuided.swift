#if LIBFUZZER
import Foundation
import Testing

// Only in the build that `Tests/fuzz` makes: there the compiler counts what code is reached, and libFuzzer is linked in.

private typealias Arguments = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>

/// libFuzzer's entry when it does not bring `main`. (compiler-rt/lib/fuzzer/FuzzerInterface.h)
@_silgen_name("LLVMFuzzerRunDriver")
private func runLibFuzzer(_ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutablePointer<Arguments?>,
                          _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt) -> CInt

/// What libFuzzer's callback, which carries no context, runs. Set once before it.
private nonisolated(unsafe) var running: FuzzTarget!

@Suite struct CoverageGuided {
    private static let environment = ProcessInfo.processInfo.environment

    /// `FUZZ_TARGET` is run with the arguments in `FUZZ_ARGUMENTS`, one a line; its seeds go to the folder `FUZZ_WORK`. Ends the process.
    @Test(.enabled(if: environment["FUZZ_TARGET"] != nil)) func run() throws {
        let name = CoverageGuided.environment["FUZZ_TARGET"]!
        let target = try #require(FuzzTargets.named(name), "no target \(name); there are: \(FuzzTargets.all.map(\.name).joined(separator: " "))")
        var arguments = ["fuzz", "-max_len=\(target.maxBytes)"] + (CoverageGuided.environment["FUZZ_ARGUMENTS"] ?? "").split(separator: "\n").map(String.init)
        if let work = CoverageGuided.environment["FUZZ_WORK"] {
            for (number, seed) in target.seeds().enumerated() { try Data(seed).write(to: URL(fileURLWithPath: "\(work)/seed-\(number)")) }
            if !target.words.isEmpty {
                let words = target.words.map { word in "\"" + word.utf8.map { "\\x" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() + "\"\n" }.joined()
                try words.write(toFile: work + ".words", atomically: true, encoding: .utf8)
                arguments.append("-dict=\(work).words")
            }
        }
        running = target
        let list = Arguments.allocate(capacity: arguments.count + 1)
        for (place, text) in arguments.enumerated() { list[place] = strdup(text) }
        list[arguments.count] = nil
        var count = CInt(arguments.count)
        var first: Arguments? = list
        exit(runLibFuzzer(&count, &first) { bytes, count in
            running.run(UnsafeRawBufferPointer(start: bytes, count: count))
            return 0
        })
    }

    /// For scripts.
    @Test(.enabled(if: environment["FUZZ_LIST"] != nil)) func list() {
        for target in FuzzTargets.all { print("target \(target.name)") }
    }
}
#endif
