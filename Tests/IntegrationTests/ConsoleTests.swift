import Client
import Foundation
import Processes
import Testing

extension Integration {
    /// The program as a person meets it: in a terminal, with keys and a screen.
    @Suite(.serialized) struct ConsoleTests {}
}

/// The console on a cluster that it starts itself, with a temporary directory of the test's own to look into.
struct PlaygroundConsole {
    let terminal: PseudoTerminal
    let modesBefore: String
    let basePort: Int
    let nodeCount: Int
    let temporary: String
    let scratch: Scratch

    init(nodes: Int, basePort givenPort: Int? = nil, more: [String] = [], environment: [String: String] = [:], columns: Int = 120, rows: Int = 36) throws {
        scratch = try Scratch()
        temporary = scratch.file("tmp")
        try FileManager.default.createDirectory(atPath: temporary, withIntermediateDirectories: true)
        basePort = try givenPort ?? Ports.base(nodes)
        nodeCount = nodes
        terminal = try PseudoTerminal([quarterdeck, "playground", "--nodes", "\(nodes)", "--base-port", "\(basePort)"] + more,
                                      environment: ["TMPDIR": temporary, "HOME": scratch.path].merging(environment) { $1 }, columns: columns, rows: rows)
        modesBefore = terminal.lineModes
    }

    var endpoints: [String] { (0..<nodeCount).map { "127.0.0.1:\(basePort + 10 * $0)" } }
    var etcdctl: Etcdctl { Etcdctl(endpoints, scratch) }
    var dataDirectories: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: temporary)) ?? []).filter { $0.hasPrefix("quarterdeck-") } }
    var freePorts: [Int] { (0..<nodeCount).flatMap { [basePort + 10 * $0, basePort + 10 * $0 + 1] }.filter { LoopbackPort.isFree($0) } }

    /// Waits until the console has ended, and looks at what it left.
    func expectEnd(status: Int32, _ location: SourceLocation = #_sourceLocation) throws {
        #expect(try terminal.waitForExit(seconds: 20) == status, sourceLocation: location)
        #expect(terminal.whatIsNotRestored(since: modesBefore) == nil, sourceLocation: location)
        #expect(dataDirectories == [], "the nodes' data are left behind", sourceLocation: location)
        #expect(freePorts.count == 2 * nodeCount, "ports are still taken", sourceLocation: location)
    }
}

extension VirtualScreen: CustomTestStringConvertible {
    var testDescription: String { text }
    func line(with text: String) -> String? { lines.first { $0.contains(text) } }
    /// Whether the cursor of a list stands on a row with this text.
    func isSelected(_ text: String) -> Bool { lines.contains { $0.contains("▸") && $0.contains(text) } }
    /// The row of the node table that leads: its name.
    var leaderRow: String? {
        line(with: "♛ LEADER").flatMap { $0.split(whereSeparator: { " ┃│▸".contains($0) }).first.map(String.init) }
    }
}

extension Integration.ConsoleTests {
    /// Selects a key through the command palette.
    private func goTo(_ key: String, value: String, _ terminal: PseudoTerminal) throws {
        terminal.send(":")
        try terminal.wait(for: "Command")
        terminal.send("go \(key)")
        try terminal.wait(for: "▸ go \(key)")
        terminal.send(.enter)
        try terminal.wait("\(key) selected and its value") { $0.isSelected(key) && $0.text.contains("─ \(key) ─") && $0.text.contains(value) }
    }

    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func aSessionFromTheFirstScreenToQuit() async throws {
        let console = try PlaygroundConsole(nodes: 3)
        let terminal = console.terminal
        let ctl = console.etcdctl

        // Three nodes elect a leader; the screen shows it.
        try terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil && $0.text.contains("3/3") }
        #expect(terminal.screen.modes.contains(1049))
        #expect(console.dataDirectories.count == 1)

        // A key put from outside appears while one looks.
        terminal.send("2")
        try terminal.wait(for: "[2 Keys]")
        try await ctl("put", "greeting", "hello")
        try terminal.wait("the new key") { $0.line(with: "greeting") != nil }
        terminal.send("g")
        try terminal.wait("the value of the selected key") { $0.isSelected("greeting") && $0.text.contains("hello") }
        try await ctl("put", "greeting", "hello again")
        try terminal.wait(for: "hello again")

