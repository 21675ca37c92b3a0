import Client
import Foundation
import Testing

extension Integration {
    /// The playground whose nodes are processes: what a person does to them really happens to processes, and none is left behind.
    @Suite(.serialized) struct ProcessPlaygroundTests {}
}

/// Processes as the system lists them.
enum SystemProcesses {
    /// Those that a playground in this directory started: their command line names it.
    static func ofPlayground(in directory: String) -> [String: pid_t] {
        var found: [String: pid_t] = [:]
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let pid = pid_t(entry) else { continue }
            let words = text("/proc/\(pid)/cmdline").split(separator: "\0").map(String.init)
            guard words.contains(where: { $0.hasPrefix(directory) }), let name = words.firstIndex(of: "--name"), words.count > name + 1 else { continue }
            found[words[name + 1]] = pid
        }
        return found
    }

    /// What a process has open, beyond the first three: as the links of /proc tell.
    static func openSockets(_ pid: pid_t) -> Set<String> {
        let directory = "/proc/\(pid)/fd"
        let files = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return Set(files.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: directory + "/" + $0) }.filter { $0.hasPrefix("socket:") })
    }

    /// R, S, T (stopped) ...; nil when there is no such process, or only its exit status.
    static func state(_ pid: pid_t) -> Character? {
        let state = text("/proc/\(pid)/stat").split(separator: ")").last?.dropFirst().first
        return state == "Z" ? nil : state
    }

    private static func text(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        return String(decoding: buffer[..<fread(&buffer, 1, buffer.count, file)], as: UTF8.self)
    }
}

