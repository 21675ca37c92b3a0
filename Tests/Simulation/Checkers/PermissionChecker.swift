import Auth
import Base
import DequeModule

/// Who a call said it was.
public struct Identity: Hashable, Sendable {
    public enum Form: Hashable, Sendable {
        /// A certificate's name: known anew whenever somebody looks.
        case name
        /// A signed token, which names the auth revision that it was made at.
        case claims(revision: UInt64)
        /// A token that the entry `index` made.
        case token(index: UInt64)
        /// A token that nobody gave out.
        case invalid
    }
    public var user: [UInt8]
    public var form: Form
    public init(user: [UInt8], form: Form) {
        self.user = user
        self.form = form
    }
}

/// What clients were allowed and refused, against the accounts as the log made them. Promises:
/// - an acknowledged call was permitted to whoever made it, by the accounts at the entry that it became, or at the state that it was shown;
/// - a call that was refused for want of a right was not permitted at some moment of it;
/// - a watch was permitted when it was created;
/// - every member has the same accounts behind the same entry.
///
/// What keys hang on a lease is looked at by `TruthModel`, which refuses what the cluster must refuse.
struct PermissionChecker {
    private struct Version {
        /// In force from this entry on.
        var index: UInt64
        /// When that was first committed anywhere.
        var at: Moment
        var accounts: TruthAccounts
    }
    /// Oldest first; never empty.
    private var versions = [Version(index: 0, at: .min, accounts: TruthAccounts())]
    /// The entries that made the revisions from `baseRevision` on; empty until the accounts change for the first time.
    private var indexes = Deque<UInt64>()
    private var baseRevision: Int64 = 1
    /// Of the accounts' changes.
    private var followed = 0

    private var isInUse: Bool { !indexes.isEmpty }

    // MARK: The truth

    /// After each entry of the log.
    mutating func follow(_ truth: TruthModel, at: Moment) {
        if truth.accounts.changes != followed {
            followed = truth.accounts.changes
            if !isInUse {
                baseRevision = truth.revision
                indexes = [0]
            }
            versions.append(Version(index: truth.appliedIndex, at: at, accounts: truth.accounts))
        }
        if isInUse, truth.revision >= baseRevision + Int64(indexes.count) { indexes.append(truth.appliedIndex) }
    }

    /// No call that is still under way began before `oldest`, nobody is shown a revision below `floor`.
    mutating func forget(startedBefore oldest: Moment, floor: Int64) {
        guard isInUse else { return }
        while baseRevision < floor, indexes.count > 1 {
            indexes.removeFirst()
            baseRevision += 1
        }
        var drop = 0
        while drop + 1 < versions.count, versions[drop + 1].at < oldest, versions[drop + 1].index <= indexes[0] { drop += 1 }
        if drop > 0 { versions.removeFirst(drop) }
    }

    /// The entries behind which the store stood at `revision`; nil when that is forgotten.
    private func entries(at revision: Int64) -> ClosedRange<UInt64>? {
        let place = Int(revision - baseRevision)
        guard place >= 0 else { return versions[0].index == 0 ? 0...indexes[0] : nil }
        guard place < indexes.count else { return nil }
        return indexes[place]...(place + 1 < indexes.count ? indexes[place + 1] - 1 : .max)
    }

    /// The versions that were in force at some of these entries and at some of these moments.
    private func inForce(at entries: ClosedRange<UInt64>, _ moments: ClosedRange<Moment>) -> [TruthAccounts] {
        versions.indices.compactMap { at in
            let next = at + 1 < versions.count ? versions[at + 1] : nil
            guard versions[at].index <= entries.upperBound, next.map({ $0.index > entries.lowerBound }) ?? true,
                  versions[at].at <= moments.upperBound, next.map({ $0.at >= moments.lowerBound }) ?? true else { return nil }
            return versions[at].accounts
        }
    }

    // MARK: Members

