import Base
@testable import Raft
import Testing

@Suite struct MessageCodingTests {
    private let bodies: [Message.Body] = [
        .requestVote(last: position(1 << 40, 9), isPreVote: true, isTransfer: false),
        .voteReply(granted: true, isPreVote: false, refusal: nil),
        .voteReply(granted: false, isPreVote: true, refusal: .leaderIsFresh),
        .append(previous: position(7, 2), entries: [entry(8, 2, []), entry(9, 3, [1, 2, 3])], commit: index(5)),
        .append(previous: .zero, entries: [], commit: .zero),
        .appendAccepted(match: index(300)),
        .appendRejected(rejected: index(12), hint: position(4, 1)),
        .heartbeat(commit: index(1), round: ReadRound(.max)),
        .heartbeatReply(round: .none),
        .snapshotReply(installed: nil),
        .snapshotReply(installed: position(9, 9)),
        .timeoutNow,
        .requestReadIndex(id: ReadID(.max)),
        .readIndexReply(id: ReadID(3), index: index(8)),
        .readIndexRefused(id: ReadID(0)),
        .forward(stream: 7, number: 1, payloads: [[], [1], [2, 3]]), .forwardTaken(stream: .max, number: 12, through: 9, refused: nil),
        .forwardTaken(stream: 1, number: 3, through: 3, refused: .transferring),
    ]

    private func encode(_ message: Message) -> [UInt8] {
        var writer = ByteWriter()
        message.encode(into: &writer)
        return writer.bytes
    }

    private func decode(_ bytes: [UInt8]) throws -> (Message, rest: Int) {
        try bytes.withUnsafeBytes { buffer in
            var reader = ByteReader(buffer)
            let message = try Message.decode(&reader)
            return (message, reader.remaining)
        }
    }

    @Test func everyMessageSurvives() throws {
        for body in bodies {
            let message = Message(from: member(.max), to: member(1), term: Term(77), body: body)
            let bytes = encode(message)
            #expect(bytes.count <= message.encodedSizeBound)
            let (decoded, rest) = try decode(bytes)
            #expect(decoded == message && rest == 0)
        }
    }

    @Test func everyTruncationIsAnError() {
        for body in bodies {
            let bytes = encode(Message(from: member(1), to: member(2), term: Term(300), body: body))
            for count in 0..<bytes.count { #expect(throws: DecodingFault.self) { try decode(Array(bytes.prefix(count))) } }
        }
    }

    @Test func damagedBytesNeverCrash() {
        var decodedCount = 0
        for seed in UInt64(1)...20 {
            var generator = SeededGenerator(seed: seed)
            for body in bodies {
                let bytes = encode(Message(from: member(1), to: member(2), term: Term(300), body: body))
                for _ in 0..<100 {
                    var damaged = bytes
                    for _ in 0..<Int.random(in: 1...4, using: &generator) {
                        damaged[Int.random(in: 0..<damaged.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
                    }
                    guard let (message, _) = try? decode(damaged) else { continue }
                    decodedCount += 1
                    // Whatever is accepted keeps its meaning.
                    let (again, _) = (try? decode(encode(message))) ?? (message, 0)
                    #expect(again == message, "seed \(seed)")
                }
            }
        }
        #expect(decodedCount > 0)
    }

    @Test func aCountBeyondTheInputReservesNothing() {
        var writer = ByteWriter()
        Message(from: member(1), to: member(2), term: Term(1), body: .append(previous: .zero, entries: [], commit: .zero)).encode(into: &writer)
        writer.bytes.removeLast()
        writer.writeVarint(1 << 60)
        #expect(throws: DecodingFault.truncated) { try decode(writer.bytes) }
    }

    @Test func entriesSurviveAndKnowTheirSize() throws {
        for payload in [[], [UInt8](repeating: 3, count: 200)] {
            let original = Entry(index: index(1 << 33), term: Term(129), kind: .configuration, proposedAt: WallTime(milliseconds: -1), payload: payload)
            var writer = ByteWriter()
            original.encode(into: &writer)
            #expect(writer.bytes.count == original.encodedSize)
            let decoded = try writer.bytes.withUnsafeBytes { buffer in
                var reader = ByteReader(buffer)
                return try Entry.decode(&reader)
            }
            #expect(decoded == original)
        }
    }

    @Test func impossibleMessagesNeverCrashACore() {
        // Any message of any peer to members in every role: ignored, refused or obeyed, but the process lives.
        for seed in UInt64(1)...30 {
            var generator = SeededGenerator(seed: seed)
            let single = seed % 2 == 0 ? Single(learners: [4]) : Single(term: 3, entries: log([1, 2, 2, 3]), applied: 2)
            if seed % 2 == 0 { single.lead() }
            func small() -> UInt64 { UInt64.random(in: 0..<8, using: &generator) }
            for _ in 0..<200 {
                let spot = position(small(), small())
                let entries = (0..<small() / 2).map { entry(spot.index.rawValue + 1 + $0, small()) }
                let candidates: [Message.Body] = [
                    .requestVote(last: spot, isPreVote: small() < 4, isTransfer: small() < 4),
                    .voteReply(granted: small() < 4, isPreVote: small() < 4, refusal: nil),
                    .append(previous: spot, entries: entries, commit: index(small())),
                    .appendAccepted(match: index(small())), .appendRejected(rejected: index(small()), hint: spot),
                    .heartbeat(commit: index(small()), round: ReadRound(small())), .heartbeatReply(round: ReadRound(small())),
                    .snapshotReply(installed: small() < 4 ? nil : spot), .timeoutNow, .requestReadIndex(id: ReadID(small())),
                    .readIndexReply(id: ReadID(small()), index: index(small())), .readIndexRefused(id: ReadID(small())), .forward(stream: 1, number: 1, payloads: [[1]]),
                ]
                single.receive(candidates.randomElement(using: &generator)!, from: UInt64.random(in: 1...5, using: &generator),
                               term: UInt64.random(in: 0..<3, using: &generator) + max(single.term, 1) - 1)
                if small() == 0 { single.sync() }
                if small() == 0 { single.waitForDeadline() }
                if small() == 0 { single.step(.propose(payloads: [[1]]), .read(ReadID(small()))) }
            }
            #expect(single.core.commit <= single.core.lastIndex)
        }
    }
}
