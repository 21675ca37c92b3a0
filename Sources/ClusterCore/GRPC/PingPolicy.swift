import Base

/// Counts pings that come too often, by the rules of gRPC's server in Go, which clients are tuned to.
///
/// A ping that follows the one before too soon is a strike; so is one within two hours while no call is open. The first ping after headers or data
/// went out is free and wipes all strikes: clients ping to measure while they receive. One strike beyond `maxStrikes` is too many.
public struct PingPolicy: Sendable {
    public static let maxStrikes = 2
    /// Least time between pings while no call is open.
    public static let intervalWithoutCalls = TimeSpan.seconds(7_200)
    /// Least time between pings while a call is open.
    public let minInterval: TimeSpan
    private var last: Instant?
    private var strikes = 0

    public init(minInterval: TimeSpan) { self.minInterval = minInterval }

    /// Notes a ping. False: one too many, the client is to be told and cut off.
    /// - Parameter hasSent: headers or data went out since the ping before.
    public mutating func allows(at now: Instant, openCalls: Int, hasSent: Bool) -> Bool {
        defer { last = now }
        if hasSent {
            strikes = 0
            return true
        }
        if let last, last + (openCalls == 0 ? PingPolicy.intervalWithoutCalls : minInterval) > now { strikes += 1 }
        return strikes <= PingPolicy.maxStrikes
    }
}