    /// - Parameter revision, isEnabled: what the member has behind the entry `applied`.
    func compare(_ member: MemberID, applied: UInt64, revision: UInt64, isEnabled: Bool) -> Violation? {
        guard let version = versions.last(where: { $0.index <= applied })?.accounts, (version.revision, version.isEnabled) != (revision, isEnabled) else { return nil }
        return Violation("accounts", "\(member) has auth revision \(revision)\(isEnabled ? ", enabled" : "") behind entry \(applied), there it is \(version.revision)\(version.isEnabled ? ", enabled" : "")")
    }

    /// A member's accounts in full.
    func compare(_ found: AuthStore) -> Violation? {
        // Behind what is remembered there is nothing to compare with.
        guard let version = versions.last(where: { $0.accounts.revision == found.revision && $0.accounts.isEnabled == found.isEnabled })?.accounts else {
            return versions[0].accounts.revision >= found.revision ? nil : Violation("accounts", "a member shows auth revision \(found.revision)\(found.isEnabled ? ", enabled" : ""), which never was")
        }
        guard found.userNames.count == version.users.count, found.roleNames.count == version.roles.count else {
            return Violation("accounts", "at auth revision \(found.revision) a member has users \(found.userNames) and roles \(found.roleNames)")
        }
        for name in found.userNames {
            guard let user = found.user(name), let right = version.users[name.bytes], user.roles.map(\.bytes) == right.roles, (user.hasNoPassword != true) == right.hasPassword else {
                return Violation("accounts", "at auth revision \(found.revision) a member has \(name) with other roles than it was given")
            }
        }
        for name in found.roleNames {
            let rights = found.role(name)?.permissions.map { TruthAccounts.Right(kind: Int64($0.kind.rawValue), key: $0.key, end: $0.rangeEnd) } ?? []
            guard let right = version.roles[name.bytes], rights.count == right.count, Set(rights) == Set(right) else {
                return Violation("accounts", "at auth revision \(found.revision) role \(name) has other permissions than it was given")
            }
        }
        return nil
    }

    /// A client was given a token.
    func issued(to user: [UInt8], index: UInt64, _ truth: TruthModel) -> Violation? {
        let logins = truth.accounts.logins
        if logins.count >= TruthAccounts.rememberedLogins / 2, index < logins[0].index { return nil }
        if logins.contains(where: { $0.index == index && $0.user == user }) { return nil }
        return Violation("accounts", "\(show(user)) was given a token of entry \(index), which is no login of theirs")
    }

    // MARK: Calls

    func check(_ operation: Operation) -> Violation? {
        guard isInUse else { return nil }
        let moments = operation.start...operation.end
        switch operation.outcome {
        case .unknown: return nil
        case .refused(let text): return checkRefusal(operation, text)
        case .done(let revision, _, _, _), .lease(let revision, _):
            let candidates: [TruthAccounts]
            switch operation.call {
            case .leaseKeepAlive:
                // Judged by the member that was asked, as far as that has come.
                candidates = inForce(at: 0...(.max), Moment.min...operation.end)
            case .range(_, _, _, isSerializable: true):
                guard let entries = entries(at: revision) else { return nil }
                candidates = inForce(at: entries, Moment.min...operation.end)
            default:
                guard let entries = entries(at: revision) else { return nil }
                // What makes a revision is judged by what holds at that very entry.
                candidates = inForce(at: operation.makesRevision ? entries.lowerBound...entries.lowerBound : entries, moments)
            }
            if candidates.contains(where: { isPermitted(operation.call, operation.identity, $0) }) { return nil }
            return Violation("permission", "\(describe(operation)) was answered at revision \(revision), which \(name(of: operation.identity)) was not permitted")
        }
    }

