import Auth
import Base
import Foundation
import GRPC
import NIOCore
import Replica
import Store
import Wire

// Authentication at the edge: where passwords become hashes and logins become tokens. A password leaves the message that brought it as a
// `Secret`, goes to the hashing thread and no further: neither the member nor the log ever sees it.

/// An Authenticate call: read the state, compare the password, have the token made. When the state moves in between, again.
final class LoginCall {
    let user: UserName
    let password: Secret
    private var attempts = 1
    /// Each costs a comparison; a state that moves under as many is being administered.
    private static let maxAttempts = 16

    init(user: UserName, password: Secret) {
        self.user = user
        self.password = password
    }

    func mayTryAgain() -> Bool {
        attempts += 1
        return attempts <= LoginCall.maxAttempts
    }
}

extension GRPCConnection {
    func handleAuth(_ method: MethodID, _ stream: StreamID, _ head: RequestHead, _ raw: UnsafeRawBufferPointer) throws(CallFault) {
        func names() throws(CallFault) -> NameFields {
            var reader = ByteReader(raw)
            return try decoded { () throws(DecodingFault) in try NameFields.decode(&reader) }
        }
        func query(_ query: AuthQuery) throws(CallFault) { try ask(method, stream, head, .read, .authQuery(query)) }
        func change(_ kind: Command.Kind, _ body: [UInt8]) throws(CallFault) { try ask(method, stream, head, .propose(kind, body: body, cost: 0)) }

        switch method {
        case .authStatus: try query(.status)
        case .userGet: try query(.user(UserName(try names().first)))
        case .userList: try query(.users)
        case .roleGet: try query(.role(RoleName(try names().first)))
        case .roleList: try query(.roles)
        case .authEnable: try change(.authEnable, [])
        case .authDisable: try change(.authDisable, [])
        case .userDelete: try change(.userDelete, try names().encoded())
        case .userGrantRole: try change(.userGrantRole, try names().encoded())
        case .userRevokeRole: try change(.userRevokeRole, try names().encoded())
        case .roleAdd: try change(.roleAdd, try names().encoded())
        case .roleDelete: try change(.roleDelete, try names().encoded())
        case .roleRevokePermission: try change(.roleRevokePermission, try names().encoded())
        case .roleGrantPermission:
            var reader = ByteReader(raw)
            try change(.roleGrantPermission, try decoded { () throws(DecodingFault) in try PermissionGrant.decode(&reader) }.encoded())
        case .authenticate:
            let request = try decoded { () throws(DecodingFault) in try PasswordRequest.decode(raw, hashField: nil) }
            try ask(method, stream, head, .read, .login(LoginCall(user: request.user, password: request.password)))
        case .userAdd:
            let request = try decoded { () throws(DecodingFault) in try PasswordRequest.decode(raw, hashField: 4) }
            if request.hasNoPassword { return try change(.userAdd, UserAddition(name: request.user, hasNoPassword: true).encoded()) }
            // Hashing is dear: only for those who may have it done.
            try ask(method, stream, head, .permission(.root), .admission(.addUser(request.user, request.password)))
        case .userChangePassword:
            let request = try decoded { () throws(DecodingFault) in try PasswordRequest.decode(raw, hashField: 3) }
            guard request.password.isEmpty else {
                return try ask(method, stream, head, .permission(.root), .admission(.changePassword(request.user, request.password)))
            }
            guard let hash = Data(base64Encoded: Data(request.hash)) else { throw .service(.passwordForNoPasswordUser) }
            try change(.userChangePassword, NameFields(request.user.bytes, [], [UInt8](hash)).encoded())
        default: preconditionFailure("\(method) is no method of the Auth service")
        }
    }
}

/// The messages that bring a password: AuthenticateRequest, AuthUserAddRequest, AuthUserChangePasswordRequest.
private struct PasswordRequest {
    var user = UserName([])
    var password = Secret([])
    var hasNoPassword = false
    /// base64 of a hash that the client made itself.
    var hash: [UInt8] = []

