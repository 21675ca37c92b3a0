import Base
import Foundation
import RawHTTP2
import Testing

extension Integration {
    /// How real etcd and our server deal with clients that ping too much, or are gone, seen frame by frame; and what ours does when descriptors end.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct LimitsTests {
        private static let watch = "/etcdserverpb.Watch/Watch", put = "/etcdserverpb.KV/Put", lock = "/v3lockpb.Lock/Lock"

        private static func fields(_ fields: (UInt32, String)..., lease: Int64? = nil) -> [UInt8] {
            var writer = ByteWriter()
            for (number, text) in fields { writer.writeField(number, Array(text.utf8)) }
            if let lease { writer.writeField(2, lease) }
            return writer.bytes
        }

        private static func peer(_ port: Int) throws -> RawPeer {
            let peer = try RawPeer(port: port)
            peer.send(RawFrame.preface)
            #expect(peer.read { $0.frames.contains { $0.kind == .settings && $0.flags == RawFrame.ack } })
            return peer
        }

        /// Both servers, each with the same flags.
        private static func onBoth<T: Equatable>(_ extra: [String] = [], _ body: @escaping (_ port: Int, _ etcdctl: Etcdctl) async throws -> T) async throws -> (theirs: T, ours: T) {
            var theirs: T?
            try await withRealEtcd(extra: extra) { endpoint, scratch in
                theirs = try await body(try #require(Int(endpoint.split(separator: ":")[1])), Etcdctl([endpoint], scratch))
            }
            var ours: T?
            try await withServers(extra: extra) { cluster in ours = try await body(cluster.nodes[0].clientPort, cluster.etcdctl) }
            return (try #require(theirs), try #require(ours))
        }

        // MARK: Pings

        private enum Step { case ping, put, openWatch, closeWatch }

        /// How many pings were answered, and what came then. The last answer and the end may come apart, and the next ping be on its way: it is not answered.
        private static func play(_ steps: [Step], _ port: Int) throws -> String {
            let peer = try peer(port)
            func answered(_ peer: RawPeer) -> Int { peer.frames.count { $0.kind == .ping && $0.flags == RawFrame.ack } }
            func isOver(_ peer: RawPeer) -> Bool { peer.isClosed || peer.frames.contains { $0.kind == .goAway } }
            var (stream, pings, watch) = (Int32(1), 0, Int32(0))
            for step in steps where !isOver(peer) {
                switch step {
                case .ping:
                    pings += 1
                    peer.send([.ping()])
                    _ = peer.read { isOver($0) || answered($0) == pings }
                case .put:
                    peer.send([.headers(stream, path: put), .message(stream, fields((1, "k"), (2, "v")), ends: true)])
                    #expect(peer.read { peer in isOver(peer) || peer.frames.contains { $0.stream == stream && $0.kind == .headers && $0.flags & RawFrame.endStream != 0 } })
                    stream += 2
                case .openWatch:
                    watch = stream
                    // Asks nothing, so that no answer makes a ping free.
                    peer.send([.headers(stream, path: Self.watch)])
                    stream += 2
                case .closeWatch: peer.send([.reset(watch)])
                }
            }
            peer.read(waiting: 100)
            guard isOver(peer) else { return "\(answered(peer)) pings answered, goes on" }
            let isClosed = peer.readToEnd()
            let end = peer.frames.last { $0.kind == .goAway }
            return "\(answered(peer)) pings answered, GOAWAY \(end?.goAwayCode ?? 0) \(end?.debug ?? ""), closed: \(isClosed)"
        }

        @Test func bothCountPingsTheSameWay() async throws {
            let pings = [Step](repeating: .ping, count: 12)
            let scripts: [[Step]] = [
                pings, [.openWatch] + pings, [.put] + pings, [.ping, .ping, .ping, .put] + pings, [.openWatch, .ping, .closeWatch] + pings, [.put, .openWatch] + pings,
                (0..<12).flatMap { _ in [.put, .ping] as [Step] }, (0..<8).flatMap { _ in [.put, .ping, .ping, .ping] as [Step] }, (0..<4).flatMap { _ in [.put, .ping, .ping, .ping, .ping] as [Step] },
            ]
            // (No two pings come within a nanosecond, so only those without a stream count then.)
            for extra in [[], ["--grpc-keepalive-min-time", "1ns"], ["--grpc-keepalive-min-time", "0"]] {
                let (theirs, ours) = try await Self.onBoth(extra) { port, _ in try scripts.map { try Self.play($0, port) } }
                for (number, pair) in zip(theirs, ours).enumerated() { #expect(pair.0 == pair.1, "\(extra) \(scripts[number])") }
                #expect(theirs.contains { $0.contains("too_many_pings") } && theirs.contains { !$0.contains("too_many_pings") })
            }
        }

        @Test func bothAskWhoIsSilentAndReleaseWhatItHeld() async throws {
            let (theirs, ours) = try await Self.onBoth(["--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "1s"]) { port, etcdctl in
                try await etcdctl("put", "L/0", "somebody has it")
                let lease = try #require(Int64(try await etcdctl("lease", "grant", "600").split(separator: " ")[1], radix: 16))
                let waiter = try Self.peer(port)
                waiter.send([.headers(1, path: Self.lock), .message(1, Self.fields((1, "L"), lease: lease), ends: true)])
                try await eventually("two keys") { try await etcdctl.json("get", "L/", "--prefix", "--keys-only")["count"].number == 2 }
                // It answers nothing, as a machine without power.
                let isClosed = waiter.readToEnd(seconds: 30)
                try await eventually("its place in the queue given up") { try await etcdctl("get", "L/", "--prefix", "--keys-only").split(separator: "\n") == ["L/0"] }
                return [isClosed, waiter.frames.contains { $0.kind == .ping && $0.flags == 0 }]
            }
            #expect(theirs == [true, true] && ours == theirs)
        }

        /// etcd 3.5.1 has no such flag; later ones leave it to gRPC, which refuses the stream and keeps the connection.
        @Test func moreStreamsThanToldAreRefused() async throws {
            try await withServers(extra: ["--max-concurrent-streams", "2"]) { cluster in
                let peer = try Self.peer(cluster.nodes[0].clientPort)
                #expect(peer.frames.first { $0.kind == .settings }?.setting(3) == 2)
                peer.send((0..<3).map { .headers(Int32(1 + 2 * $0), path: Self.watch) })
                #expect(peer.read { $0.frames.contains { $0.kind == .reset && $0.stream == 5 && $0.code == 7 } })
                peer.send([.reset(1), .headers(7, path: Self.put), .message(7, Self.fields((1, "k"), (2, "v")), ends: true)])
                #expect(peer.read { $0.frames.contains { $0.stream == 7 && $0.flags & RawFrame.endStream != 0 } })
                #expect(!peer.frames.contains { $0.kind == .goAway })
                // Clients that honour the limit notice nothing of it.
                #expect(try await cluster.etcdctl("get", "k", "--print-value-only") == "v\n")
            }
            try await withServers { cluster in
                let peer = try Self.peer(cluster.nodes[0].clientPort)
                #expect(peer.frames.first { $0.kind == .settings }?.setting(3) == 16_384)
            }
        }

        #if os(Linux)
        private static func cpuSeconds(_ pid: pid_t) throws -> Double {
            let text = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
            let fields = text[text.index(after: try #require(text.lastIndex(of: ")")))...].split(separator: " ")
            return (Double(fields[11])! + Double(fields[12])!) / Double(sysconf(Int32(_SC_CLK_TCK)))
        }

        @Test func whenDescriptorsEndTheServerWaitsAndComesBack() async throws {
            let scratch = try Scratch()
            let ports = try Ports.free(2)
            let node = ServeNode(name: "n1", clientPort: ports[0], peerPort: ports[1], initialCluster: "n1=http://127.0.0.1:\(ports[1])", in: scratch)
            let process = try ChildProcess(["/bin/sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\"", quarterdeck] + node.arguments, in: scratch)
            let etcdctl = Etcdctl([node.endpointText], scratch)
            try await eventually("a server that serves\n\(process.errors)") { try await etcdctl.run(["put", "k", "v"]).status == 0 }
            // Clients get half of them, and whoever comes then is turned away.
            var clients: [RawPeer] = []
            for _ in 0..<100 { clients.append(try Self.peer(ports[0])) }
            #expect(try RawPeer(port: ports[0]).readToEnd())
            // Nobody counts those of the peer port: they take all that is left, and more wait.
            var others: [RawPeer] = []
            for _ in 0..<120 { others.append(try RawPeer(port: ports[1])) }
            let descriptors = "/proc/\(process.pid)/fd"
            try await eventually("all descriptors taken") { try FileManager.default.contentsOfDirectory(atPath: descriptors).count >= 199 }
            let before = try Self.cpuSeconds(process.pid)
            try await Task.sleep(for: .seconds(1))
            let used = try Self.cpuSeconds(process.pid) - before
            #expect(used < 0.5, "of a second; the rest waited")
            // Who is there is served all the while.
            clients[0].send([.headers(1, path: Self.put), .message(1, Self.fields((1, "k"), (2, "w")), ends: true)])
            #expect(clients[0].read { $0.frames.contains { $0.stream == 1 && $0.flags & RawFrame.endStream != 0 } })
            clients = []
            others = []
            try await eventually("served again\n\(process.errors)") { try await etcdctl.run(["get", "k", "--print-value-only"]).output == "w\n" }
            #expect(process.status == nil && process.errors.contains("no file descriptors left"))
            try await process.killNow()
        }
        #endif
    }
}
