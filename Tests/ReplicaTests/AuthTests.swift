import Auth
import Base
import Raft
import Store
import Testing

@testable import Replica

private let second = TimeSpan.seconds(1)

/// A cluster with users: root; alice, who may read and write what begins with "a"; bob, who may read everything and write nothing.
private final class AuthBench {
    let cluster: SimulatedMembers
    private(set) var credentials: [UserName: Credential] = [:]

    init(_ count: Int, seed: UInt64, configure: (inout ReplicaOptions) -> Void = { _ in }) throws {
        cluster = SimulatedMembers(count: count, seed: seed, configure: configure)
        let cluster = cluster
        let isElected = cluster.run(for: .seconds(10)) { cluster.leader != nil }
        try #require(isElected, "no leader, seed \(seed)")
    }

    func wait(_ limit: TimeSpan = .seconds(20), for what: String, until condition: () -> Bool) throws {
        let holds = cluster.run(for: limit, until: condition)
        try #require(holds, "waited for \(what)")
    }

    var leader: SimulatedMembers.Host { cluster.leader! }
    var followers: [SimulatedMembers.Host] { cluster.members.filter { $0.id != leader.id && $0.replica != nil } }

    func credential(_ user: UserName?) -> Credential { user.flatMap { credentials[$0] } ?? .none }

    /// The answer to one request; a missing one is a failure of the test.
    func answer(_ token: RequestToken, _ member: SimulatedMembers.Host) throws -> Answer {
        try wait(for: "an answer") { member.answers[token] != nil || member.grants[token] != nil }
        return try #require(member.answers[token])
    }
    func ask(_ request: Request, as user: UserName? = nil, of member: SimulatedMembers.Host? = nil) throws -> Answer {
        let member = member ?? leader
        return try answer(cluster.ask(member.id, request, from: credential(user)), member)
    }
    func change(_ kind: Command.Kind, _ first: String = "", _ second: String = "", _ third: String = "", as user: UserName? = nil,
                of member: SimulatedMembers.Host? = nil) throws -> ServiceError? {
        let body = NameFields(Array(first.utf8), Array(second.utf8), Array(third.utf8)).encoded()
        return try ask(.propose(kind, body: body, cost: 0), as: user, of: member).error
    }
    func addUser(_ user: UserName, as caller: UserName? = nil) throws -> ServiceError? {
        try ask(.propose(.userAdd, body: UserAddition(name: user, passwordHash: Array("hash of \(user)".utf8)).encoded(), cost: 0), as: caller).error
    }
    func permit(_ role: RoleName, _ kind: Permission.Kind, _ key: String, _ end: String, as caller: UserName? = nil) throws -> ServiceError? {
        let grant = PermissionGrant(role: role, permission: Permission(kind, key: Array(key.utf8), rangeEnd: Array(end.utf8)))
        return try ask(.propose(.roleGrantPermission, body: grant.encoded(), cost: 0), as: caller).error
    }

