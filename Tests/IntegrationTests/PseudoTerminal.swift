import Foundation

/// A program in a terminal of its own: starts it, types, looks at the screen, measures what it writes. Used from one thread. Reads
/// only while a `wait...` runs, so that a test decides what it waits for and never how long.
final class PseudoTerminal {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// Names of keys that are not characters.
    enum Key: String {
        case enter = "\r", escape = "\u{1b}", tab = "\t", backTab = "\u{1b}[Z", backspace = "\u{7f}"
        case up = "\u{1b}OA", down = "\u{1b}OB", right = "\u{1b}OC", left = "\u{1b}OD"
        case pageUp = "\u{1b}[5~", pageDown = "\u{1b}[6~", home = "\u{1b}OH", end = "\u{1b}OF"
        case controlC = "\u{3}", controlS = "\u{13}", controlZ = "\u{1a}", f5 = "\u{1b}[15~"
    }

    private(set) var screen: VirtualScreen
    /// Bytes the program has written so far, and the time of the first.
    private(set) var bytesReceived = 0
    private(set) var firstByteAt: ContinuousClock.Instant?
    let startedAt: ContinuousClock.Instant
    let pid: pid_t
    private let master: Int32
    /// Kept open: the terminal's modes can be read while and after the program runs, and output is not lost at its end.
    private let slave: Int32
    private var status: Int32?
    private var hasEnded = false

