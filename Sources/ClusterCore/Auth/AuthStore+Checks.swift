import Base

/// Who sent a request, as far as the member knows.
public struct Caller: Hashable, Sendable {
    public var user: UserName
    /// The auth revision at which the user was recognised.
    public var revision: UInt64
    public init(user: UserName, revision: UInt64) {
        self.user = user
        self.revision = revision
    }
}

/// What a caller must be, for requests that name no keys.
public enum CallerRequirement: Hashable, Sendable {
    /// Anybody who is known.
    case user
    /// A holder of the role "root".
    case root
}

// Who may do what. `nil` is a caller that nobody knows. Every check passes while authentication is disabled, and none of them
// passes for want of a reason to refuse.
extension AuthStore {
    public func requireRead(_ range: KeyRange, by caller: Caller?) throws(ServiceError) {
        try require(range, by: caller, \.read)
    }

    public func requireWrite(_ range: KeyRange, by caller: Caller?) throws(ServiceError) {
        try require(range, by: caller, \.write)
    }

    private func require(_ range: KeyRange, by caller: Caller?, _ rights: KeyPath<Rights, KeyRangeSet>) throws(ServiceError) {
        guard isEnabled else { return }
        // A revision of 0 is no revision: a token may claim it.
        guard let caller, caller.revision != 0 else { throw .userEmpty }
        guard caller.revision >= revision else { throw .authOldRevision }
        guard let account = users[caller.user] else { throw .permissionDenied }
        guard account.rights.isRoot || account.rights[keyPath: rights].covers(planted(.permitsByFirstKey) ? .single(range.start) : range) else { throw .permissionDenied }
    }

    /// The auth revision plays no part here, as in etcd: a token from before a change still administers.
    public func requireRoot(_ caller: Caller?) throws(ServiceError) {
        guard isEnabled else { return }
        guard let caller, !caller.user.isEmpty else { throw .userEmpty }
        guard let account = users[caller.user] else { throw .userNotFound }
        guard account.rights.isRoot else { throw .permissionDenied }
    }

    public func requireUser(_ caller: Caller?) throws(ServiceError) {
        guard isEnabled else { return }
        guard caller != nil else { throw .userEmpty }
    }

    public func require(_ requirement: CallerRequirement, of caller: Caller?) throws(ServiceError) {
        switch requirement {
        case .user: try requireUser(caller)
        case .root: try requireRoot(caller)
        }
    }

    /// Whether the caller administers, or needs no right since authentication is disabled.
    public func isRoot(_ caller: Caller?) -> Bool {
        do throws(ServiceError) {
            try requireRoot(caller)
            return true
        } catch { return false }
    }
}

/// A question about authentication itself. Answered from a linearizable copy of the state.
public enum AuthQuery: Hashable, Sendable {
    case status
    case user(UserName)
    case users
    case role(RoleName)
    case roles
}

public enum AuthAnswer: Sendable {
    case status(isEnabled: Bool, revision: UInt64)
    case user(AuthUser)
    case users([UserName])
    case role(AuthRole)
    case roles([RoleName])
}

extension AuthStore {
    public func answer(_ query: AuthQuery, for caller: Caller?) throws(ServiceError) -> AuthAnswer {
        switch query {
        case .status:
            try requireRoot(caller)
            return .status(isEnabled: isEnabled, revision: revision)
        case .user(let name):
            // Everybody may look at themselves.
            if name != caller?.user { try requireRoot(caller) }
            guard let user = user(name) else { throw .userNotFound }
            return .user(user)
        case .users:
            try requireRoot(caller)
            return .users(userNames)
        case .role(let name):
            if !holds(caller, name) { try requireRoot(caller) }
            guard let role = roles[name] else { throw .roleNotFound }
            return .role(role)
        case .roles:
            try requireRoot(caller)
            return .roles(roleNames)
        }
    }

    private func holds(_ caller: Caller?, _ role: RoleName) -> Bool {
        guard let caller, let user = user(caller.user) else { return false }
        return user.roles.contains(role)
    }

    /// What a password is compared with, off this core: hashing takes tens of milliseconds on purpose.
    /// - Throws: `.authNotEnabled`; `.passwordForNoPasswordUser`. An unknown user is no error here but `nil`, so that the caller can
    ///   take as long over it as over a known one.
    public func passwordHash(of name: UserName) throws(ServiceError) -> [UInt8]? {
        guard isEnabled else { throw .authNotEnabled }
        guard let user = user(name) else { return nil }
        guard user.hasNoPassword != true else { throw .passwordForNoPasswordUser }
        return user.passwordHash
    }

    /// Whether a user whose password was found right at `checkedRevision` may get a token. `.authOldRevision`: look again.
    public func requireFreshLogin(of name: UserName, checkedAt checkedRevision: UInt64) throws(ServiceError) {
        guard isEnabled else { throw .authNotEnabled }
        guard let user = user(name), user.hasNoPassword != true else { throw .authFailed }
        guard revision == checkedRevision else { throw .authOldRevision }
    }
}

extension ServiceError {
    /// etcd sends this one without a mapped code.
    public static let passwordForNoPasswordUser = ServiceError(.unknown, "auth: authentication failed, password was given for no password user")
}
