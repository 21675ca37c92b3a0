import Auth
import Base
import Store

// Who asks, and whether they may. Requests are recognised when they arrive, writes are judged when they are applied (the caller travels in
// the command), reads where they are evaluated (state and caller travel in the grant).
extension Replica {
    enum Recognition {
        /// nil: nobody knows who it is, or nobody asks since authentication is disabled.
        case caller(Caller?)
        /// The token was made by an entry that this member has not applied.
        case waits
        case invalid
    }

    func recognise(_ credential: Credential, at now: Instant) -> Recognition {
        guard auth.isEnabled else { return .caller(nil) }
        switch credential {
        case .none: return .caller(nil)
        case .commonName(let user): return .caller(Caller(user: user, revision: auth.revision))
        case .claims(let user, let revision): return .caller(Caller(user: user, revision: revision))
        case .invalid: return .invalid
        case .token(let token):
            guard let index = TokenTable.index(of: token) else { return .invalid }
            if let user = tokens.use(token, at: now) { return .caller(Caller(user: user, revision: auth.revision)) }
            return index > applied.index ? .waits : .invalid
        }
    }

    /// Finds out who sends the request, and takes it. A token that this member cannot know yet is looked up again behind a read round:
    /// whatever login was answered before this request came is applied then.
    func take(_ request: Request, _ token: RequestToken, from credential: Credential, hasWaited: Bool = false, at now: Instant,
              into effects: inout ReplicaEffects) {
        // A read round comes anyway; its caller is looked up behind it.
        if case .read = request { return take(request, token, by: nil, credential, at: now, into: &effects) }
        switch recognise(credential, at: now) {
        case .waits where !hasWaited:
            arrivedQuestions.append(.request(token, request, credential))
        case .waits, .invalid:
            effects.answers.append((token, .failed(.invalidAuthToken)))
        case .caller(let caller):
            do throws(ServiceError) {
                if auth.isEnabled { try authorise(request, by: caller) }
                take(request, token, by: caller, credential, at: now, into: &effects)
            } catch {
                effects.answers.append((token, .failed(error)))
            }
        }
    }

    /// What needs no entry of the log and no snapshot is judged here. (etcd-api.md §9.4)
    private func authorise(_ request: Request, by caller: Caller?) throws(ServiceError) {
        switch request {
        // Judged later: reads with their grant, the others when they are applied.
        case .read, .localRead, .durableRead, .propose, .leaseGrant, .alarm: break
        // The member's own wish.
        case .compactHistory: break
        case .leaseKeepAlive(let lease):
            if let refusal = refusal(ofRenewing: lease, by: caller) { throw refusal }
        // The keys are checked as they are told.
        case .leaseTimeToLive: try auth.requireUser(caller)
        case .leases:
            guard !auth.isRoot(caller) else { return }
            try auth.requireUser(caller)
            for lease in leases.ids { for key in leases.keys(of: lease) { try auth.requireRead(.single(key), by: caller) } }
        case .members, .status: try auth.requireUser(caller)
        case .moveLeader, .changeMembership: try auth.requireRoot(caller)
        case .permission(let requirement): try auth.require(requirement, of: caller)
        }
    }

    // MARK: Writes

    /// Whether the command may be applied, as all members see it: by the entry and the state at the entry. The body is read ahead; whoever
    /// applies it reads it again. A kind of command for which no rule stands here does not compile.
    func authorise(_ command: Command.Header, _ body: ByteReader) throws(ApplyFailure) {
        guard auth.isEnabled, command.origin != .member else { return }
        let caller = command.origin.caller
        if planted(.permitsWhatWasUnderWay), let caller, caller.revision < auth.revision { return }
        var body = body
        switch command.kind {
        case .put:
            let request = try decoding { () throws(DecodingFault) in try PutRequest.decode(&body) }
            try refusing { () throws(ServiceError) in try auth.requirePermission(for: request, by: caller, keysOfLease: leases.keys) }
        case .deleteRange:
            let request = try decoding { () throws(DecodingFault) in try DeleteRangeRequest.decode(&body) }
            try refusing { () throws(ServiceError) in try auth.requirePermission(for: request, by: caller) }
        case .txn:
            let request = try decoding { () throws(DecodingFault) in try TxnRequest.decode(&body) }
            try refusing { () throws(ServiceError) in try auth.requirePermission(for: request, by: caller, keysOfLease: leases.keys) }
        case .leaseGrant:
            try refusing { () throws(ServiceError) in try auth.requireUser(caller) }
        case .leaseRevoke:
            let lease = LeaseID(Int64(bitPattern: try decoding { () throws(DecodingFault) in try firstNumber(&body) }))
            try refusing { () throws(ServiceError) in
                try auth.requireUser(caller)
                try auth.requireWrite(ofAll: leases.keys(of: lease), by: caller)
            }
        case .alarm:
            let action = try decoding { () throws(DecodingFault) in try firstNumber(&body) }
            let requirement: CallerRequirement = action == UInt64(AlarmAction.get.rawValue) ? .user : .root
            try refusing { () throws(ServiceError) in try auth.require(requirement, of: caller) }
        // The password was compared; who logs in is nobody yet.
        case .authenticate: break
        case .compaction, .downgrade, .authEnable, .authDisable, .userAdd, .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd,
             .roleDelete, .roleGrantPermission, .roleRevokePermission:
            try refusing { () throws(ServiceError) in try auth.requireRoot(caller) }
        // Members alone send these.
        case .leaseExpire, .leaseCheckpoint, .memberAttributes, .stateCheck: throw .refused(.permissionDenied)
        }
    }