    static func decode(_ raw: UnsafeRawBufferPointer, hashField: UInt32?) throws(DecodingFault) -> PasswordRequest {
        var request = PasswordRequest()
        var reader = ByteReader(raw)
        while let (field, type) = try reader.readTag() {
            switch (field, type) {
            case (1, .lengthDelimited): request.user = UserName(try reader.readCounted())
            case (2, .lengthDelimited): request.password = Secret(try reader.readCountedSlice())
            case (_, .lengthDelimited) where field == hashField: request.hash = try reader.readCounted()
            case (3, .lengthDelimited):
                var options = try reader.readMessage()
                while let (field, type) = try options.readTag() {
                    if field == 1, type == .varint { request.hasNoPassword = try options.readVarint() != 0 } else { try options.skip(type) }
                }
            default: try reader.skip(type)
            }
        }
        return request
    }
}

extension ClientLoop {
    /// The wall clock, which signed tokens go by.
    var unixSeconds: Int64 { Int64(Date().timeIntervalSince1970) }

    func answer(_ query: AuthQuery, _ place: Int, _ grant: ReadGrant, _ caller: Caller?, _ header: ResponseHeader) {
        do throws(ServiceError) {
            let answer = try grant.auth.answer(query, for: caller)
            var header = header
            header.revision = grant.snapshot.revision
            respond(place) { ResponseMessage.auth(header, answer, into: &$0) }
        } catch {
            fail(place, error)
        }
    }

    /// The member has permitted it.
    func go(on admission: ClientCall.Admission, _ place: Int) {
        // A stream without an end is not begun any more.
        if isDraining, case .observe = admission { return fail(place, .stopped) }
        switch admission {
        case .defragment:
            // The backend gives freed pages to later writes by itself, so there is nothing to rewrite.
            respond(place, [])
        case .downgrade(let request): downgrade(request, place)
        case .observe(let call):
            setWork(place, .observe(call))
            observe(place)
        case .addUser(let user, let password):
            hash(password, place) { .propose(.userAdd, body: UserAddition(name: user, passwordHash: $0).encoded(), cost: 0) }
        case .changePassword(let user, let password):
            hash(password, place) { .propose(.userChangePassword, body: NameFields(user.bytes, [], $0).encoded(), cost: 0) }
        }
    }

    private func hash(_ password: Secret, _ place: Int, _ request: @escaping @Sendable ([UInt8]) -> Request) {
        setWork(place, .answered)
        let cost = auth.bcryptCost
        onPasswordThread(place) { () throws(ServiceError) in try Bcrypt.hash(password, cost: cost) } then: { loop, place, hash in
            loop.ask(place, request(hash))
        }
    }

    /// Compares the password with the state's hash, of which the login's entry says how new it was.
    func compare(_ call: LoginCall, _ place: Int, _ grant: ReadGrant) {
        let stored: [UInt8]?
        do throws(ServiceError) { stored = try grant.auth.passwordHash(of: call.user) } catch { return fail(place, error) }
        let (user, password, revision, cost) = (call.user, call.password, grant.auth.revision, auth.bcryptCost)
        onPasswordThread(place) { () throws(ServiceError) in
            guard Bcrypt.matches(password, stored ?? Bcrypt.decoy(cost: cost)), stored != nil else { throw .authFailed }
        } then: { loop, place, _ in
            switch loop.auth.tokens {
            case .none: loop.fail(place, .authFailed)
            case .simple:
                loop.ask(place, .propose(.authenticate, body: Login(user: user, tokenPrefix: AuthDesk.tokenPrefix(), checkedRevision: revision).encoded(),
                                         cost: 0))
            case .signed(let signer):
                // Nothing to replicate: the token says all there is to know.
                do throws(ServiceError) {
                    let token = try signer.sign(user, revision: revision, at: loop.unixSeconds)
                    loop.respond(place) { ResponseMessage.authenticated(loop.header(), token: token, into: &$0) }
                } catch {
                    loop.fail(place, error)
                }
            }
        }
    }

    /// Runs `work` on the hashing thread and goes on here, unless the client has left meanwhile.
    private func onPasswordThread<T: Sendable>(_ place: Int, _ work: @escaping @Sendable () throws(ServiceError) -> T,
                                               then: @escaping @Sendable (ClientLoop, Int, T) -> Void) {
        let token = token(place)
        do throws(ServiceError) {
            try PasswordThread.run { [self] in
                let outcome: Result<T, ServiceError>
                do throws(ServiceError) { outcome = .success(try work()) } catch { outcome = .failure(error) }
                eventLoop.execute { [self] in
                    guard let place = find(token.slot) else { return }
                    switch outcome {
                    case .success(let value): then(self, place, value)
                    case .failure(let error): fail(place, error)
                    }
                    flushTouched()
                }
            }
        } catch {
            fail(place, error)
        }
    }
}
