import Base
@testable import BoltFile
import Testing

@Suite struct BoltFileTests {
    @Test func checksumsAreFNV() {
        let empty: [UInt8] = [], a = Array("a".utf8)
        #expect(empty.withUnsafeBytes(BoltFormat.checksum) == 0xcbf2_9ce4_8422_2325)
        #expect(a.withUnsafeBytes(BoltFormat.checksum) == 0xaf63_dc4c_8601_ec8c)
    }

    @Test(arguments: 0..<9) func whatIsWrittenIsRead(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        // Empty, inline, one page, two levels, three levels.
        let sizes = [0, 1, 5, 40, 900, seed % 8 == 0 ? 6_000 : 1_000].shuffled(using: &generator)
        let buckets = sizes.prefix(seed % 7).enumerated().map { (name: "b\($0.offset)", entries: randomEntries($0.element, &generator)) }
        let file = try write(buckets)
        #expect(isEqual(try read(file), buckets))
        // The 32 bytes of a snapshot's hash, or the rest of a chunk, behind the last page.
        file.bytes += [UInt8](repeating: 0xff, count: 32)
        #expect(isEqual(try read(file), buckets))
    }

    @Test func manyBucketsMakeATreeOfTheirOwn() throws {
        let buckets = (0..<2_000).map { (name: "bucket \(1_000_000 + $0)", entries: [(key: Array("k".utf8), value: Array("v\($0)".utf8))]) }
        #expect(isEqual(try read(try write(buckets)), buckets))
    }

    @Test func revisionsFillTheirPages() throws {
        let entries: Entries = (0..<20_000).map { n in
            var key = ByteWriter(capacity: 17)
            key.writeBigEndian(UInt64(n + 2))
            key.write(UInt8(ascii: "_"))
            key.writeBigEndian(UInt64(0))
            return (key.bytes, [UInt8](repeating: UInt8(truncatingIfNeeded: n), count: 100))
        }
        let file = try write([("key", entries)])
        let payload = entries.count * (16 + 17 + 100)
        #expect(file.bytes.count < payload + payload / 20, "pages are not full: \(file.bytes.count) bytes for \(payload)")
        #expect(isEqual(try read(file), [("key", entries)]))
    }

    @Test func theWriterRefusesWhatIsOutOfOrder() throws {
        for keys in [["b", "a"], ["a", "a"]] {
            #expect(throws: BoltFault.outOfOrder(bucket: "x")) { try write([("x", keys.map { (Array($0.utf8), []) })]) }
        }
        #expect(throws: BoltFault.outOfOrder(bucket: "(root)")) { try write([("x", []), ("a", [])]) }
        #expect(throws: BoltFault.badKey(bytes: 0)) { try write([("x", [([], [])])]) }
        #expect(throws: BoltFault.badKey(bytes: 32_769)) { try write([("x", [([UInt8](repeating: 1, count: 32_769), [])])]) }
        // The longest key that bbolt takes, in branches too.
        let long: Entries = (0..<9).map { ([UInt8($0)] + [UInt8](repeating: 7, count: 32_767), [1]) }
        #expect(isEqual(try read(try write([("x", long)])), [("x", long)]))
    }

    @Test func oneMetaPageIsEnough() throws {
        let buckets = [(name: "key", entries: [(key: Array("k".utf8), value: Array("v".utf8))])]
        for page in [0, 1] {
            let file = try write(buckets)
            file.bytes[page * 4_096 + 40] ^= 1
            #expect(isEqual(try read(file), buckets))
            file.bytes[(1 - page) * 4_096 + 72] ^= 1
            #expect(throws: BoltFault.noMeta) { try read(file) }
        }
        for bytes in [[], [UInt8](repeating: 0, count: 8_192), Array("not a database".utf8)] {
            #expect(throws: BoltFault.noMeta) { try read(MemoryFile(bytes)) }
        }
    }
}

@Suite struct BoltDamageTests {
    /// Bytes of a healthy file, made once.
    private static let sample: [UInt8] = {
        var generator = SeededGenerator(seed: 77)
        let buckets = [("alarm", Entries()), ("key", randomEntries(600, &generator)), ("lease", randomEntries(7, &generator)), ("meta", randomEntries(50, &generator))]
        return try! write(buckets.map { (name: $0.0, entries: $0.1) }).bytes
    }()

