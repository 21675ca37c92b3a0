import Base

/// Ascending keys in one block of bytes: a node of the index copies it with one memcpy, and a search touches adjacent
/// memory instead of one heap object per key.
struct KeyList {
    private(set) var bytes: [UInt8] = []
    private var ends: [UInt32] = []

    var count: Int { ends.count }
    var byteCount: Int { bytes.count }

    private func start(_ at: Int) -> Int { at == 0 ? 0 : Int(ends[at - 1]) }

    /// Lends the key at `at`.
    func withKey<R>(_ at: Int, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        let range = start(at)..<Int(ends[at])
        return bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[range])) }
    }

    func key(_ at: Int) -> [UInt8] { withKey(at) { [UInt8]($0) } }

    /// The number of keys < `key`, and whether the next one equals it.
    func lowerBound(_ key: UnsafeRawBufferPointer) -> (at: Int, found: Bool) {
        bytes.withUnsafeBytes { all in
            ends.withUnsafeBufferPointer { ends in
                var low = 0
                var high = ends.count
                while low < high {
                    let middle = (low &+ high) >> 1
                    let from = middle == 0 ? 0 : Int(ends[middle &- 1])
                    let order = compareBytes(UnsafeRawBufferPointer(rebasing: all[from..<Int(ends[middle])]), key)
                    if order == 0 { return (middle, true) }
                    if order < 0 { low = middle &+ 1 } else { high = middle }
                }
                return (low, false)
            }
        }
    }

    /// The number of keys <= `key`.
    func upperBound(_ key: UnsafeRawBufferPointer) -> Int {
        let (at, found) = lowerBound(key)
        return found ? at + 1 : at
    }

    mutating func insert(_ key: UnsafeRawBufferPointer, at: Int) {
        let from = start(at)
        bytes.insert(contentsOf: key, at: from)
        ends.insert(UInt32(from), at: at)
        shift(from: at, by: key.count)
    }

    mutating func append(_ other: KeyList) {
        let base = UInt32(bytes.count)
        bytes.append(contentsOf: other.bytes)
        for end in other.ends { ends.append(base + end) }
    }

    mutating func append(_ key: [UInt8]) {
        bytes.append(contentsOf: key)
        ends.append(UInt32(bytes.count))
    }

    mutating func remove(at: Int) {
        let range = start(at)..<Int(ends[at])
        bytes.removeSubrange(range)
        ends.remove(at: at)
        shift(from: at, by: -range.count)
    }

    /// Keeps the first `at` keys and returns the others.
    mutating func split(at: Int) -> KeyList {
        var tail = KeyList()
        let from = start(at)
        tail.bytes = Array(bytes[from...])
        tail.ends = ends[at...].map { $0 - UInt32(from) }
        bytes.removeSubrange(from...)
        ends.removeSubrange(at...)
        return tail
    }

    private mutating func shift(from: Int, by distance: Int) {
        ends.withUnsafeMutableBufferPointer { ends in
            for at in from..<ends.count { ends[at] = UInt32(Int(ends[at]) + distance) }
        }
    }
}
