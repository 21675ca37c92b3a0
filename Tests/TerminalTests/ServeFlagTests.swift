import Base
import Foundation
import Server
import Testing
@testable import quarterdeck

@Suite struct ServeFlagTests {
    private func options(_ arguments: [String], _ environment: [String: String] = [:]) throws -> ServeOptions {
        try #require(try ServeCommand.command(of: ["serve"] + arguments)!.options(environment: environment))
    }
    private func refusal(_ arguments: [String], _ environment: [String: String] = [:]) throws -> String {
        let failure = try #require(throws: CommandFailure.self) { try options(arguments, environment) }
        #expect(!failure.description.contains("\n") && failure.status != 0)
        return failure.description
    }

    // MARK: The table

    @Test func everyRowHasADefaultOfItsOwnForm() {
        for flag in ServeFlags.groups.flatMap(\.flags) where !flag.standard.isEmpty {
            #expect(flag.objection(to: flag.standard) == nil, "\(flag.name)")
            if case .absent(let harmless, _) = flag.standing { #expect(harmless.contains(flag.standard), "\(flag.name)") }
        }
        // Names differ, and so do their variables; the precondition of `byName` is met.
        #expect(ServeFlags.byVariable.count == ServeFlags.byName.count && ServeFlags.byName.count > 120)
        // Numbers, times and switches are asked for without a nil.
        for flag in ServeFlags.groups.flatMap(\.flags) where flag.isTruth || flag.isTime { #expect(!flag.standard.isEmpty, "\(flag.name)") }
    }

    /// The same value for one setting, by each of the three ways.
    @Test func flagVariableAndFileSayTheSame() throws {
        let path = NSTemporaryDirectory() + "qd-flags-\(UUID().uuidString).yaml"
        defer { try? FileManager.default.removeItem(atPath: path) }
        for (name, value, holds) in [
            ("wal-dir", "/tmp/w", { $0.logDirectory == "/tmp/w" }), ("pre-vote", "false", { !$0.preVotes }), ("log-level", "dpanic", { $0.log.level == .critical }),
            ("log-outputs", "stdout,/tmp/l", { $0.log.outputs == [.standardOutput, .file("/tmp/l")] }), ("socket-reuse-port", "true", { $0.sharesPorts }),
            ("experimental-watch-progress-notify-interval", "5s", { $0.watchProgressInterval == .seconds(5) }), ("unsafe-no-fsync", "true", { !$0.syncsDisk }),
            ("watch-progress-notify-interval", "7s", { $0.watchProgressInterval == .seconds(7) }), ("quota-backend-bytes", "-1", { $0.quotaBackendBytes == -1 }),
            ("experimental-corrupt-check-time", "1m", { $0.stateCheckInterval == .seconds(60) }), ("experimental-initial-corrupt-check", "1", { $0.checksFilesFirst }),
            ("feature-gates", "InitialCorruptCheck=true", { $0.checksFilesFirst }), ("experimental-enable-lease-checkpoint", "false", { !$0.checkpointsLeases }),
            ("experimental-warning-apply-duration", "50ms", { $0.slowApply == .milliseconds(50) }), ("initial-election-tick-advance", "f", { !$0.advancesFirstElection }),
            ("experimental-memory-mlock", "true", { $0.locksMemory }),
        ] as [(String, String, (ServeOptions) -> Bool)] {
            #expect(holds(try options(["--\(name)", value])), "--\(name)")
            #expect(holds(try options(["-\(name)=\(value)"])), "-\(name)=")
            #expect(holds(try options([], [ServeFlag.variable(name): value])), "\(ServeFlag.variable(name))")
            try Data("\(name): \(value)\n".utf8).write(to: URL(fileURLWithPath: path))
            #expect(holds(try options(["--config-file", path])), "\(name):")
            #expect(!holds(try options([])), "the default of \(name)")
        }
    }

    @Test func aFileCountsTimesInNanosecondsAndHasSections() throws {
        let path = NSTemporaryDirectory() + "qd-flags-\(UUID().uuidString).yaml"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data("""
            experimental-watch-progress-notify-interval: 5000000000
            experimental-warning-apply-duration: 1s
            log-outputs: [stderr, /tmp/x]
            initial-election-tick-advance: false
            socket-options:
              reuse-port: true
            discovery-config:
              token: x
            peer-transport-security:
              skip-client-san-verification: true
            """.utf8).write(to: URL(fileURLWithPath: path))
        let options = try options([], ["ETCD_CONFIG_FILE": path])
        #expect(options.watchProgressInterval == .seconds(5) && options.slowApply == .seconds(1) && options.sharesPorts && !options.advancesFirstElection)
        #expect(options.log.outputs == [.standardError, .file("/tmp/x")] && options.tls.peer.skipsAddressCheck)
        #expect(options.warnings.filter { $0.contains("discovery-config") }.count == 1, "\(options.warnings)")
    }

    // MARK: The command line

    @Test func switchesStandForTrueAndTakeTheirValueEitherWay() throws {
        #expect(try options(["--unsafe-no-fsync", "--name", "x"]).syncsDisk == false)
        #expect(try options(["--pre-vote=false"]).preVotes == false && options(["--pre-vote", "false"]).preVotes == false && options(["--pre-vote"]).preVotes)
        #expect(try options(["--force-new-cluster"]).forcesNewCluster && !options(["--force-new-cluster=false"]).forcesNewCluster)
        // The last of several counts, and an empty one is none.
        #expect(try options(["--name", "a", "--name=b"]).name == "b" && options(["--name="]).name == "default")
        #expect(try refusal(["--max-wals="]) == "--max-wals needs a value" && refusal(["--experimental-corrupt-check-time", ""]).hasPrefix("--experimental-corrupt-check-time "))
    }

    @Test(arguments: [
        (["--bogus"], "--bogus"), (["stray"], "'stray' is not a valid flag"), (["--name", "x", "stray"], "'stray' is not a valid flag"), (["--name"], "--name needs a value"),
        (["--"], "'--' is not a valid flag"), (["--pre-vote=maybe"], "--pre-vote maybe: expected true or false"), (["--max-wals", "many"], "--max-wals many"),
        (["--experimental-corrupt-check-time", "soon"], "--experimental-corrupt-check-time soon: expected a time"),
        (["--backend-bbolt-freelist-type", "list"], "expected map or array"), (["--logger", "capnslog"], "--logger capnslog: expected zap"),
        (["--log-outputs", "default,stderr"], "multi logoutput for \"default\""), (["--enable-log-rotation"], "--enable-log-rotation requires a single file"),
        (["--enable-log-rotation", "--log-outputs", "a,b"], "--enable-log-rotation requires a single file"),
        (["--enable-log-rotation", "--log-outputs", "a", "--log-rotation-config-json", "{\"compress\": true}"], "compress"),
        (["--enable-log-rotation", "--log-outputs", "a", "--log-rotation-config-json", "{\"maxsize\": -1}"], "maxsize"),
        (["--enable-log-rotation", "--log-outputs", "a", "--log-rotation-config-json", "100"], "--log-rotation-config-json"),
        (["--experimental-enable-lease-checkpoint=false", "--experimental-enable-lease-checkpoint-persist"], "requires experimental-enable-lease-checkpoint"),
        (["--feature-gates", "Sails=true"], "no such feature"), (["--feature-gates", "InitialCorruptCheck"], "Name=true or Name=false"),
        (["--feature-gates", "InitialCorruptCheck=true", "--experimental-initial-corrupt-check"], "says the same"),
    ])
    func whatMakesNoSenseIsNamed(_ arguments: [String], _ mention: String) throws {
        let line = try refusal(arguments)
        #expect(line.contains(mention), "\(line)")
    }

    // MARK: What does nothing, and what is refused

    @Test func whatDoesNothingIsToldOnceAndOnlyWhenAsked() throws {
        let told = try options(["--max-wals", "3", "--enable-pprof", "--experimental-enable-distributed-tracing=false", "--metrics", "extensive"],
                               ["ETCD_BACKEND_BATCH_LIMIT": "100", "ETCD_ENABLE_V2": "false"]).warnings
        #expect(told.count == 4 && ["--max-wals", "--enable-pprof", "--backend-batch-limit", "--metrics extensive"].allSatisfy { name in
            told.filter { $0.hasPrefix(name) && $0.contains(" has no effect: ") }.count == 1
        }, "\(told)")
        #expect(try options(["--proxy", "off", "--discovery="]).warnings.isEmpty)
        #expect(try options(["--feature-gates", "StopGRPCServiceOnDefrag=true,CompactHashCheck=false"]).warnings.count == 1)
        #expect(try options(["--unsafe-no-fsync"]).warnings.contains { $0.contains("power cut") })
    }

