import Auth
import Base
import Crypto
import CryptoExtras
import Foundation

/// JSON web tokens as etcd makes them: claims `username`, `revision` and `exp` under one configured method. (RFC 7515, 7518, 7519)
struct TokenSigner: Sendable {
    /// The method's name as it stands in the header.
    let algorithm: String
    let timeToLiveSeconds: Int64
    private let key: Key

    /// The private key if there is one; with the public key alone tokens can be checked and not made.
    private enum Key: Sendable {
        case hmac256(SymmetricKey), hmac384(SymmetricKey), hmac512(SymmetricKey)
        case rsa(_RSA.Signing.PrivateKey?, _RSA.Signing.PublicKey, _RSA.Signing.Padding, bits: Int)
        case p256(P256.Signing.PrivateKey?, P256.Signing.PublicKey)
        case p384(P384.Signing.PrivateKey?, P384.Signing.PublicKey)
        case p521(P521.Signing.PrivateKey?, P521.Signing.PublicKey)
    }

    /// A longer token is none: it would only cost time.
    static let maxTokenBytes = 16 << 10

    struct Claims: Hashable, Sendable {
        var user: UserName
        var revision: UInt64
        /// Unix seconds; nil: for ever.
        var expires: Int64?
    }

    // MARK: Options

    init(_ options: [String: String]) throws(NodeError) {
        guard let method = options["sign-method"] else { throw .configuration("--auth-token jwt: sign-method is missing") }
        func file(_ option: String) throws(NodeError) -> Data? {
            guard let path = options[option], !path.isEmpty else { return nil }
            do { return try Data(contentsOf: URL(fileURLWithPath: path)) } catch {
                throw .configuration("--auth-token jwt: \(option) \(path) cannot be read")
            }
        }
        var seconds: Int64 = 300
        if let ttl = options["ttl"] { seconds = try TokenSigner.seconds(ttl) }
        let privateKey = try file("priv-key")
        let publicKey = try file("pub-key")
        try self.init(method: method, privateKey: privateKey, publicKey: publicKey, timeToLiveSeconds: seconds)
    }

    init(method: String, privateKey: Data?, publicKey: Data?, timeToLiveSeconds: Int64) throws(NodeError) {
        algorithm = method
        self.timeToLiveSeconds = timeToLiveSeconds
        do {
            key = try TokenSigner.key(method, privateKey, publicKey)
        } catch let error as NodeError {
            throw error
        } catch {
            // The reason may quote the key.
            throw .configuration("--auth-token jwt: a key file holds no key for \(method), or its keys do not belong together")
        }
    }

