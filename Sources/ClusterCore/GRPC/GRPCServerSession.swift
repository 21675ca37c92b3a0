#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif
import Base
import CNghttp2

/// What a server's connection is told. All calls come from inside `receive` or `drainOutput`, on the session's thread.
/// The session's actions may be called from inside, except `receive` and `drainOutput`.
public protocol GRPCServerDelegate: AnyObject {
    /// A unary or server-streaming call with its whole request. `request` is valid during this call only.
    /// Answer with `respondUnary`, or with `sendMessage` any number of times, then `finish`.
    func session(_ session: GRPCServerSession, called stream: StreamID, _ head: RequestHead, request: UnsafeRawBufferPointer)
    /// A bidirectional call began; its messages follow.
    func session(_ session: GRPCServerSession, opened stream: StreamID, _ head: RequestHead)
    /// The next message of a bidirectional call, valid during this call only.
    func session(_ session: GRPCServerSession, received message: UnsafeRawBufferPointer, on stream: StreamID)
    /// The client of a bidirectional call will send no more messages. The call goes on until `finish`.
    func session(_ session: GRPCServerSession, halfClosed stream: StreamID)
    /// A call that was announced ended before `finish`: the client reset it, or the connection is gone. Nothing more can
    /// be sent on it.
    func session(_ session: GRPCServerSession, cancelled stream: StreamID)
    /// The bytes that wait on this stream fell to what `notifyWhenDrained` asked for.
    func session(_ session: GRPCServerSession, drained stream: StreamID)
    /// The client sent a ping, which is answered already. For a `PingPolicy`; `refuse` ends a connection.
    func sessionGotPing(_ session: GRPCServerSession)
}

extension GRPCServerDelegate {
    public func sessionGotPing(_ session: GRPCServerSession) {}
}

/// The server's end of a gRPC connection.
///
/// The path is resolved by the `MethodTable`; what is wrong with a request by gRPC's own rules (method, content type,
/// unknown service, message too large, compression) is answered here, so that the delegate sees well-formed calls only.
/// Actions on a stream that is already gone do nothing: the client may cancel at any time.
///
/// Confined to one thread. The delegate must outlive the session (it usually owns it).
public final class GRPCServerSession: HTTP2Session {
    public let methods: MethodTable
    /// A request message above this is refused with RESOURCE_EXHAUSTED. etcd's value: max-request-bytes + 512 KiB.
    public let maxReceiveMessageBytes: Int
    private unowned(unsafe) let delegate: any GRPCServerDelegate
    /// Who takes what is no call; nil: it is refused in gRPC's words. Must outlive the session, as `delegate` must.
    public unowned(unsafe) var plainDelegate: (any PlainRequestDelegate)?
    /// There are no calls here: whatever comes is a plain request.
    public var isPlainAlone = false

    // Exclusivity is unchecked for what each header field touches: the checks were 5 % of a call, and one thread owns it all.

    /// Streams that are open, in no order; each knows its place.
    @exclusivity(unchecked) private var open: [UnsafeMutablePointer<ServerStream>] = []
    @exclusivity(unchecked) private var pool: [UnsafeMutablePointer<ServerStream>] = []
    /// Pooled streams kept for reuse: beyond the concurrency of ordinary clients memory is given back.
    private static let maxPooled = 256

    // The header block being read. Blocks never interleave on a connection.
    @exclusivity(unchecked) private var headStream: StreamID = 0
    @exclusivity(unchecked) private var head = RequestHead()
    @exclusivity(unchecked) private var headBytes = 0
    @exclusivity(unchecked) private var headPath: UInt16?
    @exclusivity(unchecked) private var unknownPath = ""
    @exclusivity(unchecked) private var isPost = false
    @exclusivity(unchecked) private var otherMethod = ""
    @exclusivity(unchecked) private var contentType: ContentType = .missing
    @exclusivity(unchecked) private var hasBadTimeout = false
    @exclusivity(unchecked) private var encoding: [UInt8] = []
    /// Kept only where it may turn out to be a plain request.
    @exclusivity(unchecked) private var plainFields: [(name: String, value: String)] = []
    // The last values seen, shared with the requests that repeat them.
    @exclusivity(unchecked) private var lastToken: [UInt8] = []
    @exclusivity(unchecked) private var lastAuthorization: [UInt8] = []
    @exclusivity(unchecked) private var lastAPIVersion: [UInt8] = []

