#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif
import Base
import CNghttp2

/// Cuts the bytes of one direction of a call into gRPC messages: one flag byte, four bytes of length (big endian), the
/// message. A message that arrives in one piece is lent from the receive buffer; others are collected.
struct MessageAssembler {
    enum Fault: Equatable {
        /// The announced length is above the limit.
        case tooLarge(Int)
        /// The compressed flag is set.
        case compressed
        /// Neither 0 nor 1.
        case badFlag(UInt8)
    }

    /// The prefix while it is incomplete.
    private var prefix: (UInt8, UInt8, UInt8, UInt8, UInt8) = (0, 0, 0, 0, 0)
    private var prefixCount = 0
    /// Length of the message being collected; -1 while reading a prefix.
    private var expected = -1
    private var collected: [UInt8] = []
    /// The compressed flag is no fault: the call's encoding is one that is known here.
    var acceptsCompressed = false
    /// The flag of the message that was last handed out.
    private(set) var isCompressed = false

    /// A message has begun and is not complete.
    var isInsideMessage: Bool { prefixCount > 0 || expected >= 0 }
    /// Bytes held of a message that is not complete.
    var collectedBytes: Int { collected.count }

    mutating func reset() {
        prefixCount = 0
        expected = -1
        acceptsCompressed = false
        collected.removeAll(keepingCapacity: collected.capacity <= 64 << 10)
    }

    /// One step: takes bytes from `input` at `offset` and moves `offset`. The outcome says what to do next.
    enum Step {
        /// All input is used up.
        case needsMore
        /// A message inside `input`.
        case lent(Range<Int>)
        /// A message that was collected; give the array back with `recycle`.
        case collected([UInt8])
        case fault(Fault)
    }

    mutating func step(_ input: UnsafeRawBufferPointer, _ offset: inout Int, limit: Int) -> Step {
        if expected < 0 {
            let flag: UInt8
            let length: Int
            if prefixCount == 0, input.count - offset >= 5 {
                flag = input[offset]
                length = Int(UInt32(bigEndian: input.loadUnaligned(fromByteOffset: offset + 1, as: UInt32.self)))
                offset += 5
            } else {
                while prefixCount < 5 {
                    guard offset < input.count else { return .needsMore }
                    withUnsafeMutableBytes(of: &prefix) { $0[prefixCount] = input[offset] }
                    prefixCount += 1
                    offset += 1
                }
                flag = prefix.0
                length = Int(prefix.1) << 24 | Int(prefix.2) << 16 | Int(prefix.3) << 8 | Int(prefix.4)
                prefixCount = 0
            }
            if flag == 1, !acceptsCompressed { return .fault(.compressed) }
            if flag > 1 { return .fault(.badFlag(flag)) }
            isCompressed = flag == 1
            if length > limit { return .fault(.tooLarge(length)) }
            if input.count - offset >= length {
                defer { offset += length }
                return .lent(offset..<offset + length)
            }
            expected = length
            // Grows with what really arrives: an announced length alone costs nothing.
        }
        let missing = expected - collected.count
        let taken = min(missing, input.count - offset)
        if taken > 0 {
            collected.append(contentsOf: UnsafeRawBufferPointer(rebasing: input[offset..<offset + taken]))
            offset += taken
        }
        guard collected.count == expected else { return .needsMore }
        expected = -1
        var message: [UInt8] = []
        swap(&message, &collected)
        return .collected(message)
    }

    /// Keeps the memory of a collected message for the next one, unless it is large.
    mutating func recycle(_ message: consuming [UInt8]) {
        guard message.capacity <= 64 << 10, collected.isEmpty else { return }
        message.removeAll(keepingCapacity: true)
        collected = message
    }
}

/// Bytes of a stream that wait for the peer's window: small messages share a buffer, a large one is kept as it is.
struct OutputQueue {
    /// A message from this size on is queued without copying it.
    static let ownedFromBytes = 32 << 10

    /// The buffer being filled, also the only one in the usual case.
    private var tail: [UInt8] = []
    /// Full buffers before `tail`.
    private var segments: [[UInt8]] = []
    private var segmentHead = 0
    /// Bytes of the first buffer that are gone.
    private var offset = 0
    private(set) var count = 0

    mutating func reset() {
        tail.removeAll(keepingCapacity: tail.capacity <= 64 << 10)
        segments.removeAll()
        segmentHead = 0
        offset = 0
        count = 0
    }

    /// Appends a message with its prefix.
    mutating func append(_ message: [UInt8], isCompressed: Bool = false) {
        if message.count >= OutputQueue.ownedFromBytes {
            appendPrefix(message.count, isCompressed)
            seal()
            segments.append(message)
            count += 5 + message.count
        } else {
            message.withUnsafeBytes { append($0, isCompressed: isCompressed) }
        }
    }

    mutating func append(_ message: UnsafeRawBufferPointer, isCompressed: Bool = false) {
        makeRoom()
        appendPrefix(message.count, isCompressed)
        tail.append(contentsOf: message)
        count += 5 + message.count
    }

