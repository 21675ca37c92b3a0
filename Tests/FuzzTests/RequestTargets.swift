import Base
import GRPC
@testable import Raft
@testable import Replica
@testable import Store

// The requests that are coded by hand. Behind the decoders stand a store and a member, so that
// what they let through is carried out as well.

extension FuzzTargets {
    static let requests: [FuzzTarget] = [
        FuzzTarget(name: "kv-requests", seeds: RequestImages.keySeeds, run: RequestImages.decodeKeyRequest),
    ]
}

private enum RequestImages {
    static func bytes(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter()
        body(&writer)
        return writer.bytes
    }

    // MARK: The requests that are coded by hand

    static var nested: TxnRequest {
        TxnRequest(
            compare: [Compare(key: Array("a".utf8), target: .init(rawValue: 3), result: .init(rawValue: 1), operand: .value([0x31])),
                      Compare(key: Array("a".utf8), rangeEnd: Array("b".utf8), target: .init(rawValue: 1), result: .init(rawValue: 2), operand: .createRevision(0))],
            success: [.put(PutRequest(key: Array("c".utf8), value: Array("new".utf8), prevKV: true)), .range(RangeRequest(key: Array("a".utf8), rangeEnd: [0], limit: 1))],
            failure: [.txn(TxnRequest(success: [.deleteRange(DeleteRangeRequest(key: Array("a".utf8), prevKV: true))])), .none])
    }

    static func keySeeds() -> [[UInt8]] {
        var deep = TxnRequest(success: [.range(RangeRequest(key: [0x61]))])
        for _ in 0..<60 { deep = TxnRequest(success: [.txn(deep)]) }
        return [
            [0] + bytes { RangeRequest(key: Array("a".utf8), rangeEnd: [0], limit: 2, revision: Revision(2), sortOrder: .descending, sortTarget: .value, minModRevision: Revision(1)).encode(into: &$0) },
            [1] + bytes { PutRequest(key: Array("a".utf8), value: Array("1".utf8), lease: LeaseID(5), prevKV: true).encode(into: &$0) },
            [1] + bytes { PutRequest(key: Array("a".utf8), ignoreValue: true, ignoreLease: true).encode(into: &$0) },
            [2] + bytes { DeleteRangeRequest(key: Array("a".utf8), rangeEnd: Array("c".utf8), prevKV: true).encode(into: &$0) },
            [3] + bytes { nested.encode(into: &$0) }, [3] + bytes { deep.encode(into: &$0) },
            [4] + bytes { CompactionRequest(revision: Revision(3), physical: true).encode(into: &$0) },
            [5] + bytes { WatchRequest.create(WatchCreateRequest(key: [0x61], rangeEnd: [0], startRevision: Revision(1), progressNotify: true, previousKV: true, watchID: WatchID(-4), fragment: true)).encode(into: &$0) },
            [5] + bytes { WatchRequest.cancel(WatchID(-4)).encode(into: &$0) }, [5] + bytes { WatchRequest.progress.encode(into: &$0) },
        ]
    }

