import Base
import Replica

/// A reference of authentication: users, roles, rights, the switch and the revision, as etcd has them. Like `TruthModel`, of which it is a part,
/// it is written for being obviously right, with a decoder of its own, and knows neither the Auth module nor members. (etcd-api.md §9)
public struct TruthAccounts: Sendable {
    struct Right: Hashable, Sendable {
        /// etcd's number: 0 reads, 1 writes, 2 both; others nothing.
        var kind: Int64
        var key: [UInt8]
        var end: [UInt8]
        func allows(writing: Bool) -> Bool { kind == 2 || kind == (writing ? 1 : 0) }
    }
    struct User: Hashable, Sendable {
        /// Ascending.
        var roles: [[UInt8]] = []
        var hasPassword: Bool
        /// Tokens of earlier entries are no good: the user was added, deleted or got another password here.
        var tokensFrom: UInt64
    }
    /// On whose behalf a command stands in the log.
    enum Caller: Hashable, Sendable {
        case member
        case nobody
        case user([UInt8], revision: UInt64)
    }

    public private(set) var isEnabled = false
    public private(set) var revision: UInt64 = 1
    /// Counts whatever changes, the switch included, which leaves the revision as it is.
    public private(set) var changes = 0
    // Looked up; walked only to change all alike.
    private(set) var users: [[UInt8]: User] = [:]
    private(set) var roles: [[UInt8]: [Right]] = [:]
    /// Tokens of earlier entries are no good, whosoever they are.
    private(set) var tokensFrom: UInt64 = 0
    /// The latest logins: who got a token of which entry.
    private(set) var logins: [(index: UInt64, user: [UInt8])] = []
    static let rememberedLogins = 512

    static let root = Array("root".utf8)

    // MARK: Rights

    func isRoot(_ user: [UInt8]) -> Bool { users[user]?.roles.contains(TruthAccounts.root) ?? false }

    /// Whether all keys of the range lie in what the user's roles come to together.
    func allows(_ user: [UInt8], _ key: [UInt8], _ end: [UInt8], writing: Bool) -> Bool {
        guard let account = users[user] else { return false }
        if isRoot(user) { return true }
        let rights = account.roles.flatMap { roles[$0] ?? [] }.filter { $0.allows(writing: writing) }
        let wanted = TruthAccounts.bounds(key, end)
        // Everything before `reached` is allowed.
        var reached = wanted.start
        while true {
            if let end = wanted.end, compareBytes(reached, end) >= 0 { return true }
            var furthest = reached
            for right in rights {
                let bounds = TruthAccounts.bounds(right.key, right.end)
                guard compareBytes(bounds.start, reached) <= 0 else { continue }
                guard let end = bounds.end else { return true }
                if compareBytes(end, furthest) > 0 { furthest = end }
            }
            if furthest == reached { return false }
            reached = furthest
        }
    }

    /// The range as a start and the first key behind it; nil: nothing is behind it.
    private static func bounds(_ key: [UInt8], _ end: [UInt8]) -> (start: [UInt8], end: [UInt8]?) {
        (key, end.isEmpty ? key + [0] : end == [0] ? nil : end)
    }

    private func refusal(_ caller: Caller, _ key: [UInt8], _ end: [UInt8], writing: Bool) -> ServiceError? {
        guard case .user(let user, let seen) = caller, seen != 0 else { return .userEmpty }
        if seen < revision { return .authOldRevision }
        return allows(user, key, end, writing: writing) ? nil : .permissionDenied
    }

    private func refusal(_ caller: Caller, writingAll keys: [[UInt8]]) -> ServiceError? {
        if case .user(let user, _) = caller, isRoot(user) { return nil }
        for key in keys { if let error = refusal(caller, key, [], writing: true) { return error } }
        return nil
    }

