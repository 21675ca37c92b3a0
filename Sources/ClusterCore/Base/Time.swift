/// A point on one process's monotonic clock, in nanoseconds from an arbitrary origin. Never compared between processes.
public struct Instant: Hashable, Comparable, Sendable {
    public var nanoseconds: Int64
    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    public static let zero = Instant(nanoseconds: 0)
    public static let distantFuture = Instant(nanoseconds: .max)
    @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    /// Saturates instead of overflowing, so that `.distantFuture + x` stays in the distant future.
    @inlinable public static func + (a: Instant, b: TimeSpan) -> Instant {
        let (sum, overflow) = a.nanoseconds.addingReportingOverflow(b.nanoseconds)
        return overflow ? .distantFuture : Instant(nanoseconds: sum)
    }
    @inlinable public static func - (a: Instant, b: Instant) -> TimeSpan {
        TimeSpan(nanoseconds: a.nanoseconds.subtractingReportingOverflow(b.nanoseconds).partialValue)
    }
}

/// A length of time in nanoseconds.
public struct TimeSpan: Hashable, Comparable, Sendable {
    public var nanoseconds: Int64
    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    public static let zero = TimeSpan(nanoseconds: 0)
    @inlinable public static func microseconds(_ n: Int64) -> TimeSpan { TimeSpan(n, 1_000) }
    @inlinable public static func milliseconds(_ n: Int64) -> TimeSpan { TimeSpan(n, 1_000_000) }
    @inlinable public static func seconds(_ n: Int64) -> TimeSpan { TimeSpan(n, 1_000_000_000) }
    /// Saturates: figures come from clients, servers and files.
    @inlinable init(_ n: Int64, _ unit: Int64) {
        let (product, overflow) = n.multipliedReportingOverflow(by: unit)
        nanoseconds = overflow ? (n < 0 ? .min : .max) : product
    }
    /// Saturates; what is no number is no time.
    @inlinable public init(clampingNanoseconds nanoseconds: Double) {
        self.nanoseconds = nanoseconds.isNaN ? 0 : nanoseconds >= 0x1p63 ? .max : nanoseconds < -0x1p63 ? .min : Int64(nanoseconds)
    }
    @inlinable public var milliseconds: Int64 { nanoseconds / 1_000_000 }
    @inlinable public var seconds: Double { Double(nanoseconds) / 1e9 }
    @inlinable public static func < (a: TimeSpan, b: TimeSpan) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable public static func + (a: TimeSpan, b: TimeSpan) -> TimeSpan { TimeSpan(nanoseconds: a.nanoseconds &+ b.nanoseconds) }
    @inlinable public static func * (a: TimeSpan, n: Int64) -> TimeSpan { TimeSpan(nanoseconds: a.nanoseconds &* n) }
    @inlinable public static func / (a: TimeSpan, n: Int64) -> TimeSpan { TimeSpan(nanoseconds: a.nanoseconds / n) }
}

/// A wall-clock reading in milliseconds since 1970 (UTC). For people; never used for a decision.
public struct WallTime: Hashable, Comparable, Sendable {
    public var milliseconds: Int64
    @inlinable public init(milliseconds: Int64) { self.milliseconds = milliseconds }
    public static let unknown = WallTime(milliseconds: 0)
    @inlinable public static func < (a: WallTime, b: WallTime) -> Bool { a.milliseconds < b.milliseconds }
}
