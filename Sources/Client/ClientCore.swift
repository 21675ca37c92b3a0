import Base
import GRPC
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import Wire

/// The engine room of `EtcdClient`: pool, tokens, attempts. Everything but `loop` and `configuration` is confined to the loop.
final class ClientCore: @unchecked Sendable {
    // Sendable because other threads touch only the two constants and go through `loop` for the rest.
    let loop: any EventLoop
    let configuration: ClientConfiguration
    let pool: EndpointPool
    private(set) var isClosed = false

    /// What calls authenticate with.
    private enum Token {
        /// Not asked for yet, or found stale.
        case missing
        case fetching([(Result<MetadataField?, EtcdError>) -> Void])
        /// nil: the cluster runs without authentication.
        case known(MetadataField?)
    }
    private var token = Token.missing
    lazy var leases = LeaseKeeper(core: self)

    init(loop: any EventLoop, configuration: ClientConfiguration) throws(EtcdError) {
        self.loop = loop
        self.configuration = configuration
        let needsTLS = configuration.tls != nil || configuration.endpoints.contains { $0.isTLS == true }
        let context = needsTLS ? try ClientCore.tlsContext(configuration.tls ?? .init()) : nil
        pool = EndpointPool(loop: loop, configuration: configuration, tlsContext: context)
    }

    private static func tlsContext(_ settings: ClientConfiguration.TLS) throws(EtcdError) -> NIOSSLContext {
        do {
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.applicationProtocols = ["h2"]
            tls.minimumTLSVersion = .tlsv12
            // BoringSSL's own lists lack P-521, with which etcd makes and signs the certificates of --auto-tls.
            tls.curves = [.x25519, .secp256r1, .secp384r1, .secp521r1]
            tls.verifySignatureAlgorithms = [
                .ecdsaSecp256R1Sha256, .ecdsaSecp384R1Sha384, .ecdsaSecp521R1Sha512, .ed25519, .rsaPssRsaeSha256, .rsaPssRsaeSha384, .rsaPssRsaeSha512,
                .rsaPkcs1Sha256, .rsaPkcs1Sha384, .rsaPkcs1Sha512,
            ]
            if let file = settings.caFile { tls.trustRoots = .file(file) }
            if let file = settings.certificateFile {
                tls.certificateChain = try NIOSSLCertificate.fromPEMFile(file).map { .certificate($0) }
            }
            if let file = settings.keyFile { tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: file, format: .pem)) }
            if settings.skipsVerification { tls.certificateVerification = .none }
            return try NIOSSLContext(configuration: tls)
        } catch {
            throw .configuration("TLS: \(error)")
        }
    }

    func close() {
        loop.assertInEventLoop()
        guard !isClosed else { return }
        isClosed = true
        leases.close()
        pool.close()
    }

    /// A deterministic client would hide thundering herds; this is an edge, so real randomness is right.
    func backoff(attempt: Int) -> TimeAmount {
        let shift = Int64(min(attempt, 16))
        let full = min(configuration.minimumBackoff * (1 << shift), configuration.maximumBackoff)
        return .nanoseconds(full.nanoseconds / 2 + Int64.random(in: 0...max(full.nanoseconds / 2, 1)))
    }

    // MARK: Tokens

    /// Metadata for a call, once a token is there if one is needed.
    func withToken(_ answer: @escaping (Result<MetadataField?, EtcdError>) -> Void) {
        guard let user = configuration.user, let password = configuration.password else { return answer(.success(nil)) }
        switch token {
        case .known(let field): answer(.success(field))
        case .fetching(let others): token = .fetching(others + [answer])
        case .missing:
            token = .fetching([answer])
            var request = PBAuthenticateRequest()
            request.name = user
            request.password = password
            UnaryCall(core: self, .authenticate, request.encoded(), CallOptions()).start { [self] result in
                guard case .fetching(let waiting) = token else { return }
                let outcome: Result<MetadataField?, EtcdError>
                switch result {
                case .success(let bytes):
                    do {
                        outcome = .success(MetadataField("token", try PBAuthenticateResponse(decoding: bytes).token))
                    } catch {
                        outcome = .failure(.malformedResponse("\(error)"))
                    }
                case .failure(let error as EtcdError):
                    // Without authentication there is nothing to prove.
                    outcome = error.isService(.authNotEnabled) ? .success(nil) : .failure(error)
                case .failure: outcome = .failure(.closed)
                }
                if case .success(let field) = outcome { token = .known(field) } else { token = .missing }
                for answer in waiting { answer(outcome) }
            }
        }
    }

    /// The server refused `used`: the next call fetches a new token, unless someone already did.
    func discardToken(_ used: MetadataField?) {
        if case .known(let field) = token, field == used { token = .missing }
    }

    /// True for the errors after which etcd's clients authenticate again.
    func wantsNewToken(_ error: ServiceError) -> Bool {
        guard configuration.user != nil, configuration.password != nil else { return false }
        return error.message == ServiceError.invalidAuthToken.message || error.message == ServiceError.authOldRevision.message
            || error.message == ServiceError.userEmpty.message || error.message == ClientCore.oldRevision
    }

    /// What 3.4 and early 3.5 say (as UNKNOWN) for `authOldRevision`.
    private static let oldRevision = "auth: revision in header is old"

    static let hasLeader = MetadataField("hasleader", "true")
    static let paths: [[UInt8]] = MethodID.allCases.map { Array($0.path.utf8) }

    static func path(_ method: MethodID) -> [UInt8] { paths[Int(method.rawValue)] }
}

