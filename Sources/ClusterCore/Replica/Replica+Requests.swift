import Auth
import Base
import DequeModule
import Raft
import Store

// Client requests: taking them in, giving up on them, and what only a leader can answer.
extension Replica {
    /// A request whose caller is known (nil: nobody) and may ask it. Writes and reads are judged later, where they are applied or evaluated.
    func take(_ request: Request, _ token: RequestToken, by caller: Caller?, _ credential: Credential, at now: Instant,
              into effects: inout ReplicaEffects) {
        switch request {
        case .read:
            arrivedReads.append(token)
            if credential != .none { credentials[token] = credential }
        case .localRead:
            localReads.append(token)
            if credential != .none { credentials[token] = credential }
        case .durableRead:
            durableReads.append((token, applied.index))
            if credential != .none { credentials[token] = credential }
        case .propose(let kind, let body, let cost):
            takeProposal(kind, body, cost: cost, token, by: caller, credential, at: now, into: &effects)
        case .permission:
            effects.answers.append((token, .permitted))
        case .leaseGrant(let lease, let ttl):
            var chosen = lease
            while chosen == .none || (lease == .none && leases.contains(chosen)) {
                chosen = LeaseID(Int64(truncatingIfNeeded: generator.next() >> 1))
            }
            var body = ByteWriter(capacity: 24)
            body.writeField(1, max(ttl, options.minLeaseTTLSeconds))
            body.writeField(2, chosen.rawValue)
            takeProposal(.leaseGrant, body.bytes, cost: 64, token, by: caller, credential, at: now, into: &effects)
        case .compactHistory(let revision):
            var body = ByteWriter(capacity: 12)
            body.writeField(1, revision.rawValue)
            enqueue(.compaction, body.bytes, token, from: .member, at: now)
        case .leaseKeepAlive(let lease):
            ask(LeaderQuestion(token: token, caller: caller, lease: lease, wantsKeys: nil, askedLeader: .none, deadline: now + options.requestTimeout),
                into: &effects)
        case .leaseTimeToLive(let lease, let wantsKeys):
            ask(LeaderQuestion(token: token, caller: caller, lease: lease, wantsKeys: wantsKeys, askedLeader: .none,
                               deadline: now + options.requestTimeout), into: &effects)
        case .leases:
            effects.answers.append((token, .leases(leases.idsInListOrder)))
        case .members(let linearizable):
            if linearizable {
                arrivedQuestions.append(.members(token))
            } else {
                effects.answers.append((token, .members(membership.members)))
            }
        case .changeMembership(let request):
            takeChange(request, token, at: now, into: &effects)
        case .status:
            effects.answers.append((token, .status(status())))
        case .moveLeader(let target):
            guard raft.isLeader else { return effects.answers.append((token, .failed(.notLeader))) }
            guard raft.configuration.isVoter(target) else { return effects.answers.append((token, .failed(.badLeaderTransferee))) }
            if target == id { return effects.answers.append((token, .leaderMoved)) }
            leadershipMoves.append(LeadershipMove(token: token, target: target, deadline: now + options.requestTimeout))
            raft.handle(.transferLeadership(to: target), at: now, wall: .unknown, into: &raftEffects)
        case .alarm(let action, let member, let kind):
            var body = ByteWriter(capacity: 24)
            body.writeField(1, UInt64(action.rawValue))
            body.writeField(2, member.rawValue)
            body.writeField(3, UInt64(kind))
            takeProposal(.alarm, body.bytes, cost: 0, token, by: caller, credential, at: now, into: &effects)
        }
    }

    private func takeProposal(_ kind: Command.Kind, _ body: [UInt8], cost: Int, _ token: RequestToken, by caller: Caller?,
                              _ credential: Credential, at now: Instant, into effects: inout ReplicaEffects) {
        if body.count + Command.headerSize + (caller.map { $0.user.bytes.count + 10 } ?? 0) > options.maxRequestBytes {
            return effects.answers.append((token, .failed(.requestTooLarge)))
        }
        guard proposals.count < options.maxPendingProposals else { return effects.answers.append((token, .failed(.requestTooManyRequests))) }
        if cost > 0 {
            if !hasSpace(for: cost) {
                raiseNoSpace(at: now)
                return effects.answers.append((token, .failed(.noSpace)))
            }
            if store.pendingBytes > options.maxUnwrittenBytes || unproposedBytes > options.maxWaitingBytes {
                return effects.answers.append((token, .failed(.requestTooManyRequests)))
            }
        }
        enqueue(kind, body, token, from: caller.map { .user($0) } ?? .nobody, credential, at: now)
    }

