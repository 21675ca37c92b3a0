import Base

/// Every method of the client API, numbered by its place in `MethodID.allCases`.
///
/// The list repeats the services of Protos/*.proto; a test compares the two.
public enum MethodID: UInt16, CaseIterable, Hashable, Sendable {
    // etcdserverpb.KV
    case range
    case put
    case deleteRange
    case txn
    case compact
    // etcdserverpb.Watch
    case watch
    // etcdserverpb.Lease
    case leaseGrant
    case leaseRevoke
    case leaseKeepAlive
    case leaseTimeToLive
    case leaseLeases
    // etcdserverpb.Cluster
    case memberAdd
    case memberRemove
    case memberUpdate
    case memberList
    case memberPromote
    // etcdserverpb.Maintenance
    case alarm
    case status
    case defragment
    case hash
    case hashKV
    case snapshot
    case moveLeader
    case downgrade
    // etcdserverpb.Auth
    case authEnable
    case authDisable
    case authStatus
    case authenticate
    case userAdd
    case userGet
    case userList
    case userDelete
    case userChangePassword
    case userGrantRole
    case userRevokeRole
    case roleAdd
    case roleGet
    case roleList
    case roleDelete
    case roleGrantPermission
    case roleRevokePermission
    // v3lockpb.Lock
    case lock
    case unlock
    // v3electionpb.Election
    case campaign
    case proclaim
    case leader
    case observe
    case resign
    // grpc.health.v1.Health
    case healthCheck
    case healthList
    case healthWatch
    // quarterdeck.v1.Observer
    case observeMember
}

extension MethodID {
    /// The full service name, as metrics carry it in `grpc_service`.
    public var service: String {
        switch self {
        case .range, .put, .deleteRange, .txn, .compact:
            "etcdserverpb.KV"
        case .watch:
            "etcdserverpb.Watch"
        case .leaseGrant, .leaseRevoke, .leaseKeepAlive, .leaseTimeToLive, .leaseLeases:
            "etcdserverpb.Lease"
        case .memberAdd, .memberRemove, .memberUpdate, .memberList, .memberPromote:
            "etcdserverpb.Cluster"
        case .alarm, .status, .defragment, .hash, .hashKV, .snapshot, .moveLeader, .downgrade:
            "etcdserverpb.Maintenance"
        case .authEnable, .authDisable, .authStatus, .authenticate, .userAdd, .userGet, .userList, .userDelete,
             .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd, .roleGet, .roleList, .roleDelete,
             .roleGrantPermission, .roleRevokePermission:
            "etcdserverpb.Auth"
        case .lock, .unlock:
            "v3lockpb.Lock"
        case .campaign, .proclaim, .leader, .observe, .resign:
            "v3electionpb.Election"
        case .healthCheck, .healthList, .healthWatch:
            "grpc.health.v1.Health"
        case .observeMember:
            "quarterdeck.v1.Observer"
        }
    }

    /// The method's name, as metrics carry it in `grpc_method`.
    public var name: String {
        switch self {
        case .range: "Range"
        case .put: "Put"
        case .deleteRange: "DeleteRange"
        case .txn: "Txn"
        case .compact: "Compact"
        case .watch: "Watch"
        case .leaseGrant: "LeaseGrant"
        case .leaseRevoke: "LeaseRevoke"
        case .leaseKeepAlive: "LeaseKeepAlive"
        case .leaseTimeToLive: "LeaseTimeToLive"
        case .leaseLeases: "LeaseLeases"
        case .memberAdd: "MemberAdd"
        case .memberRemove: "MemberRemove"
        case .memberUpdate: "MemberUpdate"
        case .memberList: "MemberList"
        case .memberPromote: "MemberPromote"
        case .alarm: "Alarm"
        case .status: "Status"
        case .defragment: "Defragment"
        case .hash: "Hash"
        case .hashKV: "HashKV"
        case .snapshot: "Snapshot"
        case .moveLeader: "MoveLeader"
        case .downgrade: "Downgrade"
        case .authEnable: "AuthEnable"
        case .authDisable: "AuthDisable"
        case .authStatus: "AuthStatus"
        case .authenticate: "Authenticate"
        case .userAdd: "UserAdd"
        case .userGet: "UserGet"
        case .userList: "UserList"
        case .userDelete: "UserDelete"
        case .userChangePassword: "UserChangePassword"
        case .userGrantRole: "UserGrantRole"
        case .userRevokeRole: "UserRevokeRole"
        case .roleAdd: "RoleAdd"
        case .roleGet: "RoleGet"
        case .roleList: "RoleList"
        case .roleDelete: "RoleDelete"
        case .roleGrantPermission: "RoleGrantPermission"
        case .roleRevokePermission: "RoleRevokePermission"
        case .lock: "Lock"
        case .unlock: "Unlock"
        case .campaign: "Campaign"
        case .proclaim: "Proclaim"
        case .leader: "Leader"
        case .observe: "Observe"
        case .resign: "Resign"
        case .healthCheck: "Check"
        case .healthList: "List"
        case .healthWatch: "Watch"
        case .observeMember: "Observe"
        }
    }

    /// The HTTP/2 `:path`.
    public var path: String { "/\(service)/\(name)" }

    public var kind: CallKind {
        switch self {
        case .watch, .leaseKeepAlive: .bidirectional
        case .snapshot, .observe, .healthWatch, .observeMember: .serverStream
        default: .unary
        }
    }

    /// Paths and kinds in the order of the raw values: what a server's method table is made from.
    public static let table: [(path: String, kind: CallKind)] = allCases.map { ($0.path, $0.kind) }
}
