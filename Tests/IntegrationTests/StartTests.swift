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

    @Test func firstMembersFindEachOtherInTheDNS() async throws {
        let scratch = try Scratch()
        let ports = try Ports.free(6)
        let server = try NameServer(["_etcd-server._tcp.example.test": [ports[1], ports[3]].map { (host: "localhost", port: $0) }])
        let flags = ["--discovery-srv", "example.test", "--discovery-srv-resolver", "127.0.0.1:\(server.port)"]
        let stranger = try node("stranger", ports[4], ports[5], flags, in: scratch)
        #expect(try await stranger.exit() != 0 && stranger.errors.contains("cannot find local etcd member \"stranger\" in SRV records"), "\(stranger.errors)")
        var processes = try (0..<2).map { try node("n\($0)", ports[2 * $0], ports[2 * $0 + 1], flags, in: scratch) }
        let client = try EtcdClient(endpoints: ["127.0.0.1:\(ports[2])"])
        try await eventually("a cluster of two\n\(processes.map(\.errors))") {
            (try? await client.members(options: CallOptions(timeout: .seconds(1))).members.filter { !$0.name.isEmpty }.count) == 2
        }
        #expect(Set(try await client.members().members.flatMap(\.peerURLs)) == [ports[1], ports[3]].reduce(into: []) { $0.insert("http://localhost:\($1)") })
        // It starts again, also without the DNS.
        try await processes[1].killNow()
        processes[1] = try node("n1", ports[2], ports[3], flags, in: scratch)
        _ = try await client.put(Array("x".utf8), Array("y".utf8), options: CallOptions(timeout: .seconds(30)))
        await client.close()
        for process in processes { try await process.killNow() }
        server.stop()
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

/// Answers questions for SRV records over UDP on a thread of its own.
private final class NameServer: @unchecked Sendable {
    // @unchecked: nothing changes but the socket's end.
    private let socket: Int32
    let port: Int
    private let records: [String: [(host: String, port: Int)]]

    init(_ records: [String: [(host: String, port: Int)]]) throws {
        self.records = records
        #if canImport(Darwin)
        socket = Foundation.socket(AF_INET, SOCK_DGRAM, 0)
        #else
        socket = Foundation.socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        #endif
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = socket
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0 }
        }
        guard bound else { throw Late(description: "no port for a name server") }
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread { self.serve() }
    }

    func stop() { shutdown(socket, Int32(SHUT_RDWR)) }

    private func serve() {
        var question = [UInt8](repeating: 0, count: 512)
        while true {
            var from = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let count = withUnsafeMutablePointer(to: &from) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(socket, &question, question.count, 0, $0, &length) }
            }
            guard count > 12 else {
                close(socket)
                return
            }
            let answer = answer(to: Array(question.prefix(count)))
            _ = withUnsafePointer(to: &from) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { sendto(socket, answer, answer.count, 0, $0, length) }
            }
        }
    }

    /// The question repeated, and the records; without any the name does not exist.
    private func answer(to question: [UInt8]) -> [UInt8] {
        var labels: [String] = []
        var at = 12
        while at < question.count, question[at] != 0 {
            labels.append(String(decoding: question[(at + 1)...(at + Int(question[at]))], as: UTF8.self))
            at += Int(question[at]) + 1
        }
        let found = records[labels.joined(separator: ".")] ?? []
        func short(_ number: Int) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 255)] }
        var answer = Array(question[0..<2])
        for number in [found.isEmpty ? 0x8183 : 0x8180, 1, found.count, 0, 0] { answer += short(number) }
        answer += question[12...(at + 4)]
        for record in found {
            var host: [UInt8] = []
            for label in record.host.split(separator: ".") {
                host.append(UInt8(label.utf8.count))
                host.append(contentsOf: label.utf8)
            }
            host.append(0)
            // The question's name, SRV, IN, a second; priority, weight, port.
            answer += [0xc0, 12]
            for number in [33, 1, 0, 1, 6 + host.count, 0, 0, record.port] { answer += short(number) }
            answer += host
        }
        return answer
    }
}
