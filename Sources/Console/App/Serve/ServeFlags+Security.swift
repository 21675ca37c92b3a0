extension ServeFlags {
    static let security = ServeFlagGroup(title: "Security", flags: [
        ServeFlag("cert-file", .text, "", "Certificate of the client port (PEM)."),
        ServeFlag("key-file", .text, "", "Its key."),
        ServeFlag("client-cert-file", .text, "", "Accepted for etcd's sake: nothing here dials the client port over TLS."),
        ServeFlag("client-key-file", .text, "", "Accepted for etcd's sake, too."),
        ServeFlag("client-cert-auth", .truth, "false", "Clients must show a certificate, and its common name is their user."),
        ServeFlag("client-crl-file", .text, "", "Revoked certificates of clients."),
        ServeFlag("client-cert-allowed-hostname", .list, "", "Hosts of which clients' certificates must name one."),
        ServeFlag("trusted-ca-file", .text, "", "Authorities of clients' certificates; given, clients must show one."),
        ServeFlag("auto-tls", .truth, "false", "Make a certificate for the client port."),
        ServeFlag("peer-cert-file", .text, "", "Certificate of the peer port (PEM)."),
        ServeFlag("peer-key-file", .text, "", "Its key."),
        ServeFlag("peer-client-cert-file", .text, "", "Certificate to dial peers with. Nothing given: --peer-cert-file."),
        ServeFlag("peer-client-key-file", .text, "", "Its key."),
        ServeFlag("peer-client-cert-auth", .truth, "false", "Peers must show a certificate."),
        ServeFlag("peer-trusted-ca-file", .text, "", "Authorities of peers' certificates; given, peers must show one."),
        ServeFlag("peer-crl-file", .text, "", "Revoked certificates of peers."),
        ServeFlag("peer-cert-allowed-cn", .list, "", "Common names of which peers' certificates must have one."),
        ServeFlag("peer-cert-allowed-hostname", .list, "", "Hosts of which peers' certificates must name one."),
        ServeFlag("peer-auto-tls", .truth, "false", "Make a certificate for the peer port."),
        ServeFlag("experimental-peer-skip-client-san-verification", .truth, "false", also: ["peer-skip-client-san-verification"],
                  "Do not compare a peer's address with its certificate."),
        ServeFlag("self-signed-cert-validity", .number(0...1_000), "1", "Years that certificates live which were made."),
        ServeFlag("cipher-suites", .list, "", "Suites for TLS 1.2, with Go's names."),
        ServeFlag("tls-min-version", .text, "TLS1.2", "TLS1.2 or TLS1.3."),
        ServeFlag("tls-max-version", .text, "", "TLS1.2 or TLS1.3. Nothing given: the newest."),
    ])

    static let auth = ServeFlagGroup(title: "Users", flags: [
        ServeFlag("auth-token", .text, "simple", "How users are recognised: simple, or jwt,sign-method=...,pub-key=...,priv-key=...,ttl=..."),
        ServeFlag("auth-token-ttl", .number(0...1_000_000_000), "300", "Seconds that a simple token lives after its last use."),
        // Beyond its range etcd takes the default, and so does the node.
        ServeFlag("bcrypt-cost", .number(0...1_000), "10", "Cost of hashing a password, 4 to 31."),
    ])
}
