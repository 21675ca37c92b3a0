import Base

// The checks that the API makes before a request is proposed (etcd-api.md §4.1-4.4), and what routing needs to know.

extension RangeRequest {
    public func validate() throws(ServiceError) {
        guard !key.isEmpty else { throw .emptyKey }
        guard sortOrder.isKnown, sortTarget.isKnown else { throw .invalidSortOption }
    }
}

extension PutRequest {
    public func validate() throws(ServiceError) {
        guard !key.isEmpty else { throw .emptyKey }
        guard !(ignoreValue && !value.isEmpty) else { throw .valueProvided }
        guard !(ignoreLease && lease != .none) else { throw .leaseProvided }
    }

    /// What the request counts against the backend quota, in bytes. (§8.2)
    public var quotaCost: Int { 256 + key.count + value.count }
}

extension DeleteRangeRequest {
    public func validate() throws(ServiceError) {
        guard !key.isEmpty else { throw .emptyKey }
    }
}

extension RequestOp {
    /// `budget`: the operations that a nested transaction may still hold.
    func validate(budget: Int) throws(ServiceError) {
        switch self {
        case .none: throw .keyNotFound
        case .range(let request): try request.validate()
        case .put(let request): try request.validate()
        case .deleteRange(let request): try request.validate()
        case .txn(let request): try request.validateOperations(budget: budget)
        }
    }
}

extension TxnRequest {
    /// All API-level checks: number of operations (each level takes its widest list from the budget), the operations
    /// themselves depth first, then keys changed twice.
    public func validate(maxTxnOps: Int) throws(ServiceError) {
        try validateOperations(budget: maxTxnOps)
        _ = try BranchWrites(success)
        _ = try BranchWrites(failure)
    }

    func validateOperations(budget: Int) throws(ServiceError) {
        let width = max(compare.count, success.count, failure.count)
        guard width <= budget else { throw .tooManyOps }
        for one in compare where one.key.isEmpty { throw .emptyKey }
        for op in success { try op.validate(budget: budget - width) }
        for op in failure { try op.validate(budget: budget - width) }
    }

    /// Only ranges in both branches, nothing nested: executed locally, without the log. True for a txn without operations.
    public var isReadOnly: Bool {
        func onlyRanges(_ ops: [RequestOp]) -> Bool {
            ops.allSatisfy { op in
                if case .range = op { return true }
                return false
            }
        }
        return onlyRanges(success) && onlyRanges(failure)
    }

    /// Every range is serializable: no round to the quorum. True for a txn without operations, as in etcd.
    public var isSerializable: Bool {
        func serializable(_ ops: [RequestOp]) -> Bool {
            ops.allSatisfy { op in
                if case .range(let request) = op { return request.serializable }
                return false
            }
        }
        return serializable(success) && serializable(failure)
    }

    /// What the request counts against the backend quota, in bytes: its dearer branch. (§8.2)
    public var quotaCost: Int {
        func cost(_ ops: [RequestOp]) -> Int {
            ops.reduce(0) { sum, op in
                switch op {
                case .put(let request): sum + request.quotaCost
                case .txn(let request): sum + request.quotaCost
                case .none, .range, .deleteRange: sum
                }
            }
        }
        return max(cost(success), cost(failure))
    }
}

/// What one branch writes, gathered in etcd's order, which makes the check asymmetric between sibling transactions.
/// (§4.4: "exact procedure")
private struct BranchWrites {
    /// Ascending, without duplicates.
    var puts = SortedKeys()
    var deletes = KeyRangeSet()

    init(_ ops: [RequestOp]) throws(ServiceError) {
        for case .deleteRange(let request) in ops {
            // Only an empty end is special here: `"\0"` is an end like any other and makes the interval empty.
            deletes.insert(start: request.key, end: request.rangeEnd.isEmpty ? request.key + [0] : request.rangeEnd)
        }
        for case .txn(let request) in ops {
            let then = try BranchWrites(request.success)
            let otherwise = try BranchWrites(request.failure)
            for key in then.puts.keys {
                guard !puts.contains(key), !deletes.contains(key) else { throw .duplicateKey }
                puts.insert(key)
            }
            for key in otherwise.puts.keys {
                // One of the two branches runs: the same key in both is no conflict.
                guard !puts.contains(key) || then.puts.contains(key), !deletes.contains(key) else { throw .duplicateKey }
                puts.insert(key)
            }
            deletes.formUnion(then.deletes)
            deletes.formUnion(otherwise.deletes)
        }
        for case .put(let request) in ops {
            guard !puts.contains(request.key), !deletes.contains(request.key) else { throw .duplicateKey }
            puts.insert(request.key)
        }
    }
}

/// A small ordered set: transactions hold at most some hundred keys.
private struct SortedKeys {
    var keys: [[UInt8]] = []

    private func position(_ key: [UInt8]) -> (at: Int, found: Bool) {
        var low = 0
        var high = keys.count
        while low < high {
            let middle = (low + high) / 2
            let order = compareBytes(keys[middle], key)
            if order == 0 { return (middle, true) }
            if order < 0 { low = middle + 1 } else { high = middle }
        }
        return (low, false)
    }

    func contains(_ key: [UInt8]) -> Bool { position(key).found }
    mutating func insert(_ key: [UInt8]) {
        let (at, found) = position(key)
        if !found { keys.insert(key, at: at) }
    }
}
