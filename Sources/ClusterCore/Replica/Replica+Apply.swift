import Auth
import Base
import Raft
import Store

// From consensus' effects to the state machine.
extension Replica {
    /// Passes on what consensus wants done and applies what is committed.
    func carryOut(at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        let batch = raftEffects
        raftEffects.removeAll(keepingCapacity: true)
        for effect in batch {
            switch effect {
            case .persist(let write): effects.persist.append(write)
            // A removed member has said its last word: what consensus still wants to say is of its former life.
            case .send where isRemoved: break
            case .send(let message): effects.messages.append(PeerMessage(from: id, to: message.to, body: .raft(message)))
            case .apply(let entries): apply(entries, at: now, wall: wall, into: &effects)
            case .readReady(let read, let index): readReady(read, index: index)
            case .readRefused(let read, _): readRefused(read)
            case .proposalRefused(let payloads, let reason): proposalsRefused(payloads, reason, into: &effects)
            case .configurationRefused(_, let reason): changeNotTaken(reason, into: &effects)
            case .sendSnapshot(let peer): effects.snapshots.append(peer)
            case .note(let note): take(note, at: now, into: &effects)
            }
        }
    }

    private func take(_ note: RaftNote, at now: Instant, into effects: inout ReplicaEffects) {
        switch note {
        case .leaderChanged(let leader, _):
            counters.leaderChanges += leader == .none ? 0 : 1
            if leader != .none {
                leaderlessSince = nil
                lastElection = now
                askNewLeader(into: &effects)
            }
        case .roleChanged(let role, _, _):
            // The lease clock is the leader's alone; it starts when the first entry of its term is applied.
            if role != .leader {
                leadershipLost(at: now, into: &effects)
                dropQueuedChanges()
            } else {
                leadsSince = now
            }
            proposedCheck = .zero
        case .transferAborted(let target):
            leadershipMoves.removeAll { move in
                guard move.target == target else { return false }
                effects.answers.append((move.token, .failed(.leaderTransferTimeout)))
                return true
            }
        default: break
        }
        effects.notes.append(.raft(note))
    }

    func apply(_ entries: [Entry], at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        guard !isHalted, let last = entries.last else { return }
        for entry in entries where entry.index > applied.index {
            // What the backend already holds is not applied twice; the log may begin before it.
            precondition(entry.index == applied.index.next, "entry \(entry.index.rawValue) does not follow applied \(applied.index.rawValue)")
            let startsTerm = entry.term != applied.term
            applied = LogPosition(index: entry.index, term: entry.term)
            logBytesSinceCompaction += entry.cost
            if startsTerm {
                proposeAgain(before: entry.term)
                if raft.isLeader && entry.term == raft.term {
                    leases.promote(now: now, extension: options.raft.electionTimeout, retryAfter: options.requestTimeout)
                }
            }
            switch entry.kind {
            case .empty:
                stateHash.fold(entry.index.rawValue, entry.term.rawValue, UInt64(entry.kind.rawValue))
            case .configuration:
                stateHash.fold(entry.index.rawValue, entry.term.rawValue, UInt64(entry.kind.rawValue), UInt64(entry.payload.count))
                stateHash.fold(entry.payload)
                noteUnchecked(at: now)
                do throws(DecodingFault) {
                    try applyConfiguration(entry, at: now, into: &effects)
                } catch { return halt(entry.index, "\(error)", into: &effects) }
            case .command:
                counters.proposalsApplied += 1
                // Returned, not thrown: a typed throw through this closure crashes the 6.3 compiler.
                let fault: DecodingFault? = entry.payload.withUnsafeBytes { raw in
                    do throws(DecodingFault) {
                        try applyCommand(raw, of: entry, at: now, into: &effects)
                        return nil
                    } catch { return error }
                }
                if let fault { return halt(entry.index, "\(fault)", into: &effects) }
            }
            if let fault = store.fault { return halt(entry.index, fault.description, into: &effects) }
            comparison.record(entry.index, stateHash)
        }
        counters.proposalsCommitted = UInt64(raft.commit.rawValue)
        markDirty(at: now)
        raft.handle(.applied(last.index), at: now, wall: wall, into: &raftEffects)
    }

    func halt(_ index: LogIndex, _ reason: String, into effects: inout ReplicaEffects) {
        isHalted = true
        effects.notes.append(.cannotApply(index, reason))
    }

