import Base
import CNghttp2

/// How a call ended.
public struct CallStatus: Hashable, Sendable {
    public var code: StatusCode
    public var message: String
    /// True when the server certainly has not looked at the call, so that even a write may be tried elsewhere: it was
    /// refused, or never left this process.
    public var isUnprocessed: Bool

    public init(_ code: StatusCode, _ message: String, isUnprocessed: Bool = false) {
        self.code = code
        self.message = message
        self.isUnprocessed = isUnprocessed
    }
}

/// What a client's connection is told. All calls come from inside `receive`, `drainOutput` or `connectionClosed`, on the
/// session's thread. Actions may be called from inside, except `receive` and `drainOutput`.
public protocol GRPCClientDelegate: AnyObject {
    /// The server's first SETTINGS arrived: it is alive and speaks HTTP/2.
    func sessionReady(_ session: GRPCClientSession)
    /// The next message of a call, valid during this call only.
    func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID)
    /// The call is over. Comes exactly once for every started call that was not cancelled.
    func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus)
    /// The server will take no new calls on this connection; running ones up to its limit go on.
    func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String)
    /// The answer to `ping`.
    func session(_ session: GRPCClientSession, pong payload: UInt64)
}

/// A header field of a request. Names are lower case.
public struct MetadataField: Hashable, Sendable {
    public var name: [UInt8]
    public var value: [UInt8]
    public init(_ name: String, _ value: String) {
        self.name = Array(name.utf8)
        self.value = Array(value.utf8)
    }
}

/// The client's end of a gRPC connection. Confined to one thread; the delegate must outlive it (it usually owns it).
public final class GRPCClientSession: HTTP2Session {
    private unowned(unsafe) let delegate: any GRPCClientDelegate
    /// Responses above this end their call with RESOURCE_EXHAUSTED.
    public let maxReceiveMessageBytes: Int
    private let authority: [UInt8]
    private let isTLS: Bool
    private let userAgent: [UInt8]
    private var calls: [StreamID: ClientCall] = [:]

    /// `authority` is the server's host and port as the client names it.
    public init(delegate: any GRPCClientDelegate, authority: String, isTLS: Bool, userAgent: String = "quarterdeck",
                maxReceiveMessageBytes: Int = Int(Int32.max), settings: HTTP2Settings = HTTP2Settings()) {
        self.delegate = delegate
        self.authority = Array(authority.utf8)
        self.isTLS = isTLS
        self.userAgent = Array(userAgent.utf8)
        self.maxReceiveMessageBytes = maxReceiveMessageBytes
        super.init(role: .client, settings: settings)
    }

    // MARK: Actions

    /// Begins a call. Its headers leave with the next drain, or later if the server's limit of streams is reached.
    /// Returns nil when the connection takes no new calls (GOAWAY, stream numbers used up).
    /// - Parameter path: `/package.Service/Method`.
    /// - Parameter timeout: sent as `grpc-timeout`; the caller measures it as well, since a server may not answer.
    public func startCall(path: [UInt8], metadata: [MetadataField] = [], timeout: TimeSpan? = nil) -> StreamID? {
        path.withUnsafeBytes { startCall(path: $0, metadata: metadata, timeout: timeout) }
    }

    public func startCall(path: StaticString, metadata: [MetadataField] = [], timeout: TimeSpan? = nil) -> StreamID? {
        startCall(path: UnsafeRawBufferPointer(start: path.utf8Start, count: path.utf8CodeUnitCount), metadata: metadata, timeout: timeout)
    }

    private func startCall(path: UnsafeRawBufferPointer, metadata: [MetadataField], timeout: TimeSpan?) -> StreamID? {
        guard !isFinished, !hasGoAway else { return nil }
        let call = ClientCall()
        let timeoutText = timeout.map(TimeoutHeader.format) ?? []
        let stream = withFields(path, metadata, timeoutText) { fields in
            var provider = nghttp2_data_provider()
            provider.source.ptr = Unmanaged.passUnretained(call).toOpaque()
            provider.read_callback = readClientData
            return nghttp2_submit_request(raw, nil, fields.baseAddress, fields.count, &provider, nil)
        }
        guard stream > 0 else { return nil }
        call.id = stream
        calls[stream] = call
        return stream
    }