    /// Changes of the structure: bytes in page headers and element headers, where a careless reader would trap or run for ever.
    @Test(arguments: 0..<120) func damageIsAFaultOrChangesContents(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 9_000)
        let file = MemoryFile(Self.sample)
        let pages = file.bytes.count / 4_096
        for _ in 0..<Int.random(in: 1...6, using: &generator) {
            let page = Int.random(in: 2..<pages, using: &generator)
            let at = page * 4_096 + Int.random(in: 0..<(Bool.random(using: &generator) ? 16 : 400), using: &generator)
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: file.bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            case 1: file.bytes[at] = 0xff
            case 2: file.bytes[at] = UInt8.random(in: 0...255, using: &generator)
            default: // The number of another page in place of what is there.
                let other = UInt64.random(in: 0..<UInt64(pages) + 3, using: &generator)
                withUnsafeBytes(of: other.littleEndian) { file.bytes.replaceSubrange(at & ~7..<(at & ~7) + 8, with: $0) }
            }
        }
        _ = try? read(file)
        #expect(file.reads <= 3 * pages + 10, "\(file.reads) reads of \(pages) pages")
    }

    @Test(arguments: 0..<60) func truncationIsAFault(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        let file = MemoryFile(Self.sample)
        file.bytes.removeLast(Int.random(in: 1...file.bytes.count, using: &generator))
        #expect(throws: BoltFault.self) { try read(file) }
    }

    /// A file whose meta page names `root`; `pages` from page 2 on.
    private static func file(root: UInt64, _ pages: [[UInt8]], freelist: UInt64? = nil) -> MemoryFile {
        let meta = BoltMeta(pageSize: 4_096, root: root, freelist: freelist, pageCount: UInt64(pages.count + 2), transaction: 4)
        var bytes = meta.page(number: 0) + meta.page(number: 1)
        for page in pages { bytes += page + [UInt8](repeating: 0, count: 4_096 - page.count) }
        return MemoryFile(bytes)
    }
    private static func page(_ number: UInt64, _ flags: UInt16, count: Int = 0, overflow: Int = 0, _ rest: [UInt64] = []) -> [UInt8] {
        var writer = ByteWriter()
        writer.writePageHeader(number, flags, count: count, overflow: overflow)
        for word in rest { writer.write(word) }
        return writer.bytes
    }
    /// A branch with the keys "a", "b", ... over `children`.
    private static func branch(_ number: UInt64, _ children: [UInt64]) -> [UInt8] {
        var writer = ByteWriter()
        writer.writePageHeader(number, BoltFormat.branchFlag, count: children.count, overflow: 0)
        for (index, child) in children.enumerated() {
            writer.write(UInt32((children.count - index) * 16 + index))
            writer.write(UInt32(1))
            writer.write(child)
        }
        writer.write(children.indices.map { UInt8(ascii: "a") + UInt8($0) })
        return writer.bytes
    }

    @Test func everyKindOfDamageHasItsFault() {
        let leaf = BoltFormat.leafFlag, branch = BoltFormat.branchFlag
        #expect(throws: BoltFault.pageOutOfRange(9)) { try read(Self.file(root: 9, [Self.page(2, leaf)])) }
        #expect(throws: BoltFault.pageOutOfRange(0)) { try read(Self.file(root: 0, [Self.page(2, leaf)])) }
        #expect(throws: BoltFault.pageOutOfRange(1)) { try read(Self.file(root: 1, [Self.page(2, leaf)])) }
        // Itself as its child, two parents, and one after the other without an end.
        #expect(throws: BoltFault.pageUsedTwice(2)) { try read(Self.file(root: 2, [Self.branch(2, [2])])) }
        #expect(throws: BoltFault.pageUsedTwice(3)) { try read(Self.file(root: 2, [Self.branch(2, [3, 3]), Self.page(3, leaf)])) }
        #expect(throws: BoltFault.tooDeep) {
            try read(Self.file(root: 2, (0..<100).map { Self.branch(2 + $0, [3 + $0]) } + [Self.page(102, leaf)]))
        }
        #expect(throws: BoltFault.malformed(page: 2, "it calls itself page 7")) { try read(Self.file(root: 2, [Self.page(7, leaf)])) }
        #expect(throws: BoltFault.malformed(page: 2, "unknown kind 12")) { try read(Self.file(root: 2, [Self.page(2, 12)])) }
        #expect(throws: BoltFault.malformed(page: 2, "65535 elements do not fit into it")) { try read(Self.file(root: 2, [Self.page(2, leaf, count: 65_535)])) }
        #expect(throws: BoltFault.malformed(page: 2, "a branch without children")) { try read(Self.file(root: 2, [Self.page(2, branch)])) }
        #expect(throws: BoltFault.malformed(page: 2, "element 0 lies outside of it")) {
            try read(Self.file(root: 2, [Self.page(2, leaf, count: 1, [0xffff_ffff_0000_0001, 0xffff_ffff_0000_0001])]))
        }
        #expect(throws: BoltFault.malformed(page: 2, "element 0 has a key of 0 bytes")) {
            try read(Self.file(root: 2, [Self.page(2, leaf, count: 1, [0x10_0000_0001, 0])]))
        }
        // A plain entry where only buckets may be.
        #expect(throws: BoltFault.malformed(page: 2, "bucket (root) has an element of kind 0")) {
            try read(Self.file(root: 2, [Self.page(2, leaf, count: 1, [0x10_0000_0000, 1, 0x61])]))
        }
        #expect(throws: BoltFault.pageOutOfRange(0xffff_ffff + 2)) { try read(Self.file(root: 2, [Self.page(2, leaf, overflow: 0xffff_ffff)])) }
        #expect(throws: BoltFault.tooLarge(bytes: 8_192, bound: 4_096)) { try read(Self.file(root: 2, [Self.page(2, leaf, overflow: 1), []]), maxPageBytes: 4_096) }
        // The free list: a page that is in use, one that does not exist, one that nobody knows of.
        let free = BoltFormat.freelistFlag
        #expect(throws: BoltFault.pageUsedTwice(2)) { try read(Self.file(root: 2, [Self.page(2, leaf), Self.page(3, free, count: 1, [2])], freelist: 3)) }
        #expect(throws: BoltFault.pageOutOfRange(8)) { try read(Self.file(root: 2, [Self.page(2, leaf), Self.page(3, free, count: 1, [8])], freelist: 3)) }
        #expect(throws: BoltFault.malformed(page: 4, "it is neither used nor free")) {
            try read(Self.file(root: 2, [Self.page(2, leaf), Self.page(3, free), Self.page(4, leaf)], freelist: 3))
        }
        #expect(throws: BoltFault.malformed(page: 3, "the free list is cut off")) {
            try read(Self.file(root: 2, [Self.page(2, leaf), Self.page(3, free, count: 0xffff, [1 << 60])], freelist: 3))
        }
        // Without a stored list whatever is not reached is free.
        #expect(throws: Never.self) { try read(Self.file(root: 2, [Self.page(2, leaf), Self.page(3, 99)])) }
    }
}
