import Base
@testable import Log
@testable import Raft
@testable import Replica
@testable import Store

// What lies on a member's disk: the log's segments and the tables of the store. A snapshot from a peer ends up in the same tables.

extension FuzzTargets {
    static let storage: [FuzzTarget] = [
        FuzzTarget(name: "log-segments", seeds: LogImage.seeds, maxBytes: 8 << 10, run: LogImage.recover),
        FuzzTarget(name: "store-tables", seeds: StoreImage.seeds, words: ["consistent_index", "term", "confState", "finishedCompactRev", "scheduledCompactRev", "\"voters\":[", "\"auto_leave\":"],
                   run: StoreImage.load),
        FuzzTarget(name: "store-records", seeds: StoreImage.recordSeeds, words: ["\"id\":", "\"peerURLs\":[", "\"voters\":[", "\\u0041", "18446744073709551615"], run: StoreImage.decodeRecords),
    ]
}

/// A log directory: a byte of options, a piece for each segment but the last, which is the rest.
private enum LogImage {
    private static let identity = LogIdentity(cluster: ClusterID(0xc1), member: MemberID(0xa1))
    private static let directory = "/log"
    /// The checksums are made right first: else no fuzzer gets past the first record. The damage is then that of a program, not of a disk.
    private static let repairsChecksums: UInt8 = 1
    private static let cutsTail: UInt8 = 2
    private static let hasTwoSegments: UInt8 = 4
    /// The first segment is named 0.
    private static let startsAtZero: UInt8 = 8
    /// A segment as small as the program makes one.
    private static let options = LogOptions(segmentSizeBytes: 2_048)

    static func seeds() -> [[UInt8]] {
        func image(_ fill: (WriteAheadLog) throws -> Void) -> [[UInt8]] {
            let disk = MemoryDisk()
            do {
                let log = try WriteAheadLog.create(directory: directory, disk: disk, identity: identity, options: options)
                try fill(log)
                log.close()
                let files = try disk.list(directory).map { name in
                    let file = try disk.open(directory + "/" + name, .existing)
                    let bytes = try file.read(at: 0, count: Int(file.size))
                    return Array(bytes[..<((bytes.lastIndex { $0 != 0 } ?? 0) + 1)])
                }
                if files.count == 1 { return [[0] + files[0], [repairsChecksums] + files[0], [repairsChecksums | cutsTail] + files[0]] }
                let last = files.suffix(2)
                let body = piece(last.first!) + last.last!
                return [[hasTwoSegments] + body, [hasTwoSegments | repairsChecksums] + body]
            } catch {
                preconditionFailure("\(error)")
            }
        }
        func entry(_ index: UInt64, _ term: UInt64, _ kind: Entry.Kind = .command, bytes: Int = 12) -> Entry {
            Entry(index: LogIndex(index), term: Term(term), kind: kind, proposedAt: WallTime(milliseconds: 9), payload: Array(repeating: 7, count: bytes))
        }
        func batch(_ term: UInt64?, _ entries: [Entry], reset: LogPosition? = nil) -> PersistBatch {
            PersistBatch(ticket: PersistTicket(0), hardState: term.map { HardState(term: Term($0), vote: MemberID(0xa1)) }, entries: entries, reset: reset)
        }
        return image { _ in }
            + image { log in
                log.append(batch(1, [entry(1, 1, .configuration), entry(2, 1)]))
                try log.sync()
                log.append(batch(3, [entry(2, 3), entry(3, 3, .empty, bytes: 0)]))
                try log.sync()
            }
            + image { log in
                log.append(batch(2, [entry(1, 2), entry(2, 2), entry(3, 2)]))
                try log.sync()
                try log.compact(upTo: LogIndex(2))
                try log.sync()
            }
            + image { log in
                log.append(batch(5, [], reset: LogPosition(index: LogIndex(40), term: Term(4))))
                try log.sync()
                log.append(batch(nil, [entry(41, 5)]))
                try log.sync()
            }
            + image { log in
                for index in 1...30 {
                    log.append(batch(index == 1 ? 1 : nil, [entry(UInt64(index), 1, bytes: 90)]))
                    try log.sync()
                }
            }
    }

