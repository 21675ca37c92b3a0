import Auth
import Base
import Replica
import Store
import Testing
@testable import Simulation

/// The accounts' own model, and the judge that stands on it.
@Suite struct PermissionCheckerTests {
    /// A log in which people have rights.
    struct World {
        var log = LogOfCommands()
        var checker = PermissionChecker()
        var now: Moment = 0

        @discardableResult
        mutating func apply(_ kind: Command.Kind, _ body: [UInt8], by origin: Command.Origin = .nobody) -> TruthModel.Effect {
            now += 100
            let command = Command(kind: kind, proposer: MemberID(7), number: log.model.appliedIndex + 1, origin: origin, body: body)
            let result = log.model.apply(index: log.model.appliedIndex + 1, term: 1, kind: .command, payload: command.encoded(), at: now)
            checker.follow(log.model, at: now)
            return result.effect
        }
        func user(_ name: String) -> Command.Origin { .user(Caller(user: UserName(name), revision: log.model.accounts.revision)) }
        mutating func administer(_ kind: Command.Kind, _ body: [UInt8]) {
            #expect(apply(kind, body, by: log.model.accounts.isEnabled ? user("root") : .nobody) == .accounts, "\(kind)")
        }
        mutating func grant(_ kind: Permission.Kind, _ key: String, _ end: String, to role: String) {
            administer(.roleGrantPermission, PermissionGrant(role: RoleName(role), permission: Permission(kind, key: bytes(key), rangeEnd: bytes(end))).encoded())
        }
        mutating func put(_ key: String, by name: String) -> TruthModel.Effect {
            let request = PutRequest(key: bytes(key), value: bytes("v\(log.model.appliedIndex)"))
            return apply(.put, encoded(request.encode), by: user(name))
        }

        /// root, and ann, who may do everything in [a, c).
        init() {
            for name in ["root", "ann"] { administer(.userAdd, UserAddition(name: UserName(name), passwordHash: bytes("x")).encoded()) }
            administer(.userGrantRole, NameFields(bytes("root"), bytes("root")).encoded())
            administer(.roleAdd, NameFields(bytes("r")).encoded())
            administer(.userGrantRole, NameFields(bytes("ann"), bytes("r")).encoded())
            grant(.readWrite, "a", "c", to: "r")
            administer(.authEnable, [])
        }

        /// A call that comes behind everything so far, unless it began before; as the checker sees it.
        func check(_ call: Operation.Call, _ outcome: Operation.Outcome, by identity: Identity?, since start: Moment? = nil) -> String? {
            checker.check(Operation(client: 1, member: 1, call: call, start: start ?? now + 10, end: now + 50, outcome: outcome, identity: identity))?.invariant
        }
        func read(_ key: String, _ end: String = "") -> Operation.Call { .range(key: bytes(key), end: bytes(end), revision: 0, isSerializable: false) }
        func shown() -> Operation.Outcome { .done(revision: log.model.revision, found: [], count: 0, succeeded: true) }
        var ann: Identity { Identity(user: bytes("ann"), form: .name) }
        let denied = Operation.Outcome.refused(ServiceError.permissionDenied.message)
    }

    @Test func writesAreJudgedAtTheirEntry() {
        var world = World()
        #expect(world.put("a1", by: "ann") == .put(previous: nil))
        #expect(world.put("x", by: "ann") == .refused(.permissionDenied))
        #expect(world.apply(.put, encoded(PutRequest(key: bytes("a1"), value: bytes("late")).encode), by: .user(Caller(user: "ann", revision: 2))) == .refused(.authOldRevision))
        #expect(world.apply(.put, encoded(PutRequest(key: bytes("a1"), value: bytes("w")).encode)) == .refused(.userEmpty))
        #expect(world.apply(.put, encoded(PutRequest(key: bytes("x"), value: bytes("own")).encode), by: .member) == .put(previous: nil))
        #expect(world.apply(.authDisable, [], by: world.user("ann")) == .refused(.permissionDenied))
    }

