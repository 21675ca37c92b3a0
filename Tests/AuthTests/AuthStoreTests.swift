import Auth
import Base
import Testing

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
func bytes(hex: String) -> [UInt8] {
    var result: [UInt8] = []
    var rest = Substring(hex)
    while let high = rest.popFirst(), let low = rest.popFirst() { result.append(UInt8(String([high, low]), radix: 16)!) }
    return result
}

/// A store that is changed without looking at what it writes.
struct Bench {
    var store = AuthStore()
    var writes: [AuthWrite] = []

    /// nil: done; else why not.
    mutating func run(_ change: (inout AuthStore, inout [AuthWrite]) throws(ServiceError) -> Void) -> ServiceError? {
        do throws(ServiceError) {
            try change(&store, &writes)
            return nil
        } catch { return error }
    }
    mutating func addUser(_ name: UserName, hash: String = "hash", hasNoPassword: Bool = false) -> ServiceError? {
        run { store, writes throws(ServiceError) in
            try store.addUser(UserAddition(name: name, hasNoPassword: hasNoPassword, passwordHash: bytes(hash)), into: &writes)
        }
    }
    mutating func addRole(_ name: RoleName) -> ServiceError? { run { s, w throws(ServiceError) in try s.addRole(name, into: &w) } }
    mutating func deleteUser(_ name: UserName) -> ServiceError? { run { s, w throws(ServiceError) in try s.deleteUser(name, into: &w) } }
    mutating func deleteRole(_ name: RoleName) -> ServiceError? { run { s, w throws(ServiceError) in try s.deleteRole(name, into: &w) } }
    mutating func grant(_ role: RoleName, to user: UserName) -> ServiceError? {
        run { s, w throws(ServiceError) in try s.grantRole(role, to: user, into: &w) }
    }
    mutating func revoke(_ role: RoleName, from user: UserName) -> ServiceError? {
        run { s, w throws(ServiceError) in try s.revokeRole(role, from: user, into: &w) }
    }
    mutating func permit(_ role: RoleName, _ kind: Permission.Kind, _ key: String, _ end: String = "") -> ServiceError? {
        run { s, w throws(ServiceError) in try s.grantPermission(Permission(kind, key: bytes(key), rangeEnd: bytes(end)), to: role, into: &w) }
    }
    mutating func forbid(_ role: RoleName, _ key: String, _ end: String = "") -> ServiceError? {
        run { s, w throws(ServiceError) in try s.revokePermission(key: bytes(key), rangeEnd: bytes(end), from: role, into: &w) }
    }
    mutating func enable() -> ServiceError? { run { s, w throws(ServiceError) in try s.enable(into: &w) } }

    /// Root, and authentication on.
    static func enabled() -> Bench {
        var bench = Bench()
        _ = bench.addUser(.root)
        _ = bench.grant(.root, to: .root)
        precondition(bench.enable() == nil)
        return bench
    }

    func caller(_ user: UserName) -> Caller { Caller(user: user, revision: store.revision) }
    func read(_ range: KeyRange, by caller: Caller?) -> ServiceError? {
        do throws(ServiceError) {
            try store.requireRead(range, by: caller)
            return nil
        } catch { return error }
    }
    func write(_ range: KeyRange, by caller: Caller?) -> ServiceError? {
        do throws(ServiceError) {
            try store.requireWrite(range, by: caller)
            return nil
        } catch { return error }
    }
    func answer(_ query: AuthQuery, for caller: Caller?) -> Result<AuthAnswer, ServiceError> {
        do throws(ServiceError) { return .success(try store.answer(query, for: caller)) } catch { return .failure(error) }
    }

    /// What the tables hold after all writes.
    var tables: [AuthTable: [[UInt8]: [UInt8]]] {
        var tables: [AuthTable: [[UInt8]: [UInt8]]] = [.settings: [:], .users: [:], .roles: [:]]
        for write in writes {
            switch write {
            case .put(let table, let key, let value): tables[table]![key] = value
            case .delete(let table, let key): tables[table]![key] = nil
            }
        }
        return tables
    }

    func reloaded() throws -> AuthStore {
        var loader = AuthStore.Loader()
        for (table, entries) in tables {
            for (key, value) in entries {
                try key.withUnsafeBytes { k in try value.withUnsafeBytes { v in try loader.take(table, key: k, value: v) } }
            }
        }
        return loader.finish()
    }
}

