import Foundation
import Testing

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

extension Integration {
    /// Every scenario that is shipped, played by the program without a screen.
    @Suite(.serialized) struct ScenarioTests {
        private struct Played {
            var status: Int32
            var report: JSON
            var errors: String
        }

        private func start(_ arguments: [String], in scratch: Scratch) throws -> ChildProcess {
            try ChildProcess([quarterdeck, "scenario"] + arguments, environment: ["XDG_CONFIG_HOME": scratch.file("config")], directory: root, in: scratch)
        }

        private func play(_ scenario: String, _ arguments: [String] = [], seconds: Double = 150) async throws -> Played {
            let scratch = try Scratch()
            let process = try start([scenario, "--json", "--base-port", "\(Ports.base(7))"] + arguments, in: scratch)
            let status = try await process.exit(seconds: seconds)
            let report = try? JSON(process.output)
            return Played(status: status, report: try report ?? JSON("{}"), errors: process.errors)
        }

        private func expectPassed(_ played: Played) {
            #expect(played.status == 0 && played.report["outcome"].text == "passed", "\(played.report["failure"].text ?? "") \(played.errors)")
            #expect(played.report["violations"].count == 0 && played.report["canary"]["lost"].number == 0)
            #expect(played.report["canary"]["acknowledged"].number ?? 0 > 0)
        }

        static let shipped = ((try? FileManager.default.contentsOfDirectory(atPath: root + "/scenarios")) ?? []).filter { $0.hasSuffix(".yaml") }.map { String($0.dropLast(5)) }.sorted()

        @Test(arguments: shipped) func shippedScenarioPasses(_ name: String) async throws {
            let played = try await play(name)
            expectPassed(played)
            // What was asked for is what was played.
            #expect(played.report["scenario"].text == name && played.report["engine"].text == "embedded")
        }

        @Test func nodesMayBeProcesses() async throws {
            let played = try await play("leader-killed-five-times", ["--engine", "process"])
            expectPassed(played)
            #expect(played.report["engine"].text == "processes" && played.report["elections"].count >= 5)
        }

        @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func nodesMayBeRealEtcd() async throws {
            let scratch = try Scratch()
            let path = try EtcdTools.path("etcd")
            let process = try ChildProcess([quarterdeck, "scenario", "majority-lost", "--json", "--engine", "etcd", "--base-port", "\(Ports.base(7))"],
                                           environment: ["QUARTERDECK_ETCD_DIR": (path as NSString).deletingLastPathComponent], directory: root, in: scratch)
            let status = try await process.exit(seconds: 150)
            let report = try JSON(process.output.isEmpty ? "{}" : process.output)
            expectPassed(Played(status: status, report: report, errors: process.errors))
            #expect(report["engine"].text?.hasPrefix("etcd 3.") == true)
        }

        private func file(_ text: String, in scratch: Scratch) throws -> String {
            let path = scratch.file("own.yaml")
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
            return path
        }

        @Test func aFailedExpectationIsStatus1() async throws {
            let scratch = try Scratch()
            let path = try file("""
                title: Expects what is not so
                nodes: 1
                steps:
                  - wait: {for: writes succeed, within: 10s}
                  - expect: {running nodes: 3, writes succeed: true}
                  - put: /a b
                """, in: scratch)
            let played = try await play(path)
            #expect(played.status == 1 && played.report["outcome"].text == "failed")
            #expect(played.report["failure"].text == "line 5: expected running nodes: 3, found 1")
            #expect(played.report["steps"].count == 3 && played.report["steps"][1]["expectations"][1]["held"].number == 1)
            #expect(played.errors.contains("own: line 5: expected running nodes: 3, found 1"))
        }

        @Test func badFilesAreStatus2() async throws {
            let scratch = try Scratch()
            let path = try file("title: t\nsteps:\n  - fault: burn leader\n", in: scratch)
            let bad = try await play(path)
            #expect(bad.status == 2 && bad.errors.contains("own.yaml:3: step 1: fault: unknown fault \"burn\""))
            let unknown = try await play("nonesuch")
            #expect(unknown.status == 2 && unknown.errors.contains("rolling-restart"))
            let impossible = try await play("full-disk", ["--engine", "etcd"])
            #expect(EtcdTools.directory == nil || impossible.status == 2 || impossible.errors.contains("no etcd in PATH"), "\(impossible)")
        }

        @Test func theListNamesThemAll() async throws {
            let scratch = try Scratch()
            let process = try start(["--list"], in: scratch)
            #expect(try await process.exit() == 0)
            #expect(process.output.split(separator: "\n").compactMap { $0.split(separator: " ").first.map(String.init) } == Self.shipped)
        }

        /// In a console: it is told among the events, and what it broke is mended.
        @Test func onTheScreenItIsToldAndMends() throws {
            let scratch = try Scratch()
            let path = try file("title: A pause\nsteps:\n  - fault: pause any follower\n  - wait: {for: writes succeed, within: 10s}\n", in: scratch)
            let terminal = try PseudoTerminal([quarterdeck, "scenario", path, "--screen", "--base-port", "\(Ports.base(3))"], environment: ["TMPDIR": scratch.path, "HOME": scratch.path], columns: 160, rows: 50)
            try terminal.wait("its start", seconds: 30) { $0.text.contains("scenario own starts: A pause") }
            try terminal.wait("its end, all nodes up", seconds: 30) { $0.text.contains("scenario own passed in") && $0.text.contains("3/3") }
            terminal.signal(SIGTERM)
            #expect(try terminal.waitForExit(seconds: 20) == 128 + SIGTERM)
            #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).filter { $0.hasPrefix("quarterdeck-") } == [])
        }

        @Test func anInterruptMendsAndEnds() async throws {
            let scratch = try Scratch()
            let path = try file("title: t\nsteps:\n  - fault: pause leader\n  - hold: 5m\n", in: scratch)
            let process = try start([path, "--engine", "process", "--base-port", "\(Ports.base(3))"], in: scratch)
            try await eventually("the fault: \(process.output)") { process.output.contains("fault: n") }
            process.signal(SIGINT)
            #expect(try await process.exit(seconds: 20) == 130)
            #expect(process.output.contains("stopped in "))
        }
    }
}
