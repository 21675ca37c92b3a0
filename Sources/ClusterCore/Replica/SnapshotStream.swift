import Base
import Raft
import Store

// A store's state on its way to a follower that fell behind the log: what the pieces hold, apart from how they travel.

/// A piece of a streamed snapshot. Checksums are the carrier's.
public struct SnapshotPiece: Sendable {
    public enum Kind: UInt8, Sendable {
        /// Index (8, little-endian) | term (8). What counts in the end is what the meta table says.
        case begin = 0
        /// Table (1) | count (varint) | that many keys and values, each behind its length (varint).
        case chunk = 1
        /// Number of keys in all chunks (8, little-endian).
        case end = 2
    }
    public var kind: Kind
    public var payload: [UInt8]
    public init(kind: Kind, payload: [UInt8]) {
        self.kind = kind
        self.payload = payload
    }
}

/// Why a stream makes no state.
public enum SnapshotStreamFault: Error, Sendable, CustomStringConvertible {
    case noState
    case outOfOrder(SnapshotPiece.Kind)
    case incomplete(arrived: UInt64, announced: UInt64)
    case decoding(DecodingFault)
    public var description: String {
        switch self {
        case .noState: "there is no applied index in it"
        case .outOfOrder(let kind): "\(kind) came out of order"
        case .incomplete(let arrived, let announced): "\(arrived) of \(announced) entries arrived"
        case .decoding(let fault): "\(fault)"
        }
    }
}

/// Cuts one picture of a backend into pieces, one in memory at a time.
public struct SnapshotCutter {
    public static let chunkBytes = 1 << 20
    public let metadata: SnapshotMetadata
    private let reader: any BackendReader
    private let chunkBytes: Int
    private var hasBegun = false
    private var hasEnded = false
    /// The meta table goes last: a copy that ends early has no applied index and is never mistaken for a whole one.
    private var tables = Table.allCases.filter { $0 != .meta && !(planted(.leavesLeasesOutOfSnapshots) && $0 == .lease)
        && !(planted(.leavesAccountsOutOfSnapshots) && [.auth, .authUsers, .authRoles].contains($0)) } + [.meta]
    private var from: [UInt8] = []
    public private(set) var entries: UInt64 = 0

    /// - Parameter reader: stays in use until the last piece; the caller releases it.
    public init(_ reader: any BackendReader, chunkBytes: Int = SnapshotCutter.chunkBytes) throws {
        guard let metadata = try ReplicaState.position(in: reader) else { throw SnapshotStreamFault.noState }
        self.reader = reader
        self.metadata = metadata
        self.chunkBytes = chunkBytes
    }

    /// nil after the end.
    public mutating func next() throws -> SnapshotPiece? {
        guard hasBegun else {
            hasBegun = true
            var writer = ByteWriter(capacity: 16)
            writer.write(metadata.position.index.rawValue)
            writer.write(metadata.position.term.rawValue)
            return SnapshotPiece(kind: .begin, payload: writer.bytes)
        }
        while let table = tables.first {
            var chunk = ByteWriter(capacity: min(chunkBytes, 64 << 10))
            var count: UInt64 = 0
            var rest: [UInt8]?
            try reader.scan(table, from: from) { key, value in
                if chunk.bytes.count >= chunkBytes {
                    rest = [UInt8](key)
                    return false
                }
                chunk.writeVarint(UInt64(key.count))
                chunk.write(key)
                chunk.writeVarint(UInt64(value.count))
                chunk.write(value)
                count += 1
                return true
            }
            from = rest ?? []
            if rest == nil { tables.removeFirst() }
            guard count > 0 else { continue }
            entries += count
            var payload = ByteWriter(capacity: chunk.bytes.count + 11)
            payload.write(table.rawValue)
            payload.writeVarint(count)
            payload.write(chunk.bytes)
            return SnapshotPiece(kind: .chunk, payload: payload.bytes)
        }
        guard !hasEnded else { return nil }
        hasEnded = true
        var writer = ByteWriter(capacity: 8)
        writer.write(entries)
        return SnapshotPiece(kind: .end, payload: writer.bytes)
    }
}

/// Puts the pieces together in a backend of its own, beside the one in use.
public struct SnapshotAssembly {
    public let backend: any Backend
    private var received: UInt64 = 0

    /// - Parameter backend: empty.
    public init(into backend: any Backend) { self.backend = backend }

    /// - Returns: what the whole stands for, with the last piece.
    public mutating func take(_ piece: SnapshotPiece) throws -> SnapshotMetadata? {
        switch piece.kind {
        case .begin: throw SnapshotStreamFault.outOfOrder(.begin)
        case .chunk:
            try take(chunk: piece.payload)
            return nil
        case .end:
            guard piece.payload.count == 8 else { throw SnapshotStreamFault.decoding(.truncated) }
            let announced = piece.payload.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            guard announced == received else { throw SnapshotStreamFault.incomplete(arrived: received, announced: announced) }
            let reader = try backend.makeReader()
            defer { reader.release() }
            guard let metadata = try ReplicaState.position(in: reader) else { throw SnapshotStreamFault.noState }
            return metadata
        }
    }

    private mutating func take(chunk bytes: [UInt8]) throws {
        var batch = BackendBatch()
        let fault: DecodingFault? = bytes.withUnsafeBytes { raw in
            do throws(DecodingFault) {
                var reader = ByteReader(raw)
                let number = try reader.readByte()
                guard let table = Table(rawValue: number) else { throw .malformed("table \(number)") }
                let count = try reader.readVarint()
                guard count <= UInt64(raw.count) else { throw .truncated }
                for _ in 0..<count {
                    let key = try reader.readCounted()
                    batch.put(table, key, try reader.readCounted())
                }
                guard reader.isAtEnd else { throw .malformed("bytes behind a snapshot chunk") }
                received += count
                return nil
            } catch { return error }
        }
        if let fault { throw SnapshotStreamFault.decoding(fault) }
        try backend.commit(batch)
    }
}
