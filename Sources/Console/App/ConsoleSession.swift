import ArgumentParser
import CNcurses
import Foundation
import Synchronization
import UI

/// One run of the console from the command line to the last line printed: takes the terminal, runs the loop, gives the terminal back
/// first of all, then ends what was started.
struct ConsoleSession {
    let flags: ConsoleFlags
    let signals: SignalInbox
    let mailbox: Mailbox
    let runner: any CommandRunner
    let cluster: ClusterState

    /// How long the runner may take to end; after that its `abandon` must do.
    private static let stopLimitNanoseconds: Int64 = 5_000_000_000

    /// - Throws: `CommandFailure` before anything was started, `ExitCode` after a signal.
    func run() throws {
        let themes = ThemeLibrary()
        var theme = Theme.quarterdeckDark
        if let name = flags.theme {
            switch themes.theme(named: name) {
            case .success(let found): theme = found
            case .failure(let failure):
                runner.abandon()
                throw CommandFailure(description: "--theme: \(failure.description)")
            }
        }
        if flags.plain { return try finish(PlainConsole(signals: signals, mailbox: mailbox, runner: runner).run()) }
        let terminal: Terminal
        do {
            var options = Terminal.Options()
            options.usesMouse = !flags.noMouse
            options.escapeDelayMilliseconds = flags.escapeDelay
            options.synchronizesFrames = !flags.noSynchronizedOutput
            terminal = try Terminal(options)
        } catch {
            Quarterdeck.complain("\(error): plain text instead of the console; ^C ends it")
            return try finish(PlainConsole(signals: signals, mailbox: mailbox, runner: runner).run())
        }
        StandardError.capture()
        let glyphs: GlyphSet = flags.ascii || !terminal.isUnicode ? .ascii : .unicode
        var model = Model(size: terminal.size, now: runner.now(), cluster: cluster, theme: theme, glyphs: glyphs, isReadOnly: flags.isReadOnly)
        model.timeZoneOffsetSeconds = Clock.timeZoneOffsetSeconds()
        let loop = ConsoleLoop(terminal: terminal, signals: signals, mailbox: mailbox, runner: runner, themes: themes, model: model)
        let end = loop.run()
        terminal.close()
        defer { StandardError.release() }
        try finish(end)
    }

    /// Stops the runner; a second signal, or five seconds, end the wait.
    private func finish(_ end: ConsoleLoop.End) throws {
        let runner = runner
        let flag = Completion()
        Task.detached {
            await runner.stop()
            flag.complete()
        }
        let start = Clock.monotonicNanoseconds()
        var descriptors = [signals.descriptor, flag.descriptor]
        var isImpatient = false
        while !flag.isComplete {
            _ = qd_wait(&descriptors, 2, 100_000_000)
            let asked = signals.take().contains { [.interrupt, .terminate, .hangUp, .quit].contains($0) }
            if asked || Clock.monotonicNanoseconds() - start > ConsoleSession.stopLimitNanoseconds {
                isImpatient = true
                break
            }
        }
        if isImpatient { runner.abandon() }
        if case .signal(let signal) = end {
            // What a shell shows for a process that the signal ended.
            let numbers: [ProcessSignal: Int32] = [.interrupt: 130, .quit: 131, .terminate: 143, .hangUp: 129]
            throw ExitCode(numbers[signal] ?? 1)
        }
    }
}

/// Something that happens once, and that a poll can wait for.
final class Completion: Sendable {
    private let state = Mutex(false)
    let descriptor: Int32
    private let writingEnd: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no pipe: errno \(errno)")
        (descriptor, writingEnd) = (ends[0], ends[1])
    }

    deinit {
        close(descriptor)
        close(writingEnd)
    }

    var isComplete: Bool { state.withLock { $0 } }

    func complete() {
        state.withLock { $0 = true }
        var byte: UInt8 = 1
        _ = write(writingEnd, &byte, 1)
    }
}
