import Base

/// Key -> history, as a copy-on-write B+tree: a copy of this struct is O(1) and stays as it is while the original goes on;
/// a change copies only the nodes on its path that a copy still shares.
///
/// Invariant: of all copies only the newest is written to (the rows inside `KeyEntry` are shared and grow in one line).
struct KeyIndex: Sendable {
    /// Keys in a leaf and children of an inner node. The first put behind a snapshot copies one node per level and touches
    /// the reference count of every child (a cache miss each) and of every key with older changes: hence small nodes.
    static let maxLeafCount = 32
    static let maxInnerCount = 16
    /// Nodes with more key bytes than this split early: huge keys must not make an insertion move megabytes.
    static let maxKeyBytes = 16 << 10

    private var root = IndexNode(isLeaf: true)

    /// Keys alive in the newest revision.
    var liveCount: Int { root.live }

    func find(_ key: [UInt8]) -> KeyEntry? {
        key.withUnsafeBytes { find($0) }
    }

    func find(_ key: UnsafeRawBufferPointer) -> KeyEntry? {
        var node = root
        while !node.isLeaf { node = node.children[node.keys.upperBound(key)] }
        let (at, found) = node.keys.lowerBound(key)
        return found ? node.entries[at] : nil
    }

    /// Changes the entry of `key`, a new one when there is none. `body` must leave a recorded change in it.
    mutating func modify<R>(_ key: [UInt8], _ body: (inout KeyEntry) -> R) -> R {
        key.withUnsafeBytes { raw in
            if !isKnownUniquelyReferenced(&root) { root = root.copy() }
            let (result, _, appended) = root.modify(raw, body)
            if root.isOverfull {
                let (separator, right) = root.split(appended: appended)
                let left = root
                root = IndexNode(isLeaf: false)
                root.live = left.live + right.live
                root.children = [left, right]
                root.keys.append(separator)
            }
            return result
        }
    }

    /// Takes the key out. Precondition: it is there.
    mutating func remove(_ key: [UInt8]) {
        key.withUnsafeBytes { raw in
            if !isKnownUniquelyReferenced(&root) { root = root.copy() }
            _ = root.remove(raw)
            while !root.isLeaf && root.children.count == 1 {
                let only = root.children[0]
                root = only
            }
            if !root.isLeaf && root.children.isEmpty { root = IndexNode(isLeaf: true) }
        }
    }

    /// Lends keys and entries of `[start, end)` ascending, tombstoned ones included, until `body` returns false.
    func forEach(in bounds: KeyBounds, _ body: (UnsafeRawBufferPointer, UnsafePointer<KeyEntry>) -> Bool) {
        if bounds.isEmpty { return }
        bounds.start.withUnsafeBytes { start in
            if let end = bounds.end {
                end.withUnsafeBytes { end in _ = root.visit(from: start, to: end, body) }
            } else {
                _ = root.visit(from: start, to: nil, body)
            }
        }
    }

    /// Keys of `[start, end)` alive in the newest revision. O(log n).
    func liveCount(in bounds: KeyBounds) -> Int {
        if bounds.isEmpty { return 0 }
        let below = bounds.start.withUnsafeBytes { root.rank($0) }
        guard let end = bounds.end else { return root.live - below }
        return end.withUnsafeBytes { root.rank($0) } - below
    }

    /// Checks the tree's shape; for tests.
    func checkInvariants() {
        _ = root.check(isRoot: true)
    }
}

/// A node of the index.
///
/// `@unchecked Sendable`: written only while uniquely referenced, by the one owner of the newest `KeyIndex`.
private final class IndexNode: @unchecked Sendable {
    let isLeaf: Bool
    /// Leaf: the keys. Inner: separators; child i holds keys >= separator i - 1 and < separator i.
    var keys = KeyList()
    var entries: [KeyEntry] = []
    var children: [IndexNode] = []
    /// Live keys below.
    var live = 0

    init(isLeaf: Bool) { self.isLeaf = isLeaf }