    @exclusivity(unchecked) private var budget = FrameBudget()
    /// The client's first SETTINGS arrived: it speaks HTTP/2, not only its preface.
    public private(set) var hasSettings = false

    /// Streams whose drain notice is due.
    @exclusivity(unchecked) private var drained: [StreamID] = []

    private enum ContentType {
        case missing, grpc
        case other(String)
    }

    public init(methods: MethodTable, delegate: any GRPCServerDelegate, maxReceiveMessageBytes: Int = 2 << 20,
                settings: HTTP2Settings = HTTP2Settings()) {
        self.methods = methods
        self.delegate = delegate
        self.maxReceiveMessageBytes = maxReceiveMessageBytes
        super.init(role: .server, settings: settings)
    }

    deinit {
        for stream in open { ServerStream.free(stream) }
        for stream in pool { ServerStream.free(stream) }
    }

    // MARK: Actions

    /// Answers a call with one message and status OK.
    public func respondUnary(_ stream: StreamID, message: [UInt8]) {
        guard let state = find(stream), !state.pointee.isFinishing else { return }
        queue(state, message)
        state.pointee.finish(.ok, [])
        submit(state)
    }

    /// Answers a call with one message, written straight into the stream's buffer, and status OK.
    public func respondUnary(_ stream: StreamID, write: (inout ByteWriter) -> Void) {
        guard let state = find(stream), !state.pointee.isFinishing else { return }
        queue(state, write)
        state.pointee.finish(.ok, [])
        submit(state)
    }

    /// Sends the response headers now. `sendMessage` does it by itself.
    public func sendHeaders(_ stream: StreamID) {
        guard let state = find(stream), !state.pointee.isFinishing, !state.pointee.hasSubmitted else { return }
        submit(state)
    }

    /// Queues one message. A large one is kept, not copied.
    public func sendMessage(_ stream: StreamID, _ message: [UInt8]) {
        guard let state = find(stream), !state.pointee.isFinishing else { return }
        queue(state, message)
        submit(state)
    }

    /// Queues one message, written straight into the stream's buffer.
    public func sendMessage(_ stream: StreamID, write: (inout ByteWriter) -> Void) {
        guard let state = find(stream), !state.pointee.isFinishing else { return }
        queue(state, write)
        submit(state)
    }

    /// Ends a call after what is queued on it. Without headers or messages before, headers and trailers are one block.
    public func finish(_ stream: StreamID, _ code: StatusCode, _ message: String = "") {
        guard let state = find(stream), !state.pointee.isFinishing else { return }
        finish(state, code, message)
    }

    public func finish(_ stream: StreamID, _ error: ServiceError) { finish(stream, error.code, error.message) }

    /// Ends a call at once, dropping what is queued on it: for a client that does not read. No `cancelled` follows.
    public func abort(_ stream: StreamID, _ code: HTTP2ErrorCode = .cancel) {
        guard let state = find(stream) else { return }
        state.pointee.isFinishing = true
        reset(stream, code)
    }

    /// Bytes queued on a stream that nghttp2 has not taken yet: not sent because of flow control or a busy socket.
    public func bufferedBytes(_ stream: StreamID) -> Int { find(stream)?.pointee.output.count ?? 0 }

    /// Bytes of all responses that nghttp2 has not taken yet. Looks at every open stream.
    public var bufferedResponseBytes: Int { open.reduce(0) { $0 + $1.pointee.output.count } }

    /// Bytes held of requests that are not complete. Looks at every open stream.
    public var bufferedRequestBytes: Int { open.reduce(0) { $0 + $1.pointee.input.collectedBytes } }

