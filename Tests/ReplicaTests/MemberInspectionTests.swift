import Base
import Log
import Raft
import Store
import Testing

@testable import Replica

/// Backends in memory, by number.
private final class MemoryStores: StoreFiles {
    var backends: [UInt64: MemoryBackend] = [:]
    var changes = 0
    func numbers() -> [UInt64] { Array(backends.keys) }
    func open(_ number: UInt64) -> any Backend {
        changes += 1
        if backends[number] == nil { backends[number] = MemoryBackend() }
        return backends[number]!
    }
    func openForReading(_ number: UInt64) -> any Backend { backends[number]! }
    func remove(_ number: UInt64) {
        changes += 1
        backends[number] = nil
    }
    func sync() { changes += 1 }
}

/// A member that has worked a while, as it lies on its disk: history, a compaction, leases, an alarm, a log of several segments.
private struct StoppedMember {
    let disk = MemoryDisk()
    let stores = MemoryStores()
    let files: MemberFiles
    let applied: LogPosition
    let last: LogPosition
    static let directory = "/data"

    init() throws {
        let cluster = SimulatedMembers(count: 3, seed: 77)
        guard cluster.run(for: .seconds(10), until: { cluster.leader != nil }) else { throw Unexpected() }
        let leader = cluster.leader!
        func done(_ token: RequestToken) throws {
            guard cluster.run(for: .seconds(1), until: { leader.answers[token] != nil }), leader.answers[token]!.isSuccess else { throw Unexpected() }
        }
        try done(cluster.ask(leader.id, .leaseGrant(lease: LeaseID(0xabc), ttlSeconds: 10_000)))
        try done(cluster.ask(leader.id, .leaseGrant(lease: LeaseID(0xdef), ttlSeconds: 10_000)))
        for n in 0..<60 {
            try done(cluster.put(leader.id, "key \(n % 7)", String(repeating: "v\(n)", count: 20), lease: n % 7 == 3 ? LeaseID(0xabc) : .none))
            if n % 10 == 5 {
                var body = ByteWriter()
                DeleteRangeRequest(key: Array("key 1".utf8)).encode(into: &body)
                try done(cluster.ask(leader.id, .propose(.deleteRange, body: body.bytes, cost: 0)))
            }
        }
        var body = ByteWriter()
        CompactionRequest(revision: Revision(30)).encode(into: &body)
        try done(cluster.ask(leader.id, .propose(.compaction, body: body.bytes, cost: 0)))
        try done(cluster.ask(leader.id, .alarm(.activate, member: leader.id, kind: Alarm.noSpace)))
        cluster.run(for: .seconds(5))
        stores.backends[1] = MemoryBackend(copying: leader.backend)
        // What its store holds: the machine may have applied more since.
        applied = try ReplicaState.position(in: stores.backends[1]!.makeReader())!.position
        last = LogPosition(index: leader.entries.last!.index, term: leader.entries.last!.term)

        files = MemberFiles(dataDirectory: StoppedMember.directory, disk: disk, stores: stores)
        try disk.makeDirectory(StoppedMember.directory + "/member/store")
        let log = try WriteAheadLog.create(directory: files.logDirectory, disk: disk, identity: LogIdentity(cluster: cluster.cluster, member: leader.id),
                                           options: LogOptions(segmentSizeBytes: 4096))
        log.append(PersistBatch(ticket: PersistTicket(0), hardState: leader.hardState))
        for entry in leader.entries {
            log.append(PersistBatch(ticket: PersistTicket(0), entries: [entry]))
            try log.sync()
        }
        log.close()
    }
    struct Unexpected: Error {}

    var segments: [String] { get throws { try disk.list(files.logDirectory).map { files.logDirectory + "/" + $0 } } }

    /// Changes a table behind the member's back.
    func change(_ body: (inout BackendBatch) throws -> Void) throws {
        var batch = BackendBatch()
        try body(&batch)
        try stores.backends[1]!.commit(batch)
    }
    func records(_ table: Table) throws -> [(key: [UInt8], value: [UInt8])] {
        var all: [(key: [UInt8], value: [UInt8])] = []
        try stores.backends[1]!.makeReader().scan(table, from: []) { key, value in
            all.append(([UInt8](key), [UInt8](value)))
            return true
        }
        return all
    }
}

