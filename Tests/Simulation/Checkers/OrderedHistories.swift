import Base

/// A revision of one key: what a put left, or nothing after a deletion.
struct KeyVersion: Sendable {
    var main: Int64
    var kv: SeenKeyValue?
}

/// All remembered versions of one key, oldest first.
struct KeyHistory: Sendable {
    let key: [UInt8]
    /// The first `head` of them are forgotten; they go in bulk, so that forgetting one at a time stays cheap.
    private var versions: [KeyVersion] = []
    private var head = 0

    init(key: [UInt8]) { self.key = key }

    var newest: SeenKeyValue? { versions.last?.kv }
    var newestMain: Int64 { versions.last?.main ?? 0 }

    mutating func append(_ version: KeyVersion) { versions.append(version) }

    /// The key-value visible at `revision`; of several changes in one revision the last.
    func visible(at revision: Int64) -> SeenKeyValue? {
        guard let last = versions.last else { return nil }
        if last.main <= revision { return last.kv }
        var low = head
        var high = versions.count
        while low < high {
            let middle = (low + high) / 2
            if versions[middle].main <= revision { low = middle + 1 } else { high = middle }
        }
        return low == head ? nil : versions[low - 1].kv
    }

    /// Keeps what reads at `floor` and above need. False when nothing is left: the key has been deleted since before `floor`.
    mutating func forget(below floor: Int64) -> Bool {
        while head + 1 < versions.count, versions[head + 1].main <= floor { head += 1 }
        if head > 32, head * 2 > versions.count {
            versions.removeFirst(head)
            head = 0
        }
        return !(head + 1 == versions.count && versions[head].kv == nil && versions[head].main <= floor)
    }
}

/// Keys in order with their histories: a row of sorted chunks, so that a new key moves few others.
struct OrderedHistories: Sendable {
    private static let maxChunk = 128
    /// No chunk is empty.
    private var chunks: [[KeyHistory]] = []

    var count: Int { chunks.reduce(0) { $0 + $1.count } }

    /// The last chunk that begins at or before `key`; 0 when there is none.
    private func chunk(of key: [UInt8]) -> Int {
        var low = 0
        var high = chunks.count
        while low < high {
            let middle = (low + high) / 2
            if compareBytes(chunks[middle][0].key, key) <= 0 { low = middle + 1 } else { high = middle }
        }
        return max(0, low - 1)
    }

    /// The first position in the chunk whose key is not below `key`.
    private func position(of key: [UInt8], in chunk: Int) -> (index: Int, found: Bool) {
        var low = 0
        var high = chunks[chunk].count
        while low < high {
            let middle = (low + high) / 2
            let order = compareBytes(chunks[chunk][middle].key, key)
            if order == 0 { return (middle, true) }
            if order < 0 { low = middle + 1 } else { high = middle }
        }
        return (low, false)
    }

    func visible(_ key: [UInt8], at revision: Int64) -> SeenKeyValue? {
        guard !chunks.isEmpty else { return nil }
        let c = chunk(of: key)
        let (i, found) = position(of: key, in: c)
        return found ? chunks[c][i].visible(at: revision) : nil
    }

    func newest(_ key: [UInt8]) -> SeenKeyValue? {
        guard !chunks.isEmpty else { return nil }
        let c = chunk(of: key)
        let (i, found) = position(of: key, in: c)
        return found ? chunks[c][i].newest : nil
    }

    /// Walks the histories of `[start, end)`, ascending; `end` nil: to the last. Stops when `body` returns false.
    func forEach(from start: [UInt8], to end: [UInt8]?, _ body: (KeyHistory) -> Bool) {
        guard !chunks.isEmpty else { return }
        var c = chunk(of: start)
        var i = position(of: start, in: c).index
        while c < chunks.count {
            while i < chunks[c].count {
                if let end, compareBytes(chunks[c][i].key, end) >= 0 { return }
                guard body(chunks[c][i]) else { return }
                i += 1
            }
            c += 1
            i = 0
        }
    }

    mutating func append(_ key: [UInt8], _ version: KeyVersion) {
        guard !chunks.isEmpty else {
            var history = KeyHistory(key: key)
            history.append(version)
            chunks = [[history]]
            return
        }
        let c = chunk(of: key)
        let (i, found) = position(of: key, in: c)
        if found {
            chunks[c][i].append(version)
            return
        }
        var history = KeyHistory(key: key)
        history.append(version)
        chunks[c].insert(history, at: i)
        if chunks[c].count > Self.maxChunk {
            let upper = Array(chunks[c][(chunks[c].count / 2)...])
            chunks[c].removeLast(upper.count)
            chunks.insert(upper, at: c + 1)
        }
    }

    /// Forgets versions of `key` that no read at `floor` or above sees.
    mutating func forget(_ key: [UInt8], below floor: Int64) {
        guard !chunks.isEmpty else { return }
        let c = chunk(of: key)
        let (i, found) = position(of: key, in: c)
        guard found, !chunks[c][i].forget(below: floor) else { return }
        chunks[c].remove(at: i)
        if chunks[c].isEmpty { chunks.remove(at: c) }
    }
}
