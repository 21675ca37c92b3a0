import Base
import Log
@testable import Raft
@testable import Replica
@testable import Store

// What arrives on the peer port: messages of consensus and about leases, streamed snapshots, and the commands that entries carry.

extension FuzzTargets {
    static let peers: [FuzzTarget] = [
        FuzzTarget(name: "raft-message", seeds: PeerImages.messageSeeds, run: PeerImages.decodeMessage),
        FuzzTarget(name: "peer-message", seeds: PeerImages.bodySeeds, run: PeerImages.decodeBody),
        FuzzTarget(name: "snapshot-stream", seeds: PeerImages.snapshotSeeds, words: ["consistent_index", "confState"], run: PeerImages.assemble),
        FuzzTarget(name: "log-commands", seeds: PeerImages.commandSeeds, run: PeerImages.applyCommands),
    ]
}

private enum PeerImages {
    static let from = MemberID(0xb2), to = MemberID(0xa1), cluster = ClusterID(0xc1)

    static var messages: [Message] {
        let entries = [
            Entry(index: LogIndex(5), term: Term(3), kind: .command, proposedAt: WallTime(milliseconds: 8), payload: [1, 2, 3]),
            Entry(index: LogIndex(6), term: Term(3), kind: .configuration, proposedAt: .unknown, payload: ConfigurationChange(steps: [.addVoter(from)]).entryPayload),
            Entry(index: LogIndex(7), term: Term(4), kind: .empty, proposedAt: .unknown, payload: []),
        ]
        let position = LogPosition(index: LogIndex(4), term: Term(3))
        let bodies: [Message.Body] = [
            .requestVote(last: position, isPreVote: true, isTransfer: false), .voteReply(granted: true, isPreVote: false, refusal: nil),
            .voteReply(granted: false, isPreVote: true, refusal: .logBehind), .append(previous: position, entries: entries, commit: LogIndex(4)),
            .append(previous: position, entries: [], commit: LogIndex(4)), .appendAccepted(match: LogIndex(7)), .appendRejected(rejected: LogIndex(9), hint: position),
            .heartbeat(commit: LogIndex(4), round: ReadRound(9)), .heartbeatReply(round: ReadRound(9)), .snapshotReply(installed: position), .snapshotReply(installed: nil),
            .timeoutNow, .requestReadIndex(id: ReadID(4)), .readIndexReply(id: ReadID(4), index: LogIndex(3)), .readIndexRefused(id: ReadID(4)),
            .forward(stream: 5, number: 1, payloads: [[1], [2, 3]]), .forwardTaken(stream: 5, number: 1, through: 2, refused: .noLeader), .forwardTaken(stream: 5, number: 1, through: 2, refused: nil),
        ]
        return bodies.map { Message(from: from, to: to, term: Term(4), body: $0) }
    }

    static func messageSeeds() -> [[UInt8]] {
        messages.map { message in
            var writer = ByteWriter()
            message.encode(into: &writer)
            return writer.bytes
        }
    }

