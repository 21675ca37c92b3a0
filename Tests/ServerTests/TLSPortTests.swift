import Auth
import Base
import Client
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
@testable import Replica
import TestCertificates
import Testing
@testable import Server

/// TLS on real sockets: who is let in, what is said of the others, and what they cost.
@Suite(.serialized) struct TLSPortTests {
    /// Certificates of a port, and a listener with them.
    private struct Bed {
        let authority: TestAuthority
        let directory: String
        let log: WrittenLog
        let bed: TestBed
        var port: Int { bed.port }

        /// - Parameter change: of options that have a certificate and nothing else.
        static func run(_ change: (inout TLSOptions, TestAuthority) throws -> Void = { _, _ in }, port adjust: (inout TLSPort) -> Void = { _ in },
                        _ body: (Bed) async throws -> Void) async throws {
            try await withDirectory { directory in
                let authority = try TestAuthority(in: directory)
                let pair = try authority.issue("server", commonName: "server")
                var options = TLSOptions()
                (options.certificateFile, options.keyFile) = (pair.certificate, pair.key)
                try change(&options, authority)
                let log = WrittenLog()
                let material = TLSMaterial(side: .client, options: options, rules: try .standard, logger: log.logger)
                try material.load()
                var tls = TLSPort(material: material)
                // Only a test of the time-out names one: on a busy machine a handshake may take its time.
                tls.handshakeTimeout = .seconds(300)
                adjust(&tls)
                try await TestBed.run(tls: tls, logger: log.logger) { try await body(Bed(authority: authority, directory: directory, log: log, bed: $0)) }
            }
        }

        func client(_ pair: TestAuthority.Pair? = nil, trusting file: String? = nil, scheme: String = "https") throws -> EtcdClient {
            var configuration = try ClientConfiguration("\(scheme)://127.0.0.1:\(port)")
            configuration.tls = .init(caFile: file ?? authority.file, certificateFile: pair?.certificate, keyFile: pair?.key)
            configuration.dialTimeout = .seconds(20)
            configuration.requestTimeout = .seconds(20)
            return try EtcdClient(configuration: configuration)
        }

        /// Why a client is not served.
        func refusal(_ pair: TestAuthority.Pair? = nil, trusting file: String? = nil, scheme: String = "https", _ location: SourceLocation = #_sourceLocation) async throws -> String {
            let client = try client(pair, trusting: file, scheme: scheme)
            var reason = ""
            do {
                let options = CallOptions(timeout: .seconds(20), endpoint: client.configuration.endpoints[0])
                _ = try await client.put("k", "v", options: options)
                Issue.record("was served", sourceLocation: location)
            } catch { reason = "\(error)" }
            await client.close()
            return reason
        }

        func logged(_ words: String, _ location: SourceLocation = #_sourceLocation) async {
            let found = await eventually { log.lines.contains { $0.contains(words) } }
            #expect(found, "\(words)\nis not in\n\(log.lines.joined(separator: "\n"))", sourceLocation: location)
        }
    }

    @Test func callsAreServedAndAnotherAuthorityIsNotTrusted() async throws {
        try await Bed.run { bed in
            let client = try bed.client()
            for n in 0..<50 { try await client.put("k\(n)", String(repeating: "v", count: n * 1_000)) }
            #expect(try await client.get("k49")?.valueText.count == 49_000)
            await client.close()
            let other = try TestAuthority(in: bed.directory, name: "other")
            #expect(try await bed.refusal(trusting: other.file).contains("not from an authority that this client trusts"))
            await bed.logged("the client does not accept our certificate")
        }
    }