    /// As the edge does it, without the hashing.
    func login(_ user: UserName, of member: SimulatedMembers.Host? = nil) throws {
        let member = member ?? leader
        let login = Login(user: user, tokenPrefix: Array("of\(user)\(cluster.now.nanoseconds)".utf8), checkedRevision: member.replica!.auth.revision)
        let answer = try ask(.propose(.authenticate, body: login.encoded(), cost: 0), of: member)
        guard case .encoded(let bytes) = answer else { throw answer.error ?? .internalFault }
        var token: [UInt8] = []
        try bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            while let (field, type) = try reader.readTag() { if field == 2 { token = try reader.readCounted() } else { try reader.skip(type) } }
        }
        #expect(!token.isEmpty)
        credentials[user] = .token(token)
    }

    func populate() throws {
        for user in ["root", "alice", "bob"] as [UserName] { #expect(try addUser(user) == nil) }
        for role in ["as", "reader"] { #expect(try change(.roleAdd, role) == nil) }
        #expect(try change(.userGrantRole, "root", "root") == nil)
        #expect(try change(.userGrantRole, "alice", "as") == nil)
        #expect(try change(.userGrantRole, "bob", "reader") == nil)
        #expect(try permit("as", .readWrite, "a", "b") == nil)
        #expect(try permit("reader", .read, "\0", "\0") == nil)
        #expect(try change(.authEnable) == nil)
        for user in ["root", "alice", "bob"] as [UserName] { try login(user) }
    }

    func put(_ key: String, as user: UserName?, lease: LeaseID = .none, previous: Bool = false, of member: SimulatedMembers.Host? = nil) throws -> ServiceError? {
        try write(.put, as: user, of: member) { PutRequest(key: Array(key.utf8), value: [1], lease: lease, prevKV: previous).encode(into: &$0) }
    }
    func delete(_ key: String, _ end: String = "", as user: UserName?, previous: Bool = false) throws -> ServiceError? {
        try write(.deleteRange, as: user) { DeleteRangeRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8), prevKV: previous).encode(into: &$0) }
    }
    func txn(_ request: TxnRequest, as user: UserName?) throws -> ServiceError? { try write(.txn, as: user) { request.encode(into: &$0) } }
    func write(_ kind: Command.Kind, as user: UserName?, of member: SimulatedMembers.Host? = nil, _ body: (inout ByteWriter) -> Void) throws -> ServiceError? {
        var writer = ByteWriter()
        body(&writer)
        return try ask(.propose(kind, body: writer.bytes, cost: 0), as: user, of: member).error
    }

    /// What the caller of a read gets, judged as the edge judges it.
    func read(_ key: String, _ end: String = "", as user: UserName?, local: Bool = false, of member: SimulatedMembers.Host? = nil) throws -> ServiceError? {
        let member = member ?? leader
        let token = cluster.ask(member.id, local ? .localRead : .read, from: credential(user))
        try wait(for: "an answer") { member.answers[token] != nil || member.grants[token] != nil }
        guard let grant = member.grants[token] else { return member.answers[token]!.error }
        do throws(ServiceError) {
            try grant.auth.requirePermission(for: RangeRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8)), by: grant.callers[token])
            return nil
        } catch { return error }
    }

    /// The auth tables as the backend has them, once nothing waits.
    func tables(of member: SimulatedMembers.Host) throws -> [String] {
        try wait(for: "everything applied and written") { member.replica!.applied.index == leader.replica!.applied.index && member.replica!.finishedWriting }
        let reader = try member.backend.makeReader()
        var lines: [String] = []
        for table in [Table.auth, .authUsers, .authRoles] {
            try reader.scan(table, from: []) { key, value in
                lines.append("\(table.name) \(String(decoding: key, as: UTF8.self)) \([UInt8](value))")
                return true
            }
        }
        return lines
    }
}

extension ServiceError { fileprivate static let internalFault = ServiceError(.internal, "no error") }
extension Replica { fileprivate var finishedWriting: Bool { !isCommittingBackend && applied.index == written && smallChanges.isEmpty } }

private func op(put key: String, lease: LeaseID = .none, previous: Bool = false) -> RequestOp { .put(PutRequest(key: Array(key.utf8), value: [2], lease: lease, prevKV: previous)) }
private func op(read key: String, _ end: String = "") -> RequestOp { .range(RangeRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8))) }
private func op(delete key: String, previous: Bool = false) -> RequestOp { .deleteRange(DeleteRangeRequest(key: Array(key.utf8), prevKV: previous)) }
private func compare(_ key: String, _ end: String = "") -> Compare { Compare(key: Array(key.utf8), rangeEnd: Array(end.utf8), target: .version, result: .equal, operand: .version(0)) }

