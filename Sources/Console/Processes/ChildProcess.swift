import CProcesses
import Foundation
import Synchronization

/// One life of a child process that must not outlive this one: however this process ends, the system kills the child (see
/// `qd_end_with_parent`; the program that is started must ask for that). Everything it prints arrives as lines.
package final class ChildProcess: Sendable {
    /// How a process ended, as `waitpid` tells it.
    package struct End: Hashable, Sendable {
        package var status: Int32
        package init(status: Int32) { self.status = status }
        package var signal: Int32? { status & 0x7f == 0 ? nil : status & 0x7f }
        package var code: Int32 { status >> 8 & 0xff }
        package var text: String { signal.map { "signal \($0)" } ?? "exit \(code)" }
    }

    /// A program that could not be started. One line.
    package struct StartError: Error, CustomStringConvertible {
        package let description: String
    }

    /// Ours, without what etcd's program (and ours) would take for its configuration.
    package static var nodeEnvironment: [String: String] {
        ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("ETCD_") || $0.key == "ETCD_UNSUPPORTED_ARCH" }
    }

    package let pid: pid_t
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
    /// - Throws: `StartError`.
    package static func start(_ command: [String], environment: [String: String], takesInput: Bool, line: @escaping @Sendable (String) -> Void,
                      ended: @escaping @Sendable (ChildProcess, End) -> Void) async throws -> ChildProcess {
        try await withCheckedThrowingContinuation { continuation in
            // The thread that starts the process also waits for its end: what kills the child when we die watches the thread, not the process.
            Thread.detachNewThread {
                var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
                var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0)=\($1)") } + [nil]
                var input: Int32 = -1, output: Int32 = -1
                let pid = takesInput ? qd_start_child(&arguments, &variables, &input, &output) : qd_start_child(&arguments, &variables, nil, &output)
                for string in arguments + variables { free(string) }
                guard pid > 0 else {
                    return continuation.resume(throwing: StartError(description: "\(command[0]): \(String(cString: strerror(-pid)).lowercased())"))
                }
                let process = ChildProcess(pid: pid, input: takesInput ? input : nil)
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

    package var end: End? { state.withLock { $0.end } }

    /// Nothing happens when the process has ended.
    package func signal(_ number: Int32) { state.withLock { if $0.end == nil { kill(pid, number) } } }

    package func ended() async -> End {
        await withCheckedContinuation { continuation in
            let end = state.withLock { state -> End? in
                if state.end == nil { state.waiting.append(continuation) }
                return state.end
            }
            if let end { continuation.resume(returning: end) }
        }
    }

    /// The end, if it comes in time.
    package func ended(withinMilliseconds milliseconds: Int) async -> End? {
        let deadline = ContinuousClock.now + .milliseconds(milliseconds)
        while true {
            if let end { return end }
            guard ContinuousClock.now < deadline else { return nil }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    /// Sends a line to the standard input; returns at once.
    package func send(_ line: [UInt8]) {
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
    package var isStopped: Bool {
        guard let stat = ProcFile.text("/proc/\(pid)/stat") else { return true }
        // The name in brackets may hold anything; the state follows it.
        return stat.split(separator: ")").last.map { $0.hasPrefix(" T") } ?? true
    }
}