    /// Remembers a command until it is applied, and gives it to consensus at the next flush.
    func enqueue(_ kind: Command.Kind, _ body: [UInt8], _ token: RequestToken?, from origin: Command.Origin = .member,
                 _ credential: Credential = .none, at now: Instant) {
        let number = nextNumber
        nextNumber += 1
        let payload = Command(kind: kind, proposer: id, number: number, origin: origin, body: body).encoded()
        let deadline = now + options.requestTimeout
        enqueue(number, PendingProposal(token: token, payload: payload, term: .zero, startedAt: now, deadline: deadline, credential: credential))
        proposalDeadlines.append((deadline, number))
    }

    private func enqueue(_ number: UInt64, _ pending: PendingProposal) {
        proposals[number] = pending
        if let token = pending.token { numberOfToken[token] = number }
        unproposed.append(number)
        unproposedBytes += pending.payload.count
    }

    /// A command was refused everywhere, without effect, only because the auth revision moved while it was on its way: its sender is
    /// recognised anew. A signed token names its revision itself and cannot be.
    func proposeAgain(_ refused: PendingProposal, at now: Instant) -> Bool {
        guard refused.token != nil, refused.deadline > now, let command = try? Command.decode(refused.payload) else { return false }
        // A login names the revision at which its password was compared; that is done again by whoever did it.
        guard command.kind != .authenticate else { return false }
        switch refused.credential {
        case .token, .commonName: break
        case .none, .claims, .invalid: return false
        }
        guard case .caller(let caller?) = recognise(refused.credential, at: now) else { return false }
        let number = nextNumber
        nextNumber += 1
        var pending = refused
        pending.payload = Command(kind: command.kind, proposer: id, number: number, origin: .user(caller), body: command.body).encoded()
        pending.term = .zero
        enqueue(number, pending)
        // Deadlines are in order of arrival, so the old number stands in line for the new one.
        if let at = proposalDeadlines.firstIndex(where: { $0.deadline >= refused.deadline }) {
            proposalDeadlines.insert((refused.deadline, number), at: at)
        } else {
            proposalDeadlines.append((refused.deadline, number))
        }
        mustAskAgain = true
        return true
    }

    // MARK: Proposals

    /// Gives the waiting commands to consensus. Without a leader they wait; a client sees the new leader, not an error.
    func propose(at now: Instant, wall: WallTime) {
        guard !unproposed.isEmpty, raft.leader != .none else { return }
        var payloads: [[UInt8]] = []
        payloads.reserveCapacity(unproposed.count)
        let term = raft.term
        for number in unproposed {
            guard proposals[number] != nil else { continue }
            proposals[number]!.term = term
            payloads.append(proposals[number]!.payload)
        }
        unproposed.removeAll(keepingCapacity: true)
        unproposedBytes = 0
        if !payloads.isEmpty { raft.handle(.propose(payloads: payloads), at: now, wall: wall, into: &raftEffects) }
    }

    func proposalsRefused(_ payloads: [[UInt8]], _ reason: RaftRefusal, into effects: inout ReplicaEffects) {
        for payload in payloads {
            guard let number = payload.withUnsafeBytes({ (try? Command.decodeHeader($0))?.number }), proposals[number] != nil else { continue }
            switch reason {
            case .noLeader, .transferring, .leaderChanged, .configurationPending:
                proposals[number]!.term = .zero
                unproposed.append(number)
                unproposedBytes += payload.count
            case .tooManyUncommitted:
                fail(number, .requestTooManyRequests, into: &effects)
            case .notAllowed:
                fail(number, .notSupportedForLearner, into: &effects)
            }
        }
    }

    func fail(_ number: UInt64, _ error: ServiceError, into effects: inout ReplicaEffects) {
        guard let pending = proposals.removeValue(forKey: number), let token = pending.token else { return }
        numberOfToken.removeValue(forKey: token)
        counters.proposalsFailed += 1
        effects.answers.append((token, .failed(error)))
    }

    /// The first entry of `term` was applied: whatever consensus was given in an earlier term and is not applied by now never
    /// will be, since entries of earlier terms cannot follow. Such commands are proposed again; the client notices nothing
    /// but the wait. (A forwarded command names its term and the leader refuses an old one, see RaftCore.)
    func proposeAgain(before term: Term) {
        askChangesAgain(before: term)
        guard !proposals.isEmpty else { return }
        var lost: [UInt64] = []
        for (number, pending) in proposals where pending.term != .zero && (pending.term < term || planted(.proposesAgainInOneTerm)) { lost.append(number) }
        guard !lost.isEmpty else { return }
        lost.sort()
        for number in lost {
            proposals[number]!.term = .zero
            unproposedBytes += proposals[number]!.payload.count
        }
        unproposed.insert(contentsOf: lost, at: 0)
        mustAskAgain = true
    }

