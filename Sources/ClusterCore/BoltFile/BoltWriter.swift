import Base

/// Writes a new file from entries that come in order: leaves as they fill, branches above them as they fill, the two meta pages last. Memory: one
/// page a level of the tree, or the largest entry, and the buffer for writing.
///
/// `begin` a bucket (names ascending), `put` its entries (keys ascending), any number of times; then `finish`.
public struct BoltWriter {
    public static let pageSize = 4_096
    /// A bucket of at most this size lies in its parent's page. (bbolt)
    static let maxInlineBytes = pageSize / 4
    /// Even, so that bbolt writes its next transaction, an odd one, into page 1 and keeps page 0 until that is durable.
    private static let transaction: UInt64 = 2

    private var output: PageOutput
    private var buckets = BoltTree(flags: BoltFormat.bucketFlag)
    private var current: (name: [UInt8], tree: BoltTree)?

    public init(to sink: any BoltSink, bufferBytes: Int = 256 << 10) {
        output = PageOutput(sink: sink, bufferBytes: bufferBytes)
    }

    /// So far.
    public var writtenBytes: UInt64 { output.next * UInt64(BoltWriter.pageSize) }

    public mutating func begin(bucket name: [UInt8]) throws(BoltFault) {
        try end()
        current = (name, BoltTree(flags: 0))
    }

    public mutating func put(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(BoltFault) {
        precondition(current != nil, "an entry before the first bucket")
        guard try current!.tree.put(key, value, &output) else { throw .outOfOrder(bucket: String(decoding: current!.name, as: UTF8.self)) }
    }

    public mutating func put(_ key: [UInt8], _ value: [UInt8]) throws(BoltFault) {
        var fault: BoltFault?
        key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                do throws(BoltFault) { try put(key, value) } catch { fault = error }
            }
        }
        if let fault { throw fault }
    }

    private mutating func end() throws(BoltFault) {
        guard var (name, tree) = current else { return }
        current = nil
        var header = ByteWriter(capacity: 16)
        if let page = tree.inlinePage(maxBytes: BoltWriter.maxInlineBytes) {
            header.write(UInt64(0))
            header.write(UInt64(0))
            header.write(page)
        } else {
            header.write(try tree.finish(&output))
            header.write(UInt64(0))
        }
        var inOrder = false
        var fault: BoltFault?
        name.withUnsafeBytes { name in
            header.bytes.withUnsafeBytes { header in
                do throws(BoltFault) { inOrder = try buckets.put(name, header, &output) } catch { fault = error }
            }
        }
        if let fault { throw fault }
        guard inOrder else { throw .outOfOrder(bucket: "(root)") }
    }

    /// - Returns: the size of the file in bytes, a multiple of the page size.
    public mutating func finish() throws(BoltFault) -> UInt64 {
        try end()
        let root = try buckets.finish(&output)
        var freelist = ByteWriter(capacity: BoltWriter.pageSize)
        let freelistPage = output.next
        freelist.writePageHeader(freelistPage, BoltFormat.freelistFlag, count: 0, overflow: 0)
        try output.append(freelist.bytes)
        try output.flush()
        for number in 0..<UInt64(2) {
            let meta = BoltMeta(pageSize: BoltWriter.pageSize, root: root, freelist: freelistPage, pageCount: output.next,
                                transaction: BoltWriter.transaction - number)
            try output.sink.put(meta.page(number: number), at: number * UInt64(BoltWriter.pageSize))
        }
        return writtenBytes
    }
}

extension BoltSink {
    fileprivate func put(_ bytes: [UInt8], at offset: UInt64) throws(BoltFault) {
        var fault: BoltFault?
        bytes.withUnsafeBytes { raw in
            do throws(BoltFault) { try write(raw, at: offset) } catch { fault = error }
        }
        if let fault { throw fault }
    }
}

/// Numbers pages and gathers them into large writes.
struct PageOutput {
    let sink: any BoltSink
    private let bufferBytes: Int
    private var buffer: [UInt8] = []
    /// The next page's number: the first two are the meta pages.
    private(set) var next: UInt64 = 2
    private var offset = UInt64(2 * BoltWriter.pageSize)

    init(sink: any BoltSink, bufferBytes: Int) {
        self.sink = sink
        self.bufferBytes = bufferBytes
    }

    /// Appends a page; what is missing of its last piece is filled up.
    mutating func append(_ page: [UInt8]) throws(BoltFault) {
        let pieces = (page.count + BoltWriter.pageSize - 1) / BoltWriter.pageSize
        next += UInt64(pieces)
        buffer.append(contentsOf: page)
        buffer.append(contentsOf: [UInt8](repeating: 0, count: pieces * BoltWriter.pageSize - page.count))
        if buffer.count >= bufferBytes { try flush() }
    }

    mutating func flush() throws(BoltFault) {
        try sink.put(buffer, at: offset)
        offset += UInt64(buffer.count)
        buffer.removeAll(keepingCapacity: buffer.capacity <= 2 * bufferBytes)
    }
}