    /// What a command in the log is answered before anything else is looked at.
    /// - Parameter keysOfLease: as they hang on it now.
    func refusal(of kind: Command.Kind, _ body: ByteReader, from caller: Caller, keysOfLease: (Int64) -> [[UInt8]]) throws(DecodingFault) -> ServiceError? {
        guard isEnabled, caller != .member else { return nil }
        var body = body
        switch kind {
        case .put: return refusal(of: .put(try TruthPut(&body)), caller, keysOfLease)
        case .deleteRange: return refusal(of: .delete(try TruthDelete(&body)), caller, keysOfLease)
        case .txn: return refusal(of: .txn(try TruthTxn(&body)), caller, keysOfLease)
        case .leaseGrant: return caller == .nobody ? .userEmpty : nil
        case .leaseRevoke:
            if caller == .nobody { return .userEmpty }
            return refusal(caller, writingAll: keysOfLease(try TruthNumbers(&body).first))
        case .authenticate: return nil
        case .leaseExpire, .leaseCheckpoint, .memberAttributes, .stateCheck: return .permissionDenied
        case .alarm:
            if try TruthNumbers(&body).first == 0 { return caller == .nobody ? .userEmpty : nil }
            return administration(caller)
        default: return administration(caller)
        }
    }

    private func administration(_ caller: Caller) -> ServiceError? {
        guard case .user(let user, _) = caller, !user.isEmpty else { return .userEmpty }
        if users[user] == nil { return .userNotFound }
        return isRoot(user) ? nil : .permissionDenied
    }

    private func refusal(of operation: TruthOperation, _ caller: Caller, _ keysOfLease: (Int64) -> [[UInt8]]) -> ServiceError? {
        switch operation {
        case .none: return .permissionDenied
        case .range(let range): return refusal(caller, range.key, range.end, writing: false)
        case .put(let put):
            if let error = refusal(caller, put.key, [], writing: true) { return error }
            if put.lease != 0, let error = refusal(caller, writingAll: keysOfLease(put.lease)) { return error }
            return put.wantsPrevious ? refusal(caller, put.key, [], writing: false) : nil
        case .delete(let delete):
            if let error = refusal(caller, delete.key, delete.end, writing: true) { return error }
            return delete.wantsPrevious ? refusal(caller, delete.key, delete.end, writing: false) : nil
        case .txn(let txn):
            for compare in txn.compares { if let error = refusal(caller, compare.key, compare.end, writing: false) { return error } }
            // Both branches, whichever will run.
            for operation in txn.success + txn.failure { if let error = refusal(of: operation, caller, keysOfLease) { return error } }
            return nil
        }
    }

    // MARK: Changes

