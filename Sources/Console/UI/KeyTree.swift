/// A row of the key list.
struct KeyRow: Hashable, Sendable {
    enum Kind: Hashable, Sendable {
        case directory(isExpanded: Bool, keyCount: Int64?)
        case key(KeySummary)
        /// Children not loaded: those after `after` (exclusive) and before `before` (exclusive) below `prefix`.
        case gap(KeyGap)
    }

    /// The key, the directory's prefix with its separator, or the place of a gap: the smallest key it may contain.
    var path: KeyBytes
    var depth: Int
    var kind: Kind
    /// When a change was last seen here; drawn as Δ.
    var changedAt: Moment?
    /// The revision the row was read at: changes up to it are in its count already.
    var revision: Int64 = 0

    /// Order among rows of the same path: a directory before the gap at its start, before the key that is called like it.
    var rank: Int {
        switch kind {
        case .directory: 0
        case .gap: 1
        case .key: 2
        }
    }

    var isGap: Bool { if case .gap = kind { true } else { false } }
}

struct KeyGap: Hashable, Sendable {
    var prefix: KeyBytes
    var after: KeyBytes?
    var before: KeyBytes?
    var loading: DirectoryRequest?
    /// The child that the page under way ends at, when it ends inside the gap.
    var loadingUpTo: KeyBytes?
    var failure: String?
}

/// The loaded part of a key space, as the list of rows that a person sees.
///
/// Rows in the order of the tree are rows in the order of their bytes (a directory `a/` sorts before everything in it and after its
/// smaller siblings), so the whole tree is one sorted array: finding a key is a binary search, drawing a page is a slice.
/// What is not loaded is a gap row; a gap that comes into sight asks for a page.
///
/// Invariant: rows are strictly ascending by (path, rank); no row lies inside the range of a gap; at most about `rowLimit` rows.
struct KeyTree: Hashable, Sendable {
    static let pageSize = 200
    /// More rows than this are given back as gaps, far from the selection.
    static let rowLimit = 20_000
    /// Changes kept to correct pages that were read before them.
    static let recentLimit = 4_096

    let root: KeyBytes
    /// nil: a flat list.
    let separator: UInt8?
    private(set) var rows: [KeyRow]
    private var recent: [KeyChange] = []

    init(root: KeyBytes, separator: UInt8?) {
        self.root = root
        self.separator = separator
        rows = [KeyRow(path: root, depth: 0, kind: .gap(KeyGap(prefix: root)))]
    }

    // MARK: Finding