    private func checkRefusal(_ operation: Operation, _ text: String) -> Violation? {
        func says(_ error: ServiceError) -> Bool { text == error.message }
        let moments: ClosedRange<Moment> = switch operation.call {
        case .leaseKeepAlive, .range(_, _, _, isSerializable: true): Moment.min...operation.end
        default: operation.start...operation.end
        }
        let candidates = inForce(at: 0...(.max), moments)
        // A read is judged by one state throughout; a writer is recognised by the member asked, which may be behind.
        let isRead = if case .range = operation.call { true } else { false }
        var isRight = true
        if says(.permissionDenied) {
            switch operation.call {
            case .leaseRevoke, .leaseKeepAlive: break
            case .put(_, _, let lease) where lease != 0: break
            default: isRight = candidates.contains { !isPermitted(operation.call, operation.identity, $0) }
            }
        } else if says(.userEmpty) {
            isRight = candidates.contains { $0.isEnabled } && !(isRead && operation.identity != nil)
        } else if says(.invalidAuthToken) {
            switch operation.identity?.form {
            // Who asks for a change is looked up by the member asked.
            case .token, .invalid: isRight = (isRead ? candidates : inForce(at: 0...(.max), Moment.min...operation.end)).contains { $0.isEnabled }
            default: isRight = false
            }
        } else if says(.authOldRevision) {
            switch operation.identity?.form {
            case .claims(let revision): isRight = candidates.contains { $0.isEnabled && $0.revision > revision }
            default: isRight = !isRead
            }
        }
        return isRight ? nil : Violation("permission", "\(describe(operation)) by \(name(of: operation.identity)) was refused (\(text)) without a reason")
    }

    /// A watch was created at `revision`, by the answer.
    func created(_ request: WatchRecord, by identity: Identity?, revision: Int64, at: Moment) -> Violation? {
        guard isInUse, let entries = entries(at: revision) else { return nil }
        let read = Operation.Call.range(key: request.key, end: request.end, revision: 0, isSerializable: true)
        if inForce(at: entries, Moment.min...at).contains(where: { isPermitted(read, identity, $0) }) { return nil }
        return Violation("permission", "a watch of \(showRange(request.key, request.end)) was created at revision \(revision), which \(name(of: identity)) was not permitted")
    }

    private func isPermitted(_ call: Operation.Call, _ identity: Identity?, _ accounts: TruthAccounts) -> Bool {
        guard accounts.isEnabled else { return true }
        guard let identity, identity.form != .invalid else { return false }
        let needs = call.rights
        // Whoever is known may do that.
        if needs.isEmpty { return true }
        switch identity.form {
        case .name: break
        case .invalid: return false
        case .claims(let revision): if revision < accounts.revision { return false }
        case .token(let index): if !accounts.isGood(tokenOf: identity.user, index: index) { return false }
        }
        return needs.allSatisfy { accounts.allows(identity.user, $0.key, $0.end, writing: $0.writing) }
    }

    private func name(of identity: Identity?) -> String {
        guard let identity else { return "nobody" }
        return switch identity.form {
        case .name: "\(show(identity.user)) by name"
        case .claims(let revision): "\(show(identity.user)) by a signed token of auth revision \(revision)"
        case .token(let index): "\(show(identity.user)) by a token of entry \(index)"
        case .invalid: "an invalid token"
        }
    }
}

extension Operation {
    /// Its header names the revision that it made itself.
    var makesRevision: Bool {
        guard case .done(_, _, let count, let succeeded) = outcome else { return false }
        return switch call {
        case .put: true
        case .putAll(let pairs): !pairs.isEmpty
        case .compareAndSwap: succeeded
        case .delete: count > 0
        case .range, .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: false
        }
    }
}

extension Operation.Call {
    /// The rights that it takes, as far as it names them itself.
    var rights: [(key: [UInt8], end: [UInt8], writing: Bool)] {
        switch self {
        case .put(let key, _, _): [(key, [], true)]
        case .delete(let key, let end): [(key, end, true)]
        case .range(let key, let end, _, _): [(key, end, false)]
        case .compareAndSwap(let key, _, _): [(key, [], false), (key, [], true)]
        case .putAll(let pairs): pairs.map { ($0.key, [], true) }
        case .compact, .leaseGrant, .leaseRevoke, .leaseKeepAlive: []
        }
    }
}