    /// A refused command is an outcome like any other: the same on every member, told to the client.
    private func applyCommand(_ raw: UnsafeRawBufferPointer, of entry: Entry, at now: Instant,
                              into effects: inout ReplicaEffects) throws(DecodingFault) {
        let command = try Command.decodeHeader(raw)
        var body = ByteReader(raw, offset: command.size, count: raw.count - command.size)
        let waiting = command.proposer == id ? proposals.removeValue(forKey: command.number) : nil
        stateHash.fold(entry.index.rawValue, entry.term.rawValue, UInt64(entry.kind.rawValue) | UInt64(command.kind.rawValue) << 8, command.number)
        if command.kind != .stateCheck { noteUnchecked(at: now) }
        if let token = waiting?.token { numberOfToken.removeValue(forKey: token) }
        let response: [UInt8]
        do {
            try authorise(command, body)
            switch command.kind {
            case .put: response = try put(&body, wantsAnswer: waiting?.token != nil)
            case .deleteRange: response = try deleteRange(&body)
            case .txn: response = try txn(&body)
            case .compaction:
                if let bytes = try compact(&body, token: waiting?.token, into: &effects) { response = bytes } else { return }
            case .leaseGrant: response = try leaseGrant(&body, at: now)
            case .leaseRevoke: response = try leaseRevoke(&body, into: &effects)
            case .leaseCheckpoint:
                try applyLeaseCheckpoint(&body, entryTerm: entry.term, into: &effects)
                response = []
            case .leaseExpire: response = try leaseExpire(&body, entryTerm: entry.term, into: &effects)
            case .alarm: response = try changeAlarm(&body, into: &effects)
            case .memberAttributes: response = try setAttributes(&body, into: &effects)
            case .downgrade: response = try changeDowngrade(&body)
            case .authEnable, .authDisable, .authenticate, .userAdd, .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole,
                 .roleAdd, .roleDelete, .roleGrantPermission, .roleRevokePermission:
                response = try changeAuth(command.kind, &body, at: now, into: &effects)
            case .stateCheck:
                try applyStateCheck(&body, by: command.proposer, at: now)
                return
            }
        } catch {
            switch error {
            case .refused(let refusal):
                stateHash.fold(Array(refusal.message.utf8))
                if let waiting, refusal == .authOldRevision, proposeAgain(waiting, at: now) { return }
                if let token = waiting?.token { effects.answers.append((token, .failed(refusal))) }
                return
            case .undecodable(let fault): throw fault
            }
        }
        publishEvents(into: &effects)
        if let token = waiting?.token { effects.answers.append((token, .encoded(response))) }
    }

    enum ApplyFailure: Error {
        case refused(ServiceError)
        case undecodable(DecodingFault)
    }

    func decoding<T>(_ body: () throws(DecodingFault) -> T) throws(ApplyFailure) -> T {
        do { return try body() } catch { throw .undecodable(error) }
    }
    func refusing<T>(_ body: () throws(ServiceError) -> T) throws(ApplyFailure) -> T {
        do { return try body() } catch { throw .refused(error) }
    }

    // MARK: Keys

    private func put(_ body: inout ByteReader, wantsAnswer: Bool) throws(ApplyFailure) -> [UInt8] {
        let request: PutRequest
        do { request = try PutRequest.decode(&body) } catch { throw .undecodable(error) }
        try checkAlarms(needsSpace: true)
        counters.puts += 1
        let result: PutResult
        do {
            result = try store.put(request, reader: reader, leaseExists: { leases.contains($0) })
        } catch { throw .refused(error) }
        guard wantsAnswer else { return [] }
        var writer = ByteWriter(capacity: 40 + (result.previous?.count ?? 0))
        result.encode(header: header(), into: &writer)
        return writer.bytes
    }

    /// For the planted divergence: seldom enough that it hides for a while.
    private var entryIsRare: Bool { applied.index.rawValue % 16 == 0 }

    private func deleteRange(_ body: inout ByteReader) throws(ApplyFailure) -> [UInt8] {
        let request: DeleteRangeRequest
        do { request = try DeleteRangeRequest.decode(&body) } catch { throw .undecodable(error) }
        try checkAlarms(needsSpace: false)
        counters.deletes += 1
        if planted(.differsByMember), id.rawValue & 2 != 0, entryIsRare { return [] }
        let result = try refusing { () throws(ServiceError) in try store.deleteRange(request, reader: reader) }
        var writer = ByteWriter(capacity: 40)
        result.encode(header: header(), into: &writer)
        return writer.bytes
    }

    private func txn(_ body: inout ByteReader) throws(ApplyFailure) -> [UInt8] {
        let request: TxnRequest
        do { request = try TxnRequest.decode(&body) } catch { throw .undecodable(error) }
        try checkAlarms(needsSpace: request.quotaCost > 0)
        counters.txns += 1
        let result = try refusing { () throws(ServiceError) in
            try store.txn(request, reader: reader, leaseExists: { leases.contains($0) })
        }
        var writer = ByteWriter(capacity: 128)
        result.encode(header: header(), into: &writer)
        return writer.bytes
    }