    static func recover(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        let flags = choices.byte()
        var files: [[UInt8]] = []
        if flags & hasTwoSegments != 0 { files.append(choices.piece()) }
        files.append(choices.rest())
        let first: UInt64 = flags & startsAtZero != 0 ? 0 : 1
        if flags & repairsChecksums != 0 {
            var previous: UInt32?
            for at in files.indices { repair(&files[at], number: first + UInt64(at), &previous) }
        }
        let disk = MemoryDisk()
        // A file system has an end too.
        disk.capacityBytes = 1 << 20
        do {
            try disk.makeDirectory(directory)
            for (at, bytes) in files.enumerated() {
                let file = try disk.open(directory + "/" + RecordFormat.fileName(segment: first + UInt64(at)), .new)
                bytes.withUnsafeBytes { try! file.write($0, at: 0) }
                try file.sync()
            }
            try disk.syncDirectory(directory)
        } catch {
            preconditionFailure("\(error)")
        }
        var options = LogImage.options
        options.cutsDamagedTail = flags & cutsTail != 0
        do {
            let (log, recovered) = try WriteAheadLog.open(directory: directory, disk: disk, identity: identity, options: options)
            check(recovered)
            // What could be read can be gone on with, and is all there afterwards.
            let next = Entry(index: recovered.last.index.next, term: max(recovered.last.term, recovered.hardState.term), kind: .command, proposedAt: .unknown, payload: [1])
            log.append(PersistBatch(ticket: PersistTicket(0), entries: [next]))
            try log.sync()
            log.close()
            let again = try WriteAheadLog.open(directory: directory, disk: disk, identity: identity, options: options).recovered
            check(again)
            precondition(again.entries == recovered.entries + [next] && again.start == recovered.start && again.hardState == recovered.hardState,
                         "\(recovered.entries.count) entries behind \(recovered.start) and one more became \(again.entries.count) behind \(again.start)")
        } catch {
            // As it should be for bytes like these.
        }
    }

    private static func check(_ log: RecoveredLog) {
        var last = log.start
        for entry in log.entries {
            precondition(entry.index.rawValue == last.index.rawValue + 1 && entry.term >= last.term, "entry \(entry.index) of term \(entry.term) behind \(last)")
            last = LogPosition(index: entry.index, term: entry.term)
        }
    }

    /// Makes checksums, chain and trailer those of the bytes, as far as the records can be told apart.
    private static func repair(_ bytes: inout [UInt8], number: UInt64, _ previous: inout UInt32?) {
        var seed = RecordFormat.segmentSeed
        var chain = RecordChain(previous: 0)
        bytes.withUnsafeMutableBytes { file in
            var at = 0
            while at + RecordFormat.headerSize <= file.count {
                let view = UnsafeRawBufferPointer(file)
                guard view.u32(at) == RecordFormat.magic else { return }
                let length = Int(view.u32(at + 8)), total = RecordFormat.totalSize(payload: length)
                guard at + total <= file.count else { return }
                let record = file.baseAddress! + at
                if at == 0 {
                    if let previous { record.put(previous, 24) }
                    chain = RecordChain(previous: view.u32(24))
                } else {
                    record.put(chain.previous, 24)
                }
                if file[at + 4] == RecordType.trailer.rawValue, length == RecordFormat.trailerPayloadSize {
                    SegmentTrailer(number: number, recordCount: chain.records, offset: UInt64(at), chain: chain.folded).write(to: record + RecordFormat.headerSize)
                }
                record.put(CRC32C.checksum(UnsafeRawBufferPointer(rebasing: view[at + RecordFormat.headerSize..<at + total])), 28)
                let checksum = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: view[at..<at + RecordFormat.checkedHeaderSize]),
                                               seed: RecordFormat.headerSeed(seed, offset: UInt64(at)))
                record.put(checksum, 32)
                if at == 0 { seed = checksum }
                chain.add(checksum)
                previous = checksum
                at += total
            }
        }
    }
}

/// A store's tables: for each entry a byte that names the table, then key and value as pieces.
enum StoreImage {
    static let member = MemberID(0xa1)

