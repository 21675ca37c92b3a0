import Base
import Foundation
import Logging
import NIOCore
import NIOEmbedded
import NIOSSL
@testable import Server
import TestCertificates

// What reaches a port before anybody is known: the first bytes of a connection, handshakes that were tampered with, certificates and revocation lists.

extension FuzzTargets {
    static let tls: [FuzzTarget] = [
        FuzzTarget(name: "tls-first-bytes", seeds: TLSImages.firstBytes, words: ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\u{16}\u{3}\u{1}"], run: TLSImages.begin),
        FuzzTarget(name: "tls-handshake", seeds: TLSImages.handshakes, run: TLSImages.shakeHands),
        FuzzTarget(name: "certificates", seeds: TLSImages.certificates, words: ["-----BEGIN X509 CRL-----\n", "-----END X509 CRL-----\n"], maxBytes: 8 << 10, run: TLSImages.read),
    ]
}

private enum TLSImages {
    /// Made once: a server's port that wants certificates, and clients with a good one.
    private final class World: Sendable {
        let material: TLSMaterial
        let client: NIOSSLContext
        let images: [[UInt8]]

        init() throws {
            let directory = TLSImages.directory
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            atexit { try? FileManager.default.removeItem(atPath: TLSImages.directory) }
            let authority = try TestAuthority(in: directory)
            let server = try authority.issue("server"), pair = try authority.issue("client", commonName: "alice", hosts: ["10.0.0.1", "*.example.com"])
            var options = TLSOptions()
            (options.certificateFile, options.keyFile, options.trustedCAFile) = (server.certificate, server.key, authority.file)
            options.requiresClientCertificate = true
            options.revocationListFile = try authority.revoke([server])
            material = TLSMaterial(side: .client, options: options, rules: try NodeTLS().rules(), logger: TLSImages.silent)
            var configuration = TLSConfiguration.makeClientConfiguration()
            configuration.trustRoots = .file(authority.file)
            configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(pair.certificate).map { .certificate($0) }
            configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: pair.key, format: .pem))
            configuration.applicationProtocols = ["http/1.1"]
            client = try NIOSSLContext(configuration: configuration)
            let lists = [try Data(contentsOf: URL(fileURLWithPath: options.revocationListFile)), try Data(contentsOf: URL(fileURLWithPath: try authority.revoke([], file: "none")))]
            images = try [server.certificate, pair.certificate, authority.file].map { [0] + (try NIOSSLCertificate.fromPEMFile($0)[0].toDERBytes()) } + lists.map { [1] + [UInt8]($0) }
        }

