import Base
import Wire

/// A role's right on a range of keys.
public struct Permission: Hashable, Sendable {
    public enum Kind: Int, Hashable, Sendable { case read, write, readWrite }
    public var kind: Kind
    public var range: KeyRange
    public init(_ kind: Kind, _ range: KeyRange) {
        self.kind = kind
        self.range = range
    }
}

public struct AuthStatus: Hashable, Sendable {
    public var header: ResponseHeader
    public var isEnabled: Bool
    /// Counts the changes of users, roles and permissions.
    public var authRevision: UInt64
}

// Thin: one function per call. Users and roles are text.
extension EtcdClient {
    public func enableAuth(options: CallOptions = CallOptions()) async throws {
        _ = try await call(.authEnable, PBAuthEnableRequest(), PBAuthEnableResponse.self, options)
    }

    public func disableAuth(options: CallOptions = CallOptions()) async throws {
        _ = try await call(.authDisable, PBAuthDisableRequest(), PBAuthDisableResponse.self, options)
    }

    /// etcd 3.4 does not have the call: there a login that cannot succeed tells by its refusal, and header and revision stay zero.
    public func authStatus(options: CallOptions = CallOptions()) async throws -> AuthStatus {
        do {
            let answer = try await call(.authStatus, PBAuthStatusRequest(), PBAuthStatusResponse.self, options)
            return AuthStatus(header: ResponseHeader(answer.header), isEnabled: answer.enabled, authRevision: answer.authRevision)
        } catch let error as EtcdError where error.isUnimplemented {
            do {
                _ = try await call(.authenticate, PBAuthenticateRequest(), PBAuthenticateResponse.self, options)
            } catch let refusal as EtcdError where refusal.isService(.authFailed) || refusal.isService(.authNotEnabled) {
                return AuthStatus(header: ResponseHeader(), isEnabled: refusal.isService(.authFailed), authRevision: 0)
            }
            throw error
        }
    }

    /// - Parameter password: nil: a user known by certificate alone.
    public func addUser(_ name: String, password: String?, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthUserAddRequest()
        request.name = name
        request.password = password ?? ""
        request.options.noPassword = password == nil
        _ = try await call(.userAdd, request, PBAuthUserAddResponse.self, options)
    }

    public func deleteUser(_ name: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthUserDeleteRequest()
        request.name = name
        _ = try await call(.userDelete, request, PBAuthUserDeleteResponse.self, options)
    }

    public func users(options: CallOptions = CallOptions()) async throws -> [String] {
        try await call(.userList, PBAuthUserListRequest(), PBAuthUserListResponse.self, options).users
    }

    public func roles(of user: String, options: CallOptions = CallOptions()) async throws -> [String] {
        var request = PBAuthUserGetRequest()
        request.name = user
        return try await call(.userGet, request, PBAuthUserGetResponse.self, options).roles
    }

    public func changePassword(of user: String, to password: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthUserChangePasswordRequest()
        request.name = user
        request.password = password
        _ = try await call(.userChangePassword, request, PBAuthUserChangePasswordResponse.self, options)
    }

    public func grantRole(_ role: String, to user: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthUserGrantRoleRequest()
        request.user = user
        request.role = role
        _ = try await call(.userGrantRole, request, PBAuthUserGrantRoleResponse.self, options)
    }

    public func revokeRole(_ role: String, from user: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthUserRevokeRoleRequest()
        request.name = user
        request.role = role
        _ = try await call(.userRevokeRole, request, PBAuthUserRevokeRoleResponse.self, options)
    }

    public func addRole(_ name: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthRoleAddRequest()
        request.name = name
        _ = try await call(.roleAdd, request, PBAuthRoleAddResponse.self, options)
    }

    public func deleteRole(_ name: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthRoleDeleteRequest()
        request.role = name
        _ = try await call(.roleDelete, request, PBAuthRoleDeleteResponse.self, options)
    }

    public func roles(options: CallOptions = CallOptions()) async throws -> [String] {
        try await call(.roleList, PBAuthRoleListRequest(), PBAuthRoleListResponse.self, options).roles
    }

    public func permissions(of role: String, options: CallOptions = CallOptions()) async throws -> [Permission] {
        var request = PBAuthRoleGetRequest()
        request.role = role
        return try await call(.roleGet, request, PBAuthRoleGetResponse.self, options).perm.map {
            Permission(Permission.Kind(rawValue: $0.permType.rawValue) ?? .read, KeyRange(key: [UInt8]($0.key), rangeEnd: [UInt8]($0.rangeEnd)))
        }
    }

    public func grantPermission(_ permission: Permission, to role: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthRoleGrantPermissionRequest()
        request.name = role
        request.perm.permType = PBPermission.TypeEnum(rawValue: permission.kind.rawValue) ?? .read
        request.perm.key = .init(permission.range.start.bytes)
        request.perm.rangeEnd = .init(permission.range.wireRangeEnd)
        _ = try await call(.roleGrantPermission, request, PBAuthRoleGrantPermissionResponse.self, options)
    }

    public func revokePermission(on range: KeyRange, from role: String, options: CallOptions = CallOptions()) async throws {
        var request = PBAuthRoleRevokePermissionRequest()
        request.role = role
        request.key = .init(range.start.bytes)
        request.rangeEnd = .init(range.wireRangeEnd)
        _ = try await call(.roleRevokePermission, request, PBAuthRoleRevokePermissionResponse.self, options)
    }
}
