import Base

// Protobuf coding of the answers (etcd-api.md §3.3). Decoding of answers is not needed here: clients use Wire.

extension ResponseHeader {
    /// The header's fields, without tag and length.
    public func encodeFields(into writer: inout ByteWriter) {
        writer.writeField(1, clusterID.rawValue)
        writer.writeField(2, memberID.rawValue)
        writer.writeField(3, revision.rawValue)
        writer.writeField(4, raftTerm.rawValue)
    }

    /// As field 1 of a response, which is where every response has it.
    public func encodeAsField(into writer: inout ByteWriter) {
        writer.writeMessage(1) { encodeFields(into: &$0) }
    }

    func at(_ revision: Revision) -> ResponseHeader {
        var header = self
        header.revision = revision
        return header
    }
}

extension EncodedKeyValues {
    /// Copies one encoded key-value in, under `tag`.
    mutating func append(tag: UInt8, _ kv: UnsafeRawBufferPointer) {
        var writer = ByteWriter()
        swap(&writer.bytes, &bytes)
        writer.write(tag)
        writer.writeVarint(UInt64(kv.count))
        writer.write(kv)
        swap(&writer.bytes, &bytes)
        count += 1
    }
}

extension RangeResult {
    /// A whole RangeResponse. The header's revision is the result's.
    public func encode(header: ResponseHeader, into writer: inout ByteWriter) {
        writer.bytes.reserveCapacity(writer.bytes.count + kvs.bytes.count + 64)
        header.at(revision).encodeAsField(into: &writer)
        writer.write(kvs.bytes)
        writer.writeField(3, more)
        writer.writeField(4, count)
    }
}

extension PutResult {
    /// A whole PutResponse. The header's revision is the result's.
    public func encode(header: ResponseHeader, into writer: inout ByteWriter) {
        header.at(revision).encodeAsField(into: &writer)
        if let previous {
            writer.writeTag(2, .lengthDelimited)
            writer.writeCounted(previous)
        }
    }
}

extension DeleteRangeResult {
    /// A whole DeleteRangeResponse. The header's revision is the result's.
    public func encode(header: ResponseHeader, into writer: inout ByteWriter) {
        header.at(revision).encodeAsField(into: &writer)
        writer.writeField(2, deleted)
        writer.write(previous.bytes)
    }
}

extension TxnResult {
    /// A whole TxnResponse. The header's revision is the result's.
    public func encode(header: ResponseHeader, into writer: inout ByteWriter) {
        header.at(revision).encodeAsField(into: &writer)
        encodeBody(into: &writer)
    }

    fileprivate func encodeBody(into writer: inout ByteWriter) {
        writer.writeField(2, succeeded)
        for response in responses { writer.writeMessage(3) { response.encode(into: &$0) } }
    }
}

extension OpResult {
    /// A ResponseOp's fields.
    func encode(into writer: inout ByteWriter) {
        switch self {
        case .none: break
        case .range(let result): writer.writeMessage(1) { result.encode(header: ResponseHeader(), into: &$0) }
        case .put(let result): writer.writeMessage(2) { result.encode(header: ResponseHeader(), into: &$0) }
        case .deleteRange(let result): writer.writeMessage(3) { result.encode(header: ResponseHeader(), into: &$0) }
        case .txn(let result):
            writer.writeMessage(4) { inner in
                inner.writeMessage(1) { _ in }
                result.encodeBody(into: &inner)
            }
        }
    }
}
