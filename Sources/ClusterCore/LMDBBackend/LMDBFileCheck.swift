import CLMDB
import Store
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Walks the pages of an LMDB file (data format 1) before LMDB is let near it, and says what is wrong with them.
///
/// LMDB trusts its pages: an offset that rotted makes it read beyond the map, a rotten page number makes it take another page for a branch of
/// the tree, and a rotten list of free pages makes it overwrite pages in use. So every page that the latest commit can reach is looked at: it
/// is where it says, of the kind that its depth asks for, its nodes lie within it, its keys ascend across the whole table, no page is used
/// twice or free at the same time, and each table has as many records as it says. What the records hold is `RecordSeal`'s to prove.
///
/// Reads only. About 10 ns a record.
struct LMDBFileCheck {
    /// What is wrong with the file, and where in it.
    struct Damage: Error {
        var offset: UInt64
        var detail: String
    }

    private let raw: UnsafeRawBufferPointer
    private let pageSize: Int
    /// Pages that something was found to use.
    private var used: [UInt64]
    private var lastPage: UInt64 = 0

    private static let pageHeaderSize = 16
    private static let nodeHeaderSize = 8
    private static let databaseSize = 48
    private static let noPage = UInt64.max
    /// LMDB's own bound on a tree's depth.
    private static let maxDepth = 32
    private enum PageFlag {
        static let branch: UInt16 = 0x01
        static let leaf: UInt16 = 0x02
        static let overflow: UInt16 = 0x04
        static let meta: UInt16 = 0x08
        static let dirty: UInt16 = 0x10
    }
    private enum NodeFlag {
        static let bigData: UInt16 = 0x01
        static let subData: UInt16 = 0x02
    }

    /// `MDB_db`
    private struct Tree {
        var flags: UInt16
        var depth: Int
        var entries: UInt64
        var root: UInt64
        init(_ raw: UnsafeRawBufferPointer, _ at: Int) {
            flags = raw.loadUnaligned(fromByteOffset: at + 4, as: UInt16.self)
            depth = Int(raw.loadUnaligned(fromByteOffset: at + 6, as: UInt16.self))
            entries = raw.loadUnaligned(fromByteOffset: at + 32, as: UInt64.self)
            root = raw.loadUnaligned(fromByteOffset: at + 40, as: UInt64.self)
        }
    }