    /// Queues one message.
    public func sendMessage(_ stream: StreamID, _ message: [UInt8]) {
        guard let call = calls[stream], !call.isHalfClosed else { return }
        call.output.append(message)
        wake(call)
    }

    /// Queues one message, written straight into the call's buffer.
    public func sendMessage(_ stream: StreamID, write: (inout ByteWriter) -> Void) {
        guard let call = calls[stream], !call.isHalfClosed else { return }
        call.output.append(write)
        wake(call)
    }

    /// No more messages will be sent on this call.
    public func halfClose(_ stream: StreamID) {
        guard let call = calls[stream], !call.isHalfClosed else { return }
        call.isHalfClosed = true
        wake(call)
    }

    /// Gives up on a call. Nothing more is reported about it.
    public func cancel(_ stream: StreamID) {
        guard let call = calls.removeValue(forKey: stream) else { return }
        retire(call)
        reset(stream, .cancel)
    }

    /// Stops giving the stream's window back, so that a server that sends faster than the caller reads has to stop. What
    /// is already under way (at most one stream window) still arrives.
    public func pause(_ stream: StreamID) { calls[stream]?.isPaused = true }

    /// Gives the window back again, with what piled up meanwhile.
    public func resume(_ stream: StreamID) {
        guard let call = calls[stream], call.isPaused else { return }
        call.isPaused = false
        consumeStream(stream, call.unconsumed)
        call.unconsumed = 0
    }

    /// The server's first SETTINGS arrived.
    public private(set) var isReady = false
    public var openCalls: Int { calls.count }
    /// The server has sent GOAWAY.
    public private(set) var hasGoAway = false

    /// The connection is gone: ends every call with UNAVAILABLE. Not to be used afterwards.
    public func connectionClosed(_ reason: String) {
        hasGoAway = true
        for stream in calls.keys.sorted() {
            guard let call = calls.removeValue(forKey: stream) else { continue }
            retire(call)
            delegate.session(self, finished: stream, CallStatus(.unavailable, reason, isUnprocessed: !call.headersSent))
        }
    }

    // MARK: Sending

