import Base
import Client
import UI

/// When the next operation is due. Pure: nanoseconds of any one clock go in.
struct WorkloadSchedule: Sendable {
    struct Slot: Hashable, Sendable {
        var isPut: Bool
        var due: Int64
    }

    private struct Series {
        /// nil: none of these.
        var interval: Double?
        var next: Double

        mutating func take(_ pace: WorkloadSettings.Pace, _ now: Int64) -> Int64 {
            let due = pace == .closed ? max(next, Double(now)) : next
            next = due + interval!
            return Int64(due)
        }
    }

    private let pace: WorkloadSettings.Pace
    private var puts: Series
    private var reads: Series

    init(_ settings: WorkloadSettings, at now: Int64) {
        pace = settings.pace
        func series(_ perSecond: Int) -> Series { Series(interval: perSecond > 0 ? 1e9 / Double(perSecond) : nil, next: Double(now)) }
        puts = series(settings.putsPerSecond)
        reads = series(settings.readsPerSecond)
    }

    /// Hands out the slot that is due first; nil when there is nothing to do. With an open pace every slot of the past is handed out
    /// too; with a closed one the time that was lost is lost.
    mutating func take(at now: Int64) -> Slot? {
        guard puts.interval != nil || reads.interval != nil else { return nil }
        let isPut = reads.interval == nil || (puts.interval != nil && puts.next <= reads.next)
        return Slot(isPut: isPut, due: isPut ? puts.take(pace, now) : reads.take(pace, now))
    }
}

/// Which key is next.
struct WorkloadKeys: Sendable {
    private var distribution: WorkloadSettings.Distribution
    private var count: Int
    private var random: SeededGenerator
    private var step = 0
    /// Of the zipf distribution: the share of the keys up to each, ascending to 1.
    private var shares: [Double] = []

    init(_ settings: WorkloadSettings, seed: UInt64) {
        random = SeededGenerator(seed: seed)
        (distribution, count) = (settings.distribution, settings.keyCount)
        change(settings)
    }

    mutating func change(_ settings: WorkloadSettings) {
        (distribution, count) = (settings.distribution, max(1, settings.keyCount))
        guard distribution == .zipf else { return shares = [] }
        // Exponent 1, as measured for web caches: of 64 keys the first gets a fifth.
        var sum = 0.0
        shares = (1...count).map { sum += 1 / Double($0); return sum }
        for index in shares.indices { shares[index] /= sum }
    }

    mutating func next() -> Int {
        switch distribution {
        case .uniform: return Int.random(in: 0..<count, using: &random)
        case .sequential:
            step += 1
            // A put and a get take turns; both go through all keys.
            return step % count
        case .zipf:
            let share = Double.random(in: 0..<1, using: &random)
            var low = 0, high = count - 1
            while low < high {
                let middle = (low + high) / 2
                if shares[middle] < share { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }
}

/// A value that names its write: 16 hexadecimal digits of the number, then filler that follows from it, so that every byte is checked.
enum WorkloadValue {
    private static let head = 17

    static func make(_ number: UInt64, size: Int) -> [UInt8] {
        let digits = String(number, radix: 16).utf8
        var bytes = [UInt8](repeating: UInt8(ascii: "0"), count: 16 - digits.count) + digits + [UInt8(ascii: " ")]
        bytes.reserveCapacity(max(size, head))
        var place = Int(number % 26)
        while bytes.count < size {
            bytes.append(UInt8(ascii: "a") + UInt8(place))
            place = place == 25 ? 0 : place + 1
        }
        return bytes
    }

    /// nil: none that `make` makes.
    static func number(_ bytes: [UInt8]) -> UInt64? {
        guard bytes.count >= head, let number = UInt64(String(decoding: bytes[..<16], as: UTF8.self), radix: 16), bytes == make(number, size: bytes.count) else { return nil }
        return number
    }

    static func found(_ kv: Client.KeyValue) -> ConsistencyChecker.Found {
        ConsistencyChecker.Found(write: number(kv.value), revision: kv.modRevision.rawValue, version: kv.version)
    }
}
