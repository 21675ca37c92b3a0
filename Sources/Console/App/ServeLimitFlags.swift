import ArgumentParser
import Base
import Server

/// etcd's flags for what one client may do: pings, and calls at a time.
struct ServeLimitFlags: ParsableArguments {
    @Option(name: .customLong("grpc-keepalive-min-time"),
            help: "Least time between pings of a client with calls; who pings more often is cut off (too_many_pings). Not watched over TLS. 0 for 5m. (default: 5s)") var minTime: String?
    @Option(name: .customLong("grpc-keepalive-interval"), help: "Silence after which a client is asked whether it is there; 0 for never. (default: 2h)") var interval: String?
    @Option(name: .customLong("grpc-keepalive-timeout"), help: "Time it has to answer; then its connection is closed. 0 to ask nobody. (default: 20s)") var timeout: String?
    @Option(name: .customLong("max-concurrent-streams"),
            help: "Calls that a client may have open on a connection; never more than 16384, which bounds their memory. 0 for that. (default: 4294967295)") var maxStreams: String?

    /// Options over environment over defaults.
    /// - Parameter isFile: the variables are a file's, where etcd has times as nanoseconds.
    func settings(environment: [String: String], isFile: Bool) throws(CommandFailure) -> ClientLimits {
        func value(_ option: String?, _ flag: String) -> String? {
            option ?? environment[ServeConfigFile.variable(flag)].flatMap { $0.isEmpty ? nil : $0 }
        }
        func time(_ option: String?, _ flag: String, _ standard: TimeSpan) throws(CommandFailure) -> TimeSpan {
            guard let text = value(option, flag) else { return standard }
            let plain = isFile ? Int64(text).map { TimeSpan(nanoseconds: $0) } : nil
            guard let span = plain ?? TimeSpan(goDuration: text), span >= .zero else {
                throw CommandFailure(description: "--\(flag) \(text): expected a time such as 5s, 500ms or 2h" + (isFile ? ", or nanoseconds" : ""), status: 64)
            }
            return span
        }
        var limits = ClientLimits()
        limits.keepAlive.minPingInterval = try time(minTime, "grpc-keepalive-min-time", limits.keepAlive.minPingInterval)
        limits.keepAlive.interval = try time(interval, "grpc-keepalive-interval", limits.keepAlive.interval)
        // As gRPC's server, which etcd leaves this to.
        if limits.keepAlive.interval > .zero { limits.keepAlive.interval = max(limits.keepAlive.interval, KeepAliveOptions.leastInterval) }
        limits.keepAlive.timeout = try time(timeout, "grpc-keepalive-timeout", limits.keepAlive.timeout)
        if let text = value(maxStreams, "max-concurrent-streams") {
            guard let read = UInt32(text) else {
                throw CommandFailure(description: "--max-concurrent-streams \(text): expected a number from 0 to \(UInt32.max)", status: 64)
            }
            limits.maxConcurrentStreams = read == 0 ? .max : read
        }
        return limits
    }
}

/// What each client is allowed.
struct ClientLimits: Hashable, Sendable {
    var keepAlive = KeepAliveOptions()
    /// As asked for; what is told to clients is at most `ClientBounds.mostConcurrentStreams`.
    var maxConcurrentStreams = UInt32.max

    func apply(to bounds: inout ClientBounds) {
        bounds.keepAlive = keepAlive
        bounds.maxConcurrentStreams = min(maxConcurrentStreams, ClientBounds.mostConcurrentStreams)
    }
}
