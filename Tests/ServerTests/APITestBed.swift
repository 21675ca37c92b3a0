import Base
import Logging
import NIOCore
import NIOPosix
import Replica
import Store
@testable import Server

/// A listener before a scripted member, taken down at the end of `run`.
struct TestBed {
    let member: ScriptedMember
    let listener: ClientListener
    let group: any EventLoopGroup
    var port: Int { listener.boundPort }

    static func run(options: ReplicaOptions = ReplicaOptions(), bounds: ClientBounds = ClientBounds(), loops: Int = 1, tls: TLSPort? = nil,
                    surface: ClientSurface = .all, access: HTTPAccess = HTTPAccess(),
                    logger: Logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }),
                    _ body: (TestBed) async throws -> Void) async throws {
        var bounds = bounds
        // A test's own client may get no processor for seconds while others compute; only a test of the timeout names one.
        if bounds.sniffTimeout == ClientBounds().sniffTimeout { bounds.sniffTimeout = .seconds(300) }
        let serving = MultiThreadedEventLoopGroup(numberOfThreads: loops)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let member = ScriptedMember(group: group, options: options)
        let listener = try await ClientListener.start(port: member, group: serving, host: "127.0.0.1", tcpPort: 0, tls: tls, bounds: bounds, surface: surface,
                                                      access: access, logger: logger)
        var failure: (any Error)?
        do { try await body(TestBed(member: member, listener: listener, group: group)) } catch { failure = error }
        try? await listener.abort().get()
        try? await serving.shutdownGracefully()
        try? await group.shutdownGracefully()
        if let failure { throw failure }
    }

    func client() async throws -> TestClient { try await TestClient.connect(port, group: group) }
}

func putRequest(_ key: String, _ value: String) -> [UInt8] {
    var writer = ByteWriter()
    PutRequest(key: Array(key.utf8), value: Array(value.utf8)).encode(into: &writer)
    return writer.bytes
}

func rangeRequest(_ key: String, end: String = "", serializable: Bool = false) -> [UInt8] {
    var writer = ByteWriter()
    RangeRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8), serializable: serializable).encode(into: &writer)
    return writer.bytes
}

func numberRequest(_ numbers: Int64...) -> [UInt8] {
    var writer = ByteWriter()
    for (at, number) in numbers.enumerated() { writer.writeField(UInt32(at + 1), number) }
    return writer.bytes
}
