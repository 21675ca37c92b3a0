/// HTTP/2 by hand: what no client library sends, and how a server answers to that.
public struct RawFrame: Equatable, Sendable {
    public enum Kind: UInt8, Sendable {
        case data, headers, priority, reset, settings, pushPromise, ping, goAway, windowUpdate, continuation
        case unknown = 0xee
    }
    public static let endStream: UInt8 = 1, ack: UInt8 = 1, endHeaders: UInt8 = 4

    public var kind: Kind
    public var flags: UInt8
    public var stream: Int32
    public var payload: [UInt8]

    public init(kind: Kind, flags: UInt8 = 0, stream: Int32 = 0, payload: [UInt8] = []) {
        (self.kind, self.flags, self.stream, self.payload) = (kind, flags, stream, payload)
    }

    public var bytes: [UInt8] {
        var bytes = bigEndian(UInt32(payload.count) << 8 | UInt32(kind.rawValue))
        bytes.append(flags)
        bytes += bigEndian(UInt32(stream))
        return bytes + payload
    }

    /// What a client begins with.
    public static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + RawFrame(kind: .settings).bytes

    public static func ping(_ number: UInt8 = 0) -> RawFrame { RawFrame(kind: .ping, payload: [UInt8](repeating: number, count: 8)) }
    public static func settings(_ entries: (id: UInt16, value: UInt32)...) -> RawFrame {
        RawFrame(kind: .settings, payload: entries.flatMap { [UInt8($0.id >> 8), UInt8($0.id & 0xff)] + bigEndian($0.value) })
    }
    public static func windowUpdate(_ stream: Int32, _ increment: UInt32) -> RawFrame { RawFrame(kind: .windowUpdate, stream: stream, payload: bigEndian(increment)) }
    public static func reset(_ stream: Int32) -> RawFrame { RawFrame(kind: .reset, stream: stream, payload: [0, 0, 0, 8]) }
    public static func data(_ stream: Int32, _ payload: [UInt8] = [], ends: Bool = false) -> RawFrame {
        RawFrame(kind: .data, flags: ends ? endStream : 0, stream: stream, payload: payload)
    }
    /// A gRPC request's, complete.
    public static func headers(_ stream: Int32, path: String, extra: [(String, String)] = []) -> RawFrame {
        RawFrame(kind: .headers, flags: endHeaders, stream: stream, payload: block([
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"),
        ] + extra))
    }
    /// A gRPC message in a frame.
    public static func message(_ stream: Int32, _ message: [UInt8], ends: Bool = false) -> RawFrame {
        data(stream, [0] + bigEndian(UInt32(message.count)) + message, ends: ends)
    }

    /// Literal fields without indexing. (RFC 7541 §6.2.2)
    public static func block(_ fields: [(String, String)]) -> [UInt8] { fields.flatMap { [0] + text($0) + text($1) } }

    public static func text(_ text: String) -> [UInt8] {
        var rest = text.utf8.count
        guard rest >= 127 else { return [UInt8(rest)] + text.utf8 }
        var bytes: [UInt8] = [127]
        rest -= 127
        while rest >= 128 {
            bytes.append(UInt8(rest & 127) | 128)
            rest >>= 7
        }
        return bytes + [UInt8(rest)] + text.utf8
    }

    /// The whole frames in `bytes`.
    public static func parse(_ bytes: [UInt8]) -> [RawFrame] {
        var frames: [RawFrame] = []
        var at = 0
        while at + 9 <= bytes.count {
            let end = at + 9 + Int(number(bytes[at..<at + 3]))
            guard end <= bytes.count else { break }
            frames.append(RawFrame(kind: Kind(rawValue: bytes[at + 3]) ?? .unknown, flags: bytes[at + 4], stream: Int32(number(bytes[at + 5..<at + 9]) & 0x7fff_ffff),
                                   payload: Array(bytes[at + 9..<end])))
            at = end
        }
        return frames
    }

    /// Of RST_STREAM.
    public var code: UInt32 { RawFrame.number(payload.prefix(4)) }
    /// Of GOAWAY.
    public var goAwayCode: UInt32 { RawFrame.number(payload.dropFirst(4).prefix(4)) }
    public var debug: String { String(decoding: payload.dropFirst(8), as: UTF8.self) }
    /// Of SETTINGS: the last value under this number.
    public func setting(_ id: UInt16) -> UInt32? {
        var found: UInt32?
        for at in stride(from: 0, to: payload.count - 5, by: 6) where UInt16(payload[at]) << 8 | UInt16(payload[at + 1]) == id {
            found = RawFrame.number(payload[at + 2..<at + 6])
        }
        return found
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt32 { bytes.reduce(0) { $0 << 8 | UInt32($1) } }
}

private func bigEndian(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { [UInt8]($0) } }
