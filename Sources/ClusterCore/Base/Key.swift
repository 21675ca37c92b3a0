#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Compares two byte strings as memcmp does, a shorter prefix first. Negative, zero or positive.
@inlinable
public func compareBytes(_ a: [UInt8], _ b: [UInt8]) -> Int {
    let order = a.withUnsafeBufferPointer { x in
        b.withUnsafeBufferPointer { y in
            let n = min(x.count, y.count)
            return n == 0 ? 0 : Int(memcmp(x.baseAddress!, y.baseAddress!, n))
        }
    }
    return order != 0 ? order : a.count - b.count
}

/// Compares two borrowed byte strings as memcmp does, a shorter prefix first. Negative, zero or positive.
@inlinable
public func compareBytes(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Int {
    let n = min(a.count, b.count)
    let order = n == 0 ? 0 : Int(memcmp(a.baseAddress!, b.baseAddress!, n))
    return order != 0 ? order : a.count - b.count
}

/// A key of the store: any bytes, ordered byte by byte.
public struct Key: Hashable, Comparable, Sendable {
    public var bytes: [UInt8]
    @inlinable public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public init(_ text: String) { self.bytes = Array(text.utf8) }
    @inlinable public static func < (a: Key, b: Key) -> Bool { compareBytes(a.bytes, b.bytes) < 0 }
    @inlinable public static func == (a: Key, b: Key) -> Bool { a.bytes == b.bytes }
    /// All bytes at once; the synthesised version feeds them one by one.
    @inlinable public func hash(into hasher: inout Hasher) { bytes.withUnsafeBytes { hasher.combine(bytes: $0) } }
}

/// The keys that a request names. (etcd's `key` and `range_end` rule)
public enum KeyRange: Hashable, Sendable {
    /// Exactly this key.
    case single(Key)
    /// `[start, end)`; empty when `end <= start`.
    case bounded(start: Key, end: Key)
    /// Every key >= start.
    case from(Key)

    /// Reads the wire form: an empty `rangeEnd` means the single key, one zero byte means "to the end".
    @inlinable public init(key: [UInt8], rangeEnd: [UInt8]) {
        if rangeEnd.isEmpty {
            self = .single(Key(key))
        } else if rangeEnd.count == 1 && rangeEnd[0] == 0 {
            self = .from(Key(key))
        } else {
            self = .bounded(start: Key(key), end: Key(rangeEnd))
        }
    }

    /// Every key that begins with `prefix`; an empty prefix means every key.
    public static func prefix(_ prefix: Key) -> KeyRange {
        if prefix.bytes.isEmpty { return .from(Key([0])) }
        guard let end = prefixEnd(prefix.bytes) else { return .from(prefix) }
        return .bounded(start: prefix, end: Key(end))
    }

    /// The smallest byte string above every string that begins with `prefix`; nil when there is none (all 0xff).
    public static func prefixEnd(_ prefix: [UInt8]) -> [UInt8]? {
        var end = prefix
        while let last = end.last {
            if last < 0xff {
                end[end.count - 1] = last + 1
                return end
            }
            end.removeLast()
        }
        return nil
    }

    @inlinable public var start: Key {
        switch self {
        case .single(let key), .from(let key): key
        case .bounded(let start, _): start
        }
    }

    @inlinable public func contains(_ key: Key) -> Bool {
        switch self {
        case .single(let only): key == only
        case .from(let start): !(key < start)
        case .bounded(let start, let end): !(key < start) && key < end
        }
    }

    /// The `range_end` of the wire form.
    public var wireRangeEnd: [UInt8] {
        switch self {
        case .single: []
        case .from: [0]
        case .bounded(_, let end): end.bytes
        }
    }
}
