import Base

/// One call of a server session, or one plain request. Lives in manually managed memory because nghttp2 holds pointers to it.
struct ServerStream {
    var id: StreamID = 0
    /// Index in the session's list of open streams.
    var place = 0
    var head = RequestHead()
    var input = MessageAssembler()
    var output = OutputQueue()
    var status: StatusCode = .ok
    /// Percent-encoded.
    var statusMessage: [UInt8] = []
    /// Buffered bytes at which the delegate wants to be told; -1: not at all.
    var drainMark = -1
    /// The delegate has heard of this call.
    var isAnnounced = false
    /// A bidirectional call.
    var isStreaming = false
    /// The request of a call with a single one has been delivered.
    var hasRequest = false
    /// The response has been handed to nghttp2.
    var hasSubmitted = false
    /// nghttp2 waits for `resume_data`.
    var isDeferred = false
    /// The status is known; nothing more is accepted for sending.
    var isFinishing = false
    /// The client has sent its last byte.
    var remoteEnded = false
    var isGzip = false
    var hasUnknownEncoding = false
    /// How many looks in a row found the request on its way. (`age`)
    var waits: UInt8 = 0
    /// No gRPC: body and answer are bytes without frames, and no trailers follow.
    var isPlain = false

    /// What still arrives is thrown away.
    var ignoresInput: Bool { isFinishing || hasRequest }

    mutating func finish(_ code: StatusCode, _ message: [UInt8]) {
        status = code
        statusMessage = message
        isFinishing = true
    }

    mutating func clear() {
        head = RequestHead()
        input.reset()
        output.reset()
        status = .ok
        if !statusMessage.isEmpty { statusMessage = [] }
        drainMark = -1
        isAnnounced = false
        isStreaming = false
        hasRequest = false
        hasSubmitted = false
        isDeferred = false
        isFinishing = false
        remoteEnded = false
        isGzip = false
        hasUnknownEncoding = false
        waits = 0
        isPlain = false
    }

    static func allocate() -> UnsafeMutablePointer<ServerStream> {
        let pointer = UnsafeMutablePointer<ServerStream>.allocate(capacity: 1)
        pointer.initialize(to: ServerStream())
        return pointer
    }

    static func free(_ pointer: UnsafeMutablePointer<ServerStream>) {
        pointer.deinitialize(count: 1)
        pointer.deallocate()
    }
}