    private func withFields(_ path: UnsafeRawBufferPointer, _ metadata: [MetadataField], _ timeout: [UInt8],
                            _ body: (UnsafeBufferPointer<nghttp2_nv>) -> Int32) -> Int32 {
        withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: 8 + metadata.count) { fields in
            var count = 0
            func add(_ field: nghttp2_nv) {
                fields.initializeElement(at: count, to: field)
                count += 1
            }
            return authority.withUnsafeBytes { authority in
                userAgent.withUnsafeBytes { userAgent in
                    timeout.withUnsafeBytes { timeout in
                        add(StaticField.make(":method", "POST"))
                        add(isTLS ? StaticField.make(":scheme", "https") : StaticField.make(":scheme", "http"))
                        add(StaticField.make(":path", copying: path))
                        add(StaticField.make(":authority", copying: authority))
                        add(StaticField.make("te", "trailers"))
                        add(StaticField.make("content-type", "application/grpc"))
                        add(StaticField.make("user-agent", copying: userAgent))
                        if !timeout.isEmpty { add(StaticField.make("grpc-timeout", copying: timeout)) }
                        return addMetadata(metadata[...], fields, &count, body)
                    }
                }
            }
        }
    }

    /// Nests one scope per field, so that every array's memory stays valid during `body`.
    private func addMetadata(_ rest: ArraySlice<MetadataField>, _ fields: UnsafeMutableBufferPointer<nghttp2_nv>, _ count: inout Int,
                             _ body: (UnsafeBufferPointer<nghttp2_nv>) -> Int32) -> Int32 {
        guard let field = rest.first else {
            return body(UnsafeBufferPointer(rebasing: UnsafeBufferPointer(fields)[0..<count]))
        }
        return field.name.withUnsafeBufferPointer { name in
            field.value.withUnsafeBufferPointer { value in
                fields.initializeElement(at: count, to: nghttp2_nv(
                    name: UnsafeMutablePointer(mutating: name.baseAddress), value: UnsafeMutablePointer(mutating: value.baseAddress),
                    namelen: name.count, valuelen: value.count, flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue)))
                count += 1
                return addMetadata(rest.dropFirst(), fields, &count, body)
            }
        }
    }

    private func wake(_ call: ClientCall) {
        guard call.isDeferred else { return }
        call.isDeferred = false
        _ = nghttp2_session_resume_data(raw, call.id)
    }

    fileprivate func produce(_ call: ClientCall, _ room: UnsafeMutableRawBufferPointer, _ flags: UnsafeMutablePointer<UInt32>) -> Int {
        let count = call.output.take(into: room)
        if call.output.count == 0, call.isHalfClosed {
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            return count
        }
        if count == 0 {
            call.isDeferred = true
            return Int(NGHTTP2_ERR_DEFERRED.rawValue)
        }
        return count
    }

    /// Calls that are over for us but not yet for nghttp2, which may still hold a pointer to them.
    private var retired: [StreamID: ClientCall] = [:]

    private func retire(_ call: ClientCall) {
        call.output.reset()
        call.isHalfClosed = true
        retired[call.id] = call
    }

    private func finish(_ call: ClientCall, _ status: CallStatus) {
        guard calls.removeValue(forKey: call.id) != nil else { return }
        retire(call)
        delegate.session(self, finished: call.id, status)
    }

    override func sentHeaders(_ stream: StreamID, endStream: Bool) { calls[stream]?.headersSent = true }

    override func notSentHeaders(_ stream: StreamID) {
        retired[stream] = nil
        guard let call = calls[stream] else { return }
        finish(call, CallStatus(.unavailable, "connection takes no new calls", isUnprocessed: true))
        retired[stream] = nil
    }

    override func closed(_ stream: StreamID, _ code: UInt32) {
        defer { retired[stream] = nil }
        guard let call = calls[stream] else { return }
        if call.hasTrailers { return finish(call, call.status()) }
        switch HTTP2ErrorCode(rawValue: code) {
        case .refusedStream: finish(call, CallStatus(.unavailable, "stream refused by the server", isUnprocessed: true))
        case .cancel: finish(call, CallStatus(.canceled, "stream cancelled by the server"))
        case .enhanceYourCalm: finish(call, CallStatus(.resourceExhausted, "stream closed: calm down"))
        case .inadequateSecurity: finish(call, CallStatus(.permissionDenied, "stream closed: inadequate security"))
        case .noError: finish(call, call.status())
        default: finish(call, CallStatus(.internal, "stream closed with HTTP/2 error \(code)"))
        }
    }

    // MARK: Receiving

    override func header(_ stream: StreamID, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> Bool {
        guard let call = calls[stream] else { return true }
        call.headerBytes += name.count + value.count + 32
        guard call.headerBytes <= settings.maxHeaderListBytes else { return false }
        switch name.count {
        case 7:
            if bytesEqual(name, ":status") { call.httpStatus = parseNumber(value) ?? 0 }
        case 11:
            if bytesEqual(name, "grpc-status") { call.grpcStatus = parseNumber(value) ?? Int(StatusCode.unknown.rawValue) }
        case 12:
            if bytesEqual(name, "grpc-message") {
                call.message = StatusMessage.decode(value)
            } else if bytesEqual(name, "content-type") {
                call.isGRPC = bytesBegin(value, with: "application/grpc")
            }
        default: break
        }
        return true
    }

    private func parseNumber(_ text: UnsafeRawBufferPointer) -> Int? {
        guard !text.isEmpty, text.count <= 4 else { return nil }
        var number = 0
        for byte in text {
            guard byte >= 0x30, byte <= 0x39 else { return nil }
            number = number * 10 + Int(byte - 0x30)
        }
        return number
    }

    override func headersComplete(_ stream: StreamID, endStream: Bool) {
        guard let call = calls[stream] else { return }
        // Interim answers (100 to 199) carry nothing.
        if call.httpStatus >= 100, call.httpStatus < 200 { return }
        if endStream {
            call.hasTrailers = true
            end(call)
        }
    }

    override func data(_ stream: StreamID, _ bytes: UnsafeRawBufferPointer, endStream: Bool) {
        consumeConnection(bytes.count)
        guard let call = calls[stream] else {
            consumeStream(stream, bytes.count)
            return
        }
        if call.isPaused { call.unconsumed += bytes.count } else { consumeStream(stream, bytes.count) }
        // What is not a gRPC answer (a proxy's error page, say) is not parsed.
        guard call.httpStatus == 200, call.isGRPC else { return }
        var offset = 0
        while !call.isOver(in: self) {
            switch call.input.step(bytes, &offset, limit: maxReceiveMessageBytes) {
            case .needsMore: return
            case .lent(let range):
                delegate.session(self, received: UnsafeRawBufferPointer(rebasing: bytes[range]), on: stream)
            case .collected(let message):
                message.withUnsafeBytes { delegate.session(self, received: $0, on: stream) }
                call.input.recycle(message)
            case .fault(let fault):
                let status = switch fault {
                case .tooLarge(let size):
                    CallStatus(.resourceExhausted, "grpc: received message larger than max (\(size) vs. \(maxReceiveMessageBytes))")
                case .compressed: CallStatus(.internal, "grpc: compressed flag set with identity or empty encoding")
                case .badFlag(let flag): CallStatus(.internal, "grpc: received unexpected payload format \(flag)")
                }
                finish(call, status)
                reset(stream, .cancel)
                return
            }
        }
    }

    override func dataComplete(_ stream: StreamID) {
        // The server ended the stream without trailers.
        guard let call = calls[stream] else { return }
        end(call)
    }

    /// The server has sent everything. If we have not, the rest is pointless.
    private func end(_ call: ClientCall) {
        let wasHalfClosed = call.isHalfClosed && call.output.count == 0
        finish(call, call.status())
        if !wasHalfClosed { reset(call.id, .cancel) }
    }

    override func gotGoAway(lastStream: StreamID, code: UInt32, debug: UnsafeRawBufferPointer) {
        hasGoAway = true
        delegate.session(self, goAway: HTTP2ErrorCode(rawValue: code), debug: String(decoding: debug, as: UTF8.self))
    }

    override func gotSettings() {
        guard !isReady else { return }
        isReady = true
        delegate.sessionReady(self)
    }

    override func gotPong(_ payload: UInt64) { delegate.session(self, pong: payload) }

    fileprivate func isOpen(_ stream: StreamID) -> Bool { calls[stream] != nil }
}

