import Base
import Client
import Foundation
import Processes
import TestCertificates
import Testing

extension Integration {
    /// A command line that was written for etcd starts our node, and its flags do what they say.
    @Suite(.serialized) struct FlagTests {}
}

/// The flags that a real etcd's help names, with the defaults that it prints.
private struct EtcdHelp {
    var flags: [(name: String, standard: String)] = []

    init(_ text: String) {
        for line in text.split(separator: "\n") {
            guard line.hasPrefix("  --"), let name = line.dropFirst(4).split(separator: " ").first.map(String.init) else { continue }
            var standard = line.dropFirst(4 + name.count).trimmingCharacters(in: .whitespaces)
            if standard.hasPrefix("'"), standard.hasSuffix("'"), standard.count > 1 { standard = String(standard.dropFirst().dropLast()) }
            // Of two its help does not tell the default.
            if standard.isEmpty { standard = ["backend-batch-interval": "0s", "experimental-bootstrap-defrag-threshold-megabytes": "0"][name] ?? "" }
            flags.append((name, standard))
        }
    }
}

extension Integration.FlagTests {
    private func refusal(_ arguments: [String], in scratch: Scratch) async throws -> String? {
        // Nothing is founded: the directory is a file, which is met after every flag is read.
        let process = try ChildProcess([quarterdeck, "serve", "--data-dir", scratch.file("file")] + arguments, in: scratch)
        #expect(try await process.exit() != 0)
        let line = process.errors.split(separator: "\n").first { $0.hasPrefix("quarterdeck: ") }.map(String.init) ?? process.errors
        return line.contains(scratch.file("file")) ? nil : line
    }

    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func everyFlagOfARealEtcdIsTakenOrRefusedByItsName() async throws {
        let scratch = try Scratch()
        try Data().write(to: URL(fileURLWithPath: scratch.file("file")))
        let etcd = try ChildProcess([EtcdTools.path("etcd"), "--help"], in: scratch)
        #expect(try await etcd.exit() == 0)
        let help = EtcdHelp(etcd.output + etcd.errors)
        #expect(help.flags.count > 80 && help.flags.contains { $0.name == "wal-dir" } && help.flags.contains { $0.name == "unsafe-no-fsync" }, "\(help.flags.map(\.name))")
        var taken: [String] = []
        for (name, standard) in help.flags where name != "data-dir" {
            var arguments = ["--\(name)=\(standard)"]
            // Two that etcd itself wants together.
            if name == "listen-client-urls" { arguments += ["--advertise-client-urls", "http://localhost:2379"] }
            let line = try await refusal(arguments, in: scratch)
            if let line {
                #expect(line.contains("--\(name)") && !line.contains("unknown"), "\(name): \(line)")
            } else {
                taken.append(name)
            }
        }
        #expect(Set(taken) == Set(help.flags.map(\.name)).subtracting(["data-dir"]), "refused with etcd's default: \(Set(help.flags.map(\.name)).subtracting(taken))")
        // And all at once, as a script may write them out.
        let all = help.flags.filter { $0.name != "data-dir" }.map { "--\($0.name)=\($0.standard)" }
        let together = try await refusal(all, in: scratch)
        #expect(together == nil, "\(together ?? "")")
        // What is unknown to both still is.
        #expect(try await refusal(["--frobnicate=1"], in: scratch)?.contains("unknown flag --frobnicate") == true)
    }

