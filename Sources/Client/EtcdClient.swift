import Base
import GRPC
import NIOCore
import NIOPosix
import Wire

/// A client of an etcd v3 cluster: any server of etcd 3.4 or later, and our own.
///
/// Cheap to share: every call may be made from any task. Connections are made when first needed, on one event loop. A call
/// goes to an endpoint that answers; reads are tried again elsewhere when a member cannot serve them, writes only when
/// they certainly were not looked at, until the call's time limit passes. Cancelling the task resets the call.
public final class EtcdClient: Sendable {
    let core: ClientCore
    public let configuration: ClientConfiguration

    /// Reads the TLS files, if any; connects to nothing yet. Throws `EtcdError.configuration`.
    public init(configuration: ClientConfiguration, eventLoopGroup: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton) throws(EtcdError) {
        self.configuration = configuration
        core = try ClientCore(loop: eventLoopGroup.next(), configuration: configuration)
    }

    /// Endpoints as `host:port` or URLs, single or joined by commas.
    public convenience init(endpoints: [String]) throws(EtcdError) {
        var configuration = ClientConfiguration(endpoints: [])
        for text in endpoints { configuration.endpoints += try ClientConfiguration(text).endpoints }
        try self.init(configuration: configuration)
    }

    /// Ends running calls with `EtcdError.closed` or a transport error, and closes the connections.
    public func close() async {
        let core = self.core
        try? await core.loop.submit { core.close() }.get()
    }

    deinit {
        let core = self.core
        core.loop.execute { core.close() }
    }

    /// How each endpoint is doing, in the order of the configuration.
    public func endpointStates() async -> [EndpointState] {
        let core = self.core
        return (try? await core.loop.submit { core.pool.states() }.get()) ?? []
    }

    // MARK: Calls

    /// One call with its encoded request, returning the encoded response. For methods that have no function here.
    public func unary(_ method: MethodID, _ request: [UInt8], options: CallOptions = CallOptions()) async throws -> [UInt8] {
        let call = UnaryCall(core: core, method, request, options)
        let loop = core.loop
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                loop.execute { call.start { continuation.resume(with: $0) } }
            }
        } onCancel: {
            loop.execute { call.cancel() }
        }
    }

    /// Decodes an answer, turning a decoder's fault into `malformedResponse`.
    func decode<T>(_ bytes: [UInt8], _ body: (inout ByteReader) throws(DecodingFault) -> T) throws(EtcdError) -> T {
        let result: Result<T, DecodingFault> = bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            do throws(DecodingFault) {
                return .success(try body(&reader))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let value): return value
        case .failure(let fault): throw .malformedResponse("\(fault)")
        }
    }
}