/// One call of a client session.
private final class ClientCall {
    var id: StreamID = 0
    var input = MessageAssembler()
    var output = OutputQueue()
    var isPaused = false
    /// Bytes of window kept back while paused.
    var unconsumed = 0
    var isDeferred = false
    var isHalfClosed = false
    var headersSent = false
    var httpStatus = 0
    var isGRPC = false
    /// -1: none received.
    var grpcStatus = -1
    var message = ""
    var hasTrailers = false
    var headerBytes = 0

    func isOver(in session: GRPCClientSession) -> Bool { !session.isOpen(id) }

    /// What the headers and trailers say together.
    func status() -> CallStatus {
        if grpcStatus >= 0 {
            guard grpcStatus <= 16, let code = StatusCode(rawValue: UInt8(grpcStatus)) else {
                return CallStatus(.unknown, message)
            }
            if code == .ok, input.isInsideMessage { return CallStatus(.internal, "unexpected EOF") }
            return CallStatus(code, message)
        }
        guard httpStatus != 200 else {
            return CallStatus(.internal, "server closed the stream without sending trailers")
        }
        // (gRPC "HTTP to gRPC Status Code Mapping")
        let code: StatusCode = switch httpStatus {
        case 400: .internal
        case 401: .unauthenticated
        case 403: .permissionDenied
        case 404: .unimplemented
        case 429, 502, 503, 504: .unavailable
        default: .unknown
        }
        return CallStatus(code, "unexpected HTTP status code received from server: \(httpStatus)")
    }
}

private let readClientData: nghttp2_data_source_read_callback = { _, _, buffer, length, flags, source, context in
    Unmanaged<HTTP2Session>.fromOpaque(context!)._withUnsafeGuaranteedRef { session in
        unsafeDowncast(session, to: GRPCClientSession.self).produce(
            Unmanaged<ClientCall>.fromOpaque(source!.pointee.ptr).takeUnretainedValue(),
            UnsafeMutableRawBufferPointer(start: buffer, count: length), flags!)
    }
}
