/// A set of keys made of ranges, kept as ascending disjoint half-open intervals: membership costs one binary search.
public struct KeyRangeSet: Sendable {
    private struct Interval {
        var start: [UInt8]
        /// nil: no upper end.
        var end: [UInt8]?
    }
    private var intervals: [Interval] = []

    public init() {}
    public init(_ ranges: [KeyRange]) {
        for range in ranges { insert(range) }
    }

    public var isEmpty: Bool { intervals.isEmpty }

    public mutating func insert(_ range: KeyRange) {
        switch range {
        case .single(let key): insert(start: key.bytes, end: key.bytes + [0])
        case .bounded(let start, let end): insert(start: start.bytes, end: end.bytes)
        case .from(let start): insert(start: start.bytes, end: nil)
        }
    }

    /// An interval whose end is not above its start is empty and changes nothing.
    public mutating func insert(start: [UInt8], end: [UInt8]?) {
        if let end, compareBytes(end, start) <= 0 { return }
        // Everything that touches the new interval melts into it.
        let first = partition { interval in
            guard let intervalEnd = interval.end else { return false }
            return compareBytes(intervalEnd, start) < 0
        }
        let last = partition { interval in
            guard let end else { return true }
            return compareBytes(interval.start, end) <= 0
        }
        var merged = Interval(start: start, end: end)
        if first < last {
            if compareBytes(intervals[first].start, start) < 0 { merged.start = intervals[first].start }
            if let mergedEnd = merged.end {
                if let lastEnd = intervals[last - 1].end {
                    if compareBytes(lastEnd, mergedEnd) > 0 { merged.end = lastEnd }
                } else {
                    merged.end = nil
                }
            }
        }
        intervals.replaceSubrange(first..<last, with: CollectionOfOne(merged))
    }

    public mutating func formUnion(_ other: KeyRangeSet) {
        for interval in other.intervals { insert(start: interval.start, end: interval.end) }
    }

    public func contains(_ key: [UInt8]) -> Bool {
        key.withUnsafeBytes { contains($0) }
    }

    public func contains(_ key: UnsafeRawBufferPointer) -> Bool {
        // The last interval that starts at or before the key.
        let after = partition { $0.start.withUnsafeBytes { compareBytes($0, key) } <= 0 }
        guard after > 0 else { return false }
        guard let end = intervals[after - 1].end else { return true }
        return end.withUnsafeBytes { compareBytes(key, $0) } < 0
    }

    /// Whether the set holds every key that `range` can name. Of a range that can hold no key the set must hold the start, and begin
    /// before the end: what etcd's interval tree comes to there, and no key depends on it.
    public func covers(_ range: KeyRange) -> Bool {
        let start = range.start.bytes
        let after = partition { compareBytes($0.start, start) <= 0 }
        guard after > 0 else { return false }
        let interval = intervals[after - 1]
        guard let end = interval.end else {
            if case .bounded(_, let rangeEnd) = range { return compareBytes(interval.start, rangeEnd.bytes) < 0 }
            return true
        }
        guard compareBytes(start, end) < 0 else { return false }
        switch range {
        case .single: return true
        case .from: return false
        case .bounded(_, let rangeEnd): return compareBytes(rangeEnd.bytes, end) <= 0 && compareBytes(interval.start, rangeEnd.bytes) < 0
        }
    }

    /// Calls `body` with each disjoint range, ascending.
    public func forEach(_ body: (KeyBounds) -> Void) {
        for interval in intervals { body(KeyBounds(start: interval.start, end: interval.end)) }
    }

    /// The number of leading intervals for which `isBefore` holds.
    private func partition(_ isBefore: (Interval) -> Bool) -> Int {
        var low = 0
        var high = intervals.count
        while low < high {
            let middle = (low + high) / 2
            if isBefore(intervals[middle]) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// `[start, end)`; no `end`: unbounded.
public struct KeyBounds: Sendable {
    public var start: [UInt8]
    public var end: [UInt8]?

    @inlinable public init(start: [UInt8], end: [UInt8]?) {
        self.start = start
        self.end = end
    }

    @inlinable public init(_ range: KeyRange) {
        switch range {
        case .single(let key): self.init(start: key.bytes, end: key.bytes + [0])
        case .bounded(let start, let end): self.init(start: start.bytes, end: end.bytes)
        case .from(let start): self.init(start: start.bytes, end: nil)
        }
    }

    public static let everything = KeyBounds(start: [], end: nil)

    @inlinable public var isEmpty: Bool {
        guard let end else { return false }
        return compareBytes(end, start) <= 0
    }
}