func range(_ key: String, _ end: String = "") -> KeyRange { KeyRange(key: bytes(key), rangeEnd: bytes(end)) }

@Suite struct AuthStoreTests {
    @Test func everyChangeCountsAndWhatChangesNothingDoesNot() {
        var bench = Bench()
        #expect(bench.store.revision == 1)
        #expect(bench.addUser("root") == nil && bench.store.revision == 2)
        #expect(bench.grant("root", to: "root") == nil && bench.store.revision == 3)
        #expect(bench.grant("root", to: "root") == nil && bench.store.revision == 3, "granted already")
        #expect(bench.addRole("r") == nil && bench.store.revision == 4)
        #expect(bench.permit("r", .read, "a") == nil && bench.store.revision == 5)
        #expect(bench.permit("r", .read, "a") == nil && bench.store.revision == 6, "etcd counts this one")
        #expect(bench.enable() == nil && bench.store.revision == 6)
        #expect(bench.enable() == nil && bench.store.revision == 6)
        #expect(bench.grant("r", to: "root") == nil && bench.revoke("r", from: "root") == nil && bench.forbid("r", "a") == nil && bench.store.revision == 9)
        #expect(bench.deleteRole("r") == nil && bench.store.revision == 10)
        _ = bench.run { s, w in s.disable(into: &w) }
        #expect(bench.store.revision == 11 && !bench.store.isEnabled)
        _ = bench.run { s, w in s.disable(into: &w) }
        #expect(bench.store.revision == 11)
        #expect(bench.deleteUser("root") == nil && bench.store.revision == 12)
    }

