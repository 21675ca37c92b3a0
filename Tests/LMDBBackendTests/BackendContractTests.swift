import Base
import LMDBBackend
import Store
import Testing
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

final class ScratchFile {
    let directory: String
    var path: String { directory + "/db" }
    init() {
        var template = Array("/tmp/quarterdeck-test-XXXXXX".utf8CString)
        directory = String(cString: mkdtemp(&template))
    }
    deinit {
        for name in ["/db", "/db-lock", "/copy", "/copy-lock"] { unlink(directory + name) }
        rmdir(directory)
    }
}

/// Both backends, to be tested alike.
enum Kind: CaseIterable { case lmdb, memory }

func make(_ kind: Kind, _ scratch: ScratchFile) throws -> any Backend {
    switch kind {
    case .lmdb: try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 30)
    case .memory: MemoryBackend()
    }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

extension BackendReader {
    func value(_ table: Table, _ key: String) throws -> String? {
        try get(table, bytes(key)) { String(decoding: $0, as: UTF8.self) }
    }
    func pairs(_ table: Table, from: [UInt8] = []) throws -> [[[UInt8]]] {
        var all: [[[UInt8]]] = []
        try scan(table, from: from) { key, value in
            all.append([Array(key), Array(value)])
            return true
        }
        return all
    }
}

@Suite(.serialized) struct BackendContract {
    let scratch = ScratchFile()

    @Test(arguments: Kind.allCases) func committedChangesAreSeen(kind: Kind) throws {
        let backend = try make(kind, scratch)
        var batch = BackendBatch()
        batch.put(.meta, bytes("a"), bytes("1"))
        batch.put(.meta, bytes("b"), bytes(""))
        batch.put(.auth, bytes("a"), bytes("other table"))
        try backend.commit(batch)
        let reader = try backend.makeReader()
        #expect(try reader.value(.meta, "a") == "1")
        #expect(try reader.value(.meta, "b") == "")
        #expect(try reader.value(.meta, "c") == nil)
        #expect(try reader.value(.auth, "a") == "other table")
        batch = BackendBatch()
        batch.put(.meta, bytes("a"), bytes("2"))
        batch.delete(.meta, bytes("b"))
        batch.delete(.meta, bytes("never there"))
        batch.changes.append(.clear(.auth))
        try backend.commit(batch)
        try reader.refresh()
        #expect(try reader.pairs(.meta) == [[bytes("a"), bytes("2")]])
        #expect(try reader.pairs(.auth) == [])
    }

    @Test(arguments: Kind.allCases) func changesOfABatchApplyInOrder(kind: Kind) throws {
        let backend = try make(kind, scratch)
        var batch = BackendBatch()
        batch.put(.key, bytes("k"), bytes("1"))
        batch.delete(.key, bytes("k"))
        batch.put(.key, bytes("k"), bytes("2"))
        batch.put(.lease, bytes("x"), bytes("1"))
        batch.changes.append(.clear(.lease))
        batch.put(.lease, bytes("y"), bytes("2"))
        try backend.commit(batch)
        let reader = try backend.makeReader()
        #expect(try reader.value(.key, "k") == "2")
        #expect(try reader.pairs(.lease) == [[bytes("y"), bytes("2")]])
    }

    @Test(arguments: Kind.allCases) func readersKeepTheirPicture(kind: Kind) throws {
        let backend = try make(kind, scratch)
        var batch = BackendBatch()
        for i in 0..<1000 { batch.put(.key, bytes("k\(10_000 + i)"), bytes("old")) }
        try backend.commit(batch)
        let old = try backend.makeReader()
        let parked = try backend.makeReader()
        parked.release()
        batch = BackendBatch()
        for i in 0..<1000 where i % 3 != 0 { batch.put(.key, bytes("k\(10_000 + i)"), bytes("new")) }
        for i in 0..<1000 where i % 3 == 0 { batch.delete(.key, bytes("k\(10_000 + i)")) }
        try backend.commit(batch)
        let new = try backend.makeReader()
        try parked.refresh()
        #expect(try old.pairs(.key).count == 1000)
        #expect(try old.pairs(.key).allSatisfy { $0[1] == bytes("old") })
        for reader in [new, parked] {
            #expect(try reader.pairs(.key).count == 666)
            #expect(try reader.pairs(.key).allSatisfy { $0[1] == bytes("new") })
        }
        try old.refresh()
        #expect(try old.value(.key, "k10000") == nil)
    }