    @Test func clientsMustShowACertificateOfTheAuthority() async throws {
        try await Bed.run({ options, authority in options.trustedCAFile = authority.file }) { bed in
            let good = try bed.client(try bed.authority.issue("good", commonName: "good"))
            try await good.put("k", "v")
            // Without --client-cert-auth the name in it means nothing.
            #expect(bed.bed.member.events.allSatisfy { if case .request(_, _, _, .commonName) = $0 { false } else { true } })
            await good.close()
            #expect(try await bed.refusal() != "")
            await bed.logged("the client showed no certificate, which --client-cert-auth or --trusted-ca-file demands")
            let other = try TestAuthority(in: bed.directory, name: "other").issue("foreign")
            #expect(try await bed.refusal(other) != "")
            await bed.logged("the client's certificate cannot be verified")
            #expect(try await bed.refusal(bed.authority.issue("old", lifetime: -60)) != "")
            #expect(try await bed.refusal(bed.authority.issue("server-only", isForClients: false)) != "")
        }
    }

    @Test func theCommonNameIsTheUserWithClientCertAuth() async throws {
        try await Bed.run({ options, authority in
            options.trustedCAFile = authority.file
            options.requiresClientCertificate = true
        }) { bed in
            for (name, credential) in [("alice", Credential.commonName(UserName(Array("alice".utf8)))), ("", Credential.none)] {
                let client = try bed.client(try bed.authority.issue("leaf-\(name)", commonName: name))
                try await client.put("by", name)
                await client.close()
                guard case .request(_, _, _, let found)? = bed.bed.member.events.last(where: { if case .request = $0 { true } else { false } }) else {
                    Issue.record("no request")
                    continue
                }
                #expect(found == credential)
            }
        }
    }

    @Test func revokedAndUnnamedClientsAreRefused() async throws {
        var revoked: TestAuthority.Pair?
        try await Bed.run({ options, authority in
            revoked = try authority.issue("revoked", hosts: ["a.example"])
            options.trustedCAFile = authority.file
            options.revocationListFile = try authority.revoke([revoked!])
            options.allowedHostnames = ["b.example", "a.example"]
        }) { bed in
            let good = try bed.client(try bed.authority.issue("good", hosts: ["a.example"]))
            try await good.put("k", "v")
            await good.close()
            #expect(try await bed.refusal(revoked) != "")
            await bed.logged("is revoked")
            #expect(try await bed.refusal(bed.authority.issue("unnamed", hosts: ["c.example"])) != "")
            await bed.logged("client certificate authentication failed: it is for none of the hosts in --client-cert-allowed-hostname")
        }
    }

    @Test func plaintextIsClosedAtOnceAndSaidToBeSo() async throws {
        try await Bed.run { bed in
            let answer = try await RawConnection.exchange(bed.port, group: bed.bed.group, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(answer == "")
            await bed.logged("rejected connection on client endpoint error=plaintext HTTP to a TLS port: the URL must begin with https://")
            let reason = try await bed.refusal(scheme: "http")
            #expect(reason.contains("it may want TLS (https://)"), "\(reason)")
            await bed.logged("plaintext HTTP/2 (gRPC) to a TLS port")
        }
    }

    @Test func tlsToAPlaintextPortIsClosedAtOnceAndSaidToBeSo() async throws {
        let log = WrittenLog()
        try await TestBed.run(logger: log.logger) { bed in
            var configuration = try ClientConfiguration("https://127.0.0.1:\(bed.port)")
            configuration.tls = .init(skipsVerification: true)
            configuration.dialTimeout = .seconds(20)
            let client = try EtcdClient(configuration: configuration)
            do {
                _ = try await client.put("k", "v", options: CallOptions(timeout: .seconds(20), endpoint: configuration.endpoints[0]))
                Issue.record("was served")
            } catch { #expect("\(error)".contains("it may not speak TLS (http:// instead of https://)"), "\(error)") }
            await client.close()
            #expect(await eventually { log.lines.contains { $0.contains("TLS to a plaintext port: the URL must begin with http://") } })
        }
    }

    @Test func oneAddressServesBothWhenToldSo() async throws {
        try await Bed.run(port: { $0.acceptsPlaintext = true }) { bed in
            for scheme in ["http", "https"] {
                let client = try bed.client(scheme: scheme)
                try await client.put(scheme, "v")
                await client.close()
            }
            #expect(try await RawConnection.exchange(bed.port, group: bed.bed.group, "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").hasPrefix("HTTP/1.1 200"))
        }
    }

    // MARK: Protocols

    /// What a raw TLS client is answered, and which protocol was agreed on.
    private func exchange(_ bed: Bed, offering protocols: [String], _ text: String, versions: ClosedRange<Int> = 12...13) async throws -> (protocol: String?, answer: String) {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = protocols
        configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(bed.authority.file))
        configuration.minimumTLSVersion = versions.lowerBound == 12 ? .tlsv12 : .tlsv13
        configuration.maximumTLSVersion = versions.upperBound == 12 ? .tlsv12 : .tlsv13
        let context = try NIOSSLContext(configuration: configuration)
        let collector = RawConnection.Collector()
        let agreed = bed.bed.group.next().makePromise(of: String?.self)
        let channel = try await ClientBootstrap(group: bed.bed.group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandlers([try NIOSSLClientHandler(context: context, serverHostname: "localhost"), Agreed(agreed), collector])
            }
        }.connect(host: "127.0.0.1", port: bed.port).get()
        try await channel.writeAndFlush(ByteBuffer(string: text)).get()
        let limit = channel.eventLoop.scheduleTask(in: .seconds(30)) { channel.close(promise: nil) }
        try await channel.closeFuture.get()
        limit.cancel()
        return (try await agreed.futureResult.get(), collector.text)
    }

