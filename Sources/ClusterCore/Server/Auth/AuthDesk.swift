import Auth
import Base

/// What a node does about passwords and tokens outside the member: hashing and signing. Thread-safe.
public struct AuthDesk: Sendable {
    /// How a login is answered, and what a token says.
    enum Tokens: Sendable {
        /// Random, replicated, in memory.
        case simple
        /// Signed claims that any member can check by itself.
        case signed(TokenSigner)
        /// Nobody can log in. (etcd's `--auth-token ''`)
        case none
    }
    let tokens: Tokens
    let bcryptCost: Int

    /// Simple tokens, etcd's bcrypt cost.
    public init() {
        tokens = .simple
        bcryptCost = Bcrypt.defaultCost
    }

    /// - Parameters:
    ///   - tokens: etcd's `--auth-token`: `simple`, empty, or `jwt,sign-method=...,pub-key=FILE,priv-key=FILE,ttl=5m`.
    ///   - bcryptCost: 4 to 31; anything else is taken for 10, as etcd does.
    public init(tokens text: String, bcryptCost: Int) throws(NodeError) {
        self.bcryptCost = Bcrypt.costs.contains(bcryptCost) ? bcryptCost : Bcrypt.defaultCost
        var parts = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        let kind = parts.removeFirst()
        var options: [String: String] = [:]
        for part in parts {
            let pair = part.split(separator: "=", omittingEmptySubsequences: false).map(String.init)
            guard pair.count == 2 else { throw .configuration("--auth-token: \"\(part)\" is not option=value") }
            guard options.updateValue(pair[1], forKey: pair[0]) == nil else { throw .configuration("--auth-token names \(pair[0]) twice") }
        }
        switch kind {
        case "simple": tokens = .simple
        case "": tokens = .none
        case "jwt": tokens = .signed(try TokenSigner(options))
        default: throw .configuration("--auth-token \(kind): expected simple or jwt,sign-method=...")
        }
    }

    /// The random part of a simple token: 16 letters, as etcd's.
    static func tokenPrefix() -> [UInt8] {
        let letters = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".utf8)
        var generator = SystemRandomNumberGenerator()
        return (0..<16).map { _ in letters.randomElement(using: &generator)! }
    }
}

/// Who a client is by its certificate. Whoever terminates TLS sets it on the connection once the certificate is verified, before the first
/// call is read; without `--client-cert-auth` nobody does.
struct ClientIdentity: Sendable {
    /// The common name of the leaf's subject.
    var commonName: UserName
}
