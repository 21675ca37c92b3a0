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
    /// How long the world takes while this clock shows `span`: what a timer must wait.
    func realTime(for span: TimeSpan) -> TimeSpan
    /// `changed` is called from then on, on any thread, when the clock has leapt or changed its rate, so that timers are set anew. The latest
    /// observer takes the place of the one before.
    func observe(_ changed: @escaping @Sendable () -> Void)
}

extension NodeClock {
    public func wallMicroseconds() -> Int64 { wall().milliseconds * 1_000 }
    public func realTime(for span: TimeSpan) -> TimeSpan { span }
    public func observe(_ changed: @escaping @Sendable () -> Void) {}
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
