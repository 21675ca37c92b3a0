import Base

/// Pings between gRPC clients and this server: `--grpc-keepalive-…`, with etcd's defaults.
public struct KeepAliveOptions: Hashable, Sendable {
    /// What gRPC's server takes for the least time between a client's pings when it is told none.
    public static let standardPingInterval = TimeSpan.seconds(300)
    /// gRPC's server asks no more often than this.
    public static let leastInterval = TimeSpan.seconds(1)

    /// Least time between pings of a client with calls. Not watched over TLS, where etcd does not watch it either: Go's HTTP/2 server, which etcd then
    /// puts before gRPC, knows no such rule.
    public var minPingInterval = TimeSpan.seconds(5)
    /// After this long without a byte from a client it is asked whether it is there; 0: never.
    public var interval = TimeSpan.seconds(7_200)
    /// Time it has to send anything; then its connection is closed. 0: it is never asked.
    public var timeout = TimeSpan.seconds(20)

    public init() {}

    var asks: Bool { interval > .zero && timeout > .zero }
}

/// Whether the other end of a connection is there. A value: looks come from outside, and bytes only raise a flag.
struct Vigil {
    enum Verdict: Equatable { case fine, ask, gone }

    /// Bytes came since the last look.
    var hasHeard = true
    private var quietSince = Instant.zero
    private var askedAt: Instant?
    var isWaiting: Bool { askedAt != nil }

    /// Looks quantise: a client is asked at the first look after `interval` of silence, measured from the look that saw the last bytes.
    mutating func look(at now: Instant, _ options: KeepAliveOptions) -> Verdict {
        if hasHeard {
            self = Vigil(hasHeard: false, quietSince: now)
            return .fine
        }
        if let askedAt { return now - askedAt >= options.timeout ? .gone : .fine }
        guard options.asks, now - quietSince >= options.interval else { return .fine }
        askedAt = now
        return .ask
    }
}

/// When a loop looks after its connections: one timer for all of them.
struct Upkeep {
    /// Looks for what is stuck: unfinished requests, answers that nobody takes.
    static let stuckLooks: UInt8 = 4
    private let keepAlive: KeepAliveOptions
    private let stuckInterval: TimeSpan
    private var stuckLookedAt: Instant?
    /// Beneath this a timer would only keep the loop busy.
    private static let leastInterval = TimeSpan.milliseconds(5)

    init(_ bounds: ClientBounds) {
        keepAlive = bounds.keepAlive
        stuckInterval = TimeSpan(nanoseconds: bounds.stuckTimeout.nanoseconds / Int64(Upkeep.stuckLooks))
    }

    /// Whether this look is also one for what is stuck.
    mutating func isForStuck(at now: Instant) -> Bool {
        if let stuckLookedAt, now - stuckLookedAt < stuckInterval { return false }
        stuckLookedAt = now
        return true
    }

    /// Time to the next look: an eighth of what it is to notice, a quarter of the time that somebody has to answer.
    func next(isWaiting: Bool) -> TimeSpan {
        var interval = stuckInterval
        if keepAlive.asks {
            interval = min(interval, keepAlive.interval / 8)
            if isWaiting { interval = min(interval, keepAlive.timeout / 4) }
        }
        return max(interval, Upkeep.leastInterval)
    }
}
