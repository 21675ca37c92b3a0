import Auth
import Base
import Replica

// Users, roles and permissions in the simulated world: an administrator who changes them all the time, and clients that are somebody.

/// Who a client is, and how it says so.
struct Person {
    enum Means {
        /// Says nothing.
        case none
        case name
        /// A signed token, which is out of date sooner or later.
        case claims(revision: UInt64)
        /// nil: none yet.
        case token(Token?)
        case invalid
    }
    /// From a login.
    struct Token {
        var bytes: [UInt8]
        /// Of the entry that made it.
        var index: UInt64
    }
    var user: [UInt8] = []
    var means = Means.none
    /// No login before.
    var loginNotBefore: Moment = 0
}

extension ClientWorld {
    /// The administrator, and as many others as the dials say.
    private func user(_ number: Int) -> [UInt8] { number == 0 ? TruthAccounts.root : Array("u\(number)".utf8) }
    private func role(_ number: Int) -> [UInt8] { Array("r\(number)".utf8) }
    private var roleCount: Int { max(2, dials.users - 1) }

    // MARK: Clients

    /// Every third one administers, so that something gets done whatever is permitted.
    func person(of client: SimulatedClient) -> Person {
        if client.id % 3 == 1 { return Person(user: user(0), means: .name) }
        let user = user(Int(number(1...Int64(dials.users))))
        let means: Person.Means = switch generator.next() % 16 {
        case 0: .none
        case 1: .invalid
        case 2...5: .claims(revision: truth.accounts.revision)
        case 6...10: .token(nil)
        default: .name
        }
        return Person(user: user, means: means)
    }

    /// What goes with the next call.
    func identify(_ client: SimulatedClient) -> Credential {
        guard dials.users > 0 else { return .none }
        if oneIn(40) { client.person = person(of: client) }
        let user = client.person.user
        switch client.person.means {
        case .name:
            client.identity = Identity(user: user, form: .name)
            return .commonName(UserName(user))
        case .claims(var revision):
            if oneIn(10) {
                revision = truth.accounts.revision
                client.person.means = .claims(revision: revision)
            }
            client.identity = Identity(user: user, form: .claims(revision: revision))
            return .claims(user: UserName(user), revision: revision)
        case .token(let token?):
            client.identity = Identity(user: user, form: .token(index: token.index))
            return .token(token.bytes)
        case .invalid:
            client.identity = Identity(user: user, form: .invalid)
            return .invalid
        case .none, .token(nil):
            client.identity = nil
            return .none
        }
    }

    /// A watch is opened by somebody known, or by nobody.
    func identifyWatcher() -> (Credential, Identity?) {
        guard dials.users > 0, !oneIn(8) else { return (.none, nil) }
        let user = user(oneIn(2) ? 0 : Int(number(1...Int64(dials.users))))
        return (.commonName(UserName(user)), Identity(user: user, form: .name))
    }

    /// What was refused, and what its sender does about it.
    /// - Returns: whether it was for want of a right.
    func refusedAsPerson(_ client: SimulatedClient, _ text: String) -> Bool {
        if text == ServiceError.invalidAuthToken.message, case .token = client.person.means { client.person.means = .token(nil) }
        if text == ServiceError.authOldRevision.message, case .claims = client.person.means, oneIn(2) { client.person.means = .claims(revision: truth.accounts.revision) }
        return text == ServiceError.permissionDenied.message || text == ServiceError.userEmpty.message
    }

    // MARK: Logins

    /// Whether the client gets itself a token before it calls: it asks for the hash of its password, which takes a while to compare, and then
    /// has the login written down. (`AuthDesk`)
    func beginLogin(_ client: SimulatedClient, _ simulation: Simulation) -> Bool {
        guard dials.users > 0, case .token(nil) = client.person.means, client.person.loginNotBefore <= simulation.time, client.node.process != nil else { return false }
        client.person.loginNotBefore = simulation.time + 300_000_000
        client.isLoggingIn = true
        send(.read, by: client, from: .none, after: number(20_000...500_000), simulation)
        simulation.schedule(.client(client, serial: client.serial, .timeout), after: dials.clientTimeout.nanoseconds)
        return true
    }

    func comparePassword(of client: SimulatedClient, with accounts: AuthStore, _ simulation: Simulation) {
        let found = try? accounts.passwordHash(of: UserName(client.person.user))
        // Every client knows its password; one without an account, or with one that has none, is turned away.
        let step: SimulatedClient.Step = found == nil ? .done(.refused("no password")) : .compared(revision: accounts.revision)
        simulation.schedule(.client(client, serial: client.serial, step), after: number(1_000_000...60_000_000))
    }

