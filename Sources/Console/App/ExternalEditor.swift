import CNcurses
import Foundation
import UI

/// A value in $VISUAL or $EDITOR, by way of a file that only we can read and that does not outlive the edit.
enum ExternalEditor {
    enum Result: Equatable {
        case edited([UInt8])
        case unchanged
        case failed(String)
        case interrupted(ProcessSignal)
    }

    /// The command line to run, as the shell understands it. vi is the one editor that POSIX promises.
    static func command(_ environment: [String: String]) -> String {
        for name in ["VISUAL", "EDITOR"] {
            if let value = environment[name], !value.allSatisfy(\.isWhitespace) { return value }
        }
        return "vi"
    }

    static func edit(_ content: [UInt8], fileExtension: String, terminal: Terminal, signals: SignalInbox) -> Result {
        let environment = ProcessInfo.processInfo.environment
        let root = environment["XDG_RUNTIME_DIR"] ?? environment["TMPDIR"] ?? "/tmp"
        var template = Array((root + "/quarterdeck-edit.XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else { return .failed(FileFailure(path: root, number: errno).description) }
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let suffix = fileExtension.filter { $0.isASCII && ($0.isLetter || $0.isNumber) }
        let path = directory + "/value" + (suffix.isEmpty ? "" : "." + suffix)
        do { try PrivateFile.create(path, content) } catch { return .failed(error.description) }
        let editor = command(environment)
        // Through the shell: "code --wait" and the like are command lines.
        switch terminal.runProgram(["/bin/sh", "-c", "exec \(editor) \"$1\"", "sh", path], signals: signals) {
        case .couldNotStart(let number): return .failed("cannot start a shell: \(String(cString: strerror(number)))")
        case .interrupted(let signal): return .interrupted(signal)
        case .killed(let signal): return .failed("\(editor) was ended by signal \(signal); nothing written")
        case .exited(127): return .failed("\(editor): not found; set $EDITOR")
        case .exited(let status) where status != 0: return .failed("\(editor) ended with status \(status); nothing written")
        case .exited: break
        }
        guard let data = FileManager.default.contents(atPath: path) else { return .failed("\(editor) removed the file; nothing written") }
        return result(before: content, after: [UInt8](data))
    }

    /// Editors add a line end to the last line; a value that had none keeps none.
    static func result(before: [UInt8], after: [UInt8]) -> Result {
        var after = after
        if after.last == 10, before.last != 10, after.dropLast().last != 10 { after.removeLast() }
        return after == before ? .unchanged : .edited(after)
    }
}

/// The terminal's clipboard (OSC 52), which also works over ssh.
enum Clipboard {
    /// What terminals take (xterm's and tmux's limits are near 100,000 base64 characters).
    static let limitBytes = 74_000

    /// nil when the text is over the limit.
    static func sequence(for text: String) -> String? {
        let bytes = Array(text.utf8)
        guard bytes.count <= limitBytes else { return nil }
        return "\u{1b}]52;c;\(Data(bytes).base64EncodedString())\u{07}"
    }
}

/// Screens saved as text and with colours.
enum ScreenSaver {
    static func save(_ grid: CellGrid, theme: Theme, at now: Moment) throws -> String {
        let directory = Paths.state() + "/screens"
        try Paths.makePrivateDirectory(directory)
        let base = directory + "/screen-\(now.milliseconds)"
        try PrivateFile.create(base + ".txt", Array((grid.lines.joined(separator: "\n") + "\n").utf8))
        try PrivateFile.create(base + ".ansi", Array(ansi(grid, theme: theme).utf8))
        return base + ".txt"
    }

    /// The screen as a terminal would be told, in 24-bit colour.
    static func ansi(_ grid: CellGrid, theme: Theme) -> String {
        var text = ""
        var row = 0
        for run in grid.runs(changedFrom: nil) {
            while row < run.row {
                text += "\u{1b}[0m\n"
                row += 1
            }
            let style = theme.concrete(run.style, depth: .trueColor)
            var codes = ["0"]
            if style.attributes.contains(.bold) { codes.append("1") }
            if style.attributes.contains(.dim) { codes.append("2") }
            if style.attributes.contains(.italic) { codes.append("3") }
            if style.attributes.contains(.underline) { codes.append("4") }
            if style.attributes.contains(.reverse) { codes.append("7") }
            if case .rgb(let color) = style.foreground { codes.append("38;2;\(color.red);\(color.green);\(color.blue)") }
            if case .rgb(let color) = style.background { codes.append("48;2;\(color.red);\(color.green);\(color.blue)") }
            text += "\u{1b}[\(codes.joined(separator: ";"))m\(run.text)"
        }
        return text + "\u{1b}[0m\n"
    }
}