    /// - Parameters:
    ///   - environment: added to (and over) this process's.
    init(_ command: [String], environment: [String: String] = [:], columns: Int = 120, rows: Int = 36, directory: String? = nil) throws {
        screen = VirtualScreen(columns: columns, rows: rows)
        var size = winsize(ws_row: UInt16(rows), ws_col: UInt16(columns), ws_xpixel: 0, ws_ypixel: 0)
        var master: Int32 = -1, slave: Int32 = -1
        var name = [CChar](repeating: 0, count: 128)
        guard openpty(&master, &slave, &name, nil, &size) == 0 else { throw Failure(description: "openpty: \(String(cString: strerror(errno)))") }
        self.master = master
        self.slave = slave
        for end in [master, slave] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        _ = fcntl(master, F_SETFL, O_NONBLOCK)

        var all = ProcessInfo.processInfo.environment
        for name in ["TMUX", "TMUX_PANE", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES"] { all[name] = nil }
        all["TERM"] = "xterm-256color"
        all["LC_ALL"] = "C.UTF-8"
        all.merge(environment) { $1 }

        var attributes = posix_spawnattr_t()
        var actions = posix_spawn_file_actions_t()
        posix_spawnattr_init(&attributes)
        posix_spawn_file_actions_init(&actions)
        defer {
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        // A session of its own; the first terminal it opens becomes its controlling one. (POSIX_SPAWN_SETSID, which the C library's
        // module does not show.)
        #if os(Linux)
        let setsid: Int32 = 0x80
        #else
        let setsid: Int32 = 0x400
        #endif
        var none = sigset_t(), every = sigset_t()
        sigemptyset(&none)
        sigfillset(&every)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &every)
        posix_spawnattr_setflags(&attributes, Int16(setsid | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 0, 1)
        posix_spawn_file_actions_adddup2(&actions, 0, 2)
        // Another directory by way of a shell: the call that would do it here is not shown either.
        let line = directory.map { ["/bin/sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh", $0] + command } ?? command
        var arguments: [UnsafeMutablePointer<CChar>?] = line.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = all.map { strdup("\($0)=\($1)") } + [nil]
        defer { (arguments + variables).forEach { free($0) } }
        startedAt = .now
        var pid: pid_t = 0
        let error = posix_spawnp(&pid, line[0], &actions, &attributes, &arguments, &variables)
        guard error == 0 else {
            close(master)
            close(slave)
            throw Failure(description: "\(command[0]): \(String(cString: strerror(error)))")
        }
        self.pid = pid
    }

    deinit {
        if status == nil {
            kill(pid, SIGKILL)
            var ignored: Int32 = 0
            waitpid(pid, &ignored, 0)
        }
        close(master)
        close(slave)
    }

    // MARK: Typing

    func send(_ text: String) { send(Array(text.utf8)) }
    func send(_ key: Key) { send(key.rawValue) }

    func send(_ bytes: [UInt8]) {
        var offset = 0
        while offset < bytes.count {
            let n = bytes.withUnsafeBytes { write(master, $0.baseAddress! + offset, bytes.count - offset) }
            if n > 0 { offset += n } else if errno == EAGAIN { pump(milliseconds: 10) } else { return }
        }
    }

    /// A left click; (0, 0) is the top left cell.
    func click(column: Int, row: Int) { send("\u{1b}[<0;\(column + 1);\(row + 1)M\u{1b}[<0;\(column + 1);\(row + 1)m") }

    func paste(_ text: String) { send("\u{1b}[200~\(text)\u{1b}[201~") }

    func resize(columns: Int, rows: Int) {
        var size = winsize(ws_row: UInt16(rows), ws_col: UInt16(columns), ws_xpixel: 0, ws_ypixel: 0)
        _ = ioctl(master, UInt(TIOCSWINSZ), &size) // sends SIGWINCH
        screen.resize(columns: columns, rows: rows)
    }

    func signal(_ number: Int32) { kill(pid, number) }

    // MARK: Waiting

    /// Takes in what the program writes for at most this long; returns early after something came.
    @discardableResult
    func pump(milliseconds: Int) -> Bool {
        var polled = pollfd(fd: master, events: Int16(POLLIN), revents: 0)
        guard poll(&polled, 1, Int32(milliseconds)) > 0 else { return false }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let n = read(master, &buffer, buffer.count)
        guard n > 0 else { return false }
        if firstByteAt == nil { firstByteAt = .now }
        bytesReceived += n
        screen.feed(buffer[..<n])
        if !screen.replies.isEmpty {
            let replies = screen.replies
            screen.replies = []
            send(replies)
        }
        return true
    }

    /// Until the condition holds for the screen. Throws with the screen in the message when it does not in time.
    func wait(_ what: String, seconds: Double = 15, until condition: (VirtualScreen) -> Bool) throws {
        let limit = ContinuousClock.now + .seconds(seconds)
        while !condition(screen) {
            if ContinuousClock.now > limit { throw Failure(description: "no \(what) after \(seconds) s; the screen:\n\(screen.text)") }
            if !pump(milliseconds: 20), hasExited, !pump(milliseconds: 0), !condition(screen) {
                throw Failure(description: "the program ended (status \(status ?? -1)) before \(what); the screen:\n\(screen.text)")
            }
        }
    }

    func wait(for text: String, seconds: Double = 15) throws { try wait("\"\(text)\"", seconds: seconds) { $0.text.contains(text) } }
    func wait(untilGone text: String, seconds: Double = 15) throws { try wait("end of \"\(text)\"", seconds: seconds) { !$0.text.contains(text) } }

    /// Until nothing was written for a while: for measuring what an idle program writes afterwards.
    func waitForSilence(milliseconds: Int) { while pump(milliseconds: milliseconds) {} }

    /// Bytes that the program writes in this time.
    func bytesWritten(inSeconds seconds: Double) -> Int {
        let before = bytesReceived
        let limit = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < limit { pump(milliseconds: 20) }
        return bytesReceived - before
    }

    private var hasExited: Bool {
        if status != nil { return true }
        var now: Int32 = 0
        if waitpid(pid, &now, WNOHANG) == pid { status = now }
        return status != nil
    }

    /// The exit status; 128 + the signal for a program that one ended. Takes in all output first.
    func waitForExit(seconds: Double = 15) throws -> Int32 {
        let limit = ContinuousClock.now + .seconds(seconds)
        while !hasExited {
            if ContinuousClock.now > limit { throw Failure(description: "still running after \(seconds) s; the screen:\n\(screen.text)") }
            pump(milliseconds: 20)
        }
        while pump(milliseconds: 0) {}
        let status = status!
        return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f)
    }

    /// True while the program is stopped (^Z).
    func waitUntilStopped(seconds: Double = 15) throws {
        let limit = ContinuousClock.now + .seconds(seconds)
        while true {
            var now: Int32 = 0
            if waitpid(pid, &now, WNOHANG | WUNTRACED) == pid {
                if now & 0xff == 0x7f { return }
                status = now
                throw Failure(description: "ended instead of stopping")
            }
            if ContinuousClock.now > limit { throw Failure(description: "not stopped after \(seconds) s") }
            pump(milliseconds: 20)
        }
    }

    // MARK: The terminal's modes

    /// As `stty -g` would print them: equal before and after means restored.
    var lineModes: String { PseudoTerminal.lineModes(of: slave) }

    private static func lineModes(of terminal: Int32) -> String {
        var modes = termios()
        tcgetattr(terminal, &modes)
        let characters = withUnsafeBytes(of: modes.c_cc) { Array($0) }
        return "\(modes.c_iflag):\(modes.c_oflag):\(modes.c_cflag):\(modes.c_lflag):\(characters)"
    }

    /// The modes a new terminal has, which the program found: those of another one, since this program may have changed its own already.
    var untouchedLineModes: String {
        var master: Int32 = -1, slave: Int32 = -1
        guard openpty(&master, &slave, nil, nil, nil) == 0 else { return "no terminal" }
        defer {
            close(master)
            close(slave)
        }
        return PseudoTerminal.lineModes(of: slave)
    }

    /// Nil when the terminal looks untouched: modes of before, no alternate screen, cursor visible, no mouse or paste reports.
    func whatIsNotRestored(since before: String) -> String? {
        var found: [String] = []
        if lineModes != before { found.append("line modes \(lineModes), were \(before)") }
        let left = screen.modes.intersection([1, 47, 1000, 1002, 1003, 1004, 1006, 1047, 1049, 2004, 2026])
        if !left.isEmpty { found.append("private modes \(left.sorted()) still on") }
        if !screen.isCursorVisible { found.append("cursor hidden") }
        return found.isEmpty ? nil : found.joined(separator: "; ")
    }
}

/// The program under test, built beside the tests.
enum Product {
    static func path(_ name: String = "quarterdeck") -> String {
        // The test bundle and the executables share the build folder; the runner may live elsewhere.
        var candidates = CommandLine.arguments.map { ($0 as NSString).deletingLastPathComponent }
        candidates.append(((Bundle.main.executablePath ?? "") as NSString).deletingLastPathComponent)
        for argument in CommandLine.arguments where argument.contains(".xctest") {
            candidates.append(((argument as NSString).deletingLastPathComponent as NSString).deletingLastPathComponent)
        }
        let here = #filePath as NSString
        let root = ((here.deletingLastPathComponent as NSString).deletingLastPathComponent as NSString).deletingLastPathComponent
        candidates += [root + "/.build/release", root + "/.build/debug"]
        return candidates.map { $0 + "/" + name }.first { FileManager.default.isExecutableFile(atPath: $0) } ?? root + "/.build/debug/" + name
    }
}
