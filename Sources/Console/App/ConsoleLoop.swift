import CNcurses
import Foundation
import UI

/// The console's thread: keyboard, mailbox and signals in, frames out. Nothing in it waits for the cluster.
final class ConsoleLoop {
    enum End: Equatable {
        case quit
        case signal(ProcessSignal)
    }

    /// Pace of frames, in nanoseconds. Input is drawn at once; data wait for the next frame of their clock (a clock, not a debounce,
    /// so that a steady stream cannot starve the screen).
    private enum Pace {
        static let data: Int64 = 50_000_000
        static let unfocused: Int64 = 500_000_000
        /// The upper bound of 30 frames a second, also for a key held down.
        static let input: Int64 = 33_000_000
    }

    private let terminal: Terminal
    private let signals: SignalInbox
    private let mailbox: Mailbox
    private let runner: any CommandRunner
    private let themes: ThemeLibrary
    private var model: Model
    private var renderer: Renderer
    private var lastFrame: Int64 = 0
    private var lastInputFrame: Int64 = 0
    private var needsFrame = false
    private var answersInput = false
    private var isFocused = true
    private var end: End?

    init(terminal: Terminal, signals: SignalInbox, mailbox: Mailbox, runner: any CommandRunner, themes: ThemeLibrary, model: Model) {
        self.terminal = terminal
        self.signals = signals
        self.mailbox = mailbox
        self.runner = runner
        self.themes = themes
        self.model = model
        renderer = Renderer(depth: terminal.depth, isASCII: model.glyphs == .ascii)
    }

    /// Shows the first frame, then starts the runner, then runs until the person leaves or a signal says so.
    func run() -> End {
        draw()
        model.themeNames = themes.names()
        runner.start()
        carryOut(model.start())
        while end == nil { turn() }
        return end!
    }

    private func turn() {
        var descriptors = [STDIN_FILENO, mailbox.descriptor, signals.descriptor]
        let ready = qd_wait(&descriptors, 3, timeoutNanoseconds())
        handleSignals()
        var hasRead = false
        if ready & 1 != 0 {
            var events: [TerminalEvent] = []
            hasRead = terminal.readEvents(into: &events)
            for event in events { handle(event) }
        }
        // The window was closed. (A terminal without its other end counts as readable too, but gives nothing.)
        if !hasRead, ready >> QD_HUNG_UP_SHIFT & 1 != 0 { end = end ?? .signal(.hangUp) }
        if ready & 2 != 0 {
            for event in mailbox.take() { apply(.data(event)) }
        }
        if let deadline = model.nextDeadline, deadline <= runner.now() { apply(.tick) }
        drawIfDue()
    }

    private func timeoutNanoseconds() -> Int64 {
        var timeout = Int64.max
        if let deadline = model.nextDeadline { timeout = runner.nanoseconds(until: deadline) }
        if needsFrame { timeout = min(timeout, max(0, frameDue() - Clock.monotonicNanoseconds())) }
        return timeout == .max ? -1 : timeout
    }

    private func frameDue() -> Int64 {
        // The first key after a rest is drawn at once; only a stream of them is paced.
        if answersInput { return lastInputFrame + Pace.input }
        return lastFrame + (isFocused ? Pace.data : Pace.unfocused)
    }

    private func drawIfDue() {
        guard needsFrame, end == nil, frameDue() <= Clock.monotonicNanoseconds() else { return }
        draw()
    }

    private func draw() {
        let start = Clock.monotonicNanoseconds()
        renderer.show(view(model), theme: model.theme, on: terminal)
        lastFrame = start
        if answersInput { lastInputFrame = start }
        needsFrame = false
        answersInput = false
    }

    // MARK: What arrives

    private func apply(_ action: Action) {
        let commands = update(&model, action, at: runner.now())
        needsFrame = true
        carryOut(commands)
    }

    private func handle(_ event: TerminalEvent) {
        answersInput = true
        switch event {
        case .key(let key): apply(.key(key))
        case .mouse(let event): apply(.mouse(event))
        case .paste(let text): apply(.paste(text))
        case .focused(let has):
            isFocused = has
            apply(.focused(has))
        case .privateMode: break
        }
    }

    private func handleSignals() {
        for signal in signals.take() {
            switch signal {
            case .windowChanged: resizeIfNeeded()
            case .stop: suspend()
            case .continue:
                // Stopped and continued by somebody else; our own suspension has taken its signals away.
                terminal.reenter()
                renderer.invalidate()
                resizeIfNeeded()
                needsFrame = true
            case .interrupt, .terminate, .hangUp, .quit: end = end ?? .signal(signal)
            }
        }
    }

    /// However many signals came: one new layout.
    private func resizeIfNeeded() {
        guard let size = terminal.takeNewSize() else { return }
        renderer.invalidate()
        apply(.resized(size))
        answersInput = true
    }

    // MARK: Commands that belong to this thread

    private func carryOut(_ commands: [Command]) {
        for command in commands {
            switch command {
            case .quit: end = end ?? .quit
            case .suspend: suspend()
            case .redraw:
                renderer.invalidate()
                needsFrame = true
            case .useTheme(let name): useTheme(name)
            case .copyToClipboard(let id, let text): copyToClipboard(id, text)
            case .saveScreen(let id): saveScreen(id)
            case .openEditor(let id, let content, let fileExtension): openEditor(id, content, fileExtension)
            default: runner.perform(command)
            }
        }
    }

    private func suspend() {
        terminal.stopJob(signals)
        renderer.invalidate()
        resizeIfNeeded()
        needsFrame = true
        answersInput = true
    }

    private func useTheme(_ name: String) {
        switch themes.theme(named: name) {
        case .success(let theme): apply(.data(.theme(theme)))
        case .failure(let failure): apply(.data(.notice(failure.description, isBad: true)))
        }
        renderer.invalidate()
    }

    private func copyToClipboard(_ id: RequestID, _ text: String) {
        switch Clipboard.sequence(for: text) {
        case .some(let sequence):
            terminal.write(sequence)
            apply(.data(.finished(CommandResult(request: id, outcome: .done(revision: nil, detail: "copied \(text.utf8.count) B")))))
        case nil:
            let limit = Clipboard.limitBytes / 1_000
            apply(.data(.finished(CommandResult(request: id, outcome: .failed("over \(limit) KB: terminals drop that; save it to a file instead")))))
        }
    }

    private func saveScreen(_ id: RequestID) {
        let outcome: CommandResult.Outcome
        do {
            let path = try ScreenSaver.save(view(model), theme: model.theme, at: Clock.now())
            outcome = .done(revision: nil, detail: "saved \(Paths.abbreviated(path))")
        } catch {
            outcome = .failed("screen not saved: \(error)")
        }
        apply(.data(.finished(CommandResult(request: id, outcome: outcome))))
    }

    private func openEditor(_ id: RequestID, _ content: [UInt8], _ fileExtension: String) {
        let result = ExternalEditor.edit(content, fileExtension: fileExtension, terminal: terminal, signals: signals)
        renderer.invalidate()
        resizeIfNeeded()
        switch result {
        case .edited(let bytes): apply(.data(.editorClosed(id, content: bytes, message: nil)))
        case .unchanged: apply(.data(.editorClosed(id, content: nil, message: "nothing changed")))
        case .failed(let message): apply(.data(.editorClosed(id, content: nil, message: message)))
        case .interrupted(let signal): end = end ?? .signal(signal)
        }
        answersInput = true
    }
}
