import Base

/// Makes inputs out of inputs: the same ones for the same seed.
struct Mutator {
    private var generator: SeededGenerator
    private let pool: [[UInt8]]
    private let words: [[UInt8]]
    private let maxBytes: Int

    /// - Parameter pool: not empty.
    init(_ target: FuzzTarget, pool: [[UInt8]], seed: UInt64) {
        generator = SeededGenerator(seed: seed)
        self.pool = pool
        words = target.words.map { Array($0.utf8) }
        maxBytes = target.maxBytes
    }

    mutating func next() -> [UInt8] {
        var bytes = pool[below(pool.count)]
        for _ in 0...below(4) { change(&bytes) }
        if bytes.count > maxBytes { bytes.removeLast(bytes.count - maxBytes) }
        return bytes
    }

    private mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<max(1, limit), using: &generator) }
    private mutating func place(_ bytes: [UInt8]) -> Int { below(bytes.count + 1) }
    private mutating func range(_ bytes: [UInt8]) -> Range<Int> {
        let start = place(bytes)
        return start..<min(bytes.count, start + 1 + below(below(2) == 0 ? 8 : 200))
    }

    private mutating func change(_ bytes: inout [UInt8]) {
        switch below(12) {
        case 0 where !bytes.isEmpty: bytes[below(bytes.count)] ^= 1 << UInt8(below(8))
        case 1 where !bytes.isEmpty: bytes[below(bytes.count)] = [0, 1, 0x7f, 0x80, 0xff, UInt8(below(256))][below(6)]
        case 2: bytes.removeSubrange(range(bytes))
        case 3: bytes.removeLast(bytes.count - place(bytes))
        case 4:
            let copied = Array(bytes[range(bytes)])
            bytes.insert(contentsOf: copied, at: place(bytes))
        case 5:
            let other = pool[below(pool.count)]
            bytes.replaceSubrange(range(bytes), with: other[range(other)])
        case 6:
            // The head of one and the tail of another.
            let other = pool[below(pool.count)]
            bytes = Array(bytes[..<place(bytes)] + other[place(other)...])
        case 7: overwrite(&bytes, with: number(bytes))
        case 8:
            var writer = ByteWriter()
            writer.writeVarint(UInt64(bitPattern: extremes[below(extremes.count)]))
            if below(2) == 0 { overwrite(&bytes, with: writer.bytes) } else { bytes.insert(contentsOf: writer.bytes, at: place(bytes)) }
        case 9 where !words.isEmpty, 10 where !words.isEmpty:
            let word = words[below(words.count)]
            if below(3) == 0 { overwrite(&bytes, with: word) } else { bytes.insert(contentsOf: word, at: place(bytes)) }
        default:
            let added = (0...below(6)).map { _ in UInt8.random(in: 0...255, using: &generator) }
            bytes.insert(contentsOf: added, at: place(bytes))
        }
    }

    private let extremes: [Int64] = [0, 1, -1, 2, 127, 128, 255, 256, 65_535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, .max, .min, .max - 1]

    private mutating func overwrite(_ bytes: inout [UInt8], with new: [UInt8]) {
        let start = place(bytes)
        bytes.replaceSubrange(start..<min(bytes.count, start + new.count), with: new)
    }

    /// As a length field may lie: of one to eight bytes, either end first.
    private mutating func number(_ bytes: [UInt8]) -> [UInt8] {
        let value = below(2) == 0 ? extremes[below(extremes.count)] : Int64(bytes.count - place(bytes) + below(3) - 1)
        let size = [1, 2, 4, 8][below(4)]
        let little = (0..<size).map { UInt8(truncatingIfNeeded: value >> Int64(8 * $0)) }
        return below(2) == 0 ? little : little.reversed()
    }
}
