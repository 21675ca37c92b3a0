import Base

/// One change not known to be in the backend yet.
struct OverlaySlot {
    var change: StoredChange
    /// The value of Table.key: an encoded key-value, for a tombstone one with only the key.
    var kv: [UInt8]
}

/// A fixed number of slots, filled in order.
///
/// `@unchecked Sendable`: a slot is written once, by the store, before any snapshot that covers it is made; readers touch only
/// slots below the sequence number that their snapshot carries. `count` belongs to the store and to deinit.
final class OverlayChunk: @unchecked Sendable {
    /// Enough to make chunks rare, few enough that a durable chunk goes soon.
    static let capacity = 256
    /// A chunk with more bytes than this takes no further slot: its memory must not wait for 256 large values.
    static let maxBytes = 256 << 10

    /// Sequence number of slot 0.
    let base: Int
    let first: StoredChange
    private let slots: UnsafeMutablePointer<OverlaySlot>
    fileprivate var count = 0
    fileprivate var bytes = 0

    init(base: Int, first: StoredChange) {
        self.base = base
        self.first = first
        slots = .allocate(capacity: OverlayChunk.capacity)
    }

    deinit {
        slots.deinitialize(count: count)
        slots.deallocate()
    }

    fileprivate var isFull: Bool { count == OverlayChunk.capacity || bytes >= OverlayChunk.maxBytes }

    fileprivate func append(_ slot: OverlaySlot) {
        (slots + count).initialize(to: slot)
        count += 1
        bytes += slot.kv.count
    }

    /// Precondition: below the reader's own bound.
    func slot(_ at: Int) -> OverlaySlot { slots[at] }
    func change(_ at: Int) -> StoredChange { slots[at].change }
}

/// The changes that are not in the backend yet (and some that already are), in order. A copy is O(1) and never changes,
/// while the store appends to and trims its own.
struct Overlay: Sendable {
    private(set) var chunks: [OverlayChunk] = []
    /// Sequence numbers count changes from the start of the process; this is the next one.
    private(set) var end = 0

    /// The oldest change here; every change since is here too.
    var first: StoredChange? { chunks.first?.first }
    /// The sequence number of the oldest change here.
    var start: Int { chunks.first?.base ?? end }

    mutating func append(_ change: StoredChange, _ kv: [UInt8]) {
        if chunks.isEmpty || chunks[chunks.count - 1].isFull {
            chunks.append(OverlayChunk(base: end, first: change))
        }
        chunks[chunks.count - 1].append(OverlaySlot(change: change, kv: kv))
        end += 1
    }

    /// Lets go of chunks whose slots are all below `sequence`.
    mutating func trim(below sequence: Int) {
        var gone = 0
        while gone < chunks.count && chunkEnd(gone) <= sequence { gone += 1 }
        if gone > 0 { chunks.removeFirst(gone) }
    }

    private func chunkEnd(_ at: Int) -> Int {
        at + 1 < chunks.count ? chunks[at + 1].base : end
    }

    func find(_ change: StoredChange) -> [UInt8]? {
        guard let first, !(change < first) else { return nil }
        var low = 1
        var high = chunks.count
        while low < high {
            let middle = (low + high) / 2
            if change < chunks[middle].first { high = middle } else { low = middle + 1 }
        }
        let chunk = chunks[low - 1]
        var from = 0
        var to = chunkEnd(low - 1) - chunk.base
        while from < to {
            let middle = (from + to) / 2
            let there = chunk.change(middle)
            if there == change { return chunk.slot(middle).kv }
            if there < change { from = middle + 1 } else { to = middle }
        }
        return nil
    }

    /// Visits changes at or behind `from` in order until `body` returns false.
    func forEach(from: StoredChange, _ body: (OverlaySlot) -> Bool) {
        for at in chunks.indices {
            let count = chunkEnd(at) - chunks[at].base
            if count > 0 && chunks[at].change(count - 1) < from { continue }
            for slot in 0..<count where !(chunks[at].change(slot) < from) {
                if !body(chunks[at].slot(slot)) { return }
            }
        }
    }

    /// Visits changes from `sequence` on, in order.
    func forEach(fromSequence sequence: Int, _ body: (OverlaySlot) -> Void) {
        for at in chunks.indices where chunkEnd(at) > sequence {
            let chunk = chunks[at]
            for slot in max(0, sequence - chunk.base)..<(chunkEnd(at) - chunk.base) { body(chunk.slot(slot)) }
        }
    }
}

/// Held by every snapshot of one stretch between compactions: while one lives, the store deletes nothing that it could read.
final class SnapshotEpoch: Sendable {}