@Suite struct ReplicaAuthTests {
    @Test func everybodyMayDoWhatTheirRolesSayAndNobodyElseAnything() throws {
        let bench = try AuthBench(3, seed: 1)
        #expect(try bench.put("before", as: nil) == nil)
        try bench.populate()
        #expect(try bench.put("a/1", as: nil) == .userEmpty)
        #expect(try bench.put("a/1", as: "alice") == nil && bench.put("b", as: "alice") == .permissionDenied)
        #expect(try bench.put("a/1", as: "bob") == .permissionDenied && bench.put("b", as: "root") == nil)
        #expect(try bench.put("a/1", as: "alice", previous: true) == nil)
        #expect(try bench.delete("a/1", as: "alice", previous: true) == nil && bench.delete("a", "c", as: "alice") == .permissionDenied)
        #expect(try bench.read("b", as: "bob") == nil && bench.read("b", as: "alice") == .permissionDenied && bench.read("b", as: nil) == .userEmpty)
        #expect(try bench.read("b", as: "bob", local: true) == nil && bench.read("b", as: "alice", local: true) == .permissionDenied)
        #expect(try bench.write(.compaction, as: "bob") { CompactionRequest(revision: Revision(2)).encode(into: &$0) } == .permissionDenied)
        #expect(try bench.write(.compaction, as: "root") { CompactionRequest(revision: Revision(2)).encode(into: &$0) } == nil)
        #expect(try bench.addUser("carl", as: "bob") == .permissionDenied && bench.addUser("carl") == .userEmpty && bench.addUser("carl", as: "root") == nil)
        #expect(try bench.change(.authDisable, as: "bob") == .permissionDenied)
        #expect(try bench.change(.authDisable, as: "root") == nil && bench.put("b", as: nil) == nil)
        #expect(try bench.put("b", as: "bob") == nil, "a token is not even looked at")
    }

    @Test func aTransactionNeedsLeaveForEveryBranchHoweverDeep() throws {
        let bench = try AuthBench(1, seed: 2)
        try bench.populate()
        let allowed: [RequestOp] = [op(put: "a/1", previous: true), op(read: "a/", "a0"), op(delete: "a/2", previous: true)]
        let forbidden: [RequestOp] = [op(put: "b"), op(read: "b"), op(read: "a", "b\0"), op(delete: "b")]
        #expect(try bench.txn(TxnRequest(compare: [compare("a/9")], success: allowed), as: "alice") == nil)
        #expect(try bench.txn(TxnRequest(compare: [compare("b")], success: allowed), as: "alice") == .permissionDenied)
        for op in forbidden {
            // In the branch that is not taken, and below one that is not taken.
            #expect(try bench.txn(TxnRequest(success: allowed, failure: [op]), as: "alice") == .permissionDenied)
            let inner = TxnRequest(compare: [compare("a/9")], success: [.txn(TxnRequest(success: [.txn(TxnRequest(failure: [op]))]))])
            #expect(try bench.txn(TxnRequest(success: [.txn(inner)], failure: allowed), as: "alice") == .permissionDenied)
        }
        #expect(try bench.txn(TxnRequest(success: [.txn(TxnRequest(compare: [compare("b")], success: [op(put: "a/1")]))]), as: "alice") == .permissionDenied)
        #expect(try bench.txn(TxnRequest(success: [op(put: "a/1")]), as: nil) == .userEmpty)
        #expect(try bench.txn(TxnRequest(success: forbidden.dropLast(1) + [op(put: "c")]), as: "root") == nil)
    }

