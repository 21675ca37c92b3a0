import Crypto
import Foundation
import SwiftASN1
import X509

/// The certificates that a node makes for itself (`--auto-tls`, `--peer-auto-tls`): as etcd's, P-521, in DATA-DIR/fixtures.
enum SelfSignedCertificate {
    /// Those that are there are used again, as etcd does, also when they have run out.
    /// - Parameters:
    ///   - hosts: names and addresses that they are for.
    ///   - directory: made if it is not there, for the node alone.
    /// - Returns: paths, and whether they are new.
    static func find(in directory: String, hosts: [String], validityYears: Int, now: Date = Date()) throws(NodeError) -> (certificate: String, key: String, isNew: Bool) {
        let (certificate, key) = (directory + "/cert.pem", directory + "/key.pem")
        let files = FileManager.default
        if files.fileExists(atPath: certificate), files.fileExists(atPath: key) { return (certificate, key, false) }
        do {
            try files.createDirectory(atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            let made = try make(hosts: hosts, validityYears: validityYears, now: now)
            // The key first: a certificate without its key would be in the way of the next start.
            try write(made.key, to: key, permissions: 0o600)
            try write(made.certificate, to: certificate, permissions: 0o644)
        } catch {
            throw .dataDirectory("cannot make a certificate in \(directory): \(error.localizedDescription)")
        }
        return (certificate, key, true)
    }

    private static func write(_ text: String, to path: String, permissions: Int) throws {
        let new = path + ".new"
        try? FileManager.default.removeItem(atPath: new)
        guard FileManager.default.createFile(atPath: new, contents: Data(text.utf8), attributes: [.posixPermissions: permissions]) else {
            throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: path])
        }
        guard rename(new, path) == 0 else { throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: path]) }
    }

    /// PEM texts.
    static func make(hosts: [String], validityYears: Int, now: Date) throws -> (certificate: String, key: String) {
        let key = P521.Signing.PrivateKey()
        let name = try DistinguishedName { OrganizationName("etcd") }
        var names: [GeneralName] = []
        for host in hosts {
            let bare = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
            let next = CertificateNames.addressBytes(bare).map { GeneralName.ipAddress(ASN1OctetString(contentBytes: $0[...])) } ?? .dnsName(host)
            if !names.contains(next) { names.append(next) }
        }
        let extensions = try Certificate.Extensions {
            Critical(KeyUsage(digitalSignature: true, keyEncipherment: true, cRLSign: true))
            try ExtendedKeyUsage([.serverAuth])
            Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
            SubjectAlternativeNames(names)
        }
        let certificate = try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(key.publicKey), notValidBefore: now,
            notValidAfter: now.addingTimeInterval(Double(validityYears) * 365 * 86_400), issuer: name, subject: name,
            signatureAlgorithm: .ecdsaWithSHA512, extensions: extensions, issuerPrivateKey: .init(key))
        return (try certificate.serializeAsPEM().pemString + "\n", key.pemRepresentation + "\n")
    }
}