extension MethodID {
    /// Calls that change nothing may be tried again whatever happened to the first attempt. (etcd's "immutable" calls)
    var isRepeatable: Bool {
        switch self {
        case .range, .leaseTimeToLive, .leaseLeases, .memberList, .status, .hash, .hashKV, .authStatus, .authenticate,
             .userGet, .userList, .roleGet, .roleList, .healthCheck: true
        default: false
        }
    }
}

/// One unary call with its attempts. Created anywhere, used on the loop.
///
/// An attempt fails, and the call goes on to the next one, when: the server has not looked at it; or the method only reads and
/// the answer was UNAVAILABLE; or the token was stale (once). Otherwise the failure is the caller's. A pinned call has
/// one attempt.
final class UnaryCall: CallReceiver, @unchecked Sendable {
    // Sendable because it is used on the core's loop only.
    private let core: ClientCore
    private let method: MethodID
    private let request: [UInt8]
    private let options: CallOptions
    private var completion: ((Result<[UInt8], any Error>) -> Void)?
    private var timer: Scheduled<Void>?
    private var retryTimer: Scheduled<Void>?
    private var deadline = NIODeadline.distantFuture
    private var attempt = 0
    private var hasReauthenticated = false
    private var usedToken: MetadataField?
    private var lastFailure: EtcdError?
    private var waiter: EndpointPool.Waiter?
    private var running: (connection: ClientConnection, stream: StreamID, since: NIODeadline)?
    private var answer: [UInt8]?
    /// Also set before the start, when the task was cancelled early.
    private var isCancelled = false

    init(core: ClientCore, _ method: MethodID, _ request: [UInt8], _ options: CallOptions) {
        self.core = core
        self.method = method
        self.request = request
        self.options = options
    }

    func start(_ completion: @escaping (Result<[UInt8], any Error>) -> Void) {
        guard !isCancelled else { return completion(.failure(CancellationError())) }
        self.completion = completion
        let timeout = options.timeout ?? core.configuration.requestTimeout
        deadline = .now() + .nanoseconds(timeout.nanoseconds)
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        timer = core.loop.scheduleTask(deadline: deadline) { bound.value.timeUp() }
        beginAttempt()
    }

    func cancel() {
        isCancelled = true
        guard completion != nil else { return }
        abandonAttempt()
        complete(.failure(CancellationError()))
    }

    private func timeUp() {
        guard completion != nil else { return }
        abandonAttempt()
        complete(.failure(EtcdError.deadlineExceeded(last: lastFailure?.description)))
    }

    private func abandonAttempt() {
        waiter?.cancel()
        waiter = nil
        if let running { running.connection.cancel(running.stream) }
        running = nil
    }

    private func complete(_ result: Result<[UInt8], any Error>) {
        timer?.cancel()
        retryTimer?.cancel()
        let completion = self.completion
        self.completion = nil
        if completion != nil { options.onAttempts?(attempt) }
        completion?(result)
    }

    private func beginAttempt() {
        guard completion != nil else { return }
        guard !core.isClosed else { return complete(.failure(EtcdError.closed)) }
        attempt += 1
        if method == .authenticate { return findConnection(nil) }
        core.withToken { [self] result in
            guard completion != nil else { return }
            switch result {
            case .success(let field): findConnection(field)
            case .failure(let error): complete(.failure(error))
            }
        }
    }

    private func findConnection(_ token: MetadataField?) {
        usedToken = token
        if let connection = core.pool.ready(options.endpoint) { return run(on: connection) }
        waiter = core.pool.connection(options.endpoint) { [self] result in
            waiter = nil
            guard completion != nil else { return }
            switch result {
            case .success(let connection): run(on: connection)
            case .failure(let error): failed(error, mayRepeat: true)
            }
        }
    }

    private func run(on connection: ClientConnection) {
        var metadata: [MetadataField] = []
        if let usedToken { metadata.append(usedToken) }
        if options.requiresLeader { metadata.append(ClientCore.hasLeader) }
        let now = NIODeadline.now()
        let left = TimeSpan(nanoseconds: (deadline - now).nanoseconds)
        guard left.nanoseconds > 0 else { return timeUp() }
        answer = nil
        guard let stream = connection.start(ClientCore.path(method), metadata: metadata, timeout: left, receiver: self) else {
            return failed(.transport(endpoint: connection.endpoint.text, reason: "connection takes no new calls", wasSent: false), mayRepeat: true)
        }
        running = (connection, stream, now)
        connection.send(stream, request, endsStream: true)
    }

    override func received(_ message: UnsafeRawBufferPointer) { answer = [UInt8](message) }