private func big(_ number: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: number >> (56 - 8 * UInt64($0))) } }

@Suite struct MemberInspectionTests {
    @Test func soundMember() throws {
        let member = try StoppedMember()
        let segments = try member.segments.count
        #expect(segments > 2)
        var parts: [String: Double] = [:]
        let found = try member.files.inspect { part, done in
            #expect(done >= parts[part, default: 0] && done <= 1)
            parts[part] = done
        }
        #expect(found.problems == [] && found.remarks == [] && found.isSound)
        #expect(found.applied == member.applied && found.entries?.upperBound == member.last.index && found.segments == segments)
        #expect(found.store!.revision == Revision(67) && found.store!.compactRevision == Revision(30) && found.store!.keys == 7 && found.store!.leases == 2)
        #expect(found.members.count == 3 && found.stateHash != .initial && parts == ["log": 1, "store": 1])
    }

    /// Everything that can be wrong in the tables though each record is intact.
    @Test(arguments: Damage.allCases) fileprivate func damagedTables(damage: Damage) throws {
        let member = try StoppedMember()
        try member.change { try damage.apply(to: &$0, member) }
        let changes = member.stores.changes
        let found = try member.files.inspect()
        #expect(found.problems.contains { $0.text.contains(damage.words) }, "\(damage): \(found.problems)")
        #expect(member.stores.changes == changes)
    }

    @Test func anyFlippedBitOfTheLogIsFoundAndNothingIsChanged() throws {
        let member = try StoppedMember()
        for (number, segment) in try member.segments.enumerated() {
            let isLast = try number == member.segments.count - 1
            let whole = member.disk.bytes(of: segment)!
            for at in stride(from: number % 5, to: whole.count, by: 5) {
                var bytes = whole
                bytes[at] ^= 1 << UInt8(at % 8)
                member.disk.setBytes(of: segment, bytes)
                let found = try member.files.inspect()
                if found.isSound {
                    // Only the unused rest may change without notice; that of the last segment looks like the beginning of a write then.
                    #expect(whole[at...].allSatisfy { $0 == 0 } && isLast == !found.remarks.isEmpty, "flip in \(segment) at \(at)")
                } else {
                    #expect(found.problems.allSatisfy { $0.place.hasPrefix(member.files.logDirectory) }, "\(found.problems)")
                }
                #expect(member.disk.bytes(of: segment)! == bytes)
            }
            member.disk.setBytes(of: segment, whole)
        }
    }

    @Test func everyDamagedSegmentIsNamed() throws {
        let member = try StoppedMember()
        let segments = try member.segments
        for segment in [segments[0], segments[2]] {
            var bytes = member.disk.bytes(of: segment)!
            bytes[300] ^= 1
            member.disk.setBytes(of: segment, bytes)
        }
        let found = try member.files.inspect()
        #expect(found.problems.map(\.place) == [segments[0], segments[2]])
        #expect(found.problems.allSatisfy { $0.text.contains("at offset") })
    }

    @Test func tornTailIsToldAndLeftAsItIs() throws {
        let member = try StoppedMember()
        let segment = try member.segments.last!
        var bytes = member.disk.bytes(of: segment)!
        let end = bytes.lastIndex { $0 != 0 }!
        for at in end - 20...end { bytes[at] = 0 }
        member.disk.setBytes(of: segment, bytes)
        let found = try member.files.inspect()
        // Only what was not acknowledged can be missing, so here the store is ahead of the log.
        #expect(found.remarks.contains { $0.contains("unfinished write") && $0.contains("never acknowledged") })
        #expect(member.disk.bytes(of: segment)! == bytes)
    }