    func login(_ client: SimulatedClient, _ step: SimulatedClient.Step, _ simulation: Simulation) {
        switch step {
        case .compared(let revision):
            let prefix = Array("t\(nextPassword)".utf8)
            nextPassword += 1
            let login = Login(user: UserName(client.person.user), tokenPrefix: prefix, checkedRevision: revision)
            return send(.propose(.authenticate, body: login.encoded(), cost: 0), by: client, from: .none, after: number(20_000...500_000), simulation)
        case .answer(.encoded(let bytes), _):
            guard let token = ReadResponse.token(bytes), let index = TokenTable.index(of: token) else {
                return simulation.fail(Violation("coding", "a login was answered without a token"), client.node)
            }
            simulation.fail(judge.issued(to: client.person.user, index: index.rawValue), client.node)
            client.person.means = .token(Person.Token(bytes: token, index: index.rawValue))
        default: break // Refused, or nobody knows.
        }
        client.isLoggingIn = false
        client.serial += 1
        simulation.schedule(.client(client, serial: client.serial, .call), after: pause(of: client, simulation))
    }

    // MARK: The administrator

    /// One change, at some member. Whether it is answered does not matter: the log tells.
    func administer(_ simulation: Simulation) {
        guard !isQuiet else { return }
        simulation.schedule(.administer, after: number(1_000_000...2 * dials.accountChangeEvery.nanoseconds))
        let candidates = simulation.nodes.filter { $0.isMember && $0.process != nil }
        guard !candidates.isEmpty else { return }
        let node = candidates[Int(generator.next() % UInt64(candidates.count))]
        let (kind, body) = chooseChange()
        let token = RequestToken(rawValue: nextToken)
        nextToken += 1
        // Now and then by somebody who may not.
        let credential: Credential = oneIn(12) ? oneIn(3) ? .none : .commonName(UserName(user(Int(number(1...Int64(dials.users)))))) : .commonName(.root)
        simulation.schedule(.post(node, life: node.life, .request(token, .propose(kind, body: body, cost: 0), requiresLeader: false, from: credential)), after: number(20_000...500_000))
    }

    private func addition(_ user: [UInt8]) -> [UInt8] {
        nextPassword += 1
        let hasNoPassword = user != TruthAccounts.root && oneIn(5)
        return UserAddition(name: UserName(user), hasNoPassword: hasNoPassword, passwordHash: hasNoPassword ? [] : Array("hash \(nextPassword)".utf8)).encoded()
    }

    private func chooseChange() -> (Command.Kind, [UInt8]) {
        let accounts = truth.accounts
        // First of all there must be somebody.
        if accounts.users[user(0)] == nil { return (.userAdd, addition(user(0))) }
        if !accounts.isRoot(user(0)) { return (.userGrantRole, NameFields(user(0), TruthAccounts.root).encoded()) }
        for number in 0..<roleCount where accounts.roles[role(number)] == nil { return (.roleAdd, NameFields(role(number)).encoded()) }
        for number in 1...dials.users where accounts.users[user(number)] == nil { return (.userAdd, addition(user(number))) }
        if !accounts.isEnabled, oneIn(3) { return (.authEnable, []) }
        let user = user(Int(number(1...Int64(dials.users))))
        let role = role(Int(number(0...Int64(roleCount - 1))))
        switch generator.next() % 32 {
        case 0: return (.authDisable, [])
        case 1: return (.userDelete, NameFields(user).encoded())
        case 2: return (.roleDelete, NameFields(role).encoded())
        case 3, 4: return (.userChangePassword, NameFields(user, [], Array("hash \(number(1...1000))".utf8)).encoded())
        case 5...12:
            // By chance several that only together hold what somebody wants.
            let first = Int(number(0...Int64(dials.keys - 1)))
            let range: (key: [UInt8], end: [UInt8]) = switch generator.next() % 4 {
            case 0: (key(0), Array("l".utf8))
            case 1: (key(first), [])
            case 2: (key(first), [0])
            default: (key(first), key(min(first + Int(number(1...8)), 99)))
            }
            let kind = Permission.Kind(rawValue: Int32(number(0...2)))
            return (.roleGrantPermission, PermissionGrant(role: RoleName(role), permission: Permission(kind, key: range.key, rangeEnd: range.end)).encoded())
        case 13...18:
            guard let rights = accounts.roles[role], !rights.isEmpty else { return (.userGrantRole, NameFields(user, role).encoded()) }
            let right = rights[Int(generator.next() % UInt64(rights.count))]
            return (.roleRevokePermission, NameFields(role, right.key, right.end).encoded())
        case 19...21: return (.userRevokeRole, NameFields(user, role).encoded())
        default: return (.userGrantRole, NameFields(user, role).encoded())
        }
    }

    func compareAccounts(of node: SimulatedNode, _ process: SimulatedNode.Process) -> Violation? { judge.compare(node.id, process.seen) }
}
