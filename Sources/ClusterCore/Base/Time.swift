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

extension TimeSpan {
    /// Go's notation: "300ms", "1.5h", "-1h30m", "0"; nil for anything else, and beyond some centuries.
    public init?(goDuration text: String) {
        var rest = text[...]
        var isNegative = false
        if let sign = rest.first, sign == "-" || sign == "+" {
            isNegative = sign == "-"
            rest.removeFirst()
        }
        if rest == "0" {
            self = .zero
            return
        }
        guard !rest.isEmpty else { return nil }
        var total = 0.0
        while !rest.isEmpty {
            let number = rest.prefix { $0 == "." || ("0"..."9").contains($0) }
            rest = rest.dropFirst(number.count)
            let unit = rest.prefix { $0 != "." && !("0"..."9").contains($0) }
            rest = rest.dropFirst(unit.count)
            // A dot at the start or the end is legal in Go, alone it is not.
            guard number.contains(where: { $0 != "." }), let count = Double(number.hasPrefix(".") ? "0" + number : String(number.hasSuffix(".") ? number.dropLast() : number)),
                  let scale = ["ns": 1.0, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9, "m": 6e10, "h": 3.6e12][String(unit)] else { return nil }
            total += count * scale
        }
        guard total < Double(Int64.max) else { return nil }
        self = TimeSpan(nanoseconds: isNegative ? -Int64(total) : Int64(total))
    }
}

/// A wall-clock reading in milliseconds since 1970 (UTC). For people; never used for a decision.
public struct WallTime: Hashable, Comparable, Sendable {
    public var milliseconds: Int64
    @inlinable public init(milliseconds: Int64) { self.milliseconds = milliseconds }
    public static let unknown = WallTime(milliseconds: 0)
    @inlinable public static func < (a: WallTime, b: WallTime) -> Bool { a.milliseconds < b.milliseconds }
}
