import Base
import Client
import Foundation
import Testing

/// The contract against real etcds. QUARTERDECK_TEST_ENDPOINTS (joined by commas) runs it against those servers instead.
@Suite(.serialized, .enabled(if: !RealEtcd.Release.wanted.isEmpty || RealEtcd.given != nil)) struct RealEtcdTests {
    private func withCluster(_ release: RealEtcd.Release, _ body: ([String]) async throws -> Void) async throws {
        if let given = RealEtcd.given { return try await body(given) }
        let ports = try await freePorts()
        let etcd = try RealEtcd(release, clientPort: ports.0, peerPort: ports.1)
        defer { etcd.stop() }
        try await waitUntilServing(etcd.endpoint)
        try await body([etcd.endpoint])
    }

    /// Ports that were free a moment ago.
    private func freePorts() async throws -> (Int, Int) {
        let servers = (ScriptedServer(), ScriptedServer())
        try await servers.0.start()
        try await servers.1.start()
        try await servers.0.stop()
        try await servers.1.stop()
        return (servers.0.port, servers.1.port)
    }

    private func waitUntilServing(_ endpoint: String) async throws {
        let client = try EtcdClient(endpoints: [endpoint])
        _ = try await client.get("x", options: CallOptions(timeout: .seconds(20)))
        await client.close()
    }

    @Test(arguments: RealEtcd.given == nil ? RealEtcd.Release.wanted : [.v3_5]) func allCases(_ release: RealEtcd.Release) async throws {
        try await withCluster(release) { endpoints in
            for test in ContractCase.all {
                do {
                    try await test.run(endpoints)
                } catch {
                    Issue.record("\(test.name): \(error)")
                }
            }
            try await ContractCase.compaction.run(endpoints)
            try await ContractCase.authentication.run(endpoints)
        }
    }

    @Test(arguments: RealEtcd.given == nil ? RealEtcd.Release.wanted : [.v3_5]) func etcdDoesNotTellWhatItsConsensusDoes(_ release: RealEtcd.Release) async throws {
        try await withCluster(release) { endpoints in
            let client = try EtcdClient(endpoints: endpoints)
            let endpoint = client.configuration.endpoints[0]
            let error = await failure { for try await _ in client.observe(endpoint) {} } as? EtcdError
            #expect(error?.isUnimplemented == true, "\(String(describing: error))")
            await client.close()
        }
    }

    @Test(arguments: RealEtcd.Release.wanted) func watchesAndElectionsSurviveARestartOfTheServer(_ release: RealEtcd.Release) async throws {
        let ports = try await freePorts()
        let first = try RealEtcd(release, clientPort: ports.0, peerPort: ports.1)
        try await waitUntilServing(first.endpoint)
        let client = try EtcdClient(endpoints: [first.endpoint])
        let watch = client.watch(prefix: "r/")
        _ = try await watch.started()
        try await client.put("r/1", "a")
        var iterator = watch.makeAsyncIterator()
        #expect(try await iterator.next()?.events.first?.kv.keyText == "r/1")
        let won = try await client.campaign(Array("e".utf8), value: Array("before".utf8), lease: try await client.grantLease(ttlSeconds: 600).id)
        var leaders = client.observe(election: Array("e".utf8)).makeAsyncIterator()
        #expect(try await leaders.next()?.valueText == "before")
        try first.restart()
        try await client.put("r/2", "b", options: CallOptions(timeout: .seconds(20)))
        let batch = try await within(.seconds(20)) { [iterator] in
            var iterator = iterator
            return try await iterator.next()
        }
        #expect(batch?.events.first?.kv.keyText == "r/2")
        try await client.proclaim(Array("after".utf8), as: won)
        let leader = try await within(.seconds(20)) { [leaders] in
            var leaders = leaders
            return try await leaders.next()
        }
        #expect(leader?.valueText == "after", "the one from before is not told again")
        await client.close()
        first.stop()
    }

    @Test(.enabled(if: TestCertificates.canMake), arguments: RealEtcd.Release.wanted) func tlsWithClientCertificates(_ release: RealEtcd.Release) async throws {
        let certificates = try TestCertificates()
        defer { certificates.remove() }
        let ports = try await freePorts()
        let etcd = try RealEtcd(release, clientPort: ports.0, peerPort: ports.1, tls: (certificates.certificate, certificates.key, certificates.authority))
        defer { etcd.stop() }
        var configuration = try ClientConfiguration(etcd.endpoint)
        configuration.tls = .init(caFile: certificates.authority, certificateFile: certificates.certificate, keyFile: certificates.key)
        let client = try EtcdClient(configuration: configuration)
        try await client.put("tls", "yes", options: CallOptions(timeout: .seconds(20)))
        #expect(try await client.get("tls")?.valueText == "yes")
        await client.close()

        // Nobody vouches for the server.
        configuration.tls = .init(certificateFile: certificates.certificate, keyFile: certificates.key)
        let distrustful = try EtcdClient(configuration: configuration)
        let endpoint = configuration.endpoints[0]
        #expect(await failure { try await distrustful.status(of: endpoint) } is EtcdError)
        await distrustful.close()

        configuration.tls?.skipsVerification = true
        let careless = try EtcdClient(configuration: configuration)
        #expect(try await careless.get("tls")?.valueText == "yes")
        await careless.close()

        // The server wants a certificate.
        configuration.tls = .init(caFile: certificates.authority)
        let anonymous = try EtcdClient(configuration: configuration)
        #expect(await failure { try await anonymous.status(of: endpoint) } is EtcdError)
        await anonymous.close()

        #expect(throws: EtcdError.self) {
            var broken = configuration
            broken.tls = .init(caFile: "/nowhere.pem")
            _ = try EtcdClient(configuration: broken)
        }
    }
}
