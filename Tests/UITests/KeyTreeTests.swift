import Testing
@testable import UI

@Suite struct KeyTreeTests {
    /// The rows a person would see, from all keys at once: the oracle.
    static func oracle(_ keys: [KeyBytes], separator: UInt8?, expanded: Set<KeyBytes>) -> [String] {
        var rows: [String] = []
        func list(_ prefix: KeyBytes, _ depth: Int) {
            var last: KeyBytes?
            for key in keys where key.hasPrefix(prefix) {
                if let separator, let cut = key.bytes[prefix.bytes.count...].firstIndex(of: separator) {
                    let path = KeyBytes(Array(key.bytes[...cut]))
                    if path == last { continue }
                    last = path
                    let count = keys.count { $0.hasPrefix(path) }
                    rows.append("\(depth) \(Format.text(path)) \(count)")
                    if expanded.contains(path) { list(path, depth + 1) }
                } else {
                    rows.append("\(depth) \(Format.text(key))")
                }
            }
        }
        list(KeyBytes([]), 0)
        return rows
    }

    static func shown(_ tree: KeyTree) -> [String] {
        tree.rows.compactMap { row in
            switch row.kind {
            case .directory(_, let count): "\(row.depth) \(Format.text(row.path)) \(count ?? -1)"
            case .key: "\(row.depth) \(Format.text(row.path))"
            case .gap: nil
            }
        }
    }

    static func checkOrder(_ tree: KeyTree, _ note: String) {
        for (a, b) in zip(tree.rows, tree.rows.dropFirst()) {
            if !(a.path < b.path || (a.path == b.path && a.rank < b.rank)) { Issue.record("\(note): \(a) before \(b)") }
        }
    }

    static func randomKey(_ random: inout Seeded) -> KeyBytes {
        let parts = ["a", "b", "app", "a-b", "x.y", "", "zz", "é"]
        var key = Bool.random(using: &random) ? "/" : ""
        for index in 0..<Int.random(in: 1...4, using: &random) {
            if index > 0 { key += "/" }
            key += parts.randomElement(using: &random)!
        }
        return KeyBytes(key.isEmpty ? "k" : key)
    }

    /// From one of the ends, or up to some child in the middle, which need not exist.
    static func load(_ tree: inout KeyTree, _ index: Int, _ cluster: FakeCluster, _ random: inout Seeded) -> DirectoryRequest? {
        guard case .gap(let gap) = tree.rows[index].kind, Bool.random(using: &random) else { return tree.load(gap: index, fromEnd: Bool.random(using: &random)) }
        for _ in 0..<20 {
            var key = randomKey(&random)
            guard key.hasPrefix(gap.prefix), key != gap.prefix else { continue }
            var isDirectory = false
            if let separator = tree.separator, let cut = key.bytes[gap.prefix.bytes.count...].firstIndex(of: separator) {
                key = KeyBytes(Array(key.bytes[...cut]))
                isDirectory = true
            }
            if let after = gap.after, !(after < key) { continue }
            if let before = gap.before, !(key < before) { continue }
            return tree.load(gap: index, upTo: key, isDirectory: isDirectory)
        }
        return nil
    }