    /// The arrays inside are copied when first written.
    func copy() -> IndexNode {
        let node = IndexNode(isLeaf: isLeaf)
        node.keys = keys
        node.entries = entries
        node.children = children
        node.live = live
        return node
    }

    var count: Int { isLeaf ? entries.count : children.count }

    var isOverfull: Bool {
        count > (isLeaf ? KeyIndex.maxLeafCount : KeyIndex.maxInnerCount) || (keys.byteCount > KeyIndex.maxKeyBytes && count >= (isLeaf ? 2 : 8))
    }

    private func uniqueChild(_ at: Int) -> IndexNode {
        if !isKnownUniquelyReferenced(&children[at]) { children[at] = children[at].copy() }
        return children[at]
    }

    /// `delta`: by how much the number of live keys changed. `appended`: the key went in behind all others.
    func modify<R>(_ key: UnsafeRawBufferPointer, _ body: (inout KeyEntry) -> R) -> (result: R, delta: Int, appended: Bool) {
        if isLeaf {
            let (at, found) = keys.lowerBound(key)
            if found {
                let before = entries[at].isLive ? 1 : 0
                let result = body(&entries[at])
                let delta = (entries[at].isLive ? 1 : 0) - before
                live += delta
                return (result, delta, false)
            }
            var entry = KeyEntry()
            let result = body(&entry)
            keys.insert(key, at: at)
            entries.insert(entry, at: at)
            let delta = entry.isLive ? 1 : 0
            live += delta
            return (result, delta, at == entries.count - 1)
        }
        let at = keys.upperBound(key)
        let child = uniqueChild(at)
        let (result, delta, appended) = child.modify(key, body)
        live += delta
        if child.isOverfull {
            let (separator, right) = child.split(appended: appended)
            separator.withUnsafeBytes { keys.insert($0, at: at) }
            children.insert(right, at: at + 1)
        }
        return (result, delta, appended && at == children.count - 1)
    }

    /// Moves the upper part into a new node. When keys arrive in ascending order the left part stays full.
    func split(appended: Bool) -> (separator: [UInt8], right: IndexNode) {
        let right = IndexNode(isLeaf: isLeaf)
        let at = appended ? count - max(1, count / 16) : count / 2
        if isLeaf {
            let separator = keys.withKey(at - 1) { low in
                keys.withKey(at) { high in shortestSeparator(low, high) }
            }
            right.keys = keys.split(at: at)
            right.entries = Array(entries[at...])
            entries.removeSubrange(at...)
            right.live = right.entries.reduce(0) { $0 + ($1.isLive ? 1 : 0) }
            live -= right.live
            return (separator, right)
        }
        // Separator at - 1 parts the two halves and moves up.
        right.keys = keys.split(at: at)
        let separator = keys.key(at - 1)
        keys.remove(at: at - 1)
        right.children = Array(children[at...])
        children.removeSubrange(at...)
        right.live = right.children.reduce(0) { $0 + $1.live }
        live -= right.live
        return (separator, right)
    }

    func remove(_ key: UnsafeRawBufferPointer) -> Int {
        if isLeaf {
            let (at, found) = keys.lowerBound(key)
            precondition(found, "removal of a key that the index does not hold")
            let delta = entries[at].isLive ? -1 : 0
            keys.remove(at: at)
            entries.remove(at: at)
            live += delta
            return delta
        }
        let at = keys.upperBound(key)
        let child = uniqueChild(at)
        let delta = child.remove(key)
        live += delta
        if child.count == 0 {
            children.remove(at: at)
            if keys.count > 0 { keys.remove(at: max(0, at - 1)) }
        } else if child.count < (child.isLeaf ? KeyIndex.maxLeafCount : KeyIndex.maxInnerCount) / 4 {
            if at + 1 < children.count { mergeIfSmall(at) } else if at > 0 { mergeIfSmall(at - 1) }
        }
        return delta
    }

