import Base

/// A binary heap of things to happen, first by time, then in the order they were pushed.
struct EventQueue<Element> {
    private var heap: [(time: Instant, order: UInt64, element: Element)] = []
    private var pushed: UInt64 = 0

    private func isBefore(_ a: Int, _ b: Int) -> Bool {
        heap[a].time != heap[b].time ? heap[a].time < heap[b].time : heap[a].order < heap[b].order
    }

    mutating func push(_ element: Element, at time: Instant) {
        heap.append((time, pushed, element))
        pushed += 1
        var i = heap.count - 1
        while i > 0, isBefore(i, (i - 1) / 2) {
            heap.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }

    mutating func pop(notAfter end: Instant) -> (Instant, Element)? {
        guard let first = heap.first, first.time <= end else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var i = 0
            while true {
                var least = i
                if 2 * i + 1 < heap.count, isBefore(2 * i + 1, least) { least = 2 * i + 1 }
                if 2 * i + 2 < heap.count, isBefore(2 * i + 2, least) { least = 2 * i + 2 }
                if least == i { break }
                heap.swapAt(i, least)
                i = least
            }
        }
        return (first.time, first.element)
    }
}
