/// Bytes that are not what a decoder expects.
public enum DecodingFault: Error, Equatable, Sendable {
    /// The input ended inside a value.
    case truncated
    /// A varint longer than ten bytes, a length beyond the input, a wire type that does not exist, ...
    case malformed(String)
}

/// Appends fixed-width little-endian numbers, varints and length-prefixed bytes.
public struct ByteWriter: Sendable {
    public var bytes: [UInt8]
    @inlinable public init(capacity: Int = 0) {
        bytes = []
        if capacity > 0 { bytes.reserveCapacity(capacity) }
    }
    @inlinable public mutating func write(_ value: UInt8) { bytes.append(value) }
    @inlinable public mutating func write<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    @inlinable public mutating func writeBigEndian<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }
    @inlinable public mutating func write(_ raw: UnsafeRawBufferPointer) { bytes.append(contentsOf: raw) }
    @inlinable public mutating func write(_ raw: [UInt8]) { bytes.append(contentsOf: raw) }
    /// Unsigned LEB128, as protobuf's varint.
    @inlinable public mutating func writeVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }
    /// A varint length, then the bytes.
    @inlinable public mutating func writeCounted(_ raw: [UInt8]) {
        writeVarint(UInt64(raw.count))
        bytes.append(contentsOf: raw)
    }
}

/// The number of bytes that `value` takes as a varint.
@inlinable public func varintSize(_ value: UInt64) -> Int {
    value < 0x80 ? 1 : (64 - value.leadingZeroBitCount + 6) / 7
}

/// Reads what `ByteWriter` wrote, from borrowed memory. Valid only inside the closure that lends the memory.
public struct ByteReader {
    public let base: UnsafeRawBufferPointer
    public var offset: Int
    public let end: Int

    @inlinable public init(_ base: UnsafeRawBufferPointer) {
        self.base = base
        offset = 0
        end = base.count
    }
    @inlinable public init(_ base: UnsafeRawBufferPointer, offset: Int, count: Int) {
        self.base = base
        self.offset = offset
        end = offset + count
    }
    @inlinable public var remaining: Int { end - offset }
    @inlinable public var isAtEnd: Bool { offset >= end }

    @inlinable public mutating func readByte() throws(DecodingFault) -> UInt8 {
        guard offset < end else { throw .truncated }
        defer { offset += 1 }
        return base[offset]
    }
    @inlinable public mutating func read<T: FixedWidthInteger>(_: T.Type = T.self) throws(DecodingFault) -> T {
        let size = MemoryLayout<T>.size
        guard remaining >= size else { throw .truncated }
        defer { offset += size }
        return T(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    @inlinable public mutating func readBigEndian<T: FixedWidthInteger>(_: T.Type = T.self) throws(DecodingFault) -> T {
        T(bigEndian: T(littleEndian: try read(T.self)))
    }
    @inlinable public mutating func readVarint() throws(DecodingFault) -> UInt64 {
        var result: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            guard offset < end else { throw .truncated }
            let byte = base[offset]
            offset += 1
            if shift == 63 && byte > 1 { throw .malformed("varint over 64 bits") }
            result |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return result }
            shift += 7
            if shift > 63 { throw .malformed("varint over 10 bytes") }
        }
    }
    @inlinable public mutating func readBytes(_ count: Int) throws(DecodingFault) -> [UInt8] {
        guard count >= 0, remaining >= count else { throw .truncated }
        defer { offset += count }
        return [UInt8](UnsafeRawBufferPointer(rebasing: base[offset..<offset + count]))
    }
    /// Borrowed bytes; not to be kept.
    @inlinable public mutating func readSlice(_ count: Int) throws(DecodingFault) -> UnsafeRawBufferPointer {
        guard count >= 0, remaining >= count else { throw .truncated }
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: base[offset..<offset + count])
    }
    @inlinable public mutating func readCount() throws(DecodingFault) -> Int {
        let n = try readVarint()
        guard n <= UInt64(remaining) else { throw .truncated }
        return Int(n)
    }
    @inlinable public mutating func readCounted() throws(DecodingFault) -> [UInt8] { try readBytes(try readCount()) }
    @inlinable public mutating func readCountedSlice() throws(DecodingFault) -> UnsafeRawBufferPointer { try readSlice(try readCount()) }
}