    /// Applies a change of users, roles, rights or the switch, or a login. Nil when it was done.
    mutating func apply(_ kind: Command.Kind, _ body: inout ByteReader, index: UInt64) throws(DecodingFault) -> ServiceError? {
        let fields = try TruthAccountFields(&body, kind)
        let name = fields.first
        switch kind {
        case .authEnable:
            guard !isEnabled else { return nil }
            guard users[TruthAccounts.root] != nil else { return .rootUserNotExist }
            guard isRoot(TruthAccounts.root) else { return .rootRoleNotExist }
            isEnabled = true
            changes += 1
            return nil
        case .authDisable:
            guard isEnabled else { return nil }
            isEnabled = false
            tokensFrom = index
        case .authenticate:
            guard isEnabled else { return .authNotEnabled }
            guard let user = users[name], user.hasPassword else { return .authFailed }
            guard fields.number == revision else { return .authOldRevision }
            logins.append((index, name))
            if logins.count > TruthAccounts.rememberedLogins { logins.removeFirst(TruthAccounts.rememberedLogins / 2) }
            return nil
        case .userAdd:
            if name.isEmpty { return .userEmpty }
            if users[name] != nil { return .userAlreadyExist }
            users[name] = User(hasPassword: !fields.flag, tokensFrom: index)
        case .userDelete:
            if isEnabled, name == TruthAccounts.root { return .invalidAuthMgmt }
            guard users.removeValue(forKey: name) != nil else { return .userNotFound }
        case .userChangePassword:
            guard users[name] != nil else { return .userNotFound }
            users[name]!.tokensFrom = index
        case .userGrantRole:
            guard let user = users[name] else { return .userNotFound }
            guard fields.second == TruthAccounts.root || roles[fields.second] != nil else { return .roleNotFound }
            if user.roles.contains(fields.second) { return nil }
            users[name]!.roles = (user.roles + [fields.second]).sorted { compareBytes($0, $1) < 0 }
        case .userRevokeRole:
            if isEnabled, name == TruthAccounts.root, fields.second == TruthAccounts.root { return .invalidAuthMgmt }
            guard let user = users[name] else { return .userNotFound }
            guard user.roles.contains(fields.second) else { return .roleNotGranted }
            users[name]!.roles.removeAll { $0 == fields.second }
        case .roleAdd:
            if name.isEmpty { return .roleEmpty }
            if roles[name] != nil { return .roleAlreadyExist }
            roles[name] = []
        case .roleDelete:
            if isEnabled, name == TruthAccounts.root { return .invalidAuthMgmt }
            guard roles.removeValue(forKey: name) != nil else { return .roleNotFound }
            for user in users.keys { users[user]!.roles.removeAll { $0 == name } }
        case .roleGrantPermission:
            guard let right = fields.right else { return .permissionNotGiven }
            let bounds = TruthAccounts.bounds(right.key, right.end)
            guard !right.key.isEmpty, bounds.end.map({ compareBytes(right.key, $0) < 0 }) ?? true else { return .invalidAuthMgmt }
            guard let rights = roles[name] else { return .roleNotFound }
            roles[name] = rights.filter { ($0.key, $0.end) != (right.key, right.end) } + [right]
        case .roleRevokePermission:
            guard let rights = roles[name] else { return .roleNotFound }
            let rest = rights.filter { ($0.key, $0.end) != (fields.second, fields.third) }
            if rest.count == rights.count { return .permissionNotGranted }
            roles[name] = rest
        default: preconditionFailure("\(kind) changes no accounts")
        }
        revision += 1
        changes += 1
        return nil
    }

    /// Whether a token made by the entry `index` stands for the user here.
    func isGood(tokenOf user: [UInt8], index: UInt64) -> Bool {
        guard index > tokensFrom, let account = users[user] else { return false }
        return index > account.tokensFrom
    }
}

/// The fields of all these messages, by number and kind. (etcd-api.md §3.8, §3.10)
struct TruthAccountFields {
    var first: [UInt8] = [], second: [UInt8] = [], third: [UInt8] = []
    /// Without a password.
    var flag = false
    var number: UInt64 = 0
    var right: TruthAccounts.Right?

    init(_ reader: inout ByteReader, _ kind: Command.Kind) throws(DecodingFault) {
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): first = try reader.readCounted()
            case (2, .lengthDelimited) where kind == .roleGrantPermission:
                var message = try reader.readMessage()
                var right = TruthAccounts.Right(kind: 0, key: [], end: [])
                while let (field, type) = try message.readTag() {
                    switch (field, type) {
                    case (1, .varint): right.kind = Int64(Int32(truncatingIfNeeded: try message.readVarint()))
                    case (2, .lengthDelimited): right.key = try message.readCounted()
                    case (3, .lengthDelimited): right.end = try message.readCounted()
                    default: try message.skip(type)
                    }
                }
                self.right = right
            case (2, .lengthDelimited): second = try reader.readCounted()
            case (3, .lengthDelimited) where kind == .userAdd:
                var message = try reader.readMessage()
                while let (field, type) = try message.readTag() {
                    if field == 1, type == .varint { flag = try message.readVarint() != 0 } else { try message.skip(type) }
                }
            case (3, .lengthDelimited): third = try reader.readCounted()
            case (4, .varint): number = try reader.readVarint()
            default: try reader.skip(type)
            }
        }
    }
}
