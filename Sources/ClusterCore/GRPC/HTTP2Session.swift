import CNghttp2

/// The number of an HTTP/2 stream: odd for calls, unique within a connection, never reused.
public typealias StreamID = Int32

/// The peer broke HTTP/2 in a way that ends the connection, or the library gave up on it (flood, memory).
public struct ProtocolFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// nghttp2's error number, negative.
    public var code: Int32
    public var message: String
    public var description: String { "HTTP/2: \(message)" }

    init(code: Int32) {
        self.code = code
        message = String(cString: nghttp2_strerror(code))
    }

    /// What we do not put up with, though nghttp2 would.
    init(refusal: StaticString) {
        code = Int32(NGHTTP2_ERR_FLOODED.rawValue)
        message = "\(refusal)"
    }
}

/// Numbers that both roles of a session share.
public struct HTTP2Settings: Sendable {
    /// Streams that the peer may have open at once.
    public var maxConcurrentStreams: UInt32 = 16_384
    /// Bytes that the peer may send on one stream before they are consumed.
    public var streamWindowBytes: Int32 = 1 << 20
    /// Bytes that the peer may send on the connection before they are consumed.
    public var connectionWindowBytes: Int32 = 16 << 20
    /// Largest header block accepted from the peer, counted as HPACK does (name + value + 32 per field). A larger one
    /// resets its stream.
    public var maxHeaderListBytes: Int = 64 << 10
    /// Resets that the peer may send in one go, and per second after that: more and the connection ends. A client that gives up calls does so by
    /// the dozen; one that opens and resets without end wants the work done for nothing. (CVE-2023-44487)
    public var resetBurst: UInt64 = 5_000
    public var resetsPerSecond: UInt64 = 500
    /// Frames that wait for a peer that does not read, beyond four for each open stream.
    public var maxQueuedFrames = 5_000
    public init() {}
}

/// Error codes of RST_STREAM and GOAWAY. (RFC 9113 §7)
public struct HTTP2ErrorCode: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let noError = HTTP2ErrorCode(rawValue: 0)
    public static let protocolError = HTTP2ErrorCode(rawValue: 1)
    public static let internalError = HTTP2ErrorCode(rawValue: 2)
    public static let refusedStream = HTTP2ErrorCode(rawValue: 7)
    public static let cancel = HTTP2ErrorCode(rawValue: 8)
    public static let enhanceYourCalm = HTTP2ErrorCode(rawValue: 11)
    public static let inadequateSecurity = HTTP2ErrorCode(rawValue: 12)
}

/// One end of an HTTP/2 connection: received bytes go in, callbacks come out, bytes to send are collected. No I/O, no
/// clock, no threads. `GRPCServerSession` and `GRPCClientSession` give it meaning.
///
/// Confined to one thread (the connection's event loop).
public class HTTP2Session {
    /// nghttp2's session, alive as long as this object.
    final let raw: OpaquePointer
    final let settings: HTTP2Settings
    /// True inside `receive` or `drainOutput`: nghttp2 forbids entering either again.
    @exclusivity(unchecked) private final var isInsideLibrary = false
    /// Set once the peer or the library has ended the connection for good.
    private final var hasFailed = false
    /// Why the peer is cut off once the portion at hand has been read; also what it is told.
    @exclusivity(unchecked) private final var refusal: StaticString?
    private final var hasSentFirstFrame = false
    /// Headers or data were handed out since `takeHasSent`.
    @exclusivity(unchecked) private final var hasSentCallFrames = false

    enum Role { case server, client }

