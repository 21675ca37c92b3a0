import Base
import Foundation
@testable import Server

// The JSON gateway: translation both ways, and whole calls over HTTP.

extension FuzzTargets {
    static let gateway: [FuzzTarget] = [
        FuzzTarget(name: "gateway-coding", seeds: GatewayImages.codingSeeds, words: GatewayImages.words, run: GatewayImages.code),
        FuzzTarget(name: "json-gateway", seeds: GatewayImages.callSeeds, words: GatewayImages.words, run: GatewayImages.call),
    ]
}

private enum GatewayImages {
    static let words = [#"":"#, "null", "true", #"\u0000"#, #"\ud800"#, "1e5", "-1", #""9223372036854775807""#, "{}", "[]", #""key":"#, #""range_end":"#, #""request_txn":"#, #""success":["#, #""Zm9v""#]

    private static let texts: [(path: String, text: String)] = [
        ("/v3/kv/range", #"{"key":"Zm9v","rangeEnd":"YTA=","limit":"2","sort_order":"DESCEND","sort_target":3,"keys_only":true}"#),
        ("/v3/kv/put", #"{"key":"YQ==","value":"PD4m","lease":"0","prev_kv":true}"#), ("/v3/kv/deleterange", #"{"key":[102,111,111],"prev_kv":true}"#),
        ("/v3/kv/txn", #"{"compare":[{"key":"YQ==","target":"VERSION","result":2,"version":"4"}],"success":[{"request_range":{"key":"YQ=="}},{"requestPut":{"key":"YQ==","value":""}}],"failure":[null,{"request_txn":{}}]}"#),
        ("/v3/kv/compaction", #"{"revision":"1","physical":false}"#), ("/v3/watch", #"{"create_request":{"key":"YQ==","start_revision":"1","filters":["NOPUT",1]}} {"progress_request":{}}"#),
        ("/v3/lease/grant", #"{"TTL":"60","ID":"7"}"#), ("/v3/lease/keepalive", #"{"ID":7}{"ID":"8"}"#), ("/v3/lease/timetolive", #"{"ID":7,"keys":true}"#), ("/v3/maintenance/alarm", #"{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}"#),
        ("/v3/cluster/member/add", #"{"peerURLs":["http://x:1","\u00e9"],"isLearner":true}"#), ("/v3/auth/user/add", #"{"name":"a<b>\u2028","password":"p","options":{"no_password":true}}"#),
        ("/v3/auth/role/grant", #"{"name":"r","perm":{"permType":"READWRITE","key":"Zm9v","range_end":"AA=="}}"#), ("/v3/election/campaign", #"{"name":"ZQ==","lease":7,"value":"eA=="}"#), ("/v3/maintenance/snapshot", "{}"),
    ]

    private static func number(_ path: String) -> UInt8 { UInt8(GatewayRoute.all.firstIndex { $0.path == path }!) }

    // MARK: Translation

    /// A route's number and whether the rest is a request's JSON or an answer's wire form.
    static func codingSeeds() -> [[UInt8]] {
        texts.flatMap { path, text in
            // An answer's fields are the wire form of something like it.
            let route = GatewayRoute.find(path)!
            let wire = (try? JSONToProtobuf.message(Array(text.utf8), route.request)) ?? []
            return [[number(path), 0] + Array(text.utf8), [number(path), 1] + wire]
        }
    }

    static func code(_ raw: UnsafeRawBufferPointer) {
        guard raw.count >= 2 else { return }
        let route = GatewayRoute.all[Int(raw[0]) % GatewayRoute.all.count]
        let rest = Array(raw[2...])
        if raw[1] & 1 == 1 {
            guard let text = rest.withUnsafeBytes({ try? ProtobufToJSON.text($0, route.response) }) else { return }
            precondition(values(in: text)?.count == 1, "an answer that is no JSON: \(String(decoding: text, as: UTF8.self))")
        } else {
            for text in values(in: rest) ?? [] {
                guard let wire = try? JSONToProtobuf.message(text, route.request) else { continue }
                // What was accepted survives: its own JSON says the same.
                let again = json(wire, route.request)
                guard let second = try? JSONToProtobuf.message(again, route.request) else { preconditionFailure("not accepted a second time: \(String(decoding: again, as: UTF8.self))") }
                precondition(json(second, route.request) == again, "\(String(decoding: again, as: UTF8.self)) became another request")
            }
        }
    }

    private static func json(_ wire: [UInt8], _ schema: MessageSchema) -> [UInt8] {
        do { return try wire.withUnsafeBytes { try ProtobufToJSON.text($0, schema) } } catch { preconditionFailure("the gateway wrote what it cannot read: \(error)") }
    }

    /// The values that stand one after the other; nil when it is no JSON.
    private static func values(in text: [UInt8]) -> [[UInt8]]? {
        var stream = JSONStream(), found: [[UInt8]] = []
        stream.append(text)
        do {
            while let value = try stream.next() { found.append(value) }
            if let value = try stream.last() { found.append(value) }
            return found
        } catch { return nil }
    }

    // MARK: Calls

    /// Calls that follow each other on one connection: a route, flags, a body.
    private enum Flags {
        static let isChunked: UInt8 = 1, comesInPieces: UInt8 = 2, hasToken: UInt8 = 4, isHurried: UInt8 = 8, isGet: UInt8 = 16
    }

    static func callSeeds() -> [[UInt8]] {
        let calls = texts.map { [number($0.path), 0] + piece(Array($0.text.utf8)) }
        let odd = texts.map { [number($0.path), Flags.isChunked | Flags.comesInPieces | Flags.hasToken] + piece(Array($0.text.utf8)) }
        return calls + odd + [Array(calls.prefix(9).joined()), Array((calls + odd).suffix(12).joined())]
    }

    static func call(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        let port = ClientPort()
        var calls = 0
        while !choices.isAtEnd, calls < 16, port.isOpen {
            let route = GatewayRoute.all[Int(choices.byte()) % GatewayRoute.all.count]
            let flags = choices.byte(), body = choices.piece()
            var request = Array("\(flags & Flags.isGet != 0 ? "GET" : "POST") \(route.path) HTTP/1.1\r\nHost: x\r\n".utf8)
            if flags & Flags.hasToken != 0 { request += Array("Authorization: abc.1\r\n".utf8) }
            if flags & Flags.isHurried != 0 { request += Array("Grpc-Timeout: 1n\r\n".utf8) }
            if flags & Flags.isChunked != 0 {
                request += Array("Transfer-Encoding: chunked\r\n\r\n".utf8)
                for start in stride(from: 0, to: body.count, by: 7) {
                    let part = body[start..<min(start + 7, body.count)]
                    request += Array("\(String(part.count, radix: 16))\r\n".utf8) + part + [13, 10]
                }
                request += Array("0\r\n\r\n".utf8)
            } else {
                request += Array("Content-Length: \(body.count)\r\n\r\n".utf8) + body
            }
            let step = flags & Flags.comesInPieces != 0 ? 5 : request.count
            var answer: [UInt8] = []
            for start in stride(from: 0, to: request.count, by: step) where port.isOpen {
                port.feed(Array(request[start..<min(start + step, request.count)]))
                answer += port.takeOutput()
            }
            calls += 1
            switch route.method {
            // These may go on for ever, and the next request waits behind them.
            case .watch, .observe, .lock, .campaign, .leaseKeepAlive, .snapshot: break
            default:
                port.awaitThreads()
                // What is read on threads of its own comes later than the call.
                answer += port.takeOutput()
                check(answer, route, isServing: port.isServing)
                continue
            }
            break
        }
        port.pass(.seconds(20))
        port.close()
    }

    /// One answer of HTTP, whose body is one JSON value as long as it says.
    private static func check(_ answer: [UInt8], _ route: GatewayRoute, isServing: Bool) {
        guard isServing else { return }
        let text = String(decoding: answer, as: UTF8.self)
        precondition(text.hasPrefix("HTTP/1.1 "), "\(route.path) was not answered: \(text)")
        guard let end = answer.firstRange(of: Array("\r\n\r\n".utf8)) else { preconditionFailure("\(route.path): a head without an end: \(text)") }
        let head = String(decoding: answer[..<end.lowerBound], as: UTF8.self).lowercased(), body = Array(answer[end.upperBound...])
        guard head.contains("content-type: application/json") else { return }
        precondition(head.contains("content-length: \(body.count)"), "\(route.path): a body of \(body.count) bytes: \(text)")
        precondition(values(in: body)?.count == 1, "\(route.path): no JSON: \(text)")
    }
}
