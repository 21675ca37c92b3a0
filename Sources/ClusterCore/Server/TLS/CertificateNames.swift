import NIOCore
import NIOSSL
import SwiftASN1
import X509
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Whom a certificate is for.
struct CertificateNames: Hashable, Sendable {
    /// The last one of the subject, as Go has it; empty: none.
    var commonName = ""
    var dnsNames: [String] = []
    /// 4 or 16 bytes each.
    var addresses: [[UInt8]] = []

    init(commonName: String = "", dnsNames: [String] = [], addresses: [[UInt8]] = []) {
        self.commonName = commonName
        self.dnsNames = dnsNames
        self.addresses = addresses
    }

    /// - Throws: when it is no certificate after all, or its extensions are none.
    init(_ certificate: NIOSSLCertificate) throws {
        let parsed = try Certificate(derEncoded: try certificate.toDERBytes())
        for attribute in parsed.subject.flatMap({ Array($0) }) where attribute.type == .RDNAttributeType.commonName {
            commonName = String(attribute.value) ?? ""
        }
        for name in try parsed.extensions.subjectAlternativeNames ?? SubjectAlternativeNames() {
            switch name {
            case .dnsName(let name): dnsNames.append(name)
            case .ipAddress(let address): addresses.append(Array(address.bytes))
            default: break
            }
        }
    }

    /// Whether it is good for this host name or address, by Go's rules: only the alternative names count, `*` stands for one whole first label.
    func isGood(for host: String) -> Bool {
        let bare = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
        if let address = CertificateNames.addressBytes(bare) { return addresses.contains(address) }
        let wanted = CertificateNames.labels(host)
        return !wanted.isEmpty && dnsNames.contains { pattern in
            let labels = CertificateNames.labels(pattern)
            guard labels.count == wanted.count else { return false }
            return labels.first == "*" ? labels.count > 1 && labels.dropFirst() == wanted.dropFirst() : labels == wanted
        }
    }

    private static func labels(_ name: String) -> [Substring] {
        (name.hasSuffix(".") ? String(name.lowercased().dropLast()) : name.lowercased()).split(separator: ".", omittingEmptySubsequences: false)
    }

    /// The bytes of an address in text; nil: it is a name. An IPv4 address in IPv6 clothes is an IPv4 address.
    static func addressBytes(_ text: String) -> [UInt8]? {
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: &four) { Array($0) } }
        var six = in6_addr()
        guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
        let bytes = withUnsafeBytes(of: &six) { Array($0) }
        return bytes.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] ? Array(bytes.suffix(4)) : bytes
    }

    // MARK: A peer's address

    /// etcd's check of a peer: its address is in its certificate, or one of the names there leads to it, or its own name is there. A certificate
    /// without names is not checked. Asks the resolver, so it blocks.
    /// - Returns: what is wrong; nil: nothing.
    func mismatch(withAddress address: String) -> String? {
        if addresses.isEmpty, dnsNames.isEmpty { return nil }
        if isGood(for: address) { return nil }
        if dnsNames.isEmpty { return "the certificate is valid for \(addressTexts.joined(separator: ", ")), not for \(address)" }
        let own = CertificateNames.reverse(address)
        let plain = dnsNames.filter { !$0.hasPrefix("*.") }
        if own.map({ isGood(for: $0) }) ?? false { return nil }
        if let bytes = CertificateNames.addressBytes(address), plain.contains(where: { CertificateNames.lookUp($0).contains(bytes) }) { return nil }
        return "\"\(address)\" does not match any of DNSNames [\(dnsNames.map { "\"\($0)\"" }.joined(separator: " "))]"
    }

    private var addressTexts: [String] {
        addresses.map { bytes in
            var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
            _ = bytes.withUnsafeBytes { inet_ntop(bytes.count == 4 ? AF_INET : AF_INET6, $0.baseAddress, &text, socklen_t(text.count)) }
            return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    private static func lookUp(_ name: String) -> [[UInt8]] {
        var hints = addrinfo()
        #if canImport(Darwin)
        hints.ai_socktype = SOCK_STREAM
        #else
        hints.ai_socktype = numericCast(SOCK_STREAM.rawValue)
        #endif
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, nil, &hints, &list) == 0 else { return [] }
        defer { freeaddrinfo(list) }
        var found: [[UInt8]] = []
        var next = list
        while let entry = next?.pointee {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            if getnameinfo(entry.ai_addr, entry.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0,
               let bytes = addressBytes(String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)) {
                found.append(bytes)
            }
            next = entry.ai_next
        }
        return found
    }

    private static func reverse(_ address: String) -> String? {
        guard let socket = try? SocketAddress(ipAddress: address, port: 0) else { return nil }
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let result = socket.withSockAddr { pointer, length in
            getnameinfo(pointer, socklen_t(length), &text, socklen_t(text.count), nil, 0, NI_NAMEREQD)
        }
        return result == 0 ? String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
    }
}
