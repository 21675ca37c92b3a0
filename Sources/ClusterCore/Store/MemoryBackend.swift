import Base

/// The in-memory twin of the durable backend: the same tables, order and commit semantics. A commit is "durable" as long
/// as the object lives, so a simulated member that restarts keeps its `MemoryBackend`.
///
/// One thread at a time, commits and reads alike (tests, simulator), hence `@unchecked Sendable`.
public final class MemoryBackend: Backend, @unchecked Sendable {
    fileprivate var tables: [SortedTable]
    /// Commits that still succeed; the next one fails and changes nothing. nil: none fails.
    public var commitsBeforeFailure: Int?
    public private(set) var commits = 0
    /// LMDB's bound on a key's length.
    public static let maxKeyBytes = 511

    public init() { tables = Array(repeating: SortedTable(), count: Table.allCases.count) }

    /// An independent copy, cheap: a member's disk at this moment.
    public init(copying other: MemoryBackend) { tables = other.tables }

    public func commit(_ batch: BackendBatch) throws(BackendError) {
        if let left = commitsBeforeFailure {
            if left == 0 { throw BackendError(operation: "commit", code: 5, message: "Input/output error") }
            commitsBeforeFailure = left - 1
        }
        for change in batch.changes {
            guard case .put(let table, let key, _) = change, key.isEmpty || key.count > Self.maxKeyBytes else { continue }
            throw BackendError(operation: "put into \(table.name)", code: 22, message: "a key has 1 to \(Self.maxKeyBytes) bytes, this one \(key.count)")
        }
        for change in batch.changes {
            switch change {
            case .put(let table, let key, let value): tables[Int(table.rawValue)].put(key, value)
            case .delete(let table, let key): tables[Int(table.rawValue)].delete(key)
            case .clear(let table): tables[Int(table.rawValue)] = SortedTable()
            }
        }
        commits += 1
    }

    public func makeReader() throws(BackendError) -> any BackendReader { MemoryBackendReader(self) }

    public var size: BackendSize {
        let bytes = Int64(tables.reduce(0) { $0 + $1.bytes })
        return BackendSize(allocatedBytes: bytes, usedBytes: bytes)
    }
}

private final class MemoryBackendReader: BackendReader {
    private let backend: MemoryBackend
    private var tables: [SortedTable]?

    init(_ backend: MemoryBackend) {
        self.backend = backend
        tables = backend.tables
    }
    func refresh() { tables = backend.tables }
    func release() { tables = nil }

    private func table(_ table: Table) -> SortedTable {
        guard let tables else { preconditionFailure("backend reader used after release: refresh it first") }
        return tables[Int(table.rawValue)]
    }

    func get<R>(_ table: Table, _ key: [UInt8], _ body: (UnsafeRawBufferPointer) -> R) -> R? {
        self.table(table).value(of: key).map { $0.withUnsafeBytes(body) }
    }

    func scan(_ table: Table, from: [UInt8], _ body: (_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool) {
        self.table(table).scan(from: from, body)
    }
}

/// A sorted table as a row of sorted chunks. A copy is O(1); the first change after a copy duplicates the list of chunks
/// and the one chunk it touches.
private struct SortedTable {
    typealias Pair = (key: [UInt8], value: [UInt8])
    private static let maxChunk = 256
    /// No chunk is empty.
    private var chunks: [[Pair]] = []
    private(set) var bytes = 0

    /// The chunk that holds `key` or would; 0 when there is none.
    private func chunk(of key: [UInt8]) -> Int {
        var low = 0
        var high = chunks.count
        while low < high {
            let middle = (low + high) / 2
            if compareBytes(chunks[middle][0].key, key) <= 0 { low = middle + 1 } else { high = middle }
        }
        return max(0, low - 1)
    }

    private static func position(of key: [UInt8], in chunk: [Pair]) -> (index: Int, found: Bool) {
        var low = 0
        var high = chunk.count
        while low < high {
            let middle = (low + high) / 2
            let order = compareBytes(chunk[middle].key, key)
            if order == 0 { return (middle, true) }
            if order < 0 { low = middle + 1 } else { high = middle }
        }
        return (low, false)
    }

    mutating func put(_ key: [UInt8], _ value: [UInt8]) {
        guard !chunks.isEmpty else {
            chunks = [[(key, value)]]
            bytes = key.count + value.count
            return
        }
        let c = chunk(of: key)
        let (i, found) = Self.position(of: key, in: chunks[c])
        if found {
            bytes += value.count - chunks[c][i].value.count
            chunks[c][i].value = value
            return
        }
        bytes += key.count + value.count
        if i == chunks[c].count, c == chunks.count - 1, i >= Self.maxChunk {
            // Appending in order, the usual case, fills chunks.
            chunks.append([(key, value)])
            return
        }
        chunks[c].insert((key, value), at: i)
        if chunks[c].count > Self.maxChunk {
            let half = chunks[c].count / 2
            let upper = Array(chunks[c][half...])
            chunks[c].removeLast(upper.count)
            chunks.insert(upper, at: c + 1)
        }
    }

    mutating func delete(_ key: [UInt8]) {
        guard !chunks.isEmpty else { return }
        let c = chunk(of: key)
        let (i, found) = Self.position(of: key, in: chunks[c])
        guard found else { return }
        bytes -= key.count + chunks[c][i].value.count
        chunks[c].remove(at: i)
        if chunks[c].isEmpty { chunks.remove(at: c) }
    }

    func value(of key: [UInt8]) -> [UInt8]? {
        guard !chunks.isEmpty else { return nil }
        let chunk = chunks[chunk(of: key)]
        let (i, found) = Self.position(of: key, in: chunk)
        return found ? chunk[i].value : nil
    }

    func scan(from: [UInt8], _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Bool) {
        guard !chunks.isEmpty else { return }
        var c = chunk(of: from)
        var i = Self.position(of: from, in: chunks[c]).index
        while c < chunks.count {
            while i < chunks[c].count {
                let pair = chunks[c][i]
                let goesOn = pair.key.withUnsafeBytes { key in pair.value.withUnsafeBytes { value in body(key, value) } }
                if !goesOn { return }
                i += 1
            }
            c += 1
            i = 0
        }
    }
}
