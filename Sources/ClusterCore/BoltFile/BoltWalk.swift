import Base

/// A top-level bucket.
public struct BoltBucket: Sendable {
    public var name: [UInt8]
    /// 0: `inline` holds its only page.
    let root: UInt64
    let inline: [UInt8]
    public var text: String { String(decoding: name, as: UTF8.self) }
}

/// One pass over a file, in which no page may be met twice. Memory: a bit a page of the file, and the pages from the root to a leaf.
///
/// Read each bucket's cursor to its end, in any order, then call `finish`.
public final class BoltWalk {
    public private(set) var buckets: [BoltBucket] = []
    let reader: BoltReader
    /// A bit a page: reached in this pass.
    private var reached: [UInt64]
    /// No tree of 2^64 pages is deeper, if its branches have two children or more; bbolt's have.
    static let maxDepth = 64

    public init(_ reader: BoltReader) throws(BoltFault) {
        self.reader = reader
        reached = [UInt64](repeating: 0, count: Int(reader.meta.pageCount / 64 + 1))
        var cursor = BoltCursor(self, BoltBucket(name: Array("(root)".utf8), root: reader.meta.root, inline: []), flags: BoltFormat.bucketFlag)
        while try cursor.advance() {
            let value = cursor.value
            guard value.count >= BoltFormat.headerSize else { throw .malformed(page: reader.meta.root, "the header of bucket \(cursor.keyText) is cut off") }
            let root = value.withUnsafeBytes { $0.little(0, UInt64.self) }
            buckets.append(BoltBucket(name: cursor.key, root: root, inline: root == 0 ? Array(value[BoltFormat.headerSize...]) : []))
        }
    }

    public func cursor(_ bucket: BoltBucket) -> BoltCursor { BoltCursor(self, bucket, flags: 0) }

    /// Every bucket has been read to its end: each page must be in use or free, and none both.
    public func finish() throws(BoltFault) {
        guard let list = reader.meta.freelist else { return }
        let page = try load(list)
        guard page.isFreelist else { throw .malformed(page: list, "it should be the free list") }
        try page.freePages { id throws(BoltFault) in
            guard id >= 2, id < self.reader.meta.pageCount else { throw .pageOutOfRange(id) }
            try self.reach(id)
        }
        for id in 2..<max(2, reader.meta.pageCount) where reached[Int(id / 64)] >> (id % 64) & 1 == 0 {
            throw .malformed(page: id, "it is neither used nor free")
        }
    }

    func load(_ number: UInt64) throws(BoltFault) -> BoltPage {
        // Before it is read: a cycle costs nothing.
        guard number < reader.meta.pageCount, number >= 2 else { throw .pageOutOfRange(number) }
        try reach(number)
        let page = try reader.load(number)
        if page.header.overflow > 0 { for id in number + 1...number + page.header.overflow { try reach(id) } }
        return page
    }

    private func reach(_ id: UInt64) throws(BoltFault) {
        let bit: UInt64 = 1 << (id % 64)
        guard reached[Int(id / 64)] & bit == 0 else { throw .pageUsedTwice(id) }
        reached[Int(id / 64)] |= bit
    }
}

/// The entries of one bucket, ascending.
public struct BoltCursor {
    private let walk: BoltWalk
    private let bucket: BoltBucket
    /// What the elements of its leaves must have.
    private let flags: UInt32
    private var branches: [(page: BoltPage, index: Int)] = []
    private var leaf: BoltPage?
    private var index = -1
    private var entry = BoltPage.Element(flags: 0, key: 0..<0, value: 0..<0)
    private var hasBegun = false
    /// The key of the entry before; empty at first.
    private var previous: [UInt8] = []
    /// What the next entry must not be below: its branch says so.
    private var bound: [UInt8] = []

    init(_ walk: BoltWalk, _ bucket: BoltBucket, flags: UInt32) {
        self.walk = walk
        self.bucket = bucket
        self.flags = flags
    }

    /// False behind the last entry.
    public mutating func advance() throws(BoltFault) -> Bool {
        if !hasBegun {
            hasBegun = true
            if bucket.root == 0 && flags == 0 {
                let page = try BoltPage(0, bucket.inline)
                guard page.isLeaf else { throw .malformed(page: 0, "bucket \(bucket.text) begins with no leaf") }
                leaf = page
            } else {
                try descend(bucket.root)
            }
        }
        while let page = leaf {
            index += 1
            if index < page.count {
                try take(page)
                return true
            }
            leaf = nil
            while let last = branches.indices.last {
                branches[last].index += 1
                if branches[last].index < branches[last].page.count {
                    try descend(try child(branches[last].page, branches[last].index))
                    break
                }
                branches.removeLast()
            }
        }
        return false
    }

    /// Down to the first leaf below `number`.
    private mutating func descend(_ number: UInt64) throws(BoltFault) {
        var page = try walk.load(number)
        while page.isBranch {
            guard page.count > 0 else { throw .malformed(page: page.number, "a branch without children") }
            guard branches.count < BoltWalk.maxDepth else { throw .tooDeep }
            branches.append((page, 0))
            page = try walk.load(try child(page, 0))
        }
        guard page.isLeaf else { throw .malformed(page: page.number, "neither branch nor leaf") }
        leaf = page
        index = -1
    }

    private mutating func child(_ page: BoltPage, _ index: Int) throws(BoltFault) -> UInt64 {
        let (key, child) = try page.branch(index)
        let separator = Array(page.bytes[key])
        guard compareBytes(previous, separator) < 0, compareBytes(bound, separator) <= 0 else { throw .outOfOrder(bucket: bucket.text) }
        bound = separator
        return child
    }

    private mutating func take(_ page: BoltPage) throws(BoltFault) {
        entry = try page.element(index)
        guard entry.flags == flags else { throw .malformed(page: page.number, "bucket \(bucket.text) has an element of kind \(entry.flags)") }
        let isInOrder = page.bytes.withUnsafeBytes { raw in
            let key = UnsafeRawBufferPointer(rebasing: raw[entry.key])
            return previous.withUnsafeBytes { compareBytes($0, key) < 0 } && bound.withUnsafeBytes { compareBytes($0, key) <= 0 }
        }
        guard isInOrder else { throw .outOfOrder(bucket: bucket.text) }
        previous.removeAll(keepingCapacity: true)
        previous.append(contentsOf: page.bytes[entry.key])
    }

    // MARK: The entry. Call after `advance` was true.

    public var key: [UInt8] { previous }
    var keyText: String { String(decoding: previous, as: UTF8.self) }
    public var value: [UInt8] { leaf.map { Array($0.bytes[entry.value]) } ?? [] }
    /// Lends key and value.
    public func withEntry<R>(_ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> R) -> R {
        leaf!.bytes.withUnsafeBytes {
            body(UnsafeRawBufferPointer(rebasing: $0[entry.key]), UnsafeRawBufferPointer(rebasing: $0[entry.value]))
        }
    }
}
