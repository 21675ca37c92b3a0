import Base
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL

/// The certificates of one of a node's ports, as they are on disk: a file that was renewed counts for the next connection.
///
/// Thread-safe. Files are read on a pool of threads, never on an event loop; whether they changed is asked at most once a `checkInterval`, and
/// only when somebody connects. What cannot be used in a changed file is logged, and the certificates before it stay in use.
final class TLSMaterial: Sendable {
    /// How old what is known of the files may be.
    static let checkInterval = TimeAmount.seconds(1)
    /// How long a connection waits for a file system that stands still before it takes what was loaded before.
    static let patience = TimeAmount.seconds(2)
    /// The largest file that is read: a bundle of all the world's authorities is below 1 MiB.
    static let maxFileBytes = 8 << 20

    /// What connections are made with.
    struct Contexts: Sendable {
        /// nil: without a certificate nobody can be accepted.
        var server: NIOSSLContext?
        /// For dialling.
        var client: NIOSSLContext
        var revoked: RevocationList?
    }

    let side: TLSSide
    let options: TLSOptions
    /// The certificate was made by the node: nobody vouches for it, and for those of its peers neither.
    let isSelfSigned: Bool
    private let rules: TLSRules
    private let logger: Logger
    private struct State {
        var contexts: Contexts?
        var stamps: [FileStamp?] = []
        var checkedAt = NIODeadline.uptimeNanoseconds(0)
        /// A check is under way, and these wait for it.
        var isChecking = false
        /// Checks begun so far: tells the patience of one from that of the next.
        var checks = 0
        var waiting: [EventLoopPromise<Contexts>] = []
    }
    private let state = NIOLockedValueBox(State())

    init(side: TLSSide, options: TLSOptions, rules: TLSRules, isSelfSigned: Bool = false, logger: Logger) {
        self.side = side
        self.options = options
        self.rules = rules
        self.isSelfSigned = isSelfSigned
        self.logger = logger
    }

    /// Reads the files now; blocks.
    /// - Throws: which file cannot be used, and why.
    func load() throws(NodeError) {
        let stamps = stamps()
        let contexts = try makeContexts()
        state.withLockedValue {
            $0.contexts = contexts
            $0.stamps = stamps
            $0.checkedAt = .now()
        }
    }

    /// What a connection that is made now should use. Mostly there at once.
    func current(on loop: any EventLoop) -> EventLoopFuture<Contexts> {
        let promise = loop.makePromise(of: Contexts.self)
        let begun = state.withLockedValue { state -> Int? in
            if let contexts = state.contexts, NIODeadline.now() < state.checkedAt + TLSMaterial.checkInterval {
                promise.succeed(contexts)
                return nil
            }
            state.waiting.append(promise)
            if state.isChecking { return nil }
            state.isChecking = true
            state.checks += 1
            return state.checks
        }
        if let begun {
            NIOSingletons.posixBlockingThreadPool.submit { [self] _ in check() }
            // The old ones are better than none while a disk hangs.
            loop.scheduleTask(in: TLSMaterial.patience) { [weak self] in self?.giveUpWaiting(for: begun) }
        }
        return promise.futureResult
    }

    private func giveUpWaiting(for check: Int) {
        let (waiting, contexts) = state.withLockedValue { state -> ([EventLoopPromise<Contexts>], Contexts?) in
            guard state.isChecking, state.checks == check else { return ([], nil) }
            defer { state.waiting = [] }
            return (state.waiting, state.contexts)
        }
        for promise in waiting {
            if let contexts { promise.succeed(contexts) } else { promise.fail(NodeError.configuration("the files of \(side) TLS cannot be read: the file system does not answer")) }
        }
    }

    private func check() {
        let before = state.withLockedValue { ($0.contexts, $0.stamps) }
        let stamps = stamps()
        var failure: NodeError?
        var contexts = before.0
        if contexts == nil || stamps != before.1 {
            do throws(NodeError) {
                contexts = try makeContexts()
                if before.0 != nil { logger.info("certificates loaded anew", metadata: ["port": "\(side)"]) }
            } catch {
                failure = error
                logger.warning("certificates cannot be loaded\(before.0 == nil ? "" : "; those loaded before stay in use")",
                               metadata: ["port": "\(side)", "reason": "\(error)"])
            }
        }
        let waiting = state.withLockedValue { state in
            state.contexts = contexts
            // Of what could not be used nothing is said again until it changes.
            state.stamps = stamps
            state.checkedAt = .now()
            state.isChecking = false
            defer { state.waiting = [] }
            return state.waiting
        }
        for promise in waiting {
            if let contexts { promise.succeed(contexts) } else { promise.fail(failure!) }
        }
    }

    // MARK: Files

    private var paths: [String] {
        [options.certificateFile, options.keyFile, options.clientCertificateFile, options.clientKeyFile, options.trustedCAFile, options.revocationListFile]
    }
    private func stamps() -> [FileStamp?] { paths.map { $0.isEmpty ? nil : FileStamp(of: $0) } }

