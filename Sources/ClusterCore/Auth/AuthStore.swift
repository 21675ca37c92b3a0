import Base

/// Users, roles and what they may do: the replicated part of authentication. A value, so that a read takes a copy along and is judged
/// by the same state wherever it is evaluated.
///
/// Changes come from applied entries only and are equal on every member: the same changes in the same order give the same state, the
/// same refusals and the same stored bytes. What is not granted is denied. (etcd-api.md §9; DESIGN.md)
public struct AuthStore: Sendable {
    /// While this is false nobody is asked who they are, and everybody may do everything.
    public internal(set) var isEnabled = false
    /// Counts changes; 1 in a fresh store. A request that was permitted at an earlier revision is judged anew.
    public internal(set) var revision: UInt64 = 1
    var users = SortedTable<UserName, Account>()
    var roles = SortedTable<RoleName, AuthRole>()

    /// A user with what its roles come to.
    struct Account: Sendable {
        var user: AuthUser
        var rights: Rights
    }

    public init() {}

    public func user(_ name: UserName) -> AuthUser? { users[name]?.user }
    public func role(_ name: RoleName) -> AuthRole? { roles[name] }
    /// In byte order.
    public var userNames: [UserName] { users.keys }
    public var roleNames: [RoleName] { roles.keys }

    /// Names are keys of the backend's tables, and a key that it does not take would stop every member that applies it. (LMDB)
    public static let maxNameBytes = 511

    private static func checkName(_ name: [UInt8]) throws(ServiceError) {
        guard name.count <= maxNameBytes else { throw .nameTooLong }
        guard String(validating: name, as: UTF8.self) != nil else { throw .nameIsNoText }
    }

    // MARK: The switch

    /// Enabling what is enabled succeeds. The revision stays: nobody's rights have changed.
    public mutating func enable(into writes: inout [AuthWrite]) throws(ServiceError) {
        guard !isEnabled else { return }
        guard let root = users[.root] else { throw .rootUserNotExist }
        guard root.rights.isRoot else { throw .rootRoleNotExist }
        isEnabled = true
        writes.append(.put(.settings, key: AuthStore.enabledKey, value: [1]))
    }

    /// Disabling what is disabled succeeds.
    public mutating func disable(into writes: inout [AuthWrite]) {
        guard isEnabled else { return }
        isEnabled = false
        writes.append(.put(.settings, key: AuthStore.enabledKey, value: [0]))
        commit(&writes)
    }

    // MARK: Users

    public mutating func addUser(_ change: UserAddition, into writes: inout [AuthWrite]) throws(ServiceError) {
        guard !change.name.isEmpty else { throw .userEmpty }
        try AuthStore.checkName(change.name.bytes)
        guard users[change.name] == nil else { throw .userAlreadyExist }
        put(AuthUser(name: change.name, passwordHash: change.hasNoPassword ? [] : change.passwordHash, hasNoPassword: change.hasNoPassword),
            &writes)
        commit(&writes)
    }

    public mutating func deleteUser(_ name: UserName, into writes: inout [AuthWrite]) throws(ServiceError) {
        if isEnabled && name == .root { throw .invalidAuthMgmt }
        guard users[name] != nil else { throw .userNotFound }
        users.remove(name)
        writes.append(.delete(.users, key: name.bytes))
        commit(&writes)
    }

    /// A user without a password stays without one.
    public mutating func changePassword(of name: UserName, to hash: [UInt8], into writes: inout [AuthWrite]) throws(ServiceError) {
        guard var user = users[name]?.user else { throw .userNotFound }
        user.passwordHash = user.hasNoPassword == true ? [] : hash
        put(user, &writes)
        commit(&writes)
    }

    /// Granting what is granted succeeds and changes nothing. The role "root" needs no record.
    public mutating func grantRole(_ role: RoleName, to name: UserName, into writes: inout [AuthWrite]) throws(ServiceError) {
        guard var user = users[name]?.user else { throw .userNotFound }
        guard role == .root || roles[role] != nil else { throw .roleNotFound }
        guard !user.roles.contains(role) else { return }
        user.roles.insert(role, at: user.roles.firstIndex { role < $0 } ?? user.roles.count)
        put(user, &writes)
        commit(&writes)
    }

