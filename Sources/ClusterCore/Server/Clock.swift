import Base
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Where a node gets its time from. Handed in, so that the playground can bend one node's clock.
public protocol NodeClock: Sendable {
    /// Monotonic; its origin means nothing.
    func now() -> Instant
    /// For people and log entries only.
    func wall() -> WallTime
    /// The same clock as `wall`, in microseconds since 1970.
    func wallMicroseconds() -> Int64
}

extension NodeClock {
    public func wallMicroseconds() -> Int64 { wall().milliseconds * 1_000 }
}

public struct SystemClock: NodeClock {
    public init() {}
    public func now() -> Instant {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }
    public func wall() -> WallTime {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return WallTime(milliseconds: Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000)
    }
    public func wallMicroseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000
    }
}
