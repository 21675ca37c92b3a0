import SwiftASN1

/// The serial numbers that a certificate authority has taken back. As etcd does, a certificate counts as revoked by its number alone.
struct RevocationList: Hashable, Sendable {
    private(set) var serials: Set<[UInt8]> = []

    init(serials: Set<[UInt8]> = []) { self.serials = serials }

    /// - Parameter bytes: a file, PEM or DER. (RFC 5280 §5.1)
    init(file bytes: [UInt8]) throws {
        let text = String(decoding: bytes, as: UTF8.self)
        let der = text.contains("-----BEGIN") ? try PEMDocument(pemString: text).derBytes : bytes
        self = try DER.sequence(try DER.parse(der), identifier: .sequence) { list in
            guard let first = list.next() else { throw TLSFault("an empty revocation list") }
            let signed = try DER.sequence(first, identifier: .sequence) { fields in
                // version, when there is one, signature, issuer, thisUpdate, nextUpdate, when there is one; then what is wanted.
                var serials: Set<[UInt8]> = []
                var sequences = 0
                while let field = fields.next() {
                    guard field.identifier == .sequence else { continue }
                    sequences += 1
                    // The algorithm and the issuer are sequences, too.
                    guard sequences == 3 else { continue }
                    try DER.sequence(field, identifier: .sequence) { entries in
                        while let entry = entries.next() {
                            try DER.sequence(entry, identifier: .sequence) { parts in
                                serials.insert(RevocationList.canonical(try ArraySlice<UInt8>(derEncoded: &parts)))
                                while parts.next() != nil {}
                            }
                        }
                    }
                }
                return RevocationList(serials: serials)
            }
            while list.next() != nil {}
            return signed
        }
    }

    func contains(_ serial: [UInt8]) -> Bool { serials.contains(RevocationList.canonical(serial[...])) }

    /// Without leading zeros, of which DER has one before a high bit.
    private static func canonical(_ serial: ArraySlice<UInt8>) -> [UInt8] { Array(serial.drop { $0 == 0 }) }
}
