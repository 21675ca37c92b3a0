// The messages that the JSON gateway carries, as Protos/*.proto of the Wire module declare them.

extension EnumSchema {
    static let sortOrder = EnumSchema("etcdserverpb.RangeRequest.SortOrder", "NONE", "ASCEND", "DESCEND")
    static let sortTarget = EnumSchema("etcdserverpb.RangeRequest.SortTarget", "KEY", "VERSION", "CREATE", "MOD", "VALUE")
    static let compareResult = EnumSchema("etcdserverpb.Compare.CompareResult", "EQUAL", "GREATER", "LESS", "NOT_EQUAL")
    static let compareTarget = EnumSchema("etcdserverpb.Compare.CompareTarget", "VERSION", "CREATE", "MOD", "VALUE", "LEASE")
    static let watchFilter = EnumSchema("etcdserverpb.WatchCreateRequest.FilterType", "NOPUT", "NODELETE")
    static let eventType = EnumSchema("mvccpb.Event.EventType", "PUT", "DELETE")
    static let alarmAction = EnumSchema("etcdserverpb.AlarmRequest.AlarmAction", "GET", "ACTIVATE", "DEACTIVATE")
    static let alarmType = EnumSchema("etcdserverpb.AlarmType", "NONE", "NOSPACE", "CORRUPT")
    static let downgradeAction = EnumSchema("etcdserverpb.DowngradeRequest.DowngradeAction", "VALIDATE", "ENABLE", "CANCEL")
    static let permissionType = EnumSchema("authpb.Permission.Type", "READ", "WRITE", "READWRITE")
}

extension MessageSchema {
    // MARK: Parts

    static let header = MessageSchema("etcdserverpb.ResponseHeader", [
        .uint64(1, "cluster_id"), .uint64(2, "member_id"), .int64(3, "revision"), .uint64(4, "raft_term"),
    ])
    static let keyValue = MessageSchema("mvccpb.KeyValue", [
        .bytes(1, "key"), .int64(2, "create_revision"), .int64(3, "mod_revision"), .int64(4, "version"), .bytes(5, "value"), .int64(6, "lease"),
    ])
    static let event = MessageSchema("mvccpb.Event", [
        .enumeration(1, "type", .eventType), .message(2, "kv", keyValue), .message(3, "prev_kv", keyValue),
    ])
    static let permission = MessageSchema("authpb.Permission", [
        .enumeration(1, "permType", .permissionType), .bytes(2, "key"), .bytes(3, "range_end"),
    ])
    static let userAddOptions = MessageSchema("authpb.UserAddOptions", [.bool(1, "no_password")])
    static let member = MessageSchema("etcdserverpb.Member", [
        .uint64(1, "ID"), .string(2, "name"), .string(3, "peerURLs", repeated: true), .string(4, "clientURLs", repeated: true), .bool(5, "isLearner"),
    ])

    /// A request without fields.
    static func empty(_ name: String) -> MessageSchema { MessageSchema("etcdserverpb." + name) }
    /// An answer of which the header is all.
    static func headerOnly(_ name: String, package: String = "etcdserverpb") -> MessageSchema {
        MessageSchema("\(package).\(name)", [.message(1, "header", header)])
    }
    private static func members(_ name: String) -> MessageSchema {
        MessageSchema("etcdserverpb." + name, [.message(1, "header", header), .message(2, "members", member, repeated: true)])
    }
    private static func one(_ name: String, _ field: Field) -> MessageSchema { MessageSchema("etcdserverpb." + name, [field]) }

    // MARK: KV

