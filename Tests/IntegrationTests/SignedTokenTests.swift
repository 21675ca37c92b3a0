import Base
import Client
import Crypto
import CryptoExtras
import Foundation
import GRPC
import Testing
import Wire

extension Integration {
    /// JWT tokens: what real etcd signs ours believes, and the other way round.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct SignedTokenTests {
        enum Method: String, CaseIterable { case RS256, PS384, ES256, HS512 }

        /// Key files for both servers, as the value of --auth-token.
        private static func option(_ method: Method, seconds: Int, in scratch: Scratch, canSign: Bool = true) throws -> String {
            func file(_ name: String, _ text: String) throws -> String {
                let path = scratch.file("\(method).\(name)")
                try Data(text.utf8).write(to: URL(fileURLWithPath: path))
                return path
            }
            let keys: [String]
            switch method {
            case .HS512: keys = ["priv-key=\(try file("key", "a secret that both share"))"]
            case .ES256:
                let key = P256.Signing.PrivateKey()
                keys = [canSign ? "priv-key=\(try file("key", key.pemRepresentation))" : "", "pub-key=\(try file("pub", key.publicKey.pemRepresentation))"]
            case .RS256, .PS384:
                let key = try _RSA.Signing.PrivateKey(keySize: .bits2048)
                keys = [canSign ? "priv-key=\(try file("key", key.pemRepresentation))" : "", "pub-key=\(try file("pub", key.publicKey.pemRepresentation))"]
            }
            return (["jwt"] + keys.filter { !$0.isEmpty } + ["sign-method=\(method)", "ttl=\(seconds)s"]).joined(separator: ",")
        }

        private static func run(_ lines: [String], _ ctl: Etcdctl) async throws -> Transcript {
            var transcript = Transcript()
            for line in lines {
                let result = DifferentialTests.normalised(try await ctl.run(line.split(separator: " ").map(String.init)))
                transcript.add(line, "status \(result.status)\n\(result.output)\n\(result.errors)")
            }
            return transcript
        }

        private static let accounts = ["user add root:pw", "role add root", "user grant-role root root", "user add alice:pw", "role add r", "role grant-permission r readwrite k", "user grant-role alice r", "auth enable"]

        private static func token(_ name: String, _ peer: Conversation) async throws -> String {
            try await peer.value(.authenticate, made(PBAuthenticateRequest.self) { $0.name = name; $0.password = "pw" }, PBAuthenticateResponse.self).token
        }

        /// As etcd's clients name it.
        private static func metadata(_ token: String) -> [MetadataField] { [MetadataField("token", token)] }

