import Base

// Compact bytes for messages between members and for entries in the log: varints, no field tags. Both ends run the same
// version of this format; the transport's hello says which. Decoders accept any bytes: they return a value or throw, and never
// reserve more than the input could fill.

private let indexLimit: UInt64 = 1 << 62

extension ByteReader {
    fileprivate mutating func readIndex() throws(DecodingFault) -> LogIndex {
        let value = try readVarint()
        guard value < indexLimit else { throw .malformed("log index out of range") }
        return LogIndex(value)
    }
    fileprivate mutating func readTerm() throws(DecodingFault) -> Term {
        let value = try readVarint()
        guard value < indexLimit else { throw .malformed("term out of range") }
        return Term(value)
    }
    fileprivate mutating func readPosition() throws(DecodingFault) -> LogPosition {
        LogPosition(index: try readIndex(), term: try readTerm())
    }
    fileprivate mutating func readMember() throws(DecodingFault) -> MemberID { MemberID(try read(UInt64.self)) }
    fileprivate mutating func readFlag() throws(DecodingFault) -> Bool {
        switch try readByte() {
        case 0: return false
        case 1: return true
        default: throw .malformed("flag is neither 0 nor 1")
        }
    }
    /// A count of things of which each takes at least `size` bytes.
    fileprivate mutating func readCount(ofAtLeast size: Int) throws(DecodingFault) -> Int {
        let count = try readVarint()
        guard count <= UInt64(remaining / size) else { throw .truncated }
        return Int(count)
    }
}

extension ByteWriter {
    fileprivate mutating func writeIndex(_ index: LogIndex) { writeVarint(index.rawValue) }
    fileprivate mutating func writeTerm(_ term: Term) { writeVarint(term.rawValue) }
    fileprivate mutating func writePosition(_ position: LogPosition) {
        writeIndex(position.index)
        writeTerm(position.term)
    }
    fileprivate mutating func writeFlag(_ flag: Bool) { write(flag ? 1 as UInt8 : 0) }
}

extension Entry {
    /// index, term, kind, wall time, counted payload.
    static let minimumEncodedSize = 1 + 1 + 1 + 8 + 1

    /// What `encode` will append.
    public var encodedSize: Int {
        varintSize(index.rawValue) + varintSize(term.rawValue) + 9 + varintSize(UInt64(payload.count)) + payload.count
    }

    public func encode(into writer: inout ByteWriter) {
        writer.writeIndex(index)
        writer.writeTerm(term)
        writer.write(kind.rawValue)
        writer.write(proposedAt.milliseconds)
        writer.writeCounted(payload)
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> Entry {
        let index = try reader.readIndex()
        let term = try reader.readTerm()
        guard let kind = Kind(rawValue: try reader.readByte()) else { throw .malformed("unknown entry kind") }
        let wall = WallTime(milliseconds: try reader.read(Int64.self))
        return Entry(index: index, term: term, kind: kind, proposedAt: wall, payload: try reader.readCounted())
    }
}

extension ConfigurationChange {
    /// The payload of the `.configuration` entry that carries this change. Never empty.
    public var entryPayload: [UInt8] {
        var writer = ByteWriter(capacity: 4 + steps.count * 9 + context.count)
        writer.writeFlag(forcesJoint)
        writer.writeVarint(UInt64(steps.count))
        for step in steps {
            switch step {
            case .addVoter(let id):
                writer.write(0 as UInt8)
                writer.write(id.rawValue)
            case .addLearner(let id):
                writer.write(1 as UInt8)
                writer.write(id.rawValue)
            case .remove(let id):
                writer.write(2 as UInt8)
                writer.write(id.rawValue)
            }
        }
        writer.writeCounted(context)
        return writer.bytes
    }

    /// An empty payload is the end of a joint change: no steps. The founding entry of a cluster reads as adding its members.
    public init(entryPayload: [UInt8]) throws(DecodingFault) {
        self.init(steps: [])
        guard !entryPayload.isEmpty else { return }
        if let (founding, context) = Configuration.decode(bootstrapPayload: entryPayload) {
            steps = founding.voters.map { .addVoter($0) } + founding.learners.map { .addLearner($0) }
            self.context = context
            return
        }
        let result: Result<ConfigurationChange, DecodingFault> = entryPayload.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            do throws(DecodingFault) {
                let change = try ConfigurationChange.decode(&reader)
                guard reader.isAtEnd else { throw .malformed("bytes behind a configuration change") }
                return .success(change)
            } catch {
                return .failure(error)
            }
        }
        self = try result.get()
    }