    private func makeContexts() throws(NodeError) -> Contexts {
        var trust = NIOSSLTrustRoots.default
        if !options.trustedCAFile.isEmpty { trust = .certificates(try certificates(options.trustedCAFile, "trusted-ca-file")) }
        var own: Identity?
        if !options.certificateFile.isEmpty { own = try identity(options.certificateFile, options.keyFile, "cert-file", "key-file") }
        var shown = own
        if !options.clientCertificateFile.isEmpty {
            shown = try identity(options.clientCertificateFile, options.clientKeyFile, "client-cert-file", "client-key-file")
        }
        var server: NIOSSLContext?
        if let own {
            var configuration = TLSConfiguration.makeServerConfiguration(certificateChain: own.chain.map { .certificate($0) }, privateKey: .privateKey(own.key))
            rules.apply(to: &configuration)
            if options.demandsCertificate, !isSelfSigned {
                configuration.certificateVerification = .noHostnameVerification
                configuration.trustRoots = trust
                configuration.sendCANameList = true
            }
            // As Go has it: HTTP/2 wherever it is offered.
            if side == .client { configuration.applicationProtocols = ["h2", "http/1.1"] }
            configuration.shutdownTimeout = .seconds(1)
            server = try context(configuration, options.certificateFile, options.keyFile, "cert-file", "key-file")
        }
        var configuration = TLSConfiguration.makeClientConfiguration()
        rules.apply(to: &configuration)
        configuration.certificateVerification = isSelfSigned ? .none : .fullVerification
        configuration.trustRoots = trust
        configuration.shutdownTimeout = .seconds(1)
        if let shown {
            configuration.certificateChain = shown.chain.map { .certificate($0) }
            configuration.privateKey = .privateKey(shown.key)
        }
        let client = try context(configuration, options.clientCertificateFile, options.clientKeyFile, "client-cert-file", "client-key-file")
        var revoked: RevocationList?
        if !options.revocationListFile.isEmpty {
            let flag = side.flag("crl-file")
            let bytes = try read(options.revocationListFile, flag)
            do { revoked = try RevocationList(file: bytes) } catch {
                throw .configuration("\(flag) \(options.revocationListFile): no certificate revocation list in it (PEM or DER)")
            }
        }
        return Contexts(server: server, client: client, revoked: revoked)
    }

    private func context(_ configuration: TLSConfiguration, _ certificate: String, _ key: String, _ certificateFlag: String, _ keyFlag: String) throws(NodeError) -> NIOSSLContext {
        do { return try NIOSSLContext(configuration: configuration) } catch {
            let text = TLSFault.text(of: error)
            // Each has been parsed already, so what cannot be loaded is the pair.
            if text.contains("failedToLoadPrivateKey") || text.contains("MISMATCH") {
                throw .configuration("\(side.flag(keyFlag)) \(key) is not the key of \(side.flag(certificateFlag)) \(certificate)")
            }
            throw .configuration("\(side) TLS cannot be set up: \(text)")
        }
    }

    private typealias Identity = (chain: [NIOSSLCertificate], key: NIOSSLPrivateKey)

    private func identity(_ certificate: String, _ key: String, _ certificateFlag: String, _ keyFlag: String) throws(NodeError) -> Identity {
        let chain = try certificates(certificate, certificateFlag)
        let now = time(nil)
        if let leaf = chain.first, leaf.notValidAfter < now {
            logger.warning("a certificate has run out: renew it", metadata: ["file": "\(certificate)", "flag": "\(side.flag(certificateFlag))"])
        }
        let bytes = try read(key, side.flag(keyFlag))
        do { return (chain, try NIOSSLPrivateKey(bytes: bytes, format: .pem)) } catch {
            throw .configuration("\(side.flag(keyFlag)) \(key): no private key in it that can be used (PEM, without a passphrase)")
        }
    }

    private func certificates(_ path: String, _ flag: String) throws(NodeError) -> [NIOSSLCertificate] {
        let bytes = try read(path, side.flag(flag))
        guard let found = try? NIOSSLCertificate.fromPEMBytes(bytes), !found.isEmpty else {
            throw .configuration("\(side.flag(flag)) \(path): no certificate in it (PEM)")
        }
        return found
    }

    private func read(_ path: String, _ flag: String) throws(NodeError) -> [UInt8] {
        guard let file = fopen(path, "rb") else {
            throw .configuration("\(flag) \(path): \(String(cString: strerror(errno)).lowercased())")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { break }
            bytes += chunk.prefix(count)
            guard bytes.count <= TLSMaterial.maxFileBytes else { throw .configuration("\(flag) \(path): larger than \(TLSMaterial.maxFileBytes >> 20) MiB") }
        }
        guard ferror(file) == 0 else { throw .configuration("\(flag) \(path): \(String(cString: strerror(errno)).lowercased())") }
        return bytes
    }
}

/// Tells whether a file is still the one that was read.
struct FileStamp: Hashable, Sendable {
    private var device: UInt64
    private var inode: UInt64
    private var size: Int64
    private var modified: [Int]

    /// nil: there is no such file.
    init?(of path: String) {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        device = UInt64(truncatingIfNeeded: info.st_dev)
        inode = UInt64(truncatingIfNeeded: info.st_ino)
        size = Int64(info.st_size)
        #if canImport(Darwin)
        modified = [Int(info.st_mtimespec.tv_sec), Int(info.st_mtimespec.tv_nsec), Int(info.st_ctimespec.tv_sec), Int(info.st_ctimespec.tv_nsec)]
        #else
        modified = [Int(info.st_mtim.tv_sec), Int(info.st_mtim.tv_nsec), Int(info.st_ctim.tv_sec), Int(info.st_ctim.tv_nsec)]
        #endif
    }
}
