import Crypto
import Foundation
import SwiftASN1
import X509

/// A certificate authority for tests, and what it signs: PEM files in a directory.
public final class TestAuthority {
    public struct Pair: Sendable {
        public var certificate: String
        public var key: String
        public var serial: [UInt8]
    }

    public let file: String
    private let directory: String
    private let name: DistinguishedName
    private let key = P256.Signing.PrivateKey()
    private var crls = 0

    public init(in directory: String, name: String = "ca") throws {
        self.directory = directory
        self.name = try DistinguishedName { CommonName(name) }
        file = directory + "/\(name).pem"
        let now = Date()
        let certificate = try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(key.publicKey), notValidBefore: now - 3_600, notValidAfter: now + 86_400,
            issuer: self.name, subject: self.name, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: nil))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
            }, issuerPrivateKey: .init(key))
        try certificate.serializeAsPEM().pemString.write(toFile: file, atomically: true, encoding: .utf8)
    }

    /// Signs a certificate and writes it and its key; files of the same name are replaced as a renewal does it, by renaming.
    /// - Parameters:
    ///   - hosts: its alternative names; addresses are told by their form.
    ///   - isForServers, isForClients: its extended usages.
    ///   - lifetime: from now, in seconds; negative: it has run out.
    public func issue(_ file: String, commonName: String = "", hosts: [String] = ["127.0.0.1", "localhost"], isForServers: Bool = true, isForClients: Bool = true,
                      lifetime: Double = 86_400) throws -> Pair {
        let own = P256.Signing.PrivateKey()
        let serial = Certificate.SerialNumber()
        let names = hosts.map { host -> GeneralName in
            let parts = host.split(separator: ".").compactMap { UInt8($0) }
            return parts.count == 4 ? .ipAddress(ASN1OctetString(contentBytes: parts[...])) : .dnsName(host)
        }
        var usages: [ExtendedKeyUsage.Usage] = []
        if isForServers { usages.append(.serverAuth) }
        if isForClients { usages.append(.clientAuth) }
        let now = Date()
        let certificate = try Certificate(
            version: .v3, serialNumber: serial, publicKey: .init(own.publicKey), notValidBefore: now - 7_200, notValidAfter: now + lifetime, issuer: name,
            subject: commonName.isEmpty ? try DistinguishedName { OrganizationName("test") } : try DistinguishedName { CommonName(commonName) },
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage(usages)
                SubjectAlternativeNames(names)
            }, issuerPrivateKey: .init(key))
        let pair = Pair(certificate: directory + "/\(file).pem", key: directory + "/\(file)-key.pem", serial: Array(serial.bytes))
        try own.pemRepresentation.write(toFile: pair.key, atomically: true, encoding: .utf8)
        try certificate.serializeAsPEM().pemString.write(toFile: pair.certificate, atomically: true, encoding: .utf8)
        return pair
    }

    /// Writes a list of revoked certificates in the place of any before. (RFC 5280 §5.1)
    public func revoke(_ pairs: [Pair], file: String = "crl") throws -> String {
        let now = Date()
        var signed = DER.Serializer()
        try signed.appendConstructedNode(identifier: .sequence) { fields in
            try fields.serialize(1)
            try TestAuthority.ecdsaWithSHA256(&fields)
            try fields.serialize(name)
            try fields.serialize(TestAuthority.time(now - 3_600))
            try fields.serialize(TestAuthority.time(now + 86_400))
            if pairs.isEmpty { return }
            try fields.appendConstructedNode(identifier: .sequence) { entries in
                for pair in pairs {
                    try entries.appendConstructedNode(identifier: .sequence) { entry in
                        try entry.serialize(pair.serial[...])
                        try entry.serialize(TestAuthority.time(now - 60))
                    }
                }
            }
        }
        let signature = try key.signature(for: signed.serializedBytes)
        var list = DER.Serializer()
        try list.appendConstructedNode(identifier: .sequence) { list in
            list.serializeRawBytes(signed.serializedBytes)
            try TestAuthority.ecdsaWithSHA256(&list)
            try list.serialize(ASN1BitString(bytes: Array(signature.derRepresentation)[...]))
        }
        let path = directory + "/\(file).pem"
        try (PEMDocument(type: "X509 CRL", derBytes: list.serializedBytes).pemString + "\n").write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    private static func ecdsaWithSHA256(_ serializer: inout DER.Serializer) throws {
        try serializer.appendConstructedNode(identifier: .sequence) { try $0.serialize([1, 2, 840, 10_045, 4, 3, 2] as ASN1ObjectIdentifier) }
    }

    private static func time(_ date: Date) throws -> UTCTime {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = TimeZone(secondsFromGMT: 0)!
        let parts = calendar.dateComponents([.year, .month, .day, .hour, .minute, .second], from: date)
        return try UTCTime(year: parts.year!, month: parts.month!, day: parts.day!, hours: parts.hour!, minutes: parts.minute!, seconds: parts.second!)
    }
}
