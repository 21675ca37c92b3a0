import Base
import Client
import Foundation
import Testing

/// The console as a person has it: the real program in a terminal, with real nodes. Each test has ports and directories of its own.
@Suite(.serialized) struct ConsoleTests {
    /// Starts a playground and waits for its first leader.
    private static func playground(nodes: Int = 3, port: Int, columns: Int = 120, rows: Int = 36, environment: [String: String] = [:],
                                   arguments: [String] = []) throws -> (PseudoTerminal, lineModes: String, directory: String) {
        let directory = NSTemporaryDirectory() + "qd-console-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        var all = ["TMPDIR": directory, "XDG_STATE_HOME": directory + "/state", "XDG_CONFIG_HOME": directory + "/config"]
        all.merge(environment) { $1 }
        let command = [Product.path(), "playground", "--nodes", "\(nodes)", "--base-port", "\(port)"] + arguments
        let terminal = try PseudoTerminal(command, environment: all, columns: columns, rows: rows, directory: directory)
        let modes = terminal.untouchedLineModes
        return (terminal, modes, directory)
    }

    private static func client(port: Int, nodes: Int = 3) throws -> EtcdClient {
        try EtcdClient(endpoints: (0..<nodes).map { "127.0.0.1:\(port + 10 * $0)" })
    }

    /// The number behind "♛ n" in the header.
    private static func leader(_ screen: VirtualScreen) -> String? {
        guard let header = screen.lines.first, let crown = header.range(of: "♛ n") else { return nil }
        return "n" + header[crown.upperBound...].prefix { $0.isNumber }
    }

    private static func quit(_ terminal: PseudoTerminal) throws -> Int32 {
        terminal.send(.controlC)
        try terminal.wait(for: "Quit?")
        terminal.send("y")
        return try terminal.waitForExit()
    }

