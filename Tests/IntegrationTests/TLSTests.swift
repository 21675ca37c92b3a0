import Base
import Client
import Foundation
import Processes
import TestCertificates
import Testing

extension Integration {
    /// TLS between real processes: etcdctl, our client and three members, with the flags that etcd has.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct TLSTests {}
}

/// One server, ours or etcd's, with its client port on https.
final class SecureServer {
    let clientPort: Int
    let peerPort: Int
    let directory: String
    private let command: [String]
    private let scratch: Scratch
    private(set) var process: ChildProcess

    /// - Parameters:
    ///   - program: `quarterdeck serve`, or etcd.
    ///   - cluster: name and peer port of every member; nil: this one alone.
    init(_ program: [String], name: String = "n1", _ flags: [String], clientScheme: String = "https", peerScheme: String = "http", ports: (client: Int, peer: Int)? = nil,
         cluster: String? = nil, in scratch: Scratch) throws {
        let free = ports == nil ? try Ports.free(2) : []
        clientPort = ports?.client ?? free[0]
        peerPort = ports?.peer ?? free[1]
        directory = scratch.file("data-\(name)-\(clientPort)")
        self.scratch = scratch
        let peer = "\(peerScheme)://127.0.0.1:\(peerPort)"
        command = program + ["--name", name, "--data-dir", directory, "--listen-client-urls", "\(clientScheme)://127.0.0.1:\(clientPort)",
                             "--advertise-client-urls", "\(clientScheme)://127.0.0.1:\(clientPort)", "--listen-peer-urls", peer,
                             "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster ?? "\(name)=\(peer)"] + flags
        process = try ChildProcess(command, in: scratch)
    }

    static func ours(_ flags: [String], in scratch: Scratch) throws -> SecureServer { try SecureServer([quarterdeck, "serve"], flags, in: scratch) }

    var url: String { "https://127.0.0.1:\(clientPort)" }
    var log: String { process.errors }
    func ctl(_ scratch: Scratch, scheme: String = "https") -> Etcdctl { Etcdctl(["\(scheme)://127.0.0.1:\(clientPort)"], scratch) }

    func waitUntilItListens() async throws { try await eventually("a listener on \(clientPort)\n\(log)") { LoopbackPort.isListening(clientPort) } }
    func waitForLog(_ words: String) async throws { try await eventually("\(words) in the log:\n\(log.suffix(4_000))") { log.contains(words) } }
    func restart() async throws {
        try await process.killNow()
        process = try ChildProcess(command, in: scratch)
    }
    func kill() async { try? await process.killNow() }
}

extension Integration.TLSTests {
    /// Flags of a server with this certificate.
    private func flags(_ pair: TestAuthority.Pair, _ more: String...) -> [String] { ["--cert-file", pair.certificate, "--key-file", pair.key] + more }
    private func shown(_ pair: TestAuthority.Pair) -> [String] { ["--cert", pair.certificate, "--key", pair.key] }

    private func withServer(_ server: SecureServer, _ body: () async throws -> Void) async throws {
        do {
            try await server.waitUntilItListens()
            try await body()
        } catch {
            await server.kill()
            print("log of the server:\n\(server.log.suffix(10_000))")
            throw error
        }
        await server.kill()
    }

