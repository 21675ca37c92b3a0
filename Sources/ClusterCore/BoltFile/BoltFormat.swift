import Base

// The numbers of bbolt's file format. (shared/reference/etcd-storage.md §2)

/// Where the pages of a file come from: a file, or memory in tests. Reads at any place.
public protocol BoltSource {
    /// In bytes.
    var size: UInt64 { get }
    /// Fills `buffer` with the bytes from `offset` on, or throws. Never asked for bytes beyond `size`.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BoltFault)
}

/// Where the pages of a new file go. Ascending, each byte once, but for the first two pages, which come last.
public protocol BoltSink {
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(BoltFault)
}

/// Why a file cannot be read or written.
public enum BoltFault: Error, Equatable, Sendable, CustomStringConvertible {
    /// The source or the sink failed.
    case io(String)
    /// Neither of the two meta pages is valid.
    case noMeta
    /// The meta page speaks of more pages than the file has.
    case truncated(expectedBytes: UInt64, actualBytes: UInt64)
    /// A reference to a page that the file does not have.
    case pageOutOfRange(UInt64)
    /// A cycle, or two parents of one page.
    case pageUsedTwice(UInt64)
    /// A page whose content contradicts itself.
    case malformed(page: UInt64, String)
    /// Deeper than a tree of that many pages can be.
    case tooDeep
    /// A page, key or value over the bound in memory.
    case tooLarge(bytes: UInt64, bound: UInt64)
    /// The keys of a bucket do not ascend.
    case outOfOrder(bucket: String)
    /// A key without bytes, or over 32 KiB.
    case badKey(bytes: Int)

    public var description: String {
        switch self {
        case .io(let what): what
        case .noMeta: "this is no bbolt database: neither of its first two pages is valid"
        case .truncated(let expected, let actual): "the database is cut off: it should have \(expected) bytes and has \(actual)"
        case .pageOutOfRange(let page): "the database is damaged: it refers to page \(page), which is not in the file"
        case .pageUsedTwice(let page): "the database is damaged: page \(page) is used twice"
        case .malformed(let page, let what): "the database is damaged: page \(page): \(what)"
        case .tooDeep: "the database is damaged: its tree is too deep"
        case .tooLarge(let bytes, let bound): "the database holds something of \(bytes) bytes in one piece; \(bound) are supported"
        case .outOfOrder(let bucket): "the database is damaged: the keys of bucket \(bucket) do not ascend"
        case .badKey(let bytes): "a key of \(bytes) bytes does not fit bbolt's format"
        }
    }
}

enum BoltFormat {
    static let magic: UInt32 = 0xed0c_daed
    static let version: UInt32 = 2
    /// Page header and the header of an element: both 16 bytes.
    static let headerSize = 16
    static let elementSize = 16
    static let metaSize = 64
    /// In place of the free list's page: it is not stored, free is what nobody refers to.
    static let noFreelist = UInt64.max
    static let maxKeyBytes = 32_768
    static let maxValueBytes = Int(Int32.max) - 1

    static let branchFlag: UInt16 = 0x01
    static let leafFlag: UInt16 = 0x02
    static let freelistFlag: UInt16 = 0x10
    static let metaFlag: UInt16 = 0x04
    static let bucketFlag: UInt32 = 0x01

    /// FNV-1a, 64 bits.
    static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return hash
    }
}

/// What a meta page says: where the tree of buckets begins, and how far the file reaches.
public struct BoltMeta: Hashable, Sendable {
    public var pageSize: Int
    public var root: UInt64
    /// nil: not stored.
    public var freelist: UInt64?
    /// Pages in use or free; what follows them in the file counts for nothing.
    public var pageCount: UInt64
    public var transaction: UInt64

    public var sizeBytes: UInt64 { pageCount * UInt64(pageSize) }

    /// - Parameter bytes: page header and body, 80 bytes.
    init?(page bytes: UnsafeRawBufferPointer) {
        let body = UnsafeRawBufferPointer(rebasing: bytes[BoltFormat.headerSize..<BoltFormat.headerSize + BoltFormat.metaSize])
        guard body.little(0, UInt32.self) == BoltFormat.magic, body.little(4, UInt32.self) == BoltFormat.version,
              body.little(56, UInt64.self) == BoltFormat.checksum(UnsafeRawBufferPointer(rebasing: body[..<56])) else { return nil }
        let size = body.little(8, UInt32.self)
        guard size.nonzeroBitCount == 1, (512...1 << 24).contains(size) else { return nil }
        pageSize = Int(size)
        root = body.little(16, UInt64.self)
        let free = body.little(32, UInt64.self)
        freelist = free == BoltFormat.noFreelist ? nil : free
        pageCount = body.little(40, UInt64.self)
        transaction = body.little(48, UInt64.self)
    }

    init(pageSize: Int, root: UInt64, freelist: UInt64?, pageCount: UInt64, transaction: UInt64) {
        self.pageSize = pageSize
        self.root = root
        self.freelist = freelist
        self.pageCount = pageCount
        self.transaction = transaction
    }

    /// A whole page.
    func page(number: UInt64) -> [UInt8] {
        var writer = ByteWriter(capacity: pageSize)
        writer.writePageHeader(number, BoltFormat.metaFlag, count: 0, overflow: 0)
        writer.write(BoltFormat.magic)
        writer.write(BoltFormat.version)
        writer.write(UInt32(pageSize))
        writer.write(UInt32(0))
        writer.write(root)
        writer.write(UInt64(0))
        writer.write(freelist ?? BoltFormat.noFreelist)
        writer.write(pageCount)
        writer.write(transaction)
        writer.write(writer.bytes.withUnsafeBytes { BoltFormat.checksum(UnsafeRawBufferPointer(rebasing: $0[BoltFormat.headerSize...])) })
        writer.bytes.append(contentsOf: repeatElement(0, count: pageSize - writer.bytes.count))
        return writer.bytes
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always)
    func little<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T { T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self)) }
}

extension ByteWriter {
    mutating func writePageHeader(_ number: UInt64, _ flags: UInt16, count: Int, overflow: Int) {
        write(number)
        write(flags)
        write(UInt16(count))
        write(UInt32(overflow))
    }
}