    // MARK: Reads

    func startReads(at now: Instant, wall: WallTime) {
        let deadline = now + options.requestTimeout
        if !arrivedReads.isEmpty || !arrivedQuestions.isEmpty {
            let read = ReadID(nextRead)
            nextRead += 1
            readBatches.append(ReadBatch(id: read, tokens: arrivedReads, questions: arrivedQuestions, deadline: deadline))
            arrivedReads = []
            arrivedQuestions = []
            raft.handle(.read(read), at: now, wall: wall, into: &raftEffects)
        }
        guard raft.leader != .none else { return }
        for at in readBatches.indices where readBatches[at].waitsForLeader {
            readBatches[at].waitsForLeader = false
            readBatches[at].id = ReadID(nextRead)
            nextRead += 1
            raft.handle(.read(readBatches[at].id), at: now, wall: wall, into: &raftEffects)
        }
    }

    func readReady(_ id: ReadID, index: LogIndex) {
        if let at = readBatches.firstIndex(where: { $0.id == id }) { readBatches[at].index = index }
    }

    func readRefused(_ id: ReadID) {
        guard let at = readBatches.firstIndex(where: { $0.id == id }) else { return }
        readBatches[at].waitsForLeader = true
        if raft.leader != .none { mustAskAgain = true }
    }

    /// Answers every read whose index is applied, all with one snapshot.
    func serveReads(at now: Instant, into effects: inout ReplicaEffects) {
        var tokens = localReads
        localReads.removeAll(keepingCapacity: true)
        var at = 0
        while at < readBatches.count {
            guard let index = readBatches[at].index, index <= applied.index || planted(.servesReadsBeforeApply) else {
                at += 1
                continue
            }
            let batch = readBatches.remove(at: at)
            if tokens.isEmpty { tokens = batch.tokens } else { tokens.append(contentsOf: batch.tokens) }
            for question in batch.questions { answer(question, at: now, into: &effects) }
        }
        let callers = takeCallers(of: &tokens, at: now, into: &effects)
        if !tokens.isEmpty {
            effects.grants.append(ReadGrant(tokens: tokens, callers: callers, auth: auth, snapshot: store.snapshot(), backend: backend, term: raft.term))
        }
    }

    private func answer(_ question: Question, at now: Instant, into effects: inout ReplicaEffects) {
        switch question {
        case .members(let token):
            effects.answers.append((token, .members(membership.members)))
        case .request(let token, let request, let credential):
            take(request, token, from: credential, hasWaited: true, at: now, into: &effects)
            mustAskAgain = true
        case .stream(let stream):
            resumeWatches(on: stream, at: now, into: &effects)
        case .renew(let lease, let asker):
            if case .client(let token, let caller) = asker, let refusal = refusal(ofRenewing: lease, by: caller) {
                return effects.answers.append((token, .failed(refusal)))
            }
            guard raft.isLeader, leases.isPrimary else { return askAgain(asker, lease, wantsKeys: nil, at: now, into: &effects) }
            switch leases.renew(lease, now: now) {
            case .renewed(let ttl, let clearsCheckpoint) where clearsCheckpoint || checkpointedLeases.contains(lease):
                takeCheckpointBack(lease, ttlSeconds: ttl, asker, at: now)
            case .renewed(let ttl, _):
                counters.leasesRenewed += 1
                answerRenewal(lease, ttlSeconds: ttl, asker, into: &effects)
            case .unknown: answerRenewal(lease, ttlSeconds: 0, asker, into: &effects)
            // Its end is on the way; the answer is the outcome.
            case .revoking: renewalsBehindRevoke.append((lease, asker))
            case .notPrimary: askAgain(asker, lease, wantsKeys: nil, at: now, into: &effects)
            }
        case .leaseState(let lease, let wantsKeys, let asker):
            guard raft.isLeader, leases.isPrimary else { return askAgain(asker, lease, wantsKeys: wantsKeys, at: now, into: &effects) }
            var remaining: Int64 = -1
            var granted: Int64 = 0
            var keys: [[UInt8]] = []
            if let left = leases.remaining(lease, now: now), let record = leases.record(of: lease) {
                remaining = left.nanoseconds / 1_000_000_000
                granted = record.grantedTTLSeconds
                if wantsKeys { keys = leases.keys(of: lease).map(\.bytes) }
            }
            switch asker {
            case .client(let token, let caller):
                answerLeaseState(token, caller, lease, remaining, granted, keys, into: &effects)
            case .peer(let peer, let number):
                send(.leaseState(number: number, remainingSeconds: remaining, grantedSeconds: granted, keys: keys), to: peer, into: &effects)
            }
        }
    }

