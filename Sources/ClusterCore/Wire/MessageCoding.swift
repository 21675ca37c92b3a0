import Base
import SwiftProtobuf

/// So that users of these messages need not import SwiftProtobuf themselves.
public typealias ProtobufMessage = SwiftProtobuf.Message

extension SwiftProtobuf.Message {
    /// Decodes a message from borrowed bytes. For the calls that are not on the hot path.
    public init(decoding bytes: UnsafeRawBufferPointer) throws(DecodingFault) {
        do {
            try self.init(serializedBytes: [UInt8](bytes))
        } catch {
            throw .malformed("protobuf \(Self.protoMessageName): \(error)")
        }
    }

    public init(decoding bytes: [UInt8]) throws(DecodingFault) {
        do {
            try self.init(serializedBytes: bytes)
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
}
