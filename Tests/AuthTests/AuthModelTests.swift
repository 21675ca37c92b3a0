import Auth
import Base
import Testing

/// A hundred slow lines that say what authentication means: everything is looked up from the start each time, rights are tried key by key.
struct AuthModel {
    var isEnabled = false
    var users: [UserName: Set<RoleName>] = [:]
    var roles: [RoleName: [[[UInt8]]: Permission.Kind]] = [:]

    /// Every key of up to two letters, and one beyond all: enough to tell any two ranges with ends of one or two letters apart.
    static let universe: [[UInt8]] = {
        let letters: [UInt8] = [0, 0x61, 0x62, 0x63, 0x64]
        return letters.map { [$0] } + letters.flatMap { a in letters.map { [a, $0] } } + letters.flatMap { a in letters.map { [a, $0, 0] } } + [[0xff]]
    }()

    static func names(_ range: KeyRange, _ key: [UInt8]) -> Bool { range.contains(Key(key)) }

    func mayReach(_ user: UserName?, _ range: KeyRange, _ allows: (Permission.Kind) -> Bool) -> Bool {
        if !isEnabled { return true }
        guard let user, let held = users[user] else { return false }
        if held.contains(.root) { return true }
        let permissions = held.flatMap { role in (roles[role] ?? [:]).filter { allows($0.value) }.map { KeyRange(key: $0.key[0], rangeEnd: $0.key[1]) } }
        return AuthModel.universe.allSatisfy { key in
            !AuthModel.names(range, key) || permissions.contains { AuthModel.names($0, key) }
        }
    }
}

@Suite struct AuthModelTests {
    @Test(arguments: [1, 2, 3, 4, 5, 6]) func storeAgreesWithTheModel(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var model = AuthModel()
        var bench = Bench()
        let users: [UserName] = ["root", "u", "v"]
        let roles: [RoleName] = ["root", "r", "s", "t"]
        func key() -> [UInt8] {
            (0..<Int.random(in: 1...2, using: &generator)).map { _ in [0, 0x61, 0x62, 0x63, 0x64].randomElement(using: &generator)! }
        }
        func end() -> [UInt8] { Int.random(in: 0..<4, using: &generator) == 0 ? [] : Int.random(in: 0..<4, using: &generator) == 0 ? [0] : key() }
        var permitted = 0
        for step in 0..<3_000 {
            let user = users.randomElement(using: &generator)!
            let role = roles.randomElement(using: &generator)!
            let context: Comment = "seed \(seed), step \(step)"
            switch Int.random(in: 0..<16, using: &generator) {
            case 0:
                let error = bench.addUser(user)
                #expect(error == (model.users[user] == nil ? nil : .userAlreadyExist), context)
                if error == nil { model.users[user] = [] }
            case 1 where Int.random(in: 0..<6, using: &generator) == 0:
                let error = bench.deleteUser(user)
                #expect(error == (model.isEnabled && user == .root ? .invalidAuthMgmt : model.users[user] == nil ? .userNotFound : nil), context)
                if error == nil { model.users[user] = nil }
            case 2:
                let error = bench.addRole(role)
                #expect(error == (model.roles[role] == nil ? nil : .roleAlreadyExist), context)
                if error == nil { model.roles[role] = [:] }
            case 3 where Int.random(in: 0..<6, using: &generator) == 0:
                let error = bench.deleteRole(role)
                #expect(error == (model.isEnabled && role == .root ? .invalidAuthMgmt : model.roles[role] == nil ? .roleNotFound : nil), context)
                if error == nil {
                    model.roles[role] = nil
                    for name in users { model.users[name]?.remove(role) }
                }
            case 4, 5:
                // The role root would make everything permitted before long.
                let given = user == .root ? role : role == .root ? "r" : role
                let error = bench.grant(given, to: user)
                #expect(error == (model.users[user] == nil ? .userNotFound : given != .root && model.roles[given] == nil ? .roleNotFound : nil), context)
                if error == nil { model.users[user]!.insert(given) }
            case 6:
                let error = bench.revoke(role, from: user)
                #expect(error == (model.isEnabled && user == .root && role == .root ? .invalidAuthMgmt
                    : model.users[user] == nil ? .userNotFound : model.users[user]!.contains(role) ? nil : .roleNotGranted), context)
                if error == nil { model.users[user]!.remove(role) }
            case 7, 8, 9:
                let (start, rangeEnd) = (key(), end())
                let kind = Permission.Kind(rawValue: Int32.random(in: 0...3, using: &generator))
                let error = bench.run { s, w throws(ServiceError) in
                    try s.grantPermission(Permission(kind, key: start, rangeEnd: rangeEnd), to: role, into: &w)
                }
                let isValid = rangeEnd.isEmpty || rangeEnd == [0] || compareBytes(start, rangeEnd) < 0
                #expect(error == (!isValid ? .invalidAuthMgmt : model.roles[role] == nil ? .roleNotFound : nil), context)
                if error == nil { model.roles[role]![[start, rangeEnd]] = kind }
            case 10, 11:
                guard let known = model.roles[role]?.keys.sorted(by: { compareBytes($0[0] + [0xff] + $0[1], $1[0] + [0xff] + $1[1]) < 0 }), !known.isEmpty else { continue }
                let chosen = known.randomElement(using: &generator)!
                #expect(bench.run { s, w throws(ServiceError) in try s.revokePermission(key: chosen[0], rangeEnd: chosen[1], from: role, into: &w) } == nil, context)
                model.roles[role]![chosen] = nil
            case 12:
                let error = bench.enable()
                #expect(error == (model.isEnabled ? nil : model.users[.root] == nil ? .rootUserNotExist
                    : model.users[.root]!.contains(.root) ? nil : .rootRoleNotExist), context)
                if error == nil { model.isEnabled = true }
            case 13 where Int.random(in: 0..<8, using: &generator) == 0:
                _ = bench.run { s, w in s.disable(into: &w) }
                model.isEnabled = false
            default: break
            }
            if step % 100 == 99 {
                // What was stored is what is there.
                let loaded = try bench.reloaded()
                #expect(loaded.isEnabled == bench.store.isEnabled && loaded.revision == bench.store.revision && loaded.userNames == bench.store.userNames, context)
                bench.store = loaded
            }
            for _ in 0..<3 {
                let asker: UserName? = [nil, "root", "u", "v"].randomElement(using: &generator)!
                let asked = KeyRange(key: key(), rangeEnd: end())
                // Ranges that hold no key are permitted by a rule of their own, and tell nobody anything.
                if case .bounded(let start, let end) = asked, !(start < end) { continue }
                let caller = asker.map { bench.caller($0) }
                let mayRead = bench.read(asked, by: caller) == nil
                let mayWrite = bench.write(asked, by: caller) == nil
                #expect(mayRead == model.mayReach(asker, asked) { $0.allowsReading }, "\(context): \(String(describing: asker)) reads \(asked)")
                #expect(mayWrite == model.mayReach(asker, asked) { $0.allowsWriting }, "\(context): \(String(describing: asker)) writes \(asked)")
                if mayRead && asker == "u" && model.isEnabled { permitted += 1 }
            }
        }
        #expect(permitted > 50, "seed \(seed): a run in which hardly anything is permitted tests nothing")
    }
}