/// A page that fills up: leaf or branch.
private struct Node {
    private var elements: [(flags: UInt32, child: UInt64, data: Int, keySize: Int, valueSize: Int)] = []
    private var data: [UInt8] = []
    /// Pages of this level that were written.
    var written = 0
    private(set) var firstKey: [UInt8] = []
    let isLeaf: Bool

    init(isLeaf: Bool) { self.isLeaf = isLeaf }

    var count: Int { elements.count }
    var firstChild: UInt64 { elements[0].child }
    var bytes: Int { BoltFormat.headerSize + elements.count * BoltFormat.elementSize + data.count }
    func fits(_ size: Int) -> Bool { bytes + BoltFormat.elementSize + size <= BoltWriter.pageSize }

    mutating func append(flags: UInt32, _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        if elements.isEmpty { firstKey = [UInt8](key) }
        elements.append((flags, 0, data.count, key.count, value.count))
        data.append(contentsOf: key)
        data.append(contentsOf: value)
    }
    mutating func append(_ key: [UInt8], child: UInt64) {
        if elements.isEmpty { firstKey = key }
        elements.append((0, child, data.count, key.count, 0))
        data.append(contentsOf: key)
    }

    func page(number: UInt64) -> [UInt8] {
        var writer = ByteWriter(capacity: bytes)
        let overflow = (bytes + BoltWriter.pageSize - 1) / BoltWriter.pageSize - 1
        writer.writePageHeader(number, isLeaf ? BoltFormat.leafFlag : BoltFormat.branchFlag, count: elements.count, overflow: overflow)
        for (index, element) in elements.enumerated() {
            // From this element to its key.
            let position = UInt32((elements.count - index) * BoltFormat.elementSize + element.data)
            if isLeaf {
                writer.write(element.flags)
                writer.write(position)
                writer.write(UInt32(element.keySize))
                writer.write(UInt32(element.valueSize))
            } else {
                writer.write(position)
                writer.write(UInt32(element.keySize))
                writer.write(element.child)
            }
        }
        writer.write(data)
        return writer.bytes
    }

    /// - Returns: the page's number and its smallest key.
    mutating func flush(_ output: inout PageOutput) throws(BoltFault) -> (number: UInt64, key: [UInt8]) {
        let number = output.next
        try output.append(page(number: number))
        written += 1
        elements.removeAll(keepingCapacity: true)
        data.removeAll(keepingCapacity: data.capacity <= 4 * BoltWriter.pageSize)
        return (number, firstKey)
    }
}

/// One bucket's tree, built from its leaves up.
struct BoltTree {
    private let flags: UInt32
    private var leaf = Node(isLeaf: true)
    /// Branches, the level above the leaves first.
    private var levels: [Node] = []
    private var previous: [UInt8] = []

    init(flags: UInt32) { self.flags = flags }

    /// False: the key does not follow the one before.
    mutating func put(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ output: inout PageOutput) throws(BoltFault) -> Bool {
        guard key.count > 0, key.count <= BoltFormat.maxKeyBytes else { throw .badKey(bytes: key.count) }
        guard value.count <= BoltFormat.maxValueBytes - BoltFormat.maxKeyBytes else {
            throw .tooLarge(bytes: UInt64(value.count), bound: UInt64(BoltFormat.maxValueBytes - BoltFormat.maxKeyBytes))
        }
        guard previous.withUnsafeBytes({ compareBytes($0, key) < 0 }) else { return false }
        previous.removeAll(keepingCapacity: true)
        previous.append(contentsOf: key)
        // One that is too large for a page has one for itself, with overflow.
        if leaf.count > 0, !leaf.fits(key.count + value.count) { try flushLeaf(&output) }
        leaf.append(flags: flags, key, value)
        return true
    }

    private mutating func flushLeaf(_ output: inout PageOutput) throws(BoltFault) {
        let (number, key) = try leaf.flush(&output)
        try add(key, number, level: 0, &output)
    }

    private mutating func add(_ key: [UInt8], _ child: UInt64, level: Int, _ output: inout PageOutput) throws(BoltFault) {
        if level == levels.count { levels.append(Node(isLeaf: false)) }
        // Two children at least, whatever their keys' size: so each level is shorter than the one below.
        if levels[level].count >= 2, !levels[level].fits(key.count) {
            let (number, first) = try levels[level].flush(&output)
            try add(first, number, level: level + 1, &output)
        }
        levels[level].append(key, child: child)
    }

    /// The whole bucket as one page inside its parent's; nil when it is too large. It is then over.
    func inlinePage(maxBytes: Int) -> [UInt8]? {
        leaf.written == 0 && leaf.bytes <= maxBytes ? leaf.page(number: 0) : nil
    }

    /// Writes what is left.
    /// - Returns: the root's number.
    mutating func finish(_ output: inout PageOutput) throws(BoltFault) -> UInt64 {
        if leaf.written == 0 { return try leaf.flush(&output).number }
        if leaf.count > 0 { try flushLeaf(&output) }
        var level = 0
        while levels[level].written > 0 || levels[level].count > 1 {
            let (number, key) = try levels[level].flush(&output)
            try add(key, number, level: level + 1, &output)
            level += 1
        }
        return levels[level].firstChild
    }
}