    /// Nil when the answer waits until the history is gone from this member's disk (`physical`).
    private func compact(_ body: inout ByteReader, token: RequestToken?, into effects: inout ReplicaEffects) throws(ApplyFailure) -> [UInt8]? {
        let request: CompactionRequest
        do { request = try CompactionRequest.decode(&body) } catch { throw .undecodable(error) }
        if hasAlarm(Alarm.corrupt) { throw .refused(.corrupt) }
        try refusing { () throws(ServiceError) in try store.compact(to: request.revision) }
        stateHash.fold(UInt64(bitPattern: request.revision.rawValue))
        hub.compacted(request.revision, into: &effects.watch)
        effects.notes.append(.compacted(request.revision))
        let answer = headerOnly()
        guard request.physical, let token else { return answer }
        physicalCompactions.append((token, answer))
        return nil
    }

    /// Tells watchers and the lease table what the last command changed.
    private func publishEvents(into effects: inout ReplicaEffects) {
        let events = store.takeEvents()
        guard let revision = events.first?.change.main else { return }
        counters.events += UInt64(events.count)
        for event in events { stateHash.fold(event) }
        leases.follow(events)
        do {
            try hub.publish(revision, events, history: history, into: &effects.watch)
        } catch {
            halt(applied.index, "history cannot be read: \(error)", into: &effects)
        }
    }

    private func checkAlarms(needsSpace: Bool) throws(ApplyFailure) {
        guard !alarms.isEmpty else { return }
        if hasAlarm(Alarm.corrupt) { throw .refused(.corrupt) }
        if needsSpace && hasAlarm(Alarm.noSpace) { throw .refused(.noSpace) }
    }

    func hasAlarm(_ kind: UInt32) -> Bool { alarms.contains { $0.kind == kind } }

    /// The response of every call whose answer is its header (field 1).
    func headerOnly() -> [UInt8] {
        var writer = ByteWriter(capacity: 40)
        header().encodeAsField(into: &writer)
        return writer.bytes
    }

    // MARK: Leases

    private func leaseGrant(_ body: inout ByteReader, at now: Instant) throws(ApplyFailure) -> [UInt8] {
        var lease = LeaseID.none
        var ttl: Int64 = 0
        do {
            while let (field, type) = try body.readTag() {
                switch (field, type) {
                case (1, .varint): ttl = Int64(bitPattern: try body.readVarint())
                case (2, .varint): lease = LeaseID(Int64(bitPattern: try body.readVarint()))
                default: try body.skip(type)
                }
            }
        } catch { throw .undecodable(error) }
        try checkAlarms(needsSpace: true)
        guard lease != .none else { throw .refused(.leaseNotFound) }
        guard !leases.contains(lease) else { throw .refused(.leaseExist) }
        // The proposer has raised the time to its minimum; raising it here by an own setting could differ between members.
        let granted = try refusing { () throws(ServiceError) in try leases.grant(lease, ttlSeconds: ttl, minimumTTLSeconds: 1, now: now) }
        stateHash.fold(UInt64(bitPattern: lease.rawValue), UInt64(bitPattern: granted))
        LeaseRecord(id: lease, grantedTTLSeconds: granted).add(to: &smallChanges)
        counters.leasesGranted += 1
        var writer = ByteWriter(capacity: 64)
        header().encodeAsField(into: &writer)
        writer.writeField(2, lease.rawValue)
        writer.writeField(3, granted)
        return writer.bytes
    }

    private func leaseRevoke(_ body: inout ByteReader, into effects: inout ReplicaEffects) throws(ApplyFailure) -> [UInt8] {
        var lease = LeaseID.none
        do {
            while let (field, type) = try body.readTag() {
                switch (field, type) {
                case (1, .varint): lease = LeaseID(Int64(bitPattern: try body.readVarint()))
                default: try body.skip(type)
                }
            }
        } catch { throw .undecodable(error) }
        if hasAlarm(Alarm.corrupt) { throw .refused(.corrupt) }
        guard leases.contains(lease) else { throw .refused(.leaseNotFound) }
        _ = endLease(lease, into: &effects)
        counters.leasesRevoked += 1
        return headerOnly()
    }

    private func leaseExpire(_ body: inout ByteReader, entryTerm: Term, into effects: inout ReplicaEffects) throws(ApplyFailure) -> [UInt8] {
        let expiry: LeaseExpiry
        do { expiry = try LeaseExpiry.decode(&body) } catch { throw .undecodable(error) }
        guard expiry.term == entryTerm || planted(.expiresLeasesOfOtherTerms), leases.contains(expiry.lease) else { return [] }
        let keys = endLease(expiry.lease, into: &effects)
        counters.leasesExpired += 1
        effects.notes.append(.leaseExpired(expiry.lease, keys: keys))
        return []
    }

