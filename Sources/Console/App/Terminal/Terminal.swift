import CNcurses
import Foundation
import UI

enum TerminalFailure: Error, Equatable, CustomStringConvertible {
    case notATerminal
    case dumb(String)
    case unknown(String)

    var description: String {
        switch self {
        case .notATerminal: "standard input and output are not a terminal"
        case .dumb(let name): name.isEmpty ? "TERM is not set" : "the terminal (TERM=\(name)) cannot place the cursor"
        case .unknown(let name): "no description of the terminal TERM=\(name) fits"
        }
    }
}

/// A signal that the console handles, received in the waiting call and nowhere else.
enum ProcessSignal: Hashable, Sendable {
    case interrupt, terminate, hangUp, quit, stop, `continue`, windowChanged

    init?(number: Int32) {
        switch number {
        case SIGINT: self = .interrupt
        case SIGTERM: self = .terminate
        case SIGHUP: self = .hangUp
        case SIGQUIT: self = .quit
        case SIGTSTP: self = .stop
        case SIGCONT: self = .continue
        case SIGWINCH: self = .windowChanged
        default: return nil
        }
    }
}

/// The signals of the process as bytes in a pipe. `install` must run in the main thread before any other thread exists: threads
/// inherit the mask, so that no signal ever interrupts them.
struct SignalInbox: Sendable {
    let descriptor: Int32

    static func install() -> SignalInbox { SignalInbox(descriptor: qd_install_signals()) }

    /// Signals since the last call, each once, in order of first arrival.
    func take() -> [ProcessSignal] {
        var found: [ProcessSignal] = []
        var buffer = [UInt8](repeating: 0, count: 256)
        while true {
            let n = read(descriptor, &buffer, buffer.count)
            guard n > 0 else { return found }
            for byte in buffer[..<n] {
                if let signal = ProcessSignal(number: Int32(byte)), !found.contains(signal) { found.append(signal) }
            }
        }
    }
}

/// The terminal in full-screen mode. Owns ncurses, which is one per process and tied to one thread: confined to the main thread.
/// Whatever happens (close, exit, a crash) the terminal gets its modes back; see CNcurses for the crash path.
final class Terminal: CellSink {
    struct Options {
        var usesMouse = true
        /// How long a lone Escape waits for the rest of a sequence. 25 is right for local and fast links; up to 100 for bad ones.
        var escapeDelayMilliseconds = 25
        /// Bracket frames with mode 2026 where the terminal says that it knows it.
        var synchronizesFrames = true
        var environment = ProcessInfo.processInfo.environment
    }

    let depth: ColorDepth
    /// False: only ascii may be drawn.
    let isUnicode: Bool
    /// The terminfo entry in use.
    let description: String
    private(set) var size: Size
    private var isSynchronizing = false
    private var decoder = InputDecoder()
    private let options: Options
    private var isOpen = true

    init(_ options: Options) throws(TerminalFailure) {
        guard isatty(STDIN_FILENO) != 0, isatty(STDOUT_FILENO) != 0 else { throw .notATerminal }
        let term = options.environment["TERM"] ?? ""
        guard !term.isEmpty, term != "dumb" else { throw .dumb(term) }
        self.options = options
        isUnicode = qd_set_locale()
        let color = ColorCapability(environment: options.environment)
        var info = qd_screen_info()
        qd_install_crash_handler()
        guard qd_open(color.wantsDirect, Int32(options.escapeDelayMilliseconds), &info) else { throw .unknown(term) }
        depth = color.depth(colors: Int(info.colors), isDirect: info.direct)
        description = String(cString: info.terminal)
        size = Terminal.kernelSize() ?? Size(columns: 80, rows: 24)
        qd_resize(Int32(size.columns), Int32(size.rows))
        qd_set_modes(Int32(QD_MODE_PASTE | QD_MODE_FOCUS | (options.usesMouse ? QD_MODE_MOUSE : 0)))
        if options.synchronizesFrames {
            // DECRQM: a terminal that does not know the question stays silent (tmux before 3.7) and gets plain frames.
            write("\u{1b}[?2026$p")
        }
    }

    func close() {
        guard isOpen else { return }
        isOpen = false
        qd_close()
    }

    static func kernelSize() -> Size? {
        var columns: Int32 = 0, rows: Int32 = 0
        guard qd_kernel_size(&columns, &rows) else { return nil }
        return Size(columns: Int(columns), rows: Int(rows))
    }

