import Synchronization

/// Bytes of requests that have arrived in part, over all connections of a listener: thousands of clients that each leave something unfinished share
/// this much memory. Connections publish what changes in steps of `step`, so that ordinary requests cost no atomic.
final class PartialRequests: Sendable {
    static let step = 256 << 10
    private let limit: Int
    private let total = Atomic<Int>(0)

    init(limit: Int) { self.limit = limit }

    func add(_ bytes: Int) { total.add(bytes, ordering: .relaxed) }
    var isFull: Bool { total.load(ordering: .relaxed) > limit }
}
