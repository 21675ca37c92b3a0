import NIOSSL

/// What a port does about TLS, as etcd's flags say it. Files are PEM; an empty path means that the flag was not given.
public struct TLSOptions: Hashable, Sendable {
    public var certificateFile = ""
    public var keyFile = ""
    /// What this member shows when it dials; empty: what it shows as a server.
    public var clientCertificateFile = ""
    public var clientKeyFile = ""
    /// Who vouches for the other side. Given, it makes a certificate of the other side mandatory.
    public var trustedCAFile = ""
    /// `--client-cert-auth`: a verified certificate is mandatory, and its common name says who a client is.
    public var requiresClientCertificate = false
    public var revocationListFile = ""
    /// The other side's leaf must have one of these common names; empty: any. Peers only.
    public var allowedCommonNames: [String] = []
    /// The other side's leaf must be good for one of these hosts or addresses; empty: any.
    public var allowedHostnames: [String] = []
    /// Make a certificate at the first start.
    public var isAutomatic = false
    /// Do not compare a peer's address with the names in its certificate. Peers only.
    public var skipsAddressCheck = false

    public init() {}

    var hasCertificate: Bool { !certificateFile.isEmpty || !keyFile.isEmpty }
    /// Whether who connects has to show a certificate. (etcd: the authority alone demands it)
    var demandsCertificate: Bool { requiresClientCertificate || !trustedCAFile.isEmpty }
}

/// TLS of a node: its two ports, and what they have in common.
public struct NodeTLS: Hashable, Sendable {
    public var client = TLSOptions()
    public var peer = TLSOptions()
    /// Go's names, in the order of preference; empty: the library's choice.
    public var cipherSuites: [String] = []
    /// `TLS1.2` or `TLS1.3`.
    public var minimumVersion = "TLS1.2"
    /// Empty: the newest.
    public var maximumVersion = ""
    /// How long certificates live that a node makes for itself.
    public var selfSignedValidityYears = 1

    public init() {}

    /// What was asked for in the library's terms.
    /// - Throws: `NodeError.configuration` in etcd's words where it has some.
    func rules() throws(NodeError) -> TLSRules {
        let minimum = try NodeTLS.version(minimumVersion, "--tls-min-version") ?? .tlsv12
        let maximum = try NodeTLS.version(maximumVersion, "--tls-max-version")
        if minimum == .tlsv13, maximum == .tlsv12 {
            throw .configuration("min version (\(minimumVersion)) is greater than max version (\(maximumVersion)): lower --tls-min-version or raise --tls-max-version")
        }
        if minimum == .tlsv13, !cipherSuites.isEmpty {
            throw .configuration("cipher suites cannot be configured when only TLS1.3 is enabled: leave --cipher-suites out, or set --tls-min-version to TLS1.2")
        }
        let suites = try CipherSuites.parse(cipherSuites)
        return try TLSRules(minimum: minimum, maximum: maximum, suites: suites)
    }

    private static func version(_ text: String, _ flag: String) throws(NodeError) -> TLSVersion? {
        switch text {
        case "": nil
        case "TLS1.2": .tlsv12
        case "TLS1.3": .tlsv13
        default: throw .configuration("\(flag): unexpected TLS version \"\(text)\" (must be one of: TLS1.2, TLS1.3)")
        }
    }

    /// Refuses what cannot work, before anything is opened.
    func validate(clientURLs: [NodeURL], peerURLs: [NodeURL]) throws(NodeError) {
        _ = try rules()
        for side in [TLSSide.client, .peer] {
            let (options, urls) = side == .client ? (client, clientURLs) : (peer, peerURLs)
            if options.certificateFile.isEmpty != options.keyFile.isEmpty {
                throw .configuration("\(side.flag("cert-file")) and \(side.flag("key-file")) belong together: \(side.flag(options.keyFile.isEmpty ? "key-file" : "cert-file")) is missing")
            }
            if options.clientCertificateFile.isEmpty != options.clientKeyFile.isEmpty {
                throw .configuration("\(side.flag("client-cert-file")) and \(side.flag("client-key-file")) belong together: "
                    + "\(side.flag(options.clientKeyFile.isEmpty ? "client-key-file" : "client-cert-file")) is missing")
            }
            if !options.allowedCommonNames.isEmpty, !options.allowedHostnames.isEmpty {
                throw .configuration("--peer-cert-allowed-cn and --peer-cert-allowed-hostname are mutually exclusive: give one of them")
            }
            if options.isAutomatic, !options.hasCertificate, selfSignedValidityYears < 1 {
                throw .configuration("--self-signed-cert-validity must be at least 1 year when \(side.flag("auto-tls")) makes certificates")
            }
            if let url = urls.first(where: { $0.scheme == "https" }), !options.hasCertificate, !options.isAutomatic {
                throw .configuration("TLS key/cert (\(side.flag("cert-file")), \(side.flag("key-file"))) must be provided for \(side) url \(url) with HTTPS scheme; "
                    + "\(side.flag("auto-tls")) makes them")
            }
        }
    }
}

/// Versions and cipher suites of every connection of a node.
struct TLSRules: Hashable, Sendable {
    var minimum: TLSVersion
    var maximum: TLSVersion?
    /// For TLS 1.2; nil: the library's choice.
    var suites: [NIOTLSCipher]?

    /// - Parameter suites: as given; those of TLS 1.3 cannot be chosen among, as in Go, and alone they leave only TLS 1.3.
    init(minimum: TLSVersion, maximum: TLSVersion?, suites: [NIOTLSCipher]) throws(NodeError) {
        self.minimum = minimum
        self.maximum = maximum
        let older = suites.filter { !CipherSuites.isForTLS13($0) }
        if suites.isEmpty { return }
        if older.isEmpty {
            guard maximum != .tlsv12 else {
                throw .configuration("--cipher-suites names suites of TLS1.3 only, and --tls-max-version excludes TLS1.3: name suites of TLS1.2")
            }
            self.minimum = .tlsv13
        } else {
            self.suites = older
        }
    }

    func apply(to configuration: inout TLSConfiguration) {
        configuration.minimumTLSVersion = minimum
        configuration.maximumTLSVersion = maximum
        if let suites { configuration.cipherSuiteValues = suites }
        // BoringSSL's own lists lack P-521, with which etcd makes and signs its certificates.
        configuration.curves = [.x25519, .secp256r1, .secp384r1, .secp521r1]
        configuration.verifySignatureAlgorithms = [
            .ecdsaSecp256R1Sha256, .ecdsaSecp384R1Sha384, .ecdsaSecp521R1Sha512, .ed25519, .rsaPssRsaeSha256, .rsaPssRsaeSha384, .rsaPssRsaeSha512,
            .rsaPkcs1Sha256, .rsaPkcs1Sha384, .rsaPkcs1Sha512,
        ]
    }
}

/// The two ports, and how the flags of each are called.
enum TLSSide: String, CustomStringConvertible, Sendable {
    case client, peer

    var description: String { rawValue }

    /// - Parameter name: as it is without a prefix: `cert-file`, `key-file`, `trusted-ca-file`, `crl-file`, `client-cert-auth` ...
    func flag(_ name: String) -> String {
        switch (self, name) {
        case (.client, "crl-file"), (.client, "cert-allowed-hostname"): "--client-\(name)"
        case (.client, _): "--\(name)"
        case (.peer, _): "--peer-\(name)"
        }
    }
}
