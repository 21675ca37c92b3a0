import Base
import CCrypt

/// Passwords as etcd stores them: bcrypt's text form, by the system's libcrypt. Takes tens of milliseconds on purpose; call it on
/// `PasswordThread`.
enum Bcrypt {
    static let costs = 4...31
    static let defaultCost = 10
    /// More is not looked at by the algorithm. etcd refuses it since Go's library does.
    static let maxPasswordBytes = 72

    /// The hash is correct bcrypt under etcd's name for it. libcrypt's own "2a" guards against a bug of an old library by computing
    /// something else for some passwords; its "2b" is what Go computes.
    private static let etcdPrefix = Array("$2a$".utf8)
    private static let hashBytes = 60

    static func hash(_ password: Secret, cost: Int) throws(ServiceError) -> [UInt8] {
        precondition(costs.contains(cost), "bcrypt cost \(cost)")
        guard password.count <= maxPasswordBytes else { throw .passwordTooLong }
        guard !password.containsZero else { throw .passwordWithZero }
        var generator = SystemRandomNumberGenerator()
        let salt = (0..<16).map { _ in CChar(truncatingIfNeeded: generator.next() as UInt64) }
        var setting = [CChar](repeating: 0, count: 64)
        guard crypt_gensalt_rn("$2b$", UInt(cost), salt, Int32(salt.count), &setting, Int32(setting.count)) != nil,
              let hash = compute(password, setting) else { throw .hashingFailed }
        return etcdPrefix + hash.dropFirst(etcdPrefix.count)
    }

    /// False for everything that is no bcrypt hash, too.
    static func matches(_ password: Secret, _ hash: [UInt8]) -> Bool {
        guard hash.count == hashBytes, hash[0] == UInt8(ascii: "$"), hash[1] == UInt8(ascii: "2"), hash[3] == UInt8(ascii: "$"),
              [UInt8(ascii: "a"), UInt8(ascii: "b"), UInt8(ascii: "y")].contains(hash[2]), !password.containsZero else { return false }
        let setting = Array("$2b$".utf8) + hash[4..<29]
        guard let computed = compute(password, setting.map { CChar(bitPattern: $0) } + [0]) else { return false }
        // In a time that does not tell where they differ.
        var difference: UInt8 = 0
        for (a, b) in zip(computed.dropFirst(4), hash.dropFirst(4)) { difference |= a ^ b }
        return difference == 0
    }

    /// A hash that no password has, so that an unknown user takes as long to refuse as a known one.
    static func decoy(cost: Int) -> [UInt8] {
        Array("$2a$\(cost < 10 ? "0" : "")\(cost)$".utf8) + [UInt8](repeating: UInt8(ascii: "."), count: 53)
    }

    /// nil: libcrypt does not take the setting, or has no memory.
    private static func compute(_ password: Secret, _ setting: [CChar]) -> [UInt8]? {
        let data = UnsafeMutableRawPointer.allocate(byteCount: MemoryLayout<crypt_data>.size, alignment: MemoryLayout<crypt_data>.alignment)
        data.initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<crypt_data>.size)
        defer {
            wipe(data, MemoryLayout<crypt_data>.size)
            data.deallocate()
        }
        return password.withCString { text in
            guard let result = crypt_rn(text, setting, data, Int32(MemoryLayout<crypt_data>.size)) else { return nil }
            let hash = UnsafeRawBufferPointer(start: result, count: hashBytes).prefix { $0 != 0 }
            return hash.count == hashBytes ? [UInt8](hash) : nil
        }
    }
}

extension ServiceError {
    /// Go's words, which etcd passes on.
    static let passwordTooLong = ServiceError(.unknown, "bcrypt: password length exceeds 72 bytes")
    /// etcd takes such passwords; libcrypt would look only at what stands before the zero.
    static let passwordWithZero = ServiceError(.invalidArgument, "quarterdeck: a password cannot contain a zero byte")
    static let hashingFailed = ServiceError(.internal, "quarterdeck: the password could not be hashed")
    static let verifyOnlyKey = ServiceError(.unknown, "auth: token signing attempted with verify-only key")
}
