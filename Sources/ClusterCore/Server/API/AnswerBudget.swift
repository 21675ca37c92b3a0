import NIOCore
import Replica
import Synchronization

/// Bytes of answers that wait for their clients to read them, over all connections of a listener: however many clients ask for everything at once,
/// they share this much memory. (incident 32) Loops publish what changes in steps of `step`, so that small answers cost no atomic.
final class AnswerBudget: Sendable {
    static let step = 256 << 10
    private let limit: Int
    private let total = Atomic<Int>(0)

    init(limit: Int) { self.limit = limit }

    func add(_ bytes: Int) { total.add(bytes, ordering: .relaxed) }
    /// Reads of ranges wait. Those of one key, whose size a request bounds, wait only at twice as much: large answers that nobody takes
    /// do not keep small ones.
    func isFull(forOneKey: Bool) -> Bool { total.load(ordering: .relaxed) >= (forOneKey ? 2 * limit : limit) }
    /// Reads that waited may go on.
    var hasRoom: Bool { total.load(ordering: .relaxed) < limit / 2 }
}

/// Reads that were granted while the budget was used up: asked again, first come first served, when half of it is free; refused with
/// "too many requests" when that takes too long.
struct ReadsWithoutRoom {
    /// How often the loop looks for room that other loops have made.
    static let interval: TimeAmount = .milliseconds(10)
    /// Asked again at once: each may bring a large answer before the first of them shows in the budget.
    static let batch = 4

    private var tokens: [RequestToken] = []
    private var head = 0
    var isEmpty: Bool { head == tokens.count }
    var isTimed = false

    mutating func append(_ token: RequestToken) { tokens.append(token) }

    mutating func next(_ count: Int) -> [RequestToken] {
        let taken = Array(tokens[head..<min(head + count, tokens.count)])
        head += taken.count
        if head * 2 > tokens.count {
            tokens.removeFirst(head)
            head = 0
        }
        return taken
    }

    /// Those for which it holds, taken out.
    mutating func remove(where condition: (RequestToken) -> Bool) -> [RequestToken] {
        let kept = tokens[head...]
        var removed: [RequestToken] = []
        tokens = kept.filter { token in
            guard condition(token) else { return true }
            removed.append(token)
            return false
        }
        head = 0
        return removed
    }
}