        /// Read anew, since files that were looked at a second ago would be looked at by another thread.
        func port(acceptsPlaintext: Bool = false) -> TLSPort {
            try! material.load()
            return TLSPort(material: material, acceptsPlaintext: acceptsPlaintext)
        }
    }
    private static let directory = FileManager.default.temporaryDirectory.appendingPathComponent("quarterdeck-fuzz-tls-\(getpid())").path
    private static let silent = Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() }
    private static let world = try! World()

    /// The client's end of a handshake.
    private final class Client {
        private let channel = EmbeddedChannel()
        private let loop: EmbeddedEventLoop

        init() {
            loop = channel.embeddedEventLoop
            try! channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: world.client, serverHostname: "localhost"))
            channel.connect(to: try! SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        }

        func takeOutput() -> [UInt8] {
            loop.run()
            var bytes: [UInt8] = []
            while case .byteBuffer(let buffer)? = try? channel.readOutbound(as: IOData.self) { bytes += buffer.readableBytesView }
            return bytes
        }

        /// What came out of TLS.
        func feed(_ bytes: [UInt8]) -> [UInt8] {
            guard channel.isActive, !bytes.isEmpty else { return [] }
            _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
            var plain: [UInt8] = []
            while let buffer = try? channel.readInbound(as: ByteBuffer.self) { plain += buffer.readableBytesView }
            return plain
        }

        func say(_ text: String) { channel.writeAndFlush(ByteBuffer(string: text), promise: nil) }

        func close() {
            channel.close(promise: nil)
            // TLS waits for the other side's farewell.
            loop.advanceTime(by: .seconds(10))
            _ = try? channel.finish(acceptAlreadyClosed: true)
        }
    }

    // MARK: First bytes

    /// How the bytes are cut, which port they go to, and they.
    static func firstBytes() -> [[UInt8]] {
        let client = Client()
        let hello = client.takeOutput()
        client.close()
        let texts = ["GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "SSH-2.0-x\r\n"].map { Array($0.utf8) }
        return [[0, 0] + hello, [3, 0] + hello, [0, 1] + hello, [1, 2] + hello] + texts.flatMap { [[0, 0] + $0, [1, 1] + $0] }
    }

    static func begin(_ raw: UnsafeRawBufferPointer) {
        guard raw.count > 2 else { return }
        let cut = Int(raw[0])
        // TLS, TLS beside plaintext, plaintext that may begin as TLS does.
        let tls: TLSPort? = switch raw[1] % 3 { case 0: world.port(); case 1: world.port(acceptsPlaintext: true); default: nil }
        let port = ClientPort(tls: tls)
        var rest = Array(raw[2...])[...]
        while !rest.isEmpty, port.isOpen {
            let part = Array(rest.prefix(cut == 0 ? rest.count : cut))
            rest = rest.dropFirst(part.count)
            port.feed(part)
            _ = port.takeOutput()
        }
        finish(port)
    }

    /// Whoever does not finish is closed when its time is up, and no place stays taken.
    private static func finish(_ port: ClientPort) {
        port.wait(.seconds(20))
        precondition(port.handshakesUnderWay == 0, "a handshake that is not over after its time")
        port.close()
    }

    // MARK: Handshakes

    /// Changes of what the client sends: where and with what; how it is cut; where it ends.
    static func handshakes() -> [[UInt8]] {
        func plan(cut: UInt8 = 0, end: UInt16 = .max, _ changes: (at: UInt16, with: UInt8)...) -> [UInt8] {
            [cut, UInt8(truncatingIfNeeded: end), UInt8(end >> 8)] + changes.flatMap { [UInt8(truncatingIfNeeded: $0.at), UInt8($0.at >> 8), $0.with] }
        }
        return [plan(), plan(cut: 1), plan(cut: 100), plan(end: 300), plan(end: 700), plan((5, 1)), plan((43, 0xff)), plan((500, 1)), plan(cut: 50, (900, 0x80), (1_000, 1)), plan((0, 0x01), (1, 0x40))]
    }

    static func shakeHands(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        let cut = Int(choices.byte()), end = choices.number()
        var changes: [Int: UInt8] = [:]
        while !choices.isAtEnd, changes.count < 8 { changes[choices.number(), default: 0] ^= choices.byte() }
        let port = ClientPort(tls: world.port()), client = Client()
        client.say("GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        var sent = 0, answer: [UInt8] = []
        while port.isOpen {
            let out = client.takeOutput()
            var changed: [UInt8] = []
            for byte in out {
                if sent < end { changed.append(byte ^ (changes[sent] ?? 0)) }
                sent += 1
            }
            let step = cut == 0 ? max(changed.count, 1) : cut
            for start in stride(from: 0, to: changed.count, by: step) where port.isOpen { port.feed(Array(changed[start..<min(start + step, changed.count)])) }
            let back = port.takeOutput()
            answer += client.feed(back)
            if out.isEmpty, back.isEmpty { break }
        }
        // Nobody interfered: who has the certificate is served.
        if end >= sent, changes.allSatisfy({ $0.value == 0 || $0.key >= sent }) {
            precondition(String(decoding: answer, as: UTF8.self).hasPrefix("HTTP/1.1 200 OK"), "a good handshake came to nothing: \(String(decoding: answer, as: UTF8.self))")
        }
        client.close()
        finish(port)
    }

    // MARK: Files and peers' certificates

    static func certificates() -> [[UInt8]] { world.images }

    static func read(_ raw: UnsafeRawBufferPointer) {
        guard let kind = raw.first else { return }
        let bytes = Array(raw.dropFirst())
        if kind & 1 == 0 {
            guard let certificate = try? NIOSSLCertificate(bytes: bytes, format: .der), let names = try? CertificateNames(certificate) else { return }
            for name in names.dnsNames.prefix(8) + ["localhost", "10.0.0.1", "[::1]", ".", ""] { _ = names.isGood(for: name) }
        } else if let list = try? RevocationList(file: bytes) {
            for serial in list.serials.prefix(8) { precondition(list.contains([0] + serial), "a serial number that is in the list and is not") }
        }
    }
}