        // Edited here, read back there.
        terminal.send("e")
        try terminal.wait(for: "Edit greeting")
        terminal.send(.end)
        terminal.send(", world")
        try terminal.wait(for: "hello again, world")
        terminal.send(.controlS)
        try terminal.wait(untilGone: "Edit greeting")
        #expect(try await ctl("get", "greeting", "--print-value-only") == "hello again, world\n")

        // A key made here, and deleted here.
        terminal.send("A")
        try terminal.wait(for: "Add")
        terminal.send("made/here")
        terminal.send(.enter)
        try terminal.wait(for: "Edit made/here")
        terminal.send("42")
        terminal.send(.controlS)
        try terminal.wait(untilGone: "Edit made/here")
        #expect(try await ctl("get", "made/here", "--print-value-only") == "42\n")

        // A concurrent change is shown, not overwritten.
        try await ctl("put", "contested", "first")
        try goTo("contested", value: "first", terminal)
        terminal.send("e")
        try terminal.wait(for: "Edit contested")
        terminal.send(.end)
        terminal.send(" of mine")
        try await ctl("put", "contested", "second")
        terminal.send(.controlS)
        try terminal.wait("the conflict") { $0.text.contains("second") && $0.text.contains("of mine") }
        #expect(try await ctl("get", "contested", "--print-value-only") == "second\n")
        terminal.send("t") // theirs
        try terminal.wait(untilGone: "of mine")

        // The leader is killed; another one leads, and it reads as one election.
        terminal.send("1")
        try terminal.wait("the overview") { $0.text.contains("[1 Overview]") && $0.leaderRow != nil }
        let leader = try #require(terminal.screen.leaderRow)
        let number = try #require(Int(leader.dropFirst()))
        terminal.send("g" + String(repeating: "j", count: number - 1))
        try terminal.wait("the leader selected") { $0.line(with: "♛ LEADER")?.contains("▸\(leader)") == true }
        terminal.send("K")
        try terminal.wait("the loss of \(leader)") { $0.text.contains("\(leader) killed by you (was leader)") && $0.line(with: "▸\(leader)")?.contains("down") == true }
        try terminal.wait("a new leader", seconds: 30) { $0.leaderRow.map { $0 != leader } ?? false }
        let heir = try #require(terminal.screen.leaderRow)
        try terminal.wait("the election in the events") { $0.text.contains("\(leader) → \(heir)") }
        try await ctl("put", "after", "the failover")
        terminal.send("R")
        try terminal.wait("\(leader) back", seconds: 30) { $0.text.contains("3/3") && $0.line(with: "▸\(leader)")?.contains("follower") == true }

