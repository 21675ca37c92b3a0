import Base
import Client
import Foundation
import Testing

extension Integration {
    /// How nodes find their options and each other.
    @Suite(.serialized) struct StartTests {}
}

extension Integration.StartTests {
    private func node(_ name: String, _ client: Int, _ peer: Int, _ more: [String], in scratch: Scratch) throws -> ChildProcess {
        try ChildProcess([quarterdeck, "serve", "--name", name, "--data-dir", scratch.file("data-\(name)"), "--listen-client-urls", "http://127.0.0.1:\(client)",
                          "--advertise-client-urls", "http://127.0.0.1:\(client)", "--listen-peer-urls", "http://127.0.0.1:\(peer)",
                          "--initial-advertise-peer-urls", "http://127.0.0.1:\(peer)"] + more, in: scratch)
    }

    @Test func firstMembersFindEachOtherByDiscovery() async throws {
        try await withServers { registry in
            let scratch = try Scratch()
            let ports = try Ports.free(8)
            let flags = ["--discovery-token", "T", "--discovery-endpoints", registry.endpoints[0]]
            let early = try node("early", ports[6], ports[7], flags, in: scratch)
            #expect(try await early.exit() != 0 && early.errors.contains("discovery: size key not found"))
            _ = try await registry.client.put(Array("/_etcd/registry/T/_config/size".utf8), Array("3".utf8))
            var processes: [ChildProcess] = []
            for number in 0..<3 { processes.append(try node("n\(number)", ports[2 * number], ports[2 * number + 1], flags, in: scratch)) }
            let client = try EtcdClient(endpoints: ["127.0.0.1:\(ports[0])"])
            try await eventually("a cluster of three\n\(processes.map(\.errors))") {
                (try? await client.members(options: CallOptions(timeout: .seconds(1))).members.filter { !$0.name.isEmpty }.count) == 3
            }
            let keys = try await registry.client.range(RangeQuery(.prefix(Key("/_etcd/registry/T/members/")))).kvs
            #expect(Set(keys.map(\.valueText)) == Set((0..<3).map { "n\($0)=http://127.0.0.1:\(ports[2 * $0 + 1])" }))
            let members = try await client.members().members
            #expect(Set(keys.map { $0.keyText.split(separator: "/").last.map(String.init) }) == Set(members.map { String($0.id.rawValue, radix: 16) }))
            let late = try node("late", ports[6], ports[7], flags, in: scratch)
            #expect(try await late.exit() != 0 && late.errors.contains("discovery: cluster is full"))
            // With data it does not ask again.
            _ = try await registry.client.delete(DeleteCommand(.prefix(Key("/_etcd/registry/"))))
            try await processes[2].killNow()
            processes[2] = try node("n2", ports[4], ports[5], flags, in: scratch)
            let back = try EtcdClient(endpoints: ["127.0.0.1:\(ports[4])"])
            _ = try await back.put(Array("x".utf8), Array("y".utf8), options: CallOptions(timeout: .seconds(30)))
            await back.close()
            await client.close()
            for process in processes { try await process.killNow() }
        }
    }

    @Test func aFileIsAllThatANodeNeeds() async throws {
        let scratch = try Scratch()
        let ports = try Ports.free(2)
        let path = scratch.file("etcd.conf.yml")
        try Data("""
            name: filed
            data-dir: \(scratch.file("data"))
            listen-client-urls: http://127.0.0.1:\(ports[0])
            advertise-client-urls: http://127.0.0.1:\(ports[0])
            listen-peer-urls: http://127.0.0.1:\(ports[1])
            initial-advertise-peer-urls: http://127.0.0.1:\(ports[1])
            initial-cluster: filed=http://127.0.0.1:\(ports[1])
            auto-compaction-retention: 1s
            """.utf8).write(to: URL(fileURLWithPath: path))
        let process = try ChildProcess([quarterdeck, "serve", "--config-file", path, "--name", "ignored"], in: scratch)
        let client = try EtcdClient(endpoints: ["127.0.0.1:\(ports[0])"])
        for value in 0..<5 { _ = try await client.put(Array("k".utf8), Array("\(value)".utf8), options: CallOptions(timeout: .seconds(30))) }
        #expect(try await client.members().members.map(\.name) == ["filed"])
        #expect(process.errors.contains("will be ignored if provided"))
        // And the history goes by itself.
        try await eventually("compaction\n\(process.errors)") {
            var query = RangeQuery(.single(Key("k")))
            query.revision = Revision(3)
            do {
                _ = try await client.range(query)
                return false
            } catch let error as EtcdError where error.isService(.compacted) { return true }
        }
        await client.close()
        try await process.killNow()
    }
}
