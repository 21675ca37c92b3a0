import Base
import Raft
import Store

/// This member's state hashes of late, and what the others say of theirs. Pure bookkeeping: it judges, the replica acts.
///
/// A round compares one index. It begins when the member applies the `.stateCheck` entry that names the index; reports of members that were
/// faster wait here until then. Nobody's word counts more than another's, the leader's included.
struct StateComparison {
    /// Hashes kept: a check whose index is further behind is passed over. Some seconds of the heaviest load.
    static let ringSize = 8192
    /// Rounds under way at a time. They come a second apart; one that this many others overtook has lost messages.
    static let maxRounds = 8

    enum Verdict: Hashable {
        case diverged(at: LogIndex, own: StateHash, majority: StateHash)
        /// Every voter has said something and no hash has a majority: nobody can tell who is right.
        case noMajority(at: LogIndex)
    }

    private struct Round {
        let index: LogIndex
        /// Nil until this member has applied the check.
        var own: StateHash?
        /// Who counts: as of the check's own entry, so the same on every member.
        var configuration: Configuration?
        var reports: [(member: MemberID, hash: StateHash)] = []
        var isJudged = false

        mutating func note(_ member: MemberID, _ hash: StateHash) {
            if let at = reports.firstIndex(where: { $0.member == member }) {
                reports[at].hash = hash
            } else {
                reports.append((member, hash))
            }
        }
    }

    /// By index modulo `ringSize`; valid for `ringStart...ringEnd`.
    private var ring = [StateHash](repeating: .initial, count: StateComparison.ringSize)
    private var ringStart: LogIndex
    private var ringEnd: LogIndex
    /// Ascending by index.
    private var rounds: [Round] = []
    /// The newest index at which this member was found to agree; zero before the first.
    private(set) var agreedThrough = LogIndex.zero

    init(at index: LogIndex, _ hash: StateHash) {
        ringStart = index
        ringEnd = index
        record(index, hash)
    }

    /// The next applied index and the hash behind it.
    mutating func record(_ index: LogIndex, _ hash: StateHash) {
        ring[Int(truncatingIfNeeded: index.rawValue % UInt64(StateComparison.ringSize))] = hash
        ringEnd = index
    }

    /// Nil for what is too old, or lies before this process or before a snapshot.
    func hash(at index: LogIndex) -> StateHash? {
        guard index >= ringStart, index <= ringEnd, ringEnd.rawValue - index.rawValue < UInt64(StateComparison.ringSize) else { return nil }
        return ring[Int(truncatingIfNeeded: index.rawValue % UInt64(StateComparison.ringSize))]
    }

    /// The check of `index` is applied. Returns this member's own hash there, to be told to the others; nil when it cannot take part.
    mutating func begin(_ index: LogIndex, by proposer: MemberID, _ hash: StateHash, id: MemberID, _ configuration: Configuration) -> StateHash? {
        guard let own = self.hash(at: index), let at = round(index) else { return nil }
        rounds[at].own = own
        rounds[at].configuration = configuration
        rounds[at].note(proposer, hash)
        rounds[at].note(id, own)
        return own
    }

    mutating func take(_ hash: StateHash, at index: LogIndex, from member: MemberID) {
        guard let at = round(index) else { return }
        rounds[at].note(member, hash)
        rounds[at].isJudged = false
    }

    /// The position of the round, made if need be; nil for one that is too old to matter.
    private mutating func round(_ index: LogIndex) -> Int? {
        var at = rounds.count
        while at > 0, rounds[at - 1].index > index { at -= 1 }
        if at > 0, rounds[at - 1].index == index { return at - 1 }
        if rounds.count == StateComparison.maxRounds {
            guard at > 0 else { return nil }
            rounds.removeFirst()
            at -= 1
        }
        rounds.insert(Round(index: index), at: at)
        return at
    }

    /// What the reports so far come to. Each verdict is given once.
    mutating func judge() -> Verdict? {
        for at in rounds.indices where !rounds[at].isJudged {
            guard let own = rounds[at].own, let configuration = rounds[at].configuration else { continue }
            rounds[at].isJudged = true
            let reports = rounds[at].reports
            let majority = reports.first { candidate in
                configuration.isMajority { member in reports.contains { $0.member == member && $0.hash == candidate.hash } }
            }
            if let majority {
                if majority.hash != own { return .diverged(at: rounds[at].index, own: own, majority: majority.hash) }
                agreedThrough = max(agreedThrough, rounds[at].index)
            } else if configuration.everyone.allSatisfy({ member in
                !configuration.isVoter(member) || reports.contains { $0.member == member }
            }) {
                return .noMajority(at: rounds[at].index)
            }
        }
        return nil
    }
}

extension Configuration {
    /// Whether those for whom `isIn` holds are a majority; of both sets of voters during a joint change.
    func isMajority(_ isIn: (MemberID) -> Bool) -> Bool {
        func isMajority(of set: [MemberID]) -> Bool { set.count { isIn($0) } > set.count / 2 }
        return isMajority(of: voters) && (outgoingVoters.isEmpty || isMajority(of: outgoingVoters))
    }
}

/// Body of `.stateCheck`: the proposer's hash as of an entry that it had applied.
struct StateCheck {
    var index: LogIndex
    var hash: StateHash

    func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 16)
        writer.write(index.rawValue)
        writer.write(hash.rawValue)
        return writer.bytes
    }
    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> StateCheck {
        StateCheck(index: LogIndex(try reader.read(UInt64.self)), hash: StateHash(rawValue: try reader.read(UInt64.self)))
    }
}
