import Base

/// The store at one moment: reads at its revision, or at any older one down to the compact revision, go on working whatever
/// the store does meanwhile. Any thread may use it; each read needs a `BackendReader` of that thread, refreshed after the
/// snapshot was taken.
///
/// A snapshot is to be used and let go: while it lives, a later compaction prunes but deletes nothing from the backend.
public struct StoreSnapshot: Sendable {
    public let revision: Revision
    /// Reads below fail with `.compacted`; -1: never compacted.
    public let compactRevision: Revision
    let index: KeyIndex
    let overlay: Overlay
    /// Keeps physical deletion away from what this snapshot may read. nil for views that the store uses by itself.
    let epoch: SnapshotEpoch?

    /// Number of keys alive.
    public var keyCount: Int { index.liveCount }

    /// All options of §4.1. Errors: `.futureRev`, `.compacted`; `.internal` when the backend fails.
    public func range(_ request: RangeRequest, reader: any BackendReader) throws(ServiceError) -> RangeResult {
        do throws(ReadFault) { return try evaluateRange(request, reader: reader) } catch { throw error.serviceError }
    }

    /// `range` and `RangeResult.encode` in one pass: values go from the overlay or the backend straight into `writer`.
    /// The header's revision is the snapshot's. On a throw `writer` is as before.
    public func rangeEncoded(
        _ request: RangeRequest, header: ResponseHeader, reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ServiceError) {
        let start = writer.bytes.count
        header.at(revision).encodeAsField(into: &writer)
        do throws(ReadFault) {
            let outcome = try appendRange(request, reader: reader, into: &writer)
            writer.writeField(3, outcome.more)
            writer.writeField(4, outcome.count)
        } catch {
            writer.bytes.removeSubrange(start...)
            throw error.serviceError
        }
    }

    /// A transaction that holds only ranges (`TxnRequest.isReadOnly`). Errors as for `range`.
    public func readOnlyTxn(_ request: TxnRequest, reader: any BackendReader) throws(ServiceError) -> TxnResult {
        precondition(request.isReadOnly, "a transaction that writes was routed as read-only")
        do throws(ReadFault) {
            let path = try choosePath(request, reader: reader)
            try checkRanges(request, path)
            let ops = path[0] ? request.success : request.failure
            var responses: [OpResult] = []
            responses.reserveCapacity(ops.count)
            for case .range(let range) in ops { responses.append(.range(try evaluateRange(range, reader: reader))) }
            return TxnResult(revision: revision, succeeded: path[0], responses: responses)
        } catch {
            throw error.serviceError
        }
    }
}

/// Why a read did not succeed.
enum ReadFault: Error {
    /// The request's fault: an answer for the client.
    case service(ServiceError)
    /// The disk's fault, or a change that should be there is not.
    case backend(BackendError)

    var serviceError: ServiceError {
        switch self {
        case .service(let error): error
        case .backend(let error): ServiceError(.internal, "etcdserver: \(error.description)")
        }
    }
}

extension StoreSnapshot {
    /// Lends the stored bytes of `change`.
    @inline(__always)
    func withValue<R>(
        _ change: StoredChange, _ reader: any BackendReader, _ body: (UnsafeRawBufferPointer) -> R
    ) throws(ReadFault) -> R {
        if let kv = overlay.find(change) { return kv.withUnsafeBytes(body) }
        let key = changeKey(main: change.main, sub: change.sub, tombstone: change.isTombstone)
        let result: R?
        do throws(BackendError) { result = try reader.get(.key, key, body) } catch { throw .backend(error) }
        guard let result else {
            throw .backend(BackendError(operation: "read", code: 0, message: "revision \(change.main).\(change.sub) is missing"))
        }
        return result
    }
}