    @Test(arguments: [["--proxy", "on"], ["--proxy=readonly"], ["--enable-v2"], ["--enable-v2=true"], ["--experimental-enable-v2v3", "/v2"], ["--discovery", "https://discovery.etcd.io/x"]])
    func whatWouldBeMissedIsRefused(_ arguments: [String]) throws {
        let name = String(arguments[0].prefix { $0 != "=" })
        #expect(try refusal(arguments).hasPrefix(name + " "))
        let value = arguments.count == 2 ? arguments[1] : arguments[0].contains("=") ? String(arguments[0].drop { $0 != "=" }.dropFirst()) : "true"
        #expect(try refusal([], [ServeFlag.variable(String(name.dropFirst(2))): value]).hasPrefix(name + " "))
    }

    @Test func theShortestProgressIntervalIsATenthOfASecond() throws {
        let options = try options(["--experimental-watch-progress-notify-interval", "1ms"])
        #expect(options.watchProgressInterval == .milliseconds(100) && options.warnings.contains { $0.contains("taken for 100ms") })
    }

    // MARK: Help

    @Test func theHelpFitsATerminalAndTellsOfEveryFlag() throws {
        let lines = ServeHelp.text.split(separator: "\n", omittingEmptySubsequences: false)
        for line in lines { #expect(line.count <= 80 || !line.hasPrefix("    "), "\(line)") }
        for line in lines { #expect(line.count <= 80, "\(line)") }
        for flag in ServeFlags.groups.flatMap(\.flags) {
            let place = lines.firstIndex { $0.split(separator: " ").first == "--\(flag.name)" }
            #expect((place != nil) == !flag.isHidden, "\(flag.name)")
            guard let place, case .idle = flag.standing else { continue }
            #expect(lines[place + 1].hasPrefix("    No effect: "), "\(flag.name)")
        }
        for words in [["--help"], ["-h"], ["--name", "x", "--help"], ["--version"]] {
            #expect(try ServeCommand.command(of: ["serve"] + words)!.options(environment: [:]) == nil)
        }
        #expect(ServeCommand.command(of: ["help", "serve"])?.words == ["--help"] && ServeCommand.command(of: ["attach"]) == nil)
    }
}

@Suite struct LogOutputTests {
    private func scratch() throws -> String {
        let path = NSTemporaryDirectory() + "qd-log-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }
    private func files(_ directory: String) throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: directory).sorted() }

    @Test func aFullFileMakesRoomAndTheNewestOldOnesStay() throws {
        let directory = try scratch()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var rotation = try LogRotation(json: "{\"maxsize\": 1, \"maxbackups\": 2}")
        #expect(rotation.maxBytes == 1 << 20)
        rotation.maxBytes = 100
        let path = directory + "/node.log"
        let file = try LogFile(path, rotation: rotation)
        let start = Date(timeIntervalSince1970: 1_800_000_000)
        for number in 0..<10 {
            let line = Array("line \(number) ".utf8) + [UInt8](repeating: 46, count: 50) + [10]
            #expect(line.withUnsafeBytes { file.write($0, at: start + Double(number)) } == line.count)
        }
        let names = try files(directory)
        #expect(names.count == 3 && names.last == "node.log" && names.dropLast().allSatisfy { $0.hasPrefix("node-2027-01-15T08-00-0") && $0.hasSuffix(".log") }, "\(names)")
        // One line a file, and the last is in the current one.
        #expect(try String(contentsOfFile: path, encoding: .utf8).hasPrefix("line 9 "))
        #expect(try String(contentsOfFile: directory + "/" + names[1], encoding: .utf8).hasPrefix("line 8 "))
    }

    @Test func oldFilesGoByTheirAge() {
        let rotation = LogRotation.aged(days: 2)
        let now = Date(timeIntervalSince1970: 1_800_000_000)
        let backups = [0.5, 1.9, 2.1, 30].map { (path: "\($0)", time: now - $0 * 86_400) }
        #expect(LogFile.surplus(of: backups, rotation, at: now) == ["2.1", "30.0"])
        #expect(LogFile.surplus(of: backups, .aged(days: 0), at: now).isEmpty)
    }

    @Test func aFileThatIsThereGoesOnAndOthersNamesAreLeftAlone() throws {
        let directory = try scratch()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/etcd"
        for name in ["etcd", "etcd-notes", "etcd-2027-01-15T08-00-00.000", "other-2027-01-15T08-00-00.000"] { try Data("old\n".utf8).write(to: URL(fileURLWithPath: directory + "/" + name)) }
        let rotation = try LogRotation(json: "{}")
        #expect(LogFile.backups(of: path, rotation).map(\.path) == [directory + "/etcd-2027-01-15T08-00-00.000"])
        let file = try LogFile(path, rotation: rotation)
        _ = Array("new\n".utf8).withUnsafeBytes { file.write($0) }
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "old\nnew\n")
        #expect(throws: FileFailure.self) { try LogFile(directory + "/missing/etcd") }
    }

    @Test func everyOutputGetsTheLine() throws {
        let directory = try scratch()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var settings = ServeSettings()
        settings.set("log-outputs", "\(directory)/a,\(directory)/b,\(directory)/a")
        let sinks = try LogOptions(&settings).open()
        #expect(sinks.count == 2)
        for sink in sinks {
            sink.take("{}\n")
            sink.flush(withinSeconds: 10)
        }
        #expect(try String(contentsOfFile: directory + "/a", encoding: .utf8) == "{}\n" && String(contentsOfFile: directory + "/b", encoding: .utf8) == "{}\n")
    }
}

extension LogRotation {
    fileprivate static func aged(days: Int) -> LogRotation { try! LogRotation(json: "{\"maxage\": \(days)}") }
}