    private static func leftOvers(in directory: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).filter { $0.hasPrefix("quarterdeck") }
    }

    @Test(.timeLimit(.minutes(3))) func electsShowsForeignWritesEditsAndQuitsWithTheTerminalAsItWas() async throws {
        let port = 41_000
        let (terminal, modes, directory) = try Self.playground(port: port)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        try terminal.wait(for: "elected")
        #expect(terminal.screen.modes.contains(1049))
        #expect(!Self.leftOvers(in: directory).isEmpty, "the nodes' data must be in the temporary directory")

        let client = try Self.client(port: port)
        terminal.send("2")
        try terminal.wait(for: "no keys yet")
        // Somebody else writes: it appears by itself.
        try await client.put("greeting", "hello")
        try terminal.wait(for: "greeting")
        terminal.send(.home)
        try terminal.wait(for: "hello")
        try await client.put("greeting", "hello again")
        try terminal.wait(for: "hello again")

        // Edit in place: everything out, something else in, ^S.
        terminal.send("e")
        try terminal.wait(for: "Edit")
        terminal.send(.end)
        terminal.send(", world")
        try terminal.wait(for: "hello again, world")
        terminal.send(.controlS)
        try terminal.wait(for: "put ok")
        let written = try await client.get("greeting")
        #expect(written?.valueText == "hello again, world")

        #expect(try Self.quit(terminal) == 0)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
        #expect(Self.leftOvers(in: directory).isEmpty)
        await client.close()
    }

    @Test(.timeLimit(.minutes(3))) func killedLeaderIsReplacedOnTheScreen() async throws {
        let port = 41_100
        let (terminal, modes, directory) = try Self.playground(port: port)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        let first = try #require(Self.leader(terminal.screen))
        // The rows are in the order of the names; the selection starts on the first.
        for _ in 1..<(Int(first.dropFirst()) ?? 1) { terminal.send(.down) }
        try terminal.wait(for: "overview › \(first)")
        terminal.send("K")
        try terminal.wait("\(first) down") { $0.text.contains("\(first) killed by you") || $0.text.contains("\(first)   ✕ down") }
        try terminal.wait("another leader", seconds: 30) { Self.leader($0) != nil && Self.leader($0) != first }
        try terminal.wait(for: "no writes")
        // The cluster goes on: a write through the survivors.
        let client = try Self.client(port: port)
        try await client.put("after", "failover")
        // And the dead one comes back.
        terminal.send("R")
        try terminal.wait("three nodes", seconds: 30) { $0.lines.first?.contains("3/3") ?? false }
        await client.close()
        terminal.signal(SIGTERM)
        #expect(try terminal.waitForExit() == 128 + SIGTERM)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
        #expect(Self.leftOvers(in: directory).isEmpty)
    }

    @Test(.timeLimit(.minutes(2)), arguments: [(SIGTERM, 143), (SIGHUP, 129), (SIGINT, 130), (SIGQUIT, 131)] as [(Int32, Int32)])
    func everySignalGivesTheTerminalBackAndCleansUp(_ number: Int32, _ status: Int32) throws {
        let (terminal, modes, directory) = try Self.playground(nodes: 1, port: 41_200)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        terminal.signal(number)
        #expect(try terminal.waitForExit() == status)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
        #expect(Self.leftOvers(in: directory).isEmpty)
    }

    @Test(.timeLimit(.minutes(2)), arguments: [SIGSEGV, SIGABRT, SIGILL] as [Int32])
    func crashGivesTheTerminalBack(_ number: Int32) throws {
        let (terminal, modes, directory) = try Self.playground(nodes: 1, port: 41_300)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        terminal.signal(number)
        #expect(try terminal.waitForExit() == 128 + number)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
    }

    @Test(.timeLimit(.minutes(2))) func suspendGivesTheTerminalAwayAndContinuingTakesItAgain() throws {
        // An interactive shell: only a job that somebody can continue is stopped.
        let directory = NSTemporaryDirectory() + "qd-console-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let terminal = try PseudoTerminal(["/bin/bash", "--norc", "--noprofile", "-i"], environment: ["TMPDIR": directory, "PS1": "ready> ", "HISTFILE": "/dev/null"])
        try terminal.wait(for: "ready>")
        terminal.send("\(Product.path()) playground --nodes 1 --base-port 41400\r")
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        terminal.send(.controlZ)
        try terminal.wait(for: "Stopped")
        #expect(terminal.screen.modes.isDisjoint(with: [1049, 1006, 1000, 1002, 2004, 1004]))
        #expect(terminal.screen.isCursorVisible)
        terminal.send("fg\r")
        try terminal.wait("console", seconds: 30) { Self.leader($0) != nil && $0.modes.contains(1049) }
        terminal.send("2")
        try terminal.wait(for: "[2 Keys]")
        terminal.signal(SIGHUP) // to the shell, which passes it on
        _ = try terminal.waitForExit(seconds: 30)
    }

    @Test(.timeLimit(.minutes(2))) func idleConsoleWritesNextToNothing() throws {
        let (terminal, _, directory) = try Self.playground(port: 41_500, columns: 200, rows: 60)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        let toFirstByte = try #require(terminal.firstByteAt) - terminal.startedAt
        terminal.pump(milliseconds: 3_000)
        _ = terminal.bytesWritten(inSeconds: 5) // the unrest of the election passes
        let perSecond = terminal.bytesWritten(inSeconds: 5) / 5
        // Clock, ages and latencies of three nodes change each second.
        #expect(perSecond < 4_096)
        print("console: first byte after \(toFirstByte), idle at 200x60 \(perSecond) bytes/s")
        #expect(try Self.quit(terminal) == 0)
    }

    @Test(.timeLimit(.minutes(2))) func everySizeIsDrawnAndTooSmallOnesSaySo() throws {
        let (terminal, _, directory) = try Self.playground(nodes: 1, port: 41_600, columns: 80, rows: 24)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        for (columns, rows) in [(120, 36), (200, 60), (81, 25), (300, 100), (80, 24)] {
            terminal.resize(columns: columns, rows: rows)
            try terminal.wait("frame of \(columns)x\(rows)") { screen in
                screen.lines.count == rows && Self.leader(screen) != nil && screen.lines[rows - 1].contains("help")
            }
        }
        terminal.resize(columns: 40, rows: 10)
        try terminal.wait("a message about the size") { $0.text.contains("80") && $0.text.contains("24") }
        terminal.resize(columns: 120, rows: 36)
        try terminal.wait("frame after the storm") { Self.leader($0) != nil && $0.lines[35].contains("help") }
        #expect(try Self.quit(terminal) == 0)
    }

    @Test(.timeLimit(.minutes(2)), arguments: [["TERM": "xterm-unheard-of"], ["NO_COLOR": "1"], ["LC_ALL": "POSIX"], ["COLORTERM": "truecolor"], ["TERM": "vt100"]])
    func startsInEveryKindOfTerminal(_ environment: [String: String]) throws {
        let (terminal, modes, directory) = try Self.playground(nodes: 1, port: 41_700, environment: environment)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait(for: "LEADER", seconds: 30)
        if environment["NO_COLOR"] != nil || environment["TERM"] == "vt100" {
            #expect(terminal.screen.cells.joined().allSatisfy { $0.style.foreground.isEmpty && $0.style.background.isEmpty })
        }
        if environment["COLORTERM"] != nil {
            #expect(terminal.screen.cells.joined().contains { $0.style.foreground.hasPrefix("38;2;") })
        }
        #expect(try Self.quit(terminal) == 0)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
    }

    @Test(.timeLimit(.minutes(2))) func asciiDrawsOnlyAscii() throws {
        let (terminal, _, directory) = try Self.playground(nodes: 1, port: 41_800, arguments: ["--ascii"])
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait(for: "LEADER", seconds: 30)
        #expect(terminal.screen.text.utf8.allSatisfy { $0 < 0x7f })
        #expect(try Self.quit(terminal) == 0)
    }

    @Test(.timeLimit(.minutes(2)), arguments: [["TERM": "dumb"], ["TERM": ""]])
    func plainTextWhereThereIsNoScreen(_ environment: [String: String]) throws {
        let (terminal, modes, directory) = try Self.playground(nodes: 1, port: 41_900, environment: environment)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait(for: "elected", seconds: 30)
        #expect(!terminal.screen.modes.contains(1049))
        terminal.signal(SIGINT)
        #expect(try terminal.waitForExit() == 130)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
        #expect(Self.leftOvers(in: directory).isEmpty)
    }

    @Test(.timeLimit(.minutes(2))) func readOnlyConsoleWritesNothing() async throws {
        let port = 42_000
        let (terminal, _, directory) = try Self.playground(nodes: 1, port: port, arguments: ["--read-only"])
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try terminal.wait("leader", seconds: 30) { Self.leader($0) != nil }
        let client = try Self.client(port: port, nodes: 1)
        try await client.put("kept", "value")
        let before = try await client.range(RangeQuery(.single(Key("kept")))).header.revision
        for key in "KRPXLWADRU" { terminal.send(String(key)) }
        terminal.send("2")
        try terminal.wait(for: "kept")
        for key in "ADRUC" { terminal.send(String(key)) }
        terminal.send(.escape)
        terminal.send("1")
        try terminal.wait(for: "[1 Overview]")
        let after = try await client.range(RangeQuery(.single(Key("kept")))).header.revision
        #expect(after == before)
        #expect(terminal.screen.text.contains("RO"))
        await client.close()
        #expect(try Self.quit(terminal) == 0)
    }

    @Test(.timeLimit(.minutes(2))) func attachToNothingSaysSoAndStaysQuick() throws {
        let terminal = try PseudoTerminal([Product.path(), "attach", "127.0.0.1:1"])
        let modes = terminal.untouchedLineModes
        try terminal.wait(for: "Overview", seconds: 30)
        terminal.send("2")
        try terminal.wait(for: "[2 Keys]", seconds: 3)
        terminal.send("1")
        try terminal.wait("the reason") { $0.text.contains("refused") || $0.text.contains("no endpoint") }
        terminal.send(.controlC)
        try terminal.wait("an end or a question") { !$0.modes.contains(1049) || $0.text.contains("Quit?") }
        terminal.send("y")
        #expect(try terminal.waitForExit() == 0)
        #expect(terminal.whatIsNotRestored(since: modes) == nil)
    }
}