    /// Field 1 of a message, when it is a number.
    private func firstNumber(_ body: inout ByteReader) throws(DecodingFault) -> UInt64 {
        var number: UInt64 = 0
        while let (field, type) = try body.readTag() {
            if field == 1, type == .varint { number = try body.readVarint() } else { try body.skip(type) }
        }
        return number
    }

    /// Applies a change of users, roles, permissions or the switch, and lets this member's tokens follow.
    func changeAuth(_ kind: Command.Kind, _ body: inout ByteReader, at now: Instant, into effects: inout ReplicaEffects) throws(ApplyFailure) -> [UInt8] {
        var writes: [AuthWrite] = []
        var token: [UInt8]?
        switch kind {
        case .authEnable:
            let wasEnabled = auth.isEnabled
            try refusing { () throws(ServiceError) in try auth.enable(into: &writes) }
            if !wasEnabled { effects.notes.append(.authSwitched(isEnabled: true)) }
        case .authDisable:
            if auth.isEnabled { effects.notes.append(.authSwitched(isEnabled: false)) }
            auth.disable(into: &writes)
            tokens.removeAll()
        case .authenticate:
            let login = try decoding { () throws(DecodingFault) in try Login.decode(&body) }
            try refusing { () throws(ServiceError) in try auth.requireFreshLogin(of: login.user, checkedAt: login.checkedRevision) }
            let made = TokenTable.token(prefix: login.tokenPrefix, index: applied.index)
            tokens.insert(made, of: login.user, at: now)
            token = made
        case .userAdd:
            let addition = try decoding { () throws(DecodingFault) in try UserAddition.decode(&body) }
            try refusing { () throws(ServiceError) in try auth.addUser(addition, into: &writes) }
        case .userChangePassword:
            // The message has the hash where an addition has it not: field 3.
            let fields = try decoding { () throws(DecodingFault) in try NameFields.decode(&body) }
            let user = UserName(fields.first)
            try refusing { () throws(ServiceError) in try auth.changePassword(of: user, to: fields.third, into: &writes) }
            tokens.invalidate(user)
        case .roleGrantPermission:
            let grant = try decoding { () throws(DecodingFault) in try PermissionGrant.decode(&body) }
            try refusing { () throws(ServiceError) in try auth.grantPermission(grant.permission, to: grant.role, into: &writes) }
        default:
            let fields = try decoding { () throws(DecodingFault) in try NameFields.decode(&body) }
            try refusing { () throws(ServiceError) in try changeNames(kind, fields, &writes) }
            if kind == .userDelete, !planted(.keepsTokensOfDeletedUsers) { tokens.invalidate(UserName(fields.first)) }
        }
        for write in writes {
            switch write {
            case .put(let table, let key, let value):
                stateHash.fold(UInt64(Table(table).rawValue), 1, UInt64(key.count), UInt64(value.count))
                stateHash.fold(key)
                stateHash.fold(value)
                smallChanges.put(Table(table), key, value)
            case .delete(let table, let key):
                stateHash.fold(UInt64(Table(table).rawValue), 0, UInt64(key.count))
                stateHash.fold(key)
                smallChanges.delete(Table(table), key)
            }
        }
        guard let token else { return headerOnly() }
        var writer = ByteWriter(capacity: 96)
        header().encodeAsField(into: &writer)
        writer.writeField(2, token)
        return writer.bytes
    }

