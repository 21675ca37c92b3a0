import Foundation
import Testing

extension Integration {
    /// Client libraries that others wrote, in Python, do the same on real etcd and on ours: a script for each in Tests/Clients.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted && ThirdPartyClients.isWanted, EtcdTools.advice)) struct ThirdPartyClientsTests {
        @Test(arguments: ThirdPartyClients.allCases) func theyCannotTellTheDifference(_ client: ThirdPartyClients) async throws {
            let compared = try await expectSameOnBoth { subject in
                var transcript = Transcript()
                for line in try await client.run(on: subject.endpoint, in: subject.scratch).split(separator: "\n") { transcript.add("line", String(line)) }
                return transcript
            }
            #expect(compared >= 8)
        }
    }
}

/// Where Tests/run installs them: QUARTERDECK_CLIENTS_DIR.
enum ThirdPartyClients: String, CaseIterable, Sendable {
    case etcd3, aetcd, etcd3gw
    case etcdClient = "etcd_client"

    private static let directory = ProcessInfo.processInfo.environment["QUARTERDECK_CLIENTS_DIR"]
    static let isWanted = directory != nil || ProcessInfo.processInfo.environment["CI"].map { !$0.isEmpty } ?? false

    /// What its script printed; its failure is an error.
    func run(on endpoint: String, in scratch: Scratch) async throws -> String {
        guard let directory = Self.directory else { throw Late(description: "QUARTERDECK_CLIENTS_DIR is not set: Tests/run installs the libraries") }
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Clients/\(rawValue)_script.py").path
        let parts = endpoint.replacingOccurrences(of: "http://", with: "").split(separator: ":")
        let process = try ChildProcess(["\(directory)/\(rawValue)/bin/python", script, String(parts[0]), String(parts[1])], in: scratch)
        let status = try await process.exit(seconds: 90)
        guard status == 0 else { throw Late(description: "\(rawValue) on \(endpoint) ended with \(status):\n\(process.output)\n\(process.errors)") }
        return process.output
    }
}
