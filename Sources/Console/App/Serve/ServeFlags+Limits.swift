import Base
import Server

extension ServeFlags {
    static let limits = ServeFlagGroup(title: "Limits for clients", flags: [
        ServeFlag("grpc-keepalive-min-time", .time(atLeast: .zero), "5s", "Least time between pings of a client with calls; who pings more often is cut off "
            + "(too_many_pings). Not watched over TLS. 0 for 5m."),
        ServeFlag("grpc-keepalive-interval", .time(atLeast: .zero), "2h", "Silence after which a client is asked whether it is there; 0 for never."),
        ServeFlag("grpc-keepalive-timeout", .time(atLeast: .zero), "20s", "Time it has to answer; then its connection is closed. 0 to ask nobody."),
        ServeFlag("max-concurrent-streams", .number(0...Int(UInt32.max)), "4294967295", "Calls that a client may have open on a connection; never more than 16384, which "
            + "bounds their memory. 0 for that."),
    ])
}

/// What each client is allowed.
struct ClientLimits: Hashable, Sendable {
    var keepAlive = KeepAliveOptions()
    /// As asked for; what is told to clients is at most `ClientBounds.mostConcurrentStreams`.
    var maxConcurrentStreams = UInt32.max

    init() {}

    init(_ settings: ServeSettings) {
        keepAlive.minPingInterval = settings.time("grpc-keepalive-min-time")
        keepAlive.interval = settings.time("grpc-keepalive-interval")
        // As gRPC's server, which etcd leaves this to.
        if keepAlive.interval > .zero { keepAlive.interval = max(keepAlive.interval, KeepAliveOptions.leastInterval) }
        keepAlive.timeout = settings.time("grpc-keepalive-timeout")
        let streams = UInt32(settings.number("max-concurrent-streams"))
        maxConcurrentStreams = streams == 0 ? .max : streams
    }

    func apply(to bounds: inout ClientBounds) {
        bounds.keepAlive = keepAlive
        bounds.maxConcurrentStreams = min(maxConcurrentStreams, ClientBounds.mostConcurrentStreams)
    }
}
