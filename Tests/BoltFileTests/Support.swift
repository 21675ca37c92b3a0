import Base
@testable import BoltFile

/// A file in memory.
final class MemoryFile: BoltSource, BoltSink {
    var bytes: [UInt8] = []
    /// Reads so far.
    private(set) var reads = 0
    init(_ bytes: [UInt8] = []) { self.bytes = bytes }

    var size: UInt64 { UInt64(bytes.count) }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BoltFault) {
        reads += 1
        precondition(offset + UInt64(buffer.count) <= size, "a read beyond the end")
        bytes.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + buffer.count])) }
    }
    func write(_ raw: UnsafeRawBufferPointer, at offset: UInt64) throws(BoltFault) {
        let end = Int(offset) + raw.count
        if bytes.count < end { bytes.append(contentsOf: repeatElement(0, count: end - bytes.count)) }
        bytes.replaceSubrange(Int(offset)..<end, with: raw)
    }
}

typealias Entries = [(key: [UInt8], value: [UInt8])]

func write(_ buckets: [(name: String, entries: Entries)]) throws(BoltFault) -> MemoryFile {
    let file = MemoryFile()
    var writer = BoltWriter(to: file, bufferBytes: 10_000)
    for (name, entries) in buckets {
        try writer.begin(bucket: Array(name.utf8))
        for (key, value) in entries { try writer.put(key, value) }
    }
    let size = try writer.finish()
    precondition(size == file.size && size % 4_096 == 0, "\(size) announced, \(file.size) written")
    return file
}

func read(_ source: MemoryFile, maxPageBytes: Int = 64 << 20) throws(BoltFault) -> [(name: String, entries: Entries)] {
    let walk = try BoltWalk(try BoltReader(source, maxPageBytes: maxPageBytes))
    var all: [(name: String, entries: Entries)] = []
    for bucket in walk.buckets {
        var entries: Entries = []
        var cursor = walk.cursor(bucket)
        while try cursor.advance() {
            let value = cursor.withEntry { _, value in [UInt8](value) }
            entries.append((cursor.key, value))
        }
        all.append((bucket.text, entries))
    }
    try walk.finish()
    return all
}

func isEqual(_ a: [(name: String, entries: Entries)], _ b: [(name: String, entries: Entries)]) -> Bool {
    a.count == b.count && zip(a, b).allSatisfy { a, b in
        a.name == b.name && a.entries.count == b.entries.count && zip(a.entries, b.entries).allSatisfy { $0.key == $1.key && $0.value == $1.value }
    }
}

/// Ascending keys of random lengths, and values of which a few are larger than a page.
func randomEntries(_ count: Int, _ generator: inout SeededGenerator) -> Entries {
    var keys: Set<[UInt8]> = []
    while keys.count < count {
        keys.insert((0..<Int.random(in: 1...(Int.random(in: 0..<50, using: &generator) == 0 ? 3_000 : 24), using: &generator)).map { _ in
            UInt8.random(in: 0...255, using: &generator)
        })
    }
    return keys.sorted { compareBytes($0, $1) < 0 }.map { key in
        let size = switch Int.random(in: 0..<40, using: &generator) {
        case 0: Int.random(in: 3_000...30_000, using: &generator)
        case 1, 2: 0
        default: Int.random(in: 1...300, using: &generator)
        }
        return (key, [UInt8](repeating: UInt8.random(in: 0...255, using: &generator), count: size))
    }
}
