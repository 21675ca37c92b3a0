import Base

// The messages that carry keys and values, coded by hand: generated ones hold `Data`, which costs more than the rest of a
// call. Field numbers as in Wire/Protos/rpc.proto and kv.proto.

extension ByteReader {
    /// Reads fields until the end; those that `field` does not take (returns false) are skipped.
    mutating func readFields(_ field: (inout ByteReader, UInt32, WireType) throws(DecodingFault) -> Bool) throws(DecodingFault) {
        while let (number, type) = try readTag() {
            if try !field(&self, number, type) { try skip(type) }
        }
    }

    mutating func readInt64() throws(DecodingFault) -> Int64 { Int64(bitPattern: try readVarint()) }
}

extension ByteWriter {
    mutating func writeRange(_ range: KeyRange, rangeEndField: UInt32 = 2, keyField: UInt32 = 1) {
        writeField(keyField, range.start.bytes)
        writeField(rangeEndField, range.wireRangeEnd)
    }
}

extension KeyValue {
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> KeyValue {
        var kv = KeyValue()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            switch (field, type) {
            case (1, .lengthDelimited): kv.key = try r.readCounted()
            case (2, .varint): kv.createRevision = Revision(try r.readInt64())
            case (3, .varint): kv.modRevision = Revision(try r.readInt64())
            case (4, .varint): kv.version = try r.readInt64()
            case (5, .lengthDelimited): kv.value = try r.readCounted()
            case (6, .varint): kv.lease = LeaseID(try r.readInt64())
            default: return false
            }
            return true
        }
        return kv
    }
}

extension ResponseHeader {
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> ResponseHeader {
        var header = ResponseHeader()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            guard type == .varint, field <= 4 else { return false }
            let number = try r.readVarint()
            switch field {
            case 1: header.clusterID = ClusterID(number)
            case 2: header.memberID = MemberID(number)
            case 3: header.revision = Revision(Int64(bitPattern: number))
            default: header.raftTerm = Term(number)
            }
            return true
        }
        return header
    }
}

extension RangeQuery {
    func encode(into w: inout ByteWriter) {
        w.writeRange(range)
        w.writeField(3, limit)
        w.writeField(4, revision.rawValue)
        w.writeField(5, order.rawValue)
        w.writeField(6, target.rawValue)
        w.writeField(7, isSerializable)
        w.writeField(8, keysOnly)
        w.writeField(9, countOnly)
        w.writeField(10, minModRevision.rawValue)
        w.writeField(11, maxModRevision.rawValue)
        w.writeField(12, minCreateRevision.rawValue)
        w.writeField(13, maxCreateRevision.rawValue)
    }
}

extension RangeResult {
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> RangeResult {
        var result = RangeResult()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            switch (field, type) {
            case (1, .lengthDelimited):
                var nested = try r.readMessage()
                result.header = try ResponseHeader.decode(&nested)
            case (2, .lengthDelimited):
                var nested = try r.readMessage()
                result.kvs.append(try KeyValue.decode(&nested))
            case (3, .varint): result.more = try r.readVarint() != 0
            case (4, .varint): result.count = try r.readInt64()
            default: return false
            }
            return true
        }
        return result
    }
}

extension PutCommand {
    func encode(into w: inout ByteWriter) {
        w.writeField(1, key)
        w.writeField(2, value)
        w.writeField(3, lease.rawValue)
        w.writeField(4, wantsPrevious)
        w.writeField(5, ignoresValue)
        w.writeField(6, ignoresLease)
    }
}

extension PutResult {
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> PutResult {
        var result = PutResult()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            guard type == .lengthDelimited, field <= 2 else { return false }
            var nested = try r.readMessage()
            if field == 1 {
                result.header = try ResponseHeader.decode(&nested)
            } else {
                result.previous = try KeyValue.decode(&nested)
            }
            return true
        }
        return result
    }
}

