import GRPC

/// Which call runs on a stream: open addressing over stream numbers. The numbers of a connection are odd and ascending, so
/// half of the number is a nearly perfect hash and both operations take a few nanoseconds.
struct StreamTable {
    private var streams: [StreamID] = Array(repeating: 0, count: 16)
    private var slots: [UInt32] = Array(repeating: 0, count: 16)
    private(set) var count = 0

    @inline(__always)
    private func home(_ stream: StreamID) -> Int { Int(stream >> 1) & (streams.count - 1) }

    func find(_ stream: StreamID) -> Int? {
        var at = home(stream)
        while streams[at] != 0 {
            if streams[at] == stream { return Int(slots[at]) }
            at = (at + 1) & (streams.count - 1)
        }
        return nil
    }

    /// The stream must not be present.
    mutating func insert(_ stream: StreamID, _ slot: Int) {
        if count * 2 >= streams.count { grow() }
        var at = home(stream)
        while streams[at] != 0 { at = (at + 1) & (streams.count - 1) }
        streams[at] = stream
        slots[at] = UInt32(slot)
        count += 1
    }

    mutating func remove(_ stream: StreamID) {
        let mask = streams.count - 1
        var at = home(stream)
        while streams[at] != stream {
            if streams[at] == 0 { return }
            at = (at + 1) & mask
        }
        // Entries behind the gap move up unless they are at home between gap and themselves.
        var next = (at + 1) & mask
        while streams[next] != 0 {
            let ideal = home(streams[next])
            if (next - ideal) & mask >= (next - at) & mask {
                streams[at] = streams[next]
                slots[at] = slots[next]
                at = next
            }
            next = (next + 1) & mask
        }
        streams[at] = 0
        count -= 1
    }

    /// All slots, in no order.
    var all: [Int] {
        var result: [Int] = []
        result.reserveCapacity(count)
        for at in streams.indices where streams[at] != 0 { result.append(Int(slots[at])) }
        return result
    }

    private mutating func grow() {
        let old = (streams, slots)
        streams = Array(repeating: 0, count: old.0.count * 2)
        slots = Array(repeating: 0, count: old.0.count * 2)
        count = 0
        for at in old.0.indices where old.0[at] != 0 { insert(old.0[at], Int(old.1[at])) }
    }
}
