import Base

// The requests of the log as `TruthModel` reads them: an own decoder, so that a mistake in Store's is not repeated here.
// Field numbers: etcd-api.md §3.3. The last of a repeated scalar or oneof counts, unknown fields are skipped.

struct TruthRange {
    var key: [UInt8] = [], end: [UInt8] = []
    var limit: Int64 = 0, revision: Int64 = 0
    var order: Int64 = 0, target: Int64 = 0
    var keysOnly = false, countOnly = false
    var minMod: Int64 = 0, maxMod: Int64 = 0, minCreate: Int64 = 0, maxCreate: Int64 = 0
}

struct TruthPut {
    var key: [UInt8] = [], value: [UInt8] = []
    var lease: Int64 = 0
    var wantsPrevious = false, ignoresValue = false, ignoresLease = false
}

struct TruthDelete {
    var key: [UInt8] = [], end: [UInt8] = []
    var wantsPrevious = false
}

struct TruthCompare {
    var result: Int64 = 0, target: Int64 = 0
    var key: [UInt8] = [], end: [UInt8] = []
    /// The field number of the operand that arrived: 4 version, 5 create, 6 mod, 7 value, 8 lease; 0: none.
    var operandField: UInt32 = 0
    var number: Int64 = 0
    var bytes: [UInt8] = []
}

indirect enum TruthOperation {
    case none
    case range(TruthRange)
    case put(TruthPut)
    case delete(TruthDelete)
    case txn(TruthTxn)
}

struct TruthTxn {
    var compares: [TruthCompare] = []
    var success: [TruthOperation] = [], failure: [TruthOperation] = []
}

extension ByteReader {
    fileprivate mutating func number(_ type: WireType) throws(DecodingFault) -> Int64 {
        guard type == .varint else { throw .malformed("a number was expected") }
        return Int64(bitPattern: try readVarint())
    }
    /// An enum is 32 bits wide, whatever arrives.
    fileprivate mutating func choice(_ type: WireType) throws(DecodingFault) -> Int64 {
        Int64(Int32(truncatingIfNeeded: try number(type)))
    }
    fileprivate mutating func bytes(_ type: WireType) throws(DecodingFault) -> [UInt8] {
        guard type == .lengthDelimited else { throw .malformed("bytes were expected") }
        return try readCounted()
    }
    fileprivate mutating func message(_ type: WireType) throws(DecodingFault) -> ByteReader {
        guard type == .lengthDelimited else { throw .malformed("a message was expected") }
        return try readMessage()
    }
}

extension TruthRange {
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: key = try reader.bytes(type)
            case 2: end = try reader.bytes(type)
            case 3: limit = try reader.number(type)
            case 4: revision = try reader.number(type)
            case 5: order = try reader.choice(type)
            case 6: target = try reader.choice(type)
            case 8: keysOnly = try reader.number(type) != 0
            case 9: countOnly = try reader.number(type) != 0
            case 10: minMod = try reader.number(type)
            case 11: maxMod = try reader.number(type)
            case 12: minCreate = try reader.number(type)
            case 13: maxCreate = try reader.number(type)
            default: try reader.skip(type)
            }
        }
    }
}

extension TruthPut {
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: key = try reader.bytes(type)
            case 2: value = try reader.bytes(type)
            case 3: lease = try reader.number(type)
            case 4: wantsPrevious = try reader.number(type) != 0
            case 5: ignoresValue = try reader.number(type) != 0
            case 6: ignoresLease = try reader.number(type) != 0
            default: try reader.skip(type)
            }
        }
    }
}

extension TruthDelete {
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: key = try reader.bytes(type)
            case 2: end = try reader.bytes(type)
            case 3: wantsPrevious = try reader.number(type) != 0
            default: try reader.skip(type)
            }
        }
    }
}

extension TruthCompare {
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: result = try reader.choice(type)
            case 2: target = try reader.choice(type)
            case 3: key = try reader.bytes(type)
            case 4, 5, 6, 8:
                number = try reader.number(type)
                operandField = field
            case 7:
                bytes = try reader.bytes(type)
                operandField = field
            case 64: end = try reader.bytes(type)
            default: try reader.skip(type)
            }
        }
    }
}

extension TruthOperation {
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        self = .none
        while let (field, type) = try reader.readTag() {
            guard (1...4).contains(field) else {
                try reader.skip(type)
                continue
            }
            var inner = try reader.message(type)
            switch field {
            case 1: self = .range(try TruthRange(&inner))
            case 2: self = .put(try TruthPut(&inner))
            case 3: self = .delete(try TruthDelete(&inner))
            default: self = .txn(try TruthTxn(&inner))
            }
        }
    }
}

extension TruthTxn {
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1:
                var inner = try reader.message(type)
                compares.append(try TruthCompare(&inner))
            case 2:
                var inner = try reader.message(type)
                success.append(try TruthOperation(&inner))
            case 3:
                var inner = try reader.message(type)
                failure.append(try TruthOperation(&inner))
            default: try reader.skip(type)
            }
        }
    }

    /// Whether a put stands anywhere in it: such a transaction is refused when space is out.
    var holdsPut: Bool {
        (success + failure).contains { operation in
            switch operation {
            case .put: true
            case .txn(let nested): nested.holdsPut
            case .none, .range, .delete: false
            }
        }
    }
}

/// A message of a few numbers, by field number 1...3: the lease, compaction and alarm requests.
struct TruthNumbers {
    private var fields: (Int64, Int64, Int64) = (0, 0, 0)
    init(_ reader: inout ByteReader) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: fields.0 = try reader.number(type)
            case 2: fields.1 = try reader.number(type)
            case 3: fields.2 = try reader.number(type)
            default: try reader.skip(type)
            }
        }
    }
    var first: Int64 { fields.0 }
    var second: Int64 { fields.1 }
    var third: Int64 { fields.2 }
}