    @Test(arguments: Kind.allCases) func scanBeginsAtTheKeyAndStopsOnDemand(kind: Kind) throws {
        let backend = try make(kind, scratch)
        var batch = BackendBatch()
        for i in stride(from: 0, to: 2000, by: 2) { batch.put(.key, [UInt8(i >> 8), UInt8(i & 255)], [1]) }
        try backend.commit(batch)
        let reader = try backend.makeReader()
        #expect(try reader.pairs(.key, from: [3, 0]).first?[0] == [3, 0])
        #expect(try reader.pairs(.key, from: [3, 1]).first?[0] == [3, 2])
        #expect(try reader.pairs(.key, from: [3]).first?[0] == [3, 0])
        #expect(try reader.pairs(.key, from: [255]).isEmpty)
        #expect(try reader.pairs(.key).count == 1000)
        var seen = 0
        try reader.scan(.key, from: [1]) { _, _ in
            seen += 1
            return seen < 5
        }
        #expect(seen == 5)
        #expect(try reader.pairs(.cluster).isEmpty)
    }

    @Test(arguments: Kind.allCases) func impossibleKeysAreRefusedAndChangeNothing(kind: Kind) throws {
        let backend = try make(kind, scratch)
        for key in [[], Array(repeating: 7, count: 512)] as [[UInt8]] {
            for table in [Table.meta, .key] {
                var batch = BackendBatch()
                batch.put(.meta, bytes("a"), bytes("1"))
                batch.put(table, key, bytes("x"))
                #expect(throws: BackendError.self) { try backend.commit(batch) }
            }
            let reader = try backend.makeReader()
            #expect(try reader.pairs(.meta).isEmpty)
            #expect(try reader.get(.meta, key) { _ in true } == nil)
        }
    }

    @Test(arguments: Kind.allCases, [1, 2, 3] as [UInt64]) func randomChangesMatchASortedModel(kind: Kind, seed: UInt64) throws {
        let backend = try make(kind, scratch)
        var generator = SeededGenerator(seed: seed)
        func below(_ n: Int) -> Int { Int(generator.next() % UInt64(n)) }
        var model: [Table: [String: String]] = [:]
        var pictures: [(reader: any BackendReader, model: [Table: [String: String]])] = []
        func check(_ reader: any BackendReader, _ model: [Table: [String: String]]) throws {
            for table in [Table.key, .meta] {
                let expected = (model[table] ?? [:]).sorted { compareBytes(bytes($0.key), bytes($1.key)) < 0 }.map { [bytes($0.key), bytes($0.value)] }
                #expect(try reader.pairs(table) == expected, "seed \(seed)")
            }
        }
        for round in 0..<60 {
            var batch = BackendBatch()
            for _ in 0..<below(200) {
                let table = below(4) == 0 ? Table.meta : .key
                let key = "k\(below(600))"
                switch below(200) {
                case 0:
                    batch.changes.append(.clear(table))
                    model[table] = [:]
                case 1..<60:
                    batch.delete(table, bytes(key))
                    model[table]?[key] = nil
                default:
                    let value = String(repeating: "v\(round)", count: below(30))
                    batch.put(table, bytes(key), bytes(value))
                    model[table, default: [:]][key] = value
                }
            }
            try backend.commit(batch)
            if pictures.count > 4 {
                let picture = pictures.remove(at: below(4))
                try check(picture.reader, picture.model)
                try picture.reader.refresh()
                try check(picture.reader, model)
            } else {
                pictures.append((try backend.makeReader(), model))
            }
        }
        for picture in pictures { try check(picture.reader, picture.model) }
    }
}

@Suite(.serialized) struct LMDBFile {
    let scratch = ScratchFile()

    private func open(mapSizeBytes: Int = 1 << 30) throws -> LMDBBackend { try LMDBBackend(path: scratch.path, mapSizeBytes: mapSizeBytes) }

