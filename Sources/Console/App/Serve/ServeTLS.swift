import Server

extension NodeTLS {
    /// Whether they fit together is the node's to say.
    init(_ settings: ServeSettings) {
        self.init()
        client.certificateFile = settings.text("cert-file")
        client.keyFile = settings.text("key-file")
        client.clientCertificateFile = settings.text("client-cert-file")
        client.clientKeyFile = settings.text("client-key-file")
        client.trustedCAFile = settings.text("trusted-ca-file")
        client.requiresClientCertificate = settings.truth("client-cert-auth")
        client.revocationListFile = settings.text("client-crl-file")
        client.allowedHostnames = settings.list("client-cert-allowed-hostname")
        client.isAutomatic = settings.truth("auto-tls")
        peer.certificateFile = settings.text("peer-cert-file")
        peer.keyFile = settings.text("peer-key-file")
        peer.clientCertificateFile = settings.text("peer-client-cert-file")
        peer.clientKeyFile = settings.text("peer-client-key-file")
        peer.trustedCAFile = settings.text("peer-trusted-ca-file")
        peer.requiresClientCertificate = settings.truth("peer-client-cert-auth")
        peer.revocationListFile = settings.text("peer-crl-file")
        peer.allowedCommonNames = settings.list("peer-cert-allowed-cn")
        peer.allowedHostnames = settings.list("peer-cert-allowed-hostname")
        peer.isAutomatic = settings.truth("peer-auto-tls")
        peer.skipsAddressCheck = settings.truth("experimental-peer-skip-client-san-verification")
        cipherSuites = settings.list("cipher-suites")
        minimumVersion = settings.text("tls-min-version")
        maximumVersion = settings.text("tls-max-version")
        selfSignedValidityYears = settings.number("self-signed-cert-validity")
    }
}