        private static func claims(_ token: String) throws -> (head: JSON, claims: JSON) {
            let parts = try token.split(separator: ".").prefix(2).map { part in
                let padded = part.replacingOccurrences(of: "-", with: "+").replacingOccurrences(of: "_", with: "/") + String(repeating: "=", count: (4 - part.count % 4) % 4)
                return try JSON(String(decoding: try #require(Data(base64Encoded: padded)), as: UTF8.self))
            }
            return (parts[0], parts[1])
        }

        @Test(arguments: Method.allCases) func etcdctlLogsInTheSameAtBoth(_ method: Method) async throws {
            let scratch = try Scratch()
            try await expectSameOnBoth(flags: ["--auth-token", Self.option(method, seconds: 300, in: scratch)]) { subject in
                try await Self.run(Self.accounts + [
                    "get k", "--user root:pw put k 1", "--user alice:pw put k 2", "--user alice:pw get k", "--user alice:pw get other", "--user alice:no get k", "--user nobody:pw get k", "--user alice:pw watch other",
                    "--user alice:pw lease grant x", "--user alice:pw user list", "--user root:pw user get alice", "--user root:pw user revoke-role alice r", "--user alice:pw get k", "--user root:pw user delete alice", "--user alice:pw get k",
                    "--user root:pw auth status", "--user root:pw auth disable", "get k",
                ], Etcdctl([subject.endpoint], subject.scratch))
            }
        }

        @Test(arguments: Method.allCases) func tokensOfOneAreGoodAtTheOther(_ method: Method) async throws {
            let scratch = try Scratch()
            let flags = ["--auth-token", try Self.option(method, seconds: 300, in: scratch)]
            try await withRealEtcd(extra: flags) { endpoint, _ in
                try await withServers(extra: flags) { cluster in
                    let real = try await Conversation(endpoint)
                    let own = try await Conversation(cluster.endpoints[0])
                    let sides = [real, own]
                    // The same changes, so that both are at the same revision of accounts, which tokens carry.
                    for side in sides {
                        for step in try await Self.run(Self.accounts, Etcdctl([side.endpoint], scratch)).steps { #expect(step.answer.hasPrefix("status 0"), "\(step)") }
                    }
                    let theirs = try await Self.token("alice", real), ours = try await Self.token("alice", own)
                    let (theirHead, theirClaims) = try Self.claims(theirs), (ourHead, ourClaims) = try Self.claims(ours)
                    for name in ["alg", "typ"] { #expect(ourHead[name].text == theirHead[name].text && ourHead[name].text != nil) }
                    #expect(ourClaims["username"].text == "alice" && theirClaims["username"].text == "alice")
                    #expect(ourClaims["revision"].number == theirClaims["revision"].number && ourClaims["revision"].number != nil)
                    let ourEnd = try #require(ourClaims["exp"].number), theirEnd = try #require(theirClaims["exp"].number)
                    #expect(abs(ourEnd - theirEnd) <= 30)
                    for side in sides {
                        for token in [theirs, ours] {
                            #expect(await side.answer(.put, put("k", "1"), metadata: Self.metadata(token)).hasSuffix("OK "))
                            #expect(await side.answer(.range, range("other"), metadata: Self.metadata(token)) == "PermissionDenied etcdserver: permission denied")
                        }
                        // A letter of the signature, of the claims, and another's claims under this signature.
                        var changed = Array(theirs)
                        changed[changed.count - 10] = changed[changed.count - 10] == "A" ? "B" : "A"
                        let parts = theirs.split(separator: ".").map(String.init)
                        let root = (try await Self.token("root", side)).split(separator: ".").map(String.init)
                        for forged in [String(changed), parts[0] + ".x" + parts[1].dropFirst() + "." + parts[2], parts[0] + "." + root[1] + "." + parts[2], parts[0] + "." + parts[1] + ".", parts[0] + "." + parts[1]] {
                            #expect(await side.answer(.range, range("k"), metadata: Self.metadata(forged)) == "Unauthenticated etcdserver: invalid auth token")
                        }
                    }
                    // The accounts change at both: tokens from before are old at both.
                    for side in sides {
                        let root = Self.metadata(try await Self.token("root", side))
                        #expect(await side.answer(.roleAdd, made(PBAuthRoleAddRequest.self) { $0.name = "new" }, metadata: root).hasSuffix("OK "))
                        // Early 3.5 lets its inner text out.
                        let refusal = side === real ? "Unknown auth: revision in header is old" : "InvalidArgument etcdserver: revision of auth store is old"
                        for token in [theirs, ours] {
                            let answer = await side.answer(.range, range("k"), metadata: Self.metadata(token))
                            #expect(answer == refusal)
                        }
                    }
                    for side in sides { await side.close() }
                }
            }
        }

        @Test(arguments: EtcdRelease.allCases) func tokensEndTheSameAtBoth(_ release: EtcdRelease) async throws {
            let scratch = try Scratch()
            try await expectSameOnBoth(release, flags: ["--auth-token", Self.option(.ES256, seconds: 2, in: scratch)]) { subject in
                var transcript = try await Self.run(Self.accounts, Etcdctl([subject.endpoint], scratch))
                let peer = try await Conversation(subject.endpoint)
                let token = try await Self.token("root", peer)
                let end = try #require(try Self.claims(token).claims["exp"].number)
                let remaining = Double(end) - Date().timeIntervalSince1970
                #expect(remaining > 0 && remaining <= 3)
                // It is read once a connection, if at all: the end must come on the same one.
                var answer = ""
                try await eventually("the token's end; the last answer is \(answer)") {
                    let isBefore = Date().timeIntervalSince1970 < Double(end)
                    answer = await peer.answer(.range, range("k"), metadata: Self.metadata(token))
                    if Date().timeIntervalSince1970 < Double(end) { #expect(answer.hasSuffix("OK "), "before its end") }
                    return !isBefore && !answer.hasSuffix("OK ")
                }
                transcript.add("after its end", answer)
                transcript.add("a new one", await peer.answer(.put, put("k", "1"), metadata: Self.metadata(try await Self.token("root", peer))))
                await peer.close()
                // The client library fetches a new one by itself.
                var configuration = try ClientConfiguration("http://" + subject.endpoint)
                configuration.user = "root"
                configuration.password = "pw"
                let client = try EtcdClient(configuration: configuration)
                let first = try await client.put("k", "2").header.revision
                let start = Date()
                try await eventually("the client's token has ended") { Date().timeIntervalSince(start) > 3 }
                try await client.put("k", "3")
                // The same when the accounts have changed, which makes tokens old.
                for step in try await Self.run(["--user root:pw role add another"], Etcdctl([subject.endpoint], scratch)).steps { #expect(step.answer.hasPrefix("status 0"), "\(step)") }
                let last = try await client.put("k", "4").header.revision
                transcript.add("the client library", "\(last.rawValue - first.rawValue)")
                await client.close()
                return transcript
            }
        }

        /// A server that has the public key only believes tokens and makes none.
        @Test func aServerWithoutThePrivateKeyMakesNone() async throws {
            let scratch = try Scratch()
            try await expectSameOnBoth(flags: ["--auth-token", Self.option(.ES256, seconds: 300, in: scratch, canSign: false)]) { subject in
                let peer = try await Conversation(subject.endpoint)
                var transcript = try await Self.run(Array(Self.accounts.dropLast()), Etcdctl([subject.endpoint], scratch))
                transcript.add("on", await peer.answer(.authEnable, PBAuthEnableRequest()))
                transcript.add("a login", await peer.answer(.authenticate, made(PBAuthenticateRequest.self) { $0.name = "alice"; $0.password = "pw" }))
                transcript.add("a wrong login", await peer.answer(.authenticate, made(PBAuthenticateRequest.self) { $0.name = "alice"; $0.password = "no" }))
                transcript.add("a range", await peer.answer(.range, range("k")))
                await peer.close()
                return transcript
            }
        }

        /// Neither starts, and ours says why in one line.
        @Test(arguments: ["jwt", "jwt,sign-method=RS256", "jwt,sign-method=XX256,priv-key=KEY", "jwt,priv-key=KEY", "jwt,sign-method=ES256,priv-key=/nowhere", "jwt,sign-method=RS256,priv-key=KEY,ttl=frob", "frob"])
        func neitherStartsWithABadOption(_ option: String) async throws {
            let scratch = try Scratch()
            let key = scratch.file("key.pem")
            try Data(try _RSA.Signing.PrivateKey(keySize: .bits2048).pemRepresentation.utf8).write(to: URL(fileURLWithPath: key))
            let value = option.replacingOccurrences(of: "KEY", with: key)
            let ports = try Ports.free(2)
            let urls = ["--listen-client-urls", "http://127.0.0.1:\(ports[0])", "--advertise-client-urls", "http://127.0.0.1:\(ports[0])", "--listen-peer-urls", "http://127.0.0.1:\(ports[1])",
                        "--initial-advertise-peer-urls", "http://127.0.0.1:\(ports[1])", "--initial-cluster", "n1=http://127.0.0.1:\(ports[1])", "--name", "n1"]
            for (name, command) in [("etcd", [try EtcdTools.path("etcd")]), ("ours", [quarterdeck, "serve"])] {
                let process = try ChildProcess(command + urls + ["--data-dir", scratch.file(name), "--auth-token", value], in: scratch)
                #expect(try await process.exit() != 0, "\(name)")
                if name == "ours" { #expect(process.errors.split(separator: "\n").count == 1 && process.errors.contains("auth-token"), "\(process.errors)") }
            }
        }
    }
}