    /// Nothing when the file is sound; an empty one is.
    static func run(path: String) throws(BackendError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw BackendError(lmdb: errno, "open \(path)") }
        defer { _ = close(descriptor) }
        var info = stat()
        guard fstat(descriptor, &info) == 0 else { throw BackendError(lmdb: errno, "look up \(path)") }
        let size = Int(info.st_size)
        guard size > 0 else { return }
        guard let map = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), map != MAP_FAILED else {
            throw BackendError(lmdb: errno, "map \(path)")
        }
        defer { munmap(map, size) }
        do throws(Damage) {
            try run(UnsafeRawBufferPointer(start: map, count: size))
        } catch {
            throw .damaged(path, "at offset \(error.offset): \(error.detail)")
        }
    }

    static func run(_ raw: UnsafeRawBufferPointer) throws(Damage) {
        var (check, trees) = try metaPages(raw)
        for tree in trees {
            try check.walk(tree.tree, tree.kind)
        }
        try check.walkFreeList(trees[0].tree)
    }

    private enum Kind { case free, main, table }

    // MARK: The two meta pages

    private static func metaPages(_ raw: UnsafeRawBufferPointer) throws(Damage) -> (LMDBFileCheck, [(tree: Tree, kind: Kind)]) {
        // The page size stands in the first meta page, which begins the file whatever its size.
        let head = pageHeaderSize
        guard raw.count >= head + 24 + 2 * databaseSize + 16 else { throw Damage(offset: 0, detail: "the file is too short for a meta page") }
        let pageSize = Int(raw.loadUnaligned(fromByteOffset: head + 24, as: UInt32.self))
        guard pageSize >= 512, pageSize <= 65_536, pageSize & (pageSize - 1) == 0 else { throw Damage(offset: UInt64(head + 24), detail: "a page size of \(pageSize)") }
        guard raw.count >= 2 * pageSize else { throw Damage(offset: 0, detail: "the file is too short for its meta pages") }
        var transactions: [UInt64] = []
        for page in 0..<2 {
            let at = page * pageSize
            func wrong(_ detail: String) -> Damage { Damage(offset: UInt64(at), detail: "meta page \(page): \(detail)") }
            guard raw.loadUnaligned(fromByteOffset: at, as: UInt64.self) == UInt64(page),
                  raw.loadUnaligned(fromByteOffset: at + 10, as: UInt16.self) & ~PageFlag.dirty == PageFlag.meta else { throw wrong("not a meta page") }
            guard raw.loadUnaligned(fromByteOffset: at + head, as: UInt32.self) == 0xbeef_c0de else { throw wrong("not an LMDB file") }
            let version = raw.loadUnaligned(fromByteOffset: at + head + 4, as: UInt32.self)
            guard version == 1 else { throw wrong("LMDB data format \(version), this program reads 1") }
            guard raw.loadUnaligned(fromByteOffset: at + head + 24, as: UInt32.self) == UInt32(pageSize) else { throw wrong("another page size") }
            let transaction = raw.loadUnaligned(fromByteOffset: at + head + 24 + 2 * databaseSize + 8, as: UInt64.self)
            // Commits write the two in turn.
            guard transaction == 0 || transaction & 1 == UInt64(page) else { throw wrong("commit number \(transaction) belongs to the other") }
            transactions.append(transaction)
        }
        let difference = max(transactions[0], transactions[1]) - min(transactions[0], transactions[1])
        guard difference <= 1 else { throw Damage(offset: 0, detail: "commit numbers \(transactions[0]) and \(transactions[1]) of the meta pages are not consecutive") }
        let latest = transactions[0] < transactions[1] ? 1 : 0
        let at = latest * pageSize + head + 24
        var check = LMDBFileCheck(raw: raw, pageSize: pageSize, used: [])
        check.lastPage = raw.loadUnaligned(fromByteOffset: at + 2 * databaseSize, as: UInt64.self)
        guard check.lastPage >= 1, check.lastPage < 1 << 44 else {
            throw Damage(offset: UInt64(at + 2 * databaseSize), detail: "page \(check.lastPage) is named as the last one")
        }
        // The file may end before the last page: one that was taken and given back was never written.
        check.used = Array(repeating: 0, count: raw.count / pageSize / 64 + 1)
        return (check, [(Tree(raw, at), .free), (Tree(raw, at + databaseSize), .main)])
    }

    private init(raw: UnsafeRawBufferPointer, pageSize: Int, used: [UInt64]) {
        self.raw = raw
        self.pageSize = pageSize
        self.used = used
    }

    // MARK: Pages

    private func isUsed(_ page: UInt64) -> Bool {
        page / 64 < UInt64(used.count) && used[Int(page / 64)] & 1 << (page % 64) != 0
    }

    /// The page's offset in the file.
    private mutating func take(_ page: UInt64, from parent: UInt64) throws(Damage) -> Int {
        guard page > 1, page <= lastPage, page < UInt64(raw.count / pageSize) else { throw Damage(offset: parent, detail: "it names page \(page), which is not in the file") }
        guard !isUsed(page) else { throw Damage(offset: parent, detail: "it names page \(page), which is in use elsewhere") }
        used[Int(page / 64)] |= 1 << (page % 64)
        let at = Int(page) * pageSize
        guard raw.loadUnaligned(fromByteOffset: at, as: UInt64.self) == page else { throw Damage(offset: UInt64(at), detail: "page \(page) says that it is another one") }
        return at
    }

    private struct Walk {
        let kind: Kind
        let depth: Int
        var entries: UInt64 = 0
        var lastKey: UnsafeRawBufferPointer?
    }

    private mutating func walk(_ tree: Tree, _ kind: Kind) throws(Damage) {
        // Integer keys, and above them the environment's flags, for the list of free pages; plain ones for tables.
        guard kind == .free ? tree.flags & 0x7f == 0x08 : tree.flags == 0 else { throw Damage(offset: 0, detail: "a table with flags \(tree.flags)") }
        guard tree.root != LMDBFileCheck.noPage else {
            guard tree.entries == 0, tree.depth == 0 else { throw Damage(offset: 0, detail: "a table of \(tree.entries) records without pages") }
            return
        }
        guard tree.depth >= 1, tree.depth <= LMDBFileCheck.maxDepth else { throw Damage(offset: 0, detail: "a table of depth \(tree.depth)") }
        var walk = Walk(kind: kind, depth: tree.depth)
        try self.walk(tree.root, from: 0, level: 1, &walk)
        guard walk.entries == tree.entries else {
            throw Damage(offset: tree.root &* UInt64(pageSize), detail: "a table says that it has \(tree.entries) records, \(walk.entries) are there")
        }
    }

    private mutating func walk(_ page: UInt64, from parent: UInt64, level: Int, _ walk: inout Walk) throws(Damage) {
        let at = try take(page, from: parent)
        func wrong(_ detail: String) -> Damage { Damage(offset: UInt64(at), detail: "page \(page): \(detail)") }
        let isLeaf = level == walk.depth
        guard raw.loadUnaligned(fromByteOffset: at + 10, as: UInt16.self) & ~PageFlag.dirty == (isLeaf ? PageFlag.leaf : PageFlag.branch) else {
            throw wrong("not a \(isLeaf ? "leaf" : "branch") page")
        }
        let lower = Int(raw.loadUnaligned(fromByteOffset: at + 12, as: UInt16.self))
        let upper = Int(raw.loadUnaligned(fromByteOffset: at + 14, as: UInt16.self))
        guard lower > LMDBFileCheck.pageHeaderSize, lower & 1 == 0, lower <= upper, upper <= pageSize else { throw wrong("its bounds are \(lower) and \(upper)") }
        let count = (lower - LMDBFileCheck.pageHeaderSize) / 2
        guard isLeaf || count >= 2 else { throw wrong("a branch with one child") }
        for i in 0..<count {
            let offset = Int(raw.loadUnaligned(fromByteOffset: at + LMDBFileCheck.pageHeaderSize + 2 * i, as: UInt16.self))
            guard offset >= upper, offset + LMDBFileCheck.nodeHeaderSize <= pageSize else { throw wrong("node \(i) lies at \(offset)") }
            let node = at + offset
            let low = UInt64(raw.loadUnaligned(fromByteOffset: node, as: UInt16.self)) | UInt64(raw.loadUnaligned(fromByteOffset: node + 2, as: UInt16.self)) << 16
            let flags = raw.loadUnaligned(fromByteOffset: node + 4, as: UInt16.self)
            let keySize = Int(raw.loadUnaligned(fromByteOffset: node + 6, as: UInt16.self))
            guard offset + LMDBFileCheck.nodeHeaderSize + keySize <= pageSize else { throw wrong("the key of node \(i) goes beyond the page") }
            let keyAt = node + LMDBFileCheck.nodeHeaderSize
            let key = UnsafeRawBufferPointer(rebasing: raw[keyAt..<keyAt + keySize])
            if isLeaf {
                try checkKey(key, i, wrong, &walk)
                walk.lastKey = key
                walk.entries += 1
                try checkData(at: keyAt + keySize, room: at + pageSize - keyAt - keySize, size: Int(low), flags, i, wrong, walk.kind)
            } else {
                // The first key of a branch stands for "everything before the second".
                if i > 0 { try checkKey(key, i, wrong, &walk) }
                try self.walk(low | UInt64(flags) << 32, from: UInt64(at), level: level + 1, &walk)
                // A separator is not above the first key behind it, and above the last one before it: the leaves' own order shows the former.
            }
        }
    }

    private func checkKey(_ key: UnsafeRawBufferPointer, _ i: Int, _ wrong: (String) -> Damage, _ walk: inout Walk) throws(Damage) {
        guard key.count > 0, key.count <= 511, walk.kind != .free || key.count == 8 else { throw wrong("node \(i) has a key of \(key.count) bytes") }
        guard let last = walk.lastKey else { return }
        let ascends = walk.kind == .free
            ? last.loadUnaligned(as: UInt64.self) < key.loadUnaligned(as: UInt64.self)
            : LMDBFileCheck.isBefore(last, key)
        guard ascends else { throw wrong("the key of node \(i) is not above the one before it") }
    }

    private static func isBefore(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
        let order = memcmp(a.baseAddress!, b.baseAddress!, min(a.count, b.count))
        return order != 0 ? order < 0 : a.count < b.count
    }

    private mutating func checkData(at: Int, room: Int, size: Int, _ flags: UInt16, _ i: Int, _ wrong: (String) -> Damage, _ kind: Kind) throws(Damage) {
        switch flags {
        case 0:
            guard size <= room else { throw wrong("the value of node \(i) goes beyond the page") }
            if kind == .free { try checkFreeList(at: at, size: size, i, wrong) }
        case NodeFlag.bigData:
            guard room >= 8, kind != .main else { throw wrong("node \(i) has no room for its page number") }
            let page = raw.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            let start = try take(page, from: UInt64(at))
            let needed = (LMDBFileCheck.pageHeaderSize - 1 + size) / pageSize + 1
            let pages = Int(raw.loadUnaligned(fromByteOffset: start + 12, as: UInt32.self))
            guard raw.loadUnaligned(fromByteOffset: start + 10, as: UInt16.self) & ~PageFlag.dirty == PageFlag.overflow, pages >= needed, pages <= 1 << 24 else {
                throw Damage(offset: UInt64(start), detail: "page \(page): not the first of \(needed) pages of one value")
            }
            for next in 1..<max(1, UInt64(pages)) {
                guard page + next <= lastPage, page + next < UInt64(raw.count / pageSize), !isUsed(page + next) else {
                    throw Damage(offset: UInt64(start), detail: "page \(page): the rest of its value is not there")
                }
                used[Int((page + next) / 64)] |= 1 << ((page + next) % 64)
            }
            if kind == .free { try checkFreeList(at: start + LMDBFileCheck.pageHeaderSize, size: size, i, wrong) }
        case NodeFlag.subData where kind == .main:
            guard size == LMDBFileCheck.databaseSize, size <= room else { throw wrong("node \(i) is no table") }
            try walk(Tree(raw, at), .table)
        default: throw wrong("node \(i) has flags \(flags)")
        }
    }

    // MARK: Free pages

    private func checkFreeList(at: Int, size: Int, _ i: Int, _ wrong: (String) -> Damage) throws(Damage) {
        guard size >= 8, size % 8 == 0, raw.loadUnaligned(fromByteOffset: at, as: UInt64.self) < UInt64(size / 8) else {
            throw wrong("the list of free pages in node \(i) is longer than its room")
        }
    }

    /// Behind the walk over everything in use: what is free is not in use, and free once. The lists themselves have been found sound.
    private mutating func walkFreeList(_ tree: Tree) throws(Damage) {
        guard tree.root != LMDBFileCheck.noPage else { return }
        var free = Array(repeating: UInt64(0), count: Int(min(lastPage, UInt64(raw.count / pageSize) + 1 << 20)) / 64 + 1)
        try walkFreeList(tree.root, level: 1, depth: tree.depth, &free)
    }

    private func walkFreeList(_ page: UInt64, level: Int, depth: Int, _ free: inout [UInt64]) throws(Damage) {
        let at = Int(page) * pageSize
        let count = (Int(raw.loadUnaligned(fromByteOffset: at + 12, as: UInt16.self)) - LMDBFileCheck.pageHeaderSize) / 2
        for i in 0..<count {
            let node = at + Int(raw.loadUnaligned(fromByteOffset: at + LMDBFileCheck.pageHeaderSize + 2 * i, as: UInt16.self))
            let flags = raw.loadUnaligned(fromByteOffset: node + 4, as: UInt16.self)
            guard level == depth else {
                let low = UInt64(raw.loadUnaligned(fromByteOffset: node, as: UInt32.self))
                try walkFreeList(low | UInt64(flags) << 32, level: level + 1, depth: depth, &free)
                continue
            }
            var list = node + LMDBFileCheck.nodeHeaderSize + 8
            if flags == NodeFlag.bigData {
                list = Int(raw.loadUnaligned(fromByteOffset: list, as: UInt64.self)) * pageSize + LMDBFileCheck.pageHeaderSize
            }
            for entry in 0..<Int(raw.loadUnaligned(fromByteOffset: list, as: UInt64.self)) {
                let page = raw.loadUnaligned(fromByteOffset: list + 8 * (entry + 1), as: UInt64.self)
                func wrong(_ detail: String) -> Damage { Damage(offset: UInt64(list + 8 * (entry + 1)), detail: "page \(page) is listed as free, \(detail)") }
                guard page > 1, page <= lastPage, page / 64 < UInt64(free.count) else { throw wrong("which is not in the file") }
                guard !isUsed(page) else { throw wrong("and it is in use") }
                guard free[Int(page / 64)] & 1 << (page % 64) == 0 else { throw wrong("twice") }
                free[Int(page / 64)] |= 1 << (page % 64)
            }
        }
    }
}