    private static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> ConfigurationChange {
        let forcesJoint = try reader.readFlag()
        let count = try reader.readCount(ofAtLeast: 9)
        var steps: [Step] = []
        steps.reserveCapacity(count)
        for _ in 0..<count {
            let kind = try reader.readByte()
            let id = try reader.readMember()
            switch kind {
            case 0: steps.append(.addVoter(id))
            case 1: steps.append(.addLearner(id))
            case 2: steps.append(.remove(id))
            default: throw .malformed("unknown configuration step")
            }
        }
        return ConfigurationChange(steps: steps, forcesJoint: forcesJoint, context: try reader.readCounted())
    }
}

extension Configuration {
    /// First byte of a configuration entry that states the whole configuration; a change begins with 0 or 1.
    private static let bootstrapTag: UInt8 = 2

    /// The payload of a `.configuration` entry that states the whole configuration instead of a change: a cluster's first entry, and the one
    /// by which an operator makes a cluster of a single member. `context` as in `ConfigurationChange`.
    public func bootstrapPayload(context: [UInt8] = []) -> [UInt8] {
        var writer = ByteWriter(capacity: 18 + (voters.count + learners.count) * 8 + context.count)
        writer.write(Configuration.bootstrapTag)
        encode(into: &writer)
        if !context.isEmpty { writer.writeCounted(context) }
        return writer.bytes
    }

    init?(bootstrapPayload: [UInt8]) {
        guard let (whole, _) = Configuration.decode(bootstrapPayload: bootstrapPayload) else { return nil }
        self = whole
    }

    fileprivate static func decode(bootstrapPayload: [UInt8]) -> (Configuration, context: [UInt8])? {
        guard bootstrapPayload.first == Configuration.bootstrapTag else { return nil }
        return bootstrapPayload.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes, offset: 1, count: bytes.count - 1)
            guard let configuration = try? Configuration.decode(&reader), !configuration.voters.isEmpty else { return nil }
            guard !reader.isAtEnd else { return (configuration, []) }
            guard let context = try? reader.readCounted(), reader.isAtEnd else { return nil }
            return (configuration, context)
        }
    }

    /// For snapshots and the store's own record.
    public func encode(into writer: inout ByteWriter) {
        for list in [voters, outgoingVoters, learners, nextLearners] {
            writer.writeVarint(UInt64(list.count))
            for id in list { writer.write(id.rawValue) }
        }
        writer.writeFlag(leavesJointAutomatically)
    }

    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> Configuration {
        func list(_ reader: inout ByteReader) throws(DecodingFault) -> [MemberID] {
            let count = try reader.readCount(ofAtLeast: 8)
            var ids: [MemberID] = []
            ids.reserveCapacity(count)
            for _ in 0..<count {
                let id = try reader.readMember()
                guard id > ids.last ?? .none else { throw .malformed("members are not ascending") }
                ids.append(id)
            }
            return ids
        }
        let voters = try list(&reader)
        let outgoing = try list(&reader)
        let learners = try list(&reader)
        let next = try list(&reader)
        let configuration = Configuration(voters: voters, outgoingVoters: outgoing, learners: learners, nextLearners: next,
                                          leavesJointAutomatically: try reader.readFlag())
        if let objection = configuration.objection { throw .malformed(objection) }
        return configuration
    }
}

extension Message {
    private enum Tag: UInt8 {
        case requestVote = 1, voteReply, append, appendAccepted, appendRejected, heartbeat, heartbeatReply, snapshotReply, timeoutNow
        case requestReadIndex, readIndexReply, readIndexRefused, forward, forwardTaken
    }

    /// About what `encode` will append, never less; for reserving space.
    public var encodedSizeBound: Int {
        switch body {
        case .append(_, let entries, _): entries.reduce(70) { $0 + $1.payload.count + 40 }
        case .forward(_, _, let payloads): payloads.reduce(70) { $0 + $1.count + 10 }
        default: 70
        }
    }

