import Base

// Hand-written protobuf coding of the KV requests (field numbers: etcd-api.md §3.3). proto3 rules: a repeated scalar or
// oneof takes the last one, unknown fields are skipped, defaults are not written, a negative int64 takes ten bytes.

/// Transactions nested deeper than this are refused as malformed: the coding and execution recurse.
let maxRequestNesting = 100

extension ByteReader {
    mutating func readBytesField(_ type: WireType) throws(DecodingFault) -> [UInt8] {
        guard type == .lengthDelimited else { throw .malformed("wire type of a bytes field") }
        return try readCounted()
    }
    mutating func readInt64Field(_ type: WireType) throws(DecodingFault) -> Int64 {
        guard type == .varint else { throw .malformed("wire type of an integer field") }
        return Int64(bitPattern: try readVarint())
    }
    mutating func readEnumField(_ type: WireType) throws(DecodingFault) -> Int32 {
        Int32(truncatingIfNeeded: try readInt64Field(type))
    }
    mutating func readBoolField(_ type: WireType) throws(DecodingFault) -> Bool {
        try readInt64Field(type) != 0
    }
    mutating func readMessageField(_ type: WireType) throws(DecodingFault) -> ByteReader {
        guard type == .lengthDelimited else { throw .malformed("wire type of a message field") }
        return try readMessage()
    }
}

extension RangeRequest {
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> RangeRequest {
        var request = RangeRequest()
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: request.key = try reader.readBytesField(type)
            case 2: request.rangeEnd = try reader.readBytesField(type)
            case 3: request.limit = try reader.readInt64Field(type)
            case 4: request.revision = Revision(try reader.readInt64Field(type))
            case 5: request.sortOrder = SortOrder(rawValue: try reader.readEnumField(type))
            case 6: request.sortTarget = SortTarget(rawValue: try reader.readEnumField(type))
            case 7: request.serializable = try reader.readBoolField(type)
            case 8: request.keysOnly = try reader.readBoolField(type)
            case 9: request.countOnly = try reader.readBoolField(type)
            case 10: request.minModRevision = Revision(try reader.readInt64Field(type))
            case 11: request.maxModRevision = Revision(try reader.readInt64Field(type))
            case 12: request.minCreateRevision = Revision(try reader.readInt64Field(type))
            case 13: request.maxCreateRevision = Revision(try reader.readInt64Field(type))
            default: try reader.skip(type)
            }
        }
        return request
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, key)
        writer.writeField(2, rangeEnd)
        writer.writeField(3, limit)
        writer.writeField(4, revision.rawValue)
        writer.writeField(5, Int64(sortOrder.rawValue))
        writer.writeField(6, Int64(sortTarget.rawValue))
        writer.writeField(7, serializable)
        writer.writeField(8, keysOnly)
        writer.writeField(9, countOnly)
        writer.writeField(10, minModRevision.rawValue)
        writer.writeField(11, maxModRevision.rawValue)
        writer.writeField(12, minCreateRevision.rawValue)
        writer.writeField(13, maxCreateRevision.rawValue)
    }
}

extension PutRequest {
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> PutRequest {
        var request = PutRequest()
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: request.key = try reader.readBytesField(type)
            case 2: request.value = try reader.readBytesField(type)
            case 3: request.lease = LeaseID(try reader.readInt64Field(type))
            case 4: request.prevKV = try reader.readBoolField(type)
            case 5: request.ignoreValue = try reader.readBoolField(type)
            case 6: request.ignoreLease = try reader.readBoolField(type)
            default: try reader.skip(type)
            }
        }
        return request
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, key)
        writer.writeField(2, value)
        writer.writeField(3, lease.rawValue)
        writer.writeField(4, prevKV)
        writer.writeField(5, ignoreValue)
        writer.writeField(6, ignoreLease)
    }
}

extension DeleteRangeRequest {
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> DeleteRangeRequest {
        var request = DeleteRangeRequest()
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: request.key = try reader.readBytesField(type)
            case 2: request.rangeEnd = try reader.readBytesField(type)
            case 3: request.prevKV = try reader.readBoolField(type)
            default: try reader.skip(type)
            }
        }
        return request
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, key)
        writer.writeField(2, rangeEnd)
        writer.writeField(3, prevKV)
    }
}