    private final class Agreed: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let promise: EventLoopPromise<String?>
        init(_ promise: EventLoopPromise<String?>) { self.promise = promise }
        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case .handshakeCompleted(let name)? = event as? TLSUserEvent { promise.succeed(name) }
            context.fireUserInboundEventTriggered(event)
        }
        func channelInactive(context: ChannelHandlerContext) {
            promise.fail(ChannelError.eof)
            context.fireChannelInactive()
        }
    }

    /// What begins as HTTP/1.1 is served as such, whatever was agreed on.
    @Test func httpIsServedWhateverIsOffered() async throws {
        try await Bed.run { bed in
            let request = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            for (offered, agreed) in [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], nil)] as [([String], String?)] {
                for versions in [12...12, 13...13] {
                    let (name, answer) = try await exchange(bed, offering: offered, request, versions: versions)
                    #expect(name == agreed && answer.hasPrefix("HTTP/1.1 200 OK") && answer.contains("etcdserver"), "\(offered) \(versions): \(name ?? "nothing") \(answer)")
                }
            }
        }
    }

    // MARK: Bounds

    @Test func aHandshakeThatDoesNotEndIsCut() async throws {
        try await Bed.run(port: { $0.handshakeTimeout = .milliseconds(50) }) { bed in
            let (silent, _) = try await RawConnection.open(bed.port, group: bed.bed.group)
            let (half, collector) = try await RawConnection.open(bed.port, group: bed.bed.group)
            // The head of a record, and half of what it promises.
            try await half.writeAndFlush(ByteBuffer(bytes: [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])).get()
            try await silent.closeFuture.get()
            try await half.closeFuture.get()
            #expect(collector.text == "")
            await bed.logged("no TLS handshake within")
        }
    }

    @Test func halfOpenHandshakesPushEachOtherOut() async throws {
        try await Bed.run(port: { $0.maxHandshakes = 4 }) { bed in
            var channels: [any Channel] = []
            for _ in 0..<10 { channels.append(try await RawConnection.open(bed.port, group: bed.bed.group).0) }
            // The oldest six go; the others keep their place.
            for channel in channels.prefix(6) { try await channel.closeFuture.get() }
            await bed.logged("more than 4 TLS handshakes are under way")
            let client = try bed.client()
            for n in 0..<5 { try await client.put("k\(n)", "v") }
            await client.close()
            #expect(channels.suffix(3).allSatisfy { $0.isActive }, "one that means it costs the oldest its place only while it shakes hands")
            for channel in channels { channel.close(promise: nil) }
        }
    }

    @Test func nonsenseInsteadOfAHandshakeHarmsNobody() async throws {
        try await Bed.run { bed in
            var generator = SeededGenerator(seed: 7)
            for round in 0..<30 {
                let (channel, _) = try await RawConnection.open(bed.port, group: bed.bed.group)
                var bytes: [UInt8] = round % 3 == 0 ? [] : [22, 3, 1, 0, UInt8.random(in: 1...255, using: &generator)]
                for _ in 0..<300 { bytes.append(.random(in: 0...255, using: &generator)) }
                try? await channel.writeAndFlush(ByteBuffer(bytes: bytes)).get()
                channel.close(promise: nil)
            }
            let client = try bed.client()
            try await client.put("k", "v")
            await client.close()
        }
    }

    @Test func anAbortedPortResetsItsConnectionsAtOnce() async throws {
        try await Bed.run { bed in
            let client = try bed.client()
            try await client.put("k", "v")
            let (silent, _) = try await RawConnection.open(bed.port, group: bed.bed.group)
            try await bed.bed.listener.abort().get()
            try await silent.closeFuture.get()
            await client.close()
        }
    }

    // MARK: Renewal

    @Test func aRenewedCertificateIsShownToTheNextConnection() async throws {
        try await Bed.run { bed in
            let old = try bed.client()
            try await old.put("k", "v")
            let second = try TestAuthority(in: bed.directory, name: "second")
            _ = try second.issue("server")
            var isServed = false
            let served = try await eventually(within: .seconds(30)) {
                let client = try bed.client(trusting: second.file)
                isServed = (try? await client.put("k", "w", options: CallOptions(timeout: .seconds(5)))) != nil
                await client.close()
                return isServed
            }
            #expect(served)
            // Nobody who is connected has to go.
            try await old.put("k", "x")
            await old.close()
            #expect(try await bed.refusal() != "", "the first authority does not vouch for it")
        }
    }

    // MARK: Peers

    /// A peer port whose connections stay open when they are let in.
    private func withPeerPort(_ change: (inout TLSOptions) -> Void = { _ in },
                              _ body: (_ port: Int, _ authority: TestAuthority, _ options: TLSOptions, _ log: WrittenLog, _ directory: String) async throws -> Void) async throws {
        try await withDirectory { directory in
            let authority = try TestAuthority(in: directory)
            let pair = try authority.issue("peer", commonName: "peer")
            var options = TLSOptions()
            (options.certificateFile, options.keyFile, options.trustedCAFile, options.requiresClientCertificate) = (pair.certificate, pair.key, authority.file, true)
            change(&options)
            let log = WrittenLog()
            let material = TLSMaterial(side: .peer, options: options, rules: try .standard, logger: log.logger)
            let identity = NodeIdentity(cluster: ClusterID(7), member: MemberID(1), name: "n1", options: ReplicaOptions())
            let group = MultiThreadedEventLoopGroup.singleton
            let transport = PeerTransport(identity: identity, loop: group.next(), links: OpenLinks(), generator: SeededGenerator(seed: 1), metrics: NodeMetrics(),
                                          logger: log.logger, intake: { _, _ in preconditionFailure("no snapshots here") }, post: { _ in })
            let port = try await transport.listen(host: "127.0.0.1", port: 0, tls: TLSPort(material: material)).get().localAddress!.port!
            var failure: (any Error)?
            do { try await body(port, authority, options, log, directory) } catch { failure = error }
            try await transport.loop.flatSubmit { transport.close(abruptly: true) }.get()
            if let failure { throw failure }
        }
    }

    /// The cluster's members as told by the peer on this port, asked with a certificate.
    private func ask(_ port: Int, _ options: TLSOptions, with pair: TestAuthority.Pair?, host: String = "127.0.0.1") async throws -> RemoteCluster {
        var own = options
        (own.clientCertificateFile, own.clientKeyFile) = (pair?.certificate ?? "", pair?.key ?? "")
        if pair == nil { (own.certificateFile, own.keyFile) = ("", "") }
        let material = TLSMaterial(side: .peer, options: own, rules: try .standard, logger: Logger(label: "test"))
        return try await RemoteCluster.fetch(from: [NodeURL(scheme: "https", host: host, port: port)], by: PeerDialer(tls: material), on: MultiThreadedEventLoopGroup.singleton)
    }

    @Test func membersAskEachOtherWithTheirCertificates() async throws {
        try await withPeerPort { port, authority, options, log, _ in
            let good = try authority.issue("good", commonName: "n2")
            for host in ["127.0.0.1", "localhost"] { #expect(try await ask(port, options, with: good, host: host).id == ClusterID(7)) }
            // Names nothing: not compared with its address.
            #expect(try await ask(port, options, with: try authority.issue("nameless", hosts: [])).id == ClusterID(7))
            await #expect(throws: (any Error).self) { try await self.ask(port, options, with: nil) }
            #expect(await eventually { log.lines.contains { $0.contains("the peer showed no certificate, which --peer-client-cert-auth or --peer-trusted-ca-file demands") } })
            await #expect(throws: (any Error).self) { try await self.ask(port, options, with: try authority.issue("elsewhere", hosts: ["10.0.0.1"])) }
            #expect(await eventually { log.lines.contains { $0.contains("the certificate is valid for 10.0.0.1, not for 127.0.0.1") } }, "\(log.lines)")
            await #expect(throws: (any Error).self) { try await self.ask(port, options, with: try authority.issue("unknown", hosts: ["nowhere.invalid"])) }
            #expect(await eventually { log.lines.contains { $0.contains("does not match any of DNSNames") } }, "\(log.lines)")
            // A name that leads to its address will do.
            #expect(try await ask(port, options, with: try authority.issue("by-name", hosts: ["localhost", "10.0.0.1"])).id == ClusterID(7))
        }
        try await withPeerPort({ $0.skipsAddressCheck = true }) { port, authority, options, _, _ in
            let cluster = try await ask(port, options, with: try authority.issue("elsewhere", hosts: ["10.0.0.1"]))
            #expect(cluster.id == ClusterID(7))
        }
    }

    @Test func peersAreChosenByTheirNames() async throws {
        try await withPeerPort({ $0.allowedCommonNames = ["n1", "n2"] }) { port, authority, options, log, _ in
            let cluster = try await ask(port, options, with: try authority.issue("good", commonName: "n2"))
            #expect(cluster.id == ClusterID(7))
            await #expect(throws: (any Error).self) { try await self.ask(port, options, with: try authority.issue("bad", commonName: "n3")) }
            #expect(await eventually { log.lines.contains { $0.contains("client certificate authentication failed: its CN \"n3\" is not in --peer-cert-allowed-cn") } }, "\(log.lines)")
        }
        try await withPeerPort({ $0.allowedHostnames = ["localhost"] }) { port, authority, options, log, _ in
            let cluster = try await ask(port, options, with: try authority.issue("good"))
            #expect(cluster.id == ClusterID(7))
            await #expect(throws: (any Error).self) { try await self.ask(port, options, with: try authority.issue("bad", hosts: ["127.0.0.1"])) }
            #expect(await eventually { log.lines.contains { $0.contains("--peer-cert-allowed-hostname") } }, "\(log.lines)")
        }
    }

    @Test func thePeerThatIsDialledMustBeTheOneOfTheURL() async throws {
        try await withPeerPort { port, authority, options, _, _ in
            let good = try authority.issue("good")
            _ = try authority.issue("peer", hosts: ["elsewhere.example"])
            var reason = ""
            // The old certificate is known for another moment.
            let refused = await eventually {
                do { _ = try await ask(port, options, with: good) } catch { reason = "\(error)" }
                return reason.contains("certificate is for other hosts than the one in its URL")
            }
            #expect(refused, "\(reason)")
        }
    }
}
