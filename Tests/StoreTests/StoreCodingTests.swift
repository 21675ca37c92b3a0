import Base
import Testing

@testable import Store

@Suite struct StoreCodingTests {
    private func decode<T>(_ bytes: [UInt8], _ body: (inout ByteReader) throws(DecodingFault) -> T) throws(DecodingFault) -> T {
        let result: Result<T, DecodingFault> = bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            do throws(DecodingFault) { return .success(try body(&reader)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    @Test func requestsSurviveTheRoundTrip() throws {
        var drawing = StoreRandomTests.Drawing(random: SeededGenerator(seed: 5))
        var model = StoreModel()
        model.revision = Revision(1 << 40)
        for _ in 0..<500 {
            var writer = ByteWriter()
            var range = drawing.range(model)
            range.serializable = drawing.chance(50)
            range.encode(into: &writer)
            #expect(try decode(writer.bytes, RangeRequest.decode) == range)

            writer = ByteWriter()
            let put = drawing.put()
            put.encode(into: &writer)
            #expect(try decode(writer.bytes, PutRequest.decode) == put)

            writer = ByteWriter()
            let delete = drawing.delete()
            delete.encode(into: &writer)
            #expect(try decode(writer.bytes, DeleteRangeRequest.decode) == delete)

            writer = ByteWriter()
            let txn = drawing.txn(model)
            txn.encode(into: &writer)
            #expect(try decode(writer.bytes, TxnRequest.decode) == txn)

            writer = ByteWriter()
            let compaction = CompactionRequest(revision: drawing.revision(model), physical: drawing.chance(50))
            compaction.encode(into: &writer)
            #expect(try decode(writer.bytes, CompactionRequest.decode) == compaction)
        }
    }

    @Test func knownBytesDecode() throws {
        // key "foo", range_end "fop", limit -1 in ten bytes, sort_target MOD, an unknown varint field 100, key again: "bar".
        let raw: [UInt8] = [0x0a, 3] + bytes("foo") + [0x12, 3] + bytes("fop")
            + [0x18] + Array(repeating: 0xff, count: 9) + [0x01] + [0x30, 3] + [0xa0, 0x06, 5] + [0x0a, 3] + bytes("bar")
        let request = try decode(raw, RangeRequest.decode)
        #expect(request == RangeRequest(key: bytes("bar"), rangeEnd: bytes("fop"), limit: -1, sortTarget: .modRevision))
        // Compare with range_end, field 64 (two bytes of tag).
        let compare = try decode([0x82, 0x04, 1, 0x7a, 0x1a, 1, 0x61, 0x20, 0, 0x3a, 0], Compare.decode)
        #expect(compare == Compare(key: bytes("a"), rangeEnd: bytes("z"), operand: .value([])))
        #expect(throws: DecodingFault.self) { try decode([0x0a, 5, 1], PutRequest.decode) }
        #expect(throws: DecodingFault.self) { try decode([0x08, 1], PutRequest.decode) }
    }

    @Test func deepNestingIsRefused() throws {
        func nested(_ levels: Int) -> [UInt8] {
            var message: [UInt8] = []
            for _ in 0..<levels {
                var op = ByteWriter()
                op.writeTag(4, .lengthDelimited)
                op.writeCounted(message)
                var txn = ByteWriter()
                txn.writeTag(2, .lengthDelimited)
                txn.writeCounted(op.bytes)
                message = txn.bytes
            }
            return message
        }
        let allowed = try decode(nested(maxRequestNesting - 1), TxnRequest.decode)
        #expect(throws: Never.self) { try allowed.validate(maxTxnOps: 128) }
        #expect(throws: DecodingFault.self) { try decode(nested(maxRequestNesting), TxnRequest.decode) }
        #expect(throws: DecodingFault.self) { try decode(nested(5_000), TxnRequest.decode) }
    }

    @Test func randomBytesNeverCrashADecoder() {
        var random = SeededGenerator(seed: 77)
        var drawing = StoreRandomTests.Drawing(random: SeededGenerator(seed: 78))
        var model = StoreModel()
        model.revision = Revision(50)
        var decoded = 0
        for round in 0..<4_000 {
            var raw: [UInt8]
            if round % 2 == 0 {
                raw = (0..<Int.random(in: 0..<40, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            } else {
                // A real request with a few bytes changed.
                var writer = ByteWriter()
                drawing.txn(model).encode(into: &writer)
                raw = writer.bytes
                for _ in 0..<Int.random(in: 0..<4, using: &random) where !raw.isEmpty {
                    raw[Int.random(in: 0..<raw.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            }
            if let txn = try? decode(raw, TxnRequest.decode) {
                decoded += 1
                _ = try? txn.validate(maxTxnOps: 128)
                _ = txn.quotaCost
            }
            _ = try? decode(raw, RangeRequest.decode)
            _ = try? decode(raw, PutRequest.decode)
            _ = try? decode(raw, DeleteRangeRequest.decode)
            _ = try? decode(raw, CompactionRequest.decode)
            _ = try? decodeKeyValue(raw)
            _ = raw.withUnsafeBytes { KeyValueView($0) }
        }
        #expect(decoded > 500)
    }

    @Test func keyValuesAreCanonical() throws {
        let kv = KeyValue(
            key: bytes("k"), createRevision: Revision(300), modRevision: Revision(301), version: 2, value: bytes("v"), lease: LeaseID(-1))
        #expect(hex(kv.encoded()) == "0a016b" + "10ac02" + "18ad02" + "2002" + "2a0176" + "30ffffffffffffffffff01")
        #expect(try decodeKeyValue(kv.encoded()) == kv)
        let large = KeyValue(key: Array(repeating: 1, count: 200), modRevision: Revision(5), value: Array(repeating: 2, count: 70_000))
        #expect(try decodeKeyValue(large.encoded()) == large)
        #expect(KeyValue(key: []).encoded() == [])
    }

    @Test func keysOnlyDropsTheValueFieldAlone() throws {
        let kv = KeyValue(
            key: bytes("k"), createRevision: Revision(3), modRevision: Revision(4), version: 2,
            value: Array(repeating: 9, count: 200), lease: LeaseID(-9))
        var without = kv
        without.value = []
        let encoded = kv.encoded()
        var writer = ByteWriter()
        encoded.withUnsafeBytes { writer.appendKeyValue($0, withoutValue: KeyValueView($0)) }
        #expect(writer.bytes == [0x12, UInt8(without.encoded().count)] + without.encoded())
    }

    @Test func responsesEncodeAsTheMessagesSay() {
        let header = ResponseHeader(clusterID: ClusterID(1), memberID: MemberID(2), revision: Revision(99), raftTerm: Term(4))
        func encoded(_ body: (inout ByteWriter) -> Void) -> String {
            var writer = ByteWriter()
            body(&writer)
            return hex(writer.bytes)
        }
        let h = "0a080801100218032004"
        #expect(encoded { PutResult(revision: Revision(3)).encode(header: header, into: &$0) } == h)
        #expect(encoded { PutResult(revision: Revision(3), previous: [0x0a, 1, 0x61]).encode(header: header, into: &$0) } == h + "12030a0161")
        var deleted = DeleteRangeResult(revision: Revision(3), deleted: 1)
        [UInt8]([0x0a, 1, 0x61]).withUnsafeBytes { deleted.previous.append(tag: EncodedKeyValues.deleteTag, $0) }
        #expect(encoded { deleted.encode(header: header, into: &$0) } == h + "1001" + "1a030a0161")
        var range = RangeResult(revision: Revision(3), more: true, count: 5)
        [UInt8]([0x0a, 1, 0x61]).withUnsafeBytes { range.kvs.append(tag: EncodedKeyValues.rangeTag, $0) }
        #expect(encoded { range.encode(header: header, into: &$0) } == h + "12030a0161" + "1801" + "2005")
        #expect(range.kvs.keyValues == [KeyValue(key: bytes("a"))])
    }

    @Test func readOnlyTransactionsAreRecognised() {
        let serializable = RequestOp.range(RangeRequest(key: [1], serializable: true))
        #expect(TxnRequest().isReadOnly && TxnRequest().isSerializable)
        #expect(TxnRequest(success: [rangeOp("a")]).isReadOnly)
        #expect(!TxnRequest(success: [rangeOp("a")]).isSerializable)
        #expect(!TxnRequest(success: [serializable], failure: [rangeOp("a")]).isSerializable)
        #expect(TxnRequest(success: [serializable], failure: [serializable]).isSerializable)
        #expect(!TxnRequest(failure: [putOp("a", "b")]).isReadOnly)
        #expect(!TxnRequest(success: [.txn(TxnRequest(success: [rangeOp("a")]))]).isReadOnly)
        #expect(TxnRequest(success: [putOp("ab", "cd"), .txn(TxnRequest(failure: [putOp("a", "b")]))]).quotaCost == 260 + 258)
    }
}