    /// Asks for one `drained` call when the stream's buffered bytes are at most `bytes`. Not called when they already
    /// are; check `bufferedBytes` first.
    public func notifyWhenDrained(_ stream: StreamID, below bytes: Int) {
        guard let state = find(stream) else { return }
        state.pointee.drainMark = bytes
    }

    /// Calls that were announced and are not over.
    public var openStreams: Int { open.count }

    /// To be called at even times. A request, or a message of a stream, that is on its way at `limit` of these in a row is given up:
    /// half a request occupies memory for as long as its sender likes. (Plain requests are for their delegate to time.) Whatever the client may send
    /// for nothing, it may again.
    public func age(limit: UInt8) {
        budget.refill()
        for state in open where !state.pointee.ignoresInput && !state.pointee.isPlain && (!state.pointee.isStreaming || state.pointee.input.isInsideMessage) {
            state.pointee.waits += 1
            if state.pointee.waits >= limit { fail(state, .deadlineExceeded, "the request did not arrive in time") }
        }
    }

    /// The connection is gone: reports every unfinished call as cancelled. The session is not to be used afterwards.
    public func connectionClosed() {
        for state in open where state.pointee.isAnnounced && !state.pointee.isFinishing {
            state.pointee.isFinishing = true
            cancelled(state.pointee.id, isPlain: state.pointee.isPlain)
        }
    }

    // MARK: Sending

    @inline(__always)
    func find(_ stream: StreamID) -> UnsafeMutablePointer<ServerStream>? {
        nghttp2_session_get_stream_user_data(raw, stream)?.assumingMemoryBound(to: ServerStream.self)
    }

    /// A caller that compresses gets compressed answers, as from grpc-go, where they are worth it.
    private func queue(_ state: UnsafeMutablePointer<ServerStream>, _ message: [UInt8]) {
        if state.pointee.isGzip, let packed = Gzip.compress(message) {
            state.pointee.output.append(packed, isCompressed: true)
        } else {
            state.pointee.output.append(message)
        }
    }

    private func queue(_ state: UnsafeMutablePointer<ServerStream>, _ write: (inout ByteWriter) -> Void) {
        guard state.pointee.isGzip else { return state.pointee.output.append(write) }
        var writer = ByteWriter()
        write(&writer)
        queue(state, writer.bytes)
    }

    /// Starts the response, or wakes it.
    private func submit(_ state: UnsafeMutablePointer<ServerStream>) {
        if state.pointee.hasSubmitted { return wake(state) }
        state.pointee.hasSubmitted = true
        var provider = dataProvider(state)
        // A failure means that the stream is closing: legal, the client may have reset it.
        _ = withUnsafePointer(to: responseHeaders.fields) { fields in
            fields.withMemoryRebound(to: nghttp2_nv.self, capacity: 3) {
                nghttp2_submit_response(raw, state.pointee.id, $0, state.pointee.isGzip ? 3 : 2, &provider)
            }
        }
    }

    /// There is more to send, or the end of it.
    func wake(_ state: UnsafeMutablePointer<ServerStream>) {
        guard state.pointee.isDeferred else { return }
        state.pointee.isDeferred = false
        _ = nghttp2_session_resume_data(raw, state.pointee.id)
    }

    func dataProvider(_ state: UnsafeMutablePointer<ServerStream>) -> nghttp2_data_provider {
        var provider = nghttp2_data_provider()
        provider.source.ptr = UnsafeMutableRawPointer(state)
        provider.read_callback = readServerData
        return provider
    }

    private func finish(_ state: UnsafeMutablePointer<ServerStream>, _ code: StatusCode, _ message: String) {
        state.pointee.finish(code, StatusMessage.encode(message))
        if state.pointee.hasSubmitted {
            submit(state)
        } else {
            respondWithoutBody(state, "200")
        }
    }