    /// Who attaches a key to a lease, or ends one, needs all keys that hang on it; who looks needs what is looked at, in both branches.
    @Test func wholeTreesAndLeasesAreLookedAt() {
        var world = World()
        #expect(world.apply(.leaseGrant, encoded { $0.writeField(1, 10 as Int64); $0.writeField(2, 5 as Int64) }, by: world.user("ann")) == .granted(lease: 5, ttlSeconds: 10))
        #expect(world.apply(.put, encoded(PutRequest(key: bytes("x"), value: bytes("1"), lease: LeaseID(5)).encode), by: world.user("root")) == .put(previous: nil))
        #expect(world.apply(.put, encoded(PutRequest(key: bytes("a"), value: bytes("2"), lease: LeaseID(5)).encode), by: world.user("ann")) == .refused(.permissionDenied))
        #expect(world.apply(.leaseRevoke, encoded { $0.writeField(1, 5 as Int64) }, by: world.user("ann")) == .refused(.permissionDenied))
        let hidden = TxnRequest(success: [.put(PutRequest(key: bytes("a"), value: bytes("3")))], failure: [.txn(TxnRequest(success: [.range(RangeRequest(key: bytes("x")))]))])
        #expect(world.apply(.txn, encoded(hidden.encode), by: world.user("ann")) == .refused(.permissionDenied))
    }

    @Test func whatIsShownMustBePermitted() {
        var world = World()
        _ = world.put("a1", by: "root")
        #expect(world.check(world.read("a", "c"), world.shown(), by: world.ann) == nil)
        #expect(world.check(world.read("a", "d"), world.shown(), by: world.ann) == "permission")
        #expect(world.check(world.read("a"), world.shown(), by: nil) == "permission")
        #expect(world.check(world.read("a", "c"), world.denied, by: world.ann) == "permission")
        #expect(world.check(world.read("a", "d"), world.denied, by: world.ann) == nil)
        #expect(world.check(world.read("a", "c"), .refused(ServiceError.invalidAuthToken.message), by: world.ann) == "permission")
        // Around a change both are right, after it only one.
        let before = world.now
        world.administer(.roleRevokePermission, NameFields(bytes("r"), bytes("a"), bytes("c")).encoded())
        #expect(world.check(world.read("a", "c"), world.shown(), by: world.ann, since: before) == nil)
        #expect(world.check(world.read("a", "c"), world.denied, by: world.ann, since: before) == nil)
        #expect(world.check(world.read("a", "c"), world.shown(), by: world.ann) == "permission")
        // Two neighbours together allow what neither does.
        world.grant(.read, "a", "b", to: "r")
        world.grant(.read, "b", "c", to: "r")
        #expect(world.check(world.read("a", "c"), world.denied, by: world.ann) == "permission")
    }

    @Test func tokensEndWithTheirUsers() {
        var world = World()
        let revision = world.log.model.accounts.revision
        #expect(world.apply(.authenticate, Login(user: "ann", tokenPrefix: bytes("t"), checkedRevision: revision).encoded()) == .accounts)
        let index = world.log.model.appliedIndex
        #expect(world.checker.issued(to: bytes("ann"), index: index, world.log.model) == nil)
        #expect(world.checker.issued(to: bytes("root"), index: index, world.log.model)?.invariant == "accounts")
        let ann = Identity(user: bytes("ann"), form: .token(index: index))
        #expect(world.check(world.read("a"), world.shown(), by: ann) == nil)
        world.administer(.userDelete, NameFields(bytes("ann")).encoded())
        world.administer(.userAdd, UserAddition(name: "ann", passwordHash: bytes("y")).encoded())
        world.administer(.userGrantRole, NameFields(bytes("ann"), bytes("r")).encoded())
        #expect(world.check(world.read("a"), world.shown(), by: ann) == "permission")
        #expect(world.check(world.read("a"), world.shown(), by: world.ann) == nil)
        #expect(world.apply(.authenticate, Login(user: "ann", tokenPrefix: bytes("t"), checkedRevision: revision).encoded()) == .refused(.authOldRevision))
        let old = Identity(user: bytes("ann"), form: .claims(revision: revision))
        #expect(world.check(world.read("a"), world.shown(), by: old) == "permission")
        #expect(world.check(world.read("a"), .refused(ServiceError.authOldRevision.message), by: old) == nil)
    }

