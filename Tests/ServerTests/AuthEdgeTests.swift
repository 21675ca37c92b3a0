import Auth
import Base
import Crypto
import CryptoExtras
import Foundation
import GRPC
@testable import Replica
import Store
import Synchronization
import Testing
import Wire
@testable import Server

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct BcryptTests {
    @Test func hashesOfEtcdAreUnderstoodAndOursHaveItsForm() throws {
        // Made by etcd 3.5.1 for the password "new".
        let theirs = bytes("$2a$04$CeV3CkIF5HOxRP417SZO/OFEWU7pJVQ/.3pMuDG90c3f8QekFrcRy")
        #expect(Bcrypt.matches(Secret("new"), theirs))
        for wrong in ["", "New", "new ", "ne", "old"] { #expect(!Bcrypt.matches(Secret(wrong), theirs), "\(wrong)") }
        for password in ["", "x", "pässwörd \u{ff}", String(repeating: "p", count: 72)] {
            let own = try Bcrypt.hash(Secret(password), cost: 4)
            #expect(own.count == 60 && own.starts(with: bytes("$2a$04$")))
            #expect(Bcrypt.matches(Secret(password), own) && !Bcrypt.matches(Secret(password + "y"), own) || password.utf8.count == 72)
            #expect(try Bcrypt.hash(Secret(password), cost: 4) != own, "each has a salt of its own")
        }
        // Bytes above 0x7f, where old libraries went wrong.
        let high = Secret([0xff, 0xff, 0xa3, 0x33, 0x34])
        #expect(Bcrypt.matches(high, try Bcrypt.hash(high, cost: 4)))
    }

    @Test func passwordsThatWouldBeCutAreRefused() {
        #expect(throws: ServiceError.passwordTooLong) { try Bcrypt.hash(Secret(String(repeating: "p", count: 73)), cost: 4) }
        #expect(throws: ServiceError.passwordWithZero) { try Bcrypt.hash(Secret([0x61, 0, 0x62]), cost: 4) }
        #expect(!Bcrypt.matches(Secret([0x61, 0, 0x62]), (try? Bcrypt.hash(Secret("a"), cost: 4)) ?? []))
    }

    @Test func whatIsNoHashMatchesNothing() {
        let noise = ["", "x", "$2a$04$", "$1$salt$abcdefghijklmnopqrstuv", "$6$rounds=999999999$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", String(repeating: "$", count: 60),
                     "$2a$99$CeV3CkIF5HOxRP417SZO/OFEWU7pJVQ/.3pMuDG90c3f8QekFrcRy", "$2x$04$CeV3CkIF5HOxRP417SZO/OFEWU7pJVQ/.3pMuDG90c3f8QekFrcRy",
                     "$2a$04$CeV3CkIF5HOxRP417SZ!/OFEWU7pJVQ/.3pMuDG90c3f8QekFrcRy"]
        for hash in noise { #expect(!Bcrypt.matches(Secret("new"), bytes(hash)), "\(hash)") }
        #expect(Bcrypt.decoy(cost: 4).count == 60 && !Bcrypt.matches(Secret(""), Bcrypt.decoy(cost: 4)))
    }

    @Test func secretsHaveNoText() {
        let secret = Secret("hunter2")
        var dumped = "\(secret) \(String(reflecting: secret))"
        dump(secret, to: &dumped)
        dump(LoginCall(user: "u", password: secret), to: &dumped)
        #expect(!dumped.contains("hunter2") && secret.count == 7)
    }
}

@Suite struct TokenSignerTests {
    private static func pem(_ method: String) throws -> (String, String) {
        switch method.prefix(2) {
        case "RS", "PS":
            let key = try _RSA.Signing.PrivateKey(keySize: .bits2048)
            return (key.pemRepresentation, key.publicKey.pemRepresentation)
        default:
            switch method {
            case "ES256":
                let key = P256.Signing.PrivateKey()
                return (key.pemRepresentation, key.publicKey.pemRepresentation)
            case "ES384":
                let key = P384.Signing.PrivateKey()
                return (key.pemRepresentation, key.publicKey.pemRepresentation)
            default:
                let key = P521.Signing.PrivateKey()
                return (key.pemRepresentation, key.publicKey.pemRepresentation)
            }
        }
    }

    @Test(arguments: ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"])
    func tokensAreGoodForTheirTimeAndTheirKey(method: String) throws {
        let isShared = method.hasPrefix("HS")
        let (ownKey, public_) = isShared ? ("a shared secret", "") : try Self.pem(method)
        let signer = try TokenSigner(method: method, privateKey: Data(ownKey.utf8), publicKey: Data(public_.utf8), timeToLiveSeconds: 300)
        let token = try signer.sign("alice", revision: 17, at: 1_000)
        #expect(signer.check(token, at: 1_299) == TokenSigner.Claims(user: "alice", revision: 17, expires: 1_300))
        #expect(signer.check(token, at: 1_300) == nil)
        if !isShared {
            let verifier = try TokenSigner(method: method, privateKey: nil, publicKey: Data(public_.utf8), timeToLiveSeconds: 300)
            #expect(verifier.check(token, at: 1_000)?.user == "alice")
            #expect(throws: ServiceError.verifyOnlyKey) { try verifier.sign("alice", revision: 1, at: 0) }
            let other = try Self.pem(method)
            #expect(try TokenSigner(method: method, privateKey: nil, publicKey: Data(other.1.utf8), timeToLiveSeconds: 300).check(token, at: 1_000) == nil)
            #expect(throws: NodeError.self) { try TokenSigner(method: method, privateKey: Data(ownKey.utf8), publicKey: Data(other.1.utf8), timeToLiveSeconds: 300) }
        }
        for at in stride(from: 0, to: token.count, by: 7) where token[at] != UInt8(ascii: ".") {
            var changed = token
            // The last letter of a part has bits that stand for nothing; two letters on differ in ones that count.
            changed[at] = changed[at] == UInt8(ascii: "A") ? UInt8(ascii: "w") : UInt8(ascii: "A")
            if at != token.count - 1 { #expect(signer.check(changed, at: 1_000) == nil, "letter \(at)") }
        }
    }

    @Test func etcdsTokensAreUnderstood() throws {
        // {"alg":"HS256","typ":"JWT"}.{"exp":4102444800,"revision":5,"username":"root"} under "etcd", by Python's hmac.
        let token = bytes(Self.knownToken)
        let signer = try TokenSigner(method: "HS256", privateKey: Data("etcd".utf8), publicKey: nil, timeToLiveSeconds: 1)
        #expect(signer.check(token, at: 1_700_000_000) == TokenSigner.Claims(user: "root", revision: 5, expires: 4_102_444_800))
    }
    static let knownToken = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInJldmlzaW9uIjo1LCJ1c2VybmFtZSI6InJvb3QifQ.kbbvfkhOeBAub9iezSEY2slkbI7yoJ8SmkoONtRi4yU"

    @Test func aTokenDoesNotChooseItsMethod() throws {
        let key = try _RSA.Signing.PrivateKey(keySize: .bits2048)
        let signer = try TokenSigner(method: "RS256", privateKey: Data(key.pemRepresentation.utf8), publicKey: nil, timeToLiveSeconds: 300)
        // The public key as the secret of an HMAC; and no signature at all.
        let confused = try TokenSigner(method: "HS256", privateKey: Data(key.publicKey.pemRepresentation.utf8), publicKey: nil, timeToLiveSeconds: 300)
        #expect(signer.check(try confused.sign("root", revision: 1, at: 0), at: 0) == nil)
        #expect(signer.check(bytes("eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MX0."), at: 0) == nil)
    }

    @Test func nonsenseIsNoTokenAndNoCrash() throws {
        let signer = try TokenSigner(method: "HS256", privateKey: Data("k".utf8), publicKey: nil, timeToLiveSeconds: 300)
        var generator = SystemRandomNumberGenerator()
        for text in ["", ".", "..", "a.b.c", "....", String(repeating: "A", count: 100_000), "e30.e30.e30"] { #expect(signer.check(bytes(text), at: 0) == nil) }
        for _ in 0..<2_000 {
            let noise = (0..<Int.random(in: 0..<60, using: &generator)).map { _ in UInt8.random(in: 0x2b...0x7a, using: &generator) }
            #expect(signer.check(noise, at: 0) == nil)
        }
    }

    @Test func optionsAreEtcds() throws {
        #expect(try TokenSigner.seconds("5m") == 300 && TokenSigner.seconds("1h30m5s") == 5_405)
        for wrong in ["", "5", "m", "5x", "-5m", "5m3", "99999999999999h"] { #expect(throws: NodeError.self, "\(wrong)") { try TokenSigner.seconds(wrong) } }
        for wrong in ["jwt", "jwt,sign-method=XX256", "jwt,sign-method=HS256", "jwt,sign-method=HS256,sign-method=HS256", "jwt,x", "frob", "jwt,sign-method=RS256,pub-key=/nowhere"] {
            #expect(throws: NodeError.self, "\(wrong)") { try AuthDesk(tokens: wrong, bcryptCost: 10) }
        }
        #expect(try AuthDesk(tokens: "simple", bcryptCost: 99).bcryptCost == 10)
        #expect(AuthDesk.tokenPrefix().count == 16 && AuthDesk.tokenPrefix() != AuthDesk.tokenPrefix())
    }
}

/// The edge with a member that has authentication on, and that knows nobody unless the credential is a claim.
@Suite struct AuthEdgeTests {
    private static func enabled(hash: [UInt8]) throws -> AuthStore {
        var auth = AuthStore()
        var writes: [AuthWrite] = []
        for user in ["root", "alice"] as [UserName] { try auth.addUser(UserAddition(name: user, passwordHash: hash), into: &writes) }
        try auth.addUser(UserAddition(name: "cert", hasNoPassword: true), into: &writes)
        try auth.grantRole(.root, to: .root, into: &writes)
        try auth.enable(into: &writes)
        return auth
    }

    private static func names(_ first: String, _ second: String) -> [UInt8] { NameFields(bytes(first), bytes(second)).encoded() }

    @Test func readsOfNobodyAreRefusedHoweverTheyCome() async throws {
        try await TestBed.run { bed in
            let auth = try Self.enabled(hash: [])
            try await bed.member.loop.submit { bed.member.auth = auth }.get()
            let client = try await bed.client()
            var txn = ByteWriter()
            TxnRequest(success: [.range(RangeRequest(key: bytes("k")))]).encode(into: &txn)
            let cases: [(MethodID, [UInt8])] = [(.range, rangeRequest("k")), (.range, rangeRequest("k", serializable: true)), (.txn, txn.bytes), (.hash, []), (.hashKV, []),
                                                (.authStatus, []), (.userList, []), (.userGet, Self.names("alice", "")), (.roleList, []), (.roleGet, Self.names("r", ""))]
            for (method, request) in cases {
                let result = await client.call(method, request)
                #expect(result.status.message == ServiceError.userEmpty.message && result.messages.isEmpty, "\(method)")
            }
            #expect(await client.call(.healthCheck).status.code == .ok)
        }
    }

    @Test func loginsAreComparedHereAndReachTheMemberWithoutTheirPassword() async throws {
        try await TestBed.run { bed in
            let auth = try Self.enabled(hash: Bcrypt.hash(Secret("hunter2"), cost: 4))
            let client = try await bed.client()
            #expect(await client.call(.authenticate, Self.names("alice", "hunter2")).status.message == ServiceError.authNotEnabled.message)
            try await bed.member.loop.submit { bed.member.auth = auth }.get()
            for (user, password) in [("alice", "hunter3"), ("alice", ""), ("nobody", "hunter2"), ("", "")] {
                #expect(await client.call(.authenticate, Self.names(user, password)).status.message == ServiceError.authFailed.message, "\(user)")
            }
            #expect(await client.call(.authenticate, Self.names("cert", "x")).status.message == ServiceError.passwordForNoPasswordUser.message)
            // A stale token does not keep anybody from logging in.
            #expect(await client.call(.authenticate, Self.names("alice", "hunter2"), metadata: [MetadataField("token", "stale.1")]).status.code == .ok)
            _ = await client.call(.userAdd, Self.names("carl", "hunter2"))
            _ = await client.call(.userChangePassword, Self.names("carl", "hunter2"))
            var dumped = ""
            var kinds: [Command.Kind] = []
            for event in bed.member.events {
                dump(event, to: &dumped)
                guard case .request(_, .propose(let kind, let body, _), _, let credential) = event else { continue }
                kinds.append(kind)
                #expect(credential == .none)
                #expect(!String(decoding: body, as: UTF8.self).contains("hunter2"))
            }
            #expect(kinds == [.authenticate, .userAdd, .userChangePassword] && !dumped.contains("hunter2"))
        }
    }

    @Test func aLoginOvertakenByAChangeIsComparedAgain() async throws {
        try await TestBed.run { bed in
            let auth = try Self.enabled(hash: Bcrypt.hash(Secret("hunter2"), cost: 4))
            try await bed.member.loop.submit { bed.member.auth = auth }.get()
            // Refused twice, then taken.
            let refusals = NIOCounter()
            try await bed.member.setScript { event, member in
                guard case .request(let token, .propose(.authenticate, _, _), _, _) = event, refusals.next() <= 2 else { return false }
                member.answer(token, .failed(.authOldRevision))
                return true
            }
            let client = try await bed.client()
            #expect(await client.call(.authenticate, Self.names("alice", "hunter2")).status.code == .ok)
            #expect(refusals.value == 3)
        }
    }

    @Test func credentialsAreTokensBeforeCertificates() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            func credential(_ metadata: [MetadataField]) async throws -> Credential? {
                let before = bed.member.events.count
                _ = await client.call(.put, putRequest("k", "v"), metadata: metadata)
                guard case .request(_, _, _, let credential)? = bed.member.events.dropFirst(before).first else { return nil }
                return credential
            }
            #expect(try await credential([]) == Credential.none)
            #expect(try await credential([MetadataField("token", "a.1")]) == .token(bytes("a.1")))
            #expect(try await credential([MetadataField("authorization", "Bearer a.2")]) == .token(bytes("a.2")))
            #expect(try await credential([MetadataField("token", "a.3"), MetadataField("authorization", "a.4")]) == .token(bytes("a.3")))
        }
    }
}

/// Counts calls from any thread.
private final class NIOCounter: Sendable {
    private let count = Mutex(0)
    func next() -> Int { count.withLock { $0 += 1; return $0 } }
    var value: Int { count.withLock { $0 } }
}