    /// Headers and trailers in one block.
    private func respondWithoutBody(_ state: UnsafeMutablePointer<ServerStream>, _ httpStatus: StaticString) {
        state.pointee.hasSubmitted = true
        state.pointee.isFinishing = true
        state.pointee.statusMessage.withUnsafeBytes { text in
            var fields = [
                StaticField.make(":status", httpStatus),
                StaticField.make("content-type", "application/grpc"),
                StaticField.grpcStatus(state.pointee.status),
            ]
            if !text.isEmpty { fields.append(StaticField.make("grpc-message", copying: text)) }
            if state.pointee.hasUnknownEncoding { fields.append(StaticField.make("grpc-accept-encoding", "identity,gzip")) }
            _ = nghttp2_submit_response(raw, state.pointee.id, fields, fields.count, nil)
        }
    }

    private func refuse(_ state: UnsafeMutablePointer<ServerStream>, http: StaticString, _ code: StatusCode, _ message: String) {
        state.pointee.finish(code, StatusMessage.encode(message))
        respondWithoutBody(state, http)
    }

    /// Called by nghttp2 for the next bytes of a response.
    fileprivate func produce(_ state: UnsafeMutablePointer<ServerStream>, _ room: UnsafeMutableRawBufferPointer,
                             _ flags: UnsafeMutablePointer<UInt32>) -> Int {
        let count = state.pointee.output.take(into: room)
        if count > 0, room.count >= FrameBudget.leastPieceBytes || state.pointee.output.count == 0 { budget.earn(FrameBudget.perCall) }
        if state.pointee.drainMark >= 0, state.pointee.output.count <= state.pointee.drainMark {
            state.pointee.drainMark = -1
            drained.append(state.pointee.id)
        }
        if state.pointee.output.count == 0, state.pointee.isFinishing {
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            guard !state.pointee.isPlain else { return count }
            flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
            submitTrailers(state)
            return count
        }
        if count == 0 {
            state.pointee.isDeferred = true
            return Int(NGHTTP2_ERR_DEFERRED.rawValue)
        }
        return count
    }

    private func submitTrailers(_ state: UnsafeMutablePointer<ServerStream>) {
        if state.pointee.statusMessage.isEmpty {
            var field = StaticField.grpcStatus(state.pointee.status)
            _ = nghttp2_submit_trailer(raw, state.pointee.id, &field, 1)
        } else {
            state.pointee.statusMessage.withUnsafeBytes { text in
                let fields = [StaticField.grpcStatus(state.pointee.status), StaticField.make("grpc-message", copying: text)]
                _ = nghttp2_submit_trailer(raw, state.pointee.id, fields, fields.count)
            }
        }
    }

    override func afterLibraryCall() -> Bool {
        guard !drained.isEmpty else { return false }
        let streams = drained
        drained.removeAll(keepingCapacity: true)
        for stream in streams {
            guard let state = find(stream) else { continue }
            if state.pointee.isPlain { plainDelegate?.session(self, plainDrained: stream) } else { delegate.session(self, drained: stream) }
        }
        return wantsWrite
    }

    override func sentHeaders(_ stream: StreamID, endStream: Bool) {
        if endStream { sentEnd(stream) }
    }

    /// The call is over for us while the client is still sending: it is told to stop, as gRPC servers do.
    override func sentEnd(_ stream: StreamID) {
        guard let state = find(stream), !state.pointee.remoteEnded else { return }
        reset(stream, .noError)
    }

    override func closed(_ stream: StreamID, _ code: UInt32) {
        guard let state = find(stream) else { return }
        _ = nghttp2_session_set_stream_user_data(raw, stream, nil)
        let (wasCut, wasPlain) = (state.pointee.isAnnounced && !state.pointee.isFinishing, state.pointee.isPlain)
        let place = state.pointee.place
        let last = open.removeLast()
        if last != state {
            open[place] = last
            last.pointee.place = place
        }
        if pool.count < GRPCServerSession.maxPooled {
            state.pointee.clear()
            pool.append(state)
        } else {
            ServerStream.free(state)
        }
        if wasCut { cancelled(stream, isPlain: wasPlain) }
    }

    private func cancelled(_ stream: StreamID, isPlain: Bool) {
        if isPlain { plainDelegate?.session(self, plainCancelled: stream) } else { delegate.session(self, cancelled: stream) }
    }

    // MARK: Receiving