    @Test func watchesAndMembersAreCompared() {
        let world = World()
        func watch(_ key: String, _ end: String) -> WatchRecord {
            WatchRecord(client: 1, member: 1, key: bytes(key), end: bytes(end), startRevision: 0, wantsPrevious: false, openedAt: 0)
        }
        #expect(world.checker.created(watch("a", "b"), by: world.ann, revision: 1, at: world.now) == nil)
        #expect(world.checker.created(watch("x", ""), by: world.ann, revision: world.log.model.revision + 1, at: world.now) == nil, "nothing is known of that revision")
        let applied = world.log.model.appliedIndex
        let revision = world.log.model.accounts.revision
        #expect(world.checker.compare(MemberID(1), applied: applied, revision: revision, isEnabled: true) == nil)
        #expect(world.checker.compare(MemberID(1), applied: applied, revision: revision, isEnabled: false)?.invariant == "accounts")
        #expect(world.checker.compare(MemberID(1), applied: applied - 1, revision: revision, isEnabled: false) == nil)
        #expect(world.checker.compare(AuthStore())?.invariant == nil)
        var other = AuthStore()
        var writes: [AuthWrite] = []
        try? other.addUser(UserAddition(name: "eve"), into: &writes)
        #expect(other.revision == 2 && world.checker.compare(other)?.invariant == "accounts")
    }

