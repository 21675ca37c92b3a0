import Base
import Foundation
import GRPC
import Wire

extension ConformanceCase {
    private static func login(_ name: String, _ password: String) -> PBAuthenticateRequest { made { $0.name = name; $0.password = password } }
    private static func user(_ name: String, _ password: String = "", noPassword: Bool? = nil) -> PBAuthUserAddRequest {
        made {
            $0.name = name
            $0.password = password
            if let noPassword { $0.options.noPassword = noPassword }
        }
    }
    private static func role(_ name: String) -> PBAuthRoleAddRequest { made { $0.name = name } }
    private static func give(_ role: String, _ user: String) -> PBAuthUserGrantRoleRequest { made { $0.user = user; $0.role = role } }
    private static func permit(_ role: String, _ kind: PBPermission.TypeEnum, _ key: String, _ end: String = "") -> PBAuthRoleGrantPermissionRequest {
        made {
            $0.name = role
            $0.perm.permType = kind
            $0.perm.key = Data(key.utf8)
            $0.perm.rangeEnd = Data(end.utf8)
        }
    }

    /// A call under a name.
    private static func as_<Request: ProtobufMessage>(_ who: String, _ name: String, _ method: MethodID, _ request: Request, deviation: String? = nil) -> ConformanceCase {
        .steps("\(who): \(name)", deviation: deviation) { await $0.answer(method, request, metadata: [MetadataField("token", try await token(who, $0))]) }
    }

    private static func token(_ who: String, _ peer: Conversation) async throws -> String {
        try await peer.value(.authenticate, login(who, "pw"), PBAuthenticateResponse.self).token
    }

    private static let code = "with its documented status code"