    private static func key(_ method: String, _ privateKey: Data?, _ publicKey: Data?) throws -> Key {
        func secret() throws -> SymmetricKey {
            guard let privateKey, !privateKey.isEmpty else { throw NodeError.configuration("--auth-token jwt: priv-key is missing") }
            return SymmetricKey(data: privateKey)
        }
        func text(_ data: Data?) -> String? { data.flatMap { $0.isEmpty ? nil : String(decoding: $0, as: UTF8.self) } }
        /// The pair, of which one half may be made from the other; both given must match.
        func pair<Private, Public>(_ makePrivate: (String) throws -> Private, _ makePublic: (String) throws -> Public, _ half: (Private) -> Public,
                                   _ bytes: (Public) -> Data) throws -> (Private?, Public) {
            let ownKey = try text(privateKey).map(makePrivate)
            let given = try text(publicKey).map(makePublic)
            guard let public_ = given ?? ownKey.map(half) else { throw NodeError.configuration("--auth-token jwt: priv-key and pub-key are missing") }
            if let ownKey, bytes(half(ownKey)) != bytes(public_) { throw KeyMismatch() }
            return (ownKey, public_)
        }
        func rsa(_ padding: _RSA.Signing.Padding, _ bits: Int) throws -> Key {
            let (ownKey, public_) = try pair({ try _RSA.Signing.PrivateKey(pemRepresentation: $0) }, { try _RSA.Signing.PublicKey(pemRepresentation: $0) },
                                             { $0.publicKey }, { $0.derRepresentation })
            return .rsa(ownKey, public_, padding, bits: bits)
        }
        switch method {
        case "HS256": return .hmac256(try secret())
        case "HS384": return .hmac384(try secret())
        case "HS512": return .hmac512(try secret())
        case "RS256": return try rsa(.insecurePKCS1v1_5, 256)
        case "RS384": return try rsa(.insecurePKCS1v1_5, 384)
        case "RS512": return try rsa(.insecurePKCS1v1_5, 512)
        case "PS256": return try rsa(.PSS, 256)
        case "PS384": return try rsa(.PSS, 384)
        case "PS512": return try rsa(.PSS, 512)
        case "ES256":
            let (ownKey, public_) = try pair({ try P256.Signing.PrivateKey(pemRepresentation: $0) }, { try P256.Signing.PublicKey(pemRepresentation: $0) },
                                             { $0.publicKey }, { $0.rawRepresentation })
            return .p256(ownKey, public_)
        case "ES384":
            let (ownKey, public_) = try pair({ try P384.Signing.PrivateKey(pemRepresentation: $0) }, { try P384.Signing.PublicKey(pemRepresentation: $0) },
                                             { $0.publicKey }, { $0.rawRepresentation })
            return .p384(ownKey, public_)
        case "ES512":
            let (ownKey, public_) = try pair({ try P521.Signing.PrivateKey(pemRepresentation: $0) }, { try P521.Signing.PublicKey(pemRepresentation: $0) },
                                             { $0.publicKey }, { $0.rawRepresentation })
            return .p521(ownKey, public_)
        default: throw NodeError.configuration("--auth-token jwt: sign-method \(method) is not known; expected HS, RS, PS or ES with 256, 384 or 512")
        }
    }

    private struct KeyMismatch: Error {}

    /// A Go duration in whole units: `5m`, `1h30m`, `90s`.
    static func seconds(_ text: String) throws(NodeError) -> Int64 {
        var total: Int64 = 0
        var digits = ""
        func wrong() -> NodeError { .configuration("--auth-token jwt: ttl \(text) is no duration; write it as 5m or 1h30m") }
        for letter in text {
            if letter.isASCII, letter.isNumber {
                digits.append(letter)
                continue
            }
            guard let count = Int64(digits), count < 1 << 32, let unit: Int64 = ["s": 1, "m": 60, "h": 3_600][letter] else { throw wrong() }
            total += count * unit
            digits = ""
        }
        guard digits.isEmpty, total > 0 else { throw wrong() }
        return total
    }

    // MARK: Signing

    private struct Header: Codable {
        var alg: String
        var typ: String?
    }
    private struct Payload: Codable {
        var exp: Double?
        var iat: Double?
        var nbf: Double?
        var revision: Double
        var username: String
    }
    private struct IssuedPayload: Encodable {
        var exp: Int64
        var revision: UInt64
        var username: String
    }