        terminal.send("q")
        try terminal.wait(for: "Quit?")
        terminal.send("y")
        try console.expectEnd(status: 0)
    }

    @Test(arguments: [SIGTERM, SIGHUP, SIGINT]) func aSignalGivesTheTerminalBack(signal: Int32) throws {
        let console = try PlaygroundConsole(nodes: 1)
        try console.terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil }
        console.terminal.signal(signal)
        try console.expectEnd(status: 128 + signal)
    }

    @Test func aCrashGivesTheTerminalBack() throws {
        let console = try PlaygroundConsole(nodes: 1)
        try console.terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil }
        console.terminal.signal(SIGSEGV)
        #expect(try console.terminal.waitForExit() == 128 + SIGSEGV)
        #expect(console.terminal.whatIsNotRestored(since: console.modesBefore) == nil)
    }

    @Test func controlCAsksBeforeItQuits() throws {
        let console = try PlaygroundConsole(nodes: 1)
        try console.terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil }
        console.terminal.send(.controlC)
        try console.terminal.wait(for: "Quit?")
        console.terminal.send("n")
        try console.terminal.wait(untilGone: "Quit?")
        console.terminal.send(.controlC)
        try console.terminal.wait(for: "Quit?")
        console.terminal.send(.controlC)
        try console.expectEnd(status: 0)
    }

    @Test func aScreenTooSmallSaysSoAndComesBack() throws {
        let console = try PlaygroundConsole(nodes: 1)
        let terminal = console.terminal
        try terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil }
        terminal.resize(columns: 79, rows: 20)
        try terminal.wait(for: "Quarterdeck needs 80×24.")
        terminal.resize(columns: 80, rows: 24)
        try terminal.wait("the overview at 80x24") { $0.text.contains("♛ LEADER") && !$0.text.contains("needs") }
        terminal.resize(columns: 160, rows: 50)
        try terminal.wait("the overview at 160x50") { $0.leaderRow != nil && $0.lines[49].contains("help") }
        terminal.signal(SIGTERM)
        try console.expectEnd(status: 128 + SIGTERM)
    }

    @Test(arguments: ["dumb", ""]) func aTerminalThatCannotShowItGetsLines(name: String) throws {
        let console = try PlaygroundConsole(nodes: 1, environment: ["TERM": name])
        try console.terminal.wait("a leader, as text", seconds: 30) { $0.text.contains("leader n1") }
        #expect(!console.terminal.screen.modes.contains(1049))
        console.terminal.signal(SIGTERM)
        try console.expectEnd(status: 128 + SIGTERM)
    }

    @Test(arguments: ["xterm", "linux", "screen", "tmux-256color", "vt100", "xterm-direct", "no-such-terminal"]) func commonTerminalsShowIt(name: String) throws {
        let console = try PlaygroundConsole(nodes: 1, environment: ["TERM": name])
        try console.terminal.wait("a leader", seconds: 30) { $0.text.contains("LEADER") || $0.text.contains("leader n1") }
        console.terminal.signal(SIGTERM)
        #expect(try console.terminal.waitForExit(seconds: 20) == 128 + SIGTERM)
        #expect(console.terminal.lineModes == console.modesBefore)
        #expect(console.dataDirectories == [])
    }

    @Test func noColorMeansNoColor() throws {
        let console = try PlaygroundConsole(nodes: 1, environment: ["NO_COLOR": "1"])
        try console.terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil }
        let coloured = console.terminal.screen.cells.joined().filter { !$0.style.foreground.isEmpty || !$0.style.background.isEmpty }
        #expect(coloured.isEmpty)
        console.terminal.signal(SIGTERM)
        try console.expectEnd(status: 128 + SIGTERM)
    }

    @Test func dataInADirectoryOfOnesOwnIsKept() async throws {
        let scratch = try Scratch()
        let port = try Ports.base(1)
        for start in 1...2 {
            let console = try PlaygroundConsole(nodes: 1, basePort: port, more: ["--data-dir", scratch.file("mine")])
            try console.terminal.wait("a leader", seconds: 30) { $0.leaderRow != nil }
            let client = try EtcdClient(endpoints: console.endpoints)
            if start == 1 { try await client.put("kept", "yes") }
            #expect(try await client.get("kept")?.valueText == "yes")
            await client.close()
            console.terminal.send("q")
            try console.terminal.wait(for: "Quit?")
            console.terminal.send("y")
            try console.expectEnd(status: 0)
        }
    }

    @Test func aTakenPortIsOneLineAndTheTerminalStaysAsItWas() async throws {
        try await withServers { cluster in
            let terminal = try PseudoTerminal([quarterdeck, "playground", "--nodes", "1", "--base-port", "\(cluster.nodes[0].clientPort)"])
            let before = terminal.lineModes
            #expect(try terminal.waitForExit() == 1)
            #expect(terminal.screen.text.contains("quarterdeck: 127.0.0.1:\(cluster.nodes[0].clientPort) is already in use"))
            #expect(terminal.whatIsNotRestored(since: before) == nil)
        }
    }

    // MARK: Attached

    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func realEtcdCanBeBrowsedAndEdited() async throws {
        try await withRealEtcd { endpoint, scratch in
            let ctl = Etcdctl([endpoint], scratch)
            try await ctl("put", "app/config", "{\"debug\":true}")
            try await ctl("put", "plain", "text")
            let terminal = try PseudoTerminal([quarterdeck, "attach", endpoint], environment: ["HOME": scratch.path])
            let before = terminal.lineModes
            try terminal.wait("etcd's member", seconds: 30) { $0.leaderRow == "n1" && $0.text.contains("3.5") }
            // Nodes that others started cannot be killed from here.
            terminal.send("K")
            try terminal.wait(for: "only nodes that this console started")
            terminal.send("2")
            try terminal.wait("the keys") { $0.line(with: "app/") != nil && $0.line(with: "plain") != nil }
            try goTo("plain", value: "text", terminal)
            try await ctl("put", "later", "arrived")
            try terminal.wait("the key that arrived") { $0.line(with: "later") != nil }
            terminal.send("e")
            try terminal.wait(for: "Edit plain")
            terminal.send(.end)
            terminal.send(" more")
            terminal.send(.controlS)
            // On a cluster of others every write is asked about.
            // One condition: a frame may arrive in pieces.
            try terminal.wait("the question with the change") {
                $0.text.contains("Write this change?") && $0.text.contains("- text") && $0.text.contains("+ text more")
            }
            terminal.send("y")
            try terminal.wait(untilGone: "Edit plain")
            #expect(try await ctl("get", "plain", "--print-value-only") == "text more\n")

            // A stream of what happens.
            terminal.send("3")
            try terminal.wait(for: "[3 Watch]")
            terminal.send("a")
            try terminal.wait("the question what to watch, with the selected key") { $0.text.contains("↵ · Esc") && $0.text.contains("plain") }
            terminal.send("\u{15}stream/") // ^U empties the field
            terminal.send(.enter)
            try terminal.wait("the watch") { $0.text.contains("stream/") }
            try await eventually("an event in the stream\n\(terminal.screen.text)") {
                try await ctl("put", "stream/1", "seen-value")
                for _ in 0..<20 where !terminal.screen.text.contains("seen-value") { terminal.pump(milliseconds: 20) }
                return terminal.screen.text.contains("seen-value")
            }
            terminal.signal(SIGTERM)
            #expect(try terminal.waitForExit() == 128 + SIGTERM)
            #expect(terminal.whatIsNotRestored(since: before) == nil)
        }
    }

    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func readOnlyWritesNothing() async throws {
        try await withServers { cluster in
            let ctl = cluster.etcdctl
            try await ctl("put", "plain", "text")
            let terminal = try PseudoTerminal([quarterdeck, "attach", "--read-only", "--endpoints", cluster.endpoints[0]], environment: ["HOME": cluster.scratch.path])
            let before = terminal.lineModes
            try terminal.wait("the member", seconds: 30) { $0.leaderRow == "n1" }
            terminal.send("2")
            try terminal.wait("the key") { $0.line(with: "plain") != nil }
            try goTo("plain", value: "text", terminal)
            for capital in ["D", "A", "R"] {
                terminal.send(capital)
                try terminal.wait("refusal of \(capital)") { $0.text.contains("read-only: ") }
            }
            terminal.send("e")
            try terminal.wait("the value to look at, or a refusal") { $0.text.contains("Edit plain") || $0.text.contains("read-only: ") }
            terminal.send("changed")
            terminal.send(.controlS)
            try terminal.wait("refusal to write") { $0.text.contains("read-only: ") }
            terminal.signal(SIGTERM)
            #expect(try terminal.waitForExit() == 128 + SIGTERM)
            #expect(terminal.whatIsNotRestored(since: before) == nil)
            #expect(try await ctl.json("get", "", "--prefix")["header"]["revision"].number == 2, "something was written")
        }
    }

    @Test func nobodyThereIsSaidAndDoesNotHang() throws {
        let scratch = try Scratch()
        let port = try Ports.free()[0]
        let terminal = try PseudoTerminal([quarterdeck, "attach", "127.0.0.1:\(port)"], environment: ["HOME": scratch.path])
        let before = terminal.lineModes
        try terminal.wait("that nobody answers", seconds: 30) { $0.text.contains("127.0.0.1:\(port)") && ($0.text.contains("no endpoint") || $0.text.contains("refused") || $0.text.contains("answers")) }
        terminal.send("q")
        try terminal.wait("the question, or the end") { _ in true }
        terminal.send("y")
        #expect(try terminal.waitForExit() == 0)
        #expect(terminal.whatIsNotRestored(since: before) == nil)
    }
}