    /// Appends a message that `write` puts straight into the buffer.
    mutating func append(_ write: (inout ByteWriter) -> Void) {
        makeRoom()
        var writer = ByteWriter()
        swap(&writer.bytes, &tail)
        let start = writer.bytes.count
        for _ in 0..<5 { writer.bytes.append(0) }
        write(&writer)
        let length = writer.bytes.count - start - 5
        precondition(length >= 0 && length <= UInt32.max, "message writer removed bytes")
        withUnsafeBytes(of: UInt32(length).bigEndian) { prefix in
            for index in 0..<4 { writer.bytes[start + 1 + index] = prefix[index] }
        }
        swap(&writer.bytes, &tail)
        count += 5 + length
    }

    /// Appends bytes as they are.
    mutating func append(plain bytes: [UInt8]) {
        if bytes.count >= OutputQueue.ownedFromBytes {
            seal()
            segments.append(bytes)
        } else {
            makeRoom()
            tail.append(contentsOf: bytes)
        }
        count += bytes.count
    }

    private mutating func appendPrefix(_ length: Int, _ isCompressed: Bool) {
        precondition(length <= UInt32.max, "message of \(length) bytes")
        tail.append(isCompressed ? 1 : 0)
        withUnsafeBytes(of: UInt32(length).bigEndian) { tail.append(contentsOf: $0) }
    }

    /// A tail that has grown large is closed, so that sent bytes can be freed.
    private mutating func makeRoom() {
        if tail.count >= OutputQueue.ownedFromBytes { seal() }
    }

    private mutating func seal() {
        guard !tail.isEmpty else { return }
        segments.append(tail)
        tail = []
    }

    /// Copies out up to `room.count` bytes and forgets them. Returns how many.
    mutating func take(into room: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        while done < room.count, count > 0 {
            let usesTail = segmentHead == segments.count
            let copied: Int
            if usesTail {
                copied = OutputQueue.copy(tail, from: offset, into: room, at: done)
            } else {
                copied = OutputQueue.copy(segments[segmentHead], from: offset, into: room, at: done)
            }
            done += copied
            offset += copied
            count -= copied
            if usesTail {
                if offset == tail.count {
                    tail.removeAll(keepingCapacity: tail.capacity <= 64 << 10)
                    offset = 0
                }
            } else if offset == segments[segmentHead].count {
                segments[segmentHead] = []
                segmentHead += 1
                offset = 0
                if segmentHead == segments.count {
                    segments.removeAll()
                    segmentHead = 0
                }
            }
        }
        return done
    }

    @inline(__always)
    private static func copy(_ source: [UInt8], from offset: Int, into room: UnsafeMutableRawBufferPointer, at done: Int) -> Int {
        source.withUnsafeBytes { bytes in
            let n = min(bytes.count - offset, room.count - done)
            guard n > 0 else { return 0 }
            room.baseAddress!.advanced(by: done).copyMemory(from: bytes.baseAddress!.advanced(by: offset), byteCount: n)
            return n
        }
    }
}

/// Header fields whose memory is static: nghttp2 keeps the pointers instead of copying.
enum StaticField {
    static func make(_ name: StaticString, _ value: StaticString) -> nghttp2_nv {
        nghttp2_nv(name: UnsafeMutablePointer(mutating: name.utf8Start), value: UnsafeMutablePointer(mutating: value.utf8Start),
                   namelen: name.utf8CodeUnitCount, valuelen: value.utf8CodeUnitCount, flags: noCopy)
    }

    /// A field whose value nghttp2 copies during the call.
    static func make(_ name: StaticString, copying value: UnsafeRawBufferPointer) -> nghttp2_nv {
        nghttp2_nv(name: UnsafeMutablePointer(mutating: name.utf8Start),
                   value: value.baseAddress.map { UnsafeMutablePointer(mutating: $0.assumingMemoryBound(to: UInt8.self)) },
                   namelen: name.utf8CodeUnitCount, valuelen: value.count, flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue))
    }

    static func grpcStatus(_ code: StatusCode) -> nghttp2_nv {
        switch code {
        case .ok: make("grpc-status", "0")
        case .canceled: make("grpc-status", "1")
        case .unknown: make("grpc-status", "2")
        case .invalidArgument: make("grpc-status", "3")
        case .deadlineExceeded: make("grpc-status", "4")
        case .notFound: make("grpc-status", "5")
        case .alreadyExists: make("grpc-status", "6")
        case .permissionDenied: make("grpc-status", "7")
        case .resourceExhausted: make("grpc-status", "8")
        case .failedPrecondition: make("grpc-status", "9")
        case .aborted: make("grpc-status", "10")
        case .outOfRange: make("grpc-status", "11")
        case .unimplemented: make("grpc-status", "12")
        case .internal: make("grpc-status", "13")
        case .unavailable: make("grpc-status", "14")
        case .dataLoss: make("grpc-status", "15")
        case .unauthenticated: make("grpc-status", "16")
        }
    }

    private static let noCopy = UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)
}

@inline(__always)
func bytesEqual(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
    bytes.count == text.utf8CodeUnitCount && bytesBegin(bytes, with: text)
}

@inline(__always)
func bytesBegin(_ bytes: UnsafeRawBufferPointer, with text: StaticString) -> Bool {
    guard bytes.count >= text.utf8CodeUnitCount, let base = bytes.baseAddress else { return false }
    return memcmp(base, text.utf8Start, text.utf8CodeUnitCount) == 0
}
