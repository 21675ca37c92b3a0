import CNghttp2

/// The head of a request that is no gRPC call.
public struct PlainRequestHead: Sendable {
    public var method: String
    /// Path and query.
    public var path: String
    /// In the order sent, names in lower case.
    public var fields: [(name: String, value: String)]
}

/// What a connection that serves HTTP endpoints too is told of them. On the terms of `GRPCServerDelegate`: a request that was announced is over after
/// `finishBody` (or an answer without a body), `abort`, or one `plainCancelled`.
public protocol PlainRequestDelegate: AnyObject {
    /// A path that takes plain requests only, so that even one with gRPC's content type is one. Asked about paths that are no method's.
    func session(_ session: GRPCServerSession, claims path: String) -> Bool
    func session(_ session: GRPCServerSession, requested stream: StreamID, _ head: PlainRequestHead)
    /// Part of the request's body, valid during this call only.
    func session(_ session: GRPCServerSession, body: UnsafeRawBufferPointer, of stream: StreamID)
    func session(_ session: GRPCServerSession, requestEnded stream: StreamID)
    func session(_ session: GRPCServerSession, plainCancelled stream: StreamID)
    /// The bytes that wait on this stream fell to what `notifyWhenDrained` asked for.
    func session(_ session: GRPCServerSession, plainDrained stream: StreamID)
}

extension GRPCServerSession {
    /// The client may send its body. (RFC 9110 §10.1.1)
    public func sendContinue(_ stream: StreamID) {
        var field = StaticField.make(":status", "100")
        _ = nghttp2_submit_headers(raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, nil, &field, 1, nil)
    }

    /// Begins the answer to a plain request; without a body it is complete.
    /// - Parameter fields: names in lower case.
    public func respondPlain(_ stream: StreamID, status: UInt, _ fields: [(name: String, value: String)], hasBody: Bool) {
        guard let state = find(stream), state.pointee.isPlain, !state.pointee.hasSubmitted, !state.pointee.isFinishing else { return }
        state.pointee.hasSubmitted = true
        state.pointee.isFinishing = !hasBody
        var text: [UInt8] = []
        var ends: [Int] = []
        for (name, value) in [(":status", String(status))] + fields {
            for part in [name, value] {
                text += part.utf8
                ends.append(text.count)
            }
        }
        var provider = dataProvider(state)
        text.withUnsafeMutableBufferPointer { text in
            func at(_ index: Int) -> Int { index == 0 ? 0 : ends[index - 1] }
            let base = text.baseAddress!
            // Copied by nghttp2 during the call. A failure means that the stream is closing: legal, the client may have reset it.
            let pairs = (0..<ends.count / 2).map { pair in
                let (name, value, end) = (at(2 * pair), at(2 * pair + 1), ends[2 * pair + 1])
                return nghttp2_nv(name: base + name, value: base + value, namelen: value - name, valuelen: end - value, flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue))
            }
            _ = hasBody ? nghttp2_submit_response(raw, stream, pairs, pairs.count, &provider) : nghttp2_submit_response(raw, stream, pairs, pairs.count, nil)
        }
    }

    /// Queues a part of the answer's body. A large one is kept, not copied.
    public func sendBody(_ stream: StreamID, _ bytes: [UInt8]) {
        guard let state = find(stream), state.pointee.isPlain, !state.pointee.isFinishing, !bytes.isEmpty else { return }
        state.pointee.output.append(plain: bytes)
        wake(state)
    }

    /// The body is complete.
    public func finishBody(_ stream: StreamID) {
        guard let state = find(stream), state.pointee.isPlain, !state.pointee.isFinishing else { return }
        state.pointee.isFinishing = true
        wake(state)
    }
}
