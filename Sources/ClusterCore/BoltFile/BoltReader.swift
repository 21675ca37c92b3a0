import Base

/// An open bbolt file. Holds its meta page only; the data come page by page through a `BoltWalk`.
public final class BoltReader {
    public let meta: BoltMeta
    let source: any BoltSource
    let maxPageBytes: Int

    /// - Parameter maxPageBytes: the largest page with its overflow that is read. bbolt may put four entries on one, so this is four times the
    ///   largest value; etcd's values end at its request size, 1.5 MiB if not set otherwise.
    public init(_ source: any BoltSource, maxPageBytes: Int = 256 << 20) throws(BoltFault) {
        self.source = source
        self.maxPageBytes = maxPageBytes
        let meta = try BoltReader.findMeta(source)
        guard meta.pageCount <= source.size / UInt64(meta.pageSize) else {
            let (bytes, tooMany) = meta.pageCount.multipliedReportingOverflow(by: UInt64(meta.pageSize))
            throw .truncated(expectedBytes: tooMany ? .max : bytes, actualBytes: source.size)
        }
        self.meta = meta
    }

    /// The valid meta page of the later transaction. The first tells where the second is; when it is damaged, the second is looked for behind
    /// every size that a page can have.
    private static func findMeta(_ source: any BoltSource) throws(BoltFault) -> BoltMeta {
        let first = try readMeta(source, at: 0)
        var second: BoltMeta?
        if let first {
            second = try readMeta(source, at: UInt64(first.pageSize))
        } else {
            for exponent in 9...24 where second == nil {
                second = try readMeta(source, at: 1 << exponent)
                if second?.pageSize != 1 << exponent { second = nil }
            }
        }
        guard let best = [first, second].compactMap({ $0 }).max(by: { $0.transaction < $1.transaction }) else { throw .noMeta }
        return best
    }

    private static func readMeta(_ source: any BoltSource, at offset: UInt64) throws(BoltFault) -> BoltMeta? {
        let length = BoltFormat.headerSize + BoltFormat.metaSize
        guard source.size >= offset + UInt64(length) else { return nil }
        var bytes = [UInt8](repeating: 0, count: length)
        try source.fill(&bytes, at: offset)
        return bytes.withUnsafeBytes { BoltMeta(page: $0) }
    }

    /// Reads a page with its overflow.
    func load(_ number: UInt64) throws(BoltFault) -> BoltPage {
        guard number >= 2, number < meta.pageCount else { throw .pageOutOfRange(number) }
        let offset = number * UInt64(meta.pageSize)
        var bytes = [UInt8](repeating: 0, count: meta.pageSize)
        try source.fill(&bytes, at: offset)
        let overflow = bytes.withUnsafeBytes { UInt64($0.little(12, UInt32.self)) }
        if overflow > 0 {
            guard overflow < meta.pageCount - number else { throw .pageOutOfRange(number + overflow) }
            let whole = (overflow + 1) * UInt64(meta.pageSize)
            guard whole <= UInt64(maxPageBytes) else { throw .tooLarge(bytes: whole, bound: UInt64(maxPageBytes)) }
            bytes = [UInt8](repeating: 0, count: Int(whole))
            try source.fill(&bytes, at: offset)
        }
        let page = try BoltPage(number, bytes)
        guard page.header.number == number else { throw .malformed(page: number, "it calls itself page \(page.header.number)") }
        return page
    }
}

extension BoltSource {
    func fill(_ bytes: inout [UInt8], at offset: UInt64) throws(BoltFault) {
        var fault: BoltFault?
        bytes.withUnsafeMutableBytes { raw in
            do throws(BoltFault) { try read(into: raw, at: offset) } catch { fault = error }
        }
        if let fault { throw fault }
    }
}

/// A page in memory, overflow included: branch, leaf or free list. Every access is checked against its bytes.
struct BoltPage {
    struct Header {
        var number: UInt64
        var flags: UInt16
        var count: Int
        var overflow: UInt64
    }
    let header: Header
    /// What the pages of the file call it; 0 for one that is inline.
    let number: UInt64
    let bytes: [UInt8]

    var isLeaf: Bool { header.flags == BoltFormat.leafFlag }
    var isBranch: Bool { header.flags == BoltFormat.branchFlag }
    var isFreelist: Bool { header.flags == BoltFormat.freelistFlag }
    var count: Int { header.count }

    init(_ number: UInt64, _ bytes: [UInt8]) throws(BoltFault) {
        guard bytes.count >= BoltFormat.headerSize else { throw .malformed(page: number, "it is cut off") }
        self.number = number
        self.bytes = bytes
        header = bytes.withUnsafeBytes {
            Header(number: $0.little(0, UInt64.self), flags: $0.little(8, UInt16.self), count: Int($0.little(10, UInt16.self)),
                   overflow: UInt64($0.little(12, UInt32.self)))
        }
        if isLeaf || isBranch {
            guard BoltFormat.headerSize + count * BoltFormat.elementSize <= bytes.count else {
                throw .malformed(page: number, "\(count) elements do not fit into it")
            }
        } else if !isFreelist {
            throw .malformed(page: number, "unknown kind \(header.flags)")
        }
    }

    struct Element {
        var flags: UInt32
        var key: Range<Int>
        var value: Range<Int>
    }

    func element(_ index: Int) throws(BoltFault) -> Element {
        let at = BoltFormat.headerSize + index * BoltFormat.elementSize
        let (flags, start, keySize, valueSize) = bytes.withUnsafeBytes {
            ($0.little(at, UInt32.self), UInt64(at) + UInt64($0.little(at + 4, UInt32.self)), UInt64($0.little(at + 8, UInt32.self)),
             UInt64($0.little(at + 12, UInt32.self)))
        }
        guard start + keySize + valueSize <= UInt64(bytes.count) else { throw .malformed(page: number, "element \(index) lies outside of it") }
        return Element(flags: flags, key: try keyRange(index, start, keySize), value: Int(start + keySize)..<Int(start + keySize + valueSize))
    }

    func branch(_ index: Int) throws(BoltFault) -> (key: Range<Int>, child: UInt64) {
        let at = BoltFormat.headerSize + index * BoltFormat.elementSize
        let (start, keySize, child) = bytes.withUnsafeBytes {
            (UInt64(at) + UInt64($0.little(at, UInt32.self)), UInt64($0.little(at + 4, UInt32.self)), $0.little(at + 8, UInt64.self))
        }
        guard start + keySize <= UInt64(bytes.count) else { throw .malformed(page: number, "element \(index) lies outside of it") }
        return (try keyRange(index, start, keySize), child)
    }

    private func keyRange(_ index: Int, _ start: UInt64, _ size: UInt64) throws(BoltFault) -> Range<Int> {
        guard size > 0, size <= UInt64(BoltFormat.maxKeyBytes) else { throw .malformed(page: number, "element \(index) has a key of \(size) bytes") }
        return Int(start)..<Int(start + size)
    }

    /// The ids on a free list's page.
    func freePages(_ body: (UInt64) throws(BoltFault) -> Void) throws(BoltFault) {
        var at = BoltFormat.headerSize
        var count = UInt64(self.count)
        if count == 0xffff {
            guard bytes.count >= at + 8 else { throw .malformed(page: number, "the free list is cut off") }
            count = bytes.withUnsafeBytes { $0.little(at, UInt64.self) }
            at += 8
        }
        guard count <= UInt64((bytes.count - at) / 8) else { throw .malformed(page: number, "the free list is cut off") }
        for _ in 0..<count {
            try body(bytes.withUnsafeBytes { $0.little(at, UInt64.self) })
            at += 8
        }
    }
}