    static func decodeMessage(_ raw: UnsafeRawBufferPointer) {
        var reader = ByteReader(raw)
        guard let message = try? Message.decode(&reader) else { return }
        var writer = ByteWriter()
        message.encode(into: &writer)
        precondition(writer.bytes.count <= message.encodedSizeBound, "\(writer.bytes.count) bytes where \(message.encodedSizeBound) were the bound")
        writer.bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            let again = try! Message.decode(&reader)
            var second = ByteWriter()
            again.encode(into: &second)
            precondition(reader.isAtEnd && second.bytes.elementsEqual(raw), "a message does not survive its coding")
        }
    }

    // MARK: Bodies and frames

    static var bodies: [PeerMessage.Body] {
        messages.map { .raft($0) } + [
            .leaseRenew(number: 3, lease: LeaseID(9)), .leaseTimeToLive(number: 4, lease: LeaseID(-9), wantsKeys: true), .leaseRenewed(number: 3, ttlSeconds: 60),
            .leaseState(number: 4, remainingSeconds: 3, grantedSeconds: 60, keys: [[1], [], [2, 3]]), .notLeader(number: 4), .stateHash(index: LogIndex(9), StateHash(rawValue: 7)), .removed, .askStanding,
            .changeMembership(number: 4, term: Term(3), .remove(from)), .membershipRefused(number: 4, .leaseExist),
        ]
    }

    static func bodySeeds() -> [[UInt8]] {
        bodies.map { body in
            var writer = ByteWriter()
            PeerMessage(from: from, to: to, body: body).encodeBody(into: &writer)
            return writer.bytes
        }
    }

    static func decodeBody(_ raw: UnsafeRawBufferPointer) {
        var reader = ByteReader(raw)
        guard let message = try? PeerMessage.decodeBody(&reader, from: from, to: to) else { return }
        precondition(reader.isAtEnd)
        var writer = ByteWriter()
        message.encodeBody(into: &writer)
        writer.bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            _ = try! PeerMessage.decodeBody(&reader, from: from, to: to)
        }
        // What one peer says must not bring a member down. Its word about consensus is believed, as Raft does, so only the rest is told.
        guard case .raft = message.body else { return SoleMember().tell(.peer(message)) }
    }

    // MARK: Snapshots

    static func snapshotSeeds() -> [[UInt8]] {
        StoreImage.seeds().map { seed in
            let backend = MemoryBackend()
            seed.withUnsafeBytes { raw in
                var choices = Choices(raw)
                StoreImage.fill(backend, &choices)
            }
            var bytes: [UInt8] = []
            do {
                var cutter = try SnapshotCutter(try backend.makeReader(), chunkBytes: 64)
                while let next = try cutter.next() { bytes += [next.kind.rawValue] + piece(next.payload) }
            } catch {
                preconditionFailure("\(error)")
            }
            return bytes
        }
    }

    static func assemble(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        var assembly = SnapshotAssembly(into: MemoryBackend())
        do {
            while !choices.isAtEnd {
                let kind = SnapshotPiece.Kind(rawValue: choices.byte() % 3)!
                let payload = choices.piece()
                if kind == .begin {
                    assembly = SnapshotAssembly(into: MemoryBackend())
                } else if try assembly.take(SnapshotPiece(kind: kind, payload: payload)) != nil {
                    return StoreImage.use(assembly.backend as! MemoryBackend)
                }
            }
        } catch {
            _ = "\(error)"
        }
    }

    // MARK: Commands

    static func commandSeeds() -> [[UInt8]] {
        func bytes(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
            var writer = ByteWriter()
            body(&writer)
            return writer.bytes
        }
        let txn = TxnRequest(compare: [Compare(key: [0x61], target: .version, result: .equal, operand: .version(1))],
                             success: [.put(PutRequest(key: [0x61], value: [0x32]))], failure: [.txn(TxnRequest(success: [.deleteRange(DeleteRangeRequest(key: [0], rangeEnd: [0]))]))])
        let commands: [(Command.Kind, [UInt8])] = [
            (.put, bytes { PutRequest(key: [0x61], value: [0x31]).encode(into: &$0) }), (.leaseGrant, bytes { $0.writeField(1, 60 as Int64); $0.writeField(2, 7 as Int64) }),
            (.put, bytes { PutRequest(key: [0x62], value: [0x31], lease: LeaseID(7), prevKV: true).encode(into: &$0) }), (.txn, bytes { txn.encode(into: &$0) }),
            (.deleteRange, bytes { DeleteRangeRequest(key: [0x61], rangeEnd: [0x63], prevKV: true).encode(into: &$0) }),
            (.compaction, bytes { CompactionRequest(revision: Revision(2), physical: true).encode(into: &$0) }),
            (.leaseRevoke, bytes { $0.writeField(1, 7 as Int64) }), (.leaseExpire, LeaseExpiry(lease: LeaseID(7), term: Term(1)).encoded()),
            (.alarm, bytes { $0.writeField(1, 1 as Int64); $0.writeField(2, 9 as Int64); $0.writeField(3, 1 as Int64) }),
            (.memberAttributes, MemberAttributes(member: to, name: "n9", clientURLs: ["http://c"]).encoded()),
        ]
        let newcomer = Member(id: from, peerURLs: ["http://q"], isLearner: true)
        func membership(_ step: ConfigurationChange.Step, _ request: MembershipRequest) -> [UInt8] {
            [1] + piece(ConfigurationChange(steps: [step], context: MembershipEntry(asker: to, number: 5, change: .request(request)).encoded()).entryPayload)
        }
        // The last brings back a member that was removed.
        let changes = [membership(.addLearner(from), .add(newcomer)), membership(.addLearner(from), .update(from, peerURLs: ["http://r"])), membership(.remove(from), .remove(from)), membership(.addLearner(from), .add(newcomer))]
        let encoded = commands.map { [0] + piece(Command(kind: $0.0, proposer: to, number: 5, body: $0.1).encoded()) }
        return encoded + [encoded.flatMap { $0 }, [1] + piece(Configuration(voters: [to]).bootstrapPayload()) + encoded[0],
                          [1] + piece(ConfigurationChange(steps: [.addLearner(from)]).entryPayload) + encoded[0],
                          changes[0] + encoded[0] + changes[1], changes.flatMap { $0 } + encoded[0]]
    }

    /// A log of these entries, behind an empty store: all are committed by a member's own vote and applied.
    static func applyCommands(_ raw: UnsafeRawBufferPointer) {
        var choices = Choices(raw)
        var entries: [Entry] = []
        while !choices.isAtEnd, entries.count < 32 {
            let kind: Entry.Kind = [.command, .configuration, .empty][Int(choices.byte() % 3)]
            let payload = choices.piece()
            if kind == .command { _ = try? Command.decode(payload) }
            entries.append(Entry(index: LogIndex(UInt64(entries.count + 1)), term: Term(1), kind: kind, proposedAt: .unknown, payload: kind == .empty ? [] : payload))
        }
        let backend = MemoryBackend()
        try! backend.commit(ReplicaState.bootstrap([Member(id: to, name: "n1", peerURLs: ["http://p"])]))
        let state = try! ReplicaState.load(from: try! backend.makeReader())
        let member = SoleMember(state, backend, entries: entries, term: Term(1))
        member.watch()
        member.pass(.seconds(5))
    }
}

extension SoleMember {
    /// Whatever happened to the keys is watched from the beginning.
    func watch() {
        let stream = WatchStreamID(9)
        tell(.watch(stream, .open(requiresLeader: false)))
        tell(.watch(stream, .request(.create(WatchCreateRequest(key: [0], rangeEnd: [0], startRevision: Revision(1), previousKV: true)))))
    }
}