    static func seeds() -> [[UInt8]] {
        var batch = ReplicaState.bootstrap([Member(id: member, name: "n1", peerURLs: ["http://127.0.0.1:2380"], clientURLs: ["http://127.0.0.1:2379"])])
        let empty = encode(batch)
        let store = KeyValueStore(), backend = MemoryBackend()
        do {
            try backend.commit(batch)
            let reader = try backend.makeReader()
            for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
                _ = try store.put(PutRequest(key: Array(key.utf8), value: Array(value.utf8), lease: LeaseID(key == "b" ? 7 : 0)), reader: reader, leaseExists: { _ in true })
            }
            _ = try store.deleteRange(DeleteRangeRequest(key: Array("a".utf8)), reader: reader)
            let tables = store.takeBatch(into: &batch)
            store.batchCommitted(tables)
            LeaseRecord(id: LeaseID(7), grantedTTLSeconds: 60, remainingTTLSeconds: 10).add(to: &batch)
            batch.put(.alarm, Alarm(member: member, kind: Alarm.noSpace).key, [])
            let full = encode(batch)
            try store.compact(to: Revision(3))
            _ = store.takeBatch(into: &batch)
            return [empty, full, encode(batch)]
        } catch {
            preconditionFailure("\(error)")
        }
    }

    static func encode(_ batch: BackendBatch) -> [UInt8] {
        var bytes: [UInt8] = []
        for case .put(let table, let key, let value) in batch.changes { bytes += [table.rawValue] + piece(key) + piece(value) }
        return bytes
    }

    static func fill(_ backend: MemoryBackend, _ choices: inout Choices) {
        var batch = BackendBatch()
        while !choices.isAtEnd {
            let table = Table(rawValue: choices.byte() % UInt8(Table.allCases.count))!
            let key = choices.piece()
            let value = choices.piece()
            guard !key.isEmpty, key.count <= MemoryBackend.maxKeyBytes else { continue }
            batch.put(table, key, value)
        }
        try! backend.commit(batch)
    }

    static func load(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        let backend = MemoryBackend()
        fill(backend, &choices)
        use(backend)
    }

    /// What is accepted at the start must carry a member's whole life: elections, reads, writes, compaction.
    static func use(_ backend: MemoryBackend) {
        let reader = try! backend.makeReader()
        let state: ReplicaState
        do { state = try ReplicaState.load(from: reader) } catch { return }
        let member = SoleMember(state, backend)
        var writer = ByteWriter()
        for request in [RangeRequest(key: [0], rangeEnd: [0], sortOrder: .descending, sortTarget: .value), RangeRequest(key: [0], rangeEnd: [0], revision: Revision(2), countOnly: true)] {
            _ = try? state.store.snapshot().range(request, reader: reader)
        }
        _ = try? state.store.snapshot().hashKV(revision: .zero, reader: reader)
        PutRequest(key: [0x61], value: [0x31], prevKV: true).encode(into: &writer)
        member.ask(.propose(.put, body: writer.bytes, cost: 1))
        writer = ByteWriter()
        DeleteRangeRequest(key: [0], rangeEnd: [0], prevKV: true).encode(into: &writer)
        member.ask(.propose(.deleteRange, body: writer.bytes, cost: 1))
        member.ask(.leases)
        for lease in state.leases.ids.prefix(4) { member.ask(.leaseTimeToLive(lease, wantsKeys: true)) }
        member.ask(.leaseKeepAlive(state.leases.ids.first ?? LeaseID(7)))
        writer = ByteWriter()
        CompactionRequest(revision: member.replica.map { $0.status().revision } ?? .zero).encode(into: &writer)
        member.ask(.propose(.compaction, body: writer.bytes, cost: 1))
        member.pass(.seconds(20))
    }

    // MARK: One record at a time

    static func recordSeeds() -> [[UInt8]] {
        var lease = ByteWriter()
        LeaseRecord(id: LeaseID(-7), grantedTTLSeconds: 60, remainingTTLSeconds: 10).encode(into: &lease)
        let kv = encodeKeyValue(key: Array("key".utf8), createRevision: Revision(2), modRevision: Revision(9), version: 3, value: Array("value".utf8), lease: LeaseID(5))
        return [
            [0] + Member(id: member, name: "n\"1", peerURLs: ["http://p"], clientURLs: ["http://c", "u\\"], isLearner: true).json(),
            [1] + Configuration(voters: [MemberID(1), MemberID(.max)], outgoingVoters: [MemberID(2)], learners: [MemberID(3)], leavesJointAutomatically: true).json(),
            [2] + Alarm(member: member, kind: Alarm.corrupt).key,
            [3] + lease.bytes,
            [4] + kv,
            [5] + changeKey(main: 77, sub: 3, tombstone: true),
            [6] + Configuration(voters: [MemberID(1), MemberID(2)]).bootstrapPayload(),
            [6] + ConfigurationChange(steps: [.addVoter(MemberID(1)), .addLearner(MemberID(2)), .remove(MemberID(3))], forcesJoint: true, context: [1, 2]).entryPayload,
        ]
    }

    static func decodeRecords(_ raw: UnsafeRawBufferPointer) {
        guard let kind = raw.first else { return }
        let body = UnsafeRawBufferPointer(rebasing: raw[1...]), bytes = [UInt8](body)
        switch kind % 7 {
        case 0:
            guard let decoded = try? Member.decode(json: bytes) else { return }
            // A name or URL that is no text comes back as one that is.
            precondition((try? Member.decode(json: decoded.json())) == decoded, "\(decoded)")
        case 1:
            guard let decoded = try? Configuration.decode(json: bytes) else { return }
            precondition((try? Configuration.decode(json: decoded.json())) == decoded, "\(decoded)")
        case 2:
            guard let decoded = try? Alarm.decode(key: body) else { return }
            precondition(decoded.key.withUnsafeBytes { try? Alarm.decode(key: $0) } == decoded, "\(decoded)")
        case 3:
            var reader = ByteReader(body)
            guard let decoded = try? LeaseRecord.decode(&reader) else { return }
            var writer = ByteWriter()
            decoded.encode(into: &writer)
            precondition(writer.bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                return try? LeaseRecord.decode(&reader)
            } == decoded, "\(decoded)")
        case 4:
            let decoded = try? decodeKeyValue(body)
            if let view = KeyValueView(body) {
                // The quick reader and the whole one agree on what both accept.
                if let decoded {
                    precondition(decoded.key.elementsEqual(view.key(in: body)) && decoded.value.elementsEqual(view.value(in: body))
                        && decoded.modRevision.rawValue == view.modRevision && decoded.version == view.version && decoded.lease.rawValue == view.lease)
                }
            } else {
                precondition(decoded == nil, "a key-value that only one of the readers accepts")
            }
            if let decoded { precondition((try? decodeKeyValue(decoded.encoded())) == decoded) }
        case 5:
            guard let change = parseChangeKey(body) else { return }
            precondition(changeKey(main: change.main, sub: change.sub, tombstone: change.isTombstone) == bytes, "\(change)")
        default:
            guard let change = try? ConfigurationChange(entryPayload: bytes) else { return }
            _ = Configuration(voters: [member]).applying(entryPayload: bytes)
            precondition((try? ConfigurationChange(entryPayload: change.entryPayload)) == change || change.steps.isEmpty && change.context.isEmpty, "\(change)")
        }
    }
}