extension DeleteCommand {
    func encode(into w: inout ByteWriter) {
        w.writeRange(range)
        w.writeField(3, wantsPrevious)
    }
}

extension DeleteResult {
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> DeleteResult {
        var result = DeleteResult()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            switch (field, type) {
            case (1, .lengthDelimited):
                var nested = try r.readMessage()
                result.header = try ResponseHeader.decode(&nested)
            case (2, .varint): result.deleted = try r.readInt64()
            case (3, .lengthDelimited):
                var nested = try r.readMessage()
                result.previous.append(try KeyValue.decode(&nested))
            default: return false
            }
            return true
        }
        return result
    }
}

extension Comparison {
    func encode(into w: inout ByteWriter) {
        w.writeField(1, relation.rawValue)
        let number: Int64 = switch target {
        case .version: 0
        case .createRevision: 1
        case .modRevision: 2
        case .value: 3
        case .lease: 4
        }
        w.writeField(2, number)
        w.writeField(3, range.start.bytes)
        // Members of a oneof are written even when zero.
        switch target {
        case .version(let n): w.writeTag(4, .varint); w.writeVarint(UInt64(bitPattern: n))
        case .createRevision(let n): w.writeTag(5, .varint); w.writeVarint(UInt64(bitPattern: n.rawValue))
        case .modRevision(let n): w.writeTag(6, .varint); w.writeVarint(UInt64(bitPattern: n.rawValue))
        case .value(let bytes): w.writeTag(7, .lengthDelimited); w.writeCounted(bytes)
        case .lease(let id): w.writeTag(8, .varint); w.writeVarint(UInt64(bitPattern: id.rawValue))
        }
        w.writeField(64, range.wireRangeEnd)
    }
}

extension Transaction {
    func encode(into w: inout ByteWriter) {
        for comparison in comparisons { w.writeMessage(1) { comparison.encode(into: &$0) } }
        for operation in success { w.writeMessage(2) { operation.encode(into: &$0) } }
        for operation in failure { w.writeMessage(3) { operation.encode(into: &$0) } }
    }
}

extension Transaction.Operation {
    func encode(into w: inout ByteWriter) {
        switch self {
        case .range(let query): w.writeMessage(1) { query.encode(into: &$0) }
        case .put(let command): w.writeMessage(2) { command.encode(into: &$0) }
        case .delete(let command): w.writeMessage(3) { command.encode(into: &$0) }
        case .transaction(let nested): w.writeMessage(4) { nested.encode(into: &$0) }
        }
    }
}

extension TransactionResult {
    /// Nested transactions deeper than this are not decoded; servers accept fewer.
    static let maxDepth = 64

    static func decode(_ reader: inout ByteReader, depth: Int = 0) throws(DecodingFault) -> TransactionResult {
        guard depth < maxDepth else { throw .malformed("transaction nested too deeply") }
        var result = TransactionResult()
        try reader.readFields { (r, field, type) throws(DecodingFault) in
            switch (field, type) {
            case (1, .lengthDelimited):
                var nested = try r.readMessage()
                result.header = try ResponseHeader.decode(&nested)
            case (2, .varint): result.succeeded = try r.readVarint() != 0
            case (3, .lengthDelimited):
                var operation = try r.readMessage()
                try operation.readFields { (r, field, type) throws(DecodingFault) in
                    guard type == .lengthDelimited, field <= 4 else { return false }
                    var nested = try r.readMessage()
                    switch field {
                    case 1: result.outcomes.append(.range(try RangeResult.decode(&nested)))
                    case 2: result.outcomes.append(.put(try PutResult.decode(&nested)))
                    case 3: result.outcomes.append(.delete(try DeleteResult.decode(&nested)))
                    default: result.outcomes.append(.transaction(try TransactionResult.decode(&nested, depth: depth + 1)))
                    }
                    return true
                }
            default: return false
            }
            return true
        }
        return result
    }
}
