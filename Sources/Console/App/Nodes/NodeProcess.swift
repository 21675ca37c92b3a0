import CNcurses
import Foundation
import Synchronization

/// One life of a child process that must not outlive this one: however this process ends, the system kills the child (see
/// `qd_end_with_parent`; the program that is started must ask for that). Everything it prints arrives as lines.
final class NodeProcess: Sendable {
    /// How a process ended, as `waitpid` tells it.
    struct End: Hashable, Sendable {
        var status: Int32
        var signal: Int32? { status & 0x7f == 0 ? nil : status & 0x7f }
        var code: Int32 { status >> 8 & 0xff }
    }

    let pid: pid_t
    private struct State {
        var input: Int32?
        var end: End?
        var waiting: [CheckedContinuation<End, Never>] = []
    }
    private let state: Mutex<State>
    /// Writes wait here while the process does not read (it is paused).
    private let writer: DispatchQueue

    private init(pid: pid_t, input: Int32?) {
        self.pid = pid
        state = Mutex(State(input: input))
        writer = DispatchQueue(label: "input of process \(pid)")
    }

    /// Longer lines are cut.
    private static let lineLimitBytes = 64 << 10

    /// - Parameters:
    ///   - command: the first is the path of the program.
    ///   - line, ended: called from a thread of the process's own; all lines come before the end.
    /// - Throws: `NodeHostError` with one line.
    static func start(_ command: [String], environment: [String: String], takesInput: Bool, line: @escaping @Sendable (String) -> Void,
                      ended: @escaping @Sendable (NodeProcess, End) -> Void) async throws -> NodeProcess {
        try await withCheckedThrowingContinuation { continuation in
            // The thread that starts the process also waits for its end: what kills the child when we die watches the thread, not the process.
            Thread.detachNewThread {
                var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
                var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0)=\($1)") } + [nil]
                var input: Int32 = -1, output: Int32 = -1
                let pid = takesInput ? qd_start_child(&arguments, &variables, &input, &output) : qd_start_child(&arguments, &variables, nil, &output)
                for string in arguments + variables { free(string) }
                guard pid > 0 else {
                    return continuation.resume(throwing: NodeHostError("\(command[0]): \(String(cString: strerror(-pid)).lowercased())"))
                }
                let process = NodeProcess(pid: pid, input: takesInput ? input : nil)
                continuation.resume(returning: process)
                readLines(output, line)
                close(output)
                process.waitForEnd { ended(process, $0) }
            }
        }
    }

    private static func readLines(_ descriptor: Int32, _ line: (String) -> Void) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        var rest: [UInt8] = []
        while true {
            let n = read(descriptor, &buffer, buffer.count)
            if n < 0, errno == EINTR { continue }
            guard n > 0 else { break }
            var start = 0
            for index in 0..<n where buffer[index] == 10 {
                rest += buffer[start..<index].prefix(max(0, lineLimitBytes - rest.count))
                line(String(decoding: rest, as: UTF8.self))
                rest.removeAll(keepingCapacity: true)
                start = index + 1
            }
            rest += buffer[start..<n].prefix(max(0, lineLimitBytes - rest.count))
        }
        if !rest.isEmpty { line(String(decoding: rest, as: UTF8.self)) }
    }

    private func waitForEnd(_ tell: (End) -> Void) {
        var info = siginfo_t()
        // The number stays taken until the second call, which nobody can signal across.
        while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
        let (end, waiting) = state.withLock { state in
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0, errno == EINTR {}
            let end = End(status: status)
            state.end = end
            defer { state.waiting = [] }
            return (end, state.waiting)
        }
        // Behind the last write: none may meet another file under this number.
        writer.async { [self] in
            if let input = state.withLock({ $0.input.take() }) { close(input) }
        }
        tell(end)
        for continuation in waiting { continuation.resume(returning: end) }
    }

    // MARK: From any thread

    var end: End? { state.withLock { $0.end } }

    /// Nothing happens when the process has ended.
    func signal(_ number: Int32) { state.withLock { if $0.end == nil { kill(pid, number) } } }

    func ended() async -> End {
        await withCheckedContinuation { continuation in
            let end = state.withLock { state -> End? in
                if state.end == nil { state.waiting.append(continuation) }
                return state.end
            }
            if let end { continuation.resume(returning: end) }
        }
    }

    /// The end, if it comes in time.
    func ended(withinMilliseconds milliseconds: Int) async -> End? {
        let deadline = Clock.monotonicNanoseconds() + Int64(milliseconds) * 1_000_000
        while true {
            if let end { return end }
            guard Clock.monotonicNanoseconds() < deadline else { return nil }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    /// Sends a line to the standard input; returns at once.
    func send(_ line: [UInt8]) {
        writer.async { [self] in
            guard let input = state.withLock({ $0.input }) else { return }
            let bytes = line + [10]
            var offset = 0
            while offset < bytes.count {
                let n = bytes.withUnsafeBytes { write(input, $0.baseAddress! + offset, bytes.count - offset) }
                if n < 0, errno == EINTR { continue }
                guard n > 0 else { return } // it has ended
                offset += n
            }
        }
    }

    /// Whether the system has stopped it (SIGSTOP has arrived). True where that cannot be seen.
    var isStopped: Bool {
        guard let stat = ProcFile.text("/proc/\(pid)/stat") else { return true }
        // The name in brackets may hold anything; the state follows it.
        return stat.split(separator: ")").last.map { $0.hasPrefix(" T") } ?? true
    }
}

/// This program's own file, to start it again with other arguments.
enum OwnExecutable {
    static var path: String {
        #if os(Linux)
        var buffer = [CChar](repeating: 0, count: 4096)
        let n = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let path = n > 0 ? String(decoding: buffer[..<n].map { UInt8(bitPattern: $0) }, as: UTF8.self) : ""
        // Replaced or removed meanwhile: the file that runs is still there under this name.
        return FileManager.default.isExecutableFile(atPath: path) ? path : "/proc/self/exe"
        #else
        return Bundle.main.executablePath ?? CommandLine.arguments[0]
        #endif
    }
}

/// Files that the system makes up when they are read, and that therefore have no size.
enum ProcFile {
    static func text(_ path: String) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 16 << 10)
        while case let n = read(file, &buffer, buffer.count), n > 0 { bytes += buffer[..<n] }
        return String(decoding: bytes, as: UTF8.self)
    }
}
