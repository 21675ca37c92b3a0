import Base
import CISAL

/// gzip for messages: ISA-L's inflate and deflate. Nothing is kept between messages; the states are some hundred kilobytes, used by few clients.
enum Gzip {
    enum Fault: Error, Equatable {
        /// More than the limit comes out of it.
        case tooLarge
        /// No gzip stream, or a damaged one.
        case damaged(String)
    }

    /// What `compressed` holds, at most `limit` bytes of it: memory grows with what comes out, never beyond the limit.
    static func decompress(_ compressed: UnsafeRawBufferPointer, limit: Int) throws(Fault) -> [UInt8] {
        let state = UnsafeMutablePointer<inflate_state>.allocate(capacity: 1)
        defer { state.deallocate() }
        var output: [UInt8] = []
        var filled = 0
        guard let base = compressed.baseAddress, compressed.count > 0 else { throw .damaged("unexpected EOF") }
        begin(state, UnsafeRawBufferPointer(start: base, count: compressed.count))
        while true {
            if filled == output.count {
                // One more than the limit tells what is too large from what just fits.
                guard filled <= limit else { throw .tooLarge }
                let room = filled == 0 ? max(4 * compressed.count, 1 << 10) : filled
                output.append(contentsOf: repeatElement(0, count: min(room, limit + 1 - filled)))
            }
            let (outcome, used) = output.withUnsafeMutableBytes { bytes in
                let room = bytes.count - filled
                state.pointee.next_out = bytes.baseAddress!.advanced(by: filled).assumingMemoryBound(to: UInt8.self)
                state.pointee.avail_out = UInt32(room)
                let outcome = isal_inflate(state)
                return (outcome, room - Int(state.pointee.avail_out))
            }
            filled += used
            guard outcome == ISAL_DECOMP_OK else { throw .damaged(word(outcome)) }
            if state.pointee.block_state == ISAL_BLOCK_FINISH {
                guard filled <= limit else { throw .tooLarge }
                let rest = Int(state.pointee.avail_in)
                if rest == 0 { break }
                // A stream may have several members, one behind the other. (RFC 1952)
                begin(state, UnsafeRawBufferPointer(rebasing: compressed[(compressed.count - rest)...]))
            } else if used == 0, filled < output.count {
                throw .damaged("unexpected EOF")
            }
        }
        output.removeLast(output.count - filled)
        return output
    }

    private static func begin(_ state: UnsafeMutablePointer<inflate_state>, _ input: UnsafeRawBufferPointer) {
        isal_inflate_init(state)
        state.pointee.crc_flag = UInt32(ISAL_GZIP)
        state.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress!.assumingMemoryBound(to: UInt8.self))
        state.pointee.avail_in = UInt32(input.count)
    }

    /// As Go's reader says it.
    private static func word(_ outcome: Int32) -> String {
        switch outcome {
        case ISAL_END_INPUT: "unexpected EOF"
        case ISAL_INVALID_WRAPPER, ISAL_UNSUPPORTED_METHOD: "gzip: invalid header"
        case ISAL_INCORRECT_CHECKSUM: "gzip: invalid checksum"
        default: "flate: corrupt input"
        }
    }

    /// Below this a message is sent as it is: gzip's own 18 bytes and the work would gain nothing.
    static let leastBytes = 1 << 10

    /// nil when it would not get smaller.
    static func compress(_ message: [UInt8]) -> [UInt8]? {
        guard message.count >= leastBytes, message.count <= Int(Int32.max) else { return nil }
        let state = UnsafeMutablePointer<isal_zstream>.allocate(capacity: 1)
        defer { state.deallocate() }
        isal_deflate_stateless_init(state)
        state.pointee.end_of_stream = 1
        state.pointee.gzip_flag = UInt16(IGZIP_GZIP)
        var output = [UInt8](repeating: 0, count: message.count)
        let outcome = message.withUnsafeBytes { input in
            output.withUnsafeMutableBytes { output in
                state.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress!.assumingMemoryBound(to: UInt8.self))
                state.pointee.avail_in = UInt32(input.count)
                state.pointee.next_out = output.baseAddress!.assumingMemoryBound(to: UInt8.self)
                state.pointee.avail_out = UInt32(output.count)
                return isal_deflate_stateless(state)
            }
        }
        guard outcome == COMP_OK, state.pointee.avail_in == 0 else { return nil }
        output.removeLast(Int(state.pointee.avail_out))
        return output
    }
}