    // MARK: Input

    /// Everything that has been typed since the last call. Never waits (but for the Escape delay after a lone Escape). False when the
    /// terminal gave nothing at all.
    func readEvents(into events: inout [TerminalEvent]) -> Bool {
        var found: [TerminalEvent] = []
        var value: UInt32 = 0
        var isEmpty = true
        reading: while true {
            switch Int(qd_next_input(&value)) {
            case QD_INPUT_CHARACTER: decoder.feed(.character(value), into: &found)
            case QD_INPUT_KEY: decoder.feed(.key(value), into: &found)
            default: break reading
            }
            isEmpty = false
        }
        decoder.feed(.pause, into: &found)
        for event in found {
            if case .privateMode(2026, let state) = event {
                isSynchronizing = options.synchronizesFrames && (1...3).contains(state)
            } else {
                events.append(event)
            }
        }
        return !isEmpty
    }

    /// The window's size now, if it changed; ncurses has been told and repaints with the next frame.
    func takeNewSize() -> Size? {
        guard let now = Terminal.kernelSize(), now != size else { return nil }
        size = now
        qd_resize(Int32(now.columns), Int32(now.rows))
        return now
    }

    // MARK: Output

    func put(column: Int, row: Int, cells: UnsafeBufferPointer<qd_cell>) {
        qd_put(Int32(column), Int32(row), cells.baseAddress, Int32(cells.count))
    }

    func setCursor(_ position: Position?) {
        qd_set_cursor(Int32(position?.column ?? -1), Int32(position?.row ?? 0))
    }

    func flush() { qd_flush(isSynchronizing) }

    /// The next frame paints every cell, whatever the terminal may show.
    func repaint() { qd_repaint() }

    /// Raw bytes between frames (clipboard, queries).
    func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) { qd_write($0.baseAddress, $0.count) }
        }
    }

    func setMouse(_ isOn: Bool) {
        qd_set_modes(Int32(QD_MODE_PASTE | QD_MODE_FOCUS | (isOn ? QD_MODE_MOUSE : 0)))
    }

    // MARK: Giving the terminal away

    /// ^Z: the shell takes over; returns when the job is continued.
    func stopJob(_ signals: SignalInbox) {
        qd_suspend()
        qd_stop_job()
        qd_resume()
        _ = signals.take().filter { $0 != .continue && $0 != .windowChanged }
    }

    /// Someone else stopped and continued the process: take the terminal again.
    func reenter() { qd_reenter() }

    enum ProgramEnd: Equatable {
        case exited(Int32)
        case killed(bySignal: Int32)
        case couldNotStart(errno: Int32)
        /// A signal asked the console to end meanwhile; the program was told so too.
        case interrupted(ProcessSignal)
    }

    /// Runs a program in this terminal and waits for its end. Cluster events keep arriving in the mailbox meanwhile.
    func runProgram(_ arguments: [String], signals: SignalInbox) -> ProgramEnd {
        qd_suspend()
        defer { qd_resume() }
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        pointers.append(nil)
        defer { pointers.forEach { free($0) } }
        let pid = qd_spawn(&pointers)
        guard pid > 0 else { return .couldNotStart(errno: -pid) }
        var status: Int32 = 0
        var descriptors = [signals.descriptor]
        while !qd_has_ended(pid, &status) {
            // There is no portable descriptor for the end of a process; 30 ms is soon enough for a person.
            _ = qd_wait(&descriptors, 1, 30_000_000)
            for signal in signals.take() where signal == .terminate || signal == .hangUp {
                kill(pid, signal == .terminate ? SIGTERM : SIGHUP)
                return .interrupted(signal)
            }
        }
        return status & 0x7f == 0 ? .exited(status >> 8 & 0xff) : .killed(bySignal: status & 0x7f)
    }
}

/// Standard error while the screen is ours: kept in memory, shown afterwards.
enum StandardError {
    static func capture() { _ = qd_capture_stderr() }
    static func release() { qd_release_stderr() }

    /// The newest of what was printed, for the log view.
    static func captured(limitBytes: Int = 16_384) -> String {
        var buffer = [CChar](repeating: 0, count: limitBytes)
        let n = qd_captured_stderr(&buffer, buffer.count)
        return String(decoding: buffer[..<n].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
