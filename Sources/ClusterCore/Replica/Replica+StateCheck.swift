import Base
import Raft
import Store

// The members compare their states while they run: a check in the log names an index, each member tells the others its hash there, and
// one that is alone with its own stops. (reliability.md §2.7)
extension Replica {
    /// When the next check is due; nil while nothing asks for one.
    var stateCheckDeadline: Instant? {
        guard options.stateCheckInterval > .zero, raft.isLeader, leases.isPrimary, let uncheckedSince, lastUnchecked > proposedCheck,
              !raft.configuration.isAlone else { return nil }
        return uncheckedSince + options.stateCheckInterval
    }

    /// The state's hash behind an earlier entry; nil when it lies too far back, or before what this process applied. For the simulator.
    public func stateHash(at index: LogIndex) -> StateHash? { comparison.hash(at: index) }

    /// Leader only. A cluster in which nothing happens writes no checks.
    func proposeStateCheck(at now: Instant) {
        guard let deadline = stateCheckDeadline, deadline <= now else { return }
        proposedCheck = applied.index
        enqueue(.stateCheck, StateCheck(index: applied.index, hash: stateHash).encoded(), nil, at: now)
    }

    /// An entry that a check has to cover was applied.
    func noteUnchecked(at now: Instant) {
        lastUnchecked = applied.index
        if uncheckedSince == nil { uncheckedSince = now }
    }

    func applyStateCheck(_ body: inout ByteReader, by proposer: MemberID, at now: Instant) throws(ApplyFailure) {
        let check: StateCheck
        do { check = try StateCheck.decode(&body) } catch { throw .undecodable(error) }
        stateHash.fold(check.index.rawValue, check.hash.rawValue)
        if lastUnchecked <= check.index { uncheckedSince = nil } else { uncheckedSince = now }
        if let own = comparison.begin(check.index, by: proposer, check.hash, id: id, appliedConfiguration) {
            // Of several in one batch, which a member that catches up meets, the newest is worth a message.
            dueReport = StateCheck(index: check.index, hash: own)
        }
    }

    /// Once a flush, behind everything that was applied: tells the others, and draws the conclusion from what they have told.
    func compareStates(at now: Instant, into effects: inout ReplicaEffects) {
        guard !isHalted else { return }
        if let report = dueReport {
            dueReport = nil
            if appliedConfiguration.isVoter(id) {
                for peer in appliedConfiguration.everyone where peer != id {
                    send(.stateHash(index: report.index, report.hash), to: peer, into: &effects)
                }
            }
        }
        while let verdict = comparison.judge() {
            switch verdict {
            case .diverged(let index, let own, let majority):
                return fence(.diverged(StateDivergence(after: comparison.agreedThrough, through: index, own: own, majority: majority)), into: &effects)
            case .noMajority(let index):
                effects.notes.append(.statesDiffer(index))
                if raft.isLeader { raiseCorrupt(at: now) }
            }
        }
    }

    /// This member's state is not the cluster's: nothing that it would say may leave it, not even what this batch has made so far. Writes under
    /// way go on; they tell nobody anything.
    private func fence(_ note: ReplicaNote, into effects: inout ReplicaEffects) {
        isHalted = true
        effects.messages.removeAll()
        effects.answers.removeAll()
        effects.grants.removeAll()
        effects.watch.removeAll()
        effects.snapshots.removeAll()
        effects.notes.append(note)
    }

    /// Nobody can say whose state is wrong, so nobody may be believed: member 0, as etcd has it.
    private func raiseCorrupt(at now: Instant) {
        let alarm = Alarm(member: .none, kind: Alarm.corrupt)
        guard !alarms.contains(alarm) else { return }
        var body = ByteWriter(capacity: 24)
        body.writeField(1, UInt64(AlarmAction.activate.rawValue))
        body.writeField(2, alarm.member.rawValue)
        body.writeField(3, UInt64(alarm.kind))
        enqueue(.alarm, body.bytes, nil, at: now)
    }
}

/// Where a member's state parted from the majority's.
public struct StateDivergence: Hashable, Sendable, CustomStringConvertible {
    /// The newest entry at which it was still found equal; zero when it never was since the process started.
    public var after: LogIndex
    /// An entry at which it differs.
    public var through: LogIndex
    public var own: StateHash
    public var majority: StateHash

    public var description: String {
        let range = after == .zero ? "at or before entry \(through.rawValue)" : "between entries \(after.rawValue) and \(through.rawValue)"
        return "this member's state parted from the majority's \(range) (hash \(own), the others have \(majority)): it must not serve any more; "
            + "remove the member from the cluster, clear its data directory, and add it again"
    }
}