    public func encode(into writer: inout ByteWriter) {
        writer.write(from.rawValue)
        writer.write(to.rawValue)
        writer.writeTerm(term)
        func tag(_ tag: Tag) { writer.write(tag.rawValue) }
        switch body {
        case .requestVote(let last, let isPreVote, let isTransfer):
            tag(.requestVote)
            writer.writePosition(last)
            writer.writeFlag(isPreVote)
            writer.writeFlag(isTransfer)
        case .voteReply(let granted, let isPreVote, let refusal):
            tag(.voteReply)
            writer.writeFlag(granted)
            writer.writeFlag(isPreVote)
            writer.write(refusal?.rawValue ?? 0xff)
        case .append(let previous, let entries, let commit):
            tag(.append)
            writer.writePosition(previous)
            writer.writeIndex(commit)
            writer.writeVarint(UInt64(entries.count))
            for entry in entries { entry.encode(into: &writer) }
        case .appendAccepted(let match):
            tag(.appendAccepted)
            writer.writeIndex(match)
        case .appendRejected(let rejected, let hint):
            tag(.appendRejected)
            writer.writeIndex(rejected)
            writer.writePosition(hint)
        case .heartbeat(let commit, let round):
            tag(.heartbeat)
            writer.writeIndex(commit)
            writer.writeVarint(round.rawValue)
        case .heartbeatReply(let round):
            tag(.heartbeatReply)
            writer.writeVarint(round.rawValue)
        case .snapshotReply(let installed):
            tag(.snapshotReply)
            writer.writeFlag(installed != nil)
            writer.writePosition(installed ?? .zero)
        case .timeoutNow:
            tag(.timeoutNow)
        case .requestReadIndex(let id):
            tag(.requestReadIndex)
            writer.writeVarint(id.rawValue)
        case .readIndexReply(let id, let index):
            tag(.readIndexReply)
            writer.writeVarint(id.rawValue)
            writer.writeIndex(index)
        case .readIndexRefused(let id):
            tag(.readIndexRefused)
            writer.writeVarint(id.rawValue)
        case .forward(let stream, let number, let payloads):
            tag(.forward)
            writer.write(stream)
            writer.writeVarint(number)
            writer.writeVarint(UInt64(payloads.count))
            for payload in payloads { writer.writeCounted(payload) }
        case .forwardTaken(let stream, let number, let through, let refused):
            tag(.forwardTaken)
            writer.write(stream)
            writer.writeVarint(number)
            writer.writeVarint(through)
            writer.write(refused.map { $0.rawValue + 1 } ?? 0 as UInt8)
        }
    }

    /// Reads one message; bytes behind it are left to the caller.
    public static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> Message {
        let from = try reader.readMember()
        let to = try reader.readMember()
        let term = try reader.readTerm()
        guard let tag = Tag(rawValue: try reader.readByte()) else { throw .malformed("unknown message") }
        return Message(from: from, to: to, term: term, body: try decodeBody(tag, &reader))
    }

    private static func decodeBody(_ tag: Tag, _ reader: inout ByteReader) throws(DecodingFault) -> Body {
        switch tag {
        case .requestVote:
            return .requestVote(last: try reader.readPosition(), isPreVote: try reader.readFlag(), isTransfer: try reader.readFlag())
        case .voteReply:
            let granted = try reader.readFlag()
            let isPreVote = try reader.readFlag()
            let code = try reader.readByte()
            let refusal = VoteRefusal(rawValue: code)
            guard code == 0xff || refusal != nil else { throw .malformed("unknown vote refusal") }
            return .voteReply(granted: granted, isPreVote: isPreVote, refusal: refusal)
        case .append:
            let previous = try reader.readPosition()
            let commit = try reader.readIndex()
            let count = try reader.readCount(ofAtLeast: Entry.minimumEncodedSize)
            var entries: [Entry] = []
            entries.reserveCapacity(count)
            for _ in 0..<count { entries.append(try Entry.decode(&reader)) }
            return .append(previous: previous, entries: entries, commit: commit)
        case .appendAccepted:
            return .appendAccepted(match: try reader.readIndex())
        case .appendRejected:
            return .appendRejected(rejected: try reader.readIndex(), hint: try reader.readPosition())
        case .heartbeat:
            return .heartbeat(commit: try reader.readIndex(), round: ReadRound(try reader.readVarint()))
        case .heartbeatReply:
            return .heartbeatReply(round: ReadRound(try reader.readVarint()))
        case .snapshotReply:
            let isInstalled = try reader.readFlag()
            let position = try reader.readPosition()
            return .snapshotReply(installed: isInstalled ? position : nil)
        case .timeoutNow:
            return .timeoutNow
        case .requestReadIndex:
            return .requestReadIndex(id: ReadID(try reader.readVarint()))
        case .readIndexReply:
            return .readIndexReply(id: ReadID(try reader.readVarint()), index: try reader.readIndex())
        case .readIndexRefused:
            return .readIndexRefused(id: ReadID(try reader.readVarint()))
        case .forward:
            let stream: UInt64 = try reader.read()
            let number = try reader.readVarint()
            guard number > 0, number < 1 << 62 else { throw .malformed("number of forwarded commands") }
            let count = try reader.readCount(ofAtLeast: 1)
            var payloads: [[UInt8]] = []
            payloads.reserveCapacity(count)
            for _ in 0..<count { payloads.append(try reader.readCounted()) }
            return .forward(stream: stream, number: number, payloads: payloads)
        case .forwardTaken:
            let stream: UInt64 = try reader.read()
            let number = try reader.readVarint()
            let through = try reader.readVarint()
            let code = try reader.readByte()
            guard code > 0 else { return .forwardTaken(stream: stream, number: number, through: through, refused: nil) }
            guard let refusal = RaftRefusal(rawValue: code - 1) else { throw .malformed("unknown refusal") }
            return .forwardTaken(stream: stream, number: number, through: through, refused: refusal)
        }
    }
}
