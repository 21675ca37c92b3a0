import Base
import SwiftProtobuf

/// So that users of these messages need not import SwiftProtobuf themselves.
public typealias ProtobufMessage = SwiftProtobuf.Message

extension SwiftProtobuf.Message {
    /// Decodes a message from borrowed bytes. For the calls that are not on the hot path.
    public init(decoding bytes: UnsafeRawBufferPointer) throws(DecodingFault) { try self.init(decoding: [UInt8](bytes)) }

    public init(decoding bytes: [UInt8]) throws(DecodingFault) {
        do {
            try self.init(serializedBytes: bytes)
        } catch BinaryDecodingError.truncated {
            throw .truncated
        } catch {
            throw .malformed("protobuf \(Self.protoMessageName): \(error)")
        }
    }

    /// The wire form. Cannot fail: proto3 has no required fields.
    public func encoded() -> [UInt8] {
        do {
            return try serializedBytes()
        } catch {
            preconditionFailure("encoding \(Self.protoMessageName): \(error)")
        }
    }

    /// For people, and for tests that compare: fields by name, unknown ones by number.
    public var text: String { textFormatString() }
}
