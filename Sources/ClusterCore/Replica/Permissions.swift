import Auth
import Base
import Store

// What a request on keys needs: the whole tree of operations, both branches of every transaction, nested ones included. A transaction that may
// do less than it names is refused all the same. (etcd-api.md §9.4; reliability.md, incident 45)
extension AuthStore {
    public func requirePermission(for request: RangeRequest, by caller: Caller?) throws(ServiceError) {
        try requireRead(request.range, by: caller)
    }

    /// - Parameter keysOfLease: the keys that hang on a lease. Whoever attaches a key to a lease must be able to revoke it, so must be allowed to
    ///   write them all.
    public func requirePermission(for request: PutRequest, by caller: Caller?, keysOfLease: (LeaseID) -> [Key]) throws(ServiceError) {
        let key = KeyRange.single(Key(request.key))
        try requireWrite(key, by: caller)
        if request.lease != .none { try requireWrite(ofAll: keysOfLease(request.lease), by: caller) }
        if request.prevKV { try requireRead(key, by: caller) }
    }

    public func requirePermission(for request: DeleteRangeRequest, by caller: Caller?) throws(ServiceError) {
        try requireWrite(request.range, by: caller)
        if request.prevKV { try requireRead(request.range, by: caller) }
    }

    public func requirePermission(for request: TxnRequest, by caller: Caller?, keysOfLease: (LeaseID) -> [Key]) throws(ServiceError) {
        for compare in request.compare { try requireRead(compare.range, by: caller) }
        for op in request.success { try requirePermission(for: op, by: caller, keysOfLease: keysOfLease) }
        for op in request.failure { try requirePermission(for: op, by: caller, keysOfLease: keysOfLease) }
    }

    private func requirePermission(for op: RequestOp, by caller: Caller?, keysOfLease: (LeaseID) -> [Key]) throws(ServiceError) {
        switch op {
        case .range(let request): try requirePermission(for: request, by: caller)
        case .put(let request): try requirePermission(for: request, by: caller, keysOfLease: keysOfLease)
        case .deleteRange(let request): try requirePermission(for: request, by: caller)
        case .txn(let request): try requirePermission(for: request, by: caller, keysOfLease: keysOfLease)
        // The API refuses these before anybody is asked.
        case .none: throw .permissionDenied
        }
    }

    /// Root may, whatever its token's revision. (etcd's checkLeasePutsKeys)
    func requireWrite(ofAll keys: [Key], by caller: Caller?) throws(ServiceError) {
        guard !keys.isEmpty, !isRoot(caller) else { return }
        for key in keys { try requireWrite(.single(key), by: caller) }
    }
}