extension PlaygroundConsole {
    /// etcdctl on one node.
    func etcdctlOf(_ node: String) throws -> Etcdctl { Etcdctl([endpoints[try #require(Int(node.dropFirst())) - 1]], scratch) }
    var processes: [String: pid_t] { SystemProcesses.ofPlayground(in: temporary) }

    /// While the console is looked at, since it only goes on when what it writes is read.
    func until(_ what: String, seconds: Double = 20, _ condition: () -> Bool) throws {
        try terminal.wait(what, seconds: seconds) { _ in condition() }
    }

    func select(_ node: String) throws {
        let number = try #require(Int(node.dropFirst()))
        terminal.send("g" + String(repeating: "j", count: number - 1))
        try terminal.wait("\(node) selected") { $0.text.contains("▸\(node)") }
    }

    func leader(otherThan node: String? = nil) throws -> String {
        try terminal.wait("a leader", seconds: 40) { $0.leaderRow != nil && $0.leaderRow != node }
        return try #require(terminal.screen.leaderRow)
    }
}

extension Integration.ProcessPlaygroundTests {
    /// Everything that a person can do to nodes, on either engine.
    private func aSession(_ engine: String, shows text: String) async throws {
        let console = try PlaygroundConsole(nodes: 3, more: ["--engine", engine], environment: EtcdTools.environment)
        let terminal = console.terminal
        let first = try console.leader()
        try terminal.wait("three of three, and the engine") { $0.text.contains("3/3") && $0.text.contains(text) }
        let before = console.processes
        #expect(before.keys.sorted() == ["n1", "n2", "n3"])

        // K: the process is gone, another leads.
        try console.select(first)
        let killed = try #require(before[first])
        terminal.send("K")
        try console.until("the end of the process") { SystemProcesses.state(killed) == nil }
        try terminal.wait("the death of \(first)") { $0.text.contains("\(first) killed by you (was leader)") }
        let second = try console.leader(otherThan: first)

        // R: another process on the same data.
        terminal.send("R")
        try terminal.wait("\(first) back", seconds: 30) { $0.text.contains("3/3") && $0.line(with: "▸\(first)")?.contains("follower") == true }
        let again = try #require(console.processes[first])
        #expect(again != killed)
        // A connection of the console that a node had too would not end when the console ends it.
        #expect(SystemProcesses.openSockets(again).isDisjoint(with: SystemProcesses.openSockets(terminal.pid)))

        // P: stopped by the system, and going on.
        terminal.send("P")
        try console.until("the stopped process") { SystemProcesses.state(again) == "T" }
        try terminal.wait("\(first) paused") { $0.line(with: "▸\(first)")?.contains("paused") == true }
        terminal.send("P")
        try console.until("the process going on") { SystemProcesses.state(again) != "T" }
        try terminal.wait("\(first) up") { $0.line(with: "▸\(first)")?.contains("follower") == true }

        // X: the leader hears nobody, so another leads.
        try console.select(second)
        terminal.send("X")
        try terminal.wait("\(second) cut off") { $0.text.contains("\(second) cut off") }
        let third = try console.leader(otherThan: second)
        try await (try console.etcdctlOf(third))("put", "while", "cut off")
        // And back: it follows, and has what it missed.
        terminal.send("X")
        try terminal.wait("\(second) follows", seconds: 30) { $0.line(with: "▸\(second)")?.contains("follower") == true }
        try await eventually("the write at \(second)") {
            terminal.pump(milliseconds: 20)
            return try await (try console.etcdctlOf(second))("get", "while", "--consistency=s", "--print-value-only") == "cut off\n"
        }

        // Killed by somebody else: that is told too, and why.
        let victim = try #require(console.processes[third])
        kill(victim, SIGKILL)
        try terminal.wait("the reason of the death") { $0.text.contains("killed by signal 9") }

        let all = console.processes
        terminal.send("q")
        try terminal.wait(for: "Quit?")
        terminal.send("y")
        try console.expectEnd(status: 0)
        #expect(all.values.allSatisfy { SystemProcesses.state($0) == nil }, "a node runs without its console")
    }

    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func ownNodesAsProcesses() async throws { try await aSession("process", shows: "processes") }
    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func realEtcdAsNodes() async throws { try await aSession("etcd", shows: "etcd 3.") }

    /// Also a node that is stopped, which could not even look at its input, and the directory.
    @Test(arguments: ["process", "etcd"]) func nothingOutlivesAKilledConsole(engine: String) async throws {
        guard engine == "process" || EtcdTools.isWanted else { return }
        let console = try PlaygroundConsole(nodes: 3, more: ["--engine", engine], environment: EtcdTools.environment)
        let leader = try console.leader()
        let nodes = console.processes
        #expect(nodes.count == 3)
        try console.select(leader)
        console.terminal.send("P")
        try console.until("the stopped leader") { nodes[leader].flatMap { SystemProcesses.state($0) } == "T" }
        console.terminal.signal(SIGKILL)
        #expect(try console.terminal.waitForExit() == 128 + SIGKILL)
        try await eventually("the end of the nodes: \(nodes.values.map { SystemProcesses.state($0) })", seconds: 1) {
            nodes.values.allSatisfy { SystemProcesses.state($0) == nil }
        }
        try await eventually("the end of the data") { console.dataDirectories.isEmpty }
        #expect(console.freePorts.count == 6)
    }

    @Test func dataOfProcessesAreKeptWhereAsked() async throws {
        let scratch = try Scratch()
        let port = try Ports.base(3)
        for start in 1...2 {
            let console = try PlaygroundConsole(nodes: 3, basePort: port, more: ["--engine", "process", "--data-dir", scratch.file("mine")])
            _ = try console.leader()
            let client = try EtcdClient(endpoints: console.endpoints)
            if start == 1 { try await client.put("kept", "yes") }
            #expect(try await client.get("kept")?.valueText == "yes")
            await client.close()
            console.terminal.signal(SIGTERM)
            try console.expectEnd(status: 128 + SIGTERM)
            #expect(SystemProcesses.ofPlayground(in: scratch.path).isEmpty)
        }
    }

    @Test func withoutEtcdItSaysHowToGetIt() throws {
        let terminal = try PseudoTerminal([quarterdeck, "playground", "--engine", "etcd"], environment: ["PATH": "/nowhere", "QUARTERDECK_ETCD_DIR": ""], columns: 400)
        #expect(try terminal.waitForExit() == 1)
        #expect(terminal.screen.text.contains("no etcd in PATH; install it"))
    }

    /// A node that cannot start is shown with what it said, and the others run.
    @Test func aNodeThatCannotStartSaysWhy() async throws {
        let scratch = try Scratch()
        let directory = scratch.file("mine")
        // Where its data should be there is a file.
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data("x".utf8).write(to: URL(fileURLWithPath: directory + "/n2"))
        let console = try PlaygroundConsole(nodes: 3, more: ["--engine", "process", "--data-dir", directory])
        let leader = try console.leader()
        #expect(leader != "n2")
        try console.terminal.wait("why n2 is down") { $0.text.contains("exit 1") && $0.line(with: "n2")?.contains("down") == true }
        console.terminal.signal(SIGTERM)
        #expect(try console.terminal.waitForExit() == 128 + SIGTERM)
    }

    /// What a console left that was killed with everything around it.
    @Test func theNextConsoleSweepsUp() throws {
        let console = try PlaygroundConsole(nodes: 1)
        _ = try console.leader()
        let stale = console.temporary + "/quarterdeck-aBcDeF", foreign = console.temporary + "/quarterdeck-zZzZzZ"
        for directory in [stale, foreign] { try FileManager.default.createDirectory(atPath: directory + "/n1", withIntermediateDirectories: true) }
        try Data().write(to: URL(fileURLWithPath: stale + "/owner.lock"))
        let scratch = console.scratch
        let next = try PseudoTerminal([quarterdeck, "playground", "--nodes", "1", "--base-port", "\(try Ports.base(1))"],
                                      environment: ["TMPDIR": console.temporary, "HOME": scratch.path])
        try next.wait("the sweep") { _ in !FileManager.default.fileExists(atPath: stale) }
        // Not ours to judge, and one that is in use.
        #expect(FileManager.default.fileExists(atPath: foreign))
        try next.wait("a leader", seconds: 30) { $0.leaderRow != nil }
        console.terminal.pump(milliseconds: 20)
        #expect(console.dataDirectories.count == 3)
        next.signal(SIGTERM)
        #expect(try next.waitForExit() == 128 + SIGTERM)
        try FileManager.default.removeItem(atPath: foreign)
        console.terminal.signal(SIGTERM)
        try console.expectEnd(status: 128 + SIGTERM)
    }
}
