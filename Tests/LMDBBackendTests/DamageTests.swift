import Base
@testable import LMDBBackend
import Store
import Testing
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

private func read(_ path: String) -> [UInt8] {
    let descriptor = open(path, O_RDONLY)
    defer { close(descriptor) }
    var info = stat()
    fstat(descriptor, &info)
    return [UInt8](unsafeUninitializedCapacity: Int(info.st_size)) { buffer, count in count = pread(descriptor, buffer.baseAddress, Int(info.st_size), 0) }
}

private func poke(_ path: String, _ offset: Int, _ byte: UInt8) {
    let descriptor = open(path, O_WRONLY)
    defer { close(descriptor) }
    var byte = byte
    let written = pwrite(descriptor, &byte, 1, off_t(offset))
    precondition(written == 1)
}

/// A small file with all that LMDB has: branches, large values in pages of their own, a list of free pages.
private func makeStore(_ scratch: ScratchFile) throws -> [Table: [[[UInt8]]]] {
    let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28)
    var batch = BackendBatch()
    for i in 0..<120 { batch.put(.key, bytes("key \(1000 + i)"), Array(repeating: UInt8(i), count: 100 + i)) }
    batch.put(.key, bytes("large"), Array(repeating: 9, count: 9000))
    batch.put(.meta, bytes("consistent_index"), [1, 2, 3])
    batch.put(.members, bytes("m"), bytes("{}"))
    try backend.commit(batch)
    batch = BackendBatch()
    for i in 0..<40 { batch.delete(.key, bytes("key \(1000 + 2 * i)")) }
    batch.put(.key, bytes("larger"), Array(repeating: 8, count: 5000))
    batch.put(.meta, bytes("empty"), [])
    try backend.commit(batch)
    return try everything(backend)
}

private func everything(_ backend: LMDBBackend) throws -> [Table: [[[UInt8]]]] {
    let reader = try backend.makeReader()
    var all: [Table: [[[UInt8]]]] = [:]
    for table in Table.allCases { all[table] = try reader.pairs(table) }
    return all
}

@Suite(.serialized) struct LMDBDamage {
    let scratch = ScratchFile()

