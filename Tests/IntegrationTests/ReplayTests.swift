import Foundation
import Testing

extension Integration {
    /// Recording, and `quarterdeck replay` in a terminal.
    @Suite(.serialized) struct ReplayTests {}
}

extension Integration.ReplayTests {
    /// A transfer and a kill in 24 seconds, written by `RecordingTests` of the UI.
    private static let recording = (#filePath as NSString).deletingLastPathComponent + "/../UITests/Goldens/recording.txt"

    private func quit(_ terminal: PseudoTerminal, modes: String, status: Int32 = 0) throws {
        terminal.send(.controlC)
        try terminal.wait(for: "Quit?")
        terminal.send("y")
        #expect(try terminal.waitForExit() == status)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
    }

    @Test func aRecordingIsPlayedPausedAndScrubbed() throws {
        let terminal = try PseudoTerminal([quarterdeck, "replay", Self.recording])
        let modes = terminal.lineModes
        try terminal.wait(for: "REPLAY")
        terminal.send("4")
        try terminal.wait(for: "Timeline")
        // To the second election of the recording, a second before it happens, and on from there.
        terminal.send("}")
        try terminal.wait("the first election") { $0.text.contains("handed over to n1 (you)") }
        terminal.send("}")
        try terminal.wait("the kill") { $0.text.contains("kill n1 (you)") && $0.text.contains("n3 leads term 12") }
        terminal.send(" ")
        try terminal.wait(for: "‖ replay")
        let stands = try #require(terminal.screen.line(with: "‖ 00:2"))
        // Back: what came later is forgotten.
        terminal.send("[")
        try terminal.wait("the beginning") { $0.line(with: "‖ 00:00") != nil && !$0.text.contains("kill n1 (you)") }
        #expect(stands != terminal.screen.line(with: "‖ 00:00"))
        for _ in 0..<5 { terminal.send(.right) }
        try terminal.wait("the end again") { $0.text.contains("n3 leads term 12") }
        terminal.send("K")
        try terminal.wait(for: "this is a recording: nothing can be changed in it")
        try quit(terminal, modes: modes)
    }

    @Test func whatIsNoRecordingIsSaidInOneLine() async throws {
        let scratch = try Scratch()
        func write(_ name: String, _ text: String) throws -> String {
            try text.write(toFile: scratch.file(name), atomically: true, encoding: .utf8)
            return scratch.file(name)
        }
        let good = try String(contentsOfFile: Self.recording, encoding: .utf8)
        var lines = good.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let later = lines[0].replacingOccurrences(of: #""version":1"#, with: #""version":9"#)
        lines[7] = String(lines[7].dropLast(9))
        let cases: [(String, String)] = [
            (scratch.file("missing"), "no such file"), (try write("text", "hello\n"), "not a recording"), (try write("empty", ""), "not a recording"),
            (try write("json", #"{"format":"something else"}"# + "\n"), "not a recording"), (try write("later", later + "\n"), "later version"),
            (try write("damaged", lines.joined(separator: "\n")), "damaged in line 8"), (scratch.path, "cannot be read"),
        ]
        for (path, mention) in cases {
            let child = try ChildProcess([quarterdeck, "replay", path], in: scratch)
            let status = try await child.exit()
            let text = child.errors
            #expect(status == 1, "\(path): \(text)")
            #expect(text.contains(mention) && text.split(separator: "\n").count == 1, "\(text)")
        }
    }

    @Test func aCutLastLineIsNoDamage() throws {
        let scratch = try Scratch()
        let good = try Data(contentsOf: URL(fileURLWithPath: Self.recording))
        try good.dropLast(40).write(to: URL(fileURLWithPath: scratch.file("cut")))
        let terminal = try PseudoTerminal([quarterdeck, "replay", scratch.file("cut")])
        let modes = terminal.lineModes
        try terminal.wait(for: "REPLAY")
        terminal.send("]")
        try terminal.wait("the end") { $0.line(with: "‖ 00:2") != nil }
        try quit(terminal, modes: modes)
    }

    /// A whole session from its start, ended by a signal: nothing heard is missing in the file.
    @Test func aSessionRecordedFromItsStartCanBeReplayed() throws {
        let scratch = try Scratch()
        let file = scratch.file("session.jsonl")
        let console = try PlaygroundConsole(nodes: 3, more: ["--record", file])
        try console.terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil && $0.text.contains("3/3") }
        let leader = try #require(console.terminal.screen.leaderRow)
        console.terminal.send("4")
        try console.terminal.wait(for: "● recording")
        console.terminal.send("K")
        try console.terminal.wait("another leader", seconds: 30) { $0.text.contains("2/3") && $0.line(with: "◆ quarterdeck").map { $0.contains("♛") && !$0.contains("♛ \(leader)") } ?? false }
        console.terminal.signal(SIGTERM)
        try console.expectEnd(status: 128 + SIGTERM)

        let terminal = try PseudoTerminal([quarterdeck, "replay", file])
        let modes = terminal.lineModes
        try terminal.wait(for: "REPLAY")
        for _ in 0..<3 { terminal.send("]") }
        try terminal.wait("the end") { $0.text.contains("‖ replay") && $0.text.contains("2/3") }
        #expect(terminal.screen.line(with: "◆ quarterdeck")?.contains("♛ \(leader)") == false)
        try quit(terminal, modes: modes)

        // It is not written over.
        let again = try PseudoTerminal([quarterdeck, "playground", "--record", file])
        #expect(try again.waitForExit() == 1)
        #expect(again.screen.text.contains("file exists"))
    }
}
