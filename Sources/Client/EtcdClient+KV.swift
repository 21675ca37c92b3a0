import Base
import Wire

extension EtcdClient {
    /// The newest version of one key; nil when it does not exist.
    public func get(_ key: String, options: CallOptions = CallOptions()) async throws -> KeyValue? {
        try await range(RangeQuery(.single(Key(key))), options: options).kvs.first
    }

    public func get(_ key: [UInt8], options: CallOptions = CallOptions()) async throws -> KeyValue? {
        try await range(RangeQuery(.single(Key(key))), options: options).kvs.first
    }

    public func range(_ query: RangeQuery, options: CallOptions = CallOptions()) async throws -> RangeResult {
        var writer = ByteWriter(capacity: 64)
        query.encode(into: &writer)
        let answer = try await unary(.range, writer.bytes, options: options)
        return try decode(answer, RangeResult.decode)
    }

    /// The keys of a range in pages of `pageSize`, all at one revision: the first page's, unless the query names one.
    /// The query's order and limit are not used.
    public func pages(_ query: RangeQuery, pageSize: Int64 = 1_000, options: CallOptions = CallOptions()) -> RangePages {
        RangePages(client: self, query: query, pageSize: max(pageSize, 1), options: options)
    }

    @discardableResult
    public func put(_ command: PutCommand, options: CallOptions = CallOptions()) async throws -> PutResult {
        var writer = ByteWriter(capacity: 32 + command.key.count + command.value.count)
        command.encode(into: &writer)
        let answer = try await unary(.put, writer.bytes, options: options)
        return try decode(answer, PutResult.decode)
    }

    @discardableResult
    public func put(_ key: [UInt8], _ value: [UInt8], lease: LeaseID = .none, options: CallOptions = CallOptions()) async throws -> PutResult {
        try await put(PutCommand(key, value, lease: lease), options: options)
    }

    @discardableResult
    public func put(_ key: String, _ value: String, lease: LeaseID = .none, options: CallOptions = CallOptions()) async throws -> PutResult {
        try await put(PutCommand(Array(key.utf8), Array(value.utf8), lease: lease), options: options)
    }

    @discardableResult
    public func delete(_ command: DeleteCommand, options: CallOptions = CallOptions()) async throws -> DeleteResult {
        var writer = ByteWriter(capacity: 64)
        command.encode(into: &writer)
        let answer = try await unary(.deleteRange, writer.bytes, options: options)
        return try decode(answer, DeleteResult.decode)
    }

    @discardableResult
    public func delete(_ key: String, options: CallOptions = CallOptions()) async throws -> DeleteResult {
        try await delete(DeleteCommand(.single(Key(key))), options: options)
    }

    @discardableResult
    public func txn(_ transaction: Transaction, options: CallOptions = CallOptions()) async throws -> TransactionResult {
        var writer = ByteWriter(capacity: 256)
        transaction.encode(into: &writer)
        let answer = try await unary(.txn, writer.bytes, options: options)
        return try decode(answer) { (reader) throws(DecodingFault) in try TransactionResult.decode(&reader) }
    }

    /// Forgets the history before `revision`.
    /// - Parameter isPhysical: answer only after it is gone from the disk too.
    @discardableResult
    public func compact(_ revision: Revision, isPhysical: Bool = false, options: CallOptions = CallOptions()) async throws -> ResponseHeader {
        var request = PBCompactionRequest()
        request.revision = revision.rawValue
        request.physical = isPhysical
        return ResponseHeader(try await call(.compact, request, PBCompactionResponse.self, options).header)
    }
}

/// The pages of a range, fetched as they are asked for.
public struct RangePages: AsyncSequence, Sendable {
    public typealias Element = RangeResult
    let client: EtcdClient
    let query: RangeQuery
    let pageSize: Int64
    let options: CallOptions

    public func makeAsyncIterator() -> Iterator { Iterator(pages: self, next: query) }

    public struct Iterator: AsyncIteratorProtocol {
        let pages: RangePages
        /// nil after the last page.
        var next: RangeQuery?

        init(pages: RangePages, next: RangeQuery) {
            self.pages = pages
            var first = next
            first.order = .none
            first.target = .key
            first.limit = pages.pageSize
            self.next = first
        }

        public mutating func next() async throws -> RangeResult? {
            guard var query = next else { return nil }
            let result = try await pages.client.range(query, options: pages.options)
            next = nil
            if result.more, let last = result.kvs.last {
                query.revision = query.revision == .zero ? result.header.revision : query.revision
                let start = Key(last.key + [0])
                switch query.range {
                case .single: return result
                case .bounded(_, let end): query.range = .bounded(start: start, end: end)
                case .from: query.range = .from(start)
                }
                next = query
            }
            return result
        }
    }
}
