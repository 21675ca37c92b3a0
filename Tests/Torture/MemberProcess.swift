import CNcurses
import Foundation
import Synchronization

/// One life of a child process that does not outlive this one: its program asks the system to be killed with us.
final class MemberProcess: Sendable {
    struct End: Hashable, Sendable {
        var status: Int32
        var text: String { status & 0x7f == 0 ? "exit \(status >> 8 & 0xff)" : "signal \(status & 0x7f)" }
        var signal: Int32? { status & 0x7f == 0 ? nil : status & 0x7f }
    }

    let pid: pid_t
    private struct State {
        var input: Int32?
        var end: End?
        var waiting: [CheckedContinuation<End, Never>] = []
    }
    private let state: Mutex<State>
    /// Writes wait here while the process does not read (it is stopped).
    private let writer: DispatchQueue

    private init(pid: pid_t, input: Int32) {
        self.pid = pid
        state = Mutex(State(input: input))
        writer = DispatchQueue(label: "input of \(pid)")
    }

    /// Output and errors are appended to `log`.
    static func start(_ command: [String], log: String) async throws -> MemberProcess {
        try await withCheckedThrowingContinuation { continuation in
            // The thread that starts the process also waits for its end: what kills the child when we die watches the thread, not the process.
            Thread.detachNewThread {
                var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
                let environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("ETCD_") || $0.key == "ETCD_UNSUPPORTED_ARCH" }
                var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0)=\($1)") } + [nil]
                var input: Int32 = -1, output: Int32 = -1
                let pid = qd_start_child(&arguments, &variables, &input, &output)
                for text in arguments + variables { free(text) }
                guard pid > 0 else { return continuation.resume(throwing: TortureError("\(command[0]): \(String(cString: strerror(-pid)))")) }
                let process = MemberProcess(pid: pid, input: input)
                continuation.resume(returning: process)
                append(output, to: log)
                process.waitForEnd()
            }
        }
    }

    /// Until the process has closed its output.
    private static func append(_ output: Int32, to path: String) {
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let n = read(output, &buffer, buffer.count)
            if n < 0, errno == EINTR { continue }
            guard n > 0 else { break }
            if file >= 0 { _ = write(file, buffer, n) }
        }
        close(output)
        if file >= 0 { close(file) }
    }

    private func waitForEnd() {
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
        for continuation in waiting { continuation.resume(returning: end) }
    }

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

    /// Sends a line to its standard input; returns at once.
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

    /// Whether SIGSTOP has arrived.
    var isStopped: Bool {
        guard let stat = ProcFile.text("/proc/\(pid)/stat") else { return true }
        // The name in brackets may hold anything; the state follows it.
        return stat.split(separator: ")").last.map { $0.hasPrefix(" T") } ?? true
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

    /// Which of the processes has the TCP connection of 127.0.0.1 between these ports, at its first end.
    static func owner(from: Int, to: Int, among processes: [pid_t?]) -> Int? {
        let ends = ["0100007F:" + hex(from), "0100007F:" + hex(to)]
        guard let table = text("/proc/net/tcp") else { return nil }
        let connection = table.split(separator: "\n").lazy.map { $0.split(separator: " ").map(String.init) }.first { fields in
            fields.count > 9 && fields[1] == ends[0] && fields[2] == ends[1] && fields[9] != "0"
        }
        guard let inode = connection?[9] else { return nil }
        let name = "socket:[\(inode)]"
        return processes.firstIndex { process in
            guard let process else { return false }
            let directory = "/proc/\(process)/fd"
            return ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).contains {
                (try? FileManager.default.destinationOfSymbolicLink(atPath: directory + "/" + $0)) == name
            }
        }
    }

    private static func hex(_ port: Int) -> String {
        let digits = String(port, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}