extension Compare {
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> Compare {
        var compare = Compare()
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: compare.result = Result(rawValue: try reader.readEnumField(type))
            case 2: compare.target = Target(rawValue: try reader.readEnumField(type))
            case 3: compare.key = try reader.readBytesField(type)
            case 4: compare.operand = .version(try reader.readInt64Field(type))
            case 5: compare.operand = .createRevision(try reader.readInt64Field(type))
            case 6: compare.operand = .modRevision(try reader.readInt64Field(type))
            case 7: compare.operand = .value(try reader.readBytesField(type))
            case 8: compare.operand = .lease(try reader.readInt64Field(type))
            case 64: compare.rangeEnd = try reader.readBytesField(type)
            default: try reader.skip(type)
            }
        }
        return compare
    }

    public func encode(into writer: inout ByteWriter) {
        // A oneof member is written even when it holds its default: its presence is information.
        func member(_ field: UInt32, _ value: Int64) {
            writer.writeTag(field, .varint)
            writer.writeVarint(UInt64(bitPattern: value))
        }
        writer.writeField(1, Int64(result.rawValue))
        writer.writeField(2, Int64(target.rawValue))
        writer.writeField(3, key)
        switch operand {
        case .none: break
        case .version(let n): member(4, n)
        case .createRevision(let n): member(5, n)
        case .modRevision(let n): member(6, n)
        case .value(let bytes):
            writer.writeTag(7, .lengthDelimited)
            writer.writeCounted(bytes)
        case .lease(let n): member(8, n)
        }
        writer.writeField(64, rangeEnd)
    }
}

extension RequestOp {
    static func decode(_ reader: inout ByteReader, nesting: Int) throws(DecodingFault) -> RequestOp {
        var op = RequestOp.none
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1:
                var inner = try reader.readMessageField(type)
                op = .range(try RangeRequest.decode(&inner))
            case 2:
                var inner = try reader.readMessageField(type)
                op = .put(try PutRequest.decode(&inner))
            case 3:
                var inner = try reader.readMessageField(type)
                op = .deleteRange(try DeleteRangeRequest.decode(&inner))
            case 4:
                var inner = try reader.readMessageField(type)
                op = .txn(try TxnRequest.decode(&inner, nesting: nesting + 1))
            default: try reader.skip(type)
            }
        }
        return op
    }

    public func encode(into writer: inout ByteWriter) {
        switch self {
        case .none: break
        case .range(let request): writer.writeMessage(1) { request.encode(into: &$0) }
        case .put(let request): writer.writeMessage(2) { request.encode(into: &$0) }
        case .deleteRange(let request): writer.writeMessage(3) { request.encode(into: &$0) }
        case .txn(let request): writer.writeMessage(4) { request.encode(into: &$0) }
        }
    }
}

extension TxnRequest {
    /// Fails with `.malformed` when transactions are nested more than 100 deep.
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> TxnRequest {
        try decode(&reader, nesting: 0)
    }

    static func decode(_ reader: inout ByteReader, nesting: Int) throws(DecodingFault) -> TxnRequest {
        guard nesting < maxRequestNesting else { throw .malformed("transactions nested over \(maxRequestNesting) deep") }
        var request = TxnRequest()
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1:
                var inner = try reader.readMessageField(type)
                request.compare.append(try Compare.decode(&inner))
            case 2:
                var inner = try reader.readMessageField(type)
                request.success.append(try RequestOp.decode(&inner, nesting: nesting))
            case 3:
                var inner = try reader.readMessageField(type)
                request.failure.append(try RequestOp.decode(&inner, nesting: nesting))
            default: try reader.skip(type)
            }
        }
        return request
    }

    public func encode(into writer: inout ByteWriter) {
        for one in compare { writer.writeMessage(1) { one.encode(into: &$0) } }
        for one in success { writer.writeMessage(2) { one.encode(into: &$0) } }
        for one in failure { writer.writeMessage(3) { one.encode(into: &$0) } }
    }
}

extension CompactionRequest {
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> CompactionRequest {
        var request = CompactionRequest()
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: request.revision = Revision(try reader.readInt64Field(type))
            case 2: request.physical = try reader.readBoolField(type)
            default: try reader.skip(type)
            }
        }
        return request
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeField(1, revision.rawValue)
        writer.writeField(2, physical)
    }
}