    func answerRenewal(_ lease: LeaseID, ttlSeconds: Int64, _ asker: Asker, into effects: inout ReplicaEffects) {
        switch asker {
        case .client(let token, _): effects.answers.append((token, .leaseRenewed(lease, ttlSeconds: ttlSeconds)))
        case .peer(let peer, let number): send(.leaseRenewed(number: number, ttlSeconds: ttlSeconds), to: peer, into: &effects)
        }
    }

    /// A lease ended: keepalives that waited for it learn that it is gone.
    func leaseEnded(_ lease: LeaseID, into effects: inout ReplicaEffects) {
        if !renewalsBehindCheckpoint.isEmpty {
            renewalsBehindCheckpoint.removeAll { waiting in
                guard waiting.lease == lease else { return false }
                answerRenewal(lease, ttlSeconds: 0, waiting.asker, into: &effects)
                return true
            }
        }
        guard !renewalsBehindRevoke.isEmpty else { return }
        renewalsBehindRevoke.removeAll { waiting in
            guard waiting.lease == lease else { return false }
            answerRenewal(lease, ttlSeconds: 0, waiting.asker, into: &effects)
            return true
        }
    }

    /// No longer leader: keepalives that waited for a revoke are asked of the next one.
    func leadershipLost(at now: Instant, into effects: inout ReplicaEffects) {
        leases.demote()
        leaseDeadline = nil
        for waiting in renewalsBehindRevoke { askAgain(waiting.asker, waiting.lease, wantsKeys: nil, at: now, into: &effects) }
        renewalsBehindRevoke = []
        for waiting in renewalsBehindCheckpoint { askAgain(waiting.asker, waiting.lease, wantsKeys: nil, at: now, into: &effects) }
        renewalsBehindCheckpoint = []
        checkpointedLeases = []
        leasesToCheckpoint = []
    }

    // MARK: Questions for the leader

    func ask(_ question: LeaderQuestion, into effects: inout ReplicaEffects) {
        var question = question
        if raft.isLeader {
            if let wantsKeys = question.wantsKeys {
                arrivedQuestions.append(.leaseState(question.lease, wantsKeys: wantsKeys, .client(question.token, question.caller)))
            } else {
                arrivedQuestions.append(.renew(question.lease, .client(question.token, question.caller)))
            }
            return
        }
        let number = nextNumber
        nextNumber += 1
        question.askedLeader = raft.leader
        leaderQuestions[number] = question
        guard raft.leader != .none else { return }
        if let wantsKeys = question.wantsKeys {
            send(.leaseTimeToLive(number: number, lease: question.lease, wantsKeys: wantsKeys), to: raft.leader, into: &effects)
        } else {
            send(.leaseRenew(number: number, lease: question.lease), to: raft.leader, into: &effects)
        }
    }

    private func askAgain(_ asker: Asker, _ lease: LeaseID, wantsKeys: Bool?, at now: Instant, into effects: inout ReplicaEffects) {
        switch asker {
        case .client(let token, let caller):
            let number = nextNumber
            nextNumber += 1
            // The deadline starts anew; it happens only when leadership changes in between.
            leaderQuestions[number] = LeaderQuestion(token: token, caller: caller, lease: lease, wantsKeys: wantsKeys, askedLeader: .none,
                                                     deadline: now + options.requestTimeout)
        case .peer(let peer, let number):
            send(.notLeader(number: number), to: peer, into: &effects)
        }
    }

    /// A new leader: what was asked of another one, or of none, is asked of it.
    func askNewLeader(into effects: inout ReplicaEffects) {
        guard raft.leader != .none, !leaderQuestions.isEmpty else { return }
        let waiting = leaderQuestions.filter { $0.value.askedLeader != raft.leader }.sorted { $0.key < $1.key }
        for (number, question) in waiting {
            leaderQuestions.removeValue(forKey: number)
            ask(question, into: &effects)
        }
    }

    func send(_ body: PeerMessage.Body, to peer: MemberID, into effects: inout ReplicaEffects) {
        effects.messages.append(PeerMessage(from: id, to: peer, body: body))
    }

