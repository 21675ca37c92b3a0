import HeapModule

/// What is to happen, by time. Equal times go by a number drawn when the event was put in, so that no order is taken for granted.
struct EventQueue<Event> {
    private struct Item: Comparable {
        var at: Moment
        var tie: UInt64
        var slot: Int
        static func < (a: Item, b: Item) -> Bool { a.at != b.at ? a.at < b.at : a.tie < b.tie }
        static func == (a: Item, b: Item) -> Bool { a.at == b.at && a.tie == b.tie }
    }
    private var heap = Heap<Item>()
    private var slots: [Event?] = []
    private var free: [Int] = []
    /// Makes `tie` unique.
    private var count: UInt64 = 0

    var isEmpty: Bool { heap.isEmpty }
    var nextAt: Moment? { heap.min?.at }

    /// - Parameter chance: 32 random bits.
    mutating func put(_ event: Event, at: Moment, chance: UInt32) {
        count += 1
        let slot: Int
        if let reused = free.popLast() {
            slot = reused
            slots[slot] = event
        } else {
            slot = slots.count
            slots.append(event)
        }
        heap.insert(Item(at: at, tie: UInt64(chance) << 32 | (count & 0xffff_ffff), slot: slot))
    }

    mutating func take() -> (at: Moment, event: Event)? {
        guard let item = heap.popMin() else { return nil }
        let event = slots[item.slot].take()!
        free.append(item.slot)
        return (item.at, event)
    }
}
