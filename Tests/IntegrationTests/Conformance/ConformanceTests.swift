import Base
import Foundation
import GRPC
import Testing
import Wire

extension Integration {
    /// Calls that etcdctl cannot make, the same to real etcd 3.5 and to ours: answers, status codes, texts and revisions are compared. Each table
    /// runs from top to bottom on two servers that are new.
    @Suite(.serialized, .enabled(if: EtcdTools.isWanted, EtcdTools.advice)) struct ConformanceTests {
        struct Table: Sendable, CustomTestStringConvertible {
            var name: String
            var cases: [ConformanceCase]
            var testDescription: String { name }
        }

        static let tables = [
            Table(name: "ranges", cases: ConformanceCase.ranges), Table(name: "writes", cases: ConformanceCase.writes), Table(name: "transactions", cases: ConformanceCase.transactions),
            Table(name: "watches", cases: ConformanceCase.watches), Table(name: "leases", cases: ConformanceCase.leases), Table(name: "members and maintenance", cases: ConformanceCase.maintenance),
            Table(name: "accounts", cases: ConformanceCase.accounts), Table(name: "locks and elections", cases: ConformanceCase.elections), Table(name: "gRPC", cases: ConformanceCase.transport),
        ]

        @Test(arguments: tables) func bothAnswerTheSame(_ table: Table) async throws {
            let compared = try await expectSameOnBoth { subject in
                let conversation = try await Conversation(subject.endpoint)
                var transcript = Transcript()
                for entry in table.cases {
                    // A server that died must show in the case that killed it.
                    let answer: String
                    do { answer = try await entry.body(conversation) } catch { answer = "no answer: \(error)" }
                    transcript.add(entry.name, answer, deviation: entry.deviation)
                }
                await conversation.close()
                return transcript
            }
            print("conformance, \(table.name): \(compared) cases, \(table.cases.count { $0.deviation != nil }) of them deviations")
        }

        @Test func thereAreEnough() {
            let names = Self.tables.flatMap { table in table.cases.map { "\(table.name): \($0.name)" } }
            #expect(names.count >= 120)
            #expect(Set(names).count == names.count, "two cases have one name")
            print("conformance: \(names.count) cases in all")
        }
    }
}

/// One thing that is asked of both servers.
struct ConformanceCase: Sendable {
    var name: String
    /// Why ours answers otherwise. Each of these is in Server/API/DESIGN.md.
    var deviation: String?
    var body: @Sendable (Conversation) async throws -> String

    /// One request, and what it is answered.
    static func call<Request: ProtobufMessage>(_ name: String, _ method: MethodID, _ request: Request, metadata: [MetadataField] = [], deviation: String? = nil) -> ConformanceCase {
        bytes(name, method, request.encoded(), metadata: metadata, deviation: deviation)
    }

    /// The same with bytes that need not be a message.
    static func bytes(_ name: String, _ method: MethodID, _ request: [UInt8], metadata: [MetadataField] = [], deviation: String? = nil) -> ConformanceCase {
        ConformanceCase(name: name, deviation: deviation) { await $0.answer(method, request, metadata: metadata) }
    }

    /// Several calls, or a stream.
    static func steps(_ name: String, deviation: String? = nil, _ body: @escaping @Sendable (Conversation) async throws -> String) -> ConformanceCase {
        ConformanceCase(name: name, deviation: deviation, body: body)
    }
}

// MARK: Requests, in short

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A message, filled in.
func made<Message: ProtobufMessage>(_: Message.Type = Message.self, _ fill: (inout Message) -> Void = { _ in }) -> Message {
    var message = Message()
    fill(&message)
    return message
}

func range(_ key: String, _ end: String = "", _ fill: (inout PBRangeRequest) -> Void = { _ in }) -> PBRangeRequest {
    made {
        $0.key = Data(key.utf8)
        $0.rangeEnd = Data(end.utf8)
        fill(&$0)
    }
}

func put(_ key: String, _ value: String = "", _ fill: (inout PBPutRequest) -> Void = { _ in }) -> PBPutRequest {
    made {
        $0.key = Data(key.utf8)
        $0.value = Data(value.utf8)
        fill(&$0)
    }
}

func delete(_ key: String, _ end: String = "", previous: Bool = false) -> PBDeleteRangeRequest {
    made {
        $0.key = Data(key.utf8)
        $0.rangeEnd = Data(end.utf8)
        $0.prevKv = previous
    }
}

func txn(_ compares: [PBCompare] = [], then: [PBRequestOp] = [], else otherwise: [PBRequestOp] = []) -> PBTxnRequest {
    made {
        $0.compare = compares
        $0.success = then
        $0.failure = otherwise
    }
}

extension PBRequestOp {
    static func get(_ key: String, _ end: String = "", _ fill: (inout PBRangeRequest) -> Void = { _ in }) -> PBRequestOp { made { $0.requestRange = range(key, end, fill) } }
    static func set(_ key: String, _ value: String = "", _ fill: (inout PBPutRequest) -> Void = { _ in }) -> PBRequestOp { made { $0.requestPut = put(key, value, fill) } }
    static func remove(_ key: String, _ end: String = "", previous: Bool = false) -> PBRequestOp { made { $0.requestDeleteRange = delete(key, end, previous: previous) } }
    static func nested(_ compares: [PBCompare] = [], then: [PBRequestOp] = [], else otherwise: [PBRequestOp] = []) -> PBRequestOp { made { $0.requestTxn = txn(compares, then: then, else: otherwise) } }
}

func compare(_ key: String, to end: String = "", _ target: PBCompare.CompareTarget, _ result: PBCompare.CompareResult, _ operand: PBCompare.OneOf_TargetUnion?) -> PBCompare {
    made {
        $0.key = Data(key.utf8)
        $0.rangeEnd = Data(end.utf8)
        $0.target = target
        $0.result = result
        $0.targetUnion = operand
    }
}

func compact(_ revision: Int64, physical: Bool = false) -> PBCompactionRequest {
    made {
        $0.revision = revision
        $0.physical = physical
    }
}

func watch(_ key: String, _ end: String = "", _ fill: (inout PBWatchCreateRequest) -> Void = { _ in }) -> PBWatchRequest {
    made {
        $0.createRequest.key = Data(key.utf8)
        $0.createRequest.rangeEnd = Data(end.utf8)
        fill(&$0.createRequest)
    }
}

func cancelWatch(_ id: Int64) -> PBWatchRequest { made { $0.cancelRequest.watchID = id } }
let askProgress: PBWatchRequest = made { $0.progressRequest = PBWatchProgressRequest() }