/// A member whose only voter it is itself, on a disk that is always ready: what is asked of it happens at once. Time passes when told.
final class SoleMember {
    private(set) var replica: Replica?
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    private let backend: MemoryBackend
    private var nextToken: UInt64 = 1
    /// What came out and was not taken yet.
    var effects = ReplicaEffects()

    /// Founds a cluster of one.
    convenience init() {
        let backend = MemoryBackend()
        try! backend.commit(ReplicaState.bootstrap([Member(id: StoreImage.member, name: "n1", peerURLs: ["http://p"])]))
        self.init(try! ReplicaState.load(from: try! backend.makeReader()), backend)
    }

    /// - Parameter entries: the log behind what the state has applied.
    init(_ state: ReplicaState, _ backend: MemoryBackend, entries: [Entry] = [], term: Term = .zero) {
        self.backend = backend
        let applied = state.applied
        var options = ReplicaOptions()
        options.name = "n1"
        let restart = RaftRestart(hardState: HardState(term: max(term, applied.term)), configuration: state.configuration, start: applied, entries: entries,
                                  applied: applied.index, appliedTerm: applied.term)
        replica = Replica(id: StoreImage.member, cluster: ClusterID(0xc1), options: options, state: state, restart: restart, backend: backend,
                          reader: try! backend.makeReader(), incarnation: 1, generator: SeededGenerator(seed: 1), now: now)
        pass(.seconds(3))
    }

    private var wall: WallTime { WallTime(milliseconds: now.nanoseconds / 1_000_000) }

    func ask(_ request: Request) {
        nextToken += 1
        tell(.request(RequestToken(rawValue: nextToken), request, requiresLeader: false))
    }

    /// Until nothing more comes of it.
    func tell(_ event: ReplicaEvent) {
        guard let replica else { return }
        var events = [event]
        while let event = events.first {
            events.removeFirst()
            var news = ReplicaEffects()
            replica.handle(event, at: now, wall: wall, into: &news)
            replica.flush(at: now, wall: wall, into: &news)
            var turns = 0
            while replica.hasBackgroundWork, turns < 64 {
                replica.work(at: now, into: &news)
                turns += 1
            }
            for batch in news.persist { events.append(.persisted(batch.ticket)) }
            for commit in news.backendCommits {
                do { try backend.commit(commit.batch) } catch { return self.replica = nil }
                events.append(.backendCommitted(commit.token, backend.size))
            }
            effects.answers += news.answers
            effects.grants += news.grants
            effects.watch += news.watch
            effects.leaderlessStreams += news.leaderlessStreams
            effects.notes += news.notes
        }
    }

    /// Lets timers fire, up to some dozens.
    func pass(_ span: TimeSpan) {
        let end = now + span
        var turns = 0
        while let replica, replica.nextDeadline <= end, turns < 60 {
            now = max(now + .microseconds(1), replica.nextDeadline)
            tell(.timer)
            turns += 1
        }
        now = max(now, end)
    }
}