    /// The client is told its limit; the library, another one.
    override func firstFrame(_ frame: UnsafeRawBufferPointer) -> [UInt8]? {
        precondition(frame[3] == UInt8(NGHTTP2_SETTINGS.rawValue), "a server begins with frame type \(frame[3]) instead of SETTINGS")
        var changed = [UInt8](frame)
        // Nine bytes of header, then entries of an id and a value.
        for at in stride(from: 9, to: changed.count, by: 6) where changed[at] == 0 && changed[at + 1] == UInt8(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue) {
            withUnsafeBytes(of: settings.maxConcurrentStreams.bigEndian) { value in
                for index in 0..<4 { changed[at + 2 + index] = value[index] }
            }
        }
        return changed
    }

    override var maxQueuedFrames: Int { settings.maxQueuedFrames + 4 * open.count }
    override func gotSettings() { hasSettings = true }
    override func gotPing() { delegate.sessionGotPing(self) }

    override func beganFrame(_ type: UInt8, length: Int, flags: UInt8) {
        switch UInt32(type) {
        case NGHTTP2_DATA.rawValue where length > 0 || flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0: budget.earn(1)
        // nghttp2 counts both.
        case NGHTTP2_RST_STREAM.rawValue, NGHTTP2_CONTINUATION.rawValue: break
        case NGHTTP2_SETTINGS.rawValue: budget.spend(FrameBudget.perSettings)
        default: budget.spend(1)
        }
        if budget.isSpent { refuse("frames that carry nothing") }
    }

    override func sentReset(_ stream: StreamID, _ code: UInt32) {
        if code != HTTP2ErrorCode.noError.rawValue { budget.spend(FrameBudget.perReset) }
    }

    override func beganHeaders(_ stream: StreamID, isFirst: Bool) -> Bool {
        guard isFirst else {
            headStream = 0
            return true
        }
        guard open.count < Int(settings.maxConcurrentStreams) else {
            reset(stream, .refusedStream)
            return false
        }
        budget.earn(FrameBudget.perCall)
        let state = pool.popLast() ?? ServerStream.allocate()
        state.pointee.id = stream
        state.pointee.place = open.count
        open.append(state)
        _ = nghttp2_session_set_stream_user_data(raw, stream, state)
        headStream = stream
        head = RequestHead()
        headBytes = 0
        headPath = nil
        isPost = false
        contentType = .missing
        hasBadTimeout = false
        if !encoding.isEmpty { encoding.removeAll() }
        if !plainFields.isEmpty { plainFields.removeAll() }
        return true
    }

