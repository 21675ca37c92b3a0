import Foundation

/// One line that is drawn over itself on a terminal's standard error, from the second second on; nothing elsewhere.
final class ProgressLine {
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let start = ContinuousClock.now
    private var lastDrawn: ContinuousClock.Instant?

    func show(_ text: String) {
        let now = ContinuousClock.now
        guard isTerminal, now - start > .seconds(1), lastDrawn.map({ now - $0 > .milliseconds(100) }) ?? true else { return }
        lastDrawn = now
        FileHandle.standardError.write(Data("\r\(text)\u{1b}[K".utf8))
    }

    func clear() {
        guard lastDrawn != nil else { return }
        lastDrawn = nil
        FileHandle.standardError.write(Data("\r\u{1b}[K".utf8))
    }
}