    @Test func leasesBelongToThoseWhoMayWriteTheirKeys() throws {
        let bench = try AuthBench(3, seed: 3)
        try bench.populate()
        let lease = LeaseID(77)
        #expect(try bench.ask(.leaseGrant(lease: lease, ttlSeconds: 600)).error == .userEmpty)
        #expect(try bench.ask(.leaseGrant(lease: lease, ttlSeconds: 600), as: "alice").error == nil)
        #expect(try bench.put("a/1", as: "alice", lease: lease) == nil && bench.put("a/2", as: "bob", lease: lease) == .permissionDenied)
        #expect(try bench.put("z", as: "root", lease: lease) == nil)
        // A key that alice may not write hangs on it now: she may not end it, prolong it, or hang another one on it.
        #expect(try bench.put("a/2", as: "alice", lease: lease) == .permissionDenied)
        #expect(try bench.txn(TxnRequest(success: [op(put: "a/2", lease: lease)]), as: "alice") == .permissionDenied)
        var revoke = ByteWriter()
        revoke.writeField(1, lease.rawValue)
        #expect(try bench.ask(.propose(.leaseRevoke, body: revoke.bytes, cost: 0), as: "alice").error == .permissionDenied)
        for member in bench.cluster.members {
            #expect(try bench.ask(.leaseKeepAlive(lease), as: "alice", of: member).error == .permissionDenied)
            #expect(try bench.ask(.leaseKeepAlive(lease), as: "root", of: member).error == nil)
            #expect(try bench.ask(.leaseKeepAlive(lease), of: member).error == .userEmpty)
            #expect(try bench.ask(.leaseTimeToLive(lease, wantsKeys: true), as: "alice", of: member).error == .permissionDenied)
            #expect(try bench.ask(.leaseTimeToLive(lease, wantsKeys: true), as: "bob", of: member).error == nil, "bob may read all its keys")
            #expect(try bench.ask(.leaseTimeToLive(lease, wantsKeys: false), as: "alice", of: member).error == nil)
            #expect(try bench.ask(.leaseTimeToLive(lease, wantsKeys: false), of: member).error == .userEmpty)
            #expect(try bench.ask(.leases, as: "alice", of: member).error == .permissionDenied)
            #expect(try bench.ask(.leases, as: "bob", of: member).error == nil)
        }
        #expect(try bench.ask(.propose(.leaseRevoke, body: revoke.bytes, cost: 0), as: "root").error == nil)
        #expect(try bench.ask(.leases, as: "alice").error == nil, "no key hangs on any")
        // The cluster's own revocations need nobody's leave.
        #expect(try bench.ask(.leaseGrant(lease: LeaseID(78), ttlSeconds: 2), as: "alice").error == nil)
        #expect(bench.cluster.run(for: .seconds(20)) { !bench.leader.replica!.leases.contains(LeaseID(78)) })
    }

    @Test func membersStatusAndAlarmsAreForTheKnownAndMaintenanceForRoot() throws {
        let bench = try AuthBench(3, seed: 4)
        try bench.populate()
        for request in [Request.status, .members(linearizable: true), .members(linearizable: false), .permission(.user), .alarm(.get, member: .none, kind: 0)] {
            #expect(try bench.ask(request).error == .userEmpty)
            #expect(try bench.ask(request, as: "alice").error == nil)
        }
        for request in [Request.permission(.root), .moveLeader(to: bench.leader.id), .alarm(.activate, member: bench.leader.id, kind: Alarm.noSpace)] {
            #expect(try bench.ask(request).error == .userEmpty)
            #expect(try bench.ask(request, as: "bob").error == .permissionDenied)
        }
        #expect(try bench.ask(.moveLeader(to: bench.leader.id), as: "root").error == nil)
        // A member raises its alarms itself.
        let own = bench.leader
        own.replica!.raiseNoSpace(at: bench.cluster.now)
        #expect(bench.cluster.run(for: .seconds(5)) { bench.followers.allSatisfy { $0.replica!.hasAlarm(Alarm.noSpace) } })
    }

