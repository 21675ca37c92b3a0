import Base

/// Finds the watchers that watch a key: exact keys by dictionary (looked up, never walked), ranges by an interval tree.
///
/// Watchers with equal ranges share one node, so that a thousand watchers of one prefix cost one visit. The tree is a
/// treap whose priorities come from a counter: its shape, like every result, depends on the calls alone.
/// Insertion and removal O(log n), a lookup O(log n + matching ranges).
struct WatchIndex {
    private var exact: [Key: [Watcher]] = [:]
    private var nodes: [Node] = []
    private var freeNodes: [Int32] = []
    private var root: Int32 = -1
    private var prioritiesDrawn: UInt64 = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// A range and its watchers, ordered by creation. `end` nil: to the end of the key space.
    private struct Node {
        var start: Key
        var end: Key?
        /// The greatest end of the subtree; nil when some range in it goes to the end of the key space.
        var maxEnd: Key?
        var left: Int32 = -1
        var right: Int32 = -1
        var priority: UInt64
        var watchers: [Watcher]
    }

    mutating func insert(_ watcher: Watcher) {
        count += 1
        switch watcher.range {
        case .single(let key): exact[key, default: []].insertInOrder(watcher)
        case .from(let start): insertRange(start, nil, watcher)
        case .bounded(let start, let end): insertRange(start, end, watcher)
        }
    }

    mutating func remove(_ watcher: Watcher) {
        count -= 1
        switch watcher.range {
        case .single(let key):
            guard let place = exact.index(forKey: key) else { preconditionFailure("watcher \(watcher.sequence) is not in the index") }
            exact.values[place].removeInOrder(watcher)
            if exact.values[place].isEmpty { exact.remove(at: place) }
        case .from(let start): removeRange(start, nil, watcher)
        case .bounded(let start, let end): removeRange(start, end, watcher)
        }
    }

    /// Appends every watcher of `key` to `found`, ordered by creation.
    func collect(_ key: Key, into found: inout [Watcher]) {
        let first = found.count
        var groups = 0
        if !exact.isEmpty, let watchers = exact[key] {
            found.append(contentsOf: watchers)
            groups += 1
        }
        visit(root, key, &found, &groups)
        if groups > 1 {
            found[first...].sort { $0.sequence < $1.sequence }
        }
    }

    private func visit(_ tree: Int32, _ key: Key, _ found: inout [Watcher], _ groups: inout Int) {
        guard tree >= 0 else { return }
        let at = Int(tree)
        if let maxEnd = nodes[at].maxEnd, !(key < maxEnd) { return }
        visit(nodes[at].left, key, &found, &groups)
        // Every start in the right subtree is at least this one.
        if key < nodes[at].start { return }
        if nodes[at].end.map({ key < $0 }) ?? true {
            found.append(contentsOf: nodes[at].watchers)
            groups += 1
        }
        visit(nodes[at].right, key, &found, &groups)
    }

    // MARK: the treap

    private mutating func insertRange(_ start: Key, _ end: Key?, _ watcher: Watcher) {
        let existing = find(start, end)
        if existing >= 0 {
            nodes[Int(existing)].watchers.insertInOrder(watcher)
            return
        }
        prioritiesDrawn += 1
        let node = Node(start: start, end: end, maxEnd: end, priority: scrambled(prioritiesDrawn), watchers: [watcher])
        let id: Int32
        if let free = freeNodes.popLast() {
            nodes[Int(free)] = node
            id = free
        } else {
            id = Int32(nodes.count)
            nodes.append(node)
        }
        root = inserted(id, under: root)
    }

    private mutating func removeRange(_ start: Key, _ end: Key?, _ watcher: Watcher) {
        let id = find(start, end)
        precondition(id >= 0, "watcher \(watcher.sequence) is not in the index")
        nodes[Int(id)].watchers.removeInOrder(watcher)
        guard nodes[Int(id)].watchers.isEmpty else { return }
        root = removed(id, from: root)
        nodes[Int(id)] = Node(start: Key([]), end: nil, maxEnd: nil, priority: 0, watchers: [])
        freeNodes.append(id)
    }

