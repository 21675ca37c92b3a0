import Base

// What read-only and writing transactions share: choosing branches and checking ranges, both on the state before the
// transaction. (etcd-api.md §4.4)

/// Which branch every transaction on the way takes, in the order of a depth-first walk along the chosen branches.
typealias TxnPath = [Bool]

extension StoreSnapshot {
    /// Evaluates all compares of the whole tree that the chosen branches reach.
    func choosePath(_ request: TxnRequest, reader: any BackendReader) throws(ReadFault) -> TxnPath {
        var path: TxnPath = []
        try choosePath(request, reader: reader, into: &path)
        return path
    }

    private func choosePath(_ request: TxnRequest, reader: any BackendReader, into path: inout TxnPath) throws(ReadFault) {
        var holds = true
        for compare in request.compare where holds { holds = try evaluate(compare, reader: reader) }
        path.append(holds)
        for case .txn(let nested) in holds ? request.success : request.failure {
            try choosePath(nested, reader: reader, into: &path)
        }
    }

    /// Refuses ranges at revisions that cannot be read, as the state is before the transaction.
    func checkRanges(_ request: TxnRequest, _ path: TxnPath) throws(ReadFault) {
        var at = 0
        try checkRanges(request, path, &at)
    }

    private func checkRanges(_ request: TxnRequest, _ path: TxnPath, _ at: inout Int) throws(ReadFault) {
        let ops = path[at] ? request.success : request.failure
        at += 1
        for op in ops {
            switch op {
            case .range(let range):
                // Unlike a plain range, a negative revision is not "current" here: it is compared as it stands.
                if range.revision == .zero { continue }
                if range.revision > revision { throw .service(.futureRev) }
                if range.revision < compactRevision { throw .service(.compacted) }
            case .txn(let nested): try checkRanges(nested, path, &at)
            case .none, .put, .deleteRange: continue
            }
        }
    }

    private func evaluate(_ compare: Compare, reader: any BackendReader) throws(ReadFault) -> Bool {
        var isEmpty = true
        var holds = true
        func check(_ entry: KeyEntry) throws(ReadFault) {
            guard entry.isLive else { return }
            isEmpty = false
            if compare.target == .value {
                let order: Int? = try withValue(entry.latest, reader) { raw in
                    guard let view = KeyValueView(raw) else { return nil }
                    return compare.operandBytes.withUnsafeBytes { compareBytes(view.value(in: raw), $0) }
                }
                guard let order else {
                    throw .malformed(entry.latest)
                }
                holds = compare.accepts(order)
            } else {
                holds = compare.accepts(compare.order(of: entry))
            }
        }
        if compare.rangeEnd.isEmpty {
            if let entry = index.find(compare.key) { try check(entry) }
        } else {
            var fault: ReadFault?
            index.forEach(in: KeyBounds(compare.range)) { _, entry in
                do throws(ReadFault) { try check(entry.pointee) } catch { fault = error }
                return holds && fault == nil
            }
            if let fault { throw fault }
        }
        // An absent key has no value to compare with; its numbers are all 0.
        if isEmpty { return compare.target == .value ? false : compare.accepts(compare.order(of: KeyEntry())) }
        return holds
    }
}

extension Compare {
    /// Of a VALUE compare; empty when another member of the oneof is set.
    fileprivate var operandBytes: [UInt8] {
        if case .value(let bytes) = operand { return bytes }
        return []
    }

    /// How the key's number stands to the operand (0 when another member of the oneof is set); 0 for an unknown target.
    fileprivate func order(of entry: KeyEntry) -> Int {
        func order(_ actual: Int64, _ wanted: Int64?) -> Int {
            let wanted = wanted ?? 0
            return actual == wanted ? 0 : actual < wanted ? -1 : 1
        }
        switch target {
        case .version:
            if case .version(let n) = operand { return order(entry.version, n) }
            return order(entry.version, nil)
        case .createRevision:
            if case .createRevision(let n) = operand { return order(entry.createRevision, n) }
            return order(entry.createRevision, nil)
        case .modRevision:
            if case .modRevision(let n) = operand { return order(entry.latestMain, n) }
            return order(entry.latestMain, nil)
        case .lease:
            if case .lease(let n) = operand { return order(entry.lease, n) }
            return order(entry.lease, nil)
        default:
            return 0
        }
    }

    fileprivate func accepts(_ order: Int) -> Bool {
        switch result {
        case .equal: order == 0
        case .notEqual: order != 0
        case .greater: order > 0
        case .less: order < 0
        default: true
        }
    }
}
