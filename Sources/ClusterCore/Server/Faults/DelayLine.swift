import Base

/// What a faulty link holds back, in the order in which it was sent. A value without a clock: times are nanoseconds of any one clock.
///
/// It behaves as the queue before a slow line: it sends one item after the other at the line's rate, each arrives after the delay, and none
/// overtakes another.
struct DelayLine<Item> {
    /// A link that only delays holds what the sender has sent within the delay; beyond this items are dropped.
    static var maxHeldBytes: Int { 32 << 20 }
    /// What waits for a slow line to come free may take this long to send; what comes then is dropped, as a full router does.
    static var maxBacklogNanoseconds: Int64 { 1_000_000_000 }

    private struct Held {
        var item: Item
        var bytes: Int
        var sentAt: Int64
        var due: Int64
    }
    private var held: [Held] = []
    private var first = 0
    private(set) var heldBytes = 0
    /// When the line has sent everything it took.
    private var freeAt = Int64.min
    private var lastDue = Int64.min
    private var treatment = LinkTreatment()

    var isEmpty: Bool { first == held.count }
    var nextDue: Int64? { isEmpty ? nil : held[first].due }

    /// False: the queue was full.
    mutating func put(_ item: Item, bytes: Int, at now: Int64, using generator: inout SeededGenerator) -> Bool {
        if heldBytes + bytes > Self.maxHeldBytes, !isEmpty { return false }
        if treatment.bytesPerSecond != nil, freeAt > now, freeAt - now > Self.maxBacklogNanoseconds { return false }
        held.append(Held(item: item, bytes: bytes, sentAt: now, due: dueTime(bytes, sentAt: now, using: &generator)))
        heldBytes += bytes
        return true
    }

    /// Takes the next item whose time has come.
    mutating func take(at now: Int64) -> Item? {
        guard !isEmpty, held[first].due <= now else { return nil }
        let next = held[first]
        first += 1
        heldBytes -= next.bytes
        if isEmpty { removeAll() } else if first > 1024, first > held.count / 2 {
            held.removeFirst(first)
            first = 0
        }
        return next.item
    }

    mutating func removeAll() {
        held.removeAll()
        first = 0
        heldBytes = 0
    }

    /// From now on the link is like this. What it holds comes when it would have come had it been sent so, at once when the link is sound:
    /// nobody who has healed a link waits for its old delay.
    mutating func change(to new: LinkTreatment, at now: Int64, using generator: inout SeededGenerator) {
        guard new != treatment else { return }
        treatment = new
        if new.isCut { removeAll() }
        freeAt = .min
        lastDue = .min
        for index in first..<held.count {
            held[index].due = dueTime(held[index].bytes, sentAt: held[index].sentAt, notBefore: now, using: &generator)
        }
    }

    private mutating func dueTime(_ bytes: Int, sentAt: Int64, notBefore now: Int64 = .min, using generator: inout SeededGenerator) -> Int64 {
        var departure = sentAt
        if let rate = treatment.bytesPerSecond {
            let nanoseconds = Double(bytes) / Double(max(1, rate)) * 1e9
            departure = max(freeAt, max(sentAt, now)) + Int64(min(nanoseconds, 1e15))
            freeAt = departure
        }
        var delay = treatment.delayMicroseconds * 1_000
        if treatment.jitterMicroseconds > 0 {
            let jitter = treatment.jitterMicroseconds * 1_000
            delay = max(0, delay + Int64.random(in: -jitter...jitter, using: &generator))
        }
        lastDue = max(lastDue, departure + delay)
        return lastDue
    }
}

extension LinkTreatment {
    /// Messages are held back, not only lost or doubled.
    var takesTime: Bool { delayMicroseconds > 0 || jitterMicroseconds > 0 || bytesPerSecond != nil }

    /// How often a message arrives: 0, 1 or 2 times.
    func copies(using generator: inout SeededGenerator) -> Int {
        if isCut { return 0 }
        if lossShare > 0, Double.random(in: 0..<1, using: &generator) < lossShare { return 0 }
        if duplicateShare > 0, Double.random(in: 0..<1, using: &generator) < duplicateShare { return 2 }
        return 1
    }
}