    override func header(_ stream: StreamID, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> Bool {
        headBytes += name.count + value.count + 32
        guard headBytes <= settings.maxHeaderListBytes else { return false }
        guard stream == headStream else { return true }
        // A path of gRPC's that turns out to be no call is not found, whatever else it says.
        if plainDelegate != nil, headPath == nil, name.first != UInt8(ascii: ":") {
            plainFields.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
        }
        switch name.count {
        case 5:
            if bytesEqual(name, ":path") {
                headPath = methods.find(value)
                if headPath == nil { unknownPath = String(decoding: value, as: UTF8.self) }
            } else if bytesEqual(name, "token"), head.token.isEmpty {
                head.token = share(value, &lastToken)
            }
        case 7:
            if bytesEqual(name, ":method") {
                isPost = bytesEqual(value, "POST")
                if !isPost { otherMethod = String(decoding: value, as: UTF8.self) }
            }
        case 9:
            if bytesEqual(name, "hasleader") { head.requiresLeader = bytesEqual(value, "true") }
        case 12:
            if bytesEqual(name, "content-type") {
                contentType = Self.isGRPC(value) ? .grpc : .other(String(decoding: value, as: UTF8.self))
            } else if bytesEqual(name, "grpc-timeout") {
                head.timeout = TimeoutHeader.parse(value)
                hasBadTimeout = head.timeout == nil
            }
        case 13:
            if bytesEqual(name, "authorization"), head.authorization.isEmpty {
                head.authorization = share(value, &lastAuthorization)
            } else if bytesEqual(name, "grpc-encoding"), !bytesEqual(value, "identity") {
                encoding = [UInt8](value)
            }
        case 18:
            if bytesEqual(name, "client-api-version") {
                head.clientAPIVersion = share(value, &lastAPIVersion)
            } else if bytesEqual(name, "grpcgateway-accept") {
                head.isFromGateway = true
            }
        default: break
        }
        return true
    }

    /// The array of `value`, the same one as last time if the bytes are the same.
    private func share(_ value: UnsafeRawBufferPointer, _ last: inout [UInt8]) -> [UInt8] {
        let same = last.withUnsafeBytes { $0.count == value.count && (value.isEmpty || memcmp($0.baseAddress!, value.baseAddress!, value.count) == 0) }
        if !same { last = [UInt8](value) }
        return last
    }

    override func headersComplete(_ stream: StreamID, endStream: Bool) {
        guard let state = find(stream) else { return }
        if stream == headStream {
            headStream = 0
            if endStream { state.pointee.remoteEnded = true }
            begin(state)
        }
        if endStream { remoteEnded(state) }
    }

    private func begin(_ state: UnsafeMutablePointer<ServerStream>) {
        if let plainDelegate, isPlain(plainDelegate) {
            state.pointee.isPlain = true
            state.pointee.isAnnounced = true
            let head = PlainRequestHead(method: isPost ? "POST" : otherMethod, path: headPath.map(methods.path) ?? unknownPath, fields: plainFields)
            return plainDelegate.session(self, requested: state.pointee.id, head)
        }
        guard isPost else {
            return refuse(state, http: "405", .internal,
                          "Received a HEADERS frame with :method \"\(otherMethod)\" which should be POST")
        }
        switch contentType {
        case .grpc: break
        case .missing: return refuse(state, http: "415", .invalidArgument, "invalid gRPC request content-type \"\"")
        case .other(let text): return refuse(state, http: "415", .invalidArgument, "invalid gRPC request content-type \"\(text)\"")
        }
        if hasBadTimeout { return refuse(state, http: "400", .internal, "malformed grpc-timeout") }
        guard let method = headPath else {
            return finish(state, .unimplemented, methods.unimplementedMessage(unknownPath))
        }
        if !encoding.isEmpty {
            guard encoding.elementsEqual("gzip".utf8) else {
                state.pointee.hasUnknownEncoding = true
                return finish(state, .unimplemented, GRPCServerSession.noDecompressor(String(decoding: encoding, as: UTF8.self)))
            }
            state.pointee.isGzip = true
            state.pointee.input.acceptsCompressed = true
        }
        head.method = method
        state.pointee.head = head
        if methods.kind(method) == .bidirectional {
            state.pointee.isStreaming = true
            state.pointee.isAnnounced = true
            delegate.session(self, opened: state.pointee.id, head)
        }
    }

    private func isPlain(_ delegate: any PlainRequestDelegate) -> Bool {
        guard !isPlainAlone, case .grpc = contentType, isPost || otherMethod != "OPTIONS" else { return true }
        return headPath == nil && delegate.session(self, claims: unknownPath)
    }

    /// `application/grpc`, alone or with a message format or parameters behind it.
    private static func isGRPC(_ type: UnsafeRawBufferPointer) -> Bool {
        guard bytesBegin(type, with: "application/grpc") else { return false }
        return type.count == 16 || type[16] == UInt8(ascii: "+") || type[16] == UInt8(ascii: ";")
    }

    private static func noDecompressor(_ name: String) -> String {
        "grpc: Decompressor is not installed for grpc-encoding \"\(name)\""
    }

    override func data(_ stream: StreamID, _ bytes: UnsafeRawBufferPointer, endStream: Bool) {
        consumeConnection(bytes.count)
        guard let state = find(stream) else { return }
        if endStream { state.pointee.remoteEnded = true } else { consumeStream(stream, bytes.count) }
        if state.pointee.isPlain {
            if !state.pointee.isFinishing { plainDelegate?.session(self, body: bytes, of: stream) }
            return
        }
        var offset = 0
        while !state.pointee.ignoresInput {
            switch state.pointee.input.step(bytes, &offset, limit: maxReceiveMessageBytes) {
            case .needsMore: return
            case .lent(let range):
                deliver(state, UnsafeRawBufferPointer(rebasing: bytes[range]))
            case .collected(let message):
                message.withUnsafeBytes { deliver(state, $0) }
                state.pointee.input.recycle(message)
            case .fault(.tooLarge(let size)):
                fail(state, .resourceExhausted, "grpc: received message larger than max (\(size) vs. \(maxReceiveMessageBytes))")
            case .fault(.compressed):
                fail(state, .internal, "grpc: compressed flag set with identity or empty encoding")
            case .fault(.badFlag(let flag)):
                fail(state, .internal, "grpc: received unexpected payload format \(flag)")
            }
        }
    }

    private func deliver(_ state: UnsafeMutablePointer<ServerStream>, _ message: UnsafeRawBufferPointer) {
        guard state.pointee.input.isCompressed else { return hand(state, message) }
        do throws(Gzip.Fault) {
            // Bounded like a plain message, whatever was made small.
            let plain = try Gzip.decompress(message, limit: maxReceiveMessageBytes)
            plain.withUnsafeBytes { hand(state, $0) }
        } catch {
            switch error {
            case .tooLarge:
                fail(state, .resourceExhausted, "grpc: received message after decompression larger than max (\(maxReceiveMessageBytes + 1) vs. \(maxReceiveMessageBytes))")
            case .damaged(let what): fail(state, .internal, "grpc: failed to decompress the received message: \(what)")
            }
        }
    }

    private func hand(_ state: UnsafeMutablePointer<ServerStream>, _ message: UnsafeRawBufferPointer) {
        if state.pointee.isStreaming {
            state.pointee.waits = 0
            delegate.session(self, received: message, on: state.pointee.id)
        } else {
            state.pointee.isAnnounced = true
            state.pointee.hasRequest = true
            delegate.session(self, called: state.pointee.id, state.pointee.head, request: message)
        }
    }

    /// A fault of the client's in a call that may already be announced: the delegate hears of its end.
    private func fail(_ state: UnsafeMutablePointer<ServerStream>, _ code: StatusCode, _ message: String) {
        let announced = state.pointee.isAnnounced
        finish(state, code, message)
        if announced { delegate.session(self, cancelled: state.pointee.id) }
    }

    override func dataComplete(_ stream: StreamID) {
        guard let state = find(stream) else { return }
        state.pointee.remoteEnded = true
        remoteEnded(state)
    }

    private func remoteEnded(_ state: UnsafeMutablePointer<ServerStream>) {
        state.pointee.remoteEnded = true
        guard !state.pointee.ignoresInput else { return }
        if state.pointee.isPlain { plainDelegate?.session(self, requestEnded: state.pointee.id); return }
        if state.pointee.input.isInsideMessage {
            fail(state, .internal, "unexpected EOF")
        } else if state.pointee.isStreaming {
            delegate.session(self, halfClosed: state.pointee.id)
        } else if !state.pointee.hasRequest {
            finish(state, .internal, "cardinality violation: received no request message from non-client-streaming RPC")
        }
    }
}

/// The headers of every normal response; the last only where messages may be compressed. Static memory, never written to.
private struct ResponseHeaders: @unchecked Sendable {
    // Sendable because it is immutable and points at string literals.
    let fields = (StaticField.make(":status", "200"), StaticField.make("content-type", "application/grpc"), StaticField.make("grpc-encoding", "gzip"))
}

private let responseHeaders = ResponseHeaders()

private let readServerData: nghttp2_data_source_read_callback = { _, _, buffer, length, flags, source, context in
    Unmanaged<HTTP2Session>.fromOpaque(context!)._withUnsafeGuaranteedRef { session in
        unsafeDowncast(session, to: GRPCServerSession.self).produce(
            source!.pointee.ptr.assumingMemoryBound(to: ServerStream.self),
            UnsafeMutableRawBufferPointer(start: buffer, count: length), flags!)
    }
}