    /// The changes whose message is a few names.
    private func changeNames(_ kind: Command.Kind, _ fields: NameFields, _ writes: inout [AuthWrite]) throws(ServiceError) {
        switch kind {
        case .userDelete: try auth.deleteUser(UserName(fields.first), into: &writes)
        case .userGrantRole: try auth.grantRole(RoleName(fields.second), to: UserName(fields.first), into: &writes)
        case .userRevokeRole: try auth.revokeRole(RoleName(fields.second), from: UserName(fields.first), into: &writes)
        case .roleAdd: try auth.addRole(RoleName(fields.first), into: &writes)
        case .roleDelete: try auth.deleteRole(RoleName(fields.first), into: &writes)
        case .roleRevokePermission:
            try auth.revokePermission(key: fields.second, rangeEnd: fields.third, from: RoleName(fields.first), into: &writes)
        default: preconditionFailure("\(kind) is no change of names")
        }
    }

    // MARK: Reads

    /// Who sent each of `reads`; those with a token that is no good are answered here and leave the list.
    func takeCallers(of reads: inout [RequestToken], at now: Instant, into effects: inout ReplicaEffects) -> [RequestToken: Caller] {
        guard !reads.isEmpty else { return [:] }
        guard auth.isEnabled else {
            if !credentials.isEmpty { for read in reads { credentials.removeValue(forKey: read) } }
            return [:]
        }
        var callers: [RequestToken: Caller] = [:]
        reads.removeAll { read in
            switch recognise(credentials.removeValue(forKey: read) ?? .none, at: now) {
            case .caller(let caller):
                callers[read] = caller
                return false
            case .waits, .invalid:
                effects.answers.append((read, .failed(.invalidAuthToken)))
                return true
            }
        }
        return callers
    }

    // MARK: Leases

    /// Whoever keeps a lease alive keeps its keys alive.
    func refusal(ofRenewing lease: LeaseID, by caller: Caller?) -> ServiceError? {
        guard auth.isEnabled else { return nil }
        do throws(ServiceError) {
            try auth.requireUser(caller)
            try auth.requireWrite(ofAll: leases.keys(of: lease), by: caller)
            return nil
        } catch { return error }
    }

    /// Tells a client what the leader knows of a lease; its keys only if the client may read them all.
    func answerLeaseState(_ token: RequestToken, _ caller: Caller?, _ lease: LeaseID, _ remaining: Int64, _ granted: Int64, _ keys: [[UInt8]],
                          into effects: inout ReplicaEffects) {
        do throws(ServiceError) {
            if !keys.isEmpty, !auth.isRoot(caller) {
                for key in keys { try auth.requireRead(.single(Key(key)), by: caller) }
            }
            effects.answers.append((token, .leaseState(lease, remainingSeconds: remaining, grantedSeconds: granted, keys: keys)))
        } catch {
            effects.answers.append((token, .failed(error)))
        }
    }

    // MARK: Watches

    struct WatchCaller {
        var credential: Credential
        /// Requests that wait until the token can be known; nil when nothing waits.
        var waiting: [WatchRequest]?
    }

    func takeWatchRequest(_ request: WatchRequest, on stream: WatchStreamID, hasWaited: Bool = false, at now: Instant,
                          into effects: inout ReplicaEffects) {
        guard auth.isEnabled else { return hub.handle(request, on: stream, into: &effects.watch) }
        if watchCallers[stream]?.waiting != nil {
            watchCallers[stream]!.waiting!.append(request)
            return
        }
        guard case .create(let create) = request else { return hub.handle(request, on: stream, into: &effects.watch) }
        var refusal: WatchRefusal?
        switch recognise(watchCallers[stream]?.credential ?? .none, at: now) {
        case .waits where !hasWaited:
            watchCallers[stream]!.waiting = [request]
            arrivedQuestions.append(.stream(stream))
            return
        case .waits, .invalid: refusal = .invalidAuthToken
        case .caller(let caller):
            do throws(ServiceError) { try auth.requireRead(create.range, by: caller) } catch { refusal = WatchRefusal(error) }
        }
        hub.handle(request, on: stream, refusal: refusal, into: &effects.watch)
    }

    /// What waited on a stream is taken in its order.
    func resumeWatches(on stream: WatchStreamID, at now: Instant, into effects: inout ReplicaEffects) {
        // A stream that is closed meanwhile is gone from here.
        guard let requests = watchCallers[stream]?.waiting else { return }
        watchCallers[stream]!.waiting = nil
        for request in requests { takeWatchRequest(request, on: stream, hasWaited: true, at: now, into: &effects) }
    }
}

extension WatchRefusal {
    init(_ error: ServiceError) {
        switch error {
        case .authOldRevision: self = .authOldRevision
        case .userEmpty: self = .userEmpty
        default: self = .permissionDenied
        }
    }
}

extension Table {
    init(_ table: AuthTable) {
        switch table {
        case .settings: self = .auth
        case .users: self = .authUsers
        case .roles: self = .authRoles
        }
    }
}