    static let rangeRequest = MessageSchema("etcdserverpb.RangeRequest", [
        .bytes(1, "key"), .bytes(2, "range_end"), .int64(3, "limit"), .int64(4, "revision"), .enumeration(5, "sort_order", .sortOrder),
        .enumeration(6, "sort_target", .sortTarget), .bool(7, "serializable"), .bool(8, "keys_only"), .bool(9, "count_only"),
        .int64(10, "min_mod_revision"), .int64(11, "max_mod_revision"), .int64(12, "min_create_revision"), .int64(13, "max_create_revision"),
    ])
    static let rangeResponse = MessageSchema("etcdserverpb.RangeResponse", [
        .message(1, "header", header), .message(2, "kvs", keyValue, repeated: true), .bool(3, "more"), .int64(4, "count"),
    ])
    static let putRequest = MessageSchema("etcdserverpb.PutRequest", [
        .bytes(1, "key"), .bytes(2, "value"), .int64(3, "lease"), .bool(4, "prev_kv"), .bool(5, "ignore_value"), .bool(6, "ignore_lease"),
    ])
    static let putResponse = MessageSchema("etcdserverpb.PutResponse", [.message(1, "header", header), .message(2, "prev_kv", keyValue)])
    static let deleteRangeRequest = MessageSchema("etcdserverpb.DeleteRangeRequest", [.bytes(1, "key"), .bytes(2, "range_end"), .bool(3, "prev_kv")])
    static let deleteRangeResponse = MessageSchema("etcdserverpb.DeleteRangeResponse", [
        .message(1, "header", header), .int64(2, "deleted"), .message(3, "prev_kvs", keyValue, repeated: true),
    ])
    static let requestOp: MessageSchema = MessageSchema("etcdserverpb.RequestOp", [
        .message(1, "request_range", rangeRequest, oneof: "request"), .message(2, "request_put", putRequest, oneof: "request"),
        .message(3, "request_delete_range", deleteRangeRequest, oneof: "request"), .message(4, "request_txn", txnRequest, oneof: "request"),
    ])
    static let responseOp: MessageSchema = MessageSchema("etcdserverpb.ResponseOp", [
        .message(1, "response_range", rangeResponse, oneof: "response"), .message(2, "response_put", putResponse, oneof: "response"),
        .message(3, "response_delete_range", deleteRangeResponse, oneof: "response"), .message(4, "response_txn", txnResponse, oneof: "response"),
    ])
    static let compare = MessageSchema("etcdserverpb.Compare", [
        .enumeration(1, "result", .compareResult), .enumeration(2, "target", .compareTarget), .bytes(3, "key"),
        .int64(4, "version", oneof: "target_union"), .int64(5, "create_revision", oneof: "target_union"), .int64(6, "mod_revision", oneof: "target_union"),
        .bytes(7, "value", oneof: "target_union"), .int64(8, "lease", oneof: "target_union"), .bytes(64, "range_end"),
    ])
    static let txnRequest: MessageSchema = MessageSchema("etcdserverpb.TxnRequest", [
        .message(1, "compare", compare, repeated: true), .message(2, "success", requestOp, repeated: true), .message(3, "failure", requestOp, repeated: true),
    ])
    static let txnResponse: MessageSchema = MessageSchema("etcdserverpb.TxnResponse", [
        .message(1, "header", header), .bool(2, "succeeded"), .message(3, "responses", responseOp, repeated: true),
    ])
    static let compactionRequest = MessageSchema("etcdserverpb.CompactionRequest", [.int64(1, "revision"), .bool(2, "physical")])

    // MARK: Watch

    static let watchCreateRequest = MessageSchema("etcdserverpb.WatchCreateRequest", [
        .bytes(1, "key"), .bytes(2, "range_end"), .int64(3, "start_revision"), .bool(4, "progress_notify"),
        .enumeration(5, "filters", .watchFilter, repeated: true), .bool(6, "prev_kv"), .int64(7, "watch_id"), .bool(8, "fragment"),
    ])
    static let watchCancelRequest = MessageSchema("etcdserverpb.WatchCancelRequest", [.int64(1, "watch_id")])
    static let watchProgressRequest = MessageSchema("etcdserverpb.WatchProgressRequest")
    static let watchRequest = MessageSchema("etcdserverpb.WatchRequest", [
        .message(1, "create_request", watchCreateRequest, oneof: "request_union"), .message(2, "cancel_request", watchCancelRequest, oneof: "request_union"),
        .message(3, "progress_request", watchProgressRequest, oneof: "request_union"),
    ])
    static let watchResponse = MessageSchema("etcdserverpb.WatchResponse", [
        .message(1, "header", header), .int64(2, "watch_id"), .bool(3, "created"), .bool(4, "canceled"), .int64(5, "compact_revision"),
        .string(6, "cancel_reason"), .bool(7, "fragment"), .message(11, "events", event, repeated: true),
    ])

    // MARK: Lease