    @Test func lookingForAKeyThatIsNotThereEnds() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress("2"))
        session.wait()
        for key in ["/registry", "/app/zz", "zzz", "/app/web/cfg/flags/x", "/"] {
            session.press(KeyPress(":"))
            session.act(.paste("go \(key)"))
            session.press(.enter)
            session.wait(1_500)
            #expect(session.model.keys.reveal == nil)
            #expect(session.model.keys.tree.rows.allSatisfy { !$0.isGap }, "all of it is small enough to be loaded")
        }
        #expect(session.commands.count < 60)
    }

    /// Loads every gap, from alternating ends, with small pages.
    static func loadAll(_ tree: inout KeyTree, _ cluster: FakeCluster, _ random: inout Seeded, limit: Int) {
        for _ in 0..<10_000 {
            guard let gap = tree.rows.firstIndex(where: \.isGap) else { return }
            guard var request = tree.load(gap: gap, fromEnd: Bool.random(using: &random)) else { Issue.record("gap is stuck"); return }
            let issued = request
            request.limit = limit
            var page = cluster.directory(request)
            page.request = issued
            if !tree.insert(page) { Issue.record("page dropped") }
        }
        Issue.record("loading does not end")
    }

    @Test(arguments: [11, 12, 13, 14, 15, 16, 17, 18] as [UInt64])
    func loadedTreeIsTheKeySpace(seed: UInt64) {
        var random = Seeded(seed)
        var cluster = FakeCluster()
        for _ in 0..<Int.random(in: 0...120, using: &random) { cluster.put(Self.randomKey(&random), [1]) }
        for separator in [UInt8(ascii: "/"), UInt8(ascii: "."), nil] {
            var tree = KeyTree(root: KeyBytes([]), separator: separator)
            var expanded: Set<KeyBytes> = []
            Self.loadAll(&tree, cluster, &random, limit: 3)
            for _ in 0..<8 {
                let directories = tree.rows.indices.filter { if case .directory(false, _) = tree.rows[$0].kind { true } else { false } }
                guard let index = directories.randomElement(using: &random) else { break }
                expanded.insert(tree.rows[index].path)
                tree.expand(index)
                Self.loadAll(&tree, cluster, &random, limit: Int.random(in: 1...5, using: &random))
                Self.checkOrder(tree, "seed \(seed)")
                #expect(Self.shown(tree) == Self.oracle(cluster.entries.map(\.summary.key), separator: separator, expanded: expanded), "seed \(seed)")
            }
        }
    }

    @Test(arguments: [21, 22, 23, 24, 25, 26, 27, 28, 29, 30] as [UInt64])
    func treeFollowsChangesAlsoBetweenPages(seed: UInt64) {
        var random = Seeded(seed)
        var cluster = FakeCluster()
        for _ in 0..<80 { cluster.put(Self.randomKey(&random), [1]) }
        cluster.changes = []
        let separator: UInt8? = seed % 3 == 0 ? nil : UInt8(ascii: "/")
        var tree = KeyTree(root: KeyBytes([]), separator: separator)
        /// Pages read but not arrived yet: changes overtake them.
        var flying: [DirectoryPage] = []
        for step in 0..<400 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0...3:
                var batch: [KeyChange] = []
                for _ in 0..<Int.random(in: 1...12, using: &random) {
                    if Int.random(in: 0..<3, using: &random) == 0, let victim = cluster.entries.randomElement(using: &random) { cluster.delete(victim.summary.key) } else { cluster.put(Self.randomKey(&random), [2]) }
                    batch += cluster.changes
                    cluster.changes = []
                }
                tree.apply(batch, now: Moment(milliseconds: Int64(step)))
            case 4, 5, 6:
                let gaps = tree.rows.indices.filter { tree.rows[$0].isGap }
                if let gap = gaps.randomElement(using: &random), let issued = Self.load(&tree, gap, cluster, &random) {
                    var request = issued
                    request.limit = Int.random(in: 1...6, using: &random)
                    var page = cluster.directory(request)
                    page.request = issued
                    flying.append(page)
                }
            case 7, 8:
                if !flying.isEmpty { _ = tree.insert(flying.remove(at: Int.random(in: 0..<flying.count, using: &random))) }
            default:
                let directories = tree.rows.indices.filter { if case .directory = tree.rows[$0].kind { true } else { false } }
                if let index = directories.randomElement(using: &random) {
                    if case .directory(true, _) = tree.rows[index].kind { tree.collapse(index) } else { tree.expand(index) }
                }
            }
            Self.checkOrder(tree, "seed \(seed) step \(step)")
        }
        for page in flying { _ = tree.insert(page) }
        Self.loadAll(&tree, cluster, &random, limit: 4)
        let expanded = Set(tree.rows.compactMap { row -> KeyBytes? in if case .directory(true, _) = row.kind { row.path } else { nil } })
        #expect(Self.shown(tree) == Self.oracle(cluster.entries.map(\.summary.key), separator: separator, expanded: expanded), "seed \(seed)")
    }

    @Test func pageOfAClosedDirectoryIsDropped() {
        var tree = KeyTree(root: KeyBytes([]), separator: UInt8(ascii: "/"))
        let first = tree.load(gap: 0, fromEnd: false)!
        let isTaken = tree.insert(DirectoryPage(request: first, entries: [.directory(prefix: KeyBytes("a/"), keyCount: 3)], isComplete: true, revision: 5))
        #expect(isTaken)
        tree.expand(0)
        let inner = tree.load(gap: 1, fromEnd: false)!
        tree.collapse(0)
        let isTakenAfterClosing = tree.insert(DirectoryPage(request: inner, entries: [], isComplete: true, revision: 5))
        #expect(!isTakenAfterClosing)
        #expect(tree.rows.count == 1)
    }

    @Test func failedPageSaysSoAndCanBeAskedForAgain() {
        var tree = KeyTree(root: KeyBytes([]), separator: nil)
        let request = tree.load(gap: 0, fromEnd: false)!
        let second = tree.load(gap: 0, fromEnd: false)
        #expect(second == nil, "one request at a time")
        let isTaken = tree.insert(DirectoryPage(request: request, entries: [], isComplete: false, revision: 0, failure: "no leader"))
        #expect(isTaken)
        let third = tree.load(gap: 0, fromEnd: false)
        #expect(third == nil, "not again by itself")
        tree.retry(gap: 0)
        let fourth = tree.load(gap: 0, fromEnd: false)
        #expect(fourth != nil)
    }

    /// A million keys in one directory: what is held stays bounded while a person pages through all of it.
    @Test func rowsStayBoundedInAHugeDirectory() {
        var tree = KeyTree(root: KeyBytes([]), separator: UInt8(ascii: "/"))
        func key(_ number: Int) -> KeyBytes { KeyBytes("k" + String(repeating: "0", count: 7 - String(number).count) + String(number)) }
        var next = 0
        var keep = 0
        while next < 60_000 {
            let gap = tree.rows.lastIndex(where: { $0.isGap })!
            let request = tree.load(gap: gap, fromEnd: false)!
            let entries = (next..<next + request.limit).map { DirectoryEntry.key(KeySummary(key: key($0), createRevision: 1, modRevision: 1, version: 1)) }
            if !tree.insert(DirectoryPage(request: request, entries: entries, isComplete: false, revision: 1)) { Issue.record("page dropped") }
            next += request.limit
            keep = tree.rows.count - 2
            keep -= tree.trim(around: keep)
            #expect(tree.rows.count <= KeyTree.rowLimit + KeyTree.pageSize + 2)
            #expect(tree.rows[keep].path == key(next - 1))
        }
        Self.checkOrder(tree, "huge")
        // What was given back can be loaded again, from its end.
        #expect(tree.rows[0].isGap)
        let back = tree.load(gap: 0, fromEnd: true)!
        #expect(back.before == tree.rows[1].path)
    }
}