    func sign(_ user: UserName, revision: UInt64, at now: Int64) throws(ServiceError) -> [UInt8] {
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            let header = try encoder.encode(Header(alg: algorithm, typ: "JWT"))
            let payload = try encoder.encode(IssuedPayload(exp: now + timeToLiveSeconds, revision: revision, username: "\(user)"))
            let signed = TokenSigner.base64url(header) + [UInt8(ascii: ".")] + TokenSigner.base64url(payload)
            return signed + [UInt8(ascii: ".")] + TokenSigner.base64url(try signature(of: Data(signed)))
        } catch let error as ServiceError {
            throw error
        } catch {
            throw ServiceError(.internal, "quarterdeck: the token could not be signed")
        }
    }

    private func signature(of data: Data) throws -> Data {
        switch key {
        case .hmac256(let key): return Data(HMAC<SHA256>.authenticationCode(for: data, using: key))
        case .hmac384(let key): return Data(HMAC<SHA384>.authenticationCode(for: data, using: key))
        case .hmac512(let key): return Data(HMAC<SHA512>.authenticationCode(for: data, using: key))
        case .rsa(let key?, _, let padding, let bits):
            switch bits {
            case 256: return try key.signature(for: SHA256.hash(data: data), padding: padding).rawRepresentation
            case 384: return try key.signature(for: SHA384.hash(data: data), padding: padding).rawRepresentation
            default: return try key.signature(for: SHA512.hash(data: data), padding: padding).rawRepresentation
            }
        case .p256(let key?, _): return try key.signature(for: data).rawRepresentation
        case .p384(let key?, _): return try key.signature(for: data).rawRepresentation
        case .p521(let key?, _): return try key.signature(for: data).rawRepresentation
        case .rsa, .p256, .p384, .p521: throw ServiceError.verifyOnlyKey
        }
    }

    // MARK: Checking

    /// nil for whatever is wrong with it.
    func check(_ token: [UInt8], at now: Int64) -> Claims? {
        guard token.count <= TokenSigner.maxTokenBytes else { return nil }
        let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, let head = TokenSigner.data(base64url: parts[0]), let body = TokenSigner.data(base64url: parts[1]),
              let signature = TokenSigner.data(base64url: parts[2]) else { return nil }
        // The method is the configured one; what the token says of it is only compared. ("none", or a public key taken for an HMAC secret)
        guard let header = try? JSONDecoder().decode(Header.self, from: head), header.alg == algorithm else { return nil }
        guard isValid(signature, for: Data(token[..<parts[1].endIndex])) else { return nil }
        guard let payload = try? JSONDecoder().decode(Payload.self, from: body) else { return nil }
        let time = Double(now)
        guard payload.exp.map({ time < $0 }) ?? true, payload.nbf.map({ time >= $0 }) ?? true, payload.iat.map({ time >= $0 }) ?? true else { return nil }
        guard payload.revision >= 0, payload.revision < 0x1p63 else { return nil }
        return Claims(user: UserName(payload.username), revision: UInt64(payload.revision), expires: payload.exp.flatMap { Int64(exactly: $0.rounded(.down)) })
    }

    private func isValid(_ signature: Data, for data: Data) -> Bool {
        switch key {
        case .hmac256(let key): return HMAC<SHA256>.isValidAuthenticationCode(signature, authenticating: data, using: key)
        case .hmac384(let key): return HMAC<SHA384>.isValidAuthenticationCode(signature, authenticating: data, using: key)
        case .hmac512(let key): return HMAC<SHA512>.isValidAuthenticationCode(signature, authenticating: data, using: key)
        case .rsa(_, let key, let padding, let bits):
            let signature = _RSA.Signing.RSASignature(rawRepresentation: signature)
            switch bits {
            case 256: return key.isValidSignature(signature, for: SHA256.hash(data: data), padding: padding)
            case 384: return key.isValidSignature(signature, for: SHA384.hash(data: data), padding: padding)
            default: return key.isValidSignature(signature, for: SHA512.hash(data: data), padding: padding)
            }
        case .p256(_, let key):
            guard let signature = try? P256.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
            return key.isValidSignature(signature, for: data)
        case .p384(_, let key):
            guard let signature = try? P384.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
            return key.isValidSignature(signature, for: data)
        case .p521(_, let key):
            guard let signature = try? P521.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
            return key.isValidSignature(signature, for: data)
        }
    }

    // MARK: Base64

    private static func base64url(_ data: Data) -> [UInt8] {
        data.base64EncodedData().compactMap { byte in
            switch byte {
            case UInt8(ascii: "+"): UInt8(ascii: "-")
            case UInt8(ascii: "/"): UInt8(ascii: "_")
            case UInt8(ascii: "="): nil
            default: byte
            }
        }
    }

    private static func data(base64url text: ArraySlice<UInt8>) -> Data? {
        var standard = Data()
        for byte in text {
            switch byte {
            case UInt8(ascii: "-"): standard.append(UInt8(ascii: "+"))
            case UInt8(ascii: "_"): standard.append(UInt8(ascii: "/"))
            case UInt8(ascii: "+"), UInt8(ascii: "/"), UInt8(ascii: "="): return nil
            default: standard.append(byte)
            }
        }
        while standard.count % 4 != 0 { standard.append(UInt8(ascii: "=")) }
        return Data(base64Encoded: standard)
    }
}