    /// A decoder and its encoder are each other's inverse, but for unknown fields: what they make of a request once they make of it twice.
    private static func survives<T: Equatable>(_ raw: UnsafeRawBufferPointer, _ decode: (inout ByteReader) throws(DecodingFault) -> T, _ encode: (T, inout ByteWriter) -> Void) -> T? {
        var reader = ByteReader(raw)
        guard let value = try? decode(&reader) else { return nil }
        let again = bytes { encode(value, &$0) }.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            return try? decode(&reader)
        }
        precondition(again == value, "\(value) became \(String(describing: again))")
        return value
    }

    static func decodeKeyRequest(_ raw: UnsafeRawBufferPointer) {
        guard let kind = raw.first else { return }
        let body = UnsafeRawBufferPointer(rebasing: raw[1...])
        let store = KeyValueStore(), reader: any BackendReader = try! MemoryBackend().makeReader()
        for key in ["a", "b", "a"] { _ = try! store.put(PutRequest(key: Array(key.utf8), value: [0x31]), reader: reader, leaseExists: { _ in true }) }
        func knows(_ lease: LeaseID) -> Bool { lease == LeaseID(5) }
        let header = ResponseHeader(clusterID: ClusterID(1), memberID: MemberID(2), revision: store.revision, raftTerm: Term(3))
        var answer = ByteWriter()
        switch kind % 6 {
        case 0:
            guard let request = survives(body, { (r) throws(DecodingFault) in try RangeRequest.decode(&r) }, { $0.encode(into: &$1) }), (try? request.validate()) != nil else { return }
            let snapshot = store.snapshot()
            let isFine = (try? snapshot.rangeEncoded(request, header: header, reader: reader, into: &answer)) != nil
            // Two ways to the same answer.
            precondition(isFine == ((try? snapshot.range(request, reader: reader)) != nil), "\(request)")
        case 1:
            guard let request = survives(body, { (r) throws(DecodingFault) in try PutRequest.decode(&r) }, { $0.encode(into: &$1) }), (try? request.validate()) != nil else { return }
            (try? store.put(request, reader: reader, leaseExists: knows))?.encode(header: header, into: &answer)
        case 2:
            guard let request = survives(body, { (r) throws(DecodingFault) in try DeleteRangeRequest.decode(&r) }, { $0.encode(into: &$1) }), (try? request.validate()) != nil else { return }
            (try? store.deleteRange(request, reader: reader))?.encode(header: header, into: &answer)
        case 3:
            guard let request = survives(body, { (r) throws(DecodingFault) in try TxnRequest.decode(&r) }, { $0.encode(into: &$1) }), (try? request.validate(maxTxnOps: 128)) != nil else { return }
            _ = request.quotaCost
            if request.isReadOnly {
                (try? store.snapshot().readOnlyTxn(request, reader: reader))?.encode(header: header, into: &answer)
            } else {
                (try? store.txn(request, reader: reader, leaseExists: knows))?.encode(header: header, into: &answer)
            }
        case 4:
            guard let request = survives(body, { (r) throws(DecodingFault) in try CompactionRequest.decode(&r) }, { $0.encode(into: &$1) }) else { return }
            _ = try? store.compact(to: request.revision)
            while store.hasCompactionWork { _ = store.compactStep() }
        default:
            guard let request = survives(body, { (r) throws(DecodingFault) in try WatchRequest.decode(&r) }, { $0.encode(into: &$1) }) else { return }
            let member = SoleMember()
            member.tell(.watch(WatchStreamID(9), .open(requiresLeader: true)))
            member.tell(.watch(WatchStreamID(9), .request(request)))
            member.ask(.propose(.put, body: bytes { PutRequest(key: [0x61], value: [0x31]).encode(into: &$0) }, cost: 1))
            member.tell(.watch(WatchStreamID(9), .request(request)))
            member.pass(.seconds(2))
            member.tell(.watch(WatchStreamID(9), .close))
        }
    }

}

/// A client that listens to nobody.
final class SilentClient: GRPCClientDelegate {
    private(set) var session: GRPCClientSession!
    /// How often each call was said to be over.
    private(set) var endings: [StreamID: Int] = [:]
    var received: (UnsafeRawBufferPointer, StreamID) -> Void = { _, _ in }

    init(maxReceiveMessageBytes: Int = 4 << 20) {
        session = GRPCClientSession(delegate: self, authority: "fuzz:1", isTLS: false, maxReceiveMessageBytes: maxReceiveMessageBytes)
    }
    func sessionReady(_ session: GRPCClientSession) {}
    func session(_ session: GRPCClientSession, received message: UnsafeRawBufferPointer, on stream: StreamID) { received(message, stream) }
    func session(_ session: GRPCClientSession, finished stream: StreamID, _ status: CallStatus) {
        endings[stream, default: 0] += 1
        precondition(endings[stream] == 1, "call \(stream) ended twice")
    }
    func session(_ session: GRPCClientSession, goAway code: HTTP2ErrorCode, debug: String) {}
    func session(_ session: GRPCClientSession, pong payload: UInt64) {}

    func takeOutput() throws(ProtocolFault) -> [UInt8] {
        var bytes: [UInt8] = []
        try session.drainOutput { bytes += $0 }
        return bytes
    }

    func feed(_ bytes: [UInt8]) {
        guard !bytes.isEmpty, !session.isFinished else { return }
        bytes.withUnsafeBytes { raw in _ = try? session.receive(raw) }
    }
}
