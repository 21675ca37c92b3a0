import Store

// What a request counts against the backend's quota, in bytes. (etcd-api.md §8.2)

extension PutRequest {
    public var quotaCost: Int { 256 + key.count + value.count }
}

extension TxnRequest {
    /// The dearer branch, nested transactions included. Zero when neither branch holds a put: such a transaction always passes.
    public var quotaCost: Int { max(TxnRequest.cost(of: success), TxnRequest.cost(of: failure)) }

    private static func cost(of operations: [RequestOp]) -> Int {
        operations.reduce(0) { sum, operation in
            switch operation {
            case .put(let put): sum + put.quotaCost
            case .txn(let txn): sum + txn.quotaCost
            default: sum
            }
        }
    }
}