    static let leaseGrantRequest = MessageSchema("etcdserverpb.LeaseGrantRequest", [.int64(1, "TTL"), .int64(2, "ID")])
    static let leaseGrantResponse = MessageSchema("etcdserverpb.LeaseGrantResponse", [
        .message(1, "header", header), .int64(2, "ID"), .int64(3, "TTL"), .string(4, "error"),
    ])
    static let leaseRevokeRequest = one("LeaseRevokeRequest", .int64(1, "ID"))
    static let leaseKeepAliveRequest = one("LeaseKeepAliveRequest", .int64(1, "ID"))
    static let leaseKeepAliveResponse = MessageSchema("etcdserverpb.LeaseKeepAliveResponse", [.message(1, "header", header), .int64(2, "ID"), .int64(3, "TTL")])
    static let leaseTimeToLiveRequest = MessageSchema("etcdserverpb.LeaseTimeToLiveRequest", [.int64(1, "ID"), .bool(2, "keys")])
    static let leaseTimeToLiveResponse = MessageSchema("etcdserverpb.LeaseTimeToLiveResponse", [
        .message(1, "header", header), .int64(2, "ID"), .int64(3, "TTL"), .int64(4, "grantedTTL"), .bytes(5, "keys", repeated: true),
    ])
    static let leaseStatus = one("LeaseStatus", .int64(1, "ID"))
    static let leaseLeasesResponse = MessageSchema("etcdserverpb.LeaseLeasesResponse", [
        .message(1, "header", header), .message(2, "leases", leaseStatus, repeated: true),
    ])

    // MARK: Cluster

    static let memberAddRequest = MessageSchema("etcdserverpb.MemberAddRequest", [.string(1, "peerURLs", repeated: true), .bool(2, "isLearner")])
    static let memberAddResponse = MessageSchema("etcdserverpb.MemberAddResponse", [
        .message(1, "header", header), .message(2, "member", member), .message(3, "members", member, repeated: true),
    ])
    static let memberRemoveRequest = one("MemberRemoveRequest", .uint64(1, "ID"))
    static let memberRemoveResponse = members("MemberRemoveResponse")
    static let memberUpdateRequest = MessageSchema("etcdserverpb.MemberUpdateRequest", [.uint64(1, "ID"), .string(2, "peerURLs", repeated: true)])
    static let memberUpdateResponse = members("MemberUpdateResponse")
    static let memberListRequest = one("MemberListRequest", .bool(1, "linearizable"))
    static let memberListResponse = members("MemberListResponse")
    static let memberPromoteRequest = one("MemberPromoteRequest", .uint64(1, "ID"))
    static let memberPromoteResponse = members("MemberPromoteResponse")

    // MARK: Maintenance

    static let alarmRequest = MessageSchema("etcdserverpb.AlarmRequest", [
        .enumeration(1, "action", .alarmAction), .uint64(2, "memberID"), .enumeration(3, "alarm", .alarmType),
    ])
    static let alarmMember = MessageSchema("etcdserverpb.AlarmMember", [.uint64(1, "memberID"), .enumeration(2, "alarm", .alarmType)])
    static let alarmResponse = MessageSchema("etcdserverpb.AlarmResponse", [.message(1, "header", header), .message(2, "alarms", alarmMember, repeated: true)])
    static let downgradeInfo = MessageSchema("etcdserverpb.DowngradeInfo", [.bool(1, "enabled"), .string(2, "targetVersion")])
    static let statusResponse = MessageSchema("etcdserverpb.StatusResponse", [
        .message(1, "header", header), .string(2, "version"), .int64(3, "dbSize"), .uint64(4, "leader"), .uint64(5, "raftIndex"), .uint64(6, "raftTerm"),
        .uint64(7, "raftAppliedIndex"), .string(8, "errors", repeated: true), .int64(9, "dbSizeInUse"), .bool(10, "isLearner"),
        .string(11, "storageVersion"), .int64(12, "dbSizeQuota"), .message(13, "downgradeInfo", downgradeInfo),
    ])
    static let hashResponse = MessageSchema("etcdserverpb.HashResponse", [.message(1, "header", header), .uint32(2, "hash")])
    static let hashKVRequest = one("HashKVRequest", .int64(1, "revision"))
    static let hashKVResponse = MessageSchema("etcdserverpb.HashKVResponse", [
        .message(1, "header", header), .uint32(2, "hash"), .int64(3, "compact_revision"), .int64(4, "hash_revision"),
    ])
    static let snapshotResponse = MessageSchema("etcdserverpb.SnapshotResponse", [
        .message(1, "header", header), .uint64(2, "remaining_bytes"), .bytes(3, "blob"), .string(4, "version"),
    ])
    static let moveLeaderRequest = one("MoveLeaderRequest", .uint64(1, "targetID"))
    static let downgradeRequest = MessageSchema("etcdserverpb.DowngradeRequest", [.enumeration(1, "action", .downgradeAction), .string(2, "version")])
    static let downgradeResponse = MessageSchema("etcdserverpb.DowngradeResponse", [.message(1, "header", header), .string(2, "version")])

