import Base
import Raft
import Store

// How much of a lease's time is gone is known to the leader's clock alone. Without more, every new leader gives every lease its whole time again,
// and under frequent elections none ever ends. (etcd #9888) So the leader writes down from time to time what is left: a checkpoint, which the next
// leader goes on from. A renewal takes an earlier checkpoint back, and is answered only when that is applied. (reliability.md §2.8, incidents 10, 11)
extension Replica {
    /// Leases looked at each time: with the default interval a thousand a second, so that checkpoints and the renewals that take them back stay
    /// a small part of what is written, however many leases there are. (etcd's rate)
    static let leasesPerCheckpoint = 1000
    /// A checkpoint is made when this much is gone, or a quarter of the time if that is less.
    static let checkpointAfterSeconds: Int64 = 5

    /// Leader only: a slice of the leases, each time the deadline comes.
    func proposeLeaseCheckpoints(at now: Instant) {
        guard let deadline = leaseCheckpointDeadline, deadline <= now else { return }
        var checkpoint = LeaseCheckpoint(term: raft.term)
        if leasesToCheckpoint.isEmpty { leasesToCheckpoint = leases.ids.reversed() }
        nextLeaseCheckpoint = now + options.leaseCheckpointInterval
        for _ in 0..<min(Replica.leasesPerCheckpoint, leasesToCheckpoint.count) {
            let id = leasesToCheckpoint.removeLast()
            guard let record = leases.record(of: id), let remaining = leases.remaining(id, now: now), remaining > .zero else { continue }
            // Rounded up: a lease may live longer than its time, never shorter.
            let left = (remaining.nanoseconds + 999_999_999) / 1_000_000_000
            let recorded = record.remainingTTLSeconds > 0 ? record.remainingTTLSeconds : record.grantedTTLSeconds
            let worthwhile = max(1, min(record.grantedTTLSeconds / 4, Replica.checkpointAfterSeconds))
            guard recorded - left >= worthwhile, !checkpointedLeases.contains(id) else { continue }
            checkpoint.rests.append((id, left))
            checkpointedLeases.insert(id)
        }
        if !checkpoint.rests.isEmpty { enqueue(.leaseCheckpoint, checkpoint.encoded(), nil, at: now) }
    }

    var leaseCheckpointDeadline: Instant? {
        guard options.leaseCheckpointInterval > .zero, raft.isLeader, leases.isPrimary, leases.count > 0 else { return nil }
        return nextLeaseCheckpoint
    }

    /// The lease was renewed though less than its time is on record, or soon will be: the answer waits until that is taken back.
    func takeCheckpointBack(_ lease: LeaseID, ttlSeconds: Int64, _ asker: Asker, at now: Instant) {
        renewalsBehindCheckpoint.append((lease, ttlSeconds, asker))
        var checkpoint = LeaseCheckpoint(term: raft.term)
        checkpoint.rests.append((lease, 0))
        enqueue(.leaseCheckpoint, checkpoint.encoded(), nil, at: now)
        mustAskAgain = true
    }

    func applyLeaseCheckpoint(_ body: inout ByteReader, entryTerm: Term, into effects: inout ReplicaEffects) throws(ApplyFailure) {
        let checkpoint: LeaseCheckpoint
        do { checkpoint = try LeaseCheckpoint.decode(&body) } catch { throw .undecodable(error) }
        // A deposed leader's, which its successor's renewals have overtaken.
        guard checkpoint.term == entryTerm else { return }
        for (lease, left) in checkpoint.rests {
            if left > 0 { checkpointedLeases.remove(lease) }
            guard leases.checkpoint(lease, remainingTTLSeconds: left), let record = leases.record(of: lease) else { continue }
            record.add(to: &smallChanges)
            stateHash.fold(UInt64(bitPattern: lease.rawValue), UInt64(bitPattern: left))
            if left == 0 { answerRenewals(of: lease, into: &effects) }
        }
    }

    private func answerRenewals(of lease: LeaseID, into effects: inout ReplicaEffects) {
        guard !renewalsBehindCheckpoint.isEmpty, raft.isLeader else { return }
        renewalsBehindCheckpoint.removeAll { waiting in
            guard waiting.lease == lease else { return false }
            counters.leasesRenewed += 1
            answerRenewal(lease, ttlSeconds: waiting.ttlSeconds, waiting.asker, into: &effects)
            return true
        }
    }
}

/// Body of `.leaseCheckpoint`: the leader's term (8 bytes, little-endian) | count (varint) | lease id (8) and seconds left (8), each. Like an expiry
/// it counts only in the term that it names.
struct LeaseCheckpoint {
    var term: Term
    /// 0 left: the whole time counts again.
    var rests: [(lease: LeaseID, seconds: Int64)] = []

    func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: 16 + rests.count * 16)
        writer.write(term.rawValue)
        writer.writeVarint(UInt64(rests.count))
        for rest in rests {
            writer.write(rest.lease.rawValue)
            writer.write(rest.seconds)
        }
        return writer.bytes
    }

    static func decode(_ reader: inout ByteReader) throws(DecodingFault) -> LeaseCheckpoint {
        var checkpoint = LeaseCheckpoint(term: Term(try reader.read(UInt64.self)))
        let count = try reader.readVarint()
        guard count <= UInt64(reader.remaining) / 16 else { throw .truncated }
        for _ in 0..<count {
            let lease = LeaseID(try reader.read(Int64.self))
            let seconds: Int64 = try reader.read()
            guard seconds >= 0 else { throw .malformed("\(seconds) seconds left of a lease") }
            checkpoint.rests.append((lease, seconds))
        }
        return checkpoint
    }
}
