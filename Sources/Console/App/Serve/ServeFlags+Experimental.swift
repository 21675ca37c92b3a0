import Base

extension ServeFlags {
    static let experimental = ServeFlagGroup(title: "Experimental in etcd", flags: [
        ServeFlag("experimental-initial-corrupt-check", .truth, "false", "Verify every record of the log and of the store before anything is served, as quarterdeck check does. "
            + "The other members are compared with while it runs, whatever this says."),
        ServeFlag("experimental-corrupt-check-time", .time(atLeast: .zero), "0s", also: ["corrupt-check-time"], "How often the members compare their states, if anything "
            + "was written. 0s is every second here: it costs next to nothing and cannot be switched off."),
        ServeFlag("experimental-enable-lease-checkpoint", .truth, "true", "A new leader goes on with what was left of a lease's time. (etcd: false)"),
        ServeFlag("experimental-enable-lease-checkpoint-persist", .truth, "true", "What is left is always kept durably. (etcd: false)"),
        ServeFlag("experimental-watch-progress-notify-interval", .time(atLeast: .zero), "10m", also: ["watch-progress-notify-interval"],
                  "How often a quiet watch that asked for it hears how far it has come; at least 100ms."),
        ServeFlag("experimental-warning-apply-duration", .time(atLeast: .zero), "100ms", also: ["warning-apply-duration"],
                  "Log a warning, and count it, when applying what was committed takes longer."),
        ServeFlag("experimental-memory-mlock", .truth, "false", also: ["memory-mlock"], "Keep every page that was touched in memory, the store's too (mlockall). Needs the right to: "
            + "LimitMEMLOCK=infinity, or CAP_IPC_LOCK."),
        ServeFlag("feature-gates", .list, "", "InitialCorruptCheck=true and the like (etcd 3.6): the same as the flags above."),
        .idle("experimental-compact-hash-check-enabled", .truth, "false", "the members compare a hash of everything they applied, all the time."),
        .idle("experimental-compact-hash-check-time", .time(atLeast: .zero), "1m0s", also: ["compact-hash-check-time"],
              "the members compare a hash of everything they applied, all the time."),
        .idle("experimental-compaction-batch-limit", .number(0...Int.max), "1000", also: ["compaction-batch-limit"], "compaction goes in small steps between requests."),
        .idle("experimental-compaction-sleep-interval", .time(atLeast: .zero), "10ms", also: ["compaction-sleep-interval"], "compaction goes in small steps between requests."),
        .idle("experimental-txn-mode-write-with-shared-buffer", .truth, "true", "transactions read a snapshot in memory and have no such buffer."),
        .idle("experimental-bootstrap-defrag-threshold-megabytes", .number(0...Int.max), "0", also: ["bootstrap-defrag-threshold-megabytes"],
              "freed pages of the store are used again without defragmentation."),
        .idle("experimental-stop-grpc-service-on-defrag", .truth, "false", "defragmentation is answered at once and blocks nothing."),
        .idle("experimental-downgrade-check-time", .time(atLeast: .zero), "5s", also: ["downgrade-check-time"], "nothing here acts on a downgrade."),
        .idle("experimental-warning-unary-request-duration", .time(atLeast: .zero), "300ms", also: ["warning-unary-request-duration"],
              "single slow requests are not logged; the console shows where the time goes."),
        .idle("experimental-wait-cluster-ready-timeout", .time(atLeast: .zero), "5s", "ports are open before there is a leader, and requests wait for one."),
    ])

    /// Of etcd 2 and its leftovers in 3.5.
    static let old = ServeFlagGroup(title: "etcd 2", flags: [
        .absent("enable-v2", .truth, "false", unless: ["false"], "the API of etcd 2 is not here: move its clients to v3 first"),
        .absent("experimental-enable-v2v3", .text, "", "the API of etcd 2 is not here, nor served from v3's keys: move its clients to v3 first"),
        .idle("v2-deprecation", .choice(["not-yet", "write-only", "write-only-drop-data", "gone"]), "not-yet", "there is no store of etcd 2."),
        .absent("proxy", .choice(["off", "readonly", "on"]), "off", unless: ["off"], "the proxy of etcd 2 is not here: put a TCP proxy, or etcd grpc-proxy, before the cluster"),
        .idle("proxy-failure-wait", .number(0...Int.max), "5000", "there is no proxy."),
        .idle("proxy-refresh-interval", .number(0...Int.max), "30000", "there is no proxy."),
        .idle("proxy-dial-timeout", .number(0...Int.max), "1000", "there is no proxy."),
        .idle("proxy-write-timeout", .number(0...Int.max), "5000", "there is no proxy."),
        .idle("proxy-read-timeout", .number(0...Int.max), "0", "there is no proxy."),
    ])

    static let unsafe = ServeFlagGroup(title: "Unsafe", flags: [
        ServeFlag("force-new-cluster", .truth, "false", "Go on alone from this member's data; all other members are out of the cluster."),
        ServeFlag("unsafe-no-fsync", .truth, "false", "Never wait for the disk. A power cut then takes acknowledged writes, votes and perhaps the whole member; the end of "
            + "the process alone does not. For tests."),
    ])

    static let own = ServeFlagGroup(title: "Elsewhere", flags: [
        ServeFlag("config-file", .text, "", "Take everything from this file (YAML or JSON, etcd's keys); flags and variables count for nothing then."),
        ServeFlag("supervised", .number(1...Int(Int32.max)), "", isHidden: true, "Obey the console with this process number: orders come on standard input, and its end is ours."),
    ])
}