    override func finished(_ status: CallStatus, from connection: ClientConnection) {
        guard let running, completion != nil else { return }
        self.running = nil
        if status.code == .ok {
            guard let answer else {
                return complete(.failure(EtcdError.malformedResponse("status OK without a message")))
            }
            core.pool.noteLatency(connection.endpoint, TimeSpan(nanoseconds: (NIODeadline.now() - running.since).nanoseconds))
            return complete(.success(answer))
        }
        if status.isUnprocessed {
            return failed(.transport(endpoint: connection.endpoint.text, reason: status.message, wasSent: false), mayRepeat: true)
        }
        let error = ServiceError(status.code, status.message)
        if core.wantsNewToken(error), !hasReauthenticated, method != .authenticate {
            hasReauthenticated = true
            core.discardToken(usedToken)
            return beginAttempt()
        }
        if status.code == .unavailable {
            core.pool.avoid(connection.endpoint)
            // Without the server's word it is a broken connection.
            let failure: EtcdError = connection.takesCalls
                ? .service(error) : .transport(endpoint: connection.endpoint.text, reason: status.message, wasSent: true)
            return failed(failure, mayRepeat: method.isRepeatable)
        }
        complete(.failure(EtcdError.service(error)))
    }

    private func failed(_ error: EtcdError, mayRepeat: Bool) {
        guard mayRepeat, options.endpoint == nil, !core.isClosed else { return complete(.failure(error)) }
        if case .configuration = error { return complete(.failure(error)) }
        lastFailure = error
        // The first failure of several endpoints goes to the next one at once.
        let count = core.configuration.endpoints.count
        let wait = attempt < count ? TimeAmount.zero : core.backoff(attempt: attempt - count)
        guard NIODeadline.now() + wait < deadline else { return }
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        retryTimer = core.loop.scheduleTask(in: wait) { bound.value.beginAttempt() }
    }
}

/// A streaming call on one connection, without attempts of its own. Used on the loop.
final class StreamCall: CallReceiver {
    private let core: ClientCore
    private let method: MethodID
    private let options: CallOptions
    private var waiter: EndpointPool.Waiter?
    private var running: (connection: ClientConnection, stream: StreamID)?
    private(set) var usedToken: MetadataField?
    private var isOver = false
    /// The call runs: messages can be sent.
    var onOpen: (StreamCall) -> Void = { _ in }
    var onMessage: (UnsafeRawBufferPointer) -> Void = { _ in }
    /// Comes once, unless cancelled.
    var onEnd: (EtcdError?) -> Void = { _ in }

    init(core: ClientCore, _ method: MethodID, _ options: CallOptions) {
        self.core = core
        self.method = method
        self.options = options
    }

    var endpoint: Endpoint? { running?.connection.endpoint }

    func start() {
        core.withToken { [self] result in
            guard !isOver else { return }
            switch result {
            case .failure(let error): end(error)
            case .success(let field):
                usedToken = field
                waiter = core.pool.connection(options.endpoint) { [self] result in
                    waiter = nil
                    guard !isOver else { return }
                    switch result {
                    case .failure(let error): end(error)
                    case .success(let connection): open(on: connection)
                    }
                }
            }
        }
    }

    private func open(on connection: ClientConnection) {
        var metadata: [MetadataField] = []
        if let usedToken { metadata.append(usedToken) }
        if options.requiresLeader { metadata.append(ClientCore.hasLeader) }
        guard let stream = connection.start(ClientCore.path(method), metadata: metadata, timeout: options.timeout, receiver: self) else {
            return end(.transport(endpoint: connection.endpoint.text, reason: "connection takes no new calls", wasSent: false))
        }
        running = (connection, stream)
        onOpen(self)
    }

    func send(_ message: [UInt8], endsStream: Bool = false) {
        guard let running, !isOver else { return }
        running.connection.send(running.stream, message, endsStream: endsStream)
    }

    func pause() { if let running { running.connection.pause(running.stream) } }
    func resume() { if let running { running.connection.resume(running.stream) } }

    /// Ends the call without a word to `onEnd`.
    func cancel() {
        guard !isOver else { return }
        isOver = true
        waiter?.cancel()
        waiter = nil
        if let running { running.connection.cancel(running.stream) }
        drop()
    }

    override func received(_ message: UnsafeRawBufferPointer) { if !isOver { onMessage(message) } }

    override func finished(_ status: CallStatus, from connection: ClientConnection) {
        if status.code == .ok { return end(nil) }
        if status.code == .unavailable { core.pool.avoid(connection.endpoint) }
        if status.isUnprocessed || (status.code == .unavailable && !connection.takesCalls) {
            end(.transport(endpoint: connection.endpoint.text, reason: status.message, wasSent: !status.isUnprocessed))
        } else {
            end(.service(ServiceError(status.code, status.message)))
        }
    }

    private func end(_ error: EtcdError?) {
        guard !isOver else { return }
        isOver = true
        let onEnd = self.onEnd
        drop()
        onEnd(error)
    }

    /// The closures hold their owner; a finished call must not.
    private func drop() {
        running = nil
        onOpen = { _ in }
        onMessage = { _ in }
        onEnd = { _ in }
    }
}