    static let accounts: [ConformanceCase] = [
        .call("is it on", .authStatus, PBAuthStatusRequest()), .call("on without root", .authEnable, PBAuthEnableRequest()), .call("off while it is", .authDisable, PBAuthDisableRequest()), .call("a login while it is off", .authenticate, login("root", "pw")), .call("an empty login", .authenticate, PBAuthenticateRequest()),
        .call("an empty user", .userAdd, PBAuthUserAddRequest()), .call("an empty user without password", .userAdd, user("", noPassword: true)), .call("a user with an empty password", .userAdd, user("empty")), .call("root", .userAdd, user("root", "pw")), .call("root again", .userAdd, user("root", "x")),
        .call("on while root has no role", .authEnable, PBAuthEnableRequest()), .call("alice", .userAdd, user("alice", "pw")), .call("one without password that gives one", .userAdd, user("cert", "pw", noPassword: true)), .call("one with options of nothing", .userAdd, user("bob", "pw", noPassword: false)),
        .call("a name as long as may be", .userAdd, user(String(repeating: "n", count: 511), "pw")), .call("the end of it", .userDelete, made(PBAuthUserDeleteRequest.self) { $0.name = String(repeating: "n", count: 511) }),
        .call("an empty role", .roleAdd, PBAuthRoleAddRequest()), .call("the role root", .roleAdd, role("root")), .call("a role", .roleAdd, role("r")), .call("again", .roleAdd, role("r")), .call("another", .roleAdd, role("q")), .call("the roles", .roleList, PBAuthRoleListRequest()), .call("the users", .userList, PBAuthUserListRequest()),
        .call("get an empty user", .userGet, PBAuthUserGetRequest()), .call("get root", .userGet, made(PBAuthUserGetRequest.self) { $0.name = "root" }), .call("get an empty role", .roleGet, PBAuthRoleGetRequest()), .call("get the role root", .roleGet, made(PBAuthRoleGetRequest.self) { $0.role = "root" }), .call("delete an empty user", .userDelete, PBAuthUserDeleteRequest()),
        .call("delete an empty role", .roleDelete, PBAuthRoleDeleteRequest()), .call("an empty change of password", .userChangePassword, PBAuthUserChangePasswordRequest()), .call("an empty grant", .userGrantRole, PBAuthUserGrantRoleRequest()), .call("a grant of nothing", .userGrantRole, give("", "alice")), .call("an empty revocation", .userRevokeRole, PBAuthUserRevokeRoleRequest()),
        .call("revoke a role that is not had", .userRevokeRole, made(PBAuthUserRevokeRoleRequest.self) { $0.name = "alice"; $0.role = "r" }), .call("an empty permission", .roleGrantPermission, PBAuthRoleGrantPermissionRequest()), .call("a permission of nothing", .roleGrantPermission, made(PBAuthRoleGrantPermissionRequest.self) { $0.name = "r" }),
        .call("read", .roleGrantPermission, permit("r", .read, "k")),
        .call("write", .roleGrantPermission, permit("r", .write, "w", "x")), .call("both", .roleGrantPermission, permit("r", .readwrite, "b/", "b0")), .call("the same key, another kind", .roleGrantPermission, permit("r", .readwrite, "k")), .call("the same once more", .roleGrantPermission, permit("r", .readwrite, "k")),
        .call("to a role that is not there", .roleGrantPermission, permit("none", .read, "k")), .call("of an unknown kind", .roleGrantPermission, permit("q", .UNRECOGNIZED(9), "odd")), .call("what the role may", .roleGet, made(PBAuthRoleGetRequest.self) { $0.role = "r" }), .call("what the other may", .roleGet, made(PBAuthRoleGetRequest.self) { $0.role = "q" }),
        .call("an empty revocation of a permission", .roleRevokePermission, PBAuthRoleRevokePermissionRequest()), .call("of another range", .roleRevokePermission, made(PBAuthRoleRevokePermissionRequest.self) { $0.role = "r"; $0.key = Data("b/".utf8) }), .call("of one", .roleRevokePermission, made(PBAuthRoleRevokePermissionRequest.self) { $0.role = "q"; $0.key = Data("odd".utf8) }),
        .call("give it", .userGrantRole, give("r", "alice")), .call("again the same", .userGrantRole, give("r", "alice")), .call("give root", .userGrantRole, give("root", "root")), .call("give bob another", .userGrantRole, give("q", "bob")), .call("the state", .authStatus, PBAuthStatusRequest()), .call("a key", .put, put("k", "0")),
        .call("on", .authEnable, PBAuthEnableRequest()), .call("on again", .authEnable, PBAuthEnableRequest()), .call("a range by nobody", .range, range("k")), .call("a serializable range by nobody", .range, range("k") { $0.serializable = true }), .call("a put by nobody", .put, put("k", "1")), .call("an empty put by nobody", .put, PBPutRequest()),
        .call("the members, for nobody", .memberList, PBMemberListRequest(), deviation: "refused, as later 3.5"), .call("the status, for nobody", .status, PBStatusRequest(), deviation: "refused, as later 3.5"), .call("a checksum for nobody", .hashKV, PBHashKVRequest(), deviation: code),
        .bytes("a token that is none", .range, range("k").encoded(), metadata: [MetadataField("token", "nonsense")]), .bytes("an empty token", .range, range("k").encoded(), metadata: [MetadataField("token", "")], deviation: "an empty token is none"), .bytes("a token of a simple form", .range, range("k").encoded(), metadata: [MetadataField("token", "abcdefghijklmnop.5")]),
        .bytes("a token elsewhere", .range, range("k").encoded(), metadata: [MetadataField("authorization", "nonsense")]), .call("a wrong password", .authenticate, login("alice", "no")), .call("a user that is not there", .authenticate, login("nobody", "pw")), .call("no name", .authenticate, login("", "")),
        .call("a password for one without", .authenticate, login("cert", "")), .call("a login", .authenticate, login("alice", "pw")),
        .steps("a token in the other place") { await $0.answer(.range, range("k"), metadata: [MetadataField("authorization", try await token("alice", $0))]) },
        .steps("a good one behind a bad one") { await $0.answer(.range, range("k"), metadata: [MetadataField("token", "bad"), MetadataField("token", try await token("alice", $0))]) },
        as_("alice", "what she may read", .range, range("k")), as_("alice", "what she may not", .range, range("secret")), as_("alice", "more than she may", .range, range("a", "z")), as_("alice", "an empty range", .range, PBRangeRequest()), as_("alice", "a put", .put, put("k", "1")), as_("alice", "a put elsewhere", .put, put("e", "1")),
        as_("alice", "a put that she may not read", .put, put("w1", "1") { $0.prevKv = true }), as_("alice", "a put without reading", .put, put("w1", "2")), as_("alice", "a deletion", .deleteRange, delete("w", "x")), as_("alice", "a deletion that tells", .deleteRange, delete("w", "x", previous: true)), as_("alice", "a deletion of more", .deleteRange, delete("w", "y")),
        as_("alice", "an empty transaction", .txn, PBTxnRequest()), as_("alice", "a comparison that she may not", .txn, txn([compare("secret", .version, .equal, .version(0))])), as_("alice", "a branch that is not taken", .txn, txn([compare("k", .version, .greater, .version(0))], then: [.set("k", "2")], else: [.set("secret")])),
        as_("alice", "nested, not taken", .txn, txn([compare("k", .version, .greater, .version(0))], then: [.get("k")], else: [.nested(else: [.remove("secret")])]), deviation: "what nested ones may do is looked at, as later 3.5"), as_("alice", "a range of nested", .txn, txn(then: [.nested(then: [.get("b/", "b0")])])), as_("alice", "a grant", .leaseGrant, made(PBLeaseGrantRequest.self) { $0.ttl = 600; $0.id = 5 }),
        as_("alice", "a put under it", .put, put("b/l", "1") { $0.lease = 5 }), as_("alice", "its keys", .leaseTimeToLive, made(PBLeaseTimeToLiveRequest.self) { $0.id = 99; $0.keys = true }), as_("root", "a put under it that alice may not read", .put, put("secret", "1") { $0.lease = 5 }), as_("alice", "a put under that lease", .put, put("b/l", "2") { $0.lease = 5 }),
        as_("alice", "the end of that lease", .leaseRevoke, made(PBLeaseRevokeRequest.self) { $0.id = 5 }), as_("alice", "a compaction of the future", .compact, compact(9_999), deviation: "refused, as 3.5.28 and later"), as_("alice", "the users", .userList, PBAuthUserListRequest()), as_("alice", "herself", .userGet, made(PBAuthUserGetRequest.self) { $0.name = "alice" }),
        as_("alice", "another", .userGet, made(PBAuthUserGetRequest.self) { $0.name = "bob" }), as_("alice", "her role", .roleGet, made(PBAuthRoleGetRequest.self) { $0.role = "r" }), as_("alice", "another role", .roleGet, made(PBAuthRoleGetRequest.self) { $0.role = "q" }), as_("alice", "an alarm", .alarm, made(PBAlarmRequest.self) { $0.action = .deactivate; $0.alarm = .nospace }, deviation: "refused, as later 3.5"),
        as_("alice", "a member", .memberRemove, made(PBMemberRemoveRequest.self) { $0.id = 5 }), as_("alice", "switching it off", .authDisable, PBAuthDisableRequest()), as_("alice", "a defragmentation", .defragment, PBDefragmentRequest(), deviation: code), as_("alice", "a checksum", .hashKV, PBHashKVRequest(), deviation: code), as_("alice", "handing over", .moveLeader, made(PBMoveLeaderRequest.self) { $0.targetID = 5 }, deviation: "refused, as later 3.5"),
        .steps("a watch of what is not hers", deviation: "number -1, as later 3.5") { peer in
            let stream = peer.open(.watch, metadata: [MetadataField("token", try await token("alice", peer))])
            stream.send(watch("secret"))
            let answer = await stream.next()
            stream.cancel()
            return answer
        },
        .steps("a watch of what is") { peer in
            let stream = peer.open(.watch, metadata: [MetadataField("token", try await token("alice", peer))])
            stream.send(watch("b/", "b0"))
            let answer = await stream.next()
            stream.cancel()
            return answer
        },
        as_("bob", "everything", .range, range("\0", "\0")), as_("root", "everything", .range, range("\0", "\0") { $0.countOnly = true }), as_("root", "the role root goes", .roleDelete, made(PBAuthRoleDeleteRequest.self) { $0.role = "root" }), as_("root", "root goes", .userDelete, made(PBAuthUserDeleteRequest.self) { $0.name = "root" }),
        as_("root", "root's role goes", .userRevokeRole, made(PBAuthUserRevokeRoleRequest.self) { $0.name = "root"; $0.role = "root" }), as_("root", "an empty password", .userChangePassword, made(PBAuthUserChangePasswordRequest.self) { $0.name = "bob" }), .call("a login with it", .authenticate, login("bob", "")),
        as_("root", "a password for one without", .userChangePassword, made(PBAuthUserChangePasswordRequest.self) { $0.name = "cert"; $0.password = "pw" }), .call("a login of that one", .authenticate, login("cert", "pw")),
        .steps("a token outlived by its user") { peer in
            let alice = try await token("alice", peer), root = [MetadataField("token", try await token("root", peer))]
            var answers = [await peer.answer(.range, range("k"), metadata: [MetadataField("token", alice)])]
            answers.append(await peer.answer(.userDelete, made(PBAuthUserDeleteRequest.self) { $0.name = "alice" }, metadata: root))
            answers.append(await peer.answer(.range, range("k"), metadata: [MetadataField("token", alice)]))
            return answers.joined(separator: "\n")
        },
        as_("root", "a role goes that users have", .roleDelete, made(PBAuthRoleDeleteRequest.self) { $0.role = "q" }), as_("root", "who had it", .userGet, made(PBAuthUserGetRequest.self) { $0.name = "bob" }), as_("root", "the state with it on", .authStatus, PBAuthStatusRequest()), as_("root", "off", .authDisable, PBAuthDisableRequest()),
        .call("everything is open again", .range, range("k")), .bytes("whatever the token", .range, range("k").encoded(), metadata: [MetadataField("token", "nonsense")], deviation: "not looked at while authentication is off, as later 3.5"), .call("the state at the end", .authStatus, PBAuthStatusRequest()),
        .bytes("a name that is no text", .userAdd, [0x0a, 0x02, 0xff, 0xfe, 0x12, 0x01, 0x70], deviation: "refused: such a name makes lists unreadable"),
        .call("a longer one", .userAdd, user(String(repeating: "n", count: 512), "pw"), deviation: "refused: the store takes no longer ones"),
        .call("the end of that", .userDelete, made(PBAuthUserDeleteRequest.self) { $0.name = String(repeating: "n", count: 512) }, deviation: "it was refused"), .call("a longer role", .roleAdd, role(String(repeating: "r", count: 5_000)), deviation: "refused: the store takes no longer ones"),
        .call("the end of that role", .roleDelete, made(PBAuthRoleDeleteRequest.self) { $0.role = String(repeating: "r", count: 5_000) }, deviation: "it was refused"),
        .call("a permission for the empty key", .roleGrantPermission, permit("r", .read, ""), deviation: "refused, as later 3.5"), .call("of everything from the empty key on", .roleGrantPermission, permit("r", .read, "", "\0"), deviation: "refused, as later 3.5"),
        .call("for a range that ends before it begins", .roleGrantPermission, permit("r", .read, "z", "a"), deviation: "refused, as later 3.5"),
    ]
}