    @Test func missingPieces() throws {
        var member = try StoppedMember()
        for segment in try member.segments { try member.disk.remove(segment) }
        #expect(try member.files.inspect().problems.map(\.text) == ["there is a store but no log"])
        member = try StoppedMember()
        try member.disk.remove(try member.segments[1])
        #expect(try member.files.inspect().problems.contains { $0.text.contains("the file is missing") })
        member = try StoppedMember()
        member.stores.backends = [:]
        #expect(try member.files.inspect().problems.map(\.text) == ["there is a log but no store"])
    }

    @Test func whatTheNextStartSettlesIsNoDamage() throws {
        let member = try StoppedMember()
        member.stores.backends[3] = MemoryBackend()
        member.stores.backends[2] = member.stores.backends[1]
        let found = try member.files.inspect()
        #expect(found.isSound && found.remarks.count == 2 && found.remarks.contains { $0.contains("incomplete copy") })
        #expect(found.remarks.contains { $0.contains("another store") })
    }

    /// As the next start: a snapshot's copy that the log has overtaken does not count.
    @Test func theStoreThatIsFurthestCounts() throws {
        let member = try StoppedMember()
        let behind = MemoryBackend(copying: member.stores.backends[1]!)
        var batch = BackendBatch()
        batch.put(.meta, MetaKey.consistentIndex, big(3))
        try behind.commit(batch)
        member.stores.backends[2] = behind
        let found = try member.files.inspect()
        #expect(found.isSound && found.applied == member.applied, "\(found.problems)")
    }

    @Test func whoHasNotJoinedAndWhoWasRemovedAreNotDamaged() throws {
        var member = try StoppedMember()
        let own = try #require(try member.files.inspect().identity?.member)
        try member.change { batch in
            batch.delete(.members, Membership.key(of: own))
            batch.put(.membersRemoved, Membership.key(of: own), Membership.removedMark)
        }
        #expect(try member.files.inspect().remarks.contains { $0.contains("was removed from its cluster") })
        #expect(try member.files.inspect().isSound)
        member = try StoppedMember()
        for segment in try member.segments { try member.disk.remove(segment) }
        member.stores.backends[1] = MemoryBackend()
        try member.stores.backends[1]!.commit(ReplicaState.join([Member(id: MemberID(9), peerURLs: ["http://there"])]))
        let found = try member.files.inspect()
        #expect(found.isSound && found.remarks == ["this member has not joined its cluster yet"], "\(found.problems) \(found.remarks)")
    }

    @Test func whatIsNoMembersDirectoryIsRefused() throws {
        let disk = MemoryDisk()
        let files = MemberFiles(dataDirectory: "/nowhere", disk: disk, stores: MemoryStores())
        func refusal() -> String { #expect(throws: MemberFiles.Fault.self) { try files.inspect() }?.description ?? "" }
        #expect(refusal() == "/nowhere does not exist")
        try disk.makeDirectory("/nowhere")
        #expect(refusal().contains("holds no member"))
        try disk.makeDirectory("/nowhere/member")
        #expect(refusal().contains("neither a log nor a store"))
        try disk.makeDirectory("/nowhere/member/snap")
        try disk.open("/nowhere/member/snap/db", .new).close()
        #expect(refusal().contains("real etcd member"))
    }
}

private enum Damage: CaseIterable {
    case lostRevision, lostFirstChange, foreignKey, emptyKey, wrongModRevision, wrongVersion, deletionOfNothing, notAKeyValue, lostLease, leaseUnderAnotherKey,
         compactionBehindEnd, finishedNotBegun, markIsNoRevision, noStateHash, unknownVoter, unknownMember, learnerMismatch, membersJSON, noConfiguration,
         appliedBehindLog, appliedOfAnotherTerm, otherMember, alarm