    private func find(_ start: Key, _ end: Key?) -> Int32 {
        var at = root
        while at >= 0 {
            let order = compare(start, end, nodes[Int(at)].start, nodes[Int(at)].end)
            if order == 0 { return at }
            at = order < 0 ? nodes[Int(at)].left : nodes[Int(at)].right
        }
        return -1
    }

    private mutating func inserted(_ id: Int32, under tree: Int32) -> Int32 {
        guard tree >= 0 else { return id }
        let at = Int(tree), new = Int(id)
        if compare(nodes[new].start, nodes[new].end, nodes[at].start, nodes[at].end) < 0 {
            let child = inserted(id, under: nodes[at].left)
            nodes[at].left = child
            if nodes[Int(child)].priority > nodes[at].priority {
                nodes[at].left = nodes[Int(child)].right
                nodes[Int(child)].right = tree
                refresh(tree)
                refresh(child)
                return child
            }
        } else {
            let child = inserted(id, under: nodes[at].right)
            nodes[at].right = child
            if nodes[Int(child)].priority > nodes[at].priority {
                nodes[at].right = nodes[Int(child)].left
                nodes[Int(child)].left = tree
                refresh(tree)
                refresh(child)
                return child
            }
        }
        refresh(tree)
        return tree
    }

    private mutating func removed(_ id: Int32, from tree: Int32) -> Int32 {
        let at = Int(tree), old = Int(id)
        if tree == id { return merged(nodes[at].left, nodes[at].right) }
        if compare(nodes[old].start, nodes[old].end, nodes[at].start, nodes[at].end) < 0 {
            nodes[at].left = removed(id, from: nodes[at].left)
        } else {
            nodes[at].right = removed(id, from: nodes[at].right)
        }
        refresh(tree)
        return tree
    }

    private mutating func merged(_ a: Int32, _ b: Int32) -> Int32 {
        if a < 0 { return b }
        if b < 0 { return a }
        if nodes[Int(a)].priority > nodes[Int(b)].priority {
            nodes[Int(a)].right = merged(nodes[Int(a)].right, b)
            refresh(a)
            return a
        }
        nodes[Int(b)].left = merged(a, nodes[Int(b)].left)
        refresh(b)
        return b
    }

    private mutating func refresh(_ tree: Int32) {
        let at = Int(tree)
        var greatest = nodes[at].end
        for child in [nodes[at].left, nodes[at].right] where child >= 0 {
            guard let mine = greatest else { break }
            guard let theirs = nodes[Int(child)].maxEnd else {
                greatest = nil
                break
            }
            if mine < theirs { greatest = theirs }
        }
        nodes[at].maxEnd = greatest
    }

    /// By start, then by end with "no end" last.
    private func compare(_ aStart: Key, _ aEnd: Key?, _ bStart: Key, _ bEnd: Key?) -> Int {
        let order = compareBytes(aStart.bytes, bStart.bytes)
        if order != 0 { return order }
        switch (aEnd, bEnd) {
        case (nil, nil): return 0
        case (nil, _): return 1
        case (_, nil): return -1
        case (let a?, let b?): return compareBytes(a.bytes, b.bytes)
        }
    }

    /// SplitMix64's finaliser: spreads a counter over all bits.
    private func scrambled(_ counter: UInt64) -> UInt64 {
        var z = counter &* 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// The height of the tree, for tests.
    var height: Int {
        func height(_ tree: Int32) -> Int {
            tree < 0 ? 0 : 1 + max(height(nodes[Int(tree)].left), height(nodes[Int(tree)].right))
        }
        return height(root)
    }
}

extension Array where Element == Watcher {
    /// The place of the first watcher that was created no earlier than `sequence`.
    private func place(of sequence: UInt64) -> Int {
        // Nearly always the newest.
        if let last, last.sequence < sequence { return count }
        var low = 0, high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle].sequence < sequence { low = middle + 1 } else { high = middle }
        }
        return low
    }

    mutating func insertInOrder(_ watcher: Watcher) {
        insert(watcher, at: place(of: watcher.sequence))
    }

    mutating func removeInOrder(_ watcher: Watcher) {
        let at = place(of: watcher.sequence)
        precondition(at < count && self[at] === watcher, "watcher \(watcher.sequence) is not in its list")
        remove(at: at)
    }
}
