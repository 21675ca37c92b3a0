import Base
import Foundation
import GRPC
import Wire

extension ConformanceCase {
    /// A call whose header fields are changed and whose body is any bytes.
    private static func raw(_ name: String, path: String = MethodID.range.path, _ changes: [String: String?] = [:], more: [(String, String)] = [], body: [UInt8]? = nil, deviation: String? = nil) -> ConformanceCase {
        .steps(name, deviation: deviation) { await $0.raw(path: path, changes, more: more, body: body ?? framed(range("k").encoded())) }
    }
    private static func path(_ name: String, _ path: String, deviation: String? = nil) -> ConformanceCase { raw(name, path: path, deviation: deviation) }
    private static func timeout(_ text: String, deviation: String? = nil) -> ConformanceCase {
        .steps("a time limit of '\(text)'", deviation: deviation) {
            // etcd gives this one with the right code, or with none, as it happens.
            await $0.raw(path: MethodID.range.path, ["grpc-timeout": text], body: framed(range("k").encoded())).replacingOccurrences(of: "Unknown context deadline", with: "DeadlineExceeded context deadline")
        }
    }

    /// Behind its five bytes.
    private static func framed(_ message: [UInt8], flag: UInt8 = 0, length: Int? = nil) -> [UInt8] {
        let length = UInt32(length ?? message.count)
        return [flag, UInt8(truncatingIfNeeded: length >> 24), UInt8(truncatingIfNeeded: length >> 16), UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length)] + message
    }

    /// etcd 3.5.1 is built with gRPC 1.38.
    private static let newer = "as servers with a newer gRPC"
    private static let strict = "refused, as HTTP/2 demands it (RFC 9113 §8)"

    static let transport: [ConformanceCase] = [
        .call("a key to ask for", .put, put("k", "1")), raw("a call as it should be"),
        path("an unknown method", "/etcdserverpb.KV/Frob"), path("an unknown service", "/frob.KV/Range"), path("a method of another service", "/etcdserverpb.Lease/Range"), path("a path without a method", "/etcdserverpb.KV", deviation: newer), path("a path without a service", "/Range", deviation: newer), path("an empty path", "/", deviation: newer),
        path("a method without a name", "/etcdserverpb.KV/"), path("other letters", "/etcdserverpb.KV/range"), path("a path too deep", "/etcdserverpb.KV/Range/"), path("a path with a query", "/etcdserverpb.KV/Range?x=1"), path("reflection", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
        raw("a path without its slash", path: "etcdserverpb.KV/Range", deviation: strict),
        raw("no message", body: [], deviation: newer), raw("an empty message", body: framed([])), raw("two messages", body: framed(range("k").encoded()) + framed(range("x").encoded())), raw("a message cut off", body: framed(range("k").encoded(), length: 50), deviation: newer), raw("a prefix cut off", body: [0, 0], deviation: newer),
        raw("a message and the beginning of another", body: framed(range("k").encoded()) + [0, 0]), raw("compressed by nothing", body: framed(range("k").encoded(), flag: 1)), raw("a flag that is none", body: framed(range("k").encoded(), flag: 7)), raw("a length beyond the limit", body: framed([1, 2, 3], length: 3_000_000)),
        raw("a length beyond reason", body: framed([1, 2, 3], length: 0xffff_fff0)), raw("a compression that nobody knows", ["grpc-encoding": "frob"], body: framed(range("k").encoded(), flag: 1)), raw("one that is not used", ["grpc-encoding": "frob"]), raw("identity", ["grpc-encoding": "identity"]),
        raw("gzip of garbage", ["grpc-encoding": "gzip"], body: framed([1, 2, 3], flag: 1)), raw("gzip that is not used", ["grpc-encoding": "gzip"], deviation: "answered without compression, since the client did not say that it reads any"), raw("an answer compressed by nobody", ["grpc-accept-encoding": "frob"]), raw("garbage", body: framed([0xff, 0xff])),
        timeout("0n"), timeout("1n"), timeout("10S"), timeout("1H"), timeout("99999999H"), 
        timeout("100000000S", deviation: newer), timeout("", deviation: newer), timeout("5", deviation: newer), timeout("S", deviation: newer), timeout("-5S", deviation: newer), timeout("5x", deviation: newer), timeout("1.5S", deviation: newer), timeout("5s", deviation: newer),
        raw("another type", ["content-type": "application/json"], deviation: newer), raw("no type", ["content-type": nil], deviation: newer), raw("a type with its encoding", ["content-type": "application/grpc+proto"]), raw("a type with another encoding", ["content-type": "application/grpc+json"]), raw("a type with parameters", ["content-type": "application/grpc;charset=utf-8"]),
        raw("a type in capitals", ["content-type": "Application/GRPC"], deviation: newer), raw("a type that begins as the right one", ["content-type": "application/grpcish"], deviation: newer), raw("GET", [":method": "GET"], deviation: newer), raw("PUT", [":method": "PUT"], deviation: newer), raw("no te", ["te": nil]), raw("another te", ["te": "gzip"], deviation: strict), raw("no user agent", ["user-agent": nil]),
        raw("no authority", [":authority": nil], deviation: strict), raw("another authority", [":authority": "somewhere.example:1"]), raw("another scheme", [":scheme": "https"]), raw("a leader is needed", ["hasleader": "true"]), raw("a leader, in another word", ["hasleader": "yes"]), raw("a leader, twice", more: [("hasleader", "false"), ("hasleader", "true")]),
        raw("a version of the client's", ["client-api-version": "3.5.1"]), raw("metadata in base 64", ["x-bin": "AAEC"]), raw("metadata that is no base 64", ["x-bin": "%%%"]), raw("many fields", more: (0..<200).map { ("x-\($0)", "v") }), raw("an empty value", ["x-empty": ""]), raw("a field of the protocol", ["grpc-status": "5"]),
        raw("a token while nobody asks", ["token": "nonsense"], deviation: "not looked at while authentication is off, as later 3.5"), raw("a field in capitals", more: [("X-Capital", "1")]), raw("a field of the connection", ["connection": "close"], deviation: strict), raw("a length that is right", ["content-length": "8"]), raw("a length that is wrong", ["content-length": "3"], deviation: strict),
        raw("a watch of garbage", path: MethodID.watch.path, body: framed([0x0a, 0xff])), raw("a watch that says nothing", path: MethodID.leaseKeepAlive.path, body: []), raw("a snapshot without a request", path: MethodID.snapshot.path, body: [], deviation: newer), raw("an unknown stream", path: "/etcdserverpb.Watch/Frob", body: []),
        .steps("a large message") { await $0.raw(path: MethodID.range.path, [:], body: framed(range("k").encoded() + [0xca, 0x3e, 0xb0, 0xea, 0x01] + [UInt8](repeating: 7, count: 30_000))) },
        .steps("many calls at once") { peer in
            let keys = (0..<40).map { "m\($0)" }
            return await withTaskGroup(of: String.self) { group in
                for key in keys { group.addTask { await peer.answer(.range, range(key)) } }
                return await group.reduce(into: Set()) { $0.insert($1) }.sorted().joined(separator: "\n")
            }
        },
    ]
}
