import Base

// Reads the protobuf answers of the API, as a client would: by field number, without the engine's own decoders.

/// The parts of an answer that a history is made of.
struct ReadResponse {
    var revision: Int64 = 0
    /// `count` of a range, `deleted` of a delete.
    var count: Int64 = 0
    var succeeded = false
    var found: [SeenKeyValue] = []
    var leaseID: Int64 = 0
    var ttlSeconds: Int64 = 0

    static func header(_ reader: ByteReader) throws(DecodingFault) -> Int64 {
        var reader = reader
        var revision: Int64 = 0
        while let (field, type) = try reader.readTag() {
            if field == 3, type == .varint { revision = Int64(bitPattern: try reader.readVarint()) } else { try reader.skip(type) }
        }
        return revision
    }

    static func put(_ bytes: [UInt8]) -> ReadResponse? { read(bytes) { _, _, _ throws(DecodingFault) in false } }

    static func delete(_ bytes: [UInt8]) -> ReadResponse? {
        read(bytes) { response, field, reader throws(DecodingFault) in
            guard field == 2 else { return false }
            response.count = Int64(bitPattern: try reader.readVarint())
            return true
        }
    }

    /// The success flag, and the key-values of a range in the first answer.
    static func txn(_ bytes: [UInt8]) -> ReadResponse? {
        read(bytes) { response, field, reader throws(DecodingFault) in
            switch field {
            case 2: response.succeeded = try reader.readVarint() != 0
            case 3:
                var op = try reader.readMessage()
                while let (kind, type) = try op.readTag() {
                    guard kind == 1, type == .lengthDelimited else {
                        try op.skip(type)
                        continue
                    }
                    var range = try op.readMessage()
                    while let (field, type) = try range.readTag() {
                        switch field {
                        case 2: response.found.append(try keyValue(range.readMessage()))
                        case 4: response.count = Int64(bitPattern: try range.readVarint())
                        default: try range.skip(type)
                        }
                    }
                }
            default: return false
            }
            return true
        }
    }

    static func leaseGrant(_ bytes: [UInt8]) -> ReadResponse? {
        read(bytes) { response, field, reader throws(DecodingFault) in
            switch field {
            case 2: response.leaseID = Int64(bitPattern: try reader.readVarint())
            case 3: response.ttlSeconds = Int64(bitPattern: try reader.readVarint())
            default: return false
            }
            return true
        }
    }

    /// The token of a login.
    static func token(_ bytes: [UInt8]) -> [UInt8]? {
        var token: [UInt8]?
        let response = read(bytes) { _, field, reader throws(DecodingFault) in
            guard field == 2 else { return false }
            token = try reader.readCounted()
            return true
        }
        return response == nil ? nil : token
    }

    private static func read(_ bytes: [UInt8], _ body: (inout ReadResponse, UInt32, inout ByteReader) throws(DecodingFault) -> Bool) -> ReadResponse? {
        bytes.withUnsafeBytes { raw in
            do throws(DecodingFault) {
                var response = ReadResponse()
                var reader = ByteReader(raw)
                while let (field, type) = try reader.readTag() {
                    if field == 1 {
                        response.revision = try header(try reader.readMessage())
                    } else if try !body(&response, field, &reader) {
                        try reader.skip(type)
                    }
                }
                return response
            } catch { return nil }
        }
    }

    static func keyValue(_ reader: ByteReader) throws(DecodingFault) -> SeenKeyValue {
        var reader = reader
        var kv = SeenKeyValue(key: [], value: [], createRevision: 0, modRevision: 0, version: 0)
        while let (field, type) = try reader.readTag() {
            switch field {
            case 1: kv.key = try reader.readCounted()
            case 2: kv.createRevision = Int64(bitPattern: try reader.readVarint())
            case 3: kv.modRevision = Int64(bitPattern: try reader.readVarint())
            case 4: kv.version = Int64(bitPattern: try reader.readVarint())
            case 5: kv.value = try reader.readCounted()
            case 6: kv.lease = Int64(bitPattern: try reader.readVarint())
            default: try reader.skip(type)
            }
        }
        return kv
    }

    static func keyValue(_ bytes: [UInt8]) -> SeenKeyValue? {
        bytes.withUnsafeBytes { raw in try? keyValue(ByteReader(raw)) }
    }
}