    /// Joins children `at` and `at + 1` when the result leaves room to grow.
    private func mergeIfSmall(_ at: Int) {
        let right = children[at + 1]
        guard children[at].count + right.count <= (right.isLeaf ? KeyIndex.maxLeafCount : KeyIndex.maxInnerCount) * 3 / 4,
              children[at].keys.byteCount + right.keys.byteCount <= KeyIndex.maxKeyBytes / 2
        else { return }
        let left = uniqueChild(at)
        if !left.isLeaf { left.keys.append(keys.key(at)) }
        left.keys.append(right.keys)
        left.entries += right.entries
        left.children += right.children
        left.live += right.live
        children.remove(at: at + 1)
        keys.remove(at: at)
    }

    /// `start` empty or `end` nil: no bound on that side. Returns false when `body` stopped the walk.
    func visit(
        from start: UnsafeRawBufferPointer?, to end: UnsafeRawBufferPointer?, _ body: (UnsafeRawBufferPointer, UnsafePointer<KeyEntry>) -> Bool
    ) -> Bool {
        if isLeaf {
            let first = start.map { keys.lowerBound($0).at } ?? 0
            let last = end.map { keys.lowerBound($0).at } ?? entries.count
            // By pointer: passing a copy of each entry would count references up and down.
            return entries.withUnsafeBufferPointer { entries in
                var at = first
                while at < last {
                    if !keys.withKey(at, { body($0, entries.baseAddress! + at) }) { return false }
                    at += 1
                }
                return true
            }
        }
        let first = start.map { keys.upperBound($0) } ?? 0
        let last = end.map { keys.lowerBound($0).at } ?? children.count - 1
        if first > last { return true }
        for at in first...last {
            if !children[at].visit(from: at == first ? start : nil, to: at == last ? end : nil, body) { return false }
        }
        return true
    }

    /// Live keys < `key`.
    func rank(_ key: UnsafeRawBufferPointer) -> Int {
        var sum = 0
        var node = self
        while !node.isLeaf {
            let at = node.keys.upperBound(key)
            for before in 0..<at { sum += node.children[before].live }
            node = node.children[at]
        }
        let at = node.keys.lowerBound(key).at
        for before in 0..<at where node.entries[before].isLive { sum += 1 }
        return sum
    }

    /// Returns (height, first key, last key).
    func check(isRoot: Bool) -> (height: Int, bounds: (first: [UInt8], last: [UInt8])?) {
        if isLeaf {
            precondition(keys.count == entries.count && children.isEmpty)
            precondition(isRoot || !entries.isEmpty, "empty leaf")
            precondition(live == entries.filter(\.isLive).count, "leaf counts \(live) live keys")
            for at in 0..<max(0, keys.count - 1) { precondition(compareBytes(keys.key(at), keys.key(at + 1)) < 0) }
            return (0, keys.count == 0 ? nil : (keys.key(0), keys.key(keys.count - 1)))
        }
        precondition(keys.count == children.count - 1 && entries.isEmpty, "\(keys.count) separators, \(children.count) children")
        precondition(live == children.reduce(0) { $0 + $1.live }, "inner node counts \(live) live keys")
        let parts = children.map { $0.check(isRoot: false) }
        precondition(Set(parts.map(\.height)).count == 1, "leaves at different depths")
        for at in 0..<keys.count {
            precondition(compareBytes(parts[at].bounds!.last, keys.key(at)) < 0, "separator not above its left child")
            precondition(compareBytes(keys.key(at), parts[at + 1].bounds!.first) <= 0, "separator above its right child")
        }
        return (parts[0].height + 1, (parts[0].bounds!.first, parts[parts.count - 1].bounds!.last))
    }
}

/// The shortest byte string s with low < s <= high, for low < high.
private func shortestSeparator(_ low: UnsafeRawBufferPointer, _ high: UnsafeRawBufferPointer) -> [UInt8] {
    var common = 0
    while common < low.count && common < high.count && low[common] == high[common] { common += 1 }
    return [UInt8](high[0..<min(common + 1, high.count)])
}