    /// All that kubeadm 1.29 to 1.33 writes into the static pod's manifest, but for the addresses.
    @Test(.enabled(if: EtcdTools.isWanted, EtcdTools.advice)) func theCommandLineOfKubeadmStartsANode() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let server = try authority.issue("server", commonName: "node1"), peer = try authority.issue("peer", commonName: "node1")
        let health = try authority.issue("healthcheck-client", commonName: "kube-etcd-healthcheck-client")
        let ports = try Ports.free(4)
        let client = "https://127.0.0.1:\(ports[0])", peerURL = "https://127.0.0.1:\(ports[1])", metrics = "http://127.0.0.1:\(ports[2])"
        let process = try ChildProcess([
            quarterdeck, "serve", "--advertise-client-urls=\(client)", "--cert-file=\(server.certificate)", "--client-cert-auth=true", "--data-dir=\(scratch.file("etcd"))",
            "--experimental-initial-corrupt-check=true", "--experimental-watch-progress-notify-interval=5s", "--initial-advertise-peer-urls=\(peerURL)",
            "--initial-cluster=node1=\(peerURL)", "--key-file=\(server.key)", "--listen-client-urls=https://127.0.0.1:\(ports[3]),\(client)", "--listen-metrics-urls=\(metrics)",
            "--listen-peer-urls=\(peerURL)", "--name=node1", "--peer-cert-file=\(peer.certificate)", "--peer-client-cert-auth=true", "--peer-key-file=\(peer.key)",
            "--peer-trusted-ca-file=\(authority.file)", "--snapshot-count=10000", "--trusted-ca-file=\(authority.file)",
        ], in: scratch)
        try await eventually("a listener\n\(process.errors)") { LoopbackPort.isListening(ports[2]) && LoopbackPort.isListening(ports[0]) && LoopbackPort.isListening(ports[3]) }
        let flags = ["--cacert", authority.file, "--cert", health.certificate, "--key", health.key]
        for endpoint in [client, "https://127.0.0.1:\(ports[3])"] {
            let ctl = Etcdctl([endpoint], scratch)
            let put = try await ctl.run(flags + ["put", "/registry/x", "y"])
            #expect(put.status == 0, "\(put.errors)\n\(process.errors)")
            let got = try await ctl.run(flags + ["get", "/registry/x", "--print-value-only"])
            #expect(got.output == "y\n", "\(got.errors)")
        }
        #expect(try await Etcdctl([client], scratch).run(["--cacert", authority.file, "get", "x"]).status != 0)
        // The manifest's probes.
        for path in ["/health?exclude=NOSPACE&serializable=true", "/health?serializable=false", "/livez", "/readyz"] {
            let probe = try ChildProcess(["curl", "-sS", "--fail", "--max-time", "10", metrics + path], in: scratch)
            #expect(try await probe.exit() == 0, "\(path): \(probe.errors)")
        }
        // Nothing in it is without effect; the client without a certificate was turned away.
        let warnings = process.errors.split(separator: "\n").filter { $0.contains("\"level\":\"warn\"") && !$0.contains("rejected connection") }
        #expect(warnings.isEmpty, "\(warnings)")
        process.signal(SIGTERM)
        #expect(try await process.exit() == 0)
    }

    /// A line of etcd's own Procfile, and an environment as Bitnami's image has it.
    @Test func aProcfileAndAnEnvironmentOfAnImageStartANode() async throws {
        let scratch = try Scratch()
        let ports = try Ports.free(4)
        let client = "http://127.0.0.1:\(ports[0])", peer = "http://127.0.0.1:\(ports[1])"
        let procfile = try ChildProcess([
            quarterdeck, "serve", "--name", "infra1", "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster-token", "etcd-cluster-1", "--initial-cluster", "infra1=\(peer)", "--initial-cluster-state", "new",
            "--enable-pprof", "--logger=zap", "--log-outputs=stderr",
        ], directory: scratch.path, in: scratch)
        let bitnami = [
            "ETCD_NAME": "etcd-0", "ETCD_DATA_DIR": scratch.file("bitnami"), "ETCD_LISTEN_CLIENT_URLS": "http://127.0.0.1:\(ports[2])",
            "ETCD_ADVERTISE_CLIENT_URLS": "http://127.0.0.1:\(ports[2])", "ETCD_LISTEN_PEER_URLS": "http://127.0.0.1:\(ports[3])",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": "http://127.0.0.1:\(ports[3])", "ETCD_INITIAL_CLUSTER": "etcd-0=http://127.0.0.1:\(ports[3])",
            "ETCD_INITIAL_CLUSTER_TOKEN": "etcd-cluster-k8s", "ETCD_INITIAL_CLUSTER_STATE": "new", "ETCD_LOG_LEVEL": "info", "ETCD_AUTH_TOKEN": "simple",
            "ETCD_ON_K8S": "yes", "ETCD_START_FROM_SNAPSHOT": "no", "ETCD_DISASTER_RECOVERY": "no", "ETCD_SNAPSHOT_COUNT": "", "ETCD_TRUSTED_CA_FILE": "",
        ]
        let image = try ChildProcess([quarterdeck, "serve"], environment: bitnami, in: scratch)
        for (port, name, process) in [(ports[0], "infra1", procfile), (ports[2], "etcd-0", image)] {
            let connection = try EtcdClient(endpoints: ["127.0.0.1:\(port)"])
            try await connection.put("k", "v", options: CallOptions(timeout: .seconds(30)))
            #expect(try await connection.members().members.map(\.name) == [name])
            await connection.close()
            process.signal(SIGTERM)
            #expect(try await process.exit() == 0)
        }
        #expect(procfile.errors.contains("--enable-pprof has no effect: ") && FileManager.default.fileExists(atPath: scratch.file("infra1.etcd/member")))
        #expect(["ETCD_ON_K8S", "ETCD_START_FROM_SNAPSHOT", "ETCD_DISASTER_RECOVERY"].allSatisfy { image.errors.contains("unrecognized environment variable \($0)") })
    }

    @Test func slowApplyingIsToldAndCounted() async throws {
        for (limit, isSlow) in [("1ns", true), ("1h", false)] {
            try await withServers(extra: ["--experimental-warning-apply-duration", limit]) { cluster in
                for number in 0..<20 { try await cluster.client.put("k/\(number)", "v") }
                let page = try ChildProcess(["curl", "-sS", "--max-time", "10", "http://\(cluster.nodes[0].endpointText)/metrics"], in: cluster.scratch)
                #expect(try await page.exit() == 0)
                let line = try #require(page.output.split(separator: "\n").first { $0.hasPrefix("etcd_server_slow_apply_total ") })
                #expect((line != "etcd_server_slow_apply_total 0") == isSlow, "\(line)")
                #expect(cluster.logs.contains("applying took too long") == isSlow)
            }
        }
    }

    @Test func firstElectionsAreAsTheFlagsSay() async throws {
        for (flags, waits, asksFirst) in [([], false, true), (["--initial-election-tick-advance=false"], true, true), (["--pre-vote=false"], false, false)] as [([String], Bool, Bool)] {
            try await withServers(extra: flags + ["--heartbeat-interval", "20", "--election-timeout", "100"]) { cluster in
                #expect(cluster.logs.contains("no leader heard of") == waits, "\(flags): \(cluster.logs)")
                #expect(cluster.logs.contains("asking for pre-votes") == asksFirst, "\(flags): \(cluster.logs)")
            }
        }
    }

    @Test func aPortIsSharedOnlyWithWhoAllowsIt() async throws {
        #if canImport(Darwin)
        let descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #else
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #endif
        defer { close(descriptor) }
        var yes: Int32 = 1
        #expect(setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &yes, socklen_t(MemoryLayout<Int32>.size)) == 0)
        let scratch = try Scratch()
        let ports = try Ports.free(2)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(ports[0]).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let isBound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
        }
        try #require(isBound && listen(descriptor, 1) == 0)
        let node = ServeNode(name: "n1", clientPort: ports[0], peerPort: ports[1], initialCluster: "n1=http://127.0.0.1:\(ports[1])", in: scratch)
        try node.start()
        #expect(try await #require(node.process).exit() == 1 && node.log.contains("127.0.0.1:\(ports[0]) is already in use"), "\(node.log)")
        node.extra = ["--socket-reuse-port"]
        try node.start()
        try await eventually("a start\n\(node.log)") { node.log.contains("\"msg\":\"serving\"") }
        try await node.kill()
    }

    @Test func quietWatchesHearOfProgressAsOftenAsTheFlagSays() async throws {
        try await withServers(extra: ["--experimental-watch-progress-notify-interval", "200ms"]) { cluster in
            let put = try await cluster.client.put("k", "v")
            var query = WatchQuery(.single(Key("nobody")))
            query.wantsProgress = true
            let client = cluster.client
            let watch = client.watch(query)
            // Ends the watch, should nothing come.
            let limit = Task {
                try await Task.sleep(for: .seconds(20))
                await client.close()
            }
            var reports = 0
            for try await batch in watch where batch.isProgress {
                #expect(batch.header.revision >= put.header.revision)
                reports += 1
                if reports == 3 { break }
            }
            limit.cancel()
            #expect(reports == 3)
        }
    }

    @Test func theLogGoesWhereItsFlagsSay() async throws {
        let scratch = try Scratch()
        let file = scratch.file("node.log")
        let ports = try Ports.free(2)
        let node = ServeNode(name: "n1", clientPort: ports[0], peerPort: ports[1], initialCluster: "n1=http://127.0.0.1:\(ports[1])",
                             extra: ["--log-outputs", "stdout,\(file)", "--logger", "zap", "--max-wals", "7"], in: scratch)
        try node.start()
        let process = try #require(node.process)
        try await eventually("the log\n\(process.output)\(process.errors)") { process.output.contains("\"msg\":\"serving\"") }
        process.signal(SIGTERM)
        #expect(try await process.exit() == 0)
        let written = try String(contentsOfFile: file, encoding: .utf8)
        #expect(written == process.output && written.contains("\"msg\":\"stopped\"") && process.errors.isEmpty)
        #expect(written.split(separator: "\n").filter { $0.contains("--max-wals has no effect: ") && $0.contains("\"level\":\"warn\"") }.count == 1)
        // At fatal there is nothing to say in a life without trouble; and a file goes on.
        node.extra = ["--log-outputs", file, "--log-level", "fatal", "--max-wals", "7"]
        try node.start()
        let quiet = try #require(node.process)
        try await eventually("a listener") { LoopbackPort.isListening(ports[0]) }
        quiet.signal(SIGTERM)
        #expect(try await quiet.exit() == 0)
        #expect(try String(contentsOfFile: file, encoding: .utf8) == written)
        node.extra = ["--log-outputs", scratch.file("nowhere/node.log")]
        try node.start()
        #expect(try await #require(node.process).exit() == 1)
        #expect(node.log.contains("the log file cannot be opened") && node.log.contains("nowhere/node.log: no such file or directory"), "\(node.log)")
    }

    @Test func aNodeWithoutFsyncSurvivesItsOwnEndAndWarns() async throws {
        try await withServers(extra: ["--unsafe-no-fsync", "--pre-vote=false", "--experimental-enable-lease-checkpoint=false", "--socket-reuse-port"]) { cluster in
            let node = cluster.nodes[0]
            for number in 0..<100 { try await cluster.client.put("k/\(number)", "v") }
            #expect(node.log.contains("--unsafe-no-fsync: nothing waits for the disk"))
            try await node.kill()
            try node.start()
            try await cluster.waitForLeader()
            #expect(try await contents(cluster.client, "k/").count == 100)
        }
    }

    /// Where the kernel or the limits do not allow it, the node says so instead of going on without.
    @Test func memoryIsLockedOrTheNodeDoesNotStart() async throws {
        let scratch = try Scratch()
        let ports = try Ports.free(2)
        let node = ServeNode(name: "n1", clientPort: ports[0], peerPort: ports[1], initialCluster: "n1=http://127.0.0.1:\(ports[1])", extra: ["--experimental-memory-mlock"], in: scratch)
        try node.start()
        let process = try #require(node.process)
        try await eventually("a node or its end\n\(node.log)") { process.status != nil || node.log.contains("\"msg\":\"serving\"") }
        guard process.status == nil else {
            #expect(process.status == 1 && node.log.contains("--experimental-memory-mlock: "), "\(node.log)")
            return
        }
        #if os(Linux)
        let status = try String(contentsOfFile: "/proc/\(process.pid)/status", encoding: .utf8)
        let locked = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmLck:") })
        #expect(Int(locked.filter(\.isNumber)) ?? 0 > 1_000, "\(locked)")
        #endif
        let client = try EtcdClient(endpoints: [node.endpointText])
        try await client.put("k", "v", options: CallOptions(timeout: .seconds(30)))
        await client.close()
        try await process.killNow()
    }

    @Test func damagedFilesAreFoundBeforeAnythingIsServed() async throws {
        try await withServers { cluster in
            let node = cluster.nodes[0]
            for number in 0..<300 { try await cluster.client.put("key \(number % 7)", String(repeating: "value \(number) ", count: 20)) }
            let process = try #require(node.process)
            process.signal(SIGTERM)
            #expect(try await process.exit() == 0)
            // Sound: it starts and has everything.
            node.extra = ["--experimental-initial-corrupt-check"]
            try node.start()
            try await cluster.waitForLeader()
            #expect(try await cluster.client.get("key 6", options: CallOptions(timeout: .seconds(30))) != nil)
            #expect(!node.log.contains("damaged"))
            let again = try #require(node.process)
            again.signal(SIGTERM)
            #expect(try await again.exit() == 0)
            // A value in the middle of the store that no start reads.
            let store = node.dataDirectory + "/member/store/0000000000000001.lmdb"
            var bytes = try Data(contentsOf: URL(fileURLWithPath: store))
            let place = try #require(bytes.range(of: Data("value 150 value 150".utf8)))
            bytes[place.lowerBound] ^= 1
            try bytes.write(to: URL(fileURLWithPath: store))
            try node.start()
            #expect(try await #require(node.process).exit() == 1)
            #expect(node.log.contains("is damaged (") && !node.log.contains("\"msg\":\"serving\""), "\(node.log)")
        }
    }

    /// A unit of `Type=notify`, as etcd's packages have it: started when there is a leader.
    @Test func systemdHearsWhenTheNodeIsReadyAndWhenItStops() async throws {
        let scratch = try Scratch()
        let path = scratch.file("notify")
        #if canImport(Darwin)
        let descriptor = socket(AF_UNIX, SOCK_DGRAM, 0)
        #else
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        #endif
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let isBound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0 }
        }
        try #require(isBound)
        func next() -> String? {
            var bytes = [UInt8](repeating: 0, count: 256)
            let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            return count >= 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
        }
        let ports = try Ports.free(3)
        // Two members, of which one cannot lead alone.
        let cluster = "n1=http://127.0.0.1:\(ports[1]),n2=http://127.0.0.1:\(ports[2])"
        func start(_ name: String, _ client: Int, _ peer: Int, _ environment: [String: String]) throws -> ChildProcess {
            let node = ServeNode(name: name, clientPort: client, peerPort: peer, initialCluster: cluster, in: scratch)
            return try ChildProcess([quarterdeck] + node.arguments, environment: environment, in: scratch)
        }
        let one = try start("n1", ports[0], ports[1], ["NOTIFY_SOCKET": path])
        try await eventually("a listener\n\(one.errors)") { one.errors.contains("\"msg\":\"serving\"") }
        #expect(next() == nil)
        let two = try start("n2", try Ports.free()[0], ports[2], [:])
        var heard: String?
        try await eventually("READY\n\(one.errors)") {
            heard = next()
            return heard != nil
        }
        #expect(heard == "READY=1")
        one.signal(SIGTERM)
        try await eventually("STOPPING\n\(one.errors)") {
            heard = next()
            return heard != nil
        }
        #expect(heard == "STOPPING=1")
        _ = try await one.exit()
        try await two.killNow()
    }

    @Test func serveTellsItsVersionAndFlags() async throws {
        let scratch = try Scratch()
        let version = try ChildProcess([quarterdeck, "serve", "--version"], in: scratch)
        #expect(try await version.exit() == 0 && version.output.hasPrefix("quarterdeck Version: ") && version.output.contains("\netcd Version: 3.5."))
        for arguments in [["serve", "--help"], ["help", "serve"]] {
            let help = try ChildProcess([quarterdeck] + arguments, in: scratch)
            #expect(try await help.exit() == 0 && help.output.contains("\nMember:\n") && help.output.contains("  --wal-dir"), "\(arguments): \(help.output.prefix(300))")
        }
        let root = try ChildProcess([quarterdeck, "--help"], in: scratch)
        #expect(try await root.exit() == 0 && root.output.contains("serve "))
    }
}
