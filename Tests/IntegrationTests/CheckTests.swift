import Base
import Client
import Foundation
import Testing

extension Integration {
    /// `quarterdeck check` as a process, on what real processes leave.
    @Suite(.serialized) struct CheckTests {
        private func check(_ directory: String, _ more: [String] = [], in scratch: Scratch) async throws -> (status: Int32, output: String, errors: String) {
            let process = try ChildProcess([quarterdeck, "check", directory] + more, in: scratch)
            let status = try await process.exit()
            return (status, process.output, process.errors)
        }

        @Test func aNodeThatWasKilledUnderLoadIsSoundAndAFlippedByteIsFound() async throws {
            try await withServers { cluster in
                let node = cluster.nodes[0]
                let client = cluster.client
                let writers = Task {
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        for writer in 0..<8 {
                            group.addTask {
                                for n in 0..<100_000 { try await client.put("key \(writer) \(n)", "a value worth keeping \(n)") }
                            }
                        }
                        try await group.waitForAll()
                    }
                }
                try await eventually("some writes") { try await cluster.client.range(RangeQuery(.single(Key("x")))).header.revision > Revision(500) }
                let running = try await check(node.dataDirectory, in: cluster.scratch)
                #expect(running.status == 2 && running.errors.contains("in use by a running node"), "\(running)")
                try await node.kill()
                writers.cancel()
                _ = try? await writers.value

                let sound = try await check(node.dataDirectory, in: cluster.scratch)
                #expect(sound.status == 0 && sound.output.contains("is sound.") && sound.errors == "", "\(sound)")
                let json = try await check(node.dataDirectory, ["--json"], in: cluster.scratch)
                let fields = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
                #expect(json.status == 0 && fields["sound"] as? Bool == true && fields["revision"] as? Int ?? 0 > 0)

                let log = node.dataDirectory + "/member/log"
                let segment = log + "/" + (try #require(try FileManager.default.contentsOfDirectory(atPath: log).sorted().first))
                let file = try FileHandle(forUpdating: URL(fileURLWithPath: segment))
                try file.seek(toOffset: 200)
                let byte = try #require(try file.read(upToCount: 1)?.first)
                try file.seek(toOffset: 200)
                try file.write(contentsOf: Data([byte ^ 1]))
                try file.close()
                let damaged = try await check(node.dataDirectory, in: cluster.scratch)
                #expect(damaged.status == 1 && damaged.output.contains("DAMAGED: 1 problem") && damaged.output.contains("at offset")
                    && damaged.output.contains("What to do: Remove this member"), "\(damaged)")
            }
        }

        @Test func whatCannotBeCheckedIsSaidInOneLine() async throws {
            let scratch = try Scratch()
            let missing = try await check(scratch.file("nowhere"), in: scratch)
            #expect(missing.status == 2 && missing.output == "" && missing.errors == "quarterdeck: \(scratch.file("nowhere")) does not exist\n")
        }

        @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func aRealEtcdsDataAreRefused() async throws {
            try await withRealEtcd { _, scratch in
                let result = try await check(scratch.file("etcd"), in: scratch)
                #expect(result.status == 2 && result.errors.contains("data of a real etcd member"), "\(result)")
            }
        }
    }
}