    var words: String {
        switch self {
        case .lostRevision: "revision 50 is missing"
        case .lostFirstChange: "revisions 31 to"
        case .foreignKey: "is not a revision"
        case .emptyKey, .notAKeyValue: "is not a key-value"
        case .wrongModRevision: "says that it was written at revision"
        case .wrongVersion: "follows version"
        case .deletionOfNothing: "deleted though it did not exist"
        case .lostLease: "hangs on lease abc, which does not exist"
        case .leaseUnderAnotherKey: "under another key"
        case .compactionBehindEnd: "lies behind the last revision"
        case .finishedNotBegun: "was never begun"
        case .markIsNoRevision: "scheduledCompactRev is not a revision"
        case .noStateHash: "state hash is missing"
        case .unknownVoter: "is not in the list of members"
        case .unknownMember: "has no part in the consensus"
        case .learnerMismatch: "a learner in the list of members and a voter in the consensus"
        case .membersJSON: "members table is damaged"
        case .noConfiguration: "no configuration"
        case .appliedBehindLog: "has lost what it had acknowledged"
        case .appliedOfAnotherTerm: "the store has applied one of term 99"
        case .otherMember: "the log is that of member"
        case .alarm: "alarm table is damaged"
        }
    }

    func apply(to batch: inout BackendBatch, _ member: StoppedMember) throws {
        func revisionKey(_ main: UInt64, _ sub: UInt64 = 0, tombstone: Bool = false) -> [UInt8] { big(main) + [0x5f] + big(sub) + (tombstone ? [0x74] : []) }
        let records = try member.records(.key)
        /// A record above the compaction that is no deletion.
        let put = records.last { $0.key.count == 17 }!
        let kv = try decodeKeyValue(put.value)
        func write(_ kv: KeyValue) { batch.put(.key, put.key, kv.encoded()) }
        let members = try member.records(.members)
        switch self {
        case .lostRevision:
            for record in records where record.key.starts(with: big(50)) { batch.delete(.key, record.key) }
        case .lostFirstChange:
            for record in records where record.key[..<8].elementsEqual(big(31)) || record.key[..<8].elementsEqual(big(32)) { batch.delete(.key, record.key) }
        case .foreignKey: batch.put(.key, [1, 2, 3], put.value)
        case .emptyKey: batch.put(.key, put.key, KeyValue(key: [], createRevision: kv.createRevision, modRevision: kv.modRevision, version: 1, value: [1], lease: .none).encoded())
        case .notAKeyValue: batch.put(.key, put.key, [0xff, 0xff])
        case .wrongModRevision:
            var other = kv
            other.modRevision = kv.createRevision
            write(other)
        case .wrongVersion:
            var other = kv
            other.version += 1
            write(other)
        case .deletionOfNothing:
            batch.put(.key, revisionKey(68, tombstone: true), encodeKeyValue(key: [9], createRevision: .zero, modRevision: .zero, version: 0, value: [], lease: .none))
        case .lostLease: LeaseRecord.addRemoval(of: LeaseID(0xabc), to: &batch)
        case .leaseUnderAnotherKey: batch.put(.lease, big(0x123), try member.records(.lease)[0].value)
        case .compactionBehindEnd: batch.put(.meta, MetaKey.scheduledCompactRevision, revisionKey(500))
        case .finishedNotBegun: batch.delete(.meta, MetaKey.scheduledCompactRevision)
        case .markIsNoRevision: batch.put(.meta, MetaKey.scheduledCompactRevision, [1])
        case .noStateHash: batch.delete(.meta, MetaKey.stateHash)
        case .unknownVoter: batch.delete(.members, members.first { !String(decoding: $0.value, as: UTF8.self).contains("\"id\":\(1)") }!.key)
        case .unknownMember: batch.put(.members, Array("77".utf8), Array("{\"id\":119,\"peerURLs\":[]}".utf8))
        case .learnerMismatch:
            batch.put(.members, members[0].key, Array(String(decoding: members[0].value, as: UTF8.self).replacing(",\"name\"", with: ",\"isLearner\":true,\"name\"").utf8))
        case .membersJSON: batch.put(.members, members[0].key, Array("{".utf8))
        case .noConfiguration: batch.delete(.meta, MetaKey.confState)
        case .appliedBehindLog: batch.put(.meta, MetaKey.consistentIndex, big(5000))
        case .appliedOfAnotherTerm: batch.put(.meta, MetaKey.term, big(99))
        case .otherMember: for record in members { batch.delete(.members, record.key) }
        case .alarm: batch.put(.alarm, [0xff], [])
        }
    }
}
