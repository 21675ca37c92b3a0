import Wire

/// A path of the JSON gateway and the call behind it. A new call is a line in `all`. (etcd-http.md §2.1)
struct GatewayRoute: Sendable {
    let path: String
    let method: MethodID
    let request: MessageSchema
    let response: MessageSchema

    private init(_ path: String, _ method: MethodID, _ request: MessageSchema, _ response: MessageSchema) {
        (self.path, self.method, self.request, self.response) = ("/v3/" + path, method, request, response)
    }

    static let all: [GatewayRoute] = [
        GatewayRoute("kv/range", .range, .rangeRequest, .rangeResponse),
        GatewayRoute("kv/put", .put, .putRequest, .putResponse),
        GatewayRoute("kv/deleterange", .deleteRange, .deleteRangeRequest, .deleteRangeResponse),
        GatewayRoute("kv/txn", .txn, .txnRequest, .txnResponse),
        GatewayRoute("kv/compaction", .compact, .compactionRequest, .headerOnly("CompactionResponse")),
        GatewayRoute("watch", .watch, .watchRequest, .watchResponse),
        GatewayRoute("lease/grant", .leaseGrant, .leaseGrantRequest, .leaseGrantResponse),
        GatewayRoute("lease/revoke", .leaseRevoke, .leaseRevokeRequest, .headerOnly("LeaseRevokeResponse")),
        GatewayRoute("kv/lease/revoke", .leaseRevoke, .leaseRevokeRequest, .headerOnly("LeaseRevokeResponse")),
        GatewayRoute("lease/keepalive", .leaseKeepAlive, .leaseKeepAliveRequest, .leaseKeepAliveResponse),
        GatewayRoute("lease/timetolive", .leaseTimeToLive, .leaseTimeToLiveRequest, .leaseTimeToLiveResponse),
        GatewayRoute("kv/lease/timetolive", .leaseTimeToLive, .leaseTimeToLiveRequest, .leaseTimeToLiveResponse),
        GatewayRoute("lease/leases", .leaseLeases, .empty("LeaseLeasesRequest"), .leaseLeasesResponse),
        GatewayRoute("kv/lease/leases", .leaseLeases, .empty("LeaseLeasesRequest"), .leaseLeasesResponse),
        GatewayRoute("cluster/member/add", .memberAdd, .memberAddRequest, .memberAddResponse),
        GatewayRoute("cluster/member/remove", .memberRemove, .memberRemoveRequest, .memberRemoveResponse),
        GatewayRoute("cluster/member/update", .memberUpdate, .memberUpdateRequest, .memberUpdateResponse),
        GatewayRoute("cluster/member/list", .memberList, .memberListRequest, .memberListResponse),
        GatewayRoute("cluster/member/promote", .memberPromote, .memberPromoteRequest, .memberPromoteResponse),
        GatewayRoute("maintenance/alarm", .alarm, .alarmRequest, .alarmResponse),
        GatewayRoute("maintenance/status", .status, .empty("StatusRequest"), .statusResponse),
        GatewayRoute("maintenance/defragment", .defragment, .empty("DefragmentRequest"), .headerOnly("DefragmentResponse")),
        GatewayRoute("maintenance/hash", .hash, .empty("HashRequest"), .hashResponse),
        GatewayRoute("maintenance/hashkv", .hashKV, .hashKVRequest, .hashKVResponse),
        GatewayRoute("maintenance/snapshot", .snapshot, .empty("SnapshotRequest"), .snapshotResponse),
        GatewayRoute("maintenance/transfer-leadership", .moveLeader, .moveLeaderRequest, .headerOnly("MoveLeaderResponse")),
        GatewayRoute("maintenance/downgrade", .downgrade, .downgradeRequest, .downgradeResponse),
        GatewayRoute("auth/enable", .authEnable, .empty("AuthEnableRequest"), .headerOnly("AuthEnableResponse")),
        GatewayRoute("auth/disable", .authDisable, .empty("AuthDisableRequest"), .headerOnly("AuthDisableResponse")),
        GatewayRoute("auth/status", .authStatus, .empty("AuthStatusRequest"), .authStatusResponse),
        GatewayRoute("auth/authenticate", .authenticate, .authenticateRequest, .authenticateResponse),
        GatewayRoute("auth/user/add", .userAdd, .userAddRequest, .headerOnly("AuthUserAddResponse")),
        GatewayRoute("auth/user/get", .userGet, .userGetRequest, .userGetResponse),
        GatewayRoute("auth/user/list", .userList, .empty("AuthUserListRequest"), .userListResponse),
        GatewayRoute("auth/user/delete", .userDelete, .userDeleteRequest, .headerOnly("AuthUserDeleteResponse")),
        GatewayRoute("auth/user/changepw", .userChangePassword, .userChangePasswordRequest, .headerOnly("AuthUserChangePasswordResponse")),
        GatewayRoute("auth/user/grant", .userGrantRole, .userGrantRoleRequest, .headerOnly("AuthUserGrantRoleResponse")),
        GatewayRoute("auth/user/revoke", .userRevokeRole, .userRevokeRoleRequest, .headerOnly("AuthUserRevokeRoleResponse")),
        GatewayRoute("auth/role/add", .roleAdd, .roleAddRequest, .headerOnly("AuthRoleAddResponse")),
        GatewayRoute("auth/role/get", .roleGet, .roleGetRequest, .roleGetResponse),
        GatewayRoute("auth/role/list", .roleList, .empty("AuthRoleListRequest"), .roleListResponse),
        GatewayRoute("auth/role/delete", .roleDelete, .roleDeleteRequest, .headerOnly("AuthRoleDeleteResponse")),
        GatewayRoute("auth/role/grant", .roleGrantPermission, .roleGrantPermissionRequest, .headerOnly("AuthRoleGrantPermissionResponse")),
        GatewayRoute("auth/role/revoke", .roleRevokePermission, .roleRevokePermissionRequest, .headerOnly("AuthRoleRevokePermissionResponse")),
        GatewayRoute("lock/lock", .lock, .lockRequest, .lockResponse),
        GatewayRoute("lock/unlock", .unlock, .unlockRequest, .headerOnly("UnlockResponse", package: "v3lockpb")),
        GatewayRoute("election/campaign", .campaign, .campaignRequest, .campaignResponse),
        GatewayRoute("election/proclaim", .proclaim, .proclaimRequest, .headerOnly("ProclaimResponse", package: "v3electionpb")),
        GatewayRoute("election/leader", .leader, .leaderRequest, .leaderResponse),
        GatewayRoute("election/observe", .observe, .leaderRequest, .leaderResponse),
        GatewayRoute("election/resign", .resign, .resignRequest, .headerOnly("ResignResponse", package: "v3electionpb")),
    ]

    private static let byPath = Dictionary(uniqueKeysWithValues: all.map { ($0.path, $0) })

    static func find(_ path: String) -> GatewayRoute? { byPath[path] }
}