    init(role: Role, settings: HTTP2Settings) {
        self.settings = settings
        var session: OpaquePointer?
        var option: OpaquePointer?
        guard nghttp2_option_new(&option) == 0, let option else { fatalError("nghttp2_option_new: out of memory") }
        defer { nghttp2_option_del(option) }
        // Closed streams are only kept for priority signals, which gRPC does not send.
        nghttp2_option_set_no_closed_streams(option, 1)
        // The stream's window is given back by whoever consumes the messages.
        nghttp2_option_set_no_auto_window_update(option, 1)
        nghttp2_option_set_stream_reset_rate_limit(option, settings.resetBurst, settings.resetsPerSecond)
        // The rest is as we want it: 1,000 answers to pings and settings that wait, 32 settings in a frame, 8 continuations of a header block.
        let status = switch role {
        case .server: nghttp2_session_server_new2(&session, sessionCallbacks.pointer, nil, option)
        case .client: nghttp2_session_client_new2(&session, sessionCallbacks.pointer, nil, option)
        }
        guard status == 0, let session else { fatalError("nghttp2_session_new: \(status)") }
        raw = session
        nghttp2_session_set_user_data(session, Unmanaged.passUnretained(self).toOpaque())

        func entry(_ id: nghttp2_settings_id, _ value: UInt32) -> nghttp2_settings_entry {
            nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: value)
        }
        var entries = [
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(settings.streamWindowBytes)),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, UInt32(settings.maxHeaderListBytes)),
        ]
        switch role {
        case .server: entries.append(entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, HTTP2Session.libraryLimit(ofStreams: settings.maxConcurrentStreams)))
        case .client: entries.append(entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0))
        }
        check(nghttp2_submit_settings(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), entries, entries.count), "settings")
        check(nghttp2_session_set_local_window_size(session, 0, 0, settings.connectionWindowBytes), "connection window")
    }

    deinit {
        precondition(!isInsideLibrary, "HTTP/2 session dropped inside its own callback")
        nghttp2_session_del(raw)
    }

    // MARK: Bytes

    /// Takes bytes as they came from the socket, in any portions. Callbacks run inside.
    /// Throws when the connection cannot go on; what is still to be sent (a GOAWAY) can be drained before closing.
    public final func receive(_ bytes: UnsafeRawBufferPointer) throws(ProtocolFault) {
        precondition(!isInsideLibrary, "receive called from inside a session callback")
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        isInsideLibrary = true
        let taken = nghttp2_session_mem_recv(raw, base.assumingMemoryBound(to: UInt8.self), bytes.count)
        isInsideLibrary = false
        afterLibraryCall()
        if taken < 0 {
            hasFailed = true
            throw ProtocolFault(code: Int32(taken))
        }
        if nghttp2_session_get_outbound_queue_size(raw) > maxQueuedFrames { refuse("answers that nobody reads") }
        if let refusal, !hasFailed {
            goAway(.enhanceYourCalm, debug: refusal)
            hasFailed = true
            throw ProtocolFault(refusal: refusal)
        }
    }

    /// Ends the connection with ENHANCE_YOUR_CALM and these words once the portion at hand has been read: `receive` throws.
    public final func refuse(_ reason: StaticString) { if refusal == nil { refusal = reason } }

    /// Hands out the bytes to send, in order, until nothing is left or about `limit` bytes were handed out. The memory
    /// is valid inside `write` only. Returns the number of bytes. Call it after `receive`, and after a batch of actions.
    @discardableResult
    public final func drainOutput(limit: Int = .max, _ write: (UnsafeRawBufferPointer) -> Void) throws(ProtocolFault) -> Int {
        precondition(!isInsideLibrary, "drainOutput called from inside a session callback")
        var total = 0
        while total < limit {
            isInsideLibrary = true
            var chunk: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(raw, &chunk)
            isInsideLibrary = false
            if count < 0 {
                hasFailed = true
                throw ProtocolFault(code: Int32(count))
            }
            if count == 0 {
                // Callbacks that were put off may have queued more.
                if afterLibraryCall() { continue }
                break
            }
            let frame = UnsafeRawBufferPointer(start: chunk, count: count)
            if hasSentFirstFrame {
                // DATA is 0, HEADERS 1.
                if frame[3] <= 1 { hasSentCallFrames = true }
                write(frame)
            } else {
                hasSentFirstFrame = true
                if let changed = firstFrame(frame) { changed.withUnsafeBytes(write) } else { write(frame) }
            }
            total += count
        }
        return total
    }

    /// Whether headers or data were handed out since the last time this was asked.
    public final func takeHasSent() -> Bool {
        defer { hasSentCallFrames = false }
        return hasSentCallFrames
    }

    /// True when `drainOutput` would hand out something (flow control permitting).
    public final var wantsWrite: Bool { nghttp2_session_want_write(raw) != 0 }

    /// True when the connection is over: nothing more to read or write. The owner closes the socket.
    public final var isFinished: Bool {
        hasFailed || (nghttp2_session_want_read(raw) == 0 && nghttp2_session_want_write(raw) == 0)
    }

    // MARK: Connection-wide actions

    /// Sends a PING with `payload`; the answer comes back as a pong with the same number.
    public final func ping(_ payload: UInt64) {
        withUnsafeBytes(of: payload.bigEndian) {
            _ = nghttp2_submit_ping(raw, 0, $0.baseAddress!.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// First step of a graceful end on the server: tells the peer to open no new streams (GOAWAY with the highest id).
    /// Follow with `goAway` about one round trip later.
    public final func announceShutdown() { _ = nghttp2_submit_shutdown_notice(raw) }

    /// GOAWAY with the last stream that was seen: running calls go on, later ones are refused.
    public final func goAway(_ code: HTTP2ErrorCode = .noError, debug: StaticString = "") {
        _ = nghttp2_submit_goaway(raw, 0, nghttp2_session_get_last_proc_stream_id(raw), code.rawValue,
                                  debug.utf8CodeUnitCount == 0 ? nil : debug.utf8Start, debug.utf8CodeUnitCount)
    }

    /// GOAWAY, and the session counts as finished once that has been drained, whatever is still open.
    public final func terminate(_ code: HTTP2ErrorCode = .noError) { _ = nghttp2_session_terminate_session(raw, code.rawValue) }

    /// RST_STREAM.
    final func reset(_ stream: StreamID, _ code: HTTP2ErrorCode) {
        _ = nghttp2_submit_rst_stream(raw, 0, stream, code.rawValue)
    }

    // MARK: For the two roles

    /// nghttp2 ends the connection of a peer that opens more streams than it may. It is told a larger number, so that a role can refuse single
    /// streams, and still bounds what one portion of bytes can bring.
    private static func libraryLimit(ofStreams advertised: UInt32) -> UInt32 { advertised > .max - 1_000 ? .max : advertised + 1_000 }

    /// What to send instead of the first frame.
    func firstFrame(_ frame: UnsafeRawBufferPointer) -> [UInt8]? { nil }
    /// Frames that may wait to be sent.
    var maxQueuedFrames: Int { .max }
    /// A frame begins, whatever becomes of it.
    func beganFrame(_ type: UInt8, length: Int, flags: UInt8) {}
    func sentReset(_ stream: StreamID, _ code: UInt32) {}
    /// Returns false when the stream has been reset and nothing more is to be heard of it.
    func beganHeaders(_ stream: StreamID, isFirst: Bool) -> Bool { true }
    /// Returns false when the stream is to be reset.
    func header(_ stream: StreamID, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) -> Bool { true }
    func headersComplete(_ stream: StreamID, endStream: Bool) {}
    func data(_ stream: StreamID, _ bytes: UnsafeRawBufferPointer, endStream: Bool) {}
    func dataComplete(_ stream: StreamID) {}
    func closed(_ stream: StreamID, _ code: UInt32) {}
    func sentHeaders(_ stream: StreamID, endStream: Bool) {}
    /// The last DATA of a stream has been handed out.
    func sentEnd(_ stream: StreamID) {}
    func notSentHeaders(_ stream: StreamID) {}
    func gotReset(_ stream: StreamID, _ code: UInt32) {}
    func gotGoAway(lastStream: StreamID, code: UInt32, debug: UnsafeRawBufferPointer) {}
    func gotPong(_ payload: UInt64) {}
    func gotPing() {}
    func gotSettings() {}
    /// Runs outside nghttp2, after it has been called. Returns true when it queued something to send.
    @discardableResult func afterLibraryCall() -> Bool { false }

    final func check(_ status: Int32, _ what: StaticString) {
        precondition(status == 0, "nghttp2 \(what): \(String(cString: nghttp2_strerror(status)))")
    }

    /// Gives the connection's window back at once, so that one unread stream cannot stop the others.
    @inline(__always) final func consumeConnection(_ count: Int) { _ = nghttp2_session_consume_connection(raw, count) }
    @inline(__always) final func consumeStream(_ stream: StreamID, _ count: Int) { _ = nghttp2_session_consume_stream(raw, stream, count) }
}

/// nghttp2's table of C callbacks: immutable once built and shared by all sessions.
private struct SessionCallbacks: @unchecked Sendable {
    // Sendable because nothing writes to it after `init`.
    let pointer: OpaquePointer

    init() {
        var callbacks: OpaquePointer?
        guard nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks else { fatalError("nghttp2: out of memory") }
        pointer = callbacks

        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, frame, context in
            let accepted = withSession(context) {
                $0.beganHeaders(frame!.pointee.hd.stream_id, isFirst: isFirstBlock(frame!))
            }
            return accepted ? 0 : Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks) { _, header, context in
            withSession(context) { $0.beganFrame(header!.pointee.type, length: header!.pointee.length, flags: header!.pointee.flags) }
            return 0
        }
        nghttp2_session_callbacks_set_on_header_callback(callbacks) { _, frame, name, nameCount, value, valueCount, _, context in
            let accepted = withSession(context) {
                $0.header(frame!.pointee.hd.stream_id, name: UnsafeRawBufferPointer(start: name, count: nameCount),
                          value: UnsafeRawBufferPointer(start: value, count: valueCount))
            }
            return accepted ? 0 : Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, flags, stream, bytes, count, context in
            withSession(context) {
                $0.data(stream, UnsafeRawBufferPointer(start: bytes, count: count),
                        endStream: flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0)
            }
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, context in
            withSession(context) { receivedFrame($0, frame!) }
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, stream, code, context in
            withSession(context) { $0.closed(stream, code) }
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { _, frame, context in
            let header = frame!.pointee.hd
            let endStream = header.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
            switch UInt32(header.type) {
            case NGHTTP2_HEADERS.rawValue: withSession(context) { $0.sentHeaders(header.stream_id, endStream: endStream) }
            case NGHTTP2_DATA.rawValue where endStream: withSession(context) { $0.sentEnd(header.stream_id) }
            case NGHTTP2_RST_STREAM.rawValue: withSession(context) { $0.sentReset(header.stream_id, frame!.pointee.rst_stream.error_code) }
            default: break
            }
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks) { _, frame, _, context in
            if frame!.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue) {
                withSession(context) { $0.notSentHeaders(frame!.pointee.hd.stream_id) }
            }
            return 0
        }
    }
}

private let sessionCallbacks = SessionCallbacks()

@inline(__always)
private func withSession<R>(_ context: UnsafeMutableRawPointer?, _ body: (HTTP2Session) -> R) -> R {
    // The session outlives every call into nghttp2, so no retain is needed here.
    Unmanaged<HTTP2Session>.fromOpaque(context!)._withUnsafeGuaranteedRef(body)
}

@inline(__always)
private func isFirstBlock(_ frame: UnsafePointer<nghttp2_frame>) -> Bool {
    let category = frame.pointee.headers.cat
    return category == NGHTTP2_HCAT_REQUEST || category == NGHTTP2_HCAT_RESPONSE
}

private func receivedFrame(_ session: HTTP2Session, _ frame: UnsafePointer<nghttp2_frame>) {
    let header = frame.pointee.hd
    let endStream = header.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    switch UInt32(header.type) {
    case NGHTTP2_DATA.rawValue:
        if endStream { session.dataComplete(header.stream_id) }
    case NGHTTP2_HEADERS.rawValue:
        session.headersComplete(header.stream_id, endStream: endStream)
    case NGHTTP2_RST_STREAM.rawValue:
        session.gotReset(header.stream_id, frame.pointee.rst_stream.error_code)
    case NGHTTP2_SETTINGS.rawValue:
        if header.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0 { session.gotSettings() }
    case NGHTTP2_PING.rawValue:
        guard header.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0 else { return session.gotPing() }
        let payload = withUnsafeBytes(of: frame.pointee.ping.opaque_data) { UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)) }
        session.gotPong(payload)
    case NGHTTP2_GOAWAY.rawValue:
        let goAway = frame.pointee.goaway
        session.gotGoAway(lastStream: goAway.last_stream_id, code: goAway.error_code,
                          debug: UnsafeRawBufferPointer(start: goAway.opaque_data, count: goAway.opaque_data_len))
    default: break
    }
}