    @Test func refusalsHaveEtcdsWordsAndLeaveNoTrace() {
        var bench = Bench()
        #expect(bench.enable() == .rootUserNotExist)
        #expect(bench.addUser("") == .userEmpty)
        #expect(bench.addRole("") == .roleEmpty)
        #expect(bench.deleteUser("x") == .userNotFound)
        #expect(bench.deleteRole("x") == .roleNotFound)
        #expect(bench.grant("r", to: "x") == .userNotFound)
        #expect(bench.revoke("r", from: "x") == .userNotFound)
        #expect(bench.permit("r", .read, "a") == .roleNotFound)
        #expect(bench.forbid("r", "a") == .roleNotFound)
        #expect(bench.run { s, w throws(ServiceError) in try s.grantPermission(nil, to: "r", into: &w) } == .permissionNotGiven)
        #expect(bench.run { s, w throws(ServiceError) in try s.changePassword(of: "x", to: [], into: &w) } == .userNotFound)
        #expect(bench.store.revision == 1 && bench.writes.isEmpty)

        #expect(bench.addUser("root") == nil && bench.addUser("root") == .userAlreadyExist)
        #expect(bench.enable() == .rootRoleNotExist)
        #expect(bench.addRole("r") == nil && bench.addRole("r") == .roleAlreadyExist)
        #expect(bench.grant("s", to: "root") == .roleNotFound)
        #expect(bench.revoke("r", from: "root") == .roleNotGranted)
        #expect(bench.forbid("r", "a") == .permissionNotGranted)
        #expect(bench.permit("r", .read, "b", "c") == nil)
        #expect(bench.forbid("r", "b") == .permissionNotGranted, "another end is another permission")
        for (key, end) in [("", ""), ("", "x"), ("b", "a"), ("b", "b")] { #expect(bench.permit("r", .read, key, end) == .invalidAuthMgmt, "\(key) \(end)") }
        #expect(bench.permit("r", .read, "b", "\0") == nil, "open")

        #expect(bench.grant("root", to: "root") == nil && bench.addRole("root") == nil && bench.enable() == nil)
        let before = (bench.store.revision, bench.writes.count)
        #expect(bench.deleteUser("root") == .invalidAuthMgmt)
        #expect(bench.deleteRole("root") == .invalidAuthMgmt)
        #expect(bench.revoke("root", from: "root") == .invalidAuthMgmt)
        #expect(before == (bench.store.revision, bench.writes.count))
    }

    /// A name is a key of the backend's tables, which would stop the member (LMDB: 511 bytes), and a string of the API.
    @Test func namesAreTextThatTheTablesTake() {
        var bench = Bench()
        let longest = [UInt8](repeating: UInt8(ascii: "n"), count: AuthStore.maxNameBytes)
        #expect(bench.addUser(UserName(longest)) == nil && bench.addRole(RoleName(longest)) == nil)
        bench.writes = []
        let before = bench.store.revision
        #expect(bench.addUser(UserName(longest + [0x6e])) == .nameTooLong && bench.addRole(RoleName(longest + [0x6e])) == .nameTooLong)
        for noText in [[0xff], [0x61, 0xc3], [0xed, 0xa0, 0x80]] as [[UInt8]] {
            #expect(bench.addUser(UserName(noText)) == .nameIsNoText && bench.addRole(RoleName(noText)) == .nameIsNoText)
        }
        #expect(bench.addUser(UserName(Array("ünï\u{0}".utf8))) == nil)
        #expect(bench.store.revision == before + 1 && bench.writes.count == 2)
    }

    @Test func tablesAreThoseThatEtcdWrites() throws {
        // Recorded from etcd 3.5.1 after the same commands.
        var bench = Bench()
        let hash = "$2a$04$CeV3CkIF5HOxRP417SZO/OFEWU7pJVQ/.3pMuDG90c3f8QekFrcRy"
        _ = bench.addUser("root", hash: "x")
        _ = bench.addUser("alice", hash: "y")
        _ = bench.addUser("cert", hash: "z", hasNoPassword: true)
        _ = bench.addRole("r1")
        _ = bench.addRole("r2")
        _ = bench.grant("root", to: "root")
        _ = bench.grant("r2", to: "alice")
        _ = bench.grant("r1", to: "alice")
        _ = bench.permit("r1", .readWrite, "foo/", "foo0")
        _ = bench.permit("r1", .read, "bar")
        _ = bench.permit("r2", .write, "z", "\0")
        _ = bench.enable()
        _ = bench.deleteRole("r2")
        _ = bench.run { s, w throws(ServiceError) in try s.changePassword(of: "alice", to: bytes(hash), into: &w) }
        let tables = bench.tables
        #expect(tables[.settings] == [bytes("authEnabled"): [1], bytes("authRevision"): [0, 0, 0, 0, 0, 0, 0, 14]])
        #expect(tables[.roles] == [bytes("r1"): bytes(hex: "0a02723112051203626172120e08021204666f6f2f1a04666f6f30")])
        #expect(tables[.users]?[bytes("alice")] == bytes(hex: """
            0a05616c696365123c2432612430342443655633436b494635484f785250343137535a4f2f4f4645575537704a56512f2e33704d75444739306333663851656b46726352791a0272312200
            """))
        #expect(tables[.users]?[bytes("cert")] == bytes(hex: "0a046365727422020801"))
        #expect(tables[.users]?.count == 3)

        let loaded = try bench.reloaded()
        #expect(loaded.isEnabled && loaded.revision == 14 && loaded.userNames == bench.store.userNames && loaded.roleNames == ["r1"])
        #expect(loaded.user("alice") == bench.store.user("alice") && loaded.role("r1") == bench.store.role("r1"))
    }

    @Test func tablesOfOtherHandsAreReadOrRefusedAndNeverCrash() throws {
        func load(_ table: AuthTable, _ key: [UInt8], _ value: [UInt8]) throws -> AuthStore {
            var loader = AuthStore.Loader()
            try key.withUnsafeBytes { k in try value.withUnsafeBytes { v in try loader.take(table, key: k, value: v) } }
            return loader.finish()
        }
        // A user of etcd 3.3 has no options; the record keeps its form when it is written again.
        var old = try load(.users, bytes("u"), bytes(hex: "0a0175"))
        #expect(old.user("u")?.hasNoPassword == nil)
        var writes: [AuthWrite] = []
        try old.changePassword(of: "u", to: bytes("h"), into: &writes)
        #expect(writes.first == .put(.users, key: bytes("u"), value: bytes(hex: "0a0175120168")))
        // A permission whose end lies below its key, as 3.5.1 takes it, allows nothing.
        #expect(try load(.roles, bytes("r"), Role("r", [Permission(.readWrite, key: bytes("b"), rangeEnd: bytes("a"))])).role("r") != nil)
        #expect(throws: DecodingFault.self) { try load(.settings, bytes("authEnabled"), []) }
        #expect(throws: DecodingFault.self) { try load(.settings, bytes("authEnabled"), [2]) }
        #expect(throws: DecodingFault.self) { try load(.settings, bytes("authRevision"), [1]) }
        #expect(throws: DecodingFault.self) { try load(.users, bytes("u"), bytes(hex: "0a0176")) }
        #expect(throws: DecodingFault.self) { try load(.roles, bytes("r"), bytes(hex: "0aff")) }
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<20_000 {
            let value = (0..<Int.random(in: 0..<12, using: &generator)).map { _ in UInt8.random(in: 0...0x24, using: &generator) }
            for table in [AuthTable.settings, .users, .roles] { _ = try? load(table, Array(value.prefix(1)), value) }
        }
    }
    private func Role(_ name: RoleName, _ permissions: [Permission]) -> [UInt8] { AuthRole(name: name, permissions: permissions).encoded() }

    @Test func rightsOfAllRolesTogetherMustCoverTheWholeRange() {
        var bench = Bench.enabled()
        _ = bench.addUser("u")
        for role in ["a", "b"] as [RoleName] {
            _ = bench.addRole(role)
            _ = bench.grant(role, to: "u")
        }
        _ = bench.permit("a", .read, "a", "c")
        _ = bench.permit("b", .readWrite, "c", "e")
        _ = bench.permit("b", .read, "p", "\0")
        _ = bench.permit("b", .write, "k")
        let u = bench.caller("u")
        #expect(bench.read(range("a", "e"), by: u) == nil, "adjacent intervals of two roles are one")
        #expect(bench.read(range("b", "d"), by: u) == nil && bench.read(range("a"), by: u) == nil && bench.read(range("d"), by: u) == nil)
        #expect(bench.read(range("e"), by: u) == .permissionDenied && bench.read(range("a", "e\0"), by: u) == .permissionDenied)
        #expect(bench.read(range("Z", "b"), by: u) == .permissionDenied)
        #expect(bench.read(range("p"), by: u) == nil && bench.read(range("q", "\0"), by: u) == nil && bench.read(range("p", "zz"), by: u) == nil)
        #expect(bench.read(range("o", "\0"), by: u) == .permissionDenied && bench.read(range("a", "\0"), by: u) == .permissionDenied)
        #expect(bench.write(range("c", "e"), by: u) == nil && bench.write(range("b"), by: u) == .permissionDenied)
        #expect(bench.write(range("k"), by: u) == nil && bench.write(range("k", "k\0"), by: u) == nil && bench.write(range("k", "l"), by: u) == .permissionDenied)
        #expect(bench.read(range("k"), by: u) == .permissionDenied, "leave to write is none to read")
        #expect(bench.read(range("d", "b"), by: u) == nil && bench.read(range("d", "Z"), by: u) == .permissionDenied)
        #expect(bench.write(range("\0", "\0"), by: bench.caller("root")) == nil)
        #expect(bench.read(range("a"), by: bench.caller("nobody")) == .permissionDenied)
        #expect(bench.read(range("a"), by: nil) == .userEmpty)
        #expect(bench.read(range("a"), by: Caller(user: "u", revision: 0)) == .userEmpty)
        #expect(bench.read(range("a"), by: Caller(user: "root", revision: bench.store.revision - 1)) == .authOldRevision)
    }

    @Test func aRightEndsWithTheRoleTheGrantOrThePermission() {
        var bench = Bench.enabled()
        _ = bench.addUser("u")
        func mayRead() -> Bool { bench.read(range("k"), by: bench.caller("u")) == nil }
        func mayWrite() -> Bool { bench.write(range("k"), by: bench.caller("u")) == nil }
        _ = bench.addRole("r")
        _ = bench.permit("r", .readWrite, "k")
        #expect(!mayRead())
        _ = bench.grant("r", to: "u")
        #expect(mayRead() && mayWrite())
        _ = bench.permit("r", .read, "k")
        #expect(mayRead() && !mayWrite(), "the kind is replaced")
        _ = bench.permit("r", .readWrite, "k", "l")
        _ = bench.permit("r", .read, "k", "l")
        #expect(mayRead() && !mayWrite(), "also when another permission has the same key")
        _ = bench.forbid("r", "k", "l")
        #expect(mayRead())
        _ = bench.forbid("r", "k")
        #expect(!mayRead())
        _ = bench.permit("r", Permission.Kind(rawValue: 7), "k")
        #expect(!mayRead() && !mayWrite(), "an unknown kind allows nothing")
        _ = bench.permit("r", .write, "k")
        #expect(mayWrite())
        _ = bench.revoke("r", from: "u")
        #expect(!mayWrite())
        _ = bench.grant("r", to: "u")
        _ = bench.deleteRole("r")
        #expect(!mayWrite() && bench.store.user("u")?.roles == [])
        _ = bench.grant("root", to: "u")
        #expect(mayRead() && mayWrite(), "the role root needs no record")
    }

    @Test func administrationAndQuestionsNeedRootOrConcernOneself() throws {
        var bench = Bench.enabled()
        _ = bench.addUser("u")
        _ = bench.addRole("r")
        _ = bench.addRole("s")
        _ = bench.grant("r", to: "u")
        let u = bench.caller("u")
        let stale = Caller(user: "root", revision: 1)
        #expect(bench.store.isRoot(stale), "administration does not look at the auth revision")
        #expect(!bench.store.isRoot(u) && !bench.store.isRoot(nil))
        func failure(_ query: AuthQuery, _ caller: Caller?) -> ServiceError? { if case .failure(let error) = bench.answer(query, for: caller) { error } else { nil } }
        for query in [AuthQuery.status, .users, .roles, .user("root"), .role("s")] {
            #expect(failure(query, u) == .permissionDenied)
            #expect(failure(query, nil) == .userEmpty)
            #expect(failure(query, bench.caller("gone")) == .userNotFound)
        }
        #expect(failure(.user("u"), u) == nil && failure(.role("r"), u) == nil)
        #expect(failure(.user("gone"), stale) == .userNotFound && failure(.role("gone"), stale) == .roleNotFound)
        guard case .success(.users(let names)) = bench.answer(.users, for: stale) else { throw ServiceError.userEmpty }
        #expect(names == ["root", "u"])
    }

    @Test func namesAreBytesNotLetters() {
        var bench = Bench()
        #expect(bench.addUser("\u{e9}") == nil)
        #expect(bench.addUser("e\u{301}") == nil, "the same letter, spelt otherwise")
        #expect(bench.store.userNames.count == 2)
    }

    @Test func hashesAreNotInDescriptions() {
        let user = AuthUser(name: "u", passwordHash: bytes("$2a$secret"))
        let addition = UserAddition(name: "u", passwordHash: bytes("$2a$secret"))
        var dumped = "\(user) \(addition) \(String(reflecting: user)) \(String(reflecting: addition))"
        dump([user], to: &dumped)
        dump([addition], to: &dumped)
        dump(Login(user: "u", tokenPrefix: bytes("$2a$secret"), checkedRevision: 1), to: &dumped)
        let secret = "\(bytes("$2a$secret"))"
        #expect(!dumped.contains("secret") && !dumped.contains(secret) && !dumped.contains("50"))
    }
}

@Suite struct AuthChangeCodingTests {
    private func roundTrip<T: Equatable>(_ value: T, _ bytes: [UInt8], _ decode: (inout ByteReader) throws -> T) throws {
        let copy = try bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            return try decode(&reader)
        }
        #expect(copy == value)
    }

    @Test func changesSurviveTheLog() throws {
        for addition in [UserAddition(name: "a", hasNoPassword: true), UserAddition(name: "", passwordHash: bytes("h"))] {
            try roundTrip(addition, addition.encoded()) { try UserAddition.decode(&$0) }
        }
        let login = Login(user: "a", tokenPrefix: bytes("xyz"), checkedRevision: 9)
        try roundTrip(login, login.encoded()) { try Login.decode(&$0) }
        let names = NameFields(bytes("a"), [], bytes("c"))
        try roundTrip(names, names.encoded()) { try NameFields.decode(&$0) }
        for grant in [PermissionGrant(role: "r", permission: nil), PermissionGrant(role: "r", permission: Permission(.write, key: [0], rangeEnd: [0]))] {
            try roundTrip(grant, grant.encoded()) { try PermissionGrant.decode(&$0) }
        }
    }

    @Test func garbageIsAFaultNotACrash() {
        var generator = SeededGenerator(seed: 12)
        for _ in 0..<50_000 {
            let noise = (0..<Int.random(in: 0..<16, using: &generator)).map { _ in UInt8.random(in: 0...0x2a, using: &generator) }
            noise.withUnsafeBytes { raw in
                var readers = [ByteReader](repeating: ByteReader(raw), count: 4)
                _ = try? UserAddition.decode(&readers[0])
                _ = try? Login.decode(&readers[1])
                _ = try? NameFields.decode(&readers[2])
                _ = try? PermissionGrant.decode(&readers[3])
            }
        }
    }
}
