import Base
import Foundation
import Testing
import Wire
@testable import Server

@Suite struct GatewayCodingTests {
    // MARK: Tables

    /// Every message that is reachable from the routes, field by field, against the Protos that the generated code is made from.
    @Test func schemasSayWhatTheProtosSay() throws {
        let protos = try Protos()
        var pending = GatewayRoute.all.flatMap { [$0.request, $0.response] }
        var seen: Set<String> = []
        while let schema = pending.popLast() {
            guard seen.insert(schema.name).inserted else { continue }
            let declared = try #require(protos.messages[schema.name], "\(schema.name) is in no .proto file")
            let told = schema.fields.map { field in
                let type: String
                switch field.kind {
                case .bool: type = "bool"
                case .int64: type = "int64"
                case .uint32: type = "uint32"
                case .uint64: type = "uint64"
                case .string: type = "string"
                case .bytes: type = "bytes"
                case .enumeration(let schema):
                    type = schema.name
                    #expect(protos.enums[schema.name] == schema.values)
                case .message(let schema):
                    type = schema().name
                    pending.append(schema())
                }
                return Protos.Field(number: field.number, name: field.name, type: type, isRepeated: field.isRepeated, oneof: field.oneof)
            }
            #expect(told == declared, "\(schema.name)")
        }
        #expect(seen.count > 80)
    }

