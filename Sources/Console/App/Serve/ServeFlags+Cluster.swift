extension ServeFlags {
    static let cluster = ServeFlagGroup(title: "Clustering", flags: [
        ServeFlag("initial-advertise-peer-urls", .urls, "http://localhost:2380", "Where peers find this member."),
        ServeFlag("initial-cluster", .text, "", "All first members, name=url separated by commas. Nothing given: this one alone."),
        ServeFlag("initial-cluster-state", .choice(["new", "existing"]), "new", "Whether to found a cluster or to join one."),
        ServeFlag("initial-cluster-token", .text, "etcd-cluster", "Tells this cluster from others."),
        ServeFlag("advertise-client-urls", .urls, "http://localhost:2379", "Where clients find this member."),
        ServeFlag("discovery-token", .text, "", "Find the first members under this token at --discovery-endpoints."),
        ServeFlag("discovery-endpoints", .list, "", "The cluster where first members find each other, host:port separated by commas."),
        ServeFlag("discovery-user", .text, "", "User there: name or name:password."),
        ServeFlag("discovery-password", .text, "", "Password there; --discovery-user then holds the name only."),
        ServeFlag("discovery-cacert", .text, "", "Verify it with this CA bundle."),
        ServeFlag("discovery-cert", .text, "", "Identify there with this certificate."),
        ServeFlag("discovery-key", .text, "", "Its key."),
        ServeFlag("discovery-srv", .text, "", "Find the first members in the DNS, under this domain."),
        ServeFlag("discovery-srv-name", .text, "", "A part of the service's name there."),
        ServeFlag("discovery-srv-resolver", .text, "", "Ask this name server, address:port, instead of the system's. (not in etcd)"),
        ServeFlag("strict-reconfig-check", .truth, "true", "Refuse membership changes that could cost the quorum."),
        ServeFlag("pre-vote", .truth, "true", "Ask whether an election could be won before a term is spent on it."),
        ServeFlag("auto-compaction-mode", .text, "periodic", "periodic or revision."),
        ServeFlag("auto-compaction-retention", .text, "0", "History to keep: a time such as 1h or 5m, or plain hours; in the mode revision a number of revisions; 0 for all."),
        .absent("discovery", .text, "", "the discovery service of etcd 2 is not supported: name the members with --initial-cluster, or use --discovery-token and "
            + "--discovery-endpoints, or --discovery-srv"),
        .idle("discovery-proxy", .text, "", "it belongs to --discovery, which is not supported."),
        .idle("discovery-fallback", .choice(["proxy", "exit"]), "proxy", "it belongs to --discovery, which is not supported; a discovery that fails ends the start."),
    ])
}