    func takePeer(_ message: PeerMessage, at now: Instant, wall: WallTime, into effects: inout ReplicaEffects) {
        guard !isRemoved, !isFenced(message, into: &effects) else { return }
        switch message.body {
        case .raft(let message):
            raft.handle(.message(message), at: now, wall: wall, into: &raftEffects)
        case .leaseRenew(let number, let lease):
            guard raft.isLeader else { return send(.notLeader(number: number), to: message.from, into: &effects) }
            arrivedQuestions.append(.renew(lease, .peer(message.from, number: number)))
        case .leaseTimeToLive(let number, let lease, let wantsKeys):
            guard raft.isLeader else { return send(.notLeader(number: number), to: message.from, into: &effects) }
            arrivedQuestions.append(.leaseState(lease, wantsKeys: wantsKeys, .peer(message.from, number: number)))
        case .leaseRenewed(let number, let ttl):
            guard let question = leaderQuestions.removeValue(forKey: number) else { return }  // answered twice, or given up
            effects.answers.append((question.token, .leaseRenewed(question.lease, ttlSeconds: ttl)))
        case .leaseState(let number, let remaining, let granted, let keys):
            guard let question = leaderQuestions.removeValue(forKey: number) else { return }
            answerLeaseState(question.token, question.caller, question.lease, remaining, granted, keys, into: &effects)
        case .stateHash(let index, let hash):
            comparison.take(hash, at: index, from: message.from)
        case .notLeader(let number):
            leaderQuestions[number]?.askedLeader = .none
        case .changeMembership(let number, let term, let request):
            // Not leader, or asked in another term: dropped, see `PendingChange.term`.
            if raft.isLeader, raft.term == term { queueChange(request, asker: message.from, number: number, at: now, into: &effects) }
        case .membershipRefused(let number, let error):
            changeRefused(number, error, into: &effects)
        case .removed:
            toldOfRemoval(by: message.from, at: now, into: &effects)
        case .askStanding: break
        }
    }

    // MARK: Giving up

    func expireRequests(at now: Instant, into effects: inout ReplicaEffects) {
        while let first = proposalDeadlines.first, first.deadline <= now || proposals[first.number] == nil {
            proposalDeadlines.removeFirst()
            if let pending = proposals[first.number] {
                // The command may still be committed later; the client must treat the outcome as unknown.
                fail(first.number, timeoutError(startedAt: pending.startedAt, at: now), into: &effects)
            }
        }
        expireChanges(at: now, into: &effects)
        while let first = readBatches.first, first.deadline <= now {
            readBatches.removeFirst()
            for token in first.tokens {
                effects.answers.append((token, .failed(.timeout)))
                if !credentials.isEmpty { credentials.removeValue(forKey: token) }
            }
            for question in first.questions { giveUp(question, at: now, into: &effects) }
        }
        if !leaderQuestions.isEmpty {
            let late = leaderQuestions.filter { $0.value.deadline <= now }.sorted { $0.key < $1.key }
            for (number, question) in late {
                leaderQuestions.removeValue(forKey: number)
                effects.answers.append((question.token, .failed(raft.leader == .none ? .noLeader : .timeout)))
            }
        }
        if !leadershipMoves.isEmpty {
            leadershipMoves.removeAll { move in
                if raft.leader == move.target {
                    effects.answers.append((move.token, .leaderMoved))
                } else if move.deadline <= now {
                    effects.answers.append((move.token, .failed(.leaderTransferTimeout)))
                } else {
                    return false
                }
                return true
            }
        }
    }

    private func giveUp(_ question: Question, at now: Instant, into effects: inout ReplicaEffects) {
        switch question {
        case .stream(let stream):
            resumeWatches(on: stream, at: now, into: &effects)
        case .members(let token), .renew(_, .client(let token, _)), .leaseState(_, _, .client(let token, _)), .request(let token, _, _):
            effects.answers.append((token, .failed(.timeout)))
        case .renew(_, .peer(let peer, let number)), .leaseState(_, _, .peer(let peer, let number)):
            send(.notLeader(number: number), to: peer, into: &effects)
        }
    }

    /// etcd's guess at why a request timed out.
    func timeoutError(startedAt: Instant, at now: Instant) -> ServiceError {
        if let lastElection, startedAt < lastElection, startedAt + options.raft.electionTimeout * 2 > lastElection {
            return .timeoutDueToLeaderFail
        }
        return .timeout
    }
}