    @Test func nobodySlipsInWhatOnlyMembersSay() throws {
        let bench = try AuthBench(1, seed: 5)
        try bench.populate()
        let expiry = LeaseExpiry(lease: LeaseID(1), term: bench.leader.replica!.term).encoded()
        for user in [nil, "root"] as [UserName?] { #expect(try bench.ask(.propose(.leaseExpire, body: expiry, cost: 0), as: user).error == .permissionDenied) }
    }

    @Test func aTokenIsGoodOnEveryMemberAtOnce() throws {
        for seed in UInt64(10)..<20 {
            let bench = try AuthBench(3, seed: seed)
            try bench.populate()
            try bench.login("alice", of: bench.leader)
            // The followers may not have applied the login: whatever they are asked waits for it.
            for follower in bench.followers {
                let tokens = [bench.cluster.put(follower.id, "a/\(follower.id)", "v", from: bench.credential("alice")),
                              bench.cluster.ask(follower.id, .members(linearizable: false), from: bench.credential("alice"))]
                let read = bench.cluster.ask(follower.id, .localRead, from: bench.credential("alice"))
                for token in tokens { #expect(try bench.answer(token, follower).error == nil, "seed \(seed)") }
                #expect(bench.cluster.run(for: second) { follower.grants[read] != nil }, "seed \(seed)")
                #expect(follower.grants[read]?.callers[read]?.user == "alice")
            }
        }
    }

    @Test func tokensThatAreNoneAreRefusedWhateverTheyLookLike() throws {
        let bench = try AuthBench(3, seed: 21)
        try bench.populate()
        let follower = bench.followers[0]
        let bad: [Credential] = [.invalid] + ["", "x", "x.1", "x.9223372036854775807", "x.18446744073709551616", "a.b.c", "\u{0}.\u{0}"].map { .token(Array($0.utf8)) }
        for credential in bad {
            for member in [bench.leader, follower] {
                #expect(try bench.answer(bench.cluster.put(member.id, "a/1", "v", from: credential), member).error == .invalidAuthToken, "\(credential)")
                for read in [Request.read, .localRead, .status] {
                    #expect(try bench.answer(bench.cluster.ask(member.id, read, from: credential), member).error == .invalidAuthToken, "\(credential)")
                }
            }
        }
        #expect(try bench.put("a/1", as: "alice") == nil)
        #expect(bench.cluster.members.allSatisfy { $0.replica!.credentials.isEmpty }, "nothing is kept of reads that were answered")
    }

    @Test func tokensEndWithTheirTimeTheirUserAndTheirPassword() throws {
        let bench = try AuthBench(3, seed: 22) { $0.authTokenTimeToLive = .seconds(60) }
        try bench.populate()
        let old = bench.credential("bob")
        #expect(try bench.change(.userChangePassword, "bob", "", "new hash", as: "root") == nil)
        #expect(try bench.read("k", as: "bob") == .invalidAuthToken)
        try bench.login("bob")
        #expect(bench.credential("bob") != old)
        #expect(try bench.read("k", as: "bob") == nil)
        #expect(try bench.change(.userDelete, "bob", as: "root") == nil)
        #expect(try bench.read("k", as: "bob") == .invalidAuthToken)
        for _ in 0..<4 {
            bench.cluster.run(for: .seconds(40))
            #expect(try bench.put("a/1", as: "alice") == nil, "it lives while it is used")
        }
        bench.cluster.run(for: .seconds(61))
        #expect(try bench.put("a/1", as: "alice") == .invalidAuthToken)
    }

    @Test func aLoginWhosePasswordWasComparedWithAnOldStateIsRefused() throws {
        let bench = try AuthBench(1, seed: 23)
        try bench.populate()
        let login = Login(user: "alice", tokenPrefix: Array("p".utf8), checkedRevision: bench.leader.replica!.auth.revision)
        #expect(try bench.change(.userChangePassword, "alice", "", "other", as: "root") == nil)
        #expect(try bench.ask(.propose(.authenticate, body: login.encoded(), cost: 0)).error == .authOldRevision)
        #expect(bench.leader.replica!.tokens.count == 2)
    }

    @Test func aWriteOvertakenByAnAuthChangeIsJudgedAnew() throws {
        for seed in UInt64(30)..<45 {
            let bench = try AuthBench(3, seed: seed)
            try bench.populate()
            let follower = bench.followers[0]
            try bench.wait(for: "the follower") { follower.replica!.applied.index == bench.leader.replica!.applied.index }
            // All in flight at once: the revision moves under the puts.
            var puts: [RequestToken] = []
            for n in 0..<10 {
                let name = NameFields(Array("role\(n)".utf8)).encoded()
                bench.cluster.ask(bench.leader.id, .propose(.roleAdd, body: name, cost: 0), from: bench.credential("root"))
                puts.append(bench.cluster.put(follower.id, "a/\(n)", "v", from: bench.credential("alice")))
                puts.append(bench.cluster.put(follower.id, "b/\(n)", "v", from: bench.credential("alice")))
            }
            let claims = Credential.claims(user: "alice", revision: bench.leader.replica!.auth.revision)
            for (n, put) in puts.enumerated() {
                #expect(try bench.answer(put, follower).error == (n % 2 == 0 ? nil : .permissionDenied), "seed \(seed) put \(n)")
            }
            // A signed token names its revision itself: its owner has to log in again.
            let late = bench.cluster.put(follower.id, "a/x", "v", from: claims)
            #expect(try bench.answer(late, follower).error == .authOldRevision, "seed \(seed)")
            let now = bench.cluster.put(follower.id, "a/x", "v", from: .claims(user: "alice", revision: follower.replica!.auth.revision))
            #expect(try bench.answer(now, follower).error == nil)
            #expect(try bench.answer(bench.cluster.put(follower.id, "a/y", "v", from: .commonName("alice")), follower).error == nil)
            #expect(try bench.answer(bench.cluster.put(follower.id, "b/y", "v", from: .commonName("alice")), follower).error == .permissionDenied)
        }
    }

    @Test func watchersAreRefusedByNameAndInOrder() throws {
        let bench = try AuthBench(3, seed: 50)
        try bench.populate()
        try bench.login("alice", of: bench.leader)
        let follower = bench.followers[0]
        func create(_ key: String, _ end: String = "", on stream: WatchStreamID) {
            bench.cluster.watch(follower.id, stream, .request(.create(WatchCreateRequest(key: Array(key.utf8), rangeEnd: Array(end.utf8)))))
        }
        let streams: [(WatchStreamID, Credential)] = [(WatchStreamID(1), bench.credential("alice")), (WatchStreamID(2), .none), (WatchStreamID(3), .token(Array("x.1".utf8))),
                                                      (WatchStreamID(4), .claims(user: "alice", revision: 1)), (WatchStreamID(5), .token(Array("x.99999999".utf8)))]
        for (stream, credential) in streams {
            bench.cluster.watch(follower.id, stream, .open(requiresLeader: false, from: credential))
            create("a/", "a0", on: stream)
            create("b", on: stream)
            create("a/1", on: stream)
            create("", "\0", on: stream)
        }
        try bench.wait(for: "all answers") { follower.watch.count == 20 }
        func reasons(_ stream: UInt64) -> [String] { follower.watch.filter { $0.stream == WatchStreamID(stream) }.map(\.response.cancelReason) }
        let denied = WatchRefusal.permissionDenied.rawValue
        #expect(reasons(1) == ["", denied, "", denied])
        #expect(reasons(2) == [String](repeating: WatchRefusal.userEmpty.rawValue, count: 4))
        #expect(reasons(3) == [String](repeating: WatchRefusal.invalidAuthToken.rawValue, count: 4))
        #expect(reasons(4) == [String](repeating: WatchRefusal.authOldRevision.rawValue, count: 4))
        #expect(reasons(5) == [String](repeating: WatchRefusal.invalidAuthToken.rawValue, count: 4), "such an entry never comes")
        for (stream, _) in streams { bench.cluster.watch(follower.id, stream, .close) }
        bench.cluster.run(for: .milliseconds(10))
        #expect(follower.replica!.watchCallers.isEmpty)
    }

    @Test func restartsAndSnapshotsLeaveTheSameStateEverywhere() throws {
        for seed in UInt64(60)..<66 {
            let bench = try AuthBench(3, seed: seed) { options in
                options.snapshotCount = 20
                options.raft.keptEntries = 5
            }
            try bench.populate()
            let cluster = bench.cluster
            let absent = bench.followers[0]
            cluster.crash(absent.id)
            // Far enough that the log does not reach back to it.
            for n in 0..<40 {
                #expect(try bench.addUser(UserName("user\(n)"), as: "root") == nil)
                if n % 3 == 0 { #expect(try bench.change(.userGrantRole, "user\(n)", n % 2 == 0 ? "as" : "reader", as: "root") == nil) }
                if n % 5 == 4 { #expect(try bench.change(.userDelete, "user\(n - 1)", as: "root") == nil) }
                if n % 7 == 0 { cluster.run(for: second) }
            }
            cluster.start(absent.id)
            try bench.wait(for: "the member that was absent, seed \(seed)") { absent.replica!.applied.index == bench.leader.replica!.applied.index }
            #expect(absent.notes.contains { if case .snapshotInstalled = $0 { true } else { false } }, "seed \(seed)")
            #expect(absent.replica!.auth.isEnabled && absent.replica!.auth.revision == bench.leader.replica!.auth.revision)
            #expect(try bench.read("a/1", as: "alice", of: absent) == .invalidAuthToken, "what became of its user meanwhile is not known there")
            try bench.login("alice", of: absent)
            #expect(try bench.put("a/1", as: "alice", of: absent) == nil && bench.put("b", as: "alice", of: absent) == .permissionDenied)
            // A storm of crashes in the middle of changes.
            for n in 0..<12 {
                cluster.ask(bench.leader.id, .propose(.userAdd, body: UserAddition(name: UserName("storm\(n)"), passwordHash: [1]).encoded(), cost: 0), from: bench.credential("root"))
                cluster.run(for: .milliseconds(Int64.random(in: 0...20, using: &cluster.generator)))
                let victim = cluster.members[Int.random(in: 0..<3, using: &cluster.generator)]
                cluster.crash(victim.id, isNoticed: true)
                cluster.run(for: .milliseconds(Int64.random(in: 0...300, using: &cluster.generator)))
                cluster.start(victim.id)
                try bench.wait(for: "a leader, seed \(seed)") { cluster.leader != nil }
                // Tokens do not outlive their member's memory; on others they may.
                if try bench.read("k", as: "root") != nil { try bench.login("root") }
            }
            try bench.wait(for: "all members, seed \(seed)") {
                guard let leader = cluster.leader else { return false }
                return cluster.members.allSatisfy { $0.replica!.applied.index == leader.replica!.applied.index }
            }
            let expected = try bench.tables(of: bench.leader)
            for member in cluster.members {
                #expect(try bench.tables(of: member) == expected, "seed \(seed), member \(member.id)")
                #expect(member.replica!.auth.userNames == bench.leader.replica!.auth.userNames)
                #expect(member.replica!.stateHash == bench.leader.replica!.stateHash, "seed \(seed), member \(member.id)")
            }
            #expect(expected.count > 40)
        }
    }

    @Test func commandsCarryTheirOriginAndOldOnesHaveNone() throws {
        let body: [UInt8] = [1, 2, 3]
        for origin in [Command.Origin.nobody, .member, .user(Caller(user: "alice", revision: 7)), .user(Caller(user: "", revision: .max))] {
            let encoded = Command(kind: .txn, proposer: MemberID(9), number: 11, origin: origin, body: body).encoded()
            let decoded = try Command.decode(encoded)
            #expect(decoded.origin == origin && decoded.body == body && decoded.kind == .txn && decoded.proposer == MemberID(9) && decoded.number == 11)
            for length in 0..<(encoded.count - body.count) { #expect(throws: DecodingFault.self) { try Command.decode(Array(encoded.prefix(length))) } }
        }
        #expect(Command(kind: .put, proposer: MemberID(1), number: 2, body: body).encoded() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3],
                "logs of earlier versions read as before")
    }
}

/// The rule for whole requests, against a walk that lists every single need first and then asks for each.
@Suite struct RequestPermissionTests {
    private enum Need: Hashable { case read(KeyRange), write(KeyRange) }

    private func needs(_ op: RequestOp, _ leases: [LeaseID: [Key]]) -> [Need] {
        switch op {
        case .none: []
        case .range(let request): [.read(request.range)]
        case .put(let request):
            [.write(.single(Key(request.key)))] + (request.prevKV ? [.read(.single(Key(request.key)))] : []) + (leases[request.lease] ?? []).map { .write(.single($0)) }
        case .deleteRange(let request): [.write(request.range)] + (request.prevKV ? [.read(request.range)] : [])
        case .txn(let request): request.compare.map { .read($0.range) } + (request.success + request.failure).flatMap { needs($0, leases) }
        }
    }

    @Test(arguments: [1, 2, 3, 4]) func permittedIsWhatHasEveryNeedMet(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        func key() -> [UInt8] { (0..<Int.random(in: 1...2, using: &generator)).map { _ in UInt8.random(in: 0x61...0x64, using: &generator) } }
        func end() -> [UInt8] { Int.random(in: 0..<2, using: &generator) == 0 ? [] : Int.random(in: 0..<6, using: &generator) == 0 ? [0] : [UInt8.random(in: 0x61...0x65, using: &generator)] }
        let leases: [LeaseID: [Key]] = [LeaseID(1): [Key("a"), Key("b")], LeaseID(2): [Key("c")], LeaseID(3): []]
        func op(_ depth: Int) -> RequestOp {
            switch Int.random(in: 0..<(depth < 3 ? 5 : 4), using: &generator) {
            case 0: .range(RangeRequest(key: key(), rangeEnd: end()))
            case 1, 2: .put(PutRequest(key: key(), lease: LeaseID(Int64.random(in: 0...4, using: &generator)), prevKV: Bool.random(using: &generator)))
            case 3: .deleteRange(DeleteRangeRequest(key: key(), rangeEnd: end(), prevKV: Bool.random(using: &generator)))
            default: .txn(txn(depth + 1))
            }
        }
        func txn(_ depth: Int) -> TxnRequest {
            TxnRequest(compare: (0..<Int.random(in: 0...1, using: &generator)).map { _ in Compare(key: key(), rangeEnd: end()) },
                       success: (0..<Int.random(in: 0...2, using: &generator)).map { _ in op(depth) },
                       failure: (0..<Int.random(in: 0...1, using: &generator)).map { _ in op(depth) })
        }
        var outcomes: [Bool: Int] = [:]
        for round in 0..<400 {
            var auth = AuthStore()
            var writes: [AuthWrite] = []
            for user in ["root", "u"] as [UserName] { try auth.addUser(UserAddition(name: user), into: &writes) }
            try auth.grantRole(.root, to: .root, into: &writes)
            try auth.addRole("r", into: &writes)
            try auth.grantRole("r", to: "u", into: &writes)
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let kind = [Permission.Kind.read, .write, .readWrite, .readWrite].randomElement(using: &generator)!
                try? auth.grantPermission(Permission(kind, key: key(), rangeEnd: end()), to: "r", into: &writes)
            }
            try auth.enable(into: &writes)
            let caller = Caller(user: "u", revision: auth.revision)
            for _ in 0..<20 {
                let request = op(0)
                func isMet(_ need: Need) -> Bool {
                    do throws(ServiceError) {
                        switch need {
                        case .read(let range): try auth.requireRead(range, by: caller)
                        case .write(let range): try auth.requireWrite(range, by: caller)
                        }
                        return true
                    } catch { return false }
                }
                func isPermitted(_ caller: Caller?) -> Bool {
                    do throws(ServiceError) {
                        try auth.requirePermission(for: TxnRequest(success: [request]), by: caller, keysOfLease: { leases[$0] ?? [] })
                        return true
                    } catch { return false }
                }
                let expected = needs(request, leases).allSatisfy(isMet)
                #expect(isPermitted(caller) == expected, "seed \(seed), round \(round): \(request)")
                #expect(isPermitted(Caller(user: "root", revision: auth.revision)))
                #expect(!isPermitted(nil) || needs(request, leases).isEmpty)
                if !needs(request, leases).isEmpty { outcomes[expected, default: 0] += 1 }
            }
        }
        #expect(outcomes[true, default: 0] > 100 && outcomes[false, default: 0] > 100, "seed \(seed)")
    }
}