    // MARK: Auth

    static let authStatusResponse = MessageSchema("etcdserverpb.AuthStatusResponse", [
        .message(1, "header", header), .bool(2, "enabled"), .uint64(3, "authRevision"),
    ])
    static let authenticateRequest = MessageSchema("etcdserverpb.AuthenticateRequest", [.string(1, "name"), .string(2, "password")])
    static let authenticateResponse = MessageSchema("etcdserverpb.AuthenticateResponse", [.message(1, "header", header), .string(2, "token")])
    static let userAddRequest = MessageSchema("etcdserverpb.AuthUserAddRequest", [
        .string(1, "name"), .string(2, "password"), .message(3, "options", userAddOptions), .string(4, "hashedPassword"),
    ])
    static let userGetRequest = one("AuthUserGetRequest", .string(1, "name"))
    static let userGetResponse = MessageSchema("etcdserverpb.AuthUserGetResponse", [.message(1, "header", header), .string(2, "roles", repeated: true)])
    static let userListResponse = MessageSchema("etcdserverpb.AuthUserListResponse", [.message(1, "header", header), .string(2, "users", repeated: true)])
    static let userDeleteRequest = one("AuthUserDeleteRequest", .string(1, "name"))
    static let userChangePasswordRequest = MessageSchema("etcdserverpb.AuthUserChangePasswordRequest", [
        .string(1, "name"), .string(2, "password"), .string(3, "hashedPassword"),
    ])
    static let userGrantRoleRequest = MessageSchema("etcdserverpb.AuthUserGrantRoleRequest", [.string(1, "user"), .string(2, "role")])
    static let userRevokeRoleRequest = MessageSchema("etcdserverpb.AuthUserRevokeRoleRequest", [.string(1, "name"), .string(2, "role")])
    static let roleAddRequest = one("AuthRoleAddRequest", .string(1, "name"))
    static let roleGetRequest = one("AuthRoleGetRequest", .string(1, "role"))
    static let roleGetResponse = MessageSchema("etcdserverpb.AuthRoleGetResponse", [.message(1, "header", header), .message(2, "perm", permission, repeated: true)])
    static let roleListResponse = MessageSchema("etcdserverpb.AuthRoleListResponse", [.message(1, "header", header), .string(2, "roles", repeated: true)])
    static let roleDeleteRequest = one("AuthRoleDeleteRequest", .string(1, "role"))
    static let roleGrantPermissionRequest = MessageSchema("etcdserverpb.AuthRoleGrantPermissionRequest", [.string(1, "name"), .message(2, "perm", permission)])
    static let roleRevokePermissionRequest = MessageSchema("etcdserverpb.AuthRoleRevokePermissionRequest", [
        .string(1, "role"), .bytes(2, "key"), .bytes(3, "range_end"),
    ])

    // MARK: Lock and Election

    static let lockRequest = MessageSchema("v3lockpb.LockRequest", [.bytes(1, "name"), .int64(2, "lease")])
    static let lockResponse = MessageSchema("v3lockpb.LockResponse", [.message(1, "header", header), .bytes(2, "key")])
    static let unlockRequest = MessageSchema("v3lockpb.UnlockRequest", [.bytes(1, "key")])
    static let leaderKey = MessageSchema("v3electionpb.LeaderKey", [.bytes(1, "name"), .bytes(2, "key"), .int64(3, "rev"), .int64(4, "lease")])
    static let campaignRequest = MessageSchema("v3electionpb.CampaignRequest", [.bytes(1, "name"), .int64(2, "lease"), .bytes(3, "value")])
    static let campaignResponse = MessageSchema("v3electionpb.CampaignResponse", [.message(1, "header", header), .message(2, "leader", leaderKey)])
    static let proclaimRequest = MessageSchema("v3electionpb.ProclaimRequest", [.message(1, "leader", leaderKey), .bytes(2, "value")])
    static let leaderRequest = MessageSchema("v3electionpb.LeaderRequest", [.bytes(1, "name")])
    static let leaderResponse = MessageSchema("v3electionpb.LeaderResponse", [.message(1, "header", header), .message(2, "kv", keyValue)])
    static let resignRequest = MessageSchema("v3electionpb.ResignRequest", [.message(1, "leader", leaderKey)])
}
