import Base
@testable import Client
import NIOCore
import NIOEmbedded
import Wire

// What servers answer, as the client library reads it.

extension FuzzTargets {
    static let clientAnswers: [FuzzTarget] = [
        FuzzTarget(name: "client-answers", seeds: ClientAnswerImages.seeds, words: ["rpc error: code = PermissionDenied desc = ", "127.0.0.1:2379", "https://[::1]:"], run: ClientAnswerImages.read),
    ]
}

private enum ClientAnswerImages {
    private static func encoded<Message: ProtobufMessage>(_: Message.Type, _ fill: (inout Message) -> Void) -> [UInt8] {
        var message = Message()
        fill(&message)
        return message.encoded()
    }
    private static var header: PBResponseHeader {
        var header = PBResponseHeader()
        (header.clusterID, header.memberID, header.revision, header.raftTerm) = (0xc1, 0xa1, 9, 3)
        return header
    }
    private static func kv(_ key: String, _ revision: Int64) -> PBKeyValue {
        var kv = PBKeyValue()
        (kv.key, kv.value, kv.createRevision, kv.modRevision, kv.version, kv.lease) = (.init(Array(key.utf8)), .init([1]), 2, revision, 3, -4)
        return kv
    }

    static func seeds() -> [[UInt8]] {
        let range = encoded(PBRangeResponse.self) { $0.header = header; $0.kvs = [kv("a", 3), kv("b", 9)]; $0.more = true; $0.count = 5 }
        let put = encoded(PBPutResponse.self) { $0.header = header; $0.prevKv = kv("a", 3) }
        let delete = encoded(PBDeleteRangeResponse.self) { $0.header = header; $0.deleted = 2; $0.prevKvs = [kv("a", 3)] }
        var inner = PBTxnResponse()
        inner.succeeded = true
        let txn = encoded(PBTxnResponse.self) { answer in
            answer.header = header
            for fill: (inout PBResponseOp) -> Void in [{ $0.responsePut = try! PBPutResponse(decoding: put) }, { $0.responseRange = try! PBRangeResponse(decoding: range) }, { $0.responseTxn = inner }] {
                var operation = PBResponseOp()
                fill(&operation)
                answer.responses.append(operation)
            }
        }
        func event(_ revision: Int64) -> PBEvent {
            var event = PBEvent()
            (event.kv, event.prevKv) = (kv("a", revision), kv("a", 2))
            return event
        }
        let created = encoded(PBWatchResponse.self) { $0.header = header; $0.created = true; $0.watchID = 5 }
        let events = encoded(PBWatchResponse.self) { $0.header = header; $0.events = [event(10), event(11)] }
        let fragment = encoded(PBWatchResponse.self) { $0.header = header; $0.fragment = true; $0.events = [event(12)] }
        let canceled = encoded(PBWatchResponse.self) { $0.header = header; $0.canceled = true; $0.cancelReason = "rpc error: code = PermissionDenied desc = no" }
        let compacted = encoded(PBWatchResponse.self) { $0.header = header; $0.canceled = true; $0.compactRevision = 8 }
        let renewed = encoded(PBLeaseKeepAliveResponse.self) { $0.header = header; $0.id = 7; $0.ttl = 60 }
        return [[0] + range, [1] + put, [2] + delete, [3] + txn,
                [4] + [created, events, fragment, events, canceled].flatMap(piece), [4] + [created, compacted].flatMap(piece), [4] + [events, created, encoded(PBWatchResponse.self) { $0.header = header }].flatMap(piece),
                [5] + [renewed, renewed, encoded(PBLeaseKeepAliveResponse.self) { $0.id = 7 }].flatMap(piece), [6] + Array("https://[::1]:2379".utf8), [6] + Array("unix:///run/etcd.sock".utf8)]
    }

    static func read(_ raw: UnsafeRawBufferPointer) {
        guard let kind = raw.first else { return }
        let body = UnsafeRawBufferPointer(rebasing: raw[1...])
        var reader = ByteReader(body)
        switch kind % 7 {
        case 0: if let answer = try? RangeResult.decode(&reader), let full = try? PBRangeResponse(decoding: body) { precondition(answer.kvs.count == full.kvs.count && answer.count == full.count) }
        case 1: _ = try? PutResult.decode(&reader)
        case 2: _ = try? DeleteResult.decode(&reader)
        case 3: _ = try? TransactionResult.decode(&reader)
        case 4, 5: onCore { core in
            var choices = Choices(body)
            if kind % 7 == 4 { watch(core, &choices) } else { keepAlive(core, &choices) }
        }
        default: if let endpoint = try? Endpoint(String(decoding: body, as: UTF8.self)) { _ = endpoint.authority }
        }
    }

    /// A client that connects to nothing.
    private static func onCore(_ body: (ClientCore) -> Void) {
        let loop = EmbeddedEventLoop(), core = try! ClientCore(loop: loop, configuration: ClientConfiguration(endpoints: []))
        body(core)
        core.close()
        loop.run()
        try? loop.syncShutdownGracefully()
    }

    private static func watch(_ core: ClientCore, _ choices: inout Choices) {
        let watcher = Watcher(core: core, query: WatchQuery(.prefix(Key("a"))), options: CallOptions())
        while !choices.isAtEnd { choices.piece().withUnsafeBytes { watcher.received($0) } }
        core.loop.execute { watcher.stop() }
    }

    private static func keepAlive(_ core: ClientCore, _ choices: inout Choices) {
        let entry = LeaseKeeper.Entry(id: LeaseID(7), loop: core.loop) { _ in }
        core.leases.add(entry)
        while !choices.isAtEnd { choices.piece().withUnsafeBytes { core.leases.received($0) } }
    }
}