    @Test func everyCallOfEtcdHasAPath() {
        let routed = Set(GatewayRoute.all.map(\.method))
        for method in MethodID.allCases where !["grpc.health.v1.Health", "quarterdeck.v1.Observer"].contains(method.service) {
            #expect(routed.contains(method), "\(method) has no path")
        }
        for route in GatewayRoute.all { #expect(GatewayRoute.find(route.path)?.method == route.method) }
    }

    // MARK: JSON to protobuf

    private func decode(_ text: String, _ schema: MessageSchema = .rangeRequest) throws(JSONFault) -> [UInt8] {
        var stream = JSONStream()
        stream.append(Array(text.utf8))
        if let value = try stream.next() { return try JSONToProtobuf.message(value, schema) }
        guard let value = try stream.last() else { return [] }
        return try JSONToProtobuf.message(value, schema)
    }

    @Test func fieldsAreFoundUnderBothNames() throws {
        let expected = PBRangeRequest.with { request in
            request.key = Data("foo".utf8)
            request.rangeEnd = Data("fop".utf8)
            request.limit = 5
            request.sortOrder = .descend
            request.countOnly = true
        }
        for text in [#"{"key":"Zm9v","range_end":"Zm9w","limit":"5","sort_order":"DESCEND","count_only":true}"#,
                     #" { "countOnly" : true , "sortOrder":2, "rangeEnd":"Zm9w","limit":5,"\u006bey":"Zm9v" } "#,
                     #"{"key":[102,111,111],"range_end":"x","rangeEnd":"Zm9w","limit":" 5 ","sort_order":"2","sortOrder":"DESCEND","count_only":true,"more":{"a":[1]}}"#] {
            #expect(try PBRangeRequest(decoding: try decode(text)) == expected, "\(text)")
        }
        #expect(try decode("") == [])
        #expect(try decode(" null ") == [])
        #expect(try decode(#"{"key":null,"limit":"null"} behind"#) == [])
    }

    @Test func membersOfAOneofAreTold() throws {
        let request = try PBTxnRequest(decoding: try decode(#"""
            {"compare":[{"key":"YQ==","target":"CREATE","createRevision":0},{"key":"Yg==","version":"3","value":""}],
             "success":[{"requestPut":{"key":"YQ=="},"request_range":{"key":"Yg=="}},{},null,{"request_txn":{"failure":[{"request_delete_range":{}}]}}]}
            """#, .txnRequest))
        #expect(request.compare.count == 2 && request.compare[0].targetUnion == .createRevision(0))
        // Of two the one that is declared later.
        #expect(request.compare[1].targetUnion == .value(Data()))
        #expect(request.success.count == 4)
        guard case .requestPut(let put)? = request.success[0].request else {
            Issue.record("\(request.success[0])")
            return
        }
        #expect(put.key == Data("a".utf8))
        #expect(request.success[1].request == nil && request.success[2].request == nil)
        guard case .requestTxn(let txn)? = request.success[3].request else {
            Issue.record("\(request.success[3])")
            return
        }
        #expect(txn.failure.count == 1)
    }

    /// What etcd 3.5 answers to these.
    @Test(arguments: [
        ("garbage", "invalid character 'g' looking for beginning of value"), ("{", "unexpected EOF"), (#"{"key":"Zm9v""#, "unexpected EOF"),
        (#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"), (#"{"a" 1}"#, "invalid character '1' after object key"),
        (#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"), ("[1 2]", "invalid character '2' after array element"),
        ("{\"a\":\"\t\"}", "invalid character '\\t' in string literal"), (#"{"a":"\x"}"#, "invalid character 'x' in string escape code"),
        (#"{"a":"\u12g4"}"#, "invalid character 'g' in \\u hexadecimal character escape"), (#"{"a":-x}"#, "invalid character 'x' in numeric literal"),
        (#"{"a":1.x}"#, "invalid character 'x' after decimal point in numeric literal"), (#"{"a":1ex}"#, "invalid character 'x' in exponent of numeric literal"),
        (#"{"a":trap}"#, "invalid character 'a' in literal true (expecting 'u')"), ("'x'", "invalid character '\\'' looking for beginning of value"),
        ("[]", "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"), (#"{"key":5}"#, "json: cannot unmarshal number into Go value of type []uint8"),
        (#"{"key":"%"}"#, "illegal base64 data at input byte 0"), (#"{"key":"Zg=a"}"#, "illegal base64 data at input byte 2"), (#"{"key":"Zm9"}"#, "illegal base64 data at input byte 0"),
        (#"{"key":"Zm9vZg"}"#, "illegal base64 data at input byte 4"), (#"{"key":"Zg="}"#, "illegal base64 data at input byte 3"), (#"{"key":"Zg==Zg=="}"#, "illegal base64 data at input byte 4"),
        (#"{"limit":"x"}"#, "invalid character 'x' looking for beginning of value"), (#"{"limit":""}"#, "unexpected end of JSON input"),
        (#"{"limit":"5 5"}"#, "invalid character '5' after top-level value"), (#"{"limit":1.5}"#, "json: cannot unmarshal number 1.5 into Go value of type int64"),
        (#"{"limit":"9223372036854775808"}"#, "json: cannot unmarshal number 9223372036854775808 into Go value of type int64"),
        (#"{"limit":true,"key":7}"#, "json: cannot unmarshal number into Go value of type []uint8"),
        (#"{"serializable":"true"}"#, "json: cannot unmarshal string into Go value of type bool"),
        (#"{"sort_order":"NOPE"}"#, #"unknown value "\"NOPE\"" for enum etcdserverpb.RangeRequest.SortOrder"#),
        (#"{"sort_order":true}"#, "json: cannot unmarshal bool into Go value of type protoreflect.EnumNumber"),
    ])
    func complaintsAreEtcds(_ text: String, _ complaint: String) {
        #expect(throws: JSONFault(complaint)) { try decode(text) }
    }

    @Test func depthIsBounded() {
        func nested(_ open: String, _ close: String, _ count: Int) -> String { String(repeating: open, count: count) + String(repeating: close, count: count) }
        #expect(throws: JSONFault("invalid character '[' exceeded max depth")) { try decode(nested("[", "]", 10_001)) }
        #expect(throws: Never.self) { try decode(#"{"x":"# + nested("[", "]", 9_999) + "}") }
        #expect(throws: JSONFault.self) { try decode(nested(#"{"success":[{"request_txn":"#, "}]}", 2_000).replacingOccurrences(of: ":}", with: ":{}}"), .txnRequest) }
    }

    /// However a body is cut, its values are the same.
    @Test func valuesOfABodyAreFoundInAnyPortions() throws {
        let text = Array(#" {"a":"}\"{"} [1,2]"x"17 true{}null -1.5e+3 "#.utf8)
        for portion in [1, 2, 3, 7, text.count] {
            var stream = JSONStream()
            var values: [String] = []
            for start in Swift.stride(from: 0, to: text.count, by: portion) {
                stream.append(text[start..<min(start + portion, text.count)])
                while let value = try stream.next() { values.append(String(decoding: value, as: UTF8.self).trimmingCharacters(in: .whitespaces)) }
            }
            if let value = try stream.last() { values.append(String(decoding: value, as: UTF8.self)) }
            #expect(values == [#"{"a":"}\"{"}"#, "[1,2]", "\"x\"", "17", "true", "{}", "null", "-1.5e+3"])
        }
    }

    @Test func base64IsFoundationsOnEveryLength() throws {
        for count in 0..<70 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 151 &+ count) }
            var text: [UInt8] = []
            bytes.withUnsafeBytes { Base64.append($0, to: &text) }
            #expect(String(decoding: text, as: UTF8.self) == Data(bytes).base64EncodedString())
            #expect(try Base64.decode(text) == bytes)
            #expect(try Base64.decode(text.flatMap { [$0, 0x0a] }) == bytes)
        }
    }

    // MARK: Protobuf to JSON

    private func json(_ message: some ProtobufMessage, _ schema: MessageSchema) throws -> String {
        try message.encoded().withUnsafeBytes { String(decoding: try ProtobufToJSON.text($0, schema), as: UTF8.self) }
    }

    @Test func messagesArePrintedAsByEtcd() throws {
        let response = PBRangeResponse.with { response in
            response.header = .with { ($0.clusterID, $0.revision) = (UInt64.max, 5) }
            response.kvs = [.with { ($0.key, $0.createRevision, $0.value, $0.lease) = (Data("foo".utf8), -1, Data([0xff, 0, 1, 2]), 7) }, PBKeyValue()]
            response.count = 2
        }
        #expect(try json(response, .rangeResponse)
            == #"{"header":{"cluster_id":"18446744073709551615","revision":"5"},"kvs":[{"key":"Zm9v","create_revision":"-1","value":"/wABAg==","lease":"7"},{}],"count":"2"}"#)
        let txn = PBTxnResponse.with { $0.responses = [.with { $0.responsePut = PBPutResponse() }, PBResponseOp()] }
        #expect(try json(txn, .txnResponse) == #"{"responses":[{"response_put":{}},{}]}"#)
        let alarms = PBAlarmResponse.with { $0.alarms = [.with { ($0.memberID, $0.alarm) = (1, .nospace) }, .with { $0.alarm = .UNRECOGNIZED(9) }] }
        #expect(try json(alarms, .alarmResponse) == #"{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"alarm":9}]}"#)
        let users = PBAuthUserListResponse.with { $0.users = ["a<b>&\"\\\u{2028}\u{1}\né", ""] }
        #expect(try json(users, .userListResponse) == #"{"users":["a\u003cb\u003e\u0026\"\\\u2028\u0001\né",""]}"#)
        #expect(try json(PBDefragmentResponse(), .headerOnly("DefragmentResponse")) == "{}")
        #expect(try json(PBHashResponse.with { $0.hash = 4_000_000_000 }, .hashResponse) == #"{"hash":4000000000}"#)
    }

    @Test func datesAreTheOnesOfHTTP() {
        #expect(HTTPDate.text(unixSeconds: 784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
        #expect(HTTPDate.text(unixSeconds: 951_782_399) == "Mon, 28 Feb 2000 23:59:59 GMT")
        #expect(HTTPDate.text(unixSeconds: 951_782_400) == "Tue, 29 Feb 2000 00:00:00 GMT")
        #expect(HTTPDate.text(unixSeconds: 4_107_542_400) == "Mon, 01 Mar 2100 00:00:00 GMT")
        #expect(HTTPDate.text(unixSeconds: 0) == "Thu, 01 Jan 1970 00:00:00 GMT")
    }
}

/// The declarations of Protos/*.proto, as far as this test needs them.
private struct Protos {
    struct Field: Equatable { var number: UInt32, name: String, type: String, isRepeated: Bool, oneof: String? }
    var messages: [String: [Field]] = [:]
    var enums: [String: [String]] = [:]

    init() throws {
        var here = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { here.deleteLastPathComponent() }
        let folder = here.path + "/Sources/ClusterCore/Wire/Protos"
        for file in ["rpc", "kv", "auth", "lock", "election"] {
            let text = try String(contentsOfFile: "\(folder)/\(file).proto", encoding: .utf8)
            var package = ""
            // Enclosing declarations: kind and name.
            var open: [(kind: String, name: String)] = []
            for line in text.split(separator: "\n") {
                let words = line.prefix { $0 != "/" || !line.contains("//") }.replacingOccurrences(of: ";", with: "").replacingOccurrences(of: "=", with: " ")
                    .split(separator: " ").map(String.init)
                guard let first = words.first else { continue }
                let names = open.filter { $0.kind == "message" }.map(\.name)
                let scope = ([package] + names).joined(separator: ".")
                switch first {
                case "package": package = words[1]
                case "message", "enum", "oneof", "service":
                    if words.last == "{}" {
                        messages["\(scope).\(words[1])"] = []
                        continue
                    }
                    open.append((first, words[1]))
                    if first == "message" { messages["\(scope).\(words[1])"] = [] }
                    if first == "enum" { enums["\(scope).\(words[1])"] = [] }
                case "}": open.removeLast()
                case "syntax", "import", "option", "rpc": break
                default:
                    guard let last = open.last else { continue }
                    if last.kind == "enum" {
                        let name = "\(scope).\(last.name)"
                        #expect(UInt32(words[1]) == UInt32(enums[name]!.count))
                        enums[name]!.append(words[0])
                        continue
                    }
                    let isRepeated = first == "repeated"
                    let rest = isRepeated ? Array(words.dropFirst()) : words
                    messages[scope]!.append(Field(number: UInt32(rest[2])!, name: rest[1], type: rest[0], isRepeated: isRepeated,
                                                  oneof: last.kind == "oneof" ? last.name : nil))
                }
            }
        }
        // Full names of types, from the innermost scope outwards.
        for (message, fields) in messages {
            messages[message] = fields.map { field in
                var field = field
                var scope = message.split(separator: ".")
                while !scope.isEmpty {
                    let name = scope.joined(separator: ".") + "." + field.type
                    if messages[name] != nil || enums[name] != nil {
                        field.type = name
                        break
                    }
                    scope.removeLast()
                }
                return field
            }
        }
    }
}
