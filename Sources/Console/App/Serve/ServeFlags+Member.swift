extension ServeFlags {
    static let member = ServeFlagGroup(title: "Member", flags: [
        ServeFlag("name", .text, "default", "Name of this member."),
        ServeFlag("data-dir", .text, "", "Where the data live. Nothing given: NAME.etcd."),
        ServeFlag("wal-dir", .text, "", "Directory for the log alone, for example on a disk of its own. Nothing given: below --data-dir. A member keeps to the one it "
            + "has begun with, or to where its files were moved."),
        ServeFlag("snapshot-count", .number(1...Int.max), "10000", "Entries applied between two compactions of the log."),
        ServeFlag("experimental-snapshot-catchup-entries", .number(1...Int.max), "5000", also: ["snapshot-catchup-entries", "experimental-snapshot-catch-up-entries"],
                  "Entries kept behind that for slow followers."),
        ServeFlag("heartbeat-interval", .number(1...10_000), "100", "Milliseconds."),
        ServeFlag("election-timeout", .number(1...50_000), "1000", "Milliseconds; at least five heartbeats."),
        ServeFlag("initial-election-tick-advance", .truth, "true", "A member that is its cluster's only voter leads at once when it starts, instead of after an election "
            + "timeout. With others around it waits for their leader either way."),
        ServeFlag("listen-peer-urls", .urls, "http://localhost:2380", "Where peers are heard."),
        ServeFlag("listen-client-urls", .urls, "http://localhost:2379", "Where clients are heard, over gRPC and HTTP."),
        ServeFlag("quota-backend-bytes", .number(Int.min...Int.max), "0", "Size at which the NOSPACE alarm goes off; 0 for 2 GiB, below 0 for never."),
        ServeFlag("max-txn-ops", .number(1...1_000_000), "128", "Operations in a transaction."),
        ServeFlag("max-request-bytes", .number(1...512 << 20), "1572864", "Bytes of a client's request."),
        ServeFlag("experimental-max-learners", .number(1...1_000), "1", also: ["max-learners"], "Learners at a time."),
        ServeFlag("socket-reuse-port", .truth, "false", "Let the ports be bound while another socket that allows it too has them (SO_REUSEPORT)."),
        ServeFlag("socket-reuse-address", .truth, "false", "Whatever it says, ports are bound with SO_REUSEADDR, as Go's programs do."),
        .idle("max-snapshots", .number(0...Int.max), "5", "the store is one file, and a snapshot from the leader replaces it."),
        .idle("max-wals", .number(0...Int.max), "5", "the log's files go as soon as --snapshot-count and the entries kept for slow followers allow it."),
        .idle("backend-bbolt-freelist-type", .choice(["map", "array"]), "map", "the store is no bbolt file."),
        .idle("backend-batch-interval", .time(atLeast: .zero), "0s", "what was applied goes into the store by its own rule, and is durable in the log before."),
        .idle("backend-batch-limit", .number(0...Int.max), "0", "what was applied goes into the store by its own rule, and is durable in the log before."),
        .idle("raft-read-timeout", .time(atLeast: .zero), "5s", "a connection between members that is dead is found by its heartbeats."),
        .idle("raft-write-timeout", .time(atLeast: .zero), "5s", "a connection between members that is dead is found by its heartbeats."),
    ])
}
