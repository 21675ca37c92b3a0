// The primitives of the protobuf wire format (protobuf.dev/programming-guides/encoding), for the few messages on the
// hot path that are coded by hand. Everything else uses the generated code of the Wire module.

/// The kinds of field on the wire.
public enum WireType: UInt8, Sendable {
    case varint = 0
    case fixed64 = 1
    case lengthDelimited = 2
    case startGroup = 3
    case endGroup = 4
    case fixed32 = 5
}

extension ByteWriter {
    @inlinable public mutating func writeTag(_ field: UInt32, _ type: WireType) {
        writeVarint(UInt64(field) << 3 | UInt64(type.rawValue))
    }
    /// proto3: a zero is not written.
    @inlinable public mutating func writeField(_ field: UInt32, _ value: Int64) {
        guard value != 0 else { return }
        writeTag(field, .varint)
        writeVarint(UInt64(bitPattern: value))
    }
    @inlinable public mutating func writeField(_ field: UInt32, _ value: UInt64) {
        guard value != 0 else { return }
        writeTag(field, .varint)
        writeVarint(value)
    }
    @inlinable public mutating func writeField(_ field: UInt32, _ value: Bool) {
        guard value else { return }
        writeTag(field, .varint)
        bytes.append(1)
    }
    /// proto3: empty bytes are not written.
    @inlinable public mutating func writeField(_ field: UInt32, _ value: [UInt8]) {
        guard !value.isEmpty else { return }
        writeTag(field, .lengthDelimited)
        writeCounted(value)
    }
    /// A sub-message, written even when empty. `body` appends its fields; the length is put in front afterwards.
    @inlinable public mutating func writeMessage(_ field: UInt32, _ body: (inout ByteWriter) -> Void) {
        writeTag(field, .lengthDelimited)
        let lengthAt = bytes.count
        bytes.append(0)
        body(&self)
        let length = bytes.count - lengthAt - 1
        if length < 0x80 {
            bytes[lengthAt] = UInt8(length)
        } else {
            var prefix = ByteWriter(capacity: 10)
            prefix.writeVarint(UInt64(length))
            bytes.replaceSubrange(lengthAt...lengthAt, with: prefix.bytes)
        }
    }
    /// A sub-message whose encoded bytes are at hand.
    @inlinable public mutating func writeEncodedMessage(_ field: UInt32, _ encoded: UnsafeRawBufferPointer) {
        writeTag(field, .lengthDelimited)
        writeVarint(UInt64(encoded.count))
        bytes.append(contentsOf: encoded)
    }
}

extension ByteReader {
    /// The next field's number and kind; nil at the end of the message.
    @inlinable public mutating func readTag() throws(DecodingFault) -> (field: UInt32, type: WireType)? {
        if isAtEnd { return nil }
        let tag = try readVarint()
        guard tag <= UInt64(UInt32.max), tag >> 3 != 0, let type = WireType(rawValue: UInt8(tag & 7)) else {
            throw .malformed("protobuf tag")
        }
        return (UInt32(tag >> 3), type)
    }
    /// Skips a field that the reader does not know.
    @inlinable public mutating func skip(_ type: WireType) throws(DecodingFault) {
        switch type {
        case .varint: _ = try readVarint()
        case .fixed64: _ = try readSlice(8)
        case .fixed32: _ = try readSlice(4)
        case .lengthDelimited: _ = try readCountedSlice()
        case .startGroup, .endGroup: throw .malformed("protobuf group")
        }
    }
    /// A nested reader over the next length-delimited field.
    @inlinable public mutating func readMessage() throws(DecodingFault) -> ByteReader {
        let count = try readCount()
        defer { offset += count }
        return ByteReader(base, offset: offset, count: count)
    }
}