    public mutating func revokeRole(_ role: RoleName, from name: UserName, into writes: inout [AuthWrite]) throws(ServiceError) {
        if isEnabled && name == .root && role == .root { throw .invalidAuthMgmt }
        guard var user = users[name]?.user else { throw .userNotFound }
        guard user.roles.contains(role) else { throw .roleNotGranted }
        user.roles.removeAll { $0 == role }
        put(user, &writes)
        commit(&writes)
    }

    // MARK: Roles

    public mutating func addRole(_ name: RoleName, into writes: inout [AuthWrite]) throws(ServiceError) {
        guard !name.isEmpty else { throw .roleEmpty }
        try AuthStore.checkName(name.bytes)
        guard roles[name] == nil else { throw .roleAlreadyExist }
        put(AuthRole(name: name), &writes)
        commit(&writes)
    }

    public mutating func deleteRole(_ name: RoleName, into writes: inout [AuthWrite]) throws(ServiceError) {
        if isEnabled && name == .root { throw .invalidAuthMgmt }
        guard roles[name] != nil else { throw .roleNotFound }
        roles.remove(name)
        writes.append(.delete(.roles, key: name.bytes))
        for holder in holders(of: name) {
            var user = users[holder]!.user
            user.roles.removeAll { $0 == name }
            put(user, &writes)
        }
        commit(&writes)
    }

    /// The same key and end again: the kind is replaced.
    public mutating func grantPermission(_ permission: Permission?, to name: RoleName, into writes: inout [AuthWrite]) throws(ServiceError) {
        guard let permission else { throw .permissionNotGiven }
        guard permission.isValid else { throw .invalidAuthMgmt }
        guard var role = roles[name] else { throw .roleNotFound }
        if let at = role.permissions.firstIndex(where: { $0.key == permission.key && $0.rangeEnd == permission.rangeEnd }) {
            role.permissions[at].kind = permission.kind
        } else {
            // Behind those with the same key, as etcd's sort leaves them.
            let at = role.permissions.firstIndex { compareBytes(permission.key, $0.key) < 0 } ?? role.permissions.count
            role.permissions.insert(permission, at: at)
        }
        put(role, &writes)
        commit(&writes)
    }

    public mutating func revokePermission(
        key: [UInt8], rangeEnd: [UInt8], from name: RoleName, into writes: inout [AuthWrite]
    ) throws(ServiceError) {
        guard var role = roles[name] else { throw .roleNotFound }
        let before = role.permissions.count
        role.permissions.removeAll { $0.key == key && $0.rangeEnd == rangeEnd }
        guard role.permissions.count < before else { throw .permissionNotGranted }
        put(role, &writes)
        commit(&writes)
    }

    // MARK: Steps

    private mutating func put(_ user: AuthUser, _ writes: inout [AuthWrite]) {
        users[user.name] = Account(user: user, rights: rights(of: user))
        writes.append(.put(.users, key: user.name.bytes, value: user.encoded()))
    }

    private mutating func put(_ role: AuthRole, _ writes: inout [AuthWrite]) {
        roles[role.name] = role
        writes.append(.put(.roles, key: role.name.bytes, value: role.encoded()))
        for holder in holders(of: role.name) { users[holder]!.rights = rights(of: users[holder]!.user) }
    }

    private mutating func commit(_ writes: inout [AuthWrite]) {
        revision += 1
        writes.append(.put(.settings, key: AuthStore.revisionKey, value: AuthStore.encoded(revision: revision)))
    }

    private func holders(of role: RoleName) -> [UserName] { users.keys.filter { users[$0]!.user.roles.contains(role) } }

    func rights(of user: AuthUser) -> Rights {
        var rights = Rights(isRoot: user.roles.contains(.root))
        for name in user.roles {
            // A user may hold a role without a record: "root".
            guard let role = roles[name] else { continue }
            for permission in role.permissions where !permission.key.isEmpty {
                if permission.kind.allowsReading { rights.read.insert(permission.range) }
                if permission.kind.allowsWriting { rights.write.insert(permission.range) }
            }
        }
        return rights
    }
}

/// What all roles of a user come to.
struct Rights: Sendable {
    var isRoot: Bool
    var read = KeyRangeSet()
    var write = KeyRangeSet()
}
