import Logging

/// The addresses that a node listens on, with TLS where it was asked for, and what it needs to reach its peers.
struct NodePorts: Sendable {
    typealias Port = (url: NodeURL, tls: TLSPort?)
    var clients: [Port]
    /// For HTTP endpoints alone, which `clients` do not serve then.
    var httpClients: [Port]
    /// For metrics alone; https:// with the clients' certificate.
    var metrics: [Port]
    var peers: [Port]
    var dialer: PeerDialer

    /// Makes and reads certificates, so it blocks.
    /// - Throws: what cannot be used, and which flag it comes from.
    init(_ configuration: NodeConfiguration, logger: Logger) throws(NodeError) {
        let rules = try configuration.tls.rules()
        func material(_ side: TLSSide, _ given: TLSOptions, _ urls: [NodeURL]) throws(NodeError) -> TLSMaterial {
            var options = given
            var isSelfSigned = false
            if options.isAutomatic {
                if options.hasCertificate {
                    logger.warning("\(side.flag("auto-tls")) is ignored since \(side.flag("cert-file")) is given")
                } else {
                    if options.demandsCertificate {
                        logger.warning("\(side.flag("client-cert-auth")) and \(side.flag("trusted-ca-file")) are ignored with \(side.flag("auto-tls")): nobody vouches for certificates that members make themselves")
                    }
                    let directory = configuration.effectiveDataDirectory + "/fixtures/\(side)"
                    let made = try SelfSignedCertificate.find(in: directory, hosts: urls.map(\.host), validityYears: configuration.tls.selfSignedValidityYears)
                    if made.isNew { logger.warning("automatically generated certificate", metadata: ["file": "\(made.certificate)", "port": "\(side)"]) }
                    options = TLSOptions()
                    (options.certificateFile, options.keyFile) = (made.certificate, made.key)
                    isSelfSigned = true
                }
            }
            for url in urls where url.scheme == "http" && options.hasCertificate {
                logger.warning("scheme is HTTP while key and cert files are present; ignoring key and cert files", metadata: ["\(side)-url": "\(url)"])
            }
            for url in urls where url.scheme == "http" && options.requiresClientCertificate {
                logger.warning("scheme is HTTP while \(side.flag("client-cert-auth")) is enabled; ignoring client cert auth for this URL", metadata: ["\(side)-url": "\(url)"])
            }
            if !options.allowedCommonNames.isEmpty || !options.allowedHostnames.isEmpty, !options.demandsCertificate {
                logger.warning("allowed names of certificates are not looked at: without \(side.flag("client-cert-auth")) or \(side.flag("trusted-ca-file")) none is asked for")
            }
            if options.requiresClientCertificate, options.trustedCAFile.isEmpty {
                logger.warning("\(side.flag("client-cert-auth")) without \(side.flag("trusted-ca-file")): certificates of all the system's authorities are accepted")
            }
            return TLSMaterial(side: side, options: options, rules: rules, isSelfSigned: isSelfSigned, logger: logger)
        }
        let client = try material(.client, configuration.tls.client, configuration.listenClientURLs + configuration.listenClientHTTPURLs)
        let peer = try material(.peer, configuration.tls.peer, configuration.listenPeerURLs)
        clients = NodePorts.ports(configuration.listenClientURLs, client)
        httpClients = NodePorts.ports(configuration.listenClientHTTPURLs, client)
        peers = NodePorts.ports(configuration.listenPeerURLs, peer)
        metrics = NodePorts.ports(configuration.listenMetricsURLs, client)
        if (clients + httpClients + metrics).contains(where: { $0.tls != nil }) { try client.load() }
        // A member may also come to need it later, when one with https:// joins: its files are read then.
        let dialsTLS = configuration.initialCluster.contains { $0.url.scheme == "https" }
        if dialsTLS || peers.contains(where: { $0.tls != nil }) { try peer.load() }
        dialer = PeerDialer(tls: peer)
    }

    /// One listener an address: http:// and https:// may share one.
    static func ports(_ urls: [NodeURL], _ material: TLSMaterial) -> [Port] {
        var ports: [Port] = []
        for url in urls where !ports.contains(where: { $0.url.authority == url.authority }) {
            let schemes = urls.filter { $0.authority == url.authority }.map(\.scheme)
            let tls = schemes.contains("https") ? TLSPort(material: material, acceptsPlaintext: schemes.contains("http")) : nil
            ports.append((url, tls))
        }
        return ports
    }
}
