import ArgumentParser
import Foundation
import Server

/// etcd's flags for TLS on the client and the peer port.
struct ServeTLSFlags: ParsableArguments {
    @Option(name: .customLong("cert-file"), help: "Certificate of the client port (PEM).") var certFile: String?
    @Option(name: .customLong("key-file"), help: "Its key.") var keyFile: String?
    @Option(name: .customLong("client-cert-file"), help: "Accepted for etcd's sake.") var clientCertFile: String?
    @Option(name: .customLong("client-key-file"), help: "Accepted for etcd's sake.") var clientKeyFile: String?
    @Option(name: .customLong("trusted-ca-file"), help: "Authorities of clients' certificates; given, clients must show one.") var trustedCAFile: String?
    @Option(name: .customLong("client-cert-auth"), help: "Clients must show a certificate, and its common name is their user. (default: false)") var clientCertAuth: String?
    @Option(name: .customLong("client-crl-file"), help: "Revoked certificates of clients.") var clientCRLFile: String?
    @Option(name: .customLong("client-cert-allowed-hostname"), help: "Hosts of which clients' certificates must name one.") var clientAllowedHostname: String?
    @Option(name: .customLong("auto-tls"), help: "Make a certificate for the client port. (default: false)") var autoTLS: String?
    @Option(name: .customLong("peer-cert-file"), help: "Certificate of the peer port (PEM).") var peerCertFile: String?
    @Option(name: .customLong("peer-key-file"), help: "Its key.") var peerKeyFile: String?
    @Option(name: .customLong("peer-client-cert-file"), help: "Certificate to dial peers with. (default: --peer-cert-file)") var peerClientCertFile: String?
    @Option(name: .customLong("peer-client-key-file"), help: "Its key.") var peerClientKeyFile: String?
    @Option(name: .customLong("peer-trusted-ca-file"), help: "Authorities of peers' certificates; given, peers must show one.") var peerTrustedCAFile: String?
    @Option(name: .customLong("peer-client-cert-auth"), help: "Peers must show a certificate. (default: false)") var peerClientCertAuth: String?
    @Option(name: .customLong("peer-crl-file"), help: "Revoked certificates of peers.") var peerCRLFile: String?
    @Option(name: .customLong("peer-cert-allowed-cn"), help: "Common names of which peers' certificates must have one.") var peerAllowedCN: String?
    @Option(name: .customLong("peer-cert-allowed-hostname"), help: "Hosts of which peers' certificates must name one.") var peerAllowedHostname: String?
    @Option(name: .customLong("peer-auto-tls"), help: "Make a certificate for the peer port. (default: false)") var peerAutoTLS: String?
    @Option(name: [.customLong("experimental-peer-skip-client-san-verification"), .customLong("peer-skip-client-san-verification")],
            help: "Do not compare a peer's address with its certificate. (default: false)") var peerSkipsSAN: String?
    @Option(name: .customLong("self-signed-cert-validity"), help: "Years that certificates live which were made. (default: 1)") var selfSignedValidity: String?
    @Option(name: .customLong("cipher-suites"), help: "Suites for TLS 1.2, with Go's names.") var cipherSuites: String?
    @Option(name: .customLong("tls-min-version"), help: "TLS1.2 or TLS1.3. (default: TLS1.2)") var tlsMinVersion: String?
    @Option(name: .customLong("tls-max-version"), help: "TLS1.2 or TLS1.3. (default: the newest)") var tlsMaxVersion: String?

    /// Those that stand for true when they have no value: in etcd `--auto-tls` and `--auto-tls=true` are the same.
    private static let switches: Set<String> = [
        "--client-cert-auth", "--auto-tls", "--peer-client-cert-auth", "--peer-auto-tls", "--experimental-peer-skip-client-san-verification",
        "--peer-skip-client-san-verification",
    ]

    static func spelledOut(_ arguments: [String]) -> [String] {
        guard arguments.first == "serve" else { return arguments }
        return arguments.map { switches.contains($0) || ServeHTTPFlags.switches.contains($0) ? $0 + "=true" : $0 }
    }

    /// Options over environment over defaults. Whether they fit together is the node's to say.
    func settings(environment: [String: String]) throws(CommandFailure) -> NodeTLS {
        func text(_ option: String?, _ flag: String) -> String {
            option ?? environment["ETCD_" + flag.uppercased().replacingOccurrences(of: "-", with: "_")] ?? ""
        }
        func list(_ option: String?, _ flag: String) -> [String] {
            text(option, flag).split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        }
        func truth(_ option: String?, _ flag: String) throws(CommandFailure) -> Bool {
            switch text(option, flag) {
            case "true", "1", "t", "T", "TRUE", "True": true
            case "", "false", "0", "f", "F", "FALSE", "False": false
            case let other: throw CommandFailure(description: "--\(flag) \(other): expected true or false", status: 64)
            }
        }
        var tls = NodeTLS()
        tls.client.certificateFile = text(certFile, "cert-file")
        tls.client.keyFile = text(keyFile, "key-file")
        tls.client.clientCertificateFile = text(clientCertFile, "client-cert-file")
        tls.client.clientKeyFile = text(clientKeyFile, "client-key-file")
        tls.client.trustedCAFile = text(trustedCAFile, "trusted-ca-file")
        tls.client.requiresClientCertificate = try truth(clientCertAuth, "client-cert-auth")
        tls.client.revocationListFile = text(clientCRLFile, "client-crl-file")
        tls.client.allowedHostnames = list(clientAllowedHostname, "client-cert-allowed-hostname")
        tls.client.isAutomatic = try truth(autoTLS, "auto-tls")
        tls.peer.certificateFile = text(peerCertFile, "peer-cert-file")
        tls.peer.keyFile = text(peerKeyFile, "peer-key-file")
        tls.peer.clientCertificateFile = text(peerClientCertFile, "peer-client-cert-file")
        tls.peer.clientKeyFile = text(peerClientKeyFile, "peer-client-key-file")
        tls.peer.trustedCAFile = text(peerTrustedCAFile, "peer-trusted-ca-file")
        tls.peer.requiresClientCertificate = try truth(peerClientCertAuth, "peer-client-cert-auth")
        tls.peer.revocationListFile = text(peerCRLFile, "peer-crl-file")
        tls.peer.allowedCommonNames = list(peerAllowedCN, "peer-cert-allowed-cn")
        tls.peer.allowedHostnames = list(peerAllowedHostname, "peer-cert-allowed-hostname")
        tls.peer.isAutomatic = try truth(peerAutoTLS, "peer-auto-tls")
        let skips = try truth(peerSkipsSAN, "experimental-peer-skip-client-san-verification")
        let skipsByNewName = try truth(nil, "peer-skip-client-san-verification")
        tls.peer.skipsAddressCheck = skips || skipsByNewName
        tls.cipherSuites = list(cipherSuites, "cipher-suites")
        let minimum = text(tlsMinVersion, "tls-min-version")
        if !minimum.isEmpty { tls.minimumVersion = minimum }
        tls.maximumVersion = text(tlsMaxVersion, "tls-max-version")
        let years = text(selfSignedValidity, "self-signed-cert-validity")
        if !years.isEmpty {
            guard let read = Int(years), (0...1_000).contains(read) else {
                throw CommandFailure(description: "--self-signed-cert-validity \(years): expected a number of years", status: 64)
            }
            tls.selfSignedValidityYears = read
        }
        return tls
    }
}
