import Crypto
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import TestCertificates
import Testing
@testable import Server

/// A directory that is gone at the end, for certificates.
func withDirectory<T>(_ body: (String) async throws -> T) async throws -> T {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("tls-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    return try await body(directory)
}

extension TLSRules {
    static var standard: TLSRules { get throws { try NodeTLS().rules() } }
}

@Suite struct TLSSettingsTests {
    private func refusal(_ body: () throws -> Void, _ location: SourceLocation = #_sourceLocation) -> String {
        do { try body() } catch { return "\(error)" }
        Issue.record("was accepted", sourceLocation: location)
        return ""
    }

    // MARK: Suites and versions

    @Test func suitesHaveGoNames() throws {
        #expect(try CipherSuites.parse(["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]).map(\.rawValue) == [0xC02F, 0xCCA9])
        // Go's older name for the same suite is not a second suite.
        #expect(try CipherSuites.parse(["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]).count == 1)
        for (name, suite) in CipherSuites.known { #expect(try CipherSuites.parse([name]) == [suite]) }
        #expect(refusal { _ = try CipherSuites.parse(["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"]) }
            .contains("unexpected TLS cipher suite \"ECDHE-RSA-AES128-GCM-SHA256\""))
        #expect(refusal { _ = try CipherSuites.parse(["TLS_RSA_WITH_RC4_128_SHA"]) }.contains("TLS_RSA_WITH_RC4_128_SHA is insecure"))
    }

    /// The library must take every suite of the table: it ends the process at one that it does not know.
    @Test func everyKnownSuiteIsOneOfTheLibrary() throws {
        for (name, suite) in CipherSuites.known where !CipherSuites.isForTLS13(suite) {
            var configuration = TLSConfiguration.makeClientConfiguration()
            var tls = NodeTLS()
            tls.cipherSuites = [name]
            try tls.rules().apply(to: &configuration)
            #expect(name.hasPrefix(configuration.cipherSuites) || configuration.cipherSuites.hasPrefix(name), "\(configuration.cipherSuites)")
            configuration.trustRoots = .certificates([])
            #expect(throws: Never.self, "\(name)") { try NIOSSLContext(configuration: configuration) }
        }
    }

    @Test func versionsAndSuitesMustFitTogether() throws {
        var tls = NodeTLS()
        #expect(try tls.rules().minimum == .tlsv12)
        tls.minimumVersion = "TLS1.1"
        #expect(refusal { _ = try tls.rules() } == "--tls-min-version: unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)")
        tls.minimumVersion = "TLS1.3"
        tls.maximumVersion = "TLS1.2"
        #expect(refusal { _ = try tls.rules() }.hasPrefix("min version (TLS1.3) is greater than max version (TLS1.2)"))
        tls.maximumVersion = ""
        tls.cipherSuites = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
        #expect(refusal { _ = try tls.rules() }.hasPrefix("cipher suites cannot be configured when only TLS1.3 is enabled"))
        // Suites of TLS 1.3 alone leave nothing for 1.2.
        tls.minimumVersion = "TLS1.2"
        tls.cipherSuites = ["TLS_AES_128_GCM_SHA256"]
        #expect(try tls.rules().minimum == .tlsv13)
        tls.maximumVersion = "TLS1.2"
        #expect(refusal { _ = try tls.rules() }.contains("--tls-max-version"))
    }

    @Test func wrongCombinationsAreRefusedByTheNameOfTheFlag() throws {
        let plain = [NodeURL(host: "localhost", port: 1)], secure = [NodeURL(scheme: "https", host: "localhost", port: 1)]
        #expect(throws: Never.self) { try NodeTLS().validate(clientURLs: plain, peerURLs: plain) }
        #expect(refusal { try NodeTLS().validate(clientURLs: secure, peerURLs: plain) }
            == "TLS key/cert (--cert-file, --key-file) must be provided for client url https://localhost:1 with HTTPS scheme; --auto-tls makes them")
        #expect(refusal { try NodeTLS().validate(clientURLs: plain, peerURLs: secure) }.contains("--peer-cert-file, --peer-key-file"))
        func refused(_ change: (inout NodeTLS) -> Void, _ location: SourceLocation = #_sourceLocation) -> String {
            var tls = NodeTLS()
            change(&tls)
            return refusal({ try tls.validate(clientURLs: plain, peerURLs: plain) }, location)
        }
        #expect(refused { $0.client.certificateFile = "c" }.contains("--key-file is missing"))
        #expect(refused { $0.peer.keyFile = "k" }.contains("--peer-cert-file is missing"))
        #expect(refused { $0.peer.clientCertificateFile = "c" }.contains("--peer-client-key-file is missing"))
        #expect(refused {
            $0.peer.allowedCommonNames = ["a"]
            $0.peer.allowedHostnames = ["b"]
        }.contains("mutually exclusive"))
        #expect(refused {
            $0.client.isAutomatic = true
            $0.selfSignedValidityYears = 0
        }.contains("--self-signed-cert-validity"))
    }

    @Test func oneAddressMayHaveBothSchemes() throws {
        let material = TLSMaterial(side: .client, options: TLSOptions(), rules: try .standard, logger: Logger(label: "test"))
        let urls = try NodeURL.list(parsing: "http://127.0.0.1:1,https://127.0.0.1:2,https://127.0.0.1:1,http://127.0.0.1:3")
        let ports = NodePorts.ports(urls, material)
        #expect(ports.map(\.url.port) == [1, 2, 3])
        #expect(ports.map { $0.tls != nil } == [true, true, false] && ports.map { $0.tls?.acceptsPlaintext } == [true, false, nil])
    }

    // MARK: Names

    @Test func certificatesAreGoodForTheirAlternativeNamesOnly() {
        let names = CertificateNames(commonName: "cn.example", dnsNames: ["a.example", "*.b.example"], addresses: [[127, 0, 0, 1], CertificateNames.addressBytes("fe80::1")!])
        for good in ["a.example", "A.Example.", "x.b.example", "127.0.0.1", "::ffff:127.0.0.1", "fe80::1", "[fe80::1]"] { #expect(names.isGood(for: good), "\(good)") }
        for bad in ["cn.example", "b.example", "x.y.b.example", "a.example.com", "127.0.0.2", "::1", "", "*.b.example.com", "example"] { #expect(!names.isGood(for: bad), "\(bad)") }
        #expect(!CertificateNames(dnsNames: ["*"]).isGood(for: "anything"))
    }

    @Test func aPeersAddressMustBeAmongItsNames() {
        #expect(CertificateNames(commonName: "x").mismatch(withAddress: "127.0.0.1") == nil, "nothing to compare with")
        #expect(CertificateNames(addresses: [[127, 0, 0, 1]]).mismatch(withAddress: "127.0.0.1") == nil)
        #expect(CertificateNames(addresses: [[10, 0, 0, 1]]).mismatch(withAddress: "127.0.0.1") == "the certificate is valid for 10.0.0.1, not for 127.0.0.1")
        #expect(CertificateNames(dnsNames: ["localhost"], addresses: [[10, 0, 0, 1]]).mismatch(withAddress: "127.0.0.1") == nil, "the name leads to it")
        #expect(CertificateNames(dnsNames: ["nowhere.invalid"]).mismatch(withAddress: "127.0.0.1") == "\"127.0.0.1\" does not match any of DNSNames [\"nowhere.invalid\"]")
    }

    @Test func namesAreReadFromACertificate() async throws {
        try await withDirectory { directory in
            let pair = try TestAuthority(in: directory).issue("leaf", commonName: "alice", hosts: ["a.example", "10.1.2.3"])
            let leaf = try #require(try NIOSSLCertificate.fromPEMFile(pair.certificate).first)
            #expect(try CertificateNames(leaf) == CertificateNames(commonName: "alice", dnsNames: ["a.example"], addresses: [[10, 1, 2, 3]]))
            let nameless = try TestAuthority(in: directory).issue("nameless", hosts: [])
            #expect(try CertificateNames(try NIOSSLCertificate.fromPEMFile(nameless.certificate)[0]) == CertificateNames())
        }
    }

    @Test func aRevocationListNamesSerials() async throws {
        try await withDirectory { directory in
            let authority = try TestAuthority(in: directory)
            let pairs = try (0..<3).map { try authority.issue("leaf\($0)") }
            func list(_ pairs: [TestAuthority.Pair]) throws -> [UInt8] {
                let path = try authority.revoke(pairs)
                return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            }
            let revoked = try RevocationList(file: try list(Array(pairs.prefix(2))))
            for (pair, isRevoked) in zip(pairs, [true, true, false]) {
                #expect(revoked.contains(pair.serial) == isRevoked)
                let certificate = try NIOSSLCertificate.fromPEMFile(pair.certificate)[0]
                #expect(revoked.contains(certificate.serialNumber) == isRevoked)
            }
            #expect(try RevocationList(file: list([])).serials.isEmpty)
            #expect(throws: (any Error).self) { try RevocationList(file: Array("nonsense".utf8)) }
            #expect(throws: (any Error).self) { try RevocationList(file: Array(list(pairs).dropLast(100))) }
        }
    }

    // MARK: Files

    @Test func aCertificateOfOnesOwnIsMadeOnce() async throws {
        try await withDirectory { directory in
            let place = directory + "/data/fixtures/client"
            let first = try SelfSignedCertificate.find(in: place, hosts: ["127.0.0.1", "localhost", "127.0.0.1"], validityYears: 2)
            #expect(first.isNew && first.certificate == place + "/cert.pem" && first.key == place + "/key.pem")
            let leaf = try NIOSSLCertificate.fromPEMFile(first.certificate)[0]
            #expect(try CertificateNames(leaf) == CertificateNames(dnsNames: ["localhost"], addresses: [[127, 0, 0, 1]]))
            #expect(abs(Double(leaf.notValidAfter - leaf.notValidBefore) - 2 * 365 * 86_400) < 5)
            #expect(try FileManager.default.attributesOfItem(atPath: first.key)[.posixPermissions] as? Int == 0o600)
            #expect(throws: Never.self) { try P521.Signing.PrivateKey(pemRepresentation: String(contentsOfFile: first.key, encoding: .utf8)) }
            let bytes = try Data(contentsOf: URL(fileURLWithPath: first.certificate))
            let second = try SelfSignedCertificate.find(in: place, hosts: ["other"], validityYears: 1)
            let later = try Data(contentsOf: URL(fileURLWithPath: first.certificate))
            #expect(!second.isNew && later == bytes)
        }
    }

    @Test func filesThatCannotBeUsedAreNamedWithTheirFlag() async throws {
        try await withDirectory { directory in
            let authority = try TestAuthority(in: directory)
            let one = try authority.issue("one"), two = try authority.issue("two")
            try "nonsense".write(toFile: directory + "/junk", atomically: true, encoding: .utf8)
            func refused(_ side: TLSSide = .client, _ change: (inout TLSOptions) -> Void, _ location: SourceLocation = #_sourceLocation) throws -> String {
                var options = TLSOptions()
                (options.certificateFile, options.keyFile, options.trustedCAFile) = (one.certificate, one.key, authority.file)
                change(&options)
                let material = TLSMaterial(side: side, options: options, rules: try .standard, logger: Logger(label: "test"))
                return refusal({ try material.load() }, location)
            }
            #expect(try refused { $0.certificateFile = directory + "/none" } == "--cert-file \(directory)/none: no such file or directory")
            #expect(try refused(.peer) { $0.keyFile = directory + "/none" } == "--peer-key-file \(directory)/none: no such file or directory")
            #expect(try refused { $0.certificateFile = directory + "/junk" } == "--cert-file \(directory)/junk: no certificate in it (PEM)")
            #expect(try refused { $0.keyFile = directory + "/junk" }.hasPrefix("--key-file \(directory)/junk: no private key in it"))
            #expect(try refused { $0.keyFile = two.key } == "--key-file \(two.key) is not the key of --cert-file \(one.certificate)")
            #expect(try refused { $0.trustedCAFile = directory + "/junk" } == "--trusted-ca-file \(directory)/junk: no certificate in it (PEM)")
            #expect(try refused { $0.revocationListFile = directory + "/junk" }.hasPrefix("--client-crl-file \(directory)/junk: no certificate revocation list"))
            #expect(try refused { $0.certificateFile = directory }.hasPrefix("--cert-file \(directory): "))
        }
    }

    @Test func renewedFilesAreLoadedAndBrokenOnesAreNot() async throws {
        try await withDirectory { directory in
            let authority = try TestAuthority(in: directory)
            var options = TLSOptions()
            let pair = try authority.issue("one")
            (options.certificateFile, options.keyFile) = (pair.certificate, pair.key)
            let log = WrittenLog()
            let material = TLSMaterial(side: .client, options: options, rules: try .standard, logger: Logger(label: "test", factory: { _ in log }))
            try material.load()
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            func server() async throws -> NIOSSLContext {
                let contexts = try await material.current(on: loop).get()
                return try #require(contexts.server)
            }
            let first = try await server()
            let again = try await server()
            #expect(again === first)
            _ = try authority.issue("one")
            #expect(try await eventually { try await server() !== first })
            let second = try await server()
            // Half of a renewal, or none: what there was stays.
            try "nonsense".write(toFile: pair.certificate, atomically: true, encoding: .utf8)
            #expect(try await eventually {
                _ = try await server()
                return log.lines.contains { $0.contains("those loaded before stay in use") && $0.contains("--cert-file") }
            })
            #expect(try await server() === second)
            try FileManager.default.removeItem(atPath: pair.certificate)
            #expect(try await eventually {
                _ = try await server()
                return log.lines.contains { $0.contains("no such file") }
            })
            #expect(try await server() === second)
            _ = try authority.issue("one")
            #expect(try await eventually { try await server() !== second })
        }
    }

    /// The patience for one check must not end the wait for the next one, which would be answered with what it was to replace.
    @Test func whoWaitsForACheckGetsItsResult() async throws {
        try await withDirectory { directory in
            let authority = try TestAuthority(in: directory)
            let pair = try authority.issue("one")
            var options = TLSOptions()
            (options.certificateFile, options.keyFile) = (pair.certificate, pair.key)
            let material = TLSMaterial(side: .client, options: options, rules: try .standard, logger: Logger(label: "test"))
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            var shown = try #require(try await material.current(on: loop).get().server)
            let clock = ContinuousClock()
            let began = clock.now
            // Past the end of the first check's patience.
            while clock.now - began < .nanoseconds(TLSMaterial.patience.nanoseconds + TLSMaterial.checkInterval.nanoseconds) {
                try await Task.sleep(for: .nanoseconds(TLSMaterial.checkInterval.nanoseconds + 1_000_000))
                _ = try authority.issue("one")
                let next = try #require(try await material.current(on: loop).get().server)
                #expect(next !== shown)
                shown = next
            }
        }
    }

    @Test func rejectionsAreCountedWhenThereAreTooMany() {
        let log = WrittenLog()
        let rejections = RejectionLog(Logger(label: "test", factory: { _ in log }))
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
        for _ in 0..<100 { rejections.note("no", remote: nil, "why", at: start) }
        #expect(log.lines.count == RejectionLog.burst)
        rejections.note("no", remote: nil, "why", at: start + RejectionLog.interval)
        #expect(log.lines.count == RejectionLog.burst + 1 && log.lines.last?.contains("others-not-logged") == true && log.lines.last?.contains("95") == true)
    }
}

/// Keeps what is logged, with its metadata.
final class WrittenLog: LogHandler, Sendable {
    private let written = NIOLockedValueBox<[String]>([])
    var lines: [String] { written.withLockedValue { $0 } }
    var metadata: Logger.Metadata { get { [:] } set {} }
    var logLevel: Logger.Level { get { .info } set {} }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? { get { nil } set {} }
    func log(event: LogEvent) {
        let fields = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
        written.withLockedValue { $0.append("\(event.message)\(fields)") }
    }
    var logger: Logger { Logger(label: "test", factory: { _ in self }) }
}