    /// Two programs that were written apart say the same of everything.
    @Test func theModelAgreesWithTheEngine() throws {
        var generator = SeededGenerator(seed: 4)
        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &generator) }
        let users = ["root", "u1", "u2"].map(bytes), roles = ["root", "r1", "r2"].map(bytes), keys = ["a", "b", "c", "d"].map(bytes)
        func key() -> [UInt8] { keys[number(0..<4)] }
        func end() -> [UInt8] { [[], [0], key()][number(0..<3)] }
        var accounts = TruthAccounts(), store = AuthStore(), differences = 0, refusals = 0, permits = 0
        for index in 1...6_000 as ClosedRange<UInt64> {
            let user = users[number(0..<3)], role = roles[number(0..<3)]
            let kind = [Command.Kind.authEnable, .authDisable, .authenticate, .userAdd, .userAdd, .userDelete, .userChangePassword, .userGrantRole, .userGrantRole,
                        .userGrantRole, .userRevokeRole, .roleAdd, .roleAdd, .roleDelete, .roleGrantPermission, .roleGrantPermission, .roleGrantPermission,
                        .roleRevokePermission][number(0..<18)]
            var writes: [AuthWrite] = []
            let body: [UInt8]
            let own: ServiceError?
            do throws(ServiceError) {
                switch kind {
                case .authEnable: body = []; try store.enable(into: &writes)
                case .authDisable: body = []; if number(0..<4) == 0 { store.disable(into: &writes) } else { continue }
                case .authenticate:
                    let login = Login(user: UserName(user), tokenPrefix: [1], checkedRevision: store.revision - UInt64(number(0..<2)))
                    body = login.encoded()
                    try store.requireFreshLogin(of: login.user, checkedAt: login.checkedRevision)
                case .userAdd:
                    let addition = UserAddition(name: UserName(user), hasNoPassword: number(0..<4) == 0, passwordHash: [7])
                    body = addition.encoded()
                    try store.addUser(addition, into: &writes)
                case .userDelete: body = NameFields(user).encoded(); try store.deleteUser(UserName(user), into: &writes)
                case .userChangePassword: body = NameFields(user, [], [8]).encoded(); try store.changePassword(of: UserName(user), to: [8], into: &writes)
                case .userGrantRole: body = NameFields(user, role).encoded(); try store.grantRole(RoleName(role), to: UserName(user), into: &writes)
                case .userRevokeRole: body = NameFields(user, role).encoded(); try store.revokeRole(RoleName(role), from: UserName(user), into: &writes)
                case .roleAdd: body = NameFields(role).encoded(); try store.addRole(RoleName(role), into: &writes)
                case .roleDelete: body = NameFields(role).encoded(); try store.deleteRole(RoleName(role), into: &writes)
                case .roleGrantPermission:
                    let permission = number(0..<20) == 0 ? nil : Permission(Permission.Kind(rawValue: Int32(number(0..<4))), key: number(0..<20) == 0 ? [] : key(), rangeEnd: end())
                    body = PermissionGrant(role: RoleName(role), permission: permission).encoded()
                    try store.grantPermission(permission, to: RoleName(role), into: &writes)
                default:
                    let (key, end) = (key(), end())
                    body = NameFields(role, key, end).encoded()
                    try store.revokePermission(key: key, rangeEnd: end, from: RoleName(role), into: &writes)
                }
                own = nil
            } catch { own = error }
            // The body was made before anything could be refused.
            let model = try body.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                return try accounts.apply(kind, &reader, index: index)
            }
            if model != own || accounts.revision != store.revision || accounts.isEnabled != store.isEnabled { differences += 1 }
            let (from, to) = (key(), end())
            let caller = number(0..<8) == 0 ? nil : Caller(user: UserName(users[number(0..<3)]), revision: number(0..<6) == 0 ? store.revision - 1 : store.revision)
            var refused = false
            let delete = DeleteRangeRequest(key: from, rangeEnd: to, prevKV: number(0..<2) == 0)
            do { try store.requirePermission(for: delete, by: caller) } catch { refused = true }
            let truth = try encoded(delete.encode).withUnsafeBytes { raw in
                try accounts.refusal(of: .deleteRange, ByteReader(raw), from: caller.map { .user($0.user.bytes, revision: $0.revision) } ?? .nobody) { _ in [] }
            }
            // Of a range without keys the engine may think what it likes.
            let isEmpty = !to.isEmpty && to != [0] && compareBytes(to, from) <= 0
            if !isEmpty, refused != (truth != nil) { differences += 1 }
            if refused { refusals += 1 } else { permits += 1 }
        }
        #expect(differences == 0)
        #expect(refusals > 500 && permits > 500, "\(refusals) refused, \(permits) permitted")
    }

    /// What was forgotten before it was judged is told, of watches too.
    @Test func forgottenWatchesAreReported() {
        var judge = HistoryJudge(clockDrift: nil, overdueBound: 0)
        func put(_ number: UInt64) {
            let request = PutRequest(key: bytes("k"), value: bytes("v\(number)"))
            let payload = Command(kind: .put, proposer: MemberID(7), number: number, body: encoded(request.encode)).encoded()
            #expect(judge.committed(number, Ledger.Version(term: 1, previousTerm: 1, kind: .command, payload: payload), at: Moment(number)) == nil)
            let call = Operation.Call.put(key: request.key, value: request.value, lease: 0)
            let outcome = Operation.Outcome.done(revision: Int64(number) + 1, found: [], count: 0, succeeded: true)
            #expect(judge.finished(Operation(client: 1, member: 1, call: call, start: Moment(number), end: Moment(number), outcome: outcome)) == nil)
        }
        for number in 1...300 as ClosedRange<UInt64> { put(number) }
        var checker = WatchChecker(WatchRecord(client: 1, member: 1, key: bytes("k"), end: [], startRevision: 5, wantsPrevious: false, openedAt: 0))
        #expect(judge.received(.created(headerRevision: 1), by: &checker, from: nil, at: 1000) == nil)
        // Nobody asked the watch what it still needs.
        #expect(judge.checkpoint(oldest: 1000, needed: 300, at: 1000) == nil)
        #expect(judge.received(.progress(headerRevision: 300 - ClientWorld.oldestRead), by: &checker, from: nil, at: 1000) == nil)
        #expect(judge.closed(&checker, mustBeComplete: false) == nil)
        #expect(judge.finish(knowsPast: true)?.invariant == "simulator")
    }
}