    /// Index of the first row not before (path, rank).
    func position(of path: KeyBytes, rank: Int) -> Int {
        var low = 0, high = rows.count
        while low < high {
            let middle = (low + high) / 2
            let row = rows[middle]
            if row.path < path || (row.path == path && row.rank < rank) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func index(ofKey key: KeyBytes) -> Int? { index(of: key, rank: 2) }
    func index(ofDirectory prefix: KeyBytes) -> Int? { index(of: prefix, rank: 0) }

    private func index(of path: KeyBytes, rank: Int) -> Int? {
        let index = position(of: path, rank: rank)
        return index < rows.count && rows[index].path == path && rows[index].rank == rank ? index : nil
    }

    /// The gap below `prefix` that contains `path`, if any: it is the row just before the place of `path`.
    private func gap(containing path: KeyBytes, prefix: KeyBytes) -> Int? {
        let index = position(of: path, rank: 2) - 1
        guard index >= 0, case .gap(let gap) = rows[index].kind, gap.prefix == prefix else { return nil }
        if let before = gap.before, !(path < before) { return nil }
        return index
    }

    /// The directory or key row that `key` belongs to directly below `prefix`.
    private func child(of prefix: KeyBytes, towards key: KeyBytes) -> (path: KeyBytes, isDirectory: Bool) {
        if let separator {
            let start = prefix.bytes.count
            if let cut = key.bytes[start...].firstIndex(of: separator) { return (KeyBytes(Array(key.bytes[...cut])), true) }
        }
        return (key, false)
    }

    /// One past the last row below the directory at `index`.
    func endOfDirectory(_ index: Int) -> Int {
        let depth = rows[index].depth
        guard case .directory(isExpanded: true, _) = rows[index].kind else { return index + 1 }
        guard let end = rows[index].path.prefixEnd else { return rows.count }
        var last = position(of: end, rank: 0)
        // A gap that follows the directory has the directory's end as its place.
        while last > index + 1, rows[last - 1].depth <= depth { last -= 1 }
        return last
    }

    func parent(of index: Int) -> Int? {
        let depth = rows[index].depth
        guard depth > 0 else { return nil }
        let row = rows[index]
        let prefix: KeyBytes
        if case .gap(let gap) = row.kind { prefix = gap.prefix } else {
            guard let separator else { return nil }
            let own = row.rank == 0 ? row.path.bytes.dropLast() : row.path.bytes[...]
            guard let cut = own.lastIndex(of: separator) else { return nil }
            prefix = KeyBytes(Array(own[...cut]))
        }
        return self.index(ofDirectory: prefix)
    }

    // MARK: Opening and loading

    mutating func expand(_ index: Int) {
        guard case .directory(isExpanded: false, let count) = rows[index].kind else { return }
        rows[index].kind = .directory(isExpanded: true, keyCount: count)
        let prefix = rows[index].path
        rows.insert(KeyRow(path: prefix, depth: rows[index].depth + 1, kind: .gap(KeyGap(prefix: prefix))), at: index + 1)
    }

    /// Forgets what was loaded below a directory.
    mutating func collapse(_ index: Int) {
        guard case .directory(isExpanded: true, let count) = rows[index].kind else { return }
        rows.removeSubrange(index + 1..<endOfDirectory(index))
        rows[index].kind = .directory(isExpanded: false, keyCount: count)
    }

    /// The request that fills a gap from the side that a person looks from; nil when one is under way.
    mutating func load(gap index: Int, fromEnd: Bool) -> DirectoryRequest? {
        guard case .gap(var gap) = rows[index].kind, gap.loading == nil, gap.failure == nil else { return nil }
        let request = DirectoryRequest(prefix: gap.prefix, separator: separator, direction: fromEnd ? .backward : .forward,
                                       after: gap.after, before: gap.before, limit: KeyTree.pageSize)
        gap.loading = request
        rows[index].kind = .gap(gap)
        return request
    }

    /// Like `load`, but the page ends at `path`: used to show a key in the middle of what is not loaded.
    mutating func load(gap index: Int, upTo path: KeyBytes, isDirectory: Bool) -> DirectoryRequest? {
        guard case .gap(var gap) = rows[index].kind, gap.loading == nil else { return nil }
        var end = isDirectory ? path.prefixEnd : KeyBytes(path.bytes + [0])
        if let before = gap.before, end.map({ before < $0 }) ?? true { end = before }
        gap.loadingUpTo = path
        let request = DirectoryRequest(prefix: gap.prefix, separator: separator, direction: .backward, after: gap.after, before: end, limit: KeyTree.pageSize)
        gap.loading = request
        gap.failure = nil
        rows[index].kind = .gap(gap)
        return request
    }

    /// Lets a failed gap be asked for again.
    mutating func retry(gap index: Int) {
        guard case .gap(var gap) = rows[index].kind else { return }
        gap.failure = nil
        rows[index].kind = .gap(gap)
    }

    /// Puts a page in the place of its gap. A page nobody waits for any more (the directory was closed) is dropped.
    /// - Returns: false when it was dropped.
    mutating func insert(_ page: DirectoryPage) -> Bool {
        guard page.request.separator == separator,
              let index = rows.firstIndex(where: { if case .gap(let gap) = $0.kind { gap.loading == page.request } else { false } }),
              case .gap(var gap) = rows[index].kind else { return false }
        if let failure = page.failure {
            gap.loading = nil
            gap.failure = failure
            rows[index].kind = .gap(gap)
            return true
        }
        let depth = rows[index].depth
        var fresh: [KeyRow] = []
        fresh.reserveCapacity(page.entries.count + 2)
        func leftover(_ after: KeyBytes?, _ before: KeyBytes?) {
            fresh.append(KeyRow(path: KeyTree.place(prefix: gap.prefix, after: after, separator: separator), depth: depth,
                                kind: .gap(KeyGap(prefix: gap.prefix, after: after, before: before))))
        }
        let isForward = page.request.direction == .forward
        if !isForward, !page.isComplete { leftover(gap.after, page.entries.first?.path ?? page.request.before) }
        for entry in page.entries {
            switch entry {
            case .key(let summary): fresh.append(KeyRow(path: summary.key, depth: depth, kind: .key(summary), revision: page.revision))
            case .directory(let prefix, let count): fresh.append(KeyRow(path: prefix, depth: depth, kind: .directory(isExpanded: false, keyCount: count), revision: page.revision))
            }
        }
        // An empty page that is not complete would ask for itself again for ever.
        if isForward, !page.isComplete, let last = page.entries.last { leftover(last.path, gap.before) }
        // What lies behind the page starts after the child it was to end at, whether that exists or not.
        if !isForward, page.request.before != gap.before { leftover(gap.loadingUpTo ?? page.entries.last?.path ?? gap.after, gap.before) }
        rows.replaceSubrange(index...index, with: fresh)
        // What changed after the page was read and was already told: tell it again to the new rows.
        // Only inside the page's own range, since rows around it have followed already.
        let lower: KeyBytes = if isForward || page.isComplete { KeyTree.place(prefix: gap.prefix, after: gap.after, separator: separator) }
            else { page.entries.first?.path ?? page.request.before ?? gap.prefix }
        let upper: KeyBytes? = if isForward, !page.isComplete, let last = page.entries.last { KeyTree.place(prefix: gap.prefix, after: last.path, separator: separator) }
            else { page.request.before }
        let missed = recent.filter { change in
            let key = change.summary.key
            return change.summary.modRevision > page.revision && key.hasPrefix(gap.prefix) && !(key < lower) && upper.map { key < $0 } ?? true
        }
        if !missed.isEmpty { merge(missed, now: nil, below: gap.prefix, depth: depth) }
        return true
    }

    /// The smallest key a gap after `after` can contain.
    private static func place(prefix: KeyBytes, after: KeyBytes?, separator: UInt8?) -> KeyBytes {
        guard let after else { return prefix }
        if let separator, after.bytes.last == separator, after.bytes.count > prefix.bytes.count { return after.prefixEnd ?? KeyBytes(after.bytes + [0xff]) }
        return KeyBytes(after.bytes + [0])
    }

    /// Gives rows far from `keep` back when there are too many: whole runs of siblings become gaps again.
    /// - Returns: by how much the row at `keep` moved up.
    mutating func trim(around keep: Int) -> Int {
        guard rows.count > KeyTree.rowLimit, rows.indices.contains(keep) else { return 0 }
        let depth = rows[keep].depth
        let reach = KeyTree.rowLimit / 4
        var removed = 0
        let parent = self.parent(of: keep)
        let prefix = parent.map { rows[$0].path } ?? root
        let first = parent.map { $0 + 1 } ?? 0
        let end = parent.map { endOfDirectory($0) } ?? rows.count
        if end - keep > reach {
            var cut = keep + reach
            while cut < end, rows[cut].depth != depth || rows[cut].isGap { cut += 1 }
            if cut < end, cut > 0 {
                // The last sibling kept is the one that starts before the cut.
                var sibling = cut - 1
                while sibling > keep, rows[sibling].depth != depth { sibling -= 1 }
                var before: KeyBytes?
                if case .gap(let gap) = rows[end - 1].kind, gap.prefix == prefix { before = gap.before }
                let after = rows[sibling].path
                rows.replaceSubrange(cut..<end, with: [KeyRow(path: KeyTree.place(prefix: prefix, after: after, separator: separator), depth: depth, kind: .gap(KeyGap(prefix: prefix, after: after, before: before)))])
            }
        }
        if keep - first > reach {
            var cut = keep - reach
            while cut < keep, rows[cut].depth != depth || rows[cut].isGap { cut += 1 }
            if cut > first, cut < keep {
                rows.replaceSubrange(first..<cut, with: [KeyRow(path: prefix, depth: depth, kind: .gap(KeyGap(prefix: prefix, after: nil, before: rows[cut].path)))])
                removed = cut - first - 1
            }
        }
        return removed
    }

    // MARK: Following

    /// Follows changes of the key space in the loaded parts. Costs O(changes · log rows), and one pass over the rows when some of
    /// them add or remove rows.
    mutating func apply(_ changes: [KeyChange], now: Moment) {
        recent.append(contentsOf: changes.suffix(KeyTree.recentLimit))
        if recent.count > 2 * KeyTree.recentLimit { recent.removeFirst(recent.count - KeyTree.recentLimit) }
        merge(changes, now: now, below: root, depth: 0)
    }

    private mutating func merge(_ changes: [KeyChange], now: Moment?, below top: KeyBytes, depth topDepth: Int) {
        var inserted: [KeyRow] = []
        var insertedAt: [KeyBytes: Int] = [:]
        var removed: [Int] = []
        for change in changes {
            let summary = change.summary
            guard summary.key.hasPrefix(top) else { continue }
            let delta: Int64 = change.isDelete ? -1 : summary.version == 1 ? 1 : 0
            var prefix = top
            var depth = topDepth
            walk: while true {
                let (path, isDirectory) = child(of: prefix, towards: summary.key)
                guard isDirectory else {
                    if let index = index(ofKey: path) {
                        guard case .key(let known) = rows[index].kind, known.modRevision < summary.modRevision else { break walk }
                        if change.isDelete {
                            removed.append(index)
                            // Kept until the pass below, so that a later put in the same batch finds and revives it.
                            rows[index].kind = .key(KeyRow.tombstone(of: known, at: summary.modRevision))
                        } else {
                            var fresh = summary
                            if fresh.valueSizeBytes == nil, fresh.modRevision == known.modRevision { fresh.valueSizeBytes = known.valueSizeBytes }
                            rows[index].kind = .key(fresh)
                            if let now { rows[index].changedAt = now }
                        }
                    } else if let slot = insertedAt[path] {
                        inserted[slot].kind = .key(change.isDelete ? KeyRow.tombstone(of: summary, at: summary.modRevision) : summary)
                    } else if !change.isDelete, gap(containing: path, prefix: prefix) == nil {
                        insertedAt[path] = inserted.count
                        inserted.append(KeyRow(path: path, depth: depth, kind: .key(summary), changedAt: now, revision: summary.modRevision))
                    }
                    break walk
                }
                if let index = index(ofDirectory: path) {
                    guard case .directory(let isExpanded, let count) = rows[index].kind else { break walk }
                    if rows[index].revision < summary.modRevision {
                        let left = count.map { max(0, $0 + delta) }
                        rows[index].kind = .directory(isExpanded: isExpanded, keyCount: left)
                        if let now { rows[index].changedAt = now }
                        if left == 0, change.isDelete { removed.append(index) }
                    }
                    if !isExpanded { break walk }
                    prefix = path
                    depth += 1
                } else if let slot = insertedAt[path], case .directory(_, let count?) = inserted[slot].kind {
                    inserted[slot].kind = .directory(isExpanded: false, keyCount: max(0, count + delta))
                    break walk
                } else {
                    if delta > 0, gap(containing: path, prefix: prefix) == nil {
                        insertedAt[path] = inserted.count
                        inserted.append(KeyRow(path: path, depth: depth, kind: .directory(isExpanded: false, keyCount: 1), changedAt: now, revision: summary.modRevision))
                    }
                    break walk
                }
            }
        }
        rebuild(inserted: inserted, removed: removed)
    }

    private mutating func rebuild(inserted: [KeyRow], removed: [Int]) {
        guard !inserted.isEmpty || !removed.isEmpty else { return }
        // Rows that really go: a key still deleted at the end of the batch, a directory still empty, with everything below it.
        var gone: [Range<Int>] = []
        for index in Set(removed).sorted() {
            if let last = gone.last, last.contains(index) { continue }
            switch rows[index].kind {
            case .key(let summary) where summary.version == 0: gone.append(index..<index + 1)
            case .directory(_, 0): gone.append(index..<endOfDirectory(index))
            default: break
            }
        }
        let fresh = inserted.filter { row in
            switch row.kind {
            case .key(let summary): summary.version != 0
            case .directory(_, let count): count != 0
            case .gap: false
            }
        }.sorted { $0.path == $1.path ? $0.rank < $1.rank : $0.path < $1.path }
        if gone.count + fresh.count <= 4 {
            for range in gone.reversed() { rows.removeSubrange(range) }
            for row in fresh { rows.insert(row, at: position(of: row.path, rank: row.rank)) }
            return
        }
        var result: [KeyRow] = []
        result.reserveCapacity(rows.count + fresh.count)
        var nextFresh = 0, nextGone = 0, index = 0
        while index < rows.count {
            if nextGone < gone.count, gone[nextGone].lowerBound == index {
                index = gone[nextGone].upperBound
                nextGone += 1
                continue
            }
            let row = rows[index]
            while nextFresh < fresh.count, fresh[nextFresh].path < row.path || (fresh[nextFresh].path == row.path && fresh[nextFresh].rank < row.rank) {
                result.append(fresh[nextFresh])
                nextFresh += 1
            }
            result.append(row)
            index += 1
        }
        result.append(contentsOf: fresh[nextFresh...])
        rows = result
    }

    /// Sets what a value read just told about a key.
    mutating func learn(_ summary: KeySummary) {
        guard let index = index(ofKey: summary.key), case .key(let known) = rows[index].kind, known.modRevision <= summary.modRevision else { return }
        rows[index].kind = .key(summary)
    }
}

extension KeyRow {
    /// Version 0 marks a key as deleted within a batch.
    fileprivate static func tombstone(of summary: KeySummary, at revision: Int64) -> KeySummary {
        KeySummary(key: summary.key, createRevision: 0, modRevision: revision, version: 0)
    }
}