    /// Every byte of the file, each with another of its bits: found, or of no consequence. Never a crash, never other data.
    @Test(arguments: [false, true]) func aFlippedBitIsNeverReadAsData(isReadOnly: Bool) throws {
        let sound = try makeStore(scratch)
        let whole = read(scratch.path)
        var found = 0
        var unnoticed = 0
        for at in stride(from: isReadOnly ? 3 : 0, to: whole.count, by: 11) {
            poke(scratch.path, at, whole[at] ^ 1 << UInt8(at / 11 % 8))
            do {
                let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28, isReadOnly: isReadOnly)
                let all = try everything(backend)
                #expect(all == sound, "other data after a flip at \(at)")
                unnoticed += 1
            } catch let error as BackendError {
                #expect(error.isDamage || error.message.contains("store has"), "flip at \(at): \(error)")
                found += 1
            }
            poke(scratch.path, at, whole[at])
        }
        #expect(read(scratch.path) == whole, "opening and reading a file changes nothing in it")
        // What goes unnoticed lies in pages that are free or in the unused middle of a page.
        #expect(found > 2000, "\(found) found, \(unnoticed) unnoticed")
    }

    @Test func everyByteOfARecordCounts() throws {
        let value = bytes("precious value")
        do {
            let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28)
            var batch = BackendBatch()
            batch.put(.lease, bytes("a key"), value)
            try backend.commit(batch)
        }
        let whole = read(scratch.path)
        // The newest copy is the last one in the file.
        let start = try #require((0..<whole.count - value.count).last { whole[$0..<$0 + value.count].elementsEqual(value) })
        for at in start - 5..<start + value.count + RecordSeal.size {
            for bit in 0..<8 {
                poke(scratch.path, at, whole[at] ^ 1 << UInt8(bit))
                defer { poke(scratch.path, at, whole[at]) }
                let met = Met()
                let reader = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28, damageMet: { met.errors.append($0) }).makeReader()
                let error = #expect(throws: BackendError.self, "byte \(at - start), bit \(bit)") { try reader.pairs(.lease) }
                #expect(error?.isDamage == true && error?.message.contains("table lease") == true && error?.message.contains("add it again") == true)
                #expect(met.errors == [error])
            }
        }
        let reader = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28).makeReader()
        #expect(try reader.value(.lease, "a key") == "precious value")
    }

    private final class Met: @unchecked Sendable { var errors: [BackendError] = [] }

    @Test func getVerifiesToo() throws {
        do {
            let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28)
            var batch = BackendBatch()
            batch.put(.key, bytes("12345678_12345678"), bytes("precious"))
            batch.put(.meta, bytes("other"), bytes("sound"))
            try backend.commit(batch)
        }
        let whole = read(scratch.path)
        let at = try #require((0..<whole.count - 8).last { whole[$0..<$0 + 8].elementsEqual(bytes("precious")) })
        poke(scratch.path, at, 0)
        let reader = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28).makeReader()
        let error = #expect(throws: BackendError.self) { try reader.value(.key, "12345678_12345678") }
        #expect(error?.message.contains("record revision 3544952156018063160.") == true, "\(String(describing: error))")
        #expect(try reader.value(.meta, "other") == "sound")
    }

    /// The checksum knows where the record belongs: one that was written to another place is not taken.
    @Test func sealCoversTableAndKey() {
        let value = bytes("value")
        let key = bytes("key")
        func seal(_ table: Table, _ key: [UInt8], _ value: [UInt8]) -> UInt32 {
            key.withUnsafeBytes { key in value.withUnsafeBytes { RecordSeal.checksum(table, key, $0) } }
        }
        let one = seal(.lease, key, value)
        #expect(one != seal(.meta, key, value) && one != seal(.lease, bytes("kez"), value) && one != seal(.lease, bytes("keyv"), bytes("alue")))
    }

    @Test func fileOfAnotherFormatIsRefused() throws {
        // As a version without marks would have left it: a table of its own.
        do { _ = try makeStore(scratch) }
        var bytesOfFile = read(scratch.path)
        let mark = bytes("quarterdeck-format")
        for at in 0..<bytesOfFile.count - mark.count where bytesOfFile[at..<at + mark.count].elementsEqual(mark) {
            // The format's number stands behind the key.
            poke(scratch.path, at + mark.count, UInt8(ascii: "7"))
        }
        let error = #expect(throws: BackendError.self) { try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28) }
        #expect(error?.message.contains("format \"7\"") == true && error?.message.contains("reads format \"1\"") == true)
        bytesOfFile = read(scratch.path)
        for at in 0..<bytesOfFile.count - mark.count where bytesOfFile[at..<at + mark.count].elementsEqual(mark) { poke(scratch.path, at, UInt8(ascii: "r")) }
        let second = #expect(throws: BackendError.self) { try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28) }
        #expect(second?.message.contains("no mark of a format") == true || second?.isDamage == true)
    }

    @Test func whatIsNoStoreIsRefused() throws {
        for content in [String(repeating: "no database at all ", count: 1000), String(repeating: "\u{1}", count: 8193)] {
            unlink(scratch.path)
            let descriptor = open(scratch.path, O_WRONLY | O_CREAT, 0o600)
            _ = content.withCString { write(descriptor, $0, content.utf8.count) }
            close(descriptor)
            let error = #expect(throws: BackendError.self) { try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28) }
            #expect(error?.isDamage == true)
        }
    }

    @Test func cutFileIsDamaged() throws {
        do { _ = try makeStore(scratch) }
        let whole = read(scratch.path)
        var refused = 0
        for pages in 0..<whole.count / 4096 where pages > 0 {
            truncate(scratch.path, off_t(whole.count - 4096 * pages))
            do {
                let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28)
                _ = try everything(backend)
            } catch { refused += 1 }
        }
        #expect(refused > whole.count / 4096 / 2)
    }

    @Test func readingOnlyLeavesNoTrace() throws {
        let sound = try makeStore(scratch)
        unlink(scratch.path + "-lock")
        let before = read(scratch.path)
        do {
            let backend = try LMDBBackend(path: scratch.path, isReadOnly: true)
            #expect(try everything(backend) == sound)
        }
        #expect(read(scratch.path) == before && access(scratch.path + "-lock", F_OK) != 0)
        unlink(scratch.path)
        #expect(throws: BackendError.self) { try LMDBBackend(path: scratch.path, isReadOnly: true) }
        #expect(access(scratch.path, F_OK) != 0)
    }

    /// What the walk expects of LMDB holds whatever LMDB did: splits, merges, overflow pages, free lists of several pages.
    @Test(arguments: [1, 2, 3] as [UInt64]) func filesThatWereWorkedOnAreSound(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        func below(_ n: Int) -> Int { Int(generator.next() % UInt64(n)) }
        for _ in 0..<12 {
            let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 28)
            var pinned: (any BackendReader)?
            for round in 0..<15 {
                if below(4) == 0 { pinned = try backend.makeReader() }
                if below(4) == 0 { pinned = nil }
                var batch = BackendBatch()
                for _ in 0..<below(1500) {
                    let table = Table.allCases[below(3)]
                    let key = bytes("k\(below(4000))" + String(repeating: "x", count: below(4) == 0 ? below(300) : 0))
                    switch below(1000) {
                    case 0: batch.changes.append(.clear(table))
                    case 1..<(round % 3 == 0 ? 700 : 300): batch.delete(table, key)
                    default: batch.put(table, key, Array(repeating: UInt8(round), count: below(30) == 0 ? below(20_000) : below(200)))
                    }
                }
                try backend.commit(batch)
                try LMDBFileCheck.run(path: scratch.path)
            }
            _ = pinned
            let copy = scratch.directory + "/copy"
            unlink(copy)
            try backend.copy(to: copy)
            try LMDBFileCheck.run(path: copy)
        }
    }
}
