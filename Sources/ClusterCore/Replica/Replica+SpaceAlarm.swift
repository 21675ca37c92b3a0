import Base
import Raft
import Store

/// The quota of the store and its alarm. What counts is what the store holds, not the size of its file: deleting and compacting is enough to be
/// below it again. The member that ran full raises the alarm, and takes it back by itself below nine tenths of its quota; etcd waits for an
/// operator. (reliability.md §2.6, incident 33) An alarm that a person raised stays.
extension Replica {
    /// Bytes from which on the store counts as nearly full.
    private var nearlyFull: Int64 { options.effectiveQuotaBytes / 10 * 9 }

    /// - Parameter cost: what a request may add, in bytes.
    func hasSpace(for cost: Int) -> Bool {
        let (sum, overflows) = backendSize.usedBytes.addingReportingOverflow(Int64(cost))
        return !overflows && sum < options.effectiveQuotaBytes
    }

    /// To be called whenever the store's size is learned.
    func sizeChanged(to size: BackendSize) {
        backendSize = size
        if size.usedBytes >= nearlyFull { wasNearlyFull = true }
    }

    func raiseNoSpace(at now: Instant) {
        let alarm = Alarm(member: id, kind: Alarm.noSpace)
        guard !alarms.contains(alarm), !isRaisingNoSpace else { return }
        isRaisingNoSpace = true
        propose(.activate, at: now)
    }

    /// Takes the alarm back once there is room again. Asks again if the command was lost.
    func proposeEndOfNoSpace(at now: Instant) {
        guard wasNearlyFull, backendSize.usedBytes < nearlyFull, !isRaisingNoSpace else { return }
        guard alarms.contains(Alarm(member: id, kind: Alarm.noSpace)) else {
            wasNearlyFull = false
            return
        }
        guard now >= nextNoSpaceEnd, raft.leader != .none else { return }
        nextNoSpaceEnd = now + options.requestTimeout
        propose(.deactivate, at: now)
    }

    private func propose(_ action: AlarmAction, at now: Instant) {
        var body = ByteWriter(capacity: 24)
        body.writeField(1, UInt64(action.rawValue))
        body.writeField(2, id.rawValue)
        body.writeField(3, UInt64(Alarm.noSpace))
        enqueue(.alarm, body.bytes, nil, at: now)
    }
}