    /// The same clients come in, and the same are turned away, as at a real etcd.
    @Test func bothServersLetTheSameClientsIn() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path), foreign = try TestAuthority(in: scratch.path, name: "foreign")
        let server = try authority.issue("server", commonName: "server")
        let good = try authority.issue("good", commonName: "good", hosts: ["good.example"]), revoked = try authority.issue("revoked", hosts: ["good.example"])
        let unnamed = try authority.issue("unnamed", hosts: ["other.example"]), outdated = try authority.issue("outdated", lifetime: -60)
        let stranger = try foreign.issue("stranger"), serving = try authority.issue("serving", isForClients: false)
        let crl = try authority.revoke([revoked])
        let trusting = ["--cacert", authority.file]
        let clients: [(name: String, flags: [String])] = [
            ("without a certificate", trusting), ("trusting another authority", ["--cacert", foreign.file]), ("not looking", ["--insecure-skip-tls-verify", "--insecure-transport=false"]),
            ("good", trusting + shown(good)), ("of another authority", trusting + shown(stranger)), ("revoked", trusting + shown(revoked)),
            ("of another host", trusting + shown(unnamed)), ("that has run out", trusting + shown(outdated)), ("for servers only", trusting + shown(serving)),
        ]
        let demanding = ["--trusted-ca-file", authority.file]
        let servers: [(name: String, flags: [String], letsIn: Set<String>)] = [
            ("that asks for nothing", [], ["without a certificate", "not looking", "good", "of another authority", "revoked", "of another host", "that has run out", "for servers only"]),
            ("with authorities", demanding, ["good", "revoked", "of another host"]),
            ("with --client-cert-auth", demanding + ["--client-cert-auth", "--client-crl-file", crl, "--client-cert-allowed-hostname", "good.example"], ["good"]),
        ]
        for (name, more, letsIn) in servers {
            for program in [[quarterdeck, "serve"], [try EtcdTools.path("etcd")]] {
                let running = try SecureServer(program, flags(server) + more, in: scratch)
                try await withServer(running) {
                    try await eventually("an answer\n\(running.log.suffix(3_000))") {
                        try await running.ctl(scratch).run(trusting + shown(good) + ["--command-timeout=5s", "put", "ready", "yes"]).status == 0
                    }
                    var found: Set<String> = []
                    for client in clients {
                        let result = try await running.ctl(scratch).run(client.flags + ["--dial-timeout=1s", "--command-timeout=1s", "put", "k", "v"])
                        if result.status == 0 { found.insert(client.name) }
                    }
                    #expect(found == letsIn, "\(program.last!): a server \(name)")
                }
            }
        }
    }

    @Test func theCommonNameIsTheUser() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let server = try authority.issue("server"), root = try authority.issue("root", commonName: "root"), alice = try authority.issue("alice", commonName: "alice")
        let nobody = try authority.issue("nobody", commonName: "nobody"), nameless = try authority.issue("nameless")
        for program in [[quarterdeck, "serve"], [try EtcdTools.path("etcd")]] {
            let running = try SecureServer(program, flags(server, "--client-cert-auth=true", "--trusted-ca-file", authority.file), in: scratch)
            try await withServer(running) {
                func ctl(_ pair: TestAuthority.Pair, _ arguments: String...) async throws -> Etcdctl.Result {
                    try await running.ctl(scratch).run(["--cacert", authority.file] + shown(pair) + arguments)
                }
                func must(_ pair: TestAuthority.Pair, _ arguments: String...) async throws {
                    let result = try await running.ctl(scratch).run(["--cacert", authority.file] + shown(pair) + arguments)
                    guard result.status == 0 else { throw Late(description: "\(arguments): \(result.errors)") }
                }
                try await must(nobody, "put", "a/1", "v")
                try await must(nobody, "user", "add", "root", "--no-password")
                try await must(nobody, "role", "add", "root")
                try await must(nobody, "user", "grant-role", "root", "root")
                try await must(nobody, "user", "add", "alice", "--no-password")
                try await must(nobody, "user", "add", "bob:secret")
                try await must(nobody, "role", "add", "a")
                try await must(nobody, "role", "grant-permission", "a", "readwrite", "a/", "--prefix")
                try await must(nobody, "user", "grant-role", "alice", "a")
                try await must(nobody, "auth", "enable")
                #expect(try await ctl(alice, "get", "a/1").output == "a/1\nv\n", "\(program.last!)")
                #expect(try await ctl(alice, "put", "b", "v").error.contains("permission denied"))
                #expect(try await ctl(root, "put", "b", "v").output == "OK\n")
                #expect(try await ctl(nobody, "get", "a/1").error.contains("permission denied"))
                #expect(try await ctl(nameless, "get", "a/1").status != 0)
                // Who logs in is who the login says.
                #expect(try await ctl(root, "--user", "bob:secret", "get", "b").error.contains("permission denied"))
                // The administration asks for the root role.
                #expect(try await ctl(alice, "user", "list").error.contains("permission denied"))
                #expect(try await ctl(root, "user", "list").output == "alice\nbob\nroot\n")
                // Streams, too.
                #expect(try await ctl(root, "lease", "grant", "60").output.contains("granted"))
                try await must(root, "auth", "disable")
            }
        }
    }

    @Test func threeMembersMeetOverTLSAndAStrangerDoesNot() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path), foreign = try TestAuthority(in: scratch.path, name: "foreign")
        let server = try authority.issue("server")
        let ports = try Ports.free(8)
        func member(_ index: Int, count: Int = 3, state: String = "new", _ issuer: TestAuthority? = nil) throws -> SecureServer {
            let pair = try (issuer ?? authority).issue("peer\(index)", commonName: "peer\(index)")
            let cluster = (0..<count).map { "n\($0)=https://127.0.0.1:\(ports[2 * $0 + 1])" }.joined(separator: ",")
            return try SecureServer([quarterdeck, "serve"], name: "n\(index)",
                                    flags(server) + ["--peer-cert-file", pair.certificate, "--peer-key-file", pair.key, "--peer-trusted-ca-file", authority.file,
                                                     "--peer-client-cert-auth", "--peer-cert-allowed-cn", "peer0,peer1,peer2,peer3", "--initial-cluster-state", state],
                                    peerScheme: "https", ports: (ports[2 * index], ports[2 * index + 1]), cluster: cluster, in: scratch)
        }
        let members = try (0..<3).map { try member($0) }
        var ctl = Etcdctl(members.map(\.url), scratch)
        func run(_ arguments: String...) async throws -> String {
            let result = try await ctl.run(["--cacert", authority.file, "--command-timeout=20s"] + arguments)
            guard result.status == 0 else { throw Late(description: "\(arguments): \(result.errors)\n\(members.map { $0.log.suffix(3_000) }.joined(separator: "\n"))") }
            return result.output
        }
        for member in members { try await member.waitUntilItListens() }
        #expect(try await run("put", "k", "v") == "OK\n")
        // Another one goes and comes back.
        await members[0].kill()
        ctl.endpoints = members.dropFirst().map(\.url)
        #expect(try await run("put", "k", "w") == "OK\n")
        try await members[0].restart()
        try await members[0].waitUntilItListens()
        ctl.endpoints = [members[0].url]
        #expect(try await run("get", "k", "--print-value-only") == "w\n")
        // A renewed peer certificate: the members that come back show it, nobody else has to be started again.
        _ = try authority.issue("peer1", commonName: "peer1")
        ctl.endpoints = [members[1].url, members[2].url]
        #expect(try await run("member", "list").split(separator: "\n").count == 3)
        // One with a certificate of another authority is added, and not let in.
        _ = try await run("member", "add", "n3", "--peer-urls", "https://127.0.0.1:\(ports[7])")
        let stranger = try member(3, count: 4, state: "existing", foreign)
        let status = try await stranger.process.exit(seconds: 60)
        #expect(status != 0 && stranger.log.contains("does not accept our certificate"), "\(stranger.log)")
        try await eventually("the rejection in a member's log") { members.contains { $0.log.contains("the peer's certificate cannot be verified") } }
        // With the right one it is.
        let friend = try member(3, count: 4, state: "existing")
        try await friend.waitUntilItListens()
        ctl.endpoints = [friend.url]
        #expect(try await run("get", "k", "--print-value-only") == "w\n")
        for member in members + [friend] { await member.kill() }
    }

    @Test func membersMakeTheirOwnCertificates() async throws {
        let scratch = try Scratch()
        let ports = try Ports.free(6)
        let cluster = (0..<3).map { "n\($0)=https://127.0.0.1:\(ports[2 * $0 + 1])" }.joined(separator: ",")
        let members = try (0..<3).map {
            try SecureServer([quarterdeck, "serve"], name: "n\($0)", ["--auto-tls", "--peer-auto-tls", "--self-signed-cert-validity", "2"], peerScheme: "https",
                             ports: (ports[2 * $0], ports[2 * $0 + 1]), cluster: cluster, in: scratch)
        }
        for member in members { try await member.waitUntilItListens() }
        for member in members {
            for name in ["client/cert.pem", "client/key.pem", "peer/cert.pem", "peer/key.pem"] {
                #expect(FileManager.default.fileExists(atPath: member.directory + "/fixtures/" + name))
            }
            // It is its own authority, as etcd's is.
            let result = try await member.ctl(scratch).run(["--cacert", member.directory + "/fixtures/client/cert.pem", "--command-timeout=20s", "put", "k", "v"])
            #expect(result.output == "OK\n", "\(result.errors)")
        }
        var configuration = try ClientConfiguration(members[0].url)
        configuration.tls = .init(skipsVerification: true)
        let client = try EtcdClient(configuration: configuration)
        #expect(try await client.get("k")?.valueText == "v")
        await client.close()
        // The same certificate after a restart.
        let path = members[0].directory + "/fixtures/client/cert.pem"
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        try await members[0].restart()
        try await members[0].waitUntilItListens()
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
        for member in members { await member.kill() }
    }

    /// Our client speaks with an etcd that made its own certificate (P-521). That is no authority's, so it can be had only unchecked, and the
    /// client says so. (Go takes such a certificate for its own authority.)
    @Test func ourClientReachesAnEtcdWithItsOwnCertificate() async throws {
        let scratch = try Scratch()
        let running = try SecureServer([try EtcdTools.path("etcd")], ["--auto-tls"], in: scratch)
        try await withServer(running) {
            func put(_ tls: ClientConfiguration.TLS, seconds: Int64) async throws {
                var configuration = try ClientConfiguration(running.url)
                configuration.tls = tls
                let client = try EtcdClient(configuration: configuration)
                do {
                    try await client.put("k", "v", options: CallOptions(timeout: .seconds(seconds)))
                } catch {
                    await client.close()
                    throw error
                }
                await client.close()
            }
            try await put(.init(skipsVerification: true), seconds: 20)
            let refusal = await #expect(throws: EtcdError.self) { try await put(.init(caFile: running.directory + "/fixtures/client/cert.pem"), seconds: 2) }
            #expect("\(try #require(refusal))".contains("the server's certificate is not from an authority that this client trusts"))
        }
    }

    @Test func renewedFilesCountForNewConnections() async throws {
        let scratch = try Scratch()
        let first = try TestAuthority(in: scratch.path, name: "first"), second = try TestAuthority(in: scratch.path, name: "second")
        let pair = try first.issue("server")
        let running = try SecureServer.ours(flags(pair), in: scratch)
        try await withServer(running) {
            var configuration = try ClientConfiguration(running.url)
            configuration.tls = .init(caFile: first.file)
            let client = try EtcdClient(configuration: configuration)
            try await client.put("k", "v", options: CallOptions(timeout: .seconds(20)))
            _ = try second.issue("server")
            try await eventually("the new certificate\n\(running.log)") {
                try await running.ctl(scratch).run(["--cacert", second.file, "--dial-timeout=1s", "--command-timeout=2s", "get", "k"]).output == "k\nv\n"
            }
            try await running.waitForLog("certificates loaded anew")
            // The connection from before lives on.
            #expect(try await client.get("k")?.valueText == "v")
            await client.close()
            // A file that is gone is said to be, and what was there serves on.
            try FileManager.default.removeItem(atPath: pair.key)
            try await eventually("the missing file in the log") {
                let result = try await running.ctl(scratch).run(["--cacert", second.file, "get", "k"])
                #expect(result.output == "k\nv\n")
                return running.log.contains("those loaded before stay in use")
            }
        }
    }

    @Test func theWrongSchemeIsSaidToBeWrongOnBothSides() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let running = try SecureServer.ours(flags(try authority.issue("server")), in: scratch)
        try await withServer(running) {
            let result = try await running.ctl(scratch, scheme: "http").run(["--dial-timeout=1s", "--command-timeout=2s", "put", "k", "v"])
            #expect(result.status != 0)
            try await running.waitForLog("plaintext HTTP/2 (gRPC) to a TLS port: the URL must begin with https://")
            let client = try EtcdClient(endpoints: ["http://127.0.0.1:\(running.clientPort)"])
            let error = await #expect(throws: EtcdError.self) {
                try await client.put("k", "v", options: CallOptions(timeout: .seconds(10), endpoint: try Endpoint("http://127.0.0.1:\(running.clientPort)")))
            }
            #expect("\(error!)".contains("it may want TLS (https://)"), "\(error!)")
            await client.close()
        }
        try await withServers { cluster in
            let node = cluster.nodes[0]
            let ctl = Etcdctl(["https://\(node.endpointText)"], scratch)
            let result = try await ctl.run(["--cacert", authority.file, "--dial-timeout=1s", "--command-timeout=2s", "put", "k", "v"])
            #expect(result.status != 0 && result.errors.contains("authentication handshake failed"), "\(result.errors)")
            try await eventually("the rejection\n\(node.log)") { node.log.contains("TLS to a plaintext port: the URL must begin with http://") }
        }
    }

    @Test func wrongFlagsAreRefusedWithOneLine() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server"), other = try authority.issue("other")
        let cases: [([String], String)] = [
            ([], "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:"),
            (["--cert-file", pair.certificate], "--key-file is missing"),
            (["--cert-file", pair.certificate, "--key-file", other.key], "is not the key of --cert-file"),
            (["--cert-file", scratch.file("none"), "--key-file", pair.key], "--cert-file \(scratch.file("none")): no such file or directory"),
            (flags(pair, "--cipher-suites", "TLS_SOMETHING"), "unexpected TLS cipher suite \"TLS_SOMETHING\""),
            (flags(pair, "--tls-min-version", "TLS1.0"), "unexpected TLS version \"TLS1.0\" (must be one of: TLS1.2, TLS1.3)"),
            (flags(pair, "--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"), "min version (TLS1.3) is greater than max version (TLS1.2)"),
            (flags(pair, "--client-cert-auth=maybe"), "--client-cert-auth maybe: expected true or false"),
            (flags(pair, "--peer-cert-allowed-cn", "a", "--peer-cert-allowed-hostname", "b"), "mutually exclusive"),
        ]
        for (more, words) in cases {
            let server = try SecureServer.ours(more, in: scratch)
            let status = try await server.process.exit()
            let lines = server.log.split(separator: "\n").filter { !$0.hasPrefix("{") }
            #expect(status != 0 && lines.count == 1 && lines[0].hasPrefix("quarterdeck: ") && lines[0].contains(words), "\(more): \(status) \(lines)")
        }
    }

    @Test func suitesAndVersionsAreObeyed() async throws {
        let scratch = try Scratch()
        let authority = try TestAuthority(in: scratch.path)
        let pair = try authority.issue("server")
        // What cannot be agreed on is refused. etcdctl 3.5.1 speaks TLS 1.2 at most, our client both.
        for (more, works) in [(["--cipher-suites", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "--tls-max-version", "TLS1.2"], true),
                              // A suite for RSA keys, and the key is none.
                              (["--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--tls-max-version", "TLS1.2"], false)] {
            let running = try SecureServer.ours(flags(pair) + more, in: scratch)
            try await withServer(running) {
                let limit = works ? "20s" : "2s"
                let result = try await running.ctl(scratch).run(["--cacert", authority.file, "--command-timeout", limit, "--dial-timeout=2s", "put", "k", "v"])
                #expect((result.status == 0) == works, "\(more): \(result.errors)")
                if !works { try await running.waitForLog("the client offers no cipher suite that --cipher-suites and the certificate's key allow") }
            }
        }
        let modern = try SecureServer.ours(flags(pair) + ["--tls-min-version", "TLS1.3"], in: scratch)
        try await withServer(modern) {
            var configuration = try ClientConfiguration(modern.url)
            configuration.tls = .init(caFile: authority.file)
            let client = try EtcdClient(configuration: configuration)
            try await client.put("k", "v")
            await client.close()
        }
    }
}
