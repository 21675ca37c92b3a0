import Base
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
// The tests of this module speak gRPC through it.
@_exported import RawClient

/// A plain socket, for HTTP/1.1 and nonsense.
enum RawConnection {
    /// Sends `text` and returns everything until the server closes.
    static func exchange(_ port: Int, group: any EventLoopGroup, _ text: String) async throws -> String {
        let (channel, collector) = try await open(port, group: group)
        try await channel.writeAndFlush(ByteBuffer(string: text)).get()
        // A server that never closes fails the test instead of holding it up.
        let limit = channel.eventLoop.scheduleTask(in: .seconds(30)) { channel.close(promise: nil) }
        try await channel.closeFuture.get()
        limit.cancel()
        return collector.text
    }

    static func open(_ port: Int, group: any EventLoopGroup) async throws -> (any Channel, Collector) {
        let collector = Collector()
        let channel = try await ClientBootstrap(group: group).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(collector) }
        }.connect(host: "127.0.0.1", port: port).get()
        return (channel, collector)
    }

    final class Collector: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let collected = NIOLockedValueBox("")
        private let failure = NIOLockedValueBox<(any Error)?>(nil)
        var text: String { collected.withLockedValue { $0 } }
        var error: (any Error)? { failure.withLockedValue { $0 } }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let part = String(buffer: unwrapInboundIn(data))
            collected.withLockedValue { $0 += part }
        }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            failure.withLockedValue { $0 = error }
            context.close(promise: nil)
        }
    }
}

/// Field `number` of an encoded message: the last varint, or the last bytes.
struct Fields {
    var numbers: [UInt32: [UInt64]] = [:]
    var bytes: [UInt32: [[UInt8]]] = [:]

    init(_ message: [UInt8]) {
        message.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            while let tag = try? reader.readTag() {
                let (field, type) = tag
                if type == .varint {
                    numbers[field, default: []].append((try? reader.readVarint()) ?? 0)
                } else if let value = try? reader.readCounted() {
                    bytes[field, default: []].append(value)
                }
            }
        }
    }
    func number(_ field: UInt32) -> UInt64 { numbers[field]?.last ?? 0 }
    func text(_ field: UInt32) -> String { String(decoding: bytes[field]?.last ?? [], as: UTF8.self) }
    func texts(_ field: UInt32) -> [String] { (bytes[field] ?? []).map { String(decoding: $0, as: UTF8.self) } }
    /// Nil when absent.
    func message(_ field: UInt32) -> Fields? { bytes[field]?.last.map(Fields.init) }
}

/// Polls `condition` until it holds; false after `limit`.
func eventually(within limit: Duration = .seconds(10), _ condition: () async throws -> Bool) async rethrows -> Bool {
    let clock = ContinuousClock()
    let end = clock.now + limit
    while clock.now < end {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(2))
    }
    return false
}