/// The command line, without a terminal.
@Suite struct CommandLineTests {
    private func run(_ arguments: [String], environment: [String: String] = [:]) throws -> (status: Int32, lines: [String]) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Product.path())
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let pipe = Pipe()
        process.standardError = pipe
        process.standardOutput = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self).split(separator: "\n").map(String.init))
    }

    @Test(arguments: [
        ["--nodes", "4"], ["--nodes", "many"], ["--base-port", "70000"], ["nonsense"], ["attach", "host"], ["attach", "ftp://host:1"],
        ["attach", "--dial-timeout", "soon", "h:1"], ["attach", "--cert", "/nowhere", "h:1"], ["attach", "--user", ":x", "h:1"],
        ["serve", "--name", "a=b"], ["serve", "--listen-client-urls", "http://127.0.0.1:1"], ["serve", "--election-timeout", "200"],
        ["serve", "--initial-cluster", "other=http://127.0.0.1:2380"], ["serve", "--log-level", "loud"], ["serve", "--max-txn-ops", "x"],
    ])
    func badCommandLineIsOneLineAndAFailure(_ arguments: [String]) throws {
        let (status, lines) = try run(arguments)
        #expect(status != 0)
        #expect(lines.count == 1)
        #expect(lines.first?.hasPrefix("quarterdeck: ") == true)
    }

    @Test func badEnvironmentOfEtcdctlIsOneLineToo() throws {
        let (status, lines) = try run(["attach"], environment: ["ETCDCTL_COMMAND_TIMEOUT": "soon"])
        #expect(status != 0)
        #expect(lines.count == 1 && lines[0].contains("ETCDCTL_COMMAND_TIMEOUT=soon"))
    }

    @Test func unknownThemeNamesThoseThatAre() throws {
        let (status, lines) = try run(["attach", "--theme", "nope", "127.0.0.1:1"])
        #expect(status == 1)
        #expect(lines.count == 1 && lines[0].contains("quarterdeck-dark"))
    }
}