    private func endLease(_ lease: LeaseID, into effects: inout ReplicaEffects) -> Int {
        let keys = (try? leases.revoke(lease)) ?? []
        if !keys.isEmpty { store.deleteKeys(planted(.leavesAKeyOfAnEndedLease) ? Array(keys.dropLast()) : keys) }
        stateHash.fold(UInt64(bitPattern: lease.rawValue), UInt64(keys.count))
        LeaseRecord.addRemoval(of: lease, to: &smallChanges)
        leaseEnded(lease, into: &effects)
        return keys.count
    }

    /// Expiries proposed at once, so that a storm of them does not crowd out clients. (etcd: 500 a scan)
    static let maxExpiriesPerTurn = 500

    /// Leader only: expired leases end through the log, at the same revision on every member.
    func proposeExpiredLeases(at now: Instant, wall: WallTime) {
        guard raft.isLeader, leases.isPrimary, let leaseDeadline, leaseDeadline <= now else { return }
        for expired in leases.takeExpired(now: now, max: Replica.maxExpiriesPerTurn) {
            enqueue(.leaseExpire, LeaseExpiry(lease: expired.id, term: raft.term).encoded(), nil, at: now)
        }
    }

    // MARK: Alarms and members

    private func changeAlarm(_ body: inout ByteReader, into effects: inout ReplicaEffects) throws(ApplyFailure) -> [UInt8] {
        var action: UInt64 = 0
        var member = MemberID.none
        var kind: UInt32 = 0
        do {
            while let (field, type) = try body.readTag() {
                switch (field, type) {
                case (1, .varint): action = try body.readVarint()
                case (2, .varint): member = MemberID(try body.readVarint())
                case (3, .varint): kind = UInt32(truncatingIfNeeded: try body.readVarint())
                default: try body.skip(type)
                }
            }
        } catch { throw .undecodable(error) }
        var answered: [Alarm] = []
        let alarm = Alarm(member: member, kind: kind)
        switch AlarmAction(rawValue: UInt32(truncatingIfNeeded: action)) {
        case .get:
            answered = alarms.filter { kind == 0 || $0.kind == kind }
        case .activate where kind != 0:
            answered = [alarm]
            if !alarms.contains(alarm) {
                stateHash.fold(action, member.rawValue, UInt64(kind))
                alarms.append(alarm)
                alarms.sort()
                smallChanges.put(.alarm, alarm.key, [])
                effects.notes.append(.alarmsChanged(alarms))
            }
            if member == id && kind == Alarm.noSpace { isRaisingNoSpace = false }
        case .deactivate where alarms.contains(alarm):
            answered = [alarm]
            stateHash.fold(action, member.rawValue, UInt64(kind))
            alarms.removeAll { $0 == alarm }
            smallChanges.delete(.alarm, alarm.key)
            effects.notes.append(.alarmsChanged(alarms))
        default: break
        }
        var writer = ByteWriter(capacity: 64)
        header().encodeAsField(into: &writer)
        for alarm in answered {
            writer.writeMessage(2) {
                $0.writeField(1, alarm.member.rawValue)
                $0.writeField(2, UInt64(alarm.kind))
            }
        }
        return writer.bytes
    }

    private func setAttributes(_ body: inout ByteReader, into effects: inout ReplicaEffects) throws(ApplyFailure) -> [UInt8] {
        let attributes: MemberAttributes
        do { attributes = try MemberAttributes.decode(&body) } catch { throw .undecodable(error) }
        if let member = membership.setAttributes(attributes) {
            // The entry's own words: what members were founded with may be spelt differently on each.
            stateHash.fold(attributes.encoded())
            smallChanges.put(.members, Membership.key(of: member.id), member.json())
            effects.notes.append(.membershipChanged(membership))
        }
        return []
    }

    /// A member that has started says its name and where clients find it, until the cluster knows.
    func publishOwnAttributes(at now: Instant) {
        guard now >= nextPublish, raft.leader != .none, let me = membership.member(id),
              me.name != options.name || me.clientURLs != options.clientURLs else { return }
        nextPublish = now + options.requestTimeout
        enqueue(.memberAttributes, MemberAttributes(member: id, name: options.name, clientURLs: options.clientURLs).encoded(), nil, at: now)
    }
}

extension Alarm {
    /// etcd's key in the alarm table: the encoded AlarmMember.
    var key: [UInt8] {
        var writer = ByteWriter(capacity: 16)
        writer.writeField(1, member.rawValue)
        writer.writeField(2, UInt64(kind))
        return writer.bytes
    }

    static func decode(key: UnsafeRawBufferPointer) throws(DecodingFault) -> Alarm {
        var alarm = Alarm(member: .none, kind: 0)
        var reader = ByteReader(key)
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .varint): alarm.member = MemberID(try reader.readVarint())
            case (2, .varint): alarm.kind = UInt32(truncatingIfNeeded: try reader.readVarint())
            default: try reader.skip(type)
            }
        }
        return alarm
    }
}