    @Test func reopenKeepsCommits() throws {
        do {
            let backend = try open()
            var batch = BackendBatch()
            for table in Table.allCases { batch.put(table, bytes("k"), bytes(table.name)) }
            try backend.commit(batch)
        }
        let reader = try open().makeReader()
        for table in Table.allCases { #expect(try reader.value(table, "k") == table.name) }
        var info = stat()
        #expect(stat(scratch.path, &info) == 0)
        #expect(info.st_mode & 0o777 == 0o600)
    }

    @Test func secondOpenInOneProcessIsRefused() throws {
        var first: LMDBBackend? = try open()
        #expect(throws: BackendError.self) { try open() }
        #expect(throws: BackendError.self) { try LMDBBackend(path: scratch.directory + "/./db", mapSizeBytes: 1 << 30) }
        // A reader keeps the file open.
        var reader: (any BackendReader)? = try first?.makeReader()
        first = nil
        #expect(throws: BackendError.self) { try open() }
        #expect(reader != nil)
        reader = nil
        _ = try open()
    }

    @Test func fullMapIsAClearErrorAndChangesNothing() throws {
        let backend = try open(mapSizeBytes: 1 << 20)
        var batch = BackendBatch()
        batch.put(.meta, bytes("a"), bytes("1"))
        try backend.commit(batch)
        batch = BackendBatch()
        for i in 0..<3000 { batch.put(.key, bytes("\(100_000 + i)"), Array(repeating: 1, count: 1000)) }
        let error = #expect(throws: BackendError.self) { try backend.commit(batch) }
        #expect(error?.message.contains("1048576 bytes") == true)
        let reader = try backend.makeReader()
        #expect(try reader.value(.meta, "a") == "1")
        #expect(try reader.pairs(.key).isEmpty)
    }

    @Test func sizeFollowsWhatIsStoredAndFreed() throws {
        let backend = try open()
        let empty = backend.size
        var batch = BackendBatch()
        for i in 0..<2000 { batch.put(.key, bytes("\(100_000 + i)"), Array(repeating: 1, count: 1000)) }
        try backend.commit(batch)
        let full = backend.size
        #expect(full.usedBytes - empty.usedBytes > 2_000_000 && full.usedBytes - empty.usedBytes < 3_000_000)
        #expect(full.allocatedBytes >= full.usedBytes)
        batch = BackendBatch()
        for i in 0..<1900 { batch.delete(.key, bytes("\(100_000 + i)")) }
        try backend.commit(batch)
        #expect(backend.size.usedBytes < full.usedBytes / 4)
        #expect(backend.size.allocatedBytes >= full.allocatedBytes)
    }

    @Test func copyIsACompletePictureOfItsOwn() throws {
        let backend = try open()
        var batch = BackendBatch()
        for i in 0..<2000 { batch.put(.key, bytes("\(100_000 + i)"), Array(repeating: UInt8(i & 255), count: 500)) }
        try backend.commit(batch)
        let target = scratch.directory + "/copy"
        try backend.copy(to: target)
        #expect(throws: BackendError.self) { try backend.copy(to: target) }
        batch = BackendBatch()
        batch.changes.append(.clear(.key))
        try backend.commit(batch)
        let copy = try LMDBBackend(path: target, mapSizeBytes: 1 << 30)
        #expect(try copy.makeReader().pairs(.key).count == 2000)
        var info = stat()
        #expect(stat(target, &info) == 0)
        #expect(info.st_mode & 0o777 == 0o600)
    }

    @Test func ascendingRevisionsFillPages() throws {
        let backend = try open()
        let before = backend.size.usedBytes
        for round in 0..<10 {
            var batch = BackendBatch()
            for i in 0..<500 { batch.put(.key, bytes("\(100_000 + round * 500 + i)"), Array(repeating: 1, count: 300)) }
            try backend.commit(batch)
        }
        // 5,000 records of about 320 bytes; split in halves they would take twice as much.
        #expect(backend.size.usedBytes - before < 5000 * 320 * 3 / 2)
    }

    @Test func readersOnOtherThreadsSeeOnlyWholeCommits() async throws {
        let backend = try open()
        func commit(_ round: Int) throws {
            var batch = BackendBatch()
            for i in 0..<50 { batch.put(.key, bytes("k\(i)"), bytes("\(round)")) }
            try backend.commit(batch)
        }
        try commit(0)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for _ in 0..<2 {
                group.addTask {
                    let reader = try backend.makeReader()
                    var whole = true
                    for _ in 0..<300 {
                        try reader.refresh()
                        if Set(try reader.pairs(.key).map { $0[1] }).count != 1 { whole = false }
                        reader.release()
                    }
                    return whole
                }
            }
            for round in 1...60 { try commit(round) }
            for try await whole in group { #expect(whole) }
        }
    }
}

/// What a power cut may leave of a file that was just being created.
@Suite struct StillbornFiles {
    let scratch = ScratchFile()

    private func leave(_ bytes: [UInt8]) throws {
        let file = try #require(fopen(scratch.path, "w"))
        defer { fclose(file) }
        #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    }

    @Test(arguments: [0, 512, 4096, 8192]) func fileThatNeverHadACommitCountsAsMissing(size: Int) throws {
        try leave([UInt8](repeating: 0, count: size))
        let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 30)
        #expect(try backend.makeReader().pairs(.meta).isEmpty)
        var batch = BackendBatch()
        batch.put(.meta, bytes("a"), bytes("1"))
        try backend.commit(batch)
        #expect(try backend.makeReader().value(.meta, "a") == "1")
    }

    /// The first of the two pages arrived.
    @Test func halfOfTheFirstPagesCountsAsMissing() throws {
        do { _ = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 30) }
        #expect(truncate(scratch.path, 4096) == 0)
        let backend = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 30)
        #expect(try backend.makeReader().pairs(.meta).isEmpty)
    }

    /// A file that is longer held something once: never removed.
    @Test func damagedFileIsRefusedAndKept() throws {
        try leave([UInt8](repeating: 0, count: 64 << 10))
        #expect(throws: BackendError.self) { _ = try LMDBBackend(path: scratch.path, mapSizeBytes: 1 << 30) }
        var status = stat()
        #expect(stat(scratch.path, &status) == 0 && status.st_size == 64 << 10)
    }
}
