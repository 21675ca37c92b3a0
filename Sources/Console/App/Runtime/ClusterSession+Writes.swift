import Base
import Client
import UI

/// Writes: each guarded by what the person saw, each answered with what it replaced, so that it can be undone.
extension ClusterSession {
    private func comparison(_ key: KeyBytes, _ expecting: Expectation) -> [Comparison] {
        switch expecting {
        case .modRevision(let revision): [Comparison(.single(key), .equal, .modRevision(Revision(revision)))]
        case .absent: [Comparison(.single(key), .equal, .version(0))]
        case .none: []
        }
    }

    /// What a refused guard found: the key as it is now.
    private func current(_ result: TransactionResult) -> UI.KeyValue? {
        for case .range(let range) in result.outcomes { return range.kvs.first.map { UI.KeyValue($0) } }
        return nil
    }

    func put(_ id: RequestID, _ key: KeyBytes, _ value: [UInt8], _ lease: UInt64, _ expecting: Expectation) async {
        let start = Clock.monotonicNanoseconds()
        let command = PutCommand(key.bytes, value, lease: LeaseID(Int64(bitPattern: lease)), wantsPrevious: true)
        do {
            let result = try await client.txn(Transaction(if: comparison(key, expecting), then: [.put(command)], else: [.range(RangeQuery(.single(key)))]))
            guard result.succeeded else { return finish(id, .conflict(current: current(result)), since: start) }
            var removed: [UI.KeyValue] = []
            for case .put(let put) in result.outcomes { removed += put.previous.map { [UI.KeyValue($0)] } ?? [] }
            finish(id, .done(revision: result.header.revision.rawValue, detail: nil), since: start, removed: removed)
        } catch {
            finish(id, .failed(Self.text(of: error)), since: start)
        }
    }

    func delete(_ id: RequestID, _ key: KeyBytes, _ expecting: Expectation) async {
        let start = Clock.monotonicNanoseconds()
        do {
            let result = try await client.txn(Transaction(if: comparison(key, expecting), then: [.delete(DeleteCommand(.single(key), wantsPrevious: true))],
                                                          else: [.range(RangeQuery(.single(key)))]))
            guard result.succeeded else { return finish(id, .conflict(current: current(result)), since: start) }
            var removed: [UI.KeyValue] = []
            for case .delete(let delete) in result.outcomes { removed += delete.previous.map { UI.KeyValue($0) } }
            finish(id, .done(revision: result.header.revision.rawValue, detail: nil), since: start, removed: removed, removedCount: Int64(removed.count))
        } catch {
            finish(id, .failed(Self.text(of: error)), since: start)
        }
    }

    func rename(_ id: RequestID, _ from: KeyBytes, _ to: KeyBytes, _ value: [UInt8], _ lease: UInt64, _ modRevision: Int64) async {
        let start = Clock.monotonicNanoseconds()
        guard from != to else { return finish(id, .failed("the new name is the old one"), since: start) }
        do {
            let result = try await client.txn(Transaction(
                if: comparison(from, .modRevision(modRevision)) + comparison(to, .absent),
                then: [.delete(DeleteCommand(.single(from), wantsPrevious: true)), .put(PutCommand(to.bytes, value, lease: LeaseID(Int64(bitPattern: lease))))],
                else: [.range(RangeQuery(.single(from)))]))
            guard result.succeeded else { return finish(id, .conflict(current: current(result)), since: start) }
            var removed: [UI.KeyValue] = []
            for case .delete(let delete) in result.outcomes { removed += delete.previous.map { UI.KeyValue($0) } }
            finish(id, .done(revision: result.header.revision.rawValue, detail: nil), since: start, removed: removed)
        } catch {
            finish(id, .failed(Self.text(of: error)), since: start)
        }
    }

    /// Each key under its own guard: one that changed meanwhile stays, the others go.
    func deleteKeys(_ id: RequestID, _ keys: [KeySummary]) async {
        let start = Clock.monotonicNanoseconds()
        var removed: [UI.KeyValue] = []
        var revision: Int64?
        var refused = 0
        do {
            // Nested transactions: one request for up to 50 keys, each with its own condition, and all at one revision. (etcd allows
            // 128 operations in a transaction.)
            for chunk in stride(from: 0, to: keys.count, by: 50).map({ keys[$0..<min($0 + 50, keys.count)] }) {
                let each = chunk.map { summary in
                    Transaction.Operation.transaction(Transaction(
                        if: comparison(summary.key, summary.modRevision > 0 ? .modRevision(summary.modRevision) : .none),
                        then: [.delete(DeleteCommand(.single(summary.key), wantsPrevious: true))]))
                }
                let result = try await client.txn(Transaction(then: each))
                revision = result.header.revision.rawValue
                for case .transaction(let nested) in result.outcomes {
                    if !nested.succeeded { refused += 1 }
                    for case .delete(let delete) in nested.outcomes { removed += delete.previous.map { UI.KeyValue($0) } }
                }
            }
            finish(id, .done(revision: revision, detail: refused == 0 ? nil : "\(refused) changed meanwhile and stayed"), since: start, removed: removed,
                   removedCount: Int64(removed.count))
        } catch {
            let done = removed.isEmpty ? "" : " (\(removed.count) were deleted before)"
            finish(id, .failed(Self.text(of: error) + done), since: start, removed: removed, removedCount: Int64(removed.count))
        }
    }

    func deletePrefix(_ id: RequestID, _ prefix: KeyBytes, _ undoLimit: Int) async {
        let start = Clock.monotonicNanoseconds()
        do {
            let count = try await client.range(RangeQuery(.prefix(prefix), countOnly: true)).count
            let result = try await client.delete(DeleteCommand(.prefix(prefix), wantsPrevious: count < Int64(undoLimit)))
            finish(id, .done(revision: result.header.revision.rawValue, detail: nil), since: start, removed: result.previous.map { UI.KeyValue($0) },
                   removedCount: result.deleted)
        } catch {
            finish(id, .failed(Self.text(of: error)), since: start)
        }
    }

    func restore(_ id: RequestID, _ keys: [UI.KeyValue]) async {
        let start = Clock.monotonicNanoseconds()
        var revision: Int64?
        var restored = 0, existing = 0, withoutLease = 0
        do {
            for key in keys {
                func attempt(_ lease: UInt64) async throws -> TransactionResult {
                    try await client.txn(Transaction(if: comparison(key.key, .absent),
                                                     then: [.put(PutCommand(key.key.bytes, key.value, lease: LeaseID(Int64(bitPattern: lease))))]))
                }
                let result: TransactionResult
                do {
                    result = try await attempt(key.summary.lease)
                } catch let error as EtcdError where key.summary.lease != 0 && error.isService(.leaseNotFound) {
                    result = try await attempt(0)
                    withoutLease += 1
                }
                revision = result.header.revision.rawValue
                if result.succeeded { restored += 1 } else { existing += 1 }
            }
            guard existing == 0 || restored > 0 else { return finish(id, .conflict(current: nil), since: start) }
            var facts: [String] = []
            if existing > 0 { facts.append("\(existing) exist again and stayed as they are") }
            if withoutLease > 0 { facts.append("\(withoutLease) without their lease, which is gone") }
            finish(id, .done(revision: revision, detail: facts.isEmpty ? nil : facts.joined(separator: ", ")), since: start)
        } catch {
            finish(id, .failed(Self.text(of: error) + (restored > 0 ? " (\(restored) of \(keys.count) are back)" : "")), since: start)
        }
    }
}
